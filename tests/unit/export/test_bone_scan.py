"""The hand-over of the bone scan study: rows, Excel file, DICOM files of the same patients, volumes, receipt."""

from __future__ import annotations

import html
import io
import json
import sys
import zipfile
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from reportlabel.deidentify.dates import DatePolicy
from reportlabel.deidentify.text import Deidentifier, KnownNames
from reportlabel.deidentify.text_rules import load_text_rules
from reportlabel.errors import ConfigError, InputError, RefusedError
from reportlabel.export.bone_scan import (
    DISAGREEMENTS,
    FILES,
    METASTASIS,
    SHEET,
    Sheet,
    match_dicom,
    patient_metastasis,
    read_sheet,
    record_receipt,
    sheet_bytes,
    sheet_rows,
    write_bundle,
)
from reportlabel.export.deliverable_rules import BoneScanRules, load_deliverables
from reportlabel.export.manifest import read_manifest, verify_manifest
from reportlabel.protocol import Permission, Protocol, load_protocol
from reportlabel.schema import EXAM_LABELS, EXAMS, READINGS, REPORTS

HEADERS = ["患者符号", "検査日", "所見", "EOD", "転移の有無", "年齢", "性別", "身長", "体重"]
CODES = ["P-0A1B2C3D4E", "P-1A1B2C3D4E", "P-2A1B2C3D4E"]


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    return load_protocol("gunma_bone_scan")


@pytest.fixture(scope="module")
def rules() -> BoneScanRules:
    return load_deliverables().bone_scan


def exams(**changed: list[Any]) -> pl.DataFrame:
    columns = {
        "exam_id": ["E0", "E1", "E2"],
        "patient_id": CODES,
        "site": ["gunma"] * 3,
        "started_at": [datetime(2019, 6, 1, 9), datetime(2019, 7, 15, 9), datetime(2019, 9, 30, 23, 59)],
        "age_years": [61, 0, 97],
        "sex": ["F"] * 3,
        "height_cm": [152.3, 0.0, None],
        "weight_kg": [48.5, 0.0, None],
        **changed,
    }
    return pl.DataFrame(columns, schema={name: EXAMS[name] for name in columns})


def reports(*texts: str | None) -> pl.DataFrame:
    given = texts or ("多発骨転移を認めます。", "=異常集積なし", "転移を疑う集積はありません。\n退行性変化です。")
    rows = [
        {
            "report_id": f"R{at}.{version}",
            "exam_id": f"E{at}",
            "version": version,
            "text": text if version == 2 else "旧版",
        }
        for at, text in enumerate(given)
        for version in (2, 1)
    ]
    return pl.DataFrame(rows, schema=REPORTS)


def labels(*, eod: tuple[str, ...] = ("3", "not_mentioned", "0"), **values: str) -> pl.DataFrame:
    given = {"E0": "present", "E1": "absent", "E2": "absent", **values}
    rows = [(exam, "bone_metastasis", value) for exam, value in given.items()]
    rows += [(f"E{at}", "eod", value) for at, value in enumerate(eod)]
    return pl.DataFrame(
        [{"exam_id": e, "label_set": "bone_scintigraphy", "finding": f, "value": v} for e, f, v in rows],
        schema=EXAM_LABELS,
    )


def readings(*rows: tuple[str, str, str]) -> pl.DataFrame:
    given = rows or tuple(
        (exam, f"r{n}", value)
        for exam, value in (("E0", "present"), ("E1", "absent"), ("E2", "absent"))
        for n in range(3)
    )
    return pl.DataFrame(
        [
            {
                "exam_id": exam,
                "label_set": "bone_scintigraphy",
                "finding": "bone_metastasis",
                "reader": reader,
                "value": value,
                "read_at": datetime(2026, 1, 1, at % 24),
            }
            for at, (exam, reader, value) in enumerate(given)
        ],
        schema=READINGS,
    )


