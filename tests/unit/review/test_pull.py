"""What readers say becomes readings once, completely, and only where it fits the report."""

from __future__ import annotations

import copy
from typing import Any

import polars as pl
import pytest

from reportlabel.review.pull import Pulled, origin_of, pull, status
from reportlabel.review.push import push, setup_project

OUTCOME = {"id": "o", "from_name": "rl_outcome", "type": "choices", "value": {"choices": ["settled"]}}


class Desk:
    """A reader's desk: a project with three exams, and the ways to answer and to pull."""

    def __init__(self, study: Any, server: Any, **options: Any) -> None:
        self.study, self.server = study, server
        self.client = server.client()
        self.name = options.pop("name", study.label_set.id)
        self.project, _ = setup_project(
            self.client, study.ledger, study.label_set, study.rules, study.screen, name=self.name, **options
        )
        self.tasks = {task.exam_id: task for task in study.tasks()}
        push(self.client, study.ledger, self.project, list(self.tasks.values()))

    def result(self, exam: str, outcome: str = "settled", **values: str) -> list[dict[str, Any]]:
        result = copy.deepcopy(self.tasks[exam].result)
        for item in result:
            if item["from_name"] in values:
                item["value"] = {"choices": [values[item["from_name"]]]}
        return [*result, OUTCOME | {"value": {"choices": [outcome]}}]

    def pull(self, **options: Any) -> Pulled:
        project = self.study.ledger.project(self.client.url, self.name)
        study = self.study
        return pull(
            self.client, study.ledger, project, study.workspace, study.label_set, study.rules, study.screen, **options
        )

    @property
    def readings(self) -> pl.DataFrame:
        return self.study.workspace.read("readings")


@pytest.fixture
def desk(study: Any, server: Any) -> Desk:
    return Desk(study, server)


def test_an_answer_becomes_one_reading_a_label(desk: Desk) -> None:
    desk.server.annotate("X2", desk.result("X2", pneumonia="absent", ascites="present"))
    done = desk.pull()
    assert (done.annotations, done.readings, done.problems.height) == (1, 27, 0)
    said = {row["finding"]: row for row in desk.readings.iter_rows(named=True)}
    assert len(said) == 27
    assert (said["pneumonia"]["value"], said["pneumonia"]["origin"]) == ("absent", "changed")
    assert (said["ascites"]["value"], said["ascites"]["origin"]) == ("present", "added")
    assert (said["pleural_effusion"]["value"], said["pleural_effusion"]["origin"]) == ("present", "confirmed")
    assert said["primary_size_mm"]["value"] == "not_mentioned"
    assert said["ascites"]["reader"] == "user-7"
    assert len({row["sha256"] for row in said.values()}) == 1


def test_spans_are_offsets_into_the_report_as_it_is_stored(desk: Desk, study: Any) -> None:
    drawn = {"start": 13, "end": 18, "text": "胸水を認め"}
    region = {"id": "r", "to_name": "rl_report"}
    added = [
        region | {"from_name": "rl_span", "type": "labels", "value": {**drawn, "labels": ["present"]}},
        region | {"from_name": "rl_span_finding", "type": "taxonomy", "value": {**drawn, "taxonomy": [["ascites"]]}},
    ]
    desk.server.annotate("X2", desk.result("X2") + added)
    desk.pull()
    stored = study.workspace.read("reports").filter(pl.col("exam_id") == "X2")["text"][0]
    (spans,) = desk.readings.filter(pl.col("finding") == "ascites")["spans"]
    (span,) = spans
    assert stored[span["start"] : span["end"]] == "胸水を認め"
    assert "\r\n" in stored[: span["start"]]


def test_pulling_again_adds_nothing_and_a_changed_answer_adds_a_version(desk: Desk) -> None:
    first = desk.server.annotate("X1", desk.result("X1"))
    assert desk.pull().readings == 27
    before = desk.readings
    for everything in (False, True):
        done = desk.pull(everything=everything)
        assert (done.readings, done.unchanged) == (0, 1)
    assert desk.readings.equals(before)
    desk.server.annotate("X1", desk.result("X1", pleural_effusion="present"), of=first["id"])
    assert desk.pull().readings == 27
    of_effusion = desk.readings.filter(pl.col("finding") == "pleural_effusion").sort("read_at")
    assert of_effusion["value"].to_list() == ["absent", "present"]
    assert of_effusion["annotation_id"].n_unique() == 1 and of_effusion["sha256"].n_unique() == 2


def test_only_what_is_newer_is_fetched(desk: Desk) -> None:
    desk.server.annotate("X1", desk.result("X1"))
    desk.pull()
    desk.server.clock += 3600
    desk.server.annotate("X3", desk.result("X3"))
    done = desk.pull()
    # the last answer is looked at again with what came ten minutes before it
    assert (done.annotations, done.unchanged) == (1, 1)
    done = desk.pull()
    assert (done.annotations, done.unchanged) == (0, 1)


