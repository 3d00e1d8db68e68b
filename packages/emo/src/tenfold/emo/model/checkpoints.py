"""Reading and writing checkpoints under the published names of the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tenfold.shared.errors import InputError

Which = Literal["ema", "net"]


def read_checkpoint(path: Path | str, which: Which = "ema") -> dict[str, Tensor]:
    """Reads the weights of a checkpoint; nothing in the file is executed.

    Args:
        path: A `.safetensors` file, or a file of `torch.save` that holds `net_E` and `net` (the
            published trainer's), `state_dict`, `model`, or the weights themselves.
        which: `ema` takes the averaged weights `net_E` where the file has them (the published
            accuracies are theirs), `net` the raw ones.

    Returns:
        Name → tensor, on the CPU.

    Raises:
        InputError: If there is no such file, or it is not a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"checkpoint {path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"checkpoint {path} cannot be read safely ({type(error).__name__}); expected a file of "
            "tensors: .safetensors, or torch.save of a state dict"
        ) from error
    weights = select_weights(content, which=which) if isinstance(content, Mapping) else {}
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise InputError(
            f"checkpoint {path} holds no weights; expected net_E, net, state_dict, model, or names "
            "of parameters at the top"
        )
    return weights


def select_weights(
    content: Mapping[str, Any], model: nn.Module | None = None, which: Which = "ema"
) -> dict[str, Any]:
    """Takes the weights out of a checkpoint's content.

    Args:
        content: The weights, or a mapping that holds them as `net_E`, `net`, `state_dict`, `model`.
        model: Not looked at; timm hands it to a `pretrained_filter_fn`.
        which: As in `read_checkpoint`.

    Returns:
        Name → tensor, without the prefix `module.` of a network trained on several devices.
    """
    keys = ("net_E", "net") if which == "ema" else ("net", "net_E")
    for key in (*keys, "state_dict", "model"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def load_checkpoint(
    model: nn.Module,
    source: Path | str | Mapping[str, Tensor],
    which: Which = "ema",
    backbone: bool = False,
    fresh_head: bool = False,
) -> list[str]:
    """Loads a checkpoint into a network, refusing one of another model.

    Args:
        model: The network; its `state_dict` has the published names.
        source: The file (see `read_checkpoint`), or the weights.
        which: As in `read_checkpoint`.
        backbone: For dense tasks: weights that the model lacks (final norm, head) are left out.
            The model must still find every one of its own.
        fresh_head: For fine-tuning: a head (`head.weight`, `head.bias`) that the checkpoint lacks
            or has for another number of classes stays as the model has it.

    Returns:
        The names that were left out.

    Raises:
        InputError: If names or shapes do not fit; the message shows the first of each.
    """
    where = str(source) if isinstance(source, Path | str) else "weights"
    weights = dict(source) if isinstance(source, Mapping) else read_checkpoint(source, which)
    own = model.state_dict()
    if fresh_head:
        for name in ("head.weight", "head.bias"):
            if name in own and getattr(weights.get(name), "shape", None) != own[name].shape:
                weights[name] = own[name]
    missing = [name for name in own if name not in weights]
    extra = [name for name in weights if name not in own]
    shapes = [
        f"{name} {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    problems = [
        f"{len(names)} {what} (first: {names[0]})"
        for what, names in (
            ("missing", missing),
            ("unknown", [] if backbone else extra),
            ("of another shape", shapes),
        )
        if names
    ]
    if problems:
        raise InputError(
            f"{where} is not a checkpoint of this {type(model).__name__}: {'; '.join(problems)}"
        )
    model.load_state_dict({name: weights[name] for name in own})
    return extra


def save_checkpoint(model: nn.Module, path: Path | str, ema: nn.Module | None = None) -> None:
    """Writes weights under the published names.

    Args:
        model: The network.
        path: `.safetensors` for the weights alone (those of `ema` if given), else a file of
            `torch.save` with `net` and, if given, `net_E`, as the published trainer writes.
        ema: The averaged network.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        state = (ema or model).state_dict()
        save_file({name: value.contiguous().cpu() for name, value in state.items()}, path)
        return
    content = {"net": model.state_dict()} | ({"net_E": ema.state_dict()} if ema else {})
    torch.save(content, path)
