"""``marsretrieval data``: make, fetch, cut and check datasets."""

from __future__ import annotations

import typer

from marsretrieval.cli.data_download import download
from marsretrieval.cli.data_synth import synth
from marsretrieval.cli.data_tiles import tiles
from marsretrieval.cli.data_verify import verify

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Make, fetch, cut and check datasets.")
app.command()(synth)
app.command()(download)
app.command()(tiles)
app.command()(verify)
