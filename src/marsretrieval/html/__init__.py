"""Shared parts of the package's HTML pages: colours, base styles, theme switch and escaping."""

from __future__ import annotations

from marsretrieval.html.pages import (
    Script,
    data_uri,
    image_uri,
    join_scripts,
    load_environment,
    load_styles,
    page_colours,
)

__all__ = [
    "Script",
    "data_uri",
    "image_uri",
    "join_scripts",
    "load_environment",
    "load_styles",
    "page_colours",
]
