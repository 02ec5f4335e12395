"""Truncated texts are counted and named."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import pytest

from marsretrieval.errors import TruncatedTextWarning
from marsretrieval.tasks.base import count_cut
from tests.fakes import FakeEncoder


class ShortEncoder(FakeEncoder):
    """Encoder with a context length of three words."""

    context_length = 3

    def count_truncated(self, texts: Sequence[str], *, role: str = "query") -> int | None:
        return sum(len(text.split()) > self.context_length for text in texts)


def test_truncated_queries_are_counted_with_a_warning() -> None:
    with pytest.warns(TruncatedTextWarning, match="1 of 2 prompts .* of 3 tokens .*'a b c d'"):
        assert count_cut(ShortEncoder(), ["dunes", "a b c d"], role="query") == {
            "queries": 2,
            "cut": 1,
        }


def test_truncated_captions_are_counted_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cut = count_cut(ShortEncoder(), ["a b c d"], role="caption")
    assert cut == {"captions": 1, "cut": 1}
    assert count_cut(FakeEncoder(), ["a b c d"], role="query") == {}
