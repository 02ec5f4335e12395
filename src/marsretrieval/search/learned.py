"""Learn a query vector from marked tiles: logistic regression with the text query as its prior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from marsretrieval.errors import UsageError
from marsretrieval.search.query import compose

Vector = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]

SAMPLE_ROWS = 20_000  # for mean and covariance
SHRINKAGE = 0.5  # share of the mean eigenvalue added to the covariance
PENALTY = 1.0  # of the squared distance from the prior
PRIOR_LENGTH = 2.0  # length of the prior's centre in whitened space
BLEND_MARKS = 10  # marks of the rarer class at which both parts weigh the same

_INTERCEPT_PENALTY = 1e-4
_MAX_ITERATIONS = 200


class Rows(Protocol):
    """Source of vectors by row; implemented by `EmbeddingStore` and `SearchIndex`."""

    @property
    def rows(self) -> int:
        """Number of rows."""

    def vectors(self, rows: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the vectors of rows, shape (n, dim)."""


@dataclass(frozen=True, slots=True, eq=False)
class Whitening:
    """Mean, covariance and a mild whitening of a store's vectors.

    A vector x becomes (x - mean) L with L L' = (S + shrinkage tr(S)/dim I)^-1, where S is the
    covariance.

    Attributes:
        mean: Shape (dim,).
        covariance: Shape (dim, dim).
        factor: L, shape (dim, dim).
    """

    mean: Matrix
    covariance: Matrix
    factor: Matrix

    @classmethod
    def from_vectors(cls, vectors: npt.ArrayLike, shrinkage: float = SHRINKAGE) -> Whitening:
        """Compute the whitening of a sample of vectors.

        Args:
            vectors: Shape (n, dim), n at least 1.
            shrinkage: Share of the mean eigenvalue added to the covariance, above 0.

        Returns:
            The whitening.
        """
        # float32 products are 2 times faster than float64 and exact enough for a shrunken matrix.
        rows = np.array(vectors, dtype=np.float32)  # a copy, centred in place: it may be large
        mean = rows.mean(axis=0, dtype=np.float64)
        rows -= mean.astype(np.float32)
        covariance = (rows.T @ rows).astype(np.float64) / len(rows)
        dimension = len(mean)
        # The floor matters only for a store whose vectors are all equal.
        ridge = max(shrinkage * float(np.trace(covariance)) / dimension, 1e-12)
        lower = np.linalg.cholesky(covariance + ridge * np.eye(dimension))
        # (C C')^-1 = C'^-1 C^-1, so that L = C'^-1.
        from scipy.linalg import solve_triangular

        factor = solve_triangular(lower, np.eye(dimension), lower=True).T
        return cls(mean, covariance, np.ascontiguousarray(factor))

    @classmethod
    def from_store(cls, store: Rows, seed: int = 0) -> Whitening:
        """Compute the whitening of a random sample of a store.

        Args:
            store: The store; one of up to 20,000 rows is used completely.
            seed: Seed of the sample.

        Returns:
            The whitening.
        """
        if store.rows <= SAMPLE_ROWS:
            chosen = np.arange(store.rows)
        else:
            generator = np.random.default_rng(seed)
            chosen = np.sort(generator.choice(store.rows, SAMPLE_ROWS, replace=False))
        return cls.from_vectors(store.vectors(chosen))

    def transform(self, vectors: npt.ArrayLike) -> Matrix:
        """Whiten vectors.

        Args:
            vectors: Shape (n, dim).

        Returns:
            Shape (n, dim).
        """
        transformed: Matrix = (np.asarray(vectors, dtype=np.float64) - self.mean) @ self.factor
        return transformed

    def spread(self, direction: npt.ArrayLike) -> float:
        """Return the standard deviation of the store's scores along a direction.

        Args:
            direction: Shape (dim,).

        Returns:
            sqrt(w' S w).
        """
        w = np.asarray(direction, dtype=np.float64)
        return math.sqrt(max(float(w @ self.covariance @ w), 0.0))


