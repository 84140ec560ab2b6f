"""The text as the finders see it: normalised, half-width voice marks joined, lines that were wrapped put together.

Every character of a view knows the span of the stored text that it stands for.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from reportlabel.deidentify.text_rules import Kind

__all__ = ["DASH", "KANA", "KANJI", "KANJI_RUN", "LATIN_NAME", "Hit", "View", "joined_view", "plain_view"]

KANJI = "[々㐀-䶿一-鿿豈-\ufaff\U00020000-\U0003ffff]"
KANJI_RUN = f"{KANJI}(?:{KANJI}|[ヶケヵノツ](?={KANJI})){{0,11}}"
"""Kanji, with the kana that stand between kanji in names: 関ヶ原, 一ノ瀬, 三ツ矢."""
KANA = "[ァ-ヺー]"
DASH = "[-‐-―−ーｰ]"
LATIN_NAME = r"(?:[a-z]\. ?)?[a-z][a-z'\-]+(?:[ ^,.]{1,2}[a-z][a-z'\-]*)?"

Source = Literal["known", "labelled", "form", "date", "place", "person", "doubt"]
"""How sure a hit is, the surest first; what overlaps becomes one mask of the surest kind."""


class Hit(NamedTuple):
    """Something that identifies, in a view; ``replacement``: None is the token of its kind."""

    start: int
    end: int
    kind: Kind
    source: Source
    rule: str
    replacement: str | None = None


@dataclass(frozen=True)
class View:
    """A text made from the stored one. ``starts``, ``ends``: the stored span of each character; None: the same one."""

    text: str
    starts: Sequence[int] | None = None
    ends: Sequence[int] | None = None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The stored span of a span that is not empty."""
        if self.starts is None or self.ends is None:
            return start, end
        return self.starts[start], self.ends[end - 1]


_MARK = re.compile(".[\u3099\u309a\uff9e\uff9f]", re.DOTALL)


def plain_view(text: str, fold: Callable[[str], str]) -> View:
    """Normalised, character by character; a kana and its voice mark become one character."""
    folded = fold(text)
    if not any(mark in folded for mark in "\u3099\u309a\uff9e\uff9f"):
        return View(folded)
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    at = 0
    while at < len(folded):
        end = at + 1
        form = folded[at]
        if _MARK.match(folded, at):
            both = unicodedata.normalize("NFKC", folded[at : at + 2])
            if len(both) == 1:
                form, end = both, at + 2
        pieces.append(form)
        starts.append(at)
        ends.append(end)
        at = end
    return View("".join(pieces), starts, ends)


_LONG_LINE = 20
_LINE_ENDS = frozenset("。.．:;!?)]】〕〉》」』>）、,")
_LINE_STARTS = re.compile(r"[ \t\n【\[<〈《■□●○◆◇▼▲・*※#＃\-(（①-⑳]|\d{1,2}[.)、: ]|$")


def joined_view(view: View) -> View | None:
    """The view without the line breaks that only keep lines short; None where there are none.

    A break is taken out behind a long line that ends in the middle of a sentence, before one that starts with a letter.
    """
    text = view.text
    taken: set[int] = set()
    line_start = 0
    for at, character in enumerate(text):
        if character != "\n":
            continue
        line = text[line_start:at]
        line_start = at + 1
        if len(line) >= _LONG_LINE and line[-1] not in _LINE_ENDS and not _LINE_STARTS.match(text, at + 1):
            taken.add(at)
    if not taken:
        return None
    kept = [at for at in range(len(text)) if at not in taken]
    spans = [view.span(at, at + 1) for at in kept]
    return View("".join(text[at] for at in kept), [start for start, _ in spans], [end for _, end in spans])
