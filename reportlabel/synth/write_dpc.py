"""The synthetic hospital as DPC files: 入院EF統合 and 様式1 of the stays.

Tab separated, cp932, CRLF, one file a site and month, 31 columns (EF) and 17 columns (FF1). As in the published samples
an act stands in the file of the month in which it was done; the discharge date is 00000000 while the patient is still
in hospital. The 様式1 stands in the month of discharge.

    OUT/.parts/<part>/<site>/EFn_<facility>_<YYMM>.txt, FF1_<facility>_<YYMM>.txt     while writing
    OUT/<site>/EFn_<facility>_<YYMM>.txt, FF1_<facility>_<YYMM>.txt                   after `merge_dpc`

Codes of acts that are no record (images, rooms, tissue preparation) are of the medical fee schedule as far as known;
amounts of points are plausible, not those of one year.
"""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Self

from reportlabel.synth.patient import Exam, PatientFile, Record, Site, Stay
from reportlabel.synth.write_ris_csv import one_in, to_cp932

__all__ = ["EF_COLUMNS", "FF1_COLUMNS", "DpcWriter", "merge_dpc"]

EF_COLUMNS = (
    "施設コード",
    "データ識別番号",
    "退院年月日",
    "入院年月日",
    "データ区分",
    "順序番号",
    "行為明細番号",
    "病院点数マスタコード",
    "レセプト電算コード",
    "解釈番号",
    "診療明細名称",
    "使用量",
    "基準単位",
    "明細点数・金額",
    "円点区分",
    "出来高実績点数",
    "行為明細区分情報",
    "行為点数",
    "行為薬剤料",
    "行為材料料",
    "行為回数",
    "保険者番号",
    "レセプト種別コード",
    "実施年月日",
    "レセプト科区分",
    "診療科区分",
    "医師コード",
    "病棟コード",
    "病棟区分",
    "入外区分",
    "施設タイプ",
)
FF1_COLUMNS = (
    "施設コード",
    "データ識別番号",
    "入院年月日",
    "回数管理番号",
    "統括診療情報番号",
    "コード",
    "バージョン",
    "連番",
    *(f"ペイロード{number}" for number in range(1, 10)),
)
UNKNOWN_DAY = "00000000"
PARTS = ".parts"

_FLUSH_AT = 4 * 1024 * 1024
_END = "\r\n"
_TNM = re.compile(r"(T[0-4x][a-z0-9]*)\s*(N[0-3x][a-z0-9]*)\s*(M[01x][a-z0-9]*)", re.IGNORECASE)
_NO_UNIT, _ML, _ORGAN = "000", "036", "107"
_UNITS = {"錠": "016", "C": "015", "カプセル": "015", "包": "018", "g": "033", "mL": "036", "ml": "036", "mg": "032"}
_UNITS |= {
    "管": "022",
    "A": "014",
    "瓶": "019",
    "V": "039",
    "枚": "006",
    "本": "007",
    "個": "010",
    "単位": "028",
    "筒": "023",
    "袋": "020",
}
_BY_MOUTH, _OUTSIDE, _INJECTION, _OPERATION, _EXAMINATION, _IMAGE, _ROOM = "21", "23", "33", "50", "60", "70", "90"
_BY_ROUTE = {"PO": _BY_MOUTH, "SL": _BY_MOUTH, "IV": _INJECTION, "IA": _INJECTION, "SC": "31", "IM": "31"}
_BY_CHAPTER = {
    "K": _OPERATION,
    "D": _EXAMINATION,
    "N": _EXAMINATION,
    "J": "40",
    "G": _INJECTION,
    "M": "80",
    "E": _IMAGE,
}


@dataclass(frozen=True, slots=True)
class _Item:
    """A line below an act: an act of the fee schedule (kind 0, points), or a drug (kind 1, yen)."""

    master: str
    receipt: str
    code: str
    name: str
    points: int
    drug: bool = False
    amount: float = 0.0
    unit: str = _NO_UNIT


@dataclass(frozen=True, slots=True)
class _Act:
    """An act with its lines. ``section`` is the data class (50 operation, 60 examination, 70 image, 21 drug …)."""

    day: date
    section: str
    items: tuple[_Item, ...]
    doctor: str = ""
    times: int = 1


