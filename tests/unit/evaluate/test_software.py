"""Software conditions of the bone scan study: licences, figures, paired and unpaired tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from reportlabel.evaluate.diagnostic import delong_test, fisher_exact, mcnemar, roc_area
from reportlabel.evaluate.software import (
    FIGURES,
    REJECTED,
    TESTS,
    VALUES,
    check_values,
    software_figures,
    software_tests,
)
from reportlabel.protocol import Protocol, load_protocol

LIMITS = {"BSI": (0.0, 1.0), "Hotspot": (0.0,)}


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    return load_protocol("gunma_bone_scan")


def value(patient: str, tracer: str, software: str, version: str | None, metric: str, number: Any) -> dict[str, Any]:
    return dict(zip(VALUES, (patient, tracer, software, version, metric, number), strict=True))


def study(protocol: Protocol, *, seed: int = 4, n: int = 50) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Values of all six conditions, the tracers, and what readers said."""
    chance = np.random.default_rng(seed)
    assert protocol.analyses is not None
    rows, truth, tracers = [], [], []
    for tracer in ("MDP", "HMDP"):
        for number in range(n):
            code, ill = f"{tracer}{number:03d}", number % 2 == 0
            count = int(chance.poisson(4)) + 1 if ill else 0
            truth.append((code, ill, count))
            tracers.append((code, tracer))
            for one in protocol.analyses.conditions:
                if one.tracer == tracer:
                    spread = max(0.0, count * 0.4 + chance.normal(0.3, 0.8))
                    measured = round(spread, 2) if one.metric == "BSI" else float(chance.poisson(count * 0.8 + 0.3))
                    rows.append(value(code, tracer, one.software, one.version, one.metric, measured))
    return (
        pl.DataFrame(rows, schema=VALUES),
        pl.DataFrame(truth, schema=["patient_code", "present", "count"], orient="row"),
        pl.DataFrame(tracers, schema=["patient_code", "tracer"], orient="row"),
    )


def test_B4_every_value_has_its_condition(protocol: Protocol) -> None:
    values, _, tracers = study(protocol)
    checked = check_values(values, tracers, protocol, counted=("Hotspot",))
    assert checked.rejected.is_empty()
    assert checked.values.group_by("condition").len().sort("condition").rows() == [(n, 50) for n in range(1, 7)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (value("h", "HMDP", "BoneNAVI", None, "BSI", 1.0), "the software is not used with this tracer"),
        (value("m", "MDP", "VSBONE", "2.0", "BSI", 1.0), "the software is not used with this tracer"),
        (value("h", "HMDP", "VSBONE", "1.0", "BSI", 1.0), "the software is not used with this tracer"),
        (value("h", "HMDP", "VSBONE", "2.0", "Volume", 1.0), "the software is not used with this tracer"),
        (value("h", "MDP", "BoneNAVI", None, "BSI", 1.0), "the patient was given another tracer"),
        (value("x", "MDP", "BoneNAVI", None, "BSI", 1.0), "the patient is none of the study"),
        (value("m", "MDP", "BoneNAVI", None, "BSI", -1.0), "not a number from 0 up"),
        (value("m", "MDP", "BoneNAVI", None, "BSI", None), "not a number from 0 up"),
        (value("m", "MDP", "BoneNAVI", None, "BSI", float("nan")), "not a number from 0 up"),
        (value("m", "MDP", "BoneNAVI", None, "Hotspot", 1.5), "not a whole number"),
    ],
)
def test_B4_a_value_that_cannot_be_is_rejected(protocol: Protocol, row: dict[str, Any], reason: str) -> None:
    tracers = pl.DataFrame({"patient_code": ["m", "h"], "tracer": ["MDP", "HMDP"]})
    checked = check_values(pl.DataFrame([row], schema=VALUES), tracers, protocol, counted=("Hotspot",))
    assert checked.values.is_empty() and checked.rejected.schema == REJECTED
    assert checked.rejected["reason"][0].startswith(reason)
    assert checked.rejected["number"][0] in ("B4", "B2")


def test_B4_two_values_of_one_condition_are_both_rejected(protocol: Protocol) -> None:
    rows = [value("m", "MDP", "BoneNAVI", None, "BSI", number) for number in (1.0, 2.0)]
    tracers = pl.DataFrame({"patient_code": ["m"], "tracer": ["MDP"]})
    checked = check_values(pl.DataFrame(rows, schema=VALUES), tracers, protocol)
    assert checked.values.is_empty() and checked.rejected.height == 2


