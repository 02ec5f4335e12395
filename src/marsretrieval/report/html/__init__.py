"""Self-contained HTML report: one file without external resources; scripting is optional."""

from __future__ import annotations

from marsretrieval.report.html.page import HtmlReport, write_html

__all__ = ["HtmlReport", "write_html"]
