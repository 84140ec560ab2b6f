"""FHIR: every resource is valid for an independent reader, and nothing is lost."""

import json
from collections import Counter
from pathlib import Path

import pytest
from fhir.resources.R4B import get_fhir_model_class

from reportlabel.synth.bank import load_bank
from reportlabel.synth.patient import PatientFile
from reportlabel.synth.simulate import simulate
from reportlabel.synth.write_fhir import FhirWriter


@pytest.fixture(scope="module")
def patients() -> list[PatientFile]:
    return [simulate(load_bank(), seed=6, number=number) for number in range(1, 31)]


@pytest.fixture(scope="module")
def resources(patients: list[PatientFile], tmp_path_factory: pytest.TempPathFactory) -> list[dict]:  # type: ignore[type-arg]
    out = tmp_path_factory.mktemp("fhir")
    write(out, patients)
    lines = [line for path in sorted(out.rglob("*.ndjson")) for line in path.read_text(encoding="utf-8").splitlines()]
    return [json.loads(line) for line in lines]


def write(out: Path, patients: list[PatientFile]) -> FhirWriter:
    with FhirWriter(out, load_bank().site_by_id) as writer:
        for patient in patients:
            writer.write(patient)
    return writer


def test_every_resource_is_valid(resources: list[dict]) -> None:  # type: ignore[type-arg]
    for resource in resources:
        get_fhir_model_class(resource["resourceType"]).model_validate(resource)


def test_nothing_is_lost(resources: list[dict], patients: list[PatientFile]) -> None:  # type: ignore[type-arg]
    kinds = Counter(resource["id"].split("-")[0] for resource in resources)
    records = Counter(record.kind for patient in patients for record in patient.records)
    assert kinds["img"] == sum(len(patient.exams) for patient in patients)
    assert kinds["rad"] == sum(len(patient.reports) for patient in patients)
    assert kinds["lab"] == records["lab"] and kinds["con"] == records["diagnosis"]
    assert kinds["med"] == records["medication"] and kinds["pro"] == records["surgery"]
    assert kinds["phy"] == records["physiology"]
    assert kinds["pat"] == records["pathology"] + len(patients)


def test_references_lead_somewhere(resources: list[dict]) -> None:  # type: ignore[type-arg]
    known = {f"{resource['resourceType']}/{resource['id']}" for resource in resources}
    for resource in resources:
        for reference in [resource.get("subject"), *resource.get("imagingStudy", []), *resource.get("result", [])]:
            assert reference is None or reference["reference"] in known


def test_the_texts_are_those_of_the_reports(resources: list[dict], patients: list[PatientFile]) -> None:  # type: ignore[type-arg]
    said = {
        resource["id"]: resource["valueString"].replace("\\n", "\n")
        for resource in resources
        if resource["id"].startswith("finding-")
    }
    reports = {f"finding-{one.report_id}-{one.version}": one for file in patients for one in file.reports}
    assert said and all(reports[id_].findings_text == text for id_, text in said.items())


def test_a_suspicion_is_provisional(resources: list[dict], patients: list[PatientFile]) -> None:  # type: ignore[type-arg]
    suspected = {
        f"con-{record.record_id}" for file in patients for record in file.records if record.certainty == "suspected"
    }
    codes = {
        resource["id"]: resource["verificationStatus"]["coding"][0]["code"]
        for resource in resources
        if resource["resourceType"] == "Condition"
    }
    assert suspected and {id_ for id_, code in codes.items() if code == "provisional"} == suspected


def test_the_same_patients_give_the_same_bytes(patients: list[PatientFile], tmp_path: Path) -> None:
    one, two = write(tmp_path / "one", patients), write(tmp_path / "two", patients)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.ndjson"))
    assert files and all(
        (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files
    )
    assert one.defects == two.defects
