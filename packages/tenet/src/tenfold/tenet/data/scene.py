"""Scenes: a scenario and its map as the focal agent sees them, and batches of scenes as tensors.

A scene keeps what was read (metres, radians) in the focal agent's frame; the feature vectors of the
network are made from it batch by batch (``agent_features``, ``line_features``), where the scene
lies. Many scenes are one set of flat arrays with offsets (``SceneStore``), in memory or mapped from
disk; a batch of any size (the input-size strategy) is cut from them without a loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.tenet.data.maps import LaneMap
from tenfold.tenet.data.scenario import (
    AV,
    HISTORY,
    NOW,
    OBJECT_TYPES,
    SCORED,
    SECONDS_PER_STEP,
    Scenario,
)

AGENT_FEATURES = 20
LINE_FEATURES = 10
CROSSING = 3
"""The kind of a polyline that is a pedestrian crossing; 0, 1, 2 are the lane types."""
SPEED_SCALE = 10.0
WIDTH_SCALE = 5.0


@dataclass(frozen=True)
class SceneConfig:
    """What of a scenario becomes a scene (reconstruction)."""

    radius: float = 150.0
    """Metres around the focal agent; scored tracks are kept wherever they are."""
    max_agents: int = 128
    """The nearest agents that are kept, the focal one included."""
    max_lines: int = 256
    """The nearest polylines that are kept."""
    points: int = 10
    """Points of a polyline."""
    keep_absent: bool = False
    """Keep agents that are not there at the last observed step, by their last known position."""

    def __post_init__(self) -> None:
        """Refuses sizes that no scene can have."""
        for name, low in (("max_agents", 1), ("max_lines", 0), ("points", 2)):
            if getattr(self, name) < low:
                raise InputError(f"{name}={getattr(self, name)}; expected >= {low}")
        if not self.radius > 0:
            raise InputError(f"radius={self.radius}; expected > 0 metres")


@dataclass(frozen=True, eq=False)
class Scene:
    """A scenario in the frame of its focal agent at the last observed step.

    A agents by distance, the focal one first; M polylines of P points by distance. Metres and
    radians; padding and invalid steps are zero.
    """

    scenario_id: str
    city: str
    track_ids: tuple[str, ...]
    """[A]."""
    origin: np.ndarray
    """float64 [2], city frame."""
    heading: float
    """The frame's angle in the city frame."""
    state: np.ndarray
    """float32 [A, 50, 5]: x, y, heading, vx, vy."""
    valid: np.ndarray
    """bool [A, 50]."""
    object_type: np.ndarray
    """int8 [A]."""
    category: np.ndarray
    """int8 [A]."""
    is_av: np.ndarray
    """bool [A]."""
    future: np.ndarray
    """float32 [A, 60, 2]; zero where not known."""
    future_valid: np.ndarray
    """bool [A, 60]."""
    lines: np.ndarray
    """float32 [M, P, 2]."""
    line_kind: np.ndarray
    """int8 [M]: 0 vehicle, 1 bike, 2 bus lane, 3 crossing."""
    in_intersection: np.ndarray
    """bool [M]."""
    half_width: np.ndarray
    """float32 [M], metres; 0 for crossings."""


def to_frame(points: np.ndarray, origin: np.ndarray, heading: float) -> np.ndarray:
    """Moves points from the city into a frame: ``(points - origin) @ R``.

    Args:
        points: [..., 2]; pass float64, since city coordinates reach thousands of metres.
        origin: [2].
        heading: Radians.
    """
    return (points - origin) @ rotation(heading)


def from_frame(points: np.ndarray, origin: np.ndarray, heading: float) -> np.ndarray:
    """Moves points from a frame back into the city, float64 [..., 2]: ``points @ R.T + origin``."""
    return np.asarray(points, np.float64) @ rotation(heading).T + origin


def rotation(heading: float) -> np.ndarray:
    """Gives R = [[cos, -sin], [sin, cos]], float64."""
    cos, sin = np.cos(heading), np.sin(heading)
    return np.array([[cos, -sin], [sin, cos]])


def wrap(angle: np.ndarray) -> np.ndarray:
    """Brings angles into (-pi, pi]."""
    return np.pi - np.mod(np.pi - angle, 2 * np.pi)


