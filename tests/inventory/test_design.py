from __future__ import annotations

import numpy as np
import pytest

from marsretrieval.inventory.estimates import (
    MAX_DRAWN,
    allocation_width,
    draw_order,
    next_stratum,
    strata_sizes,
)


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (0, []),
        (1, [1]),
        (480, [480]),
        (481, [300, 181]),
        (1500, [300, 1200]),
        (6300, [300, 1200, 4800]),
        (25_500, [300, 1200, 4800, 19_200]),
        (1_400_000, [300, 1200, 4800, 19_200, 76_800, 307_200, 990_500]),
    ],
)
def test_strata_grow_by_four(count: int, sizes: list[int]) -> None:
    assert strata_sizes(count) == sizes
    assert sum(strata_sizes(count)) == count


@pytest.mark.parametrize("size", [1, 300, 4800, 150_000])
def test_a_draw_repeats_with_its_seed_and_has_no_doubles(size: int) -> None:
    order = draw_order(size, 7, 2)
    assert (order == draw_order(size, 7, 2)).all()
    assert len(np.unique(order)) == len(order) == min(size, MAX_DRAWN)
    assert order.min() >= 0 and order.max() < size
    if size > 1:
        assert (order != draw_order(size, 8, 2)).any()
        assert (order != draw_order(size, 7, 1)).any()


def test_every_prefix_of_a_draw_is_a_fair_sample() -> None:
    chosen = np.concatenate([draw_order(40, seed, 0)[:10] for seed in range(2000)])
    counts = np.bincount(chosen, minlength=40)  # 500 expected, standard deviation 19.4
    assert abs(counts - 500).max() < 4.5 * 19.4


def test_the_next_tiles_go_where_they_narrow_the_interval_most() -> None:
    sizes, sampled, positive = [300, 1200, 4800], [20, 20, 20], [15, 3, 0]
    best = int(next_stratum(sizes, sampled, positive))
    rates = np.minimum.accumulate((np.array(positive) + 0.5) / 21)
    widths = []
    for stratum in range(3):
        more = np.array(sampled)
        more[stratum] += 25
        widths.append(float(allocation_width(sizes, more, rates)))
    assert best == int(np.argmin(widths))


def test_exhausted_strata_are_skipped() -> None:
    assert next_stratum([30, 1200], [30, 50], [30, 0]) == 1
    assert next_stratum([30, 40], [30, 40], [3, 0]) == -1


def test_allocation_of_many_audits_at_once() -> None:
    sampled = np.array([[20, 20], [300, 20], [300, 1200]])
    positive = np.array([[10, 0], [90, 1], [90, 4]])
    together = next_stratum([300, 1200], sampled, positive)
    apart = [int(next_stratum([300, 1200], n, x)) for n, x in zip(sampled, positive, strict=True)]
    assert together.tolist() == apart
