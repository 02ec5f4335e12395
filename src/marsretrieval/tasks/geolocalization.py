"""Task 3, global geo-localization: rank all tiles of the planet by a landform query."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marsretrieval import geo
from marsretrieval.datasets.base import ImageSource, Record, Skipped
from marsretrieval.datasets.ground_truth import (
    Points,
    catalogue_files,
    read_catalogues,
    read_image_queries,
)
from marsretrieval.datasets.images import decode_rgb
from marsretrieval.datasets.open import open_images
from marsretrieval.datasets.positions import PositionColumns, TileCoverage, coverage_line
from marsretrieval.embeddings.encode import embed_images, embed_texts
from marsretrieval.embeddings.store import EmbeddingStore
from marsretrieval.errors import DataError, ImageError, UsageError
from marsretrieval.io import sha256_json
from marsretrieval.metrics import geolocalization
from marsretrieval.metrics.bootstrap import basis_of, interval, seed_of
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.results import MEAN, PROTOCOLS, Evaluation
from marsretrieval.search.query import (
    geolocalization_prompts,
    hybrid_query,
    image_query,
    text_query,
)
from marsretrieval.search.topk import exact_topk
from marsretrieval.tasks.base import (
    Hits,
    Outcome,
    Settings,
    TaskData,
    count_cut,
    dataset_folder,
    fingerprint,
)
from marsretrieval.tasks.limit import first_items, limited_data
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    from marsretrieval.encoders.base import Encoder, Modality, Vectors

MAX_K = 20_000  # depth of the published evaluation
RADIUS_DEG = 0.5


@dataclass(frozen=True, slots=True)
class _Annotations:
    points: Mapping[str, Points]
    examples: Mapping[str, ImageSource]


class Geolocalization:
    """Global geo-localization with text, image and hybrid queries.

    The queries of a landform are its name (three prompts), the mean of its example images, and a
    mix of both.

    Attributes:
        columns: Columns of the catalogues that hold the positions; None: found by their names.
        covered_only: Whether only points within the tiles' coverage count.
    """

    name = "geolocalization"
    aliases: tuple[str, ...] = ("global_geolocalization", "geo")
    title = "Global geo-localization"
    folder_name = "Mars-Global-Geolocalization"
    vector_dtype = "float16"
    main_metric = "average_precision"

    def __init__(
        self, *, columns: PositionColumns | None = None, covered_only: bool = False
    ) -> None:
        """Set how catalogues are read.

        Args:
            columns: Columns that hold the positions; None: found by their names.
            covered_only: Count only points within the tiles' coverage.
        """
        self.columns = columns
        self.covered_only = covered_only

    def open(self, data: str | Path, *, with_images: bool = True) -> TaskData:
        """Find and check catalogues, example images and tiles.

        Args:
            data: Folder of datasets, or one dataset.
            with_images: Open the tiles; False if the caller supplies a store of their embeddings.

        Returns:
            The data.

        Raises:
            DatasetNotFoundError: If the dataset is missing.
            DataError: If the data are invalid.
            TableError: If a catalogue cannot be read.
        """
        data = Path(data)
        folder = dataset_folder(data, self.folder_name, task=self.name)
        files = catalogue_files(folder / "ground_truth")
        points = read_catalogues(files, columns=self.columns)
        examples_folder = folder / "image_queries"
        examples = read_image_queries(examples_folder) if examples_folder.is_dir() else {}
        unused = [
            Skipped(name, str(examples_folder / name), "not read: no catalogue of this name")
            for name in sorted(examples.keys() - points.keys())
        ]
        source = open_images(folder / "tiles") if with_images else None
        parts: dict[str, Any] = {
            "points": {
                name: sha256_json([catalogue.lon.tolist(), catalogue.lat.tolist()])
                for name, catalogue in points.items()
            },
            "examples": {name: fingerprint(images) for name, images in examples.items()},
            "tiles": fingerprint(source) if source else None,
        }
        if self.covered_only:
            parts["covered_only"] = True
        rows = [shard.rows for shard in source.shards()] if source else []
        counts = {
            "landforms": len(points),
            "points": sum(len(catalogue.lon) for catalogue in points.values()),
        }
        if rows and None not in rows:
            counts["tiles"] = sum(row for row in rows if row is not None)
        return TaskData(
            folder=folder,
            source=source,
            counts=counts,
            fingerprint=sha256_json(parts),
            annotations=_Annotations(points, examples),
            skipped=[*files.ignored, *unused],
            notes=[note for catalogue in points.values() for note in catalogue.notes],
        )

    def missing_modality(self, data: TaskData, modalities: frozenset[Modality]) -> Modality | None:
        """Return "text" if the model has no text encoder and the data no example images.

        Args:
            data: Data of the task.
            modalities: Modalities of the model.

        Returns:
            "text" or None.
        """
        return None if "text" in modalities or data.annotations.examples else "text"

    def limit(self, data: TaskData, count: int) -> TaskData:
        """Limit the data to the first tiles in the order of the dataset.

        Points outside the coverage of these tiles do not count, and landforms without a point in
        it are dropped; both are known in `evaluate`, from the positions of the tiles.

        Args:
            data: Data of the task.
            count: Number of tiles to keep.

        Returns:
            The limited data.

        Raises:
            UsageError: If the caller supplies a store of the tiles.
        """
        if data.source is None:
            raise UsageError(
                "a limit does not apply to a store of tiles (--store)",
                remedy="Make a smaller store: marsretrieval store subset STORE -o SMALL --bbox ...",
            )
        tiles = first_items(data.source, count)
        kept = sum(shard.rows or 0 for shard in tiles.shards())
        return limited_data(
            data,
            tiles,
            count,
            kept=kept,
            of=data.counts.get("tiles"),
            items="tiles",
            counts={**data.counts, "tiles": kept},
        )

    def evaluate(
        self,
        data: TaskData,
        encoder: Encoder,
        images: EmbeddingStore,
        scratch: Path,
        settings: Settings,
        progress: Progress = NO_PROGRESS,
    ) -> Outcome:
        """Rank all tiles for every landform and kind of query, and score the rankings.

        Args:
            data: Data of the task.
            encoder: The model, which embeds the queries.
            images: Store of the tile embeddings, with positions.
            scratch: Unused.
            settings: Settings of the evaluation.
            progress: Receives the progress.

        Returns:
            Evaluations per landform and kind of query, and their means over landforms.

        Raises:
            DataError: If there is no query, or no point within the coverage (`covered_only`).
        """
        annotations: _Annotations = data.annotations
        tiles = images.positions()
        limit: dict[str, Any] = dict(data.limit or {})
        if limit:
            annotations, dropped = _within_coverage(annotations, tiles, data.folder)
            limit["dropped_queries"] = len(dropped)
        covered_only = self.covered_only or bool(limit)
        catalogues, notes, details = self._covered(annotations.points, tiles, covered_only)
        if limit and dropped:
            notes.append(
                f"{pluralize(len(dropped), 'landform')} without a point within the limited tiles "
                f"dropped: {', '.join(dropped)}"
            )
        start = time.perf_counter()
        queries, skipped = _queries(encoder, annotations)
        if not queries:
            raise DataError(
                f"{data.folder}: no query could be made: no readable example image, "
                f"and {encoder.id} has no text encoder",
                remedy="Put example images into image_queries/<landform>/.",
            )
        embedded = time.perf_counter()
        query_vectors = np.stack(list(queries.values()))
        ranking = exact_topk(images, query_vectors, MAX_K + 1, index="use", progress=progress)
        searched = time.perf_counter()

        groups: dict[str, Evaluation] = {}
        hits = Hits()
        chance = _expect_random(images, tiles, {name: catalogues[name] for name, _ in queries})
        with progress.start("score", len(queries), "queries") as bar:
            for number, (landform, mode) in enumerate(queries):
                scores, rows = best_tiles(images, query_vectors[number], *ranking.hits(number))
                points = catalogues[landform]
                group = f"{landform}/{mode}"
                tile_block = images.take(rows)
                groups[group] = geolocalization.evaluate(
                    scores,
                    ids=tile_block.ids,
                    published_lonlat=published_positions(
                        tile_block.ids, tile_block.lon, tile_block.lat
                    ),
                    centre_lonlat=np.column_stack([tile_block.lon, tile_block.lat]),
                    truth_lonlat=np.column_stack([points.lon, points.lat]),
                    all_centre_lonlat=tiles,
                    radius_deg=RADIUS_DEG,
                    max_k=MAX_K,
                    seed=seed_of(settings.seed, landform),
                    resamples=settings.resamples,
                    chance=chance[landform],
                )
                relevant = geo.near_any(
                    tile_block.lon, tile_block.lat, points.lon, points.lat, RADIUS_DEG
                )
                for row in range(min(len(rows), MAX_K)):
                    hits.append(
                        group, landform, row + 1, tile_block.ids[row], float(scores[row]),
                        relevant=bool(relevant[row]),
                        lon=float(tile_block.lon[row]), lat=float(tile_block.lat[row]),
                    )  # fmt: skip
                bar.advance()
        return Outcome(
            groups=groups | mean_over_landforms(groups),
            n={
                "tiles": images.rows,
                **{f"points/{k}": len(v.lon) for k, v in catalogues.items()},
            },
            set_hash=images.set_hash,
            hits=hits,
            skipped=skipped,
            truncated=_cut_prompts(encoder, annotations),
            timings={
                "embed_queries": embedded - start,
                "search": searched - embedded,
                "score": time.perf_counter() - searched,
            },
            notes=notes,
            details={
                "catalogues": details,
                "covered_only": covered_only,
                **({"limit": limit} if limit else {}),
            },
            examples=annotations.examples,
        )

    def _covered(
        self, catalogues: Mapping[str, Points], tiles: npt.NDArray[np.float64], covered_only: bool
    ) -> tuple[dict[str, Points], list[str], dict[str, Any]]:
        """Select the points that count, with notes and details about their coverage."""
        coverage = TileCoverage(tiles, RADIUS_DEG)
        counted: dict[str, Points] = {}
        notes: list[str] = []
        details: dict[str, Any] = {}
        for landform, points in catalogues.items():
            near = coverage.contains(points.lon, points.lat)
            notes.append(coverage_line(landform, int(near.sum()), len(near), RADIUS_DEG))
            warnings = points.suspicions(coverage)
            notes += [f"warning: {warning}" for warning in warnings]
            details[landform] = points.to_dict() | {
                "covered": int(near.sum()),
                "warnings": warnings,
            }
            if covered_only and not near.any():
                raise DataError(
                    f"{points.source or landform}: no point lies within the tiles' coverage",
                    remedy="Leave --covered-only out, or remove this catalogue from the folder.",
                )
            counted[landform] = points.take(near) if covered_only else points
        return counted, notes, details


def _within_coverage(
    annotations: _Annotations, tiles: npt.NDArray[np.float64], folder: Path
) -> tuple[_Annotations, list[str]]:
    """Drop the landforms without a point within the coverage, and return their names."""
    coverage = TileCoverage(tiles, RADIUS_DEG)
    points = {
        name: catalogue
        for name, catalogue in annotations.points.items()
        if coverage.contains(catalogue.lon, catalogue.lat).any()
    }
    if not points:
        raise DataError(
            f"{folder}: no landform has a point within the limited tiles",
            remedy="Give a larger --limit.",
        )
    examples = {name: images for name, images in annotations.examples.items() if name in points}
    dropped = [name for name in annotations.points if name not in points]
    return _Annotations(points, examples), dropped


def _cut_prompts(encoder: Encoder, annotations: _Annotations) -> dict[str, int]:
    if "text" not in encoder.modalities:
        return {}
    prompts = [prompt for name in annotations.points for prompt in geolocalization_prompts(name)]
    return count_cut(encoder, prompts, role="query")


def best_tiles(
    images: EmbeddingStore, query: Vectors, scores: Vectors, rows: npt.NDArray[np.int64]
) -> tuple[Vectors, npt.NDArray[np.int64]]:
    """Return the best `MAX_K` tiles and all tiles that tie with the last of them.

    The metric selects among the ties and reports their effect.

    Args:
        images: Store of the tile embeddings.
        query: Query vector, shape (dim,).
        scores: Scores of the best `MAX_K` + 1 tiles, descending.
        rows: Their rows in the store.

    Returns:
        Scores and rows.
    """
    if len(rows) <= MAX_K or scores[MAX_K] < scores[MAX_K - 1]:
        return scores[:MAX_K], rows[:MAX_K]
    least = float(scores[MAX_K - 1])
    return exact_topk(images, query, None, min_score=least, index="use").hits(0)


def _expect_random(
    images: EmbeddingStore, centres: npt.NDArray[np.float64], points: Mapping[str, Points]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Expected metrics of a random ranking of all tiles, per landform."""
    corners = np.concatenate(
        [published_positions(block.ids, block.lon, block.lat) for block in images.blocks()]
    )
    return {
        name: geolocalization.expect_random(
            corners,
            centres,
            np.column_stack([catalogue.lon, catalogue.lat]),
            radius_deg=RADIUS_DEG,
            max_k=MAX_K,
        )
        for name, catalogue in points.items()
    }


