"""Where clusters are looked for, and how one clustering is preferred to another without labels.

This module is this package's own contribution, not the paper's. It replaces the choice of the best
epoch by the true labels in the default protocol.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import chain

import torch
from scipy.linalg import eigh
from torch import Tensor
from torch.nn.functional import normalize

from tenfold.ccgc.kmeans import KMeansResult, balanced_kmeans, kmeans
from tenfold.ccgc.objective import cluster_means

MODULAR = 0.3  # modularity from which a graph has communities (Newman & Girvan 2004)
MINI_BATCH_FROM = 200_000  # rows from which k-means takes mini-batches


@dataclass(frozen=True)
class Quality:
    """How good a clustering looks without labels; each part is about 1 at its best.

    Attributes:
        information: mutual information of the two clusters that an edge joins, against the cluster
            sizes, over log K: the profile likelihood of a stochastic block model. It rewards
            clusters that say something about the edges, communities and roles alike.
        balance: entropy of the cluster sizes over log K.
        compactness: share of the embedding's variance that lies between the clusters.
    """

    information: float
    balance: float
    compactness: float

    @property
    def score(self) -> float:
        """``information + 2 balance + compactness``; larger is better."""
        return self.information + 2 * self.balance + self.compactness

    def as_dict(self) -> dict[str, float]:
        """The parts and the score, for logs."""
        return {**asdict(self), "score": self.score}


class BlockGraph:
    """The edges, ready to judge many clusterings.

    Args:
        edge_index: int64 [2, E], both directions.
        edge_weight: optional [E].
    """

    def __init__(self, edge_index: Tensor, edge_weight: Tensor | None = None) -> None:
        keep = edge_index[0] != edge_index[1]
        self.source, self.target = edge_index[0][keep], edge_index[1][keep]
        weight = torch.ones(len(keep), device=keep.device) if edge_weight is None else edge_weight
        self.weight = weight[keep].double()

    def information(self, labels: Tensor, n_clusters: int) -> float:
        """Mutual information (nats) of a random edge's clusters against two random nodes'.

        .. math:: I = \\sum_{kl} p_{kl} \\log \\frac{p_{kl}}{q_k q_l}

        with ``p`` the share of edges between clusters k and l, and ``q`` the share of nodes.

        Args:
            labels: int64 [N].
            n_clusters: K.
        """
        blocks = self._blocks(labels, n_clusters)
        total = blocks.sum()
        if total == 0:
            return 0.0
        share = labels.bincount(minlength=n_clusters).double() / len(labels)
        expected = torch.outer(share, share).flatten()
        present = blocks > 0
        edges = blocks[present] / total
        return float((edges * (edges / expected[present]).log()).sum())

    def modularity(self, labels: Tensor, n_clusters: int) -> float:
        """Newman's modularity of a clustering of all nodes.

        Args:
            labels: int64 [N].
            n_clusters: K.
        """
        blocks = self._blocks(labels, n_clusters).view(n_clusters, n_clusters)
        total = blocks.sum()
        if total == 0:
            return 0.0
        degree = blocks.sum(1) / total
        return float(blocks.trace() / total - degree.square().sum())

    def quality(self, labels: Tensor, n_clusters: int, compactness: float) -> Quality:
        """Judges a clustering of all nodes; K = 1 has no information and no balance."""
        if n_clusters < 2:
            return Quality(0.0, 0.0, compactness)
        share = labels.bincount(minlength=n_clusters).double() / len(labels)
        entropy = float(-torch.xlogy(share, share).sum())
        scale = math.log(n_clusters)
        return Quality(self.information(labels, n_clusters) / scale, entropy / scale, compactness)

    def _blocks(self, labels: Tensor, n_clusters: int) -> Tensor:
        """Edge weight between clusters, [K * K]."""
        blocks = torch.zeros(n_clusters**2, dtype=torch.float64, device=labels.device)
        code = labels[self.source] * n_clusters + labels[self.target]
        return blocks.index_add_(0, code, self.weight)


@dataclass(frozen=True)
class ClusterSpace:
    """The plane in which k-means runs: the m leading directions of the embedding.

    After the warm-up the embedding is nearly white, and k-means on all its d directions follows
    noise. Its leading singular directions hold the clusters: m = K of them in the narrow space, 2 K
    in the wide one. Each is scaled by the square root of its singular value, half-way between the
    embedding as it is and a whitened one, and rows are normalised, so that direction alone counts:

    .. math:: Z = U \\Sigma V^T, \\quad
              \\mathrm{rows} = \\mathrm{rownorm}(U_m \\Sigma_m^{1/2})

    Attributes:
        basis: float [d, m]; the rows are ``rownorm(Z basis)``.
    """

    basis: Tensor

    @staticmethod
    def fit(blocks: Iterable[Tensor], directions: int) -> ClusterSpace:
        """From the embedding in blocks of rows [n, d]: O(N d^2) time, O(d^2) memory."""
        blocks = iter(blocks)
        first = next(blocks)
        second = next(blocks, None)
        if second is None and len(first) < first.shape[1]:  # few nodes: the smaller Gram matrix
            squares, left = _leading(first @ first.T, directions)
            floor = 1e-12 * float(squares[-1])
            vectors = first.double().T @ left * squares.clamp(min=floor).rsqrt()
        else:
            gram = first.T @ first
            for block in chain([] if second is None else [second], blocks):
                gram.add_(block.T @ block)
            squares, vectors = _leading(gram, directions)
        scale = squares.clamp(min=1e-12 * float(squares[-1])).pow(-0.25)
        return ClusterSpace((vectors * scale).to(first.dtype).contiguous())

    def project(self, z: Tensor) -> Tensor:
        """Rows of an embedding [N, d] as unit rows [N, m]."""
        return normalize(z @ self.basis)


def _leading(gram: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues of a symmetric matrix, rising, and their vectors, in float64."""
    gram = gram.double()
    size = len(gram)
    count = min(count, size)
    if gram.device.type != "cpu":
        values, vectors = torch.linalg.eigh(gram)
        return values[-count:], vectors[:, -count:]
    # LAPACK finds a few eigenvectors several times as fast as all of them.
    values, vectors = eigh(gram.numpy(), subset_by_index=[size - count, size - 1])
    return torch.from_numpy(values), torch.from_numpy(vectors)


