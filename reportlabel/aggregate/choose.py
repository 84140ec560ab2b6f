"""Which method judges a label: (a) precedence and weighted majority, or (b) the label model.

(b) takes over only where it was shown to be better on reviewed exams. The comparison is cross-validated by patient:
the reviewed exams of a fold are hidden while the label model is fitted and both methods are calibrated, and the fold's
own figures come from what was learned without it. Folds come from a hash of the patient id, so they stay the same from
run to run. Which functions copy each other is found from the votes alone, without any reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from reportlabel.aggregate.ballots import Ballot
from reportlabel.aggregate.calibrate import Calibration, calibrate, expected_calibration_error
from reportlabel.aggregate.label_model import OUTCOMES, SILENT, Fitted, Floats, Function, Integers, fit, predict
from reportlabel.aggregate.settings import AggregateSettings
from reportlabel.aggregate.weigh import unspoken, weigh

PRECEDENCE, LABEL_MODEL = "precedence", "label_model"

_JUDGED_BY_OTHERS = 3  # functions; with fewer, and no reviewed exam, votes cannot tell who is right (Dawid and Skene)
_AT_A_TIME = 24  # functions whose outcomes fit into one integer


@dataclass(frozen=True)
class Reviewed:
    """What readers settled for one label: numbers of the cases (ascending), truth (0, 1) and fold of the patient."""

    cases: Integers
    truth: Integers
    folds: Integers


@dataclass(frozen=True)
class Comparison:
    """Cross-validated figures of both methods on the reviewed exams, calibrated."""

    f1_a: float
    f1_b: float
    brier_a: float
    brier_b: float
    ece_a: float
    ece_b: float


@dataclass(frozen=True)
class Choice:
    """How a label is judged, and the probabilities.

    Attributes:
        method: precedence or label_model.
        p_present: (spoken,) calibrated and within the limits, from votes alone also where the exam was reviewed.
        p_unspoken: (strata,) the same for cases without any vote.
        calibration: of the chosen method.
        comparison: None where too few exams were reviewed.
        fitted: the label model, also where it was not chosen; None where there is nothing to learn from: fewer than
            three functions, and no reviewed exam.
        groups: (functions,) number of the group of each function.
    """

    method: str
    p_present: Floats
    p_unspoken: Floats
    calibration: Calibration
    comparison: Comparison | None
    fitted: Fitted | None
    groups: Integers


def choose(
    ballot: Ballot,
    *,
    strata: Integers,
    unspoken_cases: Integers,
    reviewed: Reviewed,
    reviewed_strata: Integers,
    modality_classes: Sequence[str | None],
    settings: AggregateSettings,
) -> Choice:
    """Judge one label.

    Args:
        ballot: the votes of the label.
        strata: (spoken,) number of the modality class of each case of the ballot.
        unspoken_cases: (strata,) how many cases have no vote.
        reviewed: what readers settled; reviewed_strata: (reviewed,) modality class of these cases.
        modality_classes: name of each stratum.
    """
    data = _lay_out(ballot, strata, unspoken_cases, reviewed, reviewed_strata)
    by_class = [settings.prevalence.of(name) for name in modality_classes]
    known = data.gold != SILENT
    truth = data.gold[known]
    enough = min(int(truth.sum()), int((1 - truth).sum())) >= settings.choice.reviewed_each

    functions = tuple(
        replace(one, one_way=one.one_way or one.kind in settings.silence_speaks) for one in ballot.functions
    )
    fitted: Fitted | None = None
    if len(functions) > 1:
        fitted = data.fit(functions, np.full(len(data.gold), SILENT), by_class, settings, find_groups=True)
    groups = fitted.groups if fitted is not None else np.arange(len(functions))
    functions = _grouped(functions, groups)
    if functions and len(truth):
        fitted = data.fit(functions, data.gold, by_class, settings, find_groups=False)
    elif len(functions) < _JUDGED_BY_OTHERS:
        fitted = None
    weighed = weigh(ballot, settings, groups=groups)
    first = np.concatenate([weighed, np.full(len(data.gold) - len(weighed), unspoken(settings))])

    method, probability = PRECEDENCE, first
    calibration = _calibrate(first[known], truth, settings)
    comparison: Comparison | None = None
    if fitted is not None and enough:
        comparison, own = _compare(data, first, functions, by_class, settings)
        if _is_better(comparison, settings):
            method, probability = LABEL_MODEL, data.predict(fitted, functions)
            calibration = _calibrate(own, truth, settings)
    probability = np.clip(calibration.apply(probability), settings.limits.lowest, settings.limits.highest)
    return Choice(
        method=method,
        p_present=probability[: len(ballot.cases)],
        p_unspoken=probability[len(probability) - len(unspoken_cases) :],
        calibration=calibration,
        comparison=comparison,
        fitted=fitted,
        groups=groups,
    )


def _is_better(comparison: Comparison, settings: AggregateSettings) -> bool:
    return (
        comparison.brier_b < comparison.brier_a * (1 - settings.choice.better_by) and comparison.f1_b >= comparison.f1_a
    )


def _compare(
    data: _Layout,
    first: Floats,
    functions: Sequence[Function],
    by_class: Sequence[tuple[float, float]],
    settings: AggregateSettings,
) -> tuple[Comparison, Floats]:
    """Figures of both methods, and what the label model says of each reviewed case when its fold is hidden."""
    known = np.flatnonzero(data.gold != SILENT)
    truth = data.gold[known]
    said_a, said_b, own = (np.zeros(len(known)) for _ in range(3))
    for fold in np.unique(data.folds[known]):
        test = data.folds[known] == fold
        fitted = data.fit(
            functions, np.where(data.folds == fold, SILENT, data.gold), by_class, settings, find_groups=False
        )
        second = data.predict(fitted, functions)[known]
        own[test] = second[test]
        for said, raw in ((said_a, first[known]), (said_b, second)):
            said[test] = _calibrate(raw[~test], truth[~test], settings).apply(raw[test])
    threshold = settings.thresholds.present
    return (
        Comparison(
            f1_a=f1_score(said_a >= threshold, truth),
            f1_b=f1_score(said_b >= threshold, truth),
            brier_a=float(np.mean((said_a - truth) ** 2)),
            brier_b=float(np.mean((said_b - truth) ** 2)),
            ece_a=expected_calibration_error(said_a, truth),
            ece_b=expected_calibration_error(said_b, truth),
        ),
        own,
    )


def f1_score(said: npt.NDArray[np.bool_], truth: Integers) -> float:
    """Harmonic mean of precision and recall of ``said``; 1 where there is nothing to find and nothing is said."""
    total = int(said.sum() + truth.sum())
    return float(2 * (said & (truth == 1)).sum() / total) if total else 1.0


def _calibrate(probability: Floats, truth: Integers, settings: AggregateSettings) -> Calibration:
    return calibrate(probability, truth, few=settings.calibration.few, many=settings.calibration.many)


def _grouped(functions: Sequence[Function], groups: Integers) -> tuple[Function, ...]:
    return tuple(replace(one, group=f"\0{group}") for one, group in zip(functions, groups, strict=True))


# --- distinct patterns ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """Rows: the spoken cases, reviewed cases without a vote, and one row a stratum for all other cases without a vote.

    Attributes:
        gold, folds: (rows,) SILENT where not reviewed.
        weight: (rows,) cases that the row stands for.
        kind: (rows,) which distinct pattern of votes and stratum the row has; votes, strata: of each pattern.
    """

    gold: Integers
    folds: Integers
    weight: Floats
    kind: Integers
    votes: Integers
    strata: Integers

    def fit(
        self,
        functions: Sequence[Function],
        gold: Integers,
        by_class: Sequence[tuple[float, float]],
        settings: AggregateSettings,
        *,
        find_groups: bool,
    ) -> Fitted:
        """Fit on the distinct patterns of votes, stratum and gold."""
        distinct, which = np.unique(self.kind * 3 + (gold - SILENT), return_inverse=True)
        kind, known = distinct // 3, distinct % 3 + SILENT
        return fit(
            self.votes[kind],
            functions,
            prior=settings.prior(),
            gold=known,
            counts=np.bincount(which.reshape(-1), weights=self.weight).astype(np.float64),
            strata=self.strata[kind],
            prevalences=by_class,
            find_groups=find_groups,
        )

    def predict(self, fitted: Fitted, functions: Sequence[Function]) -> Floats:
        """(rows,) what the model says from votes alone."""
        return predict(fitted, self.votes, functions, strata=self.strata)[self.kind]


def _lay_out(
    ballot: Ballot, strata: Integers, unspoken_cases: Integers, reviewed: Reviewed, reviewed_strata: Integers
) -> _Layout:
    spoken, classes = len(ballot.cases), len(unspoken_cases)
    place = np.searchsorted(ballot.cases, reviewed.cases)
    has_vote = place < spoken
    has_vote[has_vote] = ballot.cases[place[has_vote]] == reviewed.cases[has_vote]
    mute = int((~has_vote).sum())
    rows = spoken + mute + classes
    gold, folds = np.full(rows, SILENT), np.full(rows, SILENT)
    for into, values in ((gold, reviewed.truth), (folds, reviewed.folds)):
        into[place[has_vote]] = values[has_vote]
        into[spoken : spoken + mute] = values[~has_vote]
    mute_strata = reviewed_strata[~has_vote]
    rest = unspoken_cases - np.bincount(mute_strata, minlength=classes)
    all_strata = np.concatenate([strata, mute_strata, np.arange(classes)])
    code = _packed(ballot.said, mute + classes) * classes + all_strata
    _, first, kind = np.unique(code, return_index=True, return_inverse=True)
    votes = np.full((len(first), len(ballot.functions)), SILENT, dtype=np.int64)
    votes[first < spoken] = ballot.said[first[first < spoken]]
    weight = np.concatenate([np.ones(spoken + mute), rest])
    return _Layout(gold, folds, weight, kind.reshape(-1), votes, all_strata[first])


def _packed(said: npt.NDArray[np.int8], silent_rows: int) -> Integers:
    """One number for each distinct row of votes; as many silent rows follow."""
    code = np.zeros(len(said) + silent_rows, dtype=np.int64)
    for column in range(said.shape[1]):
        if column and column % _AT_A_TIME == 0:
            code = np.unique(code, return_inverse=True)[1].reshape(-1).astype(np.int64)
        code *= len(OUTCOMES) + 1
        code[: len(said)] += said[:, column] - SILENT
    return np.unique(code, return_inverse=True)[1].reshape(-1).astype(np.int64)
