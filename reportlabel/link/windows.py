"""Exam and record: which records stand in the window of an exam, and whether its reader could know them.

Windows are days between the date of the exam and the date of the record, both ends included; dates are compared, not
times, because many records have a date only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from reportlabel.schema import LINKS

Choice = Literal["all", "nearest"]


@dataclass(frozen=True)
class Window:
    """Which records of a kind belong to an exam.

    Attributes:
        before, after: days; None: without end.
        choice: all records of the window, or of every code the nearest one (of two as near the one before the exam).
        overlap: for records that last (diagnoses, drugs): their time, not their start, meets the window. A record
            without an end lasts.
    """

    rule_id: str
    kind: str
    before: int | None
    after: int | None
    choice: Choice = "all"
    overlap: bool = False


def link_records(
    exams: pl.DataFrame, records: pl.DataFrame, windows: Sequence[Window], *, signed: pl.DataFrame
) -> pl.DataFrame:
    """Link every exam with the records of its patient that stand in a window.

    Args:
        exams: exam_id, patient_id, started_at.
        records: the records table.
        signed: exam_id, signed_at: when the report that counts was confirmed; exams without one have no reading.

    Returns:
        The links table, sorted by exam, rule, distance, record.
    """
    dated = exams.select("exam_id", "patient_id", exam_day=pl.col("started_at").dt.date())
    found = [_in_window(dated, records.filter(pl.col("kind") == window.kind), window) for window in windows]
    links = pl.concat([_EMPTY, *found]).join(
        signed.select("exam_id", "signed_at"), on="exam_id", how="left", maintain_order="left"
    )
    return (
        links.with_columns(available_at_reading=_available())
        .sort("exam_id", "rule_id", pl.col("delta_days").abs(), "delta_days", "record_id")
        .select(LINKS.names())
        .cast(LINKS)
    )


_EMPTY = pl.DataFrame(
    schema={
        "exam_id": pl.String,
        "record_id": pl.String,
        "rule_id": pl.String,
        "kind": pl.String,
        "delta_days": pl.Int32,
        "known_at": pl.Datetime("us"),
        "dated_only": pl.Boolean,
    }
)


def _in_window(exams: pl.DataFrame, records: pl.DataFrame, window: Window) -> pl.DataFrame:
    known = pl.coalesce("reported_at", "start_at")
    candidates = (
        exams.join(
            records.select(
                "patient_id",
                "record_id",
                "code",
                day=pl.col("start_at").dt.date(),
                until=pl.col("end_at").dt.date(),
                known_at=known,
                dated_only=known.dt.time() == pl.time(0, 0, 0),
            ),
            on="patient_id",
            how="inner",
        )
        .with_columns(delta_days=(pl.col("day") - pl.col("exam_day")).dt.total_days().cast(pl.Int32))
        .filter(_meets(window))
    )
    if window.choice == "nearest":
        candidates = candidates.sort("exam_id", "code", pl.col("delta_days").abs(), "delta_days", "record_id").unique(
            ["exam_id", "code"], keep="first", maintain_order=True
        )
    return candidates.select(
        "exam_id",
        "record_id",
        rule_id=pl.lit(window.rule_id),
        kind=pl.lit(window.kind),
        delta_days="delta_days",
        known_at="known_at",
        dated_only="dated_only",
    )


def _meets(window: Window) -> pl.Expr:
    """A record without a date meets no window: null is not true."""
    delta = pl.col("delta_days")
    inside = delta.is_not_null()
    if window.after is not None:
        inside &= delta <= window.after
    if window.before is None:
        return inside
    if not window.overlap:
        return inside & (delta >= -window.before)
    ended = (pl.col("until") - pl.col("exam_day")).dt.total_days()
    return inside & (ended.is_null() | (ended >= -window.before))


def _available() -> pl.Expr:
    """Whether the record was known when the report was signed; null where date or time to tell it is missing."""
    known, signed = pl.col("known_at"), pl.col("signed_at")
    by_day = known.dt.date() < signed.dt.date()
    later_day = known.dt.date() > signed.dt.date()
    return (
        pl.when(known.is_null() | signed.is_null())
        .then(None)
        .when(by_day)
        .then(True)
        .when(later_day)
        .then(False)
        .when(pl.col("dated_only"))
        .then(None)
        .otherwise(known <= signed)
    )
