"""JSON files with values of wrong types, and JSON designed to exhaust the reader."""

from __future__ import annotations

import copy
import hashlib
import json
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from marsretrieval.datasets import ctx, synthetic
from marsretrieval.datasets.download import read_record
from marsretrieval.datasets.download.http import PartialDownload
from marsretrieval.datasets.download.links import Fetched, LinkCache
from marsretrieval.datasets.submissions import read_labels
from marsretrieval.datasets.verify import verify as verify_data
from marsretrieval.embeddings import build_store, open_store, verify_store
from marsretrieval.encoders.lora import read_adapter_config
from marsretrieval.encoders.open_clip import CheckpointSource
from marsretrieval.encoders.registry import read_spec as read_model_record
from marsretrieval.errors import DataError, MarsRetrievalError
from marsretrieval.evaluation.runner import provenance_of
from marsretrieval.geo import Area
from marsretrieval.io import parse_json, read_json
from marsretrieval.report.compare import compare_results
from marsretrieval.report.html import write_html
from marsretrieval.report.result_files import read_whole
from marsretrieval.results import find_results
from marsretrieval.search import drop_index, make_index, verify_index
from marsretrieval.search.index.find import open_index
from tests.fakes import FakeEncoder, FakeSource
from tests.report.made import (
    csv_of,
    latex_of,
    make_landform,
    make_paired,
    markdown_of,
    print_results,
    result,
    write,
)

OTHERS: list[Any] = [
    None,
    "x",
    "",
    -1,
    10**30,
    1e300,
    [],
    {},
    True,
    [[1]],
    {"a": 1},
    "../x",
    "\u001b",
]
MOST = 220  # changes of one file that are tried


