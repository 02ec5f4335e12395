"""Tests of TREC runs as input: metrics by hand and those of the same vectors, checks of ids."""

from __future__ import annotations

import gzip
import io
import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from marsretrieval.cli.app import app
from marsretrieval.datasets.submissions import read_run
from marsretrieval.datasets.webdataset import write_tar
from marsretrieval.errors import DataError
from marsretrieval.evaluation.external import score_embeddings, score_run
from marsretrieval.metrics.ranking import cosines, id_order
from marsretrieval.report.compare import compare_results
from marsretrieval.report.grouping import result_sets
from marsretrieval.report.html.metadata import commands
from marsretrieval.report.result_files import ResultFile
from marsretrieval.report.tables import model_tables
from marsretrieval.results import RunResult
from marsretrieval.tasks import LandformRetrieval, Settings, find_task
from marsretrieval.tasks.external import list_items, query_ids

Scores = Mapping[str, Mapping[str, float]]


def items_of(name: str, planet: Path) -> dict[str, list[str]]:
    task = find_task(name)
    ids: dict[str, list[str]] = {}
    for item in list_items(task, task.open(planet)):
        ids.setdefault(item.kind, []).append(item.id)
    return ids


def write_run(path: Path, rankings: Scores) -> Path:
    lines = []
    for query, scores in rankings.items():
        best = sorted(scores.items(), key=lambda pair: -pair[1])
        lines += [f"{query} Q0 {key} {rank} {s!r} mine" for rank, (key, s) in enumerate(best, 1)]
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.fixture
def score(tiny_planet: Path, tmp_path: Path) -> Callable[..., tuple[Path, RunResult]]:
    def call(
        task: Any, rankings: Scores | Path, say: Any = lambda text: None, name: str = "ranked"
    ) -> tuple[Path, RunResult]:
        path = rankings if isinstance(rankings, Path) else write_run(tmp_path / "a.run", rankings)
        return score_run(
            task if not isinstance(task, str) else find_task(task), path, data=tiny_planet,
            name=name, results=tmp_path / "r", settings=Settings(resamples=10), say=say,
        )  # fmt: skip

    return call


def unit(rows: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, 8))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("name", ["paired-image-text", "landform", "geolocalization"])
def test_a_full_ranking_has_the_metrics_of_its_vectors(
    name: str, tiny_planet: Path, tmp_path: Path, score: Callable[..., tuple[Path, RunResult]]
) -> None:
    ids = items_of(name, tiny_planet)
    ids.pop("example", None)
    vectors = {kind: unit(len(keys), seed) for seed, (kind, keys) in enumerate(ids.items())}
    if "prompt" in vectors:  # all prompts of a name have one vector, so that their mean is it
        names = [key.rpartition("#")[0] for key in ids["prompt"]]
        first = [names.index(key) for key in names]
        vectors["prompt"] = vectors["prompt"][first]
    np.savez(
        tmp_path / "E.npz", **vectors, **{f"{k}_ids": np.array(keys) for k, keys in ids.items()}
    )
    own_path, own = score_embeddings(
        find_task(name), tmp_path / "E.npz", data=tiny_planet, name="vectors",
        results=tmp_path / "r", settings=Settings(resamples=10),
    )  # fmt: skip
    rankings: dict[str, dict[str, float]] = {}
    if name == "paired-image-text":
        matrix = cosines(vectors["image"], vectors["text"])
        for way, rows, queries, corpus in (
            ("i2t", matrix, ids["image"], ids["text"]), ("t2i", matrix.T, ids["text"], ids["image"])
        ):  # fmt: skip
            for key, row in zip(queries, rows, strict=True):
                rankings[f"{way}/{key}"] = dict(zip(corpus, row.tolist(), strict=True))
    else:
        suffix = "/text" if name == "geolocalization" else ""
        images = vectors["image"].astype(np.float16) if suffix else vectors["image"]
        for key, row in zip(names, cosines(vectors["prompt"], images), strict=True):
            rankings[key + suffix] = dict(zip(ids["image"], row.tolist(), strict=True))
    path, result = score(name, write_run(tmp_path / "full.run.gz", rankings))
    assert result.data["set_hash"] == own.data["set_hash"]
    assert result.data["items_hash"] == own.data["items_hash"]
    assert result.data["ranking"]["unlisted_items"] == 0
    assert result.model["dimension"] is None and result.from_ranking
    assert result.metrics == own.metrics
    comparison = compare_results(ResultFile.read(path), ResultFile.read(own_path), resamples=10)
    assert all(d.difference == 0 for g in comparison.groups for d in g.differences.values())
    (table,) = model_tables([result, own])
    assert "ranked [ranking computed elsewhere]" in {row.name for row in table.rows}


