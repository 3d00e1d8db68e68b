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
from tenfold.ccgc.training import Space, TrainConfig, Training, with_defaults
from tenfold.shared.progress import progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Candidate = tuple[Space, int]  # a space and a number of hops

# What is tried, and the learning rate.
COMMUNITIES: tuple[tuple[Candidate, ...], float] = ((("narrow", 4), ("wide", 3)), 1e-4)
ROLES: tuple[tuple[Candidate, ...], float] = (
    tuple(("wide", hops) for hops in (4, 8, 12, 16, 24)),
    1e-3,
)
LOSS = 0.025  # modularity that the narrow space may cost
PROBE_HOPS = 3  # smoothing at which the kind of graph is decided
OFFICIAL = (4, 1e-4)  # hops and learning rate of the official settings file (Cora)


@dataclass(frozen=True)
class Trial:
    """One pair of settings and how its clustering looks without labels."""

    hops: int
    learning_rate: float
    space: Space
    modularity: float
    quality: Quality


def choose_settings(
    data: Data, config: TrainConfig, fabric: Fabric
) -> tuple[TrainConfig, list[Trial], Training | None]:
    """Fills in the hops, the learning rate and the space that a configuration leaves open.

    The kind of graph decides the learning rate and which hops and spaces are tried. In a graph of
    roles all are trained to the end, in one of communities to the first refresh after the warm-up,
    where a space that merges clusters already shows; :func:`preferred` takes one.

    Args:
        data: a checked graph, on the fabric's device.
        config: with ``clusters`` given.
        fabric: where the trainings run.

    Returns:
        The configuration with all given, the trials that were compared (none if the hops were
        given, or in official-best, which takes the official settings), and the training of the
        preferred one, to be gone on with.
    """
    if config.hops is not None and config.learning_rate is not None:
        return config, [], None
    if config.protocol == "official-best":
        return with_defaults(config, *OFFICIAL), [], None
    assert config.clusters is not None
    weight = getattr(data, "edge_weight", None)
    operator = operator_of(data)
    graph = BlockGraph(data.edge_index, weight)
    probe = SmoothedFeatures(operator, data.x, PROBE_HOPS)
    modularity = Training(
        probe, config.clusters, with_defaults(config, PROBE_HOPS, 1.0), graph, fabric=fabric
    ).untrained_modularity()
    communities = modularity >= MODULAR
    candidates, rate = COMMUNITIES if communities else ROLES
    if config.hops is not None:
        return with_defaults(config, config.hops, rate), [], None
    if config.space is not None:
        candidates = tuple((config.space, hops) for _, hops in candidates)
    tried: list[tuple[Trial, Training]] = []
    with progress("choosing hops", total=len(candidates)) as bar:
        for space, hops in candidates:
            pilot = with_defaults(config, hops, rate, space)
            features = SmoothedFeatures(operator, data.x, hops)
            training = Training(features, config.clusters, pilot, graph, fabric=fabric)
            training.advance(training.first_choice if communities else pilot.epochs)
            found = training.best
            assert found is not None
            assert found.quality is not None
            assert pilot.learning_rate is not None
            dense = graph.modularity(found.labels, config.clusters)
            trial = Trial(hops, pilot.learning_rate, space, dense, found.quality)
            tried.append((trial, training))
            bar.update(hops=hops, space=space, score=found.quality.score)
    trials = [trial for trial, _ in tried]
    # Processes may round differently; all go on with what the first prefers.
    training = tried[fabric.broadcast(trials.index(preferred(trials)))][1]
    return training.config, trials, training


def preferred(trials: list[Trial]) -> Trial:
    """The narrow space unless it costs modularity; among several in one space the best score.

    K clusters span K directions, so the narrow space is the rule. Where two clusters share a
    direction it merges them, and the edges show it: modularity falls.
    """
    narrow, wide = (
        max((t for t in trials if t.space == s), key=lambda t: t.quality.score, default=None)
        for s in ("narrow", "wide")
    )
    if narrow is None or wide is None:
        return narrow or wide  # type: ignore[return-value]
    return wide if wide.modularity - narrow.modularity > LOSS else narrow
