"""Tables of the department systems: every dialect of the synthetic hospital, tables by hand, and damage."""

from __future__ import annotations

import csv
import gzip
import io
import random
import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reportlabel.errors import ConfigError
from reportlabel.ingest import ris_csv
from reportlabel.ingest.ris_csv import RisCsvRules, files, read, recognise, report_text
from reportlabel.ingest.rows import ExamRow, PatientRow, Quarantined, RecordRow, ReportRow, Row, Source
from reportlabel.rulebook.load import load_rules, rules_folder
from reportlabel.rulebook.read_yaml import parse, read_yaml
from reportlabel.synth.patient import PatientFile
from reportlabel.synth.write_ris_csv import DIALECTS, RisCsvWriter, one_in, site_dialects
from tests.unit.synth.written_patient import SITES as HOSPITAL
from tests.unit.synth.written_patient import written_identity, written_patient

SITES = {**HOSPITAL, "tani": replace(HOSPITAL["aoba"], id="tani")}
STEMS = {site: dialect.stems for site, dialect in site_dialects(SITES).items()}


def is_clean(number: int) -> bool:
    """Whether the writer damages nothing of this patient."""
    file = written_patient("aoba", number)
    ids = {record.record_id for record in file.records} | {report.report_id for report in file.reports}
    ids |= {exam.accession_number for exam in file.exams}
    return not one_in(4, file.identity.patient_id, "excel") and not any(one_in(400, one, "date") for one in ids)


CLEAN = [number for number in range(1, 200) if is_clean(number)][:3]
EDITED = next(number for number in range(1, 99) if one_in(4, f"{number:08d}", "excel"))

HEADER = "患者ID,検査日,検査時刻,モダリティ,検査名,所見,診断,読影医,状態,版数"
GOOD = '00000007,2023/03/14,09:05,CT,胸部CT,"結節を認める。\n胸水なし。",肺癌疑い,設楽,確定,1'


def patient_of(site: str, number: int) -> PatientFile:
    """The patient with everything, without the characters that cp932 lacks."""
    file = written_patient(site if site in HOSPITAL else "aoba", number)
    file.exams = [replace(exam, site=site) for exam in file.exams]
    file.records = [replace(record, site=site) for record in file.records]
    file.reports = [
        replace(
            report,
            **{
                name: getattr(report, name).replace("⻑", "長").replace("〜", "～")
                for name in ("text", "findings_text", "impression_text")
            },
        )
        for report in file.reports
    ]
    return file


def written(out: Path, *numbers: int, sites: Iterable[str] = tuple(SITES)) -> dict[tuple[str, int], PatientFile]:
    hospital = {(site, number): patient_of(site, number) for site in sites for number in numbers}
    with RisCsvWriter(out, SITES) as writer:
        for file in hospital.values():
            writer.write(file)
    return hospital


def source_of(path: Path, *, site: str | None = "aoba", **options: Any) -> Source:
    return Source("ris_csv", path, path if path.is_dir() else path.parent, site, options)


def rows_of(path: Path, *, site: str | None = "aoba", **options: Any) -> list[Row]:
    source = source_of(path, site=site, **options)
    return [row for one in files(source) for row in read(one, source)]


def of_kind(rows: list[Row], kind: str) -> list[RecordRow]:
    return [row for row in rows if isinstance(row, RecordRow) and row.kind == kind]


def table(tmp_path: Path, *lines: str, name: str = "t.csv", encoding: str = "cp932", end: str = "\r\n") -> Path:
    path = tmp_path / name
    path.write_bytes("".join(line + end for line in lines).encode(encoding))
    return path


def reasons(rows: list[Row]) -> list[tuple[int | None, str]]:
    return [(row.row, row.reason) for row in rows if isinstance(row, Quarantined)]


# --- the dialects of the synthetic hospital ---------------------------------------------------------------------------


