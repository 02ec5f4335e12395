"""Batches through a model: a good size found, one too large halved, wrong vectors refused."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import MarsRetrievalError, ModelLoadError

__all__ = ["Forward", "batch_sizes", "on_cpu"]

_UNIT_TOLERANCE = 1e-3
_TRIALS = 3  # batches of one size, before a larger one is tried
_WORTHWHILE = 1.05


class Forward:
    """Calls `embed` on batches of at most `size`, which shrinks when memory runs out.

    With a `limit` above `size` the size is found: it doubles as long as that makes the model
    faster by a twentieth, up to the limit.

    `collate`: makes of a batch, ahead of its turn, what `embed` takes in its place.
    """

    def __init__(
        self,
        embed: Callable[[Sequence[Any]], npt.NDArray[np.float32]],
        *,
        name: str,
        dimension: int,
        size: int,
        limit: int | None = None,
        collate: Callable[[Sequence[Any]], Any] | None = None,
    ) -> None:
        self.size = size
        self.limit = limit or size
        self._trials: list[float] = []
        self._best = 0.0  # items a second at half the present size
        self._embed = embed
        self._collate = collate
        self._name = name
        self._dimension = dimension

    def collate(self, batch: Sequence[Any]) -> Any:
        """To be called before the batch's turn; None where there is nothing to be done."""
        if self._collate is None or len(batch) > self.size:
            return None
        try:
            return self._collate(batch)
        except Exception:  # embedding the batch itself meets the same, and tells it
            return None

    def __call__(self, batch: Sequence[Any], collated: Any = None) -> npt.NDArray[np.float32]:
        """(n, dimension). Raises ModelLoadError when the model fails or gives no unit vectors."""
        parts: list[npt.NDArray[np.float32]] = []
        start = 0
        while start < len(batch):
            some = batch[start : start + self.size]
            began = time.perf_counter()
            try:
                whole = collated is not None and len(some) == len(batch)
                vectors = self._embed(collated if whole else some)
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
                if len(some) == self.size < self.limit:
                    self._grow(time.perf_counter() - began)
                continue
            # Only here, with the exception gone, is the memory of the failed batch free.
            self._shrink(len(some), reason)
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    def _grow(self, seconds: float) -> None:
        self._trials.append(seconds)
        if len(self._trials) < _TRIALS:
            return
        rate = self.size / min(self._trials[1:])  # the first batch of a size warms up
        self._trials.clear()
        if rate > _WORTHWHILE * self._best:
            self._best = rate
            self.size = min(2 * self.size, self.limit)
        else:
            self.size //= 2
            self.limit = self.size

    def _shrink(self, tried: int, reason: str) -> None:
        if tried <= 1:
            raise MarsRetrievalError(
                f"{self._name}: out of memory with a single item ({reason})",
                remedy="Use a device with more memory or --device cpu, or load the model in "
                "float16 or bfloat16.",
            )
        self.size = self.limit = tried // 2
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


def batch_sizes(encoder: Any) -> tuple[int, int]:
    """First and largest batch size where none is given: fixed on a CPU, where larger batches gain
    nothing."""
    return (16, 16) if on_cpu(encoder) else (64, 512)


def on_cpu(encoder: Any) -> bool:
    """By the device that a torch encoder says it is on."""
    return str(getattr(encoder, "device", "cpu")).startswith("cpu")


def _out_of_memory(error: Exception) -> bool:
    # By name, since torch need not be there: torch.OutOfMemoryError, MPS and cuBLAS say it so.
    name = type(error).__name__
    return (
        isinstance(error, MemoryError)
        or name == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "out of memory" in str(error).lower())
    )
