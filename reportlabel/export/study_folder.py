"""What the folders of all deliverables share: the check of the permission, table files, the manifest."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from reportlabel import __version__
from reportlabel.errors import InputError, RefusedError
from reportlabel.export.folder import new_folder
from reportlabel.export.manifest import write_manifest
from reportlabel.protocol import Permission, Protocol

__all__ = ["about", "check_permission", "need_columns", "read_table", "write_tables"]


def check_permission(protocol: Protocol, permission: Permission, *, kinds: Collection[str]) -> None:
    """Make sure that the gate let this very thing through.

    Raises:
        RefusedError: the permission is of another study or action, or for a deliverable of another kind.
    """
    allowed = {one.id for one in protocol.deliverables if one.kind in kinds}
    if permission.study == protocol.id and permission.action == "export" and permission.deliverable in allowed:
        return
    raise RefusedError(
        protocol.number("deliverable"),
        f"the permission is not for an export of {' or '.join(sorted(allowed)) or 'this kind'} of {protocol.id}; "
        "ask the gate of the protocol first",
    )


def about(
    protocol: Protocol,
    permission: Permission,
    *,
    counts: Mapping[str, int],
    rules_sha256: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    """What the manifest of a deliverable says beside its files (X2).

    Args:
        counts: rows in, out, excluded and so on.
        rules_sha256: of the rules that made the labels in it.
        more: what else is said of it, JSON types.

    Returns:
        Protocol with the chosen values of its gaps, permission (recipient, purpose, profile), version, counts.
    """
    allowed = {key: str(value) for key, value in asdict(permission).items() if value is not None}
    return {
        "reportlabel_version": __version__,
        "rules_sha256": rules_sha256,
        **protocol.manifest(),
        "permission": allowed,
        "custodian": protocol.custodian.office,
        "retention": {
            "basis": protocol.retention.basis,
            "destroy_due": due.isoformat() if (due := protocol.destroy_due()) else None,
            "recipient_copy": protocol.retention.recipient_copy,
        },
        "counts": dict(counts),
        **more,
    }


def need_columns(table: pl.DataFrame, columns: Iterable[str], *, name: str) -> None:
    """Make sure that a table has the columns.

    Raises:
        InputError: names the table and the columns it lacks.
    """
    if missing := [column for column in columns if column not in table.columns]:
        raise InputError(f"{name}: lacks the columns {', '.join(missing)}")


_FORMS = "whole numbers, numbers with a point, and days as 2024-04-01 or 2024/4/1"


def read_table(path: Path, schema: pl.Schema, *, required: Iterable[str] = ()) -> pl.DataFrame:
    """A table that the hospital gives: CSV (UTF-8 or cp932) or Parquet.

    Args:
        schema: the columns that there may be, and their types. required: those that must be there.

    Returns:
        The columns of the file, in the order of ``schema``; empty cells are null.

    Raises:
        InputError: the file cannot be read, has a column that is not known or lacks one, or a cell is of another type;
            names file, row and column, never the cell.
    """
    table = _read(path)
    if unknown := [name for name in table.columns if name not in schema]:
        raise InputError(f"{path}: unknown columns {', '.join(unknown)}; known: {', '.join(schema)}")
    need_columns(table, required, name=str(path))
    for name, kind in schema.items():
        if name not in table.columns:
            continue
        column = table[name]
        if column.dtype == pl.String:
            column = column.str.strip_chars().replace("", None)
        try:
            if column.dtype == pl.String and kind == pl.Date:
                cells = column.str.replace_all("/", "-", literal=True).str.to_date("%Y-%m-%d", strict=False)
            else:
                cells = column.cast(kind, strict=False)
        except pl.exceptions.PolarsError:
            raise InputError(f"{path}: column {name}: of another type than it should be; use {_FORMS}") from None
        wrong = (cells.is_null() & column.is_not_null()).arg_true()
        if len(wrong):
            raise InputError(f"{path}: row {wrong[0] + 2}, column {name}: of another type; use {_FORMS}")
        table = table.with_columns(cells)
    return table.select([name for name in schema if name in table.columns])


def _read(path: Path) -> pl.DataFrame:
    if path.suffix.lower() == ".parquet":
        try:
            return pl.read_parquet(path)
        except (OSError, pl.exceptions.PolarsError) as error:
            problem = type(error).__name__
        raise InputError(f"{path}: cannot be read as Parquet ({problem}); write the file again")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    for encoding in ("utf-8-sig", "cp932"):
        with suppress(UnicodeDecodeError, csv.Error):
            rows = list(csv.reader(io.StringIO(content.decode(encoding), newline=""), strict=True))
            break
    else:
        raise InputError(f"{path}: neither UTF-8 nor cp932, or not CSV; save it as CSV in UTF-8")
    if not rows or len(set(rows[0])) < len(rows[0]):
        raise InputError(f"{path}: row 1: no header, or a column stands twice")
    for number, row in enumerate(rows[1:], start=2):
        if row and len(row) != len(rows[0]):
            raise InputError(f"{path}: row {number}: {len(row)} cells, but the header has {len(rows[0])}; correct it")
    cells = [row for row in rows[1:] if row]
    return pl.DataFrame(cells, schema=dict.fromkeys(rows[0], pl.String), orient="row")


def write_tables(out: Path, tables: Mapping[str, pl.DataFrame], *, said: Mapping[str, Any]) -> None:
    """A folder with each table as Parquet and as CSV (UTF-8 with mark, which spreadsheets ask for), and the manifest.

    Args:
        tables: name -> table. Lists become texts joined by ``;`` in the CSV.
        said: what `about` gave.

    Raises:
        ConfigError: the folder cannot be written, or holds something that is no export.
    """
    with new_folder(out) as folder:
        rows: dict[str, int] = {}
        for name, table in tables.items():
            table.write_parquet(folder / f"{name}.parquet")
            (folder / f"{name}.csv").write_bytes(_csv(table))
            rows |= {f"{name}.parquet": table.height, f"{name}.csv": table.height}
        write_manifest(folder, about=said, rows=rows)


def _csv(table: pl.DataFrame) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow(table.columns)
    for row in table.iter_rows():
        writer.writerow([_cell(value) for value in row])
    return stream.getvalue().encode("utf-8-sig")


def _cell(value: object) -> object:
    if isinstance(value, list):
        return ";".join(str(one) for one in value)
    # a spreadsheet takes a text that begins like this for a formula and runs it
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value
