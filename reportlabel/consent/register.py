"""The register of refusals: one file in which the consent office writes every request, by this program.

    add_requests(Path("refusals.csv"), request_of({"site": "gunma", "patient_id": "12345678", "scope": "all_research"}))

The register is a list as `read_refusals` reads it, with fixed columns, in UTF-8, for its owner's eyes only. Lines are
only ever added: what stands in it stays as it is, byte for byte.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from reportlabel.consent.refusals import REFUSALS, read_refusals
from reportlabel.deidentify.private_file import write_private
from reportlabel.errors import ConfigError, InputError

__all__ = ["COLUMNS", "Added", "add_requests"]

COLUMNS = ("site", "patient_id", "received", "scope", "study", "requester", "case", "requester_minor")
_UNREADABLE = "unreadable"
"""Written for a scope that could not be read beside a named study: left empty it would mean that study alone."""


@dataclass(frozen=True)
class Added:
    """How many requests were added, and how many stood in the register already."""

    added: int
    known: int


def add_requests(register: Path, requests: pl.DataFrame) -> Added:
    """Add requests to a register, which is made where there is none; those that stand in it are not added again.

    Args:
        register: the file.
        requests: columns of `REFUSALS`.

    Raises:
        ConfigError: the file is no register of this program, or cannot be written.
        InputError: it cannot be read.
    """
    before = b""
    known = pl.DataFrame(schema=REFUSALS)
    if register.exists():
        before = _content(register)
        known = read_refusals(register, encoding="utf-8").rows
    meant = [name for name in REFUSALS if name not in ("row", "doubt")]
    asked = requests.select(meant).unique(maintain_order=True)
    new = asked.join(known.select(meant), on=meant, how="anti", nulls_equal=True, maintain_order="left")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if not before:
        writer.writerow(COLUMNS)
    for row in new.iter_rows(named=True):
        writer.writerow([_cell(name, row) for name in COLUMNS])
    if new.height or not before:
        ended = b"" if not before or before.endswith(b"\n") else b"\n"
        write_private(register, before + ended + text.getvalue().encode("utf-8"))
    return Added(new.height, requests.height - new.height)


def _content(register: Path) -> bytes:
    try:
        content = register.read_bytes()
    except OSError as error:
        raise InputError(f"{register}: cannot be read: {error.strerror}") from None
    if content.partition(b"\n")[0].strip() != ",".join(COLUMNS).encode():
        raise ConfigError(
            f"{register}: is no register of this program (its first line is not {','.join(COLUMNS)}); give a new file, "
            "and take the list in with --list"
        )
    return content


def _cell(name: str, row: dict[str, object]) -> str:
    value = row[name]
    if name == "scope" and value is None and row["study"] is not None:
        return _UNREADABLE
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
