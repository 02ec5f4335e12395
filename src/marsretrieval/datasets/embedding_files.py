"""Read files of vectors that were computed elsewhere: Parquet, .npz and .safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marsretrieval.datasets.tables import list_some
from marsretrieval.errors import DataError, DatasetNotFoundError, MissingDependencyError
from marsretrieval.file_names import suggest_path
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    import pyarrow as pa

KINDS = ("image", "text", "prompt", "example")
_UNIT_TOLERANCE = 1e-3
_NAMED = 3  # ids named in a message
_BLOCK = 65_536  # rows converted at a time, to bound memory
_READ = 8192  # rows read at a time
_REMEDY = (
    "Use a .parquet file with the columns id, kind and vector, or a .npz or .safetensors file with "
    "an array per kind (image, text, prompt, example) and its ids (image_ids, ...)."
)


@dataclass(frozen=True, slots=True, eq=False)
class VectorSet:
    """Vectors of one kind of item.

    Attributes:
        ids: Ids of the rows; None if the file has none, so that the order counts.
        vectors: float32 array of shape (n, dim), unit rows.
    """

    ids: tuple[str, ...] | None
    vectors: npt.NDArray[np.float32]


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
    ) -> dict[str, npt.NDArray[np.float32]]:
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
        vectors = self.sets.get(kind)
        if vectors is None:
            raise DataError(
                f"{self.path}: no vectors of kind '{kind}' (kinds: {', '.join(self.sets)})",
                remedy="marsretrieval data items lists what to embed.",
            )
        if vectors.ids is None:
            if len(vectors.vectors) != len(required):
                raise DataError(
                    f"{self.path}: {len(vectors.vectors):,} rows of kind '{kind}' without ids for "
                    f"{len(required):,} items",
                    remedy="Give the ids, or one row per item in the order of data items.",
                )
            return dict(zip(required, vectors.vectors, strict=True))
        rows: dict[str, int] = {}
        double: list[str] = []
        for row, key in enumerate(vectors.ids):
            if rows.setdefault(key, row) != row:
                double.append(key)
        known = {*required, *optional}
        problems = {
            "missing": [key for key in required if key not in rows],
            "extra": [key for key in rows if key not in known],
            "double": list(dict.fromkeys(double)),
        }
        lines = [
            f"{len(ids):,} {problem} ({list_some(ids, _NAMED)})"
            for problem, ids in problems.items()
            if ids
        ]
        if lines:
            raise DataError(
                f"{self.path}: ids of kind '{kind}': {'; '.join(lines)}",
                remedy="The ids are those of marsretrieval data items, each once.",
            )
        return {key: vectors.vectors[row] for key, row in rows.items()}


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
        raise DatasetNotFoundError(f"{path}: no such file", remedy=suggest_path(path))
    readers = {".parquet": _read_parquet, ".npz": _read_npz, ".safetensors": _read_safetensors}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: unknown format '{path.suffix}'", remedy=_REMEDY)
    arrays = reader(path)
    if not arrays:
        raise DataError(f"{path}: no vectors", remedy=_REMEDY)
    sets: dict[str, VectorSet] = {}
    notes: list[str] = []
    for kind, (ids, vectors) in arrays.items():
        if ids is not None and len(ids) != len(vectors):
            raise DataError(f"{path}: {len(ids):,} ids for {len(vectors):,} rows of kind '{kind}'")
        sets[kind] = VectorSet(ids, _unit_rows(path, kind, ids, vectors, notes))
        if ids is None:
            notes.append(f"{path}: rows of kind '{kind}' without ids: in the order of data items")
    dimensions = {kind: vectors.vectors.shape[1] for kind, vectors in sets.items()}
    if len(set(dimensions.values())) > 1:
        listed = ", ".join(f"{kind} {dim}" for kind, dim in dimensions.items())
        raise DataError(f"{path}: kinds have different dimensions: {listed}")
    return EmbeddingFile(path, sets, tuple(notes))


_Arrays = dict[str, tuple[tuple[str, ...] | None, npt.NDArray[Any]]]


def _unit_rows(
    path: Path,
    kind: str,
    ids: tuple[str, ...] | None,
    vectors: npt.NDArray[Any],
    notes: list[str],
) -> npt.NDArray[np.float32]:
    if vectors.ndim != 2 or not vectors.size or not np.issubdtype(vectors.dtype, np.floating):
        raise DataError(
            f"{path}: {kind}: an array of shape {vectors.shape} and type {vectors.dtype}",
            remedy="Vectors are floating-point numbers of shape (n, dim).",
        )
    # Blocks, in place if possible: a copy of the embeddings of a planet takes gigabytes.
    in_place = vectors.dtype == np.float32 and vectors.flags.writeable
    unit = vectors if in_place else np.empty(vectors.shape, np.float32)
    bad: list[int] = []
    scaled = 0
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK].astype(np.float64)
        norms = np.linalg.norm(block, axis=1)
        invalid = ~np.isfinite(norms) | (norms == 0)
        bad += (start + np.flatnonzero(invalid)).tolist()
        scaled += int((np.abs(norms - 1) > _UNIT_TOLERANCE).sum())
        unit[start : start + len(block)] = block / np.where(invalid, 1, norms)[:, None]
    if bad:
        names = [f"row {row}" if ids is None else ids[row] for row in bad[:_NAMED]]
        more = f" and {len(bad) - _NAMED:,} more" if len(bad) > _NAMED else ""
        raise DataError(
            f"{path}: {kind}: {pluralize(len(bad), 'row')} not finite or zero "
            f"({', '.join(names)}{more})",
            remedy="Embed these items again.",
        )
    if scaled:
        notes.append(f"{path}: {pluralize(scaled, 'row')} of kind '{kind}' scaled to unit length")
    return unit


def _kind_of(path: Path, name: str) -> str:
    kind = name if name in KINDS else name.removesuffix("s")
    if kind not in KINDS:
        raise DataError(f"{path}: unknown kind '{name}'", remedy=_REMEDY)
    return kind


def _read_npz(path: Path) -> _Arrays:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise DataError(f"{path}: not an archive of arrays", remedy=_REMEDY)
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
    arrays: _Arrays = {}
    for name, vectors in values.items():
        if name.endswith("_ids"):
            if name.removesuffix("_ids") not in {*values, *(key.rstrip("s") for key in values)}:
                raise DataError(f"{path}: '{name}' without its vectors", remedy=_REMEDY)
            continue
        kind = _kind_of(path, name)
        ids = next((values[key] for key in (f"{name}_ids", f"{kind}_ids") if key in values), None)
        if ids is not None and (ids.ndim != 1 or ids.dtype.kind != "U"):
            raise DataError(
                f"{path}: ids of '{name}' have type {ids.dtype}",
                remedy="Write them as text: numpy.array(ids, dtype=str).",
            )
        arrays[kind] = (None if ids is None else tuple(ids.tolist()), vectors)
    return arrays


def _read_safetensors(path: Path) -> _Arrays:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingDependencyError("safetensors", "models", needed_for=str(path)) from error
    arrays: _Arrays = {}
    try:
        with safe_open(str(path), framework="np") as file:
            metadata = file.metadata() or {}
            for name in file.keys():  # noqa: SIM118 - not a mapping
                kind = _kind_of(path, name)
                text = metadata.get(f"{name}_ids") or metadata.get(f"{kind}_ids")
                ids = None if text is None else _parse_ids(path, name, text)
                arrays[kind] = (ids, file.get_tensor(name))
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: not readable as .safetensors of float32 or float16 ({error})", remedy=_REMEDY
        ) from error
    return arrays


def _parse_ids(path: Path, name: str, text: str) -> tuple[str, ...]:
    try:
        ids = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: metadata '{name}_ids' is not JSON ({error})") from error
    if not isinstance(ids, list) or not all(isinstance(key, str) for key in ids):
        raise DataError(f"{path}: metadata '{name}_ids' is not a list of texts")
    return tuple(ids)


def _read_parquet(path: Path) -> _Arrays:
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
        chosen = [name for name in ("id", "kind", column) if name in names]
        rows: dict[str, list[int]] = {}
        ids: list[Any] = []
        vectors: npt.NDArray[Any] | None = None
        start = 0
        for batch in file.iter_batches(_READ, columns=chosen, use_threads=False):
            block = _list_column(path, column, batch.column(column))
            if vectors is None:
                vectors = np.empty((file.metadata.num_rows, block.shape[1]), block.dtype)
            if block.shape[1] != vectors.shape[1]:
                dims = ", ".join(map(str, sorted({block.shape[1], vectors.shape[1]})))
                raise DataError(
                    f"{path}: vectors of different lengths ({dims})",
                    remedy="All vectors have one dimension.",
                )
            vectors[start : start + len(block)] = block
            kinds = batch.column("kind").to_pylist() if "kind" in names else ["image"] * len(block)
            for row, name in enumerate(kinds, start):
                rows.setdefault(name, []).append(row)
            if "id" in names:
                ids += batch.column("id").to_pylist()
            start += len(block)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: not readable as Parquet ({error})", remedy=_REMEDY) from error
    if "id" in names and not all(isinstance(key, str) for key in ids):
        raise DataError(f"{path}: column 'id' is not text", remedy="Write ids as text.")
    arrays: _Arrays = {}
    for name, of_kind in rows.items():
        assert vectors is not None
        # Rows of one kind that follow each other are a view, not a copy.
        contiguous = of_kind[-1] - of_kind[0] + 1 == len(of_kind)
        index: Any = slice(of_kind[0], of_kind[-1] + 1) if contiguous else of_kind
        keys = tuple(ids[row] for row in of_kind) if "id" in names else None
        arrays[_kind_of(path, str(name))] = (keys, vectors[index])
    return arrays


def _list_column(path: Path, column: str, lists: pa.Array) -> npt.NDArray[Any]:
    """Convert a column of lists to an array of shape (n, dim)."""
    import pyarrow as pa

    is_list = pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type)
    if not (is_list or pa.types.is_fixed_size_list(lists.type)) or lists.null_count:
        raise DataError(
            f"{path}: column '{column}' has type {lists.type} or empty cells", remedy=_REMEDY
        )
    lengths = {int(value) for value in lists.value_lengths().unique().to_pylist()}
    if len(lengths) != 1:
        raise DataError(
            f"{path}: vectors of different lengths ({', '.join(map(str, sorted(lengths)[:3]))})",
            remedy="All vectors have one dimension.",
        )
    flat = lists.flatten()
    if flat.null_count or not pa.types.is_floating(flat.type):
        raise DataError(f"{path}: column '{column}' holds {flat.type} or empty values")
    values: npt.NDArray[Any] = flat.to_numpy(zero_copy_only=False)
    return values.reshape(len(lists), lengths.pop())
