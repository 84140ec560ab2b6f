"""Break styled text into lines of a terminal: Japanese anywhere but before a full stop, Latin words between words.

rich breaks at blanks, which Japanese has none of: what stands behind a Latin word would go to the next line whole.
"""

from __future__ import annotations

import re

from rich.cells import cell_len
from rich.text import Text

_NOT_FIRST = frozenset("。、，．）)」』】：！？・ーっゃゅょッャュョ")
_UNIT = re.compile(r"[!-~]+ *| +|.", re.DOTALL)


def fold(text: Text, width: int) -> Text:
    """The text with line breaks so that no line is wider than ``width`` cells (at least 2)."""
    width = max(width, 2)
    lines = [piece for line in text.split("\n", allow_blank=True) for piece in line.divide(_breaks(line.plain, width))]
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


def _breaks(plain: str, width: int) -> list[int]:
    breaks: list[int] = []
    start, used = 0, 0
    for at, unit in _units(plain, width):
        cells = cell_len(unit.rstrip(" "))
        if used + cells > width and at > start:
            start = _next_line(plain, start, at, room=width - cells)
            used = cell_len(plain[start:at])
            breaks.append(start)
        used += cell_len(unit)
    return breaks


def _units(plain: str, width: int) -> list[tuple[int, str]]:
    """What may not be cut: a Latin word with the blank behind it, if it fits a line, or one other character."""
    units: list[tuple[int, str]] = []
    for match in _UNIT.finditer(plain):
        if cell_len(match[0].rstrip(" ")) <= width:
            units.append((match.start(), match[0]))
        else:
            units.extend((match.start() + at, character) for at, character in enumerate(match[0]))
    return units


def _next_line(plain: str, start: int, at: int, *, room: int) -> int:
    """Where the next line begins: not with a full stop or the like, if one or two characters back will do."""
    for begin in (at, at - 1, at - 2):
        if begin <= start or cell_len(plain[begin:at]) > room:
            break
        inside_word = "!" <= plain[begin - 1] <= "~" and "!" <= plain[begin] <= "~"
        if plain[begin] not in _NOT_FIRST and (begin == at or not inside_word):
            return begin
    return at
