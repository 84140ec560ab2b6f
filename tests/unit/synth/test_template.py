"""Templates: what is written, what is marked."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportlabel.synth.template import Pen, TemplateError, compile_template


def write(
    source: str, *, register: int = 0, firm: bool = True, **values: str
) -> tuple[str, list[tuple[str, str, str]]]:
    pen = Pen(random.Random(0), lambda name: values[name], register=register, firm=firm)
    pen.write(compile_template(source, {}).body)
    text = pen.text()
    assert all(text[mark.start : mark.end] == mark.surface for mark in pen.marks)
    return text, [(mark.id, mark.status, mark.surface) for mark in pen.marks]


def test_slots_and_marks() -> None:
    text, marks = write("{side}肺に[nodule {kind}結節]、[-pleural_effusion 胸水]なし。", side="右", kind="小")
    assert text == "右肺に小結節、胸水なし。"
    assert marks == [("nodule", "present", "小結節"), ("pleural_effusion", "absent", "胸水")]


def test_register_and_choice() -> None:
    assert [write("{=です/である/} ", register=at)[0] for at in range(3)] == ["です ", "である ", " "]
    pen = Pen(random.Random(1), str)
    template = compile_template("<a|b{x}|[n c]>", {})
    for _ in range(60):
        pen.write(template.body)
    assert set(pen.text()) == set("abxc") and {mark.id for mark in pen.marks} == {"n"}


@pytest.mark.parametrize(("firm", "status"), [(True, "present"), (False, "uncertain")])
def test_a_judged_mark_follows_the_judgement(firm: bool, status: str) -> None:
    assert write("[~lung_cancer 肺癌]", firm=firm)[1] == [("lung_cancer", status, "肺癌")]


def test_word_lists_become_choices() -> None:
    template = compile_template("{kind}", {"kind": ["<x|y>結節", "{shape}影"], "shape": ["円形"]})
    written = set()
    for seed in range(40):
        pen = Pen(random.Random(seed), str)
        pen.write(template.body)
        written.add(pen.text())
    assert written == {"x結節", "y結節", "円形影"} and not template.slots


@pytest.mark.parametrize(
    "wrong", ["[nodule]", "[nodule 結節", "<a|b", "a>b", "{side", "{=a/b}", "[Nodule x]", "]", "{1}", "[n ]"]
)
def test_what_cannot_be_read_is_refused_with_its_place(wrong: str) -> None:
    with pytest.raises(TemplateError, match=r"at character \d+ of: "):
        compile_template(wrong, {})


def test_a_word_list_that_uses_itself_is_refused() -> None:
    with pytest.raises(TemplateError, match="uses itself"):
        compile_template("{a}", {"a": ["{b}"], "b": ["{a}"]})


@given(st.lists(st.text(alphabet="あいう。、1mm", max_size=6), min_size=1, max_size=5), st.integers(0, 99))
def test_marks_always_point_at_their_words(words: list[str], seed: int) -> None:
    source = "".join(f"{word}[n <{word}x|y>]" for word in words)
    pen = Pen(random.Random(seed), str)
    pen.write(compile_template(source, {}).body)
    assert all(pen.text()[mark.start : mark.end] == mark.surface for mark in pen.marks)
    assert len(pen.marks) == len(words)
