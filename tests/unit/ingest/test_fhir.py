"""FHIR: the synthetic hospital in each of its dialects, resources by hand, references between files, and damage."""

from __future__ import annotations

import base64
import gzip
import json
import random
from collections.abc import Iterable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from reportlabel.errors import ConfigError
from reportlabel.ingest import fhir, fhir_context
from reportlabel.ingest.fhir import depends, files, read, recognise
from reportlabel.ingest.fhir_files import BROKEN, NOT_FHIR, UNDECODABLE, build_archive, resources
from reportlabel.ingest.fhir_rules import FhirRules
from reportlabel.ingest.ris_csv import report_text
from reportlabel.ingest.rows import ExamRow, PatientRow, Quarantined, RecordRow, ReportRow, Row, Source
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.read_yaml import parse, read_yaml
from reportlabel.synth.patient import PatientFile
from reportlabel.synth.write_fhir import FhirWriter, site_dialects
from tests.unit.synth.written_patient import SITES, TEXT_1, written_patient

LOINC, DCM = "http://loinc.org", "http://dicom.nema.org/resources/ontology/DCM"
NUMBER = "urn:oid:1.2.392.100495.20.3.51.11319990101"
JLAC10 = "http://medis.or.jp/CodeSystem/master-JLAC10-17digits"
Resource = dict[str, Any]

PATIENT: Resource = {
    "resourceType": "Patient",
    "id": "p1",
    "identifier": [{"system": NUMBER, "value": "00000007"}],
    "gender": "female",
    "birthDate": "1948-12-30",
    "name": [{"text": "髙橋　佐知子"}],
}
SUBJECT = {"reference": "Patient/p1"}


def rows_of(path: Path, *, site: str | None = "aoba", **options: Any) -> list[Row]:
    source = Source("fhir", path, path if path.is_dir() else path.parent, site, options)
    return [row for one in files(source) for row in read(one, source)]


def of(rows: list[Row], kind: str) -> list[RecordRow]:
    return [row for row in rows if isinstance(row, RecordRow) and row.kind == kind]


def reasons(rows: list[Row]) -> list[tuple[int | None, str]]:
    return [(row.row, row.reason) for row in rows if isinstance(row, Quarantined)]


def exams(rows: list[Row]) -> list[ExamRow]:
    return [row for row in rows if isinstance(row, ExamRow)]


def reports(rows: list[Row]) -> list[ReportRow]:
    return [row for row in rows if isinstance(row, ReportRow)]


def ndjson(folder: Path, *some: Resource | str, name: str = "all.ndjson") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in some)
    data = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


def resource(kind: str, id_: str = "x1", **rest: Any) -> Resource:
    return {"resourceType": kind, "id": id_, "subject": SUBJECT, **rest}


def concept(system: str, code: str, display: str = "") -> Resource:
    return {"coding": [{"system": system, "code": code, "display": display}], **({"text": display} if display else {})}


def study(**rest: Any) -> Resource:
    known: Resource = {
        "status": "available",
        "identifier": [
            {"system": "urn:dicom:uid", "value": "urn:oid:1.2.392.3"},
            {"type": concept("http://terminology.hl7.org/CodeSystem/v2-0203", "ACSN"), "value": "A1"},
        ],
        "started": "2021-04-05T09:42:00+09:00",
        "modality": [{"system": DCM, "code": "CT"}],
        "procedureCode": [{"text": "胸部ＣＴ"}],
        "series": [{"uid": "1.2.392.3.1", "bodySite": {"system": "http://snomed.info/sct", "code": "51185008"}}],
    }
    return resource("ImagingStudy", "s1", **(known | rest))


def part(id_: str, code: str, text: str, **rest: Any) -> Resource:
    known = {"status": "final", "code": concept(LOINC, code), "valueString": text}
    return resource("Observation", id_, **(known | rest))


def radiology(**rest: Any) -> Resource:
    known: Resource = {
        "status": "final",
        "identifier": [{"value": "R1"}],
        "category": [concept(LOINC, "LP29684-5"), concept(DCM, "CT")],
        "code": concept(LOINC, "18748-4"),
        "effectiveDateTime": "2021-04-05T09:42:00+09:00",
        "issued": "2021-04-05T12:12:00+09:00",
        "imagingStudy": [{"reference": "ImagingStudy/s1"}],
        "result": [{"reference": "Observation/f1"}, {"reference": "Observation/i1"}],
    }
    return resource("DiagnosticReport", "d1", **(known | rest))


FINDINGS, IMPRESSION = part("f1", "18782-3", "結節を認める。\\n胸水なし。"), part("i1", "19005-8", "肺癌疑い。")
FIRST = "【所見】\n結節を認める。\n胸水なし。"
WHOLE = "【所見】\n結節を認める。\n胸水なし。\n【診断】\n肺癌疑い。"


