"""Reports from one CSV, TSV or Parquet file, in batches, with every row that cannot be used set aside.

    reader = read_reports(Path("reports.csv"))
    for batch in reader:
        ...  # batch.reports: row, report_id, text
    reader.counts, reader.quarantine, reader.notes

A file that cannot be read at all raises `InputError` before the first batch wherever that can be known so early.
"""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pa_parquet
from pydantic import Field

from reportlabel.errors import ConfigError, InputError
from reportlabel.ingest.csv_rows import FAULTS, RAW_ROWS, CsvLayout, RawRows, csv_rows, read_header
from reportlabel.ingest.duplicates import SeenReports, mark_duplicates
from reportlabel.ingest.encoding import choose_encoding, utf8_blocks
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.models import Strict
from reportlabel.rulebook.read_yaml import parse, read_yaml

__all__ = ["MAX_TEXT_CHARS", "QUARANTINE", "REASONS", "ReadCounts", "ReportBatch", "ReportReader", "read_reports"]

MAX_TEXT_CHARS = 10_000_000
BATCH_BYTES = 64 * 1024 * 1024
"""A batch ends at this size even if it has fewer rows than asked for, so that very long reports fit in memory."""

REPORTS = pl.Schema({"row": pl.Int64, "report_id": pl.String, "text": pl.String})
QUARANTINE = pl.Schema(
    {
        "file": pl.String,
        "row": pl.Int64,
        "line": pl.Int64,
        "last_line": pl.Int64,
        "report_id": pl.String,
        "reason": pl.String,
        "remedy": pl.String,
    }
)

REASONS = {
    "missing_report_id": "give the row an id",
    "duplicate_report_id": "an earlier row has this id with another text and was kept: give each report its own id",
    "empty_text": "give the text of the report, or take the row out",
    "too_long": f"a text may have {MAX_TEXT_CHARS:,} characters: split what are several reports",
    "undecodable": "the bytes of the row do not fit the encoding of the file: export it again, or give --encoding",
    "too_few_fields": "the row has fewer fields than the header: quote texts that hold newlines",
    "too_many_fields": "the row has more fields than the header: quote texts that hold the delimiter",
    "broken_quotes": 'a closing " is missing, or a " inside a quoted text is not doubled (""): export the row again',
    "stray_quote": 'a field holds a " but is not quoted: quote the field and double the " inside it',
}
"""The reasons for which a row is quarantined, and what mends it."""

_SAME_TEXT_REMEDY = "an earlier row has this id and the same text and was kept: take this copy out"
_DELIMITERS = {".csv": b",", ".tsv": b"\t", ".tab": b"\t"}
_PARQUET = (".parquet", ".pq")


class ReadCounts(NamedTuple):
    """Rows read so far; when all batches are taken, rows_in = rows_out + quarantined."""

    rows_in: int
    rows_out: int
    quarantined: int


class ReportBatch(NamedTuple):
    """`reports`: row (1-based data row of the file), report_id (unique in the file), text (as stored, not empty)."""

    reports: pl.DataFrame


