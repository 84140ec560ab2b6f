"""The boundary of the command line: troubles of the machine end with one line, defects of ours with a traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from deltalake.exceptions import DeltaError

from reportlabel import cli

FULL = "Failed to parse parquet: External: Generic LocalFileSystem error: No space left on device (os error 28)"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DeltaError(FULL), ["No space left on device", "make room and run the same command again", "nothing is lost"]),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "w/labels"), ["w/labels: No space left", "make room"]),
        (PermissionError(errno.EACCES, "denied", "archive/00000007/x"), ["archive/…/x: Permission denied", "rights"]),
        (OSError(errno.ELOOP, "loop", b"sy/loop"), ["sy/loop: Too many levels of symbolic links", "run the same"]),
        (OSError("No space left on device (os error 28)"), ["No space left on device", "make room"]),
        (OSError("what is written"), ["OSError: mend that"]),
        (MemoryError(), ["memory", "--workers"]),
    ],
)
def test_troubles_of_the_machine_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, said: list[str]
) -> None:
    def broken() -> None:
        raise error

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and printed.count("\n") == 1
    assert all(one in printed for one in said) and "what is written" not in printed


def test_a_defect_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise KeyError("x")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(KeyError):
        cli.main()


@pytest.mark.skipif(sys.platform == "win32", reason="files are limited in size by a setting of POSIX")
def test_a_workspace_that_cannot_be_written(tmp_path: Path) -> None:
    """The limit of the size of files stands for a full disk: the libraries that write are real."""
    (tmp_path / "archive").mkdir()
    rows = "".join(f"{n},2023/3/14,CT,結節{n * n},\n" for n in range(1000, 1200))
    (tmp_path / "archive/a.csv").write_text("患者ID,検査日,モダリティ,所見,読影医\n" + rows, encoding="utf-8")
    program = (
        "import resource, signal, sys\n"
        "from reportlabel.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))\n"
        "sys.argv = ['reportlabel', 'ingest', 'archive', '--site', 'aoba', '--workspace', 'w']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback (most" not in done.stderr
    assert "error: " in done.stderr and "make room" in done.stderr
