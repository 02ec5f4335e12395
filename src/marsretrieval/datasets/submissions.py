"""Read vectors, labels, predictions and rankings (TREC run files) that were computed elsewhere."""

from __future__ import annotations

import gzip
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.datasets.positions import has_positions, read_positions
from marsretrieval.datasets.tables import Table, parse_number, read_table
from marsretrieval.errors import DataError, DatasetNotFoundError, TableError
from marsretrieval.io import JsonObject, from_json, read_json
from marsretrieval.text import list_some, missing_file, pluralize, suggest_path

_COLUMNS = ("image_name", "similarity", "lon", "lat")
# Normalized column names in order of preference; `search` writes id and score.
_ID_COLUMNS = ("image_name", "image_id", "id", "tile_name", "tile_id", "tile", "image", "name",
          "file_name", "filename", "file")  # fmt: skip
_SCORE_COLUMNS = ("similarity", "score", "cosine_similarity", "cosine", "similarity_score")
_TOLERANCE_DEG = 1e-6  # degrees
_NAMED = 3  # ids named in a message
_GZIP = b"\x1f\x8b"
_LINE = re.compile(r"(\S.*?)\s+Q0\s+(\S.*?)\s+(\S+)\s+(\S+)\s+(\S+)")  # ids may hold spaces
_RUN_REMEDY = "A line of a TREC run has six columns: QUERY Q0 ITEM RANK SCORE TAG."


class _LabelLists(JsonObject):
    labels: list[str]
    image_ids: list[str]
    query_names: list[str]


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of images, and the queries to score.

    Attributes:
        labels: Label of each image.
        image_ids: Id of each image.
        query_names: Labels that are queries.
    """

    labels: list[str]
    image_ids: list[str]
    query_names: list[str]

    @property
    def unmatched(self) -> list[str]:
        """Notes about queries without an image and labels without a query."""
        queries = sorted(set(self.query_names) - set(self.labels))
        labels = sorted(set(self.labels) - set(self.query_names))
        groups = (
            ("queries have no image and no score", queries),
            ("labels have no query, their images are distractors", labels),
        )
        return [
            f"{len(names)} {description}: {', '.join(names[:5])}"
            for description, names in groups
            if names
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Tiles with scores.

    Attributes:
        ids: Names of the tiles, all different.
        scores: Shape (n,).
        published: Positions as written, degrees, shape (n, 2), NaN if missing.
        centres: Centres of the tiles, degrees, shape (n, 2).
        notes: Sentences about what was left out or assumed while reading.
    """

    ids: list[str]
    scores: npt.NDArray[np.float64]
    published: npt.NDArray[np.float64]
    centres: npt.NDArray[np.float64]
    notes: tuple[str, ...] = ()


def read_vectors(path: str | Path) -> npt.NDArray[Any]:
    """Read vectors from a .npy file; pickled objects are rejected.

    Args:
        path: The file.

    Returns:
        Finite floating-point array of shape (n, dim).

    Raises:
        DatasetNotFoundError: If the file is missing.
        DataError: If the file is not such an array.
    """
    path = Path(path)
    remedy = "Write it with numpy.save: a floating-point array of shape (n, d)."
    try:
        vectors = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"{path}: no such file", remedy=suggest_path(path)) from error
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path}: not readable as .npy ({reason})", remedy=remedy) from error
    except (ValueError, EOFError) as error:  # numpy's text recommends unsafe options
        raise DataError(f"{path}: not a .npy file of numbers", remedy=remedy) from error
    if not isinstance(vectors, np.ndarray):
        vectors.close()
        raise DataError(f"{path}: an archive of several arrays", remedy=remedy)
    if vectors.ndim != 2 or not vectors.size or not np.issubdtype(vectors.dtype, np.floating):
        raise DataError(
            f"{path}: an array of shape {vectors.shape} and type {vectors.dtype}", remedy=remedy
        )
    invalid_rows = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if invalid_rows.size:
        raise DataError(
            f"{path}: NaN or infinity in {pluralize(invalid_rows.size, 'row')} (first: row "
            f"{invalid_rows[0]})",
            remedy="Compute these rows again, or remove them from all inputs.",
        )
    return vectors


