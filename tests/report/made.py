"""Results of made-up models, computed by the package's metrics and written like those of a run."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from marsretrieval import geo
from marsretrieval.evaluation.runner import per_query_table
from marsretrieval.metrics import geolocalization, landform, paired
from marsretrieval.report.render import print_tables, render_csv, render_latex, render_markdown
from marsretrieval.report.tables import model_tables
from marsretrieval.results import RunResult
from marsretrieval.tasks import Hits, Outcome
from marsretrieval.tasks.landform_means import mean_over_landforms
from marsretrieval.tasks.paired_image_text import top_hits
from tests.metrics.inputs import geo_input, unit

P = ParamSpec("P")

__all__ = [
    "CREATED",
    "csv_of",
    "latex_of",
    "make_geolocalization",
    "make_landform",
    "make_paired",
    "markdown_of",
    "print_results",
    "result",
    "write",
]

CREATED = "2026-03-01T12:00:00+00:00"


def result(task: str, model: str, outcome: Outcome, **more: Any) -> RunResult:
    """Return a result like that of `run`, with `data` and `timings` of `more` added."""
    return RunResult(
        task=task,
        request=f"request of {model}",
        model={
            "id": model, "loader": "tests:load", "repository": "made up", "revision": "abc123",
            "weights_sha256": "0" * 64, "dtype": "float32", "prompts": {"preset": "paper"},
            "licence": "apache-2.0", "parameters": 1_000_000, "checkpoint": None,
        },
        data={
            "name": f"Made-{task}", "n": dict(outcome.n), "set_hash": outcome.set_hash,
            "store_dtype": "float32", "truncated": dict(outcome.truncated), "skipped": [],
            **more.get("data", {}),
        },
        metrics={name: item.to_dict() for name, item in outcome.groups.items()},
        seed=0,
        versions={"python": "3.11.7", "marsretrieval": "0.1.0", "numpy": "2.4.6"},
        hardware={"platform": "Linux", "cpus": 2, "memory_gib": 8.0, "device": "cpu"},
        timings={"score": 0.5, **more.get("timings", {})},
        created=CREATED,
    )  # fmt: skip


def write(made: RunResult, outcome: Outcome, folder: Path, *, tables: bool = True) -> Path:
    """Write the three files of a result and return the path of the JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{made.task}.json"
    made.write(path)
    if tables:
        pq.write_table(per_query_table(outcome), path.with_suffix(".queries.parquet"))
        columns = {item.name: getattr(outcome.hits, item.name) for item in fields(outcome.hits)}
        pq.write_table(pa.table(columns), path.with_suffix(".hits.parquet"))
    return path


def evaluate_once(make: Callable[P, Outcome]) -> Callable[P, Outcome]:
    """Keep the outcome for each set of arguments; every call returns a copy."""
    outcomes: dict[str, bytes] = {}

    @wraps(make)
    def copy_of(*arguments: P.args, **options: P.kwargs) -> Outcome:
        key = repr((arguments, sorted(options.items())))
        if key not in outcomes:
            outcomes[key] = pickle.dumps(make(*arguments, **options))
        outcome: Outcome = pickle.loads(outcomes[key])
        return outcome

    return copy_of


