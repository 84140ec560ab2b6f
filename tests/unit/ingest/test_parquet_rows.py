"""Parquet tables: those of the synthetic hospital, tables by hand in other types, and damage."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reportlabel.errors import ConfigError
from reportlabel.ingest import parquet_rows
from reportlabel.ingest.parquet_rows import depends, files, read, recognise
from reportlabel.ingest.rows import ExamRow, PatientRow, Quarantined, RecordRow, ReportRow, Row, Source
from reportlabel.synth.patient import PatientFile
from tests.unit.synth.written_patient import TEXT_1, written_patient

WHEN = datetime(2021, 4, 5, 9, 42)
EXAM: dict[str, Any] = {
    "exam_id": "E1",
    "site": "aoba",
    "patient_id": "00000007",
    "study_instance_uid": "1.2.392.3",
    "accession_number": "A1",
    "started_at": WHEN,
    "modality": "CT",
}
REPORT: dict[str, Any] = {"report_id": "R1", "exam_id": "E1", "version": 1, "status": "final", "text": "結節あり。"}
RECORD: dict[str, Any] = {
    "site": "aoba",
    "patient_id": "00000007",
    "kind": "lab",
    "start_at": WHEN,
    "code_system": "JLAC10",
    "code": "5C070000002306201",
    "name": "ＣＲＰ",
    "value": 2.13,
}


def rows_of(path: Path, *, site: str | None = None, **options: Any) -> list[Row]:
    source = Source("parquet", path, path if path.is_dir() else path.parent, site, options)
    return [row for one in files(source) for row in read(one, source)]


def reasons(rows: list[Row]) -> list[tuple[int | None, str]]:
    return [(row.row, row.reason) for row in rows if isinstance(row, Quarantined)]


def table(folder: Path, name: str, *rows: dict[str, Any]) -> Path:
    path = folder / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(list(rows), infer_schema_length=None).write_parquet(path)
    return path


def hospital(folder: Path, *patients: PatientFile) -> None:
    """The tables of a synthetic hospital, with the patients of its exams."""

    def fields_of(one: Any) -> dict[str, Any]:
        return {name: getattr(one, name) for name in one.__slots__ if name not in ("codes", "details")}

    table(folder, "patients", *(fields_of(one.identity) for one in patients))
    exams = [fields_of(exam) | {"patient_id": one.identity.patient_id} for one in patients for exam in one.exams]
    table(folder, "exams", *exams)
    table(folder, "reports", *(fields_of(report) for one in patients for report in one.reports))
    table(folder, "records", *(fields_of(record) for one in patients for record in one.records))
    table(folder, "stays", *(fields_of(stay) for one in patients for stay in one.stays))


def test_the_synthetic_hospital(tmp_path: Path) -> None:
    patient = written_patient("minato", 7)
    hospital(tmp_path, patient)
    assert recognise(tmp_path)
    source = Source("parquet", tmp_path, tmp_path)
    assert [path.stem for path in files(source)] == ["exams", "patients", "records", "reports"]
    assert depends(tmp_path / "reports.parquet", source) == [tmp_path / "exams.parquet"]
    assert depends(tmp_path / "records.parquet", source) == []
    rows = rows_of(tmp_path)
    assert not reasons(rows)
    assert PatientRow("minato", "00000007", "F", date(1948, 12, 30)) in rows
    first = patient.exams[0]
    exam = next(row for row in rows if isinstance(row, ExamRow))
    assert (exam.accession_number, exam.contrast_ml, exam.dlp) == (first.accession_number, 95.0, 412.5)
    assert (exam.order_name, exam.contrast_agent, exam.age_years) == ("胸部CT", "イオパミドール370", 72)
    report = next(row for row in rows if isinstance(row, ReportRow))
    assert report == ReportRow(
        site="minato",
        patient_id="00000007",
        text=TEXT_1,
        version=1,
        status="final",
        report_number=first.report_id,
        study_instance_uid=first.study_instance_uid,
        accession_number=first.accession_number,
        exam_at=first.started_at,
        modality="CT",
        confirmed_at=datetime(2021, 4, 5, 12, 12),
    )
    records = [row for row in rows if isinstance(row, RecordRow)]
    assert [(row.kind, row.number, row.code) for row in records] == [
        (one.kind, one.record_id, one.code) for one in patient.records
    ]
    surgery = next(row for row in records if row.kind == "surgery")
    assert (surgery.code_system, surgery.code, surgery.side, surgery.body_site) == ("K", "K514-2 3", "right", "lung")


def test_no_row_names_the_patient(tmp_path: Path) -> None:
    patient = written_patient("aoba", 7)
    hospital(tmp_path, patient)
    said = "".join(map(repr, rows_of(tmp_path)))
    kinds = ("name", "kana", "roman", "address", "phone")
    assert not [one for one in patient.canaries if one.kind in kinds and one.value in said]


def test_other_types_of_columns(tmp_path: Path) -> None:
    table(
        tmp_path,
        "exams",
        {"patient_id": 7, "exam_id": 12.0, "started_at": "R3.4.5 9:42", "modality": " CT ", "weight_kg": "48.3"},
        {"patient_id": 8, "exam_id": None, "started_at": "きのう", "modality": "", "weight_kg": "0"},
    )
    utc = datetime(2021, 4, 5, 0, 42, tzinfo=UTC)
    table(tmp_path, "records", RECORD | {"start_at": utc, "end_at": date(2021, 4, 6), "value": "2.13", "code": None})
    rows = rows_of(tmp_path, patient_id_width=8, site="aoba")
    (exam,) = (row for row in rows if isinstance(row, ExamRow))
    assert exam == ExamRow("aoba", "00000007", None, "12", WHEN, "CT", weight_kg=48.3)
    (record,) = (row for row in rows if isinstance(row, RecordRow))
    assert (record.start_at, record.end_at) == (WHEN, datetime(2021, 4, 6))
    assert (record.name, record.value, record.code_system, record.certainty) == ("CRP", 2.13, None, "final")
    assert reasons(rows) == [(2, parquet_rows.NO_KEY), (None, parquet_rows.UNREAD_VALUES)]


def test_reports_and_their_exams(tmp_path: Path) -> None:
    table(tmp_path, "exams", EXAM)
    table(
        tmp_path,
        "reports",
        REPORT,
        REPORT | {"exam_id": "E2"},
        REPORT | {"text": " ", "version": 2},
        REPORT | {"status": "CANCELLED", "text": None, "version": 3},
        REPORT | {"status": "done"},
        REPORT,
        REPORT | {"status": None, "version": 4, "text": "所見。\r\n以上"},
    )
    rows = rows_of(tmp_path)
    reports = [row for row in rows if isinstance(row, ReportRow)]
    assert reports[0] == ReportRow(
        "aoba", "00000007", "結節あり。", 1, "final", "R1", "1.2.392.3", "A1", WHEN, "CT", None
    )
    assert [(row.version, row.status, row.text) for row in reports[1:]] == [
        (3, "cancelled", ""), (4, "final", "所見。\n以上")
    ]  # fmt: skip
    assert reasons(rows) == [
        (2, parquet_rows.NO_EXAM),
        (3, parquet_rows.NO_TEXT),
        (5, parquet_rows.UNKNOWN_STATUS),
        (6, parquet_rows.DUPLICATE),
    ]


def test_many_exams_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "_EXAMS_KEPT", 10)
    monkeypatch.setattr(parquet_rows, "_BATCH", 100)
    count = 205
    exams = (EXAM | {"exam_id": f"E{place}", "accession_number": f"A{place}"} for place in range(count))
    table(tmp_path, "exams", *exams)
    table(tmp_path, "reports", *(REPORT | {"exam_id": f"E{place}"} for place in (count - 1, 3)))
    numbers = [row.accession_number for row in rows_of(tmp_path) if isinstance(row, ReportRow)]
    assert numbers == [f"A{count - 1}", "A3"]


def test_reports_alone(tmp_path: Path) -> None:
    alone = {"site": "aoba", "patient_id": "7", "exam_id": "E1", "findings": "結節あり。", "impression": "肺癌疑い。"}
    (row,) = rows_of(table(tmp_path, "読影", alone | {"confirmed_at": WHEN, "text": ""}))
    assert isinstance(row, ReportRow) and row.text == "【所見】\n結節あり。\n【診断】\n肺癌疑い。"
    assert row.accession_number == "E1"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"patient_id": ""}, parquet_rows.NO_PATIENT),
        ({"patient_id": "2.0E+10"}, parquet_rows.DAMAGED_PATIENT),
        ({"site": None}, parquet_rows.NO_SITE),
        ({"kind": "?"}, parquet_rows.UNKNOWN_KIND),
        ({"start_at": None}, parquet_rows.NO_DATE),
        ({"start_at": "2021-13-01"}, parquet_rows.BAD_DATE),
        ({"certainty": "suspected"}, parquet_rows.UNKNOWN_CERTAINTY),
        ({"certainty": "cancelled"}, parquet_rows.CANCELLED),
    ],
)
def test_records_that_cannot_be_used(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    good = RECORD | {"start_at": "2021-04-05 09:42", "certainty": None}
    rows = rows_of(table(tmp_path, "records", good | changes, good))
    assert reasons(rows) == [(1, reason)]
    assert [row.start_at for row in rows if isinstance(row, RecordRow)] == [WHEN]


@pytest.mark.parametrize(
    ("system", "code", "expected"),
    [
        ("K", "Ｋ５１４－２　３", ("K", "K514-2 3")),
        ("D", "D4132", ("D", "D413 2")),
        ("M", "M0014", ("local", "M001 4")),
        ("ICD-10", "C34.9", ("ICD-10", "C349")),
        ("ICD-10", "?", ("local", "?")),
        ("LOINC", "1-1", ("local", "1-1")),
        (None, "x", ("local", "x")),
    ],
)
def test_codes(tmp_path: Path, system: str | None, code: str, expected: tuple[str, str]) -> None:
    (row,) = rows_of(table(tmp_path, "records", RECORD | {"code_system": system, "code": code}))
    assert isinstance(row, RecordRow) and (row.code_system, row.code) == expected


def test_sites_and_options(tmp_path: Path) -> None:
    path = table(tmp_path / "hama" / "records", "0001", RECORD)

    def sites(where: Path, **options: Any) -> list[str]:
        return [row.site for row in rows_of(where, **options) if isinstance(row, RecordRow)]

    assert sites(tmp_path) == sites(path) == ["aoba"]
    assert sites(tmp_path, site="here") == ["here"]
    assert sites(tmp_path, site_of_folder=True) == ["hama"]
    assert sites(tmp_path, sites={"aoba": "a"}) == ["a"]
    with pytest.raises(ConfigError, match="option 'side': unknown"):
        rows_of(tmp_path, side="aoba")


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "records.parquet").write_bytes(b"PAR1 no")
    assert not recognise(tmp_path)
    assert reasons(rows_of(tmp_path)) == [(None, parquet_rows.UNREADABLE)]
    path = table(tmp_path, "records", {"patientid": "7", "kind": "lab", "start_at": WHEN, "doctor": "?"})
    (row,) = rows_of(tmp_path)
    assert isinstance(row, Quarantined) and row.reason == parquet_rows.COLUMN_MISSING
    assert row.remedy.endswith(": patient_id.")
    table(tmp_path, "records", {"doctor": "?"})
    assert reasons(rows_of(tmp_path)) == [(None, parquet_rows.UNKNOWN_TABLE)] and not recognise(path)
    table(tmp_path, "records", RECORD | {"endat": WHEN, "flags": "H", "comment": "?"})
    rows = rows_of(tmp_path)
    (misspelt,) = (row for row in rows if isinstance(row, Quarantined))
    assert misspelt.reason == parquet_rows.MISSPELT
    assert misspelt.remedy.endswith(": endat (end_at?), flags (flag?).") and len(rows) == 2


def test_columns_of_types_that_cannot_be_used(tmp_path: Path) -> None:
    rows = rows_of(table(tmp_path, "records", RECORD | {"unit": {"a": 1}, "value": [1.0]}))
    assert len([row for row in rows if isinstance(row, RecordRow)]) == 1
    found = [row.remedy for row in rows if isinstance(row, Quarantined)]
    assert [remedy.rsplit(" ", 1)[1] for remedy in found] == ["unit.", "value."]


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_times_that_cannot_be(tmp_path: Path, zone: str | None) -> None:
    far = pl.Series("start_at", [2**62, 0, 1_617_583_320_000_000]).cast(pl.Datetime("us", zone))
    end = pl.Series("end_at", [1, 2**30, 18_000], dtype=pl.Int32).cast(pl.Date)
    whole = pl.DataFrame([RECORD | {"number": str(place)} for place in range(3)]).with_columns(far, end)
    whole.write_parquet(tmp_path / "records.parquet")
    rows = rows_of(tmp_path)
    assert [row.number for row in rows if isinstance(row, RecordRow)] == ["1", "2"]
    assert reasons(rows) == [(1, parquet_rows.BAD_DATE), (None, parquet_rows.UNREAD_VALUES)]


def test_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    names = pa.Array.from_buffers(
        pa.string(), 2, pa.array([b"\x82\xa0", b"CRP"]).buffers()
    )  # fmt: skip
    whole = pl.DataFrame([RECORD, RECORD]).drop("name").to_arrow().append_column("name", names)
    pq.write_table(whole, tmp_path / "records.parquet")
    rows = rows_of(tmp_path)
    assert reasons(rows) == [(1, parquet_rows.UNDECODABLE)]
    assert [row.name for row in rows if isinstance(row, RecordRow)] == ["CRP"]


def test_no_damage_makes_it_fail(tmp_path: Path) -> None:
    chance = random.Random(5)
    data = table(tmp_path, "records", *(RECORD | {"value": float(place)} for place in range(50))).read_bytes()
    for _ in range(100):
        cut = bytearray(data)
        for _ in range(chance.randrange(1, 4)):
            cut[chance.randrange(len(cut))] = chance.randrange(256)
        (tmp_path / "records.parquet").write_bytes(cut[: chance.choice((len(cut), chance.randrange(len(cut))))])
        rows_of(tmp_path)


def test_reasons_have_remedies() -> None:
    written = {value for name, value in vars(parquet_rows).items() if name.isupper() and isinstance(value, str)}
    assert written == set(parquet_rows.REASONS)
