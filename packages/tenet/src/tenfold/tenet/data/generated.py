"""Made-up scenarios in the real format: an intersection with cars, buses, cyclists and pedestrians.

Each scenario has its own intersection (three or four bent arms, car and bike lanes, all turns,
crossings) somewhere in a city of kilometres. Cars follow the lane graph: they turn, slow down for
turns, and some stop at the line; which way they go cannot be known from the past alone. For tests
and the demo; nobody should take numbers on it for results.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tenfold.tenet.data.maps import LaneMap, Ragged, write_map
from tenfold.tenet.data.scenario import (
    AV,
    FOCAL,
    NOW,
    OBJECT_TYPES,
    SCORED,
    SECONDS_PER_STEP,
    STEPS,
    UNSCORED,
    Scenario,
    write_scenario,
)

_LANE = 3.6
_BIKE = 1.8
_BOX = 14.0  # metres from the middle to where the arms begin
_ARM = 110.0
_POINTS = 12


def generate(count: int, seed: int = 0, future: bool = True) -> Iterator[tuple[Scenario, LaneMap]]:
    """Makes scenarios with their maps.

    Args:
        count: How many.
        seed: The i-th scenario depends on the seed and i only.
        future: False for scenarios as in the test split, with the observed steps only.
    """
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        town = _Town(rng)
        name = str(uuid.uuid5(uuid.NAMESPACE_URL, f"tenfold-tenet/generated/{seed}/{index}"))
        yield _scenario(town, rng, name, future), town.lane_map()


def write_generated(folder: Path, count: int, seed: int = 0, future: bool = True) -> None:
    """Writes scenarios as official files, one folder each.

    Args:
        folder: Of the split.
        count: How many.
        seed: As :func:`generate`.
        future: As :func:`generate`.
    """
    for scenario, lane_map in generate(count, seed, future):
        name = scenario.scenario_id
        write_scenario(scenario, folder / name / f"scenario_{name}.parquet")
        write_map(lane_map, folder / name / f"log_map_archive_{name}.json")


class _Town:
    """One intersection: lanes as centre lines with widths, and how they follow each other."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.origin = rng.uniform(-5000, 5000, 2)
        arms = int(rng.integers(3, 5))
        angles = rng.uniform(0, 2 * np.pi) + np.arange(4)[:arms] * np.pi / 2
        angles = angles + rng.uniform(-0.25, 0.25, arms)
        bends = rng.uniform(-1 / 120, 1 / 120, arms)
        self.lines: list[np.ndarray] = []
        self.kinds: list[int] = []
        self.inside: list[bool] = []
        self.next: list[list[int]] = []
        self.inbound: list[int] = []
        self.walks: list[np.ndarray] = []
        outbound, bikes_in, bikes_out = [], [], []
        crossings = []
        for angle, bend in zip(angles, bends, strict=True):
            middle, normal = _arc(self.origin, angle, bend)
            side = _LANE / 2
            bike = _LANE + _BIKE / 2
            # Outward travel keeps to the right of the middle; `normal` points to its left.
            self.inbound.append(self._add((middle + side * normal)[::-1], 0))
            outbound.append(self._add(middle - side * normal, 0))
            bikes_in.append(self._add((middle + bike * normal)[::-1], 1))
            bikes_out.append(self._add(middle - bike * normal, 1))
            for sign in (-1, 1):
                self.walks.append(middle + sign * (bike + 3.5) * normal)
            here = middle[1]
            wide = bike + 2.0
            ahead = (middle[2] - middle[1]) / np.linalg.norm(middle[2] - middle[1])
            first = np.stack([here - wide * normal[1], here + wide * normal[1]])
            crossings.append(np.stack([first, first + 3.0 * ahead]))
            self.walks.append(first + 1.5 * ahead)
        for a in range(arms):
            for b in range(arms):
                if a != b:
                    self._turn(self.inbound[a], outbound[b], 0)
                    self._turn(bikes_in[a], bikes_out[b], 1)
        self.bikes = bikes_in
        height = np.zeros((len(crossings), 2, 2, 1))
        self.crossings = np.concatenate([np.round(np.array(crossings), 2), height], axis=-1)

    def _add(self, line: np.ndarray, kind: int, inside: bool = False) -> int:
        """Adds a lane; gives its number."""
        self.lines.append(line)
        self.kinds.append(kind)
        self.inside.append(inside)
        self.next.append([])
        return len(self.lines) - 1

    def _turn(self, a: int, b: int, kind: int) -> None:
        """Joins the end of a lane to the beginning of another through the intersection."""
        start, end = self.lines[a][-1], self.lines[b][0]
        into = self.lines[a][-1] - self.lines[a][-2]
        out = self.lines[b][1] - self.lines[b][0]
        reach = np.linalg.norm(end - start)
        into, out = (v / np.linalg.norm(v) * reach for v in (into, out))
        t = np.linspace(0, 1, _POINTS)[:, None]
        line = (
            (2 * t**3 - 3 * t**2 + 1) * start
            + (t**3 - 2 * t**2 + t) * into
            + (3 * t**2 - 2 * t**3) * end
            + (t**3 - t**2) * out
        )
        lane = self._add(line, kind, inside=True)
        self.next[a].append(lane)
        self.next[lane].append(b)

    def path(self, start: int, rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
        """Follows lanes to their end by chance.

        Returns:
            The path, the length up to the intersection, and the angle of the turn.
        """
        lanes = [start]
        while self.next[lanes[-1]]:
            lanes.append(int(rng.choice(self.next[lanes[-1]])))
        first, last = self.lines[lanes[1]][:2], self.lines[lanes[1]][-2:]
        a, b = first[1] - first[0], last[1] - last[0]
        angle = float(np.arctan2(a[0] * b[1] - a[1] * b[0], a @ b))
        before = float(np.linalg.norm(np.diff(self.lines[start], axis=0), axis=1).sum())
        return np.concatenate([self.lines[lane] for lane in lanes]), before, angle

    def lane_map(self) -> LaneMap:
        """Gives the map as the files have it, in 1 cm steps."""
        left, right = [], []
        for line, kind in zip(self.lines, self.kinds, strict=True):
            half = (_LANE if kind == 0 else _BIKE) / 2 * _normals(line)
            left.append(_flat(line + half))
            right.append(_flat(line - half))
        ids = np.arange(len(self.lines), dtype=np.int64) + 1000
        before: list[list[int]] = [[] for _ in self.lines]
        for lane, after in enumerate(self.next):
            for follower in after:
                before[follower].append(int(ids[lane]))
        none = np.full(len(ids), -1, np.int64)
        centers = [np.round(line, 2) for line in self.lines]
        outline = self.origin + 30.0 * np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
        return LaneMap(
            lane_ids=ids,
            lane_type=np.array(self.kinds, np.int8),
            in_intersection=np.array(self.inside),
            left=Ragged.of(left, np.float64, 3),
            right=Ragged.of(right, np.float64, 3),
            left_mark=np.full(len(ids), 3, np.int8),
            right_mark=np.full(len(ids), 9, np.int8),
            left_neighbor=none,
            right_neighbor=none.copy(),
            successors=Ragged.of([ids[after].tolist() for after in self.next], np.int64),
            predecessors=Ragged.of(before, np.int64),
            file_centerline=Ragged.of(centers, np.float64, 2),
            crossing_ids=np.arange(len(self.crossings), dtype=np.int64) + 9000,
            crossings=self.crossings,
            area_ids=np.array([9900]),
            areas=Ragged.of([_flat(outline)], np.float64, 3),
        )


def _scenario(town: _Town, rng: np.random.Generator, name: str, future: bool) -> Scenario:
    """Puts agents onto a town's lanes and walks."""
    tracks: list[np.ndarray] = []
    kinds: list[int] = []
    focal_kind = str(
        rng.choice(["vehicle", "bus", "pedestrian", "cyclist"], p=[0.75, 0.05, 0.1, 0.1])
    )
    plan = [focal_kind, "vehicle", *rng.choice(OBJECT_TYPES[:5], 10, p=[0.6, 0.2, 0.05, 0.1, 0.05])]
    for row, kind in enumerate(plan):
        kinds.append(OBJECT_TYPES.index(str(kind)))
        if kind == "pedestrian":
            tracks.append(_walk(town, rng))
        else:
            tracks.append(_drive(town, rng, str(kind), near=row == 0))
    for _ in range(3):  # parked
        lane = town.lines[int(rng.choice(town.inbound))]
        spot = lane[int(rng.integers(2, 8))] + rng.normal(0, 0.3, 2) + 6.0 * _normals(lane)[3]
        tracks.append(np.repeat(spot[None], STEPS, axis=0))
        kinds.append(int(rng.choice([0, 0, 5, 8])))
    position = np.stack(tracks)
    position = position + rng.normal(0, 0.02, position.shape)
    heading, velocity = _motion(np.stack(tracks), rng)
    count = len(tracks)
    valid = np.ones((count, STEPS), bool)
    category = np.full(count, UNSCORED, np.int8)
    category[rng.random(count) < 0.4] = SCORED
    category[1], category[0] = UNSCORED, FOCAL
    for row in range(2, count):
        if rng.random() < 0.4:  # seen for a part of the time only
            first, last = np.sort(rng.integers(0, STEPS, 2))
            valid[row, :first], valid[row, last + 1 :] = False, False
            category[row] = 0
    if not future:
        valid[:, NOW + 1 :] = False
    order = rng.permutation(count)
    ids = np.array([str(100 + row) for row in range(count)])
    ids[1] = AV
    keep = valid[order].any(axis=1)
    order = order[keep]
    there = valid[order]
    start = float(int(rng.integers(0, 2**40)) * 1_000_000)
    return Scenario(
        scenario_id=name,
        city="generated",
        track_ids=tuple(ids[order].tolist()),
        object_type=np.array(kinds, np.int8)[order],
        category=category[order],
        focal=int(np.flatnonzero(order == 0)[0]),
        position=np.where(there[..., None], position[order], 0.0),
        heading=np.where(there, heading[order], 0.0),
        velocity=np.where(there[..., None], velocity[order], 0.0),
        valid=there,
        start_timestamp=start,
        end_timestamp=start + (STEPS - 1) * 1e8,
    )


def _drive(town: _Town, rng: np.random.Generator, kind: str, near: bool) -> np.ndarray:
    """Drives along lanes: [110, 2]. Slows for a turn, and sometimes stops at the line."""
    lane = int(rng.choice(town.bikes if kind == "cyclist" else town.inbound))
    path, before, angle = town.path(lane, rng)
    cruise = rng.uniform(3, 6) if kind == "cyclist" else rng.uniform(7, 13)
    turning = cruise if abs(angle) < 0.4 else min(cruise, rng.uniform(4.0, 6.0))
    stops = rng.random() < 0.2
    # Where it is now: near the line for the focal agent, anywhere for others.
    now = before - rng.uniform(0, 35) if near else rng.uniform(20, before + 40)
    along = np.empty(STEPS)
    place, speed = now - cruise * NOW * SECONDS_PER_STEP, cruise
    if stops and now > before - 4:
        stops = False
    wait = 0.0
    for step in range(STEPS):
        along[step] = place
        gap = before - place
        target = cruise
        if gap > 0:  # the speed from which it can still brake at 2 m/s^2
            goal = 0.0 if stops else turning
            target = min(cruise, math.sqrt(goal**2 + 2 * 2.0 * max(gap - 2.0, 0.0)))
        elif gap > -22:
            target = turning
        if stops and speed < 0.3:
            wait += SECONDS_PER_STEP
            stops = wait < 3.0
        speed = max(speed + min(max(target - speed, -0.35), 0.2), 0.0)
        place += speed * SECONDS_PER_STEP
    return _along(path, along)


def _walk(town: _Town, rng: np.random.Generator) -> np.ndarray:
    """Walks along a pavement or over a crossing: [110, 2]."""
    line = town.walks[int(rng.integers(len(town.walks)))]
    line = line[::-1] if rng.random() < 0.5 else line
    speed = rng.uniform(0.8, 1.8) * (1 + 0.1 * np.sin(np.arange(STEPS) * 0.1 + rng.uniform(0, 6)))
    length = np.linalg.norm(np.diff(line, axis=0), axis=1).sum()
    start = rng.uniform(-2, max(length - 12, 1))
    return _along(line, start + np.cumsum(speed) * SECONDS_PER_STEP)


def _along(line: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Gives the points at given lengths of a line, going straight on beyond its ends."""
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    keep = np.concatenate([[True], steps > 1e-9])
    line = line[keep]
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    far = 200.0
    head = line[0] - (line[1] - line[0]) / steps[0] * far
    tail = line[-1] + (line[-1] - line[-2]) / steps[-1] * far
    full = np.concatenate([[head], line, [tail]])
    total = np.concatenate([[-far, 0.0], np.cumsum(steps), [steps.sum() + far]])
    return np.stack([np.interp(places, total, full[:, axis]) for axis in range(2)], axis=-1)


def _motion(position: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Gives headings and noisy velocities of clean tracks."""
    velocity = np.gradient(position, SECONDS_PER_STEP, axis=1)
    moving = np.linalg.norm(velocity, axis=-1) > 0.3
    heading = np.where(moving, np.arctan2(velocity[..., 1], velocity[..., 0]), np.nan)
    for row in heading:  # who stands keeps the heading of before, or of after
        known = np.flatnonzero(~np.isnan(row))
        if len(known) == 0:
            row[:] = rng.uniform(-np.pi, np.pi)
        else:
            place = np.maximum(np.searchsorted(known, np.arange(STEPS), side="right") - 1, 0)
            row[:] = row[known[place]]
    return heading, velocity + rng.normal(0, 0.08, velocity.shape)


def _arc(origin: np.ndarray, angle: float, bend: float) -> tuple[np.ndarray, np.ndarray]:
    """Gives the middle line of an arm, outward, and its normals to the left."""
    s = np.linspace(0, _ARM, _POINTS)
    facing = angle + bend * s
    step = np.stack([np.cos(facing), np.sin(facing)], axis=-1) * (s[1] - s[0])
    middle = np.concatenate([[np.zeros(2)], np.cumsum((step[1:] + step[:-1]) / 2, axis=0)])
    start = origin + _BOX * np.array([np.cos(angle), np.sin(angle)])
    return start + middle, np.stack([-np.sin(facing), np.cos(facing)], axis=-1)


def _normals(line: np.ndarray) -> np.ndarray:
    """Gives unit normals to the left of a line's direction."""
    along = np.gradient(line, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    return np.stack([-along[:, 1], along[:, 0]], axis=-1)


def _flat(points: np.ndarray) -> np.ndarray:
    """Adds the height 0, in 1 cm steps."""
    return np.concatenate([np.round(points, 2), np.zeros((len(points), 1))], axis=1)
