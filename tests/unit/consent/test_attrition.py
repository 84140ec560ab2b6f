"""Attrition tables: what goes in comes out or is counted (X3)."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from reportlabel.consent.attrition import ATTRITION, Funnel, unbalanced


def test_X3_each_step_is_counted_and_listed() -> None:
    funnel = Funnel("cohort", "exams", keys=["id"])
    rows = pl.DataFrame({"id": [1, 2, 3, 4], "x": [1, None, 3, 9]})
    rows = funnel.keep(rows, pl.col("x") < 9, step="low", reason="too high or unknown", number="K1")
    rows = funnel.keep(rows, pl.col("x") > 1, step="high", reason="too low", number="K2")
    assert rows["id"].to_list() == [3]
    assert funnel.attrition().rows() == [
        ("cohort", "exams", "low", 4, 2, 2, "too high or unknown", "K1"),
        ("cohort", "exams", "high", 2, 1, 1, "too low", "K2"),
    ]
    assert funnel.attrition().schema == ATTRITION
    assert funnel.excluded().rows() == [
        ("2", "low", "too high or unknown", "K1"),
        ("4", "low", "too high or unknown", "K1"),
        ("1", "high", "too low", "K2"),
    ]
    assert unbalanced(funnel.attrition()) == []


def test_X3_a_constant_condition_keeps_all_or_none() -> None:
    funnel = Funnel("s", "t", keys=["id"])
    rows = pl.DataFrame({"id": ["1", "2"]})
    assert funnel.keep(rows, pl.lit(True), step="a", reason="r", number="X1").height == 2
    assert funnel.keep(rows, pl.lit(False), step="b", reason="r", number="X1").height == 0
    assert funnel.keep(rows.clear(), pl.lit(True), step="c", reason="r", number="X1").height == 0


def test_X3_what_does_not_add_up_is_named() -> None:
    rows = [
        ("s", "t", "a", 5, 3, 1, "", "X1"),
        ("s", "t", "b", 4, 4, 0, "", "X1"),
        ("s", "other", "a", 9, 9, 0, "", "X1"),
    ]
    problems = unbalanced(pl.DataFrame(rows, schema=ATTRITION, orient="row"))
    assert problems == ["s, t, a: 5 in, 3 out, 1 excluded", "s, t, b: 4 in, but 3 came out of the step before"]


@given(st.lists(st.none() | st.integers(0, 9), max_size=30), st.lists(st.integers(0, 9), max_size=5))
def test_X3_no_row_is_lost(values: list[int | None], bounds: list[int]) -> None:
    funnel = Funnel("s", "t", keys=["id"])
    rows = pl.DataFrame({"id": [str(at) for at in range(len(values))], "x": values}, schema_overrides={"x": pl.Int64})
    for bound in bounds:
        rows = funnel.keep(rows, pl.col("x") != bound, step=f"not {bound}", reason="", number="X1")
    assert len(values) == rows.height + funnel.excluded().height
    assert funnel.attrition()["excluded"].sum() == funnel.excluded().height
    assert unbalanced(funnel.attrition()) == []
