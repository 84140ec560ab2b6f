"""What readers settled: which exams it labels, and from which the models may learn."""

from __future__ import annotations

import polars as pl
import pytest

from reportlabel.aggregate.ballots import labels_of
from reportlabel.aggregate.cases import REVIEW_STATES, Settled, cases_of, settled_of
from reportlabel.aggregate.combine import aggregate
from reportlabel.aggregate.settings import load_settings
from reportlabel.schema import EXAM_VOTES
from tests.unit.aggregate.simulated import exam_table, label_set

SETTINGS = load_settings()
SETS = {"chest": label_set("chest", ["nodule", "effusion"])}
EXAMS = exam_table(4)
SCOPE = pl.DataFrame({"exam_id": ["e0", "e1", "e2", "e3"], "label_set": "chest"})
READINGS = {
    "exam_id": pl.String,
    "label_set": pl.String,
    "finding": pl.String,
    "value": pl.String,
    "review_state": pl.String,
    "teaches": pl.Boolean,
}


def read(*rows: tuple[str, str, str, bool | None]) -> pl.DataFrame:
    full = [(exam, "chest", "nodule", value, state, teaches) for exam, value, state, teaches in rows]
    return pl.DataFrame(full, schema=READINGS, orient="row")


def nodule(readings: pl.DataFrame) -> Settled:
    return settled_of(readings, cases_of(SCOPE, EXAMS, SETS), labels_of(SETS), SETTINGS)[0]


def test_only_exams_that_teach_are_learnt_from() -> None:
    found = nodule(
        read(
            ("e0", "present", "reviewed", True),
            ("e1", "present", "reviewed", False),
            ("e2", "absent", "adjudicated", True),
            ("e3", "uncertain", "reviewed", True),
        )
    )
    assert found.cases.tolist() == [0, 1, 2, 3]
    assert found.teaches.tolist() == [True, False, True, True]
    learnt = found.reviewed(folds=5)
    assert (learnt.cases.tolist(), learnt.truth.tolist()) == ([0, 2], [1, 0])
    assert len(learnt.folds) == 2


def test_what_does_not_teach_still_settles_its_label() -> None:
    done = aggregate(
        pl.DataFrame(schema=EXAM_VOTES),
        SCOPE,
        exams=EXAMS,
        label_sets=SETS,
        readings=read(("e0", "present", "adjudicated", False), ("e1", "absent", "reviewed", False)),
        settings=SETTINGS,
    )
    rows = done.labels.filter(finding="nodule").select("exam_id", "value", "review_state", "method").rows()
    assert rows[:2] == [("e0", "present", "adjudicated", "reader"), ("e1", "absent", "reviewed", "reader")]
    assert [state for _, _, state, _ in rows[2:]] == [REVIEW_STATES[0]] * 2
    assert done.choices.filter(finding="nodule")["n_reviewed"].to_list() == [0]


def test_readings_that_do_not_say_whether_they_teach_do() -> None:
    said = read(("e0", "present", "reviewed", None)).drop("teaches")
    assert nodule(said).reviewed(folds=5).cases.tolist() == [0]


@pytest.mark.parametrize("second", [False, None])
def test_one_reading_that_may_not_teach_is_enough(second: bool | None) -> None:
    found = nodule(read(("e0", "present", "reviewed", True), ("e0", "present", "reviewed", second)))
    assert found.cases.tolist() == [0]
    assert found.reviewed(folds=5).cases.tolist() == []
