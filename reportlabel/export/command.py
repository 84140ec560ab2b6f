"""`reportlabel export`: the labels of a workspace, as they are or as they were, as a folder for training code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

from reportlabel.errors import ConfigError, ExitCode, InputError
from reportlabel.export.images import read_images
from reportlabel.export.labels import Exported, export_labels
from reportlabel.export.options import ExportOptions
from reportlabel.rulebook.load import load_rules
from reportlabel.rulebook.models import LabelSet
from reportlabel.run import open_workspace


def run_export(
    workspace: Path,
    *,
    to: str,
    out: Path,
    options: ExportOptions,
    label_sets: Sequence[str] = (),
    as_of: int | None = None,
    images: Path | None = None,
    rules: Path | None = None,
    console: Console,
) -> int:
    """Export and say what was written; returns the exit code DONE.

    Args:
        label_sets: ids; none: all that the workspace has labels of.
        as_of: number of the version that a run left; None: the last one.

    Raises:
        ConfigError, InputError: no workspace, no such version, wrong options, or labels of other rules.
    """
    opened = open_workspace(workspace)
    versions = opened.versions(as_of)
    number = opened.snapshots().height - 1 if as_of is None else as_of
    labels = opened.scan("labels", version=versions["labels"])
    exported = export_labels(
        labels,
        opened.read("exams", version=versions["exams"]),
        label_sets=_wanted(labels, label_sets, rules),
        to=to,
        out=out,
        options=options,
        images=None if images is None else read_images(images),
        votes=opened.scan("votes", version=versions["votes"]) if options.features else None,
        choices=opened.read("choices", version=versions.get("choices", -1)),
        as_of=str(number),
    )
    _show(exported, number, console)
    return int(ExitCode.DONE)


def _wanted(labels: pl.LazyFrame, names: Sequence[str], rules: Path | None) -> list[LabelSet]:
    known = load_rules(rules).label_sets
    there = sorted(labels.select(pl.col("label_set").unique()).collect()["label_set"])
    if not there:
        raise InputError("the workspace has no labels; run `reportlabel run` first")
    unknown = [name for name in names if name not in there]
    if unknown:
        raise ConfigError(f"--label-set {unknown[0]}: the workspace has labels of {', '.join(there)}")
    missing = [name for name in names or there if name not in known]
    if missing:
        raise ConfigError(f"label set {missing[0]} is not among the rules; give the rules of the run with --rules")
    return [known[name] for name in names or there]


def _show(exported: Exported, number: int, console: Console) -> None:
    table = Table(title=f"{exported.folder}: labels of version {number}", title_justify="left")
    table.add_column("split")
    table.add_column("exams", justify="right")
    table.add_column("patients", justify="right")
    for split, exams in exported.exams.items():
        table.add_row(split, f"{exams:,}", f"{exported.patients[split]:,}")
    console.print(table)
    told = [f"{exported.labels:,} labels"]
    if exported.labels_of_other_sets:
        told.append(f"{exported.labels_of_other_sets:,} of other label sets not asked for")
    if exported.exams_without_label:
        told.append(f"{exported.exams_without_label:,} exams that no exported label set fits")
    if exported.exams_without_image is not None:
        told.append(f"{exported.exams_without_image:,} exams without an image")
        told.append(f"{exported.images_of_no_exam or 0:,} images of no exam")
    if exported.features is not None:
        told.append(f"{exported.features:,} input features")
    console.print("; ".join(told), highlight=False, soft_wrap=True)
