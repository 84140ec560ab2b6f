"""Exam and report: by StudyInstanceUID, then accession number, then date and modality where that is unique.

Both are of one patient of one site: the same number in another hospital is another person, and a wrong number must not
lead to the exam of somebody else. A key that leads to two exams is no key. What finds no exam, or more than one, goes
to quarantine and says why.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

NO_EXAM = "no exam of its patient has its study uid, accession number, or date and modality"
SEVERAL_EXAMS = "more than one exam fits, and nothing tells them apart"
CONTRADICTION = "study uid and accession number lead to different exams"


@dataclass(frozen=True)
class Matched:
    """Reports with their exam, and those without one.

    ``reports``: the columns given, with exam_id, and matched_by (study_uid, accession or day). ``quarantined``: the
    reports that were not matched, with reason. Together they are all that came in.
    """

    reports: pl.DataFrame
    quarantined: pl.DataFrame


def match_reports(reports: pl.DataFrame, exams: pl.DataFrame) -> Matched:
    """Find the exam of every report.

    Args:
        reports: site, patient_id, study_instance_uid, accession_number, exam_at (of the exam, as the report system has
            it), modality, and whatever else; no exam_id. A site that is null is that of exams whose site is null.
        exams: the exams table.
    """
    numbered = reports.with_row_index("_row")
    by_uid = _found(numbered, exams, ["study_instance_uid"])
    by_accession = _found(numbered, exams, ["accession_number"])
    by_day = _found(
        numbered.with_columns(_day=pl.col("exam_at").dt.date()),
        exams.with_columns(_day=pl.col("started_at").dt.date()),
        ["_day", "modality"],
    )
    keys = (
        numbered.select("_row")
        .join(by_uid.rename({"exam_id": "by_uid", "several": "uid_several"}), on="_row", how="left")
        .join(by_accession.rename({"exam_id": "by_accession", "several": "accession_several"}), on="_row", how="left")
        .join(by_day.rename({"exam_id": "by_day", "several": "day_several"}), on="_row", how="left")
    )
    contradicts = (
        pl.col("by_uid").is_not_null()
        & pl.col("by_accession").is_not_null()
        & (pl.col("by_uid") != pl.col("by_accession"))
    )
    decided = keys.select(
        "_row",
        exam_id=pl.when(~contradicts.fill_null(False)).then(pl.coalesce("by_uid", "by_accession", "by_day")),
        matched_by=pl.when(pl.col("by_uid").is_not_null())
        .then(pl.lit("study_uid"))
        .when(pl.col("by_accession").is_not_null())
        .then(pl.lit("accession"))
        .otherwise(pl.lit("day")),
        reason=pl.when(contradicts)
        .then(pl.lit(CONTRADICTION))
        .when(pl.any_horizontal(pl.col("uid_several", "accession_several", "day_several").fill_null(False)))
        .then(pl.lit(SEVERAL_EXAMS))
        .otherwise(pl.lit(NO_EXAM)),
    )
    joined = numbered.join(decided, on="_row", how="left", maintain_order="left").drop("_row")
    return Matched(
        reports=joined.filter(pl.col("exam_id").is_not_null()).drop("reason"),
        quarantined=joined.filter(pl.col("exam_id").is_null()).drop("exam_id", "matched_by"),
    )


def _found(reports: pl.DataFrame, exams: pl.DataFrame, key: list[str]) -> pl.DataFrame:
    """The exam of each report by one key within its patient: _row, exam_id (null where several fit), several."""
    needed = ["patient_id", *key]
    usable = pl.all_horizontal(pl.col(name).is_not_null() for name in needed)
    # an empty identifier identifies nothing
    for name in needed:
        if exams.schema[name] == pl.String:
            usable &= pl.col(name).str.strip_chars() != ""
    unique = (
        exams.filter(usable)
        .group_by("site", *needed)
        .agg(exam_id=pl.col("exam_id").first(), several=pl.col("exam_id").n_unique() > 1)
        .with_columns(exam_id=pl.when(~pl.col("several")).then("exam_id"))
    )
    return (
        reports.filter(usable)
        .join(unique, on=["site", *needed], how="inner", nulls_equal=True)
        .select("_row", "exam_id", "several")
    )
