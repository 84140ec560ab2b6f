"""Exam and record: which records stand in the window of an exam, and whether its reader could know them.

A patient is a site and a number: the same number in another hospital is another person.

Windows are days between the date of the exam and the date of the record, both ends included; dates are compared, not
times, because many records have a date only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from reportlabel.schema import LINKS

Choice = Literal["all", "nearest"]
Unended = Literal["lasts", "ends"]


@dataclass(frozen=True)
class Window:
    """Which records of a kind belong to an exam.

    Attributes:
        rule_id: what the rows of the links table carry.
        before, after: days; None: without end. A negative number moves the edge over the exam: ``after=-1`` ends the
            day before it.
        choice: all records of the window, or of every code (without a code: of every name) the nearest one, of two as
            near the one before the exam.
        overlap: for records that last (diagnoses, drugs): their time, not their start, meets the window.
        unended: what a record without an end does in a window with ``overlap``: it lasts, or it ends as it starts.
        codes, names: only records whose code begins with one of the codes, or whose name holds one of the names.
            Blanks and dots of codes, and case, width and blanks of names do not count. Both empty: all records.
    """

    rule_id: str
    kind: str
    before: int | None
    after: int | None
    choice: Choice = "all"
    overlap: bool = False
    unended: Unended = "lasts"
    codes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def link_records(
    exams: pl.DataFrame, records: pl.DataFrame, windows: Sequence[Window], *, signed: pl.DataFrame
) -> pl.DataFrame:
    """Link every exam with the records of its patient that stand in a window.

    Args:
        exams: exam_id, site, patient_id, started_at. A site that is null is that of records whose site is null.
        records: the records table.
        signed: exam_id, signed_at: when the report that counts was confirmed, at 00:00 where only the day is known;
            exams without one have no reading.

    Returns:
        The links table, sorted by exam, rule, distance, record.
    """
    dated = exams.select("exam_id", *_PERSON, exam_day=pl.col("started_at").dt.date())
    found = [
        _in_window(dated, records.filter(pl.col("kind") == window.kind, _meant(window)), window) for window in windows
    ]
    links = pl.concat([_EMPTY, *found]).join(
        signed.select("exam_id", "signed_at"), on="exam_id", how="left", maintain_order="left"
    )
    return (
        links.with_columns(available_at_reading=_available())
        .sort("exam_id", "rule_id", pl.col("delta_days").abs(), "delta_days", "record_id")
        .select(LINKS.names())
        .cast(LINKS)
    )


_PERSON = ("site", "patient_id")

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
            # nulls are equal for the sake of the site; who has no number is nobody
            records.filter(pl.col("patient_id").is_not_null()).select(
                *_PERSON,
                "record_id",
                what=pl.coalesce("code", "name"),
                day=pl.col("start_at").dt.date(),
                until=pl.col("end_at").dt.date(),
                known_at=known,
                dated_only=_is_day(known),
            ),
            on=_PERSON,
            how="inner",
            nulls_equal=True,
        )
        .with_columns(delta_days=(pl.col("day") - pl.col("exam_day")).dt.total_days().cast(pl.Int32))
        .filter(_meets(window))
    )
    if window.choice == "nearest":
        candidates = candidates.sort("exam_id", "what", pl.col("delta_days").abs(), "delta_days", "record_id").unique(
            ["exam_id", "what"], keep="first", maintain_order=True
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
    if window.unended == "ends":
        return inside & (pl.coalesce(ended, delta) >= -window.before)
    return inside & (ended.is_null() | (ended >= -window.before))


def _meant(window: Window) -> pl.Expr:
    if not window.codes and not window.names:
        return pl.lit(True)
    code, name = plain_code(pl.col("code")), plain_name(pl.col("name"))
    meant = [
        *(code.str.starts_with(start) for start in _plain(window.codes, plain_code)),
        *([name.str.contains_any(_plain(window.names, plain_name))] if window.names else []),
    ]
    return pl.any_horizontal(meant).fill_null(False)


def _plain(words: Sequence[str], plain: Callable[[pl.Expr], pl.Expr]) -> list[str]:
    return (
        pl.DataFrame({"word": list(words)}, schema={"word": pl.String}).select(plain(pl.col("word")))["word"].to_list()
    )


def plain_code(code: pl.Expr) -> pl.Expr:
    """A code as codes are compared: upper case, without blanks and dots (``K514-2 3``: K514-23; ``c34.1``: C341)."""
    return code.str.to_uppercase().str.replace_all(r"[\s.]", "")


def plain_name(name: pl.Expr) -> pl.Expr:
    """A name as names are compared: NFKC, small letters, without blanks."""
    return name.str.normalize("NFKC").str.to_lowercase().str.replace_all(r"\s", "")


def _is_day(when: pl.Expr) -> pl.Expr:
    """Readers give a day without a time as its midnight."""
    return when.dt.time() == pl.time(0, 0, 0)


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
        .when(pl.col("dated_only") | _is_day(signed))
        .then(None)
        .otherwise(known <= signed)
    )
