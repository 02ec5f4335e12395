from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from marsretrieval.embeddings import build_store, open_store
from marsretrieval.errors import (
    DataError,
    DatasetNotFoundError,
    MarsRetrievalWarning,
    UnknownNameError,
    UsageError,
)
from marsretrieval.results import MEAN
from marsretrieval.tasks import (
    TASKS,
    Geolocalization,
    LandformRetrieval,
    Outcome,
    Settings,
    Task,
    find_task,
    read_class_names,
)
from tests.fakes import png_bytes
from tests.report.made import make_geolocalization
from tests.tasks.oracle import OracleEncoder, class_folders, pairs_tar, tiles_folder


def ask(
    name: str | Task, data: Path, tmp_path: Path, encoder: OracleEncoder | None = None
) -> Outcome:
    encoder = encoder or OracleEncoder()
    task = find_task(name) if isinstance(name, str) else name
    loaded = task.open(data)
    assert loaded.source is not None
    build_store(encoder, loaded.source, tmp_path / "s" / "images", dtype=task.vector_dtype)
    store = open_store(tmp_path / "s" / "images")
    return task.evaluate(loaded, encoder, store, tmp_path / "s", Settings(resamples=20))


def test_an_oracle_finds_every_pair(tmp_path: Path) -> None:
    outcome = ask("paired", pairs_tar(tmp_path / "data"), tmp_path)
    figures = outcome.groups["all"]
    assert outcome.n == {"pairs": 20}
    for protocol in (figures.published, figures.strict):
        assert protocol["i2t_r1"] == protocol["t2i_r1"] == protocol["t2i_mrr"] == 1
    hits = zip(outcome.hits.rank, outcome.hits.relevant, strict=True)
    assert all(hit for rank, hit in hits if rank == 1)
    assert outcome.truncated == {"captions": 20, "cut": 0}


def test_an_oracle_finds_every_landform(tmp_path: Path) -> None:
    data = class_folders(
        tmp_path / "data", {"pitted_cones": 5, "glacier-like_form": 7, "plains": 3}
    )
    outcome = ask("landform", data, tmp_path)
    figures = outcome.groups["all"]
    assert outcome.n == {"images": 15, "classes": 3}
    assert figures.published["mAP"] == pytest.approx(1)
    assert figures.strict["r_precision"] == pytest.approx(1)


def test_an_oracle_reaches_the_ceiling_of_geolocalization(tmp_path: Path) -> None:
    data = tiles_folder(tmp_path / "data")
    outcome = ask("geolocalization", data, tmp_path)
    assert outcome.n["tiles"] == 400
    single = {name: item for name, item in outcome.groups.items() if not name.startswith(MEAN)}
    assert len(single) == 5 * 3 and len(outcome.groups) == 6 * 3
    aps = [item.strict["average_precision"] for name, item in single.items() if "text" in name]
    # All tiles lie in one block of the planet: nothing to resample, and no interval that says so.
    assert not any(item.intervals["strict"] for item in outcome.groups.values())
    assert outcome.groups[f"{MEAN}text"].strict["average_precision"] == pytest.approx(
        sum(aps) / len(aps)
    )
    for group, figures in single.items():
        assert figures.published["curve"], group
        ceiling = figures.strict["ceiling"]["average_precision"]
        assert figures.strict["average_precision"] == pytest.approx(ceiling) == 1, group


def test_points_outside_the_tiles_are_named_and_can_be_excluded(tmp_path: Path) -> None:
    data = tiles_folder(tmp_path / "data")
    folder = find_task("geolocalization").open(data).folder / "ground_truth"
    landform = min(path.stem for path in folder.glob("*.csv"))
    table = folder / f"{landform}.csv"
    text = table.read_text()
    inside = len(text.splitlines()) - 1
    table.write_text(f"{text.rstrip()}\n-170,-60\n,5\n")
    (folder / "notes.xlsx").write_bytes(b"")

    outcome = ask("geolocalization", data, tmp_path)
    details = outcome.details["catalogues"][landform]
    assert (details["covered"], details["points"], details["skipped"]) == (inside, inside + 1, 1)
    assert f"{landform}: {inside} of {inside + 1} points lie within" in " ".join(outcome.notes)

    task = Geolocalization(covered_only=True)
    loaded = task.open(data)
    assert [item.id for item in loaded.skipped] == ["notes.xlsx"]
    assert "1 row without a position left out" in " ".join(loaded.notes)
    assert loaded.fingerprint != find_task("geolocalization").open(data).fingerprint
    store = open_store(tmp_path / "s" / "images")
    covered = task.evaluate(loaded, OracleEncoder(), store, tmp_path / "s", Settings(resamples=0))
    assert covered.n[f"points/{landform}"] == inside
    assert outcome.n[f"points/{landform}"] == inside + 1
    assert covered.details["covered_only"]


