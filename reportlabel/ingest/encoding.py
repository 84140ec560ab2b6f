"""Which encoding a text file is in, and its bytes as UTF-8.

Everything after this module sees UTF-8 bytes. Bytes that the encoding does not allow come out as bytes that are not
valid UTF-8 either, at the same place, so that one check per field finds the rows to quarantine.
"""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from reportlabel.errors import ConfigError, InputError

__all__ = ["ENCODINGS", "EncodingChoice", "WrongEncodingError", "choose_encoding", "utf8_blocks"]

BLOCK_BYTES = 4 * 1024 * 1024
SAMPLE_LINES = 20_000
"""Lines with non-ASCII characters that are looked at to choose the encoding; plain ASCII lines decide nothing."""

ENCODINGS = ("utf-8", "cp932", "euc_jp", "utf-16", "utf-16-le", "utf-16-be")
_SAME_AS_CP932 = {"shift_jis", "shift-jis", "shiftjis", "sjis", "ms932", "windows-31j", "ms_kanji", "s_jis"}
_SAME_AS_UTF8 = {"utf8", "utf_8", "utf-8-sig", "utf_8_sig", "u8"}

# Python's cp932 lets these single bytes through (0x80, 0xA0, 0xFD-0xFF); no Japanese text holds them, damaged files do.
_CP932_DAMAGE = {0x80: 0xDC80, 0xF8F0: 0xDCA0, 0xF8F1: 0xDCFD, 0xF8F2: 0xDCFE, 0xF8F3: 0xDCFF}
_CP932_DAMAGED = re.compile("[\x80\uf8f0-\uf8f3]")


class WrongEncodingError(InputError):
    """The file is not in the encoding that was asked for."""


@dataclass(frozen=True, kw_only=True)
class EncodingChoice:
    """`name` is one of `ENCODINGS`; `notes` are warnings for the user where the choice is a guess."""

    name: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Lines:
    """Counts over the sampled lines that are not plain ASCII: how many each encoding cannot read."""

    seen: int
    bad_utf8: int
    bad_cp932: int
    bad_euc_jp: int


def choose_encoding(path: Path, *, encoding: str | None = None) -> EncodingChoice:
    """The encoding to read `path` with: the one asked for, else the one its bytes tell.

    A byte order mark decides. Without one, a file whose non-ASCII lines are mostly valid UTF-8 is UTF-8, and any
    other is cp932: a cp932 line is valid UTF-8 only by rare accident, while a short UTF-8 line is often valid cp932.

    Raises `ConfigError` for an unknown encoding, `InputError` for a file that cannot be read.
    """
    if encoding is not None:
        return EncodingChoice(name=_known_encoding(encoding))
    blocks = _blocks(path)
    head = next(blocks, b"")
    if head.startswith(codecs.BOM_UTF8):
        return EncodingChoice(name="utf-8")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return EncodingChoice(name="utf-16")
    for name, zeros in (("utf-16-le", head[1:16:2]), ("utf-16-be", head[0:16:2])):
        if len(zeros) >= 4 and not zeros.strip(b"\0"):
            note = (
                f"read as {name}: every other byte at its start is zero, without a byte order mark; {_override(path)}"
            )
            return EncodingChoice(name=name, notes=(note,))
    return _choice_from_counts(_count_lines(_lines(head, blocks)), path=path)


def utf8_blocks(path: Path, *, encoding: str) -> Iterator[bytes]:
    """The content of `path` (gzip is unpacked where the name ends in .gz) as blocks of UTF-8 bytes without BOM.

    What cannot be decoded comes out as bytes that are not valid UTF-8. Raises `InputError` if reading fails, of which
    `WrongEncodingError` where nothing of the file can be decoded (UTF-16 without its mark).
    """
    if encoding == "utf-8":
        blocks = _blocks(path)
        first = next(blocks, b"").removeprefix(codecs.BOM_UTF8)
        if first:
            yield first
        yield from blocks
        return
    errors = "surrogatepass" if encoding.startswith("utf-16") else "surrogateescape"
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    at_start = True
    for block in _blocks(path):
        text = _decoded(decoder, block, path=path, encoding=encoding)
        if at_start and text:
            text, at_start = text.removeprefix("\ufeff"), False
        yield _utf8(text, encoding=encoding)
    yield _rest(decoder, encoding=encoding)


