"""What a change of the rules does to the labels of reports: which labels change, and by which rule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from reportlabel.annotate.annotator import Annotator
from reportlabel.flow import label_batch
from reportlabel.rulebook.load import Rulebook, find_label_set

_WORDS = pl.List(pl.String())
CHANGES = pl.Schema(
    {
        "row": pl.Int64(),
        "report_id": pl.String(),
        "finding": pl.String(),
        "old_value": pl.String(),
        "new_value": pl.String(),
        "old_rules": _WORDS,
        "new_rules": _WORDS,
        "old_cues": _WORDS,
        "new_cues": _WORDS,
        "rules": _WORDS,
    }
)
"""One row a report and label whose value changed. ``row`` is that of the report in its file (from 1).

``old_rules`` and ``new_rules`` are the rule ids of the evidence; a value is null where the label set lacks the label.
``rules`` are those that only one side has; where both have the same, the words were found alike and read otherwise
(cues, sites, context, the label set), and all of them are given.
"""


@dataclass(frozen=True)
class Diff:
    """The labels that differ between two rulebooks.

    Attributes:
        changes: see :data:`CHANGES`, in order of the reports and of the label set.
        reports: number of reports compared.
    """

    changes: pl.DataFrame
    reports: int

    @property
    def changed_reports(self) -> int:
        return self.changes["report_id"].n_unique()

    def by_finding(self) -> pl.DataFrame:
        """Columns finding, old_value, new_value, reports; in order of the label set, frequent changes first."""
        counts = self.changes.group_by("finding", "old_value", "new_value").agg(pl.len().alias("reports"))
        order = self.changes.select("finding").unique(maintain_order=True).with_row_index("order")
        return (
            counts.join(order, on="finding")
            .sort(["order", "reports", "old_value", "new_value"], descending=[False, True, False, False])
            .drop("order")
        )

    def by_rule(self) -> pl.DataFrame:
        """Columns rule, labels (changed labels that the rule had part in); frequent ones first."""
        return (
            self.changes.select(pl.col("rules").alias("rule"))
            .explode("rule")
            .drop_nulls()
            .group_by("rule")
            .agg(pl.len().alias("labels"))
            .sort(["labels", "rule"], descending=[True, False])
        )


def diff_rules(old: Rulebook, new: Rulebook, reports: pl.DataFrame, *, label_set: str) -> Diff:
    """Label reports by two rulebooks and compare.

    Args:
        reports: columns ``report_id``, ``text`` and, where the rows are not counted from 1, ``row``.
        label_set: id of a label set that both rulebooks have.

    Raises:
        ConfigError: one of them has no such label set.
    """
    return diff_batches(old, new, [reports], label_set=label_set)


def diff_batches(old: Rulebook, new: Rulebook, batches: Iterable[pl.DataFrame], *, label_set: str) -> Diff:
    """As :func:`diff_rules`, batch by batch: memory grows with the changes, not with the reports."""
    sides = [(Annotator(rules), find_label_set(rules, label_set)) for rules in (old, new)]
    changes = [pl.DataFrame(schema=CHANGES)]
    reports = 0
    for batch in batches:
        numbered = batch if "row" in batch.columns else batch.with_row_index("row", offset=reports + 1)
        before, after = (label_batch(batch, annotator, entries).labels for annotator, entries in sides)
        changes.append(compare_labels(before, after, rows=numbered))
        reports += batch.height
    return Diff(changes=pl.concat(changes), reports=reports)


def compare_labels(before: pl.DataFrame, after: pl.DataFrame, *, rows: pl.DataFrame) -> pl.DataFrame:
    """The labels whose value differs between two labels tables of the same reports; see :data:`CHANGES`.

    Args:
        rows: columns ``report_id`` and ``row``.
    """
    order = pl.concat([table.select("finding").unique(maintain_order=True) for table in (after, before)])
    order = order.unique(maintain_order=True).with_row_index("order")
    lists = ("old_rules", "new_rules", "old_cues", "new_cues")
    one_sided = pl.col("old_rules").list.set_symmetric_difference("new_rules")
    return (
        _side(before, "old")
        .join(_side(after, "new"), on=["report_id", "finding"], how="full", coalesce=True)
        .filter(pl.col("old_value").ne_missing(pl.col("new_value")))
        .join(rows.select(pl.col("report_id").cast(pl.String), "row"), on="report_id")
        .join(order, on="finding")
        .sort("row", "order")
        .with_columns(pl.col(lists).fill_null([]))
        .with_columns(
            pl.when(one_sided.list.len() > 0).then(one_sided).otherwise("new_rules").list.sort().alias("rules")
        )
        .select(CHANGES.names())
        .cast(CHANGES)
    )


def _side(labels: pl.DataFrame, side: str) -> pl.DataFrame:
    def of_evidence(field: str) -> pl.Expr:
        values = pl.col("evidence").list.eval(pl.element().struct.field(field).drop_nulls())
        return values.list.unique().list.sort()

    return labels.select(
        "report_id",
        "finding",
        pl.col("value").alias(f"{side}_value"),
        of_evidence("rule_id").alias(f"{side}_rules"),
        of_evidence("cue").alias(f"{side}_cues"),
    )
