"""Score embeddings and rankings that were computed elsewhere, as `run` scores those of a model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL.Image import Image

from marsretrieval.datasets.base import Record, Skipped
from marsretrieval.datasets.embedding_files import EmbeddingFile, read_embeddings
from marsretrieval.datasets.submissions import read_run
from marsretrieval.embeddings.manifest import Entry
from marsretrieval.embeddings.pipeline import decode_records
from marsretrieval.embeddings.plan import create_or_validate, plan_shards
from marsretrieval.embeddings.shards import Item, write_shard
from marsretrieval.embeddings.store import EmbeddingStore, open_store
from marsretrieval.encoders.base import LoadOptions, Modality, ModelSpec, TextRole, Vectors
from marsretrieval.errors import DataError, ModalityError
from marsretrieval.evaluation.jobs import Job, check_name, require_used_options
from marsretrieval.evaluation.runner import make_result, move_earlier, write_result
from marsretrieval.io import check_output, locked, output_folder, sha256_file
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.results import (
    ResultKey,
    RunResult,
    choose_path,
    read_result,
    results_of_task,
)
from marsretrieval.system import usable_cpus
from marsretrieval.tasks import Settings, Task, TaskData
from marsretrieval.tasks.ablation import task_options
from marsretrieval.tasks.base import Outcome
from marsretrieval.tasks.external import (
    EmbeddingItem,
    evaluate_run,
    iter_items,
    list_items,
    query_ids,
)
from marsretrieval.tasks.geolocalization import Geolocalization
from marsretrieval.tasks.thumbnails import make_thumbnails


class _ImageVectors(Protocol):
    """Vectors of images, looked up shard by shard."""

    def take(self, ids: Sequence[str]) -> tuple[list[int], npt.NDArray[Any]]:
        """Return the positions in `ids` of the ids with a vector, and their vectors."""

    def finish(self, unreadable: Sequence[str]) -> None:
        """Raise DataError if the ids of all shards and those of the vectors do not match."""


_BATCH = 64
_SAME = 1e-3  # largest difference of two vectors of one text
_FAMILY = "external"


class StoredEncoder:
    """Encoder that looks up vectors which were computed elsewhere.

    Attributes:
        id: Name of the model.
        dimension: Vector dimension.
        fingerprint: Name of the model, and kind, name and hash of the file.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        kind: Literal["embeddings", "run"],
        dimension: int,
        texts: Mapping[str, Vectors] | None = None,
        examples: Mapping[str, Vectors] | None = None,
    ) -> None:
        """Create an encoder.

        Args:
            name: Name of the model.
            path: The file of vectors or rankings.
            kind: "embeddings" or "run".
            dimension: Vector dimension.
            texts: Text to vector.
            examples: Id of an example image ("LANDFORM/ID") to vector.
        """
        self.id = name
        self.dimension = dimension
        self.fingerprint: dict[str, Any] = {
            "id": name,
            "computed_elsewhere": True,
            "source": {
                "kind": kind,
                "name": path.name,
                "sha256": sha256_file(path),
            },
        }
        self._texts = texts or {}
        self._examples = examples or {}

    @property
    def modalities(self) -> frozenset[Modality]:
        """Inputs with vectors."""
        return frozenset({"image", "text"} if self._texts else {"image"})

    @property
    def preprocess(self) -> Callable[[Image], Any]:
        """Not available: images are not embedded here."""
        raise ModalityError(f"{self.id} was computed elsewhere and embeds no images")

    def encode_preprocessed(self, features: Sequence[Any]) -> Vectors:
        """Not available: images are not embedded here.

        Args:
            features: Ignored.

        Raises:
            ModalityError: Always.
        """
        raise ModalityError(f"{self.id} was computed elsewhere and embeds no images")

    def encode_images(self, images: Sequence[Image]) -> Vectors:
        """Not available: images are not embedded here.

        Args:
            images: Ignored.

        Raises:
            ModalityError: Always.
        """
        raise ModalityError(f"{self.id} was computed elsewhere and embeds no images")

    def encode_texts(self, texts: Sequence[str], *, role: TextRole = "query") -> Vectors:
        """Look up the vectors of texts.

        Args:
            texts: n texts of the task.
            role: Ignored.

        Returns:
            float32 array of shape (n, dimension), unit rows.

        Raises:
            DataError: If a text has no vector.
        """
        missing = [text for text in texts if text not in self._texts]
        if missing:
            raise DataError(f"{self.id}: no vector for the text {missing[0]!r}")
        return np.stack([self._texts[text] for text in texts])

    def count_truncated(self, texts: Sequence[str], *, role: TextRole = "query") -> int | None:
        """Return None: unknown for vectors that were computed elsewhere.

        Args:
            texts: Ignored.
            role: Ignored.

        Returns:
            None.
        """
        return None

    def example_vectors(self, landform: str, ids: Sequence[str]) -> Vectors:
        """Look up the vectors of the example images of a landform.

        Args:
            landform: Name of the landform.
            ids: Ids of the images within the folder of the landform.

        Returns:
            float32 array of shape (n, dimension), unit rows.
        """
        return np.stack([self._examples[f"{landform}/{key}"] for key in ids])


