"""Arguments of a wrong type are reported by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest

import marsretrieval
from marsretrieval.errors import (
    UsageError,
    as_float,
    as_int,
    as_optional,
    as_path,
    as_paths,
)


def test_convert_valid_values() -> None:
    assert as_path("a", "p") == as_path(PurePosixPath("a"), "p") == Path("a")
    assert as_paths(["a", Path("b")], "p") == [Path("a"), Path("b")]
    assert as_paths("a", "p") == [Path("a")] and as_paths([], "p") == []
    assert as_int(np.uint8(3), "k") == as_int(3.0, "k") == as_optional(as_int, 3.0, "k") == 3
    assert as_optional(as_int, None, "k") is None
    assert as_float(np.float32(0.5), "x") == 0.5


@pytest.mark.parametrize(
    ("convert", "value", "message"),
    [
        (as_path, None, "x is None, not a path"),
        (as_path, b"a", "x is b'a', not a path"),
        (as_path, "", "an empty path"),
        (as_path, "a\0", "null character"),
        (as_paths, 3, "x is 3, not a path"),
        (as_paths, ["a", None], "x is None, not a path"),
        (as_int, "3", "x is '3', not a whole number"),
        (as_int, float("nan"), "not a whole number"),
        (as_float, [1], r"x is \[1\], not a number"),
    ],
)
def test_report_wrong_values(convert: Callable[..., Any], value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        convert(value, "x")


_MR = marsretrieval


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: _MR.evaluate("mars-nano", tasks=3), "3 is not a task"),
        (lambda: _MR.evaluate("mars-nano", tasks=[None]), "None is not a task"),
        (lambda: _MR.evaluate("mars-nano", data=None), "data is None, not a path"),
        (lambda: _MR.evaluate("mars-nano", results=3), "results is 3, not a path"),
        (lambda: _MR.evaluate("mars-nano", tiles_store=3), "tiles_store is 3"),
        (lambda: _MR.evaluate("mars-nano", limit="x"), "limit is 'x'"),
        (lambda: _MR.evaluate("mars-nano", seed="a"), "seed is 'a'"),
        (lambda: _MR.evaluate("mars-nano", seed=1.5), "seed is 1.5"),
        (lambda: _MR.evaluate("mars-nano", resamples=1.5), "resamples is 1.5"),
        (lambda: _MR.evaluate("mars-nano", batch_size="a"), "batch_size is 'a'"),
        (lambda: _MR.evaluate("mars-nano", workers="a"), "workers is 'a'"),
        (lambda: _MR.evaluate("mars-nano", dim="a"), "dim is 'a'"),
        (lambda: _MR.evaluate("mars-nano", name=3), "3 cannot be the name of a folder"),
        (lambda: _MR.build_store("mars-nano", None, "s"), "images is None, not a path"),
        (lambda: _MR.build_store("mars-nano", "t", None), "store is None, not a path"),
        (lambda: _MR.load_model("mars-nano", device=None), "device is None, not a text"),
        (lambda: _MR.load_model("mars-nano", dtype=None), "dtype is None, not a text"),
        (lambda: _MR.load_model("mars-nano", checkpoint=3), "checkpoint is 3, not a path"),
        (lambda: _MR.open_store(None), "path is None, not a path"),
        (lambda: _MR.load_results(None), "path is None, not a path"),
        (lambda: _MR.open_inventory(3), "name is 3, not a path"),
    ],
)
def test_public_functions_name_the_argument(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()
