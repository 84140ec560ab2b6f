"""A thin client of Label Studio's REST interface: about ten calls, guarded.

Reports leave the workspace through here, so the client speaks only to hosts it was told of, only by https unless the
host is this machine, follows no redirect and no proxy of the environment, and takes the token from the environment or
the keyring. What it raises names the call and the status, never what was sent or answered.
"""

from __future__ import annotations

import base64
import importlib
import ipaddress
import json
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from reportlabel.errors import ConfigError, ReportLabelError
from reportlabel.review.server import LABEL_STUDIO_VERSION

TOKEN_VARIABLE = "REPORTLABEL_REVIEW_TOKEN"  # noqa: S105 - the name of a variable
KEYRING_SERVICE = "reportlabel-review"
_RETRIED = frozenset({429, 502, 503, 504})
_PAGE = 250
ANNOTATED = (
    "id",
    "data",
    "annotations",
    "result",
    "completed_by",
    "was_cancelled",
    "created_at",
    "updated_at",
    "lead_time",
)
"""The fields of tasks with annotations: the server looks for the names in the task and in its annotations alike."""
_ACCESS_SECONDS = 240.0

Json = dict[str, Any]


class ServerError(ReportLabelError):
    """The review server did not do what was asked; what was done is in the ledger, and the command can be repeated."""


def check_url(url: str, *, allowed_hosts: Sequence[str] = ()) -> str:
    """The address of a review server without a trailing slash, where reports may be sent to it.

    Args:
        allowed_hosts: names of hosts besides this machine.

    Raises:
        ConfigError: no http address, a host that is not allowed, or http to another machine.
    """
    parts = urlsplit(url.strip())
    host = (parts.hostname or "").lower()
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.query or parts.fragment:
        raise ConfigError("the address of the review server must look like https://labels.example.jp, without a login")
    if is_loopback(host):
        return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    if host not in {name.lower() for name in allowed_hosts}:
        raise ConfigError(
            f"{host} is not among the hosts that reports may be sent to; allow it with --allow-host {host}"
        )
    if parts.scheme != "https":
        raise ConfigError(f"reports are sent to another machine by https only; give https://{parts.netloc}")
    return f"https://{parts.netloc}{parts.path.rstrip('/')}"


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def find_token(url: str, *, environment: Mapping[str, str] = os.environ) -> str:
    """The token for a server: of the environment variable, else of the keyring (service reportlabel-review).

    Raises:
        ConfigError: there is none.
    """
    token = environment.get(TOKEN_VARIABLE, "").strip()
    if token:
        return token
    try:
        keyring = importlib.import_module("keyring")
        stored = keyring.get_password(KEYRING_SERVICE, url)
    except Exception:
        # no package, no backend, a locked keyring: each package has its own errors
        stored = None
    if stored:
        return str(stored)
    raise ConfigError(
        f"no token for the review server; set the environment variable {TOKEN_VARIABLE}, or store it with "
        f"`keyring set {KEYRING_SERVICE} {url}`"
    )


