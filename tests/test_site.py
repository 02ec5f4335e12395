"""The documentation site builds without warnings or network access, and is complete."""

from __future__ import annotations

import html
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from marsretrieval.cli.help import EARLIER_NAMES

pytest.importorskip("sphinx", reason="needs the extra docs")

ROOT = Path(__file__).parent.parent
FACES = (
    "api",
    "encoders",
    "datasets",
    "embeddings",
    "search",
    "tasks",
    "geo",
    "plotting",
    "results",
    "errors",
)
METRICS = ("paired", "landform", "geolocalization", "ranking", "bootstrap", "difference")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    refusing = "http://127.0.0.1:9"  # any request to the network fails
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    command += ["-D", "toc_object_entries=0"]  # sidebar entries per object: slow, and not tested
    done = subprocess.run(
        [*command, "-c", "docs", "-d", str(folder / "doctrees"), ".", str(folder / "html")],
        cwd=ROOT,
        env={**os.environ, "HTTP_PROXY": refusing, "HTTPS_PROXY": refusing},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


def text_of(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text()))


def test_pages_load_nothing_from_other_hosts(site: Path) -> None:
    for page in site.rglob("*.html"):
        for tag in re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", page.read_text()):
            assert not re.search(r'(?:src|href)="(?:https?:)?//', tag), f"{page}: {tag}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:|@import", sheet.read_text()), sheet


def test_command_line_reference_is_complete(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_site"))
    reference = importlib.import_module("reference")
    page = text_of(site / "docs" / "cli.html")
    names = []
    for name, command, _ in reference.commands():
        names.append(name)
        assert name in page
        for param in command.params:
            if param.param_type_name == "option":
                options = [option for option in param.opts if option not in EARLIER_NAMES]
                assert all(option in page for option in options), f"{name} {options}"
            else:
                metavar = param.metavar or param.name
                assert metavar in page, f"{name} {metavar}"
    assert len(names) > 20


def public_names(module: ModuleType) -> list[str]:
    own = [
        name
        for name, value in vars(module).items()
        if name[0] != "_" and getattr(value, "__module__", "") == module.__name__
    ]
    return list(getattr(module, "__all__", own))


@pytest.mark.parametrize("name", [*FACES, *(f"metrics.{name}" for name in METRICS)])
def test_every_public_name_is_on_its_page(name: str, site: Path) -> None:
    module = importlib.import_module(f"marsretrieval.{name}")
    page = "results" if name == "errors" else name.split(".")[0]
    html = (site / "docs" / "api" / f"{page}.html").read_text()
    for public in public_names(module):
        value = getattr(module, public)
        ours = str(getattr(value, "__module__", "")).startswith("marsretrieval")
        # Constants and type aliases have no docstring of their own.
        if ours and (inspect.isclass(value) or inspect.isfunction(value)):
            entry = f"{module.__name__}.{public}"
            assert f'id="{entry}"' in html, f"{entry} has no entry: give it a docstring"


def test_every_page_is_in_the_menu(site: Path) -> None:
    menu = (site / "docs" / "index.html").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        if page.name != "index.md":
            address = page.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
            assert f'href="{address}"' in menu, address


def test_pages_outside_the_docs_folder_are_on_the_site(site: Path) -> None:
    assert "marsretrieval" in text_of(site / "CONTRIBUTING.html")
    assert 'href="../CONTRIBUTING.html"' in (site / "docs" / "index.html").read_text()
    assert 'href="docs/MODELS.html"' in (site / "CONTRIBUTING.html").read_text()
    assert "docs/index.html" in (site / "index.html").read_text()


def test_examples_can_be_downloaded(site: Path) -> None:
    assert "slurm_embed.sh" in (site / "docs" / "SCALE.html").read_text()
    assert list(site.rglob("_downloads/**/slurm_embed.sh"))


def test_doc_images_are_small_and_made_by_the_script() -> None:
    script = (ROOT / "docs" / "_site" / "images.py").read_text()
    for picture in (ROOT / "docs" / "img").iterdir():
        assert picture.stat().st_size < 300_000, picture
        assert picture.name in script
