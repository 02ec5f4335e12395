"""A vision-only encoder in twenty lines: roughness and orientation of the ground.

From the folder of this file, with data at ../planet (marsretrieval data synth --out ../planet):

    marsretrieval models check own_model:Spectrum
    marsretrieval run -m own_model:Spectrum -t geolocalization --data ../planet

It has no text encoder, so that its queries are example images. With `encode_texts(texts)`, which
returns one row per text, it could be evaluated on the other tasks, too.
"""

from __future__ import annotations

import numpy as np
from PIL import Image


class Spectrum:
    """The logarithm of an image's power spectrum, averaged in rings and in directions."""

    def __init__(self) -> None:
        y, x = np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64), indexing="ij")
        ring = np.digitize(np.hypot(x, y), np.linspace(0.02, 0.5, 11))
        direction = 12 + ((np.arctan2(y, x) % np.pi) / np.pi * 8).astype(int).clip(0, 7)
        self.masks = np.array([(ring == i) | (direction == i) for i in range(20)], float)
        self.masks /= self.masks.sum(axis=(1, 2), keepdims=True)

    def encode_images(self, images: list[Image.Image]) -> np.ndarray:
        """Return the mean log power per mask, less its mean, shape (n, 20)."""
        grey = np.array([image.convert("L").resize((64, 64)) for image in images], float) / 255
        power = np.abs(np.fft.fft2(grey - grey.mean(axis=(1, 2), keepdims=True))) ** 2
        levels = np.log(np.einsum("nyx,myx->nm", power, self.masks) + 1e-6)
        return levels - levels.mean(axis=1, keepdims=True) + 1e-9
