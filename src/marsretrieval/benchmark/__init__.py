"""Models x tasks: plan what is to do, skip what is done, write one result for each pair."""

from __future__ import annotations

from marsretrieval.benchmark._plan import Job, plan, variant
from marsretrieval.benchmark._run import Finished, run

__all__ = ["Finished", "Job", "plan", "run", "variant"]
