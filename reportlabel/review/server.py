"""A Label Studio server on this machine: own environment, SQLite, loopback only, nothing sent outside.

It is for one or two readers who try things out. For a hospital see docs/8-review.md (PostgreSQL behind https).
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx

from reportlabel.errors import ConfigError

LABEL_STUDIO_VERSION = "1.23.2"
"""The version whose screen, REST answers and class names are tested."""

LOOPBACK = "127.0.0.1"
LOGIN_FILE = "login.json"
_DATA = "data"
_LOG = "server.log"
_START_SECONDS = 180.0
_COPIES = ("export", "media/export")
_DATABASE = "label_studio.sqlite3"

Tell = Callable[[str], None]
"""Called with one line for the user."""


@dataclass(frozen=True)
class Login:
    """How to log in to the local server: a user name, a password and the token of the REST interface.

    It lies in the server's own folder, readable by the owner only, beside the database that holds it as well.
    """

    user: str
    password: str
    token: str


@dataclass(frozen=True)
class LocalServer:
    """A server that runs; `stop` ends it. ``home``: its folder (data, log, login)."""

    home: Path
    url: str
    login: Login
    process: subprocess.Popen[bytes]

    def stop(self, *, seconds: float = 20.0) -> None:
        """End the server and all it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def wait(self) -> int:
        """Wait until the server ends (Ctrl-C ends it); returns its exit status."""
        try:
            return self.process.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            self.stop()


def serve(
    home: Path,
    *,
    port: int = 8080,
    program: Path,
    tell: Tell | None = None,
    start_seconds: float = _START_SECONDS,
) -> LocalServer:
    """Start Label Studio on 127.0.0.1, and wait until it answers.

    Args:
        home: folder of the server; made on first use. Its reports are patient data: keep it where the workspace is.
        port: on 127.0.0.1.
        program: of Label Studio, as `install` returns it.

    Raises:
        ConfigError: the folder cannot be used, the port is taken, or it does not answer in time; names the log file.
    """
    say = tell or _silent
    if not 1024 <= port <= 65535:
        raise ConfigError(f"--port {port}: give a number from 1024 to 65535")
    if _answers(f"http://{LOOPBACK}:{port}/health"):
        raise ConfigError(f"something already answers on port {port}; stop it or give another --port")
    try:
        (home / _DATA).mkdir(parents=True, exist_ok=True, mode=0o700)
        home.chmod(0o700)
        login = _login(home)
    except OSError as error:
        raise ConfigError(f"cannot use the folder {home}: {error.strerror}") from error
    say(f"starting Label Studio on http://{LOOPBACK}:{port} (first start: about half a minute)")
    with (home / _LOG).open("ab") as log:
        process = subprocess.Popen(
            [
                str(program),
                "start",
                "--init",
                "reportlabel",
                "--no-browser",
                "--log-level",
                "WARNING",
                "--internal-host",
                LOOPBACK,
                "--port",
                str(port),
            ],
            env=server_environment(os.environ, home=home, port=port, login=login),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = LocalServer(home, f"http://{LOOPBACK}:{port}", login, process)
    try:
        _wait_until_ready(server, start_seconds)
    except BaseException:
        server.stop()
        raise
    return server


def install(environment: Path, *, tell: Tell | None = None) -> Path:
    """The server's program in a virtual environment; made and installed by pip where it is not there (about 1 GB).

    Raises:
        ConfigError: the folder cannot be used, or the installation failed.
    """
    program = environment / "bin" / "label-studio"
    try:
        environment.parent.mkdir(parents=True, exist_ok=True)
        # of two that come at the same time the second waits, and finds it done
        with environment.with_name(environment.name + ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not program.is_file():
                _install(environment, tell or _silent)
    except OSError as error:
        raise ConfigError(f"cannot install Label Studio in {environment}: {error.strerror}") from error
    return program


def _install(environment: Path, say: Tell) -> None:
    say(f"installing Label Studio {LABEL_STUDIO_VERSION} in {environment} (about 1 GB, some minutes)")
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for step in (
        [sys.executable, "-m", "venv", str(environment)],
        [*pip, f"label-studio=={LABEL_STUDIO_VERSION}"],
    ):
        if subprocess.run(step, check=False, stdin=subprocess.DEVNULL).returncode:
            raise ConfigError(f"Label Studio could not be installed in {environment}; see the lines above")


def server_environment(outer: Mapping[str, str], *, home: Path, port: int, login: Login) -> dict[str, str]:
    """The environment variables of the server: SQLite, its own folder, no telemetry, no sign-up, no look for updates.

    Only the variables a program needs to start are taken over from ``outer``.
    """
    kept = {name: outer[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT") if name in outer}
    return kept | {
        "HOME": str(home.resolve()),
        "LABEL_STUDIO_BASE_DATA_DIR": str((home / _DATA).resolve()),
        "LABEL_STUDIO_HOST": f"http://{LOOPBACK}:{port}",
        "LABEL_STUDIO_USERNAME": login.user,
        "LABEL_STUDIO_PASSWORD": login.password,
        "LABEL_STUDIO_USER_TOKEN": login.token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "DJANGO_DB": "sqlite",
        "DEBUG": "false",
        "LATEST_VERSION_CHECK": "false",
        "COLLECT_ANALYTICS": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "FEATURE_FLAGS_OFFLINE": "true",
    }


def read_login(home: Path) -> Login:
    """The login of the local server in a folder.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    try:
        return Login(**json.loads((home / LOGIN_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{home} holds no local review server; run `reportlabel review serve` first") from error


def scrub(home: Path) -> int:
    """Remove what deleted tasks leave in the folder of a local server; returns how many files went.

    Every export of the web page writes all tasks to disk, and deleting the task, the export or the project leaves them
    there. The database is written anew, so that no deleted row stays in it. Of a server elsewhere its administrator
    does the same (docs/8-review.md).

    Raises:
        ConfigError: the database is in use for so long that it cannot be written anew.
    """
    removed = 0
    for folder in _COPIES:
        for path in sorted((home / _DATA / folder).glob("**/*")):
            if path.is_file():
                path.unlink()
                removed += 1
    database = home / _DATA / _DATABASE
    if database.is_file():
        try:
            with closing(sqlite3.connect(database, timeout=60.0, isolation_level=None)) as db:
                db.execute("VACUUM")
        except sqlite3.Error as error:
            raise ConfigError(
                f"{database} is in use and could not be cleaned; run the same command again when nobody works there"
            ) from error
    return removed


def _silent(_line: str) -> None:
    return


def _login(home: Path) -> Login:
    path = home / LOGIN_FILE
    if path.is_file():
        return read_login(home)
    login = Login("reader@localhost.local", secrets.token_urlsafe(12), secrets.token_hex(20))
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump({"user": login.user, "password": login.password, "token": login.token}, file)
    return login


def _answers(url: str) -> bool:
    try:
        httpx.get(url, timeout=2.0, trust_env=False)
    except httpx.HTTPError:
        return False
    return True


def _wait_until_ready(server: LocalServer, seconds: float) -> None:
    until = time.monotonic() + seconds
    log = server.home / _LOG
    while time.monotonic() < until:
        if server.process.poll() is not None:
            raise ConfigError(f"Label Studio ended with status {server.process.returncode}; see {log}")
        if _answers(f"{server.url}/health"):
            return
        time.sleep(0.5)
    raise ConfigError(f"Label Studio did not answer within {seconds:g} s; see {log}")
