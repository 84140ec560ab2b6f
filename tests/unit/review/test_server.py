"""The local server: what it is started with, its installation, and what deleted tasks leave in its folder."""

from __future__ import annotations

import json
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from reportlabel.errors import ConfigError
from reportlabel.review.server import LABEL_STUDIO_VERSION, Login, install, read_login, scrub, serve, server_environment

FAKE = f"""#!{sys.executable}
import http.server, json, os, sys
port = int(sys.argv[sys.argv.index("--port") + 1])
open(os.path.join(os.environ["HOME"], "seen.json"), "w").write(json.dumps([sys.argv[1:], dict(os.environ)]))
http.server.HTTPServer(("127.0.0.1", port), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def program(folder: Path, text: str) -> Path:
    path = folder / "label-studio"
    path.write_text(text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_started_on_loopback_without_the_secrets_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPORTLABEL_REVIEW_TOKEN", "of another server")
    home = tmp_path / "home"
    running = serve(home, port=48231, program=program(tmp_path, FAKE), start_seconds=20)
    try:
        arguments, environment = json.loads((home / "seen.json").read_text(encoding="utf-8"))
        assert arguments[arguments.index("--internal-host") + 1] == "127.0.0.1"
        assert environment["COLLECT_ANALYTICS"] == environment["LATEST_VERSION_CHECK"] == "false"
        assert environment["LABEL_STUDIO_USER_TOKEN"] == running.login.token == read_login(home).token
        assert "REPORTLABEL_REVIEW_TOKEN" not in environment
        assert home.stat().st_mode & 0o077 == (home / "login.json").stat().st_mode & 0o077 == 0
        with pytest.raises(ConfigError, match="already answers on port 48231"):
            serve(home, port=48231, program=program(tmp_path, FAKE))
    finally:
        running.stop()
    assert running.process.poll() is not None
    # the login of a folder stays
    again = serve(home, port=48231, program=program(tmp_path, FAKE), start_seconds=20)
    again.stop()
    assert again.login == running.login


def test_a_server_that_ends_or_never_answers(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ended with status 3; see .*server\.log"):
        serve(tmp_path / "a", port=48232, program=program(tmp_path, "#!/bin/sh\nexit 3\n"))
    with pytest.raises(ConfigError, match=r"did not answer within 0\.2 s"):
        serve(tmp_path / "b", port=48232, program=program(tmp_path, "#!/bin/sh\nexec sleep 30\n"), start_seconds=0.2)
    with pytest.raises(ConfigError, match="give a number from 1024"):
        serve(tmp_path / "c", port=80, program=tmp_path)


def test_installed_once_and_with_the_tested_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment, steps = tmp_path / "deep" / "venv", []

    class _Done:
        returncode = 0

    def _run(step: list[str], **_: Any) -> _Done:
        steps.append(step)
        if "pip" in step:
            (environment / "bin").mkdir(parents=True)
            (environment / "bin" / "label-studio").touch()
        return _Done()

    monkeypatch.setattr(subprocess, "run", _run)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: install(environment), range(2)))
    assert both == [environment / "bin" / "label-studio"] * 2
    assert [step[1:3] for step in steps] == [["-m", "venv"], ["-m", "pip"]]
    assert steps[1][-1] == f"label-studio=={LABEL_STUDIO_VERSION}"
    _Done.returncode = 1
    with pytest.raises(ConfigError, match="could not be installed"):
        install(tmp_path / "other")


def test_what_deleted_tasks_leave_is_removed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for folder in ("export", "media/export"):
        (data / folder).mkdir(parents=True)
        (data / folder / "tasks.json").write_text("胸水", encoding="utf-8")
    with closing(sqlite3.connect(data / "label_studio.sqlite3", isolation_level=None)) as db:
        db.execute("PRAGMA secure_delete = OFF")
        db.execute("CREATE TABLE task (data TEXT)")
        db.execute("INSERT INTO task VALUES (?)", ("胸水を認める" * 500,))
        db.execute("DELETE FROM task")
    assert "胸水".encode() in (data / "label_studio.sqlite3").read_bytes()
    assert scrub(tmp_path) == 2
    assert "胸水".encode() not in (data / "label_studio.sqlite3").read_bytes()
    assert scrub(tmp_path) == 0
    assert scrub(tmp_path / "nothing") == 0


def test_no_variable_of_this_process_but_what_a_program_needs(tmp_path: Path) -> None:
    outer = {"PATH": "/bin", "AWS_SECRET": "x", "HTTP_PROXY": "http://proxy"}
    found = server_environment(outer, home=tmp_path, port=8080, login=Login("u", "p", "t"))
    assert found["PATH"] == "/bin" and not {"AWS_SECRET", "HTTP_PROXY"} & set(found)
