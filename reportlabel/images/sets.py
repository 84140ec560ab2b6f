"""Pictures with marks and pictures without (T5): regions drawn by hand, two disjoint sets, splits by patient."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from reportlabel.errors import InputError
from reportlabel.export.splits import split_patients
from reportlabel.export.study_folder import need_columns

__all__ = ["REGIONS", "SETS", "regions_of", "teacher_sets"]

REGIONS = pl.Schema(
    [
        ("image_id", pl.String()),
        ("annotator", pl.String()),
        ("region", pl.Int64()),
        ("shape", pl.String()),
        ("label", pl.String()),
        ("points", pl.List(pl.List(pl.Float64()))),
    ]
)
"""One row a region. ``shape``: bbox (upper left and lower right corner) or polygon. ``points``: x and y as shares of
width and height, from the upper left corner of the upright picture. ``region`` counts from 1 in a picture and
annotator."""

SETS = pl.Schema({"image_id": pl.String, "patient_id": pl.String, "set": pl.String, "split": pl.String})
"""``set``: labelled or unlabelled; ``split``: train, validation or test, that of the patient."""


def regions_of(tasks: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Regions from an export of Label Studio (JSON): rectangles and polygons; cancelled annotations are none.

    A rectangle that was turned becomes a polygon. Places outside the picture are moved to its edge.

    Args:
        tasks: with ``data.image_id``.

    Returns:
        Columns of REGIONS.

    Raises:
        InputError: a task without a picture id, or a region that has no surface; names the task by its number.
    """
    rows: list[dict[str, Any]] = []
    for number, task in enumerate(tasks, start=1):
        image_id = task.get("data", {}).get("image_id")
        if image_id is None:
            raise InputError(f"task {number}: has no image_id; export the project that this program made")
        for annotation in task.get("annotations", []):
            if annotation.get("was_cancelled"):
                continue
            by = annotation.get("completed_by")
            drawn = [one for one in annotation.get("result", []) if one.get("type") in _SHAPES]
            for at, one in enumerate(drawn, start=1):
                shape, points = _shape(one)
                if _surface(shape, points) <= 0:
                    raise InputError(f"task {number}: region {at} has no surface; draw it again")
                labels = one["value"].get(one["type"]) or [None]
                rows.append(
                    {
                        "image_id": str(image_id),
                        "annotator": str(by["id"] if isinstance(by, Mapping) else by),
                        "region": at,
                        "shape": shape,
                        "label": labels[0],
                        "points": points,
                    }
                )
    return pl.DataFrame(rows, schema=REGIONS)


def teacher_sets(
    images: pl.DataFrame, regions: pl.DataFrame, *, salt: str, shares: Sequence[float] = (0.8, 0.1, 0.1)
) -> pl.DataFrame:
    """Which pictures are marked, and in which split their patients are.

    A picture with at least one region is labelled; all others are unlabelled. Both have the split of the patient, so
    that an unlabelled picture of a test patient is not trained on either.

    Args:
        images: image_id, patient_id, site. regions: columns of REGIONS.

    Returns:
        Columns of SETS, sorted by picture.

    Raises:
        InputError: a picture stands twice or without a patient, or a region is of no picture.
    """
    need_columns(images, ("image_id", "patient_id", "site"), name="images")
    twice = images.height - images["image_id"].n_unique()
    if twice:
        raise InputError(f"images: {twice} ids stand twice; each picture needs one of its own")
    marked = regions.select("image_id").unique()
    lost = marked.join(images, on="image_id", how="anti").height
    if lost:
        raise InputError(f"regions: {lost} pictures are none of the images; give the table they were drawn on")
    splits = split_patients(images, salt=salt, shares=shares)
    is_marked = pl.col("image_id").is_in(marked["image_id"].implode())
    return (
        images.select("image_id", "patient_id")
        .join(splits, on="patient_id", how="left")
        .with_columns(set=pl.when(is_marked).then(pl.lit("labelled")).otherwise(pl.lit("unlabelled")))
        .select(list(SETS))
        .cast(SETS)
        .sort("image_id")
    )


_SHAPES = ("rectangle", "rectanglelabels", "polygon", "polygonlabels")


def _shape(drawn: Mapping[str, Any]) -> tuple[str, list[list[float]]]:
    """Label Studio measures in percent of the width and of the height, and turns around the upper left corner."""
    value = drawn["value"]
    if "points" in value:
        return "polygon", [_inside(x / 100, y / 100) for x, y in value["points"]]
    x, y, w, h = (float(value[key]) / 100 for key in ("x", "y", "width", "height"))
    turn = math.radians(float(value.get("rotation") or 0))
    if turn == 0:
        return "bbox", [_inside(x, y), _inside(x + w, y + h)]
    # an angle is one of pixels, and a picture is rarely as high as wide
    wide, high = float(drawn.get("original_width") or 1), float(drawn.get("original_height") or 1)
    corners = [(0.0, 0.0), (w * wide, 0.0), (w * wide, h * high), (0.0, h * high)]
    return "polygon", [
        _inside(
            x + (dx * math.cos(turn) - dy * math.sin(turn)) / wide,
            y + (dx * math.sin(turn) + dy * math.cos(turn)) / high,
        )
        for dx, dy in corners
    ]


def _inside(x: float, y: float) -> list[float]:
    return [min(1.0, max(0.0, x)), min(1.0, max(0.0, y))]


def _surface(shape: str, points: Sequence[Sequence[float]]) -> float:
    if shape == "bbox":
        return (points[1][0] - points[0][0]) * (points[1][1] - points[0][1])
    around = zip(points, [*points[1:], *points[:1]], strict=True)
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in around)) / 2
