"""Where the images of the exams are: a table that the user gives."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from reportlabel.errors import InputError

KEYS = ("exam_id", "study_instance_uid")

IMAGE = pl.Struct({"series_instance_uid": pl.String, "path": pl.String})


def read_images(path: Path) -> pl.DataFrame:
    """An images table: CSV (UTF-8) or Parquet with ``path``, ``exam_id`` or ``study_instance_uid``.

    Returns:
        The key column that the file has (``exam_id`` before ``study_instance_uid``), ``series_instance_uid`` (null
        where the file has none), ``path``, ``row`` (from 1, without the header).

    Raises:
        InputError: the file cannot be read, lacks a column, or has rows without a key or path; names the rows.
    """
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            table = pl.read_parquet(path)
        elif path.suffix.lower() == ".csv":
            table = pl.read_csv(path, infer_schema=False)
        else:
            raise InputError(f"{path}: the images table is a .csv (UTF-8) or .parquet file")
    except (OSError, pl.exceptions.PolarsError) as error:
        # the text of the error may quote a line of the file
        raise InputError(
            f"{path}: cannot be read as an images table ({type(error).__name__}); give a CSV in UTF-8 or Parquet"
        ) from None
    table = table.rename({name: name.strip().lstrip("\ufeff") for name in table.columns})
    key = next((name for name in KEYS if name in table.columns), None)
    if key is None or "path" not in table.columns:
        raise InputError(f"{path}: needs a column path and one of {' or '.join(KEYS)}")
    series = "series_instance_uid"
    chosen = table.select(
        pl.col(key).cast(pl.String).str.strip_chars(),
        (pl.col(series) if series in table.columns else pl.lit(None)).cast(pl.String).alias(series),
        pl.col("path").cast(pl.String),
    ).with_row_index("row", offset=1)
    for column in (key, "path"):
        empty = chosen.filter(pl.col(column).is_null() | (pl.col(column) == ""))["row"]
        if len(empty):
            raise InputError(f"{path}: {_rows(empty)}: no {column}; fill it in or take the rows out")
    return chosen


def match_images(table: pl.DataFrame, exams: pl.DataFrame, *, source: str = "images table") -> pl.DataFrame:
    """The images of each exam.

    Args:
        table: of `read_images`.
        exams: ``exam_id`` and ``study_instance_uid``.
        source: name of the file, for errors.

    Returns:
        ``exam_id``, ``images`` (list of series_instance_uid and path, in the order of the paths); only exams that have
        one. Rows of the table whose exam is not there are in none of the lists.

    Raises:
        InputError: a path is there twice, or two exams have the study_instance_uid of an image.
    """
    key = next(name for name in KEYS if name in table.columns)
    known = exams.select("exam_id", "study_instance_uid").filter(pl.col(key).is_not_null())
    known = known.select(pl.col(key).alias("key"), pl.col("exam_id"))
    of_two = known.filter(pl.col("key").is_duplicated())
    ambiguous = table.filter(pl.col(key).is_in(of_two["key"].implode()))["row"]
    if len(ambiguous):
        raise InputError(f"{source}: {_rows(ambiguous)}: several exams have this {key}; give the images by exam_id")
    joined = table.rename({key: "key"}).join(known, on="key", how="inner", maintain_order="left")
    shared = joined.filter(pl.col("path").is_duplicated())["row"]
    if len(shared):
        raise InputError(f"{source}: {_rows(shared)}: the same path twice; each image has one row")
    return (
        joined.sort("exam_id", "path")
        .group_by("exam_id", maintain_order=True)
        .agg(pl.struct("series_instance_uid", "path").alias("images"))
    )


def _rows(rows: pl.Series) -> str:
    """Row numbers for an error; the first ten."""
    shown = ", ".join(str(row) for row in rows.head(10))
    return f"{'row' if len(rows) == 1 else 'rows'} {shown}{' …' if len(rows) > 10 else ''}"
