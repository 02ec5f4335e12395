from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from marsretrieval.datasets import annotated_hash, content_hash, set_hash
from tests.datasets.download.servers import picture
from tests.datasets.layouts import write_tar
from tests.datasets.verify.sets import check, grey, named, pair, pairs


def test_a_sound_set(tmp_path: Path) -> None:
    items = [(f"k{n}", picture(n, (40 + n, 30)), f"caption {n}") for n in range(3)]
    inventory = check(pairs(tmp_path / "Mars-VL-Pairs", *items))
    assert inventory.dataset == "paired"
    assert inventory.problems == []
    assert (
        inventory.counts["images"] == inventory.counts["distinct"] == inventory.counts["pairs"] == 3
    )
    assert inventory.counts["width"] == {"min": 40, "mean": 41.0, "max": 42}
    assert inventory.counts["caption_length"] == {"min": 9, "mean": 9.0, "max": 9}
    assert inventory.set_hash == set_hash(
        (key, annotated_hash(content_hash(image), caption)) for key, image, caption in items
    )


def test_captions_missing_empty_and_double(tmp_path: Path) -> None:
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
    assert [example.rsplit(":")[-1] for example in problems["no-caption"].examples] == [
        "c.jpg",
        "f.jpg",
    ]


def test_identical_bytes_and_identical_pixels(tmp_path: Path) -> None:
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
    assert named(check(folder))["near-double-image"].examples == ("a, b (rows 460 and 907: known)",)
    (folder / "pairs.csv").write_text("row\nx\n")
    assert named(check(folder))["near-double-image"].examples == ("a, b",)


def test_damaged_images_and_tars(tmp_path: Path) -> None:
    complete = picture(1, (300, 200))
    folder = pairs(
        tmp_path / "Mars-VL-Pairs",
        ("a", complete[: len(complete) // 2], "cut"),
        ("b", b"<html>", "a page"),
        ("c", b"", "nothing"),
        ("d", picture(4), "fine"),
    )
    data = write_tar(tmp_path / "x.tar", pair("z", picture(9, (200, 200)), "z")).read_bytes()
    (folder / "00001.tar").write_bytes(data[:700])
    (folder / "00002.tar").write_bytes(b"")
    write_tar(folder / "00003.tar", [])
    inventory = check(folder)
    problems = named(inventory)
    assert inventory.counts["images"] == 1
    reasons = problems["unreadable-image"].examples
    assert problems["unreadable-image"].count == len(reasons) == 5
    assert "00000.tar:a.jpg: cannot be decoded" in reasons[0]
    assert reasons[1].endswith("00000.tar:b.jpg: not an image in a known format")
    assert reasons[2].endswith("00000.tar:c.jpg: empty file")
    assert "00001.tar: the tar cannot be read to its end" in reasons[3]
    assert reasons[4].endswith("00002.tar: an empty file, not a tar")
    assert problems["empty-shard"].count == 1


def test_double_keys_within_a_tar(tmp_path: Path) -> None:
    folder = pairs(
        tmp_path / "Mars-VL-Pairs",
        ("a", picture(1), "one"),
        ("b", picture(2), "two"),
        ("a", picture(3), "three"),
    )
    write_tar(folder / "00001.tar", pair("b", picture(4), "four"))
    problem = named(check(folder))["double-id"]
    assert (problem.count, problem.severity) == (1, "error")
    assert problem.examples[0].startswith("a: ")
    assert "unreadable-image" not in named(check(folder))


def test_two_images_of_one_key_are_a_double_id(tmp_path: Path) -> None:
    folder = pairs(tmp_path / "Mars-VL-Pairs", ("b", picture(2), "two"))
    write_tar(folder / "00001.tar", [*pair("a", picture(1), "one"), ("a.png", grey(3))])
    problems = named(check(folder))
    assert problems["double-id"].count == 1
    assert problems["double-id"].examples[0].startswith("a: ")
    assert "unreadable-image" not in problems


def test_annotations_and_positions_that_cannot_be_used(tmp_path: Path) -> None:
    folder = tmp_path / "Mars-VL-Pairs"
    write_tar(
        folder / "00000.tar",
        [
            ("a.jpg", picture(1)),
            ("a.json", b"{"),
            ("b.jpg", picture(2)),
            ("b.json", b'{"refined_caption": "dunes", "lon": 10, "lat": "north"}'),
        ],
    )
    problems = named(check(folder, "paired"))
    assert [problems[f"wrong-{kind}"].count for kind in ("annotation", "position")] == [1, 1]
    assert "00000.tar:a.jpg" in problems["wrong-annotation"].examples[0]
    assert "00000.tar:b.jpg" in problems["wrong-position"].examples[0]
    assert problems["wrong-annotation"].severity == problems["wrong-position"].severity == "error"


def test_groups_come_in_the_order_of_their_first_images(tmp_path: Path) -> None:
    """The group-by of Arrow returns groups in nearly, but not exactly, this order."""
    count = 300
    first = [(f"a{number}.png", grey(number)) for number in range(count)]
    again = [(f"b{number}.png", grey(number)) for number in reversed(range(count))]
    write_tar(tmp_path / "00000.tar", [*first, *again])
    problem = named(check(tmp_path, "paired"))["double-image"]
    assert problem.count == count
    assert problem.examples == tuple(f"a{number}, b{number}" for number in range(20))
