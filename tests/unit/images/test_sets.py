"""Regions drawn by hand, and the sets with and without them."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from reportlabel.errors import InputError
from reportlabel.images.sets import REGIONS, SETS, regions_of, teacher_sets


def task(image_id: str | None, *drawn: dict[str, Any], **more: Any) -> dict[str, Any]:
    data = {} if image_id is None else {"image_id": image_id}
    return {"data": data, "annotations": [{"completed_by": 7, "result": list(drawn), **more}]}


def box(x: float, y: float, w: float, h: float, *, rotation: float = 0, label: str = "病変") -> dict[str, Any]:
    value = {"x": x, "y": y, "width": w, "height": h, "rotation": rotation, "rectanglelabels": [label]}
    return {"type": "rectanglelabels", "original_width": 400, "original_height": 200, "value": value}


def polygon(*points: tuple[float, float]) -> dict[str, Any]:
    return {"type": "polygonlabels", "value": {"points": [list(one) for one in points], "polygonlabels": ["病変"]}}


def images(n: int = 60, patients: int = 20) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "image_id": [f"I{at:03d}" for at in range(n)],
            "patient_id": [f"P{at % patients:02d}" for at in range(n)],
            "site": "tohoku",
        }
    )


def test_T5_boxes_and_polygons_are_shares_of_the_picture() -> None:
    regions = regions_of([task("a", box(10, 20, 30, 40), polygon((0, 0), (50, 0), (50, 100)))])
    assert regions.schema == REGIONS
    assert regions.drop("points").rows() == [("a", "7", 1, "bbox", "病変"), ("a", "7", 2, "polygon", "病変")]
    assert regions["points"][0].to_list() == [[0.1, 0.2], [pytest.approx(0.4), pytest.approx(0.6)]]
    assert regions["points"][1].to_list() == [[0, 0], [0.5, 0], [0.5, 1]]


def test_T5_a_turned_box_is_a_polygon_of_the_same_size_in_pixels() -> None:
    # 40 x 20 pixels, turned a quarter clockwise around its upper left corner at (200, 100)
    (points,) = regions_of([task("a", box(50, 50, 10, 10, rotation=90))])["points"].to_list()
    pixels = [(x * 400, y * 200) for x, y in points]
    assert pixels == [pytest.approx(one) for one in [(200, 100), (200, 140), (180, 140), (180, 100)]]


def test_T5_marks_beyond_the_edge_end_there() -> None:
    assert regions_of([task("a", box(90, 90, 20, 20))])["points"][0].to_list()[1] == [1, 1]


def test_T5_what_is_no_mark() -> None:
    assert regions_of([task("a", box(1, 1, 5, 5), was_cancelled=True)]).is_empty()
    assert regions_of([task("a", {"type": "choices", "value": {"choices": ["x"]}})]).is_empty()
    assert regions_of([]).schema == REGIONS
    with pytest.raises(InputError, match="task 2: region 1 has no surface"):
        regions_of([task("a"), task("b", box(5, 5, 0, 10))])
    with pytest.raises(InputError, match="task 1: region 1 has no surface"):
        regions_of([task("a", polygon((0, 0), (50, 50)))])
    with pytest.raises(InputError, match="task 1: has no image_id"):
        regions_of([task(None)])


def test_T5_marked_and_unmarked_sets_are_disjoint_and_split_by_patient() -> None:
    regions = regions_of(task(f"I{at:03d}", box(1, 1, 5, 5), box(8, 8, 5, 5)) for at in range(0, 60, 3))
    sets = teacher_sets(images(), regions, salt="s", shares=(0.5, 0.25, 0.25))
    assert sets.schema == SETS and sets.height == 60
    assert sets["image_id"].n_unique() == 60
    assert sets.filter(pl.col("set") == "labelled")["image_id"].to_list() == [f"I{at:03d}" for at in range(0, 60, 3)]
    assert sets.group_by("patient_id").agg(pl.col("split").n_unique())["split"].max() == 1
    assert set(sets["split"]) == {"train", "validation", "test"}
    more = teacher_sets(images(90, 30), regions, salt="s", shares=(0.5, 0.25, 0.25))
    assert (
        dict(sets.select("patient_id", "split").iter_rows()).items()
        <= dict(more.select("patient_id", "split").iter_rows()).items()
    )


def test_T5_tables_that_do_not_fit() -> None:
    regions = regions_of([task("elsewhere", box(1, 1, 5, 5))])
    with pytest.raises(InputError, match="1 pictures are none of the images"):
        teacher_sets(images(), regions, salt="s")
    with pytest.raises(InputError, match="stand twice"):
        teacher_sets(pl.concat([images(2), images(2)]), regions, salt="s")
    with pytest.raises(InputError, match="no patient_id"):
        teacher_sets(images(2).with_columns(patient_id=pl.lit(None, dtype=pl.String)), regions.clear(), salt="s")
