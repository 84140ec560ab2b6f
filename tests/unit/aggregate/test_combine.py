"""The labels table of a workspace: every exam and label once, what readers said, and what follows from other labels."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reportlabel.aggregate.combine import AGGREGATED, Aggregated, aggregate
from reportlabel.aggregate.settings import load_settings
from reportlabel.errors import InputError
from reportlabel.schema import ANALYSIS, CHOICES, EXAM_VOTES
from tests.unit.aggregate.simulated import READINGS, exam_table, label_set, vote_table

SETTINGS = load_settings()
SETS = {
    "chest": label_set(
        "chest",
        ["normal", "nodule", "effusion", "device"],
        normal={"none_of_others": True, "except_for": ["device"]},
    ),
    "lung": label_set("lung", ["nodule", "mass"]),
}
EXAMS = exam_table(3)
SCOPE = pl.DataFrame({"exam_id": ["e0", "e1", "e1", "e2"], "label_set": ["chest", "lung", "chest", "lung"]})
NOBODY = pl.DataFrame(schema=READINGS)


def run(votes: pl.DataFrame, readings: pl.DataFrame = NOBODY, scope: pl.DataFrame = SCOPE) -> Aggregated:
    return aggregate(votes, scope, exams=EXAMS, label_sets=SETS, readings=readings, settings=SETTINGS)


def read(rows: list[tuple[str, str, str, str]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=READINGS, orient="row")


def row(done: Aggregated, exam: str, name: str, finding: str) -> dict[str, object]:
    return done.labels.filter(exam_id=exam, label_set=name, finding=finding).row(0, named=True)


def test_every_case_and_label_once_in_order() -> None:
    done = run(vote_table([{"exam_id": "e1"}]))
    assert done.labels.schema == AGGREGATED
    assert done.choices.schema == CHOICES and len(done.choices) == 6
    expected = [(exam, name, entry.id) for exam, name in SCOPE.iter_rows() for entry in SETS[name].findings]
    assert done.labels.select("exam_id", "label_set", "finding").rows() == expected
    assert done.labels["value"].value_counts().sort("value").rows() == [
        ("absent", 1),
        ("not_mentioned", 10),
        ("present", 1),
    ]


@pytest.mark.parametrize("cases", [1, 2, 3, 100])
def test_parts_are_the_whole(cases: int) -> None:
    done = run(vote_table([{"exam_id": "e1"}, {"exam_id": "e2", "label_set": "lung", "value": "absent"}]))
    parts = list(done.label_parts(cases))
    assert len(parts) == -(-len(SCOPE) // cases)
    assert pl.concat(parts).equals(done.labels)


def test_the_evidence_is_all_votes_of_the_label() -> None:
    done = run(
        vote_table(
            [
                {"exam_id": "e1", "function_id": "rule/b", "value": "absent", "evidence": "9-11"},
                {"exam_id": "e1", "function_id": "rule/a", "evidence": "4-6"},
                {"exam_id": "e1", "function_id": "record/x", "kind": "record", "confidence": 0.3, "evidence": "r1"},
                {"exam_id": "e1", "finding": "effusion", "evidence": "1-2"},
            ]
        )
    )
    label = row(done, "e1", "chest", "nodule")
    assert label["evidence"] == [
        {"function_id": "record/x", "kind": "record", "value": "present", "evidence": "r1"},
        {"function_id": "rule/a", "kind": "rule", "value": "present", "evidence": "4-6"},
        {"function_id": "rule/b", "kind": "rule", "value": "absent", "evidence": "9-11"},
    ]
    assert label["n_votes"] == 2 and label["method"] == "precedence" and label["review_state"] == "unreviewed"
    assert row(done, "e0", "chest", "nodule")["evidence"] == []


def test_a_conflict_is_between_functions() -> None:
    against = {"function_id": "record/x", "kind": "record", "value": "absent"}
    done = run(
        vote_table(
            [
                {"exam_id": "e0", "function_id": "rule/a"},
                {"exam_id": "e0", "function_id": "rule/b", "value": "absent"},
                {"exam_id": "e1"},
                {"exam_id": "e1", **against},
                {"exam_id": "e1", "finding": "effusion", "value": "absent"},
                {
                    "exam_id": "e1",
                    "finding": "effusion",
                    "function_id": "record/icd",
                    "kind": "record",
                    "group": "diagnosis",
                },
            ]
        )
    )
    assert not row(done, "e0", "chest", "nodule")["conflict"]
    assert row(done, "e1", "chest", "nodule")["conflict"]
    assert not row(done, "e1", "chest", "effusion")["conflict"]


def test_what_readers_said_stands() -> None:
    votes = vote_table([{"exam_id": "e0"}, {"exam_id": "e0", "finding": "effusion"}])
    done = run(
        votes,
        read(
            [
                ("e0", "chest", "nodule", "absent"),
                ("e0", "chest", "effusion", "present"),
                ("e0", "chest", "effusion", "absent"),
                ("e0", "chest", "device", "present"),
                ("e0", "chest", "normal", "present"),
                ("e1", "lung", "mass", "not_mentioned"),
                ("e1", "lung", "nodule", "uncertain"),
                ("e9", "lung", "mass", "present"),  # not in the scope
                ("e1", "lung", "size_mm", "12"),  # no status
            ]
        ),
    )
    expected = {
        ("e0", "chest", "nodule"): ("absent", 0.0),
        ("e0", "chest", "effusion"): ("uncertain", 0.5),  # two readers, two opinions
        ("e0", "chest", "device"): ("present", 1.0),
        ("e0", "chest", "normal"): ("present", 1.0),  # not derived: a reader said so
        ("e1", "lung", "mass"): ("not_mentioned", 0.0),
        ("e1", "lung", "nodule"): ("uncertain", 0.5),
    }
    for key, (value, probability) in expected.items():
        label = row(done, *key)
        assert (label["value"], label["p_present"]) == (value, probability)
        assert label["method"] == "reader" and label["review_state"] == "reviewed"
    assert (done.labels["method"] == "reader").sum() == len(expected)
    reviewed = {(r["label_set"], r["finding"]): (r["n_reviewed"], r["n_present"]) for r in done.choices.to_dicts()}
    assert reviewed["lung", "mass"] == (1, 0) and reviewed["lung", "nodule"] == (0, 0)
    assert reviewed["chest", "effusion"] == (0, 0) and reviewed["chest", "device"] == (1, 1)


def test_adjudicated_is_passed_on() -> None:
    readings = read([("e0", "chest", "nodule", "absent")]).with_columns(pl.lit("adjudicated").alias("review_state"))
    assert row(run(vote_table([]), readings), "e0", "chest", "nodule")["review_state"] == "adjudicated"


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ({}, "not_mentioned"),
        ({"normal": "present"}, "present"),
        ({"normal": "absent"}, "not_mentioned"),
        ({"normal": "present", "nodule": "absent"}, "present"),
        ({"normal": "present", "device": "present"}, "present"),
        ({"normal": "present", "nodule": "present"}, "absent"),
        ({"normal": "present", "effusion": "uncertain"}, "absent"),
        ({"nodule": "present"}, "absent"),
    ],
)
def test_a_normal_study_is_one_without_other_findings(votes: dict[str, str], expected: str) -> None:
    done = run(vote_table([{"exam_id": "e0", "finding": finding, "value": value} for finding, value in votes.items()]))
    label = row(done, "e0", "chest", "normal")
    assert label["value"] == expected
    highest = max((float(row(done, "e0", "chest", one)["p_present"]) for one in ("nodule", "effusion")), default=0)
    if expected == "absent":
        assert float(label["p_present"]) <= 1 - highest + 1e-6


@pytest.mark.parametrize("else_absent", [False, True])
def test_an_exam_of_which_nobody_says_that_it_is_normal(else_absent: bool) -> None:
    normal = {"none_of_others": True, "else_absent": else_absent}
    sets = {"chest": label_set("chest", ["normal", "nodule"], normal=normal)}
    scope = pl.DataFrame({"exam_id": ["e0", "e1", "e2"], "label_set": ["chest"] * 3})
    votes = vote_table([{"exam_id": "e1", "value": "absent"}, {"exam_id": "e2", "finding": "normal"}])
    found = aggregate(votes, scope, exams=EXAMS, label_sets=sets, readings=NOBODY, settings=SETTINGS).labels
    rows = dict(found.filter(pl.col("finding") == "normal").select("exam_id", "value").iter_rows())
    silent = "absent" if else_absent else "not_mentioned"
    assert rows == {"e0": silent, "e1": silent, "e2": "present"}
    assert found.filter(pl.col("finding") == "nodule")["value"].to_list() == [
        "not_mentioned",
        "absent",
        "not_mentioned",
    ]


def test_a_reader_s_finding_denies_the_normal_study_too() -> None:
    done = run(vote_table([{"exam_id": "e0", "finding": "normal"}]), read([("e0", "chest", "nodule", "present")]))
    assert row(done, "e0", "chest", "normal")["value"] == "absent"


def test_without_votes_and_without_anything() -> None:
    done = run(pl.DataFrame(schema=EXAM_VOTES))
    assert len(done.labels) == 12 and set(done.labels["value"]) == {"not_mentioned"}
    assert done.labels["p_present"].is_between(0, 0.2).all() and done.labels["evidence"].list.len().sum() == 0
    assert done.analysis.schema == ANALYSIS and done.analysis.is_empty()
    assert done.choices["n_functions"].sum() == 0
    nothing = run(pl.DataFrame(schema=EXAM_VOTES), scope=SCOPE.clear())
    assert nothing.labels.is_empty() and nothing.labels.schema == AGGREGATED and nothing.choices.schema == CHOICES


@pytest.mark.parametrize(
    ("scope", "exams", "message"),
    [
        (pl.concat([SCOPE, SCOPE.head(1)]), EXAMS, "scope: 1 rows stand twice"),
        (SCOPE.with_columns(pl.lit("brain").alias("label_set")).unique(), EXAMS, "scope: 3 rows name a label set"),
        (SCOPE, EXAMS.head(2), "scope: 1 rows name an exam"),
        (SCOPE, pl.concat([EXAMS, EXAMS]), "exams: an exam stands in it twice"),
        (SCOPE, EXAMS.drop("patient_id"), "exams: column patient_id is missing"),
    ],
)
def test_wrong_tables_are_named(scope: pl.DataFrame, exams: pl.DataFrame, message: str) -> None:
    with pytest.raises(InputError, match=message):
        aggregate(vote_table([]), scope, exams=exams, label_sets=SETS, readings=NOBODY, settings=SETTINGS)


def test_a_reading_without_a_value_is_refused() -> None:
    with pytest.raises(InputError, match="readings: 1 rows have no valid value"):
        run(vote_table([]), read([("e0", "chest", "nodule", "perhaps")]))


ROWS = st.fixed_dictionaries(
    {
        "exam_id": st.sampled_from(["e0", "e1"]),
        "finding": st.sampled_from(["normal", "nodule", "effusion", "device"]),
        "function_id": st.sampled_from(["f1", "f2", "f3"]),
        "kind": st.sampled_from(["rule", "bert", "record"]),
        "group": st.sampled_from([None, "diagnosis", "blood"]),
        "value": st.sampled_from(["present", "uncertain", "absent"]),
        "confidence": st.integers(0, 10).map(lambda number: number / 10),
    }
)


@given(st.lists(ROWS, max_size=25), st.randoms())
@settings(max_examples=40, deadline=None)
def test_any_votes_in_any_order_give_whole_tables(rows: list[dict[str, object]], chance: object) -> None:
    done = run(vote_table(rows))
    assert len(done.labels) == 12 and done.labels["p_present"].is_between(0, 1).all()
    assert int(done.labels["evidence"].list.len().sum()) == len(rows)
    spoken = done.labels.filter(pl.col("n_votes") > 0)
    assert (spoken["evidence"].list.len() >= spoken["n_votes"]).all()
    chance.shuffle(rows)  # type: ignore[attr-defined]
    again = run(vote_table(rows))
    assert again.labels.equals(done.labels) and again.analysis.equals(done.analysis)
