"""The cohort: boundaries of every filter, counts, tracers, items. Tests of requirements carry their number."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from reportlabel.consent.attrition import unbalanced
from reportlabel.consent.cohort import (
    Cohort,
    cells,
    count_report,
    derive_tracers,
    keep_complete,
    keep_items,
    select_cohort,
    tracer_weeks,
)
from reportlabel.errors import InputError
from reportlabel.protocol import Protocol, load_protocol
from reportlabel.schema import EXAMS, RECORDS, REPORTS

KEIO, JMID, GUNMA, SHINSHU, TOHOKU = "keio_2017_0018", "jmid", "gunma_bone_scan", "shinshu_skin", "tohoku_skin"
PROTOCOLS = {study: load_protocol(study) for study in (KEIO, JMID, GUNMA, SHINSHU, TOHOKU)}
USUAL: dict[str, dict[str, Any]] = {
    KEIO: {"site": "keio", "modality": "CT", "modality_class": "CT"},
    JMID: {"site": "juntendo", "modality": "CT", "modality_class": "CT"},
    GUNMA: {
        "site": "gunma",
        "modality": "NM",
        "modality_class": "NM",
        "order_name": "骨シンチ",
        "sex": "F",
        "started_at": datetime(2019, 7, 1, 9),
    },
    SHINSHU: {
        "site": "gunma",
        "modality": "OT",
        "modality_class": "OT",
        "order_name": "ダーモスコピー検査",
        "started_at": datetime(2015, 7, 1, 9),
    },
    TOHOKU: {
        "site": "tohoku",
        "modality": "OT",
        "modality_class": "OT",
        "order_name": "臨床写真",
        "started_at": datetime(2015, 7, 1, 9),
    },
}
"""An exam that belongs to the study."""


def filled(schema: pl.Schema, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([dict.fromkeys(schema.names()) | row for row in rows], schema=schema)


def exams(study: str, *rows: dict[str, Any]) -> pl.DataFrame:
    usual = {"started_at": datetime(2018, 7, 1, 9)} | USUAL[study]
    return filled(
        EXAMS, [usual | {"exam_id": f"e{at}", "patient_id": str(at)} | row for at, row in enumerate(rows, start=1)]
    )


def chosen(
    study: str | Protocol,
    *rows: dict[str, Any],
    reports: list[dict[str, Any]] | None = None,
    records: list[dict[str, Any]] | None = None,
    **options: Any,
) -> Cohort:
    protocol = study if isinstance(study, Protocol) else PROTOCOLS[study]
    table = exams(protocol.notice, *rows)
    if protocol.cohort.prior_study_ids and "prior" not in options:
        options["prior"] = table.select("site", "patient_id", study=pl.lit("HS-2022-005"))
    cohort = select_cohort(table, filled(REPORTS, reports or []), filled(RECORDS, records or []), protocol, **options)
    assert unbalanced(cohort.attrition) == []
    assert cohort.exams.height + cohort.excluded.height == table.height
    return cohort


def kept(study: str | Protocol, *rows: dict[str, Any], **options: Any) -> list[bool]:
    """For each exam whether it is in."""
    ids = chosen(study, *rows, **options).exams["exam_id"].to_list()
    return [f"e{at}" in ids for at in range(1, len(rows) + 1)]


def number_of(study: str | Protocol, **row: Any) -> str:
    """The requirement that excludes one exam."""
    return str(chosen(study, row).excluded["number"].item())


def variant(folder: Path, study: str, **sections: Any) -> Protocol:
    path = folder / "ours.yaml"
    path.write_text(yaml.safe_dump({"extends": study, "id": "ours", **sections}, allow_unicode=True), encoding="utf-8")
    return load_protocol(path)


# --- dates

PERIODS = [
    (KEIO, "K1", date(2005, 1, 1), date(2030, 6, 30)),
    (JMID, "X1", date(2016, 4, 10), date(2026, 4, 10)),
    (GUNMA, "B1", date(2019, 6, 1), date(2019, 9, 30)),
    (SHINSHU, "S1", date(2005, 1, 1), date(2020, 5, 31)),
    (TOHOKU, "T1", date(2003, 1, 1), date(2018, 11, 30)),
]


@pytest.mark.parametrize(("study", "number", "first", "last"), PERIODS)
@pytest.mark.parametrize("hour", [(0, 0, 0), (23, 59, 59)])
def test_K1_B1_S1_T1_JC1_both_ends_of_the_period_are_in(
    study: str, number: str, first: date, last: date, hour: tuple[int, int, int]
) -> None:
    def at(day: date) -> dict[str, Any]:
        return {"started_at": datetime(day.year, day.month, day.day, *hour)}

    day = timedelta(days=1)
    assert kept(study, at(first - day), at(first), at(last), at(last + day)) == [False, True, True, False]
    assert number_of(study, **at(last + day)) == number


def test_K1_an_exam_without_a_date_is_counted() -> None:
    cohort = chosen(KEIO, {"started_at": None}, {})
    assert cohort.excluded.rows() == [("e1", "dated", "without a date", "K1")]


def test_T1_months_are_whole(tmp_path: Path) -> None:
    leap = variant(tmp_path, TOHOKU, cohort={"from": "2016-02", "to": "2016-02"})
    days = [datetime(2016, 1, 31), datetime(2016, 2, 1), datetime(2016, 2, 29, 23), datetime(2016, 3, 1)]
    assert kept(leap, *({"started_at": day} for day in days)) == [False, True, True, False]


def test_JC1_J2_each_hospital_may_have_its_own_period(tmp_path: Path) -> None:
    sites = [{"id": "a", "from": date(2020, 1, 1)}, {"id": "b", "to": "2019-12"}]
    ours = variant(tmp_path, JMID, cohort={"sites": sites})
    rows = [
        {"site": site, "started_at": day}
        for site in "ab"
        for day in (datetime(2019, 12, 31, 12), datetime(2020, 1, 1, 12))
    ]
    assert kept(ours, *rows) == [False, True, True, False]


def test_TC4_the_period_may_mean_visits(tmp_path: Path) -> None:
    ours = variant(tmp_path, TOHOKU, cohort={"date_field": "visit"})
    visits = pl.DataFrame(
        {
            "site": ["tohoku"] * 3,
            "patient_id": ["1", "1", "2"],
            "day": [date(2018, 11, 30), date(2018, 11, 29), date(2018, 12, 1)],
        }
    )
    late = {"started_at": datetime(2020, 1, 1)}
    assert kept(ours, late, late, visits=visits) == [True, False]
    assert kept(TOHOKU, late, late) == [False, False]
    with pytest.raises(InputError, match="visits"):
        chosen(ours, late)


# --- sites, kinds, sex, age


@pytest.mark.parametrize(("study", "number"), [(KEIO, "X1"), (JMID, "J2"), (SHINSHU, "S11")])
def test_J2_S11_hospitals_that_do_not_take_part_are_out(study: str, number: str) -> None:
    assert kept(study, {"site": "elsewhere"}, {"site": None}, {}) == [False, False, True]
    assert number_of(study, site="elsewhere") == number


def test_J2_exam_ids_are_unique_across_hospitals() -> None:
    with pytest.raises(InputError, match="1 exam ids stand twice"):
        chosen(JMID, {"exam_id": "e"}, {"exam_id": "e"})


KINDS = {
    "CT": "ct", "MRI": "mri", "US": "ultrasound", "XR": "xray", "RF": "contrast_xray", "XA": "angiography",
    "NM": "nuclear_medicine",
}  # fmt: skip


def test_K2_seven_classes_and_no_other() -> None:
    rows = [*({"modality_class": one} for one in KINDS), {"modality_class": "OT"}, {"modality_class": None}]
    cohort = chosen(KEIO, *rows)
    assert cohort.exams["kind"].to_list() == list(KINDS.values())
    assert cohort.excluded.select("exam_id", "number").rows() == [("e8", "K2"), ("e9", "K2")]


@pytest.mark.parametrize(
    ("modality", "modality_class", "kind"),
    [
        ("CT", "CT", "ct"),
        ("MR", "MRI", "mri"),
        ("RTPLAN", "OT", "radiotherapy"),
        ("RTSTRUCT", "OT", "radiotherapy"),
        ("RTDOSE", None, "radiotherapy"),
        ("CR", "XR", None),
        ("PT", "NM", None),
        ("RF", "RF", None),
        (None, None, None),
    ],
)
def test_J1_ct_mr_and_radiotherapy_planning(modality: str | None, modality_class: str | None, kind: str | None) -> None:
    cohort = chosen(JMID, {"modality": modality, "modality_class": modality_class})
    assert cohort.exams["kind"].to_list() == ([kind] if kind else [])
    assert cohort.excluded["number"].to_list() == ([] if kind else ["J1"])


@pytest.mark.parametrize(
    ("row", "is_in"),
    [
        ({"order_name": "骨シンチグラフィー（全身）"}, True),
        ({"order_name": "ＲＩ骨シンチ"}, True),
        ({"order_name": None, "tracer": "99mTc-HMDP"}, True),
        ({"order_name": None, "protocol_name": "Bone Scan WB"}, True),
        ({"order_name": "脳血流シンチ", "tracer": "Tc-99m ECD"}, False),
        ({"order_name": None}, False),
        ({"order_name": "骨シンチ", "modality_class": "CT"}, False),
    ],
)
def test_B1_bone_scintigraphy_by_order_protocol_or_tracer(row: dict[str, Any], is_in: bool) -> None:
    assert kept(GUNMA, row) == [is_in]


def test_B1_women_of_any_age() -> None:
    rows = [{"sex": sex} for sex in ("F", "M", "O", None)]
    assert kept(GUNMA, *rows) == [True, False, False, False]
    assert number_of(GUNMA, sex="M") == "B1"
    assert kept(GUNMA, *({"age_years": age} for age in (0, 17, 103, None))) == [True] * 4


def test_ages_include_both_ends(tmp_path: Path) -> None:
    ours = variant(tmp_path, KEIO, cohort={"age": {"min": 20, "max": 64}})
    assert kept(ours, *({"age_years": age} for age in (19, 20, 64, 65, None))) == [False, True, True, False, False]
    ours = variant(tmp_path, KEIO, cohort={"age": {"min": 20}})
    assert kept(ours, *({"age_years": age} for age in (19, 20, 110))) == [False, True, True]


@pytest.mark.parametrize(
    ("order_name", "kind"),
    [
        ("ダーモスコピー", "dermoscopy"),
        ("DMS", "dermoscopy"),
        ("Visia撮影", "visia"),
        ("臨床写真", "clinical_photograph"),
        ("病理組織画像", "histology"),
        ("眼底写真", None),
    ],
)
def test_T1_kinds_of_pictures(order_name: str, kind: str | None) -> None:
    assert chosen(TOHOKU, {"order_name": order_name}).exams["kind"].to_list() == ([kind] if kind else [])


def test_S1_persons_with_dermoscopy_bring_their_photographs() -> None:
    photograph = {"order_name": "臨床写真"}
    cohort = chosen(SHINSHU, {"patient_id": "p"}, {"patient_id": "p", **photograph}, {"patient_id": "q", **photograph})
    assert cohort.exams["exam_id"].to_list() == ["e1", "e2"]
    assert cohort.excluded.select("exam_id", "number").rows() == [("e3", "S1")]


# --- prior study


def test_B1_BC8_members_of_the_prior_study_under_both_names() -> None:
    prior = pl.DataFrame(
        {
            "study": ["HS-2022-005", "HS2022-005", "HS-2021-001", "HS-2022-005"],
            "site": ["gunma", "gunma", "gunma", "elsewhere"],
            "patient_id": ["1", "2", "3", "4"],
        }
    )
    assert kept(GUNMA, {}, {}, {}, {}, prior=prior) == [True, True, False, False]
    with pytest.raises(InputError, match=r"HS-2022-005 \(B1\)"):
        chosen(GUNMA, {}, prior=None)


# --- tracers


@pytest.mark.parametrize(
    ("row", "report", "tracer", "source"),
    [
        ({"tracer": "Tc-99m HMDP"}, None, "HMDP", "header"),
        ({"tracer": "Tc-99m MDP"}, None, "MDP", "header"),
        ({"tracer": "９９ｍＴｃ−ｈｍｄｐ"}, None, "HMDP", "header"),
        ({"tracer": "クリアボーンキット"}, None, "HMDP", "header"),
        ({"tracer": "F-18 FDG", "protocol_name": "MDP whole body"}, None, "MDP", "order"),
        ({}, "99mTc-HMDP 740MBq静注後、", "HMDP", "report"),
        ({"tracer": "Tc-99m MDP"}, "HMDP使用", "MDP", "header"),
        ({}, "前回はMDP、今回はHMDPを使用。", None, None),
        ({}, "骨シンチを施行。", None, None),
        ({}, None, None, None),
    ],
)
def test_B2_the_tracer_is_derived(
    row: dict[str, Any], report: str | None, tracer: str | None, source: str | None
) -> None:
    reports = [] if report is None else [{"report_id": "r", "exam_id": "e1", "version": 1, "text": report}]
    cohort = chosen(GUNMA, row, reports=reports)
    assert cohort.exams.select("tracer_id", "tracer_source").row(0) == (tracer, source)


def test_B2_the_last_version_of_a_report_counts() -> None:
    reports = [
        {"report_id": "r2", "exam_id": "e1", "version": 2, "text": "HMDP"},
        {"report_id": "r1", "exam_id": "e1", "version": 1, "text": "MDP"},
    ]
    assert derive_tracers(exams(GUNMA, {}), filled(REPORTS, reports), PROTOCOLS[GUNMA])["tracer"].to_list() == ["HMDP"]


def test_B2_tracers_take_turns_by_week() -> None:
    monday = datetime(2019, 6, 3, 9)
    rows = [
        *((f"a{day}", "MDP", monday + timedelta(days=day)) for day in range(4)),
        ("odd", "HMDP", monday + timedelta(days=6)),
        ("next", "HMDP", monday + timedelta(days=7)),
        ("tie1", "HMDP", monday + timedelta(days=14)),
        ("tie2", "MDP", monday + timedelta(days=15)),
        ("none", None, monday),
    ]
    table = pl.DataFrame(rows, schema=["exam_id", "tracer_id", "started_at"], orient="row")
    assert tracer_weeks(table).rows() == [
        ("odd", date(2019, 6, 3), "HMDP", "MDP"),
        ("tie1", date(2019, 6, 17), "HMDP", None),
        ("tie2", date(2019, 6, 17), "MDP", None),
    ]


def test_B2_odd_tracers_of_the_cohort_are_listed(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"tracer": "MDP"},
        {"tracer": "MDP"},
        {"tracer": "HMDP"},
        {"tracer": "HMDP", "patient_id": "x"},
    ]
    rows[3]["started_at"] = datetime(2019, 7, 9)
    assert chosen(GUNMA, *rows).odd_tracers.select("exam_id", "usual").rows() == [("e3", "MDP")]
    by_chance = variant(tmp_path, GUNMA, cohort={"tracer_weeks": False})
    assert chosen(by_chance, *rows).odd_tracers.height == chosen(KEIO, {}).odd_tracers.height == 0


# --- numbers


def bone_scans(hmdp: int, mdp: int) -> pl.DataFrame:
    rows = [{"tracer": "HMDP"}] * hmdp + [{"tracer": "MDP"}] * mdp
    return chosen(GUNMA, *rows).exams


@pytest.mark.parametrize(
    ("hmdp", "mdp", "difference"), [(50, 50, 0), (50, 49, -1), (49, 50, -1), (51, 50, 1), (0, 0, -100)]
)
def test_B1_exactly_a_hundred_or_a_shortfall(hmdp: int, mdp: int, difference: int) -> None:
    report = count_report(bone_scans(hmdp, mdp), PROTOCOLS[GUNMA])
    total = report.row(0, named=True)
    assert total == {
        "what": "all",
        "unit": "persons",
        "expected": 100,
        "found": hmdp + mdp,
        "difference": difference,
        "met": difference == 0,
        "number": "B1",
    }


def test_B2_fifty_and_fifty() -> None:
    report = count_report(bone_scans(50, 49), PROTOCOLS[GUNMA]).filter(pl.col("number") == "B2")
    assert report.select("what", "expected", "found", "met").rows() == [
        ("tracer: HMDP", 50, 50, True),
        ("tracer: MDP", 50, 49, False),
        ("tracer: not known", 0, 0, True),
    ]


def test_B1_persons_are_counted_once_and_those_with_both_tracers_in_neither() -> None:
    cohort = chosen(GUNMA, {"tracer": "HMDP", "patient_id": "p"}, {"tracer": "MDP", "patient_id": "p"})
    report = count_report(cohort.exams, PROTOCOLS[GUNMA])
    assert dict(report.select("what", "found").iter_rows()) == {
        "all": 1, "tracer: HMDP": 0, "tracer: MDP": 0, "tracer: not known": 1,
        "finding: present": 0, "finding: absent": 0, "finding: not known": 1,
    }  # fmt: skip


def test_B3_BC10_the_table_of_tracer_and_finding(tmp_path: Path) -> None:
    scans = bone_scans(3, 2)
    findings = scans.select("site", "patient_id", finding=pl.Series(["present", "present", "absent", "present", None]))
    assert cells(scans, findings).rows() == [
        ("HMDP", "absent", 1),
        ("HMDP", "present", 2),
        ("MDP", "not known", 1),
        ("MDP", "present", 1),
    ]
    report = count_report(scans, PROTOCOLS[GUNMA], findings=findings)
    margins = report.filter(pl.col("number") == "B3").select("what", "expected", "found", "met").rows()
    assert margins == [
        ("finding: present", 50, 3, False),
        ("finding: absent", 50, 1, False),
        ("finding: not known", 0, 1, False),
    ]
    planned = variant(tmp_path, GUNMA, cohort={"cells": {"HMDP/present": 2, "MDP/present": 3}})
    report = count_report(scans, planned, findings=findings).filter(pl.col("what").str.starts_with("cell"))
    assert report.select("what", "difference").rows() == [("cell: HMDP/present", 0), ("cell: MDP/present", -2)]


def test_S1_SC2_the_number_of_persons_is_compared() -> None:
    cohort = chosen(SHINSHU, {"patient_id": "p"}, {"patient_id": "p"}, {"patient_id": "q"})
    row = count_report(cohort.exams, PROTOCOLS[SHINSHU]).row(0, named=True)
    assert (row["unit"], row["expected"], row["found"], row["difference"], row["met"], row["number"]) == (
        "persons", 1537, 2, -1535, None, "S1",
    )  # fmt: skip


def test_SC2_images_are_counted_where_the_plan_says_so(tmp_path: Path) -> None:
    ours = variant(tmp_path, SHINSHU, cohort={"count_unit": "images", "expected": 10})
    scans = chosen(ours, {}).exams
    assert count_report(scans, ours, images=12)["difference"].to_list() == [2]
    with pytest.raises(InputError, match="counts images"):
        count_report(scans, ours)
    assert count_report(chosen(KEIO, {}, {}).exams, PROTOCOLS[KEIO]).row(0)[:4] == ("all", "exams", None, 2)


def test_S2_persons_with_all_nine_items() -> None:
    names = PROTOCOLS[SHINSHU].cohort.complete_items
    persons = pl.DataFrame(
        [{"site": "gunma", "patient_id": str(at)} | dict.fromkeys(names, "x") for at in range(1, 13)]
    )
    # each of the first nine persons lacks one item; an empty text is none
    persons = persons.with_columns(
        pl.when(pl.col("patient_id") == str(at))
        .then(pl.lit(None if at % 2 else " "))
        .otherwise(pl.col(name))
        .alias(name)
        for at, name in enumerate(names, start=1)
    )
    done = keep_complete(persons, PROTOCOLS[SHINSHU])
    assert done.kept["patient_id"].to_list() == ["10", "11", "12"]
    assert done.attrition["rows_in"].to_list() == list(range(12, 3, -1))
    assert set(done.attrition["number"]) == {"S2"} and unbalanced(done.attrition) == []
    assert done.excluded.height + done.kept.height == 12
    assert done.counts.rows() == [("complete", "persons", 1000, 3, -997, None, "S2")]
    with pytest.raises(InputError, match="nationality"):
        keep_complete(persons.drop("nationality"), PROTOCOLS[SHINSHU])


# --- reports, records, items


def test_X3_reports_and_records_follow_the_exams() -> None:
    cohort = chosen(
        KEIO,
        {"patient_id": "p"},
        {"patient_id": "q", "modality_class": "OT"},
        reports=[{"report_id": "r1", "exam_id": "e1"}, {"report_id": "r2", "exam_id": "e2"}, {"report_id": "r3"}],
        records=[
            {"record_id": "x1", "kind": "lab", "site": "keio", "patient_id": "p"},
            {"record_id": "x2", "kind": "lab", "site": "keio", "patient_id": "q"},
            {"record_id": "x3", "kind": "lab", "site": "other", "patient_id": "p"},
        ],
    )
    assert cohort.reports["report_id"].to_list() == ["r1"] and cohort.reports.schema == REPORTS
    assert cohort.records["record_id"].to_list() == ["x1"] and cohort.records.schema == RECORDS
    sums = cohort.attrition.group_by("table", maintain_order=True).agg(pl.col("excluded").sum())
    assert sums.rows() == [("exams", 1), ("reports", 2), ("records", 2)]


@pytest.mark.parametrize(
    ("study", "number", "kinds"),
    [
        (KEIO, "K9", ["pathology", "lab", "physiology", "surgery", "diagnosis", "medication"]),
        (JMID, "J4", []),
        (GUNMA, "B13", []),
        (SHINSHU, "S3", ["pathology", "diagnosis"]),
        (TOHOKU, "T7", ["pathology", "surgery", "diagnosis", "medication"]),
    ],
)
def test_K4_K9_S3_T7_only_the_kinds_of_records_that_are_items(study: str, number: str, kinds: list[str]) -> None:
    every = ["pathology", "lab", "physiology", "surgery", "diagnosis", "medication"]
    site = USUAL[study]["site"]
    records = [{"record_id": kind, "kind": kind, "site": site, "patient_id": "1"} for kind in every]
    cohort = chosen(study, {}, records=records)
    assert cohort.records["kind"].to_list() == kinds
    assert cohort.attrition.filter(pl.col("step") == "items")["number"].item() == number
    table, emptied = keep_items("records", filled(RECORDS, records), PROTOCOLS[study])
    assert table["kind"].to_list() == kinds and ("text" in emptied) == (not kinds)


def test_K9_T7_columns_outside_the_items_are_emptied() -> None:
    table = exams(KEIO, {"weight_kg": 50.0, "height_cm": 150.0, "ctdi_vol": 3.0, "age_years": 40, "sex": "F"})
    done, emptied = keep_items("exams", table, PROTOCOLS[KEIO])
    assert emptied == ["ctdi_vol", "dlp", "height_cm", "weight_kg"]
    assert done.schema == table.schema and done.drop(emptied).equals(table.drop(emptied))
    assert done.select(emptied).null_count().row(0) == (1, 1, 1, 1)
    assert keep_items("exams", table, PROTOCOLS[JMID])[1] == ["tracer"]
    other = pl.DataFrame({"anything": [1]})
    assert keep_items("labels", other, PROTOCOLS[KEIO]) == (other, [])


@pytest.mark.parametrize("study", list(PROTOCOLS))
def test_an_empty_archive_gives_an_empty_cohort(study: str) -> None:
    cohort = chosen(study)
    assert cohort.exams.height == cohort.reports.height == cohort.records.height == 0
    assert count_report(cohort.exams, PROTOCOLS[study])["found"].sum() == 0
