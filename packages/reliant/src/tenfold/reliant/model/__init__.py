"""The networks: teachers and students by name, and PLP."""

from tenfold.reliant.model.graphs import APPNP, GAT, GCN, MLP, MODELS, SAGE, SGC
from tenfold.reliant.model.plp import PLP

__all__ = ["APPNP", "GAT", "GCN", "MLP", "MODELS", "PLP", "SAGE", "SGC"]
