"""``marsretrieval demo``: an offline benchmark on the synthetic planet."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from marsretrieval.cli.console import JsonFlag, echo, say, show_progress
from marsretrieval.cli.options import check_output_folder
from marsretrieval.cli.run import run_jobs

_MODELS = ("mars-nano", "mars-nano-untrained")
_NEXT_STEPS = """
The metrics depend on the model: mars-nano was trained on such terrain, its twin was not.
The published AUPRC is low even where the ranking is nearly perfect: its curve begins at a depth by
which most points are found, and the area before it is not counted (docs/PROTOCOL.md).
All data are synthetic: the metrics above are not valid for Mars or for published models.

Next steps:{activate}
  open {page}      # tables, curves, maps and examples on one page
  marsretrieval serve {store}      # the map in a browser
  marsretrieval search --store {store} --text "pitted cones" -o {layer} --heatmap map.png
  marsretrieval run -m pe-core-l-14-336 -t landform --data data      # a real model on real data
  marsretrieval models                                               # all models
"""


def demo(
    out: Annotated[
        Path,
        typer.Option(
            callback=check_output_folder,
            help="Folder for the planet, embeddings, results and report.html.",
        ),
    ] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the planet.")] = 0,
    size: Annotated[
        str, typer.Option(metavar="default|small|tiny", help="Size of the planet.")
    ] = "default",
    as_json: JsonFlag = False,
) -> None:
    """Run the three tasks on a small synthetic Mars, offline.

    Compares a tiny trained model with its untrained twin and writes OUT/report.html. Needs no
    network and no GPU. Existing results are kept.

    Raises:
        typer.Exit: With code 1 if a model or task failed.
    """
    from marsretrieval import evaluation
    from marsretrieval.datasets.synthetic.writer import write_planet
    from marsretrieval.encoders.base import LoadOptions
    from marsretrieval.encoders.registry import find
    from marsretrieval.tasks import TASKS, Settings

    planet, results = out / "planet", out / "results"
    say(f"making a synthetic planet in {planet}")
    with show_progress() as progress:
        write_planet(planet, seed=seed, size=size, progress=progress)
    jobs = evaluation.plan(
        [find(name) for name in _MODELS],
        TASKS,
        data=planet,
        results=results,
        options=LoadOptions(device="cpu"),
        settings=Settings(),
    )
    finished = run_jobs(jobs, batch_size=None, workers=None, decode_in="threads", as_json=as_json)
    page = out / "report.html"
    _write_page([job_result.path for job_result in finished if job_result.path is not None], page)
    if not as_json:
        store = next(job.store for job in jobs if job.task.name == "geolocalization")
        echo(
            _NEXT_STEPS.format(
                store=shlex.quote(str(store)),
                page=shlex.quote(str(page)),
                activate=activation_line(),
                # A format that the installed libraries can write and QGIS opens with its CRS.
                layer="cones.parquet" if find_spec("pyogrio") is None else "cones.gpkg",
            )
        )
    if any(job_result.error is not None for job_result in finished):
        raise typer.Exit(1)


def activation_line() -> str:
    """Return the line that activates the virtual environment if its commands are not on PATH.

    Returns:
        A line for the printed next steps, or an empty string.
    """
    if shutil.which("marsretrieval") is not None:
        return ""
    script = Path(sys.executable).parent / "activate"
    return f"\n  source {shlex.quote(str(script))}" if script.exists() else ""


def _write_page(results: Sequence[Path], page: Path) -> None:
    from marsretrieval.report.html import write_html
    from marsretrieval.report.result_files import read_whole

    with show_progress() as progress:
        report = write_html(
            [read_whole(path) for path in results],
            page,
            title="MarsRetrieval on the synthetic planet",
            progress=progress,
        )
    for note in report.notes:
        say(note)
    say(f"wrote {page}")
