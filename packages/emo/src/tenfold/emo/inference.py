"""Fast inference: the same function as the trained network, with less memory traffic.

What `optimize_for_inference` changes, each step exact up to rounding:

- The BatchNorm after a depth-wise convolution and after the first convolution is folded into it,
  the BatchNorm before an expansion into the expansion (which has a bias), LayerScale into the
  shrink convolution, the stem's shrink convolution into the expansion that follows. A norm before
  attention stays: attention pads after it. LayerNorm stays.
- Everything is computed channels-last, so 1×1 convolutions are matrix products without copies,
  and attention moves only the C narrow channels, twice, instead of seven copies.
- On a CPU in float32, oneDNN's fused primitives compute convolution, bias and activation, or
  product and residual, in one pass, on weights that are packed once.
- Where the expanded map of a batch would not fit the cache, the block works through the batch in
  parts: expansion, depth-wise convolution and shrink of one part before those of the next; the
  stem and stage 1 go image by image.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.emo.kernels import NativeBlock, NativeStart, build
from tenfold.emo.model.backbone import EMO, Stem
from tenfold.emo.model.block import ChannelNorm, iRMB
from tenfold.shared.errors import InputError

CACHE_BYTES = 6 << 20
"""A block works through the batch in parts whose expanded map has about this size."""

_ACTS = {
    "": (lambda x: x, "none", ""),
    "silu": (F.silu, "swish", ""),
    "gelu": (F.gelu, "gelu", "none"),
}


def _has_onednn() -> bool:
    """Says whether torch has the fused primitives that its own compiler uses on CPUs."""
    wanted = ("_convolution_pointwise", "_linear_pointwise", "_reorder_linear_weight")
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in wanted
    )


class _Packed(nn.Module):
    """A weight with its bias, and its packed form for oneDNN, made when it is first needed."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, act: str) -> None:
        super().__init__()
        bias = torch.zeros(weight.shape[0], dtype=weight.dtype) if bias is None else bias
        self.register_buffer("weight", weight.detach().clone())
        self.register_buffer("bias", bias.detach().clone())
        self.act = act
        self._packed: tuple[Any, Tensor] | None = None

    def packed(self, x: Tensor, *arguments: Any) -> Tensor | None:
        """Gives the packed weight, or None where the plain operators must be taken."""
        if (
            torch.compiler.is_compiling()  # the compiler fuses and packs by itself
            or x.device.type != "cpu"
            or x.dtype != torch.float32
            or torch.is_grad_enabled()
            or not _has_onednn()
            or torch.jit.is_tracing()
        ):
            return None
        version = 0 if self.weight.is_inference() else self.weight._version
        key = self.weight.data_ptr(), version
        if self._packed is None or self._packed[0] != key:
            self._packed = key, self.pack(*arguments)
        return self._packed[1]

    def pack(self, *arguments: Any) -> Tensor:
        """Packs the weight."""
        raise NotImplementedError

    def __deepcopy__(self, memo: dict[int, Any]) -> _Packed:
        """Copies the weight; the copy packs its own."""
        made = copy.copy(self)
        made._buffers = copy.deepcopy(self._buffers, memo)
        made._packed = None
        return made

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the packed form out of what is saved."""
        return self.__dict__ | {"_packed": None}


class FusedLinear(_Packed):
    """A 1×1 convolution as a product over the last dimension: [..., C] → [..., C_out]."""

    def pack(self) -> Tensor:
        """Packs the weight for oneDNN."""
        return torch.ops.mkldnn._reorder_linear_weight(self.weight)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Computes act(x W^T + b), or x W^T + b + residual."""
        plain, attr, algorithm = _ACTS[self.act]
        weight = self.packed(x)
        if weight is None:
            if torch.compiler.is_compiling() and x.ndim == 4:
                maps = x.permute(0, 3, 1, 2)
                y = plain(F.conv2d(maps, self.weight[..., None, None], self.bias))
                y = y.permute(0, 2, 3, 1)
            else:
                y = plain(F.linear(x, self.weight, self.bias))
            return y if residual is None else residual + y
        ops = torch.ops.mkldnn
        if residual is None:
            return ops._linear_pointwise(x, weight, self.bias, attr, [], algorithm)
        return ops._linear_pointwise.binary(x, residual, weight, self.bias, "add")


