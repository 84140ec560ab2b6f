"""Rule votes: which statements vote for which labels."""

from __future__ import annotations

import polars as pl
import pytest

from reportlabel.annotate.annotator import Annotator
from reportlabel.schema import VOTES
from reportlabel.vote.rules import implied_by, label_of_finding, rule_votes


@pytest.fixture(scope="module")
def annotator() -> Annotator:
    return Annotator()


def votes(annotator: Annotator, text: str, label_set: str = "lung_ct") -> pl.DataFrame:
    chosen = annotator.rules.label_sets[label_set]
    mentions = annotator.annotate(pl.DataFrame({"report_id": ["r"], "text": [text]}), region=chosen.region)
    return rule_votes(mentions, chosen, annotator.rules)


def test_a_vote_says_why(annotator: Annotator) -> None:
    found = votes(annotator, "右上葉に結節を認めます。")
    assert found.schema == VOTES
    (vote,) = found.filter(pl.col("finding") == "nodule_or_mass").to_dicts()
    assert vote["value"] == "present"
    assert vote["evidence"] == "4-6"
    assert vote["function_id"].startswith("rule/nodule/")
    assert vote["kind"] == "rule"


@pytest.mark.parametrize(
    "text", ["肺癌術後です。", "肺癌除外目的。", "【依頼目的】肺癌疑い", "肺癌とした場合、T1aです。"]
)
def test_what_is_no_statement_of_this_exam_does_not_vote(annotator: Annotator, text: str) -> None:
    assert votes(annotator, text).filter(pl.col("finding") == "lung_cancer").is_empty()


def test_a_denied_consequence_does_not_deny_the_cause(annotator: Annotator) -> None:
    rules = annotator.rules
    seen = 0
    for label_set in rules.label_sets.values():
        table = label_of_finding(label_set, rules)
        for entry in label_set.findings:
            implying = set().union(*(implied_by(finding, rules) for finding in entry.any_of))
            for finding in implying - {*entry.any_of, *entry.denied_by}:
                own = table.filter((pl.col("label") == entry.id) & (pl.col("finding") == finding))
                assert set(own["status"]) == {"present", "uncertain"}
                seen += 1
    assert seen > 0
