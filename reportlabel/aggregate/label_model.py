"""A label model for one finding: what labelling functions say, weighed by how far each can be trusted.

Dawid and Skene (Applied Statistics 1979;28:20-28): the truth is hidden, every function has a confusion table, and both
are estimated together by expectation maximisation. Added here, because labelling functions are not independent raters:

- groups: functions that copy each other share one voice. Their log-likelihoods are tempered by the number of members
  that speak about the exam. Groups are given, and found from agreement that the truth does not explain.
- one-way functions: a rule that can only say "present" says something by its silence too, so its silence is an outcome.
- Dirichlet priors on the confusion tables, by kind of function; a Beta prior on the prevalence.
- gold anchors: exams that a radiologist reviewed have their truth fixed.
- strata: kinds of exam among which the finding is differently common share the confusion tables, not the prevalence.
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
        prevalences: (strata,) the same within each stratum.
        confusion: (functions, 2, outcomes + 1): probability of each outcome (silence last) given absent and present.
        groups: (functions,) number of the group of each function.
        log_likelihood: of the votes, tempered, with the priors.
        iterations: until it stood still.
    """

    p_present: Floats
    prevalence: float
    prevalences: Floats
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
    counts: Floats | None = None,
    strata: Integers | None = None,
    prevalences: Sequence[tuple[float, float]] | None = None,
    find_groups: bool = True,
    max_iterations: int = 200,
    tolerance: float = 1e-7,
) -> Fitted:
    """Estimate the truth behind the votes.

    Args:
        votes: (exams, functions), an index into OUTCOMES or SILENT.
        gold: (exams,) ABSENT or PRESENT where the exam was reviewed, else SILENT.
        counts: (exams,) how many exams each row stands for; default one.
        strata: (exams,) number of the stratum of each exam, from 0; default one stratum.
        prevalences: pseudo-counts of absent and present exams by stratum; default those of the prior for each.
        find_groups: also look for functions that agree more than the truth explains.

    Raises:
        ValueError: shapes do not match, a vote is no outcome, or a stratum has no pseudo-counts.
    """
    votes, known = _checked(votes, functions, gold)
    weights, strata = _checked_rows(len(votes), counts, strata)
    beta = _beta(prior, prevalences, strata)
    # exams with the same votes have the same posterior: work on the distinct patterns
    patterns, which = np.unique(np.column_stack([votes, known, strata]), axis=0, return_inverse=True)
    which = which.reshape(-1)
    distinct = _Distinct(
        rows=patterns[:, :-2],
        anchors=patterns[:, -2],
        strata=patterns[:, -1],
        counts=np.bincount(which, weights=weights, minlength=len(patterns)).astype(np.float64),
        beta=beta,
    )
    groups = _given_groups(functions)
    if find_groups and len(functions) > 1:
        groups = _merge(groups, _near_copies(distinct.rows, distinct.counts))
    fitted = _maximise(distinct, functions, groups, prior, max_iterations, tolerance)
    if find_groups and len(functions) >= _IDENTIFIABLE:
        merged = _merge(groups, _dependent(distinct, functions, groups, prior))
        if not np.array_equal(merged, groups):
            fitted = _maximise(distinct, functions, merged, prior, max_iterations, tolerance)
    return replace(fitted, p_present=fitted.p_present[which])


def predict(
    fitted: Fitted, votes: Integers, functions: Sequence[Function], *, strata: Integers | None = None
) -> Floats:
    """Probability that the finding is present, from the votes alone: what a reviewer said of an exam is not used.

    Args:
        fitted: learned by `fit` from these functions.
        votes: (exams, functions), an index into OUTCOMES or SILENT; strata: (exams,) as in `fit`.

    Returns:
        (exams,) probabilities.

    Raises:
        ValueError: shapes do not match, a vote is no outcome, or a stratum is not one that the model knows.
    """
    votes, known = _checked(votes, functions, None)
    _, strata = _checked_rows(len(votes), None, strata)
    if len(strata) and strata.max() >= len(fitted.prevalences):
        raise ValueError(f"stratum {strata.max()} was not there when the model was fitted")
    voices = _one_hot(votes, _tempered(_heard(votes, functions), fitted.groups))
    share = np.column_stack([1 - fitted.prevalences, fitted.prevalences])
    posterior, _ = _expect(voices, fitted.confusion, share[strata], known)
    return np.asarray(posterior[:, PRESENT])


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


def _checked_rows(rows: int, counts: Floats | None, strata: Integers | None) -> tuple[Floats, Integers]:
    weights = np.ones(rows) if counts is None else np.asarray(counts, dtype=np.float64)
    places = np.zeros(rows, dtype=np.int64) if strata is None else np.asarray(strata, dtype=np.int64)
    for name, array in (("counts", weights), ("strata", places)):
        if array.shape != (rows,):
            raise ValueError(f"{name} has shape {array.shape}; expected ({rows},)")
        if array.size and array.min() < 0:
            raise ValueError(f"{name} must not be negative")
    return weights, places


