"""The metrics of the Argoverse 2 challenge: one agent, and whole worlds.

All take many scenarios at once and give one number a scenario; the mean over scenarios is the
score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tenfold.shared.errors import InputError

MISS_METRES = 2.0
"""A forecast misses if its end is farther from the truth than this; exactly this far is no miss."""
COLLISION_METRES = 1.0
AdeMode = Literal["independent", "fde_best"]
"""How minADE is taken: ``independent`` (the official script: the two minima on their own) or
``fde_best`` (the ADE of the mode with the smallest FDE; larger, used by some repositories)."""

_ROWS_AT_ONCE = 512


@dataclass(frozen=True, eq=False)
class AgentErrors:
    """Single-agent metrics of S scenarios, float64 [S] each (``missed`` bool)."""

    min_ade: np.ndarray
    min_fde: np.ndarray
    missed: np.ndarray
    brier_min_ade: np.ndarray
    brier_min_fde: np.ndarray


@dataclass(frozen=True, eq=False)
class WorldErrors:
    """Multi-agent metrics of S scenarios, float64 [S] each."""

    avg_min_ade: np.ndarray
    avg_min_fde: np.ndarray
    avg_brier_min_fde: np.ndarray
    missed: np.ndarray
    """Tracks that the best world misses, int64 [S]."""
    collided: np.ndarray
    """Tracks that collide in the best world, int64 [S]."""
    tracks: np.ndarray
    """Tracks, int64 [S]."""


def displacement_errors(
    trajectories: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the average and the final displacement error of each mode.

    Args:
        trajectories: float [S, K, T, 2].
        truth: float [S, T, 2].
        valid: bool [S, T], the steps that count; the last of them is the final one. Default: all.

    Returns:
        ADE and FDE, float64 [S, K].

    Raises:
        InputError: If the shapes do not fit, or a scenario has no valid step.
    """
    trajectories, truth = np.asarray(trajectories), np.asarray(truth)
    if trajectories.ndim != 4 or trajectories.shape[-1] != 2:
        raise InputError(f"trajectories has shape {trajectories.shape}; expected [S, K, T, 2]")
    scenarios, modes, steps, _ = trajectories.shape
    if truth.shape != (scenarios, steps, 2):
        raise InputError(f"truth has shape {truth.shape}; expected {(scenarios, steps, 2)}")
    if valid is not None:
        valid = np.asarray(valid, bool)
        if valid.shape != (scenarios, steps):
            raise InputError(f"valid has shape {valid.shape}; expected {(scenarios, steps)}")
        if not valid.any(axis=1).all():
            row = int((~valid.any(axis=1)).argmax())
            raise InputError(f"scenario {row} has no valid future step; expected at least one")
    ade, fde = np.empty((scenarios, modes)), np.empty((scenarios, modes))
    for start in range(0, scenarios, _ROWS_AT_ONCE):  # blocks that fit into the processor's cache
        rows = slice(start, start + _ROWS_AT_ONCE)
        gap = trajectories[rows] - truth[rows, None]
        distance = gap[..., 0].astype(np.float64)
        np.square(distance, out=distance)
        y = gap[..., 1]
        distance += y * y
        np.sqrt(distance, out=distance)
        if valid is None:
            ade[rows] = distance.mean(axis=-1)
            fde[rows] = distance[..., -1]
        else:
            there = valid[rows, None]
            ade[rows] = np.where(there, distance, 0.0).sum(-1) / there.sum(-1)
            last = steps - 1 - valid[rows, ::-1].argmax(axis=1)
            fde[rows] = np.take_along_axis(distance, last[:, None, None], axis=-1)[..., 0]
    return ade, fde


