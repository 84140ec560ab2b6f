"""Precedence and weighted majority: what stands, what outweighs, and that votes never work against themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reportlabel.aggregate.ballots import Ballot, Ballots, labels_of
from reportlabel.aggregate.combine import aggregate
from reportlabel.aggregate.settings import load_settings
from reportlabel.aggregate.weigh import contradicted, supported, unspoken, weigh
from reportlabel.errors import ConfigError, InputError
from reportlabel.rulebook.load import rules_folder
from tests.unit.aggregate.simulated import READINGS, exam_table, label_set, vote_table

SETTINGS = load_settings()
SETS = {"chest": label_set("chest", ["nodule"])}
SCOPE = pl.DataFrame({"exam_id": ["e0", "e1"], "label_set": "chest"})

Vote = tuple[str, str, float]  # function, value, confidence

TEXT = {
    "present": ("rule/a", "present", 1.0),
    "uncertain": ("rule/b", "uncertain", 1.0),
    "absent": ("rule/c", "absent", 1.0),
}


def table(votes: list[Vote]) -> pl.DataFrame:
    """Votes about exam e1; the function's name gives kind and group."""
    return vote_table(
        [
            {
                "function_id": function,
                "value": value,
                "confidence": confidence,
                "kind": function.split("/")[0],
                "group": "diagnosis" if "diagnosis" in function else None,
            }
            for function, value, confidence in votes
        ]
    )


def ballot(votes: list[Vote]) -> Ballot:
    return Ballots(lambda: (table(votes),), SCOPE, labels_of(SETS), SETS).of(0)


def probability(votes: list[Vote], *, groups: list[int] | None = None) -> float:
    if not votes:
        return unspoken(SETTINGS)
    made = ballot(votes)
    return float(
        weigh(made, SETTINGS, groups=np.arange(len(made.functions)) if groups is None else np.array(groups))[0]
    )


def value(votes: list[Vote]) -> str:
    labels = aggregate(
        table(votes),
        SCOPE,
        exams=exam_table(2),
        label_sets=SETS,
        readings=pl.DataFrame(schema=READINGS),
        settings=SETTINGS,
    ).labels
    return str(labels.filter(pl.col("exam_id") == "e1")["value"].item())


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([], "not_mentioned"),
        ([TEXT["present"]], "present"),
        ([TEXT["uncertain"]], "uncertain"),
        ([TEXT["absent"]], "absent"),
        # one author, one statement
        ([TEXT["absent"], TEXT["uncertain"]], "uncertain"),
        ([TEXT["absent"], TEXT["present"]], "present"),
        # pathology outweighs the report, a weak record does not
        ([TEXT["absent"], ("record/pathology", "present", 0.95)], "present"),
        ([TEXT["present"], ("record/pathology", "absent", 0.95)], "absent"),
        ([TEXT["present"], ("record/biopsy", "absent", 0.8)], "uncertain"),
        ([TEXT["absent"], ("record/crp", "present", 0.6)], "absent"),
        ([TEXT["present"], ("record/crp", "absent", 0.6)], "present"),
        ([TEXT["uncertain"], ("record/crp", "present", 0.4)], "uncertain"),
        ([TEXT["uncertain"], ("record/pathology", "present", 0.9)], "present"),
        ([TEXT["uncertain"], ("record/pathology", "absent", 0.9)], "absent"),
        # records alone
        ([("record/pathology", "present", 0.95)], "present"),
        ([("record/crp", "present", 0.5)], "uncertain"),
        ([("record/crp", "present", 0.2)], "not_mentioned"),
        ([("record/gone", "absent", 0.9)], "absent"),
        # a diagnosis alone is at most uncertain, and it supports what others say
        ([("record/diagnosis", "present", 0.6)], "uncertain"),
        ([("record/diagnosis", "present", 1.0), ("record/diagnosis2", "present", 1.0)], "uncertain"),
        ([("record/diagnosis", "present", 0.6), TEXT["uncertain"]], "uncertain"),
        ([("record/diagnosis", "present", 0.6), TEXT["absent"]], "absent"),
        ([("record/diagnosis", "present", 0.5), ("record/crp", "present", 0.5)], "present"),
        # a model that reads the report
        ([("bert/m", "present", 0.95)], "present"),
        ([("bert/m", "uncertain", 0.95)], "uncertain"),
        ([TEXT["present"], ("bert/m", "absent", 1.0)], "present"),
        ([TEXT["absent"], ("bert/m", "present", 1.0)], "uncertain"),
        ([TEXT["uncertain"], ("bert/m", "uncertain", 1.0)], "uncertain"),
    ],
)
def test_value_of_a_pattern(votes: list[Vote], expected: str) -> None:
    assert value(votes) == expected


