"""Sparse products with the self-looped adjacency, and dropout of its entries.

Every model of the package propagates through :class:`Adjacency`: one CSR pattern, made once. Since
the pattern is symmetric, the transpose of a product with masked entries is the same pattern with
its values permuted, and the permutation is computed once too.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import dropout as torch_dropout
from torch.utils.weak import WeakTensorKeyDictionary

from tenfold.shared.errors import InputError

_LANES = 1 << 16


def keep_mask(size: int, p: float, device: torch.device) -> tuple[Tensor, float]:
    """Draws which of ``size`` numbers a dropout of rate ``p`` keeps.

    torch draws 64 random bits at a time, and 16 of them decide about one number: several times
    faster than ``bernoulli_`` on a CPU. The rate is rounded to a multiple of 2^-16.

    Args:
        size: how many.
        p: rate in [0, 1).
        device: where.

    Returns:
        bool [size], and ``1 / (1 - p)`` for the rounded rate.
    """
    dropped = round(p * _LANES)
    bits = torch.empty(-(-size // 4), dtype=torch.int64, device=device)
    lanes = bits.random_(-(2**63), None).view(torch.int16)[:size]
    return lanes >= dropped - _LANES // 2, _LANES / (_LANES - dropped)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout as in torch, with :func:`keep_mask` on the CPU.

    Args:
        x: float, any shape.
        p: rate in [0, 1).
        training: whether to drop.
    """
    if not training or p == 0:
        return x
    if x.device.type != "cpu":
        return torch_dropout(x, p)
    kept, scale = keep_mask(x.numel(), p, x.device)
    return x * kept.view(x.shape).to(x.dtype).mul_(scale)


class Adjacency:
    """The symmetric pattern A of a graph with a self-loop at each node, as CSR.

    Args:
        edge_index: int64 [2, E] with both directions; loops and repetitions do not matter.
        nodes: N.

    Raises:
        InputError: for a node that is not there, or an edge without its other direction.

    Attributes:
        nodes: N.
        entries: number of entries, loops included.
        degree: float [N], entries of each row.
    """

    def __init__(self, edge_index: Tensor, nodes: int) -> None:
        device = edge_index.device
        if edge_index.numel() and (int(edge_index.min()) < 0 or int(edge_index.max()) >= nodes):
            raise InputError(
                f"edge_index: nodes {int(edge_index.min())} to {int(edge_index.max())}; expected 0 "
                f"to {nodes - 1}"
            )
        loops = torch.arange(nodes, device=device)
        key = torch.cat([edge_index[0] * nodes + edge_index[1], loops * nodes + loops]).unique()
        row, column = key // nodes, key % nodes
        self.nodes, self.entries = nodes, len(key)
        count = torch.bincount(row, minlength=nodes)
        kind = torch.int32 if len(key) < 2**31 else torch.int64
        self.crow = torch.cat([count.new_zeros(1), count.cumsum(0)]).to(kind)
        self.column = column.to(kind)
        self.row = row.to(kind)
        turned = column * nodes + row
        self.transposed = torch.searchsorted(key, turned).clamp(max=len(key) - 1)
        if not torch.equal(key[self.transposed], turned):
            lone = int((key[self.transposed] != turned).nonzero()[0, 0])
            raise InputError(
                f"edge_index: {int(row[lone])} -> {int(column[lone])} has no edge back; expected "
                "both directions, as tenfold.reliant.fair_graph makes them"
            )
        self.degree = count.float()
        self.ones = torch.ones(self.entries, device=device)
        self._root = self.degree.rsqrt()[:, None]

    def product(self, x: Tensor) -> Tensor:
        """``A x``: each node's sum over its neighbours and itself.

        Args:
            x: float [N, c].
        """
        return _Product.apply(self, None, x)

    def masked_product(self, kept: Tensor, scale: float, x: Tensor) -> Tensor:
        """``(M A) x``, where M keeps some entries of A and scales them.

        Args:
            kept: bool [entries], from :func:`keep_mask`.
            scale: the value of a kept entry.
            x: float [N, c].
        """
        return _Product.apply(self, (kept, scale), x)

    def normalised(self, x: Tensor) -> Tensor:
        """``D^-1/2 A D^-1/2 x``, the propagation of a graph convolution.

        Args:
            x: float [N, c].
        """
        return self._root * self.product(self._root * x)

    def average(self, x: Tensor) -> Tensor:
        """``(A x + x) / (degree + 1)``: GraphSAGE's 'gcn' aggregator on a graph with loops.

        Args:
            x: float [N, c].
        """
        return (self.product(x) + x) / (self.degree[:, None] + 1)

    def weighted_product(self, values: Tensor, x: Tensor) -> Tensor:
        """``W x`` for given entries, without a gradient.

        Args:
            values: float [entries], in the order of the pattern.
            x: float [N, c].
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse")
            matrix = torch.sparse_csr_tensor(
                self.crow, self.column, values, (self.nodes, self.nodes), check_invariants=False
            )
        return matrix @ x


_MADE: Any = WeakTensorKeyDictionary()


def adjacency_of(edge_index: Tensor, nodes: int) -> Adjacency:
    """The adjacency of an edge list, made once for each tensor.

    Args:
        edge_index: int64 [2, E].
        nodes: N.
    """
    version, found = _MADE.get(edge_index, (None, None))
    if found is None or version != edge_index._version or found.nodes != nodes:
        found = Adjacency(edge_index, nodes)
        _MADE[edge_index] = (edge_index._version, found)
    return found


class _Product(torch.autograd.Function):
    """A product with A or M A whose gradient goes to the dense factor."""

    @staticmethod
    def forward(
        ctx: Any, adjacency: Adjacency, mask: tuple[Tensor, float] | None, x: Tensor
    ) -> Tensor:
        ctx.adjacency, ctx.mask = adjacency, mask
        if mask is None:
            return adjacency.weighted_product(adjacency.ones.to(x.dtype), x)
        kept, scale = mask
        return adjacency.weighted_product(kept.to(x.dtype), x) * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, Tensor | None]:
        adjacency, gradient = ctx.adjacency, gradients[0].contiguous()
        if ctx.mask is None:  # symmetric
            ones = adjacency.ones.to(gradient.dtype)
            return None, None, adjacency.weighted_product(ones, gradient)
        kept, scale = ctx.mask
        values = kept.to(gradient.dtype).index_select(0, adjacency.transposed)
        return None, None, adjacency.weighted_product(values, gradient) * scale
