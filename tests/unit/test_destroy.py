"""The end of a study: what goes, what stays, what the certificate says, and a destruction that was stopped half way."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from reportlabel.deidentify.linkage import KeyFile, LinkageStore, patient_key
from reportlabel.deidentify.search import found_in
from reportlabel.destroy import DESTRUCTION, Destroyed, destroy, run_destroy
from reportlabel.errors import ConfigError
from tests.unit.export.study_workspace import DAY, World

CUSTODIAN = "各機関の個人情報管理部署"
ASKED: dict[str, Any] = {"custodian": CUSTODIAN, "purpose": "end of the study", "actor": "office"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    rows = made.under.staging / "rows" / "1"
    rows.mkdir(parents=True)
    (rows / "exams.parquet").write_bytes(b"00000007" * 1000)
    (rows / "empty").write_bytes(b"")
    return made


def end(world: World, what: str = "linkage", **changes: Any) -> Destroyed:
    return destroy(world.workspace.folder, **{**ASKED, "what": what, "key": world.under.key, "today": DAY, **changes})


def test_K12_nothing_links_a_code_to_a_patient_again(world: World) -> None:
    codes, labels = world.codes["code"], world.workspace.read("labels")
    done = end(world)
    with pytest.raises(ConfigError, match="was destroyed"):
        LinkageStore.open(world.under.linkage, key_source=world.under.key, workspace=None)
    with pytest.raises(ConfigError, match="destroyed"):
        world.store.lookup(codes[:1], custodian=CUSTODIAN, actor="a", purpose="p")
    assert not world.under.staging.exists()
    left = [("id", one) for one in world.id_of.values()] + [("key", patient_key("aoba", "00000007"))]
    assert found_in(world.under.linkage, left) == found_in(world.workspace.folder, left) == []
    assert world.workspace.read("labels").equals(labels), "labels still read"
    assert done.certificate.counts["patient"] == len(codes)
    assert done.due is not None


def test_K12_the_certificate_says_what_went(world: World) -> None:
    content = (world.under.staging / "rows" / "1" / "exams.parquet").read_bytes()
    end(world)
    said = json.loads((world.under.linkage / DESTRUCTION).read_text(encoding="utf-8"))
    assert (said["study"], said["custodian"], said["actor"]) == ("our_jmid", CUSTODIAN, "office")
    assert "archive of the hospital" in said["not_destroyed"]
    digest = hashlib.sha256()
    for name, held in (("rows/1/empty", b""), ("rows/1/exams.parquet", content)):
        digest.update(name.encode() + b"\0" + hashlib.sha256(held).digest())
    (folder,) = said["folders"]
    assert folder.pop("deleted_at_utc") <= said["destroyed_at_utc"]
    assert folder == {
        "what": "staging", "place": str(world.under.staging), "files": 2, "bytes": 8000, "sha256": digest.hexdigest(),
    }  # fmt: skip
    assert said["state"] == "done"
    certificate = json.loads((world.under.linkage / "certificate.json").read_text(encoding="utf-8"))
    assert certificate["store"] == said["store"]
    assert certificate["state"] == "done"


def test_J12_B20_S10_everything_takes_the_workspace_too(world: World) -> None:
    done = end(world, "everything")
    assert not world.workspace.folder.exists()
    assert [one["what"] for one in done.folders] == ["staging", "workspace"]
    assert done.folders[1]["files"] > 10
    assert sorted(path.name for path in world.under.linkage.iterdir() if path.suffix == ".json") == [
        "certificate.json",
        DESTRUCTION,
    ]


def test_nothing_goes_where_the_wrong_one_asks(world: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--what"):
        end(world, "labels")
    with pytest.raises(ConfigError, match="custodian"):
        end(world, custodian="somebody else")
    with pytest.raises(ConfigError, match="belongs to no study"):
        destroy(tmp_path, what="linkage", key=world.under.key, today=DAY, **ASKED)
    with world.workspace.alone(), pytest.raises(ConfigError, match="another run is at work"):
        end(world)
    assert world.under.staging.exists()
    assert world.store.lookup(world.codes["code"][:1], custodian=CUSTODIAN, actor="a", purpose="p").height == 1


LEFT = {"audit.jsonl", "audit.jsonl.head", "audit.jsonl.lock", ".lock", "certificate.json", DESTRUCTION}


def said_of(world: World) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((world.under.linkage / DESTRUCTION).read_text(encoding="utf-8"))
    return said


def went(world: World) -> list[tuple[Any, ...]]:
    """What the certificate of the folders says, but for the hours."""
    said = said_of(world)
    assert (said["state"], said["custodian"]) == ("done", CUSTODIAN)
    assert all(one["deleted_at_utc"] for one in said["folders"])
    return [tuple(one[name] for name in ("what", "files", "bytes", "sha256")) for one in said["folders"]]


def is_over(world: World) -> bool:
    """Nothing is left but what says what went."""
    left = {path.name for path in world.under.linkage.rglob("*") if path.is_file()}
    certificate = json.loads((world.under.linkage / "certificate.json").read_text(encoding="utf-8"))
    gone = not world.under.staging.exists() and not world.workspace.folder.exists()
    return gone and left == LEFT and certificate["state"] == "done"


def end_until_done(world: World) -> None:
    """The same command until it says that it is done, or has nothing left to do."""
    try:
        end(world, "everything")
    except ConfigError as error:
        if not any(said in str(error) for said in ("was empty and is deleted", "belongs to no study")):
            raise


def test_a_destruction_killed_at_any_step_is_gone_on_with(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [world.under.linkage, world.under.staging, world.workspace.folder]
    copies = world.folder / "copies"
    seen: set[tuple[str, ...]] = set()

    def copied() -> None:
        at = copies / str(len(list(copies.iterdir())))
        for place in places:
            if place.exists():
                shutil.copytree(place, at / place.name)

    def before(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(path: Any = None, *given: Any, **named: Any) -> Any:
            there = tuple(sorted(one.name for place in places if place.exists() for one in place.iterdir()))
            step_of = (name, "" if isinstance(path, int) else Path(path).name[:5], *there)
            if step_of not in seen:  # of many files of one folder the first
                seen.add(step_of)
                copied()  # what is there if the program is killed now
            return real(path, *given, **named)

        return step

    copies.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: None)
        for name in ("replace", "fsync", "unlink", "rmdir"):
            patched.setattr(os, name, before(name, getattr(os, name)))
        done = end(world, "everything")
    expected = went(world)
    assert [one["what"] for one in done.folders] == [one[0] for one in expected] == ["staging", "workspace"]
    assert is_over(world)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    states = sorted(copies.iterdir(), key=lambda path: int(path.name))
    assert len(states) > 30
    for state in states:
        for place in places:
            shutil.rmtree(place, ignore_errors=True)
            if (state / place.name).exists():
                shutil.copytree(state / place.name, place)
        end_until_done(world)
        assert is_over(world), state.name
        assert went(world) == expected, state.name


PROGRAM = """
import os, shutil, signal, sys
from datetime import date
from pathlib import Path
from reportlabel import destroy
from reportlabel.deidentify.linkage import KeyFile

