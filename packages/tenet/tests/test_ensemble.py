import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.shared.errors import InputError
from tenfold.tenet.clustering import weighted_kmeans
from tenfold.tenet.evaluation import make_submission
from tenfold.tenet.kmeans_ensemble import (
    EnsembleConfig,
    ensemble,
    ensemble_submissions,
    merge_modes,
)

ENDS = np.array([[10, 0], [0, 10], [12, 0], [0, 8], [11, 3], [2, 9]], float)
P = np.array([0.6, 0.4, 0.7, 0.3, 0.5, 0.5])


def candidates(ends):
    path = np.linspace(0, 1, 61)[1:, None] * np.asarray(ends)[..., None, :]
    return path.reshape(*np.shape(ends)[:-1], 60, 2)


def test_the_worked_example():
    found = weighted_kmeans(ENDS[None], P[None] / 3, 2)
    assert found.assignment[0, [0, 2, 4]].tolist() == [found.assignment[0, 0]] * 3
    assert found.assignment[0, [1, 3, 5]].tolist() == [1 - found.assignment[0, 0]] * 3
    path, p = merge_modes(candidates(ENDS)[None], P[None] / 3, EnsembleConfig(modes=2))
    np.testing.assert_allclose(
        path[0, :, -1], [[11.055556, 0.833333], [0.833333, 9.083333]], atol=1e-6
    )
    np.testing.assert_allclose(p[0], [0.6, 0.4])
    plain = EnsembleConfig(modes=2, merge="mean")
    path, p = merge_modes(candidates(ENDS)[None], P[None] / 3, plain)
    np.testing.assert_allclose(path[0, :, -1], [[11, 1], [2 / 3, 9]])
    medoid = EnsembleConfig(modes=2, merge="medoid")
    path, _ = merge_modes(candidates(ENDS)[None], P[None] / 3, medoid)
    assert path[0, 0, -1].tolist() in ENDS.tolist()


def random_models(seed, sets=20, models=4, spread=8.0):
    rng = np.random.default_rng(seed)
    ends = rng.normal(size=(sets, models, 6, 2)) * spread
    p = rng.dirichlet(np.ones(6), (sets, models))
    return [(candidates(ends[:, m]), p[:, m]) for m in range(models)]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_the_order_of_models_and_modes_does_not_matter(seed):
    models = random_models(seed)
    rng = np.random.default_rng(seed)
    path, p = ensemble(models)
    order = rng.permutation(6)
    mixed = [(a[:, order], b[:, order]) for a, b in models]
    again, q = ensemble([mixed[i] for i in rng.permutation(len(models))])
    np.testing.assert_allclose(q, p, atol=1e-12)
    np.testing.assert_allclose(again, path, atol=1e-9)


def test_copies_of_one_model_give_that_model():
    (path, p), *_ = random_models(3)
    found, q = ensemble([(path, p)] * 5)
    order = np.argsort(-p, axis=1)
    np.testing.assert_allclose(q, np.take_along_axis(p, order, axis=1), atol=1e-12)
    np.testing.assert_allclose(found, path[np.arange(len(p))[:, None], order], atol=1e-9)


@pytest.mark.parametrize("angle", [0.0, 1.1])
def test_it_moves_with_the_scene(angle):
    models = random_models(4)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = np.array([3000.0, -7000.0])
    path, p = ensemble(models)
    moved, q = ensemble([(a @ turn.T + shift, b) for a, b in models])
    np.testing.assert_allclose(q, p, atol=1e-9)
    np.testing.assert_allclose(moved, path @ turn.T + shift, atol=1e-6)


