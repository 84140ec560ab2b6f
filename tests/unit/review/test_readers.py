"""Who reads what: blind, balanced, stable; and the queue of what has to be settled."""

from __future__ import annotations

from datetime import datetime

import polars as pl
import pytest

from reportlabel.errors import ConfigError, InputError
from reportlabel.review.readers import ASSIGNED, adjudication, assign, disagreements, last_readings, settled
from reportlabel.schema import READINGS

READERS = ("佐藤", "鈴木", "高橋")
KEY = "secret of the study"


def exams(number: int) -> pl.DataFrame:
    rows = [(f"X{exam:05}", name) for exam in range(number) for name in ("lung_ct", "ct_rate_18")]
    return pl.DataFrame(rows, schema={"exam_id": pl.String, "label_set": pl.String}, orient="row")


def readings(*rows: tuple[str, str, str, str], day: int = 1) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "exam_id": exam,
                "label_set": "lung_ct",
                "finding": finding,
                "reader": reader,
                "value": value,
                "origin": "confirmed",
                "read_at": datetime(2026, 1, day),
                "annotation_id": f"{reader}-{exam}-{day}",
            }
            for exam, finding, reader, value in rows
        ],
        schema=READINGS,
    )


# --- assignment


def test_every_exam_has_a_reader_and_the_asked_share_has_two() -> None:
    given = assign(exams(2000), READERS, overlap=0.2, key=KEY)
    assert given.schema == ASSIGNED
    each = given.group_by("exam_id", "label_set").agg(pl.col("reader").n_unique().alias("readers"))
    assert each.height == 4000
    assert set(each["readers"]) == {1, 2}
    assert (each["readers"] == 2).mean() == pytest.approx(0.2, abs=0.03)
    load = given["reader"].value_counts()["count"]
    assert load.max() / load.min() < 1.15  # type: ignore[operator]


def test_all_label_sets_of_an_exam_go_to_the_same_readers() -> None:
    given = assign(exams(300), READERS, overlap=0.5, key=KEY)
    by_set = given.group_by("exam_id", "label_set").agg(pl.col("reader").sort()).select("exam_id", "reader").unique()
    assert by_set.height == 300


def test_the_assignment_depends_on_key_and_exam_alone() -> None:
    some = assign(exams(50), READERS, overlap=0.2, key=KEY)
    more = assign(exams(500).reverse(), READERS[::-1], overlap=0.2, key=KEY)
    keep = ["exam_id", "label_set", "reader"]
    assert (
        some.select(keep)
        .sort(keep)
        .equals(more.join(some.select("exam_id").unique(), on="exam_id", how="semi").select(keep).sort(keep))
    )
    other = assign(exams(50), READERS, overlap=0.2, key="another")
    assert not some.equals(other)


def test_a_new_reader_takes_over_only_a_share() -> None:
    before = assign(exams(1000), READERS, overlap=0.0, key=KEY)
    after = assign(exams(1000), (*READERS, "田中"), overlap=0.0, key=KEY)
    both = before.join(after, on=["exam_id", "label_set"])
    moved = both.filter(pl.col("reader") != pl.col("reader_right"))
    assert set(moved["reader_right"]) == {"田中"}
    assert moved.height / both.height == pytest.approx(0.25, abs=0.05)


def test_projects_are_blind() -> None:
    given = assign(exams(100), READERS, overlap=1.0, key=KEY)
    projects = given.group_by("project").agg(pl.col("reader").n_unique(), pl.col("label_set").n_unique())
    assert projects.select("reader", "label_set").unique().rows() == [(1, 1)]
    assert not any(reader in project for reader in READERS for project in given["project"])
    assert all(3 <= len(project) <= 50 for project in given["project"])


def test_one_reader_reads_everything_once() -> None:
    given = assign(exams(30), ["佐藤"], overlap=1.0, key=KEY)
    assert given.height == 60
    assert assign(exams(0), ["佐藤"], overlap=1.0, key=KEY).is_empty()


