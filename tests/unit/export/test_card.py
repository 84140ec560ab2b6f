"""The data card counts right and tells no small count."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from reportlabel.export.card import SMALLEST_SHOWN, About, Tally, card, shown, suppress
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
    assert cells(text, "train") == [str(train.height), str(train["patient_id"].n_unique())]
    rows = labels.filter((pl.col("finding") == "nodule") & pl.col("exam_id").is_in(train["exam_id"].implode()))
    counts = [rows.filter(pl.col("value") == value).height for value in exam_tables.P]
    assert min(counts) > 5
    assert cells(text, "nodule", "train") == [*map(str, counts), f"{100 * counts[0] / sum(counts):.1f}"]
    assert cells(text, "record", "record/biopsy") == [str(labels.height)]
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
    assert cells(text, "small", "nodule", "label_model") == ["50", "≥5", "0.123"]
    assert "more than one version" in text and "study7" in text and "held out for test: north" in text
    assert "<5 exams have no image" in text and "70 images of the table" in text


def test_no_patient_is_in_the_card() -> None:
    text, teacher = made(exam_tables.labels(EXAMS, SMALL))
    for column in ("exam_id", "patient_id", "study_instance_uid"):
        assert not [one for one in teacher.exams[column] if f" {one} " in text]


@given(st.lists(st.lists(st.integers(0, 12), min_size=4, max_size=4), min_size=1, max_size=5))
def test_no_small_count_can_be_worked_out_from_a_total(counts: Sequence[Sequence[int]]) -> None:
    texts = suppress(counts)
    for line, said in [*zip(counts, texts, strict=True), *zip(zip(*counts), zip(*texts), strict=True)]:  # noqa: B905
        for count, text in zip(line, said, strict=True):
            assert text in (shown(count), f"≥{SMALLEST_SHOWN}")
            assert text != f"≥{SMALLEST_SHOWN}" or count >= SMALLEST_SHOWN
            assert count == 0 or count >= SMALLEST_SHOWN or text == "<5"
        hidden = [at for at, (count, text) in enumerate(zip(line, said, strict=True)) if text != str(count)]
        # one hidden count is the rest of the total, unless there is nothing to hide it with
        assert len(hidden) != 1 or all(count == 0 for at, count in enumerate(line) if at not in hidden)
