"""Review against a real Label Studio server and a real browser.

The server is installed by pip in an environment of its own, once: in the folder that the variable
REPORTLABEL_LABEL_STUDIO names, or in .label-studio/venv of the repository. Screenshots are written to the folder
REPORTLABEL_SCREENSHOTS, or to the temporary folder of the test.
"""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from rich.console import Console
from typer.testing import CliRunner

from reportlabel.errors import ConfigError
from reportlabel.export.command import run_export
from reportlabel.export.options import export_options
from reportlabel.review.client import TOKEN_VARIABLE, Client, ServerError
from reportlabel.review.command import app
from reportlabel.review.config import load_screen
from reportlabel.review.hand_out import Desk, open_desk
from reportlabel.review.ledger import LEDGER_FILE, Ledger, Project
from reportlabel.review.pull import pull, status
from reportlabel.review.push import push, setup_project
from reportlabel.review.server import LocalServer, install, serve
from reportlabel.review.tasks import ReviewTask, read_exams, review_tasks
from reportlabel.run import Options, run
from reportlabel.store import Workspace
from reportlabel.synth.hospital import Hospital, make_hospital

# all of them use one server and one workspace: with several processes they stay in one
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("label-studio")]
ROOT = Path(__file__).resolve().parents[2]
EXAMS = 200
LABEL_SET = "chexpert_14"
ADDED = "\n追記：再読影し変更なし。"
OUTCOME = {
    "id": "o",
    "from_name": "rl_outcome",
    "to_name": "rl_report",
    "type": "choices",
    "value": {"choices": ["settled"]},
}
PROGRAM = "from reportlabel.review.command import app; app()"


@dataclass
class Study:
    """A labelled synthetic hospital, and some of its exams as tasks."""

    hospital: Path
    desk: Desk
    tasks: list[ReviewTask]

    @property
    def folder(self) -> Path:
        return self.desk.workspace.folder

    @property
    def workspace(self) -> Workspace:
        return self.desk.workspace

    @property
    def ledger(self) -> Ledger:
        return self.desk.ledger

    def run(self) -> None:
        run(self.hospital / "archive.yaml", self.folder, Options(parts=4))

    def exported(self, out: Path) -> dict[tuple[str, str], tuple[str, str]]:
        """Exam and finding -> value and review state, as training code gets them."""
        options = export_options()
        run_export(
            self.folder, to="parquet", out=out, options=options, label_sets=[LABEL_SET], console=Console(quiet=True)
        )
        rows = pl.read_parquet(out / "labels.parquet").select("exam_id", "finding", "value", "review_state").rows()
        return {row[:2]: row[2:] for row in rows}


@pytest.fixture(scope="module")
def starting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[LocalServer]]:
    """The server starts while the hospital is made."""
    home = tmp_path_factory.mktemp("server") / "home"
    environment = Path(os.environ.get("REPORTLABEL_LABEL_STUDIO") or ROOT / ".label-studio" / "venv")

    def _start() -> LocalServer:
        return serve(home, port=free_port(), program=install(environment))

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(_start)
        yield running
        if running.exception() is None:
            running.result().stop()


@pytest.fixture(scope="module")
def server(starting: Future[LocalServer], study: Study) -> LocalServer:
    return starting.result()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, starting: Future[LocalServer]) -> Iterator[Study]:
    folder = tmp_path_factory.mktemp("review")
    make_hospital(Hospital(folder / "hospital", 230, 11, ("parquet",)))
    run(folder / "hospital" / "archive.yaml", folder / "study", Options(parts=4))
    with open_desk(folder / "study") as desk:
        exams = desk.workspace.read("labels").filter(label_set=LABEL_SET)["exam_id"].unique().sort().head(80)
        wanted = (
            exams.to_frame()
            .with_row_index("priority", offset=1)
            .with_columns(label_set=pl.lit(LABEL_SET), reason=pl.lit("audit"))
        )
        tables = read_exams(desk.workspace, exams.to_list(), LABEL_SET)
        tasks, problems = review_tasks(tables, wanted, desk.label_set(LABEL_SET), desk.rules, desk.screen)
        assert problems.is_empty()
        yield Study(folder / "hospital", desk, tasks)


