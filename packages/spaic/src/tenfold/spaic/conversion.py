"""ANN → SNN: a trained ReLU network as a network of integrate-and-fire neurons (section 10.4).

Each layer is scaled by a percentile λ of its activations: W ← W λ_before/λ, b ← b/λ. A neuron with
threshold 1 that starts at 1/2 and subtracts 1 at each spike then fires with the rate of the
activation over λ, up to one spike in the number of steps. What is linear (pooling, layers without
ReLU) passes spikes on as they are; batch normalisation is folded into the layer before it.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tenfold.shared.errors import InputError
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Decoder, Encoder

_PASSED_OVER = (torch.nn.Dropout, torch.nn.Dropout2d, torch.nn.Identity)
_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)
_CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d)


@torch.no_grad()
def from_relu(model: torch.nn.Sequential, data: Tensor, percentile: float = 99.9) -> Network:
    """Converts a stack of layers and ReLUs.

    Args:
        model: Linear, Conv1d, Conv2d, BatchNorm after one of these, ReLU, AvgPool1d, AvgPool2d,
            Flatten; Dropout is passed over. Running means are used, whatever the mode.
        data: [samples, inputs], [samples, channels, length] or [samples, channels, height, width],
            from 0 to 1; its activations set the scales.
        percentile: Which percentile of a layer's activations becomes the rate 1.

    Returns:
        A network with the encoder `input` (the data as a constant current) and the decoder
        `output`: the mean of what arrives at the last layer, in the units of the model's outputs.
        Weighted layers are `layer1`, `layer2`, ..., `last`; pools `pool1`, .... It runs with steps
        of 1 ms; more steps come closer to the model.

    Raises:
        InputError: For another layer or setting, or activations that are all zero.
    """
    if not 0 < percentile <= 100:
        raise InputError(f"percentile={percentile}; expected > 0 and at most 100")
    layers: list[Any] = [layer for layer in model if not isinstance(layer, _PASSED_OVER)]
    if not any(isinstance(layer, (torch.nn.Linear, *_CONVOLUTIONS)) for layer in layers):
        raise InputError(
            f"expected at least one Linear, Conv1d or Conv2d; the model has {_named(layers)}"
        )
    if isinstance(layers[0], torch.nn.Linear | torch.nn.Flatten):
        data = data.flatten(1)
    net = Network("converted")
    net.set_backend_dt(1.0)
    net.strategy = 1
    net.input = Encoder(shape=tuple(data.shape[1:]), coding_method="float")
    x, before, scale = data, net.input, 1.0  # the group `before` holds x / scale
    number = pools = at = 0
    while at < len(layers):
        layer = layers[at]
        at += 1
        if isinstance(layer, torch.nn.Flatten):
            x = x.flatten(1)
            continue
        if isinstance(layer, torch.nn.AvgPool1d | torch.nn.AvgPool2d):
            pools += 1
            options = _pooling(layer)
            x = layer(x)
            group = NeuronGroup(shape=tuple(x.shape[1:]), model="null")
            net.add_assembly(f"pool{pools}", group)
            link = Connection(before, group, link_type="pool", syn_type="avgpool", **options)
            net.add_connection(f"pooling{pools}", link)
            before = group
            continue
        if not isinstance(layer, (torch.nn.Linear, *_CONVOLUTIONS)):
            hint = {torch.nn.MaxPool2d: "; train with AvgPool2d instead"}.get(type(layer), "")
            what = f"{type(layer).__name__} in place {at} cannot be converted{hint}"
            raise InputError(f"{what}; the model has {_named(layers)}")
        image = isinstance(layer, _CONVOLUTIONS)
        expected = layer.in_channels if image else layer.in_features
        if x.ndim != layer.weight.ndim or x.shape[1] != expected:
            raise InputError(f"{layer!r} in place {at} cannot read {tuple(x.shape)} of the data")
        weight, bias = layer.weight, layer.bias
        if bias is None:
            bias = weight.new_zeros(len(weight))
        if at < len(layers) and isinstance(layers[at], _NORMS):
            weight, bias = _folded(weight, bias, layers[at])
            at += 1
        if image:
            options = _convolving(layer)
            convolve: Any = F.conv1d if isinstance(layer, torch.nn.Conv1d) else F.conv2d
            x = convolve(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
        else:
            options = {}
            x = F.linear(x, weight, bias)
        fires = at < len(layers) and isinstance(layers[at], torch.nn.ReLU)
        at += int(fires)
        number += 1
        last = at == len(layers)
        own = scale
        if fires:
            x = torch.relu(x)
            own = float(np.percentile(x.numpy(), percentile))
            if own <= 0:
                raise InputError(f"layer {number} has no activation above zero on the data")
        elif last:
            own = 1.0
        spiking: dict[str, Any] = {"model": "ifsubtract", "v_start": 0.5}
        group = NeuronGroup(shape=tuple(x.shape[1:]), **(spiking if fires else {"model": "null"}))
        net.add_assembly("last" if last else f"layer{number}", group)
        options |= {"weight": weight * scale / own, "bias": bias / own}
        net.add_connection(f"link{number}", Connection(before, group, **options))
        before, scale = group, own
    net.output = Decoder(dec_target=before, coding_method="spike_rate", scale=scale)
    return net


def _named(layers: list[Any]) -> str:
    return ", ".join(type(layer).__name__ for layer in layers) or "none"


def _folded(weight: Tensor, bias: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    """W ← γ/√(σ² + ε) W, b ← γ/√(σ² + ε) (b − μ) + β."""
    if norm.running_mean is None:
        raise InputError(f"{norm!r} keeps no running means, which the conversion needs")
    factor = (norm.running_var + norm.eps).rsqrt()
    shift = -norm.running_mean * factor
    if norm.affine:
        factor, shift = factor * norm.weight, shift * norm.weight + norm.bias
    return weight * factor.reshape(-1, *[1] * (weight.ndim - 1)), bias * factor + shift


def _convolving(layer: Any) -> dict[str, Any]:
    if layer.padding_mode != "zeros":
        raise InputError(f"{layer!r}: padding_mode={layer.padding_mode!r}; expected 'zeros'")
    names = ("out_channels", "groups", "kernel_size", "stride", "padding", "dilation")
    return {"link_type": "conv"} | {name: getattr(layer, name) for name in names}


def _pooling(layer: Any) -> dict[str, Any]:
    divisor = getattr(layer, "divisor_override", None)
    if layer.ceil_mode or divisor or not layer.count_include_pad:
        raise InputError(f"{layer!r}: ceil_mode, divisor_override and count_include_pad=False")
    names = ("kernel_size", "stride", "padding")
    return {f"pool_{name}": getattr(layer, name) for name in names}
