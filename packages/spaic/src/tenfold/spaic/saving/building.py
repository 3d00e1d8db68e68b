"""A network from plain values, which may come from a stranger (section 12)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic.model.neurons import NeuronModel
from tenfold.spaic.network.connections import (
    IMAGES,
    STORED,
    Connection,
    Projection,
)
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.learners import Learner
from tenfold.spaic.network.monitors import SpikeMonitor, StateMonitor
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Action, Decoder, Encoder, Generator, Reward
from tenfold.spaic.network.objects import Assembly
from tenfold.spaic.saving.description import POLICIES

_NODES = {kind.__name__: kind for kind in (Encoder, Generator, Decoder, Action, Reward)}


_MONITORS = {kind.__name__: kind for kind in (StateMonitor, SpikeMonitor)}


LARGEST = 2**31
"""A file may describe no layer and no matrix of weights with more values than this."""


def _size(what: str, *sizes: Any) -> None:
    """Refuses a description that would fill the memory.

    Raises:
        InputError: If it asks for too much, or not for whole numbers.
    """
    total = 1
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise InputError(f"{what}: a size is {size!r}; expected a whole number >= 0")
        total *= size
    if total > LARGEST:
        raise InputError(f"{what}: {total} values; a network file may ask for at most {LARGEST}")


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
        if kind == "Assembly":
            parts[entry["id"]] = Assembly(type=entry["type"])
    for entry in made["parts"]:
        kind, name = entry["_class_label"], entry["name"]
        if kind == "Assembly":
            _owner(parts, entry).add(name, parts[entry["id"]])
            continue
        if "shape" in entry:
            _size(f"{kind} {name}", *entry["shape"])
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
        _owner(parts, entry).add(name, part)
        parts[entry["id"]] = part
    first = ("Connection", "Projection")
    for entry in sorted(later, key=lambda item: item["_class_label"] not in first):
        kind, name = entry["_class_label"], entry["name"]
        if kind == "Connection":
            options = dict(entry["parameters"])
            sides = [parts[entry[key]] for key in ("pre", "post")]
            if entry["link_type"] not in IMAGES:
                stored = entry["link_type"] in STORED
                _size(f"Connection {name}", *([] if stored else [side.num for side in sides]))
            count = (
                options.get("number", 0),
                options.get("degree", 0) * max(side.num for side in sides),
            )
            for number in count:
                _size(f"Connection {name}", number)
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
                parts[entry["target"]],
                entry["var_name"],
                dt=entry["dt"],
                nbatch=entry["nbatch"],
                get_grad=entry.get("get_grad", False),
                index=_index_from_list(entry.get("index", "full")),
            )
        elif kind == "Projection":
            part = Projection(
                parts[entry["pre"]],
                parts[entry["post"]],
                policies=[_policy_from_dict(item) for item in entry["policies"]],
                link_type=entry["link_type"],
                ConnectionParameters=entry["ConnectionParameters"],
            )
            parts[entry["id"]] = part
            _owner(parts, entry).add(name, part)
            for con in part.expand():  # learners and monitors may name what it makes
                parts[con.id.removeprefix(net.id + "_")] = con
            continue
        else:
            raise InputError(f"part {name!r} is a {kind!r}, which is not known")
        _owner(parts, entry).add(name, part)
    for entry in made["parts"]:
        if entry["_class_label"] == "Assembly":  # what belongs to several assemblies
            for name, path in entry["members"].items():
                parts[entry["id"]].members.setdefault(name, parts[path])
    return net


def _owner(parts: Mapping[str, Any], entry: Mapping[str, Any]) -> Any:
    return parts[entry.get("owner", "")]


def _policy_from_dict(made: Mapping[str, Any]) -> Any:
    settings: dict[str, Any] = {
        key: [tuple(item) if isinstance(item, list) else item for item in value]
        if isinstance(value, list)
        else value
        for key, value in made.items()
        if key != "policy"
    }
    return POLICIES[made["policy"]](**settings)


def _index_from_list(made: Any) -> Any:
    if isinstance(made, str):
        return made
    return tuple(slice(*part["slice"]) if isinstance(part, dict) else part for part in made)
