"""Batch size: growth while it is faster, halving on out of memory."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from marsretrieval.embeddings import batches
from marsretrieval.embeddings.batches import BatchRunner, batch_sizes


class Clock:
    """Simulated clock that advances only while the device works, independent of machine load."""

    now = 0.0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "time", SimpleNamespace(perf_counter=lambda: Clock.now))


class Device:
    """Device with a fixed time per batch and per item; larger batches are faster, to a limit."""

    def __init__(self, *, fixed: float, each: float, memory: int = 10_000) -> None:
        self.fixed = fixed
        self.each = each
        self.memory = memory
        self.sizes: list[int] = []

    def __call__(self, batch: Sequence[Any]) -> np.ndarray:
        self.sizes.append(len(batch))
        if len(batch) > self.memory:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        Clock.now += self.fixed + self.each * len(batch)
        rows = np.zeros((len(batch), 4), np.float32)
        rows[:, 0] = 1
        return rows

    def feed(self, size: int, limit: int, batches: int) -> BatchRunner:
        forward = BatchRunner(self, name="fake", dimension=4, size=size, limit=limit)
        for _ in range(batches):
            assert forward([None] * forward.size).shape[1] == 4
        return forward


def test_batch_size_grows_while_that_is_faster() -> None:
    assert Device(fixed=0.02, each=0).feed(4, 32, 12).size == 32


def test_batch_size_shrinks_without_gain() -> None:
    device = Device(fixed=0, each=0.005)
    forward = device.feed(4, 64, 12)
    assert (forward.size, forward.limit) == (4, 4)
    assert max(device.sizes) == 8


def test_out_of_memory_stops_the_growth() -> None:
    device = Device(fixed=0.01, each=0, memory=20)
    forward = device.feed(4, 512, 20)
    assert (forward.size, forward.limit) == (16, 16)
    assert device.sizes.count(32) == 1


def test_given_batch_size_is_fixed() -> None:
    device = Device(fixed=0.01, each=0)
    assert device.feed(4, 4, 6).size == 4 and set(device.sizes) == {4}


@pytest.mark.parametrize(
    ("device", "sizes"), [("cpu", (16, 16)), ("cuda:0", (64, 512)), (None, (16, 16))]
)
def test_initial_batch_sizes(device: str | None, sizes: tuple[int, int]) -> None:
    encoder = type("Encoder", (), {} if device is None else {"device": device})
    assert batch_sizes(encoder) == sizes
