"""Parsed HTML page: its elements, texts and links."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from marsretrieval.report.html import write_html
from marsretrieval.report.result_files import ResultFile

__all__ = ["Element", "Page", "page_of"]

_VOID = {"meta", "br", "img", "link", "input", "hr"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    parent: Element | None = None
    children: list[Element] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Return all text inside, in some order, with normalized white space."""
        inside = [*self.texts, *(child.text for child in self.children)]
        return " ".join(" ".join(inside).split())

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """Return the elements inside with this tag and at least these words in the attributes
        (class_)."""
        expected = {name.rstrip("_"): set(value.split()) for name, value in attributes.items()}
        elements = [
            child
            for child in self.children
            if child.tag == tag
            and all(
                words <= set(child.attributes.get(name, "").split())
                for name, words in expected.items()
            )
        ]
        for child in self.children:
            elements += child.all(tag, **attributes)
        return elements

    def one(self, tag: str, **attributes: str) -> Element:
        (element,) = self.all(tag, **attributes)
        return element

    def by_id(self, name: str) -> Element | None:
        if self.attributes.get("id") == name:
            return self
        return next(filter(None, (child.by_id(name) for child in self.children)), None)

    def rows(self) -> list[list[str]]:
        """Return the cells of a table's body by row."""
        return [
            [cell.text for cell in row.children]
            for body in self.all("tbody")
            for row in body.all("tr")
        ]


class Page(HTMLParser):
    """Strict parser: every opened element must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.root = self._open = Element("", {})
        self.feed(text)
        self.close()
        assert self._open is self.root, f"<{self._open.tag}> is never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"<{tag}> has an attribute twice: {names}"
        made = Element(tag, {name: value or "" for name, value in attrs}, self._open)
        self._open.children.append(made)
        if tag not in _VOID:
            self._open = made

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.tag == tag, f"</{tag}> closes <{self._open.tag}>"
        assert self._open.parent is not None
        self._open = self._open.parent

    def handle_data(self, data: str) -> None:
        self._open.texts.append(data)

    def all(self, tag: str, **attributes: str) -> list[Element]:
        return self.root.all(tag, **attributes)

    def section(self, name: str) -> Element:
        element = self.root.by_id(name)
        assert element is not None, f"nothing has the id {name}"
        return element

    @property
    def elements(self) -> list[Element]:
        def below(element: Element) -> list[Element]:
            return [element, *(item for child in element.children for item in below(child))]

        return below(self.root)[1:]


def page_of(results: Sequence[Path | ResultFile], out: Path, **options: Any) -> Page:
    """Write and parse the page of these results."""
    files = [
        result if isinstance(result, ResultFile) else ResultFile.read(result) for result in results
    ]
    write_html(files, out, **options)
    return Page(out.read_text(encoding="utf-8"))
