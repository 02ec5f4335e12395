"""Training of a small contrastive image-text encoder: the recipe behind the demo's model."""

from marsretrieval.training._recipe import Recipe
from marsretrieval.training._train import train

__all__ = ["Recipe", "train"]
