"""The folder of an export appears whole or not at all, and its manifest tells every change."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from reportlabel.errors import ConfigError
from reportlabel.export.folder import new_folder
from reportlabel.export.manifest import read_manifest, verify_manifest, write_manifest


def write(out: Path, text: str = "one") -> None:
    with new_folder(out) as folder:
        (folder / "set").mkdir()
        (folder / "set" / "a.csv").write_text(text)
        write_manifest(folder, about={"to": "chexpert"}, rows={"set/a.csv": 3})


def fail(out: Path) -> None:
    with new_folder(out) as folder:
        assert names(folder) == []
        (folder / "half").write_text("x")
        raise RuntimeError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_export_appears_and_is_replaced_as_a_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out)
    write(out, "two")
    assert (out / "set" / "a.csv").read_text() == "two"
    assert names(tmp_path) == ["out"]
    manifest = read_manifest(out)
    assert manifest is not None
    [file] = manifest["files"]
    assert file["path"] == "set/a.csv" and file["bytes"] == 3 and file["rows"] == 3 and manifest["to"] == "chexpert"


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for before in (None, "one"):
        if before:
            write(out, before)
        with pytest.raises(RuntimeError):
            fail(out)
        assert names(tmp_path) == ([] if before is None else ["out"])
    assert verify_manifest(out) == []


def test_only_an_export_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder")  # an empty folder is as good as none
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text('{"format": "of somebody else"}')
    write(tmp_path / "more")
    (tmp_path / "more" / "model.pt").write_text("trained for a week")
    for name, told in (
        ("file", "it is a file"),
        ("other", "something that is no export"),
        ("more", "1 of its files are not of the export"),
        ("missing/out", "not an existing directory"),
    ):
        with pytest.raises(ConfigError, match=told):
            write(tmp_path / name)
    assert (tmp_path / "more" / "model.pt").exists()


def test_a_failure_of_the_disk_is_an_error_that_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write(out)
    rename = os.rename

    def full(source: Path, target: Path) -> None:
        if source.name == ".out.partial":
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(ConfigError, match=r"cannot write .*out: No space left on device"):
        write(out, "two")
    assert names(tmp_path) == ["out"] and verify_manifest(out) == []
    assert (out / "set" / "a.csv").read_text() == "one"


def test_the_leavings_of_killed_runs_are_cleared_and_what_was_there_comes_back(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out)
    # killed between the two renames
    out.rename(tmp_path / ".out.before")
    (tmp_path / ".out.partial" / "set").mkdir(parents=True)
    (tmp_path / ".out.partial" / "set" / "half").write_text("x")
    with pytest.raises(RuntimeError):
        fail(out)
    assert verify_manifest(out) == []
    assert names(tmp_path) == ["out"]


def test_two_runs_to_one_folder_are_told_apart(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("x")
        with pytest.raises(ConfigError, match="another run"):
            write(tmp_path / "out")
        assert (folder / "a").exists()


def test_a_stopped_run_leaves_nothing(tmp_path: Path) -> None:
    code = f"""
        import sys, time
        from pathlib import Path
        from reportlabel.export.folder import new_folder
        with new_folder(Path({str(tmp_path / "out")!r})) as folder:
            (folder / "half").write_text("x")
            print("ready", flush=True)
            time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        assert names(tmp_path) == [".out.partial"]
        process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        assert process.wait(timeout=20) == 128 + signal.SIGTERM
        assert time.monotonic() - started < 20
    assert names(tmp_path) == []


def test_every_change_is_told(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out)
    (out / "set" / "a.csv").write_text("two")
    assert verify_manifest(out) == ["set/a.csv: changed since the export"]
    (out / "set" / "a.csv").write_text("three")
    (out / "b").write_text("x")
    assert verify_manifest(out) == ["set/a.csv: 5 bytes, not 3", "b: not of the export"]
    (out / "set" / "a.csv").unlink()
    assert verify_manifest(out)[0] == "set/a.csv: missing"
    for broken in ("", "{", "[]", json.dumps({"format": "x"})):
        (out / "manifest.json").write_text(broken)
        assert verify_manifest(out) == [f"{out}: no manifest.json of an export"]
    (out / "manifest.json").write_text('{"format": "reportlabel export", "files": [3, {"path": 3}]}')
    assert verify_manifest(out) == ["b: not of the export"]
