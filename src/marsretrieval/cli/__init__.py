"""Command-line interface ``marsretrieval``: options, output and exit codes."""

from __future__ import annotations

__all__ = ["main"]


RESUME = "completed work is saved; run the same command again to resume"


def main() -> None:
    """Run the command line.

    Exit codes: 0 success, 1 failure, 2 wrong use, 130 interrupted, 143 SIGTERM, 129 SIGHUP.
    """
    _replace_closed_streams()
    try:
        from marsretrieval.cli.app import app

        app()
    except KeyboardInterrupt:  # while modules are imported, or a second Ctrl-C
        _print_interrupted()
        raise SystemExit(130) from None


def _print_interrupted() -> None:
    import sys
    from contextlib import suppress

    with suppress(OSError, ValueError):
        sys.stderr.write(f"interrupted: {RESUME}\n")
        sys.stderr.flush()


def _replace_closed_streams() -> None:
    """Open stdout and stderr on the null device if the caller has closed them (`>&-`)."""
    import os
    import sys

    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
