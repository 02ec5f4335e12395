"""Several results as one table per task, both protocols side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from marsretrieval.results import RunResult

__all__ = ["leaderboards"]