@pytest.fixture(scope="module")
def client(server: LocalServer) -> Iterator[Client]:
    with Client(server.url, server.login.token) as one:
        yield one


@pytest.fixture
def project(study: Study, client: Client, request: pytest.FixtureRequest) -> Project:
    """A project of its own for each test."""
    return own_project(study, client, request.node.name.removeprefix("test_")[:50])


def own_project(study: Study, client: Client, name: str) -> Project:
    desk = study.desk
    return setup_project(client, desk.ledger, desk.label_set(LABEL_SET), desk.rules, desk.screen, name=name)[0]


@pytest.fixture
def call(study: Study, server: LocalServer, tmp_path: Path) -> Callable[..., str]:
    """Runs a command of `reportlabel review`; returns what it printed. The token is that of the local server."""

    def _call(name: str, *arguments: object, url: str = server.url) -> str:
        given = [name, str(study.folder), "--url", url, "--server-folder", str(server.home), *map(str, arguments)]
        done = CliRunner(env={TOKEN_VARIABLE: ""}).invoke(app, given)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    return _call


def exams_of(client: Client, project: Project) -> Counter[str]:
    return Counter(task["data"]["exam_id"] for task in client.tasks(project.number, include=("id", "data")))


def pulled(study: Study, client: Client, project: Project) -> Any:
    now = study.ledger.project(client.url, project.name)
    assert now is not None
    desk = study.desk
    return pull(client, desk.ledger, now, desk.workspace, desk.label_set(LABEL_SET), desk.rules, desk.screen)


@contextmanager
def killed_half_way(study: Study, server: LocalServer, client: Client, project: Project, exams: int) -> Iterator[None]:
    """A push in a process of its own that is killed once the server has some of the exams."""
    given = ["push", study.folder, "--exams", exams, "--batch", 5, "--url", server.url, "--server-folder", server.home]
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *map(str, given)], cwd=ROOT)
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        found = client.project(project.number)
        if found is not None and found["task_number"] >= exams // 4:
            break
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -9
    yield


def test_a_killed_push_goes_on_and_a_second_one_makes_nothing_new(
    study: Study, server: LocalServer, client: Client, call: Callable[..., str]
) -> None:
    call("setup", "--label-set", LABEL_SET)
    project = study.ledger.project(client.url, LABEL_SET)
    assert project is not None
    with killed_half_way(study, server, client, project, EXAMS):
        there = sum(exams_of(client, project).values())
        assert EXAMS // 4 <= there < EXAMS
    call("push", "--exams", EXAMS)
    exams = exams_of(client, project)
    assert exams == Counter(study.ledger.chosen()["exam_id"].to_list()) and set(exams.values()) == {1}
    assert len(exams) == EXAMS
    # the numbers that the ledger has of tasks are those of the server
    of_task = {task["id"]: task["data"]["exam_id"] for task in client.tasks(project.number, include=("id", "data"))}
    assert {one.task: exam for exam, one in study.ledger.sent(project).items()} == of_task
    again = call("push", "--exams", EXAMS)
    counts = [cell.strip() for line in again.splitlines() if LABEL_SET in line for cell in line.split("│")[2:5]]
    assert counts == ["0", "0", str(EXAMS)] and exams_of(client, project) == exams
    call("setup", "--label-set", LABEL_SET)
    assert client.project(project.number) is not None
    # every kind of record lies beside the reports
    shown = "".join(task["data"]["records_html"] for task in client.tasks(project.number, include=("id", "data")))
    assert [kind.name for kind in load_screen(study.desk.rules.folder).kinds if kind.name not in shown] == []


