"""The documentation names what there is, and only that."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

from marsretrieval.cli._app import app
from marsretrieval.encoders import all_records
from marsretrieval.tasks import TASKS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@cache
def help_of(*verbs: str) -> str | None:
    """The help text of a verb; None where there is none."""
    done = CliRunner().invoke(app, [*verbs, "--help"])
    return done.output if done.exit_code == 0 else None


def commands() -> list[tuple[str, str]]:
    """(page, command line) of every `marsretrieval ...` line in a code block."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if line.strip().startswith("marsretrieval "):
                    found.append((page.name, line.split("#")[0].strip()))
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_in_the_docs_exists(page: str, line: str) -> None:
    words = shlex.split(line)[1:]
    verbs = [words[0]]
    if len(words) > 1 and not words[1].startswith("-") and help_of(words[0], words[1]):
        inner = help_of(words[0], words[1])
        verbs = words[:2] if inner != help_of(words[0]) else verbs
    shown = help_of(*verbs)
    assert shown is not None, f"{page}: no verb {' '.join(verbs)}"
    for word in words[len(verbs) :]:
        if word.startswith("-") and not re.match(r"-\d", word):
            option = word.split("=")[0]
            assert re.search(rf"(^|[\s,]){re.escape(option)}\b", shown), f"{page}: {line}: {option}"


def test_the_docs_have_commands() -> None:
    assert len(commands()) > 10


@pytest.mark.parametrize("record", all_records(), ids=lambda record: record.id)
def test_every_model_is_documented(record) -> None:
    assert f"`{record.id}`" in (ROOT / "docs" / "MODELS.md").read_text()


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_task_is_documented(task) -> None:
    assert f"`{task.name}`" in (ROOT / "README.md").read_text()
    assert task.folder_name in (ROOT / "docs" / "DATASET.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+\.md)", page.read_text()):
        assert (page.parent / target).exists(), target
