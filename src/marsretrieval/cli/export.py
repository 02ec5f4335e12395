"""``marsretrieval export``: write results in MTEB's and Hugging Face's formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marsretrieval.cli.console import say
from marsretrieval.cli.help import Command, Group
from marsretrieval.cli.options import check_output_files, check_output_folder

app = typer.Typer(
    cls=Group, no_args_is_help=True, help="Export results in the formats of MTEB and Hugging Face."
)


@app.command(cls=Command)
def mteb(
    result: Annotated[
        Path, typer.Argument(help="Result file of paired-image-text on the frozen variant.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", callback=check_output_folder, help="Output folder.")
    ],
) -> None:
    """Write a paired-image-text result in MTEB's format.

    The tasks are MarsVLPairsT2IRetrieval and MarsVLPairsI2TRetrieval. To download MTEB's data:
    marsretrieval data download paired --variant frozen.

    Raises:
        DataError: If the result is of another task or on other data than MTEB's.
        OutputError: If the folder cannot be written.
    """
    from marsretrieval.report.exports import write_mteb
    from marsretrieval.report.result_files import read_whole

    for path in write_mteb(read_whole(result), output):
        say(f"wrote {path}")


@app.command(cls=Command)
def hf(
    results: Annotated[list[Path], typer.Argument(help="Result files or folders of one model.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", callback=check_output_files, help="Output YAML file.")
    ],
    layout: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="model-index|eval-results",
            help="model-index: for the metadata of a model card; eval-results: for a file "
            "in .eval_results/ of the model's repository.",
        ),
    ] = "model-index",
    protocol: Annotated[
        str, typer.Option(metavar="strict|published", help="Evaluation protocol.")
    ] = "strict",
) -> None:
    """Write results for a model's repository on Hugging Face.

    The hub shows eval-results once the dataset's own eval.yaml names these tasks.

    Raises:
        UsageError: If the file name, the format or the protocol is invalid, or the results are
            those of several models.
        DataError: If a result is invalid or on data that the hub does not have.
        MissingDependencyError: If huggingface-hub is not installed.
    """
    from marsretrieval.errors import UsageError
    from marsretrieval.io import atomic_path
    from marsretrieval.report.exports import hf_yaml
    from marsretrieval.report.result_files import read_whole
    from marsretrieval.results import find_results

    if output.suffix.lower() not in (".yaml", ".yml"):
        raise UsageError(f"-o {output}: the name of a YAML file ends in .yaml or .yml")
    files = [read_whole(path) for path in find_results(results)]
    text = hf_yaml(files, layout=layout, protocol=protocol)
    with atomic_path(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    say(f"wrote {output}")