_SECTION_PREPARATION = _Item("610100", "160060010", "N0001", "Ｔ－Ｍ（組織切片）", 860, amount=1, unit=_ORGAN)
_TISSUE_DIAGNOSIS = _Item("986240", "160155110", "N0061", "組織診断料", 520)
_PATHOLOGY_FEE = _Item("986252", "160190470", "N0065", "病理診断管理加算２（組織診断）", 320)
_ROOM_CHARGE = _Item("910010", "190117710", "A1001", "一般病棟７対１入院基本料", 1591)

# by DICOM modality: the act, and what is added for contrast
_IMAGES: Mapping[str, _Item] = {
    "CT": _Item("700110", "170011810", "E2001", "ＣＴ撮影", 900),
    "MR": _Item("700200", "170020110", "E2022", "ＭＲＩ撮影", 1330),
    "US": _Item("600725", "160072510", "D2152", "超音波検査（断層撮影法）", 530),
    "CR": _Item("700279", "170027910", "E002", "単純撮影（デジタル撮影）", 68),
    "DX": _Item("700279", "170027910", "E002", "単純撮影（デジタル撮影）", 68),
    "MG": _Item("700280", "170000310", "E0024", "乳房撮影", 202),
    "RF": _Item("700050", "170001910", "E0022", "造影剤使用撮影", 148),
    "XA": _Item("700030", "170025010", "E0033", "血管造影", 1180),
    "NM": _Item("700250", "170015310", "E1002", "シンチグラム（全身）", 2200),
    "PT": _Item("700260", "170026310", "E1013", "ポジトロン断層・コンピューター断層複合撮影", 8625),
}
_CONTRAST_FEE = {
    "CT": _Item("700120", "170012070", "E2003", "造影剤使用加算（ＣＴ）", 500),
    "MR": _Item("700204", "170020470", "E202", "造影剤使用加算（ＭＲＩ）", 250),
}


@dataclass(slots=True)
class _Buffers:
    """Bytes for many small files, appended to them when there is enough; so no file stays open."""

    folder: Path
    waiting: dict[str, list[bytes]] = field(default_factory=dict)
    size: int = 0

    def add(self, name: str, lines: bytes) -> None:
        self.waiting.setdefault(name, []).append(lines)
        self.size += len(lines)
        if self.size >= _FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        for name, lines in self.waiting.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.writelines(lines)
        self.waiting.clear()
        self.size = 0


class DpcWriter:
    """Writes the stays into ``out/.parts/<part>``; `merge_dpc` makes the files of the hospital of all parts.

    The first site (in the order of ids) writes a header row, as the samples have it; the others write none.
    """

    def __init__(self, out: Path, sites: Mapping[str, Site], *, part: int = 0) -> None:
        self._sites = sites
        self._with_header = min(sites, default="")
        folder = out / PARTS / f"{part:04d}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._buffers = _Buffers(folder)
        self._started: set[str] = set()
        self._defects: list[tuple[str, str, str]] = []
        self.replaced: dict[str, Counter[str]] = {site: Counter() for site in sites}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, patient: PatientFile) -> None:
        """Append the rows of the stays of one patient."""
        for number, stay in enumerate(patient.stays, start=1):
            self._write_acts(patient, stay)
            rows = list(_ff1_rows(patient, stay, number, self._sites[stay.site].facility_code))
            self._append(stay.site, "FF1", stay.discharged, FF1_COLUMNS, rows)

    def close(self) -> None:
        """Write what is still in memory."""
        self._buffers.flush()

    @property
    def defects(self) -> Sequence[tuple[str, str, str]]:
        """What was written wrong on purpose: path in the folder, kind, id of the stay."""
        return self._defects

    def _write_acts(self, patient: PatientFile, stay: Stay) -> None:
        site = self._sites[stay.site]
        acts = sorted(_acts(patient, stay), key=lambda act: (act.day, act.section))
        months: dict[tuple[int, int], list[_Act]] = {}
        for act in acts:
            months.setdefault((act.day.year, act.day.month), []).append(act)
        for (year, month), these in sorted(months.items()):
            out = (stay.discharged.year, stay.discharged.month) == (year, month)
            undated = one_in(25, stay.stay_id, f"{year}-{month}")
            rows: list[list[str]] = []
            for order, act in enumerate(these, start=1):
                head = [site.facility_code, patient.identity.patient_id.zfill(10)]
                head += [
                    _day(stay.discharged) if out else UNKNOWN_DAY,
                    _day(stay.admitted),
                    act.section,
                    f"{order:04d}",
                ]
                done = UNKNOWN_DAY if undated and order == len(these) else _day(act.day)
                rows += _ef_rows(head, act, done, stay)
            name = self._append(stay.site, "EFn", date(year, month, 1), EF_COLUMNS, rows)
            if undated:
                self._defects.append((name, "act_without_date", stay.stay_id))

    def _append(self, site: str, kind: str, month: date, columns: tuple[str, ...], rows: list[list[str]]) -> str:
        name = f"{site}/{kind}_{self._sites[site].facility_code}_{month:%y%m}.txt"
        if site == self._with_header and name not in self._started:
            self._started.add(name)
            rows = [list(columns), *rows]
        text = "".join("\t".join(row) + _END for row in rows)
        line, lost = to_cp932(text)
        self.replaced[site].update(lost)
        self._buffers.add(name, line)
        return name


