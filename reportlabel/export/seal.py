"""Sealing a bundle for its recipient; until it is sealed it lies in the staging folder of its study.

What is handed over often goes to a disk that travels, so nothing plain may lie there, not even for a moment and not
after a power cut. The staging folder is as secret as what is made in it, and `reportlabel destroy` deletes it.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from reportlabel.errors import ConfigError

try:
    import fcntl
except ImportError:  # not on Windows, where a folder in use is not told from one that was left behind
    fcntl = None  # type: ignore[assignment]

__all__ = ["SEALED", "clear_unsealed", "recipient_key", "seal", "unsealed_folder"]

SEALED = ".tar.age"
_FOLDER = "unsealed"
_LOCK = "lock"


@contextmanager
def unsealed_folder(staging: Path) -> Iterator[Path]:
    """A folder for a bundle that is not sealed yet; deleted in the end. What killed programs left goes first.

    Raises:
        ConfigError: the folder cannot be made.
    """
    clear_unsealed(staging)
    try:
        (staging / _FOLDER).mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=staging / _FOLDER))
    except OSError as error:
        raise ConfigError(f"the staging folder {staging} cannot be written: {error.strerror}") from error
    with (folder / _LOCK).open("w") as lock:
        _locked(lock)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def clear_unsealed(staging: Path) -> None:
    """Delete the bundles that killed programs left before they were sealed; those being made now stay."""
    for folder in (staging / _FOLDER).glob("*"):
        try:
            with (folder / _LOCK).open("a") as lock:
                if _locked(lock):
                    shutil.rmtree(folder)
        except FileNotFoundError:  # another program was faster
            continue


def _locked(lock: IO[str]) -> bool:
    """Take a lock that goes with the process; False where a living one has it."""
    if fcntl is not None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def recipient_key(text: str) -> Any:
    """The public key that a bundle is sealed to.

    Raises:
        ConfigError: it is none.
    """
    from pyrage import RecipientError, x25519

    try:
        return x25519.Recipient.from_str(text)
    except (RecipientError, ValueError):
        raise ConfigError(
            "--seal-to: no public key of age; the recipient makes one with `age-keygen` (age1…)"
        ) from None


def seal(folder: Path, place: Path, recipient: Any) -> None:
    """The folder as one file that only the recipient opens (age-encryption.org/v1): `age -d -i KEY FILE | tar x`."""
    from pyrage import encrypt_file

    plain = folder.with_name("bundle.tar")
    with tarfile.open(plain, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.add(path, arcname=path.relative_to(folder.parent).as_posix(), recursive=False, filter=_nameless)
    beside = place.with_name(f".{place.name}.partial")
    encrypt_file(str(plain), str(beside), [recipient])
    beside.replace(place)


def _nameless(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nothing of the machine that made it."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry
