"""Two small quads, cut in one go; what came of it."""

from __future__ import annotations

from pathlib import Path

from marsretrieval.datasets.ctx import (
    JobSettings,
    Quad,
    TileSpec,
    cut_quads,
    find_files,
)

__all__ = ["OTHER", "QUAD", "SPEC", "contents", "run"]

QUAD, OTHER = Quad(-4, -4), Quad(-4, 0)
SPEC = TileSpec(size=32)


def run(folder: Path, out: Path, spec: TileSpec = SPEC, *, force: bool = False):
    inputs, problems = find_files([folder])
    return cut_quads(inputs, spec, out, problems=problems, settings=JobSettings(force=force))


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}