def _decoded(decoder: codecs.IncrementalDecoder, block: bytes, *, path: Path, encoding: str) -> str:
    try:
        return decoder.decode(block)
    except UnicodeError:  # it quotes the bytes
        pass
    raise WrongEncodingError(
        f"{path}: is not {encoding}; give the encoding it is in ({', '.join(ENCODINGS)}), or none: the bytes tell it"
    )


def _rest(decoder: codecs.IncrementalDecoder, *, encoding: str) -> bytes:
    try:
        return _utf8(decoder.decode(b"", True), encoding=encoding)
    except UnicodeError:  # half a UTF-16 unit at the end of the file
        return b"\xff"


def _utf8(text: str, *, encoding: str) -> bytes:
    """Surrogates, which stand for bytes that could not be decoded, become invalid UTF-8."""
    if encoding == "cp932" and _CP932_DAMAGED.search(text):
        text = text.translate(_CP932_DAMAGE)
    return text.encode("utf-8", "surrogatepass")


def _known_encoding(encoding: str) -> str:
    asked = encoding.strip().lower()
    if asked in _SAME_AS_UTF8:
        return "utf-8"
    if asked in _SAME_AS_CP932:
        return "cp932"
    for name in ENCODINGS:
        if asked.replace("_", "-") == name.replace("_", "-"):
            return name
    raise ConfigError(f"unknown encoding {encoding!r}; --encoding takes one of: {', '.join(ENCODINGS)}")


def _choice_from_counts(lines: _Lines, *, path: Path) -> EncodingChoice:
    if lines.seen == 0 or (lines.bad_utf8 == 0 and lines.bad_cp932 > 0):
        return EncodingChoice(name="utf-8")
    if lines.bad_utf8 == 0:
        note = f"read as utf-8, but every line is valid cp932 (Shift_JIS) too; {_override(path)}"
        return EncodingChoice(name="utf-8", notes=(note,))
    if lines.bad_utf8 * 2 < lines.seen or lines.bad_utf8 < lines.bad_cp932:
        note = (
            f"read as utf-8, though {lines.bad_utf8} of {lines.seen} lines looked at are not valid utf-8 "
            f"(not valid cp932: {lines.bad_cp932}); rows that cannot be decoded are quarantined; {_override(path)}"
        )
        return EncodingChoice(name="utf-8", notes=(note,))
    also = " and valid euc_jp" if lines.bad_euc_jp == 0 else ""
    note = (
        f"read as cp932 (Shift_JIS): of {lines.seen} lines looked at {lines.bad_utf8} are not valid utf-8, "
        f"{lines.seen - lines.bad_cp932} are valid cp932{also}; {_override(path)}"
    )
    return EncodingChoice(name="cp932", notes=(note,))


def _override(path: Path) -> str:
    return f"if the text of {path.name} looks garbled, give the encoding with --encoding"


def _count_lines(lines: Iterator[bytes]) -> _Lines:
    seen = bad_utf8 = bad_cp932 = bad_euc_jp = 0
    for line in lines:
        if line.isascii():
            continue
        seen += 1
        bad_utf8 += not _decodes(line, encoding="utf-8")
        bad_cp932 += not _decodes(line, encoding="cp932")
        bad_euc_jp += not _decodes(line, encoding="euc_jp")
        if seen >= SAMPLE_LINES:
            break
    return _Lines(seen=seen, bad_utf8=bad_utf8, bad_cp932=bad_cp932, bad_euc_jp=bad_euc_jp)


def _decodes(line: bytes, *, encoding: str) -> bool:
    try:
        text = line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return encoding != "cp932" or _CP932_DAMAGED.search(text) is None


def _lines(head: bytes, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The lines of a file; a newline is never part of a character in the encodings that are told apart by lines."""
    rest = b""
    for block in _chain(head, blocks):
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
        if len(rest) > 16 * BLOCK_BYTES:  # not a text file; do not collect it in memory
            yield rest
            rest = b""
    yield rest


def _chain(head: bytes, blocks: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from blocks


def _blocks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, unpacked; a failure to read becomes an `InputError` that names the file."""
    problem = ""
    try:
        with _open(path) as stream:
            while block := stream.read(BLOCK_BYTES):
                yield block
    except (EOFError, zlib.error, gzip.BadGzipFile):
        problem = "the compressed data are damaged or cut off; copy the file again"
    except OSError as error:
        problem = error.strerror or "reading failed"
    if problem:
        raise InputError(f"{path}: cannot be read: {problem}")


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix.lower() == ".gz" else path.open("rb")
