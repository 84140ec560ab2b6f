"""The synthetic hospital as HL7 FHIR R4 in the shape of JP Core 1.x: NDJSON, a file a resource type, site and part.

    OUT/<site>/<ResourceType>-<part>.ndjson

Profiles and systems: JP Core (https://jpfhir.jp/fhir/core/); LOINC codes of the radiology report and its parts as
there. Versions of a report are lines with the same id and rising ``meta.versionId``, of which the last counts; some
sites hand over the last alone. `FhirDialect` says what else differs between sites.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Self, TextIO

from reportlabel.synth.patient import Exam, Identity, PatientFile, Record, Report, Site

__all__ = ["DIALECTS", "FhirDialect", "FhirWriter", "site_dialects"]

Resource = dict[str, Any]

_CORE = "http://jpfhir.jp/fhir/core"
_ZONE = "+09:00"
_LOINC = "http://loinc.org"
_UCUM = "http://unitsofmeasure.org"
_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_TERMS = "http://terminology.hl7.org/CodeSystem"
_SEX = {"M": "male", "F": "female"}
_SYSTEMS = {
    "JLAC10": "http://medis.or.jp/CodeSystem/master-JLAC10-17digits",
    "JLAC10-5": "urn:oid:1.2.392.200119.4.504",
    "ICD-10": "http://hl7.org/fhir/sid/icd-10",
    "MEDIS": "http://medis.or.jp/CodeSystem/master-disease-keyNumber",
    "exchange": "http://medis.or.jp/CodeSystem/master-disease-exCode",
    "modifier": "http://medis.or.jp/CodeSystem/master-disease-modExCode",
    "YJ": "urn:oid:1.2.392.100495.20.1.73",
    "HOT9": "http://medis.or.jp/CodeSystem/master-HOT9",
    "receipt": "http://jpfhir.jp/fhir/core/mhlw/CodeSystem/ReceiptComputerCode",
    "K": "http://jpfhir.jp/fhir/core/CodeSystem/MedicalProcedureKCode",
    "JJ1017": "urn:oid:1.2.392.200119.5.504",
}
_NUMBER = f"{_CORE}/IdSystem/resourceInstance-identifier"
_PATIENT_NUMBER = "urn:oid:1.2.392.100495.20.3.51."
_STATUS = {"final": "final", "preliminary": "preliminary", "corrected": "corrected"}
_SUSPECTED = ("5395", "の疑い")
"""Exchange code of the modifier, and its words."""

# UCUM of the units that a laboratory writes.
_UNITS = {
    "/μL": "/uL",
    "万/μL": "10*4/uL",
    "g/dL": "g/dL",
    "mg/dL": "mg/dL",
    "μg/dL": "ug/dL",
    "μg/mL": "ug/mL",
    "μg/L": "ug/L",
    "ng/mL": "ng/mL",
    "ng/dL": "ng/dL",
    "pg/mL": "pg/mL",
    "pg": "pg",
    "fL": "fL",
    "%": "%",
    "‰": "[ppth]",
    "秒": "s",
    "mm": "mm",
    "U/L": "U/L",
    "U/mL": "U/mL",
    "mAU/mL": "mU/mL",
    "μIU/mL": "u[IU]/mL",
    "mmol/L": "mmol/L",
    "mL/min/1.73m2": "mL/min/{1.73_m2}",
    "個/HPF": "/[HPF]",
    "/min": "/min",
    "msec": "ms",
    "mV": "mV",
    "degree": "deg",
    "L": "L",
    "mmHg": "mm[Hg]",
    "cm/s": "cm/s",
    "Hz": "Hz",
    "μV": "uV",
}
_MATERIALS = {"001": "尿", "019": "血液", "022": "血漿", "023": "血清"}


@dataclass(frozen=True, kw_only=True)
class FhirDialect:
    """How one site fills the profiles.

    Attributes:
        newline: what stands for a line break in a valueString or conclusion.
        history: every version of a report is handed over, not only the last.
        contained: the ImagingStudy stands inside the report.
        narrative: text.div of a report: text (all of it), title, or none.
        conclusion: the report repeats its impression.
        modifier: a suspicion also has the modifier の疑い beside its verificationStatus.
        pathology: where the tissue findings are: narrative or attachment (plain text in base64).
    """

    name: str
    newline: str
    history: bool = True
    contained: bool = False
    narrative: str = "text"
    conclusion: bool = True
    modifier: bool = False
    pathology: str = "narrative"


DIALECTS = (
    FhirDialect(name="literal", newline="\\n"),
    FhirDialect(
        name="contained",
        newline="\n",
        history=False,
        contained=True,
        narrative="title",
        conclusion=False,
        modifier=True,
    ),
    FhirDialect(name="bare", newline="\r\n", narrative="none", modifier=True, pathology="attachment"),
)


def site_dialects(sites: Mapping[str, Site]) -> dict[str, FhirDialect]:
    """The dialect of each site: in the order of the ids of the sites, beginning again after the last dialect."""
    return {site: DIALECTS[index % len(DIALECTS)] for index, site in enumerate(sorted(sites))}


class FhirWriter:
    """Writes patients as NDJSON.

    `defects`: path, kind and id of what was written wrong on purpose: a report whose findings stand in the narrative
    alone, one that names no study, and a laboratory value entered in error.
    """

    def __init__(self, out: Path, sites: Mapping[str, Site], *, part: int = 0) -> None:
        self._out = out
        self._sites = sites
        self._dialects = site_dialects(sites)
        self._part = part
        self._files: dict[tuple[str, str], TextIO] = {}
        self._encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode
        self.defects: list[tuple[str, str, str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, patient: PatientFile) -> None:
        """Append the resources of one patient."""
        sites = [patient.identity.site, *(one.site for one in patient.exams), *(one.site for one in patient.records)]
        for site_id in dict.fromkeys(sites):
            for resource in self._resources(patient, self._sites[site_id], self._dialects[site_id]):
                self._file(site_id, resource["resourceType"]).write(self._encode(resource) + "\n")

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _file(self, site: str, kind: str) -> TextIO:
        file = self._files.get((site, kind))
        if file is None:
            path = self._out / site / f"{kind}-{self._part:04d}.ndjson"
            path.parent.mkdir(parents=True, exist_ok=True)
            file = self._files[site, kind] = path.open("w", encoding="utf-8", newline="\n", buffering=1 << 18)
        return file

    def _resources(self, patient: PatientFile, site: Site, dialect: FhirDialect) -> Iterator[Resource]:
        yield _patient(patient.identity, site)
        subject = _reference("Patient", f"pat-{site.id}-{patient.identity.patient_id}")
        exams = {exam.exam_id: exam for exam in patient.exams if exam.site == site.id}
        last = {report.report_id: report.version for report in patient.reports}
        for exam in exams.values():
            yield _service_request(exam, subject)
            if not dialect.contained or exam.report_id is None or _without_study(exam.report_id):
                yield _imaging_study(exam, subject)
        for report in patient.reports:
            read = exams.get(report.exam_id)
            if read is None or not (dialect.history or report.version == last[report.report_id]):
                continue
            narrative, no_study = _one_in(60, report.report_id), _without_study(report.report_id)
            if narrative:
                self._defect(site, "DiagnosticReport", "narrative_only", report.report_id)
            if no_study:
                self._defect(site, "DiagnosticReport", "study_missing", report.report_id)
            yield from _radiology(report, read, subject, dialect, narrative=narrative, study=not no_study)
        for record in patient.records:
            if record.site != site.id:
                continue
            if record.kind == "lab" and record.value and _one_in(400, record.record_id, "error"):
                self._defect(site, "Observation", "entered_in_error", record.record_id)
                yield _in_error(record, subject)
            yield _MAKERS[record.kind](record, subject, dialect)

    def _defect(self, site: Site, kind: str, what: str, id_: str) -> None:
        row = (f"{site.id}/{kind}-{self._part:04d}.ndjson", what, id_)
        if row not in self.defects[-1:]:  # a report of several versions is one
            self.defects.append(row)


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


def _coded(system: str, code: str, display: str = "") -> Resource:
    coding = {"system": system, "code": code}
    return {"coding": [coding | ({"display": display} if display else {})]}


def _quantity(value: float, unit: str) -> Resource:
    """A quantity; with UCUM where the unit has a code there."""
    made: Resource = {"value": _number(value)}
    if unit:
        made["unit"] = unit
    if unit in _UNITS:
        made |= {"system": _UCUM, "code": _UNITS[unit]}
    return made


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value


def _moment(when: datetime) -> str:
    return f"{when.isoformat(timespec='seconds')}{_ZONE}"


def _day(when: date) -> str:
    return when.isoformat()[:10]


def _staff(*names: str | None) -> list[Resource]:
    return [{"display": name} for name in names if name]


def _accession(exam: Exam) -> Resource:
    return {"type": _coded(f"{_TERMS}/v2-0203", "ACSN"), "value": exam.accession_number}


def _one_in(count: int, *ids: str) -> bool:
    """The same answer for the same ids, yes once in ``count``."""
    return zlib.crc32("/".join(ids).encode()) % count == 0


def _without_study(report_id: str) -> bool:
    """A few reports do not say which study they are about."""
    return _one_in(150, report_id, "study")


def _patient(one: Identity, site: Site) -> Resource:
    use = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"
    names = []
    for code, name in (("IDE", one.name), ("SYL", one.kana)):
        family, _, given = " ".join(name.split()).partition(" ")
        extension = {"url": use, "valueCode": code}
        names.append({"extension": [extension], "text": f"{family} {given}", "family": family, "given": [given]})
    return {
        "resourceType": "Patient",
        "id": f"pat-{site.id}-{one.patient_id}",
        "meta": {"profile": [f"{_CORE}/StructureDefinition/JP_Patient"]},
        "identifier": [{"system": f"{_PATIENT_NUMBER}1{site.insurance_number}", "value": one.patient_id}],
        "active": True,
        "name": names,
        "telecom": [{"system": "phone", "value": one.phone, "use": "home"}],
        "gender": _SEX[one.sex],
        "birthDate": _day(one.birth_date),
        "address": [{"text": one.address, "postalCode": one.postal_code, "country": "JP"}],
        "managingOrganization": {"display": site.name},
    }


# --- imaging ----------------------------------------------------------------------------------------------------------


def _service_request(exam: Exam, subject: Resource) -> Resource:
    """The order, with what the clinician wrote on it."""
    made = _head("ServiceRequest", f"ord-{exam.exam_id}", "JP_ServiceRequest_Common", exam.exam_id)
    made["identifier"] = [
        {"type": _coded(f"{_TERMS}/v2-0203", "PLAC"), "value": exam.order_number},
        _accession(exam),
    ]
    reasons = [{"text": text} for text in (exam.diagnosis, exam.indication) if text]
    made |= {
        "status": "completed",
        "intent": "order",
        "priority": "urgent" if exam.setting == "emergency" else "routine",
        "code": _concept(exam.order_name, (_SYSTEMS["JJ1017"], exam.jj1017)),
        "subject": subject,
        "occurrenceDateTime": _moment(exam.started_at),
        "requester": {"display": exam.requesting_doctor},
    }
    return made | ({"reasonCode": reasons} if reasons else {})


def _imaging_study(exam: Exam, subject: Resource) -> Resource:
    study = _head("ImagingStudy", f"img-{exam.exam_id}", "JP_ImagingStudy_Radiology", exam.exam_id)
    study["identifier"] = [
        {"system": "urn:dicom:uid", "value": f"urn:oid:{exam.study_instance_uid}"},
        _accession(exam),
    ]
    modality = {"system": _DCM, "code": exam.modality}
    return study | {
        "status": "available",
        "modality": [modality],
        "subject": subject,
        "started": _moment(exam.started_at),
        "basedOn": [_reference("ServiceRequest", f"ord-{exam.exam_id}")],
        "numberOfSeries": 1,
        "numberOfInstances": 1,
        "procedureCode": [{"text": exam.order_name}],
        "description": exam.protocol_name,
        "series": [
            {
                "uid": f"{exam.study_instance_uid}.1",
                "number": 1,
                "modality": modality,
                "numberOfInstances": 1,
                "bodySite": {"system": _DCM, "code": exam.body_part},
            }
        ],
    }


def _radiology(
    report: Report, exam: Exam, subject: Resource, dialect: FhirDialect, *, narrative: bool, study: bool
) -> Iterator[Resource]:
    """The observations of findings and impression, and the report that names them."""
    parts = (
        []
        if narrative
        else [
            ("finding", "18782-3", "Findings", report.findings_text),
            ("impression", "19005-8", "Impression", report.impression_text),
        ]
    )
    results = []
    for name, code, profile, text in parts:
        if not text:
            continue
        id_ = f"{name}-{report.report_id}-{report.version}"
        results.append(_reference("Observation", id_))
        observation = _head("Observation", id_, f"JP_Observation_Radiology_{profile}", id_)
        yield observation | {
            "status": report.status,
            "category": [_coded(f"{_TERMS}/observation-category", "imaging", "Imaging")],
            "code": _coded(_LOINC, code),
            "subject": subject,
            "effectiveDateTime": _moment(exam.started_at),
            "issued": _moment(report.confirmed_at),
            "valueString": text.replace("\n", dialect.newline),
        }
    made = _head("DiagnosticReport", f"rad-{report.report_id}", "JP_DiagnosticReport_Radiology", report.report_id)
    made["meta"] |= {"versionId": str(report.version), "lastUpdated": _moment(report.confirmed_at)}
    made |= {
        "basedOn": [_reference("ServiceRequest", f"ord-{exam.exam_id}")],
        "status": report.status,
        "category": [_coded(_LOINC, "LP29684-5", "Radiology"), _coded(_DCM, exam.modality)],
        "code": _coded(_LOINC, "18748-4", "Diagnostic imaging study"),
        "subject": subject,
        "effectiveDateTime": _moment(exam.started_at),
        "issued": _moment(report.confirmed_at),
        "performer": _staff(exam.technologist),
        "resultsInterpreter": _staff(report.reader, report.second_reader),
    }
    if study and dialect.contained:
        inside = _imaging_study(exam, subject) | {"id": "study"}
        made |= {"contained": [inside], "imagingStudy": [{"reference": "#study"}]}
    elif study:
        made["imagingStudy"] = [_reference("ImagingStudy", f"img-{exam.exam_id}")]
    if narrative or dialect.narrative == "text":
        made["text"] = {"status": "additional", "div": _narrative(report.text)}
    elif dialect.narrative == "title":
        made["text"] = {"status": "generated", "div": _narrative(f"{exam.order_name} {_day(exam.started_at)}")}
    if results:
        made["result"] = results
    if dialect.conclusion and report.impression_text and not narrative:
        made["conclusion"] = report.impression_text.replace("\n", dialect.newline)
    yield made


def _narrative(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", "<br/>")
    return f'<div xmlns="http://www.w3.org/1999/xhtml">{escaped}</div>'


# --- records ----------------------------------------------------------------------------------------------------------


def _observation(record: Record, subject: Resource, prefix: str, profile: str, category: str) -> Resource:
    made = _head("Observation", f"{prefix}-{record.record_id}", profile, record.record_id)
    system = _SYSTEMS["JLAC10" if len(record.code) == 17 else "JLAC10-5"]
    made |= {
        "status": _STATUS.get(record.certainty, "final"),
        "category": [_coded(f"{_TERMS}/observation-category", category, category.capitalize())],
        "code": _concept(record.name, (system, record.code)),
        "subject": subject,
        "effectiveDateTime": _moment(record.start_at),
        "performer": _staff(record.doctor),
    }
    if record.reported_at:
        made["issued"] = _moment(record.reported_at)
    return made


def _laboratory(record: Record, subject: Resource, _: FhirDialect) -> Resource:
    """A value; a grade of urine as 2+, zero as below what the method finds."""
    made = _observation(record, subject, "lab", "JP_Observation_LabResult", "laboratory")
    value, high = record.value, record.reference_high
    if record.code[9:12] in _MATERIALS:
        made["specimen"] = {"display": _MATERIALS[record.code[9:12]]}
    if value is None:
        made["valueString"] = record.text
    elif record.code.startswith("1A") and not record.unit and high == 0:
        made["valueCodeableConcept"] = {"text": f"{value:.0f}+" if value else "(-)"}
    elif value == 0 and high:
        smallest = 10.0 ** -max(1, len(f"{high:g}".partition(".")[2]))
        made["valueQuantity"] = _quantity(smallest, record.unit) | {"comparator": "<"}
    else:
        made["valueQuantity"] = _quantity(value, record.unit)
    if record.flag:
        made["interpretation"] = [_coded(f"{_TERMS}/v3-ObservationInterpretation", record.flag)]
    limits = {
        key: _quantity(limit, record.unit)
        for key, limit in (("low", record.reference_low), ("high", high))
        if limit is not None
    }
    if limits and "valueCodeableConcept" not in made:
        made["referenceRange"] = [limits]
    return made


def _in_error(record: Record, subject: Resource) -> Resource:
    """The value with its point in the wrong place, withdrawn."""
    made = _observation(record, subject, "lab", "JP_Observation_LabResult", "laboratory")
    assert record.value is not None
    wrong = round(record.value * 10, 4)
    made |= {"id": f"lab-{record.record_id}-1", "status": "entered-in-error"}
    return made | {"valueQuantity": _quantity(wrong, record.unit)}


def _physiology(record: Record, subject: Resource, dialect: FhirDialect) -> Resource:
    made = _observation(record, subject, "phy", "JP_Observation_Common", "procedure")
    if record.text:
        made["valueString"] = record.text.replace("\n", dialect.newline)
    measured = []
    for name, said in record.details.items():
        number, _, unit = said.partition(" ")
        value = _as_number(number)
        component: Resource = {"code": {"text": name}}
        component |= {"valueString": said} if value is None else {"valueQuantity": _quantity(value, unit)}
        measured.append(component)
    return made | ({"component": measured} if measured else {})


def _pathology(record: Record, subject: Resource, dialect: FhirDialect) -> Resource:
    made = _head("DiagnosticReport", f"pat-{record.record_id}", "JP_DiagnosticReport_Common", record.code)
    details = record.details
    text = "\n".join(filter(None, (details.get("findings"), details.get("addendum"))))
    status = {"corrected": "amended", "preliminary": "preliminary"}.get(record.certainty, "final")
    made |= {
        "status": status,
        "category": [_coded(f"{_TERMS}/v2-0074", "PAT", "Pathology"), _coded(_LOINC, "LP7839-6", "Pathology")],
        "code": _concept(record.name, (_LOINC, "11529-5")),
        "subject": subject,
        "effectiveDateTime": _moment(record.start_at),
        "resultsInterpreter": _staff(record.doctor),
        "conclusion": details.get("diagnosis", record.text).replace("\n", dialect.newline),
    }
    specimen = " ".join(filter(None, (details.get("specimen"), details.get("method"))))
    if specimen:
        made["specimen"] = [{"display": specimen}]
    if record.reported_at:
        made["issued"] = _moment(record.reported_at)
    if text and dialect.pathology == "attachment":
        content = base64.b64encode(text.encode()).decode()
        made["presentedForm"] = [{"contentType": "text/plain; charset=utf-8", "language": "ja", "data": content}]
    elif text:
        made["text"] = {"status": "additional", "div": _narrative(text)}
    return made


def _condition(record: Record, subject: Resource, dialect: FhirDialect) -> Resource:
    """A diagnosis; a suspicion is a provisional one, as JP Core asks."""
    made = _head("Condition", f"con-{record.record_id}", "JP_Condition_Diagnosis", record.record_id)
    suspected = record.certainty == "suspected"
    state = "active" if record.end_at is None else "resolved"
    codes = [(_SYSTEMS[name], record.codes.get(name, "")) for name in ("MEDIS", "exchange")]
    code = _concept(record.name, (_SYSTEMS["ICD-10"], record.code), *codes)
    if suspected and dialect.modifier:
        modifier, words = _SUSPECTED
        url = f"{_CORE}/Extension/StructureDefinition/JP_Condition_DiseasePostfixModifier"
        concept = _coded(_SYSTEMS["modifier"], modifier, words)
        code |= {"extension": [{"url": url, "valueCodeableConcept": concept}], "text": f"{record.name}{words}"}
    made |= {
        "clinicalStatus": _coded(f"{_TERMS}/condition-clinical", state),
        "verificationStatus": _coded(f"{_TERMS}/condition-ver-status", "provisional" if suspected else "confirmed"),
        "category": [_coded(f"{_TERMS}/condition-category", "encounter-diagnosis")],
        "code": code,
        "subject": subject,
        "onsetDateTime": _day(record.start_at),
        "recordedDate": _day(record.start_at),
        "asserter": {"display": record.doctor},
    }
    if record.end_at is not None:
        made["abatementDateTime"] = _day(record.end_at)
    return made


def _procedure(record: Record, subject: Resource, dialect: FhirDialect) -> Resource:
    made = _head("Procedure", f"pro-{record.record_id}", "JP_Procedure", record.record_id)
    codes = (_SYSTEMS["K"], record.code), (_SYSTEMS["receipt"], record.codes.get("receipt", ""))
    end = {"end": _moment(record.end_at)} if record.end_at else {}
    made |= {
        "status": "completed",
        "code": _concept(record.name, *codes),
        "subject": subject,
        "performedPeriod": {"start": _moment(record.start_at), **end},
        "performer": [{"actor": {"display": record.doctor}}],
    }
    site = " ".join(filter(None, (record.side, record.body_site)))
    if site:
        made["bodySite"] = [{"text": site}]
    if record.text:
        made["note"] = [{"text": record.text.replace("\n", dialect.newline)}]
    return made


def _medication(record: Record, subject: Resource, _: FhirDialect) -> Resource:
    made = _head("MedicationRequest", f"med-{record.record_id}", "JP_MedicationRequest", record.record_id)
    details = record.details
    made["identifier"] += [
        {"system": f"{_CORE}/mhlw/IdSystem/Medication-RPGroupNumber", "value": "1"},
        {"system": f"{_CORE}/mhlw/IdSystem/MedicationAdministrationIndex", "value": "1"},
    ]
    dosage: Resource = {"text": details.get("usage") or "-"}
    if details.get("route"):
        dosage["route"] = {"text": details["route"]}
    dose = _as_number(details.get("dose", ""))
    if dose is not None:
        dosage["doseAndRate"] = [{"doseQuantity": {"value": _number(dose), "unit": details.get("unit") or "-"}}]
    codes = (_SYSTEMS["YJ"], record.code), (_SYSTEMS["HOT9"], record.codes.get("HOT9", ""))
    made |= {
        "status": "completed" if record.end_at else "active",
        "intent": "order",
        "medicationCodeableConcept": _concept(record.name, *codes),
        "subject": subject,
        "authoredOn": _moment(record.start_at),
        "requester": {"display": record.doctor},
        "dosageInstruction": [dosage],
    }
    if record.end_at is not None:
        period = {"start": _day(record.start_at), "end": _day(record.end_at)}
        url = f"{_CORE}/Extension/StructureDefinition/JP_MedicationDosage_PeriodOfUse"
        dosage["timing"] = {"repeat": {"boundsPeriod": period}}
        dosage["extension"] = [{"url": url, "valuePeriod": {"start": period["start"]}}]
        days = max(1, (record.end_at.date() - record.start_at.date()).days)
        supply = {"value": days, "unit": "日", "system": _UCUM, "code": "d"}
        made["dispenseRequest"] = {"expectedSupplyDuration": supply}
    return made


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


_MAKERS: Mapping[str, Callable[[Record, Resource, FhirDialect], Resource]] = {
    "lab": _laboratory,
    "physiology": _physiology,
    "pathology": _pathology,
    "diagnosis": _condition,
    "surgery": _procedure,
    "medication": _medication,
}
