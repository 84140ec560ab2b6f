"""Tables of the department systems (CSV, TSV): radiology, pathology, physiology, surgery, in any dialect.

Which table a file is, and which column holds what, is told by its headers (rules/ingest/ris_csv.yaml); archive.yaml can
name columns and words of values that stand there in no list (`RisCsvOptions`). Nothing depends on the order of columns.

What comes out
    radiology    a PatientRow and an ExamRow of every row, also of exams that nobody has read, and a ReportRow of every
                 version of a report
    pathology, physiology, surgery    a PatientRow and a RecordRow of every row

The text of a report is the whole-report column where there is one. Else it is put together, each part on a line below
its heading (`headings` of the rules), so that the section rules see them; a part that is empty is left out:

    【所見】
    (findings)
    【診断】
    (impression)

Texts of records are their parts without headings: pathology diagnosis, findings, addendum; physiology findings,
measured values; surgery postoperative diagnosis, operative record. Line ends are ``\\n``. Names of people, departments
and requests are not read at all.

What these tables do not say: the exam's dose and contrast (unless they have such columns), ICD-10, drugs. A table
without a status column has final reports. `row` of what is quarantined is the line of the file where the row begins.

Every line below the header is part of a row that comes out, or of one that is quarantined. Where a row is damaged so
that the next ones cannot be told from it, the remedy of the quarantined row says how many lines went with it.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self, TypeVar

from pydantic import Field, field_validator

from reportlabel.errors import InputError
from reportlabel.ingest.codes import (
    fee_code_system,
    files_below,
    is_damaged_number,
    jlac10_system,
    k_code,
    measure,
    narrow,
    options_of,
    patient_number,
    shown_path,
    study_uid,
)
from reportlabel.ingest.dates import age_on, is_blank, parse_age, parse_clock, parse_day, parse_moment
from reportlabel.ingest.dpc import fee_items
from reportlabel.ingest.encoding import WrongEncodingError, choose_encoding, utf8_blocks
from reportlabel.ingest.rows import ExamRow, PatientRow, Quarantined, RecordRow, ReportRow, Row, Source
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.models import Strict
from reportlabel.rulebook.read_yaml import parse, read_yaml

__all__ = ["REASONS", "RisCsvOptions", "files", "read", "recognise", "report_text"]

UNREADABLE = "The file cannot be read."
NOT_A_TABLE = "The file is not a table of text (CSV or TSV)."
UNKNOWN_TABLE = "The headers do not tell whether this is radiology, pathology, physiology or surgery."
COLUMN_MISSING = "A column without which the table cannot be used was not found: patient id or date."
NO_TEXT_COLUMN = (
    "No column with findings, impression or text of the reports was found; the exams were read without them."
)
NO_SITE = "It is not known of which hospital the file or row is."
WRONG_ENCODING = "The file is not in the encoding that archive.yaml names for it."
BROKEN = "The quotes of the row are broken, or a cell does not end."
TOO_LONG = "A cell of the row is longer than the limit."
WRONG_WIDTH = "The row has more or fewer cells than the header."
SHIFTED = "Values of the row stand in the wrong columns."
UNDECODABLE = "The row has bytes that do not fit the encoding of the file."
NO_PATIENT = "The row has no patient id."
DAMAGED_PATIENT = "A spreadsheet has damaged the patient id (exponent notation or an error)."
NO_DATE = "The row has no date."
BAD_DATE = "The date of the row cannot be read."
UNKNOWN_STATUS = "The status of the report is a word that is not known."
TEXT_LOST = "A spreadsheet has replaced a text by an error; the row was used without it."
DUPLICATE = "The row stands twice in the file."
CANCELLED = "The record was cancelled."
DAMAGED_NUMBERS = "A spreadsheet has damaged numbers of exams; the rows were used without these numbers."
UNREAD_VALUES = "Dates or words beside the main ones could not be read; the rows were used without them."

_MAX_LINES = 5_000
_MAX_CHARS = 131_072
"""Of a cell: what the csv module of Python takes. Most longer ones are cells whose closing quote is missing."""

REASONS = {
    UNREADABLE: "Copy the file again, or take it out if it is a link that leads nowhere.",
    NOT_A_TABLE: "Save it as CSV UTF-8, or take it out of the folder.",
    UNKNOWN_TABLE: "Name the table and its columns in archive.yaml (table, columns).",
    COLUMN_MISSING: "Name the columns in archive.yaml (columns: patient_id, day).",
    NO_TEXT_COLUMN: "Name the columns in archive.yaml (columns: findings, impression or text).",
    NO_SITE: "Name the hospital in archive.yaml (site).",
    WRONG_ENCODING: "Correct the encoding in archive.yaml, or leave it out: the bytes of the file tell it.",
    BROKEN: 'Double each " inside a quoted cell and close it; export the row again.',
    TOO_LONG: (
        f"The limit is {_MAX_CHARS:,} characters, and {_MAX_LINES:,} lines a row: split what are several reports."
    ),
    WRONG_WIDTH: "Quote cells that hold line ends or delimiters; export the row again.",
    SHIFTED: "Quote cells that hold delimiters; export the row again.",
    UNDECODABLE: "Export the row again in cp932 or UTF-8, or give the encoding in archive.yaml.",
    NO_PATIENT: "Give the row a patient id.",
    DAMAGED_PATIENT: "The id cannot be restored: export the table again, without opening it in a spreadsheet.",
    NO_DATE: "Give the row a date.",
    BAD_DATE: "Correct the date, or export the table again with dates as YYYY/MM/DD.",
    UNKNOWN_STATUS: "Say in archive.yaml what the word means (values: status), or in rules/ingest/ris_csv.yaml.",
    TEXT_LOST: "Export the table again, without opening it in a spreadsheet.",
    DUPLICATE: "The first was kept; take the copy out.",
    CANCELLED: "Nothing: a cancelled record is no fact.",
    DAMAGED_NUMBERS: "Export the table again, without opening it in a spreadsheet.",
    UNREAD_VALUES: "Correct them, or add the words to rules/ingest/ris_csv.yaml.",
}
"""The reasons for which a row or file is quarantined, and what mends it; of a damaged row that takes several lines of
the file the remedy goes on with their number."""

TableName = Literal["radiology", "pathology", "physiology", "surgery"]
ValueName = Literal["sex", "status", "side", "modality", "body_part"]
Headers = list[str]

_LOOKED_AT = 20
_HEAD_LINES = 200
_DATES = ("birth", "day", "received", "reported", "confirmed")
_DAMAGED = re.compile("[\udc80-\udcff]")
_NOT_COMPARED = re.compile(r"[\s_\-./:()\[\]・、,/:*#№]+")
_IN_BRACKETS = re.compile(r"[(\[][^()\[\]]*[)\]]")
_LINE_END = re.compile("\r\n|\r|\x0b|\x0c")  # a database writes line ends inside cells as vertical tabs
_INTEGER = re.compile(r"\d{1,6}", re.ASCII)
_ID = re.compile(r"(?=.*[0-9])[0-9A-Za-z._/-]+", re.ASCII)
_CAPITALS = re.compile(r"[A-Z][A-Z0-9_ ]{1,15}", re.ASCII)
_BRACKETED_HEADING = re.compile(r"[【\[［＜<■●◆(（]\s*([^】\]］＞>)）\n]+)[】\]］＞>)）]")
_FIRST_LINE = re.compile(r"[■●◆・\s]*([^\n:：]+)[:：]?\s*(?:\n|$)")
_ONE_VALUE = re.compile(r"[^=:;\n]+")


class TableSigns(Strict):
    """Headers that tell a table."""

    signs: Annotated[list[str], Field(min_length=2)]
    unless: list[str] = Field(default_factory=list)


class Tables(Strict):
    """Signs of each table."""

    radiology: TableSigns
    pathology: TableSigns
    physiology: TableSigns
    surgery: TableSigns


class PersonColumns(Strict):
    """Headers of columns that every table may have."""

    patient_id: Headers
    birth: Headers
    sex: Headers
    age: Headers
    site: Headers


class RadiologyColumns(Strict):
    """Headers of radiology tables."""

    day: Headers
    time: Headers
    modality: Headers
    accession: Headers
    study_uid: Headers
    body_part: Headers
    order_name: Headers
    protocol_name: Headers
    findings: Headers
    impression: Headers
    text: Headers
    addendum: Headers
    confirmed: Headers
    confirmed_time: Headers
    version: Headers
    status: Headers
    report_number: Headers
    contrast_agent: Headers
    contrast_ml: Headers
    tracer: Headers
    ctdi_vol: Headers
    dlp: Headers
    height: Headers
    weight: Headers


class PathologyColumns(Strict):
    """Headers of pathology tables."""

    number: Headers
    day: Headers
    received: Headers
    reported: Headers
    specimen: Headers
    organ: Headers
    diagnosis: Headers
    findings: Headers
    addendum: Headers
    text: Headers
    status: Headers
    side: Headers


class PhysiologyColumns(Strict):
    """Headers of physiology tables."""

    number: Headers
    day: Headers
    time: Headers
    reported: Headers
    name: Headers
    code: Headers
    findings: Headers
    measured: Headers
    status: Headers


class SurgeryColumns(Strict):
    """Headers of surgery tables."""

    number: Headers
    day: Headers
    time: Headers
    end_time: Headers
    name: Headers
    code: Headers
    body_site: Headers
    side: Headers
    diagnosis: Headers
    findings: Headers


class Headings(Strict):
    """What stands before the parts of a report."""

    findings: str
    impression: str
    addendum: str


class Sexes(Strict):
    """Words of sexes."""

    M: list[str]
    F: list[str]
    O: list[str]  # noqa: E741  # the code of DICOM


class Statuses(Strict):
    """Words of states of a report."""

    preliminary: list[str]
    final: list[str]
    amended: list[str]
    cancelled: list[str]
    unread: list[str]


class Sides(Strict):
    """Words of sides."""

    right: list[str]
    left: list[str]
    bilateral: list[str]


class RisCsvRules(Strict):
    """rules/ingest/ris_csv.yaml."""

    header_within: Annotated[int, Field(ge=1, le=100)]
    tables: Tables
    person: PersonColumns
    radiology: RadiologyColumns
    pathology: PathologyColumns
    physiology: PhysiologyColumns
    surgery: SurgeryColumns
    headings: Headings
    sexes: Sexes
    statuses: Statuses
    sides: Sides
    modalities: dict[Annotated[str, Field(pattern=r"^[A-Z]{2}$")], list[str]]
    body_parts: dict[Annotated[str, Field(pattern=r"^[A-Z]+$")], list[str]]


class RisCsvOptions(Strict):
    """What archive.yaml may say of a source of tables.

    Attributes:
        table: which table its files are, where the headers do not tell.
        columns: header (or headers) of a field, e.g. ``findings: 読影文``; fields are the keys of the rules. A table
            that has none of them is read by the headers of the rules.
        values: words of a field by its value, e.g. ``status: {"9": final}``, ``modality: {X線: CR}``.
        encoding, delimiter: where the bytes do not tell.
        patient_id_width: digits of the hospital's ids; lost zeros are put back.
        sites: site by what the site column says.
        site_of_folder: the site is the name of the folder below the source in which a file lies.
    """

    table: TableName | None = None
    columns: dict[str, str | list[str]] = Field(default_factory=dict)
    values: dict[ValueName, dict[str, str]] = Field(default_factory=dict)
    encoding: str | None = None
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    patient_id_width: Annotated[int, Field(ge=1, le=20)] | None = None
    sites: dict[str, str] = Field(default_factory=dict)
    site_of_folder: bool = False

    @field_validator("columns")
    @classmethod
    def _known_fields(cls, columns: dict[str, str | list[str]]) -> dict[str, str | list[str]]:
        tables = (PersonColumns, RadiologyColumns, PathologyColumns, PhysiologyColumns, SurgeryColumns)
        fields = sorted({name for table in tables for name in table.model_fields})
        if unknown := sorted(set(columns) - set(fields)):
            raise ValueError(f"unknown field {', '.join(unknown)}; fields are {', '.join(fields)}")
        return columns

    @field_validator("values")
    @classmethod
    def _known_values(cls, values: dict[ValueName, dict[str, str]]) -> dict[ValueName, dict[str, str]]:
        if unknown := sorted(set(values.get("status", {}).values()) - set(Statuses.model_fields)):
            raise ValueError(f"{', '.join(unknown)}: a status is one of {', '.join(Statuses.model_fields)}")
        return values


def recognise(path: Path) -> bool:
    """Whether the headers of a file, or of one of the first files of a folder, are those of a table."""
    if path.is_dir():
        return any(recognise(one) for one in islice(files_below(path), _LOOKED_AT))
    try:
        with path.open("rb") as file:
            holds_zeros = path.suffix.lower() != ".gz" and b"\0" in file.read(4096)
        if holds_zeros and not choose_encoding(path).name.startswith("utf-16"):
            return False
        return isinstance(_open(path, _words(), RisCsvOptions()), _Table)
    except (InputError, OSError):
        return False


def files(source: Source) -> Iterator[Path]:
    """All files of the source, sorted."""
    return files_below(source.path)


def read(path: Path, source: Source) -> Iterator[Row]:
    """The rows of one file.

    Raises:
        ConfigError: what archive.yaml says of the source makes no sense; never for what the file holds.
    """
    options = options_of(source, RisCsvOptions)
    words = _words().with_values(options)
    shown = shown_path(path, source)
    try:
        table = _open(path, words, options)
        if isinstance(table, str):
            yield Quarantined(shown, None, "file", table, REASONS[table])
            return
        yield from _Reader(path, source, options, words, table).rows()
    except WrongEncodingError:
        yield Quarantined(shown, None, "file", WRONG_ENCODING, REASONS[WRONG_ENCODING])
    except InputError:
        yield Quarantined(shown, None, "file", UNREADABLE, REASONS[UNREADABLE])


def report_text(findings: str, impression: str, addendum: str = "") -> str:
    """One text of the parts of a report, each below its heading; every reader that has parts uses it."""
    headings = _words().rules.headings
    parts = ((headings.findings, findings), (headings.impression, impression), (headings.addendum, addendum))
    stripped = ((heading, part.strip()) for heading, part in parts)
    return "\n".join(part if _has_heading(part) else f"{heading}\n{part}" for heading, part in stripped if part)


def _has_heading(part: str) -> bool:
    """Whether a part begins with the name of a part, in brackets or on a line of its own."""
    first = _BRACKETED_HEADING.match(part) or _FIRST_LINE.match(part)
    return first is not None and len(first[1]) < 20 and _folded(first[1]) in _words().heading_names


# --- words ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Words:
    """The rules, ready to look up folded words."""

    rules: RisCsvRules
    columns: Mapping[TableName, Mapping[str, tuple[str, ...]]]
    sexes: Mapping[str, str]
    statuses: Mapping[str, str]
    sides: Mapping[str, str]
    modalities: Mapping[str, str]
    body_parts: Mapping[str, str]
    heading_names: frozenset[str]

    def with_values(self, options: RisCsvOptions) -> Self:
        if not options.values:
            return self

        def more(known: Mapping[str, str], name: ValueName) -> Mapping[str, str]:
            return {**known, **{_folded(word): value for word, value in options.values.get(name, {}).items()}}

        return replace(
            self,
            sexes=more(self.sexes, "sex"),
            statuses=more(self.statuses, "status"),
            sides=more(self.sides, "side"),
            modalities=more(self.modalities, "modality"),
            body_parts=more(self.body_parts, "body_part"),
        )


@lru_cache(maxsize=1)
def _words() -> _Words:
    rules = parse(read_yaml(rules_folder() / "ingest" / "ris_csv.yaml"), RisCsvRules)
    person = {name: tuple(map(_folded, words)) for name, words in rules.person.model_dump().items()}
    tables: tuple[tuple[TableName, Strict], ...] = (
        ("radiology", rules.radiology),
        ("pathology", rules.pathology),
        ("physiology", rules.physiology),
        ("surgery", rules.surgery),
    )
    return _Words(
        rules=rules,
        columns={
            table: person | {name: tuple(map(_folded, words)) for name, words in columns.model_dump().items()}
            for table, columns in tables
        },
        sexes=_by_word(rules.sexes.model_dump()),
        statuses=_by_word(rules.statuses.model_dump()),
        sides=_by_word(rules.sides.model_dump()),
        modalities=_by_word(rules.modalities),
        body_parts=_by_word(rules.body_parts),
        heading_names=frozenset(
            map(_folded, [*rules.radiology.findings, *rules.radiology.impression, *rules.radiology.addendum])
        ),
    )


def _by_word(lists: Mapping[str, list[str]]) -> dict[str, str]:
    return {_folded(word): value for value, words in lists.items() for word in words}


@lru_cache(maxsize=8192)
def _folded(text: str) -> str:
    """What is compared of a header or word: no case, space, brackets or signs, one width."""
    return _NOT_COMPARED.sub("", narrow(text).casefold())


# --- lines and records ------------------------------------------------------------------------------------------------


class _Record(NamedTuple):
    """Cells of a record, the line where it begins, and what is wrong with it if anything.

    ``taken``: of a record whose end is not known, the lines that were read in search of it. ``lines``: of the file,
    as far as they go with it.
    """

    line: int
    cells: list[str]
    fault: str
    taken: tuple[str, ...] = ()
    lines: int = 1


class _TooManyLinesError(Exception):
    """The record being read does not end."""


class _Lines:
    """The lines of a file, of which some can be given back; `taken` are those of the record being read."""

    def __init__(self, source: Iterator[str]) -> None:
        self._source = source
        self._returned: deque[str] = deque()
        self.number = 0
        self.taken: list[str] = []

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._returned.popleft() if self._returned else next(self._source)
        self.number += 1
        self.taken.append(line)
        if len(self.taken) > _MAX_LINES:
            raise _TooManyLinesError
        return line

    def keep_first(self) -> None:
        """Give back all lines of the record but the first."""
        self._returned.extendleft(reversed(self.taken[1:]))
        self.number -= len(self.taken) - 1
        del self.taken[1:]


def _lines(path: Path, encoding: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    rest = ""
    for block in utf8_blocks(path, encoding=encoding):
        *lines, rest = (rest + decoder.decode(block)).split("\n")
        for line in lines:
            yield line + "\n"
    rest += decoder.decode(b"", True)
    if rest.strip("\x1a"):
        yield rest


def _records(lines: _Lines, delimiter: str) -> Iterator[_Record]:
    """Records one by one; after a fault the lines below the first one of the broken record are read anew."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.taken.clear()
        start = lines.number + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (csv.Error, _TooManyLinesError) as error:
            long = isinstance(error, _TooManyLinesError) or "field limit" in str(error)
            taken = tuple(lines.taken)
            lines.keep_first()
            yield _Record(start, [], TOO_LONG if long else BROKEN, taken)
            continue
        if cells and (len(cells) > 1 or cells[0].strip()):
            yield _Record(start, cells, "")


