"""All landforms, by the names that the datasets use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from marsretrieval.datasets.synthetic import (
    _ice,
    _impact,
    _layers,
    _slopes,
    _tectonic,
    _volcanic,
    _water,
    _wind,
)
from marsretrieval.datasets.synthetic._ground import Ground, Rng
from marsretrieval.datasets.synthetic._traits import Traits
from marsretrieval.errors import UnknownNameError


@dataclass(frozen=True, slots=True)
class Landform:
    """How a landform is drawn and spoken of.

    `many` may hold {n}, the number of things in words; `signs` are what tells it from others.
    """

    name: str
    draw: Callable[[Ground, Rng], Traits]
    one: str
    many: str
    signs: tuple[str, ...]
    field: bool = False  # covers the ground, rather than standing in one place
    span: float = 1.3  # frames from edge to edge of the ground that it changes


_ALL = (
    # The five of the benchmark.
    Landform(
        "alluvial_fans", _water.alluvial_fans, "an alluvial fan", "{n} alluvial fans",
        ("channels radiate from the apex at the crater wall",
         "sediment spreads over the crater floor below a notch in the wall"),
        span=2.1,
    ),
    Landform(
        "glacier-like_form", _ice.glacier_like_form, "a glacier-like form",
        "{n} glacier-like forms",
        ("a viscous tongue leaves its alcove between rugged ridges",
         "arcuate ridges and a moraine mark the end of the tongue"),
        span=1.7,
    ),
    Landform(
        "landslides", _slopes.landslides, "a landslide", "{n} landslides",
        ("a lobate deposit lies below a scar in the wall",
         "longitudinal grooves run over the deposit from the headscarp to the toe"),
        span=1.9,
    ),
    Landform(
        "pitted_cones", _volcanic.pitted_cones, "a pitted cone", "{n} pitted cones",
        ("each cone has a pit at its summit", "steep little cones with summit pits"),
    ),
    Landform(
        "yardangs", _wind.yardangs, "yardangs", "yardangs",
        ("wind-carved parallel ridges with blunt heads and tapering tails",
         "straight grooves separate the streamlined ridges"),
        field=True, span=2.2,
    ),
    # What else there is, look-alikes of the five among it.
    Landform(
        "araneiform_terrain", _ice.araneiform_terrain, "araneiform terrain with a single spider",
        "araneiform terrain with {n} spiders",
        ("dark troughs branch outward from a centre", "spider-like radial channels"),
    ),
    Landform(
        "barchan_dunes", _wind.barchan_dunes, "a barchan dune", "{n} barchan dunes",
        ("dark crescents of sand with horns pointing downwind", "each has a steep lee face"),
        field=True, span=2.2,
    ),
    Landform(
        "chaos_terrain", _tectonic.chaos_terrain, "chaos terrain", "chaos terrain",
        ("angular blocks stand above a broken floor", "tilted mesas separated by rubble"),
        field=True, span=2.2,
    ),
    Landform(
        "crater_cluster", _impact.crater_cluster, "a crater cluster",
        "a crater cluster of {n} craters",
        ("small secondary craters that fell together", "many little bowls close to each other"),
    ),
    Landform(
        "dust_devil_tracks", _wind.dust_devil_tracks, "a dust devil track",
        "{n} dust devil tracks",
        ("thin dark lines cross each other on brighter dust", "dark curls without any relief"),
        field=True, span=2.2,
    ),
    Landform(
        "graben", _tectonic.graben, "a graben", "{n} graben",
        ("straight troughs with flat floors between parallel faults", "long fault-bounded troughs"),
        field=True, span=2.2,
    ),
    Landform(
        "gullies", _water.gullies, "a gully", "{n} gullies",
        ("alcoves, channels and aprons on a steep slope",
         "narrow channels run from alcoves down to small aprons"),
        span=1.5,
    ),
    Landform(
        "impact_crater", _impact.impact_crater, "an impact crater", "{n} impact craters",
        ("a round depression with a raised rim", "rough ejecta surround the rim"),
        span=2.0,
    ),
    Landform(
        "lava_flow", _volcanic.lava_flow, "a lava flow", "a lava flow",
        ("a rough lobe with steep margins", "a channel between levees leads to the flow front"),
        span=1.7,
    ),
    Landform(
        "layered_deposits", _layers.layered_deposits, "layered deposits", "layered deposits",
        ("cliffs and benches alternate like a staircase", "bright and dark beds in turn"),
        field=True, span=2.2,
    ),
    Landform(
        "linear_dunes", _wind.linear_dunes, "linear dunes", "linear dunes",
        ("dark sinuous ridges of sand that fork", "long rounded crests that run side by side"),
        field=True, span=2.2,
    ),
    Landform(
        "mounds", _volcanic.mounds, "a mound", "{n} mounds",
        ("rounded knobs without pits", "smooth hills with closed summits"),
    ),
    Landform(
        "pit_chain", _tectonic.pit_chain, "a pit chain", "a pit chain of {n} pits",
        ("rimless collapse pits in a row", "round pits follow one straight line"),
    ),
    Landform(
        "polygonal_terrain", _ice.polygonal_terrain, "polygonal terrain", "polygonal terrain",
        ("a net of narrow troughs around convex cells", "frost-cracked polygons"),
        field=True, span=2.2,
    ),
    Landform(
        "rampart_crater", _impact.rampart_crater, "a rampart crater", "{n} rampart craters",
        ("layered ejecta end in a raised margin", "petal-like ejecta lobes surround the crater"),
        span=1.6,
    ),
    Landform(
        "slope_streaks", _slopes.slope_streaks, "a slope streak", "{n} slope streaks",
        ("dark streaks start at a point and widen downslope", "dark fans on a dusty slope"),
        span=1.6,
    ),
    Landform(
        "streamlined_islands", _water.streamlined_islands, "a streamlined island",
        "{n} streamlined islands",
        ("teardrop mesas on a scoured channel floor", "flood-shaped mesas with tails downstream"),
    ),
    Landform(
        "swiss_cheese_terrain", _ice.swiss_cheese_terrain, "Swiss cheese terrain with one pit",
        "Swiss cheese terrain with {n} pits",
        ("flat-floored round pits eat into smooth ice", "steep-walled pits merge in bright ice"),
        field=True, span=2.2,
    ),
    Landform(
        "valley_network", _water.valley_network, "a valley network", "a valley network",
        ("tributaries join a trunk valley", "branching valleys like a tree"),
        span=1.5,
    ),
    Landform(
        "wind_streaks", _wind.wind_streaks, "a wind streak", "{n} wind streaks",
        ("tails of dust in the lee of small craters", "streaks stretch downwind from craters"),
    ),
    Landform(
        "wrinkle_ridge", _tectonic.wrinkle_ridge, "a wrinkle ridge", "{n} wrinkle ridges",
        ("a broad arch with a narrow crenulated crest", "a winding asymmetric ridge"),
        field=True, span=2.2,
    ),
)  # fmt: skip

LANDFORMS: Mapping[str, Landform] = MappingProxyType({each.name: each for each in _ALL})
BENCHMARK = tuple(each.name for each in _ALL[:5])


def find(name: str) -> Landform:
    """Raises UnknownNameError."""
    try:
        return LANDFORMS[name]
    except KeyError:
        raise UnknownNameError("landform", name, LANDFORMS) from None
