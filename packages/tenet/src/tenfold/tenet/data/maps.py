"""Vector maps: the JSON files of Argoverse 2 as flat arrays, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.shared.errors import InputError
from tenfold.shared.files import write_atomic

LANE_TYPES = ("VEHICLE", "BIKE", "BUS")
"""The names of the lane types, in the order of their numbers."""
MARK_TYPES = (
    "DASH_SOLID_YELLOW",
    "DASH_SOLID_WHITE",
    "DASHED_WHITE",
    "DASHED_YELLOW",
    "DOUBLE_SOLID_YELLOW",
    "DOUBLE_SOLID_WHITE",
    "DOUBLE_DASH_YELLOW",
    "DOUBLE_DASH_WHITE",
    "SOLID_YELLOW",
    "SOLID_WHITE",
    "SOLID_DASH_WHITE",
    "SOLID_DASH_YELLOW",
    "SOLID_BLUE",
    "NONE",
    "UNKNOWN",
)
"""The names of the marking types, in the order of their numbers."""
NO_LANE = -1
"""Stands for a neighbour that a lane does not have."""


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different lengths in one array: row i is ``values[offsets[i]:offsets[i + 1]]``."""

    values: np.ndarray
    """[total, ...]."""
    offsets: np.ndarray
    """int64 [rows + 1]."""

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        """One row, as a view."""
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """int64 [rows]."""
        return np.diff(self.offsets)

    @classmethod
    def of(cls, rows: Sequence[Any], dtype: Any, width: int | None = None) -> Ragged:
        """Joins rows.

        Args:
            rows: Arrays or lists, [length, width] each, or [length] without ``width``.
            dtype: Of the values.
            width: Columns of each row.
        """
        lengths = [len(row) for row in rows]
        shape = (0,) if width is None else (0, width)
        filled = [np.asarray(row, dtype) for row in rows if len(row)]
        values = np.concatenate(filled) if filled else np.zeros(shape, dtype)
        return cls(values, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))


@dataclass(frozen=True, eq=False)
class LaneMap:
    """One vector map as flat arrays; L lanes, C crossings, metres in the city's frame.

    Lane ids are unique in one file only, and links may name lanes that are not in it.
    """

    lane_ids: np.ndarray
    """int64 [L]."""
    lane_type: np.ndarray
    """int8 [L], an index into ``LANE_TYPES``."""
    in_intersection: np.ndarray
    """bool [L]."""
    left: Ragged
    """Left boundaries, float64 [points, 3]; z is the height."""
    right: Ragged
    """Right boundaries, float64 [points, 3]."""
    left_mark: np.ndarray
    """int8 [L], an index into ``MARK_TYPES``."""
    right_mark: np.ndarray
    """int8 [L]."""
    left_neighbor: np.ndarray
    """int64 [L]; -1 for none."""
    right_neighbor: np.ndarray
    """int64 [L]; -1 for none."""
    successors: Ragged
    """int64 lane ids; may dangle."""
    predecessors: Ragged
    """int64 lane ids; may dangle."""
    file_centerline: Ragged | None
    """The centre lines of the file, float64 [points, 2]; sensor maps have none."""
    crossing_ids: np.ndarray
    """int64 [C]."""
    crossings: np.ndarray
    """float64 [C, 2, 2, 3]: two edges of two points each."""
    area_ids: np.ndarray
    """int64: drivable areas."""
    areas: Ragged
    """Outlines of the drivable areas, float64 [points, 3]; open polygons."""

    def __len__(self) -> int:
        """The number of lanes."""
        return len(self.lane_ids)

    @property
    def dangling(self) -> tuple[int, int]:
        """How many successor and predecessor links leave the file."""
        inside = [
            np.isin(links.values, self.lane_ids) for links in (self.successors, self.predecessors)
        ]
        return int((~inside[0]).sum()), int((~inside[1]).sum())

    def centerlines(self, points: int = 10) -> np.ndarray:
        """Computes the centre line of each lane by the rule of the official API.

        Left and right boundary are resampled at equal distances in 3-D and averaged.

        Args:
            points: P, the number of points of each line.

        Returns:
            float64 [L, P, 2].
        """
        left = resample(self.left, points)
        right = resample(self.right, points)
        return (left + right)[..., :2] / 2


