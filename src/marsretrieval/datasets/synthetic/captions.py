"""Captions of generated images: a terse one and a natural sentence."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from marsretrieval.datasets.synthetic.ground import Rng
from marsretrieval.datasets.synthetic.registry import LANDFORMS
from marsretrieval.datasets.synthetic.scene import Attributes, draw_image

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
_ASPECTS = (1.0, 1.0, 1.0, 1.0, 4 / 3, 3 / 2, 16 / 9, 3 / 4, 2 / 3)
# Colours of the darkest and the brightest grey: rust, ochre, butterscotch, false blue.
_TINTS = (
    ((28, 10, 6), (246, 178, 130)),
    ((30, 16, 8), (240, 196, 148)),
    ((40, 20, 10), (255, 214, 160)),
    ((8, 12, 28), (196, 214, 240)),
)
_COLOUR = 0.2


def describe(attributes: Attributes, rng: Rng) -> tuple[str, str]:
    """Write captions for an image.

    Args:
        attributes: What the image shows.
        rng: Random generator; the wording varies.

    Returns:
        Terse and refined caption.
    """
    landform = LANDFORMS[attributes.landform]
    number = _NUMBERS[min(attributes.count, len(_NUMBERS) - 1)] if attributes.count else "several"
    subject = landform.one if attributes.count == 1 else landform.many.format(n=number)
    phrases = [
        phrase
        for phrase in (
            _describe_bearing(attributes),
            _describe_extent(attributes),
            _describe_position(attributes),
        )
        if phrase
    ]
    return _terse_caption(attributes, subject, phrases, rng), _refined_caption(
        attributes, subject, phrases, landform.signs, rng
    )


def _terse_caption(attributes: Attributes, subject: str, phrases: list[str], rng: Rng) -> str:
    chosen = [phrase for phrase in (attributes.detail, *phrases) if rng.random() < 0.75]
    joint = " on " if rng.random() < 0.5 else ", "
    return joint.join([subject, ", ".join([_describe_ground(attributes), *chosen])])


def _refined_caption(
    attributes: Attributes, subject: str, phrases: list[str], signs: tuple[str, ...], rng: Rng
) -> str:
    comma = "" if attributes.detail.startswith("with") else ","
    ground = _describe_ground(attributes)
    description = f"{subject}{comma} {attributes.detail}, on {ground}, {', '.join(phrases)}"
    sign = str(rng.choice(signs))
    if rng.random() < 0.5:
        opening = rng.choice(["An orbital image of", "Seen from orbit:", "The picture shows"])
        return f"{opening} {description}. {_capital(sign)}."
    return f"{_capital(description)}; {sign}."


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _describe_ground(attributes: Attributes) -> str:
    if abs(attributes.tone) < _ODD_TONE:
        return attributes.setting
    return f"{'bright' if attributes.tone > 0 else 'dark'} {attributes.setting}"


def _describe_position(attributes: Attributes) -> str:
    if attributes.offset is None:
        return ""
    east, south = attributes.offset
    row = "" if abs(south) < _NEAR_THE_MIDDLE else "lower" if south > 0 else "upper"
    column = "" if abs(east) < _NEAR_THE_MIDDLE else "right" if east > 0 else "left"
    if row and column:
        return f"in the {row} {column}"
    if row or column:
        return f"in the {row or column} part"
    return "in the middle"


def _describe_bearing(attributes: Attributes) -> str:
    if attributes.bearing is None:
        return ""
    octant = round(attributes.bearing / 45)
    if attributes.flows:
        return f"pointing {_COMPASS[octant % 8]}"
    return f"trending {_AXES[octant % 4]}"


def _describe_extent(attributes: Attributes) -> str:
    if attributes.size_km is None:
        return "all across the scene"
    return f"about {attributes.size_km:.1f} km across"


def sample_pair(rng: Rng) -> tuple[npt.NDArray[np.uint8], str, str]:
    """Draw an image of a random landform, with captions.

    Args:
        rng: Random generator.

    Returns:
        Image as a uint8 array of shape (rows, columns) in grey or (rows, columns, 3) in colour,
        terse caption, refined caption.
    """
    names = tuple(LANDFORMS)
    landform = LANDFORMS[names[rng.integers(len(names))]]
    short = int(rng.integers(64, 129))
    aspect = _ASPECTS[rng.integers(len(_ASPECTS))]
    long = round(short * max(aspect, 1 / aspect))
    shape = (short, long) if aspect >= 1 else (long, short)
    grey, attributes = draw_image(landform, rng, shape)
    terse, refined = describe(attributes, rng)
    if rng.random() >= _COLOUR:
        return grey, terse, refined
    dark, bright = (np.array(colour) for colour in _TINTS[rng.integers(len(_TINTS))])
    ramp = dark + (bright - dark) * np.linspace(0, 1, 256)[:, None]
    return np.rint(ramp).astype(np.uint8)[grey], terse, refined
