"""Software for bone scintigraphy compared: BSI and hotspots of each condition against what readers said (B4-B6).

Every value belongs to one condition of the protocol (tracer, software, version, metric). Values of different
conditions are never put together: the programs work a BSI out in different ways. Conditions of the same metric are
compared by how well they find metastases, paired where the tracer, and so the patients, are the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import polars as pl

from reportlabel.errors import RefusedError
from reportlabel.evaluate.diagnostic import (
    clopper_pearson,
    delong_test,
    fisher_exact,
    mcnemar,
    newcombe,
    roc_area,
    spearman,
    two_by_two,
    unpaired_delong_test,
    wilson,
)
from reportlabel.protocol import Condition, Protocol

__all__ = ["FIGURES", "REJECTED", "TESTS", "VALUES", "Checked", "check_values", "software_figures", "software_tests"]

VALUES = pl.Schema(
    {
        "patient_code": pl.String,
        "tracer": pl.String,
        "software": pl.String,
        "version": pl.String,
        "metric": pl.String,
        "value": pl.Float64,
    }
)
"""What a program gave for a patient. ``version``: null where the protocol names none."""

REJECTED = pl.Schema([*VALUES.items(), ("reason", pl.String()), ("number", pl.String())])

_CHECKED = pl.Schema([*VALUES.items(), ("condition", pl.Int64())])

_CONDITION = pl.Schema(
    {"condition": pl.Int64, "tracer": pl.String, "software": pl.String, "version": pl.String, "metric": pl.String}
)

FIGURES = pl.Schema(
    [
        *_CONDITION.items(),
        ("measure", pl.String()),
        ("above", pl.Float64()),
        ("n_diseased", pl.Int64()),
        ("n_healthy", pl.Int64()),
        ("value", pl.Float64()),
        ("low", pl.Float64()),
        ("high", pl.Float64()),
        ("exact_low", pl.Float64()),
        ("exact_high", pl.Float64()),
    ]
)
"""One row a condition and figure. ``measure``: roc_area, sensitivity, specificity, spearman (with the count of the
readers). ``above``: the value above which a scan is positive. ``low``, ``high``: DeLong, Wilson, or Bonett and Wright;
``exact_low``, ``exact_high``: Clopper-Pearson."""

TESTS = pl.Schema(
    {
        "first": pl.Int64,
        "second": pl.Int64,
        "metric": pl.String,
        "paired": pl.Boolean,
        "measure": pl.String,
        "above": pl.Float64,
        "test": pl.String,
        "n_first": pl.Int64,
        "n_second": pl.Int64,
        "difference": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "statistic": pl.Float64,
        "p_value": pl.Float64,
        "p_corrected": pl.Float64,
    }
)
"""One row a pair of conditions (by their numbers) and measure. ``test``: delong, mcnemar or fisher. ``p_value`` of
mcnemar is the exact one, ``p_corrected`` that with Edwards' correction."""


@dataclass(frozen=True)
class Checked:
    """``values``: columns of VALUES and ``condition``; ``rejected``: columns of REJECTED. Together all that came in."""

    values: pl.DataFrame
    rejected: pl.DataFrame


def check_values(
    values: pl.DataFrame, tracers: pl.DataFrame, protocol: Protocol, *, counted: tuple[str, ...] = ()
) -> Checked:
    """Put each value to its condition, or reject it with the reason (B4).

    Args:
        values: columns of VALUES.
        tracers: patient_code, tracer: what each patient was given.
        counted: metrics that are whole numbers.
    """
    known = dict(tracers.select("patient_code", "tracer").iter_rows())
    keys = [name for name in VALUES if name != "value"]
    twice = values.select(pl.struct(keys).is_duplicated()).to_series().to_list() if values.height else []
    kept: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    for row, again in zip(values.select(list(VALUES)).iter_rows(named=True), twice, strict=True):
        reason, number, condition = _reason(row, again, known, protocol, counted)
        if reason:
            rejected.append({**row, "reason": reason, "number": number})
        else:
            kept.append({**row, "condition": condition})
    return Checked(pl.DataFrame(kept, schema=_CHECKED), pl.DataFrame(rejected, schema=REJECTED))


def _reason(
    row: Mapping[str, Any], again: bool, known: Mapping[str, str], protocol: Protocol, counted: tuple[str, ...]
) -> tuple[str, str, int | None]:
    number = protocol.number("conditions")
    try:
        condition = protocol.check_condition(
            tracer=row["tracer"] or "",
            software=row["software"] or "",
            version=row["version"],
            metric=row["metric"] or "",
        )
    except RefusedError as error:
        return "the software is not used with this tracer, version or metric", error.number, None
    value = row["value"]
    if row["patient_code"] not in known:
        return "the patient is none of the study", number, None
    if known[row["patient_code"]] != row["tracer"]:
        return "the patient was given another tracer", protocol.number("tracer"), None
    if value is None or not math.isfinite(value) or value < 0:
        return "not a number from 0 up", number, None
    if row["metric"] in counted and not float(value).is_integer():
        return "not a whole number", number, None
    if again:
        return "more than one value of the patient for this condition", number, None
    return "", number, condition.number


