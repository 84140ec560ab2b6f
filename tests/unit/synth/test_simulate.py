"""Patients: the same again, plausible, and with a course."""

from collections import Counter
from datetime import timedelta

import pytest

from reportlabel.synth.bank import load_bank
from reportlabel.synth.patient import PatientFile
from reportlabel.synth.simulate import FIRST_DAY, LAST_DAY, simulate, staff


@pytest.fixture(scope="module")
def patients() -> list[PatientFile]:
    bank = load_bank()
    return [simulate(bank, seed=2, number=number) for number in range(1, 401)]


def test_a_patient_is_the_same_made_alone() -> None:
    bank = load_bank()
    assert simulate(bank, seed=2, number=77) == simulate(bank, seed=2, number=77)
    assert simulate(bank, seed=3, number=77) != simulate(bank, seed=2, number=77)


def test_ages_days_and_order(patients: list[PatientFile]) -> None:
    for file in patients:
        for exam in file.exams:
            assert FIRST_DAY - timedelta(days=800) <= exam.started_at <= LAST_DAY + timedelta(days=3)
            assert 15 <= exam.age_years <= 112
            born = file.identity.birth_date
            assert abs((exam.started_at.date() - born).days / 365.25 - exam.age_years) < 1.01
        for report in file.reports:
            exam = next(one for one in file.exams if one.exam_id == report.exam_id)
            assert report.confirmed_at > exam.started_at
        for record in file.records:
            assert record.end_at is None or record.end_at >= record.start_at
            assert record.reported_at is None or record.reported_at >= record.start_at


def test_men_have_no_uterus_and_women_no_prostate(patients: list[PatientFile]) -> None:
    for file in patients:
        wrong = {"M": ("uterine", "ovarian", "dense_breast", "breast_cyst"), "F": ("prostate",)}[file.identity.sex]
        assert not [state.state for state in file.gold_states if state.state.startswith(wrong)]


def test_screening_is_mostly_normal(patients: list[PatientFile]) -> None:
    screened = {exam.exam_id for file in patients for exam in file.exams if exam.setting == "screening"}
    labels = [one for file in patients for one in file.gold_labels if one.label_set == "chexpert_14"]
    normal = Counter(one.value for one in labels if one.finding == "no_finding" and one.exam_id in screened)
    assert normal["present"] > normal["absent"] > 0


def test_records_go_wrong_now_and_then(patients: list[PatientFile]) -> None:
    defects = Counter(one.defect.split()[0] for file in patients for one in file.gold_records)
    assert {"late", "duplicated", "missing"} <= set(defects)
    versions = Counter(report.status for file in patients for report in file.reports)
    assert versions["amended"] and versions["preliminary"] and versions["final"] > 10 * versions["amended"]
    unread = [exam for file in patients for exam in file.exams if exam.report_id is None]
    assert unread
    refusals = [
        refusal for number in range(1, 900) for refusal in simulate(load_bank(), seed=4, number=number).refusals
    ]
    assert {one.scope for one in refusals} == {"study", "all_research"}
    assert {one.requester for one in refusals} > {"patient"}


def test_diagnoses_follow_suspicion(patients: list[PatientFile]) -> None:
    certainties = Counter(one.certainty for file in patients for one in file.records if one.kind == "diagnosis")
    assert certainties["suspected"] and certainties["confirmed"] > certainties["suspected"]


def test_a_proven_lesion_mostly_has_tissue(patients: list[PatientFile]) -> None:
    proven = [file for file in patients if any(state.known for state in file.gold_states)]
    with_tissue = [file for file in proven if any(record.kind == "pathology" for record in file.records)]
    # a few are proven by spinal fluid, by other images, or their tissue report was lost
    assert len(with_tissue) > 0.8 * len(proven) > 20


def test_canaries_hold_the_identity(patients: list[PatientFile]) -> None:
    for file in patients[:50]:
        values = {canary.value for canary in file.canaries}
        one = file.identity
        assert {one.name, one.kana, one.address, one.phone, one.patient_id} <= values
        assert {exam.accession_number for exam in file.exams} <= values
    assert {canary.kind for canary in staff(load_bank())} == {"hospital", "doctor", "address", "phone"}


def test_ids_are_unique(patients: list[PatientFile]) -> None:
    for ids in (
        [file.identity.patient_id for file in patients],
        [exam.accession_number for file in patients for exam in file.exams],
        [record.record_id for file in patients for record in file.records],
    ):
        assert len(set(ids)) == len(ids)
    assert any(file.identity.patient_id.startswith("0") for file in patients)
