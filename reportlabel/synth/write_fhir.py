"""The synthetic hospital as HL7 FHIR R4 NDJSON in the shape of JP Core 1.x: a file a resource type, site and part.

Profiles: JP Core (https://jpfhir.jp/fhir/core/); LOINC codes of the radiology report and its parts as there.
Versions of a report are lines with the same id and rising ``meta.versionId``; the last one counts.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, Self, TextIO

from reportlabel.synth.patient import Exam, Identity, PatientFile, Record, Report, Site

_CORE = "http://jpfhir.jp/fhir/core"
_ZONE = "+09:00"
_LOINC = "http://loinc.org"
_SEX = {"M": "male", "F": "female"}
_SYSTEMS = {
    "JLAC10": "http://medis.or.jp/CodeSystem/master-JLAC10-17digits",
    "ICD-10": "http://hl7.org/fhir/sid/icd-10",
    "MEDIS": "http://medis.or.jp/CodeSystem/master-disease-keyNumber",
    "exchange": "http://medis.or.jp/CodeSystem/master-disease-exCode",
    "YJ": "urn:oid:1.2.392.100495.20.1.73",
    "HOT9": "http://medis.or.jp/CodeSystem/master-HOT9",
    "receipt": "http://jpfhir.jp/fhir/core/mhlw/CodeSystem/ReceiptComputerCode",
    "K": "http://jpfhir.jp/fhir/core/CodeSystem/MedicalProcedureKCode",
}
_NUMBER = "http://jpfhir.jp/fhir/core/IdSystem/resourceInstance-identifier"
_PATIENT_NUMBER = "urn:oid:1.2.392.100495.20.3.51."

Resource = dict[str, Any]


class FhirWriter:
    """Writes patients as NDJSON; nothing is written wrong on purpose but what the hospital's data already has."""

    def __init__(self, out: Path, sites: Mapping[str, Site], *, part: int = 0) -> None:
        self._out = out
        self._sites = sites
        self._part = part
        self._files: dict[Path, TextIO] = {}
        self._defects: list[tuple[str, str, str]] = []

    @property
    def defects(self) -> list[tuple[str, str, str]]:
        """Path, kind and id of what was written wrong on purpose: findings that stand only in the narrative."""
        return self._defects

    def write(self, patient: PatientFile) -> None:
        """Append the resources of one patient."""
        for resource in self._resources(patient):
            path = self._out / patient.identity.site / f"{resource['resourceType']}-{self._part:04d}.ndjson"
            file = self._files.get(path)
            if file is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = self._files[path] = path.open("w", encoding="utf-8", newline="\n")
            file.write(json.dumps(resource, ensure_ascii=False, separators=(",", ":")) + "\n")

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _resources(self, patient: PatientFile) -> Iterator[Resource]:
        site = self._sites[patient.identity.site]
        yield _patient(patient.identity, site)
        subject = _reference("Patient", f"pat-{patient.identity.site}-{patient.identity.patient_id}")
        exams = {exam.exam_id: exam for exam in patient.exams}
        for exam in patient.exams:
            yield _imaging_study(exam, subject)
        for report in patient.reports:
            exam = exams[report.exam_id]
            narrative = _only_narrative(report)
            if narrative:
                self._defects.append(
                    (f"{exam.site}/DiagnosticReport-{self._part:04d}.ndjson", "narrative_only", report.report_id)
                )
            yield from _radiology(report, exam, subject, narrative=narrative)
        for record in patient.records:
            yield from _MAKERS[record.kind](record, subject)


# --- the pieces of a resource -----------------------------------------------------------------------------------------


def _reference(kind: str, id_: str) -> Resource:
    return {"reference": f"{kind}/{id_}"}


def _head(kind: str, id_: str, profile: str, number: str) -> Resource:
    return {
        "resourceType": kind,
        "id": id_,
        "meta": {"profile": [f"{_CORE}/StructureDefinition/{profile}"]},
        "identifier": [{"system": _NUMBER, "value": number}],
    }


