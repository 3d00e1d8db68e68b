"""ANN → SNN: a trained ReLU network as a network of integrate-and-fire neurons (section 10.4).

Each layer is scaled by a percentile λ of its activations: W ← W λ_before/λ, b ← b/λ. A neuron with
threshold 1 that starts at 1/2 and subtracts 1 at each spike then fires with the rate of the
activation over λ, up to one spike in the number of steps.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Decoder, Encoder


@torch.no_grad()
def from_relu(model: torch.nn.Sequential, data: Tensor, percentile: float = 99.9) -> Network:
    """Converts a stack of linear layers and ReLUs.

    Args:
        model: Linear, ReLU, Linear, ..., Linear (dropout and flatten are passed over).
        data: [samples, inputs], from 0 to 1; its activations set the scales.
        percentile: Which percentile of the activations becomes the rate 1.

    Returns:
        A network with the encoder `input` (the data as a constant current) and the decoder
        `output`: the mean potential that arrives at the last layer, in the units of the model's
        outputs. It runs with steps of 1 ms; more steps come closer to the model.

    Raises:
        InputError: For another layer, or activations that are all zero.
    """
    if not 0 < percentile <= 100:
        raise InputError(f"percentile={percentile}; expected > 0 and at most 100")
    kept: list[Any] = [
        layer
        for layer in model
        if not isinstance(layer, torch.nn.Dropout | torch.nn.Flatten | torch.nn.Identity)
    ]
    linear = kept[::2]
    right = all(isinstance(layer, torch.nn.Linear) for layer in linear)
    if (
        not right
        or not all(isinstance(layer, torch.nn.ReLU) for layer in kept[1::2])
        or (len(kept) % 2 == 0)
    ):
        found = ", ".join(type(layer).__name__ for layer in kept)
        raise InputError(f"expected Linear, ReLU, ..., Linear; the model has {found}")
    net = Network("converted")
    net.set_backend_dt(1.0)
    net.strategy = 1
    net.input = Encoder(num=linear[0].in_features, coding_method="float")
    x, before, scale = data.flatten(1), net.input, 1.0
    for number, layer in enumerate(linear):
        x = layer(x)
        last = number == len(linear) - 1
        if not last:
            x = torch.relu(x)
        own = 1.0 if last else float(np.percentile(x.numpy(), percentile))
        if own <= 0:
            raise InputError(f"layer {number + 1} has no activation above zero on the data")
        model_name = "null" if last else "ifsubtract"
        options: dict[str, Any] = {} if last else {"v_start": 0.5}
        group = NeuronGroup(layer.out_features, model=model_name, **options)
        net.add_assembly("last" if last else f"layer{number + 1}", group)
        bias = torch.zeros(layer.out_features) if layer.bias is None else layer.bias / own
        link = Connection(before, group, weight=layer.weight * scale / own, bias=bias)
        net.add_connection(f"link{number + 1}", link)
        before, scale = group, own
    net.output = Decoder(dec_target=before, num=before.num, coding_method="spike_rate")
    return net
