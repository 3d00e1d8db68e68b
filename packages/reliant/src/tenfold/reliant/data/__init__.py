"""Graphs with a sensitive attribute: readers of the official files, user tables, generated ones.

Every reader gives a PyG ``Data`` with ``x`` float32 [N, d], ``edge_index`` int64 [2, E] (both
directions, each once, no self-loops), ``y`` and ``sensitive`` int64 [N], and the three masks.
"""

from tenfold.reliant.data.catalogue import CATALOGUE, COUNTS, load
from tenfold.reliant.data.generated import biased_graph
from tenfold.reliant.data.graph import SPLITS, check_graph, fair_graph, statistics
from tenfold.reliant.data.readers import read_predictions, read_tables
from tenfold.reliant.data.similarity import similarity_edges
from tenfold.reliant.data.splits import class_wise_split

__all__ = [
    "CATALOGUE",
    "COUNTS",
    "SPLITS",
    "biased_graph",
    "check_graph",
    "class_wise_split",
    "fair_graph",
    "load",
    "read_predictions",
    "read_tables",
    "similarity_edges",
    "statistics",
]