# --- which table ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    """A file that can be read: how, and in which column each field stands."""

    name: TableName
    encoding: str
    delimiter: str
    header: list[str]
    header_line: int
    width: int
    columns: Mapping[str, int]


def _open(path: Path, words: _Words, options: RisCsvOptions) -> _Table | str:
    """The table of a file, or the reason why there is none."""
    encoding = choose_encoding(path, encoding=options.encoding).name
    head = list(islice(_lines(path, encoding), _HEAD_LINES))
    found: _Table | str = NOT_A_TABLE
    for delimiter in [options.delimiter] if options.delimiter else ["\t", ",", ";"]:
        records = _records(_Lines(iter(head)), delimiter)
        for record in islice(records, words.rules.header_within):
            if record.fault or sum(bool(cell.strip()) for cell in record.cells) < 3:
                continue
            table = _table(record, words, options, encoding=encoding, delimiter=delimiter)
            if isinstance(table, _Table):
                return replace(table, width=table.width + 1) if _ends_with_a_delimiter(records, table.width) else table
            if found != COLUMN_MISSING:
                found = table
    return found


def _ends_with_a_delimiter(records: Iterator[_Record], width: int) -> bool:
    """Whether every row, but not the header, has a delimiter at its end."""
    rows = [record.cells for record in records if not record.fault]
    return bool(rows) and all(len(cells) == width + 1 and not cells[-1].strip() for cells in rows)


