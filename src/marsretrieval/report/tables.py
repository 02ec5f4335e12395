"""Build the tables of results that all output formats share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from marsretrieval.report.columns import (
    COLUMNS,
    METRICS,
    MORE,
    PER_CLASS,
    Metric,
    MetricPair,
    Part,
    leaderboard_columns,
    look_up,
    task_columns,
)
from marsretrieval.report.grouping import ResultSet, result_sets, seeds_note
from marsretrieval.report.table import (
    Cell,
    Column,
    Reference,
    ResultTable,
    Row,
    chance_of,
    interval_note,
    is_coarse,
    protocols_agree,
    references_for,
    rows_of,
)
from marsretrieval.results import MEAN, PROTOCOLS, RunResult, describe_options


def metric_value(evaluation: Mapping[str, Any], metric: Metric | None, protocol: str) -> Cell:
    """Look up a metric of an evaluation.

    Args:
        evaluation: `Evaluation.to_dict()`, or a part of it with at least the protocol's metrics.
        metric: The metric.
        protocol: "published" or "strict".

    Returns:
        The value with its interval; an empty cell if the evaluation has none.
    """
    value = metric and look_up(evaluation.get(protocol, {}), metric.key)
    if metric is None or not isinstance(value, int | float):
        return Cell()
    low, high = evaluation.get("intervals", {}).get(protocol, {}).get(metric.key) or (None, None)
    coarse = low is not None and is_coarse(evaluation, protocol)
    spread = look_up(evaluation.get("spread", {}).get(protocol, {}), metric.key)
    return Cell(float(value), metric, low, high, coarse=coarse, spread=spread)


def model_tables(
    results: Iterable[RunResult],
    *,
    details: bool = False,
    more: bool = False,
    references: bool | None = None,
    protocol: str | None = None,
) -> list[ResultTable]:
    """Build one table per task and set of items.

    Args:
        results: Results in any order.
        details: Show every class and landform instead of the mean over them.
        more: Add the columns that only CSV and `score` show.
        references: As `show` of `references_for`, for each table.
        protocol: "published" or "strict" for the rows and columns of one protocol only.

    Returns:
        Tables with one row per model, query group and protocol: group by group, published before
        strict, the best model first and chance last.
    """
    tables = []
    for result_set in result_sets(results):
        extra = MORE.get(result_set.task, {}) if more else {}
        parts = [
            (part, [*pairs, *extra.get(part, ())])
            for part, pairs in task_columns(result_set.results)
        ]
        groups = _query_groups(result_set, details=details)
        pairs, rows = _filled_rows(result_set, groups, parts, protocol)
        shown_headings = {pair.heading for pair in pairs}
        sources = references_for(result_set.results, show=references)
        reference_rows = [
            row
            for part, columns in COLUMNS.get(result_set.task, ())
            for source in sources
            for row in _reference_rows(
                source,
                [
                    pair.metric(source.protocol)
                    for pair in columns
                    if pair.heading in shown_headings
                ],
                part,
            )
        ]
        queries = {"queries": "section"} if any(row.section for row in rows) else {}
        tables.append(
            ResultTable(
                result_set.caption,
                queries | {"protocol": "protocol", "model": "name"},
                [Column(pair.heading) for pair in pairs],
                rows,
                _table_note(result_set, groups),
                result_set.task,
                result_set.set_hash,
                references=reference_rows,
                sources=sources,
                limit=result_set.results[0].limit,
                options=describe_options(result_set.results[0].measure_options),
                remarks=seeds_note(result_set.results),
                protocol=protocol or "",
            )
        )
    return tables


def leaderboards(
    result_set: ResultSet, *, references: Sequence[Reference] = ()
) -> list[ResultTable]:
    """Build the leaderboards of the HTML page: one row per model, the protocols side by side.

    Args:
        result_set: Results of one task over the same items.
        references: Values published elsewhere; those of other tasks are ignored.

    Returns:
        A table per direction of the queries. If the protocols agree and there are no references,
        one group of columns represents both.
    """
    groups = _query_groups(result_set)
    suffix = " queries" if result_set.task == "geolocalization" else ""
    tables = []
    for title, main, (_, part_columns) in leaderboard_columns(result_set.results):
        metric = next((m for pair in part_columns if (m := pair.strict) and m.key == main), None)
        if metric is None:
            continue
        pairs, rows = _filled_rows(result_set, groups, [("", part_columns)])
        keys = {m.key for pair in pairs for p in PROTOCOLS if (m := pair.metric(p))}
        sources = [r for r in references if r.task == result_set.task and keys & r.metrics.keys()]
        agree = not sources and _all_agree(rows, pairs)
        shown_columns = [
            (protocol, number, m)
            for protocol in (("strict",) if agree else PROTOCOLS)
            for number, pair in enumerate(pairs)
            if (m := pair.metric(protocol))
        ]
        merged_rows = []
        for row, strict in zip(rows_of(rows, "published"), rows_of(rows, "strict"), strict=True):
            cells = {"published": row.cells, "strict": strict.cells}
            main_cells = (c for c in strict.cells if c.metric == metric and strict.kind == "model")
            merged_rows.append(
                replace(
                    strict,
                    cells=[cells[protocol][number] for protocol, number, _ in shown_columns],
                    section=f"{strict.section}{suffix}",
                    protocol="",
                    main=next(main_cells, Cell()),
                )
            )
        merged_rows.sort(
            key=lambda row: (groups.index(row.group), row.kind != "model", _descending(row))
        )
        over = {"strict": "both protocols (they agree)"} if agree else {p: p for p in PROTOCOLS}
        reference_rows = [
            row
            for source in sources
            for row in _reference_rows(
                source,
                [m if protocol == source.protocol else None for protocol, _, m in shown_columns],
                f"{source.group} queries" if source.group else "",
            )
        ]
        tables.append(
            ResultTable(
                title,
                {"model": "name"},
                [Column(m.heading, m.meaning, m.better, over[p]) for p, _, m in shown_columns],
                merged_rows,
                _table_note(result_set, groups),
                remarks=seeds_note(result_set.results),
                metric=metric,
                references=reference_rows,
                sources=sources,
            )
        )
    return tables


def per_class_tables(result_set: ResultSet) -> list[ResultTable]:
    """Build one table per metric: classes or landforms as rows, models as columns.

    Args:
        result_set: Results of one task over the same items.

    Returns:
        The main metric first; strict before published unless they agree. Classes are in
        descending order of their mean over models, landforms in alphabetical order. Empty for
        tasks without classes.
    """
    pairs = PER_CLASS.get(result_set.task, ())
    models = {entry.label: entry.metrics for entry in result_set.entries}
    groups = [
        g for g in _query_groups(result_set, details=True) if g != "all" and not g.startswith(MEAN)
    ]
    rows = [row for group in groups for row in _group_rows(models, group, ("", pairs))]
    if _all_agree(rows, pairs):
        titles = {"strict": "both protocols"}
    else:
        titles = {"strict": "strict", "published": "published"}
    return [
        _per_class_table(result_set, rows_of(rows, protocol), number, metric, title)
        for protocol, title in titles.items()
        for number, pair in enumerate(pairs)
        if rows and (metric := pair.metric(protocol))
    ]


def _per_class_table(
    result_set: ResultSet, rows: Sequence[Row], number: int, metric: Metric, title: str
) -> ResultTable:
    is_geo, first = result_set.task == "geolocalization", title != "published" and number == 0
    chance: dict[str, Cell] = {}
    values: dict[str, dict[str, Cell]] = {}
    for row in rows:
        if row.kind == "chance":
            chance.setdefault(row.group, row.cells[number])
        else:
            values.setdefault(row.group, {})[row.name] = row.cells[number]
    by_chance = any(cell.has_value for cell in chance.values())
    constant_names = ["by chance"] if by_chance else []
    if is_geo and first:
        constant_names = ["points", "tiles near a point", *constant_names, "ceiling"]
    table = []
    for group, cells in values.items():
        name, _, mode = group.rpartition("/")
        evaluation = (
            next(e.metrics[group] for e in result_set.entries if group in e.metrics)
            if is_geo
            else {}
        )
        constant_cells = {
            "points": Cell(evaluation.get("n", {}).get("points")),
            "tiles near a point": metric_value(evaluation, METRICS["relevant_tiles"], "strict"),
            "by chance": chance.get(group, Cell()),
            "ceiling": metric_value(evaluation, METRICS["ceiling.average_precision"], "strict"),
        }
        model_cells = [cells.get(entry.label, Cell()) for entry in result_set.entries]
        model_values = [cell.value for cell in model_cells if cell.value is not None]
        table.append(
            Row(
                name if is_geo else group.removeprefix("class/"),
                [*(constant_cells[fact] for fact in constant_names), *model_cells],
                f"{mode} queries" if is_geo else "",
                main=Cell(sum(model_values) / len(model_values) if model_values else None),
            )
        )
    if is_geo:
        order = [f"{mode} queries" for mode in result_set.modes]
        table.sort(key=lambda row: (order.index(row.section), row.name))
    else:
        table.sort(key=lambda row: (_descending(row), row.name))
    return ResultTable(
        f"{metric.heading}, {title}",
        {"landform" if is_geo else "class": "name"},
        [
            *(Column(fact, is_constant=True) for fact in constant_names),
            *(Column(entry.label) for entry in result_set.entries),
        ],
        table,
        _table_note(result_set, values) if is_geo else "",
        protocol=title,
        metric=metric,
        first=first,
    )


def evaluation_tables(
    evaluation: Mapping[str, Any], *, title: str | None = None
) -> list[ResultTable]:
    """Build the tables of one evaluation: one row per metric, and one row per class.

    Args:
        evaluation: `Evaluation.to_dict()` of a built-in task.
        title: Title of the first table; by default the task and its counts.

    Returns:
        A table of all metrics, the protocols side by side with chance; then, for tasks with
        classes, one table per protocol, or one for both if they agree.
    """
    task = evaluation["task"]
    # Additional metrics are in sections of their own.
    parts = [*COLUMNS[task], *((f"{part} ", pairs) for part, pairs in MORE.get(task, {}).items())]
    pairs = [pair for _, columns in parts for pair in columns]
    names = [(part, pair.heading) for part, columns in parts for pair in columns]
    models = {"": {"all": evaluation}}
    rows = list(_group_rows(models, "all", ("", pairs)))
    chance = [row for row in rows if row.kind == "chance"]
    chance = _merge_chance(chance)
    shown_rows = [*(row for row in rows if row.kind == "model"), *chance]
    headings = (", ".join(filter(None, (row.name, row.protocol))) for row in shown_rows)
    counts = ", ".join(f"{count:,} {name}" for name, count in evaluation["n"].items())
    metrics_table = ResultTable(
        title or f"{task}: {counts}",
        {"": "name"},
        list(map(Column, headings)),
        [
            Row(f"{part} {heading}".strip(), [row.cells[number] for row in shown_rows], group=part)
            for number, (part, heading) in enumerate(names)
        ],
        interval_note([("all", evaluation)]),
    )
    classes = evaluation["strict"].get("per_class") or ()
    return [metrics_table, *_class_tables(models, parts[0][1], classes)]


def _merge_chance(rows: Sequence[Row]) -> list[Row]:
    """Merge the chance rows of both protocols if no metric that both have differs."""
    if len(rows) != 2:
        return list(rows)
    pairs = list(zip(*(row.cells for row in rows), strict=True))
    if any(a.has_value and b.has_value and a != b for a, b in pairs):
        return list(rows)
    shared = sum(a.has_value and b.has_value for a, b in pairs)
    if shared < sum(a.has_value for a, _ in pairs):
        return list(rows)  # a metric of the published protocol only
    return [replace(rows[0], cells=[a if a.has_value else b for a, b in pairs], protocol="")]


def _class_tables(
    models: Mapping[str, Mapping[str, Any]], pairs: Sequence[MetricPair], names: Iterable[str]
) -> Iterator[ResultTable]:
    rows = [row for name in names for row in _group_rows(models, f"class/{name}", ("", pairs))]
    titles = {"strict": "both protocols"} if _all_agree(rows, pairs) else {p: p for p in PROTOCOLS}
    columns = [Column(pair.heading) for pair in pairs]
    if any(row.kind == "chance" for row in rows):
        columns += [Column(pair.heading, over="by chance") for pair in pairs]
    for protocol, title in titles.items():
        classes: dict[str, list[Cell]] = {}
        for row in rows_of(rows, protocol):
            classes.setdefault(row.section, []).extend(row.cells)
        if classes:
            yield ResultTable(
                f"per class, {title}",
                {"": "name"},
                columns,
                [
                    Row(name, [*cells, *[Cell()] * (len(columns) - len(cells))])
                    for name, cells in classes.items()
                ],
            )


def _query_groups(result_set: ResultSet, *, details: bool = False) -> list[str]:
    """Query groups of a table: the means over landforms if there are any, else all groups."""
    groups = list(dict.fromkeys(group for entry in result_set.entries for group in entry.metrics))
    if not details:
        modes = (f"{MEAN}{mode}" for mode in result_set.modes)
        return [group for group in modes if group in groups] or groups
    classes = dict.fromkeys(
        f"class/{name}"
        for entry in result_set.entries
        for name in entry.metrics.get("all", {}).get("strict", {}).get("per_class") or ()
    )
    return [*groups, *classes]


def _group_rows(models: Mapping[str, Mapping[str, Any]], group: str, part: Part) -> Iterator[Row]:
    """The rows of a query group: as many under both protocols, and in the same order."""
    evaluations = {
        label: evaluation
        for label, metrics in models.items()
        if (evaluation := _group_evaluation(metrics, group)) is not None
    }
    section = part[0] or ("" if group == "all" else group.removeprefix(MEAN).removeprefix("class/"))
    for protocol in PROTOCOLS if evaluations else ():
        metrics = [pair.metric(protocol) for pair in part[1]]
        values = [[metric_value(e, m, protocol) for m in metrics] for e in evaluations.values()]
        best = [best_value(column) for column in zip(*values, strict=True)]
        for (label, evaluation), cells in zip(evaluations.items(), values, strict=True):
            yield Row(
                label,
                [
                    replace(cell, best=cell.value is not None and cell.value == top)
                    for cell, top in zip(cells, best, strict=True)
                ],
                section,
                protocol,
                group=group,
                n=evaluation["n"],
                basis=evaluation.get("interval_basis", {}).get(protocol, {}),
                seeds=evaluation.get("seeds", 0),
            )
        n = next(iter(evaluations.values()))["n"]
        for label, expected in chance_of(evaluations):
            cells = [metric_value(expected, metric, protocol) for metric in metrics]
            yield Row(label, cells, section, protocol, "chance", group, n)


def _group_evaluation(metrics: Mapping[str, Any], group: str) -> Mapping[str, Any] | None:
    """The evaluation of a group, or one made from the values of a class."""
    if group in metrics:
        evaluation: Mapping[str, Any] = metrics[group]
        return evaluation
    overall = metrics.get("all", {})
    name = group.removeprefix("class/")
    classes = {p: (overall.get(p, {}).get("per_class") or {}).get(name) for p in PROTOCOLS}
    if None in classes.values():
        return None
    expected = {
        protocol: chance["per_class"][name]
        for protocol, chance in overall.get("chance", {}).items()
        if name in (chance.get("per_class") or {})
    }
    spreads = {
        protocol: spread["per_class"][name]
        for protocol, spread in overall.get("spread", {}).items()
        if name in (spread.get("per_class") or {})
    }
    return {
        **classes,
        "n": overall["n"],
        "intervals": {},
        "chance": expected,
        "spread": spreads,
    }


def best_value(cells: Sequence[Cell]) -> float | None:
    """Return the best value of a column.

    Args:
        cells: Cells of one metric.

    Returns:
        The value; None if there is nothing to compare.
    """
    values = [cell.value for cell in cells if cell.value is not None]
    better = next((cell.metric.better for cell in cells if cell.has_value), 0)
    if len(values) < 2 or not better:
        return None
    return max(values) if better > 0 else min(values)


def _filled_rows(
    result_set: ResultSet,
    groups: Sequence[str],
    parts: Sequence[Part],
    protocol: str | None = None,
) -> tuple[list[MetricPair], list[Row]]:
    """The columns in which any model has a value, and the rows of all groups with these only."""
    models = {entry.label: entry.metrics for entry in result_set.entries}
    if protocol is not None:
        parts = [(part, [_of_protocol(pair, protocol) for pair in pairs]) for part, pairs in parts]
    rows = [
        row
        for group in groups
        for part in parts
        for row in _group_rows(models, group, part)
        if protocol in (None, row.protocol)
    ]
    cells = [row.cells for row in rows if row.kind == "model"]
    filled = [
        number
        for number, column in enumerate(zip(*cells, strict=True))
        if any(cell.has_value for cell in column)
    ]
    pairs = [parts[0][1][number] for number in filled]
    return pairs, [replace(row, cells=[row.cells[number] for number in filled]) for row in rows]


def _of_protocol(pair: MetricPair, protocol: str) -> MetricPair:
    is_published = protocol == "published"
    return MetricPair(
        pair.published if is_published else None, None if is_published else pair.strict
    )


def _all_agree(rows: Sequence[Row], pairs: Sequence[MetricPair]) -> bool:
    return all(pair.published == pair.strict for pair in pairs) and protocols_agree(rows)


def _descending(row: Row) -> float:
    return 1.0 if row.main.value is None else -row.main.value


def _table_note(result_set: ResultSet, groups: Iterable[str]) -> str:
    """Note on the intervals of the groups that are shown."""
    return interval_note(
        (group, evaluation)
        for group in groups
        for entry in result_set.entries
        if (evaluation := _group_evaluation(entry.metrics, group)) is not None
    )


def _reference_rows(
    source: Reference, metrics: Sequence[Metric | None], section: str
) -> Iterator[Row]:
    """The row of a reference; none if it has none of the metrics."""
    cells = [
        Cell(float(source.metrics[metric.key]), metric)
        if metric and metric.key in source.metrics
        else Cell()
        for metric in metrics
    ]
    if any(cell.has_value for cell in cells):
        yield Row(source.model, cells, section, source.n, "reference", source=source.source)
