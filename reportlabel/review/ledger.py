"""What was sent to the review server and what came back: an SQLite file in the folder of the workspace.

The server has no unique key, reuses task numbers, and keeps no history; so the truth is kept here. A batch is noted
as `sending` before it is sent and as `sent` when the server has named its tasks: whatever is still `sending` at the
next push was cut off, and only then the server is asked what it has.

Deleted rows are overwritten (``secure_delete``): a withdrawal leaves no byte of an exam.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

import polars as pl

from reportlabel.errors import ConfigError

LEDGER_FILE = Path("review") / "ledger.sqlite"
_FORMAT = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS projects (
  server TEXT NOT NULL, name TEXT NOT NULL, number INTEGER NOT NULL, label_set TEXT NOT NULL, reader TEXT,
  config TEXT NOT NULL, pulled_until TEXT, PRIMARY KEY (server, name));
CREATE TABLE IF NOT EXISTS tasks (
  server TEXT NOT NULL, project INTEGER NOT NULL, exam_id TEXT NOT NULL, content TEXT NOT NULL, text TEXT NOT NULL,
  task INTEGER, state TEXT NOT NULL, predicted TEXT NOT NULL, sent_at TEXT NOT NULL,
  PRIMARY KEY (server, project, exam_id));
CREATE TABLE IF NOT EXISTS annotations (
  sha256 TEXT NOT NULL PRIMARY KEY, server TEXT NOT NULL, project INTEGER NOT NULL, annotation INTEGER NOT NULL,
  exam_id TEXT NOT NULL, label_set TEXT NOT NULL, reader TEXT NOT NULL, outcome TEXT NOT NULL, comment TEXT,
  text TEXT NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL, seconds REAL, result TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS annotations_of_exam ON annotations (exam_id);
CREATE TABLE IF NOT EXISTS people (role TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (role, name));
CREATE TABLE IF NOT EXISTS secret (key TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS chosen (
  exam_id TEXT NOT NULL, label_set TEXT NOT NULL, reason TEXT NOT NULL, priority INTEGER NOT NULL,
  findings TEXT NOT NULL, readers TEXT NOT NULL, PRIMARY KEY (exam_id, label_set));
"""

ANNOTATIONS = pl.Schema(
    [
        ("sha256", pl.String),
        ("annotation_id", pl.String),
        ("exam_id", pl.String),
        ("label_set", pl.String),
        ("reader", pl.String),
        ("outcome", pl.String),
        ("comment", pl.String),
        ("created_at", pl.Datetime("us")),
        ("updated_at", pl.Datetime("us")),
        ("seconds", pl.Float64),
    ]
)
"""One row a version of an annotation that was pulled. ``annotation_id``: numbers of project and annotation.

``outcome``: settled, second_look, unfit, or outdated (an answer to an earlier report). ``seconds``: reading time as the
screen measured it. Times are UTC.
"""


CHOSEN = pl.Schema(
    [
        ("exam_id", pl.String),
        ("label_set", pl.String),
        ("reason", pl.String),
        ("priority", pl.Int32),
        ("findings", pl.List(pl.String)),
        ("readers", pl.List(pl.String)),
    ]
)
"""One row an exam and label set that was given to readers: why, in which order, which findings are doubtful, and to
whom; no reader: to whoever opens it."""

Role = Literal["reader", "adjudicator"]


@dataclass(frozen=True)
class Project:
    """A project of the review server. ``name``: ours; ``number``: the server's; ``reader``: None where all read it."""

    server: str
    name: str
    number: int
    label_set: str
    reader: str | None
    config: str
    pulled_until: str | None = None


@dataclass(frozen=True)
class Sent:
    """An exam in a project. ``content``: hash of all that was sent; ``text``: of the report; ``task``: None while it is
    not known. ``predicted``: label -> value that the screen showed first."""

    exam_id: str
    content: str
    text: str
    task: int | None
    state: str
    predicted: Mapping[str, str]


