"""The folder of an inventory: locks, torn lines, full disks and kills."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from marsretrieval.embeddings import EmbeddingStore
from marsretrieval.errors import OutputError, UsageError
from marsretrieval.inventory import (
    Inventory,
    InventoryError,
    InventoryFiles,
    estimate_files,
    inventory_path,
)
from marsretrieval.text import pluralize


def test_marks_are_lines_that_survive_reopening(inventory: Inventory) -> None:
    inventory.mark({"tile-000003": "yes", "tile-000004": "no"})
    inventory.mark({"tile-000003": "unsure"})
    lines = (inventory.path / "marks.jsonl").read_text().splitlines()
    assert [json.loads(line)["mark"] for line in lines] == ["yes", "no", "unsure"]
    first = json.loads(lines[0])
    assert first["id"] == "tile-000003" and first["how"] == "direct"
    assert (first["lon"], first["lat"]) == pytest.approx((0.7, 0.1))
    again = InventoryFiles(inventory.path)
    assert again.marks == inventory.files.marks
    assert inventory.counts() == {"yes": 0, "no": 1, "unsure": 1}


def test_a_second_writer_is_refused_and_a_reader_is_not(inventory: Inventory) -> None:
    with pytest.raises(InventoryError, match="another process is writing"):
        InventoryFiles(inventory.path, write=True)
    reader = InventoryFiles(inventory.path)
    with pytest.raises(UsageError, match="reading only"):
        reader.append([])
    inventory.close()
    InventoryFiles(inventory.path, write=True).close()


def test_a_torn_last_line_is_reported_and_removed(inventory: Inventory) -> None:
    inventory.mark({"tile-000001": "yes"})
    log = inventory.path / "marks.jsonl"
    content = log.read_bytes()
    inventory.close()
    for length in range(1, len(content)):
        log.write_bytes(content + content[:length])
        reader = InventoryFiles(inventory.path)
        assert len(reader.marks) == 1
        assert reader.torn is not None and f"({pluralize(length, 'byte')})" in reader.torn
    assert log.read_bytes() != content  # a reader changes nothing
    writer = InventoryFiles(inventory.path, write=True)
    assert writer.torn is not None
    writer.append(writer.marks)
    writer.close()
    assert log.read_bytes() == content + content


def test_a_damaged_line_is_an_error_with_its_number(inventory: Inventory) -> None:
    inventory.mark({"tile-000001": "yes"})
    log = inventory.path / "marks.jsonl"
    content = log.read_bytes()
    for line, what in (
        (b"{\n", "line 1"),
        (b'{"id": "a", "mark": "maybe", "time": ""}\n', "'mark' is 'maybe'"),
        (b'{"id": "a"}\n', "missing field 'mark'"),
        (b"[]\n", "line 1"),
    ):
        log.write_bytes(line + content)
        with pytest.raises(InventoryError, match=what):
            InventoryFiles(inventory.path)


def test_on_a_full_disk_the_mark_is_reported_as_not_saved(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory.mark({"tile-000001": "yes"})
    log = inventory.path / "marks.jsonl"
    before = log.read_bytes()
    write = os.write

    def half(handle: int, data: bytes) -> int:
        write(handle, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        with pytest.raises(OutputError, match=r"1 mark NOT saved \(tile-000002\): No space left"):
            inventory.mark({"tile-000002": "yes"})
    assert log.read_bytes() == before
    assert inventory.counts()["yes"] == 1
    inventory.mark({"tile-000002": "yes"})
    assert len(log.read_bytes().splitlines()) == 2


_MARKER = """
import sys
from pathlib import Path
from marsretrieval.embeddings import open_store
from marsretrieval.inventory import Inventory, InventoryFiles
inventory = Inventory(InventoryFiles(Path(sys.argv[1]), write=True), open_store(Path(sys.argv[2])))
for number in range(600):
    inventory.mark({f"tile-{number:06d}": "yes" if number % 3 else "no"})
    print(number, flush=True)
"""


def test_a_kill_loses_at_most_the_mark_in_flight(
    inventory: Inventory, store: EmbeddingStore
) -> None:
    inventory.close()
    command = [sys.executable, "-c", _MARKER, str(inventory.path), str(store.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 40:
                process.send_signal(signal.SIGKILL)
                break
        last = max([40, *(int(line) for line in process.stdout)])
    with Inventory(InventoryFiles(inventory.path, write=True), store) as again:
        assert last + 1 <= len(again.marked) <= last + 2
        again.mark({"tile-000599": "yes"})


def test_an_estimate_needs_only_the_files(inventory: Inventory, tmp_path: Path) -> None:
    inventory.mark({"tile-000001": "yes", "tile-000002": "no"})
    expected = inventory.estimate()
    assert estimate_files(InventoryFiles(inventory.path)) == expected


def test_missing_marks_of_an_audit_are_noticed(inventory: Inventory) -> None:
    inventory.mark({"tile-000001": "yes", "tile-000002": "no"})
    inventory.start_audit(600)
    log = inventory.path / "marks.jsonl"
    log.write_text(log.read_text().splitlines()[0] + "\n")
    with pytest.raises(InventoryError, match=r"began after 2 marks, and marks\.jsonl has 1"):
        InventoryFiles(inventory.path)


def test_names_of_inventories() -> None:
    assert inventory_path("cones") == Path("cones.inventory")
    assert inventory_path("a/cones.inventory") == Path("a/cones.inventory")
    with pytest.raises(UsageError):
        inventory_path("")


def test_no_inventory_here(tmp_path: Path) -> None:
    with pytest.raises(InventoryError, match="no inventory here"):
        InventoryFiles(tmp_path / "none.inventory")


def test_an_inventory_is_not_made_twice(inventory: Inventory, store: EmbeddingStore) -> None:
    with pytest.raises(InventoryError, match="exists already"):
        Inventory.create(inventory.path, store, landform="x", query=inventory.query)


def test_another_schema_is_refused(inventory: Inventory) -> None:
    header = inventory.path / "inventory.json"
    header.write_text(header.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(InventoryError, match="schema 2; this version reads 1"):
        InventoryFiles(inventory.path)
