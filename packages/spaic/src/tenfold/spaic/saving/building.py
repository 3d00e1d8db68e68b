"""A network from plain values, which may come from a stranger (section 12)."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic.model.neurons import NeuronModel
from tenfold.spaic.network.connections import (
    Connection,
    Projection,
)
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.learners import Learner
from tenfold.spaic.network.modules import Module
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.objects import Assembly
from tenfold.spaic.saving.description import FORMATS, MONITORS, NODES, POLICIES
from tenfold.spaic.saving.layers import build
from tenfold.spaic.saving.memory import LINK, MOST_BYTES, Memory, check_memory
from tenfold.spaic.saving.state import all_shown
from tenfold.spaic.saving.values import from_plain, handed_in

_ORDER = ("Assembly", "NeuronGroup", "Encoder", "Generator", "Projection", "Connection", "Module")
"""What others refer to comes first; then decoders, learners and monitors."""


def network_from_dict(
    made: Mapping[str, Any],
    modules: Mapping[str, torch.nn.Module] | None = None,
    functions: Mapping[str, Any] | None = None,
    most_bytes: int = MOST_BYTES,
) -> Network:
    """Builds a network from what `network_to_dict` gave.

    Args:
        made: The description.
        modules: Name of a Module (of one inside an assembly, `assembly.name`) → its torch module,
            where the description holds only the name.
        functions: Name → function or class, for those that the description names.
        most_bytes: What its groups, links and layers may take when they are built, by estimates on
            the large side (`saving.memory`).

    Raises:
        InputError: For a network of more bytes, for a format, a part or a setting that is not
            known here, and for a module or function that is missing.
    """
    if not isinstance(made, Mapping):
        raise InputError(f"the description of a network is a mapping, not {made!r:.40}")
    if made.get("format") not in FORMATS:
        raise InputError(f"format {made.get('format')!r}; expected {' or '.join(FORMATS)}")
    made = {**made, "parts": list(_flat(made["parts"], ""))}
    backend = made["backend"]
    if backend["dtype"] not in ("float32", "float64"):
        raise InputError(f"dtype {backend['dtype']!r}; expected 'float32' or 'float64'")
    net = Network(made["name"], compat=backend["compat"], dtype=getattr(torch, backend["dtype"]))
    net.set_backend_dt(backend["dt"])
    net.strategy, net.engine = int(backend["strategy"]), str(backend.get("engine", "auto"))
    net.break_loops = bool(backend.get("break_loops", False))
    net.full_grad = bool(backend.get("full_grad", False))
    builder = _Builder(net, modules or {}, functions or {}, Memory(most_bytes))
    rank = {label: number for number, label in enumerate(_ORDER)}
    for entry in sorted(made["parts"], key=lambda e: rank.get(e["_class_label"], len(rank))):
        builder.add(entry)
    builder.arrange(made)
    with all_shown(net):
        check_memory(net, builder.memory)
    return net


_RENAMED = {
    "NeuronGroup": {"model": "model_name"},
    **{kind: {"dt": "_dt", "time": "_time"} for kind in NODES},
}


def _flat(parts: Any, owner: str) -> Iterator[dict[str, Any]]:
    """All parts, each with its owner; those of the first format have it, and other names."""
    for item in parts:
        if "_class_label" in item:
            names = _RENAMED.get(item["_class_label"], {})
            yield {names.get(key, key): value for key, value in item.items()}
            continue
        if len(item) != 1:
            raise InputError(f"a part has the keys {', '.join(item)}; expected one, its name")
        (entry,) = item.values()
        yield {**entry, "owner": owner}
        yield from _flat(entry.get("parts", ()), entry["id"])


class _Builder:
    """Makes the parts of a network, and remembers them by their ids."""

    def __init__(
        self,
        net: Network,
        modules: Mapping[str, torch.nn.Module],
        functions: Mapping[str, Any],
        memory: Memory,
    ) -> None:
        self.net, self.modules, self.functions = net, modules, functions
        self.memory = memory
        self.parts: dict[str, Any] = {"": net}

    def add(self, entry: Mapping[str, Any]) -> None:
        """Makes a part and puts it where it belongs."""
        label, name = entry["_class_label"], entry["name"]
        what = f"{label} {name}"
        if entry.get("shape"):
            self.memory.shape(what, entry["shape"])
        make = {
            "Assembly": self._assembly,
            "NeuronGroup": self._group,
            "Connection": self._connection,
            "Projection": self._projection,
            "Module": self._module,
            "Learner": self._learner,
            **dict.fromkeys(NODES, self._node),
            **dict.fromkeys(MONITORS, self._monitor),
        }.get(label)
        if make is None:
            raise InputError(f"part {name!r} is a {label!r}, which is not known")
        part = make(entry, what)
        self.parts[entry.get("id", name)] = part
        self.parts[entry.get("owner", "")].add(name, part)
        if isinstance(part, Projection):
            for con in part.expand():  # learners and monitors may name what it makes
                self.parts[con.id.removeprefix(self.net.id + "_")] = con

    def arrange(self, made: Mapping[str, Any]) -> None:
        """Puts members in the order of the file, which that of random numbers follows; what belongs
        to several assemblies is a member of each; hides what was hidden."""
        own: dict[str, dict[str, str]] = {}
        for entry in made["parts"]:
            own.setdefault(entry.get("owner", ""), {})[entry["name"]] = entry.get(
                "id", entry["name"]
            )
        held = {entry["id"]: entry for entry in made["parts"] if "members" in entry} | {"": made}
        for name, entry in held.items():
            whole, part = entry.get("members", own.get(name, {})), self.parts[name]
            for key, path in whole.items():
                if key not in part.members:
                    part.add(key, self.parts[path])
            part.__dict__["members"] = {key: part.members[key] for key in whole}
        for entry in made["parts"]:
            if entry.get("hidden"):
                self.parts[entry["id"]].assembly_hide()

    def _found(self, names: list[str]) -> list[Any]:
        return [self.parts[name] for name in names]

    def _plain(self, value: Any, what: str) -> Any:
        return from_plain(value, self.functions, what)

    def _class(self, entry: Mapping[str, Any], kind: Any, what: str) -> Any:
        """The class of a part: ours, or one of the user's that was handed in."""
        made = self._plain(entry["class"], what) if "class" in entry else kind
        if not (isinstance(made, type) and issubclass(made, kind)):
            raise InputError(f"{what}: {made!r} is not a class derived from {kind.__name__}")
        return made

    def _assembly(self, entry: Mapping[str, Any], what: str) -> Any:
        return Assembly(type=entry["type"])

    def _group(self, entry: Mapping[str, Any], what: str) -> Any:
        model = entry["model_name"]
        if not isinstance(model, str):
            fields: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in model.items()
            }
            model = NeuronModel(**fields)
        initial = {
            k: tuple(v) if isinstance(v, list) and v[:1] == ["uniform"] else v
            for k, v in entry["initial"].items()
        }
        return NeuronGroup(
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
            prefer_device=entry.get("prefer_device"),
            **entry["parameters"],
        )

    def _node(self, entry: Mapping[str, Any], what: str) -> Any:
        target = entry["dec_target"]
        part = self._class(entry, NODES[entry["_class_label"]], what)(
            shape=entry["shape"],
            node_type=entry.get("type", ()),
            dt=entry.get("_dt"),
            time=entry.get("_time"),
            coding_method=entry["coding_method"],
            coding_var_name=entry["coding_var_name"],
            dec_target=None if target is None else self.parts[target],
            **self._plain(entry["coding_param"], what),
        )
        if "source" in entry:
            part(np.asarray(entry["source"]))
        return part

    def _connection(self, entry: Mapping[str, Any], what: str) -> Any:
        options = self._plain(entry["parameters"], what)
        pre, post = self._found([entry["pre"], entry["post"]])
        if entry["link_type"] == "index":
            options |= {"pre_index": np.zeros(0, int), "post_index": np.zeros(0, int)}
        drawn = self._plain(entry.get("initializers", {}), what)
        return self._class(entry, Connection, what)(
            pre,
            post,
            link_type=entry["link_type"],
            syn_type=entry["syn_type"],
            syn_kwargs=self._plain(entry["syn_kwargs"], what),
            max_delay=entry["max_delay"],
            min_delay=entry["min_delay"],
            delay=0.0 if entry["delayed"] and not entry["max_delay"] else None,
            train_delay=entry["train_delay"],
            weight=drawn.get("weight"),
            bias=drawn.get("bias", 0.0 if entry["biased"] else None),
            sparse_with_mask=entry["sparse_with_mask"],
            pre_var_name=entry["pre_var_name"],
            post_var_name=entry["post_var_name"],
            is_parameter=entry["is_parameter"],
            w_min=entry["w_min"],
            w_max=entry["w_max"],
            weight_quantization=entry.get("weight_quantization", False),
            prefer_device=entry.get("prefer_device"),
            **options,
        )

    def _projection(self, entry: Mapping[str, Any], what: str) -> Any:
        pre, post = self._found([entry["pre"], entry["post"]])
        pairs = len(pre.get_groups()) * len(post.get_groups())
        self.memory.take(what, LINK * pairs)
        return self._class(entry, Projection, what)(
            pre,
            post,
            policies=[_policy(item) for item in entry["policies"]],
            link_type=entry["link_type"],
            ConnectionParameters=self._plain(entry["ConnectionParameters"], what),
        )

    def _module(self, entry: Mapping[str, Any], what: str) -> Any:
        held = entry["module"]
        if "same_as" in held:
            module = self.parts[held["same_as"]].torch_module
        elif "module" in held:
            module = handed_in(held["module"], self.modules, "module", what)
        else:
            module = build(held, self.memory, what)
        if not isinstance(module, torch.nn.Module):
            raise InputError(f"{what}: {module!r} is not a torch module")
        return self._class(entry, Module, what)(
            module,
            self._found(entry["input_targets"]),
            self._found(entry["output_targets"]),
            entry["input_var_names"],
            entry["output_var_names"],
        )

    def _learner(self, entry: Mapping[str, Any], what: str) -> Any:
        reward = entry.get("reward")
        part = self._class(entry, Learner, what)(
            trainable=self._found(entry["trainable"]),
            pathway=self._found(entry["pathway"]),
            algorithm=self._plain(entry["algorithm"], what),
            reward=None if reward is None else self.parts[reward],
            **self._plain(entry["parameters"], what),
        )
        if entry["optim_name"]:
            part.set_optimizer(entry["optim_name"], **self._plain(entry["optim_kwargs"], what))
        if entry["lr_schedule_name"]:
            settings = self._plain(entry["schedule_kwargs"], what)
            part.set_schedule(entry["lr_schedule_name"], **settings)
        return part

    def _monitor(self, entry: Mapping[str, Any], what: str) -> Any:
        return self._class(entry, MONITORS[entry["_class_label"]], what)(
            self.parts[entry["target"]],
            entry["var_name"],
            dt=entry["dt"],
            nbatch=entry["nbatch"],
            get_grad=entry.get("get_grad", False),
            index=_index(entry.get("index", "full")),
        )


def _policy(made: Mapping[str, Any]) -> Any:
    settings: dict[str, Any] = {
        key: list(dict.fromkeys(tuple(v) if isinstance(v, list) else v for v in value))
        if isinstance(value, list)
        else value
        for key, value in made.items()
        if key != "policy"
    }
    return POLICIES[made["policy"]](**settings)


def _index(made: Any) -> Any:
    if isinstance(made, str):
        return made
    return tuple(slice(*part["slice"]) if isinstance(part, dict) else part for part in made)
