"""Retrieved examples: which queries to show, and what the best models put first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from marsretrieval.report._columns import METRICS
from marsretrieval.report.grouping import Entry, ResultSet
from marsretrieval.report.html._pictures import Item, Wanted
from marsretrieval.report.tables import Cell, metric_value

MODELS = 3  # the best of a set
_PAIRS = {"t2i": 6, "i2t": 4}  # queries shown
_CLASSES = 12
_LANDFORMS = 8
_HITS = {"t2i": 6, "i2t": 3, "landform": 6, "geolocalization": 6}


@dataclass(frozen=True, slots=True)
class Hit:
    id: str
    rank: int
    score: float
    relevant: bool


@dataclass(frozen=True, slots=True)
class Strip:
    """What one model put first. note: how the query went, in a few words."""

    entry: Entry
    hits: Sequence[Hit]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Query:
    """kind: t2i (the query is the caption of `id`), i2t (the picture `id`), landform or
    geolocalization (`name`, asked for as `mode`)."""

    kind: str
    name: str
    strips: Sequence[Strip]
    id: str | None = None
    mode: str = ""


@dataclass(frozen=True)
class Gallery:
    """left_out: models and queries that are not shown, in words. items: by id, once read;
    examples: landform to keys of thumbnails of its example images; notes: what there is to say of
    pictures that could not be shown."""

    queries: Sequence[Query]
    left_out: Sequence[str] = ()
    items: Mapping[str, Item] = field(default_factory=dict)
    examples: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def kinds(self) -> list[str]:
        return list(dict.fromkeys(query.kind for query in self.queries))

    def of(self, kind: str) -> list[Query]:
        return [query for query in self.queries if query.kind == kind]

    def landforms(self) -> dict[str, list[Query]]:
        """Queries of geo-localization by landform."""
        found: dict[str, list[Query]] = defaultdict(list)
        for query in self.of("geolocalization"):
            found[query.name].append(query)
        return found


def choose(found: ResultSet) -> Gallery:
    """The queries of a set that are shown, by the figures of the best model and never by hand:
    classes at even steps from the best found to the hardest, pairs half of them right at once.
    Empty where no result has a table of hits."""
    having = [entry for entry in found.entries if entry.file.has("hits")]
    shown = having[:MODELS]
    left_out = []
    if len(having) > MODELS:
        left_out.append(f"the best {MODELS} of {len(having)} models")
    if not shown:
        return Gallery([])
    build = {"paired-image-text": _pairs, "landform": _classes, "geolocalization": _places}
    if found.task not in build:
        return Gallery([])
    return Gallery(build[found.task](found, shown, left_out), left_out)


def wanted(gallery: Gallery) -> Wanted:
    """Pictures and captions that the gallery shows, what comes first first."""
    needs = Wanted()
    for query in gallery.queries:
        ids = [hit.id for strip in query.strips for hit in strip.hits]
        own = [query.id] if query.id is not None else []
        if query.kind == "i2t":
            needs.add(own, ids)
        else:
            needs.add([*own, *ids], own)
    return needs


def _pairs(found: ResultSet, shown: Sequence[Entry], left_out: list[str]) -> list[Query]:
    queries = []
    for kind, count in _PAIRS.items():
        ranks = [_ranks(entry, kind) for entry in shown]
        right = sorted(key for key, rank in ranks[0].items() if rank == 1)
        wrong = sorted((k for k, r in ranks[0].items() if r != 1), key=lambda k: (ranks[0][k], k))
        half = count // 2
        picked = _even(right, max(half, count - len(wrong)))
        picked += _even(wrong, count - len(picked))
        hits = [_hits(entry, {(kind, key) for key in picked}, _HITS[kind]) for entry in shown]
        for key in picked:
            strips = [
                Strip(entry, own[kind, key], _rank_note(rank.get(key)))
                for entry, own, rank in zip(shown, hits, ranks, strict=True)
            ]
            queries.append(Query(kind, key, strips, key))
        if len(picked) < len(ranks[0]):
            left_out.append(f"{len(picked)} of {len(ranks[0]):,} queries {_DIRECTION[kind]}")
    return queries


_DIRECTION = {"t2i": "from text to image", "i2t": "from image to text"}


def _classes(found: ResultSet, shown: Sequence[Entry], left_out: list[str]) -> list[Query]:
    values = [
        {
            name: metric_value({"strict": own}, METRICS["mAP"], "strict")
            for name, own in (entry.metrics["all"]["strict"].get("per_class") or {}).items()
        }
        for entry in shown
    ]
    names = sorted(values[0], key=lambda n: (-(-1 if (v := values[0][n].value) is None else v), n))
    picked = _even(names, _CLASSES)
    if len(picked) < len(names):
        left_out.append(f"{len(picked)} of {len(names)} classes")
    hits = [_hits(e, {("all", name) for name in picked}, _HITS["landform"]) for e in shown]
    return [
        Query(
            "landform",
            name,
            [
                Strip(entry, own["all", name], _ap(of.get(name, Cell())))
                for entry, own, of in zip(shown, hits, values, strict=True)
            ],
        )
        for name in picked
    ]


def _places(found: ResultSet, shown: Sequence[Entry], left_out: list[str]) -> list[Query]:
    picked = _even(found.landforms, _LANDFORMS)
    if len(picked) < len(found.landforms):
        left_out.append(f"{len(picked)} of {len(found.landforms)} landforms")
    asked = [(name, mode) for name in picked for mode in found.modes]
    keys = {(f"{name}/{mode}", name) for name, mode in asked}
    hits = [_hits(entry, keys, _HITS["geolocalization"]) for entry in shown]
    queries = []
    for name, mode in asked:
        strips = []
        for entry, own in zip(shown, hits, strict=True):
            evaluation = entry.metrics.get(f"{name}/{mode}") or {}
            value = metric_value(evaluation, METRICS["average_precision"], "strict")
            if value.value is not None:
                strips.append(Strip(entry, own[f"{name}/{mode}", name], _ap(value)))
        if strips:
            queries.append(Query("geolocalization", name, strips, mode=mode))
    return queries


def _even(values: Sequence[Any], count: int) -> list[Any]:
    """`count` values at even steps, the first and the last among them; all where there are few."""
    if len(values) <= count:
        return list(values)
    return [values[place] for place in np.linspace(0, len(values) - 1, max(count, 0)).astype(int)]


def _ranks(entry: Entry, kind: str) -> dict[str, int]:
    """Query id to the rank of its right answer; without the table of queries from the hits."""
    table = entry.file.queries
    if table is not None and {"id", f"{kind}_rank"} <= set(table.column_names):
        columns = (table.column(name).to_pylist() for name in ("id", f"{kind}_rank"))
        return dict(zip(*columns, strict=True))
    found: dict[str, int] = {}
    for row in _rows(entry, kind):
        found.setdefault(row["query"], 0)
        if row["relevant"]:
            found[row["query"]] = row["rank"]
    last = 1 + max(found.values(), default=0)
    return {key: rank or last for key, rank in found.items()}


def _ap(cell: Cell) -> str:
    return f"AP {cell.text()}" if cell.value is not None else ""


def _rank_note(rank: int | None) -> str:
    return "" if rank is None else f"right answer at rank {rank:,}"


def _hits(
    entry: Entry, asked: Set[tuple[str, str]], count: int
) -> Mapping[tuple[str, str], list[Hit]]:
    """(group, query) to its first hits."""
    found: dict[tuple[str, str], list[Hit]] = defaultdict(list)
    for row in _rows(entry, *{group for group, _ in asked}, ranks=count):
        key = (row["group"], row["query"])
        if key in asked:
            found[key].append(Hit(row["id"], row["rank"], row["score"], row["relevant"]))
    for hits in found.values():
        hits.sort(key=lambda hit: hit.rank)
    return found


def _rows(entry: Entry, *groups: str, ranks: int | None = None) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    table = entry.file.hits
    if table is None or not table.num_rows:
        return []
    keep = pc.is_in(table.column("group"), pa.array(sorted(groups), pa.string()))
    if ranks is not None:
        keep = pc.and_(keep, pc.less_equal(table.column("rank"), ranks))
    rows: list[dict[str, Any]] = table.filter(keep).to_pylist()
    return rows
