"""The label model takes over only where it was shown to be better; probabilities come nearer to the truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from reportlabel.aggregate.calibrate import expected_calibration_error
from reportlabel.aggregate.cases import fold_of
from reportlabel.aggregate.choose import f1_score
from reportlabel.aggregate.combine import Aggregated, aggregate
from reportlabel.aggregate.settings import AggregateSettings, load_settings
from tests.unit.aggregate.simulated import READINGS, Source, exam_table, label_set, readings_of, simulate

SETTINGS = load_settings()
SETS = {"chest": label_set("chest", ["nodule"])}
EXAMS = 12_000

# A report that is often hedged away, records of which one is much worse than its confidence says, one model.
MIXED = [
    Source("rule/nodule", "rule", 0.8, 0.98, 0.9),
    Source("bert/m", "bert", 0.9, 0.97, 0.9, 0.9),
    Source("record/good", "record", 0.9, 0.99, 0.5, 0.7),
    Source("record/bad", "record", 0.5, 0.7, 0.8, 0.9),
    Source("record/alarm", "record", 0.8, 0.95, 1.0, 0.5, says=("present",)),
]


@dataclass(frozen=True)
class World:
    truth: np.ndarray
    votes: pl.DataFrame
    exams: pl.DataFrame

    @property
    def scope(self) -> pl.DataFrame:
        return self.exams.select("exam_id", pl.lit("chest").alias("label_set"))

    def aggregate(self, readings: pl.DataFrame, settings: AggregateSettings = SETTINGS) -> Aggregated:
        return aggregate(
            self.votes, self.scope, exams=self.exams, label_sets=SETS, readings=readings, settings=settings
        )

    def read(self, number: int, seed: int = 3) -> pl.DataFrame:
        chance = np.random.default_rng(seed)
        return readings_of(self.truth, chance.choice(len(self.truth), number, replace=False), finding="nodule")

    def figures(self, done: Aggregated) -> tuple[float, float, float]:
        """F1, Brier score and calibration error on the exams that nobody reviewed."""
        open_ = (done.labels["review_state"] == "unreviewed").to_numpy()
        probability, truth = done.labels["p_present"].to_numpy()[open_], self.truth[open_]
        said = (done.labels["value"] == "present").to_numpy()[open_]
        brier = float(np.mean((probability - truth) ** 2))
        return f1_score(said, truth), brier, expected_calibration_error(probability, truth)


@cache
def world(copies: int = 0, prevalence: float = 0.15) -> World:
    chance = np.random.default_rng(0)
    truth = (chance.random(EXAMS) < prevalence).astype(np.int64)
    votes = simulate(truth, MIXED, chance, finding="nodule")
    bad = votes.filter(pl.col("function_id") == "record/bad")
    other = pl.when(pl.col("value") == "present").then(pl.lit("absent")).otherwise(pl.lit("present"))
    tables = [votes]
    for number in range(copies):
        flipped = pl.Series(chance.random(len(bad)) < 0.02)
        tables.append(
            bad.with_columns(
                pl.lit(f"record/copy{number}").alias("function_id"),
                pl.when(flipped).then(other).otherwise("value").alias("value"),
            )
        )
    return World(truth, pl.concat(tables), exam_table(EXAMS, patients=EXAMS // 2))


def test_the_label_model_takes_over_where_it_is_better_and_is() -> None:
    made = world()
    alone = made.aggregate(pl.DataFrame(schema=READINGS))
    taught = made.aggregate(made.read(1200))
    assert alone.choices["method"].item() == "precedence" and alone.choices["calibration"].item() == "none"
    row = taught.choices.row(0, named=True)
    assert row["method"] == "label_model" and row["calibration"] == "isotonic"
    assert row["brier_b"] < row["brier_a"] and row["f1_b"] >= row["f1_a"]
    f1_before, brier_before, ece_before = made.figures(alone)
    f1_after, brier_after, ece_after = made.figures(taught)
    assert f1_after > f1_before and brier_after < 0.7 * brier_before and ece_after < 0.5 * ece_before
    assert ece_after < 0.01
    # what was measured on the reviewed exams holds for the others
    assert abs(row["brier_b"] - brier_after) < 0.01 and abs(row["f1_b"] - f1_after) < 0.05
    assert abs(row["prevalence"] - made.truth.mean()) < 0.01


def test_calibration_alone_helps_precedence() -> None:
    made = world()
    never = SETTINGS.model_copy(update={"choice": SETTINGS.choice.model_copy(update={"reviewed_each": EXAMS})})
    alone, calibrated = made.aggregate(pl.DataFrame(schema=READINGS)), made.aggregate(made.read(1200), never)
    assert calibrated.choices["method"].item() == "precedence"
    assert calibrated.choices["calibration"].item() == "isotonic"
    (_, brier_before, ece_before), (_, brier_after, ece_after) = made.figures(alone), made.figures(calibrated)
    assert brier_after < brier_before and ece_after < 0.5 * ece_before


@pytest.mark.parametrize("reviewed", [0, 1200])
def test_three_near_copies_cost_less_than_a_hundredth(reviewed: int) -> None:
    plain, copied = world(), world(copies=3)
    readings = plain.read(reviewed)
    without, with_copies = plain.aggregate(readings), copied.aggregate(readings)
    assert without.choices["method"].item() == ("label_model" if reviewed else "precedence")
    assert plain.figures(without)[0] - copied.figures(with_copies)[0] < 0.01
    assert ["record/bad", "record/copy0", "record/copy1", "record/copy2"] in with_copies.choices["groups"].to_list()[0]


def test_too_few_reviewed_exams_of_one_kind_change_nothing() -> None:
    made = world()
    present = made.read(1200).filter(pl.col("value") == "present").head(SETTINGS.choice.reviewed_each - 1)
    absent = made.read(1200).filter(pl.col("value") == "absent")
    row = made.aggregate(pl.concat([present, absent])).choices.row(0, named=True)
    assert row["method"] == "precedence" and row["n_present"] == len(present)
    assert all(row[name] is None for name in ("f1_a", "f1_b", "brier_a", "brier_b", "ece_a", "ece_b"))


def test_readings_that_no_vote_explains_choose_no_label_model() -> None:
    """Cross-validation does not reward what was only learned by heart."""
    made = world()
    senseless = replace(made, truth=np.random.default_rng(5).integers(0, 2, EXAMS))
    row = made.aggregate(senseless.read(300)).choices.row(0, named=True)
    assert row["f1_b"] is not None and row["brier_b"] > 0.2
    assert abs(row["brier_a"] - row["brier_b"]) < 0.03


def test_the_order_of_all_rows_does_not_matter() -> None:
    made, readings = world(), world().read(1200)
    shuffled = World(
        made.truth,
        made.votes.sample(fraction=1.0, shuffle=True, seed=1),
        made.exams.sample(fraction=1.0, shuffle=True, seed=2),
    )
    one, other = made.aggregate(readings), shuffled.aggregate(readings.sample(fraction=1.0, shuffle=True, seed=3))
    assert one.labels.sort("exam_id").equals(other.labels.sort("exam_id"))
    assert one.analysis.equals(other.analysis)
    assert_frame_equal(one.choices, other.choices)


def test_folds_are_those_of_the_patient_and_even() -> None:
    assert [fold_of(f"p{number}", 5) for number in range(8)] == [fold_of(f"p{number}", 5) for number in range(8)]
    assert fold_of("p1", 5) == 0  # the same for ever: figures of two runs can be compared
    spread = np.bincount([fold_of(f"p{number}", 5) for number in range(5000)], minlength=5)
    assert spread.min() > 900


def test_each_modality_class_has_its_own_prevalence() -> None:
    chance = np.random.default_rng(1)
    exams = exam_table(EXAMS, classes=("CT", "MRI", None))
    often = (exams["modality_class"] == "CT").to_numpy()
    truth = (chance.random(EXAMS) < np.where(often, 0.4, 0.05)).astype(np.int64)
    votes = simulate(truth, [replace(one, coverage=0.6) for one in MIXED], chance, finding="nodule")
    # nobody speaks of these
    mute = {f"e{number}" for number in range(0, EXAMS, 4)}
    made = World(truth, votes.filter(~pl.col("exam_id").is_in(mute)), exams)
    done = made.aggregate(made.read(1200))
    assert done.choices["method"].item() == "label_model"
    silent = done.labels.filter(pl.col("n_votes") == 0, pl.col("review_state") == "unreviewed").join(
        exams, on="exam_id"
    )
    assert set(silent["value"]) == {"not_mentioned"}
    by_class = dict(silent.group_by("modality_class").agg(pl.col("p_present").unique()).iter_rows())
    assert all(len(values) == 1 for values in by_class.values())
    assert by_class["CT"][0] > by_class["MRI"][0]


def test_records_that_only_say_present_keep_their_own_voices() -> None:
    chance = np.random.default_rng(1)
    truth = (chance.random(3000) < 0.3).astype(np.int64)
    sources = [Source(f"record/r{number}", "record", 0.6, 0.95, 1.0, says=("present",)) for number in range(4)]
    sources += [Source("bert/m", "bert", 0.9, 0.9, 1.0), Source("rule/nodule", "rule", 0.9, 0.9, 1.0)]
    votes = simulate(truth, sources, chance, finding="nodule")
    copy = votes.filter(pl.col("function_id") == "record/r0").with_columns(function_id=pl.lit("record/copy"))
    for table, together in ((votes, []), (pl.concat([votes, copy]), ["record/copy", "record/r0"])):
        done = World(truth, table, exam_table(3000)).aggregate(pl.DataFrame(schema=READINGS))
        groups = done.choices["groups"].to_list()[0]
        assert [one for one in groups if len(one) > 1] == ([together] if together else [])
