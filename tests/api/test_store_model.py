"""Model selection for untrusted stores."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import marsretrieval
from marsretrieval.cli.app import app
from marsretrieval.embeddings import ModelRequest, build_store
from marsretrieval.encoders import LoadOptions, find, load
from marsretrieval.errors import StoreMismatchError, UsageError
from tests.fakes import FakeEncoder, FakeSource, png_bytes

CODE = """
from pathlib import Path
Path("imported").touch()

class Mean:
    def __init__(self, checkpoint=None):
        pass

    def encode_images(self, images):
        return [list(image.resize((2, 1)).convert("L").tobytes()) + [9] for image in images]

    def encode_texts(self, texts):
        return [[len(text), 1, 9] for text in texts]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a working folder with a class, and a store that names it, not imported yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "hostile", raising=False)
    (tmp_path / "hostile.py").write_text(CODE)
    (tmp_path / "weights.bin").write_bytes(b"weights")
    record = find("hostile:Mean")
    for name, options in {
        "store": LoadOptions(),
        "with-weights": LoadOptions(checkpoint=tmp_path / "weights.bin"),
    }.items():
        request = ModelRequest.from_spec(record, options)
        build_store(load(record, options), FakeSource((4,)), tmp_path / name, request=request)
    del sys.modules["hostile"]
    (tmp_path / "imported").unlink()
    (tmp_path / "image.png").write_bytes(png_bytes(0))
    return tmp_path


def rename(store: Path, model: str, **more: Any) -> None:
    path = store / "manifest.json"
    value = json.loads(path.read_text())
    value["request"] = {**value["request"], "model": model, **more}
    path.write_text(json.dumps(value))


@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["search", "dry run"])
@pytest.mark.parametrize("query", [("--text", "dunes"), ("--image", "image.png")])
@pytest.mark.parametrize("model", ["hostile:Mean", "st:.", "mteb:any/name", "http.server:test"])
def test_a_store_does_not_choose_code(
    model: str, query: tuple[str, ...], dry: tuple[str, ...], folder: Path
) -> None:
    rename(folder / "store", model)
    result = CliRunner().invoke(app, ["search", "--store", "store", *query, *dry])
    assert result.exit_code == 2, result.output
    assert f"was made with {model}, which is not in the model registry" in result.stderr
    assert f"--model {model}" in result.stderr and "--trust" in result.stderr
    assert not (folder / "imported").exists() and "hostile" not in sys.modules


@pytest.mark.parametrize("allowed", [("--model", "hostile:Mean"), ("--trust",)])
def test_user_may_allow_the_encoder_class(allowed: tuple[str, ...], folder: Path) -> None:
    result = CliRunner().invoke(app, ["search", "--store", "store", "--text", "dunes", *allowed])
    assert result.exit_code == 0, result.output
    assert "tile-000000" in result.stdout and (folder / "imported").exists()
    keyword: dict[str, Any] = {"trust": True} if len(allowed) == 1 else {"model": allowed[1]}
    assert len(marsretrieval.open_store("store", **keyword).search("dunes")) == 4


def test_search_by_tiles_needs_no_permission(folder: Path) -> None:
    arguments = ["search", "--store", "store", "--like", "tile-000001"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0 and not (folder / "imported").exists()


def test_other_model_than_the_one_of_the_store_is_refused(folder: Path) -> None:
    with pytest.raises(StoreMismatchError, match="made with hostile:Mean, not with mars-nano"):
        marsretrieval.open_store("store", model="mars-nano").search("dunes")
    (folder / "hostile.py").write_text(CODE + "\n# another version\n")
    with pytest.raises(StoreMismatchError, match="made with another encoder"):
        marsretrieval.open_store("store", model="hostile:Mean").search("dunes")


def test_a_store_does_not_choose_a_checkpoint(folder: Path) -> None:
    weights = str(folder / "weights.bin")
    with pytest.raises(UsageError, match="was made with the checkpoint") as raised:
        marsretrieval.open_store("with-weights", model="hostile:Mean").search("dunes")
    assert f"--checkpoint {weights}" in str(raised.value)
    named = marsretrieval.open_store("with-weights", model="hostile:Mean", checkpoint=weights)
    assert len(named.search("dunes")) == 4
    assert len(marsretrieval.open_store("with-weights", trust=True).search("dunes")) == 4
    rename(folder / "store", "mars-nano", checkpoint=str(folder / "store" / "inside.pt"))
    with pytest.raises(UsageError, match=r"inside\.pt"):
        marsretrieval.open_store("store").prepare_search("dunes")
        marsretrieval.open_store("store").search("dunes")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("http.server:test", "standard library"),
        ("webbrowser:open", "standard library"),
        ("helpers:unrelated", "does not return an encoder"),
        ("helpers:needs", "needs an argument 'path'"),
    ],
)
def test_function_that_is_not_an_encoder_is_not_called(
    target: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "helpers", raising=False)
    (tmp_path / "helpers.py").write_text(
        "def unrelated(port=8000):\n    open('called', 'w')\n"
        "def needs(path, device='cpu'):\n    open('called', 'w')\n"
    )
    with pytest.raises(UsageError, match=words):
        find(target)
    assert not (tmp_path / "called").exists()


def test_custom_encoder_does_not_load_the_class_of_the_store(tmp_path: Path) -> None:
    build_store(FakeEncoder(), FakeSource((4,)), tmp_path, request=ModelRequest("hostile_two:Mean"))
    sys.modules.pop("hostile_two", None)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        (tmp_path / "hostile_two.py").write_text(CODE)
        store = marsretrieval.open_store(tmp_path, encoder=FakeEncoder())
        assert len(store.search("dunes")) == 4
    assert "hostile_two" not in sys.modules
