"""Task 3, global geo-localization: rank all tiles of the planet by a landform query."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from marsretrieval.datasets.base import ImageSource, Record, Skipped, UnusedFile
from marsretrieval.datasets.ground_truth import (
    Points,
    catalogue_files,
    read_catalogues,
    read_image_queries,
)
from marsretrieval.datasets.images import decode_rgb
from marsretrieval.datasets.open import open_images
from marsretrieval.datasets.positions import PositionColumns, TileCoverage, coverage_line
from marsretrieval.embeddings.batches import embed_images, embed_texts
from marsretrieval.embeddings.store import EmbeddingStore
from marsretrieval.errors import DataError, ImageError, UsageError
from marsretrieval.io import sha256_json
from marsretrieval.metrics.bootstrap import seed_of
from marsretrieval.progress import NO_PROGRESS, Progress
from marsretrieval.search.query import (
    MIX,
    TEMPLATES,
    geolocalization_prompts,
    hybrid_query,
    image_query,
    name_templates,
    text_query,
)
from marsretrieval.search.topk import exact_topk
from marsretrieval.tasks.base import (
    Outcome,
    Settings,
    TaskData,
    count_cut,
    dataset_folder,
    fingerprint,
)
from marsretrieval.tasks.landform_means import mean_over_landforms
from marsretrieval.tasks.limit import first_items, limited_data
from marsretrieval.tasks.tile_rankings import MAX_K, best_tiles, score_rankings
from marsretrieval.text import pluralize

if TYPE_CHECKING:
    from marsretrieval.encoders.base import Encoder, Modality, Vectors


RADIUS_DEG = 0.5
_MAX_DEPTH = 2**31 - 2


@runtime_checkable
class SuppliesExamples(Protocol):
    """An encoder that holds the vectors of example images computed elsewhere."""

    def example_vectors(self, landform: str, ids: Sequence[str]) -> Vectors:
        """Return the vectors of the example images of a landform.

        Args:
            landform: Name of the landform.
            ids: Ids of the images within the folder of the landform.

        Returns:
            float32 array of shape (n, dimension), unit rows.
        """


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
        radius: Tolerance in degrees.
        depth: Depth at which the rankings are truncated.
        templates: Prompt templates.
        image_weight: Weight of the images in hybrid queries.
        examples: Number of example images per landform, drawn by the seed; None: all.
    """

    name = "geolocalization"
    aliases: tuple[str, ...] = ("global_geolocalization", "geo")
    title = "Global geo-localization"
    folder_name = "Mars-Global-Geolocalization"
    vector_dtype = "float16"
    main_metric = "average_precision"

    def __init__(
        self,
        *,
        columns: PositionColumns | None = None,
        covered_only: bool = False,
        radius: float = RADIUS_DEG,
        depth: int = MAX_K,
        templates: Sequence[str] = TEMPLATES,
        image_weight: float = MIX,
        examples: int | None = None,
    ) -> None:
        """Set how catalogues are read, queries are made and rankings are scored.

        Args:
            columns: Columns that hold the positions; None: found by their names.
            covered_only: Count only points within the tiles' coverage.
            radius: Tolerance in degrees.
            depth: Depth at which the rankings are truncated.
            templates: Prompt templates with {} for the name.
            image_weight: Weight of the images in hybrid queries, 0 to 1.
            examples: Number of example images per landform, drawn by the seed; None: all.

        Raises:
            UsageError: If a value is out of range.
        """
        if not 0 < radius <= 180:
            raise UsageError(f"radius must be above 0 and at most 180 degrees, not {radius:g}")
        if not 1 <= depth <= _MAX_DEPTH:
            raise UsageError(f"depth must be 1 to {_MAX_DEPTH:,}, not {depth:,}")
        if not 0 <= image_weight <= 1:
            raise UsageError(f"image weight must be 0 to 1, not {image_weight:g}")
        if examples is not None and examples < 1:
            raise UsageError(f"examples must be at least 1, not {examples}")
        self.columns = columns
        self.covered_only = covered_only
        self.radius = float(radius)
        self.depth = depth
        self.templates = tuple(templates)
        self.image_weight = float(image_weight)
        self.examples = examples

    @property
    def options(self) -> dict[str, Any]:
        """Options that differ from the published protocol."""
        values: tuple[tuple[str, Any, Any], ...] = (
            ("radius", self.radius, RADIUS_DEG),
            ("depth", self.depth, MAX_K),
            ("templates", name_templates(self.templates), name_templates(TEMPLATES)),
            ("image_weight", self.image_weight, MIX),
            ("examples", self.examples, None),
        )
        return {name: value for name, value, default in values if value != default}

    def unused_options(self, data: TaskData, modalities: frozenset[Modality]) -> dict[str, str]:
        """Return the options that have no effect with these data and a model.

        Args:
            data: Data of the task.
            modalities: Modalities of the model.

        Returns:
            Option to the reason.
        """
        reasons: dict[str, str] = {}
        if not data.annotations.examples:
            reasons |= dict.fromkeys(
                ("image_weight", "examples"), "the data have no example images"
            )
        if "text" not in modalities:
            reasons |= dict.fromkeys(("image_weight", "templates"), "it has no text encoder")
        return {name: reason for name, reason in reasons.items() if name in self.options}

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
            UnusedFile(name, str(examples_folder / name), "not read: no catalogue of this name")
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
        row_count = sum(shard.rows or 0 for shard in tiles.shards())
        return limited_data(
            data,
            tiles,
            count,
            kept=row_count,
            of=data.counts.get("tiles"),
            items="tiles",
            counts={**data.counts, "tiles": row_count},
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
            annotations, dropped = _within_coverage(annotations, tiles, data.folder, self.radius)
            limit["dropped_queries"] = len(dropped)
        covered_only = self.covered_only or bool(limit)
        catalogues, notes, details = self.select_points(annotations.points, tiles, covered_only)
        if limit and dropped:
            notes.append(
                f"{pluralize(len(dropped), 'landform')} without a point within the limited tiles "
                f"dropped: {', '.join(dropped)}"
            )
        start = time.perf_counter()
        queries, skipped = self._make_queries(encoder, annotations, settings.seed)
        if not queries:
            raise DataError(
                f"{data.folder}: no query could be made: no readable example image, "
                f"and {encoder.id} has no text encoder",
                remedy="Put example images into image_queries/<landform>/.",
            )
        embedded = time.perf_counter()
        query_vectors = np.stack(list(queries.values()))
        ranking = exact_topk(images, query_vectors, self.depth + 1, index="use", progress=progress)
        searched = time.perf_counter()

        rankings = (
            (key, *best_tiles(images, vector, *ranking.hits(row), depth=self.depth))
            for row, (key, vector) in enumerate(queries.items())
        )
        with progress.start("score", len(queries), "queries") as bar:
            groups, hits = score_rankings(
                images, tiles, list(queries), rankings, catalogues, settings,
                radius=self.radius, depth=self.depth, on_query=bar.advance,
            )  # fmt: skip
        return Outcome(
            groups=groups | mean_over_landforms(groups),
            n={
                "tiles": images.rows,
                **{f"points/{k}": len(v.lon) for k, v in catalogues.items()},
            },
            set_hash=images.set_hash,
            hits=hits,
            skipped=skipped,
            truncated=_cut_prompts(encoder, annotations, self.templates),
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

    def select_points(
        self, catalogues: Mapping[str, Points], tiles: npt.NDArray[np.float64], covered_only: bool
    ) -> tuple[dict[str, Points], list[str], dict[str, Any]]:
        """Select the points that count.

        Args:
            catalogues: Landform to its points.
            tiles: Centres of all tiles, degrees, shape (n, 2).
            covered_only: Count only points within the tiles' coverage.

        Returns:
            Landform to the points that count, and notes and details about their coverage.

        Raises:
            DataError: If a landform has no point within the coverage (`covered_only`).
        """
        coverage = TileCoverage(tiles, self.radius)
        counted: dict[str, Points] = {}
        notes: list[str] = []
        details: dict[str, Any] = {}
        for landform, points in catalogues.items():
            near = coverage.contains(points.lon, points.lat)
            notes.append(coverage_line(landform, int(near.sum()), len(near), self.radius))
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

    def _make_queries(
        self, encoder: Encoder, annotations: _Annotations, seed: int
    ) -> tuple[dict[tuple[str, str], Vectors], list[Skipped]]:
        """Query vectors by (landform, mode), for all modes that the model and the data allow."""
        queries: dict[tuple[str, str], Vectors] = {}
        skipped: list[Skipped] = []
        for landform in annotations.points:
            text = images = None
            if "text" in encoder.modalities:
                prompts = geolocalization_prompts(landform, self.templates)
                text = text_query(embed_texts(encoder, prompts))
                queries[landform, "text"] = text
            if landform in annotations.examples:
                source = annotations.examples[landform]
                images = _example_vectors(encoder, landform, source, skipped)
            if images is not None:
                if self.examples is not None:
                    images = self._draw(images, landform, seed)
                queries[landform, "image"] = image_query(images)
            if text is not None and images is not None:
                queries[landform, "hybrid"] = hybrid_query(images, text, mix=self.image_weight)
        return queries, skipped

    def _draw(self, images: Vectors, landform: str, seed: int) -> Vectors:
        """Draw `examples` rows without replacement; the rows depend on seed and landform only."""
        assert self.examples is not None
        if self.examples > len(images):
            raise UsageError(
                f"{landform}: {pluralize(self.examples, 'example')} of {len(images)} readable "
                "images",
                remedy="Give a smaller number of examples.",
            )
        generator = np.random.default_rng(seed_of(seed, f"examples/{landform}"))
        rows = generator.choice(len(images), self.examples, replace=False)
        return images[np.sort(rows)]


def _within_coverage(
    annotations: _Annotations, tiles: npt.NDArray[np.float64], folder: Path, radius: float
) -> tuple[_Annotations, list[str]]:
    """Drop the landforms without a point within the coverage, and return their names."""
    coverage = TileCoverage(tiles, radius)
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


def _cut_prompts(
    encoder: Encoder, annotations: _Annotations, templates: Sequence[str]
) -> dict[str, int]:
    if "text" not in encoder.modalities:
        return {}
    prompts = [
        prompt for name in annotations.points for prompt in geolocalization_prompts(name, templates)
    ]
    return count_cut(encoder, prompts, role="query")


def _example_vectors(
    encoder: Encoder, landform: str, source: ImageSource, skipped: list[Skipped]
) -> Vectors | None:
    if isinstance(encoder, SuppliesExamples):
        ids = [item.id for shard in source.shards() for item in source.read(shard, images=False)]
        return encoder.example_vectors(landform, ids)
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
