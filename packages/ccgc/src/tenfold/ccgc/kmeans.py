"""k-means on torch: k-means++ and the official start, several starts at once, mini-batches.

Distances are expanded, ``|x|^2 - 2 x.c + |c|^2``, so that the work is one matrix product and memory
is O(N R K) for R starts: never N x N and never N x K x D. Blocks of rows bound it for large N.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor

from tenfold.shared.errors import InputError

Init = Literal["k-means++", "official"]

BLOCK_ELEMENTS = (
    1 << 24
)  # largest [rows, starts * K] distance block held at once (64 MiB in float32)


@dataclass(frozen=True)
class KMeansResult:
    """One k-means solution.

    Attributes:
        labels: int64 [N], cluster of each row.
        centers: float [K, D].
        distances: float [N], squared Euclidean distance of each row to its centre.
        inertia: sum of ``distances``.
        iterations: Lloyd iterations of the start that was kept.
        offsets: float [K], what is taken off the distances before the nearest centre is taken: 0
            but in :func:`balanced_kmeans`.
    """

    labels: Tensor
    centers: Tensor
    distances: Tensor
    inertia: float
    iterations: int
    offsets: Tensor


def squared_distances(x: Tensor, centers: Tensor) -> Tensor:
    """Squared Euclidean distances.

    Args:
        x: float [N, D].
        centers: float [K, D].

    Returns:
        float [N, K], clamped at 0 against rounding.
    """
    product = x @ centers.T
    return (product.mul_(-2) + x.square().sum(1, keepdim=True) + centers.square().sum(1)).clamp_(0)


def kmeans(
    x: Tensor,
    n_clusters: int,
    *,
    init: Init | Tensor = "k-means++",
    n_init: int = 10,
    max_iter: int = 300,
    tol: float = 1e-4,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> KMeansResult:
    """Clusters the rows of ``x`` by Lloyd's algorithm and keeps the start of least inertia.

    All starts advance together as one matrix product. A cluster that loses its last row is
    re-seeded with the row farthest from its own centre, so no centre is ever undefined.

    Args:
        x: float [N, D], finite.
        n_clusters: K, at most the number of distinct rows.
        init: ``"k-means++"`` (greedy, D^2 sampling), ``"official"`` (the random start of the CCGC
            code, see :func:`official_centers`), or centres [K, D] or [R, K, D] to begin from.
        n_init: number of starts R; ignored when centres are given.
        max_iter: largest number of iterations.
        tol: a start has converged when its centres move by less than ``tol`` times the mean
            variance of the columns (sum of squares), as in scikit-learn.
        batch_size: when given, each iteration takes this many random rows (mini-batch k-means,
            Sculley 2010) instead of all of them; the labels are still of all rows.
        generator: source of randomness, on the device of ``x``; default: torch's own.

    Raises:
        InputError: K < 1, K > N, K > number of distinct rows, or values that are not finite.
    """
    _validate(x, n_clusters)
    if isinstance(init, Tensor):
        centers = init.to(x) if init.dim() == 3 else init.to(x).unsqueeze(0)
        if centers.shape[1:] != (n_clusters, x.shape[1]):
            raise InputError(
                f"init has shape {tuple(init.shape)}; expected ([R,] {n_clusters}, {x.shape[1]})"
            )
        centers = centers.clone()
    elif init == "official":
        draws = [official_centers(x, n_clusters, _index_sampler(generator)) for _ in range(n_init)]
        centers = torch.stack(draws)
    else:
        pool = _subset(x, 20 * 1024, generator)
        centers = plus_plus_centers(pool, n_clusters, n_init, generator)
    if batch_size is not None and batch_size < x.shape[0]:
        centers, iterations = _mini_batch(x, centers, batch_size, max_iter, generator)
    else:
        centers, iterations = _lloyd(
            x, centers, max_iter, tol * float(x.var(0, correction=0).mean())
        )
    inertia = torch.zeros(len(centers), dtype=torch.float64, device=x.device)
    for block in _blocks(x, centers):
        inertia += _nearest(block, centers)[1].sum(0, dtype=torch.float64)
    best = int(inertia.argmin())
    labels, distances = assign(x, centers[best])
    return KMeansResult(
        labels,
        centers[best],
        distances,
        float(inertia[best]),
        int(iterations[best]),
        centers.new_zeros(n_clusters),
    )


class KMeans:
    """:func:`kmeans` as an estimator on tensors, on any device.

    Args:
        n_clusters: K.
        seed: of the starts.
        **options: ``init``, ``n_init``, ``max_iter``, ``tol``, ``batch_size`` of :func:`kmeans`.

    Attributes:
        labels_: int64 [N].
        cluster_centers_: float [K, D].
        inertia_: sum of the squared distances to the own centre.
        n_iter_: Lloyd iterations of the start that was kept.
    """

    labels_: Tensor
    cluster_centers_: Tensor
    inertia_: float
    n_iter_: int

    def __init__(self, n_clusters: int, *, seed: int = 0, **options: Any) -> None:
        self.n_clusters, self.seed, self.options = n_clusters, seed, options

    def fit(self, x: Tensor) -> Self:
        """Clusters the rows of ``x``, float [N, D]."""
        generator = torch.Generator(device=x.device).manual_seed(self.seed)
        found = kmeans(x, self.n_clusters, generator=generator, **self.options)
        self.labels_, self.cluster_centers_ = found.labels, found.centers
        self.inertia_, self.n_iter_ = found.inertia, found.iterations
        return self

    def fit_predict(self, x: Tensor) -> Tensor:
        """:meth:`fit`, and the labels int64 [N]."""
        return self.fit(x).labels_

    def predict(self, x: Tensor) -> Tensor:
        """Nearest centre of each row of ``x``, int64 [M]."""
        return assign(x, self.cluster_centers_)[0]


def official_kmeans(
    x: Tensor, n_clusters: int, sample: Callable[[int, int], Tensor]
) -> tuple[Tensor, Tensor]:
    """k-means exactly as the official CCGC code runs it.

    One start (:func:`official_centers`); Lloyd iterations until the squared sum of the centres'
    shifts is below 1e-4, at most 501; labels and distances are those of the last assignment, before
    the last update of the centres. One departure: a cluster that becomes empty keeps its centre,
    where the official code turns it, and with it the rest of the run, into NaN.

    Args:
        x: float [N, D].
        n_clusters: K.
        sample: see :func:`official_centers`.

    Returns:
        labels int64 [N] and squared distances float [N] to the nearest centre.
    """
    centers = official_centers(x, n_clusters, sample)
    for _ in range(501):
        distances, labels = squared_distances(x, centers).min(1)
        sums, counts = _sums(x, labels[:, None], n_clusters)
        updated = torch.where(
            counts[0, :, None] > 0, sums[0] / counts[0, :, None].clamp(min=1), centers
        )
        shift = float((updated - centers).square().sum(1).sqrt().sum())
        centers = updated
        if shift**2 < 1e-4:
            break
    return labels, distances


def balanced_kmeans(
    x: Tensor, centers: Tensor, temperature: float = 0.35, max_iter: int = 30
) -> KMeansResult:
    """Lloyd iterations whose assignment draws every cluster towards N / K rows.

    Each iteration finds one offset a cluster such that the soft assignment
    ``softmax((offset - distance) / s)`` gives all clusters the same mass (Sinkhorn scaling of an
    entropic transport plan), and assigns each row to the largest ``offset - distance``. The
    temperature s is ``temperature`` times the mean distance to the nearest centre, so sizes are
    drawn together without being forced to be equal.

    Args:
        x: float [N, D].
        centers: float [K, D], where to begin.
        temperature: softness; towards 0 the sizes become equal.
        max_iter: largest number of iterations.

    Returns:
        ``distances`` are plain squared distances to the own centre.
    """
    k, tol = len(centers), 1e-6 * float(x.var(0, correction=0).sum())
    iteration = 0
    while iteration < max_iter:
        iteration += 1
        distance = squared_distances(x, centers)
        labels = (distance - _balancing_offsets(distance, temperature)).argmin(1)
        sums, counts = _sums(x, labels[:, None], k)
        means = sums[0] / counts[0].clamp(min=1)[:, None]
        updated = torch.where(counts[0, :, None] > 0, means, centers)
        shift = float((updated - centers).square().sum())
        centers = updated
        if shift <= tol:
            break
    distance = squared_distances(x, centers)
    offsets = _balancing_offsets(distance, temperature)
    labels = (distance - offsets).argmin(1)
    own = distance.gather(1, labels[:, None])[:, 0]
    inertia = float(own.sum(dtype=torch.float64))
    return KMeansResult(labels, centers, own, inertia, iteration, offsets)


def _balancing_offsets(distance: Tensor, temperature: float) -> Tensor:
    """Thirty rounds of Sinkhorn scaling, as products of the kernel with its two scalings.

    Each round divides the factor ``u_k = exp(offset_k / s)`` of a cluster by K times its mass. The
    nearest distance of a row cancels in its softmax; without it no kernel row vanishes.
    """
    nearest = distance.min(1, keepdim=True).values
    scale = temperature * float(nearest.mean()) + 1e-12
    kernel = ((nearest - distance) / scale).double().exp()
    rows, k = kernel.shape
    u = kernel.new_ones(k)
    for _ in range(30):
        mass = u * (kernel.T @ (kernel @ u).reciprocal())  # [K], sums to N
        u = u / (mass * (k / rows)).clamp(min=1e-9)
    return (scale * u.log()).to(distance.dtype)


def assign(x: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest centre of each row.

    Args:
        x: float [N, D].
        centers: float [K, D].

    Returns:
        labels int64 [N] and squared distances float [N].
    """
    parts = [_nearest(block, centers.unsqueeze(0)) for block in _blocks(x, centers.unsqueeze(0))]
    return torch.cat([p[0][:, 0] for p in parts]), torch.cat([p[1][:, 0] for p in parts])