@pytest.mark.parametrize("site", SITES)
def test_every_dialect_says_what_the_hospital_knows(tmp_path: Path, site: str) -> None:
    """All but what a dialect has no column for: UIDs, numbers, body parts, times of operations."""
    hospital = written(tmp_path, *CLEAN, sites=[site])
    dialect = site_dialects(SITES)[site]
    in_radiology = {name for _, name in dialect.columns["radiology"]}
    rows = rows_of(tmp_path / site, site=site)
    assert not reasons(rows)
    people = {row for row in rows if isinstance(row, PatientRow)}
    assert people == {PatientRow(site, f"{number:08d}", "F", date(1948, 12, 30)) for number in CLEAN}
    expected_exams, expected_reports = [], []
    for file in hospital.values():
        for exam in file.exams:
            if exam.report_id is None and not dialect.unread:
                continue
            shared: dict[str, Any] = {
                "site": site,
                "patient_id": file.identity.patient_id,
                "study_instance_uid": exam.study_instance_uid if "study_uid" in in_radiology else None,
                "accession_number": exam.accession_number,
                "modality": exam.modality,
            }
            row = ExamRow(
                **shared,
                started_at=exam.started_at,
                body_part=exam.body_part if "body_part" in in_radiology else None,
                order_name=exam.order_name,
                age_years=exam.age_years,
                sex="F",
            )
            expected_exams.append(row)
            for report in file.reports:
                if report.exam_id == exam.exam_id:
                    parts = report_text(report.findings_text, report.impression_text)
                    expected_reports.append(
                        ReportRow(
                            **shared,
                            text=report.text if "text" in in_radiology else parts,
                            version=report.version,
                            status=report.status,
                            report_number=report.report_id if "report_id" in in_radiology else None,
                            exam_at=exam.started_at,
                            confirmed_at=report.confirmed_at,
                        )
                    )
    key = repr
    assert sorted((row for row in rows if isinstance(row, ExamRow)), key=key) == sorted(expected_exams, key=key)
    assert sorted((row for row in rows if isinstance(row, ReportRow)), key=key) == sorted(expected_reports, key=key)
    (pathology,) = (row for row in of_kind(rows, "pathology") if row.patient_id == f"{CLEAN[0]:08d}")
    assert (pathology.start_at, pathology.reported_at) == (datetime(2021, 4, 12), datetime(2021, 4, 19))
    assert (pathology.name, pathology.certainty) == ("肺生検", "corrected")
    assert pathology.text == (
        "Adenocarcinoma, right upper lobe.\n異型細胞が腺管構造を形成する。\nTTF-1（＋）、EGFR L858R陽性。"
    )
    (physiology,) = (row for row in of_kind(rows, "physiology") if row.patient_id == f"{CLEAN[0]:08d}")
    assert physiology.start_at == datetime(2021, 7, 13, 14)
    assert physiology.name == "標準12誘導心電図"
    assert physiology.text is not None and physiology.text.startswith("Ⅱ、Ⅲ、aVFでST低下。心筋虚血疑い。\nHR=72 /min;")
    has_code = any(name == "code" for _, name in dialect.columns["physiology"])
    assert (physiology.code_system, physiology.code) == (("JLAC10", "9A110") if has_code else (None, None))
    (surgery,) = (row for row in of_kind(rows, "surgery") if row.patient_id == f"{CLEAN[0]:08d}")
    assert (surgery.code_system, surgery.code, surgery.side) == ("K", "K514-2 3", "right")
    in_surgery = {name for _, name in dialect.columns["surgery"]}
    timed = bool(in_surgery & {"time", "day_time"})
    assert surgery.start_at == (datetime(2021, 7, 26, 9, 10) if timed else datetime(2021, 7, 26))
    assert surgery.end_at == (datetime(2021, 7, 26, 13, 10) if "end_time" in in_surgery else None)
    assert surgery.number in {record.record_id for record in hospital[site, CLEAN[0]].records}


def test_dialects_give_the_same_records(tmp_path: Path) -> None:
    written(tmp_path, CLEAN[0])
    facts = set()
    for site in SITES:
        rows = rows_of(tmp_path / site, site="one")
        facts.add(
            tuple(
                (
                    row.kind,
                    row.name,
                    row.text,
                    row.side,
                    row.body_site,
                    row.certainty,
                    row.start_at and row.start_at.date(),
                )
                for kind in ("pathology", "physiology", "surgery")
                for row in of_kind(rows, kind)
            )
        )
    assert len(facts) == 1


@pytest.mark.parametrize("site", SITES)
def test_tables_are_recognised(tmp_path: Path, site: str) -> None:
    written(tmp_path, CLEAN[0], sites=[site])
    assert recognise(tmp_path / site) and recognise(tmp_path)
    assert all(recognise(path) for path in (tmp_path / site).iterdir())


def test_no_row_names_the_patient(tmp_path: Path) -> None:
    hospital = written(tmp_path, *CLEAN, EDITED)
    rows = [row for site in SITES for row in rows_of(tmp_path / site, site=site)]
    said = "".join(map(repr, rows))
    names = {
        canary.value
        for file in hospital.values()
        for canary in file.canaries
        if canary.kind in ("name", "kana", "roman", "address", "phone")
    }
    names |= {name.replace("　", " ") for name in names} | {file.identity.name[:2] for file in hospital.values()}
    assert not [name for name in names - {"髙橋"} if name in said]
    assert "呼吸器" not in said and "澤村" not in said and "設楽" not in said and "精査をお願い" not in said


def test_what_a_spreadsheet_has_opened(tmp_path: Path) -> None:
    hospital = written(tmp_path, EDITED, sites=["aoba"])
    (path,) = (tmp_path / "aoba").glob("radiology*_edited.csv")
    rows = rows_of(path, patient_id_width=8)
    exams = [row for row in rows if isinstance(row, ExamRow)]
    known = hospital["aoba", EDITED].exams
    assert [row.started_at for row in exams] == [exam.started_at for exam in (*known[:3], known[3])]
    assert {row.patient_id for row in exams} == {f"{EDITED:08d}"}
    assert {row.accession_number for row in exams} == {None}
    assert [row.study_instance_uid for row in exams] == [exam.study_instance_uid for exam in known]
    assert PatientRow("aoba", f"{EDITED:08d}", "F", date(1948, 12, 30)) in rows
    assert reasons(rows) == [(None, ris_csv.DAMAGED_NUMBERS)]
    without = [row for row in rows_of(path) if isinstance(row, ExamRow)]
    assert {row.patient_id for row in without} == {str(EDITED)}


