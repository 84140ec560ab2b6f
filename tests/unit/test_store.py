"""The workspace: whole tables, earlier versions, and nothing left of what was removed."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from reportlabel.errors import ConfigError, InputError
from reportlabel.store import Workspace

SCHEMAS = {"labels": pl.Schema({"exam_id": pl.String, "value": pl.String}), "notes": pl.Schema({"n": pl.Int32})}


def rows(*pairs: tuple[str, str]) -> pl.DataFrame:
    return pl.DataFrame(list(pairs), schema=SCHEMAS["labels"], orient="row")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace", SCHEMAS, create=True)


def test_what_is_written_is_read(workspace: Workspace) -> None:
    assert workspace.read("labels").is_empty() and workspace.version("labels") == -1
    workspace.replace("labels", rows(("a", "present")))
    workspace.append("labels", rows(("b", "absent")))
    assert workspace.read("labels").sort("exam_id").equals(rows(("a", "present"), ("b", "absent")))
    assert workspace.read("labels", version=0).equals(rows(("a", "present")))
    assert Workspace.open(workspace.folder, SCHEMAS).version("labels") == 1
    with pytest.raises(InputError, match="version 7"):
        workspace.read("labels", version=7)


def test_a_key_is_replaced_as_a_whole(workspace: Workspace) -> None:
    workspace.replace("labels", rows(("a", "1"), ("a", "2"), ("b", "3")))
    workspace.upsert("labels", rows(("a", "4"), ("c", "5")), key=["exam_id"])
    assert set(workspace.read("labels").rows()) == {("a", "4"), ("b", "3"), ("c", "5")}


def test_other_columns_are_refused(workspace: Workspace) -> None:
    with pytest.raises(ValueError, match="columns"):
        workspace.replace("labels", pl.DataFrame({"exam_id": ["a"], "value": ["x"], "name": ["y"]}))


def test_what_was_removed_is_on_the_disk_no_more(workspace: Workspace) -> None:
    workspace.replace("labels", rows(("CANARY-7241", "present"), ("b", "absent")))
    assert workspace.remove("labels", "exam_id", ["CANARY-7241", "nobody"]) == 1
    assert b"CANARY-7241" in everything(workspace.folder)
    workspace.vacuum()
    assert workspace.read("labels").equals(rows(("b", "absent")))
    assert b"CANARY-7241" not in everything(workspace.folder)


def test_what_a_killed_writer_left_is_on_the_disk_no_more(workspace: Workspace) -> None:
    """Written and never committed: no version has the file."""
    workspace.replace("labels", rows(("b", "absent")))
    workspace.replace_part("notes", 0, pl.DataFrame({"n": [1]}, schema=SCHEMAS["notes"]))
    workspace.replace_part("notes", 1, pl.DataFrame({"n": [2]}, schema=SCHEMAS["notes"]))
    for name, place in (("labels", "."), ("notes", "part=1")):
        whole = next((workspace.folder / name / place).glob("*.parquet"))
        (whole.parent / "part-00000-0123-c000.snappy.parquet").write_bytes(b"CANARY-7241" + whole.read_bytes())
    workspace.vacuum()
    assert b"CANARY-7241" not in everything(workspace.folder)
    workspace.vacuum()
    assert workspace.read("labels").equals(rows(("b", "absent")))
    assert sorted(workspace.read("notes")["n"]) == [1, 2]


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_files_go_only_while_nobody_writes(workspace: Workspace) -> None:
    """A file that is written and not yet committed looks like one that was left."""
    workspace.replace("labels", rows(("b", "absent")))
    script = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        import polars as pl
        from reportlabel import store
        schemas = {{"labels": pl.Schema({{"exam_id": pl.String, "value": pl.String}})}}
        workspace = store.Workspace.open(Path({str(workspace.folder)!r}), schemas)
        write = store.write_deltalake
        def slowly(path, *a, **k):
            (Path(path) / "not-yet-committed.parquet").write_bytes(b"x")
            print("writing", flush=True)
            time.sleep(1)
            assert (Path(path) / "not-yet-committed.parquet").exists()
            write(path, *a, **k)
        store.write_deltalake = slowly
        workspace.append("labels", pl.DataFrame([("a", "x")], schema=schemas["labels"], orient="row"))
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline()
        removed = workspace.vacuum()
        assert child.wait() == 0
    assert "not-yet-committed.parquet" in " ".join(removed)
    assert workspace.read("labels").height == 2


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_what_is_no_workspace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no workspace"):
        Workspace.open(tmp_path / "nothing", SCHEMAS)
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds something"):
        Workspace.open(tmp_path, SCHEMAS, create=True)


def test_a_killed_writer_leaves_a_whole_table(workspace: Workspace) -> None:
    script = textwrap.dedent(
        f"""
        import polars as pl
        from pathlib import Path
        from reportlabel.store import Workspace
        schemas = {{"labels": pl.Schema({{"exam_id": pl.String, "value": pl.String}})}}
        workspace = Workspace.open(Path({str(workspace.folder)!r}), schemas)
        number = 0
        while True:
            rows = pl.DataFrame({{"exam_id": [str(i) for i in range(20000)], "value": [str(number)] * 20000}})
            workspace.replace("labels", rows)
            print(number, flush=True)
            number += 1
        """
    )
    for wait in (0.0, 0.05, 0.13):
        child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None and child.stdout.readline()
        time.sleep(wait)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        found = workspace.read("labels")
        assert found.height == 20000 and found["value"].n_unique() == 1


def test_a_part_is_replaced_as_a_whole(workspace: Workspace) -> None:
    for part in range(3):
        workspace.replace_part("labels", part, rows((f"exam {part}", "present")))
    workspace.replace_part("labels", 1, rows(("x", "absent"), ("y", "absent")))
    assert set(workspace.read("labels")["exam_id"]) == {"exam 0", "x", "y", "exam 2"}
    assert workspace.read("labels", part=1, columns=["value"]).to_dict(as_series=False) == {
        "value": ["absent", "absent"]
    }
    assert workspace.read("labels", version=2).height == 3
    workspace.replace_part("labels", 1, rows())
    assert workspace.read("labels", part=1).is_empty() and workspace.read("labels").height == 2
    assert workspace.remove("labels", "exam_id", ["exam 2", "nobody"]) == 1
    assert workspace.read("labels")["exam_id"].to_list() == ["exam 0"]
    with pytest.raises(ValueError, match="part 99"):
        workspace.replace_part("labels", 99, rows())


def test_a_snapshot_names_the_versions_of_all_tables(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="no finished run"):
        workspace.versions()
    workspace.replace_part("labels", 0, rows(("a", "present")))
    assert workspace.take_snapshot("first", datetime(2026, 1, 1)) == 0
    workspace.replace_part("labels", 0, rows(("a", "absent")))
    workspace.replace("notes", pl.DataFrame({"n": [1]}, schema=SCHEMAS["notes"]))
    assert workspace.take_snapshot("second", datetime(2026, 1, 2)) == 1
    then, now = workspace.versions(0), workspace.versions()
    assert workspace.read("labels", version=then["labels"])["value"].to_list() == ["present"]
    assert workspace.read("labels", version=now["labels"])["value"].to_list() == ["absent"]
    assert workspace.read("notes", version=then["notes"]).is_empty()
    assert workspace.snapshots()["run_id"].to_list() == ["first", "second"]
    with pytest.raises(InputError, match="no version 7"):
        workspace.versions(7)


def test_a_workspace_keeps_its_number_of_parts(tmp_path: Path) -> None:
    Workspace.open(tmp_path / "w", SCHEMAS, create=True, parts=3)
    assert Workspace.open(tmp_path / "w", SCHEMAS, create=True, parts=9).parts == 3


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    """Delta escapes the name of a folder where it lists files."""
    own = Workspace.open(tmp_path / "研究 100% #1", SCHEMAS, create=True, parts=2)
    name = next(iter(SCHEMAS))
    table = pl.DataFrame({column: [None] for column in SCHEMAS[name]}, schema=SCHEMAS[name])
    own.replace_part(name, 0, table)
    own.replace_part(name, 1, pl.concat([table, table]))
    assert own.read(name).height == 3
    assert own.read(name, part=1).height == 2
    assert own.scan(name).collect().height == 3
    assert own.read(name, version=0).height == 1
