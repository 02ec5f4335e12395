"""Texts in a text file equal those written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marsretrieval.search.index import Texts, TextsWriter


@settings(deadline=None)
@given(st.lists(st.text(max_size=4)), st.data())
def test_texts_are_found_by_number_and_by_value(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    cut = data.draw(st.integers(0, len(texts)))
    with TextsWriter(path) as writer:
        writer.add(texts[:cut])
        writer.add(texts[cut:])
    column = Texts(path, writer.ends)
    numbers = data.draw(st.lists(st.integers(0, len(texts) - 1))) if texts else []
    assert column.take(np.array(numbers, dtype=np.int64)) == [texts[number] for number in numbers]
    for text in [*texts, "ab", "a"]:
        if text:
            assert column.find(text) == (texts.index(text) if text in texts else -1)
