"""Dates in report texts: found, moved, or counted from the exam.

Western and Japanese calendars (2023/8/15, 令和5年8月15日, R5.8.15), also without day or year. What may be something
else as well (3/12, R5.3) is a date only beside a word that says so; see ``dates`` in ``rules/deidentify.yaml``.

Policies: *keep* leaves dates; *shift* moves all dates of a patient by the same secret number of days, so that intervals
stay true; *relative* says how long before the exam; *mask* leaves a token. Birth dates are never kept.
"""

from __future__ import annotations

import calendar
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Literal, get_args

from reportlabel.deidentify.text_rules import DateWords, RelativeDates
from reportlabel.errors import ConfigError

__all__ = ["DateFinder", "DatePolicy", "FoundDate", "Policy", "any_of", "relative_date", "rewritten"]

Policy = Literal["keep", "shift", "relative", "mask"]

_SHORTEST_KEY = 16
_OLDEST_YEAR, _NEWEST_YEAR = 1868, 2199
_DAYS_PER_YEAR = 365.2425
_LETTER_YEARS_SINCE = 20  # S8.4.5 may be liver segments; few findings are older than 1945


@dataclass(frozen=True)
class DatePolicy:
    """What happens to dates.

    ``key``: secret of the shift (`LinkageStore.date_key`), needed for *shift* only. ``largest_shift``: days.
    """

    kind: Policy
    key: bytes = b""
    largest_shift: int = 365

    def __post_init__(self) -> None:
        if self.kind not in get_args(Policy):
            raise ConfigError(f"no date policy '{self.kind}'; one of {', '.join(get_args(Policy))}")
        if self.kind == "shift" and (len(self.key) < _SHORTEST_KEY or self.largest_shift < 1):
            raise ConfigError("shifted dates need the date key of the linkage store and a largest shift above 0")

    def shift_of(self, patient: str) -> timedelta:
        """The shift of a patient: the same for all his dates, never zero. HMAC-SHA256 of the patient under the key."""
        drawn = int.from_bytes(hmac.new(self.key, patient.encode("utf-8"), hashlib.sha256).digest()[:8], "big")
        days = drawn % (2 * self.largest_shift)
        return timedelta(days=days - self.largest_shift + (days >= self.largest_shift))


@dataclass(frozen=True, slots=True)
class FoundDate:
    """A date in a text; offsets are those of the text that was searched.

    ``year``, ``month``, ``day``: None where it is not said. ``era``: as it is in the rules, None for western years.
    ``parts``: which digits stand for what (start, end); ``mark``: span of the era word. ``birth``: a date of birth.
    """

    start: int
    end: int
    year: int | None
    month: int | None
    day: int | None
    era: str | None
    parts: tuple[tuple[str, int, int], ...]
    mark: tuple[int, int] | None
    birth: bool = False

    def resolved(self, exam_day: date | None) -> date | None:
        """The day it means, the middle of a month or year that has no day; None where that cannot be told.

        Without a year it is the last such day up to the exam.
        """
        year = self.year
        if year is None:
            if exam_day is None or self.month is None:
                return None
            year = exam_day.year
            if (self.month, self.day or 1) > (exam_day.month, exam_day.day):
                year -= 1
        if self.month is None:
            return _day(year, 7, 1)
        return _day(year, self.month, 15 if self.day is None else self.day)


