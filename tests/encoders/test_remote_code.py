"""Checkpoint folders whose files name Python code: it never runs unless the user allows it."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from marsretrieval.encoders import LoadOptions, find, load
from marsretrieval.errors import MarsRetrievalError, ModelLoadError
from tests.encoders.tiny import save_folder
from tests.encoders.tiny_transformers import save_tiny, tiny_record

Folder = Callable[[str], Path]
CPU = LoadOptions(device="cpu")

CODE = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import PreTrainedTokenizerFast, PretrainedConfig, CLIPModel, CLIPImageProcessor
class Tokenizer(PreTrainedTokenizerFast): pass
class Config(PretrainedConfig): model_type = "its-own"
class Model(CLIPModel): pass
class Processor(CLIPImageProcessor): pass
"""
AUTO_MAP: dict[str, dict[str, Any]] = {
    "config.json": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model",
                    "AutoModelForImageTextToText": "evil.Model"},
    "tokenizer_config.json": {"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]},
    "preprocessor_config.json": {"AutoImageProcessor": "evil.Processor"},
    "processor_config.json": {"AutoProcessor": "evil.Processor"},
}  # fmt: skip


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    return tmp_path / "ran"


def poison(folder: Path, marker: Path, *, its_own: bool = False) -> None:
    """Name classes of a Python file in every configuration file of a folder.

    With `its_own`, the library has no class of its own for what the files say.
    """
    (folder / "evil.py").write_text(CODE.format(marker=str(marker)))
    for name, classes in AUTO_MAP.items():
        path = folder / name
        if not path.exists() and name != "processor_config.json":
            continue
        value = json.loads(path.read_text()) if path.exists() else {}
        value |= {"auto_map": classes, "trust_remote_code": True}
        if its_own:
            unknown = {
                "tokenizer_config.json": {"tokenizer_class": "Tokenizer"},
                "preprocessor_config.json": {"image_processor_type": "Processor"},
                "config.json": {"model_type": "its-own"},
            }
            value |= unknown.get(name, {})
        path.write_text(json.dumps(value))


def try_to_load(model: Any, options: LoadOptions) -> str:
    """Return the error of a load, or an empty string; a loaded model must also embed."""
    try:
        load(model, options).encode_images([Image.new("RGB", (40, 40))])
    except MarsRetrievalError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("its_own", [False, True], ids=["stock classes", "classes of its own"])
@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("bge-vl-large", "clip"),
        ("dinov3-vitl16", "dinov3"),
        ("vlm2vec-v2.0", "qwen2_vl"),
    ],
)
def test_transformers_folders(
    model: str, kind: str, its_own: bool, marker: Path, tmp_path: Path
) -> None:
    save_tiny(kind, tmp_path / "checkpoint")
    poison(tmp_path / "checkpoint", marker, its_own=its_own)
    options = replace(CPU, checkpoint=tmp_path / "checkpoint")
    message = try_to_load(tiny_record(model), options)
    assert not marker.exists()
    assert "Traceback" not in message
    if not its_own:
        assert message == ""


def open_clip_folder(tmp_path: Path, marker: Path, **text: Any) -> Path:
    folder = save_folder("siglip", tmp_path / "checkpoint")
    path = folder / "open_clip_config.json"
    value = json.loads(path.read_text())
    value["model_cfg"]["text_cfg"].update(text)
    path.write_text(json.dumps(value))
    poison(folder, marker, its_own=True)
    return folder


def test_an_open_clip_folder_cannot_switch_on_code(marker: Path, tmp_path: Path) -> None:
    switch = {"clean": "canonicalize", "trust_remote_code": True}
    folder = open_clip_folder(tmp_path, marker, tokenizer_kwargs=switch)
    options = replace(CPU, checkpoint=folder)
    message = try_to_load("vit-l-16-siglip-384", options)
    assert "open_clip_config.json: sets trust_remote_code" in message
    assert "--trust-remote-code" in message and not marker.exists()
    try_to_load("vit-l-16-siglip-384", replace(options, trust_remote_code=True))
    assert marker.exists()  # the test would see it


def test_an_open_clip_tokenizer_of_its_own_is_refused(marker: Path, tmp_path: Path) -> None:
    folder = open_clip_folder(tmp_path, marker)
    try_to_load("vit-l-16-siglip-384", replace(CPU, checkpoint=folder))
    assert not marker.exists()


def test_an_open_clip_text_tower_of_transformers_is_refused(marker: Path, tmp_path: Path) -> None:
    save_tiny("clip", tmp_path / "tower")
    poison(tmp_path / "tower", marker, its_own=True)
    folder = open_clip_folder(tmp_path, marker, hf_model_name=str(tmp_path / "tower"))
    message = try_to_load("vit-l-16-siglip-384", replace(CPU, checkpoint=folder))
    assert message and not marker.exists()


