"""`reportlabel review`: the exams of a workspace to radiologists in Label Studio, and what they say back.

Heavy imports stand inside the commands. The terminal shows counts and reasons; which exams they are of stands in a file
of the workspace.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reportlabel.errors import ConfigError, ExitCode, InputError

if TYPE_CHECKING:
    import polars as pl

    from reportlabel.review.client import Client
    from reportlabel.review.hand_out import Desk
    from reportlabel.review.ledger import Ledger, Project
    from reportlabel.review.push import Pushed, Tell

app = typer.Typer(help="Radiologists correct doubtful labels in Label Studio.", no_args_is_help=True)

LOCAL_URL = "http://127.0.0.1:8080"
LOCAL_FOLDER = Path(".label-studio")

WorkspaceFolder = Annotated[Path, typer.Argument(help="The folder of the tables.")]
Url = Annotated[str, typer.Option("--url", envvar="REPORTLABEL_REVIEW_URL", help="Address of Label Studio.")]
AllowedHosts = Annotated[
    list[str] | None, typer.Option("--allow-host", help="A host that reports may be sent to; may be repeated.")
]
ServerFolder = Annotated[
    Path, typer.Option("--server-folder", help="Folder of the local server, of `review serve`; holds its token.")
]
LabelSets = Annotated[
    list[str] | None, typer.Option("--label-set", help="Only these label sets; may be repeated; default: all set up.")
]
RulesFolder = Annotated[Path | None, typer.Option("--rules", help="Another rules folder than the one installed.")]
Batch = Annotated[int, typer.Option("--batch", help="Exams a call.")]


@app.command()
def serve(
    server_folder: ServerFolder = LOCAL_FOLDER,
    port: Annotated[int, typer.Option("--port", help="On 127.0.0.1.")] = 8080,
    environment: Annotated[
        Path | None,
        typer.Option("--environment", help="Virtual environment of Label Studio; made where it is not there."),
    ] = None,
) -> None:
    """Start Label Studio on this machine, for one or two readers; Ctrl-C ends it."""
    from reportlabel.review.server import LOGIN_FILE, install
    from reportlabel.review.server import serve as start

    signal.signal(signal.SIGTERM, _interrupt)
    program = install(server_folder / "venv" if environment is None else environment, tell=_say)
    running = start(server_folder, port=port, program=program, tell=_say)
    _say(f"{running.url} answers; user {running.login.user}, password in {server_folder / LOGIN_FILE}; Ctrl-C ends it")
    raise typer.Exit(running.wait())


@app.command()
def setup(
    workspace: WorkspaceFolder,
    label_sets: LabelSets = None,
    readers: Annotated[
        list[str] | None,
        typer.Option(
            "--reader", help="A reader, who gets a project of their own; may be repeated; default: as before."
        ),
    ] = None,
    project: Annotated[
        str | None, typer.Option("--project", help="Another name than the label set's, of a project without readers.")
    ] = None,
    guide: Annotated[
        str | None, typer.Option("--guide", help="Address of the annotation guide, linked from the projects.")
    ] = None,
    url: Url = LOCAL_URL,
    allow_hosts: AllowedHosts = None,
    server_folder: ServerFolder = LOCAL_FOLDER,
    rules: RulesFolder = None,
) -> None:
    """Make the projects of label sets, or bring them up to date."""
    from reportlabel.review.hand_out import open_desk, project_name
    from reportlabel.review.push import setup_project

    _permit(workspace, url)
    with open_desk(workspace, rules) as desk, _client(url, allow_hosts, server_folder) as client:
        names = label_sets or sorted({one.label_set for one in desk.ledger.projects(client.url)})
        if not names:
            raise ConfigError("no label set is named; give --label-set NAME, one of the workspace")
        _check_label_sets(desk, names)
        if readers and any(not name.strip() for name in readers):
            raise ConfigError("--reader: give each reader a name")
        client.check()
        desk.ledger.add_people("reader", readers or [])
        known = desk.ledger.people("reader")
        if project is not None and (known or len(names) > 1):
            raise ConfigError("--project names the one project of one label set; leave it out with several, or readers")
        people: list[str | None] = [*known] or [None]
        wanted = [
            (desk.label_set(name), project or project_name(name, known, one), one) for name in names for one in people
        ]
        table = _table("projects", ("project", "label set", "reader", "number", ""), right={"number"})
        for label_set, title, reader in wanted:
            made, changed = setup_project(
                client, desk.ledger, label_set, desk.rules, desk.screen, name=title, reader=reader, guide=guide
            )
            told = "made or updated" if changed else "unchanged"
            table.add_row(made.name, made.label_set, reader or "any", str(made.number), told)
        _console().print(table)


@app.command()
def push(
    workspace: WorkspaceFolder,
    exams: Annotated[
        int, typer.Option("--exams", help="Exams of each label set that are given to readers, with those before.")
    ] = 200,
    label_sets: LabelSets = None,
    batch: Batch = 250,
    url: Url = LOCAL_URL,
    allow_hosts: AllowedHosts = None,
    server_folder: ServerFolder = LOCAL_FOLDER,
    rules: RulesFolder = None,
) -> None:
    """Choose exams that are worth reading and send them; what is there already is brought up to date."""
    from reportlabel.review import push as pushing
    from reportlabel.review.hand_out import choose, is_adjudication, open_desk, tasks_of

    _permit(workspace, url)
    with open_desk(workspace, rules) as desk, _client(url, allow_hosts, server_folder) as client:
        client.check()
        projects = [one for one in _projects(desk.ledger, client, label_sets) if not is_adjudication(one)]
        if not projects:
            raise ConfigError("only disagreements are set up; run `reportlabel review setup` for readers first")
        for name in sorted({one.label_set for one in projects}):
            choose(desk, name, exams)
        done = []
        for project in projects:
            tasks, left, problems = tasks_of(desk, project)
            with _progress() as tell:
                pushed = pushing.push(
                    client, desk.ledger, project, tasks, batch=batch, tell=tell, problems=problems, left=left
                )
            done.append((project, pushed))
    raise typer.Exit(_show_pushed(workspace, done))


@app.command()
def adjudicate(
    workspace: WorkspaceFolder,
    adjudicator: Annotated[str, typer.Option("--adjudicator", help="Whose word settles disagreements.")],
    label_sets: LabelSets = None,
    batch: Batch = 250,
    url: Url = LOCAL_URL,
    allow_hosts: AllowedHosts = None,
    server_folder: ServerFolder = LOCAL_FOLDER,
    rules: RulesFolder = None,
) -> None:
    """Send the exams on which readers disagree to a project of the adjudicator, with what they said, without names."""
    from reportlabel.review import push as pushing
    from reportlabel.review.hand_out import adjudication_name, adjudication_tasks, open_desk

    _permit(workspace, url)
    with open_desk(workspace, rules) as desk, _client(url, allow_hosts, server_folder) as client:
        if not adjudicator.strip() or adjudicator in desk.ledger.people("reader"):
            raise ConfigError("--adjudicator: give the name of somebody who is no reader of this workspace")
        client.check()
        names = sorted({one.label_set for one in _projects(desk.ledger, client, label_sets)})
        desk.ledger.add_people("adjudicator", [adjudicator])
        done = []
        for name in names:
            tasks, problems = adjudication_tasks(desk, name)
            if not tasks and problems.is_empty():
                _say(f"{name}: readers agree on all that several of them read")
                continue
            project, _ = pushing.setup_project(
                client,
                desk.ledger,
                desk.label_set(name),
                desk.rules,
                desk.screen,
                name=adjudication_name(name),
                reader=adjudicator,
            )
            with _progress() as tell:
                pushed = pushing.push(client, desk.ledger, project, tasks, batch=batch, tell=tell, problems=problems)
            done.append((project, pushed))
    raise typer.Exit(_show_pushed(workspace, done))


@app.command()
def pull(
    workspace: WorkspaceFolder,
    everything: Annotated[
        bool, typer.Option("--everything", help="Look at all answers, not only those that changed since.")
    ] = False,
    label_sets: LabelSets = None,
    url: Url = LOCAL_URL,
    allow_hosts: AllowedHosts = None,
    server_folder: ServerFolder = LOCAL_FOLDER,
    rules: RulesFolder = None,
) -> None:
    """Fetch what readers answered and append it to the readings; the next `run` makes labels of them."""
    import polars as pl

    from reportlabel.review import pull as pulling
    from reportlabel.review.hand_out import open_desk

    columns = ("project", "answers", "readings", "known", "not settled", "refused")
    table = _table("pulled", columns, right=set(columns[1:]))
    _permit(workspace, url)
    with open_desk(workspace, rules) as desk, _client(url, allow_hosts, server_folder) as client:
        client.check()
        problems = []
        for project in _projects(desk.ledger, client, label_sets):
            with _progress() as tell:
                got = pulling.pull(
                    client,
                    desk.ledger,
                    project,
                    desk.workspace,
                    desk.label_set(project.label_set),
                    desk.rules,
                    desk.screen,
                    everything=everything,
                    tell=tell,
                )
            problems.append(got.problems)
            counts = (got.annotations, got.readings, got.unchanged, got.held + got.cancelled, got.problems.height)
            table.add_row(project.name, *(f"{count:,}" for count in counts))
    _console().print(table)
    raise typer.Exit(_show_problems(workspace, "pull", pl.concat(problems)))


@app.command()
def status(workspace: WorkspaceFolder) -> None:
    """Sent, done and remaining exams of each project, and how long they take; of what was pulled."""
    from reportlabel.review.ledger import Ledger
    from reportlabel.review.pull import status as status_of
    from reportlabel.run import open_workspace

    with Ledger(open_workspace(workspace).folder) as ledger:
        rows = status_of(ledger)
    if rows.is_empty():
        raise InputError(f"{workspace} has no review project; run `reportlabel review setup` first")
    columns = [name for name in rows.columns if name not in ("label_set", "median_seconds")]
    shown = ("seconds an exam", "exams an hour", "hours left", "last read (UTC)")
    kept = columns[: columns.index("exams_per_hour")]
    table = _table("review", (*kept, *shown), right={*kept[2:], *shown})
    for row in rows.iter_rows(named=True):
        pace, seconds = row["exams_per_hour"], row["median_seconds"]
        table.add_row(
            *(str(row[name]) if row[name] is not None else "any" for name in kept),
            f"{seconds:.0f}" if seconds else "",
            f"{pace:.0f}" if pace else "",
            f"{row['remaining'] / pace:.1f}" if pace else "",
            f"{row['last_read_at']:%Y-%m-%d %H:%M}" if row["last_read_at"] else "",
        )
    _console().print(table)


@app.command()
def agreement(
    workspace: WorkspaceFolder,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write every figure, with pairs of readers: .csv or .parquet.")
    ] = None,
    label_sets: LabelSets = None,
    rules: RulesFolder = None,
) -> None:
    """How well readers agree: of all findings together, of each finding, and of each reader with the others."""
    import polars as pl

    from reportlabel.export.atomic import AtomicText, ParquetSink, check_writable
    from reportlabel.review.agreement import AGREEMENT
    from reportlabel.review.agreement import agreement as agreement_of
    from reportlabel.review.hand_out import open_desk

    if out is not None:
        if out.suffix not in (".csv", ".parquet"):
            raise ConfigError(f"--out {out}: give a name that ends in .csv or .parquet")
        check_writable(out)
    with open_desk(workspace, rules) as desk:
        readings = desk.workspace.read("readings")
        if label_sets:
            _check_label_sets(desk, label_sets)
            readings = readings.filter(pl.col("label_set").is_in(label_sets))
        found = agreement_of(readings, settings=desk.settings.agreement, adjudicators=desk.ledger.people("adjudicator"))
    if found.is_empty():
        raise InputError("no exam has been read by two readers yet; push, and pull what they answered")
    everybody = pl.col("reader").is_null()
    for (label_set,), rows in found.group_by("label_set", maintain_order=True):
        measures = rows.filter(everybody & pl.col("finding").is_null())["measure"].to_list()
        columns = ("finding", "exams", *(name.replace("_", " ") for name in measures))
        table = _table(f"agreement of all readers: {label_set}", columns, right=set(columns[1:]))
        of_all = rows.filter(everybody)
        for (finding,), own in of_all.group_by("finding", maintain_order=True):
            figures = {row["measure"]: row for row in own.iter_rows(named=True)}
            table.add_row(
                str(finding or "all findings"),
                f"{own['exams'].to_numpy().max():,}",
                *(_figure(figures.get(name)) for name in measures),
            )
        _console().print(table)
        each = rows.filter(~everybody & pl.col("finding").is_null())
        table = _table(
            f"pairs of readers, and each with all others: {label_set}",
            ("reader", "other", "measure", "exams", "figure"),
            right={"exams", "figure"},
        )
        for row in each.iter_rows(named=True):
            measure = row["measure"].replace("_", " ")
            table.add_row(row["reader"], row["other"] or "all others", measure, f"{row['exams']:,}", _figure(row))
        _console().print(table)
    if out is not None and out.suffix == ".parquet":
        with ParquetSink(out, AGREEMENT) as sink:
            sink.write(found)
    elif out is not None:
        with AtomicText(out) as file:
            file.write(found.write_csv())


@app.command()
def suggest(workspace: WorkspaceFolder, label_sets: LabelSets = None, rules: RulesFolder = None) -> None:
    """List phrases that rules missed or misread, and write them as YAML stubs into the workspace."""
    import polars as pl

    from reportlabel.review.hand_out import open_desk
    from reportlabel.review.suggestions import stubs, write_stubs
    from reportlabel.review.suggestions import suggest as suggest_from

    with open_desk(workspace, rules) as desk:
        _check_label_sets(desk, label_sets or [])
        wanted = {name: desk.rules.label_sets[name] for name in label_sets or desk.rules.label_sets}
        readings = desk.workspace.read("readings").filter(pl.col("label_set").is_in(list(wanted)))
        if readings.is_empty():
            raise InputError("there are no readings yet; run `reportlabel review pull` first")
        versions = desk.workspace.versions()
        read = pl.col("exam_id").is_in(readings["exam_id"].unique().to_list())
        votes, reports, exams = (
            desk.workspace.scan(name, version=versions.get(name)).filter(read).collect()
            for name in ("votes", "reports", "exams")
        )
        mentions = desk.workspace.scan("mentions", version=versions.get("mentions"))
        here = pl.col("report_id").is_in(reports["report_id"].unique().to_list())
        found = suggest_from(
            readings,
            votes=votes,
            mentions=mentions.filter(here).collect(),
            reports=reports,
            exams=exams,
            rules=desk.rules,
            label_sets=wanted,
            settings=desk.settings.suggestions,
            adjudicators=desk.ledger.people("adjudicator"),
        )
        made = stubs(found.phrases, label_sets=wanted, settings=desk.settings.suggestions)
        folder = write_stubs(made, desk.workspace.folder)
    counts = dict(found.phrases["kind"].value_counts().iter_rows())
    told = ", ".join(f"{counts.get(kind, 0):,} {kind}" for kind in ("missed", "misread"))
    _say(f"phrases: {told}; {len(made):,} files of the rules in {folder}")
    for reason, count in sorted(found.withheld.items()):
        _say(f"{count:,} corrections not told: {reason}")


@app.command()
def slips(
    workspace: WorkspaceFolder,
    out: Annotated[Path, typer.Option("--out", help="CSV to write: exam, label, reader, what was said, how sure.")],
    label_sets: LabelSets = None,
    rules: RulesFolder = None,
) -> None:
    """List readings that may be slips of the hand, for a second look: the votes are sure of something else."""
    import polars as pl

    from reportlabel.export.atomic import AtomicText, check_writable, commit_all
    from reportlabel.review.hand_out import open_desk
    from reportlabel.review.quality import label_errors
    from reportlabel.run import judged_by_votes
    from reportlabel.study import load_study

    check_writable(out)
    with open_desk(workspace, rules) as desk:
        readings = desk.workspace.read("readings")
        if label_sets:
            readings = readings.filter(pl.col("label_set").is_in(label_sets))
        if readings.is_empty():
            raise InputError("there are no readings yet; run `reportlabel review pull` first")
        read = sorted(readings["label_set"].unique())
        _check_label_sets(desk, read)
        judged = judged_by_votes(desk.workspace, load_study(rules, label_sets=read))
        found = label_errors(readings, judged, adjudicators=desk.ledger.people("adjudicator"))
    with commit_all(AtomicText(out)) as (output,):
        output.write(found.write_csv())
    _say(f"{found['suspected'].sum():,} of {found.height:,} readings may be slips, the most doubtful first: {out}")


@app.command()
def guide(
    out: Annotated[Path, typer.Argument(help="The Markdown file to write.")],
    label_sets: LabelSets = None,
    rules: RulesFolder = None,
) -> None:
    """Write the annotation guide, in Japanese, from the rules."""
    from reportlabel.export.atomic import AtomicText, check_writable
    from reportlabel.review.config import load_screen
    from reportlabel.review.guide import review_guide
    from reportlabel.review.settings import load_settings
    from reportlabel.rulebook.load import load_rules

    check_writable(out)
    book = load_rules(rules)
    words = load_settings(book.folder / "review.yaml").guide
    text = review_guide(book, words, load_screen(book.folder), label_sets=label_sets or (), file=out.as_posix())
    with AtomicText(out) as file:
        file.write(text)


@app.command()
def withdraw(
    workspace: WorkspaceFolder,
    patients: Annotated[
        Path | None, typer.Option("--patients", help="File with one patient_id of the workspace a line.")
    ] = None,
    exams: Annotated[Path | None, typer.Option("--exams", help="File with one exam_id a line.")] = None,
    gone: Annotated[
        bool, typer.Option("--gone", help="All exams on the server that the workspace no longer has.")
    ] = False,
    url: Url = LOCAL_URL,
    allow_hosts: AllowedHosts = None,
    server_folder: ServerFolder = LOCAL_FOLDER,
) -> None:
    """Delete exams of withdrawn patients from the server, with answers and copies, the ledger and the readings."""
    from reportlabel.review import push as pushing
    from reportlabel.review.ledger import Ledger
    from reportlabel.run import open_workspace

    if patients is None and exams is None and not gone:
        raise ConfigError("whose exams? give --patients FILE, --exams FILE or --gone")
    opened = open_workspace(workspace)
    with Ledger(opened.folder) as ledger, _client(url, allow_hosts, server_folder) as client:
        known = dict(opened.read("exams", columns=["exam_id", "patient_id"]).iter_rows())
        wanted = set(_lines(exams)) if exams is not None else set()
        if patients is not None:
            named = set(_lines(patients))
            wanted |= {exam for exam, patient in known.items() if patient in named}
        if gone:
            sent = {exam for project in ledger.projects() for exam in ledger.sent(project)}
            wanted |= {exam for exam in sent | set(ledger.chosen()["exam_id"]) if exam not in known}
        home = _local_folder(client.url, server_folder)
        removed, others = pushing.withdraw(client, ledger, sorted(wanted), home=home)
        for name in ("push", "pull"):
            _problem_file(workspace, name).unlink(missing_ok=True)
        readings = opened.remove("readings", "exam_id", sorted(wanted)) if opened.exists("readings") else 0
        if readings:
            opened.vacuum()
        _say(f"{len(wanted):,} exams: {removed:,} tasks deleted on the server, {readings:,} readings removed")
    if home is None:
        _say(
            "copies are left there, which its administrator removes: exports of the web page (export and media/export "
            "of the data folder), deleted rows in the files of the database (PostgreSQL: VACUUM FULL task, "
            "task_completion, tasks_annotationdraft, prediction; then the write-ahead log. SQLite: VACUUM), and "
            "backups; how: docs/8-review.md, Withdrawn consent"
        )
    if others:
        _say(f"{', '.join(others)} was sent some of these exams too: run it there with --gone --url")


# --- what the commands share


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


class _Output(Console):
    """A console that leaves a broken pipe to the command line: its reader (head) may go, that is no error."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _console() -> Console:
    return _Output() if sys.stdout.isatty() else _Output(width=max(160, Console().width))


