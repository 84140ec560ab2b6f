"""Show an `Evaluation` in the terminal, and find the words that a disagreement is about."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reportlabel.evaluate.compare import STATUSES
from reportlabel.evaluate.score import ClassScore, Estimate, Evaluation, FindingScore, StatusScore

MAX_DISAGREEMENTS = 200
"""Disagreements printed; all of them are in the JSON."""

_CONTEXT = 60  # code points shown on either side of the evidence
_HEAD = 300  # code points shown of a report without evidence
_UNDEFINED = "–"


def with_excerpts(evaluation: Evaluation, reports: pl.DataFrame) -> Evaluation:
    """The evaluation with a column ``excerpt`` in its disagreements.

    ``reports`` has report_id and text. The excerpt is the text around the first evidence span; without one, the
    beginning of the report; null where ``reports`` lacks it.
    """
    text_of = dict(reports.select(pl.col("report_id", "text").cast(pl.String)).iter_rows())
    rows = evaluation.disagreements
    texts = [
        excerpt(text_of.get(report), evidence) for report, evidence in rows.select("report_id", "evidence").iter_rows()
    ]
    return dataclasses.replace(evaluation, disagreements=rows.with_columns(pl.Series("excerpt", texts, pl.String)))


def excerpt(text: str | None, evidence: object) -> str | None:
    """A one-line piece of ``text`` around the first span of ``evidence``, or its beginning; an ellipsis marks a cut."""
    if text is None:
        return None
    span = _first_span(evidence)
    start, end = (max(0, span[0] - _CONTEXT), span[1] + _CONTEXT) if span else (0, _HEAD)
    piece = " ".join(text[start:end].split())
    return ("…" if start > 0 else "") + piece + ("…" if end < len(text) else "")


def show(evaluation: Evaluation, console: Console) -> None:
    """Print the whole evaluation: summary, statuses, confusion table, findings, unscored rows, disagreements."""
    _show_summary(evaluation, console)
    if evaluation.statuses:
        console.print(_status_table(evaluation))
        for score in evaluation.statuses:
            console.print(f"[dim]{_macro_note(score)}[/dim]")
        console.print(_confusion_table(evaluation))
    console.print(_agreement_table(evaluation.findings))
    console.print(_finding_table([score for score in evaluation.findings if score.classes]))
    console.print()
    _show_unscored(evaluation, console)
    _show_disagreements(evaluation, console)


def number(estimate: Estimate) -> str:
    """``0.974 0.94–1.00``: the value and its interval; a dash where it is undefined."""
    if estimate.value is None:
        return _UNDEFINED
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} [dim]{estimate.low:.2f}–{estimate.high:.2f}[/dim]"


def _show_summary(evaluation: Evaluation, console: Console) -> None:
    console.print(f"[bold]{evaluation.rows}[/bold] rows of [bold]{evaluation.reports}[/bold] reports scored")
    if evaluation.statuses:
        console.print(f"four-way accuracy {number(evaluation.accuracy)}, Cohen's kappa {number(evaluation.kappa)}")
    if evaluation.bootstrap:
        console.print(
            f"[dim]intervals: 95 % percentiles of {evaluation.bootstrap} bootstrap resamples of the reports "
            f"(seed {evaluation.seed}); {_UNDEFINED} is undefined[/dim]"
        )


def _status_table(evaluation: Evaluation) -> Table:
    table = _table("All findings", "status", "gold", "pred.", "precision", "recall", "micro-F1", "macro-F1")
    for score in evaluation.statuses:
        table.add_row(
            score.status,
            str(score.support),
            str(score.predicted),
            number(score.precision),
            number(score.recall),
            number(score.micro_f1),
            number(score.macro_f1),
        )
    return table


def _macro_note(score: StatusScore) -> str:
    note = f"{score.status}: macro-F1 over {_count(score.macro_findings, 'finding')} that gold has it for"
    if not score.unsupported_findings:
        return note
    return f"{note}; false alarms only, not in the macro: {_count(score.unsupported_findings, 'finding')}"


def _confusion_table(evaluation: Evaluation) -> Table:
    table = _table("Confusion (rows: gold, columns: predicted)", "gold", *STATUSES)
    for i, row in enumerate(evaluation.confusion):
        cells = [f"[bold]{cell}[/bold]" if i == j else str(cell or _UNDEFINED) for j, cell in enumerate(row)]
        table.add_row(STATUSES[i], *cells)
    return table


def _agreement_table(scores: Sequence[FindingScore]) -> Table:
    table = _table("Agreement per finding", "finding", "rows", "agree", "accuracy", "kappa")
    for score in scores:
        table.add_row(
            escape(score.finding), str(score.rows), str(score.correct), number(score.accuracy), number(score.kappa)
        )
    return table


def _finding_table(scores: Sequence[FindingScore]) -> Table:
    table = _table("Findings by status or value", "finding", "gold", "pred.", "precision", "recall", "F1")
    for score in scores:
        table.add_row(f"[bold]{escape(score.finding)}[/bold]")
        for row in score.classes:
            if row.support or row.predicted:
                table.add_row(*_class_cells(row))
    return table


def _class_cells(score: ClassScore) -> list[str]:
    return [
        f"  {escape(score.value)}",
        str(score.support),
        str(score.predicted),
        number(score.precision),
        number(score.recall),
        number(score.f1),
    ]


def _show_unscored(evaluation: Evaluation, console: Console) -> None:
    sides = (
        ("gold row", "without a prediction (not scored)", evaluation.gold_only, "bold yellow"),
        ("predicted row", "without a gold label (not scored)", evaluation.predicted_only, "dim"),
    )
    for what, why, rows, style in sides:
        if rows.is_empty():
            continue
        per_finding = rows.group_by("finding").len().sort("finding").iter_rows()
        listed = ", ".join(f"{escape(str(finding))} {count}" for finding, count in per_finding)
        reports = _count(rows["report_id"].n_unique(), "report")
        console.print(f"[{style}]{_count(rows.height, what)} {why}, in {reports}:[/] {listed}")


def _show_disagreements(evaluation: Evaluation, console: Console) -> None:
    rows = evaluation.disagreements
    if rows.is_empty():
        console.print("no disagreements")
        return
    console.print(f"\n[bold]{_count(rows.height, 'disagreement')}[/bold]")
    for row in rows.head(MAX_DISAGREEMENTS).iter_rows(named=True):
        finding, report, gold, predicted = (escape(row[name]) for name in ("finding", "report_id", "gold", "predicted"))
        console.print(f"[bold]{finding}[/bold] {report}: gold [green]{gold}[/green], predicted [red]{predicted}[/red]")
        if row.get("excerpt") is not None:
            console.print(Padding(Text(row["excerpt"]), (0, 0, 0, 4)))
    if rows.height > MAX_DISAGREEMENTS:
        console.print(f"{rows.height - MAX_DISAGREEMENTS} more are in the JSON (--json)")


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _first_span(evidence: object) -> tuple[int, int] | None:
    """Start and end of the first piece of evidence that has them; evidence may be JSON text, an object or a list."""
    if isinstance(evidence, str):
        try:
            evidence = json.loads(evidence)
        except ValueError:
            return None
    if isinstance(evidence, Mapping):
        start, end = evidence.get("start"), evidence.get("end")
        return (start, end) if isinstance(start, int) and isinstance(end, int) else None
    if isinstance(evidence, Sequence) and not isinstance(evidence, str):
        return next((span for item in evidence if (span := _first_span(item))), None)
    return None
