"""Distribution of scores: exact in small stores, from a sample in large ones."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import marsretrieval
from marsretrieval.embeddings import build_store
from marsretrieval.errors import TruncatedTextWarning
from marsretrieval.search import Background, ScoreSample
from marsretrieval.search.scores import expected_best
from tests.fakes import FakeEncoder, FakeSource
from tests.search.places import make_store


class ShortEncoder(FakeEncoder):
    """Encoder with a context length of three words."""

    context_length = 3

    def count_truncated(self, texts: Any, *, role: str = "query") -> int | None:
        return sum(len(text.split()) > self.context_length for text in texts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("background") / "store"
    make_store(path, [(0.1 + 0.2 * column, 0.1, 0.2) for column in range(40)])
    return path


def test_z_and_percentile_are_those_of_all_tiles(folder: Path) -> None:
    store = marsretrieval.open_store(folder, encoder=FakeEncoder())
    result = store.search("dunes", k=40)
    scores = store.scores(result.query).astype(np.float64)
    for hit in result:
        assert hit.z == pytest.approx((hit.score - scores.mean()) / scores.std(), abs=2e-3)
        assert hit.percentile == pytest.approx(100 * (40 - hit.rank) / 40)
    summary = result.about["scores"]
    assert summary["tiles"] == summary["sampled"] == 40
    assert summary["best_z"] == pytest.approx(result[0].z, abs=1e-3)
    assert [hit.z for hit in result.merge(0.5)] == [
        next(hit.z for hit in result if hit.id == merged.id) for merged in result.merge(0.5)
    ]
    inside = store.search("dunes", bbox=(0, -1, 1, 1))
    assert inside[0].z == next(hit.z for hit in result if hit.id == inside[0].id)


def test_exported_score_columns(folder: Path, tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    result = marsretrieval.open_store(folder, encoder=FakeEncoder()).search("dunes", k=5)
    for name in ("a.gpkg", "a.geojson", "a.shp", "a.fgb"):
        result.write(tmp_path / name)
        frame = geopandas.read_file(tmp_path / name).sort_values("rank")
        assert frame["z"].to_numpy() == pytest.approx([hit.z for hit in result], abs=1e-3)
        assert frame["percentile"].tolist() == [hit.percentile for hit in result]
    result.write(tmp_path / "a.csv")
    header = (tmp_path / "a.csv").read_text().splitlines()[0]
    assert header == "rank,score,id,lon,lat,quad,source,z,percentile,area_km2,footprint"
    result.write(tmp_path / "a.parquet")
    assert "percentile" in geopandas.read_parquet(tmp_path / "a.parquet")


def test_matching_text_scores_above_meaningless_texts(folder: Path) -> None:
    encoder = FakeEncoder()
    store = marsretrieval.open_store(folder, encoder=encoder)
    verdicts = [store.search(f"text {number}").about["scores"] for number in range(20)]
    least = {verdict["meaningless_best"] for verdict in verdicts}
    assert len(least) == 1
    assert {verdict["stands_out"] for verdict in verdicts} == {True, False}
    calls = len(encoder.calls)
    store.search("once more")
    assert len(encoder.calls) == calls + 1  # meaningless texts are embedded once
    for number in range(20):
        result = store.search(f"text {number}")
        assert result.stands_out == (result[0].score > least.copy().pop())
    tile = store.search(like="tile-000003")
    assert tile.about["scores"]["meaningless_best"] is None
    assert tile.stands_out == (tile[0].z >= 2)
    assert store.search("dunes", min_score=0.999).stands_out is None


def test_few_tiles_have_no_distribution(tmp_path: Path) -> None:
    build_store(FakeEncoder(), FakeSource(), tmp_path / "store")
    store = marsretrieval.open_store(tmp_path / "store", encoder=FakeEncoder())
    assert store.search("dunes").stands_out is None


def test_a_sample_of_a_large_store() -> None:
    class Large:
        rows = 200_000

        def vectors(self, rows: Any) -> Any:
            return self.all[rows]

    rng = np.random.default_rng(0)
    store: Any = Large()
    store.all = rng.standard_normal((store.rows, 8)).astype(np.float32)
    sample = ScoreSample.__new__(ScoreSample)
    import marsretrieval.search.scores as module

    rows = module._sample_rows(store.rows)
    assert len(np.unique(rows)) == 4096 and rows.max() < store.rows
    sample._vectors, sample._rows = store.vectors(rows), store.rows
    query = np.eye(8, dtype=np.float32)[0]
    background = sample.background(query)
    assert background.mean == pytest.approx(0, abs=0.05)
    assert background.std == pytest.approx(1, abs=0.05)
    assert background.best() == pytest.approx(store.all[:, 0].max(), abs=0.8)
    assert background.percentile([0.0, 10.0]) == pytest.approx([50, 100], abs=2)


def test_expected_best_of_normal_values() -> None:
    rng = np.random.default_rng(1)
    for count in (100, 10_000):
        drawn = rng.standard_normal((200, count)).max(axis=1).mean()
        assert expected_best(count) == pytest.approx(drawn, abs=0.12)
    assert expected_best(1) == 0


def test_tiles_with_equal_scores() -> None:
    background = Background(np.full(50, 0.25, np.float32), 50)
    assert background.z([0.25, 0.3]).tolist() == [0, 0]
    assert background.percentile([0.25]).tolist() == [0]


def test_cut_texts_are_named(folder: Path) -> None:
    store = marsretrieval.open_store(folder, encoder=ShortEncoder())
    with pytest.warns(TruncatedTextWarning, match="length of 3 tokens, .*'four words at once'"):
        result = store.search("four words at once", raw=True)
    assert result.truncated == ["four words at once"] and result.about["context_length"] == 3
    with pytest.warns(TruncatedTextWarning, match="'a b c d'"):
        assert store.search("dunes", not_text="a b c d", raw=True).truncated == ["a b c d"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.search("dunes", raw=True).truncated == []
        assert store.search(like="tile-000001").truncated == []


@pytest.mark.filterwarnings("error")
def test_background_without_tiles_gives_no_warning() -> None:
    background = Background(np.zeros(0, np.float32), 0)
    assert np.isnan(background.mean) and np.isnan(background.std)
    np.testing.assert_array_equal(background.z([0.5]), [0.0])
