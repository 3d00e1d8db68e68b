"""Where scenes come from: a cache, a folder of scenarios, sensor logs, or the generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tenfold.shared.errors import InputError
from tenfold.shared.progress import message, progress
from tenfold.tenet.data.cache import ShardedStore, is_cache, open_cache, read_scene
from tenfold.tenet.data.generated import generate
from tenfold.tenet.data.index import scan
from tenfold.tenet.data.scenario import SCORED
from tenfold.tenet.data.scene import SceneConfig, SceneStore, from_frame, make_scene
from tenfold.tenet.data.sensor import WindowConfig, read_sensor_log, windows
from tenfold.tenet.evaluation.submission import GroundTruth

_IN_MEMORY = 20_000


def load_scenes(source: str, config: SceneConfig | None = None) -> SceneStore | ShardedStore:
    """Loads scenes.

    Args:
        source: A cache of `preprocess`; a split (train, val, test) or a folder of scenarios, which
            is read into memory; ``sensor:FOLDER``, a log or a folder of logs, of which each moving
            track of each window is one scene; ``generated:N`` or ``generated:N:SEED``.
        config: What becomes a scene.

    Raises:
        InputError: If there is no such source, or a folder is too large to be read without a cache.
    """
    kind, _, rest = source.partition(":")
    if kind == "generated":
        numbers = rest.split(":")
        if not all(item.isdigit() for item in numbers) or not 1 <= len(numbers) <= 2:
            raise InputError(f"{source!r}: expected generated:N or generated:N:SEED")
        count, seed = int(numbers[0]), int(numbers[1]) if len(numbers) == 2 else 0
        if count < 1:
            raise InputError(f"{source!r}: expected at least one scenario")
        return SceneStore.of([make_scene(*pair, config) for pair in generate(count, seed)])
    if kind == "sensor":
        return _sensor(Path(rest), config)
    if is_cache(source):
        return open_cache(source)
    index = scan(source)
    if len(index) > _IN_MEMORY:
        raise InputError(
            f"{source}: {len(index)} scenarios are too many to be read each time; "
            f"run `tenfold tenet preprocess {source} --output CACHE` and give CACHE"
        )
    scenes = []
    with progress("reading", total=len(index)) as bar:
        for name in index.scenario_ids:
            scenes.append(read_scene(index.folder / name, config))
            bar.update()
    return SceneStore.of(scenes)


def _sensor(folder: Path, config: SceneConfig | None) -> SceneStore:
    """Cuts sensor logs into scenes."""
    logs = [folder] if (folder / "annotations.feather").is_file() else sorted(folder.glob("*/"))
    logs = [log for log in logs if (log / "annotations.feather").is_file()]
    if not logs:
        raise InputError(f"sensor:{folder}: holds no annotations.feather; expected sensor logs")
    scenes = []
    for path in logs:
        log = read_sensor_log(path)
        cut = windows(log, WindowConfig(stride=5, all_focal=True))
        scenes += [make_scene(scenario, log.lane_map, config) for scenario in cut]
    message(f"{len(scenes)} scenes of {len(logs)} sensor logs")
    return SceneStore.of(scenes)


def truth_of_store(store: SceneStore | ShardedStore) -> GroundTruth:
    """Takes the truth of the scored agents from scenes, in the city frame.

    Raises:
        InputError: If a scene has no future (test split).
    """
    ids, tracks, focal, paths = [], [], [], []
    for index in range(len(store)):
        scene = store[index]
        if not scene.future_valid[0].any():
            raise InputError(
                f"scenario {scene.scenario_id} has no future (test split); score a submission "
                "against the annotation parquet instead"
            )
        wanted = (scene.category == SCORED) & scene.future_valid.all(axis=1) & scene.valid[:, -1]
        wanted[0] = True
        for row in np.flatnonzero(wanted):
            ids.append(scene.scenario_id)
            tracks.append(scene.track_ids[row])
            focal.append(row == 0)
            path = from_frame(scene.future[row], scene.origin, scene.heading)
            paths.append(np.where(scene.future_valid[row, :, None], path, np.nan))
    return GroundTruth(np.array(ids), np.array(tracks), np.array(focal), np.stack(paths))
