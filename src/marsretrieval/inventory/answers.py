"""Answers to record as marks: their checks, and their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marsretrieval.datasets.tables import read_table
from marsretrieval.errors import TableError, UsageError
from marsretrieval.inventory.files import MAX_COUNT, MarkValue

MARK_VALUES: tuple[MarkValue, ...] = ("yes", "no", "unsure", "none")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to record.

    Attributes:
        id: Tile id.
        mark: The answer; `none` takes an earlier one back.
        count: Landforms within the tile.
        tiles: Positive tiles of the place that the tile belongs to, itself included.
        note: Free text.
        search: Key of the search that showed the tile, see `save_search`.
        rank: Its rank in that search, from 1.
        score: Its score in that search.
        page: Page of the open audit that shows the tile, if the answer is for an audit.
        source: File and line that the answer comes from, for messages.
    """

    id: str
    mark: MarkValue
    count: int | None = None
    tiles: int | None = None
    note: str | None = None
    search: str | None = None
    rank: int | None = None
    score: float | None = None
    page: int | None = None
    source: str | None = None


def mark_value(value: str, *, source: str | None = None, written: str | None = None) -> MarkValue:
    """Check an answer.

    Args:
        value: The answer in lower case.
        source: File and line that it comes from, for the message.
        written: The answer as written, for the message (default: `value`).

    Returns:
        `value`.

    Raises:
        UsageError: If it is not one of `MARK_VALUES`.
    """
    for allowed in MARK_VALUES:
        if value == allowed:
            return allowed
    raise UsageError(
        f"{_prefix(source)}'{value if written is None else written}' is not a mark",
        remedy="Use yes, no, unsure, or none (take back).",
    )


def check_answers(answers: Sequence[Answer]) -> None:
    """Check the values of answers.

    Args:
        answers: The answers.

    Raises:
        UsageError: If there are none, or a mark, count or number of tiles is invalid.
    """
    if not answers:
        raise UsageError("no marks given", remedy="Give ID=yes, ID=no or ID=unsure.")
    for answer in answers:
        mark_value(answer.mark, source=answer.source)
        for name, number in (("count", answer.count), ("tiles", answer.tiles)):
            where = f"{_prefix(answer.source)}{name} of {answer.id}"
            if number is not None and not 1 <= number <= MAX_COUNT:
                raise UsageError(
                    f"{where} must be 1 to 2^62, not {number}",
                    remedy=f"Leave {name} out if it is unknown.",
                )
            if number is not None and answer.mark in ("no", "none"):
                raise UsageError(
                    f"{where}, which is marked {answer.mark}",
                    remedy=f"Leave {name} out, or mark the tile yes or unsure.",
                )


def check_unique(names: Sequence[str], answers: Sequence[Answer]) -> None:
    """Check that no tile has two answers.

    Args:
        names: Ids of the tiles in the store.
        answers: The answers, in the same order.

    Raises:
        UsageError: If a tile has two; the message names the lines of both.
    """
    first: dict[str, Answer] = {}
    for name, answer in zip(names, answers, strict=True):
        if name in first:
            earlier = first[name].source
            also = "" if earlier is None else f" (first: {earlier})"
            raise UsageError(
                f"{_prefix(answer.source)}{name} is marked twice{also}",
                remedy="Give one answer per tile.",
            )
        first[name] = answer


def _prefix(source: str | None) -> str:
    return "" if source is None else f"{source}: "


def read_answers(path: Path) -> tuple[list[Answer], list[str]]:
    """Read answers from a table with the columns id and mark.

    Args:
        path: The table; `-` is standard input.

    Returns:
        The answers, and the names of the columns that were not read.

    Raises:
        TableError: If the file is no such table.
    """
    table = read_table(Path("/dev/stdin") if str(path) == "-" else path)
    columns = {name: table.index([name]) for name in ("id", "mark", "count", "tiles", "note")}
    missing = [name for name in ("id", "mark") if columns[name] is None]
    if missing:
        raise TableError(
            f"{path}: no column {missing[0]} (columns: {', '.join(table.header)})",
            remedy="The first line must name the columns id and mark.",
        )
    unused = [name for i, name in enumerate(table.header) if i not in columns.values()]
    answers = []
    for label, row in zip(table.labels, table.rows, strict=True):

        def text(name: str, row: Any = row) -> Any:
            column = columns[name]
            value = None if column is None else row[column]
            return None if value is None or not str(value).strip() else str(value).strip()

        def number(name: str, label: str = label) -> int | None:
            value = text(name)
            if value is None:
                return None
            if not value.isdecimal():
                raise TableError(
                    f"{path}, {label}: {name} is '{value}', not a whole number",
                    remedy="Use digits only, or leave the cell empty.",
                )
            return int(value)

        tile, value = text("id"), text("mark")
        if tile is None or value is None:
            raise TableError(
                f"{path}, {label}: no {'id' if tile is None else 'mark'}",
                remedy="Give every line an id and a mark, or remove the line.",
            )
        answers.append(
            Answer(
                tile,
                mark_value(value.lower(), source=f"{path}, {label}", written=value),
                count=number("count"),
                tiles=number("tiles"),
                note=text("note"),
                source=f"{path}, {label}",
            )
        )
    return answers, unused
