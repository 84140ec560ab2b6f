"""The audit log: what is written, and that no change goes unseen."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reportlabel.deidentify.audit import AuditLog, verify
from reportlabel.errors import ConfigError, InputError

Lines = list[bytes]


def clock(start: datetime = datetime(2025, 3, 31, 15, 30, tzinfo=UTC)) -> Callable[[], datetime]:
    moments = (start + timedelta(seconds=step) for step in range(10_000))
    return lambda: next(moments)


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    log = AuditLog(tmp_path / "audit.jsonl", clock=clock())
    for number in range(5):
        log.append(actor="custodian", action="lookup", purpose=f"checks no. {number}", records=[f"P-00000{number}"])
    return log


def lines(log: AuditLog) -> Lines:
    return log.path.read_bytes().splitlines(keepends=True)


def test_a_line_says_who_what_when_why(log: AuditLog) -> None:
    first = json.loads(lines(log)[0])
    assert first["actor"] == "custodian" and first["action"] == "lookup" and first["purpose"] == "checks no. 0"
    assert first["records"] == ["P-000000"]
    assert first["at_utc"] == "2025-03-31T15:30:00.000+00:00"
    assert first["at_jst"] == "2025-04-01T00:30:00.000+09:00"
    assert verify(log.path) == []


def test_an_altered_line_is_named(log: AuditLog) -> None:
    whole = lines(log)
    whole[2] = whole[2].replace(b"checks no. 2", b"checks no. 7")
    log.path.write_bytes(b"".join(whole))
    assert any(":3: was altered" in problem for problem in verify(log.path))


def test_an_altered_line_with_a_new_hash_breaks_the_chain(log: AuditLog) -> None:
    from reportlabel.deidentify.audit import _canonical, _hash

    whole = lines(log)
    line = json.loads(whole[2])
    line["purpose"] = "something else"
    line["hash"] = _hash(line)
    whole[2] = _canonical(line) + b"\n"
    log.path.write_bytes(b"".join(whole))
    assert any(":4: does not follow" in problem for problem in verify(log.path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda whole: [*whole[:2], *whole[3:]], ":3: has number 4 instead of 3"),
        (lambda whole: [whole[0], whole[2], whole[1], *whole[3:]], ":2: has number 3 instead of 2"),
        (lambda whole: [*whole[:3], whole[2], *whole[3:]], ":4: has number 3 instead of 4"),
        (lambda whole: whole[:4], "cut off the end"),
        (lambda whole: [], "cut off the end"),
        (lambda whole: [*whole[:4], whole[4][:40]], ":5: is no line"),
        (lambda whole: [b" " + whole[0], *whole[1:]], ":1: was altered"),
    ],
)
def test_removed_moved_added_and_cut_lines_are_found(
    log: AuditLog, change: Callable[[Lines], Lines], said: str
) -> None:
    log.path.write_bytes(b"".join(change(lines(log))))
    assert any(said in problem for problem in verify(log.path)), verify(log.path)


def test_a_log_that_does_not_fit_its_head_takes_no_more_lines(log: AuditLog) -> None:
    log.path.write_bytes(b"".join(lines(log)[:4]))
    with pytest.raises(ConfigError, match="does not fit its head"):
        log.append(actor="a", action="b", purpose="c")
    log.path.with_name("audit.jsonl.head").unlink()
    with pytest.raises(ConfigError, match="head is missing"):
        log.append(actor="a", action="b", purpose="c")
    assert any("is missing" in problem for problem in verify(log.path))


def test_a_log_written_anew_is_found_by_a_copy_of_the_head_or_by_the_key(tmp_path: Path) -> None:
    path, key = tmp_path / "audit.jsonl", b"k" * 32
    log = AuditLog(path, key=key, clock=clock())
    for _ in range(3):
        log.append(actor="a", action="b", purpose="c")
    copy = log.head()
    assert verify(path, head=copy, key=key) == []
    path.unlink()
    path.with_name("audit.jsonl.head").unlink()
    forged = AuditLog(path, clock=clock())
    for _ in range(4):
        forged.append(actor="nobody", action="b", purpose="c")
    assert verify(path) == []
    assert any("differs from the copy" in problem for problem in verify(path, head=copy))
    assert any("another key" in problem for problem in verify(path, key=key))
    with pytest.raises(ConfigError, match="another key"):
        log.append(actor="a", action="b", purpose="c")


@pytest.mark.parametrize("stopped_in", ["_write_line", "_write_head"])
def test_a_program_that_is_stopped_leaves_a_log_that_is_whole(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch, stopped_in: str
) -> None:
    real, calls = getattr(AuditLog, stopped_in), []

    def stopped(self: AuditLog, *given: object, **named: object) -> None:
        calls.append(1)
        if stopped_in == "_write_line":
            with self.path.open("ab") as stream:
                stream.write(b'{"act')
        if stopped_in == "_write_line" or len(calls) == 2:
            raise KeyboardInterrupt
        real(self, *given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(AuditLog, stopped_in, stopped)
        with pytest.raises(KeyboardInterrupt):
            log.append(actor="a", action="b", purpose="c")
    assert verify(log.path) == []
    log.append(actor="a", action="after", purpose="c")
    assert verify(log.path) == []
    assert len(lines(log)) == (6 if stopped_in == "_write_line" else 7)


def test_an_original_id_is_not_written(log: AuditLog) -> None:
    with pytest.raises(ConfigError, match="study codes only") as refused:
        log.append(actor="a", action="b", purpose="c", records=["P-000001", "70000001"])
    assert "70000001" not in str(refused.value)
    assert len(lines(log)) == 5


@pytest.mark.parametrize("missing", ["actor", "action", "purpose"])
def test_who_what_and_why_are_needed(log: AuditLog, missing: str) -> None:
    with pytest.raises(ConfigError, match=missing):
        log.append(**{"actor": "a", "action": "b", "purpose": "c", missing: " "})  # type: ignore[arg-type]


def test_many_at_once_make_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"

    def write() -> None:
        for _ in range(5):
            AuditLog(path).append(actor="a", action="b", purpose="c")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verify(path) == [] and AuditLog(path).head()[0] == 20


def test_no_log_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such audit log"):
        verify(tmp_path / "none.jsonl")
