"""Calibration: make a probability mean what it says, learned on exams that radiologists reviewed.

Platt's sigmoid (Platt, Advances in Large Margin Classifiers 1999) where few exams were reviewed, isotonic regression
(Zadrozny and Elkan, KDD 2002) where there are many. Both keep the order of the exams.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_TINY = 1e-6
_MANY = 1000  # reviewed exams from which a free monotone curve is steadier than a sigmoid (Niculescu-Mizil, ICML 2005)


@dataclass(frozen=True)
class Calibration:
    """A monotone map from probability to probability.

    ``method``: none (too little was reviewed), platt or isotonic. ``x``, ``y``: for isotonic the corners of the curve;
    for platt ``y`` holds slope and intercept on the log-odds. ``lowest``, ``highest``: between these probabilities
    something was reviewed. Beyond them the map makes nothing less sure than it was: if only the doubtful exams were
    reviewed, the clear ones must not become doubtful by it.
    """

    method: Literal["none", "platt", "isotonic"]
    x: Floats
    y: Floats
    lowest: float = 0.0
    highest: float = 1.0

    def apply(self, probability: Floats) -> Floats:
        """Calibrated probabilities, same shape."""
        probability = np.asarray(probability, dtype=np.float64)
        if self.method == "none":
            return probability
        if self.method == "isotonic":
            mapped = np.asarray(np.interp(probability, self.x, self.y), dtype=np.float64)
        else:
            slope, intercept = self.y
            mapped = _sigmoid(slope * _log_odds(probability) + intercept)
        clipped = _clipped(probability)
        mapped = np.where(clipped < self.lowest, np.minimum(mapped, probability), mapped)
        return np.asarray(np.where(clipped > self.highest, np.maximum(mapped, probability), mapped))


def calibrate(probability: Floats, truth: Integers, *, many: int = _MANY, few: int = 20) -> Calibration:
    """Learn from reviewed exams.

    Args:
        probability: (exams,) what the label model says; truth: (exams,) 1 present, 0 absent.
        few: below so many exams of either kind nothing is changed.

    Raises:
        ValueError: shapes differ or the truth is neither 0 nor 1.
    """
    probability = np.asarray(probability, dtype=np.float64)
    truth = np.asarray(truth, dtype=np.int64)
    if probability.shape != truth.shape or probability.ndim != 1:
        raise ValueError(f"probability has shape {probability.shape} and truth {truth.shape}; both must be (exams,)")
    if truth.size and not np.isin(truth, (0, 1)).all():
        raise ValueError("truth must be 0 or 1")
    empty = np.zeros(0)
    if min(int(truth.sum()), int((1 - truth).sum())) < few:
        return Calibration("none", empty, empty)
    learned = _isotonic(probability, truth) if len(truth) >= many else _platt(probability, truth)
    seen = _clipped(probability)
    return replace(learned, lowest=float(seen.min()), highest=float(seen.max()))


def _isotonic(probability: Floats, truth: Integers) -> Calibration:
    """Pool adjacent violators, on the distinct probabilities."""
    x, which, counts = np.unique(probability, return_inverse=True, return_counts=True)
    means = np.bincount(which.reshape(-1), weights=truth) / counts
    blocks: list[list[float]] = []  # mean, weight, members
    for mean, weight in zip(means, counts, strict=True):
        blocks.append([float(mean), float(weight), 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            second, first = blocks.pop(), blocks.pop()
            total = first[1] + second[1]
            blocks.append([(first[0] * first[1] + second[0] * second[1]) / total, total, first[2] + second[2]])
    y = np.concatenate([np.full(int(members), mean) for mean, _, members in blocks])
    return Calibration("isotonic", x, y)


def _platt(probability: Floats, truth: Integers) -> Calibration:
    """Newton's method on the log-likelihood, with Platt's targets that keep a clear-cut finding from running away."""
    score = _log_odds(probability)
    positives, negatives = truth.sum(), (1 - truth).sum()
    target = np.where(truth == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.column_stack([score, np.ones_like(score)])
    weights = np.array([1.0, 0.0])
    for _ in range(100):
        said = _sigmoid(design @ weights)
        gradient = design.T @ (said - target)
        curvature = (design * (said * (1 - said))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-6 and _loss(design @ (weights - size * step), target) > _loss(design @ weights, target):
            size /= 2
        weights = weights - size * step
        if np.abs(size * step).max() < 1e-9:
            break
    if weights[0] <= 0:  # the order would turn over: say only how common the finding is
        share = (positives + 1) / (len(truth) + 2)
        weights = np.array([0.0, np.log(share / (1 - share))])
    return Calibration("platt", np.zeros(0), weights)


def _loss(score: Floats, target: Floats) -> float:
    return float((np.logaddexp(0, score) - target * score).sum())


def _log_odds(probability: Floats) -> Floats:
    clipped = _clipped(probability)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _clipped(probability: Floats) -> Floats:
    return np.clip(probability, _TINY, 1 - _TINY)


def _sigmoid(score: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(score / 2)))


def expected_calibration_error(probability: Floats, truth: Integers, *, bins: int = 15) -> float:
    """Mean distance between probability and frequency over bins of equal width, weighed by their exams.

    Guo et al., On calibration of modern neural networks, ICML 2017.
    """
    if not len(truth):
        return 0.0
    place = np.minimum((np.asarray(probability) * bins).astype(int), bins - 1)
    said = np.bincount(place, weights=probability, minlength=bins)
    was = np.bincount(place, weights=truth, minlength=bins)
    return float(np.abs(said - was).sum() / len(truth))
