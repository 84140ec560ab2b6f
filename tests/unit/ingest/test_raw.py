"""The raw store: only new and changed files are read again, and a killed run leaves nothing that counts."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from reportlabel.errors import ConfigError, InputError
from reportlabel.ingest import raw
from reportlabel.ingest.archive import open_archive
from reportlabel.ingest.raw import RawStore, part_of, read_task, tasks
from reportlabel.ingest.stage import preview, read_archive

HEADER = "患者ID,性別,受付番号,検査日,モダリティ,検査部位,所見,確定日時,StudyInstanceUID\n"


def row(patient: str, number: int, text: str = "異常なし。") -> str:
    return f"{patient},女,{number},2024/03/04,CT,胸部CT,{text},2024/03/04 12:00:00,1.2.392.{number}\n"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    (folder / "a.csv").write_text(HEADER + row("P1", 1) + row("P2", 2), encoding="cp932")
    (folder / "b.csv").write_text(HEADER + row("CANARY-77", 3), encoding="cp932")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> RawStore:
    return RawStore(tmp_path / "raw", 4)


def texts(store: RawStore) -> list[str]:
    return sorted(store.rows("reports")["text"])


def test_only_what_changed_is_read_again(archive: Path, store: RawStore) -> None:
    first = read_archive(open_archive(archive, site="main"), store)
    assert (first.files, first.unchanged, first.quarantined) == (2, 0, 0) and first.rows == 9
    again = read_archive(open_archive(archive, site="main"), store)
    assert (again.files, again.unchanged, again.rows) == (0, 2, 0)
    os.utime(archive / "b.csv", ns=(1, 1))  # a new date is no new content
    assert read_archive(open_archive(archive, site="main"), store).files == 0
    (archive / "b.csv").write_text(HEADER + row("CANARY-77", 3, "結節あり。"), encoding="cp932")
    assert read_archive(open_archive(archive, site="main"), store).files == 1
    assert [text.splitlines()[-1] for text in texts(store)] == ["異常なし。", "異常なし。", "結節あり。"]


def test_the_same_size_and_date_are_compared_byte_by_byte_only_when_asked(archive: Path, store: RawStore) -> None:
    path = archive / "b.csv"
    read_archive(open_archive(archive, site="main"), store)
    stamp = path.stat().st_mtime_ns
    path.write_text(HEADER + row("CANARY-78", 3), encoding="cp932")
    os.utime(path, ns=(stamp, stamp))
    assert read_archive(open_archive(archive, site="main"), store).files == 0
    assert read_archive(open_archive(archive, site="main"), store, every_byte=True).files == 1


def test_a_file_that_is_gone_stays_until_it_is_to_be_forgotten(archive: Path, store: RawStore) -> None:
    read_archive(open_archive(archive, site="main"), store)
    (archive / "b.csv").unlink()
    kept = read_archive(open_archive(archive, site="main"), store)
    assert (kept.gone, kept.forgotten) == (1, 0) and len(texts(store)) == 3
    let_go = read_archive(open_archive(archive, site="main"), store, forget_gone=True)
    assert let_go.forgotten == 1 and len(texts(store)) == 2
    held = [path.read_bytes() for path in (store.folder / "rows").rglob("*") if path.is_file()]
    assert held and not any(b"CANARY-77" in one for one in held)


def test_a_file_that_another_replaced_goes_by_itself(
    archive: Path, store: RawStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_archive(open_archive(archive, site="main"), store)
    from reportlabel.ingest import ris_csv

    monkeypatch.setattr(ris_csv, "files", lambda source: iter([archive / "a.csv"]))
    read_archive(open_archive(archive, site="main"), store)
    assert len(texts(store)) == 2


def test_what_a_killed_run_left_does_not_count_and_is_removed(archive: Path, store: RawStore) -> None:
    opened = open_archive(archive, site="main")
    (task,) = tasks(opened, raw.look(opened, store))
    read_task(task, store)  # killed before the files were noted
    (store.folder / "rows" / ".half").mkdir()
    assert store.files().is_empty() and store.rows("reports").is_empty()
    read_archive(opened, store)
    assert len(texts(store)) == 3
    assert len(list((store.folder / "rows").iterdir())) == 1


def test_half_a_batch_is_in_nobodys_way_and_goes(archive: Path, store: RawStore) -> None:
    read_archive(open_archive(archive, site="main"), store)
    rows = store.folder / "rows"
    (batch,) = store.batches()

    def leave() -> None:
        (rows / ".half").mkdir()
        for table in ("exams", "reports"):
            (rows / ".half" / f"{table}.parquet").write_bytes(b"PAR1 CANARY-77")
        (batch / "exams.new").write_bytes(b"CANARY-77")
        (batch / "readings.new").write_bytes(b"[")

    leave()
    assert len(texts(store)) == 3
    assert store.removed() == 0
    assert store.readings_by_part()
    assert store.shared_uids() == []
    assert store.remove_patients(pl.DataFrame({"site": ["main"], "patient_id": ["CANARY-77"]})) == 3
    assert store.removed() == 3
    held = [path.read_bytes() for path in rows.rglob("*") if path.is_file()]
    assert held
    assert not any(b"CANARY-77" in one for one in held)
    leave()
    store.clean()
    assert sorted(path.name for path in rows.iterdir()) == [batch.name]
    assert list(rows.rglob("*.new")) == []
    assert len(texts(store)) == 2


def test_changed_options_read_everything_again(archive: Path, store: RawStore) -> None:
    read_archive(open_archive(archive, site="main"), store)
    assert read_archive(open_archive(archive, site="other"), store).files == 2
    assert set(store.rows("reports")["site"]) == {"other"}


def test_rows_of_a_part_are_those_of_its_patients(archive: Path, store: RawStore) -> None:
    read_archive(open_archive(archive, site="main"), store)
    by_part = [store.rows("reports", part=part) for part in range(4)]
    assert pl.concat(by_part).sort("patient_id").equals(store.rows("reports").sort("patient_id"))
    for part, rows in enumerate(by_part):
        assert all(part_of("main", patient, 4) == part for patient in rows["patient_id"])
    assert set(store.readings_by_part()) == {part for part, rows in enumerate(by_part) if rows.height}
    assert part_of("main", "P1", 16) == 6  # the same in every version, or workspaces would fall apart


def test_a_study_of_two_patients_is_found(archive: Path, store: RawStore) -> None:
    (archive / "c.csv").write_text(HEADER + row("P9", 1), encoding="cp932")
    read_archive(open_archive(archive, site="main"), store)
    assert store.shared_uids() == ["1.2.392.1"]


def test_several_processes_give_the_same_rows(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = RawStore(tmp_path / "one", 4), RawStore(tmp_path / "two", 4)
    opened = open_archive(archive, site="main")
    monkeypatch.setattr("reportlabel.ingest.stage.tasks", lambda a, f: tasks(a, f, files_a_task=1))
    read_archive(opened, one)
    read_archive(opened, two, workers=2)
    for table in raw.ROW_TABLES:
        assert one.rows(table).drop("reading").equals(two.rows(table).drop("reading"))


def test_reading_apart_gives_the_same_rows(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = RawStore(tmp_path / "one", 4), RawStore(tmp_path / "two", 4)
    opened = open_archive(archive, site="main")
    monkeypatch.setattr("reportlabel.ingest.stage.tasks", lambda a, f: tasks(a, f, files_a_task=1))
    read_archive(opened, one)
    monkeypatch.setattr("reportlabel.ingest.stage._MUCH", 0)
    assert read_archive(opened, two).files == 2
    for table in raw.ROW_TABLES:
        assert one.rows(table).drop("reading").equals(two.rows(table).drop("reading"))


def test_a_reading_process_that_dies_is_told(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RawStore(tmp_path / "raw", 4)
    monkeypatch.setattr("reportlabel.ingest.stage._MUCH", 0)
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(InputError, match="process that reads"):
        read_archive(open_archive(archive, site="main"), store)


def test_a_wrong_option_is_told_from_apart_too(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = tmp_path / "archive.yaml"
    described.write_text("sources:\n  - {path: archive, format: ris_csv, site: a, options: {colour: red}}\n")
    for much in (1 << 30, 0):
        monkeypatch.setattr("reportlabel.ingest.stage._MUCH", much)
        with pytest.raises(ConfigError, match="colour"):
            read_archive(open_archive(described), RawStore(tmp_path / f"raw{much}", 4))


# --- archives


def test_an_archive_is_described(archive: Path, tmp_path: Path) -> None:
    described = tmp_path / "archive.yaml"
    described.write_text("options: {patient_id_width: 8}\nsources:\n  - {path: archive, site: aoba}\n")
    opened = open_archive(described)
    (source,) = opened.sources
    assert (source.format, source.site, dict(source.options)) == ("ris_csv", "aoba", {"patient_id_width": 8})
    for wrong, told in (
        ("sources:\n  - {path: nowhere}\n", r"archive\.yaml:2.*nowhere"),
        ("sources:\n  - {path: archive, format: xls}\n", r"archive\.yaml:2.*xls"),
        ("sources:\n  - {path: archive, colour: red}\n", r"archive\.yaml:2.*colour"),
        ("sources: []\n", r"archive\.yaml"),
    ):
        described.write_text(wrong)
        with pytest.raises(ConfigError, match=told):
            open_archive(described)


def test_what_nobody_knows_is_told(archive: Path, tmp_path: Path) -> None:
    (archive / "letter.docx").write_bytes(b"PK\x03\x04 no table")
    (archive / "scans").mkdir()
    (archive / "scans" / "12345678.bin").write_bytes(b"\0\1\2")
    opened = open_archive(archive, site="main")
    seen = preview(opened, None)
    assert seen.by_kind["main", "reports"] == 3 and seen.by_month["main", "2024-03"] == 3
    assert "12345678" not in str(seen.places)
    with pytest.raises(InputError, match="no such"):
        open_archive(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="nothing that can be read"):
        open_archive(tmp_path / "empty")