def test_unlisted_items_are_ranked_last_and_named(
    tiny_planet: Path, score: Callable[..., tuple[Path, RunResult]]
) -> None:
    task = find_task("landform")
    labels = task.open(tiny_planet).annotations
    ids = list(labels)
    names = query_ids(task, task.open(tiny_planet))
    rankings = {name: {key: 5.0 - row for row, key in enumerate(ids[:3])} for name in names}
    lines: list[str] = []
    _, result = score("landform", rankings, lines.append)
    # By hand: three listed images, then the others in the order of the hashes of their ids.
    rest = [ids[row] for row in np.argsort(id_order(ids)) if row >= 3]
    expected = []
    for name in names:
        relevant = [labels[key] == name for key in ids[:3] + rest]
        precisions = [
            sum(relevant[: rank + 1]) / (rank + 1) for rank, hit in enumerate(relevant) if hit
        ]
        expected.append(sum(precisions) / len(precisions))
    metrics = result.metrics["all"]
    assert metrics["strict"]["mAP"] == pytest.approx(np.mean(expected), abs=1e-12)
    low, high = metrics["ties"]["mAP"]
    assert low < metrics["strict"]["mAP"] < high
    unlisted = len(names) * (len(ids) - 3)
    assert result.data["ranking"] == {
        "queries": len(names), "queries_with_unlisted_items": len(names),
        "unlisted_items": unlisted, "ids_left_out": 0,
    }  # fmt: skip
    assert any(f"{unlisted:,} unlisted items are ranked last" in line for line in lines)


def test_the_rank_of_an_unlisted_answer(
    tiny_planet: Path, score: Callable[..., tuple[Path, RunResult]]
) -> None:
    ids = items_of("paired-image-text", tiny_planet)["text"]
    right = {f"{way}/{key}": {key: 1.0} for way in ("i2t", "t2i") for key in ids}
    wrong = right | {f"i2t/{ids[0]}": {ids[1]: 1.0}}
    _, result = score("paired-image-text", wrong)
    order = [ids[row] for row in np.argsort(id_order(ids)) if row != 1]
    rank = 2 + order.index(ids[0])
    strict = result.metrics["all"]["strict"]
    assert strict["t2i_mrr"] == 1
    assert strict["i2t_mrr"] == pytest.approx((len(ids) - 1 + 1 / rank) / len(ids))


def test_image_queries_leave_out_their_own_image(
    tiny_planet: Path, score: Callable[..., tuple[Path, RunResult]]
) -> None:
    task = LandformRetrieval(queries="images")
    labels = task.open(tiny_planet).annotations
    rankings = {
        query: {key: float(label == labels[query]) for key, label in labels.items()}
        for query in labels
    }
    _, result = score(task, rankings)
    assert result.metrics["all"]["strict"]["mAP"] == 1
    assert result.data["ranking"]["unlisted_items"] == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty, without a ranking"),
        ("crater,x,1\n", "line 1 is not a line of a TREC run"),
        ("q Q0 x 1 high t\n", "line 1: rank '1' or score 'high' is no number"),
        ("q Q0 x 1 nan t\n", "1 scores are not finite (q: x)"),
        ("q Q0 x 1 2 t\nq Q0 x 2 1 t\n", "1 items are ranked twice for a query (q: x)"),
        ("q Q0 x 1 0.1 t\nq Q0 y 2 0.9 t\n", "greater score than one ranked before them (q: y)"),
        ("i2t/a Q0 b 1 1 t\n", "none of its queries (1) is of this task and these data: i2t/a"),
        ("CLASS Q0 nowhere 1 1 t\n", "1 ranked ids are no items of the data (nowhere)"),
        ("FIRST Q0 x 1 1 t\n", "missing ("),
    ],
)
def test_invalid_runs(
    text: str, words: str, tiny_planet: Path, tmp_path: Path,
    score: Callable[..., tuple[Path, RunResult]],
) -> None:  # fmt: skip
    task = find_task("landform")
    names = query_ids(task, task.open(tiny_planet))
    if text.startswith("CLASS"):
        text = "".join(text.replace("CLASS", name) for name in names)
    (tmp_path / "bad.run").write_text(text.replace("FIRST", names[0]))
    with pytest.raises(DataError) as caught:
        score("landform", tmp_path / "bad.run")
    assert words in caught.value.message and "bad.run" in caught.value.message


