"""Reruns, damage and full disks: partial output is never treated as complete."""

from __future__ import annotations

import json
import os
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from marsretrieval.datasets import listing
from marsretrieval.datasets.ctx import (
    Input,
    JobSettings,
    Quad,
    TileSpec,
    cut_quads,
    find_files,
    plan,
    read_manifest,
)
from marsretrieval.errors import DataError, DatasetNotFoundError, OutputError, UsageError
from marsretrieval.io import sha256_file
from tests.datasets.ctx.quads import noise, tiff_name, write_quad, zipped
from tests.datasets.ctx.runs import OTHER, QUAD, SPEC, TILES, contents, run


def test_a_second_run_does_nothing(quads: Path, out: Path) -> None:
    first = run(quads, out)
    assert [item.quad for item in first.cut] == ["E-004_N-04", "E000_N-04"]
    assert sorted(item.name for item in out.iterdir()) == [
        "E-004_N-04.json", "E-004_N-04.tar", "E000_N-04.json", "E000_N-04.tar",
    ]  # fmt: skip
    before = [path.stat().st_mtime_ns for path in sorted(out.iterdir())]
    again = run(quads, out)
    assert (len(again.cut), len(again.kept), again.complete) == (0, 2, True)
    assert [path.stat().st_mtime_ns for path in sorted(out.iterdir())] == before


def test_manifest_lists_the_contents_of_the_tar(quads: Path, out: Path) -> None:
    run(quads, out)
    manifest = read_manifest(out / "E-004_N-04.json")
    assert manifest.tar_sha256 == sha256_file(out / manifest.tar)
    assert manifest.tar_bytes == (out / manifest.tar).stat().st_size
    assert (manifest.spec_hash, manifest.tiles) == (SPEC.hash, TILES)
    assert manifest.source == tiff_name(QUAD)


@pytest.mark.parametrize(
    "damage",
    [
        lambda out: (out / "E-004_N-04.tar").unlink(),
        lambda out: (out / "E-004_N-04.json").unlink(),
        lambda out: os.truncate(out / "E-004_N-04.tar", 100_000),
        lambda out: (out / "E-004_N-04.json").write_text("{"),
        lambda out: (out / "E-004_N-04.json").write_text("[]"),
        lambda out: (out / "E-004_N-04.json").write_text('{"schema_version": 1}'),
    ],
)
def test_tar_damaged_afterwards_is_cut_again(quads: Path, out: Path, damage) -> None:
    run(quads, out)
    before = contents(out)
    damage(out)
    report = run(quads, out)
    assert ([item.quad for item in report.cut], len(report.kept)) == (["E-004_N-04"], 1)
    assert contents(out) == before


def test_another_request_or_another_file_is_cut_again(quads: Path, out: Path) -> None:
    run(quads, out)
    assert len(run(quads, out, TileSpec.of("0.5", size=16), force=True).cut) == 2
    assert len(run(quads, out, force=True).cut) == 2
    write_quad(quads, QUAD, noise(400, 7))  # of the same size to the byte
    assert [item.quad for item in run(quads, out).cut] == ["E-004_N-04"]


def test_quads_cut_with_other_options_are_not_replaced_or_mixed(quads: Path, out: Path) -> None:
    run(quads, out)
    before = contents(out)
    inputs, _ = find_files([quads], [OTHER])
    spec = TileSpec.of("0.5", size=16)
    for attempt in (cut_quads, plan):
        with pytest.raises(UsageError, match="2 quads cut with other options") as refused:
            attempt(inputs, spec, out)
        assert "--force" in refused.value.remedy
    assert contents(out) == before
    assert plan(inputs, spec, out, force=True).todo == inputs
    report = cut_quads(inputs, spec, out, settings=JobSettings(force=True))
    assert (report.complete, report.otherwise) == (True, ["E-004_N-04"])
    assert run(quads, out, force=True).otherwise == []


