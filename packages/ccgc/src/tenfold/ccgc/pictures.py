"""The pictures of the reports, as matplotlib figures without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tenfold.ccgc.evaluation import match_clusters

NODES_SHOWN = 2500  # t-SNE takes seconds for this many


def embedding_map(
    embedding: np.ndarray, labels: np.ndarray, true: np.ndarray | None = None, seed: int = 0
) -> Figure:
    """A 2-D t-SNE map of the embedding, coloured by cluster and, where known, by class.

    Args:
        embedding: float [N, d]; at most NODES_SHOWN random nodes are drawn.
        labels: int [N], clusters.
        true: optional int [N], classes; clusters then take the colours of their classes.
        seed: of the map.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rows = np.sort(np.random.default_rng(seed).permutation(len(embedding))[:NODES_SHOWN])
    points = embedding[rows]
    width = min(30, *points.shape)
    points = PCA(width, random_state=seed).fit_transform(points)
    if len(points) > 10 and width >= 2:
        perplexity = min(30.0, (len(points) - 1) / 3)
        points = TSNE(2, perplexity=perplexity, random_state=seed, n_jobs=1).fit_transform(points)
    elif width == 1:
        points = np.concatenate([points, np.zeros_like(points)], 1)
    panels = [("clusters found", labels if true is None else match_clusters(true, labels))]
    if true is not None:
        panels.append(("true classes", true))
    figure = Figure(figsize=(5 * len(panels), 4.6), layout="constrained")
    for axes, (title, colours) in zip(
        np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True
    ):
        axes.scatter(points[:, 0], points[:, 1], c=colours[rows], cmap="tab20", s=6, linewidths=0)
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])
    return figure


def confusion(true: np.ndarray, labels: np.ndarray) -> Figure:
    """Classes against the clusters matched to them; each row sums to 100 %."""
    matched = match_clusters(true, labels)
    size = int(max(true.max(), matched.max())) + 1
    table = np.zeros((size, size))
    np.add.at(table, (true, matched), 1)
    share = 100 * table / table.sum(1, keepdims=True).clip(1)
    figure = Figure(figsize=(1.8 + 0.45 * size, 1.5 + 0.42 * size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    if size <= 20:
        for row, column in np.argwhere(share >= 0.5):
            dark = share[row, column] > 55
            axes.text(
                column,
                row,
                f"{share[row, column]:.0f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "black",
            )
    axes.set_xlabel("cluster (matched)")
    axes.set_ylabel("class")
    return figure


def cluster_sizes(labels: np.ndarray, confidence: np.ndarray) -> Figure:
    """Number of nodes and mean confidence of each cluster."""
    count = np.bincount(labels)
    mean = np.bincount(labels, confidence) / count.clip(1)
    figure = Figure(figsize=(1.8 + 0.35 * len(count), 3.2), layout="constrained")
    axes = figure.subplots()
    axes.bar(np.arange(len(count)), count, color="tab:blue")
    axes.set_xlabel("cluster")
    axes.set_ylabel("nodes")
    twin = axes.twinx()
    twin.plot(np.arange(len(count)), mean, "o", color="tab:orange")
    twin.set_ylim(0, 1)
    twin.set_ylabel("mean confidence")
    return figure


def training_curves(history: Sequence[Mapping[str, Any]], chosen: int, warm_up: int) -> Figure:
    """Both losses and the quality (official-best: scores); a dotted line marks the choice.

    Args:
        history: the metrics of the refreshes.
        chosen: epoch of the clustering that was kept.
        warm_up: epochs of the warm-up loss; the other one begins there.
    """
    keys = [k for k in ("information", "balance", "compactness", "ACC", "NMI") if k in history[0]]
    epochs = np.array([line["epoch"] for line in history])
    loss = np.array([np.nan if line["loss"] is None else line["loss"] for line in history], float)
    early = epochs < warm_up
    figure = Figure(figsize=(11, 3), layout="constrained")
    panels = figure.subplots(1, 3)
    for axes, part, name in zip(panels, (early, ~early), ("warm-up loss", "loss"), strict=False):
        axes.plot(epochs[part], loss[part], color="tab:gray", marker="." if part.sum() < 3 else "")
        axes.set_title(name, fontsize=10)
    panels[0].set_yscale("log" if (loss[early] > 0).any() else "linear")
    for key in keys:
        panels[2].plot(epochs, [line[key] for line in history], label=key)
    panels[2].legend(fontsize=8)
    panels[2].set_title("quality without labels" if "balance" in keys else "scores", fontsize=10)
    for axes in (panels[int(chosen >= warm_up)], panels[2]) if chosen >= 0 else ():
        axes.axvline(chosen, color="tab:red", linestyle=":", linewidth=1)
    for axes in panels:
        axes.set_xlabel("epoch")
    return figure


def seeds_against_paper(
    groups: Mapping[str, Sequence[float]], paper: Mapping[str, float | None], metric: str
) -> Figure:
    """One dot a seed for each group, the mean, and the paper's value as a diamond."""
    figure = Figure(figsize=(2 + 0.9 * len(groups), 3.6), layout="constrained")
    axes = figure.subplots()
    for place, (name, values) in enumerate(groups.items()):
        axes.plot([place] * len(values), values, "o", color="tab:blue", alpha=0.5, markersize=5)
        axes.plot(place, np.mean(values), "_", color="tab:blue", markersize=22)
        value = paper.get(name)
        if value is not None:
            axes.plot(place, value, "D", color="tab:red", markersize=6)
    axes.set_xticks(range(len(groups)), list(groups), rotation=30, ha="right")
    axes.set_ylabel(f"{metric}, %")
    axes.set_title("seeds (dots), mean (bar), paper (diamond)", fontsize=9)
    return figure
