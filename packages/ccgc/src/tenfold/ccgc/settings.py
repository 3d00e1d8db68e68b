"""The choice of hops and learning rate without labels.

Like the stopping rule in :mod:`tenfold.ccgc.selection`, this is the package's own contribution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch_geometric.data import Data

from tenfold.ccgc.selection import BlockGraph, Quality
from tenfold.ccgc.smoothing import SmoothedFeatures, normalized_adjacency
from tenfold.ccgc.training import TrainConfig, Training, weighted_features, with_defaults
from tenfold.shared.progress import progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric

HOPS = (2, 3, 4, 6, 8)
LEARNING_RATES = (1e-4, 1e-3)
OFFICIAL = (4, 1e-4)  # hops and learning rate of the official settings file (Cora)


@dataclass(frozen=True)
class Trial:
    """One pair of settings and how its clustering looks without labels."""

    hops: int
    learning_rate: float
    quality: Quality


def choose_settings(
    data: Data, config: TrainConfig, fabric: Fabric
) -> tuple[TrainConfig, list[Trial]]:
    """Fills in the hops and the learning rate that a configuration leaves open.

    Args:
        data: a checked graph, on the fabric's device.
        config: with ``clusters`` given.
        fabric: where the pilots run.

    Returns:
        The configuration with both given, and the trials that were compared (none if nothing was
        open, or in official-best, which takes the official settings).
    """
    if config.hops is not None and config.learning_rate is not None:
        return config, []
    if config.protocol == "official-best":
        return with_defaults(config, *OFFICIAL), []
    assert config.clusters is not None
    weight = getattr(data, "edge_weight", None)
    operator = normalized_adjacency(data.edge_index, data.num_nodes, weight)
    graph = BlockGraph(data.edge_index, weight)
    x = weighted_features(data, config)
    hops_open = HOPS if config.hops is None else (config.hops,)
    rates_open = LEARNING_RATES if config.learning_rate is None else (config.learning_rate,)
    trials = []
    with progress("choosing hops and learning rate", total=len(hops_open) * len(rates_open)) as bar:
        for hops in hops_open:
            features = SmoothedFeatures(operator, x, hops)
            for rate in rates_open:
                pilot = with_defaults(config, hops, rate)
                found = Training(features, config.clusters, pilot, graph, fabric=fabric).run()
                assert found.quality is not None
                trials.append(Trial(hops, rate, found.quality))
                bar.update(hops=hops, learning_rate=rate, score=found.quality.score)
    best = max(trials, key=lambda trial: trial.quality.score)
    return with_defaults(config, best.hops, best.learning_rate), trials