def software_figures(
    values: pl.DataFrame,
    truth: pl.DataFrame,
    protocol: Protocol,
    *,
    thresholds: Mapping[str, tuple[float, ...]],
    level: float = 0.95,
) -> pl.DataFrame:
    """How well each condition finds metastases, with intervals; see FIGURES.

    Args:
        values: `Checked.values`.
        truth: patient_code, present (true or false), and count (of the readers together, may be null). Patients without
            a truth are left out.
        thresholds: metric -> values above which a scan is positive.
    """
    rows: list[dict[str, Any]] = []
    for condition in _conditions(protocol):
        some = _with_truth(values, truth, condition)
        real, score = some["present"].to_numpy(), some["value"].to_numpy()
        said = condition.model_dump(exclude={"number"}) | {"condition": condition.number}
        said |= {"n_diseased": int(real.sum()), "n_healthy": int((~real).sum())}
        area = roc_area(real, score, level=level)
        rows.append({**said, "measure": "roc_area", "value": area.area, "low": area.low, "high": area.high})
        for above in thresholds.get(condition.metric, ()):
            counts = two_by_two(real, score > above)
            for measure, right, n in (
                ("sensitivity", counts.tp, counts.tp + counts.fn),
                ("specificity", counts.tn, counts.tn + counts.fp),
            ):
                share, exact = wilson(right, n, level=level), clopper_pearson(right, n, level=level)
                rows.append(
                    {
                        **said,
                        "measure": measure,
                        "above": above,
                        "value": share.estimate,
                        "low": share.low,
                        "high": share.high,
                        "exact_low": exact.low,
                        "exact_high": exact.high,
                    }
                )
        counted = some.drop_nulls("count")
        rank = spearman(counted["value"].to_numpy(), counted["count"].to_numpy(), level=level)
        rows.append({**said, "measure": "spearman", "value": rank.estimate, "low": rank.low, "high": rank.high})
    return pl.DataFrame(rows, schema=FIGURES).with_columns(pl.selectors.float().fill_nan(None))


def software_tests(
    values: pl.DataFrame,
    truth: pl.DataFrame,
    protocol: Protocol,
    *,
    thresholds: Mapping[str, tuple[float, ...]],
    level: float = 0.95,
) -> pl.DataFrame:
    """Every pair of conditions of the same metric: paired where the tracer is the same, else unpaired; see TESTS.

    Args:
        values, truth, thresholds: as for `software_figures`. A paired test uses the patients who have both values.
    """
    rows: list[dict[str, Any]] = []
    for first, second in combinations(_conditions(protocol), 2):
        if first.metric != second.metric:
            continue
        paired = first.tracer == second.tracer
        said = {"first": first.number, "second": second.number, "metric": first.metric, "paired": paired}
        a, b = _with_truth(values, truth, first), _with_truth(values, truth, second)
        limits = thresholds.get(first.metric, ())
        made = _paired_tests(a, b, limits, level) if paired else _unpaired_tests(a, b, limits, level)
        rows += [{**said, **one} for one in made]
    return pl.DataFrame(rows, schema=TESTS).with_columns(pl.selectors.float().fill_nan(None))


def _paired_tests(a: pl.DataFrame, b: pl.DataFrame, limits: tuple[float, ...], level: float) -> list[dict[str, Any]]:
    both = a.join(b.select("patient_code", other="value"), on="patient_code", how="inner")
    real, first, second = (both[name].to_numpy() for name in ("present", "value", "other"))
    test = delong_test(real, first, second, level=level)
    n = {"n_first": both.height, "n_second": both.height}
    rows: list[dict[str, Any]] = [{"measure": "roc_area", "test": "delong", **n, **vars(test)}]
    for above in limits:
        for measure, group in (("sensitivity", real), ("specificity", ~real)):
            change = mcnemar(real[group], first[group] > above, second[group] > above)
            rows.append(
                {
                    "measure": measure,
                    "above": above,
                    "test": "mcnemar",
                    "n_first": change.n,
                    "n_second": change.n,
                    "difference": (change.only_first - change.only_second) / change.n if change.n else None,
                    "statistic": change.statistic,
                    "p_value": change.p_exact,
                    "p_corrected": change.p_corrected,
                }
            )
    return rows


def _unpaired_tests(a: pl.DataFrame, b: pl.DataFrame, limits: tuple[float, ...], level: float) -> list[dict[str, Any]]:
    real = [one["present"].to_numpy() for one in (a, b)]
    score = [one["value"].to_numpy() for one in (a, b)]
    areas = [roc_area(truth, numbers, level=level) for truth, numbers in zip(real, score, strict=True)]
    test = unpaired_delong_test(areas[0], areas[1], level=level)
    rows: list[dict[str, Any]] = [
        {"measure": "roc_area", "test": "delong", "n_first": a.height, "n_second": b.height, **vars(test)}
    ]
    for above in limits:
        counts = [two_by_two(truth, numbers > above) for truth, numbers in zip(real, score, strict=True)]
        shares = {
            "sensitivity": [(one.tp, one.tp + one.fn) for one in counts],
            "specificity": [(one.tn, one.tn + one.fp) for one in counts],
        }
        for measure, (first, second) in shares.items():
            difference = newcombe(first, second, level=level)
            rows.append(
                {
                    "measure": measure,
                    "above": above,
                    "test": "fisher",
                    "n_first": first[1],
                    "n_second": second[1],
                    "difference": difference.estimate,
                    "low": difference.low,
                    "high": difference.high,
                    "p_value": fisher_exact(first, second),
                }
            )
    return rows


def _conditions(protocol: Protocol) -> tuple[Condition, ...]:
    return protocol.analyses.conditions if protocol.analyses else ()


def _with_truth(values: pl.DataFrame, truth: pl.DataFrame, condition: Condition) -> pl.DataFrame:
    """patient_code, value, present, count of the patients of a condition."""
    if "count" not in truth.columns:
        truth = truth.with_columns(count=pl.lit(None, dtype=pl.Float64))
    return (
        values.filter(pl.col("condition") == condition.number)
        .select("patient_code", "value")
        .join(truth.select("patient_code", "present", "count"), on="patient_code", how="inner")
        .drop_nulls("present")
        .with_columns(pl.col("count").cast(pl.Float64))
        .sort("patient_code")
    )
