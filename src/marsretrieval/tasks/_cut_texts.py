"""Texts that a model does not read to their end."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from textwrap import shorten
from typing import TYPE_CHECKING

from marsretrieval.errors import TruncatedTextWarning

if TYPE_CHECKING:
    from marsretrieval.encoders import Encoder, TextRole


def count_cut(encoder: Encoder, texts: Sequence[str], *, role: TextRole) -> dict[str, int]:
    """Count the texts that are cut at the context length, and warn of cut queries.

    Args:
        encoder: The model that embeds the texts.
        texts: Captions, or the prompts of queries.
        role: What the texts are.

    Returns:
        `captions` or `queries`, their number, and `cut`, how many of them; nothing where the
        encoder does not count them.
    """
    cut = encoder.count_truncated(texts, role=role)
    if cut is None:
        return {}
    if role == "query" and cut:
        context = getattr(encoder, "context_length", None)
        limit = "" if context is None else f" of {context} tokens"
        first = next(text for text in texts if encoder.count_truncated([text], role=role))
        warnings.warn(
            f"{encoder.id}: {cut} of {len(texts)} prompts are cut at the context length{limit} "
            f"(first: '{shorten(first, 72, placeholder=' ...')}')",
            TruncatedTextWarning,
            stacklevel=3,
        )
    return {"captions" if role == "caption" else "queries": len(texts), "cut": cut}
