"""Nothing that was not known at reading, and nothing read from the report, becomes an input."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportlabel.export.features import FEATURES, LeakageError, check_features, input_features
from reportlabel.schema import EXAM_VOTES
from tests.unit.export import exam_tables

KINDS = st.sampled_from(["rule", "bert", "record", "reader", "Record", "records", ""]) | st.none()

VOTE = st.fixed_dictionaries(
    {
        "exam_id": st.sampled_from(["E1", "E2"]),
        "label_set": st.just("s"),
        "finding": st.sampled_from(["f", "g"]),
        "function_id": st.sampled_from(["record/a", "rule"]),
        "value": st.sampled_from(["present", "absent"]),
        "confidence": st.none() | st.floats(0, 1),
        "group": st.none() | st.just("g"),
        "kind": KINDS,
        "evidence": st.none() | st.sampled_from(["R1", "3-9"]),
        "available_at_reading": st.none() | st.booleans(),
    }
)


@given(st.lists(VOTE, max_size=25))
def test_only_records_known_at_reading_come_through(votes: list[dict[str, object]]) -> None:
    table = pl.DataFrame(votes, schema=EXAM_VOTES)
    features = input_features(table)
    wanted = {
        tuple(vote[name] for name in FEATURES)
        for vote in votes
        if vote["kind"] == "record" and vote["available_at_reading"] is True
    }
    assert set(features.rows()) == wanted
    assert features.schema == FEATURES
    assert check_features(features).equals(features)


@given(st.lists(VOTE, min_size=1, max_size=25))
def test_the_writer_refuses_anything_else(votes: list[dict[str, object]]) -> None:
    table = pl.DataFrame(votes, schema=FEATURES)
    if any(vote["kind"] != "record" or vote["available_at_reading"] is not True for vote in votes):
        with pytest.raises(LeakageError):
            check_features(table)
    else:
        assert check_features(table).equals(table)


def test_a_table_without_the_flag_is_refused() -> None:
    table = input_features(exam_tables.votes(exam_tables.exams(5), exam_tables.SMALL))
    assert not table.is_empty()
    with pytest.raises(LeakageError, match="columns"):
        check_features(table.drop("available_at_reading"))


def test_the_order_of_votes_does_not_matter() -> None:
    votes = exam_tables.votes(exam_tables.exams(20), exam_tables.SMALL)
    assert input_features(votes).equals(input_features(votes.reverse()))
