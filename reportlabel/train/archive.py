"""Examples from a workspace: sentences of its reports, what the rules read in them, what labels and readers say of it.

Weak labels: a statement of the rules counts by the probability that the label model gives it, and that probability
is its target. Readings count more than anything: where a reader agreed, the statement is confirmed; where he did not,
it is put right in the sentence that he marked, or in the only one that it can be. The readings of some patients only
teach (`reportlabel.vote.taught`); those of the others are kept to judge the model by.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from reportlabel.annotate.annotator import Annotator
from reportlabel.ingest.assemble import reports_that_count
from reportlabel.rulebook.models import LabelSet
from reportlabel.store import Workspace
from reportlabel.train.examples import (
    EXAMPLES,
    NOT_MENTIONED,
    Statement,
    distinct_statements,
    example_row,
    voting_findings,
)
from reportlabel.train.settings import ArchiveSettings
from reportlabel.vote.bert import STATUSES, BertExtractor, report_sentences
from reportlabel.vote.rules import supporting_mentions
from reportlabel.vote.taught import exams_that_teach

_REPORTS_AT_ONCE = 2_000
_KEY = ["exam_id", "label_set", "finding"]


@dataclass(frozen=True)
class WorkspaceTables:
    """What is read of a workspace.

    Attributes:
        reports: those that count: report_id, exam_id, patient_id, text.
        labels: exam_id, label_set, finding, p_present.
        readings: exam_id, label_set, finding, value, spans; one row where readers agree.
        readings_share: the share of patients whose readings are among them; None: nobody has read an exam of theirs.
    """

    reports: pl.DataFrame
    labels: pl.DataFrame
    readings: pl.DataFrame
    readings_share: float | None = None


def workspace_tables(workspace: Workspace, *, readings_share: float) -> WorkspaceTables:
    """Read what training needs of a workspace.

    Of patients with readings only those that `reportlabel.vote.taught` chooses are learned from. The reports of the
    others are left out as a whole: the labels of an exam that was read are what the reader said, and would teach it.
    """
    exams = workspace.read("exams").select("exam_id", patient_id=pl.coalesce("patient_id", "exam_id"))
    said = workspace.read("readings")
    read = exams.join(said.select("exam_id"), on="exam_id", how="semi")
    teaching = exams_that_teach(read, readings_share)
    left_out = read.join(teaching, on="exam_id", how="anti").select("patient_id").unique()
    reports = reports_that_count(workspace.read("reports")).join(exams, on="exam_id", how="inner")
    labels = workspace.read("labels").select(*_KEY, "p_present")
    return WorkspaceTables(
        reports.select("report_id", "exam_id", "patient_id", "text")
        .join(left_out, on="patient_id", how="anti")
        .sort("report_id"),
        labels,
        agreed_readings(said.join(teaching, on="exam_id", how="semi", maintain_order="left")),
        readings_share=None if teaching.is_empty() else readings_share,
    )


def agreed_readings(readings: pl.DataFrame) -> pl.DataFrame:
    """The last word of each reader; labels on which readers disagree teach nothing and are left out."""
    last = readings.sort("read_at", maintain_order=True).unique([*_KEY, "reader"], keep="last", maintain_order=True)
    return (
        last.group_by(_KEY, maintain_order=True)
        .agg(pl.col("value").n_unique().alias("values"), pl.col("value").first(), pl.col("spans").explode())
        .filter(pl.col("values") == 1)
        .with_columns(spans=pl.col("spans").list.drop_nulls())
        .drop("values")
    )


@dataclass
class _Sentence:
    """A sentence of a report, with the statements of the rules and of the classifier in it."""

    start: int
    end: int
    before: str
    text: str
    rules: list[Statement]
    model: dict[str, str]
    weight: float


def archive_examples(
    tables: WorkspaceTables,
    *,
    label_sets: Mapping[str, LabelSet],
    annotator: Annotator,
    settings: ArchiveSettings,
    extractor: BertExtractor | None = None,
) -> pl.DataFrame:
    """Rows of `EXAMPLES` of the reports of a workspace, source ``archive`` or ``reading``.

    Sentences of which only the classifier has something to say, or on which it contradicts the rules, are left out
    unless a reader spoke: neither is known to be right. The split is by patient.

    Args:
        extractor: the classifier that is trained further; without it sentences on which the rules are silent count as
            saying nothing.
    """
    rows: list[tuple[object, ...]] = []
    voting = voting_findings(annotator.rules)
    regions = {one.region for one in label_sets.values()}
    scope = tables.labels.select("exam_id", "label_set").unique()
    for region in sorted(regions):
        names = sorted(name for name, one in label_sets.items() if one.region == region)
        exams = scope.filter(pl.col("label_set").is_in(names)).select("exam_id").unique()
        here = tables.reports.join(exams, on="exam_id", how="semi", maintain_order="left")
        for first in range(0, here.height, _REPORTS_AT_ONCE):
            part = here.slice(first, _REPORTS_AT_ONCE)
            reader = _Part(part, region, {name: label_sets[name] for name in names}, annotator, settings, extractor)
            rows += reader.rows(tables, frozenset(voting))
    table = pl.DataFrame(rows, schema=EXAMPLES, orient="row")
    # what a reader said of a sentence counts before what was read elsewhere in the same words
    order = pl.col("source").replace_strict({"reading": 0, "archive": 1}, return_dtype=pl.Int8)
    return table.sort(order, maintain_order=True).unique(
        ["region", "before", "text"], keep="first", maintain_order=True
    )


class _Part:
    """Some reports, read as of one region."""

    def __init__(
        self,
        reports: pl.DataFrame,
        region: str,
        label_sets: Mapping[str, LabelSet],
        annotator: Annotator,
        settings: ArchiveSettings,
        extractor: BertExtractor | None,
    ) -> None:
        self.reports = reports
        self.region = region
        self.label_sets = label_sets
        self.rules = annotator.rules
        self.settings = settings
        texts = reports.select("report_id", "text")
        self.mentions = annotator.annotate(texts, region=region)
        self.sentences = report_sentences(texts, annotator)
        self.extractor = extractor
        said: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
        if extractor is not None:
            predictions = extractor.read(texts, region=region, annotator=annotator)
            for report_id, number, finding, status in predictions.select(
                "report_id", "sentence", "finding", "status"
            ).iter_rows():
                said[report_id, number][finding] = status
        self.said = said

    def rows(self, tables: WorkspaceTables, voting: frozenset[str]) -> list[tuple[object, ...]]:
        """The examples."""
        exam_of = dict(self.reports.select("report_id", "exam_id").iter_rows())
        sure = self._sureness(tables.labels)
        told: dict[tuple[str, int], list[Statement]] = defaultdict(list)
        columns = ("report_id", "sentence", "finding", "status", "temporality", "surface")
        for report_id, number, finding, status, temporality, surface in self.mentions.select(columns).iter_rows():
            if temporality == "current" and finding in voting:
                chance = sure.get((report_id, finding, status), 1.0)
                weight = self.settings.weak_weight * max(chance, 1 - chance)
                told[report_id, number].append(Statement(finding, status, weight, surface, chance))
        by_report: dict[str, dict[int, _Sentence]] = defaultdict(dict)
        for report_id, number, start, end, before, text in self.sentences.iter_rows():
            key = (report_id, number)
            statements = distinct_statements(told[key])
            one = _Sentence(start, end, before, text, statements, self.said.get(key, {}), 0.0)
            if self.extractor is None or one.model == {each.finding: each.status for each in statements}:
                one.weight = self.settings.weak_weight
            elif set(one.model) <= {each.finding for each in statements}:
                one.weight = self.settings.weak_weight  # the rules say more: that is what is to be learned
            by_report[report_id][number] = one
        readings = self._readings(tables.readings)
        for report_id, sentences in by_report.items():
            for label_set, label, value, spans in readings.get(exam_of[report_id], ()):
                self._take(sentences, self.label_sets[label_set], label, value, spans)
        patients = dict(self.reports.select("report_id", "patient_id").iter_rows())
        return [
            example_row(
                self.region,
                one.before,
                one.text,
                one.rules,
                "reading" if one.weight > self.settings.weak_weight else "archive",
                split_of(patients[report_id], self.settings.validate_each),
            )
            for report_id, sentences in by_report.items()
            for one in sentences.values()
            if one.weight > 0
        ]

    def _sureness(self, labels: pl.DataFrame) -> dict[tuple[str, str, str], float]:
        """Report, finding, status of a statement -> how likely the label model holds it to be right.

        Where the statements of a report on a label differ, the probability is of their sum and says nothing of each.
        """
        found: dict[tuple[str, str, str], float] = {}
        exams = self.reports.select("report_id", "exam_id")
        for name, label_set in self.label_sets.items():
            own = labels.filter(pl.col("label_set") == name).drop("label_set").rename({"finding": "label"})
            direct = pl.DataFrame(
                [(one.id, finding) for one in label_set.findings for finding in one.any_of],
                schema={"label": pl.String, "finding": pl.String},
                orient="row",
            )
            votes = (
                supporting_mentions(self.mentions, label_set, self.rules)
                .join(direct, on=["label", "finding"], how="semi")
                .filter(pl.col("value").n_unique().over("report_id", "label") == 1)
                .select("report_id", "label", "finding", "value")
                .unique(maintain_order=True)
                .join(exams, on="report_id")
                .join(own, on=["exam_id", "label"])
                .drop_nulls("p_present")
            )
            for report_id, finding, value, chance in votes.select(
                "report_id", "finding", "value", "p_present"
            ).iter_rows():
                right = {"present": chance, "absent": 1 - chance}.get(value, 1.0)
                key = (report_id, finding, value)
                found[key] = min(right, found.get(key, 1.0))
        return found

    def _readings(self, readings: pl.DataFrame) -> dict[str, list[tuple[str, str, str, list[dict[str, int]]]]]:
        found: dict[str, list[tuple[str, str, str, list[dict[str, int]]]]] = defaultdict(list)
        own = readings.filter(pl.col("label_set").is_in(list(self.label_sets)))
        for exam_id, label_set, label, value, spans in own.select(*_KEY, "value", "spans").iter_rows():
            found[exam_id].append((label_set, label, value, spans or []))
        return found

    def _take(
        self,
        sentences: Mapping[int, _Sentence],
        label_set: LabelSet,
        label: str,
        value: str,
        spans: list[dict[str, int]],
    ) -> None:
        """Put a reading into the sentences of its report."""
        entry = next((one for one in label_set.findings if one.id == label), None)
        if entry is None or entry.none_of_others or not entry.any_of:
            return
        findings = frozenset(entry.any_of)
        speaking = [one for one in sentences.values() if any(each.finding in findings for each in one.rules)]
        if value == NOT_MENTIONED:
            for one in speaking:
                self._set(one, findings, NOT_MENTIONED)
            return
        marked = [
            one
            for one in sentences.values()
            if any(span["start"] < one.end and one.start < span["end"] for span in spans)
        ]
        agreeing = [
            one for one in speaking if any(each.finding in findings and each.status == value for each in one.rules)
        ]
        if marked:
            for one in marked:
                self._set(one, findings, value)
        elif agreeing:
            for one in agreeing:
                self._set(one, findings, value)
        elif len(speaking) == 1:
            self._set(speaking[0], findings, value)
        elif speaking:
            for one in speaking:  # one of them is wrong, and nobody knows which
                one.weight = 0.0
        else:
            likely = [one for one in sentences.values() if one.model.keys() & findings]
            if len(likely) == 1:
                self._set(likely[0], findings, value)

    def _set(self, one: _Sentence, findings: frozenset[str], value: str) -> None:
        """Let a sentence say what a reader said."""
        weight = self.settings.reading_weight
        named = [each for each in one.rules if each.finding in findings]
        if not named and value in STATUSES:
            of_model = sorted(one.model.keys() & findings)
            named = [Statement(of_model[0] if of_model else min(findings), value, weight, "")]
        others = [each for each in one.rules if each.finding not in findings]
        one.rules = [*others, *(Statement(each.finding, value, weight, each.surface) for each in named)]
        one.weight = weight


def split_of(patient_id: str, validate_each: int) -> str:
    """``validate`` for every so many patients, else ``train``; a patient is always in the same."""
    number = int.from_bytes(hashlib.sha256(patient_id.encode()).digest()[:8], "big")
    return "validate" if number % validate_each == 0 else "train"
