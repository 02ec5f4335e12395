"""The templates of the page, and what they are filled with."""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from marsretrieval._words import counted, printable
from marsretrieval.report.grouping import ResultSet
from marsretrieval.report.html import _again as again
from marsretrieval.report.html import _facts as facts
from marsretrieval.report.html._charts import DASHES, Chart, ChartGroup
from marsretrieval.report.html._gallery import Gallery
from marsretrieval.report.html._maps import Maps
from marsretrieval.report.tables import Table

if TYPE_CHECKING:
    import jinja2


@dataclass(frozen=True, slots=True)
class SetView:
    """All that is shown of one set."""

    set: ResultSet
    leaderboards: Sequence[Table]
    per_class: Sequence[Table] = ()
    ranks: Sequence[Chart] = ()
    curves: Sequence[ChartGroup] = ()
    maps: Maps = field(default_factory=Maps)
    gallery: Gallery = field(default_factory=Gallery)

    @property
    def parts(self) -> list[tuple[str, str]]:
        """Anchor and name of each part, for the contents."""
        parts = [("board", "Leaderboard")]
        if self.set.task == "paired-image-text":
            parts.append(("ranks", "Ranks"))
        if self.per_class:
            what = "class" if self.set.task == "landform" else "landform"
            parts.append(("each", f"Each {what}"))
        if self.curves:
            parts.append(("curves", "Precision and recall"))
        if self.set.task == "geolocalization":
            parts.append(("map", "Where on Mars"))
        return [*parts, ("examples", "Examples")]

    def more_per_class(self) -> dict[str, list[Table]]:
        """Tables per class that can be opened, by protocol."""
        tables: dict[str, list[Table]] = defaultdict(list)
        for table in self.per_class:
            if not table.first:
                tables[table.protocol].append(table)
        return tables


@dataclass(frozen=True, slots=True)
class _Task:
    anchor: str
    title: str
    sets: Sequence[SetView]


def page(
    views: Sequence[SetView],
    *,
    title: str,
    thumbnails: Mapping[str, str],
    refused: Sequence[str],
    damaged: Sequence[str],
    version: str,
) -> str:
    """The whole page. Whatever comes from results and data is escaped."""
    templates = _templates()
    source, _, _ = templates.loader.get_source(templates, "script.js")  # type: ignore[union-attr]
    digest = hashlib.sha256(source.encode()).digest()
    sets = [view.set for view in views]
    timings = facts.timings(sets)
    rates = [each.images_per_s for each in timings if each.images_per_s]
    style = (
        templates.get_template("colours.css.j2").render()
        + templates.get_template("style.css").render()
    )
    return templates.get_template("page.html.j2").render(
        title=title,
        lede=_lede(sets),
        version=version,
        script=source,
        script_hash=f"sha256-{base64.b64encode(digest).decode()}",
        style=style,
        dashes=DASHES,
        thumbnails=thumbnails,
        tasks=_tasks(views),
        synthetic=_synthetic(sets),
        summary=facts.summary(sets),
        timings=timings,
        fastest=max(rates, default=1.0),
        left_out=facts.left_out(sets),
        refused=refused,
        damaged=damaged,
        ties=facts.ties(sets),
        commands=again.commands(sets),
        versions=again.versions(sets),
        models=again.models(sets),
    )


@cache
def _templates() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("marsretrieval.report.html"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_escape_controls,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"unit": _unit, "points": _points, "seconds": _seconds, "rate": _rate}
    return environment


def _escape_controls(value: Any) -> Any:
    """Control characters, which HTML and SVG must not hold, spelt out."""
    if not isinstance(value, str):
        return value
    return type(value)(printable(value))


def _tasks(views: Sequence[SetView]) -> list[_Task]:
    return [
        _Task(task, of_task[0].set.title, of_task)
        for task in dict.fromkeys(view.set.task for view in views)
        if (of_task := [view for view in views if view.set.task == task])
    ]


def _synthetic(sets: Sequence[ResultSet]) -> str:
    marks = [bool(each.data.get("synthetic")) for each in sets]
    return "all" if all(marks) else "some" if any(marks) else ""


def _lede(sets: Sequence[ResultSet]) -> str:
    entries = [entry for each in sets for entry in each.entries]
    models, tasks = {entry.label for entry in entries}, {each.task for each in sets}
    days = sorted({entry.file.result.created[:10] for entry in entries})
    versions = sorted({str(e.file.result.versions.get("marsretrieval", "?")) for e in entries})
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    counts = [
        counted(len(models), "model"), counted(len(tasks), "task"), counted(len(entries), "result")
    ]  # fmt: skip
    return f"{', '.join(counts)}; computed {span} with marsretrieval {', '.join(versions)}."


def _unit(value: float) -> str:
    """A coordinate of a chart."""
    return f"{value:.1f}".removesuffix(".0")


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_unit(x)},{_unit(y)}" for x, y in points)


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    if value >= 3600:
        return f"{value / 3600:.1f} h"
    if value >= 600:
        return f"{value / 60:.0f} min"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _rate(value: Any) -> str:
    return f"{value:,.0f}" if value >= 20 else f"{value:.1f}"
