"""Every kernel gives the same integers, and their bounds hold for every row."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marsretrieval.errors import UnknownNameError, UsageError
from marsretrieval.search import kernels
from marsretrieval.search.kernels import KERNELS, NumpyKernel, choose_kernel, exact_scores
from marsretrieval.search.quantization import quantize_queries, quantize_rows


def every_kernel() -> list[kernels.Kernel]:
    def numkong(*, tiles: bool) -> kernels.Kernel:
        kernel = kernels.NumkongKernel()
        kernel._tiles = tiles
        return kernel

    kernel_list: list[kernels.Kernel] = [NumpyKernel()]
    for make in (
        lambda: numkong(tiles=False),
        lambda: numkong(tiles=True),
        lambda: kernels.TorchKernel("cpu"),
    ):
        try:
            kernel_list.append(make())
        except kernels.MissingDependencyError:
            continue
    return kernel_list


@pytest.mark.parametrize("kernel", every_kernel(), ids=lambda kernel: kernel.name)
@pytest.mark.parametrize(
    ("rows", "dimension", "count", "extreme"),
    [
        (1, 1, 1, False),
        (37, 5, 3, False),
        (3, 40, 2, False),
        (1001, 64, 4, False),
        (700, 96, 20, False),
        (300, 3584, 64, False),
        (50, 2000, 2, True),  # sums beyond what float32 holds exactly
    ],
)
def test_kernel_sums_are_exact(
    kernel: kernels.Kernel, rows: int, dimension: int, count: int, extreme: bool
) -> None:
    rng = np.random.default_rng(rows)
    low = 126 if extreme else -127
    matrix = rng.integers(low, 128, (rows, dimension)).astype(np.int8)
    vectors = rng.integers(low, 128, (count, dimension)).astype(np.int8)
    norm = float(np.linalg.norm(matrix.astype(float), axis=1).max())
    sums = kernel.prepare(matrix, vectors, norm)
    wide = matrix.astype(np.int64) @ vectors.astype(np.int64).T
    np.testing.assert_array_equal(sums(0, rows).astype(np.int64), wide)
    np.testing.assert_array_equal(sums(rows // 3, rows).astype(np.int64), wide[rows // 3 :])


def test_best_available_kernel_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_kernel("auto").name in KERNELS
    assert choose_kernel("numpy") is choose_kernel("numpy")
    monkeypatch.setitem(kernels.sys.modules, "numkong", None)
    monkeypatch.setattr(kernels, "_ready", {})
    monkeypatch.delitem(kernels.sys.modules, "torch", raising=False)
    assert choose_kernel("auto").name == "numpy"
    with pytest.raises(kernels.MissingDependencyError, match=r"marsretrieval\[fast\]"):
        choose_kernel("numkong")
    with pytest.raises(UnknownNameError, match="numkong"):
        choose_kernel("numkon")


def test_missing_device() -> None:
    pytest.importorskip("torch")
    with pytest.raises(UsageError, match="cannot be used"):
        kernels.TorchKernel("cuda:99")


def exact(row: Any, query: Any) -> Fraction:
    pairs = zip(row.tolist(), query.tolist(), strict=True)
    return sum((Fraction(a) * Fraction(b) for a, b in pairs), Fraction(0))


@given(
    seed=st.integers(0, 2**32 - 1),
    dimension=st.integers(1, 48),
    spread=st.sampled_from([0.0, 1e-12, 1e-5, 1e-2, 1.0]),
    outlier=st.sampled_from([0.0, 0.99]),
    length=st.sampled_from([1e-20, 1.0, 1e6]),
    centre=st.sampled_from(["row", "none", "off"]),
)
@settings(max_examples=300, deadline=None)
def test_the_bound_encloses_the_exact_score(
    seed: int, dimension: int, spread: float, outlier: float, length: float, centre: str
) -> None:
    """Verify the bound in rational arithmetic, without rounding."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal(dimension) / np.sqrt(dimension)
    base[0] += outlier
    rows = base + spread * rng.standard_normal((6, dimension)) / np.sqrt(dimension)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows.astype(np.float16).astype(np.float32)
    queries = (length * rng.standard_normal((2, dimension))).astype(np.float32)
    queries[1] = rows[0] * np.float32(length)
    mean = {
        "row": rows[1].copy(),
        "none": np.zeros(dimension, np.float32),
        "off": (base + 0.3).astype(np.float32),
    }[centre]
    plane = quantize_rows(rows.copy(), mean)
    codes = plane.values.astype(np.float64)
    assert np.linalg.norm(codes, axis=1).max() <= plane.limits.norm
    assert np.linalg.norm(codes * plane.scale[:, None], axis=1).max() <= plane.limits.radius
    quantized = quantize_queries(queries, mean, plane.limits)
    sums = NumpyKernel().prepare(plane.values, quantized.codes, plane.limits.norm)
    scores = quantized.approximate(sums(0, 6), plane.scale, plane.axis_component)
    for row in range(6):
        for query in range(2):
            middle = quantized.offset[query] + quantized.scale[query] * float(scores[row, query])
            half = quantized.residual_norm[query] * float(plane.error[row]) + quantized.slack[query]
            true = exact(rows[row], queries[query])
            rounded = exact_scores(rows[row : row + 1], queries[query])[0]
            assert abs(Fraction(middle) - true) <= Fraction(half)
            assert middle - half <= float(rounded) <= middle + half


def test_component_along_the_mean_does_not_widen_the_bound() -> None:
    rng = np.random.default_rng(0)
    rows = np.full(256, 0.05) + 0.02 * rng.standard_normal((50, 256))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    mean = rows.mean(axis=0)
    plane = quantize_rows(rows.copy(), mean)
    codes = quantize_queries(rows[:1], mean, plane.limits)
    assert 0.3 < codes.residual_norm[0] < 0.5 and codes.slack[0] < 1e-4


@given(
    seed=st.integers(0, 2**32 - 1),
    dimension=st.integers(1, 64),
    coarse=st.booleans(),
    dtype=st.sampled_from([np.float16, np.float32]),
)
@settings(max_examples=200, deadline=None)
def test_scores_are_rounded_once(seed: int, dimension: int, coarse: bool, dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((8, dimension)) / np.sqrt(dimension)
    query = rng.standard_normal(dimension).astype(np.float32)
    if coarse:  # numbers with few bits meet the middle between two float32 often
        rows = np.round(rows * 8) / 8
        query = np.round(query * 4) / 4 + np.float32(2.0**-22)
    rows = rows.astype(dtype)
    rows[0, 0] = 2.0**-24  # subnormal in float16
    for row, score in zip(rows, exact_scores(rows, query.astype(np.float32)), strict=True):
        true = exact(row, query.astype(np.float32))
        gap = abs(Fraction(float(score)) - true)
        for way in (-np.inf, np.inf):
            other = np.nextafter(score, np.float32(way))
            rest = abs(Fraction(float(other)) - true)
            assert gap < rest or (gap == rest and not score.view(np.int32) % 2)
