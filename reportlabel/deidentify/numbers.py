"""Telephone numbers, numbers of persons, exams and specimens, addresses on the net, ages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from reportlabel.deidentify.characters import DASH, Hit, View
from reportlabel.deidentify.dates import any_of
from reportlabel.deidentify.text_rules import TextRules

__all__ = ["NumberFinder"]

_URL = re.compile(
    r"(?:https?://|www\.)[^\s、。)）」\]]+"
    r"|(?<![\w@.])[a-z0-9][a-z0-9.\-]*\.(?:co\.jp|or\.jp|ac\.jp|go\.jp|ne\.jp|com|net|org)(?![a-z])(?:/[^\s、。)）」\]]*)?"
)
_EMAIL = re.compile(r"[a-z0-9_.+\-]+@[a-z0-9\-]+(?:\.[a-z0-9\-]+)+")
_BARE_PHONE = re.compile(
    rf"(?<![\d.])(?<!\d{DASH})(?:\+81[- ]?\d{{1,4}}{DASH}\d{{1,4}}{DASH}\d{{3,4}}"
    rf"|0\d{{1,4}}{DASH}\d{{1,4}}{DASH}\d{{3,4}}|0[5789]0\d{{8}}|\(0\d{{1,4}}\) ?\d{{1,4}}{DASH}\d{{4}})(?!{DASH}?\d)"
)
_LEAST_DIGITS = 4


class NumberFinder:
    """Finds numbers and addresses on the net in normalised text."""

    def __init__(self, rules: TextRules, fold: Callable[[str], str], *, oldest_age: int | None) -> None:
        self._oldest_age = oldest_age
        labels = any_of(fold(word) for word in rules.phones.labels)
        self._phone = re.compile(rf"(?<![a-z]){labels}[ \t]*[:.]?[ \t]*(?P<n>\+?\(?\d(?:[\d() \t]|{DASH}){{4,16}}\d)")
        inside = any_of(fold(word) for word in rules.phones.inside)
        number = any_of(fold(word) for word in rules.ids.number_words)
        self._extension = re.compile(
            rf"(?P<n>(?<![a-z]){inside}[ \t]*{number}?[ \t]*[:#.(]?[ \t]*\d{{2,8}}(?:{DASH}\d+)*)"
        )
        ids = any_of(fold(word) for word in rules.ids.labels)
        self._labelled = re.compile(
            rf"(?<![a-z]){ids}[ \t]*(?:no\.?|№|#|{number})?[ \t]*[:=]?[ \t]*"
            rf"(?P<n>[a-z]{{0,4}}(?:{DASH}|\d)(?:[\da-z./]|{DASH})*\d)"
        )
        self._patterns = {
            name: re.compile(rf"(?<![\da-z])(?<!\d[.,])(?:{pattern})(?![\da-z])(?!\.\d)")
            for name, pattern in rules.ids.patterns.items()
        }
        self._units = re.compile(r" ?" + any_of(fold(word) for word in rules.ids.units))
        self._age = re.compile(
            rf"(?<![\d.])(?P<n>\d{{2,3}}) ?{any_of(fold(word) for word in rules.ages.units)}(?![a-z])"
        )

    def find(self, view: View) -> Iterator[Hit]:
        """Everything of these kinds, in no order."""
        text = view.text
        for match in _URL.finditer(text):
            yield Hit(*match.span(), "url", "form", "url")
        for match in _EMAIL.finditer(text):
            yield Hit(*match.span(), "email", "form", "email")
        for match in self._phone.finditer(text):
            if _digits(match["n"]) >= _LEAST_DIGITS:
                yield Hit(*match.span("n"), "phone", "labelled", "phone.label")
        for match in self._extension.finditer(text):
            yield Hit(*match.span("n"), "phone", "labelled", "phone.extension")
        for match in _BARE_PHONE.finditer(text):
            yield Hit(*match.span(), "phone", "form", "phone.form")
        for match in self._labelled.finditer(text):
            if _digits(match["n"]) >= _LEAST_DIGITS and not self._units.match(text, match.end()):
                yield Hit(*match.span("n"), "id", "labelled", "id.label")
        for name, pattern in self._patterns.items():
            for match in pattern.finditer(text):
                if not self._units.match(text, match.end()):
                    yield Hit(*match.span(), "id", "doubt" if match[0].isdigit() else "form", f"id.{name}")
        if self._oldest_age is not None:
            for match in self._age.finditer(text):
                if int(match["n"]) > self._oldest_age:
                    yield Hit(*match.span(), "age", "form", "age.oldest")


def _digits(text: str) -> int:
    return sum(character.isdigit() for character in text)
