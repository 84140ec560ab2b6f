"""The guide for readers: complete, in Japanese, true to the rules, and the file in docs/ is what the rules give."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

import reportlabel
from reportlabel.errors import ConfigError
from reportlabel.review.config import load_screen
from reportlabel.review.guide import FILE, main, review_guide, topics_of
from reportlabel.review.settings import ReviewSettings, load_settings
from reportlabel.rulebook.load import Rulebook, load_rules

ROOT = Path(__file__).parents[3]


@cache
def rulebook() -> Rulebook:
    return load_rules()


@cache
def settings() -> ReviewSettings:
    return load_settings()


@cache
def guide() -> str:
    return review_guide(rulebook(), settings().guide, load_screen(rulebook().folder))


def test_the_file_in_docs_is_what_the_rules_give() -> None:
    written = (ROOT / FILE).read_text(encoding="utf-8")
    assert written == guide(), f"run: python -m reportlabel.review.guide {FILE}"


def test_every_label_of_every_label_set_is_explained() -> None:
    text = guide()
    for label_set in rulebook().label_sets.values():
        for entry in label_set.findings:
            own, other = f"{label_set.name.ja} `{entry.id}`", f"{label_set.name.ja}「{entry.name.ja}」 `{entry.id}`"
            assert other in text or (own in text and f"#### {entry.name.ja}\n" in text)


def test_labels_that_mean_the_same_share_an_entry() -> None:
    topics = topics_of(rulebook().label_sets, rulebook(), load_screen(rulebook().folder))
    labels = sum(len(one.findings) for one in rulebook().label_sets.values())
    assert sum(len(topic.label_sets) for topic in topics) == labels
    assert len(topics) < labels
    assert guide().count("#### ") == len(topics)


def test_nearly_every_entry_has_examples_of_present_and_absent() -> None:
    entries = guide().split("\n#### ")[1:]
    without = [entry.split("\n")[0] for entry in entries if "| あり |" not in entry]
    assert len(without) <= len(entries) // 20, without


def test_general_examples_are_what_the_rules_say() -> None:
    told = [one for section in settings().guide.general for one in section.examples]
    assert len(told) > 10
    for label_set in {one.label_set for one in told}:
        here = [one for one in told if one.label_set == label_set]
        labels = reportlabel.label_reports([one.text for one in here], label_set=label_set)
        values = {(row[0], row[1]): row[2] for row in labels.select("report_id", "finding", "value").rows()}
        assert [values[str(number), one.finding] for number, one in enumerate(here)] == [one.status for one in here]


def test_tables_are_whole() -> None:
    """No text of the rules breaks a table or makes a link."""
    for line in guide().split("\n"):
        if line.startswith("|"):
            assert line.replace("\\|", "").count("|") in (3, 4)
        assert "](" not in line


def test_the_command_writes_a_guide_of_one_label_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "guide.md"
    assert main([str(out), "--label-set", "skin_tumour"]) == 0
    text = out.read_text(encoding="utf-8")
    assert text.startswith(f"# {settings().guide.title}\n")
    assert text.count("#### ") == len(rulebook().label_sets["skin_tumour"].findings)
    assert "胸水" not in text.split(settings().guide.findings)[1]
    assert main([str(tmp_path / "no" / "guide.md")]) == 2
    assert "create it first" in capsys.readouterr().err.replace("\n", " ")


def test_an_unknown_label_set_is_named() -> None:
    with pytest.raises(ConfigError, match="skin_tumour"):
        review_guide(rulebook(), settings().guide, load_screen(rulebook().folder), label_sets=["skin_tumor"])
