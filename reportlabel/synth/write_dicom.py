"""The synthetic hospital as DICOM files: a small study an exam, with real headers and a patterned image.

    OUT/<site>/<patient id>/<StudyInstanceUID>/<modality>000001.dcm …, SR000001.dcm

Headers hold what a modality writes and what de-identification must find: Japanese names in the character sets of each
site, people, addresses, comments, private elements, overlays, digits burned into pixels. CT, XA and RF come with an
X-Ray Radiation Dose SR (TID 10011 and 10001).

Speed: what is the same for all exams of a modality of a site is encoded once. Elements are handed to pydicom raw
(already encoded), so that it only orders and writes them; it makes the file meta information and checks it.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import unicodedata
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import pydicom.uid as uids
from pydicom import dcmwrite
from pydicom.charset import convert_encodings, default_encoding, encode_string
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import PersonName

from reportlabel.synth.patient import Exam, Identity, PatientFile, Site
from reportlabel.synth.write_ris_csv import half_width, one_in

__all__ = ["STYLES", "DicomStyle", "DicomWriter", "site_styles"]

Item = Mapping[str, Any]
"""Attributes of a data set by keyword; ``Keyword VR`` sets the VR, ``ggggeeee VR`` is a private or overlay element.

Values are strings, numbers, bytes, or lists of these; a sequence is a list of items, or of items already encoded.
"""
Elements = dict[BaseTag, DataElement | RawDataElement]

IMPLEMENTATION_UID = "1.2.392.299999.1.1"
IMPLEMENTATION_NAME = "REPORTLABEL_SYN"

_TEXT = {"SH": 16, "LO": 64, "ST": 1024, "LT": 10240, "UC": None, "UT": None}
_NUMBERS = {"US": "<H", "SS": "<h", "UL": "<L", "SL": "<l", "FL": "<f", "FD": "<d"}
_LONG = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UC", "UN", "UR", "UT"}
_ITEM = b"\xfe\xff\x00\xe0"

# Characters of names that JIS X 0208 lacks, and what consoles write instead (not what the hospital's system has).
_VARIANTS = {
    "髙": "高",
    "﨑": "崎",
    "德": "徳",
    "濵": "濱",
    "瀨": "瀬",
    "桒": "桑",
    "栁": "柳",
    "𠮷": "吉",
}

# 3 x 5 dots of the digits, for what is burned into images
_DIGITS = (
    *("111101101101111", "010110010010111", "111001111100111", "111001111001111", "101101111001001"),
    *("111100111001111", "111100111101111", "111001010010010", "111101111101111", "111101111001111"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomStyle:
    """How the machines of a site write.

    Attributes:
        charset: SpecificCharacterSet. half_kana: the first group of names is half-width katakana, not Latin.
        zero_body: an unknown height or weight is 0, not absent. nm_as_capture: nuclear medicine is sent as captures
            of the workstation's screen, without the tracer, as the whole-body scans among pydicom's files are.
        chatty: the machines also write addresses, phones, comments and history.
    """

    charset: tuple[str, ...]
    half_kana: bool = False
    zero_body: bool = False
    nm_as_capture: bool = False
    chatty: bool = False


STYLES = (
    DicomStyle(charset=("", "ISO 2022 IR 87"), chatty=True),
    DicomStyle(charset=("ISO 2022 IR 13", "ISO 2022 IR 87"), half_kana=True, zero_body=True, nm_as_capture=True),
    DicomStyle(charset=("ISO_IR 192",), zero_body=True, chatty=True),
)
_LATIN_ONLY = ("RF", "OT")
"""Modalities whose consoles know no kanji, at any site."""


def site_styles(sites: Mapping[str, Site]) -> dict[str, DicomStyle]:
    """The style of each site: in the order of the ids of the sites, beginning again after the last style."""
    return {site: STYLES[index % len(STYLES)] for index, site in enumerate(sorted(sites))}


@dataclass(frozen=True, slots=True)
class _Kind:
    """The images of one modality: SOP class, rows, columns, frames, samples a pixel, bits, and what all of them say."""

    sop_class: str
    rows: int
    columns: int
    bits: int
    attributes: Item
    frames: int = 1
    colour: bool = False
    series: str = ""


class DicomWriter:
    """Writes the studies of patients.

    ``replaced`` counts characters of names and texts that the character set of a site lacks. ``defects`` is what was
    written wrong on purpose.
    """

    def __init__(self, out: Path, sites: Mapping[str, Site], *, part: int = 0, instances: int = 1) -> None:
        """``part`` changes nothing: no file is shared by patients. ``instances``: images a series, 1 or more."""
        self._out = out
        self._sites = sites
        self._part = part
        self._styles = site_styles(sites)
        self._instances = instances
        self._templates: dict[tuple[str, ...], Elements] = {}
        self._defects: list[tuple[str, str, str]] = []
        self.replaced: dict[str, Counter[str]] = {site: Counter() for site in sites}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, patient: PatientFile) -> None:
        """Write the studies of one patient."""
        readers = {report.exam_id: report.reader for report in patient.reports}
        for exam in patient.exams:
            self._write_study(patient, exam, readers.get(exam.exam_id, ""))

    def close(self) -> None:
        """Nothing is left open between patients."""

    @property
    def defects(self) -> Sequence[tuple[str, str, str]]:
        """What was written wrong on purpose: path in the folder, kind, id of the exam."""
        return self._defects

    def _write_study(self, patient: PatientFile, exam: Exam, reader: str) -> None:
        site, style = self._sites[exam.site], self._styles[exam.site]
        folder = self._out / exam.site / patient.identity.patient_id / exam.study_instance_uid
        folder.mkdir(parents=True, exist_ok=True)
        coder = _Coder(() if exam.modality in _LATIN_ONLY else style.charset, self.replaced[exam.site])
        study = _study(patient.identity, exam, site, style, coder, reader)
        flaws = _flaws(study, patient.identity, exam)
        common = coder.elements(study)
        kind = _kind_of(exam.modality, style)
        flaws += self._write_images(folder, patient.identity, exam, kind, common, coder)
        if exam.modality in ("XA", "RF") or (exam.modality == "CT" and exam.dlp is not None):
            self._write_dose(folder, exam, common, coder)
        name = folder.relative_to(self._out).as_posix()
        self._defects += [(name, flaw, exam.exam_id) for flaw in flaws]

    def _write_images(
        self, folder: Path, person: Identity, exam: Exam, kind: _Kind, common: Elements, coder: _Coder
    ) -> list[str]:
        template = self._template(exam, kind, coder)
        series = _uid(exam.study_instance_uid, "series")
        series_item = _series(person, exam, kind) | {
            "SeriesInstanceUID": series,
            **(
                {"FrameOfReferenceUID": _uid(series, "frame")}
                if "PositionReferenceIndicator" in kind.attributes
                else {}
            ),
        }
        of_series = {**template, **common, **coder.elements(series_item)}
        burned = kind.colour and one_in(3, exam.exam_id, "burned")
        for number in range(1, self._instances + 1):
            instance = {
                "SOPInstanceUID": _uid(series, str(number)),
                "InstanceNumber": str(number),
                **_of_instance(exam, kind, number),
                **_pixel_data(person, exam, kind, number, burned=burned),
            }
            elements = {**of_series, **coder.elements(instance)}
            _save(
                folder / f"{exam.modality}{number:06d}.dcm", elements, kind.sop_class, instance["SOPInstanceUID"], coder
            )
        return ["burned_in"] if burned else []

    def _write_dose(self, folder: Path, exam: Exam, common: Elements, coder: _Coder) -> None:
        series = _uid(exam.study_instance_uid, "dose")
        instance = _uid(series, "1")
        report = _dose_header(exam, self._sites[exam.site], coder) | {
            "SOPClassUID": uids.XRayRadiationDoseSRStorage,
            "SOPInstanceUID": instance,
            "SeriesInstanceUID": series,
            **_dose_content(exam, coder),
        }
        elements = common | coder.elements(report)
        _save(folder / "SR000001.dcm", elements, uids.XRayRadiationDoseSRStorage, instance, coder)

    def _template(self, exam: Exam, kind: _Kind, coder: _Coder) -> Elements:
        key = (exam.site, exam.modality, exam.manufacturer, exam.model, exam.station)
        if key not in self._templates:
            self._templates[key] = coder.elements(_machine(exam) | _image(kind))
        return self._templates[key]


# --- encoding ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Coder:
    """Encodes values in explicit VR little endian with one character set."""

    charset: tuple[str, ...]
    lost: Counter[str]
    encodings: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.encodings = list(_encodings(self.charset))

    @property
    def kanji(self) -> bool:
        return bool(self.charset)

    def elements(self, item: Item) -> Elements:
        """The elements of a data set."""
        found: Elements = {}
        for key, value in item.items():
            tag, vr, _ = _attribute(key)
            encoded = self._encoded(vr, value)
            found[tag] = RawDataElement(tag, vr, len(encoded), encoded, 0, False, True)
        return found

    def item(self, item: Item) -> bytes:
        """An item of a sequence."""
        parts = []
        for (_, vr, head), value in sorted(((_attribute(key), value) for key, value in item.items()), key=_by_tag):
            encoded = self._encoded(vr, value)
            length = struct.pack("<2xL" if vr in _LONG else "<H", len(encoded))
            parts += [head, length, encoded]
        body = b"".join(parts)
        return _ITEM + struct.pack("<L", len(body)) + body

    def text(self, text: str) -> str:
        """The text with only such characters as the character set has; "" where it is Japanese and there is none."""
        if text.isascii() or self.charset == ("ISO_IR 192",):
            return text
        if not self.kanji:
            return ""
        try:
            text.encode("iso2022_jp")
        except UnicodeEncodeError:
            return "".join(self._character(char) for char in text)
        return text

    def _character(self, char: str) -> str:
        if _in_jis(char) or (self.charset[0].endswith("IR 13") and "\uff61" <= char <= "\uff9f"):
            return char
        same = unicodedata.normalize("NFKC", char)
        if same != char and all(_in_jis(one) for one in same):
            return same
        self.lost[char] += 1
        return _VARIANTS.get(char, "〓")

    def _encoded(self, vr: str, value: Any) -> bytes:
        if vr == "SQ":
            return b"".join(one if isinstance(one, bytes) else self.item(one) for one in value)
        if isinstance(value, bytes):
            return value + b"\0" * (len(value) % 2)
        values = value if isinstance(value, list | tuple) else [value]
        if vr in _NUMBERS:
            return b"".join(struct.pack(_NUMBERS[vr], one) for one in values)
        if vr == "AT":
            return b"".join(struct.pack("<HH", one >> 16, one & 0xFFFF) for one in values)
        if vr == "PN":
            encoded = b"\\".join(PersonName(self.text(one)).encode(self.encodings) for one in values)
        elif vr in _TEXT:
            encoded = b"\\".join(self._text(one, _TEXT[vr]) for one in values)
        else:
            encoded = "\\".join(str(one) for one in values).encode("ascii")
        return encoded + (b"\0" if vr == "UI" else b" ") * (len(encoded) % 2)

    def _text(self, text: str, most: int | None) -> bytes:
        text = self.text(text)
        if most is not None and most <= 64:
            text = text.replace("\n", " ").replace("\\", "/")
        text = text[:most]
        return text.encode("ascii") if text.isascii() else encode_string(text, self.encodings)


def _by_tag(pair: tuple[tuple[BaseTag, str, bytes], Any]) -> int:
    return pair[0][0]


@lru_cache(maxsize=16)
def _encodings(charset: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(convert_encodings(list(charset) or None))


@lru_cache(maxsize=4096)
def _attribute(key: str) -> tuple[BaseTag, str, bytes]:
    """Tag, VR, and both encoded."""
    name, _, vr = key.partition(" ")
    number = tag_for_keyword(name)
    tag = Tag(int(name, 16) if number is None else number)
    vr = vr or dictionary_VR(tag)
    return tag, vr, struct.pack("<HH", tag.group, tag.element) + vr.encode("ascii")


@lru_cache(maxsize=65536)
def _in_jis(char: str) -> bool:
    try:
        char.encode("iso2022_jp")
    except UnicodeEncodeError:
        return False
    return True


def _save(path: Path, elements: Elements, sop_class: str, instance: str, coder: _Coder) -> None:
    dataset = Dataset(elements)
    # as it will be written: so raw elements are written as they are
    dataset.set_original_encoding(False, True, coder.encodings if coder.charset else default_encoding)
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = uids.UID(sop_class)
    meta.MediaStorageSOPInstanceUID = uids.UID(instance)
    meta.TransferSyntaxUID = uids.ExplicitVRLittleEndian
    meta.ImplementationClassUID = uids.UID(IMPLEMENTATION_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_NAME
    dataset.file_meta = meta
    dcmwrite(os.fspath(path), dataset, enforce_file_format=True)


def _uid(*parts: str) -> str:
    """A UID that is always the same for the same parts (2.25, at most 44 characters)."""
    return f"2.25.{int.from_bytes(hashlib.sha256('/'.join(parts).encode()).digest()[:16], 'big')}"


# --- people, study, machine -------------------------------------------------------------------------------------------


def _patient_name(person: Identity, style: DicomStyle, coder: _Coder) -> str:
    """Latin (or half-width katakana), ideographic and phonetic group; Latin alone where the console has no kanji."""
    if not coder.kanji:
        return person.roman
    kana = _caret(person.kana)
    first = _caret(half_width(person.kana)) if style.half_kana else person.roman
    return f"{first}={_caret(person.name)}={kana}"


def _name(name: str, coder: _Coder) -> str:
    """A doctor's name; the hospital's systems know it in kanji alone."""
    return f"={_caret(name)}" if name and coder.kanji else ""


def _caret(name: str) -> str:
    return re.sub(r"[ \u3000]+", "^", name.strip())


def _study(person: Identity, exam: Exam, site: Site, style: DicomStyle, coder: _Coder, reader: str) -> dict[str, Any]:
    """What all files of a study say alike."""
    name = _patient_name(person, style, coder)
    known: dict[str, Any] = {
        "StudyDate": f"{exam.started_at:%Y%m%d}",
        "StudyTime": f"{exam.started_at:%H%M%S}",
        "AccessionNumber": exam.accession_number,
        "InstitutionName": site.name if coder.kanji else site.english,
        "ReferringPhysicianName": _name(exam.requesting_doctor, coder),
        "StudyDescription": coder.text(exam.order_name) or exam.protocol_name,
        "PatientName": name,
        "PatientID": person.patient_id,
        "PatientBirthDate": f"{person.birth_date:%Y%m%d}",
        "PatientSex": person.sex,
        "PatientAge": f"{exam.age_years:03d}Y",
        "StudyInstanceUID": exam.study_instance_uid,
        "StudyID": exam.order_number[-8:],
    }
    if coder.charset:
        known["SpecificCharacterSet"] = list(coder.charset)
    for keyword, value, scale in (("PatientSize", exam.height_cm, 0.01), ("PatientWeight", exam.weight_kg, 1.0)):
        if value is not None:
            known[keyword] = f"{value * scale:.5g}"
        elif style.zero_body:
            known[keyword] = "0"
    if coder.kanji:
        known |= {
            "InstitutionAddress": site.address,
            "InstitutionalDepartmentName": exam.department,
            "OperatorsName": _name(exam.technologist, coder),
            "RequestingPhysician": _name(exam.requesting_doctor, coder),
            "RequestingService": exam.department,
        }
    if reader and coder.kanji:
        known["NameOfPhysiciansReadingStudy"] = _name(reader, coder)
    if exam.modality == "CR":
        del known["PatientAge"]
    if style.chatty and coder.kanji:
        known |= _chatter(person, exam, site, name, coder)
    return known


def _chatter(person: Identity, exam: Exam, site: Site, name: str, coder: _Coder) -> dict[str, Any]:
    """What some consoles take over from the order, and some people type."""
    said: dict[str, Any] = {
        "IssuerOfPatientID": site.facility_code,
        "PhysiciansOfRecord": _name(exam.requesting_doctor, coder),
    }
    if exam.indication:
        said["AdditionalPatientHistory"] = exam.indication
    if one_in(4, exam.exam_id, "address"):
        said |= {"PatientAddress": person.address, "PatientTelephoneNumbers": person.phone}
    if one_in(6, exam.exam_id, "other names"):
        said |= {"OtherPatientNames": name, "OtherPatientIDs": person.patient_id.lstrip("0")}
    if one_in(6, exam.exam_id, "comments"):
        who = person.name.replace("\u3000", "")
        said |= {"PatientComments": f"{who} TEL {person.phone}", "StudyComments": f"{exam.diagnosis} {who}".strip()}
    return said


def _flaws(study: dict[str, Any], person: Identity, exam: Exam) -> list[str]:
    """Damage the header of a few studies, as it happens; the kinds of damage done."""
    flaws = []
    if one_in(60, exam.exam_id, "accession"):
        study["AccessionNumber"] = ""
        flaws.append("accession_missing")
    if person.patient_id.startswith("0") and one_in(15, exam.exam_id, "id"):
        study["PatientID"] = person.patient_id.lstrip("0")
        flaws.append("patient_id_without_zeros")
    if one_in(120, exam.exam_id, "birth"):
        study["PatientBirthDate"] = ""
        flaws.append("birth_date_missing")
    if one_in(150, exam.exam_id, "clock"):
        flaws.append("clock")
    return flaws


def _times(exam: Exam) -> Item:
    """Times of series and image; a few machines have lost their clock."""
    start = exam.started_at + timedelta(minutes=1)
    if one_in(150, exam.exam_id, "clock"):
        start = datetime(1997, 1, 1, start.hour, start.minute, start.second)
    moments = {"Series": start, "Acquisition": start + timedelta(seconds=20), "Content": start + timedelta(seconds=35)}
    return {
        f"{name}{part}": moment.strftime(form)
        for name, moment in moments.items()
        for part, form in (("Date", "%Y%m%d"), ("Time", "%H%M%S"))
    }


def _machine(exam: Exam) -> dict[str, Any]:
    serial = zlib.crc32(f"{exam.site}/{exam.station}".encode())
    return {
        "Manufacturer": exam.manufacturer,
        "ManufacturerModelName": exam.model,
        "StationName": exam.station,
        "DeviceSerialNumber": f"{serial % 10**6:06d}",
        "SoftwareVersions": f"V{serial % 7 + 1}.{serial % 10}",
    }


def _image(kind: _Kind) -> dict[str, Any]:
    """What all images of a modality say alike."""
    bits = 8 if kind.bits == 8 else 16
    known: dict[str, Any] = {
        "SOPClassUID": kind.sop_class,
        "SamplesPerPixel": 3 if kind.colour else 1,
        "PhotometricInterpretation": "RGB" if kind.colour else "MONOCHROME2",
        "Rows": kind.rows,
        "Columns": kind.columns,
        "BitsAllocated": bits,
        "BitsStored": kind.bits,
        "HighBit": kind.bits - 1,
        "PixelRepresentation": 0,
    }
    if kind.colour:
        known["PlanarConfiguration"] = 0
    if kind.frames > 1:
        known["NumberOfFrames"] = str(kind.frames)
    return known | dict(kind.attributes)


def _series(person: Identity, exam: Exam, kind: _Kind) -> dict[str, Any]:
    """What the images of a series say alike, beside `_study` and `_image`."""
    known: dict[str, Any] = {
        "Modality": exam.modality,
        **_times(exam),
        "SeriesDescription": f"{exam.protocol_name} {kind.series}".strip(),
        "ProtocolName": exam.protocol_name,
        "BodyPartExamined": re.sub(r"[^A-Z0-9_ ]", "", exam.body_part.upper())[:16],
        "SeriesNumber": "1",
        "RequestAttributesSequence": [_request(exam)],
        "PerformedProcedureStepStartDate": f"{exam.started_at:%Y%m%d}",
        "PerformedProcedureStepStartTime": f"{exam.started_at:%H%M%S}",
        **_private(person, exam),
    }
    if exam.contrast_agent:
        known |= {"ContrastBolusAgent": exam.contrast_agent, "ContrastBolusRoute": "IV"}
        if exam.contrast_ml is not None:
            known["ContrastBolusVolume"] = f"{exam.contrast_ml:g}"
    if kind.sop_class == uids.CTImageStorage and exam.ctdi_vol is not None:
        known["CTDIvol"] = exam.ctdi_vol
    if exam.modality == "DX":
        region = _REGIONS.get(exam.body_part.upper())
        known["AnatomicRegionSequence"] = [region] if region else []
    if kind.sop_class in (uids.NuclearMedicineImageStorage, uids.PositronEmissionTomographyImageStorage):
        known["RadiopharmaceuticalInformationSequence"] = [_tracer(exam)] if exam.tracer else []
    if kind.sop_class == uids.PositronEmissionTomographyImageStorage:
        known["DecayFactor"] = "1.05"
    if exam.modality in ("CR", "DX", "CT", "MR", "XA") and one_in(12, exam.exam_id, "overlay"):
        known |= _overlay(person, kind)
    return known


def _request(exam: Exam) -> Item:
    code = exam.jj1017[:16].strip()
    asked: dict[str, Any] = {
        "RequestedProcedureDescription": exam.order_name,
        "ScheduledProcedureStepDescription": exam.order_name,
        "ScheduledProcedureStepID": exam.order_number[-8:],
        "RequestedProcedureID": exam.order_number,
        "ReasonForTheRequestedProcedure": exam.indication,
    }
    if code:
        named = {"CodeValue": code, "CodingSchemeDesignator": "JJ1017-16P", "CodeMeaning": exam.protocol_name}
        asked["ScheduledProtocolCodeSequence"] = [named]
    return asked


_RADIONUCLIDES = {
    "Tc-99m": ("C-163A8", "^99m^Technetium", "21624.12"),
    "F-18": ("C-111A1", "^18^Fluorine", "6586.2"),
    "Ga-67": ("C-131A2", "^67^Gallium", "281776.32"),
    "I-123": ("C-114A4", "^123^Iodine", "47592"),
    "I-131": ("C-114B1", "^131^Iodine", "692902.08"),
    "Tl-201": ("C-138A9", "^201^Thallium", "262837.44"),
    "In-111": ("C-145A4", "^111^Indium", "242326.08"),
    "C-11": ("C-105A1", "^11^Carbon", "1223.4"),
}


def _tracer(exam: Exam) -> Item:
    """The injected dose is in MBq in nuclear medicine and in Bq in PET (PS3.3 C.8.4.10 and C.8.9.2)."""
    tracer, pet = exam.tracer or "", exam.modality == "PT"
    injected = exam.started_at - timedelta(minutes=60 if pet else 180)
    told: dict[str, Any] = {
        "Radiopharmaceutical": tracer,
        "RadiopharmaceuticalRoute": "IV",
        "RadiopharmaceuticalStartTime": f"{injected:%H%M%S}",
        "RadionuclideCodeSequence": [],
    }
    if exam.dose_mbq is not None:
        told["RadionuclideTotalDose"] = f"{exam.dose_mbq * (1e6 if pet else 1):.10g}"
    nuclide = _nuclide(tracer)
    if nuclide is not None:
        code, meaning, half_life = nuclide
        told["RadionuclideCodeSequence"] = [_code(code, "SRT", meaning)]
        told["RadionuclideHalfLife"] = half_life
    if pet:
        told["RadionuclidePositronFraction"] = "0.97"
    return told


@lru_cache(maxsize=256)
def _nuclide(tracer: str) -> tuple[str, str, str] | None:
    """Code, meaning and half-life (s) of the nuclide of Tc-99m HMDP or 99mTc-HMDP."""
    for name, known in _RADIONUCLIDES.items():
        element, mass = name.split("-")
        if re.search(rf"\b{element}-?{mass}|\b{mass}-?{element}\b", tracer):
            return known
    return None


def _private(person: Identity, exam: Exam) -> Item:
    """A private block of the maker; in a few studies it holds the patient's name, also inside a sequence."""
    group, creator = next(
        (known for maker, known in _PRIVATE.items() if maker in exam.manufacturer.upper()),
        ("0011", "SYNTH PRIVATE 1.0"),
    )
    block: dict[str, Any] = {
        f"{group}0010 LO": creator,
        f"{group}1001 LO": exam.model,
        f"{group}1002 IS": str(zlib.crc32(exam.exam_id.encode()) % 1000),
        f"{group}1003 OB": bytes(range(16)),
    }
    if one_in(5, exam.exam_id, "private"):
        block |= {
            f"{group}1010 PN": person.roman,
            f"{group}1011 LT": f"{person.name} {person.patient_id} {person.phone}",
            f"{group}1012 SQ": [
                {f"{group}0010 LO": creator, f"{group}1001 PN": person.roman, f"{group}1002 LO": person.patient_id}
            ],
        }
    return block


