"""Generated graphs with a bias of known size."""

from __future__ import annotations

import numpy as np
from torch_geometric.data import Data

from tenfold.reliant.data.graph import fair_graph
from tenfold.reliant.data.splits import class_wise_split
from tenfold.shared.errors import InputError


def biased_graph(
    nodes: int = 2000,
    attributes: int = 16,
    label_gap: float = 0.2,
    label_homophily: float = 0.75,
    group_homophily: float = 0.8,
    mean_degree: float = 6.0,
    signal: float = 2.0,
    leak: float = 2.0,
    seed: int = 0,
) -> Data:
    """A stochastic block model of two classes and two groups, with a label gap of known size.

    Half of the nodes are in group 1. ``P(y=1 | s=1) = (1 + label_gap) / 2`` and ``P(y=1 | s=0) =
    (1 - label_gap) / 2``. Each edge has a random first end; its second end has the same class with
    probability ``label_homophily``, the same group with probability ``group_homophily``, both
    independently, and is a random node of that block. Attributes are standard normal, plus
    ``signal`` along one random direction for class 1 and ``leak`` along another for group 1, so
    that a model can read the group from them although it is not among them.

    Args:
        nodes: N, at least 100.
        attributes: d, at least 2.
        label_gap: difference of the groups' rates of class 1, in [0, 1).
        label_homophily: share of edges within a class, in [0, 1].
        group_homophily: share of edges within a group, in [0, 1].
        mean_degree: expected number of neighbours.
        signal: distance of the classes' means.
        leak: distance of the groups' means.
        seed: of everything.

    Returns:
        A graph as from :func:`~tenfold.reliant.data.graph.fair_graph`, split class-wise 30/20/50.
    """
    if nodes < 100 or attributes < 2 or mean_degree <= 0:
        raise InputError(
            f"nodes={nodes}, attributes={attributes}, mean_degree={mean_degree}; expected at "
            "least 100, at least 2, and more than 0"
        )
    for name, value in (("label_homophily", label_homophily), ("group_homophily", group_homophily)):
        if not 0 <= value <= 1:
            raise InputError(f"{name}={value}; expected 0 to 1")
    if not 0 <= label_gap < 1:
        raise InputError(f"label_gap={label_gap}; expected 0 up to below 1")
    rng = np.random.default_rng(seed)
    s = rng.permutation(np.arange(nodes) % 2)
    y = (rng.random(nodes) < (1 + np.where(s == 1, label_gap, -label_gap)) / 2).astype(np.int64)
    count = round(nodes * mean_degree / 2)
    source = rng.integers(nodes, size=count)
    label = np.where(rng.random(count) < label_homophily, y[source], 1 - y[source])
    group = np.where(rng.random(count) < group_homophily, s[source], 1 - s[source])
    block = 2 * y + s
    order = np.argsort(block, kind="stable")
    sizes = np.bincount(block, minlength=4)
    wanted = 2 * label + group
    place = (rng.random(count) * sizes[wanted]).astype(np.int64)
    target = order[(np.cumsum(sizes) - sizes)[wanted] + place]
    directions, _ = np.linalg.qr(rng.standard_normal((attributes, 2)))
    shift = signal * y[:, None] * directions[:, 0] + leak * s[:, None] * directions[:, 1]
    x = rng.standard_normal((nodes, attributes)) + shift
    edges = np.stack([source, target])
    return fair_graph(x, edges, y, s, class_wise_split(y, 0.3, 0.5, seed=seed))
