"""Malicious stores and failing disks: no changes outside the store, no loss of valid data."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from marsretrieval.cli.app import app
from marsretrieval.embeddings import build_store, open_store, verify_store
from marsretrieval.errors import StoreError
from tests.fakes import FakeEncoder, FakeSource


@pytest.fixture
def store(tmp_path: Path) -> Path:
    build_store(FakeEncoder(), FakeSource(counts=(3, 2)), tmp_path / "store")
    return tmp_path / "store"


def rename_shard(store: Path, name: str) -> None:
    path = store / "manifest.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "shards": [name, *value["shards"][1:]]}))


@pytest.mark.parametrize(
    "name",
    ["../../victim", "{outside}/victim", "a/b", "a\\b", "x" * 260, "a\x1b[2J", "a\0b"],
)
def test_repair_changes_nothing_outside_the_store(store: Path, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim.json"
    victim.write_text("{}")
    rename_shard(store, name.format(outside=tmp_path))
    for call in (
        open_store,
        verify_store,
        lambda path: verify_store(path, repair=True),
        lambda path: build_store(FakeEncoder(), FakeSource(counts=(3, 2)), path),
    ):
        with pytest.raises(StoreError, match=r"manifest\.json: .* below its folder"):
            call(store)
    assert victim.read_text() == "{}"


def test_shards_behind_a_link_are_not_removed(store: Path, tmp_path: Path) -> None:
    (store / "shards").rename(tmp_path / "elsewhere")
    (store / "shards").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/mine.json").write_text("damaged")
    rename_shard(store, "mine")
    assert verify_store(store).problems
    with pytest.raises(StoreError, match="a link"):
        verify_store(store, repair=True)
    with pytest.raises(StoreError, match="a link"):
        build_store(FakeEncoder(), FakeSource(counts=(3, 2)), store, force=True)
    assert (tmp_path / "elsewhere/mine.json").read_text() == "damaged"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.EMFILE, errno.ENOMEM])
@pytest.mark.parametrize("suffix", [".json", ".arrow"])
def test_read_error_is_not_damage(
    store: Path, monkeypatch: pytest.MonkeyPatch, code: int, suffix: str
) -> None:
    plain, plain_open = os.open, Path.open

    def fail(path: Any) -> None:
        if str(path).endswith(suffix) and "shards" in str(path):
            raise OSError(code, os.strerror(code), str(path))

    def opening(path: Any, *more: Any, **options: Any) -> int:
        fail(path)
        return plain(path, *more, **options)

    def path_open(self: Path, *more: Any, **options: Any) -> Any:
        fail(self)
        return plain_open(self, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", opening)
        patch.setattr(Path, "open", path_open)
        with pytest.raises(StoreError, match=f"cannot be read.*{os.strerror(code)}"):
            verify_store(store, repair=True)
    assert verify_store(store).problems == ()


def flip(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 0xFF
    path.write_bytes(data)


def edit(path: Path, **more: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


@pytest.mark.parametrize(
    "damage",
    [
        lambda vectors, entry: edit(entry, rows=7),
        lambda vectors, entry: edit(entry, bytes=7),
        lambda vectors, entry: edit(entry, sha256="0" * 64),
        lambda vectors, entry: edit(entry, shard="x"),
        lambda vectors, entry: edit(entry, skipped=[3]),
        lambda vectors, entry: vectors.write_bytes(vectors.read_bytes()[:-100]),
        lambda vectors, entry: vectors.write_bytes(bytes(vectors.stat().st_size)),
        lambda vectors, entry: flip(vectors, 0.0),
        lambda vectors, entry: flip(vectors, 0.5),
        lambda vectors, entry: flip(vectors, 1.0),
    ],
)
def test_verify_names_shard_and_remedy_on_stderr(store: Path, damage: Any) -> None:
    vectors = sorted((store / "shards").glob("*.arrow"))[0]
    damage(vectors, vectors.with_suffix(".json"))
    done = CliRunner().invoke(app, ["store", "verify", str(store)])
    assert done.exit_code == 1
    assert f"1 problem in 1 shard ({vectors.stem})" in done.stderr and "--repair" in done.stderr
    assert CliRunner().invoke(app, ["store", "verify", "--repair", str(store)]).exit_code == 0
    build_store(FakeEncoder(), FakeSource(counts=(3, 2)), store)
    assert verify_store(store).problems == ()