def lab(id_: str = "l1", **rest: Any) -> Resource:
    known: Resource = {
        "status": "final",
        "category": [concept("http://terminology.hl7.org/CodeSystem/observation-category", "laboratory")],
        "code": concept(JLAC10, "5C070000002306201", "ＣＲＰ"),
        "effectiveDateTime": "2021-04-05T08:50:00+09:00",
        "issued": "2021-04-05T10:00:00+09:00",
        "valueQuantity": {"value": 2.13, "unit": "mg/dL"},
    }
    return resource("Observation", id_, **(known | rest))


# --- the synthetic hospital -------------------------------------------------------------------------------------------


def written(out: Path, *patients: PatientFile) -> FhirWriter:
    with FhirWriter(out, SITES) as writer:
        for one in patients:
            writer.write(one)
    return writer


@pytest.mark.parametrize("site", SITES)
def test_every_dialect_says_what_the_hospital_knows(tmp_path: Path, site: str) -> None:
    patient = written_patient(site, 7)
    writer = written(tmp_path, patient)
    assert recognise(tmp_path) and not [one for one in writer.defects if one[1] == "narrative_only"]
    rows = rows_of(tmp_path, site=None, site_of_folder=True)
    assert set(reasons(rows)) <= {(row, fhir_context.CANCELLED) for row in range(1, 999)}
    assert [row for row in rows if isinstance(row, PatientRow)] == [
        PatientRow(site, "00000007", "F", date(1948, 12, 30))
    ]
    names = ("accession_number", "study_instance_uid", "started_at", "modality", "order_name", "age_years")
    assert {tuple(getattr(row, name) for name in names) for row in exams(rows) if row.study_instance_uid} == {
        tuple(getattr(one, name) for name in names) for one in patient.exams
    }
    history = site_dialects(SITES)[site].history
    last = {one.report_id: one.version for one in patient.reports}
    kept = [one for one in patient.reports if history or one.version == last[one.report_id]]
    assert [(row.text, row.status, row.confirmed_at, row.version, row.report_number) for row in reports(rows)] == [
        (report_text(one.findings_text, one.impression_text), one.status, one.confirmed_at, one.version, one.report_id)
        for one in kept
    ]
    surgery, tissue = of(rows, "surgery")[0], of(rows, "pathology")[0]
    assert (surgery.code_system, surgery.code, surgery.side, surgery.body_site) == ("K", "K514-2 3", "right", "lung")
    assert surgery.end_at == datetime(2021, 7, 26, 13, 10) and surgery.text == "右上葉切除＋ND2a-1。\n出血量 35mL。"
    assert (tissue.code, tissue.name, tissue.certainty) == ("A21-00007", "肺生検", "corrected")
    assert tissue.text == (
        "Adenocarcinoma, right upper lobe.\n異型細胞が腺管構造を形成する。\nTTF-1（＋）、EGFR L858R陽性。"
    )
    assert {(row.code, row.name, row.certainty) for row in of(rows, "diagnosis")} == {
        ("C349", "肺腺癌", "suspected"),
        ("C349", "肺腺癌", "confirmed"),
    }
    assert [(row.code_system, row.code, row.start_at) for row in of(rows, "medication")] == [
        ("YJ", one.code, one.start_at) for one in patient.records if one.kind == "medication"
    ]
    values = {row.name: (row.value, row.unit, row.text, row.flag) for row in of(rows, "lab")}
    assert values["CRP"] == (2.13, "mg/dL", None, "H")
    assert values["直接ビリルビン"] == (0.1, "mg/dL", "<0.1", None)
    assert values["尿潜血"] == (2.0, None, "2+", "H")
    heart = of(rows, "physiology")[0]
    assert (heart.code_system, heart.code) == ("JLAC10", "9A110")
    assert heart.text is not None and heart.text.endswith("。\nHR=72 /min;PR=156 msec;QTc=421 msec;RV5=2.61 mV")


def test_no_row_names_the_patient(tmp_path: Path) -> None:
    for number, site in enumerate(SITES, 7):
        patient = written_patient(site, number)
        written(tmp_path / site, patient)
        said = "".join(map(repr, rows_of(tmp_path / site)))
        kinds = ("name", "kana", "roman", "address", "phone")
        assert not [one for one in patient.canaries if one.kind in kinds and one.value in said.replace(TEXT_1, "")]
        assert patient.identity.postal_code not in said and "澤村" not in said and "設楽" not in said


