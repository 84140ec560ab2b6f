"""Dates, times and ages, in the forms hospitals write."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportlabel.errors import ConfigError
from reportlabel.ingest.dates import (
    DateRules,
    age_on,
    is_blank,
    parse_age,
    parse_clock,
    parse_day,
    parse_moment,
    to_japan,
)
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.read_yaml import parse, read_yaml

ERAS = (
    ("令和", "R", 5, date(2019, 5, 1)),
    ("平成", "H", 4, date(1989, 1, 8)),
    ("昭和", "S", 3, date(1926, 12, 25)),
    ("大正", "T", 2, date(1912, 7, 30)),
    ("明治", "M", 1, date(1868, 1, 25)),
)


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("令和元年5月1日", date(2019, 5, 1)),
        ("令和1年5月1日", date(2019, 5, 1)),
        ("平成31年4月30日", date(2019, 4, 30)),
        ("令和5年3月14日（火）", date(2023, 3, 14)),
        ("令和 5年 3月 4日", date(2023, 3, 4)),
        ("令5.3.14", date(2023, 3, 14)),
        ("㋿5年3月14日", date(2023, 3, 14)),
        ("R5.3.14", date(2023, 3, 14)),
        ("r5.3.14", date(2023, 3, 14)),
        ("Ｒ５．３．１４", date(2023, 3, 14)),
        ("R05/03/14", date(2023, 3, 14)),
        ("R5-3-14", date(2023, 3, 14)),
        ("H30.5.1", date(2018, 5, 1)),
        ("S23.12.30", date(1948, 12, 30)),
        ("昭和64年1月7日", date(1989, 1, 7)),
        ("5050314", date(2023, 3, 14)),
        ("R050314", date(2023, 3, 14)),
        ("2023/3/14", date(2023, 3, 14)),
        ("2023-03-14", date(2023, 3, 14)),
        ("2023.03.14", date(2023, 3, 14)),
        ("2023年3月14日", date(2023, 3, 14)),
        ("２０２３／０３／１４", date(2023, 3, 14)),
        ("2023−03−14", date(2023, 3, 14)),
        ("20230314", date(2023, 3, 14)),
        ("20230314090507", date(2023, 3, 14)),
        ("43905", date(2020, 3, 15)),
        ("9999", date(1927, 5, 17)),
        (" 2023/03/14 ", date(2023, 3, 14)),
    ],
)
def test_days(text: str, day: date) -> None:
    assert parse_day(text) == day


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("平成31年6月3日", date(2019, 6, 3)),  # people go on with an era that has ended
        ("H32.1.6", date(2020, 1, 6)),
        ("平成元年1月3日", date(1989, 1, 3)),  # and begin it with the year
    ],
)
def test_days_outside_their_era(text: str, day: date) -> None:
    assert parse_day(text) == day


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00000000",
        "2023/02/29",
        "2023/13/01",
        "H45.1.1",
        "昭和99年1月1日",
        "R0.3.14",
        "05/03/14",
        "14/3/2023",
        "3/14/2023",
        "2023",
        "1948",
        "2023-03",
        "令和5年3月",
        "不明",
        "0021/04/05",
        "30000101",
        "右下葉",
        "2023/03/14 25:99",
        "٢٠٢٣/٠٣/١٤",
    ],
)
def test_what_is_no_day(text: str) -> None:
    assert parse_day(text) is None
    assert parse_moment(None) is None


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2023-03", date(2023, 3, 1)),
        ("202303", date(2023, 3, 1)),
        ("2023", date(2023, 1, 1)),
        ("令和5年3月", date(2023, 3, 1)),
        ("H30.5", date(2018, 5, 1)),
        ("令和元年", date(2019, 1, 1)),
        ("2023-03-14", date(2023, 3, 14)),
    ],
)
def test_a_month_or_year_is_its_first_day_where_asked(text: str, day: date) -> None:
    assert parse_day(text, partial=True) == day


@given(st.dates(date(1868, 1, 25), date(2149, 12, 31)), st.integers(0, 2359))
def test_every_form_of_a_day_is_read_back(day: date, clock: int) -> None:
    name, letter, digit, start = next(era for era in ERAS if day >= era[3])
    year = day.year - start.year + 1
    first = "元" if year == 1 else str(year)
    forms = [
        f"{day:%Y}/{day.month}/{day.day}".zfill(8) if day.year < 1000 else f"{day.year}/{day.month}/{day.day}",
        f"{day.year:04d}{day:%m%d}",
        f"{day.isoformat()}",
        f"{day.year}年{day.month}月{day.day}日",
    ]
    if year < 100:
        forms += [
            f"{name}{first}年{day.month}月{day.day}日",
            f"{name}{year:02d}年{day:%m}月{day:%d}日",
            f"{letter}{year}.{day.month}.{day.day}",
            f"{letter}{year:02d}/{day:%m}/{day:%d}",
            f"{letter.lower()}{year:02d}{day:%m%d}",
            f"{digit}{year:02d}{day:%m%d}",
        ]
    serial = (day - date(1899, 12, 30)).days
    if serial >= 10_000:
        forms.append(str(serial))
    for form in forms:
        assert parse_day(form) == day, form
    hour, minute = divmod(clock, 100)
    if minute < 60:
        moment = datetime.combine(day, datetime.min.time()) + timedelta(hours=hour, minutes=minute)
        for form in forms[:-1]:
            assert parse_moment(form, clock=f"{hour}:{minute:02d}") == moment, form
        for form in forms[2:4]:
            assert parse_moment(f"{form} {hour}:{minute:02d}") == moment, form


@given(st.text(max_size=20))
def test_no_text_raises(text: str) -> None:
    for partial in (False, True):
        parse_day(text, partial=partial)
        parse_moment(text, clock=text, partial=partial)
    parse_clock(text)
    parse_age(text)
    is_blank(text)


@pytest.mark.parametrize(
    ("text", "clock", "moment"),
    [
        ("2023/03/14 09:05", None, datetime(2023, 3, 14, 9, 5)),
        ("2023/3/14 9:05:07", None, datetime(2023, 3, 14, 9, 5, 7)),
        ("20230314 090507", None, datetime(2023, 3, 14, 9, 5, 7)),
        ("20230314090507123", None, datetime(2023, 3, 14, 9, 5, 7)),
        ("202303140905", None, datetime(2023, 3, 14, 9, 5)),
        ("令和5年3月14日 午後3時5分", None, datetime(2023, 3, 14, 15, 5)),
        ("2023/3/14 3:05 PM", None, datetime(2023, 3, 14, 15, 5)),
        ("2023/3/14 12:05 AM", None, datetime(2023, 3, 14, 0, 5)),
        ("R5/3/13 24:15", None, datetime(2023, 3, 14, 0, 15)),
        ("R5.12.31", "24:00", datetime(2024, 1, 1)),
        ("2023/3/13", "25:30", datetime(2023, 3, 14, 1, 30)),
        ("2023/3/14", "905", datetime(2023, 3, 14, 9, 5)),
        ("20230314", "090507.250000", datetime(2023, 3, 14, 9, 5, 7)),
        ("20230314", "23:59:60", datetime(2023, 3, 14, 23, 59, 59)),
        ("2023/3/14 08:00", "9:05", datetime(2023, 3, 14, 9, 5)),
        ("2023/3/14", "?", datetime(2023, 3, 14)),
        ("43905.378125", None, datetime(2020, 3, 15, 9, 4, 30)),
        ("2023-03-14T09:05:07+09:00", None, datetime(2023, 3, 14, 9, 5, 7)),
        ("2023-03-13T16:05:07.123Z", None, datetime(2023, 3, 14, 1, 5, 7)),
        ("20230314090507-0500", None, datetime(2023, 3, 14, 23, 5, 7)),
    ],
)
def test_moments(text: str, clock: str | None, moment: datetime) -> None:
    assert parse_moment(text, clock=clock) == moment


@pytest.mark.parametrize("text", ["30:00", "12:60", "午後13時", "abc", "", "1234567"])
def test_what_is_no_time(text: str) -> None:
    assert parse_clock(text) is None


def test_a_fraction_is_a_time_of_a_spreadsheet() -> None:
    assert parse_clock("0.5") == timedelta(hours=12)
    assert parse_clock("9") == timedelta(hours=9)


def test_a_zone_is_taken_away_after_converting() -> None:
    abroad = datetime(2023, 3, 13, 20, 0, 0, 5, tzinfo=timezone(timedelta(hours=-4)))
    assert to_japan(abroad) == datetime(2023, 3, 14, 9)
    assert to_japan(datetime(2023, 3, 14, 9, 0, 0, 5)) == datetime(2023, 3, 14, 9)


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("068Y", 68),
        ("68歳", 68),
        ("６８歳", 68),
        ("68", 68),
        ("満70才", 70),
        ("68歳3か月", 68),
        ("006M", 0),
        ("18ヶ月", 1),
        ("400D", 1),
        ("生後10日", 0),
        ("000Y", 0),
        ("200", None),
        ("", None),
        ("成人", None),
    ],
)
def test_ages(text: str, years: int | None) -> None:
    assert parse_age(text) == years


def test_age_on_a_day() -> None:
    born = date(1948, 12, 30)
    assert age_on(date(2021, 12, 29), born) == 72
    assert age_on(date(2021, 12, 30), born) == 73
    assert age_on(date(1948, 1, 1), born) is None


@pytest.mark.parametrize("text", ["", None, "  ", "00000000", "0000/00/00", "9999/99/99", "99999999", "/  /", "--"])
def test_blank(text: str | None) -> None:
    assert is_blank(text)


def test_what_is_written_is_not_blank() -> None:
    assert not is_blank("20230230")
    assert not is_blank("不明")


def test_an_unknown_key_names_file_and_line(tmp_path: Path) -> None:
    text = (rules_folder() / "ingest/dates.yaml").read_text(encoding="utf-8")
    path = tmp_path / "dates.yaml"
    path.write_text(text + "\nweekday: [月]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"dates.yaml:{text.count(chr(10)) + 2}: unknown key 'weekday'"):
        parse(read_yaml(path), DateRules)
