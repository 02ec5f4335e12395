"""Run a model on batches: choose the batch size, isolate failing items, validate the vectors."""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from marsretrieval.errors import (
    MarsRetrievalError,
    MarsRetrievalWarning,
    ModelLoadError,
    describe_exception,
    is_out_of_memory,
)
from marsretrieval.text import pluralize, verb

if TYPE_CHECKING:
    from marsretrieval.encoders import QueryEncoder, TextRole

_UNIT_TOLERANCE = 1e-3
_TRIALS_PER_SIZE = 3  # batches before a larger size is tried
_MIN_SPEEDUP = 1.05
_QUOTE_LENGTH = 60  # characters

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of a batch, without those of the items on which the model fails.

    Attributes:
        vectors: float32 array of shape (n - failures, dimension), in the order of the batch.
        failures: Maps the index of an item in the batch to the reason why it has no vector.
    """

    vectors: npt.NDArray[np.float32]
    failures: Mapping[int, str]


class BatchRunner:
    """Run a model on batches, with a batch size that adapts to the device.

    The size is halved when memory runs out. If `limit` is above `size`, the size doubles up to
    `limit` as long as each doubling raises the throughput by at least 5 %.
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
        sample: Callable[[], Any] | None = None,
        describe: Callable[[Any], str] | None = None,
    ) -> None:
        """Configure the runner.

        Args:
            embed: Returns the vectors of a batch, a float32 array of shape (n, dimension).
            name: Model id, for messages.
            dimension: Expected vector dimension.
            size: First batch size.
            limit: Largest batch size. None means `size`.
            collate: Turns a batch, ahead of its turn, into the input of `embed`.
            sample: Returns an item that every working model embeds. If a model fails on every item
                of a batch, this item shows whether the model or the items are at fault.
            describe: Names an item in an error message.
        """
        self.size = size
        self.limit = limit or size
        self._trials: list[float] = []
        self._best = 0.0  # items per second at half the present size
        self._embed = embed
        self._collate = collate
        self._name = name
        self._dimension = dimension
        self._sample = sample
        self._describe = describe
        self._warned = False

    def collate(self, batch: Sequence[Any]) -> Any:
        """Prepare a batch before its turn.

        Args:
            batch: Items to embed.

        Returns:
            Input for the argument `collated` of `embed`. None if there is nothing to prepare or the
            preparation fails.
        """
        if self._collate is None or len(batch) > self.size:
            return None
        try:
            return self._collate(batch)
        except Exception:  # embedding the batch raises the same error and reports it
            return None

    def __call__(self, batch: Sequence[Any], collated: Any = None) -> npt.NDArray[np.float32]:
        """Embed a batch in which every item must have a vector.

        Args:
            batch: Items to embed.
            collated: Result of `collate` for this batch, if it was called.

        Returns:
            float32 array of shape (n, dimension), unit rows.

        Raises:
            ModelLoadError: If the model fails on an item, which the message names.
        """
        embedded = self.embed(batch, collated)
        if embedded.failures:
            number, reason = next(iter(embedded.failures.items()))
            item = f"item {number + 1}" if self._describe is None else self._describe(batch[number])
            raise ModelLoadError(f"{self._name} fails on {item} ({reason})")
        return embedded.vectors

    def embed(self, batch: Sequence[Any], collated: Any = None) -> Embedded:
        """Embed a batch. If the model fails on it, embed its items one by one.

        Args:
            batch: Items to embed.
            collated: Result of `collate` for this batch, if it was called.

        Returns:
            The vectors, and the items on which the model fails.

        Raises:
            ModelLoadError: If the model also fails on items that it must embed.
            MarsRetrievalError: If a single item does not fit into the memory.
        """
        parts: list[npt.NDArray[np.float32]] = []
        failures: dict[int, str] = {}
        start = 0
        while start < len(batch):
            chunk = batch[start : start + self.size]
            began = time.perf_counter()
            uses_collated = collated is not None and len(chunk) == len(batch)
            try:
                vectors = self._call_model(collated if uses_collated else chunk, len(chunk))
            except _OutOfMemoryError as error:
                reason = str(error)
            except ModelLoadError as error:
                one_by_one = self._embed_singly(chunk, error)
                parts.append(one_by_one.vectors)
                failures |= {start + number: why for number, why in one_by_one.failures.items()}
                start += len(chunk)
                continue
            else:
                parts.append(vectors)
                start += len(chunk)
                if len(chunk) == self.size < self.limit:
                    self._grow(time.perf_counter() - began)
                continue
            # The memory of the failed batch is freed only after the exception is.
            self._shrink(len(chunk), reason)
        return Embedded(np.concatenate(parts) if len(parts) != 1 else parts[0], failures)

    def _embed_singly(self, batch: Sequence[Any], first: ModelLoadError) -> Embedded:
        rows: list[npt.NDArray[np.float32]] = []
        failures: dict[int, str] = {}
        good: Any = None
        for number, item in enumerate(batch):
            try:
                rows.append(self._embed_item(item, first if len(batch) == 1 else None))
            except ModelLoadError as error:
                failures[number] = error.message
            else:
                good = item
        if len(batch) - 1 in failures:
            # A broken model (a lost device, for example) fails on all later items, too.
            self._require_working(good, first)
        if not failures and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self._name} fails on a batch but not on its single items, whose results are "
                f"used ({first.message})",
                MarsRetrievalWarning,
                stacklevel=2,
            )
        empty = np.empty((0, self._dimension), np.float32)
        return Embedded(np.concatenate(rows) if rows else empty, failures)

    def _embed_item(self, item: Any, error: ModelLoadError | None) -> npt.NDArray[np.float32]:
        """Embed one item, or raise the `error` that the item is already known to cause."""
        if error is not None:
            raise error
        try:
            return self._call_model([item], 1)
        except _OutOfMemoryError as full:
            reason = str(full)
        self._shrink(1, reason)
        raise AssertionError("unreachable: one item cannot be halved")

    def _require_working(self, good: Any, error: ModelLoadError) -> None:
        """Raise `error` unless the model still embeds an item that it must embed."""
        if good is None:
            if self._sample is None:
                return
            with contextlib.suppress(Exception):  # the user's preprocessing may raise anything
                good = self._sample()
        try:
            self._embed_item(good, None)
        except ModelLoadError:
            raise error from None

    def _call_model(self, batch: Any, count: int) -> npt.NDArray[np.float32]:
        """Call the model and validate its output. Raises _OutOfMemoryError and ModelLoadError."""
        try:
            vectors = self._embed(batch)
        except MarsRetrievalError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise _OutOfMemoryError(str(error)) from None
            raise ModelLoadError(f"{self._name} failed: {describe_exception(error)}") from error
        self._check(vectors, count)
        return vectors

    def _grow(self, seconds: float) -> None:
        self._trials.append(seconds)
        if len(self._trials) < _TRIALS_PER_SIZE:
            return
        rate = self.size / min(self._trials[1:])  # the first batch of a size warms up
        self._trials.clear()
        if rate > _MIN_SPEEDUP * self._best:
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
                f"{self._name} returned vectors of shape {vectors.shape} for {count} items, "
                f"({count}, {self._dimension}) expected"
            )
        wrong = ~(np.abs(np.linalg.norm(vectors, axis=1) - 1) < _UNIT_TOLERANCE)  # NaN is wrong
        if wrong.any():
            raise ModelLoadError(
                f"{self._name}: {int(wrong.sum())} of {pluralize(count, 'vector')} "
                f"{verb(int(wrong.sum()), 'is', 'are')} not of unit length",
                remedy="An encoder must return float32 rows of length 1, none of them NaN.",
            )


