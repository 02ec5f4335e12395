"""What verification knows of each image, in columns: a planet of tiles must fit into memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["Item", "Items"]

T = TypeVar("T")

_CONTENT = 16  # bytes of a content hash


@dataclass(frozen=True, slots=True)
class Item:
    """What is known of one image after it was decoded; `likeness` is a difference hash."""

    id: str
    source: str
    content: bytes
    size: tuple[int, int]
    caption: str | None
    label: str | None
    position: tuple[float, float] | None
    width_deg: float | None
    height_deg: float | None
    likeness: npt.NDArray[np.uint64] | None


class Items:
    """Items in order, made anew whenever they are gone through: as objects each would take more
    than half a kilobyte, in columns it is a tenth of that."""

    def __init__(self) -> None:
        self._parts: list[_Part] = []

    @classmethod
    def of(cls, items: Sequence[Item]) -> Self:
        """The items of one shard."""
        made = cls()
        if items:
            made._parts.append(_Part.of(items))
        return made

    def extend(self, others: Items, *, prefix: str = "") -> None:
        """Add all of `others`, with `prefix` before their ids."""
        parts = others._parts
        self._parts += [replace(part, prefix=prefix) for part in parts] if prefix else parts

    def sizes(self) -> npt.NDArray[np.uint32]:
        """(n, 2): width and height."""
        none = np.zeros((0, 2), dtype=np.uint32)
        return np.concatenate([none, *(part.sizes for part in self._parts)])

    def __len__(self) -> int:
        return sum(len(part.sizes) for part in self._parts)

    def __iter__(self) -> Iterator[Item]:
        for part in self._parts:
            yield from part


@dataclass(frozen=True, slots=True)
class _Texts:
    """Strings one behind the other, less what all begin with."""

    start: str
    rest: str
    ends: npt.NDArray[np.uint32]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Self:
        start = os.path.commonprefix(texts)  # noqa: RUF071 - by characters, as is wanted here
        rests = [text[len(start) :] for text in texts]
        return cls(start, "".join(rests), np.cumsum([len(rest) for rest in rests], dtype=np.uint32))

    def __iter__(self) -> Iterator[str]:
        first = 0
        for end in self.ends.tolist():
            yield self.start + self.rest[first:end]
            first = end


@dataclass(frozen=True, slots=True)
class _Part:
    """The items of one shard. Columns that hold nothing are None; of numbers, NaN is None."""

    ids: _Texts
    sources: _Texts
    contents: bytes
    sizes: npt.NDArray[np.uint32]  # (n, 2)
    places: npt.NDArray[np.float64]  # (n, 4): lon, lat, width, height
    captions: list[str | None] | None
    labels: list[str | None] | None
    likenesses: list[npt.NDArray[np.uint64] | None] | None
    prefix: str = ""

    @classmethod
    def of(cls, items: Sequence[Item]) -> Self:
        return cls(
            ids=_Texts.of([item.id for item in items]),
            sources=_Texts.of([item.source for item in items]),
            contents=b"".join(item.content for item in items),
            sizes=np.array([item.size for item in items], dtype=np.uint32),
            places=np.array([_numbers(item) for item in items]),
            captions=_unless_all_none([item.caption for item in items]),
            labels=_unless_all_none([item.label for item in items]),
            likenesses=_unless_all_none([item.likeness for item in items]),
        )

    def __iter__(self) -> Iterator[Item]:
        sizes, places = self.sizes.tolist(), self.places.tolist()
        for number, (key, source) in enumerate(zip(self.ids, self.sources, strict=True)):
            lon, lat, width, height = (None if each != each else each for each in places[number])
            yield Item(
                id=self.prefix + key,
                source=source,
                content=self.contents[number * _CONTENT : (number + 1) * _CONTENT],
                size=(sizes[number][0], sizes[number][1]),
                caption=self.captions[number] if self.captions else None,
                label=self.labels[number] if self.labels else None,
                position=None if lon is None or lat is None else (lon, lat),
                width_deg=width,
                height_deg=height,
                likeness=self.likenesses[number] if self.likenesses else None,
            )


def _numbers(item: Item) -> list[float]:
    told = (*(item.position or (None, None)), item.width_deg, item.height_deg)
    return [np.nan if each is None else each for each in told]


def _unless_all_none(values: list[T | None]) -> list[T | None] | None:
    return None if all(value is None for value in values) else values
