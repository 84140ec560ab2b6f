"""Who was left out at which step, and why: every row that goes in comes out or is counted.

A `Funnel` goes with one table through the steps of a stage. Its attrition table has one row a step; the rows that go
into a step are those that came out of the step before.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

__all__ = ["ATTRITION", "Funnel", "excluded_schema", "unbalanced"]

ATTRITION = pl.Schema(
    {
        "stage": pl.String,
        "table": pl.String,
        "step": pl.String,
        "rows_in": pl.Int64,
        "rows_out": pl.Int64,
        "excluded": pl.Int64,
        "reason": pl.String,
        "number": pl.String,
    }
)
"""One row a step of a stage. ``number``: the requirement of the protocol that the step follows."""


def excluded_schema(keys: Sequence[str]) -> pl.Schema:
    """The columns of a table of excluded rows: their keys, and why they are out."""
    return pl.Schema(
        [*((key, pl.String) for key in keys), ("step", pl.String), ("reason", pl.String), ("number", pl.String)]
    )


class Funnel:
    """One table on its way through a stage.

    ``keys``: the columns by which the excluded rows are listed.
    """

    def __init__(self, stage: str, table: str, *, keys: Sequence[str]) -> None:
        self._stage, self._table, self._keys = stage, table, list(keys)
        self._steps: list[tuple[str, int, int, str, str]] = []
        self._out: list[pl.DataFrame] = []

    def keep(self, rows: pl.DataFrame, condition: pl.Expr, *, step: str, reason: str, number: str) -> pl.DataFrame:
        """The rows that meet the condition; the others are listed with the reason. Null is not met."""
        met = rows.select(condition.fill_null(False).alias("met"))["met"]
        kept, left = rows.filter(met), rows.filter(~met)
        self._steps.append((step, rows.height, kept.height, reason, number))
        self._out.append(
            left.select(
                *(pl.col(key).cast(pl.String) for key in self._keys),
                step=pl.lit(step),
                reason=pl.lit(reason),
                number=pl.lit(number),
            )
        )
        return kept

    def attrition(self) -> pl.DataFrame:
        """One row a step, columns of `ATTRITION`."""
        return pl.DataFrame(
            [
                (self._stage, self._table, step, rows_in, rows_out, rows_in - rows_out, reason, number)
                for step, rows_in, rows_out, reason, number in self._steps
            ],
            schema=ATTRITION,
            orient="row",
        )

    def excluded(self) -> pl.DataFrame:
        """The keys of the rows that are out, with step, reason and number."""
        return pl.concat([excluded_schema(self._keys).to_frame(), *self._out])


def unbalanced(attrition: pl.DataFrame) -> list[str]:
    """What does not add up in an attrition table, one sentence a step; nothing where it does (X3).

    In each step rows_in = rows_out + excluded, and in each stage and table a step takes in what the one before gave.
    """
    problems = []
    before: dict[tuple[str, str], int] = {}
    for row in attrition.iter_rows(named=True):
        where = f"{row['stage']}, {row['table']}, {row['step']}"
        if row["rows_in"] != row["rows_out"] + row["excluded"]:
            problems.append(f"{where}: {row['rows_in']} in, {row['rows_out']} out, {row['excluded']} excluded")
        last = before.get((row["stage"], row["table"]))
        if last is not None and last != row["rows_in"]:
            problems.append(f"{where}: {row['rows_in']} in, but {last} came out of the step before")
        before[row["stage"], row["table"]] = row["rows_out"]
    return problems
