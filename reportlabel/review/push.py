"""Projects on the review server, and the exams that are sent to them.

Pushing again changes nothing: the ledger knows what the server has. A push that was cut off goes on where it stopped.
An exam whose report, records or labels changed replaces its task, unless a reader has already answered it: an answer to
the same report stands, and an answer to an earlier report must be pulled before its task goes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from reportlabel.errors import ConfigError
from reportlabel.review.client import ANNOTATED, Client, Json
from reportlabel.review.config import Screen, labelling_config
from reportlabel.review.ledger import Ledger, Project, Sent
from reportlabel.review.server import scrub
from reportlabel.review.tasks import MODEL_VERSION, PROBLEMS, ReviewTask
from reportlabel.rulebook.load import Rulebook
from reportlabel.rulebook.models import LabelSet

BATCH = 250
_MARK = "reportlabel:"
_LONGEST_TITLE = 50
_LISTED = 2000
_DELETED = 200

Tell = Callable[[str, int, int], None]
"""Called with the step, what is done and what there is to do."""


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Attributes:
        new, updated, unchanged: exams. answered: changed, but a reader has answered the same report. waiting: changed,
            and an answer to the earlier report waits to be pulled. repaired: tasks of a push that was cut off.
        problems: exams that were not sent (`reportlabel.review.tasks.PROBLEMS`).
    """

    new: int = 0
    updated: int = 0
    unchanged: int = 0
    answered: int = 0
    waiting: int = 0
    repaired: int = 0
    problems: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=PROBLEMS))


def setup_project(
    client: Client,
    ledger: Ledger,
    label_set: LabelSet,
    rules: Rulebook,
    screen: Screen,
    *,
    name: str | None = None,
    reader: str | None = None,
    guide: str | None = None,
) -> tuple[Project, bool]:
    """Make the project of a label set, or bring it up to date; returns it and whether anything changed.

    Args:
        name: of the project, 3 to 50 characters (default: the label set); one name a reader for blinded reading.
        reader: whose readings it holds; None: each account of the server is a reader.
        guide: address of the annotation guide; the instructions link it.

    Raises:
        ConfigError: a wrong name, or the server has a project of this name that belongs to something else.
        ServerError: the server does not do it.
    """
    client.check()
    title = name or label_set.id
    if not 3 <= len(title) <= _LONGEST_TITLE:
        raise ConfigError(f"--project {title}: give a name of 3 to {_LONGEST_TITLE} characters")
    config = labelling_config(label_set, rules, screen)
    settings = _settings(title, config, label_set, screen, guide)
    signature = hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()
    known = ledger.project(client.url, title)
    if known is not None and known.label_set != label_set.id:
        raise ConfigError(f"project '{title}' belongs to label set '{known.label_set}'; give another --project")
    number = known.number if known is not None and client.project(known.number) is not None else None
    if number is not None and known is not None and known.config == signature and known.reader == reader:
        return known, False
    if number is None:
        number = _adopt(client, title, label_set)
    if number is None:
        number = client.create_project(settings)
    else:
        client.update_project(number, settings)
    _make_tabs(client, number, screen)
    made = Project(client.url, title, number, label_set.id, reader, signature)
    ledger.keep_project(made)
    return ledger.project(client.url, title) or made, True


def push(
    client: Client,
    ledger: Ledger,
    project: Project,
    tasks: Sequence[ReviewTask],
    *,
    batch: int = BATCH,
    tell: Tell | None = None,
    problems: pl.DataFrame | None = None,
    left: int = 0,
) -> Pushed:
    """Send exams to a project; see the module.

    Args:
        tasks: of `reportlabel.review.tasks.review_tasks`, the first to be read first.
        batch: exams a call; 250 to 500 are quickest.
        problems: exams that could not be made into tasks; handed on. left: exams to leave as they are; counted.

    Raises:
        ConfigError: a wrong batch, the project is gone, or holds tasks of something else.
        ServerError: the server fails; what was sent is noted, and the next push goes on.
    """
    if batch < 1:
        raise ConfigError(f"--batch {batch}: give 1 or more")
    client.check()
    say = tell or _silent
    repaired = _reconcile(client, ledger, project, tasks)
    sent = ledger.sent(project)
    new = [task for task in tasks if task.exam_id not in sent]
    changed = [task for task in tasks if task.exam_id in sent and sent[task.exam_id].content != task.content]
    replaced, answered, waiting = _sort_out(client, ledger, project, changed, sent)
    numbers = [number for task in replaced if (number := sent[task.exam_id].task) is not None]
    for at in range(0, len(numbers), _DELETED):
        client.delete_tasks(project.number, numbers[at : at + _DELETED])
    ledger.forget_tasks(project, [task.exam_id for task in replaced])
    outgoing = [*replaced, *new]
    say("push", 0, len(outgoing))
    for at in range(0, len(outgoing), batch):
        part = outgoing[at : at + batch]
        ledger.note_sending(
            project,
            [Sent(task.exam_id, task.content, task.text, None, "sending", task.predicted) for task in part],
            at=datetime.now(UTC),
        )
        made = client.import_tasks(project.number, [task.payload() for task in part])
        ledger.note_sent(project, dict(zip((task.exam_id for task in part), made, strict=True)))
        say("push", at + len(part), len(outgoing))
    return Pushed(
        new=len(new),
        updated=len(replaced),
        unchanged=left + len(tasks) - len(new) - len(changed),
        answered=answered,
        waiting=waiting,
        repaired=repaired,
        problems=pl.DataFrame(schema=PROBLEMS) if problems is None else problems,
    )