def test_defects_of_the_hospital_are_found(tmp_path: Path) -> None:
    """Dates that nobody can read are quarantined one by one; dates of an era that has ended are read."""
    numbers = range(1, 120)
    with RisCsvWriter(tmp_path, SITES) as writer:
        for number in numbers:
            writer.write(patient_of("minato", number))
    unreadable = [path for path, kind, _ in writer.defects if kind == "unparsable_date"]
    rows = rows_of(tmp_path / "minato", site="minato")
    found = [f"minato/{row.path}" for row in rows if isinstance(row, Quarantined) and row.reason == ris_csv.BAD_DATE]
    assert sorted(found) == sorted(unreadable) and unreadable
    assert {kind for _, kind, _ in writer.defects} == {"unparsable_date"}


# --- tables by hand ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["cp932", "utf-8", "utf-8-sig", "utf-16", "euc_jp"])
@pytest.mark.parametrize(("name", "delimiter"), [("t.csv", ","), ("t.tsv", "\t"), ("t.txt", ";")])
def test_encodings_and_delimiters(tmp_path: Path, encoding: str, name: str, delimiter: str) -> None:
    path = table(
        tmp_path, HEADER.replace(",", delimiter), GOOD.replace(",", delimiter), name=name, encoding=encoding, end="\n"
    )
    options = {"encoding": "euc_jp"} if encoding == "euc_jp" else {}
    assert recognise(path) or options
    _, report = rows_of(path, **options)
    assert isinstance(report, ReportRow)
    assert report.text == "【所見】\n結節を認める。\n胸水なし。\n【診断】\n肺癌疑い"
    assert report.exam_at == datetime(2023, 3, 14, 9, 5)


def test_a_packed_table(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress("\n".join([HEADER, GOOD]).encode()))
    assert recognise(path)
    assert [type(row).__name__ for row in rows_of(path)] == ["ExamRow", "ReportRow"]
    path.write_bytes(path.read_bytes()[:-20])
    assert ris_csv.UNREADABLE in [reason for _, reason in reasons(rows_of(path))]


def test_titles_above_the_header_and_columns_in_any_order(tmp_path: Path) -> None:
    cells = dict(zip(HEADER.split(","), next(csv.reader(io.StringIO(GOOD, newline=""))), strict=True))
    names = list(cells)
    random.Random(3).shuffle(names)
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(["読影レポート一覧"])
    writer.writerow(["出力日", "2023/04/01"])
    writer.writerow([])
    writer.writerow([" ｼｮｹﾝ ", *names, "備考"])
    writer.writerow(["", *(cells[name] for name in names), ""])
    path = tmp_path / "t.csv"
    path.write_bytes(out.getvalue().encode("cp932"))
    _, report = rows_of(path)
    assert isinstance(report, ReportRow) and report.text.startswith("【所見】\n結節を認める。")


def test_half_width_headers_and_brackets(tmp_path: Path) -> None:
    header = "患者ＩＤ,検査日付,ﾓﾀﾞﾘﾃｨ,検査名(ｵｰﾀﾞ),所 見,診断（ｲﾝﾌﾟﾚｯｼｮﾝ）,身長(cm),体重（ｋｇ）,ＤＬＰ(mGy・cm),造影剤"
    path = table(tmp_path, header, "7,2023/3/14,ＭＲＩ,頭部MRI,異常なし,正常,172.5,６０．５,-,なし")
    exam, report = rows_of(path)
    assert isinstance(exam, ExamRow) and isinstance(report, ReportRow)
    assert (exam.modality, exam.order_name, exam.height_cm, exam.weight_kg, exam.dlp) == (
        "MR",
        "頭部MRI",
        172.5,
        60.5,
        None,
    )
    assert report.status == "final"


def test_columns_and_words_of_archive_yaml(tmp_path: Path) -> None:
    path = table(tmp_path, "No,Kanja,Jisshi,Kind,Bun,Kubun", "1,7,2023/3/14,X,結節あり,済")
    assert not recognise(path)
    assert reasons(rows_of(path)) == [(None, ris_csv.UNKNOWN_TABLE)]
    columns = {"patient_id": "Kanja", "day": ["実施", "Jisshi"], "modality": "Kind", "text": "Bun", "status": "Kubun"}
    rows = rows_of(path, table="radiology", columns=columns)
    assert reasons(rows) == [(2, ris_csv.UNKNOWN_STATUS), (None, ris_csv.UNREAD_VALUES)]
    rows = rows_of(
        path, table="radiology", columns=columns, values={"status": {"済": "final"}, "modality": {"Ｘ": "CR"}}
    )
    exam, report = rows
    assert isinstance(exam, ExamRow) and exam.modality == "CR"
    assert isinstance(report, ReportRow) and report.text == "結節あり"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"colums": {}}, "option 'colums': unknown"),
        ({"columns": {"shoken": "所見"}}, "option 'columns': .*unknown field shoken; fields are accession"),
        ({"values": {"status": {"済": "done"}}}, "option 'values': .*done: a status is one of preliminary, final"),
        ({"encoding": "klingon"}, "unknown encoding"),
    ],
)
def test_wrong_options_are_errors(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    path = table(tmp_path, HEADER, GOOD)
    with pytest.raises(ConfigError, match=message):
        rows_of(path, **options)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("患者ID,検査日,モダリティ,読影医,所見,診断", "radiology"),
        ("患者番号,依頼日,検査日時,検査種別,部位,画像所見,画像診断,読影医師", "radiology"),
        ("病理番号,患者ID,採取日,報告日,材料,診断,所見", "pathology"),
        ("患者ID,標本番号,受付年月日,臓器,病理診断", "pathology"),
        ("患者ID,検査日,検査名,所見,計測値", "physiology"),
        ("患者ID,手術日,術式,Kコード,術後診断,所見", "surgery"),
        ("患者ID,採取日,材料,項目名,結果値,基準値,単位", None),
        ("患者ID,検査日,項目名,検査コード,結果値,単位", None),
        ("患者ID,氏名,生年月日,性別", None),
        ("患者ID,入院日,退院日,病名", None),
    ],
)
def test_which_table_it_is(tmp_path: Path, header: str, name: str | None) -> None:
    path = table(tmp_path, header)
    assert recognise(path) == (name is not None)
    found = ris_csv._open(path, ris_csv._words(), ris_csv.RisCsvOptions())
    assert (found if isinstance(found, str) else found.name) == (name or ris_csv.UNKNOWN_TABLE)


