"""The hand-over of the bone scan study: one sheet row a patient, the DICOM files of the same patients, offline volumes.

    decided = patient_metastasis(exams, labels, readings, protocol, rules)
    sheet = sheet_rows(exams, reports, labels, decided.patients, protocol, rules)
    files, wrong = match_dicom(sheet.rows, list(folder.rglob("*.dcm")), folder, protocol)
    write_bundle(out, sheet, files, folder=folder, protocol=protocol, permission=permission, rules=rules)

Tables are those after de-identification: ``patient_id`` is the random code of the patient and the text of a report is
the de-identified one. A patient whose required cells cannot all be filled is not in the sheet but in its list of
problems: rows in = rows out + patients with a problem.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import polars as pl

from reportlabel.deidentify.audit import CODE
from reportlabel.errors import ConfigError, InputError
from reportlabel.evaluate.readers import consensus_status
from reportlabel.export.atomic import AtomicText
from reportlabel.export.deliverable_rules import BoneScanRules
from reportlabel.export.folder import new_folder
from reportlabel.export.manifest import MANIFEST, read_manifest, verify_manifest, write_manifest
from reportlabel.export.study_folder import about, check_permission, need_columns
from reportlabel.protocol import Excel, Permission, Protocol

__all__ = [
    "DISAGREEMENTS",
    "FILES",
    "METASTASIS",
    "PROBLEMS",
    "SHEET",
    "Metastasis",
    "Sheet",
    "match_dicom",
    "patient_metastasis",
    "read_sheet",
    "record_receipt",
    "sheet_bytes",
    "sheet_rows",
    "without_files",
    "write_bundle",
]

SHEET = pl.Schema(
    {
        "patient_code": pl.String,
        "exam_date": pl.Date,
        "findings": pl.String,
        "eod": pl.String,
        "metastasis": pl.String,
        "age_years": pl.Int32,
        "sex": pl.String,
        "height": pl.Float64,
        "weight_kg": pl.Float64,
    }
)
"""Columns A to I. ``eod``: a whole number or the word for not calculated. ``height``: in the unit of the protocol."""

PROBLEMS = pl.Schema(
    {"patient_code": pl.String, "column": pl.String, "reason": pl.String, "remedy": pl.String, "number": pl.String}
)
"""Why a patient is not in the sheet: the column by its header, and the requirement."""

METASTASIS = pl.Schema(
    {"patient_code": pl.String, "value": pl.String, "source": pl.String, "n_readers": pl.Int64, "confirmed": pl.Boolean}
)
"""One row a patient. ``source``: readers or report; ``confirmed``: a reader has said it."""

DISAGREEMENTS = pl.Schema(
    {"patient_code": pl.String, "report_value": pl.String, "reader_value": pl.String, "n_readers": pl.Int64}
)
"""Patients whose report says something else than the readers, or whose readers do not agree (reader_value null)."""

FILES = pl.Schema({"patient_code": pl.String, "path": pl.String, "bytes": pl.Int64})
"""DICOM files of the patients of a sheet; ``path`` from the folder of the DICOM export."""

FILE_PROBLEMS = pl.Schema({"file": pl.Int64, "patient_code": pl.String, "reason": pl.String, "number": pl.String})
"""``file``: its number in the order of names; null for a patient without files."""

_LONGEST_CELL = 32_767
_NOT_IN_A_SHEET = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_MEGABYTE = 1_000_000
_SPARE = 1 << 20  # for the manifests of a volume and the file system of the disc
_RECEIPT = ".receipt.json"

# --- the patient has metastases or not (B15) --------------------------------------------------------------------------


@dataclass(frozen=True)
class Metastasis:
    """``patients``: columns of METASTASIS; ``disagreements``: columns of DISAGREEMENTS."""

    patients: pl.DataFrame
    disagreements: pl.DataFrame


def patient_metastasis(
    exams: pl.DataFrame, labels: pl.DataFrame, readings: pl.DataFrame, protocol: Protocol, rules: BoneScanRules
) -> Metastasis:
    """Whether a patient has metastases: from the labels of the reports, confirmed or corrected by readers.

    Of several exams of a patient the value that comes first in present, uncertain, absent, not_mentioned counts, for
    the report and for each reader. The readers become one by ``analyses.consensus`` of the protocol; where they do not
    agree enough the report's value stands, unconfirmed, and the patient is on the list.

    Args:
        exams: exam_id, patient_id. labels: the labels table of a workspace. readings: the readings table; the latest
            reading of a reader counts.
    """
    need_columns(exams, ("exam_id", "patient_id"), name="exams")
    patients = exams.select("exam_id", patient_code="patient_id")
    wanted = (pl.col("label_set") == rules.label_set) & (pl.col("finding") == rules.metastasis)
    report = _by_patient(labels.filter(wanted), patients, [])
    latest = (
        readings.filter(wanted)
        .sort("read_at", maintain_order=True, nulls_last=False)
        .unique(["exam_id", "reader"], keep="last", maintain_order=True)
    )
    by_reader = _by_patient(latest, patients, ["reader"])
    rule = protocol.analyses.consensus if protocol.analyses else "majority"
    readers = by_reader.group_by("patient_code").agg("value", n_readers=pl.len())
    readers = readers.with_columns(
        reader_value=pl.Series(
            [consensus_status(values, rule) for values in readers["value"].to_list()], dtype=pl.String
        )
    ).drop("value")
    joined = (
        patients.select("patient_code")
        .unique()
        .join(report.rename({"value": "report_value"}), on="patient_code", how="left")
        .join(readers, on="patient_code", how="left")
        .with_columns(pl.col("n_readers").fill_null(0).cast(pl.Int64))
        .sort("patient_code")
    )
    read = pl.col("reader_value").is_not_null()
    decided = joined.select(
        "patient_code",
        value=pl.when(read).then("reader_value").otherwise("report_value"),
        source=pl.when(read).then(pl.lit("readers")).otherwise(pl.lit("report")),
        n_readers="n_readers",
        confirmed=read,
    )
    apart = joined.filter(
        (pl.col("n_readers") > 0) & (~read | pl.col("reader_value").ne_missing(pl.col("report_value")))
    )
    return Metastasis(decided.cast(METASTASIS), apart.select(list(DISAGREEMENTS)).cast(DISAGREEMENTS))


_PRECEDENCE = {"present": 0, "uncertain": 1, "absent": 2, "not_mentioned": 3}


def _by_patient(rows: pl.DataFrame, patients: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    return (
        rows.join(patients, on="exam_id", how="inner")
        .with_columns(rank=pl.col("value").replace_strict(_PRECEDENCE, default=9, return_dtype=pl.Int32))
        .sort("rank", maintain_order=True)
        .group_by("patient_code", *keys, maintain_order=True)
        .agg(pl.col("value").first())
    )


# --- the rows (B13, B14) ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sheet:
    """What goes into the sheet.

    Attributes:
        rows: columns of SHEET, one row a patient, sorted by code.
        problems: columns of PROBLEMS; patients that are not in ``rows``.
        counts: patients_in, patients_out, patients_with_problems, eod_missing (cells with the word of BC2).
    """

    rows: pl.DataFrame
    problems: pl.DataFrame
    counts: Mapping[str, int]


def sheet_rows(
    exams: pl.DataFrame,
    reports: pl.DataFrame,
    labels: pl.DataFrame,
    metastasis: pl.DataFrame,
    protocol: Protocol,
    rules: BoneScanRules,
    *,
    several: Literal["problem", "first", "last"] = "problem",
    confirmed_only: bool = True,
) -> Sheet:
    """One row a patient of the cohort.

    Args:
        exams: of the cohort, columns of the exams table; reports: of these exams; labels: the labels table.
        metastasis: `Metastasis.patients`.
        several: a patient with several exams is a problem, or the first or last exam counts.
        confirmed_only: a value of 転移の有無 that no reader has said is a problem.

    Raises:
        ConfigError: the headers of rules/deliverables.yaml and of the protocol differ.
        InputError: a table lacks a column.
    """
    headers = _headers(protocol, rules)
    need_columns(
        exams, ("exam_id", "patient_id", "started_at", "age_years", "sex", "height_cm", "weight_kg"), name="exams"
    )
    need_columns(reports, ("exam_id", "version", "text"), name="reports")
    missing = exams["patient_id"].null_count()
    if missing:
        raise InputError(f"exams: {missing} rows have no patient code; run the de-identification first")
    texts = reports.sort("version", maintain_order=True).unique("exam_id", keep="last", maintain_order=True)
    eod = labels.filter((pl.col("label_set") == rules.label_set) & (pl.col("finding") == rules.eod))
    rows = (
        exams.with_columns(n_exams=pl.len().over("patient_id"))
        .sort("started_at", "exam_id", nulls_last=True)
        .unique("patient_id", keep="last" if several == "last" else "first", maintain_order=True)
        .join(texts.select("exam_id", "text"), on="exam_id", how="left")
        .join(eod.select("exam_id", eod="value").unique("exam_id"), on="exam_id", how="left")
        .join(metastasis.rename({"patient_code": "patient_id"}), on="patient_id", how="left")
        .sort("patient_id")
    )
    made: list[dict[str, Any]] = []
    problems: list[tuple[str, str, str, str, str]] = []
    for row in rows.iter_rows(named=True):
        cells, wrong = _cells(row, protocol, rules)
        if several == "problem" and row["n_exams"] > 1:
            wrong.append(_Problem("exam_date", "several exams in the cohort", "choose the first or the last", "B13"))
        if confirmed_only and not row["confirmed"]:
            wrong.append(_Problem("metastasis", "no reader has confirmed it", "have it read in the review", "B15"))
        problems += [(row["patient_id"], headers[one.field], one.reason, one.remedy, one.number) for one in wrong]
        if not wrong:
            made.append(cells)
    table = pl.DataFrame(made, schema=SHEET)
    listed = pl.DataFrame(problems, schema=PROBLEMS, orient="row")
    return Sheet(table, listed, _counts(table, listed, rows.height, protocol))


def _counts(rows: pl.DataFrame, problems: pl.DataFrame, patients: int, protocol: Protocol) -> dict[str, int]:
    return {
        "patients_in": patients,
        "patients_out": rows.height,
        "patients_with_problems": problems["patient_code"].n_unique(),
        "eod_missing": rows.filter(pl.col("eod") == _excel(protocol).eod_missing_token).height,
    }


class _Problem(NamedTuple):
    field: str
    reason: str
    remedy: str
    number: str


_ASK = "fill it in the hospital's tables, or leave the patient out"


def _cells(row: Mapping[str, Any], protocol: Protocol, rules: BoneScanRules) -> tuple[dict[str, Any], list[_Problem]]:
    """The cells of a patient, and what is wrong with them."""
    excel = _excel(protocol)
    height = _positive(row["height_cm"])
    cells: dict[str, Any] = {
        "patient_code": row["patient_id"],
        "exam_date": row["started_at"].date() if row["started_at"] is not None else None,
        "findings": (row["text"] or "").strip() or None,
        "eod": _eod(row["eod"], excel.eod_missing_token),
        "metastasis": rules.metastasis_words.model_dump().get(row["value"] or ""),
        "age_years": row["age_years"],
        "sex": rules.sex_words.get(row["sex"]),
        # a height or weight of 0 is one that nobody measured
        "height": height if height is None or excel.height_unit == "cm" else round(height / 100, 4),
        "weight_kg": _positive(row["weight_kg"]),
    }
    problems = [
        _Problem(field, "required, but empty", _ASK, "B14")
        for field, header in _headers(protocol, rules).items()
        if header in excel.required and cells[field] is None and field != "metastasis"
    ]
    if cells["metastasis"] is None:
        undecided = row["value"] or "not in the labels"
        problems.append(_Problem("metastasis", f"neither yes nor no ({undecided})", "have a reader decide", "B15"))
    return cells, [*problems, *_wrong(cells, protocol, rules)]


def _wrong(cells: Mapping[str, Any], protocol: Protocol, rules: BoneScanRules) -> list[_Problem]:
    """Cells that are filled, but cannot be right."""
    excel, cohort = _excel(protocol), protocol.cohort
    problems = []
    code, day, text, eod = (cells[name] for name in ("patient_code", "exam_date", "findings", "eod"))
    if code is not None and not CODE.fullmatch(code):
        problems.append(_Problem("patient_code", "not a random code", "run the de-identification first", "B12"))
    if day is not None and not cohort.since <= day <= cohort.to:
        problems.append(_Problem("exam_date", "outside the period of the study", "leave the exam out", "B1"))
    if text is not None and (len(text) > _LONGEST_CELL or _NOT_IN_A_SHEET.search(text)):
        remedy = "correct the report in the source"
        problems.append(_Problem("findings", "too long for a cell, or has control characters", remedy, "B16"))
    if eod is not None and eod != excel.eod_missing_token and not (eod.isdecimal() and int(eod) in rules.eod_grades):
        remedy = f"one of {', '.join(map(str, rules.eod_grades))}, or the word of excel.eod_missing_token"
        problems.append(_Problem("eod", "not a grade", remedy, "B14"))
    if cells["sex"] is not None and cells["sex"] not in {rules.sex_words.get(one) for one in cohort.sex or ("F", "M")}:
        problems.append(_Problem("sex", "not a sex that the study examines", "leave the patient out", "B1"))
    if cells["age_years"] is not None and not 0 <= cells["age_years"] <= 130:
        problems.append(_Problem("age_years", "not an age", "correct it in the source", "B14"))
    return problems


def _eod(value: str | None, missing: str) -> str:
    return missing if value is None or value == "not_mentioned" else value


def _positive(value: float | None) -> float | None:
    return value if value is not None and 0 < value < float("inf") else None


def _excel(protocol: Protocol) -> Excel:
    if protocol.excel is None:
        raise ConfigError(f"{protocol.path}: the section 'excel' is missing; the sheet needs it")
    return protocol.excel


def _headers(protocol: Protocol, rules: BoneScanRules) -> dict[str, str]:
    """Field -> header, in the order of the columns."""
    headers = {column.field: column.header for column in rules.columns}
    excel = _excel(protocol)
    if list(headers) != list(SHEET):
        raise ConfigError(f"rules/deliverables.yaml: bone_scan.columns must be, in this order: {', '.join(SHEET)}")
    if list(headers.values()) != [*excel.required, *excel.optional]:
        raise ConfigError(
            f"{protocol.path}: excel.required and excel.optional must be, in this order, the headers of "
            f"bone_scan.columns in rules/deliverables.yaml: {', '.join(headers.values())}"
        )
    return {str(field): header for field, header in headers.items()}


# --- the file ---------------------------------------------------------------------------------------------------------


def _openpyxl() -> Any:
    try:
        return importlib.import_module("openpyxl")
    except ImportError:
        raise ConfigError("the sheet needs openpyxl; install it with `pip install 'reportlabel[excel]'`") from None


def sheet_bytes(rows: pl.DataFrame, protocol: Protocol, rules: BoneScanRules) -> bytes:
    """The sheet as an Excel file. The same rows give the same bytes.

    Args:
        rows: columns of SHEET.

    Raises:
        ConfigError: openpyxl is not installed, or the headers of rules and protocol differ.
    """
    openpyxl = _openpyxl()
    styles = importlib.import_module("openpyxl.styles")
    book = openpyxl.Workbook()
    page = book.active
    page.title = rules.title
    page.append(list(_headers(protocol, rules).values()))
    for cell in page[1]:
        cell.font = styles.Font(bold=True)
    for at, row in enumerate(rows.select(list(SHEET)).iter_rows(named=True), start=2):
        for column, field in enumerate(SHEET, start=1):
            cell = page.cell(row=at, column=column)
            value = row[field]
            if field == "eod" and value is not None and value.isdecimal():
                value = int(value)
            cell.value = value
            if isinstance(value, str):
                cell.data_type = "s"  # a report that begins with = is no formula
            if field == "exam_date":
                cell.number_format = "yyyy-mm-dd"
            if field == "findings":
                cell.alignment = styles.Alignment(wrap_text=True, vertical="top")
    for letter, said in zip("ABCDEFGHI", rules.columns, strict=True):
        page.column_dimensions[letter].width = said.width
    page.freeze_panes = "B2"
    book.properties.creator = "reportlabel"
    stream = io.BytesIO()
    book.save(stream)
    return _without_times(stream.getvalue())


def read_sheet(path: Path, protocol: Protocol, rules: BoneScanRules) -> pl.DataFrame:
    """Read a sheet back, also one that was filled in by hand, and check every cell.

    Returns:
        Columns of SHEET.

    Raises:
        InputError: not such a sheet (headers, order), or cells that are empty or wrong; names row, column and remedy.
    """
    openpyxl = _openpyxl()
    book: Any = None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=False)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        # the text of the error may quote a cell
        problem = type(error).__name__
    if book is None:
        raise InputError(f"{path}: cannot be read as an Excel sheet ({problem}); save it as .xlsx again")
    lines = list(book.active.iter_rows(values_only=True))
    book.close()
    headers = _headers(protocol, rules)
    if not lines or [*lines[0]] != list(headers.values()):
        raise InputError(f"{path}: row 1: the headers must be, from column A on: {', '.join(headers.values())}")
    made: list[dict[str, Any]] = []
    problems: list[str] = []
    for number, line in enumerate(lines[1:], start=2):
        if all(value is None for value in line):
            continue
        cells, wrong = _typed(dict(zip(SHEET, line, strict=True)))
        empty = [
            _Problem(field, "required, but empty", "fill it in", "B14")
            for field, header in headers.items()
            if header in _excel(protocol).required
            and cells[field] is None
            and field not in {one.field for one in wrong}
        ]
        words = rules.metastasis_words.model_dump().values()
        if cells["metastasis"] is not None and cells["metastasis"] not in words:
            wrong.append(_Problem("metastasis", "neither yes nor no", f"one of {', '.join(words)}", "B14"))
        made.append(cells)
        problems += [
            f"row {number}, column {headers[one.field]}: {one.reason}; {one.remedy} ({one.number})"
            for one in [*wrong, *empty, *_wrong(cells, protocol, rules)]
        ]
    table = pl.DataFrame(made, schema=SHEET)
    if table["patient_code"].drop_nulls().n_unique() < table["patient_code"].drop_nulls().len():
        problems.append(f"column {headers['patient_code']}: a code stands twice; one row a patient (B13)")
    if problems:
        raise InputError("\n".join(f"{path}: {one}" for one in problems))
    return table


def _typed(cells: dict[str, Any]) -> tuple[dict[str, Any], list[_Problem]]:
    """The cells as the types of SHEET; what cannot be one is empty and named."""
    problems = []
    typed: dict[str, Any] = {}
    for field, value in cells.items():
        kind = SHEET[field]
        if value is None:
            typed[field] = None
        elif kind == pl.Date:
            typed[field] = value.date() if isinstance(value, datetime) else value if isinstance(value, date) else None
        elif kind == pl.String:
            number = isinstance(value, int) and not isinstance(value, bool)
            typed[field] = value if isinstance(value, str) else str(value) if field == "eod" and number else None
        else:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            whole = number and (kind == pl.Float64 or float(value).is_integer())
            typed[field] = (float(value) if kind == pl.Float64 else int(value)) if whole else None
        if value is not None and typed[field] is None:
            problems.append(_Problem(field, "not of the type of the column", "correct the cell", "B13"))
    return typed, problems


def _without_times(content: bytes) -> bytes:
    """A zip archive whose entries have no time of their own."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            part = old.read(name)
            if name == "docProps/core.xml":
                part = re.sub(rb"(<dcterms:(created|modified)[^>]*>)[^<]*", rb"\g<1>2000-01-01T00:00:00Z", part)
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(entry, part)
    return stream.getvalue()


