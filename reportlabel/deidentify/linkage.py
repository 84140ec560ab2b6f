"""The linkage store: original id <-> study code, encrypted, apart from everything else.

    FOLDER/
      linkage.key        what the store is, and its data key, wrapped with the custodian's key; authenticated
      codes.bin          the codes of patients, exams, reports, records; encrypted with the data key
      tables/NAME.bin    tables that belong beside it (offset maps of the texts); encrypted with the data key
      audit.jsonl        who issued, looked up, destroyed; with a head beside it
      state.bin          the last line of the log and the SHA-256 of every file above; encrypted with the data key
      certificate.json   only after `LinkageStore.destroy`

Codes are random (`secrets`), so that nobody can compute one from an id; each study has a store of its own, so that the
codes of two studies have nothing in common. Encryption is AES-256-GCM; the header of `linkage.key` and the name and
generation of every encrypted file are authenticated with it. The custodian's key never lies in the store: it comes
from an environment variable, a key file elsewhere, or a passphrase through scrypt (RFC 7914). Destroying the wrapped
data key makes every copy of the encrypted files unreadable, as long as there is no copy of `linkage.key`.

Nothing is read that is not what was written last: an older copy of a file, a file that is gone, and a log that was cut,
deleted or made anew are refused (`reportlabel.deidentify.audit.Keeper`). A whole folder that was put back is what it
once was and is not noticed; number and hash of the last line of the log, kept elsewhere, tell it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import polars as pl
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from reportlabel.deidentify.audit import CODE, JST, Anchor, AuditLog, Detail, put_back
from reportlabel.deidentify.private_file import write_private
from reportlabel.errors import ConfigError, InputError

try:
    import fcntl
except ImportError:  # not on Windows: two programs that use the same store at once are then not told apart
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "CODES",
    "Certificate",
    "CodeKind",
    "EnvironmentKey",
    "KeyFile",
    "KeySource",
    "LinkageStore",
    "Passphrase",
    "certificate_of",
    "make_key_file",
    "patient_key",
    "patients_of",
    "random_codes",
    "refuse_overlap",
]

CodeKind = Literal["patient", "exam", "report", "record"]
_PREFIX: dict[CodeKind, str] = {"patient": "P", "exam": "E", "report": "R", "record": "C"}

CODES = pl.Schema({"kind": pl.String, "original": pl.String, "code": pl.String})
"""The content of a store: one row an original id. Within a kind originals and codes are unique."""

_ALPHABET = np.frombuffer(b"0123456789ABCDEFGHJKMNPQRSTVWXYZ", dtype="S1")  # Crockford: no I, L, O, U to misread
# where a study asks for no other; 50 random bits: with a million patients one draw in a thousand million is drawn again
_CODE_LENGTH = 10

_FORMAT = 2  # 1 had no state.bin
_KEY_BYTES = 32
_NONCE_BYTES = 12
_KEY_NAME, _CODES_NAME, _AUDIT_NAME, _CERTIFICATE_NAME = "linkage.key", "codes.bin", "audit.jsonl", "certificate.json"
_STATE_NAME, _TABLES_NAME = "state.bin", "tables"
_MAGIC = b"RLLINK1\n"
_TABLE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_WAIT_SECONDS = 30.0

# scrypt: 128 * r * n bytes of memory. The bounds keep a changed header from asking for too little or for everything.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**17, 8, 1
_SCRYPT_N_BOUNDS = (2**14, 2**20)
_SHORTEST_PASSPHRASE = 12


def patient_key(site: str, patient_id: str) -> str:
    """What a patient is called in the store: the hospital and its number, since another hospital has the same numbers.

    Raises `ConfigError`: the hospital has a slash in its id.
    """
    if "/" in site:
        raise ConfigError("the id of a hospital must not have a slash; write another in archive.yaml and the protocol")
    return f"{site}/{patient_id}"


def patients_of(codes: pl.DataFrame) -> pl.DataFrame:
    """Columns site, patient_id, patient_code of codes of patients (columns ``original``, ``code``; `patient_key`)."""
    parts = pl.col("original").str.splitn("/", 2)
    return codes.select(
        site=parts.struct.field("field_0"), patient_id=parts.struct.field("field_1"), patient_code="code"
    ).drop_nulls()


# --- keys -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EnvironmentKey:
    """The custodian's key in an environment variable: 32 random bytes as base64 or 64 hexadecimal digits."""

    variable: str


@dataclass(frozen=True)
class KeyFile:
    """The custodian's key in a file outside the store, as `make_key_file` writes it; readable by its owner alone."""

    path: Path


@dataclass(frozen=True)
class Passphrase:
    """A passphrase in an environment variable, or from ``ask`` (which prompts for it); at least 12 characters.

    ``n``: the cost of scrypt for a new store, a power of two; an existing store knows its own.
    """

    variable: str = ""
    ask: Callable[[], str] | None = None
    n: int = _SCRYPT_N


