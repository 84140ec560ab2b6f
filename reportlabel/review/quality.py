"""Which readings may be slips: label errors ranked with cleanlab (Northcutt, Jiang and Chuang, JAIR 2021).

A reading is suspected where votes that know nothing of it are sure of the opposite. Such exams are worth a second look,
nothing more: a reader may well be right against all votes.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import Any

import numpy as np
import polars as pl

from reportlabel.errors import ConfigError, InputError
from reportlabel.review.readers import settled

LABEL_ERRORS = pl.Schema(
    [
        ("exam_id", pl.String),
        ("label_set", pl.String),
        ("finding", pl.String),
        ("reader", pl.String),
        ("value", pl.String),
        ("p_present", pl.Float64),
        ("quality", pl.Float64),
        ("suspected", pl.Boolean),
    ]
)
"""One row a reading that says present, or not (absent, not mentioned). ``p_present``: from votes alone. ``quality``: 0
for a slip, 1 for a sure reading. ``suspected``: counted among the errors by confident learning."""

_KEY = ["exam_id", "label_set", "finding"]
_NEEDED = 5  # readings of either value without which confident learning has no threshold


def label_errors(readings: pl.DataFrame, judged: pl.DataFrame, *, adjudicators: Collection[str] = ()) -> pl.DataFrame:
    """Rank readings, the most doubtful first (`LABEL_ERRORS`).

    Args:
        readings: `reportlabel.schema.READINGS`; uncertain ones are not ranked.
        judged: exam_id, label_set, finding, p_present: labels that were aggregated without these readings.

    Raises:
        ConfigError: cleanlab is not installed. InputError: the labels were made with readings, or lack a column.
    """
    missing = [name for name in (*_KEY, "p_present") if name not in judged.columns]
    if missing:
        raise InputError(f"labels: column {', '.join(missing)} is missing; run `reportlabel run` again")
    if "review_state" in judged.columns and (judged["review_state"] != "unreviewed").any():
        raise InputError("labels: they were made with readings, which cannot judge themselves; aggregate without them")
    rank, issues = _cleanlab()
    known = (
        settled(readings, adjudicators=adjudicators)
        .filter(pl.col("value").is_in(["present", "absent", "not_mentioned"]))
        .join(judged.select(*_KEY, "p_present").drop_nulls(), on=_KEY, how="inner")
    )
    parts = [pl.DataFrame(schema=LABEL_ERRORS)]
    for _, group in known.group_by("label_set", "finding", maintain_order=True):
        given = (group["value"] == "present").to_numpy().astype(np.int64)
        present = group["p_present"].to_numpy()
        chances = np.column_stack([1 - present, present])
        suspected = np.zeros(len(given), dtype=bool)
        if min(given.sum(), len(given) - given.sum()) >= _NEEDED:
            suspected = issues(given, chances, filter_by="confident_learning", n_jobs=1)
        scored = group.with_columns(
            pl.Series("quality", rank(given, chances, method="self_confidence")), pl.Series("suspected", suspected)
        )
        parts.append(scored.select(LABEL_ERRORS.names()).cast(LABEL_ERRORS))
    return pl.concat(parts).sort("suspected", "quality", *_KEY, "reader", descending=[True, *[False] * 5])


def _cleanlab() -> tuple[Any, Any]:
    try:
        rank, issues = (importlib.import_module(f"cleanlab.{name}") for name in ("rank", "filter"))
    except ImportError as error:
        message = "ranking readings needs the package cleanlab; run pip install 'reportlabel[review]'"
        raise ConfigError(message) from error
    return rank.get_label_quality_scores, issues.find_label_issues
