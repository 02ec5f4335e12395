"""Run a benchmark of models x tasks, skip finished jobs, and write one result per pair."""

from __future__ import annotations

from marsretrieval.evaluation.jobs import Job, plan, variant
from marsretrieval.evaluation.runner import Finished, run

__all__ = ["Finished", "Job", "plan", "run", "variant"]
