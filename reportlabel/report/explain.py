"""`reportlabel explain REPORTS REPORT_ID`: one report, coloured, with the clause, cue and rule of every mention."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from reportlabel.aggregate.precedence import label_reports
from reportlabel.annotate.annotator import Annotator
from reportlabel.errors import ExitCode, InputError
from reportlabel.ingest.report_table import read_reports
from reportlabel.report.fold import fold
from reportlabel.report.names import MARKS, STATUSES, label_names, value_name
from reportlabel.report.reading import Piece, ReadMention, cut, one_line, read_mentions
from reportlabel.rulebook.display import DisplayWords, load_display, named
from reportlabel.rulebook.load import Rulebook, find_label_set, load_rules
from reportlabel.rulebook.models import LabelSet
from reportlabel.vote.rules import label_of_finding

# A mention stands on its colour, a cue in it. Background and foreground are both given: no theme makes them unreadable.
MARKED = {
    "present": "bold #ffffff on #b8304a",
    "uncertain": "bold #241a00 on #f0b429",
    "absent": "bold #ffffff on #2b6cb0",
    "other": "#ffffff on #6b7280",
}
_NUMBERED = {
    "present": "#8c1d33 on #ffdde3",
    "uncertain": "#5c4300 on #fdeec8",
    "absent": "#1c4a7d on #d9e9fb",
    "other": "#374151 on #e5e7eb",
}
_COLOURED = {"present": "red", "uncertain": "yellow", "absent": "bright_blue", "not_mentioned": "dim", "other": "dim"}
_WIDEST = 120


def run_explain(
    source: Path,
    report_id: str,
    *,
    label_set: str | None,
    rules_folder: Path | None,
    id_column: str,
    text_column: str,
    encoding: str | None,
    console: Console,
) -> int:
    """Print one report of a file coloured by status, its mentions, and with a label set the labels that result.

    Returns the exit code DONE. Raises InputError where the file has no such report or cannot be read, and ConfigError
    for an unknown label set or wrong rules.
    """
    rules = load_rules(rules_folder)
    chosen = find_label_set(rules, label_set) if label_set is not None else None
    text = _find_text(source, report_id, id_column=id_column, text_column=text_column, encoding=encoding)
    annotator = Annotator(rules)
    words = load_display(rules.folder)
    report = pl.DataFrame({"report_id": [report_id], "text": [text]})
    table = annotator.annotate(report, region=chosen.region if chosen else None)
    mentions = read_mentions(text, table, annotator, words)
    width = show_report(f"report {report_id}", text, mentions, words, console)
    if chosen is not None:
        labels = label_reports(report["report_id"], table, chosen, rules)
        _show_labels(labels, mentions, chosen, rules, words, console, width=width)
    return int(ExitCode.DONE)


def show_report(title: str, text: str, mentions: Sequence[ReadMention], words: DisplayWords, console: Console) -> int:
    """Print a report coloured, and its mentions; returns the width that was used."""
    width = min(console.width, _WIDEST)
    # without colours a number must not look like one of the report
    numbers = "{}" if console.color_system else "[{}]"
    console.print(
        Panel(
            fold(coloured(text, mentions, focus=True, numbers=numbers), width - 6),
            title=Text(title, style="bold"),
            subtitle=legend(words),
            box=box.ROUNDED,
            padding=(1, 2),
            width=width,
        )
    )
    if not mentions:
        console.print("nothing in this report is a finding of the rules")
    else:
        console.print(_mention_table(text, mentions, words, width=width))
    return width


def coloured(text: str, mentions: Sequence[ReadMention], *, focus: bool = False, numbers: str = "{}") -> Text:
    """A text with its mentions on the colour of their status and their cues in it; clauses underlined.

    ``focus`` dims what belongs to no clause; ``numbers`` is how the number of a mention stands behind its words, or
    ``""`` for none.
    """
    result = Text()
    for piece in cut(text, mentions):
        result.append(piece.text, style=_style(piece, mentions, focus=focus))
        if numbers and piece.ends:
            ending = ",".join(str(mentions[at].number) for at in piece.ends)
            result.append(
                numbers.format(ending), style=_NUMBERED[_strongest([_tone(mentions[at]) for at in piece.ends])]
            )
    return result


def legend(words: DisplayWords, *, cue: bool = True) -> Text:
    """What the colours mean, in one line; ``cue``: also how cues and clauses are shown."""
    shown = Text()
    for status in ("present", "uncertain", "absent"):
        name = named(words.statuses, status)
        shown.append(f" {MARKS[status]} {name.ja} {name.en} ", style=MARKED[status]).append(" ")
    if not cue:
        return shown
    other = words.texts.not_this_exam
    shown.append(f" {other.ja} {other.en} ", style=MARKED["other"]).append(" ")
    shown.append("cue", style="bold").append(" ").append("clause", style="underline")
    return shown


def status_text(status: str, words: DisplayWords) -> Text:
    """A status with its mark, in its colour; another value by its name."""
    if status not in MARKS:
        return Text(value_name(status, words), style="bold")
    name = named(words.statuses, status)
    return Text(f"{MARKS[status]} {name.ja} {name.en}", style=_COLOURED[status])


def _tone(mention: ReadMention) -> str:
    return mention.status if mention.counts else "other"


def _strongest(tones: Sequence[str]) -> str:
    order = (*STATUSES, "other")
    return min(tones, key=order.index)


def _style(piece: Piece, mentions: Sequence[ReadMention], *, focus: bool) -> str:
    if piece.mentions:
        return MARKED[_strongest([_tone(mentions[at]) for at in piece.mentions])]
    if piece.cues:
        return f"bold underline {_COLOURED[_strongest([_tone(mentions[at]) for at in piece.cues])]}"
    if piece.clauses:
        return "underline"
    return "dim" if focus else ""


def _mention_table(text: str, mentions: Sequence[ReadMention], words: DisplayWords, *, width: int) -> Table:
    """One row a mention; every cell is folded here, because rich does not know where Japanese may be broken."""
    cells = _widths(width - 3 - 2 * (len(_COLUMNS) + 1))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, leading=1)
    table.add_column("#", justify="right", width=3)
    for (heading, _), cell in zip(_COLUMNS, cells, strict=True):
        table.add_column(heading, width=cell)
    for mention in mentions:
        tone = _COLOURED[_tone(mention)]
        row = (
            Text(mention.surface, style="bold"),
            Text(mention.name.ja).append(f"\n{mention.rule_id}", style="dim"),
            _status_or_time(mention, words),
            Text(mention.cue, style=f"bold {tone}") if mention.cue else Text("(none)", style="dim"),
            Text(one_line(text[slice(*mention.clause)])),
            Text(mention.summary),
        )
        table.add_row(str(mention.number), *(fold(cell, wide) for cell, wide in zip(row, cells, strict=True)))
    return table


# heading and share of the width
_COLUMNS = (("words", 11), ("finding, rule", 20), ("status", 14), ("cue", 10), ("clause", 21), ("attributes", 14))


def _widths(width: int) -> list[int]:
    shares = [share for _, share in _COLUMNS]
    return [max(4, width * share // sum(shares)) for share in shares]


def _status_or_time(mention: ReadMention, words: DisplayWords) -> Text:
    """The status; of what is not said of this exam, why it does not count."""
    if mention.counts:
        name = named(words.statuses, mention.status)
        return Text(f"{MARKS[mention.status]} {name.ja}\n{name.en}", style=_COLOURED[mention.status])
    when = named(words.temporality, mention.temporality)
    return Text(f"{when.ja}\n{when.en}", style="dim")


def _show_labels(
    labels: pl.DataFrame,
    mentions: Sequence[ReadMention],
    label_set: LabelSet,
    rules: Rulebook,
    words: DisplayWords,
    console: Console,
    *,
    width: int,
) -> None:
    """The labels that something is said of, with the mentions that decided; the others in one line."""
    names = label_names(label_set)
    voting = set(label_of_finding(label_set, rules).select("label", "finding").iter_rows())
    columns = [max(8, (width - 6) * share // 100) for share in (44, 20, 36)]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for heading, cells in zip((f"label of {label_set.id}", "value", "decided by"), columns, strict=True):
        table.add_column(heading, width=cells)
    values = {entry.id for entry in label_set.values}
    silent: list[str] = []
    for finding, value, evidence in labels.select("finding", "value", "evidence").iter_rows():
        if value == "not_mentioned":
            silent.append(names[finding].ja)
            continue
        name = Text(names[finding].ja).append(f" {finding}", style="dim")
        heard = [one for one in mentions if finding in values or (finding, one.finding) in voting]
        row = (name, status_text(value, words), _deciders(evidence, heard))
        table.add_row(*(fold(cell, cells) for cell, cells in zip(row, columns, strict=True)))
    console.print()
    if table.row_count:
        console.print(table)
    if silent:
        console.print()
        nothing = words.statuses["not_mentioned"]
        said = f"{nothing.ja} {nothing.en}: {'、'.join(silent)}"
        console.print(fold(Text(said, style="dim"), width))


def _deciders(evidence: Sequence[dict[str, object]], mentions: Sequence[ReadMention]) -> Text:
    shown: dict[str, None] = {}
    for piece in evidence:
        for mention in mentions:
            if mention.span == (piece["start"], piece["end"]) and mention.rule_id == piece["rule_id"]:
                shown[f"#{mention.number} {mention.surface}"] = None
    return Text("、".join(shown)) if shown else Text("by what the other labels say", style="dim")


def _find_text(source: Path, report_id: str, *, id_column: str, text_column: str, encoding: str | None) -> str:
    reader = read_reports(source, id_column=id_column, text_column=text_column, encoding=encoding)
    for batch in reader:
        found = batch.reports.filter(pl.col("report_id") == report_id)
        if found.height:
            return str(found["text"][0])
    aside = reader.quarantine.filter(pl.col("report_id") == report_id)
    if aside.height:
        row, reason, remedy = aside.select("row", "reason", "remedy").row(0)
        raise InputError(f"{source}: row {row} has this id but cannot be used ({reason}): {remedy}")
    read = "read_parquet" if source.suffix in (".parquet", ".pq") else "scan_csv"
    collect = "" if read == "read_parquet" else ".collect()"
    raise InputError(
        f"{source}: none of its {reader.counts.rows_out:,} reports has this id in column '{id_column}'; the id must be "
        f'written exactly as in the file, zeros in front included. To list the ids: python -c "import polars as pl; '
        f"pl.{read}('{source}').select('{id_column}'){collect}.write_csv('ids.csv')\""
    )
