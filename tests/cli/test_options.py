"""Tests of groups of options."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from marsretrieval.cli.options import StoreModelOptions, expand_options
from marsretrieval.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Group:
    """Two options."""

    size: Annotated[int, typer.Option(min=1)] = 3
    name: str | None = None


def test_expand_options_makes_one_option_per_field() -> None:
    calls: list[tuple[bool, Group]] = []

    @expand_options
    def command(*, first: bool = False, group: Group) -> None:
        calls.append((first, group))

    assert list(inspect.signature(command).parameters) == ["first", "size", "name"]
    app = typer.Typer()
    app.command()(command)
    assert CliRunner().invoke(app, ["--size", "5", "--first"]).exit_code == 0
    assert CliRunner().invoke(app, ["--name", "x"]).exit_code == 0
    assert CliRunner().invoke(app, ["--size", "0"]).exit_code == 2
    assert calls == [(True, Group(size=5)), (False, Group(name="x"))]


def test_a_missing_checkpoint_is_refused_before_the_store_is_opened(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        StoreModelOptions(checkpoint=tmp_path / "no.pt").open_store(tmp_path / "no")
