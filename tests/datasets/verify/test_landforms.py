from __future__ import annotations

from pathlib import Path

from marsretrieval.datasets import annotated_hash, content_hash, set_hash
from tests.datasets.download.servers import picture
from tests.datasets.verify.sets import check, landforms, named
from tests.shared import shared_file


def test_a_sound_set(tmp_path: Path) -> None:
    rows = [{"id": f"i{n}", "image": picture(n), "label": "ab"[n % 2]} for n in range(4)]
    inventory = check(landforms(tmp_path / "Mars-Landforms", rows))
    assert inventory.problems == []
    assert inventory.counts["classes"] == {"a": 2, "b": 2}
    assert inventory.set_hash == set_hash(
        (row["id"], annotated_hash(content_hash(row["image"]), row["label"])) for row in rows
    )


def test_labels_missing_and_contradicting(tmp_path: Path) -> None:
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


def test_damaged_file_does_not_hide_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "Mars-Landforms"
    for number in (0, 2):
        rows = [{"id": None, "image": picture(number + n), "label": "a"} for n in range(2)]
        landforms(folder, rows, f"train-{number}.parquet")
    (folder / "data/train-1.parquet").write_bytes(b"PAR1 cut off")
    inventory = check(folder)
    problems = named(inventory)
    assert inventory.counts["images"] == 4
    assert problems["unreadable-file"].count == 1
    assert "double-id" not in problems, "row numbers of two files are no doubles"
    assert (
        "train-1.parquet: not a readable Parquet file" in (problems["unreadable-file"].examples[0])
    )


def test_real_patches() -> None:
    inventory = check(shared_file("marsdata/patches"), workers=2)
    assert inventory.dataset == "landform"
    assert inventory.counts["images"] == 251
    assert len(inventory.counts["classes"]) == 9
    assert {problem.severity for problem in inventory.problems} <= {"note"}