def test_compressed_and_bundled_files_give_the_same_rows(tmp_path: Path) -> None:
    patient = written_patient("aoba", 7)
    written(tmp_path / "plain", patient)
    plain = rows_of(tmp_path / "plain")
    everything: list[Resource] = []
    for path in sorted((tmp_path / "plain").rglob("*.ndjson")):
        text = path.read_text(encoding="utf-8")
        ndjson(tmp_path / "packed", *text.splitlines(), name=f"{path.name}.gz")
        everything += map(json.loads, text.splitlines())
    entries = [{"fullUrl": f"http://a/{one['resourceType']}/{one['id']}", "resource": one} for one in everything]
    bundle = {"resourceType": "Bundle", "type": "collection", "total": len(entries), "entry": entries}
    for name, indent in (("one", None), ("pretty", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bundle.json").write_text(json.dumps(bundle, indent=indent), encoding="utf-8")
    (tmp_path / "single").mkdir()
    for place, one in enumerate(everything):
        (tmp_path / "single" / f"{place:04d}.json").write_text(json.dumps(one, indent=1), encoding="utf-8-sig")
    (tmp_path / "array").mkdir()
    (tmp_path / "array" / "all.json").write_text(json.dumps(everything, ensure_ascii=False), encoding="utf-8")
    expected = sorted(repr(row) for row in plain if not isinstance(row, Quarantined))
    for name in ("packed", "one", "pretty", "single", "array"):
        assert recognise(tmp_path / name)
        rows = rows_of(tmp_path / name)
        assert sorted(repr(row) for row in rows if not isinstance(row, Quarantined)) == expected, name
        assert len(reasons(rows)) == len(reasons(plain))


# --- reports ----------------------------------------------------------------------------------------------------------


def test_a_report_and_its_study(tmp_path: Path) -> None:
    rows = rows_of(ndjson(tmp_path, PATIENT, study(), FINDINGS, IMPRESSION, radiology()))
    assert not reasons(rows)
    when = datetime(2021, 4, 5, 9, 42)
    assert exams(rows) == [
        ExamRow("aoba", "00000007", "1.2.392.3", "A1", when, "CT", "CHEST", "胸部CT", age_years=72, sex="F")
    ]
    assert reports(rows) == [
        ReportRow(
            "aoba", "00000007", WHOLE, None, "final", "R1", "1.2.392.3", "A1", when, "CT", datetime(2021, 4, 5, 12, 12)
        )
    ]


DIV = '<div xmlns="http://www.w3.org/1999/xhtml">{}</div>'
STRANGE = "結節<![x[あり]]>。"
MARKED = "結節&lt;5mm<br/>胸水なし。<p>他著変なし</p>"
SHIFT_JIS = base64.b64encode("結節あり。\r\n以上".encode("cp932")).decode()


def narrative(words: str, status: str = "additional") -> Resource:
    return {"status": status, "div": DIV.format(words)}


TITLE = narrative("胸部CT 2021-04-05", "generated")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"conclusion": "肺癌疑い。"}, WHOLE),
        ({"conclusion": "追記：肝嚢胞。"}, WHOLE + "\n追記：肝嚢胞。"),
        ({"result": [{"reference": "Observation/f1"}], "conclusion": "肺癌疑い。"}, WHOLE),
        ({"result": [{"reference": "#f"}], "contained": [FINDINGS | {"id": "f"}]}, FIRST),
        ({"result": [{"reference": "http://server/fhir/Observation/f1/_history/1"}]}, FIRST),
        (
            {"result": [], "text": narrative(MARKED)},
            "結節<5mm\n胸水なし。\n他著変なし",
        ),
        ({"result": [], "text": narrative(STRANGE)}, "結節\n。"),
        (
            {"result": [], "text": TITLE, "conclusion": "著変なし。"},
            "【診断】\n著変なし。",
        ),
        (
            {"result": [], "text": narrative("結節あり。"), "conclusion": "肺癌。"},
            "【所見】\n結節あり。\n【診断】\n肺癌。",
        ),
        (
            {
                "result": [{"reference": "Observation/lost"}],
                "presentedForm": [
                    {"contentType": "application/pdf", "data": "AAAA"},
                    {"contentType": "text/plain; charset=shift_jis", "data": SHIFT_JIS},
                ],
            },
            "結節あり。\n以上",
        ),
    ],
)  # fmt: skip
def test_the_text_of_a_report(tmp_path: Path, changes: Resource, text: str) -> None:
    rows = rows_of(ndjson(tmp_path, PATIENT, study(), FINDINGS, IMPRESSION, radiology(**changes)))
    assert [row.text for row in reports(rows)] == [text]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"result": []}, fhir_context.NO_TEXT),
        ({"result": [{"reference": "Observation/lost"}, {"reference": "Observation/i1"}]}, fhir_context.PARTS_MISSING),
        ({"status": "done"}, fhir_context.UNKNOWN_STATUS),
        ({"subject": {}}, fhir_context.NO_SUBJECT),
        ({"subject": {"reference": "Patient/p2"}}, fhir_context.NO_PATIENT),
        ({"category": [concept(LOINC, "LP1-1")], "code": {"text": "?"}}, fhir_context.UNKNOWN_KINDS),
    ],
)
def test_reports_that_cannot_be_used(tmp_path: Path, changes: Resource, reason: str) -> None:
    rows = rows_of(ndjson(tmp_path, PATIENT, study(), FINDINGS, IMPRESSION, radiology(**changes)))
    assert not reports(rows) and len(exams(rows)) == 1
    assert reason in {said for _, said in reasons(rows)}