_PRIVATE = {
    "SIEMENS": ("0029", "SIEMENS MEDCOM HEADER"),
    "GE MEDICAL": ("0009", "GEMS_IDEN_01"),
    "CANON": ("7005", "TOSHIBA_MEC_CT3"),
    "FUJI": ("0009", "FUJI PHOTO FILM Co., ltd."),
    "PHILIPS": ("2001", "Philips Imaging DD 001"),
}


# --- images -----------------------------------------------------------------------------------------------------------


def _overlay(person: Identity, kind: _Kind) -> Item:
    """An overlay plane with the patient's number drawn into it."""
    plane = np.zeros((kind.rows, kind.columns), dtype=np.uint8)
    _draw(plane, person.patient_id, 1)
    return {
        "60000010 US": kind.rows,
        "60000011 US": kind.columns,
        "60000022 LO": f"ID {person.patient_id}",
        "60000040 CS": "G",
        "60000050 SS": [1, 1],
        "60000100 US": 1,
        "60000102 US": 0,
        "60001500 LO": "ANNOTATION",
        "60003000 OW": np.packbits(plane, bitorder="little").tobytes(),
    }


def _of_instance(exam: Exam, kind: _Kind, number: int) -> Item:
    known: dict[str, Any] = {}
    if "ImageOrientationPatient" in kind.attributes:
        known["ImagePositionPatient"] = ["-160", "-160", str(-5 * number)]
    if "ImageIndex" in kind.attributes:
        known["ImageIndex"] = number
    if exam.modality == "MG":
        known["ImageLaterality"] = "R" if number % 2 else "L"
        known["PatientOrientation"] = ["P", "FL"] if number % 2 else ["A", "FR"]
    return known