@pytest.mark.parametrize(
    ("tars", "message"),
    [
        (("a", "b"),
         r"1 ranked ids are no items .*1 of them ambiguous \(E_3_0_N_2_0: a/E_3_0_N_2_0, b/"),
        (("MurrayLab_CTX_V01_E000_N-04", "MurrayLab_CTX_V01_E004_N-04"),
         r"1 ranked id ambiguous: several items have the id \(E_3_0_N_2_0\)"),
    ],
)  # fmt: skip
def test_ids_of_several_tiles_are_ambiguous(
    tars: tuple[str, str], message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "Mars-Global-Geolocalization"
    (folder / "tiles").mkdir(parents=True)
    (folder / "ground_truth").mkdir()
    (folder / "ground_truth" / "cones.csv").write_text("lon,lat\n2.1,2.1\n")
    for name, numbers in zip(tars, ((1, 2, 3), (3, 4)), strict=True):
        members = []
        for number in numbers:
            image = io.BytesIO()
            Image.new("L", (4, 4), number).save(image, "PNG")
            members.append((f"E_{number}_0_N_2_0.png", image.getvalue()))
        write_tar(folder / "tiles" / f"{name}.tar", members)
    path = write_run(tmp_path / "a.run", {"cones/text": {"E_1_0_N_2_0": 2.0, "E_3_0_N_2_0": 1.0}})
    with pytest.raises(DataError, match=message):
        score_run(
            find_task("geolocalization"), path, data=tmp_path, name="m", results=tmp_path / "r"
        )


def test_ids_with_spaces_and_unused_ranks(tmp_path: Path) -> None:
    (tmp_path / "a.run").write_text(
        "alluvial fan Q0 my tile.png 0 0.5 t\nalluvial fan Q0 b 0 2 t\n"
    )
    ranking = read_run(tmp_path / "a.run").queries["alluvial fan"]
    assert ranking.ids == ("my tile.png", "b") and ranking.scores.tolist() == [0.5, 2]


def test_the_command_of_the_report_repeats_the_result(
    tiny_planet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    score: Callable[..., tuple[Path, RunResult]],
) -> None:  # fmt: skip
    ids = items_of("paired-image-text", tiny_planet)["text"]
    path, _ = score(
        "paired-image-text", {f"{w}/{key}": {key: 1.0} for w in ("i2t", "t2i") for key in ids}
    )
    (tmp_path / "data").symlink_to(tiny_planet)
    monkeypatch.chdir(tmp_path)
    command = commands(result_sets([ResultFile.read(path)]))[-1]
    assert command.startswith("marsretrieval score paired --data data --run a.run --name ranked")
    done = CliRunner().invoke(app, [*shlex.split(command)[1:], "--json", "-"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["metrics"] == json.loads(path.read_text())["metrics"]
    for more, words in (
        (["--embeddings", "E.npz"], "--run: not with --embeddings"),
        (["--images", "E.npy"], "--images: not with --run"),
    ):
        done = CliRunner().invoke(app, [*shlex.split(command)[1:], *more])
        assert done.exit_code == 2 and words in done.stderr
    arguments = ["score", "landform", "--run", "a.run", "--name", "x", "--templates", "t.txt"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2 and "--templates: not with --run" in done.stderr
