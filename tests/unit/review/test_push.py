"""Pushing again changes nothing; a push that is cut off anywhere goes on without copies and without gaps."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from dataclasses import replace
from datetime import datetime
from typing import Any

import httpx
import pytest

from reportlabel.errors import ConfigError
from reportlabel.review.client import ServerError
from reportlabel.review.ledger import LEDGER_FILE, Ledger
from reportlabel.review.pull import pull
from reportlabel.review.push import Pushed, push, setup_project, withdraw

OUTCOME = {"id": "o", "from_name": "rl_outcome", "type": "choices", "value": {"choices": ["settled"]}}


def setup(study: Any, client: Any, **options: Any) -> Any:
    return setup_project(client, study.ledger, study.label_set, study.rules, study.screen, **options)[0]


def counts(pushed: Pushed) -> tuple[int, ...]:
    return (pushed.new, pushed.updated, pushed.unchanged, pushed.answered, pushed.waiting, pushed.repaired)


def exams(server: Any) -> Counter[str]:
    return Counter(task["data"]["exam_id"] for task in server.tasks.values())


def pulled(study: Any, client: Any, project: Any) -> Any:
    return pull(client, study.ledger, project, study.workspace, study.label_set, study.rules, study.screen)


# --- setup


def test_a_project_is_made_once_and_brought_up_to_date(study: Any, server: Any) -> None:
    client = server.client()
    made, changed = setup_project(client, study.ledger, study.label_set, study.rules, study.screen)
    assert changed and server.projects[made.number]["sampling"] == "Uncertainty sampling"
    assert [view["data"]["title"] for view in server.views] == ["未確認", "要確認を先に", "確認済み"]
    again, changed = setup_project(client, study.ledger, study.label_set, study.rules, study.screen)
    assert (again, changed) == (made, False)
    newer = study.label_set.model_copy(update={"findings": study.label_set.findings[:5]})
    updated, changed = setup_project(client, study.ledger, newer, study.rules, study.screen)
    assert changed and updated.number == made.number and len(server.projects) == 1
    assert "ascites" not in server.projects[made.number]["label_config"]


def test_each_reader_has_a_project_of_his_own(study: Any, server: Any) -> None:
    client = server.client()
    one = setup(study, client, name="lung_ct-reader-A", reader="sato")
    two = setup(study, client, name="lung_ct-reader-B", reader="ito")
    assert one.number != two.number
    assert {one.name: one.reader for one in study.ledger.projects(client.url)} == {
        "lung_ct-reader-A": "sato",
        "lung_ct-reader-B": "ito",
    }


def test_projects_of_others_are_left_alone(study: Any, server: Any) -> None:
    client = server.client()
    client.create_project({"title": "lung_ct", "description": "cats and dogs"})
    with pytest.raises(ConfigError, match="something else; give another --project"):
        setup(study, client)
    with pytest.raises(ConfigError, match="3 to 50 characters"):
        setup(study, client, name="x")
    setup(study, client, name="lung_ct_2")
    bone = study.rules.label_sets["bone_scintigraphy"]
    with pytest.raises(ConfigError, match="belongs to label set 'lung_ct'"):
        setup_project(client, study.ledger, bone, study.rules, study.screen, name="lung_ct_2")


def test_a_project_that_was_deleted_is_made_again(study: Any, server: Any) -> None:
    client = server.client()
    project = setup(study, client)
    push(client, study.ledger, project, study.tasks())
    server.projects.clear()
    server.tasks.clear()
    with pytest.raises(ConfigError, match=r"is gone from .*; run `reportlabel review setup` again"):
        push(client, study.ledger, project, study.tasks())
    assert counts(push(client, study.ledger, setup(study, client), study.tasks())) == (3, 0, 0, 0, 0, 0)


# --- push


def test_pushing_twice_changes_nothing(study: Any, server: Any) -> None:
    client = server.client()
    project = setup(study, client)
    assert counts(push(client, study.ledger, project, study.tasks())) == (3, 0, 0, 0, 0, 0)
    held = json.dumps(server.tasks)
    server.calls.clear()
    assert counts(push(client, study.ledger, project, study.tasks())) == (0, 0, 3, 0, 0, 0)
    assert json.dumps(server.tasks) == held
    assert not any(call.startswith("POST") for call in server.calls)


def test_predictions_go_with_the_task(study: Any, server: Any) -> None:
    client = server.client()
    push(client, study.ledger, setup(study, client), study.tasks("X1"))
    (task,) = server.tasks.values()
    (prediction,) = task["predictions"]
    assert prediction["model_version"] == server.projects[task["project"]]["model_version"]
    assert prediction["score"] == 0.95 and len(prediction["result"]) > 24


class Cut(Exception):
    """The process dies here."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_push_that_is_cut_off_goes_on(study: Any, server: Any, when: str, at: int) -> None:
    """Before an import reaches the server, and after it but before the answer is noted."""
    client = server.client()
    project = setup(study, client)
    seen = []

    def _cut(request: httpx.Request) -> None:
        if request.url.path.endswith("/import"):
            seen.append(1)
            if len(seen) == at:
                raise Cut

    setattr(server, when, _cut)
    with pytest.raises(Cut):
        push(client, study.ledger, project, study.tasks(), batch=1)
    server.before = server.after = None
    with Ledger(study.workspace.folder) as ledger:
        done = push(server.client(), ledger, project, study.tasks(), batch=1)
        assert exams(server) == Counter({"X1": 1, "X2": 1, "X3": 1})
        # what arrived without being noted is found again
        assert done.repaired == (1 if when == "after" else 0)
        assert done.new == (3 - at if when == "after" else 4 - at)
        assert all(one.state == "sent" for one in ledger.sent(project).values())
        assert {one.task for one in ledger.sent(project).values()} == set(server.tasks)


