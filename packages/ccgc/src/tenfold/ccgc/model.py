"""The two un-shared encoders."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

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

    def forward(self, x: Tensor | SmoothedFeatures) -> tuple[Tensor, Tensor]:
        """Embeds nodes.

        Args:
            x: smoothed features float32 [N, D].

        Returns:
            Z1 and Z2, float32 [N, d], rows of norm 1 (a zero row stays zero).
        """
        weight = torch.cat([self.view1.weight, self.view2.weight]).T  # one product for both views
        both = x @ weight + torch.cat([self.view1.bias, self.view2.bias])
        z1, z2 = both.chunk(2, dim=1)
        return normalize(z1), normalize(z2)


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