def mean_over_landforms(groups: Mapping[str, Evaluation]) -> dict[str, Evaluation]:
    """Compute unweighted means over landforms, one per kind of query.

    The landforms are a fixed selection, not a sample: they are strata, and each is resampled
    separately (Davison & Hinkley 1997, section 3.2). An interval measures the variation over other
    regions with the same landforms.

    Args:
        groups: "LANDFORM/MODE" to its evaluation.

    Returns:
        `MEAN` + MODE to the mean evaluation.
    """
    by_mode: dict[str, list[Evaluation]] = {}
    for group, evaluation in groups.items():
        by_mode.setdefault(group.split("/")[1], []).append(evaluation)

    def mean(evaluations: list[Evaluation], protocol: str, *path: str) -> float:
        values = [
            reduce(getitem, path, getattr(evaluation, protocol)) for evaluation in evaluations
        ]
        return float(np.mean(values))

    def intervals(evaluations: list[Evaluation], protocol: str) -> dict[str, tuple[float, float]]:
        samples = [evaluation.samples.get(protocol, {}) for evaluation in evaluations]
        return {
            key: interval(np.mean([values[key] for values in samples], axis=0))
            for key in samples[0]
            if all(key in values for values in samples)
        }

    def expected(evaluations: list[Evaluation]) -> dict[str, dict[str, Any]]:
        if not all(evaluation.chance for evaluation in evaluations):
            return {}
        areas = {"published": ("auprc",), "strict": ("average_precision", "normalised")}
        return {
            protocol: {
                **{key: mean(evaluations, "chance", protocol, key) for key in keys},
                "best": {"f1": mean(evaluations, "chance", protocol, "best", "f1")},
            }
            for protocol, keys in areas.items()
        }

    def fewest_blocks(evaluations: list[Evaluation]) -> int:
        """Smallest number of blocks of a landform, under either protocol."""
        bases = [
            basis for evaluation in evaluations for basis in evaluation.interval_basis.values()
        ]
        return min((int(basis["count"]) for basis in bases), default=0)

    ends = {
        mode: {protocol: intervals(evaluations, protocol) for protocol in PROTOCOLS}
        for mode, evaluations in by_mode.items()
    }
    return {
        f"{MEAN}{mode}": Evaluation(
            task="geolocalization",
            n={"landforms": len(evaluations)},
            published={
                "auprc": mean(evaluations, "published", "auprc"),
                "best": {"f1": mean(evaluations, "published", "best", "f1")},
            },
            strict={
                "average_precision": mean(evaluations, "strict", "average_precision"),
                "normalised": mean(evaluations, "strict", "normalised"),
                "best": {"f1": mean(evaluations, "strict", "best", "f1")},
                "ceiling": {
                    "average_precision": mean(
                        evaluations, "strict", "ceiling", "average_precision"
                    ),
                    "f1": mean(evaluations, "strict", "ceiling", "f1"),
                },
            },
            intervals=ends[mode],
            chance=expected(evaluations),
            interval_basis=basis_of(ends[mode], "spatial blocks", fewest_blocks(evaluations)),
        )
        for mode, evaluations in by_mode.items()
    }


