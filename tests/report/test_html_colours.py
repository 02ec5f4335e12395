"""Colours: legible in both themes and distinguishable with colour blindness."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from marsretrieval.html import page_colours
from marsretrieval.plotting import LIGHT
from marsretrieval.report.grouping import HUES
from marsretrieval.report.html.charts import ALARM, HIT

# Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB.
_SIGHT = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
         [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
         [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
         [0.004733, 0.691367, 0.303900]]
    ),
}  # fmt: skip
# Ottosson 2020: Oklab.
_TO_LMS = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
     [0.0883024619, 0.2817188376, 0.6299787005]]
)  # fmt: skip
_TO_LAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
     [0.0259040371, 0.7827717662, -0.8086757660]]
)  # fmt: skip
THEMES = ("light", "dark")


def colours(theme: str) -> dict[str, np.ndarray]:
    """Map the colour names of a theme of the page to linear RGB."""
    style = page_colours()
    blocks = {
        re.search(r"color-scheme: (\w+)", block)[1]: block  # type: ignore[index]
        for block in style.split("{")
        if "color-scheme" in block
    }
    colour_by_name = {}
    for name, value in re.findall(r"--(\w+): #(\w{6})", blocks[theme]):
        channels = np.array([int(value[start : start + 2], 16) for start in (0, 2, 4)]) / 255
        colour_by_name[name] = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
    return colour_by_name


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    """Compute the WCAG 2 contrast, from 1 to 21."""
    weights = np.array([0.2126, 0.7152, 0.0722])
    low, high = sorted(float(weights @ item) + 0.05 for item in (one, other))
    return high / low


def perceived(colour: np.ndarray, sight: str) -> np.ndarray:
    return _TO_LAB @ np.cbrt(np.clip(_TO_LMS @ np.clip(_SIGHT[sight] @ colour, 0, 1), 0, None))


def test_both_themes_name_the_same_colours() -> None:
    assert colours("light").keys() == colours("dark").keys()


@pytest.mark.parametrize("theme", THEMES)
def test_text_is_legible(theme: str) -> None:
    of = colours(theme)
    for ground in ("page", "surface", "tint", "well"):
        for text in ("ink", "muted", "link", "accent", "righttext", "wrongtext"):
            assert contrast(of[text], of[ground]) >= 4.5, (text, ground)
    strongest = _mixed(of["heat"], of["surface"], 0.62)
    assert contrast(of["ink"], strongest) >= 4.5


def _mixed(one: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """Mix encoded values like color-mix in srgb."""

    def encoded(colour: np.ndarray) -> np.ndarray:
        return np.where(colour <= 0.0031308, 12.92 * colour, 1.055 * colour ** (1 / 2.4) - 0.055)

    mixed = share * encoded(one) + (1 - share) * encoded(other)
    return np.where(mixed <= 0.04045, mixed / 12.92, ((mixed + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("theme", THEMES)
def test_lines_and_marks_stand_out(theme: str) -> None:
    of = colours(theme)
    for hue in range(HUES + 1):
        assert contrast(of[f"c{hue}"], of["surface"]) >= 2.99, hue
    for mark in (HIT, ALARM, LIGHT.ink):
        on_map, ground = (_on_map(colour, theme) for colour in (mark, LIGHT.ground))
        assert contrast(on_map, ground) >= 2.99, mark


def _on_map(colour: str, theme: str) -> np.ndarray:
    """Return the linear RGB of a map colour after the filter of the theme."""
    encoded = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    if theme == "dark":  # invert(1) hue-rotate(180deg) of Filter Effects 1
        luma = np.array([0.213, 0.715, 0.072])
        encoded = np.clip(2 * luma @ (1 - encoded) - (1 - encoded), 0, 1)
    linear: np.ndarray = np.where(
        encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4
    )
    return linear


@pytest.mark.parametrize("sight", _SIGHT)
@pytest.mark.parametrize("theme", THEMES)
def test_colours_are_distinguishable_with_colour_blindness(theme: str, sight: str) -> None:
    of = colours(theme)
    hues = [perceived(of[f"c{hue}"], sight) for hue in range(1, HUES + 1)]
    nearest = min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(hues, 2))
    assert nearest >= (0.09 if sight == "tritanopia" else 0.13)
    assert np.linalg.norm(perceived(of["right"], sight) - perceived(of["wrong"], sight)) >= 0.2
