"""Read files of vectors that were computed elsewhere: Parquet, .npz and .safetensors."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marsretrieval.datasets.embedding_match import (
    ShardMatch,
    VectorLookup,
    VectorSet,
    index_rows,
    require_same_ids,
)
from marsretrieval.errors import DataError, DatasetNotFoundError, MissingDependencyError
from marsretrieval.text import list_some, missing_file, pluralize, suggest_path

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

KINDS = ("image", "text", "prompt", "example")
_UNIT_TOLERANCE = 1e-3
_NAMED = 3  # ids named in a message
_BLOCK = 65_536  # rows converted at a time, to bound memory
_READ = 8192  # rows read at a time
_IDS_REMEDY = "Write the ids as a JSON list: json.dumps(ids)."
_DIMENSION_REMEDY = "Embed images and texts with one model, to vectors of one dimension."
_SAFETENSORS_TYPES = ("F16", "F32", "F64")
_REMEDY = (
    "Use a .parquet file with the columns id, kind and vector, or a .npz or .safetensors file with "
    "an array per kind (image, text, prompt, example) and its ids (image_ids, ...)."
)


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingFile:
    """Contents of a file of vectors.

    Attributes:
        path: The file.
        sets: Kind of item to its vectors.
        notes: What was done while reading.
    """

    path: Path
    sets: Mapping[str, VectorSet]
    notes: tuple[str, ...] = ()

    @property
    def dimension(self) -> int:
        """Vector dimension."""
        return int(next(iter(self.sets.values())).vectors.shape[1])

    def match(
        self, kind: str, required: Sequence[str], *, optional: Sequence[str] = ()
    ) -> Mapping[str, npt.NDArray[np.float32]]:
        """Find the vectors of items.

        Args:
            kind: Kind of item.
            required: Ids of the items that must have a vector, in the order of the data.
            optional: Ids of items that may have one, such as images without a label.

        Returns:
            Id to vector.

        Raises:
            DataError: If ids are missing, unknown or repeated, or the number of rows without ids
                differs from that of the items.
        """
        vectors = self._vectors_of(kind)
        rows, repeated = index_rows(self.path, kind, vectors, required)
        if vectors.ids is not None:
            expected = {*required, *optional}
            missing = [key for key in required if key not in rows]
            extra = [key for key in rows if key not in expected]
            require_same_ids(self.path, kind, missing, extra, repeated)
        return VectorLookup(rows, vectors.vectors)

    def match_shards(self, kind: str, listed: Sequence[str]) -> ShardMatch:
        """Match the vectors with items that are read shard by shard.

        Args:
            kind: Kind of item.
            listed: Ids of the items that must have a vector if they can be read, in the order of
                the data.

        Returns:
            The match.

        Raises:
            DataError: If there are no vectors of this kind, or the number of rows without ids
                differs from that of the items.
        """
        return ShardMatch(self.path, kind, self._vectors_of(kind), listed)

    def _vectors_of(self, kind: str) -> VectorSet:
        vectors = self.sets.get(kind)
        if vectors is None:
            raise DataError(
                f"{self.path}: no vectors of kind '{kind}' (kinds: {', '.join(self.sets)})",
                remedy="marsretrieval data items lists what to embed.",
            )
        return vectors


def read_embeddings(path: str | Path) -> EmbeddingFile:
    """Read vectors computed elsewhere.

    Args:
        path: A .parquet file with columns `id`, `kind` and `vector`; or a .npz or .safetensors file
            with an array of shape (n, dim) per kind and its ids as `KIND_ids` (text array, or a
            JSON list in the metadata of .safetensors). Without `kind`, rows are images; without
            ids, rows are in the order of the data. Pickled objects are never loaded.

    Returns:
        The vectors, scaled to unit length.

    Raises:
        DatasetNotFoundError: If the file is missing.
        DataError: If the file is of another form, or a vector is not finite or zero.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetNotFoundError(f"{path}: {missing_file(path)}", remedy=suggest_path(path))
    readers = {".parquet": _read_parquet, ".npz": _read_npz, ".safetensors": _read_safetensors}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: unknown format '{path.suffix}'", remedy=_REMEDY)
    sets = reader(path)
    if not sets:
        raise DataError(f"{path}: no vectors", remedy=_REMEDY)
    dimensions = {kind: rows.vectors.shape[1] for kind, rows in sets.items()}
    if len(set(dimensions.values())) > 1:
        listed = ", ".join(f"{kind} {dim}" for kind, dim in dimensions.items())
        raise DataError(
            f"{path}: kinds have different dimensions: {listed}",
            remedy=_DIMENSION_REMEDY,
        )
    notes: list[str] = []
    for kind, rows in sets.items():
        notes += rows.check(path, kind)
    return EmbeddingFile(
        path, {kind: VectorSet(rows.ids, rows.vectors) for kind, rows in sets.items()}, tuple(notes)
    )


