"""What a study holds of a patient: asked by the custodian, counted, logged, and without a word of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reportlabel.consent import command
from reportlabel.consent.holdings import HOLDINGS, holdings
from reportlabel.deidentify.audit import entries
from reportlabel.errors import ConfigError, RefusedError
from tests.unit.export.study_workspace import DAY, World

OFFICE = "各機関の個人情報管理部署"
ASKED: dict[str, Any] = {"custodian": OFFICE, "actor": "office", "purpose": "request for disclosure"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_T11_what_is_held_of_a_patient(world: World) -> None:
    done = world.hand()
    code = world.codes["code"][7]
    found = holdings(world.workspace, world.store, site="aoba", patient_id=world.id_of[code], **ASKED)
    assert found.schema == HOLDINGS
    assert dict(found.iter_rows()) == {
        "exams": 1,
        "labels": 4,
        f"handed over: {done.bundle} to institution on {DAY}": 1,
    }
    logged = [one for one in entries(world.store.log.path) if one.action == "lookup"]
    assert [one.records for one in logged] == [(code,)]
    assert holdings(world.workspace, world.store, site="sato", patient_id="00000007", **ASKED).is_empty()


def test_T11_only_the_custodian_asks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_today", lambda: DAY)
    with pytest.raises(ConfigError, match="custodian"):
        holdings(world.workspace, world.store, site="aoba", patient_id="00000007", **{**ASKED, "custodian": "me"})

    def asked(custodian: str, typed: str = "7", site: str = "aoba") -> Any:
        arguments = [
            "holdings", str(world.workspace.folder), f"--site={site}", f"--custodian={custodian}", "--purpose=request",
            "--actor=office", f"--key-file={world.folder / 'keys' / 'study.key'}",
        ]  # fmt: skip
        return CliRunner().invoke(command.consent_app, arguments, input=f"{typed}\n")

    assert isinstance(asked("somebody").exception, RefusedError)
    told = asked(OFFICE)
    assert told.exit_code == 0
    assert "labels" in told.output
    assert "00000007" not in told.output
    assert "holds nothing of this patient" in asked(OFFICE, "999").output
    assert isinstance(asked(OFFICE, "").exception, ConfigError)
    assert "labels" in asked(OFFICE, site=" 青葉 ").output, "the hospital is known by its name"
    wrong = asked(OFFICE, site="aobe").exception
    assert isinstance(wrong, ConfigError), "not `holds nothing`: it was not looked for"
    assert "there are aoba" in str(wrong)
