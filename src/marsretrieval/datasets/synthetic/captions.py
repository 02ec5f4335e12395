"""Captions from what was drawn: a terse one, and a natural sentence."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from marsretrieval.datasets.synthetic.ground import Rng
from marsretrieval.datasets.synthetic.planet import Attributes, picture
from marsretrieval.datasets.synthetic.registry import LANDFORMS

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


_ASPECTS = (1.0, 1.0, 1.0, 1.0, 4 / 3, 3 / 2, 16 / 9, 3 / 4, 2 / 3)
# Colours of the darkest and the brightest grey: rust, ochre, butterscotch, false blue.
_TINTS = (
    ((28, 10, 6), (246, 178, 130)),
    ((30, 16, 8), (240, 196, 148)),
    ((40, 20, 10), (255, 214, 160)),
    ((8, 12, 28), (196, 214, 240)),
)
_COLOUR = 0.2


def sample_pair(rng: Rng) -> tuple[npt.NDArray[np.uint8], str, str]:
    """(picture, terse caption, refined caption) of a landform drawn at random.

    The picture is uint8, (rows, columns) in grey or (rows, columns, 3) in colour.
    """
    names = tuple(LANDFORMS)
    landform = LANDFORMS[names[rng.integers(len(names))]]
    short = int(rng.integers(64, 129))
    aspect = _ASPECTS[rng.integers(len(_ASPECTS))]
    long = round(short * max(aspect, 1 / aspect))
    shape = (short, long) if aspect >= 1 else (long, short)
    grey, seen = picture(landform, rng, shape)
    terse, refined = describe(seen, rng)
    if rng.random() >= _COLOUR:
        return grey, terse, refined
    dark, bright = (np.array(colour) for colour in _TINTS[rng.integers(len(_TINTS))])
    ramp = dark + (bright - dark) * np.linspace(0, 1, 256)[:, None]
    return np.rint(ramp).astype(np.uint8)[grey], terse, refined
