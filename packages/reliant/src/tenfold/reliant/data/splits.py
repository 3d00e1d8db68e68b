"""Class-wise splits, drawn as the official files were."""

from __future__ import annotations

import random

import numpy as np

from tenfold.shared.errors import InputError


def class_wise_split(
    y: np.ndarray,
    train: float,
    val: float,
    seed: int = 20,
    train_per_class: int | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Splits the nodes of each class; the rest of a class is for testing.

    Python's generator is seeded once and shuffles the nodes of class 0, then of class 1 and so on;
    with seed 20, 30 % and 50 % this is the official split of Recidivism, node by node.

    Args:
        y: int [N]; nodes with -1 are in no part.
        train: share of a class for training.
        val: share of a class at which validation ends (training included).
        seed: of the shuffle.
        train_per_class: at most so many training nodes a class; validation still begins at
            ``train`` of the class.

    Returns:
        Node numbers int64 of the training, validation and test part.

    Raises:
        InputError: unless ``0 < train < val < 1``.
    """
    if not 0 < train < val < 1:
        raise InputError(f"train={train}, val={val}; expected 0 < train < val < 1")
    generator = random.Random(seed)
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for label in sorted(set(y.tolist()) - {-1}):
        nodes = np.flatnonzero(y == label).tolist()
        generator.shuffle(nodes)
        first, second = int(train * len(nodes)), int(val * len(nodes))
        parts[0].extend(nodes[: min(first, train_per_class or first)])
        parts[1].extend(nodes[first:second])
        parts[2].extend(nodes[second:])
    made = tuple(np.asarray(part, dtype=np.int64) for part in parts)
    return made[0], made[1], made[2]
