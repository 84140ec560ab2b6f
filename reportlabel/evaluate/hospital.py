"""`reportlabel evaluate-hospital`: rules against a synthetic hospital, whose gold is known to the character.

Two questions. Does a report get the labels that its text speaks of? And of the finding expressions in the texts, how
many are found, apart for expressions that are terms of the rules and for those that are not: the second kind is what a
trained model has to add.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
from rich import box
from rich.console import Console
from rich.table import Table

from reportlabel.annotate.annotator import Annotator
from reportlabel.annotate.lexicon import normal_term
from reportlabel.annotate.normalise import Normaliser
from reportlabel.errors import ExitCode, InputError
from reportlabel.evaluate.metrics import f1, precision, recall
from reportlabel.export.atomic import AtomicText, check_writable
from reportlabel.flow import label_batch
from reportlabel.rulebook.load import Rulebook, load_rules

_BATCH = 5000
_STATUSES = ("present", "uncertain", "absent", "not_mentioned")


def run_evaluate_hospital(hospital: Path, *, rules: Path | None, json_out: Path | None, console: Console) -> int:
    """Score the rules on every report of a synthetic hospital and print both tables; returns the exit code DONE.

    Raises InputError where the folder is no such hospital, ConfigError for rules or an output that cannot be used.
    """
    if not (hospital / "gold" / "labels.parquet").is_file():
        raise InputError(f"{hospital} is no synthetic hospital; make one with `reportlabel synth {hospital}`")
    if json_out is not None:
        check_writable(json_out)
    annotator = Annotator(load_rules(rules) if rules else None)
    with console.status("labelling …"):
        labels, mentions = label_hospital(hospital, annotator)
        by_finding = label_scores(labels)
        found = mention_recall(pl.read_parquet(hospital / "gold" / "mentions.parquet"), mentions, annotator.rules)
    _show(by_finding, found, console)
    if json_out is not None:
        content = {"labels": by_finding.to_dicts(), "mentions": found.to_dicts()}
        with AtomicText(json_out) as file:
            file.write(json.dumps(content, ensure_ascii=False, indent=2) + "\n")
    return int(ExitCode.DONE)


def label_hospital(hospital: Path, annotator: Annotator) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Labels beside their gold, and mentions.

    Returns:
        label_set, report_id, finding, value, gold; and the mentions of all reports (of the first set that fits each).
    """
    gold = pl.read_parquet(hospital / "gold" / "labels.parquet").filter(pl.col("value").is_in(_STATUSES))
    labels, mentions, seen = [], [], pl.DataFrame(schema={"report_id": pl.String})
    for path in sorted((hospital / "texts").glob("*.parquet")):
        label_set = annotator.rules.label_sets[path.stem]
        statuses = [entry.id for entry in label_set.findings]
        own = gold.filter((pl.col("label_set") == path.stem) & pl.col("finding").is_in(statuses)).select(
            "report_id", "finding", gold="value"
        )
        reports = pl.read_parquet(path, columns=["report_id", "text"])
        for start in range(0, reports.height, _BATCH):
            done = label_batch(reports.slice(start, _BATCH), annotator, label_set)
            labels.append(
                done.labels.select("report_id", "finding", "value")
                .join(own, on=["report_id", "finding"])
                .with_columns(label_set=pl.lit(path.stem))
            )
            mentions.append(done.mentions.join(seen, on="report_id", how="anti"))
        seen = pl.concat([seen, reports.select("report_id")]).unique()
    return pl.concat(labels), pl.concat(mentions)