@pytest.mark.parametrize(
    ("readers", "overlap", "key", "message"),
    [
        ((), 0.2, KEY, "no reader"),
        (("佐藤", "佐藤"), 0.2, KEY, "twice"),
        (("佐藤", " "), 0.2, KEY, "empty"),
        (("佐藤",), 1.2, KEY, "share from 0 to 1"),
        (("佐藤",), 0.2, "", "secret key"),
        (tuple(f"r{number}" for number in range(27)), 0.2, KEY, "27 readers"),
    ],
)
def test_wrong_arguments_are_named_without_a_name(
    readers: tuple[str, ...], overlap: float, key: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        assign(exams(3), readers, overlap=overlap, key=key)
    assert "佐藤" not in str(error.value)


# --- readings


def test_the_last_word_of_a_reader_counts() -> None:
    first = readings(("X1", "nodule", "a", "present"), ("X1", "nodule", "b", "absent"))
    later = readings(("X1", "nodule", "b", "present"), day=2)
    assert last_readings(pl.concat([later, first]))["value"].to_list() == ["present", "present"]
    assert disagreements(pl.concat([first, later]), key=KEY).is_empty()
    assert disagreements(first, key=KEY).height == 1


def test_the_queue_holds_exactly_the_disagreements() -> None:
    table = readings(
        ("X1", "nodule", "a", "present"),
        ("X1", "nodule", "b", "absent"),
        ("X1", "effusion", "a", "absent"),
        ("X1", "effusion", "b", "absent"),
        ("X2", "nodule", "a", "absent"),  # one reader
        ("X3", "nodule", "a", "absent"),
        ("X3", "nodule", "b", "not_mentioned"),
        ("X3", "nodule", "c", "absent"),
        ("X3", "effusion", "a", "absent"),
        ("X3", "effusion", "c", "uncertain"),
    )
    queue = disagreements(table, key=KEY)
    assert queue.select("exam_id", "finding").rows() == [("X1", "nodule"), ("X3", "effusion"), ("X3", "nodule")]
    assert sorted(one["value"] for one in queue["opinions"][2]) == ["absent", "absent", "not_mentioned"]
    work = adjudication(queue)
    assert work.select("exam_id", "reason", "priority").rows() == [("X3", "disagreement", 1), ("X1", "disagreement", 2)]
    assert work["findings"].to_list() == [["effusion", "nodule"], ["nodule"]]


def test_the_adjudicator_does_not_see_who_said_what() -> None:
    rows = [(f"X{exam}", "nodule", *said) for exam in range(200) for said in (("a", "present"), ("b", "absent"))]
    queue = disagreements(readings(*rows), key=KEY)
    first = [opinions[0]["value"] for opinions in queue["opinions"]]
    assert first.count("present") == pytest.approx(100, abs=30)
    assert "reader" not in str(queue.schema)


def test_an_adjudicated_label_leaves_the_queue_and_counts_alone() -> None:
    table = readings(
        ("X1", "nodule", "a", "present"),
        ("X1", "nodule", "b", "absent"),
        ("X2", "nodule", "a", "present"),
        ("X2", "nodule", "b", "absent"),
        ("X3", "nodule", "a", "present"),
    )
    final = readings(("X1", "nodule", "chief", "uncertain"), day=3)
    both = pl.concat([table, final])
    assert disagreements(both, key=KEY, adjudicators=["chief"])["exam_id"].to_list() == ["X2"]
    assert settled(both, adjudicators=["chief"]).select("exam_id", "reader", "value", "review_state").rows() == [
        ("X1", "chief", "uncertain", "adjudicated"),
        ("X2", "a", "present", "reviewed"),
        ("X2", "b", "absent", "reviewed"),
        ("X3", "a", "present", "reviewed"),
    ]


def test_only_exams_that_were_drawn_at_random_teach() -> None:
    table = readings(("X1", "nodule", "a", "present"), ("X2", "nodule", "a", "present"))
    assert settled(table)["teaches"].to_list() == [True, True]
    assert settled(table, audit=["X2"])["teaches"].to_list() == [False, True]
    assert settled(table, audit=[])["teaches"].to_list() == [False, False]


def test_no_readings_give_no_work() -> None:
    empty = pl.DataFrame(schema=READINGS)
    assert disagreements(empty, key=KEY).is_empty()
    assert adjudication(disagreements(empty, key=KEY)).is_empty()
    assert settled(empty).is_empty()


def test_a_missing_column_is_an_error() -> None:
    with pytest.raises(InputError, match="read_at"):
        settled(pl.DataFrame(schema=READINGS).drop("read_at"))