def sheet(protocol: Protocol, rules: BoneScanRules, **changed: Any) -> Sheet:
    some = {"exams": exams(), "reports": reports(), "labels": labels(), **changed}
    options = {key: some.pop(key) for key in ("several", "confirmed_only") if key in some}
    read = some.pop("readings", readings())
    decided = patient_metastasis(some["exams"], some["labels"], read, protocol, rules)
    return sheet_rows(some["exams"], some["reports"], some["labels"], decided.patients, protocol, rules, **options)


def permission(protocol: Protocol, deliverable: str = "sheet") -> Permission:
    return protocol.gate(
        "export",
        today=date(2025, 6, 1),
        recipient="nihon_medi_physics",
        purpose="software_comparison",
        deliverable=deliverable,
    )


# --- B15 --------------------------------------------------------------------------------------------------------------


def test_B15_a_patient_has_metastases_if_one_of_the_exams_shows_some(protocol: Protocol, rules: BoneScanRules) -> None:
    some = exams(patient_id=[CODES[0], CODES[0], CODES[1]])
    decided = patient_metastasis(some, labels(), readings().clear(), protocol, rules)
    assert decided.patients.schema == METASTASIS
    assert decided.patients.rows() == [
        (CODES[0], "present", "report", 0, False),
        (CODES[1], "absent", "report", 0, False),
    ]
    assert decided.disagreements.is_empty()


def test_B15_readers_decide_and_disagreements_are_listed(protocol: Protocol, rules: BoneScanRules) -> None:
    read = readings(
        ("E0", "a", "present"), ("E0", "b", "present"), ("E0", "c", "absent"),
        ("E1", "a", "present"), ("E1", "b", "present"), ("E1", "c", "absent"),
        ("E2", "a", "present"), ("E2", "b", "absent"),
    )  # fmt: skip
    decided = patient_metastasis(exams(), labels(), read, protocol, rules)
    assert decided.patients.rows() == [
        (CODES[0], "present", "readers", 3, True),
        (CODES[1], "present", "readers", 3, True),
        (CODES[2], "absent", "report", 2, False),
    ]
    assert decided.disagreements.schema == DISAGREEMENTS
    assert decided.disagreements.rows() == [(CODES[1], "absent", "present", 3), (CODES[2], "absent", None, 2)]


def test_B15_the_last_word_of_a_reader_counts(protocol: Protocol, rules: BoneScanRules) -> None:
    read = readings(("E0", "a", "present"), ("E0", "a", "absent"))
    assert patient_metastasis(exams(), labels(), read, protocol, rules).patients["value"][0] == "absent"


def test_B15_nothing_unconfirmed_goes_out(protocol: Protocol, rules: BoneScanRules) -> None:
    made = sheet(protocol, rules, readings=readings(("E0", "a", "present")))
    assert made.rows["patient_code"].to_list() == CODES[:1]
    assert set(made.problems["number"]) == {"B15"} and made.problems.height == 2
    assert sheet(protocol, rules, readings=readings().clear(), confirmed_only=False).rows.height == 3
    undecided = sheet(protocol, rules, labels=labels(E1="uncertain"), readings=readings().clear(), confirmed_only=False)
    assert undecided.problems.select("column", "reason").rows() == [("転移の有無", "neither yes nor no (uncertain)")]


# --- B13, B14 ---------------------------------------------------------------------------------------------------------


def test_B13_rows(protocol: Protocol, rules: BoneScanRules) -> None:
    made = sheet(protocol, rules)
    assert made.rows.schema == SHEET
    assert made.rows.rows() == [
        (CODES[0], date(2019, 6, 1), "多発骨転移を認めます。", "3", "有", 61, "女", 1.523, 48.5),
        (CODES[1], date(2019, 7, 15), "=異常集積なし", "未算出", "無", 0, "女", None, None),
        (
            CODES[2],
            date(2019, 9, 30),
            "転移を疑う集積はありません。\n退行性変化です。",
            "0",
            "無",
            97,
            "女",
            None,
            None,
        ),
    ]
    assert made.counts == {"patients_in": 3, "patients_out": 3, "patients_with_problems": 0, "eod_missing": 1}