def test_a_server_that_fails_half_way_loses_nothing(study: Any, server: Any) -> None:
    client = server.client()
    project = setup(study, client)
    seen = []

    def _fail(request: httpx.Request) -> httpx.Response | None:
        if request.url.path.endswith("/import"):
            seen.append(1)
            if len(seen) == 2:
                return httpx.Response(500, text="結節")
        return None

    server.before = _fail
    with pytest.raises(ServerError, match="answered 500") as raised:
        push(client, study.ledger, project, study.tasks(), batch=1)
    assert "結節" not in str(raised.value)
    assert counts(push(client, study.ledger, project, study.tasks(), batch=1)) == (2, 0, 1, 0, 0, 0)
    assert exams(server) == Counter({"X1": 1, "X2": 1, "X3": 1})


def test_copies_and_gaps_on_the_server_are_mended(study: Any, server: Any) -> None:
    client = server.client()
    project = setup(study, client)
    tasks = study.tasks()
    push(client, study.ledger, project, tasks)
    client.import_tasks(project.number, [tasks[0].payload()])
    lost = next(number for number, task in server.tasks.items() if task["data"]["exam_id"] == "X2")
    del server.tasks[lost]
    # one task more and one less give the right number, so that only the next difference is noticed
    client.import_tasks(project.number, [tasks[0].payload()])
    done = push(client, study.ledger, project, tasks)
    assert (done.new, done.repaired) == (1, 2)
    assert exams(server) == Counter({"X1": 1, "X2": 1, "X3": 1})


def test_tasks_of_something_else_stop_the_push(study: Any, server: Any) -> None:
    client = server.client()
    project = setup(study, client)
    client.import_tasks(
        project.number,
        [{"data": {"exam_id": "Y1"}, "predictions": [{}]}, {"data": {"image": "cat"}, "predictions": [{}]}],
    )
    with pytest.raises(ConfigError, match="holds 2 tasks that this workspace did not send"):
        push(client, study.ledger, project, study.tasks())
    assert len(server.tasks) == 2


def test_a_lost_ledger_takes_over_what_is_on_the_server(study: Any, server: Any) -> None:
    client = server.client()
    push(client, study.ledger, setup(study, client), study.tasks())
    study.ledger.close()
    (study.workspace.folder / LEDGER_FILE).unlink()
    with Ledger(study.workspace.folder) as ledger:
        project, _ = setup_project(client, ledger, study.label_set, study.rules, study.screen)
        done = push(client, ledger, project, study.tasks())
        assert (done.new, done.unchanged, done.repaired) == (0, 3, 3)
        assert ledger.sent(project)["X1"].predicted["nodule_or_mass"] == "present"
    assert exams(server) == Counter({"X1": 1, "X2": 1, "X3": 1})


# --- exams that change


