"""An exam as a task of the review screen: the report, its linked records, and what the labels say so far.

A task holds no patient id and no site. Its prediction answers every question of the screen, so that a reader only
changes what is wrong; the words behind each answer are coloured in the report. What is sent and what comes back is
checked by the same function, `read_answers`, because the server checks nothing.
"""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from reportlabel.errors import InputError
from reportlabel.ingest.assemble import reports_that_count
from reportlabel.review.config import (
    COMMENT,
    OUTCOME,
    REPORT,
    SPAN,
    SPAN_FINDING,
    Control,
    Screen,
    controls,
    doubt_class,
)
from reportlabel.rulebook.load import Rulebook
from reportlabel.rulebook.models import LabelSet
from reportlabel.store import Workspace

MODEL_VERSION = "reportlabel"
"""Of predictions on the server. It never changes: Label Studio fills in only predictions of the project's one version.
What made a label stands in the task (``made_by``)."""

NOT_MENTIONED = "not_mentioned"
Json = dict[str, Any]

PROBLEMS = pl.Schema(
    [
        ("exam_id", pl.String),
        ("label_set", pl.String),
        ("reader", pl.String),
        ("annotation_id", pl.String),
        ("reason", pl.String),
        ("remedy", pl.String),
    ]
)
"""Exams that were not sent, and annotations that were not taken: why, and what to do. Reasons hold no words of a
report."""


@dataclass(frozen=True)
class ReviewTask:
    """An exam ready to be sent.

    Attributes:
        content: hash of all that a reader sees; text: hash of the report as it is stored.
        data: fields of the task. result: of the prediction. score: of its most doubtful answer.
        predicted: label -> value.
    """

    exam_id: str
    content: str
    text: str
    data: Json
    result: list[Json]
    score: float
    predicted: dict[str, str]

    def payload(self) -> Json:
        """The task as the server takes it."""
        prediction = {"model_version": MODEL_VERSION, "score": self.score, "result": self.result}
        return {"data": self.data, "predictions": [prediction]}


@dataclass(frozen=True)
class ExamTables:
    """What tasks are made of: the tables of some exams, as in `reportlabel.schema`; labels of one label set."""

    exams: pl.DataFrame
    reports: pl.DataFrame
    labels: pl.DataFrame
    links: pl.DataFrame
    records: pl.DataFrame


def read_exams(
    workspace: Workspace, exam_ids: Sequence[str], label_set: str, *, versions: Mapping[str, int] | None = None
) -> ExamTables:
    """The tables of these exams as the last finished run left them, or as ``versions`` says.

    Raises:
        InputError: no run has finished yet.
    """
    versions = workspace.versions() if versions is None else versions

    def _of(name: str, column: str, ids: Sequence[str]) -> pl.DataFrame:
        return workspace.scan(name, version=versions.get(name)).filter(pl.col(column).is_in(list(ids))).collect()

    links = _of("links", "exam_id", exam_ids)
    return ExamTables(
        exams=_of("exams", "exam_id", exam_ids),
        reports=reports_that_count(_of("reports", "exam_id", exam_ids)),
        labels=_of("labels", "exam_id", exam_ids).filter(pl.col("label_set") == label_set),
        links=links,
        records=_of("records", "record_id", links["record_id"].unique().to_list()),
    )


