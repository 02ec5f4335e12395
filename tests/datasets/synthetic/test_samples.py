from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from marsretrieval.datasets.synthetic import BENCHMARK, LANDFORMS, sample, sample_pair
from marsretrieval.datasets.synthetic.dataset_files import describe
from marsretrieval.datasets.synthetic.ground import Ground, band_noise
from marsretrieval.datasets.synthetic.scene import REACH, Attributes, draw_image, plant
from marsretrieval.errors import UnknownNameError


def seeded(*entropy: int) -> np.random.Generator:
    return np.random.default_rng(list(entropy))


def flat(edge: int = 64) -> Ground:
    return Ground(
        np.zeros((edge, edge), np.float32),
        np.zeros((edge, edge), np.float32),
        centre=(edge / 2, edge / 2),
        frame=float(edge),
    )


def test_registry_has_the_benchmark_landforms_and_others() -> None:
    assert BENCHMARK == (
        "alluvial_fans", "glacier-like_form", "landslides", "pitted_cones", "yardangs",
    )  # fmt: skip
    assert set(BENCHMARK) < set(LANDFORMS)
    assert len(LANDFORMS) >= 15


@pytest.mark.parametrize("name", LANDFORMS)
def test_every_landform_changes_the_ground_and_stays_finite(name: str) -> None:
    for seed in range(6):
        ground = flat()
        traits = LANDFORMS[name].draw(ground, seeded(seed))
        relief = max(float(np.ptp(ground.height)), 20 * float(np.ptp(ground.albedo)))
        assert np.isfinite(ground.height).all()
        assert np.isfinite(ground.albedo).all()
        assert relief > 1, "nobody would see it"
        assert float(ground.albedo.min()) > -1, "darker than black"
        assert 0 < traits.size < 2


@pytest.mark.parametrize("name", LANDFORMS)
def test_sample_has_any_size_and_depends_only_on_the_seed(name: str) -> None:
    for edge in (16, 64):
        image, attributes = sample(name, seeded(1), edge)
        again, repeated_attributes = sample(name, seeded(1), edge)
        assert image.shape == (edge, edge)
        assert image.dtype == np.uint8
        assert image.min() > 0, "0 is kept for no data"
        assert image.std() > 3
        assert np.array_equal(image, again)
        assert attributes == repeated_attributes
        assert attributes.landform == name
        assert not np.array_equal(image, sample(name, seeded(2), edge)[0])


def test_samples_need_not_be_square() -> None:
    assert draw_image(LANDFORMS["yardangs"], seeded(1), (40, 70))[0].shape == (40, 70)


def test_unknown_landform_error_suggests_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="pitted_cones"):
        sample("pitted_cone", seeded(0))


@pytest.mark.parametrize("name", LANDFORMS)
def test_ground_outside_the_span_is_unchanged(name: str) -> None:
    landform = LANDFORMS[name]
    ground = flat(160)
    for seed in range(12):
        rng = seeded(seed)
        plant(landform, ground, rng, centre=(80, 80), frame=48, span=landform.span)
    away = np.hypot(*np.mgrid[-79.5:80, -79.5:80]) / 48
    beyond = away > REACH * landform.span
    assert beyond.any()
    assert not ground.height[beyond].any()
    assert not ground.albedo[beyond].any()
    assert ground.height.any() or ground.albedo.any()


def test_relief_does_not_depend_on_the_resolution() -> None:
    """A landform of twice the width has twice the relief in pixels: slopes are unchanged."""
    heights = []
    for edge in (64, 128):
        ground = flat(edge)
        LANDFORMS["impact_crater"].draw(ground, seeded(5))
        heights.append(float(ground.height.min()) / edge)
    assert heights[0] == pytest.approx(heights[1], rel=0.1)


def test_noise_is_limited_to_its_wavelengths() -> None:
    field = band_noise(seeded(0), (128, 128), 32, 8, 1.0)
    power = np.abs(np.fft.rfft2(field)) ** 2
    lines = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128)[None, :])
    inside = (lines > 1 / 64) & (lines < 1 / 6)
    assert power[inside].sum() > 0.95 * power.sum()
    assert field.std() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("shape", "longest", "shortest", "fall"),
    [((96, 150), 60, 20, 2.0), ((64, 64), 10, 1, 1.3), ((33, 71), 40, 500, 0.0)],
)
def test_noise_is_the_transform_of_its_whole_spectrum(
    shape: tuple[int, int], longest: float, shortest: float, fall: float
) -> None:
    lines = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :])
    lines[0, 0] = np.inf
    high, low = np.exp(-((lines * shortest) ** 4)), 1 / (1 + (1 / (lines * longest)) ** 4)
    amplitudes = (high * low * lines**-fall).astype(np.float32)
    amplitudes[0, 0] = 0
    phases = seeded(4).random(lines.shape, dtype=np.float32)
    spectrum = amplitudes * np.exp(np.complex64(2j * np.pi) * phases)
    field = np.fft.irfft2(spectrum, s=shape)
    deviation = np.float32(field.std()) or 1
    assert np.array_equal(band_noise(seeded(4), shape, longest, shortest, fall), field / deviation)


