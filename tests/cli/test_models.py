"""Tests of the models and doctor commands."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from marsretrieval.cli.app import app
from marsretrieval.encoders import all_specs, doctor


def call(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    assert "Traceback" not in result.stderr
    return result


def called(*arguments: str, code: int = 0) -> Any:
    return json.loads(call(*arguments, "--json", code=code).stdout)


class Batchy:
    """Faulty encoder: the vector depends on the other images of the batch."""

    def encode_images(self, images: list[Image.Image]) -> np.ndarray:
        return np.array([[image.width, 1 + 50 * len(images)] for image in images], np.float32)


class Constant:
    """Faulty encoder: the vector does not depend on the image."""

    def encode_images(self, images: list[Image.Image]) -> np.ndarray:
        return np.ones((len(images), 4), np.float32)


def test_table_lists_every_model_and_fits() -> None:
    output = call("models").stdout
    lines = output.splitlines()
    assert max(map(len, lines)) <= 100
    for record in all_specs():
        (line,) = [row for row in lines if row.split()[:1] == [record.id]]
        assert str(record.dimension) in line
        assert (record.revision or " -")[:7] in line
    assert "Gated, needs a Hugging Face token: dinov3-vitl16" in output
    assert "published weights not tried" in output


@pytest.mark.parametrize(
    ("pattern", "ids"),
    [
        ("siglip-", {"vit-l-16-siglip-384"}),
        (
            "SigLIP2",
            {"vit-l-16-siglip2-512", "vit-so400m-16-siglip2-512", "vit-gopt-16-siglip2-384"},
        ),
        ("mars*", {"mars-nano", "mars-nano-untrained", "marscope"}),
        ("vision_only", {"aimv2-large-patch14-448", "dinov3-vitl16", "dinov3-vitl16-sat493m"}),
    ],
)
def test_pattern_selects_models(pattern: str, ids: set[str]) -> None:
    assert {row["id"] for row in called("models", pattern)} == ids
    assert {row["id"] for row in called("models", "list", pattern)} == ids


def test_json_has_everything() -> None:
    rows = called("models")
    assert len(rows) == len(all_specs())
    (row,) = [row for row in rows if row["id"] == "dfn2b-clip-vit-l-14"]
    assert row["weights_gib"]["cpu"] == pytest.approx(4 * 427_616_513 / 2**30, abs=0.01)
    assert row["modalities"] == ["image", "text"]
    for key in ("family", "licence", "revision", "gated", "tried", "notes", "repository"):
        assert key in row


def test_one_model_is_shown_with_what_it_was_trained_on() -> None:
    output = call("models", "remoteclip").stdout
    assert "trained_on: about 166,000 remote-sensing images" in output
    assert "verified_by: nobody yet" in output
    for row in called("models"):
        assert row["trained_on"] and row["verified_by"], row["id"]


def test_names_of_a_library_are_listed() -> None:
    output = call("models", "oc:*siglip2-512*").stdout.splitlines()
    assert "oc:ViT-L-16-SigLIP2-512/webli" in output and "oc:ViT-L-16-SigLIP2-512" in output
    assert called("models", "timm:test_vit.r160") == ["timm:test_vit.r160_in1k"]
    assert "Did you mean" in call("models", "oc:siglip2-513", code=2).stderr
    assert "cannot be listed" in call("models", "hf:clip", code=2).stderr


def test_pattern_without_match_is_a_usage_error() -> None:
    assert "unknown model 'zebra'" in call("models", "zebra", code=2).stderr


def test_help_explains_patterns() -> None:
    output = call("models", "--help").stdout
    assert "check" in output and "PATTERN" in output


def test_check_prints_measurements_of_a_model() -> None:
    output = call("models", "check", "mars-nano", "--device", "cpu").stdout
    assert "dimension 128" in output and "weights_sha256" in output
    assert output.splitlines()[-1] == "ok: yes"


def test_check_as_json() -> None:
    report = called("models", "check", "mars-nano", "--device", "cpu")
    assert report["problems"] == []
    assert report["dimension"] == 128
    assert np.array(report["cosines"]).shape == (2, 2)
    assert report["images"]["batch_difference"] < 1e-5 > report["texts"]["batch_difference"]
    assert report["texts"]["cut_at_context_length"] == 0
    assert len(report["fingerprint"]["weights_sha256"]) == 64


@pytest.mark.parametrize(
    ("name", "words"),
    [("Batchy", "batch and single vectors differ"), ("Constant", "have the same vector")],
)
def test_check_finds_a_faulty_model(name: str, words: str) -> None:
    report = called("models", "check", f"{__name__}:{name}", code=1)
    assert any(words in problem for problem in report["problems"])
    output = call("models", "check", f"{__name__}:{name}", code=1).stdout
    assert output.splitlines()[-1] == "ok: no"


def test_check_of_a_model_that_cannot_be_loaded(tmp_path: Path) -> None:
    assert "Did you mean" in call("models", "check", "siglip", code=2).stderr
    call("models", "check", "mars-nano", "--checkpoint", str(tmp_path / "none"), code=2)
    errors = call("models", "check", "mars-nano", "--checkpoint", str(tmp_path), code=1).stderr
    assert "open_clip_config.json" in errors
    assert (
        "unknown device" in call("models", "check", "mars-nano", "--device", "tpu", code=2).stderr
    )


def test_without_network_or_cache_the_remedy_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    errors = call("models", "check", "pe-core-l-14-336", code=1).stderr
    assert "not in the local cache" in errors and "--checkpoint" in errors


def test_doctor_without_problems() -> None:
    report = called("doctor")
    assert report["problems"] == []
    assert report["cpus"] >= 1 and report["memory_gib"] > 0
    assert report["packages"]["torch"]
    assert report["torch"]["torchvision"].startswith("imports")
    assert "cpu" in report["torch"]["devices"]
    assert call("doctor").stdout.splitlines()[-1] == "fit: yes"


def test_doctor_never_shows_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    output = call("doctor").stdout
    assert "token: yes" in output
    assert "hf_secret" not in output + json.dumps(called("doctor"))


def versions(changed: dict[str, str | None]) -> Any:
    real = doctor.version

    def version(name: str) -> str:
        replaced = changed.get(name, "?")
        if replaced is None:
            raise PackageNotFoundError(name)
        return real(name) if replaced == "?" else replaced

    return version


def test_doctor_without_the_models_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = {"torch": None, "open-clip-torch": "3.0.0"}
    monkeypatch.setattr(doctor, "version", versions(missing))
    report = called("doctor", code=1)
    (problem,) = report["problems"]
    assert "torch is not installed" in problem and "marsretrieval[models]" in problem
    assert "open-clip-torch 3.0.0 is installed, <5,>=3.3 is needed" in problem


def test_doctor_reports_a_missing_optional_package_as_a_note(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "version", versions({"rasterio": None}))
    report = called("doctor")
    assert any("rasterio is not installed" in note for note in report["notes"])


def test_doctor_on_a_machine_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        free = 2**20

    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Full)
    monkeypatch.setattr(doctor, "hardware", lambda: {"cpus": 1, "memory_gib": 0.9})
    output = call("doctor", code=1).stdout
    assert "problem: 0.9 GiB of memory" in output
    assert "free some space" in output
    assert output.splitlines()[-1] == "fit: no"


def test_doctor_names_a_torchvision_that_cannot_be_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from marsretrieval.encoders import torch_imports

    def fail() -> bool:
        raise RuntimeError("another fault")

    monkeypatch.setattr(torch_imports, "ensure_torchvision", fail)
    (problem,) = called("doctor", code=1)["problems"]
    assert "torchvision cannot be imported (another fault)" in problem
