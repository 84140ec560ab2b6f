"""What each labelling function does for a label: how often it speaks, with and against whom, and how often rightly."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from reportlabel.aggregate.ballots import Ballot
from reportlabel.aggregate.choose import Choice, Reviewed
from reportlabel.aggregate.label_model import ABSENT, OUTCOMES, PRESENT, SILENT, Function, Integers
from reportlabel.schema import ANALYSIS


def analyse(ballot: Ballot, choice: Choice, reviewed: Reviewed, *, cases: int) -> pl.DataFrame:
    """The table of one label, in the manner of Snorkel's LFAnalysis (Ratner et al., VLDB 2017).

    Args:
        cases: how many exams the label set fits.

    Returns:
        ``n_votes``: exams of which the function speaks, after its votes on one exam became one; ``n_present`` and so
        on: what it says. Shares of all exams that the label set fits: ``coverage`` speaks; ``overlap`` speaks, and so
        does another function; ``conflict`` speaks, and another one says something else. ``n_reviewed``: reviewed exams
        on which it says present or absent; ``empirical_accuracy``: share of these on which it is right, null where
        there are none. ``estimated_accuracy``: the same as the label model believes it to be over all exams,
        null where the model was not fitted. ``group``: functions that share one voice have the same, the given name
        or the first id; null for a function on its own.
    """
    said = ballot.said
    speaks = said != SILENT
    others = speaks.sum(axis=1)
    place = np.searchsorted(ballot.cases, reviewed.cases)
    has_vote = place < len(ballot.cases)
    has_vote[has_vote] = ballot.cases[place[has_vote]] == reviewed.cases[has_vote]
    checked, truth = said[place[has_vote]], reviewed.truth[has_vote]
    right_outcome = np.where(truth == 1, OUTCOMES.index("present"), ABSENT)
    names = group_names(ballot, choice.groups)
    spread = np.stack([(said == value).sum(axis=1) for value in range(len(OUTCOMES))], axis=1)
    rows = []
    for number, function in enumerate(ballot.functions):
        own = speaks[:, number]
        same = np.take_along_axis(spread, np.maximum(said[:, number], 0)[:, None].astype(np.int64), axis=1)[:, 0]
        decided = np.isin(checked[:, number], (ABSENT, OUTCOMES.index("present")))
        rows.append(
            {
                "label_set": ballot.label.label_set,
                "finding": ballot.label.finding,
                "function_id": function.id,
                "kind": function.kind,
                "group": names[number],
                "one_way": function.one_way,
                "n_votes": int(own.sum()),
                **{f"n_{value}": int((said[:, number] == code).sum()) for code, value in enumerate(OUTCOMES)},
                "coverage": float(own.sum() / cases),
                "overlap": float((own & (others > 1)).sum() / cases),
                "conflict": float((own & (same < others)).sum() / cases),
                "n_reviewed": int(decided.sum()),
                "empirical_accuracy": float((checked[decided, number] == right_outcome[decided]).mean())
                if decided.any()
                else None,
                "estimated_accuracy": _estimated(choice, number),
            }
        )
    return pl.DataFrame(rows, schema=ANALYSIS)


def group_names(ballot: Ballot, groups: Integers) -> list[str | None]:
    """Name of the group of each function: the given one, else its first function id; None for a function alone."""
    names: Mapping[int, str | None] = {
        int(group): _name([ballot.functions[number] for number in np.flatnonzero(groups == group)])
        for group in np.unique(groups)
    }
    return [names[int(group)] for group in groups]


def _name(members: list[Function]) -> str | None:
    given = sorted(member.group for member in members if member.group)
    if given:
        return given[0]
    return min(member.id for member in members) if len(members) > 1 else None


def _estimated(choice: Choice, number: int) -> float | None:
    """Probability that the function is right where it says present or absent."""
    if choice.fitted is None:
        return None
    table = choice.fitted.confusion[number][:, [ABSENT, OUTCOMES.index("present")]]
    joint = table * np.array([[1 - choice.fitted.prevalence], [choice.fitted.prevalence]])
    return float((joint[ABSENT, 0] + joint[PRESENT, 1]) / joint.sum())
