"""Weighted k-means of many small point sets at once.

Each start runs Lloyd's steps to their end and then leaves shallow optima by two exact moves: a
centre that is put down elsewhere (Lattanzi and Sohler's swap, ICML 2019) and a single point that
changes its cluster (Hartigan's step). With them two starts reach lower inertia than ten starts of
Lloyd alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tenfold.shared.errors import InputError

_SETS_AT_ONCE = 1024  # so many sets' distances stay in the processor's cache
_SWAP_CANDIDATES = 6  # the costliest points are tried as new centres
_MOVES = 30  # single points moved in one set, at most
_GAIN = 1e-9  # relative; rounding must not decide between equal partitions

State = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Assignment [s, N], centres [s, K, F], mass [s, K], inertia [s]."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """K weighted clusters of each of S sets of N points."""

    assignment: np.ndarray
    """int64 [S, N]."""
    centers: np.ndarray
    """float64 [S, K, F]; the weighted centroids."""
    weights: np.ndarray
    """float64 [S, K]: the members' weights, summed; 0 for a cluster without members."""
    inertia: np.ndarray
    """float64 [S]: sum of weight times squared distance."""


def weighted_kmeans(
    points: np.ndarray,
    weights: np.ndarray,
    k: int,
    n_init: int = 2,
    iterations: int = 100,
    seed: int = 0,
) -> Clusters:
    """Clusters many small weighted point sets at once.

    The order of the points makes no difference: they are first brought into an order of their own
    (weight, then coordinates). Points of weight 0 are assigned and move nothing.

    Args:
        points: float [S, N, F].
        weights: float [S, N], >= 0, of positive sum.
        k: Clusters of each set.
        n_init: Starts; the first is deterministic, the others are k-means++.
        iterations: Lloyd steps at most.
        seed: Seed of the k-means++ starts.

    Raises:
        InputError: If shapes do not fit or weights are not as above.
    """
    x, w = np.asarray(points, np.float64), np.asarray(weights, np.float64)
    if x.ndim != 3 or w.shape != x.shape[:2]:
        raise InputError(f"points {x.shape}, weights {w.shape}; expected [S, N, F] and [S, N]")
    if not ((w >= 0).all() and (w.sum(axis=1) > 0).all()):
        raise InputError("weights must be >= 0 and not all zero in a set")
    sets, count, width = x.shape
    order = np.lexsort((*np.moveaxis(x, 2, 0)[::-1], -w), axis=-1)
    x = np.take_along_axis(x, order[..., None], axis=1)
    w = np.take_along_axis(w, order, axis=1)
    middle = (w[..., None] * x).sum(axis=1, keepdims=True) / w.sum(axis=1)[:, None, None]
    draws = np.random.default_rng(seed).random((max(n_init - 1, 0), k))
    assignment = np.empty((sets, count), np.int64)
    centers, mass, inertia = np.empty((sets, k, width)), np.empty((sets, k)), np.empty(sets)
    for first in range(0, sets, _SETS_AT_ONCE):
        rows = slice(first, first + _SETS_AT_ONCE)
        found = _cluster(x[rows] - middle[rows], w[rows], k, draws, iterations)
        assignment[rows], centers[rows], mass[rows], inertia[rows] = found
    back = np.empty_like(assignment)
    np.put_along_axis(back, order, assignment, axis=1)
    return Clusters(back, centers + middle, mass, inertia)


def _cluster(x: np.ndarray, w: np.ndarray, k: int, draws: np.ndarray, iterations: int) -> State:
    """Clusters some sets: all starts, the best one of each set."""
    columns = [np.ascontiguousarray(x[..., f]) for f in range(x.shape[2])]
    best: State | None = None
    for start in (None, *draws):
        found = _lloyd(columns, w, _start(columns, w, k, start), iterations)
        _swap(columns, w, found, iterations)
        _move(columns, w, found)
        if best is None:
            best = found
            continue
        better = found[3] < best[3] * (1 - _GAIN)
        for old, new in zip(best, found, strict=True):
            old[better] = new[better]
    assert best is not None
    return best


