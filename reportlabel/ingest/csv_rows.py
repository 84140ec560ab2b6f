"""CSV and TSV bytes to rows, strictly, fast, and going on after a broken row.

A record may hold newlines inside quotes, so records are found by their quotes. Two ways lead to the same rows:

- `_clean_rows`: numpy checks that every quote of a buffer stands where it may, then pyarrow parses it. Nearly every
  buffer goes this way.
- `_careful_rows`: one record at a time, for a buffer with anything irregular in it. After a record whose quotes are
  broken it goes on at the next line that looks like the start of a record of this file.

Values stay bytes; whoever uses a column decodes it. Blank lines are not rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

__all__ = ["FAULTS", "RAW_ROWS", "CsvLayout", "RawRows", "csv_rows", "read_header"]

MAX_RECORD_BYTES = 64 * 1024 * 1024
"""A quoted field that does not end within this many bytes is taken for one whose closing quote is missing."""

RAW_ROWS = pl.Schema({"row": pl.Int64, "line": pl.Int64, "report_id": pl.Binary, "text": pl.Binary})
FAULTS = pl.Schema({"row": pl.Int64, "line": pl.Int64, "last_line": pl.Int64, "reason": pl.String})

_MAX_SHAPES = 10_000
_QUOTE, _NEWLINE, _RETURN = b'"', b"\n", b"\r"
_PLAIN_END = {delimiter: re.compile(b"[" + delimiter + b"\r\n]") for delimiter in (b",", b"\t")}
_ALNUM, _DIGIT, _LETTER = re.compile("[0-9A-Za-z]+"), re.compile("[0-9]"), re.compile("[A-Za-z]")
_FIRST_ID = re.compile("[9Ax](?:[-_./:]?[9Ax])*")


class RawRows(NamedTuple):
    """Some consecutive rows of a file.

    `rows` has the columns of `RAW_ROWS`: row (1-based data row), line (1-based physical line where the row starts,
    null where the format has none), report_id and text as stored. `faults` has the columns of `FAULTS`: rows that
    have no usable fields, with the physical lines they span.
    """

    rows: pl.DataFrame
    faults: pl.DataFrame


@dataclass(frozen=True, kw_only=True)
class CsvLayout:
    """How records look: delimiter (one byte), fields in a record, and which of them (0-based) are id and text."""

    delimiter: bytes
    width: int
    id_index: int
    text_index: int


class _Record(NamedTuple):
    """One record: where the next one starts, its fields, and what is wrong with it ('' if nothing)."""

    end: int
    fields: list[bytes]
    fault: str
    bare_return: bool = False


@dataclass(kw_only=True)
class _Place:
    """How far the file has been read: the last data row, the next physical line, and what ids look like so far."""

    row: int = 0
    line: int = 1
    skipping: bool = False
    """Inside a broken record, looking for the next record; the broken one is the last fault."""
    broken: tuple[int, int] = (0, 0)
    shapes: set[tuple[str, int]] = field(default_factory=set)


class _Parsed(NamedTuple):
    rows: RawRows
    used: int


def read_header(blocks: Iterator[bytes], *, delimiter: bytes) -> tuple[list[str] | None, bytes, int]:
    """The column names, the bytes read beyond the header, and the physical line these start at.

    The names are None where the file has no record that could be a header.
    """
    buffer, line = b"", 1
    more = True
    while more:
        block = next(blocks, None)
        more = block is not None and len(buffer) < MAX_RECORD_BYTES
        buffer += block or b""
        position = 0
        while (record := _lex(buffer, position, delimiter=delimiter, final=not more)) is not None:
            if record.fault == "broken_quotes" or position >= len(buffer):
                return None, b"", line
            line += _lines_in(buffer, position, record)
            if record.fields != [b""]:
                return _header_names(record.fields), buffer[record.end :], line
            position = record.end
    return None, b"", line


def csv_rows(blocks: Iterator[bytes], *, layout: CsvLayout, rest: bytes, line: int) -> Iterator[RawRows]:
    """The data rows of a CSV whose header has been read.

    In: `blocks` of UTF-8 bytes, `rest` the bytes already read and `line` the physical line they start at.
    Out: rows and faults in the order of the file; each data row is in exactly one of the two.
    Faults: `too_few_fields`, `too_many_fields`, `broken_quotes`.
    """
    place = _Place(line=line)
    buffer, final = rest, False
    while not final:
        block = next(blocks, None)
        final = block is None
        buffer += block or b""
        while buffer or place.skipping:
            parsed = None if place.skipping else _clean_rows(buffer, place=place, layout=layout, final=final)
            if parsed is None:
                parsed = _careful_rows(buffer, place=place, layout=layout, final=final)
            if parsed.rows.rows.height or parsed.rows.faults.height:
                yield parsed.rows
            buffer = buffer[parsed.used :]
            if parsed.used == 0:
                break


def _header_names(fields: list[bytes]) -> list[str]:
    return [name.decode("utf-8", "replace").strip() for name in fields]


# --- the fast way -----------------------------------------------------------------------------------------------------


def _clean_rows(buffer: bytes, *, place: _Place, layout: CsvLayout, final: bool) -> _Parsed | None:
    """The complete records of a buffer if all of them are regular, else None; `place` moves on only if they are."""
    codes = np.frombuffer(buffer, dtype=np.uint8)
    quotes = np.flatnonzero(codes == ord(_QUOTE))
    newlines = np.flatnonzero(codes == ord(_NEWLINE))
    ends = newlines[np.searchsorted(quotes, newlines) % 2 == 0]
    used = len(buffer) if final else (int(ends[-1]) + 1 if len(ends) else 0)
    if used == 0:
        return None if len(buffer) >= MAX_RECORD_BYTES else _nothing()
    if final and not (len(ends) and ends[-1] == used - 1):
        ends = np.append(ends, used)  # the last record has no newline
    quotes = quotes[quotes < used]
    if not _quotes_are_regular(codes[:used], quotes, delimiter=layout.delimiter):
        return None
    if _has_bare_return(codes[:used], quotes):
        return None
    starts = np.concatenate(([0], ends[:-1] + 1))
    blank = (ends == starts) | ((ends == starts + 1) & (codes[np.minimum(starts, used - 1)] == ord(_RETURN)))
    starts = starts[~blank]
    columns = _parse(buffer[:used], layout=layout) if len(starts) else _no_columns()
    if columns is None or columns[0].len() != len(starts):
        return None
    rows = pl.DataFrame(
        {
            "row": np.arange(place.row + 1, place.row + 1 + len(starts)),
            "line": place.line + np.searchsorted(newlines, starts),
            "report_id": columns[0],
            "text": columns[1],
        },
        schema=RAW_ROWS,
    )
    place.row += len(starts)
    place.line += int(np.searchsorted(newlines, used))
    _learn_shapes(place, [*rows["report_id"].head(50), *rows["report_id"].tail(50)])
    return _Parsed(RawRows(rows, FAULTS.to_frame()), used)


def _nothing() -> _Parsed:
    return _Parsed(RawRows(RAW_ROWS.to_frame(), FAULTS.to_frame()), 0)


def _no_columns() -> tuple[pl.Series, pl.Series]:
    return pl.Series(dtype=pl.Binary), pl.Series(dtype=pl.Binary)


def _quotes_are_regular(codes: np.ndarray[Any, Any], quotes: np.ndarray[Any, Any], *, delimiter: bytes) -> bool:
    """Whether each quote opens a field, closes one, or is half of a doubled quote inside one."""
    if len(quotes) % 2:
        return False
    opening, closing = quotes[::2], quotes[1::2]
    before = np.where(opening > 0, codes[opening - 1], ord(_NEWLINE))
    after = np.where(closing + 1 < len(codes), codes[np.minimum(closing + 1, len(codes) - 1)], ord(_NEWLINE))
    edges = np.frombuffer(delimiter + _NEWLINE + _RETURN, dtype=np.uint8)
    # In a doubled quote the first half counts as closing and the second as opening; each is the other's neighbour.
    doubled = np.zeros(len(opening), dtype=bool)
    doubled[1:] = opening[1:] == closing[:-1] + 1
    followed = np.append(doubled[1:], False)
    return bool(np.all(np.isin(before, edges) | doubled) and np.all(np.isin(after, edges) | followed))


def _has_bare_return(codes: np.ndarray[Any, Any], quotes: np.ndarray[Any, Any]) -> bool:
    """Whether a record ends with a carriage return alone."""
    returns = np.flatnonzero(codes == ord(_RETURN))
    returns = returns[np.searchsorted(quotes, returns) % 2 == 0]
    return bool(np.any(codes[np.minimum(returns + 1, len(codes) - 1)] != ord(_NEWLINE)))


def _parse(buffer: bytes, *, layout: CsvLayout) -> tuple[pl.Series, pl.Series] | None:
    """The id and text column of records, or None if a record does not have the right number of fields."""
    names = [f"c{index}" for index in range(layout.width)]
    wanted = [names[layout.id_index], names[layout.text_index]]
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(buffer),
            read_options=pa_csv.ReadOptions(column_names=names, use_threads=False, block_size=len(buffer) + 1),
            parse_options=pa_csv.ParseOptions(delimiter=layout.delimiter.decode("ascii"), newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                include_columns=wanted, column_types=dict.fromkeys(wanted, pa.large_binary()), strings_can_be_null=False
            ),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError):  # the message quotes the row, which may not even be decodable
        return None
    return pl.Series(values=table.column(0), dtype=pl.Binary), pl.Series(values=table.column(1), dtype=pl.Binary)


# --- the careful way --------------------------------------------------------------------------------------------------


def _careful_rows(buffer: bytes, *, place: _Place, layout: CsvLayout, final: bool) -> _Parsed:
    """The complete records of a buffer one by one; what could go on in the next block is left unused."""
    rows: list[tuple[int, int, bytes, bytes]] = []
    faults: list[tuple[int, int, int, str]] = []
    position = 0
    while True:
        if place.skipping:
            found = _next_record_start(buffer, position, place=place, layout=layout, final=final)
            place.line += buffer.count(_NEWLINE, position, found.start)
            position = found.start
            if not found.sure:
                break
            faults.append((*place.broken, max(place.line - 1, place.broken[1]), "broken_quotes"))
            place.skipping = False
        if position >= len(buffer):
            break
        record = _lex(buffer, position, delimiter=layout.delimiter, final=final)
        if record is None and len(buffer) - position < MAX_RECORD_BYTES:
            break
        if record is not None and record.fields == [b""] and not record.fault:
            place.line += _lines_in(buffer, position, record)
            position = record.end
            continue
        place.row += 1
        if record is None or record.fault == "broken_quotes":
            place.broken, place.skipping = (place.row, place.line), True
            step = _after_line(buffer, position)
            place.line += buffer.count(_NEWLINE, position, step)
            position = step
            continue
        lines = _lines_in(buffer, position, record)
        if fault := record.fault or _width_fault(record.fields, layout=layout):
            faults.append((place.row, place.line, place.line + max(lines - 1, 0), fault))
        else:
            report_id = record.fields[layout.id_index]
            _learn_shapes(place, [report_id])
            rows.append((place.row, place.line, report_id, record.fields[layout.text_index]))
        place.line += lines
        position = record.end
    return _Parsed(
        RawRows(pl.DataFrame(rows, schema=RAW_ROWS, orient="row"), pl.DataFrame(faults, schema=FAULTS, orient="row")),
        position,
    )


def _width_fault(fields: list[bytes], *, layout: CsvLayout) -> str:
    if len(fields) == layout.width:
        return ""
    return "too_few_fields" if len(fields) < layout.width else "too_many_fields"


def _lines_in(buffer: bytes, position: int, record: _Record) -> int:
    return buffer.count(_NEWLINE, position, record.end) + record.bare_return


def _lex(buffer: bytes, position: int, *, delimiter: bytes, final: bool) -> _Record | None:
    """The record that starts at `position`, or None if it may go on beyond the buffer.

    Faults: `broken_quotes` (its end cannot be known: the closing quote is missing or a quote inside is not doubled),
    `stray_quote` (a quote in a field that does not start with one; the end of the record is known).
    """
    fields: list[bytes] = []
    fault = ""
    size = len(buffer)
    plain_end = _PLAIN_END[delimiter]
    while True:
        if buffer.startswith(_QUOTE, position):
            close = _closing_quote(buffer, position + 1)
            if close < 0 or (close == size - 1 and not final):
                return _Record(size, fields, "broken_quotes") if final else None
            fields.append(buffer[position + 1 : close].replace(b'""', _QUOTE))
            position = close + 1
        else:
            match = plain_end.search(buffer, position)
            if match is None and not final:
                return None
            stop = match.start() if match else size
            fields.append(buffer[position:stop])
            if _QUOTE in fields[-1]:
                fault = "stray_quote"
            position = stop
        if position == size:
            return _Record(size, fields, fault)
        after = buffer[position : position + 1]
        position += 1
        if after == delimiter:
            continue
        if after == _NEWLINE:
            return _Record(position, fields, fault)
        if after == _RETURN:
            if position == size and not final:
                return None
            if buffer.startswith(_NEWLINE, position):
                return _Record(position + 1, fields, fault)
            return _Record(position, fields, fault, bare_return=True)
        return _Record(position, fields, "broken_quotes")


def _closing_quote(buffer: bytes, position: int) -> int:
    """Where the quoted field whose content starts at `position` is closed; -1 if nowhere."""
    while True:
        position = buffer.find(_QUOTE, position)
        if position < 0 or not buffer.startswith(_QUOTE, position + 1):
            return position
        position += 2


class _Start(NamedTuple):
    start: int
    sure: bool


def _next_record_start(buffer: bytes, position: int, *, place: _Place, layout: CsvLayout, final: bool) -> _Start:
    """The next line that reads as a whole record with an id like those seen before.

    Not `sure`: everything before `start` belongs to the broken record, what follows needs more bytes to tell.
    """
    while position < len(buffer):
        record = _lex(buffer, position, delimiter=layout.delimiter, final=final)
        if record is None and len(buffer) - position < MAX_RECORD_BYTES:
            return _Start(position, sure=False)
        if record is not None and _is_whole(record, layout=layout):
            shapes = place.shapes or _shape_after(buffer, record.end, layout=layout)
            if shapes is None and not final:
                return _Start(position, sure=False)
            if _looks_like_an_id(record.fields[layout.id_index], shapes=shapes or set()):
                return _Start(position, sure=True)
        position = _after_line(buffer, position)
    return _Start(len(buffer), sure=final)


def _is_whole(record: _Record, *, layout: CsvLayout) -> bool:
    return not record.fault and len(record.fields) == layout.width


def _shape_after(buffer: bytes, position: int, *, layout: CsvLayout) -> set[tuple[str, int]] | None:
    """What the id of the next record looks like, where no id has been seen yet; None at the end of the buffer.

    Two records in a row with ids of one kind are the first records after a broken one; two lines of a report hardly.
    """
    record = _lex(buffer, position, delimiter=layout.delimiter, final=False)
    if record is None:
        return None
    return {_shape(record.fields[layout.id_index])} if _is_whole(record, layout=layout) else {("", -1)}


def _after_line(buffer: bytes, position: int) -> int:
    found = buffer.find(_NEWLINE, position)
    return len(buffer) if found < 0 else found + 1


def _shape(report_id: bytes) -> tuple[str, int]:
    """What kind of id this is: where it has letters or digits (only digits, only letters, or both), and its length."""
    text = report_id.decode("utf-8", "replace")
    kinds = (_DIGIT.search(text) is not None, _LETTER.search(text) is not None)
    mark = {(True, False): "9", (False, True): "A"}.get(kinds, "x")
    return _ALNUM.sub(mark, text), len(text)


def _learn_shapes(place: _Place, report_ids: list[bytes | None]) -> None:
    if len(place.shapes) < _MAX_SHAPES:
        place.shapes.update(_shape(report_id) for report_id in report_ids if report_id)


def _looks_like_an_id(report_id: bytes, *, shapes: set[tuple[str, int]]) -> bool:
    """A line of a report can look like a record; its first words rarely look like the ids of the file."""
    pattern, length = _shape(report_id)
    if shapes:
        return any((pattern, near) in shapes for near in (length - 1, length, length + 1))
    return length <= 64 and _FIRST_ID.fullmatch(pattern) is not None