def _table(record: _Record, words: _Words, options: RisCsvOptions, *, encoding: str, delimiter: str) -> _Table | str:
    headers = [_folded(cell) for cell in record.cells]
    name = options.table or _table_name(headers, words.rules.tables)
    if name is None:
        return UNKNOWN_TABLE
    columns = _columns(record.cells, words.columns[name], options.columns)
    if "patient_id" not in columns or ("day" not in columns and "received" not in columns):
        return COLUMN_MISSING
    return _Table(name, encoding, delimiter, record.cells, record.line, len(headers), columns)


def _table_name(headers: list[str], tables: Tables) -> TableName | None:
    scores: dict[TableName, int] = {}
    names: tuple[tuple[TableName, TableSigns], ...] = (
        ("radiology", tables.radiology),
        ("pathology", tables.pathology),
        ("physiology", tables.physiology),
        ("surgery", tables.surgery),
    )
    for name, table in names:
        if any(_folded(sign) in header for sign in table.unless for header in headers):
            continue
        scores[name] = sum(any(_folded(sign) in header for sign in table.signs) for header in headers)
    ranked = sorted(scores.items(), key=lambda item: -item[1])
    if not ranked or ranked[0][1] < 2 or (len(ranked) > 1 and ranked[0][1] == ranked[1][1]):
        return None
    return ranked[0][0]


