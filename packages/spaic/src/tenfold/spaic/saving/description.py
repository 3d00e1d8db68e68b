"""A network as plain values (section 12)."""

import dataclasses
from collections.abc import Callable
from typing import Any

from tenfold.shared.errors import InputError
from tenfold.spaic.model.neurons import NeuronModel
from tenfold.spaic.network.connections import (
    Connection,
    ExcludedTypePolicy,
    IncludedTypePolicy,
    IndexConnectPolicy,
    Initializer,
    Projection,
)
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.learners import ALGORITHMS, Learner
from tenfold.spaic.network.modules import Module
from tenfold.spaic.network.monitors import Monitor, SpikeMonitor, StateMonitor
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Action, Decoder, Encoder, Generator, Node, Reward
from tenfold.spaic.network.objects import Assembly, BaseModule
from tenfold.spaic.saving.layers import describe
from tenfold.spaic.saving.state import all_shown
from tenfold.spaic.saving.values import to_plain

NODES = {kind.__name__: kind for kind in (Encoder, Generator, Decoder, Action, Reward)}
MONITORS = {kind.__name__: kind for kind in (StateMonitor, SpikeMonitor)}
POLICIES = {
    kind.__name__: kind for kind in (IncludedTypePolicy, ExcludedTypePolicy, IndexConnectPolicy)
}
FORMATS = ("tenfold-spaic 1", "tenfold-spaic 2")
"""Those that are read; the last is written; the first, of 0.1.0, has a flat list of parts."""
SETTINGS = ("pre_types", "post_types", "level", "pre_indexs", "post_indexs")


def network_to_dict(net: Network) -> dict[str, Any]:
    """Describes a network as plain values.

    Each part is a mapping of one key, its name; what belongs to an assembly stands among its parts.
    Hidden assemblies are described too, with a flag. Functions, classes of the user's own and torch
    modules other than those of `saving.layers` are described by their names only.

    Args:
        net: The network.

    Raises:
        InputError: For a part that a file cannot hold.
    """
    runtime, built = net.time, net._plan is not None
    hidden = {id(part) for part in net.walk(hidden=True) if getattr(part, "_hidden", False)}
    with all_shown(net):
        to = _Writer(net)
        entries: list[tuple[str, dict[str, Any]]] = []  # the owner's id, and the part
        torch_modules: dict[int, str] = {}
        for part in net.walk():
            if part is net:
                continue
            label, describing = _kind(part)
            own = to.name(part, net)
            entry: dict[str, Any] = {"_class_label": label, "name": part.name, "id": own}
            if id(part) in hidden:
                entry["hidden"] = True
            if type(part).__name__ != label and label not in ("Assembly", "NeuronGroup"):
                entry["class"] = to.plain(type(part), f"{part!r}")
            entry |= describing(part, to)
            if isinstance(part, Module):  # one torch module in two places stays one
                same = torch_modules.setdefault(id(part.torch_module), own)
                entry |= {"module": {"same_as": same}} if same != own else {}
            entries.append((to.names.get(id(part.owner), ""), entry))
        members = _assembly(net, to)["members"]
    inside: dict[str, list[dict[str, Any]]] = {"": []}
    for owner, entry in entries:
        inside.setdefault(owner, []).append({entry["name"]: entry})
    for _, entry in entries:
        if entry["id"] in inside:
            entry["parts"] = inside[entry["id"]]
    backend = {
        "backend_name": "pytorch",
        "dt": net.dt,
        "runtime": runtime,
        "builded": built,
        "strategy": net.strategy,
        "compat": net.compat,
        "dtype": str(net.dtype).removeprefix("torch."),
        "engine": net.engine,
        "break_loops": net.break_loops,
        "full_grad": net.full_grad,
    }
    head = {"format": FORMATS[-1], "name": net.name, "backend": backend}
    return {**head, "members": members, "parts": inside[""]}