def score_embeddings(
    task: Task,
    embeddings: str | Path,
    *,
    data: str | Path,
    name: str,
    results: str | Path,
    settings: Settings | None = None,
    force: bool = False,
    progress: Progress = NO_PROGRESS,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Path, RunResult]:
    """Score embeddings that were computed elsewhere, and write a result as `run` does.

    Args:
        task: A built-in task.
        embeddings: File of vectors, see `read_embeddings`; ids are those of `list_items`.
        data: Folder of datasets, or one dataset.
        name: Name of the model in tables and folders.
        results: Folder of results.
        settings: Settings of the evaluation; default: those of `run`.
        force: Score again what is done.
        progress: Receives the progress.
        say: Receives notes.

    Returns:
        Path of the result, and the result, which is marked as computed elsewhere.

    Raises:
        DataError: If ids are missing, unknown or repeated, or the data cannot be scored.
        ModalityError: If the vectors of texts are missing that the task needs.
        UsageError: If the name is invalid, or an option of the task has no effect.
        OutputError: If the result cannot be written.
    """
    check_name(name)
    task_data = task.open(Path(data))
    file = read_embeddings(embeddings)
    for note in (*task_data.notes, *file.notes):
        say(note)
    task_data, items = _drop_missing_examples(task, task_data, file, say)
    encoder = _make_encoder(task, task_data, file, items, name)
    require_used_options(task, task_data, encoder.modalities, name)
    # A planet's vectors and list of items take gigabytes: each is released after its last use.
    listed_ids = _image_ids(items)
    unmatched, notes = [file], file.notes
    del items, file

    def open_vectors() -> _ImageVectors:
        return unmatched.pop().match_shards("image", listed_ids)

    def evaluate(store: EmbeddingStore, scratch: Path, settings: Settings) -> Outcome:
        return task.evaluate(task_data, encoder, store, scratch, settings, progress)

    return _score(
        task, task_data, encoder, len(listed_ids), open_vectors, evaluate, results=Path(results),
        settings=settings, force=force, notes=notes, progress=progress, say=say,
    )  # fmt: skip


def score_run(
    task: Task,
    run: str | Path,
    *,
    data: str | Path,
    name: str,
    results: str | Path,
    settings: Settings | None = None,
    force: bool = False,
    progress: Progress = NO_PROGRESS,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Path, RunResult]:
    """Score rankings that were computed elsewhere, and write a result as `run` does.

    Args:
        task: A built-in task.
        run: TREC run file, see `read_run`; the queries are those of `query_ids`, the items those
            of `list_items`.
        data: Folder of datasets, or one dataset.
        name: Name of the model in tables and folders.
        results: Folder of results.
        settings: Settings of the evaluation; default: those of `run`.
        force: Score again what is done.
        progress: Receives the progress.
        say: Receives notes.

    Returns:
        Path of the result, and the result, which is marked as a ranking computed elsewhere.

    Raises:
        DataError: If the file is invalid, ids are missing or unknown, or the data cannot be scored.
        UsageError: If the name is invalid.
        OutputError: If the result cannot be written.
    """
    check_name(name)
    task_data = task.open(Path(data))
    for note in task_data.notes:
        say(note)
    rankings = read_run(run)
    rankings.require_queries([], optional=query_ids(task, task_data))
    # The store holds ids, contents and positions; its vectors are not used.
    encoder = StoredEncoder(name, rankings.path, kind="run", dimension=1)

    listed = set(_image_ids(iter_items(task, task_data)))

    def evaluate(store: EmbeddingStore, scratch: Path, settings: Settings) -> Outcome:
        return evaluate_run(task, task_data, rankings, store, settings, progress)

    return _score(
        task, task_data, encoder, len(listed), lambda: _NoVectors(listed), evaluate,
        results=Path(results), settings=settings, force=force, notes=(), progress=progress, say=say,
    )  # fmt: skip