@dataclass(slots=True, eq=False)
class _UnitRows:
    """Rows of one kind, scaled to unit length as they are written.

    Attributes:
        ids: Ids of the rows; None if the file has none.
        vectors: float32 array of shape (n, dim).
        invalid: Rows that are not finite or zero.
        scaled: Number of rows that had another length.
    """

    ids: tuple[str, ...] | None
    vectors: npt.NDArray[np.float32]
    invalid: list[int] = field(default_factory=list)
    scaled: int = 0

    @classmethod
    def from_array(
        cls, path: Path, kind: str, ids: tuple[str, ...] | None, vectors: npt.NDArray[Any]
    ) -> _UnitRows:
        if vectors.ndim != 2 or not vectors.size or not np.issubdtype(vectors.dtype, np.floating):
            raise DataError(
                f"{path}: {kind}: an array of shape {vectors.shape} and type {vectors.dtype}",
                remedy="Vectors are floating-point numbers of shape (n, dim).",
            )
        if ids is not None and len(ids) != len(vectors):
            raise DataError(
                f"{path}: {pluralize(len(ids), 'id')} for {pluralize(len(vectors), 'row')} of "
                f"kind '{kind}'",
                remedy="Give one id per row.",
            )
        # In place if possible: a copy of the embeddings of a planet takes gigabytes.
        in_place = vectors.dtype == np.float32 and vectors.flags.writeable
        rows = cls(ids, vectors if in_place else np.empty(vectors.shape, np.float32))
        for start in range(0, len(vectors), _BLOCK):
            block = vectors[start : start + _BLOCK]
            rows.write(np.arange(start, start + len(block)), block)
        return rows

    def write(self, rows: npt.NDArray[np.int64], block: npt.NDArray[Any]) -> None:
        """Scale vectors and write them to rows."""
        block = block.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.linalg.norm(block, axis=1)
        invalid = ~np.isfinite(norms) | (norms == 0)
        self.invalid += rows[invalid].tolist()
        self.scaled += int((np.abs(norms[~invalid] - 1) > _UNIT_TOLERANCE).sum())
        block[invalid] = 0
        self.vectors[rows] = block / np.where(invalid, 1, norms)[:, None]

    def check(self, path: Path, kind: str) -> list[str]:
        """Raise DataError if rows are invalid; else describe what was done."""
        if self.invalid:
            bad = sorted(self.invalid)
            raise DataError(
                f"{path}: {kind}: {pluralize(len(bad), 'row')} not finite or zero "
                f"({_name_rows(self.ids, bad)})",
                remedy="Embed these items again.",
            )
        notes = []
        if self.scaled:
            notes.append(
                f"{path}: {pluralize(self.scaled, 'row')} of kind '{kind}' scaled to unit length"
            )
        if self.ids is None:
            notes.append(f"{path}: rows of kind '{kind}' without ids: in the order of data items")
        return notes


def _name_rows(ids: Sequence[str] | None, rows: Sequence[int]) -> str:
    """Name rows by their ids, or by their numbers."""
    return list_some([f"row {row}" if ids is None else ids[row] for row in rows], _NAMED)


def _kind_of(path: Path, name: str) -> str:
    kind = name if name in KINDS else name.removesuffix("s")
    if kind not in KINDS:
        raise DataError(f"{path}: unknown kind '{name}'", remedy=_REMEDY)
    return kind


def _read_npz(path: Path) -> dict[str, _UnitRows]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise DataError(f"{path}: one array, not an archive of arrays", remedy=_REMEDY)
        with loaded as archive:
            values = {}
            for name in archive.files:
                try:
                    values[name] = archive[name]
                except ValueError as error:
                    raise DataError(
                        f"{path}: array '{name}' holds Python objects, which are not loaded",
                        remedy="Write vectors as floats and ids as text: "
                        "numpy.savez(file, image=vectors, image_ids=numpy.array(ids, dtype=str)).",
                    ) from error
    except DataError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not readable as .npz", remedy=_REMEDY) from error
    except Exception as error:  # zipfile raises its own errors on damaged archives
        raise DataError(f"{path}: not readable as .npz ({error})", remedy=_REMEDY) from error
    sets: dict[str, _UnitRows] = {}
    kinds = _kinds_of(path, [name for name in values if not name.endswith("_ids")])
    for name in [name for name in values if name.endswith("_ids")]:
        if not any(name in (f"{array}_ids", f"{kind}_ids") for array, kind in kinds.items()):
            raise DataError(f"{path}: '{name}' without its vectors", remedy=_REMEDY)
    for name, kind in kinds.items():
        keys = next((values[key] for key in (f"{name}_ids", f"{kind}_ids") if key in values), None)
        if keys is not None and (keys.ndim != 1 or keys.dtype.kind != "U"):
            raise DataError(
                f"{path}: ids of '{name}' have type {keys.dtype} and shape {keys.shape}",
                remedy="Write them as text: numpy.array(ids, dtype=str).",
            )
        ids = None if keys is None else tuple(keys.tolist())
        sets[kind] = _UnitRows.from_array(path, kind, ids, values.pop(name))
    return sets


