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


def simulate_one_way(
    prevalence: float, seed: int, *, alone: int, copies: tuple[float, ...] = (), noisy: int = 2, exams: int = 3000
) -> tuple[np.ndarray, np.ndarray, list[Function]]:
    """Functions that only ever say present, copies of the first of them, and some that say both.

    A copy keeps this share of the exams on which the original fires, and fires on as many others in their place.
    """
    chance = np.random.default_rng(seed)
    truth = chance.random(exams) < prevalence
    columns = []
    for _ in range(alone):
        often, seldom = chance.uniform(0.4, 0.7), chance.uniform(0.005, 0.06)
        columns.append(chance.random(exams) < np.where(truth, often, seldom))
    for kept in copies:
        own = columns[0]
        elsewhere = own.sum() * (1 - kept) / (~own).sum()
        columns.append(np.where(own, chance.random(exams) < kept, chance.random(exams) < elsewhere))
    votes = [np.where(fires, 2, SILENT) for fires in columns]
    for _ in range(noisy):
        right = chance.random(exams) < chance.uniform(0.85, 0.95)
        votes.append(np.where(right == truth, 2, 0))
    functions = [Function(str(number), "record", one_way=number < len(columns)) for number in range(len(votes))]
    return np.column_stack(votes), truth.astype(np.int64), functions


@pytest.mark.parametrize("prevalence", [0.05, 0.2, 0.5])
@pytest.mark.parametrize(("alone", "noisy"), [(3, 2), (4, 1), (4, 2)])
def test_independent_one_way_functions_stay_alone(prevalence: float, alone: int, noisy: int) -> None:
    for seed in range(5):
        votes, truth, functions = simulate_one_way(prevalence, seed, alone=alone, noisy=noisy)
        found = fit(votes, functions)
        assert len(set(found.groups)) == len(functions)
        apart = fit(votes, functions, find_groups=False)
        assert np.mean((found.p_present - truth) ** 2) <= np.mean((apart.p_present - truth) ** 2)


def test_functions_that_only_deny_are_compared_in_the_same_way() -> None:
    for seed in range(4):
        votes, _, functions = simulate_one_way(0.3, seed, alone=4, copies=(0.95,))
        denying = np.where(votes == SILENT, SILENT, 2 - votes)  # the finding and its absence change places
        groups = fit(denying, functions).groups
        assert groups[4] == groups[0] and len(set(groups)) == len(functions) - 1


def test_one_that_only_says_present_is_no_copy_of_one_that_only_says_absent() -> None:
    votes, truth, functions = simulate_one_way(0.3, 2, alone=4)
    votes[:, 1] = np.where((truth == 0) & (votes[:, 0] == SILENT), 0, SILENT)  # speaks where the other does not
    groups = fit(votes, functions).groups
    assert groups[0] != groups[1]


@pytest.mark.parametrize("prevalence", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("copies", [(1.0,), (0.95,), (0.95, 0.95), (0.8,)])
def test_copies_of_a_one_way_function_share_its_voice(prevalence: float, copies: tuple[float, ...]) -> None:
    for seed in range(4):
        votes, truth, functions = simulate_one_way(prevalence, seed, alone=4, copies=copies)
        found = fit(votes, functions)
        same = [0, *range(4, 4 + len(copies))]
        assert len(set(found.groups[same])) == 1
        assert len(set(found.groups)) == len(functions) - len(copies)
        apart = fit(votes, functions, find_groups=False)
        assert np.mean((found.p_present - truth) ** 2) <= np.mean((apart.p_present - truth) ** 2) + 5e-4


def test_a_function_that_fires_on_some_of_the_exams_of_another_shares_its_voice() -> None:
    votes, _, functions = simulate_one_way(0.2, 7, alone=3)
    some = np.random.default_rng(8).random(len(votes)) < 0.6
    within = np.where(some, votes[:, 0], SILENT)
    found = fit(np.column_stack([votes, within]), [*functions, Function("within", "record", one_way=True)])
    assert found.groups[5] == found.groups[0]
    assert len(set(found.groups)) == 5


def test_copies_that_seldom_deny_are_near_copies() -> None:
    chance = np.random.default_rng(4)
    said = np.where(chance.random(200) < 0.1, 0, 2)
    said[chance.random(200) < 0.3] = SILENT
    other = np.where(chance.random(200) < 0.1, 0, 2)
    assert 0 < (said == 0).sum() < 30
    groups = fit(np.column_stack([said, said, other]), [Function(name, "record") for name in "abc"]).groups
    assert groups[0] == groups[1] != groups[2]


def test_few_exams_show_no_copies() -> None:
    votes, _, functions = simulate_one_way(0.05, 1, alone=4, copies=(1.0,), exams=300)
    assert (votes[:, 0] == 2).sum() < 30
    assert len(set(fit(votes, functions).groups)) == len(functions)


@pytest.mark.parametrize("seed", range(4))
def test_silence_that_speaks_makes_no_copies(seed: int) -> None:
    """Both read every report and name the finding where it is there; elsewhere they seldom say anything."""
    chance = np.random.default_rng(seed)
    truth = (chance.random(5000) < 0.1).astype(np.int64)
    columns = []
    for _ in range(2):
        said = np.where(chance.random(5000) < 0.85, 2, np.where(chance.random(5000) < 0.1, 0, SILENT))
        denied = chance.random(5000)
        columns.append(np.where(truth == 1, said, np.where(denied < 0.02, 0, np.where(denied < 0.04, 2, SILENT))))
    for often in (0.4, 0.5, 0.6):
        columns.append(np.where(chance.random(5000) < np.where(truth == 1, often, 0.02), 2, SILENT))
    functions = [Function("rule", "rule", one_way=True), Function("bert", "bert", one_way=True)]
    functions += [Function(f"record{number}", "record", one_way=True) for number in range(3)]
    assert len(set(fit(np.column_stack(columns), functions).groups)) == 5


def test_functions_that_tell_nothing_judge_no_others() -> None:
    votes, truth, functions = simulate_one_way(0.3, 1, alone=4)
    deaf = [Function(one.id, one.kind) for one in functions]  # they speak or not, and the model does not hear which
    found = fit(votes, deaf)
    assert len(set(found.groups)) == 6
    apart = fit(votes, deaf, find_groups=False)
    assert np.mean((found.p_present - truth) ** 2) <= np.mean((apart.p_present - truth) ** 2)


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
