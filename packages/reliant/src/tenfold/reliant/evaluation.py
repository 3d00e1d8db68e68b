"""Utility and fairness of predictions: gaps between groups, intervals, calibration, trade-off.

Everything but AUC and calibration is a function of the table of counts (group, true class,
predicted class). That makes the definitions short, and a bootstrap of the nodes is a multinomial
draw of tables.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from tenfold.shared.errors import InputError

METRICS = ("ACC", "F1", "AUC", "dSP", "dEO")
GAPS = ("dSP", "dEO", "dEOdds", "utility gap")
MOST = 1000  # classes or groups: the table of counts is G C C large


def counts_of(y: Any, prediction: Any, sensitive: Any) -> np.ndarray:
    """Counts nodes by group, true class and predicted class.

    Args:
        y: int [N], true classes counted from 0.
        prediction: int [N], predicted classes.
        sensitive: int [N], groups counted from 0.

    Returns:
        int64 [G, C, C].

    Raises:
        InputError: for different lengths, nothing to count, or values that are no whole numbers
            from 0 to 999.
    """
    columns = {"y": y, "prediction": prediction, "sensitive": sensitive}
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    size = arrays["y"].size
    for name, values in arrays.items():
        if values.shape != (size,) or size == 0:
            raise InputError(f"{name}: shape {list(values.shape)}; expected [{size or 'N > 0'}]")
        if values.dtype.kind not in "biuf":
            raise InputError(
                f"{name}: {values.dtype}, such as {values[0]!r}; expected classes or groups as "
                "whole numbers counted from 0"
            )
        if values.dtype.kind == "f" and not (np.isfinite(values) & (values % 1 == 0)).all():
            raise InputError(f"{name} has missing values or fractions; expected whole numbers")
        if (values < 0).any():
            raise InputError(f"{name} has negative values; expected numbers counted from 0")
    truth, guess, group = (a.astype(np.int64) for a in arrays.values())
    for name, values in (("y, prediction", np.maximum(truth, guess)), ("sensitive", group)):
        if values.max() >= MOST:
            raise InputError(
                f"{name}: {values.max()}; expected numbers below {MOST}, counted from 0"
            )
    classes = int(max(truth.max(), guess.max(), 1)) + 1
    groups = int(max(group.max(), 1)) + 1
    flat = np.bincount((group * classes + truth) * classes + guess, minlength=groups * classes**2)
    return flat.reshape(groups, classes, classes)


def from_counts(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Utility and gaps of tables of counts; what is not defined is NaN.

    For two classes these are the usual ones, with class 1 as the positive one. In general:

    - ``dSP``: the largest difference between two groups of a class's rate among predictions;
    - ``dEO``: the largest difference of the recall of class 1 (more than two classes: of a class);
    - ``dEOdds``: the largest difference of any rate ``P(prediction | class, group)``;
    - ``utility gap``: the largest difference of accuracy.

    Args:
        counts: [..., G, C, C] as from :func:`counts_of`; several tables at once may be given.

    Returns:
        ``ACC``, ``F1`` (of class 1; macro for more classes) and the gaps, each [...].
    """
    counts = np.asarray(counts, dtype=np.float64)
    binary = counts.shape[-1] == 2
    with np.errstate(invalid="ignore", divide="ignore"):
        total = counts.sum((-3, -2, -1))
        members = counts.sum((-2, -1))
        right = np.diagonal(counts, axis1=-2, axis2=-1)
        selected = counts.sum(-2) / members[..., None]
        rates = counts / counts.sum(-1, keepdims=True)
        recall = np.diagonal(rates, axis1=-2, axis2=-1)
        accuracy = right.sum(-1) / members
        hits = right.sum(-2)
        f1 = 2 * hits / (counts.sum((-3, -1)) + counts.sum((-3, -2)))
    spread = selected.max(-2) - selected.min(-2)
    recalls = recall.max(-2) - recall.min(-2)
    odds = (rates.max(-3) - rates.min(-3)).max((-2, -1))
    return {
        "ACC": right.sum((-2, -1)) / total,
        "F1": f1[..., 1] if binary else f1.mean(-1),
        "dSP": spread.max(-1),
        "dEO": recalls[..., 1] if binary else recalls.max(-1),
        "dEOdds": odds,
        "utility gap": accuracy.max(-1) - accuracy.min(-1),
    }


