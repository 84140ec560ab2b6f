"""Japanese dates, times and ages, in every way hospitals write them; all readers use this module.

    parse_day("令和元年5月1日")             date(2019, 5, 1)
    parse_day("H31.6.3")                    date(2019, 6, 3)       people go on with an era that has ended
    parse_day("43905")                      date(2020, 3, 15)      a spreadsheet's number of days
    parse_moment("R5/3/13 24:15")           datetime(2023, 3, 14, 0, 15)
    parse_moment("20230314", clock="0905")  datetime(2023, 3, 14, 9, 5)
    parse_moment("2023-03-14T00:05:07Z")    datetime(2023, 3, 14, 9, 5, 7)
    parse_age("068Y"), parse_age("６８歳")  68, 68

What cannot be read is None, never an error; `is_blank` tells "nothing written" from "cannot be read". Words (eras,
元年, units) are in rules/ingest/dates.yaml. A year of two digits without an era (05/03/14) and a day before the month
(14/3/2023) mean nothing certain and are None.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from functools import lru_cache
from typing import Annotated

from pydantic import Field

from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.models import Strict
from reportlabel.rulebook.read_yaml import parse, read_yaml

__all__ = ["age_on", "is_blank", "parse_age", "parse_clock", "parse_day", "parse_moment", "to_japan"]

JAPAN = timezone(timedelta(hours=9))
_DAY_0_OF_SPREADSHEETS = date(1899, 12, 30)
_CACHED = 65_536

_ISO_DAY = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})", re.ASCII)
_COMPACT = re.compile(
    r"(?P<day>\d{8})[ T]*(?:(?P<clock>\d{2}(?:\d{2}(?:\d{2}(?:\.\d*|\d{3,6})?)?)?))?(?P<zone>Z|[+-]\d\d:?\d\d)?",
    re.ASCII,
)
_SERIAL = re.compile(r"(\d{4,5})(\.\d+)?", re.ASCII)
_DIGITS_OF_A_CLOCK = re.compile(r"(\d{1,6})(?:\.\d*|(?<=\d{6})\d{3,6})?", re.ASCII)
_FRACTION_OF_A_DAY = re.compile(r"0?\.\d+", re.ASCII)
_ZONE = re.compile(r"([+-])(\d\d):?(\d\d)", re.ASCII)
_BRACKETED = re.compile(r"\([^()\d]*\)")
_NOTHING = re.compile(r"[0\s/.:\-]*|[9\s/.:\-]*")
# NFKC leaves them: hyphens, dashes and minus signs, and the prolonged sound mark that stands for them in dates
_DASHES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u30fc", "-"))


class Era(Strict):
    """An era: how it is written and when it began."""

    names: Annotated[list[str], Field(min_length=1)]
    letter: Annotated[str, Field(pattern="^[A-Z]$")]
    digit: Annotated[int, Field(ge=1, le=9)]
    starts: date


class AgeWords(Strict):
    """Units of ages."""

    years: list[str]
    months: list[str]
    weeks: list[str]
    days: list[str]
    ignored: list[str]
    most_years: int


class DateRules(Strict):
    """rules/ingest/dates.yaml."""

    eras: Annotated[list[Era], Field(min_length=1)]
    years_after_an_era: int
    first_year: list[str]
    year: list[str]
    month: list[str]
    day: list[str]
    hour: list[str]
    minute: list[str]
    second: list[str]
    morning: list[str]
    afternoon: list[str]
    last_hour: Annotated[int, Field(ge=24)]
    earliest: date
    latest: date
    age: AgeWords


@dataclass(frozen=True)
class _Forms:
    """The rules, compiled. ``moment`` is a day with or without a time; ``month`` a month or a year without a day."""

    rules: DateRules
    moment: re.Pattern[str]
    month: re.Pattern[str]
    short_era: re.Pattern[str]
    clock: re.Pattern[str]
    age: re.Pattern[str]
    eras: dict[str, Era]
    last_year: dict[str, int]
    afternoon: frozenset[str]


def parse_day(text: str | None, *, partial: bool = False) -> date | None:
    """The day; a time after it is left out, but 24:00 is the next day.

    ``partial``: a month or a year alone (2023-03, 令和5年3月, 2023) is its first day.
    """
    moment = parse_moment(text, partial=partial)
    return moment.date() if moment else None


def parse_moment(text: str | None, *, clock: str | None = None, partial: bool = False) -> datetime | None:
    """Day and time, local time of Japan, to the second.

    Args:
        text: a day, or a day and a time; with a time zone it is converted.
        clock: the time, where it stands by itself; it wins over one in ``text``. A clock that cannot be read is none.
        partial: a month or a year alone is its first day.

    Without a time it is 00:00:00.
    """
    if not text:
        return None
    moment = _moment(text, partial)
    if moment is None or not clock:
        return moment
    since = parse_clock(clock)
    return moment if since is None else _add(datetime.combine(moment.date(), time()), since)


def parse_clock(text: str | None) -> timedelta | None:
    """The time since midnight: 9:05, 09:05:07, 0905, 090507.25, 9時5分, 午後3時; 24:15 is more than a day.

    A number below 1 with a point is a spreadsheet's fraction of a day.
    """
    return _clock(text) if text else None


def parse_age(text: str | None) -> int | None:
    """Completed years: 068Y, 68歳, 68歳3か月, 68, 006M, 生後10日."""
    return _age(text) if text else None


def age_on(day: date, birth: date) -> int | None:
    """Completed years at a day; None before the birth."""
    if day < birth:
        return None
    return day.year - birth.year - ((day.month, day.day) < (birth.month, birth.day))


def is_blank(text: str | None) -> bool:
    """Whether no date is written: nothing, or zeros or nines that stand for unknown (00000000, 9999/99/99)."""
    return not text or _NOTHING.fullmatch(_narrow(text)) is not None


def to_japan(moment: datetime) -> datetime:
    """Without a zone, to the second; a moment with a zone is converted to the time of Japan."""
    if moment.tzinfo is not None:
        moment = moment.astimezone(JAPAN).replace(tzinfo=None)
    return moment.replace(microsecond=0)


# --- reading ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _forms() -> _Forms:
    rules = parse(read_yaml(rules_folder() / "ingest" / "dates.yaml"), DateRules)
    eras = {name.upper(): era for era in rules.eras for name in (*era.names, era.letter, str(era.digit))}
    newest_first = sorted(rules.eras, key=lambda era: era.starts, reverse=True)
    last_year = {}
    following: Era | None = None
    for era in newest_first:
        ended = following.starts.year if following else rules.latest.year
        last_year[era.letter] = ended + rules.years_after_an_era if following else ended
        following = era

    def words(*lists: list[str]) -> str:
        known = sorted({word for one in lists for word in one}, key=len, reverse=True)
        return "|".join(re.escape(unicodedata.normalize("NFKC", word)) for word in known)

    names = words(*([*era.names, era.letter] for era in rules.eras))
    first, half = words(rules.first_year), words(rules.morning, rules.afternoon)
    dot = r"[-/.]"
    year = rf"(?:(?P<era>{names})\s*(?P<era_year>\d{{1,2}}|{first})|(?P<year>\d{{4}}))"
    # a comma too: some spreadsheets write it for the point of a fraction
    clock = (
        rf"(?:(?P<half>{half})\s*)?(?P<hour>\d{{1,2}})\s*(?::|{words(rules.hour)})"
        rf"\s*(?:(?P<minute>\d{{1,2}})\s*(?:{words(rules.minute)})?"
        rf"\s*(?::?\s*(?P<second>\d{{1,2}})(?:[.,]\d*)?\s*(?:{words(rules.second)})?)?)?"
        rf"\s*(?P<half_after>{half})?"
    )
    zone = r"\s*(?P<zone>Z|[+-]\d\d:?\d\d)?"
    day = (
        rf"{year}\s*(?:{dot}|{words(rules.year)})\s*(?P<month>\d{{1,2}})\s*(?:{dot}|{words(rules.month)})"
        rf"\s*(?P<day>\d{{1,2}})\s*(?:{words(rules.day)})?"
    )
    flags = re.ASCII | re.IGNORECASE
    age = rules.age
    rest = rf"(?:\d{{1,3}}\s*(?:{words(age.days)}))?"
    return _Forms(
        rules=rules,
        moment=re.compile(rf"{day}(?:[\s,T]*{clock}{zone})?", flags),
        month=re.compile(
            rf"{year}\s*(?:(?:{dot}|{words(rules.year)})?\s*(?P<month>\d{{1,2}})\s*(?:{words(rules.month)})?"
            rf"|(?:{words(rules.year)})?)",
            flags,
        ),
        short_era=re.compile(rf"(?P<era>[{''.join(era.letter for era in rules.eras)}1-9])(?P<day>\d{{6}})", flags),
        clock=re.compile(rf"{clock}{zone}", flags),
        age=re.compile(
            rf"(?:{words(age.ignored)})*\s*(?:"
            rf"(?P<years>\d{{1,3}})\s*(?:(?:{words(age.years)})\s*(?:\d{{1,3}}\s*(?:{words(age.months)})\s*)?{rest})?"
            rf"|(?P<months>\d{{1,4}})\s*(?:{words(age.months)})\s*{rest}"
            rf"|(?P<weeks>\d{{1,4}})\s*(?:{words(age.weeks)})"
            rf"|(?P<days>\d{{1,5}})\s*(?:{words(age.days)}))",
            flags,
        ),
        eras=eras,
        last_year=last_year,
        afternoon=frozenset(unicodedata.normalize("NFKC", word).upper() for word in rules.afternoon),
    )


def _narrow(text: str) -> str:
    return text.strip() if text.isascii() else unicodedata.normalize("NFKC", text).translate(_DASHES).strip()


@lru_cache(maxsize=_CACHED)
def _moment(text: str, partial: bool) -> datetime | None:
    if found := _ISO_DAY.fullmatch(text):
        return _at_midnight(_date(int(found[1]), int(found[2]), int(found[3])))
    forms = _forms()
    text = _BRACKETED.sub(" ", _narrow(text)).strip()
    if found := _COMPACT.fullmatch(text):
        written = found["day"]
        day = _date(int(written[:4]), int(written[4:6]), int(written[6:]))
        return _joined(day, parse_clock(found["clock"]) if found["clock"] else timedelta(), found["zone"])
    # a number of four digits that can be a year is none of days
    if (found := _SERIAL.fullmatch(text)) and int(found[1]) > forms.rules.latest.year:
        return _of_spreadsheet(int(found[1]), float(found[2] or 0))
    if found := forms.short_era.fullmatch(text):
        written = found["day"]
        era = forms.eras.get(found["era"].upper())
        year = _year_of(era, int(written[:2])) if era else None
        return _at_midnight(_date(year, int(written[2:4]), int(written[4:]))) if year else None
    if found := forms.moment.fullmatch(text):
        day = _date(_year(found), int(found["month"]), int(found["day"]))
        return _joined(day, _since_midnight(found) if found["hour"] else timedelta(), found["zone"])
    if partial and (found := forms.month.fullmatch(text)):
        return _at_midnight(_date(_year(found), int(found["month"] or 1), 1))
    return None


def _year(found: re.Match[str]) -> int | None:
    if found["year"]:
        return int(found["year"])
    forms = _forms()
    number = int(found["era_year"]) if found["era_year"].isdigit() else 1
    return _year_of(forms.eras[found["era"].upper()], number)


def _year_of(era: Era, number: int) -> int | None:
    """The year of an era; None for year 0 and long after its end."""
    year = era.starts.year + number - 1
    return year if number >= 1 and year <= _forms().last_year[era.letter] else None


def _date(year: int | None, month: int, day: int) -> date | None:
    if year is None:
        return None
    try:
        found = date(year, month, day)
    except ValueError:
        return None
    rules = _forms().rules
    return found if rules.earliest <= found <= rules.latest else None


def _at_midnight(day: date | None) -> datetime | None:
    return datetime.combine(day, time()) if day else None


def _joined(day: date | None, since: timedelta | None, zone: str | None) -> datetime | None:
    if day is None or since is None:
        return None
    moment = _add(datetime.combine(day, time()), since)
    if zone is None or moment is None:
        return moment
    offset = timedelta()
    if found := _ZONE.fullmatch(zone):
        offset = timedelta(hours=int(found[2]), minutes=int(found[3])) * (-1 if found[1] == "-" else 1)
    return _add(moment, timedelta(hours=9) - offset)


def _add(moment: datetime, since: timedelta) -> datetime | None:
    try:
        return moment + since
    except OverflowError:
        return None


def _of_spreadsheet(days: int, fraction: float) -> datetime | None:
    moment = _at_midnight(_DAY_0_OF_SPREADSHEETS + timedelta(days=days))
    assert moment is not None
    rules = _forms().rules
    if not rules.earliest <= moment.date() <= rules.latest:
        return None
    return moment + timedelta(seconds=round(fraction * 86_400))


@lru_cache(maxsize=_CACHED)
def _clock(text: str) -> timedelta | None:
    text = _narrow(text)
    if _FRACTION_OF_A_DAY.fullmatch(text):
        return timedelta(seconds=round(float(text) * 86_400))
    if found := _DIGITS_OF_A_CLOCK.fullmatch(text):
        digits = found[1]
        digits = digits.zfill(len(digits) + len(digits) % 2)  # a spreadsheet takes the first zero away
        parts = [int(digits[at : at + 2]) for at in range(0, len(digits), 2)]
        return _duration(*parts)
    written = _forms().clock.fullmatch(text)
    return _since_midnight(written) if written else None


def _since_midnight(found: re.Match[str]) -> timedelta | None:
    hour = int(found["hour"])
    half = found["half"] or found["half_after"]
    if half:
        if hour > 12:
            return None
        hour = hour % 12 + (12 if half.upper() in _forms().afternoon else 0)
    return _duration(hour, int(found["minute"] or 0), int(found["second"] or 0))


def _duration(hour: int, minute: int = 0, second: int = 0) -> timedelta | None:
    if hour > _forms().rules.last_hour or minute > 59 or second > 60:
        return None
    return timedelta(hours=hour, minutes=minute, seconds=min(second, 59))  # 60 is a leap second


@lru_cache(maxsize=_CACHED)
def _age(text: str) -> int | None:
    forms = _forms()
    found = forms.age.fullmatch(_narrow(text))
    if found is None:
        return None
    if found["years"]:
        years = int(found["years"])
    elif found["months"]:
        years = int(found["months"]) // 12
    else:
        days = int(found["days"]) if found["days"] else 7 * int(found["weeks"])
        years = int(days / 365.25)
    return years if years <= forms.rules.age.most_years else None
