"""Parity with the official API; skipped where it is not installed (Python 3.13 and newer)."""

import numpy as np
import pytest

from tenfold.tenet.data.maps import read_map
from tenfold.tenet.data.scenario import read_scenario, write_scenario
from tenfold.tenet.evaluation import (
    displacement_errors,
    make_submission,
    read_submission,
    world_displacements,
    write_submission,
)
from tenfold.tenet.evaluation.metrics import agent_errors, collisions

pytest.importorskip("av2", reason="needs the extra av2, whose wheels end at Python 3.12")

from av2.datasets.motion_forecasting.eval import metrics as official

from tenfold.tenet.data import official as convert


def load(sample):
    from av2.datasets.motion_forecasting.scenario_serialization import (
        load_argoverse_scenario_parquet,
    )

    return load_argoverse_scenario_parquet(sample / f"scenario_{sample.name}.parquet")


@pytest.mark.data
def test_positions_are_those_of_av2(sample, sample_scenario):
    theirs = load(sample)
    assert len(theirs.tracks) == len(sample_scenario.track_ids)
    for track in theirs.tracks:
        row = sample_scenario.track_ids.index(track.track_id)
        steps = [state.timestep for state in track.object_states]
        assert sample_scenario.valid[row].nonzero()[0].tolist() == steps
        found = [(*s.position, *s.velocity, s.heading) for s in track.object_states]
        ours = np.concatenate(
            [
                sample_scenario.position[row, steps],
                sample_scenario.velocity[row, steps],
                sample_scenario.heading[row, steps, None],
            ],
            axis=1,
        )
        np.testing.assert_allclose(ours, found, atol=1e-6, rtol=0)


@pytest.mark.data
def test_scenarios_convert_both_ways(sample, sample_scenario):
    theirs = load(sample)
    back = convert.from_argoverse_scenario(theirs)
    rows = [back.track_ids.index(name) for name in sample_scenario.track_ids]
    np.testing.assert_array_equal(back.position[rows], sample_scenario.position)
    np.testing.assert_array_equal(back.category[rows], sample_scenario.category)
    np.testing.assert_array_equal(back.object_type[rows], sample_scenario.object_type)
    assert convert.to_argoverse_scenario(back) == theirs


def test_av2_reads_what_we_write(made, tmp_path):
    from av2.datasets.motion_forecasting.scenario_serialization import (
        load_argoverse_scenario_parquet,
        serialize_argoverse_scenario_parquet,
    )

    scenario = made[0][0]
    write_scenario(scenario, tmp_path / "ours.parquet")
    theirs = load_argoverse_scenario_parquet(tmp_path / "ours.parquet")
    serialize_argoverse_scenario_parquet(tmp_path / "theirs.parquet", theirs)
    back = read_scenario(tmp_path / "theirs.parquet")
    rows = [back.track_ids.index(name) for name in scenario.track_ids]
    np.testing.assert_array_equal(back.position[rows], scenario.position)
    np.testing.assert_array_equal(back.valid[rows], scenario.valid)


@pytest.mark.data
def test_centre_lines_are_those_of_av2(sample, sample_map):
    from av2.map.map_api import ArgoverseStaticMap

    theirs = ArgoverseStaticMap.from_json(sample / f"log_map_archive_{sample.name}.json")
    for name, line in zip(sample_map.lane_ids.tolist(), sample_map.centerlines(), strict=True):
        expected = theirs.get_lane_segment_centerline(name)[:, :2]
        np.testing.assert_allclose(line, expected, atol=1e-6, rtol=0)
    back = convert.from_argoverse_map(convert.to_argoverse_map(sample_map))
    np.testing.assert_array_equal(back.centerlines(), sample_map.centerlines())
    np.testing.assert_array_equal(back.successors.values, sample_map.successors.values)
    np.testing.assert_array_equal(back.crossings, sample_map.crossings)