def merge_dpc(out: Path) -> None:
    """Make the files of the hospital of its parts, in the order of the parts, and remove the parts.

    Streams; each file appears whole. Where a file begins with a header row, the header of later parts is left out.
    """
    parts = sorted(path for path in (out / PARTS).glob("*") if path.is_dir())
    names = sorted({path.relative_to(part).as_posix() for part in parts for path in part.glob("*/*.txt")})
    for name in names:
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(target.name + ".tmp")
        with unfinished.open("wb") as merged:
            for part in parts:
                if (part / name).is_file():
                    _copy(part / name, merged, first=merged.tell() == 0)
        os.replace(unfinished, target)
    shutil.rmtree(out / PARTS, ignore_errors=True)


def _copy(path: Path, merged: BinaryIO, *, first: bool) -> None:
    header = EF_COLUMNS[0].encode("cp932") + b"\t"
    with path.open("rb") as file:
        line = file.readline()
        if first or not line.startswith(header):
            merged.write(line)
        shutil.copyfileobj(file, merged)


def _acts(patient: PatientFile, stay: Stay) -> Iterator[_Act]:
    """What was done in a stay: the room, operations and procedures, tissue, images with contrast and tracer, drugs."""
    yield from _rooms(stay)
    done: set[tuple[str, str, datetime]] = set()
    for record in patient.records:
        if record.site != stay.site or (record.kind, record.code, record.start_at) in done:
            continue
        done.add((record.kind, record.code, record.start_at))
        during = stay.admitted <= record.start_at.date() <= stay.discharged
        if record.kind == "surgery" and during:
            yield _operation(record)
        elif record.kind == "pathology" and during:
            fees = (_TISSUE_DIAGNOSIS, _PATHOLOGY_FEE)
            yield _Act(record.start_at.date(), _EXAMINATION, (_SECTION_PREPARATION,), record.doctor)
            yield _Act(record.start_at.date(), _EXAMINATION, fees, record.doctor)
        elif record.kind == "medication" and record.codes.get("receipt") and _overlaps(record, stay):
            yield _medication(record, stay)
    for exam in patient.exams:
        if exam.site == stay.site and stay.admitted <= exam.started_at.date() <= stay.discharged:
            act = _image(exam)
            if act is not None:
                yield act


def _rooms(stay: Stay) -> Iterator[_Act]:
    """The room charge, once a calendar month of the stay, with the number of days."""
    day = stay.admitted
    while day <= stay.discharged:
        following = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
        days = (min(following, stay.discharged + timedelta(days=1)) - day).days
        yield _Act(day, _ROOM, (_ROOM_CHARGE,), times=days)
        day = following


