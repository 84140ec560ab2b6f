"""The synthetic hospital as SS-MIX2 storages: HL7 2.5 messages in the standardised one, documents in the extended one.

    OUT/<site>/standard/<id 1-3>/<id 4-6>/<id>/<day or ->/<type>/<file>
    OUT/<site>/extended/<id 1-3>/<id 4-6>/<id>/<day>/<local^name^system^LOINC^name^LN>/<folder>/<document>

A file is called ``ID_day_type_order(15)_timestamp(17)_department_flag``, and so is the folder of a document, with its
local code for the type (SS-MIX2 Ver. 1.2, storage specification). Messages are ISO-2022-JP and their segments end
with CR alone. The standardised storage holds patients, orders and what was done (OMG-01, OMG-11 with the study's
UID), results of laboratory and physiology, drugs and diagnoses; never a report, never an operation. Those are
documents of the extended storage.

Each site has one dialect; see `DIALECTS`.
"""

from __future__ import annotations

import os
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Self

from reportlabel.synth.patient import Exam, Identity, PatientFile, Record, Report, Site

__all__ = ["DIALECTS", "Dialect", "SsMix2Writer", "site_dialects"]

Segments = list[str]

_PATIENT_LEVEL = "-"
_NO_ORDER = "9" * 15
_VALID, _DELETED, _NOT_DONE = "1", "0", "2"
_VERSION = "SS-MIX2_1.20^SS-MIX2^1.2.392.200250.2.1.100.1.2.120^ISO"
_RENEWED_AFTER = 84
"""Days for which a prescription is written; who takes a drug for longer gets the next one."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How one site fills its storages.

    Attributes:
        character_set, scheme: MSH-18 and MSH-20, which vendors write in two ways each.
        fraction: MSH-7 has four digits after the second. end: what follows the last segment.
        id_type: PID-3 says PI after the number.
        gaiji: what stands for a character that JIS X 0208 lacks. fold: first try compatible characters, ① as (1).
        superseded: condition flag of a file that a newer one replaces; some sites leave it at 1.
        birth_in_9: physiology messages have the birth date in PID-9, and PID-7 empty.
        short_jj1017: the code of what was done has 15 characters.
        contrast: where contrast medium and tracer are: ZE2 of OMG-11, or a file of type OMP-11 or OMP-12.
        next_of_kin: ADT-00 has NK1.
        documents: cda (sections), whole (CDA with one section) or text (cp932).
    """

    name: str
    character_set: str
    scheme: str
    fraction: bool = False
    end: bytes = b""
    id_type: bool = True
    gaiji: str = "〓"
    fold: bool = False
    superseded: str = _DELETED
    birth_in_9: bool = False
    short_jj1017: bool = False
    contrast: str = "OMP-12"
    next_of_kin: bool = False
    documents: str = "cda"


DIALECTS = (
    Dialect(
        name="sections",
        character_set="~ISO IR87",
        scheme="ISO 2022-1994",
        fraction=True,
        end=b"\x1c",
        id_type=False,
        birth_in_9=True,
        next_of_kin=True,
        contrast="ZE2",
    ),
    Dialect(
        name="plain",
        character_set="~ISOIR87",
        scheme="ISO2022-1994",
        gaiji="■",
        fold=True,
        superseded=_NOT_DONE,
        short_jj1017=True,
        documents="text",
    ),
    Dialect(
        name="whole",
        character_set="~ISO IR87",
        scheme="ISO2022-1994",
        gaiji="■",
        superseded=_VALID,
        contrast="OMP-11",
        documents="whole",
    ),
)


def site_dialects(sites: Mapping[str, Site]) -> dict[str, Dialect]:
    """The dialect of each site: in the order of the ids of the sites, beginning again after the last dialect."""
    return {site: DIALECTS[index % len(DIALECTS)] for index, site in enumerate(sorted(sites))}