class ReportReader:
    """The batches of one file. Each iteration reads the file from its start.

    Attributes: path; columns of the file; encoding (None for Parquet); notes, warnings for the user. `counts` and
    `quarantine` are those of the latest iteration so far.
    """

    def __init__(
        self,
        *,
        path: Path,
        columns: tuple[str, ...],
        encoding: str | None,
        notes: tuple[str, ...],
        batch_rows: int,
        source: Callable[[], Iterator[RawRows]],
    ) -> None:
        self.path = path
        self.columns = columns
        self.encoding = encoding
        self.notes = notes
        self._batch_rows = batch_rows
        self._source = source
        self._counts = ReadCounts(0, 0, 0)
        self._quarantined: list[pl.DataFrame] = []

    @property
    def counts(self) -> ReadCounts:
        """Rows read, given out and quarantined so far."""
        return self._counts

    @property
    def quarantine(self) -> pl.DataFrame:
        """The rows set aside so far, columns of `QUARANTINE`, in the order of the file.

        `line` and `last_line` are physical lines (1-based, null for Parquet); `last_line` is null where it is not
        known. `report_id` is null where the row has none that can be trusted.
        """
        rows = pl.concat([_no_quarantine(), *self._quarantined]).sort("row", maintain_order=True)
        return rows.with_columns(file=pl.lit(self.path.name)).select(QUARANTINE.names())

    def __iter__(self) -> Iterator[ReportBatch]:
        self._counts = ReadCounts(0, 0, 0)
        self._quarantined = []
        seen = SeenReports()
        waiting: list[pl.DataFrame] = []
        for raw in self._source():
            sifted = _sift(raw, seen=seen)
            rows_in, rows_out, quarantined = self._counts
            self._counts = ReadCounts(
                rows_in + raw.rows.height + raw.faults.height, rows_out, quarantined + sifted.quarantined.height
            )
            if sifted.quarantined.height:
                self._quarantined.append(sifted.quarantined)
            waiting.append(sifted.reports)
            ready, waiting = _batches(waiting, batch_rows=self._batch_rows, all_of_it=False)
            yield from self._given_out(ready)
        ready, _ = _batches(waiting, batch_rows=self._batch_rows, all_of_it=True)
        yield from self._given_out(ready)

    def _given_out(self, frames: list[pl.DataFrame]) -> Iterator[ReportBatch]:
        for frame in frames:
            self._counts = self._counts._replace(rows_out=self._counts.rows_out + frame.height)
            yield ReportBatch(reports=frame)


def read_reports(
    path: Path,
    *,
    id_column: str = "report_id",
    text_column: str = "text",
    encoding: str | None = None,
    batch_rows: int = 20_000,
) -> ReportReader:
    """Open a file of reports: .csv, .tsv, .tab (also with .gz), .parquet or .pq, by its name.

    In: the columns that hold the ids and the texts; the encoding of a text file (default: told from its bytes); the
    most rows a batch may have. Out: a `ReportReader`; nothing but the header has been read into memory.

    Raises `InputError` for a file that is missing, unreadable, empty, of another kind or without the columns, and
    `ConfigError` for options that make no sense. Bad rows never raise: see `REASONS`.
    """
    if id_column == text_column:
        raise ConfigError("--id-column and --text-column name the same column; they must differ")
    if batch_rows < 1:
        raise ConfigError("the number of rows in a batch must be at least 1")
    kind = _kind(path)
    head = _head(path)
    if kind in _PARQUET:
        return _open_parquet(path, id_column=id_column, text_column=text_column, encoding=encoding, rows=batch_rows)
    _refuse_other_formats(path, head=head)
    return _open_csv(
        path,
        delimiter=_DELIMITERS[kind],
        id_column=id_column,
        text_column=text_column,
        encoding=encoding,
        batch_rows=batch_rows,
    )


# --- rows to reports and quarantine -----------------------------------------------------------------------------------


class _Sifted(NamedTuple):
    reports: pl.DataFrame
    quarantined: pl.DataFrame


def _no_quarantine() -> pl.DataFrame:
    return QUARANTINE.to_frame().drop("file")


