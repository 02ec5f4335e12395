"""Pictures of the galleries: found again by id, the ones the model saw, few and small."""

from __future__ import annotations

import base64
import io
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from marsretrieval.datasets import open_images
from marsretrieval.embeddings import build_store
from marsretrieval.report.html import _pictures, write_html
from marsretrieval.report.html._pictures import Pictures, Wanted
from marsretrieval.report.html._places import Place, places
from marsretrieval.report.result_file import ResultFile
from marsretrieval.results import RunResult
from tests.fakes import FakeEncoder, png_bytes
from tests.report.made import make_geolocalization, make_landform, make_paired, result, write
from tests.report.pages import Page, page_of

PAIRS = [f"pair-{number:04d}" for number in range(12)]
CAPTION = "A <b>crater</b> with <script>alert(1)</script> in it, {}"


def tar_of(path: Path, ids: list[str], *, seed: int = 0, caption: str | None = CAPTION) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, key in enumerate(ids):
            members = {f"{key}.png": png_bytes(seed + number, 300)}
            if caption is not None:
                members[f"{key}.txt"] = caption.format(key).encode()
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def paired(tmp_path: Path) -> tuple[Path, Path]:
    """A result with its tables, and the dataset that it was computed on."""
    made = make_paired(0.6, pairs=len(PAIRS))
    path = write(result("paired-image-text", "model", made), made, tmp_path / "results" / "model")
    data = tmp_path / "data" / "Made-paired-image-text"
    tar_of(data / "000000.tar", PAIRS[:7])
    tar_of(data / "000001.tar", PAIRS[7:], seed=7)
    return path, data


@pytest.fixture
def stored(paired: tuple[Path, Path]) -> Path:
    """The result again, with the store of the images beside it, as `run` leaves it."""
    path, data = paired
    build_store(FakeEncoder(), open_images(data), store_of(path), dtype="float32")
    return path


def store_of(path: Path) -> Path:
    return path.parent / "embeddings" / "Made-paired-image-text-0123abcd" / "images"


def shown(page: Page) -> int:
    return len(page.all("svg", class_="thumb"))


def notices(page: Page) -> str:
    return " ".join(each.text for each in page.all("p", class_="notice"))


def test_pictures_come_from_the_place_that_the_store_recorded(stored: Path, tmp_path: Path) -> None:
    page = page_of([stored], tmp_path / "report.html")
    assert shown(page) > 30 and not page.all("span", class_="noimg")
    defs = [each.attributes for each in page.all("image")]
    assert len({each["href"] for each in defs}) == len(defs) == len(PAIRS)
    assert notices(page) == ""
    captions = [each.text for each in page.all("blockquote")]
    assert CAPTION.format("pair-0000") in captions
    assert len(page.all("script")) == 1


def test_right_and_wrong_are_told_by_more_than_colour(stored: Path, tmp_path: Path) -> None:
    page = page_of([stored], tmp_path / "report.html")
    hits = page.all("li", class_="hit")
    assert {each.attributes["class"] for each in hits} == {"hit right", "hit wrong"}
    for each in hits:
        verdict = each.attributes["class"].split()[1]
        assert f", {verdict}, score " in each.one("svg").attributes["aria-label"]
        assert ("✓" if verdict == "right" else "✗") in each.text
    texts = page.all("ol", class_="texts")[0].all("li")
    assert all("right" in each.text or "wrong" in each.text for each in texts)


def test_a_thumbnail_is_the_picture_of_its_id(stored: Path, tmp_path: Path) -> None:
    page = page_of([stored], tmp_path / "report.html")
    hit = page.all("li", class_="hit")[0]
    key = hit.attributes["title"]
    use = hit.one("use").attributes["href"][1:]
    (image,) = [each for each in page.all("image") if each.attributes["id"] == use]
    data = base64.b64decode(image.attributes["href"].partition(",")[2])
    with Image.open(io.BytesIO(data)) as thumbnail:
        assert thumbnail.format == "WEBP" and thumbnail.size == (152, 152)
        small = thumbnail.convert("L").resize((8, 8))
    number = PAIRS.index(key)
    with Image.open(io.BytesIO(png_bytes(number, 300))) as original:
        expected = original.convert("L").resize((8, 8))
    pairs = zip(small.tobytes(), expected.tobytes(), strict=True)
    assert max(abs(a - b) for a, b in pairs) < 25