def _concept(text: str, *codings: tuple[str, str]) -> Resource:
    known = [{"system": system, "code": code, "display": text} for system, code in codings if code]
    concept: Resource = {"coding": known} if known else {}
    return concept | {"text": text}


def _moment(when: datetime) -> str:
    return f"{when:%Y-%m-%dT%H:%M:%S}{_ZONE}"


def _day(when: date) -> str:
    return f"{when:%Y-%m-%d}"


def _patient(one: Identity, site: Site) -> Resource:
    family, given = one.name.split("　")
    family_kana, given_kana = one.kana.split("　")
    use = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"
    return {
        "resourceType": "Patient",
        "id": f"pat-{one.site}-{one.patient_id}",
        "meta": {"profile": [f"{_CORE}/StructureDefinition/JP_Patient"]},
        "identifier": [{"system": f"{_PATIENT_NUMBER}1{site.insurance_number}", "value": one.patient_id}],
        "name": [
            {
                "extension": [{"url": use, "valueCode": "IDE"}],
                "text": f"{family} {given}",
                "family": family,
                "given": [given],
            },
            {
                "extension": [{"url": use, "valueCode": "SYL"}],
                "text": f"{family_kana} {given_kana}",
                "family": family_kana,
                "given": [given_kana],
            },
        ],
        "telecom": [{"system": "phone", "value": one.phone, "use": "home"}],
        "gender": _SEX[one.sex],
        "birthDate": _day(one.birth_date),
        "address": [{"text": one.address, "postalCode": one.postal_code, "country": "JP"}],
    }


