import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tenfold.shared.errors import InputError
from tenfold.tenet.data.index import scan
from tenfold.tenet.evaluation import (
    from_predictions,
    make_submission,
    read_ground_truth,
    read_submission,
    score,
    scores,
    to_predictions,
    truth_of,
    world_scores,
    write_ground_truth,
    write_submission,
)


def random_submission(seed=0, scenarios=5, tracks=1, modes=6, joint=True):
    rng = np.random.default_rng(seed)
    ids = [f"s{i}" for i in range(scenarios) for _ in range(tracks)]
    names = [f"t{j}" for _ in range(scenarios) for j in range(tracks)]
    p = rng.dirichlet(np.ones(modes), scenarios if joint else scenarios * tracks)
    p = np.repeat(p, tracks, axis=0) if joint else p
    return make_submission(ids, names, p, rng.normal(size=(len(ids), modes, 60, 2)) * 100)


def same(a, b):
    assert a.scenario_ids.tolist() == b.scenario_ids.tolist()
    assert a.track_ids.tolist() == b.track_ids.tolist()
    np.testing.assert_array_equal(a.probabilities, b.probabilities)
    np.testing.assert_array_equal(a.trajectories, b.trajectories)


@pytest.mark.parametrize(("tracks", "joint"), [(1, True), (3, True), (3, False)])
def test_a_submission_comes_back_exactly(tmp_path, tracks, joint):
    made = random_submission(tracks=tracks, joint=joint)
    assert made.joint == joint or tracks == 1
    write_submission(made, tmp_path / "s.parquet")
    same(read_submission(tmp_path / "s.parquet"), made)


def test_the_order_of_rows_does_not_matter(tmp_path):
    made = random_submission(tracks=3)
    path = tmp_path / "s.parquet"
    write_submission(made, path)
    table = pq.read_table(path)
    pq.write_table(table.take(pa.array(np.random.default_rng(0).permutation(len(table)))), path)
    found = read_submission(path)
    assert found.joint
    place = {k: i for i, k in enumerate(zip(found.scenario_ids, found.track_ids, strict=True))}
    rows = [place[k] for k in zip(made.scenario_ids, made.track_ids, strict=True)]
    np.testing.assert_array_equal(found.trajectories[rows], made.trajectories)


def test_equal_probabilities_are_written_apart_and_stay_in_order(tmp_path):
    base = random_submission(tracks=3)
    p = np.full((15, 6), 1 / 6)
    made = make_submission(base.scenario_ids, base.track_ids, p, base.trajectories)
    write_submission(made, tmp_path / "s.parquet")
    found = read_submission(tmp_path / "s.parquet")
    assert (np.diff(found.probabilities, axis=1) < 0).all()
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_array_equal(found.trajectories, made.trajectories)
    assert found.joint


def test_tracks_with_fewer_modes_are_padded(tmp_path):
    a, b = random_submission(modes=6, scenarios=1), random_submission(modes=2, scenarios=1)
    made = from_predictions(
        {
            "x": (a.probabilities[0], {"1": a.trajectories[0]}),
            "y": (b.probabilities[0], {"1": b.trajectories[0]}),
        }
    )
    write_submission(made, tmp_path / "s.parquet")
    found = read_submission(tmp_path / "s.parquet")
    assert np.isnan(found.trajectories[1, 2:]).all()
    assert pq.read_metadata(tmp_path / "s.parquet").num_rows == 8
    truth = found.trajectories[:, 0]
    assert scores(found.trajectories, found.probabilities, truth)["minFDE6"] == 0.0


@pytest.mark.parametrize("worlds", [True, False])
def test_both_layouts_of_predictions(worlds):
    made = random_submission(tracks=2)
    given = to_predictions(made, worlds=worlds)
    first = given["s0"]
    assert isinstance(first, tuple if worlds else dict)
    same(from_predictions(given), made)
    apart = random_submission(tracks=2, joint=False)
    same(from_predictions(to_predictions(apart, worlds=False)), apart)
    with pytest.raises(InputError, match="they are no worlds"):
        to_predictions(apart)


