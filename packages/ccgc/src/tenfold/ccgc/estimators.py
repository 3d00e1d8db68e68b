"""One estimator protocol for CCGC and its baselines: ``fit``, ``fit_predict``, ``transform``.

Every estimator takes a PyG ``Data`` or ``(adjacency, features)`` and, once fitted, has

- ``labels_``: int64 numpy [N], the cluster of each node;
- ``confidence_``: float32 numpy [N] in [0, 1], 0 on a border: 1 - d1 / d2 for the squared distances
  to the nearest and the second nearest centre, or 1 - p2 / p1 for the probabilities of a read-out;
- ``embedding_``: float32 numpy [N, d] (CCGC in the narrow space: both views, [N, 2 d]);
- ``n_clusters_``: K.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from tenfold.ccgc.data import Graph, as_data
from tenfold.ccgc.kmeans import kmeans
from tenfold.ccgc.model import UnsharedEncoders
from tenfold.ccgc.objective import graph_regression_loss
from tenfold.ccgc.selection import BlockGraph
from tenfold.ccgc.settings import choose_settings
from tenfold.ccgc.smoothing import SmoothedFeatures, operator_of, smooth_with
from tenfold.ccgc.training import Protocol, TrainConfig, Training, confidence, embed_blocks
from tenfold.shared import compute
from tenfold.shared.errors import InputError


class GraphClusterer(ABC):
    """What all estimators share.

    Args:
        n_clusters: K, the number of clusters to find.
        seed: of all random numbers.
    """

    labels_: np.ndarray
    confidence_: np.ndarray
    embedding_: np.ndarray
    n_clusters_: int

    def __init__(self, n_clusters: int, *, seed: int = 0) -> None:
        if not isinstance(n_clusters, int | np.integer) or n_clusters < 1:
            raise InputError(f"n_clusters={n_clusters!r}; expected a whole number >= 1")
        self.n_clusters, self.seed = int(n_clusters), seed

    def fit(self, graph: Graph) -> Self:
        """Clusters the nodes of a graph.

        Args:
            graph: a PyG ``Data``, or ``(adjacency, features)`` as scipy or numpy matrices.

        Raises:
            InputError: the graph is malformed, or has fewer nodes than ``n_clusters``.
        """
        data = as_data(graph)
        if data.num_nodes < self.n_clusters:
            raise InputError(
                f"n_clusters={self.n_clusters} for {data.num_nodes} nodes; expected at most as many"
            )
        self.n_clusters_ = self.n_clusters
        labels, sure, embedding = self._fit(data)
        self.labels_, self.confidence_ = labels.cpu().numpy(), sure.float().cpu().numpy()
        self.embedding_ = embedding.cpu().numpy()
        return self

    def fit_predict(self, graph: Graph) -> np.ndarray:
        """:meth:`fit`, and the labels int64 [N]."""
        return self.fit(graph).labels_

    def fit_transform(self, graph: Graph) -> np.ndarray:
        """:meth:`fit`, and the embedding float32 [N, d]."""
        return self.fit(graph).embedding_

    @abstractmethod
    def transform(self, graph: Graph) -> np.ndarray:
        """The embedding float32 [M, d] of another graph with the same features."""

    @abstractmethod
    def _fit(self, data: Data) -> tuple[Tensor, Tensor, Tensor]:
        """Labels int64 [N], confidence float [N] in [0, 1], embedding float32 [N, d]."""

    def _require_fitted(self) -> None:
        if not hasattr(self, "labels_"):
            raise InputError(f"{type(self).__name__} is not fitted; call fit first")


class CCGC(GraphClusterer):
    """Cluster-guided contrastive graph clustering (Yang et al., AAAI 2023).

    Args:
        n_clusters: K.
        protocol: ``"final"`` never sees labels. ``"official-best"`` repeats the published protocol,
            which chooses the epoch with the true labels (``Data.y``).
        hops: t, smoothing steps; None: chosen without labels (official-best: 4).
        learning_rate: None: chosen without labels (official-best: 1e-4).
        seed: of all random numbers.
        **options: any other field of :class:`~tenfold.ccgc.training.TrainConfig`, such as
            ``epochs``, ``embedding_dim``, ``tau``, ``batch_size``, ``device``.

    Attributes:
        hops_, learning_rate_, space_: what was used.
        trials_: what the label-free choice compared, empty if nothing was open.
        history_: the metrics of every refresh.
        clustering_: the chosen refresh, with its epoch and quality.

    Example:
        >>> from tenfold.ccgc import CCGC, digits_graph
        >>> labels = CCGC(10, hops=3, learning_rate=1e-3, epochs=60).fit_predict(digits_graph())
    """

    def __init__(
        self,
        n_clusters: int,
        *,
        protocol: Protocol = "final",
        hops: int | None = None,
        learning_rate: float | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(n_clusters, seed=seed)
        try:
            self.config = TrainConfig(
                protocol=protocol, hops=hops, learning_rate=learning_rate, seed=seed, **options
            )
        except TypeError as error:
            raise InputError(str(error).replace("TrainConfig.__init__() ", "")) from None
        if protocol not in ("final", "official-best"):
            raise InputError(f"protocol={protocol!r}; expected 'final' or 'official-best'")

    def _fit(self, data: Data) -> tuple[Tensor, Tensor, Tensor]:
        config = replace(self.config, clusters=self.n_clusters)
        fabric = compute.fabric(config.device, config.devices, config.num_nodes, config.precision)
        data = data.to(fabric.device)
        config, self.trials_, begun = choose_settings(data, config, fabric)
        assert config.hops is not None
        assert config.learning_rate is not None
        self.hops_, self.learning_rate_ = config.hops, config.learning_rate
        self.space_ = config.space
        training = begun or prepare(data, config, fabric)
        self.clustering_ = training.run()
        self.history_ = training.history
        z, sure = training.outcome(self.clustering_)
        return self.clustering_.labels, sure, z

    def transform(self, graph: Graph) -> np.ndarray:
        """The fused embedding float32 [M, d] of another graph with the same features."""
        return self._embed(graph)[0].cpu().numpy()

    def predict(self, graph: Graph) -> np.ndarray:
        """Clusters int64 [M] of the nodes of another graph, decided as for the fitted one."""
        return self.clustering_.assign(*self._embed(graph)).cpu().numpy()

    def _embed(self, graph: Graph) -> tuple[Tensor, Tensor]:
        self._require_fitted()
        weights = self.clustering_.weights
        if not weights:
            raise InputError("the labels chose the state before training, which has no encoder")
        device, narrow = self.clustering_.centers.device, self.space_ == "narrow"
        return embed_graph(as_data(graph), weights, self.hops_, device, narrow)


def prepare(data: Data, config: TrainConfig, fabric: Any) -> Training:
    """The training of a checked graph under a configuration whose choices are made.

    Args:
        data: from :func:`~tenfold.ccgc.data.as_data`, on the fabric's device.
        config: with ``clusters``, ``hops`` and ``learning_rate`` given.
        fabric: where to run.
    """
    if config.clusters is None or config.hops is None:
        raise InputError("clusters and hops must be given")
    weight = getattr(data, "edge_weight", None)
    operator = operator_of(data)
    features = SmoothedFeatures(operator, data.x, config.hops)
    graph = BlockGraph(data.edge_index, weight)
    y = data.y if config.protocol == "official-best" else None
    return Training(features, config.clusters, config, graph, y, fabric)


def embed_graph(
    data: Data,
    weights: dict[str, Tensor],
    hops: int,
    device: torch.device | str = "cpu",
    narrow: bool = False,
) -> tuple[Tensor, Tensor]:
    """A graph under trained encoders.

    Returns:
        Its embedding, fused [N, d] or, narrow, both views [N, 2 d]; its smoothed features [N, D].

    Raises:
        InputError: the graph has another number of features than the encoders.
    """
    dim, width = weights["view1.weight"].shape
    if data.x.shape[1] != width:
        raise InputError(f"the graph has {data.x.shape[1]} features; the encoders expect {width}")
    encoders = UnsharedEncoders(width, dim).to(device)
    encoders.load_state_dict(weights)
    data = data.to(device)
    operator = operator_of(data)
    features = SmoothedFeatures(operator, data.x, hops)
    return torch.cat(list(embed_blocks(encoders, features, narrow))), features.dense


class KMeansBaseline(GraphClusterer):
    """k-means on the features themselves; the graph is not used.

    Args:
        n_clusters: K.
        n_init: number of k-means++ starts.
        seed: of all random numbers.
    """

    hops = 0

    def __init__(self, n_clusters: int, *, n_init: int = 10, seed: int = 0) -> None:
        super().__init__(n_clusters, seed=seed)
        self.n_init = n_init

    def _fit(self, data: Data) -> tuple[Tensor, Tensor, Tensor]:
        rows = self._rows(data)
        generator = torch.Generator().manual_seed(self.seed)
        result = kmeans(rows, self.n_clusters, n_init=self.n_init, generator=generator)
        return result.labels, confidence(rows, result.centers, result.labels), rows

    def transform(self, graph: Graph) -> np.ndarray:
        """The (smoothed) features float32 [M, D] of another graph."""
        return self._rows(as_data(graph)).numpy()

    def _rows(self, data: Data) -> Tensor:
        operator = operator_of(data)
        return smooth_with(operator, data.x, self.hops)


class SSGC(KMeansBaseline):
    """k-means on the smoothed features, without training (SGC/SSGC type).

    Args:
        n_clusters: K.
        hops: t, smoothing steps.
        n_init: number of k-means++ starts.
        seed: of all random numbers.
    """

    def __init__(self, n_clusters: int, *, hops: int = 4, n_init: int = 10, seed: int = 0) -> None:
        super().__init__(n_clusters, n_init=n_init, seed=seed)
        self.hops = hops


class SCGC(GraphClusterer):
    """Simple contrastive graph clustering: Gaussian noise as the second view.

    Two un-shared linear encoders of the smoothed features; Gaussian noise of standard deviation
    ``sigma`` is added to the second view during training, and the cross-view similarities are
    regressed on the graph, ``MSE(Z1 Z2^T, A + I)``. k-means on the fused embedding at the end. The
    loss is evaluated in O(E d + N d^2), without the N x N matrix.

    Args:
        n_clusters: K.
        hops: t, smoothing steps.
        learning_rate: of Adam.
        sigma: standard deviation of the noise.
        epochs: full-batch steps.
        embedding_dim: d.
        n_init: number of k-means++ starts.
        seed: of all random numbers.
    """

    def __init__(
        self,
        n_clusters: int,
        *,
        hops: int = 3,
        learning_rate: float = 1e-3,
        sigma: float = 0.01,
        epochs: int = 400,
        embedding_dim: int = 500,
        n_init: int = 10,
        seed: int = 0,
    ) -> None:
        super().__init__(n_clusters, seed=seed)
        self.hops, self.learning_rate, self.sigma = hops, learning_rate, sigma
        self.epochs, self.embedding_dim, self.n_init = epochs, embedding_dim, n_init

    def _fit(self, data: Data) -> tuple[Tensor, Tensor, Tensor]:
        compute.seed_everything(self.seed)
        operator = operator_of(data)
        features = SmoothedFeatures(operator, data.x, self.hops)
        keep = data.edge_index[0] != data.edge_index[1]
        loops = torch.arange(data.num_nodes)
        source, target = (torch.cat([end[keep], loops]) for end in data.edge_index)
        encoders = UnsharedEncoders(features.shape[1], self.embedding_dim)
        optimizer = torch.optim.Adam(encoders.parameters(), lr=self.learning_rate, fused=True)
        for _ in range(self.epochs):
            z1, z2 = encoders(features)
            z2 = nn.functional.normalize(z2 + self.sigma * torch.randn_like(z2))
            loss = graph_regression_loss(z1, z2, source, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self._weights = {key: value.detach() for key, value in encoders.state_dict().items()}
        z = torch.cat(list(embed_blocks(encoders, features)))
        generator = torch.Generator().manual_seed(self.seed)
        result = kmeans(z, self.n_clusters, n_init=self.n_init, generator=generator)
        return result.labels, confidence(z, result.centers, result.labels), z

    def transform(self, graph: Graph) -> np.ndarray:
        """The fused embedding float32 [M, d] of another graph with the same features."""
        self._require_fitted()
        return embed_graph(as_data(graph), self._weights, self.hops)[0].numpy()
