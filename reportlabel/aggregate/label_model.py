"""A label model for one finding: what labelling functions say, weighed by how far each can be trusted.

Dawid and Skene (Applied Statistics 1979;28:20-28): the truth is hidden, every function has a confusion table, and both
are estimated together by expectation maximisation. Added here, because labelling functions are not independent raters:

- groups: functions that copy each other share one voice. Their log-likelihoods are tempered by the number of members
  that speak about the exam. Groups are given, and found from agreement that the truth does not explain.
- one-way functions: a rule that can only say "present" says something by its silence too, so its silence is an outcome.
- Dirichlet priors on the confusion tables, by kind of function; a Beta prior on the prevalence.
- gold anchors: exams that a radiologist reviewed have their truth fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

SILENT = -1
"""The outcome of a function that says nothing about an exam, and the truth of an exam that nobody reviewed."""

ABSENT, PRESENT = 0, 1
OUTCOMES = ("absent", "uncertain", "present")

_TINY = 1e-12
_NEAR_COPY = 0.85  # kappa from which two functions are copies, whatever the truth is
_DEPENDENT = 0.5  # share of the possible agreement beyond what the truth explains
_IDENTIFIABLE = 5  # functions; without a pair three others must be left to judge the truth
_ENOUGH = 30  # exams that both must speak of before their agreement counts


@dataclass(frozen=True)
class Function:
    """A labelling function.

    Attributes:
        kind: rule, bert, record or reader; it chooses the prior.
        group: name of the group it is known to belong to; None: on its own until agreement says otherwise.
        one_way: it only ever says one thing, so that its silence is information.
    """

    id: str
    kind: str
    group: str | None = None
    one_way: bool = False


@dataclass(frozen=True)
class Prior:
    """What is believed before any vote: pseudo-counts.

    ``confusion``: kind of function -> rows of truth (absent, present), columns of outcomes (absent, uncertain,
    present, silent). ``prevalence``: pseudo-counts of absent and present exams.
    """

    confusion: Mapping[str, Sequence[Sequence[float]]]
    prevalence: tuple[float, float] = (1.0, 1.0)


DEFAULT_PRIOR = Prior(
    confusion={
        "rule": ((8, 1, 1, 10), (1, 2, 7, 10)),
        "bert": ((8, 1, 1, 10), (1, 2, 7, 10)),
        "record": ((8, 1, 1, 10), (2, 1, 7, 10)),
        "reader": ((18, 1, 1, 0), (1, 1, 18, 0)),
    }
)
"""Functions are more often right than wrong, readers more than others; together worth about ten or twenty exams."""


@dataclass(frozen=True)
class Fitted:
    """What the model has learned.

    Attributes:
        p_present: (exams,) probability that the finding is present.
        prevalence: share of exams with the finding.
        confusion: (functions, 2, outcomes + 1): probability of each outcome (silence last) given absent and present.
        groups: (functions,) number of the group of each function.
        log_likelihood: of the votes, tempered, with the priors.
        iterations: until it stood still.
    """

    p_present: Floats
    prevalence: float
    confusion: Floats
    groups: Integers
    log_likelihood: float
    iterations: int


def fit(
    votes: Integers,
    functions: Sequence[Function],
    *,
    prior: Prior = DEFAULT_PRIOR,
    gold: Integers | None = None,
    find_groups: bool = True,
    max_iterations: int = 200,
    tolerance: float = 1e-7,
) -> Fitted:
    """Estimate the truth behind the votes.

    Args:
        votes: (exams, functions), an index into OUTCOMES or SILENT.
        gold: (exams,) ABSENT or PRESENT where the exam was reviewed, else SILENT.
        find_groups: also look for functions that agree more than the truth explains.

    Raises:
        ValueError: shapes do not match or a vote is no outcome.
    """
    votes, known = _checked(votes, functions, gold)
    # exams with the same votes have the same posterior: work on the distinct patterns
    patterns, which, counts = _patterns(votes, known)
    rows, anchors = patterns[:, :-1], patterns[:, -1]
    groups = _given_groups(functions)
    if find_groups and len(functions) > 1:
        groups = _merge(groups, _near_copies(rows, counts))
    fitted = _maximise(rows, anchors, counts, functions, groups, prior, max_iterations, tolerance)
    if find_groups and len(functions) >= _IDENTIFIABLE:
        merged = _merge(groups, _dependent(rows, counts, functions, groups, anchors, prior))
        if not np.array_equal(merged, groups):
            fitted = _maximise(rows, anchors, counts, functions, merged, prior, max_iterations, tolerance)
    return replace(fitted, p_present=fitted.p_present[which])


def _checked(votes: Integers, functions: Sequence[Function], gold: Integers | None) -> tuple[Integers, Integers]:
    votes = np.asarray(votes, dtype=np.int64)
    if votes.ndim != 2 or votes.shape[1] != len(functions):
        raise ValueError(f"votes has shape {votes.shape}; expected (exams, {len(functions)})")
    if votes.size and (votes.min() < SILENT or votes.max() >= len(OUTCOMES)):
        raise ValueError(f"a vote is none of 0 to {len(OUTCOMES) - 1} or {SILENT}")
    known = np.full(len(votes), SILENT) if gold is None else np.asarray(gold, dtype=np.int64)
    if known.shape != (len(votes),):
        raise ValueError(f"gold has shape {known.shape}; expected ({len(votes)},)")
    return votes, known


def _patterns(votes: Integers, known: Integers) -> tuple[Integers, Integers, Floats]:
    both = np.column_stack([votes, known])
    patterns, which, counts = np.unique(both, axis=0, return_inverse=True, return_counts=True)
    return patterns, which.reshape(-1), counts.astype(np.float64)


# --- expectation maximisation -----------------------------------------------------------------------------------------


def _maximise(
    rows: Integers,
    anchors: Integers,
    counts: Floats,
    functions: Sequence[Function],
    groups: Integers,
    prior: Prior,
    max_iterations: int,
    tolerance: float,
) -> Fitted:
    outcomes = len(OUTCOMES) + 1
    heard = _heard(rows, functions)
    weights = _tempered(heard, groups)
    pseudo = np.stack([_pseudo_counts(function, prior) for function in functions]) if functions else np.zeros((0, 2, 4))
    confusion = pseudo / pseudo.sum(axis=2, keepdims=True)
    beta = np.asarray(prior.prevalence, dtype=np.float64)
    share = beta / beta.sum()
    index = np.where(rows == SILENT, outcomes - 1, rows)
    posterior, likelihood = _expect(index, weights, confusion, share, anchors)
    before = -np.inf
    iterations = 0
    while iterations < max_iterations:
        iterations += 1
        weighed = posterior * counts[:, None]
        share = weighed.sum(axis=0) + beta
        share = share / share.sum()
        table = pseudo.copy()
        for outcome in range(outcomes):
            said = (index == outcome) & heard
            table[:, :, outcome] += said.T.astype(np.float64) @ weighed
        confusion = table / table.sum(axis=2, keepdims=True)
        posterior, likelihood = _expect(index, weights, confusion, share, anchors)
        total = float(likelihood @ counts + (pseudo * np.log(confusion + _TINY)).sum() + beta @ np.log(share + _TINY))
        if abs(total - before) <= tolerance * (abs(total) + 1):
            before = total
            break
        before = total
    return Fitted(posterior[:, PRESENT], float(share[PRESENT]), confusion, groups, before, iterations)


def _heard(rows: Integers, functions: Sequence[Function]) -> npt.NDArray[np.bool_]:
    """Where a function has an outcome: where it votes, and everywhere for one-way functions."""
    one_way = np.array([function.one_way for function in functions], dtype=bool)
    return np.asarray((rows != SILENT) | one_way[None, :])


def _tempered(heard: npt.NDArray[np.bool_], groups: Integers) -> Floats:
    """Each vote's share in the voice of its group: one over the members that are heard on the same exam."""
    weights = heard.astype(np.float64)
    for group in np.unique(groups):
        members = groups == group
        together = heard[:, members].sum(axis=1)
        weights[:, members] /= np.maximum(together, 1)[:, None]
    return weights