def read_labels(path: str | Path) -> Labels:
    """Read labels from a JSON file.

    Args:
        path: File with three lists of strings: `labels` and `image_ids`, one per image, and
            `query_names`.

    Returns:
        The labels.

    Raises:
        DataError: If the file cannot be read or a list is missing.
    """
    path = Path(path)
    remedy = "It holds labels and image_ids, one per image, and query_names."
    lists = from_json(_LabelLists, read_json(path), source=path, remedy=remedy)
    return Labels(lists["labels"], lists["image_ids"], lists["query_names"])


def read_predictions(path: str | Path, *, tile_deg: float = geo.TILE_DEG) -> Predictions:
    """Read scored tiles, computed elsewhere or written by `search`.

    Args:
        path: Columns image_name, similarity, lon, lat, or id, score, lon, lat; any format of
            `tables.read_table`.
        tile_deg: Size of the tiles whose names state their south-west corner
            (`E137_2_N_4_6.png`), in degrees.

    Returns:
        The predictions. Positions in the file take precedence over the one in the tile's name,
        except that the corner stated by the name stands for that tile. If the name is a tile's,
        lon and lat may both be empty.

    Raises:
        DatasetNotFoundError: If the file is missing.
        TableError: If columns are missing, a value is invalid, or a tile is listed twice.
    """
    path = Path(path)
    table = read_table(path, layer_option="")
    name, score = table.index(_ID_COLUMNS), table.index(_SCORE_COLUMNS)
    if name is None or score is None:
        missing = [
            label for label, number in zip(_COLUMNS, (name, score), strict=False) if number is None
        ]
        missing += [] if has_positions(table) else list(_COLUMNS[2:])
        raise TableError(
            f"{path}: no column {', '.join(missing)} (columns: {table.columns()})",
            remedy=f"The columns are {', '.join(_COLUMNS)}, or those of search: id, score, "
            "lon, lat.",
        )
    try:
        positions = read_positions(table)
    except TableError as error:
        raise TableError(
            error.message,
            remedy="Columns lon and lat hold degrees: longitudes -180..180 or 0..360 east, "
            "latitudes -90..90 north.",
        ) from error
    if not positions.rows.size:
        raise TableError(f"{path}: no predictions, only a header", remedy="Give one row per tile.")
    ids = [_cell_text(table.rows[row][name]) for row in positions.rows]
    labels = [table.labels[row] for row in positions.rows]
    scores = np.array(
        [_parse_score(table, row, score) for row in positions.rows.tolist()], dtype=np.float64
    )
    _check_unique(path, ids, labels)
    published = np.column_stack([positions.lon, positions.lat])
    is_search_output = table.normalized(name) == "id" and table.normalized(score) == "score"
    centres = published.copy()
    mismatches: list[str] = []
    for row, tile in enumerate(ids):
        corner, centre = geo.tile_corner(tile), geo.tile_centre(tile, tile_deg)
        coordinate_count = int(np.isfinite(published[row]).sum())
        if corner is None or centre is None or coordinate_count == 1:
            if coordinate_count < 2:
                raise TableError(
                    f"{path}: {labels[row]}: {'incomplete' if coordinate_count else 'no'} position",
                    remedy="Give lon and lat; both may be empty only for tile names such "
                    "as E137_2_N_4_6.",
                )
            continue
        if not coordinate_count or _is_same_position(published[row], corner):
            centres[row] = centre
        elif not _is_same_position(published[row], centre):
            mismatches.append(f"{tile} ({labels[row]})")
        elif is_search_output:
            published[row] = corner  # the position that the published code and `run` use
    notes = (*table.notes, *positions.notes)
    if mismatches:
        notes = (
            *notes,
            f"{path}: {len(mismatches):,} positions are neither corner nor centre of the tile "
            "in the "
            f"name: {list_some(mismatches)}; lon and lat are used",
        )
    return Predictions(ids, scores, published, centres, notes)


def _check_unique(path: Path, ids: list[str], labels: list[str]) -> None:
    rows: dict[str, list[str]] = {}
    for tile, label in zip(ids, labels, strict=True):
        rows.setdefault(tile, []).append(label)
    repeated = [
        f"{tile} ({list_some(row_labels)})"
        for tile, row_labels in rows.items()
        if len(row_labels) > 1
    ]
    if repeated:
        raise TableError(
            f"{path}: {pluralize(len(repeated), 'tile')} listed more than once: "
            f"{list_some(repeated, 3)}",
            remedy="Keep one row per tile.",
        )


