"""Layers of torch as plain values: their names and the arguments that make them (section 12).

Their weights are saved with the network's. Everything that is not in `LAYERS` is handed in again at
loading, since a file may not bring code.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.spaic.saving.memory import LINK, VALUE, Memory

_CONV = ("in_channels", "out_channels", "kernel_size", "stride", "padding")
_CONV_END = ("dilation", "groups", "bias", "padding_mode")
_NORM = ("num_features", "eps", "momentum", "affine", "track_running_stats")
_MAX = ("kernel_size", "stride", "padding", "dilation", "return_indices", "ceil_mode")
_MEAN = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")

LAYERS: Mapping[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("in_features", "out_features", "bias"),
    nn.Conv1d: (*_CONV, *_CONV_END),
    nn.Conv2d: (*_CONV, *_CONV_END),
    nn.ConvTranspose1d: (*_CONV, "output_padding", *_CONV_END),
    nn.ConvTranspose2d: (*_CONV, "output_padding", *_CONV_END),
    nn.BatchNorm1d: _NORM,
    nn.BatchNorm2d: _NORM,
    nn.LayerNorm: ("normalized_shape", "eps", "elementwise_affine", "bias"),
    nn.GroupNorm: ("num_groups", "num_channels", "eps", "affine"),
    nn.MaxPool1d: _MAX,
    nn.MaxPool2d: _MAX,
    nn.AvgPool1d: _MEAN,
    nn.AvgPool2d: (*_MEAN, "divisor_override"),
    nn.AdaptiveAvgPool1d: ("output_size",),
    nn.AdaptiveAvgPool2d: ("output_size",),
    nn.Upsample: ("size", "scale_factor", "mode", "align_corners"),
    nn.Flatten: ("start_dim", "end_dim"),
    nn.Identity: (),
    nn.Dropout: ("p", "inplace"),
    nn.Dropout1d: ("p", "inplace"),
    nn.Dropout2d: ("p", "inplace"),
    nn.ReLU: ("inplace",),
    nn.LeakyReLU: ("negative_slope", "inplace"),
    nn.ELU: ("alpha", "inplace"),
    nn.GELU: ("approximate",),
    nn.SiLU: ("inplace",),
    nn.Softplus: ("beta", "threshold"),
    nn.Hardtanh: ("min_val", "max_val", "inplace"),
    nn.Tanh: (),
    nn.Sigmoid: (),
    nn.Softmax: ("dim",),
}
"""Layer → the arguments that make it, each of which it holds as an attribute."""

_BY_NAME: Mapping[str, type[nn.Module]] = {kind.__name__: kind for kind in LAYERS}


def describe(module: nn.Module) -> dict[str, Any] | None:
    """Describes a layer, or a `Sequential` of layers, as plain values.

    Args:
        module: The module.

    Returns:
        What `build` takes; None for a module that has to be handed in at loading.
    """
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
        return None  # it does more than its class says
    if type(module) is nn.Sequential:
        inner = [(name, describe(layer)) for name, layer in module.named_children()]
        if any(made is None for _, made in inner):
            return None
        return {"layer": "Sequential", "layers": [list(pair) for pair in inner]}
    if type(module) not in LAYERS:
        return None
    own = dict(module.named_parameters(recurse=False))
    arguments: dict[str, Any] = {}
    for name in LAYERS[type(module)]:
        value = own.get("bias") is not None if name == "bias" else getattr(module, name)
        arguments[name] = list(value) if isinstance(value, tuple) else value
    made: dict[str, Any] = {"layer": type(module).__name__, "arguments": arguments}
    if any(value.dtype == torch.float64 for value in own.values()):
        made["dtype"] = "float64"
    frozen = [name for name, value in own.items() if not value.requires_grad]
    return made | ({"frozen": frozen} if frozen else {})


def build(made: Mapping[str, Any], memory: Memory, what: str) -> nn.Module:
    """Makes a layer from its description, with first weights of torch's own.

    Args:
        made: From `describe`, perhaps written by a stranger.
        memory: Adds up what the file's parts take.
        what: The part, for messages.

    Raises:
        InputError: For a layer or an argument that is not known, or one that is too large.
    """
    kind = str(made.get("layer"))
    if kind == "Sequential":
        whole = nn.Sequential()
        for name, inner in made["layers"]:
            whole.add_module(str(name), build(inner, memory, what))
        return whole
    if kind not in _BY_NAME:
        raise InputError(f"{what}: {did_you_mean(kind, _BY_NAME, 'layer')}")
    given = {key: _argument(value, f"{what}: {key}") for key, value in made["arguments"].items()}
    unknown = given.keys() - set(LAYERS[_BY_NAME[kind]])
    if unknown:
        raise InputError(f"{what}: {kind} takes no {', '.join(sorted(unknown))}")
    make = _BY_NAME[kind]
    try:
        with torch.device("meta"):  # counts without allocating
            shape = make(**given)
        count = sum(v.numel() for v in (*shape.parameters(), *shape.buffers()))
        memory.take(f"{what}: {kind}", LINK + VALUE * float(count))
        layer = make(**given)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what}: no {kind} can be made of {given} ({error})") from error
    if made.get("dtype") == "float64":
        layer = layer.to(torch.float64)
    for name, value in layer.named_parameters(recurse=False):
        value.requires_grad_(name not in made.get("frozen", ()))
    return layer


def _argument(value: Any, what: str) -> Any:
    """A number, a word, nothing, or a row of numbers."""
    row = value if isinstance(value, list) else [value]
    for item in row:
        if item is not None and not isinstance(item, bool | int | float | str):
            raise InputError(f"{what}: {item!r} is not a number or a word")
    return tuple(value) if isinstance(value, list) else value
