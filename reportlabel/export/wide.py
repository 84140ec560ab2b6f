"""The view that training code wants: one row an image, one column a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from reportlabel.export.targets import VALUES
from reportlabel.rulebook.models import LabelSet

Matrix = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Wide:
    """Rows of one label set and split.

    Attributes:
        keys: one row an image: image (path, or what stands for it), path, series_instance_uid, exam_id, patient_id,
            site, study_instance_uid.
        findings: the columns of the matrices.
        codes: position of the value in :data:`reportlabel.export.targets.VALUES`.
        p_present: NaN where the label has none.
        target: 1, 0, a probability; NaN where it does not count.
        mask, weight: 0 where the target does not count.
        values: one column a label that is no status (size, side, stage).
    """

    split: str
    keys: pl.DataFrame
    findings: tuple[str, ...]
    codes: Codes
    p_present: Matrix
    target: Matrix
    mask: Codes
    weight: Matrix
    values: pl.DataFrame

    @property
    def filled(self) -> Matrix:
        """The targets with 0 where they do not count: NaN times a mask of 0 is still NaN."""
        return np.where(self.mask == 1, self.target, 0.0)


Parts = Iterable[Wide]
FormatWriter = Callable[[Path, LabelSet, Parts], dict[str, int]]
"""Writes one label set into a folder; returns the rows of each file, by path from the folder."""


def widen(teacher: pl.DataFrame, label_set: LabelSet) -> Wide:
    """Rows of the canonical table of whole exams of one label set and split, as matrices.

    With images every image is a row and an exam without one has none; without an images table every exam is a row, and
    ``image`` is its study_instance_uid, else its accession_number, else its exam_id.
    """
    statuses, others = len(label_set.findings), len(label_set.values)
    width = statuses + others
    exams = teacher.gather_every(width)
    by_image = exams["images"].null_count() == 0 and exams.height > 0
    keys = exams.select(
        pl.coalesce("study_instance_uid", "accession_number", "exam_id").alias("image"),
        "images",
        "exam_id",
        "patient_id",
        "site",
        "study_instance_uid",
    ).with_row_index("exam")
    if by_image:
        keys = keys.filter(pl.col("images").list.len() > 0).explode("images")
    keys = keys.with_columns(
        pl.col("images").struct.field("path").alias("path") if by_image else _null("path"),
        pl.col("images").struct.field("series_instance_uid") if by_image else _null("series_instance_uid"),
    ).with_columns(pl.coalesce("path", "image").alias("image"))
    at = keys["exam"].to_numpy()

    def matrix(column: pl.Series) -> npt.NDArray[np.float64]:
        rows = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        return rows.reshape(exams.height, width)[at, :statuses]

    code = teacher["value"].replace_strict({value: at for at, value in enumerate(VALUES)}, default=None)
    values = teacher["value"].to_numpy().reshape(exams.height, width)[at, statuses:]
    return Wide(
        split=str(teacher["split"][0]),
        keys=keys.select("image", "path", "series_instance_uid", "exam_id", "patient_id", "site", "study_instance_uid"),
        findings=tuple(entry.id for entry in label_set.findings),
        codes=matrix(code).astype(np.int8),
        p_present=matrix(teacher["p_present"]),
        target=matrix(teacher["policy_value"]),
        mask=matrix(teacher["loss_mask"]).astype(np.int8),
        weight=matrix(teacher["sample_weight"]),
        values=pl.DataFrame(
            {entry.id: values[:, column].tolist() for column, entry in enumerate(label_set.values)},
            schema={entry.id: pl.String for entry in label_set.values},
        ),
    )


def _null(name: str) -> pl.Expr:
    return pl.lit(None, dtype=pl.String).alias(name)
