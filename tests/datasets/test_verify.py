from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from marsretrieval import benchmark, geo
from marsretrieval.datasets import annotated_hash, content_hash, set_hash
from marsretrieval.datasets._inventory import DatasetInventory, Problem
from marsretrieval.datasets._likeness import difference_hash, near_pairs
from marsretrieval.datasets.verify import verify
from marsretrieval.encoders import LoadOptions
from marsretrieval.errors import DatasetNotFoundError, UnknownNameError
from marsretrieval.files import sha256_file
from marsretrieval.tasks import TASKS, Settings
from tests.datasets.download.servers import picture
from tests.shared import shared_file
from tests.tasks.oracle import class_folders, pairs_tar, tiles_folder
from tests.test_benchmark import record as oracle_record

Members = Iterable[tuple[str, bytes]]


def write_tar(path: Path, members: Members) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def pair(key: str, image: bytes, caption: str | None) -> list[tuple[str, bytes]]:
    told = {} if caption is None else {"refined_caption": caption, "ori_caption": "o"}
    return [(f"{key}.jpg", image), (f"{key}.json", json.dumps(told).encode())]


def pairs(folder: Path, *items: tuple[str, bytes, str | None]) -> Path:
    write_tar(folder / "00000.tar", (member for item in items for member in pair(*item)))
    return folder


def landforms(folder: Path, rows: list[dict[str, Any]], name: str = "train-0.parquet") -> Path:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    table = {
        "image": [{"bytes": row["image"], "path": None} for row in rows],
        "image_id": [row["id"] for row in rows],
        "label": [row["label"] for row in rows],
    }
    pq.write_table(pa.table(table), folder / "data" / name)
    return folder


def tiles(
    quads: Mapping[tuple[int, int], int], size: tuple[int, int] = (4, 4)
) -> list[tuple[str, bytes]]:
    """So many tiles of each quad, in the order of the published tiler, each with its own bytes."""
    members = []
    for (lon, lat), count in quads.items():
        for number in range(count):
            west, south = lon + number % 20 * 0.2, lat + number // 20 * 0.2
            members.append((f"{geo.tile_name(west, south)}.png", grey(len(members), size)))
    return members


def grey(number: int, size: tuple[int, int] = (4, 4)) -> bytes:
    values = np.zeros(size, dtype=np.uint8)
    values.flat[:3] = number % 251, number // 251 % 251, 7
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def check(folder: Path, *tasks: str, workers: int = 1) -> DatasetInventory:
    inventory = verify(folder, tasks=tasks, workers=workers)
    assert len(inventory.datasets) == 1
    json.dumps(inventory.to_dict(), allow_nan=False)
    return inventory.datasets[0]


def named(told: DatasetInventory) -> dict[str, Problem]:
    assert len({problem.kind for problem in told.problems}) == len(told.problems)
    return {problem.kind: problem for problem in told.problems}


