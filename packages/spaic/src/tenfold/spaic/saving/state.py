"""The weights and what else is learned, as safetensors (section 12)."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.shared.files import replacing
from tenfold.spaic.network.connections import (
    Connection,
)
from tenfold.spaic.network.contents import Contents
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.learners import Learner, Rule
from tenfold.spaic.network.modules import Module
from tenfold.spaic.network.objects import Assembly
from tenfold.spaic.saving import hdf5


@contextmanager
def all_shown(net: Contents) -> Iterator[None]:
    """Shows hidden assemblies for a while: files hold them too.

    Args:
        net: The network.
    """
    hidden = [part for part in net.walk(hidden=True) if getattr(part, "_hidden", False)]
    assemblies = [part for part in hidden if isinstance(part, Assembly)]
    for part in assemblies:
        part.assembly_show()
    try:
        yield
    finally:
        for part in assemblies:
            part.assembly_hide()


def state_of(net: Contents) -> dict[str, Tensor]:
    """Copies all weights, biases, delays and learned values of a network, hidden parts included.

    Args:
        net: The network.

    Returns:
        Name → tensor on the CPU.
    """
    with all_shown(net):
        return _tensors(net)


def _tensors(net: Contents) -> dict[str, Tensor]:
    net.prepare()
    made = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in net.named_parameters().items()
    }
    for part in net.walk():
        if isinstance(part, Module):
            found = part.torch_module.state_dict()
            made |= {f"{part.id}:{k}": v.cpu().contiguous().clone() for k, v in found.items()}
    for con in net.get_connections():
        for name, module in con.modules.items():
            made |= {
                f"{con.id}:{name}.{k}": v.cpu().clone() for k, v in module.state_dict().items()
            }
        for name in ("pre_index", "post_index"):
            if getattr(con, name) is not None:
                made[f"{con.id}:{name}"] = getattr(con, name).clone()
    for learner in net.parts(Learner):
        found = {key: getattr(rule, name) for key, (rule, name) in learner.memory().items()}
        made |= {k: v.detach().cpu().clone() for k, v in found.items() if v is not None}
    return made


def save_state(net: Contents, path: Path | str) -> Path:
    """Writes all weights, biases, delays and trained values of a network.

    Args:
        net: The network.
        path: The file: HDF5 if it ends in .h5 or .hdf5 (extra `hdf5`), else safetensors.

    Returns:
        The path.
    """
    tensors = state_of(net)
    with replacing(Path(path)) as temporary:
        if Path(path).suffix in _HDF5:
            with hdf5.package().File(temporary, "w") as file:
                for name, value in tensors.items():
                    # "/" would make groups; names hold none, those of torch modules neither.
                    file.create_dataset(name, data=value.numpy())
        else:
            from safetensors.torch import save_file

            save_file(tensors, temporary)
    return Path(path)


_HDF5 = (".h5", ".hdf5")


def read_state(path: Path | str) -> dict[str, Tensor]:
    """Reads saved tensors; nothing in the file can run code.

    Args:
        path: A file of `save_state`, or a `.pt` file of the official front end: name → tensor, or
            module → name → tensor.

    Returns:
        Name → tensor.

    Raises:
        InputError: If it is not such a file; for HDF5 that declares more values than it holds, or
            leads into other files.
    """
    path = Path(path)
    kind = {".pt": "a torch state", **dict.fromkeys(_HDF5, "HDF5")}.get(path.suffix, "safetensors")
    try:
        if path.suffix in _HDF5:
            with hdf5.package().File(path, "r") as file:
                hdf5.check(file, path.stat().st_size)  # a state is written plainly
                return {name: torch.as_tensor(np.asarray(file[name])) for name in file}
        if path.suffix == ".pt":
            made: dict[str, Tensor] = {}
            for name, value in torch.load(path, map_location="cpu", weights_only=True).items():
                inner = value.items() if isinstance(value, Mapping) else [(None, value)]
                made |= {name if key is None else f"{name}:{key}": v for key, v in inner}
            if not all(isinstance(value, Tensor) for value in made.values()):
                raise TypeError("it holds more than tensors")
            return made
        from safetensors.torch import load_file

        return load_file(path)
    except InputError:
        raise
    except Exception as error:  # each reader has errors of its own
        raise InputError(f"{path}: cannot be read as {kind} ({error})") from error


def state_path(direct: Path | str, filename: str, hdf5: bool = False) -> Path:
    """Gives the place of a state as the official front end has it, its folder made.

    Args:
        direct: A folder.
        filename: A folder inside of it.
        hdf5: Whether it is an HDF5 file.
    """
    folder = Path(direct) / filename / "parameters"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"_parameters_dict.{'h5' if hdf5 else 'safetensors'}"


def find_state(direct: Path | str, filename: str) -> dict[str, Tensor]:
    """Reads the state in the place that `state_path` gives, the official `.pt` files too.

    Args:
        direct: A folder.
        filename: A folder inside of it.

    Raises:
        InputError: If there is none, or it cannot be read.
    """
    folder = Path(direct) / filename / "parameters"
    files = [folder / f"_parameters_dict{end}" for end in (".safetensors", ".h5", ".pt")]
    file = next((item for item in files if item.is_file()), None)
    if file is None:
        raise InputError(f"there is no {files[0]}, nor as .h5 or .pt")
    state = read_state(file)
    modules = file.with_name("module_dict.pt")
    if file.suffix == ".pt" and modules.is_file():
        state |= read_state(modules)
    return state


def load_state(net: Contents, source: Path | str | Mapping[str, Tensor]) -> None:
    """Puts saved weights into a network of the same structure; its name may differ.

    Everything is looked at before anything is changed: a network takes a state whole, or stays as
    it was.

    Args:
        net: The network.
        source: A file as in `read_state`, or name → tensor.

    Raises:
        InputError: For a file that cannot be read, a name that is missing or unknown, a wrong
            shape or kind of number, a value that is not finite, synapses that lead outside.
    """
    if not isinstance(source, Mapping):
        source = read_state(source)
    given = {_without_net(name): value for name, value in source.items()}
    with all_shown(net):
        waiting = [con for con in net.get_connections() if con.weight is None and con.stored_sparse]
        for con in waiting:  # no synapses are drawn that the saved ones replace at once
            index = given.get(_without_net(f"{con.id}:pre_index"))
            if index is not None and con.kind != "one_to_one_sparse":
                con.awaited = index.numel()
        try:
            _take(net, given)
        except Exception:
            for con in waiting:
                con.forget()
            raise
        finally:
            for con in waiting:
                con.awaited = None
    net._plan = None


def load_synapses(net: Contents, given: Mapping[str, Tensor]) -> None:
    """Puts what a description refers to besides weights into a network that was not built yet: the
    synapses of `index` links, delays and biases.

    Args:
        net: The network.
        given: Name → tensor; empty if nothing was saved.

    Raises:
        InputError: For an `index` link whose synapses are not among them.
    """
    given = {_without_net(name): value for name, value in given.items()}
    with all_shown(net):
        for con in net.get_connections():
            base = con.weight_name.removesuffix("{weight}")
            names = {key: _without_net(f"{base}{{{key}}}") for key in ("delay", "bias")}
            saved = {key: given[name].numpy() for key, name in names.items() if name in given}
            if con.link_type == "index":
                for key in _INDEX:
                    name = _without_net(f"{con.id}:{key}")
                    if name not in given:
                        raise InputError(f"{con!r}: its {key} stands in the saved state: none here")
                    con.options[key] = given[name].numpy()
            drawn = con.stored_sparse and con.link_type != "index"  # with their synapses
            if "delay" in saved and (saved["delay"].ndim == 0 or not drawn):
                con.given_delay = saved["delay"]
            if "bias" in saved:
                con.given_bias = saved["bias"]


def _take(net: Contents, given: Mapping[str, Tensor]) -> None:
    """Looks at a state, then puts it into a network."""
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
    memories = _saved_memories(net, given)
    known = set(map(_without_net, wanted)) | set(kept) | set(memories)
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
        net._forget_removed()
        for name, (place, like) in kept.items():
            net._kept[place] = given[name].to(like)
        for name, (rule, key) in memories.items():
            setattr(rule, key, given[name].to(net.device, net.dtype, copy=True))


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
    net: Contents, given: Mapping[str, Tensor], known: set[str]
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


def _saved_memories(net: Contents, given: Mapping[str, Tensor]) -> dict[str, tuple[Rule, str]]:
    """The saved memories of rules.

    Returns:
        Saved name → the rule and its attribute.
    """
    found: dict[str, tuple[Rule, str]] = {}
    for learner in net.parts(Learner):
        own = [name for name in given if name.startswith(_without_net(learner.id) + ":")]
        if own and not learner.memory():  # a network that has not run yet
            learner.make_rules(net._plan, net._random)
        rooms = {_without_net(name): room for name, room in learner.memory().items()}
        found |= {name: rooms[name] for name in own if name in rooms}
    for name, (rule, key) in found.items():
        rule.check_memory(key, given[name])
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