def test_B13_the_file_has_columns_A_to_I_exactly(protocol: Protocol, rules: BoneScanRules, tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    path = tmp_path / "sheet.xlsx"
    rows = sheet(protocol, rules).rows
    path.write_bytes(sheet_bytes(rows, protocol, rules))
    page = openpyxl.load_workbook(path).active
    assert [cell.value for cell in page[1]] == HEADERS
    assert [cell.column_letter for cell in page[1]] == list("ABCDEFGHI")
    assert page.max_row == 4 and page.max_column == 9
    assert [cell.value for cell in page[2]] == [
        CODES[0], datetime(2019, 6, 1), "多発骨転移を認めます。", 3, "有", 61, "女", 1.523, 48.5,
    ]  # fmt: skip
    assert page["B2"].is_date and page["B2"].number_format == "yyyy-mm-dd"
    assert (page["C3"].value, page["C3"].data_type) == ("=異常集積なし", "s")  # no formula
    assert page["D3"].value == "未算出" and page["H3"].value is None
    assert read_sheet(path, protocol, rules).equals(rows)


def test_B13_the_same_rows_give_the_same_bytes(protocol: Protocol, rules: BoneScanRules) -> None:
    pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    rows = sheet(protocol, rules).rows
    assert sheet_bytes(rows, protocol, rules) == sheet_bytes(rows, protocol, rules)


def test_B13_headers_of_protocol_and_rules_must_agree(protocol: Protocol, rules: BoneScanRules) -> None:
    assert protocol.excel is not None
    swapped = protocol.excel.model_copy(update={"required": tuple(reversed(protocol.excel.required))})
    with pytest.raises(ConfigError, match="in this order"):
        sheet(protocol.model_copy(update={"excel": swapped}), rules)


@pytest.mark.parametrize(
    ("changed", "column", "number"),
    [
        ({"exams": exams(started_at=[None, datetime(2019, 7, 1), datetime(2019, 7, 1)])}, "検査日", "B14"),
        (
            {"exams": exams(started_at=[datetime(2019, 5, 31), datetime(2019, 7, 1), datetime(2019, 7, 1)])},
            "検査日",
            "B1",
        ),
        ({"exams": exams(age_years=[None, 3, 4])}, "年齢", "B14"),
        ({"exams": exams(sex=["M", "F", "F"])}, "性別", "B1"),
        ({"exams": exams(sex=[None, "F", "F"])}, "性別", "B14"),
        ({"exams": exams(patient_id=["0000123456", *CODES[1:]])}, "患者符号", "B12"),
        ({"exams": exams(patient_id=["山田太郎", *CODES[1:]])}, "患者符号", "B12"),
        ({"reports": reports("  ", "a", "b")}, "所見", "B14"),
        ({"reports": reports("a" * 40_000, "a", "b")}, "所見", "B16"),
        ({"reports": reports("a\x07", "a", "b")}, "所見", "B16"),
        ({"labels": labels(eod=("5", "1", "1"))}, "EOD", "B14"),
        ({"labels": labels(eod=("多数", "1", "1"))}, "EOD", "B14"),
    ],
)
def test_B14_a_patient_with_a_wrong_cell_is_listed_and_not_in_the_sheet(
    protocol: Protocol, rules: BoneScanRules, changed: dict[str, Any], column: str, number: str
) -> None:
    made = sheet(protocol, rules, **changed)
    assert made.rows.height == 2
    assert made.problems.select("column", "number").rows() == [(column, number)]
    assert made.counts["patients_in"] == made.counts["patients_out"] + made.counts["patients_with_problems"]
    assert made.problems["remedy"].str.len_chars().min() > 10  # type: ignore[operator]


def test_B14_without_a_report_there_are_no_findings(protocol: Protocol, rules: BoneScanRules) -> None:
    made = sheet(protocol, rules, reports=reports().filter(pl.col("exam_id") != "E2"))
    assert made.problems.select("patient_code", "column").rows() == [(CODES[2], "所見")]


def test_B14_height_and_weight_are_optional(protocol: Protocol, rules: BoneScanRules) -> None:
    assert sheet(protocol, rules, exams=exams(height_cm=[None] * 3, weight_kg=[None] * 3)).rows.height == 3


def test_B13_a_patient_with_several_exams_needs_a_choice(protocol: Protocol, rules: BoneScanRules) -> None:
    some = exams(patient_id=[CODES[0], CODES[0], CODES[1]])
    assert sheet(protocol, rules, exams=some).problems["reason"].to_list() == ["several exams in the cohort"]
    days = {
        choice: sheet(protocol, rules, exams=some, several=choice).rows["exam_date"][0] for choice in ("first", "last")
    }
    assert days == {"first": date(2019, 6, 1), "last": date(2019, 7, 15)}


def test_B13_tables_that_cannot_be_used(protocol: Protocol, rules: BoneScanRules) -> None:
    with pytest.raises(InputError, match="lacks the columns height_cm"):
        sheet_rows(exams().drop("height_cm"), reports(), labels(), pl.DataFrame(schema=METASTASIS), protocol, rules)
    none = exams(patient_id=[None, *CODES[1:]])
    with pytest.raises(InputError, match="1 rows have no patient code"):
        sheet_rows(none, reports(), labels(), pl.DataFrame(schema=METASTASIS), protocol, rules)


@pytest.mark.parametrize(
    ("cell", "value", "said"),
    [
        ("A1", "患者番号", "row 1: the headers must be"),
        ("E2", None, "row 2, column 転移の有無: required, but empty"),
        ("E3", "不明", "row 3, column 転移の有無: neither yes nor no"),
        ("D2", None, "row 2, column EOD: required, but empty"),
        ("D2", 7, "row 2, column EOD: not a grade"),
        ("D2", 2.5, "row 2, column EOD: not of the type"),
        ("B2", "令和元年", "row 2, column 検査日: not of the type"),
        ("B2", datetime(2020, 1, 1), "row 2, column 検査日: outside the period"),
        ("F2", "六十", "row 2, column 年齢: not of the type"),
        ("G2", "男", "row 2, column 性別: not a sex that the study examines"),
        ("A2", CODES[1], "a code stands twice"),
        ("A2", 12345, "row 2, column 患者符号: not of the type"),
    ],
)
def test_B14_a_sheet_filled_in_by_hand_is_checked(
    protocol: Protocol, rules: BoneScanRules, tmp_path: Path, cell: str, value: Any, said: str
) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    path = tmp_path / "sheet.xlsx"
    path.write_bytes(sheet_bytes(sheet(protocol, rules).rows, protocol, rules))
    book = openpyxl.load_workbook(path)
    book.active[cell] = value
    book.save(path)
    with pytest.raises(InputError, match=said) as error:
        read_sheet(path, protocol, rules)
    assert "骨転移を" not in str(error.value)


def test_B14_what_is_no_sheet_is_said_so(protocol: Protocol, rules: BoneScanRules, tmp_path: Path) -> None:
    pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    path = tmp_path / "sheet.xlsx"
    path.write_bytes(b"no zip")
    with pytest.raises(InputError, match="cannot be read as an Excel sheet"):
        read_sheet(path, protocol, rules)


# --- B12, B7, B8, B22 -------------------------------------------------------------------------------------------------


def dicom(folder: Path, code: str, day: str, *, name: str | None = None, size: int = 4, number: int = 0) -> Path:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    data = Dataset()
    data.PatientName, data.PatientID, data.StudyDate = name or code, code, day
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.20", generate_uid()
    data.PixelData = b"\0" * size
    data["PixelData"].VR = "OB"
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = folder / code / f"{number}.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def archive(folder: Path) -> list[Path]:
    return [
        dicom(folder, code, day, number=number, size=200_000)
        for code, day in zip(CODES, ("20190601", "20190715", "20190930"), strict=True)
        for number in range(2)
    ]


def test_B12_the_code_of_the_sheet_is_the_code_in_the_files(
    protocol: Protocol, rules: BoneScanRules, tmp_path: Path
) -> None:
    paths = archive(tmp_path)
    rows = sheet(protocol, rules).rows
    files, wrong = match_dicom(rows, paths, tmp_path, protocol)
    assert wrong.is_empty() and files.schema == FILES
    assert files["path"].to_list() == [f"{code}/{number}.dcm" for code in CODES for number in range(2)]

    paths[0] = dicom(tmp_path, CODES[0], "20190601", name="YAMADA^TARO")  # number 1 in the order of names
    paths[5] = dicom(tmp_path, CODES[2], "20190929", number=1)
    paths.append(dicom(tmp_path, "P-9Z9Z9Z9Z9Z", "20190601"))
    (tmp_path / "z.dcm").write_bytes(b"no dicom")
    files, wrong = match_dicom(rows.head(3), [*paths, tmp_path / "z.dcm"], tmp_path, protocol)
    assert files.height + wrong["file"].drop_nulls().len() == 8
    assert wrong.select("file", "number").rows() == [(1, "B12"), (6, "B13"), (7, "B12"), (8, "B12")]
    assert "YAMADA" not in str(wrong.rows())


def test_B12_a_patient_without_files_is_listed(protocol: Protocol, rules: BoneScanRules, tmp_path: Path) -> None:
    rows = sheet(protocol, rules).rows
    files, wrong = match_dicom(rows, archive(tmp_path)[:4], tmp_path, protocol)
    assert wrong.rows() == [(None, CODES[2], "no DICOM file of the exam", "B12")]
    with pytest.raises(InputError, match="1 patients are in the sheet or in the DICOM files, but not in both"):
        write_bundle(
            tmp_path / "out", sheet(protocol, rules), files, folder=tmp_path, protocol=protocol,
            permission=permission(protocol), rules=rules,
        )  # fmt: skip


def made_bundle(protocol: Protocol, rules: BoneScanRules, tmp_path: Path) -> tuple[Path, list[Path]]:
    pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    made = sheet(protocol, rules)
    source = tmp_path / "dicom"
    files, _ = match_dicom(made.rows, archive(source), source, protocol)
    out = tmp_path / "bundle"
    volumes = write_bundle(
        out, made, files, folder=source, protocol=protocol, permission=permission(protocol), rules=rules,
        rules_sha256="0" * 64,
    )  # fmt: skip
    return out, volumes


def small_discs(protocol: Protocol, megabytes: int) -> Protocol:
    transfer = protocol.transfer.model_copy(update={"volume_mb": megabytes})
    copy = protocol.model_copy(update={"transfer": transfer})
    copy._origin = protocol._origin
    return copy


def test_B7_volumes_are_no_larger_than_a_disc(protocol: Protocol, rules: BoneScanRules, tmp_path: Path) -> None:
    out, volumes = made_bundle(small_discs(protocol, 2), rules, tmp_path)
    assert len(volumes) == 2
    for volume in volumes:
        assert sum(path.stat().st_size for path in volume.rglob("*") if path.is_file()) <= 2_000_000
        assert verify_manifest(volume) == []
    assert sorted(path.relative_to(volumes[0]).as_posix() for path in volumes[0].iterdir()) == [
        "DICOM",
        "bone_scan.xlsx",
        "manifest.json",
    ]
    inside = [path.relative_to(out).as_posix().split("/", 2)[2] for path in out.rglob("*.dcm")]
    assert sorted(inside) == [f"{code}/{number}.dcm" for code in CODES for number in range(2)]
    assert verify_manifest(out) == []
    next(out.rglob("*.dcm")).write_bytes(b"altered")
    assert len(verify_manifest(out)) == 1
    assert protocol.transfer.volume_mb == 700


def test_B7_a_file_larger_than_a_disc_is_refused(protocol: Protocol, rules: BoneScanRules, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="larger than a disc"):
        made_bundle(small_discs(protocol, 1), rules, tmp_path)
    assert not (tmp_path / "bundle").exists()


def test_X2_B22_the_manifest_says_what_to_whom_and_why(
    protocol: Protocol, rules: BoneScanRules, tmp_path: Path
) -> None:
    out, _ = made_bundle(protocol, rules, tmp_path)
    said = read_manifest(out)
    assert said is not None
    assert said["protocol"] == "gunma_bone_scan" and said["protocol_sha256"] == protocol.sha256
    assert said["permission"]["recipient"] == "nihon_medi_physics"
    assert said["permission"]["purpose"] == "software_comparison"
    assert said["valid_to"] == "2025-12-31" and said["rules_sha256"] == "0" * 64 and said["reportlabel_version"]
    assert [one["number"] for one in said["decisions"]] == [f"BC{n}" for n in range(1, 14)]
    assert said["eod_missing_token"] == "未算出"
    assert (
        said["counts"]["patients_out"] == 3
        and said["counts"]["eod_missing"] == 1
        and said["counts"]["dicom_files"] == 6
    )
    assert all(len(file["sha256"]) == 64 for file in said["files"])


def test_B22_without_the_permission_nothing_is_made(protocol: Protocol, rules: BoneScanRules, tmp_path: Path) -> None:
    made = sheet(protocol, rules)
    other = permission(protocol, deliverable="comparison")
    with pytest.raises(RefusedError, match="B22"):
        write_bundle(
            tmp_path / "out", made, pl.DataFrame(schema=FILES), folder=tmp_path, protocol=protocol, permission=other,
            rules=rules,
        )  # fmt: skip
    with pytest.raises(RefusedError, match="B22"):
        protocol.gate(
            "export",
            today=date(2026, 1, 1),
            recipient="nihon_medi_physics",
            purpose="commercial_use",
            deliverable="sheet",
        )


def test_B7_the_receipt(protocol: Protocol, rules: BoneScanRules, tmp_path: Path) -> None:
    out, _ = made_bundle(protocol, rules, tmp_path)
    path = record_receipt(out, received_on=date(2025, 6, 3), received_by="開発部")
    said = json.loads(path.read_text(encoding="utf-8"))
    assert path.parent == out.parent
    assert said["recipient"] == "nihon_medi_physics" and said["received_on"] == "2025-06-03"
    assert said["channel"] == "by_hand" and len(said["manifest_sha256"]) == 64
    with pytest.raises(ConfigError, match="never overwritten"):
        record_receipt(out, received_on=date(2025, 6, 4), received_by="開発部")
    next(out.rglob("*.xlsx")).unlink()
    with pytest.raises(InputError, match="not what was made"):
        record_receipt(out, received_on=date(2025, 6, 3), received_by="開発部")


# --- B16 --------------------------------------------------------------------------------------------------------------


def test_B16_findings_are_masked_texts(protocol: Protocol, rules: BoneScanRules) -> None:
    pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    canaries = ["雪乃　花子", "雪乃花子", "70012345", "白樺脳神経外科", "田中", "葛西", "090-1234-5678"]
    raw = (
        "雪乃花子様　70012345\n白樺脳神経外科からの紹介。\n第3腰椎に異常集積を認め、転移を疑います。\n"
        "主治医の田中先生へ連絡済（090-1234-5678）。\n（葛西）"
    )
    known = KnownNames(persons=("雪乃　花子",), identifiers=(("id", "70012345"),))
    policy = DatePolicy(protocol.dates_of(protocol.profile_of("sheet")))
    masked = Deidentifier(load_text_rules(), known=known, date_policy=policy).mask(raw, exam_day=date(2019, 6, 1))
    made = sheet(protocol, rules, reports=reports(masked.text, "異常集積なし", "異常集積なし"))
    findings = made.rows["findings"][0]
    assert "第3腰椎に異常集積を認め、転移を疑います。" in findings
    assert [one for one in canaries if one in raw and one in findings] == []
    # nor in any part of the file
    with zipfile.ZipFile(io.BytesIO(sheet_bytes(made.rows, protocol, rules))) as book:
        text = html.unescape("".join(book.read(name).decode("utf-8") for name in book.namelist()))
    assert "第3腰椎" in text and [one for one in canaries if one in text] == []


def test_B16_a_text_that_is_no_cell_is_a_problem(protocol: Protocol, rules: BoneScanRules) -> None:
    made = sheet(protocol, rules, reports=reports("a" * 40_000, "異常\x07集積", "異常集積なし"))
    assert made.problems["number"].to_list() == ["B16", "B16"] and made.rows.height == 1


def test_without_openpyxl_the_remedy_is_said(
    protocol: Protocol, rules: BoneScanRules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ConfigError, match=r"reportlabel\[excel\]"):
        sheet_bytes(sheet(protocol, rules).rows, protocol, rules)
