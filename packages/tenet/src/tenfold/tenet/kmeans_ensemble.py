"""The K-means ensemble: the forecasts of several models become one (reconstruction).

The paper says only that predictions are merged by K-means. Here the end points of all modes of all
models, weighted by probability, are clustered for many scenarios at once; a cluster's trajectory is
the weighted mean of its members and its probability their sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tenfold.shared.errors import InputError
from tenfold.tenet.clustering import weighted_kmeans
from tenfold.tenet.evaluation.submission import Submission, make_submission

Merge = Literal["weighted", "mean", "medoid"]
_SCENARIOS_AT_ONCE = 1024


@dataclass(frozen=True)
class EnsembleConfig:
    """How modes are clustered and merged."""

    modes: int = 6
    """K, the number of clusters."""
    n_init: int = 2
    """Starts: the first one is deterministic (heaviest candidate, then the largest weighted squared
    distance), the others are k-means++ with a fixed seed. The one with the smallest inertia stays.
    Each start ends in a deep optimum (see ``clustering``), so that few are enough."""
    steps: tuple[int, ...] = (59,)
    """The future steps whose positions are clustered."""
    merge: Merge = "weighted"
    """A cluster's trajectory: the weighted mean, the plain mean, or the member nearest the
    centre."""
    iterations: int = 100
    """Lloyd steps at most."""
    seed: int = 0
    """Seed of the k-means++ starts."""

    def __post_init__(self) -> None:
        """Refuses what cannot be clustered."""
        for name in ("modes", "n_init", "iterations"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}; expected >= 1")
        if not self.steps or not all(0 <= step < 60 for step in self.steps):
            raise InputError(f"steps={self.steps}; expected future steps from 0 to 59")
        if self.merge not in ("weighted", "mean", "medoid"):
            raise InputError(f"merge={self.merge!r}; expected weighted, mean or medoid")


def merge_modes(
    trajectories: np.ndarray, weights: np.ndarray, config: EnsembleConfig | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Merges the candidate trajectories of each scenario into K.

    Args:
        trajectories: float [S, N, T, 2], all in one frame; NaN rows need weight 0. Steps count from
            the end of blocks of 60: a world of M tracks is one trajectory of 60 M steps.
        weights: float [S, N]; sum to 1 (probability over the number of models).
        config: How.

    Returns:
        Trajectories float64 [S, K, T, 2] and probabilities float64 [S, K], descending. Where a
        scenario has fewer than K distinct end points, the spare rows repeat the most probable
        trajectory with probability 0.
    """
    config = config or EnsembleConfig()
    full, w = np.asarray(trajectories, np.float64), np.asarray(weights, np.float64)
    sets, count, steps, _ = full.shape
    if steps % 60:
        raise InputError(f"trajectories have {steps} steps; expected 60, or 60 for each track")
    if (w[np.isnan(full[:, :, 0, 0])] > 0).any():
        raise InputError("a trajectory that is NaN has a probability above 0")
    at = [60 * track + step for track in range(steps // 60) for step in config.steps]
    points = np.nan_to_num(full[:, :, at].reshape(sets, count, -1))
    found = weighted_kmeans(points, w, config.modes, config.n_init, config.iterations, config.seed)
    order = np.argsort(-found.weights, axis=1, kind="stable")
    probabilities = np.take_along_axis(found.weights, order, axis=1)
    made = np.empty((sets, config.modes, steps, 2))
    one_hot = np.arange(config.modes)[:, None] == found.assignment[:, None]  # [S, K, N]
    if config.merge == "medoid":
        gap = np.square(points[:, None] - found.centers[:, :, None]).sum(axis=-1)
        member = np.where(one_hot & (w > 0)[:, None], gap, np.inf).argmin(axis=-1)
        made[:] = full[np.arange(sets)[:, None], member]
    else:
        share = one_hot * (w if config.merge == "weighted" else (w > 0).astype(float))[:, None]
        total = share.sum(axis=-1, keepdims=True)
        share /= np.where(total > 0, total, 1.0)
        for first in range(0, sets, _SCENARIOS_AT_ONCE):
            rows = slice(first, first + _SCENARIOS_AT_ONCE)
            flat = full[rows].reshape(-1, count, steps * 2)
            if (w[rows] == 0).any():
                flat = np.where(w[rows, :, None] > 0, flat, 0.0)
            made[rows] = (share[rows] @ flat).reshape(-1, config.modes, steps, 2)
    made = made[np.arange(sets)[:, None], order]
    made = np.where((probabilities > 0)[..., None, None], made, made[:, :1])
    return made, probabilities


def ensemble(
    models: Sequence[tuple[np.ndarray, np.ndarray]], config: EnsembleConfig | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Merges the forecasts of several models.

    Args:
        models: Of each, trajectories float [S, K, T, 2] (all in one frame) and probabilities
            float [S, K] that sum to 1; K may differ.
        config: How.

    Returns:
        As :func:`merge_modes`.
    """
    if not models:
        raise InputError("no models; expected at least one")
    for trajectories, p in models:
        if np.shape(trajectories)[:2] != np.shape(p):
            raise InputError(
                f"trajectories {np.shape(trajectories)} and probabilities {np.shape(p)} do not fit"
            )
        if not np.isclose(np.sum(p, axis=1), 1.0).all():
            raise InputError("the probabilities of a model do not sum to 1")
    paths = np.concatenate([trajectories for trajectories, _ in models], axis=1)
    weights = np.concatenate([p for _, p in models], axis=1) / len(models)
    return merge_modes(paths, weights, config)


def ensemble_submissions(
    submissions: Sequence[Submission], config: EnsembleConfig | None = None
) -> Submission:
    """Merges submissions of anybody, of the single-agent or the multi-agent track.

    Where all submissions hold worlds (the tracks of a scenario share their probabilities), whole
    worlds are clustered by the end points of all their tracks; otherwise each track on its own.

    Args:
        submissions: All of the same scenarios and tracks.
        config: How.

    Raises:
        InputError: If a submission lacks a track that another one has.
    """
    if not submissions:
        raise InputError("no submissions; expected at least one")
    first = submissions[0]
    keys = list(zip(first.scenario_ids.tolist(), first.track_ids.tolist(), strict=True))
    models = []
    for number, submission in enumerate(submissions, 1):
        ids = zip(submission.scenario_ids.tolist(), submission.track_ids.tolist(), strict=True)
        place = {key: row for row, key in enumerate(ids)}
        odd = set(place).symmetric_difference(keys)
        if odd:
            scenario, track = min(odd)
            raise InputError(
                f"submission 1 and {number} do not have the same tracks: track {track!r} of "
                f"scenario {scenario!r} is in one of them only"
            )
        rows = np.array([place[key] for key in keys])
        models.append((submission.trajectories[rows], submission.probabilities[rows]))
    modes = (config or EnsembleConfig()).modes
    trajectories = np.empty((len(first), modes, 60, 2))
    probabilities = np.empty((len(first), modes))
    offsets = first.offsets
    joint = all(submission.joint for submission in submissions)
    counts = np.diff(offsets) if joint else np.ones(len(first), np.int64)
    starts = offsets[:-1] if joint else np.arange(len(first))
    for tracks in np.unique(counts):  # scenarios with as many tracks go together
        rows = starts[counts == tracks, None] + np.arange(tracks)  # [s, M]
        worlds = [
            (np.moveaxis(paths[rows], 1, 2).reshape(len(rows), p.shape[1], -1, 2), p[rows[:, 0]])
            for paths, p in models
        ]
        merged, p = ensemble(worlds, config)
        merged = merged.reshape(len(rows), modes, tracks, 60, 2)
        trajectories[rows] = np.moveaxis(merged, 2, 1)
        probabilities[rows] = p[:, None]
    return make_submission(
        first.scenario_ids.tolist(), first.track_ids.tolist(), probabilities, trajectories
    )
