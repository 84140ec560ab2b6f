"""Outputs appear whole, together, or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from reportlabel.errors import ConfigError, ExitCode
from reportlabel.export import atomic
from reportlabel.export.atomic import AtomicFile, AtomicText, ParquetSink, check_writable, commit_all

SCHEMA = pl.Schema([("report_id", pl.String()), ("start", pl.Int32()), ("cues", pl.List(pl.String()))])
FRAME = pl.DataFrame({"report_id": ["R1", "R2"], "start": [1, None], "cues": [["a"], []]}, schema=SCHEMA)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# --- what is written --------------------------------------------------------------------------------------------------


def test_frames_are_written_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    with ParquetSink(path, SCHEMA, metadata={"rules_hash": "abc"}) as sink:
        sink.write(FRAME)
        assert not path.exists()
        sink.write(FRAME.select("cues", "start", "report_id"))
        sink.write(FRAME.clear())
    assert names(tmp_path) == ["labels.parquet"]
    assert pl.read_parquet(path).equals(pl.concat([FRAME, FRAME]))
    metadata = pa_parquet.read_metadata(path)
    assert metadata.row_group(0).column(0).compression == "ZSTD"
    assert metadata.metadata[b"rules_hash"] == b"abc"


def test_no_frame_gives_an_empty_table(tmp_path: Path) -> None:
    with ParquetSink(tmp_path / "labels.parquet", SCHEMA):
        pass
    read = pl.read_parquet(tmp_path / "labels.parquet")
    assert (read.height, read.schema) == (0, SCHEMA)


def test_a_pyarrow_schema_and_table(tmp_path: Path) -> None:
    schema = pa.schema([("a", pa.int64())])
    with ParquetSink(tmp_path / "a.parquet", schema) as sink:
        sink.write(pa.table({"a": pa.array([1, 2], pa.int32())}))
    assert pa_parquet.read_table(tmp_path / "a.parquet").schema == schema


def test_a_frame_that_does_not_fit_the_schema_names_no_value(tmp_path: Path) -> None:
    for wrong in (FRAME.drop("start"), FRAME.with_columns(start=pl.lit("CANARY")), FRAME.with_columns(x=pl.lit(1))):
        with (
            pytest.raises(ValueError, match="fit the schema") as caught,
            ParquetSink(tmp_path / "a.parquet", SCHEMA) as s,
        ):
            s.write(wrong)
        assert "CANARY" not in str(caught.value)
        assert caught.value.__context__ is None
    assert names(tmp_path) == []


def test_text_is_utf8_with_its_own_newlines(tmp_path: Path) -> None:
    with AtomicText(tmp_path / "page.html") as page:
        page.write("所見\r\n")
        page.write("結節\n")
    assert (tmp_path / "page.html").read_bytes() == "所見\r\n結節\n".encode()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    with AtomicText(tmp_path / "link.txt") as output:
        output.write("new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with AtomicText(Path("out.txt")) as output:
        output.write("x")
    assert names(tmp_path) == ["out.txt"]


def test_writing_outside_the_block_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="with block"):
        AtomicText(tmp_path / "out.txt").write("x")
    with pytest.raises(ValueError, match="with block"):
        ParquetSink(tmp_path / "out.parquet", SCHEMA).write(FRAME)


# --- all or nothing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, MemoryError, GeneratorExit])
def test_nothing_stays_behind_after_a_failure(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "page.html").write_text("old")
    both = ParquetSink(tmp_path / "labels.parquet", SCHEMA), AtomicText(tmp_path / "page.html")

    def run() -> None:
        with commit_all(*both) as (labels, page):
            labels.write(FRAME)
            page.write("new")
            raise error

    with pytest.raises(error):
        run()
    assert names(tmp_path) == ["page.html"]
    assert (tmp_path / "page.html").read_text() == "old"


def test_all_take_their_names_together(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("old")
    with commit_all(ParquetSink(tmp_path / "labels.parquet", SCHEMA), AtomicText(tmp_path / "page.html")) as (
        sink,
        page,
    ):
        sink.write(FRAME)
        page.write("new")
        assert (tmp_path / "page.html").read_text() == "old"
    assert names(tmp_path) == ["labels.parquet", "page.html"]
    assert (tmp_path / "page.html").read_text() == "new"


@pytest.mark.parametrize("hard_links", [True, False])
def test_if_the_last_cannot_take_its_name_the_first_gives_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hard_links: bool
) -> None:
    (tmp_path / "a.txt").write_text("old")
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if target.name == "c.txt":
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target)

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "replace", refuse)
    if not hard_links:
        monkeypatch.setattr(os, "link", no_links)
    outputs = [AtomicText(tmp_path / name) for name in ("a.txt", "b.txt", "c.txt")]

    def run() -> None:
        with commit_all(*outputs):
            for output in outputs:
                output.write("new")

    with pytest.raises(ConfigError, match=r"cannot write .*c\.txt: Input/output error"):
        run()
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_one_that_cannot_be_opened_takes_the_others_with_it(tmp_path: Path) -> None:
    outputs = AtomicText(tmp_path / "a.txt"), AtomicText(tmp_path / "missing" / "b.txt")
    with pytest.raises(ConfigError, match="not an existing directory"), commit_all(*outputs):
        pytest.fail("must not get here")
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", ["text", "parquet"])
def test_a_full_disk_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    opened = atomic._open_alone

    def on_full_disk(partial: Path, *, path: Path) -> object:
        opened(partial, path=path).close()
        return open("/dev/full", "r+b", buffering=0)

    monkeypatch.setattr(atomic, "_open_alone", on_full_disk)

    def run() -> None:
        if kind == "text":
            with AtomicText(tmp_path / "out") as page:
                page.write("x")
        else:
            with ParquetSink(tmp_path / "out", SCHEMA) as sink:
                sink.write(FRAME)

    with pytest.raises(ConfigError, match=r"cannot write .*out: No space left on device") as caught:
        run()
    assert caught.value.exit_code == ExitCode.USAGE
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_stopped_run_leaves_nothing_half_written(tmp_path: Path, number: signal.Signals) -> None:
    program = f"""
        import signal
        import time
        from pathlib import Path
        from reportlabel.export.atomic import AtomicText
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may have been started with nohup
        with AtomicText(Path({str(tmp_path / "out.txt")!r})) as output:
            output.write("half")
            print("ready", flush=True)
            time.sleep(60)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        code = process.wait(timeout=20)
    assert code != 0
    assert names(tmp_path) == ([".out.txt.partial"] if number == signal.SIGKILL else [])
    with AtomicText(tmp_path / "out.txt") as output:  # also takes over what a killed run left
        output.write("w")
    assert names(tmp_path) == ["out.txt"]
    assert (tmp_path / "out.txt").read_text() == "w"


