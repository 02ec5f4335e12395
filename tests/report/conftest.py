"""Fixtures: results of three made-up models, one of them vision-only, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from marsretrieval.report.html.charts import Maps
from tests.report.made import (
    make_geolocalization,
    make_landform,
    make_paired,
    result,
    timings,
    write,
)

MODELS = {"sharp-1": 0.4, "blurred-2": 1.2}


@pytest.fixture(autouse=True)
def maps_where_tested(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable maps on the pages of other tests, since they take seconds."""
    if request.path.stem != "test_html_maps":
        monkeypatch.setattr("marsretrieval.report.html.page.maps_of", lambda *_, **__: Maps())


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("results")
    paths = []
    for model, noise in MODELS.items():
        for task, outcome in (
            ("paired-image-text", make_paired(noise)),
            ("landform", make_landform(noise)),
            ("geolocalization", make_geolocalization(noise)),
        ):
            made = result(task, model, outcome, timings=timings(400))
            paths.append(write(made, outcome, folder / model))
    outcome = make_geolocalization(0.8, modes=("image",))
    made = result("geolocalization", "eyes-only", outcome)
    return [*paths, write(made, outcome, folder / "eyes-only")]