def fit_logistic(
    features: npt.ArrayLike,
    labels: npt.ArrayLike,
    prior: npt.ArrayLike | None = None,
    *,
    penalty: float = PENALTY,
    balanced: bool = True,
) -> tuple[Matrix, float]:
    """Fit a logistic regression with an L2 penalty on the distance from a prior.

    Minimizes sum of c_i log(1 + exp(-y_i (a_i v + b))) + penalty/2 |v - prior|^2 with L-BFGS; with
    prior 0 and equal c it is scikit-learn's `LogisticRegression(C=1/penalty)`.

    Args:
        features: Rows a_i, shape (n, dim).
        labels: Booleans, shape (n,).
        prior: Shape (dim,); None for zeros.
        penalty: Weight of the penalty, above 0.
        balanced: Give both classes the same total weight.

    Returns:
        v, shape (dim,), and the intercept b.

    Raises:
        UsageError: If all labels are equal.
    """
    from scipy.optimize import minimize

    rows = np.asarray(features, dtype=np.float64)
    positive = np.asarray(labels, dtype=np.bool_)
    if positive.all() or not positive.any():
        raise UsageError(
            f"all marks are {'yes' if positive.all() else 'no'} ({len(positive)})",
            remedy="Mark at least one tile of the other class.",
        )
    y = np.where(positive, 1.0, -1.0)
    c = np.ones(len(y))
    if balanced:
        c = np.where(positive, len(y) / (2 * positive.sum()), len(y) / (2 * (~positive).sum()))
    centre = np.zeros(rows.shape[1]) if prior is None else np.asarray(prior, dtype=np.float64)

    def loss(parameters: Matrix) -> tuple[float, Matrix]:
        v, b = parameters[:-1], parameters[-1]
        z = y * (rows @ v + b)
        residual = -c * y / (1 + np.exp(np.clip(z, -500, 500)))
        distance = v - centre
        value = (
            (c * np.logaddexp(0, -z)).sum()
            + penalty / 2 * distance @ distance
            + _INTERCEPT_PENALTY / 2 * b * b
        )
        gradient = np.append(
            rows.T @ residual + penalty * distance, residual.sum() + _INTERCEPT_PENALTY * b
        )
        return float(value), gradient

    solution = minimize(
        loss,
        np.append(centre, 0.0),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _MAX_ITERATIONS},
    ).x
    return np.asarray(solution[:-1]), float(solution[-1])


def learn_query(
    positives: npt.ArrayLike,
    negatives: npt.ArrayLike,
    whitening: Whitening,
    *,
    text: npt.ArrayLike | None = None,
    query: npt.ArrayLike | None = None,
) -> Vector:
    """Turn marks into one query vector.

    With a = 10 / (10 + min(yes, no)), the result is a q / sd(q) + (1 - a) w / sd(w), where q is
    the composed query of `search.compose` (text, examples, negative examples), w the direction of
    a logistic regression on whitened vectors whose prior is centred at the text, and sd the
    standard deviation of the scores over the store. While one class has no marks, it is q.

    Args:
        positives: Vectors of tiles marked yes, shape (n, dim); n may be 0 if there is a text.
        negatives: Vectors of tiles marked no, shape (m, dim).
        whitening: Whitening of the store.
        text: Query vector of the text, shape (dim,), unit length.
        query: The composed query q, shape (dim,); None: composed with the default weights.

    Returns:
        float32 array of shape (dim,), unit length.

    Raises:
        UsageError: If there is neither a text nor a positive mark, or the parts cancel each other
            out.
    """
    yes = np.asarray(positives, dtype=np.float64).reshape(-1, len(whitening.mean))
    no = np.asarray(negatives, dtype=np.float64).reshape(-1, len(whitening.mean))
    if query is None:
        query = compose(
            text=text, examples=yes if len(yes) else None, against=no if len(no) else None
        )
    composed = np.asarray(query, dtype=np.float64)
    if not len(yes) or not len(no):
        return composed.astype(np.float32)
    prior = None
    if text is not None:
        towards = whitening.factor.T @ np.asarray(text, dtype=np.float64)
        prior = PRIOR_LENGTH * towards / max(float(np.linalg.norm(towards)), 1e-12)
    labels = np.arange(len(yes) + len(no)) < len(yes)
    v, _ = fit_logistic(whitening.transform(np.concatenate([yes, no])), labels, prior)
    w = whitening.factor @ v
    share = BLEND_MARKS / (BLEND_MARKS + min(len(yes), len(no)))
    blend = share * composed / max(whitening.spread(composed), 1e-12)
    blend += (1 - share) * w / max(whitening.spread(w), 1e-12)
    length = float(np.linalg.norm(blend))
    if not np.isfinite(length) or length < 1e-12:
        raise UsageError(
            "the marks cancel each other out: there is nothing to find",
            remedy="Mark more tiles, or correct contradicting marks.",
        )
    return np.asarray(blend / length, dtype=np.float32)