def plus_plus_centers(
    x: Tensor, n_clusters: int, n_init: int, generator: torch.Generator | None = None
) -> Tensor:
    """Greedy k-means++ starts (Arthur & Vassilvitskii 2007), all starts side by side.

    Each new centre is the best of ``2 + log K`` candidates drawn with probability proportional to
    the squared distance to the centres chosen so far.

    Args:
        x: float [N, D].
        n_clusters: K.
        n_init: R.
        generator: source of randomness.

    Returns:
        float [R, K, D].
    """
    n = x.shape[0]
    candidates = 2 + int(torch.tensor(float(n_clusters)).log())
    square = x.square().sum(1)
    first = torch.randint(n, (n_init,), generator=generator, device=x.device)
    chosen = [first]
    nearest = (square[:, None] + square[first] - 2 * x @ x[first].T).clamp_(0)  # [N, R]
    for _ in range(1, n_clusters):
        weights = nearest.T.clone()  # [R, N]
        weights[weights.sum(1) <= 0] = 1.0  # every row coincides with a centre: any row will do
        picks = torch.multinomial(weights, candidates, replacement=True, generator=generator)
        flat = picks.flatten()
        distance = (square[:, None] + square[flat] - 2 * x @ x[flat].T).clamp_(0)
        distance = torch.minimum(distance.view(n, n_init, candidates), nearest[:, :, None])
        best = distance.sum(0).argmin(1)  # [R]
        rows = torch.arange(n_init, device=x.device)
        nearest = distance[:, rows, best]
        chosen.append(picks[rows, best])
    return x[torch.stack(chosen, 1)]