def test_B6_figures_of_each_condition(protocol: Protocol) -> None:
    values, truth, tracers = study(protocol)
    figures = software_figures(check_values(values, tracers, protocol).values, truth, protocol, thresholds=LIMITS)
    assert figures.schema == FIGURES
    # a condition of the BSI: area, two limits with two figures each, correlation; of hotspots one limit
    assert figures.group_by("condition").len().sort("condition")["len"].to_list() == [6, 4] * 3
    assert figures.select("n_diseased", "n_healthy").unique().rows() == [(25, 25)]
    first = values.filter(pl.col("software") == "BoneNAVI", pl.col("metric") == "BSI").join(truth, on="patient_code")
    area = roc_area(first["present"].to_numpy(), first["value"].to_numpy())
    shown = figures.filter(pl.col("condition") == 1, pl.col("measure") == "roc_area").row(0, named=True)
    assert (shown["value"], shown["low"], shown["high"]) == pytest.approx((area.area, area.low, area.high))
    shares = figures.filter(pl.col("measure").is_in(["sensitivity", "specificity"]))
    assert (shares["low"] <= shares["value"]).all() and (shares["value"] <= shares["high"]).all()
    assert (shares["exact_low"] <= shares["low"] + 0.02).all()
    at = shares.filter(pl.col("condition") == 1, pl.col("measure") == "sensitivity").sort("above")["value"]
    assert at[0] >= at[1]


def test_B6_paired_within_a_tracer_unpaired_between(protocol: Protocol) -> None:
    values, truth, tracers = study(protocol)
    checked = check_values(values, tracers, protocol).values
    tests = software_tests(checked, truth, protocol, thresholds=LIMITS)
    assert tests.schema == TESTS
    pairs = tests.select("first", "second", "metric", "paired").unique().sort("first", "second").rows()
    assert pairs == [
        (1, 3, "BSI", False),
        (1, 5, "BSI", False),
        (2, 4, "Hotspot", False),
        (2, 6, "Hotspot", False),
        (3, 5, "BSI", True),
        (4, 6, "Hotspot", True),
    ]
    assert set(tests.filter("paired")["test"]) == {"delong", "mcnemar"}
    assert set(tests.filter(~pl.col("paired"))["test"]) == {"delong", "fisher"}

    wide = checked.pivot("condition", index="patient_code", values="value").join(truth, on="patient_code")
    both = wide.filter(pl.col("3").is_not_null()).sort("patient_code")
    real, old, new = (both[name].to_numpy() for name in ("present", "3", "5"))
    shown = tests.filter(pl.col("first") == 3, pl.col("measure") == "roc_area").row(0, named=True)
    assert shown["p_value"] == pytest.approx(delong_test(real, old, new).p_value)
    shown = tests.filter(pl.col("first") == 3, pl.col("measure") == "sensitivity", pl.col("above") == 1).row(
        0, named=True
    )
    assert shown["p_value"] == pytest.approx(mcnemar(real[real], old[real] > 1, new[real] > 1).p_exact)
    assert shown["n_first"] == 25

    shown = tests.filter(pl.col("second") == 3, pl.col("measure") == "specificity", pl.col("above") == 0).row(
        0, named=True
    )
    mdp = wide.filter(pl.col("1").is_not_null(), ~pl.col("present"))
    hmdp = wide.filter(pl.col("3").is_not_null(), ~pl.col("present"))
    right = [(int((one[name] <= 0).sum()), one.height) for one, name in ((mdp, "1"), (hmdp, "3"))]
    assert shown["p_value"] == pytest.approx(fisher_exact(right[0], right[1]))


def test_B6_conditions_without_values_have_no_figures(protocol: Protocol) -> None:
    _, truth, _ = study(protocol, n=2)
    empty = check_values(pl.DataFrame(schema=VALUES), pl.DataFrame(schema=["patient_code", "tracer"]), protocol).values
    figures = software_figures(empty, truth.drop("count"), protocol, thresholds=LIMITS)
    assert figures["value"].null_count() == figures.height
    tests = software_tests(empty, truth, protocol, thresholds=LIMITS)
    assert tests.filter(pl.col("test") == "delong")["p_value"].null_count() == 6
