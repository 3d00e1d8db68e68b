"""RELIANT: fair knowledge distillation for graph neural networks (SDM 2023)."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tenfold.reliant.data import biased_graph, fair_graph, load, read_tables, similarity_edges
    from tenfold.reliant.evaluation import bootstrap, by_group, calibration, hypervolume, scores
    from tenfold.reliant.frameworks import CPF, GraphAKD, SoftLabels
    from tenfold.reliant.model.graphs import APPNP, GAT, GCN, MLP, SAGE, SGC
    from tenfold.reliant.model.plp import PLP
    from tenfold.reliant.objective import bias, soft_step
    from tenfold.reliant.sampling import neighbour_batches
    from tenfold.reliant.teachers import train_teacher
    from tenfold.reliant.training import TrainConfig
    from tenfold.reliant.wrapper import Deployed, Reliant

_HOMES = {
    **dict.fromkeys(
        ["biased_graph", "fair_graph", "load", "read_tables", "similarity_edges"], "data"
    ),
    **dict.fromkeys(
        ["bootstrap", "by_group", "calibration", "hypervolume", "scores"], "evaluation"
    ),
    **dict.fromkeys(["CPF", "GraphAKD", "SoftLabels"], "frameworks"),
    **dict.fromkeys(["APPNP", "GAT", "GCN", "MLP", "SAGE", "SGC"], "model.graphs"),
    "PLP": "model.plp",
    **dict.fromkeys(["bias", "soft_step"], "objective"),
    "neighbour_batches": "sampling",
    "train_teacher": "teachers",
    "TrainConfig": "training",
    **dict.fromkeys(["Deployed", "Reliant"], "wrapper"),
}

__all__ = [
    "APPNP",
    "CPF",
    "GAT",
    "GCN",
    "MLP",
    "PLP",
    "SAGE",
    "SGC",
    "Deployed",
    "GraphAKD",
    "Reliant",
    "SoftLabels",
    "TrainConfig",
    "bias",
    "biased_graph",
    "bootstrap",
    "by_group",
    "calibration",
    "fair_graph",
    "hypervolume",
    "load",
    "neighbour_batches",
    "read_tables",
    "scores",
    "similarity_edges",
    "soft_step",
    "train_teacher",
]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that importing the package is quick."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
