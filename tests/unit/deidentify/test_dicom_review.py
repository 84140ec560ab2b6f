"""The review sheet: written, filled in, read back."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from reportlabel.deidentify.dicom import deidentify_dataset
from reportlabel.deidentify.dicom_policy import load_policy
from reportlabel.deidentify.dicom_review import ReviewItem, ReviewKey, ReviewSheet, read_decisions
from reportlabel.errors import ConfigError, InputError
from tests.unit.deidentify.dicom_objects import CODE, KEY, opened

KEYS = [
    ReviewKey("private", "=ACME, 'x'", "(0019,xx0C)", "LO"),
    ReviewKey("overlay", "", "(6000,3000)", "G"),
    ReviewKey("pixels", "ADAC", "Secondary Capture Image Storage", "NM ORIGINAL/PRIMARY 1024x256"),
]


def sheet_of(*keys: ReviewKey) -> ReviewSheet:
    sheet = ReviewSheet()
    sheet.add([ReviewItem(key, "a name", "a value") for key in keys])
    return sheet


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def fill_in(path: Path, *decisions: str) -> None:
    filled = rows(path)
    for row, decision in zip(filled, decisions, strict=True):
        row["decision"] = decision
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(filled[0]))
        writer.writeheader()
        writer.writerows(filled)


def test_B11_one_row_for_each_creator_attribute_and_kind_of_value(tmp_path: Path) -> None:
    sheet = ReviewSheet()
    for number in range(30):
        sheet.add([ReviewItem(KEYS[0], "b value", f"v{number}"), ReviewItem(KEYS[0], "b value", "again")])
        sheet.add([ReviewItem(KEYS[1], "OverlayData", "")])
    sheet.write(tmp_path / "sheet.csv")
    overlay, private = rows(tmp_path / "sheet.csv")
    assert (private["n_files"], private["n_values"]) == ("30", "31")
    assert private["values"].startswith("v0 | again | v1 | ") and private["values"].count(" | ") == 19
    assert (overlay["n_files"], overlay["n_values"], overlay["values"]) == ("30", "0", "")
    assert all(row["decision"] == "" and "confidential" in row["notice"] for row in (overlay, private))


def test_B11_the_sheet_is_for_its_owner_alone_and_not_among_what_goes_out(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "deep").mkdir(parents=True)
    with pytest.raises(ConfigError, match="write it elsewhere"):
        sheet_of(*KEYS).write(out / "deep" / "sheet.csv", apart_from=[out])
    assert not list((out / "deep").iterdir())
    sheet_of(*KEYS).write(tmp_path / "sheet.csv", apart_from=[out])
    assert (tmp_path / "sheet.csv").stat().st_mode & 0o077 == 0
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out", "sheet.csv"]


def test_a_sheet_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write"):
        sheet_of(*KEYS).write(tmp_path / "no" / "sheet.csv")


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    sheet = ReviewSheet()
    sheet.add([ReviewItem(KEYS[0], "@name", "+1+cmd"), ReviewItem(KEYS[1], "", "-1")])
    sheet.write(tmp_path / "sheet.csv")
    cells = [cell for row in rows(tmp_path / "sheet.csv") for cell in row.values()]
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@")]


def test_decisions_come_back_as_they_were_made_and_empty_ones_remove(tmp_path: Path) -> None:
    sheet = sheet_of(*KEYS)
    sheet.write(tmp_path / "sheet.csv")
    assert set(read_decisions(tmp_path / "sheet.csv").values()) == {"remove"}
    fill_in(tmp_path / "sheet.csv", "keep", " Remove ", "")
    decisions = read_decisions(tmp_path / "sheet.csv")
    assert [decisions[key] for key in sheet.keys] == ["keep", "remove", "remove"]
    assert set(decisions) == set(KEYS)


def test_decisions_already_made_are_written_into_the_next_sheet(tmp_path: Path) -> None:
    sheet_of(*KEYS).write(tmp_path / "sheet.csv", decisions={KEYS[0]: "keep", KEYS[1]: "remove"})
    assert {row["kind"]: row["decision"] for row in rows(tmp_path / "sheet.csv")} == {
        "private": "keep",
        "overlay": "remove",
        "pixels": "",
    }


def test_B11_what_a_reviewer_decided_holds_for_the_next_run(tmp_path: Path) -> None:
    dataset, policy, sheet = opened("CT_small.dcm"), load_policy("gunma_bone_scan"), ReviewSheet()
    first = deidentify_dataset(dataset, policy, patient_code=CODE, uid_key=KEY)
    assert first.outcome == "quarantined"
    sheet.add(first.review)
    sheet.write(tmp_path / "sheet.csv")
    decisions = read_decisions(tmp_path / "sheet.csv")
    assert set(decisions) == set(sheet.keys)
    again = deidentify_dataset(dataset, policy, patient_code=CODE, uid_key=KEY, decisions=decisions)
    assert again.outcome == "out"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind,creator,tag,vr\n", "decision"),
        ("kind,creator,tag,decision\nprivate,A,B,keep\n", "lacks column vr"),
        ("kind,creator,tag,vr,decision\nprivate,A,B,LO,perhaps\n", "row 2: kind is"),
        ("kind,creator,tag,vr,decision\nothers,A,B,LO,keep\n", "row 2: kind is"),
        ("kind,creator,tag,vr,decision\nprivate,A,B,LO,keep\nprivate,A,B,LO,\n", "row 3: the same"),
    ],
)
def test_a_sheet_that_cannot_be_read_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "sheet.csv"
    path.write_text(text, encoding="utf-8")
    if message == "decision":
        path.write_text(text + "private,A,B,LO\n", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_decisions(path)


def test_a_sheet_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_decisions(tmp_path / "none.csv")
    (tmp_path / "sheet.csv").write_bytes(b"\xff\xfe\x00k")
    with pytest.raises(InputError, match="UTF-8"):
        read_decisions(tmp_path / "sheet.csv")
