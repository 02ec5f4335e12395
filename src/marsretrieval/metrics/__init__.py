"""Figures out of embeddings and positions: pure functions, both protocols.

`paired.evaluate`, `landform.evaluate` and `geolocalization.evaluate`, one module a task;
`ranking` and `bootstrap` are what they share. docs/PROTOCOL.md has every formula.
"""

__all__ = ["bootstrap", "geolocalization", "landform", "paired", "ranking"]