def _imaging_study(exam: Exam, subject: Resource) -> Resource:
    study = _head("ImagingStudy", f"img-{exam.exam_id}", "JP_ImagingStudy_Radiology", exam.exam_id)
    study["identifier"] = [
        {"system": "urn:dicom:uid", "value": f"urn:oid:{exam.study_instance_uid}"},
        {
            "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}]},
            "value": exam.accession_number,
        },
    ]
    modality = {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": exam.modality}
    return study | {
        "status": "available",
        "modality": [modality],
        "subject": subject,
        "started": _moment(exam.started_at),
        "numberOfSeries": 1,
        "numberOfInstances": 1,
        "procedureCode": [{"text": exam.order_name}],
        "description": exam.protocol_name,
        "series": [
            {
                "uid": f"{exam.study_instance_uid}.1",
                "number": 1,
                "modality": modality,
                "bodySite": {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": exam.body_part},
            }
        ],
    }


# --- reports ----------------------------------------------------------------------------------------------------------


def _only_narrative(report: Report) -> bool:
    """One report in sixty has its findings in the narrative alone, as some systems send them."""
    return zlib.crc32(report.report_id.encode()) % 60 == 0


def _radiology(report: Report, exam: Exam, subject: Resource, *, narrative: bool) -> Iterator[Resource]:
    """The report and its two observations; in texts a line break is the two characters that sites send."""
    parts = (
        []
        if narrative
        else [("finding", "18782-3", report.findings_text), ("impression", "19005-8", report.impression_text)]
    )
    results = []
    for name, code, text in parts:
        if not text:
            continue
        id_ = f"{name}-{report.report_id}-{report.version}"
        results.append(_reference("Observation", id_))
        observation = _head("Observation", id_, f"JP_Observation_Radiology_{name.capitalize()}s", id_)
        yield observation | {
            "status": report.status,
            "category": [
                _concept("Imaging", ("http://terminology.hl7.org/CodeSystem/observation-category", "imaging"))
            ],
            "code": _concept("Radiology", (_LOINC, code)),
            "subject": subject,
            "effectiveDateTime": _moment(exam.started_at),
            "issued": _moment(report.confirmed_at),
            "valueString": text.replace("\n", "\\n"),
        }
    made = _head("DiagnosticReport", f"rad-{report.report_id}", "JP_DiagnosticReport_Radiology", report.report_id)
    made["meta"]["versionId"] = str(report.version)
    made |= {
        "status": report.status,
        "category": [
            {"coding": [{"system": _LOINC, "code": "LP29684-5", "display": "Radiology"}]},
            {"coding": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": exam.modality}]},
        ],
        "code": {"coding": [{"system": _LOINC, "code": "18748-4", "display": "Diagnostic imaging study"}]},
        "subject": subject,
        "effectiveDateTime": _moment(exam.started_at),
        "issued": _moment(report.confirmed_at),
        "resultsInterpreter": [{"display": name} for name in (report.reader, report.second_reader) if name],
        "imagingStudy": [_reference("ImagingStudy", f"img-{exam.exam_id}")],
        "text": {"status": "additional", "div": _narrative(report.text)},
    }
    if results:
        made["result"] = results
    if report.impression_text and not narrative:
        made["conclusion"] = report.impression_text.replace("\n", "\\n")
    yield made


def _narrative(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", "<br/>")
    return f'<div xmlns="http://www.w3.org/1999/xhtml">{escaped}</div>'


# --- records ----------------------------------------------------------------------------------------------------------


def _laboratory(record: Record, subject: Resource) -> Iterator[Resource]:
    made = _head("Observation", f"lab-{record.record_id}", "JP_Observation_LabResult", record.record_id)
    made |= {
        "status": "final",
        "category": [
            _concept("Laboratory", ("http://terminology.hl7.org/CodeSystem/observation-category", "laboratory"))
        ],
        "code": _concept(record.name, (_SYSTEMS["JLAC10"], record.code)),
        "subject": subject,
        "effectiveDateTime": _moment(record.start_at),
    }
    if record.reported_at:
        made["issued"] = _moment(record.reported_at)
    if record.value is not None:
        made["valueQuantity"] = {"value": record.value, "unit": record.unit} if record.unit else {"value": record.value}
    if record.flag:
        system = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
        made["interpretation"] = [{"coding": [{"system": system, "code": record.flag}]}]
    limits = {
        key: {"value": limit, "unit": record.unit} if record.unit else {"value": limit}
        for key, limit in (("low", record.reference_low), ("high", record.reference_high))
        if limit is not None
    }
    if limits:
        made["referenceRange"] = [limits]
    yield made


def _physiology(record: Record, subject: Resource) -> Iterator[Resource]:
    made = _head("Observation", f"phy-{record.record_id}", "JP_Observation_Common", record.record_id)
    made |= {
        "status": "final",
        "category": [
            _concept("Procedure", ("http://terminology.hl7.org/CodeSystem/observation-category", "procedure"))
        ],
        "code": _concept(record.name, (_SYSTEMS["JLAC10"], record.code)),
        "subject": subject,
        "effectiveDateTime": _moment(record.start_at),
    }
    if record.reported_at:
        made["issued"] = _moment(record.reported_at)
    if record.text:
        made["valueString"] = record.text.replace("\n", "\\n")
    measured = [{"code": {"text": name}, "valueString": value} for name, value in record.details.items()]
    if measured:
        made["component"] = measured
    yield made


def _pathology(record: Record, subject: Resource) -> Iterator[Resource]:
    made = _head("DiagnosticReport", f"pat-{record.record_id}", "JP_DiagnosticReport_Common", record.code)
    details = record.details
    text = "\n".join(filter(None, (details.get("findings"), details.get("addendum"))))
    made |= {
        "status": "amended" if record.certainty == "corrected" else "final",
        "category": [_concept("Pathology", ("http://terminology.hl7.org/CodeSystem/v2-0074", "PAT"))],
        "code": _concept(record.name, (_LOINC, "11526-1")),
        "subject": subject,
        "effectiveDateTime": _moment(record.start_at),
        "conclusion": details.get("diagnosis", record.text).replace("\n", "\\n"),
    }
    if record.reported_at:
        made["issued"] = _moment(record.reported_at)
    if text:
        made["text"] = {"status": "additional", "div": _narrative(text)}
    yield made


def _condition(record: Record, subject: Resource) -> Iterator[Resource]:
    """A diagnosis; a suspicion is a provisional one, as JP Core asks."""
    made = _head("Condition", f"con-{record.record_id}", "JP_Condition_Diagnosis", record.record_id)
    suspected = record.certainty == "suspected"
    base = "http://terminology.hl7.org/CodeSystem"
    state = "active" if record.end_at is None else "resolved"
    codes = [(_SYSTEMS[name], record.codes.get(name, "")) for name in ("MEDIS", "exchange")]
    made |= {
        "clinicalStatus": {"coding": [{"system": f"{base}/condition-clinical", "code": state}]},
        "verificationStatus": {
            "coding": [{"system": f"{base}/condition-ver-status", "code": "provisional" if suspected else "confirmed"}]
        },
        "category": [{"coding": [{"system": f"{base}/condition-category", "code": "encounter-diagnosis"}]}],
        "code": _concept(record.name, (_SYSTEMS["ICD-10"], record.code), *codes),
        "subject": subject,
        "onsetDateTime": _day(record.start_at),
        "recordedDate": _day(record.start_at),
    }
    if record.end_at is not None:
        made["abatementDateTime"] = _day(record.end_at)
    yield made


def _procedure(record: Record, subject: Resource) -> Iterator[Resource]:
    made = _head("Procedure", f"pro-{record.record_id}", "JP_Procedure", record.record_id)
    made |= {
        "status": "completed",
        "code": _concept(
            record.name, (_SYSTEMS["K"], record.code), (_SYSTEMS["receipt"], record.codes.get("receipt", ""))
        ),
        "subject": subject,
        "performedPeriod": {
            "start": _moment(record.start_at),
            **({"end": _moment(record.end_at)} if record.end_at else {}),
        },
    }
    site = " ".join(filter(None, (record.side, record.body_site)))
    if site:
        made["bodySite"] = [{"text": site}]
    if record.text:
        made["note"] = [{"text": record.text}]
    yield made


def _medication(record: Record, subject: Resource) -> Iterator[Resource]:
    made = _head("MedicationRequest", f"med-{record.record_id}", "JP_MedicationRequest", record.record_id)
    details = record.details
    days = None if record.end_at is None else max(1, (record.end_at - record.start_at).days)
    dosage: Resource = {"text": details.get("usage") or "-"}
    if details.get("route"):
        dosage["route"] = {"text": details["route"]}
    if details.get("dose", "").replace(".", "", 1).isdigit():
        dosage["doseAndRate"] = [{"doseQuantity": {"value": float(details["dose"]), "unit": details.get("unit", "")}}]
    if record.end_at is not None:
        period = {"start": _day(record.start_at), "end": _day(record.end_at)}
        dosage["timing"] = {"repeat": {"boundsPeriod": period}}
    made |= {
        "status": "completed" if record.end_at else "active",
        "intent": "order",
        "medicationCodeableConcept": _concept(
            record.name, (_SYSTEMS["YJ"], record.code), (_SYSTEMS["HOT9"], record.codes.get("HOT9", ""))
        ),
        "subject": subject,
        "authoredOn": _moment(record.start_at),
        "dosageInstruction": [dosage],
    }
    if days is not None:
        made["dispenseRequest"] = {"expectedSupplyDuration": {"value": days, "unit": "d"}}
    yield made


_MAKERS = {
    "lab": _laboratory,
    "physiology": _physiology,
    "pathology": _pathology,
    "diagnosis": _condition,
    "surgery": _procedure,
    "medication": _medication,
}
