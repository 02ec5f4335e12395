"""Run the notebook on the synthetic planet; it is committed without outputs."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from marsretrieval.datasets import open_images
from marsretrieval.embeddings import build_store
from marsretrieval.encoders import load

NOTEBOOK = Path(__file__).parent.parent / "examples" / "search_mars.ipynb"


def outputs(notebook: Any) -> str:
    """All that the cells put out, as text of JSON."""
    return json.dumps([cell.get("outputs", []) for cell in notebook["cells"]])


def test_no_outputs_are_committed() -> None:
    notebook = json.loads(NOTEBOOK.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) >= 8
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_it_runs(tiny_planet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("geopandas")
    pytest.importorskip("rasterio")
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    (tmp_path / "planet").symlink_to(tiny_planet)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    assert {"yardangs.gpkg", "yardangs.qml", "yardangs.csv", "yardangs.tif", "mars.store"} <= {
        path.name for path in tmp_path.iterdir()
    }
    output = outputs(notebook)
    assert output.count("image/png") >= 5 and "text/html" in output
    assert "Traceback" not in output


def test_the_python_of_the_page_runs(
    tiny_planet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (NOTEBOOK.parents[1] / "docs" / "SEARCH.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    images = open_images(tiny_planet / "Mars-Global-Geolocalization" / "tiles")
    build_store(load("mars-nano"), images, tmp_path / "mars.store")
    (tmp_path / "page.py").write_text(code)
    namespace = runpy.run_path(str(tmp_path / "page.py"))
    assert len(namespace["cones"]) == len(namespace["more"]) == 20
    assert {"cones.gpkg", "cones.qml", "cones.png"} <= {path.name for path in tmp_path.iterdir()}
