"""``marsretrieval score``: figures for people who bring their own embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marsretrieval.cli._help import Command, Group
from marsretrieval.cli._shared import print_json, say
from marsretrieval.errors import UsageError

if TYPE_CHECKING:
    from marsretrieval.results import Evaluation

__all__ = ["app"]

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="Score embeddings or predictions of your own.",
)

Json = Annotated[
    Path | None, typer.Option("--json", metavar="OUT", help="Write JSON to a file; - for stdout.")
]
Seed = Annotated[int, typer.Option(help="Seed of the bootstrap.")]
Resamples = Annotated[int, typer.Option(min=0, help="Bootstrap resamples; 0: no intervals.")]


@app.command(cls=Command)
def paired(
    images: Annotated[Path, typer.Option(help=".npy, (n, d) unit rows.")],
    texts: Annotated[Path, typer.Option(help=".npy, (n, d) unit rows; row i belongs to image i.")],
    json: Json = None,
    seed: Seed = 0,
    resamples: Resamples = 1000,
) -> None:
    """Paired image-text retrieval: R@1, R@10, MRR, median rank."""
    from marsretrieval.datasets.submissions import read_vectors
    from marsretrieval.metrics import paired as metric

    _show(
        metric.evaluate(read_vectors(images), read_vectors(texts), seed=seed, resamples=resamples),
        json,
    )


@app.command(cls=Command)
def landform(
    images: Annotated[Path, typer.Option(help=".npy, (n, d) unit rows.")],
    labels: Annotated[
        Path, typer.Option(help="JSON: labels and image_ids, one per image, and query_names.")
    ],
    queries: Annotated[Path, typer.Option(help=".npy, (c, d) unit rows, one per query name.")],
    json: Json = None,
    seed: Seed = 0,
    resamples: Resamples = 1000,
) -> None:
    """Landform retrieval: mAP, nDCG@10, Hit@10, R-Precision.

    Over all classes and for each of them."""
    from marsretrieval.datasets.submissions import read_labels, read_vectors
    from marsretrieval.metrics import landform as metric

    told = read_labels(labels)
    for line in told.unmatched:
        say(line)
    _show(
        metric.evaluate(
            read_vectors(images),
            read_vectors(queries),
            labels=told.labels,
            image_ids=told.image_ids,
            query_names=told.query_names,
            seed=seed,
            resamples=resamples,
        ),
        json,
    )


@app.command(cls=Command)
def geolocalization(
    predictions: Annotated[Path, typer.Option(help="CSV: image_name, similarity, lon, lat.")],
    ground_truth: Annotated[Path, typer.Option(help="CSV of points: lon, lat in degrees.")],
    radius: Annotated[float, typer.Option(help="Tolerance in degrees.")] = 0.5,
    max_k: Annotated[int, typer.Option(min=1, help="Depth of the ranking.")] = 20_000,
    tile_deg: Annotated[
        float,
        typer.Option(help="Size of the tiles, where image names tell their south-west corner."),
    ] = 0.2,
    json: Json = None,
    seed: Seed = 0,
    resamples: Resamples = 1000,
) -> None:
    """Geo-localization: AUPRC, average precision, best F1 over K.

    Longitudes are within -180..180 or 0..360: the same to the strict protocol, not to the
    published one, which measures distances in the plane of degrees.
    """
    from marsretrieval.datasets import read_points
    from marsretrieval.datasets.submissions import read_predictions
    from marsretrieval.metrics import geolocalization as metric

    if not (0 < radius <= 180 and 0 < tile_deg <= 180):
        raise UsageError("--radius and --tile-deg must be greater than 0 and at most 180 degrees")
    points = read_points(ground_truth, as_written=True)
    found = read_predictions(predictions, tile_deg=tile_deg)
    _show(
        metric.evaluate(
            found.scores,
            ids=found.ids,
            published_lonlat=found.published,
            centre_lonlat=found.centres,
            truth_lonlat=list(zip(points.lon, points.lat, strict=True)),
            radius_deg=radius,
            max_k=max_k,
            seed=seed,
            resamples=resamples,
        ),
        json,
    )


def _show(evaluation: Evaluation, out: Path | None) -> None:
    figures = evaluation.to_dict()
    if out is not None:
        print_json(figures, None if str(out) == "-" else out)
        return
    from marsretrieval.report.tables import print_evaluation

    print_evaluation(figures)
