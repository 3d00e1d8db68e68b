"""The pictures of the reports, as matplotlib figures without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from tenfold.reliant.evaluation import pareto

COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")


def calibration_curves(
    rows: Sequence[Mapping[str, Any]], names: Sequence[Any] | None = None
) -> Figure:
    """Share of class 1 against its predicted probability, a line a group, and where the nodes are.

    Args:
        rows: from :func:`~tenfold.reliant.evaluation.calibration`.
        names: of the groups.
    """
    figure = Figure(figsize=(5.4, 5.0), layout="constrained")
    axes, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    axes.plot([0, 1], [0, 1], color="gray", linewidth=1, linestyle=":")
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
    axes.set_ylabel("share of class 1")
    axes.legend(fontsize=8)
    below.set_xlabel("predicted probability of class 1")
    below.set_ylabel("share of nodes")
    return figure


def trade_off(points: Sequence[Mapping[str, Any]], gap: str = "dSP") -> Figure:
    """Accuracy against a gap, a point a weight; the line joins those that no other beats.

    Args:
        points: with ``alpha``, ``ACC`` and the gap; a point with ``method`` stands alone.
        gap: the gap's name.
    """
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.subplots()
    curve = [p for p in points if "method" not in p]
    best = pareto([(p["ACC"], p[gap]) for p in curve])
    axes.plot([curve[i][gap] for i in best], [curve[i]["ACC"] for i in best], "-", color="tab:blue")
    axes.plot([p[gap] for p in curve], [p["ACC"] for p in curve], "o", color="tab:blue")
    for p in curve:
        axes.annotate(
            f" α={p['alpha']:g}",
            (p[gap], p["ACC"]),
            fontsize=8,
            textcoords="offset points",
            xytext=(3, 3),
        )
    for place, p in enumerate(p for p in points if "method" in p):
        axes.plot(p[gap], p["ACC"], "D", color=COLOURS[1 + place % 5], label=p["method"])
    if len(curve) < len(points):
        axes.legend(fontsize=8)
    axes.margins(x=0.12)
    axes.set_xlabel(f"{gap} (less is fairer)")
    axes.set_ylabel("accuracy")
    return figure


def training_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """The loss of distillation, and J of the wiped and of the full input.

    Args:
        history: the metrics of the epochs.
    """
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [line["epoch"] for line in history]
    left.plot(epochs, [line["loss"] for line in history], color="tab:gray")
    left.set_title("loss of distillation", fontsize=10)
    for key, label in (("bias", "wiped (student)"), ("proxy_bias", "full (proxies)")):
        shown = [(line["epoch"], line[key]) for line in history if line.get(key)]
        if shown:
            right.plot(*zip(*shown, strict=True), label=label, linewidth=1)
            right.set_yscale("log")
    right.set_title("bias J", fontsize=10)
    if right.lines:
        right.legend(fontsize=8)
    for axes in (left, right):
        axes.set_xlabel("epoch")
    return figure


def groups_compared(
    rows: Mapping[str, Sequence[Mapping[str, Any]]], key: str = "selected"
) -> Figure:
    """One bar for each group and method: the share that is given class 1.

    Args:
        rows: method to the rows of :func:`~tenfold.reliant.evaluation.by_group`.
        key: of the rows.
    """
    figure = Figure(figsize=(1.8 + 1.3 * len(rows), 3.2), layout="constrained")
    axes = figure.subplots()
    for place, method in enumerate(rows):
        own = rows[method]
        width = 0.8 / len(own)
        for number, row in enumerate(own):
            label = f"group {row['group']}" if place == 0 else None
            x = place + (number - (len(own) - 1) / 2) * width
            axes.bar(x, row[key], width * 0.9, color=COLOURS[number % len(COLOURS)], label=label)
    axes.set_xticks(range(len(rows)), list(rows))
    axes.set_ylabel(f"{key} (class 1)")
    axes.legend(fontsize=8)
    return figure
