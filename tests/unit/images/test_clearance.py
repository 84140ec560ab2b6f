"""No picture goes out that a person has not cleared."""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl
import pytest

from reportlabel.consent.attrition import unbalanced
from reportlabel.errors import ConfigError, InputError, RefusedError
from reportlabel.export.deliverable_rules import load_deliverables
from reportlabel.export.manifest import read_manifest, verify_manifest
from reportlabel.images.clearance import (
    CLEARANCE,
    clearance_config,
    clearance_of,
    clearance_tasks,
    keep_cleared,
)
from reportlabel.images.handover import HANDED_OVER, strip_pictures, write_photographs
from reportlabel.images.photograph import metadata_of
from reportlabel.images.sets import regions_of
from reportlabel.images.sieve import HITS
from reportlabel.protocol import Permission, Protocol, load_protocol
from tests.unit.images.drawn_pictures import CANARY, exif, jpeg, png, skin

RULES = load_deliverables().photographs
WORDS = RULES.clearance


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    return load_protocol("shinshu_skin")


def decision(
    image_id: str, what: str, *, reviewer: str = "r1", hour: int = 9, sha256: str | None = None
) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "sha256": sha256 or f"hash {image_id}",
        "decision": what,
        "reviewer": reviewer,
        "decided_at": datetime(2024, 1, 1, hour),
    }


def images(*ids: str) -> pl.DataFrame:
    return pl.DataFrame({"image_id": list(ids), "sha256": [f"hash {one}" for one in ids]})


def test_S4_T2_only_what_a_person_has_cleared_is_kept(protocol: Protocol) -> None:
    clearance = pl.DataFrame(
        [
            decision("yes", "cleared"),
            decision("no", "not_cleared"),
            decision("two", "cleared"),
            decision("two", "not_cleared", reviewer="r2"),
            decision("changed", "cleared", sha256="another file"),
            decision("again", "not_cleared", hour=8),
            decision("again", "cleared", hour=10),
            decision("back", "cleared", hour=8),
            decision("back", "not_cleared", hour=10),
        ],
        schema=CLEARANCE,
    )
    given = images("yes", "no", "two", "changed", "again", "back", "unseen")
    cleared = keep_cleared(given, clearance, protocol)
    assert cleared.kept["image_id"].to_list() == ["yes", "again"]
    assert cleared.kept.columns == given.columns
    assert dict(cleared.excluded.select("image_id", "reason").iter_rows()) == {
        "unseen": "nobody has looked at it",
        "changed": "the file is not the one looked at",
        "no": "it may identify the person",
        "two": "it may identify the person",
        "back": "it may identify the person",
    }
    assert set(cleared.excluded["number"]) == {"S4"}
    assert unbalanced(cleared.attrition) == [] and cleared.attrition["rows_in"][0] == 7


def test_T2_in_the_other_study_the_number_is_its_own() -> None:
    tohoku = load_protocol("tohoku_skin")
    assert keep_cleared(images("a"), pl.DataFrame(schema=CLEARANCE), tohoku).excluded["number"].to_list() == ["T2"]


def test_S4_tables_that_cannot_be_used(protocol: Protocol) -> None:
    none = pl.DataFrame(schema=CLEARANCE)
    with pytest.raises(InputError, match="stand twice"):
        keep_cleared(images("a", "a"), none, protocol)
    with pytest.raises(InputError, match="1 decisions are neither"):
        keep_cleared(images("a"), pl.DataFrame([decision("a", "maybe")], schema=CLEARANCE), protocol)
    with pytest.raises(ConfigError, match="image_clearance"):
        keep_cleared(images("a"), none, load_protocol("jmid"))


# --- Label Studio -----------------------------------------------------------------------------------------------------


