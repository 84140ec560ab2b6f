"""Files that appear whole or not at all.

    with commit_all(ParquetSink(labels_path, labels_schema), AtomicText(page_path)) as (labels, page):
        labels.write(frame)
        page.write(html)

Each output is written under a hidden name in its own directory. All of them take their names at the end of the block,
together; if the block fails, or is stopped by Ctrl-C or SIGTERM, none of them does and what was there before stays.
A run that was killed outright leaves one hidden `.NAME.partial` an output; the next run to that output takes it over.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, BinaryIO, Self, TypeVarTuple, cast

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pa_parquet

from reportlabel.errors import ConfigError

try:
    import fcntl
except ImportError:  # not on Windows: two runs that write the same output at once are then not told apart
    fcntl = None  # type: ignore[assignment]

__all__ = ["AtomicFile", "AtomicText", "ParquetSink", "check_writable", "commit_all"]

Outputs = TypeVarTuple("Outputs")


def check_writable(path: Path, *, sources: Sequence[Path] = ()) -> None:
    """Make sure that `path` can be written, before any long work; nothing stays behind.

    In: `sources`, files that are read and must not be overwritten. Raises `ConfigError` with the reason.
    """
    target = _target(path)
    with _problems_of(path):
        if target.is_dir():
            raise ConfigError(f"cannot write {path}: it is a directory; give a file name")
        if not target.parent.is_dir():
            raise ConfigError(f"cannot write {path}: {path.parent} is not an existing directory; create it first")
        if target.exists() and not target.is_file():
            raise ConfigError(f"cannot write {path}: it is not a regular file")
        for source in sources:
            if source.exists() and target.exists() and os.path.samefile(source, target):
                raise ConfigError(f"cannot write {path}: it is an input of the same command; give another name")
        with tempfile.TemporaryFile(dir=target.parent, prefix=".", suffix=".partial"):
            pass


class AtomicFile:
    """One binary output: opened, written, then published under its name or discarded.

    Used as a context manager it is published at the end of the block; several go together with `commit_all`.
    Every failure to write is a `ConfigError` that names the output.
    """

    def __init__(self, path: Path, *, sources: Sequence[Path] = ()) -> None:
        self.path = path
        self._sources = tuple(sources)
        self._target = _target(path)
        self._partial = self._target.with_name(f".{self._target.name}.partial")
        self._backup = self._target.with_name(f".{self._target.name}.before")
        self._stream: BinaryIO | None = None
        self._backed_up = False
        self._published = False
        self._block: ExitStack | None = None

    def open(self) -> None:
        """Check that the output can be written and start the hidden file."""
        check_writable(self.path, sources=self._sources)
        with _problems_of(self.path):
            self._stream = _open_alone(self._partial, path=self.path)

    def finish(self) -> None:
        """Everything written is on the disk; the output is still hidden."""
        stream = self._open_stream()
        with _problems_of(self.path):
            stream.flush()
            os.fsync(stream.fileno())
            if fcntl is None:
                stream.close()  # Windows does not rename an open file; elsewhere it stays open and so locked

    def publish(self) -> None:
        """Take the name; what had it before is kept until `settle` so that `discard` can bring it back."""
        with _problems_of(self.path):
            if self._target.exists():
                self._backed_up = True
                _keep(self._target, backup=self._backup)
            os.replace(self._partial, self._target)
        self._published = True

    def settle(self) -> None:
        """The output stays: forget what was there before and close."""
        with suppress(OSError):
            if self._backed_up:
                self._backup.unlink(missing_ok=True)
            _sync_directory(self._target.parent)
        self._close()

    def discard(self) -> None:
        """As if the output had never been opened. Never raises, so that the error that led here is the one seen."""
        if self._stream is None:
            return
        with suppress(OSError):
            if self._backed_up and self._backup.exists():
                os.replace(self._backup, self._target)
            elif self._published:
                self._target.unlink(missing_ok=True)
        with suppress(OSError):
            if not self._published:
                self._partial.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.close()

    def _open_stream(self) -> BinaryIO:
        if self._stream is None:
            raise ValueError("the output is not open; use it inside a with block")
        return self._stream

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(commit_all(self))
            self._block = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        block, self._block = self._block, None
        if block is not None:
            block.__exit__(kind, error, trace)


class AtomicText(AtomicFile):
    """A UTF-8 text output (JSON, HTML, Markdown); lines end as they are written."""

    def write(self, text: str) -> None:
        stream = self._open_stream()
        with _problems_of(self.path):
            stream.write(text.encode("utf-8"))


class ParquetSink(AtomicFile):
    """A Parquet output written frame by frame (zstd), in bounded memory.

    In: `schema`, of polars or pyarrow; `metadata`, key-value pairs of the file (versions, hashes). Without any
    `write` the output is a table without rows.
    """

    def __init__(
        self,
        path: Path,
        schema: pl.Schema | pa.Schema,
        *,
        metadata: Mapping[str, str] | None = None,
        sources: Sequence[Path] = (),
    ) -> None:
        super().__init__(path, sources=sources)
        self.schema: Any = pl.DataFrame(schema=schema).to_arrow().schema if isinstance(schema, pl.Schema) else schema
        self._metadata = dict(metadata or {})
        self._writer: Any = None

    def open(self) -> None:
        super().open()
        with _problems_of(self.path):
            self._writer = pa_parquet.ParquetWriter(self._open_stream(), self.schema, compression="zstd")

    def write(self, frame: pl.DataFrame | pa.Table) -> None:
        """Add rows. Columns, in any order, and types must be those of the schema, else `ValueError`."""
        self._open_stream()
        table = frame.to_arrow() if isinstance(frame, pl.DataFrame) else frame
        if sorted(table.column_names) != sorted(self.schema.names):
            raise ValueError(f"columns {table.column_names} do not fit the schema {self.schema.names}")
        table = _cast(table.select(self.schema.names), schema=self.schema)
        if table.num_rows:
            with _problems_of(self.path):
                self._writer.write_table(table)

    def finish(self) -> None:
        with _problems_of(self.path):
            if self._metadata:
                self._writer.add_key_value_metadata(self._metadata)
            self._writer.close()
        self._writer = None
        super().finish()

    def discard(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(OSError, ValueError, pa.ArrowException):
                writer.close()
        super().discard()


def _cast(table: pa.Table, *, schema: pa.Schema) -> pa.Table:
    with suppress(pa.ArrowException):  # its message may quote a value
        return table.cast(schema)
    raise ValueError(f"values of {table.schema.types} do not fit the schema {schema.types}")


@contextmanager
def commit_all(*outputs: *Outputs) -> Iterator[tuple[*Outputs]]:
    """Open outputs (each an `AtomicFile`), and publish all of them at the end of the block or none.

    Raises `ConfigError` at once if one of them cannot be written or two have the same path.
    """
    files = cast(tuple[AtomicFile, ...], outputs)
    targets = [_target(file.path) for file in files]
    for index, target in enumerate(targets):
        if target in targets[:index]:
            raise ConfigError(f"{files[index].path} is given for two outputs; each needs a name of its own")
    with _stopped_like_an_error():
        try:
            for file in files:
                file.open()
            yield outputs
            for file in files:
                file.finish()
            for file in files:
                file.publish()
        except BaseException:
            for file in files:
                file.discard()
            raise
        for file in files:
            file.settle()


@contextmanager
def _stopped_like_an_error() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block with SystemExit, so that outputs are discarded, instead of killing the process.

    Signals that the program handles itself are left alone, as they are outside the main thread.
    """
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [signal.Signals[name] for name in names if signal.getsignal(signal.Signals[name]) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    try:
        for number in numbers:
            signal.signal(number, _stop)
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _stop(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextmanager
def _problems_of(path: Path) -> Iterator[None]:
    """A failure of the file system becomes one message that names the output and no data."""
    problem = ""
    try:
        yield
    except OSError as error:
        problem = error.strerror or (os.strerror(error.errno) if error.errno else "writing failed")
    if problem:
        raise ConfigError(f"cannot write {path}: {problem}")


def _target(path: Path) -> Path:
    """The file itself where `path` is a link to it, so that the link stays."""
    return Path(os.path.realpath(path))


_OPEN_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def _open_alone(partial: Path, *, path: Path) -> BinaryIO:
    """The hidden file, empty and locked; what a killed run left in it is overwritten."""
    while True:
        number = os.open(partial, _OPEN_FLAGS, 0o666)
        stream = os.fdopen(number, "w+b")
        if not _locked(stream):
            stream.close()
            raise ConfigError(f"cannot write {path}: another run is writing it")
        if _is_still(partial, stream):
            stream.truncate(0)
            return stream
        stream.close()  # the run that had it published or removed it in between


def _locked(stream: BinaryIO) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _is_still(partial: Path, stream: BinaryIO) -> bool:
    try:
        return os.path.samestat(os.stat(partial), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def _keep(target: Path, *, backup: Path) -> None:
    """Keep a file under a second name; by renaming it where the file system has no hard links."""
    backup.unlink(missing_ok=True)
    try:
        os.link(target, backup)
    except OSError:
        os.replace(target, backup)


def _sync_directory(directory: Path) -> None:
    number = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
