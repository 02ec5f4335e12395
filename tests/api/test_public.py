"""The public functions: models by name, class and object, evaluated, embedded and searched."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import marsretrieval as mr
from marsretrieval.errors import (
    DataError,
    ModalityError,
    StoreMismatchError,
    UnknownNameError,
    UsageError,
)

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_model.py"


class Grid:
    """Mean brightness on a grid; texts are a hash. `power` changes the vectors."""

    def __init__(self, power: float = 1.0) -> None:
        self.power = power

    def encode_images(self, images: list[Image.Image]) -> np.ndarray:
        grey = [np.asarray(image.convert("L").resize((6, 6)), float) / 255 for image in images]
        return np.stack([values.ravel() ** self.power + 0.01 for values in grey])

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        return np.stack([np.random.default_rng(len(text)).random(36) for text in texts])


@pytest.fixture(scope="module")
def spectrum() -> Any:
    spec = importlib.util.spec_from_file_location("example_model", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Spectrum


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Write two classes of images."""
    rng = np.random.default_rng(0)
    for name, low in (("dark", 10), ("bright", 150)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(low, low + 90, (32, 32)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path


def evaluate(model: Any, folders: Path, **options: Any) -> mr.Results:
    options = {"tasks": "landform", "resamples": 10, **options}
    return mr.evaluate(model, data=folders / "data", results=folders / "results", **options)


def test_models_are_listed_by_pattern() -> None:
    assert mr.list_models("vit-l-16-siglip*") == ["vit-l-16-siglip-384", "vit-l-16-siglip2-512"]
    assert "mars-nano" in mr.list_models()
    assert mr.list_models("MARS-nano*") == ["mars-nano", "mars-nano-untrained"]
    assert {"vit-l-16-siglip-384", "vit-l-16-siglip2-512"} <= {*mr.list_models("siglip*")}
    assert mr.list_models("nothing*") == []
    with pytest.raises(UsageError, match="None is not a pattern"):
        mr.list_models(None)  # type: ignore[arg-type]


def test_an_encoder_object_is_evaluated_and_results_are_saved(
    folders: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = evaluate(Grid(), folders)
    modified = first.paths[0].stat().st_mtime_ns
    again = evaluate(Grid(), folders)
    assert again.paths[0].stat().st_mtime_ns == modified
    assert again["landform"].to_dict() == first["landform"].to_dict()
    caplog.set_level(logging.INFO, "marsretrieval")
    other = evaluate(Grid(power=3.0), folders)  # same class, other vectors
    assert other.paths[0].stat().st_mtime_ns != modified
    assert "computing again" in caplog.text


def test_results_are_a_table(folders: Path) -> None:
    results = evaluate([Grid(), "mars-nano"], folders, tasks=["landform"])
    assert len(results) == 2
    with pytest.raises(UsageError, match="2 results of task landform"):
        results["landform"]
    (nano,) = results.select(task="landform", model="mars-nano")
    table = results.to_dataframe()
    rows = table[(table.model == "mars-nano") & (table.group == "all") & (table.metric == "mAP")]
    assert dict(zip(rows.protocol, rows.value, strict=True)) == {
        protocol: nano.metrics["all"][protocol]["mAP"] for protocol in ("published", "strict")
    }
    assert (rows.low <= rows.value).all() and (rows.value <= rows.high).all()
    assert {"class/dark", "class/bright"} <= set(table.group)
    loaded = mr.load_results(folders / "results").to_dataframe()
    assert sorted(loaded.value.tolist()) == sorted(table.value.tolist())
    assert "mars-nano" in results._repr_html_() and "mars-nano on landform" in repr(results)


def test_a_loaded_model_is_not_loaded_again(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = mr.load_model("mars-nano", device="cpu")
    monkeypatch.setattr("marsretrieval.encoders.open_clip.load", None)
    assert len(evaluate(model, folders)) == 1
    store = mr.build_store(model, folders / "data", folders / "nano.store")
    assert len(store) == 8
    with pytest.raises(UsageError, match="options are given for OpenClipEncoder"):
        evaluate(model, folders, dtype="float16")


def test_the_example_encoder_works_in_all_functions(folders: Path, spectrum: Any) -> None:
    with pytest.raises(ModalityError, match="has no text encoder"):
        evaluate(spectrum(), folders)
    store = mr.build_store(spectrum(), folders / "data", folders / "own.store")
    image = folders / "data" / "dark" / "0.png"
    assert store.search(images=[image], k=1)[0].score == pytest.approx(1, abs=1e-3)
    opened = mr.open_store(folders / "own.store", encoder=spectrum())
    assert [hit.id for hit in opened.search(images=[image], k=3)] == [
        hit.id for hit in store.search(images=[image], k=3)
    ]
    with pytest.raises(StoreMismatchError):
        mr.open_store(folders / "own.store", encoder=Grid())


def test_queries_compare_by_value(folders: Path) -> None:
    store = mr.build_store(Grid(), str(folders / "data"), str(folders / "grid.store"))
    image = folders / "data" / "bright" / "1.png"
    query = mr.SearchQuery(
        text="dunes", images=[image], negative_text="craters", use_templates=False,
        image_weight=0.3, negative_weight=0.2,
    )  # fmt: skip
    hits = store.search(query, k=5)
    same = store.search(
        "dunes", images=[image], not_text="craters", raw=True, mix=0.3, not_weight=0.2, k=5
    )
    assert hits.to_dataframe().equals(same.to_dataframe())
    named = store.search(
        "dunes", images=[image], negative_text="craters", use_templates=False, image_weight=0.3,
        negative_weight=0.2, k=5,
    )  # fmt: skip
    assert hits.to_dataframe().equals(named.to_dataframe())
    with pytest.raises(UsageError, match="negative_text and not_text are the same option"):
        store.search("dunes", negative_text="craters", not_text="ice")
    with pytest.raises(TypeError, match="unexpected keyword argument 'negativ_text'"):
        store.search("dunes", negativ_text="craters")
    assert list(hits.to_dataframe().columns[:3]) == ["rank", "score", "id"]
    with pytest.raises(UsageError, match="image_weight cannot be combined with a SearchQuery"):
        store.search(query, mix=0.7)


def test_objects_of_one_class_are_distinguished(folders: Path) -> None:
    with pytest.raises(UsageError, match="2 models would share the folder"):
        evaluate([Grid(), Grid(power=3.0)], folders)
    plain = evaluate(Grid(), folders, name="plain")
    cubed = evaluate(Grid(power=3.0), folders, name="cubed")
    assert {path.parent.name for path in (*plain.paths, *cubed.paths)} == {"plain", "cubed"}
    assert plain[0].model["probe"] != cubed[0].model["probe"]


def test_skipped_images_are_logged(folders: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folders / "data" / "dark" / "damaged.png").write_bytes(b"no image")
    evaluate(Grid(), folders)
    mr.build_store(Grid(), folders / "data", folders / "grid.store")
    assert "1 item skipped" in caplog.text and "1 image left out" in caplog.text
    assert caplog.text.count("damaged.png") >= 2


def test_store_of_an_encoder_object_explains_how_to_open_it(folders: Path) -> None:
    mr.build_store(Grid(), folders / "data", folders / "grid.store")
    store = mr.open_store(folders / "grid.store")
    with pytest.raises(UsageError, match="made with an encoder object in Python"):
        store.search("dunes")
    opened = mr.open_store(folders / "grid.store", encoder=Grid())
    assert len(opened.search("dunes", k=2)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed must be at least 0"),
        ({"resamples": -1}, "resamples must be at least 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"workers": -1}, "workers must be at least 0"),
        ({"prompts": "mine"}, "unknown prompts 'mine'"),
        ({"checkpoint": "/nowhere/weights"}, "no such file or folder"),
        ({"tasks": []}, "no task"),
    ],
)
def test_invalid_options_are_refused(folders: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises((UsageError, ModalityError), match=message):
        evaluate("mars-nano", folders, **options)
    with pytest.raises(UsageError, match="no images to open"):
        mr.build_store("mars-nano", [], folders / "empty.store")


def test_errors_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="object is not a model"):
        mr.evaluate(object())
    with pytest.raises(UnknownNameError, match="mars-nano"):
        mr.load_model("mars-nanno")
    with pytest.raises(DataError, match="no results"):
        mr.load_results(tmp_path)
