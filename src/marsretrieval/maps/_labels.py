"""Labels that do not overlap: placed one after the other, each where there is still room."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Candidate", "Rect", "place"]


@dataclass(frozen=True, slots=True)
class Rect:
    """In pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: Rect) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )

    def within(self, other: Rect) -> bool:
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.bottom >= other.bottom
            and self.top <= other.top
        )

    @classmethod
    def around(cls, x: float, y: float, width: float, height: float) -> Rect:
        return cls(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What wants a place: where its label may stand, the best first, and its own mark, if any."""

    places: Sequence[Rect]
    mark: Rect | None = None


def place(wanted: Iterable[Candidate], frame: Rect, taken: Iterable[Rect] = ()) -> list[int | None]:
    """For each candidate the number of its place, None where there is no room for it.

    Greedy: the first comes first. A label stands within `frame` and touches no other label, no
    mark of another and nothing that is `taken`; a mark touches no label that was there before.
    """
    used = list(taken)
    labels: list[Rect] = []
    chosen: list[int | None] = []
    for each in wanted:
        mark = each.mark
        if mark is not None and any(mark.overlaps(other) for other in labels):
            chosen.append(None)
            continue
        number = next(
            (
                index
                for index, rect in enumerate(each.places)
                if rect.within(frame) and not any(rect.overlaps(other) for other in used)
            ),
            None,
        )
        chosen.append(number)
        if number is not None:
            used.append(each.places[number])
            labels.append(each.places[number])
            if mark is not None:
                used.append(mark)
    return chosen
