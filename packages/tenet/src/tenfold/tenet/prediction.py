"""Inference: scenes in, trajectories and probabilities in the city's frame out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.tenet.data.cache import ShardedStore
from tenfold.tenet.data.scene import Scene, SceneStore, from_frame
from tenfold.tenet.evaluation.submission import Submission, make_submission
from tenfold.tenet.model import Tenet, world_logits

Scenes = SceneStore | ShardedStore


@dataclass(frozen=True)
class PredictConfig:
    """How scenes are cut and run."""

    max_agents: int = 64
    """Agents of a scene; the same weights serve any number. All of them with worlds."""
    max_lines: int = 128
    """Polylines of a scene."""
    batch_size: int = 32
    """Scenes at once."""
    temperature: float = 1.0
    """Divides the logits; fitted on validation data by `fit_temperature`."""
    worlds: bool = False
    """Predict all scored agents, mode k of all of them as one joint world."""

    def __post_init__(self) -> None:
        """Refuses sizes that no scene has."""
        for name, low in (("max_agents", 1), ("max_lines", 0), ("batch_size", 1)):
            if getattr(self, name) < low:
                raise InputError(f"{name}={getattr(self, name)}; expected >= {low}")
        if not self.temperature > 0:
            raise InputError(f"temperature={self.temperature}; expected > 0")


def predict(
    model: Tenet, scenes: Scenes | Sequence[Scene], config: PredictConfig | None = None
) -> Submission:
    """Forecasts the focal agents of scenes, or whole worlds.

    Args:
        model: The network; it is put into evaluation mode. The device is that of its weights.
        scenes: A store, or a list of scenes.
        config: How.

    Returns:
        Trajectories in the city's frame, float64, by descending probability.
    """
    config = config or PredictConfig()
    store = scenes if isinstance(scenes, SceneStore | ShardedStore) else SceneStore.of(scenes)
    model.eval()
    device = next(model.parameters()).device
    ids, tracks, p, paths = [], [], [], []
    for start in range(0, len(store), config.batch_size):
        rows = range(start, min(start + config.batch_size, len(store)))
        part = store if isinstance(store, SceneStore) else store.take(rows)
        chosen = rows if part is store else range(len(rows))
        counts = np.diff(part.agent_offsets)[list(chosen)]
        agents = int(counts.max()) if config.worlds else config.max_agents
        batch = part.batch(chosen, agents, config.max_lines).to(device)
        targets = batch.scored & batch.valid[:, :, -1] if config.worlds else None
        with torch.inference_mode():
            forecast = model(batch, targets)
            logits = forecast.logits
            if targets is not None:
                logits = world_logits(forecast, targets)[targets.nonzero(as_tuple=True)[0]]
            probabilities = (logits.double() / config.temperature).softmax(dim=-1)
        if targets is None:
            places = [(index, 0) for index in range(len(chosen))]
        else:
            places = [(int(s), int(a)) for s, a in targets.nonzero()]
        local = forecast.trajectories.double().cpu().numpy()
        for place, (index, agent) in enumerate(places):
            row = chosen[index]
            scene_id = str(part.arrays["scenario_id"][row])
            ids.append(scene_id)
            tracks.append(str(part.arrays["track_ids"][part.agent_offsets[row] + agent]))
            origin = part.arrays["origin"][row]
            paths.append(from_frame(local[place], origin, float(part.arrays["heading"][row])))
        p.append(probabilities.cpu().numpy())
    return make_submission(ids, tracks, np.concatenate(p), np.stack(paths))


def fit_temperature(logits: Tensor, best: Tensor) -> float:
    """Finds the temperature that makes probabilities honest: the least cross-entropy.

    brier-minFDE rewards honest probabilities.

    Args:
        logits: [n, K], of validation data.
        best: int64 [n], the winning modes.

    Returns:
        From 0.05 to 20.
    """
    from scipy.optimize import minimize_scalar
    from torch.nn.functional import cross_entropy

    found = minimize_scalar(
        lambda log: float(cross_entropy(logits.double() / np.exp(log), best)),
        bounds=(np.log(0.05), np.log(20.0)),
        method="bounded",
    )
    return float(np.exp(found.x))
