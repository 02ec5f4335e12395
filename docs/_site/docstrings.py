"""Lists in docstrings: lines such as `ids: what they are` become bullets on the pages.

In the code two or more lines of a paragraph that begin with a name and a colon tell of arguments
or fields. Markdown would run them together.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_NAMED = re.compile(r"^(\w+(?:, \w+)*): (?=\S)")


class NamedLines(Extension):
    """For mkdocstrings; see `as_list`."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = as_list(obj.docstring.value)


def as_list(text: str) -> str:
    return "\n\n".join(_paragraph(each) for each in text.split("\n\n"))


def _paragraph(text: str) -> str:
    lines = text.split("\n")
    named = [bool(_NAMED.match(line)) for line in lines]
    if sum(named) < 2:
        return text
    first = named.index(True)
    items = [_NAMED.sub(r"- `\1`: ", line) for line in lines[first:]]
    before = [*lines[:first], ""] if first else []
    return "\n".join([*before, *items])