class TestPairs:
    def test_a_sound_set(self, tmp_path: Path) -> None:
        items = [(f"k{n}", picture(n, (40 + n, 30)), f"caption {n}") for n in range(3)]
        told = check(pairs(tmp_path / "Mars-VL-Pairs", *items))
        assert told.dataset == "paired"
        assert told.problems == []
        assert told.counts["images"] == told.counts["distinct"] == told.counts["pairs"] == 3
        assert told.counts["width"] == {"min": 40, "mean": 41.0, "max": 42}
        assert told.counts["caption_length"] == {"min": 9, "mean": 9.0, "max": 9}
        assert told.set_hash == set_hash(
            (key, annotated_hash(content_hash(image), caption)) for key, image, caption in items
        )

    def test_captions_missing_empty_and_double(self, tmp_path: Path) -> None:
        folder = pairs(
            tmp_path / "Mars-VL-Pairs",
            ("a", picture(1), "a crater"),
            ("b", picture(2), "  "),
            ("c", picture(3), None),
            ("d", picture(4), "A  Crater"),
            ("e", picture(5), "dunes"),
        )
        write_tar(folder / "00001.tar", [("f.jpg", picture(6)), ("f.txt", b"\n")])
        problems = named(check(folder))
        assert problems["double-caption"].examples == ("a, d",)
        assert problems["double-caption"].severity == "error"
        assert problems["no-caption"].count == 2, "b has its original caption"
        assert [each.rsplit(":")[-1] for each in problems["no-caption"].examples] == [
            "c.jpg",
            "f.jpg",
        ]

    def test_the_same_bytes_and_the_same_picture(self, tmp_path: Path) -> None:
        with Image.open(io.BytesIO(picture(1, (300, 200), "PNG"))) as image:
            small = io.BytesIO()
            image.resize((150, 100)).save(small, "JPEG", quality=80)
        folder = pairs(
            tmp_path / "Mars-VL-Pairs",
            ("a", picture(1, (300, 200)), "one"),
            ("b", small.getvalue(), "two"),
            ("c", picture(3), "three"),
            ("d", picture(3), "four"),
        )
        problems = named(check(folder))
        assert problems["double-image"].examples == ("c, d",)
        assert problems["double-image"].severity == "error"
        near = problems["near-double-image"]
        assert (near.examples, near.severity) == (("a, b",), "note")
        (folder / "pairs.csv").write_text("row,id\n460,a\n907,b\n1,c\n2,d\n")
        assert named(check(folder))["near-double-image"].examples == (
            "a, b (rows 460 and 907: known)",
        )
        (folder / "pairs.csv").write_text("row\nx\n")
        assert named(check(folder))["near-double-image"].examples == ("a, b",)

    def test_damaged_images_and_tars(self, tmp_path: Path) -> None:
        whole = picture(1, (300, 200))
        folder = pairs(
            tmp_path / "Mars-VL-Pairs",
            ("a", whole[: len(whole) // 2], "cut"),
            ("b", b"<html>", "a page"),
            ("c", b"", "nothing"),
            ("d", picture(4), "fine"),
        )
        data = write_tar(tmp_path / "x.tar", pair("z", picture(9, (200, 200)), "z")).read_bytes()
        (folder / "00001.tar").write_bytes(data[:700])
        (folder / "00002.tar").write_bytes(b"")
        write_tar(folder / "00003.tar", [])
        told = check(folder)
        problems = named(told)
        assert told.counts["images"] == 1
        reasons = problems["unreadable-image"].examples
        assert problems["unreadable-image"].count == len(reasons) == 5
        assert "00000.tar:a.jpg: cannot be decoded" in reasons[0]
        assert reasons[1].endswith("00000.tar:b.jpg: not an image in a known format")
        assert reasons[2].endswith("00000.tar:c.jpg: empty file")
        assert "00001.tar: the tar cannot be read to its end" in reasons[3]
        assert reasons[4].endswith("00002.tar: an empty file, not a tar")
        assert problems["empty-shard"].count == 1

    def test_double_keys_within_and_across_tars(self, tmp_path: Path) -> None:
        folder = pairs(
            tmp_path / "Mars-VL-Pairs",
            ("a", picture(1), "one"),
            ("b", picture(2), "two"),
            ("a", picture(3), "three"),
        )
        write_tar(folder / "00001.tar", pair("b", picture(4), "four"))
        problem = named(check(folder))["double-id"]
        assert (problem.count, problem.severity) == (2, "error")
        assert problem.examples[0].startswith("b: ")
        assert "00000.tar:b.jpg" in problem.examples[0]
        assert "00001.tar:b.jpg" in problem.examples[0]
        assert problem.examples[1].startswith("a: ")
        assert "unreadable-image" not in named(check(folder))


class TestLandforms:
    def test_a_sound_set(self, tmp_path: Path) -> None:
        rows = [{"id": f"i{n}", "image": picture(n), "label": "ab"[n % 2]} for n in range(4)]
        told = check(landforms(tmp_path / "Mars-Landforms", rows))
        assert told.problems == []
        assert told.counts["classes"] == {"a": 2, "b": 2}
        assert told.set_hash == set_hash(
            (row["id"], annotated_hash(content_hash(row["image"]), row["label"])) for row in rows
        )

    def test_labels_missing_and_contradicting(self, tmp_path: Path) -> None:
        rows = [
            {"id": "a", "image": picture(1), "label": "crater"},
            {"id": "b", "image": picture(1), "label": "dune"},
            {"id": "c", "image": picture(2), "label": "dune"},
            {"id": "d", "image": picture(2), "label": "dune"},
            {"id": "e", "image": picture(3), "label": None},
        ]
        problems = named(check(landforms(tmp_path / "Mars-Landforms", rows)))
        assert problems["no-label"].examples[0].endswith(":row 4")
        conflict = problems["double-image-of-two-classes"]
        assert (conflict.examples, conflict.severity) == (("a (crater), b (dune)",), "error")
        assert (problems["double-image"].examples, problems["double-image"].severity) == (
            ("c, d",), "note",
        )  # fmt: skip

    def test_one_damaged_file_does_not_hide_the_others(self, tmp_path: Path) -> None:
        folder = tmp_path / "Mars-Landforms"
        for number in (0, 2):
            rows = [{"id": None, "image": picture(number + n), "label": "a"} for n in range(2)]
            landforms(folder, rows, f"train-{number}.parquet")
        (folder / "data/train-1.parquet").write_bytes(b"PAR1 cut off")
        told = check(folder)
        problems = named(told)
        assert told.counts["images"] == 4
        assert problems["unreadable-file"].count == 1
        assert "double-id" not in problems, "row numbers of two files are no doubles"
        assert (
            "train-1.parquet: not a readable Parquet file"
            in (problems["unreadable-file"].examples[0])
        )

    def test_real_patches(self) -> None:
        told = check(shared_file("marsdata/patches"), workers=2)
        assert told.dataset == "landform"
        assert told.counts["images"] == 251
        assert len(told.counts["classes"]) == 9
        assert {problem.severity for problem in told.problems} <= {"note"}


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
        told = check(folder, workers=2)
        assert told.counts["images"] == 799
        assert told.counts["points"] == {"yardangs": 2}
        assert told.counts["examples"] == {"yardangs": 1}
        assert told.counts["quads"] == {"whole": 1, "partial": 1, "missing": 3598, "of": 3600}
        problems = named(told)
        assert problems["partial-quad"].examples == ("E136_N04: 399 of 400",)
        assert problems["missing-quad"].count == 3598
        assert {problem.severity for problem in told.problems} == {"note"}
        contents = [member for members in self.members.values() for member in members]
        assert told.set_hash == set_hash(
            (name.removesuffix(".png"), content_hash(data)) for name, data in contents
        )

    def test_tiles_twice_astray_and_alike(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path, {(0, 0): 3})
        first = self.members["tiles/E000_N00.tar"]
        write_tar(
            folder / "tiles/again.tar",
            [first[0], ("nowhere.png", grey(90)), ("E179_9_N1_0.png", grey(91)),
             ("E_180_1_N1_0.png", grey(92)), ("E1_0_N95_0.png", grey(93)),
             ("E5_0_N5_0.png", first[1][1])],
        )  # fmt: skip
        problems = named(check(folder))
        assert problems["double-id"].count == 1
        assert problems["double-tile"].examples == ("E0_0_N0_0, E0_0_N0_0",)
        assert problems["no-position"].count == 3
        assert problems["double-image"].severity == "note"
        assert problems["double-image"].count == 2

    def test_more_tiles_than_a_quad_holds(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path, {(0, 0): 400})
        write_tar(folder / "tiles/more.tar", [("E0_1_N0_1.png", grey(999))])
        problem = named(check(folder))["surplus-quad"]
        assert (problem.examples, problem.severity) == (("E000_N00: 401 of 400",), "error")

    def test_tables_and_examples(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path, {(0, 0): 1})
        truth = folder / "ground_truth"
        (truth / "landslides.csv").write_text("lon,lat\n10,200\n")
        (truth / "cones.csv").write_text("x,y\n10,20\n")
        (truth / "fans.csv").write_text("lon,lat\n10,20\n10,20\n370,1\n")
        (truth / "dunes.csv").write_text("lon,lat\n10,20\n10,20\n")
        (folder / "image_queries/dunes").mkdir()
        (folder / "image_queries/craters").mkdir()
        (folder / "image_queries/craters/a.png").write_bytes(b"no picture")
        problems = named(check(folder))
        assert {kind for kind, each in problems.items() if each.severity == "error"} == {
            "bad-table", "bad-examples", "unreadable-example",
        }  # fmt: skip
        assert problems["double-point"].examples == ("dunes.csv: 1",)
        assert problems["landform-without-examples"].examples == ("dunes",)
        assert problems["examples-without-points"].examples == ("craters",)
        tables = problems["bad-table"].examples
        assert problems["bad-table"].count == len(tables) == 3
        assert any("latitude 200.0 is not within" in each for each in tables)
        assert any("line 4: longitude 370.0 is not within" in each for each in tables)
        assert any("no column 'lon'" in each for each in tables)

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


class TestDownloads:
    def record(self, folder: Path, **told: Any) -> None:
        files = [
            {"path": path.name, "size": path.stat().st_size, "sha256": sha256_file(path)}
            for path in sorted(folder.glob("*.tar"))
        ]
        value = {
            "schema_version": 1, "dataset": "paired", "repository": "r", "revision": "abc",
            "variant": "whole", "complete": True, "files": files, "counts": {"rows": 40},
            "missing": [], "created": "2026-01-01T00:00:00+00:00",
        }  # fmt: skip
        (folder / "download.json").write_text(json.dumps(value | told))

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = pairs(tmp_path / "Mars-VL-Pairs", ("a", picture(1), "one"))
        write_tar(folder / "00001.tar", pair("b", picture(2), "two"))
        return folder

    def test_origin_and_files_as_downloaded(self, folder: Path) -> None:
        self.record(folder)
        told = check(folder)
        assert told.problems == []
        assert told.origin["revision"] == "abc"

    def test_files_altered_and_gone(self, folder: Path) -> None:
        self.record(folder)
        write_tar(folder / "00000.tar", pair("a", picture(1), "one, altered"))
        (folder / "00001.tar").unlink()
        problems = named(check(folder))
        assert problems["altered-file"].examples == ("00000.tar",)
        assert problems["missing-file"].examples == ("00001.tar",)

    def test_what_could_not_be_had(self, folder: Path) -> None:
        self.record(folder, missing=["x", "y"])
        assert named(check(folder))["image-not-had"].severity == "note"
        self.record(folder, missing=["x", "y", "z"])
        problem = named(check(folder))["image-not-had"]
        assert (problem.severity, problem.count) == ("error", 3)

    def test_an_unfinished_or_damaged_record(self, folder: Path) -> None:
        self.record(folder, complete=False)
        assert "data download paired" in named(check(folder))["unfinished-download"].examples[0]
        (folder / "download.json").write_text("{")
        assert "damaged-record" in named(check(folder, "paired"))


class TestWhichDataset:
    def test_all_that_lie_in_a_folder_or_those_asked_for(self, tmp_path: Path) -> None:
        pairs(tmp_path / "Mars-VL-Pairs", ("a", picture(1), "one"))
        landforms(tmp_path / "Mars-Landforms", [{"id": "a", "image": picture(1), "label": "x"}])
        (tmp_path / "planet.json").write_text('{"seed": 7}')
        found = verify(tmp_path, workers=1)
        assert [each.dataset for each in found.datasets] == ["paired", "landform"]
        assert found.datasets[0].origin == {
            "synthetic": True,
            "version": None,
            "seed": 7,
            "size": None,
        }
        assert found.ok()
        one = verify(tmp_path, tasks=["landform_retrieval"], workers=1)
        assert [each.dataset for each in one.datasets] == ["landform"]
        with pytest.raises(DatasetNotFoundError, match="no data of geolocalization"):
            verify(tmp_path, tasks=["geo"])
        with pytest.raises(UnknownNameError):
            verify(tmp_path, tasks=["paird"])

    @pytest.mark.parametrize("kind", ["paired", "landform", "tiles", "images"])
    def test_by_its_first_image(self, kind: str, tmp_path: Path) -> None:
        if kind == "paired":
            pairs(tmp_path / "mine", ("a", picture(1), "one"))
        elif kind == "landform":
            (tmp_path / "mine/dunes").mkdir(parents=True)
            (tmp_path / "mine/dunes/a.jpg").write_bytes(picture(1))
        else:
            name = "E1_0_N2_0.jpg" if kind == "tiles" else "a.jpg"
            (tmp_path / "mine").mkdir()
            (tmp_path / "mine" / name).write_bytes(picture(1))
        assert check(tmp_path / "mine").dataset == kind

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetNotFoundError, match="no such folder"):
            verify(tmp_path / "nowhere")
        with pytest.raises(DatasetNotFoundError, match="no images"):
            verify(tmp_path)

    def test_strict_counts_notes_too(self, tmp_path: Path) -> None:
        (tmp_path / "ground_truth").mkdir()
        (tmp_path / "ground_truth/a.csv").write_text("lon,lat\n1,2\n")
        found = verify(tmp_path, workers=1)
        assert found.ok()
        assert not found.ok(strict=True)


def test_the_set_hash_is_that_of_results(tmp_path: Path) -> None:
    data = tmp_path / "data"
    pairs_tar(data)
    tiles_folder(data)
    class_folders(data / "Mars-Landforms", {"plains": 4, "yardangs": 3})
    next((data / "Mars-Landforms").rglob("*.png")).write_bytes(b"damaged")
    jobs = benchmark.plan(
        [oracle_record()],
        TASKS,
        data=data,
        results=tmp_path / "results",
        options=LoadOptions(),
        settings=Settings(resamples=0),
    )
    results = {each.job.task.name: each.result for each in benchmark.run(jobs)}
    inventory = verify(data, workers=1)
    assert not inventory.ok()
    assert len(inventory.datasets) == 3
    for told in inventory.datasets:
        task = "paired-image-text" if told.dataset == "paired" else told.dataset
        result = results[task]
        assert result is not None
        assert result.data["set_hash"] == told.set_hash


class TestLikeness:
    @given(st.integers(0, 10_000), st.sampled_from([0.4, 0.7, 1.5]), st.integers(60, 95))
    def test_a_copy_in_another_size_is_near_and_another_picture_is_not(
        self, seed: int, scale: float, quality: int
    ) -> None:
        with Image.open(io.BytesIO(picture(seed, (180, 120), "PNG"))) as image:
            buffer = io.BytesIO()
            size = (round(180 * scale), round(120 * scale))
            image.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=quality)
            first = difference_hash(image)
        with Image.open(buffer) as image:
            second = difference_hash(image)
        with Image.open(io.BytesIO(picture(seed + 1, (180, 120)))) as image:
            third = difference_hash(image)
        assert first is not None
        assert second is not None
        assert third is not None
        assert near_pairs(np.stack([first, second, third])) == [(0, 1)]

    def test_pairs_are_found_across_blocks(self) -> None:
        hashes = np.random.default_rng(0).integers(0, 2**64, (1200, 4), dtype=np.uint64)
        hashes[1100] = hashes[3]
        hashes[1100, 0] ^= np.uint64(0xFF)
        hashes[600] = hashes[599]
        assert near_pairs(hashes) == [(3, 1100), (599, 600)]

    def test_a_picture_without_contrast_resembles_nothing(self) -> None:
        assert difference_hash(Image.new("RGB", (30, 30), (9, 9, 9))) is None