def official_centers(
    x: Tensor, n_clusters: int, sample: Callable[[int, int], Tensor], draws: int = 20
) -> Tensor:
    """The start of the official CCGC code.

    Of ``draws`` random sets of K distinct rows, the one with the smallest total distance from
    **all** rows to **all** K centres is kept, which favours centres near the mean of the data.

    Args:
        x: float [N, D].
        n_clusters: K.
        sample: ``sample(n, k)`` gives k distinct row numbers below n, int64 [k].
        draws: number of sets drawn.

    Returns:
        float [K, D].
    """
    best, best_total = None, float("inf")
    for _ in range(draws):
        centers = x[sample(x.shape[0], n_clusters)]
        total = float(squared_distances(x, centers).sum())
        if best is None or total < best_total:
            best, best_total = centers, total
    assert best is not None
    return best


def _validate(x: Tensor, n_clusters: int) -> None:
    if x.dim() != 2:
        raise InputError(f"x has shape {tuple(x.shape)}; expected [nodes, features]")
    if not 1 <= n_clusters <= x.shape[0]:
        raise InputError(
            f"n_clusters={n_clusters} for {x.shape[0]} rows; expected 1 <= n_clusters <= rows"
        )
    if not torch.isfinite(x.sum()) and not bool(torch.isfinite(x).all()):
        raise InputError("x holds NaN or infinite values; expected finite numbers")
    head = x[: 4 * n_clusters]
    if len(torch.unique(head, dim=0)) < n_clusters:
        distinct = len(torch.unique(x, dim=0))
        if distinct < n_clusters:
            raise InputError(f"n_clusters={n_clusters} but x has only {distinct} distinct rows")