def _columns(
    cells: list[str], known: Mapping[str, tuple[str, ...]], said: Mapping[str, str | list[str]]
) -> dict[str, int]:
    """The column of each field: as archive.yaml says, else by the first of its headers that is there."""
    exact: dict[str, int] = {}
    loose: dict[str, int] = {}
    for place, cell in enumerate(cells):
        exact.setdefault(_folded(cell), place)
        loose.setdefault(_folded(_IN_BRACKETS.sub("", narrow(cell))), place)
    exact.pop("", None)
    loose.pop("", None)
    columns = {}
    for name, headers in known.items():
        one = said.get(name, [])
        wanted = (*map(_folded, [one] if isinstance(one, str) else one), *headers)
        index = next((places[header] for places in (exact, loose) for header in wanted if header in places), None)
        if index is not None:
            columns[name] = index
    return columns


@lru_cache(maxsize=8192)
def _name(text: str) -> str | None:
    return " ".join(narrow(text).split()) or None


# --- rows -------------------------------------------------------------------------------------------------------------

_Kept = TypeVar("_Kept")


@dataclass
class _Broken:
    """A row that cannot be read: where it begins, why, its last line so far, and how many cells it has up to there."""

    line: int
    fault: str
    last_line: int
    width: int

    def record(self) -> _Record:
        return _Record(self.line, [], self.fault, lines=self.last_line - self.line + 1)


