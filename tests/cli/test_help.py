"""Tests of `--help`: groups, metavars, defaults and examples."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from marsretrieval.cli.app import app
from marsretrieval.cli.help import EARLIER_NAMES, EXAMPLES

demo = importlib.import_module("marsretrieval.cli.demo")  # the package has the verb of this name


def commands(command: Any = None, name: str = "") -> Iterator[tuple[str, Any]]:
    command = command or typer.main.get_command(app)
    yield name, command
    for child_name, child in getattr(command, "commands", {}).items():
        yield from commands(child, f"{name} {child_name}".strip())


ALL = dict(commands())
VERBS = [name for name, command in ALL.items() if not hasattr(command, "commands")]


def help_of(name: str, columns: int = 80) -> str:
    done = CliRunner().invoke(app, [*name.split(), "-h"], env={"COLUMNS": str(columns)})
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("name", ALL)
def test_help_is_not_truncated_and_shows_no_python_types(name: str) -> None:
    text = help_of(name)
    assert not re.search(r"\w\.\.\.$", text, re.MULTILINE)
    assert "Raises:" not in text and "Args:" not in text
    assert not re.search(r"<[\w\[\] ]+>|\b(INTEGER|FLOAT)\b", text)


@pytest.mark.parametrize("name", VERBS)
def test_every_command_has_examples(name: str) -> None:
    lines = EXAMPLES[name].strip().splitlines()
    text = help_of(name)
    for line in lines:
        assert line.startswith(f"marsretrieval {name.removesuffix(' list')}")
        assert f"\n  {line}\n" in text, "an example is on one line, to be copied"


def test_examples_match_commands() -> None:
    assert set(EXAMPLES) == {"", *VERBS}


def test_options_and_commands_are_grouped() -> None:
    titles = re.findall(r"^(\S.*):$", help_of("search"), re.MULTILINE)
    assert titles == [
        "Options",
        "What to look for",
        "Which tiles, how many",
        "Point catalogues",
        "Files",
        "The model",
        "Examples",
    ]
    text = help_of("")
    assert text.index("\nStart here:") < text.index("\n  demo ") < text.index("\nBenchmark:")
    for name, command in ALL.items():
        if " " not in name and name:
            assert f"\n  {name} " in text
        options = [param for param in command.params if param.param_type_name == "option"]
        options = [option for option in options if not option.hidden]
        text_of_it = help_of(name)
        for option in (opt for param in options for opt in param.opts):
            is_listed = re.search(rf"(?<![\w-]){option}(?![\w-])", text_of_it) is not None
            assert is_listed != (option in EARLIER_NAMES), f"{name} {option}"


def test_defaults_and_choices_are_shown() -> None:
    text = " ".join(help_of("run").split())
    assert "--prompts paper|official" in text and "[default: paper]" in text
    assert "[default: results]" in text and "[required]" in text


def test_demo_shows_how_to_activate_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "activate").touch()
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert demo.activation_line() == f"\n  source {tmp_path / 'activate'}"
    monkeypatch.setattr("shutil.which", lambda name: "/somewhere/marsretrieval")
    assert demo.activation_line() == ""