def explained(rows: Tensor, labels: Tensor, n_clusters: int) -> float:
    """Share of the variance of rows that lies between the clusters.

    Args:
        rows: float [N, m].
        labels: int64 [N].
        n_clusters: K.
    """
    means = cluster_means(rows, labels, n_clusters)
    total = float((rows - rows.mean(0)).square().sum())
    return 1 - float((rows - means[labels]).square().sum()) / total if total > 0 else 1.0


def cluster(
    rows: Tensor,
    n_clusters: int,
    n_init: int,
    generator: torch.Generator | None,
    previous: Tensor | None = None,
    balanced: bool = False,
) -> tuple[KMeansResult, float]:
    """k-means in the cluster space, from several new starts and from the previous labels.

    Args:
        rows: float [N, m], from :meth:`ClusterSpace.project`.
        n_clusters: K.
        n_init: number of new k-means++ starts.
        generator: source of randomness.
        previous: int64 [N], the labels before, one more start.
        balanced: ends with :func:`~tenfold.ccgc.kmeans.balanced_kmeans`.

    Returns:
        The result of least inertia, and its compactness (1 - inertia / total variance).
    """
    batch = 16_384 if len(rows) >= MINI_BATCH_FROM else None
    best = kmeans(
        rows,
        n_clusters,
        n_init=n_init,
        tol=1e-3,
        max_iter=100,
        batch_size=batch,
        generator=generator,
    )
    if previous is not None:
        means = cluster_means(rows, previous, n_clusters)
        kept = kmeans(rows, n_clusters, init=means, tol=1e-3, max_iter=100, batch_size=batch)
        if kept.inertia < best.inertia:
            best = kept
    if balanced:
        best = balanced_kmeans(rows, best.centers)
    total = float((rows - rows.mean(0)).square().sum())
    return best, 1 - best.inertia / total if total > 0 else 1.0
