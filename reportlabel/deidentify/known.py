"""What the hospital's own tables know of patients and staff, searched as it is in every text.

Names are compared without blanks (川崎　美咲 = 川崎美咲), kana also as hiragana, Latin names in both orders. A name or
number counts only where it is not the inside of a longer word or number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import polars as pl
from ahocorasick_rs import AhoCorasick

from reportlabel.annotate.normalise import compact
from reportlabel.deidentify.characters import KANJI, Hit, View
from reportlabel.deidentify.text_rules import Kind

__all__ = ["KnownNames", "KnownSearch"]

_SHORTEST_NUMBER = 5
_PERSON_COLUMNS = ("name", "kana", "roman")
_NUMBER_COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("patient_id", "id"),
    ("postal_code", "postal"),
    ("address", "address"),
    ("phone", "phone"),
)


@dataclass(frozen=True, repr=False)
class KnownNames:
    """Persons (family and given name with a blank or ^ between, as tables and DICOM write them) and other identifiers.

    Holds what identifies: it is never written anywhere, and its ``repr`` gives counts only.
    """

    persons: tuple[str, ...] = ()
    identifiers: tuple[tuple[Kind, str], ...] = ()

    @classmethod
    def from_tables(
        cls,
        patients: pl.DataFrame | None = None,
        *,
        staff: Iterable[str | None] = (),
        identifiers: Iterable[tuple[Kind, str | None]] = (),
    ) -> KnownNames:
        """From a table of patients and the names of doctors and technologists.

        In: of ``patients`` the columns ``name``, ``kana``, ``roman``, ``patient_id``, ``postal_code``, ``address``,
        ``phone``, those that are there; ``identifiers``: others, such as ("id", accession number). Nulls and empty
        texts are passed over; numbers of fewer than five characters are left to the rules.
        """
        persons = [name for name in staff if name]
        numbers = [(kind, value) for kind, value in identifiers if value]
        if patients is not None:
            for column in _PERSON_COLUMNS:
                if column in patients.columns:
                    persons += [name for name in patients[column].cast(pl.String) if name]
            for column, kind in _NUMBER_COLUMNS:
                if column in patients.columns:
                    numbers += [(kind, value) for value in patients[column].cast(pl.String) if value]
        return cls(tuple(dict.fromkeys(persons)), tuple(dict.fromkeys(numbers)))

    def __repr__(self) -> str:
        return f"KnownNames({len(self.persons)} persons, {len(self.identifiers)} identifiers)"

    def surnames(self, fold: Callable[[str], str]) -> frozenset[str]:
        """Family names, normalised: in kanji, kana and Latin letters."""
        return frozenset(parts[0] for person in self.persons for parts in _parts(fold(person)) if len(parts) > 1)


def _parts(person: str) -> Iterator[list[str]]:
    """The name in each script a DICOM name may have, cut into its words."""
    for script in person.split("="):
        parts = [part for part in re.split(r"[\s^,、・]+", script) if part]
        if parts:
            yield parts


_HIRAGANA = {code: code - 0x60 for code in range(ord("ァ"), ord("ヶ") + 1)}
_ONLY_KANA = re.compile(r"[ァ-ヺー]+")
_ONLY_KANJI = re.compile(f"{KANJI}+")
_LETTER = re.compile("[a-z]")
_KANA_LETTER = re.compile("[ァ-ヺー]")
_KANJI_LETTER = re.compile(KANJI)
_DIGIT = re.compile(r"\d")


def _forms(person: str) -> Iterator[str]:
    for parts in _parts(person):
        joined = "".join(parts)
        if joined.isascii():
            if len(parts) < 2:
                continue  # a Latin word alone may be any word
            first, last = parts[0], " ".join(parts[1:])
            yield from (f"{first}{between}{last}" for between in (" ", "^", ",", ", "))
            yield from (f"{last} {first}", f"{last}^{first}")
            continue
        if len(joined) < 2 or (len(parts) < 2 and len(joined) < 3):
            continue
        for form in {joined, "^".join(parts)}:
            yield form
            if _ONLY_KANA.fullmatch(form):
                yield form.translate(_HIRAGANA)


class KnownSearch:
    """One pass over a text for everything known."""

    def __init__(self, known: KnownNames, fold: Callable[[str], str]) -> None:
        forms: dict[str, Kind] = {}
        for person in known.persons:
            forms.update(dict.fromkeys(map(_compacted, _forms(fold(person))), "person"))
        for kind, value in known.identifiers:
            form = _compacted(fold(value))
            if len(form) >= _SHORTEST_NUMBER:
                forms.setdefault(form, kind)
        self._kinds = list(forms.values())
        self._search = AhoCorasick(list(forms), store_patterns=False) if forms else None

    def find(self, view: View) -> Iterator[Hit]:
        """Everything known that stands in a view, also across blanks and line breaks."""
        if self._search is None:
            return
        squeezed = compact(view.text)
        for at, start, end in self._search.find_matches_as_indexes(squeezed.text, overlapping=True):
            if _whole(squeezed.text, start, end):
                kind = self._kinds[at]
                yield Hit(*squeezed.span(start, end), kind, "known", f"known.{kind}")


def _compacted(form: str) -> str:
    return compact(form.strip()).text


def _whole(text: str, start: int, end: int) -> bool:
    """Not the inside of a longer word or number."""
    before, after = text[start - 1 : start], text[end : end + 1]
    for letter in (_DIGIT, _LETTER, _KANA_LETTER):
        if (letter.match(text[start]) and letter.match(before)) or (
            letter.match(text[end - 1]) and letter.match(after)
        ):
            return False
    if end - start == 2 and _ONLY_KANJI.fullmatch(text, start, end):
        return not (_KANJI_LETTER.match(before) or _KANJI_LETTER.match(after))
    return True
