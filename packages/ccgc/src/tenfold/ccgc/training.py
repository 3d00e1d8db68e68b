"""The training loop, once, for both protocols.

``final`` (default) never sees a label: gradients are cleared each step, every cluster counts,
positives are the mean field, and the clustering is the refresh that :mod:`tenfold.ccgc.selection`
prefers. ``official-best`` repeats the published protocol: running sums of
gradients, the first cluster left out, sampled pairs, the official k-means, and the best refresh
**chosen with the true labels**.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tenfold.ccgc.evaluation import label_scores
from tenfold.ccgc.kmeans import official_kmeans, squared_distances
from tenfold.ccgc.model import UnsharedEncoders, fuse, side_by_side, start_at_principal_axes
from tenfold.ccgc.objective import (
    averaging,
    cluster_means,
    confident_nodes,
    negative_loss,
    positive_loss_mean_field,
    positive_loss_sampled,
    warm_up_loss,
)
from tenfold.ccgc.readout import ReadOut
from tenfold.ccgc.selection import MODULAR, BlockGraph, ClusterSpace, Quality, cluster, explained
from tenfold.ccgc.smoothing import SmoothedFeatures
from tenfold.shared import compute
from tenfold.shared.errors import InputError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Protocol = Literal["final", "official-best"]
Space = Literal["narrow", "wide"]

HELD_ROWS = 20_000  # up to this many nodes the whole embedding is held while it is clustered
ROWS_AT_ONCE = 8192  # nodes are embedded in blocks of this many
SMALL = 1 << 20  # numbers in both views up to which a step takes longer to share than to do
STAYS = 0.98  # narrow: share of what the first clustering explains that a later one must keep
PATIENCE = 2  # narrow: refreshes in a row that keep less and end the training


@dataclass(frozen=True)
class TrainConfig:
    """One run. What is not given is the paper's value or chosen without labels."""

    dataset: str = "digits"
    """The graph: a data set by name, digits, generated:N, pyg:Class/Name, a folder or an .npz."""
    protocol: Protocol = "final"
    """final never sees labels; official-best repeats the published protocol, labels included."""
    clusters: int | None = None
    """K; by default the number of classes of the data set."""
    hops: int | None = None
    """t, the number of smoothing steps; by default chosen without labels."""
    learning_rate: float | None = None
    """The step size of Adam; by default chosen without labels."""
    epochs: int = 400
    """Number of passes."""
    warm_up: int = 51
    """Epochs of the identity loss at the beginning."""
    refresh_every: int = 10
    """Epochs between two runs of k-means."""
    embedding_dim: int = 500
    """d, the width of each view."""
    tau: float = 0.5
    """Share of the nodes that is confident."""
    alpha: float = 0.5
    """Weight of the negative loss."""
    keep: float = 0.8
    """Share of the confident nodes that is paired (official-best only)."""
    space: Space | None = None
    """Where clusters are looked for (final only), narrow or wide; by default chosen as the hops."""
    balance: Literal["auto", "always", "never"] = "auto"
    """Draw cluster sizes together; auto does so in graphs without communities (final only)."""
    n_init: int = 10
    """New k-means++ starts at each refresh (final only)."""
    batch_size: int | None = None
    """Nodes a step; by default all of them (final only)."""
    seed: int = 0
    """Seed of all random numbers."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    devices: int = 1
    """Devices on each machine; with several, each takes a share of the nodes."""
    num_nodes: int = 1
    """Machines."""
    precision: str = "32-true"
    """Precision of Lightning Fabric, e.g. 32-true or bf16-mixed."""

    def __post_init__(self) -> None:
        """Refuses values that no run can have."""
        limits = {
            "clusters": (1, None),
            "hops": (0, None),
            "epochs": (1, None),
            "warm_up": (0, None),
            "refresh_every": (1, None),
            "embedding_dim": (1, None),
            "tau": (0, 1),
            "alpha": (0, None),
            "keep": (0, 1),
            "n_init": (1, None),
            "batch_size": (2, None),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not (low <= value <= (math.inf if high is None else high)):
                bound = f">= {low}" if high is None else f"from {low} to {high}"
                raise InputError(f"{name}={value}; expected {bound}")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate={self.learning_rate}; expected > 0")
        if self.precision not in ("32-true", "16-mixed", "bf16-mixed"):
            raise InputError(
                f"precision={self.precision!r}; expected '32-true', '16-mixed' or 'bf16-mixed'"
            )
        if self.space not in (None, "narrow", "wide"):
            raise InputError(f"space={self.space!r}; expected 'narrow' or 'wide'")
        if self.balance not in ("auto", "always", "never"):
            raise InputError(f"balance={self.balance!r}; expected 'auto', 'always' or 'never'")
        if self.protocol == "official-best" and (
            self.batch_size or self.devices * self.num_nodes > 1
        ):
            raise InputError("protocol='official-best' is full-batch on one device")


@dataclass
class Clustering:
    """A clustering of the nodes and what is needed to repeat or extend it.

    Attributes:
        labels: int64 [N].
        distances: float [N], squared distance to the own centre in the cluster space.
        centers: float [K, m] in the cluster space (official-best: [K, d]).
        offsets: float [K], what a balanced clustering takes off the distances to its centres.
        space: the cluster space; None in official-best, whose k-means runs on Z itself.
        weights: the encoders' state at that epoch.
        epoch: when it was found; -1 before training.
        quality: how it looks without labels (final only).
        scores: against the labels (official-best only, where they choose).
        read_out: what has decided about the labels in the end (narrow only).
    """

    labels: Tensor
    distances: Tensor
    centers: Tensor
    offsets: Tensor
    space: ClusterSpace | None
    weights: dict[str, Tensor]
    epoch: int
    quality: Quality | None = None
    scores: dict[str, float] | None = None
    read_out: ReadOut | None = None

    def assign(self, z: Tensor, x: Tensor) -> Tensor:
        """Clusters of nodes.

        Args:
            z: their embedding float [M, d or 2 d].
            x: their smoothed features float [M, D].

        Returns:
            int64 [M].
        """
        if self.read_out is not None:
            return self.read_out(x)[0]
        rows = z if self.space is None else self.space.project(z)
        return (squared_distances(rows, self.centers) - self.offsets).argmin(1)


def confidence(rows: Tensor, centers: Tensor, labels: Tensor) -> Tensor:
    """``1 - d1 / d2`` of each row, float [N] in [0, 1]; 1 for every row if there is one centre.

    Args:
        rows: float [N, D].
        centers: float [K, D].
        labels: int64 [N], cluster of each row.
    """
    if len(centers) == 1:
        return torch.ones(len(rows), device=rows.device)
    parts = []
    for block, own in zip(rows.split(ROWS_AT_ONCE), labels.split(ROWS_AT_ONCE), strict=True):
        distance = squared_distances(block, centers)
        mine = distance.gather(1, own[:, None])[:, 0]
        other = distance.scatter(1, own[:, None], torch.inf).min(1).values
        parts.append(1 - mine / torch.maximum(other, mine).clamp(min=1e-12))
    return torch.cat(parts).clamp(0, 1)


@dataclass(frozen=True)
class Confident:
    """The confident nodes between two refreshes.

    Attributes:
        features: their smoothed features; those of all nodes where a factored product is cheaper.
        members: for each cluster that has any, in order of its label, its rows of ``features``.
        averages: float [K', n], the means of these rows.
    """

    features: SmoothedFeatures
    members: list[Tensor]
    averages: Tensor


class Training:
    """One training: make it, then :meth:`run` it; in between it can be saved and resumed.

    Args:
        features: smoothed features of the N nodes.
        n_clusters: K.
        config: the run; ``learning_rate`` must be given.
        graph: the edges, for the label-free choice.
        y: int64 [N], the true labels; only ``official-best`` takes and uses them.
        fabric: where to run; by default one made from ``config``.
    """

    def __init__(
        self,
        features: SmoothedFeatures,
        n_clusters: int,
        config: TrainConfig,
        graph: BlockGraph,
        y: Tensor | None = None,
        fabric: Fabric | None = None,
    ) -> None:
        if config.learning_rate is None:
            raise InputError("learning_rate is not given; expected a number > 0")
        self.official = config.protocol == "official-best"
        self.narrow = config.space == "narrow" and not self.official
        if self.official and y is None:
            raise InputError(
                "protocol='official-best' chooses its epoch with the true labels, and the graph "
                "has none (y); take protocol='final'"
            )
        self.features, self.n_clusters, self.config, self.graph = (
            features,
            n_clusters,
            config,
            graph,
        )
        self.y = y.cpu().numpy() if self.official and y is not None else None
        self.fabric = fabric or compute.fabric(
            config.device, config.devices, config.num_nodes, config.precision
        )
        # The official code draws from the global generators of NumPy and torch in this order:
        # k-means start, encoder 1, encoder 2, then the pairs of each epoch and cluster.
        compute.seed_everything(config.seed)
        self.generator = torch.Generator(device=features.device).manual_seed(config.seed)
        self.epoch = -1
        self.best: Clustering | None = None
        start = self._official_start() if self.official else None
        self.encoders = UnsharedEncoders(features.shape[1], config.embedding_dim)
        # Narrow: what a clustering must still explain of the features, and how many refreshes in a
        # row have not.
        self.bound: float | None = None
        self.below = 0
        if self.narrow:
            axes, self.reference = principal_axes(features.dense, config.embedding_dim, n_clusters)
            start_at_principal_axes(self.encoders, axes)
        optimizer = torch.optim.Adam(
            self.encoders.parameters(), lr=config.learning_rate, fused=True
        )
        self.model, self.optimizer = self.fabric.setup(self.encoders, optimizer)
        nodes = torch.zeros(features.shape[0], dtype=torch.int64, device=features.device)
        self.labels, self.confident = start or (nodes, nodes.bool())
        self.balanced = config.balance == "always"
        if config.balance == "auto" and not self.official:
            self.balanced = self.untrained_modularity() < MODULAR
        self._group: Confident | None = None
        self.history: list[dict[str, Any]] = []  # the metrics of the refreshes

    @property
    def finished(self) -> bool:
        """All epochs are done, or (narrow) the clustering has left the features."""
        return self.epoch >= self.config.epochs - 1 or self.below >= PATIENCE

    def run(
        self, on_refresh: Callable[[Training, dict[str, Any]], None] | None = None
    ) -> Clustering:
        """Trains to the end and gives the chosen clustering.

        Args:
            on_refresh: called after each refresh with this object and the metrics of the epoch; the
                state is then whole and may be saved.
        """
        self.advance(self.config.epochs, on_refresh)
        return self.clustering()

    def advance(
        self,
        until: int,
        on_refresh: Callable[[Training, dict[str, Any]], None] | None = None,
    ) -> None:
        """Trains on to an epoch, or to the end if that comes first; another call goes on.

        Args:
            until: the last epoch.
            on_refresh: as in :meth:`run`.
        """
        threads = torch.get_num_threads()
        if self.features.shape[0] * 2 * self.config.embedding_dim <= SMALL:
            torch.set_num_threads(1)
        try:
            self._advance(until, on_refresh)
        finally:
            torch.set_num_threads(threads)

    def _advance(
        self, until: int, on_refresh: Callable[[Training, dict[str, Any]], None] | None
    ) -> None:
        config = self.config
        if self.epoch < 0 and config.warm_up == 0 and not self.official:
            self._refresh()  # nothing has been clustered yet
        while not self.finished and self.epoch < until:
            self.epoch += 1
            loss = self._warm_up() if self.epoch < config.warm_up else self._refine()
            if loss is None and self.official:
                continue  # the official code skips the refresh together with the step
            last = self.epoch == config.epochs - 1
            if self.epoch % config.refresh_every == 0 or (last and not self.official):
                shown = float("nan") if loss is None else float(loss)
                self.history.append({"epoch": self.epoch, "loss": shown, **self._refresh()})
                if on_refresh is not None:
                    on_refresh(self, self.history[-1])

    @property
    def first_choice(self) -> int:
        """The epoch of the first refresh that may be chosen: the first after the warm-up."""
        return -(-self.config.warm_up // self.config.refresh_every) * self.config.refresh_every

    def clustering(self) -> Clustering:
        """The clustering that is preferred so far; in the narrow space, as it is read out.

        Raises:
            InputError: there is none yet.
        """
        best = self.best
        if best is None:
            raise InputError(f"no clustering may be chosen before epoch {self.first_choice}")
        if self.narrow and best.read_out is None:
            confident = confident_nodes(best.distances, self.config.tau)
            read_out = ReadOut.fit(self.features.dense, best.labels, confident)
            if read_out is not None:
                labels = read_out(self.features.dense)[0]
                if len(labels.unique()) == len(best.labels.unique()):  # it has emptied no cluster
                    return replace(best, labels=labels, read_out=read_out)
        return best

    def embed(self, weights: dict[str, Tensor] | None = None) -> Iterator[Tensor]:
        """The embedding in blocks of rows (fused [n, d]; narrow: both views [n, 2 d]).

        Args:
            weights: of the encoders; by default the present ones.
        """
        encoders = self.encoders
        if weights is not None:
            encoders = UnsharedEncoders(self.features.shape[1], self.config.embedding_dim)
            encoders.load_state_dict(weights)
            encoders.to(self.features.device)
        yield from embed_blocks(encoders, self.features, self.narrow)

    def outcome(self, found: Clustering) -> tuple[Tensor, Tensor]:
        """The embedding [N, d or 2 d] at a clustering, and its confidence in each node [N]."""
        z = torch.cat(list(self.embed(found.weights or None)))
        if found.read_out is not None:
            return z, found.read_out(self.features.dense)[1]
        rows = z if found.weights else self.features.dense  # before training: the features
        rows = rows if found.space is None else found.space.project(rows)
        return z, confidence(rows, found.centers, found.labels)

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The weights and everything else that a later :meth:`load_state_dict` needs."""
        best = self.best
        state = {
            "epoch": self.epoch,
            "optimizer": self.optimizer.state_dict(),
            "gradients": [p.grad for p in self.encoders.parameters()] if self.official else None,
            "labels": self.labels,
            "confident": self.confident,
            "balanced": self.balanced,
            "bound": self.bound,
            "below": self.below,
            "generator": self.generator.get_state(),
            "random": compute.random_state(),
            "best": best
            and {
                "labels": best.labels,
                "distances": best.distances,
                "centers": best.centers,
                "offsets": best.offsets,
                "basis": best.space and best.space.basis,
                "weights": best.weights,
                "epoch": best.epoch,
                "quality": best.quality
                and [best.quality.information, best.quality.balance, best.quality.compactness],
                "scores": best.scores,
            },
        }
        return self.encoders.state_dict(), state

    def load_state_dict(self, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Goes on where another training of the same run stopped."""
        device = self.features.device
        self.encoders.load_state_dict(weights)
        self.optimizer.load_state_dict(state["optimizer"])
        if state["gradients"] is not None:
            for parameter, gradient in zip(
                self.encoders.parameters(), state["gradients"], strict=True
            ):
                parameter.grad = None if gradient is None else gradient.to(device)
        self.epoch = state["epoch"]
        self.labels = state["labels"].to(device)
        self.confident = state["confident"].to(device)
        self.generator.set_state(state["generator"])
        compute.set_random_state(state["random"])
        self.balanced = state["balanced"]
        self.bound, self.below = state["bound"], state["below"]
        self._group = None
        if best := state["best"]:
            self.best = Clustering(
                best["labels"].to(device),
                best["distances"].to(device),
                best["centers"].to(device),
                best["offsets"].to(device),
                None if best["basis"] is None else ClusterSpace(best["basis"].to(device)),
                best["weights"],
                best["epoch"],
                best["quality"] and Quality(*best["quality"]),
                best["scores"],
            )

    def _official_start(self) -> tuple[Tensor, Tensor]:
        """k-means on the smoothed features: the labels and confident nodes before training."""
        labels, distances = official_kmeans(self.features.dense, self.n_clusters, _draw_numpy)
        self._prefer(labels, distances, self.features.dense, {})
        return labels, confident_nodes(distances, self.config.tau)

    def _warm_up(self) -> Tensor:
        rows = self._batch()
        z1, z2 = self.model(self.features if rows is None else self.features.rows(rows))
        return self._step(warm_up_loss(z1, z2))

    def _refine(self) -> Tensor | None:
        """One step on the confident nodes; None if fewer than two clusters have any."""
        group = self._confident_group()
        if len(group.members) < 2:
            return None
        if self.official:
            z1, z2 = self.model(group.features)
            used = group.members[1:]  # the cluster of the smallest label is left out
            positive = positive_loss_sampled(
                z1, z2, used, self.n_clusters, _draw_numpy, self.config.keep
            )
            means = [torch.stack([z[nodes].mean(0) for nodes in used]) for z in (z1, z2)]
            return self._step(positive + self.config.alpha * negative_loss(*means))
        rows = self._batch()
        if rows is not None:
            nodes = rows[self.confident[rows]]
            z = self.model(self.features if self.features.factored else self.features.rows(nodes))
            if self.features.factored:
                z = z[:, nodes]
            if len(nodes) == 0:  # other processes still wait for a gradient
                return self._step(0 * z.sum())
            places = torch.arange(len(nodes)).to(nodes)
            averages = self._averages(self.labels[nodes], places, len(nodes))
        else:
            z, averages = self.model(group.features), group.averages
        means = averages @ z
        positive = positive_loss_mean_field(*means)
        return self._step(positive + self.config.alpha * negative_loss(*means))

    def _step(self, loss: Tensor) -> Tensor:
        if not self.official:
            self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self.optimizer.step()
        return loss.detach()

    def _batch(self) -> Tensor | None:
        """The nodes of this step, or None for all of them."""
        nodes, size = self.features.shape[0], self.config.batch_size
        world, rank = self.fabric.world_size, self.fabric.global_rank
        if size is None:
            return (
                None if world == 1 else torch.arange(rank, nodes, world, device=self.labels.device)
            )
        draw = torch.randint(
            nodes, (world, min(size, nodes)), generator=self.generator, device=self.labels.device
        )
        return draw[rank].unique()

    def _confident_group(self) -> Confident:
        """What all steps between two refreshes share."""
        if self._group is None:
            nodes = self.confident.nonzero()[:, 0]
            labels = self.labels[nodes]
            if self.features.factored:
                features, places = self.features, nodes
            else:
                features, places = self.features.rows(nodes), torch.arange(len(nodes)).to(nodes)
            members = [places[labels == k] for k in labels.unique()]
            averages = self._averages(labels, places, features.shape[0])
            self._group = Confident(features, members, averages)
        return self._group

    def _averages(self, labels: Tensor, places: Tensor, rows: int) -> Tensor:
        """The averaging matrix [K', rows] of the clusters that have a node."""
        matrix = averaging(labels, places, rows, self.n_clusters)
        return matrix[matrix.any(1)]

    @torch.no_grad()
    def _refresh(self) -> dict[str, Any]:
        """k-means on the embedding: new labels, new confident nodes, and perhaps a new best."""
        self._group = None
        if self.official:
            z = torch.cat(list(self.embed()))
            labels, distances = official_kmeans(z, self.n_clusters, _draw_numpy)
            metrics = self._prefer(labels, distances, z, self._weights())
        else:
            space, rows = self._cluster_rows()
            previous = self.labels if self.epoch >= self.config.warm_up else None
            result, compactness = cluster(
                rows, self.n_clusters, self.config.n_init, self.generator, previous, self.balanced
            )
            labels, distances = result.labels, result.distances
            quality = self.graph.quality(labels, self.n_clusters, compactness)
            metrics = quality.as_dict()
            warm = min(self.config.warm_up, self.config.epochs - 1)
            best = self.best.quality if self.best else None
            if self.narrow and self.epoch >= warm:
                metrics["explained"] = explained(self.reference, labels, self.n_clusters)
                if self.bound is None:
                    self.bound = STAYS * metrics["explained"]
                self.below = self.below + 1 if metrics["explained"] < self.bound else 0
                self.below = self.fabric.broadcast(self.below)
            better = best is None or quality.score > best.score
            if self.epoch >= warm and better and not self.below:
                self.best = Clustering(
                    labels,
                    distances,
                    result.centers,
                    result.offsets,
                    space,
                    self._weights(),
                    self.epoch,
                    quality,
                )
        self.labels = self.fabric.broadcast(labels)
        self.confident = self.fabric.broadcast(confident_nodes(distances, self.config.tau))
        sizes = self.labels.bincount(minlength=self.n_clusters)
        return {**metrics, "smallest": int(sizes.min()), "confident": int(self.confident.sum())}

    def _cluster_rows(self) -> tuple[ClusterSpace, Tensor]:
        """The cluster space, and all nodes in it [N, m].

        The embedding [N, d] of a large graph is made twice rather than held.
        """
        small = self.features.shape[0] <= HELD_ROWS
        blocks = list(self.embed()) if small else None
        directions = self.n_clusters if self.narrow else 2 * self.n_clusters
        space = ClusterSpace.fit(self.embed() if blocks is None else blocks, directions)
        made = self.embed() if blocks is None else blocks
        return space, torch.cat([space.project(block) for block in made])

    @torch.no_grad()
    def untrained_modularity(self) -> float:
        """Modularity of the clustering that the encoders give now; makes no other change."""
        _, rows = self._cluster_rows()
        generator = torch.Generator(device=rows.device).manual_seed(self.config.seed)
        found, _ = cluster(rows, self.n_clusters, self.config.n_init, generator)
        return self.graph.modularity(found.labels, self.n_clusters)

    def _prefer(
        self, labels: Tensor, distances: Tensor, rows: Tensor, weights: dict[str, Tensor]
    ) -> dict[str, float]:
        """Official: keeps the clustering if the true labels say that it is at least as good."""
        scores = label_scores(self.y, labels.cpu().numpy())
        if self.best is None or scores["ACC"] >= self.best.scores["ACC"]:  # type: ignore[index]
            centers = cluster_means(rows, labels, self.n_clusters)
            zero = centers.new_zeros(self.n_clusters)
            self.best = Clustering(
                labels, distances, centers, zero, None, weights, self.epoch, None, scores
            )
        return {key: scores[key] for key in ("ACC", "NMI", "ARI", "F1")}

    def _weights(self) -> dict[str, Tensor]:
        return {key: value.detach().clone() for key, value in self.encoders.state_dict().items()}


@torch.no_grad()
def embed_blocks(
    encoders: UnsharedEncoders, features: SmoothedFeatures, narrow: bool = False
) -> Iterator[Tensor]:
    """The embedding of all nodes in blocks of rows: fused [n, d], narrow: both views [n, 2 d]."""
    join = side_by_side if narrow else fuse
    if features.factored:
        yield from join(*encoders(features)).split(ROWS_AT_ONCE)
    else:
        for block in features.dense.split(ROWS_AT_ONCE):
            yield join(*encoders(block))


def principal_axes(x: Tensor, embedding_dim: int, n_clusters: int) -> tuple[Tensor, Tensor]:
    """The leading axes of the features with rows normalised, by a randomised SVD.

    Args:
        x: smoothed features float32 [N, D].
        embedding_dim: d; min(d, N, D) axes are taken.
        n_clusters: K.

    Returns:
        The axes [D, q], and the nodes in the first K of them as :class:`ClusterSpace` scales them
        [N, K]: where it is judged whether a clustering still describes the features.
    """
    rows = normalize(x)
    _, values, axes = torch.svd_lowrank(rows, q=min(embedding_dim, *x.shape), niter=3)
    scale = values[:n_clusters].clamp(min=1e-12 * float(values[0])).rsqrt()
    return axes, normalize(rows @ (axes[:, :n_clusters] * scale))


def with_defaults(
    config: TrainConfig,
    hops: int,
    learning_rate: float,
    space: Space = "wide",
) -> TrainConfig:
    """The configuration with the choices filled in where they are open."""
    return replace(
        config,
        space=config.space or space,
        hops=hops if config.hops is None else config.hops,
        learning_rate=learning_rate if config.learning_rate is None else config.learning_rate,
    )


def _draw_numpy(n: int, k: int) -> Tensor:
    """k distinct numbers below n from NumPy's global generator, as the official code draws them."""
    return torch.as_tensor(np.random.choice(n, k, replace=False))  # noqa: NPY002
