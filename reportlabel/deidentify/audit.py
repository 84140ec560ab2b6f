"""The audit log: who did what, when, for what purpose, to which codes. Lines can be added, never changed unseen.

One JSON object a line. Each holds the SHA-256 of the line before it (a hash chain), so that a changed, removed or
moved line breaks the chain; the *head*, a small file beside the log, holds number and hash of the last line, so that
lines cut off the end are noticed as well. With a key the head carries an HMAC: who lacks the key cannot write a log
anew together with a head that fits. A copy of the head in a second place (on paper, in another system) does the same
without a key.

Who keeps files that the log speaks of, as the linkage store does, gives a `Keeper`. It remembers, encrypted, the last
line and the SHA-256 of every file (`Anchor`), so that log and head deleted or put back together, and an older file put
back, are noticed as well. What is to come is remembered first, then the line is written, then the file, then what has
come: a program that is killed in between leaves one of the states that `AuditLog` goes on from, and no other is let
pass. A folder that is put back as a whole is a state that once was; only the copy in a second place tells it.

Times are those of the machine's clock, in UTC and in Japan Standard Time (UTC+9, no summer time).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Protocol

from reportlabel.errors import ConfigError, InputError
from reportlabel.export.atomic import AtomicText

try:
    import fcntl
except ImportError:  # not on Windows: two programs that write the same log at once are then not told apart
    fcntl = None  # type: ignore[assignment]

__all__ = ["CODE", "Anchor", "AuditLog", "Entry", "Keeper", "entries", "put_back", "verify"]

JST = timezone(timedelta(hours=9), "JST")
CODE = re.compile(r"[A-Z]{1,8}-[0-9A-HJKMNP-TV-Z]{6,32}")
"""What a study code looks like (`reportlabel.deidentify.linkage`); anything else is no code and is not written."""

_START = "0" * 64
_FIELDS = ("seq", "at_utc", "at_jst", "actor", "action", "purpose", "records", "details", "previous", "hash")
_WAIT_SECONDS = 30.0
_BLOCK = 65_536

Detail = str | int | bool | None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the log. ``records``: study codes; ``details``: counts, hashes, names of tables."""

    seq: int
    at_utc: str
    at_jst: str
    actor: str
    action: str
    purpose: str
    records: tuple[str, ...]
    details: Mapping[str, Detail]
    previous: str
    hash: str


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """What is remembered of a log and of the files that belong to it.

    ``seq``, ``hash``: of its last line; ``files``: name -> SHA-256 of the content. ``coming``, ``changing``: hash of a
    line, and the files with their new SHA-256, that were about to be written; both may have been, or not.
    """

    seq: int = 0
    hash: str = _START
    files: Mapping[str, str] = field(default_factory=dict)
    coming: str | None = None
    changing: Mapping[str, str] = field(default_factory=dict)

    def allows(self, name: str, digest: str | None) -> bool:
        """Whether a file may have this SHA-256, as far as can be said while others may write it."""
        return digest is not None and digest in (self.files.get(name), self.changing.get(name))


class Keeper(Protocol):
    """Who keeps the files of a log and remembers an `Anchor` where nobody without the key can write one."""

    def load(self) -> Anchor:
        """What was remembered last. Raises `ConfigError`: it is missing or was altered."""

    def save(self, anchor: Anchor) -> None:
        """Remember; whole or not at all."""

    def digest(self, name: str) -> str | None:
        """The SHA-256 of a file as it lies on the disk; None: there is none."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file; whole or not at all."""


def _now() -> datetime:
    return datetime.now(UTC)


