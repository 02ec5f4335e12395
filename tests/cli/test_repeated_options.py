"""Options given twice are accepted if repeatable, otherwise rejected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from marsretrieval.cli.app import app


def commands(command: Any = None, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    command = command or typer.main.get_command(app)
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, *path, name)


ALL = list(commands())
OPTIONS = [
    (path, param)
    for path, command in ALL
    for param in command.params
    if param.param_type_name == "option"
]
VALUED = [row for row in OPTIONS if not row[1].is_flag and not row[1].multiple]


@pytest.mark.parametrize(
    ("path", "param"), VALUED, ids=[f"{' '.join(path)} {param.name}" for path, param in VALUED]
)
def test_single_value_option_given_twice_is_refused(path: tuple[str, ...], param: Any) -> None:
    name = max(param.opts, key=len)
    for first in param.opts:
        done = CliRunner().invoke(app, [*path, first, "1", f"{name}=1"])
        assert done.exit_code == 2, done.output
        assert f"error: {name} is given 2 times" in done.output
        assert "Give it once." in done.output


def test_repeated_option_check_covers_all_commands() -> None:
    names = {(" ".join(path), param.name) for path, param in VALUED}
    assert len(VALUED) > 90
    assert {("search", "lon"), ("search", "bbox"), ("search", "region"), ("embed", "store"),
            ("data tiles", "bbox"), ("run", "results"), ("report", "output")} <= names  # fmt: skip


def test_repeated_flags_are_refused_only_with_a_negation() -> None:
    opposite = [(path, param) for path, param in OPTIONS if param.secondary_opts]
    assert opposite
    for path, param in opposite:
        words = [param.opts[0], param.secondary_opts[0]]
        done = CliRunner().invoke(app, [*path, *words])
        assert done.exit_code == 2
        assert f"{param.opts[0]}/{param.secondary_opts[0]} is given 2 times" in done.output
    assert CliRunner().invoke(app, ["--version", "--version"]).exit_code == 0
    assert CliRunner().invoke(app, ["models", "--json", "--json"]).exit_code == 0


def test_help_is_shown_despite_repeated_options() -> None:
    done = CliRunner().invoke(app, ["search", "--store", "a", "--store", "b", "--help"])
    assert done.exit_code == 0 and "Usage:" in done.output
