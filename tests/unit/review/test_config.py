"""The screen of every label set: complete, Japanese, one key for each answer."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from reportlabel.errors import ConfigError
from reportlabel.review.config import (
    COMMENT,
    OUTCOME,
    REPORT,
    SPAN,
    SPAN_FINDING,
    Screen,
    controls,
    hotkeys,
    labelling_config,
    load_screen,
)
from reportlabel.rulebook.load import Rulebook, rules_folder
from reportlabel.rulebook.models import LabelSet, Name

LABEL_SETS = sorted(path.stem for path in (rules_folder() / "label_sets").glob("*.yaml"))
BUILT_IN = {"ctrl+enter", "u", "alt+h", "alt+l", "alt+m", "alt+r", "backspace", "shift+backspace"}
JAPANESE = re.compile(r"[ぁ-んァ-ヶ一-龠]")


@pytest.fixture(scope="module", params=LABEL_SETS)
def one_set(request: pytest.FixtureRequest, rules: Rulebook) -> LabelSet:
    return rules.label_sets[request.param]


def tree(label_set: LabelSet, rules: Rulebook, screen: Screen) -> ElementTree.Element:
    return ElementTree.fromstring(labelling_config(label_set, rules, screen))


def test_every_label_is_asked_once_and_must_be_answered(one_set: LabelSet, rules: Rulebook, screen: Screen) -> None:
    root = tree(one_set, rules, screen)
    named = Counter(one.get("name") for one in root.iter() if one.tag in ("Choices", "TextArea"))
    labels = [one.id for one in one_set.findings] + [one.id for one in one_set.values]
    assert named == Counter([*labels, OUTCOME, COMMENT])
    for one in root.iter("Choices"):
        assert one.get("required") == "true"
        assert JAPANESE.search(one.get("requiredMessage", ""))
        assert one.get("toName") == REPORT


def test_every_status_has_a_key_of_its_own(one_set: LabelSet, rules: Rulebook, screen: Screen) -> None:
    root = tree(one_set, rules, screen)
    keys = [one.get("hotkey") for one in root.iter() if one.get("hotkey")]
    assert len(keys) == len(set(keys))
    for choices in root.iter("Choices"):
        if choices.get("layout") != "select":
            assert all(choice.get("hotkey") for choice in choices)
    assert all(label.get("hotkey") for label in root.iter("Label"))
    first = [key for key in keys if key not in BUILT_IN]
    if len(one_set.findings) <= 25:
        assert len(first) == len(keys)


def test_what_is_stored_are_ids_and_what_is_shown_is_japanese(
    one_set: LabelSet, rules: Rulebook, screen: Screen
) -> None:
    root = tree(one_set, rules, screen)
    for one in (*root.iter("Choice"), *root.iter("Label")):
        assert re.fullmatch(r"[a-zA-Z0-9_]+", one.get("alias", ""))
    for status in root.iter("Choices"):
        if status.get("name") != OUTCOME and status.get("layout") != "select":
            assert [choice.get("value") for choice in status] == ["あり", "なし", "疑い", "記載なし"]
    for panel in root.iter("Panel"):
        assert JAPANESE.search(panel.get("value", ""))


def test_words_can_be_marked_for_every_label(one_set: LabelSet, rules: Rulebook, screen: Screen) -> None:
    root = tree(one_set, rules, screen)
    which = next(iter(root.iter("Taxonomy")))
    assert which.get("name") == SPAN_FINDING and which.get("required") == "true"
    assert [choice.get("alias") for choice in which] == [one.id for one in controls(one_set, rules, screen)]
    assert [one.get("alias") for one in root.iter("Label")] == ["present", "absent", "uncertain"]
    text = next(iter(root.iter("Text")))
    assert (text.get("granularity"), text.get("highlightColor")) == ("symbol", None)
    assert next(iter(root.iter("Labels"))).get("name") == SPAN


def test_findings_stand_in_groups_by_region(rules: Rulebook, screen: Screen) -> None:
    root = tree(rules.label_sets["lung_ct"], rules, screen)
    groups = {
        panel.get("value"): [one.get("name") for one in panel.iter() if one.tag in ("Choices", "TextArea")]
        for panel in root.iter("Panel")
    }
    assert list(groups)[:2] == ["関連記録", "胸部"]
    assert "gallstone" in groups["腹部"] and "pleural_effusion" in groups["胸部"]
    assert groups["値"] == ["primary_size_mm", "primary_side", "primary_lobe"]
    # of several panels in one Collapse only the first opens
    assert all(len(collapse) == 1 for collapse in root.iter("Collapse"))


def test_grades_of_a_closed_scale_are_chosen_and_others_typed_in(rules: Rulebook, screen: Screen) -> None:
    bone = {one.id: one for one in controls(rules.label_sets["bone_scintigraphy"], rules, screen)}
    assert (bone["eod"].kind, bone["eod"].answers) == ("choice", ("0", "1", "2", "3", "4", "not_mentioned"))
    breast = {one.id: one for one in controls(rules.label_sets["mammography"], rules, screen)}
    assert breast["category"].kind == "text"


def test_values_with_a_closed_list_are_chosen_and_others_typed(rules: Rulebook, screen: Screen) -> None:
    asked = {one.id: one for one in controls(rules.label_sets["lung_ct"], rules, screen)}
    assert asked["primary_side"].kind == "choice"
    assert asked["primary_side"].answers == ("right", "left", "bilateral", "not_mentioned")
    assert asked["primary_size_mm"].kind == "text" and asked["primary_size_mm"].answers == ()


def test_keys_are_initials_where_these_are_free(screen: Screen) -> None:
    keys = hotkeys(["pleural_effusion", "pneumonia", "pericarditis", "mass"], screen, label_set="x")
    assert keys == {"pleural_effusion": "p", "pneumonia": "n", "pericarditis": "e", "mass": "a"}


def test_more_findings_than_keys_are_told(screen: Screen) -> None:
    with pytest.raises(ConfigError, match="'x' has 60 findings, and the review screen 30 keys"):
        hotkeys([f"finding_{n}" for n in range(60)], screen, label_set="x")


def test_ids_of_the_screen_itself_are_refused(rules: Rulebook, screen: Screen) -> None:
    bone = rules.label_sets["bone_scintigraphy"]
    entry = bone.findings[0].model_copy(update={"id": "rl_span"})
    with pytest.raises(ConfigError, match="must not begin with rl_: rl_span"):
        controls(bone.model_copy(update={"findings": [entry]}), rules, screen)


def test_markup_in_a_name_stays_text(rules: Rulebook, screen: Screen) -> None:
    bone = rules.label_sets["bone_scintigraphy"]
    entry = bone.findings[0].model_copy(update={"name": Name(ja='<b>"骨"&転移', en="x")})
    root = tree(bone.model_copy(update={"findings": [entry]}), rules, screen)
    assert any('<b>"骨"&転移' in header.get("value", "") for header in root.iter("Header"))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("span_key: '1'", "span_key: '8'", "keys are given twice: 8"),
        ("modifier: shift,", "modifier: alt,", "modifiers has something twice"),
        ("{id: settled,", "{id: unfit,", "outcomes has something twice"),
        ("colour: '#dc2626'", "colour: red", "colour"),
        ("doubtful: {", "doubtfull: {", "unknown key 'doubtfull'"),
        ("＝{present}", "＝{there}", r"yaml:\d+: texts.keys: in braces only present, "),
    ],
)
def test_a_wrong_screen_is_told_with_its_file(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = tmp_path / "review_screen.yaml"
    for name in (path.name, "display.yaml"):
        shutil.copy(rules_folder() / name, tmp_path / name)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=says) as raised:
        load_screen(tmp_path)
    assert "review_screen.yaml" in str(raised.value)


def test_statuses_and_values_are_called_as_everywhere(tmp_path: Path, label_set: LabelSet, rules: Rulebook) -> None:
    for name in ("review_screen.yaml", "display.yaml"):
        text = (rules_folder() / name).read_text(encoding="utf-8")
        assert name == "display.yaml" or "疑い" not in text.replace("疑わしい", "")
        (tmp_path / name).write_text(
            text.replace("ja: 疑い", "ja: 保留").replace("ja: 舌区", "ja: 左舌区"), encoding="utf-8"
        )
    screen = load_screen(tmp_path)
    assert screen.status_name("uncertain") == "保留"
    assert "Alt＋＝保留" in screen.texts.keys and "3（保留）" in screen.texts.instruction
    choices = {one.get("alias"): one.get("value") for one in tree(label_set, rules, screen).iter("Choice")}
    assert (choices["uncertain"], choices["lingula"], choices["right"]) == ("保留", "左舌区", "右")
