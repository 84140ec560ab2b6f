"""What the resources of one FHIR file share: whose they are, what they refer to, which version counts, their codes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

from reportlabel.ingest import fhir_resources as piece
from reportlabel.ingest.codes import (
    fee_code_system,
    icd10,
    is_damaged_number,
    jlac10_system,
    k_code,
    narrow,
    patient_number,
)
from reportlabel.ingest.dates import parse_day
from reportlabel.ingest.dpc import fee_items
from reportlabel.ingest.fhir_files import (
    BROKEN,
    NOT_FHIR,
    UNDECODABLE,
    Archive,
    Found,
    Place,
    Reading,
    Resource,
    names_of,
    plain_reference,
)
from reportlabel.ingest.fhir_resources import items, moment, string
from reportlabel.ingest.fhir_rules import FhirOptions, Kind, Words
from reportlabel.ingest.rows import Source

UNREADABLE = "The file cannot be read."
NO_TYPE = "The object has no resourceType."
NO_SUBJECT = "The resource does not say of which patient it is."
NO_PATIENT = "The Patient to which the resource refers is not in the source."
NO_NUMBER = "The Patient has no identifier that is known as the hospital's own number."
DAMAGED_PATIENT = "A spreadsheet has damaged the patient id (exponent notation or an error)."
NO_SITE = "It is not known of which hospital the resource is."
NO_STUDY = "The study has no UID, no accession number and no date."
NO_DATE = "The resource has no date."
BAD_DATE = "The date of the resource cannot be read."
NO_TEXT = "The report has no text, or one that is no text file (PDF, image)."
NO_VALUE = "The observation has no value."
PARTS_MISSING = "Observations that the report names as its text are not in the source."
UNKNOWN_STATUS = "The status of the resource is none that FHIR knows."
CANCELLED = "The resource was cancelled or entered in error."
NOT_DONE = "It was not done, or not yet."
REFUTED = "The diagnosis was refuted."
NO_SURGERY = "The procedure is no operation."
DUPLICATE = "The resource stands twice in the file."
UNKNOWN_TYPES = "Resources of types that are not known were passed over."
UNKNOWN_KINDS = "Reports and observations whose category and code tell no kind were passed over."
ORPHANS = "Findings and impressions to which no report refers were passed over."
SOME_PARTS_MISSING = "Observations that reports name are not in the source; the reports were used without them."
SEVERAL_STUDIES = "Reports name several studies; they were used for the first."
UNREAD_VALUES = "Dates or words beside the main ones could not be read; the rows were used without them."

REASONS = {
    UNREADABLE: "Copy the file again, or take it out if it is a link that leads nowhere.",
    NOT_FHIR: "Export it as NDJSON or JSON, or take it out of the folder.",
    BROKEN: "Export the resource again; in NDJSON each stands on one line. Of a broken Bundle the rest was not read.",
    UNDECODABLE: "Export the resource again as UTF-8.",
    NO_TYPE: "Take it out of the folder if it is no FHIR resource.",
    NO_SUBJECT: "Correct the resource (subject).",
    NO_PATIENT: "Export the Patient resources too, into the same source.",
    NO_NUMBER: "Name the system of the number in archive.yaml (patient_system), or say patient_id_is_resource_id.",
    DAMAGED_PATIENT: "The id cannot be restored: export the patients again, without a spreadsheet.",
    NO_SITE: "Name the hospital in archive.yaml (site).",
    NO_STUDY: "Correct the study (identifier, started).",
    NO_DATE: "Correct the resource (effective, performed, authoredOn, issued).",
    BAD_DATE: "Write dates as YYYY-MM-DD, with time and zone where they are known.",
    NO_TEXT: "Export the text of the report: result, conclusion, narrative, or an attachment of text/plain.",
    NO_VALUE: "Nothing, if the test was not done; else correct the resource.",
    PARTS_MISSING: "Export the Observations too, into the same source.",
    UNKNOWN_STATUS: "Correct the status, or add it to rules/ingest/fhir.yaml.",
    CANCELLED: "Nothing: what was cancelled is no fact.",
    NOT_DONE: "Nothing: it is no fact.",
    REFUTED: "Nothing: it is no diagnosis.",
    NO_SURGERY: "Nothing; or take its chapter out of no_surgery in rules/ingest/fhir.yaml.",
    DUPLICATE: "One was kept; take the copy out.",
    UNKNOWN_TYPES: "Nothing, if they hold no facts; add their types to rules/ingest/fhir.yaml.",
    UNKNOWN_KINDS: "Add their codes to rules/ingest/fhir.yaml (reports, observations).",
    ORPHANS: "Export the DiagnosticReports too, into the same source.",
    SOME_PARTS_MISSING: "Export the Observations too, into the same source.",
    SEVERAL_STUDIES: "Nothing, if the first is the main one; else divide the report.",
    UNREAD_VALUES: "Correct them, or add the words to rules/ingest/fhir.yaml.",
}
"""The reasons for which a resource or file is quarantined, and what mends it."""

_PEOPLE_KEPT = 20_000
_INSTITUTION_DIGITS = 10


class Person(NamedTuple):
    """Whose resource it is; ``fault``: why that is not known."""

    site: str
    patient_id: str
    sex: str | None
    birth_date: date | None
    fault: str = ""


class Fault(Exception):
    """The resource cannot be used, for a reason."""

    def __init__(self, reason: str, person: Person | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.person = person


@dataclass
class Context:
    """One file of an archive while it is read."""

    path: Path
    source: Source
    options: FhirOptions
    words: Words
    archive: Archive
    reading: Reading
    people: dict[str, Person] = field(default_factory=dict)
    notes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Kind and reason of what is counted, not shown one by one."""

    def __post_init__(self) -> None:
        self.file = self.archive.numbers[self.path]
        self.scope = self.archive.scopes[self.file]

    # --- other resources

    def resolve(self, reference: str, resource: Resource) -> Resource | None:
        """The resource that is meant, in the version that was there when the other was written."""
        if reference.startswith("#"):
            contained = items(resource.get("contained"))
            return next((one for one in contained if string(one.get("id")).lstrip("#") == reference[1:]), None)
        name = plain_reference(reference)
        places = self.archive.nearest(self.archive.candidates(name, scope=self.scope), self.path)
        versions = [(place, one) for place in places if (one := self.reading.load(place)) is not None]
        if not name.startswith("urn:"):
            kind, _, id_ = name.rpartition("/")
            versions = [
                (place, one) for place, one in versions if (one.get("resourceType"), one.get("id")) == (kind, id_)
            ]
        if len(versions) < 2:
            return versions[0][1] if versions else None
        versions.sort(key=_age_of_version)
        if wanted := reference.partition("/_history/")[2]:
            return next((one for _, one in versions if string(_meta(one).get("versionId")) == wanted), versions[-1][1])
        written = moment(_meta(resource).get("lastUpdated"))
        known = [
            one for _, one in versions if written and (moment(_meta(one).get("lastUpdated")) or written) <= written
        ]
        return known[-1] if known else versions[-1 if written is None else 0][1]

    def referred(self, value: Any, resource: Resource) -> list[Resource | None]:
        """The resources of references; None for each that is not there."""
        references = [string(one.get("reference")) for one in items(value)]
        return [self.resolve(one, resource) for one in references if one]

    def is_old(self, found: Found, resource: Resource, *, every_version: bool = False) -> bool:
        """Whether another version counts, or another copy. Of copies in one file all but one are a fault.

        ``every_version``: all versions count, and only copies do not.
        """
        name = next(iter(names_of(resource, found.url)), "")
        places = self.archive.candidates(name, scope=self.scope) if name else []
        if len(places) < 2:
            return False
        here = Place(self.file, found.offset, found.length)
        versions = [(place, one) for place in places if (one := self.reading.load(place)) is not None]
        versions.sort(key=_age_of_version)
        if every_version:
            copies = [place for place, one in versions if one == resource]
            kept = copies[0] if copies else here
        else:
            kept, newest = versions[-1] if versions else (here, resource)
            copies = [kept] if newest == resource else []
        if kept != here and copies and kept.file == here.file:
            raise Fault(DUPLICATE)
        return kept != here

    def subject(self, resource: Resource) -> Person:
        """The patient of a resource.

        Raises:
            Fault: it is not known.
        """
        subject = resource.get("subject")
        subject = subject if isinstance(subject, dict) else {}
        reference = string(subject.get("reference"))
        person = self.people.get(reference) if reference and not reference.startswith("#") else None
        if person is None:
            person = self._look_up(subject, reference, resource)
            if len(self.people) >= _PEOPLE_KEPT:
                self.people.clear()
            if reference and not reference.startswith("#"):
                self.people[reference] = person
        if person.fault:
            raise Fault(person.fault)
        return person

    def _look_up(self, subject: Resource, reference: str, resource: Resource) -> Person:
        patient = self.resolve(reference, resource) if reference else None
        if patient is not None and patient.get("resourceType") == "Patient":
            return self.person_from(patient)
        known: Resource = {"identifier": subject.get("identifier")}
        if self.options.patient_id_is_resource_id and reference and not reference.startswith(("urn:", "#")):
            known["id"] = reference.rsplit("/", 1)[-1]
        if "id" in known or known["identifier"]:
            return self.person_from(known)
        return Person("", "", None, None, NO_PATIENT if reference else NO_SUBJECT)

    def person_from(self, patient: Resource) -> Person:
        number, institution = self._patient_number(patient)
        if not number:
            return Person("", "", None, None, NO_NUMBER)
        patient_id = patient_number(number, width=self.options.patient_id_width)
        if patient_id is None:
            return Person("", "", None, None, DAMAGED_PATIENT if is_damaged_number(number) else NO_NUMBER)
        site = self._site(institution, patient)
        sex, birth = string(patient.get("gender")), string(patient.get("birthDate"))
        return Person(
            site,
            patient_id,
            self.words.rules.patient.sexes.get(sex),
            parse_day(birth),
            "" if site else NO_SITE,
        )

    def _patient_number(self, patient: Resource) -> tuple[str, str]:
        """The hospital's number of a patient, and the number of the institution where its system says it."""
        if self.options.patient_id_is_resource_id:
            return string(patient.get("id")), ""
        rules = self.words.rules.patient
        identifiers = items(patient.get("identifier"))
        known = [(string(one.get("system")), value, one) for one in identifiers if (value := string(one.get("value")))]
        if self.options.patient_system is not None:
            return next((value for system, value, _ in known if system == self.options.patient_system), ""), ""
        for system, value, _ in known:
            start = next((start for start in rules.number_systems if system.startswith(start)), None)
            if start is not None:
                rest = system[len(start) :]
                return value, rest[1:] if len(rest) == _INSTITUTION_DIGITS + 1 and rest[0] == "1" else rest
        for _, value, identifier in known:
            if any(coding.code in rules.number_types for coding in piece.codings(identifier.get("type"))):
                return value, ""
        return (known[0][1], "") if len(known) == 1 else ("", "")

    def _site(self, institution: str, patient: Resource) -> str:
        if self.source.site is not None:
            return self.source.site
        if self.options.site_of_folder and (folder := folder_of(self.path, self.source)):
            return folder
        organization = patient.get("managingOrganization")
        name = string(organization.get("display")) if isinstance(organization, dict) else ""
        sites = self.options.sites
        return sites.get(institution) or sites.get(name) or institution

    # --- what several resources have

    def status(self, resource: Resource, known: Mapping[str, str], person: Person | None = None) -> str:
        status = known.get(string(resource.get("status")))
        if status is None:
            raise Fault(UNKNOWN_STATUS, person)
        return status

    def kind_of(self, resource: Resource, kinds: Mapping[str, str]) -> str | None:
        """The kind of a report by its category, else its code; one that is of use before one that is not."""
        for concept in (resource.get("category"), resource.get("code")):
            found = [kinds[coding.code] for coding in piece.codings(concept) if coding.code in kinds]
            if found:
                return next((kind for kind in found if kind != "passed_over"), found[0])
        return None

    def certainty(self, resource: Resource, person: Person) -> str:
        """Of a record: final, preliminary or corrected.

        Raises:
            Fault: it was cancelled, or there is no result yet.
        """
        status = self.status(resource, self.words.rules.statuses.record, person)
        if status in ("cancelled", "unread"):
            raise Fault(CANCELLED if status == "cancelled" else NOT_DONE, person)
        return status

    def done(self, resource: Resource, known: Mapping[str, str], person: Person) -> None:
        """Nothing, if it was done.

        Raises:
            Fault: it was not, or it was cancelled.
        """
        status = self.status(resource, known, person)
        if status in ("cancelled", "not_done"):
            raise Fault(CANCELLED if status == "cancelled" else NOT_DONE, person)

    def start(self, person: Person, *written: str, partial: bool = False) -> datetime:
        """The first of several times that is there.

        Raises:
            Fault: there is none, or it cannot be read.
        """
        said = False
        for one in written:
            if found := moment(one, partial=partial):
                return found
            said = said or bool(one)
        raise Fault(BAD_DATE if said else NO_DATE, person)

    def beside(self, written: Any, *, partial: bool = False) -> datetime | None:
        """A time beside the main one; one that cannot be read is counted."""
        found = moment(written, partial=partial)
        if found is None and string(written):
            self.notes["resource", UNREAD_VALUES] += 1
        return found

    def number(self, resource: Resource) -> str | None:
        """A number that only this record has, else its id."""
        for identifier in items(resource.get("identifier")):
            value = string(identifier.get("value"))
            if value and string(identifier.get("system")) in self.words.rules.record_systems:
                return value
        return string(resource.get("id")) or None

    def first_number(self, resource: Resource) -> str | None:
        """The number that the department gave it, else its id."""
        types = self.words.rules.accession_types
        for identifier in items(resource.get("identifier")):
            value = string(identifier.get("value"))
            if value and not any(coding.code in types for coding in piece.codings(identifier.get("type"))):
                return value
        return string(resource.get("id")) or None

    def code(self, concept: Any, kind: Kind) -> tuple[str | None, str | None, str]:
        """System, code and display of the preferred coding of a kind; local where no system is known."""
        preferred = self.words.rules.preferred[kind]
        found = [(self.words.system_of.get(one.system), one) for one in piece.codings(concept) if one.code]
        for system in preferred:
            for known, coding in found:
                if known == system and (code := _as_written(system, coding.code)):
                    return self._name_of_system(system, code), code, coding.display
        if kind == "surgery":  # of a system that is not known, but in the form of the fee schedule
            for known, coding in found:
                if known is None and (code := k_code(coding.code, items=fee_items())):
                    return fee_code_system(code), code, coding.display
        for _, coding in found:
            return "local", narrow(coding.code), coding.display
        return None, None, ""

    @staticmethod
    def _name_of_system(system: str, code: str) -> str:
        if system == "K":
            return fee_code_system(code)
        return jlac10_system(code) if system == "JLAC10" else system


def folder_of(path: Path, source: Source) -> str | None:
    """The name of the folder below the source in which a file lies."""
    try:
        parts = path.relative_to(source.path).parts
    except ValueError:
        return None
    return parts[0] if len(parts) > 1 else None


def _as_written(system: str, code: str) -> str | None:
    """A code as the tables have it; None if it is none of the system."""
    if system == "ICD-10":
        return icd10(code)
    return k_code(code, items=fee_items()) if system == "K" else narrow(code)


def _meta(resource: Resource) -> Resource:
    meta = resource.get("meta")
    return meta if isinstance(meta, dict) else {}


def version_of(resource: Resource) -> int | None:
    """The number of the version of a resource."""
    version = string(_meta(resource).get("versionId"))
    return int(version) if version.isascii() and version.isdigit() and len(version) < 10 else None


def _age_of_version(one: tuple[Place, Resource]) -> tuple[int, datetime, Place]:
    """Versions in their order: by number, time, and place in the archive."""
    place, resource = one
    return version_of(resource) or 0, moment(_meta(resource).get("lastUpdated")) or datetime.min, place