def test_without_a_store_the_folder_is_named(paired: tuple[Path, Path], tmp_path: Path) -> None:
    path, data = paired
    before = page_of([path], tmp_path / "a.html")
    assert shown(before) == 0 and "12 of 12 pictures" in notices(before)
    assert "--images" in notices(before) and page_has_ids(before)
    for place in (data, data.parent, data / "000000.tar"):
        page = page_of([path], tmp_path / "b.html", images=[place])
        assert shown(page) > 0 and "by their ids alone" in notices(page)
        assert ("not found" in notices(page)) == (place.suffix == ".tar")


def page_has_ids(page: Page) -> bool:
    return {each.text for each in page.all("span", class_="noimg")} <= set(PAIRS)


def test_a_store_can_be_named_as_well(stored: Path, tmp_path: Path) -> None:
    alone = tmp_path / "elsewhere" / stored.name
    alone.parent.mkdir()
    for kind in (".json", ".hits.parquet", ".queries.parquet"):
        shutil.copy(stored.with_suffix(kind), alone.with_suffix(kind))
    assert shown(page_of([alone], tmp_path / "a.html")) == 0
    assert shown(page_of([alone], tmp_path / "b.html", images=[store_of(stored)])) > 30


def test_pictures_that_the_model_did_not_see_are_not_shown(
    stored: Path, paired: tuple[Path, Path], tmp_path: Path
) -> None:
    _, data = paired
    tar_of(data / "000000.tar", PAIRS[:7], seed=900)
    page = page_of([stored], tmp_path / "report.html")
    assert "7 of 12 pictures" in notices(page) and "another hash" in notices(page)
    assert len(page.all("image")) == 5


def test_pictures_in_another_layout_are_still_checked(
    stored: Path, paired: tuple[Path, Path], tmp_path: Path
) -> None:
    _, data = paired
    folder = tmp_path / "unpacked"
    for tar in sorted(data.iterdir()):
        with tarfile.open(tar) as file:
            file.extractall(folder, filter="data")
    shutil.rmtree(data)
    (folder / "pair-0003.png").write_bytes(png_bytes(77))
    page = page_of([stored], tmp_path / "report.html", images=[folder])
    assert len(page.all("image")) == 11 and "1 of 12 pictures" in notices(page)