def scores(
    y: Any, prediction: Any, sensitive: Any, probability: Any | None = None
) -> dict[str, float]:
    """Utility and fairness of predictions, each from 0 to 1.

    Args:
        y: int [N], true classes counted from 0.
        prediction: int [N], predicted classes.
        sensitive: int [N], groups counted from 0.
        probability: float [N], of class 1 (two classes), or [N, C]; needed for AUC.

    Returns:
        ``ACC``, ``F1``, ``AUC`` (NaN without probabilities; one against rest for more classes),
        ``dSP``, ``dEO``, ``dEOdds``, ``utility gap``, and ``label gap``, the dSP of the true
        classes, which a perfect prediction has.

    Raises:
        InputError: as :func:`counts_of`, or probabilities of another length, or not from 0 to 1.

    Warns:
        RuntimeWarning: for each gap that is not defined, since a group (or its part with a class)
            is empty; its value is NaN.
    """
    counts = counts_of(y, prediction, sensitive)
    found = {name: float(value) for name, value in from_counts(counts).items()}
    for name in GAPS:
        if np.isnan(found[name]):
            warnings.warn(
                f"{name} is not defined: a group has no node, or none of some class",
                RuntimeWarning,
                stacklevel=2,
            )
    truth = counts.sum(-1)
    perfect = truth[..., None] * np.eye(counts.shape[-1], dtype=np.int64)
    found["AUC"] = _auc(np.asarray(y), probability, counts.shape[-1])
    found["label gap"] = float(from_counts(perfect)["dSP"])
    order = ("ACC", "F1", "AUC", *GAPS, "label gap")
    return {name: found[name] for name in order}


def by_group(
    y: Any,
    prediction: Any,
    sensitive: Any,
    group_names: Sequence[Any] | None = None,
    label_names: Sequence[Any] | None = None,
) -> list[dict[str, Any]]:
    """The table of the groups: size, rates, and the confusion of classes.

    Args:
        y: int [N], true classes.
        prediction: int [N], predicted classes.
        sensitive: int [N], groups.
        group_names: for the rows, one each group.
        label_names: for the columns of the confusion, one each class.

    Returns:
        A row a group: ``group``, ``nodes``, ``ACC``, ``positive`` (share of class 1 among the
        true ones), ``selected`` (among the predictions), ``recall`` (of class 1), and counts
        ``true -> predicted``.
    """
    counts = counts_of(y, prediction, sensitive)
    groups = list(group_names) if group_names is not None else list(range(len(counts)))
    classes = list(label_names) if label_names is not None else list(range(counts.shape[-1]))
    for name, given, needed in (
        ("group_names", groups, len(counts)),
        ("label_names", classes, counts.shape[-1]),
    ):
        if len(given) < needed:  # more may be: these nodes need not have the last ones
            raise InputError(f"{name}: {len(given)} names ({given}); expected {needed}, one each")
    rows = []
    with np.errstate(invalid="ignore", divide="ignore"):
        for number, table in enumerate(counts):
            size = table.sum()
            row: dict[str, Any] = {
                "group": groups[number],
                "nodes": int(size),
                "ACC": float(np.trace(table) / size),
                "positive": float(table[1].sum() / size),
                "selected": float(table[:, 1].sum() / size),
                "recall": float(table[1, 1] / table[1].sum()),
            }
            for i, j in np.ndindex(table.shape):
                row[f"{classes[i]} -> {classes[j]}"] = int(table[i, j])
            rows.append(row)
    return rows


