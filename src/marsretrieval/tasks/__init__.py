"""The benchmark's tasks, and how to find one by name."""

from __future__ import annotations

from marsretrieval.errors import UnknownNameError
from marsretrieval.tasks._class_names import read_class_names
from marsretrieval.tasks._protocol import Hits, Outcome, Settings, Task, TaskData
from marsretrieval.tasks.geolocalization import Geolocalization
from marsretrieval.tasks.landform import LandformRetrieval
from marsretrieval.tasks.paired_image_text import PairedImageText

__all__ = [
    "TASKS",
    "Geolocalization",
    "Hits",
    "LandformRetrieval",
    "Outcome",
    "Settings",
    "Task",
    "TaskData",
    "find_task",
    "read_class_names",
]

TASKS: tuple[Task, ...] = (PairedImageText(), LandformRetrieval(), Geolocalization())


def find_task(name: str) -> Task:
    """A task by its name or one of its aliases. Raises UnknownNameError."""
    for task in TASKS:
        if name.lower() in (task.name, *task.aliases):
            return task
    raise UnknownNameError("task", name, [task.name for task in TASKS])
