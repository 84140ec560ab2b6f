"""How good a classifier is beside the rules: on reports with gold labels, on phrases of the gold, on sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from reportlabel.aggregate.precedence import label_reports
from reportlabel.annotate.annotator import Annotator
from reportlabel.annotate.normalise import Normaliser
from reportlabel.evaluate.metrics import f1, precision, recall
from reportlabel.rulebook.load import Rulebook
from reportlabel.rulebook.models import LabelSet
from reportlabel.synth.bank import labels_of, load_bank
from reportlabel.synth.simulate import simulate
from reportlabel.vote.bert import BertExtractor, added_mentions, as_mentions, report_sentences
from reportlabel.vote.rules import supporting_mentions

READ = ("rules", "bert", "both")
CLASSES = ("not_mentioned", "present", "uncertain", "absent")


def read_three_ways(
    reports: pl.DataFrame,
    *,
    region: str,
    label_set: LabelSet,
    annotator: Annotator,
    extractor: BertExtractor,
    add_from: float | None = None,
    beside_from: float | None = None,
) -> dict[str, pl.DataFrame]:
    """Mentions by the rules, by the model, and by the rules with what the model adds.

    Args:
        reports: columns ``report_id`` and ``text``.
        add_from, beside_from: the confidences from which the model adds; by default those of its card.
    """
    said = annotator.annotate(reports, region=region)
    predictions = extractor.read(reports, region=region, annotator=annotator)
    card = extractor.card
    added = added_mentions(
        predictions,
        said,
        label_set,
        annotator.rules,
        model=card.id,
        add_from=card.add_from if add_from is None else add_from,
        beside_from=card.beside_from if beside_from is None else beside_from,
    )
    return {"rules": said, "bert": as_mentions(predictions, model=card.id), "both": pl.concat([said, added])}


def label_table(
    reports: pl.DataFrame, read: Mapping[str, pl.DataFrame], label_set: LabelSet, rules: Rulebook
) -> pl.DataFrame:
    """The labels of each way of reading: columns by, report_id, finding, value."""
    ids = [entry.id for entry in label_set.findings]
    return pl.concat(
        [
            label_reports(reports["report_id"], mentions, label_set, rules)
            .filter(pl.col("finding").is_in(ids))
            .select(pl.lit(way).alias("by"), "report_id", "finding", "value")
            for way, mentions in read.items()
        ]
    )


def label_figures(labels: pl.DataFrame, gold: pl.DataFrame) -> pl.DataFrame:
    """Aggregate figures of each way of reading.

    Args:
        labels: by, report_id, finding, value.
        gold: report_id, finding, value.

    Returns:
        Columns by, accuracy, macro_f1_present (mean over the findings that the gold has as present), and micro-averaged
        precision, recall and F1 of present, uncertain and absent.
    """
    codes = {name: at for at, name in enumerate(CLASSES)}
    rows = []
    for (way,), own in labels.join(gold.rename({"value": "gold"}), on=["report_id", "finding"]).group_by(
        "by", maintain_order=True
    ):
        tables: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = {}
        for finding, wanted, value, count in own.group_by("finding", "gold", "value").len().iter_rows():
            tables.setdefault(finding, np.zeros((4, 4)))[codes[wanted], codes[value]] += count
        whole = sum(tables.values(), np.zeros((4, 4)))
        each = [float(f1(one)[1]) for one in tables.values() if one[1].sum() > 0]
        row: dict[str, object] = {
            "by": way,
            "accuracy": float(np.trace(whole) / whole.sum()),
            "macro_f1_present": sum(each) / len(each) if each else None,
        }
        for status in CLASSES[1:]:
            for name, measure in (("precision", precision), ("recall", recall), ("f1", f1)):
                row[f"{status}_{name}"] = float(measure(whole)[codes[status]])
        rows.append(row)
    return pl.DataFrame(rows)


PHRASES = pl.Schema(
    {
        "by": pl.String,
        "in_rules": pl.Boolean,
        "mentions": pl.Int64,
        "recall": pl.Float64,
    }
)
"""Of the mentions of the gold how many each way of reading found in their sentence, with their status."""


@dataclass(frozen=True)
class PhraseScore:
    """What is found of the expressions of a synthetic hospital, sentence by sentence.

    Attributes:
        recall: `PHRASES`.
        precision: by, statements, right: of all statements (sentence, label, status), and of those that the model adds
            to the rules (by "added"), how many the gold has too.
    """

    recall: pl.DataFrame
    precision: pl.DataFrame


def score_phrases(
    extractor: BertExtractor,
    annotator: Annotator,
    *,
    patients: int,
    seed: int,
    add_from: float | None = None,
    beside_from: float | None = None,
) -> PhraseScore:
    """Read the reports of a synthetic hospital three ways and compare every sentence with the gold.

    Beside the rules the model speaks here of the labels on which they are silent in the same sentence. Take another
    seed than that of the training.
    """
    bank, rules = load_bank(), annotator.rules
    expected: list[tuple[str, str, str, str, str]] = []
    reports: dict[str, list[tuple[str, str]]] = {}
    for number in range(1, patients + 1):
        file = simulate(bank, seed=seed, number=number)
        kinds = {exam.exam_id: bank.exams[exam.kind].kind for exam in file.exams}
        last = {report.report_id: report for report in file.reports}
        for report in last.values():
            for name in kinds[report.exam_id].label_sets[:1]:
                reports.setdefault(name, []).append((report.report_id, report.text))
        for mark in file.gold_mentions:
            kind = kinds[last[mark.report_id].exam_id]
            for name in kind.label_sets[:1] if mark.status in CLASSES else ():
                for label in labels_of(kind, mark.finding, name, denied=mark.status == "absent"):
                    expected.append((mark.report_id, str(mark.start), label, mark.status, mark.surface))
    wanted = pl.DataFrame(
        expected, schema=["report_id", "start", "label", "status", "surface"], orient="row"
    ).with_columns(pl.col("start").cast(pl.Int32))
    marks, statements = [], []
    for name, texts in sorted(reports.items()):
        label_set = rules.label_sets[name]
        table = pl.DataFrame(texts, schema=["report_id", "text"], orient="row")
        ids = [entry.id for entry in label_set.findings if not entry.none_of_others]
        sentences = report_sentences(table, annotator).select("report_id", "sentence", "start", "end")
        of_sentence = (
            wanted.join(sentences, on="report_id", suffix="_of")
            .filter(pl.col("start").is_between("start_of", "end", closed="left") & pl.col("label").is_in(ids))
            .with_columns(report_id=_sentence_id())
        )
        marks.append(of_sentence.select("report_id", "label", "status", "surface"))
        said = annotator.annotate(table, region=label_set.region).with_columns(report_id=_sentence_id())
        predictions = extractor.read(table, region=label_set.region, annotator=annotator)
        predictions = predictions.with_columns(report_id=_sentence_id())
        added = added_mentions(
            predictions,
            said,
            label_set,
            rules,
            model=extractor.card.id,
            add_from=extractor.card.add_from if add_from is None else add_from,
            beside_from=extractor.card.beside_from if beside_from is None else beside_from,
        )
        ways = {"rules": said, "bert": as_mentions(predictions, model=extractor.card.id), "added": added}
        read_here = sentences.select(report_id=_sentence_id())
        for way, mentions in ways.items():
            labels = supporting_mentions(mentions, label_set, rules).filter(pl.col("label").is_in(ids))
            labels = labels.join(read_here, on="report_id", how="semi")
            statements.append(labels.select(pl.lit(way).alias("by"), "report_id", "label", "value").unique())
    return _phrase_score(pl.concat(marks), pl.concat(statements), rules)


def _sentence_id() -> pl.Expr:
    return pl.format("{}#{}", "report_id", "sentence")


def _phrase_score(marks: pl.DataFrame, statements: pl.DataFrame, rules: Rulebook) -> PhraseScore:
    both = statements.filter(pl.col("by") != "bert").with_columns(by=pl.lit("both")).unique()
    every = pl.concat([statements, both])
    gold = marks.select("report_id", "label", value="status").unique()
    precision_table = (
        every.join(gold.with_columns(right=pl.lit(1)), on=["report_id", "label", "value"], how="left")
        .group_by("by")
        .agg(statements=pl.len(), right=pl.col("right").fill_null(0).mean())
        .sort("by")
    )
    asked = marks.join(known_phrases(marks["surface"], rules), on="surface")
    found = [
        asked.join(own, left_on=["report_id", "label", "status"], right_on=["report_id", "label", "value"], how="left")
        .with_columns(by=pl.lit(way))
        .group_by("by", "in_rules")
        .agg(mentions=pl.len().cast(pl.Int64), recall=pl.col("found").fill_null(0).mean())
        for way in READ
        for own in [
            every.filter(pl.col("by") == way)
            .select("report_id", "label", "value")
            .unique()
            .with_columns(found=pl.lit(1))
        ]
    ]
    return PhraseScore(pl.concat(found).sort("in_rules", "by").cast(PHRASES), precision_table)


def score_sentences(table: pl.DataFrame, *, annotator: Annotator, extractor: BertExtractor) -> pl.DataFrame:
    """Sentences that each say one thing (such as ``tests/paraphrases.csv``), read three ways.

    Args:
        table: label_set, label, status, text.

    Returns:
        Columns by, sentences, right (label and status), found (the label with any status), and extra: statements of
        other labels of the label set, a sentence.
    """
    numbered = table.with_row_index("row").with_columns(report_id=pl.col("row").cast(pl.String))
    labels = []
    for (name,), own in numbered.group_by("label_set", maintain_order=True):
        label_set = annotator.rules.label_sets[str(name)]
        reports = own.select("report_id", "text")
        read = read_three_ways(
            reports, region=label_set.region, label_set=label_set, annotator=annotator, extractor=extractor
        )
        labels.append(label_table(reports, read, label_set, annotator.rules))
    derived = [
        entry.id for one in annotator.rules.label_sets.values() for entry in one.findings if entry.none_of_others
    ]
    return (
        pl.concat(labels)
        .join(numbered.select("report_id", "label", "status"), on="report_id")
        .with_columns(own=pl.col("finding") == pl.col("label"), said=pl.col("value") != "not_mentioned")
        .group_by("by", maintain_order=True)
        .agg(
            sentences=pl.col("report_id").n_unique(),
            right=(pl.col("own") & (pl.col("value") == pl.col("status"))).sum() / pl.col("report_id").n_unique(),
            found=(pl.col("own") & pl.col("said")).sum() / pl.col("report_id").n_unique(),
            extra=(~pl.col("own") & pl.col("said") & ~pl.col("finding").is_in(derived)).sum()
            / pl.col("report_id").n_unique(),
        )
    )


def known_phrases(surfaces: pl.Series, rules: Rulebook) -> pl.DataFrame:
    """Columns surface, in_rules: whether an expression is a term of the rules, letter by letter once normalised."""
    normaliser = Normaliser.from_rules(rules.normalise)

    def normal(text: str) -> str:
        return "".join(normaliser(text).split())

    terms = {normal(term.text) for finding in rules.findings.values() for term in finding.terms}
    distinct = surfaces.unique().to_list()
    return pl.DataFrame(
        {"surface": distinct, "in_rules": [normal(surface) in terms for surface in distinct]},
        schema={"surface": pl.String, "in_rules": pl.Boolean},
    )
