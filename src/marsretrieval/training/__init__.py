"""Training of a small contrastive image-text encoder: the recipe behind the demo's model.

`_train.train` does it; `python -m marsretrieval.training` is its command.
"""