def _score(
    task: Task,
    task_data: TaskData,
    encoder: StoredEncoder,
    image_count: int,
    open_vectors: Callable[[], _ImageVectors],
    evaluate: Callable[[EmbeddingStore, Path, Settings], Outcome],
    *,
    results: Path,
    settings: Settings | None,
    force: bool,
    notes: Sequence[str],
    progress: Progress,
    say: Callable[[str], None],
) -> tuple[Path, RunResult]:
    """Build a store of the images, evaluate, and write the result, unless it exists."""
    name, source = encoder.id, encoder.fingerprint["source"]
    settings = replace(settings or Settings(), options=task_options(task))
    folder = results / name
    job = Job(
        ModelSpec.unregistered(name, name=name, family=_FAMILY, loader="computed:elsewhere"),
        LoadOptions(), task, task_data, settings, folder, store=Path(), own_store=True,
        status="to do", result_path=folder / f"{task.name}.json",
        identity={f"{source['kind']}_sha256": source["sha256"]},
    )  # fmt: skip
    for path, earlier in results_of_task(folder, task.name):
        if earlier.model.get("id") != name or not earlier.computed_elsewhere:
            raise DataError(
                f"{folder}: holds results of {earlier.model.get('id')}, computed by run",
                remedy="Choose another name with --name, or another folder with --results.",
            )
        if earlier.request == job.request and not force:
            say(f"{name} on {task.name}: already done")
            return path, read_result(path)
    check_output(job.result_path)
    with (
        output_folder(folder),
        tempfile.TemporaryDirectory(prefix=".scoring-", dir=folder) as scratch,
    ):
        store = _build_store(
            task, task_data, open_vectors(), image_count, encoder, Path(scratch), progress
        )
        outcome = evaluate(store, Path(scratch), settings)
        thumbnails, warnings = make_thumbnails(outcome, task_data, store, progress)
        outcome = replace(outcome, notes=[*notes, *outcome.notes, *warnings])
        for note in outcome.notes[len(notes) :]:
            say(note)
        result = make_result(job, encoder, store, outcome, None)
        if result.from_ranking:
            result = replace(result, model={**result.model, "dimension": None})
        with locked(folder):
            path = choose_path(folder, ResultKey.from_result(result))
            move_earlier(path, job.request, say)
            write_result(path, result, outcome, thumbnails)
    return path, result


class _NoVectors:
    """A vector of ones for each listed image, for rankings without vectors."""

    def __init__(self, listed: set[str]) -> None:
        self._listed = listed

    def take(self, ids: Sequence[str]) -> tuple[list[int], npt.NDArray[Any]]:
        chosen = [number for number, key in enumerate(ids) if key in self._listed]
        return chosen, np.ones((len(chosen), 1), np.float32)

    def finish(self, unreadable: Sequence[str]) -> None:
        """Accept any ids: those of a ranking are checked when it is scored."""


def _image_ids(items: Iterable[EmbeddingItem]) -> list[str]:
    return [item.id for item in items if item.kind == "image"]


def _drop_missing_examples(
    task: Task, data: TaskData, file: EmbeddingFile, say: Callable[[str], None]
) -> tuple[TaskData, list[EmbeddingItem]]:
    """Leave out the example images if the file has no vectors of them."""
    items = list_items(task, data)
    if isinstance(task, Geolocalization) and "example" not in file.sets:
        count = sum(item.kind == "example" for item in items)
        if count:
            say(
                f"{file.path}: no vectors of the {count:,} example images: text queries only, no "
                "image and hybrid queries"
            )
            data = replace(data, annotations=replace(data.annotations, examples={}))
            items = [item for item in items if item.kind != "example"]
    return data, items