def make_scene(
    scenario: Scenario,
    lane_map: LaneMap | None,
    config: SceneConfig | None = None,
    focal: int | None = None,
) -> Scene:
    """Makes the scene of a scenario.

    Args:
        scenario: The scenario.
        lane_map: Its map; None for none.
        config: What is kept.
        focal: Another row than the scenario's own focal track to look from.

    Raises:
        InputError: If the focal track is not there at step 49.
    """
    config = config or SceneConfig()
    center = scenario.focal if focal is None else focal
    if not scenario.valid[center, NOW]:
        raise InputError(
            f"scenario {scenario.scenario_id}: the focal track {scenario.track_ids[center]!r} has "
            f"no row at step {NOW}; expected its position at the last observed step"
        )
    origin = scenario.position[center, NOW].copy()
    angle = float(scenario.heading[center, NOW])
    observed = scenario.valid[:, :HISTORY]
    if config.keep_absent:
        last = NOW - np.argmax(observed[:, ::-1], axis=1)
        there = observed.any(axis=1)
    else:
        last, there = np.full(len(observed), NOW), observed[:, NOW]
    away = np.square(scenario.position[np.arange(len(last)), last] - origin).sum(axis=1)
    away[center] = -1.0
    near = (away <= config.radius**2) | (scenario.category == SCORED)
    rows = np.flatnonzero(there & near)
    rows = rows[np.argsort(away[rows], kind="stable")][: config.max_agents]
    valid = scenario.valid[rows]
    turn = rotation(angle)
    position = (scenario.position[rows] - origin) @ turn
    position[~valid] = 0.0
    state = np.empty((len(rows), HISTORY, 5), np.float32)
    state[..., :2] = position[:, :HISTORY]
    state[..., 2] = wrap(scenario.heading[rows, :HISTORY] - angle)
    state[..., 3:] = scenario.velocity[rows, :HISTORY] @ turn
    state[~valid[:, :HISTORY]] = 0.0
    lines, kind, crossing_roads, half = _polylines(lane_map, origin, turn, config)
    track_ids = tuple(scenario.track_ids[row] for row in rows)
    return Scene(
        scenario_id=scenario.scenario_id,
        city=scenario.city,
        track_ids=track_ids,
        origin=origin,
        heading=angle,
        state=state,
        valid=valid[:, :HISTORY],
        object_type=scenario.object_type[rows],
        category=scenario.category[rows],
        is_av=np.array([item == AV for item in track_ids], bool),
        future=position[:, HISTORY:].astype(np.float32),
        future_valid=valid[:, HISTORY:],
        lines=lines,
        line_kind=kind,
        in_intersection=crossing_roads,
        half_width=half,
    )


