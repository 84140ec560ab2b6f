"""A small study, and a review server in memory that answers as Label Studio 1.23.2 was seen to answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from reportlabel.review.client import Client
from reportlabel.review.config import Screen, load_screen
from reportlabel.review.ledger import Ledger
from reportlabel.review.tasks import ReviewTask, read_exams, review_tasks
from reportlabel.rulebook.load import Rulebook, load_rules
from reportlabel.rulebook.models import LabelSet
from reportlabel.run import open_workspace
from reportlabel.schema import EXAM_LABELS, EXAMS, LINKS, RECORDS, REPORTS
from reportlabel.store import Workspace

TOKEN = "0123456789abcdef0123456789abcdef01234567"
URL = "http://127.0.0.1:18999"
TEXTS = {
    "X1": "右上葉に結節を認める。\n胸水なし。",
    "X2": "𠮷田式分類で肺炎の疑い。\r\n胸水を認める。",
    "X3": "異常を認めない。",
}
MENTIONED = {
    "X1": {"nodule_or_mass": ("present", "4-6", 0.97), "pleural_effusion": ("absent", "12-14", 0.03)},
    "X2": {"pneumonia": ("uncertain", "6-8", 0.55), "pleural_effusion": ("present", "14-16", 0.6)},
    "X3": {},
}


@pytest.fixture(scope="session")
def rules() -> Rulebook:
    return load_rules()


@pytest.fixture(scope="session")
def screen(rules: Rulebook) -> Screen:
    return load_screen(rules.folder)


@pytest.fixture(scope="session")
def label_set(rules: Rulebook) -> LabelSet:
    return rules.label_sets["lung_ct"]


def rows(schema: pl.Schema, *given: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame([dict.fromkeys(schema) | one for one in given], schema=schema, orient="row")


def labels_of(exam: str, label_set: LabelSet) -> list[dict[str, Any]]:
    made = []
    for entry in [one.id for one in label_set.findings] + [one.id for one in label_set.values]:
        value, evidence, p = MENTIONED[exam].get(entry, ("not_mentioned", None, 0.05))
        votes = [] if evidence is None else [("rule", "rule", value, evidence)]
        if exam == "X2" and entry == "pneumonia":
            votes.append(("record/lab_crp", "record", "present", "C1"))
        made.append(
            {
                "exam_id": exam,
                "label_set": label_set.id,
                "finding": entry,
                "value": value,
                "p_present": None if entry.startswith("primary") else p,
                "conflict": exam == "X2" and entry == "pneumonia",
                "n_votes": len(votes),
                "evidence": [
                    dict(zip(("function_id", "kind", "value", "evidence"), vote, strict=True)) for vote in votes
                ],
                "rules_hash": "f" * 64,
                "model_version": "rules",
            }
        )
    return made


@dataclass
class Study:
    """A workspace of three exams, its ledger, and what its exams look like as tasks."""

    workspace: Workspace
    ledger: Ledger
    rules: Rulebook
    screen: Screen
    label_set: LabelSet

    def wanted(self, *exams: str) -> pl.DataFrame:
        return pl.DataFrame(
            [(exam, self.label_set.id, "audit", at) for at, exam in enumerate(exams or TEXTS, start=1)],
            schema={"exam_id": pl.String, "label_set": pl.String, "reason": pl.String, "priority": pl.Int32},
            orient="row",
        )

    def tasks(self, *exams: str) -> list[ReviewTask]:
        wanted = self.wanted(*exams)
        tables = read_exams(self.workspace, wanted["exam_id"].to_list(), self.label_set.id)
        made, problems = review_tasks(tables, wanted, self.label_set, self.rules, self.screen)
        assert problems.is_empty()
        return made

    def change_report(self, exam: str, text: str) -> None:
        reports = self.workspace.read("reports")
        changed = pl.when(pl.col("exam_id") == exam).then(pl.lit(text)).otherwise(pl.col("text"))
        self.workspace.replace_part("reports", 0, reports.with_columns(changed.alias("text")))
        labels = self.workspace.read("labels")
        none: pl.Expr = pl.lit([], dtype=EXAM_LABELS["evidence"])
        evidence = pl.when(pl.col("exam_id") == exam).then(none).otherwise(pl.col("evidence"))
        self.workspace.replace_part("labels", 0, labels.with_columns(evidence.alias("evidence")))
        self.workspace.take_snapshot("second", datetime(2026, 1, 2))


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory, label_set: LabelSet) -> Path:
    """The workspace on disk; tests work on copies."""
    workspace = open_workspace(tmp_path_factory.mktemp("written") / "study", create=True, parts=1)
    exams = [
        {
            "exam_id": exam,
            "patient_id": f"P{exam}",
            "site": "aoba",
            "modality": "CT",
            "order_name": "胸部CT",
            "age_years": 70,
            "sex": "F",
        }
        for exam in TEXTS
    ]
    reports = [
        {"report_id": f"R{exam}", "exam_id": exam, "version": 1, "status": "final", "text": text}
        for exam, text in TEXTS.items()
    ]
    labels = [label for exam in TEXTS for label in labels_of(exam, label_set)]
    record = {
        "record_id": "C1",
        "kind": "lab",
        "patient_id": "PX2",
        "name": "CRP <高感度>",
        "value": 5.2,
        "unit": "mg/dL",
        "flag": "H",
    }
    link = {"exam_id": "X2", "record_id": "C1", "rule_id": "lab_week", "kind": "lab", "delta_days": -1}
    for name, table in (
        ("exams", rows(EXAMS, *exams)),
        ("reports", rows(REPORTS, *reports)),
        ("labels", rows(EXAM_LABELS, *labels)),
        ("records", rows(RECORDS, record)),
        ("links", rows(LINKS, link | {"available_at_reading": True})),
    ):
        workspace.replace_part(name, 0, table)
    workspace.take_snapshot("first", datetime(2026, 1, 1))
    return workspace.folder


@pytest.fixture
def study(tmp_path: Path, written: Path, rules: Rulebook, screen: Screen, label_set: LabelSet) -> Iterator[Study]:
    workspace = open_workspace(Path(shutil.copytree(written, tmp_path / "study")))
    with Ledger(workspace.folder) as ledger:
        yield Study(workspace, ledger, rules, screen, label_set)


@dataclass
class Server:
    """Label Studio in memory. ``before`` sees every request and may answer or fail in its place."""

    release: str = "1.23.2"
    projects: dict[int, dict[str, Any]] = field(default_factory=dict)
    tasks: dict[int, dict[str, Any]] = field(default_factory=dict)
    views: list[dict[str, Any]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    before: Callable[[httpx.Request], httpx.Response | None] | None = None
    after: Callable[[httpx.Request], None] | None = None
    clock: int = 0

    def __post_init__(self) -> None:
        self._numbers = count(1)

    def client(self, **options: Any) -> Client:
        return Client(
            URL,
            options.pop("token", TOKEN),
            transport=httpx.MockTransport(self.answer),
            sleep=lambda _: None,
            **options,
        )

    def now(self) -> str:
        self.clock += 1
        return datetime.fromtimestamp(1_800_000_000 + self.clock, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def annotate(self, exam: str, result: list[dict[str, Any]], *, of: int | None = None) -> dict[str, Any]:
        """A reader submits, or with ``of`` updates, an annotation."""
        task = next(one for one in self.tasks.values() if one["data"]["exam_id"] == exam)
        now = self.now()
        known = next((one for one in task["annotations"] if one["id"] == of), None)
        if known is None:
            known = {
                "id": next(self._numbers),
                "created_at": now,
                "completed_by": 7,
                "was_cancelled": False,
                "lead_time": 12.5,
            }
            task["annotations"].append(known)
        known.update(result=result, updated_at=now)
        task["updated_at"] = now
        return known

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.rstrip("/")
        self.calls.append(f"{request.method} {path}")
        if self.before is not None and (given := self.before(request)) is not None:
            return given
        if request.headers.get("authorization") != f"Token {TOKEN}":
            return httpx.Response(401, json={"detail": "Invalid token."})
        made = self._answer(request, path)
        if self.after is not None:
            self.after(request)
        return made

    def _answer(self, request: httpx.Request, path: str) -> httpx.Response:
        query, method = request.url.params, request.method
        body = json.loads(request.content) if request.content else None
        match path.split("/")[2:], method:
            case ["version"], "GET":
                return httpx.Response(200, json={"release": self.release})
            case ["projects"], "GET":
                return httpx.Response(200, json={"results": list(self.projects.values()), "next": None})
            case ["projects"], "POST":
                number = next(self._numbers)
                self.projects[number] = body | {"id": number}
                return httpx.Response(201, json={"id": number})
            case ["projects", number], _:
                project = self.projects.get(int(number))
                if project is None:
                    return httpx.Response(404, json={})
                project.update(body or {})
                here = [task for task in self.tasks.values() if task["project"] == int(number)]
                return httpx.Response(200, json=project | {"task_number": len(here)})
            case ["dm", "views"], "GET":
                return httpx.Response(200, json=self.views)
            case ["dm", "views", *_], _:
                self.views.append({"id": next(self._numbers), "data": body["data"]})
                return httpx.Response(201, json={})
            case ["dm", "actions"], "POST":
                for number in body["selectedItems"]["included"]:
                    self.tasks.pop(number, None)
                return httpx.Response(200, json={})
            case ["projects", project, "import"], "POST":
                made = []
                for task in body:
                    number = next(self._numbers)
                    now = self.now()
                    self.tasks[number] = {"id": number, "project": int(project), "annotations": [], **task}
                    self.tasks[number]["updated_at"] = now
                    made.append(number)
                return httpx.Response(201, json={"task_ids": made, "prediction_count": len(made)})
            case ["tasks"], "GET":
                return self._list(query)
            case ["tasks", number], "GET":
                found = self.tasks.get(int(number))
                return httpx.Response(404 if found is None else 200, json=found or {})
            case ["tasks", number], "DELETE":
                return httpx.Response(404 if self.tasks.pop(int(number), None) is None else 204)
        return httpx.Response(404, json={})

    def _list(self, query: httpx.QueryParams) -> httpx.Response:
        found = [task for task in self.tasks.values() if task["project"] == int(query["project"])]
        for item in json.loads(query.get("query", "{}")).get("filters", {}).get("items", []):
            name, value = item["filter"].rpartition(":")[2], item["value"]
            for task in list(found):
                held = len(task["annotations"]) if name == "total_annotations" else task[name]
                if not (held > value if item["operator"] == "greater" else held == value):
                    found.remove(task)
        include = query.get("include", "").split(",")
        size, page = int(query["page_size"]), int(query["page"])
        if page > 1 and (page - 1) * size >= len(found):
            return httpx.Response(404, json={})
        shown = []
        for task in found[(page - 1) * size : page * size]:
            one = {name: task[name] for name in ("id", "data", "updated_at") if name in include}
            if "total_annotations" in include:
                one["total_annotations"] = len(task["annotations"])
            if query.get("fields") == "all":
                one["annotations"] = [
                    {name: value for name, value in annotation.items() if name in include}
                    for annotation in task["annotations"]
                ]
            shown.append(one)
        return httpx.Response(200, json={"tasks": shown, "total": len(found)})


@pytest.fixture
def server() -> Server:
    return Server()
