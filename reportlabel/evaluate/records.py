"""What linked records add: labels of a synthetic hospital with and without them, against what is so of each patient.

The exams of some patients are reviewed by a reader who knows the truth; they teach both sides the same. All figures are
of the other patients.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from reportlabel.aggregate.calibrate import expected_calibration_error
from reportlabel.aggregate.combine import aggregate
from reportlabel.aggregate.settings import load_settings
from reportlabel.errors import ConfigError, ExitCode, InputError
from reportlabel.export.atomic import AtomicText, check_writable
from reportlabel.flow import scope_of_reports
from reportlabel.run import Options, open_workspace, run
from reportlabel.study import Study, load_study

FIGURES = pl.Schema(
    {
        "label_set": pl.String,
        "finding": pl.String,
        "exams": pl.Int64,
        "present": pl.Int64,
        "f1_text": pl.Float64,
        "f1_records": pl.Float64,
        "brier_text": pl.Float64,
        "brier_records": pl.Float64,
        "ece_text": pl.Float64,
        "ece_records": pl.Float64,
    }
)
"""One row a label that some record votes for: exams of patients that nobody reviewed, and figures of both sides."""

_ENOUGH = 10  # exams with the finding, below which a figure says nothing


@dataclass(frozen=True)
class RecordValue:
    """Figures by label, and pooled over all exams and labels of the table."""

    by_label: pl.DataFrame
    pooled: dict[str, float]


def run_evaluate_records(
    hospital: Path, *, reviewed: float, rules: Path | None, json_out: Path | None, console: Console
) -> int:
    """Label the hospital's Parquet archive with and without records, print the table, and return the exit code.

    Raises:
        InputError: the folder is no synthetic hospital with Parquet tables.
        ConfigError: the share of reviewed patients is none.
    """
    if json_out is not None:
        check_writable(json_out)
    found = evaluate_records(hospital, reviewed=reviewed, rules=rules)
    _show(found, console)
    if json_out is not None:
        told = {"by_label": found.by_label.to_dicts(), "pooled": found.pooled}
        with AtomicText(json_out) as file:
            file.write(json.dumps(told, ensure_ascii=False, indent=1) + "\n")
    return int(ExitCode.DONE)


def evaluate_records(hospital: Path, *, reviewed: float = 0.3, rules: Path | None = None) -> RecordValue:
    """Figures of the labels that some record votes for.

    Args:
        hospital: as `reportlabel synth` makes it, with parquet and gold.
        reviewed: share of the patients whose exams were reviewed.
    """
    if not 0 < reviewed < 1:
        raise ConfigError(f"--reviewed {reviewed}: give a share between 0 and 1")
    for name in ("parquet/exams.parquet", "gold/labels.parquet"):
        if not (hospital / name).is_file():
            raise InputError(f"{hospital} has no {name}; make it with `reportlabel synth`")
    study = load_study(rules)
    with tempfile.TemporaryDirectory(prefix="reportlabel-") as scratch:
        folder = Path(scratch) / "workspace"
        archive = Path(scratch) / "archive.yaml"
        archive.write_text(f"sources:\n  - {{path: {(hospital / 'parquet').resolve()}, format: parquet}}\n")
        run(archive, folder, Options(rules=rules))
        workspace = open_workspace(folder)
        exams, votes = workspace.read("exams"), workspace.read("votes")
        scope = scope_of_reports(exams, workspace.read("reports"), study)
    votes = votes.filter(~pl.col("function_id").str.starts_with("value/"))
    truth = _truth(hospital, exams, scope, study)
    is_reviewed = pl.col("patient_id").map_elements(lambda one: _share(one) < reviewed, return_dtype=pl.Boolean)
    known = truth.filter(is_reviewed).select(
        "exam_id", "label_set", "finding", value=pl.when("truth").then(pl.lit("present")).otherwise(pl.lit("absent"))
    )
    asked = truth.filter(~is_reviewed)
    scored = asked.rename({"truth": "so"})
    for name, own in (("text", votes.filter(pl.col("kind") != "record")), ("records", votes)):
        labels = aggregate(
            own,
            scope,
            exams=exams,
            label_sets=study.label_sets,
            readings=known,
            settings=load_settings(study.rules.folder / "aggregate.yaml"),
        ).labels
        scored = scored.join(
            labels.select("exam_id", "label_set", "finding", pl.col("p_present").alias(f"p_{name}")),
            on=["exam_id", "label_set", "finding"],
            how="inner",
        )
    with_rules = votes.filter(pl.col("kind") == "record").select("label_set", "finding").unique()
    return _figures(scored.join(with_rules, on=["label_set", "finding"], how="semi"))


def _share(patient_id: str) -> float:
    """A number from 0 to 1 that is the same for a patient in every run."""
    return int.from_bytes(hashlib.blake2b(patient_id.encode(), digest_size=8).digest(), "big") / 2**64


def _truth(hospital: Path, exams: pl.DataFrame, scope: pl.DataFrame, study: Study) -> pl.DataFrame:
    """exam_id, patient_id, label_set, finding, truth: what is so; without a gold label a finding is not there."""
    written = pl.read_parquet(hospital / "parquet" / "exams.parquet").select(
        pl.col("exam_id").alias("number"), "study_instance_uid"
    )
    gold = (
        pl.read_parquet(hospital / "gold" / "labels.parquet")
        .select(pl.col("exam_id").alias("number"), "label_set", "finding", "truth")
        .join(written, on="number")
        .join(exams.select("exam_id", "study_instance_uid"), on="study_instance_uid")
    )
    labelled = gold.select("exam_id", "label_set").unique()
    entries = pl.DataFrame(
        [(name, entry.id) for name, one in study.label_sets.items() for entry in one.findings],
        schema={"label_set": pl.String, "finding": pl.String},
        orient="row",
    )
    return (
        scope.join(labelled, on=["exam_id", "label_set"], how="semi", maintain_order="left")
        .join(entries, on="label_set", how="inner", maintain_order="left")
        .join(
            gold.select("exam_id", "label_set", "finding", "truth", pl.lit(True).alias("told")),
            on=["exam_id", "label_set", "finding"],
            how="left",
            maintain_order="left",
        )
        # nobody can know some of them: they are no question
        .filter(pl.col("told").is_null() | pl.col("truth").is_not_null())
        .join(exams.select("exam_id", "patient_id"), on="exam_id", how="left", maintain_order="left")
        .select("exam_id", "patient_id", "label_set", "finding", truth=(pl.col("truth") == "present").fill_null(False))
    )


def _figures(scored: pl.DataFrame) -> RecordValue:
    rows = []
    for (label_set, finding), group in scored.group_by("label_set", "finding", maintain_order=True):
        present = int(group["so"].sum())
        if present >= _ENOUGH:
            text, records = _of(group, "p_text"), _of(group, "p_records")
            pairs = [figure for both in zip(text, records, strict=True) for figure in both]
            rows.append((label_set, finding, group.height, present, *pairs))
    by_label = pl.DataFrame(rows, schema=FIGURES, orient="row").sort("label_set", "finding")
    asked = scored.join(by_label.select("label_set", "finding"), on=["label_set", "finding"], how="semi")
    pooled = {}
    for name in ("text", "records"):
        _, brier, ece = _of(asked, f"p_{name}") if asked.height else (0.0, 0.0, 0.0)
        pooled[f"f1_{name}"] = float(by_label[f"f1_{name}"].mean() or 0.0)  # type: ignore[arg-type]
        pooled[f"brier_{name}"] = brier
        pooled[f"ece_{name}"] = ece
    return RecordValue(by_label, pooled)


def _of(group: pl.DataFrame, column: str) -> tuple[float, float, float]:
    """F1 of present at one half, Brier score, expected calibration error."""
    so = group["so"].to_numpy().astype(np.int64)
    p = group[column].to_numpy().astype(np.float64)
    said = p >= 0.5
    both = int((said & (so == 1)).sum())
    total = int(said.sum()) + int(so.sum())
    f1 = 2 * both / total if total else 1.0
    return f1, float(((p - so) ** 2).mean()), expected_calibration_error(p, so)


def _show(found: RecordValue, console: Console) -> None:
    table = Table(title="labels without and with linked records, against what is so", title_justify="left")
    for name in ("label set", "finding"):
        table.add_column(name)
    for name in ("exams", "present", "F1", "with", "Brier", "with", "ECE"):
        table.add_column(name, justify="right")
    for row in found.by_label.iter_rows(named=True):
        table.add_row(
            row["label_set"],
            row["finding"],
            f"{row['exams']:,}",
            f"{row['present']:,}",
            f"{row['f1_text']:.3f}",
            _better(row["f1_text"], row["f1_records"], 3),
            f"{row['brier_text']:.4f}",
            _better(-row["brier_text"], -row["brier_records"], 4),
            f"{row['ece_records']:.3f}",
        )
    pooled = found.pooled
    table.add_section()
    table.add_row(
        "all",
        "mean F1, pooled Brier, ECE",
        "",
        "",
        f"{pooled['f1_text']:.3f}",
        f"{pooled['f1_records']:.3f}",
        f"{pooled['brier_text']:.4f}",
        f"{pooled['brier_records']:.4f}",
        f"{pooled['ece_records']:.3f}",
    )
    console.print(table)


def _better(before: float, after: float, digits: int) -> str:
    text = f"{abs(after):.{digits}f}"
    if round(after, digits) > round(before, digits):
        return f"[green]{text}[/]"
    return f"[red]{text}[/]" if round(after, digits) < round(before, digits) else text
