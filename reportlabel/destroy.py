"""The end of a study: what links codes to patients is destroyed, and what else the protocol wants gone.

First the linkage store (crypto-erasure: the wrapped data key, then what it encrypted, NIST SP 800-88 "cryptographic
erase"), then the rows as they were read, which hold the hospital's own ids, then, if asked for, the workspace. The
certificate of the store stays in its folder, and beside it ``destruction.json`` says what else went.

``destruction.json`` is also the plan: it is written, with the count and the hash of what is there, before the first
file is touched, and a destruction that was stopped goes on from it. The workspace knows where it lies, so its note of
the study goes last, after everything else is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from reportlabel.deidentify.audit import put_back
from reportlabel.deidentify.linkage import Certificate, KeySource, LinkageStore, certificate_of
from reportlabel.errors import ConfigError, ExitCode
from reportlabel.export.atomic import AtomicText, commit_all
from reportlabel.govern import StudyOfWorkspace, check_store, study_of
from reportlabel.schema import WORKSPACE
from reportlabel.store import Workspace

WHAT = ("linkage", "everything")
DESTRUCTION = "destruction.json"


@dataclass(frozen=True)
class Destroyed:
    """What went: the certificate of the store, and each other folder with its files, bytes and a hash of the list.

    ``due``: the last day of the data by the protocol, if it is known.
    """

    certificate: Certificate
    folders: tuple[dict[str, Any], ...]
    due: date | None


def destroy(
    workspace: Path,
    *,
    what: str,
    custodian: str,
    purpose: str,
    actor: str,
    key: KeySource,
    today: date,
) -> Destroyed:
    """Destroy what links the codes of a study to patients, and with ``everything`` the workspace too.

    One that was stopped half way is gone on with, whatever was left of store, staging and workspace.

    Raises:
        ConfigError: no study, another custodian, a wrong key, a run at work in the workspace, nothing left to destroy,
            ``linkage`` after ``everything`` was begun, or a folder that cannot be deleted.
    """
    workspace = Path(os.path.realpath(workspace))
    if workspace.is_dir() and not any(workspace.iterdir()):  # one was stopped before its very last step
        _remove(workspace)
        raise ConfigError(f"{workspace} was empty and is deleted; {DESTRUCTION} in the linkage store says what it held")
    study = _study(workspace, what)
    wanted = {"staging": Path(os.path.realpath(study.staging))}
    if what == "everything":
        wanted["workspace"] = workspace
    with Workspace(workspace, WORKSPACE).alone():
        certificate, due = _unlinked(
            study, workspace, custodian=custodian, purpose=purpose, actor=actor, key=key, today=today
        )
        said = _read(study.linkage) or {
            "state": "begun", "study": study.study, "protocol_sha256": study.protocol_sha256,
            "store": certificate.store, "destroyed_at_utc": None, "actor": actor, "custodian": custodian,
            "purpose": purpose, "folders": [], "not_destroyed": _NOT_OURS,
        }  # fmt: skip
        _refuse_less(said, study, what, workspace)
        if new := _planned(said["folders"], wanted):
            said |= {"actor": actor, "purpose": purpose, "folders": [*said["folders"], *new]}
        if new or said["state"] != "done":
            said |= {"state": "begun", "destroyed_at_utc": None}
            _write(study.linkage, said)
            for entry in said["folders"]:
                if entry["deleted_at_utc"] is None:
                    _empty(Path(entry["place"]), spared=_NOTES if entry["what"] == "workspace" else ())
                    entry["deleted_at_utc"] = _now()
            said |= {"state": "done", "destroyed_at_utc": _now()}
            _write(study.linkage, said)
        _tidy(study.linkage)
        _remove(wanted["staging"])
    if what == "everything":  # the lock lies in it, and the note leads to the plan: these two go last
        _remove(workspace, notes=_NOTES)
    places = {str(place) for place in wanted.values()}
    return Destroyed(certificate, tuple(one for one in said["folders"] if one["place"] in places), due)


def _unlinked(
    study: StudyOfWorkspace,
    workspace: Path,
    *,
    custodian: str,
    purpose: str,
    actor: str,
    key: KeySource,
    today: date,
) -> tuple[Certificate, date | None]:
    """Destroy the store, unless that is done; its certificate, and the last day of the data by the protocol."""
    certificate = certificate_of(study.linkage)
    if certificate is None:
        protocol = study.load()
        protocol.gate("destroy", today=today)
        store = LinkageStore.open(study.linkage, key_source=key, study=study.study, workspace=workspace)
        check_store(study, store)
        return store.destroy(custodian=custodian, actor=actor, purpose=purpose), protocol.destroy_due()
    if certificate.custodian != custodian:
        raise ConfigError(f"--custodian: the store was destroyed by {certificate.custodian}")
    try:
        return certificate, study.load().destroy_due()
    except ConfigError:  # the protocol may be gone by now, and no run can follow another one any more
        return certificate, None


def _refuse_less(said: dict[str, Any], study: StudyOfWorkspace, what: str, workspace: Path) -> None:
    """Refuse what is done already, and less than what was begun."""
    if what == "everything":
        return
    if any(one["place"] == str(workspace) for one in said["folders"]):
        raise ConfigError(f"the destruction of {workspace} was begun; say --what everything, so that it is finished")
    if said["state"] == "done" and not study.staging.exists():
        _tidy(study.linkage)
        raise ConfigError(f"{study.linkage} was destroyed on {said['destroyed_at_utc']}; nothing is left")


_NOTES = (".lock", "study.json")
"""Of a workspace: the lock of `Workspace.alone`, and last the note that `study_of` reads."""


def _planned(entries: list[dict[str, Any]], wanted: Mapping[str, Path]) -> list[dict[str, Any]]:
    """What is to be said of the folders that stand in no entry yet, or hold something again."""
    return [
        _counted(what, place)
        for what, place in wanted.items()
        if not (mine := [one for one in entries if one["place"] == str(place)])
        or (all(one["deleted_at_utc"] for one in mine) and any(path.name not in _NOTES for path in _files(place)))
    ]


def _read(linkage: Path) -> dict[str, Any] | None:
    path = put_back(linkage / DESTRUCTION)
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return {**said, "folders": [dict(one) for one in said["folders"]]}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{path} cannot be read; move it away, and say the same again") from None


def _write(linkage: Path, said: Mapping[str, Any]) -> None:
    with commit_all(AtomicText(linkage / DESTRUCTION)) as (output,):
        output.write(json.dumps(said, ensure_ascii=False, indent=1) + "\n")


def _tidy(linkage: Path) -> None:
    """Delete what a program that was killed left beside its outputs (`reportlabel.export.atomic`)."""
    for word in ("before", "partial"):
        for path in linkage.glob(f".*.{word}"):
            path.unlink(missing_ok=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


_NOT_OURS = (
    "the archive of the hospital; what was handed over (audit log, action export), pictures and records of "
    "`reportlabel dicom deidentify`; projects on the review server (`reportlabel review withdraw`); backups and copies "
    "made by other means"
)


def _study(workspace: Path, what: str) -> StudyOfWorkspace:
    if what not in WHAT:
        raise ConfigError(f"--what {what}: there are {' and '.join(WHAT)}")
    study = study_of(workspace)
    if study is None:
        raise ConfigError(f"{workspace} belongs to no study; there is no table of codes to destroy")
    return study


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def _counted(what: str, folder: Path) -> dict[str, Any]:
    """How many files and bytes a folder holds, and a hash over their names and contents."""
    digest = hashlib.sha256()
    files = size = 0
    for path in _files(folder):
        try:
            with path.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").digest()
                size += stream.tell()
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}; then say the same again") from error
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + content)
        files += 1
    return {
        "what": what, "place": str(folder), "files": files, "bytes": size, "sha256": digest.hexdigest(),
        "deleted_at_utc": None,
    }  # fmt: skip


def _empty(folder: Path, *, spared: Sequence[str] = ()) -> None:
    """Overwrite and delete what a folder holds, but for files of these names in it."""
    keep = {folder / name for name in spared}
    for path in _files(folder):
        if path not in keep:
            _overwrite(path)
    try:
        for path in sorted(folder.iterdir()) if folder.exists() else []:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path not in keep:
                path.unlink()
    except OSError as error:
        raise ConfigError(f"cannot delete {folder}: {error.strerror}; delete it by hand") from error


def _remove(folder: Path, *, notes: Sequence[str] = ()) -> None:
    """Delete a folder that is empty but for these files, which go in this order."""
    try:
        for name in notes:
            (folder / name).unlink(missing_ok=True)
        if folder.exists():
            folder.rmdir()
    except OSError as error:
        raise ConfigError(f"cannot delete {folder}: {error.strerror}; delete it by hand") from error


_BLOCK = 1 << 20


def _overwrite(path: Path) -> None:
    """Zeros instead of what a file holds."""
    try:
        with path.open("r+b") as stream:
            left = path.stat().st_size
            while left:
                left -= stream.write(bytes(min(left, _BLOCK)))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise ConfigError(f"cannot overwrite {path.name}: {error.strerror}; then say the same again") from error


def run_destroy(
    workspace: Path,
    *,
    what: str,
    custodian: str,
    purpose: str,
    actor: str,
    key: KeySource,
    really: bool,
    console: Console,
) -> int:
    """Destroy and say what went; without ``really`` only say what would."""
    study = _study(workspace, what)
    if not really:
        folders = [study.staging, *([workspace] if what == "everything" else [])]
        console.print(
            f"would destroy the linkage store {study.linkage} and "
            + " and ".join(f"{folder} ({sum(1 for _ in _files(folder)):,} files)" for folder in folders)
            + "; say --yes to do it",
            highlight=False,
            soft_wrap=True,
        )
        return int(ExitCode.DONE)
    done = destroy(workspace, what=what, custodian=custodian, purpose=purpose, actor=actor, key=key, today=date.today())
    counts = ", ".join(f"{count:,} {kind} codes" for kind, count in done.certificate.counts.items())
    console.print(f"destroyed: {counts}; nothing can be linked again", highlight=False, soft_wrap=True)
    for folder in done.folders:
        console.print(f"deleted: {folder['what']}, {folder['files']:,} files", highlight=False)
    console.print(
        f"certificate: {study.linkage / 'certificate.json'}; not reached: {_NOT_OURS}", highlight=False, soft_wrap=True
    )
    return int(ExitCode.DONE)
