"""Rule votes: from mentions to one vote a report and label of a label set.

A label-set entry is a finding or a union of findings. Only statements about this exam vote: what was asked, what was
only on an earlier exam, and conditions do not.
"""

from __future__ import annotations

import polars as pl

from reportlabel.rulebook.load import Rulebook
from reportlabel.rulebook.models import LabelSet
from reportlabel.schema import VOTES

FUNCTION = "rule"


def label_of_finding(label_set: LabelSet, rules: Rulebook) -> pl.DataFrame:
    """Which statuses of which findings vote for which labels: columns finding, status, label, value.

    A finding of ``any_of`` votes with every status. One that implies it (``implied_by``, followed to the end) votes
    only with present and uncertain: that a consequence is denied does not deny the cause. One in ``denial_of`` votes
    present where it is denied; one in ``denied_by`` votes absent where it is denied.
    """
    rows: dict[tuple[str, str, str], str] = {}
    for entry in label_set.findings:
        for finding in entry.any_of:
            for status in ("present", "uncertain", "absent"):
                rows[finding, status, entry.id] = status
            for implying in sorted(implied_by(finding, rules)):
                for status in ("present", "uncertain"):
                    rows.setdefault((implying, status, entry.id), status)
            known = rules.findings.get(finding)
            for denied in known.denial_of if known else []:
                rows[denied, "absent", entry.id] = "present"
        for wider in entry.denied_by:
            rows.setdefault((wider, "absent", entry.id), "absent")
    return pl.DataFrame(
        [(finding, status, label, value) for (finding, status, label), value in rows.items()],
        schema={"finding": pl.String, "status": pl.String, "label": pl.String, "value": pl.String},
        orient="row",
    )


def implied_by(finding: str, rules: Rulebook) -> set[str]:
    """All findings whose presence means that this one is there, followed to the end."""
    found: set[str] = set()
    waiting = [finding]
    while waiting:
        known = rules.findings.get(waiting.pop())
        for implying in known.implied_by if known else []:
            if implying not in found:
                found.add(implying)
                waiting.append(implying)
    return found - {finding}


def supporting_mentions(mentions: pl.DataFrame, label_set: LabelSet, rules: Rulebook) -> pl.DataFrame:
    """The mentions that vote: one row a mention and label, with columns ``label`` and ``value`` added."""
    votes = mentions.filter(pl.col("temporality") == "current").join(
        label_of_finding(label_set, rules), on=["finding", "status"], how="inner", maintain_order="left"
    )
    limited = {entry.id: frozenset(entry.at) for entry in label_set.findings if entry.at}
    if not limited:
        return votes
    return votes.filter(~_outside(votes, limited, rules.site_parents))


def _outside(votes: pl.DataFrame, limited: dict[str, frozenset[str]], parents: dict[str, frozenset[str]]) -> pl.Series:
    """Mentions whose site lies outside the sites their label is limited to; a mention without a site passes."""
    pairs = votes.select("label", "site").unique()
    outside = [
        label in limited
        and site is not None
        and not any(not limited[label].isdisjoint(parents.get(part, {part})) for part in site.split(";"))
        for label, site in pairs.iter_rows()
    ]
    known = pairs.with_columns(pl.Series("outside", outside, dtype=pl.Boolean))
    return votes.join(known, on=["label", "site"], how="left", nulls_equal=True, maintain_order="left")[
        "outside"
    ].fill_null(False)


def rule_votes(mentions: pl.DataFrame, label_set: LabelSet, rules: Rulebook) -> pl.DataFrame:
    """The votes table: one row a voting mention."""
    return (
        supporting_mentions(mentions, label_set, rules)
        .select(
            pl.col("report_id"),
            pl.col("label").alias("finding"),
            pl.format("rule/{}", pl.col("rule_id")).alias("function_id"),
            pl.col("value"),
            pl.lit(1.0).alias("confidence"),
            pl.lit(FUNCTION).alias("group"),
            pl.lit(FUNCTION).alias("kind"),
            pl.format("{}-{}", pl.col("start"), pl.col("end")).alias("evidence"),
        )
        .cast(VOTES)
    )
