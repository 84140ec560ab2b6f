"""The list by which the pictures of labelled exams are taken out of the archive (K7). It never leaves the hospital.

    made = retrieval_list(exams, labels, uids)
    write_retrieval_list(out, made, protocol=protocol, permission=permission)

It holds the codes of the exams and the identifiers of the picture archive.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from reportlabel.errors import InputError
from reportlabel.export.study_folder import about, check_permission, need_columns, write_tables
from reportlabel.protocol import Permission, Protocol

__all__ = ["RETRIEVAL", "UIDS", "RetrievalList", "retrieval_list", "write_retrieval_list"]

RETRIEVAL = pl.Schema(
    {
        "exam_id": pl.String,
        "site": pl.String,
        "modality_class": pl.String,
        "study_instance_uid": pl.String,
        "accession_number": pl.String,
    }
)
"""One row a labelled exam; the last two are those of the picture archive."""

UIDS = pl.Schema({"exam_id": pl.String, "study_instance_uid": pl.String, "accession_number": pl.String})
"""The identifiers of exams as the hospital has them."""


@dataclass(frozen=True)
class RetrievalList:
    """``rows``: columns of RETRIEVAL, one a labelled exam whose pictures can be found; ``without_uid``: exam_id of the
    labelled exams that have neither UID nor accession number. Together all labelled exams and no other."""

    rows: pl.DataFrame
    without_uid: pl.DataFrame


def retrieval_list(exams: pl.DataFrame, labels: pl.DataFrame, uids: pl.DataFrame) -> RetrievalList:
    """Labelled exams and where their pictures are.

    Args:
        exams: exam_id, site, modality_class. labels: the labels table; an exam with a row in it is a labelled one.
        uids: columns of UIDS, from the linkage store: what stands in the exams table of a study are codes.

    Raises:
        InputError: a column is missing, an exam stands twice, or a labelled exam is none of the exams.
    """
    need_columns(exams, ("exam_id", "site", "modality_class"), name="exams")
    need_columns(labels, ("exam_id",), name="labels")
    need_columns(uids, UIDS, name="uids")
    for name, table in (("exams", exams), ("uids", uids)):
        twice = table.height - table["exam_id"].n_unique()
        if twice:
            raise InputError(f"{name}: {twice} exam ids stand twice; give one row an exam")
    known = exams.select("exam_id", "site", "modality_class").join(uids.select(list(UIDS)), on="exam_id", how="left")
    labelled = labels.select("exam_id").unique()
    lost = labelled.join(known, on="exam_id", how="anti").height
    if lost:
        raise InputError(f"labels: {lost} labelled exams are none of the exams; make the labels anew (K7)")
    rows = known.join(labelled, on="exam_id", how="semi").sort("exam_id").select(list(RETRIEVAL)).cast(RETRIEVAL)
    found = pl.any_horizontal(
        pl.col(name).str.strip_chars().fill_null("") != "" for name in ("study_instance_uid", "accession_number")
    )
    return RetrievalList(rows.filter(found), rows.filter(~found).select("exam_id"))


def write_retrieval_list(
    out: Path, made: RetrievalList, *, protocol: Protocol, permission: Permission, rules_sha256: str | None = None
) -> None:
    """A folder with the list, the labelled exams that cannot be found, and the manifest.

    Raises:
        RefusedError: the permission is for something else. ConfigError: the folder cannot be written.
    """
    check_permission(protocol, permission, kinds=("retrieval_list",))
    counts = {
        "labelled_exams": made.rows.height + made.without_uid.height,
        "exams_listed": made.rows.height,
        "exams_without_uid": made.without_uid.height,
    }
    said = about(protocol, permission, counts=counts, rules_sha256=rules_sha256)
    write_tables(out, {"image_list": made.rows, "without_uid": made.without_uid}, said=said)
