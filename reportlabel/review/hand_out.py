"""Which exams are given to whom: from the labels of a workspace to the tasks of each project.

An exam is given out once, and stays with its readers: pushing again with the same number of exams gives the same
tasks, a larger number adds exams, and a reader who joins later gets a share of what is added.

No reader sees what another one said. The labels of an exam that somebody has read hold that reading; so its tasks are
left as they are, and where one must be made anew, it is made of the votes alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from reportlabel.aggregate.settings import AggregateSettings
from reportlabel.aggregate.settings import load_settings as load_aggregate_settings
from reportlabel.errors import ConfigError
from reportlabel.review.config import Screen, load_screen
from reportlabel.review.ledger import CHOSEN, Ledger, Project
from reportlabel.review.readers import adjudication, assign, disagreements, letter_of
from reportlabel.review.reasons import choose_exams
from reportlabel.review.settings import ReviewSettings, load_settings
from reportlabel.review.tasks import NOT_MENTIONED, ExamTables, ReviewTask, read_exams, review_tasks
from reportlabel.rulebook.load import Rulebook, find_label_set, load_rules
from reportlabel.rulebook.models import LabelSet
from reportlabel.run import open_workspace
from reportlabel.store import Workspace

DISAGREEMENT = "disagreement"
_ADJUDICATION = "-adjudication"
_STRENGTH = {"present": 0, "uncertain": 1, "absent": 2}


@dataclass(frozen=True)
class Desk:
    """A workspace with all that a review of it needs."""

    workspace: Workspace
    ledger: Ledger
    rules: Rulebook
    screen: Screen
    settings: ReviewSettings
    aggregate: AggregateSettings

    def label_set(self, name: str) -> LabelSet:
        """A label set of the rules.

        Raises:
            ConfigError: there is none of this name.
        """
        return find_label_set(self.rules, name)


@contextmanager
def open_desk(folder: Path, rules_folder: Path | None = None) -> Iterator[Desk]:
    """Open a workspace for its review.

    Raises:
        ConfigError: no workspace, wrong rules, or the ledger cannot be opened.
    """
    workspace, rules = open_workspace(folder), load_rules(rules_folder)
    screen, settings = load_screen(rules.folder), load_settings(rules.folder / "review.yaml")
    aggregate = load_aggregate_settings(rules.folder / "aggregate.yaml")
    with Ledger(workspace.folder) as ledger:
        yield Desk(workspace, ledger, rules, screen, settings, aggregate)


# --- names of projects


def project_name(label_set: str, readers: list[str], reader: str | None) -> str:
    """The project of a label set, or that of one reader, under a letter in place of a name."""
    return label_set if reader is None else f"{label_set}-reader-{letter_of(readers, reader)}"


def adjudication_name(label_set: str) -> str:
    """The project in which disagreements of readers are settled."""
    return f"{label_set}{_ADJUDICATION}"


def is_adjudication(project: Project) -> bool:
    """Whether a project is for disagreements."""
    return project.name == adjudication_name(project.label_set)


# --- choosing


def choose(desk: Desk, label_set: str, exams: int) -> int:
    """Choose exams until so many of a label set are given to readers; returns how many were added.

    Raises:
        ConfigError: a negative number. InputError: no run has finished yet.
    """
    if exams < 0:
        raise ConfigError(f"--exams {exams}: give 0 or more")
    before = desk.ledger.chosen()
    already = before.filter(pl.col("label_set") == label_set)
    if already.height >= exams:
        return 0
    versions = desk.workspace.versions()

    def _of(name: str) -> pl.DataFrame:
        table = desk.workspace.scan(name, version=versions.get(name))
        return table.filter(pl.col("label_set") == label_set).collect()

    key = desk.ledger.key()
    found = choose_exams(
        _of("labels"),
        _of("votes"),
        desk.workspace.read("exams", version=versions.get("exams"), columns=["exam_id", "patient_id"]),
        budget=exams - already.height,
        settings=desk.settings,
        aggregate=desk.aggregate,
        already=already["exam_id"].to_list(),
        seed=key,
    )
    readers = desk.ledger.people("reader")
    given = pl.DataFrame(schema={"exam_id": pl.String, "readers": pl.List(pl.String)})
    if readers and found.height:
        share = desk.settings.readers
        each = assign(found, readers, overlap=share.overlap, key=key, readers_each=share.readers_each)
        given = each.group_by("exam_id").agg(pl.col("reader").sort().alias("readers"))
    last = 0 if already.is_empty() else int(already["priority"].to_numpy().max())
    desk.ledger.keep_chosen(
        found.with_columns(pl.col("priority") + last)
        .join(given, on="exam_id", how="left", maintain_order="left")
        .with_columns(pl.col("readers").fill_null([]))
        .select(CHOSEN.names())
        .cast(CHOSEN)
    )
    return found.height


# --- tasks


def tasks_of(desk: Desk, project: Project) -> tuple[list[ReviewTask], int, pl.DataFrame]:
    """The tasks of a project of readers.

    Returns:
        Tasks; how many exams are left as they are, because somebody has read them; those that cannot be sent
        (`reportlabel.review.tasks.PROBLEMS`).

    Raises:
        ConfigError: wrong label set. InputError: no run has finished yet.
    """
    wanted = desk.ledger.chosen().filter(
        (pl.col("label_set") == project.label_set)
        & (
            pl.col("readers").list.len() == 0
            if project.reader is None
            else pl.col("readers").list.contains(pl.lit(project.reader))
        )
    )
    tables = read_exams(desk.workspace, wanted["exam_id"].to_list(), project.label_set)
    read = set(tables.labels.filter(pl.col("review_state") != "unreviewed")["exam_id"])
    reasons = {name: reason.name.ja for name, reason in desk.settings.reasons.items()}
    tasks, problems = _tasks(desk, tables, wanted, project.label_set, reasons)
    sent = desk.ledger.sent(project)
    kept = [
        task
        for task in tasks
        if not (task.exam_id in read and task.exam_id in sent and sent[task.exam_id].text == task.text)
    ]
    return kept, len(tasks) - len(kept), problems


def adjudication_tasks(desk: Desk, label_set: str) -> tuple[list[ReviewTask], pl.DataFrame]:
    """The exams of a label set on which readers disagree, with what they said, and those that cannot be sent."""
    queue = disagreements(
        desk.workspace.read("readings").filter(pl.col("label_set") == label_set),
        key=desk.ledger.key(),
        adjudicators=desk.ledger.people("adjudicator"),
    )
    said = {
        (exam, finding): "　".join(f"{one['letter']}：{desk.screen.status_name(one['value'])}" for one in opinions)
        for exam, finding, opinions in queue.select("exam_id", "finding", "opinions").iter_rows()
    }
    work = adjudication(queue)
    notes = [
        [said[exam, finding] for finding in findings] for exam, findings in work.select("exam_id", "findings").rows()
    ]
    wanted = work.with_columns(pl.Series("notes", notes, dtype=pl.List(pl.String)))
    tables = read_exams(desk.workspace, work["exam_id"].to_list(), label_set)
    return _tasks(desk, tables, wanted, label_set, {DISAGREEMENT: desk.screen.texts.disagreement})


def _tasks(
    desk: Desk, tables: ExamTables, wanted: pl.DataFrame, label_set: str, reasons: Mapping[str, str]
) -> tuple[list[ReviewTask], pl.DataFrame]:
    unread = replace(tables, labels=without_readings(tables.labels))
    return review_tasks(unread, wanted, desk.label_set(label_set), desk.rules, desk.screen, reason_names=reasons)


def without_readings(labels: pl.DataFrame) -> pl.DataFrame:
    """Labels as if nobody had read the exam: those that a reader settled say what the report says.

    Their probability is not known. ``labels``: `reportlabel.schema.EXAM_LABELS`.
    """
    is_read = pl.col("review_state") != "unreviewed"
    said = pl.col("evidence").list.filter(pl.element().struct.field("kind") != "record")
    values = said.list.eval(pl.element().struct.field("value"))
    strongest = pl.lit(NOT_MENTIONED)
    for value in sorted(_STRENGTH, key=_STRENGTH.__getitem__, reverse=True):
        strongest = pl.when(values.list.contains(value)).then(pl.lit(value)).otherwise(strongest)
    # of a size or side there is one statement, and it is none of these
    plain = pl.when(values.list.len() > 0).then(pl.coalesce(values.list.first(), pl.lit(NOT_MENTIONED)))
    is_status = values.list.eval(pl.element().is_in([*_STRENGTH, NOT_MENTIONED])).list.all()
    return labels.with_columns(
        value=pl.when(is_read).then(pl.when(is_status).then(strongest).otherwise(plain)).otherwise("value"),
        p_present=pl.when(is_read).then(None).otherwise("p_present"),
    )
