"""`reportlabel explain WORKSPACE EXAM_ID`: the report of an exam, coloured, and every vote behind each label."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reportlabel.annotate.annotator import Annotator
from reportlabel.errors import ExitCode, InputError
from reportlabel.ingest.assemble import reports_that_count
from reportlabel.report.explain import show_report, status_text
from reportlabel.report.fold import fold
from reportlabel.report.names import label_names
from reportlabel.report.reading import read_mentions
from reportlabel.rulebook.display import DisplayWords, load_display
from reportlabel.rulebook.load import find_label_set, load_rules
from reportlabel.rulebook.models import LabelSet
from reportlabel.run import open_workspace
from reportlabel.store import Workspace

_KNOWN = {True: "known at reading", False: "not known at reading", None: "same day as the reading"}


def run_explain_exam(
    workspace: Path, exam_id: str, *, label_set: str | None, rules_folder: Path | None, console: Console
) -> int:
    """Print the report of an exam, its labels, and the words and records that voted for them.

    Args:
        label_set: only the labels of this set; None: of all that fit the exam.

    Returns the exit code DONE.

    Raises:
        InputError: the last version of the workspace has no such exam.
        ConfigError: no workspace, unknown label set, or wrong rules.
    """
    rules = load_rules(rules_folder)
    wanted = None if label_set is None else find_label_set(rules, label_set).id
    opened = open_workspace(workspace)
    versions = opened.versions()
    exam, part = _exam(opened, versions, exam_id)

    def rows(table: str) -> pl.DataFrame:
        found = opened.read(table, version=versions[table], part=part)
        return found.filter(pl.col("exam_id") == exam_id)

    labels = rows("labels")
    if wanted is not None:
        labels = labels.filter(pl.col("label_set") == wanted)
    counting = reports_that_count(rows("reports"))
    annotator = Annotator(rules)
    words = load_display(rules.folder)
    console.print(_facts(exam), highlight=False, soft_wrap=True)
    width = console.width
    sets = [
        rules.label_sets[name] for name in labels["label_set"].unique(maintain_order=True) if name in rules.label_sets
    ]
    if counting.is_empty():
        console.print("this exam has no final report")
    else:
        region = sets[0].region if sets else None
        table = annotator.annotate(counting.select("report_id", "text"), region=region)
        text = str(counting["text"][0])
        mentions = read_mentions(text, table, annotator, words)
        width = show_report(f"exam {exam_id}", text, mentions, words, console)
    votes = rows("votes")
    records = _records(opened, versions, part, votes, rows("links"))
    for one in sets:
        own = labels.filter(pl.col("label_set") == one.id)
        _show_votes(own, votes, records, counting, one, words, console, width=width)
    return int(ExitCode.DONE)


def _exam(opened: Workspace, versions: Mapping[str, int], exam_id: str) -> tuple[dict[str, Any], int]:
    for part in range(opened.parts):
        found = opened.read("exams", version=versions["exams"], part=part).filter(pl.col("exam_id") == exam_id)
        if found.height:
            return found.row(0, named=True), part
    raise InputError(
        f"{opened.folder} has no such exam; its ids are the column exam_id of the table exams "
        '(python -c "from pathlib import Path; from reportlabel.run import open_workspace; '
        f"print(open_workspace(Path('{opened.folder}')).read('exams'))\")"
    )


def _facts(exam: Mapping[str, Any]) -> Text:
    told = [exam["modality"], exam["order_name"], f"{exam['started_at']:%Y-%m-%d}" if exam["started_at"] else None]
    if exam["age_years"] is not None:
        told.append(f"{exam['age_years']} y")
    told.append(exam["sex"])
    return Text(" · ".join(str(one) for one in told if one), style="bold")


def _records(
    opened: Workspace, versions: Mapping[str, int], part: int, votes: pl.DataFrame, links: pl.DataFrame
) -> dict[str, str]:
    """record id -> what the record is, in one line."""
    ids = votes.filter(pl.col("kind") == "record")["evidence"].unique()
    near = links.group_by("record_id").agg(pl.col("delta_days").first(), pl.col("available_at_reading").first())
    known = (
        opened.read("records", version=versions["records"], part=part)
        .filter(pl.col("record_id").is_in(ids.implode()))
        .join(near, on="record_id", how="left")
    )
    lines = {}
    for row in known.iter_rows(named=True):
        value = None if row["value"] is None else f"{row['value']:g} {row['unit'] or ''}".strip()
        said = (row["text"] or "").split("\n")[0] or None
        days = None if row["delta_days"] is None else f"{row['delta_days']:+d} d, {_KNOWN[row['available_at_reading']]}"
        told = (row["kind"], row["name"] or row["code"], value, said, days)
        lines[str(row["record_id"])] = " · ".join(str(one) for one in told if one)
    return lines


def _show_votes(
    labels: pl.DataFrame,
    votes: pl.DataFrame,
    records: Mapping[str, str],
    counting: pl.DataFrame,
    label_set: LabelSet,
    words: DisplayWords,
    console: Console,
    *,
    width: int,
) -> None:
    names = label_names(label_set)
    text = str(counting["text"][0]) if counting.height else ""
    columns = [max(8, (width - 9) * share // 100) for share in (30, 16, 8, 46)]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for heading, wide in zip((f"label of {label_set.id}", "value", "p", "votes"), columns, strict=True):
        table.add_column(heading, width=wide)
    silent = []
    for row in labels.iter_rows(named=True):
        own = votes.filter((pl.col("label_set") == label_set.id) & (pl.col("finding") == row["finding"]))
        if row["value"] == "not_mentioned" and own.is_empty():
            silent.append(names[row["finding"]].ja)
            continue
        name = Text(names[row["finding"]].ja).append(f" {row['finding']}", style="dim")
        if row["conflict"]:
            name.append(" conflict", style="bold red")
        shown = "" if row["p_present"] is None else f"{row['p_present']:.2f}"
        cells = (name, status_text(row["value"], words), Text(shown), _told(own, text, records))
        table.add_row(*(fold(cell, wide) for cell, wide in zip(cells, columns, strict=True)))
    console.print()
    if table.row_count:
        console.print(table)
    if silent:
        console.print()
        nothing = words.statuses["not_mentioned"]
        said = f"{nothing.ja} {nothing.en}: {'、'.join(silent)}"
        console.print(fold(Text(said, style="dim"), width))


def _told(votes: pl.DataFrame, text: str, records: Mapping[str, str]) -> Text:
    """Each vote on a line: what it says and why."""
    lines: list[Text] = []
    for row in votes.sort("kind", "function_id", "evidence", descending=[True, False, False]).iter_rows(named=True):
        line = Text(f"{row['value']} ", style="bold")
        if row["kind"] == "record":
            line.append(records.get(row["evidence"], row["evidence"]))
            line.append(f" ({row['function_id']}, {row['confidence']:.2g})", style="dim")
        else:
            line.append(_words(row["evidence"], text)).append(f" ({row['function_id']})", style="dim")
        if line.plain not in {one.plain for one in lines}:
            lines.append(line)
    return Text("\n").join(lines)


def _words(evidence: str | None, text: str) -> str:
    start, _, end = (evidence or "").partition("-")
    return text[int(start) : int(end)] if start.isdigit() and end.isdigit() else ""