def _pseudo_counts(function: Function, prior: Prior) -> Floats:
    table = np.asarray(prior.confusion[function.kind], dtype=np.float64).copy()
    if not function.one_way:
        table[:, -1] = 0.0  # silence says nothing, so it has no share in the table
    return np.asarray(table + _TINY)


def _expect(
    index: Integers, weights: Floats, confusion: Floats, share: Floats, anchors: Integers
) -> tuple[Floats, Floats]:
    logs = np.log(confusion + _TINY)
    scores = np.tile(np.log(share + _TINY), (len(index), 1))
    for function in range(index.shape[1]):
        scores += logs[function][:, index[:, function]].T * weights[:, function, None]
    reviewed = anchors != SILENT
    scores[reviewed, 1 - anchors[reviewed]] = -np.inf
    highest = scores.max(axis=1, keepdims=True)
    posterior = np.exp(scores - highest)
    total = posterior.sum(axis=1, keepdims=True)
    return posterior / total, (highest + np.log(total))[:, 0]


# --- groups -----------------------------------------------------------------------------------------------------------


def _given_groups(functions: Sequence[Function]) -> Integers:
    names: dict[str, int] = {}
    return np.array(
        [names.setdefault(function.group or f"\0{number}", len(names)) for number, function in enumerate(functions)],
        dtype=np.int64,
    )