def agent_errors(
    trajectories: np.ndarray,
    probabilities: np.ndarray,
    truth: np.ndarray,
    k: int = 6,
    ade_mode: AdeMode = "independent",
    valid: np.ndarray | None = None,
) -> AgentErrors:
    """Computes the single-agent metrics over the k most probable modes.

    Args:
        trajectories: float [S, K, T, 2], in any order of modes. A mode that is NaN does not count.
        probabilities: float [S, K] in [0, 1]; divided by their sum for the Brier terms.
        truth: float [S, T, 2].
        k: How many modes count. Among equal probabilities the earlier mode goes first.
        ade_mode: How minADE is taken.
        valid: bool [S, T], the steps that count.

    Raises:
        InputError: If shapes do not fit or a probability is outside of [0, 1].
    """
    ade, fde = displacement_errors(trajectories, truth, valid)
    p = _checked(probabilities, ade.shape)
    if k < 1:
        raise InputError(f"k={k}; expected >= 1")
    order = np.argsort(-p, axis=1, kind="stable")[:, :k]
    ade, fde, p = (np.take_along_axis(array, order, axis=1) for array in (ade, fde, p))
    ade, fde = (np.where(np.isnan(array), np.inf, array) for array in (ade, fde))
    rows = np.arange(len(ade))
    by_fde = fde.argmin(axis=1)
    by_ade = by_fde if ade_mode == "fde_best" else ade.argmin(axis=1)
    return AgentErrors(
        min_ade=ade[rows, by_ade],
        min_fde=fde[rows, by_fde],
        missed=fde[rows, by_fde] > MISS_METRES,
        brier_min_ade=ade[rows, by_ade] + np.square(1 - p[rows, by_ade]),
        brier_min_fde=fde[rows, by_fde] + np.square(1 - p[rows, by_fde]),
    )


def scores(
    trajectories: np.ndarray,
    probabilities: np.ndarray,
    truth: np.ndarray,
    ade_mode: AdeMode = "independent",
    valid: np.ndarray | None = None,
) -> dict[str, float]:
    """Computes the challenge's eight numbers, means over the scenarios.

    Args:
        trajectories: float [S, K, T, 2].
        probabilities: float [S, K].
        truth: float [S, T, 2].
        ade_mode: How minADE is taken.
        valid: bool [S, T], the steps that count.

    Returns:
        minADE1, minFDE1, MR1, minADE6, minFDE6, MR6, brier-minADE6, brier-minFDE6 (which ranks).
    """
    one = agent_errors(trajectories, probabilities, truth, 1, ade_mode, valid)
    six = agent_errors(trajectories, probabilities, truth, 6, ade_mode, valid)
    return {
        "minADE1": float(one.min_ade.mean()),
        "minFDE1": float(one.min_fde.mean()),
        "MR1": float(one.missed.mean()),
        "minADE6": float(six.min_ade.mean()),
        "minFDE6": float(six.min_fde.mean()),
        "MR6": float(six.missed.mean()),
        "brier-minADE6": float(six.brier_min_ade.mean()),
        "brier-minFDE6": float(six.brier_min_fde.mean()),
    }


