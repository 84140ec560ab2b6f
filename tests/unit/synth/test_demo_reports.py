"""The reports of the synthetic hospital."""

import re

from reportlabel.rulebook.load import load_rules
from reportlabel.synth.demo_reports import DEMO_REPORTS, demo_reports, modality_names


def test_a_hospital_of_eleven_kinds_of_exam() -> None:
    reports = demo_reports()
    assert reports.schema == DEMO_REPORTS
    assert 110 <= reports.height <= 140
    assert set(reports["modality"]) == set(modality_names()) and len(modality_names()) == 11
    for column in ("report_id", "exam_id", "text"):
        assert reports[column].n_unique() == reports.height


def test_every_label_set_is_one_of_the_rules() -> None:
    assert set(demo_reports()["label_set"]) <= set(load_rules().label_sets)


def test_a_seed_gives_the_same_reports_and_another_seed_others() -> None:
    assert demo_reports(seed=3).equals(demo_reports(seed=3))
    assert not demo_reports(seed=3).equals(demo_reports(seed=4))


def test_nothing_of_the_templates_is_left() -> None:
    for text in demo_reports(seed=1)["text"]:
        assert not re.search(r"[{}~]", text)
        assert text.strip() == text and "\n\n" not in text


def test_layouts_differ() -> None:
    texts = "\n".join(demo_reports()["text"])
    for heading in ("【所見】", "＜所見＞", "■所見：", "Findings:", "\n所見："):
        assert heading in texts
    assert re.search(r"[０-９]", texts)


def test_no_wrapped_line_begins_with_a_full_stop() -> None:
    assert not any(re.search(r"^[。、]", text, re.MULTILINE) for text in demo_reports()["text"])