def resample(lines: Ragged, points: int) -> np.ndarray:
    """Places points at equal distances along each of many lines.

    Args:
        lines: float64 [points, D]; a repeated point does no harm, a line of one point is repeated.
        points: P >= 2.

    Returns:
        float64 [lines, P, D]; the ends are the lines' ends, exactly.
    """
    values, offsets = lines.values, lines.offsets
    count = len(lines)
    if count == 0:
        return np.zeros((0, points, values.shape[1]))
    starts, ends = offsets[:-1], offsets[1:] - 1
    along = np.zeros(len(values))
    steps = np.sqrt(np.square(np.diff(values, axis=0)).sum(axis=1))
    steps[ends[:-1]] = 0.0  # from one line to the next
    np.cumsum(steps, out=along[1:])
    length = along[ends] - along[starts]
    fraction = np.linspace(0.0, 1.0, points)
    wanted = along[starts][:, None] + fraction * length[:, None]
    # The segment that holds each wanted place, kept inside its own line.
    before = np.searchsorted(along, wanted.ravel(), side="right").reshape(count, points) - 1
    before = np.clip(before, starts[:, None], np.maximum(ends - 1, starts)[:, None])
    after = np.minimum(before + 1, ends[:, None])
    gap = along[after] - along[before]
    share = np.clip((wanted - along[before]) / np.where(gap > 0, gap, 1.0), 0.0, 1.0)
    made = values[before] + share[..., None] * (values[after] - values[before])
    made[:, 0] = values[starts]
    made[:, -1] = values[ends]
    return made


def map_path(folder: Path) -> Path:
    """Gives the map file in a scenario's folder ``<scenario_id>/``, or in a sensor log's
    ``map/``."""
    plain = folder / f"log_map_archive_{folder.name}.json"
    if plain.is_file():
        return plain
    found = sorted((folder / "map").glob("log_map_archive_*.json"))
    return found[0] if found else plain


