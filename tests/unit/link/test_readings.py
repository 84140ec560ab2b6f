"""Reports find their exam by the best key that is unique, or go to quarantine."""

from datetime import datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportlabel.link.readings import CONTRADICTION, NO_EXAM, SEVERAL_EXAMS, match_reports

DAY = datetime(2024, 5, 10, 14)
KEYS = {
    "site": pl.String,
    "patient_id": pl.String,
    "study_instance_uid": pl.String,
    "accession_number": pl.String,
    "modality": pl.String,
}
EXAMS = pl.DataFrame(
    [
        ("E1", "a", "P", "1.2.1", "100", "CT", DAY),
        ("E2", "a", "P", "1.2.2", "101", "MR", DAY),
        ("E3", "a", "Q", "1.2.3", "102", "CT", DAY),
        ("E4", "a", "Q", "1.2.4", "103", "CT", DAY),
        ("E5", "b", "P", "1.2.5", "100", "CT", DAY),
        ("E6", "b", "R", None, "", "US", DAY),
    ],
    schema={"exam_id": pl.String, **KEYS, "started_at": pl.Datetime("us")},
    orient="row",
)


def report(*key: str | None, when: datetime | None = DAY) -> pl.DataFrame:
    return pl.DataFrame(
        [("R", *key, when)], schema={"report_id": pl.String, **KEYS, "exam_at": pl.Datetime("us")}, orient="row"
    )


@pytest.mark.parametrize(
    ("key", "exam", "by"),
    [
        (("a", "P", "1.2.2", "101", "MR"), "E2", "study_uid"),
        (("a", "P", "1.2.2", None, None), "E2", "study_uid"),
        (("a", "P", None, "101", None), "E2", "accession"),
        (("b", "P", None, "100", None), "E5", "accession"),
        (("a", "P", None, "", "MR"), "E2", "day"),
        (("b", "R", "", " ", "US"), "E6", "day"),
        (("a", "Q", "9.9", "103", "CT"), "E4", "accession"),
    ],
)
def test_the_best_key_that_is_unique(key: tuple[str | None, ...], exam: str, by: str) -> None:
    found = match_reports(report(*key), EXAMS)
    assert found.reports.select("exam_id", "matched_by").row(0) == (exam, by)
    assert found.quarantined.is_empty()


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (("a", "Q", None, None, "CT"), SEVERAL_EXAMS),
        (("a", "P", None, None, "US"), NO_EXAM),
        (("c", "P", None, "100", "CT"), NO_EXAM),
        (("a", "P", "1.2.1", "101", "CT"), CONTRADICTION),
        (("b", "X", None, "", "US"), NO_EXAM),
        # the numbers of an exam of the same patient id in another hospital
        (("b", "Q", "1.2.3", None, None), NO_EXAM),
        (("b", "P", "1.2.1", None, "CT2"), NO_EXAM),
        (("c", "P", None, None, "CT"), NO_EXAM),
        ((None, "P", "1.2.1", "100", "CT"), NO_EXAM),
        # of another patient of the same hospital
        (("a", "Q", "1.2.1", None, "MR"), NO_EXAM),
        (("a", "Q", None, "100", "MR"), NO_EXAM),
        (("a", None, "1.2.1", "100", "CT"), NO_EXAM),
    ],
)
def test_else_quarantine_with_the_reason(key: tuple[str | None, ...], reason: str) -> None:
    found = match_reports(report(*key), EXAMS)
    assert found.reports.is_empty() and found.quarantined["reason"].to_list() == [reason]


@pytest.mark.parametrize(
    ("key", "exam", "by"),
    [
        ((None, "P", "1.2.2", None, None), "E2", "study_uid"),
        ((None, "P", None, "101", None), "E2", "accession"),
        ((None, "P", None, None, "MR"), "E2", "day"),
    ],
)
def test_where_nobody_names_a_site_all_is_of_one(key: tuple[str | None, ...], exam: str, by: str) -> None:
    without = EXAMS.filter(pl.col("site") == "a").with_columns(site=pl.lit(None, dtype=pl.String))
    assert match_reports(report(*key), without).reports.select("exam_id", "matched_by").row(0) == (exam, by)


def test_a_number_that_two_patients_share_leads_each_to_his_own() -> None:
    shared = EXAMS.with_columns(accession_number=pl.lit("7"), study_instance_uid=pl.lit(None, dtype=pl.String))
    found = match_reports(report("b", "R", None, "7", None), shared)
    assert found.reports["exam_id"].to_list() == ["E6"]
    again = match_reports(report("a", "Q", None, "7", None), shared)
    assert again.quarantined["reason"].to_list() == [SEVERAL_EXAMS]


def test_another_day_is_another_exam() -> None:
    assert match_reports(report("a", "P", None, None, "MR", when=datetime(2024, 5, 11)), EXAMS).reports.is_empty()


@given(st.lists(st.sampled_from(["1.2.1", "1.2.4", "9.9", "", None]), max_size=8), st.sampled_from(["CT", "US", None]))
def test_nothing_is_lost(uids: list[str | None], modality: str | None) -> None:
    rows = pl.concat([report("a", "Q", uid, None, modality) for uid in uids] or [report(*[None] * 5).clear()])
    found = match_reports(rows, EXAMS)
    assert found.reports.height + found.quarantined.height == len(uids)
