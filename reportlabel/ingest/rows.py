"""What readers of hospital formats give: one small row a thing found in a file, before anything is joined.

A reader is a function ``read(path, source) -> Iterator[Row]``. It streams, drops addresses and phone numbers, and
yields a `Quarantined` for everything it cannot use; it never raises for what a file contains. Identifiers in rows are
the hospital's own: rows live in memory only, until the patients are given codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Source:
    """A folder or file of one format.

    Attributes:
        root: the archive; paths in messages are relative to it.
        site: the hospital it comes from; None: the file says it.
        options: what archive.yaml says of it beyond the format (columns, encoding).
    """

    format: str
    path: Path
    root: Path
    site: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PatientRow:
    """Age and sex of a patient; the birth date is used for the age at each exam and goes no further."""

    site: str
    patient_id: str
    sex: str | None
    birth_date: date | None


@dataclass(frozen=True, slots=True)
class ExamRow:
    """An exam as one source knows it; several sources add up to one exam.

    ``modality``: DICOM code. ``contrast_ml`` in ml, ``ctdi_vol`` in mGy, ``dlp`` in mGy cm, height in cm, weight in kg;
    a size or weight of 0 is none.
    """

    site: str
    patient_id: str
    study_instance_uid: str | None = None
    accession_number: str | None = None
    started_at: datetime | None = None
    modality: str | None = None
    body_part: str | None = None
    order_name: str | None = None
    protocol_name: str | None = None
    contrast_agent: str | None = None
    contrast_ml: float | None = None
    ctdi_vol: float | None = None
    dlp: float | None = None
    tracer: str | None = None
    age_years: int | None = None
    sex: str | None = None
    height_cm: float | None = None
    weight_kg: float | None = None


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One version of a report. ``status``: preliminary, final, amended or cancelled. ``exam_at`` is of the exam."""

    site: str
    patient_id: str
    text: str
    version: int | None = None
    status: str = "final"
    report_number: str | None = None
    study_instance_uid: str | None = None
    accession_number: str | None = None
    exam_at: datetime | None = None
    modality: str | None = None
    confirmed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RecordRow:
    """One record.

    ``kind``: pathology, lab, physiology, surgery, diagnosis or medication. ``certainty``: confirmed or suspected for
    diagnoses; final, preliminary or corrected for the others. ``number``: the hospital's own number of it, if any; rows
    with the same kind and number are versions, of which the last reported counts. ``side``: right, left or bilateral.
    """

    site: str
    patient_id: str
    kind: str
    start_at: datetime | None
    end_at: datetime | None = None
    reported_at: datetime | None = None
    code_system: str | None = None
    code: str | None = None
    name: str | None = None
    text: str | None = None
    value: float | None = None
    unit: str | None = None
    flag: str | None = None
    certainty: str | None = None
    body_site: str | None = None
    side: str | None = None
    number: str | None = None


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Something that could not be used: where it stands, why, and what to do; never what it says.

    ``path`` is relative to the archive, with identifiers of patients replaced by ``…``; ``row`` a line, message or
    segment number, None for the whole file.
    """

    path: str
    row: int | None
    kind: str
    reason: str
    remedy: str


Row = PatientRow | ExamRow | ReportRow | RecordRow | Quarantined