def _queries(
    encoder: Encoder, annotations: _Annotations
) -> tuple[dict[tuple[str, str], Vectors], list[Skipped]]:
    """Query vectors by (landform, mode), for all modes that the model and the data allow."""
    queries: dict[tuple[str, str], Vectors] = {}
    skipped: list[Skipped] = []
    for landform in annotations.points:
        text = images = None
        if "text" in encoder.modalities:
            text = text_query(embed_texts(encoder, geolocalization_prompts(landform)))
            queries[landform, "text"] = text
        if landform in annotations.examples:
            images = _example_vectors(encoder, annotations.examples[landform], skipped)
            if images is not None:
                queries[landform, "image"] = image_query(images)
        if text is not None and images is not None:
            queries[landform, "hybrid"] = hybrid_query(images, text)
    return queries, skipped


def _example_vectors(
    encoder: Encoder, source: ImageSource, skipped: list[Skipped]
) -> Vectors | None:
    pictures = []
    for shard in source.shards():
        for item in source.read(shard):
            if isinstance(item, Record):
                try:
                    pictures.append(decode_rgb(item.data, item.source))
                except ImageError as error:
                    skipped.append(Skipped(item.id, item.source, error.message))
            else:
                skipped.append(item)
    return embed_images(encoder, pictures) if pictures else None


def published_positions(ids: Sequence[str], lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Return positions as the published code reads them: the south-west corner in a tile's name.

    If the name is not that of a tile, the stored position is used.

    Args:
        ids: n tile ids.
        lon: Longitudes of the centres, degrees, shape (n,).
        lat: Latitudes of the centres, degrees, shape (n,).

    Returns:
        float64 array of shape (n, 2).
    """
    corners = [
        geo.tile_corner(name) or centre
        for name, centre in zip(ids, zip(lon, lat, strict=True), strict=True)
    ]
    return np.array(corners, dtype=np.float64).reshape(-1, 2)
