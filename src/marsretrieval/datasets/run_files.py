"""Read and match TREC run files: rankings that were computed elsewhere."""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from marsretrieval.datasets.tables import list_some
from marsretrieval.errors import DataError, DatasetNotFoundError
from marsretrieval.file_names import suggest_path

_NAMED = 3  # ids named in a message
_GZIP = b"\x1f\x8b"
_LINE = re.compile(r"(\S.*?)\s+Q0\s+(\S.*?)\s+(\S+)\s+(\S+)\s+(\S+)")  # ids may hold spaces
_REMEDY = "A line of a TREC run has six columns: QUERY Q0 ITEM RANK SCORE TAG."


@dataclass(frozen=True, slots=True, eq=False)
class RankedList:
    """Ranking of one query.

    Attributes:
        ids: Ids of the items in the order of the file, each once.
        scores: float64 array of shape (n,); higher is better.
    """

    ids: tuple[str, ...]
    scores: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class RunFile:
    """Contents of a TREC run file.

    Attributes:
        path: The file.
        queries: Id of a query to its ranking.
    """

    path: Path
    queries: Mapping[str, RankedList]

    def require_queries(self, required: Sequence[str], *, optional: Iterable[str] = ()) -> None:
        """Check the ids of the queries.

        Args:
            required: Ids of the queries that must have a ranking.
            optional: Ids of queries that may have one.

        Raises:
            DataError: If queries are missing or unknown.
        """
        allowed = dict.fromkeys([*required, *optional])
        unknown = [key for key in self.queries if key not in allowed]
        missing = [key for key in required if key not in self.queries]
        if len(unknown) == len(self.queries):
            raise DataError(
                f"{self.path}: none of its queries ({len(unknown):,}) "
                f"is of this task and these data: {list_some(unknown, _NAMED)}",
                remedy=f"Ids of queries: {list_some(list(allowed), _NAMED)}.",
            )
        lines = [
            f"{len(ids):,} {problem} ({list_some(ids, _NAMED)})"
            for problem, ids in (("missing", missing), ("extra", unknown))
            if ids
        ]
        if lines:
            raise DataError(
                f"{self.path}: ids of queries: {'; '.join(lines)}",
                remedy="Rank items for each query of the task, and for no other.",
            )

    def require_items(self, known: Iterable[str]) -> None:
        """Check the ids of the ranked items.

        Args:
            known: Ids of the items that may be ranked.

        Raises:
            DataError: If items are unknown.
        """
        ids = set(known)
        unknown = dict.fromkeys(
            key for ranking in self.queries.values() for key in ranking.ids if key not in ids
        )
        if unknown:
            raise DataError(
                f"{self.path}: {len(unknown):,} ranked ids are no items of the data "
                f"({list_some(list(unknown), _NAMED)})",
                remedy="The ids are those of marsretrieval data items.",
            )


def read_run(path: str | Path) -> RunFile:
    """Read a TREC run file.

    The order is that of the scores, as in trec_eval. Columns are separated by white space; ids may
    hold spaces if the second column is Q0.

    Args:
        path: Text file of lines QUERY Q0 ITEM RANK SCORE TAG; may be compressed with gzip.

    Returns:
        The rankings.

    Raises:
        DatasetNotFoundError: If the file is missing.
        DataError: If the file is empty or invalid, an item is ranked twice for a query, or ranks
            contradict scores.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetNotFoundError(f"{path}: no such file", remedy=suggest_path(path))
    shared: dict[str, str] = {}  # one string per id
    columns: dict[str, tuple[list[str], list[float], list[int]]] = {}
    try:
        for number, line in enumerate(_lines(path), 1):
            fields = _split(line)
            if fields is None:
                if line.strip():
                    raise DataError(
                        f"{path}: line {number} is not a line of a TREC run", remedy=_REMEDY
                    )
                continue
            query, item, rank, score = fields
            try:
                values = int(rank), float(score)
            except ValueError:
                raise DataError(
                    f"{path}: line {number}: rank '{rank}' or score '{score}' is no number",
                    remedy=_REMEDY,
                ) from None
            ids, scores, ranks = columns.setdefault(query, ([], [], []))
            ids.append(shared.setdefault(item, item))
            scores.append(values[1])
            ranks.append(values[0])
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as text or gzip ({error})") from error
    if not columns:
        raise DataError(f"{path}: empty, without a ranking", remedy=_REMEDY)
    queries = {key: RankedList(tuple(ids), np.array(s)) for key, (ids, s, _) in columns.items()}
    _require_valid(path, queries, {key: ranks for key, (_, _, ranks) in columns.items()})
    return RunFile(path, queries)


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP
    if compressed:
        with gzip.open(path, "rt", encoding="utf-8-sig") as lines:
            yield from lines
    else:
        with path.open(encoding="utf-8-sig") as lines:
            yield from lines


def _split(line: str) -> tuple[str, str, str, str] | None:
    """Query, item, rank and score of a line; None if it has not the columns of a run."""
    fields = line.split()
    if len(fields) == 6:
        return fields[0], fields[2], fields[3], fields[4]
    match = _LINE.fullmatch(line.strip())
    return None if match is None else (match[1], match[2], match[3], match[4])


def _require_valid(
    path: Path, queries: Mapping[str, RankedList], ranks: Mapping[str, list[int]]
) -> None:
    """Raise DataError for scores that are no numbers, duplicates, and ranks against scores."""
    problems: dict[str, list[str]] = {"nan": [], "double": [], "order": []}
    for query, ranking in queries.items():
        scores = ranking.scores
        problems["nan"] += [
            f"{query}: {ranking.ids[row]}" for row in np.flatnonzero(~np.isfinite(scores))
        ]
        if len(set(ranking.ids)) < len(ranking.ids):
            counts = Counter(ranking.ids)
            problems["double"] += [f"{query}: {key}" for key in counts if counts[key] > 1]
        order = np.lexsort((-scores, np.array(ranks[query], dtype=object).astype(np.float64)))
        problems["order"] += [
            f"{query}: {ranking.ids[order[row + 1]]}"
            for row in np.flatnonzero(np.diff(scores[order]) > 0)
        ]
    messages = {
        "nan": ("scores are not finite", "Write scores as finite numbers."),
        "double": ("items are ranked twice for a query", "Rank each item once for a query."),
        "order": (
            "items have a greater score than one ranked before them",
            "Higher scores are better: negate distances, or number the ranks by score descending.",
        ),
    }
    for kind, (problem, remedy) in messages.items():
        if problems[kind]:
            raise DataError(
                f"{path}: {len(problems[kind]):,} {problem} ({list_some(problems[kind], _NAMED)})",
                remedy=remedy,
            )