def _is_same_position(position: npt.NDArray[np.float64], other: tuple[float, float]) -> bool:
    lon_offset = (position[0] - other[0] + 180) % 360 - 180
    return bool(abs(lon_offset) < _TOLERANCE_DEG and abs(position[1] - other[1]) < _TOLERANCE_DEG)


def _parse_score(table: Table, row: int, column: int) -> float:
    value = table.rows[row][column]
    try:
        number = parse_number(value)
    except (TypeError, ValueError):
        number = None
    if number is None or not math.isfinite(number):
        raise TableError(
            f"{table.path}: {table.labels[row]}: {table.header[column].strip()} {value!r} is not "
            "a finite number",
            remedy="Give every tile a score, or remove the row.",
        )
    return number


def _cell_text(value: Any) -> str:
    return "" if value is None else str(value).strip()


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

    def require_items(self, known: Iterable[str], *, repeated: Collection[str] = ()) -> None:
        """Check the ids of the ranked items.

        Args:
            known: Ids of the items that may be ranked.
            repeated: Ids that several items share, which may not be ranked.

        Raises:
            DataError: If items are unknown, or ids are ambiguous.
        """
        ids = set(known)
        ranked = dict.fromkeys(key for ranking in self.queries.values() for key in ranking.ids)
        shared = [key for key in ranked if key in repeated]
        if shared:
            raise DataError(
                f"{self.path}: {pluralize(len(shared), 'ranked id')} ambiguous: several items have "
                f"the id ({list_some(shared, _NAMED)})",
                remedy="Remove the repeated items from the data, or rename them, and rank again.",
            )
        unknown = [key for key in ranked if key not in ids]
        if not unknown:
            return
        counts = Counter(key.rpartition("/")[2] for key in ids)
        ambiguous = [key for key in unknown if counts[key] > 1]
        problem = f"{len(unknown):,} ranked ids are no items of the data"
        if ambiguous:
            first = sorted(key for key in ids if key.rpartition("/")[2] == ambiguous[0])
            raise DataError(
                f"{self.path}: {problem} ({list_some(unknown, _NAMED)}); {len(ambiguous):,} of "
                f"them ambiguous ({ambiguous[0]}: {list_some(first, _NAMED)})",
                remedy="The ids are those of marsretrieval data items.",
            )
        raise DataError(
            f"{self.path}: {problem} ({list_some(unknown, _NAMED)})",
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
        raise DatasetNotFoundError(f"{path}: {missing_file(path)}", remedy=suggest_path(path))
    shared: dict[str, str] = {}  # one string per id
    columns: dict[str, tuple[list[str], list[float], list[int]]] = {}
    try:
        for number, line in enumerate(_run_lines(path), 1):
            fields = _split_run(line)
            if fields is None:
                if line.strip():
                    raise DataError(
                        f"{path}: line {number} is not a line of a TREC run", remedy=_RUN_REMEDY
                    )
                continue
            query, item, rank, score = fields
            try:
                values = int(rank), float(score)
            except ValueError:
                raise DataError(
                    f"{path}: line {number}: rank '{rank}' or score '{score}' is no number",
                    remedy=_RUN_REMEDY,
                ) from None
            ids, scores, ranks = columns.setdefault(query, ([], [], []))
            ids.append(shared.setdefault(item, item))
            scores.append(values[1])
            ranks.append(values[0])
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: not readable as text or gzip ({error})",
            remedy="Write the file again as UTF-8 text.",
        ) from error
    if not columns:
        raise DataError(f"{path}: empty, without a ranking", remedy=_RUN_REMEDY)
    queries = {key: RankedList(tuple(ids), np.array(s)) for key, (ids, s, _) in columns.items()}
    _require_valid_run(path, queries, {key: ranks for key, (_, _, ranks) in columns.items()})
    return RunFile(path, queries)


def _run_lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP
    if compressed:
        with gzip.open(path, "rt", encoding="utf-8-sig") as lines:
            yield from lines
    else:
        with path.open(encoding="utf-8-sig") as lines:
            yield from lines


def _split_run(line: str) -> tuple[str, str, str, str] | None:
    """Query, item, rank and score of a line; None if it has not the columns of a run."""
    fields = line.split()
    if len(fields) == 6:
        return fields[0], fields[2], fields[3], fields[4]
    match = _LINE.fullmatch(line.strip())
    return None if match is None else (match[1], match[2], match[3], match[4])


def _require_valid_run(
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