def _polylines(
    lane_map: LaneMap | None, origin: np.ndarray, turn: np.ndarray, config: SceneConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gives the nearest lanes and crossings: points, kind, in an intersection, half width."""
    if lane_map is None:
        empty = np.zeros((0, config.points, 2), np.float32)
        return empty, np.zeros(0, np.int8), np.zeros(0, bool), np.zeros(0, np.float32)
    from tenfold.tenet.data.maps import resample

    left = resample(lane_map.left, config.points)
    right = resample(lane_map.right, config.points)
    lanes = (left + right)[..., :2] / 2
    half = np.linalg.norm((left - right)[..., :2], axis=-1).mean(axis=-1) / 2
    middle = lane_map.crossings[..., :2].mean(axis=1)  # [C, 2, 2]: between the two edges
    share = np.linspace(0.0, 1.0, config.points)[:, None]
    crossings = middle[:, :1] * (1 - share) + middle[:, 1:] * share
    world = np.concatenate([lanes, crossings]) - origin
    away = np.square(world).sum(axis=-1).min(axis=-1)
    rows = np.flatnonzero(away <= config.radius**2)
    rows = rows[np.argsort(away[rows], kind="stable")][: config.max_lines]
    count = len(crossings)
    kind = np.concatenate([lane_map.lane_type, np.full(count, CROSSING, np.int8)])
    inside = np.concatenate([lane_map.in_intersection, np.zeros(count, bool)])
    width = np.concatenate([half, np.zeros(count)])
    return (
        (world[rows] @ turn).astype(np.float32),
        kind[rows],
        inside[rows],
        width[rows].astype(np.float32),
    )


@dataclass
class Batch:
    """B scenes as tensors of one shape: A agents, M polylines of P points."""

    state: Tensor
    """float32 [B, A, 50, 5]: x, y, heading, vx, vy in the scene frame."""
    valid: Tensor
    """bool [B, A, 50]; false for padding."""
    object_type: Tensor
    """int64 [B, A]."""
    category: Tensor
    """int64 [B, A]; -1 for padding."""
    is_av: Tensor
    """bool [B, A]."""
    future: Tensor
    """float32 [B, A, 60, 2]."""
    future_valid: Tensor
    """bool [B, A, 60]."""
    lines: Tensor
    """float32 [B, M, P, 2]."""
    line_kind: Tensor
    """int64 [B, M]."""
    in_intersection: Tensor
    """bool [B, M]."""
    half_width: Tensor
    """float32 [B, M]."""
    line_valid: Tensor
    """bool [B, M]."""

    def to(self, device: Any) -> Batch:
        """Moves all tensors to a device."""
        return Batch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    @property
    def scored(self) -> Tensor:
        """bool [B, A]: the focal agent and the scored ones."""
        chosen = self.category == SCORED
        chosen[:, 0] = True
        return chosen


def agent_features(batch: Batch, scale: float = 20.0) -> Tensor:
    """Makes the network's agent input, float32 [B, A, 50, 20].

    Args:
        batch: The scenes.
        scale: Metres of one unit of position.
    """
    state, valid = batch.state, batch.valid[..., None]
    b, a, t, _ = state.shape
    position, angle, velocity = state[..., :2], state[..., 2:3], state[..., 3:]
    seconds = torch.arange(-NOW, 1, device=state.device) * (SECONDS_PER_STEP / 5)
    moving = torch.cat(
        [
            position / scale,
            angle.cos(),
            angle.sin(),
            velocity / SPEED_SCALE,
            seconds.to(state)[:, None].expand(b, a, t, 1),
        ],
        dim=-1,
    )
    # `where`, not a product: whatever stands in an invalid step, even NaN, must not get through.
    moving = torch.where(valid, moving, 0.0)
    kind = torch.nn.functional.one_hot(batch.object_type, len(OBJECT_TYPES)).to(state)
    focal = torch.zeros(b, a, 1, device=state.device, dtype=state.dtype)
    focal[:, 0] = 1.0
    whole = torch.cat([kind, batch.is_av[..., None].to(state), focal], dim=-1)
    return torch.cat(
        [moving, valid.to(state), whole[:, :, None].expand(b, a, t, whole.shape[-1])], dim=-1
    )


def line_features(batch: Batch, scale: float = 20.0) -> Tensor:
    """Makes the network's map input, float32 [B, M, P, 10]."""
    lines = torch.where(batch.line_valid[..., None, None], batch.lines, 0.0)
    points = lines.shape[2]
    step = lines[:, :, 1:] - lines[:, :, :-1]
    # A repeated point has no direction: zero, not a division by zero.
    direction = step / step.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    direction = torch.cat([direction, direction[:, :, -1:]], dim=2)
    kind = torch.nn.functional.one_hot(batch.line_kind, 4).to(lines)
    whole = torch.cat(
        [
            kind,
            batch.in_intersection[..., None].to(lines),
            (batch.half_width / WIDTH_SCALE)[..., None],
        ],
        dim=-1,
    )
    whole = torch.where(batch.line_valid[..., None], whole, 0.0)
    whole = whole[:, :, None].expand(*whole.shape[:2], points, whole.shape[-1])
    return torch.cat([lines / scale, direction, whole], dim=-1)


# Arrays of one store: name → (kind, trailing shape); P is filled in.
_PER_AGENT = ("state", "valid", "object_type", "category", "is_av", "future", "future_valid")
_PER_LINE = ("lines", "line_kind", "in_intersection", "half_width")
_PER_SCENE = ("origin", "heading", "scenario_id", "city")


@dataclass
class SceneStore:
    """Many scenes as flat arrays: agents of scene i are rows ``agent_offsets[i]`` to ``[i +
    1]``."""

    arrays: dict[str, Any]
    """The fields of :class:`Scene`, joined; ``track_ids`` as text."""
    agent_offsets: np.ndarray
    """int64 [S + 1]."""
    line_offsets: np.ndarray
    """int64 [S + 1]."""

    def __len__(self) -> int:
        """The number of scenes."""
        return len(self.agent_offsets) - 1

    @classmethod
    def of(cls, scenes: Sequence[Scene]) -> SceneStore:
        """Joins scenes.

        Args:
            scenes: At least one.
        """
        if not scenes:
            raise InputError("no scenes; expected at least one")
        arrays = {
            name: np.concatenate([getattr(scene, name) for scene in scenes])
            for name in (*_PER_AGENT, *_PER_LINE)
        }
        arrays["origin"] = np.stack([scene.origin for scene in scenes])
        arrays["heading"] = np.array([scene.heading for scene in scenes])
        arrays["scenario_id"] = np.array([scene.scenario_id for scene in scenes])
        arrays["city"] = np.array([scene.city for scene in scenes])
        arrays["track_ids"] = np.array([item for scene in scenes for item in scene.track_ids])
        return cls(
            arrays,
            _offsets([len(scene.track_ids) for scene in scenes]),
            _offsets([len(scene.lines) for scene in scenes]),
        )

    def __getitem__(self, index: int) -> Scene:
        """One scene."""
        a = slice(self.agent_offsets[index], self.agent_offsets[index + 1])
        m = slice(self.line_offsets[index], self.line_offsets[index + 1])
        given: dict[str, Any] = {name: self.arrays[name][a] for name in _PER_AGENT}
        given |= {name: self.arrays[name][m] for name in _PER_LINE}
        return Scene(
            scenario_id=str(self.arrays["scenario_id"][index]),
            city=str(self.arrays["city"][index]),
            track_ids=tuple(self.arrays["track_ids"][a].tolist()),
            origin=np.array(self.arrays["origin"][index]),
            heading=float(self.arrays["heading"][index]),
            **given,
        )

    def batch(
        self,
        indices: Sequence[int] | np.ndarray,
        max_agents: int = 64,
        max_lines: int = 128,
        fixed: bool = False,
    ) -> Batch:
        """Cuts a batch: of each scene the nearest agents and polylines.

        Args:
            indices: B scenes.
            max_agents: A at most; the input size.
            max_lines: M at most.
            fixed: Pad to exactly these sizes (for compiled models) instead of to the largest scene.
        """
        chosen = np.asarray(indices, np.int64)
        agents, agent_rows = _pick(self.agent_offsets, chosen, max(1, max_agents), fixed)
        lines, line_rows = _pick(self.line_offsets, chosen, max_lines, fixed)
        made: dict[str, Tensor] = {}
        for names, there, rows in (
            (_PER_AGENT, agents, agent_rows),
            (_PER_LINE, lines, line_rows),
        ):
            for name in names:
                made[name] = _fill(self.arrays[name], there, rows)
        device = made["state"].device
        made["category"][torch.from_numpy(~agents).to(device)] = -1
        for name in ("object_type", "category", "line_kind"):
            made[name] = made[name].long()
        return Batch(**made, line_valid=torch.from_numpy(lines).to(device))

    def to(self, device: torch.device | str) -> SceneStore:
        """Copies what batches are cut from to a device; batches then come from there."""
        arrays = dict(self.arrays)
        for name in (*_PER_AGENT, *_PER_LINE):
            arrays[name] = torch.as_tensor(np.ascontiguousarray(arrays[name])).to(device)
        return SceneStore(arrays, self.agent_offsets, self.line_offsets)

    @property
    def nbytes(self) -> int:
        """The size of all arrays."""
        return sum(array.nbytes for array in self.arrays.values())


def _fill(source: Any, there: np.ndarray, rows: np.ndarray) -> Tensor:
    """Puts rows into the slots of a padded tensor, where the source lies."""
    if isinstance(source, Tensor):
        device = source.device
        filled = source.new_zeros((*there.shape, *source.shape[1:]))
        filled[torch.from_numpy(there).to(device)] = source[torch.from_numpy(rows).to(device)]
        return filled
    out = np.zeros((*there.shape, *source.shape[1:]), source.dtype)
    out[there] = source[rows]
    return torch.from_numpy(out)


def _pick(
    offsets: np.ndarray, chosen: np.ndarray, limit: int, fixed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Gives which slots of [B, width] are filled, and the rows of the flat arrays that fill
    them."""
    starts = offsets[chosen]
    counts = np.minimum(offsets[chosen + 1] - starts, limit)
    width = limit if fixed else int(counts.max(initial=0))
    slots = np.arange(width)
    there = slots < counts[:, None]
    return there, (starts[:, None] + slots)[there]


def _offsets(lengths: Sequence[int]) -> np.ndarray:
    """Gives the offsets of rows that follow each other."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