def _subset(x: Tensor, size: int, generator: torch.Generator | None) -> Tensor:
    if x.shape[0] <= size:
        return x
    return x[torch.randperm(x.shape[0], generator=generator, device=x.device)[:size]]


def _index_sampler(generator: torch.Generator | None) -> Callable[[int, int], Tensor]:
    def sample(n: int, k: int) -> Tensor:
        device = generator.device if generator is not None else None
        return torch.randperm(n, generator=generator, device=device)[:k]

    return sample


def _blocks(x: Tensor, centers: Tensor) -> Iterator[Tensor]:
    """Row blocks of ``x`` whose distances to ``centers`` [R, K, D] fit BLOCK_ELEMENTS."""
    return iter(x.split(max(1, BLOCK_ELEMENTS // (centers.shape[0] * centers.shape[1]))))


def _nearest(x: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Labels int64 [N, R] and squared distances [N, R] to the nearest of centers [R, K, D]."""
    starts, k, _ = centers.shape
    flat = centers.flatten(0, 1)
    shifted = torch.addmm(flat.square().sum(1), x, flat.T, alpha=-2).view(-1, starts, k)
    value, labels = shifted.min(2)
    return labels, (value + x.square().sum(1, keepdim=True)).clamp_(0)


def _sums(x: Tensor, labels: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Sums [R, K, D] and counts [R, K] of the rows of each cluster; labels [N, R]."""
    starts = labels.shape[1]
    slot = labels + torch.arange(starts, device=x.device) * k
    one_hot = torch.zeros(x.shape[0], starts * k, dtype=x.dtype, device=x.device)
    one_hot.scatter_(1, slot, 1.0)
    return (one_hot.T @ x).view(starts, k, -1), one_hot.sum(0).view(starts, k)


def _lloyd(x: Tensor, centers: Tensor, max_iter: int, tol: float) -> tuple[Tensor, Tensor]:
    starts, k, _ = centers.shape
    iterations = torch.zeros(starts, dtype=torch.int64)
    active = torch.arange(starts, device=x.device)
    for _ in range(max_iter):
        current = centers[active]
        sums = torch.zeros_like(current)
        counts = torch.zeros(current.shape[:2], dtype=x.dtype, device=x.device)
        distances = []
        for block in _blocks(x, current):
            labels, distance = _nearest(block, current)
            block_sums, block_counts = _sums(block, labels, k)
            sums += block_sums
            counts += block_counts
            distances.append(distance)
        updated = sums / counts.clamp(min=1).unsqueeze(2)
        if bool((counts == 0).any()):
            far = torch.cat(distances)  # [N, R]
            for start in (counts == 0).any(1).nonzero()[:, 0].tolist():
                empty = (counts[start] == 0).nonzero()[:, 0]
                updated[start, empty] = x[far[:, start].topk(len(empty)).indices]
        shift = (updated - current).square().sum((1, 2))
        centers[active] = updated
        iterations[active.cpu()] += 1
        active = active[shift > tol]
        if len(active) == 0:
            break
    return centers, iterations


def _mini_batch(
    x: Tensor, centers: Tensor, batch_size: int, max_iter: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    starts, k, _ = centers.shape
    seen = torch.zeros(starts, k, dtype=x.dtype, device=x.device)
    for _ in range(max_iter):
        rows = torch.randint(x.shape[0], (batch_size,), generator=generator, device=x.device)
        batch = x[rows]
        labels, distance = _nearest(batch, centers)
        sums, counts = _sums(batch, labels, k)
        seen += counts
        rate = (counts / seen.clamp(min=1)).unsqueeze(2)
        centers = centers + rate * (sums / counts.clamp(min=1).unsqueeze(2) - centers)
        for start, cluster in (seen == 0).nonzero().tolist():
            centers[start, cluster] = batch[int(distance[:, start].argmax())]
            distance[distance[:, start].argmax(), start] = 0
    return centers, torch.full((starts,), max_iter)
