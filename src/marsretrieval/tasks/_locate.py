"""Where a task's dataset lies below the folder that the user names."""

from __future__ import annotations

from pathlib import Path

from marsretrieval.errors import DatasetNotFoundError


def dataset_folder(data: Path, name: str, *, task: str) -> Path:
    """`data`/`name` where there is such a folder, else `data` itself.

    So ``--data data`` serves all tasks, and ``--data patches`` a dataset of one's own.
    Raises DatasetNotFoundError when there is no folder, or one that holds other datasets only.
    """
    remedy = (
        f"Fetch it (marsretrieval data download), make a synthetic one (marsretrieval data synth "
        f"--out {data}), or name the folder with --data."
    )
    if not data.is_dir():
        raise DatasetNotFoundError(f"{data}: no such folder (data of task {task})", remedy=remedy)
    if (data / name).is_dir():
        return data / name
    others = sorted(path.name for path in data.iterdir() if path.name.startswith("Mars-"))
    if others:
        raise DatasetNotFoundError(
            f"{data}: no {name} here for task {task} (there is {', '.join(others)})", remedy=remedy
        )
    if not any(data.iterdir()):
        raise DatasetNotFoundError(f"{data}: an empty folder (data of task {task})", remedy=remedy)
    return data
