"""Review against Label Studio on PostgreSQL and behind https, as in a hospital: the round of a task, and a withdrawal.

It needs PostgreSQL's programs (apt-get install -y postgresql) and the environment of Label Studio that test_review.py
makes. Columns are stored uncompressed here: of compressed ones a search of the files finds nothing, even while the
rows are there.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from reportlabel.errors import ConfigError
from reportlabel.review.client import TOKEN_VARIABLE, Client
from reportlabel.review.command import app
from reportlabel.review.ledger import Ledger
from reportlabel.review.server import LocalServer, Login, server_environment
from reportlabel.run import Options, open_workspace, run
from reportlabel.synth.hospital import Hospital, make_hospital
from tests.flow.test_review import LABEL_SET, OUTCOME, ROOT, Between, files_with, free_port

# one server for all of them
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("label-studio-postgresql")]
TABLES = "task, task_completion, tasks_annotationdraft, prediction"
UNCOMPRESSED = f"""
SELECT format('ALTER TABLE %s ALTER COLUMN %I SET STORAGE EXTERNAL', attrelid::regclass, attname) FROM pg_attribute
WHERE attrelid = ANY (string_to_array('{TABLES}', ', ')::regclass[]) AND attstorage = 'x' AND NOT attisdropped
"""


@dataclass(frozen=True)
class Database:
    """A PostgreSQL server of its own; as the superuser it runs under another account."""

    programs: Path
    folder: Path
    port: int
    user: str | None
    password: str

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def call(self, program: str, *arguments: object) -> bytes:
        """Runs a program of PostgreSQL; returns what it printed."""
        account = pwd.getpwnam(self.user) if self.user else None
        with (self.folder / "programs.log").open("ab") as log:
            return subprocess.run(
                [str(self.programs / program), *map(str, arguments)],
                check=True,
                # a server that goes on must not hold a pipe open
                stdout=log if program == "pg_ctl" else subprocess.PIPE,
                stderr=log,
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "PGPASSWORD": self.password, "LC_ALL": "C.UTF-8"},
                user=account and account.pw_uid,
                group=account and account.pw_gid,
                extra_groups=() if account else None,
            ).stdout

    def start(self) -> None:
        (self.folder / "password").write_text(self.password, encoding="utf-8")
        if self.user:
            account = pwd.getpwnam(self.user)
            for path in (self.folder, self.folder / "password"):
                os.chown(path, account.pw_uid, account.pw_gid)
        self.call(
            "initdb", "-D", self.data, "-U", "labels", "-A", "scram-sha-256", "--pwfile", "password", "-E", "UTF8"
        )
        options = f"-p {self.port} -h 127.0.0.1 -k {self.folder} -F -c jit=off -c autovacuum=off"
        self.call("pg_ctl", "-D", self.data, "-w", "-l", self.folder / "server.log", "-o", options, "start")

    def stop(self) -> None:
        self.call("pg_ctl", "-D", self.data, "-m", "immediate", "stop")

    def sql(self, *commands: str) -> list[str]:
        given = [part for one in commands for part in ("-c", one)]
        out = self.call("psql", "-h", "127.0.0.1", "-p", self.port, "-U", "labels", "-d", "postgres", "-qAt", *given)
        return out.decode().split("\n")[:-1]

    def dump(self) -> bytes:
        return self.call("pg_dump", "-h", "127.0.0.1", "-p", self.port, "-U", "labels", "postgres")


def programs() -> Path:
    """The folder of PostgreSQL's programs."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders or not (folders[-1] / "initdb").is_file():
        pytest.skip("PostgreSQL is not installed: apt-get install -y postgresql")
    return folders[-1]


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    user = None
    if os.geteuid() == 0:
        accounts = [one.pw_name for one in pwd.getpwall() if one.pw_name in ("postgres", "nobody")]
        if not accounts:
            pytest.skip("PostgreSQL does not run as the superuser, and there is no account postgres or nobody")
        user = max(accounts)
    found = programs()
    # not below the folder of the test: that account may not enter it
    with tempfile.TemporaryDirectory(prefix="reportlabel-") as folder:
        one = Database(found, Path(folder), free_port(), user, secrets.token_hex(8))
        one.start()
        yield one
        one.stop()


