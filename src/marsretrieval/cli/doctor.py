"""``marsretrieval doctor``: is this machine fit?"""

from __future__ import annotations

from typing import Any

import typer

from marsretrieval.cli._shared import JsonFlag, echo, print_json


def doctor(as_json: JsonFlag = False) -> None:
    """Check that this machine can run models, and name the remedies.

    Looks at Python, cores, memory, disk, torch and its devices, and the model cache. Exit code 1
    if models cannot be run here.
    """
    from marsretrieval.encoders import examine_machine

    found = examine_machine()
    problems, notes = found["problems"], found["notes"]
    if as_json:
        print_json(found)
    else:
        for name, value in found.items():
            if name not in ("problems", "notes"):
                _print(name, value)
        for line in notes:
            echo(f"note: {line}")
        for line in problems:
            echo(f"problem: {line}")
        echo("fit: no" if problems else "fit: yes")
    if problems:
        raise typer.Exit(1)


def _print(name: str, value: Any, indent: str = "") -> None:
    if isinstance(value, dict):
        echo(f"{indent}{name}:")
        for key, each in value.items():
            _print(key, each, indent + "  ")
        return
    if isinstance(value, bool):
        told = "yes" if value else "no"
    elif isinstance(value, list):
        told = ", ".join(map(str, value))
    else:
        told = "not installed" if value is None else str(value)
    echo(f"{indent}{name}: {told}")