@given(st.sampled_from(["present", "absent"]), st.sampled_from(["present", "uncertain", "absent"]), st.floats(0, 0.6))
@settings(max_examples=40, deadline=None)
def test_no_weak_single_record_turns_the_report_over(text: str, says: str, confidence: float) -> None:
    said = probability([TEXT[text], ("record/x", says, confidence)])
    thresholds = SETTINGS.thresholds
    assert said >= thresholds.present if text == "present" else said < thresholds.uncertain


FUNCTIONS = ["rule/a", "rule/b", "bert/m", "record/x", "record/y", "record/diagnosis", "record/diagnosis2", "reader/r"]
votes_of = st.lists(
    st.tuples(
        st.sampled_from(FUNCTIONS),
        st.sampled_from(["present", "uncertain", "absent"]),
        st.integers(0, 20).map(lambda number: number / 20),
    ),
    max_size=8,
)


@given(votes_of, st.sampled_from(FUNCTIONS), st.integers(0, 20), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_vote_never_works_against_itself(votes: list[Vote], function: str, confidence: int, grouped: bool) -> None:
    def judged(cast: list[Vote]) -> float:
        """With `grouped` the records, diagnoses and all, are one found group."""
        if not cast:
            return probability(cast)
        functions = ballot(cast).functions
        groups = [
            99 if grouped and one.id.startswith("record") else FUNCTIONS.index("rule/a" if one.id == "rule" else one.id)
            for one in functions
        ]
        return probability(cast, groups=groups)

    before = judged(votes)
    assert judged([*votes, (function, "present", confidence / 20)]) >= before - 1e-9
    assert judged([*votes, (function, "absent", confidence / 20)]) <= before + 1e-9


def test_a_group_has_one_voice() -> None:
    votes = [(f"record/{name}", "present", 0.5) for name in "abc"]
    alone = probability(votes[:1])
    assert probability(votes, groups=[0, 0, 0]) == pytest.approx(alone)
    assert probability(votes) > alone


def test_silence_is_less_than_a_word_and_a_denial_least() -> None:
    order = [[TEXT["absent"]], [], [TEXT["uncertain"]], [TEXT["present"]]]
    said = [probability(votes) for votes in order]
    assert said == sorted(said) and len(set(said)) == 4


def test_contradiction_and_support_leave_diagnoses_out() -> None:
    diagnosed = ballot([TEXT["absent"], ("record/diagnosis", "present", 0.6)])
    assert not contradicted(diagnosed, SETTINGS)[0] and not supported(diagnosed, SETTINGS)[0]
    found = ballot([TEXT["absent"], ("record/pathology", "present", 0.9)])
    assert contradicted(found, SETTINGS)[0] and supported(found, SETTINGS)[0]


@pytest.mark.parametrize(
    ("column", "wrong"),
    [("value", "maybe"), ("value", "not_mentioned"), ("kind", "oracle"), ("confidence", 1.5), ("function_id", None)],
)
def test_votes_that_are_none_are_refused_without_quoting_them(column: str, wrong: object) -> None:
    votes = vote_table([{}, {column: wrong}])
    with pytest.raises(InputError, match=rf"votes: 1 rows have no valid {column}"):
        Ballots(lambda: (votes,), SCOPE, labels_of(SETS), SETS)


@pytest.mark.parametrize("where", [{"exam_id": "e9"}, {"label_set": "brain"}, {"finding": "mass"}])
def test_votes_outside_the_scope_are_refused(where: dict[str, str]) -> None:
    with pytest.raises(InputError, match="votes: 1 rows are about"):
        Ballots(lambda: (vote_table([{}, where]),), SCOPE, labels_of(SETS), SETS)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  steady: 2.6", "  steady: 2.6\n  stedy: 2", "unknown key 'stedy'"),
        ("  steady: 2.6", "  steady: 3.4", "must not be"),
        ("  silent: -3.0", "  silent: -5.0", "in this order"),
        ("uncertain_up_to: 0.0", "uncertain_up_to: 1.0", "must not be above report.uncertain"),
        ("thresholds: {present: 0.6", "thresholds: {present: 0.1", "must not begin above"),
        ("uncertain: 2.5, absent: -2.5", "uncertain: 4.5, absent: -2.5", "must not weigh more"),
        ("absent: -4.2}", "absent: 4.2}", "less than or equal to 0"),
    ],
)
def test_settings_that_would_break_the_order_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (rules_folder() / "aggregate.yaml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "aggregate.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"aggregate\.yaml:\d+: .*{message}"):
        load_settings(path)


def test_every_setting_is_explained() -> None:
    page = (Path(__file__).parents[3] / "docs" / "7-aggregate.md").read_text(encoding="utf-8")
    top = set(type(SETTINGS).model_fields) | set(type(SETTINGS.report).model_fields)
    names = top | {"few", "many", "folds", "reviewed_each", "better_by", "default", "by_modality_class"}
    names -= {"calibration", "choice"}  # their keys are named instead
    assert sorted(name for name in names if f"`{name}" not in page) == []