def batch_sizes(encoder: Any) -> tuple[int, int]:
    """Choose the batch sizes if the user sets none.

    Args:
        encoder: An encoder.

    Returns:
        First and largest batch size. Both are 16 on a CPU, where larger batches are not faster.
    """
    return (16, 16) if on_cpu(encoder) else (64, 512)


def on_cpu(encoder: Any) -> bool:
    """Check whether an encoder runs on a CPU.

    Args:
        encoder: An encoder. One without the attribute `device` counts as running on a CPU.

    Returns:
        Whether its device is a CPU.
    """
    return str(getattr(encoder, "device", "cpu")).startswith("cpu")


def quote_text(text: str) -> str:
    """Quote the beginning of a text in an error message.

    Args:
        text: A query or caption of any length.

    Returns:
        ``the text '...'``, truncated to 60 characters.
    """
    return f"the text {text[:_QUOTE_LENGTH]!r}" + ("..." if len(text) > _QUOTE_LENGTH else "")


class _OutOfMemoryError(Exception):
    """The device is out of memory.

    Holds no frame of the failed call, so that the memory of its tensors is freed.
    """


def embed_images(encoder: QueryEncoder, images: Sequence[Image.Image]) -> Vectors:
    """Embed images in batches that fit into memory.

    Args:
        encoder: The model.
        images: At least one RGB image.

    Returns:
        float32 array of shape (n, dimension), unit rows.

    Raises:
        ModelLoadError: If the model fails on an image.
    """
    return _batch_runner(encoder, encoder.encode_images)(images)


def embed_texts(
    encoder: QueryEncoder, texts: Sequence[str], *, role: TextRole = "query"
) -> Vectors:
    """Embed texts in batches that fit into memory.

    Args:
        encoder: The model.
        texts: At least one text.
        role: Whether the texts are queries or captions.

    Returns:
        float32 array of shape (n, dimension), unit rows.

    Raises:
        ModelLoadError: If the model fails on a text.
    """
    return _batch_runner(encoder, partial(encoder.encode_texts, role=role), quote_text)(texts)


def _batch_runner(
    encoder: QueryEncoder,
    embed: Callable[[Sequence[Any]], Vectors],
    describe: Callable[[Any], str] | None = None,
) -> BatchRunner:
    size, limit = batch_sizes(encoder)
    return BatchRunner(
        embed,
        name=encoder.id,
        dimension=encoder.dimension,
        size=size,
        limit=limit,
        describe=describe,
    )