def _pixel_data(person: Identity, exam: Exam, kind: _Kind, number: int, *, burned: bool) -> Item:
    """The pattern of the modality; captures and ultrasound may have the patient's number burned in."""
    key = "PixelData OB" if kind.bits == 8 else "PixelData OW"
    if not burned:
        return {key: _pattern(kind.rows, kind.columns, kind.frames, kind.colour, kind.bits, number).tobytes()}
    pixels = _pattern(kind.rows, kind.columns, kind.frames, kind.colour, kind.bits, number).copy()
    _draw(pixels, person.patient_id, 2**kind.bits - 1)
    stated = {"BurnedInAnnotation": "YES"} if one_in(2, exam.exam_id, "stated") else {}
    return {key: pixels.tobytes(), **stated}


@lru_cache(maxsize=64)
def _pattern(rows: int, columns: int, frames: int, colour: bool, bits: int, number: int) -> np.ndarray[Any, Any]:
    """A body-like ellipse with a texture; another one for each frame and number."""
    y, x = np.mgrid[0:rows, 0:columns]
    body = ((y - rows / 2) / (rows * 0.4)) ** 2 + ((x - columns / 2) / (columns * 0.45)) ** 2 < 1
    shape = np.stack([(x * 7 + y * 13 + (number + frame) * 5) % 17 for frame in range(frames)]).astype(np.int64)
    values = np.where(body, (2**bits - 1) * (40 + 2 * shape) // 100, shape)
    typed = values.astype(np.uint8 if bits == 8 else np.dtype("<u2"))
    if colour:
        typed = np.repeat(typed[..., np.newaxis], 3, axis=-1)
    return typed


def _draw(pixels: np.ndarray[Any, Any], digits: str, value: int) -> None:
    """Draw digits into the upper left corner, four columns each, as far as they fit."""
    plane = pixels[0] if pixels.ndim > 2 else pixels
    for place, digit in enumerate(digits):
        left = 1 + 4 * place
        if digit.isdecimal() and left + 3 <= plane.shape[1]:
            dots = np.array([dot == "1" for dot in _DIGITS[int(digit)]]).reshape(5, 3)
            plane[1:6, left : left + 3][dots] = value


@lru_cache(maxsize=512)
def _code(value: str, scheme: str, meaning: str) -> bytes:
    named = {"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}
    return _Coder((), Counter()).item(named)


_PLANE: Item = {
    "PositionReferenceIndicator": "",
    "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
    "PixelSpacing": ["10", "10"],
    "SliceThickness": "5",
    "PatientPosition": "HFS",
}
_PROJECTION: Item = {"PatientOrientation": ["L", "F"]}
_DIGITAL: Item = {
    **_PROJECTION,
    "PresentationIntentType": "FOR PRESENTATION",
    "ImageType": ["ORIGINAL", "PRIMARY", ""],
    "BurnedInAnnotation": "NO",
    "PixelIntensityRelationship": "LOG",
    "PixelIntensityRelationshipSign": 1,
    "RescaleIntercept": "0",
    "RescaleSlope": "1",
    "RescaleType": "US",
    "LossyImageCompression": "00",
    "PresentationLUTShape": "IDENTITY",
    "WindowCenter": "2048",
    "WindowWidth": "4096",
    "ImagerPixelSpacing": ["0.15", "0.15"],
    "DetectorType": "DIRECT",
    "ImageLaterality": "U",
    "AcquisitionContextSequence": [],
    "KVP": "90",
}
_FLUOROSCOPY: Item = {
    "ImageType": ["ORIGINAL", "PRIMARY", "SINGLE PLANE"],
    "PixelIntensityRelationship": "LOG",
    "LossyImageCompression": "00",
    "KVP": "75",
    "XRayTubeCurrent": "400",
    "ExposureTime": "40",
    "Exposure": "16",
    "RadiationSetting": "GR",
    "PatientOrientation": [],
}
_NUCLEAR: Item = {
    "ImageType": ["ORIGINAL", "PRIMARY", "WHOLE BODY", "EMISSION"],
    "PatientOrientationCodeSequence": [
        {
            "CodeValue": "F-10450",
            "CodingSchemeDesignator": "SRT",
            "CodeMeaning": "recumbent",
            "PatientOrientationModifierCodeSequence": [_code("F-10340", "SRT", "supine")],
        }
    ],
    "PatientGantryRelationshipCodeSequence": [_code("F-10470", "SRT", "headfirst")],
}
_REGIONS = {
    "CHEST": _code("T-D3000", "SRT", "Chest"),
    "ABDOMEN": _code("T-D4000", "SRT", "Abdomen"),
    "PELVIS": _code("T-D6000", "SRT", "Pelvis"),
    "HEAD": _code("T-D1100", "SRT", "Head"),
}
_CAPTURE = _Kind(
    uids.SecondaryCaptureImageStorage,
    *(48, 48, 8),
    {"ConversionType": "WSD", "ImageType": ["DERIVED", "SECONDARY"], "PatientOrientation": []},
    colour=True,
    series="capture",
)
_NUCLEAR_CAPTURE = _Kind(
    uids.SecondaryCaptureImageStorage,
    *(64, 40, 8),
    {"ConversionType": "WSD", "ImageType": ["DERIVED", "PRIMARY", "WHOLE BODY", "EMISSION"], "PatientOrientation": []},
    colour=True,
    series="WHOLE BODY",
)

_KINDS: Mapping[str, _Kind] = {
    "CT": _Kind(
        uids.CTImageStorage,
        *(32, 32, 12),
        {
            **_PLANE,
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "KVP": "120",
            "XRayTubeCurrent": "250",
            "ExposureTime": "500",
            "ConvolutionKernel": "FC03",
            "GantryDetectorTilt": "0",
            "AcquisitionNumber": "1",
            "RescaleIntercept": "-1024",
            "RescaleSlope": "1",
            "RescaleType": "HU",
            "WindowCenter": ["40", "-600"],
            "WindowWidth": ["400", "1500"],
        },
        series="5mm",
    ),
    "MR": _Kind(
        uids.MRImageStorage,
        *(32, 32, 12),
        {
            **_PLANE,
            "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
            "ScanningSequence": "SE",
            "SequenceVariant": "SK",
            "ScanOptions": "",
            "MRAcquisitionType": "2D",
            "RepetitionTime": "4200",
            "EchoTime": "95",
            "EchoTrainLength": "13",
            "MagneticFieldStrength": "1.5",
            "FlipAngle": "150",
            "AcquisitionNumber": "1",
        },
        series="T2W TRA",
    ),
    "CR": _Kind(
        uids.ComputedRadiographyImageStorage,
        *(48, 48, 12),
        {
            **_PROJECTION,
            "ImageType": ["DERIVED", "PRIMARY"],
            "ViewPosition": "PA",
            "PhotometricInterpretation": "MONOCHROME1",
            "ImagerPixelSpacing": ["0.2", "0.2"],
            "KVP": "110",
            "PlateType": "ST",
            "CassetteOrientation": "PORTRAIT",
        },
    ),
    "DX": _Kind(uids.DigitalXRayImageStorageForPresentation, *(48, 48, 12), {**_DIGITAL, "ViewPosition": "AP"}),
    "MG": _Kind(
        uids.DigitalMammographyXRayImageStorageForPresentation,
        *(64, 48, 12),
        {
            **_DIGITAL,
            "AnatomicRegionSequence": [_code("T-04000", "SRT", "Breast")],
            "PositionerType": "MAMMOGRAPHIC",
            "OrganExposed": "BREAST",
            "CompressionForce": "110",
            "BodyPartThickness": "42",
            "KVP": "28",
            "ViewPosition": "MLO",
            "ViewCodeSequence": [
                {
                    "CodeValue": "R-10226",
                    "CodingSchemeDesignator": "SRT",
                    "CodeMeaning": "medio-lateral oblique",
                    "ViewModifierCodeSequence": [],
                }
            ],
        },
        series="MLO",
    ),
    "US": _Kind(
        uids.UltrasoundImageStorage,
        *(64, 64, 8),
        {
            "ImageType": ["ORIGINAL", "PRIMARY", "", "0001"],
            "PatientOrientation": [],
            "LossyImageCompression": "00",
            "SequenceOfUltrasoundRegions": [
                {
                    "RegionSpatialFormat": 1,
                    "RegionDataType": 1,
                    "RegionFlags": 0,
                    "RegionLocationMinX0": 0,
                    "RegionLocationMinY0": 8,
                    "RegionLocationMaxX1": 63,
                    "RegionLocationMaxY1": 63,
                    "PhysicalUnitsXDirection": 3,
                    "PhysicalUnitsYDirection": 3,
                    "PhysicalDeltaX": 0.2,
                    "PhysicalDeltaY": 0.2,
                }
            ],
            "TransducerType": "CURVED LINEAR",
        },
        colour=True,
    ),
    "XA": _Kind(
        uids.XRayAngiographicImageStorage,
        *(32, 32, 8),
        {
            **_FLUOROSCOPY,
            "PositionerMotion": "STATIC",
            "PositionerPrimaryAngle": "0",
            "PositionerSecondaryAngle": "0",
            "FrameTime": "66.7",
            "FrameIncrementPointer": 0x00181063,
            "RecommendedDisplayFrameRate": "15",
        },
        frames=4,
        series="DSA",
    ),
    "RF": _Kind(uids.XRayRadiofluoroscopicImageStorage, *(48, 48, 8), _FLUOROSCOPY),
    "NM": _Kind(
        uids.NuclearMedicineImageStorage,
        *(64, 32, 16),
        {
            **_NUCLEAR,
            "PixelSpacing": ["2.4", "2.4"],
            "CountsAccumulated": "1850000",
            "ActualFrameDuration": "900000",
            "ScanVelocity": "2.4",
            "WholeBodyTechnique": "1PS",
            "ScanLength": "1920",
            "FrameIncrementPointer": [0x00540010, 0x00540020],
            "EnergyWindowVector": [1, 1],
            "NumberOfEnergyWindows": 1,
            "DetectorVector": [1, 2],
            "NumberOfDetectors": 2,
            "PatientOrientation": [],
            "EnergyWindowInformationSequence": [
                {
                    "EnergyWindowRangeSequence": [{"EnergyWindowLowerLimit": "126", "EnergyWindowUpperLimit": "154"}],
                    "EnergyWindowName": "Tc99m",
                }
            ],
            "DetectorInformationSequence": [
                {
                    "CollimatorType": "PARA",
                    "FocalDistance": "0",
                    "ImagePositionPatient": [],
                    "ImageOrientationPatient": [],
                    "StartAngle": angle,
                    "ViewCodeSequence": [_code(code, "SRT", meaning)],
                }
                for angle, code, meaning in (
                    ("0", "R-10206", "antero-posterior"),
                    ("180", "R-10214", "postero-anterior"),
                )
            ],
        },
        frames=2,
        series="WHOLE BODY",
    ),
    "PT": _Kind(
        uids.PositronEmissionTomographyImageStorage,
        *(32, 32, 16),
        {
            **{key: value for key, value in _NUCLEAR.items() if key != "ImageType"},
            **_PLANE,
            "ImageType": ["ORIGINAL", "PRIMARY"],
            "SeriesType": ["WHOLE BODY", "IMAGE"],
            "Units": "BQML",
            "CountsSource": "EMISSION",
            "DecayCorrection": "START",
            "CorrectedImage": ["DECY", "ATTN", "SCAT", "NORM"],
            "CollimatorType": "NONE",
            "NumberOfSlices": 1,
            "ActualFrameDuration": "120000",
            "RescaleIntercept": "0",
            "RescaleSlope": "1.5",
            "FrameReferenceTime": "60000",
            "ImageIndex": 1,
        },
        series="AC",
    ),
    "OT": _CAPTURE,
}


def _kind_of(modality: str, style: DicomStyle) -> _Kind:
    if modality == "NM" and style.nm_as_capture:
        return _NUCLEAR_CAPTURE
    return _KINDS.get(modality, _CAPTURE)


# --- dose reports -----------------------------------------------------------------------------------------------------

_DCM, _UCUM, _SCT = "DCM", "UCUM", "SCT"


def _dose_header(exam: Exam, site: Site, coder: _Coder) -> dict[str, Any]:
    ended = exam.started_at + timedelta(minutes=5)
    name = _name(exam.technologist, coder)
    header = _machine(exam) | {
        "Modality": "SR",
        "SeriesDate": f"{ended:%Y%m%d}",
        "SeriesTime": f"{ended:%H%M%S}",
        "ContentDate": f"{ended:%Y%m%d}",
        "ContentTime": f"{ended:%H%M%S}",
        "SeriesNumber": "999",
        "SeriesDescription": "Dose Report",
        "InstanceNumber": "1",
        "ReferencedPerformedProcedureStepSequence": [],
        "PerformedProcedureCodeSequence": [],
        "CompletionFlag": "COMPLETE",
        "VerificationFlag": "VERIFIED" if name else "UNVERIFIED",
    }
    if name:
        header["VerifyingObserverSequence"] = [
            {
                "VerifyingOrganization": site.name,
                "VerificationDateTime": f"{ended:%Y%m%d%H%M%S}",
                "VerifyingObserverName": name,
                "VerifyingObserverIdentificationCodeSequence": [],
            }
        ]
    return header


def _dose_content(exam: Exam, coder: _Coder) -> Item:
    """The root of the content tree: CT (TID 10011), or projection (TID 10001)."""
    ct = exam.modality == "CT"
    procedure = (
        _code("77477000", _SCT, "Computed Tomography X-Ray") if ct else _code("113704", _DCM, "Projection X-Ray")
    )
    intent = _concept(
        coder, "HAS CONCEPT MOD", "CODE", ("363703001", _SCT, "Has Intent"),
        {"ConceptCodeSequence": [_code("261004008", _SCT, "Diagnostic Intent")]},
    )  # fmt: skip
    study = exam.study_instance_uid
    content = [
        _concept(
            coder, "HAS CONCEPT MOD", "CODE", ("121058", _DCM, "Procedure reported"),
            {"ConceptCodeSequence": [procedure]}, [intent],
        ),
        *_observers(exam, coder),
        _concept(
            coder, "HAS OBS CONTEXT", "CODE", ("113705", _DCM, "Scope of Accumulation"),
            {"ConceptCodeSequence": [_code("113014", _DCM, "Study")]},
            [_concept(coder, "HAS PROPERTIES", "UIDREF", ("110180", _DCM, "Study Instance UID"), {"UID": study})],
        ),
        *(_ct_dose(exam, coder) if ct else _projection_dose(exam, coder)),
        _concept(
            coder, "CONTAINS", "CODE", ("113854", _DCM, "Source of Dose Information"),
            {"ConceptCodeSequence": [_code("113856", _DCM, "Automated Data Collection")]},
        ),
    ]  # fmt: skip
    return {
        "ValueType": "CONTAINER",
        "ConceptNameCodeSequence": [_code("113701", _DCM, "X-Ray Radiation Dose Report")],
        "ContinuityOfContent": "SEPARATE",
        "ContentTemplateSequence": [{"MappingResource": "DCMR", "TemplateIdentifier": "10011" if ct else "10001"}],
        "ContentSequence": content,
    }


def _observers(exam: Exam, coder: _Coder) -> list[bytes]:
    """The radiographer, where the console can write the name, and the machine."""
    context = "HAS OBS CONTEXT"

    def kind(value: str, meaning: str) -> bytes:
        coded = {"ConceptCodeSequence": [_code(value, _DCM, meaning)]}
        return _concept(coder, context, "CODE", ("121005", _DCM, "Observer Type"), coded)

    name = _name(exam.technologist, coder)
    person = []
    if name:
        role = {"ConceptCodeSequence": [_code("113851", _DCM, "Irradiation Administering")]}
        person = [
            kind("121006", "Person"),
            _concept(coder, context, "PNAME", ("121008", _DCM, "Person Observer Name"), {"PersonName": name}),
            _concept(coder, context, "CODE", ("121011", _DCM, "Person Observer's Role in this Procedure"), role),
        ]
    machine = _uid(exam.site, exam.station, exam.model)
    told = (
        ("121013", "Device Observer Name", exam.station),
        ("121014", "Device Observer Manufacturer", exam.manufacturer),
        ("121015", "Device Observer Model Name", exam.model),
    )
    return [
        *person,
        kind("121007", "Device"),
        _concept(coder, context, "UIDREF", ("121012", _DCM, "Device Observer UID"), {"UID": machine}),
        *(
            _concept(coder, context, "TEXT", (code, _DCM, meaning), {"TextValue": text})
            for code, meaning, text in told
            if text
        ),
    ]


def _ct_dose(exam: Exam, coder: _Coder) -> list[bytes]:
    """Totals and irradiation events; a contrast exam has two events, whose dose length products make the total."""
    dlp = exam.dlp
    assert dlp is not None
    half = round(dlp / 2, 2)
    shares = [half, round(dlp - half, 2)] if exam.contrast_agent else [dlp]
    total = [
        _measured(coder, ("113812", _DCM, "Total Number of Irradiation Events"), len(shares), "{events}", "events"),
        _measured(coder, ("113813", _DCM, "CT Dose Length Product Total"), dlp, "mGy.cm", "mGy.cm"),
    ]
    events = [_ct_event(exam, coder, number, share) for number, share in enumerate(shares, start=1)]
    return [*_span(exam, coder), _container(coder, ("113811", _DCM, "CT Accumulated Dose Data"), total), *events]


def _ct_event(exam: Exam, coder: _Coder, number: int, dlp: float) -> bytes:
    def measured(code: str, meaning: str, value: float, unit: str) -> bytes:
        return _measured(coder, (code, _DCM, meaning), value, unit, unit)

    source = [
        _concept(
            coder, "CONTAINS", "TEXT", ("113832", _DCM, "Identification of the X-Ray Source"), {"TextValue": "A"}
        ),
        measured("113733", "KVP", 120, "kV"),
        measured("113833", "Maximum X-Ray Tube Current", 400, "mA"),
        measured("113734", "X-Ray Tube Current", 250, "mA"),
        measured("113834", "Exposure Time per Rotation", 0.5, "s"),
    ]  # fmt: skip
    parameters = [
        measured("113824", "Exposure Time", 6.2, "s"),
        measured("113825", "Scanning Length", round(10 * dlp / exam.ctdi_vol, 1) if exam.ctdi_vol else 300, "mm"),
        measured("113826", "Nominal Single Collimation Width", 0.5, "mm"),
        measured("113827", "Nominal Total Collimation Width", 40, "mm"),
        _measured(coder, ("113828", _DCM, "Pitch Factor"), 0.8, "{ratio}", "ratio"),
        _measured(coder, ("113823", _DCM, "Number of X-Ray Sources"), 1, "{X-Ray sources}", "X-Ray sources"),
        _container(coder, ("113831", _DCM, "CT X-Ray Source Parameters"), source),
    ]
    dose = [
        *([measured("113830", "Mean CTDIvol", exam.ctdi_vol, "mGy")] if exam.ctdi_vol is not None else []),
        _concept(
            coder, "CONTAINS", "CODE", ("113835", _DCM, "CTDIw Phantom Type"),
            {"ConceptCodeSequence": [_code("113691", _DCM, "IEC Body Dosimetry Phantom")]},
        ),
        measured("113838", "DLP", dlp, "mGy.cm"),
    ]  # fmt: skip
    event = [
        _concept(
            coder, "CONTAINS", "TEXT", ("125203", _DCM, "Acquisition Protocol"), {"TextValue": exam.protocol_name}
        ),
        _concept(
            coder, "CONTAINS", "CODE", ("113820", _DCM, "CT Acquisition Type"),
            {"ConceptCodeSequence": [_code("116152004", _SCT, "Spiral Acquisition")]},
        ),
        _concept(
            coder, "CONTAINS", "UIDREF", ("113769", _DCM, "Irradiation Event UID"),
            {"UID": _uid(exam.study_instance_uid, "event", str(number))},
        ),
        _container(coder, ("113822", _DCM, "CT Acquisition Parameters"), parameters),
        _container(coder, ("113829", _DCM, "CT Dose"), dose),
    ]  # fmt: skip
    return _container(coder, ("113819", _DCM, "CT Acquisition"), event)


def _projection_dose(exam: Exam, coder: _Coder) -> list[bytes]:
    """Dose area product, dose at the reference point and time; the hospital knows none of them, so they are drawn."""
    seed = zlib.crc32(exam.exam_id.encode())
    area = (0.0004 + seed % 997 * 0.00001) * (8 if exam.modality == "XA" else 1)
    point = round(area * 15, 5)
    seconds = 60 + seed % 1500
    single = _concept(
        coder, "CONTAINS", "CODE", ("113764", _DCM, "Acquisition Plane"),
        {"ConceptCodeSequence": [_code("113622", _DCM, "Single Plane")]},
    )  # fmt: skip
    total = [
        single,
        _measured(coder, ("113722", _DCM, "Dose Area Product Total"), round(area, 6), "Gy.m2", "Gy.m2"),
        _measured(coder, ("113725", _DCM, "Dose (RP) Total"), point, "Gy", "Gy"),
        _measured(coder, ("113730", _DCM, "Total Fluoro Time"), seconds, "s", "s"),
    ]
    event = [
        single,
        _concept(
            coder, "CONTAINS", "UIDREF", ("113769", _DCM, "Irradiation Event UID"),
            {"UID": _uid(exam.study_instance_uid, "event", "1")},
        ),
        _concept(
            coder, "CONTAINS", "DATETIME", ("111526", _DCM, "DateTime Started"),
            {"DateTime": f"{exam.started_at:%Y%m%d%H%M%S}"},
        ),
        _concept(
            coder, "CONTAINS", "CODE", ("113721", _DCM, "Irradiation Event Type"),
            {"ConceptCodeSequence": [_code("113611", _DCM, "Stationary Acquisition")]},
        ),
        _measured(coder, ("122130", _DCM, "Dose Area Product"), round(area, 6), "Gy.m2", "Gy.m2"),
        _measured(coder, ("113738", _DCM, "Dose (RP)"), point, "Gy", "Gy"),
    ]  # fmt: skip
    return [
        *_span(exam, coder),
        _container(coder, ("113702", _DCM, "Accumulated X-Ray Dose Data"), total),
        _container(coder, ("113706", _DCM, "Irradiation Event X-Ray Data"), event),
    ]


def _span(exam: Exam, coder: _Coder) -> list[bytes]:
    end = exam.started_at + timedelta(minutes=4)
    return [
        _concept(coder, "CONTAINS", "DATETIME", (code, _DCM, meaning), {"DateTime": f"{moment:%Y%m%d%H%M%S}"})
        for code, meaning, moment in (
            ("113809", "Start of X-Ray Irradiation", exam.started_at),
            ("113810", "End of X-Ray Irradiation", end),
        )
    ]


def _container(coder: _Coder, concept: tuple[str, str, str], content: Sequence[bytes]) -> bytes:
    return _concept(coder, "CONTAINS", "CONTAINER", concept, {"ContinuityOfContent": "SEPARATE"}, content)


def _measured(coder: _Coder, concept: tuple[str, str, str], value: float, unit: str, meaning: str) -> bytes:
    measured = {"MeasurementUnitsCodeSequence": [_code(unit, _UCUM, meaning)], "NumericValue": f"{value:.10g}"}
    return _concept(coder, "CONTAINS", "NUM", concept, {"MeasuredValueSequence": [measured]})


def _concept(
    coder: _Coder,
    relation: str,
    value_type: str,
    concept: tuple[str, str, str],
    value: Item,
    content: Sequence[bytes] = (),
) -> bytes:
    """A content item, encoded."""
    item = {
        "RelationshipType": relation,
        "ValueType": value_type,
        "ConceptNameCodeSequence": [_code(*concept)],
        **value,
    }
    if content:
        item["ContentSequence"] = list(content)
    return coder.item(item)
