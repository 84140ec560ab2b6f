"""Accuracy on real reports with gold labels. They are not part of the project: the folder lies beside a checkout.

Where it is missing the tests are skipped and say so. The bounds are those the rules must keep; the figures themselves
are printed by ``reportlabel evaluate``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import polars as pl
import pytest

from reportlabel.annotate.annotator import Annotator
from reportlabel.evaluate.score import evaluate
from reportlabel.flow import Labelled, label_batch

FOLDER = Path(os.environ.get("REPORTLABEL_REAL_REPORTS", Path(__file__).parents[3] / "shared" / "real_reports"))

pytestmark = pytest.mark.skipif(
    not (FOLDER / "reports.csv").is_file(), reason=f"no real reports at {FOLDER} (set REPORTLABEL_REAL_REPORTS)"
)


@pytest.fixture(scope="module")
def reports() -> pl.DataFrame:
    return pl.read_csv(FOLDER / "reports.csv")


@pytest.fixture(scope="module")
def labelled(reports: pl.DataFrame) -> Labelled:
    annotator = Annotator()
    return label_batch(reports, annotator, annotator.rules.label_sets["lung_ct"])


def test_findings(labelled: Labelled) -> None:
    gold = pl.read_csv(FOLDER / "findings.csv").rename({"status": "value"})
    scored = gold.join(
        labelled.labels.select("report_id", "finding", pl.col("value").alias("predicted")), on=["report_id", "finding"]
    )
    assert scored.height == gold.height
    assert (scored["value"] == scored["predicted"]).mean() >= 0.98
    assert _micro_f1(scored, "uncertain") >= 0.93
    assert _micro_f1(scored, "absent") >= 0.96
    present = [
        _micro_f1(rows, "present") for _, rows in scored.group_by("finding") if (rows["value"] == "present").any()
    ]
    assert sum(present) / len(present) >= 0.96


def test_the_evaluation_says_the_same(labelled: Labelled) -> None:
    gold = pl.read_csv(FOLDER / "findings.csv")
    evaluation = evaluate(labelled.labels, gold, bootstrap=0)
    assert evaluation.gold_only.is_empty()
    assert evaluation.rows == gold.height
    scored = gold.join(labelled.labels, on=["report_id", "finding"])
    assert evaluation.accuracy.value == pytest.approx((scored["status"] == scored["value"]).mean())


@pytest.mark.parametrize("attribute", ["size_mm", "side", "lobe"])
def test_primary_tumour(labelled: Labelled, attribute: str) -> None:
    gold = pl.read_csv(FOLDER / "primary_tumour.csv", schema_overrides={"size_mm": pl.String})
    predicted = labelled.labels.filter(pl.col("finding") == f"primary_{attribute}").select("report_id", "value")
    scored = gold.select("report_id", pl.col(attribute).fill_null("not_mentioned").alias("gold")).join(
        predicted, on="report_id"
    )
    assert scored.height == gold.height
    assert (scored["gold"] == scored["value"]).mean() >= 0.93


def test_positive_mentions_overlap(reports: pl.DataFrame, labelled: Labelled) -> None:
    """A predicted expression counts where it overlaps one of the gold; a gold one is found where it is overlapped."""
    text_of = dict(reports.select("report_id", "text").iter_rows())
    present = labelled.mentions.filter((pl.col("status") == "present") & (pl.col("temporality") == "current"))
    right = predicted = found = expected = 0
    for line in (FOLDER / "positive_mentions.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        text = text_of[record["report_id"]]
        gold = {surface: _occurrences(text, surface) for surface in record["positive"]}
        rows = present.filter(pl.col("report_id") == record["report_id"])
        by_surface: dict[str, list[tuple[int, int]]] = {}
        for start, end in rows.select("start", "end").iter_rows():
            by_surface.setdefault(text[start:end], []).append((start, end))
        spans = [span for own in by_surface.values() for span in own]
        places = [place for own in gold.values() for place in own]
        predicted += len(by_surface)
        right += sum(any(_overlap(a, b) for a in own for b in places) for own in by_surface.values())
        expected += len(gold)
        found += sum(any(_overlap(a, b) for a in own for b in spans) for own in gold.values())
    precision, recall = right / predicted, found / expected
    assert 2 * precision * recall / (precision + recall) >= 0.85


def test_every_mention_is_a_piece_of_its_report(reports: pl.DataFrame, labelled: Labelled) -> None:
    text_of = dict(reports.select("report_id", "text").iter_rows())
    for report_id, start, end, surface in labelled.mentions.select("report_id", "start", "end", "surface").iter_rows():
        assert text_of[report_id][start:end] == surface != ""
    assert labelled.mentions.select("report_id", "start", "end", "finding").is_unique().all()


def test_no_rule_holds_a_sentence_of_the_reports(reports: pl.DataFrame) -> None:
    """Rules are words of the language: none is a whole sentence of these reports."""
    annotator = Annotator()
    sentences = {
        text[sentence.start : sentence.end].rstrip("。").replace(" ", "")
        for text in reports["text"]
        for sentence in annotator.sentences(text)
    }
    terms = {term.text.replace(" ", "") for finding in annotator.rules.findings.values() for term in finding.terms} | {
        example.text.rstrip("。").replace(" ", "")
        for finding in annotator.rules.findings.values()
        for example in finding.examples
    }
    long = {sentence for sentence in sentences if len(sentence) > 12}
    assert not terms & long


def _micro_f1(scored: pl.DataFrame, status: str) -> float:
    gold, predicted = scored["value"] == status, scored["predicted"] == status
    total = gold.sum() + predicted.sum()
    return 2 * (gold & predicted).sum() / total if total else 0.0


def _occurrences(text: str, surface: str) -> list[tuple[int, int]]:
    places = []
    at = text.find(surface)
    while at >= 0:
        places.append((at, at + len(surface)))
        at = text.find(surface, at + 1)
    return places


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < other[1] and other[0] < one[1]