class Ledger:
    """The ledger of a workspace; one process at a time writes it."""

    def __init__(self, workspace_folder: Path) -> None:
        path = workspace_folder / LEDGER_FILE
        try:
            path.parent.mkdir(exist_ok=True, mode=0o700)
            self._db = sqlite3.connect(path, timeout=10.0, isolation_level=None)
            self._db.execute("PRAGMA secure_delete = ON")
            found = int(self._db.execute("PRAGMA user_version").fetchone()[0])
            if found not in (0, _FORMAT):
                raise ConfigError(f"{path} was written by another version of reportlabel; install that version")
            if not found:
                self._db.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_FORMAT}; COMMIT;")
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"{path} cannot be opened ({type(error).__name__}); is another review command at work?"
            ) from error
        self.path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _all_or_nothing(self) -> Iterator[sqlite3.Connection]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise ConfigError(f"{self.path} is in use by another review command; wait until it is done") from error
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # --- projects

    def keep_project(self, project: Project) -> None:
        """Note a project, or what changed of it; what was pulled stays noted."""
        with self._all_or_nothing() as db:
            db.execute(
                "INSERT INTO projects (server, name, number, label_set, reader, config) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (server, name) DO UPDATE SET number = excluded.number, label_set = excluded.label_set, "
                "reader = excluded.reader, config = excluded.config, "
                "pulled_until = CASE WHEN number = excluded.number THEN pulled_until END",
                (project.server, project.name, project.number, project.label_set, project.reader, project.config),
            )

    def projects(self, server: str | None = None) -> list[Project]:
        """All projects, by name; of one server or of all."""
        rows = self._db.execute(
            "SELECT server, name, number, label_set, reader, config, pulled_until FROM projects "
            "WHERE ?1 IS NULL OR server = ?1 ORDER BY name",
            (server,),
        )
        return [Project(*row) for row in rows]

    def project(self, server: str, name: str) -> Project | None:
        """The project of a name."""
        return next((one for one in self.projects(server) if one.name == name), None)

    def keep_pulled_until(self, project: Project, until: str) -> None:
        """Note up to when annotations were pulled."""
        with self._all_or_nothing() as db:
            db.execute(
                "UPDATE projects SET pulled_until = ? WHERE server = ? AND name = ?",
                (until, project.server, project.name),
            )

    # --- who reads what

    def key(self) -> str:
        """The secret of this workspace by which exams are given to readers; drawn at the first call."""
        with self._all_or_nothing() as db:
            db.execute("INSERT INTO secret SELECT ? WHERE NOT EXISTS (SELECT 1 FROM secret)", (secrets.token_hex(16),))
            return str(db.execute("SELECT key FROM secret").fetchone()[0])

    def add_people(self, role: Role, names: Sequence[str]) -> None:
        """Add readers or adjudicators behind those that are known."""
        with self._all_or_nothing() as db:
            db.executemany("INSERT OR IGNORE INTO people VALUES (?, ?)", [(role, name) for name in names])

    def people(self, role: Role) -> list[str]:
        """Names of readers or adjudicators, in the order in which they came."""
        rows = self._db.execute("SELECT name FROM people WHERE role = ? ORDER BY rowid", (role,))
        return [str(row[0]) for row in rows]

    def keep_chosen(self, chosen: pl.DataFrame) -> None:
        """Note exams that are given to readers (`CHOSEN`); what was noted before stays."""
        rows = [
            (exam, label_set, reason, priority, json.dumps(findings), json.dumps(readers))
            for exam, label_set, reason, priority, findings, readers in chosen.select(CHOSEN.names()).iter_rows()
        ]
        with self._all_or_nothing() as db:
            db.executemany("INSERT OR IGNORE INTO chosen VALUES (?, ?, ?, ?, ?, ?)", rows)

    def chosen(self) -> pl.DataFrame:
        """All exams that were given to readers (`CHOSEN`), the first to be read first."""
        rows = self._db.execute("SELECT * FROM chosen ORDER BY label_set, priority, exam_id")
        table = [(*row[:4], json.loads(row[4]), json.loads(row[5])) for row in rows]
        return pl.DataFrame(table, schema=CHOSEN, orient="row")

    # --- tasks

    def sent(self, project: Project) -> dict[str, Sent]:
        """Exam -> what was sent of it to a project."""
        rows = self._db.execute(
            "SELECT exam_id, content, text, task, state, predicted FROM tasks WHERE server = ? AND project = ?",
            (project.server, project.number),
        )
        return {
            exam: Sent(exam, content, text, task, state, json.loads(predicted))
            for exam, content, text, task, state, predicted in rows
        }

    def note_sending(self, project: Project, tasks: Iterable[Sent], *, at: datetime) -> None:
        """Note what is about to be sent."""
        with self._all_or_nothing() as db:
            db.executemany(
                "INSERT OR REPLACE INTO tasks (server, project, exam_id, content, text, task, state, predicted, "
                "sent_at) VALUES (?, ?, ?, ?, ?, NULL, 'sending', ?, ?)",
                [
                    (
                        project.server,
                        project.number,
                        one.exam_id,
                        one.content,
                        one.text,
                        json.dumps(dict(one.predicted), ensure_ascii=False),
                        at.isoformat(),
                    )
                    for one in tasks
                ],
            )

    def note_sent(self, project: Project, tasks: Mapping[str, int]) -> None:
        """Note which task the server made of each exam."""
        with self._all_or_nothing() as db:
            db.executemany(
                "UPDATE tasks SET task = ?, state = 'sent' WHERE server = ? AND project = ? AND exam_id = ?",
                [(task, project.server, project.number, exam) for exam, task in tasks.items()],
            )

    def forget_tasks(self, project: Project, exams: Sequence[str]) -> None:
        """These exams are not on the server."""
        with self._all_or_nothing() as db:
            db.executemany(
                "DELETE FROM tasks WHERE server = ? AND project = ? AND exam_id = ?",
                [(project.server, project.number, exam) for exam in exams],
            )

    # --- annotations

    def keep_annotations(self, rows: Iterable[Sequence[object]]) -> None:
        """Add versions of annotations (columns of the table, in order); those that are there stay as they are."""
        with self._all_or_nothing() as db:
            db.executemany("INSERT OR IGNORE INTO annotations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def known_annotations(self) -> set[str]:
        """The sha256 of every annotation that was kept."""
        return {row[0] for row in self._db.execute("SELECT sha256 FROM annotations")}

    def pulled_exams(self, project: Project) -> dict[int, str]:
        """Annotation number -> when its newest kept version was written, of one project."""
        rows = self._db.execute(
            "SELECT annotation, max(updated_at) FROM annotations WHERE server = ? AND project = ? GROUP BY annotation",
            (project.server, project.number),
        )
        return dict(rows.fetchall())

    def annotations(self) -> pl.DataFrame:
        """All versions of annotations that were kept (`ANNOTATIONS`), oldest first; the comments are patient data."""
        rows = self._db.execute(
            "SELECT sha256, project || '/' || annotation, exam_id, label_set, reader, outcome, comment, created_at, "
            "updated_at, seconds FROM annotations ORDER BY updated_at, annotation"
        ).fetchall()
        table = pl.DataFrame(
            rows, schema=ANNOTATIONS | {"created_at": pl.String, "updated_at": pl.String}, orient="row"
        )
        times = pl.col("created_at", "updated_at").str.to_datetime(time_unit="us", time_zone="UTC")
        return table.with_columns(times.dt.replace_time_zone(None)).cast(ANNOTATIONS)

    # --- withdrawal

    def where(self, exams: Sequence[str]) -> list[tuple[Project, str, int | None]]:
        """Project, exam and task of exams that were sent; the task is None where the server must be asked."""
        wanted = set(exams)
        return [
            (project, exam, one.task)
            for project in self.projects()
            for exam, one in self.sent(project).items()
            if exam in wanted
        ]

    def forget_exams(self, exams: Sequence[str], *, server: str) -> list[str]:
        """Remove all that is known of exams that are gone from a server, so that no byte of it stays in the file.

        Of other servers that were sent one of them only that stays, until it is gone from there too.

        Returns:
            These other servers.
        """
        one = [(exam,) for exam in exams]
        with self._all_or_nothing() as db:
            for table in ("annotations", "chosen"):
                db.executemany(f"DELETE FROM {table} WHERE exam_id = ?", one)  # noqa: S608
            db.executemany("DELETE FROM tasks WHERE server = ? AND exam_id = ?", [(server, exam) for exam in exams])
            db.executemany("UPDATE tasks SET content = '', text = '', predicted = '{}' WHERE exam_id = ?", one)
        self._db.execute("VACUUM")
        return sorted({project.server for project, _, _ in self.where(exams)})
