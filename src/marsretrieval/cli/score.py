"""``marsretrieval score``: compute the metrics of existing embeddings or predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marsretrieval.cli.console import print_json, say, show_progress
from marsretrieval.cli.help import Command, Group
from marsretrieval.cli.options import (
    Caption,
    ClassNames,
    CoveredOnly,
    Examples,
    ImageWeight,
    PositionOptions,
    QueryKind,
    Resamples,
    Seed,
    Templates,
    check_output_files,
    check_output_folder,
    expand_options,
)
from marsretrieval.errors import DataError, UsageError

if TYPE_CHECKING:
    from marsretrieval.results import Evaluation
    from marsretrieval.tasks import Task
    from marsretrieval.tasks.ablation import Ablation

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="Compute metrics of your own embeddings or predictions.",
)

Json = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="OUT", callback=check_output_files, help="Output JSON file; - for stdout."
    ),
]

_PANEL = "Vectors or rankings of a dataset's items; writes a result file like run"
Embeddings = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=_PANEL,
        help="Vectors of the items (.parquet, .npz or .safetensors).",
    ),
]
Run = Annotated[
    Path | None,
    typer.Option(
        "--run",
        metavar="FILE",
        rich_help_panel=_PANEL,
        help="Rankings of the items: a TREC run (text, or .gz).",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=_PANEL,
        help="Folder of datasets, or one dataset: folder or file (default: data).",
    ),
]
Results = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=_PANEL,
        callback=check_output_folder,
        help="Folder for results (default: results).",
    ),
]
Name = Annotated[
    str | None,
    typer.Option(metavar="NAME", rich_help_panel=_PANEL, help="Name of the model in tables."),
]
Force = Annotated[
    bool,
    typer.Option("--force", rich_help_panel=_PANEL, help="Score again, even if a result exists."),
]


@app.command(cls=Command)
def paired(
    images: Annotated[
        Path | None, typer.Option(help="Image vectors: .npy of shape (n, d), unit rows.")
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option(help="Text vectors: .npy of shape (n, d); row i belongs to image i."),
    ] = None,
    embeddings: Embeddings = None,
    run: Run = None,
    data: Data = None,
    name: Name = None,
    results: Results = None,
    caption: Caption = None,
    force: Force = False,
    json: Json = None,
    seed: Seed = 0,
    resamples: Resamples = 1000,
) -> None:
    """Paired image-text retrieval: R@1, R@10, MRR, median rank.

    Score two arrays with --images and --texts, or the items of a dataset with --embeddings or
    --run.

    Raises:
        UsageError: If the options of one form are missing, or those of the other are given.
        DataError: If a file is missing, unreadable or not an array of unit rows.
    """
    if _is_dataset_form(
        {"--embeddings": embeddings, "--run": run},
        {"--images": images, "--texts": texts},
        {"--data": data, "--name": name, "--results": results, "--caption": caption,
         "--force": force or None},
    ):  # fmt: skip
        from marsretrieval.tasks.ablation import Ablation

        _score_dataset(
            "paired-image-text", Ablation(caption=caption), (embeddings, run), data, name, results,
            force=force, seed=seed, resamples=resamples, json=json,
        )  # fmt: skip
        return
    assert images is not None and texts is not None
    from marsretrieval.datasets.submissions import read_vectors
    from marsretrieval.metrics import paired as metric

    vectors = read_vectors(images), read_vectors(texts)
    with _name_files(images=images, texts=texts):
        evaluation = metric.evaluate(*vectors, seed=seed, resamples=resamples)
    _print_evaluation(evaluation, json)


@app.command(cls=Command)
def landform(
    images: Annotated[
        Path | None, typer.Option(help="Image vectors: .npy of shape (n, d), unit rows.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="JSON file with labels and image_ids per image, and query_names."),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(help="Query vectors: .npy of shape (c, d), one row per query name."),
    ] = None,
    embeddings: Embeddings = None,
    run: Run = None,
    data: Data = None,
    name: Name = None,
    results: Results = None,
    templates: Templates = None,
    class_names: ClassNames = None,
    query_kind: QueryKind = None,
    force: Force = False,
    json: Json = None,
    seed: Seed = 0,
    resamples: Resamples = 1000,
) -> None:
    """Landform retrieval: mAP, nDCG@10, Hit@10, R-Precision.

    Reports the mean over all classes and the value of each class. Score arrays with --images,
    --labels and --queries, or the items of a dataset with --embeddings or
    --run.

    Raises:
        UsageError: If the options of one form are missing, or those of the other are given.
        DataError: If a file is missing, unreadable or of another shape than the others.
    """
    if _is_dataset_form(
        {"--embeddings": embeddings, "--run": run},
        {"--images": images, "--labels": labels, "--queries": queries},
        {"--data": data, "--name": name, "--results": results, "--templates": templates,
         "--class-names": class_names, "--query-kind": query_kind, "--force": force or None},
        of_queries=("--templates",),
    ):  # fmt: skip
        from marsretrieval.tasks.ablation import Ablation

        _score_dataset(
            "landform",
            Ablation(templates=templates, class_names=class_names, queries=query_kind),
            (embeddings, run), data, name, results, force=force, seed=seed, resamples=resamples,
            json=json,
        )  # fmt: skip
        return
    assert images is not None and labels is not None and queries is not None
    from marsretrieval.datasets.submissions import read_labels, read_vectors
    from marsretrieval.metrics import landform as metric

    label_file = read_labels(labels)
    for line in label_file.unmatched:
        say(line)
    vectors = read_vectors(images), read_vectors(queries)
    with _name_files(images=images, labels=labels, queries=queries):
        evaluation = metric.evaluate(
            *vectors,
            labels=label_file.labels,
            image_ids=label_file.image_ids,
            query_names=label_file.query_names,
            seed=seed,
            resamples=resamples,
        )
    _print_evaluation(evaluation, json)


@app.command(cls=Command)
@expand_options
def geolocalization(
    *,
    predictions: Annotated[
        Path | None,
        typer.Option(help="CSV: image_name, similarity, lon, lat; or a file of search -o."),
    ] = None,
    ground_truth: Annotated[
        Path | None, typer.Option(help="Catalogue of points: CSV or a GIS file.")
    ] = None,
    embeddings: Embeddings = None,
    run: Run = None,
    data: Data = None,
    name: Name = None,
    results: Results = None,
    templates: Templates = None,
    image_weight: ImageWeight = None,
    examples: Examples = None,
    force: Force = False,
    radius: Annotated[float, typer.Option(metavar="DEG", help="Tolerance in degrees.")] = 0.5,
    max_k: Annotated[
        int, typer.Option(min=1, max=2**31 - 1, help="Depth of the ranking.")
    ] = 20_000,
    tile_deg: Annotated[
        float,
        typer.Option(
            metavar="DEG", help="Tile size in degrees, for images named by their south-west corner."
        ),
    ] = 0.2,
    positions: PositionOptions,
    covered_only: CoveredOnly = False,
    json: Json = None,
    seed: Seed = 0,
    resamples: Resamples = 1000,
) -> None:
    """Geo-localization: AUPRC, average precision, best F1 over K.

    Longitudes may range over -180..180 or 0..360. The strict protocol gives the same result for
    both; the published protocol does not, because it measures planar distances in degrees. Score
    predictions with --predictions and --ground-truth, or the items of a dataset with --embeddings
    or --run.

    Raises:
        UsageError: If --radius or --tile-deg is out of range, options of one form are missing, or
            those of the other are given.
        DataError: If a file is invalid, or no point is covered with --covered-only.
    """
    import numpy as np

    from marsretrieval.datasets import TileCoverage, coverage_line, read_points
    from marsretrieval.datasets.submissions import read_predictions
    from marsretrieval.metrics import geolocalization as metric

    if not (0 < radius <= 180 and 0 < tile_deg <= 180):
        raise UsageError(
            "--radius and --tile-deg must be greater than 0 and at most 180 degrees",
            remedy="Use, for example, --radius 0.5.",
        )
    columns = positions.columns()
    if _is_dataset_form(
        {"--embeddings": embeddings, "--run": run},
        {"--predictions": predictions, "--ground-truth": ground_truth},
        {"--data": data, "--name": name, "--results": results, "--templates": templates,
         "--image-weight": image_weight, "--examples": examples, "--force": force or None},
        of_queries=("--templates", "--image-weight", "--examples"),
    ):  # fmt: skip
        from marsretrieval.tasks import Geolocalization
        from marsretrieval.tasks.ablation import Ablation

        if tile_deg != 0.2:
            raise UsageError(
                "--tile-deg does not apply to --embeddings and --run",
                remedy="Leave one of them out.",
            )
        _score_dataset(
            Geolocalization(columns=columns, covered_only=covered_only),
            Ablation(templates=templates, image_weight=image_weight, examples=examples,
                     radius=radius, depth=max_k),
            (embeddings, run), data, name, results, force=force, seed=seed, resamples=resamples,
            json=json,
        )  # fmt: skip
        return
    assert predictions is not None and ground_truth is not None
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
    with _name_files(predictions=predictions, ground_truth=ground_truth):
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
    details = {
        "predictions": {"notes": list(tiles.notes)},
        "ground_truth": points.to_dict()
        | {"points": len(covered), "covered": int(covered.sum()), "warnings": warnings},
        "covered_only": covered_only,
    }
    _print_evaluation(evaluation, json, data=details)


@contextmanager
def _name_files(**files: Path) -> Iterator[None]:
    """Add the files of the inputs to a DataError, whose message names only the inputs."""
    try:
        yield
    except DataError as error:
        names = ", ".join(f"{name.replace('_', ' ')}: {file}" for name, file in files.items())
        raise type(error)(f"{error.message} ({names})", remedy=error.remedy) from error


def _is_dataset_form(
    files: Mapping[str, Path | None],
    arrays: Mapping[str, Any],
    dataset: Mapping[str, Any],
    *,
    of_queries: Sequence[str] = (),
) -> bool:
    """Return whether --embeddings or --run is given; raise UsageError if two forms are mixed.

    `of_queries` are options that say how query vectors are made, which a ranking does not have.
    """
    used = [option for option, file in files.items() if file is not None]
    if not used:
        extra = [option for option, value in dataset.items() if value is not None]
        missing = [option for option, value in arrays.items() if value is None]
        if extra:
            raise UsageError(
                f"{', '.join(extra)}: requires --embeddings FILE or --run FILE",
                remedy="Add one of them, or leave it out.",
            )
        if missing:
            raise UsageError(
                f"missing option {missing[0]}",
                remedy=f"Give {', '.join(arrays)}; or --name NAME and --embeddings FILE or "
                "--run FILE.",
            )
        return False
    extra = [option for option, value in arrays.items() if value is not None]
    if extra or len(used) > 1:
        raise UsageError(
            f"{', '.join(extra or used[1:])}: not with {used[0]}", remedy="Give one of the two."
        )
    if dataset["--name"] is None:
        raise UsageError(
            f"{used[0]} requires --name NAME", remedy="Add the name of the model for tables."
        )
    unused = [option for option in of_queries if dataset[option] is not None]
    if used == ["--run"] and unused:
        raise UsageError(
            f"{', '.join(unused)}: not with --run, whose queries are already ranked",
            remedy="Leave one of them out.",
        )
    return True


def _score_dataset(
    task: str | Task,
    ablation: Ablation,
    files: tuple[Path | None, Path | None],
    data: Path | None,
    name: str | None,
    results: Path | None,
    *,
    force: bool,
    seed: int,
    resamples: int,
    json: Path | None,
) -> None:
    """Score embeddings or a run of a dataset's items, and print the table or write the JSON."""
    from marsretrieval.evaluation.external import score_embeddings, score_run
    from marsretrieval.report.render import print_tables
    from marsretrieval.report.tables import model_tables
    from marsretrieval.tasks import Settings, find_task

    embeddings, run = files
    score, file = (score_embeddings, embeddings) if run is None else (score_run, run)
    assert file is not None and name is not None
    (configured,) = ablation.apply([find_task(task) if isinstance(task, str) else task])
    with show_progress(quiet=str(json) == "-") as progress:
        path, result = score(
            configured,
            file,
            data=data or Path("data"),
            name=name,
            results=results or Path("results"),
            settings=Settings(seed=seed, resamples=resamples),
            force=force,
            progress=progress,
            say=say,
        )
    say(f"{name} on {result.task}: -> {path}")
    if json is not None:
        print_json(result.to_dict(), None if str(json) == "-" else json)
        return
    print_tables(model_tables([result], references=False))


def _print_evaluation(
    evaluation: Evaluation, out: Path | None, *, data: Mapping[str, Any] | None = None
) -> None:
    record = evaluation.to_dict() | ({"data": dict(data)} if data else {})
    if out is not None:
        print_json(record, None if str(out) == "-" else out)
        return
    from marsretrieval.report.render import print_evaluation

    print_evaluation(record)
