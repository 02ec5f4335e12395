"""What a landform function tells of what it drew."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Traits:
    """Sizes are in frames, bearings in degrees clockwise from north."""

    size: float  # largest extent
    count: int | None = None  # where the things can be counted
    bearing: float | None = None  # of the flow, or of the long axis
    flows: bool = False  # the bearing has a sense: downslope or downwind
    detail: str = ""  # what else there is to see, fit to follow the name
