"""The choice of hops and learning rate without labels.

Like the stopping rule in :mod:`tenfold.ccgc.selection`, this is the package's own contribution. Two
kinds of graph need different settings, and their edges tell them apart: in a graph of communities
an untrained clustering is already dense inside (modularity of 0.3 or more), and a short, gentle
training suffices; in a graph of roles (hubs, periphery) it is not, and the role of a node shows
only after many hops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch_geometric.data import Data

from tenfold.ccgc.selection import MODULAR, BlockGraph, Quality
from tenfold.ccgc.smoothing import SmoothedFeatures, operator_of
from tenfold.ccgc.training import TrainConfig, Training, with_defaults
from tenfold.shared.progress import progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric

COMMUNITIES = ((2, 3, 4), 1e-4)  # hops to try and learning rate
ROLES = ((4, 8, 12), 1e-3)
PROBE_HOPS = 3  # smoothing at which the kind of graph is decided
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

    The kind of graph decides the learning rate and which hops are tried; one training for each
    number of hops is made, and the one whose clustering has the best
    :attr:`~tenfold.ccgc.selection.Quality.score` is taken.

    Args:
        data: a checked graph, on the fabric's device.
        config: with ``clusters`` given.
        fabric: where the trainings run.

    Returns:
        The configuration with both given, and the trials that were compared (none if the hops were
        given, or in official-best, which takes the official settings).
    """
    if config.hops is not None and config.learning_rate is not None:
        return config, []
    if config.protocol == "official-best":
        return with_defaults(config, *OFFICIAL), []
    assert config.clusters is not None
    weight = getattr(data, "edge_weight", None)
    operator = operator_of(data)
    graph = BlockGraph(data.edge_index, weight)
    probe = SmoothedFeatures(operator, data.x, PROBE_HOPS)
    modularity = Training(
        probe, config.clusters, with_defaults(config, PROBE_HOPS, 1.0), graph, fabric=fabric
    ).untrained_modularity()
    hops_open, rate = COMMUNITIES if modularity >= MODULAR else ROLES
    if config.hops is not None:
        return with_defaults(config, config.hops, rate), []
    trials = []
    with progress("choosing hops", total=len(hops_open)) as bar:
        for hops in hops_open:
            features = SmoothedFeatures(operator, data.x, hops)
            pilot = with_defaults(config, hops, rate)
            found = Training(features, config.clusters, pilot, graph, fabric=fabric).run()
            assert found.quality is not None
            assert pilot.learning_rate is not None
            trials.append(Trial(hops, pilot.learning_rate, found.quality))
            bar.update(hops=hops, score=found.quality.score)
    best = max(trials, key=lambda trial: trial.quality.score)
    return with_defaults(config, best.hops, best.learning_rate), trials
