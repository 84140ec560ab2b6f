"""The order of the stages, and nothing else.

    archive -> ingest -> link -> annotate -> vote -> aggregate -> labels

Each stage is a plain function from tables to tables and can be run alone. The patients of one part go through all of
them before the next part is taken, so that memory does not grow with the archive; only the label model looks at the
votes of all. `reportlabel.run` keeps the tables in a workspace and knows what need not be done again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from reportlabel.aggregate.precedence import label_reports
from reportlabel.annotate.annotator import Annotator
from reportlabel.ingest.assemble import Assembled, RawRows, assemble, reports_that_count
from reportlabel.link.windows import link_records
from reportlabel.rulebook.exams import scope_of
from reportlabel.rulebook.models import LabelSet
from reportlabel.schema import ATTRITION, EXAM_VOTES, LINKS
from reportlabel.study import Study
from reportlabel.vote.bert import Classifier, added_mentions, bert_exam_votes, with_confidence
from reportlabel.vote.records import record_votes
from reportlabel.vote.report import report_votes


@dataclass(frozen=True)
class Voted:
    """What the stages up to the votes make of the patients of one part."""

    links: pl.DataFrame
    mentions: pl.DataFrame
    votes: pl.DataFrame
    attrition: pl.DataFrame


def ingest(raw: RawRows, study: Study, *, shared_uids: Sequence[str], paths: pl.DataFrame) -> Assembled:
    """Rows of all sources -> exams, reports, records."""
    return assemble(raw, rules=study.assembly, exam_reader=study.exam_reader, shared_uids=shared_uids, paths=paths)


def scope_of_reports(exams: pl.DataFrame, reports: pl.DataFrame, study: Study) -> pl.DataFrame:
    """exam_id, label_set: the label sets that fit each exam with a report that counts."""
    read = exams.join(reports_that_count(reports), on="exam_id", how="semi", maintain_order="left")
    return scope_of(read, study.label_sets, study.exam_reader)


def vote(exams: pl.DataFrame, reports: pl.DataFrame, records: pl.DataFrame, study: Study) -> Voted:
    """Exams, reports, records -> links, mentions, votes."""
    counting = reports_that_count(reports)
    read = exams.join(counting, on="exam_id", how="semi", maintain_order="left")
    scope = scope_of(read, study.label_sets, study.exam_reader)
    signed = counting.select("exam_id", signed_at="confirmed_at")
    said = report_votes(
        counting, scope=scope, label_sets=dict(study.label_sets), rules=study.rules, annotator=study.annotator
    )
    judged = pl.DataFrame(schema=EXAM_VOTES)
    if study.extractor is not None:
        judged = bert_exam_votes(
            counting,
            scope=scope,
            label_sets=dict(study.label_sets),
            annotator=study.annotator,
            extractor=study.extractor,
        )
    links, linked = pl.DataFrame(schema=LINKS), pl.DataFrame(schema=EXAM_VOTES)
    if study.records:
        links = link_records(read, records, study.linked.windows, signed=signed)
        linked = record_votes(
            read,
            records,
            links,
            scope=scope,
            label_sets=study.label_sets,
            rules=study.rules,
            linked=study.linked,
            annotator=study.record_reader,
        )
    votes = pl.concat([said.votes, judged, linked])
    return Voted(links, said.mentions, votes, _attrition(exams, read, scope, records, links))


NO_REPORT = "No final report."
NO_LABEL_SET = "No label set fits the exam."
NO_EXAM_NEAR = "In the window of no exam."


def _attrition(
    exams: pl.DataFrame, read: pl.DataFrame, scope: pl.DataFrame, records: pl.DataFrame, links: pl.DataFrame
) -> pl.DataFrame:
    fitting = scope["exam_id"].n_unique()
    near = links["record_id"].n_unique()
    rows = [
        ("link", "records", "in", "", records.height),
        ("link", "records", "excluded", NO_EXAM_NEAR, records.height - near),
        ("link", "records", "out", "", near),
        ("vote", "exams", "in", "", exams.height),
        ("vote", "exams", "excluded", NO_REPORT, exams.height - read.height),
        ("vote", "exams", "excluded", NO_LABEL_SET, read.height - fitting),
        ("vote", "exams", "out", "", fitting),
    ]
    return pl.DataFrame(rows, schema=ATTRITION, orient="row")


@dataclass(frozen=True)
class Labelled:
    """What the flow makes of a batch of reports without records: one mentions and one labels table."""

    mentions: pl.DataFrame
    labels: pl.DataFrame


def label_batch(
    reports: pl.DataFrame, annotator: Annotator, label_set: LabelSet, *, extractor: Classifier | None = None
) -> Labelled:
    """Label a batch of reports that stand alone, without archive and records.

    Args:
        reports: columns ``report_id`` and ``text``.
        extractor: a sentence classifier; it speaks of the labels on which the rules are silent, where it is sure.

    Returns:
        Mentions of all findings of the rules, those that the classifier adds behind them (the whole sentence as the
        expression), and one label a report and label-set entry.
    """
    mentions = annotator.annotate(reports, region=label_set.region)
    if extractor is not None:
        said = extractor.read(reports, region=label_set.region, annotator=annotator)
        added = added_mentions(
            said,
            mentions,
            label_set,
            annotator.rules,
            model=extractor.card.id,
            add_from=extractor.card.add_from,
            beside_from=extractor.card.beside_from,
        )
        mentions = pl.concat([mentions, added])
        labels = label_reports(reports["report_id"], mentions, label_set, annotator.rules)
        return Labelled(mentions=mentions, labels=with_confidence(labels, said, label_set, annotator.rules))
    labels = label_reports(reports["report_id"], mentions, label_set, annotator.rules)
    return Labelled(mentions=mentions, labels=labels)
