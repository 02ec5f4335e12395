"""Where the pictures of a result can be read again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from marsretrieval.datasets import ImageSource, open_images
from marsretrieval.embeddings import EmbeddingStore, open_store
from marsretrieval.errors import MarsRetrievalError
from marsretrieval.files import is_safe_name
from marsretrieval.report.result_file import ResultFile

_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Place:
    """Images, and stores that may know in which shard each of them is and what it held."""

    path: Path
    source: ImageSource
    stores: Sequence[EmbeddingStore] = ()


def places(file: ResultFile, images: Sequence[Path]) -> Iterator[Place]:
    """The places named by the user, then what the stores beside the result recorded.

    A place that cannot be opened is passed over: the page says where pictures are missing.
    """
    stores = list(_stores(file))
    for path in (_of_dataset(each, file) for each in images):
        if (path / _MANIFEST).is_file():
            yield from _recorded(path)
        else:
            yield from _open(path, stores)
    for store in stores:
        yield from _open(Path(store.dataset["name"]), [store])


def example_images(found: Iterable[Place], landform: str) -> ImageSource | None:
    """The example images of a landform beside the tiles, where they still are."""
    for place in found:
        folder = place.path.parent / "image_queries" / landform
        if landform in ("", ".", "..") or "/" in landform or not folder.is_dir():
            continue
        try:
            return open_images(folder)
        except (MarsRetrievalError, OSError):
            continue
    return None


def _of_dataset(path: Path, file: ResultFile) -> Path:
    """The dataset of this result inside a folder of datasets; else the path itself."""
    name = str(file.result.data.get("name", ""))
    inside = path / name if is_safe_name(name) else path
    if not inside.is_dir():
        inside = path
    tiles = inside / "tiles"
    return tiles if file.result.task == "geolocalization" and tiles.is_dir() else inside


def _stores(file: ResultFile) -> Iterator[EmbeddingStore]:
    if file.path is None:
        return
    name = str(file.result.data.get("name", ""))
    folder = file.path.parent / "embeddings"
    for path in sorted(folder.glob("*/images")):
        if path.parent.name.rpartition("-")[0] == name and (path / _MANIFEST).is_file():
            try:
                yield open_store(path)
            except MarsRetrievalError:
                continue


def _recorded(path: Path) -> Iterator[Place]:
    """The images that a store was made from, where they still are."""
    try:
        store = open_store(path)
    except MarsRetrievalError:
        return
    yield from _open(Path(store.dataset["name"]), [store])


def _open(path: Path, stores: Sequence[EmbeddingStore]) -> Iterator[Place]:
    try:
        yield Place(path, open_images(path), stores)
    except (MarsRetrievalError, OSError):
        return