def killed(real):
    def step(path, *given, **named):
        if Path(path).name == sys.argv[3]:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(path, *given, **named)
    return step

shutil.rmtree, os.unlink, os.rmdir = map(killed, (shutil.rmtree, os.unlink, os.rmdir))
destroy.destroy(Path(sys.argv[1]), what="everything", key=KeyFile(Path(sys.argv[2])), today=date(2026, 5, 1),
                custodian=sys.argv[4], purpose="end of the study", actor="office")
"""


def test_a_process_that_was_killed_is_gone_on_with(world: World) -> None:
    count = sum(1 for path in world.workspace.folder.rglob("*") if path.is_file())
    key = world.under.key
    assert isinstance(key, KeyFile)
    for at in ("labels", "study.json"):
        given = [world.workspace.folder, key.path, at, CUSTODIAN]
        done = subprocess.run([sys.executable, "-c", PROGRAM, *given], timeout=60, check=False)
        assert done.returncode == -signal.SIGKILL
        with pytest.raises(ConfigError, match="say --what everything"):
            end(world)
        with pytest.raises(ConfigError, match="was destroyed by"):
            end(world, custodian="somebody else")
    assert {path.name for path in world.workspace.folder.iterdir()} == {".lock", "study.json"}
    end(world, "everything")
    assert is_over(world)
    assert [one[:2] for one in went(world)] == [("staging", 2), ("workspace", count + 1)], "the lock is one more"


def test_first_the_codes_and_later_everything(world: World) -> None:
    end(world)
    first = went(world)
    with pytest.raises(ConfigError, match="nothing is left"):
        end(world)
    (world.folder / "our_jmid.yaml").unlink()  # nobody needs the protocol any more
    end(world, "everything", actor="another office")
    assert is_over(world)
    assert went(world)[0] == first[0]
    assert [one[0] for one in went(world)] == ["staging", "workspace"]
    with pytest.raises(ConfigError, match="belongs to no study"):
        end(world, "everything")


def test_links_out_of_the_workspace_are_not_followed(world: World) -> None:
    other = world.folder / "other"
    other.mkdir()
    (other / "file").write_text("not ours")
    (world.workspace.folder / "link").symlink_to(other, target_is_directory=True)
    end(world, "everything")
    assert is_over(world)
    assert (other / "file").read_text() == "not ours"


def test_what_cannot_be_deleted_is_said_by_name(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("reportlabel.destroy.shutil.rmtree", refused)
    with pytest.raises(ConfigError, match=r"cannot delete .*staging: Permission denied; delete it by hand"):
        end(world)
    content = (world.under.staging / "rows" / "1" / "exams.parquet").read_bytes()
    assert content == bytes(8000), "what it held is gone"


def told(world: World, *, really: bool) -> str:
    stream = io.StringIO()
    run_destroy(
        world.workspace.folder, what="linkage", key=world.under.key, really=really,
        console=Console(file=stream, width=200), **ASKED,
    )  # fmt: skip
    return stream.getvalue()


def test_without_yes_it_is_only_said_what_would_go(world: World) -> None:
    text = told(world, really=False)
    assert "would destroy the linkage store" in text
    assert "(2 files); say --yes to do it" in text
    assert world.under.staging.exists()
    text = told(world, really=True)
    assert "30 patient codes, 30 exam codes" in text
    assert "deleted: staging, 2 files" in text
    assert world.workspace.read("labels").height > 0
