"""CSV as CheXpert has it: 1, 0, −1 and blank for present, absent, uncertain and not mentioned.

The four states stay as they are in the file of each split. ``targets.csv`` beside them is the matrix to train on: the
targets after the policies, blank where they do not count, and the weights.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from reportlabel.export.csv_columns import CheXpert, column_order
from reportlabel.export.splits import SPLITS
from reportlabel.export.targets import VALUES
from reportlabel.export.wide import Matrix, Parts, Wide
from reportlabel.rulebook.models import LabelSet

_CODES = {"present": 1, "absent": 0, "uncertain": -1, "not_mentioned": None}
_KEYS = ("exam_id", "patient_id", "site", "split")
WEIGHT = "weight: {}"


def write_chexpert(
    folder: Path, label_set: LabelSet, parts: Parts, *, columns: CheXpert, exams: pl.DataFrame
) -> dict[str, int]:
    """Write ``<label set>/`` with a file a split and ``targets.csv``.

    Args:
        columns: the public header. It is used for its own label set; others have ``Path`` and the ids of the findings.
        exams: ``exam_id``, ``sex``, ``age_years``, for the two public columns of that name.

    Returns:
        Rows of each file.
    """
    public = label_set.id == columns.label_set
    if public:
        order, names = column_order(columns.columns, label_set), list(columns.columns.values())
    else:
        order, names = list(range(len(label_set.findings))), [entry.id for entry in label_set.findings]
    leading = [columns.image, *([columns.sex.column, columns.age, *columns.empty] if public else [])]
    weights = [WEIGHT.format(name) for name in names]
    headers = {columns.files.of(split): [*leading, *names] for split in SPLITS}
    headers[columns.targets] = [columns.image, *_KEYS, *names, *weights]
    place = folder / label_set.id
    place.mkdir()
    for name, header in headers.items():
        (place / name).write_text(pl.DataFrame(schema=header).write_csv(), encoding="utf-8")
    rows = dict.fromkeys(headers, 0)

    def append(name: str, table: pl.DataFrame) -> None:
        with (place / name).open("ab") as stream:
            table.select(headers[name]).write_csv(stream, include_header=False)
        rows[name] += table.height

    for part in parts:
        described = _described(part, columns, exams)
        append(columns.files.of(part.split), described.hstack(_states(part, order, names)))
        append(
            columns.targets,
            described.hstack(_numbers(part.target[:, order], names)).hstack(_numbers(part.weight[:, order], weights)),
        )
    return {f"{label_set.id}/{name}": count for name, count in rows.items()}


def _described(part: Wide, columns: CheXpert, exams: pl.DataFrame) -> pl.DataFrame:
    """All columns that are no label."""
    known = part.keys.join(exams.select("exam_id", "sex", "age_years"), on="exam_id", how="left", maintain_order="left")
    return known.with_columns(pl.lit(part.split).alias("split")).select(
        pl.col("image").alias(columns.image),
        pl.col("sex")
        .replace_strict(columns.sex.values, default=columns.sex.otherwise, return_dtype=pl.String)
        .fill_null(columns.sex.otherwise)
        .alias(columns.sex.column),
        pl.col("age_years").alias(columns.age),
        *(pl.lit(None, dtype=pl.String).alias(name) for name in columns.empty),
        *_KEYS,
    )


def _states(part: Wide, order: list[int], names: list[str]) -> pl.DataFrame:
    codes = [_CODES[value] for value in VALUES]
    return pl.DataFrame(
        {name: [codes[code] for code in part.codes[:, at].tolist()] for name, at in zip(names, order, strict=True)},
        schema=dict.fromkeys(names, pl.Int8),
    )


def _numbers(matrix: Matrix, names: list[str]) -> pl.DataFrame:
    return pl.from_numpy(np.ascontiguousarray(matrix), schema=names).fill_nan(None)
