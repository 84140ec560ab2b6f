"""What readers settled, as the label model takes it: the last word of each, the adjudicator before them.

Who adjudicates, and which exams were chosen because something is doubtful, stands in the ledger of the workspace. Only
exams that were drawn at random (`reportlabel.review.reasons.drawn_exams`) teach label model and calibration; see
docs/how-to/agreement.md.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl

from reportlabel.review.ledger import LEDGER_FILE, Ledger
from reportlabel.review.readers import SETTLED, settled
from reportlabel.review.reasons import drawn_exams

_KEY = ["exam_id", "label_set", "finding"]


def gold_readings(workspace_folder: Path, readings: pl.DataFrame) -> pl.DataFrame:
    """The readings that count (`reportlabel.review.readers.SETTLED`), for `reportlabel.aggregate.combine.aggregate`.

    Readings of exams that were never chosen here (pulled by something else) teach, and so do those drawn at random.

    Args:
        workspace_folder: with or without a ledger.
        readings: `reportlabel.schema.READINGS`.

    Raises:
        InputError: a column is missing. ConfigError: the ledger cannot be opened.
    """
    if readings.is_empty() or not (workspace_folder / LEDGER_FILE).is_file():
        return settled(readings)
    with Ledger(workspace_folder) as ledger:
        adjudicators, chosen = ledger.people("adjudicator"), ledger.chosen()
        drawn = drawn_exams(chosen, seed=ledger.key()).with_columns(teaches=pl.lit(True))
    on = ["exam_id", "label_set"]
    teaching = chosen.select(on).join(drawn, on=on, how="left").with_columns(pl.col("teaches").fill_null(False))
    return (
        settled(readings, adjudicators=adjudicators)
        .drop("teaches")
        .join(teaching, on=on, how="left", maintain_order="left")
        .with_columns(pl.col("teaches").fill_null(True))
        .select(SETTLED.names())
    )


def fingerprint(gold: pl.DataFrame) -> str:
    """The same for the same readings that count; another where labels must be made anew."""
    return hashlib.sha256(gold.write_csv().encode()).hexdigest()


def read_values(labels: pl.DataFrame, gold: pl.DataFrame) -> pl.DataFrame:
    """Labels that are no status (size, side), with what readers settled about them.

    Where readers disagree what the report says stays, and the label counts as unreviewed.

    Args:
        labels: exam_id, label_set, finding, value, method, review_state and others.
        gold: of `gold_readings`.
    """
    agreed = (
        gold.group_by(_KEY)
        .agg(read=pl.col("value").first(), state=pl.col("review_state").first(), apart=pl.col("value").n_unique() > 1)
        .filter(~pl.col("apart"))
        .drop("apart")
    )
    is_read = pl.col("read").is_not_null()
    return (
        labels.join(agreed, on=_KEY, how="left", maintain_order="left")
        .with_columns(
            value=pl.coalesce("read", "value"),
            method=pl.when(is_read).then(pl.lit("reader")).otherwise("method"),
            review_state=pl.coalesce("state", "review_state"),
        )
        .select(labels.columns)
    )
