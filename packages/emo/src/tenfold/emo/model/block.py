"""The inverted residual mobile block (iRMB) and its successor i²RMB, usable on their own.

    z = Norm(x)
    u = EW-MHSA(z)  or  Act(Conv1x1(z))          C → M = λC channels
    d = SiLU(BN(DWConv(u)))
    y = Conv1x1(u + d)  or  Conv1x1(d)           M → C_out channels
    out = x + DropPath(y)  or  y

The names of the parameters are those of the published checkpoints.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal

import torch
from timm.layers import DropPath, LayerNorm2d, LayerScale2d
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from tenfold.shared.errors import InputError, did_you_mean

EPS = 1e-6
"""The eps of every normalisation (section 2.1)."""

Attention = Literal["remote", "close", "spanning"]
Norm = Literal["batch", "layer"]
Activation = Literal["silu", "gelu"]

ATTENTIONS = ("remote", "close", "spanning")
_ACTIVATIONS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "gelu": nn.GELU}


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of a map [B, C, H, W], with the published key `norm.norm`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Normalises each position: [B, C, H, W] → the same shape."""
        return self.norm(x)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Makes the BatchNorm of all EMO models: eps 1e-6, momentum 0.1 (section 2.1)."""
    return nn.BatchNorm2d(channels, eps=EPS, momentum=0.1)


def convolution(
    channels: int,
    out: int,
    kernel_size: int = 1,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
    norm: bool = False,
    act: Activation | None = None,
) -> nn.Sequential:
    """Makes a convolution with optional BatchNorm and activation, as `conv`, `norm`, `act`.

    Args:
        channels: Channels that go in.
        out: Channels that come out.
        kernel_size: k; the padding is ceil((k - stride) / 2) (section 2.1).
        stride: The stride.
        groups: The groups; `channels` for a depth-wise convolution.
        bias: Whether the convolution has a bias.
        norm: Whether a BatchNorm follows.
        act: The activation at the end, if any.
    """
    padding = math.ceil((kernel_size - stride) / 2)
    conv = nn.Conv2d(channels, out, kernel_size, stride, padding, groups=groups, bias=bias)
    parts: OrderedDict[str, nn.Module] = OrderedDict(conv=conv)
    if norm:
        parts["norm"] = batch_norm(out)
    if act:
        parts["act"] = _ACTIVATIONS[act]()
    return nn.Sequential(parts)


def partition(x: Tensor, window: int, heads: int, remote: bool) -> Tensor:
    """Divides a map into groups of `window`² positions and heads of consecutive channels.

    With n1 = H / w and n2 = W / w, the remote (published) group (a, b) holds the positions
    (i·n1 + a, j·n2 + b) with 0 ≤ i, j < w: a strided grid over the whole map. The close group
    (a, b) holds (a·w + i, b·w + j): a contiguous window.

    Args:
        x: float [B, C, H, W]; H and W are multiples of `window`.
        window: w.
        heads: h; C is a multiple of it.
        remote: Whether the groups are grids or contiguous windows.

    Returns:
        float [B·n1·n2, h, w², C / h].

    Source: section 2.3, step 2; section 8 for close windows.
    """
    b, c, height, width = x.shape
    n1, n2 = height // window, width // window
    if remote:
        x = x.view(b, heads, c // heads, window, n1, window, n2).permute(0, 4, 6, 1, 3, 5, 2)
    else:
        x = x.view(b, heads, c // heads, n1, window, n2, window).permute(0, 3, 5, 1, 4, 6, 2)
    return x.reshape(b * n1 * n2, heads, window * window, c // heads)


def merge(groups: Tensor, window: int, height: int, width: int, remote: bool) -> Tensor:
    """Undoes `partition`: float [B·n1·n2, h, w², d] → [B, h·d, H, W].

    Args:
        groups: The groups.
        window: w.
        height: H, a multiple of w.
        width: W, a multiple of w.
        remote: As it was divided.
    """
    n1, n2 = height // window, width // window
    _, heads, _, d = groups.shape
    x = groups.view(-1, n1, n2, heads, window, window, d)
    x = x.permute(0, 3, 6, 4, 1, 5, 2) if remote else x.permute(0, 3, 6, 1, 4, 2, 5)
    return x.reshape(-1, heads * d, height, width)


class iRMB(nn.Module):
    """Inverted residual mobile block: expansion (with attention), depth-wise convolution, shrink.

    Example:
        >>> block = iRMB(64, attention="remote", head_dim=16, window=7)
        >>> block(torch.rand(2, 64, 40, 40)).shape
        torch.Size([2, 64, 40, 40])

    Shapes:
        Input float [B, C, H, W], output float [B, C_out, ceil(H / stride), ceil(W / stride)];
        any H and W: attention pads to multiples of the window with zeros after the norm,
        without a mask, as published.

    Args:
        channels: C.
        out: C_out; C if not given.
        expansion: λ; the middle has M = int(C·λ) channels.
        kernel_size: Of the depth-wise convolution.
        stride: Of the depth-wise convolution.
        attention: None for a plain 1×1 expansion; `remote` attends over strided grids (EMO as
            published), `close` over contiguous windows, `spanning` adds both (EMOv2).
        head_dim: Channels of a head; C must be a multiple of it.
        window: w; each group has w² positions.
        pre_attention: Attention is applied to the C channels before the expansion (EMO as
            published); otherwise to the M expanded channels (EMOv2), which the heads must divide.
        norm: The norm of the input: `batch`, `layer` or None.
        act: The activation of the expansion.
        expand: Whether there is an expansion; without it M = C (stem).
        se: Whether squeeze-excitation follows the depth-wise convolution (stem of EMO).
        skip: Whether input and output, and the middle before and after the depth-wise
            convolution, are added; by default wherever the shapes allow it.
        layer_scale: The initial value of a learned factor for each output channel (EMOv2: 1e-6).
        drop_path: The rate of stochastic depth of the residual branch.

    Raises:
        InputError: If widths, heads and shapes do not fit together.

    Source: sections 2.2 and 2.3; section 8 for `spanning` and `layer_scale`.
    """

    def __init__(
        self,
        channels: int,
        out: int | None = None,
        *,
        expansion: float = 4.0,
        kernel_size: int = 3,
        stride: int = 1,
        attention: Attention | None = None,
        head_dim: int = 16,
        window: int = 7,
        pre_attention: bool = True,
        norm: Norm | None = "batch",
        act: Activation = "silu",
        expand: bool = True,
        se: bool = False,
        skip: bool | None = None,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        out = channels if out is None else out
        for name, value in {"channels": channels, "out": out, "window": window}.items():
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name}={value}; expected a whole number >= 1")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise InputError(f"kernel_size={kernel_size}; expected an odd number >= 1")
        if stride not in (1, 2):
            raise InputError(f"stride={stride}; expected 1 or 2")
        if not 0 <= drop_path < 1:
            raise InputError(f"drop_path={drop_path}; expected from 0 to below 1")
        if expand and int(channels * expansion) < 1:
            raise InputError(
                f"expansion={expansion} leaves none of {channels} channels; expected more"
            )
        middle = int(channels * expansion) if expand else channels
        fits = channels == out and stride == 1
        self.skip = fits if skip is None else skip
        self.attention, self.pre_attention, self.window = attention, pre_attention, window
        if self.skip and not fits:
            raise InputError(
                f"skip=True needs stride 1 and equal widths, got stride={stride}, "
                f"channels={channels}, out={out}"
            )
        if act not in _ACTIVATIONS:
            raise InputError(did_you_mean(act, _ACTIVATIONS, kind="act"))
        if norm not in (None, "batch", "layer"):
            raise InputError(did_you_mean(norm, ("batch", "layer"), kind="norm"))
        if attention is not None:
            self._check_attention(attention, channels, middle, head_dim, expand)
            self.heads = channels // head_dim
            self.qk: Any = convolution(channels, 2 * channels, bias=True)
        norms: dict[str | None, Callable[[int], nn.Module]] = {
            None: nn.Identity,
            "batch": batch_norm,
            "layer": ChannelNorm,
        }
        self.norm = norms[norm](channels)
        self.v: Any = convolution(channels, middle, bias=True, act=act) if expand else nn.Identity()
        self.conv_local: Any = convolution(
            middle, middle, kernel_size, stride, groups=middle, norm=True, act="silu"
        )
        activation = _ACTIVATIONS[act]
        self.se = SqueezeExcite(middle, 1.0, act_layer=activation) if se else nn.Identity()
        self.proj: Any = convolution(middle, out)
        self.ls: Any = (
            nn.Identity() if layer_scale is None else LayerScale2d(out, init_values=layer_scale)
        )
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def _check_attention(
        self, attention: str, channels: int, middle: int, head_dim: int, expand: bool
    ) -> None:
        if attention not in ATTENTIONS:
            raise InputError(did_you_mean(attention, ATTENTIONS, kind="attention"))
        if not expand:
            raise InputError(f"attention={attention!r} needs the expansion, got expand=False")
        if head_dim < 1 or channels % head_dim:
            raise InputError(f"head_dim={head_dim} must divide the {channels} channels")
        heads = channels // head_dim
        if not self.pre_attention and middle % heads:
            raise InputError(
                f"pre_attention=False applies {heads} heads to {middle} expanded channels, which "
                f"{heads} does not divide; take pre_attention=True or another expansion or head_dim"
            )

    def attend(self, z: Tensor) -> Tensor:
        """Expands the normalised map by attention: [B, C, H, W] → [B, M, H, W] (section 2.3)."""
        height, width = z.shape[-2:]
        down, right = -height % self.window, -width % self.window
        # A graph for every size always pads (perhaps by 0): a condition would fix the size.
        if padded := torch.compiler.is_compiling() or bool(down or right):
            z = pad(z, (0, right, 0, down))
        q, k = self.qk(z).chunk(2, dim=1)
        value = z if self.pre_attention else self.v(z)
        u: Tensor | None = None
        for remote in (True, False):
            if self.attention in ("spanning", "remote" if remote else "close"):
                q_, k_, v_ = (partition(t, self.window, self.heads, remote) for t in (q, k, value))
                attended = scaled_dot_product_attention(q_, k_, v_)
                s = merge(attended, self.window, height + down, width + right, remote)
                u = s if u is None else u + s
        assert u is not None
        u = self.v(u) if self.pre_attention else u
        return pad(u, (0, -right, 0, -down)) if padded else u  # a slice would fix the size too

    def forward(self, x: Tensor) -> Tensor:
        """Applies the block: [B, C, H, W] → [B, C_out, H', W']."""
        z = self.norm(x)
        u = self.attend(z) if self.attention is not None else self.v(z)
        d = self.se(self.conv_local(u))
        y = self.ls(self.proj(u + d if self.skip else d))
        return x + self.drop_path(y) if self.skip else y


class i2RMB(iRMB):
    """Improved iRMB of EMOv2: spanning attention, kernel 5, LayerScale (section 8).

    Attention over grids and over windows shares queries, keys and values, and is applied to the
    expanded channels: u = A_remote·V + A_close·V with V = Act(Conv1x1(z)).

    Args:
        channels: C.
        out: C_out; C if not given.
        attention: One of `remote`, `close`, `spanning`, or None.
        kernel_size: Of the depth-wise convolution.
        pre_attention: As in `iRMB`.
        layer_scale: The initial value of the output's factor.
        **options: Everything else that `iRMB` takes.
    """

    def __init__(
        self,
        channels: int,
        out: int | None = None,
        *,
        attention: Attention | None = "spanning",
        kernel_size: int = 5,
        pre_attention: bool = False,
        layer_scale: float | None = 1e-6,
        **options: object,
    ) -> None:
        super().__init__(
            channels,
            out,
            attention=attention,
            kernel_size=kernel_size,
            pre_attention=pre_attention,
            layer_scale=layer_scale,
            **options,  # type: ignore[arg-type]
        )