def _operation(record: Record) -> _Act:
    code = re.sub(r"[^0-9A-Z]", "", unicodedata.normalize("NFKC", record.code).upper())
    section = _BY_CHAPTER.get(code[:1], _EXAMINATION)
    points = 800 + _spread(record.code, 70_000 if code.startswith("K") else 4_000)
    item = _Item(_master(record.codes.get("receipt", "")), _receipt(record, "15"), code, record.name, points)
    return _Act(record.start_at.date(), section, (item,), record.doctor)


def _medication(record: Record, stay: Stay) -> _Act:
    section = _BY_ROUTE.get(record.details.get("route", "PO"), _OUTSIDE)
    first = max(record.start_at.date(), stay.admitted)
    last = min(record.end_at.date() if record.end_at else stay.discharged, stay.discharged)
    return _Act(first, section, (_drug_item(record),), record.doctor, times=(last - first).days + 1)


def _drug_item(record: Record) -> _Item:
    unit = record.details.get("unit", record.unit)
    amount = _number(record.details.get("dose", "")) or record.value or 1.0
    receipt = _receipt(record, "62")
    return _Item(
        _master(receipt), receipt, "", record.name, 5 + _spread(receipt, 900), True, amount, _UNITS.get(unit, _NO_UNIT)
    )


def _image(exam: Exam) -> _Act | None:
    """The image, with contrast and tracer as drug lines below it."""
    act = _IMAGES.get(exam.modality)
    if act is None:
        return None
    items = [act]
    if exam.contrast_agent:
        fee = _CONTRAST_FEE.get(exam.modality)
        items += [fee] if fee else []
        items.append(_agent(exam.contrast_agent, exam.contrast_ml or 100.0, _ML))
    if exam.tracer:
        items.append(_agent(exam.tracer, exam.dose_mbq or 1.0, _NO_UNIT))
    section = _EXAMINATION if act.code.startswith("D") else _IMAGE
    return _Act(exam.started_at.date(), section, tuple(items), exam.requesting_doctor)


def _agent(name: str, amount: float, unit: str) -> _Item:
    """Contrast or tracer; the exam has no code of it, so it gets one of its own in the range of drugs."""
    receipt = f"6200{_spread(name, 100_000):05d}"
    return _Item(_master(receipt), receipt, "", name, 500 + _spread(name, 20_000), True, amount, unit)


def _overlaps(record: Record, stay: Stay) -> bool:
    end = record.end_at.date() if record.end_at else stay.discharged
    return record.start_at.date() <= stay.discharged and end >= stay.admitted


