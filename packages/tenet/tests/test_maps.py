import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.shared.errors import InputError
from tenfold.tenet.data.maps import Ragged, read_map, resample, write_map


@pytest.mark.data
def test_the_sample_map_has_its_known_content(sample, sample_map, sample_scenario):
    m = sample_map
    assert (sample / f"log_map_archive_{sample.name}.json").stat().st_size == 99_874
    assert len(m) == 71
    assert np.bincount(m.lane_type).tolist() == [34, 37]
    assert m.in_intersection.sum() == 32
    assert (len(m.crossings), len(m.areas)) == (6, 2)
    assert (len(m.successors.values), m.dangling) == (87, (8, 9))
    focal = sample_scenario.position[sample_scenario.focal, 49]
    away = np.linalg.norm(m.centerlines() - focal, axis=-1).min(axis=1)
    assert [int((away <= r).sum()) for r in (25, 50, 100, 150)] == [26, 50, 63, 71]
    assert m.lane_ids[away.argmin()] == 205119377
    assert away.min() == pytest.approx(1.8146, abs=1e-4)
    row = int(np.flatnonzero(m.lane_ids == 205119120)[0])
    line = m.centerlines()[row]
    assert m.lane_type[row] == 1
    assert line[0] == pytest.approx((-438.535, 1317.335))
    assert line[-1] == pytest.approx((-435.935, 1350.0))
    assert m.file_centerline[row].shape == (18, 2)
    assert m.file_centerline[row][0].tolist() == [-438.53, 1317.34]
    assert m.file_centerline[row][-1].tolist() == [-435.94, 1350.0]


@pytest.mark.data
def test_the_sample_map_comes_back_exactly(sample, sample_map, tmp_path):
    write_map(sample_map, tmp_path / "map.json")
    ours = json.loads((tmp_path / "map.json").read_text())
    official = json.loads((sample / f"log_map_archive_{sample.name}.json").read_text())
    assert ours == official


@pytest.mark.data
def test_sensor_maps_have_no_centre_lines_and_are_read(sensor_logs):
    from tenfold.tenet.data.sensor import with_centerlines

    sizes = []
    for log in sorted(sensor_logs.iterdir()):
        m = read_map(log)
        assert m.file_centerline is None
        sizes.append(len(m))
        given = with_centerlines(m).file_centerline
        np.testing.assert_allclose(
            given.values.reshape(-1, 10, 2), m.centerlines(), atol=0.00501, rtol=0
        )
    assert sizes == [183, 199]


def reference(line, points):
    """Equal distances along one line, in plain numpy."""
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    along = np.concatenate([[0], np.cumsum(steps)])
    wanted = np.linspace(0, along[-1], points)
    keep = np.concatenate([[True], steps > 0])
    return np.stack([np.interp(wanted, along[keep], line[keep, d]) for d in range(3)], axis=-1)


coordinate = st.floats(-9000, 9000).map(lambda v: round(v, 2))
line = st.lists(st.tuples(coordinate, coordinate, coordinate), min_size=1, max_size=7)


@settings(max_examples=60, deadline=None)
@given(st.lists(line, min_size=1, max_size=5), st.integers(2, 12))
def test_resampling_many_lines_is_resampling_each(lines, points):
    made = resample(Ragged.of(lines, np.float64, 3), points)
    for row, one in zip(made, lines, strict=True):
        one = np.array(one)
        expected = reference(one, points) if len(one) > 1 else np.repeat(one, points, axis=0)
        np.testing.assert_allclose(row, expected, atol=1e-6)
        assert row[0].tolist() == one[0].tolist()
        assert row[-1].tolist() == one[-1].tolist()


def test_a_boundary_of_one_point_is_averaged_with_every_point_of_the_other(made, tmp_path):
    path = tmp_path / "map.json"
    write_map(made[0][1], path)
    content = json.loads(path.read_text())
    lane = next(iter(content["lane_segments"].values()))
    lane["left_lane_boundary"] = [{"x": 1.0, "y": 2.0, "z": 0.0}]
    lane["right_lane_boundary"] = [{"x": 1.0, "y": 4.0, "z": 0.0}, {"x": 19.0, "y": 4.0, "z": 0.0}]
    path.write_text(json.dumps(content))
    line = read_map(path).centerlines()[0]
    np.testing.assert_allclose(line, np.stack([np.linspace(1, 10, 10), np.full(10, 3)], axis=-1))


def edited(lane_map, path, change):
    write_map(lane_map, path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def first_lane(content):
    return next(iter(content["lane_segments"].values()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("lane_segments"), "'lane_segments' is missing"),
        (lambda c: c["lane_segments"].clear(), "'lane_segments' is empty"),
        (lambda c: first_lane(c).pop("successors"), "field 'successors' of lane 1000 is missing"),
        (lambda c: first_lane(c).update(lane_type="TRAM"), "lane_type is 'TRAM'"),
        (lambda c: first_lane(c)["left_lane_boundary"].clear(), "left_lane_boundary has no points"),
        (lambda c: first_lane(c)["left_lane_boundary"][0].update(x=None), "not finite"),
        (lambda c: first_lane(c).update(left_lane_boundary=5), "something unexpected"),
    ],
)
def test_malformed_maps_name_file_and_field(made, tmp_path, change, message):
    path = edited(made[0][1], tmp_path / "wrong.json", change)
    with pytest.raises(InputError, match=message) as error:
        read_map(path)
    assert "wrong.json" in str(error.value)


def test_truncated_json_is_refused(made, tmp_path):
    path = tmp_path / "cut.json"
    write_map(made[0][1], path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"cut\.json: not JSON"):
        read_map(path)


@pytest.mark.parametrize("gone", ["pedestrian_crossings", "drivable_areas"])
def test_crossings_and_areas_may_be_missing(made, tmp_path, gone):
    path = edited(made[0][1], tmp_path / "map.json", lambda c: c.pop(gone))
    found = read_map(path)
    assert len(found.crossings if gone == "pedestrian_crossings" else found.areas) == 0