@evaluate_once
def make_paired(
    noise: float = 1.0, *, pairs: int = 120, seed: int = 0, constant: bool = False
) -> Outcome:
    """Create pairs that are easier to retrieve with less noise; `constant`: equal scores."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((pairs, 12))
    texts = images + noise * rng.standard_normal(images.shape)
    if constant:
        images = texts = np.ones((pairs, 12))
    ids = [f"pair-{number:04d}" for number in range(pairs)]
    left, right = unit(images), unit(texts)
    return Outcome(
        groups={"all": paired.evaluate(left, right, ids=ids, resamples=50)},
        n={"pairs": pairs},
        set_hash=f"{pairs:064x}",
        hits=top_hits(left, right, ids),
        truncated={"captions": pairs, "cut": 1},
    )


@evaluate_once
def make_landform(
    noise: float = 1.0, *, classes: int = 8, names: Sequence[str] = (), seed: int = 0,
    constant: bool = False,
) -> Outcome:  # fmt: skip
    """Create ten images per class."""
    rng = np.random.default_rng(seed)
    names = list(names) or [f"landform_{number:02d}" for number in range(classes)]
    centres = rng.standard_normal((len(names), 12))
    labels = [name for name in names for _ in range(10)]
    vectors = unit(np.repeat(centres, 10, axis=0) + noise * rng.standard_normal((len(labels), 12)))
    if constant:
        vectors = unit(np.ones_like(vectors))
    queries = unit(centres)
    ids = [f"image-{number:04d}" for number in range(len(labels))]
    evaluation = landform.evaluate(
        vectors, queries, labels=labels, image_ids=ids, query_names=names, resamples=50
    )
    hits = Hits()
    scores = queries @ vectors.T
    for name, row in zip(names, scores, strict=True):
        for rank, best in enumerate(np.argsort(-row, kind="stable")[:20], 1):
            hits.append(
                "all", name, rank, ids[best], float(row[best]), relevant=labels[best] == name
            )
    return Outcome(
        groups={"all": evaluation},
        n={"images": len(labels), "classes": len(names)},
        set_hash=f"{len(labels):064x}",
        hits=hits,
    )


@evaluate_once
def make_geolocalization(
    noise: float = 0.3, *, landforms: Sequence[str] = ("cones", "slides"),
    modes: Sequence[str] = ("text", "image", "hybrid"), tiles: int = 600, constant: bool = False,
) -> Outcome:  # fmt: skip
    """Create the same tiles and other points for every landform."""
    groups: dict[str, Any] = {}
    hits = Hits()
    n: dict[str, int] = {}
    corners = geo_input(0, tiles)["corners"]
    ids = [geo.tile_name(round(lon, 1), round(lat, 1)) for lon, lat in corners]
    centres = corners + 0.1
    for number, name in enumerate(landforms):
        truth = corners[7 * number :: len(corners) // 40] + 0.05
        gap = geo.great_circle_deg(
            centres[:, None, 0], centres[:, None, 1], truth[None, :, 0], truth[None, :, 1]
        ).min(axis=1)
        relevant = gap <= 0.5
        n[f"points/{name}"] = len(truth)
        chance = geolocalization.expect_random(corners, centres, truth)
        for mode in modes:
            rng = np.random.default_rng([number, *mode.encode()])
            scores = np.exp(-gap) + noise * rng.standard_normal(len(gap))
            if constant:
                scores = np.full(len(gap), 0.25)
            groups[f"{name}/{mode}"] = geolocalization.evaluate(
                scores, ids=ids, published_lonlat=corners, centre_lonlat=centres,
                truth_lonlat=truth, resamples=20, chance=chance,
            )  # fmt: skip
            for rank, best in enumerate(np.argsort(-scores, kind="stable"), 1):
                hits.append(
                    f"{name}/{mode}", name, rank, ids[best], float(scores[best]),
                    relevant=bool(relevant[best]),
                    lon=float(centres[best, 0]), lat=float(centres[best, 1]),
                )  # fmt: skip
    return Outcome(
        groups=groups | mean_over_landforms(groups),
        n={"tiles": len(ids), **n},
        set_hash=f"{len(ids):064x}",
        hits=hits,
    )


def timings(images_per_s: float = 500.0) -> Mapping[str, float]:
    """Return the timings of a run that embedded its images."""
    return {"decode": 4.0, "embed": 3.0, "wait": 0.4, "total": 3.4, "write": 0.1,
            "embed_texts": 0.2, "images_per_s": images_per_s, "device_idle": 0.12}  # fmt: skip


def markdown_of(results: Iterable[RunResult], **options: Any) -> str:
    """Render the tables of results as Markdown; `options` as for `model_tables`."""
    return render_markdown(model_tables(results, **options))


def latex_of(results: Iterable[RunResult], **options: Any) -> str:
    """Render the tables of results as LaTeX."""
    return render_latex(model_tables(results, **options))


def csv_of(results: Iterable[RunResult], **options: Any) -> str:
    """Render the tables of results as CSV with every metric, like `report --csv`."""
    return render_csv(model_tables(results, more=True, **options))


def print_results(results: Iterable[RunResult], **options: Any) -> None:
    """Print the tables of results; references only on request."""
    print_tables(model_tables(results, **{"references": False, **options}))