class SsMix2Writer:
    """Writes the storages, one tree a site.

    `defects` are the files that were written wrong on purpose, or that lost characters: path, kind, id.
    """

    def __init__(self, out: Path, sites: Mapping[str, Site], *, part: int = 0) -> None:  # noqa: ARG002 - no shared file
        self._out = str(out)
        self._sites = sites
        self._dialects = site_dialects(sites)
        self._made: set[str] = set()
        self.defects: list[tuple[str, str, str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, patient: PatientFile) -> None:
        """Write all files of one patient."""
        self._made.clear()
        departments = _Departments(patient.exams)
        for site_id in _sites_of(patient):
            scene = _Scene(patient, self._sites[site_id], self._dialects[site_id], departments)
            for message in _messages(scene):
                self._store(scene, message)
            for document in _documents(scene):
                self._file_away(scene, document)

    def close(self) -> None:
        """Nothing stays open."""

    def _store(self, scene: _Scene, message: _Message) -> None:
        """One file of the standardised storage."""
        patient_id = scene.patient.identity.patient_id
        name = message.file_name(patient_id)
        folder = (
            f"{scene.site.id}/standard/{patient_id[:3]}/{patient_id[3:6]}/{patient_id}/{message.day}/{message.type}"
        )
        path = f"{folder}/{name}"
        said_id = patient_id
        if _one_in(500, path, "pid"):
            said_id = _mistyped(patient_id)
            self.defects.append((path, "patient_id_differs", message.about))
        segments = [_head(scene, message), *_patient_segments(scene, message, said_id), *message.segments]
        content, lost = _encoded("\r".join(segments) + "\r", scene.dialect)
        if lost and message.has_text:
            self.defects.append((path, "character_lost", message.about))
        if message.type.startswith("OMP-1") and _one_in(40, path, "bare"):
            content += b"OBX\r"  # as in the samples: a segment without fields at the end
        self._save(folder, name, content + scene.dialect.end)

    def _file_away(self, scene: _Scene, document: _Document) -> None:
        """One document of the extended storage, in a folder of its own."""
        patient_id = scene.patient.identity.patient_id
        name = document.file_name(patient_id)
        day = f"{document.day:%Y%m%d}"
        folder = (
            f"{scene.site.id}/extended/{patient_id[:3]}/{patient_id[3:6]}/{patient_id}/{day}/{document.form.folder}"
        )
        folder = f"{folder}/{name}"
        if scene.dialect.documents == "text":
            content, lost = _as_cp932(_plain_document(scene, document))
            file = f"{name}.txt"
            if lost:
                self.defects.append((f"{folder}/{file}", "character_lost", document.about))
        else:
            content = _cda(scene, document).encode("utf-8")
            file = f"{name}.xml"
        self._save(folder, file, content)

    def _save(self, folder: str, name: str, content: bytes) -> None:
        where = f"{self._out}/{folder}"
        if folder not in self._made:
            os.makedirs(where, exist_ok=True)
            self._made.add(folder)
        with open(f"{where}/{name}", "wb", buffering=0) as file:
            file.write(content)


# --- what a message and a document are --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Message:
    """One message, without its head and the patient.

    Attributes:
        day: of the folder; order, at, department and flag make the name of the file.
        event: MSH-9. about: id of what it is about.
        address, phone: the PID has them. visit: PV1, if the message has one.
        has_text: holds free text, of which no character may be lost unnoticed.
    """

    type: str
    event: str
    day: str
    order: str
    at: datetime
    department: str
    flag: str
    segments: Segments
    about: str
    address: bool = False
    phone: bool = False
    visit: str = ""
    has_text: bool = False

    def file_name(self, patient_id: str) -> str:
        """ID_day_type_order_timestamp_department_flag."""
        stamp = f"{_stamp(self.at)}{zlib.crc32(f'{self.type}{self.order}'.encode()) % 1000:03d}"
        return f"{patient_id}_{self.day}_{self.type}_{self.order}_{stamp}_{self.department or '-'}_{self.flag}"


@dataclass(frozen=True, slots=True)
class _Form:
    """A kind of document: local code and name, LOINC and its name, title."""

    local: str
    local_name: str
    loinc: str
    loinc_name: str

    @property
    def folder(self) -> str:
        """Name of the folder of the data type."""
        return f"{self.local}^{self.local_name}^L^{self.loinc}^{self.loinc_name}^LN"


_RADIOLOGY = _Form("RAD01", "画像診断報告書", "18748-4", "画像検査報告書")
_PATHOLOGY = _Form("PAT01", "病理組織検査報告書", "11529-5", "病理検査報告書")
_OPERATION = _Form("OPE01", "手術記録", "11504-8", "手術記録")


@dataclass(frozen=True, slots=True)
class _Document:
    """One version of a document.

    Attributes:
        sections: LOINC, heading and text of each section; body: all of it as one text.
        lines: what the head of a plain document says. identifiers: root and extension of what it fulfils.
        note: after the title where the version is not the first final one.
    """

    form: _Form
    about: str
    day: date
    order: str
    at: datetime
    department: str
    flag: str
    version: int
    note: str
    author: str
    co_author: str
    sections: Sequence[tuple[str, str, str]]
    body: str
    lines: Sequence[str]
    identifiers: Sequence[tuple[str, str]] = ()

    def file_name(self, patient_id: str) -> str:
        """Name of the folder and of the document."""
        stamp = f"{_stamp(self.at)}{self.version:03d}"
        return f"{patient_id}_{self.day:%Y%m%d}_{self.form.local}_{self.order}_{stamp}_{self.department}_{self.flag}"


class _Departments:
    """Receipt code and name of the department where the patient was at a time."""

    def __init__(self, exams: Sequence[Exam]) -> None:
        self._known = [(exam.started_at, exam.department) for exam in exams]

    def at(self, when: datetime) -> tuple[str, str]:
        """That of the last exam until then, else of the first, else internal medicine."""
        name = self._known[0][1] if self._known else "内科"
        for started, department in self._known:
            if started <= when:
                name = department
        return _department_code(name), name


@dataclass(frozen=True, slots=True)
class _Scene:
    """Whose files are written, where."""

    patient: PatientFile
    site: Site
    dialect: Dialect
    departments: _Departments
    inpatient_days: tuple[tuple[date, date], ...] = field(init=False)

    def __post_init__(self) -> None:
        days = tuple((stay.admitted, stay.discharged) for stay in self.patient.stays)
        object.__setattr__(self, "inpatient_days", days)

    def inpatient(self, when: datetime) -> bool:
        """Whether the patient was in hospital."""
        return any(first <= when.date() <= last for first, last in self.inpatient_days)

    def exams(self) -> Iterator[Exam]:
        """Those of the site."""
        return (exam for exam in self.patient.exams if exam.site == self.site.id)

    def records(self, kind: str) -> list[Record]:
        """Those of the site."""
        return [record for record in self.patient.records if record.kind == kind and record.site == self.site.id]


def _sites_of(patient: PatientFile) -> list[str]:
    sites = [patient.identity.site, *(exam.site for exam in patient.exams), *(one.site for one in patient.records)]
    return list(dict.fromkeys(sites))


def _messages(scene: _Scene) -> Iterator[_Message]:
    yield from _demographics(scene)
    yield from _problems(scene)
    for exam in scene.exams():
        yield from _imaging(scene, exam)
    yield from _laboratory(scene)
    yield from _physiology(scene)
    yield from _drugs(scene)


def _documents(scene: _Scene) -> Iterator[_Document]:
    yield from _radiology_documents(scene)
    yield from _pathology_documents(scene)
    yield from _operation_documents(scene)


# --- heads ------------------------------------------------------------------------------------------------------------


def _head(scene: _Scene, message: _Message) -> str:
    dialect = scene.dialect
    stamp = _stamp(message.at) + (f".{zlib.crc32(message.order.encode()) % 10000:04d}" if dialect.fraction else "")
    number = f"{message.at:%Y%m%d}{zlib.crc32(f'{message.type}{message.about}'.encode()) % 10**6:06d}"
    return (
        f"MSH|^~\\&|HIS123|{scene.site.insurance_number}|GW|RCV|{stamp}||{message.event}|{number}|P|2.5||||||"
        f"{dialect.character_set}||{dialect.scheme}|{_VERSION}"
    )


def _patient_segments(scene: _Scene, message: _Message, patient_id: str) -> Segments:
    person, dialect = scene.patient.identity, scene.dialect
    born = f"{person.birth_date:%Y%m%d}"
    in_9 = dialect.birth_in_9 and message.type == "OMG-13"
    fields = {
        1: "0001",
        3: f"{patient_id}^^^^PI" if dialect.id_type else patient_id,
        5: _both_names(person, dialect),
        7: "" if in_9 else born,
        8: person.sex,
        9: born if in_9 else "",
    }
    if message.address:
        fields[11] = _address(person, dialect)
    if message.phone:
        fields[13] = _phone(person)
    segments = [_segment("PID", fields)]
    if message.type == "ADT-00":
        segments.insert(0, _segment("EVN", {2: _stamp(message.at)[:12], 7: "SEND001"}))
    if message.visit:
        segments.append(message.visit)
    return segments


def _both_names(person: Identity, dialect: Dialect) -> str:
    kanji, kana = _in_jis("^".join(person.name.split()), dialect), "^".join(person.kana.split())
    return f"{kanji}^^^^^L^I~{kana}^^^^^L^P"


def _address(person: Identity, dialect: Dialect) -> str:
    return f"^^^^{person.postal_code}^JPN^H^{_text(_in_jis(person.address, dialect))}"


def _phone(person: Identity) -> str:
    return f"^PRN^PH^^^^^^^^^{person.phone}"


@lru_cache(maxsize=4096)
def _doctor(name: str, dialect: Dialect) -> str:
    """XCN: number, family and given name."""
    family, _, given = " ".join(name.split()).partition(" ")
    written = f"{_in_jis(family, dialect)}^{_in_jis(given, dialect)}"
    return f"D{zlib.crc32(name.encode()) % 100_000:05d}^{written}^^^^^^^L^^^^^I" if name else ""


def _visit(scene: _Scene, when: datetime, doctor: str, department: str) -> str:
    if scene.inpatient(when):
        ward = zlib.crc32(f"{scene.patient.number}{when:%Y%m}".encode())
        where = {2: "I", 3: f"{ward % 9 + 1:02d}^{ward % 30 + 301}^{ward % 4 + 1}^^^N"}
    else:
        where = {2: "O", 3: f"{department}^^^^^C"}
    return _segment("PV1", {1: "0001", **where, 7: _doctor(doctor, scene.dialect), 10: department})


def _order(
    scene: _Scene,
    control: str,
    number: str,
    when: datetime,
    doctor: str,
    *,
    group: str = "",
    parent: str = "",
    full: bool = False,
) -> str:
    """ORC; a full one also says who typed it, and the name, address and phone of the hospital."""
    fields = {
        1: control,
        2: number,
        4: group,
        8: parent,
        9: _stamp(when),
        12: _doctor(doctor, scene.dialect),
    }
    if full:
        code, name = scene.departments.at(when)
        inside = scene.inpatient(when)
        fields |= {
            10: _doctor(doctor, scene.dialect),
            13: f"{code}^^^^^C",
            17: f"{code}^{_text(name)}^99XY1",
            21: _text(_in_jis(scene.site.name, scene.dialect)),
            22: f"^^^^^JPN^^{_text(_in_jis(scene.site.address, scene.dialect))}",
            23: f"^^^^^^^^^^^{scene.site.phone}",
            29: "I^入院患者オーダ^HL70482" if inside else "O^外来患者オーダ^HL70482",
        }
    return _segment("ORC", fields)


# --- ADT-00 -----------------------------------------------------------------------------------------------------------


def _demographics(scene: _Scene) -> Iterator[_Message]:
    """The patient; also an older version with an older weight, where there are two."""
    patient, person, dialect = scene.patient, scene.patient.identity, scene.dialect
    seen = [exam for exam in scene.exams() if exam.height_cm is not None and exam.weight_kg is not None]
    moments = sorted([exam.started_at for exam in scene.exams()] + [record.start_at for record in patient.records])
    moments = [when for when in moments if when.year >= 2000] or [datetime(2010, 1, 4, 9)]
    versions: list[tuple[datetime, Exam | None, str]] = [(moments[-1], seen[-1] if seen else None, _VALID)]
    if len(seen) > 1 and _one_in(3, person.patient_id, "adt"):
        versions.insert(0, (seen[0].started_at, seen[0], dialect.superseded))
    for when, exam, flag in versions:
        segments = []
        if dialect.next_of_kin:
            names, address = _both_names(person, dialect), _address(person, dialect)
            segments.append(_segment("NK1", {1: "1", 2: names, 3: "SEL^本人^HL70063", 4: address, 5: _phone(person)}))
        doctor = exam.requesting_doctor if exam else ""
        segments.append(_visit(scene, when, doctor, scene.departments.at(when)[0]))
        if exam is not None:
            segments.append(f"OBX|1|NM|9N001000000000001^身長^JC10||{exam.height_cm:g}|cm^cm^ISO+|||||F")
            segments.append(f"OBX|2|NM|9N006000000000001^体重^JC10||{exam.weight_kg:g}|kg^kg^ISO+|||||F")
        if _one_in(12, person.patient_id, "allergy"):
            segments.append("AL1|1|DA^薬剤アレルギー^HL70127|1^ヨード造影剤^99XYZ")
        insured = zlib.crc32(person.patient_id.encode())
        segments.append(f"IN1|1|67^国民健康保険退職者^JHSD0001|{insured % 10**8:08d}")
        yield _Message(
            type="ADT-00",
            event="ADT^A08^ADT_A01",
            day=_PATIENT_LEVEL,
            order=_NO_ORDER,
            at=when,
            department="-",
            flag=flag,
            segments=segments,
            about=person.patient_id,
            address=True,
            phone=True,
        )


# --- PPR-01 -----------------------------------------------------------------------------------------------------------

_OUTCOMES = {"recovered": "F^治癒^HL70241", "changed": "U^中止^HL70241", "died": "D^死亡^HL70241"}
_STILL_ILL = "N^回復せず^HL70241"


def _problems(scene: _Scene) -> Iterator[_Message]:
    """All diagnoses in one file; also the file before the last one was added, which the newer replaces."""
    records = scene.records("diagnosis")
    if not records:
        return
    main = {stay.main_diagnosis for stay in scene.patient.stays if stay.main_diagnosis} or {records[0].record_id}
    last = max(when for record in records for when in (record.start_at, record.end_at) if when)
    versions = [(records, last, _VALID)]
    earlier = max((record.start_at for record in records[:-1]), default=last)
    if earlier < last and _one_in(3, scene.patient.identity.patient_id, "ppr"):
        versions.insert(0, ([_as_of(record, earlier) for record in records[:-1]], earlier, scene.dialect.superseded))
    for known, when, flag in versions:
        segments = [one for record in known for one in _problem(scene, record, record.record_id in main)]
        segments.append(_order(scene, "NW", _NO_ORDER, when, known[-1].doctor, full=True))
        yield _Message(
            type="PPR-01",
            event="PPR^ZD1^PPR_ZD1",
            day=_PATIENT_LEVEL,
            order=_NO_ORDER,
            at=when,
            department=scene.departments.at(when)[0],
            flag=flag,
            segments=segments,
            about=records[-1].record_id,
            has_text=True,
        )


def _as_of(record: Record, when: datetime) -> Record:
    """The diagnosis as it was known at a time: an end that lies after it is none."""
    if record.end_at is None or record.end_at <= when:
        return record
    return replace(record, end_at=None)


def _problem(scene: _Scene, record: Record, is_main: bool) -> Iterator[str]:
    """PRB and ZPR of one diagnosis.

    Now and then PRB-9 is filled though the outcome says that it goes on, and a diagnosis typed twice is deleted.
    """
    suspected = record.certainty == "suspected"
    disease = f"{record.codes.get('MEDIS', '')}^{_text(record.name)}^MDCDX2"
    number = _number_of(record.record_id)
    begun, ended = f"{record.start_at:%Y%m%d}", f"{record.end_at:%Y%m%d}" if record.end_at else ""
    outcome = _OUTCOMES.get(record.details.get("outcome", ""), "") if record.end_at else _STILL_ILL
    if not ended and _one_in(40, record.record_id, "end"):
        ended = f"{record.start_at + timedelta(days=30):%Y%m%d}"
    fields = {
        1: "UP" if record.end_at else "AD",
        2: ended or begun,
        3: disease,
        4: f"4000{number}",
        7: begun,
        9: ended,
        10: f"{record.code}^^I10^{'I^入院時' if scene.inpatient(record.start_at) else 'O^外来時'}^JHSD0004^2013",
        13: "1" if suspected else "",
        14: outcome,
        16: begun,
        17: _text(f"{record.name}の疑い" if suspected else record.name),
        18: "1^主診断^JHSD0007" if is_main else "",
    }
    exchange = f"{record.codes.get('exchange', '')}^{_text(record.name)}^MDCDX2"
    parts = _segment("ZPR", {2: disease, 5: f"{exchange}~5395^の疑い^MDCDX2" if suspected else exchange})
    if _one_in(60, record.record_id, "twice"):
        yield _segment("PRB", fields | {1: "DE", 4: f"4999{number}"})
        yield parts
    yield _segment("PRB", fields)
    yield parts


# --- OMG-01, OMG-11, OMP-11/12: imaging -------------------------------------------------------------------------------

# First character of JJ1017, and what the order is called as a whole.
_ACTS = {
    "CR": ("1", "Ｘ線単純撮影"),
    "DX": ("1", "Ｘ線単純撮影"),
    "MG": ("1", "Ｘ線単純撮影"),
    "RF": ("3", "Ｘ線透視・造影検査"),
    "XA": ("5", "血管造影検査"),
    "CT": ("6", "Ｘ線ＣＴ検査"),
    "MR": ("7", "ＭＲ検査"),
    "NM": ("8", "核医学検査"),
    "PT": ("8", "核医学検査"),
    "US": ("9", "超音波検査"),
    "OT": ("Z", "写真撮影"),
}


def _imaging(scene: _Scene, exam: Exam) -> Iterator[_Message]:
    """The order, what was done, and what was given for it; now and then an order that came to nothing before it."""
    when = exam.started_at
    department = _department_code(exam.department)
    lead = zlib.crc32(exam.exam_id.encode()) % 12 if exam.setting in ("outpatient", "screening") else 0
    ordered = when - timedelta(days=lead, minutes=35)
    visit = _visit(scene, when, exam.requesting_doctor, department)
    orders = [(exam.order_number, ordered, _VALID)]
    if _one_in(50, exam.exam_id, "cancelled"):
        orders.insert(0, ("8" + exam.order_number[1:], ordered - timedelta(days=1), _NOT_DONE))
    for number, at, flag in orders:
        yield _Message(
            type="OMG-01",
            event="OMG^O19^OMG_O19",
            day=f"{when:%Y%m%d}",
            order=number,
            at=at,
            department=department,
            flag=flag,
            segments=_order_segments(scene, exam, number, at),
            about=exam.exam_id,
            address=True,
            phone=True,
            visit=visit,
            has_text=True,
        )
    yield _Message(
        type="OMG-11",
        event="OMI^Z23^OMI_Z23",
        day=f"{when:%Y%m%d}",
        order=exam.order_number,
        at=when + timedelta(minutes=20),
        department=department,
        flag=_VALID,
        segments=_done_segments(scene, exam),
        about=exam.exam_id,
        address=True,
        phone=True,
        visit=visit,
    )
    given = list(_given(exam))
    if given and scene.dialect.contrast != "ZE2":
        segments = [
            _order(scene, "NW", exam.order_number, when, exam.requesting_doctor, full=True),
            *(
                _segment(
                    "RXA",
                    {
                        1: "0",
                        2: "1",
                        3: _stamp(when)[:12],
                        4: _stamp(when + timedelta(minutes=2))[:12],
                        5: what,
                        6: amount,
                        7: unit,
                        10: _doctor(exam.technologist, scene.dialect),
                        20: "CP",
                        22: _stamp(when),
                    },
                )
                for what, amount, unit in given
            ),
            "RXR|IV^静脈内^HL70162",
        ]
        yield _Message(
            type=scene.dialect.contrast,
            event="RAS^O17^RAS_O17",
            day=f"{when:%Y%m%d}",
            order=exam.order_number,
            at=when + timedelta(minutes=25),
            department=department,
            flag=_VALID,
            segments=segments,
            about=exam.exam_id,
            visit=visit,
        )


def _given(exam: Exam) -> Iterator[tuple[str, str, str]]:
    """Contrast medium and tracer: code, amount and unit; an amount that nobody noted is empty."""
    if exam.contrast_agent:
        amount = "" if exam.contrast_ml is None else f"{exam.contrast_ml:g}"
        yield _local_drug(exam.contrast_agent), amount, "ML^ミリリットル^MR9P"
    if exam.tracer:
        amount = "" if exam.dose_mbq is None else f"{exam.dose_mbq:g}"
        yield _local_drug(exam.tracer), amount, "MBQ^メガベクレル^99U"


def _local_drug(name: str) -> str:
    return f"C{zlib.crc32(name.encode()) % 10_000:04d}^{_text(name)}^99CM"


def _act(exam: Exam) -> tuple[str, str, str]:
    """JJ1017 of the exam in 32 characters, that of the order as a whole in 16, and its name."""
    first, name = _ACTS.get(exam.modality, ("Z", "その他の検査"))
    code = exam.jj1017 or first
    return code.ljust(32, "0")[:32], code[:1].ljust(16, "0"), name


def _order_segments(scene: _Scene, exam: Exam, number: str, ordered: datetime) -> Segments:
    child_code, parent_code, name = _act(exam)
    doctor = exam.requesting_doctor
    urgent = f"TQ1|1||||||||{'S' if exam.setting == 'emergency' else 'R'}^^HL70485"
    request = _segment("OBR", {2: number, 4: f"{parent_code}^{name}^JJ1017", 16: _doctor(doctor, scene.dialect)})
    child = f"{int(number) + 1:015d}"
    segments = [
        _order(scene, "NW", number, ordered, doctor),
        urgent,
        request,
        _order(scene, "PA", number, ordered, doctor),
        urgent,
        request,
    ]
    if exam.weight_kg is not None:
        segments.append(f"OBX|1|NM|01-02^体重^JSHR001||{exam.weight_kg:g}|kg^kg^ISO+|||||F")
    if exam.diagnosis:
        segments.append(f"OBX|2|TX|MS3-34^臨床病名^JSHR||{_text(exam.diagnosis)}||||||F")
    if exam.indication:
        segments.append(f"OBX|3|TX|MS3-04^検査理由^JSHR||{_text(exam.indication)}||||||F")
    asked = {
        2: child,
        4: f"{child_code}^{_text(exam.order_name)}^JJ1017",
        16: _doctor(doctor, scene.dialect),
        29: number,
    }
    return [*segments, _order(scene, "CH", child, ordered, doctor, parent=number), urgent, _segment("OBR", asked)]


def _done_segments(scene: _Scene, exam: Exam) -> Segments:
    child_code, parent_code, name = _act(exam)
    if scene.dialect.short_jj1017:
        parent_code = parent_code[:15]
    number, doctor, when = exam.order_number, exam.requesting_doctor, exam.started_at
    child = f"{int(number) + 1:015d}"
    urgent = f"TQ1|1||||||||{'S' if exam.setting == 'emergency' else 'R'}^^HL70485"
    fields = {
        2: number,
        4: f"{parent_code}^{name}^JJ1017",
        7: f"{when:%Y%m%d}",
        16: _doctor(doctor, scene.dialect),
        22: _stamp(when + timedelta(minutes=20)),
        25: "F",
    }
    study = f"IPC|{exam.accession_number}|P{number[-8:]}|{exam.study_instance_uid}||{exam.modality}^^DCM"
    segments = []
    for control in ("NW", "PA"):
        segments += [_order(scene, control, number, when, doctor, full=True), urgent, _segment("OBR", fields), study]
    act = f"{child_code}^{_text(exam.order_name)}^JJ1017"
    segments += [
        _order(scene, "CH", child, when, doctor, parent=number, full=True),
        urgent,
        _segment("OBR", fields | {2: child, 4: act, 29: number}),
        _segment("ZE1", {1: "1", 2: "RS", 3: act, 6: "TC-01^EM-01", 7: _doctor(exam.technologist, scene.dialect)}),
    ]
    if scene.dialect.contrast == "ZE2":
        for place, (what, amount, unit) in enumerate(_given(exam), start=1):
            segments.append(f"ZE2|{place}|DE-02^薬品^JSHR|{what}|{amount}|{unit}")
    return [*segments, study]


# --- OML-11: laboratory -----------------------------------------------------------------------------------------------

_MATERIALS = {"001": "尿", "019": "血液", "022": "血漿", "023": "血清"}
# Panel of the order form by the first character of JLAC10.
_PANELS = {
    "1": "E003^尿検査",
    "2": "E001^血液学的検査",
    "3": "E002^生化学的検査",
    "4": "E005^内分泌学的検査",
    "5": "E004^免疫学的検査",
    "8": "E002^生化学的検査",
}
_STATUS = {"final": "F", "preliminary": "P", "corrected": "C"}


def _laboratory(scene: _Scene) -> Iterator[_Message]:
    """One file for what was drawn and reported together; sometimes also the interim one before it."""
    draws: dict[tuple[datetime, datetime], list[Record]] = {}
    for record in scene.records("lab"):
        draws.setdefault((record.start_at, record.reported_at or record.start_at), []).append(record)
    for (drawn, reported), records in draws.items():
        number = f"2000{_number_of(records[0].record_id)}"
        department = scene.departments.at(drawn)[0]
        versions = [(records, reported, _VALID, "")]
        if len(records) > 3 and _one_in(25, records[0].record_id, "interim"):
            early = reported - (reported - drawn) / 3
            versions.insert(0, (records[: len(records) // 2], early, scene.dialect.superseded, "P"))
        for these, at, flag, status in versions:
            yield _Message(
                type="OML-11",
                event="OUL^R22^OUL_R22",
                day=f"{drawn:%Y%m%d}",
                order=number,
                at=at,
                department=department,
                flag=flag,
                segments=_result_segments(scene, these, number, drawn, at, department, status),
                about=records[0].record_id,
                address=True,
                visit=_visit(scene, drawn, records[0].doctor, department),
            )


def _result_segments(
    scene: _Scene,
    records: Sequence[Record],
    number: str,
    drawn: datetime,
    reported: datetime,
    department: str,
    status: str,
) -> Segments:
    specimens: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        panels = specimens.setdefault(record.code[9:12], {})
        panels.setdefault(_PANELS.get(record.code[:1], "E009^その他の検査"), []).append(record)
    doctor = _doctor(records[0].doctor, scene.dialect)
    taken, day = _stamp(drawn)[:12], f"{drawn:%Y%m%d}"
    segments = []
    for place, (material, panels) in enumerate(specimens.items(), start=1):
        specimen = f"{number[-11:]}{place:02d}"
        source = f"{material}^{_MATERIALS.get(material, 'その他')}^JC10"
        segments.append(_segment("SPM", {1: str(place), 2: specimen, 4: source, 17: taken}))
        for row, (panel, these) in enumerate(panels.items(), start=1):
            fields = {1: str(row), 2: number, 3: specimen, 4: f"{panel}^99O03", 7: day, 8: day, 16: doctor}
            segments.append(_segment("OBR", fields | {22: _stamp(reported)}))
            order = {1: "SC", 2: number, 3: specimen, 5: "CM", 9: _stamp(reported), 12: doctor}
            segments.append(_segment("ORC", order | {13: f"{department}^^^^^C"}))
            segments += [_result(record, at, taken, status) for at, record in enumerate(these, start=1)]
    return segments


def _result(record: Record, place: int, taken: str, status: str) -> str:
    kind, value = _value(record)
    unit = _text(record.unit)
    fields = {
        1: str(place),
        2: kind,
        3: f"{record.code}^{_text(record.name)}^JC10",
        5: value,
        6: f"{unit}^{unit}^99XYZ" if unit else "",
        7: _range(record),
        8: record.flag,
        11: status or _STATUS.get(record.certainty, "F"),
        14: taken,
    }
    return _segment("OBX", fields)


def _value(record: Record) -> tuple[str, str]:
    """Type and value: a grade of urine as 2+, zero as below what the method finds, all else as a number."""
    value = record.value
    if value is None:
        return "ST", _text(record.text)
    if record.code.startswith("1A") and not record.unit and record.reference_high == 0:
        return "ST", f"{value:.0f}+" if value else "(-)"
    if value == 0 and record.reference_high:
        smallest = 10.0 ** -max(1, len(f"{record.reference_high:g}".partition(".")[2]))
        return "SN", f"<^ {smallest:g}"
    return "NM", _plain(value)


def _range(record: Record) -> str:
    low, high = record.reference_low, record.reference_high
    if high is None:
        return "" if low is None else f"{low:g}-"
    return f"{low or 0:g}-{high:g}"


# --- OMG-13: physiology -----------------------------------------------------------------------------------------------

# MFER codes of an ECG's measurements; others get a local code.
_MEASURED = {
    "HR": "32769^心拍数^99MFR",
    "PR": "32770^PQ 時間^99MFR",
    "QRS": "58240^QRS 幅^99MFR",
    "QT": "56008^QT 時間^99MFR",
    "QTc": "59136^QTc 時間&Bazzet^99MFR",
    "QRS_axis": "32774^QRS 軸^99MFR",
    "RV5": "58368&7^R 振幅&V5^99MFR",
    "SV1": "58496&3^S 振幅&V1^99MFR",
}


def _physiology(scene: _Scene) -> Iterator[_Message]:
    for record in scene.records("physiology"):
        number = f"3000{_number_of(record.record_id)}"
        department = scene.departments.at(record.start_at)[0]
        reported = record.reported_at or record.start_at
        fields = {
            1: "1",
            2: number,
            4: f"{record.code}^{_text(record.name)}^JC10",
            7: f"{record.start_at:%Y%m%d}",
            16: _doctor(record.doctor, scene.dialect),
            22: _stamp(reported),
            25: _STATUS.get(record.certainty, "F"),
        }
        impression = f"{record.code[:3]}00&IMP^{_text(record.name)}所見^JC10"
        segments = [_segment("OBR", fields), f"OBX|1|TX|{impression}|1|{_text(record.text)}||||||F"]
        for place, (name, measured) in enumerate(_measurements(record), start=2):
            number_, _, unit = measured.partition(" ")
            code = _MEASURED.get(name, f"{_text(name)}^{_text(name)}^99PHY")
            segments.append(f"OBX|{place}|NM|{code}|2|{number_}|{_text(unit)}|||||F")
        yield _Message(
            type="OMG-13",
            event="ORU^R01^ORU_R01",
            day=f"{record.start_at:%Y%m%d}",
            order=number,
            at=reported,
            department=department,
            flag=_VALID,
            segments=segments,
            about=record.record_id,
            visit=_visit(scene, record.start_at, record.doctor, department),
            has_text=True,
        )


def _measurements(record: Record) -> Iterator[tuple[str, str]]:
    for name, measured in record.details.items():
        head = measured.partition(" ")[0]
        if head.lstrip("-").replace(".", "", 1).isdigit():
            yield name, measured


# --- OMP-01, OMP-02: drugs --------------------------------------------------------------------------------------------

# Units (MERIT-9), usages (JAMI) and routes (HL7 0162) by the words of the order.
_UNITS = {
    "錠": "TAB^錠^MR9P",
    "カプセル": "CAP^カプセル^MR9P",
    "包": "PCK^包^MR9P",
    "枚": "SHT^枚^MR9P",
    "本": "HON^本^MR9P",
    "管": "AMP^管^MR9P",
    "瓶": "VIL^瓶^MR9P",
    "個": "KO^個^MR9P",
    "g": "G^グラム^MR9P",
    "mg": "MG^ミリグラム^MR9P",
    "mL": "ML^ミリリットル^MR9P",
    "袋": "BAG^袋^MR9P",
    "筒": "TUT^筒^MR9P",
    "キット": "KIT^キット^MR9P",
}
_USAGES = {
    "1日1回朝食後": ("1011040000000000", 1),
    "1日1回夕食後": ("1011000400000000", 1),
    "1日1回就寝前": ("1011000090000000", 1),
    "1日2回朝夕食後": ("1012040400000000", 2),
    "1日3回毎食後": ("1013044400000000", 3),
    "1日3回毎食前": ("1013011100000000", 3),
    "1日1回朝食前": ("1011010000000000", 1),
}
_ROUTES = {
    "PO": "PO^口^HL70162",
    "IV": "IV^静脈内^HL70162",
    "SC": "SC^皮下^HL70162",
    "IM": "IM^筋肉内^HL70162",
    "IA": "IA^動脈内^HL70162",
    "TOP": "TP^局所^HL70162",
    "INH": "IH^吸入^HL70162",
    "PR": "PR^直腸^HL70162",
    "SL": "SL^舌下^HL70162",
}


def _drugs(scene: _Scene) -> Iterator[_Message]:
    """Prescriptions (OMP-01) and injections (OMP-02): what starts together is one order, renewed while it lasts."""
    orders: dict[tuple[date, str], list[Record]] = {}
    for record in scene.records("medication"):
        kind = "OMP-02" if record.details.get("route") in ("IV", "IA", "SC", "IM") else "OMP-01"
        orders.setdefault((record.start_at.date(), kind), []).append(record)
    for (_, kind), records in orders.items():
        base, at = _number_of(records[0].record_id), records[0].start_at
        for time in range(1000):
            day = at + timedelta(days=time * _RENEWED_AFTER)
            running = [(one, left) for one in records if (left := _days_left(one, day)) > 0 or (time == 0)]
            if not running:
                break
            number = f"1{time:03d}{base}"
            department = scene.departments.at(day)[0]
            yield _Message(
                type=kind,
                event="RDE^O11^RDE_O11",
                day=f"{day:%Y%m%d}",
                order=number,
                at=day + timedelta(minutes=5),
                department=department,
                flag=_VALID,
                segments=_drug_segments(scene, running, kind, number, day),
                about=records[0].record_id,
                address=True,
                phone=True,
                visit=_visit(scene, day, records[0].doctor, department),
            )


def _days_left(record: Record, day: datetime) -> int:
    return 0 if record.end_at is None else (record.end_at.date() - day.date()).days


def _drug_segments(
    scene: _Scene, running: Sequence[tuple[Record, int]], kind: str, number: str, day: datetime
) -> Segments:
    segments: Segments = []
    for place, (record, left) in enumerate(running, start=1):
        days = max(1, min(left, _RENEWED_AFTER))
        details = record.details
        dose, unit = details.get("dose", ""), details.get("unit", "")
        unit = _UNITS.get(unit, f"{_text(unit)}^{_text(unit)}^99U" if unit else "")
        usage, per_day = _USAGES.get(details.get("usage", ""), ("", 1))
        usage_name = _text(details.get("usage", ""))
        drug = f"{record.codes.get('HOT9', '') or record.code}^{_text(record.name)}^{_drug_system(record)}"
        route = _ROUTES.get(details.get("route", "PO"), "OTH^その他^HL70162")
        segments.append(_order(scene, "NW", number, day, record.doctor, group=str(place), full=True))
        if kind == "OMP-01":
            amount = _as_number(dose)
            each = "" if amount is None else f"{amount / per_day:g}"
            fields = {2: drug, 3: each, 5: unit, 11: unit, 21: "OHP^外来処方^MR9P~OHI^院内処方^MR9P"}
            fields[10] = "" if amount is None else f"{amount * days:g}"
            fields[19] = f"{dose}^{unit.replace('^', '&')}" if dose else ""
            segments.append(_segment("RXE", fields))
            timing = f"{usage or '0000000000000000'}&{usage_name}&{'JAMISDP01' if usage else '99USE'}"
            segments.append(_segment("TQ1", {1: "1", 3: timing, 6: f"{days}^d", 7: f"{day:%Y%m%d}00"}))
            segments.append(f"RXR|{route}")
        else:
            segments.append(_segment("RXE", {2: "00^一般^99I02", 7: f"^{usage_name}^99IC6", 21: "IHP^入院処方^MR9P"}))
            until = day + timedelta(days=days)
            segments.append(_segment("TQ1", {1: "1", 6: f"{days}^d", 7: _stamp(day)[:12], 8: _stamp(until)[:12]}))
            segments += [f"RXR|{route}", f"RXC|A|{drug}|{dose}|{unit}"]
    return segments


def _drug_system(record: Record) -> str:
    return "HOT9" if record.codes.get("HOT9") else "YJ"


# --- documents --------------------------------------------------------------------------------------------------------

_NOTES = {"preliminary": "（仮報告）", "final": "", "amended": "（訂正版）"}


def _radiology_documents(scene: _Scene) -> Iterator[_Document]:
    exams = {exam.exam_id: exam for exam in scene.exams()}
    last = {report.report_id: report.version for report in scene.patient.reports}
    for report in scene.patient.reports:
        exam = exams.get(report.exam_id)
        if exam is None:
            continue
        valid = report.version == last[report.report_id]
        yield _Document(
            form=_RADIOLOGY,
            about=report.report_id,
            day=exam.started_at.date(),
            order=exam.order_number,
            at=report.confirmed_at,
            department=_department_code(exam.department),
            flag=_VALID if valid else scene.dialect.superseded,
            version=report.version,
            note=_NOTES[report.status],
            author=report.reader,
            co_author=report.second_reader or "",
            sections=_radiology_sections(exam, report),
            body=report.text,
            lines=_radiology_lines(exam, report),
            identifiers=[
                (_order_root(scene.site), exam.order_number),
                (_accession_root(scene.site), exam.accession_number),
                (exam.study_instance_uid, ""),
            ],
        )


def _radiology_sections(exam: Exam, report: Report) -> Sequence[tuple[str, str, str]]:
    sections = [
        ("18785-6", "検査目的", "\n".join(filter(None, (exam.diagnosis, exam.indication)))),
        ("18782-3", "所見", report.findings_text),
        ("19005-8", "診断", report.impression_text),
    ]
    return [section for section in sections if section[2]]


def _radiology_lines(exam: Exam, report: Report) -> Sequence[str]:
    return [
        f"検査日時：{exam.started_at:%Y/%m/%d %H:%M}　モダリティ：{exam.modality}　検査名：{exam.order_name}",
        f"受付番号：{exam.accession_number}　オーダ番号：{exam.order_number}",
        f"検査UID：{exam.study_instance_uid}",
        f"依頼科：{exam.department}　依頼医：{exam.requesting_doctor}",
        f"読影医：{report.reader}　確認医：{report.second_reader or ''}",
    ]


def _pathology_documents(scene: _Scene) -> Iterator[_Document]:
    """A report, and the one before the addendum where it has one."""
    for record in scene.records("pathology"):
        details = record.details
        reported = record.reported_at or record.start_at
        addendum = details.get("addendum", "")
        first = [
            ("31208-2", "材料", " ".join(filter(None, (details.get("specimen", record.name), details.get("method"))))),
            ("22637-3", "病理診断", details.get("diagnosis", record.text)),
            ("22635-7", "組織所見", details.get("findings", "")),
        ]
        first = [section for section in first if section[2]]
        versions = [(first, reported, "final")]
        if addendum:
            versions.append(([*first, ("35265-8", "追加報告", addendum)], reported + timedelta(days=5), "amended"))
        for version, (sections, at, status) in enumerate(versions, start=1):
            yield _Document(
                form=_PATHOLOGY,
                about=record.record_id,
                day=record.start_at.date(),
                order=f"5000{_number_of(record.record_id)}",
                at=at,
                department=scene.departments.at(record.start_at)[0],
                flag=_VALID if version == len(versions) else scene.dialect.superseded,
                version=version,
                note=_NOTES[status],
                author=record.doctor,
                co_author="",
                sections=sections,
                body="\n".join(f"【{name}】\n{text}" for _, name, text in sections),
                lines=[
                    f"病理番号：{record.code}　採取日：{record.start_at:%Y/%m/%d}　報告日：{at:%Y/%m/%d}",
                    f"診断医：{record.doctor}",
                ],
                identifiers=[(f"1.2.392.299999.{scene.site.facility_code}.5", record.code)],
            )


def _operation_documents(scene: _Scene) -> Iterator[_Document]:
    sides = {"right": "右", "left": "左", "bilateral": "両側"}
    for record in scene.records("surgery"):
        side = sides.get(record.side or "", "")
        name = f"{record.name} {record.code}" + (f"（{side}）" if side else "")
        sections = [("29554-3", "術式", name), ("10223-6", "手術記録", record.text)]
        sections = [section for section in sections if section[2]]
        yield _Document(
            form=_OPERATION,
            about=record.record_id,
            day=record.start_at.date(),
            order=f"6000{_number_of(record.record_id)}",
            at=record.reported_at or record.start_at,
            department=scene.departments.at(record.start_at)[0],
            flag=_VALID,
            version=1,
            note="",
            author=record.doctor,
            co_author="",
            sections=sections,
            body="\n".join(f"【{heading}】\n{text}" for _, heading, text in sections),
            lines=[f"手術日：{record.start_at:%Y/%m/%d}　執刀医：{record.doctor}"],
        )


def _plain_document(scene: _Scene, document: _Document) -> str:
    """A form of fixed lines, then the text."""
    person = scene.patient.identity
    sex = {"M": "男", "F": "女"}[person.sex]
    lines = [
        f"{document.form.local_name}{document.note}",
        f"{scene.site.name}",
        f"患者ID：{person.patient_id}　氏名：{person.name}（{person.kana}）",
        f"生年月日：{person.birth_date:%Y/%m/%d}　性別：{sex}",
        *document.lines,
        f"確定日時：{document.at:%Y/%m/%d %H:%M}　版数：{document.version}",
        "-" * 60,
        document.body,
    ]
    return "\n".join(lines).replace("\n", "\r\n") + "\r\n"


def _cda(scene: _Scene, document: _Document) -> str:
    """CDA R2: the head, and a body of sections; with dialect whole one section holds all of the text."""
    person, site = scene.patient.identity, scene.site
    root = f"1.2.392.200119.6.4.{site.insurance_number}"
    made = f"{_stamp(document.at)}+0900"
    sections = document.sections
    whole = scene.dialect.documents == "whole"
    if whole:
        sections = [("59776-5", document.form.local_name, document.body)]
    form = document.form
    fulfils = "".join(
        f'<inFulfillmentOf><order><id root="{one}" extension="{_xml(extension)}"/></order></inFulfillmentOf>'
        for one, extension in document.identifiers
        if extension
    )
    studies = "".join(
        f'<documentationOf><serviceEvent classCode="ACT"><id root="{one}"/></serviceEvent></documentationOf>'
        for one, extension in document.identifiers
        if not extension
    )
    replaces = (
        f'<relatedDocument typeCode="RPLC"><parentDocument><id root="{root}" '
        f'extension="{document.about}.{document.version - 1}"/></parentDocument></relatedDocument>'
        if document.version > 1
        else ""
    )
    seconder = _signed("authenticator", document.co_author, made) if document.co_author else ""
    bodies = "".join(
        f'<component><section><code code="{code}" codeSystem="2.16.840.1.113883.6.1" codeSystemName="LOINC"/>'
        f"<title>{heading}</title><text>{_paragraphs(text) if whole else _broken(text)}</text></section></component>"
        for code, heading, text in sections
    )
    gender = person.sex
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<ClinicalDocument xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">',
        '<typeId root="2.16.840.1.113883.1.3" extension="POCD_HD000040"/>',
        f'<id root="{root}" extension="{document.about}.{document.version}"/>',
        f'<code code="{form.loinc}" codeSystem="2.16.840.1.113883.6.1" codeSystemName="LOINC" '
        f'displayName="{form.loinc_name}"/>',
        f"<title>{form.local_name}{document.note}</title>",
        f'<effectiveTime value="{made}"/>',
        '<confidentialityCode code="N" codeSystem="2.16.840.1.113883.5.25"/>',
        '<languageCode code="ja-JP"/>',
        f'<setId root="{root}" extension="{document.about}"/>',
        f'<versionNumber value="{document.version}"/>',
        '<recordTarget><patientRole classCode="PAT">'
        f'<id root="1.2.392.100495.20.3.51.1{site.insurance_number}" extension="{person.patient_id}"/>'
        f'<addr use="H"><postalCode>{person.postal_code}</postalCode>'
        f"<streetAddressLine>{_xml(person.address)}</streetAddressLine></addr>"
        f'<telecom use="HP" value="tel:{person.phone}"/>'
        f'<patient><name use="IDE">{_name_parts(person.name)}</name><name use="SYL">{_name_parts(person.kana)}</name>'
        f'<administrativeGenderCode code="{gender}" codeSystem="2.16.840.1.113883.5.1"/>'
        f'<birthTime value="{person.birth_date:%Y%m%d}"/></patient></patientRole></recordTarget>',
        f'<author><time value="{made}"/><assignedAuthor><id root="{root}.1" extension="{_staff_id(document.author)}"/>'
        f"<assignedPerson><name>{_name_parts(document.author)}</name></assignedPerson></assignedAuthor></author>",
        '<custodian><assignedCustodian><representedCustodianOrganization classCode="ORG">'
        f'<id root="1.2.392.100495.20.3.23" extension="{site.insurance_number}"/><name>{_xml(site.name)}</name>'
        "</representedCustodianOrganization></assignedCustodian></custodian>",
        _signed("legalAuthenticator", document.author, made) if document.note != _NOTES["preliminary"] else "",
        seconder,
        fulfils,
        studies,
        replaces,
        f"<component><structuredBody>{bodies}</structuredBody></component>",
        "</ClinicalDocument>",
    ]
    newline = "\r\n" if whole else "\n"
    return ("\ufeff" if whole else "") + newline.join(filter(None, lines)) + newline


def _signed(role: str, name: str, when: str) -> str:
    return (
        f'<{role}><time value="{when}"/><signatureCode code="S"/><assignedEntity><id extension="{_staff_id(name)}" '
        f'root="2.16.840.1.113883.19"/><assignedPerson><name>{_name_parts(name)}</name></assignedPerson>'
        f"</assignedEntity></{role}>"
    )


def _name_parts(name: str) -> str:
    family, _, given = _xml(" ".join(name.split())).partition(" ")
    return f"<family>{family}</family>" + (f"<given>{given}</given>" if given else "")


def _broken(text: str) -> str:
    """Lines parted by br."""
    return _xml(text).replace("\n", "<br/>")


def _paragraphs(text: str) -> str:
    """A paragraph a line; an empty line is an empty paragraph."""
    return "".join(f"<paragraph>{line}</paragraph>" for line in _xml(text).split("\n"))


_XML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"})


def _xml(text: str) -> str:
    return text.translate(_XML)


def _staff_id(name: str) -> str:
    return f"D{zlib.crc32(name.encode()) % 100_000:05d}"


def _order_root(site: Site) -> str:
    return f"1.2.392.299999.{site.facility_code}.1"


def _accession_root(site: Site) -> str:
    return f"1.2.392.299999.{site.facility_code}.2"


# --- small things -----------------------------------------------------------------------------------------------------

# Code of the department on the receipt; a department that is not here is internal medicine.
_DEPARTMENTS = (
    ("呼吸器外", "15"),
    ("呼吸器", "05"),
    ("消化器", "06"),
    ("循環器", "08"),
    ("小児外", "17"),
    ("小児", "09"),
    ("神経内", "04"),
    ("脳神経外", "14"),
    ("形成外", "12"),
    ("整形", "11"),
    ("心臓血管外", "16"),
    ("皮膚", "19"),
    ("泌尿器", "20"),
    ("産婦人", "23"),
    ("婦人", "25"),
    ("眼", "26"),
    ("耳鼻", "27"),
    ("放射線", "30"),
    ("外科", "10"),
)


@lru_cache(maxsize=256)
def _department_code(name: str) -> str:
    return next((code for part, code in _DEPARTMENTS if part in name), "01")


def _segment(name: str, fields: Mapping[int, str]) -> str:
    """A segment with its fields at their numbers."""
    cells = [""] * max(fields)
    for at, value in fields.items():
        cells[at - 1] = value
    return f"{name}|{'|'.join(cells)}".rstrip("|")


_ESCAPES = str.maketrans(
    {"|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\", "\\": "\\E\\", "\n": "\\.br\\", "\r": ""}
)


def _text(text: str) -> str:
    """Text with the separators of HL7 escaped, and its lines parted by .br."""
    return text.translate(_ESCAPES)


def _stamp(when: datetime) -> str:
    return f"{when.year:04d}{when.month:02d}{when.day:02d}{when.hour:02d}{when.minute:02d}{when.second:02d}"


def _plain(value: float) -> str:
    """A number as an analyser writes it, never 1e+06."""
    return f"{value:.0f}" if value >= 100_000 else f"{value:g}"


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _number_of(record_id: str) -> str:
    """Eleven digits from the id of a record."""
    digits = record_id[1:]
    if digits.isascii() and digits.isdigit():
        return digits[-11:].rjust(11, "0")
    return f"{zlib.crc32(record_id.encode()):011d}"


def _mistyped(patient_id: str) -> str:
    """Another patient's number: two neighbouring digits changed places, or the last is one more."""
    for at in range(len(patient_id) - 1, 0, -1):
        if patient_id[at] != patient_id[at - 1]:
            return f"{patient_id[: at - 1]}{patient_id[at]}{patient_id[at - 1]}{patient_id[at + 1 :]}"
    return patient_id[:-1] + str((int(patient_id[-1]) + 1) % 10)


def _one_in(count: int, *ids: str) -> bool:
    """The same answer for the same ids, yes once in ``count``."""
    return zlib.crc32("/".join(ids).encode()) % count == 0


# --- characters -------------------------------------------------------------------------------------------------------

# The same sign at another code point in JIS X 0208 as Python maps it, and in cp932.
_SAME_IN_JIS = {
    0x2014: 0x2015, 0xFF5E: 0x301C, 0xFF0D: 0x2212, 0x2225: 0x2016,
    0xFFE0: 0xA2, 0xFFE1: 0xA3, 0xFFE2: 0xAC, 0xB5: 0x3BC,
}  # fmt: skip
_SAME_IN_CP932 = {
    0x2014: 0x2015, 0x301C: 0xFF5E, 0x2212: 0xFF0D, 0x2016: 0x2225,
    0xA2: 0xFFE0, 0xA3: 0xFFE1, 0xAC: 0xFFE2, 0xB5: 0x3BC,
}  # fmt: skip
# Variants of kanji that sites replace by the common form.
_COMMON_FORMS = {"髙": "高", "\ufa11": "崎", "濵": "浜", "德": "徳"}


def _encoded(message: str, dialect: Dialect) -> tuple[bytes, int]:
    """The message in ISO-2022-JP, and how many characters were lost."""
    try:
        return message.encode("iso2022_jp"), 0
    except UnicodeEncodeError:
        pass
    written = [_jis_char(char, dialect) for char in message]
    return "".join(text for text, _ in written).encode("iso2022_jp"), sum(lost for _, lost in written)


def _in_jis(text: str, dialect: Dialect) -> str:
    """Text of characters that JIS X 0208 has."""
    try:
        text.encode("iso2022_jp")
    except UnicodeEncodeError:
        return "".join(_jis_char(char, dialect)[0] for char in text)
    return text


@lru_cache(maxsize=65536)
def _jis_char(char: str, dialect: Dialect) -> tuple[str, bool]:
    """What stands for a character, and whether it is lost."""
    forms: Iterable[str] = (char, chr(_SAME_IN_JIS.get(ord(char), ord(char))))
    if dialect.fold:
        folded = unicodedata.normalize("NFKC", _COMMON_FORMS.get(char, char))
        forms = (*forms, f"({folded})" if unicodedata.decomposition(char).startswith("<circle>") else folded)
    for form in forms:
        try:
            form.encode("iso2022_jp")
        except UnicodeEncodeError:
            continue
        return form, False
    return dialect.gaiji, True


def _as_cp932(text: str) -> tuple[bytes, int]:
    """A plain document in cp932; what it lacks becomes a question mark."""
    try:
        return text.encode("cp932"), 0
    except UnicodeEncodeError:
        text = text.translate(_SAME_IN_CP932)
    content = text.encode("cp932", errors="replace")
    return content, content.count(b"?") - text.count("?")
