"""Maps as files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

__all__ = ["write_figure"]


def write_figure(figure: Any, target: Any, kind: str, paper: str, *, dpi: float = 72) -> None:
    """Write png, svg or pdf. The same figure makes the same bytes: no date, no random names."""
    from matplotlib import rc_context

    settings = {"svg.hashsalt": "marsretrieval", "svg.fonttype": "none"}
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with rc_context(settings), _without_halos(figure) if kind == "svg" else nullcontext():
        figure.savefig(target, format=kind, dpi=dpi, metadata=metadata, facecolor=paper)


@contextmanager
def _without_halos(figure: Any) -> Iterator[None]:
    """Text with path effects would become outlines; without them it stays text."""
    texts = [text for axes in figure.axes for text in axes.texts]
    effects = [text.get_path_effects() for text in texts]
    try:
        for text in texts:
            text.set_path_effects([])
        yield
    finally:
        for text, effect in zip(texts, effects, strict=True):
            text.set_path_effects(effect)
