"""The tables of the department systems, read back with the csv module of the standard library."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from reportlabel.synth.patient import Exam, PatientFile, Record, Report
from reportlabel.synth.write_ris_csv import (
    DIALECTS,
    Dialect,
    RisCsvWriter,
    era_date,
    half_width,
    one_in,
    site_dialects,
    to_cp932,
)
from tests.unit.synth.written_patient import SITES as HOSPITAL
from tests.unit.synth.written_patient import written_exam, written_identity, written_patient, written_record

SITES = {**HOSPITAL, "tani": replace(HOSPITAL["aoba"], id="tani")}
FINDINGS = '右下葉に12㎜大の"結節"を認めます。\n①胸水なし、縦隔リンパ節腫大なし。\n長径12mm〜15mm。'
IDS = [f"{number:08d}" for number in range(1, 400)]
WHOLE = next(one for one in IDS if not one_in(4, one, "excel"))
EDITED = next(one for one in IDS if one_in(4, one, "excel"))


def exam_of(site: str, number: int = 1, *, started_at: datetime = datetime(2023, 3, 14, 9, 5, 7)) -> Exam:
    return replace(
        written_exam(0),
        site=site,
        exam_id=f"E{number:010d}",
        report_id=f"R{number:010d}",
        accession_number=f"{20230314000 + number}",
        order_number=f"{number:015d}",
        order_name="胸部CT（コントラスト）",
        started_at=started_at,
        age_years=68,
    )


def report_of(exam: Exam, version: int = 1, status: str = "final", findings: str = FINDINGS) -> Report:
    return Report(
        report_id=str(exam.report_id),
        exam_id=exam.exam_id,
        version=version,
        status=status,
        confirmed_at=exam.started_at + timedelta(hours=version),
        reader="桐生 一馬",
        second_reader=None if version == 1 else "設楽 美咲",
        text=f"【所見】\n{findings}\n【診断】\n肺癌疑い",
        findings_text=findings,
        impression_text="肺癌疑い",
    )


def record_of(site: str, kind: str, serial: int, **fields: object) -> Record:
    start = datetime(2023, 3, 20, 13, 30)
    return written_record(kind, serial, start, site=site, number=1, end_at=start + timedelta(hours=3), **fields)


def patient_of(site: str, patient_id: str = WHOLE) -> PatientFile:
    person = replace(
        written_identity(site), patient_id=patient_id, kana="タカハシ　イチロウ", sex="M", birth_date=date(1954, 12, 3)
    )
    file = PatientFile(1, person)
    first, second = exam_of(site, 1), exam_of(site, 2)
    file.exams = [first, second, replace(exam_of(site, 3), report_id=None)]
    file.reports = [
        report_of(first, 1, "preliminary", "右下葉に結節。"),
        report_of(first, 2, "final"),
        report_of(first, 3, "amended", FINDINGS + "\n訂正：左下葉。"),
        report_of(second),
    ]
    file.records = [
        record_of(
            site,
            "pathology",
            1,
            name="肺生検",
            details={
                "specimen": "肺生検",
                "method": "TBLB",
                "diagnosis": "腺癌",
                "findings": "異型腺管",
                "addendum": "EGFR陽性",
            },
        ),
        record_of(site, "physiology", 2, code="9A110", name="12誘導心電図", text="洞調律", details={"HR": "72 /min"}),
        record_of(site, "surgery", 3, code="K514-2 3", name="胸腔鏡下肺葉切除", details={"diagnosis": "肺癌術後"}),
        record_of(site, "lab", 4, name="CRP", value=0.3),
    ]
    return file


def written(out: Path, *files: PatientFile, part: int = 0) -> RisCsvWriter:
    with RisCsvWriter(out, SITES, part=part) as writer:
        for file in files:
            writer.write(file)
    return writer


def rows_of(path: Path, dialect: Dialect) -> list[dict[str, str]]:
    text = path.read_bytes().decode("cp932")
    header, *rows = csv.reader(io.StringIO(text, newline=""), delimiter=dialect.delimiter, strict=True)
    assert all(len(row) == len(header) for row in rows)
    return [dict(zip(header, row, strict=True)) for row in rows]


def header_of(dialect: Dialect, kind: str, name: str) -> str:
    return next(header for header, field in dialect.columns[kind] if field == name)


@pytest.mark.parametrize(("site", "dialect"), site_dialects(SITES).items(), ids=[one.name for one in DIALECTS])
def test_every_dialect_reads_back(tmp_path: Path, site: str, dialect: Dialect) -> None:
    written(tmp_path, patient_of(site))
    found = {
        kind: rows_of(tmp_path / site / f"{stem}-0000{dialect.suffix}", dialect) for kind, stem in dialect.stems.items()
    }
    assert {path.name for path in (tmp_path / site).iterdir()} == {
        f"{stem}-0000{dialect.suffix}" for stem in dialect.stems.values()
    }
    for kind, rows in found.items():
        assert list(rows[0]) == [name for name, _ in dialect.columns[kind]]
        assert {row[header_of(dialect, kind, "patient_id")] for row in rows} == {WHOLE}
    reports = found["radiology"]
    assert len(reports) == (5 if dialect.unread else 4)
    body = "text" if dialect.name == "compact" else "findings"
    cell = reports[1][header_of(dialect, "radiology", body)].replace("\r\n", "\n")
    assert FINDINGS.replace("〜", "～") in cell
    statuses = [row[header_of(dialect, "radiology", "status")] for row in reports]
    assert statuses[:4] == [*dialect.statuses, dialect.statuses[1]]
    assert [row[header_of(dialect, "radiology", "version")] for row in reports][:3] == [
        dialect.versions.format(number) for number in (1, 2, 3)
    ]
    assert found["pathology"][0][header_of(dialect, "pathology", "addendum")] == "EGFR陽性"
    assert found["physiology"][0][header_of(dialect, "physiology", "measured")] == "HR=72 /min"
    code = found["surgery"][0][header_of(dialect, "surgery", "code")]
    assert code == ("K51423" if dialect.plain_codes else "K514-2 3")


def test_lines_end_with_crlf_and_the_bytes_are_cp932(tmp_path: Path) -> None:
    written(tmp_path, *(patient_of(site) for site in SITES))
    for path in tmp_path.rglob("*-0000.*"):
        data = path.read_bytes()
        assert data.endswith(b"\r\n") and not data.startswith(b"\xef\xbb\xbf")
        with pytest.raises(UnicodeDecodeError):
            data.decode("utf-8")


def test_a_tsv_leaves_inner_quotes_alone(tmp_path: Path) -> None:
    file = patient_of("sato")
    file.reports = [report_of(file.exams[0], findings='12mm大の"結節"')]
    written(tmp_path, file)
    assert '\t12mm大の"結節"\t'.encode("cp932") in (tmp_path / "sato/RIS_REPORT-0000.tsv").read_bytes()


@pytest.mark.parametrize(
    ("day", "style", "expected"),
    [
        (date(2023, 3, 14), "long_era", "令和5年3月14日"),
        (date(2019, 5, 1), "long_era", "令和元年5月1日"),
        (date(2019, 4, 30), "dotted_era", "H31.4.30"),
        (date(2018, 5, 1), "slashed_era", "H30/5/1"),
        (date(2023, 3, 14), "padded_era", "R05/03/14"),
        (date(1989, 1, 7), "dotted_era", "S64.1.7"),
        (date(1989, 1, 8), "dotted_era", "H1.1.8"),
        (date(1926, 12, 24), "long_era", "大正15年12月24日"),
        (date(1912, 7, 30), "long_era", "大正元年7月30日"),
    ],
)
def test_eras(day: date, style: str, expected: str) -> None:
    assert era_date(day, style) == expected


def test_an_era_that_had_ended_is_written_on() -> None:
    assert era_date(date(2019, 6, 3), "long_era", era_of=date(2019, 4, 30)) == "平成31年6月3日"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ガザ　パピー", "ｶﾞｻﾞ ﾊﾟﾋﾟｰ"),
        ("ヴァイオレット", "ｳﾞｧｲｵﾚｯﾄ"),
        ("胸部ＣＴ・エコー", "胸部ＣＴ･ｴｺｰ"),
        ("ヶヵヮ", "ｹｶﾜ"),
    ],
)
def test_half_width(text: str, expected: str) -> None:
    assert half_width(text) == expected


def test_forms_of_age_date_and_time(tmp_path: Path) -> None:
    written(tmp_path, *(patient_of(site) for site in SITES))
    plain, era, tsv, compact = DIALECTS
    row = rows_of(tmp_path / "aoba/radiology-0000.csv", plain)[0]
    assert (row["検査日"], row["検査時刻"], row["生年月日"]) == ("2023/03/14", "09:05:07", "1954/12/03")
    row = rows_of(tmp_path / "minato/読影レポート-0000.csv", era)[0]
    assert (row["検査日"], row["検査時間"], row["年齢"]) == ("R5.3.14", "09:05", "68歳")
    assert (row["生年月日"], row["フリガナ"], row["検査項目"]) == ("昭和29年12月3日", "ﾀｶﾊｼ ｲﾁﾛｳ", "胸部CT（ｺﾝﾄﾗｽﾄ）")
    row = rows_of(tmp_path / "sato/RIS_REPORT-0000.tsv", tsv)[0]
    assert (row["検査日時"], row["年齢"], row["生年月日"]) == ("R5/3/14 09:05", "068Y", "S29/12/03")
    row = rows_of(tmp_path / "tani/rrep-0000.csv", compact)[0]
    assert (row["検査日"], row["検査時刻"], row["性別コード"]) == ("20230314", "090507", "1")


def test_after_midnight_belongs_to_the_day_before(tmp_path: Path) -> None:
    file = patient_of("minato")
    file.exams = [exam_of("minato", 1, started_at=datetime(2023, 3, 1, 0, 15))]
    file.reports = [report_of(file.exams[0])]
    written(tmp_path, file)
    row = rows_of(tmp_path / "minato/読影レポート-0000.csv", DIALECTS[1])[0]
    assert (row["検査日"], row["検査時間"], row["確定日時"]) == ("R5.2.28", "24:15", "R5.3.1 01:15")


def test_an_exam_that_nobody_read_has_empty_cells(tmp_path: Path) -> None:
    written(tmp_path, patient_of("aoba"))
    row = rows_of(tmp_path / "aoba/radiology-0000.csv", DIALECTS[0])[-1]
    assert row["状態"] == "未読影"
    assert [row[name] for name in ("所見", "診断", "確定日時", "版数", "レポート番号")] == [""] * 5


def test_damage_of_a_spreadsheet(tmp_path: Path) -> None:
    file = patient_of("aoba", EDITED)
    file.reports = [report_of(exam, findings="=結節") for exam in file.exams[:2]]
    writer = written(tmp_path, file)
    assert not (tmp_path / "aoba/radiology-0000.csv").exists()
    row = rows_of(tmp_path / "aoba/radiology-0000_edited.csv", DIALECTS[0])[0]
    assert row["患者ID"] == EDITED.lstrip("0")
    assert (row["受付番号"], row["オーダ番号"]) == ("2.02303E+10", "1")
    assert date(1899, 12, 30) + timedelta(days=int(row["生年月日"])) == date(1954, 12, 3)
    assert (row["検査日"], row["検査時刻"], row["確定日時"]) == ("2023/3/14", "9:05:07", "2023/3/14 10:05")
    assert row["所見"] == "#NAME?"
    kinds = {kind for path, kind, row_id in writer.defects if row_id == "R0000000001"}
    assert kinds == {"excel_patient_id", "excel_accession", "excel_order", "excel_formula"}
    assert {path.partition("-")[0] for path, _, _ in writer.defects} >= {"aoba/radiology", "aoba/surgery"}


def test_characters_that_cp932_lacks_are_counted(tmp_path: Path) -> None:
    assert to_cp932("−10〜20‖—") == ("－10～20∥―".encode("cp932"), {})
    files = [patient_of(site) for site in ("aoba", "sato")]
    for file in files:
        file.reports = [report_of(file.exams[0], findings="⻑径12mm、⻑軸")]
    writer = written(tmp_path, *files)
    assert writer.replaced["aoba"] == {"⻑": 2} == writer.replaced["sato"]
    assert rows_of(tmp_path / "aoba/radiology-0000.csv", DIALECTS[0])[0]["所見"] == "〓径12mm、〓軸"
    assert rows_of(tmp_path / "sato/RIS_REPORT-0000.tsv", DIALECTS[2])[0]["所見"] == "?径12mm、?軸"
    assert ("aoba/radiology-0000.csv", "character_lost", "R0000000001") in writer.defects


def test_dates_that_people_mistyped_are_recorded(tmp_path: Path) -> None:
    bad = next(number for number in range(1, 5000) if one_in(400, f"R{number:010d}", "date"))
    old = next(
        number
        for number in range(1, 5000)
        if one_in(10, f"R{number:010d}", "era") and not one_in(400, f"R{number:010d}", "date")
    )
    file = patient_of("sato")
    file.exams = [exam_of("sato", bad), exam_of("sato", old, started_at=datetime(2019, 6, 3, 9))]
    file.reports = [report_of(exam) for exam in file.exams]
    file.records = []
    writer = written(tmp_path, file)
    rows = rows_of(tmp_path / "sato/RIS_REPORT-0000.tsv", DIALECTS[2])
    assert [row["検査日時"] for row in rows] == ["R5/2/30 09:05", "H31/6/3 09:00"]
    assert [(kind, row_id) for _, kind, row_id in writer.defects] == [
        ("unparsable_date", f"R{bad:010d}"),
        ("old_era", f"R{old:010d}"),
    ]


def test_the_same_patients_give_the_same_bytes_and_parts_their_own_files(tmp_path: Path) -> None:
    files = [patient_of(site, patient) for site in SITES for patient in (WHOLE, EDITED)]
    for folder in ("a", "b"):
        written(tmp_path / folder, *files)
    written(tmp_path / "b", *files, part=12)
    first = {path.relative_to(tmp_path / "a"): path.read_bytes() for path in (tmp_path / "a").rglob("*.?sv")}
    second = {path.relative_to(tmp_path / "b"): path.read_bytes() for path in (tmp_path / "b").rglob("*.?sv")}
    assert len(first) == 20 and first.items() <= second.items()
    assert {path.stem.removesuffix("_edited")[-4:] for path in second.keys() - first.keys()} == {"0012"}


def test_the_patient_of_all_writers(tmp_path: Path) -> None:
    files = [written_patient(site, number) for number, site in enumerate(HOSPITAL, start=1)]
    written(tmp_path, *files)
    for file, dialect in zip(files, DIALECTS, strict=False):
        folder = tmp_path / file.identity.site
        (path,) = folder.glob(f"{dialect.stems['radiology']}-*")
        assert len(rows_of(path, dialect)) == len(file.reports) + dialect.unread
        assert len(list(folder.iterdir())) == 4
