"""The text of HL7 messages: bytes to segments, fields, components, and what is written in them.

A segment is a list of its fields, the name first, so that the number of a field is its place (in MSH one less, because
MSH-1 is the separator).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from functools import lru_cache

from reportlabel.ingest.codes import measure, narrow
from reportlabel.ingest.dates import parse_day

__all__ = ["Segment", "component", "decoded", "field_of", "free_text", "is_day", "name_of", "number_of", "plain"]

Segment = list[str]

_ESCAPE = re.compile(r"\\(\.br|\.sp|[FSTREHN]|X[0-9A-F]+|\.[a-z]+[+-]?\d*)\\")
_ESCAPED = {"F": "|", "S": "^", "T": "&", "R": "~", "E": "\\", ".br": "\n", ".sp": "\n"}
_SWITCH = re.compile(rb"(\x1b\$[@B]|\x1b\([BJI])")


def decoded(data: bytes, *, utf8: Iterable[str] = ()) -> str | None:
    """The text of a message; None where its bytes do not fit its encoding.

    ISO-2022-JP, with the characters that vendors add to JIS X 0208 (①, ㎜, 髙), which only cp932 knows, and half-width
    kana. ``utf8``: what MSH-18 says of messages that are UTF-8.
    """
    try:
        if not data.isascii():
            head = data.split(b"|", 18)
            said = head[17].decode("ascii", "replace").upper() if len(head) > 17 else ""
            return data.decode("utf-8") if any(one in said for one in utf8) else None
        return data.decode("iso2022_jp") if b"\x1b" in data else data.decode("ascii")
    except UnicodeDecodeError:
        return _with_vendor_characters(data) if data.isascii() else None


def _with_vendor_characters(data: bytes) -> str | None:
    """ISO-2022-JP whose rows beyond JIS X 0208 are those of cp932."""
    parts: list[str] = []
    mode = b"\x1b(B"
    try:
        for part in _SWITCH.split(data):
            if _SWITCH.fullmatch(part):
                mode = part
            elif mode.startswith(b"\x1b$"):
                parts.append(_kanji(part))
            elif mode == b"\x1b(I":
                parts.append(bytes(byte | 0x80 if 0x21 <= byte <= 0x5F else byte for byte in part).decode("cp932"))
            else:
                if b"\x1b" in part:
                    return None
                parts.append(part.decode("ascii"))
    except UnicodeDecodeError:
        return None
    return "".join(parts)


def _kanji(part: bytes) -> str:
    """Characters of two bytes."""
    return "".join(_character(part[at : at + 2]) for at in range(0, len(part), 2))


@lru_cache(maxsize=8192)
def _character(pair: bytes) -> str:
    """A character as JIS X 0208 has it, else as cp932 has it at the same row and cell."""
    try:
        return (b"\x1b$B" + pair + b"\x1b(B").decode("iso2022_jp")
    except UnicodeDecodeError:
        pass
    if len(pair) != 2 or not all(0x21 <= byte <= 0x7E for byte in pair):
        raise UnicodeDecodeError("iso2022_jp", pair, 0, len(pair), "no character")
    row, cell = pair
    lead = ((row - 0x21) >> 1) + 0x81
    trail = cell + (0x7E if not row % 2 else 0x1F if cell < 0x60 else 0x20)
    return bytes((lead if lead <= 0x9F else lead + 0x40, trail)).decode("cp932")


# --- segments ---------------------------------------------------------------------------------------------------------


def field_of(segment: Segment, number: int) -> str:
    """A field as it is written; empty where the segment ends before it."""
    return segment[number] if number < len(segment) else ""


def component(text: str, number: int) -> str:
    """A component of the first repetition of a field, as it is meant."""
    parts = text.partition("~")[0].split("^") if "^" in text or "~" in text else [text]
    return plain(parts[number - 1]) if number <= len(parts) else ""


def plain(text: str) -> str:
    """Text without escapes; line ends are \\n."""
    if "\\" not in text:
        return text.strip()
    return _ESCAPE.sub(lambda found: _meant(found[1]), text).strip()


def _meant(escape: str) -> str:
    """What an escape stands for: a separator or a line end; marks of style stand for nothing."""
    if escape.startswith("X"):
        return "\n" if "0D" in escape or "0A" in escape else ""
    return _ESCAPED.get(escape, "")


def free_text(written: str) -> str:
    """Free text, a line a repetition."""
    return "\n".join(part for part in map(plain, written.split("~")) if part)


@lru_cache(maxsize=16_384)
def name_of(written: str) -> str:
    """A name in one width, on one line; parts that & joins belong to it."""
    return " ".join(narrow(plain(written.replace("&", " "))).split())


def number_of(written: str) -> float | None:
    """A positive number."""
    found = measure(component(written, 1)) if written else None
    return found.value if found and 0 < found.value < math.inf and not found.unit else None


def is_day(written: str) -> bool:
    """Whether a field begins with a day (YYYYMMDD)."""
    return len(written) >= 8 and written[:8].isdigit() and parse_day(written) is not None