class FusedConv(_Packed):
    """A convolution with its activation, channels-last."""

    channels_last = True

    def __init__(self, weight: Tensor, bias: Tensor | None, act: str, like: nn.Conv2d) -> None:
        super().__init__(weight, bias, act)
        self.stride, self.padding, self.groups = like.stride, like.padding, like.groups

    def pack(self, shape: tuple[int, ...]) -> Tensor:
        """Packs the weight for oneDNN; `shape` is that of a typical input."""
        return torch.ops.mkldnn._reorder_convolution_weight(
            self.weight, self.padding, self.stride, (1, 1), self.groups, shape
        )

    def forward(self, x: Tensor) -> Tensor:
        """Computes act(conv(x) + b): [B, C, H, W] → [B, C_out, H', W']."""
        plain, attr, algorithm = _ACTS[self.act]
        x = x if self.channels_last else x.contiguous()
        weight = self.packed(x, x.shape)
        if weight is None:
            y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, (1, 1), self.groups)
            return plain(y)
        return torch.ops.mkldnn._convolution_pointwise(
            x,
            weight,
            self.bias,
            self.padding,
            self.stride,
            (1, 1),
            self.groups,
            attr,
            [],
            algorithm,
        )


class FusedStem(nn.Module):
    """The first convolution with its BatchNorm."""

    channels_last = True

    def __init__(self, stem: Stem) -> None:
        super().__init__()
        conv, norm, *act = stem.convs[0]
        weight, bias = fold_after(conv, norm)
        self.conv = FusedConv(weight, bias, "silu" if act else "", conv)

    def forward(self, x: Tensor) -> Tensor:
        """As `Stem`."""
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return self.conv(x)


