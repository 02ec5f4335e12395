"""``marsretrieval score``: compute the metrics of existing embeddings or predictions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marsretrieval.cli.console import print_json, say
from marsretrieval.cli.help import Command, Group
from marsretrieval.cli.options import (
    CoveredOnly,
    LatColumn,
    Layer,
    LonColumn,
    LonWest,
    Resamples,
    Seed,
    position_columns,
)
from marsretrieval.errors import DataError, UsageError

if TYPE_CHECKING:
    from marsretrieval.results import Evaluation

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="Compute metrics of your own embeddings or predictions.",
)

Json = Annotated[
    Path | None, typer.Option("--json", metavar="OUT", help="Output JSON file; - for stdout.")
]


@app.command(cls=Command)
def paired(
    images: Annotated[Path, typer.Option(help=".npy, (n, d) unit rows.")],
    texts: Annotated[Path, typer.Option(help=".npy, (n, d) unit rows; row i belongs to image i.")],
    json: Json = None,
    seed: Seed = 0,
    resamples: Resamples = 1000,
) -> None:
    """Paired image-text retrieval: R@1, R@10, MRR, median rank.

    Raises:
        DataError: If a file is missing, unreadable or not an array of unit rows.
    """
    from marsretrieval.datasets.submissions import read_vectors
    from marsretrieval.metrics import paired as metric

    _print_evaluation(
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

    Reports the mean over all classes and the value of each class.

    Raises:
        DataError: If a file is missing, unreadable or of another shape than the others.
    """
    from marsretrieval.datasets.submissions import read_labels, read_vectors
    from marsretrieval.metrics import landform as metric

    label_file = read_labels(labels)
    for line in label_file.unmatched:
        say(line)
    _print_evaluation(
        metric.evaluate(
            read_vectors(images),
            read_vectors(queries),
            labels=label_file.labels,
            image_ids=label_file.image_ids,
            query_names=label_file.query_names,
            seed=seed,
            resamples=resamples,
        ),
        json,
    )


@app.command(cls=Command)
def geolocalization(
    predictions: Annotated[
        Path,
        typer.Option(help="CSV: image_name, similarity, lon, lat; or a file of search -o."),
    ],
    ground_truth: Annotated[Path, typer.Option(help="Catalogue of points: CSV or a GIS file.")],
    radius: Annotated[float, typer.Option(help="Tolerance in degrees.")] = 0.5,
    max_k: Annotated[
        int, typer.Option(min=1, max=2**31 - 1, help="Depth of the ranking.")
    ] = 20_000,
    tile_deg: Annotated[
        float,
        typer.Option(help="Tile size in degrees, for images named by their south-west corner."),
    ] = 0.2,
    lon_column: LonColumn = None,
    lat_column: LatColumn = None,
    lon_west: LonWest = None,
    layer: Layer = None,
    covered_only: CoveredOnly = False,
    json: Json = None,
    seed: Seed = 0,
    resamples: Resamples = 1000,
) -> None:
    """Geo-localization: AUPRC, average precision, best F1 over K.

    Longitudes may range over -180..180 or 0..360. The strict protocol gives the same result for
    both; the published protocol does not, because it measures planar distances in degrees.

    Raises:
        UsageError: If --radius or --tile-deg is out of range.
        DataError: If a file is invalid, or no point is covered with --covered-only.
    """
    import numpy as np

    from marsretrieval.datasets import TileCoverage, coverage_line, read_points
    from marsretrieval.datasets.submissions import read_predictions
    from marsretrieval.metrics import geolocalization as metric

    if not (0 < radius <= 180 and 0 < tile_deg <= 180):
        raise UsageError("--radius and --tile-deg must be greater than 0 and at most 180 degrees")
    columns = position_columns(lon_column, lat_column, lon_west, layer=layer)
    points = read_points(ground_truth, as_written=True, columns=columns)
    tiles = read_predictions(predictions, tile_deg=tile_deg)
    coverage = TileCoverage(tiles.centres, radius)
    covered = coverage.contains(points.lon, points.lat)
    warnings = points.suspicions(coverage)
    if np.any(points.lon > 180) != np.any(tiles.published[:, 0] > 180) and (
        np.any(points.lon < 0) or np.any(tiles.published[:, 0] < 0)
    ):
        warnings.append(
            "one file has longitudes of -180..180 and the other of 0..360: the published "
            "distance uses them as written. Use one range in both files."
        )
    for note in (*tiles.notes, *points.notes):
        say(note)
    say(coverage_line(ground_truth, int(covered.sum()), len(covered), radius))
    for warning in warnings:
        say(f"warning: {warning}")
    if covered_only:
        if not covered.any():
            raise DataError(
                f"{ground_truth}: no point lies within the tiles' coverage",
                remedy="Leave --covered-only out, or score predictions of the points' region.",
            )
        points = points.take(covered)
    evaluation = metric.evaluate(
        tiles.scores,
        ids=tiles.ids,
        published_lonlat=tiles.published,
        centre_lonlat=tiles.centres,
        truth_lonlat=np.column_stack([points.lon, points.lat]),
        radius_deg=radius,
        max_k=max_k,
        seed=seed,
        resamples=resamples,
    )
    data = {
        "predictions": {"notes": list(tiles.notes)},
        "ground_truth": points.to_dict()
        | {"points": len(covered), "covered": int(covered.sum()), "warnings": warnings},
        "covered_only": covered_only,
    }
    _print_evaluation(evaluation, json, data=data)


def _print_evaluation(
    evaluation: Evaluation, out: Path | None, *, data: Mapping[str, Any] | None = None
) -> None:
    figures = evaluation.to_dict() | ({"data": dict(data)} if data else {})
    if out is not None:
        print_json(figures, None if str(out) == "-" else out)
        return
    from marsretrieval.report.render import print_evaluation

    print_evaluation(figures)
