"""Attributed graphs: the readers of the official files, the catalogue, and generated graphs.

Every reader gives a PyG ``Data`` with ``x`` (float32 or float64, [N, D]), ``edge_index`` (int64
[2, E], both directions, each edge once), where the file has them ``edge_weight`` and ``y`` (int64
[N], classes counted from 0).
"""

from tenfold.ccgc.data.catalogue import CATALOGUE, load, statistics
from tenfold.ccgc.data.generated import attributed_graph, digits_graph
from tenfold.ccgc.data.graph import Graph, as_data, edges_of
from tenfold.ccgc.data.readers import (
    read_airports,
    read_gnn_benchmark,
    read_npy_folder,
    read_planetoid,
    read_tables,
)

__all__ = [
    "CATALOGUE",
    "Graph",
    "as_data",
    "attributed_graph",
    "digits_graph",
    "edges_of",
    "load",
    "read_airports",
    "read_gnn_benchmark",
    "read_npy_folder",
    "read_planetoid",
    "read_tables",
    "statistics",
]