def test_vision_only_model_uses_image_queries_only(tmp_path: Path) -> None:
    data = tiles_folder(tmp_path / "data")
    task = find_task("geolocalization")
    assert task.missing_modality(task.open(data), frozenset({"image"})) is None
    outcome = ask("geolocalization", data, tmp_path, OracleEncoder(text=False))
    assert {group.split("/")[1] for group in outcome.groups} == {"image"}


@pytest.mark.parametrize("name", ["paired-image-text", "landform"])
def test_text_tasks_need_a_text_encoder(name: str, tmp_path: Path) -> None:
    data = (
        pairs_tar(tmp_path)
        if name.startswith("paired")
        else class_folders(tmp_path / "classes", {"plains": 1, "yardangs": 1})
    )
    task = find_task(name)
    assert task.missing_modality(task.open(data), frozenset({"image"})) == "text"


def test_every_task_name_resolves() -> None:
    for task in TASKS:
        for name in (task.name, *task.aliases, task.name.upper()):
            assert find_task(name) is task
    with pytest.raises(UnknownNameError, match="landfrom") as raised:
        find_task("landfrom")
    assert "landform" in (raised.value.remedy or "")


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_missing_and_empty_data_are_named_with_a_remedy(task, tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="nowhere") as raised:
        task.open(tmp_path / "nowhere")
    assert "data synth" in (raised.value.remedy or "")
    (tmp_path / "pairs.csv").touch()
    with pytest.raises(DatasetNotFoundError, match="no such file or folder") as raised:
        task.open(tmp_path / "pairs.tsv")
    assert "pairs.csv" in (raised.value.remedy or "")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetNotFoundError, match="empty"):
        task.open(tmp_path / "empty")


def test_other_dataset_in_the_folder_is_not_used(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="Mars-Landforms"):
        find_task("landform").open(pairs_tar(tmp_path / "data"))


def test_images_without_captions_or_labels_are_refused(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "classes", {"plains": 2, "yardangs": 2})
    with pytest.raises(DataError, match="none with a caption"):
        find_task("paired").open(data)
    with pytest.raises(DataError, match="label"):
        find_task("landform").open(data / "plains")