class _Writer:
    """Gives parts their names in the file, and settings their plain values."""

    def __init__(self, net: Network) -> None:
        self.net = net
        self.names: dict[int, str] = {id(net): ""}
        self.functions: dict[str, Any] = {}
        for part in [*net.walk(), *net.get_connections()]:
            if part is not net:
                self.names[id(part)] = part.id.removeprefix(net.id + "_")

    def name(self, part: Any, what: Any) -> str:
        """The name of a part that another one refers to."""
        if id(part) not in self.names:
            raise InputError(f"{what!r} refers to {part!r}, which is not a part of {self.net!r}")
        return self.names[id(part)]

    def plain(self, value: Any, what: str) -> Any:
        """A setting as `to_plain` has it; of two functions of one name none could be handed in."""
        return to_plain(value, what, self.functions)


def _kind(part: BaseModule) -> tuple[str, Callable[[Any, _Writer], dict[str, Any]]]:
    """The class of a part, or that of ours which it is derived from, and how it is described."""
    for label, kind, describing in _KINDS:
        if isinstance(part, kind):
            return label, describing
    raise InputError(f"{part!r}: a {type(part).__name__} cannot be written into a network file")


def _group(part: NeuronGroup, to: _Writer) -> dict[str, Any]:
    model, what = part.model, f"{part!r}"
    return {
        "num": part.num,
        "shape": list(part.shape or ()),
        "model_name": model if isinstance(model, str) else _model(model, what, to),
        "type": part.type,
        "parameters": to.plain(part.model_parameters, what),
        "refractory": to.plain(part.refractory, what),
        "refractory_from": part.refractory_from,
        "method": part.method,
        "initial": to.plain(part.initial, what),
        "parameter_variables": part.parameter_variables,
        "varible_ranges": to.plain(part.varible_ranges, what),
        "neuron_position": to.plain(part.neuron_position, what),
        "prefer_device": to.plain(part.prefer_device, what),
    }


def _model(model: NeuronModel, what: str, to: _Writer) -> dict[str, Any]:
    return {
        item.name: to.plain(getattr(model, item.name), what) for item in dataclasses.fields(model)
    }


def _node(part: Node, to: _Writer) -> dict[str, Any]:
    made = {
        "_node_sub_class": type(part).__name__,
        "num": part.num if part.shape else None,
        "shape": list(part.shape) if part.shape else None,
        "type": part.type,
        "_dt": part.dt,
        "_time": part.time,
        "coding_method": part.coding_method,
        "coding_var_name": part.coding_var_name,
        "coding_param": to.plain(part.coding, f"{part!r}"),
        "dec_target": part.dec_target and to.name(part.dec_target, part),
    }
    if isinstance(part, Generator) and part.source is not None:
        made["source"] = to.plain(part.source[0], f"{part!r}")
    return made


def _connection(part: Connection, to: _Writer) -> dict[str, Any]:
    what = f"{part!r}"
    drawn = {"weight": part.given_weight, "bias": part.given_bias}
    return {
        "pre": to.name(part.pre, part),
        "post": to.name(part.post, part),
        "link_type": part.link_type,
        "syn_type": part.syn_type,
        "weight": None if part.kind in ("null", "pool") else part.weight_name,  # in the state
        "syn_kwargs": to.plain(part.syn_kwargs, what),
        "max_delay": part.max_delay,
        "min_delay": to.plain(part.min_delay, what),
        "delayed": part.delay is not None or part.given_delay is not None,
        "train_delay": part.train_delay,
        "biased": part.given_bias is not None,
        "sparse_with_mask": part.sparse_with_mask,
        "pre_var_name": part.pre_var_name,
        "post_var_name": part.post_var_name,
        "is_parameter": part.is_parameter,
        "w_min": to.plain(part.w_min, what),
        "w_max": to.plain(part.w_max, what),
        "weight_quantization": part.weight_quantization,
        "prefer_device": to.plain(part.prefer_device, what),
        "initializers": {  # numbers are saved as weights
            key: to.plain(value, what)
            for key, value in drawn.items()
            if isinstance(value, Initializer)
        },
        "parameters": {
            key: to.plain(value, f"option {key} of {what}")
            for key, value in part.options.items()
            if key not in ("pre_index", "post_index")
        },
    }


