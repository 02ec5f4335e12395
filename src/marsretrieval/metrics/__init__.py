"""Compute metrics from embeddings and positions, under both protocols.

`paired.evaluate`, `landform.evaluate` and `geolocalization.evaluate` each score one task;
`ranking` and `bootstrap` hold the shared functions. docs/PROTOCOL.md has every formula.
"""

__all__ = ["bootstrap", "geolocalization", "landform", "paired", "ranking"]
