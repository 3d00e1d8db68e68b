import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tenfold.shared.errors import InputError, UnavailableError
from tenfold.tenet.data.cache import open_cache, preprocess, read_scene
from tenfold.tenet.data.index import scan, verify, write_manifest
from tenfold.tenet.data.scene import (
    SceneConfig,
    SceneStore,
    agent_features,
    from_frame,
    line_features,
    make_scene,
    to_frame,
)

SMALL = SceneConfig(max_agents=20, max_lines=40)


def digest(folder):
    """One checksum for everything in a cache."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return found.hexdigest()


def test_any_number_of_workers_makes_the_same_bits(split, tmp_path):
    index = scan(split)
    for workers in (1, 2):
        preprocess(index, tmp_path / str(workers), SMALL, shard_size=2, workers=workers)
    assert digest(tmp_path / "1") == digest(tmp_path / "2")


@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_dask_makes_the_same_bits(split, tmp_path, processes):
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    index = scan(split)
    preprocess(index, tmp_path / "here", SMALL, shard_size=2)
    with distributed.LocalCluster(
        n_workers=2 if processes else 1,
        threads_per_worker=1 if processes else 2,
        processes=processes,
        dashboard_address=None,
    ) as cluster:
        preprocess(
            index, tmp_path / "dask", SMALL, shard_size=2, scheduler=cluster.scheduler_address
        )
    assert digest(tmp_path / "here") == digest(tmp_path / "dask")


def test_no_scheduler_is_said_so(split, tmp_path):
    pytest.importorskip("distributed", reason="needs the extra dask")
    with pytest.raises(UnavailableError, match="no Dask scheduler answers"):
        preprocess(scan(split), tmp_path, SMALL, scheduler="nonsense://nowhere")


def test_the_cache_holds_what_was_read(split, tmp_path):
    index = scan(split)
    cache = preprocess(index, tmp_path / "c", SMALL, shard_size=3)
    assert len(cache) == 7
    assert [len(shard) for shard in cache.shards] == [3, 3, 1]
    direct = SceneStore.of([read_scene(split / name, SMALL) for name in index.scenario_ids])
    for rows in ([0, 6, 3], [5], list(range(7))):
        a, b = cache.batch(rows, 8, 16), direct.batch(rows, 8, 16)
        c = cache.in_memory().batch(rows, 8, 16)
        for name in vars(a):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
            np.testing.assert_array_equal(getattr(c, name), getattr(b, name), err_msg=name)
    assert cache[4].track_ids == direct[4].track_ids
    assert cache[4].scenario_id == index.scenario_ids[4]
    np.testing.assert_array_equal(cache[4].origin, direct[4].origin)


def test_a_killed_preprocessing_goes_on_to_the_same_bits(split, tmp_path):
    code = f"""
import time
from tenfold.tenet.data import cache
make = cache.make_shard
def slow(task):
    time.sleep(0.4)
    return make(task)
cache.make_shard = slow
from tenfold.tenet.data.index import scan
cache.preprocess(scan({str(split)!r}), __import__("pathlib").Path({str(tmp_path / "cut")!r}),
                 cache.SceneConfig(max_agents=20, max_lines=40), shard_size=1)
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    waited = time.monotonic() + 60
    while len(list((tmp_path / "cut").glob("shard-*"))) < 2 and time.monotonic() < waited:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    there = sorted(path.name for path in (tmp_path / "cut").glob("shard-*"))
    assert 2 <= len(there) < 7
    with pytest.raises(InputError, match=f"{7 - len(there)} of 7 shards are missing"):
        open_cache(tmp_path / "cut")
    before = {name: (tmp_path / "cut" / name).stat().st_mtime_ns for name in there}
    preprocess(scan(split), tmp_path / "cut", SMALL, shard_size=1)
    for name, stamp in before.items():  # what was there was not made again
        assert (tmp_path / "cut" / name).stat().st_mtime_ns == stamp
    preprocess(scan(split), tmp_path / "whole", SMALL, shard_size=1)
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


def test_another_configuration_or_a_damaged_shard_is_refused(split, tmp_path):
    index = scan(split)
    preprocess(index, tmp_path / "c", SMALL)
    with pytest.raises(InputError, match="holds a cache with config"):
        preprocess(index, tmp_path / "c", SceneConfig(radius=50.0))
    path = tmp_path / "c" / "shard-00000" / "state.npy"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"state\.npy: damaged"):
        open_cache(tmp_path / "c")
    with pytest.raises(InputError, match="not the header of a cache"):
        open_cache(tmp_path)


def test_a_broken_scenario_stops_preprocessing_and_is_named(split, tmp_path):
    folder = tmp_path / "split"
    shutil.copytree(split, folder)
    name = scan(folder).scenario_ids[2]
    path = folder / name / f"scenario_{name}.parquet"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match=rf"scenario_{name}\.parquet: not a whole parquet"):
        preprocess(scan(folder), tmp_path / "c", SMALL, shard_size=1)


