"""Hand-overs of a study: the gate, refusals as of today, what anonymised means, the ledger and the seal."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import tarfile
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pyrage import DecryptError, decrypt, x25519

from reportlabel.deidentify.audit import entries
from reportlabel.deidentify.linkage import LinkageStore, make_key_file
from reportlabel.errors import ConfigError, RefusedError
from reportlabel.export.hand_over import check_no_study, deliverable_of, hand_over
from reportlabel.export.manifest import read_manifest, verify_manifest
from reportlabel.export.options import ExportOptions
from reportlabel.export.seal import unsealed_folder
from reportlabel.protocol import load_protocol
from tests.unit.export.exam_tables import SMALL
from tests.unit.export.study_workspace import COMMON, DAY, PATIENTS, RARE, World, only_small


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# --- the gate


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"recipient": "somebody"}, "J9"),
        ({"purpose": "advertising"}, "J9"),
        ({"recipient": "participating_institutions"}, "J9"),
        ({"today": date(2028, 4, 1)}, "J12"),
        ({"today": date(2026, 4, 9)}, "J12"),
        ({"to": None, "deliverable": "the_archive"}, "J9"),
    ],
)
def test_J9_J12_nothing_is_made_that_the_protocol_forbids(world: World, changes: dict[str, Any], number: str) -> None:
    with pytest.raises(RefusedError, match=number):
        world.hand(**changes)
    assert not (world.folder / "given").exists()
    assert world.ledger().is_empty()


def test_J9_a_workspace_of_a_study_needs_a_recipient_and_others_take_none(world: World, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="--recipient"):
        check_no_study(world.workspace.folder, world.study, None)
    with pytest.raises(ConfigError, match="belongs to no study"):
        check_no_study(tmp_path, None, world.request())
    check_no_study(tmp_path, None, None)
    check_no_study(tmp_path, world.study, world.request())


def test_the_deliverable_is_the_one_that_is_meant(world: World) -> None:
    jmid, tohoku = world.under.protocol, load_protocol("tohoku_skin")
    assert deliverable_of(jmid, None, labels=True) == "teacher_labels"
    assert deliverable_of(tohoku, "index", labels=False) == "index"
    with pytest.raises(ConfigError, match="--to FORMAT"):
        deliverable_of(jmid, "teacher_labels", labels=False)
    with pytest.raises(ConfigError, match="without --to"):
        deliverable_of(jmid, "exam_table", labels=True)
    without = jmid.model_copy(update={"deliverables": [one for one in jmid.deliverables if one.kind != "labels"]})
    with pytest.raises(RefusedError, match="hands over no labels"):
        deliverable_of(without, None, labels=True)
    twice = jmid.model_copy(
        update={"deliverables": [one.model_copy(update={"kind": "labels"}) for one in jmid.deliverables]}
    )
    with pytest.raises(ConfigError, match="say which"):
        deliverable_of(twice, None, labels=True)


# --- what is in it


def test_X2_J9_labels_of_the_study_with_its_manifest(world: World) -> None:
    done = world.hand()
    assert verify_manifest(done.place) == []
    manifest = read_manifest(done.place)
    assert manifest is not None
    assert manifest["protocol"] == "our_jmid"
    assert "JC4" in str(manifest["study"])
    assert (done.patients, done.refused, done.set_aside) == (PATIENTS, 0, 0)
    labels = pl.read_parquet(done.place / "labels.parquet")
    assert set(labels["exam_id"]) == set(world.exams["exam_id"])


def test_K16_S6_who_has_refused_since_the_run_is_not_in_it(world: World) -> None:
    code = world.codes["code"][7]
    world.refuse(world.id_of[code])
    done = world.hand()
    assert (done.patients, done.refused) == (PATIENTS - 1, 1)
    labels = pl.read_parquet(done.place / "labels.parquet")
    gone = world.exams.filter(patient_id=code)["exam_id"][0]
    assert gone not in labels["exam_id"].to_list()
    assert code not in world.ledger()["patient_code"].to_list()


def test_J11_a_request_at_another_hospital_counts_at_the_export_too(world: World) -> None:
    code = world.codes["code"][3]
    persons = [("aoba", world.id_of[code].lstrip("0"), "one"), ("far", "9", "one")]
    table = pl.DataFrame(persons, schema=["site", "patient_id", "person"], orient="row")
    with (world.folder / "refusals.csv").open("a", encoding="utf-8") as stream:
        stream.write("far,9,2026-04-20,all_research,,patient\n")
    alone = world.hand("a")
    assert alone.refused == 0, "nobody says that they are one person"
    assert alone.missed.elsewhere.rows() == [("far", [1])], "and that nobody knows the hospital is told"
    both = world.hand("b", persons=table)
    assert both.refused == 1
    assert both.missed.told() == []


def test_a_hospital_and_an_id_count_however_they_are_spelt(world: World) -> None:
    code = world.codes["code"][3]
    with (world.folder / "refusals.csv").open("a", encoding="utf-8") as stream:
        stream.write(f" 青葉,{world.id_of[code].lstrip('0')},2026-04-20,study,another,patient,\n")  # a comma too many
    done = world.hand()
    assert (done.refused, done.set_aside) == (1, 0)


def test_rows_of_the_list_that_name_nobody_are_told(world: World) -> None:
    with (world.folder / "refusals.csv").open("a", encoding="utf-8") as stream:
        stream.write("aoba,,2026-04-20,all_research,,patient\n")
    assert world.hand().set_aside == 1


def test_J8_anonymised_labels_have_no_linking_code_and_no_rare_finding(world: World) -> None:
    done = world.hand(profile="anonymised")
    labels = pl.read_parquet(done.place / "labels.parquet")
    written = "".join(path.read_text("utf-8") for path in done.place.glob("*.json")) + labels.write_json()
    linking = [*world.exams["exam_id"], *world.codes["code"], *world.exams["study_instance_uid"]]
    assert [one for one in linking if one in written] == []
    assert set(labels["finding"]) == {COMMON}, "the rare one is in fewer than k patients; sizes single people out"
    assert labels["exam_id"].n_unique() == PATIENTS
    manifest = read_manifest(done.place)
    assert manifest is not None
    left_out = manifest["study"]["anonymised"]["left_out_because_rare"]
    assert left_out == [f"{SMALL.id}.{RARE}", f"{SMALL.id}.normal"]
    evidence = [column for column in labels.columns if "evidence" in column]
    assert all(labels[column].list.len().sum() == 0 for column in evidence if labels[column].dtype == pl.List)
    again = pl.read_parquet(world.hand("again", profile="anonymised").place / "labels.parquet")
    assert set(again["exam_id"]).isdisjoint(labels["exam_id"]), "two bundles cannot be joined"
    assert done.patients == PATIENTS
    assert set(world.ledger()["patient_code"]) == set(world.codes["code"]), "the hospital knows who is in it"


def test_J8_anonymised_labels_go_without_features_and_keys_of_images(world: World) -> None:
    with pytest.raises(RefusedError, match=r"J8.*without"):
        world.hand(profile="anonymised", options=ExportOptions(features=True))
    keys = pl.DataFrame({"exam_id": world.exams["exam_id"], "path": world.exams["exam_id"], "row": 1})
    with pytest.raises(RefusedError, match=r"J8.*without"):
        world.hand(profile="anonymised", images=keys)


# --- the ledger


def test_K16_the_ledger_knows_every_bundle_and_everybody_in_it(world: World) -> None:
    first, second = world.hand("a"), world.hand("b", purpose="dose_analysis")
    assert first.bundle != second.bundle
    ledger = world.ledger()
    assert set(ledger["bundle"]) == {first.bundle, second.bundle}
    assert ledger["shipped_on"].unique().to_list() == [DAY]
    assert ledger["recipient"].unique().to_list() == ["institution"]
    assert ledger.height == 2 * PATIENTS
    logged = [entry for entry in entries(world.store.log.path) if entry.action == "export"]
    assert [entry.details["bundle"] for entry in logged] == [first.bundle, second.bundle]
    assert set(logged[0].records) == set(world.codes["code"])
    assert world.store.problems() == []


def test_the_same_bundle_of_a_day_stands_once(world: World) -> None:
    assert world.hand("a").bundle == world.hand("b").bundle
    assert world.ledger().height == PATIENTS
    assert world.hand("c", today=date(2026, 5, 2)).bundle
    assert world.ledger()["shipped_on"].n_unique() == 2


def test_two_exports_at_a_time_are_both_remembered(world: World) -> None:
    """The ledger is read and written under one lock: nothing that another program adds in between is lost."""
    other = LinkageStore.open(world.under.linkage, key_source=world.under.key, workspace=world.workspace.folder)
    rows = world.ledger()
    for name, store in (("one", world.store), ("two", other), ("three", world.store)):
        row = pl.DataFrame([(name, "x", DAY, "J-0000000001")], schema=rows.schema, orient="row")
        store.add("shipped", row, actor="a", purpose="p")
    assert world.ledger()["bundle"].to_list() == ["one", "two", "three"]


# --- the seal


def test_B7_B19_S9_a_sealed_file_opens_with_the_key_of_its_recipient_alone(world: World) -> None:
    recipient, other = x25519.Identity.generate(), x25519.Identity.generate()
    done = world.hand(seal_to=str(recipient.to_public()))
    assert done.place.name == "out.tar.age"
    assert sorted(path.name for path in done.place.parent.iterdir()) == ["out.tar.age"], "nothing plain is left"
    content = done.place.read_bytes()
    assert b"exam_id" not in content
    with pytest.raises(DecryptError):
        decrypt(content, [other])
    with tarfile.open(fileobj=io.BytesIO(decrypt(content, [recipient]))) as archive:
        assert {member.uname or member.gname or member.mtime for member in archive.getmembers()} == {0}
        archive.extractall(world.folder / "opened", filter="data")
    assert verify_manifest(world.folder / "opened" / "out") == []
    with pytest.raises(ConfigError, match="never replaced"):
        world.hand(seal_to=str(recipient.to_public()))


def test_a_killed_sealing_leaves_nothing_plain_beside_the_bundle(world: World) -> None:
    """What it left lies in the staging folder, and goes with the next hand-over; one that is at work stays."""
    staging = world.study.staging
    program = f"""if True:
        import os, signal
        from pathlib import Path
        from reportlabel.export.seal import unsealed_folder
        with unsealed_folder(Path({str(staging)!r})) as folder:
            (folder / "labels.csv").write_text("plain")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    (left,) = staging.glob("unsealed/*/labels.csv")
    with unsealed_folder(staging) as at_work:
        assert not left.exists()
        world.hand(seal_to=str(x25519.Identity.generate().to_public()))
        assert at_work.is_dir()
    assert list(staging.glob("unsealed/*")) == []
    assert sorted(path.name for path in (world.folder / "given").iterdir()) == ["out.tar.age"]


def test_S5_S9_what_leaves_is_sealed_or_refused(world: World) -> None:
    outside: dict[str, Any] = {"to": None, "deliverable": "dose_summary", "recipient": "participating_institutions"}
    with pytest.raises(RefusedError, match="encrypted"):
        world.hand(**outside, purpose="dose_analysis")
    with pytest.raises(ConfigError, match="no public key of age"):
        world.hand(seal_to="age1nothing")
    done = world.hand(**outside, purpose="dose_analysis", seal_to=str(x25519.Identity.generate().to_public()))
    assert done.place.is_file()


def test_a_wrong_key_makes_nothing(world: World) -> None:
    with pytest.raises(ConfigError, match="key"):
        world.hand(key=make_key_file(world.folder / "keys" / "other.key"))
    assert not (world.folder / "given" / "out").exists()


def test_a_changed_protocol_hands_nothing_over(world: World) -> None:
    study = replace(world.study, protocol_sha256="0" * 64)
    with pytest.raises(ConfigError, match="has changed since the last run"):
        hand_over(
            world.workspace, study, world.request(), world.folder / "out", versions=world.workspace.versions(),
            today=DAY, to="parquet", label_sets=only_small,
        )  # fmt: skip