def test_versions_and_a_withdrawal(tmp_path: Path) -> None:
    def version(number: int, status: str, **rest: Any) -> Resource:
        return radiology(
            meta={"versionId": str(number), "lastUpdated": f"2021-04-0{number}T00:00:00Z"}, status=status, **rest
        )

    old = FINDINGS | {"meta": {"versionId": "1", "lastUpdated": "2021-04-01T00:00:00Z"}, "valueString": "未定"}
    new = FINDINGS | {"meta": {"versionId": "2", "lastUpdated": "2021-04-02T00:00:00Z"}}
    last = version(3, "entered-in-error", result=[])
    some = [PATIENT, study(), new, old, IMPRESSION, version(2, "corrected"), version(1, "preliminary"), last, last]
    rows = rows_of(ndjson(tmp_path, *some))
    found = [(row.version, row.status, row.text) for row in reports(rows)]
    assert found == [
        (2, "amended", WHOLE),
        (1, "preliminary", "【所見】\n未定\n【診断】\n肺癌疑い。"),
        (3, "cancelled", ""),
    ]
    assert reasons(rows) == [(9, fhir_context.DUPLICATE)]


def test_a_report_without_a_study_gives_the_exam_of_its_order(tmp_path: Path) -> None:
    accession = {"type": concept("http://terminology.hl7.org/CodeSystem/v2-0203", "ACSN"), "value": "A9"}
    order = resource("ServiceRequest", "o1", identifier=[accession], code={"text": "頭部MRI"})
    report = radiology(imagingStudy=[], basedOn=[{"reference": "ServiceRequest/o1"}])
    rows = rows_of(ndjson(tmp_path, PATIENT, order, FINDINGS, IMPRESSION, report))
    (exam,), (said,) = exams(rows), reports(rows)
    assert (exam.accession_number, exam.order_name, exam.modality) == ("A9", "頭部MRI", "CT")
    assert said.accession_number == "A9" and exam.started_at == said.exam_at == datetime(2021, 4, 5, 9, 42)


def test_studies(tmp_path: Path) -> None:
    both = study(modality=[{"code": "CT"}, {"code": "PT"}], series=[{"bodySite": {"code": "T-D4000"}}])
    only_series = study(id="s2", modality=[], series=[{"modality": {"code": "SR"}}, {"modality": {"code": "MR"}}])
    nothing = study(id="s3", identifier=[], started="")
    rows = rows_of(ndjson(tmp_path, PATIENT, both, only_series, study(id="s4", status="cancelled"), nothing))
    assert [(row.modality, row.body_part) for row in exams(rows)] == [("PT", "ABDOMEN"), ("MR", None)]
    assert reasons(rows) == [(4, fhir_context.CANCELLED), (5, fhir_context.NO_STUDY)]


# --- references between files -----------------------------------------------------------------------------------------


def test_other_files_are_looked_up_and_named(tmp_path: Path) -> None:
    ndjson(tmp_path, PATIENT, name="Patient.ndjson")
    ndjson(tmp_path, study(), name="ImagingStudy.ndjson")
    ndjson(tmp_path, FINDINGS, name="Observation-1.ndjson.gz")
    ndjson(tmp_path, IMPRESSION, name="Observation-2.ndjson")
    ndjson(tmp_path, lab(), name="Observation-3.ndjson")
    ndjson(tmp_path, radiology(), name="DiagnosticReport.ndjson")
    source = Source("fhir", tmp_path, tmp_path, "aoba")

    def needed(name: str) -> list[str]:
        return [path.name for path in depends(tmp_path / name, source)]

    assert needed("DiagnosticReport.ndjson") == [
        "ImagingStudy.ndjson", "Observation-1.ndjson.gz", "Observation-2.ndjson", "Patient.ndjson"
    ]  # fmt: skip
    assert needed("Observation-3.ndjson") == ["Patient.ndjson"] and needed("Patient.ndjson") == []
    assert [row.text for row in reports(list(read(tmp_path / "DiagnosticReport.ndjson", source)))] == [WHOLE]
    ndjson(tmp_path, IMPRESSION | {"valueString": "肺癌。"}, name="Observation-2.ndjson")
    changed = reports(list(read(tmp_path / "DiagnosticReport.ndjson", source)))
    assert changed[0].text.endswith("肺癌。")