KeySource = EnvironmentKey | KeyFile | Passphrase


def make_key_file(path: Path) -> KeyFile:
    """Write a new random key, for the owner's eyes only. Raises `ConfigError` where there is a file already."""
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigError(f"{path} exists; a key file is never overwritten, give another name") from error
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    with os.fdopen(number, "wb") as stream:
        stream.write(base64.b64encode(secrets.token_bytes(_KEY_BYTES)) + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    return KeyFile(path)


def _wrapping_key(source: KeySource, kdf: dict[str, Any] | None) -> bytes:
    """The key that wraps the data key. ``kdf``: what the header says of scrypt; none without a passphrase."""
    if isinstance(source, Passphrase):
        if kdf is None:
            raise ConfigError("this linkage store is opened with a key, not with a passphrase")
        return _stretched(_passphrase(source), kdf)
    if kdf is not None:
        raise ConfigError("this linkage store is opened with a passphrase, not with a key")
    if isinstance(source, KeyFile):
        return _decoded(_key_file_bytes(source.path), f"key file {source.path}")
    value = os.environ.get(source.variable)
    if not value:
        raise ConfigError(
            f"environment variable {source.variable} is not set; it must hold the key of the linkage store"
        )
    return _decoded(value.encode("utf-8", "surrogateescape"), f"environment variable {source.variable}")


def _key_file_bytes(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"key file {path} cannot be read: {error.strerror}") from error
    if os.name == "posix" and mode & 0o077:
        raise ConfigError(f"key file {path} can be read by others; run `chmod 600` on it")
    return content


def _decoded(content: bytes, where: str) -> bytes:
    text = content.strip()
    for decode in (binascii.unhexlify, lambda raw: base64.b64decode(raw, validate=True)):
        try:
            key = decode(text)
        except (binascii.Error, ValueError):
            continue
        if len(key) == _KEY_BYTES:
            return key
    raise ConfigError(f"{where} holds no key; a key is 32 random bytes as base64 or 64 hexadecimal digits")


def _passphrase(source: Passphrase) -> str:
    phrase = source.ask() if source.ask is not None else os.environ.get(source.variable, "")
    if len(phrase) < _SHORTEST_PASSPHRASE:
        raise ConfigError(f"the passphrase of a linkage store has at least {_SHORTEST_PASSPHRASE} characters")
    return phrase


def _stretched(phrase: str, kdf: dict[str, Any]) -> bytes:
    low, high = _SCRYPT_N_BOUNDS
    n, r, p = kdf.get("n"), kdf.get("r"), kdf.get("p")
    if not (isinstance(n, int) and low <= n <= high and n & (n - 1) == 0 and r == _SCRYPT_R and p == _SCRYPT_P):
        raise ConfigError(f"scrypt needs n, a power of two from {low} to {high}, r={_SCRYPT_R} and p={_SCRYPT_P}")
    salt = base64.b64decode(str(kdf.get("salt")))
    return Scrypt(salt=salt, length=_KEY_BYTES, n=n, r=r, p=p).derive(phrase.encode("utf-8"))


# --- where it may lie -------------------------------------------------------------------------------------------------


def refuse_overlap(folder: Path, others: Iterable[tuple[str, Path]]) -> None:
    """Refuse a folder that is, lies in, or holds one of the others (given with a word for each: workspace, export).

    Links are followed, and folders are compared as the file system knows them, so that a second name does not help.

    Raises:
        ConfigError: which two overlap, and how.
    """
    for word, other in others:
        if _same_or_within(folder, other):
            raise ConfigError(f"the linkage store {folder} lies in the {word} {other}; it must lie apart from it")
        if _same_or_within(other, folder):
            raise ConfigError(f"the {word} {other} lies in the linkage store {folder}; they must lie apart")


def _same_or_within(inner: Path, outer: Path) -> bool:
    real_inner, real_outer = Path(os.path.realpath(inner)), Path(os.path.realpath(outer))
    if real_inner.is_relative_to(real_outer):
        return True
    if not real_outer.exists():
        return False
    return any(parent.exists() and os.path.samefile(parent, real_outer) for parent in (real_inner, *real_inner.parents))


# --- the store --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What was destroyed: when, by whom, why, how much. Holds no id and no code.

    ``counts``: codes of each kind; ``files``: name, bytes and SHA-256 of each destroyed file as it lay on the disk;
    ``audit_seq``, ``audit_hash``: the last line of the audit log before the certificate was finished.
    """

    study: str
    store: str
    state: Literal["begun", "done"]
    begun_at_utc: str
    begun_at_jst: str
    finished_at_utc: str | None
    actor: str
    custodian: str
    purpose: str
    counts: dict[str, int]
    files: list[dict[str, str | int]]
    audit_seq: int
    audit_hash: str
    method: str
    custodian_key: str


_METHOD = (
    "The only copy in the store of the wrapped data key was overwritten and deleted, then the files it had encrypted "
    "(AES-256-GCM). Copies of linkage.key in backups must be destroyed by who keeps them."
)


class LinkageStore:
    """An opened store. Made by `create` and `open`; every use that gives data is written into its audit log first."""

    def __init__(self, folder: Path, header: dict[str, Any], data_key: bytes, key_source: KeySource) -> None:
        self.folder = folder
        self.study: str = header["study"]
        self.custodian: str = header["custodian"]
        self.store_id: str = header["store"]
        self._header = header
        self._key = data_key
        self._source = key_source
        self._cached: tuple[int, pl.DataFrame] | None = None
        self._keeper = _Keeper(folder, self.store_id, data_key)
        self.log = AuditLog(folder / _AUDIT_NAME, key=self._derived("audit"), keeper=self._keeper)

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        study: str,
        key_source: KeySource,
        custodian: str,
        actor: str,
        purpose: str,
        workspace: Path | None,
        exports: Sequence[Path] = (),
        patient_prefix: str = _PREFIX["patient"],
        digits: int = _CODE_LENGTH,
    ) -> LinkageStore:
        """Make an empty store of one study in a new or empty folder.

        In: ``custodian``, the one person who may look codes up; ``workspace`` and ``exports``, which the store must lie
        apart from; ``patient_prefix``, the letters before the codes of patients, and ``digits``, how many letters and
        digits follow. Raises `ConfigError`: the folder holds something, overlaps with one of those or holds the key,
        or the key cannot be had.
        """
        for name, value in (("study", study), ("custodian", custodian), ("actor", actor), ("purpose", purpose)):
            if not value.strip():
                raise ConfigError(f"a linkage store cannot be made without {name}")
        prefix = patient_prefix.removesuffix("-")
        others = {one for kind, one in _PREFIX.items() if kind != "patient"}
        if prefix in others or not CODE.fullmatch(f"{prefix}-{'0' * digits}"):
            raise ConfigError(
                "codes of patients begin with up to 8 capital letters, not E, R or C alone, and 6 to 32 letters and "
                "digits follow"
            )
        _refuse_place(folder, key_source, workspace, exports)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} holds something; a linkage store is made in a new or empty folder")
        kdf = None
        if isinstance(key_source, Passphrase):
            salt = base64.b64encode(secrets.token_bytes(16)).decode()
            kdf = {"name": "scrypt", "n": key_source.n, "r": _SCRYPT_R, "p": _SCRYPT_P, "salt": salt}
        header = {
            "format": _FORMAT,
            "store": secrets.token_hex(16),
            "study": study.strip(),
            "custodian": custodian.strip(),
            "created_at_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "kdf": kdf,
            "patient_prefix": prefix,
            "digits": digits,
        }
        wrapping = _wrapping_key(key_source, kdf)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
            (folder / _TABLES_NAME).mkdir(mode=0o700)
        except OSError as error:
            raise ConfigError(f"cannot make the linkage store {folder}: {error.strerror}") from error
        data_key = AESGCM.generate_key(bit_length=256)
        store = cls(folder, header, data_key, key_source)
        with store._locked():
            store._keeper.save(Anchor())
            key_file = _sealed_key(header, data_key, wrapping)
            store._write_codes(
                CODES.to_frame(), 1, actor=actor, action="create", purpose=purpose, details={}, key_file=key_file
            )
        return store

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        key_source: KeySource,
        study: str | None = None,
        workspace: Path | None,
        exports: Sequence[Path] = (),
    ) -> LinkageStore:
        """Open a store. ``study``: refuse the store of another study.

        Raises:
            ConfigError: no store, destroyed, overlaps with the workspace or an export, wrong key, altered header, an
                older ``linkage.key`` that was put back.
        """
        _refuse_place(folder, key_source, workspace, exports)
        _refuse_destroyed(folder)
        header, head, wrapped = _read_key(folder)
        wrapping = _wrapping_key(key_source, header["kdf"])
        try:
            data_key = AESGCM(wrapping).decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], head)
        except InvalidTag:
            raise ConfigError(f"{folder}: wrong key, or {_KEY_NAME} was altered; nothing was read") from None
        if study is not None and header["study"] != study:
            raise ConfigError(f"{folder} is the linkage store of another study; each study has a store of its own")
        store = cls(folder, header, data_key, key_source)
        store._content(_KEY_NAME)
        return store

    # --- codes

    def issue(self, kind: CodeKind, originals: Iterable[str], *, actor: str, purpose: str) -> pl.DataFrame:
        """The codes of original ids; ids without one get a new random one.

        Out: columns ``original``, ``code``, one row a distinct id in the order given. The log gets a line with counts.
        Raises `InputError`: an id is empty; `ConfigError`: the store cannot be written.
        """
        asked = _distinct(kind, originals)
        with self._locked():
            generation, codes = self._read_codes()
            of_kind = codes.filter(pl.col("kind") == kind)
            new = asked.join(of_kind, on="original", how="anti", maintain_order="left")
            details: dict[str, Detail] = {"kind": kind, "asked": asked.height, "issued": new.height}
            if new.height:
                fresh = _new_codes(self._form(kind), new.height, of_kind["code"])
                added = new.select(kind=pl.lit(kind), original="original", code=fresh)
                codes = pl.concat([codes, added])
                self._write_codes(codes, generation + 1, actor=actor, action="issue", purpose=purpose, details=details)
            else:
                self.log.append(actor=actor, action="issue", purpose=purpose, details=details)
        return _codes_of(asked, codes, kind)

    def codes_of(self, kind: CodeKind, originals: Iterable[str], *, actor: str, purpose: str) -> pl.DataFrame:
        """The codes of original ids, null where there is none; issues nothing. Columns ``original``, ``code``.

        Written into the log with the codes that were found.
        """
        asked = _distinct(kind, originals)
        found = _codes_of(asked, self._read_codes()[1], kind)
        known = found["code"].drop_nulls().to_list()
        details: dict[str, Detail] = {"kind": kind, "asked": asked.height, "found": len(known)}
        self.log.append(actor=actor, action="codes_of", purpose=purpose, records=known, details=details)
        return found

    def all_codes(self, kind: CodeKind, *, actor: str, purpose: str) -> pl.DataFrame:
        """Every original id of a kind with its code (columns ``original``, ``code``), for the work of the study itself.

        Nothing of it may leave this process. Written into the log with their number.
        """
        found = self._read_codes()[1].filter(pl.col("kind") == kind).select("original", "code")
        details: dict[str, Detail] = {"kind": kind, "found": found.height}
        self.log.append(actor=actor, action="all_codes", purpose=purpose, details=details)
        return found

    def lookup(self, codes: Iterable[str], *, custodian: str, actor: str, purpose: str) -> pl.DataFrame:
        """The original ids of codes: columns ``kind``, ``code``, ``original``, in the order given.

        Only through the custodian of the store. Every try is written into the log, with the codes, before anything is
        read.

        Raises:
            ConfigError: ``custodian`` is not the store's, or actor or purpose is missing.
            InputError: a code is not of this store.
        """
        asked = list(dict.fromkeys(codes))
        self._as_custodian("lookup", custodian=custodian, actor=actor, purpose=purpose)
        table = self._read_codes()[1]
        found = pl.DataFrame({"code": asked}, schema={"code": pl.String}).join(
            table, on="code", how="left", maintain_order="left"
        )
        unknown = found["original"].null_count()
        known = found.filter(pl.col("original").is_not_null())["code"].to_list()
        details: dict[str, Detail] = {"asked": len(asked), "unknown": unknown}
        self.log.append(actor=actor, action="lookup", purpose=purpose, records=known, details=details)
        if unknown:
            raise InputError(
                f"{unknown} of {len(asked)} codes are none of the study {self.study}; nothing was looked up"
            )
        return found.select("kind", "code", "original")

    def forget(self, codes: Iterable[str], *, custodian: str, actor: str, purpose: str) -> int:
        """Remove codes with their original ids, for a patient who withdrew; out: how many were removed."""
        gone = list(dict.fromkeys(codes))
        self._as_custodian("forget", custodian=custodian, actor=actor, purpose=purpose)
        with self._locked():
            generation, table = self._read_codes()
            kept = table.filter(~pl.col("code").is_in(gone))
            removed = table.filter(pl.col("code").is_in(gone))["code"].to_list()
            details: dict[str, Detail] = {"asked": len(gone), "removed": len(removed)}
            self._write_codes(
                kept, generation + 1, actor=actor, action="forget", purpose=purpose, details=details, records=removed
            )
        return len(removed)

    def counts(self) -> dict[str, int]:
        """How many codes of each kind there are."""
        counted = dict(self._read_codes()[1].group_by("kind").len().iter_rows())
        return {kind: int(counted.get(kind, 0)) for kind in get_args(CodeKind)}

    # --- keys and tables beside the codes

    @property
    def uid_key(self) -> bytes:
        """32 bytes for keyed DICOM UIDs: the same for the life of the store, gone when it is destroyed."""
        return self._derived("uid")

    @property
    def date_key(self) -> bytes:
        """32 bytes for the shift of a patient's dates: the same for the life of the store."""
        return self._derived("date")

    def put(self, name: str, table: pl.DataFrame, *, actor: str, purpose: str) -> None:
        """Write a table (such as `reportlabel.deidentify.offsets.OFFSETS`) encrypted; one of that name is replaced."""
        file = _table_file(name)
        with self._locked():
            self._write_table(name, file, table, actor=actor, purpose=purpose)

    def add(self, name: str, rows: pl.DataFrame, *, actor: str, purpose: str) -> None:
        """Add rows to a table of `put`, or make it; each row stands once. Two programs may do so at a time.

        Raises `ConfigError`: the table is gone, or is not what was written last.
        """
        file = _table_file(name)
        with self._locked():
            before = [self._unseal(file)[1]] if self._has(file) else []
            table = pl.concat([*before, rows]).unique(maintain_order=True)
            self._write_table(name, file, table, actor=actor, purpose=purpose)

    def get(self, name: str, *, actor: str, purpose: str) -> pl.DataFrame:
        """Read a table that `put` wrote.

        Raises `InputError`: none was ever written; `ConfigError`: it is gone, or is not what was written last.
        """
        file = _table_file(name)
        if not self._has(file):
            raise InputError(f"the linkage store {self.folder} holds no table '{name}'")
        self.log.append(actor=actor, action="get", purpose=purpose, details={"table": name})
        return self._unseal(file)[1]

    def tables(self) -> list[str]:
        """The names of the tables that `put` wrote, sorted; also of those that are gone, which `get` refuses."""
        at = Path(_TABLES_NAME)
        return sorted(Path(file).stem for file in self._files() if Path(file).parent == at)

    # --- care of the store

    def problems(self) -> list[str]:
        """What is wrong with the store and its log; empty where nothing is.

        Besides `reportlabel.deidentify.audit.verify`: whether the log ends where the store remembers, and whether each
        file is there and is the one that was written last. What a killed program left is no problem.
        """
        found = self.log.problems()
        try:
            known = {self.folder / file for file in self._files()}
        except ConfigError:  # it stands among what was found
            return found
        beside = [path for path in sorted((self.folder / _TABLES_NAME).glob("*.bin")) if path not in known]
        return found + [f"{path}: was not written by this store" for path in beside]

    def change_key(self, new: KeySource, *, custodian: str, actor: str, purpose: str) -> None:
        """Wrap the data key with another custodian's key; the old one no longer opens the store.

        A copy of the old `linkage.key` with the old key still does: destroy such copies.
        """
        self._as_custodian("change_key", custodian=custodian, actor=actor, purpose=purpose)
        if isinstance(new, KeyFile):
            refuse_overlap(new.path, [("linkage store", self.folder)])
        kdf = None
        if isinstance(new, Passphrase):
            salt = base64.b64encode(secrets.token_bytes(16)).decode()
            kdf = {"name": "scrypt", "n": new.n, "r": _SCRYPT_R, "p": _SCRYPT_P, "salt": salt}
        header = {**self._header, "kdf": kdf}
        wrapping = _wrapping_key(new, kdf)
        with self._locked():
            files = {_KEY_NAME: _sealed_key(header, self._key, wrapping)}
            self.log.append(actor=actor, action="change_key", purpose=purpose, files=files)
        self._header, self._source = header, new

    def destroy(self, *, custodian: str, actor: str, purpose: str) -> Certificate:
        """Make it impossible to link a code to a patient again, and write `certificate.json`.

        The wrapped data key is overwritten and deleted first, then what it encrypted. The audit log stays: it holds
        codes only. The custodian's own key is not touched (it may open other stores); the certificate names it.
        """
        self._as_custodian("destroy", custodian=custodian, actor=actor, purpose=purpose)
        with self._locked():
            counts = self.counts()
            entry = self.log.append(actor=actor, action="destroy", purpose=purpose, details={**counts})
            begun = datetime.now(UTC)
            certificate = Certificate(
                study=self.study,
                store=self.store_id,
                state="begun",
                begun_at_utc=begun.isoformat(timespec="seconds"),
                begun_at_jst=begun.astimezone(JST).isoformat(timespec="seconds"),
                finished_at_utc=None,
                actor=actor,
                custodian=custodian,
                purpose=purpose,
                counts=counts,
                files=[
                    {
                        "name": path.relative_to(self.folder).as_posix(),
                        "bytes": path.stat().st_size,
                        "sha256": _sha256(path.read_bytes()),
                    }
                    for path in _secret_files(self.folder)
                ],
                audit_seq=entry.seq,
                audit_hash=entry.hash,
                method=_METHOD,
                custodian_key=f"not destroyed: {_said(self._source)}",
            )
            _write_certificate(self.folder, certificate)
            done = _erase(self.folder, certificate)
            digest = _sha256((self.folder / _CERTIFICATE_NAME).read_bytes())
            # what the store remembered is gone with its key, so the last line is remembered nowhere
            log = AuditLog(self.log.path, key=self._derived("audit"))
            log.append(actor=actor, action="destroyed", purpose=purpose, details={"certificate_sha256": digest})
        self._key = b""
        self._cached = None
        return done

    # --- inside

    def _derived(self, use: str) -> bytes:
        if not self._key:
            raise ConfigError(f"the linkage store {self.folder} was destroyed")
        info = f"reportlabel linkage {self.store_id} {use}".encode()
        return HKDFExpand(algorithm=SHA256(), length=_KEY_BYTES, info=info).derive(self._key)

    def _form(self, kind: CodeKind) -> _Form:
        prefix = str(self._header.get("patient_prefix", _PREFIX[kind])) if kind == "patient" else _PREFIX[kind]
        return _Form(prefix, int(self._header.get("digits", _CODE_LENGTH)))

    def _as_custodian(self, action: str, *, custodian: str, actor: str, purpose: str) -> None:
        if custodian.strip() == self.custodian:
            return
        self.log.append(actor=actor, action=f"{action} refused", purpose=purpose, details={"reason": "custodian"})
        raise ConfigError(f"only the custodian of the study {self.study} may do this; the attempt was logged")

    def _files(self) -> set[str]:
        """The files that were written, also those that are gone since."""
        anchor = self._keeper.load()
        if not anchor.changing:
            return set(anchor.files)
        with self.log.alone():  # whoever announced a file has written it now, or was killed before
            anchor = self._keeper.load()
            return {
                *anchor.files,
                *(name for name, sha in anchor.changing.items() if self._keeper.digest(name) == sha),
            }

    def _has(self, file: str) -> bool:
        if file in self._files():
            return True
        # asked twice: what another program has written meanwhile was announced before
        if (self.folder / file).is_file() and file not in self._files():
            raise ConfigError(f"{self.folder / file}: was altered, or not written by this store; nothing was read")
        return (self.folder / file).is_file()

    def _read_codes(self) -> tuple[int, pl.DataFrame]:
        _refuse_destroyed(self.folder)
        stamp = _generation(put_back(self.folder / _CODES_NAME))
        if self._cached is None or self._cached[0] != stamp:
            self._cached = self._unseal(_CODES_NAME)
        return self._cached

    def _write_codes(
        self,
        codes: pl.DataFrame,
        generation: int,
        *,
        actor: str,
        action: str,
        purpose: str,
        details: dict[str, Detail],
        records: Sequence[str] = (),
        key_file: bytes | None = None,
    ) -> None:
        files = {_CODES_NAME: self._seal(codes, _CODES_NAME, generation)}
        logged = {**details, "generation": generation, "codes_sha256": _sha256(files[_CODES_NAME])}
        if key_file is not None:
            files[_KEY_NAME] = key_file
        self.log.append(actor=actor, action=action, purpose=purpose, records=records, details=logged, files=files)
        self._cached = generation, codes

    def _write_table(self, name: str, file: str, table: pl.DataFrame, *, actor: str, purpose: str) -> None:
        sealed = self._seal(table, file, 0)
        details: dict[str, Detail] = {"table": name, "rows": table.height, "sha256": _sha256(sealed)}
        self.log.append(actor=actor, action="put", purpose=purpose, details=details, files={file: sealed})

    def _seal(self, table: pl.DataFrame, file: str, generation: int) -> bytes:
        plain = io.BytesIO()
        table.write_parquet(plain, compression="zstd", compression_level=1, statistics=False)
        return self._keeper.seal(plain.getbuffer(), file, generation)

    def _unseal(self, file: str) -> tuple[int, pl.DataFrame]:
        generation, plain = self._keeper.unseal(self._content(file), file)
        return generation, pl.read_parquet(io.BytesIO(plain))

    def _content(self, file: str) -> bytes:
        """What was written last into a file. Raises `ConfigError`: something else lies there, or nothing."""
        content = self._keeper.read(file)
        if self._keeper.load().allows(file, _sha256(content)):
            return content
        with self.log.alone():  # another program may have written it between the two reads
            content = self._keeper.read(file)
            if self._keeper.load().allows(file, _sha256(content)):
                return content
        raise ConfigError(
            f"{self.folder / file}: is not what this store wrote last: an older copy, one of another store, or "
            "altered; nothing was read"
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with _lock(self.folder):
            yield


class _Keeper:
    """The encrypted files of a store, and what it remembers of its log (`reportlabel.deidentify.audit.Keeper`)."""

    def __init__(self, folder: Path, store_id: str, key: bytes) -> None:
        self._folder = folder
        self._store_id = store_id
        self._key = key

    def load(self) -> Anchor:
        path = put_back(self._folder / _STATE_NAME)
        if not path.is_file():
            if (self._folder / _CERTIFICATE_NAME).is_file():
                raise ConfigError(f"the linkage store {self._folder} was destroyed; see {_CERTIFICATE_NAME} in it")
            raise ConfigError(f"{path}: is gone; put back the newest copy of the whole folder")
        return Anchor(**json.loads(self.unseal(self.read(_STATE_NAME), _STATE_NAME)[1]))

    def save(self, anchor: Anchor) -> None:
        said = json.dumps(asdict(anchor), sort_keys=True).encode("utf-8")
        self.write(_STATE_NAME, self.seal(said, _STATE_NAME, anchor.seq))

    def digest(self, name: str) -> str | None:
        return _sha256(self.read(name)) if put_back(self._folder / name).is_file() else None

    def write(self, name: str, content: bytes) -> None:
        write_private(self._folder / name, content)

    def read(self, name: str) -> bytes:
        path = put_back(self._folder / name)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise ConfigError(f"{path}: is gone; put back the newest copy, nothing was read") from None
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error

    def seal(self, plain: bytes | memoryview, name: str, generation: int) -> bytes:
        header = _MAGIC + generation.to_bytes(8, "big")
        nonce = secrets.token_bytes(_NONCE_BYTES)
        try:
            sealed = AESGCM(self._key).encrypt(nonce, plain, self._bound(header, name))
        except OverflowError:
            raise ConfigError("a table of the linkage store is at most 2 GB; write it in parts") from None
        return header + nonce + sealed

    def unseal(self, content: bytes, name: str) -> tuple[int, bytes]:
        """Generation and plain content."""
        at = len(_MAGIC) + 8
        header, nonce, sealed = content[:at], content[at : at + _NONCE_BYTES], content[at + _NONCE_BYTES :]
        try:
            plain = AESGCM(self._key).decrypt(nonce, sealed, self._bound(header, name))
        except (InvalidTag, ValueError):
            raise ConfigError(
                f"{self._folder / name}: was altered, cut short, or belongs to another store; nothing was read"
            ) from None
        return int.from_bytes(header[len(_MAGIC) :], "big"), plain

    def _bound(self, header: bytes, name: str) -> bytes:
        """What is authenticated with a file: its header, its name and the store, so that files cannot be swapped."""
        return header + f"{self._store_id}/{name}".encode()


# --- files ------------------------------------------------------------------------------------------------------------


def _table_file(name: str) -> str:
    if not _TABLE.fullmatch(name):
        raise ConfigError("a table of the linkage store has a name of small letters, digits and _, at most 64")
    return f"{_TABLES_NAME}/{name}.bin"


def _refuse_place(folder: Path, source: KeySource, workspace: Path | None, exports: Sequence[Path]) -> None:
    others = [("export", export) for export in exports]
    if workspace is not None:
        others.append(("workspace", workspace))
    refuse_overlap(folder, others)
    for parent in (Path(os.path.realpath(folder)), *Path(os.path.realpath(folder)).parents):
        if (parent / "workspace.json").is_file() or (parent / "_delta_log").is_dir():
            raise ConfigError(f"the linkage store {folder} lies in the workspace {parent}; it must lie apart from it")
    if isinstance(source, KeyFile):
        for word, place in (("linkage store", folder), *others):
            if _same_or_within(source.path, place):
                raise ConfigError(f"the key file {source.path} lies in the {word} {place}; keep it elsewhere")


def certificate_of(folder: Path) -> Certificate | None:
    """The certificate of a store that was destroyed; a destruction that was stopped half way is finished first.

    None: it was not destroyed. Raises `ConfigError`: the certificate cannot be read, or a file cannot be destroyed.
    """
    path = folder / _CERTIFICATE_NAME
    if not path.is_file():
        return None
    try:
        certificate = Certificate(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise ConfigError(f"{path}: is no certificate of this program; ask the custodian") from None
    if certificate.state == "begun":
        with _lock(folder):
            certificate = _erase(folder, certificate)
    return certificate


def _refuse_destroyed(folder: Path) -> None:
    certificate = certificate_of(folder)
    if certificate is not None:
        raise ConfigError(
            f"the linkage store {folder} was destroyed ({certificate.finished_at_utc}); see "
            f"{folder / _CERTIFICATE_NAME}"
        )


def _secret_files(folder: Path) -> list[Path]:
    """The key first: without it the others are noise. With what a program that was killed may have left of them."""
    files = [
        found
        for name in (_KEY_NAME, _CODES_NAME, _STATE_NAME)
        for found in (folder / name, *sorted(folder.glob(f".{name}.*")))
    ]
    files += sorted((folder / _TABLES_NAME).glob("*"))
    return [path for path in files if path.is_file()]


def _erase(folder: Path, certificate: Certificate) -> Certificate:
    for path in _secret_files(folder):
        try:
            if _KEY_NAME in path.name:
                with path.open("r+b") as stream:
                    stream.write(secrets.token_bytes(path.stat().st_size))
                    stream.flush()
                    os.fsync(stream.fileno())
            path.unlink()
        except OSError as error:
            raise ConfigError(
                f"{path}: cannot be destroyed: {error.strerror}; the certificate stays unfinished"
            ) from error
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    done = Certificate(**{**asdict(certificate), "state": "done", "finished_at_utc": finished})
    _write_certificate(folder, done)
    return done


def _write_certificate(folder: Path, certificate: Certificate) -> None:
    text = json.dumps(asdict(certificate), ensure_ascii=False, indent=2) + "\n"
    write_private(folder / _CERTIFICATE_NAME, text.encode("utf-8"))


def _sealed_key(header: dict[str, Any], data_key: bytes, wrapping: bytes) -> bytes:
    """The content of `linkage.key`."""
    said = json.dumps(header, ensure_ascii=False, sort_keys=True).encode("utf-8")
    head = _MAGIC + len(said).to_bytes(4, "big") + said
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return head + nonce + AESGCM(wrapping).encrypt(nonce, data_key, head)


def _read_key(folder: Path) -> tuple[dict[str, Any], bytes, bytes]:
    """The header, its bytes as they are authenticated, and nonce with wrapped key."""
    path = put_back(folder / _KEY_NAME)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{folder} is no linkage store; make one with `reportlabel linkage create`") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    at = len(_MAGIC)
    end = at + 4 + int.from_bytes(content[at : at + 4], "big")
    try:
        header = json.loads(content[at + 4 : end])
        whole = (
            content.startswith(_MAGIC)
            and isinstance(header["format"], int)
            and {"study", "custodian", "store", "kdf"} <= set(header)
        )
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise ConfigError(f"{path}: was altered, or made by another version of reportlabel; nothing was read")
    if header["format"] != _FORMAT:
        raise ConfigError(
            f"{folder} has format {header['format']} of the linkage store and this version of reportlabel reads format "
            f"{_FORMAT} only; use the version that made it"
        )
    return header, content[:end], content[end:]


def _generation(path: Path) -> int:
    try:
        with path.open("rb") as stream:
            return int.from_bytes(stream.read(len(_MAGIC) + 8)[len(_MAGIC) :], "big")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    try:
        number = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot use the linkage store {folder}: {error.strerror}") from error
    with os.fdopen(number, "r+b") as stream:
        end = time.monotonic() + _WAIT_SECONDS
        while fcntl is not None:
            try:
                fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise ConfigError(
                        f"{folder} has been in use by another program for long; try again later"
                    ) from None
                time.sleep(0.05)
            else:
                break
        yield


def _said(source: KeySource) -> str:
    if isinstance(source, KeyFile):
        return f"key file {source.path}"
    return "passphrase" if isinstance(source, Passphrase) else f"environment variable {source.variable}"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# --- codes ------------------------------------------------------------------------------------------------------------


def _distinct(kind: CodeKind, originals: Iterable[str]) -> pl.DataFrame:
    if kind not in _PREFIX:
        raise ConfigError(f"no kind of code '{kind}'; one of {', '.join(_PREFIX)}")
    given = originals if isinstance(originals, pl.Series) else pl.Series(list(originals), dtype=pl.String)
    empty = int((given.is_null() | (given.str.strip_chars() == "")).sum())
    if empty:
        raise InputError(f"{empty} ids of kind {kind} are empty; set those rows aside before codes are issued")
    return given.alias("original").to_frame().unique(maintain_order=True)


def _codes_of(asked: pl.DataFrame, codes: pl.DataFrame, kind: CodeKind) -> pl.DataFrame:
    of_kind = codes.filter(pl.col("kind") == kind).select("original", "code")
    return asked.join(of_kind, on="original", how="left", maintain_order="left")


class _Form(NamedTuple):
    """What a code looks like: its letters, and how many random letters and digits follow."""

    prefix: str
    digits: int


def random_codes(prefix: str, digits: int, count: int) -> list[str]:
    """Codes that stand in no store, for data that nothing may link to their patients."""
    return _new_codes(_Form(prefix.removesuffix("-"), digits), count, pl.Series("code", [], dtype=pl.String)).to_list()


def _new_codes(form: _Form, count: int, taken: pl.Series) -> pl.Series:
    """Random codes, none of them among those taken, in no order that means anything."""
    codes = pl.Series("code", [], dtype=pl.String)
    while codes.len() < count:
        drawn = _draw(form, count - codes.len())
        fresh = pl.concat([codes, drawn]).unique(maintain_order=True)
        codes = fresh.filter(~fresh.is_in(taken.implode()))
    return codes


def _draw(form: _Form, count: int) -> pl.Series:
    # five bits of each random byte: 32 letters, so none is more frequent than another
    noise = np.frombuffer(secrets.token_bytes(count * form.digits), dtype=np.uint8) & 31
    letters = _ALPHABET[noise].view(f"S{form.digits}").astype(str)
    drawn = pl.DataFrame({"code": letters}, schema={"code": pl.String})
    return drawn.select(pl.concat_str(pl.lit(f"{form.prefix}-"), "code").alias("code")).to_series()