def review_tasks(
    tables: ExamTables,
    wanted: pl.DataFrame,
    label_set: LabelSet,
    rules: Rulebook,
    screen: Screen,
    *,
    reason_names: Mapping[str, str] | None = None,
) -> tuple[list[ReviewTask], pl.DataFrame]:
    """Tasks of the exams that are to be read, and those that cannot be sent (`PROBLEMS`).

    Args:
        wanted: exam_id, label_set, reason, priority (1 is read first); optional: findings (list, most doubtful first),
            notes (list beside findings, shown with them). Rows of other label sets are left out.
        reason_names: reason -> its name on the screen.

    Raises:
        InputError: ``wanted`` lacks a column or names an exam twice.
        ConfigError: see `reportlabel.review.config.controls`.
    """
    missing = [name for name in ("exam_id", "label_set", "reason", "priority") if name not in wanted.columns]
    if missing:
        raise InputError(f"exams to review: column {', '.join(missing)} is missing")
    rows = wanted.filter(pl.col("label_set") == label_set.id).sort("priority", "exam_id")
    if rows["exam_id"].is_duplicated().any():
        raise InputError("exams to review: an exam is named twice for one label set; give each exam once")
    maker = _Maker(controls(label_set, rules, screen), label_set, screen, reason_names or {})
    exams = {row["exam_id"]: row for row in tables.exams.iter_rows(named=True)}
    reports = {row["exam_id"]: row for row in tables.reports.iter_rows(named=True)}
    labels = _by(tables.labels, "exam_id")
    records = _by(tables.links.join(tables.records, on="record_id", how="inner", suffix="_record"), "exam_id")
    tasks: list[ReviewTask] = []
    problems: list[tuple[str | None, ...]] = []
    for row in rows.iter_rows(named=True):
        exam = row["exam_id"]
        if exam not in exams or exam not in reports:
            reason = "The exam has no report that counts."
        elif exam not in labels:
            reason = "The exam has no labels of this label set."
        else:
            task = maker.task(row, exams[exam], reports[exam]["text"], labels[exam], records.get(exam, []))
            found = read_answers(task.result, maker.asked, task.data["text"], with_outcome=False).problems
            if not found:
                tasks.append(task)
                continue
            reason = found[0]
        problems.append((exam, label_set.id, None, None, reason, "Run `reportlabel run` again, then push."))
    return tasks, pl.DataFrame(problems, schema=PROBLEMS, orient="row")


def _by(table: pl.DataFrame, column: str) -> dict[str, list[Json]]:
    groups: dict[str, list[Json]] = {}
    for row in table.iter_rows(named=True):
        groups.setdefault(row[column], []).append(row)
    return groups


def text_hash(text: str) -> str:
    """The hash of a report by which it is known whether it changed."""
    return hashlib.sha256(text.encode()).hexdigest()


def canonical(value: object) -> str:
    """JSON that is the same for the same value."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


# --- line ends: the screen shows \r\n as an empty line


def shown_text(text: str) -> str:
    """The report as the screen shows it: every line end is one line feed."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def shown_offset(text: str, offset: int) -> int:
    """An offset into the stored report as an offset into the shown one."""
    return len(shown_text(text[:offset])) if "\r" in text else offset


def stored_offset(text: str, offset: int) -> int:
    """An offset into the shown report as an offset into the stored one."""
    if "\r" not in text:
        return offset
    at = 0
    for _ in range(offset):
        at += 2 if text.startswith("\r\n", at) else 1
    return at


# --- a task


