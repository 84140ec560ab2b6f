"""`reportlabel rules check`, `rules test` and `rules diff`.

The terminal shows words of the rules, row numbers and counts, and never a report or its id: those are in the file
that ``rules diff --out`` writes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reportlabel.annotate.annotator import Annotator
from reportlabel.errors import ConfigError, ExitCode
from reportlabel.export.atomic import AtomicText, ParquetSink, check_writable
from reportlabel.ingest.report_table import read_reports
from reportlabel.rulebook.check import check_rules
from reportlabel.rulebook.diff import CHANGES, Diff, diff_batches
from reportlabel.rulebook.examples import run_examples
from reportlabel.rulebook.exams import load_exam_rules
from reportlabel.rulebook.linked import load_linked
from reportlabel.rulebook.load import Rulebook, find_label_set, load_rules

SHOWN_CHANGES = 50
"""Changed labels printed; all of them are in the file."""

FAILED = 1
"""Exit code of `rules test` where an example fails."""


def run_check(rules_folder: Path | None, console: Console) -> int:
    """Print every problem of the rules as ``file:line: code: message``; returns 0 where there is none, else 2.

    Raises ConfigError for what keeps a file from being read: unknown keys, wrong types, no YAML.
    """
    rules = load_rules(rules_folder)
    problems = check_rules(rules)
    for problem in problems:
        _line(console, f"{_shown(problem.path)}:{problem.line}: {problem.code}: {problem.message}")
    counts = Counter(problem.code for problem in problems)
    told = ", ".join(f"{count} {code}" for code, count in counts.most_common()) or "no problems"
    # what the other files of the folder hold is checked where it is read: an error names file, line and key
    linked = load_linked(rules.folder)
    if (rules.folder / "exams.yaml").is_file():
        load_exam_rules(rules.folder)
    records = f", {len(linked.rules)} rules for linked records" if linked.rules else ""
    _line(console, f"{len(rules.files)} findings, {len(rules.label_sets)} label sets{records}: {told}")
    return int(ExitCode.USAGE if problems else ExitCode.DONE)


def run_test(rules_folder: Path | None, *, region: str | None, finding: str | None, console: Console) -> int:
    """Run the examples of the rules, all or those of a region or finding; returns 0, or 1 where one fails.

    Raises ConfigError for an unknown region or finding, and for rules that cannot be read.
    """
    rules = load_rules(rules_folder)
    _check_choice("--region", region, {file.region for file in rules.files.values()})
    _check_choice("--finding", finding, set(rules.files))
    passed = failed = 0
    for outcome in run_examples(Annotator(rules), region=region, finding=finding):
        if not outcome.problems:
            passed += 1
            continue
        failed += 1
        _line(console, f"{_shown(outcome.path)}:{outcome.line}: {outcome.example.text}")
        for problem in outcome.problems:
            _line(console, f"    {problem}")
    _line(console, f"{passed:,} passed, {failed:,} failed")
    return FAILED if failed else int(ExitCode.DONE)


def run_diff(
    old: Path,
    reports: Path,
    label_set: str,
    *,
    rules_folder: Path | None,
    json_out: Path | None,
    console: Console,
) -> int:
    """Label a file of reports by the rules of folder ``old`` and by those of ``rules_folder``; show what changes.

    ``json_out`` gets every changed label with its report_id: JSON, or Parquet where its name ends in .parquet. Returns
    the exit code: DONE, or QUARANTINED where rows could not be compared. Raises ConfigError for rules, a label set or
    an output that cannot be used and InputError for reports that cannot be read.
    """
    if json_out is not None:
        check_writable(json_out, sources=[reports])
    rulebooks = (load_rules(old), load_rules(rules_folder))
    for rules in rulebooks:
        find_label_set(rules, label_set)
    reader = read_reports(reports)
    diff = diff_batches(*rulebooks, (batch.reports for batch in reader), label_set=label_set)
    for note in reader.notes:
        _line(console, f"note: {note}")
    _show(diff, label_set, console)
    counts = reader.counts
    _line(console, f"{counts.rows_in:,} rows in = {counts.rows_out:,} compared + {counts.quarantined:,} quarantined")
    for row, reason, remedy in reader.quarantine.select("row", "reason", "remedy").iter_rows():
        _line(console, f"row {row} quarantined: {reason}; {remedy}")
    if json_out is not None:
        _write(diff, rulebooks, label_set, json_out, source=reports)
    return int(ExitCode.QUARANTINED if counts.quarantined else ExitCode.DONE)


# --- showing ------------------------------------------------------------------------------------------------------


def _line(console: Console, text: str) -> None:
    console.print(escape(text), highlight=False, soft_wrap=True)


def _shown(path: Path) -> Path:
    """The path as a user would type it here."""
    here = Path.cwd()
    absolute = path.resolve()
    return absolute.relative_to(here) if absolute.is_relative_to(here) else path


def _check_choice(option: str, chosen: str | None, known: set[str]) -> None:
    if chosen is None or chosen in known:
        return
    near = get_close_matches(chosen, known, n=1, cutoff=0.4)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise ConfigError(f"{option} {chosen}: no such examples{hint}")


def _show(diff: Diff, label_set: str, console: Console) -> None:
    _line(
        console,
        f"{label_set}: {diff.changes.height:,} labels of {diff.changed_reports:,} of {diff.reports:,} reports change",
    )
    if diff.changes.is_empty():
        return
    findings = diff.by_finding()
    console.print(_table("by label", findings.columns, findings.rows(), numbers={"reports"}))
    rules = diff.by_rule()
    console.print(_table("by rule", rules.columns, rules.rows(), numbers={"labels"}))
    changes = diff.changes.head(SHOWN_CHANGES).select(
        "row", "finding", "old_value", "new_value", pl.col("rules").list.join(", ")
    )
    console.print(_table("changed labels", changes.columns, changes.rows(), numbers={"row"}))
    if diff.changes.height > SHOWN_CHANGES:
        _line(console, f"… and {diff.changes.height - SHOWN_CHANGES:,} more; --out writes them all")


def _table(title: str, columns: Sequence[str], rows: Sequence[tuple[object, ...]], *, numbers: set[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*("–" if cell is None else escape(str(cell)) for cell in row))
    return table


def _write(diff: Diff, rulebooks: tuple[Rulebook, Rulebook], label_set: str, path: Path, *, source: Path) -> None:
    about = {
        "label_set": label_set,
        "old_rules_sha256": rulebooks[0].sha256,
        "new_rules_sha256": rulebooks[1].sha256,
    }
    if path.suffix == ".parquet":
        with ParquetSink(path, CHANGES, metadata=about, sources=[source]) as sink:
            sink.write(diff.changes)
        return
    result = {
        **about,
        "reports": diff.reports,
        "changed_reports": diff.changed_reports,
        "by_finding": diff.by_finding().to_dicts(),
        "by_rule": diff.by_rule().to_dicts(),
        "changes": diff.changes.to_dicts(),
    }
    with AtomicText(path, sources=[source]) as file:
        file.write(json.dumps(result, ensure_ascii=False, indent=1) + "\n")