def label_scores(labels: pl.DataFrame) -> pl.DataFrame:
    """One row a label set and finding: reports that have it by the gold; precision, recall and F1 of each status."""
    rows = []
    for (label_set, finding), own in labels.group_by("label_set", "finding", maintain_order=True):
        codes = {status: at for at, status in enumerate(_STATUSES)}
        table = np.zeros((len(_STATUSES), len(_STATUSES)))
        counted = own.group_by("gold", "value").len()
        for gold, value, count in counted.iter_rows():
            table[codes[gold], codes[value]] = count
        row: dict[str, object] = {"label_set": label_set, "finding": finding, "reports": own.height}
        for status, at in codes.items():
            if status != "not_mentioned":
                row[f"{status}_gold"] = int(table[at].sum())
                for name, measure in (("precision", precision), ("recall", recall), ("f1", f1)):
                    value = float(measure(table)[at])
                    row[f"{status}_{name}"] = None if np.isnan(value) else round(value, 4)
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None).sort("label_set", "present_gold", descending=[False, True])


def mention_recall(gold: pl.DataFrame, mentions: pl.DataFrame, rules: Rulebook) -> pl.DataFrame:
    """How many gold expressions the mentions find, for terms of the rules and for other expressions.

    A gold expression is found where a mention overlaps it; right where that mention has its status too.

    Returns:
        One row: in_rules (true, false), expressions, distinct, found, right.
    """
    terms = _terms(rules)
    normaliser = Normaliser.from_rules(rules.normalise)
    surfaces = gold["surface"].unique().to_list()
    known = pl.DataFrame(
        {"surface": surfaces, "in_rules": [normal_term(surface, normaliser) in terms for surface in surfaces]}
    )
    reports = mentions["report_id"].unique().implode()
    asked = (
        gold.filter(pl.col("report_id").is_in(reports) & pl.col("status").is_in(_STATUSES))
        .with_row_index("row")
        .join(known, on="surface", how="left", maintain_order="left")
    )
    overlaps = asked.join(
        mentions.select("report_id", said_start="start", said_end="end", said="status"), on="report_id", how="inner"
    ).filter((pl.col("said_start") < pl.col("end")) & (pl.col("said_end") > pl.col("start")))
    hits = overlaps.group_by("row").agg(right=(pl.col("said") == pl.col("status")).any())
    return (
        asked.join(hits, on="row", how="left")
        .group_by("in_rules")
        .agg(
            expressions=pl.len(),
            distinct=pl.col("surface").n_unique(),
            found=pl.col("right").is_not_null().mean(),
            right=pl.col("right").fill_null(False).mean(),
        )
        .sort("in_rules", descending=True)
    )


def _terms(rules: Rulebook) -> set[str]:
    normaliser = Normaliser.from_rules(rules.normalise)
    return {normal_term(term.text, normaliser) for finding in rules.findings.values() for term in finding.terms}


def _show(by_finding: pl.DataFrame, found: pl.DataFrame, console: Console) -> None:
    spoken = by_finding.filter(pl.col("present_gold") + pl.col("uncertain_gold") + pl.col("absent_gold") > 0)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, title="labels against the text gold", title_justify="left")
    for column in ("label set", "finding"):
        table.add_column(column)
    for column in ("present", "P", "R", "F1", "uncertain F1", "absent", "absent F1"):
        table.add_column(column, justify="right")
    last = ""
    for row in spoken.iter_rows(named=True):
        figures = [row["present_gold"], *(row[f"present_{name}"] for name in ("precision", "recall", "f1"))]
        figures += [row["uncertain_f1"], row["absent_gold"], row["absent_f1"]]
        table.add_row(row["label_set"] if row["label_set"] != last else "", row["finding"], *map(_figure, figures))
        last = row["label_set"]
    console.print(table)
    macro = spoken.filter(pl.col("present_gold") > 0).group_by("label_set").agg(pl.col("present_f1").mean())
    shown = "  ".join(f"{name} {value:.3f}" for name, value in macro.sort("label_set").iter_rows())
    console.print(f"macro-F1 of present: {shown}", highlight=False)
    for row in found.iter_rows(named=True):
        kind = "terms of the rules" if row["in_rules"] else "other expressions"
        console.print(
            f"{kind}: {row['expressions']:,} mentions of {row['distinct']:,} expressions, {row['found']:.1%} found, "
            f"{row['right']:.1%} with the right status",
            highlight=False,
        )


def _figure(value: float | int | None) -> str:
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
