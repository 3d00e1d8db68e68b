"""Sensor logs of Argoverse 2 as motion-forecasting scenarios of eleven seconds.

Boxes lie in the vehicle's frame of their time; poses bring them into the city. Velocities are
finite differences. What a log cannot say (which track the organisers would score) is chosen here:
tracks that span the window are scored, one of them is focal.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.shared.errors import InputError
from tenfold.tenet.data.maps import LaneMap, Ragged, read_map, resample
from tenfold.tenet.data.scenario import (
    AV,
    FOCAL,
    FRAGMENT,
    HISTORY,
    OBJECT_TYPES,
    SCORED,
    STEPS,
    UNSCORED,
    Scenario,
)

_NAMES = {
    "vehicle": (
        "REGULAR_VEHICLE",
        "LARGE_VEHICLE",
        "TRUCK",
        "BOX_TRUCK",
        "TRUCK_CAB",
        "VEHICULAR_TRAILER",
        "EGO_VEHICLE",
    ),
    "bus": ("BUS", "SCHOOL_BUS", "ARTICULATED_BUS"),
    "pedestrian": ("PEDESTRIAN", "STROLLER", "WHEELCHAIR", "OFFICIAL_SIGNALER"),
    "cyclist": ("BICYCLIST", "WHEELED_RIDER"),
    "motorcyclist": ("MOTORCYCLIST",),
    "riderless_bicycle": ("BICYCLE", "MOTORCYCLE", "WHEELED_DEVICE"),
    "static": ("BOLLARD", "SIGN", "STOP_SIGN", "MESSAGE_BOARD_TRAILER", "TRAFFIC_LIGHT_TRAILER"),
    "construction": ("CONSTRUCTION_CONE", "CONSTRUCTION_BARREL", "MOBILE_PEDESTRIAN_CROSSING_SIGN"),
}
TYPE_OF = {name: OBJECT_TYPES.index(kind) for kind, names in _NAMES.items() for name in names}
"""Sensor category → object type; what is not here (animals, dogs) is ``unknown``."""

_BOX = ("timestamp_ns", "track_uuid", "category", "qw", "qx", "qy", "qz", "tx_m", "ty_m")
_POSE = ("timestamp_ns", "qw", "qx", "qy", "qz", "tx_m", "ty_m", "tz_m")


@dataclass(frozen=True, eq=False)
class SensorLog:
    """One log as dense tracks in the city frame; N tracks, F frames at 10 Hz."""

    log_id: str
    city: str
    timestamps: np.ndarray
    """int64 [F], nanoseconds."""
    track_ids: tuple[str, ...]
    """[N]; the recording vehicle, ``AV``, is the first."""
    object_type: np.ndarray
    """int8 [N]."""
    position: np.ndarray
    """float64 [N, F, 2]."""
    heading: np.ndarray
    """float64 [N, F]."""
    velocity: np.ndarray
    """float64 [N, F, 2], by finite differences."""
    valid: np.ndarray
    """bool [N, F]."""
    lane_map: LaneMap


def read_sensor_log(folder: Path | str) -> SensorLog:
    """Reads the boxes, poses and map of a log of the sensor data set.

    Args:
        folder: ``<log id>/`` with annotations.feather, city_SE3_egovehicle.feather and map/.

    Raises:
        InputError: If a file or a column is missing or damaged.
    """
    folder = Path(folder)
    boxes = _read(folder / "annotations.feather", _BOX)
    poses = _read(folder / "city_SE3_egovehicle.feather", _POSE)
    lane_map = read_map(folder)
    frames, frame = np.unique(boxes["timestamp_ns"], return_inverse=True)
    at = np.searchsorted(poses["timestamp_ns"], frames)
    at = np.clip(at, 0, len(poses["timestamp_ns"]) - 1)
    if (poses["timestamp_ns"][at] != frames).any():
        missing = frames[poses["timestamp_ns"][at] != frames][0]
        raise InputError(f"{folder}: no pose for the boxes at timestamp_ns {missing}")
    turn = _rotations(poses, at)
    shift = np.stack([poses["tx_m"][at], poses["ty_m"][at], poses["tz_m"][at]], axis=-1)
    names, first, track = np.unique(boxes["track_uuid"], return_index=True, return_inverse=True)
    local = np.stack(
        [boxes["tx_m"], boxes["ty_m"], boxes.get("tz_m", np.zeros(len(track)))], axis=-1
    )
    world = np.einsum("nij,nj->ni", turn[frame], local) + shift[frame]
    facing = turn[frame] @ _rotations(boxes, np.arange(len(track)))
    count = len(names) + 1
    position, heading = np.zeros((count, len(frames), 2)), np.zeros((count, len(frames)))
    valid = np.zeros((count, len(frames)), bool)
    position[track + 1, frame] = world[:, :2]
    heading[track + 1, frame] = np.arctan2(facing[:, 1, 0], facing[:, 0, 0])
    valid[track + 1, frame] = True
    position[0], heading[0] = shift[:, :2], np.arctan2(turn[:, 1, 0], turn[:, 0, 0])
    valid[0] = True
    kinds = np.array([TYPE_OF.get(str(name), 9) for name in boxes["category"][first]], np.int8)
    return SensorLog(
        log_id=folder.name,
        city=_city(folder),
        timestamps=frames,
        track_ids=(AV, *map(str, names)),
        object_type=np.concatenate([[np.int8(0)], kinds]),
        position=position,
        heading=heading,
        velocity=_velocities(position, valid, frames),
        valid=valid,
        lane_map=lane_map,
    )


@dataclass(frozen=True)
class WindowConfig:
    """Which windows of a log become scenarios."""

    stride: int = 10
    """Frames between the starts of two windows."""
    min_travel: float = 5.0
    """Metres that a focal track moves at least in the whole window; parked cars teach little."""
    all_focal: bool = False
    """One scenario for each track that may be focal, instead of one a window (the
    farthest-moving)."""
    min_history: int = HISTORY
    """Observed steps that a focal track has at least, the last ones. With fewer than 50 windows may
    begin before the log does, which gives a short log more of them to train on."""

    def __post_init__(self) -> None:
        """Refuses windows that do not move."""
        if not 1 <= self.min_history <= HISTORY:
            raise InputError(f"min_history={self.min_history}; expected from 1 to {HISTORY}")
        if self.stride < 1 or self.min_travel < 0:
            raise InputError(
                f"stride={self.stride}, min_travel={self.min_travel}; expected >= 1 and >= 0"
            )


def windows(log: SensorLog, config: WindowConfig | None = None) -> Iterator[Scenario]:
    """Cuts a log into scenarios of 110 steps.

    Windows of one log overlap: split training from validation by log, never by window.

    Args:
        log: The log.
        config: Which windows.

    Yields:
        Scenarios with ids that depend only on the log, the frame and the focal track.
    """
    config = config or WindowConfig()
    before = HISTORY - config.min_history  # steps that the first windows have before the log
    log = _begun_earlier(log, before) if before else log
    for start in range(0, len(log.timestamps) - STEPS + 1, config.stride):
        span = slice(start, start + STEPS)
        valid = log.valid[:, span]
        rows = np.flatnonzero(valid[:, before:].any(axis=1))
        whole = valid[rows, before:].all(axis=1)
        moves = log.object_type[rows] < OBJECT_TYPES.index("static")
        first = start + valid[rows].argmax(axis=1)
        travel = np.linalg.norm(
            log.position[rows, start + STEPS - 1] - log.position[rows, first], axis=-1
        )
        may = whole & moves & (travel >= config.min_travel) & (rows > 0)
        focal = np.flatnonzero(may)
        if not config.all_focal and len(focal):
            focal = focal[[travel[focal].argmax()]]
        for place in focal:
            category = np.where(whole & moves, SCORED, np.where(whole, UNSCORED, FRAGMENT))
            category[rows == 0] = UNSCORED
            category[place] = FOCAL
            name = f"{log.log_id}/{start - before}/{log.track_ids[rows[place]]}"
            yield Scenario(
                scenario_id=str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
                city=log.city,
                track_ids=tuple(log.track_ids[row] for row in rows),
                object_type=log.object_type[rows],
                category=category.astype(np.int8),
                focal=int(place),
                position=np.where(valid[rows, :, None], log.position[rows, span], 0.0),
                heading=np.where(valid[rows], log.heading[rows, span], 0.0),
                velocity=np.where(valid[rows, :, None], log.velocity[rows, span], 0.0),
                valid=valid[rows],
                start_timestamp=float(log.timestamps[start]),
                end_timestamp=float(log.timestamps[start + STEPS - 1]),
                slice_id=log.log_id,
            )


def _begun_earlier(log: SensorLog, steps: int) -> SensorLog:
    """Gives a log that begins so many steps earlier, with nothing in them."""
    early = log.timestamps[0] + np.arange(-steps, 0) * 100_000_000
    return replace(
        log,
        timestamps=np.concatenate([early, log.timestamps]),
        position=np.pad(log.position, ((0, 0), (steps, 0), (0, 0))),
        heading=np.pad(log.heading, ((0, 0), (steps, 0))),
        velocity=np.pad(log.velocity, ((0, 0), (steps, 0), (0, 0))),
        valid=np.pad(log.valid, ((0, 0), (steps, 0))),
    )


def with_centerlines(lane_map: LaneMap) -> LaneMap:
    """Gives a map centre lines where the file has none, by the rule of the official API.

    Scenario maps hold them, sensor maps do not; 1 cm steps, as the official files.
    """
    if lane_map.file_centerline is not None:
        return lane_map
    lines = np.round((resample(lane_map.left, 10) + resample(lane_map.right, 10))[..., :2] / 2, 2)
    offsets = np.arange(len(lane_map) + 1, dtype=np.int64) * 10
    return replace(lane_map, file_centerline=Ragged(lines.reshape(-1, 2), offsets))


def _velocities(position: np.ndarray, valid: np.ndarray, timestamps: np.ndarray) -> np.ndarray:
    """Differences to the frame before: the future must not show. A first frame takes the next."""
    frames = np.arange(len(timestamps))
    before, after = np.maximum(frames - 1, 0), np.minimum(frames + 1, len(frames) - 1)
    known = valid[:, before] & (frames > 0)
    low = np.where(known, before, frames)
    high = np.where(known | ~valid[:, after], frames, after)
    seconds = (timestamps[high] - timestamps[low]) * 1e-9
    rows = np.arange(len(position))[:, None]
    gap = position[rows, high] - position[rows, low]
    return np.where(
        (valid & (seconds > 0))[..., None], gap / np.maximum(seconds, 1e-9)[..., None], 0.0
    )


def _rotations(columns: dict[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Turns quaternions into rotation matrices, float64 [n, 3, 3]."""
    from scipy.spatial.transform import Rotation

    wxyz = [columns[name][rows] for name in ("qx", "qy", "qz", "qw")]
    return Rotation.from_quat(np.stack(wxyz, axis=-1)).as_matrix()


def _read(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Reads columns of a feather file."""
    import pyarrow as pa
    import pyarrow.feather as feather

    try:
        table = feather.read_table(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file; a sensor log has it") from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a whole feather file: {error}") from error
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise InputError(f"{path}: column {', '.join(map(repr, missing))} is missing")
    columns: dict[str, Any] = {
        name: table.column(name).to_numpy()
        for name in (*names, *(["tz_m"] if "tz_m" in table.column_names else []))
    }
    for name, values in columns.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise InputError(f"{path}: column {name!r} holds a number that is not finite")
    return columns


def _city(folder: Path) -> str:
    """Reads the city's code from the name of the map file."""
    codes = {
        "PIT": "pittsburgh",
        "MIA": "miami",
        "ATX": "austin",
        "DTW": "dearborn",
        "PAO": "palo-alto",
        "WDC": "washington-dc",
    }
    found = sorted((folder / "map").glob("log_map_archive_*____*_city_*.json"))
    code = found[0].name.split("____")[1].split("_")[0] if found else ""
    return codes.get(code, code.lower() or "unknown")
