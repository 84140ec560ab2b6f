"""What `ingest`, `ingest --dry-run` and `run` print."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from reportlabel.consent.cohort import count_report
from reportlabel.errors import ExitCode
from reportlabel.govern import Governance, Withdrawn, in_study
from reportlabel.ingest.archive import open_archive
from reportlabel.ingest.raw import RawStore
from reportlabel.ingest.stage import Preview, preview
from reportlabel.run import Done, Options, Tell, ingest, open_workspace, run

_STATUSES = ("present", "uncertain", "absent", "not_mentioned")
_TITLES = {"read": "reading files", "assemble": "exams, reports, records", "label": "reading reports, linking, voting"}


def run_ingest(archive: Path, workspace: Path, options: Options, *, dry_run: bool, console: Console) -> int:
    """Read an archive into a workspace, or only say what it holds; returns the exit code."""
    if dry_run:
        return _dry_run(archive, workspace, options, console)
    began = time.monotonic()
    with _progress(console) as tell:
        done = ingest(archive, workspace, options, tell=tell)
    _show_read(done, console)
    _show_attrition(done.attrition, console)
    _show_end(done, workspace, time.monotonic() - began, console)
    return int(done.exit_code)


def run_run(archive: Path, workspace: Path, options: Options, *, console: Console) -> int:
    """The whole flow over an archive; returns the exit code."""
    began = time.monotonic()
    with _progress(console) as tell:
        done = run(archive, workspace, options, tell=tell)
    _show_read(done, console)
    _show_attrition(done.attrition, console)
    show_labels(workspace, console)
    if options.governance is not None and done.withdrawn is not None:
        _show_study(done.withdrawn, options.governance, workspace, console)
    _show_end(done, workspace, time.monotonic() - began, console)
    return int(done.exit_code)


def show_labels(workspace: Path, console: Console) -> None:
    """Counts of the labels of a workspace by label set, and how many exams each has."""
    opened = open_workspace(workspace)
    counts = pl.concat(
        [
            opened.read("labels", part=part, columns=["exam_id", "label_set", "value", "conflict"])
            .group_by("label_set")
            .agg(
                pl.col("exam_id").n_unique().alias("exams"),
                *((pl.col("value") == status).sum().alias(status) for status in _STATUSES),
                pl.col("conflict").sum(),
            )
            for part in range(opened.parts)
        ]
    )
    table = Table(title="labels", title_justify="left")
    table.add_column("label set")
    for name in ("exams", *_STATUSES, "conflict"):
        table.add_column(name.replace("_", " "), justify="right")
    for row in counts.group_by("label_set").agg(pl.exclude("label_set").sum()).sort("label_set").iter_rows():
        table.add_row(str(row[0]), *(f"{int(number):,}" for number in row[1:]))
    console.print(table)


@contextmanager
def _progress(console: Console) -> Iterator[Tell]:
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        known: dict[str, TaskID] = {}

        def tell(stage: str, done: int, of: int) -> None:
            if stage not in known:
                known[stage] = progress.add_task(_TITLES.get(stage, stage), total=of)
            progress.update(known[stage], completed=done, total=of)

        yield tell


def _show_read(done: Done, console: Console) -> None:
    read = done.read
    told = f"files: {read.files:,} read, {read.unchanged:,} unchanged"
    if read.gone:
        told += f", {read.gone:,} no longer in the archive"
        told += f" (rows of {read.forgotten:,} taken out)" if read.forgotten else " (their rows stay)"
    console.print(told, highlight=False, soft_wrap=True)


def _show_attrition(attrition: pl.DataFrame, console: Console) -> None:
    table = Table(title="attrition: rows in = out + excluded + quarantined", title_justify="left")
    for name in ("stage", "table", "", ""):
        table.add_column(name)
    table.add_column("rows", justify="right")
    last = ("", "")
    for stage, name, outcome, reason, rows in attrition.iter_rows():
        if outcome == "in" and (stage, name) != last and last != ("", ""):
            table.add_section()
        first = (stage, name) != last
        last = (stage, name)
        table.add_row(stage if first else "", name if first else "", outcome, escape(reason), f"{rows:,}")
    console.print(table)


def _show_study(withdrawn: Withdrawn, governance: Governance, workspace: Path, console: Console) -> None:
    """What the protocol did: who left, whom to ask for what was handed over, and the numbers of the plan."""
    protocol = governance.protocol
    removed = withdrawn.removed
    told = [f"study {protocol.id}: {removed.rows['removed'].sum():,} rows of people who have refused removed"]
    if left := removed.rows["left"].sum():
        told.append(f"{left:,} rows of theirs were found afterwards: run again")
    if removed.exams:
        told.append(f"{len(removed.exams):,} exams must leave the review server: `reportlabel review withdraw`")
    if withdrawn.set_aside:
        told.append(f"{withdrawn.set_aside:,} rows of the list of refusals name nobody: mend them")
    if withdrawn.doubtful:
        told.append(f"{withdrawn.doubtful:,} rows of it are doubtful and count: `reportlabel consent check`")
    told += [f"list of refusals: {line}" for line in withdrawn.missed.told(option="patient_id_width of archive.yaml")]
    if not withdrawn.shipped.is_empty():
        bundles = withdrawn.shipped["bundle"].unique(maintain_order=True)
        told.append(f"{len(bundles):,} bundles hold somebody who has refused: {', '.join(bundles)}")
    console.print("; ".join(told), highlight=False, soft_wrap=True)
    # who has findings is decided for the sheet, with the readers, and shown there
    counts = count_report(in_study(open_workspace(workspace)), protocol).filter(
        ~pl.col("what").str.starts_with("finding")
    )
    if counts["expected"].is_null().all():
        return
    table = Table(title="numbers of the plan", title_justify="left")
    table.add_column("what")
    for name in ("planned", "found"):
        table.add_column(name, justify="right")
    table.add_column("rule")
    for row in counts.iter_rows(named=True):
        planned = "" if row["expected"] is None else f"{row['expected']:,}"
        table.add_row(f"{row['what']} ({row['unit']})", planned, f"{row['found']:,}", row["number"])
    console.print(table)


def _show_end(done: Done, workspace: Path, seconds: float, console: Console) -> None:
    if done.quarantined:
        console.print(
            f"{done.quarantined:,} quarantined, with reason and remedy: table quarantine of the workspace",
            highlight=False,
            soft_wrap=True,
        )
    state = "nothing has changed" if done.snapshot is None else f"version {done.snapshot}"
    # kilobytes on Linux, bytes on macOS; the highest of this process and of any of its workers
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / unit
    console.print(
        f"workspace {workspace}: {state}  ({seconds:.0f} s, peak memory {peak:,.0f} MiB)",
        highlight=False,
        soft_wrap=True,
    )


# --- dry run ----------------------------------------------------------------------------------------------------------


def _dry_run(archive: Path, workspace: Path, options: Options, console: Console) -> int:
    found = open_archive(archive, site=options.site)
    store = None
    if (workspace / "workspace.json").is_file():
        store = RawStore(workspace / "raw", open_workspace(workspace).parts)
    seen = preview(found, store)
    sources = ", ".join(sorted({source.format for source in found.sources}))
    console.print(
        f"{seen.files:,} files ({sources}), {seen.new:,} new or changed; nothing was written",
        highlight=False,
        soft_wrap=True,
    )
    _show_kinds(seen, console)
    _show_months(seen, console)
    return int(_show_problems(seen, console))


def _show_kinds(seen: Preview, console: Console) -> None:
    sites = sorted({site for site, _ in seen.by_kind})
    table = Table(title="rows by kind and site", title_justify="left")
    table.add_column("kind")
    for site in sites:
        table.add_column(escape(site), justify="right")
    for kind in sorted({kind for _, kind in seen.by_kind}):
        table.add_row(kind, *(f"{seen.by_kind[site, kind]:,}" for site in sites))
    console.print(table)


def _show_months(seen: Preview, console: Console) -> None:
    months = sorted({month for _, month in seen.by_month})
    if not months:
        return
    sites = sorted({site for site, _ in seen.by_month})
    years = len(months) > 36
    table = Table(title=f"exams by {'year' if years else 'month'} and site", title_justify="left")
    table.add_column("year" if years else "month")
    for site in sites:
        table.add_column(escape(site), justify="right")
    for period in sorted({month[:4] if years else month for month in months}):
        counts = (
            sum(rows for (where, month), rows in seen.by_month.items() if where == site and month.startswith(period))
            for site in sites
        )
        table.add_row(period, *(f"{count:,}" for count in counts))
    console.print(table)


def _show_problems(seen: Preview, console: Console) -> ExitCode:
    if not seen.problems:
        console.print("nothing is wrong")
        return ExitCode.DONE
    console.print("[bold]what is wrong[/]")
    for problem, count in seen.problems.most_common():
        source_format, kind, reason, remedy = problem
        console.print(
            f"  {count:,} × {source_format} {kind}: {escape(reason)} {escape(remedy)}", highlight=False, soft_wrap=True
        )
        for place in seen.places[problem]:
            console.print(f"      {escape(place)}", highlight=False, soft_wrap=True)
    return ExitCode.QUARANTINED