def test_what_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"")
    (tmp_path / "b.xlsx").write_bytes(b"PK\x03\x04" + bytes(range(256)) * 20)
    (tmp_path / "c.txt").write_text("右肺に結節を認める。", encoding="utf-8")
    table(tmp_path, "氏名,検査日,モダリティ,読影医,所見", name="d.csv")
    assert not any(recognise(path) for path in tmp_path.iterdir())
    assert not recognise(tmp_path / "missing.csv")
    found = reasons(rows_of(tmp_path))
    assert found == [(None, ris_csv.NOT_A_TABLE)] * 3 + [(None, ris_csv.COLUMN_MISSING)]


def test_where_the_site_comes_from(tmp_path: Path) -> None:
    path = table(tmp_path, HEADER, GOOD)
    assert reasons(rows_of(path, site=None)) == [(None, ris_csv.NO_SITE)]
    (tmp_path / "aoba").mkdir()
    path = path.rename(tmp_path / "aoba/t.csv")
    rows = rows_of(tmp_path, site=None, site_of_folder=True)
    assert {row.site for row in rows if isinstance(row, ExamRow | ReportRow)} == {"aoba"}
    table(tmp_path / "aoba", "施設コード," + HEADER, "139900101," + GOOD, "999," + GOOD, name="t.csv")
    rows = rows_of(tmp_path, site=None, sites={"139900101": "aoba"})
    assert [row.site for row in rows if isinstance(row, ExamRow)] == ["aoba", "999"]


# --- reports ----------------------------------------------------------------------------------------------------------


def test_the_headings_are_seen_by_the_section_rules() -> None:
    text = report_text("結節を認める。", "肺癌疑い。", "訂正なし。")
    assert text == "【所見】\n結節を認める。\n【診断】\n肺癌疑い。\n【追記】\n訂正なし。"
    assert report_text("", "肺癌疑い。") == "【診断】\n肺癌疑い。"
    assert report_text(" ", "") == ""
    headings = {section.id: section.terms for section in load_rules().sections.sections}
    assert "所見" in headings["findings"] and "診断" in headings["impression"]


@pytest.mark.parametrize("part", ["【所見】\n結節", "所見：\n結節", "[画像所見] 結節", "■所見\n結節"])
def test_a_part_with_a_heading_gets_no_other(part: str) -> None:
    assert report_text(part, "") == part


@pytest.mark.parametrize("part", ["<5mmの結節>を認める", "●右肺に結節", "所見なし", "【胸部】結節", "[1] 結節"])
def test_other_beginnings_are_no_headings(part: str) -> None:
    assert report_text(part, "") == f"【所見】\n{part}"


@pytest.mark.parametrize(
    ("status", "confirmed", "expected"),
    [
        ("確定", "", "final"),
        ("最終報告", "", "final"),
        ("Ｆ", "", "final"),
        ("仮報告", "", "preliminary"),
        ("一次読影", "", "preliminary"),
        ("修正", "", "amended"),
        ("取消", "", "cancelled"),
        ("未読影", "", "preliminary"),
        ("", "2023/3/14 10:00", "final"),
        ("", "", "preliminary"),
    ],
)
def test_statuses(tmp_path: Path, status: str, confirmed: str, expected: str) -> None:
    path = table(
        tmp_path, "患者ID,検査日,モダリティ,所見,状態,確定日時,読影医", f"7,2023/3/14,CT,結節,{status},{confirmed},"
    )
    _, report = rows_of(path)
    assert isinstance(report, ReportRow) and report.status == expected


@pytest.mark.parametrize(
    ("written_as", "version"), [("第2版", 2), ("2.0", 2), ("02", 2), ("３", 3), ("", None), ("初版", None)]
)
def test_versions(tmp_path: Path, written_as: str, version: int | None) -> None:
    path = table(tmp_path, "患者ID,検査日,モダリティ,所見,版数,読影医", f"7,2023/3/14,CT,結節,{written_as},")
    _, report = rows_of(path)
    assert isinstance(report, ReportRow) and report.version == version


def test_line_ends_are_newlines(tmp_path: Path) -> None:
    path = table(tmp_path, HEADER, '7,2023/3/14,,CT,胸部CT,"一\r\n二\n三\x0b四\n",,設楽,確定,1')
    _, report = rows_of(path)
    assert isinstance(report, ReportRow) and report.text == "【所見】\n一\n二\n三\n四"