def _projection(part: Projection, to: _Writer) -> dict[str, Any]:
    return {
        "pre": to.name(part.pre, part),
        "post": to.name(part.post, part),
        "link_type": part.link_type,
        "policies": [_policy(policy, f"{part!r}", to) for policy in _policies(part.policies)],
        "ConnectionParameters": to.plain(part.ConnectionParameters, f"{part!r}"),
    }


def _policies(given: Any) -> list[Any]:
    """Policies joined with `&` are the same as a list of them."""
    found: list[Any] = []
    for policy in given:
        pair = [policy.one, policy.other] if hasattr(policy, "other") else None
        found += _policies(pair) if pair else [policy]
    return found


def _policy(policy: Any, what: str, to: _Writer) -> dict[str, Any]:
    kind = type(policy).__name__
    if kind not in POLICIES:
        raise InputError(f"{what}: a policy of the kind {kind} cannot be written into a file")
    found = {key: getattr(policy, key) for key in SETTINGS if hasattr(policy, key)}
    return {"policy": kind, **to.plain(found, what)}


def _learner(part: Learner, to: _Writer) -> dict[str, Any]:
    what = f"{part!r}"
    algorithm: Any = part.algorithm
    if algorithm not in ALGORITHMS:  # a rule of the user's own, or none beside the hooks
        algorithm = part.rule and to.plain(part.rule, what)
    return {
        "algorithm": algorithm,
        "trainable": [to.name(item, part) for item in part.trainable],
        "pathway": [to.name(item, part) for item in part.pathway],
        "reward": part.reward and to.name(part.reward, part),
        "parameters": to.plain(part.options, what),
        "optim_name": part.optim_name,
        "optim_kwargs": to.plain(part.optim_kwargs, what),
        "lr_schedule_name": part.lr_schedule_name,
        "schedule_kwargs": to.plain(part.schedule_kwargs, what),
    }


def _monitor(part: Monitor, to: _Writer) -> dict[str, Any]:
    return {
        "type": _kind(part)[0],
        "target": to.name(part.target, part),
        "var_name": part.var_name,
        "dt": part.dt,
        "nbatch": part.nbatch,
        "get_grad": part.get_grad,
        "index": _index(part, to),
    }


def _index(monitor: Monitor, to: _Writer) -> Any:
    """A monitor's index: a word, or numbers, lists of numbers and slices, one for each axis."""
    if isinstance(monitor.index, str):
        return monitor.index
    whole = monitor.index if isinstance(monitor.index, tuple) else (monitor.index,)
    made, what = [], f"{monitor!r}"
    for part in whole:
        if isinstance(part, slice):
            made.append({"slice": to.plain((part.start, part.stop, part.step), what)})
        else:
            made.append(to.plain(part, what))
    return made


def _module(part: Module, to: _Writer) -> dict[str, Any]:
    return {
        "input_targets": [to.name(item, part) for item in part.input_targets],
        "input_var_names": list(part.input_var_names),
        "output_targets": [to.name(item, part) for item in part.output_targets],
        "output_var_names": list(part.output_var_names),
        "module": describe(part.torch_module) or {"module": _path(part)},
    }


def _path(part: BaseModule) -> str:
    """The names on the way from the network to a part, joined by dots."""
    above = part.owner if part.owner is not None and part.owner.owner is not None else None
    return f"{_path(above)}.{part.name}" if above is not None else str(part.name)


def _assembly(part: Assembly, to: _Writer) -> dict[str, Any]:
    found = {name: to.name(item, part) for name, item in part.members.items()}
    return {"type": part.type, "members": found}


_KINDS: list[tuple[str, type[BaseModule], Callable[[Any, _Writer], dict[str, Any]]]] = [
    # An Action is a Decoder and a Generator an Encoder: the derived ones come first.
    *[(label, NODES[label], _node) for label in ("Action", "Decoder", "Generator", "Encoder")],
    ("Reward", Reward, _node),
    *[(label, kind, _monitor) for label, kind in MONITORS.items()],
    ("NeuronGroup", NeuronGroup, _group),
    ("Connection", Connection, _connection),
    ("Projection", Projection, _projection),
    ("Learner", Learner, _learner),
    ("Module", Module, _module),
    # A class of the user's own is a plain Assembly when it comes back.
    ("Assembly", Assembly, _assembly),
]