def _beta(prior: Prior, prevalences: Sequence[tuple[float, float]] | None, strata: Integers) -> Floats:
    """(strata, 2): pseudo-counts of absent and present exams."""
    number = int(strata.max()) + 1 if strata.size else 1
    beta = np.asarray([prior.prevalence] * number if prevalences is None else prevalences, dtype=np.float64)
    if beta.ndim != 2 or beta.shape[1] != 2 or len(beta) < number:
        raise ValueError(f"prevalences has shape {beta.shape}; expected ({number}, 2)")
    return beta


@dataclass(frozen=True)
class _Distinct:
    """The distinct patterns of votes, gold and stratum, how many exams have them, and the prior of the prevalence."""

    rows: Integers
    anchors: Integers
    strata: Integers
    counts: Floats
    beta: Floats


# --- expectation maximisation -----------------------------------------------------------------------------------------


def _maximise(
    data: _Distinct,
    functions: Sequence[Function],
    groups: Integers,
    prior: Prior,
    max_iterations: int,
    tolerance: float,
) -> Fitted:
    outcomes = len(OUTCOMES) + 1
    number = len(functions)
    heard = _heard(data.rows, functions)
    said = _one_hot(data.rows, heard)
    voices = _one_hot(data.rows, _tempered(heard, groups))
    pseudo = np.stack([_pseudo_counts(function, prior) for function in functions]) if functions else np.zeros((0, 2, 4))
    confusion = pseudo / pseudo.sum(axis=2, keepdims=True)
    share = data.beta / data.beta.sum(axis=1, keepdims=True)
    inside = np.equal(data.strata[None, :], np.arange(len(data.beta))[:, None]).astype(np.float64)
    posterior, likelihood = _expect(voices, confusion, share[data.strata], data.anchors)
    before = -np.inf
    iterations = 0
    while iterations < max_iterations:
        iterations += 1
        weighed = posterior * data.counts[:, None]
        share = inside @ weighed + data.beta
        share = share / share.sum(axis=1, keepdims=True)
        table = pseudo + (said.T @ weighed).reshape(number, outcomes, 2).transpose(0, 2, 1)
        confusion = table / table.sum(axis=2, keepdims=True)
        posterior, likelihood = _expect(voices, confusion, share[data.strata], data.anchors)
        total = float(
            likelihood @ data.counts
            + (pseudo * np.log(confusion + _TINY)).sum()
            + (data.beta * np.log(share + _TINY)).sum()
        )
        if abs(total - before) <= tolerance * (abs(total) + 1):
            before = total
            break
        before = total
    exams = inside @ data.counts
    each = exams + data.beta.sum(axis=1)
    overall = float(share[:, PRESENT] @ each / each.sum())
    return Fitted(posterior[:, PRESENT], overall, share[:, PRESENT], confusion, groups, before, iterations)


def _one_hot(rows: Integers, weights: npt.NDArray[np.bool_] | Floats) -> Floats:
    """(exams, functions times outcomes): the weight of the vote in the column of its outcome (silence last)."""
    outcomes = len(OUTCOMES) + 1
    exams, functions = rows.shape
    table = np.zeros((exams, functions * outcomes))
    columns = np.where(rows == SILENT, outcomes - 1, rows) + np.arange(functions) * outcomes
    np.put_along_axis(table, columns, np.asarray(weights, dtype=np.float64), axis=1)
    return table


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


def _expect(voices: Floats, confusion: Floats, share: Floats, anchors: Integers) -> tuple[Floats, Floats]:
    """Posterior (exams, 2) and log-likelihood (exams,); ``share``: (exams, 2), prevalence in each exam's stratum."""
    logs = np.log(confusion + _TINY).transpose(0, 2, 1).reshape(-1, 2)
    scores = np.log(share + _TINY) + voices @ logs
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


def _dependent(data: _Distinct, functions: Sequence[Function], groups: Integers, prior: Prior) -> list[tuple[int, int]]:
    """Pairs that agree much more often than they would if the truth were all that they have in common.

    What each would say alone is learned without the other, and the truth is judged by all the others, so that a pair
    cannot vouch for itself.
    """
    number = len(functions)
    rows, counts = data.rows, data.counts
    alone = []
    for left in range(number):
        rest, own = replace(data, rows=np.delete(rows, left, 1)), np.delete(groups, left)
        alone.append(_maximise(rest, _without(functions, left), own, prior, 60, 1e-5))
    found = []
    for first in range(number):
        for second in range(first + 1, number):
            both = (rows[:, first] != SILENT) & (rows[:, second] != SILENT)
            if groups[first] == groups[second] or counts[both].sum() < _ENOUGH:
                continue
            says_first = _spoken(alone[second].confusion[first])
            says_second = _spoken(alone[first].confusion[second - 1])
            others = [other for other in range(number) if other not in (first, second)]
            seen = rows[np.ix_(both, others)]
            voices = _one_hot(seen, _tempered(_heard(seen, [functions[one] for one in others]), groups[others]))
            tables = np.delete(alone[first].confusion, second - 1, 0)
            share = np.column_stack([1 - alone[first].prevalences, alone[first].prevalences])[data.strata[both]]
            truth, _ = _expect(voices, tables, share, data.anchors[both])
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
