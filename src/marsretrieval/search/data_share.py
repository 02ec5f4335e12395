"""Tiles without data, or with too little of it, by the share that a store keeps of each tile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import UsageError
from marsretrieval.search.view import known_of

if TYPE_CHECKING:
    from marsretrieval.embeddings import EmbeddingStore


def rows_below(store: EmbeddingStore, min_valid: float | None) -> npt.NDArray[np.bool_] | None:
    """Find the tiles with too little data.

    Args:
        store: The store.
        min_valid: Least share of a tile with data, 0 to 1. Tiles whose share is unknown count as
            below any share above 0. None: tiles known to have no data at all.

    Returns:
        Booleans of shape (rows,); None if no tile is below.

    Raises:
        UsageError: If the share is out of range, or the store holds no shares.
    """
    if min_valid is not None and not 0 <= min_valid <= 1:
        raise UsageError(
            f"min_valid is {min_valid:g}", remedy="Use a share of the tile from 0 to 1."
        )
    if min_valid == 0:
        return None
    valid = known_of(store).valid()
    if min_valid is None:
        below = valid == 0
    elif np.isfinite(valid).any():
        # As the store rounds shares, to float32.
        below = ~(valid >= float(np.float32(min_valid)))
    else:
        raise UsageError(
            f"{store.path} holds no shares of data, which min_valid needs",
            remedy="Embed tiles whose JSON has `valid` (marsretrieval data tiles writes it), "
            "with --force if the store is older than that.",
        )
    return below if below.any() else None