def test_an_adapter_cannot_bring_code(marker: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    save_tiny("qwen2_vl", base)
    poison(base, marker, its_own=True)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {
        "peft_type": "LORA",
        "lora_alpha": 8,
        "base_model_name_or_path": str(base),
        "auto_mapping": {"base_model_class": "Model", "parent_library": "evil"},
        "auto_map": AUTO_MAP["config.json"],
    }
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    shutil.copy(base / "evil.py", adapter)
    message = try_to_load(tiny_record("vlm2vec-v2.0"), replace(CPU, checkpoint=adapter))
    assert message and not marker.exists()


def test_a_sentence_transformers_folder_cannot_name_code(
    marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sentence_transformers")
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "evil.py").write_text(CODE.format(marker=str(marker)))
    modules = [{"idx": 0, "name": "0", "path": "", "type": "evil.Model"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))  # importable even by its plain name
    message = try_to_load(f"st:{folder}", CPU)
    assert "--trust-remote-code" in message and not marker.exists()


def test_a_sentence_transformers_that_imports_any_class_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from marsretrieval.encoders import remote_code

    monkeypatch.setattr(remote_code, "version", lambda name: "5.4.1")
    with pytest.raises(ModelLoadError, match=r"5\.4\.1 runs code that modules\.json names"):
        load("st:any/name", CPU)


class Marker:
    """An object whose unpickling writes a file."""

    path = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(self.path),))


def test_pickles_are_not_run_even_where_a_loader_allows_it(tmp_path: Path) -> None:
    from marsretrieval.encoders.remote_code import no_remote_code

    Marker.path = str(tmp_path / "ran")
    torch.save({"weights": Marker()}, tmp_path / "weights.pt")
    with no_remote_code(), pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "weights.pt", weights_only=False)
    assert not (tmp_path / "ran").exists()


def test_code_of_the_library_itself_still_loads(tiny_folder: Folder) -> None:
    encoder = load(tiny_record("bge-vl-large"), replace(CPU, checkpoint=tiny_folder("clip")))
    assert encoder.encode_texts(["dunes"]).shape[1] == encoder.dimension
    assert find("mars-nano").family == "open_clip"


# A library that is first imported inside the block, or was imported before it, in a new process.
NEW_PROCESS = """
import importlib
import sys
from marsretrieval.encoders.remote_code import RemoteCodeError, no_remote_code

def outcome(module, name, *arguments):
    try:
        getattr(sys.modules[module], name)(*arguments)
    except RemoteCodeError as error:
        return "refused"
    except Exception as error:
        return type(error).__name__
    return "done"

assert "torch" not in sys.modules and "transformers" not in sys.modules
cases = {cases!r}

def outcomes(number, module, name, argument):
    return [outcome(owner, name, {folder!r}, argument) for owner in (module, f"copied_{{number}}")]

def copy_all():
    for number in range(len(cases)):
        importlib.import_module(f"copied_{{number}}")

if {imported}:
    copy_all()
with no_remote_code():
    for module, _, _ in cases:
        assert (module in sys.modules) is {imported}, module
    copy_all()
    print([outcomes(n, *case) for n, case in enumerate(cases)])
print([outcomes(n, *case) for n, case in enumerate(cases)])
"""
DYNAMIC = "transformers.dynamic_module_utils"
KERNELS = "transformers.integrations.hub_kernels"


CASES = [  # module, function, argument, and the outcome without the guard
    (DYNAMIC, "get_cached_module_file", "evil.py", "done"),
    (DYNAMIC, "get_class_in_module", "evil.py", "FileNotFoundError"),
    (DYNAMIC, "create_dynamic_module", None, "TypeError"),
    (KERNELS, "get_kernel", None, "ImportError"),
    ("torch.hub", "load", None, "ValueError"),
]


@pytest.mark.parametrize("imported", [False, True], ids=["imported inside", "imported before"])
def test_a_library_is_guarded_whenever_it_is_imported(imported: bool, tmp_path: Path) -> None:
    """The modules `copied_0` to `copied_4` have the functions from ``from ... import``."""
    (tmp_path / "evil.py").write_text("")
    for number, (module, name, _, _) in enumerate(CASES):
        (tmp_path / f"copied_{number}.py").write_text(f"from {module} import {name}\n")
    cases = [case[:3] for case in CASES]
    code = NEW_PROCESS.format(cases=cases, folder=str(tmp_path), imported=imported)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf")}
    environment["PYTHONPATH"] = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    refused, afterwards = map(ast.literal_eval, done.stdout.splitlines())
    assert refused == [["refused"] * 2] * len(CASES), done.stderr
    assert afterwards == [[outcome] * 2 for *_, outcome in CASES], done.stderr
