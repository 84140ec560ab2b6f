"""MeCab as a spaCy tokenizer: the surfaces and the blanks between them are the text, character by character.

The boundaries are those that the batch path asks MeCab for, but of whole lines. Nothing that matters depends on them:
findings are matched on characters, and a span only covers the tokens that its characters touch.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import DummyTokenizer, registry
from spacy.vocab import Vocab

from reportlabel.annotate.match import Tokenizer, Words

# spaCy refuses longer texts than a million characters by default; that bound is for parsers, which are not used here.
MAX_TEXT_CHARS = 10_000_000

# MeCab counts the bytes of a word, and of the blanks in front of it, in 16 bits.
_PIECE = re.compile(r"[^\r\n]{1,10000}")
# NUL ends the text for MeCab; the other controls are in no dictionary.
_CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), " ")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class FugashiTokenizer(DummyTokenizer):
    """Makes a ``Doc`` whose text is the text given. A lone surrogate becomes U+FFFD, as spaCy stores UTF-8."""

    def __init__(self, vocab: Vocab) -> None:
        self.vocab = vocab
        self._words: Words = Tokenizer()

    def __reduce__(self) -> tuple[type[FugashiTokenizer], tuple[Vocab]]:
        return FugashiTokenizer, (self.vocab,)

    def __call__(self, text: str) -> Doc:
        text = _SURROGATE.sub("\ufffd", text)
        words: list[str] = []
        spaces: list[bool] = []
        at = 0
        for start, end in (*self._spans(text), (len(text), len(text))):
            blank = text[at:start]
            if words and blank.startswith(" "):
                spaces[-1] = True
                blank = blank[1:]
            for word in (blank, text[start:end]):
                if word:
                    words.append(word)
                    spaces.append(False)
            at = end
        return Doc(self.vocab, words=words, spaces=spaces)

    def _spans(self, text: str) -> list[tuple[int, int]]:
        readable = text.translate(_CONTROLS)
        return [
            (piece.start() + start, piece.start() + end)
            for piece in _PIECE.finditer(text)
            for start, end in self._words(readable[piece.start() : piece.end()])
        ]


@registry.tokenizers("reportlabel.fugashi.v1")  # type: ignore[untyped-decorator]
def fugashi_tokenizer() -> Callable[[Language], FugashiTokenizer]:
    """The tokenizer as a spaCy configuration names it."""
    return _create


def _create(nlp: Language) -> FugashiTokenizer:
    nlp.max_length = max(nlp.max_length, MAX_TEXT_CHARS)
    return FugashiTokenizer(nlp.vocab)
