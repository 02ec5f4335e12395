"""A matplotlib figure as SVG that lives in a page: colours by CSS, ids of its own, few bytes."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that stand for a CSS variable until the SVG is written: no other colour is used.
INK, MUTED, RULE = "#010101", "#010102", "#010103"
MAP_TEXT = "#010104"
COLOURS = tuple(f"#0101{hue:02x}" for hue in range(0x10, 0x17))  # 0: without a colour of its own
_VARIABLES = {
    INK: "--ink", MUTED: "--muted", RULE: "--rule",
    MAP_TEXT: "--maptext",
    **{colour: f"--c{hue}" for hue, colour in enumerate(COLOURS)},
}  # fmt: skip
# What stands in every chart many times, as a class of the page's style sheet.
_CLASSES = {
    "fill: none; stroke: var(--rule); stroke-width: 0.5; stroke-linecap: square": "gl",
    "font-size: 9px; text-anchor: middle; fill: var(--muted)": "tm",
    "font-size: 9px; text-anchor: end; fill: var(--muted)": "te",
}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "marsretrieval",
    "font.size": 9.0,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "figure.facecolor": "none",
    "path.simplify_threshold": 0.3,
}


@contextmanager
def drawing() -> Iterator[None]:
    """The style of the page for all charts drawn inside, whatever a reader has set for others."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def panel(width: float = 3.3, height: float = 2.5) -> tuple[Figure, Axes]:
    """A small empty chart of `width` x `height` inches; to be used inside `drawing`."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasSVG(figure)
    axes = figure.add_axes((0.15, 0.165, 0.83, 0.805))
    axes.tick_params(length=0, pad=4)
    return figure, axes


def inline_svg(figure: Figure, prefix: str, label: str) -> str:
    """The `<svg>` element; `prefix` is put before its ids, `label` is what it is read out as."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for pattern, into in _CLEANING:
        text = pattern.sub(into, text)
    text = _own_ids(text, prefix)
    if "<g " not in text:
        text = re.sub(r"</?g/?>", "", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    for style, name in _CLASSES.items():
        text = text.replace(f'style="{style}"', f'class="{name}"')
    head = f'<svg class="chart" role="img" aria-label="{html.escape(label)}" viewBox='
    return re.sub(r"<svg[^>]*?viewBox=", lambda found: head, text, count=1)


def _own_ids(text: str, prefix: str) -> str:
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))

    def renamed(found: re.Match[str]) -> str:
        return f' id="{prefix}-{found[1]}"' if found[1] in used else ""

    text = re.sub(r' id="([^"]*)"', renamed, text)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", text)


def _rounded(found: re.Match[str]) -> str:
    """A tag with the numbers of its attributes to one decimal."""
    return _NUMBER.sub(lambda each: f"{float(each[0]):.1f}".removesuffix(".0"), found[0])


_NUMBER = re.compile(r"-?\d+\.\d{2,}")


_CLEANING: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(r"<!--.*?-->|<metadata>.*?</metadata>", re.S), ""),
    (re.compile(r"<defs>\s*<style.*?</style>\s*</defs>", re.S), ""),  # it would style the page
    (re.compile(r' xmlns(?::\w+)?="[^"]*"| version="[^"]*"'), ""),
    (re.compile(r"xlink:href"), "href"),
    (re.compile(r"font-family: [^;\"]*; |stroke-dashoffset: 0; "), ""),  # the font is the page's
    (re.compile(r' transform="rotate\(-0 [^)]*\)"'), ""),
    (re.compile(r"<[^>]*>"), _rounded),
    (re.compile(r"\s*\n\s*"), " "),
    (re.compile(r"> <"), "><"),
    (re.compile(r'<path d="[^"]*" style="fill: none"/>'), ""),  # backgrounds without a colour
    # Nothing is drawn beyond the axes.
    (re.compile(r' clip-path="[^"]*"|<clipPath.*?</clipPath>'), ""),
    (re.compile(r"<defs></defs>|(?<=[MLz\d]) (?=[MLz\"])|(?<=[ML]) "), ""),
]
