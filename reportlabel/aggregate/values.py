"""From probabilities to values, what readers settled, and labels that follow from the other labels of their set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from reportlabel.aggregate.ballots import UNCERTAIN, Ballot, Label
from reportlabel.aggregate.choose import Choice
from reportlabel.aggregate.label_model import ABSENT, OUTCOMES, SILENT, Floats, Integers
from reportlabel.aggregate.settings import AggregateSettings
from reportlabel.aggregate.weigh import contradicted, supported
from reportlabel.rulebook.models import LabelSet

NOT_MENTIONED = "not_mentioned"
VALUES = (*OUTCOMES, NOT_MENTIONED)

_PRESENT, _MUTE = VALUES.index("present"), VALUES.index(NOT_MENTIONED)
Small = npt.NDArray[np.int8]
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class Judged:
    """One label of all cases: those of which anybody speaks, and the probability of the others by modality class.

    Attributes:
        method: precedence or label_model, of the cases that nobody reviewed.
        cases: ascending; value: index into VALUES; n_votes: functions that speak.
        state: 0 unreviewed, 1 reviewed, 2 adjudicated.
        p_unspoken: (strata,).
        unspoken: index into VALUES of the cases of which nobody speaks.
    """

    method: str
    cases: npt.NDArray[np.uint32]
    value: Small
    p_present: npt.NDArray[np.float32]
    conflict: npt.NDArray[np.bool_]
    n_votes: npt.NDArray[np.uint16]
    state: Small
    p_unspoken: Floats
    unspoken: int = _MUTE

    def with_cases(self, cases: Integers) -> Judged:
        """The same with rows for these cases too; a row that was not there has no vote, no value, no probability."""
        together = np.union1d(self.cases, cases.astype(np.uint32))
        if len(together) == len(self.cases):
            return self
        place = np.searchsorted(together, self.cases)

        def spread(column: npt.NDArray[Number], fill: float) -> npt.NDArray[Number]:
            wider = np.full(len(together), fill, dtype=column.dtype)
            wider[place] = column
            return wider

        return replace(
            self,
            cases=together,
            value=spread(self.value, self.unspoken),
            p_present=spread(self.p_present, np.nan),
            conflict=spread(self.conflict, 0),
            n_votes=spread(self.n_votes, 0),
            state=spread(self.state, 0),
        )

    def with_readings(self, cases: Integers, values: Small, probability: Floats, states: Small) -> Judged:
        """The same with the readers' word in place of what was judged."""
        wider = self.with_cases(cases)
        at = np.searchsorted(wider.cases, cases)
        value, p_present, state = wider.value.copy(), wider.p_present.copy(), wider.state.copy()
        value[at], p_present[at], state[at] = values, probability, states
        return replace(wider, value=value, p_present=p_present, state=state)


def judge(ballot: Ballot, choice: Choice, settings: AggregateSettings) -> Judged:
    """Values of the cases with a vote, by the thresholds of aggregate.yaml.

    - present from ``thresholds.present``, if a function outside ``never_alone`` says present or uncertain; without one
      at most uncertain.
    - uncertain from ``thresholds.uncertain``.
    - below: absent where a function denies it. Where none does: uncertain if the report itself raises it, else not
      mentioned (a record alone, too weak to count).

    A case without any vote is not mentioned, whatever its probability: a label is not given without evidence.
    """
    thresholds = settings.thresholds
    probability = choice.p_present
    raised = ballot.of_text() >= UNCERTAIN
    below = np.where(ballot.denies(), ABSENT, np.where(raised, UNCERTAIN, _MUTE))
    value = np.where(probability >= thresholds.uncertain, UNCERTAIN, below)
    value = np.where((probability >= thresholds.present) & supported(ballot, settings), _PRESENT, value)
    return Judged(
        method=choice.method,
        cases=ballot.cases.astype(np.uint32),
        value=value.astype(np.int8),
        p_present=probability.astype(np.float32),
        conflict=contradicted(ballot, settings),
        n_votes=(ballot.said != SILENT).sum(axis=1).astype(np.uint16),
        state=np.zeros(len(ballot.cases), dtype=np.int8),
        p_unspoken=choice.p_unspoken,
    )


def derive_none_of_others(
    judged: Sequence[Judged], labels: Sequence[Label], label_sets: Mapping[str, LabelSet], strata: Integers
) -> list[Judged]:
    """Normal studies: present where the report says so and nothing else is found, absent where something is.

    As in `reportlabel.aggregate.precedence`; with ``else_absent`` also absent where nobody says so. The probability is
    at most that of none of the others being there, one less the highest of theirs. What a reader settled stays.
    """
    derived = list(judged)
    for number, label in enumerate(labels):
        entry = label_sets[label.label_set].findings[label.position]
        if not entry.none_of_others:
            continue
        cases, highest = [], []
        for other, one in zip(labels, judged, strict=True):
            if other.label_set == label.label_set and other.finding not in (entry.id, *entry.except_for):
                found = (one.value == UNCERTAIN) | (one.value == _PRESENT)
                cases.append(one.cases[found])
                highest.append(one.p_present[found])
        own = replace(judged[number], unspoken=ABSENT) if entry.else_absent else judged[number]
        derived[number] = _none_of(own, cases, highest, strata)
    return derived


def _none_of(
    own: Judged,
    cases: list[npt.NDArray[np.uint32]],
    highest: list[npt.NDArray[np.float32]],
    strata: Integers,
) -> Judged:
    found = np.unique(np.concatenate(cases)) if cases else np.zeros(0, dtype=np.uint32)
    most = np.zeros(len(found), dtype=np.float32)
    for some, probability in zip(cases, highest, strict=True):
        at = np.searchsorted(found, some)
        most[at] = np.maximum(most[at], probability)
    wider = own.with_cases(found.astype(np.int64))
    at = np.searchsorted(wider.cases, found)
    denied = np.zeros(len(wider.cases), dtype=bool)
    denied[at] = True
    ceiling = np.ones(len(wider.cases), dtype=np.float32)
    ceiling[at] = 1 - most
    free = wider.state == 0
    alone = own.p_unspoken[strata[wider.cases]].astype(np.float32)  # for rows that are new here: nobody spoke
    p_present = np.minimum(np.where(np.isnan(wider.p_present), alone, wider.p_present), ceiling)
    value = np.where(denied, ABSENT, np.where(wider.value == _PRESENT, _PRESENT, wider.unspoken))
    return replace(
        wider,
        value=np.where(free, value, wider.value).astype(np.int8),
        p_present=np.where(free, p_present, wider.p_present),
    )
