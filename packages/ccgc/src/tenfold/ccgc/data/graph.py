"""From whatever holds a graph to one checked PyG ``Data``."""

from __future__ import annotations

import warnings
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor
from torch_geometric.data import Data

from tenfold.ccgc.smoothing import check_finite
from tenfold.shared.errors import InputError

Graph: TypeAlias = Data | tuple[Any, Any]
"""A PyG ``Data``, or ``(adjacency, features)`` as scipy sparse matrices or numpy arrays."""


def as_data(graph: Graph) -> Data:
    """A checked, symmetric PyG ``Data`` of any accepted form of a graph.

    Args:
        graph: a ``Data`` with ``x``, ``edge_index``, perhaps ``edge_weight`` [E] and ``y``, or
            ``(adjacency, features)`` with an N x N matrix and an N x D matrix.

    Returns:
        A new ``Data``; the input is left as it was. An asymmetric adjacency is symmetrised by the
        maximum of both directions, with a warning.

    Raises:
        InputError: missing parts, wrong shapes, features that are not finite, negative weights.
    """
    if isinstance(graph, tuple):
        if len(graph) != 2:
            raise InputError(f"a tuple of {len(graph)} given; expected (adjacency, features)")
        return from_adjacency(*graph)
    for part in ("x", "edge_index"):
        if getattr(graph, part, None) is None:
            raise InputError(f"the graph has no {part}; expected a PyG Data with x and edge_index")
    x, edge_index = graph.x, graph.edge_index
    if x.dim() != 2:
        raise InputError(f"x has shape {tuple(x.shape)}; expected [nodes, features]")
    if edge_index.dim() != 2 or edge_index.shape[0] != 2:
        raise InputError(f"edge_index has shape {tuple(edge_index.shape)}; expected [2, edges]")
    weight = getattr(graph, "edge_weight", None)
    if weight is not None and weight.shape != edge_index.shape[1:]:
        raise InputError(
            f"edge_weight has shape {tuple(weight.shape)}; expected [{edge_index.shape[1]}]"
        )
    nodes = x.shape[0]
    if edge_index.numel() and (int(edge_index.min()) < 0 or int(edge_index.max()) >= nodes):
        raise InputError(
            f"edge_index holds node numbers {int(edge_index.min())}..{int(edge_index.max())}, "
            f"but x has {nodes} rows; expected 0..{nodes - 1}"
        )
    value = np.ones(edge_index.shape[1]) if weight is None else weight.cpu().double().numpy()
    source, target = edge_index.cpu().numpy()
    largest = merge_maximum(source, target, value, nodes)
    y = getattr(graph, "y", None)
    return _assemble(largest, x, y, weighted=weight is not None)


def from_adjacency(adjacency: Any, features: Any, labels: Any = None) -> Data:
    """:func:`as_data` for matrices.

    Args:
        adjacency: scipy sparse or numpy [N, N]; entries other than 0 and 1 are edge weights.
        features: scipy sparse or numpy [N, D].
        labels: optional [N]; the distinct values become 0, 1, 2, ...
    """
    matrix = sp.coo_array(adjacency)
    dense = features.toarray() if sp.issparse(features) else np.asarray(features)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"adjacency has shape {matrix.shape}; expected a square matrix")
    if dense.ndim != 2 or dense.shape[0] != matrix.shape[0]:
        raise InputError(
            f"features have shape {dense.shape}; expected [{matrix.shape[0]}, features], "
            "a row for each node of the adjacency"
        )
    matrix.eliminate_zeros()
    weighted = bool((matrix.data != 1).any())
    row, column = matrix.coords
    largest = merge_maximum(row, column, matrix.data.astype(np.float64), matrix.shape[0])
    if not np.issubdtype(dense.dtype, np.floating):
        dense = dense.astype(np.float32)
    y = None if labels is None else torch.as_tensor(class_numbers(labels))
    return _assemble(largest, torch.as_tensor(dense), y, weighted)


def class_numbers(labels: Any) -> np.ndarray:
    """Any labels (numbers or texts, counted from anywhere) as int64 0, 1, 2, ... in order."""
    flat = np.asarray(labels)
    if flat.ndim == 2 and flat.shape[1] == 1:
        flat = flat[:, 0]
    if flat.ndim != 1:
        raise InputError(f"labels have shape {flat.shape}; expected one label for each node")
    return np.unique(flat, return_inverse=True)[1].astype(np.int64)


def edges_of(data: Data) -> int:
    """Number of undirected edges without self-loops."""
    source, target = data.edge_index
    return int((source < target).sum())


def merge_maximum(
    row: np.ndarray, column: np.ndarray, value: np.ndarray, nodes: int
) -> sp.csr_array:
    """The N x N matrix whose repeated entries are merged by their maximum.

    Raises:
        InputError: a value is negative or not finite.
    """
    if value.size and not (np.isfinite(value).all() and value.min() >= 0):
        raise InputError(
            f"edge weights lie in [{value.min()}, {value.max()}]; expected finite >= 0"
        )
    order = np.lexsort((value, column, row))
    row, column, value = row[order], column[order], value[order]
    last = np.ones(len(row), dtype=bool)
    last[:-1] = (row[1:] != row[:-1]) | (column[1:] != column[:-1])
    return sp.csr_array((value[last], (row[last], column[last])), shape=(nodes, nodes))


def _assemble(matrix: sp.csr_array, x: Tensor, y: Tensor | None, weighted: bool) -> Data:
    symmetric = matrix.maximum(matrix.T)
    if symmetric.nnz != matrix.nnz or (symmetric != matrix).nnz:
        warnings.warn(
            "the graph is not symmetric: each edge now counts in both directions, "
            "with the larger of its two weights",
            stacklevel=3,
        )
    x = x.to_dense() if x.layout != torch.strided else x
    check_finite(x)
    coo = symmetric.tocoo()
    edge_index = torch.as_tensor(np.stack(coo.coords).astype(np.int64))
    data = Data(x=x, edge_index=edge_index)
    if weighted:
        data.edge_weight = torch.as_tensor(coo.data.astype(np.float64))
    if y is not None:
        if y.shape[0] != x.shape[0]:
            raise InputError(f"{y.shape[0]} labels for {x.shape[0]} nodes; expected one for each")
        data.y = torch.as_tensor(class_numbers(y.cpu().numpy()))
    return data
