"""Pieces of FHIR resources: codes, names, numbers, times and texts, read with tolerance.

Every function takes whatever stands in the JSON, also what no profile allows, and gives nothing where it makes no
sense. Texts come out with ``\\n`` for every kind of line end, also for the two characters ``\\n`` that some systems
write into strings, and for the markup of a narrative.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from html.parser import HTMLParser
from typing import Any, NamedTuple

from reportlabel.ingest.codes import narrow
from reportlabel.ingest.dates import parse_moment
from reportlabel.ingest.fhir_files import Resource

__all__ = [
    "Coding",
    "attachment_texts",
    "codings",
    "component_text",
    "contains",
    "days_later",
    "identifier_of_type",
    "items",
    "moment",
    "name_of",
    "narrative_text",
    "number",
    "quantity",
    "side_of",
    "start_and_end",
    "string",
    "text",
    "written_number",
]

_ESCAPED_LINE_END = re.compile(r"\\r\\n|\\n|\\r(?![a-z])|\\\.br\\")
_LINE_END = re.compile("\r\n|\r|\x0b|\x0c|\u2028|\u2029")
_BLOCK = re.compile(r"p|div|tr|li|ul|ol|dl|dt|dd|table|thead|tbody|section|blockquote|pre|h[1-6]")
_HAS_MARKUP = re.compile(r"<(?:br|p|tr|li|h[1-6]|dd|dt)\b|<div\b.*<div\b", re.IGNORECASE | re.DOTALL)
_HAS_LINES = re.compile(r"<pre\b", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")
_RAW_LINE_END = re.compile(r"[ \t]*\n[ \t]*")
_BLANK_LINES = re.compile(r"\n{3,}")
_SPACES = re.compile(r"\s+")
_PLAIN = ("text/plain", "text/html", "application/xhtml+xml")


class Coding(NamedTuple):
    """A code, its system and its words; empty where it has none."""

    system: str
    code: str
    display: str


def items(value: Any) -> list[Resource]:
    """The objects of a list, or the object where one stands alone."""
    if isinstance(value, dict):
        return [value]
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def string(value: Any) -> str:
    """A string without the spaces around it; empty for anything else."""
    return value.strip() if isinstance(value, str) else ""


def text(value: Any) -> str:
    """A text with ``\\n`` as its line ends, without the spaces around it."""
    found = value if isinstance(value, str) else ""
    if "\\" in found:
        found = _ESCAPED_LINE_END.sub("\n", found)
    if not found.isprintable():
        found = _LINE_END.sub("\n", found)
    return found.strip()


def codings(concept: Any) -> Iterator[Coding]:
    """The codes of CodeableConcepts, or of Codings."""
    for one in items(concept):
        inner = one.get("coding")
        for coding in items(inner) if inner is not None else [one]:
            yield Coding(string(coding.get("system")), string(coding.get("code")), string(coding.get("display")))


def name_of(concept: Any) -> str | None:
    """The words of a CodeableConcept: its text, else the first display; in one width, on one line."""
    for one in items(concept):
        found = string(one.get("text")) or string(one.get("display"))
        found = found or next((coding.display for coding in codings(one) if coding.display), "")
        if found:
            return _name(found)
    return None


@lru_cache(maxsize=16_384)
def _name(words: str) -> str | None:
    return " ".join(narrow(words).split()) or None


def identifier_of_type(resource: Resource, types: Iterable[str]) -> str | None:
    """The value of the first identifier of one of the types (v2-0203)."""
    known = set(types)
    for identifier in items(resource.get("identifier")):
        value = string(identifier.get("value"))
        if value and any(coding.code in known for coding in codings(identifier.get("type"))):
            return value
    return None


def moment(value: Any, *, partial: bool = False) -> datetime | None:
    """A date or time as local time of Japan; see `dates.parse_moment`."""
    return parse_moment(value, partial=partial) if isinstance(value, str) else None


def start_and_end(resource: Resource, stem: str) -> tuple[str, str]:
    """What is written of a time that may be a moment or a period: ``effectiveDateTime``, ``effectivePeriod`` …"""
    for ending in ("DateTime", "Instant"):
        if found := string(resource.get(stem + ending)):
            return found, ""
    period = resource.get(f"{stem}Period")
    if isinstance(period, dict):
        return string(period.get("start")), string(period.get("end"))
    timing = resource.get(f"{stem}Timing")
    events = timing.get("event") if isinstance(timing, dict) else None
    return (string(events[0]), "") if isinstance(events, list) and events else ("", "")


# --- numbers ----------------------------------------------------------------------------------------------------------


def number(value: Any) -> float | None:
    """A finite number; a string is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def written_number(value: float) -> str:
    """As one writes it: 72, 2.61, 0.1."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def quantity(value: Any) -> tuple[float | None, str | None, str]:
    """Value, unit as it is shown (else its code), and comparator of a Quantity."""
    if not isinstance(value, dict):
        return None, None, ""
    unit = string(value.get("unit")) or string(value.get("code"))
    return number(value.get("value")), _name(unit) if unit else None, string(value.get("comparator"))


def component_text(resource: Resource) -> str:
    """The components of an Observation as ``name=value unit``, divided by semicolons."""
    said = []
    for component in items(resource.get("component")):
        name = name_of(component.get("code")) or ""
        value, unit, comparator = quantity(component.get("valueQuantity"))
        if value is not None:
            written = f"{comparator}{written_number(value)}{f' {unit}' if unit else ''}"
        else:
            written = text(component.get("valueString")) or name_of(component.get("valueCodeableConcept")) or ""
            if not written and (whole := number(component.get("valueInteger"))) is not None:
                written = written_number(whole)
        if written:
            said.append(f"{name}={written}" if name else written)
    return ";".join(said)


# --- texts ------------------------------------------------------------------------------------------------------------


def contains(whole: str, part: str) -> bool:
    """Whether a text has another in it, whatever spaces and line ends are between."""
    return _SPACES.sub("", part) in _SPACES.sub("", whole)


def narrative_text(resource: Resource, *, shortest_generated: int) -> str:
    """The text of a narrative; none where it was generated and is no longer than a title."""
    narrative = resource.get("text")
    if not isinstance(narrative, dict) or not isinstance(narrative.get("div"), str):
        return ""
    found = _plain(narrative["div"])
    is_title = narrative.get("status") in ("generated", "empty") and len(found) < shortest_generated
    return "" if is_title else found


def attachment_texts(value: Any) -> list[str]:
    """The texts of attachments that are text; PDF and images are left out."""
    found = []
    for attachment in items(value):
        kind, _, rest = string(attachment.get("contentType")).lower().partition(";")
        data = attachment.get("data")
        if kind.strip() not in _PLAIN or not isinstance(data, str):
            continue
        charset = rest.partition("charset=")[2].strip(" \"'") or "utf-8"
        try:
            decoded = base64.b64decode(data).decode(charset)
        except (binascii.Error, ValueError, LookupError):
            continue
        one = text(decoded) if kind.strip() == "text/plain" else _plain(decoded)
        if one:
            found.append(one)
    return found


class _Plain(HTMLParser):
    """Collects the words of markup; blocks stand on lines of their own, cells behind each other."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        if tag in ("script", "style"):
            self._hidden += 1
        elif tag == "br":
            self.parts.append("\n")
        elif tag in ("td", "th"):
            self.parts.append(" ")
        elif _BLOCK.fullmatch(tag):
            self._line()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("script", "style"):
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._hidden = max(0, self._hidden - 1)
        elif _BLOCK.fullmatch(tag):
            self._line()

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)

    def _line(self) -> None:
        if self.parts and not self.parts[-1].endswith("\n"):
            self.parts.append("\n")