class Client:
    """One review server.

    Args:
        url: as `check_url` returns it. token: legacy token, or personal access token.
        allowed_hosts: see `check_url`. timeout: seconds a call may take; attempts: how often a call that changes
            nothing when repeated is tried.
        transport, sleep: for tests.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        allowed_hosts: Sequence[str] = (),
        timeout: float = 120.0,
        attempts: int = 4,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = check_url(url, allowed_hosts=allowed_hosts)
        if not token.isascii() or not token.isprintable() or not token:
            raise ConfigError("the token of the review server is empty or has characters that no token has")
        self._token = token
        self._access: tuple[str, float] | None = None
        self._attempts = attempts
        self._sleep = sleep
        self._http = httpx.Client(
            base_url=self.url,
            timeout=httpx.Timeout(timeout, connect=10.0),
            follow_redirects=False,
            trust_env=False,
            transport=transport,
            verify=ssl.create_default_context() if self.url.startswith("https") else True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def check(self) -> str:
        """Make sure that the server is there, of a tested version, and takes the token; returns its version.

        Raises:
            ServerError: it does not answer, or not like Label Studio.
            ConfigError: another version, or it refuses the token.
        """
        answer = self.get("/api/version")
        found = str(answer.get("release", "")) if isinstance(answer, dict) else ""
        if not found:
            raise ServerError(f"{self.url} does not answer like Label Studio; check the address")
        if found.split(".")[:2] != LABEL_STUDIO_VERSION.split(".")[:2]:
            raise ConfigError(
                f"{self.url} runs Label Studio {found}, tested is {LABEL_STUDIO_VERSION}; install that version"
            )
        self.get("/api/projects", page_size=1)
        return found

    # --- projects

    def projects(self) -> Iterator[Json]:
        """All projects that the token sees."""
        page = 1
        while True:
            answer = self.get("/api/projects", page=page, page_size=100)
            rows = answer["results"] if isinstance(answer, dict) else answer
            yield from rows
            if not isinstance(answer, dict) or not answer.get("next"):
                return
            page += 1

    def project(self, project: int) -> Json | None:
        """A project; None where there is none."""
        found = self._call("GET", f"/api/projects/{project}", allow=(404,))
        return None if found is None else dict(found)

    def create_project(self, settings: Json) -> int:
        """Make a project; returns its number."""
        return int(self._call("POST", "/api/projects", body=settings)["id"])

    def update_project(self, project: int, settings: Json) -> None:
        """Change settings of a project."""
        self._call("PATCH", f"/api/projects/{project}", body=settings)

    def views(self, project: int) -> list[Json]:
        """The tabs of the project's task list."""
        return list(self.get("/api/dm/views", project=project))

    def create_view(self, project: int, data: Json) -> None:
        """Make a tab."""
        self._call("POST", "/api/dm/views/", body={"project": project, "data": data})

    def update_view(self, project: int, view: int, data: Json) -> None:
        """Change a tab."""
        self._call("PATCH", f"/api/dm/views/{view}/", body={"project": project, "data": data})

    # --- tasks

    def import_tasks(self, project: int, tasks: Sequence[Json]) -> list[int]:
        """Make tasks with their predictions; returns the task numbers in the same order.

        Raises:
            ServerError: the server refused, made another number of tasks, or gave no answer: then it is not known
                which tasks it made. The call is never repeated here, because each repetition makes the tasks again.
        """
        answer = self._call(
            "POST", f"/api/projects/{project}/import", query={"return_task_ids": "true"}, body=list(tasks)
        )
        numbers = [int(one) for one in answer.get("task_ids", [])]
        predictions = sum(len(task.get("predictions", ())) for task in tasks)
        if len(numbers) != len(tasks) or int(answer.get("prediction_count", predictions)) != predictions:
            raise ServerError(
                f"{self.url} made {len(numbers)} tasks of {len(tasks)}; push again, what is missing is found and sent"
            )
        return numbers

    def tasks(
        self,
        project: int,
        *,
        filters: Sequence[Json] = (),
        include: Sequence[str] = (),
        page_size: int = _PAGE,
    ) -> Iterator[Json]:
        """The tasks of a project that all ``filters`` fit, in order of their number, page by page.

        Args:
            filters: items of a task-list filter: filter, operator, value, type.
            include: only these fields; none: all, with annotations and predictions.
        """
        query: Json = {"ordering": ["tasks:id"]}
        if filters:
            query["filters"] = {"conjunction": "and", "items": list(filters)}
        page = 1
        while True:
            asked: Json = {
                "project": project,
                "page": page,
                "page_size": page_size,
                "query": json.dumps(query, ensure_ascii=False),
            }
            if include:
                asked["include"] = ",".join(include)
            if not include or "annotations" in include:
                # annotations come only with all fields; include then leaves out the others
                asked["fields"] = "all"
            # a page behind the last one answers 404
            answer = self._call("GET", "/api/tasks", query=asked, allow=(404,))
            rows = [] if answer is None else answer["tasks"]
            yield from rows
            if len(rows) < page_size or page * page_size >= int(answer.get("total", 0)):
                return
            page += 1

    def task(self, task: int) -> Json | None:
        """A task with its annotations; None where there is none."""
        found = self._call("GET", f"/api/tasks/{task}/", allow=(404,))
        return None if found is None else dict(found)

    def delete_task(self, task: int) -> None:
        """Delete a task with its annotations, drafts and predictions; nothing happens where there is none."""
        self._call("DELETE", f"/api/tasks/{task}/", allow=(404,))

    def delete_tasks(self, project: int, tasks: Sequence[int]) -> None:
        """Delete many tasks of a project in one call."""
        if tasks:
            body = {"selectedItems": {"all": False, "included": list(tasks)}}
            self._call("POST", "/api/dm/actions", query={"id": "delete_tasks", "project": project}, body=body)

    def create_annotation(self, task: int, result: Sequence[Json]) -> int:
        """Submit an annotation, as a reader does (for adjudication drafts and tests); returns its number."""
        return int(self._call("POST", f"/api/tasks/{task}/annotations/", body={"result": list(result)})["id"])

    # --- one call

    def get(self, path: str, **query: object) -> Any:
        """One GET call; the decoded answer."""
        return self._call("GET", path, query=query)

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: object = None,
        allow: Sequence[int] = (),
    ) -> Any:
        # PATCH sets values and DELETE of what is gone answers 404: both may be repeated
        attempts = self._attempts if method != "POST" else 1
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        for attempt in range(1, self._attempts + 1):
            last = attempt >= attempts
            try:
                headers = {"Authorization": self._authorization()}
                if content is not None:
                    headers["Content-Type"] = "application/json"
                answer = self._http.request(method, path, params=query, content=content, headers=headers)
            except httpx.ConnectError as error:
                if _is_untrusted(error):
                    raise ConfigError(
                        f"the certificate of {self.url} is not trusted, or is not for this host; name a file of the "
                        "authority that signed it, or of the certificate itself (PEM), in the variable SSL_CERT_FILE"
                    ) from error
                # nothing was sent: any call may be tried again
                if attempt == self._attempts:
                    raise ServerError(
                        f"no review server answers at {self.url}; start it, or check the address"
                    ) from error
            except httpx.TimeoutException as error:
                if last:
                    raise ServerError(
                        f"{self.url} did not answer {method} {path} in time; run the same command again: "
                        "what was done is kept and nothing is done twice"
                    ) from error
            except httpx.HTTPError as error:
                if last:
                    raise ServerError(
                        f"the connection to {self.url} broke during {method} {path}; run the same command again"
                    ) from error
            else:
                if answer.status_code in allow:
                    return None
                if answer.is_success:
                    return self._decoded(answer, method, path)
                if answer.status_code not in _RETRIED or last:
                    raise self._problem(answer.status_code, method, path)
            self._sleep(min(0.5 * 2 ** (attempt - 1), 8.0))
        raise AssertionError("unreachable")

    def _decoded(self, answer: httpx.Response, method: str, path: str) -> Any:
        if answer.status_code == 204 or not answer.content:
            return {}
        try:
            return answer.json()
        except ValueError as error:
            raise ServerError(
                f"{self.url} does not answer {method} {path} like Label Studio; check the address"
            ) from error

    def _problem(self, status: int, method: str, path: str) -> ReportLabelError:
        if status in (401, 403):
            return ConfigError(
                f"{self.url} refuses the token ({status}); make a new one on the account page of Label Studio and set "
                f"{TOKEN_VARIABLE}. A legacy token must be switched on by the administrator"
            )
        if 300 <= status < 400:
            return ConfigError(f"{self.url} sends callers elsewhere ({status}); give its final address")
        if status == 404:
            return ServerError(
                f"{self.url} knows no {path} ({status}); check the address, and run `review setup` again"
            )
        if status == 413:
            return ServerError(f"{self.url} takes no request of this size ({status}); push with a smaller --batch")
        return ServerError(f"{self.url} answered {status} to {method} {path}; see the log of the server")

    def _authorization(self) -> str:
        """The header: a personal access token is exchanged for an access token that lasts some minutes."""
        if not _is_jwt(self._token):
            return f"Token {self._token}"
        if self._access is None or time.monotonic() - self._access[1] > _ACCESS_SECONDS:
            answer = self._http.post("/api/token/refresh", json={"refresh": self._token})
            if not answer.is_success:
                raise self._problem(
                    401 if answer.status_code < 500 else answer.status_code, "POST", "/api/token/refresh"
                )
            self._access = (str(answer.json()["access"]), time.monotonic())
        return f"Bearer {self._access[0]}"


def _is_untrusted(error: BaseException) -> bool:
    """Whether a connection failed because of the certificate of the server: the reason stands in a cause."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _is_jwt(token: str) -> bool:
    head, *rest = token.split(".")
    if len(rest) != 2:
        return False
    try:
        return "alg" in json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except ValueError:
        return False
