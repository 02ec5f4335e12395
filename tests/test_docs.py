"""The documentation covers all commands, options, models, tasks and metrics, and its links work."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from marsretrieval.cli.app import app
from marsretrieval.encoders import all_specs
from marsretrieval.metrics import geolocalization, landform, paired
from marsretrieval.report.columns import COLUMNS
from marsretrieval.results import PROTOCOLS
from marsretrieval.tasks import TASKS
from tests.doc_pages import (
    DOCS,
    FENCED,
    MARSRETRIEVAL,
    PAGES,
    ROOT,
    WALKED,
    blocks,
    commands,
    lines_of,
    name_of,
    write_orthoimage,
)

# Real data, a trained checkpoint, or tried elsewhere.
NEEDS_MORE = re.compile(r"--data data\b|epoch_10|^make |^bash |^export ")


def parse(words: list[str], command: Any = None, context: Any = None) -> None:
    """Parse a command line with the real parsers of all subcommands; raise their errors."""
    command = command or typer.main.get_command(app)
    context = command.make_context(words[0], list(words[1:]), parent=context)
    if hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, inner, rest = command.resolve_command(context, rest)
        parse([name, *rest], inner, context)


@pytest.mark.parametrize(("page", "line"), MARSRETRIEVAL)
def test_every_command_in_the_docs_parses(page: str, line: str) -> None:
    words = re.sub(r"\$\{?\w+\}?/\$\{?\w+\}?", "1/2", line.split(" | ")[0].split(" >")[0])
    words = words.replace("$count", "1")
    parse(shlex.split(words))


@pytest.mark.parametrize(
    "wrong",
    ["no-such-verb", "run --no-such-option", "data no-such-verb", "score paired --radius 1"],
)
def test_parser_detects_invalid_commands(wrong: str) -> None:
    with pytest.raises(Exception, match=r"[Nn]o such (option|command)|Missing option"):
        parse(["marsretrieval", *wrong.split()])


def test_the_docs_have_commands() -> None:
    assert len(MARSRETRIEVAL) > 60


@pytest.mark.parametrize(
    ("page", "line"), [word for word in commands() if word not in MARSRETRIEVAL]
)
def test_other_commands_refer_to_existing_files(page: str, line: str) -> None:
    words = [word for word in shlex.split(line) if "=" not in word]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for first, second in pairwise(words):
        if first in ("bash", "python", "sbatch") and "/" in second:
            assert (ROOT / second).exists(), f"{page}: {line}"
        if first == "-m" and second.startswith("benchmarks."):
            assert importlib.util.find_spec(second), f"{page}: {line}"
        if first == "make" and second != "&&":
            assert second in targets, f"{page}: {line}"


@pytest.mark.parametrize("page", WALKED)
def test_a_page_can_be_walked_through(
    page: str,
    tiny_planet: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "planet").symlink_to(tiny_planet)
    if page == "howto/planet.md":
        write_orthoimage(tmp_path / "ESP_020245_2190_RED.JP2")
    ran = 0
    for language, block in FENCED.findall((DOCS / page).read_text()):
        if language == "python" and not NEEDS_MORE.search(block):
            named = re.match(r"# (\w+\.py)\n", block)
            script = Path(named[1] if named else "script.py")
            script.write_text(block)
            sys.modules.pop(script.stem, None)  # of the same name, from another test
            if not named:
                runpy.run_path("script.py", run_name="__main__")
        elif language == "bash":
            for line in lines_of(block):
                if NEEDS_MORE.search(line):
                    continue
                program, *words = shlex.split(line)
                if program == "python":
                    runpy.run_path(words[0], run_name="__main__")
                elif words[:2] != ["data", "download"]:
                    assert program == "marsretrieval", line
                    exit_code = app(words, standalone_mode=False)
                    assert not exit_code, f"{line}: {capsys.readouterr().err}"
                ran += 1
    assert ran or "script.py" in {path.name for path in tmp_path.iterdir()}
    for name in [name for name, module in sys.modules.items() if _from(module, tmp_path)]:
        del sys.modules[name]


def test_the_class_of_the_page_on_models_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.encoders.tiny_transformers import save_tiny

    page = DOCS / "howto" / "model.md"
    (block,) = blocks(page, "python")
    (command,) = [
        entry for entry in commands() if entry[0] == name_of(page) and "MyClip" in entry[1]
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("my_clip.py").write_text(block)
    save_tiny("clip", tmp_path / "folder-of-my-clip")
    assert not app(shlex.split(command[1])[1:], standalone_mode=False)
    assert "ok: yes" in capsys.readouterr().out
    sys.modules.pop("my_clip")


def _from(module: Any, folder: Path) -> bool:
    return str(getattr(module, "__file__", None) or "").startswith(str(folder))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_blocks_compile(page: Path) -> None:
    for block in blocks(page, "python"):
        ast.parse(block, name_of(page))


def slugs(page: Path) -> set[str]:
    """Return the anchors of GitHub and those written by hand."""
    text = page.read_text()
    anchors = set(re.findall(r'<a id="([^"]+)"', text))
    for title in re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower()
        anchors.add(re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-"))
    return anchors


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_and_anchor_resolves(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", FENCED.sub("", page.read_text()))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if ":" in target:
            continue
        path, _, anchor = target.partition("#")
        target_path = (page.parent / path).resolve() if path else page
        assert target_path.exists(), f"{name_of(page)}: {target}"
        if anchor:
            assert anchor in slugs(target_path), f"{name_of(page)}: {target}"


@cache
def prose() -> str:
    return "\n".join(page.read_text() for page in PAGES)


def verbs(command: Any = None, name: str = "marsretrieval") -> Iterator[tuple[str, Any]]:
    command = command or typer.main.get_command(app)
    inner = getattr(command, "commands", {})
    for child_name, child in inner.items():
        yield from verbs(child, f"{name} {child_name}")
    if not inner:
        yield name, command


@pytest.mark.parametrize(("name", "command"), list(verbs()), ids=[name for name, _ in verbs()])
def test_every_command_is_shown_and_every_option_explained(name: str, command: Any) -> None:
    short = {"marsretrieval models list": "marsretrieval models"}  # with a group's default verb
    assert short.get(name, name) in prose(), f"no page shows {name}"
    assert command.help, f"{name} has no help"
    for param in command.params:
        assert param.help, f"{name} {param.name} has no help"


@pytest.mark.parametrize("record", all_specs(), ids=lambda record: record.id)
def test_every_model_is_documented(record) -> None:
    assert f"`{record.id}`" in (DOCS / "MODELS.md").read_text()


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_task_is_documented(task) -> None:
    assert f"`{task.name}`" in (ROOT / "README.md").read_text()
    assert task.folder_name in (DOCS / "DATASET.md").read_text()


def figures(task: str) -> set[str]:
    """Return all keys of an evaluation under both protocols, with parts of metrics."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(6, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    lonlat = rng.uniform(0, 2, size=(6, 2))
    if task == "paired-image-text":
        evaluation = paired.evaluate(rows, rows)
    elif task == "landform":
        evaluation = landform.evaluate(
            rows, rows[:2], labels=list("ababab"), image_ids=list("123456"), query_names=["a", "b"]
        )
    else:
        evaluation = geolocalization.evaluate(
            -np.arange(6.0),
            ids=list("123456"),
            published_lonlat=lonlat,
            centre_lonlat=lonlat,
            truth_lonlat=lonlat[:3],
            all_centre_lonlat=lonlat,
        )
    return {key for metrics in (evaluation.published, evaluation.strict) for key in _keys(metrics)}


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield key
            if key != "per_class":  # classes, and the same figures again
                yield from _keys(child)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_metric_is_defined(task) -> None:
    protocol = (DOCS / "PROTOCOL.md").read_text()
    printed_keys = {
        part
        for _, columns in COLUMNS[task.name]
        for column in columns
        for metric in map(column.metric, PROTOCOLS)
        if metric
        for part in metric.key.split(".")
    }
    missing = {
        key
        for key in figures(task.name) | printed_keys
        if not re.search(rf"`{re.escape(key)}`", protocol)
    }
    assert not missing, f"docs/PROTOCOL.md does not define {sorted(missing)}"


def test_every_extra_is_documented() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (DOCS / "INSTALL.md").read_text()
    for extra in project["optional-dependencies"]:
        assert f"`{extra}`" in page, extra


def test_documented_doctor_output_is_current() -> None:
    from marsretrieval.encoders import doctor

    code = Path(doctor.__file__).read_text()
    code = re.sub(r'"\s*\n\s*f?"', "", code)
    table = (DOCS / "INSTALL.md").read_text().split("| message | remedy |")[1].split("\n\n")[0]
    quoted = re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)
    assert len(quoted) > 4
    for line in quoted:
        for part in re.split(r" \.\.\. |torch is|\(.+\)", line):
            assert part.strip() in code, line


def test_settings_and_columns_of_the_scripts_are_documented(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    summary = importlib.import_module("_summary")
    page = (DOCS / "SCRIPTS.md").read_text()
    columns = {name for task in TASKS for name in summary.columns(task.name)}
    code = "".join(path.read_text() for path in (ROOT / "scripts").glob("_*.py"))
    for name in columns | set(re.findall(r"MARSRETRIEVAL_[A-Z]+", code)):
        assert f"`{name}`" in page, name
