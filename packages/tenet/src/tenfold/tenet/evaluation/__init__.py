"""The protocol of the challenge: metrics, submission files, the score."""

from tenfold.tenet.evaluation.metrics import (
    AdeMode,
    agent_errors,
    collisions,
    displacement_errors,
    scores,
    world_displacements,
    world_errors,
    world_scores,
)
from tenfold.tenet.evaluation.scoring import Score, score
from tenfold.tenet.evaluation.submission import (
    GroundTruth,
    Submission,
    from_predictions,
    make_submission,
    read_ground_truth,
    read_submission,
    to_predictions,
    truth_of,
    write_ground_truth,
    write_submission,
)

__all__ = [
    "AdeMode",
    "GroundTruth",
    "Score",
    "Submission",
    "agent_errors",
    "collisions",
    "displacement_errors",
    "from_predictions",
    "make_submission",
    "read_ground_truth",
    "read_submission",
    "score",
    "scores",
    "to_predictions",
    "truth_of",
    "world_displacements",
    "world_errors",
    "world_scores",
    "write_ground_truth",
    "write_submission",
]
