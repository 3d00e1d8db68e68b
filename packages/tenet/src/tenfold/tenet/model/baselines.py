"""Baselines: constant velocity, nearest neighbour with a map prior, LSTM encoder-decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.tenet.data.cache import ShardedStore
from tenfold.tenet.data.scenario import FUTURE, HISTORY, NOW, SECONDS_PER_STEP
from tenfold.tenet.data.scene import Scene, SceneStore, rotation

Scenes = SceneStore | ShardedStore
Velocity = Literal["tracker", "last", "mean", "standing"]
VELOCITIES = ("tracker", "last", "mean", "standing")
_SPEEDS = (1.0, 1.0, 1.0, 0.6, 1.3, 0.1)
_YAWS = (0.0, 0.15, -0.15, 0.0, 0.0, 0.0)


def constant_velocity(
    position: np.ndarray,
    velocity: np.ndarray,
    rule: Velocity = "tracker",
    steps: int | None = None,
) -> np.ndarray:
    """Continues at constant velocity.

    Args:
        position: float [..., 50, 2], metres; all steps known.
        velocity: float [..., 50, 2], m/s, of the tracker.
        rule: The velocity: the tracker's at step 49, the last displacement, the mean displacement
            over the history (the organisers' baseline), or none.
        steps: For ``mean``: over so many last displacements instead of all 49.

    Returns:
        float [..., 60, 2].
    """
    if rule not in VELOCITIES:
        raise InputError(did_you_mean(rule, VELOCITIES, kind="velocity"))
    back = {"last": 1, "mean": steps or HISTORY - 1}.get(rule)
    if rule == "tracker":
        v = velocity[..., NOW, :]
    elif back is None:
        v = np.zeros_like(position[..., NOW, :])
    else:
        if not 1 <= back < HISTORY:
            raise InputError(f"steps={steps}; expected from 1 to {HISTORY - 1}")
        v = (position[..., NOW, :] - position[..., NOW - back, :]) / (back * SECONDS_PER_STEP)
    seconds = np.arange(1, FUTURE + 1)[:, None] * SECONDS_PER_STEP
    return position[..., NOW, None, :] + v[..., None, :] * seconds


def constant_velocity_modes(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Six constant-velocity modes by changes of speed and yaw, in the scene frame.

    Returns:
        [6, 60, 2], and probabilities [6] (0.5 for the unchanged one).
    """
    base = constant_velocity(scene.state[0, :, :2], scene.state[0, :, 3:])
    origin = base[0] * 0 + scene.state[0, NOW, :2]
    made = [
        origin + (base - origin) * speed @ rotation(yaw)
        for speed, yaw in zip(_SPEEDS, _YAWS, strict=True)
    ]
    return np.stack(made), np.array([0.5, 0.1, 0.1, 0.1, 0.1, 0.1])


@dataclass
class NearestNeighbour:
    """Futures of the most similar histories (the organisers' recipe for Argoverse 1).

    Histories are compared in the agent's frame, or, with the map prior, as (along, across) the
    lanes that the agent may follow.

    Args:
        neighbours: How many; with six modes the nearest six.
        map_prior: Compare and continue along lanes.
        components: Dimensions that PCA keeps; None for no PCA.
        candidates: Lanes that an agent may follow, at most.
    """

    neighbours: int = 6
    map_prior: bool = False
    components: int | None = None
    candidates: int = 3

    def fit(self, scenes: Scenes) -> NearestNeighbour:
        """Remembers histories and futures.

        Raises:
            InputError: If no scene has a complete history and future.
        """
        from sklearn.decomposition import PCA
        from sklearn.neighbors import NearestNeighbors
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        histories, futures = [], []
        for index in range(len(scenes)):
            scene = scenes[index]
            if not (scene.valid[0].all() and scene.future_valid[0].all()):
                continue
            whole = np.concatenate([scene.state[0, :, :2], scene.future[0]]).astype(np.float64)
            paths = self._paths(scene)[:1] if self.map_prior else [None]
            for path in paths:
                seen = whole if path is None else _to_path(whole, path)
                seen = seen - seen[NOW]
                histories.append(seen[:HISTORY].ravel())
                futures.append(seen[HISTORY:])
        if len(histories) < self.neighbours:
            raise InputError(
                f"{len(histories)} complete scenes; expected at least {self.neighbours}"
            )
        steps = (
            []
            if self.components is None
            else [StandardScaler(), PCA(min(self.components, len(histories)))]
        )
        self._prepare = make_pipeline(*steps, "passthrough").fit(np.stack(histories))
        self._futures = np.stack(futures)
        self._index = NearestNeighbors(n_neighbors=self.neighbours)
        self._index.fit(self._prepare.transform(np.stack(histories)))
        return self

    def predict(self, scene: Scene, modes: int = 6) -> tuple[np.ndarray, np.ndarray]:
        """Forecasts the focal agent, in the scene frame.

        Args:
            scene: The scene.
            modes: K.

        Returns:
            [K, 60, 2] and probabilities [K], descending (by inverse distance); spare modes repeat
            the first with probability 0.
        """
        history = scene.state[0, :, :2].astype(np.float64)
        last = history[NOW]
        found: list[tuple[float, np.ndarray]] = []
        paths = self._paths(scene)[: self.candidates] if self.map_prior else [None]
        for path in paths:
            seen = history if path is None else _to_path(history, path)
            offset = seen[NOW]
            query = self._prepare.transform((seen - offset).reshape(1, -1))
            distances, rows = self._index.kneighbors(query)
            for distance, row in zip(distances[0], rows[0], strict=True):
                future = self._futures[row] + offset
                if path is not None:
                    future = _from_path(future, path)
                    future = future - _from_path(offset[None], path) + last
                found.append((float(distance), future))
        found.sort(key=lambda item: item[0])
        found = found[:modes]
        weights = np.array([1.0 / (distance + 1e-3) for distance, _ in found])
        p = np.zeros(modes)
        p[: len(found)] = weights / weights.sum()
        made = np.stack([future for _, future in found])
        spare = np.repeat(made[:1], modes - len(found), axis=0)
        return np.concatenate([made, spare]), p

    def _paths(self, scene: Scene) -> list[np.ndarray]:
        """Chains of lanes near the agent in its driving direction; the agent's own axis if none."""
        lanes = scene.lines[scene.line_kind < 3].astype(np.float64)
        straight = np.array([[-60.0, 0.0], [120.0, 0.0]])
        if len(lanes) == 0:
            return [straight]
        near = np.linalg.norm(lanes, axis=-1)
        step = np.diff(lanes, axis=1)
        facing = np.arctan2(step[..., 1], step[..., 0])
        at = np.minimum(near.argmin(axis=1), step.shape[1] - 1)
        angle = np.abs(facing[np.arange(len(lanes)), at])
        start = np.flatnonzero((near.min(axis=1) < 5.0) & (angle < np.pi / 3))
        paths = []
        for lane in start[np.argsort(near.min(axis=1)[start], kind="stable")]:
            for chain in _chains(lanes, int(lane)):
                paths.append(np.concatenate([lanes[item] for item in chain]))
        return paths or [straight]


def _chains(lanes: np.ndarray, start: int, length: int = 4) -> list[list[int]]:
    """Follows lanes whose beginning meets an end (scenes keep shapes, not ids)."""
    done, open_chains = [], [[start]]
    while open_chains:
        chain = open_chains.pop(0)
        gap = np.linalg.norm(lanes[:, 0] - lanes[chain[-1], -1], axis=-1)
        after = [int(item) for item in np.flatnonzero(gap < 0.5) if item not in chain]
        if not after or len(chain) == length:
            done.append(chain)
        else:
            open_chains += [[*chain, item] for item in after]
    return done


def _to_path(points: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Gives (along, across) of points with respect to a path that goes straight on at its ends."""
    steps, lengths, starts = _segments(path)
    relative = points[:, None] - path[None, :-1]
    along = (relative * steps).sum(-1)
    low = np.where(np.arange(len(steps)) == 0, -np.inf, 0.0)
    high = np.where(np.arange(len(steps)) == len(steps) - 1, np.inf, lengths)
    clipped = np.clip(along, low, high)
    rest = relative - clipped[..., None] * steps
    best = np.linalg.norm(rest, axis=-1).argmin(axis=1)
    rows = np.arange(len(points))
    across = steps[best, 0] * relative[rows, best, 1] - steps[best, 1] * relative[rows, best, 0]
    return np.stack([starts[best] + clipped[rows, best], across], axis=-1)


def _from_path(places: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Gives the points at (along, across) of a path."""
    steps, _, starts = _segments(path)
    best = np.clip(np.searchsorted(starts, places[:, 0], side="right") - 1, 0, len(steps) - 1)
    left = np.stack([-steps[best, 1], steps[best, 0]], axis=-1)
    along = (places[:, 0] - starts[best])[:, None]
    return path[best] + along * steps[best] + places[:, 1:] * left


def _segments(path: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gives unit directions, lengths and starts of a path's segments."""
    gap = np.diff(path, axis=0)
    lengths = np.linalg.norm(gap, axis=1)
    steps = gap / np.maximum(lengths, 1e-9)[:, None]
    return steps, lengths, np.concatenate([[0.0], np.cumsum(lengths)[:-1]])


class LSTM(nn.Module):
    """Encoder-decoder over displacements, autoregressive (the organisers' baseline).

    Args:
        embedding: Width of the embedded displacement.
        hidden: Width of both cells.
    """

    def __init__(self, embedding: int = 8, hidden: int = 16) -> None:
        super().__init__()
        self.embed = nn.Linear(2, embedding)
        self.encoder = nn.LSTMCell(embedding, hidden)
        self.embed_future = nn.Linear(2, embedding)
        self.decoder = nn.LSTMCell(embedding, hidden)
        self.out = nn.Linear(hidden, 2)

    def forward(self, history: Tensor, steps: int = FUTURE) -> Tensor:
        """Forecasts positions.

        Args:
            history: [n, 50, 2], positions.
            steps: How many steps to roll out.

        Returns:
            [n, steps, 2].
        """
        deltas = history[:, 1:] - history[:, :-1]
        state = None
        for step in range(deltas.shape[1]):
            state = self.encoder(torch.relu(self.embed(deltas[:, step])), state)
        place, delta, made = history[:, -1], deltas[:, -1], []
        for _ in range(steps):
            state = self.decoder(torch.relu(self.embed_future(delta)), state)
            delta = self.out(state[0])
            place = place + delta
            made.append(place)
        return torch.stack(made, dim=1)


def train_lstm(
    history: Tensor,
    future: Tensor,
    epochs: int = 20,
    batch_size: int = 512,
    rate: float = 1e-3,
    seed: int = 0,
    model: LSTM | None = None,
) -> LSTM:
    """Trains the LSTM with the curriculum of rollout lengths 1, 10, 60 (mean squared error, Adam).

    Args:
        history: float32 [N, 50, 2], in each agent's frame.
        future: float32 [N, 60, 2].
        epochs: In all; split over the three lengths.
        batch_size: Tracks a step.
        rate: Learning rate.
        seed: Of weights and order.
        model: One to go on with.
    """
    torch.manual_seed(seed)
    model = model or LSTM()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        steps = (1, 10, FUTURE)[min(3 * epoch // max(epochs, 1), 2)]
        for rows in torch.randperm(len(history), generator=generator).split(batch_size):
            loss = nn.functional.mse_loss(model(history[rows], steps), future[rows, :steps])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()
