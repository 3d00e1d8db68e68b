"""Laplacian smoothing: the low-pass filter that replaces graph convolutions.

.. math:: \\tilde X = (I - L)^t X = (\\hat D^{-1/2} \\hat A \\hat D^{-1/2})^t X,
          \\quad \\hat A = A + I

It is computed once, before training, by t sparse products; no N x N matrix is formed.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch_geometric.data import Data

from tenfold.shared.errors import InputError

COLUMN_BLOCK = 64  # columns smoothed at once in float64: bounds memory for wide features
CACHED_COLUMNS = 125  # columns of a factored product that go through all its factors at once
SPARSE_COST = 16  # a multiply-add of a sparse product costs about this many dense ones


def normalized_adjacency(
    edge_index: Tensor, num_nodes: int, edge_weight: Tensor | None = None
) -> Tensor:
    """The smoothing operator ``S = D^-1/2 (A + I) D^-1/2`` (one minus the normalised Laplacian).

    Self-loops in ``edge_index`` are removed first. Without weights a repeated edge counts once;
    with weights its weights add up.

    Args:
        edge_index: int64 [2, E], both directions of each undirected edge.
        num_nodes: N.
        edge_weight: optional [E], >= 0.

    Returns:
        Sparse CSR float64 [N, N], symmetric.

    Raises:
        InputError: a node number is outside 0..N-1.
    """
    if edge_index.numel() and (int(edge_index.min()) < 0 or int(edge_index.max()) >= num_nodes):
        raise InputError(
            f"edge_index holds node numbers {int(edge_index.min())}..{int(edge_index.max())}; "
            f"expected 0..{num_nodes - 1}"
        )
    keep = edge_index[0] != edge_index[1]
    loops = torch.arange(num_nodes, device=edge_index.device)
    row = torch.cat([edge_index[0][keep], loops])
    column = torch.cat([edge_index[1][keep], loops])
    code, slot = torch.unique(row * num_nodes + column, return_inverse=True)  # sorted by row
    row, column = code // num_nodes, code % num_nodes
    value = torch.ones(len(code), dtype=torch.float64, device=edge_index.device)
    if edge_weight is not None:
        given = torch.cat([edge_weight[keep].double(), torch.ones_like(loops, dtype=torch.float64)])
        value = torch.zeros_like(value).index_add_(0, slot, given)
    degree = torch.zeros(num_nodes, dtype=torch.float64, device=row.device)
    scale = degree.index_add_(0, row, value).rsqrt()
    pointer = torch.zeros(num_nodes + 1, dtype=torch.int64, device=row.device)
    pointer[1:] = torch.bincount(row, minlength=num_nodes).cumsum(0)
    size = (num_nodes, num_nodes)
    return _csr(pointer, column, scale[row] * value * scale[column], size)


def operator_of(data: Data) -> Tensor:
    """:func:`normalized_adjacency` of a graph, with its edge weights if it has any."""
    weight = getattr(data, "edge_weight", None)
    return normalized_adjacency(data.edge_index, data.num_nodes, weight)


def smooth(x: Tensor, edge_index: Tensor, hops: int) -> Tensor:
    """Smoothed node features.

    Args:
        x: [N, D], dense or sparse, any real type; computed in float64, some columns at a time.
        edge_index: int64 [2, E], both directions of each undirected edge.
        hops: t, the number of applications of the filter; 0 gives ``x`` itself.

    Returns:
        float32 [N, D].

    Raises:
        InputError: ``hops`` is negative, or ``x`` holds NaN or infinite values.
    """
    return smooth_with(normalized_adjacency(edge_index, x.shape[0]), x, hops)


def smooth_with(operator: Tensor, x: Tensor, hops: int) -> Tensor:
    """:func:`smooth` with an operator from :func:`normalized_adjacency` that is already there."""
    if hops < 0:
        raise InputError(f"hops={hops}; expected a number of smoothing steps >= 0")
    dense = x.to_dense() if x.layout != torch.strided else x
    check_finite(dense)
    result = torch.empty(dense.shape, dtype=torch.float32, device=x.device)
    for start in range(0, dense.shape[1], COLUMN_BLOCK):
        block = dense[:, start : start + COLUMN_BLOCK].to(operator.dtype)
        for _ in range(hops):
            block = operator @ block
        result[:, start : start + COLUMN_BLOCK] = block
    return result


def check_finite(x: Tensor) -> None:
    """Refuses NaN and infinite features, naming the first node that has one."""
    if not bool(torch.isfinite(x.sum())):
        bad = (~torch.isfinite(x)).nonzero()
        if len(bad):
            node, column = bad[0].tolist()
            raise InputError(
                f"features: node {node}, column {column} is {float(x[node, column])} "
                f"({len(bad)} such values); expected finite numbers"
            )


class SmoothedFeatures:
    """Smoothed features that are only ever multiplied by weight matrices.

    ``X~ W`` is either one dense product, or, for sparse features on a sparse graph, the factors
    ``S (S (... (X W)))``: the same numbers up to rounding for a fraction of the work (Cora, t = 4:
    0.2 instead of 7.8 billion operations). The cheaper of the two is taken.

    Args:
        operator: S, from :func:`normalized_adjacency`.
        x: features [N, D], dense.
        hops: t.
        factored: forces one form; by default the cost decides.

    Attributes:
        dense: float32 [N, D], the smoothed features themselves.
    """

    def __init__(
        self, operator: Tensor, x: Tensor, hops: int, factored: bool | None = None
    ) -> None:
        self.dense = smooth_with(operator, x, hops)
        self.hops = hops
        nodes, width = x.shape
        work = int(torch.count_nonzero(x)) + hops * operator.values().numel()
        self.factored = work * SPARSE_COST < nodes * width if factored is None else factored
        if self.factored:
            self._operator = _narrow(operator)
            self._x = _narrow(_to_csr(x))
            self._x_transposed = _narrow(_to_csr(x.T.contiguous()))

    @property
    def shape(self) -> torch.Size:
        """N and D."""
        return self.dense.shape

    @property
    def device(self) -> torch.device:
        """Where the features lie."""
        return self.dense.device

    def __matmul__(self, weight: Tensor) -> Tensor:
        """``X~ W`` for a float32 weight [D, M], differentiable in the weight."""
        if self.factored:
            with torch.autocast(weight.device.type, enabled=False):  # no sparse half precision
                return _FactoredProduct.apply(weight, self)
        return self.dense @ weight

    def rows(self, index: Tensor) -> SmoothedFeatures:
        """A subset of the nodes, int64 [n]; always dense."""
        subset = object.__new__(SmoothedFeatures)
        subset.dense, subset.hops, subset.factored = self.dense[index], self.hops, False
        return subset


def _to_csr(x: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")
        return x.float().to_sparse_csr()


def _narrow(matrix: Tensor) -> Tensor:
    """float32 values and int32 indices, which the sparse products of MKL take without a copy."""
    return _csr(
        matrix.crow_indices().int(),
        matrix.col_indices().int(),
        matrix.values().float(),
        tuple(matrix.shape),
    )


def _csr(pointer: Tensor, column: Tensor, value: Tensor, size: tuple[int, ...]) -> Tensor:
    """A sparse CSR tensor, without torch's notices that the layout is in beta and unchecked."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")
        return torch.sparse_csr_tensor(pointer, column, value, size)


