"""Windows: their edges, ties, order of input, and what the reader could know."""

from datetime import datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reportlabel.link.windows import Choice, Window, link_records
from reportlabel.schema import LINKS, RECORDS

DAY = datetime(2024, 5, 10, 14, 30)
PATHOLOGY = Window("pathology", "pathology", 30, 180)


def exams(*days: datetime, site: str | None = "a", patient: str | None = "P") -> pl.DataFrame:
    return pl.DataFrame(
        {"exam_id": [f"E{at}" for at in range(len(days))], "started_at": list(days)},
    ).with_columns(site=pl.lit(site, dtype=pl.String), patient_id=pl.lit(patient, dtype=pl.String))


def signed(at: datetime | None = DAY + timedelta(hours=3)) -> pl.DataFrame:
    return pl.DataFrame(
        {"exam_id": ["E0"], "signed_at": [at]}, schema={"exam_id": pl.String, "signed_at": pl.Datetime("us")}
    )


def record(key: str, start: datetime | None, *, kind: str = "pathology", **others: object) -> dict[str, object]:
    return (
        dict.fromkeys(RECORDS.names())
        | {"record_id": key, "kind": kind, "site": "a", "patient_id": "P", "start_at": start}
        | others
    )


def linked(*records: dict[str, object], window: Window = PATHOLOGY, sign: pl.DataFrame | None = None) -> pl.DataFrame:
    table = pl.DataFrame(list(records), schema=RECORDS)
    return link_records(exams(DAY), table, [window], signed=signed() if sign is None else sign)


@pytest.mark.parametrize(("days", "inside"), [(-31, False), (-30, True), (0, True), (180, True), (181, False)])
def test_both_edges_are_inside(days: int, inside: bool) -> None:
    found = linked(record("K", datetime(2024, 5, 10) + timedelta(days=days)))
    assert found.height == inside
    assert found.schema == LINKS
    if inside:
        assert found["delta_days"].item() == days


def test_of_two_as_near_the_one_before_is_taken() -> None:
    nearest = Window("lab", "lab", 7, 7, choice="nearest")
    before, after = (record(str(days), DAY + timedelta(days=days), kind="lab", code="CRP") for days in (-2, 2))
    assert linked(after, before, window=nearest)["record_id"].to_list() == ["-2"]
    other = record("other", DAY + timedelta(days=5), kind="lab", code="WBC")
    assert linked(after, before, other, window=nearest)["record_id"].to_list() == ["-2", "other"]


@pytest.mark.parametrize(
    ("start", "end", "inside"),
    [(-400, -91, False), (-400, -90, True), (-400, None, True), (90, None, True), (91, None, False)],
)
def test_what_lasts_is_linked_by_its_time(start: int, end: int | None, inside: bool) -> None:
    window = Window("diagnosis", "diagnosis", 90, 90, overlap=True)
    until = None if end is None else DAY + timedelta(days=end)
    assert (
        linked(record("K", DAY + timedelta(days=start), kind="diagnosis", end_at=until), window=window).height == inside
    )


@pytest.mark.parametrize(
    ("known", "available"),
    [
        (DAY - timedelta(days=1), True),
        (DAY + timedelta(hours=2), True),
        (DAY + timedelta(hours=4), False),
        (DAY + timedelta(days=1), False),
        (datetime(2024, 5, 10), None),
        (datetime(2024, 5, 9), True),
    ],
)
def test_what_the_reader_could_know(known: datetime, available: bool | None) -> None:
    assert linked(record("K", DAY - timedelta(days=3), reported_at=known))["available_at_reading"].item() is available


@pytest.mark.parametrize(
    ("known", "available"),
    [
        (DAY - timedelta(days=1), True),
        (datetime(2024, 5, 9), True),
        (datetime(2024, 5, 10, 9), None),
        (datetime(2024, 5, 10, 0, 0, 1), None),
        (datetime(2024, 5, 10), None),
        (datetime(2024, 5, 11), False),
        (datetime(2024, 5, 11, 9), False),
    ],
)
def test_a_signature_with_a_day_only_tells_days(known: datetime, available: bool | None) -> None:
    found = linked(record("K", DAY - timedelta(days=3), reported_at=known), sign=signed(datetime(2024, 5, 10)))
    assert found["available_at_reading"].item() is available


def test_a_record_signed_and_known_in_the_same_second_was_known() -> None:
    at = DAY + timedelta(hours=3)
    assert linked(record("K", DAY, reported_at=at), sign=signed(at))["available_at_reading"].item() is True


def test_without_a_signature_nobody_can_tell() -> None:
    found = linked(record("K", DAY), sign=signed().clear())
    assert found["available_at_reading"].to_list() == [None]


def test_no_date_and_other_patients_are_not_linked() -> None:
    assert linked(record("K", None), record("L", DAY, patient_id="Q"), record("M", DAY, kind="lab")).is_empty()


