"""What mkdocs does besides: pages made from the code, and pages that live outside docs/.

CONTRIBUTING.md, CHANGELOG.md, the examples and the READMEs of the benchmarks become pages under
the paths that they have in the repository, and links follow: `../CONTRIBUTING.md` in a page of
docs/ and `docs/STORE.md` in CONTRIBUTING.md both lead to the page on the site.
"""

from __future__ import annotations

import json
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))

import reference

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = ("CONTRIBUTING.md", "CHANGELOG.md", "examples/*", "benchmarks/*/README.md")
LANGUAGES = {".py": "python", ".sh": "bash"}
_LINK = re.compile(r"(?<!\!)(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
_FENCE = re.compile(r"(^```.*?^```)", re.DOTALL | re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    listed = [
        {path.parent.name.capitalize(): path.relative_to(ROOT).as_posix()}
        for path in outside()
        if path.match("benchmarks/*/README.md")
    ]
    section = _section(config.nav or [], "Benchmarks")
    if section is not None and not section:
        section.extend(listed)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    generated = {"cli.md": reference.command_line(), "catalogue.md": reference.catalogue()}
    for name, text in generated.items():
        files.append(File.generated(config, name, content=text))
    for path in outside():
        where = path.relative_to(ROOT).as_posix()
        if files.get_file_from_path(site_path(where)) is None:
            listed = path.suffix == ".md"
            files.append(
                File.generated(
                    config,
                    site_path(where),
                    content=as_page(path),
                    inclusion=InclusionLevel.INCLUDED if listed else InclusionLevel.NOT_IN_NAV,
                )
            )
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links by the layout of the repository become links by the layout of the site."""
    here = page.file.src_uri
    markdown = markdown.replace("<!-- errors -->", f"```text\n{reference.errors()}\n```")
    parts = _FENCE.split(markdown)
    return "".join(
        part if at % 2 else _LINK.sub(lambda found: relinked(found, here), part)
        for at, part in enumerate(parts)
    )


def _section(nav: list[Any], title: str) -> list[Any] | None:
    """The entries of the section `title`, at any depth."""
    for entry in nav:
        for name, inner in entry.items() if isinstance(entry, dict) else ():
            if isinstance(inner, list):
                if name == title:
                    return inner
                if (found := _section(inner, title)) is not None:
                    return found
    return None


def outside() -> list[Path]:
    found = [path for pattern in OUTSIDE for path in sorted(ROOT.glob(pattern))]
    return [path for path in found if path.suffix in (".md", ".ipynb", *LANGUAGES)]


def site_path(where: str) -> str:
    """Path on the site (a page's source) of a file of the repository."""
    where = where.removeprefix("docs/")
    return where if where.endswith(".md") else f"{where}.md"


def relinked(found: re.Match[str], here: str) -> str:
    before, target, after = found.groups()
    if ":" in target:
        return found[0]
    inside = not any(here == site_path(str(path.relative_to(ROOT))) for path in outside())
    origin = posixpath.dirname(f"docs/{here}" if inside else here)
    where = posixpath.normpath(posixpath.join(origin, target))
    if where == "README.md":
        where = "docs/index.md"
    known = where.startswith("docs/") or any(ROOT / where == path for path in outside())
    if not known:
        return found[0]  # mkdocs warns, and with --strict the build fails
    path = site_path(where) if where.endswith(".md") or not where.startswith("docs/") else where[5:]
    return before + posixpath.relpath(path, posixpath.dirname(here) or ".") + after


def as_page(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    if path.suffix == ".ipynb":
        return notebook(json.loads(text), path.name)
    return f"# {path.name}\n\n```{LANGUAGES[path.suffix]}\n{text}```\n"


def notebook(content: dict[str, Any], name: str) -> str:
    """Text and code of a notebook; its outputs are for those who run it."""
    parts = []
    for cell in content["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    titled = parts and parts[0].startswith("# ")
    return "\n\n".join(parts if titled else [f"# {name}", *parts]) + "\n"
