"""Registry of landforms by the names that the datasets use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from marsretrieval.datasets.synthetic.ground import Ground, Rng, Traits, layered_deposits
from marsretrieval.datasets.synthetic.landforms_ice_wind import (
    araneiform_terrain,
    barchan_dunes,
    dust_devil_tracks,
    glacier_like_form,
    linear_dunes,
    polygonal_terrain,
    swiss_cheese_terrain,
    wind_streaks,
    yardangs,
)
from marsretrieval.datasets.synthetic.landforms_impact_tectonic import (
    chaos_terrain,
    crater_cluster,
    graben,
    impact_crater,
    pit_chain,
    rampart_crater,
    wrinkle_ridge,
)
from marsretrieval.datasets.synthetic.landforms_water_slopes import (
    alluvial_fans,
    gullies,
    landslides,
    lava_flow,
    mounds,
    pitted_cones,
    slope_streaks,
    streamlined_islands,
    valley_network,
)
from marsretrieval.errors import UnknownNameError


@dataclass(frozen=True, slots=True)
class Landform:
    """Landform: how it is drawn and described.

    Attributes:
        name: Name in the datasets.
        draw: Function that draws it.
        one: Caption of a single object.
        many: Caption of several; {n} stands for their number in words.
        signs: Phrases that distinguish it from other landforms.
        field: Whether it covers the ground instead of standing in one location.
        span: Width of the ground that it changes, in frames.
    """

    name: str
    draw: Callable[[Ground, Rng], Traits]
    one: str
    many: str
    signs: tuple[str, ...]
    field: bool = False
    span: float = 1.3


_ALL = (
    # The five landforms of the benchmark.
    Landform(
        "alluvial_fans", alluvial_fans, "an alluvial fan", "{n} alluvial fans",
        ("channels radiate from the apex at the crater wall",
         "sediment spreads over the crater floor below a notch in the wall"),
        span=2.1,
    ),
    Landform(
        "glacier-like_form", glacier_like_form, "a glacier-like form",
        "{n} glacier-like forms",
        ("a viscous tongue leaves its alcove between rugged ridges",
         "arcuate ridges and a moraine mark the end of the tongue"),
        span=1.7,
    ),
    Landform(
        "landslides", landslides, "a landslide", "{n} landslides",
        ("a lobate deposit lies below a scar in the wall",
         "longitudinal grooves run over the deposit from the headscarp to the toe"),
        span=1.9,
    ),
    Landform(
        "pitted_cones", pitted_cones, "a pitted cone", "{n} pitted cones",
        ("each cone has a pit at its summit", "steep little cones with summit pits"),
    ),
    Landform(
        "yardangs", yardangs, "yardangs", "yardangs",
        ("wind-carved parallel ridges with blunt heads and tapering tails",
         "straight grooves separate the streamlined ridges"),
        field=True, span=2.2,
    ),
    # Others, some of which look like the five.
    Landform(
        "araneiform_terrain", araneiform_terrain, "araneiform terrain with a single spider",
        "araneiform terrain with {n} spiders",
        ("dark troughs branch outward from a centre", "spider-like radial channels"),
    ),
    Landform(
        "barchan_dunes", barchan_dunes, "a barchan dune", "{n} barchan dunes",
        ("dark crescents of sand with horns pointing downwind", "each has a steep lee face"),
        field=True, span=2.2,
    ),
    Landform(
        "chaos_terrain", chaos_terrain, "chaos terrain", "chaos terrain",
        ("angular blocks stand above a broken floor", "tilted mesas separated by rubble"),
        field=True, span=2.2,
    ),
    Landform(
        "crater_cluster", crater_cluster, "a crater cluster",
        "a crater cluster of {n} craters",
        ("small secondary craters that fell together", "many little bowls close to each other"),
    ),
    Landform(
        "dust_devil_tracks", dust_devil_tracks, "a dust devil track",
        "{n} dust devil tracks",
        ("thin dark lines cross each other on brighter dust", "dark curls without any relief"),
        field=True, span=2.2,
    ),
    Landform(
        "graben", graben, "a graben", "{n} graben",
        ("straight troughs with flat floors between parallel faults", "long fault-bounded troughs"),
        field=True, span=2.2,
    ),
    Landform(
        "gullies", gullies, "a gully", "{n} gullies",
        ("alcoves, channels and aprons on a steep slope",
         "narrow channels run from alcoves down to small aprons"),
        span=1.5,
    ),
    Landform(
        "impact_crater", impact_crater, "an impact crater", "{n} impact craters",
        ("a round depression with a raised rim", "rough ejecta surround the rim"),
        span=2.0,
    ),
    Landform(
        "lava_flow", lava_flow, "a lava flow", "a lava flow",
        ("a rough lobe with steep margins", "a channel between levees leads to the flow front"),
        span=1.7,
    ),
    Landform(
        "layered_deposits", layered_deposits, "layered deposits", "layered deposits",
        ("cliffs and benches alternate like a staircase", "bright and dark beds in turn"),
        field=True, span=2.2,
    ),
    Landform(
        "linear_dunes", linear_dunes, "linear dunes", "linear dunes",
        ("dark sinuous ridges of sand that fork", "long rounded crests that run side by side"),
        field=True, span=2.2,
    ),
    Landform(
        "mounds", mounds, "a mound", "{n} mounds",
        ("rounded knobs without pits", "smooth hills with closed summits"),
    ),
    Landform(
        "pit_chain", pit_chain, "a pit chain", "a pit chain of {n} pits",
        ("rimless collapse pits in a row", "round pits follow one straight line"),
    ),
    Landform(
        "polygonal_terrain", polygonal_terrain, "polygonal terrain", "polygonal terrain",
        ("a net of narrow troughs around convex cells", "frost-cracked polygons"),
        field=True, span=2.2,
    ),
    Landform(
        "rampart_crater", rampart_crater, "a rampart crater", "{n} rampart craters",
        ("layered ejecta end in a raised margin", "petal-like ejecta lobes surround the crater"),
        span=1.6,
    ),
    Landform(
        "slope_streaks", slope_streaks, "a slope streak", "{n} slope streaks",
        ("dark streaks start at a point and widen downslope", "dark fans on a dusty slope"),
        span=1.6,
    ),
    Landform(
        "streamlined_islands", streamlined_islands, "a streamlined island",
        "{n} streamlined islands",
        ("teardrop mesas on a scoured channel floor", "flood-shaped mesas with tails downstream"),
    ),
    Landform(
        "swiss_cheese_terrain", swiss_cheese_terrain, "Swiss cheese terrain with one pit",
        "Swiss cheese terrain with {n} pits",
        ("flat-floored round pits eat into smooth ice", "steep-walled pits merge in bright ice"),
        field=True, span=2.2,
    ),
    Landform(
        "valley_network", valley_network, "a valley network", "a valley network",
        ("tributaries join a trunk valley", "branching valleys like a tree"),
        span=1.5,
    ),
    Landform(
        "wind_streaks", wind_streaks, "a wind streak", "{n} wind streaks",
        ("tails of dust in the lee of small craters", "streaks stretch downwind from craters"),
    ),
    Landform(
        "wrinkle_ridge", wrinkle_ridge, "a wrinkle ridge", "{n} wrinkle ridges",
        ("a broad arch with a narrow crenulated crest", "a winding asymmetric ridge"),
        field=True, span=2.2,
    ),
)  # fmt: skip

LANDFORMS: Mapping[str, Landform] = MappingProxyType({landform.name: landform for landform in _ALL})
BENCHMARK = tuple(landform.name for landform in _ALL[:5])


def find(name: str) -> Landform:
    """Look up a landform.

    Args:
        name: Name of the landform.

    Returns:
        The landform.

    Raises:
        UnknownNameError: If there is no such landform.
    """
    try:
        return LANDFORMS[name]
    except KeyError:
        raise UnknownNameError("landform", name, LANDFORMS) from None