def test_what_was_refused_is_listed_until_it_is_mended(desk: Desk) -> None:
    broken = desk.server.annotate("X1", [item for item in desk.result("X1") if item["from_name"] != "ascites"])
    assert desk.pull().problems.height == 1
    for _ in range(2):
        desk.server.clock += 3600
        desk.server.annotate("X3", desk.result("X3"))
        assert desk.pull().problems.height == 1
    desk.server.annotate("X1", desk.result("X1"), of=broken["id"])
    done = desk.pull()
    assert (done.readings, done.problems.height) == (27, 0)


def test_a_pull_that_is_cut_off_adds_nothing_twice(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.server.annotate("X1", desk.result("X1"))

    def _die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(desk.study.ledger, "keep_annotations", _die)
        with pytest.raises(KeyboardInterrupt):
            desk.pull()
    assert desk.readings.height == 27
    desk.pull()
    assert desk.readings.height == 27
    assert desk.study.ledger.annotations().height == 1


def test_a_missing_finding_is_refused_with_its_name(desk: Desk) -> None:
    result = [item for item in desk.result("X1") if item["from_name"] != "ascites"]
    broken = desk.server.annotate("X1", result)
    done = desk.pull()
    assert done.readings == 0 and desk.readings.is_empty()
    (problem,) = done.problems.iter_rows(named=True)
    assert problem["reason"] == "ascites is not answered." and problem["exam_id"] == "X1"
    assert problem["annotation_id"].endswith(f"/{broken['id']}") and "Update" in problem["remedy"]


def test_moved_words_are_refused(desk: Desk) -> None:
    result = desk.result("X1")
    for item in result:
        if item["from_name"] == "rl_span":
            item["value"] |= {"start": item["value"]["start"] - 1, "end": item["value"]["end"] - 1}
            break
    desk.server.annotate("X1", result)
    assert desk.pull().problems["reason"].to_list() == ["Coloured words are not those of the report at their place."]
    assert desk.readings.is_empty()


def test_an_answer_to_an_earlier_report_is_refused(desk: Desk) -> None:
    desk.server.annotate("X1", desk.result("X1"))
    desk.study.change_report("X1", "右上葉に結節を認めない。")
    assert desk.pull().problems["reason"].to_list() == ["The report changed after it was sent to the reader."]
    assert desk.readings.is_empty()


def test_exams_that_are_not_settled_stay_in_the_ledger(desk: Desk) -> None:
    desk.server.annotate("X1", desk.result("X1", outcome="second_look"))
    desk.server.annotate("X2", desk.result("X2", outcome="unfit"))
    done = desk.pull()
    assert (done.annotations, done.readings, done.held) == (2, 0, 2)
    assert sorted(desk.study.ledger.annotations()["outcome"]) == ["second_look", "unfit"]
    assert desk.pull().held == 0


def test_skipped_and_foreign_tasks_are_told_apart(desk: Desk) -> None:
    desk.server.annotate("X1", [])["was_cancelled"] = True
    task = next(one for one in desk.server.tasks.values() if one["data"]["exam_id"] == "X2")
    task["data"] = task["data"] | {"exam_id": "Y9"}
    desk.server.annotate("Y9", desk.result("X2"))
    done = desk.pull()
    assert done.cancelled == 1
    assert done.problems["reason"].to_list() == ["The task was not sent by this workspace."]


def test_readers_are_those_of_their_projects(study: Any, server: Any) -> None:
    one = Desk(study, server, name="lung_ct-reader-A", reader="sato")
    for task in server.tasks.values():
        task["annotations"] = []
    one.server.annotate("X1", one.result("X1"))
    one.pull()
    assert one.readings["reader"].unique().to_list() == ["sato"]


def test_the_status_counts_what_is_done(desk: Desk) -> None:
    desk.server.annotate("X1", desk.result("X1"))
    desk.server.annotate("X2", desk.result("X2", outcome="second_look"))
    desk.pull()
    (row,) = status(desk.study.ledger).iter_rows(named=True)
    assert (row["sent"], row["done"], row["remaining"], row["settled"], row["second_look"]) == (3, 2, 1, 1, 1)
    assert row["median_seconds"] == 12.5 and row["exams_per_hour"] == 288.0


@pytest.mark.parametrize(
    ("value", "predicted", "origin"),
    [
        ("present", "present", "confirmed"),
        ("present", "absent", "changed"),
        ("not_mentioned", "present", "changed"),
        ("present", "not_mentioned", "added"),
        ("present", None, "added"),
    ],
)
def test_origin_is_what_the_reader_did_to_the_answer(value: str, predicted: str | None, origin: str) -> None:
    assert origin_of(value, predicted) == origin
