"""Tars of tiles and their manifests."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from marsretrieval.datasets.tile_archive import (
    finished_manifest,
    read_tile_manifest,
    replace_tar,
    write_tile_manifest,
)
from marsretrieval.errors import DataError


@dataclass(frozen=True)
class Manifest:
    spec_hash: str
    source_fingerprint: str
    tar: str
    tar_bytes: int
    version: int = 1


def read(path: Path) -> Manifest:
    return read_tile_manifest(path, Manifest, description="test tiles", version=1)


def write(folder: Path, content: bytes = b"tiles") -> Manifest:
    with replace_tar(folder / "a.tar") as (temporary, tar):
        temporary.write_bytes(content)
    assert (tar.name, tar.bytes, tar.sha256) == (
        "a.tar", len(content), sha256(content).hexdigest(),
    )  # fmt: skip
    manifest = Manifest("options", "source", tar.name, tar.bytes)
    write_tile_manifest(folder, manifest)
    return manifest


def test_tiles_are_finished_with_the_same_options_source_and_size(tmp_path: Path) -> None:
    manifest, path = write(tmp_path), tmp_path / "a.json"
    assert finished_manifest(path, read, "options", lambda: "source") == manifest
    assert finished_manifest(path, read, "options", None) == manifest
    assert finished_manifest(path, read, "others", None) is None
    assert finished_manifest(path, read, "options", lambda: "changed") is None
    (tmp_path / "a.tar").write_bytes(b"cut")
    assert finished_manifest(path, read, "options", None) is None
    (tmp_path / "a.tar").unlink()
    assert finished_manifest(path, read, "options", None) is None


def test_a_failed_build_keeps_the_tar_and_its_manifest(tmp_path: Path) -> None:
    manifest = write(tmp_path)
    with (
        pytest.raises(RuntimeError),
        replace_tar(tmp_path / "a.tar") as (temporary, _),
    ):
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert (tmp_path / "a.tar").read_bytes() == b"tiles"
    assert read(tmp_path / "a.json") == manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.tar"]


def test_manifests_of_other_versions_and_folders_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    value = {"spec_hash": "", "source_fingerprint": "", "tar": "a.tar", "tar_bytes": 1}
    path.write_text(json.dumps({**value, "version": 2}))
    with pytest.raises(DataError, match="not a manifest of test tiles of this version"):
        read(path)
    path.write_text(json.dumps({**value, "tar": "../a.tar", "version": 1}))
    with pytest.raises(DataError):
        read(path)


def test_a_failing_disk_is_an_error_and_not_a_missing_tar(tmp_path: Path) -> None:
    write(tmp_path)

    def fail() -> str:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(DataError, match=r"a\.tar: cannot be read \(Input/output error\)"):
        finished_manifest(tmp_path / "a.json", read, "options", fail)
