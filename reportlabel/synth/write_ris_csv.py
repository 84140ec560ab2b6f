"""The synthetic hospital as what most sites hand in: tables of radiology, pathology, physiology and surgery systems.

cp932 with CRLF and Japanese headers, quoted cells with newlines, eras, ages and times as each site writes them, and the
damage that a spreadsheet does. Each site has one dialect; see `DIALECTS`.

    OUT/<site>/<stem>-<part>.csv (or .tsv)          radiology, pathology, physiology, surgery
    OUT/<site>/<stem>-<part><excel suffix>.csv      the part of a site that somebody opened and saved in a spreadsheet
"""

from __future__ import annotations

import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import BinaryIO, Self

from reportlabel.synth.patient import Exam, Identity, PatientFile, Record, Report, Site

__all__ = ["DIALECTS", "Dialect", "RisCsvWriter", "era_date", "half_width", "one_in", "site_dialects", "to_cp932"]

Row = dict[str, str]
Columns = tuple[tuple[str, str], ...]
"""Header of a column, and the field of a row that it holds."""

RADIOLOGY, PATHOLOGY, PHYSIOLOGY, SURGERY = "radiology", "pathology", "physiology", "surgery"

_ERAS = (
    (date(2019, 5, 1), "令和", "R"),
    (date(1989, 1, 8), "平成", "H"),
    (date(1926, 12, 25), "昭和", "S"),
    (date(1912, 7, 30), "大正", "T"),
    (date(1868, 1, 25), "明治", "M"),
)
_REIWA = _ERAS[0][0]
_EXCEL_DAY_0 = date(1899, 12, 30)
_EXCEL_DIGITS = 10
"""A longer number does not fit a cell of a new sheet: it is shown as 2.02303E+13, and saved like that."""

# What cp932 holds at another code point: every program on Windows maps these, so nothing is lost.
_SAME_IN_CP932 = {
    0x2014: 0x2015,
    0x2016: 0x2225,
    0x2212: 0xFF0D,
    0x301C: 0xFF5E,
    0x00A2: 0xFFE0,
    0x00A3: 0xFFE1,
    0x00AC: 0xFFE2,
}

