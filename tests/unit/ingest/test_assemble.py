"""Rows of several sources become exams, reports and records, and nothing is lost on the way."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reportlabel.ingest.assemble import (
    NO_EXAM_DATE,
    NO_RECORD_DATE,
    NO_TEXT,
    SHARED_UID,
    Assembled,
    RawRows,
    assemble,
    load_assembly_rules,
    reports_that_count,
)
from reportlabel.ingest.raw import row_schema
from reportlabel.rulebook.exams import load_exam_rules
from reportlabel.schema import EXAMS, RECORDS, REPORTS

RULES = load_assembly_rules()
READER = load_exam_rules()
DAY = datetime(2024, 3, 4, 9, 30)
UID = "1.2.392.1.1"


def rows(table: str, *given: dict[str, Any]) -> pl.DataFrame:
    """Rows with a site, a patient, a format and a reading where the test does not say otherwise."""
    schema = row_schema(table)
    known = {"site": "a", "patient_id": "P1", "part": 0, "format": "ris_csv", "reading": "r1"}
    filled = [{name: {**known, **row}.get(name) for name in schema.names()} for row in given]
    return pl.DataFrame(filled, schema=schema)


def made(
    *,
    patients: Sequence[dict[str, Any]] = (),
    exams: Sequence[dict[str, Any]] = (),
    reports: Sequence[dict[str, Any]] = (),
    records: Sequence[dict[str, Any]] = (),
    shared: Sequence[str] = (),
) -> Assembled:
    raw = RawRows(
        rows("patients", *patients), rows("exams", *exams), rows("reports", *reports), rows("records", *records)
    )
    result = assemble(raw, rules=RULES, exam_reader=READER, shared_uids=shared)
    assert (result.exams.schema, result.reports.schema, result.records.schema) == (EXAMS, REPORTS, RECORDS)
    sums = result.attrition.group_by("table", "outcome").agg(pl.col("rows").sum())
    for table in ("exams", "reports", "records"):
        by_outcome = dict(sums.filter(pl.col("table") == table).select("outcome", "rows").iter_rows())
        came_in = by_outcome.pop("in", 0)
        assert came_in == sum(by_outcome.values()), (table, result.attrition)
    assert result.quarantine.height == sum(
        result.attrition.filter(pl.col("outcome") == "quarantined")["rows"].to_list()
    )
    return result


def test_sources_of_one_exam_add_up() -> None:
    found = made(
        patients=[{"sex": None}, {"sex": "F", "birth_date": date(1950, 3, 5), "format": "ssmix2"}],
        exams=[
            {
                "study_instance_uid": UID,
                "accession_number": "77",
                "started_at": DAY,
                "modality": "PT",
                "order_name": "PET-CT",
            },
            {"accession_number": "77", "format": "ssmix2", "weight_kg": 50.0, "height_cm": 160.0},
            {"study_instance_uid": UID, "format": "dicom", "modality": "CT", "ctdi_vol": 3.0, "weight_kg": 51.0},
            {"study_instance_uid": UID, "format": "dicom", "ctdi_vol": 9.0, "dlp": 400.0, "age_years": 30, "sex": "M"},
        ],
    )
    (exam,) = found.exams.rows(named=True)
    assert (exam["modality"], exam["modality_class"], exam["body_part"]) == ("PT", "NM", "WHOLEBODY")
    assert (exam["age_years"], exam["sex"]) == (73, "F")  # the day before the birthday; the hospital's own sex wins
    assert (exam["ctdi_vol"], exam["dlp"]) == (9.0, 400.0)  # the dose report, not a single series
    assert (exam["weight_kg"], exam["height_cm"]) == (51.0, 160.0)  # of the images first, else of any
    assert exam["study_instance_uid"] == UID and exam["started_at"] == DAY


def test_the_same_exam_has_the_same_id_from_any_source() -> None:
    one = made(exams=[{"study_instance_uid": UID, "started_at": DAY, "format": "fhir"}])
    two = made(exams=[{"study_instance_uid": UID, "started_at": DAY, "accession_number": "1"}])
    other = made(exams=[{"study_instance_uid": UID, "started_at": DAY, "patient_id": "P2"}])
    assert one.exams["exam_id"][0] == two.exams["exam_id"][0] != other.exams["exam_id"][0]
    assert "P1" not in one.exams["exam_id"][0]


def test_what_cannot_be_used_is_set_aside_with_its_reason() -> None:
    found = made(
        exams=[
            {"study_instance_uid": UID, "started_at": DAY, "modality": "CT"},
            {"study_instance_uid": "1.2.9", "started_at": DAY, "modality": "CT"},
            {"study_instance_uid": "1.2.8"},
            {"study_instance_uid": "1.2.8", "format": "dicom"},
        ],
        reports=[
            {"text": " \n", "status": "final", "study_instance_uid": UID},
            {"text": "異常なし", "status": "final", "accession_number": "unknown"},
        ],
        records=[{"kind": "lab", "code": "3B035"}],
        shared=["1.2.9"],
    )
    assert found.exams.height == 1 and found.reports.is_empty() and found.records.is_empty()
    counts = dict(found.quarantine.group_by("reason").len().iter_rows())
    assert counts[SHARED_UID] == counts[NO_TEXT] == counts[NO_RECORD_DATE] == 1 and counts[NO_EXAM_DATE] == 2
    assert all(found.quarantine["remedy"].str.len_chars() > 10)
    assert "異常" not in str(found.quarantine.rows())


def test_versions_of_a_report() -> None:
    exam = {"study_instance_uid": UID, "started_at": DAY, "modality": "CT"}
    at = DAY + timedelta(hours=1)
    report = {"study_instance_uid": UID, "report_number": "R1"}
    found = made(
        exams=[exam],
        reports=[
            {**report, "text": "改訂", "status": "amended", "confirmed_at": at + timedelta(days=1), "version": 3},
            {**report, "text": "速報", "status": "preliminary", "confirmed_at": at, "version": 1},
            {**report, "text": "【所見】\n確定", "status": "final", "confirmed_at": at + timedelta(hours=1)},
            {
                **report,
                "text": "確定",
                "status": "final",
                "confirmed_at": at + timedelta(hours=1, seconds=20),
                "format": "ssmix2",
            },
        ],
    )
    assert found.reports.select("version", "status", "text").rows() == [
        (1, "preliminary", "速報"),
        (2, "final", "【所見】\n確定"),
        (3, "amended", "改訂"),
    ]
    assert found.reports["report_id"].n_unique() == 1
    assert reports_that_count(found.reports)["text"].to_list() == ["改訂"]
    assert reports_that_count(found.reports.filter(pl.col("version") == 1)).is_empty()
    withdrawn = made(
        exams=[exam],
        reports=[
            {**report, "text": "確定", "status": "final", "confirmed_at": at},
            {**report, "text": "", "status": "cancelled", "confirmed_at": at + timedelta(hours=1)},
        ],
    )
    assert withdrawn.reports.is_empty()


def test_lost_characters_are_put_back_from_another_source() -> None:
    exam = {"study_instance_uid": UID, "started_at": DAY, "modality": "CT", "contrast_agent": "イオパミロン370"}
    report = {"study_instance_uid": UID, "status": "final", "confirmed_at": DAY}
    found = made(
        exams=[exam],
        reports=[
            {**report, "text": "【所見】\nリンパ節腫〓なし。\n?\n大動脈～腸骨動脈に石灰化。\n何〓も似ない行"},
            {**report, "text": "所見:\nリンパ節腫⼤なし。大動脈〜腸骨動脈に石灰化。", "format": "ssmix2"},
        ],
        records=[
            {"kind": "lab", "code": "5D520", "name": "PIVKA-〓", "start_at": DAY},
            {"kind": "lab", "code": "5D520", "name": "PIVKA-II", "start_at": DAY + timedelta(days=1)},
            {"kind": "lab", "name": "〓", "start_at": DAY},
            {"kind": "medication", "name": "イオパミロン370", "start_at": DAY},
        ],
    )
    assert found.reports["text"].to_list() == [
        "【所見】\nリンパ節腫⼤なし。\n?\n大動脈〜腸骨動脈に石灰化。\n何〓も似ない行"
    ]
    assert sorted(found.records["name"]) == ["PIVKA-II", "PIVKA-II", "〓"]  # and the contrast medium is the exam's


def test_records_of_several_sources_are_one() -> None:
    midnight = datetime(2024, 3, 4)
    found = made(
        records=[
            {"kind": "surgery", "code_system": "K", "code": "K672-2", "start_at": midnight, "body_site": "gallbladder"},
            {
                "kind": "surgery",
                "code_system": "K",
                "code": "K672-2",
                "start_at": DAY,
                "side": "right",
                "format": "dpc",
            },
            {"kind": "physiology", "code": "9A110", "start_at": midnight, "text": "洞調律"},
            {"kind": "physiology", "code": "9A110", "start_at": DAY, "value": 70.0, "format": "ssmix2"},
            {"kind": "physiology", "code": "9A110", "start_at": DAY + timedelta(hours=3), "format": "ssmix2"},
            {"kind": "lab", "code": "5C070", "start_at": DAY, "value": 1.0},
            {"kind": "lab", "code": "5C070", "start_at": DAY, "value": 2.0},
        ]
    )
    by_kind = {kind: group for (kind,), group in found.records.group_by("kind")}
    (operation,) = by_kind["surgery"].rows(named=True)
    assert operation["start_at"] == DAY and operation["body_site"] == "gallbladder"
    heart = by_kind["physiology"].sort("start_at").rows(named=True)
    assert [(one["text"], one["value"]) for one in heart] == [("洞調律", 70.0), (None, None)]
    assert by_kind["lab"].height == 2


def test_the_last_version_of_a_numbered_record_counts() -> None:
    specimen = {"kind": "pathology", "number": "S24-1", "start_at": DAY, "body_site": "lung", "side": "left"}
    found = made(
        records=[
            {**specimen, "text": "追加検索中", "certainty": "preliminary", "reported_at": DAY},
            {**specimen, "text": "腺癌", "certainty": "final", "reported_at": DAY + timedelta(days=5)},
        ]
    )
    assert found.records.select("text", "body_site").rows() == [("腺癌", "lung;left")]


@pytest.mark.parametrize(("gap", "episodes"), [(0, 1), (14, 1), (15, 2), (200, 2)])
def test_renewals_of_a_drug_are_one_medication(gap: int, episodes: int) -> None:
    first_end = DAY + timedelta(days=84)
    drug = {"kind": "medication", "code_system": "YJ", "code": "3999423A1"}
    found = made(
        records=[
            {**drug, "start_at": DAY, "end_at": first_end},
            {**drug, "start_at": first_end + timedelta(days=gap), "end_at": first_end + timedelta(days=gap + 84)},
        ]
    )
    assert found.records.height == episodes
    assert found.records["end_at"].max() == first_end + timedelta(days=gap + 84)


_EXAM = st.fixed_dictionaries(
    {
        "study_instance_uid": st.sampled_from([None, "1.2.3", "1.2.4"]),
        "accession_number": st.sampled_from([None, "1", "2"]),
        "started_at": st.sampled_from([None, DAY, DAY + timedelta(days=1)]),
        "modality": st.sampled_from([None, "CT", "MR"]),
        "patient_id": st.sampled_from(["P1", "P2"]),
        "format": st.sampled_from(["ris_csv", "dicom", "fhir"]),
    }
)
_REPORT = st.fixed_dictionaries(
    {
        "study_instance_uid": st.sampled_from([None, "1.2.3"]),
        "accession_number": st.sampled_from([None, "1", "9"]),
        "exam_at": st.sampled_from([None, DAY]),
        "modality": st.sampled_from([None, "CT"]),
        "text": st.sampled_from(["", "所見", "診断"]),
        "status": st.sampled_from(["preliminary", "final", "amended", "cancelled"]),
        "confirmed_at": st.sampled_from([None, DAY, DAY + timedelta(hours=2)]),
        "version": st.sampled_from([None, 1, 2]),
        "format": st.sampled_from(["ris_csv", "ssmix2"]),
    }
)
_RECORD = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["lab", "pathology", "surgery", "medication", "diagnosis", "physiology"]),
        "start_at": st.sampled_from([None, DAY, datetime(2024, 3, 4), DAY + timedelta(days=90)]),
        "end_at": st.sampled_from([None, DAY + timedelta(days=80)]),
        "code": st.sampled_from([None, "A", "B"]),
        "number": st.sampled_from([None, "1"]),
        "text": st.sampled_from([None, "x"]),
        "format": st.sampled_from(["ris_csv", "dpc"]),
    }
)


@settings(max_examples=60, deadline=None)
@given(
    exams=st.lists(_EXAM, max_size=8),
    reports=st.lists(_REPORT, max_size=6),
    records=st.lists(_RECORD, max_size=8),
    order=st.randoms(use_true_random=False),
)
def test_rows_in_are_rows_out_and_their_order_does_not_matter(
    exams: list[dict[str, Any]], reports: list[dict[str, Any]], records: list[dict[str, Any]], order: Any
) -> None:
    first = made(exams=exams, reports=reports, records=records)  # sums are checked in there
    assert first.exams["exam_id"].is_unique().all() and first.records["record_id"].is_unique().all()
    assert first.reports.select("report_id", "version").is_unique().all()
    assert set(first.reports["exam_id"]) <= set(first.exams["exam_id"])
    order.shuffle(exams)
    second = made(exams=exams, reports=reports, records=records)
    assert set(second.exams["exam_id"]) == set(first.exams["exam_id"])
