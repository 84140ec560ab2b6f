"""What keyboards do to a finished text: marks and sections move along."""

from hypothesis import given
from hypothesis import strategies as st

from reportlabel.synth.compose import _edited, _wraps
from reportlabel.synth.template import Mark


def mark(start: int, end: int) -> Mark:
    return Mark(start, end, "nodule", "present", "", None, None, None)


@given(st.text(alphabet="あい。、\n右", max_size=120), st.integers(3, 20), st.data())
def test_wrapping_only_adds_line_breaks_and_keeps_marks(text: str, width: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    one = mark(start, end)
    wrapped, sections = _edited(text, _wraps(text, width), [one], {"findings": (0, len(text))})
    assert wrapped.replace("\n", "") == text.replace("\n", "")
    if start < end:
        assert wrapped[one.start : one.end].replace("\n", "") == text[start:end].replace("\n", "")
    assert wrapped[slice(*sections["findings"])] == wrapped
    assert all(len(line) <= width + 1 for line in wrapped.split("\n"))


@given(st.text(alphabet="abc", min_size=4, max_size=30), st.integers(0, 26), st.text(alphabet="xy", max_size=4))
def test_a_replacement_beside_a_mark_leaves_its_words(text: str, at: int, words: str) -> None:
    at = min(at, len(text) - 2)
    before, after = mark(0, at), mark(at + 2, len(text))
    written = {id(one): text[one.start : one.end] for one in (before, after)}
    edited, _ = _edited(text, [(at, at + 2, words)], [before, after], {})
    assert edited == text[:at] + words + text[at + 2 :]
    for one in (before, after):
        if one.start < one.end:
            assert edited[one.start : one.end] == written[id(one)]
