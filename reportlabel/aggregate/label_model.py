"""A label model for one finding: what labelling functions say, weighed by how far each can be trusted.

Dawid and Skene (Applied Statistics 1979;28:20-28): the truth is hidden, every function has a confusion table, and both
are estimated together by expectation maximisation. Added here, because labelling functions are not independent raters:

- groups: functions that copy each other share one voice. Their log-likelihoods are tempered by the number of members
  that speak about the exam. Groups are given, and found from agreement that the truth does not explain: in what
  functions say, or, of those that only ever say one thing, in when they say it.
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
Flags = npt.NDArray[np.bool_]

SILENT = -1
"""The outcome of a function that says nothing about an exam, and the truth of an exam that nobody reviewed."""

ABSENT, PRESENT = 0, 1
OUTCOMES = ("absent", "uncertain", "present")

_TINY = 1e-12
_NEAR_COPY = 0.85  # kappa from which two functions are copies, whatever the truth is
_DEPENDENT = 0.5  # share of the possible agreement (or firing together) beyond what the truth explains
_IDENTIFIABLE = 5  # functions; without a pair three others must be left to judge the truth
_ENOUGH = 30  # exams that both must speak of (or on which both must fire) before their agreement counts
_FEW = 29  # exams on which a function may say another thing and still counts as saying one only: too few to learn from
_STANDARD_ERRORS = 3  # by which functions must fire together more often than the truth explains


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
        groups = _merge(groups, _near_copies(distinct.rows, functions, distinct.counts))
    fitted = _maximise(distinct, functions, groups, prior, max_iterations, tolerance)
    if find_groups and _judges(distinct, functions) >= _IDENTIFIABLE:
        merged = groups
        # one pair at a time: copies that nobody has found yet mislead what is thought of the others
        while (pair := _most_dependent(distinct, functions, merged, prior)) is not None:
            merged = _merge(merged, [pair])
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


def _near_copies(rows: Integers, functions: Sequence[Function], counts: Floats) -> list[tuple[int, int]]:
    """Pairs whose agreement is nearly perfect beyond chance (Cohen's kappa).

    Of functions that say several things: in what they say where both speak. Where one of them says one thing only: in
    whether they say it, silence being the other answer; where both speak they could not but agree.
    """
    only = _only_values(rows, counts, but_for=0)
    found = []
    for first in range(rows.shape[1]):
        for second in range(first + 1, rows.shape[1]):
            if only[first] is None and only[second] is None:
                table = _crossed(rows[:, first], rows[:, second], counts)
                enough = table.sum() >= _ENOUGH
            else:
                firing = _firing(rows, functions, only, first, second)
                if firing is None:
                    continue
                one, other, weighed = firing.first, firing.second, counts[firing.among]
                table = np.zeros((2, 2))
                np.add.at(table, (one.astype(np.int64), other.astype(np.int64)), weighed)
                enough = min(table[1].sum(), table[:, 1].sum()) >= _ENOUGH
            if enough and _kappa(table) > _NEAR_COPY:
                found.append((first, second))
    return found


def _kappa(table: Floats) -> float:
    """Agreement beyond chance as a share of what is possible (J. Cohen, 1960); 0 where chance explains all of it."""
    share = table / table.sum()
    expected = float(share.sum(axis=1) @ share.sum(axis=0))
    return (float(np.trace(share)) - expected) / (1 - expected) if expected < 1 else 0.0


def _only_values(rows: Integers, counts: Floats, *, but_for: float) -> list[int | None]:
    """The outcome of each function that says one thing only, but for this many exams; None: it says several."""
    only: list[int | None] = []
    for column in rows.T:
        spread = np.array([counts[column == value].sum() for value in range(len(OUTCOMES))])
        usual = int(spread.argmax())
        only.append(usual if spread.sum() - spread[usual] <= but_for else None)
    return only


def _judges(data: _Distinct, functions: Sequence[Function]) -> int:
    """How many functions tell something of the truth: they say several things, or their silence is an outcome."""
    only = _only_values(data.rows, data.counts, but_for=_FEW)
    return sum(value is None or function.one_way for value, function in zip(only, functions, strict=True))


@dataclass(frozen=True)
class _Firing:
    """Two functions, of which one says one thing only: on which exams each of them fires, that is, says this thing.

    ``among``: (exams,) where both are heard; ``first``, ``second``: (among,) whether it fires; ``value``: the thing.
    """

    among: Flags
    first: Flags
    second: Flags
    value: int


def _firing(
    rows: Integers, functions: Sequence[Function], only: Sequence[int | None], first: int, second: int
) -> _Firing | None:
    """None: nothing to compare. They say different things, or the silence of one that has no other answer is no outcome
    for the model, which then learns nothing from its votes either."""
    value = only[second] if only[first] is None else only[first]
    if value is None or only[second] not in (None, value):
        return None
    among = np.ones(len(rows), dtype=bool)
    for number in (first, second):
        if not functions[number].one_way:
            if only[number] is not None:
                return None
            among &= rows[:, number] != SILENT
    return _Firing(among, rows[among, first] == value, rows[among, second] == value, value)


def _most_dependent(
    data: _Distinct, functions: Sequence[Function], groups: Integers, prior: Prior
) -> tuple[int, int] | None:
    """The pair that most exceeds how often it would agree if the truth were all that it has in common; None: none does.

    The model takes functions to be independent of each other given the truth (Dawid and Skene): on an exam of truth t
    with probability q(t), a pair says the values v and w with probability ``sum over t of q(t) a(v|t) b(w|t)``. What
    each would say alone, a and b, is learned without the other, and q is judged by all the others, so that a pair
    cannot vouch for itself. The sum over exams is the expected agreement E, to be compared with the observed O.

    - Both say several things: agreement where both speak, dependent from ``(O - E) / (exams - E) > 0.5``, a kappa from
      which the truth has been taken.
    - One says one thing only, such as "present": where it speaks it has no choice, and that both speak is to be
      expected where the finding is there. What is compared is whether each of them fires (says this thing). With O and
      E for both firing, and the number of times that the one fires that fires less often, dependent from
      ``(O - E) / (fires - E) > 0.5``: the coefficient H of Loevinger (Psychological Monographs 1947;61(4)) within the
      truth. It is 0 for independent functions however common the finding is, 1 for copies and for a function that
      fires on some of the exams on which the other does. O must lie beyond E by more than three standard errors, too.
    """
    number = len(functions)
    rows, counts = data.rows, data.counts
    only = _only_values(rows, counts, but_for=_FEW)
    alone = []
    for left in range(number):
        rest, own = replace(data, rows=np.delete(rows, left, 1)), np.delete(groups, left)
        alone.append(_maximise(rest, _without(functions, left), own, prior, 60, 1e-5))
    most, found = _DEPENDENT, None
    for first in range(number):
        rest = replace(data, rows=np.delete(rows, first, 1))
        others = _Others(rest, _without(functions, first), np.delete(groups, first), alone[first])
        for second in range(first + 1, number):
            if groups[first] == groups[second]:
                continue
            one, other = alone[second].confusion[first], alone[first].confusion[second - 1]
            if only[first] is None and only[second] is None:
                both = (rows[:, first] != SILENT) & (rows[:, second] != SILENT)
                if counts[both].sum() < _ENOUGH:
                    continue
                truth = others.truth_without(second - 1)[both]
                agree = rows[both, first] == rows[both, second]
                excess = _excess_agreement(truth, one, other, agree, counts[both])
            else:
                firing = _firing(rows, functions, only, first, second)
                if firing is None:
                    continue
                truth = others.truth_without(second - 1)[firing.among]
                rates = one[:, firing.value], other[:, firing.value]
                excess = _excess_firing(truth, *rates, firing, counts[firing.among])
            if excess > most:
                most, found = excess, (first, second)
    return found


class _Others:
    """The truth as some functions see it, one of them left out."""

    def __init__(self, data: _Distinct, functions: Sequence[Function], groups: Integers, fitted: Fitted) -> None:
        self._data, self._functions, self._groups = data, functions, groups
        self._ratios = np.log(fitted.confusion[:, PRESENT] + _TINY) - np.log(fitted.confusion[:, ABSENT] + _TINY)
        self._moves = self._moved(list(range(len(functions))))
        odds = np.log(fitted.prevalences + _TINY) - np.log(1 - fitted.prevalences + _TINY)
        self._odds = odds[data.strata] + self._moves.sum(axis=1)

    def truth_without(self, left: int) -> Floats:
        """(exams, 2): probability of absent and present."""
        mates = [one for one in np.flatnonzero(self._groups == self._groups[left]) if one != left]
        odds = self._odds - self._moves[:, [left, *mates]].sum(axis=1)
        if mates:  # they speak louder without it
            odds = odds + self._moved(mates).sum(axis=1)
        present = 0.5 * (1 + np.tanh(odds / 2))
        known = self._data.anchors != SILENT
        present[known] = self._data.anchors[known]
        return np.column_stack([1 - present, present])

    def _moved(self, some: list[int]) -> Floats:
        """(exams, some): by how much each of these functions moves the log-odds, their groups without any other."""
        rows = self._data.rows[:, some]
        weights = _tempered(_heard(rows, [self._functions[one] for one in some]), self._groups[some])
        return np.asarray(weights * self._ratios[some, np.where(rows == SILENT, len(OUTCOMES), rows)])


def _excess_agreement(truth: Floats, first: Floats, second: Floats, agree: Flags, weighed: Floats) -> float:
    """Agreement beyond E as a share of what is possible; ``first``, ``second``: the tables of the two."""
    # that both speak tells something of the truth where silence is an outcome
    speak = truth * (1 - first[:, -1]) * (1 - second[:, -1])
    truth = speak / np.maximum(speak.sum(axis=1, keepdims=True), _TINY)
    expected = float(weighed @ (truth @ (_spoken(first) * _spoken(second)).sum(axis=1)))
    possible = float(weighed.sum()) - expected
    return (float(weighed @ agree) - expected) / possible if possible > 0 else 0.0


def _excess_firing(truth: Floats, first: Floats, second: Floats, firing: _Firing, weighed: Floats) -> float:
    """Firing together beyond E as a share of what is possible; ``first``, ``second``: how often they fire by truth.

    0 where either fires too seldom, or chance might do it.
    """
    totals = float(weighed @ firing.first), float(weighed @ firing.second)
    if min(totals) < _ENOUGH:
        return 0.0
    # how often each fires is given; what was learned without the other, of fewer functions, may say more or less
    one, other = (
        rate * (total / (weighed @ (truth @ rate))) for rate, total in zip((first, second), totals, strict=True)
    )
    expected = float(weighed @ (truth @ (one * other)))
    observed = float(weighed @ (firing.first & firing.second))
    one, other = truth @ one, truth @ other
    error = float(np.sqrt(weighed @ (one * np.maximum(1 - one, 0) * other * np.maximum(1 - other, 0))))
    if min(totals) <= expected or observed - expected <= _STANDARD_ERRORS * error:
        return 0.0
    return (observed - expected) / (min(totals) - expected)


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