def test_stores_of_other_data_play_no_part(stored: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "000000.tar"
    tar_of(other, [f"other-{number}" for number in range(3)])
    place = store_of(stored).parent.with_name("Made-paired-image-text-00000000") / "images"
    build_store(FakeEncoder(), open_images(other.parent), place, dtype="float32")
    page = page_of([stored], tmp_path / "report.html")
    assert len(page.all("image")) == len(PAIRS)


def test_pictures_that_are_gone_leave_their_ids(
    stored: Path, paired: tuple[Path, Path], tmp_path: Path
) -> None:
    _, data = paired
    (data / "000001.tar").unlink()
    report = write_html([ResultFile.read(stored)], tmp_path / "report.html")
    assert report.pictures == 7 and "5 of 12 pictures" in report.notes[0]
    shutil.rmtree(data)
    report = write_html([ResultFile.read(stored)], tmp_path / "report.html")
    assert report.pictures == 0 and "12 of 12 pictures" in report.notes[0]


def test_damaged_pictures_leave_their_ids(stored: Path, tmp_path: Path) -> None:
    place = next(iter(places(ResultFile.read(stored), [])))
    assert place.stores
    broken = replace(place, source=_Broken(place.source))  # type: ignore[arg-type]
    needs = Wanted()
    needs.add(PAIRS)
    found = Pictures(12).read(needs, [broken], "x")
    assert all(item.key is None for item in found.values())


class _Broken:
    """Gives back nothing but its annotations."""

    def __init__(self, source: object) -> None:
        self.shards: Callable[[], object] = source.shards  # type: ignore[attr-defined]
        self._source = source

    def read(self, shard: object, *, images: bool = True) -> object:
        return self._source.read(shard, images=False)  # type: ignore[attr-defined]


def test_thumbnails_can_be_left_out(stored: Path, tmp_path: Path) -> None:
    page = page_of([stored], tmp_path / "report.html", thumbnails=False)
    assert shown(page) == 0 and "without pictures" in notices(page)


def test_all_pictures_together_keep_to_a_budget(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pictures, "BUDGET", 20_000)
    page = page_of([stored], tmp_path / "report.html")
    sizes = [len(each.attributes["href"]) for each in page.all("image")]
    assert sizes and sum(sizes) * 3 / 4 <= 20_000
    assert "to keep this file small" in notices(page)


def test_many_pictures_are_smaller_and_wide_ones_keep_their_shape() -> None:
    assert Pictures(10)._side > Pictures(300)._side > Pictures(2000)._side
    data = _pictures._small(Image.new("RGB", (4000, 100), (200, 90, 40)), 152)
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (152, 4)


def test_two_results_of_one_set_share_their_pictures(stored: Path, tmp_path: Path) -> None:
    made = make_paired(0.9, pairs=len(PAIRS))
    other = write(result("paired-image-text", "other", made), made, tmp_path / "results" / "other")
    page = page_of([other, stored], tmp_path / "report.html")
    assert len(page.all("image")) == len(PAIRS)
    assert {each.text for each in page.all("h4") if "model" in each.text}


def test_pictures_come_from_a_plain_folder(tmp_path: Path) -> None:
    made = make_landform(1.0, names=["cones", "dunes", "pits"])
    path = write(result("landform", "model", made), made, tmp_path / "results" / "model")
    for number in range(30):
        file = tmp_path / "Made-landform" / f"image-{number:04d}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(png_bytes(number, 40))
    page = page_of([path], tmp_path / "report.html", images=[tmp_path])
    assert len(page.all("article", class_="query")) == 3
    assert "not found" not in notices(page)


class _Counting:
    """A source of quads that tells which of them were read."""

    name, kind = "quads", "webdataset"

    def __init__(self, folder: Path) -> None:
        self._source = open_images(folder)
        self.read_of: list[str] = []

    def shards(self) -> object:
        return self._source.shards()

    def read(self, shard: object, *, images: bool = True) -> object:
        self.read_of.append(shard.name)  # type: ignore[attr-defined]
        return self._source.read(shard, images=images)  # type: ignore[arg-type]


def test_of_a_planet_only_the_quads_of_its_tiles_are_read(tmp_path: Path) -> None:
    tar_of(tmp_path / "E000_N00.tar", ["E0_2_N0_2", "E3_8_N3_8"], caption=None)
    tar_of(tmp_path / "E-004_N-04.tar", ["E_0_2_N_0_2"], caption=None)
    tar_of(tmp_path / "E100_N40.tar", ["E100_0_N40_0"], caption=None)
    source = _Counting(tmp_path)
    needs = Wanted()
    needs.add(["E3_8_N3_8", "E_0_2_N_0_2", "E3_6_N3_6"])
    place = Place(tmp_path, source)  # type: ignore[arg-type]
    found = Pictures(3).read(needs, [place], "x")
    assert set(found) == {"E3_8_N3_8", "E_0_2_N_0_2"}
    assert set(source.read_of) == {"E000_N00", "E-004_N-04"}


def test_a_result_that_was_never_written_has_no_places() -> None:
    made: RunResult = result("landform", "model", make_landform())
    assert not list(places(ResultFile(made), []))


def test_example_images_stand_above_the_queries_made_of_them(tmp_path: Path) -> None:
    made = make_geolocalization(landforms=("cones", "..", "slides"), modes=("image",))
    path = write(result("geolocalization", "model", made), made, tmp_path / "results" / "model")
    data = tmp_path / "Made-geolocalization"
    tar_of(data / "tiles" / "tiles.tar", sorted(set(made.hits.id))[:40], caption=None)
    for number in range(7):
        example = data / "image_queries" / "cones" / f"{number}.png"
        example.parent.mkdir(parents=True, exist_ok=True)
        example.write_bytes(b"no image" if number == 2 else png_bytes(number))
    page = page_of([path], tmp_path / "report.html", images=[tmp_path])
    (examples,) = page.all("p", class_="examples")
    labels = [each.attributes["aria-label"] for each in examples.all("svg")]
    assert labels == [f"example image {number} of cones" for number in range(1, 6)]