def test_an_exam_without_a_text_is_an_exam(tmp_path: Path) -> None:
    (exam,) = rows_of(table(tmp_path, HEADER, "7,2023/3/14,09:05,CT,胸部CT,,,,未読影,"))
    assert isinstance(exam, ExamRow)
    rows = rows_of(table(tmp_path, "患者ID,検査日,モダリティ,読影医", "7,2023/3/14,CT,設楽"))
    assert [type(row).__name__ for row in rows] == ["Quarantined", "ExamRow"]
    assert reasons(rows) == [(None, ris_csv.NO_TEXT_COLUMN)]


def test_a_body_part_or_the_name_of_an_order(tmp_path: Path) -> None:
    header = "患者ID,検査日,モダリティ,検査部位,所見,読影医"
    lines = [f"{number},2023/3/14,CT,{place},結節," for number, place in enumerate(("胸部", "ABDOMEN", "胸部CT"), 1)]
    exams = [row for row in rows_of(table(tmp_path, header, *lines)) if isinstance(row, ExamRow)]
    assert [(row.body_part, row.order_name) for row in exams] == [("CHEST", None), ("ABDOMEN", None), (None, "胸部CT")]


# --- records ----------------------------------------------------------------------------------------------------------


def test_an_operation_past_midnight(tmp_path: Path) -> None:
    header = "患者ID,手術日,入室時刻,退室時刻,術式,Kコード,側性"
    lines = [
        "7,2023/3/14,22:30,01:15,開頭術,K164 3,左",
        "7,2023/3/15,22:30,25:15,開頭術,K1643,Ｌ",
        "7,2023/3/16,,,開頭術,A,",
    ]
    first, second, third = of_kind(rows_of(table(tmp_path, header, *lines)), "surgery")
    assert (first.start_at, first.end_at) == (datetime(2023, 3, 14, 22, 30), datetime(2023, 3, 15, 1, 15))
    assert second.end_at == datetime(2023, 3, 16, 1, 15)
    assert (first.code, second.code, first.side, second.side) == ("K164 3", "K164 3", "left", "left")
    assert (third.start_at, third.end_at, third.code_system, third.code) == (datetime(2023, 3, 16), None, "local", "A")


def test_pathology_falls_back_to_the_day_of_receipt(tmp_path: Path) -> None:
    header = "病理番号,患者ID,採取日,受付日,報告日,材料,病理診断,状態"
    lines = ["P1,7,,2023/3/15,2023/3/20,肺,腺癌,確定", "P2,7,0000/00/00,,,肺,腺癌,確定", "P3,7,2023/3/1,,,肺,腺癌,取消"]
    rows = rows_of(table(tmp_path, header, *lines))
    (record,) = of_kind(rows, "pathology")
    assert (record.number, record.start_at, record.reported_at) == ("P1", datetime(2023, 3, 15), datetime(2023, 3, 20))
    assert reasons(rows) == [(3, ris_csv.NO_DATE), (4, ris_csv.CANCELLED)]


def test_one_measured_value_is_a_number(tmp_path: Path) -> None:
    header = "患者ID,検査日,検査名,所見,計測値"
    lines = ["7,2023/3/14,骨密度,,0.812g/cm2", "7,2023/3/15,心電図,正常,HR=72/min;PR=160ms", "7,2023/3/16,心電図,正常,"]
    first, second, third = of_kind(rows_of(table(tmp_path, header, *lines)), "physiology")
    assert (first.value, first.unit) == (0.812, "g/cm2")
    assert (second.value, second.text, third.text) == (None, "正常\nHR=72/min;PR=160ms", "正常")


# --- what goes to the quarantine --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (",2023/03/15,,CT,,結節,,,確定,1", ris_csv.NO_PATIENT),
        ("2.02E+07,2023/03/15,,CT,,結節,,,確定,1", ris_csv.DAMAGED_PATIENT),
        ("8,,,CT,,結節,,,確定,1", ris_csv.NO_DATE),
        ("8,2023/02/30,,CT,,結節,,,確定,1", ris_csv.BAD_DATE),
        ("8,CT,2023/03/15,,結節,,,確定,1,", ris_csv.SHIFTED),
        ("8,2023/03/15,,CT,結節,確定,1", ris_csv.WRONG_WIDTH),
        ("8,2023/03/15,,CT,,結節,大,小,,確定,1", ris_csv.WRONG_WIDTH),
        ("8,2023/03/15,,CT,,結節,,,保留,1", ris_csv.UNKNOWN_STATUS),
        ("8,2023/03/15,,CT,,#NAME?,肺癌,,確定,1", ris_csv.TEXT_LOST),
        ('8,2023/03/15,,CT,,"結節"あり,,,確定,1', ris_csv.BROKEN),
        (GOOD, ris_csv.DUPLICATE),
    ],
)
def test_a_bad_row_goes_alone(tmp_path: Path, line: str, reason: str) -> None:
    after = '9,2023/03/16,,CT,,"一\n二",,,確定,1'
    rows = rows_of(table(tmp_path, HEADER, GOOD, line, after, "10,2023/03/17,,CT,,三,,,確定,1"))
    assert reasons(rows) == [(4, reason)]
    assert [row.patient_id for row in rows if isinstance(row, ReportRow)] == ["00000007", "9", "10"]