def test_pairs_vary_in_shape_and_colour_and_cover_all_landforms() -> None:
    rng = seeded(8)
    pairs = [sample_pair(rng) for _ in range(150)]
    shapes = {draw_image.shape for draw_image, _, _ in pairs}
    assert len({shape[:2] for shape in shapes}) > 100
    assert {len(shape) for shape in shapes} == {2, 3}
    captions = [caption for pair in pairs for caption in pair[1:]]
    assert len(set(captions)) > 0.97 * len(captions)
    assert all(20 < len(refined) < 260 for _, _, refined in pairs)


def test_captions_use_the_words_of_the_class_names() -> None:
    """Queries are class names, so captions must contain their words."""
    rng = seeded(9)
    for name in LANDFORMS:
        words = name.replace("_", " ").replace("-", " ").removesuffix("s").lower()
        texts = [
            text.lower().replace("-", " ")
            for _ in range(4)
            for text in describe(sample(name, rng, 32)[1], rng)
        ]
        assert all(words in text for text in texts), (name, texts)


def test_captions_describe_the_image() -> None:
    attributes = Attributes(
        landform="pitted_cones",
        size_km=8.04,
        count=7,
        bearing=44.0,
        flows=False,
        detail="aligned in a chain",
        offset=(0.15, -0.2),
        setting="smooth plains",
        tone=-0.2,
    )
    for seed in range(8):
        _, refined = describe(attributes, seeded(seed))
        for words in (
            "even pitted cones", "aligned in a chain", "dark smooth plains", "8.0 km",
            "trending northeast-southwest", "in the upper right",
        ):  # fmt: skip
            assert words in refined
    texts = {describe(attributes, seeded(seed)) for seed in range(30)}
    assert len(texts) > 5, "one picture can be put in many ways"


def test_landforms_are_separable_but_not_trivially() -> None:
    """Classify by nearest class mean of a dozen general image statistics."""
    names = tuple(LANDFORMS)
    statistics = {
        part: np.array(
            [
                [
                    _statistics(sample(name, seeded(part, number, index), 48)[0])
                    for index in range(12)
                ]
                for number, name in enumerate(names)
            ]
        )
        for part in (0, 1)
    }
    everything = statistics[0].reshape(-1, statistics[0].shape[-1])
    centre, spread = everything.mean(axis=0), everything.std(axis=0)
    means = ((statistics[0] - centre) / spread).mean(axis=1)
    away = (((statistics[1] - centre) / spread)[:, :, None] - means) ** 2
    right = away.sum(axis=-1).argmin(axis=-1) == np.arange(len(names))[:, None]
    assert right.mean() > 7 / len(names)
    assert right.mean() < 0.9
    assert sum(right.mean(axis=1) > 2 / len(names)) > 0.8 * len(names)


def _statistics(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    grey = image.astype(np.float64)
    grey = (grey - grey.mean()) / (grey.std() + 1e-6)
    south, east = np.gradient(grey)
    slope = np.hypot(east, south)
    turns, _ = np.histogram(np.arctan2(south, east) % np.pi, 12, (0, np.pi), weights=slope)
    power = np.abs(np.fft.fft2(grey)) ** 2
    line = np.fft.fftfreq(len(grey))
    lines = np.hypot(line[:, None], line[None, :])
    rings = [
        np.log(power[(lines >= low) & (lines < high)].mean())
        for low, high in itertools.pairwise(np.geomspace(0.02, 0.5, 8))
    ]
    return np.concatenate(
        [
            8 * np.abs(np.fft.rfft(turns / turns.sum()))[1:4],
            rings,
            np.percentile(grey, [1, 5, 25, 75, 95, 99]),
            [np.log(image.std()), np.log(slope.mean()), (slope**2).mean() / slope.mean() ** 2],
        ]
    )
