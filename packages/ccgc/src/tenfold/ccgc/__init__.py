"""CCGC: cluster-guided contrastive graph clustering (AAAI 2023)."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tenfold.ccgc.clusters import estimate_clusters
    from tenfold.ccgc.data import as_data, attributed_graph, digits_graph, load, read_tables
    from tenfold.ccgc.estimators import CCGC, SCGC, SSGC, KMeansBaseline
    from tenfold.ccgc.evaluation import graph_scores, label_scores
    from tenfold.ccgc.kmeans import KMeans
    from tenfold.ccgc.model import UnsharedEncoders
    from tenfold.ccgc.smoothing import smooth
    from tenfold.ccgc.training import TrainConfig

_HOMES = {
    "CCGC": "estimators",
    "SCGC": "estimators",
    "SSGC": "estimators",
    "KMeansBaseline": "estimators",
    "KMeans": "kmeans",
    "TrainConfig": "training",
    "UnsharedEncoders": "model",
    "as_data": "data",
    "attributed_graph": "data",
    "digits_graph": "data",
    "estimate_clusters": "clusters",
    "graph_scores": "evaluation",
    "label_scores": "evaluation",
    "load": "data",
    "read_tables": "data",
    "smooth": "smoothing",
}

__all__ = [
    "CCGC",
    "SCGC",
    "SSGC",
    "KMeans",
    "KMeansBaseline",
    "TrainConfig",
    "UnsharedEncoders",
    "as_data",
    "attributed_graph",
    "digits_graph",
    "estimate_clusters",
    "graph_scores",
    "label_scores",
    "load",
    "read_tables",
    "smooth",
]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that importing the package is quick."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