def test_probabilities_and_centroids_are_consistent():
    models = random_models(5)
    paths = np.concatenate([a for a, _ in models], axis=1)
    weights = np.concatenate([b for _, b in models], axis=1) / 4
    merged, p = ensemble(models)
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    assert (np.diff(p, axis=1) <= 1e-15).all()
    found = weighted_kmeans(paths[:, :, -1], weights, 6)
    order = np.argsort(-found.weights, axis=1, kind="stable")
    np.testing.assert_allclose(
        merged[:, :, -1], np.take_along_axis(found.centers, order[..., None], axis=1), atol=1e-9
    )
    gap = paths[:, :, -1] - np.take_along_axis(found.centers, found.assignment[..., None], axis=1)
    np.testing.assert_allclose((weights * (gap**2).sum(-1)).sum(-1), found.inertia, rtol=1e-6)


def test_a_standing_agent_still_gets_six_rows():
    still = np.zeros((2, 6, 60, 2)) + 4.0
    merged, p = ensemble([(still, np.full((2, 6), 1 / 6))] * 3)
    assert merged.shape == (2, 6, 60, 2)
    np.testing.assert_allclose(p, [[1, 0, 0, 0, 0, 0]] * 2)
    np.testing.assert_allclose(merged, 4.0)
    one, q = ensemble([(still[:, :1], np.ones((2, 1)))])  # fewer candidates than clusters
    np.testing.assert_allclose(one, 4.0)
    np.testing.assert_allclose(q, [[1, 0, 0, 0, 0, 0]] * 2)


def test_inertia_is_about_that_of_ten_starts_of_scikit_learn():
    from sklearn.cluster import KMeans

    rng = np.random.default_rng(0)
    points = rng.normal(size=(60, 36, 2)) * [15, 5]
    weights = rng.dirichlet(np.ones(36), 60)
    ours = weighted_kmeans(points, weights, 6).inertia
    peer = [
        KMeans(6, n_init=10, random_state=0).fit(x, sample_weight=w).inertia_
        for x, w in zip(points, weights, strict=True)
    ]
    assert (ours / np.array(peer)).mean() < 1.01


def test_worlds_are_merged_as_worlds():
    rng = np.random.default_rng(0)
    ends = rng.normal(size=(2, 3, 6, 2)) * 20  # scenarios, tracks, modes
    p = rng.dirichlet(np.ones(6), 2)
    ids, tracks = np.repeat(["a", "b"], 3), ["1", "2", "3"] * 2
    members = []
    for _ in range(3):
        noisy = ends + rng.normal(size=ends.shape) * 0.01
        order = rng.permutation(6)
        members.append(
            make_submission(
                ids,
                tracks,
                np.repeat(p, 3, axis=0)[:, order],
                candidates(noisy.reshape(6, 6, 2))[:, order],
            )
        )
    merged = ensemble_submissions(members)
    assert merged.joint
    order = np.argsort(-p, axis=1)
    expected = ends[np.arange(2)[:, None], :, order].transpose(0, 2, 1, 3)
    np.testing.assert_allclose(
        merged.trajectories[:, :, -1].reshape(2, 3, 6, 2), expected, atol=0.05
    )
    np.testing.assert_allclose(merged.probabilities[::3], np.take_along_axis(p, order, axis=1))
    short = make_submission(ids[1:], tracks[1:], merged.probabilities[1:], merged.trajectories[1:])
    with pytest.raises(InputError, match="track '1' of scenario 'a' is in one of them only"):
        ensemble_submissions([merged, short])


@pytest.mark.parametrize(
    ("points", "weights", "message"),
    [
        (np.zeros((2, 3)), np.ones((2, 3)), r"expected \[S, N, F\]"),
        (np.zeros((1, 3, 2)), -np.ones((1, 3)), "weights must be >= 0"),
        (np.zeros((1, 3, 2)), np.zeros((1, 3)), "not all zero"),
    ],
)
def test_wrong_input_is_refused(points, weights, message):
    with pytest.raises(InputError, match=message):
        weighted_kmeans(points, weights, 2)
    with pytest.raises(InputError, match="do not sum to 1"):
        ensemble([(np.zeros((1, 2, 60, 2)), np.ones((1, 2)))])
