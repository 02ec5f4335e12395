"""``marsretrieval score``: figures for people who bring their own embeddings."""

from __future__ import annotations

import typer

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Score embeddings or predictions that you bring.")
