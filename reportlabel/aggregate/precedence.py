"""Labels by precedence: of all mentions that vote for a label the strongest status wins (order in the label set)."""

from __future__ import annotations

import polars as pl

from reportlabel.rulebook.load import Rulebook
from reportlabel.rulebook.models import LabelSet
from reportlabel.schema import LABELS
from reportlabel.vote.rules import supporting_mentions
from reportlabel.vote.values import value_labels

NOT_MENTIONED = "not_mentioned"
# Rules alone give no probability: 1, ½ and 0 only order the statuses. Nothing is said where nothing is mentioned.
_P_PRESENT = {"present": 1.0, "uncertain": 0.5, "absent": 0.0}


def label_reports(report_ids: pl.Series, mentions: pl.DataFrame, label_set: LabelSet, rules: Rulebook) -> pl.DataFrame:
    """One row a report and label, in the order of reports and of the label set.

    Args:
        report_ids: all reports, also those without a mention.
        mentions: mentions of these reports.

    Returns:
        The labels table; see :data:`reportlabel.schema.LABELS`. ``evidence`` holds the mentions of the winning status.
    """
    votes = supporting_mentions(mentions, label_set, rules)
    strength: dict[str, int] = {status: rank for rank, status in enumerate(label_set.precedence)}
    winners = _winners(votes, strength)
    winners = _derive_none_of_others(winners, label_set)
    unspoken = ["absent" if entry.else_absent else NOT_MENTIONED for entry in label_set.findings]
    order = pl.DataFrame({"finding": [entry.id for entry in label_set.findings], "unspoken": unspoken}).with_row_index(
        "label_order"
    )
    reports = pl.DataFrame({"report_id": report_ids.cast(pl.String)}).with_row_index("report_order")
    findings = (
        reports.join(order, how="cross")
        .join(winners, on=["report_id", "finding"], how="left")
        .with_columns(
            pl.coalesce("value", "unspoken").alias("value"),
            pl.col("value").replace_strict(_P_PRESENT, default=None, return_dtype=pl.Float64).alias("p_present"),
            pl.col("evidence").fill_null([]),
        )
    )
    values = (
        value_labels(report_ids, mentions, label_set, rules)
        .join(reports, on="report_id")
        .with_columns((pl.col("label_order") + len(label_set.findings)).cast(pl.UInt32))
    )
    return (
        pl.concat(
            [
                findings.select(*LABELS.names(), "report_order", "label_order"),
                values.select(*LABELS.names(), "report_order", "label_order"),
            ]
        )
        .sort("report_order", "label_order")
        .select(LABELS.names())
        .cast(LABELS)
    )


def _winners(votes: pl.DataFrame, strength: dict[str, int]) -> pl.DataFrame:
    ranked = votes.with_columns(pl.col("value").replace_strict(strength, return_dtype=pl.Int8).alias("rank"))
    return (
        ranked.filter(pl.col("rank") == pl.col("rank").min().over("report_id", "label"))
        .group_by("report_id", pl.col("label").alias("finding"), maintain_order=True)
        .agg(
            pl.col("value").first(),
            pl.struct("start", "end", "surface", "cue", "rule_id").unique(maintain_order=True).alias("evidence"),
        )
    )


def _derive_none_of_others(winners: pl.DataFrame, label_set: LabelSet) -> pl.DataFrame:
    """Normal studies: present where the report says so and nothing else is found, absent where something is."""
    for entry in label_set.findings:
        if not entry.none_of_others:
            continue
        others = (
            winners.filter(
                ~pl.col("finding").is_in([entry.id, *entry.except_for])
                & pl.col("value").is_in(["present", "uncertain"])
            )
            .select("report_id")
            .unique()
        )
        own = winners.filter(pl.col("finding") == entry.id)
        kept = own.join(others, on="report_id", how="anti").filter(pl.col("value") == "present")
        denied = others.select(
            "report_id",
            pl.lit(entry.id).alias("finding"),
            pl.lit("absent").alias("value"),
            pl.lit([], dtype=winners.schema["evidence"]).alias("evidence"),
        )
        winners = pl.concat([winners.filter(pl.col("finding") != entry.id), kept, denied])
    return winners
