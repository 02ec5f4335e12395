"""Training recipe of the demo's model, a small contrastive image-text encoder."""
