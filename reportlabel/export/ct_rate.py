"""CSV as CT-RATE has it: ``VolumeName`` and eighteen columns of 0 and 1, one row a reconstruction.

The public schema has no room for doubt, so every cell is decided. A mask of the same shape says which decisions count,
and ``volumes.csv`` which reconstructions are one exam of one patient.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
import polars as pl

from reportlabel.errors import InputError
from reportlabel.export.csv_columns import CtRate, column_order
from reportlabel.export.splits import SPLITS
from reportlabel.export.wide import Codes, Parts, Wide
from reportlabel.rulebook.models import LabelSet

_KEYS = ("exam_id", "patient_id", "site", "study_instance_uid", "series_instance_uid")


def write_ct_rate(folder: Path, label_set: LabelSet, parts: Parts, *, columns: CtRate) -> dict[str, int]:
    """Write a file of labels and one of masks a split, and ``volumes.csv``.

    Returns:
        Rows of each file.

    Raises:
        InputError: two images have the same file name, so that ``VolumeName`` would not tell them apart.
    """
    order, names = column_order(columns.columns, label_set), list(columns.columns.values())
    key = {columns.image: pl.String}
    empty = pl.DataFrame(schema={**key, **dict.fromkeys(names, pl.Int8)})
    files = {name: empty for split in SPLITS for name in (columns.files.of(split), columns.masks.of(split))}
    files[columns.volumes] = pl.DataFrame(schema={**key, "split": pl.String, **dict.fromkeys(_KEYS, pl.String)})
    rows = dict.fromkeys(files, 0)
    for name, header in files.items():
        (folder / name).write_text(header.write_csv(), encoding="utf-8")

    def append(name: str, table: pl.DataFrame) -> None:
        with (folder / name).open("ab") as stream:
            table.write_csv(stream, include_header=False)
        rows[name] += table.height

    seen: set[str] = set()
    for part in parts:
        volumes = volume_names(part)
        before = len(seen)
        seen.update(volumes)
        if len(seen) - before < len(volumes):
            raise InputError(
                f"the images of {label_set.id} do not all have a file name of their own, which {columns.image} needs; "
                "give files with different names in the images table"
            )
        named = pl.DataFrame({columns.image: volumes}, schema=key)
        for name, cells in ((columns.files.of(part.split), decided(part)), (columns.masks.of(part.split), part.mask)):
            append(name, named.hstack(pl.from_numpy(np.ascontiguousarray(cells[:, order]), schema=names)))
        append(columns.volumes, named.hstack(part.keys.select(pl.lit(part.split).alias("split"), *_KEYS)))
    return rows


def volume_names(part: Wide) -> list[str]:
    """The file name of each image, without its folders; without images what stands for the image."""
    paths = part.keys["path"].is_not_null().to_list()
    return [
        PurePosixPath(image.replace("\\", "/")).name if is_path else image
        for image, is_path in zip(part.keys["image"].to_list(), paths, strict=True)
    ]


def decided(part: Wide) -> Codes:
    """1 or 0 for every cell: the target, from ½ on 1; where it does not count, p_present in its place, else 0."""
    p = np.where(np.isnan(part.p_present), 0.0, part.p_present)
    cells: Codes = (np.where(np.isnan(part.target), p, part.target) >= 0.5).astype(np.int8)
    return cells