def _start(columns: list[np.ndarray], w: np.ndarray, k: int, draw: np.ndarray | None) -> np.ndarray:
    """Chooses K points as centres, [s, K, F]: the farthest ones, or k-means++ with given
    numbers."""
    sets = np.arange(len(w))
    centers = np.empty((len(w), k, len(columns)))
    nearest = np.full(w.shape, np.inf)
    for index in range(k):
        value = w if index == 0 else w * nearest
        if draw is None:
            chosen = value.argmax(axis=1)
        else:
            total = value.cumsum(axis=1)
            chosen = (total < draw[index] * total[:, -1:]).sum(axis=1).clip(max=w.shape[1] - 1)
        distance = np.zeros(w.shape)
        for f, column in enumerate(columns):
            centers[:, index, f] = column[sets, chosen]
            distance += np.square(column - centers[:, index, f, None])
        np.minimum(nearest, distance, out=nearest)
    return centers


def _lloyd(columns: list[np.ndarray], w: np.ndarray, centers: np.ndarray, iterations: int) -> State:
    """Runs Lloyd's steps until no set changes; sets that are done are left out."""
    sets, count = w.shape
    k = centers.shape[1]
    assignment = np.full((sets, count), -1, np.int64)
    mass, inertia = np.zeros((sets, k)), np.zeros(sets)
    open_sets = np.arange(sets)
    for _ in range(iterations):
        part = [column[open_sets] for column in columns]
        weight, center = w[open_sets], centers[open_sets]
        nearest, label = _nearest(part, center)
        inertia[open_sets] = (weight * nearest).sum(axis=1)
        changed = (label != assignment[open_sets]).any(axis=1)
        assignment[open_sets] = label
        if not changed.any():
            break
        cells = (label + k * np.arange(len(label))[:, None]).ravel()
        flat = weight.ravel()
        total = np.bincount(cells, flat, len(label) * k).reshape(-1, k)
        safe = np.where(total > 0, total, 1.0)
        moved = np.stack(
            [
                np.bincount(cells, flat * p.ravel(), len(label) * k).reshape(-1, k) / safe
                for p in part
            ],
            axis=-1,
        )
        empty = total <= 0
        if empty.any():
            _refill(part, weight * nearest, moved, empty)
        mass[open_sets], centers[open_sets] = total, moved
        open_sets = open_sets[changed]
    else:  # the last centres moved after the last assignment: measure against them
        nearest, _ = _nearest(columns, centers)
        inertia = (w * nearest).sum(axis=1)
    return assignment, centers, mass, inertia