def _day(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None


def any_of(words: Iterable[str]) -> str:
    """A pattern for one of the words, the longest first; fits nothing where there is none."""
    ordered = sorted({word for word in words if word}, key=len, reverse=True)
    return "(?:" + "|".join(re.escape(word) for word in ordered) + ")" if ordered else "(?!)"


@dataclass(frozen=True)
class DateFinder:
    """Finds dates. ``fold``: the normalisation that was applied to the text searched."""

    words: DateWords
    fold: Callable[[str], str]

    def find(self, text: str, exam_day: date | None = None) -> Iterator[FoundDate]:
        """Dates in order, without overlaps. In: normalised text."""
        match = self._pattern.search(text)
        while match is not None:
            found = self._read(text, match, exam_day)
            if found is not None:
                yield found
            match = self._pattern.search(text, match.start() + 1 if found is None else found.end)

    def _read(self, text: str, match: re.Match[str], exam_day: date | None) -> FoundDate | None:
        form = match.lastgroup
        assert form is not None
        parts: list[tuple[str, int, int]] = []
        values: dict[str, int | None] = {"y": None, "m": None, "d": None}
        for part in ("y", "m", "d"):
            name = f"{form}_{part}"
            if name in self._pattern.groupindex and match[name] is not None:
                values[part] = 1 if match[name] == self._first else int(match[name])
                parts.append((part, *match.span(name)))
        era, mark = None, None
        if f"{form}_e" in self._pattern.groupindex and match[f"{form}_e"] is not None:
            mark = match.span(f"{form}_e")
            era = self._eras[match[f"{form}_e"]]
            values["y"] = (values["y"] or 0) + self.words.eras[era].from_.year - 1
        year, month, day = values["y"], values["m"], values["d"]
        birth = self._is_birth(text, match)
        if not birth and not self._plausible(text, match, form, year, exam_day):
            return None
        if form in ("month", "month_day", "slash"):
            year = self._said_year(text, match.start(), exam_day)
        if month is not None and not _valid(year, month, day):
            return None
        if year is not None and not _OLDEST_YEAR <= year <= _NEWEST_YEAR:
            return None
        born = self._birth_after.match(text, match.end()) if birth else None
        end = match.end() if born is None else born.end()
        return FoundDate(match.start(), end, year, month, day, era, tuple(parts), mark, birth)

    def _said_year(self, text: str, start: int, exam_day: date | None) -> int | None:
        if exam_day is None:
            return None
        before = text[max(0, start - 6) : start].rstrip()
        for word, years in self.words.relative_years.items():
            if before.endswith(self.fold(word)):
                return exam_day.year + years
        return None

    def _is_birth(self, text: str, match: re.Match[str]) -> bool:
        return bool(self._birth_before.search(text[max(0, match.start() - 24) : match.start()])) or bool(
            self._birth_after.match(text, match.end())
        )

    def _plausible(self, text: str, match: re.Match[str], form: str, year: int | None, exam_day: date | None) -> bool:
        before, after = text[max(0, match.start() - 10) : match.start()], text[match.end() : match.end() + 8]
        if form == "letter":
            newest = (exam_day.year if exam_day is not None else date.today().year) + 1
            letter = match["letter_e"]
            if year is None or not 1900 <= year <= newest or (year < 1926 + _LETTER_YEARS_SINCE):
                return False
            if match["letter_d"] is not None or self._first == match["letter_y"]:
                return True
            return letter in self._letters[:2] and self._beside(before, after)
        if form == "slash":
            if self._not_before.search(before) or self._not_after.match(after):
                return False
            if match[0] in self._fractions:
                return bool(self._strong_after.match(after))
            return self._beside(before, after)
        if form == "month":
            return not self._not_after.match(after)
        return True

    def _beside(self, before: str, after: str) -> bool:
        return bool(self._cue_before.search(before) or self._cue_after.match(after)) and not (
            self._not_before.search(before) or self._not_after.match(after)
        )

    # --- compiled words

    @cached_property
    def _first(self) -> str:
        return self.fold("元")

    @cached_property
    def _eras(self) -> dict[str, str]:
        return {
            form: name
            for name, era in self.words.eras.items()
            for form in (self.fold(name), era.letter, self.fold(era.short))
        }

    @cached_property
    def _letters(self) -> list[str]:
        """Letters of the eras, the newest first."""
        return [era.letter for era in sorted(self.words.eras.values(), key=lambda era: era.from_, reverse=True)]

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        names = any_of(self.fold(name) for name in self.words.eras)
        shorts = any_of(self.fold(era.short) for era in self.words.eras.values())
        letters = any_of(self._letters)
        year, two, first = r"(?:18|19|20)\d\d", r"\d{1,2}", re.escape(self._first)
        gap, sep = r"[ \t]{0,2}", r"[/.\-]"
        no_month = any_of(map(self.fold, self.words.not_after_month))
        forms = {
            "era": rf"(?P<era_e>{names}){gap}(?P<era_y>{first}|{two}){gap}(?:年度?{gap}(?:(?P<era_m>{two}){gap}月"
            rf"(?:{gap}(?P<era_d>{two}){gap}日)?)?)",
            "era_dots": rf"(?P<era_dots_e>{names}|{shorts}){gap}(?P<era_dots_y>{first}|{two})({sep}){gap}"
            rf"(?P<era_dots_m>{two})(?:{sep}{gap}(?P<era_dots_d>{two}))?(?!\d)",
            "letter": rf"(?<![a-z0-9])(?P<letter_e>{letters})\.?{gap}(?P<letter_y>{first}|{two})"
            rf"(?P<letter_s>{sep}){gap}(?P<letter_m>{two})(?:(?P=letter_s){gap}(?P<letter_d>{two}))?(?![\d%]|[.,]\d)",
            "letter_kanji": rf"(?<![a-z0-9])(?P<letter_kanji_e>{letters})\.?{gap}(?P<letter_kanji_y>{first}|{two})"
            rf"{gap}年度?(?:{gap}(?P<letter_kanji_m>{two}){gap}月(?:{gap}(?P<letter_kanji_d>{two}){gap}日)?)?",
            "kanji": rf"(?<!\d)(?P<kanji_y>{year}){gap}年{gap}(?P<kanji_m>{two}){gap}月"
            rf"(?:{gap}(?P<kanji_d>{two}){gap}日)?",
            "full": rf"(?<![\d.])(?P<full_y>{year})(?P<full_s>{sep}){gap}(?P<full_m>{two})(?P=full_s){gap}"
            rf"(?P<full_d>{two})(?![\d]|[.]\d)",
            "digits": r"(?<!\d)(?P<digits_y>(?:19|20)\d\d)(?P<digits_m>0[1-9]|1[0-2])"
            r"(?P<digits_d>0[1-9]|[12]\d|3[01])(?!\d)",
            "year_month": r"(?<![\d./\-])(?P<year_month_y>(?:19|20)\d\d)[/.\-](?P<year_month_m>1[0-2]|0?[1-9])"
            r"(?![\d%]|[.,/\-]\d| ?[cm]m)",
            "year": rf"(?<!\d)(?P<year_y>{year}){gap}年度?",
            "month_day": rf"(?<!\d)(?P<month_day_m>1[0-2]|0?[1-9]){gap}月{gap}(?P<month_day_d>{two}){gap}日",
            "month": rf"(?<![\d.])(?P<month_m>1[0-2]|[1-9])月(?!{no_month})",
            "slash": r"(?<![\d/.\-a-z])(?P<slash_m>1[0-2]|0?[1-9])/(?P<slash_d>3[01]|[12]\d|0?[1-9])(?![\d/.])",
        }
        joined = "|".join(f"(?P<{name}>{form})" for name, form in forms.items())
        return re.compile(joined)

    @cached_property
    def _fractions(self) -> frozenset[str]:
        return frozenset(self.words.fractions)

    @cached_property
    def _cue_before(self) -> re.Pattern[str]:
        return re.compile(any_of(map(self.fold, self.words.cues_before)) + r"[ :(（は、\n]{0,3}$")

    @cached_property
    def _cue_after(self) -> re.Pattern[str]:
        return re.compile(r"[ ]?" + any_of(map(self.fold, self.words.cues_after)))

    @cached_property
    def _strong_after(self) -> re.Pattern[str]:
        return re.compile(r"[ ]?" + any_of(map(self.fold, self.words.strong_cues_after)))

    @cached_property
    def _not_before(self) -> re.Pattern[str]:
        words = [self.fold(word) for word in self.words.not_before]
        latin = any_of(word for word in words if word.isascii())
        other = any_of(word for word in words if not word.isascii())
        return re.compile(rf"(?:(?<![a-z]){latin}|{other})[ :(.=]{{0,2}}$")

    @cached_property
    def _not_after(self) -> re.Pattern[str]:
        return re.compile(r"[ ]?" + any_of(map(self.fold, self.words.not_after)))

    @cached_property
    def _birth_before(self) -> re.Pattern[str]:
        return re.compile(any_of(map(self.fold, self.words.birth_labels)) + r"[ \t\n:=(（は]{0,4}$")

    @cached_property
    def _birth_after(self) -> re.Pattern[str]:
        other = any_of(map(self.fold, self.words.birth_not_after))
        return re.compile(rf"[ ]?{any_of(map(self.fold, self.words.birth_after))}(?!{other})")


def _valid(year: int | None, month: int, day: int | None) -> bool:
    if not 1 <= month <= 12:
        return False
    return day is None or 1 <= day <= (31 if year is None else calendar.monthrange(year, month)[1])


def relative_date(found: FoundDate, meant: date, exam_day: date, words: RelativeDates) -> str:
    """How long before or after the exam a date was, as exactly as the date itself is."""
    if found.day is not None:
        n, same, before, after = (exam_day - meant).days, words.same_day, words.days_before, words.days_after
    elif found.month is not None:
        n = (exam_day.year - meant.year) * 12 + exam_day.month - meant.month
        same, before, after = words.same_month, words.months_before, words.months_after
    else:
        n = exam_day.year - meant.year
        same, before, after = words.same_year, words.years_before, words.years_after
    if n == 0:
        return same
    return (before if n > 0 else after).format(n=abs(n))


def rewritten(text: str, found: FoundDate, moved: date, words: DateWords) -> str:
    """The words of a date with another day in it: same calendar, same order, digits as wide and as many as before.

    In: ``text`` as it is stored, with the offsets of ``found``; ``moved``, the new day.
    """
    numbers = {"y": moved.year, "m": moved.month, "d": moved.day}
    changes: list[tuple[int, int, str]] = []
    if found.era is not None and found.mark is not None:
        name, era = next(
            (name, era)
            for name, era in sorted(words.eras.items(), key=lambda one: one[1].from_, reverse=True)
            if moved >= era.from_ or era is min(words.eras.values(), key=lambda one: one.from_)
        )
        numbers["y"] = max(1, moved.year - era.from_.year + 1)
        changes.append((*found.mark, _like(text[slice(*found.mark)], name, era.letter, era.short)))
    changes += [(start, end, _number(numbers[part], text[start:end])) for part, start, end in found.parts]
    pieces, at = [], found.start
    for start, end, new in sorted(changes):
        pieces += [text[at:start], new]
        at = end
    return "".join([*pieces, text[at : found.end]])


_FULL_WIDTH = str.maketrans("0123456789", "０１２３４５６７８９")


def _number(value: int, old: str) -> str:
    new = str(value).zfill(len(old)) if (len(old) > 1 and old[0] in "0０") or len(old) == 4 else str(value)
    return new.translate(_FULL_WIDTH) if any("０" <= character <= "９" for character in old) else new


def _like(old: str, name: str, letter: str, short: str) -> str:
    if len(old) > 1:
        return name
    if not old.isascii() and not ("Ａ" <= old <= "ｚ"):
        return short
    new = letter.upper() if old.isupper() else letter
    return new if old.isascii() else chr(ord(new) + 0xFEE0)
