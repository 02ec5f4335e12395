"""Options of the benchmark that differ from the published protocol: the paper's ablations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from marsretrieval.errors import UsageError
from marsretrieval.tasks.base import Task, TaskData, read_class_names

if TYPE_CHECKING:
    from marsretrieval.encoders.base import Modality
    from marsretrieval.tasks.paired_image_text import Caption

_PACKAGE = __name__.rpartition(".")[0] + "."

# Tasks that each option applies to.
_APPLIES: Mapping[str, tuple[str, ...]] = {
    "caption": ("paired-image-text",),
    "templates": ("landform", "geolocalization"),
    "class_names": ("landform",),
    "queries": ("landform",),
    "radius": ("geolocalization",),
    "depth": ("geolocalization",),
    "image_weight": ("geolocalization",),
    "examples": ("geolocalization",),
}


@runtime_checkable
class ChecksOptions(Protocol):
    """A task that reports options without effect. Custom tasks may implement it."""

    def unused_options(self, data: TaskData, modalities: frozenset[Modality]) -> dict[str, str]:
        """Return the options that have no effect with these data and a model.

        Args:
            data: Data of the task.
            modalities: Modalities of the model.

        Returns:
            Option to the reason.
        """


@dataclass(frozen=True, slots=True)
class Ablation:
    """Options of the tasks; None leaves the published protocol.

    Attributes:
        caption: "refined" or "original" captions (paired image-text retrieval).
        templates: Number of published prompt templates, a file, or the templates.
        class_names: File of class names, or label to name (landform retrieval).
        queries: "text" or "images" (landform retrieval).
        radius: Tolerance in degrees (geo-localization).
        depth: Depth of the rankings (geo-localization).
        image_weight: Weight of the images in hybrid queries (geo-localization).
        examples: Number of example images per landform, drawn by the seed (geo-localization).
    """

    caption: str | None = None
    templates: str | int | Path | Sequence[str] | None = None
    class_names: str | Path | Mapping[str, str | None] | None = None
    queries: str | None = None
    radius: float | None = None
    depth: int | None = None
    image_weight: float | None = None
    examples: int | None = None

    def apply(self, tasks: Sequence[Task]) -> list[Task]:
        """Set the options of tasks.

        Args:
            tasks: The tasks.

        Returns:
            The tasks; new objects where an option applies.

        Raises:
            UsageError: If an option is given that applies to none of the tasks, or is invalid.
            DataError: If a file cannot be read.
        """
        options = [option.name for option in fields(self)]
        values = {name: value for name in options if (value := getattr(self, name)) is not None}
        for name in values:
            if not any(_applies(name, task) for task in tasks):
                names = _APPLIES[name]
                raise UsageError(
                    f"--{name.replace('_', '-')} requires the {' or '.join(names)} task",
                    remedy=f"Use -t {names[0]}, or leave it out.",
                )
        if "templates" in values:
            from marsretrieval.search.query import choose_templates

            values["templates"] = choose_templates(values["templates"])
        if isinstance(values.get("class_names"), str | Path):
            values["class_names"] = read_class_names(values["class_names"])
        return [_with_options(task, values) for task in tasks]


def _applies(option: str, task: Task) -> bool:
    """Return whether an option applies to a task: a built-in one, not a class derived from it."""
    return task.name in _APPLIES[option] and type(task).__module__.startswith(_PACKAGE)


def _with_options(task: Task, values: Mapping[str, Any]) -> Task:
    options = {name: value for name, value in values.items() if _applies(name, task)}
    if not options:
        return task
    from marsretrieval.tasks.geolocalization import Geolocalization
    from marsretrieval.tasks.landform import LandformRetrieval
    from marsretrieval.tasks.paired_image_text import PairedImageText

    if type(task) is PairedImageText:
        return PairedImageText(caption=cast("Caption", options["caption"]))
    if type(task) is LandformRetrieval:
        current: dict[str, Any] = {
            "class_names": task.class_names,
            "templates": task.templates,
            "queries": task.queries,
        }
        return LandformRetrieval(**{**current, **options})
    assert type(task) is Geolocalization
    names = ("columns", "covered_only", "radius", "depth", "templates", "image_weight", "examples")
    return Geolocalization(**{**{name: getattr(task, name) for name in names}, **options})


def task_options(task: Task) -> dict[str, Any]:
    """Return the options of a task that differ from the published protocol.

    Args:
        task: Any task; a custom one may have an attribute `options`.

    Returns:
        Option to value; empty for tasks without options.
    """
    options = getattr(task, "options", None)
    return dict(options) if isinstance(options, Mapping) else {}
