"""FHIR: every resource is valid for an independent reader, nothing is lost, and each site has its own ways."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class

from reportlabel.synth.bank import load_bank
from reportlabel.synth.patient import PatientFile
from reportlabel.synth.simulate import simulate
from reportlabel.synth.write_fhir import FhirWriter, site_dialects
from tests.unit.synth.written_patient import (
    ADDENDUM_2,
    FINDINGS_1,
    FINDINGS_2,
    IMPRESSION_1,
    SITES,
    TEXT_1,
    written_exam,
    written_patient,
)

Resource = dict[str, Any]
CORE = "http://jpfhir.jp/fhir/core/StructureDefinition/"


def write(out: Path, patients: Iterable[PatientFile], *, part: int = 0) -> FhirWriter:
    with FhirWriter(out, SITES, part=part) as writer:
        for patient in patients:
            writer.write(patient)
    return writer


def read(out: Path, site: str = "*", kind: str = "*") -> list[Resource]:
    files = sorted(out.glob(f"{site}/{kind}-*.ndjson"))
    return [json.loads(line) for path in files for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def simulated() -> list[PatientFile]:
    return [simulate(load_bank(), seed=6, number=number) for number in range(1, 31)]


@pytest.fixture(scope="module")
def hospital(simulated: list[PatientFile], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fhir")
    write(out, simulated)
    return out


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fhir")
    write(out, (written_patient(site, 7 + place) for place, site in enumerate(SITES)))
    return out


def one(resources: Iterable[Resource], start: str) -> Resource:
    (found,) = (resource for resource in resources if resource["id"].startswith(start))
    return found


# --- all of it


def test_every_resource_is_valid(hospital: Path, by_hand: Path) -> None:
    for resource in [*read(by_hand), *read(hospital)]:
        get_fhir_model_class(resource["resourceType"]).model_validate(resource)


def test_ids_and_profiles(hospital: Path) -> None:
    known = Counter()
    for resource in read(hospital):
        version = resource["meta"].get("versionId", "")
        known[resource["resourceType"], resource["id"], version] += 1
        assert re.fullmatch(r"[A-Za-z0-9.-]{1,64}", resource["id"])
        assert resource["meta"]["profile"][0].startswith(f"{CORE}JP_")
    assert set(known.values()) == {1}


def test_nothing_is_lost(hospital: Path, simulated: list[PatientFile]) -> None:
    kinds = Counter(resource["id"].split("-")[0] for resource in read(hospital))
    inside = sum(len(resource.get("contained", [])) for resource in read(hospital, kind="DiagnosticReport"))
    records = Counter(record.kind for patient in simulated for record in patient.records)
    exams = sum(len(patient.exams) for patient in simulated)
    assert kinds["img"] + inside == kinds["ord"] == exams
    assert kinds["con"] == records["diagnosis"]
    assert kinds["med"] == records["medication"] and kinds["pro"] == records["surgery"]
    assert kinds["phy"] == records["physiology"]
    assert kinds["pat"] == records["pathology"] + len(simulated)
    withdrawn = [one for one in read(hospital, kind="Observation") if one["status"] == "entered-in-error"]
    assert kinds["lab"] == records["lab"] + len(withdrawn)


def test_every_read_exam_has_its_report(hospital: Path, simulated: list[PatientFile]) -> None:
    said = {one["id"] for one in read(hospital, kind="DiagnosticReport") if one["id"].startswith("rad-")}
    assert said == {f"rad-{report.report_id}" for patient in simulated for report in patient.reports}


def test_references_lead_somewhere(hospital: Path) -> None:
    resources = read(hospital)
    known = {f"{resource['resourceType']}/{resource['id']}" for resource in resources}
    for resource in resources:
        inside = {f"#{one['id']}" for one in resource.get("contained", [])}
        references = [resource.get("subject"), *resource.get("imagingStudy", []), *resource.get("result", [])]
        for reference in [*references, *resource.get("basedOn", [])]:
            assert reference is None or reference["reference"] in known | inside


def test_lines_are_compact_and_sorted(by_hand: Path) -> None:
    for path in by_hand.rglob("*.ndjson"):
        for line in path.read_text(encoding="utf-8").splitlines():
            again = json.dumps(json.loads(line), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
            assert line == again


def test_the_same_patients_give_the_same_bytes(simulated: list[PatientFile], tmp_path: Path) -> None:
    first, second = write(tmp_path / "one", simulated), write(tmp_path / "two", simulated)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.ndjson"))
    assert files
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)
    assert first.defects == second.defects


def test_parts_do_not_meet(tmp_path: Path) -> None:
    write(tmp_path, [written_patient("aoba", 1)], part=0)
    write(tmp_path, [written_patient("aoba", 2)], part=3)
    assert sorted(path.name for path in tmp_path.glob("aoba/Patient-*")) == [
        "Patient-0000.ndjson",
        "Patient-0003.ndjson",
    ]


def test_a_patient_of_two_sites_is_at_both(tmp_path: Path) -> None:
    patient = written_patient("aoba", 3)
    patient.exams[1] = replace(patient.exams[1], site="minato")
    write(tmp_path, [patient])
    assert len(read(tmp_path, "minato", "Patient")) == len(read(tmp_path, "aoba", "Patient")) == 1
    assert len(read(tmp_path, "minato", "ServiceRequest")) == 1 and len(read(tmp_path, "aoba", "ServiceRequest")) == 3
    assert len(read(tmp_path, "minato", "DiagnosticReport")) == 1  # of three versions the last


# --- the patient and the study


def test_the_patient(by_hand: Path) -> None:
    (patient,) = read(by_hand, "aoba", "Patient")
    assert patient["identifier"] == [
        {"system": "urn:oid:1.2.392.100495.20.3.51.11319990101", "value": "00000007"},
    ]
    assert [name["text"] for name in patient["name"]] == ["髙橋 佐知子", "タカハシ サチコ"]
    assert (patient["gender"], patient["birthDate"]) == ("female", "1948-12-30")


@pytest.mark.parametrize("site", list(SITES))
def test_the_study_is_found_from_the_report(by_hand: Path, site: str) -> None:
    number = 7 + list(SITES).index(site)
    exam = written_exam(0, site=site, number=number)
    report = one(read(by_hand, site, "DiagnosticReport"), f"rad-{exam.report_id}")
    (reference,) = report["imagingStudy"]
    if site_dialects(SITES)[site].contained:
        assert reference["reference"] == "#study"
        (study,) = report["contained"]
    else:
        study = one(read(by_hand, site, "ImagingStudy"), reference["reference"].removeprefix("ImagingStudy/"))
    assert study["identifier"][0] == {"system": "urn:dicom:uid", "value": f"urn:oid:{exam.study_instance_uid}"}
    assert study["identifier"][1]["value"] == exam.accession_number
    assert study["started"] == report["effectiveDateTime"] == "2021-04-05T09:42:00+09:00"
    assert report["issued"] == "2021-04-05T12:12:00+09:00"
    order = one(read(by_hand, site, "ServiceRequest"), report["basedOn"][0]["reference"].split("/")[1])
    assert [one["value"] for one in order["identifier"]] == [exam.order_number, exam.accession_number]
    assert [reason["text"] for reason in order["reasonCode"]] == [exam.diagnosis, exam.indication]


# --- reports


@pytest.mark.parametrize(("site", "newline"), [("aoba", "\\n"), ("minato", "\n"), ("sato", "\r\n")])
def test_findings_and_impression(by_hand: Path, site: str, newline: str) -> None:
    observations = read(by_hand, site, "Observation")
    exam = written_exam(0, site=site, number=7 + list(SITES).index(site))
    findings = one(observations, f"finding-{exam.report_id}-1")
    impression = one(observations, f"impression-{exam.report_id}-1")
    assert findings["valueString"] == FINDINGS_1.replace("\n", newline)
    assert impression["valueString"] == IMPRESSION_1.replace("\n", newline)
    assert findings["code"]["coding"][0]["code"] == "18782-3" and impression["code"]["coding"][0]["code"] == "19005-8"
    assert findings["meta"]["profile"] == [f"{CORE}JP_Observation_Radiology_Findings"]
    assert impression["meta"]["profile"] == [f"{CORE}JP_Observation_Radiology_Impression"]
    report = one(read(by_hand, site, "DiagnosticReport"), f"rad-{exam.report_id}")
    assert [one["reference"].split("/")[1] for one in report["result"]] == [findings["id"], impression["id"]]
    assert report["code"]["coding"][0]["code"] == "18748-4"
    assert [one["coding"][0]["code"] for one in report["category"]] == ["LP29684-5", "CT"]
    assert [one["display"] for one in report["resultsInterpreter"]] == ["設楽 美咲", "桐生 一馬"]


def test_all_texts_are_those_of_the_reports(hospital: Path, simulated: list[PatientFile]) -> None:
    reports = {f"finding-{one.report_id}-{one.version}": one for file in simulated for one in file.reports}
    said = {one["id"]: one for one in read(hospital, kind="Observation") if one["id"].startswith("finding-")}
    assert said
    for id_, observation in said.items():
        text = observation["valueString"].replace("\\n", "\n").replace("\r\n", "\n")
        assert text == reports[id_].findings_text


@pytest.mark.parametrize(
    ("site", "statuses"),
    [
        ("aoba", ["preliminary", "final", "amended"]),
        ("minato", ["amended"]),
        ("sato", ["preliminary", "final", "amended"]),
    ],
)
def test_versions(by_hand: Path, site: str, statuses: list[str]) -> None:
    exam = written_exam(1, site=site, number=7 + list(SITES).index(site))
    lines = [one for one in read(by_hand, site, "DiagnosticReport") if one["id"] == f"rad-{exam.report_id}"]
    assert [line["status"] for line in lines] == statuses
    assert lines[-1]["meta"]["versionId"] == "3"
    assert [line["issued"] for line in lines] == sorted(line["issued"] for line in lines)
    findings = one(read(by_hand, site, "Observation"), f"finding-{exam.report_id}-3")
    assert findings["valueString"].endswith(ADDENDUM_2.strip()) and findings["valueString"].startswith(FINDINGS_2)


def text_of(resource: Resource) -> str:
    div = resource["text"]["div"].removeprefix('<div xmlns="http://www.w3.org/1999/xhtml">').removesuffix("</div>")
    for mark, char in (("<br/>", "\n"), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        div = div.replace(mark, char)
    return str(div)


def test_the_narrative_by_site(by_hand: Path) -> None:
    reports = {}
    for place, site in enumerate(SITES):
        exam = written_exam(0, site=site, number=7 + place)
        reports[site] = one(read(by_hand, site, "DiagnosticReport"), f"rad-{exam.report_id}")
    assert text_of(reports["aoba"]) == TEXT_1
    assert text_of(reports["minato"]) == "胸部CT 2021-04-05" and "conclusion" not in reports["minato"]
    assert "text" not in reports["sato"] and reports["sato"]["conclusion"].startswith("#1 右上葉肺癌疑い")


def test_a_few_reports_have_their_findings_in_the_narrative_alone(tmp_path: Path) -> None:
    patients = [written_patient("sato", number) for number in range(1, 60)]
    writer = write(tmp_path, patients)
    known = {id_ for _, kind, id_ in writer.defects if kind == "narrative_only"}
    texts = {report.report_id: report.text for patient in patients for report in patient.reports}
    found = {}
    for resource in read(tmp_path, kind="DiagnosticReport"):
        if resource["id"].startswith("rad-") and "result" not in resource:
            found[resource["id"].removeprefix("rad-")] = text_of(resource)
            assert "conclusion" not in resource
    assert 0 < len(known) < 10 and found == {id_: texts[id_] for id_ in known}


def test_a_few_reports_name_no_study(tmp_path: Path) -> None:
    patients = [written_patient("minato", number) for number in range(1, 120)]
    writer = write(tmp_path, patients)
    known = {f"rad-{id_}" for _, kind, id_ in writer.defects if kind == "study_missing"}
    reports = [one for one in read(tmp_path, kind="DiagnosticReport") if one["id"].startswith("rad-")]
    assert known and {one["id"] for one in reports if "imagingStudy" not in one} == known
    apart = {one["id"].replace("img-E", "rad-R") for one in read(tmp_path, kind="ImagingStudy")}
    assert known <= apart


# --- records


def test_laboratory(by_hand: Path) -> None:
    values = {
        resource["code"]["text"]: resource
        for resource in read(by_hand, "aoba", "Observation")
        if resource["id"].startswith("lab-") and resource["status"] == "final"
    }
    white = values["白血球数"]
    assert white["code"]["coding"][0] == {
        "system": "http://medis.or.jp/CodeSystem/master-JLAC10-17digits",
        "code": "2A010000001930101",
        "display": "白血球数",
    }
    assert white["valueQuantity"] == {
        "value": 6500,
        "unit": "/μL",
        "system": "http://unitsofmeasure.org",
        "code": "/uL",
    }
    assert white["referenceRange"][0]["high"]["value"] == 8600 and "interpretation" not in white
    assert values["CRP"]["interpretation"][0]["coding"][0]["code"] == "H"
    assert values["CRP"]["specimen"] == {"display": "血清"}
    assert values["直接ビリルビン"]["valueQuantity"]["comparator"] == "<"
    assert values["直接ビリルビン"]["valueQuantity"]["value"] == 0.1
    assert values["尿潜血"]["valueCodeableConcept"] == {"text": "2+"}
    assert values["尿糖"]["valueCodeableConcept"] == {"text": "(-)"}
    assert values["PT-INR"]["valueQuantity"] == {"value": 1.05}
    assert values["シフラ"]["issued"] == "2021-08-20T10:00:00+09:00"


def test_values_entered_in_error_are_known(tmp_path: Path) -> None:
    writer = write(tmp_path, [written_patient("aoba", number) for number in range(1, 120)])
    known = {id_ for _, kind, id_ in writer.defects if kind == "entered_in_error"}
    observations = {one["id"]: one for one in read(tmp_path, kind="Observation")}
    wrong = {id_: one for id_, one in observations.items() if one["status"] == "entered-in-error"}
    assert known and {id_.split("-")[1] for id_ in wrong} == known
    for id_, resource in wrong.items():
        right = observations[id_.removesuffix("-1")]
        assert right["status"] == "final" and "valueQuantity" in resource


def test_physiology(by_hand: Path) -> None:
    ecg = one(read(by_hand, "minato", "Observation"), "phy-")
    assert ecg["valueString"] == "Ⅱ、Ⅲ、aVFでST低下。心筋虚血疑い。"
    measured = {part["code"]["text"]: part["valueQuantity"] for part in ecg["component"]}
    assert measured["HR"] == {"value": 72, "unit": "/min", "system": "http://unitsofmeasure.org", "code": "/min"}
    assert measured["RV5"]["value"] == 2.61


@pytest.mark.parametrize("site", list(SITES))
def test_pathology(by_hand: Path, site: str) -> None:
    report = one(read(by_hand, site, "DiagnosticReport"), "pat-")
    assert report["conclusion"] == "Adenocarcinoma, right upper lobe." and report["status"] == "amended"
    assert report["code"]["coding"][0]["code"] == "11529-5"
    text = (
        base64.b64decode(report["presentedForm"][0]["data"]).decode()
        if site_dialects(SITES)[site].pathology == "attachment"
        else text_of(report)
    )
    assert text == "異型細胞が腺管構造を形成する。\nTTF-1（＋）、EGFR L858R陽性。"


def test_a_suspicion_is_provisional(hospital: Path, simulated: list[PatientFile]) -> None:
    suspected = {
        f"con-{record.record_id}" for file in simulated for record in file.records if record.certainty == "suspected"
    }
    codes = {one["id"]: one["verificationStatus"]["coding"][0]["code"] for one in read(hospital, kind="Condition")}
    assert suspected and {id_ for id_, code in codes.items() if code == "provisional"} == suspected


def test_diagnoses(by_hand: Path) -> None:
    for site, modified in (("aoba", False), ("minato", True), ("sato", True)):
        suspected, proven = read(by_hand, site, "Condition")
        assert [coding["code"] for coding in proven["code"]["coding"]] == ["C349", "20085901", "GQPT"]
        assert (suspected["onsetDateTime"], suspected["abatementDateTime"]) == ("2021-04-05", "2021-04-20")
        assert "abatementDateTime" not in proven and "extension" not in proven["code"]
        said = [one["valueCodeableConcept"]["coding"][0] for one in suspected["code"].get("extension", [])]
        assert [coding["code"] for coding in said] == (["5395"] if modified else [])
        assert suspected["code"]["text"] == ("肺腺癌の疑い" if modified else "肺腺癌")


def test_procedures_and_drugs(by_hand: Path) -> None:
    (operation,) = read(by_hand, "sato", "Procedure")
    assert [coding["code"] for coding in operation["code"]["coding"]] == ["K514-2 3", "150355810"]
    assert operation["bodySite"] == [{"text": "right lung"}]
    assert operation["performedPeriod"]["end"] == "2021-07-26T13:10:00+09:00"
    drugs = {one["medicationCodeableConcept"]["text"]: one for one in read(by_hand, "sato", "MedicationRequest")}
    drug = drugs["ロキソプロフェン錠60mg"]
    assert [coding["code"] for coding in drug["medicationCodeableConcept"]["coding"]] == ["6139504F1010", "100000001"]
    assert drug["dispenseRequest"]["expectedSupplyDuration"]["value"] == 5
    (dosage,) = drug["dosageInstruction"]
    assert dosage["timing"]["repeat"]["boundsPeriod"] == {"start": "2021-08-02", "end": "2021-08-07"}
    assert dosage["doseAndRate"][0]["doseQuantity"] == {"value": 3, "unit": "錠"}
