"""``marsretrieval data``: make, fetch, cut and check datasets."""

from __future__ import annotations

import typer

from marsretrieval.cli._help import Command, Group
from marsretrieval.cli.data_download import download
from marsretrieval.cli.data_synth import synth
from marsretrieval.cli.data_tiles import tiles
from marsretrieval.cli.data_verify import verify

app = typer.Typer(cls=Group, no_args_is_help=True, help="Make, fetch, cut and check datasets.")
app.command(cls=Command)(synth)
app.command(cls=Command)(download)
app.command(cls=Command)(tiles)
app.command(cls=Command)(verify)
