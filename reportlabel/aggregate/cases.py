"""The cases of a workspace (an exam and a label set that fits it), and what readers settled about them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from reportlabel.aggregate.ballots import Label
from reportlabel.aggregate.choose import Reviewed
from reportlabel.aggregate.label_model import ABSENT, PRESENT, Floats, Integers
from reportlabel.aggregate.settings import AggregateSettings
from reportlabel.aggregate.values import VALUES
from reportlabel.errors import InputError
from reportlabel.rulebook.models import LabelSet

REVIEW_STATES = ("unreviewed", "reviewed", "adjudicated")


@dataclass(frozen=True)
class Cases:
    """The rows of the scope.

    ``table``: exam_id, label_set, patient_id. ``strata``: number of the modality class of each. ``members``: label set
    -> its cases, ascending. ``sizes``: labels of each case.
    """

    table: pl.DataFrame
    strata: Integers
    modality_classes: list[str | None]
    members: dict[str, Integers]
    sizes: Integers

    def by_stratum(self, cases: Integers) -> Integers:
        """How many of the cases each modality class has."""
        return np.bincount(self.strata[cases], minlength=len(self.modality_classes))


def cases_of(scope: pl.DataFrame, exams: pl.DataFrame, label_sets: Mapping[str, LabelSet]) -> Cases:
    """Check the scope (exam_id, label_set) and add what the exams table knows.

    Raises:
        InputError: a case stands twice, or has no exam or label set; an exam stands twice.
    """
    keys = scope.select("exam_id", "label_set")
    twice = len(keys) - keys.n_unique() if len(keys) else 0
    if twice:
        raise InputError(f"scope: {twice} rows stand twice; each exam and label set stands in it once")
    known = exams.select("exam_id", "patient_id", "modality_class", pl.lit(True).alias("known"))
    if known["exam_id"].n_unique() < len(known):
        raise InputError("exams: an exam stands in it twice; run the ingest stage again")
    table = keys.join(known, on="exam_id", how="left", maintain_order="left")
    alone = int(table["known"].null_count())
    if alone:
        raise InputError(f"scope: {alone} rows name an exam that is not in the exams table; run the ingest stage again")
    unknown = int((~table["label_set"].is_in(list(label_sets))).sum())
    if unknown:
        raise InputError(f"scope: {unknown} rows name a label set that is not among the rules")
    classes: list[str | None] = table["modality_class"].unique().sort().to_list()
    numbers = {name: number for number, name in enumerate(classes)}
    strata = table["modality_class"].replace_strict(numbers, return_dtype=pl.Int64).to_numpy().astype(np.int64)
    sizes = {name: len(label_set.findings) for name, label_set in label_sets.items()}
    return Cases(
        table=table.select("exam_id", "label_set", pl.col("patient_id").fill_null(pl.col("exam_id"))),
        strata=strata,
        modality_classes=classes,
        members={
            name: table.select(pl.arg_where(pl.col("label_set") == name)).to_series().to_numpy().astype(np.int64)
            for name in label_sets
        },
        sizes=table["label_set"].replace_strict(sizes, return_dtype=pl.Int64).to_numpy().astype(np.int64),
    )


@dataclass(frozen=True)
class Settled:
    """What readers settled for one label: cases ascending, index into VALUES, probability, index into REVIEW_STATES.

    ``teaches``: whether label model and calibration may learn from the case.
    """

    cases: Integers
    values: npt.NDArray[np.int8]
    probability: Floats
    states: npt.NDArray[np.int8]
    teaches: npt.NDArray[np.bool_]
    patients: Sequence[str]

    def reviewed(self, folds: int) -> Reviewed:
        """The exams that teach. Who does not mention a finding denies it; who is uncertain says nothing."""
        sure = self.teaches & (self.values != VALUES.index("uncertain"))
        truth = np.where(self.values[sure] == VALUES.index("present"), PRESENT, ABSENT)
        names = [self.patients[number] for number in np.flatnonzero(sure)]
        return Reviewed(
            self.cases[sure],
            truth.astype(np.int64),
            np.array([fold_of(name, folds) for name in names], dtype=np.int64),
        )


def fold_of(patient_id: str, folds: int) -> int:
    """The fold of a patient: the same in every run, and unrelated to the order of the ids."""
    return int.from_bytes(hashlib.blake2b(patient_id.encode(), digest_size=8).digest(), "big") % folds


def settled_of(
    readings: pl.DataFrame, cases: Cases, labels: Sequence[Label], settings: AggregateSettings
) -> list[Settled]:
    """What readers settled, for each of ``labels``; see `reportlabel.aggregate.combine.aggregate`.

    Raises:
        InputError: a reading of a label has no valid value or review state.
    """
    if "review_state" not in readings.columns:
        readings = readings.with_columns(pl.lit(REVIEW_STATES[1]).alias("review_state"))
    if "teaches" not in readings.columns:
        readings = readings.with_columns(pl.lit(True).alias("teaches"))
    places = pl.DataFrame(
        {
            "label_set": [label.label_set for label in labels],
            "finding": [label.finding for label in labels],
            "label": list(range(len(labels))),
        },
        schema={"label_set": pl.String, "finding": pl.String, "label": pl.Int64},
    )
    here = readings.select("exam_id", "label_set", "finding", "value", "review_state", "teaches").join(
        places, on=["label_set", "finding"], how="inner"
    )
    wrong = here.select(
        value=(~pl.col("value").is_in(VALUES)).fill_null(True).sum(),
        review_state=(~pl.col("review_state").is_in(REVIEW_STATES[1:])).fill_null(True).sum(),
    ).row(0, named=True)
    for column, number in wrong.items():
        if number:
            raise InputError(f"readings: {number} rows have no valid {column}; pull the readings again")
    worth = {value: getattr(settings.readings, value) for value in VALUES}
    settled = (
        here.join(cases.table.with_row_index("case"), on=["exam_id", "label_set"], how="inner")
        .with_columns(
            pl.col("value").replace_strict(worth, return_dtype=pl.Float64).alias("p"),
            pl.col("value").replace_strict({v: n for n, v in enumerate(VALUES)}, return_dtype=pl.Int8).alias("code"),
            pl.col("review_state")
            .replace_strict({v: n for n, v in enumerate(REVIEW_STATES)}, return_dtype=pl.Int8)
            .alias("state"),
        )
        .group_by("label", "case")
        .agg(
            pl.when(pl.col("code").n_unique() == 1)
            .then(pl.col("code").first())
            .otherwise(VALUES.index("uncertain"))
            .cast(pl.Int8)
            .alias("code"),
            pl.col("p").sort().mean(),
            pl.col("state").max(),
            # of readers who disagree on what may be learnt from, the one who forbids it is heard
            pl.col("teaches").fill_null(False).all(),
            pl.col("patient_id").first(),
        )
        .sort("label", "case")
    )
    parts = {int(key[0]): part for key, part in settled.partition_by("label", as_dict=True).items()}
    empty = settled.clear()
    return [
        Settled(
            part["case"].to_numpy().astype(np.int64),
            part["code"].to_numpy(),
            part["p"].to_numpy(),
            part["state"].to_numpy(),
            part["teaches"].to_numpy(),
            part["patient_id"].to_list(),
        )
        for part in (parts.get(number, empty) for number in range(len(labels)))
    ]
