"""The challenge's score of a submission, computed locally."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tenfold.shared.errors import InputError
from tenfold.tenet.evaluation.metrics import AdeMode, scores, world_scores
from tenfold.tenet.evaluation.submission import GroundTruth, Submission


@dataclass(frozen=True)
class Score:
    """What :func:`score` found."""

    scenarios: int
    ade_mode: AdeMode
    single: dict[str, float]
    """The eight numbers of the single-agent track; brier-minFDE6 ranks."""
    world: dict[str, float] | None
    """The numbers of the multi-agent track, if the submission holds joint worlds of all tracks."""


def score(submission: Submission, truth: GroundTruth, ade_mode: AdeMode = "independent") -> Score:
    """Scores a submission by the challenge's rules.

    Args:
        submission: The forecasts; tracks that the truth does not have are left out.
        truth: What happened; its focal tracks must all be in the submission.
        ade_mode: How minADE is taken.

    Raises:
        InputError: If a focal track of the truth is missing in the submission, or a scenario has
            not exactly one focal track.
    """
    place = _places(submission)
    focal = np.flatnonzero(truth.is_focal)
    if len(focal) == 0:
        raise InputError("ground truth: no row has is_focal_track; expected one in each scenario")
    ids = truth.scenario_ids[focal]
    if len(np.unique(ids)) != len(ids):
        raise InputError("ground truth: a scenario has several focal tracks; expected one")
    rows = _rows(place, truth, focal)
    known = ~np.isnan(truth.trajectories[..., 0])
    valid = None if known[focal].all() else known[focal]
    single = scores(
        submission.trajectories[rows],
        submission.probabilities[rows],
        np.nan_to_num(truth.trajectories[focal]),
        ade_mode,
        valid,
    )
    return Score(len(focal), ade_mode, single, _worlds(submission, truth, place))


def _worlds(
    submission: Submission, truth: GroundTruth, place: dict[tuple[str, str], int]
) -> dict[str, float] | None:
    """Scores worlds, where there are any."""
    several = len(truth) > int(truth.is_focal.sum())
    whole = not np.isnan(truth.trajectories).any()
    pairs = zip(truth.scenario_ids.tolist(), truth.track_ids.tolist(), strict=True)
    if not (several and whole and submission.joint and all(pair in place for pair in pairs)):
        return None
    rows = _rows(place, truth, np.arange(len(truth)))
    if np.isnan(submission.trajectories[rows]).any():
        return None
    new = np.flatnonzero(truth.scenario_ids[1:] != truth.scenario_ids[:-1]) + 1
    offsets = np.concatenate([[0], new, [len(truth)]])
    return world_scores(
        submission.trajectories[rows],
        submission.probabilities[rows[offsets[:-1]]],
        truth.trajectories,
        offsets,
    )


def _places(submission: Submission) -> dict[tuple[str, str], int]:
    """Gives the row of each (scenario, track)."""
    pairs = zip(submission.scenario_ids.tolist(), submission.track_ids.tolist(), strict=True)
    return {pair: row for row, pair in enumerate(pairs)}


def _rows(place: dict[tuple[str, str], int], truth: GroundTruth, wanted: np.ndarray) -> np.ndarray:
    """Finds the submission's rows for tracks of the truth."""
    pairs = list(
        zip(truth.scenario_ids[wanted].tolist(), truth.track_ids[wanted].tolist(), strict=True)
    )
    missing = [pair for pair in pairs if pair not in place]
    if missing:
        raise InputError(
            f"submission: {len(missing)} of {len(pairs)} tracks of the ground truth are missing, "
            f"first track {missing[0][1]!r} of scenario {missing[0][0]!r}"
        )
    return np.array([place[pair] for pair in pairs])
