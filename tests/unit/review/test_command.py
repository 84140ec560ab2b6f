"""`reportlabel review`: every command on a small workspace, against a review server in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from reportlabel.errors import ConfigError, InputError, RefusedError
from reportlabel.protocol import load_protocol
from reportlabel.review import command, hand_out
from reportlabel.review.client import TOKEN_VARIABLE
from reportlabel.review.hand_out import without_readings
from reportlabel.schema import EXAM_LABELS, EXAM_VOTES

OUTCOME = {
    "id": "o",
    "from_name": "rl_outcome",
    "to_name": "rl_report",
    "type": "choices",
    "value": {"choices": ["settled"]},
}
LABEL_SET = "lung_ct"


@pytest.fixture
def call(study: Any, server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs a command on the workspace; returns what it printed. ``code``: the exit code that is expected."""

    @contextmanager
    def _client(*_: object) -> Iterator[Any]:
        with server.client() as one:
            yield one

    monkeypatch.setattr(command, "_client", _client)
    monkeypatch.setattr(hand_out, "load_rules", lambda _folder: study.rules)
    monkeypatch.chdir(tmp_path)

    def _call(name: str, *arguments: object, code: int = 0) -> str:
        given = [name, str(study.workspace.folder), *map(str, arguments)]
        done = CliRunner().invoke(command.app, given)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code, done.output
        return done.output

    return _call


def answer(server: Any, project: int, exam: str, **values: str) -> None:
    """A reader of a project answers as predicted, but for these values."""
    task = next(one for one in server.tasks.values() if (one["project"], one["data"]["exam_id"]) == (project, exam))
    result = [
        {**item, "value": {"choices": [values[item["from_name"]]]}} if item["from_name"] in values else item
        for item in task["predictions"][0]["result"]
    ]
    now = server.now()
    task["annotations"].append(
        {
            "id": len(server.calls) + 10_000,
            "created_at": now,
            "updated_at": now,
            "completed_by": 7,
            "was_cancelled": False,
            "lead_time": 12.0,
            "result": [*result, OUTCOME],
        }
    )
    task["updated_at"] = now


def project(study: Any, name: str) -> int:
    return next(int(one.number) for one in study.ledger.projects() if one.name == name)


def exams_in(server: Any, number: int) -> list[str]:
    return sorted(one["data"]["exam_id"] for one in server.tasks.values() if one["project"] == number)


def test_one_project_for_all(call: Any, study: Any, server: Any) -> None:
    assert "made or updated" in call("setup", "--label-set", LABEL_SET)
    assert "unchanged" in call("setup")
    call("push", "--exams", 2)
    number = project(study, LABEL_SET)
    first = exams_in(server, number)
    assert len(first) == 2
    call("push", "--exams", 2)
    assert exams_in(server, number) == first and server.calls.count(f"POST /api/projects/{number}/import") == 1
    # a larger number adds exams, and never changes those that were given out
    call("push", "--exams", 3)
    assert exams_in(server, number) == ["X1", "X2", "X3"]
    assert study.ledger.chosen()["priority"].sort().to_list() == [1, 2, 3]
    tasks = {one["data"]["exam_id"]: one["data"] for one in server.tasks.values()}
    assert {data["reason"] for data in tasks.values()} <= {
        "判定が微妙",
        "報告書と記録が不一致",
        "まれな所見",
        "無作為の点検",
    }
    answer(server, number, "X1", nodule_or_mass="uncertain")
    call("pull")
    readings = study.workspace.read("readings").filter(finding="nodule_or_mass")
    assert readings.select("exam_id", "value", "origin").rows() == [("X1", "uncertain", "changed")]
    shown = call("status")
    assert LABEL_SET in shown and "12" in shown


def test_two_readers_who_do_not_see_each_other(call: Any, study: Any, server: Any, tmp_path: Path) -> None:
    call("setup", "--label-set", LABEL_SET, "--reader", "佐藤", "--reader", "伊藤")
    one, two = project(study, "lung_ct-reader-A"), project(study, "lung_ct-reader-B")
    assert all("佐藤" not in str(made) and "伊藤" not in str(made) for made in server.projects.values())
    # every exam to both
    both = study.ledger.chosen().clear()
    rows: list[tuple[object, ...]] = [
        (exam, LABEL_SET, "audit", at, [], ["佐藤", "伊藤"]) for at, exam in enumerate(["X1", "X2", "X3"], start=1)
    ]
    study.ledger.keep_chosen(pl.DataFrame(rows, schema=both.schema, orient="row"))
    call("push", "--exams", 3)
    assert exams_in(server, one) == exams_in(server, two) == ["X1", "X2", "X3"]
    for exam in ("X1", "X2", "X3"):
        answer(server, one, exam, pneumonia="present")
        answer(server, two, exam, pneumonia="absent" if exam == "X1" else "present")
    call("pull")
    out = tmp_path / "agreement.csv"
    assert "pneumonia" in call("agreement", "--out", out)
    observed = pl.read_csv(out).filter(finding="pneumonia", measure="observed").drop_nulls("other")
    assert observed["value"].to_list() == pytest.approx([2 / 3])
    with pytest.raises(ConfigError, match="no reader"):
        call("adjudicate", "--adjudicator", "佐藤")
    call("adjudicate", "--adjudicator", "部長")
    third = project(study, "lung_ct-adjudication")
    assert exams_in(server, third) == ["X1"]
    (task,) = [one for one in server.tasks.values() if one["project"] == third]
    check = task["data"]["check_html"]
    assert ("A：あり　B：なし" in check) != ("A：なし　B：あり" in check)
    assert "佐藤" not in str(task) and "伊藤" not in str(task)
    answer(server, third, "X1", pneumonia="uncertain")
    call("pull")
    assert "agree on all" in call("adjudicate", "--adjudicator", "部長")
    said = study.workspace.read("readings").filter(exam_id="X1", finding="pneumonia")
    assert dict(said.select("reader", "value").iter_rows()) == {
        "佐藤": "present",
        "伊藤": "absent",
        "部長": "uncertain",
    }


