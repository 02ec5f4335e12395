"""Models x tasks: plan what is to do, skip what is done, write one result for each pair."""

from __future__ import annotations

from marsretrieval.evaluation.jobs import Job, plan, variant
from marsretrieval.evaluation.runner import Finished, run

__all__ = ["Finished", "Job", "plan", "run", "variant"]
