"""`reportlabel demo`: the synthetic hospital through the whole flow, with a summary, evidence and a quality page."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reportlabel.annotate.annotator import Annotator
from reportlabel.errors import ConfigError, ExitCode
from reportlabel.export.atomic import AtomicText, ParquetSink, commit_all
from reportlabel.flow import label_batch
from reportlabel.ingest.report_table import ReadCounts
from reportlabel.report.explain import MARKED, coloured, legend, status_text
from reportlabel.report.fold import fold
from reportlabel.report.names import MARKS, STATUSES, label_names
from reportlabel.report.page import PageSet, render_page
from reportlabel.report.reading import ReadMention, read_mentions
from reportlabel.report.run_summary import show_labels
from reportlabel.rulebook.display import DisplayWords, load_display
from reportlabel.rulebook.load import find_label_set
from reportlabel.run import Done, Options, open_workspace, run
from reportlabel.schema import LABELS, MENTIONS
from reportlabel.synth.hospital import FORMATS, Hospital, make_hospital
from reportlabel.vote.rules import supporting_mentions

DEMO_PATIENTS = 80
DEMO_REPORTS = pl.Schema({name: pl.String() for name in ("report_id", "exam_id", "exam", "label_set", "text")})
DEMO_LABELS = pl.Schema([("label_set", pl.String()), *LABELS.items()])
_TOP = 3  # findings listed a label set
_SET, _FINDING, _BAR = 22, 30, 20  # widths of columns
_WITH_BAR = 96  # terminal columns from which the bar is shown


def run_demo(out: Path, *, console: Console, seed: int = 0, patients: int = DEMO_PATIENTS) -> int:
    """Make a synthetic hospital in the folder ``out``, label its reports and print what came of it.

    Writes archive/ (the hospital, see `reportlabel.synth.hospital`), reports.parquet, labels.parquet (with label_set),
    mentions.parquet and report.html of the texts alone, and workspace/ of the whole archive; files of an earlier run
    are replaced. Returns the exit code DONE. Raises
    ConfigError where the folder cannot be written.
    """
    _make_folder(out)
    with console.status("making a small synthetic hospital …"):
        made = make_hospital(Hospital(out / "archive", patients, seed, FORMATS))
    with console.status("labelling its reports …"):
        annotator = Annotator()
        reports = read_texts(out / "archive")
        sets = label_all(reports, annotator)
        page = render_page(
            batches=sets,
            annotator=annotator,
            counts=ReadCounts(rows_in=reports.height, rows_out=reports.height, quarantined=0),
            source="合成病院 synthetic hospital",
            synthetic=True,
        )
        _write(out, reports, sets, page)
    _show_archive(made, console)
    words = load_display(annotator.rules.folder)
    _show_summary(sets, words, console)
    _show_evidence(sets, annotator, words, console)
    _show_agreement(sets, pl.read_parquet(out / "archive" / "gold" / "labels.parquet"), console)
    with console.status("the whole flow: archive, linked records, label model …"):
        done = run(out / "archive" / "archive.yaml", out / "workspace", Options(forget_gone=True))
    _show_flow(done, out / "workspace", console)
    _show_files(out, reports, console)
    return int(ExitCode.DONE)


def read_texts(archive: Path) -> pl.DataFrame:
    """The reports of a synthetic hospital on disk, a row a report and label set that fits it."""
    return pl.concat(
        pl.read_parquet(path).select("report_id", "exam_id", "exam", pl.lit(path.stem).alias("label_set"), "text")
        for path in sorted((archive / "texts").glob("*.parquet"))
    )


def label_all(reports: pl.DataFrame, annotator: Annotator) -> list[PageSet]:
    """Label each report with the label set of its exam; one result a label set, in order of their names.

    Args:
        reports: columns report_id, label_set, text.

    Raises:
        ConfigError: the rules lack one of the label sets.
    """
    results = []
    for (name,), batch in sorted(reports.group_by("label_set", maintain_order=True), key=lambda item: str(item[0][0])):
        label_set = find_label_set(annotator.rules, str(name))
        labelled = label_batch(batch.select("report_id", "text"), annotator, label_set)
        results.append(PageSet(label_set, batch, labelled.mentions, labelled.labels))
    return results


def _make_folder(out: Path) -> None:
    problem = ""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = error.strerror or "it cannot be made"
    if problem:
        raise ConfigError(f"cannot write the folder {out}: {problem}; give another one with --out")


def _write(out: Path, reports: pl.DataFrame, sets: Sequence[PageSet], page: str) -> None:
    with commit_all(
        ParquetSink(out / "reports.parquet", DEMO_REPORTS),
        ParquetSink(out / "labels.parquet", DEMO_LABELS),
        ParquetSink(out / "mentions.parquet", MENTIONS),
        AtomicText(out / "report.html"),
    ) as (reports_file, labels_file, mentions_file, page_file):
        reports_file.write(reports)
        for one in sets:
            labels_file.write(one.labels.with_columns(label_set=pl.lit(one.label_set.id)))
            mentions_file.write(one.mentions)
        page_file.write(page)


# --- what is printed --------------------------------------------------------------------------------------------------


def _show_archive(made: Mapping[str, Any], console: Console) -> None:
    rows = made["rows"]
    console.print(
        f"[bold]{made['patients']}[/] synthetic patients: {rows['exams']} exams, {rows['reports']} reports, "
        f"{rows['records']} linked records, written as {', '.join(made['formats'])}",
        highlight=False,
    )


def _show_agreement(sets: Sequence[PageSet], gold: pl.DataFrame, console: Console) -> None:
    """How often the labels say what the generator wrote, over all label sets."""
    labels = pl.concat(one.labels.with_columns(label_set=pl.lit(one.label_set.id)) for one in sets)
    both = labels.join(gold, on=["report_id", "label_set", "finding"], suffix="_gold")
    spoken = both.filter((pl.col("value_gold") != "not_mentioned") & pl.col("value_gold").is_in(STATUSES))
    found = spoken.filter(pl.col("value") == pl.col("value_gold")).height
    console.print(
        f"\nOf {spoken.height:,} findings that the texts speak of, {found / max(1, spoken.height):.1%} "
        "have the status that the generator wrote.",
        highlight=False,
    )


def _show_summary(sets: Sequence[PageSet], words: DisplayWords, console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("label set", width=_SET)
    table.add_column("n", justify="right")
    table.add_column(f"its {_TOP} most frequent findings", width=_FINDING)
    for status in STATUSES[:3]:
        table.add_column(Text(f" {MARKS[status]} ", style=MARKED[status]), justify="right", min_width=3, no_wrap=True)
    # the counts matter more than the bar: where both do not fit, the bar goes
    wide = console.width >= _WITH_BAR
    if wide:
        table.add_column("share of its reports", width=_BAR)
    for one in sets:
        names = label_names(one.label_set)
        rows = list(_most_frequent(one))
        # the id of the set stands on the second line, beside the second finding
        left = [_cropped(one.label_set.name.ja, _SET, "bold"), _cropped(one.label_set.id, _SET, "dim")]
        for at, (finding, counts) in enumerate(rows):
            table.add_row(
                left[at] if at < len(left) else "",
                str(one.reports.height) if at == 0 else "",
                _cropped(names[finding].ja, _FINDING),
                *(str(count) if count else Text("0", style="dim") for count in counts),
                *([_bar(counts, one.reports.height)] if wide else []),
                end_section=at == len(rows) - 1,
            )
    console.print()
    console.print(table)
    console.print(Padding(legend(words, cue=False), (1, 0, 0, _SET + 6)))


def _cropped(text: str, width: int, style: str = "") -> Text:
    shown = Text(text, style=style)
    shown.truncate(width)
    return shown


def _most_frequent(one: PageSet) -> Iterable[tuple[str, list[int]]]:
    """The findings that most reports have, with the reports that have it present, uncertain and absent."""
    counted = one.labels.group_by("finding", "value").len()
    known = {(finding, value): count for finding, value, count in counted.iter_rows()}
    counts = {
        entry.id: [known.get((entry.id, status), 0) for status in STATUSES[:3]] for entry in one.label_set.findings
    }
    return sorted(counts.items(), key=lambda item: (-item[1][0], -item[1][1], -item[1][2]))[:_TOP]


def _bar(counts: Sequence[int], reports: int) -> Text:
    bar = Text()
    done = 0
    ends = 0
    for status, count in zip(STATUSES, counts, strict=False):
        done += count
        end = round(_BAR * done / reports)
        bar.append(" " * (end - ends), style=MARKED[status])
        ends = end
    return bar


def _show_evidence(sets: Sequence[PageSet], annotator: Annotator, words: DisplayWords, console: Console) -> None:
    console.print(Text("\nEvidence, one example of each (synthetic text)", style="bold"))
    quoted: set[str] = set()
    for status in STATUSES[:3]:
        examples = [example for one in sets if (example := _example(one, status, annotator, words, quoted)) is not None]
        if not examples:
            continue
        best = max(examples, key=lambda example: example.worth)
        quoted.add(best.report_id)
        console.print()
        console.print(Padding(fold(best.sentence, console.width - 2), (0, 0, 0, 2)))
        console.print(Padding(fold(_why(best, words), console.width - 4), (0, 0, 0, 4)))
    console.print()
    console.print(Padding(legend(words), (0, 0, 0, 1)))


@dataclass(frozen=True)
class _Example:
    """A mention that decided a label, its sentence in colour, and how much it shows."""

    worth: tuple[int, int]
    mention: ReadMention
    sentence: Text
    label: str
    report_id: str


def _example(
    one: PageSet, status: str, annotator: Annotator, words: DisplayWords, quoted: Collection[str]
) -> _Example | None:
    """The mention of a label set that shows most, in a report that is not quoted yet.

    Present: with attributes. Uncertain: a cause, beside signs that are there. Absent: in a list under one denial.
    """
    here = pl.len().over("report_id", "sentence", "status")
    signs = (pl.col("status") == "present").sum().over("report_id", "sentence")
    facts = pl.sum_horizontal(pl.col("side", "size_mm", "change", "lobe").is_not_null())
    worth = {"present": facts, "uncertain": signs, "absent": here}[status]
    # what is said of the exam before shows less than what is said of this one
    plain = (pl.col("change").fill_null("") != "resolved").cast(pl.Int32)
    votes = supporting_mentions(one.mentions, one.label_set, annotator.rules)
    ranked = (
        votes.with_columns(worth=worth, plain=plain)
        .filter((pl.col("status") == status) & pl.col("cue").is_not_null() & ~pl.col("report_id").is_in(list(quoted)))
        .sort("plain", "worth", descending=True, maintain_order=True)
    )
    texts = dict(one.reports.select("report_id", "text").iter_rows())
    for row in ranked.head(5).iter_rows(named=True):
        text = texts[row["report_id"]]
        sentence = annotator.sentences(text)[row["sentence"]]
        if "\n" in text[sentence.start : sentence.end]:
            continue
        mentions = read_mentions(text, one.mentions.filter(pl.col("report_id") == row["report_id"]), annotator, words)
        own = ((row["start"], row["end"]), row["finding"])
        mention = next(mention for mention in mentions if (mention.span, mention.finding) == own)
        shown = coloured(text, mentions, numbers="")[sentence.start : sentence.end]
        return _Example((row["plain"], row["worth"]), mention, shown, row["label"], row["report_id"])
    return None


def _why(example: _Example, words: DisplayWords) -> Text:
    mention = example.mention
    shown = Text("→ ").append(mention.name.ja, style="bold").append(" ").append_text(status_text(mention.status, words))
    shown.append(f"  {mention.summary}" if mention.summary else "")
    return shown.append(
        f"  {example.label}, cue {mention.cue}, rule {mention.rule_id}, {example.report_id}", style="dim"
    )


def _show_flow(done: Done, workspace: Path, console: Console) -> None:
    """What the archive became with linked records: rows of each stage, and the labels table."""
    console.print(Text("\nThe same hospital from its archive, with linked records", style="bold"))
    rows = {(table, outcome): 0 for table in ("exams", "reports", "records") for outcome in ("in", "out")}
    for stage, table, outcome, _, count in done.attrition.iter_rows():
        if stage == "assemble" and (table, outcome) in rows:
            rows[table, outcome] += count
    told = ", ".join(
        f"{rows[name, 'in']:,} rows → {rows[name, 'out']:,} {name}" for name in ("exams", "reports", "records")
    )
    console.print(
        f"{done.read.files:,} files read: {told}; {done.quarantined} quarantined with reason", highlight=False
    )
    votes = open_workspace(workspace).read("votes", columns=["exam_id", "kind"]).filter(pl.col("kind") == "record")
    console.print(
        f"{votes.height:,} votes of linked records on {votes['exam_id'].n_unique():,} exams\n", highlight=False
    )
    show_labels(workspace, console)


def _show_files(out: Path, reports: pl.DataFrame, console: Console) -> None:
    console.print()
    labelled = reports["report_id"].n_unique()
    console.print(f"[bold]{labelled}[/bold] synthetic reports labelled. Open in a browser:", highlight=False)
    console.print(Text(f"  {(out / 'report.html').resolve()}", style="bold underline"), soft_wrap=True)
    console.print(
        Text(
            f"Tables: {out}/reports.parquet, labels.parquet, mentions.parquet; archive: {out}/archive; "
            f"workspace: {out}/workspace",
            style="dim",
        ),
        soft_wrap=True,
    )
    console.print(
        Text(f"For training: reportlabel export {out}/workspace --to parquet --out {out}/teacher", style="dim"),
        soft_wrap=True,
    )
    example = reports.filter(pl.col("label_set") == "lung_ct")["report_id"].head(1)
    if len(example):
        console.print(
            Text(f"See why: reportlabel explain {out}/reports.parquet {example[0]} --label-set lung_ct", style="dim"),
            soft_wrap=True,
        )