class AuditLog:
    """An append-only log at ``path``; its head lies at ``path`` with ``.head`` added.

    ``key``: makes and checks the HMAC of the head. ``clock``: the time in UTC. ``keeper``: remembers the last line and
    the files.
    """

    def __init__(
        self,
        path: Path,
        *,
        key: bytes | None = None,
        clock: Callable[[], datetime] = _now,
        keeper: Keeper | None = None,
    ) -> None:
        self.path = path
        self._key = key
        self._clock = clock
        self._keeper = keeper

    def append(
        self,
        *,
        actor: str,
        action: str,
        purpose: str,
        records: Sequence[str] = (),
        details: Mapping[str, Detail] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> Entry:
        """Add one line; it is on the disk when this returns, and so are the files that it speaks of.

        In: ``actor`` (who asks), ``action`` (what is done), ``purpose`` (why); none may be empty. ``records``: study
        codes. ``files``: name -> content, written by the keeper after the line. Where an earlier program was killed
        between its line and its file, a line ``write stopped`` comes first: what that line says has not happened.

        Raises `ConfigError`: something is missing, a record is no study code, log or file cannot be written, or the end
        of the log fits neither its head nor what the keeper remembers.
        """
        for name, value in (("actor", actor), ("action", action), ("purpose", purpose)):
            if not value.strip():
                raise ConfigError(f"the audit log needs {name}; say who does what and why")
        if not all(CODE.fullmatch(record) for record in records):
            raise ConfigError("the audit log takes study codes only; an original id must not be written into it")
        with self.alone():
            end = self._end()
            anchor, stopped = self._settled(end)
            said = {"actor": actor.strip(), "purpose": purpose.strip()}
            for name in stopped:
                told: dict[str, Detail] = {"line": end[0], "file": name}
                line, anchor = self._add({**said, "action": "write stopped", "records": [], "details": told}, anchor)
            given = {"action": action.strip(), "records": list(records), "details": dict(details or {})}
            line, _ = self._add({**said, **given}, anchor, files or {})
        return Entry(**{**line, "records": tuple(records)})

    def _add(
        self, said: Mapping[str, Any], anchor: Anchor, files: Mapping[str, bytes] | None = None
    ) -> tuple[dict[str, Any], Anchor]:
        """Write a line and files after the line of the anchor; the line, and the anchor after it."""
        at = self._clock().astimezone(UTC)
        line: dict[str, Any] = {
            "seq": anchor.seq + 1,
            "at_utc": at.isoformat(timespec="milliseconds"),
            "at_jst": at.astimezone(JST).isoformat(timespec="milliseconds"),
            **said,
            "previous": anchor.hash,
        }
        line["hash"] = _hash(line)
        changing = {name: hashlib.sha256(content).hexdigest() for name, content in (files or {}).items()}
        if self._keeper is not None:
            self._keeper.save(replace(anchor, coming=line["hash"], changing=changing))
        # the head says first what is to come, so that a program that is stopped here leaves a log that is whole
        self._write_head(anchor.seq, anchor.hash, coming=line["hash"])
        self._write_line(line)
        self._write_head(line["seq"], line["hash"], coming=None)
        after = Anchor(seq=line["seq"], hash=line["hash"], files={**anchor.files, **changing})
        if self._keeper is not None:
            for name, content in (files or {}).items():
                self._keeper.write(name, content)
            self._keeper.save(after)
        return line, after

    def _settled(self, end: tuple[int, str]) -> tuple[Anchor, list[str]]:
        """The anchor at the end of the log, and the files that a killed program had announced and not written."""
        if self._keeper is None:
            return Anchor(seq=end[0], hash=end[1]), []
        anchor = self._keeper.load()
        if end == (anchor.seq, anchor.hash):  # of what was announced nothing was begun
            return Anchor(seq=anchor.seq, hash=anchor.hash, files=anchor.files), []
        if end != (anchor.seq + 1, anchor.coming):
            raise ConfigError(
                f"{self.path}: ends at line {end[0]}, and the store remembers line {anchor.seq} as the last; log or "
                "store is an older copy, or was deleted and made anew; nothing is added"
            )
        written = {name: sha for name, sha in anchor.changing.items() if self._keeper.digest(name) == sha}
        stopped = [name for name in anchor.changing if name not in written]
        return Anchor(seq=end[0], hash=end[1], files={**anchor.files, **written}), stopped

    def problems(self) -> list[str]:
        """What is wrong with the log (`verify`) and with the files of the keeper; empty where nothing is.

        What a killed program left is no problem.
        """
        with self.alone():
            try:
                end = self._end()
            except ConfigError:  # `verify` says of what kind it is
                end = None
            try:
                found = verify(self.path, key=self._key)
            except InputError as error:
                found = [str(error)]
            if self._keeper is None or end is None:
                return found
            try:
                anchor, _ = self._settled(end)
            except ConfigError as error:
                return [*found, str(error)]
            for name, sha in sorted(anchor.files.items()):
                there = self._keeper.digest(name)
                if there is None:
                    found.append(f"{self.path.parent / name}: is gone; put back the newest copy")
                elif there != sha:
                    found.append(f"{self.path.parent / name}: is not what was written last; an older copy, or altered")
        return found

    def head(self) -> tuple[int, str]:
        """Number and hash of the last line; (0, 64 zeros) of a log without any. Copy it to a second place."""
        found = _read_head(self.path)
        return (0, _START) if found is None else (found["seq"], found["hash"])

    def _end(self) -> tuple[int, str]:
        head = _read_head(self.path)
        if head is None:
            if self.path.exists() and self.path.stat().st_size:
                raise ConfigError(
                    f"{self.path}: its head is missing; run `reportlabel audit verify` and ask the custodian"
                )
            return 0, _START
        if self._key is not None and not hmac.compare_digest(str(head.get("mac")), _mac(self._key, head)):
            raise ConfigError(f"{self.path}: its head was changed, or made with another key; nothing is added to it")
        last = _last_line(self.path)
        if last is not None and not last.endswith(b"\n") and head["coming"] is not None:
            _cut_torn_line(self.path, last)  # stopped while it wrote; what it would have logged did not happen
            last = _last_line(self.path)
        seen = _parse(last) if last is not None else {"seq": 0, "hash": _START}
        if seen is not None and seen.get("seq") == head["seq"] and seen.get("hash") == head["hash"]:
            return head["seq"], head["hash"]
        if (
            seen is not None
            and seen.get("seq") == head["seq"] + 1
            and seen.get("hash") == head["coming"] == _hash(seen)
        ):
            return head["seq"] + 1, head["coming"]
        raise ConfigError(
            f"{self.path}: its end does not fit its head; run `reportlabel audit verify`, nothing is added"
        )

    def _write_line(self, line: Mapping[str, Any]) -> None:
        try:
            number = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(number, "ab") as stream:
                stream.write(_canonical(line) + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise ConfigError(f"cannot write {self.path}: {error.strerror}; the action is refused") from error

    def _write_head(self, seq: int, digest: str, *, coming: str | None) -> None:
        head: dict[str, Any] = {"seq": seq, "hash": digest, "coming": coming}
        if self._key is not None:
            head["mac"] = _mac(self._key, head)
        with AtomicText(_head_path(self.path)) as out:
            out.write(json.dumps(head, sort_keys=True) + "\n")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While this is held nobody else adds a line or writes a file of the keeper; `append` holds it itself."""
        lock = self.path.with_name(self.path.name + ".lock")
        try:
            number = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigError(f"cannot write {self.path}: {error.strerror}; the action is refused") from error
        with os.fdopen(number, "r+b") as stream:
            _wait_for(stream.fileno(), self.path)
            yield


def entries(path: Path) -> list[Entry]:
    """The lines of a log in order; lines that are none are left out, and `verify` names them.

    Raises:
        InputError: there is no log, or it cannot be read.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such audit log")
    try:
        lines = [_parse(raw) for raw in path.read_bytes().splitlines()]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return [
        Entry(**{**line, "records": tuple(line["records"])})
        for line in lines
        if line is not None and set(line) == set(_FIELDS)
    ]


def verify(path: Path, *, head: tuple[int, str] | None = None, key: bytes | None = None) -> list[str]:
    """What is wrong with a log; an empty list where nothing is.

    In: ``head``, number and hash of a line that were copied to a second place earlier (`AuditLog.head`): that line must
    still be there. ``key``: of the HMAC of the head. Messages name the file and the line, never what it says.

    Raises:
        InputError: there is no log, or it cannot be read.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such audit log")
    problems: list[str] = []
    interrupted = _coming(path) is not None
    expected, previous = 1, _START
    hashes: dict[int, str] = {0: _START}
    try:
        with path.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                if interrupted and not raw.endswith(b"\n"):
                    break  # a program was killed while it wrote; the next one cuts this off and goes on
                found = _line_problems(raw, expected=expected, previous=previous)
                problems += [f"{path}:{number}: {problem}" for problem in found]
                line = _parse(raw) or {}
                seq, digest = line.get("seq"), line.get("hash")
                # go on from what the line says, so that one change is one problem and not one for every line after it
                expected = seq + 1 if isinstance(seq, int) else expected + 1
                previous = digest if isinstance(digest, str) else _START
                if isinstance(seq, int):
                    hashes[seq] = previous
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    problems += _head_problems(path, last=(expected - 1, previous), key=key)
    if head is not None and hashes.get(head[0]) != head[1]:
        problems.append(f"{path}: line {head[0]} is gone or differs from the copy of the head kept elsewhere")
    return problems


def _coming(path: Path) -> str | None:
    """The hash of the line that the head announces; None: no line, or no head that can be read."""
    try:
        head = _read_head(path)
    except ConfigError:
        return None
    return None if head is None else head["coming"]


def _line_problems(raw: bytes, *, expected: int, previous: str) -> list[str]:
    line = _parse(raw)
    if line is None or set(line) != set(_FIELDS):
        return ["is no line of an audit log, or is cut short"]
    problems = []
    if line["hash"] != _hash(line) or _canonical(line) + b"\n" != raw:
        problems.append("was altered: its hash does not fit what it says")
    if line["seq"] != expected:
        problems.append(f"has number {line['seq']} instead of {expected}: lines were removed, added or moved before it")
    elif line["previous"] != previous:
        problems.append("does not follow the line before it: that one was altered, removed or moved")
    return problems


def _head_problems(path: Path, *, last: tuple[int, str], key: bytes | None) -> list[str]:
    try:
        head = _read_head(path)
    except ConfigError as error:
        return [str(error)]
    if head is None:
        return [f"{_head_path(path)}: is missing, so lines cut off the end would not be seen"]
    problems = []
    if key is not None and not hmac.compare_digest(str(head.get("mac")), _mac(key, head)):
        problems.append(f"{_head_path(path)}: was changed, or made with another key")
    interrupted = last == (head["seq"] + 1, head["coming"])
    if last[0] < head["seq"]:
        problems.append(f"{path}: ends at line {last[0]}, the head says {head['seq']}: lines were cut off the end")
    elif last != (head["seq"], head["hash"]) and not interrupted:
        problems.append(f"{path}: its last line is not the one of the head: lines were altered or added")
    return problems


def _canonical(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8")


def _hash(line: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical({key: value for key, value in line.items() if key != "hash"})).hexdigest()


def _mac(key: bytes, head: Mapping[str, Any]) -> str:
    said = _canonical({key: value for key, value in head.items() if key != "mac"})
    return hmac.new(key, said, hashlib.sha256).hexdigest()


def _parse(raw: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def _head_path(path: Path) -> Path:
    return path.with_name(path.name + ".head")


def put_back(path: Path) -> Path:
    """The path. A file that has no name but its second one gets its own again.

    On file systems without hard links `reportlabel.export.atomic` renames a file before the new one takes its name.
    """
    before = path.with_name(f".{path.name}.before")
    if not path.exists() and before.is_file():
        os.replace(before, path)
    return path


def _read_head(path: Path) -> dict[str, Any] | None:
    at = put_back(_head_path(path))
    try:
        head = _parse(at.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{at}: cannot be read: {error.strerror}") from error
    if (
        head is None
        or not isinstance(head.get("seq"), int)
        or not isinstance(head.get("hash"), str)
        or "coming" not in head
    ):
        raise ConfigError(f"{at}: is no head of an audit log; run `reportlabel audit verify`")
    return head


def _last_line(path: Path) -> bytes | None:
    """The last line with its newline, if it has one; read from the end, however long the log is."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            tail = b""
            while size and tail.count(b"\n") < 2:
                step = min(_BLOCK, size)
                size -= step
                stream.seek(size)
                tail = stream.read(step) + tail
    except FileNotFoundError:
        return None
    return tail.splitlines(keepends=True)[-1] if tail else None


def _cut_torn_line(path: Path, torn: bytes) -> None:
    with path.open("r+b") as stream:
        stream.truncate(stream.seek(0, os.SEEK_END) - len(torn))


def _wait_for(number: int, path: Path) -> None:
    if fcntl is None:
        return
    end = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise ConfigError(f"{path}: another program has been writing it for long; try again later") from None
            time.sleep(0.02)
        else:
            return