def _sift(raw: RawRows, *, seen: SeenReports) -> _Sifted:
    """Rows with an id of their own and a text, and the others with the reason."""
    rows = raw.rows.select(
        "row", "line", *_decoded(raw.rows["report_id"], name="report_id"), *_decoded(raw.rows["text"], name="text")
    ).with_columns(
        reason=pl.when(pl.col("report_id_bad") | pl.col("text_bad"))
        .then(pl.lit("undecodable"))
        .when(_is_blank("report_id"))
        .then(pl.lit("missing_report_id"))
        .when(_is_blank("text"))
        .then(pl.lit("empty_text"))
        .when(pl.col("text").str.len_chars() > MAX_TEXT_CHARS)
        .then(pl.lit("too_long"))
    )
    bad = rows.filter(pl.col("reason").is_not_null())
    usable = rows.filter(pl.col("reason").is_null())
    usable = usable.with_columns(duplicate=mark_duplicates(usable, seen=seen))
    repeated = usable.filter(pl.col("duplicate").is_not_null()).with_columns(reason=pl.lit("duplicate_report_id"))
    reports = usable.filter(pl.col("duplicate").is_null()).select(REPORTS.names())
    quarantined = [
        _with_remedy(raw.faults.with_columns(report_id=pl.lit(None, dtype=pl.String))),
        _with_remedy(bad.with_columns(last_line=pl.lit(None, dtype=pl.Int64))),
        _with_remedy(repeated.with_columns(last_line=pl.lit(None, dtype=pl.Int64))).with_columns(
            remedy=pl.when(repeated["duplicate"] == "same_text").then(pl.lit(_SAME_TEXT_REMEDY)).otherwise("remedy")
        ),
    ]
    return _Sifted(reports=reports, quarantined=pl.concat(quarantined))


def _with_remedy(rows: pl.DataFrame) -> pl.DataFrame:
    columns = ("row", "line", "last_line", "report_id", "reason", "remedy")
    remedy = pl.col("reason").replace_strict(REASONS, return_dtype=pl.String)
    return rows.with_columns(remedy=remedy).select(columns)


def _is_blank(column: str) -> pl.Expr:
    return pl.col(column).fill_null("").str.strip_chars() == ""


def _decoded(values: pl.Series, *, name: str) -> tuple[pl.Series, pl.Series]:
    """The values as text (`name`), null where the bytes are not valid UTF-8, and whether they were not (`name`_bad)."""
    try:
        texts = values.cast(pl.String)
    except pl.exceptions.ComputeError:
        texts = pl.Series([_text_or_none(value) for value in values], dtype=pl.String)
    return texts.rename(name), (texts.is_null() & values.is_not_null()).rename(f"{name}_bad")


