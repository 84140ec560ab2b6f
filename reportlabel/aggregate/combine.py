"""The aggregate stage: from the votes of a workspace to one value and probability for each exam and label.

Label by label: collapse the votes (`ballots`), judge them by precedence and weighted majority (`weigh`) or, where that
was shown to be better, by the label model (`choose`), turn probabilities into values (`values`), and put in what
readers settled. Exams of which nobody speaks are judged once for each modality class; only the others take memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import pyarrow as pa

from reportlabel.aggregate.analyse import analyse
from reportlabel.aggregate.ballots import Ballot, Ballots, Label, VoteTables, labels_of
from reportlabel.aggregate.cases import REVIEW_STATES, Cases, cases_of, settled_of
from reportlabel.aggregate.choose import Choice, Reviewed, choose
from reportlabel.aggregate.label_model import Integers
from reportlabel.aggregate.settings import AggregateSettings
from reportlabel.aggregate.values import NOT_MENTIONED, VALUES, Judged, derive_none_of_others, judge
from reportlabel.errors import InputError
from reportlabel.rulebook.models import LabelSet
from reportlabel.schema import ANALYSIS, CHOICES, EXAM_LABELS, VOTE_EVIDENCE

_OF_THE_RUN = ("rules_hash", "model_version", "run_id")

AGGREGATED = pl.Schema([(name, kind) for name, kind in EXAM_LABELS.items() if name not in _OF_THE_RUN])
"""`reportlabel.schema.EXAM_LABELS` without the three columns that name the run."""

_CASES_A_PART = 20_000


@dataclass(frozen=True)
class Aggregated:
    """What the stage gives.

    Attributes:
        choices: `reportlabel.schema.CHOICES`: one row a label. ``a`` is precedence, ``b`` the label model; their
            figures are cross-validated and calibrated, null where too few exams were reviewed. ``n_reviewed``: exams
            with a settled present or absent, ``n_present`` of them. ``calibration``: of the chosen method.
            ``prevalence``: mean probability over the exams that the label set fits. ``groups``: the functions by the
            voice that they share.
        analysis: `reportlabel.schema.ANALYSIS`: one row a label and function; see `analyse`.
    """

    choices: pl.DataFrame
    analysis: pl.DataFrame
    _cases: Cases
    _ballots: Ballots
    _votes: pl.DataFrame | None
    _labels: Sequence[Label]
    _judged: Sequence[Judged]

    @cached_property
    def labels(self) -> pl.DataFrame:
        """`AGGREGATED`: one row a case and label, in the order of the scope and of the label set.

        All at once; `label_parts` gives the same piece by piece, for archives whose labels do not fit into memory.
        """
        return pl.concat([pl.DataFrame(schema=AGGREGATED), *self.label_parts()], rechunk=False)

    def label_parts(self, cases: int = _CASES_A_PART) -> Iterator[pl.DataFrame]:
        """The labels in parts of so many cases (exam and label set)."""
        for start in range(0, len(self._cases.table), cases):
            yield self.part(start, min(start + cases, len(self._cases.table)))

    def part(self, start: int, stop: int, *, votes: pl.DataFrame | None = None) -> pl.DataFrame:
        """The labels of the cases from row ``start`` of the scope up to, not including, ``stop``.

        Args:
            votes: with those of these cases, for their evidence; needed where `aggregate` was not given a table.
        """
        sizes = self._cases.sizes[start:stop]
        first = np.concatenate([[0], np.cumsum(sizes)])  # row of the first label of each case
        rows = int(first[-1])
        value = np.full(rows, VALUES.index(NOT_MENTIONED), dtype=np.int8)
        probability = np.zeros(rows)
        conflict = np.zeros(rows, dtype=bool)
        n_votes = np.zeros(rows, dtype=np.int32)
        state = np.zeros(rows, dtype=np.int8)
        label = np.zeros(rows, dtype=np.int32)
        for number, (known, judged) in enumerate(zip(self._labels, self._judged, strict=True)):
            members = self._cases.members[known.label_set]
            here = members[slice(*np.searchsorted(members, (start, stop)))]
            at = first[here - start] + known.position
            label[at] = number
            value[at] = judged.unspoken
            probability[at] = judged.p_unspoken[self._cases.strata[here]]
            inside = slice(*np.searchsorted(judged.cases, (start, stop)))
            at = first[judged.cases[inside].astype(np.int64) - start] + known.position
            value[at] = judged.value[inside]
            probability[at] = judged.p_present[inside]
            conflict[at] = judged.conflict[inside]
            n_votes[at] = judged.n_votes[inside]
            state[at] = judged.state[inside]
        case = pl.Series(np.repeat(np.arange(start, stop, dtype=np.uint32), sizes))
        methods = pl.Series([judged.method for judged in self._judged], dtype=pl.String)
        states = pl.Series(REVIEW_STATES, dtype=pl.String).gather(pl.Series(state.astype(np.uint32)))
        table = pl.DataFrame(
            {
                "exam_id": self._cases.table["exam_id"].gather(case),
                "label_set": self._cases.table["label_set"].gather(case),
                "finding": pl.Series([known.finding for known in self._labels], dtype=pl.String).gather(
                    pl.Series(label.astype(np.uint32))
                ),
                "value": pl.Series(VALUES, dtype=pl.String).gather(pl.Series(value.astype(np.uint32))),
                "p_present": probability,
                "conflict": conflict,
                "n_votes": n_votes,
                "method": methods.gather(pl.Series(label.astype(np.uint32))),
                "review_state": states,
                "evidence": self._evidence(start, stop, first, votes),
            }
        )
        reviewed = pl.col("review_state") != REVIEW_STATES[0]
        return table.with_columns(pl.when(reviewed).then(pl.lit("reader")).otherwise("method").alias("method")).cast(
            AGGREGATED
        )

    def _evidence(self, start: int, stop: int, first: Integers, votes: pl.DataFrame | None) -> pl.Series:
        """The votes of each row, in the order of function, value and evidence."""
        if votes is not None:
            case, label = self._ballots.places(votes)
        else:
            assert self._votes is not None, "part() needs the votes of its cases"
            votes, case, label = self._votes, self._ballots.case, self._ballots.label
        rows = np.flatnonzero((case >= start) & (case < stop))
        positions = np.array([known.position for known in self._labels], dtype=np.int64)
        at = first[case[rows].astype(np.int64) - start] + positions[label[rows]]
        chosen = (
            votes.select("function_id", "kind", "value", "evidence")[rows]
            .with_columns(pl.Series("at", at))
            .sort("at", "function_id", "kind", "value", "evidence")
        )
        counts = np.bincount(chosen["at"].to_numpy(), minlength=int(first[-1]))
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), type=pa.int64())
        items = chosen.drop("at").to_struct("items").to_arrow()
        return pl.Series("evidence", pl.from_arrow(pa.LargeListArray.from_arrays(offsets, items))).cast(VOTE_EVIDENCE)


def aggregate(
    votes: pl.DataFrame | VoteTables,
    scope: pl.DataFrame,
    *,
    exams: pl.DataFrame,
    label_sets: Mapping[str, LabelSet],
    readings: pl.DataFrame,
    settings: AggregateSettings,
) -> Aggregated:
    """Judge every exam and label of the scope.

    Args:
        votes: `reportlabel.schema.EXAM_VOTES`; or what gives such tables one after the other, as often as it is called.
            Then `Aggregated.part` needs the votes of its cases.
        scope: exam_id, label_set: every exam with every label set that fits it, once.
        exams: exam_id, patient_id, modality_class; all exams of the scope.
        label_sets: id -> label set; those of the scope.
        readings: exam_id, label_set, finding, value: what readers settled, may be empty; ``review_state`` (reviewed or
            adjudicated) and ``teaches`` (whether the models may learn from it; they may where it does not say) if
            known. Where readers disagree the label is uncertain and teaches nothing. Readings of other exams, label
            sets and labels that are no status are not looked at.
        settings: `reportlabel.aggregate.settings.load_settings`.

    Raises:
        InputError: a column is missing, a case stands twice in the scope or has no exam or label set, or a vote is
            about none; names the table and how many rows.
    """
    table_of_votes = votes if isinstance(votes, pl.DataFrame) else None
    tables: VoteTables = (lambda: (table_of_votes,)) if table_of_votes is not None else votes  # type: ignore[assignment]
    for name, table, columns in (
        (
            "votes",
            table_of_votes,
            ("exam_id", "label_set", "finding", "function_id", "value", "confidence", "group", "kind"),
        ),
        ("scope", scope, ("exam_id", "label_set")),
        ("exams", exams, ("exam_id", "patient_id", "modality_class")),
        ("readings", readings, ("exam_id", "label_set", "finding", "value")),
    ):
        missing = [column for column in columns if table is not None and column not in table.columns]
        if missing:
            raise InputError(f"{name}: column {', '.join(missing)} is missing; run the stage before again")
    used = {name: label_sets[name] for name in label_sets if name in set(scope["label_set"].unique())}
    labels = labels_of(used)
    cases = cases_of(scope, exams, used)
    ballots = Ballots(tables, scope, labels, used)
    settled = settled_of(readings, cases, labels, settings)
    judged: list[Judged] = []
    choices: list[dict[str, object]] = []
    analysis = [pl.DataFrame(schema=ANALYSIS)]
    for number, label in enumerate(labels):
        ballot = ballots.of(number)
        members = cases.members[label.label_set]
        reading = settled[number]
        gold = reading.reviewed(settings.choice.folds)
        choice = choose(
            ballot,
            strata=cases.strata[ballot.cases],
            unspoken_cases=cases.by_stratum(members) - cases.by_stratum(ballot.cases),
            reviewed=gold,
            reviewed_strata=cases.strata[gold.cases],
            modality_classes=cases.modality_classes,
            settings=settings,
        )
        found = judge(ballot, choice, settings).with_readings(
            reading.cases, reading.values, reading.probability, reading.states
        )
        judged.append(found)
        choices.append(_choice_row(ballot, choice, gold))
        analysis.append(analyse(ballot, choice, gold, cases=len(members)))
    judged = derive_none_of_others(judged, labels, used, cases.strata)
    for row, found, label in zip(choices, judged, labels, strict=True):
        row["prevalence"] = _prevalence(found, cases, cases.members[label.label_set])
    return Aggregated(
        choices=pl.DataFrame(choices, schema=CHOICES),
        analysis=pl.concat(analysis),
        _cases=cases,
        _ballots=ballots,
        _votes=table_of_votes,
        _labels=labels,
        _judged=judged,
    )


def _prevalence(found: Judged, cases: Cases, members: Integers) -> float:
    """Mean probability of the cases."""
    silent = cases.by_stratum(members) - cases.by_stratum(found.cases.astype(np.int64))
    return float(found.p_present.sum(dtype=np.float64) + silent @ found.p_unspoken) / len(members)


def _choice_row(ballot: Ballot, choice: Choice, gold: Reviewed) -> dict[str, object]:
    compared = choice.comparison
    groups = [
        [ballot.functions[number].id for number in np.flatnonzero(choice.groups == group)]
        for group in np.unique(choice.groups)
    ]
    return {
        "label_set": ballot.label.label_set,
        "finding": ballot.label.finding,
        "method": choice.method,
        "n_reviewed": len(gold.truth),
        "n_present": int(gold.truth.sum()),
        **{
            name: getattr(compared, name) if compared else None
            for name in ("f1_a", "f1_b", "brier_a", "brier_b", "ece_a", "ece_b")
        },
        "calibration": choice.calibration.method,
        "n_functions": len(ballot.functions),
        "groups": sorted(groups),
    }
