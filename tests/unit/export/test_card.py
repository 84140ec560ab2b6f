"""The data card counts right and tells no small count."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from reportlabel.export.card import SMALLEST, About, Tally, card, shown
from reportlabel.export.options import ExportOptions, export_options
from reportlabel.export.teacher import Teacher, prepare
from tests.unit.export import exam_tables
from tests.unit.export.exam_tables import SMALL

ABOUT = About(version="9.9", rules_hash=("abc" * 10,), model_version=("m1",))
EXAMS = exam_tables.exams(400, patients=150)


def made(labels: pl.DataFrame, *, about: About = ABOUT, options: ExportOptions | None = None) -> tuple[str, Teacher]:
    teacher = prepare(labels, EXAMS, label_sets=[SMALL], options=options or ExportOptions())
    tally = Tally()
    for batch in teacher.batches(SMALL):
        tally.add(batch, teacher.exams)
    text = card(tally=tally, exams=teacher.exams, label_sets=teacher.label_sets, options=teacher.options, about=about)
    return text, teacher


def cells(text: str, *start: str) -> list[str]:
    [line] = [line for line in text.splitlines() if line.startswith("| " + " | ".join(start) + " |")]
    return [cell.strip() for cell in line.strip("|").split("|")][len(start) :]


def test_counts_are_those_of_the_tables() -> None:
    labels = exam_tables.labels(EXAMS, SMALL)
    text, teacher = made(labels)
    train = teacher.exams.filter(pl.col("split") == "train")
    assert cells(text, "train") == [shown(train.height), shown(train["patient_id"].n_unique())]
    rows = labels.filter((pl.col("finding") == "nodule") & pl.col("exam_id").is_in(train["exam_id"].implode()))
    counts = [rows.filter(pl.col("value") == value).height for value in exam_tables.P]
    assert min(counts) > 5
    share = f"{100 * int(shown(counts[0])) / int(shown(sum(counts))):.1f}"
    assert cells(text, "nodule", "train") == [*map(shown, counts), share]
    assert cells(text, "record", "record/biopsy") == [shown(labels.height)]
    assert cells(text, "small", "soft", "zeros") == ["nodule"]
    for said in ("9.9", "abcabc", "m1", "study protocol | none", "figures of quality are not known"):
        assert said in text


def test_the_card_says_what_was_chosen() -> None:
    choices = pl.DataFrame(
        {
            "label_set": ["small"] * 2,
            "finding": ["nodule", "effusion"],
            "method": ["label_model", "precedence"],
            "n_reviewed": [50, 3],
            "n_present": [47, 3],
            "brier_b": [0.123456, None],
            "groups": [[["a"]], []],
        }
    )
    about = About(
        version="9.9",
        rules_hash=("a", "b"),
        model_version=(),
        protocol="study7",
        as_of="12",
        choices=choices,
        exams_without_image=3,
        images_of_no_exam=70,
    )
    options = export_options(hold_out_sites=["north"], balance=0.25)
    text, _ = made(exam_tables.labels(EXAMS, SMALL), about=about, options=options)
    assert cells(text, "small", "effusion", "precedence") == ["<5", "<5", ""]
    assert cells(text, "small", "nodule", "label_model") == ["50", "45", "0.123"]
    assert "more than one version" in text and "study7" in text and "held out for test: north" in text
    assert "<5 exams have no image" in text and "70 images of the table" in text


def test_no_patient_is_in_the_card() -> None:
    text, teacher = made(exam_tables.labels(EXAMS, SMALL))
    for column in ("exam_id", "patient_id", "study_instance_uid"):
        assert not [one for one in teacher.exams[column] if f" {one} " in text]


@given(st.integers(1, SMALLEST - 1), st.integers(SMALLEST, 60))
def test_a_small_count_cannot_be_worked_out_from_a_total_and_the_rest(small: int, rest: int) -> None:
    """With all that is shown, in this table or another, it may still be each of 1 to 4."""
    assert shown(small) == "<5"
    assert [shown(count) for count in (0, 5, 7, 8, 1234)] == ["0", "5", "5", "10", "1,235"]
    told, total = int(shown(rest)), int(shown(small + rest))
    for each in range(1, SMALLEST):
        assert told - 2 + each <= total + 2 and told + 2 + each >= total - 2
