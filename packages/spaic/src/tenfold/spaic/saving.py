"""Saving and loading: the weights as safetensors, the structure as JSON or YAML (section 12)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.shared.files import replacing, write_atomic
from tenfold.spaic.model.neurons import NeuronModel
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.learners import Learner
from tenfold.spaic.network.modules import Module
from tenfold.spaic.network.monitors import Monitor, SpikeMonitor, StateMonitor
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Action, Decoder, Encoder, Generator, Node, Reward

_NODES = {kind.__name__: kind for kind in (Encoder, Generator, Decoder, Action, Reward)}
_MONITORS = {kind.__name__: kind for kind in (StateMonitor, SpikeMonitor)}


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

    Args:
        net: The network.
        source: A file of `save_state`, or name → tensor.

    Raises:
        InputError: For a file that is not safetensors, a name that is missing, a wrong shape.
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
    for con in net.get_connections():
        _take_synapses(con, given)
    net._plan = None
    wanted: dict[str, Tensor] = dict(net.named_parameters())
    for part in net.walk():
        if isinstance(part, Module):
            wanted |= {f"{part.id}:{k}": v for k, v in part.torch_module.state_dict().items()}
    for con in net.get_connections():
        for name, module in con.modules.items():
            wanted |= {f"{con.id}:{name}.{k}": v for k, v in module.state_dict().items()}
    with torch.no_grad():
        for name, tensor in wanted.items():
            value = given.get(_without_net(name))
            if value is None:
                raise InputError(f"the saved state lacks {name!r}")
            if value.shape != tensor.shape:
                raise InputError(
                    f"{name!r} has shape {tuple(value.shape)} in the saved state; expected "
                    f"{tuple(tensor.shape)}"
                )
            tensor.copy_(value)


def _take_synapses(con: Connection, given: Mapping[str, Tensor]) -> None:
    """Makes room for the saved synapses and delays, whose number the structure does not tell.

    Raises:
        InputError: For synapses that lead outside the groups, or delays below zero: the compiled
            loops trust these numbers.
    """
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
            setattr(con, key, index.to(con.weight.device))
        if weight.shape != con.weight.shape:
            room = con.weight.new_zeros(weight.shape)
            con.weight = torch.nn.Parameter(room, requires_grad=con.weight.requires_grad)
    if delay is not None and con.delay is not None:
        if not bool(torch.isfinite(delay).all()) or bool((delay < 0).any()):
            raise InputError(f"{con!r}: the saved delays must be finite and >= 0 ms")
        fits = con.weight is not None and delay.shape == con.weight.shape
        if delay.shape != con.delay.shape and (delay.ndim == 0 or fits):
            room = con.delay.new_zeros(delay.shape)
            con.delay = torch.nn.Parameter(room, requires_grad=con.delay.requires_grad)


def _without_net(name: str) -> str:
    """Drops what stands before `<net>`, wherever a name holds an identifier."""
    import re

    return re.sub(r"[^<>:{}]*<net>", "<net>", name)


def _plain(value: Any) -> Any:
    """Turns a parameter into what JSON holds."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if callable(value):
        raise InputError(f"a function ({value!r}) cannot be written into a network file")
    return value


