"""Clause and cue of a mention as spans of the report."""

import pytest

from reportlabel.annotate.annotator import Annotator
from reportlabel.annotate.explain import Where, locate
from reportlabel.synth.reports import synthetic_reports


@pytest.fixture(scope="module")
def annotator() -> Annotator:
    return Annotator()


def explained(annotator: Annotator, text: str) -> dict[str, tuple[str, str | None]]:
    rows = annotator.mentions(text, region="chest")
    places = locate(annotator, text, [(row.start, row.end, row.sentence, row.cue) for row in rows])
    return {
        row.surface: (text[slice(*place.clause)], cut(text, place)) for row, place in zip(rows, places, strict=True)
    }


def cut(text: str, place: Where) -> str | None:
    return text[slice(*place.cue)] if place.cue else None


def test_each_side_of_a_contrast_is_a_clause(annotator: Annotator) -> None:
    assert explained(annotator, "右上葉に結節を認めるが、胸水は認めません。") == {
        "結節": ("右上葉に結節を認めるが", "認める"),
        "胸水": ("胸水は認めません", "認めません"),
    }


def test_one_cue_for_a_list(annotator: Annotator) -> None:
    found = explained(annotator, "胸水や無気肺は認めません。")
    assert {cue for _, cue in found.values()} == {"認めません"}


def test_a_finding_without_a_predicate_has_no_cue(annotator: Annotator) -> None:
    assert explained(annotator, "肺気腫。")["肺気腫"] == ("肺気腫", None)


def test_spans_are_those_of_a_wrapped_text_in_wide_digits(annotator: Annotator) -> None:
    text = "【所見】\n右肺上葉Ｓ３に２４㎜大の結節を認めま\nす。胸水なし。"
    assert explained(annotator, text) == {
        "結節": ("右肺上葉Ｓ３に２４㎜大の結節を認めま\nす", "認めま\nす"),
        "胸水": ("胸水なし", "なし"),
    }


def test_the_same_word_twice_gives_each_its_own_cue(annotator: Annotator) -> None:
    text = "胸水なし、心嚢液なし。"
    rows = annotator.mentions(text, region="chest")
    places = locate(annotator, text, [(row.start, row.end, row.sentence, row.cue) for row in rows])
    assert [place.cue for place in places] == [(2, 4), (8, 10)]


def test_every_mention_of_the_demo_lies_in_its_clause_and_every_cue_is_found(annotator: Annotator) -> None:
    for text in synthetic_reports(patients=12)["text"]:
        rows = annotator.mentions(text)
        for row, place in zip(
            rows, locate(annotator, text, [(row.start, row.end, row.sentence, row.cue) for row in rows]), strict=True
        ):
            assert place.clause[0] <= row.start and row.end <= place.clause[1]
            assert (place.cue is None) == (row.cue is None)
