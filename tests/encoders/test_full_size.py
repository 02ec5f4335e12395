"""Full-size configs have the parameter counts of the published models."""

from __future__ import annotations

import sys

import pytest
import torch

from marsretrieval.encoders import find
from tests.encoders.tiny_transformers import MODELS

pytest.importorskip("benchmarks.models")

from benchmarks.models._configs import FULL_SIZE
from benchmarks.models.full_size import build_encoder, build_model, main


def test_every_model_has_one() -> None:
    assert FULL_SIZE.keys() == MODELS.keys()


@pytest.mark.parametrize("model", FULL_SIZE)
def test_parameters_count_as_published(model: str) -> None:
    with torch.device("meta"):
        full_model = build_model(model)
    assert sum(parameter.numel() for parameter in full_model.parameters()) == find(model).parameters


@pytest.mark.parametrize("model", FULL_SIZE)
def test_width_equals_the_registry(model: str) -> None:
    encoder = build_encoder(model, torch.device("meta"))
    assert encoder.dimension == find(model).dimension


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_missing_gpu_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["full_size", "gme"])
    assert main() == 1
    output = capsys.readouterr()
    assert "needs a GPU" in output.err
    assert output.out == ""
