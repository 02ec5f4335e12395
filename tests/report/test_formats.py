"""Tables of results as Markdown, LaTeX and CSV contain exactly the metrics of the results."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from marsretrieval.cli.app import app
from marsretrieval.report.grouping import labels
from marsretrieval.report.table import published_elsewhere, references_for
from marsretrieval.report.tables import model_tables
from marsretrieval.results import RunResult, read_result
from tests.report.made import (
    csv_of,
    latex_of,
    make_landform,
    make_paired,
    markdown_of,
    print_results,
    result,
)

SPECIAL = r"50%_of|a*b&c$#{~^}\<x>[y]"


@pytest.fixture(scope="module")
def run_results(results: list[Path]) -> list[RunResult]:
    return [read_result(path) for path in results]


def lines_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def look_up(result: RunResult, group: str, protocol: str, metric: str) -> Any:
    if group.startswith("class/"):
        name = group.removeprefix("class/")
        return result.metrics["all"][protocol]["per_class"][name][metric]
    value = result.metrics[group][protocol]
    for part in (metric,) if metric in value else metric.split("."):
        value = value[part]
    return value


def test_every_csv_line_is_a_metric_of_a_result(run_results: list[RunResult]) -> None:
    by_place = {(item.model["id"], item.task): item for item in run_results}
    lines = lines_of(csv_of(run_results, details=True))
    chance = [line for line in lines if line["source"]]
    assert {(line["model"], line["source"]) for line in chance} == {("chance", "random ranking")}
    lines = [line for line in lines if not line["source"]]
    for line in lines:
        of = by_place[line["model"], line["task"]]
        value = look_up(of, line["group"], line["protocol"], line["metric"])
        assert float(line["value"]) == value  # to the last digit
        assert line["set_hash"] == of.data["set_hash"] and not line["source"]
        ends = of.metrics.get(line["group"], {}).get("intervals", {}).get(line["protocol"], {})
        low, high = ends.get(line["metric"], ("", ""))
        assert [line["low"], line["high"]] == [str(low), str(high)]
        basis = of.metrics.get(line["group"], {}).get("interval_basis", {}).get(line["protocol"])
        count = str(basis["count"]) if basis and line["low"] else ""
        assert line["interval_count"] == count
    counts = Counter((x["model"], x["task"], x["group"], x["protocol"], x["metric"]) for x in lines)
    assert set(counts.values()) == {1}
    assert len({x["group"] for x in lines if x["task"] == "landform"}) == 1 + 8
    paired = [x for x in lines if x["task"] == "paired-image-text"]
    assert len(paired) == 2 * (2 * 8 + 2) and {x["n"] for x in paired} == {"pairs=120"}
    points = {x["metric"] for x in lines if x["task"] == "geolocalization"}
    assert {"auprc", "average_precision", "normalised", "relevant_tiles", "best.k"} <= points
    for line in chance:
        of = next(item for (_, task), item in by_place.items() if task == line["task"])
        group = "all" if line["group"].startswith("class/") else line["group"]
        expected = replace(of, metrics={group: of.metrics[group]["chance"]})
        value = look_up(expected, line["group"], line["protocol"], line["metric"])
        assert float(line["value"]) == value and not line["low"]
    assert {"auprc", "average_precision", "best.f1", "best.k", "normalised"} == {
        line["metric"] for line in chance if line["task"] == "geolocalization"
    } & {"auprc", "average_precision", "best.f1", "best.k", "normalised"}


def test_all_formats_show_the_same_numbers(run_results: list[RunResult]) -> None:
    """Check that every number of the tables is a rounded number of the CSV."""
    lines = lines_of(csv_of(run_results, references=False))
    expected = set()
    for line in lines:
        for value in filter(None, (line["value"], line["low"], line["high"])):
            expected |= {
                f"{100 * float(value):.1f}",
                f"{float(value):,.0f}",
                f"{float(value):,.1f}",
            }
    for text in (
        markdown_of(run_results, references=False),
        latex_of(run_results, references=False),
    ):
        cells = re.findall(r"(?<![\w.])\d[\d,]*\.\d+(?![\w.])", text)
        assert len(cells) > 80 and set(cells) <= expected


def test_best_value_is_per_task_set_group_and_protocol(run_results: list[RunResult]) -> None:
    for table in model_tables(run_results, details=True):
        for section in table.sections:
            assert len({(row.group, row.protocol, row.section) for row in section}) == 1
            models = [row.cells for row in section if row.kind == "model"]
            for column in zip(*models, strict=True):
                cells = [cell for cell in column if cell.value is not None]
                values = [cell.value for cell in cells if cell.value is not None]
                marked = {cell.value for cell in cells if cell.best}
                if len(values) < 2 or not cells[0].metric.better:
                    assert not marked
                else:
                    assert marked == {max(values) if cells[0].metric.better > 0 else min(values)}


def test_results_over_other_items_never_share_a_table(run_results: list[RunResult]) -> None:
    outcome = make_landform(0.1, classes=7)
    other = result("landform", "easy-set", outcome)
    points = next(item for item in run_results if item.task == "geolocalization")
    fewer = replace(points, data={**points.data, "n": {**points.data["n"], "points/cones": 3}})
    tables = model_tables([*run_results, other, fewer])
    assert [table.task for table in tables].count("landform") == 2
    assert [table.task for table in tables].count("geolocalization") == 2
    (alone,) = [table for table in tables if table.rows[0].name == "easy-set"]
    assert not any(cell.best for row in alone.rows for cell in row.cells)


def test_models_are_sorted_by_the_main_metric(run_results: list[RunResult]) -> None:
    for table in model_tables(reversed(run_results)):
        order = list(dict.fromkeys(row.name for row in table.rows))
        assert order[0] == "sharp-1" and order[-1] != "sharp-1"


def test_models_with_one_name_are_distinguished() -> None:
    one = result("landform", "m", make_landform())
    half = replace(one, model={**one.model, "dtype": "float16"})
    tuned = replace(one, model={**one.model, "checkpoint": "runs/epoch_10.pt"})
    official = replace(one, model={**one.model, "prompts": {"preset": "official"}})
    assert labels([one, tuned, official]) == ["m", "m+epoch_10.pt", "m+official"]
    assert labels([one, half]) == ["m (float32)", "m (float16)"]
    assert labels([one, one]) == ["m (#1)", "m (#2)"]


def test_equal_protocols_share_one_line(run_results: list[RunResult]) -> None:
    def protocols(results: list[RunResult]) -> set[str]:
        (table,) = model_tables(results)
        return {row.protocol for row in table.folded().rows}

    landform = [item for item in run_results if item.task == "landform"]
    assert protocols(landform) == {"both"}
    tied = result("landform", "constant", make_landform(constant=True))
    # One model whose scores tie, and all lines are apart: else no line could be compared.
    assert protocols([*landform, tied]) == {"published", "strict"}


def test_columns_without_a_text_or_a_value_are_left_out(run_results: list[RunResult]) -> None:
    pairs, landform, points = model_tables(run_results)
    assert list(landform.labels) == ["protocol", "model"]
    assert list(pairs.labels) == list(points.labels) == ["queries", "protocol", "model"]
    (one,) = (
        item for item in run_results if item.task == "landform" and item.model["id"] == "sharp-1"
    )
    metrics = {
        protocol: {k: v for k, v in one.metrics["all"][protocol].items() if k != "ndcg@10"}
        for protocol in ("published", "strict")
    }
    (table,) = model_tables([replace(one, metrics={"all": one.metrics["all"] | metrics})])
    assert [column.heading for column in table.columns] == ["mAP", "Hit@10", "R-Prec"]
    assert all(len(row.cells) == 3 for row in table.rows)


@pytest.fixture
def strange() -> RunResult:
    outcome = make_landform(names=[SPECIAL, "dunes"])
    made = result("landform", f"me/{SPECIAL}", outcome)
    return replace(made, data={**made.data, "name": "A_B & C"})


def test_latex_is_escaped_and_complete(run_results: list[RunResult], strange: RunResult) -> None:
    text = latex_of([*run_results, strange], details=True)
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 4
    assert r"50\%\_of\textbar{}a*b\&c\$\#\{\textasciitilde{}\textasciicircum{}\}" in text
    assert r"\textbackslash{}\textless{}x\textgreater{}[y]" in text
    assert r"\textbf{" in text and r"{\scriptsize [" in text
    plain = re.sub(r"\\[{}\\&%$#_]", "", text)
    assert plain.count("{") == plain.count("}")
    for table in text.split(r"\begin{tabular}")[1:]:
        columns = len(re.match(r"\{(\w+)\}", table)[1])  # type: ignore[index]
        rows = [line for line in table.splitlines() if line.endswith(r"\\")]
        for row in rows:
            assert len(re.split(r"(?<!\\)&", row)) == columns or r"\multicolumn" in row
    assert len(re.findall(r"\\label\{([^}]+)\}", text)) == len(
        set(re.findall(r"\\label\{([^}]+)\}", text))
    )


def test_markdown_rows_have_as_many_cells_as_the_head(
    run_results: list[RunResult], strange: RunResult
) -> None:
    text = markdown_of([*run_results, strange], details=True, references=True)
    head = 0
    for line in text.splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line))
        if not line.startswith("|"):
            head = 0
        elif not head:
            head = cells
        else:
            assert cells == head, line
    assert r"me-50%\_of\|a\*b&c$#{\~^}\\\<x\>\[y\]" in text
    assert "**" in text and "A\\_B & C" in text


# Figures of others


def test_references_name_their_source() -> None:
    assert len(published_elsewhere()) == 2
    for item in published_elsewhere():
        assert item.url.startswith("https://github.com/embeddings-benchmark/mteb/pull/")
        assert item.pairs == 2247 and item.n == "2,247 pairs"
        assert item.captions == "refined_caption" and item.notes
        assert str(item.date) in item.source and item.url in item.source
        for key, value in item.metrics.items():
            assert value >= 1 if key.endswith("medr") else 0 < value < 1
        assert set(item.metrics) == {
            f"{way}_{name}" for way in ("i2t", "t2i") for name in ("r1", "r10", "mrr", "medr")
        }


def test_references_are_shown_for_matching_data_or_on_request() -> None:
    outcome = make_paired(pairs=30)
    made = result("paired-image-text", "m", outcome)
    real = replace(made, data={**made.data, "name": "Mars-VL-Pairs"})
    synthetic = replace(real, data={**real.data, "synthetic": True})
    landform = result("landform", "m", make_landform())
    for results, selection, count in (
        ([real], None, 2), ([synthetic], None, 0), ([made], None, 0), ([landform], True, 0),
        ([synthetic], True, 2), ([real], False, 0),
    ):  # fmt: skip
        assert len(references_for(results, show=selection)) == count


def test_references_are_never_ranked_and_always_sourced() -> None:
    outcome = make_paired(4.0, pairs=60)  # worse than the references in every figure
    made = [
        replace(item, data={**item.data, "name": "Mars-VL-Pairs"})
        for item in (result("paired-image-text", name, outcome) for name in ("a", "b"))
    ]
    (table,) = model_tables(made)
    ours = [cell.best for row in table.rows if row.kind == "model" for cell in row.cells]
    assert all(ours)  # both, since they are equal; and no figure from elsewhere takes it away
    url = published_elsewhere()[0].url
    for text in (markdown_of(made), latex_of(made)):
        bold = r"\textbf" if "tabular" in text else "**"
        lines = [x for x in text.splitlines() if "Qwen3-VL-Embedding-2B" in x]
        assert lines and not any(bold in line for line in lines)
        assert all("2,247 pairs" in line for line in lines)
        assert url in text and "not ranked with the above" in text
    lines = [x for x in lines_of(csv_of(made)) if x["source"].startswith("https")]
    assert {x["source"] for x in lines} == {url} and len(lines) == 16
    assert {(x["set_hash"], x["protocol"], x["n"]) for x in lines} == {("", "", "pairs=2247")}
    assert "source" not in {x["source"] for x in lines_of(csv_of(made, references=False))}


def test_console_shows_references_separately(capsys: pytest.CaptureFixture[str]) -> None:
    made = result("paired-image-text", "mine", make_paired(pairs=30))
    print_results([made], references=True)
    output = capsys.readouterr().out
    assert output.index("mine") < output.index("Published results") < output.index("18.7")
    print_results([made])
    assert "Published results" not in capsys.readouterr().out


def test_metrics_are_never_truncated_for_long_names(capsys: pytest.CaptureFixture[str]) -> None:
    made = result("paired-image-text", "organisation/" + "a-long-name-" * 8, make_paired(pairs=30))
    print_results([made, replace(made, model={**made.model, "id": "other"})], references=True)
    assert "…" not in capsys.readouterr().out


# The command


def call(*arguments: str | Path, code: int = 0) -> Result:
    done = CliRunner().invoke(app, ["report", *map(str, arguments)])
    assert done.exit_code == code, (done.stdout, done.stderr, done.exception)
    assert "Traceback" not in done.stderr
    return done


def test_format_follows_the_file_name(results: list[Path], tmp_path: Path) -> None:
    folder = results[0].parent.parent
    starts = {"md": "### Overview", "tex": r"% \usepackage", "csv": "model,task", "json": "["}
    for suffix, start in starts.items():
        done = call(folder, "-o", tmp_path / f"out.{suffix}")
        assert done.stdout == "" and "wrote" in done.stderr
        assert (tmp_path / f"out.{suffix}").read_text().startswith(start)
    assert len(json.loads((tmp_path / "out.json").read_text())) == len(results)
    for flag, suffix in (("--md", "md"), ("--latex", "tex"), ("--csv", "csv")):
        assert call(folder, flag).stdout == (tmp_path / f"out.{suffix}").read_text()
    call(folder, "-o", tmp_path / "table.txt", "--md")
    assert (tmp_path / "table.txt").read_text() == (tmp_path / "out.md").read_text()


def test_page_is_written_despite_a_damaged_table(results: list[Path], tmp_path: Path) -> None:
    for path in results[1].parent.glob("landform.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "landform.hits.parquet").write_bytes(b"half a file")
    done = call(tmp_path, "-o", tmp_path / "r.html", code=1)
    assert "left out: " in done.stderr and "landform.hits.parquet: not a readable" in done.stderr
    assert (tmp_path / "r.html").exists()


def test_page_is_written_with_the_given_options(results: list[Path], tmp_path: Path) -> None:
    folder = results[0].parent.parent
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    done = call(
        folder, broken, "-o", tmp_path / "x.html", "--title", "My runs", "--no-thumbnails",
        "--references", code=1,
    )  # fmt: skip
    page = (tmp_path / "x.html").read_text()
    assert "<title>My runs" in page and "Qwen3-VL-Embedding-2B" in page
    assert published_elsewhere()[0].url in page
    assert "broken.json" in page and "left out" in done.stderr
    call(folder, "-o", tmp_path / "y.html", "--no-thumbnails")
    assert "Qwen3-VL-Embedding-2B" not in (tmp_path / "y.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "x.pdf"], "unknown output format"),
        (["--md", "--csv"], "choose one"),
        (["-o", "x.md", "--csv"], "two formats"),
        (["--title", "x"], "apply only to HTML reports"),
        (["-o", "x.md", "--no-thumbnails"], "apply only to HTML reports"),
    ],
)
def test_usage_errors_are_reported(results: list[Path], arguments: list[str], words: str) -> None:
    assert words in call(results[0], *arguments, code=2).stderr


def test_unwritable_output_is_an_error(results: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = call(results[0], "-o", tmp_path / "file" / "x.md", code=1)
    assert "cannot be written" in done.stderr


def test_results_without_a_table_are_left_out_with_the_reason(
    results: list[Path], tmp_path: Path
) -> None:
    value = json.loads(results[0].read_text())
    changes = {
        "task": {**value, "task": ["same-class"]},
        "n": {**value, "data": {"set_hash": "0"}},
        "metrics": {**value, "metrics": {"all": {"strict": {}}}},
        "figures": {**value, "metrics": {}},
    }
    for name, wrong in (("text", "high"), ("nan", float("nan")), ("share", 1.7)):
        metrics = json.loads(results[0].read_text())["metrics"]
        metrics["all"]["strict"]["t2i_mrr"] = wrong
        changes[name] = {**value, "metrics": metrics}
    metrics = json.loads(results[0].read_text())["metrics"]
    metrics["all"]["intervals"]["strict"]["t2i_mrr"] = [0.1]
    changes["interval"] = {**value, "metrics": metrics}
    changes["other"] = {"a": 1}
    changes["part"] = {key: item for key, item in value.items() if key != "metrics"}
    for name, changed in changes.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(changed))
    for more in ([], ["--csv"], ["-o", tmp_path / "x.html", "--no-thumbnails"]):
        done = call(results[0], tmp_path, *more, code=1)
        assert done.stderr.count("left out:") == len(changes)
        assert "task.json: 'task' is ['same-class']: Input should be a valid string" in done.stderr
        assert done.stderr.count("not a complete result") == 1
        for field in ("data.n", "metrics.all.n", "metrics"):
            assert f": missing field '{field}'" in done.stderr
        assert "not a result that marsretrieval run wrote" in done.stderr
        assert done.stderr.count("is not a valid metric value") == 3
        assert done.stderr.count("NaN is not a JSON number") == 1
        assert "all: strict t2i_mrr 'high' is not a valid metric value" in done.stderr
        (tmp_path / "x.html").unlink(missing_ok=True)
    done = call(tmp_path / "task.json", code=1)
    assert "no results in" in done.stderr


def test_a_result_that_is_named_twice_counts_once(results: list[Path]) -> None:
    done = call(results[0], results[0].parent, "--json")
    tasks = [load["task"] for load in json.loads(done.stdout)]
    assert len(tasks) == len(set(tasks)) == 3


def test_no_results_give_no_table_or_legend(capsys: pytest.CaptureFixture[str]) -> None:
    print_results([])
    assert capsys.readouterr().out == ""


def test_a_model_card_goes_to_a_yaml_file(results: list[Path], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", "hf", str(results[0]), "-o", str(tmp_path / "x.txt")])
    assert done.exit_code == 2 and "ends in .yaml or .yml" in done.stderr
    assert not (tmp_path / "x.txt").exists()
