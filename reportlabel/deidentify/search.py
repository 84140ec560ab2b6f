"""Search every byte of a folder for what must not be there: names, numbers, addresses that somebody knows.

The last proof before anything is handed over, and after somebody withdrew. Tables are read column by column, since
their files are compressed; archives and spreadsheets are opened; everything else is searched as bytes, in every
encoding in which a Japanese hospital writes. What is found is said as file and count, never as text.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ahocorasick_rs
import polars as pl
from polars.exceptions import PolarsError

from reportlabel.errors import InputError

__all__ = ["Searcher", "found_in"]

_ENCODINGS = ("utf-8", "cp932", "euc_jp", "utf-16-le", "iso2022_jp")
_BLANKS = (" ", "　", "^")
_SHORTEST = 4
_SHORTEST_KANJI = 3
_DEPTH = 4
_ESCAPED = re.compile(rb"\\u[0-9A-Fa-f]{4}")


@dataclass(frozen=True)
class Hit:
    """Where something stood: file (relative to the folder), kind of what it was, how often."""

    path: str
    kind: str
    count: int


class Searcher:
    """Looks for texts in bytes.

    In: ``needles``: kind and text. Each is also looked for without its blanks, with others, in half and in full width,
    in bytes also as JSON and XML escape it. Texts that are too short to mean anything (fewer than 3 characters with
    kanji or kana, else 4) are left out; ``skipped`` says how many. Digits count only where no other digit stands beside
    them.

    Raises:
        InputError: nothing is left to look for.
    """

    def __init__(self, needles: Iterable[tuple[str, str]]) -> None:
        kinds: dict[str, str] = {}
        self.skipped = 0
        for kind, text in needles:
            forms = _forms(text)
            self.skipped += not forms
            for form in forms:
                kinds.setdefault(form, kind)
        if not kinds:
            raise InputError("there is nothing to search for; give names or numbers of at least four characters")
        self.size = len(kinds)
        self._texts = list(kinds)
        self._kind_of_text = [kinds[text] for text in self._texts]
        self._in_text = ahocorasick_rs.AhoCorasick(self._texts)
        encoded: dict[bytes, tuple[str, int]] = {}
        for text, kind in kinds.items():
            number = text.isascii() and text.isdecimal()
            for written in _bytes(text):
                # a digit is as many bytes as the number has for each of its own
                encoded.setdefault(written, (kind, len(written) // len(text) if number else 0))
        self._kind_of_bytes = list(encoded.values())
        self._in_bytes = ahocorasick_rs.BytesAhoCorasick(list(encoded))

    def in_text(self, text: str) -> Counter[str]:
        """Kind -> how often something of it stands in a text."""
        found: Counter[str] = Counter()
        for at, start, end in self._in_text.find_matches_as_indexes(text):
            number = self._texts[at].isdecimal()
            if not number or not _within_number(text[max(start - 1, 0) : start], text[end : end + 1]):
                found[self._kind_of_text[at]] += 1
        return found

    def in_bytes(self, content: bytes) -> Counter[str]:
        """Kind -> how often something of it stands in bytes, in any of the encodings."""
        found: Counter[str] = Counter()
        for at, start, end in self._in_bytes.find_matches_as_indexes(content):
            kind, width = self._kind_of_bytes[at]
            before, after = content[max(start - width, 0) : start], content[end : end + width]
            if _ESCAPED.fullmatch(content, max(start - 6, 0), start):
                before = b""  # the last digit of a character, not of a number
            if not width or not _within_number(_digit(before), _digit(after)):
                found[kind] += 1
        return found

    def in_folder(self, folder: Path) -> list[Hit]:
        """All files below a folder, their names too, in order; or one file.

        Raises:
            InputError: there is no such folder or file: that nothing is found there says nothing.
        """
        if not folder.exists():
            raise InputError(f"{folder}: no such folder or file; nothing was searched")
        if folder.is_file():
            found = self.in_text(folder.name) + self._in_content(folder.name, folder.read_bytes(), _DEPTH)
            return [Hit(folder.name, kind, count) for kind, count in sorted(found.items())]
        hits = []
        for path in sorted(folder.rglob("*")):
            shown = path.relative_to(folder).as_posix()
            found = self.in_text(path.name)
            if path.is_file() and not path.is_symlink():
                found += self._in_content(path.name, path.read_bytes(), _DEPTH)
            hits += [Hit(shown, kind, count) for kind, count in sorted(found.items())]
        return hits

    def _in_content(self, name: str, content: bytes, depth: int) -> Counter[str]:
        found = self.in_bytes(content)
        if depth == 0:
            return found
        for inner, inside in _opened(name, content):
            if isinstance(inside, bytes):
                found += self.in_text(inner) + self._in_content(inner, inside, depth - 1)
            else:
                found += self._in_table(inside)
        return found

    def _in_table(self, table: pl.DataFrame) -> Counter[str]:
        found: Counter[str] = Counter()
        for column in table.get_columns():
            for text in _texts_of(column):
                found += self.in_text(text)
        return found


def found_in(folder: Path, needles: Iterable[tuple[str, str]]) -> list[Hit]:
    """Search a folder once; see `Searcher`."""
    return Searcher(needles).in_folder(folder)


def _digit(content: bytes) -> str:
    """A character of one byte, or of two in UTF-16; of others only that it is none."""
    return content.decode("utf-16-le" if len(content) == 2 else "latin-1", "replace")


def _within_number(before: str, after: str) -> bool:
    """Whether digits go on before or behind: then it is another, longer number."""
    return before.isdecimal() or after.isdecimal()


def _texts_of(column: pl.Series) -> Iterator[str]:
    """The distinct texts of a column, also inside lists and structs."""
    if column.dtype == pl.String:
        yield from column.drop_nulls().unique()
    elif isinstance(column.dtype, pl.List | pl.Array):
        yield from _texts_of(column.explode(empty_as_null=False, keep_nulls=False))
    elif isinstance(column.dtype, pl.Struct):
        for one in column.struct.unnest().get_columns():
            yield from _texts_of(one)
    elif column.dtype == pl.Binary:
        yield from (value.decode("utf-8", "replace") for value in column.drop_nulls().unique())


def _opened(name: str, content: bytes) -> Iterator[tuple[str, bytes | pl.DataFrame]]:
    """What is inside a file that holds others, or a table."""
    try:
        if content[:4] == b"PAR1":
            yield name, pl.read_parquet(io.BytesIO(content))
        elif content[:6] == b"ARROW1":
            yield name, pl.read_ipc(io.BytesIO(content))
        elif content[:2] == b"\x1f\x8b":
            yield name, gzip.decompress(content)
        elif content[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for inner in archive.namelist():
                    yield inner, archive.read(inner)
        elif content[257:262] == b"ustar":
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                for member in archive.getmembers():
                    stream = archive.extractfile(member)
                    if stream is not None:
                        yield member.name, stream.read()
    except (OSError, EOFError, PolarsError, zipfile.BadZipFile, tarfile.TarError, RuntimeError):
        return  # not what it looks like: its bytes were searched


def _long_enough(text: str) -> bool:
    return len(text) >= (_SHORTEST if text.isascii() else _SHORTEST_KANJI)


def _forms(text: str) -> list[str]:
    """A text as it is, in half and in full width, without its blanks, and with other blanks."""
    narrow = unicodedata.normalize("NFKC", text.strip())
    forms = {text.strip(), narrow}
    parts = narrow.replace("^", " ").split()
    if len(parts) > 1:
        forms |= {between.join(parts) for between in _BLANKS}
        if not narrow.isascii():
            forms.add("".join(parts))
    forms = {form for form in forms if _long_enough(form)}
    forms |= {_half_width(form) for form in forms} | {form.translate(_FULL_WIDTH) for form in forms}
    return sorted(forms)


_FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {0x20: 0x3000}
_HALF_WIDTH = {unicodedata.normalize("NFKC", chr(code)): chr(code) for code in range(0xFF66, 0xFF9E)}
_HALF_WIDTH |= {"\u3099": "ﾞ", "\u309a": "ﾟ"}


def _half_width(text: str) -> str:
    """Katakana as JIS X 0201 has it: one byte each, the voicing mark a character of its own."""
    return "".join(_HALF_WIDTH.get(letter, letter) for letter in unicodedata.normalize("NFD", text))


def _bytes(text: str) -> Iterator[bytes]:
    for encoding in _ENCODINGS:
        try:
            encoded = text.encode(encoding)
        except UnicodeEncodeError:
            continue
        if encoding == "iso2022_jp" and not text.isascii():
            # what stands between the first and the last change of character set; back to ASCII or to JIS X 0201
            inner = encoded.removeprefix(b"\x1b$B").removesuffix(b"\x1b(B")
            if len(inner) >= 2 * _SHORTEST_KANJI:
                yield inner
                yield inner.replace(b"\x1b(B", b"\x1b(J")
            continue
        yield encoded
    if not text.isascii():
        escaped = json.dumps(text)[1:-1]
        yield escaped.encode("ascii")
        yield escaped.upper().replace("\\U", "\\u").encode("ascii")
        yield text.encode("ascii", "xmlcharrefreplace")
