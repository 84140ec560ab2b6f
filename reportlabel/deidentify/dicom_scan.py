"""A search for known words (canaries) in DICOM data: names, ids, addresses that must not be there.

    hits = scan_bytes(path, Canaries(["山田^太郎", "00012345"]))

Every text is searched as it is read, in whatever character set it is written, with and without the separators of names,
in half and full width. The bytes of the file are searched as well, for words written where no text should be: in
pixels, in binary attributes, behind the end. A hit says where, never what.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ahocorasick_rs import AhoCorasick, BytesAhoCorasick

from reportlabel.errors import InputError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Canaries", "Hit", "canaries_of", "scan_bytes", "scan_dataset"]

_ENCODINGS = ("utf-8", "cp932", "euc_jp", "iso2022_jp", "utf-16-le")
_ESCAPES = (b"\x1b$B", b"\x1b(B", b"\x1b(J", b"\x1b$@")
_SEPARATORS = re.compile(r"[\s^=,・]+")
_LEAST_BYTES = 6
"""Shorter words come up in pixels by chance; in text they are found whatever their length."""
_SHORT_WORD = 6
"""Latin words of fewer letters are parts of other words by chance."""
_SMALL = 4096
"""Binary values up to this length are also read as text."""


@dataclass(frozen=True)
class Hit:
    """A canary that was found.

    Attributes:
        canary: its place in the list of canaries, from 0.
        where: the tags that lead to it, ``(0040,A730)[2]/(0040,A160)``, or ``bytes``.
    """

    canary: int
    where: str


class Canaries:
    """Words to search for, made ready once for any number of files.

    Args:
        words: names, with or without ``^``, ids, addresses. A word of digits is found where no other digit adjoins it,
            a word of fewer than six Latin letters where no other letter does. Empty words and single
            characters are ignored.
    """

    def __init__(self, words: Iterable[str]) -> None:
        texts: dict[str, list[int]] = {}
        raws: dict[bytes, list[int]] = {}
        for index, word in enumerate(words):
            for text in _spellings(word):
                texts.setdefault(text, []).append(index)
            for raw in _written(word):
                raws.setdefault(raw, []).append(index)
        self._text_indexes, self._raw_indexes = list(texts.values()), list(raws.values())
        self._text_search = AhoCorasick(list(texts)) if texts else None
        self._raw_search = BytesAhoCorasick(list(raws)) if raws else None

    def __bool__(self) -> bool:
        return bool(self._text_indexes or self._raw_indexes)

    def in_text(self, text: str) -> set[int]:
        """The canaries in a text."""
        if self._text_search is None or not text:
            return set()
        plain = _plain(text)
        found = self._text_search.find_matches_as_indexes(plain, overlapping=True)
        whole = {which for which, start, end in found if _stands_alone(plain, start, end)}
        return {index for which in whole for index in self._text_indexes[which]}

    def in_bytes(self, data: bytes) -> set[int]:
        """The canaries of six or more bytes, in any of the encodings of Japanese, anywhere in the data."""
        if self._raw_search is None or not data:
            return set()
        lower = data.lower()
        whole = set()
        for which, start, end in self._raw_search.find_matches_as_indexes(lower, overlapping=True):
            first = max(0, start - 1)
            around = lower[first : end + 1].decode("latin-1")
            if which not in whole and _stands_alone(around, start - first, end - first):
                whole.add(which)
        return {index for which in whole for index in self._raw_indexes[which]}


@lru_cache(maxsize=64)
def canaries_of(words: tuple[str, ...]) -> Canaries:
    """The canaries of an object, made ready once for the many objects that one after another have the same."""
    return Canaries(words)


def scan_bytes(source: Path | bytes, canaries: Canaries | Iterable[str]) -> list[Hit]:
    """Search a DICOM file as it is written: its bytes, and every text of every attribute at every depth.

    Args:
        source: the file, or its bytes. Of what is no DICOM only the bytes are searched.
        canaries: what to search for.

    Raises:
        InputError: the file cannot be read.
    """
    from pydicom import dcmread

    ready = canaries if isinstance(canaries, Canaries) else Canaries(canaries)
    if isinstance(source, Path):
        try:
            data = source.read_bytes()
        except OSError as error:
            raise InputError(f"{source.name}: cannot be read ({type(error).__name__})") from error
    else:
        data = source
    hits = {Hit(canary, "bytes") for canary in ready.in_bytes(data)}
    with warnings.catch_warnings():  # they quote values
        warnings.simplefilter("ignore")
        try:
            dataset = dcmread(BytesIO(data))
            hits |= set(scan_dataset(dataset.file_meta, ready)) | set(scan_dataset(dataset, ready))
        except Exception:  # no DICOM or a damaged one: what the bytes show is all there is
            hits |= {Hit(canary, "bytes") for canary in _in_small(data, ready)} if len(data) <= _SMALL else set()
    return sorted(hits, key=lambda hit: (hit.canary, hit.where))


def scan_dataset(dataset: Dataset, canaries: Canaries) -> list[Hit]:
    """Search the texts of all attributes of a data set, at every depth; big binary values are not looked at."""
    if not canaries:
        return []
    with warnings.catch_warnings():  # they quote values
        warnings.simplefilter("ignore")
        return [Hit(canary, where) for where, found in _texts(dataset, "", canaries) for canary in sorted(found)]


def _texts(dataset: Dataset, path: str, canaries: Canaries) -> Iterator[tuple[str, set[int]]]:
    for tag in sorted(dataset.keys()):
        where = f"{path}({tag.group:04X},{tag.element:04X})"
        raw = dataset.get_item(tag)
        if (
            isinstance(getattr(raw, "value", None), bytes)
            and len(raw.value) > _SMALL
            and raw.VR not in ("SQ", "UT", "LT")
        ):
            continue
        value: Any
        try:
            element = dataset[tag]
            vr, value = element.VR, element.value
        except Exception:  # a value that does not fit its kind is read as bytes
            vr, value = "UN", getattr(raw, "value", b"")
        if vr == "SQ":
            for index, item in enumerate(value):
                yield from _texts(item, f"{where}[{index}]/", canaries)
        elif isinstance(value, bytes):
            yield where, _in_small(value, canaries) if len(value) <= _SMALL else set()
        elif value is not None:
            many = value if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue" else [value]
            yield where, canaries.in_text("\\".join(str(one) for one in many))


def _in_small(data: bytes, canaries: Canaries) -> set[int]:
    """Canaries of any length in a short binary value, read in each of the encodings."""
    found = canaries.in_bytes(data)
    for encoding in _ENCODINGS[:-1]:
        found |= canaries.in_text(data.decode(encoding, "ignore"))
    return found


def _plain(text: str) -> str:
    """A text as it is compared: one width, small letters, separators of names as one space."""
    return _SEPARATORS.sub(" ", unicodedata.normalize("NFKC", text).casefold())


def _spellings(word: str) -> set[str]:
    """The word as it is compared, with and without its separators; nothing shorter than two characters."""
    plain = _plain(word).strip()
    return {one for one in (plain, plain.replace(" ", "")) if len(one) > 1}


def _written(word: str) -> set[bytes]:
    """The word as bytes in small letters: in each encoding and width, with each separator."""
    parts = [part for part in _SEPARATORS.split(word.strip()) if part]
    texts = {word.strip(), *(separator.join(parts) for separator in ("", " ", "^", "　"))}
    texts |= {unicodedata.normalize("NFKC", text) for text in texts}
    texts |= {_half_width(text) for text in texts}
    written = set()
    for text in texts:
        for encoding in _ENCODINGS:
            try:
                raw = text.encode(encoding)
            except UnicodeEncodeError:
                continue
            for escape in _ESCAPES:
                raw = raw.removeprefix(escape).removesuffix(escape)
            written.add(raw.lower())
    return {raw for raw in written if len(raw) >= _LEAST_BYTES}


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether a match ends where it should: no digit adjoins a digit, no letter the letters of a short Latin word."""
    short = end - start < _SHORT_WORD
    before, after = text[start - 1 : start] if start else "", text[end : end + 1]
    return not (_runs_on(before, text[start], short) or _runs_on(after, text[end - 1], short))


def _runs_on(neighbour: str, edge: str, short: bool) -> bool:
    if not neighbour.isascii() or not edge.isascii():
        return False
    return (neighbour.isdigit() and edge.isdigit()) or (short and neighbour.isalpha() and edge.isalpha())


def _half_width(text: str) -> str:
    table = _half_width_table()
    return "".join(table.get(character, character) for character in unicodedata.normalize("NFD", text))


@lru_cache(maxsize=1)
def _half_width_table() -> dict[str, str]:
    """Full-width kana and marks -> JIS X 0201 kana, which old consoles write names in."""
    table = {unicodedata.normalize("NFKC", chr(code)): chr(code) for code in range(0xFF61, 0xFFA0)}
    return {**table, "゙": "ﾞ", "゚": "ﾟ"}
