"""The losses and the confident nodes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn.functional import normalize

ALPHA = 0.5  # weight of the negative loss in the paper


def confident_nodes(distances: Tensor, tau: float = 0.5) -> Tensor:
    """The high-confidence set: the ``tau`` N nodes nearest to their centres.

    .. math:: H = \\{ i : h_i < \\theta \\}, \\quad
              \\theta = \\mathrm{sorted}(h)_{\\lfloor \\tau N \\rfloor}

    The comparison is strict, over all clusters together, so a loose cluster may have no confident
    node, and H is empty when all distances are equal.

    Args:
        distances: h, float [N], squared distance of each node to its centre.
        tau: fraction in [0, 1]; the index is clamped to the last node.

    Returns:
        bool [N].
    """
    rank = min(int(len(distances) * tau), len(distances) - 1)
    return distances < distances.sort().values[rank]


def warm_up_loss(z1: Tensor, z2: Tensor) -> Tensor:
    """Mean squared error between ``Z1 Z2^T`` and the identity, without the N x N matrix.

    .. math:: \\frac{\\langle Z_1^T Z_1, Z_2^T Z_2 \\rangle_F
              - 2 \\sum_i \\langle z_{1i}, z_{2i} \\rangle + N}{N^2}

    O(N d^2) time and O(N d + d^2) memory. Only where N <= d is the
    N x N matrix the smaller one, and then it is taken.

    Args:
        z1: float [N, d].
        z2: float [N, d].
    """
    with torch.autocast(z1.device.type, enabled=False):  # the gradient needs one precision
        wide = torch.promote_types(z1.dtype, torch.float32)
        return _WarmUpLoss.apply(z1.to(wide), z2.to(wide))


def graph_regression_loss(z1: Tensor, z2: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """SCGC's loss, the mean squared error between ``Z1 Z2^T`` and ``A + I``, without N x N.

    .. math:: \\frac{\\langle Z_1^T Z_1, Z_2^T Z_2 \\rangle_F
              - 2 \\sum_{(i, j)} \\langle z_{1i}, z_{2j} \\rangle + E}{N^2}

    O(E d + N d^2) time.

    Args:
        z1: float [N, d].
        z2: float [N, d].
        source: int64 [E], rows of the ones of ``A + I``.
        target: int64 [E], their columns.
    """
    squares = (z1.T @ z1 * (z2.T @ z2)).sum()
    hits = sum(
        (z1[s] * z2[t]).sum()
        for s, t in zip(source.split(1 << 16), target.split(1 << 16), strict=True)
    )
    return (squares - 2 * hits + len(source)) / len(z1) ** 2


class _WarmUpLoss(torch.autograd.Function):
    """The closed form with its own gradient, ``2 (Z1 Z2^T Z2 - Z2) / N^2`` for view 1.

    Automatic differentiation of the two Gram matrices would take twice the products.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, z1: Tensor, z2: Tensor) -> Tensor:
        nodes = len(z1)
        if nodes <= z1.shape[1]:
            error = z1 @ z2.T
            error.diagonal().sub_(1)
            ctx.save_for_backward(z1, z2, error)
            return error.square().mean()
        gram1, gram2 = z1.T @ z1, z2.T @ z2
        ctx.save_for_backward(z1, z2, gram1, gram2)
        return ((gram1 * gram2).sum() - 2 * (z1 * z2).sum() + nodes) / nodes**2

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        z1, z2, *saved = ctx.saved_tensors  # type: ignore[attr-defined]
        scale = float(gradient) * 2 / len(z1) ** 2
        if len(saved) == 1:
            error = saved[0] * scale
            return error @ z2, error.T @ z1
        gram1, gram2 = saved
        return (
            torch.addmm(z2, z1, gram2, beta=-scale, alpha=scale),
            torch.addmm(z1, z2, gram1, beta=-scale, alpha=scale),
        )


def cluster_means(z: Tensor, labels: Tensor, n_clusters: int) -> Tensor:
    """Mean row of each cluster.

    Args:
        z: float [n, d].
        labels: int64 [n].
        n_clusters: K.

    Returns:
        float [K, d]; a cluster without rows has mean 0.
    """
    places = torch.arange(len(z), device=z.device)
    return averaging(labels, places, len(z), n_clusters, z.dtype) @ z


def averaging(
    labels: Tensor, places: Tensor, rows: int, n_clusters: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The matrix that takes the mean of the rows of each cluster.

    Args:
        labels: int64 [n].
        places: int64 [n], the row of each.
        rows: how many rows there are.
        n_clusters: K.
        dtype: of the result.

    Returns:
        float [K, rows]: ``averaging(...) @ z`` are the cluster means of the places in ``z``. The
        row of a cluster without a place is zero.
    """
    weight = torch.zeros(n_clusters, rows, dtype=dtype, device=labels.device)
    weight[labels, places] = 1.0
    return weight / weight.sum(1, keepdim=True).clamp(min=1)


def positive_loss_mean_field(means1: Tensor, means2: Tensor) -> Tensor:
    """Pulls the two views of a cluster together: the expectation over all cross-view pairs.

    .. math:: L_{pos} = \\frac{1}{K'} \\sum_k
              \\left( 2 - 2 \\langle \\bar z_{1k}, \\bar z_{2k} \\rangle \\right)

    Deterministic, and without pairs to draw.

    Args:
        means1: float [K', d], mean of Z1 over the confident nodes of each cluster.
        means2: float [K', d], likewise of Z2.
    """
    return (2 - 2 * (means1 * means2).sum(1)).mean()


def positive_loss_sampled(
    z1: Tensor,
    z2: Tensor,
    members: list[Tensor],
    n_clusters: int,
    sample: Callable[[int, int], Tensor],
    keep: float = 0.8,
) -> Tensor:
    """The official positive loss: a sum over random cross-view pairs of each cluster.

    .. math:: L_{pos} = \\frac{1}{K} \\sum_k \\sum_j
              \\left( 2 - 2 \\langle z_{1 R^1_j}, z_{2 R^2_j} \\rangle \\right)

    For each cluster two independent subsets of ``int(keep |H_k|)`` confident nodes are drawn
    without replacement and paired in random order; the sum is not a mean over pairs.

    Args:
        z1: float [N, d].
        z2: float [N, d].
        members: for each cluster used, its confident nodes, int64.
        n_clusters: K, the divisor.
        sample: ``sample(n, k)`` draws k distinct numbers below n in random order, int64 [k].
        keep: fraction of the confident nodes that is drawn.
    """
    first, second = [], []
    for nodes in members:
        size = int(keep * len(nodes))
        first.append(nodes[sample(len(nodes), size)])
        second.append(nodes[sample(len(nodes), size)])
    products = (z1[torch.cat(first)] * z2[torch.cat(second)]).sum(1)
    return (2 - 2 * products).sum() / n_clusters


def negative_loss(means1: Tensor, means2: Tensor) -> Tensor:
    """Pushes the centres of different clusters apart across the views.

    .. math:: L_{neg} = \\frac{1}{K'^2} \\sum_{k \\ne l} \\langle c_{1k}, c_{2l} \\rangle^2,
              \\quad c_{vk} = \\bar z_{vk} / \\lVert \\bar z_{vk} \\rVert

    The zeroed diagonal counts in the mean, as in the official code. Zero for K' = 1.

    Args:
        means1: float [K', d].
        means2: float [K', d].
    """
    similarity = normalize(means1) @ normalize(means2).T
    others = 1 - torch.eye(len(similarity), dtype=similarity.dtype, device=similarity.device)
    return (similarity * others).square().mean()
