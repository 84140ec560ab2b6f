"""Incidental findings: noted by code, decided on, told through the custodian to those who wished it, and logged."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reportlabel.consent import command
from reportlabel.consent.incidental import decide, note, open_findings
from reportlabel.deidentify.audit import entries
from reportlabel.deidentify.linkage import LinkageStore, make_key_file
from reportlabel.errors import ConfigError, InputError, RefusedError
from reportlabel.protocol import load_protocol

GUNMA = load_protocol("gunma_bone_scan")
OFFICE = GUNMA.custodian.office
DAY = date(2024, 5, 1)
WHO: dict[str, Any] = {"today": DAY, "actor": "reader 1"}


@pytest.fixture
def store(tmp_path: Path) -> LinkageStore:
    return LinkageStore.create(
        tmp_path / "linkage",
        study=GUNMA.id,
        key_source=make_key_file(tmp_path / "study.key"),
        custodian=OFFICE,
        actor="a",
        purpose="p",
        workspace=None,
    )


@pytest.fixture
def exam(store: LinkageStore) -> str:
    return str(store.issue("exam", ["original"], actor="a", purpose="p")["code"][0])


def test_B21_noted_decided_told(store: LinkageStore, exam: str) -> None:
    note(store, GUNMA, exam, **WHO)
    assert open_findings(store, actor="a").select("exam_id", "step", "wish").rows() == [(exam, "noted", "unknown")]
    decide(store, GUNMA, exam, "disclose", wish="yes", custodian=OFFICE, **WHO)
    decide(store, GUNMA, exam, "told", wish="yes", custodian=OFFICE, **WHO)
    assert open_findings(store, actor="a")["step"].to_list() == ["told"]
    assert {"put", "get", "lookup"} <= {one.action for one in entries(store.log.path)}
    assert store.problems() == []


@pytest.mark.parametrize("wish", ["no", "unknown"])
def test_B21_nobody_is_told_who_did_not_wish_it(store: LinkageStore, exam: str, wish: Any) -> None:
    note(store, GUNMA, exam, **WHO)
    with pytest.raises(RefusedError, match="B21"):
        decide(store, GUNMA, exam, "disclose", wish=wish, custodian=OFFICE, **WHO)
    decide(store, GUNMA, exam, "withhold", wish=wish, custodian=OFFICE, **WHO)
    with pytest.raises(InputError, match="before 'told' comes disclose"):
        decide(store, GUNMA, exam, "told", wish="yes", custodian=OFFICE, **WHO)


def test_B21_through_the_custodian_alone(store: LinkageStore, exam: str) -> None:
    note(store, GUNMA, exam, **WHO)
    with pytest.raises(ConfigError, match="only the custodian"):
        decide(store, GUNMA, exam, "disclose", wish="yes", custodian="reader 1", **WHO)
    assert "lookup refused" in {one.action for one in entries(store.log.path)}
    assert open_findings(store, actor="a")["step"].to_list() == ["noted"]


def test_B21_what_cannot_be_noted(store: LinkageStore, exam: str) -> None:
    with pytest.raises(RefusedError, match="discloses no incidental findings"):
        note(store, load_protocol("keio_2017_0018"), exam, **WHO)
    with pytest.raises(InputError, match="no exam of the study"):
        note(store, GUNMA, "E-0000000000", **WHO)
    with pytest.raises(InputError, match="not noted"):
        decide(store, GUNMA, exam, "withhold", wish="no", custodian=OFFICE, **WHO)
    note(store, GUNMA, exam, **WHO)
    with pytest.raises(InputError, match="noted already"):
        note(store, GUNMA, exam, **WHO)


def test_B21_the_commands(store: LinkageStore, exam: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_today", lambda: DAY)
    shared = ["--protocol=gunma_bone_scan", f"--key-file={tmp_path / 'study.key'}", "--actor=a"]

    def call(*arguments: str) -> str:
        done = CliRunner().invoke(command.consent_app, ["incidental", *arguments, *shared], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    linkage = str(tmp_path / "linkage")
    assert "noted" in call("note", linkage, exam)
    assert exam in call("list", linkage)
    assert "withhold" in call("decide", linkage, exam, "withhold", "--wish=no", f"--custodian={OFFICE}")
    monkeypatch.setattr(command, "_today", lambda: date(2031, 1, 1))
    with pytest.raises(RefusedError, match="B22"):
        call("note", linkage, exam)