# --- DICOM files of the same patients (B12) ---------------------------------------------------------------------------


def match_dicom(
    rows: pl.DataFrame, files: Sequence[Path], folder: Path, protocol: Protocol
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The DICOM files of the patients of a sheet, each looked into: code in name and id, and the date of the exam.

    Args:
        rows: columns of SHEET.
        files: below ``folder``, written by the de-identification.

    Returns:
        Columns of FILES: files that belong to a row. Columns of FILE_PROBLEMS: files that do not, and patients without
        any file. A file that is in neither does not exist: every file is in one of them.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    days = dict(rows.select("patient_code", "exam_date").iter_rows())
    tags = [int(tag[1:5] + tag[6:10], 16) for tag in protocol.codes.patient_code_tags]
    kept: list[tuple[str, str, int]] = []
    wrong: list[tuple[int | None, str | None, str, str]] = []
    for number, path in enumerate(sorted(files), start=1):
        try:
            data = dcmread(path, stop_before_pixels=True, specific_tags=[*tags, 0x00080020])
        except (InvalidDicomError, OSError, ValueError, AttributeError, KeyError, EOFError):
            wrong.append((number, None, "not a DICOM file", "B12"))
            continue
        codes = {str(data[tag].value) if tag in data else "" for tag in tags}
        code = next(iter(codes))
        if len(codes) > 1 or code not in days:
            wrong.append((number, None, "its patient code is none of the sheet, or differs between name and id", "B12"))
        elif str(data.get("StudyDate", "")) != f"{days[code]:%Y%m%d}":
            wrong.append((number, code, "of another day than the row of the patient", "B13"))
        else:
            kept.append((code, path.relative_to(folder).as_posix(), path.stat().st_size))
    matched = pl.DataFrame(kept, schema=FILES, orient="row")
    without = sorted(set(days) - set(matched["patient_code"]))
    wrong += [(None, code, "no DICOM file of the exam", "B12") for code in without]
    return matched, pl.DataFrame(wrong, schema=FILE_PROBLEMS, orient="row")


def without_files(sheet: Sheet, files: pl.DataFrame, protocol: Protocol, rules: BoneScanRules) -> Sheet:
    """The sheet of the patients who have DICOM files; the others are among its problems (B12).

    Args:
        files: columns of FILES, of `match_dicom`.
    """
    has = pl.col("patient_code").is_in(files["patient_code"].implode())
    rows, without = sheet.rows.filter(has), sheet.rows.filter(~has)
    header = _headers(protocol, rules)["patient_code"]
    remedy = "de-identify the files of the exam, or leave the patient out"
    lacking = pl.DataFrame(
        [(code, header, "no DICOM file of the exam", remedy, "B12") for code in without["patient_code"]],
        schema=PROBLEMS,
        orient="row",
    )
    problems = pl.concat([sheet.problems, lacking]).sort("patient_code", maintain_order=True)
    return Sheet(rows, problems, _counts(rows, problems, sheet.counts["patients_in"], protocol))


# --- volumes and receipt (B7) -----------------------------------------------------------------------------------------


def write_bundle(
    out: Path,
    sheet: Sheet,
    files: pl.DataFrame,
    *,
    folder: Path,
    protocol: Protocol,
    permission: Permission,
    rules: BoneScanRules,
    rules_sha256: str | None = None,
) -> list[Path]:
    """A folder with one subfolder a disc, each at most ``transfer.volume_mb`` and with a manifest of its own.

    The sheet is on the first disc. Files keep their order; a patient is cut only where a disc is full. Nothing here
    uses a network. Where the protocol asks for encryption the manifest says that the medium must be encrypted: do that
    with the means of the hospital when the folders are written to disc.

    Args:
        files: columns of FILES, made by `match_dicom` for this sheet. folder: where their paths begin.
        permission: of the gate, for the sheet or the images, to the recipient.

    Returns:
        The folders of the volumes.

    Raises:
        RefusedError: the permission is for something else.
        InputError: a patient of the sheet has no file, a file is of no patient of the sheet, or does not fit on a disc.
        ConfigError: ``out`` cannot be written.
    """
    check_permission(protocol, permission, kinds=("excel", "dicom"))
    need_columns(files, FILES, name="files")
    codes = set(sheet.rows["patient_code"])
    if codes != set(files["patient_code"]):
        apart = len(codes ^ set(files["patient_code"]))
        raise InputError(
            f"{apart} patients are in the sheet or in the DICOM files, but not in both; "
            "match them with match_dicom first (B12)"
        )
    excel = sheet_bytes(sheet.rows, protocol, rules)
    limit = (protocol.transfer.volume_mb or 700) * _MEGABYTE - _SPARE
    volumes = _volumes(files, limit=limit, first=len(excel))
    counts = {**sheet.counts, "dicom_files": files.height, "volumes": len(volumes)}
    said = about(
        protocol,
        permission,
        counts=counts,
        rules_sha256=rules_sha256,
        channel=protocol.transfer.channel,
        medium_must_be_encrypted=protocol.transfer.encrypted,
        eod_missing_token=_excel(protocol).eod_missing_token,
        height_unit=_excel(protocol).height_unit,
    )
    with new_folder(out) as made:
        for number, paths in enumerate(volumes, start=1):
            volume = made / f"volume-{number:02d}"
            volume.mkdir()
            if number == 1:
                (volume / rules.file).write_bytes(excel)
            for path in paths:
                target = volume / "DICOM" / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / path, target)
            write_manifest(volume, about={**said, "volume": number}, rows={})
        write_manifest(made, about=said, rows={f"volume-01/{rules.file}": sheet.rows.height})
    return [out / f"volume-{number:02d}" for number in range(1, len(volumes) + 1)]


