"""A withdrawal that is killed at any moment is finished by the next one; nothing stays behind on the disk."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from reportlabel.consent.refusals import read_refusals
from reportlabel.consent.withdrawal import (
    loose_rows,
    people_there,
    people_to_remove,
    raw_stores,
    remove_people,
)
from reportlabel.errors import ConfigError, InputError
from reportlabel.protocol import load_protocol
from reportlabel.run import open_workspace
from reportlabel.schema import WORKSPACE
from reportlabel.store import Workspace

SITE, ANNA, BEN = "gunma", "CANARY-70000001", "70000002"
NAMES = ("exams", "reports", "records", "links", "mentions", "votes", "labels", "readings")
NOBODY = pl.DataFrame(schema={"site": pl.String, "patient_id": pl.String})


def rows_of(name: str) -> pl.DataFrame:
    """One row of Anna's and one of Ben's, with every key that the table has."""
    rows = [
        {"exam_id": f"{who}-exam", "report_id": f"{who}-report", "record_id": f"{who}-record", "site": SITE,
         "patient_id": patient, "text": f"text of {patient}", "kind": "lab"}
        for who, patient in (("anna", ANNA), ("ben", BEN))
    ]  # fmt: skip
    schema = WORKSPACE[name]
    return pl.DataFrame([{column: row.get(column) for column in schema} for row in rows], schema=schema, orient="row")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = open_workspace(tmp_path / "ws", create=True, parts=1)
    for name in NAMES:
        if name == "readings":
            made.append(name, rows_of(name))
        else:
            made.replace_part(name, 0, rows_of(name))
    batch = made.folder / "raw" / "rows" / "abc"
    batch.mkdir(parents=True)
    pl.DataFrame({"site": [SITE, SITE], "patient_id": [ANNA, BEN]}).write_parquet(batch / "exams.parquet")
    made.take_snapshot("first", datetime(2024, 1, 1, tzinfo=UTC).replace(tzinfo=None))
    return made


def people_of(workspace: Workspace, folder: Path) -> pl.DataFrame:
    path = folder / "list.csv"
    path.write_text(f"site,patient_id,scope,requester\n{SITE},{ANNA},all,patient\n", encoding="utf-8")
    protocol = load_protocol("gunma_bone_scan")
    return people_to_remove(
        workspace, raw_stores(workspace), read_refusals(path).rows, protocol, today=date(2024, 4, 1)
    )


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


KILLED = """
import os, signal
from pathlib import Path
import polars as pl
from reportlabel.consent.withdrawal import raw_stores, remove_people
from reportlabel.ingest.raw import RawStore
from reportlabel.run import open_workspace
from reportlabel.store import Workspace

def die(*_a, **_k):
    os.kill(os.getpid(), signal.SIGKILL)

def dies_after(owner, name, calls):
    real, left = getattr(owner, name), [calls]
    def called(*a, **k):
        done = real(*a, **k)
        left[0] -= 1
        if not left[0]:
            die()
        return done
    setattr(owner, name, called)

{patch}
workspace = open_workspace(Path({folder!r}))
people = pl.DataFrame({{"site": [{site!r}], "patient_id": [{patient!r}]}})
remove_people(workspace, raw_stores(workspace), people, exams_to=Path({exams!r}))
"""
MOMENTS = {
    "after the first table": 'dies_after(Workspace, "remove", 1)',
    "before the rows of the readers": "RawStore.remove_patients = die",
    "before old versions go": "Workspace.vacuum = die",
    "after old versions went": 'dies_after(Workspace, "vacuum", 1)',
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_K16_a_killed_withdrawal_is_finished_by_the_next_one(workspace: Workspace, tmp_path: Path, moment: str) -> None:
    exams = tmp_path / "gone.csv"
    script = KILLED.format(
        patch=MOMENTS[moment], folder=str(workspace.folder), site=SITE, patient=ANNA, exams=str(exams)
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not exams.exists()
    note = workspace.folder / "withdrawal.json"
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    # even where nothing of her is found any more, and whoever is on the list now
    people = people_of(workspace, tmp_path) if moment != "after old versions went" else NOBODY
    raw = raw_stores(workspace)
    again = remove_people(workspace, raw, people, exams_to=exams)
    assert again.exams == ("anna-exam",)
    assert exams.read_text() == "exam_id\nanna-exam\n"
    assert again.patients == (ANNA,)
    assert again.rows["left"].sum() == 0
    for name in NAMES:
        left = workspace.read(name)
        assert left.height == 1, name
        assert "anna" not in left.write_json(), name
        assert workspace.read(name, version=workspace.versions()[name]).equals(left), "the last version can be read"
    assert not note.exists()
    assert ANNA.encode() not in bytes_of(workspace.folder)
    assert BEN.encode() in bytes_of(workspace.folder)
    third = remove_people(workspace, raw, people_of(workspace, tmp_path))
    assert (third.people, third.exams, third.rows.height) == (0, (), 0)


def test_a_note_that_cannot_be_read_stops_the_withdrawal(workspace: Workspace) -> None:
    (workspace.folder / "withdrawal.json").write_text("{")
    with pytest.raises(ConfigError, match=r"withdrawal\.json cannot be read"):
        remove_people(workspace, [], NOBODY)


def test_rows_of_exams_that_are_not_there_are_counted(workspace: Workspace) -> None:
    assert loose_rows(workspace) == {}
    workspace.remove("exams", "exam_id", ["anna-exam"])  # as a program of old left it that was killed
    assert loose_rows(workspace) == dict.fromkeys(("reports", "links", "votes", "labels", "readings"), 1)


def test_half_a_batch_of_a_killed_reading_is_no_trouble_and_goes(workspace: Workspace, tmp_path: Path) -> None:
    rows = workspace.folder / "raw" / "rows"
    half = rows / ".0123"
    half.mkdir()
    (half / "exams.parquet").write_bytes(b"PAR1" + ANNA.encode())
    (rows / "abc" / "exams.new").write_bytes(ANNA.encode())
    raw = raw_stores(workspace)
    assert people_there(workspace, raw).height == 2
    remove_people(workspace, raw, people_of(workspace, tmp_path))
    assert sorted(path.name for path in rows.rglob("*")) == ["abc", "exams.parquet"]
    assert ANNA.encode() not in bytes_of(workspace.folder)
    half.mkdir()
    remove_people(workspace, raw, NOBODY)
    assert not half.exists(), "also where nobody is to leave: who was in it is on no table"


def test_a_damaged_batch_is_named(workspace: Workspace) -> None:
    (workspace.folder / "raw" / "rows" / "abc" / "exams.parquet").write_bytes(b"PAR1nonsense")
    with pytest.raises(InputError, match=r"exams\.parquet: cannot be read"):
        people_there(workspace, raw_stores(workspace))