@dataclass(frozen=True)
class _Maker:
    asked: tuple[Control, ...]
    label_set: LabelSet
    screen: Screen
    reason_names: Mapping[str, str]

    def task(self, row: Json, exam: Json, stored: str, labels: Sequence[Json], records: Sequence[Json]) -> ReviewTask:
        by_finding = {label["finding"]: label for label in labels}
        predicted = {one.id: str(by_finding[one.id]["value"]) for one in self.asked if one.id in by_finding}
        certain = {one.id: certainty(by_finding[one.id]) for one in self.asked if one.id in by_finding}
        text = shown_text(stored)
        result = [*self._answers(predicted, certain), *self._spans(stored, text, by_finding)]
        score = min(certain.values(), default=0.0)
        reason = str(row["reason"])
        seen = {
            "text": text,
            "summary": self._summary(exam),
            "check_html": self._check(row, by_finding, certain),
            "records_html": self._records(records, by_finding),
            "reason": self.reason_names.get(reason, reason),
        }
        content = hashlib.sha256(canonical([seen, result]).encode()).hexdigest()
        first = labels[0]
        data = seen | {
            "exam_id": row["exam_id"],
            "label_set": self.label_set.id,
            # as text, so that the server sorts it: it knows no numbers in a task
            "priority": f"{int(row['priority']):06d}",
            "content_hash": content,
            "text_hash": text_hash(stored),
            "made_by": f"rules {str(first['rules_hash'])[:12]}, model {first['model_version']}",
        }
        return ReviewTask(row["exam_id"], content, data["text_hash"], data, result, score, predicted)

    def _answers(self, predicted: Mapping[str, str], certain: Mapping[str, float]) -> list[Json]:
        answers: list[Json] = []
        for one in self.asked:
            value = predicted.get(one.id)
            if value is None or (one.kind == "text" and value == NOT_MENTIONED):
                continue
            answers.append(
                {
                    "id": f"a_{one.id}",
                    "from_name": one.id,
                    "to_name": REPORT,
                    "type": "textarea" if one.kind == "text" else "choices",
                    "score": certain[one.id],
                    "value": {"text": [value]} if one.kind == "text" else {"choices": [value]},
                }
            )
        return answers

    def _spans(self, stored: str, text: str, labels: Mapping[str, Json]) -> list[Json]:
        """The words behind the labels; words behind several labels are one region."""
        order = {one.id: at for at, one in enumerate(self.asked)}
        kinds = {one.id: one.kind for one in self.asked}
        places: dict[tuple[int, int, str], set[str]] = {}
        for finding, label in labels.items():
            if finding not in order:
                continue
            for vote in label["evidence"]:
                span = _span_of(vote)
                if span is not None:
                    status = vote["value"] if kinds[finding] == "status" else "present"
                    if status != NOT_MENTIONED:
                        places.setdefault((*span, status), set()).add(finding)
        regions: list[Json] = []
        for number, ((start, end, status), findings) in enumerate(sorted(places.items())):
            first, last = shown_offset(stored, start), shown_offset(stored, end)
            where = {"start": first, "end": last, "text": text[first:last]}
            region = {"id": f"s{number}", "to_name": REPORT}
            named = [[finding] for finding in sorted(findings, key=order.__getitem__)]
            regions.append(region | {"from_name": SPAN, "type": "labels", "value": {**where, "labels": [status]}})
            regions.append(
                region | {"from_name": SPAN_FINDING, "type": "taxonomy", "value": {**where, "taxonomy": named}}
            )
        return regions

    def _summary(self, exam: Json) -> str:
        age = exam["age_years"]
        person = [
            f"{age}{self.screen.units['age']}" if age is not None else "",
            self.screen.sexes.get(exam["sex"] or "", ""),
        ]
        name = exam["order_name"] or exam["protocol_name"] or exam["body_part"]
        return "　".join(part for part in (exam["modality"], name, " ".join(filter(None, person))) if part)

    def _check(self, row: Json, labels: Mapping[str, Json], certain: Mapping[str, float]) -> str:
        """What is doubtful: finding, what is filled in, who says what; disputes of readers, then the least sure."""
        texts = self.screen.texts
        named = [finding for finding in row.get("findings") or () if finding in labels]
        notes = dict(zip(row.get("findings") or (), row.get("notes") or (), strict=False))
        others = sorted(
            (
                one.id
                for one in self.asked
                if one.kind == "status"
                and one.id in labels
                and one.id not in named
                and (labels[one.id]["conflict"] or certain[one.id] < self.screen.doubtful.below)
            ),
            key=lambda finding: (not labels[finding]["conflict"], certain[finding]),
        )
        chosen = [*named, *others][: self.screen.doubtful.at_most]
        doubtful = sorted(chosen, key=lambda finding: (finding not in notes, certain[finding]))
        asked = {one.id: one for one in self.asked}
        items = [
            self._doubt(asked[finding], labels[finding], certain[finding], notes.get(finding)) for finding in doubtful
        ]
        reason = self.reason_names.get(str(row["reason"]), str(row["reason"]))
        head = f"<div><b>{_escape(texts.check_first)}</b>　{_escape(texts.reason)}：{_escape(reason)}</div>"
        if not items:
            return f"{head}<div>{_escape(texts.nothing_doubtful)}</div>"
        return f'{head}<table style="font-size:13px">{"".join(items)}</table>'

    def _doubt(self, one: Control, label: Json, certain: float, note: str | None) -> str:
        status = next((status for status in self.screen.statuses if status.id == label["value"]), None)
        colour, background = (status.colour, status.background) if status else ("#111827", "#f3f4f6")
        sources: dict[str, list[str]] = {}
        for vote in label["evidence"]:
            said = sources.setdefault(vote["kind"], [])
            if vote["value"] not in said:
                said.append(vote["value"])
        who = "　".join(
            f"{self.screen.sources.get(kind, kind)}：{'・'.join(self.screen.status_name(value) for value in said)}"
            for kind, said in sources.items()
        )
        key = f" [{one.key}]" if one.key else ""
        cells = [
            f"<b>{_escape(one.name + key)}</b>",
            f'<span style="padding:0 6px;border-radius:4px;color:{colour};background:{background}">'
            f"{_escape(self.screen.status_name(label['value']))}</span>",
            # never quite sure: the number is an estimate
            f"{_escape(self.screen.texts.certainty)} {min(certain, 0.99):.0%}",
            f"<b>{_escape(self.screen.texts.conflict)}</b>" if label["conflict"] else "",
            _escape(who),
            _escape(note or ""),
        ]
        row = "".join(f'<td style="padding:1px 12px 1px 0">{cell}</td>' for cell in cells)
        return f'<tr class="{doubt_class(one.id)}">{row}</tr>'

    def _records(self, records: Sequence[Json], labels: Mapping[str, Json]) -> str:
        """Linked records as a table, by kind; those that voted first, the nearest to the exam first."""
        if not records:
            return f"<div>{_escape(self.screen.texts.no_records)}</div>"
        names = {one.id: one.name for one in self.asked}
        said: dict[str, dict[str, str]] = {}
        for finding, label in labels.items():
            for vote in label["evidence"]:
                if vote["kind"] == "record" and finding in names:
                    said.setdefault(vote["evidence"], {})[names[finding]] = vote["value"]
        once = {record["record_id"]: record for record in records}.values()
        kinds = [kind.id for kind in self.screen.kinds]
        ordered = sorted(
            once,
            key=lambda one: (
                kinds.index(one["kind"]) if one["kind"] in kinds else len(kinds),
                one["record_id"] not in said,
                abs(one["delta_days"]),
                one["record_id"],
            ),
        )
        kind_names = {kind.id: kind.name for kind in self.screen.kinds}
        rows, last = [], ""
        for record in ordered:
            kind = str(record["kind"])
            heading = kind_names.get(kind, kind) if kind != last else ""
            last = kind
            rows.append(self._record(heading, record, said.get(record["record_id"], {})))
        return f'<table style="border-collapse:collapse;width:100%;font-size:13px">{"".join(rows)}</table>'

    def _record(self, heading: str, record: Json, said: Mapping[str, str]) -> str:
        texts = self.screen.texts
        days = int(record["delta_days"])
        when = texts.same_day if days == 0 else (texts.before if days < 0 else texts.after).format(days=abs(days))
        cells = [f"<b>{_escape(heading)}</b>", _escape(when)]
        if record["available_at_reading"] is False:
            cells[1] += f'<br><span style="color:#6b7280">{_escape(texts.not_yet_known)}</span>'
        words = [f"<b>{_escape(record['name'] or record['code'] or '')}</b>"]
        if record["value"] is not None:
            number = f"{record['value']:g} {record['unit'] or ''} {record['flag'] or ''}".strip()
            words.append(f"<b>{_escape(number)}</b>" if record["flag"] else _escape(number))
        if record["text"]:
            words.append(_escape(shown_text(record["text"])).replace("\n", "<br>"))
        cells.append("　".join(words))
        votes = [f"{finding}：{self.screen.status_name(value)}" for finding, value in said.items()]
        cells.append(f"{_escape(texts.evidence_for)} {_escape('、'.join(votes))}" if votes else "")
        # a record that supports a label stands out, and its reason stands at the right
        row_style = ' style="background:#fffbeb"' if votes else ""
        cell = '<td style="border-top:1px solid #e5e7eb;padding:3px 6px;vertical-align:top{}">{}</td>'
        widths = (";white-space:nowrap", ";white-space:nowrap", "", ";color:#92400e")
        return f"<tr{row_style}>" + "".join(map(cell.format, widths, cells)) + "</tr>"


