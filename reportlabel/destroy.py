"""The end of a study: what links codes to patients is destroyed, and what else the protocol wants gone.

First the linkage store (crypto-erasure: the wrapped data key, then what it encrypted, NIST SP 800-88 "cryptographic
erase"), then the rows as they were read, which hold the hospital's own ids, then, if asked for, the workspace. The
certificate of the store stays in its folder, and beside it ``destruction.json`` says what else went.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from reportlabel.deidentify.linkage import Certificate, KeySource, LinkageStore, certificate_of
from reportlabel.errors import ConfigError, ExitCode
from reportlabel.export.atomic import AtomicText, commit_all
from reportlabel.govern import StudyOfWorkspace, study_of
from reportlabel.run import open_workspace

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

    One that was stopped half way is gone on with: where the store is destroyed already, the folders are.

    Raises:
        ConfigError: no study, another custodian, a wrong key, a run at work in the workspace, nothing left to destroy,
            or a folder that cannot be deleted.
    """
    study = _study(workspace, what)
    protocol = study.load()
    protocol.gate("destroy", today=today)
    with open_workspace(workspace).alone():
        certificate = certificate_of(study.linkage)
        if certificate is None:
            store = LinkageStore.open(study.linkage, key_source=key, study=study.study, workspace=workspace)
            certificate = store.destroy(custodian=custodian, actor=actor, purpose=purpose)
        elif certificate.custodian != custodian:
            raise ConfigError(f"--custodian: the store was destroyed by {certificate.custodian}")
        elif what == "linkage" and not study.staging.exists():
            raise ConfigError(f"{study.linkage} was destroyed on {certificate.finished_at_utc}; nothing is left")
        gone = [_deleted("staging", study.staging)]
        if what == "everything":
            gone.append(_deleted("workspace", workspace))
    said = {
        "study": study.study,
        "protocol_sha256": study.protocol_sha256,
        "store": certificate.store,
        "destroyed_at_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "actor": actor,
        "custodian": custodian,
        "purpose": purpose,
        "folders": gone,
        "not_destroyed": _NOT_OURS,
    }
    with commit_all(AtomicText(study.linkage / DESTRUCTION)) as (output,):
        output.write(json.dumps(said, ensure_ascii=False, indent=1) + "\n")
    return Destroyed(certificate, tuple(gone), protocol.destroy_due())


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


def _deleted(word: str, folder: Path) -> dict[str, Any]:
    """Overwrite and delete a folder; how many files and bytes it held, and a hash over their names and contents."""
    digest = hashlib.sha256()
    files = size = 0
    for path in _files(folder):
        size_of, content = _overwritten(path)
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + content)
        files, size = files + 1, size + size_of
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise ConfigError(f"cannot delete {folder}: {error.strerror}; delete it by hand") from error
    return {"what": word, "files": files, "bytes": size, "sha256": digest.hexdigest()}


_BLOCK = 1 << 20


def _overwritten(path: Path) -> tuple[int, bytes]:
    """Overwrite a file with zeros; its size and the hash of what it held."""
    digest = hashlib.sha256()
    size = 0
    try:
        with path.open("r+b") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
                stream.seek(size)
                stream.write(bytes(len(block)))
                size += len(block)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise ConfigError(f"cannot overwrite {path.name}: {error.strerror}; then say the same again") from error
    return size, digest.digest()


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
