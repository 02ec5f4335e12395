"""Retrieval benchmark and planet-wide image search for Mars orbital imagery."""

__all__ = ["__version__"]

__version__ = "0.1.0"