def _make_encoder(
    task: Task, data: TaskData, file: EmbeddingFile, items: Sequence[EmbeddingItem], name: str
) -> StoredEncoder:
    """Match texts and examples with the file; raise ModalityError if needed texts are missing."""
    listed = {item.kind for item in items}
    for kind in file.sets.keys() - listed:
        raise DataError(
            f"{file.path}: vectors of kind '{kind}', which {task.name} does not use",
            remedy="Leave them out; marsretrieval data items lists what to embed.",
        )
    texts: dict[str, Vectors] = {}
    for kind in ("text", "prompt"):
        of_kind = [item for item in items if item.kind == kind]
        if not of_kind or kind not in file.sets:
            continue
        vectors = file.match(kind, [item.id for item in of_kind])
        for item in of_kind:
            vector = texts.setdefault(item.text, vectors[item.id])
            if np.abs(vector - vectors[item.id]).max() > _SAME:
                raise DataError(
                    f"{file.path}: two vectors for one text: {item.id} ({item.text!r})",
                    remedy="Embed equal texts to equal vectors.",
                )
    examples: Mapping[str, Vectors] = {}
    if "example" in listed:
        examples = file.match("example", [item.id for item in items if item.kind == "example"])
    encoder = StoredEncoder(
        name, file.path, kind="embeddings", dimension=file.dimension, texts=texts, examples=examples
    )
    missing = task.missing_modality(data, encoder.modalities)
    if missing is not None:
        kind = "text" if "text" in listed else "prompt"
        raise ModalityError(
            f"{file.path}: no vectors of kind '{kind}', which {task.name} needs",
            remedy="marsretrieval data items lists the texts to embed.",
        )
    return encoder


def _build_store(
    task: Task,
    data: TaskData,
    vectors: _ImageVectors,
    image_count: int,
    encoder: StoredEncoder,
    scratch: Path,
    progress: Progress,
) -> EmbeddingStore:
    """Write a store of the vectors; images are decoded, so that the same ones count as in `run`.

    Each shard is written as soon as it is decoded, so that memory holds the items of one.
    """
    assert data.source is not None
    shards = data.source.shards()
    plan = plan_shards(
        shards, scratch / "images", name=data.source.name, dataset_kind=data.source.kind,
        kind="image", dtype=task.vector_dtype,
    )  # fmt: skip
    manifest = create_or_validate(plan, encoder, request=None)
    unreadable: list[str] = []
    with (
        progress.start("read images", image_count, "images") as bar,
        ThreadPoolExecutor(usable_cpus()) as pool,
    ):
        for shard in shards:
            items: list[Item] = []
            skipped: list[Skipped] = []
            ids: set[str] = set()
            for result in _decode(pool, data.source.read(shard)):
                if isinstance(result, Skipped):
                    skipped.append(result)
                elif result.id in ids:
                    skipped.append(Skipped(result.id, result.source, "duplicate id in one shard"))
                else:
                    ids.add(result.id)
                    items.append(result)
                bar.advance()
            unreadable += [item.id for item in skipped]
            chosen, matrix = vectors.take([item.id for item in items])
            entry = Entry(
                shard=shard.name, fingerprint=shard.fingerprint, made_by=manifest.made_by,
                skipped=tuple(skipped),
            )  # fmt: skip
            write_shard(
                scratch / "images", entry, [items[number] for number in chosen],
                matrix.astype(manifest.dtype, copy=False).reshape(-1, manifest.dimension),
                manifest.dtype,
            )  # fmt: skip
    vectors.finish(unreadable)
    return open_store(scratch / "images")


def _decode(
    pool: ThreadPoolExecutor, records: Iterator[Record | Skipped]
) -> Iterator[Item | Skipped]:
    """Decode records in order, a batch per thread at a time."""

    def decode(batch: Sequence[Record | Skipped]) -> list[Item | Skipped]:
        results: list[Item | Skipped] = []
        for record in batch:
            if isinstance(record, Skipped):
                results.append(record)
                continue
            outcome = decode_records([record], [])[0]
            results.append(outcome if isinstance(outcome, Skipped) else outcome.item)
        return results

    batches_at_once = 2 * usable_cpus()
    while group := list(islice(records, _BATCH * batches_at_once)):
        batches = (group[start : start + _BATCH] for start in range(0, len(group), _BATCH))
        for results in pool.map(decode, batches):
            yield from results