@pytest.mark.parametrize(
    ("exam", "other", "same"),
    [
        (("a", "P"), ("a", "P"), True),
        (("a", "P"), ("b", "P"), False),
        (("a", "P"), (None, "P"), False),
        ((None, "P"), ("a", "P"), False),
        ((None, "P"), (None, "P"), True),
        (("a", None), ("a", None), False),
        ((None, None), (None, None), False),
    ],
)
@pytest.mark.parametrize("choice", ["all", "nearest"])
def test_the_same_number_at_another_site_is_another_patient(
    exam: tuple[str | None, str | None], other: tuple[str | None, str | None], same: bool, choice: Choice
) -> None:
    table = pl.DataFrame([record("K", DAY, site=other[0], patient_id=other[1])], schema=RECORDS)
    window = Window("w", "pathology", 30, 180, choice=choice)
    found = link_records(exams(DAY, site=exam[0], patient=exam[1]), table, [window], signed=signed())
    assert found.height == same


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("PQ"), st.integers(-40, 200)), max_size=12))
def test_each_site_is_linked_as_if_it_were_alone(rows: list[tuple[str, str, int]]) -> None:
    table = pl.DataFrame(
        [
            record(f"K{at}", DAY + timedelta(days=days), site=site, patient_id=patient)
            for at, (site, patient, days) in enumerate(rows)
        ],
        schema=RECORDS,
    )
    both = pl.concat(
        [exams(DAY, site=site, patient=who).with_columns(exam_id=pl.lit(site + who)) for site in "ab" for who in "PQ"]
    )
    together = link_records(both, table, [PATHOLOGY], signed=signed())
    alone = [
        link_records(
            both.filter(pl.col("site") == site), table.filter(pl.col("site") == site), [PATHOLOGY], signed=signed()
        )
        for site in "ab"
    ]
    assert together.equals(pl.concat(alone))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(-40, 200), max_size=12), st.randoms())
def test_the_order_of_the_input_does_not_matter(days: list[int], chance: object) -> None:
    rows = [record(f"K{at}", DAY + timedelta(days=one), code=str(at % 3)) for at, one in enumerate(days)]
    shuffled = rows[:]
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    for choice in ("all", "nearest"):
        window = Window("w", "pathology", 30, 180, choice=choice)
        assert linked(*rows, window=window).equals(linked(*shuffled, window=window))


@pytest.mark.parametrize(
    ("start", "end", "inside"),
    [(-91, None, False), (-90, None, True), (-400, -90, True), (-400, -91, False), (0, None, True), (1, None, False)],
)
def test_a_drug_without_an_end_is_over_after_its_start(start: int, end: int | None, inside: bool) -> None:
    window = Window("drug", "medication", 90, 0, overlap=True, unended="ends")
    until = None if end is None else DAY + timedelta(days=end)
    found = linked(record("K", DAY + timedelta(days=start), kind="medication", end_at=until), window=window)
    assert found.height == inside


@pytest.mark.parametrize(("days", "inside"), [(-4000, True), (-1, True), (0, False), (3, False)])
def test_a_window_may_end_before_the_exam(days: int, inside: bool) -> None:
    window = Window("past", "surgery", None, -1)
    assert linked(record("K", DAY + timedelta(days=days), kind="surgery"), window=window).height == inside


@pytest.mark.parametrize(
    ("code", "name", "meant"),
    [
        ("K514-2 3", None, True),
        ("k514-23", None, True),
        ("K51", None, False),
        ("C34.1", None, True),
        (None, "ＣＲＰ（定量）", True),
        ("5C070", "CRP", True),
        ("X", "crp", True),
        (None, "血沈", False),
        (None, None, False),
    ],
)
def test_codes_and_names_choose_records(code: str | None, name: str | None, meant: bool) -> None:
    window = Window("w", "lab", 7, 7, codes=("K514-2", "C341"), names=("CRP",))
    assert linked(record("K", DAY, kind="lab", code=code, name=name), window=window).height == meant


def test_names_alone_and_codes_alone() -> None:
    by_name = Window("w", "lab", 7, 7, names=("CRP",))
    by_code = Window("w", "lab", 7, 7, codes=("5C",))
    row = record("K", DAY, kind="lab", code="5C070", name="CRP")
    assert linked(row, window=by_name).height == linked(row, window=by_code).height == 1


def test_without_a_code_the_name_says_what_is_nearest() -> None:
    nearest = Window("lab", "lab", 7, 7, choice="nearest")
    rows = [
        record("a", DAY + timedelta(days=3), kind="lab", name="CRP"),
        record("b", DAY - timedelta(days=1), kind="lab", name="CRP"),
        record("c", DAY - timedelta(days=5), kind="lab", name="白血球数"),
    ]
    assert linked(*rows, window=nearest)["record_id"].to_list() == ["b", "c"]