def test_a_broken_row_is_one_row(tmp_path: Path) -> None:
    """Lines of its text are no rows of their own, whatever they look like."""
    broken = '8,2023/03/15,,CT,,"一\n二,三\n四"五\n#1,2,3,4,5,6,7,8,9,10\n六",,,確定,1'
    unquoted = "11,2023/03/15,,CT,,一\n二\n三,,,確定,1"
    after = '9,2023/03/16,,CT,,"一\n二",,,確定,1'
    rows = rows_of(table(tmp_path, HEADER, GOOD, broken, after, unquoted, GOOD.replace("0007", "0012")))
    assert reasons(rows) == [(4, ris_csv.BROKEN), (11, ris_csv.WRONG_WIDTH)]
    assert [row.patient_id for row in rows if isinstance(row, ReportRow)] == ["00000007", "9", "00000012"]


@pytest.mark.parametrize("quote", ['"', ""])
def test_a_missing_quote_costs_one_row(tmp_path: Path, quote: str) -> None:
    def line(number: int, *, closed: bool = True) -> str:
        cells = [f"{number}", "2023/03/15", "", "CT", "", "一\n二,三", "四", "", "確定", "1"]
        quoted = [f"{quote}{cell}{quote}" if cell != "一\n二,三" else f'"{cell}"' for cell in cells]
        return ",".join(quoted) if closed else ",".join(quoted).replace('三"', "三")

    rows = rows_of(table(tmp_path, HEADER, line(1), line(2, closed=False), *(line(number) for number in range(3, 9))))
    assert reasons(rows) == [(4, ris_csv.BROKEN)]
    assert [row.patient_id for row in rows if isinstance(row, ReportRow)] == ["1", *map(str, range(3, 9))]


def test_a_quote_that_never_closes(tmp_path: Path) -> None:
    good = [f"{number},2023/03/15,,CT,,一,,,確定,1" for number in range(10, 12_000)]
    rows = rows_of(table(tmp_path, HEADER, '8,2023/03/15,,CT,,"一,,,確定,1', *good))
    assert reasons(rows) == [(2, ris_csv.BROKEN)]
    assert sum(isinstance(row, ReportRow) for row in rows) == len(good)


DAMAGES = ("", "", "short", "long", "no date", "no id", "unopened", "unclosed", "stray")
COUNTED_ALONE = ("", "short", "long", "no date", "no id")
ORDERS = (HEADER, "受付番号,患者ID,性別,所見,検査日,モダリティ,診断,読影医,状態,版数")
TEXTS = (
    "一",
    "一\n二",
    "一、\n二,三\n四",
    '""一""\n二',
    "1,2\n3,4,5\n",
    "比較 2023/3/1\n,,\n",
    "#1,2,3,4,5,6,7,8,9,10\n六",
)


def a_row(header: str, number: int, text: str, damage: str, much: int) -> str:
    """A row of unique id as it would be written, damaged."""
    fields = {"患者ID": f"{number:08d}", "検査日": "2023/03/15", "モダリティ": "CT", "性別": "男", "状態": "確定"}
    fields |= {"診断": "疑い", "受付番号": f"A{number:06d}", "所見": f'"{text}"'}
    if damage == "no date":
        fields["検査日"] = "未定"
    elif damage == "no id":
        fields["患者ID"] = ""
    elif damage in ("unopened", "unclosed"):
        fields["所見"] = f'{text}"' if damage == "unopened" else f'"{text}'
    elif damage == "stray":
        fields["所見"] = f'"{text}"あり'
    cells = [fields.get(name, "") for name in header.split(",")]
    if damage == "short":
        cells = cells[: 3 + much % 6]
    elif damage == "long":
        cells[-1:-1] = ["大"] * (1 + much % 3)
    return ",".join(cells)


@given(
    header=st.sampled_from(ORDERS),
    rows=st.lists(st.tuples(st.sampled_from(DAMAGES), st.sampled_from(TEXTS), st.integers(0, 5)), max_size=7),
)
@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_line_comes_out_or_is_counted(tmp_path: Path, header: str, rows: list[tuple[str, str, int]]) -> None:
    """Rows in = rows out + quarantined; where a broken quote makes several one, by the lines that it names."""
    written_rows = [a_row(header, n, text, damage, much) for n, (damage, text, much) in enumerate(rows, 1)]
    heights = [row.count("\n") + 1 for row in written_rows]
    starts = {2 + sum(heights[:n]): height for n, height in enumerate(heights)}
    found = rows_of(table(tmp_path, header, *written_rows, end="\n", encoding="utf-8"))
    out = [int(row.patient_id) for row in found if isinstance(row, ExamRow)]
    quarantined = [row for row in found if isinstance(row, Quarantined)]
    lines = sum(heights[number - 1] for number in out)
    for row in quarantined:
        assert row.row is not None
        several = re.search(r"Lines: (\d+)\.", row.remedy)
        whole = row.reason in (ris_csv.BAD_DATE, ris_csv.NO_PATIENT)
        lines += starts[row.row] if whole else int(several[1]) if several else 1
    assert lines == sum(heights)
    assert len(out) == len(set(out))
    assert {n for n, (damage, *_) in enumerate(rows, 1) if not damage} <= set(out)
    if all(damage in COUNTED_ALONE for damage, *_ in rows):
        assert len(out) + len(quarantined) == len(rows)


