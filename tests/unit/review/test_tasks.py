"""Exams as tasks: every question answered, words where they stand, and nothing of the patient."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportlabel.errors import InputError
from reportlabel.review.config import controls
from reportlabel.review.tasks import (
    certainty,
    read_answers,
    read_exams,
    review_tasks,
    shown_offset,
    shown_text,
    stored_offset,
)

OUTCOME = {"id": "o", "from_name": "rl_outcome", "type": "choices", "value": {"choices": ["settled"]}}


def result_of(study: Any, exam: str) -> list[dict[str, Any]]:
    return copy.deepcopy(study.tasks(exam)[0].result)


def answers(study: Any, exam: str, result: list[dict[str, Any]]) -> Any:
    asked = controls(study.label_set, study.rules, study.screen)
    return read_answers(result, asked, study.tasks(exam)[0].data["text"])


def test_a_prediction_answers_every_question_and_names_its_words(study: Any) -> None:
    task = study.tasks("X1")[0]
    read = answers(study, "X1", [*task.result, OUTCOME])
    assert read.problems == []
    assert read.values == task.predicted
    assert read.values["nodule_or_mass"] == "present" and read.values["cardiomegaly"] == "not_mentioned"
    assert read.spans == {"nodule_or_mass": [(4, 6)], "pleural_effusion": [(12, 14)]}
    assert {item["value"]["text"] for item in task.result if item["from_name"] == "rl_span"} == {"結節", "胸水"}


def test_offsets_are_code_points_of_the_text_as_it_is_shown(study: Any) -> None:
    task = study.tasks("X2")[0]
    assert task.data["text"] == "𠮷田式分類で肺炎の疑い。\n胸水を認める。"
    read = answers(study, "X2", [*task.result, OUTCOME])
    assert read.spans == {"pneumonia": [(6, 8)], "pleural_effusion": [(13, 15)]}


def test_a_task_holds_nothing_of_the_patient(study: Any) -> None:
    for task in study.tasks():
        sent = json.dumps(task.payload(), ensure_ascii=False)
        assert "PX" not in sent and "aoba" not in sent


def test_records_are_escaped_and_say_what_they_support(study: Any) -> None:
    records = study.tasks("X2")[0].data["records_html"]
    assert "CRP &lt;高感度&gt;" in records and "5.2 mg/dL H" in records
    assert "検査の1日前" in records and "肺炎：あり" in records
    assert study.tasks("X1")[0].data["records_html"] == "<div>関連記録はありません</div>"


def test_what_is_doubtful_stands_on_top_and_sets_the_score(study: Any) -> None:
    doubtful = study.tasks("X2")[0]
    check = doubtful.data["check_html"]
    # a contradiction comes before a low probability
    assert check.index("rl-doubt-pneumonia") < check.index("rl-doubt-pleural_effusion")
    assert "文章：疑い" in check and "記録：あり" in check
    assert doubtful.score == 0.5
    assert "疑わしい所見はありません" in study.tasks("X3")[0].data["check_html"]
    assert doubtful.score < study.tasks("X3")[0].score


def test_named_findings_come_first_with_their_notes(study: Any) -> None:
    wanted = study.wanted("X2").with_columns(
        findings=pl.Series([["cardiomegaly"]]), notes=pl.Series([["A：あり　B：なし"]])
    )
    tables = read_exams(study.workspace, ["X2"], "lung_ct")
    made, _ = review_tasks(
        tables, wanted, study.label_set, study.rules, study.screen, reason_names={"audit": "無作為の点検"}
    )
    check = made[0].data["check_html"]
    assert check.index("rl-doubt-cardiomegaly") < check.index("rl-doubt-pneumonia")
    assert "A：あり　B：なし" in check and "無作為の点検" in check


def test_the_hash_follows_what_a_reader_sees(study: Any) -> None:
    before = study.tasks("X1")[0]
    assert study.tasks("X1")[0].content == before.content
    study.change_report("X1", "右上葉に結節を認めない。")
    after = study.tasks("X1")[0]
    assert after.content != before.content and after.text != before.text
    assert study.tasks("X3")[0].text == study.tasks("X3")[0].data["text_hash"]


def test_exams_that_cannot_be_sent_are_listed(study: Any) -> None:
    study.workspace.replace_part(
        "labels", 0, study.workspace.read("labels").with_columns(evidence=_moved(study.workspace.read("labels")))
    )
    study.workspace.take_snapshot("broken", datetime(2026, 1, 3))
    wanted = study.wanted("X1", "X3", "gone")
    made, problems = review_tasks(
        read_exams(study.workspace, ["X1", "X3", "gone"], "lung_ct"), wanted, study.label_set, study.rules, study.screen
    )
    assert [task.exam_id for task in made] == ["X3"]
    assert dict(problems.select("exam_id", "reason").iter_rows()) == {
        "X1": "Coloured words lie outside the report.",
        "gone": "The exam has no report that counts.",
    }


def _moved(labels: pl.DataFrame) -> pl.Series:
    moved = [[{**vote, "evidence": "900-904"} for vote in votes] for votes in labels["evidence"].to_list()]
    return pl.Series(moved, dtype=labels.schema["evidence"])


def test_a_wrong_selection_is_told(study: Any) -> None:
    tables = read_exams(study.workspace, ["X1"], "lung_ct")
    with pytest.raises(InputError, match="column priority is missing"):
        review_tasks(tables, study.wanted().drop("priority"), study.label_set, study.rules, study.screen)
    with pytest.raises(InputError, match="named twice"):
        review_tasks(tables, study.wanted("X1", "X1"), study.label_set, study.rules, study.screen)


def change(result: list[dict[str, Any]], name: str, **value: Any) -> list[dict[str, Any]]:
    for item in result:
        if item["from_name"] == name:
            item["value"] = item["value"] | value
            break
    return [*result, OUTCOME]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("pleural_effusion", {"choices": ["あり"]}, "pleural_effusion has an answer that the screen does not offer."),
        ("pleural_effusion", {"choices": ["maybe"]}, "pleural_effusion has an answer that the screen does not offer."),
        ("pleural_effusion", {"choices": []}, "pleural_effusion has not exactly one answer."),
        ("pleural_effusion", {"choices": ["present", "absent"]}, "pleural_effusion has not exactly one answer."),
        ("rl_span", {"start": 5}, "Coloured words are not those of the report at their place."),
        ("rl_span", {"end": 400}, "Coloured words lie outside the report."),
        ("rl_span", {"start": "4"}, "Coloured words lie outside the report."),
        ("rl_span_finding", {"taxonomy": []}, "Coloured words belong to no finding."),
        ("rl_span_finding", {"taxonomy": [["x"]]}, "Coloured words belong to a finding that the label set does not"),
    ],
)
def test_what_is_wrong_with_an_answer_is_said(study: Any, name: str, value: dict[str, Any], says: str) -> None:
    found = answers(study, "X1", change(result_of(study, "X1"), name, **value)).problems
    assert any(one.startswith(says) for one in found)


def test_missing_twofold_and_foreign_answers_are_said(study: Any) -> None:
    result = result_of(study, "X1")
    without = [item for item in result if item["from_name"] != "ascites"]
    assert answers(study, "X1", [*without, OUTCOME]).problems == ["ascites is not answered."]
    assert answers(study, "X1", result).problems == ["The exam as a whole is not judged."]
    twice = [*result, OUTCOME, next(item for item in result if item["from_name"] == "ascites")]
    assert answers(study, "X1", twice).problems == ["ascites is answered twice."]
    foreign = [*result, OUTCOME, {"id": "z", "from_name": "unknown", "value": {"choices": ["present"]}}]
    assert answers(study, "X1", foreign).problems == [
        "An answer belongs to a finding that the label set does not have."
    ]
    assert answers(study, "X1", [*result, OUTCOME, {"from_name": "ascites"}]).problems == ["An answer has no value."]


def test_an_empty_box_says_that_the_report_does_not_mention_it(study: Any) -> None:
    typed = {"id": "v", "from_name": "primary_size_mm", "value": {"text": [" 24 "]}}
    result = result_of(study, "X1")
    assert answers(study, "X1", [*result, OUTCOME]).values["primary_size_mm"] == "not_mentioned"
    assert answers(study, "X1", [*result, OUTCOME, typed]).values["primary_size_mm"] == "24"


@pytest.mark.parametrize(
    ("value", "p", "sure"),
    [
        ("present", 0.9, 0.9),
        ("absent", 0.1, 0.9),
        ("not_mentioned", 0.25, 0.75),
        ("uncertain", 0.9, 0.5),
        ("24", None, 0.5),
        ("not_mentioned", None, 1.0),
    ],
)
def test_certainty_is_the_probability_of_what_is_said(value: str, p: float | None, sure: float) -> None:
    assert certainty({"value": value, "p_present": p}) == sure


@given(st.text(alphabet="肺𠮷a\r\n", max_size=12), st.data())
def test_offsets_go_there_and_back(text: str, data: st.DataObject) -> None:
    shown = shown_text(text)
    assert "\r" not in shown
    start = data.draw(st.integers(0, len(shown)))
    end = data.draw(st.integers(start, len(shown)))
    first, last = stored_offset(text, start), stored_offset(text, end)
    assert shown_text(text[first:last]) == shown[start:end]
    assert shown_offset(text, first) == start


def test_the_least_sure_comes_first_and_a_conflict_is_told(study: Any) -> None:
    tables = read_exams(study.workspace, ["X2"], "lung_ct")
    sure = {"cardiomegaly": 0.95, "pneumonia": 0.6}
    theirs = pl.col("finding").is_in(list(sure))
    labels = tables.labels.with_columns(
        value=pl.when(theirs).then(pl.lit("present")).otherwise("value"),
        p_present=pl.col("finding").replace_strict(sure, default=0.0, return_dtype=pl.Float64),
        conflict=pl.col("finding") == "cardiomegaly",
    )
    wanted = study.wanted("X2").with_columns(findings=pl.Series([["cardiomegaly", "pneumonia"]]))
    made, _ = review_tasks(
        replace(tables, labels=labels), wanted, study.label_set, study.rules, study.screen, reason_names={}
    )
    check = made[0].data["check_html"]
    assert check.index("rl-doubt-pneumonia") < check.index("rl-doubt-cardiomegaly")
    assert check.count(study.screen.texts.conflict) == 1
