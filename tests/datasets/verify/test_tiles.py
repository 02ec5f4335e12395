"""Output of the tile cutter: consistent and inconsistent tars and manifests."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from marsretrieval.datasets.ctx import JobSettings, Quad, TileSpec, cut_quads, find_files
from tests.datasets.ctx.quads import noise, tiff_name, write_quad
from tests.datasets.verify.sets import check, grey, named

QUADS = [Quad(-4, -4), Quad(76, 8)]


@pytest.fixture(scope="module")
def two_quads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two quads once; tests must not change them."""
    folder = tmp_path_factory.mktemp("quads")
    for number, quad in enumerate(QUADS):
        write_quad(folder, quad, noise(300, number))
    return folder


@pytest.fixture
def quads(two_quads: Path, tmp_path: Path) -> Path:
    """Copy the two quads, for a test that may change them."""
    return Path(shutil.copytree(two_quads, tmp_path / "quads"))


@pytest.fixture(scope="module")
def few_tiles(two_quads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cut the quads into 64 tiles each; tests must not change them."""
    return cut(two_quads, tmp_path_factory.mktemp("few") / "tiles", delta=Decimal("0.5"))


def cut(quads: Path, out: Path, selected: list[Quad] | None = None, **spec: object) -> Path:
    inputs, problems = find_files([quads], selected)
    cut_quads(inputs, TileSpec(size=16, **spec), out, problems=problems)  # type: ignore[arg-type]
    return out


def test_tiles_of_the_cutter_are_valid(quads: Path, tmp_path: Path) -> None:
    inventory = check(cut(quads, tmp_path / "tiles"))
    assert inventory.dataset == "tiles"
    assert set(named(inventory)) <= {"missing-quad", "double-image"}
    assert inventory.counts["quads"]["whole"] == 2
    assert inventory.counts["images"] == 800
    assert inventory.origin["tiles"]["delta"] == 0.2


def test_tiles_wider_than_high_fill_their_quads_too(quads: Path, tmp_path: Path) -> None:
    inventory = check(cut(quads, tmp_path / "tiles", equal_aspect=True))
    assert inventory.counts["quads"] | {"missing": 0} == {
        "whole": 2, "partial": 0, "missing": 0, "of": 3600,
    }  # fmt: skip
    assert {problem.severity for problem in inventory.problems} == {"note"}


def test_tiles_without_data_that_were_dropped_are_counted(quads: Path, tmp_path: Path) -> None:
    pixels = noise(300, 7)
    pixels[:60, :60] = 0
    write_quad(quads, QUADS[0], pixels)
    inventory = check(cut(quads, tmp_path / "tiles", drop_below=0.01))
    assert inventory.counts["dropped_tiles"] == inventory.counts["empty_tiles"] >= 16
    assert "partial-quad" in named(inventory)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b'"center"') + 12] ^= 1  # a digit of a position: the tar is still a tar
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (lambda out: flip_a_bit(out / "E-004_N-04.tar"), "altered-tar"),
        (lambda out: os.truncate(out / "E-004_N-04.tar", 10_000), "altered-tar"),
        (lambda out: (out / "E-004_N-04.tar").unlink(), "missing-tar"),
        (lambda out: (out / "E-004_N-04.json").unlink(), "tar-without-manifest"),
        (lambda out: (out / "E-004_N-04.json").write_text("{"), "damaged-manifest"),
    ],
)
def test_tiles_damaged_afterwards_are_named(
    few_tiles: Path, tmp_path: Path, damage: Callable[[Path], object], kind: str
) -> None:
    out = Path(shutil.copytree(few_tiles, tmp_path / "tiles"))
    assert "error" not in {problem.severity for problem in check(out).problems}
    damage(out)
    problem = named(check(out))[kind]
    assert problem.severity == "error"
    assert "E-004_N-04" in problem.examples[0]


def test_tiles_that_could_not_be_cut_are_named(quads: Path, tmp_path: Path) -> None:
    path = quads / tiff_name(QUADS[0])
    os.truncate(path, path.stat().st_size // 2)
    problem = named(check(cut(quads, tmp_path / "tiles")))["failed-tile"]
    assert problem.severity == "error"
    assert problem.count >= 100
    assert "cut short" in problem.examples[0]


def test_quads_cut_with_other_options_are_reported(quads: Path, tmp_path: Path) -> None:
    delta = Decimal("0.5")
    out = cut(quads, tmp_path / "tiles", [QUADS[0]], delta=delta)
    inputs, _ = find_files([quads], [QUADS[1]])
    cut_quads(inputs, TileSpec(size=32, delta=delta), out, settings=JobSettings(force=True))
    (quad,) = named(check(out))["cut-otherwise"].examples
    assert quad in ("E-004_N-04", "E008_N76")


def test_sidecars_of_single_tiles_are_not_manifests(tmp_path: Path) -> None:
    (tmp_path / "E1_0_N2_0.png").write_bytes(grey(1))
    (tmp_path / "E1_0_N2_0.json").write_text(json.dumps({"center": [1.1, 2.1]}))
    assert {problem.severity for problem in check(tmp_path).problems} <= {"note"}