def test_signal_handlers_are_as_before(tmp_path: Path) -> None:
    def own(*_: object) -> None: ...

    before = signal.signal(signal.SIGHUP, own)
    try:
        with AtomicText(tmp_path / "out.txt"):
            assert signal.getsignal(signal.SIGHUP) is own
            assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, own)
        assert signal.getsignal(signal.SIGHUP) is own
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_another_thread(tmp_path: Path) -> None:
    def write() -> None:
        with AtomicText(tmp_path / "out.txt") as output:
            output.write("x")

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    assert names(tmp_path) == ["out.txt"]


# --- refused before any work ------------------------------------------------------------------------------------------


def test_outputs_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    cases = {
        tmp_path: "is a directory",
        tmp_path / "missing" / "out": "not an existing directory",
        tmp_path / "file" / "out": "not an existing directory",
        tmp_path / ("n" * 300): "cannot write",
        Path("/proc/out.parquet"): "cannot write",
        Path("/dev/full"): "not a regular file",
    }
    for path, said in cases.items():
        for attempt in (partial(check_writable, path), ParquetSink(path, SCHEMA).open):
            with pytest.raises(ConfigError, match=said) as caught:
                attempt()
            assert caught.value.exit_code == ExitCode.USAGE
            assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["file"]


def test_a_directory_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(ConfigError, match=r"cannot write .*out: Permission denied"):
        check_writable(tmp_path / "out")


def test_checking_leaves_everything_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old")
    check_writable(tmp_path / "out", sources=[tmp_path / "other", tmp_path / "missing"])
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out").read_text() == "old"


def test_an_input_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "reports.parquet").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "reports.parquet")
    for path in (tmp_path / "reports.parquet", tmp_path / "link", tmp_path / "." / "reports.parquet"):
        with pytest.raises(ConfigError, match="an input of the same command"):
            check_writable(path, sources=[tmp_path / "reports.parquet"])


def test_two_outputs_with_one_name(tmp_path: Path) -> None:
    same = AtomicText(tmp_path / "out"), AtomicText(tmp_path / "." / "out")
    with pytest.raises(ConfigError, match="given for two outputs"), commit_all(*same):
        pytest.fail("must not get here")
    assert names(tmp_path) == []


def test_two_runs_do_not_write_the_same_output(tmp_path: Path) -> None:
    with AtomicText(tmp_path / "out") as first:
        first.write("first")
        with pytest.raises(ConfigError, match="another run is writing it"), AtomicText(tmp_path / "out"):
            pytest.fail("must not get here")
    assert (tmp_path / "out").read_text() == "first"


def test_a_binary_file_is_the_base_of_all(tmp_path: Path) -> None:
    started = time.time()
    with AtomicFile(tmp_path / "out"):
        pass
    assert (tmp_path / "out").stat().st_mtime >= started - 1
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