def _ef_rows(head: list[str], act: _Act, done: str, stay: Stay) -> Iterator[list[str]]:
    """The E line (000) with the sums of the act, and an F line each item; drug lines have no 解釈番号."""
    first = act.items[0]
    drugs = sum(item.points // 10 for item in act.items if item.drug)
    points = sum(item.points for item in act.items if not item.drug) + drugs
    tail = [_department(stay.department), _doctor_code(act.doctor), _ward(stay)]
    yield [
        *head,
        *("000", first.master, first.receipt, first.code, _wide(first.name)),
        *("0000000.000", _NO_UNIT, "0", "0", "0", ""),
        *(f"{points:08d}", f"{drugs:08d}", f"{0:08d}", f"{act.times:03d}", "  200055", "1119", done, "20"),
        *(*tail, "0", "0", ""),
    ]
    for number, item in enumerate(act.items, start=1):
        price = f"{item.points:012d}" if item.drug else f"{item.points:08d}"
        yield [
            *head,
            *(f"{number:03d}", item.master, item.receipt, item.code, _wide(item.name)),
            *(f"{item.amount:011.3f}", item.unit, price, "1" if item.drug else "0"),
            *(
                f"{item.points // 10 if item.drug else item.points:08d}",
                "000000000000" if item.drug else "000010000000",
            ),
            *("0", "0", "0", f"{act.times:03d}", "", "", done, ""),
            *(*tail, "0", "", ""),
        ]


def _ff1_rows(patient: PatientFile, stay: Stay, number: int, facility: str) -> Iterator[list[str]]:
    """様式1 of a stay: profile, diagnoses, TNM where it is known, operations.

    Codes of the rows as in the 様式1 since 2014: A001010 profile, A006010 main disease, A006020 cause of the admission,
    A006030 disease with the most resources, A006040 comorbidities, A007010 operations, CAN0010 TNM (UICC).
    """
    head = [facility, patient.identity.patient_id.zfill(10), _day(stay.admitted), "0", "0"]

    def row(code: str, serial: int, payload: Mapping[int, str]) -> list[str]:
        return [*head, code, "20140401", str(serial), *(payload.get(place, "") for place in range(1, 10))]

    yield row("A000010", 0, _profile(patient, stay, number))
    diagnoses = _diagnoses(patient, stay)
    for code in ("A006010", "A006020", "A006030"):
        for main in diagnoses[:1]:
            yield row(code, 0, {2: _icd10(main), 9: _wide(main.name)})
    for serial, record in enumerate(diagnoses[1:5], start=1):
        yield row("A006040", serial, {2: _icd10(record), 9: _wide(record.name)})
    tnm = _tnm(patient, stay)
    if tnm is not None:
        yield row("CAN0010", 0, {1: "1", 2: tnm[0], 3: tnm[1], 4: tnm[2], 5: "8"})
    serial = 0
    for record in patient.records:
        if record.kind == "surgery" and record.code.startswith("K") and record.site == stay.site:
            day = record.start_at.date()
            if stay.admitted <= day <= stay.discharged:
                serial += 1
                side = {"right": "1", "left": "2", "bilateral": "3"}.get(record.side or "", "0")
                payload = {1: _day(day), 2: _operation(record).items[0].code, 3: "1", 4: side, 9: _wide(record.name)}
                yield row("A007010", serial, payload)


def _profile(patient: PatientFile, stay: Stay, number: int) -> Mapping[int, str]:
    person = patient.identity
    return {
        1: _day(person.birth_date),
        2: "1" if person.sex == "M" else "2",
        3: person.postal_code.replace("-", ""),
        4: _department(stay.department),
        5: _day(stay.discharged),
        6: str(number),
    }


def _diagnoses(patient: PatientFile, stay: Stay) -> list[Record]:
    """The disease that caused the stay first, then what else the patient had on admission, each code once."""
    held = [record for record in patient.records if record.kind == "diagnosis" and _overlaps(record, stay)]
    held.sort(key=lambda record: (record.record_id != stay.main_diagnosis, record.certainty == "suspected"))
    return list({record.code: record for record in reversed(held)}.values())[::-1]


def _tnm(patient: PatientFile, stay: Stay) -> tuple[str, str, str] | None:
    """The stage of a proven tumour at the last exam before the discharge."""
    until = {exam.exam_id for exam in patient.exams if exam.started_at.date() <= stay.discharged}
    for state in reversed(patient.gold_states):
        found = _TNM.search(state.stage) if state.known and state.exam_id in until else None
        if found:
            return found[1], found[2], found[3]
    return None


def _icd10(record: Record) -> str:
    return record.code.replace(".", "")


def _day(day: date) -> str:
    return f"{day:%Y%m%d}"


def _department(name: str) -> str:
    return f"{10 * (1 + _spread(name, 88)):03d}"


def _doctor_code(name: str) -> str:
    return f"{1000 + _spread(name, 9000)}" if name else ""


def _ward(stay: Stay) -> str:
    return f"{20 + _spread(stay.department, 60)}"


def _receipt(record: Record, prefix: str) -> str:
    known = record.codes.get("receipt", "")
    return known if len(known) == 9 and known.isdigit() else f"{prefix}{_spread(record.code, 10**7):07d}"


def _master(receipt: str) -> str:
    """The hospital's own code of an item."""
    return f"{100_000 + _spread(receipt, 900_000)}"


def _wide(name: str) -> str:
    """Names of the masters are in full width, without tabs and line ends."""
    narrow = unicodedata.normalize("NFKC", name)
    return "".join(
        chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else "\u3000" if char.isspace() else char for char in narrow
    )


def _number(text: str) -> float | None:
    found = re.match(r"\d+(?:\.\d+)?", unicodedata.normalize("NFKC", text))
    return float(found[0]) if found else None


def _spread(key: str, count: int) -> int:
    """A number below ``count`` that is always the same for a key."""
    return zlib.crc32(key.encode()) % count
