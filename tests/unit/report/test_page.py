"""The quality page."""

import html
import json
import re
from pathlib import Path

import polars as pl
import pytest

from reportlabel.annotate.annotator import Annotator
from reportlabel.flow import label_batch
from reportlabel.ingest.report_table import ReadCounts
from reportlabel.report.page import PageSet, representative, write_page

TEXTS = [
    "右肺上葉に24mm大の結節を認めます。胸水なし。",
    "結節は指摘できません。<script>alert('x')</script> \"引用\" & 胸水を認めます。",
    "【依頼目的】肺癌疑い。\n特記なし。",
]


@pytest.fixture(scope="module")
def annotator() -> Annotator:
    return Annotator()


@pytest.fixture(scope="module")
def page(annotator: Annotator, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(
        path,
        batches=[page_set(annotator, TEXTS)],
        annotator=annotator,
        counts=ReadCounts(rows_in=5, rows_out=3, quarantined=2),
        source="tests",
    )
    return path.read_text(encoding="utf-8")


def page_set(annotator: Annotator, texts: list[str]) -> PageSet:
    reports = pl.DataFrame({"report_id": [f"R{at}" for at in range(len(texts))], "text": texts})
    label_set = annotator.rules.label_sets["lung_ct"]
    labelled = label_batch(reports, annotator, label_set)
    return PageSet(label_set, reports, labelled.mentions, labelled.labels)


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    assert "default-src 'none'" in page
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", page)
    assert "http://" not in page and "https://" not in page and "@import" not in page and "url(" not in page


def test_a_report_cannot_break_out_of_the_page(page: str) -> None:
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page


def test_run_facts(page: str, annotator: Annotator) -> None:
    assert annotator.rules.sha256 in page
    assert re.search(r"rows in</dt><dd[^>]*>5<", page) and re.search(r"quarantined</dt><dd[^>]*>2<", page)
    assert "合成" not in page


def test_counts_of_a_finding(page: str) -> None:
    row = re.search(r'<tr[^>]*data-finding="nodule_or_mass".*?</tr>', page, re.DOTALL)
    assert row is not None
    assert re.findall(r'<td class="num[^"]*">(\d+)</td>', row[0]) == ["1", "0", "1", "1"]
    assert "肺結節" in row[0]


def test_the_text_of_a_card_is_the_report(page: str) -> None:
    shown = [
        html.unescape(re.sub(r"<[^>]+>", "", text))
        for text in re.findall(r'<p class="text">(.*?)</p>', page, re.DOTALL)
    ]
    assert shown == TEXTS


def test_what_a_reader_is_shown_of_a_mention(page: str) -> None:
    cards = [json.loads(html.unescape(raw)) for raw in re.findall(r'data-mentions="([^"]*)"', page)]
    nodule = cards[0][0]
    assert (nodule["name"], nodule["tone"]) == ("肺結節", "present")
    assert ["大きさ", "24mm"] in nodule["facts"] and ["手がかり", "認めます"] in nodule["facts"]
    assert cards[2][0]["tone"] == "other"


def test_no_reports_at_all(annotator: Annotator, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_page(
        path, batches=[page_set(annotator, [])], annotator=annotator, counts=ReadCounts(0, 0, 0), source="nothing"
    )
    assert "肺癌CT" in path.read_text(encoding="utf-8")


def test_a_sample_shows_every_label_and_value_first() -> None:
    labels = {
        "1": [("a", "present")],
        "2": [("a", "present"), ("b", "absent")],
        "3": [("a", "present")],
        "4": [("c", "uncertain")],
    }
    assert representative(labels, 2) == ["2", "4"]
    assert representative(labels, 3) == ["1", "2", "4"]
    assert representative(labels, 9) == ["1", "2", "3", "4"]
    assert representative({}, 3) == []
