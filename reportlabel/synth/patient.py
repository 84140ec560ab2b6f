"""What the synthetic hospital knows of one patient: who they are, their exams, reports and records, and the truth.

One `PatientFile` is made at a time and handed to the writers; nothing is kept, so that memory does not grow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime


@dataclass(frozen=True, slots=True)
class Identity:
    """A patient as the hospital knows them; every field but sex identifies.

    Attributes:
        patient_id: as the site issues it, eight digits, leading zeros matter.
        name, kana: family and given name, one full-width space between them, in kanji and full-width katakana.
        roman: FAMILY^GIVEN, upper case.
        sex: M or F.
        postal_code: 123-4567; prefecture to street in address.
    """

    patient_id: str
    site: str
    name: str
    kana: str
    roman: str
    sex: str
    birth_date: date
    postal_code: str
    address: str
    phone: str


@dataclass(frozen=True, slots=True)
class Site:
    """A hospital of the group: facility_code has nine digits (DPC), insurance_number ten (SS-MIX2)."""

    id: str
    name: str
    english: str
    facility_code: str
    insurance_number: str
    address: str
    phone: str


@dataclass(frozen=True, slots=True)
class Exam:
    """One imaging exam.

    Attributes:
        exam_id: number of the exam in this hospital, ``E`` and ten digits.
        kind: id of the exam in the phrase bank.
        modality: DICOM code; modality_class: CT, MRI, US, XR, RF, XA, NM or OT.
        order_name: as the RIS calls it.
        started_at: local time of Japan, without a zone.
        indication: what the clinician asked; diagnosis: the clinical diagnosis on the request.
        setting: outpatient, inpatient, emergency or screening.
        contrast_ml, ctdi_vol (mGy), dlp (mGy cm), tracer, dose_mbq: None where it makes no sense.
    """

    exam_id: str
    site: str
    kind: str
    modality: str
    modality_class: str
    body_part: str
    jj1017: str
    order_name: str
    accession_number: str
    order_number: str
    study_instance_uid: str
    started_at: datetime
    protocol_name: str
    department: str
    requesting_doctor: str
    technologist: str
    manufacturer: str
    model: str
    station: str
    indication: str
    diagnosis: str
    setting: str
    age_years: int
    height_cm: float | None
    weight_kg: float | None
    contrast_agent: str | None
    contrast_ml: float | None
    ctdi_vol: float | None
    dlp: float | None
    tracer: str | None
    dose_mbq: float | None
    report_id: str | None
    """The report of the exam; None for an exam that was never read."""


@dataclass(frozen=True, slots=True)
class Report:
    """One version of a report.

    Attributes:
        version: from 1; status: preliminary, final or amended. The last version counts.
        text: as one text; the sections below are the same text cut up, for hospitals that hand over columns.
    """

    report_id: str
    exam_id: str
    version: int
    status: str
    confirmed_at: datetime
    reader: str
    second_reader: str | None
    text: str
    findings_text: str
    impression_text: str


@dataclass(frozen=True, slots=True)
class Record:
    """One linked record.

    Attributes:
        kind: pathology, lab, physiology, surgery, diagnosis or medication.
        start_at, end_at: when it was taken or held; reported_at: when it became known (None: the same moment).
        code_system: JLAC10, JLAC10-5, K, D, ICD-10, YJ, or the pathology department's (local).
        name: of the test, operation, disease, drug or specimen.
        text: diagnosis and findings of pathology, and the like.
        value, unit, reference_low, reference_high, flag (H, L or empty): laboratory.
        certainty: confirmed or suspected (diagnosis), final, preliminary or corrected (pathology, lab).
        body_site: organ in words of the phrase bank (lung, liver, …); side: right, left or None.
        codes: further codes by system (HOT9, receipt, MEDIS, exchange, panel …).
        details: what else the form has, by name: dose, unit, usage, route, specimen, method, addendum, diagnosis,
            findings, outcome.
        doctor: who ordered or signed.
    """

    record_id: str
    kind: str
    site: str
    patient_id: str
    start_at: datetime
    end_at: datetime | None
    reported_at: datetime | None
    code_system: str
    code: str
    name: str
    text: str
    value: float | None
    unit: str
    reference_low: float | None
    reference_high: float | None
    flag: str
    certainty: str
    body_site: str
    side: str | None
    doctor: str
    codes: dict[str, str] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stay:
    """A stay in hospital, for DPC. Operations of the stay are records of kind surgery inside its dates."""

    stay_id: str
    site: str
    admitted: date
    discharged: date
    department: str
    main_diagnosis: str
    """Key of the record (diagnosis) that caused it."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A wish not to take part.

    Attributes:
        scope: all_research (包括) or study (個別); study: the study it names.
        requester: patient, or the relation of who asks (spouse, parent, child, …); case: why a relative asks.
    """

    patient_id: str
    site: str
    received: date
    scope: str
    study: str | None
    requester: str
    case: str | None


@dataclass(frozen=True, slots=True)
class GoldMention:
    """A finding expression that the generator wrote into the last version of a report, offsets in `Report.text`."""

    report_id: str
    start: int
    end: int
    finding: str
    status: str
    surface: str
    state: str | None
    side: str | None
    size_mm: float | None


@dataclass(frozen=True, slots=True)
class GoldLabel:
    """One label of one exam that the report speaks of, or that is true of the patient.

    Attributes:
        value: what the report says: present, uncertain, absent, not_mentioned, or a value (size, side, T, N, M).
        truth: what is so: present or absent; None where nobody can know it from the states.
    """

    exam_id: str
    report_id: str | None
    label_set: str
    finding: str
    value: str
    truth: str | None


@dataclass(frozen=True, slots=True)
class GoldState:
    """What the patient had at an exam, whatever the report says.

    Attributes:
        reported: whether the reader saw it. known: proven by tissue before the exam.
    """

    exam_id: str
    patient_id: str
    state: str
    side: str | None
    place: str
    size_mm: float | None
    stage: str
    reported: bool
    known: bool


@dataclass(frozen=True, slots=True)
class GoldRecord:
    """What went wrong with a record: defect is late, duplicated, contradicting, or ``missing`` and its kind.

    ``about``: the record that it repeats, the state it contradicts, or the name of what is missing.
    """

    record_id: str
    defect: str
    about: str | None


@dataclass(frozen=True, slots=True)
class Canary:
    """Something that identifies and must never leave: kind is name, kana, roman, address, phone, patient_id, …"""

    kind: str
    value: str
    patient_id: str | None


@dataclass(frozen=True, slots=True)
class IdentifierSpan:
    """Where an identifier stands in the text of the last version of a report."""

    report_id: str
    start: int
    end: int
    kind: str
    surface: str


@dataclass(slots=True)
class PatientFile:
    """All of one patient, in the order in which it happened."""

    number: int
    identity: Identity
    disease: str | None = None
    exams: list[Exam] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    stays: list[Stay] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    gold_mentions: list[GoldMention] = field(default_factory=list)
    gold_labels: list[GoldLabel] = field(default_factory=list)
    gold_states: list[GoldState] = field(default_factory=list)
    gold_records: list[GoldRecord] = field(default_factory=list)
    canaries: list[Canary] = field(default_factory=list)
    identifier_spans: list[IdentifierSpan] = field(default_factory=list)
