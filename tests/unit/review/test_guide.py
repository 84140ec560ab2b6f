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


def entry(label_set: str, label: str) -> str:
    """The text of the entry of a label."""
    place = f"{rulebook().label_sets[label_set].name.ja} `{label}`"
    return next(one for one in guide().split("\n#### ") if place in one)


def told(label_set: str, label: str, status: str) -> list[str]:
    """The examples of a status."""
    lines = [line.split(" | ") for line in entry(label_set, label).split("\n") if line.startswith("| ")]
    return [cells[1].removesuffix(" |") for cells in lines if cells[0] == f"| {status}"]


def test_examples_of_a_label_are_what_the_rules_say_in_its_label_set() -> None:
    written = settings().guide.examples
    assert len(written) > 20
    for label_set in {one.label_set for one in written}:
        here = [one for one in written if one.label_set == label_set]
        labels = reportlabel.label_reports([one.text for one in here], label_set=label_set)
        values = {(row[0], row[1]): row[2] for row in labels.select("report_id", "finding", "value").rows()}
        assert [values[str(number), one.finding] for number, one in enumerate(here)] == [one.status for one in here]


def test_examples_of_a_label_stand_before_those_of_its_findings() -> None:
    assert told("chexpert_14", "fracture", "あり") == ["左鎖骨骨折を認めます。", "右第5肋骨に骨折あり。"]
    assert told("pet_ct", "normal_study", "あり")[0] == "異常集積を認めません。"
    assert told("angiography_ivr", "technical_success", "記載なし")[0] == "右SFAの狭窄を認めます。"
    for one in settings().guide.examples:
        label = next(two for two in rulebook().label_sets[one.label_set].findings if two.id == one.finding)
        assert label.any_of, one.text


def test_an_example_of_another_organ_is_judged_for_the_label_set() -> None:
    """A vertebral dissection is none of the aorta, and one of the vessels of an angiography."""
    assert "椎骨動脈解離を認めます。" not in entry("angiography_ivr", "vessel_dissection")
    assert "体内金属" not in "".join(told("angiography_ivr", "catheter_placed", "疑い"))
    assert "左椎骨動脈に解離を認めます。" in told("angiography_ivr", "vessel_dissection", "あり")


def test_no_name_stands_twice() -> None:
    for line in guide().split("\n"):
        if line.startswith(f"- {settings().guide.any_of}："):
            names = line.partition("：")[2].split(settings().guide.separator)
            assert len(names) == len(set(names)), line


def test_a_word_at_a_site_that_helps_no_reader_is_left_out() -> None:
    text = guide()
    assert settings().guide.not_shown
    for one in settings().guide.not_shown:
        pairs = [part for file in rulebook().findings.values() for part in file.compose if part.finding == one.finding]
        assert {site for part in pairs for site in part.at} >= set(one.at), f"{one.finding}: no rule reads it there"
    for name in ("胸膜腫瘤・中皮腫", "無気肺", "陳旧性炎症性変化"):
        assert f"「{name}」が次の部位にあるとき" not in text


def test_no_finding_is_never_left_unmentioned() -> None:
    assert settings().guide.else_absent in entry("chexpert_14", "no_finding")
    assert told("chexpert_14", "no_finding", "記載なし") == []
    assert "肺野清。" in told("chexpert_14", "no_finding", "なし")


def test_remarks_and_headings_stand_in_the_guide() -> None:
    for label_set, labels in settings().guide.remarks.items():
        for label, remark in labels.items():
            assert f"- {remark}" in entry(label_set, label)
    for section in settings().guide.general:
        assert f"## {section.heading}\n" in guide()
    assert not any(word in guide() for word in ("予測", "読影レポート"))
