"""Lines of a terminal."""

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from reportlabel.report.fold import fold


def lines(text: str, width: int) -> list[str]:
    return fold(Text(text), width).plain.split("\n")


def test_japanese_is_broken_anywhere_but_before_a_full_stop() -> None:
    assert lines("胸水を認めます。", 14) == ["胸水を認めま", "す。"]


def test_a_latin_word_is_kept_together_and_what_follows_it_stays_on_its_line() -> None:
    assert lines("1) 右上葉のground glass nodule", 16) == ["1) 右上葉の", "ground glass", "nodule"]


def test_a_latin_word_that_fits_no_line_is_cut() -> None:
    assert lines("hepatocellular", 8) == ["hepatoce", "llular"]


def test_styles_stay_with_their_characters() -> None:
    folded = fold(Text("胸水を認めます").append("なし", style="bold"), 6)
    assert "".join(folded.plain[span.start : span.end] for span in folded.spans).replace("\n", "") == "なし"


@given(st.text(alphabet="胸水。、 ab-1\n", max_size=60), st.integers(2, 20))
def test_no_line_is_too_wide_and_only_blanks_are_lost(text: str, width: int) -> None:
    folded = lines(text, width)
    assert all(cell_len(line) <= width for line in folded)
    assert "".join("".join(folded).split()) == "".join(text.split())
