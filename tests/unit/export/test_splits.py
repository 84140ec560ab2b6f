"""A patient is in one split, and stays there."""

from __future__ import annotations

import random

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportlabel.errors import ConfigError, InputError
from reportlabel.export.splits import SPLITS, position, split_of, split_patients

SHARES = (0.8, 0.1, 0.1)


def exams(*rows: tuple[str | None, str | None]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema={"patient_id": pl.String, "site": pl.String}, orient="row")


def splits(table: pl.DataFrame, **more: object) -> dict[str, str]:
    options: dict[str, object] = {"salt": "s", "shares": SHARES, **more}
    return dict(split_patients(table, **options).iter_rows())  # type: ignore[arg-type]


def test_the_splits_of_a_salt_are_fixed_for_ever() -> None:
    """If this fails, every earlier export would be split anew: patients who were trained on would be tested on."""
    assert position("P1", salt="reportlabel") == pytest.approx(0.436018188, abs=1e-9)
    of_twelve = [split_of(f"P{n}", salt="reportlabel", shares=SHARES) for n in range(12)]
    assert of_twelve == ["train"] * 9 + ["test"] + ["train"] * 2


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=30, unique=True), st.text(max_size=5))
def test_more_patients_move_nobody(patients: list[str], salt: str) -> None:
    all_of_them = splits(exams(*((one, "a") for one in patients)), salt=salt)
    some = splits(exams(*((one, "b") for one in patients[::2])), salt=salt)
    assert set(all_of_them.values()) <= set(SPLITS)
    assert {one: all_of_them[one] for one in some} == some


def test_shares_are_kept_and_salts_differ() -> None:
    table = exams(*((f"P{n}", "a") for n in range(20_000)))
    one, other = splits(table), splits(table, salt="t")
    for split, share in zip(SPLITS, SHARES, strict=True):
        assert list(one.values()).count(split) / len(one) == pytest.approx(share, abs=0.01)
    agree = sum(one[patient] == other[patient] for patient in one) / len(one)
    assert agree == pytest.approx(0.8**2 + 2 * 0.1**2, abs=0.02)


def test_all_or_nothing() -> None:
    table = exams(*((f"P{n}", "a") for n in range(300)))
    assert set(splits(table, shares=(1.0, 0.0, 0.0)).values()) == {"train"}
    assert set(splits(table, shares=(0.0, 1.0, 0.0)).values()) == {"validation"}
    assert set(splits(table, shares=(0.0, 0.0, 1.0)).values()) == {"test"}


def test_a_patient_of_a_held_out_site_is_a_test_patient_everywhere() -> None:
    chance = random.Random(5)
    rows = [(f"P{chance.randrange(80)}", chance.choice(["a", "b", "c", None])) for _ in range(300)]
    found = splits(exams(*rows), hold_out_sites=("b",))
    free = splits(exams(*rows))
    of_b = {patient for patient, site in rows if site == "b"}
    assert of_b and len(of_b) < len(found)
    assert {found[patient] for patient in of_b} == {"test"}
    assert all(found[patient] == free[patient] for patient in found if patient not in of_b)


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(InputError, match="1 exams have no patient_id"):
        splits(exams(("P1", "a"), (None, "a")))
    with pytest.raises(ConfigError, match="--hold-out-site z: no exam is of this site; there are: a, b"):
        splits(exams(("P1", "a"), ("P2", "b"), ("P3", None)), hold_out_sites=("z",))
