"""`evaluate`: label tables in, an Evaluation out."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from reportlabel.errors import InputError
from reportlabel.evaluate import Evaluation, evaluate
from reportlabel.evaluate.compare import STATUSES

status = st.sampled_from(STATUSES)


def table(rows: list[tuple[str, str, str]], value: str) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["report_id", "finding", value], orient="row")


def score(predicted: list[tuple[str, str, str]], gold: list[tuple[str, str, str]], bootstrap: int = 20) -> Evaluation:
    return evaluate(table(predicted, "value"), table(gold, "status"), bootstrap=bootstrap)


@st.composite
def labelled(draw: st.DrawFn) -> tuple[list[tuple[str, str, str]], list[tuple[str, str, str]]]:
    keys = [(f"r{i}", f"f{j}") for i in range(draw(st.integers(1, 8))) for j in range(draw(st.integers(1, 4)))]
    predicted = [(*key, draw(status)) for key in keys]
    return predicted, [(*key, draw(status)) for key in keys]


@given(labelled())
@settings(deadline=None)
def test_micro_and_macro_f1_equal_scikit_learn(case: tuple[list[tuple[str, str, str]], ...]) -> None:
    predicted, gold = case
    result = score(predicted, gold, bootstrap=0)
    for row in result.statuses:
        said, truth = [p[2] == row.status for p in predicted], [g[2] == row.status for g in gold]
        expected = f1_score(truth, said, zero_division=np.nan)
        assert row.micro_f1.value == (None if np.isnan(expected) else pytest.approx(expected))
        per_finding = [
            f1_score(
                [g[2] == row.status for g in gold if g[1] == finding],
                [p[2] == row.status for p in predicted if p[1] == finding],
            )
            for finding in {g[1] for g in gold if g[2] == row.status}
        ]
        assert row.macro_findings == len(per_finding)
        assert row.macro_f1.value == (pytest.approx(np.mean(per_finding)) if per_finding else None)


@given(labelled(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=30)
def test_row_order_does_not_matter(case: tuple[list[tuple[str, str, str]], ...], random: object) -> None:
    predicted, gold = case
    shuffled = sorted(gold, key=lambda _: random.random())  # type: ignore[attr-defined]
    assert score(predicted, gold).to_json() == score(predicted[::-1], shuffled).to_json()


@given(labelled())
@settings(deadline=None, max_examples=30)
def test_labels_scored_against_themselves_are_right(case: tuple[list[tuple[str, str, str]], ...]) -> None:
    gold = case[1]
    result = score(gold, gold)
    assert result.accuracy.value == result.accuracy.low == result.accuracy.high == 1.0
    assert all(row.micro_f1.value in (1.0, None) for row in result.statuses)
    assert result.disagreements.is_empty()


@given(labelled(), st.data())
@settings(deadline=None)
def test_every_row_is_scored_or_reported(case: tuple[list[tuple[str, str, str]], ...], data: st.DataObject) -> None:
    predicted, gold = case
    predicted = predicted[: data.draw(st.integers(1, len(predicted)))]
    gold = gold[data.draw(st.integers(0, len(gold) - 1)) :]
    try:
        result = score(predicted, gold, bootstrap=0)
    except InputError:
        assert not {row[:2] for row in predicted} & {row[:2] for row in gold}
        return
    assert result.rows + result.gold_only.height == len(gold)
    assert result.rows + result.predicted_only.height == len(predicted)
    assert sum(finding.rows for finding in result.findings) == result.rows
    wrong = sum(finding.rows - finding.correct for finding in result.findings)
    assert result.disagreements.height == wrong


def test_by_hand() -> None:
    gold = [("a", "x", "present"), ("b", "x", "absent"), ("c", "x", "present"), ("d", "x", "not_mentioned")]
    predicted = [("a", "x", "present"), ("b", "x", "present"), ("c", "x", "uncertain"), ("d", "x", "not_mentioned")]
    result = score(predicted, gold)
    assert (result.reports, result.rows) == (4, 4)
    assert result.accuracy.value == 0.5
    assert result.confusion == ((1, 1, 0, 0), (0, 0, 0, 0), (1, 0, 0, 0), (0, 0, 0, 1))
    present, uncertain, absent, _ = result.statuses
    assert (present.support, present.predicted, present.precision.value, present.recall.value) == (2, 2, 0.5, 0.5)
    assert (uncertain.recall.value, uncertain.precision.value) == (None, 0.0)
    assert (uncertain.macro_f1.value, uncertain.macro_findings, uncertain.unsupported_findings) == (None, 0, 1)
    assert (absent.precision.value, absent.micro_f1.value) == (None, 0.0)
    assert result.disagreements.select("report_id", "gold", "predicted").rows() == [
        ("b", "absent", "present"),
        ("c", "present", "uncertain"),
    ]


def test_same_seed_same_intervals_other_seed_others() -> None:
    gold = table([(f"r{i}", "x", STATUSES[i % 4]) for i in range(40)], "status")
    predicted = table([(f"r{i}", "x", STATUSES[i % 3]) for i in range(40)], "value")
    first, again, other = (evaluate(predicted, gold, bootstrap=200, seed=seed) for seed in (1, 1, 2))
    assert first.accuracy == again.accuracy
    assert first.accuracy != other.accuracy
    assert first.accuracy.value == other.accuracy.value


def test_no_bootstrap_no_intervals() -> None:
    rows = [("a", "x", "present")]
    accuracy = score(rows, rows, bootstrap=0).accuracy
    assert (accuracy.value, accuracy.low, accuracy.high) == (1.0, None, None)


def test_numbers_agree_within_half_a_millimetre() -> None:
    gold = pl.DataFrame({"report_id": ["a", "b", "c", "d", "e"], "size_mm": ["28", "28", "28", None, None]})
    predicted = table(
        [
            ("a", "primary_size_mm", "28.5"),
            ("b", "primary_size_mm", "29"),
            ("c", "primary_size_mm", "not_mentioned"),
            ("d", "primary_size_mm", "12"),
            ("e", "primary_size_mm", "not_mentioned"),
        ],
        "value",
    )
    (finding,) = evaluate(predicted, gold, bootstrap=0).findings
    assert (finding.finding, finding.kind, finding.rows, finding.correct) == ("primary_size_mm", "number", 5, 2)
    assert finding.confusion == ((1, 0, 1), (1, 1, 1), (0, 0, 0))
    assert finding.classes == ()


@pytest.mark.parametrize("scored", ["present", "not_mentioned"])
def test_a_status_that_gold_never_spells_right_is_refused(scored: str) -> None:
    predicted = [("r1", "effusion", scored), ("r2", "effusion", "absent"), ("r1", "T", "T1")]
    with pytest.raises(InputError, match=r"data row 2: the value for effusion is not one of present, uncertain"):
        score(predicted, [("r1", "T", "T2"), ("r1", "effusion", "absnt")])
    assert score(predicted, [("r1", "T", "T2"), ("r1", "effusion", "absent")]).rows == 2


def test_values_of_an_own_set_are_scored_as_they_are() -> None:
    gold = pl.DataFrame({"report_id": ["a", "b", "c"], "T": ["T1", "T2", ""], "side": ["left", None, "right"]})
    predicted = table(
        [
            ("a", "T", "T1"),
            ("b", "T", "T1"),
            ("c", "T", "not_mentioned"),
            ("a", "primary_side", "left"),
            ("b", "primary_side", "not_mentioned"),
            ("c", "primary_side", "left"),
        ],
        "value",
    )
    result = evaluate(predicted, gold, bootstrap=10)
    assert [(row.finding, row.kind, row.correct) for row in result.findings] == [
        ("T", "value", 2),
        ("primary_side", "value", 2),
    ]
    assert result.statuses == () and result.accuracy.value is None


def test_a_wide_table_with_statuses_is_scored_as_statuses() -> None:
    gold = pl.DataFrame({"report_id": ["a", "b"], "ascites": ["present", None]})
    result = evaluate(table([("a", "ascites", "present"), ("b", "ascites", "absent")], "value"), gold, bootstrap=0)
    assert result.findings[0].kind == "status"
    assert result.accuracy.value == 0.5


def test_json_has_everything_and_no_nan() -> None:
    gold = [("a", "x", "present"), ("b", "x", "absent"), ("z", "x", "absent")]
    text = score([("a", "x", "present"), ("b", "x", "uncertain"), ("q", "x", "absent")], gold).to_json()
    data = json.loads(text, parse_constant=pytest.fail)
    assert data["statuses"][1]["recall"]["value"] is None
    assert data["gold_only"] == [{"report_id": "z", "finding": "x", "gold": "absent"}]
    assert data["predicted_only"] == [{"report_id": "q", "finding": "x", "predicted": "absent"}]
    assert data["disagreements"][0]["predicted"] == "uncertain"
    assert data["status_labels"] == list(STATUSES)


def test_evidence_and_probability_are_kept_with_a_disagreement() -> None:
    predicted = table([("a", "x", "present")], "value").with_columns(
        p_present=pl.lit(0.75),
        evidence=pl.lit([{"start": 1, "end": 2}], dtype=pl.List(pl.Struct({"start": pl.Int64, "end": pl.Int64}))),
    )
    row = evaluate(predicted, table([("a", "x", "absent")], "status"), bootstrap=0).disagreements.row(0, named=True)
    assert (row["p_present"], row["evidence"]) == (0.75, [{"start": 1, "end": 2}])


@pytest.mark.parametrize(
    ("predicted", "gold", "message"),
    [
        (
            {"report_id": ["a"], "finding": ["x"]},
            {"report_id": ["a"], "finding": ["x"], "status": ["present"]},
            "no column value",
        ),
        (
            {"report_id": ["a"], "finding": ["x"], "value": ["present"]},
            {"finding": ["x"], "status": ["present"]},
            "no column report_id",
        ),
        (
            {"report_id": ["a"], "finding": ["x"], "value": ["present"]},
            {"report_id": ["a"], "finding": ["x"]},
            "no column status",
        ),
        ({"report_id": ["a"], "finding": ["x"], "value": ["present"]}, {"report_id": ["a"]}, "nothing else"),
        (
            {"report_id": ["a", "a"], "finding": ["x", "x"], "value": ["present", "absent"]},
            None,
            "data row 2: an earlier row",
        ),
        ({"report_id": ["b", "a"], "finding": ["x", "x"], "value": ["present", " "]}, None, "data row 2: no value"),
        (
            {"report_id": ["a"], "finding": ["x"], "value": ["positive"]},
            None,
            "predictions, data row 1: the value for x is not one of present",
        ),
        ({"report_id": ["b"], "finding": ["x"], "value": ["present"]}, None, "nothing to score"),
        (
            None,
            {"report_id": ["a", "b"], "finding": ["x", "x"], "status": ["present", "Absent"]},
            "gold labels, data row 2: the value for x is not one of",
        ),
        (None, {"report_id": ["a", "a"], "x": ["present", "absent"]}, "data row 2: an earlier row"),
    ],
)
def test_unusable_tables_are_refused_with_a_reason(
    predicted: dict[str, list[str]] | None, gold: dict[str, list[str]] | None, message: str
) -> None:
    usual_prediction = {"report_id": ["a", "b"], "finding": ["x", "x"], "value": ["present", "absent"]}
    usual_gold = {"report_id": ["a"], "finding": ["x"], "status": ["present"]}
    with pytest.raises(InputError, match=message):
        evaluate(pl.DataFrame(predicted or usual_prediction), pl.DataFrame(gold or usual_gold))


def test_a_negative_number_of_resamples_is_refused() -> None:
    with pytest.raises(ValueError, match="bootstrap"):
        score([("a", "x", "present")], [("a", "x", "present")], bootstrap=-1)
