"""SS-MIX2 storages: the public samples, those of the synthetic hospital, messages and documents by hand, and damage."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import asdict, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import hl7
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportlabel.errors import ConfigError
from reportlabel.ingest import ssmix2
from reportlabel.ingest import ssmix2_storage as storage
from reportlabel.ingest.codes import narrow
from reportlabel.ingest.ris_csv import report_text
from reportlabel.ingest.rows import ExamRow, PatientRow, Quarantined, RecordRow, ReportRow, Row, Source
from reportlabel.ingest.ssmix2 import Ssmix2Rules, depends, files, passed_over, read, recognise
from reportlabel.ingest.ssmix2_segments import decoded, field_of, plain
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.read_yaml import parse, read_yaml
from reportlabel.synth.patient import PatientFile
from reportlabel.synth.write_ssmix2 import SsMix2Writer
from tests.unit.synth.written_patient import (
    ADDENDUM_2,
    FINDINGS_1,
    FINDINGS_2,
    IMPRESSION_1,
    IMPRESSION_2,
    SITES,
    TEXT_1,
    TEXT_2,
    TEXT_3,
    written_patient,
    written_record,
)

SAMPLES = Path(__file__).parents[4] / "shared/samples/ssmix2"
NUMBERS = {site: 7 + place for place, site in enumerate(SITES)}


def source_of(path: Path, site: str | None = None, **options: Any) -> Source:
    return Source("ssmix2", path, path, site, options)


def rows_of(path: Path, *, site: str | None = None, **options: Any) -> list[Row]:
    source = source_of(path, site, **options)
    return [row for one in files(source) for row in read(one, source)]


def of(kind: type[Row], rows: list[Row]) -> list[Any]:
    return [row for row in rows if isinstance(row, kind)]


def records(rows: list[Row], kind: str) -> list[RecordRow]:
    return [row for row in rows if isinstance(row, RecordRow) and row.kind == kind]


def reasons(rows: list[Row]) -> list[tuple[int | None, str]]:
    return [(row.row, row.reason) for row in rows if isinstance(row, Quarantined)]


def write(out: Path, *patients: PatientFile) -> SsMix2Writer:
    with SsMix2Writer(out, SITES) as writer:
        for patient in patients:
            writer.write(patient)
    return writer


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ssmix2")
    write(out, *(written_patient(site, number) for site, number in NUMBERS.items()))
    return out


@pytest.fixture(scope="module")
def rows(hospital: Path) -> dict[str, list[Row]]:
    return {site: rows_of(hospital / site, site=site) for site in SITES}


def message_path(root: Path, kind: str, name: str = "", *, patient: str = "00000007", day: str = "20230314") -> Path:
    name = name or f"{patient}_{day}_{kind}_000000000000123_20230314101500000_01_1"
    path = root / patient[:3] / patient[3:6] / patient / day / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


EVENTS = {
    "ADT-00": "ADT^A08^ADT_A01",
    "PPR-01": "PPR^ZD1^PPR_ZD1",
    "OML-11": "OUL^R22^OUL_R22",
    "OMG-01": "OMG^O19^OMG_O19",
    "OMG-11": "OMI^Z23^OMI_Z23",
    "OMG-13": "ORU^R01^ORU_R01",
    "OMP-01": "RDE^O11^RDE_O11",
    "OMP-02": "RDE^O11^RDE_O11",
    "OMP-12": "RAS^O17^RAS_O17",
}
PID = "PID|0001||00000007^^^^PI||山田^太郎^^^^^L^I~ヤマダ^タロウ^^^^^L^P||19480405|M"


def message(kind: str, *segments: str, pid: str = PID, event: str = "") -> str:
    event = event or EVENTS[kind]
    head = f"MSH|^~\\&|HIS|1319990101|GW|RCV|20230314101500||{event}|1|P|2.5||||||~ISO IR87||ISO 2022-1994|"
    return "\r".join((head, pid, *segments)) + "\r"


def one(tmp_path: Path, kind: str, *segments: str, **parts: Any) -> list[Row]:
    """The rows of one message by hand."""
    path = message_path(tmp_path, kind)
    path.write_bytes(message(kind, *segments, **parts).encode("iso2022_jp"))
    return rows_of(tmp_path, site="aoba")


# --- the public samples -----------------------------------------------------------------------------------------------


@pytest.fixture
def samples() -> Path:
    if not SAMPLES.is_dir():
        pytest.skip(f"the samples are not in this checkout ({SAMPLES})")
    return SAMPLES / "sampleData"


def test_the_public_samples(samples: Path) -> None:
    assert recognise(samples)
    assert recognise(SAMPLES)
    source = source_of(samples, "sample")
    assert passed_over(source) == {"deleted": 1, "superseded": 0}
    assert Counter(reason for _, reason in reasons(rows_of(samples, site="sample"))) == {
        storage.DIFFERENT_PATIENT: 12,  # one of them in a file that is deleted
        storage.NOT_HL7: 1,
        storage.SHIFTED_BIRTH: 1,
    }
    everything = sorted(path for path in samples.rglob("*") if path.is_file())
    found = {path: list(read(path, source)) for path in everything}
    told = Counter(reason for these in found.values() for _, reason in reasons(these))
    assert told == {storage.DIFFERENT_PATIENT: 12, storage.NOT_HL7: 1, storage.SHIFTED_BIRTH: 1}
    assert len(everything) == 22
    assert {path.parent.name for path in everything if not reasons(found[path])} == {
        "ADT-00", "ADT-22", "ADT-42", "ADT-52", "OML-01", "OMP-01", "OMP-02", "OMP-11", "OMP-12",
    }  # fmt: skip


def test_what_the_samples_say(samples: Path) -> None:
    found = rows_of(samples, site="sample")
    assert of(PatientRow, found) == [PatientRow("sample", "9999013", "M", date(1948, 4, 5))]
    drugs = {(row.code, row.name): row for row in records(found, "medication") if row.start_at == datetime(2011, 7, 1)}
    drug = drugs["108665201", "ダーゼン錠(5mg)"]
    assert (drug.code_system, drug.end_at, drug.value, drug.unit) == ("HOT9", datetime(2011, 7, 6), 3.0, "錠")
    powder = drugs["100607002", "アレピアチン10倍散"]
    assert (powder.value, powder.unit, powder.end_at) == (100.0, "mg", datetime(2011, 7, 15))
    drips = [row for row in records(found, "medication") if row.code == "620007329"]
    assert [(row.start_at, row.end_at) for row in drips] == [
        (datetime(2011, 7, 1, 8, 0), datetime(2011, 7, 1, 13, 0)),
        (datetime(2011, 7, 1, 13, 0), datetime(2011, 7, 1, 18, 0)),
        (datetime(2011, 7, 1, 18, 0), datetime(2011, 7, 1, 23, 0)),
        (datetime(2011, 7, 1, 8, 5, 21), datetime(2011, 7, 1, 13, 5, 43)),
    ]


def moved(samples: Path, tmp_path: Path, kind: str) -> list[Row]:
    """The sample of a type as it would be in the folder of the patient whom PID-3 names."""
    (path,) = (one for one in samples.rglob(f"9999013_*_{kind}_*") if one.parent.name == kind)
    content = path.read_bytes()
    patient = decoded(content.strip()).split("PID|0001||")[1].split("|")[0].split("^")[0]  # type: ignore[union-attr]
    day = path.name.split("_")[1]
    message_path(tmp_path, kind, path.name.replace("9999013", patient), patient=patient, day=day).write_bytes(content)
    return rows_of(tmp_path, site="sample")


def test_samples_moved_to_their_patients(samples: Path, tmp_path: Path) -> None:
    (diagnosis,) = moved(samples, tmp_path / "1", "PPR-01")
    assert diagnosis == RecordRow(
        site="sample", patient_id="1234567890", kind="diagnosis", start_at=datetime(2011, 8, 31), end_at=None,
        code_system="ICD-10", code="K297", name="胃炎", certainty="confirmed", number="123456789012345",
    )  # fmt: skip
    results = moved(samples, tmp_path / "2", "OML-11")
    assert [(row.code, row.name, row.value, row.unit) for row in records(results, "lab")] == [
        ("3A016000002327102", "A/G比", 1.7, None),
        ("3A010000002327101", "総蛋白", 7.2, "g/dl"),
        ("3A015000002327101", "アルブミン", 4.9, "g/dl"),
    ]
    assert {(row.start_at, row.reported_at) for row in records(results, "lab")} == {
        (datetime(2011, 12, 19, 15, 0), datetime(2011, 12, 20, 10, 30, 59))
    }
    (exam,) = moved(samples, tmp_path / "3", "OMG-11")
    assert exam == ExamRow(
        site="sample", patient_id="3330000333", study_instance_uid="1.2.392.1114.20045.43233.5.300001",
        accession_number="A201112200030001", started_at=datetime(2011, 12, 20, 11, 35, 40), modality="US",
        order_name="胎児.経皮的超音波検査", age_years=29, sex="F",
    )  # fmt: skip
    ecg, *rest = moved(samples, tmp_path / "4", "OMG-13")[::-1]
    assert isinstance(ecg, RecordRow) and ecg.text is not None
    assert (ecg.code, ecg.name, ecg.certainty) == ("9A110", "標準12誘導心電図", "final")
    assert ecg.text.startswith("心筋虚血疑い\n心拍数 67 bpm; PQ 時間 154 msec; ")
    assert reasons(rest) == [(None, storage.SHIFTED_BIRTH)]


def test_segments_are_those_of_a_library(samples: Path, hospital: Path) -> None:
    paths = [*samples.rglob("9999013_*"), *hospital.glob("*/standard/*/*/*/*/*/*")]
    for path in paths:
        text = decoded(path.read_bytes().strip(b"\x1c\r\n"))
        if text is None or not text.startswith("MSH"):
            continue
        parsed = hl7.parse(text.strip() + "\r")
        lines = [line.split("|") for line in text.split("\r") if line]
        assert [str(one[0]) for one in parsed] == [one[0] for one in lines]
        for ours, theirs in zip(lines[1:], list(parsed)[1:], strict=True):
            assert [field_of(ours, at) for at in range(len(ours))] == [str(one) for one in theirs]


# --- the synthetic hospital -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", list(SITES))
def test_exams(rows: dict[str, list[Row]], site: str) -> None:
    patient = written_patient(site, NUMBERS[site])
    found = {row.study_instance_uid: row for row in of(ExamRow, rows[site])}
    assert len(found) == len(patient.exams)
    for exam in patient.exams:
        row = found[exam.study_instance_uid]
        wanted = asdict(exam) | {"order_name": narrow(exam.order_name)}
        for name in (
            "accession_number", "started_at", "modality", "order_name", "contrast_agent", "contrast_ml", "tracer",
            "weight_kg",
        ):  # fmt: skip
            assert getattr(row, name) == wanted[name], name
        assert (row.sex, row.patient_id) == ("F", patient.identity.patient_id)
    assert [row.age_years for row in found.values()] == [72] * 4
    assert of(PatientRow, rows[site]) == [PatientRow(site, patient.identity.patient_id, "F", date(1948, 12, 30))]


@pytest.mark.parametrize("site", list(SITES))
def test_reports(rows: dict[str, list[Row]], site: str) -> None:
    patient = written_patient(site, NUMBERS[site])
    first, second, third = of(ReportRow, rows[site])
    if site == "aoba":
        # the character sets of documents have it all; sections stand below their headings as in tables of reports
        assert first.text == report_text(FINDINGS_1, IMPRESSION_1)
        assert second.text == report_text(FINDINGS_2 + ADDENDUM_2, IMPRESSION_2)
        assert third.text == report_text(TEXT_3, "")
    elif site == "sato":  # the whole report in one section
        assert (first.text, second.text, third.text) == (TEXT_1, TEXT_2 + ADDENDUM_2, TEXT_3)
    else:  # text in cp932, which lacks one character
        assert second.text == (TEXT_2 + ADDENDUM_2).replace("⻑", "?")
        assert third.text == TEXT_3
    for row, report, exam in zip((first, second, third), (0, 3, 4), (0, 1, 2), strict=True):
        wanted, of_exam = patient.reports[report], patient.exams[exam]
        assert (row.status, row.version) == (wanted.status, wanted.version)
        assert row.confirmed_at == wanted.confirmed_at
        assert row.study_instance_uid == of_exam.study_instance_uid
        assert row.accession_number == of_exam.accession_number
        assert row.exam_at is not None and row.exam_at.date() == of_exam.started_at.date()
        assert row.report_number == (None if site == "minato" else wanted.report_id)


@pytest.mark.parametrize("site", list(SITES))
def test_laboratory(rows: dict[str, list[Row]], site: str) -> None:
    wanted = [one for one in written_patient(site, NUMBERS[site]).records if one.kind == "lab"]
    found = {(row.code, row.start_at): row for row in records(rows[site], "lab")}
    assert len(found) == len(records(rows[site], "lab")) == len(wanted)
    for record in wanted:
        row = found[record.code, record.start_at.replace(second=0)]
        assert (row.code_system, row.reported_at) == ("JLAC10", record.reported_at)
        assert (row.unit or "", row.flag or "") == (narrow(record.unit), record.flag)
        if row.text is None:
            assert row.value == record.value
    texts = {row.text for row in found.values()} - {None}
    assert texts == {"2+", "(-)", "<0.1"}
    assert {row.value for row in found.values() if row.text} == {2.0, 0.0, 0.1}


@pytest.mark.parametrize("site", list(SITES))
def test_other_records(rows: dict[str, list[Row]], site: str) -> None:
    patient = written_patient(site, NUMBERS[site])
    truth = {kind: [one for one in patient.records if one.kind == kind] for kind in ("diagnosis", "physiology")}
    for row, record in zip(records(rows[site], "diagnosis"), truth["diagnosis"], strict=True):
        assert (row.code_system, row.code, row.name) == ("ICD-10", record.code, record.name)
        assert (row.certainty, row.start_at) == (record.certainty, record.start_at)
        assert (row.end_at and row.end_at.date()) == (record.end_at and record.end_at.date())
    (ecg,) = records(rows[site], "physiology")
    assert ecg.text is not None
    assert ecg.text.split("\n")[1].startswith("心拍数 72 /min; PQ 時間 156 msec; ")
    assert (ecg.start_at, ecg.reported_at) == (datetime(2021, 7, 13), truth["physiology"][0].reported_at)
    (tissue,) = records(rows[site], "pathology")
    assert tissue.text == (
        "Adenocarcinoma, right upper lobe.\n異型細胞が腺管構造を形成する。\nTTF-1（＋）、EGFR L858R陽性。"
    )
    assert (tissue.code, tissue.certainty, tissue.start_at) == ("A21-00007", "corrected", datetime(2021, 4, 12))
    assert (tissue.name, tissue.reported_at) == ("肺生検 経気管支肺生検", datetime(2021, 4, 24, 17, 0))
    (operation,) = records(rows[site], "surgery")
    assert (operation.code_system, operation.code, operation.side) == ("K", "K514-2 3", "right")
    assert operation.name == "胸腔鏡下肺悪性腫瘍手術(肺葉切除)"
    assert (operation.text, operation.start_at) == ("右上葉切除＋ND2a-1。\n出血量 35mL。", datetime(2021, 7, 26))


@pytest.mark.parametrize("site", list(SITES))
def test_drugs(rows: dict[str, list[Row]], site: str) -> None:
    drugs: dict[str | None, list[RecordRow]] = {}
    for row in records(rows[site], "medication"):
        drugs.setdefault(row.code, []).append(row)
    ordered = drugs["135869396"]  # renewed every 84 days: each order as it is
    assert [(row.start_at, row.end_at) for row in ordered] == [
        (datetime(2020, 11, 2), datetime(2021, 1, 25)),
        (datetime(2021, 1, 25), datetime(2021, 4, 19)),
        (datetime(2021, 4, 19), datetime(2021, 6, 1)),
    ]
    assert {(row.code_system, row.value, row.unit) for row in ordered} == {("HOT9", 1.0, "錠")}
    (tablets,) = drugs["100000001"]
    assert (tablets.name, tablets.value, tablets.unit) == ("ロキソプロフェン錠60mg", 3.0, "錠")
    (drip,) = drugs["100000002"]
    assert (drip.start_at, drip.end_at) == (datetime(2021, 8, 2, 9), datetime(2021, 8, 4, 9))
    given = [row.name for code, these in drugs.items() if code and code.startswith("C") for row in these]
    assert given == ([] if site == "aoba" else ["イオパミドール370", "Tc-99m HMDP"])


def test_what_is_quarantined_of_the_hospital(rows: dict[str, list[Row]]) -> None:
    told = {site: Counter(reason for _, reason in reasons(found)) for site, found in rows.items()}
    for site, counts in told.items():
        assert set(counts) <= {storage.SHIFTED_BIRTH, storage.DELETED}
        assert (counts[storage.SHIFTED_BIRTH] > 0) == (site == "aoba")


def test_every_wrong_file_is_found(tmp_path: Path) -> None:
    writer = write(tmp_path, *(written_patient("aoba", number) for number in range(20, 120)))
    wrong = {path for path, kind, _ in writer.defects if kind == "patient_id_differs"}
    assert wrong
    source = source_of(tmp_path / "aoba", "aoba")
    found = {
        path.relative_to(tmp_path).as_posix()
        for path in files(source)
        if (None, storage.DIFFERENT_PATIENT) in reasons(list(read(path, source)))
    }
    assert found == wrong & {path.relative_to(tmp_path).as_posix() for path in files(source)}


def test_no_row_names_the_patient(rows: dict[str, list[Row]], hospital: Path) -> None:
    for site, found in rows.items():
        canaries = [
            one.value for one in written_patient(site, NUMBERS[site]).canaries
            if one.kind in ("name", "kana", "roman", "address", "phone")
        ]  # fmt: skip
        said = [str(value) for row in found for value in asdict(row).values()]
        assert not [one for one in canaries for text in said if one in text]
        staff = {exam.technologist for exam in written_patient(site, NUMBERS[site]).exams}
        assert not [one for one in staff for text in said if one in text]
        ids = (f"{NUMBERS[site]:08d}", "/000/000/")
        assert not [row for row in found if isinstance(row, Quarantined) and any(one in row.path for one in ids)]


# --- which files count ------------------------------------------------------------------------------------------------


def names(root: Path) -> list[str]:
    return [path.name for path in files(source_of(root, "aoba"))]


def test_newest_valid_files_are_read(tmp_path: Path) -> None:
    stamp = "20230314101500000"
    kept = [
        f"00000007_20230314_OML-11_000000000000123_{stamp}_01_1",
        f"00000007_20230314_OML-11_000000000000124_{stamp}_01_1",
        f"00000007_20230314_OMG-13_999999999999999_{stamp}_01_1",  # without an order number: nothing is replaced
        f"00000007_20230314_OMG-13_999999999999999_{stamp.replace('1500', '1600')}_01_1",
        "00000007_-_PPR-01_999999999999999_20230401000000000_01_1",
    ]
    passed = [
        f"00000007_20230314_OML-11_000000000000123_{stamp.replace('1500', '1400')}_01_1",
        f"00000007_20230310_OML-11_000000000000123_{stamp.replace('1500', '1300')}_02_1",  # moved to a later day
        "00000007_-_PPR-01_999999999999999_20230301000000000_05_1",
    ]
    deleted = [
        f"00000007_20230314_OML-11_000000000000125_{stamp}_01_0",
        f"00000007_20230314_OML-11_000000000000126_{stamp}_01_2",
    ]
    for name in kept + passed + deleted:
        _, day, kind, *_ = name.split("_")
        message_path(tmp_path, kind, name, day=day).write_bytes(b"")
    assert sorted(names(tmp_path)) == sorted(kept + deleted)  # of the deleted only the patient is looked at
    assert passed_over(source_of(tmp_path)) == {"deleted": 2, "superseded": 3}
    assert list(files(source_of(tmp_path))) == sorted(files(source_of(tmp_path)))


def test_versions_of_a_document(hospital: Path) -> None:
    for site in SITES:
        (report,) = hospital.glob(f"{site}/extended/*/*/*/20210712/RAD01*")
        assert len(list(report.iterdir())) == 3
        read_of_it = [path for path in files(source_of(hospital / site)) if report in path.parents]
        assert len(read_of_it) == 1


def test_a_file_in_the_wrong_place(tmp_path: Path) -> None:
    name = "00000007_20230314_OML-11_000000000000123_20230314101500000_01_1"
    content = message("OML-11", pid=PID.replace("00000007", "00000008")).encode("iso2022_jp")
    message_path(tmp_path, "OML-11", name, patient="00000008").write_bytes(content)
    message_path(tmp_path, "OMG-11", name).write_bytes(content)
    message_path(tmp_path, "OML-11", name, day="20230315").write_bytes(content)
    (tmp_path / "index.db").write_bytes(b"\0")
    found = rows_of(tmp_path, site="aoba")
    assert Counter(reasons(found)) == {(None, storage.MISPLACED): 3, (None, storage.BAD_NAME): 1}
    assert not any("0000000" in row.path for row in of(Quarantined, found))


def test_recognise(hospital: Path, tmp_path: Path) -> None:
    site = hospital / "aoba"
    assert recognise(hospital) and recognise(site) and recognise(site / "standard") and recognise(site / "extended")
    assert all(recognise(path) for path in files(source_of(hospital)))
    (tmp_path / "beside").mkdir()
    assert not recognise(tmp_path)
    message_path(tmp_path / "storage", "OML-11").write_bytes(b"MSH|^~\\&|")
    assert recognise(tmp_path / "storage")
    assert not recognise(tmp_path)  # holds something else too
    (tmp_path / "other.txt").write_text("MSH|^~\\&|")
    assert not recognise(tmp_path / "other.txt")
    assert not recognise(tmp_path / "nothing")


def test_where_the_site_comes_from(hospital: Path) -> None:
    number = SITES["aoba"].insurance_number
    assert {row.reason for row in of(Quarantined, rows_of(hospital / "aoba"))} >= {storage.NO_SITE}
    assert {
        row.site for row in rows_of(hospital / "aoba", sites={number: "A"}) if not isinstance(row, Quarantined)
    } == {"A"}
    found = rows_of(hospital, site_of_folder=True)
    assert {row.site for row in found if not isinstance(row, Quarantined)} == set(SITES)
    with pytest.raises(ConfigError, match="'sights': unknown"):
        rows_of(hospital, sights={})


def test_the_width_of_ids(tmp_path: Path) -> None:
    path = message_path(tmp_path, "ADT-00", patient="1234567")
    path.write_bytes(message("ADT-00", pid=PID.replace("00000007", "1234567")).encode("iso2022_jp"))
    assert [row.patient_id for row in of(PatientRow, rows_of(tmp_path, site="a", patient_id_width=10))] == [
        "0001234567"
    ]


# --- messages by hand -------------------------------------------------------------------------------------------------

OBX = "OBX|1|NM|3A010000002327101^総蛋白^JC10||7.2|g/dl^g/dl^99XYZ|6.70-8.3|L|||F|||202303140900"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xfb\xfc", storage.NOT_HL7),
        (b"", storage.NOT_HL7),
        (message("OML-11", OBX).encode("iso2022_jp")[4:], storage.NOT_HL7),
        (message("OML-11", OBX, event="OML^O33^OML_O33").encode("iso2022_jp"), storage.WRONG_TYPE),
        (message("OML-11", OBX, event="20230314").encode("iso2022_jp"), storage.NOT_HL7),
        (message("OML-11", OBX, event="|OUL^R22^OUL_R22").encode("iso2022_jp"), storage.SHIFTED),
        (message("OML-11", OBX, pid=PID.replace("07^", "70^")).encode("iso2022_jp"), storage.DIFFERENT_PATIENT),
        (message("OML-11", OBX, pid=PID.replace("||00000007", "|00000007|")).encode("iso2022_jp"), storage.SHIFTED),
        (message("OML-11", OBX, pid=PID.replace("00000007^^^^PI", "")).encode("iso2022_jp"), storage.NO_PATIENT),
        (message("OML-11", OBX, pid="PID").encode("iso2022_jp"), storage.NO_PATIENT),
        (
            message("OML-11", OBX, pid=f"{PID}\r{PID.replace('00000007', '00000008')}").encode("iso2022_jp"),
            storage.DIFFERENT_PATIENT,
        ),
        (message("OML-11", OBX).encode("cp932"), storage.BAD_ENCODING),
        (message("OML-11", OBX).encode("utf-8"), storage.BAD_ENCODING),
        (message("OML-11", OBX).encode("iso2022_jp").replace(b"\x1b(B", b"\x1b(Q"), storage.BAD_ENCODING),
    ],
)  # fmt: skip
def test_a_bad_message_is_not_used(tmp_path: Path, content: bytes, reason: str) -> None:
    message_path(tmp_path, "OML-11").write_bytes(content)
    assert reasons(rows_of(tmp_path, site="aoba")) == [(None, reason)]
    assert not records(rows_of(tmp_path, site="aoba"), "lab")


def test_an_unknown_data_type(tmp_path: Path) -> None:
    message_path(tmp_path, "XYZ-99").write_bytes(message("OML-11").encode())
    assert reasons(rows_of(tmp_path, site="aoba")) == [(None, storage.UNKNOWN_TYPE)]


def test_other_forms_of_a_message(tmp_path: Path) -> None:
    text = message("OML-11", "SPM", OBX, "OBX")
    for number, content in enumerate(
        (
            b"\x0b" + text.encode("iso2022_jp") + b"\x1c\r",
            text.replace("\r", "\n").encode("iso2022_jp"),
            text.replace("\r", "\r\n").encode("iso2022_jp"),
            b"\xef\xbb\xbf" + text.replace("~ISO IR87", "UNICODE UTF-8").encode("utf-8"),
        )
    ):
        message_path(tmp_path / str(number), "OML-11").write_bytes(content)
        (row,) = rows_of(tmp_path / str(number), site="aoba")
        assert isinstance(row, RecordRow)
        assert (row.name, row.value, row.flag, row.start_at) == ("総蛋白", 7.2, "L", datetime(2023, 3, 14, 9))


@pytest.mark.parametrize(
    ("kind", "written", "value", "text"),
    [
        ("NM", "0.5", 0.5, None),
        ("NM", "１２．５", 12.5, None),
        ("NM", "(-)", 0.0, "(-)"),
        ("ST", "<0.5", 0.5, "<0.5"),
        ("ST", "2+", 2.0, "2+"),
        ("ST", "1:80", None, "1:80"),
        ("SN", "<^0.5", 0.5, "<0.5"),
        ("SN", "<^ 0.5", 0.5, "<0.5"),
        ("SN", "^1^:^80", None, "1 : 80"),
        ("CWE", "1314^Escherichia coli^JANIS", None, "Escherichia coli"),
        ("TX", "a\\F\\b\\.br\\c", None, "a|b\nc"),
    ],
)
def test_values(tmp_path: Path, kind: str, written: str, value: float | None, text: str | None) -> None:
    (row,) = one(tmp_path, "OML-11", OBX.replace("|NM|", f"|{kind}|").replace("7.2", written))
    assert isinstance(row, RecordRow)
    assert (row.value, row.text) == (value, text)


@pytest.mark.parametrize(
    ("segment", "reason"),
    [
        (OBX.replace("|F|", "|X|"), storage.DELETED),
        (OBX.replace("|F|", "|O|"), storage.NO_VALUE),
        (OBX.replace("7.2", ""), storage.NO_VALUE),
        (OBX.replace("202303140900", "2023031x"), storage.BAD_DATE),
        (OBX.replace("|202303140900", "|x||202303140900"), storage.BAD_DATE),
        (OBX.replace("|||202303140900", "||202303140900|x"), storage.SHIFTED),
        (OBX.replace("OBX|1|NM", "OBX||1|NM"), storage.SHIFTED),
        (OBX.replace("3A010000002327101^総蛋白^JC10", ""), storage.NO_CODE),
    ],
)
def test_results_that_are_none(tmp_path: Path, segment: str, reason: str) -> None:
    found = one(tmp_path, "OML-11", segment, OBX)
    assert [reason] == [told for _, told in reasons(found)]
    assert len(records(found, "lab")) == 1


def prb(**fields: str) -> str:
    known = {
        "1": "AD",
        "2": "20230301",
        "3": "20054174^胃炎^MDCDX2",
        "4": "77",
        "7": "20230301",
        "10": "K297^^I10",
        **fields,
    }
    cells = [""] * 18
    for at, text in known.items():
        cells[int(at) - 1] = text
    return "|".join(["PRB", *cells])


@pytest.mark.parametrize(
    ("segments", "certainty", "end"),
    [
        ([prb()], "confirmed", None),
        ([prb(**{"13": "1"})], "suspected", None),
        ([prb(), "ZPR||20054174^胃炎^MDCDX2|||TSQF^胃炎^MDCDX2"], "confirmed", None),
        ([prb(), "ZPR||20054174^胃炎^MDCDX2|||TSQF^胃炎^MDCDX2~5395^の疑い^MDCDX2"], "suspected", None),
        ([prb(), "ZPR||20054174^胃炎^MDCDX2|8002^^X"], "suspected", None),
        ([prb(**{"17": "胃炎の疑い"})], "suspected", None),
        ([prb(**{"9": "20230310"})], "confirmed", None),
        ([prb(**{"9": "20230310", "14": "N^回復せず^HL70241"})], "confirmed", None),
        ([prb(**{"9": "20230310", "14": "F^治癒^HL70241"})], "confirmed", datetime(2023, 3, 10)),
        ([prb(), prb(**{"1": "UP", "9": "20230310", "14": "F^治癒^HL70241"})], "confirmed", datetime(2023, 3, 10)),
    ],
)  # fmt: skip
def test_certainty_and_end_of_diagnoses(
    tmp_path: Path, segments: list[str], certainty: str, end: datetime | None
) -> None:
    (row,) = one(tmp_path, "PPR-01", *segments)
    assert isinstance(row, RecordRow)
    assert (row.certainty, row.end_at, row.code, row.number) == (certainty, end, "K297", "77")


def test_diagnoses_that_are_none(tmp_path: Path) -> None:
    found = one(
        tmp_path, "PPR-01",
        prb(), prb(**{"1": "DE"}), prb(**{"4": "78", "7": "", "2": ""}), prb(**{"4": "79", "7": "2023031"}),
        prb(**{"4": "80", "3": "", "10": ""}), prb(**{"4": "81", "10": "", "9": "20200101", "14": "F^治癒^HL70241"}),
    )  # fmt: skip
    (row,) = records(found, "diagnosis")
    assert (row.code_system, row.code, row.end_at) == ("MEDIS", "20054174", None)
    assert Counter(reasons(found)) == {
        (None, storage.DELETED): 1,
        (None, storage.BAD_END): 1,
        (5, storage.NO_DATE): 1,
        (6, storage.BAD_DATE): 1,
        (7, storage.NO_CODE): 1,
    }


def test_two_studies_of_one_message(tmp_path: Path) -> None:
    found = one(
        tmp_path, "OMG-11",
        "ORC|NW|123|||||||20230314141500", "OBR||123||6000^ＣＴ^JJ1017|||20230314",
        "ORC|CH|124|||||||20230314141500", "OBR||124||6000^胸部ＣＴ^JJ1017|||20230314093012",
        "IPC|A1|P|1.2.3.4||CT^^DCM",
        "ZE2|1|DE-02^薬品^JSHR|1^オムニパーク３００^99|100|ML^ミリリットル^MR9P",
        "ZE2|1|DE-02^薬品^JSHR|2^生理食塩液^99|20|ML^ミリリットル^MR9P",
        "ORC|CH|125|||||||20230314141500", "OBR||125||7000^頭部ＭＲ^JJ1017|||20230314", "IPC|A2|P|1.2.3.5",
        "OBX|1|NM|01-02^体重^JSHR001||62|kg^kg^ISO+|||||F",
        "OBX|1|ZRD|DE-02^薬品^JSHR||3^ガドビスト^HOT9^7.5^ML&mL&MR9P||||||F",
        "ORC|CA|126", "OBR||126||6000^ＣＴ^JJ1017|||20230314", "IPC|A3|P|1.2.3.6||CT^^DCM",
    )  # fmt: skip
    first, second = of(ExamRow, found)
    assert (first.study_instance_uid, first.modality, first.order_name) == ("1.2.3.4", "CT", "胸部CT")
    assert first.started_at == datetime(2023, 3, 14, 9, 30, 12)
    assert (first.contrast_agent, first.contrast_ml, first.weight_kg) == ("オムニパーク300", 100.0, None)
    assert (second.modality, second.order_name, second.started_at) == ("MR", "頭部MR", datetime(2023, 3, 14, 14, 15))
    assert (second.contrast_agent, second.contrast_ml, second.weight_kg) == ("ガドビスト", 7.5, 62.0)
    assert reasons(found) == [(None, storage.DELETED)]


def test_what_lies_beside_an_exam(tmp_path: Path) -> None:
    exam = message_path(tmp_path, "OMG-11")
    said = message("OMG-11", "ORC|NW|123", "OBR||123||8^核医学^JJ1017|||20230314", "IPC|A1|P|1.2.3.4||NM^^DCM")
    exam.write_bytes(said.encode("iso2022_jp"))
    stamp = "00000007_20230314_OMP-12_000000000000123_2023031410{}00000_01_{}"
    for minute, flag, name in ((10, 1, "ヨウ化ナトリウム"), (20, 1, "テクネMDP注射液"), (30, 0, "テクネシンチ")):
        drug = f"RXA|0|1|202303140900|202303140900|1^{name}^99X|740|MBQ^^X|||||||||||||CP"
        content = message("OMP-12", drug).encode("iso2022_jp")
        message_path(tmp_path, "OMP-12", stamp.format(minute, flag)).write_bytes(content)
    order = message("OMG-01", "ORC|NW|123", "OBR||123||8^核医学^JJ1017", "OBX|1|NM|01-02^体重^JSHR001||0|kg").encode(
        "iso2022_jp"
    )
    message_path(tmp_path, "OMG-01").write_bytes(order)
    source = source_of(tmp_path, "aoba")
    assert [path.parent.name for path in depends(exam, source)] == ["OMG-01", "OMP-12"]
    assert depends(message_path(tmp_path, "OMG-01"), source) == []
    (row,) = read(exam, source)
    assert isinstance(row, ExamRow)
    assert (row.tracer, row.weight_kg, row.contrast_agent) == ("テクネMDP注射液", None, None)
    message_path(tmp_path, "OMP-12", stamp.format(20, 1)).write_bytes(content.replace(b"00000007", b"00000008"))
    (row,) = read(exam, source)
    assert isinstance(row, ExamRow) and row.tracer is None


def test_drugs_that_were_not_given(tmp_path: Path) -> None:
    found = one(
        tmp_path, "OMP-12",
        "RXA|0|1|202303140900|202303140905|1^a^HOT9|1|AMP^管^MR9P|||||||||||||CP",
        "RXA|0|1|202303140900||2^b^HOT9|1|AMP^管^MR9P|||||||||||||RE",
        "RXA|0|1|x||3^c^HOT9|1|AMP^管^MR9P|||||||||||||CP",
        "RXA|0|1|202303140900|202303130900|4^d^YJ",
    )  # fmt: skip
    assert [(row.code, row.code_system, row.unit) for row in records(found, "medication")] == [
        ("1", "HOT9", "管"), ("4", "YJ", None),
    ]  # fmt: skip
    assert [reason for _, reason in reasons(found)] == [storage.BAD_DATE, storage.BAD_END, storage.DELETED]


def test_prescriptions(tmp_path: Path) -> None:
    found = one(
        tmp_path, "OMP-01",
        "ORC|NW|1", "RXE||1^a^99X^2^b^YJ|1||TAB^錠^MR9P", "TQ1|1|||||2^w|2023031500",
        "ORC|NW|1", "RXE||3^c^HOT9|5||MG^ミリグラム^MR9P", "TQ1|1",
        "ORC|CA|1", "RXE||4^d^HOT9|5||MG^ミリグラム^MR9P",
        "RXE||5^e^HOT9|5||MG^ミリグラム^MR9P", "TQ1|1||||||20231315",
    )  # fmt: skip
    first, second = records(found, "medication")
    assert (first.code_system, first.code, first.name, first.value, first.unit) == ("YJ", "2", "b", 1.0, "錠")
    assert (first.start_at, first.end_at) == (datetime(2023, 3, 15), datetime(2023, 3, 29))
    assert (second.start_at, second.end_at, second.unit) == (datetime(2023, 3, 14), None, "mg")
    assert [reason for _, reason in reasons(found)] == [storage.BAD_DATE, storage.DELETED]


# --- characters -------------------------------------------------------------------------------------------------------


def test_characters_of_vendors() -> None:
    assert decoded(b"a\x1b$B-!\x1b(Bb\x1b$B-P\x1b(B") == "a①b㎜"  # row 13
    assert decoded(b"\x1b$B-!!]F|\x1b(B") == "①−日"  # the others of a run as JIS X 0208 has them
    assert decoded(b"\x1b(I1^\x1b(B") == "ｱﾞ"
    assert decoded(b"\x1b(JA\x1b(B") == "A"
    assert decoded(b"\x1b$B!") is None
    assert decoded(b"\x1b$B~~\x1b(B") is None
    assert decoded("山".encode("cp932")) is None


@given(st.text(st.characters(codec="iso2022_jp", exclude_characters="\x1b\x0e\x0f")))
def test_characters_come_back(text: str) -> None:
    assert decoded(text.encode("iso2022_jp")) == text


def test_escapes() -> None:
    assert plain("a\\F\\b\\S\\c\\T\\d\\R\\e\\E\\f\\.br\\g\\X0D0A\\h\\H\\i\\N\\") == "a|b^c&d~e\\f\ng\nhi"


# --- documents by hand ------------------------------------------------------------------------------------------------

RADIOLOGY = "RAD^読影^L^18748-4^画像検査報告書^LN"
PATHOLOGY = "PAT^病理^L^11529-5^病理^LN"
OPERATION = "OPE^手術^L^11504-8^手術^LN"


def document_path(root: Path, folder: str, name: str = "report.xml") -> Path:
    local = folder.split("^", maxsplit=1)[0]
    inner = f"00000007_20230314_{local}_000000000000123_20230315090000000_01_1"
    path = root / "000" / "000" / "00000007" / "20230314" / folder / inner / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def cda(*sections: str, patient: str = "00000007", title: str = "報告書", before: str = "", more: str = "") -> bytes:
    body = "".join(f"<component><section>{one}</section></component>" for one in sections)
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{before}<ClinicalDocument xmlns="urn:hl7-org:v3"><title>{title}</title>'
        f'<effectiveTime value="20230315100000+0900"/><setId extension="S1"/><versionNumber value="2"/>'
        f'<recordTarget><patientRole><id extension="{patient}"/></patientRole></recordTarget>{more}'
        f"<component><structuredBody>{body}</structuredBody></component></ClinicalDocument>"
    ).encode()


def of_document(tmp_path: Path, folder: str, content: bytes, name: str = "report.xml") -> list[Row]:
    document_path(tmp_path, folder, name).write_bytes(content)
    return rows_of(tmp_path, site="aoba")


def section(code: str, title: str, text: str) -> str:
    return f'<code code="{code}"/><title>{title}</title><text>{text}</text>'


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("a<br/>b<br/><br/>c", "a\nb\n\nc"),
        ("<paragraph>a</paragraph><paragraph/><paragraph>b</paragraph>", "a\n\nb"),
        ("\n  <paragraph>a</paragraph>\n  <paragraph>b</paragraph>\n", "a\nb"),
        ("<list><item>a</item><item>b</item></list><paragraph>c</paragraph>", "a\nb\nc"),
        ("<list><item><paragraph>a</paragraph></item><item>b</item></list>c", "a\nb\nc"),
        ("<table><tbody><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></tbody></table>", "a\tb\nc"),
        ("\r\n   a<br/>\r\n   b\r\n", "a\nb"),
        ("a\r\nb", "a\nb"),
        ("<content>右肺</content>に<sub>小</sub>結節&lt;5mm", "右肺に小結節<5mm"),
        ("　字下げ<br/>　二行目", "　字下げ\n　二行目"),
    ],
)
def test_narratives(tmp_path: Path, written: str, text: str) -> None:
    (row,) = of_document(tmp_path, RADIOLOGY, cda(section("18748-4", "", written)))
    assert isinstance(row, ReportRow)
    assert row.text == text


def test_sections_of_a_report(tmp_path: Path) -> None:
    content = cda(
        section("19005-8", "診断", "肺癌疑い。"),
        section("18785-6", "検査目的", "精査。"),
        section("", "所見", "結節を認める。"),
        section("99999-9", "比較", "前回2022/01/01。"),
        section("18782-3", "", ""),
        title="画像診断報告書（仮報告）",
        more='<inFulfillmentOf><order><id root="1" extension="123"/></order></inFulfillmentOf>'
        '<inFulfillmentOf><order><id root="2" extension="A9"/></order></inFulfillmentOf>'
        '<documentationOf><serviceEvent><id root="1.2.3.4"/>'
        '<effectiveTime><low value="20230314093000"/></effectiveTime></serviceEvent></documentationOf>',
    )
    (row,) = of_document(tmp_path, RADIOLOGY, content)
    assert row == ReportRow(
        site="aoba", patient_id="00000007",
        text="【所見】\n結節を認める。\n【診断】\n肺癌疑い。\n【比較】\n前回2022/01/01。",
        version=2, status="preliminary", report_number="S1", study_instance_uid="1.2.3.4", accession_number="A9",
        exam_at=datetime(2023, 3, 14, 9, 30), confirmed_at=datetime(2023, 3, 15, 10, 0),
    )  # fmt: skip
    source = source_of(tmp_path, "aoba", accession_root="1")
    (row,) = read(document_path(tmp_path, RADIOLOGY), source)
    assert isinstance(row, ReportRow) and row.accession_number == "123"


def test_several_operations_of_a_record(tmp_path: Path) -> None:
    content = cda(
        section(
            "29554-3",
            "術式",
            "腹腔鏡下胃切除術（悪性腫瘍手術） K655-2 2<br/>胆嚢摘出術 Ｋ６７２<br/>腹腔内ドレナージ（左）",
        ),
        section("10218-6", "術後診断", "胃癌"),
        section("", "手術記録", "出血少量。"),
    )
    first, second, third = records(of_document(tmp_path, OPERATION, content), "surgery")
    assert (first.code, first.name, first.text) == ("K655-2 2", "腹腔鏡下胃切除術(悪性腫瘍手術)", "胃癌\n出血少量。")
    assert (second.code, second.name) == ("K672", "胆嚢摘出術")
    assert (third.code, third.name, third.side) == (None, "腹腔内ドレナージ", "left")
    assert [one.number for one in (first, second, third)] == ["S1", "S1-2", "S1-3"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (cda(section("18782-3", "所見", "a"), patient="00000008"), storage.DIFFERENT_PATIENT),
        (cda(section("18782-3", "所見", "a"), patient=""), storage.NO_PATIENT),
        (cda(section("18782-3", "所見", " ")), storage.NO_TEXT),
        (cda(section("18785-6", "目的", "精査")), storage.NO_TEXT),
        (cda(section("18782-3", "所見", "a"))[:-9], storage.BROKEN_XML),
        (cda(section("18782-3", "所見", "&e;"), before='<!DOCTYPE a [<!ENTITY e "x">]>'), storage.BROKEN_XML),
        (
            cda(section("18782-3", "所見", "&e;"), before='<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>'),
            storage.BROKEN_XML,
        ),
        (b"<html><body/></html>", storage.NOT_A_DOCUMENT),
        (b"%PDF-1.7\n\0\0", storage.NOT_A_DOCUMENT),
        ("患者ID：00000007\n所見なし。".encode("cp932"), storage.NO_HEAD),
        ("患者ID：00000008\n----------\n所見なし。".encode("cp932"), storage.DIFFERENT_PATIENT),
        ("患者ID：00000007\n----------\n".encode("cp932"), storage.NO_TEXT),
        (b"\x85\xff\n----------\n\xff", storage.BAD_ENCODING),
    ],
)  # fmt: skip
def test_bad_documents(tmp_path: Path, content: bytes, reason: str) -> None:
    assert reasons(of_document(tmp_path, RADIOLOGY, content)) == [(None, reason)]


def test_plain_documents(tmp_path: Path) -> None:
    report = (
        "画像診断報告書（訂正版）\r\n氏名：山田　太郎\r\n検査日：R5.3.14　モダリティ：CT　受付番号：A1\r\n"
        "確定日時：2023/03/15 9:05  版数：第2版\r\n==========\r\n"
        "所見：①結節を認める。\r\n\r\n診断：肺癌疑い。\r\n"
    )
    for encoding in ("cp932", "utf-8", "utf-8-sig"):
        (row,) = of_document(tmp_path, RADIOLOGY, report.encode(encoding), "report.txt")
        assert row == ReportRow(
            site="aoba", patient_id="00000007", text="所見：①結節を認める。\n\n診断：肺癌疑い。", version=2,
            status="amended", accession_number="A1", exam_at=datetime(2023, 3, 14), modality="CT",
            confirmed_at=datetime(2023, 3, 15, 9, 5),
        )  # fmt: skip
    tissue = "病理報告書\n病理番号：P-1　採取日：2023/3/10\n----------\n■材料：胃\n[病理診断]\nGroup 5\n"
    tissue += "所見\n異型腺管。\n備考：なし"
    (record,) = records(of_document(tmp_path, PATHOLOGY, tissue.encode("cp932"), "report.txt"), "pathology")
    assert (record.code, record.name, record.start_at) == ("P-1", "胃", datetime(2023, 3, 10))
    assert record.text == "Group 5\n異型腺管。\n備考：なし"


def test_documents_that_are_not_read(tmp_path: Path) -> None:
    note = "PRG^経過記録^L^11506-3^経過記録^LN"
    assert of_document(tmp_path, note, b"%PDF\0") == []
    local = "XR1^読影^L"
    assert of_document(tmp_path, local, cda(section("18782-3", "所見", "a"))) == []
    found = rows_of(tmp_path, site="aoba", documents={"XR1": "radiology"})
    assert [row.text for row in of(ReportRow, found)] == ["【所見】\na"]
    picture = document_path(tmp_path, local, "picture.jpg")
    picture.write_bytes(b"\xff\xd8\0")
    assert picture not in list(files(source_of(tmp_path)))


# --- damage -----------------------------------------------------------------------------------------------------------


def test_damage_never_raises_and_never_shows_what_is_written(hospital: Path, tmp_path: Path) -> None:
    chance = random.Random(5)
    paths = chance.sample(sorted(path for path in files(source_of(hospital))), 60)
    for number, path in enumerate(paths):
        content = bytearray(path.read_bytes())
        for _ in range(chance.randint(1, 30)):
            at = chance.randrange(len(content))
            match chance.randrange(4):
                case 0:
                    content[at] = chance.randrange(256)
                case 1:
                    del content[at : at + chance.randint(1, 40)]
                case 2:
                    content[at:at] = chance.choice([b"|", b"^", b"\r", b"~", b"&", b"\\", b"<", b"\x1b$B", b"OBX"])
                case 3:
                    content += content[at : at + 50]
            content = content or bytearray(b"\0")
        below = path.relative_to(hospital / path.relative_to(hospital).parts[0])
        damaged = tmp_path / str(number) / below
        damaged.parent.mkdir(parents=True)
        damaged.write_bytes(content)
        for row in rows_of(tmp_path / str(number), site="aoba"):
            if isinstance(row, Quarantined):
                assert row.reason in ssmix2.REASONS
                assert row.remedy.startswith(ssmix2.REASONS[row.reason])
                assert not re.search(r"(?<!\d)0000000\d(?!\d)", row.path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    path = message_path(tmp_path, "OML-11")
    assert reasons(list(read(path, source_of(tmp_path, "aoba")))) == [(None, storage.UNREADABLE)]


def test_an_unknown_key_of_the_rules_names_file_and_line(tmp_path: Path) -> None:
    text = (rules_folder() / "ingest" / "ssmix2.yaml").read_text(encoding="utf-8")
    path = tmp_path / "ssmix2.yaml"
    path.write_text(text.replace("  whole: [", "  hole: ["), encoding="utf-8")
    line = text.split("  whole: [")[0].count("\n") + 1
    with pytest.raises(ConfigError, match=rf"ssmix2\.yaml:{line}: .*hole"):
        parse(read_yaml(path), Ssmix2Rules)
    path.write_text(text.replace("beside_exam: [OMG-01,", "beside_exam: [OMG-99,"), encoding="utf-8")
    with pytest.raises(ConfigError, match="no data type OMG-99"):
        parse(read_yaml(path), Ssmix2Rules)


def test_an_interim_result_gives_way(tmp_path: Path) -> None:
    patient = written_patient("sato", 9)
    drawn = datetime(2022, 1, 4, 9, 0)
    start = next(
        number for number in range(100, 900)
        if len(passed_of(tmp_path / str(number), patient, drawn, number)) == 1
    )  # fmt: skip
    found = records(rows_of(tmp_path / str(start), site="sato"), "lab")
    assert [row.certainty for row in found if row.start_at == drawn] == ["final"] * 4


def passed_of(out: Path, patient: PatientFile, drawn: datetime, serial: int) -> list[Path]:
    """What is superseded where one draw of blood has these numbers."""
    draw = [
        written_record(
            "lab", serial + at, drawn, site="sato", number=9, code_system="JLAC10", code=f"3A01{at}000002327101",
            name="総蛋白", value=7.0, unit="g/dL", reported_at=drawn + timedelta(hours=2),
        )
        for at in range(4)
    ]  # fmt: skip
    write(out, replace(patient, records=draw, exams=[], reports=[], stays=[]))
    return [path for path, fate in storage.stored_files(out) if fate == "superseded"]
