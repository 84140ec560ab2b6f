"""What readers said: annotations of the review server, checked, and appended to the readings of the workspace.

Only annotations that changed since the last pull are fetched. Each version of an annotation is kept in the ledger; one
that answers every question about the report as it is now, and calls the exam settled, becomes readings. What cannot be
used is listed with its reason and stays on the server.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from reportlabel.ingest.assemble import reports_that_count
from reportlabel.review.client import ANNOTATED, Client, Json
from reportlabel.review.config import SETTLED, Control, Screen, controls
from reportlabel.review.ledger import Ledger, Project
from reportlabel.review.push import Tell
from reportlabel.review.tasks import (
    NOT_MENTIONED,
    PROBLEMS,
    Answers,
    canonical,
    read_answers,
    shown_text,
    stored_offset,
    text_hash,
)
from reportlabel.rulebook.load import Rulebook
from reportlabel.rulebook.models import LabelSet
from reportlabel.schema import READINGS
from reportlabel.store import Workspace

_OVERLAP = timedelta(minutes=10)
"""How far a pull goes back before the newest answer it saw: an answer may become visible after a newer one."""
_PAGE = 250


@dataclass(frozen=True)
class Pulled:
    """What a pull did.

    Attributes:
        annotations: that were new or changed. readings: rows that were appended. unchanged: known annotations.
        held: new annotations of exams that are not settled (second look, unfit); they are in the ledger only.
        cancelled: exams that were skipped. problems: what was not taken (`reportlabel.review.tasks.PROBLEMS`).
    """

    annotations: int = 0
    readings: int = 0
    unchanged: int = 0
    held: int = 0
    cancelled: int = 0
    problems: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=PROBLEMS))


def pull(
    client: Client,
    ledger: Ledger,
    project: Project,
    workspace: Workspace,
    label_set: LabelSet,
    rules: Rulebook,
    screen: Screen,
    *,
    everything: bool = False,
    tell: Tell | None = None,
) -> Pulled:
    """Fetch annotations of a project and append them to the readings.

    Args:
        everything: also look at annotations that did not change since the last pull; what is known is not added again.

    Raises:
        ConfigError: wrong token or version. ServerError: the server fails; nothing is lost, run it again.
    """
    client.check()
    asked = controls(label_set, rules, screen)
    filters = [_filter("total_annotations", "greater", "Number", 0)]
    if project.pulled_until is not None and not everything:
        since = datetime.fromisoformat(project.pulled_until) - _OVERLAP
        filters.append(_filter("updated_at", "greater", "Datetime", since.strftime("%Y-%m-%dT%H:%M:%S.%fZ")))
    rows = []
    for row in client.tasks(project.number, filters=filters, include=ANNOTATED, page_size=_PAGE):
        rows.append(row)
        if tell is not None and len(rows) % _PAGE == 0:
            tell("pull", len(rows), 0)
    stored = _reports(workspace, [str(row["data"].get("exam_id")) for row in rows])
    taken = _Taken(project, label_set, asked, stored, ledger)
    for row in rows:
        for annotation in row["annotations"]:
            refused = len(taken.problems)
            taken.take(row["data"], annotation)
            if len(taken.problems) > refused:
                taken.refused_at.append(str(row["updated_at"]))
    if taken.readings:
        # readings first: a pull that is cut off here finds them in the table and adds nothing twice
        made = pl.DataFrame(taken.readings, schema=READINGS, orient="row")
        present = workspace.read("readings", columns=["sha256"])["sha256"].unique()
        made = made.filter(~pl.col("sha256").is_in(present.implode()))
        if made.height:
            workspace.append("readings", made)
    ledger.keep_annotations(taken.kept)
    if rows:
        # by the clock of the server; what was refused is looked at again until it is mended
        ledger.keep_pulled_until(project, min([*taken.refused_at, max(str(row["updated_at"]) for row in rows)]))
    return Pulled(
        annotations=len(taken.kept),
        readings=len(taken.readings),
        unchanged=taken.unchanged,
        held=taken.held,
        cancelled=taken.cancelled,
        problems=pl.DataFrame(taken.problems, schema=PROBLEMS, orient="row"),
    )


STATUS = pl.Schema(
    [
        ("project", pl.String),
        ("label_set", pl.String),
        ("reader", pl.String),
        ("sent", pl.Int64),
        ("done", pl.Int64),
        ("remaining", pl.Int64),
        ("settled", pl.Int64),
        ("second_look", pl.Int64),
        ("unfit", pl.Int64),
        ("median_seconds", pl.Float64),
        ("exams_per_hour", pl.Float64),
        ("last_read_at", pl.Datetime("us")),
    ]
)
"""One row a project. ``done`` and the columns behind ``remaining`` are of what was pulled; the last answer counts."""


def status(ledger: Ledger) -> pl.DataFrame:
    """How far the readers are (`STATUS`), from the ledger alone: pull first.

    ``exams_per_hour`` is 3600 / the median of the seconds that the screen measured, not the pace of a working day.
    """
    annotations = ledger.annotations()
    rows = []
    for project in ledger.projects():
        sent = ledger.sent(project)
        own = (
            annotations.filter(pl.col("annotation_id").str.starts_with(f"{project.number}/"))
            .sort("updated_at")
            .unique("exam_id", keep="last", maintain_order=True)
            .filter(pl.col("exam_id").is_in(list(sent)))
        )
        outcomes = dict(own["outcome"].value_counts().iter_rows())
        seconds: Any = own["seconds"].median()
        rows.append(
            (
                project.name,
                project.label_set,
                project.reader,
                len(sent),
                own.height,
                len(sent) - own.height,
                *(outcomes.get(one, 0) for one in ("settled", "second_look", "unfit")),
                seconds,
                3600.0 / seconds if seconds else None,
                own["updated_at"].max(),
            )
        )
    return pl.DataFrame(rows, schema=STATUS, orient="row")


def _filter(name: str, operator: str, kind: str, value: object) -> Json:
    return {"filter": f"filter:tasks:{name}", "operator": operator, "type": kind, "value": value}


def _reports(workspace: Workspace, exams: Sequence[str]) -> dict[str, str]:
    """Exam -> the text of the report that counts now."""
    if not exams:
        return {}
    versions = workspace.versions()
    rows = workspace.scan("reports", version=versions.get("reports")).filter(pl.col("exam_id").is_in(list(set(exams))))
    return dict(reports_that_count(rows.collect()).select("exam_id", "text").iter_rows())


class _Taken:
    """Sorts annotations into readings, problems and what is known."""

    def __init__(
        self,
        project: Project,
        label_set: LabelSet,
        asked: Sequence[Control],
        reports: Mapping[str, str],
        ledger: Ledger,
    ) -> None:
        self.readings: list[tuple[object, ...]] = []
        self.kept: list[tuple[object, ...]] = []
        self.problems: list[tuple[str | None, ...]] = []
        self.refused_at: list[str] = []
        self.unchanged = self.held = self.cancelled = 0
        self._project, self._label_set, self._asked, self._reports = project, label_set, asked, reports
        self._hashes = {exam: text_hash(text) for exam, text in reports.items()}
        self._sent = ledger.sent(project)
        self._known = ledger.known_annotations()

    def take(self, data: Mapping[str, Any], annotation: Mapping[str, Any]) -> None:
        """One annotation of a task."""
        exam = data.get("exam_id")
        if annotation.get("was_cancelled"):
            self.cancelled += 1
            return
        # projects are numbered by the server, and annotations within it
        number = f"{self._project.number}/{annotation['id']}"
        reader = self._project.reader or f"user-{_user(annotation)}"
        if not isinstance(exam, str) or data.get("label_set") != self._label_set.id or exam not in self._sent:
            self._refuse(None, reader, number, "The task was not sent by this workspace.", "Delete it on the server.")
            return
        result = annotation.get("result") or []
        sha256 = hashlib.sha256(
            canonical(
                [exam, self._label_set.id, reader, data.get("text_hash"), number, annotation["updated_at"], result]
            ).encode()
        ).hexdigest()
        if sha256 in self._known:
            self.unchanged += 1
            return
        if exam not in self._reports:
            self._refuse(exam, reader, number, "The exam has no report that counts any more.", _GONE)
            return
        if data.get("text_hash") != self._hashes[exam]:
            self._refuse(exam, reader, number, "The report changed after it was sent to the reader.", _CHANGED)
            # kept nevertheless: the next push may then replace the task
            self._keep(sha256, annotation, exam, reader, Answers(outcome="outdated"), data, result)
            return
        stored = self._reports[exam]
        answers = read_answers(result, self._asked, shown_text(stored))
        if answers.problems:
            self._refuse(exam, reader, number, " ".join(dict.fromkeys(answers.problems)), _AGAIN)
            return
        self._keep(sha256, annotation, exam, reader, answers, data, result)
        if answers.outcome != SETTLED:
            self.held += 1
            return
        read_at = _time(annotation["updated_at"])
        predicted = self._sent[exam].predicted
        for one in self._asked:
            value = answers.values[one.id]
            spans = [
                {"start": stored_offset(stored, start), "end": stored_offset(stored, end)}
                for start, end in sorted(answers.spans.get(one.id, ()))
            ]
            origin = origin_of(value, predicted.get(one.id))
            self.readings.append(
                (exam, self._label_set.id, one.id, reader, value, spans, origin, read_at, number, sha256)
            )

    def _keep(
        self,
        sha256: str,
        annotation: Mapping[str, Any],
        exam: str,
        reader: str,
        answers: Answers,
        data: Mapping[str, Any],
        result: Sequence[Any],
    ) -> None:
        self.kept.append(
            (
                sha256,
                self._project.server,
                self._project.number,
                annotation["id"],
                exam,
                self._label_set.id,
                reader,
                answers.outcome,
                answers.comment or None,
                data.get("text_hash"),
                annotation["created_at"],
                annotation["updated_at"],
                annotation.get("lead_time"),
                canonical(result),
            )
        )

    def _refuse(self, exam: str | None, reader: str, number: str, reason: str, remedy: str) -> None:
        self.problems.append((exam, self._label_set.id, reader, number, reason, remedy))


_AGAIN = "Open the exam in Label Studio, answer what is missing or mark the words again, and press Update."
_CHANGED = "Push again, and let the new report be read."
_GONE = "Withdraw the exam from the server, or run `reportlabel run` again."


def origin_of(value: str, predicted: str | None) -> str:
    """What the reader did to the answer that the screen showed first: confirmed, changed or added.

    Added: nothing was known of the label, or it was not mentioned, and the reader says something of it.
    """
    if value == predicted:
        return "confirmed"
    return "added" if predicted in (None, NOT_MENTIONED) else "changed"


def _user(annotation: Mapping[str, Any]) -> str:
    by = annotation.get("completed_by")
    return str(by.get("id") if isinstance(by, Mapping) else by)


def _time(text: str) -> datetime:
    """A time of the server as UTC without a zone."""
    return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)