def _say(line: str) -> None:
    _console().print(escape(line), highlight=False, soft_wrap=True)


def _table(title: str, columns: Sequence[str], *, right: set[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right" if column in right else "left", overflow="fold")
    return table


@contextmanager
def _progress() -> Iterator[Tell]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
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

        def tell(step: str, done: int, of: int) -> None:
            total = of or None
            if step not in known:
                known[step] = progress.add_task(step, total=total)
            progress.update(known[step], completed=done, total=total)

        yield tell


def _local_folder(url: str, folder: Path) -> Path | None:
    """The folder of the local server, where the address is of this machine and the folder is one."""
    from reportlabel.review.client import is_loopback
    from reportlabel.review.server import LOGIN_FILE

    return folder if is_loopback(urlsplit(url).hostname or "") and (folder / LOGIN_FILE).is_file() else None


def _permit(workspace: Path, url: str) -> None:
    """Ask the protocol, where the workspace is a study's, whether it may be reviewed there and now.

    Raises:
        RefusedError: the study has ended, or its data may not go to that server.
    """
    from reportlabel.govern import study_of

    study = study_of(workspace)
    if study is not None:
        study.load().gate("review", today=date.today(), url=url)


@contextmanager
def _client(url: str, allow_hosts: Sequence[str] | None, folder: Path) -> Iterator[Client]:
    from reportlabel.review.client import Client, check_url, find_token
    from reportlabel.review.server import read_login

    address = check_url(url, allowed_hosts=allow_hosts or ())
    token = None
    with suppress(ConfigError):
        token = find_token(address, environment=os.environ)
    local = _local_folder(address, folder)
    if token is None and local is not None:
        token = read_login(local).token
    with Client(address, token or find_token(address), allowed_hosts=allow_hosts or ()) as client:
        yield client


def _check_label_sets(desk: Desk, names: Sequence[str]) -> None:
    import polars as pl

    versions = desk.workspace.versions()
    scanned = desk.workspace.scan("labels", version=versions.get("labels"))
    there = sorted(scanned.select(pl.col("label_set").unique()).collect()["label_set"])
    for name in names:
        desk.label_set(name)
        if name not in there:
            raise ConfigError(f"--label-set {name}: the workspace has labels of {', '.join(there)}")


def _projects(ledger: Ledger, client: Client, label_sets: Sequence[str] | None) -> list[Project]:
    known = ledger.projects(client.url)
    if not known:
        raise ConfigError(f"there is no review project on {client.url}; run `reportlabel review setup` first")
    for name in label_sets or ():
        if name not in {one.label_set for one in known}:
            raise ConfigError(f"--label-set {name}: it has no project; run `reportlabel review setup` for it first")
    return [one for one in known if not label_sets or one.label_set in label_sets]


def _show_pushed(workspace: Path, done: Sequence[tuple[Project, Pushed]]) -> int:
    import polars as pl

    from reportlabel.review.tasks import PROBLEMS

    columns = ("project", "new", "updated", "unchanged", "answered", "waiting for a pull", "repaired", "not sent")
    table = _table("pushed", columns, right=set(columns[1:]))
    for project, one in done:
        counts = (one.new, one.updated, one.unchanged, one.answered, one.waiting, one.repaired, one.problems.height)
        table.add_row(project.name, *(f"{count:,}" for count in counts))
    if done:
        _console().print(table)
    return _show_problems(workspace, "push", pl.concat([pl.DataFrame(schema=PROBLEMS), *(p.problems for _, p in done)]))


def _problem_file(workspace: Path, step: str) -> Path:
    return workspace / "review" / f"{step}-problems.csv"


def _show_problems(workspace: Path, step: str, problems: pl.DataFrame) -> int:
    """Say why, with counts; which they are stands in a file of the workspace. Returns the exit code."""
    from reportlabel.export.atomic import AtomicText

    path = _problem_file(workspace, step)
    if problems.is_empty():
        path.unlink(missing_ok=True)
        return int(ExitCode.DONE)
    for reason, remedy, count in problems.group_by("reason", "remedy").len().sort("len", "reason").iter_rows():
        _say(f"{count:,} not taken: {reason} {remedy}")
    with AtomicText(path) as file:
        file.write(problems.write_csv())
    _say(f"which they are: {path}")
    return int(ExitCode.QUARANTINED)


def _figure(row: dict[str, float | None] | None) -> str:
    if row is None or row["value"] is None:
        return "–"
    shown = f"{row['value']:.3f}"
    return shown if row["low"] is None or row["high"] is None else f"{shown} ({row['low']:.2f} to {row['high']:.2f})"


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read; give a UTF-8 text file with one id a line") from error
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise InputError(f"{path} is empty; give one id a line")
    return found
