"""DPC files: the public samples, those of the synthetic hospital, rows by hand, and damage."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from reportlabel.errors import ConfigError
from reportlabel.ingest import dpc
from reportlabel.ingest.dpc import DpcRules, files, read, recognise
from reportlabel.ingest.rows import PatientRow, Quarantined, RecordRow, Row, Source
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.read_yaml import parse, read_yaml
from reportlabel.synth.patient import PatientFile
from reportlabel.synth.write_dpc import DpcWriter, merge_dpc
from reportlabel.synth.write_ris_csv import one_in
from tests.unit.synth.written_patient import SITES, written_patient, written_record

SAMPLES = Path(__file__).parents[4] / "shared/samples/dpc"
NUMBERS = (7, 8)


def rows_of(path: Path, *, site: str | None = None, **options: Any) -> list[Row]:
    source = Source("dpc", path, path if path.is_dir() else path.parent, site, options)
    return [row for one in files(source) for row in read(one, source)]


def records_of(rows: list[Row], kind: str | None = None) -> list[RecordRow]:
    return [row for row in rows if isinstance(row, RecordRow) and kind in (None, row.kind)]


def reasons(rows: list[Row]) -> list[tuple[int | None, str]]:
    return [(row.row, row.reason) for row in rows if isinstance(row, Quarantined)]


def dated(file: PatientFile) -> PatientFile:
    """The patient with a stay of which no act has lost its date."""
    number = next(
        number for number in range(9999) if not any(one_in(25, f"S{number:010d}", f"2021-{month}") for month in (7, 8))
    )
    file.stays = [replace(stay, stay_id=f"S{number:010d}") for stay in file.stays]
    return file


def written(out: Path, *patients: PatientFile) -> DpcWriter:
    with DpcWriter(out, SITES) as writer:
        for file in patients:
            writer.write(file)
    merge_dpc(out)
    return writer


def ef_line(**cells: str) -> str:
    known = {
        "facility": "139900101",
        "patient": "0000000007",
        "discharged": "20230410",
        "admitted": "20230328",
        "section": "50",
        "order": "0001",
        "line": "000",
        "receipt": "150365010",
        "code": "K51423",
        "name": "胸腔鏡下肺悪性腫瘍手術（肺葉切除）",
        "amount": "0000000.000",
        "unit": "000",
        "times": "001",
        "day": "20230403",
        **cells,
    }
    row = [""] * 31
    places = (0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 20, 23)
    for place, cell in zip(places, known.values(), strict=True):
        row[place] = cell
    return "\t".join(row)


def ff1_line(code: str, *payload: str, patient: str = "0000000007", admitted: str = "20230328") -> str:
    cells = ["139900101", patient, admitted, "0", "0", code, "20140401", "0", *payload]
    return "\t".join(cells + [""] * (17 - len(cells)))


def table(tmp_path: Path, *lines: str, encoding: str = "cp932", end: str = "\r\n") -> Path:
    path = tmp_path / "EFn_139900101_2304.txt"
    path.write_bytes("".join(line + end for line in lines).encode(encoding))
    return path


@pytest.mark.parametrize(("encoding", "reason"), [("utf-16", dpc.WRONG_ENCODING), (None, dpc.NOT_DPC)])
def test_another_encoding_than_archive_yaml_says(tmp_path: Path, encoding: str | None, reason: str) -> None:
    path = table(tmp_path, "患者", "病名", "胸部", "腹部")
    source = Source("dpc", path, tmp_path, "aoba", {} if encoding is None else {"encoding": encoding})
    assert [row.reason for row in read(path, source) if isinstance(row, Quarantined)] == [reason]


# --- the public samples -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["cp932", "utf-8"])
def test_the_public_samples(tmp_path: Path, encoding: str) -> None:
    if not SAMPLES.is_dir():
        pytest.skip(f"the samples are not in this checkout ({SAMPLES})")
    for path in SAMPLES.glob("*.txt"):
        (tmp_path / path.name).write_bytes(path.read_text(encoding="utf-8").encode(encoding))
        assert recognise(tmp_path / path.name)
    rows = rows_of(tmp_path, site="sample", patient_id_width=8)
    assert not reasons(rows)
    acts = [(row.patient_id, row.kind, row.code) for row in records_of(rows) if row.kind != "medication"]
    assert acts == [
        ("00000001", "surgery", "D413 2"),
        ("00000001", "pathology", "N000 1"),
        ("00000002", "surgery", "K721 2"),
        ("00000003", "surgery", "D206 2"),
        ("00000001", "surgery", "D206 2"),
        ("00000004", "surgery", "D413 2"),
        ("00000004", "pathology", "N000 1"),
        ("00000004", "surgery", "D206 2"),
    ]
    first = records_of(rows)[0]
    assert (first.start_at, first.name, first.code_system) == (datetime(2024, 7, 5), "前立腺針生検法(その他)", "D")
    drugs = records_of(rows, "medication")
    assert {row.code_system for row in drugs} == {"receipt"} and all(row.value for row in drugs)
    assert ("620006625", 1.0, "管") in {(row.code, row.value, row.unit) for row in drugs}


def test_the_licence_beside_the_samples_is_no_dpc_file() -> None:
    if not SAMPLES.is_dir():
        pytest.skip(f"the samples are not in this checkout ({SAMPLES})")
    assert recognise(SAMPLES)
    assert not recognise(SAMPLES / "LICENSE")
    assert reasons(rows_of(SAMPLES)) == [(None, dpc.NOT_DPC)]


# --- the synthetic hospital -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", ["aoba", "minato"])
def test_what_the_hospital_knows(tmp_path: Path, site: str) -> None:
    """With a header row (the first site) and without."""
    written(tmp_path, *(dated(written_patient(site, number)) for number in NUMBERS))
    assert recognise(tmp_path) and all(recognise(path) for path in tmp_path.rglob("*.txt"))
    rows = rows_of(tmp_path, site=site, patient_id_width=8)
    assert not reasons(rows)
    ids = [f"{number:08d}" for number in NUMBERS]
    assert [row for row in rows if isinstance(row, PatientRow)] == [
        PatientRow(site, one, "F", date(1948, 12, 30)) for one in ids
    ]
    surgery = records_of(rows, "surgery")
    assert [(row.patient_id, row.side) for row in surgery] == [
        *((one, None) for one in ids),
        *((one, "right") for one in ids),
    ]
    assert {(row.code_system, row.code, row.name, row.start_at) for row in surgery} == {
        ("K", "K514-2 3", "胸腔鏡下肺悪性腫瘍手術(肺葉切除)", datetime(2021, 7, 26))
    }
    diagnoses = records_of(rows, "diagnosis")
    assert [(row.patient_id, row.code_system, row.code, row.name, row.certainty) for row in diagnoses] == [
        (one, "ICD-10", "C349", "肺腺癌", "confirmed") for one in ids
    ]
    assert {row.start_at for row in diagnoses} == {datetime(2021, 7, 24)}
    drugs = {
        (row.code, row.name, row.start_at, row.end_at, row.value, row.unit) for row in records_of(rows, "medication")
    }
    assert drugs == {
        ("620000001", "ロキソプロフェン錠60mg", datetime(2021, 8, 2), datetime(2021, 8, 4), 3.0, "錠"),
        ("620000002", "セファゾリンNa注射用1g", datetime(2021, 8, 2), datetime(2021, 8, 2), 1.0, "瓶"),
    }


def test_contrast_and_tissue(tmp_path: Path) -> None:
    file = dated(written_patient("aoba", 7))
    inside = datetime(2021, 7, 26, 11)
    file.exams = [replace(file.exams[0], started_at=inside)]
    file.records.append(written_record("pathology", 90, inside, site="aoba", number=7, name="右上葉"))
    written(tmp_path, file)
    rows = rows_of(tmp_path)
    assert [(row.code_system, row.code) for row in records_of(rows, "pathology")] == [("N", "N000 1")]
    contrast = next(row for row in records_of(rows, "medication") if row.name == "イオパミドール370")
    assert (contrast.value, contrast.unit, contrast.start_at) == (95.0, "mL", datetime(2021, 7, 26))


def test_acts_without_a_date_are_found(tmp_path: Path) -> None:
    """As many as the writer has left without one, of those that are records."""
    lost = 0
    for number in range(1, 60):
        file = written_patient("minato", number)
        file.exams, file.records = [], [record for record in file.records if record.kind != "medication"]
        file.records = [record for record in file.records if record.kind in ("surgery", "diagnosis")]
        writer = written(tmp_path / str(number), file)
        rows = rows_of(tmp_path / str(number))
        stays = [what for _, what, _ in writer.defects]
        found = [reason for _, reason in reasons(rows)]
        assert found == [dpc.NO_DATE] * len(found) and len(found) <= len(stays)
        lost += len(found)
    assert lost


def test_no_row_names_the_patient(tmp_path: Path) -> None:
    file = written_patient("aoba", 7)
    written(tmp_path, file)
    said = "".join(map(repr, rows_of(tmp_path)))
    kinds = ("name", "kana", "roman", "address", "phone")
    assert not [canary for canary in file.canaries if canary.kind in kinds and canary.value in said]
    assert file.identity.postal_code.replace("-", "") not in said


# --- rows by hand -----------------------------------------------------------------------------------------------------


def test_where_the_site_comes_from(tmp_path: Path) -> None:
    path = table(tmp_path, ef_line())
    assert [row.site for row in records_of(rows_of(path))] == ["139900101"]
    assert [row.site for row in records_of(rows_of(path, sites={"139900101": "aoba"}))] == ["aoba"]
    assert [row.site for row in records_of(rows_of(path, site="here"))] == ["here"]
    with pytest.raises(ConfigError, match="option 'side': unknown"):
        rows_of(path, side="aoba")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("K51423", "surgery"),
        ("D4132", "surgery"),
        ("D308", "surgery"),
        ("D4192", "surgery"),
        ("J019", "surgery"),
        ("M0013", "surgery"),
        ("N0001", "pathology"),
        ("N003", "pathology"),
        ("N0061", None),
        ("K920", None),
        ("K9361", None),
        ("D4193", None),
        ("D4001", None),
        ("A1001", None),
        ("E2001", None),
        ("", None),
    ],
)
def test_which_acts_are_records(tmp_path: Path, code: str, kind: str | None) -> None:
    rows = rows_of(table(tmp_path, ef_line(code=code)))
    assert [row.kind for row in records_of(rows)] == ([kind] if kind else [])


def test_details_are_no_acts_and_acts_no_drugs(tmp_path: Path) -> None:
    drug = {"code": "", "receipt": "620006625", "amount": "0000002.500", "unit": "016", "times": "014"}
    lines = [
        ef_line(),
        ef_line(line="001"),
        ef_line(line="002", **drug),
        ef_line(line="003", code="", receipt="830100612"),
        ef_line(order="0002", section="21", **drug),
        ef_line(order="0002", section="21", line="001", **drug),
    ]
    first, second, third = records_of(rows_of(table(tmp_path, *lines)))
    assert (first.kind, second.kind, third.kind) == ("surgery", "medication", "medication")
    assert (second.start_at, second.end_at) == (datetime(2023, 4, 3), datetime(2023, 4, 3))
    assert (third.start_at, third.end_at) == (datetime(2023, 4, 3), datetime(2023, 4, 16))
    assert (third.value, third.unit, third.code) == (2.5, "錠", "620006625")


def test_form_1(tmp_path: Path) -> None:
    lines = [
        ff1_line("A000010", "19481230", "2", "2060033"),
        ff1_line("A006010", "", "C34.9", *[""] * 6, "肺腺癌"),
        ff1_line("A006030", "", "C349", *[""] * 6, "肺腺癌"),
        ff1_line("A006040", "", "I10", *[""] * 6, "高血圧症"),
        ff1_line("A006040", "", "I269", *[""] * 6, "肺塞栓症の疑い"),
        ff1_line("A007010", "20230403", "K51423", "1", "2", *[""] * 4, "胸腔鏡下肺切除"),
        ff1_line("CAN0010", "1", "T1c", "N0", "M0", "8"),
        ff1_line("A006010", "", "C349", *[""] * 6, "肺腺癌", admitted="20230501"),
    ]
    rows = rows_of(table(tmp_path, *lines))
    assert rows[0] == PatientRow("139900101", "0000000007", "F", date(1948, 12, 30))
    found = [(row.kind, row.code, row.certainty, row.start_at, row.side) for row in records_of(rows)]
    admitted, again = datetime(2023, 3, 28), datetime(2023, 5, 1)
    assert found == [
        ("diagnosis", "C349", "confirmed", admitted, None),
        ("diagnosis", "I10", "confirmed", admitted, None),
        ("diagnosis", "I269", "suspected", admitted, None),
        ("surgery", "K514-2 3", "final", datetime(2023, 4, 3), "left"),
        ("diagnosis", "C349", "confirmed", again, None),
    ]
    assert not reasons(rows)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (ef_line(day="00000000"), dpc.NO_DATE),
        (ef_line(day="20230231"), dpc.BAD_DATE),
        (ef_line(patient="0000000000"), dpc.NO_PATIENT),
        (ef_line(patient="1.00E+09"), dpc.NO_PATIENT),
        (ef_line(name="胸腔\t鏡"), dpc.WRONG_WIDTH),
        (ef_line(name="胸腔鏡").rpartition("\t")[0], dpc.WRONG_WIDTH),
        (ef_line(), dpc.DUPLICATE),
    ],
)
def test_a_bad_row_goes_alone(tmp_path: Path, line: str, reason: str) -> None:
    header = "\t".join(["施設コード", *["x"] * 30])
    good = [ef_line(), ef_line(order="0002"), ef_line(order="0003")]
    rows = rows_of(table(tmp_path, header, *good, line, ef_line(order="0004"), "", "\x1a"))
    assert reasons(rows) == [(5, reason)]
    assert len(records_of(rows)) == 4


def test_what_does_not_matter_is_not_quarantined(tmp_path: Path) -> None:
    lines = [ef_line(), ef_line(order="2", code="A1001", day="00000000"), ef_line(line="001", day="00000000")]
    assert not reasons(rows_of(table(tmp_path, *lines)))


def test_bytes_that_cannot_be_decoded(tmp_path: Path) -> None:
    path = table(tmp_path, *(ef_line(order=f"{number:04d}") for number in range(9)))
    data = path.read_bytes().split(b"\r\n")
    data[3] = data[3].replace("鏡".encode("cp932"), b"\xfd\xff")
    path.write_bytes(b"\r\n".join(data))
    rows = rows_of(path)
    assert reasons(rows) == [(4, dpc.UNDECODABLE)]
    assert len(records_of(rows)) == 8


@pytest.mark.parametrize(
    "data", [b"", b"\n\n", b"a\tb\tc\n", b"x" * 1000, bytes(range(256)) * 20, "患者ID,検査日\n".encode()]
)
def test_what_is_no_dpc_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(data)
    assert not recognise(path)
    assert not recognise(tmp_path / "missing")
    assert reasons(rows_of(path)) == ([(None, dpc.NOT_DPC)] if data.strip() else [])


def test_a_header_alone_is_a_dpc_file(tmp_path: Path) -> None:
    path = table(tmp_path, "\t".join(["施設コード", *["x"] * 16]))
    assert recognise(path)
    assert rows_of(path) == []


def test_damage_never_raises_and_never_shows_what_is_written(tmp_path: Path) -> None:
    written(tmp_path, *(written_patient("aoba", number) for number in NUMBERS))
    chance = random.Random(5)
    for path in tmp_path.rglob("*.txt"):
        data = path.read_bytes()
        for _ in range(60):
            damaged = bytearray(data)
            for _ in range(chance.randrange(1, 12)):
                at = chance.randrange(len(damaged))
                if chance.random() < 0.5:
                    damaged[at] = chance.randrange(256)
                else:
                    del damaged[at : at + chance.randrange(1, 60)]
            path.write_bytes(bytes(damaged))
            for row in rows_of(path):
                if isinstance(row, Quarantined):
                    assert row.reason in dpc.REASONS and row.remedy == dpc.REASONS[row.reason]


def test_an_unknown_key_of_the_rules_names_file_and_line(tmp_path: Path) -> None:
    text = (rules_folder() / "ingest/dpc.yaml").read_text(encoding="utf-8")
    path = tmp_path / "dpc.yaml"
    path.write_text(text.replace('act_line: "000"', 'act_line: "000"\n  detail: 1', 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"dpc.yaml:\d+: unknown key 'detail'"):
        parse(read_yaml(path), DpcRules)
