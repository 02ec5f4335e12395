"""The ``marsretrieval`` command: verbs and options; no logic of its own."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line; exit 0 done, 1 could not, 2 wrong use, 130 interrupted,
    143 and 129 ended by SIGTERM and SIGHUP."""
    from marsretrieval.cli._app import app

    app()
