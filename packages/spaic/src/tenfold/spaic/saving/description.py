"""A network as plain values (section 12)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.spaic.model.neurons import NeuronModel
from tenfold.spaic.network.connections import (
    Connection,
    ExcludedTypePolicy,
    IncludedTypePolicy,
    IndexConnectPolicy,
    Projection,
)
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.learners import ALGORITHMS, Learner
from tenfold.spaic.network.monitors import Monitor
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Generator, Node
from tenfold.spaic.network.objects import Assembly

POLICIES = {
    kind.__name__: kind for kind in (IncludedTypePolicy, ExcludedTypePolicy, IndexConnectPolicy)
}


SETTINGS = ("pre_types", "post_types", "level", "pre_indexs", "post_indexs")


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
        net: The network; torch modules and functions are refused.

    Raises:
        InputError: For a part that a file cannot hold.
    """
    parts: list[dict[str, Any]] = []
    names: dict[int, str] = {id(net): ""}
    for part in [*net.walk(), *net.get_connections()]:
        if part is not net:
            names[id(part)] = part.id.removeprefix(net.id + "_")

    def reference(part: Any, what: Any) -> str:
        if id(part) not in names:
            raise InputError(f"{what!r} refers to {part!r}, which is not a part of {net!r}")
        return names[id(part)]

    for part in net.walk():
        kind = type(part).__name__
        entry: dict[str, Any] = {"_class_label": kind, "name": part.name}
        entry["owner"] = names.get(id(part.owner), "")
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
                "dec_target": part.dec_target and reference(part.dec_target, part),
            }
            if isinstance(part, Generator) and part.source is not None:
                entry["source"] = _plain(part.source[0])
        elif isinstance(part, Learner):
            if type(part) is not Learner or part.algorithm not in ALGORITHMS:
                raise InputError(
                    f"{part!r} learns by code of its own ({part.algorithm}), which cannot be "
                    "written into a network file; add it after loading"
                )
            entry |= {
                "algorithm": part.algorithm,
                "trainable": [reference(item, part) for item in part.trainable],
                "pathway": [reference(item, part) for item in part.pathway],
                "parameters": {k: _plain(v) for k, v in part.options.items()},
                "optim_name": part.optim_name,
                "optim_kwargs": part.optim_kwargs,
                "lr_schedule_name": part.lr_schedule_name,
                "schedule_kwargs": part.schedule_kwargs,
            }
        elif isinstance(part, Monitor):
            entry |= {
                "target": reference(part.target, part),
                "var_name": part.var_name,
                "dt": part.dt,
                "nbatch": part.nbatch,
                "get_grad": part.get_grad,
                "index": _index_to_list(part),
            }
        elif isinstance(part, Connection):
            entry |= {
                "id": names[id(part)],
                "pre": reference(part.pre, part),
                "post": reference(part.post, part),
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
        elif isinstance(part, Projection):
            entry |= {
                "id": names[id(part)],
                "pre": reference(part.pre, part),
                "post": reference(part.post, part),
                "link_type": part.link_type,
                "policies": [_policy_to_dict(p) for p in _policies(part.policies)],
                "ConnectionParameters": {
                    k: _plain(v) for k, v in part.ConnectionParameters.items()
                },
            }
        elif isinstance(part, Assembly) and part is not net:
            entry |= {
                "_class_label": "Assembly",  # a class of the user's own is one when it comes back
                "id": names[id(part)],
                "type": part.type,
                "members": {
                    name: names[id(item)]
                    for name, item in part.members.items()
                    if id(item) in names
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


def _policies(given: Any) -> list[Any]:
    """Policies joined with `&` are the same as a list of them."""
    found: list[Any] = []
    for policy in given:
        pair = [policy.one, policy.other] if hasattr(policy, "other") else None
        found += _policies(pair) if pair else [policy]
    return found


def _policy_to_dict(policy: Any) -> dict[str, Any]:
    kind = type(policy).__name__
    if kind not in POLICIES:
        raise InputError(f"a policy of the kind {kind} cannot be written into a network file")
    settings = {key: _plain_all(getattr(policy, key)) for key in SETTINGS if hasattr(policy, key)}
    return {"policy": kind, **settings}


def _plain_all(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain_all(item) for item in value]
    return _plain(value)


def _index_to_list(monitor: Monitor) -> Any:
    """A monitor's index: a word, or numbers, lists of numbers and slices, one for each axis."""
    if isinstance(monitor.index, str):
        return monitor.index
    whole = monitor.index if isinstance(monitor.index, tuple) else (monitor.index,)
    made = []
    for part in whole:
        if isinstance(part, slice):
            made.append({"slice": [_plain(v) for v in (part.start, part.stop, part.step)]})
        else:
            made.append(_plain_all(part))
    return made


def _model_to_dict(model: NeuronModel) -> dict[str, Any]:
    import dataclasses

    return {
        item.name: _plain(getattr(model, item.name))
        if not isinstance(getattr(model, item.name), Mapping)
        else {k: _plain(v) for k, v in getattr(model, item.name).items()}
        for item in dataclasses.fields(model)
    }
