"""Marking, learning and auditing on a small store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from marsretrieval.embeddings import EmbeddingStore
from marsretrieval.errors import UsageError
from marsretrieval.inventory import Answer, Inventory, InventoryError, InventoryFiles
from tests.search.places import make_store

RunAudit = Callable[[Inventory, set[str]], int]


def name(number: int) -> str:
    return f"tile-{number:06d}"


def ranked(store: EmbeddingStore, vector: np.ndarray) -> list[str]:
    ids, vectors = store.load()
    return [ids[row] for row in np.argsort(-(vectors @ vector), kind="stable")]


def test_next_shows_the_best_unmarked_tiles_and_some_further_down(inventory: Inventory) -> None:
    order = ranked(inventory.store, inventory.query)
    page = inventory.next(12)
    assert [tile["id"] for tile in page.tiles[:8]] == order[:8]
    assert [tile["how"] for tile in page.tiles] == ["best"] * 8 + ["exploring"] * 4
    assert all(tile["id"] in order[8:112] for tile in page.tiles[8:])
    assert [tile["rank"] for tile in page.tiles[:8]] == list(range(1, 9))
    inventory.mark({tile["id"]: "no" for tile in page.tiles})
    log = [json.loads(line) for line in (inventory.path / "marks.jsonl").read_text().splitlines()]
    assert [line["how"] for line in log] == ["best"] * 8 + ["exploring"] * 4
    assert log[0]["rank"] == 1 and "score" in log[0] and "search" in log[0]
    page_ids = {tile["id"] for tile in page.tiles}
    assert not page_ids & {tile["id"] for tile in inventory.next(12).tiles}


def test_learning_needs_both_answers(inventory: Inventory) -> None:
    with pytest.raises(UsageError, match="no tile is marked"):
        inventory.learn()
    inventory.mark({name(1): "yes", name(2): "unsure"})
    with pytest.raises(UsageError, match=r"all marks are yes \(1\)"):
        inventory.learn()
    inventory.mark({name(3): "no"})
    vector = inventory.learn()
    assert (inventory.vector == vector).all()
    assert np.load(inventory.path / "learned.npy") == pytest.approx(vector)


def test_unknown_tiles_are_refused_with_a_suggestion(inventory: Inventory) -> None:
    with pytest.raises(UsageError, match="Did you mean"):
        inventory.mark({name(1): "yes", "tile-00001": "yes"})
    assert inventory.counts()["yes"] == 0  # all or none


def test_invalid_answers(inventory: Inventory) -> None:
    with pytest.raises(UsageError, match="'maybe' is not a mark"):
        inventory.mark({name(1): "maybe"})
    with pytest.raises(UsageError, match="no marks"):
        inventory.mark({})
    with pytest.raises(UsageError, match=r"must be 1 to 2\^62, not 0"):
        inventory.mark([Answer(name(1), "yes", tiles=0)])
    with pytest.raises(UsageError, match=r"tiles of .*, which is marked no"):
        inventory.mark([Answer(name(1), "no", tiles=4)])
    with pytest.raises(UsageError, match="marked twice"):
        inventory.mark([Answer(name(1), "yes"), Answer(name(1), "no")])
    with pytest.raises(UsageError, match="at least 1"):
        inventory.next(0)


def test_a_mark_can_be_taken_back(inventory: Inventory) -> None:
    inventory.mark({name(1): "yes"})
    inventory.mark({name(1): "none"})
    assert inventory.counts() == {"yes": 0, "no": 0, "unsure": 0}
    assert name(1) not in inventory.marked


@pytest.mark.slow
def test_intervals_of_many_audits_cover_the_truth(
    tmp_path: Path, store: EmbeddingStore, query: np.ndarray, run_audit: RunAudit
) -> None:
    order = ranked(store, query)
    generator = np.random.default_rng(0)
    truth = {order[rank] for rank in range(600) if generator.random() < 0.6 * 0.99**rank}
    covered = 0
    for seed in range(1, 101):
        path = tmp_path / f"{seed}.inventory"
        with Inventory.create(path, store, landform="pitted cones", query=query) as inventory:
            inventory.mark({tile: "yes" if tile in truth else "no" for tile in order[:20]})
            inventory.start_audit(600, target=0.2, seed=seed)
            run_audit(inventory, truth)
            tiles = inventory.estimate()["tiles"]
            covered += tiles["low"] <= len(truth) <= tiles["high"]
    assert covered >= 93


def test_an_audit_finds_the_truth(inventory: Inventory, run_audit: RunAudit) -> None:
    order = ranked(inventory.store, inventory.query)
    generator = np.random.default_rng(0)
    truth = {order[rank] for rank in range(600) if generator.random() < 0.6 * 0.99**rank}
    inventory.mark({tile: "yes" if tile in truth else "no" for tile in order[:20]})
    audit = inventory.start_audit(600, target=0.2, seed=2)
    assert audit.sizes == (300, 280)
    run_audit(inventory, truth)
    result = inventory.estimate()
    assert result["tiles"]["low"] <= len(truth) <= result["tiles"]["high"]
    assert result["audit"]["complete"] and result["half_width"] <= 0.2
    assert result["elsewhere"] == {"tiles": 0, "audited": 0, "yes": 0, "high": 0.0}
    assert result["agreement"]["estimate"] == 1.0 and result["agreement"]["of"] > 0
    assert result["hit_rate"]["estimate"] == 1.0
    confirmed = result["recall"]["confirmed"]
    assert result["recall"]["low"] <= confirmed / len(truth) <= result["recall"]["high"]
    assert inventory.next().tiles == [] and inventory.next().complete


def test_a_domain_and_the_rest(inventory: Inventory, run_audit: RunAudit) -> None:
    order = ranked(inventory.store, inventory.query)
    truth = {*order[:60], *order[500:510]}
    audit = inventory.start_audit(200, elsewhere=40, seed=1)
    assert audit.domain == 200 and audit.sizes == (200,) and audit.rest == 400
    assert {*audit.rest_order} <= {*order[200:]} and len(set(audit.rest_order)) == 40
    run_audit(inventory, truth)
    result = inventory.estimate()
    assert result["domain"] == 200
    assert result["tiles"]["low"] <= 60 <= result["tiles"]["high"]
    assert result["elsewhere"]["audited"] == 40
    assert 10 <= result["elsewhere"]["high"] <= 400


def test_pages_are_blind_mixed_and_repeatable(inventory: Inventory) -> None:
    order = ranked(inventory.store, inventory.query)
    inventory.mark(dict.fromkeys(order[:5], "yes"))
    audit = inventory.start_audit(600, seed=9)
    page = inventory.next(25)
    assert page.audit == 1 and page.page == 1 and len(page.tiles) == 25
    assert all({"score", "rank", "kind", "stratum"}.isdisjoint(tile) for tile in page.tiles)
    assert [t["id"] for t in inventory.next(25).tiles] == [t["id"] for t in page.tiles]
    saved = InventoryFiles(inventory.path).audits[0]
    strata = [slot.stratum for slot in saved.pages[0] if slot.kind == "sample"]
    assert {*strata} == {0, 1} and strata != sorted(strata) and strata != sorted(strata)[::-1]
    assert [slot.kind for slot in saved.pages[0]].count("control") == 1
    for stratum, names in enumerate(audit.order):
        sampled = {s.id for s in saved.pages[0] if s.kind == "sample" and s.stratum == stratum}
        assert sampled == {*names[: len(sampled)]}


def test_repeats_and_controls_measure_the_reader(inventory: Inventory) -> None:
    order = ranked(inventory.store, inventory.query)
    inventory.mark(dict.fromkeys(order[:30], "yes"))
    inventory.start_audit(600, target=0.01, seed=2)
    answers: dict[str, str] = {}
    for _ in range(8):
        page = inventory.next(25)
        slots = inventory.files.audits[0].pages[-1]
        marks = {}
        for slot in slots:
            if slot.kind == "repeat":
                marks[slot.id] = "yes" if answers[slot.id] == "no" else "no"
            elif slot.kind == "control":
                marks[slot.id] = "no"
            else:
                marks[slot.id] = "no"
                answers[slot.id] = "no"
        assert {*marks} == {tile["id"] for tile in page.tiles}
        inventory.mark(marks)
    result = inventory.estimate()
    assert result["agreement"]["estimate"] == 0 and result["agreement"]["of"] >= 7
    assert result["hit_rate"]["estimate"] == 0 and result["hit_rate"]["of"] == 8
    assert result["corrected"] is None
    assert result["marked"]["yes"] == 30  # second answers change no mark


def test_a_missed_control_corrects_the_estimate(inventory: Inventory) -> None:
    order = ranked(inventory.store, inventory.query)
    inventory.mark(dict.fromkeys(order[:30], "yes"))
    inventory.start_audit(600)
    hits = 0
    for number in range(4):
        inventory.next(25)
        marks = {}
        for slot in inventory.files.audits[0].pages[-1]:
            marks[slot.id] = "yes" if slot.kind == "control" and number else "no"
            hits += marks[slot.id] == "yes"
        inventory.mark(marks)
    result = inventory.estimate()
    assert hits == 3 and result["hit_rate"]["estimate"] == 0.75
    assert result["corrected"]["estimate"] == pytest.approx(result["tiles"]["estimate"] / 0.75)


def test_audit_marks_do_not_train_until_it_is_closed(
    inventory: Inventory, run_audit: RunAudit
) -> None:
    order = ranked(inventory.store, inventory.query)
    inventory.mark({tile: "yes" if rank % 2 else "no" for rank, tile in enumerate(order[:20])})
    before = inventory.learn()
    audit = inventory.start_audit(600, target=0.5)
    run_audit(inventory, {*order[::7]})
    assert (inventory.learn() == before).all()
    assert inventory.held_back > 0
    assert inventory.files.audits[0].vector == audit.vector
    inventory.close_audit()
    assert inventory.held_back == 0
    assert (inventory.learn() != before).any()
    second = inventory.start_audit(600)
    assert sum(second.sizes) == 600 - len(inventory.marked)
    assert second.number == 2


def test_an_open_audit_excludes_another(inventory: Inventory) -> None:
    with pytest.raises(UsageError, match="no audit is open"):
        inventory.close_audit()
    inventory.start_audit(100)
    with pytest.raises(UsageError, match="audit 1 is open"):
        inventory.start_audit(100)


@pytest.mark.parametrize(
    "options", [{"domain": 0}, {"target": 0}, {"target": 1.5}, {"seed": -1}, {"elsewhere": -1}]
)
def test_invalid_audits(inventory: Inventory, options: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        inventory.start_audit(**options)  # type: ignore[arg-type]
    assert not inventory.files.audits


def test_a_domain_larger_than_the_store_is_the_store(inventory: Inventory) -> None:
    assert inventory.start_audit(6300).domain == 600


def test_a_domain_smaller_than_a_stratum(inventory: Inventory, run_audit: RunAudit) -> None:
    audit = inventory.start_audit(7, elsewhere=0)
    assert audit.sizes == (7,)
    truth = {*ranked(inventory.store, inventory.query)[:3]}
    run_audit(inventory, truth)
    result = inventory.estimate()
    assert result["tiles"] == {"estimate": 3.0, "low": 3.0, "high": 3.0}


def test_everything_marked_is_exact(inventory: Inventory) -> None:
    inventory.mark({name(number): "yes" if number < 17 else "no" for number in range(600)})
    assert inventory.estimate()["tiles"] == {"estimate": 17.0, "low": 17.0, "high": 17.0}
    assert inventory.next().tiles == [] and inventory.next().complete
    audit = inventory.start_audit(600)
    assert audit.sizes == () and inventory.next().complete
    result = inventory.estimate()
    assert result["tiles"] == {"estimate": 17.0, "low": 17.0, "high": 17.0}
    assert result["places"]["estimate"] == pytest.approx(result["confirmed"]["places"])
    assert result["recall"]["low"] == result["recall"]["high"] == 1.0


def test_without_an_audit_only_the_range_is_known(inventory: Inventory) -> None:
    inventory.mark({name(1): "yes", name(2): "no", name(3): "no", name(4): "unsure"})
    result = inventory.estimate()
    assert result["tiles"] == {"estimate": None, "low": 1.0, "high": 598.0}
    assert result["audited"] == 0 and result["audit"] is None
    assert result["marked"] == {"yes": 1, "no": 2, "unsure": 1}


def test_unsure_tiles_widen_the_interval(inventory: Inventory) -> None:
    order = ranked(inventory.store, inventory.query)
    inventory.start_audit(600, target=0.3, seed=4)
    for _ in range(4):
        tiles = [tile["id"] for tile in inventory.next().tiles]
        inventory.mark({tile: "yes" if order.index(tile) < 80 else "no" for tile in tiles})
    sure = inventory.estimate()
    yes = [mark.id for mark in inventory.marked.values() if mark.mark == "yes"]
    inventory.mark({yes[0]: "unsure"})  # a correction of an earlier page
    doubtful = inventory.estimate()
    assert doubtful["tiles"]["high"] == sure["tiles"]["high"]
    assert doubtful["tiles"]["low"] < sure["tiles"]["low"]


def test_an_incomplete_page_does_not_count(inventory: Inventory) -> None:
    inventory.start_audit(600)
    tiles = [tile["id"] for tile in inventory.next().tiles]
    inventory.mark(dict.fromkeys(tiles[:10], "yes"))
    result = inventory.estimate()
    assert result["audited"] == 0 and result["audit"]["pending"] == 15
    assert [tile["id"] for tile in inventory.next().tiles] == tiles[10:]
    inventory.mark(dict.fromkeys(tiles[10:], "no"))
    assert inventory.estimate()["audited"] == 25


def test_places_are_connected_tiles(inventory: Inventory) -> None:
    # Three tiles in a row, a diagonal pair far away, and a single tile.
    chosen = [0, 1, 2, 300 + 10, 330 + 11, 590]
    inventory.mark({name(number): "yes" for number in chosen})
    assert inventory.estimate()["confirmed"] == {"tiles": 6, "places": 3}


def test_a_given_place_size_is_used(inventory: Inventory) -> None:
    inventory.mark([Answer(name(number), "no") for number in range(600) if number not in (5, 7)])
    inventory.mark([Answer(name(5), "yes", tiles=4), Answer(name(7), "yes")])
    inventory.start_audit(600)
    result = inventory.estimate()
    assert result["tiles"]["estimate"] == 2
    assert result["places"]["estimate"] == pytest.approx(1.25)
    assert result["places"]["assumed"] == 1


def test_a_store_that_grew_is_refused_and_can_be_adopted(tmp_path: Path, query: np.ndarray) -> None:
    positions = [(0.1 + 0.2 * column, 0.1, 0.2) for column in range(40)]
    small = make_store(tmp_path / "small", positions[:30])
    large = make_store(tmp_path / "large", positions)
    with Inventory.create(tmp_path / "a.inventory", small, landform="a", query=query) as inventory:
        inventory.mark({name(3): "yes", name(29): "no"})
    files = InventoryFiles(tmp_path / "a.inventory", write=True)
    with pytest.raises(InventoryError, match="has grown from 30 to 40 tiles"):
        Inventory(files, large)
    from marsretrieval.inventory.store_identity import update_store

    assert update_store(files, large) == {"before": 30, "after": 40, "marked": 2}
    with Inventory(files, large) as again:
        assert again.population == 40
        assert again.counts() == {"yes": 1, "no": 1, "unsure": 0}
        again.learn()
        assert len(again.next(40).tiles) == 38


def test_another_encoder_is_refused_by_name(inventory: Inventory) -> None:
    header = inventory.path / "inventory.json"
    text = header.read_text()
    identity = json.loads(text)["store"]["encoder"]["id"]
    header.write_text(text.replace(f'"id": "{identity}"', '"id": "another"'))
    inventory.close()
    with pytest.raises(InventoryError, match=r"another encoder.*id: another"):
        Inventory(InventoryFiles(inventory.path), inventory.store)