def test_verify_finds_what_is_wrong(split, tmp_path):
    folder = tmp_path / "split"
    shutil.copytree(split, folder)
    index = scan(folder)
    manifest = write_manifest(index)
    assert list(verify(index, manifest)) == []
    a, b, c, d = index.scenario_ids[:4]
    (folder / a / f"log_map_archive_{a}.json").unlink()
    lane_map = folder / b / f"log_map_archive_{b}.json"
    content = json.loads(lane_map.read_text())
    content["lane_segments"] = {}
    lane_map.write_text(json.dumps(content))
    shutil.rmtree(folder / c)
    parquet = folder / d / f"scenario_{d}.parquet"
    other = folder / index.scenario_ids[4]
    shutil.copy(other / f"scenario_{other.name}.parquet", parquet)
    found = {p["scenario_id"]: p["problem"] for p in verify(scan(folder))}
    assert "is missing or empty" in found[a]
    assert "'lane_segments' is empty" in found[b]
    assert "column 'scenario_id' is" in found[d]
    found = {p["scenario_id"]: p["problem"] for p in verify(scan(folder), manifest)}
    assert found[c] == "in the manifest, but not in the folder"
    assert "manifest" in found[b]
    counted = list(verify(scan(folder), read=False, split="val"))
    assert "the official split has 24988" in counted[0]["problem"]
    with pytest.raises(InputError, match="holds no scenario"):
        scan(tmp_path / "split" / a)


@pytest.mark.data
def test_the_sample_scene_has_its_known_content(sample_scenario, sample_map):
    scene = make_scene(sample_scenario, sample_map)
    for radius, count in ((50, 4), (100, 12), (150, 20)):
        near = make_scene(sample_scenario, sample_map, SceneConfig(radius=radius))
        away = np.linalg.norm(near.state[:, 49, :2], axis=1)
        assert (away <= radius).sum() == count
        assert (near.category[away > radius] == 2).all()  # scored tracks are always kept
    assert len(scene.lines) == 71 + 6
    assert scene.track_ids[0] == "138951"
    assert scene.state[0, 0, :2] == pytest.approx((-31.99757, 0.72064), abs=1e-4)
    assert scene.future[0, 59] == pytest.approx((1.88274, 0.10035), abs=1e-4)
    assert scene.future[0, 29] == pytest.approx((1.94084, 0.11074), abs=1e-4)
    assert not scene.state[0, 49, :3].any()
    away = np.linalg.norm(scene.state[:, 49, :2], axis=1)
    assert (np.diff(away) >= 0).all()
    back = from_frame(scene.future[0], scene.origin, scene.heading)
    focal = sample_scenario.position[sample_scenario.focal]
    np.testing.assert_allclose(back, focal[50:], atol=1e-4)
    exact = to_frame(focal, scene.origin, scene.heading)
    np.testing.assert_allclose(
        from_frame(exact, scene.origin, scene.heading), focal, atol=1e-6, rtol=0
    )


def test_the_features_are_as_described(made):
    scenario, lane_map = made[2]
    scene = make_scene(scenario, lane_map)
    batch = SceneStore.of([scene]).batch([0], 64, 128)
    features = agent_features(batch)[0].numpy()
    assert features.shape == (len(scene.track_ids), 50, 20)
    t = scene.valid[3].argmax()
    x, y, angle, vx, vy = scene.state[3, t]
    expected = [x / 20, y / 20, np.cos(angle), np.sin(angle), vx / 10, vy / 10, (t - 49) / 50, 1]
    np.testing.assert_allclose(features[3, t, :8], expected, atol=1e-6)
    assert features[3, t, 8:18].argmax() == scene.object_type[3]
    assert features[3, :, 8:18].sum() == 50
    assert features[:, 0, 18].tolist() == [float(name == "AV") for name in scene.track_ids]
    assert features[:, 0, 19].tolist() == [1.0] + [0.0] * (len(scene.track_ids) - 1)
    assert not features[~scene.valid][:, :8].any()
    lines = line_features(batch)[0].numpy()
    assert lines.shape == (len(scene.lines), 10, 10)
    np.testing.assert_allclose(np.linalg.norm(lines[..., 2:4], axis=-1), 1.0, atol=1e-4)
    np.testing.assert_array_equal(lines[:, -1, 2:4], lines[:, -2, 2:4])
    crossing = scene.line_kind == 3
    assert crossing.any()
    assert (lines[crossing, 0, 7] == 1).all()
    assert not lines[crossing][:, 0, [4, 5, 6, 9]].any()
    np.testing.assert_allclose(lines[~crossing, 0, 9], scene.half_width[~crossing] / 5)
    np.testing.assert_array_equal(lines[:, 0, 8], scene.in_intersection)


def test_absent_agents_are_kept_when_asked_for(made):
    counts = [
        (
            len(make_scene(*pair).track_ids),
            len(make_scene(*pair, SceneConfig(keep_absent=True)).track_ids),
        )
        for pair in made
    ]
    assert all(a <= b for a, b in counts)
    assert any(a < b for a, b in counts)
