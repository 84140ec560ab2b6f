"""The exam table of the image database, and the dose of each protocol."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from reportlabel.annotate.normalise import Normaliser
from reportlabel.annotate.sections import Splitter
from reportlabel.errors import ConfigError, InputError, RefusedError
from reportlabel.export.deliverable_rules import DoseRules, load_deliverables
from reportlabel.export.dose import (
    MISSING,
    dose_summary,
    exam_table,
    missing_values,
    request_reasons,
    write_dose_summary,
    write_exam_table,
)
from reportlabel.export.manifest import read_manifest, verify_manifest
from reportlabel.protocol import Permission, Protocol, load_protocol
from reportlabel.rulebook.load import load_rules
from reportlabel.schema import EXAMS, REPORTS

KEY = b"0123456789abcdef"


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    return load_protocol("jmid")


@pytest.fixture(scope="module")
def rules() -> DoseRules:
    return load_deliverables().dose


def exams(n: int = 120, **changed: Any) -> pl.DataFrame:
    chance = np.random.default_rng(7)
    rows = [
        {
            "exam_id": f"X-{number:04d}",
            "patient_id": f"P-{number % 60:04d}",
            "site": ("juntendo", "north")[number % 60 // 40],
            "started_at": datetime(2024, 1, 1, 9, 30) + timedelta(days=number),
            "modality": "CT",
            "modality_class": "CT",
            "body_part": "CHEST",
            "order_name": "胸部CT",
            "protocol_name": "胸部単純" if number % 3 else "胸部造影",
            "contrast_agent": None if number % 3 else "イオヘキソール",
            "contrast_ml": None if number % 3 else 100.0,
            "ctdi_vol": round(float(chance.gamma(9)), 2),
            "dlp": round(float(chance.gamma(9)) * 40, 1),
            "study_instance_uid": f"2.25.{number}",
            "accession_number": f"A{number}",
            "age_years": 40 + number % 60 % 40,
            "sex": "F" if number % 2 else "M",
            "height_cm": 150.0 + number % 20,
            "weight_kg": 45.0 + number % 30,
            **changed,
        }
        for number in range(n)
    ]
    return pl.DataFrame(rows, schema=EXAMS)


def permission(protocol: Protocol, deliverable: str, recipient: str = "participating_institutions") -> Permission:
    return protocol.gate(
        "export", today=date(2027, 1, 1), recipient=recipient, purpose="dose_analysis", deliverable=deliverable
    )


# --- J4, J2, J14 ------------------------------------------------------------------------------------------------------


def test_J4_the_table_has_dose_and_protocol_fields(protocol: Protocol, rules: DoseRules) -> None:
    made = exam_table(exams(), protocol, profile="pseudonymised", rules=rules)
    wanted = "started_at protocol_name contrast_agent contrast_ml ctdi_vol dlp weight_kg height_cm age_years sex site"
    assert set(wanted.split()) <= set(made.table.columns)
    assert made.table.height == 120
    # what links to the hospital's systems is no item of the table
    assert not {"study_instance_uid", "accession_number"} & set(made.table.columns)


def test_J4_missing_values_are_counted_and_never_made_up(protocol: Protocol, rules: DoseRules) -> None:
    some = exams(30).with_columns(
        ctdi_vol=pl.Series([0.0, float("nan"), None, -1.0, float("inf")] + [5.0] * 25),
        weight_kg=pl.Series([0.0] + [60.0] * 29),
        protocol_name=pl.Series([" "] + ["胸部"] * 29),
    )
    made = exam_table(some, protocol, profile="pseudonymised", rules=rules)
    assert made.missing.schema == MISSING
    counts = dict(made.missing.select("column", "missing").iter_rows())
    assert (counts["ctdi_vol"], counts["weight_kg"], counts["protocol_name"], counts["dlp"]) == (5, 1, 1, 0)
    assert counts["contrast_agent"] == 20
    assert made.table["ctdi_vol"].null_count() == 5
    assert set(made.missing["exams"]) == {30}
    assert missing_values(some.clear(), ["dlp"]).is_empty()


def test_J2_an_exam_id_of_two_hospitals_is_refused(protocol: Protocol, rules: DoseRules) -> None:
    with pytest.raises(InputError, match="J2"):
        exam_table(pl.concat([exams(3), exams(3)]), protocol, profile="pseudonymised", rules=rules)
    with pytest.raises(InputError, match="lacks the columns dlp"):
        exam_table(exams(3).drop("dlp"), protocol, profile="pseudonymised", rules=rules)


def test_J14_the_reason_of_the_request_is_there(protocol: Protocol, rules: DoseRules) -> None:
    book = load_rules()
    splitter = Splitter.from_rules(book.sections, Normaliser.from_rules(book.normalise))
    texts = ["【依頼目的】\n右肺結節の精査\n【所見】\n右肺に結節を認めます。", "【所見】\n異常なし。", None]
    reports = pl.DataFrame(
        [
            {"report_id": f"R{at}", "exam_id": f"X-{at:04d}", "version": 1, "text": text}
            for at, text in enumerate(texts)
        ],
        schema=REPORTS,
    )
    reasons = request_reasons(reports, splitter, rules)
    assert reasons.rows() == [("X-0000", "右肺結節の精査"), ("X-0001", None), ("X-0002", None)]
    made = exam_table(exams(3), protocol, profile="pseudonymised", rules=rules, reasons=reasons)
    assert made.table["request_reason"].to_list() == ["右肺結節の精査", None, None]
    assert {"dlp", "ctdi_vol"} <= set(made.table.columns)


# --- J8 ---------------------------------------------------------------------------------------------------------------


def test_J8_the_anonymised_table_has_no_linking_code_and_no_rare_value(protocol: Protocol, rules: DoseRules) -> None:
    some = exams().with_columns(
        protocol_name=pl.Series(["稀なプロトコル"] * 3 + ["胸部単純"] * 117),
        age_years=pl.Series([104] * 20 + [50] * 100, dtype=pl.Int32),
        weight_kg=pl.Series([190.0] + [61.4] * 119),
    )
    made = exam_table(some, protocol, profile="anonymised", rules=rules, key=KEY)
    table = made.table
    assert not {"exam_id", "patient_id", "started_at", "study_instance_uid", "request_reason"} & set(table.columns)
    everything = table.write_csv()
    for code in ("X-0", "P-0", "2.25.", "稀な", "2024-"):
        assert code not in everything
    assert dict(made.suppressed.rows())["protocol_name"] == 3
    assert dict(made.suppressed.rows())["weight_kg"] == 1
    assert set(table["age_years"]) == {90, 50} and set(table["weight_kg"].drop_nulls()) == {61.0}
    assert table["exam_no"].to_list() == list(range(1, 121)) and table["person_no"].n_unique() == 60
    first = table.group_by("person_no").agg(pl.col("days_since_first").sort())["days_since_first"].to_list()
    assert all(days == [0, 60] for days in first)


def test_J8_the_order_is_that_of_the_key(protocol: Protocol, rules: DoseRules) -> None:
    tables = [
        exam_table(exams(), protocol, profile="anonymised", rules=rules, key=key).table for key in (KEY, KEY, KEY[::-1])
    ]
    assert tables[0].equals(tables[1]) and not tables[0].equals(tables[2])
    assert tables[0]["dlp"].to_list() != exams()["dlp"].to_list()
    with pytest.raises(ConfigError, match="needs a key"):
        exam_table(exams(), protocol, profile="anonymised", rules=rules)


# --- J13, J14: dose of protocols --------------------------------------------------------------------------------------


def test_J14_percentiles_are_those_of_numpy(protocol: Protocol, rules: DoseRules) -> None:
    some = exams(120)
    summary = dose_summary(some, protocol, rules)
    row = summary.filter(
        pl.col("protocol_name") == "胸部単純", pl.col("measure") == "dlp", pl.col("weight") == "all"
    ).row(0, named=True)
    dose = some.filter(pl.col("protocol_name") == "胸部単純")["dlp"].to_numpy()
    assert [row["p25"], row["p50"], row["p75"]] == pytest.approx(np.percentile(dose, [25, 50, 75]).tolist())
    assert (row["n_exams"], row["n_persons"], row["age_group"], row["suppressed"]) == (80, 40, "adult", False)
    standard = summary.filter(
        pl.col("protocol_name") == "胸部単純", pl.col("measure") == "dlp", pl.col("weight") == "standard"
    ).row(0, named=True)
    dose = some.filter(pl.col("protocol_name") == "胸部単純", pl.col("weight_kg").is_between(50, 70))["dlp"].to_numpy()
    assert standard["n_exams"] == len(dose)
    if not standard["suppressed"]:
        assert standard["p75"] == pytest.approx(np.percentile(dose, 75))


def test_J13_small_cells_say_nothing(protocol: Protocol, rules: DoseRules) -> None:
    few = exams(120).with_columns(
        protocol_name=pl.Series(["九人"] * 9 + ["十人"] * 10 + ["多人数"] * 41 + ["九人"] * 9 + ["他"] * 51)
    )
    summary = dose_summary(few, protocol, rules)
    by_name = {
        row["protocol_name"]: row
        for row in summary.filter(pl.col("measure") == "dlp", pl.col("weight") == "all").iter_rows(named=True)
    }
    assert by_name["九人"]["suppressed"] and not by_name["十人"]["suppressed"]  # 18 exams of 9 persons; k is 10
    assert [by_name["九人"][name] for name in ("n_exams", "n_persons", "p25", "p50", "p75")] == [None] * 5
    assert by_name["十人"]["n_persons"] == 10
    assert summary.filter(~pl.col("suppressed"))["n_persons"].min() >= protocol.deid.k  # type: ignore[operator]


def test_J13_a_small_rest_is_not_told_by_subtraction(protocol: Protocol, rules: DoseRules) -> None:
    some = exams(60).with_columns(weight_kg=pl.Series([90.0] * 4 + [60.0] * 56), protocol_name=pl.lit("胸部"))
    rows = dose_summary(some, protocol, rules).filter(pl.col("measure") == "dlp").sort("weight")
    assert rows.select("weight", "suppressed").rows() == [("all", False), ("standard", True)]


def test_J14_children_are_by_age(protocol: Protocol, rules: DoseRules) -> None:
    ages = [0, 1, 4, 5, 9, 10, 14, 15]
    some = pl.concat(
        exams(12).with_columns(
            patient_id=pl.format("{}-{}", "patient_id", pl.lit(age)), age_years=pl.lit(age, dtype=pl.Int32)
        )
        for age in ages
    ).with_columns(protocol_name=pl.lit("頭部"))
    rows = dose_summary(some, protocol, rules).filter(pl.col("measure") == "dlp", pl.col("weight") == "all")
    assert dict(rows.select("age_group", "n_exams").iter_rows()) == {
        "below_1": 12, "1_to_4": 24, "5_to_9": 24, "10_to_14": 24, "adult": 12,
    }  # fmt: skip
    with pytest.raises(ConfigError, match="cannot be made by patient_id"):
        dose_summary(some, protocol, rules, by=["patient_id"])
    assert "site" in dose_summary(some, protocol, rules, by=["site", "protocol_name"]).columns


# --- X2 ---------------------------------------------------------------------------------------------------------------


def test_X2_J9_what_is_written_says_where_it_comes_from(protocol: Protocol, rules: DoseRules, tmp_path: Path) -> None:
    made = exam_table(exams(), protocol, profile="anonymised", rules=rules, key=KEY)
    write_exam_table(tmp_path / "table", made, protocol=protocol, permission=permission(protocol, "exam_table"))
    write_dose_summary(
        tmp_path / "dose",
        dose_summary(exams(), protocol, rules),
        protocol=protocol,
        permission=permission(protocol, "dose_summary"),
    )
    for name in ("table", "dose"):
        said = read_manifest(tmp_path / name)
        assert said is not None and said["protocol"] == "jmid" and said["permission"]["profile"] == "anonymised"
        assert {one["number"] for one in said["decisions"]} >= {"JC1", "JC4"}
        assert verify_manifest(tmp_path / name) == []
    assert pl.read_parquet(tmp_path / "table/exams.parquet").equals(made.table)
    assert (tmp_path / "dose/dose_summary.csv").read_bytes().startswith(b"\xef\xbb\xbf")


def test_J8_J9_a_table_goes_out_as_it_was_permitted(protocol: Protocol, rules: DoseRules, tmp_path: Path) -> None:
    inside = exam_table(exams(), protocol, profile="pseudonymised", rules=rules)
    allowed = permission(protocol, "exam_table")
    with pytest.raises(ConfigError, match="the table is pseudonymised"):
        write_exam_table(tmp_path / "a", inside, protocol=protocol, permission=allowed)
    with pytest.raises(RefusedError, match="J9"):
        write_dose_summary(
            tmp_path / "b", dose_summary(exams(), protocol, rules), protocol=protocol, permission=allowed
        )
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()
