"""The floor plan of CONTRIBUTING.md, held by the imports themselves."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import marsretrieval

ROOT = Path(marsretrieval.__file__).parent

# From the top down: a room may import from rooms further down this list only.
FLOORS = [
    "cli",
    "report",
    "benchmark",
    "api",
    "tasks",
    "training",
    "encoders",
    "search",
    "embeddings",
    "datasets",
    "metrics",
    "plotting",
    "geo",
    "_environment",
    "_processes",
    "results",
    "files",
    "progress",
    "errors",
    "_words",
]
# Rooms on one floor that must not know of each other, or that look across on purpose.
FORBIDDEN = {("tasks", "training")}
# Rooms that know no others but these.
KNOWS = {
    "metrics": {"geo", "results", "errors"},
    "plotting": {"geo", "files", "errors", "_words"},
    "geo": {"files", "errors"},
}
# What begins with an underscore is for its own room, with these exceptions.
ALLOWED_PRIVATE = {
    ("training", "marsretrieval.encoders._torchvision"): "torch must be sound before it is used",
    ("training", "marsretrieval.cli._shared"): "the same progress bar",
}
ALLOWED_UP = {
    ("training", "cli"): "the command line of `python -m marsretrieval.training`",
    ("embeddings", "encoders"): "the Encoder protocol: a type, not a model",
}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "marsretrieval":
                found |= {f"marsretrieval.{alias.name}" for alias in node.names}
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("marsretrieval.")}


@pytest.mark.parametrize("here", FLOORS)
def test_rooms_import_only_downwards(here: str) -> None:
    for path in [ROOT / f"{here}.py", *(ROOT / here).rglob("*.py")]:
        for module in imports(path) if path.exists() else ():
            there = room_of(module)
            if there == here or there.startswith("__") or (here, there) in ALLOWED_UP:
                continue
            assert there in FLOORS, f"{path} imports {module}, which has no floor"
            assert FLOORS.index(there) > FLOORS.index(here), f"{path} imports upwards: {module}"
            assert (here, there) not in FORBIDDEN, f"{path} must know nothing of {there}"
            assert there in KNOWS.get(here, {there}), f"{path} must know nothing of {there}"
            private = "._" in module.removeprefix("marsretrieval")[1:]
            assert not private or (here, module) in ALLOWED_PRIVATE, f"{path} imports {module}"


def test_every_room_has_a_floor() -> None:
    rooms = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in ROOT.rglob("*.py")}
    assert {room for room in rooms if room[:2] != "__"} == {*FLOORS}


def test_no_file_is_longer_than_fits_in_a_head() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in ROOT.rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 600
    }
    assert not long
