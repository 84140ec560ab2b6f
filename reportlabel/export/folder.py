"""A folder that appears whole or not at all.

It is filled under a hidden name beside its place and takes its name at the end. What was there before is replaced only
if it is an export and holds nothing else: nobody loses a file to a wrong ``--out``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reportlabel.errors import ConfigError
from reportlabel.export.atomic import commit_all
from reportlabel.export.manifest import foreign_files, is_export

try:
    import fcntl
except ImportError:  # not on Windows: two runs to one folder are then not told apart
    fcntl = None  # type: ignore[assignment]


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write into; it becomes ``out`` at the end of the block, or vanishes if the block fails.

    A run that was killed leaves ``.NAME.partial``, which the next run to the same place clears away.

    Raises:
        ConfigError: the folder cannot be made, or ``out`` holds something that is no export.
    """
    target = Path(os.path.realpath(out))
    check_replaceable(out)
    partial, before = (target.with_name(f".{target.name}.{state}") for state in ("partial", "before"))
    with _problems_of(out), commit_all():  # no files of its own: it turns SIGTERM into an error, so that we clean up
        _bring_back(target, before)
        partial.mkdir(exist_ok=True)
        with _alone(partial, out):
            _clear(partial)
            try:
                yield partial
                check_replaceable(out)
                _swap(partial, target, before)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise


def check_replaceable(out: Path) -> None:
    """Make sure that an export may go to ``out``.

    Raises:
        ConfigError: it is a file, holds something that is no export, or an export with files added to it.
    """
    if not out.exists():
        if not out.absolute().parent.is_dir():
            raise ConfigError(f"cannot write {out}: {out.parent} is not an existing directory; create it first")
        return
    if not out.is_dir():
        raise ConfigError(f"cannot write {out}: it is a file; give the name of a folder")
    if not any(out.iterdir()):
        return
    if not is_export(out):
        raise ConfigError(f"cannot write {out}: it holds something that is no export; give a new or empty folder")
    added = foreign_files(out)
    if added:
        raise ConfigError(
            f"cannot write {out}: {len(added)} of its files are not of the export that is there; move them elsewhere"
        )


def _swap(partial: Path, target: Path, before: Path) -> None:
    shutil.rmtree(before, ignore_errors=True)
    if target.exists():
        os.rename(target, before)
    try:
        os.rename(partial, target)
    except OSError:
        _bring_back(target, before)
        raise
    shutil.rmtree(before, ignore_errors=True)


def _bring_back(target: Path, before: Path) -> None:
    """After a run that was killed between the two renames, what was there is still there under its hidden name."""
    if before.exists() and not target.exists():
        os.rename(before, target)


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


@contextmanager
def _alone(folder: Path, out: Path) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"cannot write {out}: another run is writing it") from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        with suppress(OSError):
            os.close(number)


@contextmanager
def _problems_of(out: Path) -> Iterator[None]:
    problem = ""
    try:
        yield
    except OSError as error:
        problem = error.strerror or "writing failed"
    if problem:
        raise ConfigError(f"cannot write {out}: {problem}")