def test_readings_that_may_be_slips(call: Any, study: Any, server: Any, tmp_path: Path) -> None:
    out = tmp_path / "slips.csv"
    with pytest.raises(InputError, match="no readings yet"):
        call("slips", "--out", out)
    exams = study.workspace.read("exams").with_columns(modality_class=pl.lit("CT"), body_part=pl.lit("胸部"))
    study.workspace.replace_part("exams", 0, exams)
    vote = {"exam_id": "X2", "label_set": LABEL_SET, "finding": "pneumonia", "function_id": "rule", "value": "present"}
    votes = pl.DataFrame([vote | {"confidence": 1.0, "group": "rule", "kind": "rule"}], schema=EXAM_VOTES)
    study.workspace.replace_part("votes", 0, votes)
    call("setup", "--label-set", LABEL_SET)
    call("push", "--exams", 12)
    for exam in ("X1", "X2"):
        answer(server, project(study, LABEL_SET), exam, pneumonia="present")
    call("pull")
    assert "readings may be slips" in call("slips", "--out", out)
    sure = dict(pl.read_csv(out).filter(finding="pneumonia").select("exam_id", "quality").iter_rows())
    assert sure["X1"] < 0.5 < sure["X2"]  # nothing in the report of X1 says so


def test_an_exam_that_somebody_read_is_not_sent_with_his_answer(call: Any, study: Any, server: Any) -> None:
    call("setup", "--label-set", LABEL_SET)
    call("push", "--exams", 3)
    number = project(study, LABEL_SET)
    before = {one["data"]["exam_id"]: one for one in server.tasks.values()}
    # the next run: a reader's word is the label
    labels = study.workspace.read("labels")
    is_x1 = pl.col("exam_id") == "X1"
    read = labels.with_columns(
        value=pl.when(is_x1 & (pl.col("finding") == "pneumonia")).then(pl.lit("present")).otherwise("value"),
        review_state=pl.when(is_x1).then(pl.lit("reviewed")).otherwise("review_state"),
    )
    study.workspace.replace_part("labels", 0, read)
    study.workspace.take_snapshot("second", study.workspace.snapshots()["made_at"][0])
    call("push", "--exams", 3)
    assert {one["data"]["exam_id"]: one for one in server.tasks.values()} == before
    # the report changed: the task is made anew, without the answer
    study.change_report("X1", "胸水なし。")
    call("push", "--exams", 3)
    (task,) = [one for one in server.tasks.values() if one["data"]["exam_id"] == "X1"]
    assert task["data"]["text"] == "胸水なし。" and task["project"] == number
    shown = {one["from_name"]: one["value"] for one in task["predictions"][0]["result"]}
    assert shown["pneumonia"] == {"choices": ["not_mentioned"]}


def test_labels_without_readings() -> None:
    def _row(value: str, state: str, *votes: tuple[str, str]) -> dict[str, object]:
        evidence = [{"function_id": "f", "kind": kind, "value": said, "evidence": "0-1"} for kind, said in votes]
        return dict.fromkeys(EXAM_LABELS) | {
            "value": value,
            "p_present": 0.9,
            "review_state": state,
            "evidence": evidence,
        }

    rows = [
        _row("present", "unreviewed", ("rule", "absent")),
        _row("present", "reviewed", ("rule", "absent"), ("rule", "uncertain"), ("record", "present")),
        _row("absent", "adjudicated", ("record", "present")),
        _row("left", "reviewed", ("rule", "right")),
        _row("absent", "reviewed", ("rule", "absent"), ("bert", "present")),
    ]
    found = without_readings(pl.DataFrame(rows, schema=EXAM_LABELS, orient="row"))
    assert found["value"].to_list() == ["present", "uncertain", "not_mentioned", "right", "present"]
    assert found["p_present"].to_list() == [0.9, None, None, None, None]


def test_what_is_refused_is_listed_in_a_file(call: Any, study: Any, server: Any) -> None:
    call("setup", "--label-set", LABEL_SET)
    call("push", "--exams", 3)
    answer(server, project(study, LABEL_SET), "X1", pneumonia="maybe")
    told = call("pull", code=1)
    file = study.workspace.folder / "review" / "pull-problems.csv"
    assert "X1" not in told and pl.read_csv(file)["exam_id"].to_list() == ["X1"]
    next(one for one in server.tasks.values() if one["data"]["exam_id"] == "X1")["annotations"].clear()
    call("pull")
    assert not file.exists()


def test_withdrawal(call: Any, study: Any, server: Any, tmp_path: Path) -> None:
    call("setup", "--label-set", LABEL_SET)
    call("push", "--exams", 3)
    number = project(study, LABEL_SET)
    for exam in ("X1", "X2", "X3"):
        answer(server, number, exam)
    call("pull")
    (patients := tmp_path / "patients.txt").write_text("PX1\n", encoding="utf-8")
    assert "1 tasks deleted" in call("withdraw", "--patients", patients)
    assert exams_in(server, number) == ["X2", "X3"]
    assert sorted(study.workspace.read("readings")["exam_id"].unique()) == ["X2", "X3"]
    assert "X1" not in study.ledger.chosen()["exam_id"]
    # an exam that the workspace no longer has
    study.workspace.remove("exams", "exam_id", ["X2"])
    call("withdraw", "--gone")
    assert exams_in(server, number) == ["X3"]
    with pytest.raises(ConfigError, match="whose exams"):
        call("withdraw")
    (tmp_path / "none.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(InputError, match="is empty"):
        call("withdraw", "--exams", tmp_path / "none.txt")


def test_wrong_use(call: Any, study: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no label set is named"):
        call("setup")
    with pytest.raises(ConfigError, match="the workspace has labels of lung_ct"):
        call("setup", "--label-set", "chexpert_14")
    with pytest.raises(ConfigError, match="run `reportlabel review setup` first"):
        call("push")
    with pytest.raises(InputError, match="no review project"):
        call("status")
    with pytest.raises(InputError, match="read by two readers"):
        call("agreement")
    with pytest.raises(ConfigError, match=r"ends in .csv or .parquet"):
        call("agreement", "--out", tmp_path / "a.txt")
    with pytest.raises(InputError, match="no readings yet"):
        call("suggest")
    call("setup", "--label-set", LABEL_SET)
    with pytest.raises(ConfigError, match="--exams -1"):
        call("push", "--exams", -1)
    with pytest.raises(ConfigError, match="it has no project"):
        call("push", "--label-set", "chexpert_14")


def test_suggestions_and_guide(call: Any, study: Any, server: Any, tmp_path: Path) -> None:
    call("setup", "--label-set", LABEL_SET)
    call("push", "--exams", 3)
    answer(server, project(study, LABEL_SET), "X1", nodule_or_mass="absent")
    call("pull")
    assert "phrases: 0 missed, 0 misread" in call("suggest")
    done = CliRunner().invoke(command.app, ["guide", str(tmp_path / "guide.md"), "--label-set", LABEL_SET])
    assert done.exit_code == 0 and "胸水" in (tmp_path / "guide.md").read_text(encoding="utf-8")


def test_K14_the_protocol_of_a_study_says_where_it_may_be_reviewed(call: Any, study: Any) -> None:
    protocol = load_protocol("keio_2017_0018")
    said = {
        "study": protocol.id,
        "protocol": protocol.id,
        "protocol_sha256": protocol.sha256,
        "linkage": "linkage",
        "store": "0",
        "staging": "staging",
        "id_width": None,
    }
    (study.workspace.folder / "study.json").write_text(json.dumps(said))
    for name in ("setup", "push", "pull"):
        with pytest.raises(RefusedError, match="K14"):
            call(name, "--url", "https://review.example.com", "--label-set", LABEL_SET)
    call("setup", "--label-set", LABEL_SET)  # this machine


def test_the_token_of_the_local_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    home = tmp_path / "server"
    home.mkdir()
    (home / "login.json").write_text('{"user": "u", "password": "p", "token": "local"}', encoding="utf-8")
    with command._client("http://127.0.0.1:1", None, home) as client:
        assert client._token == "local"
    monkeypatch.setenv(TOKEN_VARIABLE, "given")
    with command._client("http://127.0.0.1:1", None, home) as client:
        assert client._token == "given"
    # the token of this machine's server goes nowhere else
    monkeypatch.delenv(TOKEN_VARIABLE)
    with (
        pytest.raises(ConfigError, match="no token"),
        command._client("https://labels.example.jp", ["labels.example.jp"], home),
    ):
        pass


def test_a_folder_that_is_no_workspace(tmp_path: Path) -> None:
    done = CliRunner().invoke(command.app, ["status", str(tmp_path)])
    assert isinstance(done.exception, ConfigError)
