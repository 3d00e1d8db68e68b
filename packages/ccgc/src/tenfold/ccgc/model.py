"""The two un-shared encoders."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from tenfold.ccgc.smoothing import SmoothedFeatures


class UnsharedEncoders(nn.Module):
    """Two linear encoders that share no weights give the two views of a node.

    .. math:: Z_v = \\mathrm{rownorm}(\\tilde X W_v + b_v), \\quad v = 1, 2

    One linear layer each, no activation; torch's default initialisation, view 1 before view 2.
    They hold ``2 (d D + d)`` parameters.

    Args:
        in_features: D.
        embedding_dim: d, 500 in the paper.
    """

    def __init__(self, in_features: int, embedding_dim: int = 500) -> None:
        super().__init__()
        self.view1 = nn.Linear(in_features, embedding_dim)
        self.view2 = nn.Linear(in_features, embedding_dim)

    def forward(self, x: Tensor | SmoothedFeatures) -> Tensor:
        """Embeds nodes.

        Args:
            x: smoothed features float32 [N, D].

        Returns:
            Z1 and Z2, float32 [2, N, d], rows of norm 1 (a zero row stays zero).
        """
        weight = torch.cat([self.view1.weight, self.view2.weight]).T  # one product for both views
        both = x @ weight + torch.cat([self.view1.bias, self.view2.bias])
        return unit_rows(both.unflatten(1, (2, -1))).transpose(0, 1)


def unit_rows(y: Tensor, eps: float = 1e-12) -> Tensor:
    """``y / max(|y|, eps)`` over the last dimension, as torch's ``normalize`` does.

    Its gradient is written out: automatic differentiation would pass over the rows, the largest
    thing that a step touches, twice as often.

    Args:
        y: float [..., d].
        eps: bound of the norms.
    """
    return _UnitRows.apply(y, eps)


class _UnitRows(torch.autograd.Function):
    """With ``z = y / n``, the gradient of a row is ``(g - z <z, g>) / n``."""

    @staticmethod
    def forward(ctx: FunctionCtx, y: Tensor, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(y, dim=-1, keepdim=True).clamp_min_(eps)
        z = y / norm
        ctx.save_for_backward(z, norm)
        return z

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        z, norm = ctx.saved_tensors  # type: ignore[attr-defined]
        along = (z * gradient).sum(-1, keepdim=True)
        return torch.addcmul(gradient, z, along, value=-1).div_(norm), None


@torch.no_grad()
def start_at_principal_axes(encoders: UnsharedEncoders, axes: Tensor) -> None:
    """Sets both encoders to random rotations of the same leading axes of the features.

    Each view then keeps the inner products of the features instead of a random sketch of them.

    Args:
        encoders: changed in place; biases become zero.
        axes: float [D, q], orthonormal columns, q <= d.
    """
    width, rank = axes.shape
    for view in (encoders.view1, encoders.view2):
        rotation = torch.linalg.qr(torch.randn(view.out_features, rank))[0].to(axes)
        view.weight.copy_(rotation @ axes.T / width**0.5)
        view.bias.zero_()


def side_by_side(z1: Tensor, z2: Tensor) -> Tensor:
    """Both views next to each other [N, 2 d], rows of norm 1: their similarities averaged.

    The fused embedding adds the similarities *between* the views, which say nothing before the
    views have been aligned by training.
    """
    return torch.cat([z1, z2], dim=1) / 2**0.5


def fuse(z1: Tensor, z2: Tensor) -> Tensor:
    """The fused embedding ``Z = (Z1 + Z2) / 2`` [N, d], not normalised again."""
    return (z1 + z2) / 2
