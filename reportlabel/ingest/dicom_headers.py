"""Exams from DICOM headers: what was scanned, when, how, with which contrast, tracer and dose. Pixels are never read.

Every file gives one PatientRow and one ExamRow; an exam is a study, so files of one study repeat it and the caller
merges them by study. Only the attributes named here are read: names, addresses, comments and descriptions of people
are never in memory.

- `started_at` is study date and time; where these are missing, those of the series, acquisition or content.
- `modality` is none for objects that are no images (dose reports, presentation states).
- `order_name` is the requested procedure as the RIS calls it, else the study description.
- A height or weight of 0 is none; a height written in centimetres is seen by its size.
- Dose comes from CT dose reports (X-Ray Radiation Dose SR, PS3.16 TID 10011). `dlp` (mGy cm) is the sum over all
  irradiation events, or the total of the report where it has no events. `ctdi_vol` (mGy) is the greatest mean CTDIvol
  of the events that are scans (no scouts, no bolus tracking). An image has a CTDIvol of its own, of its slice or
  series, which stands in the row of the image: a row with a `dlp` is the better one.

What headers do not say: department, request and reports (structured reports other than dose reports are not read); the
tracer of nuclear medicine that is sent as captures; dose of projection radiography, which has other measures. `row` of
what is quarantined is None, since a file is one thing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from datetime import date, datetime
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Field

from reportlabel.ingest.codes import files_below, measure, narrow, options_of, patient_number, shown_path, study_uid
from reportlabel.ingest.dates import age_on, is_blank, parse_age, parse_day, parse_moment
from reportlabel.ingest.rows import ExamRow, PatientRow, Quarantined, Row, Source
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.models import Strict
from reportlabel.rulebook.read_yaml import parse, read_yaml

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["REASONS", "DicomOptions", "files", "read", "recognise"]

UNREADABLE = "The file cannot be read."
NOT_DICOM = "The file is no DICOM file."
DAMAGED = "The file is a damaged or cut off DICOM file."
NO_PATIENT = "The file has no patient id, or one that cannot be decoded."
NO_STUDY = "The file has no Study Instance UID."
NO_DATE = "The study has no date."
BAD_DATE = "The date of the study cannot be read."
NO_SITE = "It is not known of which hospital the file is."

REASONS = {
    UNREADABLE: "Copy the file again, or take it out if it is a link that leads nowhere.",
    NOT_DICOM: "Take it out of the folder.",
    DAMAGED: "Send the study again from the archive.",
    NO_PATIENT: "Correct the study in the archive.",
    NO_STUDY: "Correct the study in the archive.",
    NO_DATE: "Correct the study in the archive.",
    BAD_DATE: "Correct the study in the archive.",
    NO_SITE: "Name the hospital in archive.yaml (site, or sites by issuer of patient ids or institution).",
}
"""The reasons for which a file is quarantined, and what mends it."""

_LOOKED_AT = 20
_DIRECTORY = "1.2.840.10008.1.3.10"
_MOMENTS = ("Study", "Series", "Acquisition", "Content")
_TAGS = (
    "SpecificCharacterSet",
    "SOPClassUID",
    *(f"{name}{part}" for name in _MOMENTS for part in ("Date", "Time")),
    "TimezoneOffsetFromUTC",
    "AccessionNumber",
    "Modality",
    "InstitutionName",
    "StudyDescription",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "StudyInstanceUID",
    "BodyPartExamined",
    "ProtocolName",
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
    "ContrastBolusVolume",
    "CTDIvol",
    "RequestedProcedureDescription",
    "RequestAttributesSequence",
    "RadiopharmaceuticalInformationSequence",
    "ConceptNameCodeSequence",
    "ContentSequence",
)

# Concepts of dose reports (PS3.16, TID 10011 to 10013)
_DOSE_REPORT, _ACCUMULATED, _TOTAL_DLP = "113701", "113811", "113813"
_EVENT, _ACQUISITION_TYPE, _DOSE, _CTDI, _DLP = "113819", "113820", "113829", "113830", "113838"
_VALUE_TYPE = 0x0040A040
_UNITS = {"mGy": 1.0, "mGy.cm": 1.0, "mGycm": 1.0, "mGy*cm": 1.0, "Gy.cm": 1000.0, "Gy": 1000.0}

Pair = Annotated[list[float], Field(min_length=2, max_length=2)]


class DicomRules(Strict):
    """rules/ingest/dicom.yaml."""

    no_exam: list[str]
    no_contrast: list[str]
    no_scan: list[str]
    height_m: Pair
    height_cm: Pair
    weight_kg: Pair


class DicomOptions(Strict):
    """What archive.yaml may say of a source of DICOM files.

    Attributes:
        sites: site by issuer of patient ids or name of the institution.
        site_of_folder: the site is the name of the folder below the source in which a file lies.
        patient_id_width: digits of the hospital's ids; lost zeros are put back.
    """

    sites: dict[str, str] = Field(default_factory=dict)
    site_of_folder: bool = False
    patient_id_width: Annotated[int, Field(ge=1, le=20)] | None = None


class _Dose(NamedTuple):
    ctdi_vol: float | None
    dlp: float | None


def recognise(path: Path) -> bool:
    """Whether a file, or one of the first files of a folder, has the mark of DICOM."""
    if path.is_dir():
        return any(recognise(one) for one in islice(files_below(path), _LOOKED_AT))
    try:
        with path.open("rb") as file:
            return _has_mark(file.read(140))
    except OSError:
        return False


def files(source: Source) -> Iterator[Path]:
    """All files of the source, in the order of their paths."""
    return files_below(source.path)


def read(path: Path, source: Source) -> Iterator[Row]:
    """The patient and the exam of one file; nothing for a DICOMDIR, which only lists other files."""
    from pydicom import dcmread

    options = options_of(source, DicomOptions)
    _rules()  # a wrong rule file is no damaged file
    with warnings.catch_warnings():  # they quote values
        warnings.simplefilter("ignore")
        try:
            rows = list(_rows(path, source, options, dcmread))
        except OSError:
            rows = [_quarantined(path, source, UNREADABLE)]
        except Exception:  # whatever a damaged file makes the library raise
            rows = [_quarantined(path, source, DAMAGED)]
    yield from rows


# --- a file -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _rules() -> DicomRules:
    return parse(read_yaml(rules_folder() / "ingest" / "dicom.yaml"), DicomRules)


@lru_cache(maxsize=1)
def _no_contrast() -> frozenset[str]:
    return frozenset(narrow(word).upper() for word in _rules().no_contrast)


def _has_mark(head: bytes) -> bool:
    """DICM after the preamble; a file without a preamble begins with an element of group 0008."""
    return head[128:132] == b"DICM" or (head[:2] == b"\x08\x00" and head[3:4] == b"\x00" and len(head) > 16)


def _quarantined(path: Path, source: Source, reason: str, *, patient_id: str | None = None) -> Quarantined:
    shown = shown_path(path, source, patient_id=patient_id, suspicious=patient_id is None)
    return Quarantined(shown, None, "exam", reason, REASONS[reason])


def _rows(path: Path, source: Source, options: DicomOptions, dcmread: Callable[..., Dataset]) -> Iterator[Row]:
    with path.open("rb") as file:
        head = file.read(140)
        if not _has_mark(head):
            yield _quarantined(path, source, NOT_DICOM)
            return
        file.seek(0)
        header = dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS), force=head[128:132] != b"DICM")
    meta = getattr(header, "file_meta", None)
    if _DIRECTORY in (_text(header, "SOPClassUID"), _text(meta, "MediaStorageSOPClassUID")):
        return
    patient_id = patient_number(_text(header, "PatientID") or "", width=options.patient_id_width)
    if patient_id is None:
        yield _quarantined(path, source, NO_PATIENT)
        return
    uid = study_uid(_text(header, "StudyInstanceUID"))
    started_at = _started_at(header)
    site = _site(header, path, source, options)
    if uid is None or started_at is None or site is None:
        dated = not is_blank(_text(header, "StudyDate"))
        reason = NO_STUDY if uid is None else NO_SITE if site is None else BAD_DATE if dated else NO_DATE
        yield _quarantined(path, source, reason, patient_id=patient_id)
        return
    sex = {"M": "M", "F": "F", "O": "O"}.get((_text(header, "PatientSex") or "").upper())
    birth_date = parse_day(_text(header, "PatientBirthDate"))
    if sex or birth_date:
        yield PatientRow(site, patient_id, sex, birth_date)
    dose = _dose(header)
    yield ExamRow(
        site=site,
        patient_id=patient_id,
        study_instance_uid=uid,
        accession_number=_text(header, "AccessionNumber"),
        started_at=started_at,
        modality=_modality(header),
        body_part=_upper(_text(header, "BodyPartExamined")),
        order_name=_order_name(header),
        protocol_name=_text(header, "ProtocolName"),
        contrast_agent=_contrast(header),
        contrast_ml=_positive(_text(header, "ContrastBolusVolume")),
        ctdi_vol=dose.ctdi_vol,
        dlp=dose.dlp,
        tracer=_tracer(header),
        age_years=_age(header, started_at.date(), birth_date),
        sex=sex,
        height_cm=_height(header),
        weight_kg=_weight(header),
    )


def _site(header: Dataset, path: Path, source: Source, options: DicomOptions) -> str | None:
    if source.site is not None:
        return source.site
    for name in ("IssuerOfPatientID", "InstitutionName"):
        said = _text(header, name)
        if said and said in options.sites:
            return options.sites[said]
    if options.site_of_folder:
        parts = path.relative_to(source.path).parts
        return parts[0] if len(parts) > 1 else None
    return None


# --- attributes -------------------------------------------------------------------------------------------------------


def _text(item: Any, name: str) -> str | None:
    """The first value of an attribute, in one width; None where there is none or it could not be decoded."""
    value = item.get(name) if item is not None else None
    if value is None:
        return None
    if not isinstance(value, str | bytes | int | float) and hasattr(value, "__getitem__"):
        value = next((one for one in value if str(one).strip()), "")
    text = narrow(str(value).strip(" \0"))
    return None if not text or "\ufffd" in text else text


def _first(item: Dataset, name: str) -> Dataset | None:
    """The first item of a sequence."""
    sequence = item.get(name)
    return sequence[0] if sequence else None


def _upper(text: str | None) -> str | None:
    return text.upper() if text else None


def _positive(text: str | None) -> float | None:
    found = measure(text) if text else None
    return found.value if found and found.value > 0 else None


def _started_at(header: Dataset) -> datetime | None:
    zone = _text(header, "TimezoneOffsetFromUTC") or ""
    for name in _MOMENTS:
        day, clock = _text(header, f"{name}Date"), _text(header, f"{name}Time")
        if not day:
            continue
        moment = parse_moment(day, clock=clock)
        if moment is not None:
            with_zone = parse_moment(f"{moment:%Y%m%d%H%M%S}{zone}") if zone and clock else None
            return with_zone or moment
    return None


def _modality(header: Dataset) -> str | None:
    modality = _upper(_text(header, "Modality"))
    return None if modality in _rules().no_exam else modality


def _order_name(header: Dataset) -> str | None:
    request = _first(header, "RequestAttributesSequence")
    return (
        (_text(request, "RequestedProcedureDescription") if request is not None else None)
        or _text(header, "RequestedProcedureDescription")
        or _text(header, "StudyDescription")
    )


def _contrast(header: Dataset) -> str | None:
    agent = _text(header, "ContrastBolusAgent")
    if agent is None:
        coded = _first(header, "ContrastBolusAgentSequence")
        agent = _text(coded, "CodeMeaning") if coded is not None else None
    return None if agent is None or agent.upper() in _no_contrast() else agent


def _tracer(header: Dataset) -> str | None:
    told = _first(header, "RadiopharmaceuticalInformationSequence")
    if told is None:
        return None
    coded = _first(told, "RadiopharmaceuticalCodeSequence") or _first(told, "RadionuclideCodeSequence")
    return _text(told, "Radiopharmaceutical") or (_text(coded, "CodeMeaning") if coded is not None else None)


def _age(header: Dataset, day: date, birth_date: date | None) -> int | None:
    """As the console says; 000Y of an adult means that it does not know."""
    written = _text(header, "PatientAge")
    age = None if written == "000Y" else parse_age(written)
    return age_on(day, birth_date) if age is None and birth_date else age


def _height(header: Dataset) -> float | None:
    size = _positive(_text(header, "PatientSize"))
    if size is None:
        return None
    (least, most), (least_cm, most_cm) = _rules().height_m, _rules().height_cm
    if least <= size <= most:
        return round(size * 100, 1)
    return round(size, 1) if least_cm <= size <= most_cm else None


def _weight(header: Dataset) -> float | None:
    weight = _positive(_text(header, "PatientWeight"))
    least, most = _rules().weight_kg
    return weight if weight is not None and least <= weight <= most else None


# --- dose -------------------------------------------------------------------------------------------------------------


def _dose(header: Dataset) -> _Dose:
    """Of a CT dose report, else of the image."""
    if _concept(header) != _DOSE_REPORT:
        return _Dose(_positive(_text(header, "CTDIvol")), None)
    ctdi: list[float] = []
    dlp: list[float] = []
    total: float | None = None
    for concept, item in _children(header, "CONTAINER"):
        if concept == _ACCUMULATED:
            total = _numbers(item).get(_TOTAL_DLP)
        elif concept == _EVENT:
            kinds = {_code_of(one) for kind, one in _children(item, "CODE") if kind == _ACQUISITION_TYPE}
            for part, dose in _children(item, "CONTAINER"):
                if part != _DOSE:
                    continue
                values = _numbers(dose)
                dlp += [values[_DLP]] if _DLP in values else []
                ctdi += [values[_CTDI]] if _CTDI in values and not kinds & set(_rules().no_scan) else []
    return _Dose(max(ctdi, default=None), round(sum(dlp), 3) if dlp else total)


def _children(item: Dataset, value_type: str) -> Iterator[tuple[str | None, Dataset]]:
    """The content items of a type with their concepts; others are not looked into, which takes most of the time."""
    for one in item.get("ContentSequence") or ():
        if _value_type(one) == value_type:
            yield _concept(one), one


def _value_type(item: Dataset) -> str:
    """The raw value, if it has not been converted: an element that is only compared need not be."""
    element = item.get_item(_VALUE_TYPE) if _VALUE_TYPE in item else None
    value = element.value if element is not None else b""
    return (value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)).strip()


def _concept(item: Dataset) -> str | None:
    name = _first(item, "ConceptNameCodeSequence")
    return _text(name, "CodeValue") if name is not None else None


def _code_of(item: Dataset) -> str | None:
    coded = _first(item, "ConceptCodeSequence")
    return _text(coded, "CodeValue") if coded is not None else None


def _numbers(item: Dataset) -> dict[str | None, float]:
    """The positive numbers of a container in mGy or mGy cm, by concept."""
    found: dict[str | None, float] = {}
    for concept, one in _children(item, "NUM"):
        measured = _first(one, "MeasuredValueSequence")
        if measured is None or concept not in (_TOTAL_DLP, _CTDI, _DLP):
            continue
        value = _positive(_text(measured, "NumericValue"))
        unit = _first(measured, "MeasurementUnitsCodeSequence")
        factor = _UNITS.get(_text(unit, "CodeValue") or "") if unit is not None else None
        if value is not None and factor is not None:
            found[concept] = value * factor
    return found