def test_a_changed_report_replaces_its_task(study: Any, server: Any) -> None:
    client = server.client()
    project = setup(study, client)
    push(client, study.ledger, project, study.tasks())
    study.change_report("X1", "右上葉に結節を認めない。")
    assert counts(push(client, study.ledger, project, study.tasks())) == (0, 1, 2, 0, 0, 0)
    assert exams(server) == Counter({"X1": 1, "X2": 1, "X3": 1})
    assert [task["data"]["text"] for task in server.tasks.values() if task["data"]["exam_id"] == "X1"] == [
        "右上葉に結節を認めない。"
    ]


def test_an_answered_exam_stays_unless_its_report_changes(study: Any, server: Any) -> None:
    client = server.client()
    project = setup(study, client)
    tasks = study.tasks()
    push(client, study.ledger, project, tasks)
    server.annotate("X1", [*tasks[0].result, OUTCOME])
    # the labels change, the report does not: the answer stands
    labels = study.workspace.read("labels")
    study.workspace.replace_part("labels", 0, labels.with_columns(p_present=labels["p_present"] * 0.9))
    study.workspace.take_snapshot("again", datetime(2026, 2, 1))
    assert counts(push(client, study.ledger, project, study.tasks())) == (0, 2, 0, 1, 0, 0)
    # the report changes: the answer must be pulled before the task goes
    study.change_report("X1", "右上葉に結節を認めない。")
    assert push(client, study.ledger, project, study.tasks()).waiting == 1
    assert pulled(study, client, project).problems["reason"].to_list() == [
        "The report changed after it was sent to the reader."
    ]
    assert push(client, study.ledger, project, study.tasks()).updated == 1
    assert not next(task for task in server.tasks.values() if task["data"]["exam_id"] == "X1")["annotations"]


# --- withdrawal


def test_a_withdrawn_exam_leaves_no_byte(study: Any, server: Any) -> None:
    client = server.client()
    project = setup(study, client)
    tasks = study.tasks()
    push(client, study.ledger, project, tasks)
    remark = {"id": "c", "from_name": "rl_comment", "type": "textarea", "value": {"text": ["再検討したい"]}}
    server.annotate("X1", [*tasks[0].result, OUTCOME, remark])
    pulled(study, client, project)
    # also a task that the ledger does not know
    client.import_tasks(project.number, [tasks[0].payload()])
    path = study.workspace.folder / LEDGER_FILE
    assert b"X1" in path.read_bytes() and "再検討".encode() in path.read_bytes()
    assert withdraw(client, study.ledger, ["X1"]) == (2, [])
    assert exams(server) == Counter({"X2": 1, "X3": 1})
    held = b"".join(one.read_bytes() for one in path.parent.iterdir())
    assert b"X1" not in held and "再検討".encode() not in held
    assert withdraw(client, study.ledger, ["X1"]) == (0, [])


def test_an_exam_on_two_servers_is_remembered_until_it_is_gone_from_both(study: Any, server: Any) -> None:
    """What the other server holds must be found there by --gone: of the exam itself nothing stays but its number."""
    client, tasks = server.client(), study.tasks()
    push(client, study.ledger, setup(study, client), tasks)
    there = replace(study.ledger.projects()[0], server="https://other.test")
    study.ledger.keep_project(there)
    sent = study.ledger.sent(study.ledger.projects(client.url)[0])
    study.ledger.note_sending(there, sent.values(), at=datetime(2026, 5, 1))
    study.ledger.note_sent(there, {exam: one.task for exam, one in sent.items()})
    assert withdraw(client, study.ledger, ["X1"]) == (1, ["https://other.test"])
    assert "X1" not in study.ledger.sent(study.ledger.projects(client.url)[0])
    left = study.ledger.sent(there)["X1"]
    assert (left.text, left.content, dict(left.predicted)) == ("", "", {})
    assert left.task is not None
    assert study.ledger.forget_exams(["X1"], server="https://other.test") == []
    assert b"X1" not in study.ledger.path.read_bytes()


def test_a_wrong_batch_is_told(study: Any, server: Any) -> None:
    client = server.client()
    with pytest.raises(ConfigError, match="--batch 0"):
        push(client, study.ledger, setup(study, client), [], batch=0)


def test_two_commands_at_once_are_told(study: Any) -> None:
    with sqlite3.connect(study.ledger.path, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        study.ledger._db.execute("PRAGMA busy_timeout = 1")
        with pytest.raises(ConfigError, match="in use by another review command"):
            study.ledger.forget_exams(["X1"], server="")
        other.execute("ROLLBACK")