def test_the_last_version_of_a_record_counts_wherever_it_stands(tmp_path: Path) -> None:
    def version(number: int, **rest: Any) -> Resource:
        return lab(meta={"versionId": str(number)}, **rest)

    ndjson(tmp_path, PATIENT, version(1), version(1), name="1.ndjson")
    ndjson(
        tmp_path, version(3, status="entered-in-error"), version(2), lab("l2"), lab("l3"), lab("l3"), name="2.ndjson"
    )
    ndjson(tmp_path, lab("l2"), PATIENT, name="3.ndjson")
    rows = rows_of(tmp_path)
    assert [row.number for row in of(rows, "lab")] == ["l3", "l2"]
    assert len([row for row in rows if isinstance(row, PatientRow)]) == 1
    assert reasons(rows) == [(1, fhir_context.CANCELLED), (4, fhir_context.DUPLICATE)]
    source = Source("fhir", tmp_path, tmp_path, "aoba")
    assert tmp_path / "2.ndjson" in depends(tmp_path / "1.ndjson", source)


def test_ids_of_two_servers_are_kept_apart(tmp_path: Path) -> None:
    other = PATIENT | {"identifier": [{"system": NUMBER, "value": "00000008"}]}
    for folder, patient in (("aoba", PATIENT), ("minato", other)):
        ndjson(tmp_path / folder, patient, name="Patient.ndjson")
        ndjson(tmp_path / folder, lab(), name="Observation.ndjson")
    rows = rows_of(tmp_path, site=None, site_of_folder=True)
    found = {(row.site, row.patient_id) for row in of(rows, "lab")}
    assert found == {("aoba", "00000007"), ("minato", "00000008")} and not reasons(rows)


