"""Contact sheets: every hit on one of them, in order, readable at the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marsretrieval.embeddings import EmbeddingStore
from marsretrieval.errors import MarsRetrievalWarning, MissingImagesWarning, UsageError
from marsretrieval.search import Hits, check_sheet_path, write_sheet
from tests.search.pictures import picture_store
from tests.search.places import hits_of


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    positions = [(10 + 0.2 * (n % 10), 5 + 0.2 * (n // 10), 0.2) for n in range(50)]
    return picture_store(tmp_path_factory.mktemp("sheet"), positions)


def test_one_sheet_has_the_given_name(store: EmbeddingStore, tmp_path: Path) -> None:
    summary = write_sheet(hits_of(store, k=12), tmp_path / "hits.png", store=store)
    assert list(summary.paths) == [tmp_path / "hits.png"]
    with Image.open(tmp_path / "hits.png") as sheet:
        assert sheet.size[0] > 1500 and sheet.size[1] > 700


def test_more_hits_make_numbered_sheets(store: EmbeddingStore, tmp_path: Path) -> None:
    summary = write_sheet(hits_of(store), tmp_path / "hits.jpg", store=store)
    assert [path.name for path in summary.paths] == ["hits-1.jpg", "hits-2.jpg"]
    assert not (tmp_path / "hits.jpg").exists()
    with pytest.warns(MarsRetrievalWarning, match="2 sheets of an earlier search .* hits-1.jpg"):
        write_sheet(hits_of(store, k=3), tmp_path / "hits.jpg", store=store)
    (tmp_path / "hits.jpg").unlink()
    first, second = (Image.open(path) for path in summary.paths)
    assert first.size[0] == second.size[0]
    assert first.size[1] > second.size[1]  # 42 and 8 hits


def test_a_pdf_has_a_page_per_sheet(store: EmbeddingStore, tmp_path: Path) -> None:
    write_sheet(hits_of(store), tmp_path / "hits.pdf", store=store)
    data = (tmp_path / "hits.pdf").read_bytes()
    assert (
        data.startswith(b"%PDF")
        and data.count(b"/Type /Page\n") + data.count(b"/Type /Page ") + data.count(b"/Type /Page/")
        >= 2
    )


def test_the_styles_differ(store: EmbeddingStore, tmp_path: Path) -> None:
    corners = []
    for style in ("light", "dark"):
        write_sheet(hits_of(store, k=3), tmp_path / f"{style}.png", store=store, style=style)
        with Image.open(tmp_path / f"{style}.png") as sheet:
            corners.append(sum(sheet.getpixel((2, 2))))  # type: ignore[arg-type]
    assert corners[0] > 600 > 200 > corners[1]
    with pytest.raises(UsageError, match="unknown style"):
        write_sheet(hits_of(store, k=3), tmp_path / "x.png", store=store, style="blue")


def test_unreadable_images_are_counted(tmp_path: Path) -> None:
    store = picture_store(tmp_path, [None] * 5)
    (tmp_path / "images" / "tile-001.png").unlink()
    with pytest.warns(MissingImagesWarning, match="1 of 5 images cannot be read"):
        summary = write_sheet(hits_of(store), tmp_path / "x.png", store=store)
    assert summary.unreadable == 1


def test_long_ids_are_shortened_and_counted(tmp_path: Path) -> None:
    store = picture_store(tmp_path, [None] * 2, ["short", "Wide-" * 45])
    with pytest.warns(MarsRetrievalWarning, match="1 id too long"):
        summary = write_sheet(hits_of(store), tmp_path / "x.png", store=store)
    assert summary.shortened == 1


def test_what_no_sheet_can_hold_is_refused(store: EmbeddingStore, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no format of a contact sheet"):
        check_sheet_path(tmp_path / "x.gif")
    n = 5_001
    many = Hits(np.zeros(n, np.float32), ["a"] * n, [None] * n, [None] * n, ["b"] * n, [None] * n)
    with pytest.raises(UsageError, match="at most 5,000"):
        write_sheet(many, tmp_path / "x.png", store=store)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".pdf"])
def test_a_search_without_hits_replaces_the_earlier_sheet(
    suffix: str, store: EmbeddingStore, tmp_path: Path
) -> None:
    path = tmp_path / f"x{suffix}"
    write_sheet(hits_of(store, k=12), path, store=store)
    earlier = path.read_bytes()
    none = Hits(np.zeros(0, np.float32), [], [], [], [], [])
    summary = write_sheet(none, path, store=store)
    assert list(summary.paths) == [path] and summary.unreadable == 0
    assert path.read_bytes() != earlier
    if suffix != ".pdf":
        sheet = Image.open(path).convert("L")
        assert sheet.height < 300 and sheet.getextrema()[0] < 128  # a title and "0 hits"
