"""The client speaks only where it may, repeats only what may be repeated, and says nothing of what was sent."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from reportlabel.errors import ConfigError
from reportlabel.review.client import TOKEN_VARIABLE, Client, ServerError, check_url, find_token

URL = "http://127.0.0.1:18999"
SECRET = "右肺に結節を認める"


@pytest.mark.parametrize(
    ("url", "checked"),
    [
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("https://labels.example.jp/ls/", "https://labels.example.jp/ls"),
        ("https://LABELS.example.jp", "https://LABELS.example.jp"),
    ],
)
def test_addresses_that_reports_may_go_to(url: str, checked: str) -> None:
    assert check_url(url, allowed_hosts=["labels.example.jp"]) == checked


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://other.example.jp", "--allow-host other.example.jp"),
        ("https://labels.example.jp.evil.test", "--allow-host"),
        ("http://labels.example.jp", "by https only"),
        ("http://127.0.0.1.evil.test", "--allow-host"),
        ("ftp://labels.example.jp", "must look like"),
        ("https://user:pw@labels.example.jp", "must look like"),
        ("labels.example.jp", "must look like"),
        ("", "must look like"),
    ],
)
def test_addresses_that_they_may_not_go_to(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as raised:
        check_url(url, allowed_hosts=["labels.example.jp"])
    assert "pw" not in str(raised.value)


def test_the_token_comes_from_the_environment_only() -> None:
    assert find_token(URL, environment={TOKEN_VARIABLE: " abc "}) == "abc"
    with pytest.raises(ConfigError, match=TOKEN_VARIABLE):
        find_token("http://127.0.0.1:1", environment={})


def test_a_token_that_no_header_may_hold_is_refused() -> None:
    for token in ("", "a\nb", "トークン"):
        with pytest.raises(ConfigError, match="token"):
            Client(URL, token)


def test_version_and_token_are_checked(server: Any) -> None:
    assert server.client().check() == "1.23.2"
    with pytest.raises(ConfigError, match=r"refuses the token \(401\)"):
        server.client(token="f" * 40).check()
    server.release = "2.0.0"
    with pytest.raises(ConfigError, match=r"runs Label Studio 2\.0\.0, tested is 1\.23\.2"):
        server.client().check()


def test_something_else_that_answers_is_told() -> None:
    for answer in (httpx.Response(200, text="<html>"), httpx.Response(200, json=[1])):
        client = Client(URL, "t", transport=httpx.MockTransport(lambda _, given=answer: given))
        with pytest.raises(ServerError, match=r"does not answer.* like Label Studio"):
            client.check()


def test_redirects_are_not_followed() -> None:
    seen = []

    def _away(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.host)
        return httpx.Response(302, headers={"location": "https://evil.test/"})

    with pytest.raises(ConfigError, match="elsewhere"):
        Client(URL, "t", transport=httpx.MockTransport(_away)).check()
    assert set(seen) == {"127.0.0.1"}


@pytest.mark.parametrize("failure", [503, 429, httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("cut")])
def test_what_changes_nothing_is_repeated(server: Any, failure: int | Exception) -> None:
    failures = [failure, failure]

    def _fail(_: httpx.Request) -> httpx.Response | None:
        if not failures:
            return None
        one = failures.pop()
        if isinstance(one, Exception):
            raise one
        return httpx.Response(one)

    server.before = _fail
    assert server.client().check() == "1.23.2"


def test_an_import_is_never_repeated_once_it_may_have_arrived(server: Any) -> None:
    client = server.client()
    project = client.create_project({"title": "abc"})
    tasks = [{"data": {"exam_id": "X1", "text": SECRET}}]
    for failure in (httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("cut"), 503):
        server.calls.clear()

        def _fail(_: httpx.Request, one: int | Exception = failure) -> httpx.Response:
            if isinstance(one, Exception):
                raise one
            return httpx.Response(one, text=SECRET)

        server.before = _fail
        with pytest.raises(ServerError) as raised:
            client.import_tasks(project, tasks)
        assert len(server.calls) == 1
        assert SECRET not in str(raised.value)


def test_a_call_that_never_arrived_is_repeated_even_an_import(server: Any) -> None:
    client = server.client()
    project = client.create_project({"title": "abc"})
    failures = [httpx.ConnectError("down")] * 2

    def _fail(_: httpx.Request) -> None:
        if failures:
            raise failures.pop()

    server.before = _fail
    assert len(client.import_tasks(project, [{"data": {}, "predictions": [{}]}])) == 1
    assert len(server.tasks) == 1


def test_a_server_that_is_down_is_told_with_its_address() -> None:
    # nothing listens on port 9 of this machine
    with (
        Client("http://127.0.0.1:9", "t", sleep=lambda _: None) as client,
        pytest.raises(ServerError, match=r"no review server answers at http://127\.0\.0\.1:9"),
    ):
        client.check()


def test_fewer_tasks_than_sent_are_told() -> None:
    def _short(_: httpx.Request) -> httpx.Response:
        return httpx.Response(201, json={"task_ids": [1], "prediction_count": 0})

    with pytest.raises(ServerError, match="made 1 tasks of 2"):
        Client(URL, "t", transport=httpx.MockTransport(_short)).import_tasks(1, [{"data": {}}, {"data": {}}])


def test_a_personal_access_token_is_exchanged() -> None:
    head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256"}).encode()).decode().rstrip("=")
    seen = []

    def _jwt(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/token/refresh":
            return httpx.Response(200, json={"access": "short"})
        seen.append(request.headers["authorization"])
        return httpx.Response(200, json={"release": "1.23.2", "results": []})

    Client(URL, f"{head}.x.y", transport=httpx.MockTransport(_jwt)).check()
    assert set(seen) == {"Bearer short"}


def test_pages_are_read_to_the_end(server: Any) -> None:
    client = server.client()
    project = client.create_project({"title": "abc"})
    client.import_tasks(project, [{"data": {"exam_id": str(n)}, "predictions": [{}]} for n in range(7)])
    for size in (2, 7, 10):
        found = list(client.tasks(project, include=("id", "data"), page_size=size))
        assert [task["data"]["exam_id"] for task in found] == [str(n) for n in range(7)]
