"""The end of a study: what goes, what stays, what the certificate says, and a destruction that was stopped half way."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from reportlabel import destroy as destroying
from reportlabel.deidentify.linkage import LinkageStore, patient_key
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
    assert said["folders"] == [{"what": "staging", "files": 2, "bytes": 8000, "sha256": digest.hexdigest()}]
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


def test_a_destruction_that_was_stopped_half_way_is_gone_on_with(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(_word: str, _folder: Path) -> dict[str, Any]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(destroying, "_deleted", killed)
        with pytest.raises(KeyboardInterrupt):
            end(world)
    assert world.under.staging.exists()
    with pytest.raises(ConfigError, match="was destroyed by"):
        end(world, custodian="somebody else")
    end(world)
    assert not world.under.staging.exists()
    assert (world.under.linkage / DESTRUCTION).is_file()
    with pytest.raises(ConfigError, match="nothing is left"):
        end(world)
    end(world, "everything")
    assert not world.workspace.folder.exists()


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