class FusedBlock(nn.Module):
    """An iRMB in inference form; made from a trained one.

    Args:
        block: The block, in eval mode.
    """

    channels_last = True
    """Whether maps between blocks lie channels-last in memory; otherwise they are copied."""

    def __init__(self, block: iRMB) -> None:
        super().__init__()
        self.attention, self.pre_attention = block.attention, block.pre_attention
        self.window: int = block.window
        self.skip: bool = block.skip
        expand = isinstance(block.v, nn.Sequential)
        act = ""
        if expand:
            act = "gelu" if isinstance(block.v.act, nn.GELU) else "silu"
            weight, bias = block.v.conv.weight.flatten(1), block.v.conv.bias
        folded = isinstance(block.norm, nn.BatchNorm2d) and expand and self.attention is None
        if folded:
            scale, shift = as_affine(cast(nn.BatchNorm2d, block.norm))
            weight, bias = weight * scale, bias + weight @ shift
        self.norm = nn.Identity() if folded else _norm(block.norm)
        self.expand = FusedLinear(weight, bias, act) if expand else nn.Identity()
        if self.attention is not None:
            self.heads = block.heads
            self.qk = FusedLinear(block.qk.conv.weight.flatten(1), block.qk.conv.bias, "")
        local, norm = block.conv_local.conv, block.conv_local.norm
        self.local = FusedConv(*fold_after(local, norm), "silu", local)
        self.se = block.se
        shrink = block.proj.conv.weight.flatten(1)
        if not isinstance(block.ls, nn.Identity):
            shrink = shrink * block.ls.gamma[:, None]
        self.shrink = FusedLinear(shrink, None, "")
        self.middle: int = local.in_channels

    def attend(self, z: Tensor) -> Tensor:
        """As `iRMB.attend`, channels-last: [B, H, W, C] → [B, H, W, M]."""
        _, height, width, _ = z.shape
        w = self.window
        down, right = -height % w, -width % w
        # A graph for every size always pads (perhaps by 0): a condition would fix the size.
        if padded := torch.compiler.is_compiling() or bool(down or right):
            z = F.pad(z, (0, 0, 0, right, 0, down))
        n1, n2 = (height + down) // w, (width + right) // w
        value = z if self.pre_attention else self.expand(z)
        u: Tensor | None = None
        for remote in (True, False):
            if self.attention not in ("spanning", "remote" if remote else "close"):
                continue
            groups = _divide(z, w, n1, n2, remote)
            q, k = self.qk(groups).chunk(2, dim=-1)
            v = groups if self.pre_attention else _divide(value, w, n1, n2, remote)
            q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
            s = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            s = _unite(s, w, n1, n2, remote)
            u = s if u is None else u + s
        assert u is not None
        u = F.pad(u, (0, 0, 0, -right, 0, -down)) if padded else u
        return self.expand(u) if self.pre_attention else u

    def _tokens(self, x: Tensor) -> Tensor:
        """Computes the block channels-last: [B, H, W, C] → [B, H', W', C_out]."""
        z = self.norm(x)
        u = self.attend(z) if self.attention is not None else self.expand(z)
        d = self.local(u.permute(0, 3, 1, 2))
        d = self.se(d).permute(0, 2, 3, 1)
        if self.skip:
            # In place: d belongs to this block alone, and a new map costs more than the sum.
            return self.shrink(d.add_(u) if not torch.is_grad_enabled() else d + u, x)
        return self.shrink(d)

    def forward(self, x: Tensor) -> Tensor:
        """As `iRMB.forward`; the result is channels-last in memory."""
        x = x.permute(0, 2, 3, 1)
        if not self.channels_last:
            return self._tokens(x.contiguous()).permute(0, 3, 1, 2).contiguous()
        batch, height, width, _ = x.shape
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or x.device.type != "cpu":
            return self._tokens(x).permute(0, 3, 1, 2)
        part = max(1, CACHE_BYTES // (self.middle * height * width * x.element_size()))
        if part >= batch:
            return self._tokens(x).permute(0, 3, 1, 2)
        y = torch.cat([self._tokens(piece) for piece in x.split(part)])
        return y.permute(0, 3, 1, 2)


class Images(nn.Sequential):
    """Takes a batch image by image on a CPU, so that what its layers hand on stays in the cache."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, ...] → [B, ...] by the layers, one after the other."""
        general = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if general or x.device.type != "cpu" or len(x) <= torch.get_num_threads():
            return super().forward(x)
        return torch.cat([super(Images, self).forward(image) for image in x.split(1)])


class _Affine(nn.Module):
    """A BatchNorm in eval mode, over the last dimension."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        scale, shift = as_affine(norm)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.scale)


def _norm(norm: nn.Module) -> nn.Module:
    """Gives a norm of maps as a norm over the last dimension."""
    if isinstance(norm, ChannelNorm):
        inner = norm.norm
        like: dict[str, Any] = {"device": inner.weight.device, "dtype": inner.weight.dtype}
        made = nn.LayerNorm(inner.normalized_shape, eps=inner.eps, **like)
        made.load_state_dict(inner.state_dict())
        return made
    return _Affine(norm) if isinstance(norm, nn.BatchNorm2d) else nn.Identity()


def _divide(x: Tensor, w: int, n1: int, n2: int, remote: bool) -> Tensor:
    """Channels-last `partition` without heads: [B, n1·w, n2·w, C] → [B·n1·n2, w², C]."""
    shape = (-1, w, n1, w, n2, x.shape[-1]) if remote else (-1, n1, w, n2, w, x.shape[-1])
    order = (0, 2, 4, 1, 3, 5) if remote else (0, 1, 3, 2, 4, 5)
    return x.reshape(shape).permute(order).reshape(-1, w * w, x.shape[-1])


def _unite(x: Tensor, w: int, n1: int, n2: int, remote: bool) -> Tensor:
    """Undoes `_divide`."""
    order = (0, 3, 1, 4, 2, 5) if remote else (0, 1, 3, 2, 4, 5)
    x = x.reshape(-1, n1, n2, w, w, x.shape[-1]).permute(order)
    return x.reshape(-1, n1 * w, n2 * w, x.shape[-1])


def as_affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Gives an eval-mode BatchNorm as scale and shift, both [C], such that y = scale·x + shift."""
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale.detach(), (norm.bias - norm.running_mean * scale).detach()


def fold_after(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Folds the BatchNorm that follows a convolution into its weight and bias."""
    scale, shift = as_affine(norm)
    bias = shift if conv.bias is None else shift + conv.bias * scale
    return conv.weight * scale[:, None, None, None], bias


@torch.inference_mode(False)
@torch.no_grad()
def optimize_for_inference(model: nn.Module, native: bool = False) -> nn.Module:
    """Makes a fast copy of a trained network for inference.

    Every EMO network, detector, segmentor, user's network that holds `iRMB` blocks, or a block
    alone is taken; the copy gives the same numbers up to rounding (largest difference of EMO-1M's
    logits in float32: see the README), and a network's copy has the same methods. It cannot be
    trained. On a CPU it is fastest under `torch.inference_mode()`; it also goes through
    `torch.compile` and `torch.export`.

    Args:
        model: The network; it is not changed.
        native: Whether to use this package's own kernels for CPUs, which are faster still. They
            are compiled the first time (15 s), for which a C++ compiler is needed. Such a copy
            cannot be exported.

    Returns:
        The copy, in eval mode.

    Raises:
        InputError: If the network holds no block of this package or is optimised already, or
            `native` finds no compiler.
    """
    if any(isinstance(module, FusedBlock | NativeBlock) for module in model.modules()):
        raise InputError(
            f"this {type(model).__name__} is optimised already; expected the trained network, from "
            "which each optimised form is made"
        )
    whole = nn.Sequential(copy.deepcopy(model).eval().requires_grad_(False))
    if not any(isinstance(module, iRMB) for module in whole.modules()):
        raise InputError(
            f"{type(model).__name__} holds no iRMB block of this package; expected a network that "
            "does, such as timm.create_model('emo_1m')"
        )
    for parent in list(whole.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, iRMB):
                setattr(parent, name, FusedBlock(child))
            elif isinstance(child, Stem):
                setattr(parent, name, FusedStem(child))
    if native:
        build()
    for net in whole.modules():
        if not isinstance(net, EMO):
            continue
        first, *rest = cast(nn.Sequential, net.stage1)  # the widest maps: taken with the stem
        merged = _merge(net.stage0[1], first)
        if not native:
            net.stage1 = Images(net.stage0, first, *rest)
        elif merged:
            net.stage1 = nn.Sequential(NativeStart(nn.Sequential(*net.stage0, first)), *rest)
        else:
            continue
        net.stage0 = nn.Sequential()
    if native:
        _go_native(whole)
    return whole.eval().requires_grad_(False)[0]


def _merge(stem: Any, block: Any) -> bool:
    """Folds the stem's shrink into the expansion of the block after it, if nothing lies between."""
    fits = block.attention is None and not block.skip and isinstance(block.norm, nn.Identity)
    if not fits or stem.skip or isinstance(block.expand, nn.Identity):
        return False
    expand, shrink = block.expand, stem.shrink
    weight = (expand.weight.double() @ shrink.weight.double()).to(expand.weight.dtype)
    block.expand = FusedLinear(weight, expand.bias, expand.act)
    stem.shrink = nn.Identity()
    return True


def _go_native(model: nn.Module) -> None:
    """Replaces the fused blocks by those with own kernels."""
    for name, child in list(model.named_children()):
        if isinstance(child, FusedBlock) and NativeBlock.takes(child):
            setattr(model, name, NativeBlock(child))
        elif not isinstance(child, NativeStart):
            _go_native(child)


__all__ = ["FusedBlock", "optimize_for_inference"]