def test_broken_rows_one_after_the_other_are_each_counted(tmp_path: Path) -> None:
    header = "受付番号,患者番号,氏名,性別,検査日,検査種別,画像所見,読影医"
    good = '{0},2419753{0},設楽,女性,2023/03/15,CT,"一\n二",確定'
    short = ["1,24197531,設楽,女性", "2,24197532,設楽,女性"]
    rows = rows_of(table(tmp_path, header, *short, good.format(3)))
    assert reasons(rows) == [(2, ris_csv.WRONG_WIDTH), (3, ris_csv.WRONG_WIDTH)]
    rows = rows_of(table(tmp_path, header, short[0], good.format(2) + ",,", good.format(3)))
    assert reasons(rows) == [(2, ris_csv.WRONG_WIDTH), (3, ris_csv.WRONG_WIDTH)]
    undated, nobody = good.format(2).replace("2023/03/15", ""), good.format(4).replace("24197534", "")
    rows = rows_of(table(tmp_path, header, short[0], undated, nobody, good.format(3)))
    assert reasons(rows) == [(2, ris_csv.WRONG_WIDTH), (3, ris_csv.NO_DATE), (5, ris_csv.NO_PATIENT)]
    assert [row.patient_id for row in rows if isinstance(row, ReportRow)] == ["24197533"]


def test_lines_that_cannot_be_told_from_a_broken_row_are_counted(tmp_path: Path) -> None:
    rows = rows_of(table(tmp_path, HEADER, '8,2023/03/15,,CT,,"一\n二\n三,,,確定,1', "未定,,,,,四", GOOD))
    (found,) = (row for row in rows if isinstance(row, Quarantined))
    assert (found.row, found.reason) == (2, ris_csv.BROKEN) and found.remedy.endswith("Lines: 4.")
    assert sum(isinstance(row, ReportRow) for row in rows) == 1


def test_two_broken_quotes_do_not_make_one_row_of_two_patients(tmp_path: Path) -> None:
    unclosed, unopened = '8,2023/03/15,,CT,,"一,,,確定,1', '9,2023/03/16,,CT,,二",,,確定,1'
    rows = rows_of(table(tmp_path, HEADER, unclosed, unopened, GOOD))
    assert reasons(rows) == [(2, ris_csv.BROKEN)]
    assert [row.patient_id for row in rows if isinstance(row, ReportRow)] == ["9", "00000007"]


def test_a_quote_above_the_header_swallows_no_row(tmp_path: Path) -> None:
    plain = [f"{number},2023/03/15,,CT,,一,,,確定,1" for number in range(10, 260)]
    rows = rows_of(table(tmp_path, '"読影一覧', HEADER, *plain, '8,2023/03/15,,CT,,一",,,確定,1', GOOD))
    assert not reasons(rows) and sum(isinstance(row, ReportRow) for row in rows) == 252


@pytest.mark.parametrize("text", ["結" * 200_000, "結節。\n" * 40_000, "結\n" * 6_000])
def test_a_cell_that_is_too_long_is_not_said_to_have_broken_quotes(tmp_path: Path, text: str) -> None:
    row = GOOD.replace("0007", "0008").replace("結節を認める。", text)
    rows = rows_of(table(tmp_path, HEADER, row, GOOD))
    (found,) = (row for row in rows if isinstance(row, Quarantined))
    assert (found.row, found.reason) == (2, ris_csv.TOO_LONG)
    assert f"{csv.field_size_limit():,} characters" in found.remedy
    assert sum(isinstance(row, ReportRow) for row in rows) == 1


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_another_encoding_than_archive_yaml_says(tmp_path: Path, encoding: str) -> None:
    rows = rows_of(table(tmp_path, HEADER, GOOD), encoding=encoding)
    said = ris_csv.WRONG_ENCODING if encoding == "utf-16" else ris_csv.NOT_A_TABLE
    assert reasons(rows) == [(None, said)]


def test_a_tsv_with_quotes_in_its_cells(tmp_path: Path) -> None:
    lines = [HEADER, '7,2023/3/14,,CT,,径12"の結節,"""肺癌""疑い",,確定,1', "8,2023/3/14,,CT,,二,,,確定,1"]
    rows = rows_of(table(tmp_path, *(line.replace(",", "\t") for line in lines)))
    reports = [row for row in rows if isinstance(row, ReportRow)]
    assert [row.text for row in reports] == ['【所見】\n径12"の結節\n【診断】\n"肺癌"疑い', "【所見】\n二"]


def test_cells_that_a_spreadsheet_adds(tmp_path: Path) -> None:
    blank = "," * (HEADER.count(",") + 2)
    rows = rows_of(table(tmp_path, HEADER + ",,", GOOD + ",,", blank, "", GOOD.replace("0007", "0008") + ",,", blank))
    assert sum(isinstance(row, ReportRow) for row in rows) == 2
    assert not reasons(rows)


def test_tables_put_one_after_the_other(tmp_path: Path) -> None:
    rows = rows_of(table(tmp_path, HEADER, GOOD, HEADER, GOOD.replace("0007", "0008")))
    assert sum(isinstance(row, ReportRow) for row in rows) == 2
    assert not reasons(rows)


