"""Votes of the report itself: each exam's report is read by the rules, and every finding expression votes."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from reportlabel.annotate.annotator import Annotator
from reportlabel.rulebook.load import Rulebook
from reportlabel.rulebook.models import LabelSet
from reportlabel.schema import EXAM_MENTIONS, EXAM_VOTES
from reportlabel.vote.rules import supporting_mentions
from reportlabel.vote.values import value_labels

FUNCTION = "rule"
_VALUE_FUNCTION = "value"


@dataclass(frozen=True)
class ReportVotes:
    """What the reports of some exams say: mentions, votes for findings, and labels that are no status."""

    mentions: pl.DataFrame
    votes: pl.DataFrame


def report_votes(
    reports: pl.DataFrame,
    *,
    scope: pl.DataFrame,
    label_sets: dict[str, LabelSet],
    rules: Rulebook,
    annotator: Annotator,
) -> ReportVotes:
    """Read the reports that count and let them vote.

    Args:
        reports: report_id, exam_id, text; one row an exam.
        scope: exam_id, label_set: which label sets fit which exam. A report is read once for every region of them,
            because the region says where a finding lies when the report names no place.

    Returns:
        Mentions (`EXAM_MENTIONS`) and votes (`EXAM_VOTES`; labels that are no status have the function ``value/…``).
    """
    regions = {name: one.region for name, one in label_sets.items()}
    wanted = scope.with_columns(region=pl.col("label_set").replace_strict(regions, return_dtype=pl.String))
    mentions = [pl.DataFrame(schema=EXAM_MENTIONS)]
    votes = [pl.DataFrame(schema=EXAM_VOTES)]
    for region in sorted(set(regions.values())):
        fitting = wanted.filter(pl.col("region") == region)
        if fitting.is_empty():
            continue
        here = reports.join(fitting.select("exam_id").unique(), on="exam_id", how="semi", maintain_order="left")
        found = annotator.annotate(here.select("report_id", "text"), region=region)
        mentions.append(found.with_columns(region=pl.lit(region)).select(EXAM_MENTIONS.names()).cast(EXAM_MENTIONS))
        for name in sorted(set(fitting["label_set"])):
            exams = fitting.filter(pl.col("label_set") == name).select("exam_id")
            of_set = here.join(exams, on="exam_id", how="semi", maintain_order="left").select("report_id", "exam_id")
            own = found.join(of_set.select("report_id"), on="report_id", how="semi", maintain_order="left")
            votes.append(_finding_votes(own, of_set, label_sets[name], rules))
            votes.append(_value_votes(own, of_set, label_sets[name], rules))
    return ReportVotes(pl.concat(mentions), pl.concat(votes))


def _finding_votes(mentions: pl.DataFrame, exams: pl.DataFrame, label_set: LabelSet, rules: Rulebook) -> pl.DataFrame:
    return (
        supporting_mentions(mentions, label_set, rules)
        .join(exams, on="report_id", how="inner", maintain_order="left")
        .select(
            "exam_id",
            label_set=pl.lit(label_set.id),
            finding="label",
            function_id=pl.format("rule/{}", "rule_id"),
            value="value",
            confidence=pl.lit(1.0),
            group=pl.lit(FUNCTION),
            kind=pl.lit(FUNCTION),
            evidence=pl.format("{}-{}", "start", "end"),
            available_at_reading=pl.lit(None, dtype=pl.Boolean),
        )
        .cast(EXAM_VOTES)
    )


def _value_votes(mentions: pl.DataFrame, exams: pl.DataFrame, label_set: LabelSet, rules: Rulebook) -> pl.DataFrame:
    if not label_set.values:
        return pl.DataFrame(schema=EXAM_VOTES)
    first = pl.col("evidence").list.first()
    return (
        value_labels(exams["report_id"], mentions, label_set, rules)
        .filter(pl.col("value") != "not_mentioned")
        .join(exams, on="report_id", how="inner", maintain_order="left")
        .select(
            "exam_id",
            label_set=pl.lit(label_set.id),
            finding="finding",
            function_id=pl.format("value/{}", "finding"),
            value="value",
            confidence=pl.lit(1.0),
            group=pl.lit(_VALUE_FUNCTION),
            kind=pl.lit(FUNCTION),
            evidence=pl.concat_str(
                [first.struct.field("start").cast(pl.String), first.struct.field("end").cast(pl.String)], separator="-"
            ),
            available_at_reading=pl.lit(None, dtype=pl.Boolean),
        )
        .cast(EXAM_VOTES)
    )
