"""What is said to a model when someone names a landform: the three published templates."""

from __future__ import annotations

TEMPLATES = (
    "a photo of {}, a type of martian terrain",
    "a satellite photo of {}.",
    "a high-resolution remote sensing image of {} on Mars.",
)


def landform_prompts(name: str) -> list[str]:
    """Prompts of landform retrieval; underscores and hyphens of the class name become spaces."""
    return [template.format(name.replace("_", " ").replace("-", " ")) for template in TEMPLATES]


def geolocalization_prompts(name: str) -> list[str]:
    """Prompts of geo-localization; underscores become spaces, hyphens stay."""
    return [template.format(name.replace("_", " ")) for template in TEMPLATES]
