"""Reading in a process of its own: what reading many files took is given back to the system when it ends.

The process is started by name, not forked or spawned, so that it also works where `reportlabel.run.run` is called from
a script without a main guard.
"""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from reportlabel.errors import ConfigError, InputError, ReportLabelError
from reportlabel.ingest.raw import RawStore, Task, read_task

_LENGTH = 8
_RIGHT, _WRONG = b"+", b"-"


def read_apart(tasks: Sequence[Task], store: RawStore) -> Iterator[pl.DataFrame]:
    """Read tasks one after the other in another process; gives what `read_task` gives.

    Raises:
        ConfigError: what archive.yaml says of a source makes no sense.
        InputError: the process died; what it finished before stays.
    """
    package = str(Path(__file__).resolve().parents[2])
    command = f"import sys; sys.path.insert(0, {package!r}); from reportlabel.ingest.apart import main; main()"
    with subprocess.Popen([sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(pickle.dumps((list(tasks), store)))
            process.stdin.close()
            for _ in tasks:
                length = process.stdout.read(_LENGTH)
                content = process.stdout.read(int.from_bytes(length, "big")) if len(length) == _LENGTH else b""
                if not content:
                    raise InputError(
                        "the process that reads the files died (killed, or out of memory); what was read before stays. "
                        "Run again with more memory"
                    )
                if content[:1] == _WRONG:
                    raise ConfigError(content[1:].decode())
                yield pl.read_ipc(io.BytesIO(content[1:]), use_pyarrow=False)
        except BrokenPipeError:
            raise InputError("the process that reads the files could not be started") from None
        finally:
            process.kill()


def main() -> None:
    """The other side: tasks on standard input, their notes on standard output."""
    tasks, store = pickle.load(sys.stdin.buffer)  # noqa: S301 - written by the process that started this one
    for task in tasks:
        buffer = io.BytesIO(_RIGHT)
        buffer.seek(1)
        try:
            read_task(task, store).write_ipc(buffer)
            content = buffer.getvalue()
        except ReportLabelError as error:  # what archive.yaml says of a source makes no sense
            content = _WRONG + str(error).encode()
        sys.stdout.buffer.write(len(content).to_bytes(_LENGTH, "big") + content)
        sys.stdout.buffer.flush()
    # threads of the libraries may still be at work; ending in good order trips over them
    os._exit(0)
