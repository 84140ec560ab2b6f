"""How fast exams are pushed and answers are pulled, and how fast the server is by itself.

    python -m tests.bench.review_speed WORKSPACE [--exams 5000] [--environment .label-studio/venv]

WORKSPACE was labelled by `reportlabel run`; of fewer exams copies are made under other ids. The same bodies are sent by
plain REST calls first, and the same tasks with their answers are fetched by plain REST calls: that is the floor. Floor
and measurement use projects of their own on one server, which is started for it.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
from rich.console import Console

from reportlabel.review.client import Client
from reportlabel.review.config import OUTCOME, REPORT, SETTLED, load_screen
from reportlabel.review.ledger import Ledger, Sent
from reportlabel.review.pull import pull
from reportlabel.review.push import BATCH, push, setup_project
from reportlabel.review.server import install, serve
from reportlabel.review.tasks import ExamTables, ReviewTask, read_exams, review_tasks
from reportlabel.rulebook.load import find_label_set, load_rules
from reportlabel.run import open_workspace
from reportlabel.store import Workspace

_JUDGED = {
    "id": "o",
    "from_name": OUTCOME,
    "to_name": REPORT,
    "type": "choices",
    "value": {"choices": [SETTLED]},
}
_PAGE = 250


def copies(workspace: Workspace, folder: Path, label_set: str, exams: int) -> tuple[Workspace, ExamTables]:
    """A workspace of so many exams of a label set: those of another, again and again under other ids."""
    labels = workspace.scan("labels", version=workspace.versions()["labels"])
    of_set = labels.filter(pl.col("label_set") == label_set).select(pl.col("exam_id").unique().sort())
    ids = of_set.collect()["exam_id"].head(exams).to_list()
    tables = read_exams(workspace, ids, label_set)

    def _again(table: pl.DataFrame) -> pl.DataFrame:
        keys = [name for name in ("exam_id", "report_id") if name in table.columns]
        return pl.concat(
            [table.with_columns(pl.col(key) + f"-{copy}" for key in keys) for copy in range(-(-exams // len(ids)))]
        )

    made = ExamTables(
        exams=_again(tables.exams),
        reports=_again(tables.reports),
        labels=_again(tables.labels),
        links=_again(tables.links),
        records=tables.records,
    )
    new = open_workspace(folder, create=True, parts=1)
    for name in ("exams", "reports", "labels"):
        new.replace_part(name, 0, getattr(made, name))
    new.take_snapshot("bench", datetime(2026, 1, 1))
    return new, made


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what the work gave."""
    began = time.perf_counter()
    done = work()
    return time.perf_counter() - began, done


def import_answered(raw: httpx.Client, project: int, tasks: list[ReviewTask]) -> list[int]:
    """Make tasks that somebody has answered; returns their numbers."""
    made: list[int] = []
    for at in range(0, len(tasks), BATCH):
        bodies = [
            task.payload() | {"annotations": [{"result": [*task.result, _JUDGED], "lead_time": 9.5}]}
            for task in tasks[at : at + BATCH]
        ]
        answer = raw.post(f"/api/projects/{project}/import?return_task_ids=true", json=bodies)
        made += answer.raise_for_status().json()["task_ids"]
    return made


def fetch(raw: httpx.Client, project: int, tasks: int) -> int:
    """Fetch all tasks with their answers, page by page; returns how many came."""
    fetched = page = 0
    while fetched < tasks:
        page += 1
        answer = raw.get("/api/tasks", params={"project": project, "fields": "all", "page": page, "page_size": _PAGE})
        fetched += len(answer.raise_for_status().json()["tasks"])
    return fetched


def measure(source: Path, *, label_set: str, exams: int, environment: Path, console: Console) -> None:
    """Print the seconds of each step."""
    rules = load_rules()
    screen, chosen_set = load_screen(rules.folder), find_label_set(rules, label_set)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = int(one.getsockname()[1])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workspace, tables = copies(open_workspace(source), folder / "workspace", label_set, exams)
        wanted = (
            tables.exams.select(pl.col("exam_id").sort().head(exams))
            .with_row_index("priority", offset=1)
            .with_columns(label_set=pl.lit(label_set), reason=pl.lit("audit"))
        )
        seconds, (tasks, problems) = timed(lambda: review_tasks(tables, wanted, chosen_set, rules, screen))
        assert problems.is_empty()
        bodies = [
            json.dumps([task.payload() for task in tasks[at : at + BATCH]], ensure_ascii=False).encode()
            for at in range(0, len(tasks), BATCH)
        ]
        console.print(
            f"{len(tasks):,} tasks made in {seconds:.1f} s, {sum(map(len, bodies)) / len(tasks):,.0f} bytes each"
        )
        server = serve(folder / "server", port=port, program=install(environment, tell=console.print))
        headers = {"Authorization": f"Token {server.login.token}", "Content-Type": "application/json"}
        try:
            with (
                Client(server.url, server.login.token) as client,
                httpx.Client(base_url=server.url, headers=headers, timeout=300, trust_env=False) as raw,
                Ledger(workspace.folder) as ledger,
            ):
                # the same project for both, but for its name
                floor, _ = setup_project(client, ledger, chosen_set, rules, screen, name="floor")
                ours, _ = setup_project(client, ledger, chosen_set, rules, screen, name="ours")
                path = f"/api/projects/{floor.number}/import?return_task_ids=true"
                plain, _ = timed(lambda: [raw.post(path, content=one).raise_for_status() for one in bodies])
                seconds, pushed = timed(lambda: push(client, ledger, ours, tasks))
                assert pushed.new == len(tasks)
                console.print(f"push: {seconds:.1f} s; plain REST {plain:.1f} s; {seconds / plain:.2f} times")
                seconds, pushed = timed(lambda: push(client, ledger, ours, tasks))
                assert pushed.unchanged == len(tasks)
                console.print(f"push again: {seconds:.1f} s")
                read, _ = setup_project(client, ledger, chosen_set, rules, screen, name="read")
                sent = [Sent(t.exam_id, t.content, t.text, None, "sending", t.predicted) for t in tasks]
                ledger.note_sending(read, sent, at=datetime.now(UTC))
                numbers = import_answered(raw, read.number, tasks)
                ledger.note_sent(read, dict(zip((task.exam_id for task in tasks), numbers, strict=True)))
                plain, _ = timed(lambda: fetch(raw, read.number, len(tasks)))
                seconds, pulled = timed(lambda: pull(client, ledger, read, workspace, chosen_set, rules, screen))
                assert (pulled.annotations, pulled.problems.height) == (len(tasks), 0)
                console.print(
                    f"pull: {seconds:.1f} s, {pulled.readings:,} readings; plain REST {plain:.1f} s; "
                    f"{seconds / plain:.2f} times"
                )
        finally:
            server.stop()


def main() -> int:
    """The command line of this module; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.review_speed", description=__doc__)
    parser.add_argument("workspace", type=Path, help="made by `reportlabel run`")
    parser.add_argument("--label-set", default="lung_ct")
    parser.add_argument("--exams", type=int, default=5000)
    environment = os.environ.get("REPORTLABEL_LABEL_STUDIO", ".label-studio/venv")
    parser.add_argument("--environment", type=Path, default=Path(environment), help="made where it is not there")
    given = parser.parse_args()
    measure(
        given.workspace,
        label_set=given.label_set,
        exams=given.exams,
        environment=given.environment,
        console=Console(width=160),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
