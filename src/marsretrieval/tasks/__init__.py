"""Tasks of the benchmark, and a lookup by name."""

from __future__ import annotations

import importlib
import sys
from functools import cache, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marsretrieval.errors import UnknownNameError, UsageError
from marsretrieval.lazy import lazy_exports
from marsretrieval.tasks.base import Hits, Outcome, Settings, Task, TaskData, read_class_names

if TYPE_CHECKING:
    from marsretrieval.tasks.geolocalization import Geolocalization
    from marsretrieval.tasks.landform import LandformRetrieval
    from marsretrieval.tasks.paired_image_text import PairedImageText

    TASKS: tuple[Task, ...]

__all__ = [
    "TASKS",
    "Geolocalization",
    "Hits",
    "LandformRetrieval",
    "Outcome",
    "PairedImageText",
    "Settings",
    "Task",
    "TaskData",
    "find_task",
    "read_class_names",
    "task_info",
]

# Module and class of each built-in task, by name.
_BUILTIN = {
    "paired-image-text": ("marsretrieval.tasks.paired_image_text", "PairedImageText"),
    "landform": ("marsretrieval.tasks.landform", "LandformRetrieval"),
    "geolocalization": ("marsretrieval.tasks.geolocalization", "Geolocalization"),
}
_load_class, _ = lazy_exports(__name__, {module: (name,) for module, name in _BUILTIN.values()})


@cache
def _builtin_task(name: str) -> Task:
    task: Task = _load_class(_BUILTIN[name][1])()
    return task


def __getattr__(name: str) -> Any:
    if name == "TASKS":  # needs the modules of all tasks
        return tuple(map(_builtin_task, _BUILTIN))
    return _load_class(name)


def __dir__() -> list[str]:
    return sorted(__all__)


_TEXT_ATTRIBUTES = ("name", "title", "folder_name", "vector_dtype", "main_metric")
_METHODS = ("open", "missing_modality", "evaluate")


def find_task(name: str) -> Task:
    """Find a task by its name, an alias, or a class as ``module:Class``.

    Args:
        name: Name, alias, or ``package.module:Class`` importable from the environment or from the
            current folder.

    Returns:
        The task.

    Raises:
        UnknownNameError: If no built-in task has this name.
        UsageError: If the class cannot be imported or is not a task.
    """
    if ":" in name:
        return _import_task(name)
    if name.lower() in _BUILTIN:
        return _builtin_task(name.lower())
    builtin_tasks = [_builtin_task(key) for key in _BUILTIN]
    for task in builtin_tasks:
        if name.lower() in (task.name, *task.aliases):
            return task
    raise UnknownNameError(
        "task", name, list(_BUILTIN),
        remedy="Give your own task as package.module:Class.",
    )  # fmt: skip


def task_info(task: Task) -> dict[str, Any]:
    """Describe a custom task, for the tables of its results.

    Args:
        task: Any task.

    Returns:
        Title, main metric and, if the task has them, its `metrics`; empty for built-in tasks.
    """
    if (type(task).__module__, type(task).__qualname__) in _BUILTIN.values():
        return {}
    info: dict[str, Any] = {
        "title": task.title,
        "main_metric": task.main_metric,
        "target": f"{type(task).__module__}:{type(task).__qualname__}",
    }
    metrics = getattr(task, "metrics", None)
    if isinstance(metrics, dict):
        info["metrics"] = {str(key): dict(value) for key, value in metrics.items()}
    return info


def _import_task(target: str) -> Task:
    module, _, name = target.partition(":")
    current_folder = str(Path.cwd())
    if current_folder not in sys.path:
        sys.path.append(current_folder)
    remedy = "Give it as package.module:Class, importable from the current folder."
    try:
        value = reduce(getattr, name.split("."), importlib.import_module(module))
        task = value() if isinstance(value, type) else value
    except Exception as error:  # a user's module may raise anything at import
        raise UsageError(
            f"task '{target}' cannot be imported ({type(error).__name__}: {error})", remedy=remedy
        ) from error
    missing = [key for key in _TEXT_ATTRIBUTES if not isinstance(getattr(task, key, None), str)]
    missing += [method for method in _METHODS if not callable(getattr(task, method, None))]
    if missing:
        raise UsageError(
            f"task '{target}' lacks {', '.join(missing)}",
            remedy="docs/howto/task.md has a complete example.",
        )
    builtin_tasks = [_builtin_task(key) for key in _BUILTIN]
    if any(task.name in (builtin.name, *builtin.aliases) for builtin in builtin_tasks):
        raise UsageError(
            f"task '{target}' has the name of a built-in task, {task.name}",
            remedy="Give it another name.",
        )
    return task
