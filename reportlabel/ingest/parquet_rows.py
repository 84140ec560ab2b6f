"""Tables in Parquet whose columns are those of the rows: patients, exams, reports, records.

A folder holds any of ``patients.parquet``, ``exams.parquet``, ``reports.parquet``, ``records.parquet``, in parts or
folders if need be (``reports-0001.parquet``, ``reports/0001.parquet``); a file of another name is told by its columns.
Columns are the fields of `reportlabel.ingest.rows`; others are not read. Besides:

- ``exam_id`` of exams stands for the accession number where there is no such column; reports may name their exam by it
  (site, patient, numbers, time and modality are then those of the exam).
- ``report_id`` and ``record_id`` stand for ``report_number`` and ``number``.
- Reports without a ``text`` may have ``findings`` and ``impression`` (or ``findings_text``, ``impression_text``).

Times may be timestamps, dates or strings; ids may be numbers. An empty status is final, an empty certainty final or,
of diagnoses, confirmed. `row` of what is quarantined is the number of the row in the file, from 1.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from reportlabel.ingest.codes import (
    fee_code_system,
    files_below,
    icd10,
    is_damaged_number,
    k_code,
    narrow,
    options_of,
    patient_number,
    shown_path,
    study_uid,
)
from reportlabel.ingest.dates import DateRules, is_blank, parse_day, parse_moment
from reportlabel.ingest.dpc import fee_items
from reportlabel.ingest.duplicates import SeenReports
from reportlabel.ingest.ris_csv import report_text
from reportlabel.ingest.rows import ExamRow, PatientRow, Quarantined, RecordRow, ReportRow, Row, Source
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.models import Strict
from reportlabel.rulebook.read_yaml import parse, read_yaml

__all__ = ["REASONS", "ParquetOptions", "depends", "files", "read", "recognise"]

UNREADABLE = "The file cannot be read as Parquet."
UNKNOWN_TABLE = "The columns do not tell whether these are patients, exams, reports or records."
COLUMN_MISSING = "A column without which the table cannot be used is missing."
COLUMN_TYPE = "A column has a type that cannot be used."
MISSPELT = "A column that is not known was not read; its name is close to one that is missing."
NO_SITE = "It is not known of which hospital the row is."
NO_PATIENT = "The row has no patient id."
DAMAGED_PATIENT = "A spreadsheet has damaged the patient id (exponent notation or an error)."
NO_DATE = "The row has no date."
BAD_DATE = "The date of the row cannot be read."
NO_EXAM = "The exam that the report names is not in the table of exams."
NO_KEY = "The exam has no UID, no accession number and no date."
NO_TEXT = "The report has no text."
UNKNOWN_STATUS = "The status of the report is none of preliminary, final, amended, cancelled."
UNKNOWN_KIND = "The kind is none of pathology, lab, physiology, surgery, diagnosis, medication."
UNKNOWN_CERTAINTY = "The certainty is none that its kind can have."
CANCELLED = "The record was cancelled."
UNDECODABLE = "The row has bytes that are not valid UTF-8."
DUPLICATE = "The row stands twice in the file."
UNREAD_VALUES = "Values beside the main ones could not be read; the rows were used without them."

REASONS = {
    UNREADABLE: "Copy the file again, or take it out if it is a link that leads nowhere.",
    UNKNOWN_TABLE: "Name the file after its table, or take it out of the folder.",
    COLUMN_MISSING: "Add the column, or correct its name:",
    COLUMN_TYPE: "Write it as strings, numbers, dates or timestamps:",
    MISSPELT: "Correct the name if it is meant:",
    NO_SITE: "Name the hospital in archive.yaml (site), or add a column site.",
    NO_PATIENT: "Give the row a patient id.",
    DAMAGED_PATIENT: "The id cannot be restored: write the table again, without a spreadsheet.",
    NO_DATE: "Give the row a date.",
    BAD_DATE: "Correct the date, or write it as a timestamp.",
    NO_EXAM: "Add the exam, or correct the exam_id.",
    NO_KEY: "Give the exam a UID, an accession number or a date.",
    NO_TEXT: "Give the report a text, or leave it out.",
    UNKNOWN_STATUS: "Correct the status.",
    UNKNOWN_KIND: "Correct the kind.",
    UNKNOWN_CERTAINTY: "Write confirmed or suspected of diagnoses; final, preliminary or corrected of the others.",
    CANCELLED: "Nothing: a cancelled record is no fact.",
    UNDECODABLE: "Write the row again as UTF-8.",
    DUPLICATE: "The first was kept; take the copy out.",
    UNREAD_VALUES: "Correct them.",
}
"""The reasons for which a row or file is quarantined, and what mends it."""

TableName = Literal["patients", "exams", "reports", "records"]

_DAMAGE = (pa.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError)
"""What the libraries raise for a damaged file."""
_BATCH = 16_384
_LOOKED_AT = 20
_EXAMS_KEPT = 500_000
"""Tables of exams up to this many rows are kept in memory while reports are read; larger ones are searched."""
_TABLES: Mapping[TableName, type[Any]] = {
    "patients": PatientRow,
    "exams": ExamRow,
    "reports": ReportRow,
    "records": RecordRow,
}
_TOLD_BY: Mapping[TableName, frozenset[str]] = {
    "records": frozenset(("kind", "start_at", "patient_id")),
    "exams": frozenset(("modality", "started_at", "patient_id")),
    "reports": frozenset(("text", "confirmed_at")),
    "patients": frozenset(("patient_id", "birth_date", "sex")),
}
"""Columns that tell a table whose file has another name."""
_ALSO: Mapping[TableName, tuple[str, ...]] = {
    "patients": (),
    "exams": ("exam_id",),
    "reports": ("exam_id", "report_id", "findings", "impression", "findings_text", "impression_text"),
    "records": ("record_id",),
}
_EXAM_FIELDS = ("site", "patient_id", "study_instance_uid", "accession_number", "started_at", "modality")
_MOMENTS = frozenset(("started_at", "exam_at", "confirmed_at", "start_at", "end_at", "reported_at"))
_NUMBERS = frozenset(("contrast_ml", "ctdi_vol", "dlp", "height_cm", "weight_kg", "value"))
_POSITIVE = _NUMBERS - {"value"}
_INTEGERS = frozenset(("version", "age_years"))
_NAMES = frozenset(("order_name", "protocol_name", "contrast_agent", "tracer", "name", "unit", "body_site"))
_TEXTS = frozenset(("text", "findings", "impression", "findings_text", "impression_text"))
_WORDS: Mapping[str, frozenset[str]] = {
    "sex": frozenset("MFO"),
    "side": frozenset(("right", "left", "bilateral")),
}
_STATUSES = frozenset(("preliminary", "final", "amended", "cancelled"))
_CERTAINTIES: Mapping[str, tuple[str, frozenset[str]]] = {
    "diagnosis": ("confirmed", frozenset(("confirmed", "suspected"))),
    **dict.fromkeys(
        ("pathology", "lab", "physiology", "surgery", "medication"),
        ("final", frozenset(("final", "preliminary", "corrected"))),
    ),
}
_SYSTEMS = frozenset(("JLAC10", "ICD-10", "YJ", "HOT9", "receipt", "MEDIS", "local"))


class ParquetOptions(Strict):
    """What archive.yaml may say of a source of Parquet tables.

    Attributes:
        patient_id_width: digits of the hospital's ids; lost zeros are put back.
        sites: site by what the site column says.
        site_of_folder: the site is the name of the folder below the source in which a file lies.
    """

    patient_id_width: Annotated[int, Field(ge=1, le=20)] | None = None
    sites: dict[str, str] = Field(default_factory=dict)
    site_of_folder: bool = False


def recognise(path: Path) -> bool:
    """Whether a file has the columns of a table, or a folder holds such files."""
    if path.is_dir():
        return any(recognise(one) for one in islice(files_below(path), _LOOKED_AT))
    return _table_of(path) is not None


def files(source: Source) -> Iterator[Path]:
    """The files named after a table or with the columns of one, sorted; other files of the folder are not ours."""
    for path in files_below(source.path):
        if path.suffix.lower() == ".parquet" and (path == source.path or _named(path) or _table_of(path)):
            yield path


def depends(path: Path, source: Source) -> list[Path]:
    """The tables of exams, of a file of reports that names its exams by exam_id; else none."""
    columns = _columns_of(path)
    if _table_of(path) != "reports" or columns is None or "exam_id" not in columns:
        return []
    return [one for one in files(source) if one != path and _table_of(one) == "exams"]


def read(path: Path, source: Source) -> Iterator[Row]:
    """The rows of one file.

    Raises:
        ConfigError: what archive.yaml says of the source makes no sense; never for what the file holds.
    """
    options = options_of(source, ParquetOptions)
    shown = shown_path(path, source)
    columns = _columns_of(path)
    if columns is None:
        yield Quarantined(shown, None, "file", UNREADABLE, REASONS[UNREADABLE])
        return
    table = _table_of(path)
    if table is None:
        yield Quarantined(shown, None, "file", UNKNOWN_TABLE, REASONS[UNKNOWN_TABLE])
        return
    missing = _missing(table, columns)
    if missing:
        yield Quarantined(shown, None, "file", COLUMN_MISSING, f"{REASONS[COLUMN_MISSING]} {', '.join(missing)}.")
        return
    reader = _Reader(path, source, options, table, columns)
    try:
        yield from reader.rows()
    except _DAMAGE:
        yield Quarantined(shown, None, "file", UNREADABLE, REASONS[UNREADABLE])


# --- which table ------------------------------------------------------------------------------------------------------


def _columns_of(path: Path) -> list[str] | None:
    try:
        return list(pq.read_schema(path).names)
    except _DAMAGE:
        return None


def _named(path: Path) -> TableName | None:
    """The table after which a file, or the folder in which it lies, is named."""
    for name in (path.stem.lower(), path.parent.name.lower()):
        for table in _TABLES:
            if name == table or (name.startswith(table) and not name[len(table)].isalnum()):
                return table
    return None


def _table_of(path: Path) -> TableName | None:
    columns = _columns_of(path) if path.suffix.lower() == ".parquet" else None
    if columns is None:
        return None
    known = _named(path)
    if known is not None and (_TOLD_BY[known] & set(columns) or not _missing(known, columns)):
        return known
    return next((table for table, told in _TOLD_BY.items() if told <= set(columns)), None)


def _missing(table: TableName, columns: list[str]) -> list[str]:
    """Columns without which a table cannot be used."""
    there = set(columns)
    if table == "reports":
        missing = [] if there & {"patient_id", "exam_id"} else ["patient_id or exam_id"]
        return missing + ([] if there & _TEXTS else ["text"])
    needed = {"patients": ("patient_id",), "exams": ("patient_id",), "records": ("patient_id", "kind", "start_at")}
    return [name for name in needed[table] if name not in there]


# --- columns ----------------------------------------------------------------------------------------------------------


class _Column(NamedTuple):
    """The values of a column in one batch, and the places of those that could not be read."""

    values: list[Any]
    unread: frozenset[int] = frozenset()


def _as_text(series: pl.Series) -> pl.Series:
    """Strings without the spaces around them, nothing for empty ones."""
    if series.dtype.is_float():
        whole = series.cast(pl.Int64, strict=False)
        series = pl.select(
            pl.when(whole.cast(pl.Float64) == series.cast(pl.Float64))
            .then(whole.cast(pl.String))
            .otherwise(series.cast(pl.String))
        ).to_series()
    stripped = series.cast(pl.String).str.strip_chars()
    return stripped.set(stripped == "", None)


@lru_cache(maxsize=1)
def _known_days() -> tuple[date, date]:
    """The days that rules/ingest/dates.yaml believes; a time far outside of them would end polars."""
    rules = parse(read_yaml(rules_folder() / "ingest" / "dates.yaml"), DateRules)
    return rules.earliest, rules.latest


def _believed(series: pl.Series) -> tuple[pl.Series, frozenset[int]]:
    """Times or dates without those that cannot be, and the places of those."""
    least, most = ((day - date(1970, 1, 1)).days for day in _known_days())
    if isinstance(series.dtype, pl.Datetime):
        ticks = 86_400 * {"ms": 10**3, "us": 10**6, "ns": 10**9}[series.dtype.time_unit]
        least, most = least * ticks, most * ticks
    good = series.to_physical().is_between(least, most)
    return series.set(~good, None), frozenset((~good).fill_null(value=False).arg_true())


def _moments(series: pl.Series) -> _Column:
    if isinstance(series.dtype, pl.Datetime):
        zone = series.dtype.time_zone
        series, bad = _believed(series)
        if zone is not None:
            series = series.dt.convert_time_zone("Asia/Tokyo").dt.replace_time_zone(None)
        return _Column(series.cast(pl.Datetime("us")).dt.truncate("1s").to_list(), bad)
    if series.dtype == pl.Date:
        series, bad = _believed(series)
        return _Column(series.cast(pl.Datetime("us")).to_list(), bad)
    return _each(_as_text(series), parse_moment, blank=is_blank)


def _days(series: pl.Series) -> _Column:
    if series.dtype.is_temporal():
        found = _moments(series)
        return _Column([moment.date() if moment else None for moment in found.values], found.unread)
    return _each(_as_text(series), parse_day, blank=is_blank)


def _amounts(series: pl.Series, *, positive: bool, whole: bool) -> _Column:
    if not series.dtype.is_numeric():
        text = _as_text(series)
        numbers = text.cast(pl.Float64, strict=False)
        unread = frozenset((numbers.is_null() & text.is_not_null()).arg_true())
    else:
        numbers, unread = series.cast(pl.Float64), frozenset[int]()
    numbers = numbers.set(~numbers.is_finite(), None)
    if positive:
        numbers = numbers.set(numbers <= 0, None)
    return _Column((numbers.cast(pl.Int64, strict=False) if whole else numbers).to_list(), unread)


def _each(
    series: pl.Series, convert: Callable[[str], Any], *, blank: Callable[[str], bool] = lambda _: False
) -> _Column:
    """Every distinct string converted once."""
    known: dict[str | None, Any] = {None: None}
    bad = set()
    for text in series.unique().drop_nulls():
        known[text] = convert(text)
        if known[text] is None and not blank(text):
            bad.add(text)
    values = series.to_list()
    unread = frozenset(place for place, one in enumerate(values) if one in bad) if bad else frozenset[int]()
    return _Column([known[one] for one in values], unread)


def _texts(series: pl.Series) -> _Column:
    lines = series.cast(pl.String).str.replace_all("\r\n|\r|\x0b|\x0c", "\n").str.strip_chars()
    return _Column(lines.set(lines == "", None).to_list())


@lru_cache(maxsize=16_384)
def _name(text: str) -> str | None:
    return " ".join(narrow(text).split()) or None


def _column(name: str, series: pl.Series) -> _Column:
    """The values of a field; raises PolarsError for a type that cannot be used."""
    if series.dtype.is_nested():
        raise pl.exceptions.InvalidOperationError("nested")
    if name in _MOMENTS:
        return _moments(series)
    if name == "birth_date":
        return _days(series)
    if name in _NUMBERS or name in _INTEGERS:
        return _amounts(series, positive=name in _POSITIVE, whole=name in _INTEGERS)
    if name in _TEXTS:
        return _texts(series)
    if name in _NAMES:
        return _each(_as_text(series), _name)
    if name in _WORDS:
        words = _WORDS[name]
        return _each(_as_text(series), lambda text: next((one for one in words if one.lower() == text.lower()), None))
    if name == "study_instance_uid":
        return _each(_as_text(series), study_uid)
    if name in ("accession_number", "report_number", "number", "exam_id", "report_id", "record_id"):
        return _each(_as_text(series), lambda text: None if is_damaged_number(text) else text)
    return _Column(_as_text(series).to_list())


@lru_cache(maxsize=65_536)
def _coded(system: str | None, code: str | None) -> tuple[str | None, str | None]:
    """System and code as all readers write them."""
    if code is None:
        return None, None
    if system == "ICD-10":
        return ("ICD-10", found) if (found := icd10(code)) else ("local", narrow(code))
    if system is not None and len(system) == 1 and (found := k_code(code, items=fee_items())):
        return fee_code_system(found), found
    return system if system in _SYSTEMS else "local", narrow(code)


# --- rows -------------------------------------------------------------------------------------------------------------


@dataclass
class _Exams:
    """What reports take from the exams that they name by exam_id."""

    paths: list[Path]
    small: dict[str, dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        if sum(pq.read_metadata(path).num_rows for path in self.paths) <= _EXAMS_KEPT:
            self.small = self._among(None)

    def of(self, ids: pl.Series) -> Mapping[str, dict[str, Any]]:
        """The exams with these ids."""
        return self.small if self.small is not None else self._among(ids)

    def _among(self, ids: pl.Series | None) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for path in self.paths:
            columns = _columns_of(path) or []
            wanted = ["exam_id", *(name for name in _EXAM_FIELDS if name in columns)]
            file = pq.ParquetFile(path)
            for batch in file.iter_batches(_BATCH, columns=wanted):
                table, _ = _decoded(batch)
                table = table.with_columns(_as_text(table["exam_id"]).alias("exam_id"))
                if ids is not None:
                    table = table.filter(pl.col("exam_id").is_in(ids.implode()))
                keys = table["exam_id"].to_list()
                values = {name: _column(name, table[name]).values for name in wanted[1:]}
                for place, key in enumerate(keys):
                    if key is not None:
                        found[key] = {name: some[place] for name, some in values.items()}
                        found[key].setdefault("accession_number", key)
        return found


@dataclass
class _Reader:
    path: Path
    source: Source
    options: ParquetOptions
    table: TableName
    columns: list[str]
    notes: Counter[str] = field(default_factory=Counter)
    wrong: set[str] = field(default_factory=set)
    """Columns of types that cannot be used."""
    seen: SeenReports = field(default_factory=SeenReports)
    bad_starts: frozenset[int] = frozenset()
    """The rows of the batch whose start cannot be read."""
    folder: str | None = None

    def rows(self) -> Iterator[Row]:
        known = [one.name for one in fields(_TABLES[self.table])]
        wanted = [name for name in (*known, *_ALSO[self.table]) if name in self.columns]
        yield from self._misspelt(known)
        self.folder = self._folder()
        exams = self._exams()
        make = getattr(self, f"_{self.table}_rows")
        first = 1
        for batch in pq.ParquetFile(self.path).iter_batches(_BATCH, columns=wanted):
            table, bad = _decoded(batch)
            copies = self._copies(table)
            values = {name: self._values(name, table[name]) for name in wanted}
            beside = exams.of(_as_text(table["exam_id"])) if exams else {}
            rows = make(_Batch(first, table.height, values, beside if exams else None))
            for place, row in enumerate(rows):
                if place in bad:
                    yield self._quarantined(first + place, UNDECODABLE)
                elif place in copies:
                    yield self._quarantined(first + place, DUPLICATE)
                else:
                    yield row
            first += table.height
        shown = shown_path(self.path, self.source)
        for name in sorted(self.wrong):
            yield Quarantined(shown, None, self.table, COLUMN_TYPE, f"{REASONS[COLUMN_TYPE]} {name}.")
        for reason, count in sorted(self.notes.items()):
            yield Quarantined(shown, None, self.table, reason, f"{REASONS[reason]} Values: {count}.")

    def _misspelt(self, known: list[str]) -> Iterator[Quarantined]:
        absent = [name for name in known if name not in self.columns]
        meant = []
        for column in self.columns:
            if column not in known and column not in _ALSO[self.table]:
                close = difflib.get_close_matches(column.lower(), absent, n=1, cutoff=0.85)
                meant += [f"{column} ({close[0]}?)"] if close else []
        if meant:
            shown = shown_path(self.path, self.source)
            yield Quarantined(shown, None, self.table, MISSPELT, f"{REASONS[MISSPELT]} {', '.join(meant)}.")

    def _folder(self) -> str | None:
        if not self.options.site_of_folder or self.path == self.source.path:
            return None
        parts = self.path.relative_to(self.source.path).parts
        return parts[0] if len(parts) > 1 else None

    def _exams(self) -> _Exams | None:
        paths = depends(self.path, self.source)
        paths = [path for path in paths if "exam_id" in (_columns_of(path) or [])]
        return _Exams(paths) if paths else None

    def _copies(self, table: pl.DataFrame) -> set[int]:
        """The rows that stood there before."""
        try:
            hashes = table.hash_rows(seed=1)
        except pl.exceptions.PolarsError:  # of columns that cannot be used
            return set()
        before, _ = self.seen.find(hashes.to_numpy())
        copies = pl.Series(before) | ~hashes.is_first_distinct()
        new = hashes.filter(~copies).to_numpy()
        self.seen.add(new, new)
        return set(copies.arg_true().to_list())

    def _values(self, name: str, series: pl.Series) -> list[Any]:
        try:
            column = _column(name, series)
        except pl.exceptions.PolarsError:
            self.wrong.add(name)
            return [None] * len(series)
        if name == "start_at":
            self.bad_starts = column.unread
        elif column.unread:
            self.notes[UNREAD_VALUES] += len(column.unread)
        return column.values

    def _quarantined(self, row: int, reason: str, *, patient_id: str | None = None) -> Quarantined:
        shown = shown_path(self.path, self.source, patient_id=patient_id)
        return Quarantined(shown, row, self.table, reason, REASONS[reason])

    def _who(self, site: str | None, patient: str | None) -> tuple[str, str] | str:
        """Site and patient, or the reason why there is none."""
        if patient is None:
            return NO_PATIENT
        number = patient_number(patient, width=self.options.patient_id_width)
        if number is None:
            return DAMAGED_PATIENT if is_damaged_number(patient) else NO_PATIENT
        where = self.source.site or self.folder or (self.options.sites.get(site, site) if site else None)
        return (where, number) if where else NO_SITE

    # --- the tables

    def _patients_rows(self, batch: _Batch) -> Iterator[Row]:
        for row, values in batch.rows(PatientRow):
            who = self._who(values["site"], values["patient_id"])
            if isinstance(who, str):
                yield self._quarantined(row, who)
            else:
                yield PatientRow(who[0], who[1], values["sex"], values["birth_date"])

    def _exams_rows(self, batch: _Batch) -> Iterator[Row]:
        own = batch.values.get("exam_id") if "accession_number" not in batch.values else None
        for place, (row, values) in enumerate(batch.rows(ExamRow)):
            who = self._who(values["site"], values["patient_id"])
            if isinstance(who, str):
                yield self._quarantined(row, who)
                continue
            if own is not None:
                values["accession_number"] = own[place]
            if not (values["study_instance_uid"] or values["accession_number"] or values["started_at"]):
                yield self._quarantined(row, NO_KEY, patient_id=who[1])
                continue
            values["site"], values["patient_id"] = who
            yield ExamRow(**values)

    def _reports_rows(self, batch: _Batch) -> Iterator[Row]:
        own = batch.values.get("report_id") if "report_number" not in batch.values else None
        named = batch.values.get("exam_id")
        for place, (row, values) in enumerate(batch.rows(ReportRow)):
            if named is not None and named[place] is not None:
                exam = batch.exams.get(named[place]) if batch.exams is not None else {}
                if exam is None:
                    yield self._quarantined(row, NO_EXAM)
                    continue
                if batch.exams is None and values["accession_number"] is None:
                    values["accession_number"] = named[place]
                for name, value in exam.items():
                    to = "exam_at" if name == "started_at" else name
                    if values[to] is None:
                        values[to] = value
            who = self._who(values["site"], values["patient_id"])
            if isinstance(who, str):
                yield self._quarantined(row, who)
                continue
            values["site"], values["patient_id"] = who
            values["status"] = (values["status"] or "final").lower()
            values["text"] = values["text"] or batch.parts(place)
            if own is not None:
                values["report_number"] = own[place]
            if values["status"] not in _STATUSES:
                yield self._quarantined(row, UNKNOWN_STATUS, patient_id=who[1])
            elif not values["text"] and values["status"] != "cancelled":
                yield self._quarantined(row, NO_TEXT, patient_id=who[1])
            else:
                yield ReportRow(**values)

    def _records_rows(self, batch: _Batch) -> Iterator[Row]:
        own = batch.values.get("record_id") if "number" not in batch.values else None
        for place, (row, values) in enumerate(batch.rows(RecordRow)):
            who = self._who(values["site"], values["patient_id"])
            if isinstance(who, str):
                yield self._quarantined(row, who)
                continue
            usual, known = _CERTAINTIES.get(values["kind"], ("", frozenset[str]()))
            certainty = (values["certainty"] or usual).lower()
            fault = (
                UNKNOWN_KIND
                if not usual
                else (BAD_DATE if place in self.bad_starts else NO_DATE)
                if values["start_at"] is None
                else CANCELLED
                if certainty == "cancelled"
                else UNKNOWN_CERTAINTY
                if certainty not in known
                else None
            )
            if fault is not None:
                yield self._quarantined(row, fault, patient_id=who[1])
                continue
            values["site"], values["patient_id"] = who
            values["certainty"] = certainty
            values["code_system"], values["code"] = _coded(values["code_system"], values["code"])
            if own is not None:
                values["number"] = own[place]
            yield RecordRow(**values)


@dataclass(frozen=True)
class _Batch:
    """Some rows of a table by column. ``first``: number of the first row. ``exams``: None where there is no table."""

    first: int
    height: int
    values: Mapping[str, list[Any]]
    exams: Mapping[str, dict[str, Any]] | None

    def rows(self, kind: type[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Number and fields of each row; a field without a column is nothing."""
        names = [one.name for one in fields(kind)]
        nothing = [None] * self.height
        columns = [self.values.get(name, nothing) for name in names]
        for place, values in enumerate(zip(*columns, strict=True)):
            yield self.first + place, dict(zip(names, values, strict=True))

    def parts(self, place: int) -> str:
        """The text of a report that has parts."""

        def part(name: str) -> str:
            for column in (name, f"{name}_text"):
                if column in self.values and self.values[column][place]:
                    return str(self.values[column][place])
            return ""

        return report_text(part("findings"), part("impression"))


def _decoded(batch: pa.RecordBatch) -> tuple[pl.DataFrame, set[int]]:
    """A batch, and the rows in it that are not valid UTF-8."""
    bad: set[int] = set()
    for one in batch.columns:
        str(one.type)  # a time zone that is no UTF-8 raises here, and would end polars
    batch = pa.RecordBatch.from_arrays(batch.columns, names=batch.schema.names)  # without notes, which may be damaged
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        batch = _without_damage(batch, bad)
    return pl.DataFrame(pa.Table.from_batches([batch])), bad


def _without_damage(batch: pa.RecordBatch, bad: set[int]) -> pa.RecordBatch:
    columns = []
    for one in batch.columns:
        column = one
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            values: list[str | None] = []
            for place, value in enumerate(column.cast(pa.large_binary()).to_pylist()):
                try:
                    values.append(None if value is None else value.decode())
                except UnicodeDecodeError:
                    values.append(None)
                    bad.add(place)
            column = pa.array(values, pa.large_string())
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