def world_displacements(
    trajectories: np.ndarray, truth: np.ndarray, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the errors of whole worlds: means over the tracks of a scenario.

    Args:
        trajectories: float [N, K, T, 2], the tracks of all scenarios; mode k of all tracks of a
            scenario is one world.
        truth: float [N, T, 2].
        offsets: int64 [S + 1]: the tracks of scenario s are ``offsets[s]`` to ``offsets[s + 1]``.

    Returns:
        World ADE and world FDE, float64 [S, K].
    """
    ade, fde = displacement_errors(trajectories, truth)
    counts = np.diff(offsets)
    if (counts < 1).any():
        raise InputError("a scenario has no track; expected at least one in each")
    starts = offsets[:-1]
    return (
        np.add.reduceat(ade, starts, axis=0) / counts[:, None],
        np.add.reduceat(fde, starts, axis=0) / counts[:, None],
    )


def collisions(trajectories: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Says which track comes closer than 1 m to another track of its scenario, in which world.

    Args:
        trajectories: float [N, K, T, 2].
        offsets: int64 [S + 1].

    Returns:
        bool [N, K].
    """
    found = np.zeros(trajectories.shape[:2], bool)
    counts = np.diff(offsets)
    for count in np.unique(counts[counts > 1]):  # scenarios with as many tracks go together
        starts = offsets[:-1][counts == count]
        block = max(1, 2_000_000 // (count * count * trajectories.shape[1] * trajectories.shape[2]))
        for first in range(0, len(starts), block):
            rows = starts[first : first + block, None] + np.arange(count)
            tracks = trajectories[rows]  # [s, M, K, T, 2]
            gap = np.linalg.norm(tracks[:, :, None] - tracks[:, None], axis=-1)
            gap[:, np.arange(count), np.arange(count)] = np.inf
            found[rows] = gap.min(axis=(2, 4)) < COLLISION_METRES
    return found


def world_errors(
    trajectories: np.ndarray, probabilities: np.ndarray, truth: np.ndarray, offsets: np.ndarray
) -> WorldErrors:
    """Computes the multi-agent metrics.

    Args:
        trajectories: float [N, K, T, 2], as :func:`world_displacements`.
        probabilities: float [S, K], of the worlds; divided by their sum.
        truth: float [N, T, 2].
        offsets: int64 [S + 1].
    """
    ade, fde = world_displacements(trajectories, truth, offsets)
    p = _checked(probabilities, fde.shape)
    rows, best = np.arange(len(fde)), fde.argmin(axis=1)
    counts = np.diff(offsets)
    world = np.repeat(best, counts)
    tracks = np.arange(len(trajectories))
    last = np.linalg.norm(trajectories[tracks, world, -1] - truth[:, -1], axis=-1)
    collided = collisions(trajectories[tracks, world][:, None], offsets)[:, 0]
    return WorldErrors(
        avg_min_ade=ade.min(axis=1),
        avg_min_fde=fde[rows, best],
        avg_brier_min_fde=fde[rows, best] + np.square(1 - p[rows, best]),
        missed=np.add.reduceat((last > MISS_METRES).astype(np.int64), offsets[:-1]),
        collided=np.add.reduceat(collided.astype(np.int64), offsets[:-1]),
        tracks=counts,
    )


def world_scores(
    trajectories: np.ndarray, probabilities: np.ndarray, truth: np.ndarray, offsets: np.ndarray
) -> dict[str, float]:
    """Computes the numbers of the multi-agent track at K = 1 and 6.

    Args:
        trajectories: float [N, K, T, 2].
        probabilities: float [S, K].
        truth: float [N, T, 2].
        offsets: int64 [S + 1].

    Returns:
        avgMinADE, avgMinFDE, actorMR (share of all tracks) for both K; avgBrierMinFDE6, actorCR6.
    """
    p = np.asarray(probabilities, np.float64)
    order = np.argsort(-p, axis=1, kind="stable")
    by_track = np.repeat(order, np.diff(offsets), axis=0)[:, :, None, None]
    ranked = np.take_along_axis(np.asarray(trajectories), by_track, axis=1)
    p = np.take_along_axis(p, order, axis=1)
    found: dict[str, float] = {}
    for k in (1, 6):
        errors = world_errors(ranked[:, :k], p[:, :k], truth, offsets)
        found[f"avgMinADE{k}"] = float(errors.avg_min_ade.mean())
        found[f"avgMinFDE{k}"] = float(errors.avg_min_fde.mean())
        found[f"actorMR{k}"] = float(errors.missed.sum() / errors.tracks.sum())
    found["avgBrierMinFDE6"] = float(errors.avg_brier_min_fde.mean())
    found["actorCR6"] = float(errors.collided.sum() / errors.tracks.sum())
    return found


def _checked(probabilities: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Gives probabilities that sum to one, or refuses them."""
    p = np.asarray(probabilities, np.float64)
    if p.shape != shape:
        raise InputError(f"probabilities has shape {p.shape}; expected {shape}")
    if not ((p >= 0) & (p <= 1)).all():
        raise InputError("a probability is outside of [0, 1]")
    total = p.sum(axis=1, keepdims=True)
    if not (total > 0).all():
        raise InputError("the probabilities of a scenario are all zero")
    return p / total