def _text_or_none(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _batches(
    frames: list[pl.DataFrame], *, batch_rows: int, all_of_it: bool
) -> tuple[list[pl.DataFrame], list[pl.DataFrame]]:
    """What is ready to be given out, in batches, and what waits for more."""
    height = sum(frame.height for frame in frames)
    size = sum(frame.estimated_size() for frame in frames)
    if height == 0 or (height < batch_rows and size < BATCH_BYTES and not all_of_it):
        return [], [frame for frame in frames if frame.height]
    whole = pl.concat(frames)
    cut = height if all_of_it or size >= BATCH_BYTES else height - height % batch_rows
    ready = [whole.slice(start, min(batch_rows, cut - start)) for start in range(0, cut, batch_rows)]
    return ready, [whole.slice(cut)] if cut < height else []


# --- which file is it -------------------------------------------------------------------------------------------------


def _kind(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = suffixes[-1] if suffixes else ""
    if kind == ".gz" and len(suffixes) > 1 and suffixes[-2] in _DELIMITERS:
        kind = suffixes[-2]
    if os.path.isdir(path):  # unlike Path.is_dir this answers for impossible names too
        raise InputError(f"{path} is a directory; give one file (CSV, TSV or Parquet)")
    if not os.path.exists(path):
        raise InputError(f"{path}: no such file")
    if kind not in _DELIMITERS and kind not in _PARQUET:
        raise InputError(
            f"{path}: unknown kind of file {kind or '(no extension)'!r}; "
            "give .csv, .tsv, .csv.gz, .tsv.gz or .parquet (a spreadsheet: save it as 'CSV UTF-8')"
        )
    return kind


def _head(path: Path) -> bytes:
    problem = ""
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError as error:
        problem = error.strerror or "reading failed"
    if problem:
        raise InputError(f"{path}: cannot be read: {problem}")
    if not head:
        raise InputError(f"{path} is empty")
    return head


def _refuse_other_formats(path: Path, *, head: bytes) -> None:
    """Say plainly that a file is not what its name says, rather than complain about its columns."""
    if head.startswith(b"PAR1"):
        raise InputError(f"{path} holds Parquet data, not text; rename it to end in .parquet")
    if head.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise InputError(f"{path} is a spreadsheet or zip archive, not text; save it as 'CSV UTF-8'")
    if head.startswith(b"\x1f\x8b") != (path.suffix.lower() == ".gz"):
        raise InputError(f"{path}: the name must end in .gz if, and only if, the file is compressed with gzip")


def _needed_columns(
    columns: list[str], *, path: Path, shown: list[str], id_column: str, text_column: str, hint: str = ""
) -> tuple[int, int]:
    """Where the id and the text column are. `shown` are the column names that a message may quote."""
    for column, option in ((id_column, "--id-column"), (text_column, "--text-column")):
        if columns.count(column) > 1:
            raise InputError(f"{path}: column {column!r} occurs {columns.count(column)} times; rename all but one")
        if column in columns:
            continue
        nearest = _nearest(column, shown)
        near = f" (nearest: {nearest!r})" if nearest else ""
        listed = ", ".join(repr(name) for name in shown) or "none that looks like a column name"
        hidden = len(columns) - len(shown)
        more = f" and {hidden} not shown" if hidden and shown else ""
        raise InputError(
            f"{path}: no column {column!r}{near}; the columns are: {listed}{more}. Name the column with {option}{hint}"
        )
    return columns.index(id_column), columns.index(text_column)


def _nearest(column: str, names: list[str]) -> str | None:
    by_folded = {_folded(name): name for name in reversed(names)}
    near = difflib.get_close_matches(_folded(column), list(by_folded), n=1, cutoff=0.6)
    return by_folded[near[0]] if near else None


def _folded(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", unicodedata.normalize("NFKC", name)).casefold()


# --- CSV and TSV ------------------------------------------------------------------------------------------------------

_ASCII_NAME = re.compile(r"[A-Za-z][A-Za-z]*(?:[ _.\-]?[A-Za-z]+){0,5}[ _.\-]?[0-9]?")


class ReportTableRules(Strict):
    """``rules/ingest/report_table.yaml``: what a Japanese column name that a message may quote ends in."""

    header_endings: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


def load_report_table_rules(folder: Path | None = None) -> ReportTableRules:
    """Read ``ingest/report_table.yaml`` of a rules folder (default: the one that came with the package).

    Raises:
        ConfigError: names file, line and key of what is wrong.
    """
    folder = rules_folder() if folder is None else folder
    return parse(read_yaml(folder / "ingest" / "report_table.yaml"), ReportTableRules)


def _japanese_name(rules: ReportTableRules) -> re.Pattern[str]:
    endings = "|".join(re.escape(word) for word in rules.header_endings)
    return re.compile(rf"[^\s、。,.:;!?「」()\d]{{0,10}}(?:{endings})")


def _open_csv(
    path: Path, *, delimiter: bytes, id_column: str, text_column: str, encoding: str | None, batch_rows: int
) -> ReportReader:
    choice = choose_encoding(path, encoding=encoding)
    columns, _, _ = read_header(utf8_blocks(path, encoding=choice.name), delimiter=delimiter)
    if columns is None:
        raise InputError(f"{path}: no header; the first line must name the columns, among them the id and the text")
    id_index, text_index = _needed_columns(
        columns,
        path=path,
        shown=_quotable_names(columns, load_report_table_rules()),
        id_column=id_column,
        text_column=text_column,
        hint=_header_hint(columns, delimiter=delimiter),
    )
    layout = CsvLayout(delimiter=delimiter, width=len(columns), id_index=id_index, text_index=text_index)

    def source() -> Iterator[RawRows]:
        blocks = utf8_blocks(path, encoding=choice.name)
        _, rest, line = read_header(blocks, delimiter=delimiter)
        return csv_rows(blocks, layout=layout, rest=rest, line=line)

    return ReportReader(
        path=path,
        columns=tuple(columns),
        encoding=choice.name,
        notes=choice.notes,
        batch_rows=batch_rows,
        source=source,
    )


def _quotable_names(columns: list[str], rules: ReportTableRules) -> list[str]:
    """The column names that an error message may quote.

    A file without a header has a patient's data in its first line. A line with anything in it that no header would
    hold is not quoted at all, and of the others only what is a usual kind of column name.
    """
    if any(len(name) > 40 or re.search(r"\d{3}|[\n\r、。,\0\ufffd]", name) for name in columns):
        return []
    japanese = _japanese_name(rules)
    return [name for name in columns if _ASCII_NAME.fullmatch(name) or japanese.fullmatch(name)]


def _header_hint(columns: list[str], *, delimiter: bytes) -> str:
    if len(columns) > 1:
        return "; if the file has no header, add one"
    for other, remedy in (("\t", "name the file .tsv"), (";", "save it with commas"), (",", "name the file .csv")):
        if other.encode() != delimiter and other in columns[0]:
            return f"; the first line has no {delimiter.decode()!r} but {other!r}: {remedy}"
    return "; the first line has only one field"


# --- Parquet ----------------------------------------------------------------------------------------------------------

_PIECE_BYTES = 16 * 1024 * 1024


def _open_parquet(path: Path, *, id_column: str, text_column: str, encoding: str | None, rows: int) -> ReportReader:
    schema, bytes_per_row = _parquet_schema(path)
    names: list[str] = list(schema.names)
    id_index, text_index = _needed_columns(names, path=path, shown=names, id_column=id_column, text_column=text_column)
    text_type, id_type = _value_type(schema.types[text_index]), _value_type(schema.types[id_index])
    if not _is_text(text_type):
        raise InputError(
            f"{path}: column {text_column!r} holds {text_type}, not text; "
            "store the reports as text or choose the column with --text-column"
        )
    if not (_is_text(id_type) or pa.types.is_integer(id_type)):
        raise InputError(
            f"{path}: column {id_column!r} holds {id_type}; "
            "store the ids as text or whole numbers or choose the column with --id-column"
        )
    piece_rows = max(1, min(rows, _PIECE_BYTES // max(1, bytes_per_row)))
    notes = () if encoding is None else ("the encoding is not used: text in a Parquet file is always utf-8",)
    return ReportReader(
        path=path,
        columns=tuple(names),
        encoding=None,
        notes=notes,
        batch_rows=rows,
        source=lambda: _parquet_rows(path, id_column=id_column, text_column=text_column, piece_rows=piece_rows),
    )


def _parquet_schema(path: Path) -> tuple[Any, int]:
    try:
        with pa_parquet.ParquetFile(path) as file:
            groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
            size = sum(group.total_byte_size for group in groups)
            return file.schema_arrow, size // max(1, file.metadata.num_rows)
    except (pa.ArrowException, OSError, ValueError):
        pass  # the library's message may quote data
    raise InputError(f"{path}: not a readable Parquet file; write or copy it again")


def _parquet_rows(path: Path, *, id_column: str, text_column: str, piece_rows: int) -> Iterator[RawRows]:
    row = 0
    try:
        with pa_parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=piece_rows, columns=[id_column, text_column]):
                ids, texts = _bytes(batch.column(id_column)), _bytes(batch.column(text_column))
                frame = pl.DataFrame({"report_id": ids, "text": texts}).select(
                    row=pl.int_range(row + 1, row + 1 + len(ids), dtype=pl.Int64),
                    line=pl.lit(None, dtype=pl.Int64),
                    report_id="report_id",
                    text="text",
                )
                row += len(ids)
                yield RawRows(frame.match_to_schema(RAW_ROWS), FAULTS.to_frame())
            return
    except (pa.ArrowException, OSError):
        pass  # as above
    raise InputError(f"{path}: damaged after row {row}; write or copy the file again")


def _value_type(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: Any) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind)
    )


def _bytes(values: Any) -> pl.Series:
    """The bytes of text (not yet known to be valid UTF-8) or of whole numbers as digits."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_integer(values.type):
        values = values.cast(pa.large_string())
    return pl.Series(values=values.cast(pa.large_binary()), dtype=pl.Binary)
