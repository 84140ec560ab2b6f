"""Readings that taught a model do not judge it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from reportlabel.aggregate.cases import fold_of
from reportlabel.run import open_workspace
from reportlabel.schema import EXAM_LABELS, EXAMS, READINGS, REPORTS
from reportlabel.train.archive import split_of, workspace_tables
from reportlabel.train.run import Base, _readings_share
from reportlabel.vote.bert import ModelCard, classifier_version, default_model, read_card
from reportlabel.vote.taught import exams_that_teach, judging, share_of_version, teaches_models, version_with_share

PATIENTS = [f"p{number}" for number in range(40)]
TEACH = [one for one in PATIENTS if teaches_models(one, 0.5)]


def exam_of(patient: str) -> str:
    return patient.replace("p", "e")


# --- which patients


def test_a_share_of_the_patients_teaches_and_a_greater_share_has_them_too() -> None:
    ids = [str(number) for number in range(4000)]
    half = {one for one in ids if teaches_models(one, 0.5)}
    assert 1850 < len(half) < 2150
    assert half < {one for one in ids if teaches_models(one, 0.7)}
    assert all(teaches_models(one, 1.0) for one in ids) and not any(teaches_models(one, 0.0) for one in ids)


def test_the_halves_have_nothing_to_do_with_folds_and_splits() -> None:
    ids = [str(number) for number in range(4000)]
    teach = np.array([teaches_models(one, 0.5) for one in ids])
    for other in ([fold_of(one, 2) for one in ids], [split_of(one, 2) == "train" for one in ids]):
        assert abs(np.corrcoef(teach, np.array(other, dtype=float))[0, 1]) < 0.06


def test_an_exam_without_a_patient_is_one_of_its_own() -> None:
    exams = pl.DataFrame({"exam_id": PATIENTS, "patient_id": [None] * 40}, schema_overrides={"patient_id": pl.String})
    assert exams_that_teach(exams, 0.5)["exam_id"].to_list() == TEACH


# --- what a model says of itself


@pytest.mark.parametrize("share", [0.5, 1.0, 1 / 3, 1e-7])
def test_the_version_names_the_share(share: float) -> None:
    assert share_of_version(version_with_share("ours@0123456789ab", share)) == share


@pytest.mark.parametrize("version", [None, "rules", "ours@0123456789ab", version_with_share("ours@01", None)])
def test_a_version_without_a_share_names_none(version: str | None) -> None:
    assert share_of_version(version) is None


def test_the_model_of_the_package_loses_no_reading() -> None:
    assert read_card(default_model()).readings_share is None
    assert share_of_version(classifier_version(default_model())) is None


def test_the_version_of_a_model_folder_names_its_share(tmp_path: Path) -> None:
    text = (default_model() / "model.yaml").read_text(encoding="utf-8")
    (tmp_path / "model.yaml").write_text(f"{text}readings_share: 0.5\n", encoding="utf-8")
    assert share_of_version(classifier_version(tmp_path)) == 0.5


@pytest.mark.parametrize(
    ("given", "of_base", "says"),
    [(None, None, None), (0.5, None, 0.5), (None, 0.3, 0.3), (0.5, 0.7, 0.7), (0.5, 0.3, 0.5)],
)
def test_a_model_has_learned_what_its_base_has(given: float | None, of_base: float | None, says: float | None) -> None:
    card: ModelCard = read_card(default_model()).model_copy(update={"readings_share": of_base})
    assert _readings_share(None, Base(default_model(), card), given) == says


def test_readings_of_nobody_knows_which_patients_are_those_of_all() -> None:
    assert _readings_share(pl.DataFrame({"source": ["archive", "reading"]}), None, None) == 1.0
    assert _readings_share(pl.DataFrame({"source": ["archive"]}), None, None) is None


# --- what is learned from, and what judges


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty patients with an exam each, the last twenty with a reading and with a second exam that nobody read."""
    exams = [(exam_of(one), one) for one in PATIENTS] + [(f"{exam_of(one)}b", one) for one in PATIENTS[20:]]
    tables = open_workspace(tmp_path, create=True, parts=1)
    known = pl.DataFrame(exams, schema=["exam_id", "patient_id"], orient="row")
    blank = [pl.lit(None, dtype=kind).alias(name) for name, kind in EXAMS.items() if name not in known.columns]
    tables.replace_part("exams", 0, known.with_columns(blank).select(EXAMS.names()))
    report = known.select("exam_id", report_id="exam_id", text=pl.lit("胸水は認めません。"), status=pl.lit("final"))
    blank = [pl.lit(None, dtype=kind).alias(name) for name, kind in REPORTS.items() if name not in report.columns]
    tables.replace_part("reports", 0, report.with_columns(blank).select(REPORTS.names()).cast(REPORTS))
    tables.replace_part("labels", 0, pl.DataFrame(schema=EXAM_LABELS))
    rows = [
        (exam_of(one), "lung_ct", "pleural_effusion", "a", "absent", [], "confirmed", datetime(2024, 1, 1), one, "")
        for one in PATIENTS[20:]
    ]
    tables.append("readings", pl.DataFrame(rows, schema=READINGS, orient="row"))
    return tmp_path


def test_readings_of_the_others_are_kept_for_judging(folder: Path) -> None:
    found = workspace_tables(open_workspace(folder), readings_share=0.5)
    teaching = [one for one in TEACH if one in PATIENTS[20:]]
    assert 0 < len(teaching) < 20 and found.readings_share == 0.5
    assert set(found.readings["exam_id"]) == {exam_of(one) for one in teaching}
    # no report of a patient whose readings judge, whether the exam was read or not; all reports of those nobody read
    assert set(found.reports["patient_id"]) == {*PATIENTS[:20], *teaching}
    assert found.reports.height == 20 + 2 * len(teaching)


def test_without_readings_nothing_is_left_out(folder: Path, tmp_path: Path) -> None:
    tables = open_workspace(folder)
    tables.replace("readings", pl.DataFrame(schema=READINGS))
    found = workspace_tables(tables, readings_share=0.5)
    assert found.readings_share is None and found.reports.height == 60


def test_what_teaches_and_what_judges_is_never_the_same(folder: Path) -> None:
    tables = open_workspace(folder)
    learned = workspace_tables(tables, readings_share=0.5).readings
    gold = tables.read("readings").with_columns(teaches=pl.lit(True))
    kept = judging(gold, tables.read("exams"), 0.5).filter(pl.col("teaches"))
    assert set(kept["exam_id"]).isdisjoint(learned["exam_id"])
    assert kept.height + learned.height == gold.height
    assert judging(gold, tables.read("exams"), None).equals(gold)


def test_what_must_not_teach_does_not_begin_to(folder: Path) -> None:
    tables = open_workspace(folder)
    gold = tables.read("readings").with_columns(teaches=pl.lit(False))
    assert not judging(gold, tables.read("exams"), 0.5)["teaches"].any()