@pytest.mark.parametrize("layout", ["rows", "tiled lzw"])
def test_truncated_file_is_reported_tile_by_tile(quads: Path, out: Path, layout: str) -> None:
    path = write_quad(quads, QUAD, noise(400), layout=layout)
    os.truncate(path, path.stat().st_size * 6 // 10)
    report = run(quads, out)
    assert not report.complete
    manifest = read_manifest(out / "E-004_N-04.json")
    assert manifest.tiles + len(manifest.failed) == TILES
    assert TILES // 4 <= len(manifest.failed) <= TILES * 3 // 4  # whole rows of tiles fail
    assert set(manifest.failed) == set(report.failed_tiles)
    assert "E_4_0_N_4_0" in manifest.failed
    assert "E_4_0_N_0_5" not in manifest.failed
    assert len(run(quads, out).cut) == 1  # tried again, for it is not complete
    write_quad(quads, QUAD, noise(400), layout=layout)
    healed = run(quads, out)
    assert healed.complete
    assert [item.tiles for item in healed.cut] == [TILES]


def test_a_damaged_file_does_not_replace_a_complete_tar(quads: Path, out: Path) -> None:
    run(quads, out)
    before = contents(out)
    path = quads / tiff_name(QUAD)
    os.truncate(path, path.stat().st_size // 2)
    report = run(quads, out)
    assert "kept" in report.failed[0].reason
    assert contents(out) == before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.write_bytes(b"II*\0junk" * 10), "not readable as a GeoTIFF"),
        (lambda path: write_quad(path.parent, QUAD, noise(80), crs=None), "no coordinate system"),
        (lambda path: write_quad(path.parent, OTHER, noise(80), name=path.name), "named for -4"),
        (lambda path: write_quad(path.parent, QUAD, noise(80), shift=0.6), "named for -4"),
        (lambda path: write_quad(path.parent, QUAD, noise(80)[:, :60]), "its extent is"),
        (
            lambda path: write_quad(path.parent, QUAD, noise(80).astype(np.int16)),
            "pixels of int16",
        ),
    ],
)
def test_one_bad_file_does_not_stop_the_others(quads: Path, out: Path, make, message: str):
    path = quads / tiff_name(QUAD)
    path.unlink()
    make(path)
    report = run(quads, out)
    assert [item.quad for item in report.cut] == ["E000_N-04"]
    (failed,) = report.failed
    assert failed.source == str(path)
    assert message in failed.reason
    assert not (out / "E-004_N-04.tar").exists()
    assert not (out / "E-004_N-04.json").exists()


def test_offset_below_half_a_pixel_is_accepted(quads: Path, out: Path) -> None:
    write_quad(quads, QUAD, noise(400), shift=0.4)
    assert run(quads, out).complete


def test_file_without_a_quad_name_is_reported(quads: Path, out: Path) -> None:
    (quads / tiff_name(QUAD)).rename(quads / "mosaic.tif")
    write_quad(quads, QUAD, noise(80), name="MurrayLab_CTX_V01_E-003_N-04_Mosaic.tif")
    report = run(quads, out)
    assert [item.quad for item in report.cut] == ["E000_N-04"]
    assert len(report.failed) == 2
    assert all("not named as a quad" in item.reason for item in report.failed)


def test_quad_with_a_zip_and_a_geotiff_is_read_from_the_zip(tmp_path: Path, quads: Path):
    """The GeoTIFF may be the result of interrupted unpacking; the zip has a checksum."""
    path = quads / tiff_name(QUAD)
    archive = zipped(path, QUAD, quads)
    os.truncate(path, 50_000)
    inputs, problems = find_files([quads])
    assert [item.path for item in inputs] == [archive, quads / tiff_name(OTHER)]
    assert not problems
    again = tmp_path / "again"
    again.mkdir()
    zipped(quads / tiff_name(OTHER), QUAD, again)
    with pytest.raises(UsageError, match="two files of quad"):
        find_files([quads, again])


def test_folders_are_searched_at_any_depth_and_filtered(tmp_path: Path, quads: Path) -> None:
    inputs, problems = find_files([tmp_path], [OTHER, Quad(0, 0)])
    assert [item.quad for item in inputs] == [OTHER]
    assert [problem.source for problem in problems] == ["E000_N00"]
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "absent"):
        with pytest.raises(DatasetNotFoundError):
            find_files([path])


