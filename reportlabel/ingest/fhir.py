"""FHIR R4 in the shape of JP Core 1.x: NDJSON of bulk export, Bundles, folders of resources; also compressed.

What comes out
    Patient              a PatientRow
    ImagingStudy         an ExamRow
    DiagnosticReport     radiology: a ReportRow of every version, and an ExamRow where no ImagingStudy stands elsewhere;
                         pathology and physiology: a RecordRow
    Observation          laboratory and physiology: a RecordRow
    Condition, Procedure, MedicationRequest, -Administration, -Dispense, -Statement    a RecordRow

The text of a radiology report are the Observations of findings and impression that it names, each below its heading
(`ris_csv.report_text`); where no findings stand there, its narrative or an attachment that is text. A conclusion that
says more than the impression is added to it. The text of pathology is the conclusion, then its Observations, narrative
or attachment. An inequality has its number as value and the whole of it (<0.1) as text.

Resources refer to others, also in other files: those of the same source are looked up (`fhir_files.Archive`), the same
file and the nearest folder first. `depends` says on which other files the rows of a file depend. Of records that stand
there several times the last version counts, wherever it stands; an older one gives no row. A source should be one
server; where it is a folder of sites, say ``site_of_folder``.

What FHIR does not say: dose, contrast, tracer, height and weight of an exam. A diagnosis begins with its onset. The
patient's number is that of the hospital, not the id of the resource. The site is `Source.site`, else the folder, else
`sites` of archive.yaml by number or name of the institution, else that number. Names, addresses, phones and
practitioners are not read. `row` of what is quarantined is the line, or the entry of a Bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path

from reportlabel.errors import InputError
from reportlabel.ingest.codes import files_below, options_of, shown_path
from reportlabel.ingest.fhir_context import (
    NO_TYPE,
    REASONS,
    UNKNOWN_TYPES,
    UNREADABLE,
    Context,
    Fault,
    folder_of,
)
from reportlabel.ingest.fhir_files import NOT_FHIR, Archive, Found, Reading, Resource, build_archive, resources
from reportlabel.ingest.fhir_radiology import imaging_study, is_radiology, radiology
from reportlabel.ingest.fhir_records import condition, medication, observation, procedure, report
from reportlabel.ingest.fhir_resources import string
from reportlabel.ingest.fhir_rules import FhirOptions, words
from reportlabel.ingest.rows import PatientRow, Quarantined, Row, Source

__all__ = ["REASONS", "FhirOptions", "depends", "files", "read", "recognise"]

_LOOKED_AT = 20


def recognise(path: Path) -> bool:
    """Whether a file, or one of the first files of a folder, holds FHIR resources."""
    if path.is_dir():
        return any(recognise(one) for one in islice(files_below(path), _LOOKED_AT))
    try:
        return any(
            found.resource is not None and string(found.resource.get("resourceType"))[:1].isupper()
            for found in islice(resources(path), 3)
        )
    except (InputError, OSError):
        return False


def files(source: Source) -> Iterator[Path]:
    """All files of the source, sorted."""
    paths = list(files_below(source.path))
    options = options_of(source, FhirOptions)
    kept = _kept(source.path, options.site_of_folder)
    if kept and (kept[0].paths != paths or not kept[0].is_as_it_was()):
        kept.clear()
    yield from paths


def depends(path: Path, source: Source) -> list[Path]:
    """The other files of the source on which the rows of a file depend: what it refers to, and other versions."""
    archive = _archive(path, source, options_of(source, FhirOptions))
    return [archive.paths[number] for number in archive.edges.get(archive.numbers.get(path, -1), [])]


def read(path: Path, source: Source) -> Iterator[Row]:
    """The rows of one file.

    Raises:
        ConfigError: what archive.yaml says of the source makes no sense; never for what the file holds.
    """
    options = options_of(source, FhirOptions)
    archive = _archive(path, source, options)
    with Reading(archive) as reading:
        yield from _Reader(Context(path, source, options, words(), archive, reading)).rows()


@lru_cache(maxsize=4)
def _kept(root: Path, site_of_folder: bool) -> list[Archive]:  # noqa: ARG001  # the arguments are the key
    """What was last found in a source: one archive, or none yet."""
    return []


def _archive(path: Path, source: Source, options: FhirOptions) -> Archive:
    kept = _kept(source.path, options.site_of_folder)
    if not kept or not kept[0].is_current(path):
        paths = list(files_below(source.path))
        if path not in paths:
            paths.append(path)
        scopes = [folder_of(one, source) or "" if options.site_of_folder else "" for one in paths]
        kept[:] = [build_archive(paths, scopes)]
    return kept[0]


# --- one file ---------------------------------------------------------------------------------------------------------


def _patient(context: Context, found: Found, resource: Resource) -> Iterator[Row]:
    person = context.person_from(resource)
    if person.fault:
        raise Fault(person.fault)
    if not context.is_old(found, resource) and (person.sex or person.birth_date):
        yield PatientRow(person.site, person.patient_id, person.sex, person.birth_date)


def _diagnostic_report(context: Context, found: Found, resource: Resource) -> Iterator[Row]:
    make = radiology if is_radiology(context, resource) else report
    yield from make(context, found, resource)


_MAKERS: Mapping[str, Callable[[Context, Found, Resource], Iterator[Row]]] = {
    "Patient": _patient,
    "ImagingStudy": imaging_study,
    "DiagnosticReport": _diagnostic_report,
    "Observation": observation,
    "Condition": condition,
    "Procedure": procedure,
    "MedicationRequest": medication,
    "MedicationAdministration": medication,
    "MedicationDispense": medication,
    "MedicationStatement": medication,
}


class _Reader:
    """Turns one file into rows."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.path, self.source, self.words, self.notes = context.path, context.source, context.words, context.notes

    def rows(self) -> Iterator[Row]:
        last = 0
        try:
            for found in resources(self.path):
                last = found.row
                yield from self._found(found)
        except InputError:
            yield self._quarantined(None, "file", UNREADABLE)
        for (kind, reason), count in sorted(self.notes.items()):
            shown = shown_path(self.path, self.source, suspicious=last < 2)  # named after its patient, perhaps
            yield Quarantined(shown, None, kind, reason, f"{REASONS[reason]} Resources: {count}.")

    def _found(self, found: Found) -> Iterator[Row]:
        resource = found.resource
        if resource is None or found.fault:
            yield self._quarantined(found.row or None, "file" if found.fault == NOT_FHIR else "resource", found.fault)
            return
        kind = string(resource.get("resourceType"))
        make = _MAKERS.get(kind)
        if make is None:
            if not kind:
                yield self._quarantined(found.row, "resource", NO_TYPE)
            elif kind not in self.words.passed_over:
                self.notes["resource", UNKNOWN_TYPES] += 1
            return
        try:
            yield from make(self.context, found, resource)
        except Fault as fault:
            patient_id = fault.person.patient_id if fault.person else None
            yield self._quarantined(found.row, kind, fault.reason, patient_id=patient_id)

    def _quarantined(self, row: int | None, kind: str, reason: str, *, patient_id: str | None = None) -> Quarantined:
        shown = shown_path(self.path, self.source, patient_id=patient_id, suspicious=patient_id is None and row == 1)
        return Quarantined(shown, row, kind, reason, REASONS[reason])
