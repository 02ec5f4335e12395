"""Labels from data: no formulas of matplotlib, no control characters."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from marsretrieval.geo import Box
from marsretrieval.plotting import planet_map

pytest.importorskip("cartopy")

EVIL = r"$\x$ $\frac{ _^ \x1b[2J <&".replace("\\x1b", "\x1b")


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
def test_labels_are_drawn_literally(tmp_path: Path, suffix: str) -> None:
    chart = planet_map(Box(0, -10, 20, 10), title=EVIL, subtitle=EVIL)
    drawn = chart.points(np.array([5.0]), np.array([0.0]), np.array([0.5]), label=EVIL)
    chart.mark_text(5.0, 0.0, EVIL)
    chart.colour_bar(drawn, EVIL).legend()
    path = tmp_path / f"map.{suffix}"
    chart.save(path)
    assert path.stat().st_size > 1000
    if suffix == "svg":
        texts = "".join(ElementTree.parse(path).getroot().itertext())
        assert r"$\x$ $\frac{ _^ \x1b[2J <&" in texts