def paths_of(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all values inside; of lists, only the first."""
    if at:
        yield at
    if isinstance(value, dict):
        for key in list(value)[:40]:
            yield from paths_of(value[key], (*at, key))
    elif isinstance(value, list) and value:
        yield from paths_of(value[0], (*at, 0))


def changed(value: Any, at: tuple[Any, ...], other: Any) -> Any:
    """Copy with another value at the path; without it if `other` is ..."""
    made = copy.deepcopy(value)
    parent = made
    for key in at[:-1]:
        parent = parent[key]
    if other is ...:
        del parent[at[-1]]
    else:
        parent[at[-1]] = other
    return made


def sweep(path: Path, read: Callable[[], object], most: int = MOST) -> int:
    """Return the number of refused changes; every change must be accepted or refused."""
    original = path.read_text(encoding="utf-8")
    value = json.loads(original)
    changes = [(at, other) for at in paths_of(value) for other in (*OTHERS, ...)]
    chosen = random.Random(0).sample(changes, min(most, len(changes)))
    refused = 0
    try:
        for at, other in chosen:
            path.write_text(json.dumps(changed(value, at, other)), encoding="utf-8")
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    read()
            except MarsRetrievalError as error:
                assert error.exit_code in (1, 2)
                if "Input should" in str(error) or "missing field" in str(error):
                    assert path.name in str(error) and str(at[0]) in str(error), (at, other)
                refused += 1
            except Exception as error:
                raise AssertionError(f"{path.name}: {at} = {other!r}: {error!r}") from error
        for text in ("[]", "3", "null", '"x"', "{}", "", "{", "[" * 5000, "\ufeff{}"):
            path.write_text(text, encoding="utf-8")
            with pytest.raises(MarsRetrievalError):
                read()
    finally:
        path.write_text(original, encoding="utf-8")
    return refused


@pytest.fixture
def store(tmp_path: Path) -> Path:
    build_store(FakeEncoder(), FakeSource(counts=(3, 2)), tmp_path / "store")
    return tmp_path / "store"


def test_manifests(store: Path) -> None:
    def read() -> None:
        reopened = open_store(store)
        reopened.load()
        assert reopened.model and reopened.missing is not None
        verify_store(store)
        build_store(FakeEncoder(), FakeSource(counts=(3, 2)), store)

    assert sweep(store / "manifest.json", read) > MOST / 2


def test_entries(store: Path) -> None:
    def read() -> None:
        reopened = open_store(store)
        reopened.load()
        reopened.seconds("embed")
        assert reopened.skipped is not None

    entry = next((store / "shards").glob("*.json"))
    assert sweep(entry, read) > MOST / 2

    def verify() -> None:
        if verify_store(store).problems:
            raise DataError("damaged")

    assert sweep(entry, verify) > MOST / 2


def test_headers_of_search_views(store: Path) -> None:
    view = make_index(open_store(store))

    def read() -> None:
        reopened = type(view)(view.path, store)
        reopened.ids([0, 1])
        reopened.take([0, 1])
        reopened.positions()
        assert reopened.bytes
        list(reopened.blocks())

    assert sweep(view.path / "header.json", read) > MOST / 2
    original = (view.path / "header.json").read_text()
    (view.path / "header.json").write_text("[" * 10_000)
    assert verify_index(store)
    assert original and open_index(store) is not None
    drop_index(store)


def test_stamps_of_search_views(store: Path, tmp_path: Path) -> None:
    view = make_index(open_store(store))
    stamp = view.path.parent / "stamp.json"
    for text in ('{"look": [], "fingerprint": "../.."}', "[" * 5000, "3", '{"look": 1}'):
        stamp.write_text(text)
        index = open_index(store)
        assert index is not None and index.path == view.path


@pytest.mark.parametrize("make", [make_paired, make_landform])
def test_results(
    tmp_path: Path, make: Callable[[], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = make()
    task = "paired-image-text" if make is make_paired else "landform"
    skipped = [{"id": "a", "source": "b", "reason": "c"}]
    made = result(task, "clip", outcome, data={"skipped": skipped})
    path = write(made, outcome, tmp_path / "results")
    other = read_whole(write(made, outcome, tmp_path / "other"))

    def read() -> None:
        (name,) = find_results([path.parent])
        file = read_whole(name)
        for form in (markdown_of, latex_of, csv_of):
            assert form([file.result], details=True)
        print_results([file.result])
        write_html([file], tmp_path / "page.html", thumbnails=False)
        compare_results(file, other, resamples=10)

    assert sweep(path, read, 120) > 30


def test_records_of_planets(tiny_planet: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_planet, tmp_path, dirs_exist_ok=True)

    def read() -> None:
        synthetic.describe_planet(tmp_path, size="tiny")
        synthetic.write_planet(tmp_path, size="tiny")

    path = tmp_path / "planet.json"
    value = json.loads(path.read_text())
    value["files"] = dict(list(value["files"].items())[:3])
    value["features"] = value["features"][:2]
    path.write_text(json.dumps(value))
    assert sweep(path, read) > MOST / 3
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/planet.json").write_text("[" * 5000)
    with pytest.raises(DataError):
        provenance_of(tmp_path / "empty")


def test_records_of_downloads(tmp_path: Path) -> None:
    path = tmp_path / "download.json"
    file = {"path": "a.txt", "size": 1, "sha256": "0"}
    record = {
        "schema_version": 1, "dataset": "landform", "repository": "a/b", "revision": "c",
        "variant": None, "licence": "x", "complete": True, "created": "2026-01-01",
        "files": [file], "table": [file], "counts": {"rows": 1}, "missing": ["k"], "begun": ["a"],
    }  # fmt: skip
    path.write_text(json.dumps(record))

    def read() -> None:
        read_record(tmp_path)
        verify_data(tmp_path, tasks=["landform"], workers=1)

    assert sweep(path, read) > MOST / 2


def test_manifests_of_tiles(tmp_path: Path) -> None:
    path = tmp_path / "E000_N00.json"
    manifest = {
        "quad": "E000_N00", "spec": {}, "spec_hash": "a", "source": "b", "source_fingerprint": "c",
        "tar": "E000_N00.tar", "tar_bytes": 1, "tar_sha256": "d", "encoder": "e", "tiles": 1,
        "empty": ["f"], "dropped": ["g"], "failed": {"h": "i"}, "schema_version": 1,
    }  # fmt: skip
    path.write_text(json.dumps(manifest))
    assert sweep(path, lambda: ctx.read_manifest(path)) > MOST / 2


def test_adapters(tmp_path: Path) -> None:
    path = tmp_path / "adapter_config.json"
    config = {
        "peft_type": "LORA", "lora_alpha": 16, "r": 8, "bias": "none", "fan_in_fan_out": False,
        "use_dora": False, "use_rslora": True, "alpha_pattern": {"q_proj": 8},
    }  # fmt: skip
    path.write_text(json.dumps(config))
    assert sweep(path, lambda: read_adapter_config(tmp_path)) > 40


def test_configurations_of_open_clip(tmp_path: Path) -> None:
    path = tmp_path / "open_clip_config.json"
    text = {"hf_tokenizer_name": None, "tokenizer_kwargs": {"a": 1}, "context_length": 7}
    path.write_text(json.dumps({"model_cfg": {"embed_dim": 8, "text_cfg": text}}))

    def read() -> None:
        config = CheckpointSource(folder=tmp_path).config["model_cfg"].get("text_cfg", {})
        dict(config.get("tokenizer_kwargs", {}))

    assert sweep(path, read) > 30


def test_model_configs(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    good = {
        "name": "x", "family": "open_clip", "loader": "a.b:load", "repository": "a/b",
        "revision": "0" * 40, "image_size": 8, "dimension": 8, "parameters": 1, "licence": "mit",
        "paper": "", "code": "", "tried": "nothing", "modalities": ["image"], "gated": False,
    }  # fmt: skip

    def read(value: dict[str, Any]) -> None:
        lines = [f"{key} = {json.dumps(item)}" for key, item in value.items() if item is not None]
        path.write_text("\n".join(lines).replace('{"a": 1}', "{a = 1}").replace("1e+300", "1e300"))
        read_model_record(path)

    read(good)
    refused = 0
    for at in paths_of(good):
        for other in (*OTHERS, ...):
            try:
                read(changed(good, at, other))
            except DataError as error:
                named = f"'{at[0]}" in str(error) or "not readable as TOML" in str(error)
                assert "mine.toml: " in str(error) and named, (at, other)
                refused += 1
    assert refused > 100


def test_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"labels": ["a"], "image_ids": ["b"], "query_names": ["c"]}))
    assert sweep(path, lambda: read_labels(path)) > 60


def test_cached_downloads(tmp_path: Path) -> None:
    """Damaged records of fetched images and of partial downloads count as missing."""
    cache = LinkCache(tmp_path)
    data = b"image"
    fetched = Fetched(
        url="https://a/b", resolved_url="https://a/b", method="direct", size=len(data),
        sha256=hashlib.sha256(data).hexdigest(), format="PNG", extension="png", width=1, height=1,
    )  # fmt: skip
    cache.put(fetched, data)
    (path,) = tmp_path.rglob("*.json")

    def read() -> None:
        if cache.get(fetched.url) is None:
            raise DataError("fetched anew")

    assert sweep(path, read) > 60
    path = tmp_path / "part.json"

    def read_partial() -> None:
        (tmp_path / "part").write_bytes(data)
        path_text = path.read_text(encoding="utf-8")
        partial = PartialDownload(tmp_path / "part", "https://a/b")
        path.write_text(path_text, encoding="utf-8")
        if not partial.size:
            raise DataError("fetched anew")

    path.write_text(json.dumps({"url": "https://a/b", "total": 9, "validator": None}))
    assert sweep(path, read_partial) > 25


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[" * 150 + "]" * 150,
        '{"a":' * 5000 + "1" + "}" * 5000,
        "1" * 5000,
        "1" * 400,
        "1e999",
        "[NaN]",
        "[-Infinity]",
        '{"a": 1, "a": 2}',
        '"\\ud800"',
        "\x00",
    ],
)
def test_json_that_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"x\.json: not readable as JSON"):
        read_json(path)
    with pytest.raises(DataError, match=r"x\.json"):
        Area.read(path)


def test_json_that_is_accepted(tmp_path: Path) -> None:
    deep = "[" * 90 + "]" * 90
    assert parse_json(f'{{"a": {deep}, "b": 1.5, "c": "\\ud83d\\ude00"}}', source="x")["b"] == 1.5
    assert str(parse_json("[NaN]", source="x", strict=False)) == "[nan]"
    path = tmp_path / "long.json"
    path.write_text(json.dumps("x" * 100))
    with pytest.raises(DataError, match="longer than the limit of 50 bytes"):
        read_json(path, limit=50)


def test_a_region_of_numbers_too_large_for_floats(tmp_path: Path) -> None:
    corners = [[0, 0], [10**290, 0], [1, 1], [0, 0]]
    path = tmp_path / "region.geojson"
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [corners]}))
    with pytest.raises(DataError, match=r"region\.geojson"):
        Area.read(path)
    with pytest.raises(DataError, match="not a number"):
        Area.from_geojson({"type": "Polygon", "coordinates": [[[0, 0], [10**400, 0]] * 2]})