def test_references_inside_a_bundle(tmp_path: Path) -> None:
    anonymous = {key: value for key, value in PATIENT.items() if key != "id"}
    one = lab(subject={"reference": "urn:uuid:7d7e"})
    bundle = {
        "resourceType": "Bundle",
        "entry": [{"fullUrl": "urn:uuid:7d7e", "resource": anonymous}, {"resource": one}],
    }
    for name, indent in (("a.json", 1), ("a.ndjson", None)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text(json.dumps(bundle, indent=indent), encoding="utf-8")
        assert [row.patient_id for row in of(rows_of(folder), "lab")] == ["00000007"]


def test_a_place_in_a_large_compressed_file_is_found_again(tmp_path: Path) -> None:
    chance = random.Random(3)
    many = [part(f"f{place}", "18782-3", "".join(chance.choices("結節胸水肺癌", k=150)) * 10) for place in range(1200)]
    path = tmp_path / "o.ndjson.gz"
    lines = [json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in many]
    path.write_bytes(gzip.compress(b"".join(lines[:700])) + gzip.compress(b"".join(lines[700:])))
    named = [{"reference": f"Observation/f{place}"} for place in (1199, 3, 700, 699, 3)]
    ndjson(tmp_path, PATIENT, study(), radiology(result=named))
    (found,) = reports(rows_of(tmp_path))
    wanted = [many[place]["valueString"] for place in (1199, 3, 700, 699, 3)]
    assert found.text == "【所見】\n" + "\n".join(wanted)


# --- patients and sites -----------------------------------------------------------------------------------------------


def test_which_number_is_the_hospitals(tmp_path: Path) -> None:
    insurance = {"system": "urn:oid:1.2.392.100495.20.3.61", "value": "99"}
    typed = {"type": {"coding": [{"code": "MR"}]}, "value": "8"}
    own = {"system": "http://our/hospital", "value": "9"}

    def number(*identifiers: Resource, **options: Any) -> list[Any]:
        rows = rows_of(ndjson(tmp_path, PATIENT | {"identifier": list(identifiers)}, lab()), **options)
        return [row.patient_id if isinstance(row, PatientRow | RecordRow) else row.reason for row in rows]  # type: ignore[union-attr]

    assert number(insurance, PATIENT["identifier"][0]) == ["00000007", "00000007"]
    assert number(insurance, typed) == ["8", "8"] and number(own) == ["9", "9"]
    assert number(insurance, own) == [fhir_context.NO_NUMBER] * 2
    assert number(insurance, own, patient_system="http://our/hospital", patient_id_width=4) == ["0009", "0009"]
    assert number(patient_id_is_resource_id=True) == ["p1", "p1"]
    assert number({"value": "2.0E+10"}) == [fhir_context.DAMAGED_PATIENT] * 2


def test_where_the_site_comes_from(tmp_path: Path) -> None:
    ndjson(tmp_path / "hama", PATIENT | {"managingOrganization": {"display": "青葉坂"}}, lab())

    def sites(**options: Any) -> set[str]:
        return {row.site for row in of(rows_of(tmp_path, **options), "lab")}

    assert sites() == {"aoba"}
    assert sites(site=None) == {"1319990101"}
    assert sites(site=None, site_of_folder=True) == {"hama"}
    assert sites(site=None, sites={"1319990101": "a"}) == {"a"} == sites(site=None, sites={"青葉坂": "a"})
    ndjson(tmp_path / "hama", PATIENT | {"identifier": [{"value": "7"}]}, lab())
    assert [reason for _, reason in reasons(rows_of(tmp_path, site=None))] == [fhir_context.NO_SITE] * 2
    with pytest.raises(ConfigError, match="option 'side': unknown"):
        rows_of(tmp_path, side="aoba")


def test_a_subject_that_is_only_a_number(tmp_path: Path) -> None:
    subject = {"identifier": {"system": NUMBER, "value": "00000042"}}
    rows = rows_of(ndjson(tmp_path, lab(subject=subject), lab("l2", subject={"identifier": {"value": "5"}})))
    assert [row.patient_id for row in of(rows, "lab")] == ["00000042", "5"]


# --- records ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (2.13, "mg/dL", None)),
        ({"valueQuantity": {"value": 5, "unit": "％", "comparator": ">="}}, (5.0, "%", ">=5")),
        ({"valueQuantity": None, "valueString": "１２．５"}, (12.5, None, None)),
        ({"valueQuantity": None, "valueString": "<0.5"}, (0.5, None, "<0.5")),
        ({"valueQuantity": None, "valueString": "陰性"}, (None, None, "陰性")),
        ({"valueQuantity": None, "valueCodeableConcept": {"text": "（－）"}}, (None, None, "(-)")),
        ({"valueQuantity": None, "valueCodeableConcept": {"coding": [{"code": "3+"}]}}, (3.0, None, "3+")),
        ({"valueQuantity": None, "valueInteger": 7}, (7.0, None, None)),
        ({"valueQuantity": {"value": "2.13"}, "valueString": "溶血"}, (None, None, "溶血")),
    ],
)
def test_values(tmp_path: Path, changes: Resource, expected: tuple[Any, ...]) -> None:
    (row,) = of(rows_of(ndjson(tmp_path, PATIENT, lab(**changes))), "lab")
    if expected[2] != "(-)":
        assert (row.value, row.unit, row.text) == expected
    else:
        assert row.text in ("(-)", "(−)") and row.value in (None, 0.0)
    assert (row.code_system, row.code, row.name) == ("JLAC10", "5C070000002306201", "CRP")


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (lab(valueQuantity=None), fhir_context.NO_VALUE),
        (lab(effectiveDateTime=None, issued=None), fhir_context.NO_DATE),
        (lab(effectiveDateTime="きのう", issued=None), fhir_context.BAD_DATE),
        (lab(status="registered"), fhir_context.NOT_DONE),
        (resource("Condition", verificationStatus=concept("v", "refuted")), fhir_context.REFUTED),
        (resource("Procedure", status="not-done"), fhir_context.NOT_DONE),
        (
            resource("Procedure", status="completed", code=concept("urn:x", "E200 1"), performedDateTime="2021-04-05"),
            fhir_context.NO_SURGERY,
        ),
        (resource("MedicationRequest", status="active", intent="plan", authoredOn="2021-04-05"), fhir_context.NOT_DONE),
        (resource("Basic"), fhir_context.UNKNOWN_TYPES),
        ({"id": "x"}, fhir_context.NO_TYPE),
        (part("f9", "18782-3", "結節"), fhir_context.ORPHANS),
        (resource("Observation", status="final", valueString="?"), fhir_context.UNKNOWN_KINDS),
    ],
)  # fmt: skip
def test_records_that_cannot_be_used(tmp_path: Path, one: Resource, reason: str) -> None:
    rows = rows_of(ndjson(tmp_path, PATIENT, one, lab("l9")))
    assert [said for _, said in reasons(rows)] == [reason]
    assert [row.number for row in rows if isinstance(row, RecordRow)] == ["l9"]
    assert len(rows) == 3


def test_what_holds_nothing_for_us_is_passed_over(tmp_path: Path) -> None:
    vital = lab("v1", category=[concept("c", "vital-signs")], code=concept(LOINC, "8480-6"))
    panel = lab("p9", valueQuantity=None, hasMember=[{"reference": "Observation/l1"}])
    panels = resource("DiagnosticReport", category=[concept("c", "LAB")], status="final")
    rows = rows_of(ndjson(tmp_path, PATIENT, vital, panel, panels, resource("Encounter"), lab()))
    assert len(rows) == 2 and not reasons(rows)


