"""Bring predicted labels and gold labels together, row by row.

Nothing is dropped: a row is scored (report and finding in both tables), gold only, or predicted only. Error messages
name rows by their number in the table (the first row of data is 1) and quote no cell.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from reportlabel.errors import InputError
from reportlabel.ingest.encoding import choose_encoding, utf8_blocks

STATUSES = ("present", "uncertain", "absent", "not_mentioned")
"""The values of a finding, strongest first."""

NUMBER_TOLERANCE = 0.5
"""Two numbers this far apart or less are the same: half a millimetre is rounding, not reading."""

Kind = Literal["status", "value", "number"]
"""What a finding's values are: the four statuses, names from a set of its own (left, T1), or a number (28)."""

_KEY = ["report_id", "finding"]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Predicted and gold labels, matched by report and finding.

    ``scored`` has report_id, finding, gold, predicted, p_present, evidence, and gold_row and predicted_row, the rows'
    numbers in their tables; ``gold_only`` has report_id, finding, gold; ``predicted_only`` has report_id, finding,
    predicted. All are sorted by finding and report.
    """

    scored: pl.DataFrame
    gold_only: pl.DataFrame
    predicted_only: pl.DataFrame


def read_table(path: Path) -> pl.DataFrame:
    """Read a Parquet file (by its suffix) or a CSV file (every column as text; the encoding is told from its bytes).

    Raises InputError for a missing file, a directory, an empty file or one that is neither.
    """
    if path.is_dir():
        raise InputError(f"{path} is a directory; give a CSV or Parquet file")
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path")
    kind = "Parquet" if path.suffix.lower() in {".parquet", ".pq"} else "CSV"
    try:
        if kind == "Parquet":
            return pl.read_parquet(path)
        content = b"".join(utf8_blocks(path, encoding=choose_encoding(path).name))
        return pl.read_csv(content, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError):
        problem = f"{path} is not a readable {kind} file: it is empty, damaged or of another kind; export it again"
    raise InputError(problem)  # outside the handler: the parser's own message quotes the data


def predicted_labels(table: pl.DataFrame, *, source: str = "the predictions") -> pl.DataFrame:
    """Check a table of label rows and give report_id, finding, predicted, p_present, evidence, predicted_row.

    Needs report_id, finding and value; p_present (a number) and evidence (any type) are null where they are missing.
    Raises InputError for a missing column, an empty cell, or a report and finding that occur twice.
    """
    _need_columns(table, ["report_id", "finding", "value"], source=source)
    optional = [
        pl.col("p_present").cast(pl.Float64, strict=False)
        if "p_present" in table.columns
        else pl.lit(None, pl.Float64).alias("p_present"),
        pl.col("evidence") if "evidence" in table.columns else pl.lit(None, pl.String).alias("evidence"),
    ]
    rows = table.select(*[_text(name) for name in _KEY], _text("value").alias("predicted"), *optional)
    return _checked(rows.with_row_index("predicted_row", offset=1), "predicted", source=source)


def gold_labels(
    table: pl.DataFrame, *, findings: Collection[str] = (), source: str = "the gold labels"
) -> pl.DataFrame:
    """Check a gold table, long or wide, and give report_id, finding, gold, gold_row.

    Long: report_id, finding, and status (or value). Wide: report_id and one column per finding, where an empty cell
    means not_mentioned; a column ``c`` is the finding ``primary_c`` where ``findings`` has that id, and ``c``
    otherwise. Raises InputError as `predicted_labels` does.
    """
    _need_columns(table, ["report_id"], source=source)
    long = _long(table, source=source) if "finding" in table.columns else _melt(table, findings, source=source)
    return _checked(long, "gold", source=source)


def pair(predicted: pl.DataFrame, gold: pl.DataFrame) -> Pairs:
    """Match checked predictions and checked gold labels by report and finding.

    Raises InputError where no row matches.
    """
    order = ["finding", "report_id"]
    scored = gold.join(predicted, on=_KEY, how="inner").sort(order)
    if scored.is_empty():
        raise InputError(
            "nothing to score: no report_id and finding are in both the predictions and the gold labels; "
            "check that both are of the same reports and of the same label set"
        )
    return Pairs(
        scored=scored.select(*_KEY, "gold", "predicted", "p_present", "evidence", "gold_row", "predicted_row"),
        gold_only=gold.join(predicted, on=_KEY, how="anti").sort(order).select(*_KEY, "gold"),
        predicted_only=predicted.join(gold, on=_KEY, how="anti").sort(order).select(*_KEY, "predicted"),
    )


def kinds(scored: pl.DataFrame) -> dict[str, Kind]:
    """What the values of each finding in `Pairs.scored` are, by finding id, in alphabetical order.

    Gold decides; the predictions only where gold says not_mentioned throughout. Raises InputError where a finding mixes
    statuses and other values, or where a prediction for a status finding is not a status: a misspelt status
    must not pass for a wrong answer.
    """
    return {
        str(finding): _kind(rows)
        for (finding,), rows in scored.sort("finding").group_by("finding", maintain_order=True)
    }


def numbers_agree(gold: pl.Expr, predicted: pl.Expr) -> pl.Expr:
    """True where two text columns hold numbers at most NUMBER_TOLERANCE apart, or are the same text."""
    gap = (_number(gold) - _number(predicted)).abs()
    return (gold == predicted) | (gap <= NUMBER_TOLERANCE + 1e-9).fill_null(False)


def _kind(rows: pl.DataFrame) -> Kind:
    said = set(rows["gold"]) - {"not_mentioned"} or set(rows["predicted"]) - {"not_mentioned"}
    if said & set(STATUSES):
        _refuse_other_than_status(rows, "gold")
    if said <= set(STATUSES):
        _refuse_other_than_status(rows, "predicted")
        return "status"
    return "number" if all(_is_number(value) for value in said) else "value"


def _refuse_other_than_status(rows: pl.DataFrame, side: Literal["gold", "predicted"]) -> None:
    others = rows.filter(~pl.col(side).is_in(STATUSES))
    if not others.is_empty():
        table = "gold labels" if side == "gold" else "predictions"
        raise InputError(
            f"{table}, data row {_first(others[f'{side}_row'])}: the value for {others['finding'][0]} is not one of "
            f"{', '.join(STATUSES)}, while other values of this finding are; correct it"
        )


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _number(text: pl.Expr) -> pl.Expr:
    """The finite number in a text column, null where there is none."""
    number = text.cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number)


def _long(table: pl.DataFrame, *, source: str) -> pl.DataFrame:
    column = next((name for name in ("status", "value") if name in table.columns), None)
    if column is None:
        raise InputError(f"{source} has no column status (or value); it has {', '.join(table.columns)}")
    rows = table.select(*[_text(name) for name in _KEY], _text(column).alias("gold"))
    return rows.with_row_index("gold_row", offset=1)


def _melt(table: pl.DataFrame, findings: Collection[str], *, source: str) -> pl.DataFrame:
    columns = [name for name in table.columns if name != "report_id"]
    if not columns:
        raise InputError(f"{source} has report_id and nothing else; add finding and status, or one column per finding")
    primary = {name for name in columns if f"primary_{name}" in findings and f"primary_{name}" not in columns}
    cells = [
        _text(name).fill_null("not_mentioned").alias(f"primary_{name}" if name in primary else name) for name in columns
    ]
    return (
        table.select(_text("report_id"), *cells)
        .with_row_index("gold_row", offset=1)
        .unpivot(index=["gold_row", "report_id"], variable_name="finding", value_name="gold")
    )


def _checked(rows: pl.DataFrame, value: Literal["gold", "predicted"], *, source: str) -> pl.DataFrame:
    """The rows unchanged, or InputError for the first empty cell or the first repeated report and finding."""
    number = f"{value}_row"
    for column in [*_KEY, value]:
        empty = rows.filter(pl.col(column).is_null())
        if not empty.is_empty():
            name = "value" if column == value else column
            raise InputError(f"{source}, data row {_first(empty[number])}: no {name}; fill it in or leave the row out")
    repeated = rows.filter(~pl.struct(_KEY).is_first_distinct())
    if not repeated.is_empty():
        raise InputError(
            f"{source}, data row {_first(repeated[number])}: an earlier row has the same report_id and finding; "
            "keep one of them"
        )
    return rows


def _first(rows: pl.Series) -> int:
    """The lowest row number."""
    return int(rows.sort().item(0))


def _need_columns(table: pl.DataFrame, columns: list[str], *, source: str) -> None:
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise InputError(f"{source} has no column {missing[0]}; it has {', '.join(table.columns) or 'no columns'}")


def _text(column: str) -> pl.Expr:
    """The column as trimmed text, null where nothing is left."""
    trimmed = pl.col(column).cast(pl.String).str.strip_chars()
    return pl.when(trimmed != "").then(trimmed).alias(column)