def network_to_dict(net: Network) -> dict[str, Any]:
    """Describes a network as plain values.

    Args:
        net: The network. Its parts may lie in assemblies; torch modules and policies are refused.

    Raises:
        InputError: For a part that a file cannot hold.
    """
    parts: list[dict[str, Any]] = []
    names: dict[int, str] = {}
    for part in net.walk():
        if part is not net:
            path = part.id.removeprefix(net.id + "_")
            names[id(part)] = path
    for part in net.walk():
        kind = type(part).__name__
        entry: dict[str, Any] = {"_class_label": kind, "name": part.name}
        if isinstance(part, NeuronGroup):
            model = part.model
            entry |= {
                "id": names[id(part)],
                "num": part.num,
                "shape": list(part.shape or ()),
                "model": model if isinstance(model, str) else _model_to_dict(model),
                "type": part.type,
                "parameters": {k: _plain(v) for k, v in part.model_parameters.items()},
                "refractory": _plain(part.refractory),
                "refractory_from": part.refractory_from,
                "method": part.method,
                "initial": {k: _plain(v) for k, v in part.initial.items()},
                "parameter_variables": part.parameter_variables,
                "varible_ranges": {k: list(v) for k, v in part.varible_ranges.items()},
                "neuron_position": _plain(part.neuron_position),
            }
        elif isinstance(part, Node):
            entry |= {
                "id": names[id(part)],
                "shape": list(part.shape or ()),
                "coding_method": part.coding_method,
                "coding_var_name": part.coding_var_name,
                "coding_param": {k: _plain(v) for k, v in part.coding.items()},
                "dec_target": names.get(id(part.dec_target)),
            }
            if isinstance(part, Generator) and part.source is not None:
                entry["source"] = _plain(part.source[0])
        elif isinstance(part, Learner):
            entry |= {
                "algorithm": part.algorithm,
                "trainable": [names.get(id(item), "") for item in part.trainable],
                "pathway": [names.get(id(item), "") for item in part.pathway],
                "parameters": {k: _plain(v) for k, v in part.options.items()},
                "optim_name": part.optim_name,
                "optim_kwargs": part.optim_kwargs,
                "lr_schedule_name": part.lr_schedule_name,
                "schedule_kwargs": part.schedule_kwargs,
            }
        elif isinstance(part, Monitor):
            entry |= {
                "target": names.get(id(part.target), ""),
                "var_name": part.var_name,
                "dt": part.dt,
                "nbatch": part.nbatch,
            }
        elif isinstance(part, Connection):
            entry |= {
                "id": names[id(part)],
                "pre": names[id(part.pre)],
                "post": names[id(part.post)],
                "link_type": part.link_type,
                "syn_type": part.syn_type,
                "syn_kwargs": {k: _plain(v) for k, v in part.syn_kwargs.items()},
                "max_delay": part.max_delay,
                "min_delay": part.min_delay,
                "delayed": part.delay is not None,
                "train_delay": part.train_delay,
                "biased": part.given_bias is not None,
                "sparse_with_mask": part.sparse_with_mask,
                "pre_var_name": part.pre_var_name,
                "post_var_name": part.post_var_name,
                "is_parameter": part.is_parameter,
                "w_min": part.w_min,
                "w_max": part.w_max,
                "weight_quantization": part.weight_quantization,
                "parameters": {
                    k: _plain(v)
                    for k, v in part.options.items()
                    if k not in ("pre_index", "post_index")
                },
            }
        elif part is not net:
            raise InputError(f"{part!r}: a {kind} cannot be written into a network file")
        if part is not net:
            parts.append(entry)
    backend = {
        "dt": net.dt,
        "strategy": net.strategy,
        "compat": net.compat,
        "dtype": str(net.dtype).removeprefix("torch."),
    }
    return {"format": "tenfold-spaic 1", "name": net.name, "backend": backend, "parts": parts}


def _model_to_dict(model: NeuronModel) -> dict[str, Any]:
    import dataclasses

    return {
        item.name: _plain(getattr(model, item.name))
        if not isinstance(getattr(model, item.name), Mapping)
        else {k: _plain(v) for k, v in getattr(model, item.name).items()}
        for item in dataclasses.fields(model)
    }


def network_save(net: Network, path: Path | str, trans_format: str = "json") -> Path:
    """Writes a network: its structure, and its weights beside it.

    Args:
        net: The network.
        path: The folder that is made.
        trans_format: json or yaml.

    Returns:
        The structure's file; `weights.safetensors` stands beside it.

    Raises:
        InputError: For another format, or a part that a file cannot hold.
    """
    if trans_format not in ("json", "yaml"):
        raise InputError(f"trans_format={trans_format!r}; expected 'json' or 'yaml'")
    net.prepare()
    made = network_to_dict(net)
    if trans_format == "json":
        text = json.dumps(made, indent=2)
    else:
        import yaml

        text = yaml.safe_dump(made, sort_keys=False)
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    save_state(net, folder / "weights.safetensors")
    file = folder / f"network.{trans_format}"
    write_atomic(file, text)
    return file


def network_load(path: Path | str, load_weight: bool = True) -> Network:
    """Reads a network that `network_save` wrote; nothing in the files can run code.

    Args:
        path: The folder; or the structure's file, whose weights lie beside it as
            `<stem>.safetensors` or `weights.safetensors`.
        load_weight: Whether the weights are read too.

    Raises:
        InputError: If the files are missing, damaged, or name what does not exist.
    """
    folder = Path(path)
    found = [folder / f"network.{ending}" for ending in ("json", "yaml")]
    if folder.suffix in (".json", ".yaml", ".yml"):
        folder, found = folder.parent, [folder]
    file = next((item for item in found if item.is_file()), None)
    if file is None:
        raise InputError(f"{path} holds no network.json or network.yaml")
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".json":
            made = json.loads(text)
        else:
            import yaml

            try:
                made = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise ValueError(str(error)) from error
        net = network_from_dict(made)
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: not a network file ({error!r})") from error
    if load_weight:
        own = file.with_suffix(".safetensors")
        load_state(net, own if own.is_file() else folder / "weights.safetensors")
    return net