def test_diagnoses(tmp_path: Path) -> None:
    modifier = "http://jpfhir.jp/fhir/core/Extension/StructureDefinition/JP_Condition_DiseasePostfixModifier"

    def row(**rest: Any) -> RecordRow:
        known: Resource = {
            "code": concept("http://hl7.org/fhir/sid/icd-10", "C34.9", "肺癌"),
            "onsetDateTime": "2021-04",
        }
        (found,) = of(rows_of(ndjson(tmp_path, PATIENT, resource("Condition", **(known | rest)))), "diagnosis")
        return found

    plain = row(abatementDateTime="2021-05-01", recordedDate="2021-04-20")
    assert (plain.code_system, plain.code, plain.certainty) == ("ICD-10", "C349", "confirmed")
    assert (plain.start_at, plain.end_at) == (datetime(2021, 4, 1), datetime(2021, 5, 1))
    assert plain.reported_at == datetime(2021, 4, 20)
    assert row(verificationStatus=concept("v", "differential")).certainty == "suspected"
    extension = [{"url": modifier, "valueCodeableConcept": concept("m", "5395", "の疑い")}]
    code = concept("http://hl7.org/fhir/sid/icd-10", "C34.9") | {"text": "肺癌の疑い", "extension": extension}
    for one in (row(code=code), row(modifierExtension=extension), row(code={"text": "肺癌疑い"})):
        assert (one.name, one.certainty) == ("肺癌", "suspected")
    medis = row(code=concept("http://medis.or.jp/CodeSystem/master-disease-keyNumber", "20085901", "肺腺癌"))
    assert (medis.code_system, medis.code) == ("MEDIS", "20085901")


def test_operations_and_drugs(tmp_path: Path) -> None:
    operation = resource(
        "Procedure",
        "o1",
        status="completed",
        code=concept("urn:our", "K51423", "胸腔鏡下肺悪性腫瘍手術"),
        performedDateTime="2021-07-26T09:10:00+09:00",
        bodySite=[{"text": "右肺"}],
    )
    drug = resource(
        "Medication", "m0", code=concept("http://medis.or.jp/CodeSystem/master-HOT9", "135869396", "ロキソ")
    )
    given = resource(
        "MedicationAdministration",
        "m1",
        status="completed",
        medicationReference={"reference": "Medication/m0"},
        effectivePeriod={"start": "2021-08-02T09:00:00Z", "end": "2021-08-02T10:00:00Z"},
        dosage={"dose": {"value": 95, "unit": "ｍＬ"}},
    )
    handed = resource(
        "MedicationDispense",
        "m2",
        status="completed",
        medicationCodeableConcept=concept("urn:oid:1.2.392.100495.20.1.73", "2171022F1614", "アムロジピン"),
        whenHandedOver="2021-08-02T11:00:00+09:00",
        daysSupply={"value": 14, "unit": "日"},
    )
    rows = rows_of(ndjson(tmp_path, PATIENT, operation, drug, given, handed))
    (surgery,), (one, other) = of(rows, "surgery"), of(rows, "medication")
    assert (surgery.code_system, surgery.code, surgery.side, surgery.body_site) == ("K", "K514-2 3", "right", "右肺")
    assert (one.code_system, one.code, one.value, one.unit) == ("HOT9", "135869396", 95.0, "mL")
    assert (one.start_at, one.end_at) == (datetime(2021, 8, 2, 18), datetime(2021, 8, 2, 19))
    assert (other.code_system, other.end_at) == ("YJ", datetime(2021, 8, 15))


def test_tissue_with_a_specimen(tmp_path: Path) -> None:
    specimen = resource(
        "Specimen",
        "t1",
        type={"text": "肺生検"},
        collection={"collectedDateTime": "2021-04-12T10:05:00+09:00", "bodySite": {"text": "左 肺"}},
    )
    report = resource(
        "DiagnosticReport",
        "d7",
        status="appended",
        identifier=[{"value": "A21-00007"}],
        category=[concept("http://terminology.hl7.org/CodeSystem/v2-0074", "SP")],
        code={"text": "病理組織検査"},
        specimen=[{"reference": "Specimen/t1"}],
        issued="2021-04-19T17:00:00+09:00",
        conclusion="Adenocarcinoma",
        text={"status": "generated", "div": DIV.format("病理")},
    )
    (row,) = of(rows_of(ndjson(tmp_path, PATIENT, specimen, report)), "pathology")
    assert (row.name, row.body_site, row.side, row.certainty) == ("肺生検", "肺", "left", "corrected")
    assert (row.start_at, row.text) == (datetime(2021, 4, 12, 10, 5), "Adenocarcinoma")


# --- damage -----------------------------------------------------------------------------------------------------------


