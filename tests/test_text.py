"""Escaping of text from data in terminals, CSV, Markdown and LaTeX."""

from __future__ import annotations

import ast
import csv
import io
from pathlib import Path

import pytest

import marsretrieval.cli
from marsretrieval.cli.console import echo, print_json, say
from marsretrieval.report.render import console
from marsretrieval.text import format_degrees, format_metres, printable, table_cell
from tests.report.made import csv_of, latex_of, make_landform, markdown_of, result

STEER = "a\x1b[2J\x9b31m\x07\r\u202e\x7fb"
SHOWN = r"a\x1b[2J\x9b31m\x07\r\u202e\x7fb"


@pytest.mark.parametrize(
    ("metres", "text"),
    [(20_837.9, "20,838 m"), (1000.0, "1,000 m"), (511.44, "511.4 m"), (0.25, "0.25 m")],
)
def test_lengths_are_readable(metres: float, text: str) -> None:
    assert format_metres(metres) == text


def test_control_characters_are_escaped() -> None:
    assert printable(STEER) == SHOWN
    assert printable("two\nlines\tä 火星 \u00a0") == "two\nlines\tä 火星 \u00a0"
    assert printable("two\nlines", one_line=True) == r"two\nlines"


@pytest.mark.parametrize("text", ["=1+1", "+cmd|x", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_formulas_become_texts(text: str) -> None:
    assert table_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "E-004_N-04", "-12.5", "+3", "a=1", "clip", "'x"])
def test_other_texts_are_unchanged(text: str) -> None:
    assert table_cell(text) == text


def test_output_has_no_terminal_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    echo(STEER)
    say(STEER)
    print_json({"id": STEER})
    console().print(STEER, markup=False)
    captured = capsys.readouterr()
    for text in (captured.out, captured.err):
        assert text and not set(text) & set("\x1b\x9b\x07\r\u202e\x7f") - {"\u202e"}
    assert "\u202e" not in captured.err
    assert SHOWN in captured.err


def test_commands_print_through_the_console_module() -> None:
    folder = Path(marsretrieval.cli.__file__).parent
    names = {
        f"{path.name}:{node.lineno}": ast.unparse(node.func)
        for path in folder.glob("*.py")
        if path.name != "console.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    }
    assert not {where for where, name in names.items() if name == "print"}


def test_result_tables_contain_no_formulas_or_markup() -> None:
    outcome = make_landform()
    made = [
        result("landform", name, outcome)
        for name in ("=HYPERLINK(1)", "-1+2", "<b>x</b>", "https://x|y<i>", "a\x1bb", "![x](y)")
    ]
    rows = list(csv.reader(io.StringIO(csv_of(made))))
    assert {"'=HYPERLINK(1)", "'-1+2"} <= {row[0] for row in rows}
    assert all(float(row[7]) >= 0 for row in rows[1:])
    text = markdown_of(made)
    assert r"\<b\>x\<-b\>" in text and r"https---x\|y\<i\>" in text and r"!\[x\]" in text
    assert "\x1b" not in text + latex_of(made)


def test_degrees_have_a_singular() -> None:
    assert [format_degrees(value) for value in (0, 0.5, 1, 1.5)] == [
        "0 degrees", "0.5 degrees", "1 degree", "1.5 degrees",
    ]  # fmt: skip
