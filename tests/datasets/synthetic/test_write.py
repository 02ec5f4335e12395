from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from marsretrieval.datasets.synthetic import describe_planet, write_planet, writer
from marsretrieval.errors import (
    DataError,
    MissingDependencyError,
    OutputError,
    UnknownNameError,
    UsageError,
)


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    tmp_path: Path, micro: str, whole_micro: Path
) -> None:
    """The demo writes a larger planet again: see tests/test_docs_commands.py."""
    for name, seed in (("again", 0), ("1", 1)):
        write_planet(tmp_path / name, seed=seed, size=micro)
    first, again = content(whole_micro), content(tmp_path / "again")
    assert first.keys() == again.keys()
    assert [name for name in first if first[name] != again[name]] == []
    other = content(tmp_path / "1")
    same = [name for name in first if first[name] == other.get(name)]
    assert [name for name in same if first[name].count(b"\n") > 1] == []  # more than a header


def test_existing_planet_is_not_changed(tmp_path: Path, micro: str) -> None:
    made = write_planet(tmp_path, size=micro)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    planet = write_planet(tmp_path, size=micro)
    assert (made.made, planet.made) == (True, False)
    assert made.to_dict() | {"made": False} == planet.to_dict()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_another_planet_is_replaced_only_with_force(planet: Path, micro: str) -> None:
    before = content(planet)
    with pytest.raises(OutputError, match="seed 0; asked for seed 1"):
        write_planet(planet, seed=1, size=micro)
    assert content(planet) == before
    assert write_planet(planet, seed=1, size=micro, force=True).seed == 1
    assert content(planet).keys() == before.keys()
    assert content(planet) != before


def test_planet_of_another_generator_version_is_not_reused(planet: Path, micro: str) -> None:
    record = json.loads((planet / "planet.json").read_text())
    (planet / "planet.json").write_text(json.dumps(record | {"version": 0}))
    with pytest.raises(OutputError, match="version 0; asked for version 1"):
        write_planet(planet, size=micro)
    assert write_planet(planet, size=micro, force=True).version == 1


def test_other_data_are_never_replaced(tmp_path: Path, micro: str) -> None:
    real = tmp_path / "Mars-Landforms" / "data" / "train.parquet"
    real.parent.mkdir(parents=True)
    real.write_bytes(b"real")
    for force in (False, True):
        with pytest.raises(OutputError, match="Mars-Landforms"):
            write_planet(tmp_path, size=micro, force=force)
    (tmp_path / "planet.json").write_text(json.dumps({"name": "Venus"}))
    with pytest.raises(OutputError, match="not the record"):
        write_planet(tmp_path, size=micro, force=True)
    assert content(tmp_path).keys() == {"Mars-Landforms/data/train.parquet", "planet.json"}


def test_planet_with_a_missing_file_is_incomplete(planet: Path, micro: str) -> None:
    (planet / "README.txt").unlink()
    with pytest.raises(DataError, match=r"README\.txt"):
        write_planet(planet, size=micro)
    write_planet(planet, size=micro, force=True)
    assert (planet / "README.txt").exists()


def test_interrupted_run_leaves_no_files(
    tmp_path: Path, planet: Path, micro: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(planet)

    def interrupt(*args: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer, "write_examples", interrupt)
        for folder in (tmp_path / "new", planet):
            with pytest.raises(KeyboardInterrupt):
                write_planet(folder, seed=5, size=micro, force=True)
    assert list((tmp_path / "new").iterdir()) == []
    assert content(planet) == before


def test_kill_while_moving_the_parts_is_repaired_by_the_next_run(
    tmp_path: Path, micro: str, whole_micro: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move, moved = Path.replace, []

    def killed(self: Path, target: Path) -> Path:
        if self.parent.name == writer._STAGING and len(moved) == 2:
            raise KeyboardInterrupt
        moved.append(self.name)
        return move(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda self, target: killed(self, target))
        moved.clear()
        with pytest.raises(KeyboardInterrupt):
            _move_only(tmp_path / "cut", micro, patch, moved)
    assert not (tmp_path / "cut" / "planet.json").exists()
    write_planet(tmp_path / "cut", size=micro)
    assert content(tmp_path / "cut") == content(whole_micro)


def _move_only(out: Path, size: str, patch: pytest.MonkeyPatch, moved: list[str]) -> None:
    """Write a planet, counting moves only from when its record is complete."""
    write_json = writer.write_json

    def write_and_reset(path: Path, value: Any) -> None:
        write_json(path, value)
        moved.clear()

    patch.setattr(writer, "write_json", write_and_reset)
    write_planet(out, size=size)


def test_invalid_requests_are_refused_before_writing(tmp_path: Path, micro: str) -> None:
    with pytest.raises(UnknownNameError, match="planet size"):
        write_planet(tmp_path / "p", size="huge")
    with pytest.raises(UsageError, match="negative"):
        write_planet(tmp_path / "p", seed=-1, size=micro)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_planet(tmp_path / "file", size=micro)
    assert not (tmp_path / "p").exists()


def test_missing_rasterio_names_the_install_command(
    tmp_path: Path, micro: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rasterio", None)
    with pytest.raises(MissingDependencyError, match="geotiff"):
        write_planet(tmp_path / "p", size=micro)
    assert not (tmp_path / "p").exists()


def test_plan_describes_the_planet(tmp_path: Path, micro: str) -> None:
    out = tmp_path / "p"
    plan = describe_planet(out, size=micro)
    assert plan["status"] == "new"
    assert not out.exists()
    made = write_planet(out, size=micro).to_dict()
    for key in ("pairs", "landform_images", "classes", "quads", "tiles", "seed", "version"):
        assert made[key] == plan[key]
    assert describe_planet(out, size=micro)["status"] == "done"
    assert describe_planet(out, size=micro, force=True)["status"] == "replace"


def test_the_progress_adds_up(tmp_path: Path, micro: str) -> None:
    counts: dict[str, list[int]] = {}

    class Bar:
        def __init__(self, label: str, total: int | None) -> None:
            self._tally = counts.setdefault(label, [total or 0, 0])

        def advance(self, count: int = 1) -> None:
            self._tally[1] += count

        def note(self, text: str) -> None:
            pass

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *error: object) -> None:
            pass

    class Bars:
        def start(self, label: str, total: int | None, unit: str = "items") -> Bar:
            return Bar(label, total)

    write_planet(tmp_path, size=micro, progress=Bars())
    assert counts == {"pairs": [4, 4], "landforms": [9, 9], "regions": [1, 1]}