def certainty(label: Mapping[str, Any]) -> float:
    """How sure a label is, from 0 to 1: the probability of what it says; one half where that is not known.

    Of a finding that is uncertain nothing is sure, and of a label that is no status (size, side) the probability is
    not known.
    """
    probability: float | None = label["p_present"]
    if probability is None:
        return 1.0 if label["value"] == NOT_MENTIONED else 0.5
    if label["value"] == "uncertain":
        return 0.5
    return round(probability if label["value"] == "present" else 1.0 - probability, 3)


def _span_of(vote: Mapping[str, Any]) -> tuple[int, int] | None:
    """The characters behind a vote; None where it rests on a record."""
    if vote["kind"] == "record":
        return None
    start, _, end = str(vote["evidence"] or "").partition("-")
    return (int(start), int(end)) if start.isdigit() and end.isdigit() and int(start) < int(end) else None


def _escape(text: str) -> str:
    return html.escape(text, quote=True)


# --- what comes back


@dataclass
class Answers:
    """What a result says.

    Attributes:
        values: label -> value, of every label of the screen. spans: label -> places in the shown text.
        outcome, comment: of the exam. problems: why it cannot be used; empty where it can.
    """

    values: dict[str, str] = field(default_factory=dict)
    spans: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    outcome: str = ""
    comment: str = ""
    problems: list[str] = field(default_factory=list)


