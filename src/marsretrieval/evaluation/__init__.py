"""Run a benchmark of models x tasks, skip finished jobs, and write one result per pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marsretrieval.lazy import lazy_exports

if TYPE_CHECKING:
    from marsretrieval.encoders.identity import variant
    from marsretrieval.evaluation.jobs import Job, plan
    from marsretrieval.evaluation.runner import Finished, run

__all__ = ["Finished", "Job", "plan", "run", "variant"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "marsretrieval.encoders.identity": ("variant",),
        "marsretrieval.evaluation.jobs": (
            "Job",
            "plan",
        ),
        "marsretrieval.evaluation.runner": (
            "Finished",
            "run",
        ),
    },
)
