"""Tests of the options that differ from the published protocol."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import marsretrieval as mr
from marsretrieval.embeddings import open_store
from marsretrieval.embeddings.store import TruncatedStore
from marsretrieval.encoders.base import truncate
from marsretrieval.errors import DataError, UsageError
from marsretrieval.metrics import landform
from marsretrieval.report.compare import compare_results
from marsretrieval.report.exports import hf_yaml
from marsretrieval.report.matching import match_results
from marsretrieval.report.result_files import ResultFile
from marsretrieval.report.tables import model_tables
from marsretrieval.search import PUBLISHED_TEMPLATES, TEMPLATES, choose_templates
from marsretrieval.tasks import TASKS, Geolocalization, LandformRetrieval, read_class_names
from marsretrieval.tasks.ablation import Ablation
from tests.fakes import FakeEncoder, FakeVisionEncoder


class Model(FakeEncoder):
    """Encoder with a name of its own."""


class Blind(FakeVisionEncoder):
    """Encoder without text."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


def run(planet: Path, folder: Path, task: str, **options: Any) -> mr.Results:
    return mr.evaluate(Model(), task, data=planet, results=folder, resamples=5, **options)


def test_image_queries_match_a_direct_computation() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((14, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = ["a"] * 6 + ["b"] * 5 + ["c"] * 2 + ["single"]
    outcome = landform.evaluate_examples(
        vectors, labels=labels, image_ids=[str(n) for n in range(14)],
        query_names=sorted(set(labels)), resamples=0,
    )  # fmt: skip
    expected: dict[str, list[float]] = {}
    for query in range(13):
        others = sorted(
            (n for n in range(14) if n != query), key=lambda n: -float(vectors[n] @ vectors[query])
        )
        hits, precisions = 0, []
        for rank, n in enumerate(others, 1):
            if labels[n] == labels[query]:
                hits += 1
                precisions.append(hits / rank)
        expected.setdefault(labels[query], []).append(sum(precisions) / len(precisions))
    by_class = {name: sum(values) / len(values) for name, values in expected.items()}
    for name, value in by_class.items():
        assert outcome.strict["per_class"][name]["mAP"] == pytest.approx(value)
    assert outcome.strict["mAP"] == pytest.approx(sum(by_class.values()) / 3)
    assert outcome.n == {"images": 14, "classes": 3}


def test_equal_image_queries_are_at_chance() -> None:
    labels = [f"c{n % 4}" for n in range(200)]
    outcome = landform.evaluate_examples(
        np.full((200, 4), 0.5, np.float32), labels=labels, image_ids=[str(n) for n in range(200)],
        query_names=sorted(set(labels)), resamples=0,
    )  # fmt: skip
    assert outcome.strict["mAP"] == pytest.approx(outcome.chance["strict"]["mAP"], abs=0.02)
    assert outcome.ties["mAP"][0] < outcome.strict["mAP"] < outcome.ties["mAP"][1] == 1


def test_templates(tmp_path: Path) -> None:
    assert choose_templates(3) == TEMPLATES and choose_templates("10") == PUBLISHED_TEMPLATES
    file = tmp_path / "t.txt"
    file.write_text("{} on Mars\n\nview of {}\n")
    assert choose_templates(file) == ("{} on Mars", "view of {}")
    for value, message in ((0, "10 are published"), (11, "10 are"), (["none"], "has 0 {}")):
        with pytest.raises(UsageError, match=message):
            choose_templates(value)  # type: ignore[arg-type]


def test_options_that_apply_to_no_task_are_refused() -> None:
    paired, geo = TASKS[0], TASKS[2]
    for options, task in (({"radius": 1.0}, paired), ({"caption": "original"}, geo),
                          ({"queries": "images"}, geo)):  # fmt: skip
        with pytest.raises(UsageError, match=r"requires the [^\n]*\n  Use -t "):
            Ablation(**options).apply([task])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="do not apply to image queries"):
        LandformRetrieval(queries="images", templates=choose_templates(1))
    with pytest.raises(UsageError, match="depth must be"):
        Geolocalization(depth=0)


def test_empty_lists_are_refused(tiny_planet: Path, folder: Path) -> None:
    with pytest.raises(UsageError, match="no tasks are given"):
        mr.evaluate("mars-nano", [], data=tiny_planet, results=folder)
    with pytest.raises(UsageError, match="no models are given"):
        mr.evaluate([], "landform", data=tiny_planet, results=folder)


def test_options_without_effect_are_refused(tiny_planet: Path, folder: Path) -> None:
    for options in ({"templates": 1}, {"image_weight": 0.5}):
        with pytest.raises(UsageError, match=r"does not apply to .*no text encoder"):
            mr.evaluate(Blind(), "geo", data=tiny_planet, results=folder, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="Matryoshka"):
        run(tiny_planet, folder, "landform", dim=8)


def test_results_of_other_options_are_kept_apart(tiny_planet: Path, folder: Path) -> None:
    base = run(tiny_planet, folder, "landform")
    one = run(tiny_planet, folder, "landform", templates=1)
    images = run(tiny_planet, folder, "landform", queries="images")
    small = run(tiny_planet, folder, "landform", dim=8, confirm_dim=True)
    names = [outcome.paths[0].name for outcome in (base, one, images, small)]
    assert names == ["landform.json", "landform.templates-1.json",
                     "landform.queries-images.json", "landform.dim-8.json"]  # fmt: skip
    assert len({outcome[0].request for outcome in (base, one, images, small)}) == 4
    assert small[0].model["dimension"] == 8
    assert run(tiny_planet, folder, "landform", templates=1)[0].created == one[0].created
    tables = model_tables([*base, *one, *images, *small])
    assert [table.options for table in tables] == ["", "image queries (leave-one-out)"]
    rows = {row.name.rpartition("[")[2] for row in tables[0].rows if row.kind == "model"}
    assert {"1 template]", "8 dimensions]"} < rows
    a, b, c = (ResultFile.read(outcome.paths[0]) for outcome in (base, one, images))
    assert "[1 template]" in compare_results(a, b, resamples=5).b
    with pytest.raises(DataError, match=r"measured with the published protocol, B with image"):
        compare_results(a, c)
    with pytest.raises(DataError, match="1 template, not a result to publish"):
        hf_yaml([b])


def test_compare_by_name_never_pairs_other_options(tiny_planet: Path, tmp_path: Path) -> None:
    for name, count in (("a", 1), ("b", 5)):
        run(tiny_planet, tmp_path, "landform", templates=count, name=name)
    with pytest.raises(DataError, match="no result of both with the same options"):
        match_results("a", "b", results=tmp_path)


def test_original_captions_radius_and_depth(tiny_planet: Path, folder: Path) -> None:
    refined = run(tiny_planet, folder, "paired")[0]
    original = run(tiny_planet, folder, "paired", caption="original")[0]
    assert refined.data["set_hash"] != original.data["set_hash"]
    near = run(tiny_planet, folder, "geo", radius=0.2, depth=30)[0]
    assert near.options == {"radius": 0.2, "depth": 30}
    wide = run(tiny_planet, folder, "geo", radius=2)[0]
    group = next(name for name in wide.metrics if name.endswith("/text") and "mean" not in name)
    relevant = [outcome.metrics[group]["strict"]["relevant_tiles"] for outcome in (near, wide)]
    assert relevant[0] < relevant[1]


def test_seeds_draw_other_examples(tiny_planet: Path, folder: Path) -> None:
    results = run(tiny_planet, folder, "geo", examples=1, seed=[0, 1])
    values = [outcome.metrics["mean over landforms/image"]["strict"] for outcome in results]
    assert [outcome.seed for outcome in results] == [0, 1] and values[0] != values[1]
    assert results.paths[1].name == "geolocalization.examples-1.seed-1.json"


def test_truncated_vectors(tiny_planet: Path, folder: Path) -> None:
    run(tiny_planet, folder, "landform")
    path = next(folder.rglob("Mars-Landforms-*/images"))
    store = open_store(path)
    rows = store.load()[1][:, :8]
    np.testing.assert_allclose(
        TruncatedStore(store, 8).load()[1], rows / np.linalg.norm(rows, axis=1, keepdims=True),
        rtol=1e-5,
    )  # fmt: skip
    with pytest.raises(DataError, match="are zero"):
        truncate(np.eye(3, dtype=np.float32), 2)


def test_distractors_are_ranked_but_no_query(tiny_planet: Path, tmp_path: Path) -> None:
    labels = sorted(set(TASKS[1].open(tiny_planet).annotations.values()))
    file = tmp_path / "names.csv"
    file.write_text("".join(f"{x},{'-' if x == labels[0] else x}\n" for x in labels))
    assert read_class_names(file)[labels[0]] is None
    result = run(tiny_planet, tmp_path, "landform", class_names=file)[0]
    assert result.data["n"] == {"images": 48, "classes": len(labels) - 1}
    assert set(result.metrics["all"]["strict"]["per_class"] or ()) == set(labels[1:])


def test_class_names_without_images_are_noted(tiny_planet: Path) -> None:
    labels = sorted(set(TASKS[1].open(tiny_planet).annotations.values()))
    names = {label: label for label in labels}
    data = LandformRetrieval(class_names={**names, "dunes": "dunes", "ice": None}).open(tiny_planet)
    assert len(data.notes) == 1
    assert data.notes[0].endswith("no image of 2 labels in the class names: dunes, ice")
    assert not LandformRetrieval(class_names=names).open(tiny_planet).notes
    with pytest.raises(DataError, match="mark 5 labels as distractors and leave 1 as queries"):
        LandformRetrieval(class_names={**dict.fromkeys(labels), labels[0]: "x"}).open(tiny_planet)


@pytest.mark.parametrize(
    ("dim", "words"),
    [
        (100, "trained for vectors of 128, 256, 512 dimensions, not of 100"),
        (768, "must be 2 to 767"),
    ],
)
def test_only_dimensions_of_the_model_card(
    dim: int, words: str, tiny_planet: Path, marsretrieval: Callable[..., Any]
) -> None:
    options = ("-t", "landform", "--data", tiny_planet, "--dry-run", "--dim", dim)
    done = marsretrieval("run", "-m", "embeddinggemma-2", *options, code=2)
    assert words in " ".join(done.stderr.split())
