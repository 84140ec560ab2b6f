"""`reportlabel ingest` and `run` as a person uses them: what is printed, exit codes, and what goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flow.test_run import everything, small_archive


def reportlabel(*arguments: str, cwd: Path, columns: int = 80) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reportlabel", *arguments],
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": str(columns)},
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ingest")
    archive = small_archive(folder / "archive")
    with (archive / "reports.csv").open("a", encoding="utf-8") as file:
        file.write("00000061,女,A61,いつか,09:00,CT,胸部CT,CANARY所見,2024/03/02 12:00:00,1,1.2.392.61\n")
        file.write(",女,A62,2024/03/02,09:00,CT,胸部CT,CANARY所見,2024/03/02 12:00:00,1,1.2.392.62\n")
    (archive / "letter.bin").write_bytes(b"\x00\x01\x02")
    return folder


def test_a_dry_run_counts_and_writes_nothing(place: Path) -> None:
    seen = reportlabel("ingest", "archive", "--workspace", "dry", "--dry-run", "--site", "north", cwd=place)
    assert seen.returncode == 1, seen.stderr
    assert not (place / "dry").exists()
    for told in (
        "2 files (ris_csv), 2 new",
        "north",
        "reports",
        "exams CT",
        "2024-03",
        "what is wrong",
        "reports.csv:",
    ):
        assert told in seen.stdout, (told, seen.stdout)
    assert "CANARY" not in seen.stdout + seen.stderr and "00000061" not in seen.stdout


def test_an_ingest_shows_its_sums_and_keeps_what_was_wrong(place: Path) -> None:
    done = reportlabel("ingest", "archive", "--workspace", "study", cwd=place)
    assert done.returncode == 1, done.stderr
    assert "attrition" in done.stdout and "quarantined, with reason and remedy" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 120
    held = everything(place / "study")
    assert b"CANARY" not in held
    again = reportlabel("ingest", "archive", "--workspace", "study", cwd=place)
    assert "0 read, 2 unchanged" in again.stdout and "nothing has changed" in again.stdout
    labelled = reportlabel("run", "--archive", "archive", "--workspace", "study", "--label-set", "lung_ct", cwd=place)
    assert labelled.returncode == 1 and "lung_ct" in labelled.stdout and "ct_rate_18" not in labelled.stdout
    assert "s, peak memory" in labelled.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("ingest", "nowhere", "--workspace", "w"), "no such folder"),
        (("ingest", "archive", "--workspace", "archive"), "holds something that is no workspace"),
        (("run", "--archive", "archive", "--workspace", "w", "--label-set", "lung"), "Did you mean"),
        (("run", "--archive", "archive", "--workspace", "w", "--workers", "0"), "give 1 or more"),
        (("run", "--archive", "wrong.yaml", "--workspace", "w"), "wrong.yaml:2"),
        (("export", "nowhere", "--to", "parquet", "--out", "x"), "is no workspace"),
        (("export", "study", "--to", "excel", "--out", "x"), "there are parquet"),
    ],
)
def test_what_a_user_can_mend_ends_with_one_message(place: Path, arguments: tuple[str, ...], told: str) -> None:
    (place / "wrong.yaml").write_text("sources:\n  - {path: archive, encoding: cp932}\n")
    if arguments[:2] == ("export", "study"):
        reportlabel("run", "--archive", "archive", "--workspace", "study", "--label-set", "lung_ct", cwd=place)
    failed = reportlabel(*arguments, cwd=place)
    assert failed.returncode == 2, failed.stdout
    assert told in " ".join(failed.stderr.split()), failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (place / "x").exists()


def test_an_archive_without_exams_ends_well(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "labs.csv").write_text(
        "患者ID,病理番号,採取日,報告日,臓器,診断\n00000001,S24-1,2024/03/01,2024/03/05,肺,腺癌\n", encoding="utf-8"
    )
    done = reportlabel("run", "--archive", "archive", "--workspace", "study", cwd=tmp_path)
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stderr
    assert "labels" in done.stdout
