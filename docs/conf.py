"""Sphinx configuration: `make docs` builds site/ from the repository's Markdown, offline.

The source folder is the repository, so that a relative link leads to the same file on the site,
in a clone and on a code host.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_site"))

import marsretrieval

project = "MarsRetrieval"
author = "The MarsRetrieval developers"
copyright = f"2026, {author}"
version = release = marsretrieval.__version__

root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "docs/*/*.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "examples/README.md",
    "benchmarks/*/README.md",
]
exclude_patterns = [".venv", ".git", "site", "demo", "**/__pycache__", "**/.ipynb_checkpoints"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "reference",
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header", "ref.python"]  # headings of generated pages; equal class names

smartquotes = False  # options keep their two dashes
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_use_type_comments = False
autodoc_class_signature = "mixed"
napoleon_numpy_docstring = False
napoleon_attr_annotations = False  # the class signature has the types
python_maximum_signature_line_length = 80

html_theme = "furo"
html_title = "MarsRetrieval"
html_favicon = "_site/favicon.svg"
html_static_path = ["_site/static"]
html_css_files = ["extra.css"]
html_extra_path = ["_site/root"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#7a2e1d",
        "color-brand-content": "#a13c1f",
        "font-stack": 'system-ui, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif',
        "font-stack--monospace": 'ui-monospace, "SF Mono", "DejaVu Sans Mono", Menlo, monospace',
    },
    "dark_css_variables": {
        "color-brand-primary": "#f0a07f",
        "color-brand-content": "#f0a07f",
    },
}
