"""The weights and what else is learned, as safetensors (section 12)."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.shared.files import replacing
from tenfold.spaic.network.connections import (
    Connection,
)
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.modules import Module
from tenfold.spaic.network.network import Network


def _tensors(net: Network) -> dict[str, Tensor]:
    net.prepare()
    made = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in net.named_parameters().items()
    }
    for part in net.walk():
        if isinstance(part, Module):
            made |= {f"{part.id}:{k}": v.cpu().clone() for k, v in part.state_dict().items()}
    for con in net.get_connections():
        for name, module in con.modules.items():
            made |= {
                f"{con.id}:{name}.{k}": v.cpu().clone() for k, v in module.state_dict().items()
            }
        for name in ("pre_index", "post_index"):
            if getattr(con, name) is not None:
                made[f"{con.id}:{name}"] = getattr(con, name).clone()
    return made


def save_state(net: Network, path: Path | str) -> Path:
    """Writes all weights, biases, delays and trained values of a network.

    Args:
        net: The network.
        path: The safetensors file.

    Returns:
        The path.
    """
    from safetensors.torch import save_file

    with replacing(Path(path)) as temporary:
        save_file(_tensors(net), temporary)
    return Path(path)


def load_state(net: Network, source: Path | str | Mapping[str, Tensor]) -> None:
    """Puts saved weights into a network of the same structure; its name may differ.

    Everything is looked at before anything is changed: a network takes a state whole, or stays as
    it was.

    Args:
        net: The network.
        source: A file of `save_state`, or name → tensor.

    Raises:
        InputError: For a file that is not safetensors, a name that is missing or unknown, a wrong
            shape or kind of number, a value that is not finite, synapses that lead outside.
    """
    if not isinstance(source, Mapping):
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            source = load_file(Path(source))
        except (OSError, SafetensorError) as error:
            raise InputError(f"{source}: cannot be read as safetensors ({error})") from error
    given = {_without_net(name): value for name, value in source.items()}
    net.prepare()
    rooms: dict[int, dict[str, Tensor]] = {}
    for con in net.get_connections():
        rooms[id(con)] = _saved_synapses(con, given)
    wanted: dict[str, Tensor] = dict(net.named_parameters())
    for part in net.walk():
        if isinstance(part, Module):
            wanted |= {f"{part.id}:{k}": v for k, v in part.torch_module.state_dict().items()}
    for con in net.get_connections():
        for name, module in con.modules.items():
            wanted |= {f"{con.id}:{name}.{k}": v for k, v in module.state_dict().items()}
        # Of sparse links the number of synapses is the file's.
        for name, tensor in con.parameters().items():
            for key in ("weight", "delay"):
                if tensor is getattr(con, key) and key in rooms[id(con)]:
                    wanted[name] = rooms[id(con)][key]
    kept = _saved_states(net, given, set(map(_without_net, wanted)))
    for name, tensor in wanted.items():
        _check(name, given.get(_without_net(name)), tensor)
    known = set(map(_without_net, wanted)) | set(kept)
    known |= {_without_net(f"{c.id}:{k}") for c in net.get_connections() for k in _INDEX}
    for name in given:
        if name not in known:
            raise InputError(f"the saved state holds {name!r}, which {net!r} does not have")
    with torch.no_grad():
        for con in net.get_connections():
            for key, room in rooms[id(con)].items():
                setattr(con, key, room)
        for name, tensor in wanted.items():
            tensor.copy_(given[_without_net(name)])
        for name, (place, like) in kept.items():
            net._kept[place] = given[name].to(like)
    net._plan = None


_INDEX = ("pre_index", "post_index")


def _check(name: str, value: Tensor | None, like: Tensor) -> None:
    """Refuses a saved tensor that does not fit."""
    if value is None:
        raise InputError(f"the saved state lacks {name!r}")
    if value.shape != like.shape:
        raise InputError(
            f"{name!r} has shape {tuple(value.shape)} in the saved state; expected "
            f"{tuple(like.shape)}"
        )
    if value.is_floating_point() != like.is_floating_point() or value.is_complex():
        raise InputError(f"{name!r} is {value.dtype} in the saved state; expected {like.dtype}")
    if not bool(torch.isfinite(value).all()):
        raise InputError(f"{name!r} holds values that are not finite in the saved state")


def _saved_states(
    net: Network, given: Mapping[str, Tensor], known: set[str]
) -> dict[str, tuple[tuple[int, str], Tensor]]:
    """The saved states that runs keep (learned thresholds), which a new network has not made yet.

    Returns:
        Saved name → (group and state, a tensor of its kind).
    """
    found: dict[str, tuple[tuple[int, str], Tensor]] = {}
    for group in net.parts(NeuronGroup):
        for state in group.definition(net.compat).stay:
            name = _without_net(f"{group.id}:{{{state}[stay]}}")
            value = given.get(name)
            if name in known or value is None:
                continue
            like = torch.zeros((), dtype=net.dtype, device=net.device)
            if value.ndim == 0 or value[0].numel() != group.num:
                raise InputError(
                    f"{name!r} has shape {tuple(value.shape)} in the saved state; expected "
                    f"(batch, {', '.join(map(str, group.size))})"
                )
            _check(name, value, like.expand(value.shape))
            found[name] = ((id(group), state), like)
    return found


def _saved_synapses(con: Connection, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gives the saved synapses of a link, and room for its weights and delays, whose number the
    structure does not tell.

    Raises:
        InputError: For synapses that lead outside the groups, or delays below zero: the compiled
            loops trust these numbers.
    """
    made: dict[str, Tensor] = {}
    saved = {
        key: given.get(_without_net(name))
        for name, tensor in con.parameters().items()
        for key in ("weight", "delay")
        if tensor is getattr(con, key)
    }
    weight, delay = saved.get("weight"), saved.get("delay")
    if con.stored_sparse and con.weight is not None and weight is not None:
        for key, size in (("pre_index", con.pre.num), ("post_index", con.post.num)):
            index = given.get(_without_net(f"{con.id}:{key}"))
            if index is None:
                raise InputError(f"the saved state lacks {con.id}:{key}")
            if index.dtype != torch.int64 or index.ndim != 1 or index.shape != weight.shape:
                raise InputError(
                    f"{con!r}: the saved {key} is {index.dtype} {tuple(index.shape)}; expected "
                    f"one int64 a weight, of which there are {tuple(weight.shape)}"
                )
            if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < size:
                raise InputError(
                    f"{con!r}: the saved {key} holds {int(index.min())}..{int(index.max())}; "
                    f"expected 0..{size - 1}"
                )
            made[key] = index.to(con.weight.device)
        if weight.shape != con.weight.shape:
            room = con.weight.new_zeros(weight.shape)
            made["weight"] = torch.nn.Parameter(room, requires_grad=con.weight.requires_grad)
    if delay is not None and con.delay is not None:
        if not bool(torch.isfinite(delay).all()) or bool((delay < 0).any()):
            raise InputError(f"{con!r}: the saved delays must be finite and >= 0 ms")
        fits = weight is not None and delay.shape == weight.shape
        if delay.shape != con.delay.shape and (delay.ndim == 0 or fits):
            room = con.delay.new_zeros(delay.shape)
            made["delay"] = torch.nn.Parameter(room, requires_grad=con.delay.requires_grad)
    return made


def _without_net(name: str) -> str:
    """Drops what stands before `<net>`, wherever a name holds an identifier."""
    return re.sub(r"[^<>:{}]*<net>", "<net>", name)