def withdraw(
    client: Client, ledger: Ledger, exams: Sequence[str], *, home: Path | None = None
) -> tuple[int, list[str]]:
    """Delete exams from the review server and the ledger; returns how many tasks went, and which servers have some too.

    Tasks go with their annotations, drafts and predictions. Exports that someone made on the web page stay on the
    server's disk: of a local server (``home``) they are swept here, of another its administrator does it
    (docs/8-review.md).

    Raises:
        ServerError: the server fails; run it again, what is left is found again.
    """
    client.check()
    wanted = set(exams)
    removed = 0
    for project in ledger.projects(client.url):
        if client.project(project.number) is None:
            continue
        # also tasks that the ledger does not know: of a push that was cut off
        numbers = [
            int(task["id"])
            for task in client.tasks(project.number, include=("id", "data"), page_size=_LISTED)
            if task["data"].get("exam_id") in wanted
        ]
        for number in numbers:
            client.delete_task(number)
        removed += len(numbers)
    elsewhere = ledger.forget_exams(list(wanted), server=client.url)
    if home is not None:
        scrub(home)
    return removed, elsewhere


# --- projects


def _settings(title: str, config: str, label_set: LabelSet, screen: Screen, guide: str | None) -> Json:
    link = f'<p><a href="{guide}" target="_blank" rel="noopener">{guide}</a></p>' if guide else ""
    return {
        "title": title,
        "description": f"{_MARK}{label_set.id}",
        "label_config": config,
        "expert_instruction": f"<p>{screen.texts.instruction}</p>{link}",
        "show_instruction": True,
        "show_skip_button": False,
        "enable_empty_annotation": False,
        "show_collab_predictions": True,
        "model_version": MODEL_VERSION,
        "sampling": "Uncertainty sampling",
        "maximum_annotations": 1,
    }


def _adopt(client: Client, title: str, label_set: LabelSet) -> int | None:
    """The server's project of this title, where this program made it; push looks whether its exams are ours."""
    for found in client.projects():
        if found["title"] == title:
            if found.get("description") != f"{_MARK}{label_set.id}":
                raise ConfigError(
                    f"{client.url} has a project '{title}' that is something else; give another --project"
                )
            return int(found["id"])
    return None


_HIDDEN = (
    "tasks:id",
    "tasks:inner_id",
    "tasks:annotations_results",
    "tasks:annotations_ids",
    "tasks:predictions_results",
    "tasks:predictions_model_versions",
    "tasks:cancelled_annotations",
    "tasks:total_predictions",
    "tasks:file_upload",
    "tasks:storage_filename",
    "tasks:created_at",
    "tasks:updated_at",
    "tasks:updated_by",
    "tasks:avg_lead_time",
    "tasks:draft_exists",
    "tasks:data.exam_id",
    "tasks:data.label_set",
    "tasks:data.check_html",
    "tasks:data.records_html",
    "tasks:data.content_hash",
    "tasks:data.text_hash",
    "tasks:data.made_by",
)