def _nearest(columns: list[np.ndarray], centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gives the squared distance to the nearest centre, and which one it is (ties: the first)."""
    nearest = np.full(columns[0].shape, np.inf)
    label = np.zeros(columns[0].shape, np.int64)
    for index in range(centers.shape[1]):
        distance = _distance(columns, centers[:, index])
        closer = distance < nearest
        label[closer] = index
        np.minimum(nearest, distance, out=nearest)
    return nearest, label


def _refill(
    columns: list[np.ndarray], cost: np.ndarray, centers: np.ndarray, empty: np.ndarray
) -> None:
    """Moves the centre of each empty cluster to the costliest point, in place."""
    rows = np.flatnonzero(empty.any(axis=1))
    cost = cost[rows].copy()
    for index in range(empty.shape[1]):
        lacking = empty[rows, index]
        chosen = cost.argmax(axis=1)
        for f, column in enumerate(columns):
            value = column[rows, chosen]
            centers[rows, index, f] = np.where(lacking, value, centers[rows, index, f])
        cost[np.flatnonzero(lacking), chosen[lacking]] = -1.0


def _swap(columns: list[np.ndarray], w: np.ndarray, state: State, iterations: int) -> None:
    """Puts a centre down at a costly point and goes on from there, while that helps; in place.

    For each candidate point and each centre that could be given up, the cost after the swap is
    exact: a point keeps its centre, goes to the new one, or, if its own is given up, to its second
        nearest.
    """
    centers, inertia = state[1], state[3]
    k = centers.shape[1]
    candidates = min(_SWAP_CANDIDATES, w.shape[1])
    open_sets = np.arange(len(w))
    while len(open_sets):
        part, weight = [column[open_sets] for column in columns], w[open_sets]
        moved = centers[open_sets]
        first, second, label = _two_nearest(part, moved)
        costly = np.argsort(-(weight * first), axis=1, kind="stable")[:, :candidates]
        rows = np.arange(len(open_sets))
        cells = (label + k * rows[:, None]).ravel()
        best = np.full(len(open_sets), np.inf)
        place, given_up = np.zeros(len(open_sets), np.int64), np.zeros(len(open_sets), np.int64)
        for candidate in costly.T:
            gap = np.square(part[0] - part[0][rows, candidate, None])
            for column in part[1:]:
                gap += np.square(column - column[rows, candidate, None])
            kept = np.minimum(gap, first)
            loss = weight * (np.minimum(gap, second) - kept)
            extra = np.bincount(cells, loss.ravel(), len(rows) * k).reshape(-1, k)
            cheapest = extra.argmin(axis=1)
            cost = (weight * kept).sum(axis=1) + extra[rows, cheapest]
            better = cost < best
            best[better], place[better] = cost[better], candidate[better]
            given_up[better] = cheapest[better]
        for f, column in enumerate(part):
            moved[rows, given_up, f] = column[rows, place]
        found = _lloyd(part, weight, moved, iterations)
        better = found[3] < inertia[open_sets] * (1 - _GAIN)
        open_sets = open_sets[better]
        for old, new in zip(state, found, strict=True):
            old[open_sets] = new[better]


def _two_nearest(
    columns: list[np.ndarray], centers: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gives the squared distances to the nearest and second nearest centre, and the nearest one."""
    first = np.full(columns[0].shape, np.inf)
    second = first.copy()
    label = np.zeros(first.shape, np.int64)
    for index in range(centers.shape[1]):
        distance = _distance(columns, centers[:, index])
        label[distance < first] = index
        np.minimum(second, np.maximum(distance, first), out=second)
        np.minimum(first, distance, out=first)
    return first, second, label


def _move(columns: list[np.ndarray], w: np.ndarray, state: State) -> None:
    """Moves the one point of each set that gains most to another cluster, while any gains; in
    place.

    Taking a point of weight w from a cluster of mass A saves ``w A / (A - w)`` times its squared
    distance; adding it to one of mass B costs ``w B / (B + w)`` times (Hartigan).
    """
    assignment, centers, mass, inertia = state
    open_sets = np.arange(len(w))
    for _ in range(_MOVES):
        part, weight = [column[open_sets] for column in columns], w[open_sets]
        label, total = assignment[open_sets], mass[open_sets]
        saved = np.zeros(weight.shape)
        cost = np.full(weight.shape, np.inf)
        target = np.zeros(weight.shape, np.int64)
        for index in range(centers.shape[1]):
            distance = weight * _distance(part, centers[open_sets, index])
            own = label == index
            heavy = total[:, index, None]
            rest = heavy - weight
            alone = rest <= 1e-12 * heavy
            gain = np.where(alone, 0.0, heavy / np.where(alone, 1.0, rest)) * distance
            saved = np.where(own, gain, saved)
            price = np.where(own, np.inf, heavy / np.maximum(heavy + weight, 1e-300) * distance)
            closer = price < cost
            target[closer] = index
            np.minimum(cost, price, out=cost)
        rows = np.arange(len(open_sets))
        point = (saved - cost).argmax(axis=1)
        gains = (saved - cost)[rows, point]
        go = gains > _GAIN * inertia[open_sets]
        if not go.any():
            break
        rows, point, open_sets = rows[go], point[go], open_sets[go]
        old, new = label[rows, point], target[rows, point]
        moved = weight[rows, point]
        from_mass, to_mass = mass[open_sets, old], mass[open_sets, new]
        for f, column in enumerate(part):
            x = column[rows, point]
            a, b = centers[open_sets, old, f], centers[open_sets, new, f]
            centers[open_sets, old, f] = a + (a - x) * moved / (from_mass - moved)
            centers[open_sets, new, f] = b + (x - b) * moved / (to_mass + moved)
        mass[open_sets, old] = from_mass - moved
        mass[open_sets, new] = to_mass + moved
        assignment[open_sets, point] = new
        inertia[open_sets] -= gains[go]


def _distance(columns: list[np.ndarray], center: np.ndarray) -> np.ndarray:
    """Gives the squared distances [s, N] to one centre [s, F] of each set."""
    distance = np.square(columns[0] - center[:, 0, None])
    for f in range(1, len(columns)):
        distance += np.square(columns[f] - center[:, f, None])
    return distance