def _plain(markup: str) -> str:
    """Markup as text. Line ends of the source mean nothing where the markup has line ends of its own."""
    markup = _LINE_END.sub("\n", markup)
    if _HAS_MARKUP.search(markup) and not _HAS_LINES.search(markup):
        markup = _RAW_LINE_END.sub("", markup)
    parser = _Plain()
    try:
        parser.feed(markup)
        parser.close()
    except AssertionError:  # of the parser, for declarations that are none
        parser.parts = [_TAG.sub("\n", markup)]
    lines = "".join(parser.parts).replace("\xa0", " ")
    return _BLANK_LINES.sub("\n\n", text(lines))


# --- codes ------------------------------------------------------------------------------------------------------------


def side_of(words: str, codes: Iterable[Coding], sides: Mapping[str, str], side_codes: Mapping[str, str]) -> str | None:
    """right, left or bilateral, where the words begin with it, or a code says so."""
    for coding in codes:
        if coding.code in side_codes:
            return side_codes[coding.code]
    first = words.split(" ", 1)[0].casefold()
    if first in sides and (len(first) > 2 or not first.isascii()):  # L may be lumbar
        return sides[first]
    if words.isascii():
        return None
    longest = max((word for word in sides if not word.isascii() and first.startswith(word)), key=len, default="")
    return sides.get(longest)


def days_later(start: datetime, days: float | None) -> datetime | None:
    """The last of a number of days that begin with the day of ``start``."""
    if days is None or not 1 <= days <= 3660:
        return None
    return start.replace(hour=0, minute=0, second=0) + timedelta(days=int(days) - 1)