def network_from_dict(made: Mapping[str, Any]) -> Network:
    """Builds a network from what `network_to_dict` gave.

    Args:
        made: The description.

    Raises:
        InputError: For a format, a part or a setting that is not known here.
    """
    if made.get("format") != "tenfold-spaic 1":
        raise InputError(f"format {made.get('format')!r}; expected 'tenfold-spaic 1'")
    backend = made["backend"]
    if backend["dtype"] not in ("float32", "float64"):
        raise InputError(f"dtype {backend['dtype']!r}; expected 'float32' or 'float64'")
    net = Network(made["name"], compat=backend["compat"], dtype=getattr(torch, backend["dtype"]))
    net.set_backend_dt(backend["dt"])
    net.strategy = int(backend["strategy"])
    parts: dict[str, Any] = {"": net}
    later = []
    for entry in made["parts"]:
        kind, name = entry["_class_label"], entry["name"]
        if kind == "NeuronGroup":
            model = entry["model"]
            if not isinstance(model, str):
                fields: dict[str, Any] = {
                    k: tuple(v) if isinstance(v, list) else v for k, v in model.items()
                }
                model = NeuronModel(**fields)
            initial = {
                k: tuple(v) if isinstance(v, list) and v[:1] == ["uniform"] else v
                for k, v in entry["initial"].items()
            }
            part: Any = NeuronGroup(
                model=model,
                shape=entry["shape"],
                neuron_type=entry["type"],
                refractory=entry["refractory"],
                refractory_from=entry["refractory_from"],
                method=entry["method"],
                initial=initial,
                parameter_variables=entry["parameter_variables"],
                varible_ranges=entry.get("varible_ranges"),
                neuron_position=entry["neuron_position"],
                **entry["parameters"],
            )
        elif kind in ("Encoder", "Generator"):
            part = _NODES[kind](
                shape=entry["shape"],
                coding_method=entry["coding_method"],
                coding_var_name=entry["coding_var_name"],
                **entry["coding_param"],
            )
            if "source" in entry:
                part(np.asarray(entry["source"]))
        else:
            later.append(entry)
            continue
        net.add(name, part)
        parts[entry["id"]] = part
    for entry in sorted(later, key=lambda item: item["_class_label"] != "Connection"):
        kind, name = entry["_class_label"], entry["name"]
        if kind == "Connection":
            options = dict(entry["parameters"])
            if entry["link_type"] == "index":
                options |= {"pre_index": np.zeros(0, int), "post_index": np.zeros(0, int)}
            part = Connection(
                parts[entry["pre"]],
                parts[entry["post"]],
                link_type=entry["link_type"],
                syn_type=entry["syn_type"],
                syn_kwargs=entry["syn_kwargs"],
                max_delay=entry["max_delay"],
                min_delay=entry["min_delay"],
                delay=0.0 if entry["delayed"] and not entry["max_delay"] else None,
                train_delay=entry["train_delay"],
                bias=0.0 if entry["biased"] else None,
                sparse_with_mask=entry["sparse_with_mask"],
                pre_var_name=entry["pre_var_name"],
                post_var_name=entry["post_var_name"],
                is_parameter=entry["is_parameter"],
                w_min=entry["w_min"],
                w_max=entry["w_max"],
                weight_quantization=entry.get("weight_quantization", False),
                **options,
            )
            parts[entry["id"]] = part
        elif kind in _NODES:
            part = _NODES[kind](
                shape=entry["shape"],
                coding_method=entry["coding_method"],
                coding_var_name=entry["coding_var_name"],
                dec_target=parts[entry["dec_target"]],
                **entry["coding_param"],
            )
        elif kind == "Learner":
            part = Learner(
                trainable=[parts[item] for item in entry["trainable"]],
                pathway=[parts[item] for item in entry["pathway"]],
                algorithm=entry["algorithm"],
                **entry["parameters"],
            )
            if entry["optim_name"]:
                part.set_optimizer(entry["optim_name"], **entry["optim_kwargs"])
            if entry["lr_schedule_name"]:
                part.set_schedule(entry["lr_schedule_name"], **entry["schedule_kwargs"])
        elif kind in _MONITORS:
            part = _MONITORS[kind](
                parts[entry["target"]], entry["var_name"], dt=entry["dt"], nbatch=entry["nbatch"]
            )
        else:
            raise InputError(f"part {name!r} is a {kind!r}, which is not known")
        net.add(name, part)
    return net
