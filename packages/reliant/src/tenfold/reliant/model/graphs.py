"""The graph networks that serve as teachers and students, by name.

All of them are called as ``model(x, edge_index)`` and give logits [N, C]; ``embed`` gives the
logits and the hidden representation that GraphAKD compares. Those whose first step is linear in the
input and has no parameters can be called in two halves, ``from_aggregated(aggregate(x))``: what
belongs to the attributes is then computed once, and only the proxies' columns change.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv

from tenfold.reliant.propagation import adjacency_of, dropout
from tenfold.shared.errors import InputError


class GCN(nn.Module):
    """Graph convolutions ``D^-1/2 A D^-1/2 H W + b`` with ReLU and dropout in between.

    Three layers of width 64 are the teacher GCN (dropout 0.8) and the student of GraphAKD (dropout
    0.5; the official code calls it SGC).

    Args:
        inputs: d.
        classes: C.
        hidden: width of the inner layers.
        layers: number of layers, at least 2.
        dropout: rate before each layer but the first.
        embedding: the layer whose output (after ReLU) is the embedding: 1 in the teacher, the last
            but one in the student.
    """

    def __init__(
        self,
        inputs: int,
        classes: int,
        hidden: int = 64,
        layers: int = 3,
        dropout: float = 0.8,
        embedding: int | None = None,
    ) -> None:
        super().__init__()
        if layers < 2:
            raise InputError(f"layers={layers}; expected at least 2")
        widths = [inputs, *[hidden] * (layers - 1), classes]
        self.linears = nn.ModuleList(_glorot(nn.Linear(i, o)) for i, o in pairwise(widths))
        self.dropout = dropout
        self.embedding = layers - 1 if embedding is None else embedding

    def aggregate(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The first propagation, which has no parameters."""
        return adjacency_of(edge_index, len(x)).normalised(x)

    def from_aggregated(self, h: Tensor, edge_index: Tensor) -> Tensor:
        """The logits, after :meth:`aggregate`."""
        return self._rest(h, edge_index)[0]

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The logits, float [N, C]."""
        return self.from_aggregated(self.aggregate(x, edge_index), edge_index)

    def embed(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        """The logits and the embedding float [N, hidden]."""
        return self._rest(self.aggregate(x, edge_index), edge_index)

    def embed_aggregated(self, h: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`embed`, after :meth:`aggregate`."""
        return self._rest(h, edge_index)

    def _rest(self, h: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        adjacency = adjacency_of(edge_index, len(h))
        h = torch.relu(self.linears[0](h))
        kept = h
        layers: Any = self.linears[1:]
        for number, linear in enumerate(layers, 2):
            h = dropout(h, self.dropout, self.training)
            if linear.out_features < linear.in_features:  # the narrower product
                h = adjacency.normalised(h @ linear.weight.T) + linear.bias
            else:
                h = linear(adjacency.normalised(h))
            if number < len(self.linears):
                h = torch.relu(h)
            if number == self.embedding:
                kept = h
        return h, kept


class SAGE(nn.Module):
    """GraphSAGE with the 'gcn' aggregator: ``W (sum_u h_u + h_v) / (|N(v)| + 1) + b``.

    N(v) holds v itself (the graph has self-loops), so the own term counts twice.

    Args:
        inputs: d.
        classes: C.
        hidden: width of the inner layers.
        layers: number of layers.
        dropout: rate on the input and after each ReLU.
    """

    def __init__(
        self, inputs: int, classes: int, hidden: int = 128, layers: int = 4, dropout: float = 0.5
    ) -> None:
        super().__init__()
        widths = [inputs, *[hidden] * (layers - 1), classes]
        self.linears = nn.ModuleList(
            _glorot(nn.Linear(i, o), math.sqrt(2)) for i, o in pairwise(widths)
        )
        self.dropout = dropout

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The logits, float [N, C]."""
        return self.embed(x, edge_index)[0]

    def embed(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        """The logits, and the output of the first layer before its ReLU, float [N, hidden]."""
        adjacency = adjacency_of(edge_index, len(x))
        h, kept = dropout(x, self.dropout, self.training), x
        layers: Any = self.linears
        for number, linear in enumerate(layers, 1):
            if linear.out_features < linear.in_features:
                h = adjacency.average(h @ linear.weight.T) + linear.bias
            else:
                h = linear(adjacency.average(h))
            if number == 1:
                kept = h
            if number < len(self.linears):
                h = dropout(torch.relu(h), self.dropout, self.training)
        return h, kept


class GAT(nn.Module):
    """Graph attention: 8 heads of 8, then one head for the classes (PyG's ``GATConv``).

    Args:
        inputs: d.
        classes: C.
        hidden: width of all heads together.
        heads: number of heads of the first layer.
        dropout: rate on attributes and on attention.
    """

    def __init__(
        self, inputs: int, classes: int, hidden: int = 64, heads: int = 8, dropout: float = 0.6
    ) -> None:
        super().__init__()
        if hidden % heads:
            raise InputError(f"hidden={hidden} is no multiple of heads={heads}")
        self.first = GATConv(inputs, hidden // heads, heads, dropout=dropout)
        self.second = GATConv(hidden, classes, dropout=dropout)
        self.dropout = dropout

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The logits, float [N, C]."""
        return self.embed(x, edge_index)[0]

    def embed(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        """The logits and the output of the first layer after its ELU, float [N, hidden]."""
        h = dropout(x, self.dropout, self.training)
        kept = torch.nn.functional.elu(self.first(h, edge_index))
        return self.second(dropout(kept, self.dropout, self.training), edge_index), kept


class APPNP(nn.Module):
    """A two-layer network whose answers are spread by personalised PageRank.

    Args:
        inputs: d.
        classes: C.
        hidden: width.
        dropout: rate on attributes and hidden units, and on edges (of the whole propagation).
        steps: propagation steps.
        teleport: probability to stay.
    """

    def __init__(
        self,
        inputs: int,
        classes: int,
        hidden: int = 64,
        dropout: float = 0.5,
        steps: int = 10,
        teleport: float = 0.1,
    ) -> None:
        super().__init__()
        self.first = _glorot(nn.Linear(inputs, hidden))
        self.second = _glorot(nn.Linear(hidden, classes))
        self.dropout, self.steps, self.teleport = dropout, steps, teleport

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The logits, float [N, C]."""
        return self.embed(x, edge_index)[0]

    def embed(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        """The logits and the hidden layer after its ReLU, float [N, hidden]."""
        adjacency = adjacency_of(edge_index, len(x))
        kept = torch.relu(self.first(dropout(x, self.dropout, self.training)))
        start = self.second(dropout(kept, self.dropout, self.training))
        h = start
        for _ in range(self.steps):
            h = (1 - self.teleport) * adjacency.normalised(h) + self.teleport * start
        return h, kept


class SGC(nn.Module):
    """A linear classifier of k times propagated attributes.

    Args:
        inputs: d.
        classes: C.
        hops: k.
    """

    def __init__(self, inputs: int, classes: int, hops: int = 2) -> None:
        super().__init__()
        self.linear = _glorot(nn.Linear(inputs, classes))
        self.hops = hops

    def aggregate(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """All propagation, which has no parameters."""
        adjacency = adjacency_of(edge_index, len(x))
        for _ in range(self.hops):
            x = adjacency.normalised(x)
        return x

    def from_aggregated(self, h: Tensor, edge_index: Tensor) -> Tensor:
        """The logits, after :meth:`aggregate`."""
        return self.linear(h)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The logits, float [N, C]."""
        return self.linear(self.aggregate(x, edge_index))

    def embed(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        """The logits and the propagated attributes float [N, d]."""
        h = self.aggregate(x, edge_index)
        return self.linear(h), h


class MLP(nn.Module):
    """A perceptron that does not see the graph (the student of GLNN).

    Args:
        inputs: d.
        classes: C.
        hidden: width.
        layers: number of layers.
        dropout: rate after each ReLU.
    """

    def __init__(
        self, inputs: int, classes: int, hidden: int = 64, layers: int = 2, dropout: float = 0.5
    ) -> None:
        super().__init__()
        widths = [inputs, *[hidden] * (layers - 1), classes]
        self.linears = nn.ModuleList(_glorot(nn.Linear(i, o)) for i, o in pairwise(widths))
        self.dropout = dropout

    def forward(self, x: Tensor, edge_index: Tensor | None = None) -> Tensor:
        """The logits, float [N, C]."""
        return self.embed(x, edge_index)[0]

    def embed(self, x: Tensor, edge_index: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The logits and the last hidden layer after its ReLU, float [N, hidden]."""
        h = x
        for linear in self.linears[:-1]:
            h = dropout(torch.relu(linear(h)), self.dropout, self.training)
        return self.linears[-1](h), h


MODELS: dict[str, Callable[..., nn.Module]] = {
    "gcn": GCN,
    "sage": SAGE,
    "gat": GAT,
    "appnp": APPNP,
    "sgc": SGC,
    "mlp": MLP,
}


def _glorot(linear: nn.Linear, gain: float = 1.0) -> nn.Linear:
    nn.init.xavier_uniform_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
    return linear
