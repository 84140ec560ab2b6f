"""`reportlabel evaluate PRED GOLD`."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from rich.console import Console

from reportlabel.errors import ConfigError, ExitCode
from reportlabel.evaluate.compare import gold_labels, predicted_labels, read_table
from reportlabel.evaluate.present import show, with_excerpts
from reportlabel.evaluate.score import evaluate_checked
from reportlabel.export.atomic import AtomicText, check_writable
from reportlabel.ingest.report_table import read_reports


def run_evaluate(
    pred: Path,
    gold: Path,
    *,
    reports: Path | None,
    json_out: Path | None,
    bootstrap: int,
    seed: int,
    console: Console,
    label_set: str | None = None,
) -> int:
    """Score the label file ``pred`` against ``gold``, print the result, and write it to ``json_out`` where given.

    ``pred`` has report_id, finding, value; ``gold`` is long or wide (see `evaluate`); ``reports`` has report_id and
    text, from which the disagreements are quoted; ``label_set`` takes only its rows of tables with a column label_set,
    and of these the rows of exams that have a report. Returns the exit code: DONE, or QUARANTINED where gold rows had
    no prediction and so could not be scored. Raises InputError for input files that cannot be used and ConfigError for
    options or an output that cannot.
    """
    if bootstrap < 0:
        raise ConfigError(f"--bootstrap {bootstrap}: give 0 (no intervals) or more")
    if seed < 0:
        raise ConfigError(f"--seed {seed}: give 0 or more")
    sources = [path for path in (pred, gold, reports) if path is not None]
    if json_out is not None:
        check_writable(json_out, sources=sources)
    predicted = predicted_labels(_of_set(read_table(pred), label_set), source=str(pred))
    truth = gold_labels(_of_set(read_table(gold), label_set), findings=predicted["finding"].unique(), source=str(gold))
    evaluation = evaluate_checked(predicted, truth, bootstrap=bootstrap, seed=seed)
    if reports is not None:
        evaluation = with_excerpts(evaluation, _texts(reports, of=evaluation.disagreements["report_id"]))
    show(evaluation, console)
    if json_out is not None:
        with AtomicText(json_out, sources=sources) as file:
            file.write(evaluation.to_json() + "\n")
    return int(ExitCode.DONE if evaluation.gold_only.is_empty() else ExitCode.QUARANTINED)


def _of_set(table: pl.DataFrame, label_set: str | None) -> pl.DataFrame:
    if label_set is None or not {"label_set", "report_id"} <= set(table.columns):
        return table
    return table.filter((pl.col("label_set") == label_set) & pl.col("report_id").is_not_null())


def _texts(path: Path, *, of: pl.Series) -> pl.DataFrame:
    """report_id and text of the reports in ``of`` only: an archive is larger than what is disagreed on."""
    wanted = of.unique().implode()
    found = [batch.reports.filter(pl.col("report_id").is_in(wanted)) for batch in read_reports(path)]
    empty = pl.DataFrame(schema={"report_id": pl.String, "text": pl.String})
    return pl.concat([empty, *[rows.select("report_id", "text") for rows in found]])