def test_S4_the_task_shows_picture_rubric_and_candidates(protocol: Protocol) -> None:
    config = clearance_config(WORDS, protocol)
    tree = ElementTree.fromstring(config)
    assert [one.get("value") for one in tree.iter("Text")] == list(protocol.image_clearance.rubric)  # type: ignore[union-attr]
    assert [one.get("alias") for one in tree.iter("Choice")] == ["cleared", "not_cleared"]
    (choices,) = tree.iter("Choices")
    assert choices.get("required") == "true"
    hits = pl.DataFrame(
        [("a", True, None, None, None, None, None), ("b", True, "face", 0.25, 0.5, 0.1, 0.2)], schema=HITS, orient="row"
    )
    tasks = clearance_tasks(images("a", "b"), hits, {"a": "/data/a.png", "b": "/data/b.png"}, WORDS)
    assert [one["data"]["image_id"] for one in tasks] == ["b", "a"]
    (hint,) = tasks[0]["predictions"][0]["result"]
    assert hint["value"]["rectanglelabels"][0] in {one.get("value") for one in tree.iter("Label")}
    assert (hint["value"]["x"], hint["value"]["height"]) == (25, 20)
    assert hint["from_name"] in {one.get("name") for one in tree.iter()}
    with pytest.raises(InputError, match="1 pictures have no address"):
        clearance_tasks(images("a"), hits, {}, WORDS)


def answered(image_id: str, answer: str, **more: Any) -> dict[str, Any]:
    result = [{"type": "choices", "value": {"choices": [answer]}}]
    return {
        "data": {"image_id": image_id, "sha256": f"hash {image_id}"},
        "annotations": [
            {"completed_by": {"id": 3}, "updated_at": "2024-02-03T04:05:06.789000Z", "result": result, **more}
        ],
    }


def test_S4_decisions_come_back(protocol: Protocol) -> None:
    tasks = [
        answered("a", "cleared"), answered("b", WORDS.not_cleared), answered("c", "cleared", was_cancelled=True)
    ]  # fmt: skip
    decisions = clearance_of(json.loads(json.dumps(tasks)), WORDS)
    assert decisions.schema == CLEARANCE
    moment = datetime(2024, 2, 3, 4, 5, 6)
    assert decisions.rows() == [
        ("a", "hash a", "cleared", "3", moment),
        ("b", "hash b", "not_cleared", "3", moment),
    ]
    assert keep_cleared(images("a", "b", "c"), decisions, protocol).kept["image_id"].to_list() == ["a"]
    assert clearance_of([], WORDS).schema == CLEARANCE
    with pytest.raises(InputError, match="task 1: the answer is none of the two"):
        clearance_of([answered("a", "maybe")], WORDS)
    with pytest.raises(InputError, match="task 1: not a task of this program"):
        clearance_of([{"data": {}}], WORDS)


# --- the folder -------------------------------------------------------------------------------------------------------


def permission(protocol: Protocol, deliverable: str = "images") -> Permission:
    return protocol.gate(
        "export",
        today=date(2024, 1, 1),
        recipient="shinshu_university",
        purpose="ai_training",
        deliverable=deliverable,
    )


def stripped(tmp_path: Path) -> tuple[pl.DataFrame, pl.DataFrame, Path]:
    """Images, stripped pictures, and the folder of these; the fourth picture cannot be read."""
    originals = tmp_path / "originals"
    originals.mkdir()
    contents = {
        "I1": jpeg(skin(), exif=exif(thumbnail=True), comment=CANARY.encode()),
        "I2": png(skin(), text=True),
        "I3": jpeg(skin(50, 40), exif=exif()),
        "I4": b"no picture",
    }
    for name, content in contents.items():
        (originals / f"{CANARY}-{name}").write_bytes(content)
    folder = tmp_path / "stripped"
    folder.mkdir()
    made = strip_pictures({name: originals / f"{CANARY}-{name}" for name in contents}, folder, RULES)
    assert made.not_out.select("image_id", "reason").rows() == [("I4", "The picture cannot be read.")]
    assert made.pictures["file"].to_list() == ["I1.jpg", "I2.png", "I3.jpg"]
    assert "GPS" in made.pictures["had"][0]
    table = pl.DataFrame({"image_id": list(contents), "patient_id": ["S-A", "S-A", "S-B", "S-B"], "site": "gunma"})
    return table, made.pictures, folder


