"""Links from a position on Mars to public maps and archives.

The addresses follow the public forms of these services. Nothing is requested: the page only
contains links.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from marsretrieval import geo
from marsretrieval.datasets.ctx import SERVER, Quad

_ODE = "https://oderest.rsl.wustl.edu/live2"
_TREK = "https://trek.nasa.gov/mars/"
_TREK_CRS = "urn:ogc:def:crs:EPSG::104905"
_POINT_DEG = 0.05  # half a side of the box searched around a tile of unknown extent


@dataclass(frozen=True, slots=True)
class Link:
    """A link to another site.

    Attributes:
        text: Short name.
        title: What the link opens.
        href: Address.
    """

    text: str
    title: str
    href: str


def links_at(lon: float, lat: float, shape: geo.Shape | None = None) -> list[Link]:
    """Make the links of a position.

    Args:
        lon: Longitude in degrees, east positive.
        lat: Latitude in degrees.
        shape: Footprint of the tile; the archive is searched within it.

    Returns:
        The quad of the CTX mosaic (if it has one there), the CTX footprints in the Orbital Data
        Explorer, and Mars Trek.
    """
    east = float(geo.wrap_lon(lon))
    links = []
    if -88 <= lat < 88:
        side = geo.QUAD_DEG
        quad = Quad(int(lat // side * side), int(east // side * side))
        links.append(
            Link("CTX quad", f"CTX mosaic, quad {quad.name} (zip)", f"{SERVER}/{quad.zip_name}")
        )
    west, south, right, north = _bounds(east, lat, shape)
    query = {
        "target": "mars",
        "query": "product",
        "results": "fmp",
        "output": "XML",
        "ihid": "MRO",
        "iid": "CTX",
        "pt": "EDR",
        "minlat": f"{south:.5f}",
        "maxlat": f"{north:.5f}",
        "westernlon": f"{west % 360:.5f}",
        "easternlon": f"{right % 360:.5f}",
    }
    links.append(
        Link(
            "ODE",
            "CTX images that cover the tile, in the Orbital Data Explorer (XML)",
            f"{_ODE}?{urlencode(query)}",
        )
    )
    parameters = urlencode(
        {"v": "0.1", "x": f"{east:.5f}", "y": f"{lat:.5f}", "z": "8", "p": _TREK_CRS}
    )
    links.append(Link("Trek", "The position in Mars Trek", f"{_TREK}#{parameters}&d="))
    return links


def _bounds(lon: float, lat: float, shape: geo.Shape | None) -> tuple[float, float, float, float]:
    """West, south, east and north of a tile; of two parts across the antimeridian, of both."""
    if not isinstance(shape, list):
        return (
            lon - _POINT_DEG,
            max(lat - _POINT_DEG, -90.0),
            lon + _POINT_DEG,
            min(lat + _POINT_DEG, 90.0),
        )
    x = [lon + float(geo.wrap_lon(a - lon)) for ring in shape for a, _ in ring]
    y = [b for ring in shape for _, b in ring]
    return min(x), min(y), max(x), max(y)
