"""Who reads which exam, without seeing what the others said, and what has to be settled where they disagree.

Who reads an exam is drawn by a hash keyed with a secret of the study: it stays the same when the exam is chosen again,
a new reader takes over only a share of the exams, and nobody can tell from an id who else reads it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import polars as pl

from reportlabel.errors import ConfigError, InputError
from reportlabel.review.reasons import hash_number
from reportlabel.schema import READINGS

ASSIGNED = pl.Schema([("exam_id", pl.String), ("label_set", pl.String), ("reader", pl.String), ("project", pl.String)])
"""One row an exam, label set and reader. ``project``: a project of one label set that only this reader sees."""

DISAGREEMENTS = pl.Schema(
    [
        ("exam_id", pl.String),
        ("label_set", pl.String),
        ("finding", pl.String),
        ("opinions", pl.List(pl.Struct({"letter": pl.String, "value": pl.String}))),
    ]
)
"""One row a label on which readers disagree. ``opinions``: what each said, under letters instead of names; which reader
is A is drawn anew for each exam, so that the adjudicator cannot learn who is who."""

SETTLED = pl.Schema(
    [
        ("exam_id", pl.String),
        ("label_set", pl.String),
        ("finding", pl.String),
        ("reader", pl.String),
        ("value", pl.String),
        ("review_state", pl.String),
        ("teaches", pl.Boolean),
    ]
)
"""The readings that count, for `reportlabel.aggregate.combine.aggregate`: one row a label and reader, or one of the
adjudicator. ``review_state``: reviewed or adjudicated. ``teaches``: whether label model and calibration may learn from
it."""

_KEY = ["exam_id", "label_set", "finding"]
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def assign(
    chosen: pl.DataFrame, readers: Sequence[str], *, overlap: float, key: str, readers_each: int = 2
) -> pl.DataFrame:
    """Give every exam to a reader, and a share of them to several (`ASSIGNED`).

    An exam goes to those readers whose hash with it is highest (rendezvous hashing, Thaler and Ravishankar 1998): with
    one more reader each of the others loses a like share and nothing else moves. All label sets of an exam go together.

    Args:
        chosen: exam_id, label_set (of `reportlabel.review.reasons.CHOSEN`).
        readers: names; fewer than ``readers_each``: all of them read what overlaps.
        overlap: share of the exams that ``readers_each`` readers read.
        key: secret of the study.

    Raises:
        ConfigError: no reader, a name stands twice or is empty, too many readers, or the share is none.
    """
    _check_readers(readers)
    if not 0 <= overlap <= 1:
        raise ConfigError(f"overlap {overlap}: give a share from 0 to 1")
    if readers_each < 2:
        raise ConfigError(f"readers_each {readers_each}: give 2 or more")
    if not key:
        raise ConfigError("the assignment of readers needs the secret key of the study; an empty key can be guessed")
    rows = []
    for exam in sorted(chosen["exam_id"].unique()):
        ranked = sorted(readers, key=lambda reader: (-hash_number(key, f"reader\0{reader}\0{exam}"), reader))
        number = readers_each if hash_number(key, f"overlap\0{exam}") < overlap else 1
        rows += [(exam, reader) for reader in ranked[:number]]
    of_exam = pl.DataFrame(rows, schema={"exam_id": pl.String, "reader": pl.String}, orient="row")
    letters = {reader: letter_of(readers, reader) for reader in readers}
    return (
        chosen.select("exam_id", "label_set")
        .unique(maintain_order=True)
        .join(of_exam, on="exam_id", how="inner", maintain_order="left_right")
        .with_columns(
            project=pl.format(
                "{}-reader-{}", "label_set", pl.col("reader").replace_strict(letters, return_dtype=pl.String)
            )
        )
        .select(ASSIGNED.names())
        .cast(ASSIGNED)
    )


def letter_of(readers: Sequence[str], reader: str) -> str:
    """The letter of a reader in the names of projects: their place in the list, so that no name stands there."""
    return _LETTERS[list(readers).index(reader)]


def _check_readers(readers: Sequence[str]) -> None:
    if not readers:
        raise ConfigError("no reader is named; give at least one")
    if len(set(readers)) < len(readers) or not all(reader.strip() for reader in readers):
        raise ConfigError("a reader is named twice, or has an empty name; give each reader a name of their own")
    if len(readers) > len(_LETTERS):
        raise ConfigError(f"{len(readers)} readers: there are letters for {len(_LETTERS)}")


def last_readings(readings: pl.DataFrame) -> pl.DataFrame:
    """The last word of every reader on every label: readings are append-only, a later one replaces an earlier one.

    Args:
        readings: `reportlabel.schema.READINGS`.

    Raises:
        InputError: a column is missing.
    """
    missing = [name for name in READINGS.names() if name not in readings.columns]
    if missing:
        raise InputError(f"readings: column {', '.join(missing)} is missing; pull the readings again")
    return (
        readings.sort("read_at", "annotation_id", nulls_last=False)
        .unique([*_KEY, "reader"], keep="last", maintain_order=True)
        .filter(pl.col("value").is_not_null())
        .sort(*_KEY, "reader")
    )


def disagreements(readings: pl.DataFrame, *, key: str, adjudicators: Collection[str] = ()) -> pl.DataFrame:
    """The adjudication queue: exactly the labels on which readers disagree and no adjudicator has spoken.

    Args:
        readings: `reportlabel.schema.READINGS`.
        key: secret of the study; hides who is A and who is B.
        adjudicators: names whose word settles a label; they are no readers here.

    Returns:
        `DISAGREEMENTS`, in the order of exam, label set and finding.
    """
    last = last_readings(readings)
    is_adjudicator = pl.col("reader").is_in(list(adjudicators))
    apart = (
        last.filter(~is_adjudicator)
        .filter(pl.col("value").n_unique().over(_KEY) > 1)
        .join(last.filter(is_adjudicator), on=_KEY, how="anti")
    )
    rows = []
    for (exam, label_set, finding), group in apart.sort(*_KEY, "reader").group_by(_KEY, maintain_order=True):
        said = sorted(
            group.select("reader", "value").iter_rows(), key=lambda row: hash_number(key, f"letter\0{exam}\0{row[0]}")
        )
        opinions = [{"letter": _LETTERS[place], "value": value} for place, (_, value) in enumerate(said)]
        rows.append((exam, label_set, finding, opinions))
    return pl.DataFrame(rows, schema=DISAGREEMENTS, orient="row")


def adjudication(queue: pl.DataFrame) -> pl.DataFrame:
    """The queue as exams for a project of its own: exam_id, label_set, reason, priority, findings.

    ``priority``: 1 is read first; exams with more disagreements come first. ``findings``: the labels to settle.
    """
    return (
        queue.group_by("exam_id", "label_set", maintain_order=True)
        .agg(findings=pl.col("finding"), many=pl.len())
        .sort(["many", "exam_id", "label_set"], descending=[True, False, False])
        .with_row_index("priority", offset=1)
        .select(
            "exam_id",
            "label_set",
            pl.lit("disagreement").alias("reason"),
            pl.col("priority").cast(pl.Int32),
            "findings",
        )
    )


def settled(
    readings: pl.DataFrame, *, adjudicators: Collection[str] = (), audit: Collection[str] | None = None
) -> pl.DataFrame:
    """What counts as gold (`SETTLED`): the adjudicator's word where there is one, else the last word of every reader.

    Where readers disagree and nobody has adjudicated both rows stay, and `aggregate` makes the label uncertain.

    Args:
        audit: exams that were drawn at random (the reason ``audit``): they alone teach. Exams that were chosen because
            something is doubtful are no sample of all exams, and what learns from them takes the doubtful for the
            usual. None: all exams are a sample, for instance where readers read them all.
    """
    last = last_readings(readings)
    is_adjudicator = pl.col("reader").is_in(list(adjudicators))
    final = last.filter(is_adjudicator).sort("read_at").unique(_KEY, keep="last", maintain_order=True)
    return (
        pl.concat(
            [
                final.with_columns(review_state=pl.lit("adjudicated")),
                last.filter(~is_adjudicator)
                .join(final, on=_KEY, how="anti")
                .with_columns(review_state=pl.lit("reviewed")),
            ]
        )
        .sort(*_KEY, "reader")
        .with_columns(teaches=pl.lit(True) if audit is None else pl.col("exam_id").is_in(list(audit)))
        .select(SETTLED.names())
        .cast(SETTLED)
    )