def read_map(path: Path | str) -> LaneMap:
    """Reads ``log_map_archive_<id>.json`` of a scenario or of a sensor log.

    Args:
        path: The file, or the folder that holds it. ``centerline`` may be missing (sensor maps),
            crossings and drivable areas may be missing or empty, links may dangle.

    Raises:
        InputError: If the file is not JSON, has no lanes, or a lane lacks a field or has a wrong
            one.
    """
    import orjson

    path = Path(path)
    if path.is_dir():
        path = map_path(path)
    try:
        content = orjson.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); a map goes here") from error
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict) or "lane_segments" not in content:
        raise InputError(f"{path}: 'lane_segments' is missing; it is not an Argoverse 2 map")
    lanes = list((content["lane_segments"] or {}).values())
    if not lanes:
        raise InputError(f"{path}: 'lane_segments' is empty; expected at least one lane")
    crossings = list((content.get("pedestrian_crossings") or {}).values())
    areas = list((content.get("drivable_areas") or {}).values())
    try:
        return _assemble(path, lanes, crossings, areas)
    except KeyError as error:
        found = next((lane.get("id") for lane in lanes if error.args[0] not in lane), None)
        where = f"lane {found}" if found is not None else "an item"
        raise InputError(f"{path}: field {error} of {where} is missing") from error
    except (TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: a field holds something unexpected: {error}") from error


def _assemble(path: Path, lanes: list[Any], crossings: list[Any], areas: list[Any]) -> LaneMap:
    """Turns the dictionaries of a map file into arrays."""
    left = _points(path, "left_lane_boundary", [lane["left_lane_boundary"] for lane in lanes])
    right = _points(path, "right_lane_boundary", [lane["right_lane_boundary"] for lane in lanes])
    centers = None
    if all("centerline" in lane for lane in lanes):
        full = _points(path, "centerline", [lane["centerline"] for lane in lanes])
        centers = Ragged(np.ascontiguousarray(full.values[:, :2]), full.offsets)
    edges = _points(
        path, "edge1/edge2", [edge for item in crossings for edge in (item["edge1"], item["edge2"])]
    )
    if len(edges) and (edges.lengths != 2).any():
        raise InputError(f"{path}: an edge of a crossing has not two points")
    return LaneMap(
        lane_ids=np.array([lane["id"] for lane in lanes], np.int64),
        lane_type=_numbers_of(path, "lane_type", LANE_TYPES, lanes),
        in_intersection=np.array([lane["is_intersection"] for lane in lanes], bool),
        left=left,
        right=right,
        left_mark=_numbers_of(path, "left_lane_mark_type", MARK_TYPES, lanes),
        right_mark=_numbers_of(path, "right_lane_mark_type", MARK_TYPES, lanes),
        left_neighbor=_neighbors([lane.get("left_neighbor_id") for lane in lanes]),
        right_neighbor=_neighbors([lane.get("right_neighbor_id") for lane in lanes]),
        successors=Ragged.of([lane["successors"] for lane in lanes], np.int64),
        predecessors=Ragged.of([lane["predecessors"] for lane in lanes], np.int64),
        file_centerline=centers,
        crossing_ids=np.array([item["id"] for item in crossings], np.int64),
        crossings=edges.values.reshape(len(crossings), 2, 2, 3),
        area_ids=np.array([item["id"] for item in areas], np.int64),
        areas=_points(path, "area_boundary", [item["area_boundary"] for item in areas]),
    )


def _points(path: Path, field: str, lines: list[list[dict[str, float]]]) -> Ragged:
    """Turns lists of {"x", "y", "z"} into one array."""
    lengths = np.fromiter(map(len, lines), np.int64, len(lines))
    if (lengths == 0).any():
        raise InputError(f"{path}: a {field} has no points; expected at least one")
    flat = [value for line in lines for p in line for value in (p["x"], p["y"], p["z"])]
    values = np.array(flat, np.float64).reshape(-1, 3)
    if not np.isfinite(values).all():
        raise InputError(f"{path}: a {field} holds a number that is not finite")
    return Ragged(values, np.concatenate([[0], np.cumsum(lengths)]))


def _numbers_of(path: Path, field: str, names: Sequence[str], lanes: list[Any]) -> np.ndarray:
    """Turns the names of a field into their numbers."""
    numbers = {name: index for index, name in enumerate(names)}
    try:
        return np.array([numbers[lane[field]] for lane in lanes], np.int8)
    except KeyError as error:
        if error.args[0] == field:
            raise
        raise InputError(
            f"{path}: {field} is {error.args[0]!r}; expected one of {', '.join(names)}"
        ) from error


def _neighbors(ids: Iterable[int | None]) -> np.ndarray:
    """Turns lane ids or None into an array."""
    return np.array([NO_LANE if item is None else item for item in ids], np.int64)


def write_map(lane_map: LaneMap, path: Path | str) -> None:
    """Writes a map in the official form, atomically; numbers come back exactly.

    Args:
        lane_map: The map.
        path: The JSON file.
    """
    import orjson

    lanes: dict[str, Any] = {}
    for row, lane_id in enumerate(lane_map.lane_ids.tolist()):
        lane: dict[str, Any] = {
            "id": lane_id,
            "is_intersection": bool(lane_map.in_intersection[row]),
            "lane_type": LANE_TYPES[lane_map.lane_type[row]],
            "left_lane_boundary": _dicts(lane_map.left[row]),
            "left_lane_mark_type": MARK_TYPES[lane_map.left_mark[row]],
            "left_neighbor_id": _optional(lane_map.left_neighbor[row]),
            "predecessors": lane_map.predecessors[row].tolist(),
            "right_lane_boundary": _dicts(lane_map.right[row]),
            "right_lane_mark_type": MARK_TYPES[lane_map.right_mark[row]],
            "right_neighbor_id": _optional(lane_map.right_neighbor[row]),
            "successors": lane_map.successors[row].tolist(),
        }
        if lane_map.file_centerline is not None:
            lane["centerline"] = _dicts(lane_map.file_centerline[row])
        lanes[str(lane_id)] = lane
    crossings = {
        str(item): {"edge1": _dicts(edges[0]), "edge2": _dicts(edges[1]), "id": item}
        for item, edges in zip(lane_map.crossing_ids.tolist(), lane_map.crossings, strict=True)
    }
    areas = {
        str(item): {"area_boundary": _dicts(lane_map.areas[row]), "id": item}
        for row, item in enumerate(lane_map.area_ids.tolist())
    }
    content = {"drivable_areas": areas, "lane_segments": lanes, "pedestrian_crossings": crossings}
    write_atomic(Path(path), orjson.dumps(content))


def _dicts(points: np.ndarray) -> list[dict[str, float]]:
    """Writes points as {"x", "y", "z"}; z of a plane line is 0."""
    rows = points.tolist()
    return [dict(zip("xyz", (*row, 0.0)[:3], strict=True)) for row in rows]


def _optional(lane_id: Any) -> int | None:
    """Writes a neighbour."""
    return None if lane_id == NO_LANE else int(lane_id)