class _FactoredProduct(torch.autograd.Function):
    """``S^t (X W)`` and its gradient ``X^T (S^t G)``; S is symmetric."""

    @staticmethod
    def forward(ctx: FunctionCtx, weight: Tensor, features: SmoothedFeatures) -> Tensor:
        ctx.features = features  # type: ignore[attr-defined]
        return _chain([features._x] + features.hops * [features._operator], weight)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        features: SmoothedFeatures = ctx.features  # type: ignore[attr-defined]
        factors = features.hops * [features._operator] + [features._x_transposed]
        return _chain(factors, gradient), None


def _chain(factors: list[Tensor], right: Tensor) -> Tensor:
    """Multiplies a dense matrix by each sparse factor in turn.

    The columns go through all factors a block at a time, so that a block stays in the cache, and
    each product is written where it belongs (``factor @ block`` would fill and copy it first).
    """
    product = right.new_empty(factors[-1].shape[0], right.shape[1])
    for start in range(0, right.shape[1], CACHED_COLUMNS):
        columns = slice(start, start + CACHED_COLUMNS)
        block = right[:, columns].contiguous()
        for factor in factors:
            out = block.new_empty(factor.shape[0], block.shape[1])
            block = torch.addmm(out, factor, block, beta=0, out=out)
        product[:, columns] = block
    return product