@pytest.fixture(scope="module")
def program() -> Path:
    environment = Path(os.environ.get("REPORTLABEL_LABEL_STUDIO") or ROOT / ".label-studio" / "venv")
    if not (environment / "bin" / "label-studio").is_file():
        pytest.skip(f"Label Studio is not installed in {environment}; tests/flow/test_review.py does it")
    return environment / "bin" / "label-studio"


@pytest.fixture(scope="module")
def both(
    program: Path, database: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LocalServer, Path]]:
    """Label Studio on PostgreSQL, which makes its tables while the hospital is made; and the workspace."""
    home, port = tmp_path_factory.mktemp("server"), free_port()
    login = Login("reader@localhost.local", secrets.token_urlsafe(12), secrets.token_hex(20))
    (home / "data").mkdir()
    settings = server_environment(os.environ, home=home, port=port, login=login) | {
        "DJANGO_DB": "default",
        "POSTGRE_HOST": "127.0.0.1",
        "POSTGRE_PORT": str(database.port),
        "POSTGRE_NAME": "postgres",
        "POSTGRE_USER": "labels",
        "POSTGRE_PASSWORD": database.password,
    }
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "start", "--init", "reportlabel", "-b", "--internal-host", "127.0.0.1", "--port", str(port)],
            env=settings,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    server = LocalServer(home, f"http://127.0.0.1:{port}", login, process)
    folder = tmp_path_factory.mktemp("review")

    def _workspace() -> Path:
        make_hospital(Hospital(folder / "hospital", 24, 5, ("parquet",)))
        run(folder / "hospital" / "archive.yaml", folder / "study", Options(parts=2))
        return folder / "study"

    with ThreadPoolExecutor(1) as pool:
        study = pool.submit(_workspace)
        try:
            until = time.monotonic() + 300
            while not answers(server.url):
                assert process.poll() is None and time.monotonic() < until, (home / "server.log").read_text()[-2000:]
                time.sleep(0.5)
            database.sql(*database.sql(UNCOMPRESSED))
            yield server, study.result()
        finally:
            server.stop()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture
