"""Calibration keeps the order, and makes probabilities true."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.isotonic import IsotonicRegression

from reportlabel.aggregate.calibrate import calibrate, expected_calibration_error


def overconfident(exams: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    score = chance.normal(-1, 2, exams)
    truth = (chance.random(exams) < 1 / (1 + np.exp(-score))).astype(np.int64)
    return 1 / (1 + np.exp(-3 * score)), truth


@pytest.mark.parametrize(("exams", "method"), [(400, "platt"), (4000, "isotonic")])
def test_an_overconfident_model_is_put_right(exams: int, method: str) -> None:
    learned = calibrate(*overconfident(exams))
    assert learned.method == method
    probability, truth = overconfident(20_000, seed=1)
    assert expected_calibration_error(probability, truth) > 0.1
    assert expected_calibration_error(learned.apply(probability), truth) < 0.03


def test_isotonic_is_that_of_scikit_learn() -> None:
    probability, truth = overconfident(3000)
    reference = IsotonicRegression().fit(probability, truth).predict(probability)
    assert np.allclose(calibrate(probability, truth).apply(probability), reference, atol=1e-9)


def test_little_that_was_reviewed_changes_nothing() -> None:
    probability = np.linspace(0, 1, 60)
    learned = calibrate(probability, np.r_[np.zeros(50), np.ones(10)].astype(np.int64))
    assert learned.method == "none" and np.array_equal(learned.apply(probability), probability)


@given(st.integers(30, 1500), st.integers(0, 2**16))
def test_the_order_is_kept(exams: int, seed: int) -> None:
    probability, truth = overconfident(exams, seed)
    after = calibrate(probability, truth, few=3).apply(np.sort(probability))
    assert (np.diff(after) >= -1e-12).all() and ((after >= 0) & (after <= 1)).all()


def test_a_model_that_is_upside_down_only_tells_the_share() -> None:
    probability, truth = overconfident(500)
    assert np.ptp(calibrate(1 - probability, truth).apply(probability)) == 0


@pytest.mark.parametrize(("exams", "share"), [(400, 0.5), (2000, 0.7)])
def test_the_clear_exams_stay_clear_when_only_doubtful_ones_were_reviewed(exams: int, share: float) -> None:
    chance = np.random.default_rng(0)
    doubtful = chance.uniform(0.4, 0.6, exams)
    learned = calibrate(doubtful, (chance.random(exams) < share).astype(np.int64))
    low, high = learned.apply(np.array([0.01, 0.99]))
    assert low <= 0.01 and high >= 0.99
    assert learned.apply(np.array([0.5]))[0] == pytest.approx(share, abs=0.15)


def test_the_error_is_that_of_the_curve() -> None:
    probability, truth = overconfident(5000)
    was, said = calibration_curve(truth, probability, n_bins=10)
    counts = np.histogram(probability, bins=10, range=(0, 1))[0]
    expected = float((np.abs(was - said) * counts[counts > 0]).sum() / 5000)
    assert expected_calibration_error(probability, truth, bins=10) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("truth", [np.array([0, 1]), np.array([0, 1, 2])])
def test_wrong_input_is_refused(truth: np.ndarray) -> None:
    with pytest.raises(ValueError, match="truth"):
        calibrate(np.array([0.1, 0.2, 0.3]), truth)