def test_columns_of_one_table_leave_the_others_alone(tmp_path: Path) -> None:
    table(tmp_path, "患者ID,検査日,モダリティ,読影文,読影医", "7,2023/3/14,CT,結節,", name="a.csv")
    table(tmp_path, "患者ID,採取日,材料,病理診断,所見", "7,2023/3/14,肺,腺癌,異型腺管", name="b.csv")
    rows = rows_of(tmp_path, columns={"findings": "読影文", "modality": "種"})
    assert [row.text for row in rows if isinstance(row, ReportRow | RecordRow)] == ["【所見】\n結節", "腺癌\n異型腺管"]


def test_a_delimiter_at_the_end_of_every_row(tmp_path: Path) -> None:
    rows = rows_of(table(tmp_path, HEADER, GOOD + ",", GOOD.replace("0007", "0008") + ","))
    assert sum(isinstance(row, ReportRow) for row in rows) == 2
    assert not reasons(rows)


def test_an_unquoted_delimiter_is_seen_although_the_last_cell_is_empty(tmp_path: Path) -> None:
    rows = rows_of(table(tmp_path, HEADER, GOOD, "8,2023/03/15,,CT,,大,小,,確定,1,", GOOD.replace("0007", "0009")))
    assert reasons(rows) == [(4, ris_csv.WRONG_WIDTH)]


@pytest.mark.parametrize("encoding", ["cp932", "utf-8"])
def test_bytes_that_cannot_be_decoded(tmp_path: Path, encoding: str) -> None:
    good = [GOOD.replace("0007", f"{number:04d}") for number in range(10, 30)]
    path = table(tmp_path, HEADER, *good, encoding=encoding)
    data = path.read_bytes().split(b"\r\n")
    data[4] = data[4].replace("を".encode(encoding), b"\xfd\xff")
    path.write_bytes(b"\r\n".join(data))
    rows = rows_of(path)
    assert reasons(rows) == [(8, ris_csv.UNDECODABLE)]
    assert sum(isinstance(row, ReportRow) for row in rows) == 19


def test_values_beside_the_main_ones_are_counted(tmp_path: Path) -> None:
    header = "患者ID,生年月日,性別,検査日,検査時刻,モダリティ,StudyInstanceUID,受付番号,所見,確定日時,読影医"
    lines = ["7,？,男,2023/3/14,朝,CT,1.2.3,20230314,一,昨日,", "8,0000/00/00,,2023/3/14,09:05,CT,abc,2.02E+10,二,,"]
    rows = rows_of(table(tmp_path, header, *lines))
    assert sum(isinstance(row, ReportRow) for row in rows) == 2
    notes = [row for row in rows if isinstance(row, Quarantined)]
    assert [(row.reason, row.remedy.rpartition(" ")[2]) for row in notes] == [
        (ris_csv.DAMAGED_NUMBERS, "1."),
        (ris_csv.UNREAD_VALUES, "4."),
    ]
    exam = next(row for row in rows if isinstance(row, ExamRow) and row.patient_id == "8")
    assert (exam.study_instance_uid, exam.accession_number) == (None, None)


def test_paths_of_the_quarantine_hide_the_patient(tmp_path: Path) -> None:
    folder = tmp_path / "00000007"
    folder.mkdir()
    path = table(folder, HEADER, GOOD, GOOD, name="00000007_CT.csv")
    source = Source("ris_csv", tmp_path, tmp_path, "aoba")
    (found,) = (row for row in read(path, source) if isinstance(row, Quarantined))
    assert (found.path.partition(" (sha256 ")[0], found.row) == ("…/…_CT.csv", 4)


def test_damage_never_raises_and_never_shows_what_is_written(tmp_path: Path) -> None:
    written(tmp_path, *CLEAN[:2], sites=["aoba", "sato"])
    chance = random.Random(11)
    identity = written_identity()
    for path in [*tmp_path.rglob("*.csv"), *tmp_path.rglob("*.tsv")]:
        data = path.read_bytes()
        for _ in range(25):
            damaged = bytearray(data)
            for _ in range(chance.randrange(1, 12)):
                at = chance.randrange(len(damaged))
                action = chance.randrange(3)
                if action == 0:
                    damaged[at] = chance.randrange(256)
                elif action == 1:
                    del damaged[at : at + chance.randrange(1, 40)]
                else:
                    damaged[at:at] = chance.choice([b'"', b",", b"\n", b"\r", b"\t", b"\0", b'""', b"\xff"])
            path.write_bytes(bytes(damaged))
            quarantined = [row for row in rows_of(path) if isinstance(row, Quarantined)]
            assert all(row.reason in ris_csv.REASONS for row in quarantined)
            said = "".join(row.remedy + row.path for row in quarantined)
            assert identity.address not in said and "結節" not in said


def test_an_unknown_key_of_the_rules_names_file_and_line(tmp_path: Path) -> None:
    text = (rules_folder() / "ingest/ris_csv.yaml").read_text(encoding="utf-8")
    path = tmp_path / "ris_csv.yaml"
    path.write_text(text.replace("  day: [検査日", "  tag: [日]\n  day: [検査日", 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"ris_csv.yaml:\d+: unknown key 'tag'"):
        parse(read_yaml(path), RisCsvRules)


def test_every_dialect_is_tested() -> None:
    assert len(SITES) == len(DIALECTS) == len(STEMS)
