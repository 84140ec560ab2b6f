"""Varied sentences say what their labels say."""

from __future__ import annotations

import random

import pytest

from reportlabel.annotate.annotator import Annotator
from reportlabel.train.augment import Augmenter, Example, joined
from reportlabel.train.examples import finding_terms, voting_findings
from reportlabel.train.settings import load_train_settings

NODULE = Example("chest", "", "右肺に結節を認めます。", (("lung_nodule", "present", 1.0, "結節", 1.0),))
EFFUSION = Example("chest", "", "胸水は認めません。", (("pleural_effusion", "absent", 1.0, "胸水", 1.0),))


@pytest.fixture(scope="module")
def augmenter() -> Augmenter:
    annotator = Annotator()
    settings = load_train_settings()
    terms = finding_terms(annotator.rules, voting_findings(annotator.rules), settings.composed)
    return Augmenter.of(settings, terms, annotator.normaliser)


def test_words_between_place_and_generic_word_are_those_of_the_settings() -> None:
    rules = Annotator().rules
    voting = {"liver_cyst": frozenset({"abdomen"})}
    terms = finding_terms(rules, voting, ["の"])["liver_cyst"]
    assert sum("の嚢胞" in term for term in terms) > 0
    assert not any("の" in term for term in finding_terms(rules, voting, [""])["liver_cyst"])


def test_a_synonym_keeps_the_statement(augmenter: Augmenter) -> None:
    words = set()
    for seed in range(30):
        other = augmenter.synonym(NODULE, random.Random(seed))
        ((finding, status, _, surface, _),) = other.said
        assert (finding, status) == ("lung_nodule", "present")
        assert other.text == f"右肺に{surface}を認めます。"
        words.add(surface)
    assert len(words) > 3


def test_another_ending_changes_the_status_with_it(augmenter: Augmenter) -> None:
    seen = set()
    for seed in range(30):
        other = augmenter.ending(NODULE, random.Random(seed), same=False)
        status = other.said[0][1]
        tail = other.text.removeprefix("右肺に結節").removesuffix("。")
        assert tail in augmenter.groups[status]
        seen.add(status)
    assert seen == {"uncertain", "absent"}
    assert augmenter.ending(NODULE, random.Random(0), same=True).said[0][1] == "present"


def test_an_ending_with_another_meaning_is_left_alone(augmenter: Augmenter) -> None:
    odd = Example("chest", "", NODULE.text, (("lung_nodule", "absent", 1.0, "結節", 1.0),))
    assert augmenter.ending(odd, random.Random(1), same=False) == odd


def test_two_sentences_as_one_say_both() -> None:
    both = joined(NODULE, EFFUSION)
    assert both.text == "右肺に結節を認めます、胸水は認めません。"
    assert {one[0]: one[1] for one in both.said} == {"lung_nodule": "present", "pleural_effusion": "absent"}
    wrong = Example("chest", "", "結節。", (("lung_nodule", "not_mentioned", 1.0, "結節", 1.0),))
    assert joined(wrong, NODULE).said[0][1] == "present"


def test_a_slip_is_small(augmenter: Augmenter) -> None:
    for seed in range(50):
        slipped = augmenter.slip(NODULE.text, random.Random(seed))
        assert abs(len(slipped) - len(NODULE.text)) <= 2
    assert augmenter.slip("結節。", random.Random(0)) == "結節。"


def test_equal_chance_gives_equal_examples(augmenter: Augmenter) -> None:
    made = [augmenter(NODULE, random.Random(5), other=EFFUSION) for _ in range(2)]
    assert made[0] == made[1]
    assert len({augmenter(NODULE, random.Random(seed), other=EFFUSION).text for seed in range(40)}) > 15
