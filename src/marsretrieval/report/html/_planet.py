"""The ground that all maps share: drawn once, used by each."""

from __future__ import annotations

__all__ = ["planet"]


def planet() -> str:
    """A `<symbol>` of 720 x 360 units: the planet with a graticule of 30 degrees."""
    lines = "".join(f"M{x} 0v360" for x in range(60, 720, 60))
    lines += "".join(f"M0 {y}h720" for y in range(60, 360, 60))
    return (
        '<g id="mars"><rect class="ground" width="720" height="360"/>'
        f'<path class="grat" d="{lines}"/>{_labels()}</g>'
    )


def _labels() -> str:
    found = []
    for lon in range(-120, 180, 60):
        name = f"{abs(lon)}°{'W' if lon < 0 else 'E' if lon else ''}"
        found.append(f'<text class="maptext" x="{(lon + 180) * 2 + 3}" y="356">{name}</text>')
    for lat in (60, 30, 0, -30, -60):
        name = f"{abs(lat)}°{'S' if lat < 0 else 'N' if lat else ''}"
        found.append(f'<text class="maptext" x="3" y="{(90 - lat) * 2 - 3}">{name}</text>')
    return "".join(found)