@pytest.mark.parametrize("layout", ["rows", "tiled"])
def test_damaged_zip_leaves_no_file_under_the_final_name(tmp_path, out: Path, layout: str):
    tiff = write_quad(tmp_path, QUAD, noise(400), layout=layout)
    archive = zipped(tiff, QUAD, tmp_path)
    data = bytearray(archive.read_bytes())
    data[len(data) * 9 // 10] ^= 0x10  # near the end: most tiles are cut by then
    archive.write_bytes(data)
    report = cut_quads([Input(QUAD, archive)], SPEC, out)
    assert "damaged" in report.failed[0].reason
    assert not out.exists()


def test_a_zip_with_another_quad_inside_is_refused(tmp_path: Path, out: Path) -> None:
    archive = tmp_path / QUAD.zip_name
    with zipfile.ZipFile(archive, "w") as file:
        file.write(write_quad(tmp_path, OTHER, noise(80)), f"x/{tiff_name(OTHER)}")
    report = cut_quads([Input(QUAD, archive)], SPEC, out)
    assert "not the quad" in report.failed[0].reason


def test_the_plan_writes_nothing(quads: Path, out: Path) -> None:
    inputs, _ = find_files([quads])
    result = plan([*inputs, Input(Quad(0, 0))], TileSpec(), out).to_dict()
    assert result["tiles"] == 1200
    assert result["download_bytes"] == result["scratch_bytes"] > 10**9
    assert [item["fetched"] for item in result["quads"]] == [False, False, True]
    assert not out.exists()
    run(quads, out)
    assert plan(inputs, SPEC, out).to_dict()["kept"] == ["E-004_N-04", "E000_N-04"]


def test_lack_of_disk_space_is_reported_before_cutting(quads: Path, out: Path, monkeypatch) -> None:
    monkeypatch.setattr(listing, "free_bytes", lambda folder: 1000)
    with pytest.raises(OutputError, match="free"):
        run(quads, out)
    assert not out.exists()


def test_disk_space_is_checked_for_all_quads(quads, out, monkeypatch) -> None:
    tiles = TILES * 32 * 32 * 0.5
    monkeypatch.setattr(listing, "free_bytes", lambda folder: 2**26 + round(1.5 * tiles))
    with pytest.raises(OutputError, match="needed, "):
        run(quads, out)
    assert not out.exists()
    inputs, _ = find_files([quads], [QUAD])
    assert cut_quads(inputs, SPEC, out).complete


def test_old_unpacked_files_of_a_killed_run_are_removed(quads: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    for name, hours in (("unpacked-old", 3), ("unpacked-of-another-run", 0)):
        (scratch / name).mkdir(parents=True)
        (scratch / name / "quad.tif").write_bytes(b"x")
        then = time.time() - 3600 * hours
        os.utime(scratch / name, (then, then))
    inputs, _ = find_files([quads], [QUAD])
    cut_quads(inputs, SPEC, tmp_path / "out", settings=JobSettings(scratch=scratch))
    assert [path.name for path in scratch.iterdir()] == ["unpacked-of-another-run"]


def test_old_partial_files_of_a_killed_run_are_removed(quads: Path, out: Path) -> None:
    run(quads, out)
    for name, hours in ((".E-004_N-04.tar.0123abcd.tmp", 3), (".E000_N-04.tar.4567cdef.tmp", 0)):
        (out / name).write_bytes(b"x")
        then = time.time() - 3600 * hours
        os.utime(out / name, (then, then))
    assert len(run(quads, out).kept) == 2
    assert [path.name for path in out.glob(".*")] == [".E000_N-04.tar.4567cdef.tmp"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("failed", None), ("empty", 3), ("tar", 5), ("tar_bytes", "1"), ("spec", [])],
)
def test_damaged_manifest_is_ignored(quads: Path, out: Path, name: str, value) -> None:
    run(quads, out)
    path = out / "E-004_N-04.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(DataError, match=f"'{name}' is .*: Input should be"):
        read_manifest(path)
    assert [item.quad for item in run(quads, out).cut] == ["E-004_N-04"]


def test_a_manifest_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"schema_version": 99}')
    with pytest.raises(DataError, match="not a manifest"):
        read_manifest(tmp_path / "a.json")
