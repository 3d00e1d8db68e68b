"""Pre-norm attention blocks, and the grid of agent-step tokens that they work on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

Attend = Callable[[Tensor], Tensor]
"""From queries, keys and values side by side [n, 3 D] to what was attended to, [n, D]."""


class FeedForward(nn.Sequential):
    """Linear(D, 4 D), ReLU, Linear(4 D, D)."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.Linear(width, 4 * width), nn.ReLU(inplace=True), nn.Linear(4 * width, width)
        )


class SelfAttention(nn.Module):
    """``x = x + MHA(LN(x))``, ``x = x + FFN(LN(x))``.

    Which tokens see which is decided by the caller: ``attend`` lays the tokens out.

    Args:
        width: D.
        dropout: Of both branches.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn = FeedForward(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        """[..., D] → [..., D]."""
        return self.finish(x, attend(self.qkv(self.norm(x))))

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Adds what was attended to and the feed-forward branch."""
        x = x + self.dropout(self.out(attended))
        return x + self.dropout(self.ffn(self.ffn_norm(x)))


class CrossAttention(nn.Module):
    """``x = x + MHA(q=LN_q(x), k=v=LN_kv(m))``, ``x = x + FFN(LN(x))``.

    Args:
        width: D.
        heads: H.
        dropout: Of both branches.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.memory_norm = nn.LayerNorm(width)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn = FeedForward(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, memory: Tensor, valid: Tensor | None, grid: Grid | None = None
    ) -> Tensor:
        """Lets tokens query a memory.

        Args:
            x: [B, Q, D]; with ``grid``, the grid's tokens [n, D].
            memory: [B, L, D].
            valid: bool [B, L]; None where all is. Where nothing is, only the bias is added.
            grid: Lays the tokens out.
        """
        q = self.q(self.norm(x))
        if grid is not None:
            q = grid.spread(q).flatten(1, 2)
        attended = torch.zeros_like(q)
        if memory.shape[1]:
            k, v = self.kv(self.memory_norm(memory)).chunk(2, dim=-1)
            attended = attention(q, k, v, valid, self.heads)
        if grid is not None:
            attended = grid.pack(attended)
        x = x + self.dropout(self.out(attended))
        return x + self.dropout(self.ffn(self.ffn_norm(x)))


def attention(q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None, heads: int) -> Tensor:
    """Multi-head scaled dot-product attention that ignores padded keys.

    Args:
        q: [N, Q, D].
        k: [N, L, D].
        v: [N, L, D].
        valid: bool [N, L]; None where all keys are valid, which is faster. A softmax over nothing
            would be NaN: where no key is valid all are let in, and the result is zero.
        heads: H.

    Returns:
        [N, Q, D].
    """
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    if valid is None:
        return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    some = valid.any(dim=-1, keepdim=True)
    mask = (valid | ~some)[:, None, None]
    made = scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
    return torch.where(some[..., None], made, 0.0)


def unless_full(valid: Tensor, packed: bool) -> Tensor | None:
    """Gives the mask, or None if it masks nothing; compiled models, not packed, always have one."""
    return None if packed and bool(valid.all()) else valid


class Grid:
    """The tokens of B scenes × A agents × T steps: dense, or only those that are valid.

    About half of the slots of real scenes are padding. Packed, the linear layers, which are nearly
    all of the work, see valid tokens only; attention lays them out again.

    Args:
        valid: bool [B, A, T].
        heads: H.
        packed: Keep valid tokens only. Its shapes depend on the data, so compiled models stay
            dense.
    """

    def __init__(self, valid: Tensor, heads: int, packed: bool) -> None:
        self.shape, self.heads = valid.shape, heads
        self.valid = unless_full(valid, packed)
        packed = packed and self.valid is not None
        self.index = valid.flatten().nonzero().squeeze(1) if packed else None

    def pack(self, x: Tensor) -> Tensor:
        """[B, A, T, D] or [B, A T, D] → tokens [n, D]."""
        flat = x.reshape(-1, x.shape[-1])
        return flat if self.index is None else flat[self.index]

    def spread(self, x: Tensor) -> Tensor:
        """Tokens [n, C] → [B, A, T, C], zero where not valid."""
        shape = (*self.shape, x.shape[-1])
        if self.index is None:
            return x.view(shape)
        empty = x.new_zeros(self.shape.numel(), x.shape[-1])
        return empty.index_copy(0, self.index, x).view(shape)

    def over_time(self, qkv: Tensor) -> Tensor:
        """Each agent's steps attend to each other: [n, 3 D] → [n, D]."""
        q, k, v = self.spread(qkv).flatten(0, 1).chunk(3, dim=-1)
        valid = None if self.valid is None else self.valid.flatten(0, 1)
        return self.pack(attention(q, k, v, valid, self.heads))

    def over_agents(self, qkv: Tensor) -> Tensor:
        """The agents of each step attend to each other: [n, 3 D] → [n, D]."""
        b, a, t = self.shape
        q, k, v = self.spread(qkv).transpose(1, 2).flatten(0, 1).chunk(3, dim=-1)
        valid = None if self.valid is None else self.valid.transpose(1, 2).flatten(0, 1)
        made = attention(q, k, v, valid, self.heads)
        return self.pack(made.view(b, t, a, -1).transpose(1, 2))
