"""Two models on the same items: which is better, by how much, how surely, and on which queries."""

from __future__ import annotations

from marsretrieval.report.compare._compare import compare_results
from marsretrieval.report.compare._comparison import Comparison, Group, Moved
from marsretrieval.report.compare._console import print_comparison
from marsretrieval.report.compare._match import Match, match_results

__all__ = [
    "Comparison",
    "Group",
    "Match",
    "Moved",
    "compare_results",
    "match_results",
    "print_comparison",
]
