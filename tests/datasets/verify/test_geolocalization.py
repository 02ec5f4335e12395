from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from marsretrieval import geo
from marsretrieval.datasets import content_hash, set_hash
from tests.datasets.download.servers import picture
from tests.datasets.layouts import write_tar
from tests.datasets.verify.sets import check, grey, named, tiles


class TestGeolocalization:
    def folder(self, tmp_path: Path, quads: Mapping[tuple[int, int], int]) -> Path:
        folder = tmp_path / "Mars-Global-Geolocalization"
        for name, data in tiles(quads):
            lon, lat = geo.tile_corner(name) or (0, 0)
            quad = f"tiles/{geo.quad_name(lon + 0.1, lat + 0.1)}.tar"
            self.members.setdefault(quad, []).append((name, data))
        for quad, members in self.members.items():
            write_tar(folder / quad, members)
        (folder / "ground_truth").mkdir(parents=True)
        (folder / "ground_truth/yardangs.csv").write_text("lon,lat\n10,20\n30,40\n")
        (folder / "image_queries/yardangs").mkdir(parents=True)
        (folder / "image_queries/yardangs/a.jpg").write_bytes(picture(1))
        return folder

    @pytest.fixture(autouse=True)
    def fresh(self) -> None:
        self.members: dict[str, list[tuple[str, bytes]]] = {}

    def test_counts_and_coverage_with_two_processes(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path, {(-4, -4): 400, (136, 4): 399})
        inventory = check(folder, workers=2)
        assert inventory.counts["images"] == 799
        assert inventory.counts["points"] == {"yardangs": 2}
        assert inventory.counts["examples"] == {"yardangs": 1}
        assert inventory.counts["quads"] == {"whole": 1, "partial": 1, "missing": 3598, "of": 3600}
        problems = named(inventory)
        assert problems["partial-quad"].examples == ("E136_N04: 399 tiles on 99.75 %",)
        assert problems["missing-quad"].count == 3598
        assert {problem.severity for problem in inventory.problems} == {"note"}
        contents = [member for members in self.members.values() for member in members]
        assert inventory.set_hash == set_hash(
            (name.removesuffix(".png"), content_hash(data)) for name, data in contents
        )

    def test_duplicate_misplaced_and_similar_tiles(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path, {(0, 0): 3})
        first = self.members["tiles/E000_N00.tar"]
        write_tar(
            folder / "tiles/again.tar",
            [first[0], ("nowhere.png", grey(90)), ("E179_9_N1_0.png", grey(91)),
             ("E_180_1_N1_0.png", grey(92)), ("E1_0_N95_0.png", grey(93)),
             ("E5_0_N5_0.png", first[1][1])],
        )  # fmt: skip
        problems = named(check(folder))
        assert "double-id" not in problems
        assert problems["double-tile"].examples == ("E000_N00/E0_0_N0_0, again/E0_0_N0_0",)
        assert problems["no-position"].count == 3
        assert problems["double-image"].severity == "note"
        assert problems["double-image"].count == 2

    def test_more_tiles_than_a_quad_holds(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path, {(0, 0): 400})
        write_tar(folder / "tiles/more.tar", [("E0_1_N0_1.png", grey(999))])
        problem = named(check(folder))["surplus-quad"]
        assert (problem.examples, problem.severity) == (
            ("E000_N00: 401 tiles on 100.2 %",),
            "error",
        )

    def test_tables_and_examples(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path, {(0, 0): 1})
        truth = folder / "ground_truth"
        (truth / "landslides.csv").write_text("lon,lat\n10,200\n")
        (truth / "cones.csv").write_text("a,b\n10,20\n")
        (truth / "fans.csv").write_text("lon,lat\n10,20\n10,20\n370,1\n")
        (truth / "dunes.csv").write_text("lon,lat\n10,20\n10,20\n")
        (folder / "image_queries/dunes").mkdir()
        (folder / "image_queries/craters").mkdir()
        (folder / "image_queries/craters/a.png").write_bytes(b"no picture")
        problems = named(check(folder))
        assert {kind for kind, item in problems.items() if item.severity == "error"} == {
            "bad-table", "bad-examples", "unreadable-example",
        }  # fmt: skip
        assert problems["double-point"].examples == ("dunes.csv: 1", "fans.csv: 1")
        assert problems["landform-without-examples"].examples == ("dunes", "fans")
        assert problems["examples-without-points"].examples == ("craters",)
        tables = problems["bad-table"].examples
        assert problems["bad-table"].count == len(tables) == 2
        assert any("latitude 200.0 is not within" in table for table in tables)
        (note,) = problems["catalogue-rows"].examples
        assert "1 row with a position out of range left out (line 4)" in note
        assert any("no column 'lon'" in table for table in tables)

    def test_tables_are_read_as_in_the_task(self, tmp_path: Path) -> None:
        folder = tmp_path / "Mars-Global-Geolocalization"
        (folder / "ground_truth").mkdir(parents=True)
        (folder / "ground_truth" / "yardangs.CSV").write_text("lon,lat\n180,5\n-180,5\n")
        problems = named(check(folder))
        assert "no-ground-truth" not in problems
        assert problems["double-point"].examples == ("yardangs.CSV: 1",)

    def test_without_tiles_and_without_points(self, tmp_path: Path) -> None:
        folder = tmp_path / "Mars-Global-Geolocalization"
        folder.mkdir()
        problems = named(check(folder))
        assert problems["no-ground-truth"].severity == "error"
        assert problems["no-tiles"].severity == "note"
        (folder / "tiles").mkdir()
        assert (
            "no images, tars or Parquet" in named(check(folder))["unreadable-dataset"].examples[0]
        )
