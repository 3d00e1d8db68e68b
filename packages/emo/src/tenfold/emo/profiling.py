"""Parameters and operations, in both conventions that are in use."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tenfold.shared.errors import InputError


@dataclass(frozen=True)
class Cost:
    """What a network, or a part of it, costs for one image."""

    part: str
    """The name of the part; empty for the whole."""
    parameters: int
    """Learned numbers."""
    macs: int
    """Multiply-adds of convolutions, matrix products (attention too) and linear layers."""
    flops: int
    """`macs` plus 2 for each element that a BatchNorm and 5 that a LayerNorm gives: the
    convention of fvcore, in which EMO's published "FLOPs" are counted."""


@torch.no_grad()
def profile(model: nn.Module, size: int | tuple[int, int] = 224, in_chans: int = 3) -> list[Cost]:
    """Counts parameters and operations for one image, for the whole and for each child.

    Softmax, activations, pooling and additions are free in both conventions.

    Args:
        model: The network; it is not changed.
        size: The image's height and width.
        in_chans: Its channels.

    Returns:
        The whole network first (part ``), then its children in order.

    Raises:
        InputError: If the size is not positive.

    Source: section 9, item 5.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise InputError(f"size={height}×{width}; expected positive numbers")
    model = (
        copy.deepcopy(model).to("meta", torch.float32).eval()
    )  # shapes only: nothing is computed
    weight: dict[type[nn.Module], int] = {nn.BatchNorm2d: 2, nn.LayerNorm: 5}
    norms: dict[str, int] = {}
    handles = []
    for name, module in model.named_modules():
        for kind, each in weight.items():
            if isinstance(module, kind):
                handles.append(module.register_forward_hook(_adder(norms, name, each)))
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        model(torch.zeros(1, in_chans, height, width, device="meta"))
    for handle in handles:
        handle.remove()
    counts = counter.get_flop_counts()
    root = type(model).__name__
    costs = []
    for part, module in [("", model), *model.named_children()]:
        key = f"{root}.{part}" if part else "Global"
        macs = sum(counts.get(key, {}).values()) // 2
        extra = sum(n for name, n in norms.items() if f"{name}.".startswith(f"{part}.") or not part)
        parameters = sum(p.numel() for p in module.parameters())
        costs.append(Cost(part, parameters, macs, macs + extra))
    return costs


def _adder(norms: dict[str, int], name: str, each: int) -> Any:
    def add(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        norms[name] = norms.get(name, 0) + each * output.numel()

    return add
