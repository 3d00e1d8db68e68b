"""The pictures of the reports, as matplotlib figures without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tenfold.reliant.evaluation import pareto

COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
LEAST_SPAN = 0.06  # of the accuracies in the trade-off
NAMES = {
    "dSP": "difference of the groups' rates of class 1 (dSP)",
    "dEO": "difference of the groups' recalls of class 1 (dEO)",
}


def calibration_curves(
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[Any] | None = None,
    positive: str = "class 1",
) -> Figure:
    """Share of class 1 against its predicted probability, a line a group, and where the nodes are.

    Args:
        rows: from :func:`~tenfold.reliant.evaluation.calibration`.
        names: of the groups.
        positive: how class 1 is called.
    """
    figure = Figure(figsize=(5.8, 5.2), layout="constrained")
    axes, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    axes.plot([0, 1], [0, 1], color="gray", linewidth=1, linestyle=":", label="calibrated")
    groups = sorted({row["group"] for row in rows})
    width = 0.09 / max(1, len(groups))
    for place, group in enumerate(groups):
        own = [row for row in rows if row["group"] == group]
        colour = COLOURS[place % len(COLOURS)]
        label = f"group {group if names is None else names[group]}"
        p = [row["probability"] for row in own]
        axes.plot(p, [row["share"] for row in own], "o-", color=colour, label=label, markersize=4)
        total = sum(row["nodes"] for row in own)
        centres = [(row["bin"] + 0.5) / 10 + (place - (len(groups) - 1) / 2) * width for row in own]
        below.bar(centres, [row["nodes"] / total for row in own], width, color=colour)
    axes.set_ylabel(f"true share of {positive}")
    axes.legend(fontsize=9)
    below.set_xlabel(f"predicted probability of {positive}")
    below.set_ylabel("share of the\ngroup's nodes")
    for each in (axes, below):
        each.grid(alpha=0.25)
        each.set_axisbelow(True)
    return figure


def trade_off(points: Sequence[Mapping[str, Any]], gap: str = "dSP") -> Figure:
    """Accuracy against a gap, a point a weight; the line joins those that no other beats.

    Args:
        points: with ``alpha``, ``ACC`` and the gap; points with ``method`` stand alone.
        gap: the gap's name.
    """
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    curve = [p for p in points if "method" not in p]
    best = pareto([(p["ACC"], p[gap]) for p in curve])
    axes.plot([curve[i][gap] for i in best], [curve[i]["ACC"] for i in best], "-", color="tab:blue")
    if curve:
        spots = [p[gap] for p in curve], [p["ACC"] for p in curve]
        axes.plot(*spots, "o", color="tab:blue", label="student, weight α")
    for place, method in enumerate(dict.fromkeys(p["method"] for p in points if "method" in p)):
        own = [p for p in points if p.get("method") == method]
        spots = [p[gap] for p in own], [p["ACC"] for p in own]
        axes.plot(*spots, "D", color=COLOURS[1 + place % 5], label=method)
    axes.margins(0.18)
    low, high = axes.get_ylim()
    if (short := LEAST_SPAN - (high - low)) > 0:  # a few nodes must not look like a cliff
        axes.set_ylim(low - short / 2, high + short / 2)
    axes.set_xlabel(f"{NAMES.get(gap, gap)} (left is fairer)")
    axes.set_ylabel("accuracy (up is better)")
    axes.grid(alpha=0.25)
    for p in curve:  # the line goes up to the right: a label below its point is clear of it
        name = "plain, α=0" if p["alpha"] == 0 else f"α={p['alpha']:g}"
        spot = (p[gap], p["ACC"])
        axes.annotate(name, spot, (4, -7), textcoords="offset points", va="top", fontsize=8)
    figure.legend(loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    return figure


def training_curves(
    history: Sequence[Mapping[str, Any]], plain: Sequence[Mapping[str, Any]] = ()
) -> Figure:
    """The loss of distillation, and J of the wiped and of the full input.

    Each epoch is drawn faintly, the running mean of a tenth of them in full: a bias is measured on
    other nodes with other dropout each epoch.

    Args:
        history: the metrics of the epochs.
        plain: the same of plain distillation, to compare with.
    """
    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, lines, key, colour, label in (
        (left, plain, "loss", "tab:gray", "plain distillation"),
        (right, plain, "bias", "tab:gray", None),
        (left, history, "loss", "tab:blue", "student, proxies wiped"),
        (right, history, "bias", "tab:blue", None),
        (right, history, "proxy_bias", "tab:orange", "student with its nodes' own proxies"),
    ):
        shown = [(line["epoch"], line[key]) for line in lines if line.get(key) is not None]
        if not shown:
            continue
        epochs, values = (list(column) for column in zip(*shown, strict=True))
        axes.plot(epochs, values, color=colour, linewidth=0.6, alpha=0.3)
        axes.plot(epochs, running_mean(values), color=colour, linewidth=1.8, label=label)
    left.set_ylabel("loss of distillation")
    right.set_ylabel("bias J")
    right.set_ylim(bottom=0)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.25)
    return figure


def running_mean(values: Sequence[float]) -> list[float]:
    """The mean of a tenth of the values around each one (less at the ends).

    Args:
        values: in their order.
    """
    half = max(1, len(values) // 20)
    total = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=np.float64))])
    places = np.arange(len(values))
    low, high = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    means: list[float] = ((total[high] - total[low]) / (high - low)).tolist()
    return means


def groups_compared(rows: Sequence[Mapping[str, Any]], positive: str = "class 1") -> Figure:
    """The share of a class in each group, true and predicted.

    Args:
        rows: from :func:`~tenfold.reliant.evaluation.by_group`.
        positive: how class 1 is called.
    """
    figure = Figure(figsize=(2.6 + 0.9 * len(rows), 3.6), layout="constrained")
    axes = figure.subplots()
    for number, row in enumerate(rows):
        width = 0.8 / len(rows)
        places = [x + (number - (len(rows) - 1) / 2) * width for x in (0, 1)]
        bars = axes.bar(
            places,
            [row["positive"], row["selected"]],
            width * 0.92,
            color=COLOURS[number % len(COLOURS)],
            label=f"group {row['group']}",
        )
        axes.bar_label(bars, fmt="%.2f", fontsize=8, padding=1)
    axes.set_xticks((0, 1), ("true", "predicted"))
    axes.set_ylabel(f"share of {positive}")
    axes.margins(y=0.12)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    return figure
