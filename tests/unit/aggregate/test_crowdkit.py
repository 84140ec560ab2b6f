"""crowd-kit's Dawid-Skene as the oracle of the label model where it has no groups, one-way functions or strata.

crowd-kit has no priors, so ours are made next to nothing.
"""

from __future__ import annotations

import numpy as np
import pytest

from reportlabel.aggregate.choose import f1_score
from reportlabel.aggregate.label_model import PRESENT, SILENT, Function, Prior, fit

pandas = pytest.importorskip(
    "pandas", reason="pandas, which crowd-kit needs, is not installed: pip install -e '.[dev]'"
)
crowdkit = pytest.importorskip(
    "crowdkit.aggregation",
    reason="crowd-kit is not installed: make test installs it, or pip install --no-deps crowd-kit",
)

SENSITIVITY = np.array([0.6, 0.7, 0.75, 0.8, 0.85, 0.9])
SPECIFICITY = np.array([0.93, 0.95, 0.96, 0.97, 0.98, 0.99])
COVERAGE = np.array([0.95, 0.6, 0.3, 0.9, 0.5, 0.8])
FLAT = Prior({"rule": ((8e-3, 1e-3, 1e-3, 0), (1e-3, 1e-3, 8e-3, 0))}, (1e-3, 1e-3))


def simulate(exams: int, prevalence: float) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(0)
    truth = (chance.random(exams) < prevalence).astype(np.int64)
    right = np.where(truth[:, None] == 1, SENSITIVITY, SPECIFICITY)
    votes = np.where(chance.random(right.shape) < right, truth[:, None], 1 - truth[:, None]) * 2
    votes[chance.random(votes.shape) > COVERAGE] = SILENT
    # the oracle leaves out exams without a vote
    spoken = (votes != SILENT).any(axis=1)
    return votes[spoken], truth[spoken]


def oracle(votes: np.ndarray, gold: np.ndarray | None = None) -> np.ndarray:
    task, worker = np.nonzero(votes != SILENT)
    table = pandas.DataFrame({"task": task, "worker": worker, "label": votes[task, worker] // 2})
    known = None
    if gold is not None:
        known = pandas.Series(gold[gold != SILENT], index=np.flatnonzero(gold != SILENT))
    # a tolerance below zero: its bound may fall by a rounding error long before it has converged, and then it stops
    said = crowdkit.DawidSkene(n_iter=40, tol=-1.0).fit_predict_proba(table, true_labels=known)
    return np.asarray(said.reindex(np.arange(len(votes)))[1])


@pytest.mark.filterwarnings("ignore:The (inplace|copy) keyword")  # of pandas, about crowd-kit
@pytest.mark.parametrize("prevalence", [0.2, 0.03])
@pytest.mark.parametrize("reviewed", [0, 300])
def test_the_same_probabilities(prevalence: float, reviewed: int) -> None:
    votes, truth = simulate(4000, prevalence)
    gold = np.full(len(truth), SILENT)
    gold[:reviewed] = truth[:reviewed]
    functions = [Function(str(number), "rule") for number in range(votes.shape[1])]
    ours = fit(votes, functions, gold=gold, prior=FLAT, find_groups=False, tolerance=1e-10).p_present
    theirs = oracle(votes, gold if reviewed else None)
    rest = slice(reviewed, None)
    assert np.abs(ours[rest] - theirs[rest]).max() < 0.002
    assert ((ours > 0.5) == (theirs > 0.5))[rest].mean() > 0.999
    assert abs(f1_score(ours[rest] > 0.5, truth[rest]) - f1_score(theirs[rest] > 0.5, truth[rest])) < 0.001
    assert np.array_equal(ours[:reviewed] > 0.5, truth[:reviewed] == PRESENT)
