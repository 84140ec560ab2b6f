"""What a review is worth: exams chosen by reasons against random exams, read by readers who know the truth.

``python -m reportlabel.evaluate.review_value HOSPITAL`` labels a synthetic hospital, lets simulated perfect readers
read exams chosen by `reportlabel.review.reasons`, aggregates again with these readings as gold anchors, and does the
same with as many random exams. The figure is label F1: F1 of present for each label of each label set, and its mean
over the labels that enough exams have.

Chosen exams are no sample of all exams: a label model or calibration that learns from them takes the doubtful for the
usual. So the arm ``chosen`` learns from the exams that were drawn at random alone; ``chosen, all teach`` shows what
becomes of learning from all of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from reportlabel.aggregate.combine import aggregate
from reportlabel.aggregate.settings import load_settings as load_aggregate
from reportlabel.errors import ConfigError, ExitCode, InputError, ReportLabelError
from reportlabel.evaluate.records import _truth as truth_of
from reportlabel.flow import scope_of_reports
from reportlabel.review.reasons import choose_exams, drawn_exams
from reportlabel.review.settings import ReviewSettings
from reportlabel.review.settings import load_settings as load_review
from reportlabel.run import Options, open_workspace, run
from reportlabel.study import Study, load_study

_ENOUGH = 10  # exams with the finding, below which a figure says nothing
_NOTHING = 1e-6  # a gain that is no more than the rounding of a mean
_KEY = ["exam_id", "label_set", "finding"]


@dataclass(frozen=True)
class Arm:
    """Label F1 after one way to choose exams.

    Attributes:
        exams: that were read. settled: labels that were read. wrong: labels that were wrong before.
        f1_all: mean over labels, of all exams, those that were read included: what the export holds afterwards.
        f1_unread: the same of exams that no arm read: what the other exams learned.
        f1_pooled: of all exams and labels together.
        by_reason: exams and wrong labels found, by reason.
    """

    name: str
    exams: int
    settled: int
    wrong: int
    f1_all: float
    f1_unread: float
    f1_pooled: float
    by_reason: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class ReviewValue:
    """Before any review, after reading chosen exams, and after reading random exams (one arm a draw).

    ``chosen``: only its audit exams teach the label model and calibration; ``all_teach``: all chosen exams do.
    """

    before: Arm
    chosen: Arm
    all_teach: Arm
    random: list[Arm]

    def gain(self, figure: str, *, all_teach: bool = False) -> tuple[float, float]:
        """By how much the chosen and the random exams raise a figure of `Arm`; of random, the mean of the draws."""
        begin = float(getattr(self.before, figure))
        drawn = float(np.mean([getattr(arm, figure) for arm in self.random]))
        chosen = self.all_teach if all_teach else self.chosen
        return float(getattr(chosen, figure)) - begin, drawn - begin


@dataclass(frozen=True)
class Bench:
    """The tables of a labelled hospital, and what is so."""

    exams: pl.DataFrame
    votes: pl.DataFrame
    scope: pl.DataFrame
    truth: pl.DataFrame
    study: Study


def bench_of(hospital: Path, *, rules: Path | None = None, workspace: Path | None = None) -> Bench:
    """Label a hospital, or take the workspace where that was done.

    Raises:
        InputError: the folder is no synthetic hospital with Parquet tables.
    """
    for name in ("parquet/exams.parquet", "gold/labels.parquet"):
        if not (hospital / name).is_file():
            raise InputError(f"{hospital} has no {name}; make it with `reportlabel synth`")
    study = load_study(rules)
    with tempfile.TemporaryDirectory(prefix="reportlabel-") as scratch:
        if workspace is None:
            workspace = Path(scratch) / "workspace"
            archive = Path(scratch) / "archive.yaml"
            archive.write_text(
                json.dumps({"sources": [{"path": str((hospital / "parquet").resolve()), "format": "parquet"}]}),
                encoding="utf-8",
            )
            run(archive, workspace, Options(rules=rules))
        opened = open_workspace(workspace)
        exams, votes = opened.read("exams"), opened.read("votes")
        scope = scope_of_reports(exams, opened.read("reports"), study)
    votes = votes.filter(~pl.col("function_id").str.starts_with("value/"))
    return Bench(exams, votes, scope, truth_of(hospital, exams, scope, study), study)


def review_value(bench: Bench, *, budget: int, draws: int, settings: ReviewSettings | None = None) -> ReviewValue:
    """Read so many exams, chosen and drawn.

    Args:
        draws: random samples; a single one says little.

    Raises:
        ConfigError: no exam to read, or no draw.
    """
    if budget < 1 or draws < 1:
        raise ConfigError(f"{budget} exams, {draws} draws: give 1 or more of each")
    folder = bench.study.rules.folder
    settings = settings or load_review(folder / "review.yaml")
    # only exams whose truth is known can be read here
    known = bench.truth.select("exam_id").unique().sort("exam_id")
    before = _labels(bench, bench.truth.clear(), teaching=known)
    chosen = choose_exams(
        before.join(known, on="exam_id", how="semi"),
        bench.votes,
        bench.exams,
        budget=budget,
        settings=settings,
        aggregate=load_aggregate(folder / "aggregate.yaml"),
    )
    samples = [known.sample(min(budget, known.height), seed=draw) for draw in range(draws)]
    every = pl.concat([chosen.select("exam_id"), *samples]).unique()
    picked = chosen.select("exam_id", "reason").unique()
    audit = drawn_exams(chosen, seed="").select("exam_id").unique()
    reasons = dict(picked.iter_rows())
    picked = picked.select("exam_id")
    return ReviewValue(
        before=_arm(bench, "nothing", known.clear(), every, before),
        chosen=_arm(bench, "chosen", picked, every, before, teaching=audit, reasons=reasons),
        all_teach=_arm(bench, "chosen, all teach", picked, every, before, reasons=reasons),
        random=[_arm(bench, "random", sample, every, before) for sample in samples],
    )


def _labels(bench: Bench, read: pl.DataFrame, *, teaching: pl.DataFrame) -> pl.DataFrame:
    """Labels after the exams in ``read``, rows of the truth, were read; those in ``teaching`` (exam_id) teach."""
    readings = read.select(*_KEY, value=pl.when("truth").then(pl.lit("present")).otherwise(pl.lit("absent")))
    labels = aggregate(
        bench.votes,
        bench.scope,
        exams=bench.exams,
        label_sets=bench.study.label_sets,
        readings=readings.join(teaching, on="exam_id", how="semi"),
        settings=load_aggregate(bench.study.rules.folder / "aggregate.yaml"),
    ).labels.drop("evidence")
    return labels.join(readings, on=_KEY, how="left", suffix="_read", maintain_order="left").with_columns(
        value=pl.coalesce("value_read", "value")
    )


def _arm(
    bench: Bench,
    name: str,
    exams: pl.DataFrame,
    every: pl.DataFrame,
    before: pl.DataFrame,
    *,
    teaching: pl.DataFrame | None = None,
    reasons: Mapping[str, str] | None = None,
) -> Arm:
    read = bench.truth.join(exams, on="exam_id", how="semi")
    labels = _labels(bench, read, teaching=exams if teaching is None else teaching)
    scored = bench.truth.join(labels, on=_KEY, how="inner").with_columns(said=pl.col("value") == "present")
    wrong = read.join(before, on=_KEY, how="inner").filter((pl.col("value") == "present") != pl.col("truth"))
    found = dict(wrong.group_by("exam_id").len().iter_rows())
    by_reason: dict[str, tuple[int, int]] = {}
    for exam, reason in sorted((reasons or {}).items()):
        number, errors = by_reason.get(reason, (0, 0))
        by_reason[reason] = (number + 1, errors + found.get(exam, 0))
    return Arm(
        name=name,
        exams=exams.height,
        settled=read.height,
        wrong=wrong.height,
        f1_all=_mean_f1(scored),
        f1_unread=_mean_f1(scored.join(every, on="exam_id", how="anti")),
        f1_pooled=_f1(scored.select(both=pl.col("said") & pl.col("truth"), said="said", truth="truth").sum().row(0)),
        by_reason=by_reason,
    )


def _mean_f1(scored: pl.DataFrame) -> float:
    """Mean of the F1 of each label that enough exams have; nan where there is none."""
    counts = (
        scored.group_by("label_set", "finding")
        .agg(both=(pl.col("said") & pl.col("truth")).sum(), said=pl.col("said").sum(), truth=pl.col("truth").sum())
        .filter(pl.col("truth") >= _ENOUGH)
    )
    figures = [_f1(row) for row in counts.select("both", "said", "truth").iter_rows()]
    return float(np.mean(figures)) if figures else float("nan")


def _f1(row: tuple[int, ...]) -> float:
    both, said, truth = row
    return 2 * both / (said + truth) if said + truth else 1.0


def show(found: ReviewValue, console: Console) -> None:
    """Print the arms, and how much more the chosen exams give."""
    table = Table(title="label F1 against what is so", title_justify="left")
    table.add_column("read")
    for column in ("exams", "labels", "wrong before", "F1 all exams", "F1 unread exams", "pooled F1 all exams"):
        table.add_column(column, justify="right")
    for arm in (found.before, found.chosen, found.all_teach, *found.random):
        table.add_row(
            arm.name,
            f"{arm.exams:,}",
            f"{arm.settled:,}",
            f"{arm.wrong:,}",
            *(f"{figure:.4f}" for figure in (arm.f1_all, arm.f1_unread, arm.f1_pooled)),
        )
    console.print(table)
    for figure, name in (
        ("f1_all", "F1, all exams"),
        ("f1_unread", "F1, exams that no arm read"),
        ("f1_pooled", "pooled F1, all exams"),
    ):
        chosen, random = found.gain(figure)
        all_teach, _ = found.gain(figure, all_teach=True)
        times = f", {chosen / random:.1f} times" if random > _NOTHING else ""
        console.print(f"gain in {name}: chosen {chosen:+.4f} (all teach {all_teach:+.4f}), random {random:+.4f}{times}")
    for reason, (exams, errors) in found.chosen.by_reason.items():
        console.print(f"  {reason}: {exams} exams, {errors} wrong labels, {errors / exams:.1f} an exam")


def main(arguments: list[str] | None = None) -> int:
    """The command line of this module; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m reportlabel.evaluate.review_value", description=__doc__)
    parser.add_argument("hospital", type=Path, help="made by `reportlabel synth` with parquet")
    parser.add_argument("--budget", type=int, default=200, help="exams to read (default: 200)")
    parser.add_argument("--draws", type=int, default=5, help="random samples to compare with (default: 5)")
    parser.add_argument("--rules", type=Path, help="another rules folder")
    parser.add_argument("--workspace", type=Path, help="of the same hospital, already labelled; saves a minute or two")
    options = parser.parse_args(arguments)
    try:
        bench = bench_of(options.hospital, rules=options.rules, workspace=options.workspace)
        show(review_value(bench, budget=options.budget, draws=options.draws), Console())
    except ReportLabelError as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False)
        return int(error.exit_code)
    return int(ExitCode.DONE)


if __name__ == "__main__":
    sys.exit(main())
