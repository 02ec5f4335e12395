"""Tests of the store index command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from marsretrieval.cli.app import app
from tests.search.stores import unit, write_store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = np.random.default_rng(0).standard_normal((400, 16))
    return write_store(tmp_path / "store", unit(rows)).path


def call(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["store", *map(str, arguments)])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result.stderr if code else result.stdout


def called(*arguments: str | Path) -> Any:
    return json.loads(call(*arguments, "--json"))


def test_index_command_builds_and_removes_the_index(store: Path) -> None:
    assert called("info", store)["search_view"] is None
    made = called("index", store)
    assert made["rows"] == 400 and made["bytes"] > 400 * 16 * 3
    assert Path(made["search_view"]).parent == store / "view"
    assert called("info", store)["search_view"] == made["search_view"]
    assert "search   index of" in call("info", store)
    written = (Path(made["search_view"]) / "header.json").stat().st_mtime_ns
    assert "400 rows" in call("index", store)
    assert (Path(made["search_view"]) / "header.json").stat().st_mtime_ns == written
    call("index", store, "--anew")
    assert (Path(made["search_view"]) / "header.json").stat().st_mtime_ns != written
    assert called("index", store, "--drop")["freed"] > made["bytes"]
    assert not (store / "view").exists()
    assert "no search index" in call("index", store, "--drop")


def test_verify_checks_the_index_too(store: Path) -> None:
    folder = Path(called("index", store)["search_view"])
    assert called("verify", store)["search_view"] == []
    data = bytearray((folder / "stored.npy").read_bytes())
    data[-1] ^= 1
    (folder / "stored.npy").write_bytes(data)
    text = call("verify", store)
    assert "stored.npy" in text and "builds it again" in text
    assert not folder.exists()


def test_no_store(tmp_path: Path) -> None:
    for options in ((), ("--drop",)):
        assert "no embedding store" in call("index", tmp_path, *options, code=1)
