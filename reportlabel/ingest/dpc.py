"""DPC files of the stays in hospital: 入院EF統合 (31 columns, what was done) and 様式1 (17 columns, why).

EF gives operations, biopsies and other acts of rules/ingest/dpc.yaml, pathology acts, and drugs. An act is its E line
(行為明細番号 000); the detail lines repeat its code, so they count only as drugs, which stand nowhere else: contrast
and tracers are details of the image. 様式1 gives diagnoses, operations, sex and birth date.

What DPC does not say: times (dates only), sites of operations but the side in 様式1, results of any kind, and to which
exam contrast belongs. A diagnosis begins at the admission, since the form does not know when it was made. The
hospital's site is `Source.site`, else `sites` of archive.yaml by facility code, else the facility code. データ識別番号
has ten digits: say `patient_id_width` where the hospital's own ids have fewer.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from reportlabel.errors import InputError
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
)
from reportlabel.ingest.dates import is_blank, parse_day
from reportlabel.ingest.encoding import WrongEncodingError, choose_encoding, utf8_blocks
from reportlabel.ingest.rows import PatientRow, Quarantined, RecordRow, Row, Source
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.models import Strict
from reportlabel.rulebook.read_yaml import parse, read_yaml

__all__ = ["REASONS", "fee_items", "files", "read", "recognise"]

UNREADABLE = "The file cannot be read."
NOT_DPC = "The file has neither the 31 columns of an EF file nor the 17 of a form 1."
WRONG_ENCODING = "The file is not in the encoding that archive.yaml names for it."
UNDECODABLE = "The row has bytes that do not fit the encoding of the file."
WRONG_WIDTH = "The row has not the number of columns of its file."
NO_PATIENT = "The row has no patient identifier of digits."
NO_DATE = "The act has no date."
BAD_DATE = "The date of the row cannot be read."
DUPLICATE = "The row stands twice in the file."

REASONS = {
    UNREADABLE: "Copy the file again, or take it out if it is a link that leads nowhere.",
    NOT_DPC: "Export it as tab-separated text, or take it out of the folder.",
    WRONG_ENCODING: "Correct the encoding in archive.yaml, or leave it out: the bytes of the file tell it.",
    UNDECODABLE: "Export the file again as Shift_JIS (cp932), or give its encoding in archive.yaml.",
    WRONG_WIDTH: "A tab or a line end inside a name shifts the columns: correct the master, export again.",
    NO_PATIENT: "Correct the data identifier of the row.",
    NO_DATE: "Fill in the date of the act (00000000 means that it is not known).",
    BAD_DATE: "Write the date as YYYYMMDD.",
    DUPLICATE: "The first was kept; export the month again if both were done.",
}
"""The reasons for which a row is quarantined, and what mends it."""

_LOOKED_AT = 20
_DAY = re.compile(r"\d{8}", re.ASCII)
_FORM_CODE = re.compile(r"[A-Z][A-Z0-9]{3,9}", re.ASCII)
_DAMAGED = re.compile("[\udc80-\udcff]")
_AMOUNT = re.compile(r"\d+(?:\.\d+)?", re.ASCII)

Form = Literal["ef", "ff1"]
Kind = Literal["surgery", "pathology", "physiology"]
Place = Annotated[int, Field(ge=1)]


class EfColumns(Strict):
    """Columns of the EF file, from 1."""

    facility: Place
    patient: Place
    section: Place
    line: Place
    receipt_code: Place
    fee_code: Place
    name: Place
    amount: Place
    unit: Place
    times: Place
    day: Place


class EfForm(Strict):
    """The EF file."""

    columns: EfColumns
    width: Place
    act_line: str


class FormColumns(Strict):
    """Columns of form 1, from 1; ``payload`` is the first of the payloads."""

    facility: Place
    patient: Place
    admitted: Place
    code: Place
    payload: Place


class Profile(Strict):
    """Which payload holds what of the patient."""

    birth: Place
    sex: Place


class DiagnosisPayload(Strict):
    """Which payload holds what of a diagnosis."""

    icd10: Place
    name: Place


class OperationPayload(Strict):
    """Which payload holds what of an operation."""

    day: Place
    code: Place
    side: Place
    name: Place


class Form1(Strict):
    """Form 1."""

    columns: FormColumns
    width: Place
    profiles: dict[str, Profile]
    diagnoses: dict[str, DiagnosisPayload]
    operations: dict[str, OperationPayload]
    sexes: dict[str, str]
    sides: dict[str, Literal["right", "left", "bilateral"]]
    suspected: list[str]


class Acts(Strict):
    """Acts that are records of a kind, by the beginnings of their codes."""

    kind: Kind
    codes: Annotated[list[str], Field(min_length=1)]
    without: list[str] = Field(default_factory=list)


class DpcRules(Strict):
    """rules/ingest/dpc.yaml."""

    header: list[str]
    ef: EfForm
    ff1: Form1
    acts: list[Acts]
    drugs: list[str]
    days_in_times: list[str]
    items: list[Annotated[str, Field(pattern=r"^[A-Z]\d{4}$")]]
    units: dict[str, str]


class DpcOptions(Strict):
    """What archive.yaml may say of DPC files.

    ``sites``: site by facility code. ``patient_id_width``: digits of the hospital's own ids.
    """

    encoding: str | None = None
    sites: dict[str, str] = Field(default_factory=dict)
    patient_id_width: Annotated[int, Field(ge=1, le=20)] | None = None


def recognise(path: Path) -> bool:
    """Whether a file, or one of the first files of a folder, has the columns of an EF file or a form 1."""
    if path.is_dir():
        return any(recognise(one) for one in islice(files_below(path), _LOOKED_AT))
    try:
        with path.open("rb") as file:
            head = file.read(65_536)
    except OSError:
        return False
    lines = head.split(b"\n")[: _LOOKED_AT + 1]
    if len(lines) > 1:
        lines.pop()  # it may be cut off
    return _form([line.decode("cp932", "replace") for line in lines]) is not None


def files(source: Source) -> Iterator[Path]:
    """All files of the source, sorted."""
    return files_below(source.path)


def read(path: Path, source: Source) -> Iterator[Row]:
    """The rows of one file; `row` of what is quarantined is its line."""
    reader = _Reader(path, source, _rules(), options_of(source, DpcOptions), tuple(_rules().drugs))
    try:
        yield from reader.rows()
    except WrongEncodingError:
        yield reader.quarantined(None, "file", WRONG_ENCODING)
    except InputError:
        yield reader.quarantined(None, "file", UNREADABLE)


@lru_cache(maxsize=1)
def fee_items() -> frozenset[str]:
    """Codes without separators whose last digit is an item: see `reportlabel.ingest.codes.k_code`."""
    return frozenset(_rules().items)


# --- details ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _rules() -> DpcRules:
    return parse(read_yaml(rules_folder() / "ingest" / "dpc.yaml"), DpcRules)


def _form(lines: list[str]) -> Form | None:
    """Which file it is, by the columns of its first rows: most of them have to fit."""
    rules = _rules()
    rows = [_cells(line) for line in lines if line.strip("\r\n\x1a")]
    if rows and rows[0][0] in rules.header:
        if len(rows) == 1:
            return "ef" if len(rows[0]) == rules.ef.width else "ff1" if len(rows[0]) == rules.ff1.width else None
        rows = rows[1:]
    if 2 * sum(map(_fits_ef, rows)) > len(rows):
        return "ef"
    return "ff1" if 2 * sum(map(_fits_ff1, rows)) > len(rows) else None


def _fits_ef(row: list[str]) -> bool:
    ef = _rules().ef
    if len(row) != ef.width:
        return False
    return _is_patient(row[ef.columns.patient - 1]) and _DAY.fullmatch(row[ef.columns.day - 1]) is not None


def _fits_ff1(row: list[str]) -> bool:
    ff1 = _rules().ff1
    if len(row) != ff1.width:
        return False
    return _is_patient(row[ff1.columns.patient - 1]) and _FORM_CODE.fullmatch(row[ff1.columns.code - 1]) is not None


def _cells(line: str) -> list[str]:
    return line.rstrip("\r\n").split("\t")


def _is_patient(text: str) -> bool:
    return text.isascii() and text.isdigit() and text.strip("0") != ""


@lru_cache(maxsize=16_384)
def _act(written: str) -> tuple[str, Kind] | None:
    """The code of an act as the fee schedule writes it, and the kind of record it is; None if it is none."""
    code = k_code(written, items=fee_items())
    if code is None:
        return None
    for acts in _rules().acts:
        if code.startswith(tuple(acts.codes)) and not code.startswith(tuple(acts.without)):
            return code, acts.kind
    return None


@dataclass
class _Reader:
    path: Path
    source: Source
    rules: DpcRules
    options: DpcOptions
    drugs: tuple[str, ...]
    seen: set[int] = field(default_factory=set)
    stay: tuple[str, str] = ("", "")
    """Patient and admission of the row before."""
    diagnoses: set[tuple[str | None, str | None]] = field(default_factory=set)
    """Of the stay; the form names a disease again as the cause, the main one, the dearest."""

    def rows(self) -> Iterator[Row]:
        form: Form | None = None
        waiting: list[tuple[int, str]] = []
        for number, line in self._lines():
            if not line.strip("\r\n\x1a \t"):
                continue
            if form is None:
                waiting.append((number, line))
                if len(waiting) < _LOOKED_AT:
                    continue
                form = _form([one for _, one in waiting])
                if form is None:
                    break
                for early in waiting:
                    yield from self._row(form, *early)
                waiting = []
                continue
            yield from self._row(form, number, line)
        if waiting:
            form = _form([one for _, one in waiting])
            if form is None:
                yield self.quarantined(None, "file", NOT_DPC)
                return
            for early in waiting:
                yield from self._row(form, *early)

    def quarantined(self, row: int | None, kind: str, reason: str, *, patient_id: str | None = None) -> Quarantined:
        shown = shown_path(self.path, self.source, patient_id=patient_id)
        return Quarantined(shown, row, kind, reason, REASONS[reason])

    def _lines(self) -> Iterator[tuple[int, str]]:
        encoding = choose_encoding(self.path, encoding=self.options.encoding).name
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        number, rest = 0, ""
        for block in utf8_blocks(self.path, encoding=encoding):
            *lines, rest = (rest + decoder.decode(block)).split("\n")
            for line in lines:
                number += 1
                yield number, line
        rest += decoder.decode(b"", True)
        if rest:
            yield number + 1, rest

    def _row(self, form: Form, number: int, line: str) -> Iterator[Row]:
        cells = _cells(line)
        if cells[0] in self.rules.header:
            return
        width = self.rules.ef.width if form == "ef" else self.rules.ff1.width
        kind = "act" if form == "ef" else "form 1"
        if len(cells) != width:
            yield self.quarantined(number, kind, WRONG_WIDTH)
            return
        rows: Iterator[PatientRow | RecordRow | Quarantined]
        if form == "ef":
            columns = self.rules.ef.columns
            code, receipt = cells[columns.fee_code - 1], cells[columns.receipt_code - 1]
            is_act = cells[columns.line - 1] == self.rules.ef.act_line
            if not (code if is_act else receipt.startswith(self.drugs)):
                return
            rows = self._ef_row(number, cells, is_act=is_act)
        else:
            rows = self._ff1_row(number, cells)
        damaged = not line.isascii() and _DAMAGED.search(line) is not None
        for row in rows:
            if damaged:
                yield self.quarantined(number, kind, UNDECODABLE)
            elif isinstance(row, RecordRow) and self._is_copy(line):
                yield self.quarantined(number, kind, DUPLICATE, patient_id=row.patient_id)
            else:
                yield row

    def _is_copy(self, line: str) -> bool:
        key = hash(line)
        copy = key in self.seen
        self.seen.add(key)
        return copy

    def _who(self, facility: str, patient: str) -> tuple[str, str | None]:
        site = self.source.site or self.options.sites.get(facility.strip(), facility.strip())
        patient = patient.strip()
        if not _is_patient(patient) or is_damaged_number(patient):
            return site, None
        return site, patient_number(patient, width=self.options.patient_id_width)

    # --- EF

    def _ef_row(self, number: int, cells: list[str], *, is_act: bool) -> Iterator[RecordRow | Quarantined]:
        columns = self.rules.ef.columns
        act = _act(cells[columns.fee_code - 1]) if is_act else None
        if is_act and act is None:
            return
        site, patient_id = self._who(cells[columns.facility - 1], cells[columns.patient - 1])
        if patient_id is None or not site:
            yield self.quarantined(number, "act", NO_PATIENT)
            return
        written = cells[columns.day - 1]
        day = parse_day(written)
        if day is None:
            reason = NO_DATE if is_blank(written) else BAD_DATE
            yield self.quarantined(number, "act", reason, patient_id=patient_id)
            return
        start = datetime.combine(day, time())
        name = narrow(cells[columns.name - 1]) or None
        if act is not None:
            code, kind = act
            yield RecordRow(
                site=site,
                patient_id=patient_id,
                kind=kind,
                start_at=start,
                code_system=fee_code_system(code),
                code=code,
                name=name,
                certainty="final",
            )
            return
        times = cells[columns.times - 1]
        lasts = cells[columns.section - 1] in self.rules.days_in_times and times.isdigit()
        days = min(max(int(times), 1), 400) if lasts else 1
        yield RecordRow(
            site=site,
            patient_id=patient_id,
            kind="medication",
            start_at=start,
            end_at=start + timedelta(days=days - 1),
            code_system="receipt",
            code=cells[columns.receipt_code - 1],
            name=name,
            value=_amount(cells[columns.amount - 1]),
            unit=self.rules.units.get(cells[columns.unit - 1]),
            certainty="final",
        )

    # --- form 1

    def _ff1_row(self, number: int, cells: list[str]) -> Iterator[PatientRow | RecordRow | Quarantined]:
        form = self.rules.ff1
        code = cells[form.columns.code - 1].strip()
        if code not in form.profiles and code not in form.diagnoses and code not in form.operations:
            return
        site, patient_id = self._who(cells[form.columns.facility - 1], cells[form.columns.patient - 1])
        if patient_id is None or not site:
            yield self.quarantined(number, "form 1", NO_PATIENT)
            return
        payload = ["", *(cell.strip() for cell in cells[form.columns.payload - 1 :])]
        if profile := form.profiles.get(code):
            sex = form.sexes.get(payload[profile.sex])
            birth = parse_day(payload[profile.birth])
            if sex or birth:
                yield PatientRow(site, patient_id, sex, birth)
            return
        admitted = cells[form.columns.admitted - 1]
        if (patient_id, admitted) != self.stay:
            self.stay = (patient_id, admitted)
            self.diagnoses.clear()
        operation = form.operations.get(code)
        written = payload[operation.day] if operation else admitted
        day = parse_day(written)
        if day is None:
            reason = NO_DATE if is_blank(written) else BAD_DATE
            yield self.quarantined(number, "form 1", reason, patient_id=patient_id)
        elif operation:
            yield from self._operation(site, patient_id, day, payload, operation)
        else:
            yield from self._diagnosis(site, patient_id, day, payload, form.diagnoses[code])

    def _operation(
        self, site: str, patient_id: str, day: date, payload: list[str], places: OperationPayload
    ) -> Iterator[RecordRow]:
        code, name = k_code(payload[places.code], items=fee_items()), narrow(payload[places.name])
        if code or name:
            yield RecordRow(
                site=site,
                patient_id=patient_id,
                kind="surgery",
                start_at=datetime.combine(day, time()),
                code_system=fee_code_system(code) if code else None,
                code=code,
                name=name or None,
                certainty="final",
                side=self.rules.ff1.sides.get(payload[places.side]),
            )

    def _diagnosis(
        self, site: str, patient_id: str, day: date, payload: list[str], places: DiagnosisPayload
    ) -> Iterator[RecordRow]:
        code, name = icd10(payload[places.icd10]), narrow(payload[places.name]) or None
        if (not code and not name) or (code, name) in self.diagnoses:
            return
        self.diagnoses.add((code, name))
        suspected = name is not None and name.endswith(tuple(self.rules.ff1.suspected))
        yield RecordRow(
            site=site,
            patient_id=patient_id,
            kind="diagnosis",
            start_at=datetime.combine(day, time()),
            code_system="ICD-10" if code else None,
            code=code,
            name=name,
            certainty="suspected" if suspected else "confirmed",
        )


def _amount(text: str) -> float | None:
    return float(text) if _AMOUNT.fullmatch(text) and float(text) > 0 else None
