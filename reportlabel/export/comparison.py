"""Programs beside readers, as a folder: the software of the bone scan study (B4-B6), labels beside dermatologists (T6).

Only figures are in the folder, no row of a patient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from reportlabel.evaluate.readers import beside_readers, consensus_count, count_agreement, reader_counts
from reportlabel.evaluate.software import check_values, software_figures, software_tests
from reportlabel.export.bone_scan import patient_metastasis
from reportlabel.export.deliverable_rules import BoneScanRules, SkinRules
from reportlabel.export.study_folder import about, check_permission, need_columns, write_tables
from reportlabel.protocol import Permission, Protocol
from reportlabel.rulebook.models import LabelSet

__all__ = ["PROGRAM", "Comparison", "compare_labels", "compare_software", "write_comparison"]

PROGRAM = "program"
"""What the labels are called among the raters."""

_STATUS = ("present", "uncertain", "absent", "not_mentioned")


@dataclass(frozen=True)
class Comparison:
    """``tables``: what goes out, by name; ``inside``: lists of patients that stay; ``counts``: how many were used."""

    tables: Mapping[str, pl.DataFrame]
    inside: Mapping[str, pl.DataFrame]
    counts: Mapping[str, int]


def compare_software(
    values: pl.DataFrame,
    exams: pl.DataFrame,
    labels: pl.DataFrame,
    readings: pl.DataFrame,
    protocol: Protocol,
    rules: BoneScanRules,
) -> Comparison:
    """BSI and hotspots of each condition against what readers said, with the agreement of the readers.

    The truth is that of the readers, made one by ``analyses.consensus``; patients without it are in no figure, nor are
    those whose tracer is not known or who were given two.

    Args:
        values: columns of `reportlabel.evaluate.software.VALUES`. exams: with ``tracer_id``, as `select_cohort` gives
            them. labels, readings: of the study.

    Returns:
        tables: figures, tests, agreement. inside: rejected (values, with the reason), disagreements (of report and
        readers).
    """
    need_columns(exams, ("exam_id", "patient_id", "tracer_id"), name="exams")
    tracers = (
        exams.drop_nulls("tracer_id")
        .group_by(patient_code="patient_id")
        .agg(tracer=pl.when(pl.col("tracer_id").n_unique() == 1).then(pl.col("tracer_id").first()))
        .drop_nulls()
    )
    checked = check_values(values, tracers, protocol, counted=rules.counted)
    decided = patient_metastasis(exams, labels, readings, protocol, rules)
    counts = reader_counts(exams, readings, label_set=rules.label_set, count=rules.count, finding=rules.metastasis)
    rule = protocol.analyses.consensus if protocol.analyses else "majority"
    by_patient = counts.drop_nulls().group_by("patient_code").agg("count")
    together = by_patient.select(
        "patient_code",
        pl.Series("count", [consensus_count(some, rule) for some in by_patient["count"].to_list()], dtype=pl.Float64),
    )
    said = decided.patients.filter(pl.col("confirmed"), pl.col("value").is_in(["present", "absent"]))
    truth = said.select("patient_code", present=pl.col("value") == "present").join(
        together, on="patient_code", how="left"
    )
    tables = {
        "figures": software_figures(checked.values, truth, protocol, thresholds=rules.thresholds),
        "tests": software_tests(checked.values, truth, protocol, thresholds=rules.thresholds),
        "agreement": count_agreement(_unnamed(counts)),
    }
    return Comparison(
        tables,
        {"rejected": checked.rejected, "disagreements": decided.disagreements},
        {
            "values_in": values.height,
            "values_used": checked.values.join(truth, on="patient_code", how="semi").height,
            "values_rejected": checked.rejected.height,
            "values_without_truth": checked.values.join(truth, on="patient_code", how="anti").height,
            "patients": exams["patient_id"].n_unique(),
            "patients_with_truth": truth.height,
        },
    )


def _numbers(readers: pl.Series) -> dict[str, str]:
    """What the readers are called in what goes out: nobody's name or account."""
    return {name: f"reader-{at:02d}" for at, name in enumerate(sorted(readers.drop_nulls().unique()), start=1)}


def _unnamed(readers: pl.DataFrame) -> pl.DataFrame:
    return readers.with_columns(pl.col("reader").replace_strict(_numbers(readers["reader"]), return_dtype=pl.String))


def compare_labels(
    labels: pl.DataFrame,
    readings: pl.DataFrame,
    images: pl.DataFrame,
    links: pl.DataFrame,
    diagnoses: pl.DataFrame,
    label_set: LabelSet,
    rules: SkinRules,
) -> Comparison:
    """Labels of reports and readers against the pathological diagnosis, diagnosis by diagnosis.

    A record that speaks for a label would be judged by itself: only what the report says counts for the program.

    Args:
        labels, readings: tables of a workspace. images: columns of IMAGES and exam_id. links, diagnoses: of
            `reportlabel.export.skin`. label_set: of the labels.

    Returns:
        tables: beside_readers. inside: nothing.
    """
    need_columns(images, ("image_id", "exam_id"), name="images")
    parts = {one.id: set(one.any_of) for one in label_set.findings if set(one.any_of) & set(rules.diagnoses)}
    seen = (
        links.filter(pl.col("role") == "pathological")
        .join(diagnoses.filter(pl.col("diagnosis").is_in(list(rules.diagnoses))), on="record_id", how="inner")
        .join(images.select("image_id", "exam_id"), on="image_id", how="inner")
        .group_by("exam_id")
        .agg(pl.col("diagnosis").unique())
    )
    reference = pl.DataFrame(
        [
            (exam, finding, bool(those & set(there)))
            for exam, there in seen.select("exam_id", "diagnosis").iter_rows()
            for finding, those in parts.items()
        ],
        schema={"exam_id": pl.String, "finding": pl.String, "present": pl.Boolean},
        orient="row",
    )
    of_set = (pl.col("label_set") == label_set.id) & pl.col("finding").is_in(list(parts))
    own = (
        labels.filter(of_set)
        .with_columns(
            said=pl.col("evidence")
            .list.eval(pl.element().filter(pl.element().struct.field("kind").is_in(["rule", "bert"])))
            .list.eval(pl.element().struct.field("value"))
        )
        .select(
            "exam_id",
            "finding",
            rater=pl.lit(PROGRAM),
            present=pl.col("said").list.contains("present").fill_null(False),
        )
    )
    latest = (
        readings.filter(of_set, pl.col("value").is_in(_STATUS))
        .sort("read_at", maintain_order=True, nulls_last=False)
        .unique(["exam_id", "finding", "reader"], keep="last", maintain_order=True)
    )
    by_reader = _unnamed(latest).select("exam_id", "finding", rater="reader", present=pl.col("value") == "present")
    ratings = pl.concat([own, by_reader])
    return Comparison(
        {"beside_readers": beside_readers(ratings, reference, rater=PROGRAM)},
        {},
        {
            "exams_with_pathology": seen.height,
            "exams_labelled": own["exam_id"].n_unique(),
            "exams_compared": own.join(seen, on="exam_id", how="semi")["exam_id"].n_unique(),
            "readers": by_reader["rater"].n_unique(),
        },
    )


def write_comparison(
    out: Path, made: Comparison, *, protocol: Protocol, permission: Permission, rules_sha256: str | None = None
) -> None:
    """A folder with the figures and the manifest.

    Raises:
        RefusedError: the permission is for something else. ConfigError: the folder cannot be written.
    """
    check_permission(protocol, permission, kinds=("comparison",))
    write_tables(out, made.tables, said=about(protocol, permission, counts=made.counts, rules_sha256=rules_sha256))
