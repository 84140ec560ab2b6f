"""Studies and radiology reports of FHIR as rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from reportlabel.ingest import fhir_resources as piece
from reportlabel.ingest.codes import narrow, study_uid
from reportlabel.ingest.dates import age_on
from reportlabel.ingest.fhir_context import (
    NO_STUDY,
    NO_TEXT,
    PARTS_MISSING,
    SEVERAL_STUDIES,
    SOME_PARTS_MISSING,
    Context,
    Fault,
    Person,
    version_of,
)
from reportlabel.ingest.fhir_files import Found, Resource
from reportlabel.ingest.fhir_resources import items, name_of, string
from reportlabel.ingest.fhir_rules import folded
from reportlabel.ingest.ris_csv import report_text
from reportlabel.ingest.rows import ExamRow, ReportRow, Row

__all__ = ["imaging_study", "is_radiology", "radiology", "said_by"]

_CAPITALS = re.compile(r"[A-Z][A-Z0-9_]{1,15}", re.ASCII)
_MODALITY = re.compile(r"[A-Z]{2,6}", re.ASCII)


def imaging_study(context: Context, found: Found, resource: Resource) -> Iterator[Row]:
    """The exam of an ImagingStudy; none where it was cancelled.

    Raises:
        Fault: nothing tells which exam it is.
    """
    person = context.subject(resource)
    if context.is_old(found, resource):
        return
    context.done(resource, context.words.rules.statuses.study, person)
    yield _exam(context, resource, person)


def is_radiology(context: Context, report: Resource) -> bool:
    """Whether a DiagnosticReport is one of radiology, by its category, else its code."""
    return context.kind_of(report, context.words.report_kinds) == "radiology"


def radiology(context: Context, found: Found, report: Resource) -> Iterator[Row]:
    """One version of a report, and its exam where that stands nowhere else.

    Raises:
        Fault: it cannot be used.
    """
    person = context.subject(report)
    if context.is_old(found, report, every_version=True):
        return
    status = context.status(report, context.words.rules.statuses.report, person)
    study, stands_elsewhere, uid = _study(context, report)
    order = _order(context, report)
    written = piece.start_and_end(report, "effective")[0]
    exam = _exam_of_report(context, report, study, order, person, context.beside(written), uid)
    if not stands_elsewhere and status != "cancelled":
        yield exam
    if status == "unread":
        return
    text = _text(context, report, person) if status != "cancelled" else _text_if_any(context, report, person)
    yield ReportRow(
        site=person.site,
        patient_id=person.patient_id,
        text=text,
        version=version_of(report),
        status=status,
        report_number=context.first_number(report),
        study_instance_uid=exam.study_instance_uid,
        accession_number=exam.accession_number,
        exam_at=exam.started_at,
        modality=exam.modality,
        confirmed_at=context.beside(report.get("issued")),
    )


# --- exams ------------------------------------------------------------------------------------------------------------


def _exam(context: Context, study: Resource, person: Person) -> ExamRow:
    rules = context.words.rules
    uid = _uid(context, study)
    accession = piece.identifier_of_type(study, rules.accession_types)
    order_name = name_of(study.get("procedureCode"))
    if accession is None or order_name is None:
        order = _order(context, study)
        accession = accession or piece.identifier_of_type(order, rules.accession_types)
        order_name = order_name or name_of(order.get("code"))
    started_at = context.beside(study.get("started"))
    if uid is None and accession is None and started_at is None:
        raise Fault(NO_STUDY, person)
    description = _words(study.get("description"))
    return ExamRow(
        site=person.site,
        patient_id=person.patient_id,
        study_instance_uid=uid,
        accession_number=accession,
        started_at=started_at,
        modality=_modality(context, study),
        body_part=_body_part(context, study),
        order_name=order_name or description,
        protocol_name=description if order_name else None,
        age_years=age_on(started_at.date(), person.birth_date) if started_at and person.birth_date else None,
        sex=person.sex,
    )


def _exam_of_report(
    context: Context,
    report: Resource,
    study: Resource | None,
    order: Resource,
    person: Person,
    at: datetime | None,
    uid: str | None,
) -> ExamRow:
    """The exam as the report knows it: of its study, else of its order."""
    rules = context.words.rules
    accession = piece.identifier_of_type(order, rules.accession_types)
    known = _exam(context, study, person) if study is not None else None
    started_at = known.started_at if known and known.started_at else at
    return ExamRow(
        site=person.site,
        patient_id=person.patient_id,
        study_instance_uid=known.study_instance_uid if known else uid,
        accession_number=(known.accession_number if known else None)
        or accession
        or piece.identifier_of_type(report, rules.accession_types),
        started_at=started_at,
        modality=(known.modality if known else None) or _modality_of_report(context, report),
        body_part=known.body_part if known else None,
        order_name=(known.order_name if known else None) or name_of(order.get("code")),
        protocol_name=known.protocol_name if known else None,
        age_years=age_on(started_at.date(), person.birth_date) if started_at and person.birth_date else None,
        sex=person.sex,
    )


def _study(context: Context, report: Resource) -> tuple[Resource | None, bool, str | None]:
    """The first study of a report, whether it has a row of its own, and its UID where only that is said."""
    uid = None
    named = items(report.get("imagingStudy"))
    if len(named) > 1:
        context.notes["report", SEVERAL_STUDIES] += 1
    for one in named:
        reference = string(one.get("reference"))
        study = context.resolve(reference, report) if reference else None
        if study is not None and study.get("resourceType") == "ImagingStudy":
            return study, not reference.startswith("#"), None
        identifier = one.get("identifier")
        uid = uid or (study_uid(string(identifier.get("value"))) if isinstance(identifier, dict) else None)
    return None, False, uid


def _order(context: Context, resource: Resource) -> Resource:
    """The ServiceRequest on which it is based, or nothing."""
    for order in context.referred(resource.get("basedOn"), resource):
        if order is not None and order.get("resourceType") == "ServiceRequest":
            return order
    for one in items(resource.get("basedOn")):
        if isinstance(one.get("identifier"), dict):
            return {"identifier": [one["identifier"]]}
    return {}


def _uid(context: Context, study: Resource) -> str | None:
    identifiers = items(study.get("identifier"))
    systems = context.words.rules.study_systems
    first = [one for one in identifiers if string(one.get("system")) in systems]
    for one in first or [one for one in identifiers if string(one.get("value")).startswith("urn:oid:")]:
        if found := study_uid(string(one.get("value"))):
            return found
    return None


def _words(value: Any) -> str | None:
    return " ".join(narrow(string(value)).split()) or None


def _main(context: Context, codes: list[str]) -> str | None:
    """The modality of an exam that has several: PET with CT is PET."""
    rules = context.words.rules
    codes = [code for code in codes if _MODALITY.fullmatch(code) and code not in rules.no_exam]
    return next((main for main in rules.main_modalities if main in codes), codes[0] if codes else None)


def _modality(context: Context, study: Resource) -> str | None:
    own = [coding.code for coding in piece.codings(study.get("modality"))]
    of_series = [
        coding.code for series in items(study.get("series")) for coding in piece.codings(series.get("modality"))
    ]
    return _main(context, own) or _main(context, of_series)


def _modality_of_report(context: Context, report: Resource) -> str | None:
    codes = [
        coding.code
        for coding in piece.codings(report.get("category"))
        if context.words.system_of.get(coding.system) == "DCM"
    ]
    return _main(context, codes)


def _body_part(context: Context, study: Resource) -> str | None:
    known = context.words.body_parts
    for series in items(study.get("series")):
        for coding in piece.codings(series.get("bodySite")):
            found = known.get(folded(coding.code)) or known.get(folded(coding.display))
            if found is None and _CAPITALS.fullmatch(coding.code) and coding.code.isalpha():
                found = coding.code
            if found:
                return found
    return None


# --- texts ------------------------------------------------------------------------------------------------------------


def said_by(observation: Resource) -> str:
    """The text of an Observation: its string, components and notes."""
    parts = [piece.text(observation.get("valueString")), piece.component_text(observation)]
    parts += [piece.text(note.get("text")) for note in items(observation.get("note"))]
    return "\n".join(part for part in parts if part)


def _text_if_any(context: Context, report: Resource, person: Person) -> str:
    """What a cancelled report says, if it still says anything: that it was cancelled matters."""
    try:
        return _text(context, report, person)
    except Fault:
        return ""


def _text(context: Context, report: Resource, person: Person) -> str:
    """The text of a report.

    Raises:
        Fault: there is none, or the Observations that are its text are not there.
    """
    findings, impression, missing = _parts(context, report)
    conclusion = piece.text(report.get("conclusion"))
    if conclusion and not piece.contains("\n".join([*findings, *impression]), conclusion):
        impression.append(conclusion)
    whole = "" if findings else _whole(context, report)
    if not findings and not whole and missing:
        raise Fault(PARTS_MISSING, person)
    if missing:
        context.notes["report", SOME_PARTS_MISSING] += 1
    concluded = "\n".join(impression)
    if whole:
        text = whole if piece.contains(whole, concluded) else report_text(whole, concluded)
    else:
        text = report_text("\n".join(findings), concluded)
    if not text:
        raise Fault(NO_TEXT, person)
    return text


def _parts(context: Context, report: Resource) -> tuple[list[str], list[str], int]:
    """Findings, impressions, and how many Observations are not there."""
    findings: list[str] = []
    impression: list[str] = []
    missing = 0
    for observation in context.referred(report.get("result"), report):
        if observation is None:
            missing += 1
            continue
        status = context.words.rules.statuses.record.get(string(observation.get("status")))
        said = said_by(observation)
        if said and status != "cancelled":
            codes = {coding.code for coding in piece.codings(observation.get("code"))}
            (impression if codes & context.words.impression else findings).append(said)
    return findings, impression, missing


def _whole(context: Context, report: Resource) -> str:
    """The report as one text: attachments that are text, else the narrative."""
    attached = "\n".join(piece.attachment_texts(report.get("presentedForm")))
    return attached or piece.narrative_text(report, shortest_generated=context.words.rules.shortest_generated)
