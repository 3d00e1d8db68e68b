"""Scores of a clustering: against labels and, without any, against the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.optimize import linear_sum_assignment
from sklearn import metrics

from tenfold.shared.errors import InputError

METRICS = ("ACC", "NMI", "ARI", "F1")


def match_clusters(true: Any, predicted: Any) -> np.ndarray:
    """Renames clusters by the best one-to-one map onto the classes (Hungarian method).

    The contingency table is padded with zeros to a square, so fewer or more clusters than classes
    are scored as they are; a cluster without a class keeps a number of its own.

    Args:
        true: int [N], classes.
        predicted: int [N], clusters.

    Returns:
        int64 [N], the predicted clusters in the numbering of the classes.

    Raises:
        InputError: the two have different lengths.
    """
    true, predicted = _checked(true, predicted)
    size = int(max(true.max(), predicted.max())) + 1
    table = np.zeros((size, size), dtype=np.int64)
    np.add.at(table, (predicted, true), 1)
    cluster, label = linear_sum_assignment(table, maximize=True)
    return label[np.argsort(cluster)][predicted]


def label_scores(true: Any, predicted: Any) -> dict[str, float]:
    """Scores against labels, in percent.

    ACC (accuracy after :func:`match_clusters`), NMI (arithmetic normalisation), ARI, F1 (macro,
    after the match), and purity, homogeneity and completeness.

    Args:
        true: int [N], classes.
        predicted: int [N], clusters.
    """
    true, predicted = _checked(true, predicted)
    matched = match_clusters(true, predicted)
    table = metrics.cluster.contingency_matrix(true, predicted)
    scores = {
        "ACC": float((matched == true).mean()),
        "NMI": metrics.normalized_mutual_info_score(true, predicted),
        "ARI": metrics.adjusted_rand_score(true, predicted),
        "F1": metrics.f1_score(true, matched, labels=np.unique(true), average="macro"),
        "purity": float(table.max(0).sum() / len(true)),
        "homogeneity": metrics.homogeneity_score(true, predicted),
        "completeness": metrics.completeness_score(true, predicted),
    }
    return {name: 100 * float(value) for name, value in scores.items()}


def block_weights(adjacency: sp.sparray, labels: Any, n_clusters: int) -> np.ndarray:
    """Total edge weight between clusters, [K, K]; an inner edge counts in both directions."""
    coo = sp.coo_array(adjacency)
    row, column = coo.coords
    labels = np.asarray(labels)
    code = labels[row] * n_clusters + labels[column]
    total = np.bincount(code, weights=coo.data, minlength=n_clusters**2).astype(np.float64)
    return total.reshape(n_clusters, n_clusters)  # bincount of nothing counts in integers


def modularity(adjacency: sp.sparray, labels: Any) -> float:
    """Newman's modularity of a partition.

    .. math:: Q = \\sum_k \\left( \\frac{m_{kk}}{2m} - \\left(\\frac{d_k}{2m}\\right)^2 \\right)

    Args:
        adjacency: symmetric [N, N].
        labels: int [N].
    """
    labels = np.asarray(labels)
    blocks = block_weights(adjacency, labels, int(labels.max()) + 1)
    total = blocks.sum()
    if total == 0:
        return 0.0
    return float(np.trace(blocks) / total - ((blocks.sum(1) / total) ** 2).sum())


def conductance(adjacency: sp.sparray, labels: Any) -> float:
    """Mean over clusters of cut weight / min(volume, volume of the rest); 0 for a cluster without
    edges to or from elsewhere.

    Args:
        adjacency: symmetric [N, N].
        labels: int [N].
    """
    labels = np.asarray(labels)
    blocks = block_weights(adjacency, labels, int(labels.max()) + 1)
    volume = blocks.sum(1)
    cut = volume - np.diag(blocks)
    smaller = np.minimum(volume, volume.sum() - volume)
    present = np.bincount(labels) > 0
    ratio = np.divide(cut, smaller, out=np.zeros_like(cut), where=smaller > 0)
    return float(ratio[present].mean())


def graph_scores(
    adjacency: sp.sparray, labels: Any, embedding: np.ndarray | None = None
) -> dict[str, float]:
    """Scores that need no labels: modularity, conductance, and the silhouette of an embedding.

    Args:
        adjacency: symmetric [N, N].
        labels: int [N].
        embedding: optional [N, d]; its silhouette is taken over at most 2,000 nodes.
    """
    scores = {
        "modularity": modularity(adjacency, labels),
        "conductance": conductance(adjacency, labels),
    }
    if embedding is not None and 1 < len(np.unique(labels)) < len(labels):
        rows = np.random.default_rng(0).permutation(len(embedding))[:2000]
        if 1 < len(np.unique(np.asarray(labels)[rows])) < len(rows):
            chosen = np.asarray(labels)[rows]
            scores["silhouette"] = float(metrics.silhouette_score(embedding[rows], chosen))
    return scores


def _checked(true: Any, predicted: Any) -> tuple[np.ndarray, np.ndarray]:
    true, predicted = np.asarray(true), np.asarray(predicted)
    if true.shape != predicted.shape or true.ndim != 1 or len(true) == 0:
        raise InputError(
            f"labels have shape {true.shape}, clusters {predicted.shape}; expected two equal [N]"
        )
    return (
        np.unique(true, return_inverse=True)[1],
        np.unique(predicted, return_inverse=True)[1],
    )