def test_a_push_that_dies_before_it_hears_of_its_tasks_makes_no_copies(
    study: Study, client: Client, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed where it hurts most: the server has made the tasks, and the ledger does not know it yet."""
    noted: list[int] = []
    note = study.ledger.note_sent

    def _die_at_the_third(of: Project, tasks: Any) -> None:
        noted.append(1)
        if len(noted) == 3:
            raise KeyboardInterrupt
        note(of, tasks)

    with monkeypatch.context() as patched:
        patched.setattr(study.ledger, "note_sent", _die_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            push(client, study.ledger, project, study.tasks, batch=20)
    assert sum(exams_of(client, project).values()) == 60
    with Ledger(study.folder) as ledger:
        done = push(client, ledger, project, study.tasks, batch=20)
    assert (done.new, done.unchanged, done.repaired) == (20, 60, 20)
    assert exams_of(client, project) == Counter({task.exam_id: 1 for task in study.tasks})


def test_answers_and_corrections_are_pulled_once(study: Study, client: Client, project: Project) -> None:
    tasks = study.tasks[:6]
    push(client, study.ledger, project, tasks)
    sent = study.ledger.sent(project)
    numbers = {}
    for task in tasks[:4]:
        number = sent[task.exam_id].task
        assert number is not None
        numbers[task.exam_id] = client.create_annotation(number, [*task.result, OUTCOME])
    before = study.workspace.read("readings").height
    assert pulled(study, client, project).annotations == 4
    assert pulled(study, client, project).annotations == 0
    # an answer that is corrected on the server is a new version
    one = tasks[0]
    corrected = [
        item | {"value": {"choices": ["uncertain"]}} if item["from_name"] == "cardiomegaly" else item
        for item in one.result
    ]
    client._call("PATCH", f"/api/annotations/{numbers[one.exam_id]}/", body={"result": [*corrected, OUTCOME]})
    done = pulled(study, client, project)
    assert (done.annotations, done.problems.height) == (1, 0)
    labels = len(study.desk.label_set(LABEL_SET).findings)
    assert study.workspace.read("readings").height - before == 5 * labels
    row = status(study.ledger).filter(pl.col("project") == project.name).row(0, named=True)
    assert (row["sent"], row["done"], row["remaining"]) == (6, 4, 2)


def test_a_withdrawn_patient_leaves_no_byte_on_the_server(
    study: Study, server: LocalServer, client: Client, project: Project, call: Callable[..., str], tmp_path: Path
) -> None:
    exams = dict(study.workspace.read("exams", columns=["exam_id", "patient_id"]).iter_rows())
    task = study.tasks[50]
    other = next(one for one in study.tasks[51:] if exams[one.exam_id] != exams[task.exam_id])
    push(client, study.ledger, project, [task, other])
    for one, mark in ((task, "この方だけの印"), (other, "別の方の印")):
        number = study.ledger.sent(project)[one.exam_id].task
        assert number is not None
        comment = {"id": "c", "from_name": "rl_comment", "to_name": "rl_report", "type": "textarea"}
        client.create_annotation(number, [*one.result, OUTCOME, comment | {"value": {"text": [mark]}}])
        draft = {"result": [comment | {"value": {"text": [f"{mark}の下書き"]}}]}
        client._call("POST", f"/api/tasks/{number}/drafts?project={project.number}", body=draft)
    assert pulled(study, client, project).annotations == 2
    # an export, as someone makes it on the web page, leaves a copy on the disk
    client.get(f"/api/projects/{project.number}/export", exportType="JSON", download_all_tasks="true")
    own, others = marks_of(task, "この方だけの印"), marks_of(other, "別の方の印")
    folders = (server.home, study.folder / "review", study.folder / "readings")
    for marks in (own, others):
        found = files_with(folders, marks)
        assert {"label_studio.sqlite3", LEDGER_FILE.name} <= {path.name for path in found}
        assert any("export" in path.parts for path in found)
    (file := tmp_path / "withdrawn.txt").write_text(f"{exams[task.exam_id]}\n", encoding="utf-8")
    call("withdraw", "--patients", file)
    assert files_with(folders, own) == []
    assert {"label_studio.sqlite3", LEDGER_FILE.name} <= {path.name for path in files_with(folders, others)}


def marks_of(task: ReviewTask, mark: str) -> list[bytes]:
    """What only this exam has, in the ways in which a server may write it."""
    text = task.data["text"]
    words = [task.exam_id, task.content, task.text, text, mark]
    escaped = [one.encode("unicode_escape") for one in (text, mark)]
    return [*(one.encode() for one in words), *escaped, *(one.encode("utf-16-le") for one in (text, mark))]


def files_with(folders: tuple[Path, ...], marks: list[bytes]) -> list[Path]:
    """The files below the folders that hold any of the marks."""
    return [
        path
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and any(mark in path.read_bytes() for mark in marks)
    ]


# --- a server that fails


class Between(ThreadingHTTPServer):
    """Stands between reportlabel and the server. ``slow``: that many imports are passed on, and their answers come too
    late; ``version``: what the server says it is."""

    daemon_threads = True
    slow = 0
    version: str | None = None

    def __init__(self, server: str) -> None:
        super().__init__(("127.0.0.1", 0), _Pass)
        self.to = httpx.Client(base_url=server, trust_env=False, timeout=60)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Pass(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Between

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kept = {name: self.headers[name] for name in ("Authorization", "Content-Type") if name in self.headers}
        answer = self.server.to.request(self.command, self.path, content=body, headers=kept)
        if "/import" in self.path and self.server.slow:
            self.server.slow -= 1
            time.sleep(3)
        content = answer.content
        if self.path.startswith("/api/version") and self.server.version:
            content = b'{"release": "' + self.server.version.encode() + b'"}'
        with suppress(OSError):
            self.send_response(answer.status_code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_DELETE = _pass_on

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def between(server: LocalServer) -> Iterator[Between]:
    one = Between(server.url)
    threading.Thread(target=one.serve_forever, daemon=True).start()
    yield one
    one.shutdown()
    one.server_close()


def test_a_slow_server_loses_nothing(study: Study, server: LocalServer, client: Client, between: Between) -> None:
    with Client(between.url, server.login.token, timeout=1.0, sleep=lambda _: None) as slow:
        project = own_project(study, slow, "slow")
        between.slow = 1
        with pytest.raises(ServerError, match=r"in time; run the same command again"):
            push(slow, study.ledger, project, study.tasks[:60], batch=20)
        until = time.monotonic() + 20
        while sum(exams_of(client, project).values()) < 20 and time.monotonic() < until:
            time.sleep(0.1)
        done = push(slow, study.ledger, project, study.tasks[:60], batch=20)
        assert (done.repaired, done.new, done.unchanged) == (20, 40, 20)
        assert exams_of(client, project) == Counter({task.exam_id: 1 for task in study.tasks[:60]})


def test_another_version_is_refused(
    study: Study, server: LocalServer, between: Between, call: Callable[..., str]
) -> None:
    between.version = "1.7.3"
    for command in (("setup", "--label-set", LABEL_SET), ("push",), ("pull",)):
        with pytest.raises(ConfigError, match=r"runs Label Studio 1\.7\.3, tested is"):
            call(*command, url=between.url)


def test_a_server_that_is_down_or_refuses_is_told(study: Study, server: LocalServer, client: Client) -> None:
    with (
        Client(f"http://127.0.0.1:{free_port()}", "t", sleep=lambda _: None) as nobody,
        pytest.raises(ServerError, match="no review server answers"),
    ):
        nobody.check()
    with Client(server.url, "f" * 40) as stranger, pytest.raises(ConfigError, match="refuses the token"):
        stranger.check()
    with pytest.raises(ConfigError, match="already answers"):
        serve(server.home, port=int(server.url.rpartition(":")[2]), program=Path("label-studio"))
    assert client.check().startswith("1.23.")


def test_tasks_of_others_are_left_alone(study: Study, client: Client, project: Project) -> None:
    push(client, study.ledger, project, study.tasks[:5])
    strange = [
        {"data": study.tasks[0].data | {"text": f"誰かの文{number}", "exam_id": f"strange-{number}"}}
        for number in range(300)
    ]
    client.import_tasks(project.number, strange)
    with pytest.raises(ConfigError, match="holds 300 tasks that this workspace did not send"):
        push(client, study.ledger, project, study.tasks[:10])
    assert sum(exams_of(client, project).values()) == 305
    # what others wrote is no reading, and what is ours still comes back
    filed = {task["data"]["exam_id"]: task["id"] for task in client.tasks(project.number, include=("id", "data"))}
    client.create_annotation(filed["strange-7"], [OUTCOME])
    client.create_annotation(filed[study.tasks[0].exam_id], [*study.tasks[0].result, OUTCOME])
    done = pulled(study, client, project)
    assert (done.annotations, done.problems["reason"].to_list()) == (1, ["The task was not sent by this workspace."])
    # without them the push goes on
    client.delete_tasks(project.number, [number for exam, number in filed.items() if exam.startswith("strange-")])
    again = push(client, study.ledger, project, study.tasks[:10])
    assert (again.new, again.unchanged) == (5, 5)


def test_the_server_is_for_this_machine_and_its_owner_only(server: LocalServer) -> None:
    for path in (server.home, server.home / "login.json"):
        assert path.stat().st_mode & 0o077 == 0
    with sqlite3.connect(f"file:{server.home / 'data' / 'label_studio.sqlite3'}?mode=ro", uri=True) as db:
        assert db.execute("SELECT count(*) FROM htx_user").fetchone() == (1,)


# --- on the screen


@pytest.fixture(scope="module")
def open_task(server: LocalServer, client: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        missing = "no browser: apt-get install -y chromium fonts-noto-cjk"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    folder = Path(os.environ.get("REPORTLABEL_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(viewport={"width": 1680, "height": 1050}, locale="ja-JP")
        outside: set[str] = set()

        def _only_here(route: Any) -> None:
            url = route.request.url
            if url.startswith("http") and not url.startswith(server.url):
                outside.add(url)
                route.abort()
            else:
                route.continue_()

        context.route("**/*", _only_here)
        page = context.new_page()
        page.goto(f"{server.url}/user/login/")
        page.fill("input[name=email]", server.login.user)
        page.fill("input[name=password]", server.login.password)
        page.click("button[type=submit], input[type=submit]")
        page.wait_for_load_state("networkidle")

        def _open(project: Project, task: int) -> Any:
            page.goto(f"{server.url}/projects/{project.number}/data?task={task}")
            page.wait_for_selector(".rl-row .ant-radio-wrapper-checked")
            page.wait_for_timeout(500)
            page.click(".rl-row .rl-name")
            return page

        _open.shot = lambda name: page.screenshot(path=folder / f"{name}.png")  # type: ignore[attr-defined]
        yield _open
        assert outside == set()
        browser.close()


def checked(page: Any, finding: str) -> int:
    """Which of the four answers of a finding is chosen, from 0; -1: none."""
    answer: int = page.evaluate(
        "id => [...document.querySelectorAll('.rl-f-' + id + ' .ant-radio-wrapper')]"
        ".findIndex(one => one.classList.contains('ant-radio-wrapper-checked'))",
        finding,
    )
    return answer


def colour(page: Any, finding: str) -> str:
    found: str = page.evaluate("id => getComputedStyle(document.querySelector('.rl-f-' + id)).backgroundColor", finding)
    return found


def warning(page: Any) -> str:
    page.wait_for_timeout(400)
    found: str = page.evaluate("[...document.querySelectorAll('.ant-modal-content')].map(x => x.innerText).join()")
    if found:
        page.click(".ant-modal-confirm-btns button")
        page.wait_for_timeout(300)
    return found


def draw(page: Any, words: str) -> None:
    """Mark words of the report with the mouse; they must not be coloured yet."""
    box = page.evaluate(
        """words => {
            const walker = document.createTreeWalker(
                document.querySelector('.rl-report .lsf-htx-richtext'), NodeFilter.SHOW_TEXT);
            for (let node; (node = walker.nextNode());) {
                const at = node.textContent.indexOf(words);
                if (at < 0) continue;
                const range = document.createRange();
                range.setStart(node, at); range.setEnd(node, at + words.length);
                const r = range.getBoundingClientRect();
                return {x: r.x, y: r.y + r.height / 2, w: r.width};
            }
        }""",
        words,
    )
    assert box is not None
    page.mouse.move(box["x"] + 1, box["y"])
    page.mouse.down()
    page.mouse.move(box["x"] + box["w"] / 2, box["y"], steps=4)
    page.mouse.move(box["x"] + box["w"] - 1, box["y"], steps=4)
    page.mouse.up()
    page.wait_for_timeout(400)


def submit(page: Any) -> int:
    with page.expect_response(
        lambda answer: "/annotations" in answer.url and answer.request.method == "POST", timeout=15_000
    ) as saved:
        page.keyboard.press("Control+Enter")
    return int(saved.value.status)


@pytest.mark.browser
def test_what_a_reader_does_on_the_screen_is_what_becomes_of_the_labels(
    study: Study,
    client: Client,
    call: Callable[..., str],
    open_task: Callable[[Project, int], Any],
    tmp_path: Path,
) -> None:
    call("setup", "--label-set", LABEL_SET)
    call("push", "--exams", EXAMS)
    project = study.ledger.project(client.url, LABEL_SET)
    assert project is not None
    on_server = {task["data"]["exam_id"]: task for task in client.tasks(project.number)}
    sent = study.ledger.sent(project)
    exam = next(
        exam
        for exam in study.ledger.chosen()["exam_id"]
        if sent[exam].predicted["fracture"] == "not_mentioned" and free_words(on_server[exam])
    )
    predicted, task = sent[exam].predicted, on_server[exam]
    page = open_task(project, task["id"])
    open_task.shot("1-opened")  # type: ignore[attr-defined]
    keys = {"pneumonia": "p", "fracture": "f"}
    # every status has its key and its colour, and the rows of doubtful findings stand first
    order = ["present", "absent", "uncertain", "not_mentioned"]
    for modifier, at in (("", 0), ("Shift+", 1), ("Alt+", 2), ("Alt+Shift+", 3)):
        if checked(page, "pneumonia") != at:
            page.keyboard.press(f"{modifier}{keys['pneumonia']}")
            page.wait_for_timeout(150)
        assert checked(page, "pneumonia") == at
        assert (colour(page, "pneumonia") == "rgba(0, 0, 0, 0)") == (order[at] == "not_mentioned")
    doubtful = page.evaluate("[...document.querySelectorAll('.rl-check tr')].map(x => x.className)")
    for line in doubtful:
        assert page.evaluate(f"getComputedStyle(document.querySelector('.rl-f-{line[9:]}')).order") == "-1"
    # an answer that is taken away stops the submission, and so does an exam that is not judged
    page.keyboard.press("Alt+Shift+p")
    page.wait_for_timeout(150)
    assert checked(page, "pneumonia") == -1
    page.keyboard.press("8")
    page.keyboard.press("Control+Enter")
    assert "肺炎" in warning(page)
    page.keyboard.press("Alt+p")
    page.keyboard.press("8")
    page.keyboard.press("Control+Enter")
    assert "判定" in warning(page)
    page.keyboard.press("8")
    page.keyboard.press("f")
    # words of the report for the fracture; a click on them opens the list of findings
    words = free_words(task)
    page.keyboard.press("1")
    page.wait_for_timeout(200)
    draw(page, words)
    open_task.shot("2-words")  # type: ignore[attr-defined]
    page.locator(".rl-report .htx-highlight", has_text=words).first.click()
    page.click(".rl-span-finding .ant-select-selector")
    page.fill(".lsf-taxonomy-search-input", "骨折")
    page.locator(".ant-select-tree-treenode:visible", has_text="骨折").first.locator(
        ".ant-select-tree-checkbox"
    ).click()
    page.wait_for_timeout(200)
    open_task.shot("3-finding")  # type: ignore[attr-defined]
    page.click(".rl-row .rl-name")
    # a comment counts without a press on Add
    page.fill(".rl-comment textarea", "骨折線は不明瞭")
    page.click(".rl-row .rl-name")
    open_task.shot("4-answered")  # type: ignore[attr-defined]
    assert submit(page) in (200, 201)

    before = study.exported(tmp_path / "before")
    known = study.workspace.read("readings")["sha256"]
    call("pull")
    said = study.workspace.read("readings").filter(~pl.col("sha256").is_in(known.implode()))
    assert set(said["exam_id"]) == {exam} and said.height == len(predicted)
    changed = dict(said.filter(pl.col("origin") != "confirmed").select("finding", "value").iter_rows())
    expected = {"pneumonia": "uncertain", "fracture": "present"}
    assert changed == {label: value for label, value in expected.items() if predicted[label] != value}
    (spans,) = said.filter(pl.col("finding") == "fracture")["spans"]
    assert [task["data"]["text"][span["start"] : span["end"]] for span in spans] == [words]
    annotation = said["annotation_id"][0]
    row = study.ledger.annotations().filter(annotation_id=annotation, exam_id=exam).row(0, named=True)
    assert row["comment"] == "骨折線は不明瞭" and row["seconds"] > 0
    # of another exam the hospital writes a new report; the next run makes labels of both
    texts = {one: data["data"]["text"] for one, data in on_server.items() if one != exam}
    other = next(one for one, text in texts.items() if amended(study, text))
    study.run()
    after = study.exported(tmp_path / "after")
    own = {finding for read, finding in after if read == exam}
    assert own == set(predicted)
    differ = {
        key for key in before if after[key][0] != before[key][0] and key[0] not in (other, *read_elsewhere(study, exam))
    }
    assert {finding: after[exam, finding][0] for read, finding in differ if read == exam} == changed
    assert {read for read, _ in differ} <= {exam}
    assert {after[exam, finding][1] for finding in own} == {"reviewed"}
    # its task is replaced, and only that one
    call("push", "--exams", EXAMS)
    now = {one["data"]["exam_id"]: one for one in client.tasks(project.number)}
    assert now.keys() == on_server.keys()
    assert now[other]["data"]["text"] == on_server[other]["data"]["text"] + ADDED
    assert {one for one in now if now[one]["data"]["text"] != on_server[one]["data"]["text"]} == {other}
    assert now[exam]["id"] == task["id"] and len(now[exam]["annotations"]) == 1


def amended(study: Study, text: str) -> bool:
    """The hospital adds a line to a report, where there is one with this text."""
    path = study.hospital / "parquet" / "reports.parquet"
    reports = pl.read_parquet(path)
    same = (pl.col("text") == text) & (pl.col("status") == "final")
    if reports.filter(same).height != 1:
        return False
    added = pl.when(same).then(pl.col("text") + ADDED).otherwise("text")
    reports.with_columns(text=added).write_parquet(path)
    return True


def read_elsewhere(study: Study, exam: str) -> set[str]:
    """Exams that other tests of this workspace read."""
    return set(study.workspace.read("readings")["exam_id"]) - {exam}


def free_words(task: Mapping[str, Any]) -> str:
    """Four characters of the report on one line that no prediction colours and that occur once."""
    text = task["data"]["text"]
    taken = [
        (item["value"]["start"], item["value"]["end"])
        for item in task["predictions"][0]["result"]
        if item["from_name"] == "rl_span"
    ]
    for start in range(len(text) - 4):
        words = text[start : start + 4]
        if (
            all(end <= start or first >= start + 4 for first, end in taken)
            and text.count(words) == 1
            and not any(one.isspace() for one in words)
        ):
            return str(words)
    return ""
