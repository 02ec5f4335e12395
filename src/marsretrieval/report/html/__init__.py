"""Results as one self-contained HTML file: no network, no other files, no JavaScript needed."""

from __future__ import annotations

from marsretrieval.report.html.page import HtmlReport, write_html

__all__ = ["HtmlReport", "write_html"]
