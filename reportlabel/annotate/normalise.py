"""Normalisation: one code point in, one code point out, so that offsets stay those of the stored text.

Reports mix full-width and half-width letters, CJK radicals (⻑ U+2ED1 for 長), variant kanji and a dozen dashes.
Code points whose NFKC form is a single code point are replaced by it (Unicode Standard Annex #15); characters that
NFKC leaves alone or gets wrong come from ``rules/normalise.yaml``. Characters that would change the length (㎜, ｶﾞ)
stay here and are expanded later in :class:`Compact`, which keeps a map back.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reportlabel.rulebook.models import NormaliseRules

# Everything that NFKC maps lies below U+20000 or in the CJK compatibility supplement.
_BLOCKS = (range(0x20000), range(0x2F800, 0x2FA20))
_CODE_POINTS = 0x110000
_SPACE = ord(" ")
_KEPT_CONTROLS = {0x09, 0x0A, 0x0D}
_SURROGATES = range(0xD800, 0xE000)
_REPLACEMENT = 0xFFFD


@dataclass(frozen=True)
class Normaliser:
    """A code-point table. ``table[c]`` is the code point that stands for ``c``; every entry is one code point."""

    table: npt.NDArray[np.uint32]

    @classmethod
    def from_rules(cls, rules: NormaliseRules) -> Normaliser:
        table: npt.NDArray[np.uint32] = np.arange(_CODE_POINTS, dtype=np.uint32)
        for block in _BLOCKS:
            for code in block:
                if code in _SURROGATES:
                    continue
                table[code] = _single(chr(code), code)
        # A lone surrogate cannot be encoded; control characters (NUL ends MeCab's input) become blanks.
        table[_SURROGATES.start : _SURROGATES.stop] = _REPLACEMENT
        for code in (*range(0x20), *range(0x7F, 0xA0), 0x200B, 0x200C, 0x200D, 0xFEFF):
            if code not in _KEPT_CONTROLS:
                table[code] = _SPACE
        for source, target in rules.characters.items():
            table[ord(source)] = table[ord(target)] = ord(target)
        # what one step maps to, another may map on: normalised text must be normal
        while not np.array_equal(table, settled := table[table]):
            table = settled
        return cls(table=table)

    def __call__(self, text: str) -> str:
        """The normalised text; same length, same offsets."""
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        return self.table[codes].tobytes().decode("utf-32-le")

    def many(self, texts: Sequence[str]) -> list[str]:
        """Normalise many texts at once: one table look-up over all of them (several times faster)."""
        joined = self("".join(texts))
        normalised, at = [], 0
        for text in texts:
            normalised.append(joined[at : at + len(text)])
            at += len(text)
        return normalised


def _single(character: str, code: int) -> int:
    form = unicodedata.normalize("NFKC", character).lower()
    if len(form) != 1:
        return code
    return ord(form)


@dataclass(frozen=True, slots=True)
class Compact:
    """A sentence as the matcher sees it: no blanks or line wraps around Japanese characters, clusters composed.

    Attributes:
        text: the compact text.
        starts, ends: for each compact character the span in the sentence it stands for; ``None`` is the identity.
        gaps: compact positions in front of which a blank was left out.
    """

    text: str
    starts: list[int] | None
    ends: list[int] | None
    gaps: frozenset[int]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The span in the sentence of the compact characters ``start`` to ``end`` (exclusive, not empty)."""
        if self.starts is None or self.ends is None:
            return start, end
        return self.starts[start], self.ends[end - 1]


# Blanks, half-width or combining voice marks, and squared units such as ㎜: whatever makes offsets move.
_HARD = re.compile(r"[\s\u2160-\u217F\u3099\u309A\uFF9E\uFF9F\u3371-\u33DF\u2460-\u24FF\u3200-\u32FF]")
_PIECE = re.compile(
    r"(?P<blank>\s+)"
    r"|(?P<plain>[^\s\u2160-\u217F\u3099\u309A\uFF9E\uFF9F\u3371-\u33DF\u2460-\u24FF\u3200-\u32FF]+(?![\u3099\u309A\uFF9E\uFF9F]))"
    r"|(?P<cluster>.[\u3099\u309A\uFF9E\uFF9F]?)",
    re.DOTALL,
)
_WORD = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.,%)")
_WORD_START = frozenset("abcdefghijklmnopqrstuvwxyz0123456789(")


def compact(sentence: str) -> Compact:
    """Drop blanks unless they part two Latin words, compose voice marks, expand squared units."""
    if _HARD.search(sentence) is None:
        return Compact(text=sentence, starts=None, ends=None, gaps=frozenset())
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    gaps: set[int] = set()
    for piece in _PIECE.finditer(sentence):
        found, start, end = piece[0], piece.start(), piece.end()
        if piece.lastgroup == "plain":
            pieces.append(found)
            starts.extend(range(start, end))
            ends.extend(range(start + 1, end + 1))
            continue
        form = " "
        if piece.lastgroup == "cluster":
            form = unicodedata.normalize("NFKC", found).lower()
        elif not (pieces and pieces[-1][-1] in _WORD and sentence[end : end + 1] in _WORD_START):
            gaps.add(len(starts))
            continue
        pieces.append(form)
        starts.extend([start] * len(form))
        ends.extend([end] * len(form))
    return Compact(text="".join(pieces), starts=starts, ends=ends, gaps=frozenset(gaps))
