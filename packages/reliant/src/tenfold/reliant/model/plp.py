"""PLP, the student of CPF: parameterised label propagation beside a feature transformation.

From labels ``f^0`` (one-hot on labelled nodes, uniform elsewhere), K times with one set of
parameters:

    e_u = a . drop(x_u)                                   depends on the source only
    g_v = sum_u drop(exp(e_u) / sum_{u' in N(v)} exp(e_u')) f_u
    m_v = W2 drop(ReLU(W1 drop(x_v) + b1)) + b2
    f_v = ReLU(sigmoid(c_v) g_v + sigmoid(-c_v) m_v), one-hot again on labelled nodes

Because the attention depends on the source only, ``g = (M A)(exp(e) f) / (A exp(e))``: two sparse
products instead of a score for each edge.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch_geometric.data import Data

from tenfold.reliant.propagation import Adjacency, adjacency_of, dropout, keep_mask
from tenfold.shared.errors import InputError

ROWS_AT_ONCE = 4096
RANGE = 60.0  # scores that differ by more are centred for each node: exp would underflow


class PLP(nn.Module):
    """Parameterised label propagation with a feature transformation (CPF, the paper's student).

    Args:
        data: the graph; its training labels are clamped. Nothing else of ``y`` is read.
        inputs: width of the student's input; with appended proxies ``data.x.shape[1] + 2``.
        hidden: width of the feature transformation.
        rounds: K. The official ``num_layers`` is K + 1.
        feature_dropout: rate on attributes and hidden units.
        attention_dropout: rate on the attention of each edge.
        kind: ``ind``: scores ``a . x``; ``tra``: a free score for each node.

    Attributes:
        labelled: bool [N], the nodes that are clamped; a step of training may leave out some of
            ``train_labels``.

    Shapes:
        input float [N, inputs]; output float [N, C], at least 0 (softmax gives probabilities).
    """

    labelled: Tensor
    clamped: Tensor
    train_labels: Tensor

    def __init__(
        self,
        data: Data,
        inputs: int,
        hidden: int = 64,
        rounds: int = 9,
        feature_dropout: float = 0.8,
        attention_dropout: float = 0.2,
        kind: Literal["ind", "tra"] = "ind",
    ) -> None:
        super().__init__()
        if rounds < 1:
            raise InputError(f"rounds={rounds}; expected at least 1")
        if kind not in ("ind", "tra"):
            raise InputError(f"kind={kind!r}; expected 'ind' or 'tra'")
        for name in ("edge_index", "y", "train_mask"):
            if getattr(data, name, None) is None:
                raise InputError(f"data: {name!r} is missing; expected edge_index, y, train_mask")
        nodes, train = int(data.num_nodes or 0), data.train_mask
        classes = int(data.y[train].max()) + 1
        self.rounds, self.kind = rounds, kind
        self.feature_dropout, self.attention_dropout = feature_dropout, attention_dropout
        if kind == "ind":
            self.attention = nn.Parameter(torch.empty(1, inputs))
            nn.init.xavier_normal_(self.attention, gain=math.sqrt(2))
        else:
            self.attention = nn.Parameter(torch.zeros(nodes))
        self.mixing = nn.Parameter(torch.zeros(nodes, 1))
        self.first = nn.Linear(inputs, hidden)
        self.second = nn.Linear(hidden, classes)
        labels = one_hot(torch.where(train, data.y, 0), classes).float()
        self.register_buffer("clamped", labels, persistent=False)
        self.register_buffer("labelled", train, persistent=False)
        self.register_buffer("train_labels", train, persistent=False)
        self.adjacency = adjacency_of(data.edge_index, nodes)

    def forward(self, x: Tensor, edge_index: Tensor | None = None) -> Tensor:
        """Propagates.

        Args:
            x: float [N, inputs].
            edge_index: not needed; the graph is that of the constructor.
        """
        start = torch.where(self.labelled[:, None], self.clamped, 1.0 / self.clamped.shape[1])
        free = (~self.labelled).nonzero()[:, 0]  # only their answers are not given
        own, keep = x.index_select(0, free), torch.sigmoid(self.mixing.index_select(0, free))
        fresh = self.training and (self.feature_dropout > 0 or self.attention_dropout > 0)
        f = start
        for step in range(self.rounds):
            if step == 0 or fresh:  # without dropout all rounds have the same
                spread = self._attention(x)
                transformed = (1 - keep) * self._transform(own)
            mixed = keep * spread(f).index_select(0, free) + transformed
            f = start.index_copy(0, free, torch.relu(mixed))
        return f

    def _transform(self, x: Tensor) -> Tensor:
        p = self.feature_dropout if self.training else 0.0
        return _Transform.apply(
            x, self.first.weight, self.first.bias, self.second.weight, self.second.bias, p
        )

    def _attention(self, x: Tensor) -> _Spread:
        if self.kind == "tra":
            score = self.attention[:, None]
        else:
            score = dropout(x, self.feature_dropout, self.training) @ self.attention.T
        mask = None
        if self.training and self.attention_dropout > 0:
            mask = keep_mask(self.adjacency.entries, self.attention_dropout, x.device)
        return _Spread(self.adjacency, score, mask)


class _Spread:
    """The weighted mean over the neighbours of each node for one set of scores."""

    def __init__(
        self, adjacency: Adjacency, score: Tensor, mask: tuple[Tensor, float] | None
    ) -> None:
        self.adjacency, self.mask = adjacency, mask
        low, high = (float(end) for end in torch.aminmax(score.detach()))
        self.by_edge = high - low > RANGE
        if self.by_edge:
            row, column = adjacency.row.long(), adjacency.column.long()
            at_edge = score[column, 0]
            top = torch.full((adjacency.nodes,), -math.inf, dtype=score.dtype, device=score.device)
            top = top.scatter_reduce(0, row, at_edge.detach(), "amax")
            weight = torch.exp(at_edge - top[row])
            self.source = weight / torch.zeros_like(top).index_add(0, row, weight)[row]
        else:
            self.source = torch.exp(score - high)
            self.total = adjacency.product(self.source)

    def __call__(self, f: Tensor) -> Tensor:
        if self.by_edge:
            weight = self.source
            if self.mask is not None:
                weight = weight * self.mask[0] * self.mask[1]
            rows = weight[:, None] * f[self.adjacency.column.long()]
            return torch.zeros_like(f).index_add(0, self.adjacency.row.long(), rows)
        weighted = self.source * f
        if self.mask is None:
            return self.adjacency.product(weighted) / self.total
        return self.adjacency.masked_product(*self.mask, weighted) / self.total


class _Transform(torch.autograd.Function):
    """``W2 drop(ReLU(W1 drop(x) + b1)) + b2``, in blocks of rows that stay in the cache."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, p: float
    ) -> Tensor:
        blocks, made, scale = [], [], 1.0
        for block in x.split(ROWS_AT_ONCE):
            kept = None
            if p > 0:
                kept, scale = keep_mask(block.numel(), p, x.device)
                kept = kept.view(block.shape)
                block = block * kept.to(x.dtype)
            h = torch.addmm(b1, block, (scale * w1).T).relu_()
            if p > 0:
                drawn, _ = keep_mask(h.numel(), p, x.device)
                h.mul_(drawn.view(h.shape).to(x.dtype))
            made.append(torch.addmm(b2, h, (scale * w2).T))
            blocks += [block, h, kept]
        ctx.scale = scale
        ctx.save_for_backward(w1, w2, *blocks)
        return torch.cat(made)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        w1, w2, *blocks = ctx.saved_tensors
        of_input, of_weights = ctx.needs_input_grad[0], any(ctx.needs_input_grad[1:5])
        g1, g2, c1 = torch.zeros_like(w1), torch.zeros_like(w2), torch.zeros_like(w1[:, 0])
        s1, s2 = ctx.scale * w1, ctx.scale * w2
        inputs = []
        for number, g in enumerate(gradients[0].split(ROWS_AT_ONCE)):
            block, h, kept = blocks[3 * number : 3 * number + 3]
            # h is positive where the unit is alive and was not dropped.
            inner = torch.ops.aten.threshold_backward(g @ s2, h, 0)
            if of_weights:
                g2.addmm_(g.T, h)
                g1.addmm_(inner.T, block)
                c1 += inner.sum(0)
            if of_input:
                inputs.append(inner @ s1 if kept is None else (inner @ s1) * kept)
        whole = torch.cat(inputs) if of_input else None
        return whole, ctx.scale * g1, c1, ctx.scale * g2, gradients[0].sum(0), None