def _kinds_of(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Name of an array to its kind; raise DataError for unknown and repeated kinds."""
    kinds = {name: _kind_of(path, name) for name in names}
    for kind, count in Counter(kinds.values()).items():
        if count > 1:
            listed = ", ".join(name for name in names if kinds[name] == kind)
            raise DataError(
                f"{path}: {count} arrays of kind '{kind}' ({listed})",
                remedy="Join them to one array.",
            )
    return kinds


def _read_safetensors(path: Path) -> dict[str, _UnitRows]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingDependencyError("safetensors", "models", needed_for=str(path)) from error
    sets: dict[str, _UnitRows] = {}
    try:
        with safe_open(str(path), framework="np") as file:
            metadata = file.metadata() or {}
            kinds = _kinds_of(path, list(file.keys()))
            for key in metadata:
                array = key.removesuffix("_ids")
                if key.endswith("ids") and array not in {*kinds, *kinds.values()}:
                    raise DataError(
                        f"{path}: metadata '{key}' without its vectors "
                        f"(tensors: {', '.join(kinds)})",
                        remedy="Name the ids of a tensor KIND_ids, such as image_ids.",
                    )
            for name, kind in kinds.items():
                dtype = str(file.get_slice(name).get_dtype())
                if dtype not in _SAFETENSORS_TYPES:
                    raise DataError(
                        f"{path}: tensor '{name}' has type {dtype}",
                        remedy="Save vectors as float32, float16 or float64.",
                    )
                text = metadata.get(f"{name}_ids", metadata.get(f"{kind}_ids"))
                ids = None if text is None else _parse_ids(path, name, text)
                sets[kind] = _UnitRows.from_array(path, kind, ids, file.get_tensor(name))
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: not readable as .safetensors ({error})", remedy=_REMEDY
        ) from error
    return sets


def _parse_ids(path: Path, name: str, text: str) -> tuple[str, ...]:
    try:
        ids = json.loads(text)
    except ValueError as error:
        raise DataError(
            f"{path}: metadata '{name}_ids' is not JSON ({error})", remedy=_IDS_REMEDY
        ) from error
    if not isinstance(ids, list) or not all(isinstance(key, str) for key in ids):
        raise DataError(f"{path}: metadata '{name}_ids' is not a list of texts", remedy=_IDS_REMEDY)
    return tuple(ids)


def _read_parquet(path: Path) -> dict[str, _UnitRows]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, buffer_size=2**20)
        names = file.schema_arrow.names
        column = next((name for name in ("vector", "embedding") if name in names), None)
        if column is None:
            raise DataError(
                f"{path}: no column 'vector' (columns: {', '.join(names)})", remedy=_REMEDY
            )
        for name in ("id", "kind", column):
            if names.count(name) > 1:
                raise DataError(
                    f"{path}: the column '{name}' appears twice", remedy="Rename or remove one."
                )
        kinds, ids = _read_kinds(path, file)
        return _stream_vectors(path, file, column, kinds, ids)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: not readable as Parquet ({error})", remedy=_REMEDY) from error


def _read_kinds(
    path: Path, file: pq.ParquetFile
) -> tuple[npt.NDArray[np.int8], tuple[str, ...] | None]:
    """Read the kinds of the rows, as indices of `KINDS`, and their ids."""
    names = file.schema_arrow.names
    kinds = np.zeros(file.metadata.num_rows, np.int8)
    ids: list[str | None] = []
    chosen = [name for name in ("id", "kind") if name in names]
    if not chosen:
        return kinds, None
    unknown: Counter[str] = Counter()
    start = 0
    for batch in file.iter_batches(_READ, columns=chosen, use_threads=False):
        if "kind" in names:
            values = batch.column("kind").to_pylist()
            for row, value in enumerate(values, start):
                kind = value if value in KINDS else str(value).removesuffix("s")
                if kind in KINDS:
                    kinds[row] = KINDS.index(kind)
                else:
                    unknown["null" if value is None else f"'{value}'"] += 1
        if "id" in names:
            ids += batch.column("id").to_pylist()
        start += batch.num_rows
    if unknown:
        listed = ", ".join(f"{name}: {pluralize(n, 'row')}" for name, n in unknown.most_common(3))
        raise DataError(f"{path}: unknown kind {listed}", remedy=f"Kinds: {', '.join(KINDS)}.")
    if "id" not in names:
        return kinds, None
    no_text = [row for row, key in enumerate(ids) if not isinstance(key, str)]
    if no_text:
        raise DataError(
            f"{path}: column 'id' is not text in {pluralize(len(no_text), 'row')} "
            f"({_name_rows(None, no_text)})",
            remedy="Write ids as text.",
        )
    return kinds, tuple(key for key in ids if key is not None)


def _stream_vectors(
    path: Path,
    file: pq.ParquetFile,
    column: str,
    kinds: npt.NDArray[np.int8],
    ids: tuple[str, ...] | None,
) -> dict[str, _UnitRows]:
    """Read vectors batch by batch into one array per kind, so that memory holds them once."""
    counts = np.bincount(kinds, minlength=len(KINDS))
    # Row within its kind.
    rows = np.empty(len(kinds), np.int64)
    for code in np.flatnonzero(counts):
        rows[kinds == code] = np.arange(counts[code])
    sets: dict[str, _UnitRows] = {}
    empty: list[int] = []
    lengths: Counter[tuple[str, int]] = Counter()
    first: dict[tuple[str, int], int] = {}
    start = 0
    for batch in file.iter_batches(_READ, columns=[column], use_threads=False):
        lists = batch.column(column)
        span = slice(start, start + len(lists))
        start = span.stop
        empty += (span.start + np.flatnonzero(_incomplete(path, column, lists))).tolist()
        if empty:
            continue
        sizes = lists.value_lengths().to_numpy(zero_copy_only=False)
        codes = kinds[span]
        for code in np.unique(codes):
            values, where, numbers = np.unique(
                np.where(codes == code, sizes, -1), return_index=True, return_counts=True
            )
            for size, row, number in zip(values, where, numbers, strict=True):
                if size >= 0:
                    key = KINDS[code], int(size)
                    lengths[key] += int(number)
                    first.setdefault(key, span.start + int(row))
        if len({size for _, size in lengths}) > 1:
            continue
        block = lists.flatten().to_numpy(zero_copy_only=False).reshape(len(lists), int(sizes[0]))
        for code in np.unique(codes):
            kind, chosen = KINDS[code], codes == code
            if kind not in sets:
                own = None if ids is None else tuple(compress(ids, kinds == code))
                sets[kind] = _UnitRows(own, np.empty((counts[code], block.shape[1]), np.float32))
            sets[kind].write(rows[span][chosen], block if chosen.all() else block[chosen])
    if empty:
        raise DataError(
            f"{path}: column '{column}' is null or holds nulls in {pluralize(len(empty), 'row')} "
            f"({_name_rows(ids, empty)})",
            remedy="Embed these items again.",
        )
    _require_one_dimension(path, lengths, first, ids)
    return sets


def _require_one_dimension(
    path: Path,
    lengths: Mapping[tuple[str, int], int],
    first: Mapping[tuple[str, int], int],
    ids: tuple[str, ...] | None,
) -> None:
    """Raise DataError if vectors are empty or their lengths differ."""
    kinds = {kind for kind, _ in lengths}
    sizes = {size for _, size in lengths}
    if len(sizes) < 2:
        if 0 in sizes:
            raise DataError(f"{path}: vectors of dimension 0", remedy="Embed the items again.")
        return
    if len(lengths) == len(kinds):
        listed = ", ".join(f"{kind} {size}" for kind, size in lengths)
        raise DataError(
            f"{path}: kinds have different dimensions: {listed}", remedy=_DIMENSION_REMEDY
        )
    listed = "; ".join(
        f"{kind} {size}: {pluralize(number, 'row')}, first {_name_rows(ids, [first[kind, size]])}"
        for (kind, size), number in sorted(lengths.items(), key=lambda item: first[item[0]])
    )
    raise DataError(
        f"{path}: vectors of different lengths ({listed})", remedy="All vectors have one dimension."
    )


def _incomplete(path: Path, column: str, lists: pa.Array) -> npt.NDArray[np.bool_]:
    """Mark the rows that are null or hold nulls; raise DataError for other types than lists."""
    import pyarrow as pa
    import pyarrow.compute as pc

    is_list = pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type)
    if not (is_list or pa.types.is_fixed_size_list(lists.type)):
        raise DataError(
            f"{path}: column '{column}' has type {lists.type}",
            remedy="Write vectors as lists of float32, float16 or float64.",
        )
    if not pa.types.is_floating(lists.type.value_type):
        raise DataError(
            f"{path}: column '{column}' holds values of type {lists.type.value_type}",
            remedy="Write vectors as lists of float32, float16 or float64.",
        )
    incomplete: npt.NDArray[np.bool_] = lists.is_null().to_numpy(zero_copy_only=False).copy()
    if lists.flatten().null_count:
        parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
        values = lists.flatten().is_null().to_numpy(zero_copy_only=False)
        incomplete[parents[values]] = True
    return incomplete