def edit(path, name, change):
    table = pq.read_table(path)
    values = change(table.column(name).to_pylist())
    pq.write_table(table.set_column(table.column_names.index(name), name, pa.array(values)), path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("probability", lambda v: [1.5, *v[1:]], "'probability' is 1.5 for track 't0'"),
        ("probability", lambda v: [x / 2 for x in v], "'probability' of track 't0'.*sums to 0.5"),
        ("probability", lambda v: [None, *v[1:]], "'probability' has empty cells"),
        ("probability", lambda v: ["x"] * len(v), "'probability' is of type string"),
        ("predicted_trajectory_x", lambda v: [v[0][:59], *v[1:]], "has 59 values"),
        ("predicted_trajectory_y", lambda v: [[np.nan] * 60, *v[1:]], "not finite"),
        ("predicted_trajectory_y", lambda v: [1.0] * len(v), "expected lists of numbers"),
        ("track_id", lambda v: list(range(len(v))), "'track_id' is of type int64"),
    ],
)
def test_malformed_submissions_name_file_and_column(tmp_path, name, change, message):
    path = tmp_path / "wrong.parquet"
    write_submission(random_submission(), path)
    edit(path, name, change)
    with pytest.raises(InputError, match=message) as error:
        read_submission(path)
    assert "wrong.parquet" in str(error.value)


def test_missing_columns_and_truncated_files_are_refused(tmp_path):
    path = tmp_path / "wrong.parquet"
    write_submission(random_submission(), path)
    content = path.read_bytes()
    pq.write_table(pq.read_table(path).drop_columns(["probability"]), path)
    with pytest.raises(InputError, match="'probability' is missing"):
        read_submission(path)
    path.write_bytes(content[:5000])
    with pytest.raises(InputError, match="not a whole parquet"):
        read_submission(path)
    with pytest.raises(InputError, match="there is no such file"):
        read_submission(tmp_path / "none.parquet")


def test_a_track_given_twice_is_refused():
    made = random_submission(scenarios=2)
    with pytest.raises(InputError, match="given twice"):
        make_submission(["a", "a"], ["1", "1"], made.probabilities, made.trajectories)


def test_score_against_files_and_folders(made, split, tmp_path):
    truth = read_ground_truth(scan(split))
    write_ground_truth(truth, tmp_path / "truth.parquet")
    again = read_ground_truth(tmp_path / "truth.parquet")
    known = ~np.isnan(truth.trajectories).any(axis=(1, 2))
    assert known.all()
    np.testing.assert_array_equal(again.trajectories, truth.trajectories)
    np.testing.assert_array_equal(again.is_focal, truth.is_focal)
    rng = np.random.default_rng(0)
    paths = truth.trajectories[:, None] + rng.normal(size=(len(truth), 6, 60, 2))
    p = rng.dirichlet(np.ones(6), len(np.unique(truth.scenario_ids)))
    _, code = np.unique(truth.scenario_ids, return_inverse=True)
    submission = make_submission(truth.scenario_ids, truth.track_ids, p[code], paths)
    found = score(submission, again)
    focal = truth.is_focal
    assert found.scenarios == 7
    assert len(found.single) == 8
    assert found.single == pytest.approx(
        scores(paths[focal], p[code][focal], truth.trajectories[focal])
    )
    new = np.flatnonzero(truth.scenario_ids[1:] != truth.scenario_ids[:-1]) + 1
    offsets = np.array([0, *new, len(truth)])
    expected = world_scores(paths, p[code][offsets[:-1]], truth.trajectories, offsets)
    assert found.world == pytest.approx(expected)
    only = make_submission(
        truth.scenario_ids[focal], truth.track_ids[focal], p[code][focal], paths[focal]
    )
    assert score(only, truth).single == pytest.approx(found.single)
    assert score(only, truth).world is None
    with pytest.raises(InputError, match="1 of 7 tracks of the ground truth are missing"):
        score(
            make_submission(
                only.scenario_ids[1:],
                only.track_ids[1:],
                only.probabilities[1:],
                only.trajectories[1:],
            ),
            truth,
        )
    assert len(truth_of([pair[0] for pair in made])) > len(made)
