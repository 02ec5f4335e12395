from __future__ import annotations

import numpy as np
import pytest

from marsretrieval.errors import UsageError
from marsretrieval.search.learned import Whitening, fit_logistic, learn_query
from marsretrieval.search.query import compose


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture
def world() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """2,000 vectors around a cone, 60 of them with a feature that the text hints at."""
    generator = np.random.default_rng(5)
    scale = np.arange(1, 25) ** -0.5
    vectors = generator.standard_normal((2000, 24)) * scale + 2 * np.eye(24)[0]
    truth = np.arange(2000) < 60
    feature = unit(generator.standard_normal(24))
    vectors[truth] += 1.5 * feature
    text = unit(feature + 1.2 * unit(generator.standard_normal(24)))
    return unit(vectors), truth, text


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    hits = truth[np.argsort(-scores, kind="stable")]
    return float((np.cumsum(hits)[hits] / (np.flatnonzero(hits) + 1)).mean())


def test_fit_equals_scikit_learn_without_a_prior() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((80, 6))
    labels = rows @ [1, -1, 0.5, 0, 0, 0] + generator.standard_normal(80) > 0.3
    for penalty in (0.1, 1.0, 10.0):
        model = linear_model.LogisticRegression(C=1 / penalty, tol=1e-10).fit(rows, labels)
        v, b = fit_logistic(rows, labels, penalty=penalty, balanced=False)
        assert v == pytest.approx(model.coef_[0], abs=1e-4)
        assert b == pytest.approx(float(model.intercept_[0]), abs=1e-3)
        model = linear_model.LogisticRegression(
            C=1 / penalty, tol=1e-10, class_weight="balanced"
        ).fit(rows, labels)
        v, _ = fit_logistic(rows, labels, penalty=penalty)
        assert v == pytest.approx(model.coef_[0], abs=1e-4)


def test_a_large_penalty_returns_the_prior() -> None:
    generator = np.random.default_rng(1)
    rows, prior = generator.standard_normal((30, 4)), np.array([1.0, -2, 3, 0])
    v, _ = fit_logistic(rows, rows[:, 0] > 0, prior, penalty=1e7)
    assert v == pytest.approx(prior, abs=1e-4)


def test_one_class_is_refused() -> None:
    with pytest.raises(UsageError, match=r"all marks are yes \(3\)"):
        fit_logistic(np.eye(3), [True, True, True])


def test_whitening_without_shrinkage_makes_unit_covariance() -> None:
    generator = np.random.default_rng(2)
    rows = generator.standard_normal((5000, 5)) @ generator.standard_normal((5, 5)) + 3
    whitened = Whitening.from_vectors(rows, shrinkage=1e-9).transform(rows)
    assert whitened.mean(axis=0) == pytest.approx(np.zeros(5), abs=1e-2)
    assert np.cov(whitened.T, bias=True) == pytest.approx(np.eye(5), abs=1e-2)


def test_whitening_follows_its_definition() -> None:
    rows = np.random.default_rng(3).standard_normal((400, 6)) * np.arange(1, 7)
    whitening = Whitening.from_vectors(rows)
    covariance = np.cov(rows.T, bias=True)
    shrunken = covariance + 0.5 * np.trace(covariance) / 6 * np.eye(6)
    assert whitening.covariance == pytest.approx(covariance, rel=1e-3, abs=1e-3)
    product = whitening.factor @ whitening.factor.T
    assert product == pytest.approx(np.linalg.inv(shrunken), rel=1e-3, abs=1e-5)
    w = np.arange(6.0)
    assert whitening.spread(w) == pytest.approx(float(np.std(rows @ w)), rel=1e-3)


def test_equal_vectors_do_not_break_whitening() -> None:
    whitening = Whitening.from_vectors(np.ones((10, 4)))
    assert np.isfinite(whitening.factor).all()


def test_one_class_gives_the_composed_query(world: tuple[np.ndarray, ...]) -> None:
    vectors, truth, text = world
    whitening = Whitening.from_vectors(vectors)
    yes = vectors[truth][:3]
    learned = learn_query(yes, np.empty((0, 24)), whitening, text=text)
    assert learned == pytest.approx(compose(text=text, examples=yes), abs=1e-6)


def test_marks_improve_the_ranking_beyond_the_mean_of_the_examples(
    world: tuple[np.ndarray, ...],
) -> None:
    vectors, truth, text = world
    whitening = Whitening.from_vectors(vectors)
    scores = vectors @ text
    marked = np.zeros(2000, dtype=bool)
    learned = text
    for _ in range(6):
        new = np.argsort(np.where(marked, np.inf, -scores))[:10]
        marked[new] = True
        learned = learn_query(
            vectors[marked & truth], vectors[marked & ~truth], whitening, text=text
        )
        scores = vectors @ learned
    rocchio = compose(text=text, examples=vectors[marked & truth], against=vectors[marked & ~truth])
    reached = average_precision(scores, truth)
    assert reached > average_precision(vectors @ text, truth) + 0.1
    assert reached > average_precision(vectors @ rocchio, truth) + 0.05
    assert np.linalg.norm(learned) == pytest.approx(1, abs=1e-6)


def test_neither_text_nor_positive_marks() -> None:
    whitening = Whitening.from_vectors(np.eye(4))
    with pytest.raises(UsageError):
        learn_query(np.empty((0, 4)), np.eye(4)[:2], whitening)


def test_the_same_marks_give_the_same_vector(world: tuple[np.ndarray, ...]) -> None:
    vectors, truth, text = world
    whitening = Whitening.from_vectors(vectors)
    first, second = (
        learn_query(vectors[truth][:9], vectors[~truth][:20], whitening, text=text)
        for _ in range(2)
    )
    assert (first == second).all()
