"""Results in the formats of others: MTEB's results, and metadata of a model card."""

from __future__ import annotations

from marsretrieval.report.exports._hf import HF_FORMATS, hf_yaml
from marsretrieval.report.exports._mteb import MTEB_TASKS, mteb_results, write_mteb

__all__ = ["HF_FORMATS", "MTEB_TASKS", "hf_yaml", "mteb_results", "write_mteb"]
