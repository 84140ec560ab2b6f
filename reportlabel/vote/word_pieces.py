"""Word pieces of Japanese BERT models, with the place of every piece in the text as it is stored.

Japanese BERT models cut a text into words with MeCab and the words into pieces of a vocabulary. Their own tokenizers
forget where a piece stood: the text is brought into NFKC form first, which changes its length. Here every character of
that form keeps the span of the stored text it stands for.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import Field

from reportlabel.annotate.match import Tokenizer, Words
from reportlabel.errors import ConfigError
from reportlabel.rulebook.models import Strict
from reportlabel.vote.bert import ModelPart, open_tokenizer

_CLUSTER = re.compile(r".[\u0300-\u036f\u3099\u309a\uff9e\uff9f]*", re.DOTALL)
_LONGEST = 100  # characters of a word; a longer one is unknown, as in the WordPiece of BERT


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece: its number in the vocabulary, and the span of the text that it stands for."""

    id: int
    start: int
    end: int


class Tokens(Protocol):
    """Cuts a text into pieces, without those that begin and end a sequence."""

    first: int
    last: int

    def __call__(self, text: str) -> list[Piece]: ...


class FastEntry(Strict):
    """A ``tokenizer.json`` of the tokenizers library."""

    kind: Literal["fast"]
    file: ModelPart
    first: str = "[CLS]"
    last: str = "[SEP]"


class MecabEntry(Strict):
    """Words of MeCab, then pieces of a vocabulary with one piece a line.

    Attributes:
        dictionary: of MeCab; it must be the one that the model was trained with.
        pieces: ``wordpiece`` (longest match, ``##`` in front of all but the first) or ``character``.
        lower_case: whether letters are made small first.
    """

    kind: Literal["mecab"]
    vocabulary: ModelPart
    dictionary: Literal["unidic_lite", "ipadic"] = "unidic_lite"
    pieces: Literal["wordpiece", "character"] = "wordpiece"
    lower_case: bool = False
    first: str = "[CLS]"
    last: str = "[SEP]"


TokenizerEntry = Annotated[FastEntry | MecabEntry, Field(discriminator="kind")]


def open_tokens(entry: FastEntry | MecabEntry, folder: Path) -> Tokens:
    """The tokenizer of an entry of ``model.yaml``.

    Raises:
        ConfigError: a library or the MeCab dictionary is not installed, or the vocabulary has no such special pieces.
    """
    if isinstance(entry, FastEntry):
        return FastTokens(entry, folder)
    return MecabTokens(entry, folder)


class FastTokens:
    """The tokenizers library; it knows the spans itself."""

    def __init__(self, entry: FastEntry, folder: Path) -> None:
        self._tokenizer = open_tokenizer(folder / entry.file.file)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.first, self.last = (_known(self._tokenizer.token_to_id(one), one) for one in (entry.first, entry.last))

    def __call__(self, text: str) -> list[Piece]:
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        return [Piece(number, *span) for number, span in zip(encoded.ids, encoded.offsets, strict=True)]


class MecabTokens:
    """MeCab's words and the pieces of a vocabulary."""

    def __init__(self, entry: MecabEntry, folder: Path) -> None:
        lines = (folder / entry.vocabulary.file).read_text(encoding="utf-8").splitlines()
        self._numbers = {piece: number for number, piece in enumerate(lines)}
        self._entry = entry
        self._words: Words = Tokenizer() if entry.dictionary == "unidic_lite" else _ipadic()
        self.first, self.last = (_known(self._numbers.get(one), one) for one in (entry.first, entry.last))
        self._unknown = _known(self._numbers.get("[UNK]"), "[UNK]")

    def __call__(self, text: str) -> list[Piece]:
        form, spans = nfkc_with_spans(text, lower_case=self._entry.lower_case)
        # MeCab takes a line break or a control character for an end
        readable = "".join(one if one.isprintable() else " " for one in form)
        found: list[Piece] = []
        for start, end in self._words(readable):
            for number, first, last in self._cut(readable[start:end]):
                found.append(Piece(number, spans[start + first][0], spans[start + last - 1][1]))
        return found

    def _cut(self, word: str) -> Iterator[tuple[int, int, int]]:
        """Pieces of a word: number, start, end. A word that cannot be cut is one unknown piece."""
        if self._entry.pieces == "character":
            for at, character in enumerate(word):
                yield self._numbers.get(character, self._unknown), at, at + 1
            return
        pieces: list[tuple[int, int, int]] = []
        at = 0
        while at < len(word) <= _LONGEST:
            end = len(word)
            while end > at and ("##" if at else "") + word[at:end] not in self._numbers:
                end -= 1
            if end == at:
                break
            pieces.append((self._numbers[("##" if at else "") + word[at:end]], at, end))
            at = end
        yield from pieces if at == len(word) else [(self._unknown, 0, len(word))]


def nfkc_with_spans(text: str, *, lower_case: bool) -> tuple[str, list[tuple[int, int]]]:
    """The NFKC form of a text (Unicode Standard Annex #15), and the span of the text behind each of its characters.

    It is made cluster by cluster (a character with its voice and combining marks), so that what is composed or
    expanded keeps its place.
    """
    form: list[str] = []
    spans: list[tuple[int, int]] = []
    for cluster in _CLUSTER.finditer(text):
        normal = unicodedata.normalize("NFKC", cluster[0])
        normal = normal.lower() if lower_case else normal
        form.append(normal)
        spans.extend([cluster.span()] * len(normal))
    return "".join(form), spans


def _ipadic() -> Words:
    """MeCab with the IPA dictionary; spans of the words of a text without line breaks."""
    try:
        import ipadic
    except ImportError as error:
        raise ConfigError("this model was trained with MeCab's IPA dictionary: pip install ipadic") from error
    import fugashi

    tagger = fugashi.GenericTagger(ipadic.MECAB_ARGS)

    def words(text: str) -> list[tuple[int, int]]:
        spans = []
        at = 0
        for node in tagger.parseToNodeList(text):
            start = text.index(node.surface, at)
            at = start + len(node.surface)
            spans.append((start, at))
        return spans

    return words


def _known(number: int | None, piece: str) -> int:
    if number is None:
        raise ConfigError(
            f"the vocabulary has no piece {piece}; model.yaml names the wrong one, or another model's file"
        )
    return number
