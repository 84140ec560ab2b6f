"""Offsets between a text and its masked form."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportlabel.deidentify.offsets import OFFSETS, OffsetMap, maps_of, offsets_table

LENGTH = 60


@st.composite
def replacements(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """Stretches of a text of LENGTH characters, in order, without overlaps, with the length of what replaces them."""
    borders = sorted(draw(st.sets(st.integers(0, LENGTH), max_size=12)))
    stretches = list(zip(borders[::2], borders[1::2], strict=False))
    return [(start, end, draw(st.integers(1, 12))) for start, end in stretches]


@st.composite
def spans(draw: st.DrawFn) -> tuple[int, int]:
    start, end = sorted((draw(st.integers(0, LENGTH)), draw(st.integers(0, LENGTH))))
    return start, end


def masked(text: str, made: list[tuple[int, int, int]]) -> str:
    pieces, at = [], 0
    for start, end, length in made:
        pieces += [text[at:start], "※" * length]
        at = end
    return "".join(pieces) + text[at:]


@given(replacements(), spans())
def test_a_span_that_touches_no_mask_is_the_same_text_and_comes_back(
    made: list[tuple[int, int, int]], span: tuple[int, int]
) -> None:
    text = "".join(chr(0x3041 + at) for at in range(LENGTH))
    offsets = OffsetMap.replacing(made)
    start, end = offsets.to_new(*span)
    new = masked(text, made)
    assert 0 <= start <= end <= len(new)
    back = offsets.to_old(start, end)
    if not offsets.touches(*span):
        assert new[start:end] == text[span[0] : span[1]]
        if span[0] < span[1]:
            assert back == span
    else:
        assert back[0] <= span[0] and span[1] <= back[1], "a span that touches a mask grows to the whole of it"
        assert "※" in new[start:end]
        assert offsets.to_new(*back) == (start, end)


@given(replacements(), st.data())
def test_a_span_of_the_masked_text_comes_back(made: list[tuple[int, int, int]], data: st.DataObject) -> None:
    offsets = OffsetMap.replacing(made)
    length = LENGTH + sum(new - (end - start) for start, end, new in made)
    start, end = sorted((data.draw(st.integers(0, length)), data.draw(st.integers(0, length))))
    old = offsets.to_old(start, end)
    assert 0 <= old[0] <= old[1] <= LENGTH
    again = offsets.to_new(*old)
    if start < end:
        assert again[0] <= start and end <= again[1]


def test_borders_at_a_mask_do_not_touch_it() -> None:
    offsets = OffsetMap.replacing([(3, 5, 4)])
    assert not offsets.touches(0, 3) and not offsets.touches(5, 9)
    assert offsets.touches(2, 4) and offsets.touches(4, 5) and offsets.touches(0, 9)
    assert offsets.to_new(0, 3) == (0, 3)
    assert offsets.to_new(5, 9) == (7, 11)
    assert offsets.to_new(4, 5) == (3, 7)
    assert offsets.to_old(4, 6) == (3, 5)
    assert offsets.to_new(3, 3) == (3, 3)


@pytest.mark.parametrize("wrong", [[(0, 2, 1), (1, 3, 1)], [(2, 2, 1)], [(0, 1, 0)], [(3, 4, 1), (0, 1, 1)]])
def test_what_is_no_replacement_is_refused(wrong: list[tuple[int, int, int]]) -> None:
    with pytest.raises(ValueError, match="without overlaps"):
        OffsetMap.replacing(wrong)


def test_a_span_has_an_order() -> None:
    with pytest.raises(ValueError, match="does not end before"):
        OffsetMap().to_new(3, 2)


def test_maps_go_into_a_table_and_come_back() -> None:
    maps = {
        "R-1": OffsetMap.replacing([(3, 5, 4), (9, 10, 1)]),
        "R-2": OffsetMap(),
        "R-3": OffsetMap.replacing([(0, 1, 9)]),
    }
    table = offsets_table(maps)
    assert table.schema == OFFSETS and table.height == 3
    assert maps_of(table.sample(fraction=1, shuffle=True, seed=1), ["R-1", "R-2", "R-3"]) == maps
    assert maps_of(pl.DataFrame(schema=OFFSETS), ["R-9"]) == {"R-9": OffsetMap()}
