"""Facts about a search beside its hits: cut texts, and whether the best score stands out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from marsretrieval.errors import TruncatedTextWarning
from marsretrieval.search.background import MIN_Z, Background

if TYPE_CHECKING:
    from marsretrieval.api._question import Question
    from marsretrieval.encoders import Encoder

_FEWEST_TILES = 30  # below, no distribution


def cut_texts(question: Question, encoder: Encoder, context: int | None) -> list[str]:
    """Find the texts of a question that the model does not read to their end, and warn.

    Args:
        question: A search that has texts.
        encoder: The model that embeds them.
        context: Its context length in tokens, where known.

    Returns:
        The texts, wanted or not, of which at least one prompt is cut.
    """
    cut = [text for text, prompts in question.prompts() if encoder.count_truncated(prompts)]
    limit = "its context length" if context is None else f"its context length of {context} tokens"
    for text in cut:
        warnings.warn(
            f"{encoder.id} reads a text up to {limit} only, so the end of this one has no "
            f"effect: '{shorten(text, 72, placeholder=' ...')}'",
            TruncatedTextWarning,
            stacklevel=5,
        )
    return cut


def standing(
    background: Background, best: float | None, meaningless: Sequence[Background] | None
) -> dict[str, Any]:
    """Summarize how far the best score of a search stands out from the store.

    Args:
        background: Scores of the query over the store.
        best: Score of the best hit; None without hits.
        meaningless: For a query of text alone, the same of each of `MEANINGLESS`; otherwise None.

    Returns:
        A JSON object. `stands_out` is None without hits and for stores of fewer than 30 tiles.
    """
    known = best is not None and background.rows >= _FEWEST_TILES
    compared = max(other.best() for other in meaningless) if known and meaningless else None
    best_z = None if best is None else float(background.z([best])[0])
    if not known or best is None or best_z is None:
        stands_out = None
    elif compared is not None:
        stands_out = best > compared
    else:
        stands_out = best_z >= MIN_Z
    sampled = len(background.scores)
    return {
        "tiles": background.rows,
        "sampled": sampled,
        "mean": round(background.mean, 7) if sampled else None,
        "std": round(background.std, 7) if sampled else None,
        "best_z": None if best_z is None else round(best_z, 3),
        "meaningless_best": None if compared is None else round(compared, 7),
        "stands_out": stands_out,
    }
