"""Record votes that may be inputs of a model.

A model that is to read images may not be given what was known only after the reading: the pathology of next week would
give the answer away. What was read from the report is the answer itself. So a vote may be an input only if it is of a
linked record and that record is known to have been there when the report was signed.
"""

from __future__ import annotations

import polars as pl

FEATURES = pl.Schema(
    [
        ("exam_id", pl.String),
        ("label_set", pl.String),
        ("finding", pl.String),
        ("function_id", pl.String),
        ("value", pl.String),
        ("confidence", pl.Float64),
        ("group", pl.String),
        ("kind", pl.String),
        ("evidence", pl.String),
        ("available_at_reading", pl.Boolean),
    ]
)
"""One row a record vote: the columns of the votes table, so that what is written can be checked again."""

_KEY = ("label_set", "exam_id", "finding", "function_id", "evidence", "value")


class LeakageError(ValueError):
    """Rows that a model may not see were about to be written as its inputs."""


def _allowed() -> pl.Expr:
    """True only where both are known and right; null, which says nothing, does not pass."""
    return ((pl.col("kind") == "record") & pl.col("available_at_reading")).fill_null(False)


def input_features(votes: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    """The votes that may be inputs of a model, in a fixed order.

    Args:
        votes: the votes table of a workspace; :data:`reportlabel.schema.EXAM_VOTES`.

    Returns:
        :data:`FEATURES`; only votes of kind ``record`` whose ``available_at_reading`` is true.
    """
    rows = votes.lazy().select(FEATURES.names()).filter(_allowed()).collect()
    return rows.cast(FEATURES).unique().sort(_KEY)


def check_features(features: pl.DataFrame) -> pl.DataFrame:
    """The same table, if nothing in it may leak.

    Raises:
        LeakageError: a row is not of a record, or not known to have been available.
    """
    if features.schema != FEATURES:
        raise LeakageError(f"columns {list(features.schema)} are not those of the features table")
    leaks = features.filter(~_allowed()).height
    if leaks:
        raise LeakageError(f"{leaks} rows are no records that were available at reading; nothing was written")
    return features
