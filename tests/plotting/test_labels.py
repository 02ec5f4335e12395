"""Labels do not overlap and graticules have round numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from marsretrieval.plotting import lat_label, lon_label
from marsretrieval.plotting.features import (
    LabelCandidate,
    Rect,
    multiples,
    place_labels,
    round_step,
)

FRAME = Rect(0, 0, 100, 100)


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100), st.floats(1, 40)), max_size=30),
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), max_size=5),
)
def test_labels_never_overlap(
    sizes: list[tuple[float, float, float]], points: list[tuple[float, float]]
) -> None:
    candidates = [
        LabelCandidate(
            [Rect.around(x, y + step, width, 5) for step in (0, 6, -6)],
            mark=Rect.around(x, y, 4, 4) if number % 2 else None,
        )
        for number, (x, y, width) in enumerate(sizes)
    ]
    taken = [Rect.around(x, y, 3, 3) for x, y in points]
    chosen = place_labels(candidates, FRAME, taken)
    rectangles = [
        candidate.positions[number]
        for candidate, number in zip(candidates, chosen, strict=True)
        if number is not None
    ]
    for index, one in enumerate(rectangles):
        assert one.within(FRAME)
        assert not any(one.overlaps(other) for other in rectangles[:index] + taken)
    if sizes and not points and 20 <= sizes[0][0] <= 80 and 3 <= sizes[0][1] <= 97:
        assert chosen[0] == 0  # the first has its choice


def test_names_of_lines() -> None:
    assert [lon_label(item) for item in (-180, -90.5, 0, 90, 180, 190)] == [
        "180°", "90.5°W", "0°", "90°E", "180°", "170°W",
    ]  # fmt: skip
    assert [lon_label(item, 360) for item in (-90, 0, 200)] == ["270°E", "0°E", "200°E"]
    assert [lat_label(item) for item in (-30, 0, 0.2)] == ["30°S", "0°", "0.2°N"]


def test_steps_are_round() -> None:
    assert [round_step(span, 12) for span in (360, 60, 12, 4, 0.4)] == [30, 5, 1, 0.5, 0.05]
    assert multiples(174, 186, 5) == [175, 180, 185]
    assert multiples(-180, 180, 90) == [-180, -90, 0, 90, 180]
