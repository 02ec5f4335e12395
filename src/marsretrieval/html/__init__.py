"""Jinja environment, styles and scripts that all HTML pages of the package share."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from marsretrieval.text import printable

if TYPE_CHECKING:
    import jinja2
    from PIL.Image import Image

__all__ = [
    "Script",
    "data_uri",
    "image_uri",
    "join_scripts",
    "load_environment",
    "load_styles",
    "page_colours",
]

_PACKAGE = "marsretrieval.html"


@dataclass(frozen=True, slots=True)
class Script:
    """An inline script and its hash for the content security policy.

    Attributes:
        source: JavaScript.
        hash: Source expression for `script-src`, such as `sha256-...`.
    """

    source: str
    hash: str


def load_environment(
    package: str, filters: Mapping[str, Callable[..., Any]] | None = None
) -> jinja2.Environment:
    """Load the templates of a package, with autoescape, and the shared templates.

    Args:
        package: Dotted name of a package with a folder `templates`.
        filters: Filters of the templates.

    Returns:
        An environment that escapes markup and control characters in every value.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.PackageLoader(_PACKAGE)]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_escape_controls,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= dict(filters or {})
    return environment


def load_styles(environment: jinja2.Environment, *names: str) -> str:
    """Join the shared colours and base style with style sheets of a package.

    Args:
        environment: Environment from `load_environment`.
        *names: Style sheets of the package.

    Returns:
        CSS.
    """
    return page_colours() + "".join(
        environment.get_template(name).render() for name in ("base.css", *names)
    )


@cache
def page_colours() -> str:
    """Return the colours of both themes as CSS variables."""
    return load_environment(_PACKAGE).get_template("colours.css.j2").render()


def join_scripts(package: str, *names: str) -> Script:
    """Join the shared theme switch with scripts of a package.

    Args:
        package: Dotted name of a package with a folder `templates`.
        *names: Scripts of the package.

    Returns:
        One script, for a single element.
    """
    shared = resources.files(_PACKAGE).joinpath("templates/theme.js").read_text("utf-8")
    folder = resources.files(package).joinpath("templates")
    source = shared + "".join(folder.joinpath(name).read_text("utf-8") for name in names)
    digest = hashlib.sha256(source.encode()).digest()
    return Script(source, f"sha256-{base64.b64encode(digest).decode()}")


def data_uri(data: bytes, media_type: str) -> str:
    """Encode a file as a data URI.

    Args:
        data: Content of the file.
        media_type: Media type, such as `image/webp`.

    Returns:
        The URI.
    """
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def image_uri(image: Image, *, quality: int = 72) -> str:
    """Encode an image as a data URI of a WebP file.

    Args:
        image: The image.
        quality: WebP quality, 0 to 100.

    Returns:
        The URI.
    """
    buffer = io.BytesIO()
    image.save(buffer, "webp", quality=quality, method=4)
    return data_uri(buffer.getvalue(), "image/webp")


def _escape_controls(value: Any) -> Any:
    """Escape control characters, which HTML and SVG forbid."""
    if not isinstance(value, str):
        return value
    return type(value)(printable(value))
