"""Training of a small contrastive image-text encoder: the recipe behind the demo's model."""
