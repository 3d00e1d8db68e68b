"""The number of clusters, estimated without labels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from tenfold.ccgc.kmeans import kmeans
from tenfold.ccgc.smoothing import operator_of, smooth_with
from tenfold.shared.errors import InputError

ROWS = 2000  # the silhouette is taken over at most this many nodes


def estimate_clusters(
    data: Data, largest: int = 20, hops: int = 3, seed: int = 0
) -> tuple[int, dict[int, float]]:
    """The number of clusters with the best mean silhouette in the smoothed features.

    Args:
        data: a checked graph.
        largest: the numbers 2 .. ``largest`` are tried.
        hops: smoothing steps.
        seed: of k-means and of the nodes on which the silhouette is taken.

    Returns:
        K, and the silhouette of each number that was tried.

    Raises:
        InputError: fewer than three nodes, or all feature rows are equal.
    """
    from sklearn.metrics import silhouette_score

    operator = operator_of(data)
    largest = min(largest, data.num_nodes - 1, len(torch.unique(data.x.cpu(), dim=0)))
    if largest < 2:
        raise InputError("the number of clusters needs 3 nodes and 2 different feature rows")
    rows = _leading(smooth_with(operator, data.x, hops), largest)
    generator = torch.Generator().manual_seed(seed)
    shown = torch.randperm(len(rows), generator=generator)[:ROWS]
    scores: dict[int, float] = {}
    for k in range(2, largest + 1):
        if len(torch.unique(rows[:, :k], dim=0)) < k:
            break
        labels = kmeans(rows[:, :k], k, generator=generator).labels[shown].numpy()
        if 1 < len(np.unique(labels)) < len(labels):
            scores[k] = float(silhouette_score(rows[shown, :k].numpy(), labels))
    return max(scores, key=lambda k: scores[k]), scores


def _leading(x: Tensor, width: int) -> Tensor:
    """Unit rows of the leading principal directions, float32 [N, width]."""
    unit = torch.nn.functional.normalize(x.cpu())
    centred = unit - unit.mean(0)
    vectors = torch.linalg.eigh(centred.T @ centred).eigenvectors
    return (centred @ vectors.flip(1)[:, :width]).contiguous()
