"""What radiologists said in the review, as a table with study, annotator and version (J6).

    made = annotation_table(readings, exams, protocol, profile="pseudonymised")
    write_annotations(out, made, protocol=protocol, permission=permission)

Nobody who read an exam is named.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from reportlabel.errors import ConfigError
from reportlabel.export.dose import exam_numbers
from reportlabel.export.study_folder import about, check_permission, need_columns, write_tables
from reportlabel.protocol import Permission, Profile, Protocol
from reportlabel.schema import READINGS

__all__ = ["Annotations", "annotation_table", "write_annotations"]

_SAID = ("label_set", "finding", "value", "spans", "origin")


@dataclass(frozen=True)
class Annotations:
    """The readings of the exams of a study.

    Attributes:
        table: study, exam_id, label_set, finding, annotator, version, value, spans, origin, read_at, sha256; of the
            anonymised profile exam_no in place of exam_id, and no read_at and sha256. ``version`` counts what the same
            annotator said of the same label, from 1; the highest holds.
        readings_of_other_exams: rows that are left out.
    """

    table: pl.DataFrame
    profile: Profile
    readings_of_other_exams: int


def annotation_table(
    readings: pl.DataFrame, exams: pl.DataFrame, protocol: Protocol, *, profile: Profile, key: bytes = b""
) -> Annotations:
    """The readings of the exams of the study, each version of each.

    Annotators are numbered: nobody's name or account is in the table. In the anonymised profile the number hangs on
    ``key``, and exams have the numbers that `reportlabel.export.dose.exam_table` gives them with the same key.

    Args:
        readings: the readings table. exams: of the study, columns exam_id, patient_id, site.
        key: random bytes; needed for ``anonymised``.

    Raises:
        InputError: a column is missing. ConfigError: no key.
    """
    need_columns(readings, READINGS, name="readings")
    need_columns(exams, ("exam_id", "patient_id", "site"), name="exams")
    own = readings.join(exams.select("exam_id"), on="exam_id", how="semi", maintain_order="left")
    anonymised = profile == "anonymised"
    if anonymised and len(key) < hashlib.sha256().digest_size:
        raise ConfigError("the anonymised annotations need a key of 32 random bytes or more")
    names = sorted(own["reader"].drop_nulls().unique(), key=lambda one: _order(key, one) if anonymised else one)
    numbers = {name: f"annotator-{at:02d}" for at, name in enumerate(names, start=1)}
    version = pl.int_range(1, pl.len() + 1).over("exam_id", "label_set", "finding", "reader")
    rows = own.sort("read_at", maintain_order=True, nulls_last=False).with_columns(
        study=pl.lit(protocol.id),
        annotator=pl.col("reader").replace_strict(numbers, return_dtype=pl.String),
        version=version.cast(pl.Int64),
    )
    said = ["annotator", "version", *_SAID[2:]]
    if anonymised:
        rows = rows.join(exam_numbers(exams, key), on="exam_id", how="left", maintain_order="left")
        columns = ["study", "exam_no", *_SAID[:2], *said]
    else:
        columns = ["study", "exam_id", *_SAID[:2], *said, "read_at", "sha256"]
    table = rows.select(columns).sort(columns[1], "label_set", "finding", "annotator", "version")
    return Annotations(table, profile, readings.height - own.height)


def _order(key: bytes, name: str) -> bytes:
    return hmac.new(key, f"annotator\0{name}".encode(), hashlib.sha256).digest()


def write_annotations(
    out: Path, made: Annotations, *, protocol: Protocol, permission: Permission, rules_sha256: str | None = None
) -> None:
    """A folder with the annotations and the manifest.

    Raises:
        RefusedError: the permission is for something else. ConfigError: the table is of another profile than was
            permitted, or the folder cannot be written.
    """
    check_permission(protocol, permission, kinds=("annotations",))
    if permission.profile != made.profile:
        raise ConfigError(f"the table is {made.profile}, but {permission.profile} is what was permitted")
    exam = "exam_no" if made.profile == "anonymised" else "exam_id"
    counts = {
        "annotations": made.table.height,
        "exams": made.table[exam].n_unique(),
        "annotators": made.table["annotator"].n_unique(),
        "readings_of_other_exams": made.readings_of_other_exams,
    }
    said = about(protocol, permission, counts=counts, rules_sha256=rules_sha256)
    write_tables(out, {"annotations": made.table}, said=said)
