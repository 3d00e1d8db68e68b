import warnings

import fairlearn.metrics as fl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from tenfold.reliant.evaluation import (
    bootstrap,
    by_group,
    calibration,
    calibration_error,
    counts_of,
    hypervolume,
    pareto,
    scores,
)
from tenfold.shared.errors import InputError


def drawn(seed, size=300, groups=2, classes=2):
    rng = np.random.default_rng(seed)
    return (rng.integers(k, size=size) for k in (classes, classes, groups))


def test_the_worked_example():
    found = scores([1, 0, 1, 0, 1, 1], [1, 0, 1, 1, 0, 1], [0, 0, 0, 1, 1, 1])
    assert found["dSP"] == pytest.approx(0)
    assert found["dEO"] == pytest.approx(0.5)
    assert found["ACC"] == pytest.approx(4 / 6)


@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_classes_agree_with_fairlearn_and_scikit_learn(seed, groups):
    y, guess, s = drawn(seed, groups=groups)
    p = np.random.default_rng(seed).random(len(y))
    found = scores(y, guess, s, p)
    given = {"sensitive_features": s}
    expected = {
        "dSP": fl.demographic_parity_difference(y, guess, **given),
        "dEO": fl.equal_opportunity_difference(y, guess, **given),
        "dEOdds": fl.equalized_odds_difference(y, guess, **given),
        "utility gap": fl.MetricFrame(
            metrics=lambda a, b: (a == b).mean(), y_true=y, y_pred=guess, sensitive_features=s
        ).difference(),
        "F1": f1_score(y, guess),
        "AUC": roc_auc_score(y, p),
        "ACC": (y == guess).mean(),
        "label gap": fl.demographic_parity_difference(y, y, **given),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name


@pytest.mark.parametrize("seed", [0, 1])
def test_more_classes_take_the_largest_gap_of_any_class(seed):
    y, guess, s = drawn(seed, groups=3, classes=4)
    found = scores(y, guess, s, np.random.default_rng(seed).dirichlet(np.ones(4), len(y)))
    parity, recall, odds = [], [], []
    for c in range(4):
        rates = [(guess[s == g] == c).mean() for g in range(3)]
        parity.append(max(rates) - min(rates))
        hits = [(guess[(s == g) & (y == c)] == c).mean() for g in range(3)]
        recall.append(max(hits) - min(hits))
        for d in range(4):
            each = [(guess[(s == g) & (y == c)] == d).mean() for g in range(3)]
            odds.append(max(each) - min(each))
    assert found["dSP"] == pytest.approx(max(parity))
    assert found["dEO"] == pytest.approx(max(recall))
    assert found["dEOdds"] == pytest.approx(max(odds))
    assert found["F1"] == pytest.approx(f1_score(y, guess, average="macro"))
    assert 0.3 < found["AUC"] < 0.7


def test_an_empty_group_or_class_gives_nan_and_says_so():
    """Section 8, 14: in a metric, an empty group is NaN with a warning."""
    with pytest.warns(RuntimeWarning, match="dEO is not defined"):
        found = scores([0, 0, 1, 0], [0, 1, 1, 0], [0, 0, 1, 1])
    assert np.isnan(found["dEO"])
    assert np.isfinite(found["dSP"])
    with pytest.warns(RuntimeWarning, match="dSP is not defined"):
        assert np.isnan(scores([0, 1], [0, 1], [0, 2])["dSP"])  # nobody is in group 1


@given(st.integers(0, 10_000), st.integers(2, 60))
def test_gaps_know_neither_the_order_nor_the_names_of_groups(seed, size):
    rng = np.random.default_rng(seed)
    y, guess, s = (rng.integers(2, size=size) for _ in range(3))
    order = rng.permutation(size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        first, second, third = (
            scores(y, guess, s),
            scores(y[order], guess[order], s[order]),
            scores(y, guess, 1 - s),
        )
    for name in ("dSP", "dEO", "dEOdds", "utility gap"):
        assert first[name] == pytest.approx(second[name], nan_ok=True)
        if s.min() != s.max():
            assert first[name] == pytest.approx(third[name], nan_ok=True)
        assert np.isnan(first[name]) or 0 <= first[name] <= 1


def test_the_table_of_groups_counts_the_confusion():
    y, guess, s = drawn(3)
    rows = by_group(y, guess, s, ["a", "b"], ["no", "yes"])
    here = s == 1
    assert rows[1]["group"] == "b"
    assert rows[1]["no -> yes"] == int((here & (y == 0) & (guess == 1)).sum())
    assert rows[1]["recall"] == pytest.approx(guess[here & (y == 1)].mean())
    assert (
        sum(rows[0][f"{a} -> {b}"] for a in ("no", "yes") for b in ("no", "yes"))
        == (rows[0]["nodes"])
    )


def test_names_of_classes_that_these_nodes_lack_do_no_harm():
    (first, _) = by_group([0, 1, 0, 1], [0, 1, 1, 1], [0, 0, 1, 1], "fm", ["no", "yes", "maybe"])
    assert [k for k in first if "->" in k] == ["no -> no", "no -> yes", "yes -> no", "yes -> yes"]


def test_the_bootstrap_is_that_of_resampled_nodes():
    y, guess, s = drawn(4, size=400)
    found = bootstrap(y, guess, s, draws=3000)
    rng = np.random.default_rng(9)
    drawn_again = []
    for _ in range(1500):
        rows = rng.integers(400, size=400)
        drawn_again.append(scores(y[rows], guess[rows], s[rows]))
    for name, (low, high) in found.items():
        values = [row[name] for row in drawn_again]
        assert (low, high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])), abs=0.015)
    assert bootstrap(y, guess, s, draws=50) == bootstrap(y, guess, s, draws=50)


def test_calibration_of_a_calibrated_and_of_a_shifted_group():
    rng = np.random.default_rng(0)
    p = rng.random(40_000)
    s = rng.integers(2, size=len(p))
    y = (rng.random(len(p)) < np.where(s == 1, p**2, p)).astype(int)
    rows = calibration(y, p, s)
    errors = calibration_error(rows)
    assert errors[0] < 0.02
    assert errors[1] == pytest.approx(1 / 6, abs=0.02)  # the mean of p - p^2
    assert sum(row["nodes"] for row in rows) == len(p)


def test_the_hypervolume_of_worked_curves():
    points = [(0.9, 0.2), (0.8, 0.1), (0.7, 0.15), (0.85, 0.3)]
    assert pareto(points) == [1, 0]
    assert hypervolume(points) == pytest.approx(0.8 * 0.9 + 0.1 * 0.8)
    assert hypervolume(points, (0.85, 0.5)) == pytest.approx(0.05 * 0.3)
    assert hypervolume([]) == 0
    grid = np.random.default_rng(0).random((200_000, 2))
    covered = np.zeros(len(grid), bool)
    for utility, gap in points:
        covered |= (grid[:, 0] <= utility) & (grid[:, 1] >= gap)
    assert hypervolume(points) == pytest.approx(covered.mean(), abs=0.005)


@pytest.mark.parametrize(
    ("y", "guess", "s", "words"),
    [
        ([], [], [], "shape"),
        ([0, 1], [0], [0, 1], "prediction: shape"),
        ([0, 1], [0, 1], [0, 0.5], "sensitive has missing values or fractions"),
        ([0, 1], [0, np.nan], [0, 1], "prediction has missing"),
        ([0, 1], [0, -1], [0, 1], "negative"),
    ],
)
def test_wrong_columns_are_refused(y, guess, s, words):
    with pytest.raises(InputError, match=words):
        counts_of(np.array(y), np.array(guess), np.array(s))
