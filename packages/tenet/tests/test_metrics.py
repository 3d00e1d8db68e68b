import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.shared.errors import InputError
from tenfold.tenet.evaluation import (
    agent_errors,
    collisions,
    displacement_errors,
    scores,
    world_displacements,
    world_errors,
)

TRUTH = np.array([[(1, 0), (2, 0), (3, 0)]], float)
MODES = np.array([[[(1, 0), (2, 0), (3, 1)], [(1, 0), (2, 1), (3, 0.5)], [(0, 0)] * 3]], float)
P = np.array([[0.5, 0.3, 0.2]])


def test_the_worked_example():
    ade, fde = displacement_errors(MODES, TRUTH)
    np.testing.assert_allclose(ade, [[1 / 3, 0.5, 2.0]])
    np.testing.assert_allclose(fde, [[1.0, 0.5, 3.0]])
    np.testing.assert_allclose(fde + (1 - P) ** 2, [[1.25, 0.99, 3.64]])
    np.testing.assert_allclose(ade + (1 - P) ** 2, [[0.583333, 0.99, 2.64]], atol=1e-6)
    found = scores(MODES, P, TRUTH)
    assert found["minFDE6"] == 0.5
    assert found["minADE6"] == pytest.approx(1 / 3)
    assert found["brier-minFDE6"] == pytest.approx(0.99)
    assert found["brier-minADE6"] == pytest.approx(0.583333, abs=1e-6)
    assert (found["minFDE1"], found["MR1"], found["MR6"]) == (1.0, 0.0, 0.0)
    other = scores(MODES, P, TRUTH, ade_mode="fde_best")
    assert other["minADE6"] == 0.5
    assert other["minFDE6"] == 0.5
    assert other["brier-minADE6"] == pytest.approx(0.99)
    assert scores(MODES, P / 2, TRUTH) == found  # probabilities are normalised


def test_exactly_two_metres_is_no_miss():
    path = np.array([[[(1, 0), (2, 0), (3, 2.0)]]])
    assert not agent_errors(path, np.ones((1, 1)), TRUTH).missed[0]
    path[..., -1, 1] = np.nextafter(2.0, 3.0)
    assert agent_errors(path, np.ones((1, 1)), TRUTH).missed[0]


def worlds():
    path = np.concatenate([MODES, MODES + np.array([0, 5])])
    truth = np.concatenate([TRUTH, TRUTH + np.array([0, 5])])
    truth[1, -1] += [0, 2]
    return path, truth, np.array([0, 2])


def test_the_worked_example_of_worlds():
    path, truth, offsets = worlds()
    ade, fde = world_displacements(path, truth, offsets)
    np.testing.assert_allclose(fde, [[1.0, 1.0, 3.302776]], atol=1e-6)
    np.testing.assert_allclose(ade, [[0.333333, 0.666667, 2.100925]], atol=1e-6)
    np.testing.assert_allclose(fde + (1 - P) ** 2, [[1.25, 1.49, 3.942776]], atol=1e-6)
    last = np.linalg.norm(path[:, :, -1] - truth[:, None, -1], axis=-1)
    assert (last > 2).tolist() == [[False, False, True], [False, False, True]]
    assert not collisions(path, offsets).any()
    found = world_errors(path, P, truth, offsets)
    assert found.avg_brier_min_fde[0] == pytest.approx(1.25)
    assert (found.missed[0], found.collided[0], found.tracks[0]) == (0, 0, 2)


def test_tracks_that_come_within_a_metre_collide():
    path, _, offsets = worlds()
    path[1, 1, 1] = path[0, 1, 1] + [0.0, 0.99]
    assert collisions(path, offsets).tolist() == [[False, True, False], [False, True, False]]
    path[1, 1, 1] = path[0, 1, 1] + [0.0, 1.0]
    assert not collisions(path, offsets).any()


def test_invalid_steps_do_not_count():
    valid = np.array([[True, True, False]])
    garbage = TRUTH.copy()
    garbage[0, 2] = np.nan
    ade, fde = displacement_errors(MODES, np.nan_to_num(garbage, nan=1e9), valid)
    np.testing.assert_allclose(fde, [[0.0, 1.0, 2.0]])
    np.testing.assert_allclose(ade, [[0.0, 0.5, 1.5]])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_the_order_of_modes_does_not_matter_without_ties(seed, modes):
    rng = np.random.default_rng(seed)
    path, p = rng.normal(size=(3, modes, 5, 2)) * 4, rng.dirichlet(np.ones(modes), 3)
    truth = rng.normal(size=(3, 5, 2))
    order = rng.permutation(modes)
    ours = agent_errors(path, p, truth)
    again = agent_errors(path[:, order], p[:, order], truth)
    np.testing.assert_allclose(ours.brier_min_fde, again.brier_min_fde)
    np.testing.assert_array_equal(ours.min_ade, again.min_ade)
    fde_best = agent_errors(path, p, truth, ade_mode="fde_best")
    assert (fde_best.min_ade >= ours.min_ade - 1e-12).all()


def test_only_the_most_probable_modes_count():
    rng = np.random.default_rng(0)
    path, p = rng.normal(size=(4, 9, 5, 2)), rng.dirichlet(np.ones(9), 4)
    truth = rng.normal(size=(4, 5, 2))
    top = np.argsort(-p, axis=1)[:, :6]
    rows = np.arange(4)[:, None]
    expected = np.linalg.norm(path[rows, top, -1] - truth[:, None, -1], axis=-1).min(axis=1)
    np.testing.assert_allclose(agent_errors(path, p, truth).min_fde, expected)


@pytest.mark.parametrize(
    ("path", "p", "truth", "message"),
    [
        (MODES[0], P, TRUTH, r"trajectories has shape \(3, 3, 2\)"),
        (MODES, P[:, :2], TRUTH, r"probabilities has shape \(1, 2\)"),
        (MODES, P, TRUTH[:, :2], r"truth has shape \(1, 2, 2\)"),
        (MODES, P * 3, TRUTH, "outside of"),
        (MODES, P * 0, TRUTH, "all zero"),
    ],
)
def test_wrong_shapes_and_probabilities_are_refused(path, p, truth, message):
    with pytest.raises(InputError, match=message):
        agent_errors(path, p, truth)