def test_broken_lines_and_files(tmp_path: Path) -> None:
    good = json.dumps(lab()).encode()
    lines = [json.dumps(PATIENT).encode(), good[:-9], b'["x"]', b"\x82\xa0" + good, b"", good, b'{"a": "\\ud800"}']
    (tmp_path / "a.ndjson").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    rows = rows_of(tmp_path)
    assert reasons(rows) == [
        (2, BROKEN),
        (3, BROKEN),
        (4, UNDECODABLE),
        (7, UNDECODABLE),
    ]
    assert len(of(rows, "lab")) == 1
    (tmp_path / "a.ndjson").unlink()
    bundle = json.dumps({"resourceType": "Bundle", "entry": [{"resource": PATIENT}, {"resource": lab()}]}, indent=1)
    (tmp_path / "cut.json").write_text(bundle[:-60], encoding="utf-8")
    (tmp_path / "empty.ndjson").write_bytes(b"")
    (tmp_path / "note.txt").write_text("memo", encoding="utf-8")
    packed = gzip.compress(json.dumps(lab()).encode() * 50)
    (tmp_path / "packed.ndjson.gz").write_bytes(packed[:-40])
    (tmp_path / "07407407.json").write_text("{" + "[" * 5000, encoding="utf-8")
    rows = rows_of(tmp_path)
    assert len([row for row in rows if isinstance(row, PatientRow)]) == 1
    shown = {row.path.partition(" (sha256 ")[0]: row.reason for row in rows if isinstance(row, Quarantined)}
    assert shown == {
        "cut.json": BROKEN,
        "note.txt": NOT_FHIR,
        "packed.ndjson.gz": fhir_context.UNREADABLE,
        "….json": BROKEN,
    }


def test_no_damage_makes_it_fail(tmp_path: Path) -> None:
    """Every value of a resource replaced by something else, and cuts anywhere."""
    chance = random.Random(11)
    whole = [PATIENT, study(), FINDINGS, IMPRESSION, radiology(), lab(), resource("Condition", onsetDateTime="2021")]
    whole += [resource("Procedure", status="completed", performedPeriod={"start": "2021"}, bodySite=[{"text": "左"}])]
    strange: list[Any] = [
        None,
        5,
        -1.5,
        True,
        "",
        "x",
        [],
        {},
        [[]],
        [None],
        {"reference": 5},
        [{"coding": "x"}],
        1e400,
    ]

    def changed(value: Any) -> Any:
        if chance.random() < 0.06:
            return chance.choice(strange)
        if isinstance(value, dict):
            return {key: changed(one) for key, one in value.items()}
        return [changed(one) for one in value] if isinstance(value, list) else value

    for _ in range(150):
        rows = rows_of(ndjson(tmp_path, *(json.dumps(changed(one)) for one in whole)))
        assert rows
    data = json.dumps({"resourceType": "Bundle", "entry": [{"resource": one} for one in whole]}, indent=1).encode()
    for _ in range(60):
        cut = bytearray(data[: chance.randrange(1, len(data))])
        cut[chance.randrange(len(cut))] = chance.randrange(256)
        (tmp_path / "all.ndjson").write_bytes(cut)
        rows_of(tmp_path)


def test_reasons_have_remedies() -> None:
    written = {value for name, value in vars(fhir_context).items() if name.isupper() and isinstance(value, str)}
    assert written == set(fhir.REASONS)


def test_what_is_no_fhir_is_not_recognised(tmp_path: Path) -> None:
    for name, text in (("a.csv", "a,b\n"), ("b.json", '{"version": 1}'), ("c.json", "[1, 2]"), ("d.ndjson", "")):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert not recognise(tmp_path / name)
    assert not recognise(tmp_path)


def test_a_wrong_rule_names_file_and_line(tmp_path: Path) -> None:
    text = (rules_folder() / "ingest" / "fhir.yaml").read_text(encoding="utf-8")
    path = tmp_path / "fhir.yaml"
    path.write_text(text.replace("shortest_generated:", "shortest:"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"fhir.yaml:\d+: unknown key 'shortest'"):
        parse(read_yaml(path), FhirRules)


def test_places_lead_back_to_the_resources(tmp_path: Path) -> None:
    """Whatever the layout of the JSON, and characters of one to four bytes."""
    some = [PATIENT | {"id": f"p{place}", "gender": "é癌𠮷"[place % 3] * place} for place in range(9)]
    entries: Iterable[Resource] = ({"fullUrl": f"urn:uuid:{one['id']}", "resource": one} for one in some)
    layouts = {
        "a.json": json.dumps({"entry": list(entries), "resourceType": "Bundle"}, ensure_ascii=False, indent=2),
        "b.ndjson": "\n".join(json.dumps(one, ensure_ascii=False) for one in some),
        "c.json": json.dumps(some, ensure_ascii=False),
        "d.json": json.dumps(some[4], indent=4),
    }
    for name, text in layouts.items():
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        data = path.read_bytes()
        for found in resources(path):
            inner = json.loads(data[found.offset : found.offset + found.length])
            assert inner.get("resource", inner) == found.resource
    archive = build_archive([tmp_path / name for name in layouts], [""] * 4)
    assert (
        len(archive.candidates("Patient/p4", scope="")) == 4 and len(archive.candidates("urn:uuid:p4", scope="")) == 0
    )
