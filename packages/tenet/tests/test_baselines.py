import numpy as np
import pytest
import torch

from tenfold.shared.errors import InputError
from tenfold.tenet.data.scene import SceneStore, make_scene
from tenfold.tenet.evaluation import displacement_errors
from tenfold.tenet.model.baselines import (
    LSTM,
    NearestNeighbour,
    _from_path,
    _to_path,
    constant_velocity,
    constant_velocity_modes,
    train_lstm,
)


@pytest.mark.data
@pytest.mark.parametrize(
    ("rule", "ade", "fde"),
    [
        ("tracker", 3.949025, 9.230632),
        ("last", 4.947244, 11.201256),
        ("mean", 18.221540, 37.310912),
        ("standing", 1.705381, 1.885409),
    ],
)
def test_constant_velocity_on_the_sample(sample_scenario, rule, ade, fde):
    s = sample_scenario
    made = constant_velocity(s.position[s.focal, :50], s.velocity[s.focal, :50], rule)
    found = displacement_errors(made[None, None], s.position[s.focal, None, 50:])
    assert found[0][0, 0] == pytest.approx(ade, abs=1e-6)
    assert found[1][0, 0] == pytest.approx(fde, abs=1e-6)


@pytest.mark.data
@pytest.mark.parametrize(
    ("track", "ade", "fde"), [("139344", 0.122692, 0.162956), ("AV", 11.291202, 29.889150)]
)
def test_constant_velocity_of_other_tracks_of_the_sample(sample_scenario, track, ade, fde):
    s = sample_scenario
    row = s.track_ids.index(track)
    made = constant_velocity(s.position[row, :50], s.velocity[row, :50])
    found = displacement_errors(made[None, None], s.position[row, None, 50:])
    assert found[0][0, 0] == pytest.approx(ade, abs=1e-6)
    assert found[1][0, 0] == pytest.approx(fde, abs=1e-6)


def test_constant_velocity_is_exact_on_a_straight_line():
    line = np.arange(110)[:, None] * [0.7, -0.2]
    velocity = np.full((50, 2), [7.0, -2.0])
    for rule in ("tracker", "last", "mean"):
        np.testing.assert_allclose(constant_velocity(line[:50], velocity, rule), line[50:])
    with pytest.raises(InputError, match="did you mean 'tracker'"):
        constant_velocity(line[:50], velocity, "traker")


def test_six_constant_velocity_modes(store):
    path, p = constant_velocity_modes(store[0])
    assert path.shape == (6, 60, 2)
    assert p.sum() == pytest.approx(1.0)
    state = store[0].state[0]
    np.testing.assert_allclose(path[0], constant_velocity(state[:, :2], state[:, 3:]), atol=1e-4)


def test_curvilinear_coordinates_go_both_ways():
    rng = np.random.default_rng(0)
    angle = np.linspace(0, 1.5, 25)
    path = 40 * np.stack([np.sin(angle), 1 - np.cos(angle)], axis=-1)
    points = path[rng.integers(1, 24, 50)] + rng.normal(size=(50, 2)) * 0.3
    there = _to_path(points, path)
    np.testing.assert_allclose(_from_path(there, path), points, atol=0.05)
    assert np.abs(there[:, 1]).max() < 1.5


@pytest.mark.parametrize("options", [{}, {"map_prior": True}, {"components": 8}])
def test_the_nearest_neighbour_finds_what_it_has_seen(store, options):
    model = NearestNeighbour(neighbours=2, **options).fit(store)
    seen = [i for i in range(len(store)) if store[i].valid[0].all()]
    path, p = model.predict(store[seen[0]])
    assert path.shape == (6, 60, 2)
    assert p.sum() == pytest.approx(1.0)
    assert (np.diff(p) <= 0).all()
    truth = store[seen[0]].future[0]
    gap = np.linalg.norm(path[:2, -1] - truth[-1], axis=-1).min()
    assert gap < (3.0 if "map_prior" in options else 0.05)


def test_the_nearest_neighbour_needs_scenes(made):
    one = SceneStore.of([make_scene(*made[0])])
    with pytest.raises(InputError, match="complete scenes; expected at least 6"):
        NearestNeighbour().fit(one)


def test_the_lstm_learns_and_repeats_itself():
    rng = np.random.default_rng(0)
    speed = torch.from_numpy(rng.uniform(0.2, 1.2, (128, 1, 1))).float()
    line = torch.cat(
        [torch.arange(-49, 61)[None, :, None] * speed, 0 * speed.expand(-1, 110, 1)], 2
    )
    history, future = line[:, :50], line[:, 50:]
    torch.manual_seed(0)
    before = (LSTM()(history) - future).norm(dim=-1).mean()
    made = [train_lstm(history, future, epochs=24, batch_size=32, rate=1e-2) for _ in range(2)]
    after = (made[0](history) - future).norm(dim=-1).mean()
    assert after < 0.5 * before
    for a, b in zip(made[0].parameters(), made[1].parameters(), strict=True):
        assert torch.equal(a, b)
