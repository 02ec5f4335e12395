"""Pictures with captions: of many shapes, grey and tinted, as they are found on the web."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from marsretrieval.datasets.synthetic._captions import describe
from marsretrieval.datasets.synthetic._ground import Rng
from marsretrieval.datasets.synthetic._registry import LANDFORMS
from marsretrieval.datasets.synthetic._scene import picture

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
