"""The images table: what fits is used, what does not is named by row."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from reportlabel.errors import InputError
from reportlabel.export.images import match_images, read_images
from tests.unit.export import exam_tables

EXAMS = exam_tables.exams(4)


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_csv_and_parquet_say_the_same(tmp_path: Path) -> None:
    text = "exam_id,path,series_instance_uid,more\nE0000,a.nii.gz,1.2,x\nE0001, b c.nii.gz,,y\n"
    of_csv = read_images(write(tmp_path / "a.csv", "\ufeff" + text))
    assert of_csv.rows() == [(1, "E0000", "1.2", "a.nii.gz"), (2, "E0001", None, " b c.nii.gz")]
    pl.read_csv(text.encode()).write_parquet(tmp_path / "a.parquet")
    assert read_images(tmp_path / "a.parquet").rows()[0] == (1, "E0000", "1.2", "a.nii.gz")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "exam_id,file\nE0,a\n", "needs a column path and one of exam_id or study_instance_uid"),
        ("a.csv", "path\na\n", "needs a column path"),
        ("a.csv", "exam_id,path\nE0,\nE1,b\nE2,\n", "rows 1, 3: no path"),
        ("a.csv", "exam_id,path\n ,b\n", "row 1: no exam_id"),
        ("a.csv", "", "cannot be read"),
        ("a.xlsx", "x", "is a .csv"),
        ("a.parquet", "no parquet", "cannot be read"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, name: str, text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_images(write(tmp_path / name, text))


def test_an_unreadable_file_is_not_quoted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("exam_id,path\nE0,患者名簿.png\n".encode("cp932"))
    with pytest.raises(InputError) as error:
        read_images(path)
    assert "患者" not in str(error.value) and error.value.__cause__ is None
    with pytest.raises(InputError, match="cannot be read"):
        read_images(tmp_path / "missing.csv")


def table(key: str, *rows: tuple[str, str]) -> pl.DataFrame:
    given = pl.DataFrame(list(rows), schema={key: pl.String, "path": pl.String}, orient="row")
    return given.with_columns(pl.lit(None, dtype=pl.String).alias("series_instance_uid")).with_row_index(
        "row", offset=1
    )


@pytest.mark.parametrize(
    ("key", "ids"), [("exam_id", ["E0000", "E0002"]), ("study_instance_uid", ["2.25.1", "2.25.3"])]
)
def test_images_are_found_by_either_key(key: str, ids: list[str]) -> None:
    found = match_images(table(key, (ids[0], "b"), (ids[1], "c"), (ids[0], "a"), ("other", "d")), EXAMS)
    assert [(exam, [one["path"] for one in images]) for exam, images in found.iter_rows()] == [
        ("E0000", ["a", "b"]),
        ("E0002", ["c"]),
    ]


def test_ambiguous_images_are_refused() -> None:
    with pytest.raises(InputError, match=r"images\.csv: rows 1, 2: the same path twice"):
        match_images(table("exam_id", ("E0000", "a"), ("E0001", "a")), EXAMS, source="images.csv")
    twins = EXAMS.with_columns(pl.lit("1.2").alias("study_instance_uid"))
    with pytest.raises(InputError, match="row 1: several exams have this study_instance_uid"):
        match_images(table("study_instance_uid", ("1.2", "a")), twins)
