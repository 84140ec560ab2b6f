"""The label model: recovers the truth, is not fooled by copies, keeps what was reviewed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reportlabel.aggregate.label_model import ABSENT, OUTCOMES, PRESENT, SILENT, Fitted, Function, fit, predict

SENSITIVITY = np.array([0.6, 0.7, 0.75, 0.8, 0.85, 0.9])
SPECIFICITY = np.array([0.93, 0.95, 0.96, 0.97, 0.98, 0.99])
COVERAGE = np.array([0.95, 0.6, 0.3, 0.9, 0.5, 0.8])


def simulate(
    prevalence: float, *, copies: int = 0, exams: int = 20_000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, list[Function]]:
    chance = np.random.default_rng(seed)
    truth = (chance.random(exams) < prevalence).astype(np.int64)
    right = np.where(truth[:, None] == 1, SENSITIVITY, SPECIFICITY)
    says = np.where(chance.random(right.shape) < right, truth[:, None], 1 - truth[:, None])
    votes = np.where(says == 1, 2, 0)
    votes[chance.random(votes.shape) > COVERAGE] = SILENT
    for _ in range(copies):
        copy = votes[:, 0].copy()
        changed = (chance.random(exams) < 0.02) & (copy != SILENT)
        copy[changed] = 2 - copy[changed]
        votes = np.column_stack([votes, copy])
    functions = [Function(str(number), "rule") for number in range(votes.shape[1])]
    return votes, truth, functions


def f1(fitted: Fitted, truth: np.ndarray) -> float:
    said = fitted.p_present > 0.5
    return float(2 * (said & (truth == 1)).sum() / (said.sum() + truth.sum()))


@pytest.mark.parametrize("prevalence", [0.2, 0.03])
def test_three_near_copies_cost_less_than_a_hundredth(prevalence: float) -> None:
    plain, copied = simulate(prevalence), simulate(prevalence, copies=3)
    without = f1(fit(plain[0], plain[2]), plain[1])
    assert without > 0.9
    assert without - f1(fit(copied[0], copied[2]), copied[1]) < 0.01
    # the search for groups is what saves it
    assert without - f1(fit(copied[0], copied[2], find_groups=False), copied[1]) > 0.05


def test_given_groups_do_the_same() -> None:
    votes, truth, functions = simulate(0.2, copies=3)
    given_groups = [
        Function(one.id, "rule", group="copies" if int(one.id) in (0, 6, 7, 8) else None) for one in functions
    ]
    found = fit(votes, given_groups, find_groups=False)
    assert f1(found, truth) > 0.95
    assert len(set(found.groups[[0, 6, 7, 8]])) == 1 and len(set(found.groups)) == 6


def test_independent_functions_stay_alone() -> None:
    votes, _, functions = simulate(0.2)
    assert len(set(fit(votes, functions).groups)) == len(functions)


def test_parameters_are_recovered() -> None:
    votes, truth, functions = simulate(0.2, exams=50_000)
    fitted = fit(votes, functions)
    assert abs(fitted.prevalence - 0.2) < 0.01
    spoken = fitted.confusion[:, :, :3] / fitted.confusion[:, :, :3].sum(axis=2, keepdims=True)
    assert np.abs(spoken[:, PRESENT, 2] - SENSITIVITY).max() < 0.02
    assert np.abs(spoken[:, ABSENT, 0] - SPECIFICITY).max() < 0.01
    assert np.mean((fitted.p_present - truth) ** 2) < 0.02


def test_the_silence_of_a_one_way_function_speaks() -> None:
    chance = np.random.default_rng(1)
    truth = (chance.random(20_000) < 0.3).astype(np.int64)
    noisy = np.where(chance.random(20_000) < 0.8, truth, 1 - truth) * 2
    alarm = np.where((truth == 1) & (chance.random(20_000) < 0.9), 2, SILENT)
    votes = np.column_stack([noisy, np.where(chance.random(20_000) < 0.75, truth, 1 - truth) * 2, alarm])
    functions = [Function("a", "rule"), Function("b", "rule"), Function("alarm", "record", one_way=True)]
    deaf = [*functions[:2], Function("alarm", "record")]
    heard = np.mean((fit(votes, functions).p_present - truth) ** 2)
    assert heard < 0.8 * np.mean((fit(votes, deaf).p_present - truth) ** 2)


def test_reviewed_exams_keep_their_truth_and_teach() -> None:
    votes, truth, functions = simulate(0.2, exams=3000)
    gold = np.full(3000, SILENT)
    gold[:400] = 1 - truth[:400]
    fitted = fit(votes, functions, gold=gold)
    assert np.array_equal(fitted.p_present[:400] > 0.5, gold[:400] == PRESENT)
    gold[:400] = truth[:400]
    assert f1(fit(votes, functions, gold=gold), truth) >= f1(fit(votes, functions), truth) - 0.005


def test_a_row_may_stand_for_many_exams() -> None:
    votes, _, functions = simulate(0.2, exams=3000)
    rows, counts = np.unique(votes, axis=0, return_counts=True)
    one, other = fit(votes, functions), fit(rows, functions, counts=counts.astype(np.float64))
    assert other.prevalence == pytest.approx(one.prevalence) and np.allclose(other.confusion, one.confusion)


def test_strata_have_their_own_prevalence() -> None:
    often, seldom = simulate(0.4, exams=10_000), simulate(0.04, exams=10_000, seed=1)
    votes, truth = np.concatenate([often[0], seldom[0]]), np.concatenate([often[1], seldom[1]])
    strata = np.repeat([0, 1], 10_000)
    fitted = fit(votes, often[2], strata=strata, prevalences=[(1, 1), (1, 1)])
    assert np.allclose(fitted.prevalences, [0.4, 0.04], atol=0.015) and abs(fitted.prevalence - 0.22) < 0.01
    together = fit(votes, often[2])
    assert np.mean((fitted.p_present - truth) ** 2) < np.mean((together.p_present - truth) ** 2)


def test_prediction_does_not_look_at_what_was_reviewed() -> None:
    votes, truth, functions = simulate(0.2, exams=3000)
    gold = np.full(3000, SILENT)
    gold[:400] = 1 - truth[:400]
    fitted = fit(votes, functions, gold=gold)
    said = predict(fitted, votes, functions)
    assert np.allclose(said[400:], fitted.p_present[400:])
    assert not np.array_equal(said[:400] > 0.5, gold[:400] == PRESENT)
    with pytest.raises(ValueError, match="stratum 1"):
        predict(fitted, votes, functions, strata=np.ones(3000, dtype=np.int64))


@pytest.mark.parametrize(
    ("name", "given_rows"),
    [("counts", np.ones(2)), ("counts", -np.ones(3)), ("strata", np.zeros(2)), ("strata", -np.ones(3))],
)
def test_wrong_rows_are_refused(name: str, given_rows: np.ndarray) -> None:
    with pytest.raises(ValueError, match=name):
        fit(np.zeros((3, 1), dtype=np.int64), [Function("a", "rule")], **{name: given_rows})
    with pytest.raises(ValueError, match="prevalences"):
        fit(np.zeros((1, 1)), [Function("a", "rule")], strata=np.ones(1), prevalences=[(1.0, 1.0)])


@pytest.mark.parametrize(
    ("votes", "functions"),
    [(np.zeros((3, 2)), 1), (np.full((3, 1), 3), 1), (np.full((3, 1), -2), 1), (np.zeros(3), 1)],
)
def test_wrong_shapes_are_refused(votes: np.ndarray, functions: int) -> None:
    with pytest.raises(ValueError, match=r"votes|vote"):
        fit(votes, [Function(str(number), "rule") for number in range(functions)])
    with pytest.raises(ValueError, match="gold"):
        fit(np.zeros((3, 1), dtype=np.int64), [Function("a", "rule")], gold=np.zeros(2, dtype=np.int64))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.integers(0, 40), st.integers(0, 2**16))
def test_any_votes_give_probabilities_and_order_does_not_matter(functions: int, exams: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    votes = chance.integers(SILENT, len(OUTCOMES), (exams, functions))
    known = [
        Function(str(number), chance.choice(["rule", "bert", "record"]), one_way=bool(number % 2))
        for number in range(functions)
    ]
    fitted = fit(votes, known)
    assert np.isfinite(fitted.p_present).all() and ((fitted.p_present >= 0) & (fitted.p_present <= 1)).all()
    order = chance.permutation(exams)
    assert np.allclose(fit(votes[order], known).p_present, fitted.p_present[order], atol=1e-6)