@pytest.mark.data
def test_centre_lines_of_sensor_maps_are_those_of_av2(sensor_logs):
    from av2.map.map_api import ArgoverseStaticMap

    for log in sensor_logs.iterdir():
        theirs = ArgoverseStaticMap.from_json(next((log / "map").glob("log_map_archive*.json")))
        ours = read_map(log)
        for name, line in zip(ours.lane_ids.tolist(), ours.centerlines(), strict=True):
            expected = theirs.get_lane_segment_centerline(name)[:, :2]
            np.testing.assert_allclose(line, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_those_of_av2(seed):
    rng = np.random.default_rng(seed)
    path, truth = rng.normal(size=(30, 6, 60, 2)) * 3, rng.normal(size=(30, 60, 2))
    p = rng.dirichlet(np.ones(6), 30)
    path[::3, 3] = path[::3, 1]  # ties of the error
    p[::4] = 1 / 6  # and of the probability
    path[5, 2, -1] = truth[5, -1] + [2.0, 0.0]
    order = np.argsort(-p, axis=1, kind="stable")
    path = path[np.arange(30)[:, None], order]
    p = np.take_along_axis(p, order, axis=1)
    ade, fde = displacement_errors(path, truth)
    found = agent_errors(path, p, truth)
    best = agent_errors(path, p, truth, ade_mode="fde_best")
    for i in range(30):
        theirs_ade = official.compute_ade(path[i], truth[i])
        theirs_fde = official.compute_fde(path[i], truth[i])
        missed = official.compute_is_missed_prediction(path[i], truth[i])
        brier_fde = official.compute_brier_fde(path[i], truth[i], p[i], normalize=True)
        brier_ade = official.compute_brier_ade(path[i], truth[i], p[i], normalize=True)
        np.testing.assert_allclose(ade[i], theirs_ade, atol=1e-12, rtol=0)
        np.testing.assert_allclose(fde[i], theirs_fde, atol=1e-12, rtol=0)
        np.testing.assert_array_equal(fde[i] > 2.0, missed)
        j, k = theirs_fde.argmin(), theirs_ade.argmin()
        assert abs(found.min_fde[i] - theirs_fde[j]) < 1e-12
        assert abs(found.min_ade[i] - theirs_ade[k]) < 1e-12
        assert found.missed[i] == missed[j]
        assert abs(found.brier_min_fde[i] - brier_fde[j]) < 1e-12
        assert abs(found.brier_min_ade[i] - brier_ade[k]) < 1e-12
        assert abs(best.min_ade[i] - theirs_ade[j]) < 1e-12


@pytest.mark.parametrize("tracks", [1, 2, 5])
def test_world_metrics_are_those_of_av2(tracks):
    rng = np.random.default_rng(tracks)
    path, truth = rng.normal(size=(tracks, 6, 60, 2)) * 3, rng.normal(size=(tracks, 60, 2))
    offsets = np.array([0, tracks])
    ade, fde = world_displacements(path, truth, offsets)
    np.testing.assert_allclose(ade[0], official.compute_world_ade(path, truth), atol=1e-12)
    np.testing.assert_allclose(fde[0], official.compute_world_fde(path, truth), atol=1e-12)
    np.testing.assert_array_equal(
        collisions(path, offsets), official.compute_world_collisions(path)
    )


@pytest.mark.parametrize("equal", [False, True])
def test_av2_reads_our_submissions_with_the_worlds_intact(tmp_path, equal):
    from av2.datasets.motion_forecasting.eval.submission import ChallengeSubmission

    rng = np.random.default_rng(0)
    scenarios, tracks = 20, 5
    ids = [f"s{i}" for i in range(scenarios) for _ in range(tracks)]
    names = [f"t{j}" for _ in range(scenarios) for j in range(tracks)]
    p = np.repeat(rng.dirichlet(np.ones(6), scenarios), tracks, axis=0)
    if equal:
        p[:] = 1 / 6
    # The first x of world k is k for every track: it shows when worlds are mixed.
    path = rng.normal(size=(100, 6, 60, 2))
    path[:, :, 0, 0] = np.arange(6)
    made = make_submission(ids, names, p, path)
    write_submission(made, tmp_path / "s.parquet")
    theirs = ChallengeSubmission.from_parquet(tmp_path / "s.parquet")
    assert len(theirs.predictions) == scenarios
    for probabilities, by_track in theirs.predictions.values():
        worlds = np.stack([by_track[f"t{j}"][:, 0, 0] for j in range(tracks)])
        assert (worlds == worlds[0]).all()
        assert abs(probabilities.sum() - 1) < 1e-9
    back = convert.from_challenge_submission(theirs)
    assert back.joint
    again = convert.to_challenge_submission(made)
    again.to_parquet(tmp_path / "theirs.parquet")
    found = read_submission(tmp_path / "theirs.parquet")
    np.testing.assert_array_equal(found.trajectories, made.trajectories)
