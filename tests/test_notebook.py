"""Run the notebook on the synthetic planet; it is committed without outputs."""

from __future__ import annotations

import asyncio
import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marsretrieval.embeddings.combine import subset_store
from marsretrieval.geo import Box

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOK = EXAMPLES / "search_mars.ipynb"


def outputs(notebook: Any) -> str:
    """Return all cell outputs as JSON text."""
    return json.dumps([cell.get("outputs", []) for cell in notebook["cells"]])


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_no_outputs_are_committed(path: Path) -> None:
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) >= 6
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start one kernel for all notebooks, so that it imports the libraries once."""
    for name in ("geopandas", "rasterio", "nbformat", "nbclient", "ipykernel"):
        pytest.importorskip(name)
    from jupyter_client.manager import AsyncKernelManager

    folder = tmp_path_factory.mktemp("kernel")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
        manager = AsyncKernelManager(kernel_name="python3")
        asyncio.run(manager.start_kernel(cwd=str(folder)))
        yield manager
        asyncio.run(manager.shutdown_kernel(now=True))


def execute(path: Path, planet: Path, folder: Path, kernel: Any) -> str:
    """Run a notebook in a folder, with no variables of another; returns its outputs as JSON."""
    import nbclient
    import nbformat

    (folder / "planet").symlink_to(planet)
    notebook = nbformat.read(path, as_version=4)
    start = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(f"%reset -f\n%cd -q {folder}")]
    )
    nbclient.NotebookClient(start, km=kernel, timeout=300).execute()
    nbclient.NotebookClient(notebook, km=kernel, timeout=300).execute()
    output = outputs(notebook)
    assert "Traceback" not in output
    return output


def test_models_are_benchmarked(tiny_planet: Path, tmp_path: Path, kernel: Any) -> None:
    output = execute(EXAMPLES / "benchmark.ipynb", tiny_planet, tmp_path, kernel)
    assert "Brightness" in output and "mars-nano" in output and "yardangs/text" in output
    assert (tmp_path / "yardangs.gpkg").exists()


def test_it_runs(tiny_planet: Path, tmp_path: Path, kernel: Any) -> None:
    output = execute(NOTEBOOK, tiny_planet, tmp_path, kernel)
    assert {"yardangs.gpkg", "yardangs.csv", "yardangs.csv.json", "yardangs.tif", "mars.store"} <= {
        path.name for path in tmp_path.iterdir()
    }
    assert output.count("image/png") >= 5 and "text/html" in output


def test_the_python_of_the_page_runs(
    tile_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (NOTEBOOK.parents[1] / "docs" / "SEARCH.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mars.store").symlink_to(tile_store)
    for name, box in (("north", Box(-180, -2, 180, 90)), ("south", Box(-180, -90, 180, -2))):
        subset_store(tmp_path / "mars.store", tmp_path / f"{name}.store", region=box)
    (tmp_path / "page.py").write_text(code)
    namespace = runpy.run_path(str(tmp_path / "page.py"))
    assert len(namespace["cones"]) == len(namespace["more"]) == 20
    assert {"cones.gpkg", "cones.png"} <= {path.name for path in tmp_path.iterdir()}