def read_answers(
    result: Iterable[Mapping[str, Any]], asked: Sequence[Control], text: str, *, with_outcome: bool = True
) -> Answers:
    """What a prediction or an annotation says, and all that is wrong with it.

    Args:
        text: the report as the screen shows it. with_outcome: whether the exam must be judged as a whole.
    """
    known = {one.id: one for one in asked}
    answers = Answers()
    problems = answers.problems
    regions: dict[str, tuple[int, int]] = {}
    named: dict[str, list[str]] = {}
    for item in result:
        name, value = item.get("from_name"), item.get("value")
        if not isinstance(value, Mapping):
            problems.append("An answer has no value.")
        elif name in (SPAN, SPAN_FINDING):
            place = (value.get("start"), value.get("end"))
            start, end = place
            if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(text)):
                problems.append("Coloured words lie outside the report.")
            elif text[start:end] != value.get("text"):
                problems.append("Coloured words are not those of the report at their place.")
            elif name == SPAN:
                regions[str(item.get("id"))] = (start, end)
            else:
                leaves = [path[-1] for path in value.get("taxonomy") or [] if path]
                if any(leaf not in known for leaf in leaves):
                    problems.append("Coloured words belong to a finding that the label set does not have.")
                named.setdefault(str(item.get("id")), []).extend(leaf for leaf in leaves if leaf in known)
        elif name == OUTCOME:
            answers.outcome = str((value.get("choices") or [""])[0])
        elif name == COMMENT:
            answers.comment = "\n".join(value.get("text") or [])
        elif name not in known:
            problems.append("An answer belongs to a finding that the label set does not have.")
        else:
            _take(answers, known[name], value)
    for one in asked:
        if one.id not in answers.values:
            if one.kind == "text":
                answers.values[one.id] = NOT_MENTIONED
            else:
                problems.append(f"{one.id} is not answered.")
    for region, place in regions.items():
        if not named.get(region):
            problems.append("Coloured words belong to no finding.")
        for finding in named.get(region, ()):
            answers.spans.setdefault(finding, []).append(place)
    if with_outcome and not answers.outcome:
        problems.append("The exam as a whole is not judged.")
    return answers


def _take(answers: Answers, one: Control, value: Mapping[str, Any]) -> None:
    given = value.get("text") if one.kind == "text" else value.get("choices")
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or len(given) != 1 or not isinstance(given[0], str) or not given[0].strip():
        answers.problems.append(f"{one.id} has not exactly one answer.")
    elif one.answers and given[0] not in one.answers:
        answers.problems.append(f"{one.id} has an answer that the screen does not offer.")
    elif one.id in answers.values:
        answers.problems.append(f"{one.id} is answered twice.")
    else:
        answers.values[one.id] = given[0].strip()
