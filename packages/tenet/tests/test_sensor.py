import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest

from tenfold.shared.errors import InputError
from tenfold.tenet.data.maps import read_map
from tenfold.tenet.data.scenario import OBJECT_TYPES, read_scenario
from tenfold.tenet.data.scene import make_scene
from tenfold.tenet.data.sensor import WindowConfig, read_sensor_log, windows


@pytest.mark.data
def test_boxes_come_into_the_city_as_scipy_says(sensor_logs):
    from scipy.spatial.transform import Rotation

    for folder in sensor_logs.iterdir():
        log = read_sensor_log(folder)
        assert (log.city, log.position.shape[1]) == ("pittsburgh", 156)
        boxes = pyarrow.feather.read_table(folder / "annotations.feather").to_pylist()
        poses = pyarrow.feather.read_table(folder / "city_SE3_egovehicle.feather").to_pylist()
        at = {pose["timestamp_ns"]: pose for pose in poses}
        for box in boxes[::501]:
            pose = at[box["timestamp_ns"]]
            ego = Rotation.from_quat([pose[k] for k in ("qx", "qy", "qz", "qw")])
            own = Rotation.from_quat([box[k] for k in ("qx", "qy", "qz", "qw")])
            place = ego.apply([box[k] for k in ("tx_m", "ty_m", "tz_m")])
            place += [pose[k] for k in ("tx_m", "ty_m", "tz_m")]
            ahead = (ego * own).apply([1.0, 0.0, 0.0])
            row = log.track_ids.index(box["track_uuid"])
            frame = int(np.searchsorted(log.timestamps, box["timestamp_ns"]))
            assert log.valid[row, frame]
            np.testing.assert_allclose(log.position[row, frame], place[:2], atol=1e-6)
            assert log.heading[row, frame] == pytest.approx(np.arctan2(ahead[1], ahead[0]))
        # Moving vehicles face where they go, and the vehicle's own speed is that of its positions.
        speed = np.linalg.norm(log.velocity, axis=-1)
        fast = log.valid & (speed > 5) & (log.object_type == 0)[:, None]
        course = np.arctan2(log.velocity[..., 1], log.velocity[..., 0])
        off = np.abs(np.angle(np.exp(1j * (course - log.heading))))[fast]
        assert np.median(off) < 0.1


@pytest.mark.data
def test_windows_are_scenarios_of_the_official_form(sensor_logs, tmp_path, capsys):
    from tenfold.shared.cli import run

    assert run(["tenet", "data", "convert", str(sensor_logs), "--output", str(tmp_path)]) == 0
    folders = sorted(tmp_path.iterdir())
    assert len(folders) == 10
    log = read_sensor_log(next(iter(sorted(sensor_logs.iterdir()))))
    found = {s.scenario_id: s for s in windows(log)}
    for folder in folders:
        scenario, lane_map = read_scenario(folder), read_map(folder)
        scene = make_scene(scenario, lane_map)
        assert scene.future_valid[0].all()
        assert scenario.valid[scenario.focal].all()
        assert OBJECT_TYPES[scenario.object_type[scenario.focal]] in OBJECT_TYPES[:5]
        assert lane_map.file_centerline is not None
        if folder.name in found:
            np.testing.assert_array_equal(scenario.position, found[folder.name].position)
    every = list(windows(log, WindowConfig(stride=5, all_focal=True)))
    assert len({s.scenario_id for s in every}) == len(every) == 181


@pytest.mark.data
def test_windows_with_a_short_history_begin_before_the_log(sensor_logs):
    log = read_sensor_log(sorted(sensor_logs.iterdir())[0])
    full = {s.scenario_id: s for s in windows(log, WindowConfig(stride=5, all_focal=True))}
    config = WindowConfig(stride=5, all_focal=True, min_history=15)
    short = {s.scenario_id: s for s in windows(log, config)}
    assert len(short) > 1.5 * len(full)
    assert set(full) <= set(short)  # 35 steps earlier is a whole number of strides
    early = [s for s in short.values() if s.start_timestamp < log.timestamps[0]]
    assert min(s.start_timestamp for s in early) == log.timestamps[0] - 35e8
    for scenario in early:
        seen = scenario.valid[scenario.focal]
        assert seen[35:].all()
        missing = round((log.timestamps[0] - scenario.start_timestamp) / 1e8)
        assert not scenario.valid[:, :missing].any()
        row = log.track_ids.index(scenario.track_ids[scenario.focal])
        np.testing.assert_array_equal(
            scenario.position[scenario.focal, missing:], log.position[row, : 110 - missing]
        )
    with pytest.raises(InputError, match="min_history=51"):
        WindowConfig(min_history=51)


@pytest.mark.data
def test_malformed_logs_name_file_and_column(sensor_logs, tmp_path):
    import shutil

    source = next(iter(sorted(sensor_logs.iterdir())))
    folder = tmp_path / source.name
    shutil.copytree(source, folder)
    (folder / "annotations.feather").chmod(0o644)
    folder.chmod(0o755)
    table = pyarrow.feather.read_table(source / "annotations.feather")
    path = folder / "annotations.feather"
    pyarrow.feather.write_feather(table.drop_columns(["tx_m"]), path)
    with pytest.raises(InputError, match=r"annotations\.feather: column 'tx_m' is missing"):
        read_sensor_log(folder)
    late = pa.array(table["timestamp_ns"].to_numpy() + 1)
    index = table.column_names.index("timestamp_ns")
    pyarrow.feather.write_feather(table.set_column(index, "timestamp_ns", late), path)
    with pytest.raises(InputError, match="no pose for the boxes at timestamp_ns"):
        read_sensor_log(folder)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="not a whole feather file"):
        read_sensor_log(folder)
