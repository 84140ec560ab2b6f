"""Laboratory, physiology, pathology, diagnoses, operations and drugs of FHIR as records."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from reportlabel.ingest import fhir_resources as piece
from reportlabel.ingest.codes import k_code, measure, narrow
from reportlabel.ingest.fhir_context import (
    CANCELLED,
    NO_SURGERY,
    NO_TEXT,
    NO_VALUE,
    NOT_DONE,
    ORPHANS,
    PARTS_MISSING,
    REFUTED,
    SOME_PARTS_MISSING,
    UNKNOWN_KINDS,
    UNKNOWN_STATUS,
    Context,
    Fault,
    Person,
)
from reportlabel.ingest.fhir_files import Found, Resource, names_of
from reportlabel.ingest.fhir_radiology import said_by
from reportlabel.ingest.fhir_resources import items, name_of, string
from reportlabel.ingest.fhir_rules import folded
from reportlabel.ingest.rows import RecordRow, Row

__all__ = ["condition", "medication", "observation", "procedure", "report"]


def report(context: Context, found: Found, resource: Resource) -> Iterator[Row]:
    """A DiagnosticReport of pathology or physiology; nothing for those whose values stand in Observations.

    Raises:
        Fault: it cannot be used.
    """
    kind = context.kind_of(resource, context.words.report_kinds)
    if kind is None:
        context.notes["report", UNKNOWN_KINDS] += 1
    if kind is None or kind == "passed_over":
        return
    person = context.subject(resource)
    if context.is_old(found, resource):
        return
    certainty = context.certainty(resource, person)
    specimens = [one for one in context.referred(resource.get("specimen"), resource) if one is not None]
    collected = next((one for one in map(_collected, specimens) if one), "")
    start = context.start(
        person, piece.start_and_end(resource, "effective")[0], collected, string(resource.get("issued"))
    )
    text = _report_text(context, resource, person)
    number = context.first_number(resource)
    body_site, side = _place(context, [_site_of_specimen(one) for one in specimens])
    if kind == "pathology":
        code_system, code = ("local" if number else None), number
        name = _name_of_tissue(context, resource, specimens)
    else:
        code_system, code, display = context.code(resource.get("code"), "physiology")
        name = name_of(resource.get("code")) or narrow(display) or None
    yield RecordRow(
        site=person.site,
        patient_id=person.patient_id,
        kind=kind,
        start_at=start,
        reported_at=context.beside(resource.get("issued")),
        code_system=code_system,
        code=code,
        name=name,
        text=text,
        certainty=certainty,
        body_site=body_site,
        side=side,
        number=number,
    )


def observation(context: Context, found: Found, resource: Resource) -> Iterator[Row]:
    """A value of the laboratory, or an examination of physiology; parts of radiology reports are read with them.

    Raises:
        Fault: it cannot be used.
    """
    kind = _kind_of_observation(context, resource)
    if kind == "part":
        names = names_of(resource, found.url)
        if not any(context.archive.is_referred(name, scope=context.scope) for name in names) and said_by(resource):
            context.notes["observation", ORPHANS] += 1
        return
    if kind is None:
        context.notes["observation", UNKNOWN_KINDS] += 1
    if kind is None or kind == "passed_over":
        return
    person = context.subject(resource)
    if context.is_old(found, resource):
        return
    certainty = context.certainty(resource, person)
    issued = string(resource.get("issued"))
    start = context.start(person, piece.start_and_end(resource, "effective")[0], issued)
    code_system, code, display = context.code(resource.get("code"), "lab" if kind == "lab" else "physiology")
    value, unit, text = _value(context, resource)
    if kind == "lab" and value is None and text is None:
        if items(resource.get("hasMember")):
            return  # a group: its members have the values
        raise Fault(NO_VALUE, person)
    yield RecordRow(
        site=person.site,
        patient_id=person.patient_id,
        kind=kind,
        start_at=start,
        reported_at=context.beside(issued),
        code_system=code_system,
        code=code,
        name=name_of(resource.get("code")) or narrow(display) or None,
        text=text,
        value=value,
        unit=unit,
        flag=_flag(context, resource),
        certainty=certainty,
        number=context.number(resource),
    )


def condition(context: Context, found: Found, resource: Resource) -> Iterator[Row]:
    """A diagnosis; the words of suspicion are in its certainty, not in its name.

    Raises:
        Fault: it cannot be used.
    """
    person = context.subject(resource)
    if context.is_old(found, resource):
        return
    certainty = _certainty_of_diagnosis(context, resource, person)
    recorded = string(resource.get("recordedDate"))
    start = context.start(person, piece.start_and_end(resource, "onset")[0], recorded, partial=True)
    known = context.beside(recorded, partial=True)
    code_system, code, display = context.code(resource.get("code"), "diagnosis")
    name = name_of(resource.get("code")) or narrow(display) or None
    for words in sorted(context.words.rules.suspected.words, key=len, reverse=True):
        if name and name != words and name.endswith(words):
            name, certainty = name.removesuffix(words).strip(), "suspected"
    place = resource.get("bodySite")
    body_site, side = _place(context, items(place))
    yield RecordRow(
        site=person.site,
        patient_id=person.patient_id,
        kind="diagnosis",
        start_at=start,
        end_at=context.beside(piece.start_and_end(resource, "abatement")[0], partial=True),
        reported_at=known if known and known.date() > start.date() else None,
        code_system=code_system,
        code=code,
        name=name,
        certainty=certainty,
        body_site=body_site,
        side=side,
        number=context.number(resource),
    )


def procedure(context: Context, found: Found, resource: Resource) -> Iterator[Row]:
    """An operation.

    Raises:
        Fault: it cannot be used.
    """
    person = context.subject(resource)
    if context.is_old(found, resource):
        return
    context.done(resource, context.words.rules.statuses.act, person)
    code_system, code, display = context.code(resource.get("code"), "surgery")
    if code and code_system == "local" and k_code(code) and code.startswith(tuple(context.words.rules.no_surgery)):
        raise Fault(NO_SURGERY, person)
    began, ended = piece.start_and_end(resource, "performed")
    start = context.start(person, began)
    body_site, side = _place(context, items(resource.get("bodySite")))
    text = "\n".join(filter(None, (piece.text(note.get("text")) for note in items(resource.get("note")))))
    yield RecordRow(
        site=person.site,
        patient_id=person.patient_id,
        kind="surgery",
        start_at=start,
        end_at=context.beside(ended),
        code_system=code_system,
        code=code,
        name=name_of(resource.get("code")) or narrow(display) or None,
        text=text or None,
        certainty="final",
        body_site=body_site,
        side=side,
        number=context.number(resource),
    )


def medication(context: Context, found: Found, resource: Resource) -> Iterator[Row]:
    """A drug that was ordered, given, handed over or taken.

    Raises:
        Fault: it cannot be used.
    """
    person = context.subject(resource)
    if context.is_old(found, resource):
        return
    rules = context.words.rules
    context.done(resource, rules.statuses.act, person)
    if string(resource.get("intent")) in rules.no_intent or resource.get("doNotPerform") is True:
        raise Fault(NOT_DONE, person)
    concept = _drug(context, resource)
    code_system, code, display = context.code(concept, "medication")
    dosage = next(iter(items(resource.get("dosageInstruction")) or items(resource.get("dosage"))), {})
    start, end = _taken(context, resource, dosage, person)
    dose = next((one.get("doseQuantity") for one in items(dosage.get("doseAndRate")) if "doseQuantity" in one), None)
    value, unit, _ = piece.quantity(dose if dose is not None else dosage.get("dose") or resource.get("quantity"))
    yield RecordRow(
        site=person.site,
        patient_id=person.patient_id,
        kind="medication",
        start_at=start,
        end_at=end,
        code_system=code_system,
        code=code,
        name=name_of(concept) or narrow(display) or None,
        value=value,
        unit=unit if value is not None else None,
        certainty="final",
        number=context.number(resource),
    )


# --- observations -----------------------------------------------------------------------------------------------------


def _kind_of_observation(context: Context, resource: Resource) -> str | None:
    """lab, physiology, part (of a radiology report), passed_over; None if nothing tells."""
    words = context.words
    codes = [coding for coding in piece.codings(resource.get("code")) if coding.code]
    categories = [coding.code for coding in piece.codings(resource.get("category"))]
    if any(coding.code in words.findings or coding.code in words.impression for coding in codes):
        return "part"
    if any(category in words.imaging for category in categories):
        return "part"
    known = next((words.observation_kinds[one] for one in categories if one in words.observation_kinds), None)
    jlac10 = next((one.code for one in codes if words.system_of.get(one.system) == "JLAC10"), None)
    if jlac10 and known in (None, "lab"):
        return "physiology" if jlac10.startswith(tuple(words.rules.observations.physiology_codes)) else "lab"
    return known


def _value(context: Context, resource: Resource) -> tuple[float | None, str | None, str | None]:
    """Value, unit and text. An inequality is in the text, and so is a grade as it was written."""
    value, unit, comparator = piece.quantity(resource.get("valueQuantity"))
    if value is not None:
        written = f"{comparator}{piece.written_number(value)}" if comparator else None
        return value, unit, written
    text = said_by(resource)
    if not text:
        concept = resource.get("valueCodeableConcept")
        text = name_of(concept) or next((one.code for one in piece.codings(concept)), "")
    for name in ("valueInteger", "valueDecimal"):
        if (found := piece.number(resource.get(name))) is not None:
            return found, None, text or None
    if not text:
        return None, None, None
    grade = context.words.grades.get(folded(text))
    if grade is not None:
        return grade, None, text
    single = measure(text) if "\n" not in text else None
    if single is not None and not single.unit and math.isfinite(single.value):
        return single.value, None, text if single.sign else None
    return None, None, text


def _flag(context: Context, resource: Resource) -> str | None:
    flags = context.words.rules.flags
    return next((flags[one.code] for one in piece.codings(resource.get("interpretation")) if one.code in flags), None)


# --- reports of tissue and of physiology ------------------------------------------------------------------------------


def _report_text(context: Context, resource: Resource, person: Person) -> str:
    missing = 0
    parts = [piece.text(resource.get("conclusion"))]
    for one in context.referred(resource.get("result"), resource):
        if one is None:
            missing += 1
        elif context.words.rules.statuses.record.get(string(one.get("status"))) != "cancelled":
            parts.append(said_by(one))
    parts += piece.attachment_texts(resource.get("presentedForm"))
    parts.append(piece.narrative_text(resource, shortest_generated=context.words.rules.shortest_generated))
    kept: list[str] = []
    for part in filter(None, parts):
        if any(piece.contains(one, part) for one in kept):
            continue
        kept = [*(one for one in kept if not piece.contains(part, one)), part]
    if not kept:
        raise Fault(PARTS_MISSING if missing else NO_TEXT, person)
    if missing:
        context.notes["report", SOME_PARTS_MISSING] += 1
    return "\n".join(kept)


def _collected(specimen: Resource) -> str:
    collection = specimen.get("collection")
    return piece.start_and_end(collection, "collected")[0] if isinstance(collection, dict) else ""


def _site_of_specimen(specimen: Resource) -> Resource:
    collection = specimen.get("collection")
    place = collection.get("bodySite") if isinstance(collection, dict) else None
    return place if isinstance(place, dict) else {}


def _name_of_tissue(context: Context, resource: Resource, specimens: list[Resource]) -> str | None:
    """What was examined: the name of the report, or the specimen where that name says nothing."""
    name = name_of(resource.get("code"))
    if name and folded(name) not in context.words.generic_names:
        return name
    named = [name_of(one.get("type")) for one in specimens]
    named += [name_of(one) for one in items(resource.get("specimen"))]
    return next(filter(None, named), name)


# --- other pieces -----------------------------------------------------------------------------------------------------


def _place(context: Context, concepts: list[Resource]) -> tuple[str | None, str | None]:
    """Part of the body and side; a side that stands before the part, divided by a space, is taken off."""
    words = context.words
    for concept in concepts:
        name = name_of(concept)
        side = piece.side_of(name or "", piece.codings(concept), words.sides, words.side_codes)
        if not name and not side:
            continue
        first, _, rest = (name or "").partition(" ")
        if side and rest and words.sides.get(folded(first)) == side:
            name = rest
        elif name and folded(name) in words.sides:
            name = None
        return name, side
    return None, None


def _certainty_of_diagnosis(context: Context, resource: Resource, person: Person) -> str:
    rules = context.words.rules
    written = next((one.code for one in piece.codings(resource.get("verificationStatus")) if one.code), "confirmed")
    certainty = rules.statuses.verification.get(written)
    if certainty is None:
        raise Fault(UNKNOWN_STATUS, person)
    if certainty in ("cancelled", "refuted"):
        raise Fault(CANCELLED if certainty == "cancelled" else REFUTED, person)
    code = resource.get("code")
    extensions = [resource.get("modifierExtension"), resource.get("extension")]
    extensions += [code.get("extension"), code.get("modifierExtension")] if isinstance(code, dict) else []
    for extension in extensions:
        for one in items(extension):
            for coding in piece.codings(one.get("valueCodeableConcept")):
                if coding.code in rules.suspected.modifiers or coding.display in rules.suspected.words:
                    return "suspected"
    return certainty


def _drug(context: Context, resource: Resource) -> Any:
    concept = resource.get("medicationCodeableConcept")
    if isinstance(concept, dict):
        return concept
    for one in context.referred(resource.get("medicationReference"), resource):
        if one is not None:
            return one.get("code")
    return resource.get("medicationReference")  # it may have words


def _taken(context: Context, resource: Resource, dosage: Resource, person: Person) -> tuple[datetime, datetime | None]:
    """From when until when. The time of the order is that of the start, if both are on one day."""
    began, ended = piece.start_and_end(resource, "effective")
    timing = dosage.get("timing")
    repeat = timing.get("repeat") if isinstance(timing, dict) else None
    bounds = repeat.get("boundsPeriod") if isinstance(repeat, dict) else None
    period = bounds if isinstance(bounds, dict) else {}
    ordered = [string(resource.get(name)) for name in ("authoredOn", "whenHandedOver", "whenPrepared", "dateAsserted")]
    start = context.start(person, began, *ordered, string(period.get("start")))
    planned = context.beside(period.get("start"))
    if planned and planned.date() != start.date():
        start = planned
    end = context.beside(ended or period.get("end"))
    if end is None:
        request = resource.get("dispenseRequest")
        lasts = request.get("expectedSupplyDuration") if isinstance(request, dict) else resource.get("daysSupply")
        end = piece.days_later(start, piece.quantity(lasts)[0])
    return start, end
