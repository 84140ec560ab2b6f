"""The settings of the deliverables fit the rest of the rules; tables are written for machines and for spreadsheets."""

from __future__ import annotations

import csv
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from reportlabel.errors import ConfigError, InputError, RefusedError
from reportlabel.export.deliverable_rules import load_deliverables
from reportlabel.export.manifest import read_manifest, verify_manifest
from reportlabel.export.study_folder import about, check_permission, need_columns, read_table, write_tables
from reportlabel.protocol import load_protocol
from reportlabel.rulebook.load import load_rules, rules_folder


def test_what_the_settings_name_exists() -> None:
    rules, book = load_deliverables(), load_rules()
    bone, skin, dose = rules.bone_scan, rules.skin, rules.dose
    labels = book.label_sets[bone.label_set]
    assert bone.metastasis in {one.id for one in labels.findings}
    assert {bone.count, bone.eod} <= {one.id for one in labels.values}
    assert skin.label_set in book.label_sets
    assert {*skin.diagnoses, *skin.unspecific, *skin.melanoma_history.findings} <= set(book.findings)
    assert dose.reason_section in {one.id for one in book.sections.sections}
    assert dose.age_groups[-1].below is None
    below = [group.below for group in dose.age_groups[:-1]]
    assert below == sorted(below)  # type: ignore[type-var]


def test_a_wrong_key_is_an_error_with_file_and_line(tmp_path: Path) -> None:
    text = (rules_folder() / "deliverables.yaml").read_text(encoding="utf-8")
    (tmp_path / "deliverables.yaml").write_text(text.replace("  eod: eod\n", "  eodd: eod\n"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"deliverables\.yaml:\d+: unknown key 'eodd'"):
        load_deliverables(tmp_path)


def test_X2_tables_as_parquet_csv_and_manifest(tmp_path: Path) -> None:
    protocol = load_protocol("jmid")
    permission = protocol.gate(
        "export",
        today=date(2027, 1, 1),
        recipient="institution",
        purpose="dose_analysis",
        deliverable="dose_summary",
    )
    check_permission(protocol, permission, kinds=("dose_summary",))
    with pytest.raises(RefusedError, match="J9"):
        check_permission(protocol, permission, kinds=("images",))
    with pytest.raises(RefusedError, match="K7"):
        check_permission(load_protocol("keio_2017_0018"), permission, kinds=("dose_summary",))
    table = pl.DataFrame({"name": ["=1+1", "胸部", "-5"], "list": [["a", "b"], [], None], "n": [-1.5, None, 2.0]})
    write_tables(tmp_path / "out", {"t": table}, said=about(protocol, permission, counts={"rows": 3}, rules_sha256="f"))
    assert pl.read_parquet(tmp_path / "out/t.parquet").equals(table)
    with (tmp_path / "out/t.csv").open(encoding="utf-8-sig", newline="") as stream:
        lines = list(csv.reader(stream))
    # a spreadsheet must not run a text; numbers stay numbers
    assert lines == [["name", "list", "n"], ["'=1+1", "a;b", "-1.5"], ["胸部", "", ""], ["'-5", "", "2.0"]]
    said = read_manifest(tmp_path / "out")
    assert said is not None and verify_manifest(tmp_path / "out") == []
    assert said["protocol_sha256"] == protocol.sha256 and said["rules_sha256"] == "f" and said["counts"] == {"rows": 3}
    assert said["permission"]["on"] == "2027-01-01" and said["retention"]["destroy_due"] == "2028-03-31"
    assert {one["number"]: one["values"] for one in said["decisions"]}["JC1"]["cohort.from"] == "2016-04-10"


def test_a_missing_column_is_named() -> None:
    need_columns(pl.DataFrame({"a": [1]}), ["a"], name="exams")
    with pytest.raises(InputError, match="exams: lacks the columns b, c"):
        need_columns(pl.DataFrame({"a": [1]}), ["a", "b", "c"], name="exams")


GIVEN = pl.Schema({"image_id": pl.String, "captured_on": pl.Date, "age_years": pl.Int32, "lesion_size_mm": pl.Float64})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp932"])
def test_a_table_of_the_hospital(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "images.csv"
    path.write_bytes("lesion_size_mm,image_id,captured_on\r\n8.5,左1,2015/5/10\r\n\r\n , 右1 ,\r\n".encode(encoding))
    read = read_table(path, GIVEN, required=["image_id"])
    assert read.schema == {"image_id": pl.String, "captured_on": pl.Date, "lesion_size_mm": pl.Float64}
    assert read.rows() == [("左1", date(2015, 5, 10), 8.5), ("右1", None, None)]
    read.write_parquet(tmp_path / "images.parquet")
    assert read_table(tmp_path / "images.parquet", GIVEN).equals(read)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"image_id,age_years\na,fifty\n", "row 2, column age_years: of another type"),
        (b"image_id,captured_on\na,2015-05-10\nb,10.5.2015\n", "row 3, column captured_on: of another type"),
        (b"image_id,colour\na,red\n", "unknown columns colour; known: image_id"),
        (b"age_years\n5\n", "lacks the columns image_id"),
        (b"image_id,image_id\na,b\n", "row 1: no header, or a column stands twice"),
        (b"", "row 1: no header"),
        (b"image_id,age_years\na\n", "row 2: 1 cells, but the header has 2"),
        (b"image_id\n\xff\xfe\x81\n", "neither UTF-8 nor cp932"),
        (b'image_id\n"a\n', "neither UTF-8 nor cp932, or not CSV"),
    ],
)
def test_what_is_no_such_table_is_said_without_its_cells(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "images.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as problem:
        read_table(path, GIVEN, required=["image_id"])
    assert str(path) in str(problem.value)
    assert "fifty" not in str(problem.value) and "10.5" not in str(problem.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(InputError, match="cannot be read"):
            read_table(tmp_path / name, GIVEN)
    pl.DataFrame({"image_id": [["a"]]}).write_parquet(tmp_path / "list.parquet")
    with pytest.raises(InputError, match="column image_id: of another type"):
        read_table(tmp_path / "list.parquet", GIVEN)
