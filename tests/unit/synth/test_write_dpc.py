"""The DPC files, read back by a checker of their columns that also reads the published samples."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import pytest

from reportlabel.synth.patient import Exam, GoldState, PatientFile, Record, Stay
from reportlabel.synth.write_dpc import EF_COLUMNS, FF1_COLUMNS, DpcWriter, merge_dpc
from reportlabel.synth.write_ris_csv import one_in
from tests.unit.synth.written_patient import SITES as HOSPITAL
from tests.unit.synth.written_patient import written_exam, written_identity, written_patient, written_record

SITES = {name: HOSPITAL[name] for name in ("aoba", "minato")}
SAMPLES = Path(__file__).parents[4] / "shared/samples/dpc"
DATED = next(f"S{number:010d}" for number in range(99) if not one_in(25, f"S{number:010d}", "2023-4"))
UNDATED = next(f"S{number:010d}" for number in range(9999) if one_in(25, f"S{number:010d}", "2023-4"))

_DAY = r"(?:00000000|(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))"
_EF_FORMS = {
    1: r"\d{9}",
    2: r"\d{10}",
    3: _DAY,
    4: _DAY,
    5: r"\d\d",
    6: r"\d{4}",
    7: r"\d{3}",
    8: r"\w{6}",
    9: r"\d{9}",
    10: r"(?:[ABCDEGHIJKLMN]\d{3}\w{0,6})?",
    11: r"\S.*",
    12: r"\d{7}\.\d{3}",
    13: r"\d{3}",
    14: r"[\d.]{1,12}",
    15: r"[01]",
    16: r"\d{1,8}",
    17: r"(?:\d{12})?",
    18: r"\d{1,8}",
    19: r"\d{1,8}",
    20: r"\d{1,8}",
    21: r"\d{3}",
    22: r"(?: *\d+)?",
    23: r"(?:\d{4})?",
    24: _DAY,
    25: r"(?:\d\d)?",
    26: r"\d{3}",
    27: r"\w*",
    28: r"\w*",
    29: r"\d?",
    30: r"\d?",
    31: r"\d?",
}


def dpc_violations(path: Path) -> list[str]:
    """What is wrong with the columns of a 入院EF統合 file: number, form, E lines before their F lines."""
    found = []
    last: tuple[str, ...] = ()
    for number, line in enumerate(path.read_bytes().decode("cp932").splitlines(), start=1):
        cells = line.split("\t")
        if len(cells) != 31:
            found.append(f"line {number}: {len(cells)} columns")
            continue
        if number == 1 and cells[0] == "施設コード":
            continue
        found += [
            f"line {number}: column {column} is {cells[column - 1]!r}"
            for column, form in _EF_FORMS.items()
            if not re.fullmatch(form, cells[column - 1])
        ]
        act, detail = tuple(cells[1:6]), cells[6]
        if detail == "000":
            last = act
        elif act != last:
            found.append(f"line {number}: an F line without its E line")
        if detail != "000" and cells[14] == "1" and cells[9]:
            found.append(f"line {number}: a drug with a code of the fee schedule")
    return found


def record_of(site: str, kind: str, serial: int, start: datetime, **fields: object) -> Record:
    fields = {"certainty": "confirmed", "side": "right", **fields}
    return written_record(kind, serial, start, site=site, number=0, **fields)


def exam_of(site: str, modality: str, start: datetime, **changes: object) -> Exam:
    changes = {"contrast_agent": None, **changes}
    return written_exam(0, site=site, modality=modality, started_at=start, **changes)


def patient_of(site: str, number: int = 1, stay_id: str = DATED) -> PatientFile:
    """A stay from 28 March to 10 April 2023 with an operation on 3 April, another one long after it."""
    file = PatientFile(number, written_identity(site, number))
    inside, after = datetime(2023, 4, 3, 10), datetime(2023, 6, 3, 10)
    drug = {"dose": "20mg", "unit": "錠", "route": "PO"}
    operation = {"code_system": "K", "code": "K514-2 3", "name": "胸腔鏡下肺悪性腫瘍手術（肺葉切除）"}
    file.records = [
        record_of(site, "diagnosis", 1, datetime(2020, 1, 5), code="I10", name="高血圧症"),
        record_of(site, "diagnosis", 2, datetime(2023, 3, 1), code="C34.3", name="肺腺癌"),
        record_of(site, "surgery", 3, inside, codes={"receipt": "150365010"}, **operation),
        record_of(site, "surgery", 4, inside, codes={"receipt": "150365010"}, **operation),
        record_of(site, "surgery", 5, datetime(2023, 3, 29, 9), code="D415", name="経気管支肺生検法", codes={}),
        record_of(site, "surgery", 6, after, codes={"receipt": "150365010"}, **operation),
        record_of(site, "pathology", 7, inside, name="右下葉切除"),
        record_of(
            site,
            "medication",
            8,
            datetime(2023, 3, 1),
            end_at=datetime(2023, 4, 5),
            name="フロセミド錠20mg",
            codes={"receipt": "612130001"},
            details=drug,
        ),
        record_of(site, "medication", 9, after, name="別の薬", codes={"receipt": "612130002"}, details=drug),
    ]
    file.exams = [
        exam_of(site, "CT", datetime(2023, 4, 5, 9), contrast_agent="イオパミドール370注", contrast_ml=100.0),
        exam_of(site, "NM", datetime(2023, 4, 6, 9), tracer="99mTc-HMDP", dose_mbq=740.0),
        exam_of(site, "US", datetime(2023, 4, 7, 9)),
        exam_of(site, "CT", after),
    ]
    state = GoldState(file.exams[0].exam_id, "00000001", "lung_primary", "right", "", 21.0, "cT1cN0M0", True, True)
    file.gold_states = [state]
    file.stays = [Stay(stay_id, site, date(2023, 3, 28), date(2023, 4, 10), "呼吸器外科", "K00000000002")]
    return file


def written(out: Path, *parts: list[PatientFile]) -> list[DpcWriter]:
    writers = []
    for part, files in enumerate(parts):
        with DpcWriter(out, SITES, part=part) as writer:
            for file in files:
                writer.write(file)
        writers.append(writer)
    merge_dpc(out)
    return writers


def lines_of(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_bytes().decode("cp932").splitlines()]


@pytest.mark.parametrize("name", ["sample_EFn_XXXXXXXXX_2407.txt", "sample_EFn_XXXXXXXXX_2408.txt"])
def test_the_checker_accepts_the_published_samples(tmp_path: Path, name: str) -> None:
    if not (SAMPLES / name).exists():
        pytest.skip("the samples are not in this checkout")
    path = tmp_path / name
    path.write_bytes((SAMPLES / name).read_text(encoding="utf-8").encode("cp932"))
    assert dpc_violations(path) == []
    assert path.read_bytes().decode("cp932").splitlines()[0].split("\t") == list(EF_COLUMNS)


def test_the_checker_sees_what_is_wrong(tmp_path: Path) -> None:
    written(tmp_path, [patient_of("minato")])
    path = tmp_path / "minato/EFn_149900202_2304.txt"
    data = path.read_bytes().decode("cp932")
    for wrong in (data.replace("K51423", "K514-2"), data.replace("\t20230410\t", "\t2023/4/10\t"), data + "1\t2\r\n"):
        path.write_bytes(wrong.encode("cp932"))
        assert dpc_violations(path)


def test_columns_lines_and_codes(tmp_path: Path) -> None:
    written(tmp_path, [patient_of("aoba"), patient_of("minato")])
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.txt")) == [
        "aoba/EFn_139900101_2303.txt",
        "aoba/EFn_139900101_2304.txt",
        "aoba/FF1_139900101_2304.txt",
        "minato/EFn_149900202_2303.txt",
        "minato/EFn_149900202_2304.txt",
        "minato/FF1_149900202_2304.txt",
    ]
    for path in tmp_path.rglob("EFn*.txt"):
        assert dpc_violations(path) == []
        assert path.read_bytes().endswith(b"\r\n")
    april = lines_of(tmp_path / "minato/EFn_149900202_2304.txt")
    acts = [row for row in april if row[6] == "000"]
    assert [row[9] for row in acts] == ["A1001", "K51423", "N0001", "N0061", "E2001", "E1002", "D2152"]
    assert {row[2] for row in april} == {"20230410"} and {row[3] for row in april} == {"20230328"}
    surgery = [row for row in april if row[9] == "K51423"]
    assert [(row[6], row[8], row[23], row[4]) for row in surgery] == [
        ("000", "150365010", "20230403", "50"),
        ("001", "150365010", "20230403", "50"),
    ]
    drugs = [row for row in april if row[14] == "1"]
    assert [row[10] for row in drugs] == ["イオパミドール３７０注", "９９ｍＴｃ－ＨＭＤＰ"]
    assert all(row[9] == "" and len(row[8]) == 9 for row in drugs)
    assert (drugs[0][11], drugs[0][12]) == ("0000100.000", "036")


def test_the_month_before_the_discharge_knows_no_discharge(tmp_path: Path) -> None:
    written(tmp_path, [patient_of("minato")])
    march = lines_of(tmp_path / "minato/EFn_149900202_2303.txt")
    assert {row[2] for row in march} == {"00000000"}
    assert [row[9] for row in march if row[6] == "000"] == ["", "A1001", "D415"]
    room = next(row for row in march if row[9] == "A1001")
    assert room[20] == "004"
    medicine = march[0]
    assert (medicine[8], medicine[9], medicine[23], medicine[20]) == ("612130001", "", "20230328", "009")


def test_one_site_writes_a_header_once(tmp_path: Path) -> None:
    parts = [[patient_of("aoba", 1), patient_of("minato", 2)], [patient_of("aoba", 3)]]
    written(tmp_path, *parts)
    aoba = lines_of(tmp_path / "aoba/EFn_139900101_2304.txt")
    assert aoba[0] == list(EF_COLUMNS)
    assert sum(row[0] == EF_COLUMNS[0] for row in aoba) == 1
    assert list(dict.fromkeys(row[1] for row in aoba[1:])) == ["0000000001", "0000000003"]
    assert lines_of(tmp_path / "aoba/FF1_139900101_2304.txt")[0] == list(FF1_COLUMNS)
    assert lines_of(tmp_path / "minato/EFn_149900202_2304.txt")[0][0] == "149900202"


def test_parts_make_the_same_files_as_one(tmp_path: Path) -> None:
    files = [patient_of(site, number) for number in range(1, 9) for site in SITES]
    written(tmp_path / "one", files)
    written(tmp_path / "three", files[:5], files[5:6], files[6:])
    for path in (tmp_path / "one").rglob("*.txt"):
        assert path.read_bytes() == (tmp_path / "three" / path.relative_to(tmp_path / "one")).read_bytes()
    assert not (tmp_path / "three/.parts").exists()
    merge_dpc(tmp_path / "one")
    assert len(list((tmp_path / "one").rglob("*.txt"))) == 6


def test_a_part_that_is_written_again_begins_anew(tmp_path: Path) -> None:
    with DpcWriter(tmp_path, SITES) as writer:
        writer.write(patient_of("minato", 7))
    written(tmp_path, [patient_of("minato", 8)])
    assert {row[1] for row in lines_of(tmp_path / "minato/EFn_149900202_2304.txt")} == {"0000000008"}


def test_form_1(tmp_path: Path) -> None:
    written(tmp_path, [patient_of("minato")])
    rows = lines_of(tmp_path / "minato/FF1_149900202_2304.txt")
    assert {len(row) for row in rows} == {17}
    assert {tuple(row[:3]) for row in rows} == {("149900202", "0000000001", "20230328")}
    by_code = {row[5]: row for row in rows}
    assert list(by_code) == ["A000010", "A006010", "A006020", "A006030", "A006040", "CAN0010", "A007010"]
    assert by_code["A006010"][9] == "C343" and by_code["A006040"][9] == "I10"
    assert by_code["CAN0010"][9:12] == ["T1c", "N0", "M0"]
    assert by_code["A007010"][8:10] == ["20230403", "K51423"]


def test_an_act_without_a_date_is_recorded(tmp_path: Path) -> None:
    (writer,) = written(tmp_path, [patient_of("minato", 1, UNDATED)])
    assert list(writer.defects)[-1] == ("minato/EFn_149900202_2304.txt", "act_without_date", UNDATED)
    april = lines_of(tmp_path / "minato/EFn_149900202_2304.txt")
    assert {row[9] for row in april if row[23] == "00000000"} == {"D2152"}
    assert dpc_violations(tmp_path / "minato/EFn_149900202_2304.txt") == []


def test_characters_that_cp932_lacks_are_counted(tmp_path: Path) -> None:
    file = patient_of("minato")
    file.records[1] = replace(file.records[1], name="肺腺癌⻑")
    (writer,) = written(tmp_path, [file])
    assert writer.replaced["minato"] == {"⻑": 3}


def test_the_patient_of_all_writers(tmp_path: Path) -> None:
    files = [written_patient(site, number) for site in SITES for number in range(1, 40)]
    written(tmp_path, files[:30], files[30:])
    for path in tmp_path.rglob("EFn*.txt"):
        assert dpc_violations(path) == []
    july = lines_of(tmp_path / "minato/EFn_149900202_2107.txt")
    assert {row[9] for row in july} >= {"K51423", "A1001"}
    august = lines_of(tmp_path / "minato/EFn_149900202_2108.txt")
    assert {row[8] for row in august if row[4] == "33"} == {"620000002"}
