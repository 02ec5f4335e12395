"""Run an audit: freeze a ranking, draw blind pages, count the answers, estimate.

The functions take and return the records of `inventory.files`; nothing here reads a store, so that
an estimate can be recomputed from the inventory's files alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from marsretrieval import __version__
from marsretrieval.errors import UsageError
from marsretrieval.inventory.estimates import (
    START,
    STEP,
    Interval,
    draw_order,
    estimate_places,
    estimate_tiles,
    next_stratum,
    strata_sizes,
)
from marsretrieval.inventory.files import SCHEMA, Audit, Mark, Slot, SlotKind, now, statuses
from marsretrieval.inventory.places import PlaceSizes

PAGE = 25  # tiles
REST = 100  # tiles to look at outside the domain
TARGET = 0.2  # half width / estimate
MAX_CONTROLS = 200

_CONTROL_EVERY = 25  # tiles per control tile
_REPEAT_EVERY = 20  # tiles per repeated tile
_REST_EVERY = 6  # tiles per tile outside the domain
_CHECK_EVERY = 5  # tiles per second look at a tile marked yes
_RARE = 0.1  # a yes is looked at twice where fewer sampled tiles than this share are yes
_MIX = 10  # tiles drawn from a stratum before the next one is chosen, so that pages are mixed


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """Answers of an audit's complete pages.

    Attributes:
        sizes: Unmarked tiles per stratum.
        sampled: Audited tiles per stratum.
        yes: Tiles marked yes per stratum.
        unsure: Tiles marked unsure per stratum.
        positives: Ids and strata of the audited tiles marked yes.
        doubtful: Ids and strata of the audited tiles marked unsure.
        known: Tiles marked before the audit that are yes now.
        known_unsure: Tiles marked before the audit that are unsure, or no longer marked.
        rest_sampled: Tiles outside the domain that were looked at.
        rest_yes: Those marked yes.
        rest_unsure: Those marked unsure.
        repeats: Tiles shown twice with two answers.
        agreed: Those with equal answers.
        checked: Tiles of the sample marked yes that were looked at a second time, because few
            tiles of their stratum are yes.
        upheld: Those marked yes again; the others count as unsure.
        controls: Confirmed positives shown again.
        hits: Those marked yes again.
        pending: Tiles of the open page without an answer.
    """

    sizes: tuple[int, ...]
    sampled: tuple[int, ...]
    yes: tuple[int, ...]
    unsure: tuple[int, ...]
    positives: tuple[tuple[str, int], ...]
    doubtful: tuple[tuple[str, int], ...]
    known: tuple[str, ...]
    known_unsure: tuple[str, ...]
    rest_sampled: int
    rest_yes: int
    rest_unsure: int
    repeats: int
    agreed: int
    checked: int
    upheld: int
    controls: int
    hits: int
    pending: int

    def tiles(self) -> Interval:
        """Estimate the positive tiles; the limits treat unsure tiles as no and as yes."""
        if any(n == 0 < size for n, size in zip(self.sampled, self.sizes, strict=True)):
            # Some stratum has not been looked at: only the range is known.
            before, confirmed = len(self.known), sum(self.yes)
            most = sum(self.sizes) - sum(self.sampled) + confirmed + sum(self.unsure)
            return Interval(None, before + confirmed, before + len(self.known_unsure) + most)
        low = estimate_tiles(self.sizes, self.sampled, self.yes, known=len(self.known))
        if not sum(self.unsure) and not self.known_unsure:
            return low
        either = tuple(a + b for a, b in zip(self.yes, self.unsure, strict=True))
        before = len(self.known) + len(self.known_unsure)
        high = estimate_tiles(self.sizes, self.sampled, either, known=before)
        return Interval(low.estimate, low.low, high.high)

    def is_narrow(self, target: float) -> bool:
        """Check the half width that is due to sampling, with unsure tiles as no and as yes.

        More tiles cannot remove the doubt about unsure ones, so that an audit does not wait for it.

        Args:
            target: Half width, as a share of the estimate.
        """
        if any(n == 0 < size for n, size in zip(self.sampled, self.sizes, strict=True)):
            return False
        either = tuple(a + b for a, b in zip(self.yes, self.unsure, strict=True))
        before = len(self.known)
        for positive, base in ((self.yes, before), (either, before + len(self.known_unsure))):
            tiles = estimate_tiles(self.sizes, self.sampled, positive, known=base)
            if not tiles.estimate or tiles.half_width > target * tiles.estimate:
                return False
        return True

    def places(self, sizes: PlaceSizes) -> Interval:
        """Estimate the number of places; limits as of `tiles`.

        Args:
            sizes: Tiles per place.
        """
        tiles = self.tiles()
        share = {name: 1 / sizes.of(name) for name, _ in (*self.positives, *self.doubtful)}
        before = sum(1 / sizes.of(name) for name in self.known)
        if tiles.estimate is None:
            share_sum = sum(share[name] for name, _ in self.positives)
            return Interval(None, before + share_sum, tiles.high)

        def total(items: Sequence[tuple[str, int]], base: float) -> Interval:
            return estimate_places(
                self.sizes,
                self.sampled,
                [stratum for _, stratum in items],
                [share[name] for name, _ in items],
                known=base,
            )

        low = total(self.positives, before)
        if not self.doubtful and not self.known_unsure:
            return low
        high = total((*self.positives, *self.doubtful), before + len(self.known_unsure))
        return Interval(low.estimate, low.low, high.high)

    @property
    def exhausted(self) -> bool:
        """Whether every tile of the domain has been looked at."""
        return self.sampled == self.sizes


def begin_audit(
    number: int,
    ranked_ids: Sequence[str],
    marks: Sequence[Mark],
    audits: Sequence[Audit],
    *,
    population: int,
    rest: Callable[[int], tuple[int, Sequence[str]]],
    vector: str,
    target: float = TARGET,
    seed: int = 0,
    rest_count: int = REST,
) -> Audit:
    """Freeze the design of an audit.

    Args:
        number: Number of the audit.
        ranked_ids: Ids of the domain in the order of the ranking, marked tiles included.
        marks: Lines of the log of marks.
        audits: Earlier audits.
        population: Tiles of the store with data.
        rest: Function of a count that returns the number of unmarked tiles outside the domain and
            that many of them (or all), drawn at random.
        vector: SHA-256 of the query vector.
        target: Half width, as a share of the estimate, at which the audit is complete.
        seed: Seed of all draws.
        rest_count: Tiles to look at outside the domain.

    Returns:
        The audit without pages.

    Raises:
        UsageError: If the target, the seed or a count is out of range.
    """
    if not 0 < target < 1:
        raise UsageError(f"target {target:g} is not between 0 and 1", remedy="Use 0.2 for 20 %.")
    if seed < 0 or rest_count < 0:
        raise UsageError("seed and number of tiles must not be negative")
    current = statuses(marks, audits)
    unmarked = [name for name in ranked_ids if name not in current]
    sizes = strata_sizes(len(unmarked))
    order, start = [], 0
    for stratum, size in enumerate(sizes):
        drawn = draw_order(size, seed, stratum, number) + start
        order.append(tuple(unmarked[position] for position in drawn.tolist()))
        start += size
    rest_size, rest_ids = rest(rest_count)
    confirmed = sorted(name for name, mark in current.items() if mark.mark == "yes")
    generator = np.random.default_rng([seed, number, 2**32])
    controls = [confirmed[index] for index in generator.permutation(len(confirmed)).tolist()]
    return Audit(
        schema=SCHEMA,
        number=number,
        state="open",
        created=now(),
        closed=None,
        vector=vector,
        ranking=hashlib.sha256("\n".join(ranked_ids).encode()).hexdigest(),
        seed=seed,
        domain=len(ranked_ids),
        population=population,
        target=target,
        marks_before=len(marks),
        sizes=tuple(sizes),
        order=tuple(order),
        rest=rest_size,
        rest_order=tuple(rest_ids),
        controls=tuple(controls[:MAX_CONTROLS]),
        versions=_versions(),
    )


def count_answers(audit: Audit, marks: Sequence[Mark], audits: Sequence[Audit]) -> Tally:
    """Count the answers of an audit.

    Only complete pages count: within a page, the order in which tiles are answered is the reader's
    choice.

    Args:
        audit: The audit.
        marks: Lines of the log of marks.
        audits: All audits.

    Returns:
        The counts.
    """
    answers = _answers(audit, marks)
    strata = len(audit.sizes)
    sampled, yes, unsure = [0] * strata, [0] * strata, [0] * strata
    positives: list[tuple[str, int]] = []
    doubtful: list[tuple[str, int]] = []
    first: dict[str, str] = {}
    rest_sampled = rest_yes = rest_unsure = repeats = agreed = controls = hits = pending = 0
    checked = upheld = 0
    complete: list[tuple[int, tuple[Slot, ...]]] = []
    disputed: dict[str, int] = {}  # lines of the log
    for number, slots in enumerate(audit.pages, 1):
        lines = [answers.get((number, slot.id)) for slot in slots]
        if None in lines:
            pending += lines.count(None)
            continue
        complete.append((number, slots))
        for slot in slots:
            if slot.kind == "check":
                line = answers[number, slot.id]
                checked += 1
                upheld += marks[line].mark == "yes"
                if marks[line].mark != "yes":
                    disputed[slot.id] = line
    for number, slots in complete:
        slot_marks = [marks[answers[number, slot.id]].mark for slot in slots]
        for slot, answer in zip(slots, slot_marks, strict=True):
            if slot.kind == "sample":
                stratum = slot.stratum or 0
                first[slot.id] = answer
                sampled[stratum] += 1
                if answer == "yes" and disputed.get(slot.id, -1) > answers[number, slot.id]:
                    answer = "unsure"  # the second look was not a yes, and nothing came later
                if answer == "yes":
                    yes[stratum] += 1
                    positives.append((slot.id, stratum))
                elif answer == "unsure":
                    unsure[stratum] += 1
                    doubtful.append((slot.id, stratum))
            elif slot.kind == "elsewhere":
                rest_sampled += 1
                rest_yes += answer == "yes"
                rest_unsure += answer == "unsure"
            elif slot.kind == "control":
                controls += 1
                hits += answer == "yes"
            elif slot.id in first:
                repeats += 1
                agreed += first[slot.id] == answer
    census = statuses(marks[: audit.marks_before], audits)
    current = statuses(marks, audits)
    value = {name: current[name].mark if name in current else "none" for name in census}
    return Tally(
        sizes=audit.sizes,
        sampled=tuple(sampled),
        yes=tuple(yes),
        unsure=tuple(unsure),
        positives=tuple(positives),
        doubtful=tuple(doubtful),
        known=tuple(name for name, mark in value.items() if mark == "yes"),
        known_unsure=tuple(name for name, mark in value.items() if mark in ("unsure", "none")),
        rest_sampled=rest_sampled,
        rest_yes=rest_yes,
        rest_unsure=rest_unsure,
        repeats=repeats,
        agreed=agreed,
        checked=checked,
        upheld=upheld,
        controls=controls,
        hits=hits,
        pending=pending,
    )


def target_reached(audit: Audit, tally: Tally) -> bool:
    """Check whether the interval is narrow enough, or the domain is exhausted.

    An audit that has found no positive tile, with none known before, ends with its domain.

    Args:
        audit: The audit.
        tally: Its counts.

    Returns:
        Whether no more tiles of the domain are needed.
    """
    return tally.exhausted or tally.is_narrow(audit.target)


def open_page(audit: Audit, marks: Sequence[Mark]) -> tuple[int, list[Slot]] | None:
    """Return the tiles of the first incomplete page that have no answer.

    Args:
        audit: The audit.
        marks: Lines of the log of marks.

    Returns:
        The page, from 1, and its slots in the order of the page; None if all pages are complete.
    """
    answers = _answers(audit, marks)
    for number, slots in enumerate(audit.pages, 1):
        remaining = [slot for slot in slots if (number, slot.id) not in answers]
        if remaining:
            return number, remaining
    return None


def draw_page(
    audit: Audit, marks: Sequence[Mark], audits: Sequence[Audit], count: int = PAGE
) -> Audit:
    """Draw the next page of an audit whose pages are complete.

    Args:
        audit: The audit.
        marks: Lines of the log of marks.
        audits: All audits.
        count: Tiles of the page.

    Returns:
        The audit with one more page; the same audit if it is complete.
    """
    tally = count_answers(audit, marks, audits)
    earlier = [slot for slots in audit.pages for slot in slots]
    page: list[Slot] = []

    def is_due(kind: SlotKind, every: int) -> bool:
        before = sum(slot.kind == kind for slot in (*earlier, *page))
        return len(page) < count and before < (len(earlier) + count) // every

    rest_left = audit.rest_order[sum(slot.kind == "elsewhere" for slot in earlier) :]
    is_complete = target_reached(audit, tally)
    checks = _unchecked(audit, tally)
    if is_complete and not rest_left and not checks:
        return audit
    generator = np.random.default_rng([audit.seed, audit.number, 2**32 + 1, len(audit.pages)])
    if not is_complete and audit.pages:  # a second look comes later than on the next page
        recent = {slot.id for slot in audit.pages[-1]}
        checks = [name for name in checks if name not in recent][: max(1, count // _CHECK_EVERY)]
    page.extend(Slot(name, "check") for name in checks[:count])
    controls = list(audit.controls[sum(slot.kind == "control" for slot in earlier) :])
    while controls and is_due("control", _CONTROL_EVERY):
        page.append(Slot(controls.pop(0), "control"))
    second = {slot.id for slot in (*earlier, *page) if slot.kind in ("repeat", "check")}
    once = [slot.id for slot in earlier if slot.kind == "sample" and slot.id not in second]
    while once and is_due("repeat", _REPEAT_EVERY):
        page.append(Slot(once.pop(int(generator.integers(len(once)))), "repeat"))
    room = count - len(page)
    rest_now = room if is_complete else min(room - 1, -(-count // _REST_EVERY))
    page.extend(Slot(name, "elsewhere") for name in rest_left[: max(rest_now, 0)])
    if not is_complete:
        page.extend(_draw_sample(audit, tally, earlier, count - len(page)))
    if room and all(slot.kind in ("control", "repeat") for slot in page):
        return audit  # the random orders are used up
    mixed = tuple(page[index] for index in generator.permutation(len(page)).tolist())
    return replace(audit, pages=(*audit.pages, mixed))


def _draw_sample(audit: Audit, tally: Tally, earlier: Sequence[Slot], count: int) -> list[Slot]:
    """Draw tiles of the domain: 20 per stratum first, then where they narrow the interval most."""
    planned = np.bincount(
        [slot.stratum or 0 for slot in earlier if slot.kind == "sample"],
        minlength=len(audit.sizes),
    )
    available = np.array([len(names) for names in audit.order])
    start = np.minimum(START, available)
    slots: list[Slot] = []
    while len(slots) < count:
        if (planned < start).any():
            stratum, take = int(np.argmin(np.where(planned < start, planned, np.inf))), 1
        else:
            stratum = int(
                next_stratum(
                    np.where(planned < available, audit.sizes, planned),  # skip what is used up
                    tally.sampled,
                    tally.yes,
                    planned=planned,
                    step=STEP,
                )
            )
            take = min(_MIX, count - len(slots))
            if stratum < 0:
                break
        names = audit.order[stratum][planned[stratum] : planned[stratum] + take]
        slots += [Slot(name, "sample", stratum) for name in names]
        planned[stratum] += len(names)
    return slots


def page_of(audit: Audit, name: str, marks: Sequence[Mark]) -> int | None:
    """Find the page that a new mark of a tile answers or corrects.

    A closed audit takes corrections only: a tile that had no answer when it was closed is no longer
    shown blindly.

    Args:
        audit: The audit.
        name: Tile id.
        marks: Lines of the log of marks.

    Returns:
        The last page of an open audit if it shows the tile; else the page that shows it as part
        of the sample, where the mark is a correction; None if there is none.
    """
    if audit.state == "closed" and not any(
        mark.audit == audit.number and mark.id == name for mark in marks
    ):
        return None
    last = len(audit.pages)
    for number in range(last, 0, -1):
        for slot in audit.pages[number - 1]:
            is_current = number == last and audit.state == "open"
            if slot.id == name and (is_current or slot.kind in ("sample", "elsewhere")):
                return number
    return None


def is_complete(audit: Audit, tally: Tally) -> bool:
    """Check whether an audit needs no more answers.

    Args:
        audit: The audit.
        tally: Its counts.

    Returns:
        Whether the target is reached, the tiles outside the domain have been looked at, and so
        have, twice, the tiles marked yes where they are rare.
    """
    return (
        not tally.pending
        and target_reached(audit, tally)
        and not _unchecked(audit, tally)
        and tally.rest_sampled >= len(audit.rest_order)
    )


def answered(audit: Audit, marks: Sequence[Mark]) -> int:
    """Count the tiles of an audit's pages that have been answered, repeats and controls included.

    Args:
        audit: The audit.
        marks: Lines of the log of marks.

    Returns:
        The number.
    """
    answers = _answers(audit, marks)
    pages = enumerate(audit.pages, 1)
    return sum((number, slot.id) in answers for number, slots in pages for slot in slots)


def planned(audit: Audit, tally: Tally) -> int:
    """Predict how many tiles an audit will show, repeats and controls included.

    The half width of the interval is taken to fall with the square root of the sample. Without an
    estimate, the prediction is the first sample of all strata.

    Args:
        audit: The audit.
        tally: Its counts.

    Returns:
        The number of tiles; a prediction until the audit is complete.
    """
    shown_count = sum(map(len, audit.pages))
    sampled, most = sum(tally.sampled), sum(len(names) for names in audit.order)
    tiles = tally.tiles()
    if target_reached(audit, tally):
        needed = sampled
    elif tiles.estimate:
        ratio = tiles.half_width / (audit.target * tiles.estimate)
        needed = min(most, math.ceil(sampled * ratio**2))
    else:
        first = sum(min(START, len(names)) for names in audit.order)
        needed = min(most, max(first, sampled + PAGE))
    remaining = max(needed - sampled, 0) + len(audit.rest_order) - tally.rest_sampled
    again = remaining / _REPEAT_EVERY + (remaining / _CONTROL_EVERY if audit.controls else 0)
    complete = sampled + tally.rest_sampled + tally.repeats + tally.controls
    return max(shown_count, complete + remaining + round(again))


def _answers(audit: Audit, marks: Sequence[Mark]) -> dict[tuple[int, str], int]:
    """Return the line of the latest answer of each (page, tile), unless it was taken back."""
    latest = {
        (mark.page or 0, mark.id): line
        for line, mark in enumerate(marks)
        if mark.audit == audit.number
    }
    return {key: line for key, line in latest.items() if marks[line].mark != "none"}


def _unchecked(audit: Audit, tally: Tally) -> list[str]:
    """Return the tiles marked yes in strata with few of them that wait for a second look."""
    checked = {slot.id for slots in audit.pages for slot in slots if slot.kind == "check"}
    return [
        name
        for name, stratum in tally.positives
        if name not in checked and tally.yes[stratum] < _RARE * tally.sampled[stratum]
    ]


def _versions() -> dict[str, str]:
    import scipy

    return {"marsretrieval": __version__, "numpy": np.__version__, "scipy": scipy.__version__}
