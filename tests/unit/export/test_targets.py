"""Targets, masks and weights, each as the table of the documentation says."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportlabel.errors import ConfigError
from reportlabel.export.options import UNCERTAIN, ExportOptions, export_options, uncertain_policies
from reportlabel.export.targets import VALUES, policies, priors, with_targets, with_weights
from tests.unit.export.exam_tables import SMALL, entry, label_set

SCHEMA = {
    "value": pl.String,
    "p_present": pl.Float64,
    "review_state": pl.String,
    "policy": pl.String,
    "silence": pl.String,
}


def rows(*given: tuple[str, float | None, str, str | None, str | None]) -> pl.DataFrame:
    table = pl.DataFrame(list(given), schema=SCHEMA, orient="row")
    return table.with_columns(pl.lit("s").alias("label_set"), pl.lit("f").alias("finding"))


def target(
    value: str, *, p: float | None = 0.3, policy: str | None = "ignore", silence: str | None = "zeros", state: str = ""
) -> tuple[float | None, int]:
    table = with_targets(rows((value, p, state or "unreviewed", policy, silence)))
    return table["policy_value"][0], table["loss_mask"][0]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("ones", (1.0, 1)), ("zeros", (0.0, 1)), ("soft", (0.3, 1)), ("ignore", (None, 0)), ("keep", (None, 0))],
)
def test_uncertain_becomes_what_the_policy_says(policy: str, expected: tuple[float | None, int]) -> None:
    assert target("uncertain", policy=policy) == expected


def test_a_soft_target_without_a_probability_does_not_count() -> None:
    assert target("uncertain", policy="soft", p=None) == (None, 0)


@pytest.mark.parametrize("policy", UNCERTAIN)
def test_present_and_absent_are_never_changed(policy: str) -> None:
    assert target("present", policy=policy) == (1.0, 1)
    assert target("absent", policy=policy) == (0.0, 1)


def test_silence() -> None:
    assert target("not_mentioned", silence="zeros") == (0.0, 1)
    assert target("not_mentioned", silence="ignore") == (None, 0)
    # a radiologist who read the exam and set nothing has said that nothing is there
    assert target("not_mentioned", silence="ignore", state="reviewed") == (0.0, 1)


def test_a_value_that_is_no_status_has_no_target() -> None:
    assert target("12.0", policy=None, silence=None) == (None, 0)
    assert target("not_mentioned", policy=None, silence=None, state="reviewed") == (None, 0)


def weight(
    value: str,
    p: float | None,
    *,
    prior: float | None = 0.5,
    state: str = "unreviewed",
    policy: str = "ignore",
    **more: float,
) -> float:
    table = with_targets(rows((value, p, state, policy, "zeros"))).with_columns(
        pl.lit(prior, dtype=pl.Float64).alias("prior")
    )
    return float(with_weights(table, export_options(**more))["sample_weight"][0])


def test_the_weight_is_the_product_that_is_documented() -> None:
    assert weight("present", 0.9) == pytest.approx(0.9)
    assert weight("absent", 0.1) == pytest.approx(0.9)
    assert weight("present", None) == pytest.approx(1.0)
    assert weight("uncertain", 0.3) == 0
    assert weight("uncertain", 0.3, policy="ones") == pytest.approx(0.3)
    assert weight("uncertain", 0.3, policy="soft") == pytest.approx(1.0)
    assert weight("not_mentioned", 0.1) == pytest.approx(0.9 * 0.5)
    assert weight("not_mentioned", None, prior=0.2, balance=0) == pytest.approx(0.8 * 0.5)
    assert weight("not_mentioned", 0.1, silence_weight=1) == pytest.approx(0.9)
    assert weight("not_mentioned", 0.1, state="reviewed") == pytest.approx(0.9 * 2)
    assert weight("present", 1.0, state="reviewed") == pytest.approx(2.0)
    assert weight("present", 1.0, state="adjudicated", adjudicated_weight=5) == pytest.approx(5.0)


def test_rare_findings_weigh_more_up_to_a_bound() -> None:
    assert weight("present", 1.0, prior=0.1) == pytest.approx(5**0.5, abs=1e-6)
    assert weight("absent", 0.0, prior=0.1) == pytest.approx((0.5 / 0.9) ** 0.5, abs=1e-6)
    assert weight("present", 1.0, prior=0.1, balance=1) == pytest.approx(5)
    assert weight("present", 1.0, prior=0.1, balance=0) == pytest.approx(1)
    assert weight("present", 1.0, prior=0.00001, balance=1) == pytest.approx(50)
    assert weight("present", 1.0, prior=None, balance=1) == pytest.approx(1)
    assert weight("uncertain", 0.5, prior=0.1, balance=1, policy="soft") == pytest.approx((5 + 0.5 / 0.9) / 2, abs=1e-6)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(VALUES),
            st.none() | st.floats(0, 1),
            st.sampled_from(["unreviewed", "reviewed", "adjudicated"]),
            st.sampled_from([*UNCERTAIN, None]),
            st.sampled_from(["zeros", "ignore"]),
        ),
        min_size=1,
        max_size=30,
    ),
    st.floats(0, 1),
)
def test_what_does_not_count_weighs_nothing_and_nothing_is_negative(
    given: list[tuple[str, float | None, str, str | None, str | None]], balance: float
) -> None:
    table = with_targets(rows(*given))
    table = with_weights(table.join(priors([table]), on="finding", how="left"), export_options(balance=balance))
    weights, masks = table["sample_weight"], table["loss_mask"]
    assert weights.null_count() == 0 and weights.is_finite().all() and (weights >= 0).all()
    assert weights.filter(masks == 0).to_list() == [0.0] * int((masks == 0).sum())
    assert (table["policy_value"].is_not_null() == (masks == 1)).all()


def test_a_prior_is_the_mean_target_of_what_counts() -> None:
    table = with_targets(
        rows(
            ("present", 0.9, "unreviewed", "soft", "zeros"),
            ("uncertain", 0.5, "unreviewed", "soft", "zeros"),
            ("absent", 0.1, "unreviewed", "soft", "zeros"),
            ("not_mentioned", None, "unreviewed", "soft", "ignore"),
        )
    )
    assert priors([table, table.head(0)]).rows() == [("f", 0.5)]
    assert priors([]).is_empty()


def test_policies_come_from_the_label_set_and_then_from_the_options() -> None:
    other = label_set("other", entry("effusion", uncertain_as="zeros"))

    def found(**uncertain: str) -> dict[tuple[str, str], str]:
        options = export_options(uncertain={key.replace("__", "."): value for key, value in uncertain.items()})
        table = policies([SMALL, other], options)
        return {(one, finding): policy for one, finding, _, policy, _ in table.iter_rows() if policy}

    plain = found()
    assert plain == {
        ("small", "effusion"): "ones",
        ("small", "nodule"): "soft",
        ("small", "normal"): "ignore",
        ("other", "effusion"): "zeros",
    }
    assert found(effusion="soft") == plain | {("small", "effusion"): "soft", ("other", "effusion"): "soft"}
    assert found(effusion="soft", other__effusion="ignore")["other", "effusion"] == "ignore"
    everything = policies([SMALL, other], export_options(uncertain={"*": "keep", "nodule": "ones"}))
    assert everything["policy"].to_list() == ["keep", "ones", "keep", None, "keep"]


def test_a_normal_study_says_nothing_by_silence() -> None:
    table = policies([SMALL], ExportOptions())
    assert dict(zip(table["finding"], table["silence"], strict=True)) == {
        "effusion": "zeros",
        "nodule": "zeros",
        "normal": "ignore",
        "size": None,
    }


@pytest.mark.parametrize(
    ("uncertain", "told"),
    [({"nodul": "ones"}, "did you mean 'nodule'"), ({"size": "ones"}, "--uncertain size"), ({"a.b": "ones"}, "a.b")],
)
def test_a_policy_for_no_finding_is_refused(uncertain: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        policies([SMALL], export_options(uncertain=uncertain))


def test_options_are_checked() -> None:
    assert uncertain_policies(["a=ones", " b = soft ", "a=ones"]) == {"a": "ones", "b": "soft"}
    for wrong in ("a", "a=", "=ones", "a=sometimes"):
        with pytest.raises(ConfigError, match="FINDING=POLICY"):
            uncertain_policies([wrong])
    with pytest.raises(ConfigError, match="twice"):
        uncertain_policies(["a=ones", "a=zeros"])
    with pytest.raises(ConfigError, match=r"shares: .*add up to 1"):
        export_options(shares=(0.5, 0.5, 0.5))
    with pytest.raises(ConfigError, match="balance"):
        export_options(balance=2)
    with pytest.raises(ConfigError, match="speed"):
        export_options(speed=2)
