"""Captions from what was drawn: a terse one, and a natural sentence."""

from __future__ import annotations

from marsretrieval.datasets.synthetic._ground import Rng
from marsretrieval.datasets.synthetic._registry import LANDFORMS
from marsretrieval.datasets.synthetic._scene import Attributes

_NUMBERS = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
    "twenty", "more than twenty",
)  # fmt: skip
_COMPASS = (
    "north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest",
)  # fmt: skip
_AXES = ("north-south", "northeast-southwest", "east-west", "northwest-southeast")
_NEAR_THE_MIDDLE = 0.1  # tiles
_ODD_TONE = 0.1


def describe(seen: Attributes, rng: Rng) -> tuple[str, str]:
    """(terse, refined) captions of a picture; the same picture can be put in many ways."""
    landform = LANDFORMS[seen.landform]
    number = _NUMBERS[min(seen.count, len(_NUMBERS) - 1)] if seen.count else "several"
    subject = landform.one if seen.count == 1 else landform.many.format(n=number)
    facts = [each for each in (_heading(seen), _extent(seen), _position(seen)) if each]
    return _terse(seen, subject, facts, rng), _refined(seen, subject, facts, landform.signs, rng)


def _terse(seen: Attributes, subject: str, facts: list[str], rng: Rng) -> str:
    kept = [each for each in (seen.detail, *facts) if rng.random() < 0.75]
    joint = " on " if rng.random() < 0.5 else ", "
    return joint.join([subject, ", ".join([_toned(seen), *kept])])


def _refined(
    seen: Attributes, subject: str, facts: list[str], signs: tuple[str, ...], rng: Rng
) -> str:
    comma = "" if seen.detail.startswith("with") else ","
    told = f"{subject}{comma} {seen.detail}, on {_toned(seen)}, {', '.join(facts)}"
    sign = str(rng.choice(signs))
    if rng.random() < 0.5:
        opening = rng.choice(["An orbital image of", "Seen from orbit:", "The picture shows"])
        return f"{opening} {told}. {_capital(sign)}."
    return f"{_capital(told)}; {sign}."


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _toned(seen: Attributes) -> str:
    if abs(seen.tone) < _ODD_TONE:
        return seen.setting
    return f"{'bright' if seen.tone > 0 else 'dark'} {seen.setting}"


def _position(seen: Attributes) -> str:
    if seen.place is None:
        return ""
    east, south = seen.place
    row = "" if abs(south) < _NEAR_THE_MIDDLE else "lower" if south > 0 else "upper"
    column = "" if abs(east) < _NEAR_THE_MIDDLE else "right" if east > 0 else "left"
    if row and column:
        return f"in the {row} {column}"
    if row or column:
        return f"in the {row or column} part"
    return "in the middle"


def _heading(seen: Attributes) -> str:
    if seen.bearing is None:
        return ""
    octant = round(seen.bearing / 45)
    if seen.flows:
        return f"pointing {_COMPASS[octant % 8]}"
    return f"trending {_AXES[octant % 4]}"


def _extent(seen: Attributes) -> str:
    if seen.size_km is None:
        return "all across the scene"
    return f"about {seen.size_km:.1f} km across"
