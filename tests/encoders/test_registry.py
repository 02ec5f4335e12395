"""Model lookup by name: registry, plugins and the examples of the docs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

from marsretrieval.encoders import LoadOptions, ModelSpec, all_specs, find, load
from marsretrieval.encoders.base import PromptPreset
from marsretrieval.encoders.registry import read_spec
from marsretrieval.errors import (
    DataError,
    ModelLoadError,
    UnknownNameError,
)


def test_every_model_is_found_by_its_names() -> None:
    ids = [record.id for record in all_specs()]
    assert len(ids) >= 18
    assert ids == sorted(ids)
    for record in all_specs():
        assert find(record.id) is record
        assert find(record.name.upper()) is record
        assert find(record.id.replace("-", "_")) is record
        if not record.id.startswith("mars-nano"):
            assert find(record.repository) is record


def test_an_unknown_model_gets_the_nearest_names() -> None:
    with pytest.raises(UnknownNameError, match="pe-core") as raised:
        find("pe-core-l14")
    assert "pe-core-l-14-336" in str(raised.value)
    with pytest.raises(UnknownNameError, match="Did you mean dfn2b-clip-vit-l-14"):
        find("DFN2B")


GOOD = {
    "name": "'x'", "family": "'open_clip'", "loader": "'a.b:load'", "repository": "'a/b'",
    "dimension": "8", "licence": "'mit'", "paper": "''", "code": "''", "tried": "'nothing'",
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dimension", "'8'"),
        ("dimension", "-1"),
        ("image_size", "true"),
        ("revision", "'main'"),
        ("loader", "'a.b'"),
        ("modalities", "['text']"),
        ("gated", "'no'"),
        ("settings", "3"),
        ("name", "''"),
    ],
)
def test_a_value_of_another_kind_is_named_by_file_and_key(
    key: str, value: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("".join(f"{name} = {text}\n" for name, text in GOOD.items()))
    assert read_spec(path).id == "mine"
    path.write_text("".join(f"{name} = {text}\n" for name, text in {**GOOD, key: value}.items()))
    with pytest.raises(DataError, match=rf"mine\.toml: '{key}' is "):
        read_spec(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "".join(f"{name} = {text}\n" for name, text in GOOD.items()) + "nonsense = 1",
            "unknown field 'nonsense'",
        ),
        ("name = 'x'", "missing field 'family'"),
        ("name = ", "TOML"),
    ],
)
def test_invalid_spec_is_named_by_file_and_key(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(DataError, match=words) as raised:
        read_spec(tmp_path / "mine.toml")
    assert "mine.toml" in str(raised.value)


def test_listing_models_imports_no_torch() -> None:
    code = (
        "import sys, marsretrieval.encoders as e\n"
        "assert e.all_specs()\n"
        "print([m for m in ('torch', 'transformers', 'open_clip') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


PACKAGE = '''
class Grey:
    """Mean and spread of the grey levels."""

    def encode_images(self, images):
        import numpy as np
        rows = [np.asarray(image.convert("L"), float) for image in images]
        return [[row.mean() + 1, row.std() + 1] for row in rows]


class Vain:
    pass


def make():
    return Grey()


def make_on(device):
    raise RuntimeError("made before it was asked for")


def records():
    from dataclasses import replace
    from marsretrieval.encoders.registry import records
    return [replace(records()[0], id="listed-one")]


def strings():
    return ["grey"]
'''


def test_plugin_adds_a_model_and_a_broken_plugin_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "grey_mars.py").write_text(PACKAGE)
    info = tmp_path / "grey_mars-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: grey-mars\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[marsretrieval.encoders]\n"
        "grey = grey_mars:Grey\n"
        "made = grey_mars:make\n"
        "asked = grey_mars:make_on\n"
        "listed = grey_mars:records\n"
        "broken = no_such_module:Thing\n"
        "strange = grey_mars:strings\n"
        "vain = grey_mars:Vain\n"
        "marscope = grey_mars:Grey\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from PIL import Image\n"
        "from marsretrieval.encoders import find, load\n"
        "assert find('mars-nano') and find('listed-one') and find('asked')\n"
        "assert find('marscope').family == 'open_clip'\n"
        "for name in ('grey', 'made'):\n"
        "    print(load(name).encode_images([Image.new('RGB', (8, 8))]).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["(1, 2)", "(1, 2)"]
    warnings = done.stderr.splitlines()
    assert len(warnings) == 4
    for name, words in {
        "broken": "no_such_module",
        "marscope": "is already registered",
        "strange": "returns a str where a ModelSpec is expected",
        "vain": "no encode_images",
    }.items():
        assert any(f"plugin '{name}'" in line and words in line for line in warnings), name


def test_a_missing_library_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from marsretrieval.encoders import load\n"
        "load('mars-nano')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "loading mars-nano needs torch" in done.stderr
    assert "marsretrieval[models]" in done.stderr


# What docs/MODELS.md shows.


def blocks(language: str) -> list[str]:
    page = Path(__file__).parents[2] / "docs" / "MODELS.md"
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def test_spec_in_the_docs_is_valid(tmp_path: Path) -> None:
    (text,) = [block for block in blocks("toml") if "repository" in block]
    (tmp_path / "vit-b-16-siglip.toml").write_text(text)
    record = read_spec(tmp_path / "vit-b-16-siglip.toml")
    assert record.id == record.name.lower()


def test_the_class_in_the_docs_is_an_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (text,) = [block for block in blocks("python") if "encode_images" in block]
    (tmp_path / "my_model.py").write_text(text)
    monkeypatch.delitem(sys.modules, "my_model", raising=False)
    encoder = load("my_model:Brightness")
    assert encoder.modalities == {"image", "text"}
    light, dark = encoder.encode_images(
        [Image.new("RGB", (9, 9), name) for name in ("white", "black")]
    )
    bright = encoder.encode_texts(["bright ice"])[0]
    assert light @ bright > dark @ bright


def test_loader_errors_are_one_line_that_names_the_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_loader.py").write_text(
        "def load(record, options):\n    raise RuntimeError('expected scalar type Half')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    record = ModelSpec.unregistered("x", name="x", family="x", loader="broken_loader:load")
    with pytest.raises(ModelLoadError, match="x: loading it failed") as info:
        load(record)
    assert "RuntimeError: expected scalar type Half, at broken_loader.py:2" in str(info.value)
    assert "--dtype float32" in str(info.value)


@pytest.mark.skipif(not hasattr(signal, "siginterrupt"), reason="signals of POSIX")
def test_ctrl_c_ends_waits_after_a_loader_has_set_another_handler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "restarting_loader.py").write_text(
        "import signal\n\n"
        "def load(record, options):\n"
        "    signal.siginterrupt(signal.SIGINT, False)  # as the handler of Polars does\n"
        "    return object()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    load(ModelSpec.unregistered("x", name="x", family="x", loader="restarting_loader:load"))
    too_late = threading.Event()
    timers = [
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)),
        threading.Timer(20, too_late.set),
    ]
    for timer in timers:
        timer.start()
    with pytest.raises(KeyboardInterrupt):
        too_late.wait()
    timers[1].cancel()
    assert not too_late.is_set()


def test_a_loaded_model_prints_its_id_precision_and_device() -> None:
    encoder = load("mars-nano", LoadOptions(device="cpu"))
    assert repr(encoder) == "<OpenClipEncoder mars-nano: float32 on cpu>"


@pytest.mark.parametrize(("prompts", "warned"), [("paper", False), ("official", True)])
def test_a_preset_without_effect_is_a_warning(
    prompts: PromptPreset, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    load("mars-nano", LoadOptions(device="cpu", prompts=prompts))
    text = "mars-nano: --prompts official has no effect: the model has no prompt presets"
    assert (text in caplog.text) == warned