def _near_copies(rows: Integers, counts: Floats) -> list[tuple[int, int]]:
    """Pairs whose agreement is nearly perfect beyond chance (Cohen's kappa), where both speak."""
    found = []
    for first in range(rows.shape[1]):
        for second in range(first + 1, rows.shape[1]):
            table = _crossed(rows[:, first], rows[:, second], counts)
            total = table.sum()
            if total < _ENOUGH:
                continue
            share = table / total
            expected = float(share.sum(axis=1) @ share.sum(axis=0))
            if expected < 1 and (np.trace(share) - expected) / (1 - expected) > _NEAR_COPY:
                found.append((first, second))
    return found


def _dependent(
    rows: Integers,
    counts: Floats,
    functions: Sequence[Function],
    groups: Integers,
    anchors: Integers,
    prior: Prior,
) -> list[tuple[int, int]]:
    """Pairs that agree much more often than they would if the truth were all that they have in common.

    What each would say alone is learned without the other, and the truth is judged by all the others, so that a pair
    cannot vouch for itself.
    """
    number = len(functions)
    alone = []
    for left in range(number):
        rest, own = np.delete(rows, left, 1), np.delete(groups, left)
        alone.append(_maximise(rest, anchors, counts, _without(functions, left), own, prior, 60, 1e-5))
    index = np.where(rows == SILENT, len(OUTCOMES), rows)
    found = []
    for first in range(number):
        for second in range(first + 1, number):
            both = (rows[:, first] != SILENT) & (rows[:, second] != SILENT)
            if groups[first] == groups[second] or counts[both].sum() < _ENOUGH:
                continue
            says_first = _spoken(alone[second].confusion[first])
            says_second = _spoken(alone[first].confusion[second - 1])
            others = [other for other in range(number) if other not in (first, second)]
            weights = _tempered(_heard(rows[np.ix_(both, others)], [functions[one] for one in others]), groups[others])
            tables = np.delete(alone[first].confusion, second - 1, 0)
            share = np.array([1 - alone[first].prevalence, alone[first].prevalence])
            truth, _ = _expect(index[np.ix_(both, others)], weights, tables, share, anchors[both])
            weighed = counts[both]
            expected = float(weighed @ (truth @ (says_first * says_second).sum(axis=1)))
            observed = float(weighed @ (rows[both, first] == rows[both, second]))
            possible = weighed.sum() - expected
            if possible > 0 and (observed - expected) / possible > _DEPENDENT:
                found.append((first, second))
    return found


def _without(functions: Sequence[Function], left: int) -> list[Function]:
    return [function for number, function in enumerate(functions) if number != left]


def _spoken(table: Floats) -> Floats:
    """What a function says where it speaks: rows of truth, columns of outcomes without silence."""
    spoken = table[:, : len(OUTCOMES)]
    return np.asarray(spoken / spoken.sum(axis=1, keepdims=True))


def _crossed(first: Integers, second: Integers, counts: Floats) -> Floats:
    both = (first != SILENT) & (second != SILENT)
    table = np.zeros((len(OUTCOMES), len(OUTCOMES)))
    np.add.at(table, (first[both], second[both]), counts[both])
    return table


def _merge(groups: Integers, pairs: Sequence[tuple[int, int]]) -> Integers:
    merged = groups.copy()
    for first, second in pairs:
        merged[merged == merged[second]] = merged[first]
    return merged
