"""Which result of A belongs to which of B."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from marsretrieval.errors import DataError, DatasetNotFoundError, UnknownNameError, UsageError
from marsretrieval.report._columns import COLUMNS
from marsretrieval.report.reading import read_whole
from marsretrieval.report.result_file import ResultFile
from marsretrieval.results import find_results

__all__ = ["Match", "match_results"]


@dataclass(frozen=True, slots=True)
class Match:
    """Pairs of results of the same task. notes: tasks that only one has, a line each; left_out:
    files that could not be read, a line each."""

    pairs: Sequence[tuple[ResultFile, ResultFile]]
    notes: Sequence[str]
    left_out: Sequence[str] = ()


def match_results(a: str, b: str, *, results: Path, task: str | None = None) -> Match:
    """A and B are each a result file, a folder of one model's results, or the name of such a
    folder in `results`.

    Two files are paired whatever their task, so that the comparison can say why it refuses.
    Raises UnknownNameError, UsageError where a folder holds several models, and DataError.
    """
    first, second = _place(a, results), _place(b, results)
    if first.is_file() and second.is_file():
        return Match([(read_whole(first), read_whole(second))], [])
    notes: list[str] = []
    left_out: list[str] = []
    mine, other = _by_task(first, task, left_out), _by_task(second, task, left_out)
    for side, missing in (("A", mine.keys() - other.keys()), ("B", other.keys() - mine.keys())):
        notes += [f"{each}: only {side} has a result" for each in sorted(missing)]
    order = list(COLUMNS)
    shared = sorted(mine.keys() & other.keys(), key=order.index)
    pairs = [(mine[each], other[each]) for each in shared]
    if not pairs:
        raise DatasetNotFoundError(
            f"no task that both have a result of: {first} has {', '.join(mine) or 'none'}, "
            f"{second} has {', '.join(other) or 'none'}",
            remedy="marsretrieval run writes results, a folder for each model.",
        )
    return Match(pairs, notes, left_out)


def _place(name: str, results: Path) -> Path:
    for path in (Path(name), results / name):
        if path.exists():
            return path
    folders = [path.name for path in results.iterdir()] if results.is_dir() else []
    if folders:
        raise UnknownNameError("result", name, folders, remedy=f"Looked here and in {results}.")
    raise DatasetNotFoundError(
        f"{name}: no such file or folder, and no folder {results}",
        remedy="Name a result file, or the folder of a model's results (see --results).",
    )


def _by_task(place: Path, task: str | None, left_out: list[str]) -> dict[str, ResultFile]:
    found: dict[str, ResultFile] = {}
    for path in find_results([place]):
        try:
            file = read_whole(path)
        except DataError as error:
            if task in (None, path.stem):
                left_out.append(str(error))
            continue
        name = file.result.task
        if task is not None and name != task:
            continue
        if name in found:
            raise UsageError(
                f"{place}: several results of {name} ({found[name].path} and {path})",
                remedy="Name the folder of one model, or a result file.",
            )
        found[name] = file
    return found
