"""The ``marsretrieval`` command: verbs and options; no logic of its own."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line; exit 0 done, 1 could not, 2 wrong use, 130 interrupted,
    143 and 129 ended by SIGTERM and SIGHUP."""
    _replace_closed_streams()
    from marsretrieval.cli.app import app

    app()


def _replace_closed_streams() -> None:
    """Discard what is written to stdout or stderr where the caller has closed them (`>&-`)."""
    import os
    import sys

    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
