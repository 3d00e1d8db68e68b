"""Graphs that need no download: real digits as a neighbour graph, and generated ones."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch_geometric.data import Data

from tenfold.ccgc.data.graph import from_adjacency


def digits_graph(neighbours: int = 10) -> Data:
    """The 1,797 handwritten digits that come with scikit-learn, as a nearest-neighbour graph.

    Real 8 x 8 images of ten classes; each is joined to its ``neighbours`` nearest images by
    Euclidean distance, in both directions, as deep-clustering papers do with USPS.

    Returns:
        ``x`` float32 [1797, 64] in [0, 1], ``y`` int64 [1797].
    """
    from sklearn.datasets import load_digits
    from sklearn.neighbors import kneighbors_graph

    digits = load_digits()
    features = (digits.data / 16.0).astype(np.float32)
    directed = kneighbors_graph(features, neighbours, mode="connectivity")
    return from_adjacency(directed.maximum(directed.T), features, digits.target)


def attributed_graph(
    nodes: int = 169_343,
    features: int = 128,
    clusters: int = 40,
    mean_degree: float = 13.77,
    homophily: float = 0.65,
    signal: float = 0.35,
    seed: int = 0,
) -> Data:
    """A generated graph with planted clusters, by default of ogbn-arxiv's size and degree.

    Cluster sizes fall off as a power law, degrees are log-normal within each cluster
    (degree-corrected block model), an edge stays inside its cluster with probability ``homophily``,
    and features are Gaussian around one random centre a cluster.

    Args:
        nodes: N.
        features: D.
        clusters: K.
        mean_degree: 2 E / N.
        homophily: fraction of edges inside clusters.
        signal: length of a cluster centre in units of one feature's noise, times sqrt(D).
        seed: of numpy's generator.

    Returns:
        ``x`` float32 [N, D], ``y`` int64 [N]; about ``mean_degree N / 2`` undirected edges.
    """
    random = np.random.default_rng(seed)
    share = np.arange(1, clusters + 1) ** -0.8
    y = np.sort(random.choice(clusters, nodes, p=share / share.sum()))
    y[:clusters] = np.arange(clusters)
    y.sort()
    edges = round(nodes * mean_degree / 2)
    propensity = random.lognormal(0.0, 1.0, nodes)
    cumulative = np.concatenate([[0.0], propensity.cumsum()])
    bounds = np.searchsorted(y, np.arange(clusters + 1))
    source = np.searchsorted(cumulative, random.random(edges) * cumulative[-1], side="right") - 1
    inside = random.random(edges) < homophily
    low = np.where(inside, cumulative[bounds[y[source]]], 0.0)
    high = np.where(inside, cumulative[bounds[y[source] + 1]], cumulative[-1])
    drawn = low + random.random(edges) * (high - low)
    target = np.searchsorted(cumulative, drawn, side="right") - 1
    keep = source != target
    pairs = np.unique(np.sort(np.stack([source, target])[:, keep], axis=0), axis=1)
    shuffled = random.permutation(nodes)
    pairs = shuffled[pairs]
    labels = np.empty(nodes, dtype=np.int64)
    labels[shuffled] = y
    centers = random.standard_normal((clusters, features), dtype=np.float32) * signal
    x = random.standard_normal((nodes, features), dtype=np.float32)
    x += centers[labels]
    edge_index = np.concatenate([pairs, pairs[::-1]], axis=1)
    order = np.lexsort((edge_index[1], edge_index[0]))
    return Data(
        x=torch.as_tensor(x),
        edge_index=torch.as_tensor(edge_index[:, order]),
        y=torch.as_tensor(labels),
    )


def to_scipy(data: Data) -> sp.csr_array:
    """The adjacency of a graph as a scipy CSR matrix [N, N], self-loops removed."""
    source, target = data.edge_index.cpu().numpy()
    weight = getattr(data, "edge_weight", None)
    value = np.ones(len(source)) if weight is None else weight.cpu().numpy()
    keep = source != target
    size = (data.num_nodes, data.num_nodes)
    return sp.csr_array((value[keep], (source[keep], target[keep])), shape=size)