def certified(tmp_path: Path, both: tuple[LocalServer, Path]) -> Iterator[tuple[str, Path]]:
    """An https address of the server, and the file with its certificate, which no authority signed."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "1"]
    make += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(make, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    between = Between(both[0].url)
    between.socket = context.wrap_socket(between.socket, server_side=True)
    threading.Thread(target=between.serve_forever, daemon=True).start()
    yield between.url.replace("http:", "https:"), certificate
    between.shutdown()
    between.server_close()


def call(name: str, workspace: Path, server: LocalServer, url: str, *arguments: object) -> str:
    """Runs a command of `reportlabel review` as for a server elsewhere; returns what it printed."""
    given = [name, workspace, "--url", url, "--server-folder", workspace / "none", *arguments]
    done = CliRunner(env={TOKEN_VARIABLE: server.login.token}).invoke(app, [str(one) for one in given])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def counts(printed: str) -> list[str]:
    """The figures of the row of the label set."""
    row = next(line for line in printed.splitlines() if line.startswith(f"│ {LABEL_SET}"))
    return [cell.strip() for cell in row.split("│")[2:-1]]


def test_a_round_and_a_withdrawal(
    database: Database,
    both: tuple[LocalServer, Path],
    certified: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (server, study), (url, certificate) = both, certified
    with pytest.raises(ConfigError, match=r"certificate of https://127\.0\.0\.1:\d+ is not trusted.* SSL_CERT_FILE"):
        call("setup", study, server, url, "--label-set", LABEL_SET)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    call("setup", study, server, url, "--label-set", LABEL_SET)
    assert counts(call("push", study, server, url, "--exams", 20))[:3] == ["20", "0", "0"]
    assert counts(call("push", study, server, url, "--exams", 20))[:3] == ["0", "0", "20"]

    with Ledger(study) as ledger:
        project = ledger.project(url, LABEL_SET)
    assert project is not None
    patients = dict(open_workspace(study).read("exams", columns=["exam_id", "patient_id"]).iter_rows())
    with Client(url, server.login.token) as client:
        tasks = list(client.tasks(project.number))
        own = tasks[0]["data"]
        patient = patients[own["exam_id"]]
        other = next(task["data"] for task in tasks if patients[task["data"]["exam_id"]] != patient)
        answered = {task["data"]["exam_id"]: task for task in tasks if task["data"] in (own, other)}
        for exam, task in answered.items():
            said = [{key: item[key] for key in item if key != "score"} for item in task["predictions"][0]["result"]]
            result = [*said, OUTCOME, comment(exam)]
            number = client.create_annotation(task["id"], result)
            client._call("POST", f"/api/tasks/{task['id']}/drafts?project={project.number}", body={"result": result})
        assert counts(call("pull", study, server, url))[0] == "2"
        assert counts(call("pull", study, server, url))[0] == "0"
        # a correction is a new version, by the clock and the precision of this database
        client._call("PATCH", f"/api/annotations/{number}/", body={"result": [*result[:-1], comment("再考")]})
        assert counts(call("pull", study, server, url))[0] == "1"
        client.get(f"/api/projects/{project.number}/export", exportType="JSON", download_all_tasks="true")

    database.sql("CHECKPOINT")
    marks, others = (marks_of(one, [task["data"] for task in tasks]) for one in (own, other))
    here, there = (study / "review", study / "readings"), server.home / "data"
    dump = database.dump()
    for one in (marks, others):
        assert all(files_with((folder,), one) for folder in (here[0], there / "export", database.data / "base"))
        assert any(mark in dump for mark in one)
    (file := tmp_path / "withdrawn.txt").write_text(f"{patient}\n", encoding="utf-8")
    call("withdraw", study, server, url, "--patients", file)
    dump = database.dump()
    assert not any(mark in dump for mark in marks) and any(mark in dump for mark in others)
    assert files_with(here, marks) == [] and files_with(here, others) != []
    # no row is left, but bytes are: of another server docs/8-review.md asks its administrator for what follows
    assert files_with((database.data,), marks) != []
    database.sql(f"VACUUM FULL {TABLES}", "CHECKPOINT")
    assert files_with((database.data / "base",), marks) == [] and files_with((database.data / "base",), others) != []
    assert files_with((database.data / "pg_wal",), marks) != []
    database.sql("ALTER SYSTEM SET wal_recycle = off", "SELECT pg_reload_conf()")
    for _ in database.sql("SELECT name FROM pg_ls_waldir()"):
        database.sql("SELECT pg_switch_wal()", "CHECKPOINT")
    assert files_with((database.data,), marks) == []
    for folder in ("export", "media/export"):
        shutil.rmtree(there / folder)
    assert files_with((server.home,), marks) == []


def comment(words: str) -> dict[str, Any]:
    return {
        "id": "c",
        "from_name": "rl_comment",
        "to_name": "rl_report",
        "type": "textarea",
        "value": {"text": [f"{words}への所見"]},
    }


def marks_of(data: dict[str, Any], everyone: list[dict[str, Any]]) -> list[bytes]:
    """What only this exam has. The report in pieces: PostgreSQL cuts long values, and reports share sentences."""
    text = data["text"]
    pieces = [text[at : at + 20] for at in range(0, len(text) - 20, 10)]
    texts = [one["text"] for one in everyone if one["exam_id"] != data["exam_id"]]
    own = [piece for piece in pieces if not any(piece in one for one in texts)]
    words = [data["exam_id"], data["content_hash"], f"{data['exam_id']}への所見", *own]
    return [mark for word in words for mark in (word.encode(), word.encode("unicode_escape"))]
