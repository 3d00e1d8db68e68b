"""Weights of term counts: what a feature says depends on how rare it is.

Not part of the paper: the ``final`` protocol weights bag-of-words features by their inverse
document frequency before smoothing, as text retrieval does; ``official-best`` leaves them as they
are.
"""

from __future__ import annotations

import torch
from torch import Tensor


def are_term_counts(x: Tensor) -> bool:
    """Whether features look like a bag of words: whole numbers >= 0, mostly 0, several a node.

    One-hot features (one entry a node) and measurements are not.

    Args:
        x: [N, D].
    """
    present = x != 0
    share = float(present.float().mean())
    several = float(present.sum(1).float().mean()) >= 2
    return share < 0.5 and several and bool((x >= 0).all()) and bool((x == x.round()).all())


def inverse_document_frequency(x: Tensor) -> Tensor:
    """``log(N / n_j)`` for each feature j that n_j of the N nodes have; 0 for one that none has.

    Args:
        x: [N, D].

    Returns:
        float64 [D].
    """
    nodes = (x != 0).sum(0).double()
    return torch.where(nodes > 0, (len(x) / nodes.clamp(min=1)).log(), torch.zeros_like(nodes))
