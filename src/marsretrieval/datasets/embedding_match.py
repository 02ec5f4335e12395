"""Match the vectors of a file with the items of a dataset by their ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import DataError
from marsretrieval.text import list_some, pluralize

_NAMED = 3  # ids named in a message


@dataclass(frozen=True, slots=True, eq=False)
class VectorSet:
    """Vectors of one kind of item.

    Attributes:
        ids: Ids of the rows; None if the file has none, so that the order counts.
        vectors: float32 array of shape (n, dim), unit rows.
    """

    ids: tuple[str, ...] | None
    vectors: npt.NDArray[np.float32]


class VectorLookup(Mapping[str, npt.NDArray[np.float32]]):
    """Id to vector, without an array object per row."""

    def __init__(self, rows: Mapping[str, int], vectors: npt.NDArray[np.float32]) -> None:
        """Create a lookup.

        Args:
            rows: Id to row.
            vectors: float32 array of shape (n, dim).
        """
        self._rows = rows
        self._vectors = vectors

    def __getitem__(self, key: str) -> npt.NDArray[np.float32]:
        """Return the vector of an id."""
        vector: npt.NDArray[np.float32] = self._vectors[self._rows[key]]
        return vector

    def __iter__(self) -> Iterator[str]:
        """Iterate over the ids."""
        return iter(self._rows)

    def __len__(self) -> int:
        """Return the number of ids."""
        return len(self._rows)


class ShardMatch:
    """Match of the vectors of a file with items that are read shard by shard."""

    def __init__(self, path: Path, kind: str, vectors: VectorSet, listed: Sequence[str]) -> None:
        """Create a match; `EmbeddingFile.match_shards` gives the arguments.

        Args:
            path: The file.
            kind: Kind of item.
            vectors: Vectors of this kind.
            listed: Ids of the items, in the order of the data.

        Raises:
            DataError: If the number of rows without ids differs from that of the items.
        """
        self._path = path
        self._kind = kind
        self._rows, self._repeated = index_rows(path, kind, vectors, listed)
        self._has_ids = vectors.ids is not None
        self._vectors = vectors.vectors
        self._listed = listed
        self._matched = np.zeros(len(vectors.vectors), bool)
        self._without_vector: dict[str, None] = {}

    def take(self, ids: Sequence[str]) -> tuple[list[int], npt.NDArray[np.float32]]:
        """Look up the vectors of the items of a shard.

        Args:
            ids: Ids of the n readable items of the shard.

        Returns:
            Positions in `ids` of the m items with a vector, and a float32 array of shape (m, dim).
        """
        pairs = [(number, self._rows[key]) for number, key in enumerate(ids) if key in self._rows]
        if len(pairs) < len(ids):
            self._without_vector.update((key, None) for key in ids if key not in self._rows)
        rows = np.array([row for _, row in pairs], np.int64)
        self._matched[rows] = True
        return [number for number, _ in pairs], self._vectors[rows]

    def finish(self, unreadable: Sequence[str]) -> None:
        """Check the ids after the last shard.

        Args:
            unreadable: Ids of the items that could not be read, which may have a vector.

        Raises:
            DataError: If ids are missing, unknown or repeated.
        """
        if not self._has_ids:
            return
        listed = set(self._listed) if self._without_vector else set()
        missing = [key for key in self._without_vector if key in listed]
        optional = set(unreadable)
        extra = [
            key for key, row in self._rows.items() if not self._matched[row] and key not in optional
        ]
        require_same_ids(self._path, self._kind, missing, extra, self._repeated)


def index_rows(
    path: Path, kind: str, vectors: VectorSet, required: Sequence[str]
) -> tuple[dict[str, int], list[str]]:
    """Index the rows of a file by their ids.

    Args:
        path: The file.
        kind: Kind of item.
        vectors: Vectors of this kind.
        required: Ids of the items, in the order of the rows if the file has no ids.

    Returns:
        Id to its first row, and the ids that are repeated.

    Raises:
        DataError: If the number of rows without ids differs from that of the items.
    """
    if vectors.ids is None:
        if len(vectors.vectors) != len(required):
            raise DataError(
                f"{path}: {pluralize(len(vectors.vectors), 'row')} of kind '{kind}' without ids "
                f"for {pluralize(len(required), 'item')}",
                remedy="Give the ids, or one row per item in the order of data items.",
            )
        return dict(zip(required, range(len(required)), strict=True)), []
    rows: dict[str, int] = {}
    repeated = [key for row, key in enumerate(vectors.ids) if rows.setdefault(key, row) != row]
    return rows, list(dict.fromkeys(repeated))


def require_same_ids(
    path: Path, kind: str, missing: Sequence[str], extra: Sequence[str], repeated: Sequence[str]
) -> None:
    """Check that the ids of a file are those of the data.

    Args:
        path: The file.
        kind: Kind of item.
        missing: Ids without a vector.
        extra: Ids of vectors that belong to no item.
        repeated: Ids with several vectors.

    Raises:
        DataError: If ids are missing, unknown or repeated.
    """
    problems = {"missing": missing, "extra": extra, "double": repeated}
    lines = [
        f"{len(ids):,} {problem} ({list_some(ids, _NAMED)})"
        for problem, ids in problems.items()
        if ids
    ]
    if lines:
        raise DataError(
            f"{path}: ids of kind '{kind}': {'; '.join(lines)}",
            remedy="The ids are those of marsretrieval data items, each once.",
        )