def bootstrap(
    y: Any, prediction: Any, sensitive: Any, draws: int = 2000, level: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of utility and gaps over resampled nodes.

    Resampling N nodes with replacement is a multinomial draw of the table of counts. Gaps are
    absolute values, so that the interval of a small gap lies above 0.

    Args:
        y: int [N], true classes.
        prediction: int [N], predicted classes.
        sensitive: int [N], groups.
        draws: how many.
        level: of the interval.
        seed: of the draws.

    Returns:
        Metric to (low, high). Draws in which a metric is not defined do not count.
    """
    if draws < 1 or not 0 < level < 1:
        raise InputError(f"draws={draws}, level={level}; expected >= 1, and between 0 and 1")
    counts = counts_of(y, prediction, sensitive)
    size = int(counts.sum())
    drawn = np.random.default_rng(seed).multinomial(size, counts.ravel() / size, draws)
    found = from_counts(drawn.reshape(draws, *counts.shape))
    tails = [50 * (1 - level), 50 * (1 + level)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all draws may be NaN
        ends = {name: np.nanpercentile(values, tails) for name, values in found.items()}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items()}


def calibration(y: Any, probability: Any, sensitive: Any, bins: int = 10) -> list[dict[str, Any]]:
    """How often class 1 occurs where it is predicted with a probability, for each group.

    Args:
        y: int [N], 0 or 1.
        probability: float [N], of class 1.
        sensitive: int [N], groups.
        bins: of equal width.

    Returns:
        A row for each group and bin that has nodes: ``group``, ``bin``, ``probability`` (mean),
        ``share`` of class 1, ``nodes``.

    Raises:
        InputError: for less than one bin, more than two classes, or probabilities of another
            length, missing, or not from 0 to 1.
    """
    if bins < 1:
        raise InputError(f"bins={bins}; expected at least 1")
    truth, group = np.asarray(y), np.asarray(sensitive)
    counts = counts_of(truth, truth, group)
    if counts.shape[-1] > 2:
        raise InputError(f"y: classes up to {counts.shape[-1] - 1}; calibration expects 0 and 1")
    p = _probabilities(probability, len(truth))
    if p.ndim == 2:
        raise InputError(f"probability: shape {list(p.shape)}; expected [{len(truth)}], of class 1")
    place = np.minimum((p * bins).astype(int), bins - 1)
    rows = []
    for g in np.unique(group):
        for b in range(bins):
            here = (group == g) & (place == b)
            if here.any():
                rows.append(
                    {
                        "group": int(g),
                        "bin": b,
                        "probability": float(p[here].mean()),
                        "share": float(truth[here].mean()),
                        "nodes": int(here.sum()),
                    }
                )
    return rows


def calibration_error(rows: Sequence[dict[str, Any]]) -> dict[int, float]:
    """The expected calibration error of each group, from the rows of :func:`calibration`."""
    found: dict[int, float] = {}
    for group in sorted({row["group"] for row in rows}):
        own = [row for row in rows if row["group"] == group]
        total = sum(row["nodes"] for row in own)
        off = sum(row["nodes"] * abs(row["share"] - row["probability"]) for row in own)
        found[group] = off / total
    return found


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """The points of (utility, gap) that no other beats in both, in order of their utility.

    Args:
        points: utility (more is better) and gap (less is better).
    """
    order = sorted(range(len(points)), key=lambda i: (-points[i][0], points[i][1]))
    kept, best = [], np.inf
    for i in order:
        if points[i][1] < best:
            kept.append(i)
            best = points[i][1]
    return kept[::-1]


def hypervolume(
    points: Sequence[tuple[float, float]], reference: tuple[float, float] = (0.0, 1.0)
) -> float:
    """The area between a trade-off curve and a reference point; more is better.

    Args:
        points: utility (more is better) and gap (less is better).
        reference: utility and gap of a point that is worse than all; points that are not better
            than it in both do not count.
    """
    better = [p for p in points if p[0] > reference[0] and p[1] < reference[1]]
    area, before = 0.0, reference[0]
    for index in pareto(better):
        utility, gap = better[index]
        area += (utility - before) * (reference[1] - gap)
        before = utility
    return area


def _probabilities(values: Any, nodes: int) -> np.ndarray:
    """Probabilities float [N] or [N, C], from 0 to 1."""
    try:
        p = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"probability: {error}; expected numbers from 0 to 1") from error
    if p.ndim not in (1, 2) or len(p) != nodes:
        raise InputError(
            f"probability: shape {list(p.shape)}; expected [{nodes}] or [{nodes}, C], one each node"
        )
    wrong = ~((p >= 0) & (p <= 1))  # NaN too
    if wrong.any():
        row = int(wrong.reshape(nodes, -1).any(1).argmax())
        raise InputError(f"probability: node {row} has {p[row]}; expected numbers from 0 to 1")
    return p


def _auc(y: np.ndarray, probability: Any | None, classes: int) -> float:
    if probability is None:
        return float("nan")
    p = _probabilities(probability, len(y))
    columns = 2 if p.ndim == 1 else p.shape[1]
    if columns < classes:
        raise InputError(
            f"probability: shape {list(p.shape)}; expected [{len(y)}, {classes}], a column a class"
        )
    if p.ndim == 2 and not np.allclose(p.sum(1), 1, atol=1e-3):
        row = int(np.abs(p.sum(1) - 1).argmax())
        raise InputError(f"probability: node {row} has {p[row]}; expected rows that sum to 1")
    if len(np.unique(y)) < columns:  # not defined without a node of each class
        return float("nan")
    from sklearn.metrics import roc_auc_score

    if p.ndim == 1:
        return float(roc_auc_score(y, p))
    if columns == 2:
        return float(roc_auc_score(y, p[:, 1]))
    return float(roc_auc_score(y, p / p.sum(1, keepdims=True), multi_class="ovr"))