_DETAILS_OF_THE_FORM = {"specimen", "method", "addendum", "diagnosis", "findings", "outcome", "organ", "unit", "dose"}


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How one site writes its tables.

    Attributes:
        stems: file name of each kind of table. delimiter: of cells; a TSV quotes only what it must.
        cell_newline: inside a quoted cell. gaiji: what stands for a character that cp932 lacks.
        half_kana: names, departments and order names in half-width katakana.
        day, birth: style of dates (see `_DATES`). clock: of times. midnight_24: 00:15 is 24:15 of the day before.
        age: pattern of the age. sexes: words of M and F. versions: pattern of the number of a version.
        statuses: words of preliminary, final and amended. sides: words of right and left.
        excel: ending of the file that went through a spreadsheet; empty where there is none.
        unread: exams without a report are in the table too, with empty cells.
    """

    name: str
    stems: Mapping[str, str]
    columns: Mapping[str, Columns]
    suffix: str = ".csv"
    delimiter: str = ","
    quote_all: bool = False
    cell_newline: str = "\n"
    gaiji: str = "〓"
    half_kana: bool = False
    day: str = "slash"
    birth: str = "slash"
    clock: str = "%H:%M"
    midnight_24: bool = False
    age: str = "{}歳"
    sexes: Mapping[str, str] = field(default_factory=lambda: {"M": "男", "F": "女"})
    versions: str = "{}"
    statuses: tuple[str, str, str] = ("暫定", "確定", "修正")
    unread_status: str = "未読影"
    sides: Mapping[str, str] = field(default_factory=lambda: {"right": "右", "left": "左", "bilateral": "両側"})
    plain_codes: bool = False
    excel: str = ""
    unread: bool = False


_PERSON_PLAIN: Columns = (
    ("患者ID", "patient_id"),
    ("患者氏名", "name"),
    ("カナ", "kana"),
    ("生年月日", "birth"),
    ("性別", "sex"),
)
_PERSON_ERA: Columns = (
    ("患者番号", "patient_id"),
    ("氏名", "name"),
    ("フリガナ", "kana"),
    ("性別", "sex"),
    ("年齢", "age"),
    ("生年月日", "birth"),
)
_PERSON_TSV: Columns = (
    ("ID番号", "patient_id"),
    ("カナ氏名", "kana"),
    ("漢字氏名", "name"),
    ("生年月日", "birth"),
    ("年齢", "age"),
    ("性", "sex"),
)
_PERSON_COMPACT: Columns = (
    ("PATIENT_ID", "patient_id"),
    ("患者名", "name"),
    ("患者名カナ", "kana"),
    ("性別コード", "sex"),
    ("生年月日", "birth"),
    ("検査時年齢", "age"),
)

_PLAIN = Dialect(
    name="plain",
    stems={RADIOLOGY: "radiology", PATHOLOGY: "pathology", PHYSIOLOGY: "physiology", SURGERY: "surgery"},
    excel="_edited",
    unread=True,
    clock="%H:%M:%S",
    columns={
        RADIOLOGY: (
            *_PERSON_PLAIN,
            ("オーダ番号", "order"),
            ("受付番号", "accession"),
            ("検査日", "day"),
            ("検査時刻", "time"),
            ("モダリティ", "modality"),
            ("検査部位", "exam"),
            ("依頼科", "department"),
            ("依頼医", "requester"),
            ("臨床診断", "diagnosis"),
            ("検査目的", "indication"),
            ("所見", "findings"),
            ("診断", "impression"),
            ("読影医1", "reader"),
            ("読影医2", "second_reader"),
            ("確定日時", "confirmed"),
            ("版数", "version"),
            ("状態", "status"),
            ("レポート番号", "report_id"),
            ("StudyInstanceUID", "study_uid"),
        ),
        PATHOLOGY: (
            ("病理番号", "record_id"),
            *_PERSON_PLAIN,
            ("採取日", "day"),
            ("受付日", "received"),
            ("報告日", "reported"),
            ("臓器/材料", "specimen"),
            ("採取法", "method"),
            ("診断", "diagnosis"),
            ("所見", "findings"),
            ("追加報告", "addendum"),
            ("病理医", "doctor"),
            ("状態", "status"),
        ),
        PHYSIOLOGY: (
            ("検査番号", "record_id"),
            *_PERSON_PLAIN,
            ("検査日", "day"),
            ("検査時刻", "time"),
            ("検査名", "exam"),
            ("検査コード", "code"),
            ("所見", "findings"),
            ("計測値", "measured"),
            ("判読医", "doctor"),
        ),
        SURGERY: (
            ("手術番号", "record_id"),
            *_PERSON_PLAIN,
            ("手術日", "day"),
            ("入室時刻", "time"),
            ("退室時刻", "end_time"),
            ("術式", "exam"),
            ("Kコード", "code"),
            ("部位", "body_site"),
            ("側性", "side"),
            ("術後診断", "diagnosis"),
            ("手術記録", "findings"),
            ("執刀医", "doctor"),
        ),
    },
)

_ERA = Dialect(
    name="era",
    stems={RADIOLOGY: "読影レポート", PATHOLOGY: "病理診断", PHYSIOLOGY: "生理検査", SURGERY: "手術台帳"},
    quote_all=True,
    cell_newline="\r\n",
    half_kana=True,
    day="dotted_era",
    birth="long_era",
    midnight_24=True,
    sexes={"M": "男性", "F": "女性"},
    versions="第{}版",
    statuses=("仮", "確定", "訂正"),
    columns={
        RADIOLOGY: (
            ("受付番号", "accession"),
            *_PERSON_ERA,
            ("検査日", "day"),
            ("検査時間", "time"),
            ("検査種別", "modality"),
            ("検査項目", "exam"),
            ("依頼科", "department"),
            ("依頼医師", "requester"),
            ("臨床診断・検査目的", "request"),
            ("画像所見", "findings"),
            ("インプレッション", "impression"),
            ("読影医", "reader"),
            ("確認医", "second_reader"),
            ("確定日時", "confirmed"),
            ("版", "version"),
            ("状態", "status"),
        ),
        PATHOLOGY: (
            *_PERSON_ERA,
            ("標本番号", "record_id"),
            ("採取年月日", "day"),
            ("受付年月日", "received"),
            ("報告年月日", "reported"),
            ("材料", "specimen"),
            ("採取方法", "method"),
            ("病理診断", "diagnosis"),
            ("組織所見", "findings"),
            ("追加報告", "addendum"),
            ("報告状態", "status"),
            ("診断医", "doctor"),
        ),
        PHYSIOLOGY: (
            *_PERSON_ERA,
            ("受付番号", "record_id"),
            ("検査日", "day"),
            ("検査時間", "time"),
            ("検査名称", "exam"),
            ("計測値", "measured"),
            ("判定所見", "findings"),
            ("判読医師", "doctor"),
        ),
        SURGERY: (
            ("手術日", "day"),
            ("手術番号", "record_id"),
            *_PERSON_ERA,
            ("実施術式", "exam"),
            ("点数表コード", "code"),
            ("左右", "side"),
            ("部位", "body_site"),
            ("術後診断名", "diagnosis"),
            ("術者", "doctor"),
            ("開始", "time"),
            ("終了", "end_time"),
            ("所見", "findings"),
        ),
    },
)

_TSV = Dialect(
    name="tsv",
    stems={RADIOLOGY: "RIS_REPORT", PATHOLOGY: "PATHO", PHYSIOLOGY: "PHYSIO", SURGERY: "OPE"},
    suffix=".tsv",
    delimiter="\t",
    gaiji="?",
    half_kana=True,
    day="slashed_era",
    birth="padded_era",
    age="{:03d}Y",
    sexes={"M": "M", "F": "F"},
    versions="{:02d}",
    statuses=("P", "F", "C"),
    sides={"right": "R", "left": "L", "bilateral": "B"},
    columns={
        RADIOLOGY: (
            ("レポートID", "report_id"),
            ("検査UID", "study_uid"),
            ("オーダーNo", "order"),
            ("受付No", "accession"),
            *_PERSON_TSV,
            ("検査日時", "day_time"),
            ("モダリティ", "modality"),
            ("部位コード", "body_part"),
            ("検査名", "exam"),
            ("依頼科", "department"),
            ("依頼医", "requester"),
            ("臨床診断", "diagnosis"),
            ("検査目的", "indication"),
            ("診断", "impression"),
            ("所見", "findings"),
            ("一次読影医", "reader"),
            ("二次読影医", "second_reader"),
            ("確定日時", "confirmed"),
            ("版数", "version"),
            ("ステータス", "status"),
        ),
        PATHOLOGY: (
            ("病理No", "record_id"),
            *_PERSON_TSV,
            ("臓器", "specimen"),
            ("採取法", "method"),
            ("採取日", "day"),
            ("受付日", "received"),
            ("報告日", "reported"),
            ("ステータス", "status"),
            ("所見", "findings"),
            ("診断", "diagnosis"),
            ("追加", "addendum"),
            ("診断医", "doctor"),
        ),
        PHYSIOLOGY: (
            ("検査No", "record_id"),
            *_PERSON_TSV,
            ("検査日時", "day_time"),
            ("項目コード", "code"),
            ("項目名", "exam"),
            ("計測値", "measured"),
            ("所見", "findings"),
            ("判読", "doctor"),
        ),
        SURGERY: (
            ("手術No", "record_id"),
            *_PERSON_TSV,
            ("手術日時", "day_time"),
            ("Kコード", "code"),
            ("術式", "exam"),
            ("部位", "body_site"),
            ("側性", "side"),
            ("術後診断", "diagnosis"),
            ("記録", "findings"),
            ("執刀", "doctor"),
        ),
    },
)

_COMPACT = Dialect(
    name="compact",
    stems={RADIOLOGY: "rrep", PATHOLOGY: "prep", PHYSIOLOGY: "yrep", SURGERY: "srep"},
    quote_all=True,
    day="compact",
    birth="compact",
    clock="%H%M%S",
    age="{:03d}Y",
    sexes={"M": "1", "F": "2"},
    versions="{}.0",
    statuses=("1", "2", "3"),
    plain_codes=True,
    columns={
        RADIOLOGY: (
            ("検査インスタンスUID", "study_uid"),
            ("検査日", "day"),
            ("検査時刻", "time"),
            ("依頼番号", "order"),
            ("ACCESSION", "accession"),
            *_PERSON_COMPACT,
            ("装置種別", "modality"),
            ("検査名称", "exam"),
            ("依頼診療科", "department"),
            ("依頼医", "requester"),
            ("依頼目的", "request"),
            ("レポート本文", "text"),
            ("読影医1", "reader"),
            ("読影医2", "second_reader"),
            ("確定日", "confirmed"),
            ("版", "version"),
            ("状態区分", "status"),
        ),
        PATHOLOGY: (
            ("受付番号", "record_id"),
            *_PERSON_COMPACT,
            ("採取日", "day"),
            ("受付日", "received"),
            ("報告日", "reported"),
            ("検体", "specimen"),
            ("採取法", "method"),
            ("病理組織診断", "diagnosis"),
            ("病理所見", "findings"),
            ("補遺", "addendum"),
            ("状態区分", "status"),
            ("病理医", "doctor"),
        ),
        PHYSIOLOGY: (
            ("受付番号", "record_id"),
            *_PERSON_COMPACT,
            ("検査日", "day"),
            ("検査時刻", "time"),
            ("検査コード", "code"),
            ("検査名称", "exam"),
            ("所見", "findings"),
            ("計測", "measured"),
            ("判読医", "doctor"),
        ),
        SURGERY: (
            ("手術番号", "record_id"),
            *_PERSON_COMPACT,
            ("手術日", "day"),
            ("術式コード", "code"),
            ("術式名", "exam"),
            ("側性", "side"),
            ("部位", "body_site"),
            ("術後診断", "diagnosis"),
            ("手術所見", "findings"),
            ("術者", "doctor"),
        ),
    },
)

DIALECTS = (_PLAIN, _ERA, _TSV, _COMPACT)


def site_dialects(sites: Mapping[str, Site]) -> dict[str, Dialect]:
    """The dialect of each site: in the order of the ids of the sites, beginning again after the last dialect."""
    return {site: DIALECTS[index % len(DIALECTS)] for index, site in enumerate(sorted(sites))}


class RisCsvWriter:
    """Writes the tables of the department systems.

    `replaced` counts the characters that cp932 lacks, by site and character. `defects` hands over what was written
    wrong on purpose.
    """

    def __init__(self, out: Path, sites: Mapping[str, Site], *, part: int = 0) -> None:
        self._out = out
        self._part = part
        self._dialects = site_dialects(sites)
        self._files: dict[Path, BinaryIO] = {}
        self._defects: list[tuple[str, str, str]] = []
        self.replaced: dict[str, Counter[str]] = {site: Counter() for site in sites}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, patient: PatientFile) -> None:
        """Append the rows of one patient: every version of every report, and the records of the other systems."""
        person, exams = patient.identity, {exam.exam_id: exam for exam in patient.exams}
        read = set()
        for report in patient.reports:
            exam = exams[report.exam_id]
            read.add(exam.exam_id)
            self._append(exam.site, RADIOLOGY, person, _report_row(person, exam, report, self._dialects[exam.site]))
        for exam in patient.exams:
            if exam.exam_id not in read and self._dialects[exam.site].unread:
                self._append(exam.site, RADIOLOGY, person, _unread_row(person, exam, self._dialects[exam.site]))
        for record in patient.records:
            make = _RECORD_ROWS.get(record.kind)
            if make is not None:
                dialect = self._dialects[record.site]
                row = _person_row(person, record.start_at.date(), dialect) | make(record, dialect)
                self._append(record.site, record.kind, person, row)

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    @property
    def defects(self) -> Sequence[tuple[str, str, str]]:
        """What was written wrong on purpose: path in the folder, kind, id of report or record."""
        return self._defects

    def _append(self, site: str, kind: str, person: Identity, row: Row) -> None:
        dialect = self._dialects[site]
        row_id = row.get("report_id") or row.get("record_id") or row["accession"]
        flaws = _date_flaws(row, dialect, row_id)
        edited = bool(dialect.excel) and one_in(4, person.patient_id, "excel")
        if edited:
            flaws += _through_excel(row)
        path = self._out / site / f"{dialect.stems[kind]}-{self._part:04d}{dialect.excel * edited}{dialect.suffix}"
        columns = dialect.columns[kind]
        cells = [row.get(name, "") for _, name in columns]
        line, lost = to_cp932(_line(cells, dialect, quote_all=dialect.quote_all and not edited), dialect.gaiji)
        if lost:
            self.replaced[site].update(lost)
            flaws.append("character_lost")
        self._file(path, columns, dialect).write(line)
        self._defects += [(path.relative_to(self._out).as_posix(), flaw, row_id) for flaw in flaws]

    def _file(self, path: Path, columns: Columns, dialect: Dialect) -> BinaryIO:
        file = self._files.get(path)
        if file is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = self._files[path] = path.open("wb", buffering=1 << 18)
            header = [name for name, _ in columns]
            file.write(to_cp932(_line(header, dialect, quote_all=dialect.quote_all), dialect.gaiji)[0])
        return file


def era_date(day: date, style: str, *, era_of: date | None = None) -> str:
    """A date in a Japanese era.

    Args:
        style: long_era (令和5年3月14日, first year 元年), dotted_era (R5.3.14), slashed_era (R5/3/14),
            padded_era (R05/03/14).
        era_of: write the era of this earlier day (平成31年6月3日 for a day of June 2019, as some forms still did).
    """
    start, long, letter = next(era for era in _ERAS if (era_of or day) >= era[0])
    year = day.year - start.year + 1
    if style == "long_era":
        return f"{long}{'元' if year == 1 else year}年{day.month}月{day.day}日"
    if style == "dotted_era":
        return f"{letter}{year}.{day.month}.{day.day}"
    if style == "slashed_era":
        return f"{letter}{year}/{day.month}/{day.day}"
    return f"{letter}{year:02d}/{day.month:02d}/{day.day:02d}"


@lru_cache(maxsize=4096)
def half_width(text: str) -> str:
    """Katakana, prolonged sound mark and space in half width; everything else as it is."""
    return "".join(_half_forms().get(char, char) if _is_kana(char) else char for char in text)


def _is_kana(char: str) -> bool:
    return "\u30a1" <= char <= "\u30fc" or char == "\u3000"


@lru_cache(maxsize=1)
def _half_forms() -> dict[str, str]:
    forms = {unicodedata.normalize("NFKC", chr(code)): chr(code) for code in range(0xFF61, 0xFF9E)}
    marks = {"\u3099": "\uff9e", "\u309a": "\uff9f"}
    for code in range(0x30A1, 0x30FB):
        parts = unicodedata.normalize("NFD", chr(code))
        if len(parts) == 2 and parts[0] in forms:
            forms[chr(code)] = forms[parts[0]] + marks[parts[1]]
    return forms | {"\u3000": " ", "ヮ": forms["ワ"], "ヵ": forms["カ"], "ヶ": forms["ケ"]}


_DATES: dict[str, Callable[[date], str]] = {
    "slash": lambda day: f"{day:%Y/%m/%d}",
    "compact": lambda day: f"{day:%Y%m%d}",
    **{style: partial(era_date, style=style) for style in ("long_era", "dotted_era", "slashed_era", "padded_era")},
}


def _person_row(person: Identity, day: date, dialect: Dialect) -> Row:
    age = day.year - person.birth_date.year - ((day.month, day.day) < (person.birth_date.month, person.birth_date.day))
    return {
        "patient_id": person.patient_id,
        "name": person.name,
        "kana": half_width(person.kana) if dialect.half_kana else person.kana,
        "birth": _DATES[dialect.birth](person.birth_date),
        "sex": dialect.sexes[person.sex],
        "age": dialect.age.format(age),
        "_birth": person.birth_date.isoformat(),
    }


def _exam_row(person: Identity, exam: Exam, dialect: Dialect) -> Row:
    narrow = half_width if dialect.half_kana else str
    request = [part for part in (exam.diagnosis, exam.indication) if part]
    return (
        _person_row(person, exam.started_at.date(), dialect)
        | _moment("", exam.started_at, dialect)
        | {
            "age": dialect.age.format(exam.age_years),
            "order": exam.order_number,
            "accession": exam.accession_number,
            "modality": exam.modality,
            "body_part": exam.body_part,
            "exam": narrow(exam.order_name),
            "department": narrow(exam.department),
            "requester": exam.requesting_doctor,
            "diagnosis": exam.diagnosis,
            "indication": exam.indication,
            "request": "\n".join(request),
            "study_uid": exam.study_instance_uid,
        }
    )


def _report_row(person: Identity, exam: Exam, report: Report, dialect: Dialect) -> Row:
    status = ("preliminary", "final", "amended").index(report.status)
    return _exam_row(person, exam, dialect) | {
        "report_id": report.report_id,
        "findings": report.findings_text,
        "impression": report.impression_text,
        "text": report.text,
        "reader": report.reader,
        "second_reader": report.second_reader or "",
        "confirmed": _moment("", report.confirmed_at, dialect)["day_time"],
        "version": dialect.versions.format(report.version),
        "status": dialect.statuses[status],
        "_confirmed": report.confirmed_at.isoformat(),
    }


def _unread_row(person: Identity, exam: Exam, dialect: Dialect) -> Row:
    return _exam_row(person, exam, dialect) | {"status": dialect.unread_status}


def _pathology_row(record: Record, dialect: Dialect) -> Row:
    reported = record.reported_at
    status = {"preliminary": 0, "final": 1, "corrected": 2}.get(record.certainty, 1)
    return _moment("", record.start_at, dialect) | {
        "record_id": record.record_id,
        "received": _DATES[dialect.day](record.start_at.date()),
        "reported": _DATES[dialect.day](reported.date()) if reported else "",
        "specimen": record.details.get("specimen", record.name),
        "method": record.details.get("method", ""),
        "diagnosis": record.details.get("diagnosis", record.text),
        "findings": record.details.get("findings", ""),
        "addendum": record.details.get("addendum", ""),
        "status": dialect.statuses[status],
        "doctor": record.doctor,
    }


def _physiology_row(record: Record, dialect: Dialect) -> Row:
    return _moment("", record.start_at, dialect) | {
        "record_id": record.record_id,
        "exam": (half_width if dialect.half_kana else str)(record.name),
        "code": record.code,
        "findings": record.details.get("findings", record.text),
        "measured": _measured(record),
        "doctor": record.doctor,
    }


def _surgery_row(record: Record, dialect: Dialect) -> Row:
    end = _moment("end_", record.end_at, dialect) if record.end_at else {}
    code = record.code.replace("-", "").replace(" ", "") if dialect.plain_codes else record.code
    return (
        _moment("", record.start_at, dialect)
        | end
        | {
            "record_id": record.record_id,
            "exam": record.name,
            "code": code,
            "body_site": record.details.get("organ", record.body_site),
            "side": dialect.sides.get(record.side or "", ""),
            "diagnosis": record.details.get("diagnosis", ""),
            "findings": record.details.get("findings", record.text),
            "doctor": record.doctor,
        }
    )


_RECORD_ROWS: dict[str, Callable[[Record, Dialect], Row]] = {
    PATHOLOGY: _pathology_row,
    PHYSIOLOGY: _physiology_row,
    SURGERY: _surgery_row,
}


def _measured(record: Record) -> str:
    """HR=72/min;PR=160ms: the value of the record, and what else was measured."""
    parts = [] if record.value is None else [f"{record.value:g}{record.unit}"]
    parts += [f"{name}={value}" for name, value in record.details.items() if name not in _DETAILS_OF_THE_FORM]
    return ";".join(parts)


def _moment(prefix: str, moment: datetime, dialect: Dialect) -> Row:
    """Day, time, and both, as the site writes them; a little after midnight may still belong to the day before."""
    day, clock = moment.date(), moment.strftime(dialect.clock)
    if dialect.midnight_24 and moment.hour == 0:
        day, clock = day - timedelta(days=1), "24" + clock[2:]
    written = _DATES[dialect.day](day)
    return {
        f"{prefix}day": written,
        f"{prefix}time": clock,
        f"{prefix}day_time": f"{written} {clock}",
        f"_{prefix}day": day.isoformat(),
    }


def _date_flaws(row: Row, dialect: Dialect, row_id: str) -> list[str]:
    """Damage the date of a few rows of sites that write eras, as people who type dates do."""
    if not dialect.day.endswith("_era"):
        return []
    day = date.fromisoformat(row["_day"])
    if one_in(400, row_id, "date"):
        row["day"] = era_date(date(day.year, 2, 1), dialect.day)[:-1] + "30"
        row["day_time"] = f"{row['day']} {row['time']}"
        return ["unparsable_date"]
    if day.year == _REIWA.year and day >= _REIWA and one_in(10, row_id, "era"):
        row["day"] = era_date(day, dialect.day, era_of=_REIWA - timedelta(days=1))
        row["day_time"] = f"{row['day']} {row['time']}"
        return ["old_era"]
    return []


def _through_excel(row: Row) -> list[str]:
    """What a spreadsheet makes of a row that is opened and saved; the kinds of damage done.

    Leading zeros go, long numbers turn into E+ notation, a birth date formatted as a number stays a serial number,
    other dates lose their padding, and a text that begins like a formula becomes an error.
    """
    flaws = []
    for name in ("patient_id", "accession", "order"):
        value = row.get(name, "")
        damaged = _excel_number(value)
        if damaged != value:
            row[name] = damaged
            flaws.append(f"excel_{name}")
    row["birth"] = str((date.fromisoformat(row["_birth"]) - _EXCEL_DAY_0).days)
    day = date.fromisoformat(row["_day"])
    row["day"] = f"{day.year}/{day.month}/{day.day}"
    if "_confirmed" in row:
        moment = datetime.fromisoformat(row["_confirmed"])
        row["confirmed"] = f"{moment.year}/{moment.month}/{moment.day} {moment.hour}:{moment.minute:02d}"
    row["time"] = row["time"].removeprefix("0")
    for name in ("findings", "impression", "diagnosis", "indication"):
        if row.get(name, "").startswith(("=", "+", "-")):
            row[name] = "#NAME?"
            flaws.append("excel_formula")
    return flaws


def _excel_number(value: str) -> str:
    if not (value.isascii() and value.isdigit()):
        return value
    if len(value.lstrip("0")) > _EXCEL_DIGITS:
        return f"{float(value):.5E}"
    return value.lstrip("0") or "0"


def _line(cells: list[str], dialect: Dialect, *, quote_all: bool) -> str:
    delimiter = dialect.delimiter
    if dialect.cell_newline != "\n":
        cells = [cell.replace("\n", dialect.cell_newline) for cell in cells]
    quoted = [_quoted(cell) if quote_all or _needs_quotes(cell, delimiter) else cell for cell in cells]
    return delimiter.join(quoted) + "\r\n"


def _needs_quotes(cell: str, delimiter: str) -> bool:
    """A TSV leaves a quote inside a cell as it is; only one at the start of a cell would open a quoted cell."""
    if "\n" in cell or "\r" in cell or delimiter in cell:
        return True
    return cell.startswith('"') if delimiter == "\t" else '"' in cell


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def to_cp932(line: str, gaiji: str = "〓") -> tuple[bytes, Counter[str]]:
    """The line in cp932, and the characters that it lacks and that became ``gaiji``."""
    try:
        return line.encode("cp932"), Counter()
    except UnicodeEncodeError:
        pass
    line = line.translate(_SAME_IN_CP932)
    lost = Counter(char for char in line if not _in_cp932(char))
    return "".join(gaiji if char in lost else char for char in line).encode("cp932"), lost


@lru_cache(maxsize=65536)
def _in_cp932(char: str) -> bool:
    try:
        char.encode("cp932")
    except UnicodeEncodeError:
        return False
    return True


def one_in(count: int, *ids: str) -> bool:
    """The same answer for the same ids, yes once in ``count``."""
    return zlib.crc32("/".join(ids).encode()) % count == 0