class _Row:
    """The cells of one row by field; cells that it lacks are empty."""

    __slots__ = ("_values", "cells", "columns", "line")

    def __init__(self, line: int, cells: list[str], columns: Mapping[str, int]) -> None:
        self.line = line
        self.cells = cells
        self.columns = columns
        self._values = {name: cells[index].strip() for name, index in columns.items() if index < len(cells)}

    def raw(self, name: str) -> str:
        return self._values.get(name, "")

    def word(self, name: str) -> str | None:
        """A name in one width, on one line."""
        text = self._values.get(name)
        return _name(text) if text else None

    def amount(self, name: str) -> float | None:
        """A positive number, whatever unit follows it."""
        text = self._values.get(name)
        found = measure(text) if text else None
        return found.value if found and found.value > 0 else None

    def text(self, name: str) -> str:
        text = self._values.get(name, "")
        return _LINE_END.sub("\n", text).strip() if text else ""


@dataclass
class _Reader:
    path: Path
    source: Source
    options: RisCsvOptions
    words: _Words
    table: _Table
    seen: set[int] = field(default_factory=set)
    people: set[int] = field(default_factory=set)
    last_exam: ExamRow | None = None
    notes: Counter[str] = field(default_factory=Counter)
    folder_site: str | None = None

    def rows(self) -> Iterator[Row]:
        if self.options.site_of_folder:
            parts = self.path.relative_to(self.source.path).parts
            self.folder_site = parts[0] if len(parts) > 1 else None
        named = self.source.site or self.folder_site
        if named is None and "site" not in self.table.columns:
            yield self._quarantined(None, "file", NO_SITE)
            return
        if self.table.name == "radiology" and not {"findings", "impression", "text"} & set(self.table.columns):
            yield self._quarantined(None, "file", NO_TEXT_COLUMN)
        for record in self._good_records():
            if record.fault:
                found = self._quarantined(record.line, self.table.name, record.fault)
                several = f"{found.remedy} Lines: {record.lines}."
                yield found if record.lines == 1 else replace(found, remedy=several)
                continue
            yield from self._row(_Row(record.line, record.cells, self.table.columns))
        for reason, count in sorted(self.notes.items()):
            shown = shown_path(self.path, self.source)
            yield Quarantined(shown, None, self.table.name, reason, f"{REASONS[reason]} Values: {count}.")

    def _quarantined(self, row: int | None, kind: str, reason: str, *, patient_id: str | None = None) -> Quarantined:
        shown = shown_path(self.path, self.source, patient_id=patient_id)
        return Quarantined(shown, row, kind, reason, REASONS[reason])

    def _good_records(self) -> Iterator[_Record]:
        """Records below the header, good and broken; no line is passed over without being counted in one of them."""
        width = self.table.width
        lines = _Lines(_lines(self.path, self.table.encoding))
        for _ in islice(lines, self.table.header_line - 1):
            lines.taken.clear()
        broken: _Broken | None = None
        for record in _records(lines, self.table.delimiter):
            if record.line == self.table.header_line:
                continue
            if record.cells == self.table.header:  # again, in a file of several
                if broken:
                    yield broken.record()
                broken = None
                continue
            fault = record.fault or ("" if len(record.cells) == width else WRONG_WIDTH)
            taken = record.taken or lines.taken
            if self._swallows(taken):
                fault = BROKEN
            whole = fault in ("", WRONG_WIDTH)
            cells = record.cells if whole else self._first_cells(taken[0])
            if broken and self._goes_with(broken, cells, fault):
                lines.keep_first()  # the lines below are looked at one by one
                broken.last_line = record.line
                broken.width += len(cells) - 1
                continue
            if broken:
                yield broken.record()
            broken = None
            if fault:
                if not whole:
                    lines.keep_first()
                broken = _Broken(record.line, fault, record.line + len(lines.taken) - 1, len(cells))
                continue
            damaged = any(not line.isascii() and _DAMAGED.search(line) for line in lines.taken)
            yield record._replace(fault=UNDECODABLE, lines=len(lines.taken)) if damaged else record
        if broken:
            yield broken.record()

    def _swallows(self, taken: Sequence[str]) -> bool:
        """Whether a line below the first one of a record begins a row: then a quote is missing between the two."""
        if len(taken) == 1:
            return False
        place, delimiter = self.table.columns["patient_id"], self.table.delimiter
        for line in taken[1:]:
            cells = line.split(delimiter, place + 1)
            # nearly no line of a text has an id where one would stand; only then all of its cells are looked at
            named = len(cells) > place and _ID.fullmatch(cells[place].strip(' "\r\n'))
            if named and self._may_begin(self._first_cells(line)):
                return True
        return False

    def _first_cells(self, line: str) -> list[str]:
        """The cells of a line by itself, as far as its quotes go."""
        try:
            return next(csv.reader([line], delimiter=self.table.delimiter), [])
        except csv.Error:
            return line[:_MAX_CHARS].split(self.table.delimiter)

    def _has_id_and_date(self, cells: list[str]) -> bool:
        """Whether cells look like a row: an id without spaces, and a date."""
        row = _Row(0, cells, self.table.columns)
        return bool(row.raw("patient_id")) and " " not in row.raw("patient_id") and self._start(row) is not None

    def _may_begin(self, cells: list[str]) -> bool:
        """Whether what is left of a row looks like one: an id with digits; a date or the word of a sex or modality."""
        row = _Row(0, cells, self.table.columns)
        if not _ID.fullmatch(row.raw("patient_id")):
            return False
        return (
            any(parse_moment(row.raw(name)) is not None for name in _DATES)
            or _folded(row.raw("sex")) in self.words.sexes
            or _folded(row.raw("modality")) in self.words.modalities
        )

    def _goes_with(self, broken: _Broken, cells: list[str], fault: str) -> bool:
        """Whether cells that come after a broken row are taken for more of it; never what looks like a row.

        After broken quotes all else is but a whole row without its id or its date. After a row with too few cells that
        is which makes it no longer than a row: a line end stood in a cell without quotes.
        """
        if self._may_begin(cells) if fault else self._has_id_and_date(cells):
            return False
        if broken.fault != WRONG_WIDTH:
            row = _Row(0, cells, self.table.columns)
            return bool(fault) or not (row.raw("patient_id").isdigit() or self._start(row) is not None)
        return bool(fault) and broken.width + len(cells) - 1 <= self.table.width

    # --- what every table has

    def _row(self, row: _Row) -> Iterator[Row]:
        kind = self.table.name
        written = row.raw("patient_id")
        patient_id = patient_number(written, width=self.options.patient_id_width)
        if patient_id is None:
            if not any(cell.strip() for cell in row.cells):
                return  # a blank row of a spreadsheet
            yield self._quarantined(row.line, kind, DAMAGED_PATIENT if written else NO_PATIENT)
            return
        key = hash(tuple(row.cells))
        if key in self.seen:
            yield self._quarantined(row.line, kind, DUPLICATE, patient_id=patient_id)
            return
        self.seen.add(key)
        site = self._site(row)
        start = self._start(row)
        if site is None or start is None:
            reason = NO_SITE if site is None else self._date_fault(row)
            yield self._quarantined(row.line, kind, reason, patient_id=patient_id)
            return
        clock, birth = row.raw("time"), row.raw("birth")
        if clock:
            self._noted(parse_clock(clock), clock)
        sex = self._sex(row)
        birth_date = self._noted(parse_day(birth), birth)
        if sex or birth_date:
            person = PatientRow(site, patient_id, sex, birth_date)
            if hash(person) not in self.people:
                self.people.add(hash(person))
                yield person
        if kind == "radiology":
            age = parse_age(row.raw("age"))
            if age is None and birth_date:
                age = age_on(start.date(), birth_date)
            yield from self._radiology(row, site, patient_id, start, sex, age)
        elif kind == "pathology":
            yield from self._pathology(row, site, patient_id, start)
        elif kind == "physiology":
            yield from self._physiology(row, site, patient_id, start)
        else:
            yield from self._surgery(row, site, patient_id, start)

    def _site(self, row: _Row) -> str | None:
        if self.source.site is not None:
            return self.source.site
        said = row.raw("site")
        return self.options.sites.get(said, said) or self.folder_site

    def _start(self, row: _Row) -> datetime | None:
        written, clock = row.raw("day"), row.raw("time")
        moment = parse_moment(written, clock=clock)
        if moment is None and is_blank(written):
            moment = parse_moment(row.raw("received"), clock=clock)
        return moment

    def _date_fault(self, row: _Row) -> str:
        """Why a row has no date: a cell beside it holds one that is of no date, or it is blank, or bad."""
        columns = row.columns
        dates = {columns[name] for name in _DATES if name in columns}
        place = columns.get("day", columns.get("received", 0))
        beside = [row.cells[at] for at in (place - 1, place + 1) if at not in dates and 0 <= at < len(row.cells)]
        if any(not cell.strip().isdigit() and parse_day(cell) is not None for cell in beside):
            return SHIFTED
        return NO_DATE if is_blank(row.raw("day")) and is_blank(row.raw("received")) else BAD_DATE

    def _sex(self, row: _Row) -> str | None:
        written = row.raw("sex")
        return self._noted(self.words.sexes.get(_folded(written)), written)

    def _noted(self, value: _Kept | None, written: str) -> _Kept | None:
        """The value; where something is written that gave none, it is counted."""
        if value is None and not is_blank(written):
            self.notes[UNREAD_VALUES] += 1
        return value

    def _number(self, row: _Row, name: str) -> str | None:
        """A number of an exam or record, if no spreadsheet has damaged it."""
        written = row.raw(name)
        if written and is_damaged_number(written):
            self.notes[DAMAGED_NUMBERS] += 1
            return None
        return written or None

    def _texts(self, row: _Row, *names: str) -> list[str] | None:
        """Texts of columns; None where a spreadsheet has replaced one by an error."""
        texts = [row.text(name) for name in names]
        return None if any(is_damaged_number(text) for text in texts if text[:1] == "#") else texts

    def _moment_beside(self, row: _Row, name: str, clock: str = "") -> datetime | None:
        written = row.raw(name)
        return self._noted(parse_moment(written, clock=row.raw(clock) if clock else None), written)

    def _side(self, row: _Row) -> str | None:
        written = row.raw("side")
        return self._noted(self.words.sides.get(_folded(written)), written)

    # --- the tables

    def _radiology(
        self, row: _Row, site: str, patient_id: str, start: datetime, sex: str | None, age: int | None
    ) -> Iterator[Row]:
        written, uid = row.raw("modality"), row.raw("study_uid")
        modality = self._noted(self.words.modalities.get(_folded(written)), written)
        place = row.word("body_part")
        body_part = self._body_part(place) if place else None
        exam = ExamRow(
            site=site,
            patient_id=patient_id,
            study_instance_uid=self._noted(study_uid(uid), uid) if uid else None,
            accession_number=self._number(row, "accession"),
            started_at=start,
            modality=modality,
            body_part=body_part,
            order_name=row.word("order_name") or (place if body_part is None else None),
            protocol_name=row.word("protocol_name"),
            contrast_agent=row.word("contrast_agent"),
            contrast_ml=row.amount("contrast_ml"),
            ctdi_vol=row.amount("ctdi_vol"),
            dlp=row.amount("dlp"),
            tracer=row.word("tracer"),
            age_years=age,
            sex=sex,
            height_cm=row.amount("height"),
            weight_kg=row.amount("weight"),
        )
        if exam != self.last_exam:
            self.last_exam = exam
            yield exam
        texts = self._texts(row, "text", "findings", "impression", "addendum")
        if texts is None:
            yield self._quarantined(row.line, "report", TEXT_LOST, patient_id=patient_id)
            return
        whole, findings, impression, addendum = texts
        text = whole or report_text(findings, impression, addendum)
        if not text:
            return
        confirmed_at = self._moment_beside(row, "confirmed", "confirmed_time")
        status = self._status(row, confirmed_at)
        if status is None:
            yield self._quarantined(row.line, "report", UNKNOWN_STATUS, patient_id=patient_id)
            return
        yield ReportRow(
            site=site,
            patient_id=patient_id,
            text=text,
            version=self._version(row),
            status=status,
            report_number=self._number(row, "report_number"),
            study_instance_uid=exam.study_instance_uid,
            accession_number=exam.accession_number,
            exam_at=start,
            modality=modality,
            confirmed_at=confirmed_at,
        )

    def _body_part(self, place: str) -> str | None:
        known = self.words.body_parts.get(_folded(place))
        return known or (place if _CAPITALS.fullmatch(place) else None)

    def _status(self, row: _Row, confirmed_at: datetime | None) -> str | None:
        """The status of a report that has a text; None where its word is not known."""
        written = row.raw("status")
        if "status" not in row.columns:
            return "final"
        if not written:
            return "final" if confirmed_at else "preliminary"
        status = self.words.statuses.get(_folded(written))
        return "preliminary" if status == "unread" else status

    def _version(self, row: _Row) -> int | None:
        found = _INTEGER.search(narrow(row.raw("version")))
        return int(found[0]) if found else None

    def _certainty(self, row: _Row) -> str | None:
        """Of a record: final, preliminary, corrected, cancelled; None where the word is not known."""
        written = row.raw("status")
        if not written:
            return "final"
        status = self.words.statuses.get(_folded(written))
        return {"amended": "corrected", "unread": "preliminary"}.get(status or "", status)

    def _certain(self, row: _Row, patient_id: str) -> str | Quarantined:
        certainty = self._certainty(row)
        if certainty is None or certainty == "cancelled":
            reason = CANCELLED if certainty else UNKNOWN_STATUS
            return self._quarantined(row.line, self.table.name, reason, patient_id=patient_id)
        return certainty

    def _record_text(self, row: _Row, patient_id: str, *names: str) -> tuple[str | None, Quarantined | None]:
        texts = self._texts(row, *names)
        if texts is None:
            return None, self._quarantined(row.line, self.table.name, TEXT_LOST, patient_id=patient_id)
        return "\n".join(text for text in texts if text) or None, None

    def _pathology(self, row: _Row, site: str, patient_id: str, start: datetime) -> Iterator[Row]:
        certainty = self._certain(row, patient_id)
        if isinstance(certainty, Quarantined):
            yield certainty
            return
        names = ("text",) if row.raw("text") else ("diagnosis", "findings", "addendum")
        text, lost = self._record_text(row, patient_id, *names)
        if lost:
            yield lost
        number = self._number(row, "number")
        specimen, organ = row.word("specimen"), row.word("organ")
        yield RecordRow(
            site=site,
            patient_id=patient_id,
            kind="pathology",
            start_at=start,
            reported_at=self._moment_beside(row, "reported"),
            code_system="local" if number else None,
            code=number,
            name=specimen or organ,
            text=text,
            certainty=certainty,
            body_site=organ if organ != specimen else None,
            side=self._side(row),
            number=number,
        )

    def _physiology(self, row: _Row, site: str, patient_id: str, start: datetime) -> Iterator[Row]:
        certainty = self._certain(row, patient_id)
        if isinstance(certainty, Quarantined):
            yield certainty
            return
        text, lost = self._record_text(row, patient_id, "findings", "measured")
        if lost:
            yield lost
        measured = row.text("measured")
        single = measure(measured) if _ONE_VALUE.fullmatch(measured) else None
        code = self._number(row, "code")
        yield RecordRow(
            site=site,
            patient_id=patient_id,
            kind="physiology",
            start_at=start,
            reported_at=self._moment_beside(row, "reported"),
            code_system=jlac10_system(code) if code else None,
            code=code,
            name=row.word("name"),
            text=text,
            value=single.value if single else None,
            unit=(single.unit or None) if single else None,
            certainty=certainty,
            number=self._number(row, "number"),
        )

    def _surgery(self, row: _Row, site: str, patient_id: str, start: datetime) -> Iterator[Row]:
        text, lost = self._record_text(row, patient_id, "diagnosis", "findings")
        if lost:
            yield lost
        written = self._number(row, "code")
        code = k_code(written, items=fee_items()) if written else None
        yield RecordRow(
            site=site,
            patient_id=patient_id,
            kind="surgery",
            start_at=start,
            end_at=_end(start, row),
            code_system=fee_code_system(code) if code else ("local" if written else None),
            code=code or written,
            name=row.word("name"),
            text=text,
            certainty="final",
            body_site=row.word("body_site"),
            side=self._side(row),
            number=self._number(row, "number"),
        )


def _end(start: datetime, row: _Row) -> datetime | None:
    """The end of an operation on the day of its start, or the next day where that is before it."""
    written = row.raw("end_time")
    since = parse_clock(written)
    if since is None:
        return parse_moment(written)
    day = parse_day(row.raw("day"))
    end = (datetime.combine(day, datetime.min.time()) if day else start.replace(hour=0, minute=0, second=0)) + since
    return end if end >= start else end + timedelta(days=1)
