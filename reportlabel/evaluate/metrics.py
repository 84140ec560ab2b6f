"""Agreement measures, all worked out from confusion counts.

A confusion array has shape ``(..., K, K)``: the last axes are gold class (row) and predicted class (column), the
leading axes are whatever one wants the measure for (findings, bootstrap resamples). Every measure is a plain function
of such an array, so a point estimate and its thousand resamples come from the same few lines.

A measure whose denominator is zero is NaN here; the callers turn NaN into None. It is never replaced by 0 or 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_WEIGHTS_PER_CHUNK = 2_000_000  # resample weights held at once: 16 MB, whatever the number of reports


@dataclass(frozen=True)
class Codes:
    """The scored rows of one finding: which report each row is of, and its gold and predicted class numbers."""

    report: Ints
    gold: Ints
    predicted: Ints
    n_classes: int


def confusion(codes: Codes) -> Floats:
    """Counts of gold class (row) by predicted class (column), shape (K, K)."""
    k = codes.n_classes
    cells = np.bincount(codes.gold * k + codes.predicted, minlength=k * k)
    return cells.reshape(k, k).astype(np.float64)


def support(counts: Floats) -> Floats:
    """Gold rows of each class, shape (..., K)."""
    return np.asarray(counts.sum(axis=-1), dtype=np.float64)


def predicted_count(counts: Floats) -> Floats:
    """Predicted rows of each class, shape (..., K)."""
    return np.asarray(counts.sum(axis=-2), dtype=np.float64)


def true_positives(counts: Floats) -> Floats:
    """Rows of each class on which gold and prediction agree, shape (..., K)."""
    return np.asarray(np.diagonal(counts, axis1=-2, axis2=-1), dtype=np.float64)


def precision(counts: Floats) -> Floats:
    """TP / (TP + FP) of each class, shape (..., K); NaN where the class was never predicted."""
    return ratio(true_positives(counts), predicted_count(counts))


def recall(counts: Floats) -> Floats:
    """TP / (TP + FN) of each class, shape (..., K); NaN where gold never has the class."""
    return ratio(true_positives(counts), support(counts))


def f1(counts: Floats) -> Floats:
    """2 TP / (2 TP + FP + FN) of each class, shape (..., K); NaN where neither side has the class."""
    return ratio(2 * true_positives(counts), support(counts) + predicted_count(counts))


def accuracy(counts: Floats) -> Floats:
    """Share of rows on which gold and prediction agree, shape (...)."""
    return ratio(true_positives(counts).sum(axis=-1), counts.sum(axis=(-2, -1)))


def kappa(counts: Floats) -> Floats:
    """Cohen's kappa, shape (...): (p_o - p_e) / (1 - p_e).

    p_o is the observed agreement and p_e the agreement expected from the two marginal distributions (J. Cohen, A
    coefficient of agreement for nominal scales, Educ. Psychol. Meas. 20, 1960, 37-46). NaN without rows, and where both
    sides use one and the same class throughout (p_e = 1).
    """
    total = counts.sum(axis=(-2, -1))
    observed = true_positives(counts).sum(axis=-1) * total
    expected = (support(counts) * predicted_count(counts)).sum(axis=-1)
    # Multiplied through by total^2, so that p_e = 1 is an exact comparison of whole numbers.
    return ratio(observed - expected, total * total - expected)


def macro(values: Floats, gold_support: Floats) -> Floats:
    """Mean over findings (axis -2) of ``values``, counting only the findings that gold has the class for.

    Both arrays have shape (..., findings, K); the result has shape (..., K), NaN where no finding has support.
    """
    counted = gold_support > 0
    return ratio(np.where(counted, values, 0.0).sum(axis=-2), counted.sum(axis=-2).astype(np.float64))


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Element-wise quotient, NaN where the denominator is zero."""
    undefined = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.asarray(np.divide(numerator, denominator, out=undefined, where=denominator != 0), dtype=np.float64)


def bootstrap_confusions(findings: Sequence[Codes], *, n_reports: int, resamples: int, seed: int) -> list[Floats]:
    """Confusion counts of every finding in every bootstrap resample of the *reports*.

    Rows of one report depend on each other (one sentence denies five findings), so whole reports are drawn with
    replacement and a report carries all its rows with it; all findings see the same draws. Returns one array of shape
    (resamples, K, K) per finding. (B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993, ch. 8: the unit of
    resampling is the independent unit.)
    """
    generator = np.random.default_rng(seed)
    out: list[Floats] = [np.zeros((resamples, codes.n_classes, codes.n_classes)) for codes in findings]
    cells = [_one_hot_cells(codes) for codes in findings]
    chunk = max(1, _WEIGHTS_PER_CHUNK // max(1, n_reports))
    for first in range(0, resamples, chunk):
        size = min(chunk, resamples - first)
        weights = _draw_weights(generator, n_reports=n_reports, resamples=size)
        for codes, cell, target in zip(findings, cells, out, strict=True):
            counts = weights[:, codes.report] @ cell
            target[first : first + size] = counts.reshape(size, codes.n_classes, codes.n_classes)
    return out


def percentile_interval(samples: Floats, *, level: float = 0.95) -> tuple[Floats, Floats]:
    """Lower and upper percentile bound over axis 0 of ``samples``.

    Resamples in which the measure is undefined (NaN) are left out; where it is undefined in half of them or more, or
    there are no resamples, both bounds are NaN: an interval from the lucky half would mislead.
    """
    shape = samples.shape[1:]
    low, high = np.full(shape, np.nan), np.full(shape, np.nan)
    if samples.shape[0] == 0:
        return low, high
    usable = np.isfinite(samples).mean(axis=0) > 0.5
    if usable.any():
        tail = (1 - level) / 2
        low[usable], high[usable] = np.nanquantile(samples[:, usable], [tail, 1 - tail], axis=0)
    return low, high


def _one_hot_cells(codes: Codes) -> Floats:
    """For each row a 1 at its cell of the flattened confusion table, shape (rows, K * K)."""
    k = codes.n_classes
    cells = np.zeros((len(codes.gold), k * k))
    cells[np.arange(len(codes.gold)), codes.gold * k + codes.predicted] = 1
    return cells


def _draw_weights(generator: np.random.Generator, *, n_reports: int, resamples: int) -> Floats:
    """How often each report is drawn in each resample, shape (resamples, n_reports); every row sums to n_reports."""
    draws = generator.integers(0, n_reports, size=(resamples, n_reports))
    offsets = np.arange(resamples)[:, np.newaxis] * n_reports
    counts = np.bincount((draws + offsets).ravel(), minlength=resamples * n_reports)
    return counts.reshape(resamples, n_reports).astype(np.float64)
