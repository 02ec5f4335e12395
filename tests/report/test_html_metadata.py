"""Metadata of the report: times, skipped items and commands."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

from marsretrieval.report.grouping import result_sets
from marsretrieval.report.html import metadata
from marsretrieval.report.result_files import ResultFile
from tests.report.made import make_landform, make_paired, result, write
from tests.report.pages import page_of


def test_times_are_shown_if_recorded(results: list[Path], tmp_path: Path) -> None:
    page = page_of(results, tmp_path / "report.html")
    rows = {(row[0], row[1]): row[2:] for row in page.section("time").one("table").rows()}
    assert len(rows) == len(results)
    assert rows["sharp-1 cpu", "Landform retrieval"] == [
        "400", "0.97", "–", "–", "12 %", "3.40", "4.00", "3.00", "0.20", "–", "0.50",
    ]  # fmt: skip
    assert rows["eyes-only cpu", "Global geo-localization"][:2] == ["–", "–"]


def test_peak_memory_is_in_the_time_table(tmp_path: Path) -> None:
    made = make_landform()
    recorded = {
        "measured": {"peak_memory_bytes": 3 * 2**30, "peak_gpu_memory_bytes": 2**29},
        "invalid": {"peak_memory_bytes": -1, "peak_gpu_memory_bytes": "many"},
        "older": {},
    }
    paths = []
    for name, memory in recorded.items():
        base = result("landform", name, made)
        paths.append(
            write(replace(base, hardware={**base.hardware, **memory}), made, tmp_path / name)
        )
    table = page_of(paths, tmp_path / "report.html").section("time").one("table")
    headings = [cell.text for cell in table.one("thead").all("th")]
    memory, gpu = headings.index("memory"), headings.index("GPU memory")
    cells = {row[0].split()[0]: (row[memory], row[gpu]) for row in table.rows()}
    assert cells == {
        "measured": ("3.00 GiB", "0.50 GiB"), "invalid": ("–", "–"), "older": ("–", "–"),
    }  # fmt: skip


def test_long_times_are_formatted_briefly() -> None:
    from marsretrieval.report.html.page import format_rate, format_seconds

    assert [format_seconds(item) for item in (None, 0.5, 42, 900, 7200)] == [
        "–", "0.50", "42.0", "15 min", "2.0 h",
    ]  # fmt: skip
    assert [format_rate(item) for item in (0.31, 19.96, 1234.4)] == ["0.3", "20.0", "1,234"]


def test_skipped_items_are_counted_by_reason(tmp_path: Path) -> None:
    made = make_landform()
    gone = [
        {"id": f"i{n}", "source": f"a.tar:i{n}.png", "reason": "cannot be decoded"}
        for n in range(5)
    ]
    own = [{"id": "x", "source": "b.tar:x.png", "reason": "too large"}]
    paths = [
        write(result("landform", "a", made, data={"skipped": gone}), made, tmp_path / "a"),
        write(result("landform", "b", made, data={"skipped": gone + own}), made, tmp_path / "b"),
    ]
    page = page_of(paths, tmp_path / "report.html")
    first, second = page.section("left-out").all("table")[0].rows()
    assert first[0] == "Made-landform" and first[1:3] == ["5", "cannot be decoded"]
    assert first[3] == "a.tar:i0.png, a.tar:i1.png, a.tar:i2.png, …"
    assert second == ["Made-landform b only", "1", "too large", "b.tar:x.png"]


def test_commands_reproduce_the_results(tmp_path: Path) -> None:
    from typer.main import get_command

    from marsretrieval.cli.app import app

    synthetic = {"synthetic": True, "seed": 3, "name": "Mars-Landforms"}
    real = {
        "repository": "who/what",
        "revision": "a1b2",
        "variant": "whole",
        "name": "Mars-VL-Pairs",
    }
    landform, pairs = make_landform(), make_paired()
    plain = result("landform", "a", landform, data=synthetic)
    odd = replace(
        plain,
        model={**plain.model, "id": "my.module:Class", "checkpoint": "/a b/c.pt",
               "prompts": {"preset": "official"}},
    )  # fmt: skip
    theirs = replace(
        plain, model={**plain.model, "id": "mteb:x/y", "prompts": {"preset": "MTEB's"}}
    )
    files = [
        ResultFile(plain),
        ResultFile(odd),
        ResultFile(theirs),
        ResultFile(result("paired-image-text", "a", pairs, data=real), tmp_path / "a+float16/x"),
    ]
    lines = metadata.commands(result_sets(files))
    assert lines[0] == (
        "marsretrieval data download paired --out data --revision a1b2 --variant whole"
    )
    assert lines[1] == "marsretrieval data synth --out data --seed 3"
    assert "marsretrieval run -m a -t paired-image-text -t landform --data data --seed 0" in lines
    assert "marsretrieval run -m mteb:x/y -t landform --data data --seed 0" in lines
    command = get_command(app)
    for line in lines:
        words = shlex.split(line)[1:]
        context = command
        while words and hasattr(context, "commands"):
            context = context.commands[words.pop(0)]
        context.make_context("marsretrieval", words)
    assert any("--checkpoint '/a b/c.pt' -t" in line for line in lines)


def test_versions_that_differ_are_all_named(tmp_path: Path) -> None:
    one = result("landform", "a", make_landform())
    other = replace(one, model={**one.model, "id": "b"}, versions={**one.versions, "numpy": "2.0"})
    versions = dict(metadata.versions(result_sets([ResultFile(one), ResultFile(other)])))
    assert versions["numpy"] == "2.4.6 or 2.0" and versions["python"] == "3.11.7"
    assert versions["hardware"] == "2 CPUs, 8.0 GiB, cpu"


def test_truncated_captions_are_listed_with_their_model(
    results: list[Path], tmp_path: Path
) -> None:
    page = page_of(results, tmp_path / "report.html")
    panels = [item.text for item in page.section("reproduction").all("div", class_="panel")]
    assert any("sharp-1" in panel and "1 of 120" in panel for panel in panels)
    assert any("0" * 64 in panel and "apache-2.0" in panel for panel in panels)


def test_synthetic_data_are_labelled(results: list[Path], tmp_path: Path) -> None:
    assert "Synthetic data" not in page_of(results, tmp_path / "a.html").source
    value = json.loads(results[1].read_text())
    value["data"]["synthetic"] = True
    path = tmp_path / "landform.json"
    path.write_text(json.dumps(value))
    assert "Everything here was" in page_of([path], tmp_path / "b.html").section("summary").text
    assert "Some of the sets" in page_of([path, results[0]], tmp_path / "c.html").source


def test_control_characters_of_names_are_escaped(tmp_path: Path) -> None:
    outcome = make_landform(names=["a\x1b]0;t\x07", "b\x00<b>", "c\x9b2J", "d"])
    path = write(result("landform", "m\x1b[2J", outcome), outcome, tmp_path)
    page_of([path], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
    assert r"m\x1b[2J" in text and r"b\x00&lt;b&gt;" in text