def test_S4_S5_only_cleared_pictures_go_out_and_without_metadata(protocol: Protocol, tmp_path: Path) -> None:
    table, pictures, folder = stripped(tmp_path)
    hashes = dict(pictures.select("image_id", "sha256").iter_rows())
    clearance = pl.DataFrame(
        [decision("I1", "cleared", sha256=hashes["I1"]), decision("I2", "cleared", sha256=hashes["I2"]),
         decision("I3", "not_cleared", sha256=hashes["I3"])],
        schema=CLEARANCE,
    )  # fmt: skip
    box = {"x": 10, "y": 10, "width": 20, "height": 20, "rectanglelabels": ["病変"]}
    drawn = [{"completed_by": 1, "result": [{"type": "rectanglelabels", "value": box}]}]
    regions = regions_of([{"data": {"image_id": name}, "annotations": drawn} for name in ("I1", "I3")])
    out = tmp_path / "out"
    attrition = write_photographs(
        out, table, pictures, clearance, regions, folder=folder, protocol=protocol, permission=permission(protocol),
        salt="s",
    )  # fmt: skip
    assert attrition.select("rows_in", "rows_out").rows() == [(4, 3), (3, 3), (3, 2)]
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert files == ["images.parquet", "images/S-A/I1.jpg", "images/S-A/I2.png", "manifest.json", "regions.parquet"]
    rows = pl.read_parquet(out / "images.parquet")
    assert rows.schema == HANDED_OVER
    assert rows.select("image_id", "patient_id", "file", "set").rows() == [
        ("I1", "S-A", "images/S-A/I1.jpg", "labelled"),
        ("I2", "S-A", "images/S-A/I2.png", "unlabelled"),
    ]
    assert pl.read_parquet(out / "regions.parquet")["image_id"].to_list() == ["I1"]
    for path in out.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes() and CANARY not in path.name
        if path.suffix in (".jpg", ".png"):
            assert metadata_of(path.read_bytes()) == []
    said = read_manifest(out)
    assert said is not None and verify_manifest(out) == []
    assert said["protocol"] == "shinshu_skin" and said["permission"]["recipient"] == "shinshu_university"
    assert said["counts"]["images_in"] == 4 and said["counts"]["images_out"] == 2
    assert said["counts"]["images_not_cleared"] == 2
    assert said["rubric"] == list(protocol.image_clearance.rubric)  # type: ignore[union-attr]


def test_S4_a_file_changed_after_it_was_looked_at_does_not_go_out(protocol: Protocol, tmp_path: Path) -> None:
    table, pictures, folder = stripped(tmp_path)
    hashes = dict(pictures.select("image_id", "sha256").iter_rows())
    clearance = pl.DataFrame([decision("I1", "cleared", sha256=hashes["I1"])], schema=CLEARANCE)
    (folder / "I1.jpg").write_bytes(jpeg(skin(), exif=exif()))
    with pytest.raises(InputError, match="changed after it was looked at"):
        write_photographs(
            tmp_path / "out", table, pictures, clearance, regions_of([]), folder=folder, protocol=protocol,
            permission=permission(protocol), salt="s",
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_S5_codes_and_permission_are_needed(protocol: Protocol, tmp_path: Path) -> None:
    table, pictures, folder = stripped(tmp_path)
    more: dict[str, Any] = {"folder": folder, "protocol": protocol, "salt": "s"}
    none = pl.DataFrame(schema=CLEARANCE)
    with pytest.raises(RefusedError, match="S5"):
        write_photographs(
            tmp_path / "out",
            table,
            pictures,
            none,
            regions_of([]),
            permission=permission(protocol, "nine_items"),
            **more,
        )
    named = table.with_columns(patient_id=pl.lit("山田"))
    with pytest.raises(InputError, match="4 rows have no patient code"):
        write_photographs(
            tmp_path / "out", named, pictures, none, regions_of([]), permission=permission(protocol), **more
        )
    with pytest.raises(ConfigError, match="existing, empty folder"):
        strip_pictures({}, folder, RULES)
    (tmp_path / "new").mkdir()
    with pytest.raises(InputError, match="1 picture ids are not letters"):
        strip_pictures({"../山田": folder / "I1.jpg"}, tmp_path / "new", RULES)
