"""The two verbs of this package: download, and say what would be downloaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from marsretrieval.datasets.download._report import Plan, Report
from marsretrieval.datasets.download._settings import FetchSettings
from marsretrieval.datasets.download._sources import find_source
from marsretrieval.errors import MissingDependencyError
from marsretrieval.progress import NO_PROGRESS, Progress


def download(
    name: str,
    out: Path,
    *,
    variant: str | None = None,
    revision: str | None = None,
    offline: bool = False,
    cache: Path | None = None,
    settings: FetchSettings | None = None,
    progress: Progress = NO_PROGRESS,
) -> Report:
    """Bring a dataset into its folder below `out`; what is there and whole is kept.

    name: `paired`, `landform` or `geolocalization`, or the name of the task or folder.
    variant: of paired: `whole` (default: images as they were fetched), `published` (512 px crops
        as the published pipeline makes them) or `frozen` (a copy with the images inside).
    revision: a commit, branch or tag; by default what lies there already, else the pinned one.
    offline: ask nobody; what is in the folder, or in the hub's cache, must do.
    cache: where fetched images are kept (default: hidden in the dataset's folder).

    Raises UsageError (unknown name; the folder holds something else), DatasetNotFoundError,
    DataError (network, damage), OutputError (no room, not writable), MissingDependencyError.
    """
    source = find_source(name, variant)
    _need_libraries()
    folder = out / source.folder
    if source.links:
        from marsretrieval.datasets.download._linked import download_linked

        return download_linked(
            source, folder, revision=revision, offline=offline, cache=cache,
            settings=settings or FetchSettings(), progress=progress,
        )  # fmt: skip
    from marsretrieval.datasets.download._hosted import download_hosted

    return download_hosted(source, folder, revision=revision, offline=offline, progress=progress)


def plan_download(
    name: str,
    out: Path,
    *,
    variant: str | None = None,
    revision: str | None = None,
    cache: Path | None = None,
) -> Plan:
    """What `download` would fetch. Asks the hub, writes nothing. Raises as `download` does."""
    source = find_source(name, variant)
    _need_libraries()
    from marsretrieval.datasets.download._plan import make_plan

    return make_plan(source, out / source.folder, revision=revision, cache=cache)


def _need_libraries() -> None:
    for module, package in (("huggingface_hub", "huggingface-hub"), ("httpx2", "httpx2")):
        if importlib.util.find_spec(module) is None:
            raise MissingDependencyError(package, "download", needed_for="downloading datasets")