def _make_tabs(client: Client, number: int, screen: Screen) -> None:
    """The tabs of the task list: unread in order of priority, unread with the most doubtful first, done."""
    texts = screen.texts
    unread = {"filter": "filter:tasks:total_annotations", "operator": "equal", "type": "Number", "value": 0}
    done = unread | {"operator": "greater"}
    wanted = (
        (texts.unread, unread, "tasks:data.priority"),
        (texts.doubtful_first, unread, "tasks:predictions_score"),
        (texts.done, done, "-tasks:completed_at"),
    )
    existing = {view["data"].get("title"): view["id"] for view in client.views(number)}
    for title, only, order in wanted:
        data: Json = {
            "title": title,
            "type": "list",
            "target": "tasks",
            "ordering": [order],
            "filters": {"conjunction": "and", "items": [only]},
            "hiddenColumns": {"explore": list(_HIDDEN), "labeling": list(_HIDDEN)},
            "columnsWidth": {"tasks:data.text": 600},
        }
        if title in existing:
            client.update_view(number, existing[title], data)
        else:
            client.create_view(number, data)


# --- pushing


def _silent(_step: str, _done: int, _of: int) -> None:
    return


def _reconcile(client: Client, ledger: Ledger, project: Project, tasks: Sequence[ReviewTask]) -> int:
    """Make the ledger agree with the server; returns how many tasks it did not agree on.

    Raises:
        ConfigError: the project is gone, or holds tasks that are not of this workspace.
    """
    found = client.project(project.number)
    if found is None:
        ledger.forget_tasks(project, list(ledger.sent(project)))
        raise ConfigError(f"project '{project.name}' is gone from {client.url}; run `reportlabel review setup` again")
    sent = ledger.sent(project)
    if found["task_number"] == len(sent) and all(one.state == "sent" for one in sent.values()):
        return 0
    sending = {task.exam_id: task for task in tasks}
    there: dict[str, list[Json]] = {}
    foreign = 0
    for row in client.tasks(project.number, include=("id", "data", "total_annotations"), page_size=_LISTED):
        exam = row["data"].get("exam_id")
        if isinstance(exam, str) and (exam in sent or exam in sending):
            there.setdefault(exam, []).append(row)
        else:
            foreign += 1
    if foreign:
        raise ConfigError(
            f"project '{project.name}' on {client.url} holds {foreign} tasks that this workspace did not send; delete "
            "them there, or make another project with `reportlabel review setup --project NAME`"
        )
    repaired = 0
    kept: list[Sent] = []
    for exam, copies in there.items():
        # of copies the one that a reader answered stays, else the first one
        stays = max(copies, key=lambda row: (int(row.get("total_annotations") or 0), -int(row["id"])))
        for copy in copies:
            if copy is not stays and not copy.get("total_annotations"):
                client.delete_task(int(copy["id"]))
                repaired += 1
        content, text = str(stays["data"].get("content_hash")), str(stays["data"].get("text_hash"))
        noted = sent.get(exam)
        if noted is not None and (noted.content, noted.task, noted.state) == (content, stays["id"], "sent"):
            continue
        repaired += 1
        if noted is not None and noted.content == content:
            predicted = noted.predicted
        else:
            predicted = sending[exam].predicted if exam in sending and sending[exam].content == content else {}
        kept.append(Sent(exam, content, text, int(stays["id"]), "sent", predicted))
    ledger.note_sending(project, kept, at=datetime.now(UTC))
    ledger.note_sent(project, {one.exam_id: one.task for one in kept if one.task is not None})
    ledger.forget_tasks(project, [exam for exam in sent if exam not in there])
    return repaired


def _sort_out(
    client: Client, ledger: Ledger, project: Project, changed: Sequence[ReviewTask], sent: Mapping[str, Sent]
) -> tuple[list[ReviewTask], int, int]:
    """Which changed exams are replaced; how many stay because they are answered, or wait until that is pulled."""
    if not changed:
        return [], 0, 0
    only = [{"filter": "filter:tasks:total_annotations", "operator": "greater", "type": "Number", "value": 0}]
    exams = {task.exam_id for task in changed}
    pulled = ledger.pulled_exams(project)
    on_server: dict[str, list[Json]] = {}
    for row in client.tasks(project.number, filters=only, include=ANNOTATED):
        if row["data"].get("exam_id") in exams:
            on_server[row["data"]["exam_id"]] = row["annotations"]
    replaced, answered, waiting = [], 0, 0
    for task in changed:
        answers = on_server.get(task.exam_id, [])
        if not answers:
            replaced.append(task)
        elif sent[task.exam_id].text == task.text:
            answered += 1
        elif all(pulled.get(int(one["id"])) == one["updated_at"] for one in answers):
            replaced.append(task)
        else:
            waiting += 1
    return replaced, answered, waiting