def _volumes(files: pl.DataFrame, *, limit: int, first: int) -> list[list[str]]:
    """Paths by disc, in order; ``first``: bytes that are on the first disc already."""
    if first > limit or any(size > limit for size in files["bytes"]):
        raise InputError("a file is larger than a disc; raise transfer.volume_mb")
    volumes: list[list[str]] = [[]]
    used = first
    for path, size in files.sort("patient_code", "path").select("path", "bytes").iter_rows():
        if used + size > limit:
            volumes.append([])
            used = 0
        volumes[-1].append(path)
        used += size
    return volumes


def record_receipt(bundle: Path, *, received_on: date, received_by: str) -> Path:
    """Write down that a bundle was received: beside it, with the hash of its manifest.

    Args:
        received_by: the office that received it, never the name of a person.

    Returns:
        ``BUNDLE.receipt.json``.

    Raises:
        InputError: the bundle is not as its manifest says. ConfigError: there is a receipt already.
    """
    if problems := verify_manifest(bundle):
        raise InputError(f"{bundle}: not what was made: {len(problems)} files differ; make the bundle again")
    manifest = read_manifest(bundle) or {}
    path = bundle.with_name(bundle.name + _RECEIPT)
    if path.exists():
        raise ConfigError(f"{path}: a receipt is there already; it is never overwritten")
    receipt = {
        "protocol": manifest.get("protocol"),
        "recipient": manifest.get("permission", {}).get("recipient"),
        "purpose": manifest.get("permission", {}).get("purpose"),
        "channel": manifest.get("channel"),
        "counts": manifest.get("counts"),
        "manifest_sha256": hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest(),
        "received_on": received_on.isoformat(),
        "received_by": received_by,
    }
    with AtomicText(path) as text:
        text.write(json.dumps(receipt, ensure_ascii=False, indent=1) + "\n")
    return path