def test_corrupt_image_drops_its_pair_and_is_named(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", {"plains": 3, "yardangs": 3})
    (data / "plains" / "plains-1.png").write_bytes(b"not an image")
    outcome = ask("landform", data, tmp_path)
    assert outcome.n["images"] == 5
    (skipped,) = open_store(tmp_path / "s" / "images").skipped
    assert "plains-1" in skipped.source


def test_hits_include_only_scored_images(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "data", {"plains": 3, "yardangs": 3})
    task, encoder = find_task("landform"), OracleEncoder()
    data = task.open(folder)
    unlabelled = sorted(data.annotations)[0]
    fewer = {key: name for key, name in data.annotations.items() if key != unlabelled}
    assert data.source is not None
    build_store(encoder, data.source, tmp_path / "s", dtype=task.vector_dtype)
    outcome = task.evaluate(
        replace(data, annotations=fewer), encoder, open_store(tmp_path / "s"), tmp_path, Settings()
    )
    assert outcome.n["images"] == 5
    assert unlabelled not in outcome.hits.id and max(outcome.hits.rank) == 5


class Scattered(OracleEncoder):
    """Encoder with the same vector for all images and little memory."""

    def encode_preprocessed(self, features: Sequence[int]) -> np.ndarray:
        if len(features) > 2:
            raise MemoryError
        return np.full((len(features), self.dimension), 1 / 8, dtype=np.float32)


def test_ties_at_the_search_depth_are_resolved_by_the_metric(tmp_path: Path) -> None:
    data = tiles_folder(tmp_path / "data")
    complete = ask(Geolocalization(depth=400), data, tmp_path / "all", Scattered())
    truncated = ask(Geolocalization(depth=50), data, tmp_path / "some", Scattered())
    for name in (item for item in truncated.groups if not item.startswith(MEAN)):
        first, last = truncated.groups[name].ties["average_precision"]
        assert first <= truncated.groups[name].strict["average_precision"] <= last
        tiles = {
            group.n["predictions"] for group in (complete.groups[name], truncated.groups[name])
        }
        assert tiles == {400}
    assert max(truncated.hits.rank) == 50


def test_the_set_hash_follows_the_items_and_not_their_order(tmp_path: Path) -> None:
    first = class_folders(tmp_path / "a", {"plains": 3, "yardangs": 3})
    second = class_folders(tmp_path / "b", {"yardangs": 3, "plains": 3})
    third = class_folders(tmp_path / "c", {"yardangs": 3, "plains": 4})
    hashes = [ask("landform", data, tmp_path / f"{data.name}-s").set_hash
              for data in (first, second, third)]  # fmt: skip
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_key_in_two_shards_counts_twice(tmp_path: Path) -> None:
    data = pairs_tar(tmp_path / "data")
    tar = data / "Mars-VL-Pairs" / "000000.tar"
    tar.with_name("000001.tar").write_bytes(tar.read_bytes())
    loaded = find_task("paired").open(data)
    assert loaded.counts == {"pairs": 40} and not loaded.skipped
    assert ask("paired", data, tmp_path).n == {"pairs": 40}


def test_landforms_of_one_class_are_refused(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", {"plains": 3})
    with pytest.raises(DataError, match="all images have the label 'plains'") as raised:
        find_task("landform").open(data)
    assert "one folder of images per class" in str(raised.value)
    data = class_folders(tmp_path / "two", {"plains": 3, "yardangs": 1})
    (broken,) = data.rglob("yardangs-*.png")
    broken.write_bytes(b"not an image")
    with pytest.raises(DataError, match="at least two classes with images"):
        ask("landform", data, tmp_path)


def test_split_folders_are_not_landforms(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", {"plains": 3, "yardangs": 2})
    (data / "plains").rename(data / "train")
    (data / "yardangs").rename(data / "test")
    with pytest.raises(DataError, match="no image has a label") as raised:
        find_task("landform").open(data)
    assert "train/crater/0.png" in str(raised.value)


def labelled(path: Path, labels: Sequence[int | None]) -> Path:
    data = [{"bytes": png_bytes(seed), "path": None} for seed in range(len(labels))]
    path.mkdir(parents=True)
    pq.write_table(pa.table({"image": data, "label": labels}), path / "a.parquet")
    return path


def test_labels_that_are_numbers_are_warned_of_or_named(tmp_path: Path) -> None:
    data = labelled(tmp_path / "set", [0, 1, -1, None])
    with pytest.warns(MarsRetrievalWarning, match="2 labels are numbers.*--class-names"):
        numbers = find_task("landform").open(data)
    named = LandformRetrieval({"0": "crater", "1": "dune"}).open(data)
    assert named.annotations == {"0": "crater", "1": "dune"}
    assert [item.reason for item in named.skipped] == ["no label", "no label"]
    assert named.fingerprint != numbers.fingerprint
    assert named.fingerprint != LandformRetrieval({"0": "a", "1": "b"}).open(data).fingerprint
    with pytest.raises(UsageError, match=r"lack 1 of 2 labels of .*: 1"):
        LandformRetrieval({"0": "crater"}).open(data)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "crater\ndune\n"),
        ("a.csv", "0,crater\n1,dune\n"),
        ("a.json", '{"0": "crater", "1": "dune"}'),
        ("b.json", '["crater", "dune"]'),
    ],
)
def test_class_names_of_every_kind_of_file(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert read_class_names(tmp_path / name) == {"0": "crater", "1": "dune"}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", "", "holds no class names"),
        ("a.csv", "0,crater,x\n", "LABEL,NAME"),
        ("a.csv", "0,crater\n0,dune\n", "duplicate label"),
        ("a.csv", "0,\n", "without a name"),
        ("a.csv", "0,cra\tter\n", "control characters in 'cra.*tter'"),
        ("a.json", '["a\\nb"]', "control characters in 'a.*nb'"),
        ("a.json", "{", "not readable"),
        ("a.json", '{"0": 1}', "not an object or list of texts"),
        ("a.json", "[" * 100_000, "not readable"),
    ],
)
def test_invalid_class_names_are_named(name, text, words, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=rf"{name}.*{words}"):
        read_class_names(tmp_path / name)
    with pytest.raises(DataError, match=r"nowhere.*no such file"):
        read_class_names(tmp_path / "nowhere.txt")


def test_a_sidecar_that_changes_changes_the_fingerprint(tmp_path: Path) -> None:
    for number, label in enumerate(("crater", "dune")):
        (tmp_path / f"{number}.png").write_bytes(png_bytes(number))
        (tmp_path / f"{number}.json").write_text(json.dumps({"label": label}))
    before = find_task("landform").open(tmp_path)
    (tmp_path / "1.json").write_text(json.dumps({"label": "plain"}))
    assert find_task("landform").open(tmp_path).fingerprint != before.fingerprint


def test_a_mean_over_landforms_has_the_interval_of_its_landforms_together() -> None:
    groups = make_geolocalization(landforms=("cones", "slides", "fans")).groups
    for mode in ("text", "image", "hybrid"):
        mean = groups[f"{MEAN}{mode}"]
        for protocol, key in (("published", "auprc"), ("strict", "average_precision")):
            alone = [groups[f"{name}/{mode}"] for name in ("cones", "slides", "fans")]
            drawn = np.mean([item.samples[protocol][key] for item in alone], axis=0)
            ends = np.nanpercentile(drawn, [2.5, 97.5])
            assert mean.intervals[protocol][key] == pytest.approx(tuple(ends), abs=1e-12)
            assert ends[0] <= getattr(mean, protocol)[key] <= ends[1]
    assert "drawn" not in mean.to_dict()
