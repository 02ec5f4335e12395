"""Batches through a model: too large a batch is halved, wrong vectors are refused."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import MarsRetrievalError, ModelLoadError

__all__ = ["Forward", "default_batch_size"]

_UNIT_TOLERANCE = 1e-3


class Forward:
    """Calls `embed` on batches of at most `size`, which shrinks when memory runs out."""

    def __init__(
        self,
        embed: Callable[[Sequence[Any]], npt.NDArray[np.float32]],
        *,
        name: str,
        dimension: int,
        size: int,
    ) -> None:
        self.size = size
        self._embed = embed
        self._name = name
        self._dimension = dimension

    def __call__(self, batch: Sequence[Any]) -> npt.NDArray[np.float32]:
        """(n, dimension). Raises ModelLoadError when the model fails or gives no unit vectors."""
        parts: list[npt.NDArray[np.float32]] = []
        start = 0
        while start < len(batch):
            some = batch[start : start + self.size]
            try:
                vectors = self._embed(some)
            except MarsRetrievalError:
                raise
            except Exception as error:
                if not _out_of_memory(error):
                    raise ModelLoadError(
                        f"{self._name} failed on a batch of {len(some)}: "
                        f"{type(error).__name__}: {error}"
                    ) from error
                reason = str(error)
            else:
                self._check(vectors, len(some))
                parts.append(vectors)
                start += len(some)
                continue
            # Only here, with the exception gone, is the memory of the failed batch free.
            self._shrink(len(some), reason)
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    def _shrink(self, tried: int, reason: str) -> None:
        if tried <= 1:
            raise MarsRetrievalError(
                f"{self._name}: out of memory with a single item ({reason})",
                remedy="Use a device with more memory or --device cpu, or load the model in "
                "float16 or bfloat16.",
            )
        self.size = tried // 2
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _check(self, vectors: npt.NDArray[np.float32], count: int) -> None:
        if vectors.shape != (count, self._dimension):
            raise ModelLoadError(
                f"{self._name} gave vectors of shape {vectors.shape} for {count} items, "
                f"({count}, {self._dimension}) was promised"
            )
        wrong = ~(np.abs(np.linalg.norm(vectors, axis=1) - 1) < _UNIT_TOLERANCE)  # NaN is wrong
        if wrong.any():
            raise ModelLoadError(
                f"{self._name}: {int(wrong.sum())} of {count} vectors are not of unit length",
                remedy="An encoder returns float32 rows of length 1, none of them NaN.",
            )


def default_batch_size(encoder: Any) -> int:
    """For the device that a torch encoder says it is on; small where it says nothing."""
    return 16 if str(getattr(encoder, "device", "cpu")).startswith("cpu") else 64


def _out_of_memory(error: Exception) -> bool:
    # By name, since torch need not be there: torch.OutOfMemoryError, MPS and cuBLAS say it so.
    name = type(error).__name__
    return (
        isinstance(error, MemoryError)
        or name == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "out of memory" in str(error).lower())
    )
