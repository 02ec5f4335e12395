"""What is to be cut, and what was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from marsretrieval.datasets.ctx._inputs import Input, Problem
from marsretrieval.datasets.ctx._pack import QuadManifest


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, found out without reading or fetching a quad. Sizes are expectations."""

    todo: Sequence[Input]
    kept: Sequence[QuadManifest]
    tiles: int  # to be cut
    download_bytes: int
    scratch_bytes: int
    output_bytes: int
    free_bytes: int

    def to_dict(self) -> dict[str, Any]:
        quads = [
            {
                "quad": each.quad.name,
                "source": str(each.path) if each.path else each.quad.zip_name,
                "fetched": each.path is None,
            }
            for each in self.todo
        ]
        told = {name: getattr(self, name) for name in _PLAN_FIGURES}
        return {"quads": quads, "kept": [each.quad for each in self.kept], **told}


_PLAN_FIGURES = ("tiles", "download_bytes", "scratch_bytes", "output_bytes", "free_bytes")


@dataclass
class Report:
    """cut: quads cut now, also those with failed tiles. failed: quads and files without any tile.
    untried: quads not reached, because the server gave nothing or several in a row failed.
    otherwise: quads in the same folder that were cut by another spec."""

    cut: list[QuadManifest] = field(default_factory=list)
    kept: list[QuadManifest] = field(default_factory=list)
    failed: list[Problem] = field(default_factory=list)
    untried: list[str] = field(default_factory=list)
    otherwise: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failed_tiles(self) -> dict[str, str]:
        """Name to reason."""
        return {tile: why for each in self.cut for tile, why in each.failed.items()}

    @property
    def complete(self) -> bool:
        return not (self.failed or self.untried or self.failed_tiles)

    def to_dict(self) -> dict[str, Any]:
        held = [*self.cut, *self.kept]
        return {
            "complete": self.complete,
            "quads": {"cut": [q.quad for q in self.cut], "kept": [q.quad for q in self.kept]},
            "tiles": sum(each.tiles for each in held),
            "empty": sum(len(each.empty) for each in held),
            "dropped": sum(len(each.dropped) for each in held),
            "bytes": sum(each.tar_bytes for each in held),
            "failed": [asdict(each) for each in self.failed],
            "failed_tiles": self.failed_tiles,
            "untried": self.untried,
            "otherwise": self.otherwise,
            "seconds": round(self.seconds, 3),
        }
