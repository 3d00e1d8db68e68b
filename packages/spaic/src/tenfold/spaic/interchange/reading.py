"""A NIR graph as a network."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tenfold.shared.errors import InputError
from tenfold.spaic.interchange.neurons import NEURONS, package, read_neuron, text
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import Layer, NeuronGroup
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Decoder, Encoder
from tenfold.spaic.saving import hdf5
from tenfold.spaic.saving.memory import MOST_BYTES, Memory, check_memory

MAPS = (
    "Affine",
    "Linear",
    "Conv1d",
    "Conv2d",
    "SumPool2d",
    "AvgPool2d",
    "Flatten",
    "Scale",
    "Delay",
)
"""The nodes of NIR that become links."""


def from_nir(
    source: Any,
    dt: float = 0.1,
    discretisation: str | None = None,
    reset: str | None = None,
    most_bytes: int = MOST_BYTES,
) -> Network:
    """Builds a network from a NIR graph.

    A map between neurons becomes a link; one that leads into another map or to the output gets a
    `null` group behind it. Where neurons form a loop, the links that close it carry the spikes of
    the step before. Convolutions and pooling stay links between images or sequences.

    Args:
        source: A `nir.NIRGraph` or the path of a file; graphs inside of it are flattened.
        dt: The step in ms; the graph's own, if its metadata has one.
        discretisation: exponential or euler; by default what the metadata say, else euler.
        reset: subtract, value, or subtract-next (one step later, as snnTorch does); by default
            what each node's metadata say, else subtract.
        most_bytes: What the network may take when it is built, as in `network_load`.

    Returns:
        A network with the encoder `input` (coding `null`), run with strategy 1, and the decoder
        `output`, which gives the whole record; further ones are `input_2`, `output_2`, ...

    Raises:
        InputError: For a file that is not NIR, a node or an edge that is not known here, and for a
            network of more bytes.
    """
    nir = package()
    if isinstance(source, str | Path):
        try:
            with hdf5.package().File(source, "r") as file:
                hdf5.check(file, most_bytes)
            # nir's own check of shapes takes grouped and uneven convolutions for others.
            source = nir.read(str(source), type_check=False)
        except Exception as error:  # the readers of HDF5 and of nir have many
            raise InputError(f"{source}: cannot be read as NIR ({error})") from error
    about = source.metadata or {}
    step = float(about.get("dt_seconds", dt * 1e-3)) * 1e3
    how = discretisation or text(about.get("discretisation", "euler"))
    if how not in ("euler", "exponential"):
        raise InputError(f"discretisation={how!r}; expected 'euler' or 'exponential'")
    nodes, edges = _flattened(source)
    net = Network("nir")
    net.set_backend_dt(step)
    net.strategy, net.break_loops = 1, True
    layers: dict[str, Layer] = {}
    memory = Memory(most_bytes)
    for name, node in nodes.items():
        kind = type(node).__name__
        if kind == "Input":
            shape = [int(n) for n in next(iter(node.input_type.values()))]
            memory.shape(f"NIR node {name!r}", shape)
            layers[name] = Encoder(shape=shape, coding_method="null")
            net.add(_free(net, "input"), layers[name])
        elif kind in NEURONS:
            layers[name] = read_neuron(node, step * 1e-3, how, reset)
            net.add(_plain_name(name), layers[name])
        elif kind not in (*MAPS, "Output"):
            raise InputError(f"NIR node {name!r} is a {kind}, which is not read here")
    fused = _add_maps(net, nodes, edges, layers)
    for a, b in edges:
        if a in fused:
            continue
        kind = type(nodes[b]).__name__
        if kind == "Output":
            target = layers[a]
            record = Decoder(dec_target=target, num=target.num, coding_method="null")
            net.add(_free(net, "output"), record)
        elif kind in NEURONS:
            if layers[a].num != layers[b].num:
                raise InputError(
                    f"NIR edge {a!r} -> {b!r}: {layers[a].num} values into {layers[b].num} neurons"
                )
            link = Connection(layers[a], layers[b], link_type="null")
            net.add(f"{_plain_name(a)}_{_plain_name(b)}", link)
    check_memory(net, memory)
    return net


def _flattened(graph: Any, prefix: str = "") -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The nodes and edges of a graph and of those inside of it, whose ends become plain edges.

    Raises:
        InputError: For an edge from or to a node that there is not.
    """
    nodes: dict[str, Any] = {}
    inside: dict[str, dict[str, list[str]]] = {}  # graph → its inputs and outputs
    edges: list[tuple[str, str]] = []
    for name, node in graph.nodes.items():
        if type(node).__name__ != "NIRGraph":
            nodes[prefix + name] = node
            continue
        found, more = _flattened(node, f"{prefix}{name}.")
        ends = {
            kind: [n for n, item in found.items() if type(item).__name__ == kind]
            for kind in ("Input", "Output")
        }
        inside[prefix + name] = {
            "Input": [b for a, b in more if a in ends["Input"]],
            "Output": [a for a, b in more if b in ends["Output"]],
        }
        outer = {*ends["Input"], *ends["Output"]}
        nodes |= {n: item for n, item in found.items() if n not in outer}
        edges += [(a, b) for a, b in more if a not in outer and b not in outer]
    for a, b in dict.fromkeys(graph.edges):
        for end in (a, b):
            if end not in graph.nodes:
                raise InputError(f"NIR edge {a!r} -> {b!r}: there is no node {end!r}")
        starts = inside.get(prefix + a, {}).get("Output", [prefix + a])
        ends_at = inside.get(prefix + b, {}).get("Input", [prefix + b])
        edges += [(x, y) for x in starts for y in ends_at]
    for a, b in edges:
        if type(nodes[a]).__name__ == "Output" or type(nodes[b]).__name__ == "Input":
            raise InputError(f"NIR edge {a!r} -> {b!r} leads out of an output or into an input")
    return nodes, edges


def _add_maps(
    net: Network, nodes: dict[str, Any], edges: list[tuple[str, str]], layers: dict[str, Layer]
) -> set[str]:
    """Adds the links of all maps, and the groups behind those that lead not into neurons alone.

    Returns:
        The maps that have no group.
    """
    fused: set[str] = set()
    waiting = [name for name, node in nodes.items() if type(node).__name__ in MAPS]
    while waiting:  # in the order of the graph, since a map's shape follows from what it reads
        ready = [n for n in waiting if all(a in layers for a, b in edges if b == n)]
        if not ready:
            told = ", ".join(map(repr, waiting))
            raise InputError(f"the NIR nodes {told} form a loop without neurons")
        for name in ready:
            node = nodes[name]
            before = [layers[a] for a, b in edges if b == name]
            after = [b for a, b in edges if a == name]
            targets = [layers[b] for b in after if type(nodes[b]).__name__ in NEURONS]
            if not before:
                raise InputError(f"nothing leads into the NIR node {name!r}")
            if len(targets) == len(after):
                fused.add(name)
            else:
                layers[name] = NeuronGroup(shape=_given(name, node, before[0]), model="null")
                net.add(_plain_name(name), layers[name])
                targets = [layers[name]]
            for pre in before:
                given = _given(name, node, pre)
                for post in targets:
                    if math.prod(given) != post.num:
                        raise InputError(
                            f"NIR node {name!r} gives {given} of {pre!r}, but {post!r} has "
                            f"{post.num}"
                        )
                    net.add(_free(net, f"{_plain_name(name)}_to"), _link(name, node, pre, post))
        waiting = [name for name in waiting if name not in ready]
    return fused


_AXES = {"Conv1d": 2, "Conv2d": 3, "SumPool2d": 3, "AvgPool2d": 3}


def _given(name: str, node: Any, pre: Layer) -> tuple[int, ...]:
    """The shape of what a map makes of a layer.

    Raises:
        InputError: If it does not take the layer; it names the node.
    """
    x, kind = torch.zeros(1, *pre.size, dtype=torch.float64), type(node).__name__
    if len(pre.size) != _AXES.get(kind, len(pre.size)):
        raise InputError(
            f"NIR node {name!r} does not take {pre.size} of {pre!r}: a {kind} reads "
            f"{_AXES[kind]} axes, channels first"
        )

    def of(key: str) -> Tensor:
        return torch.as_tensor(np.asarray(getattr(node, key), dtype=np.float64))

    try:
        if kind in ("Affine", "Linear"):
            made = F.linear(x.flatten(1), of("weight"), of("bias") if kind == "Affine" else None)
        elif kind in ("Conv1d", "Conv2d"):
            convolve: Any = F.conv1d if kind == "Conv1d" else F.conv2d
            settings = [_whole(node, key) for key in ("stride", "padding", "dilation")]
            made = convolve(x, of("weight"), of("bias"), *settings, int(node.groups))
        elif kind in ("SumPool2d", "AvgPool2d"):
            window: Any = {key: _pair(node, key) for key in ("kernel_size", "stride", "padding")}
            made = F.avg_pool2d(x, **window)
        else:
            made = x.flatten(1) if kind == "Flatten" else x
    except RuntimeError as error:
        raise InputError(
            f"NIR node {name!r} does not take {pre.size} of {pre!r}: {error}"
        ) from error
    if kind == "Flatten" and (int(node.start_dim) not in (0, 1) or int(node.end_dim) != -1):
        raise InputError(f"NIR node {name!r} flattens some axes only, which is not read here")
    if kind == "Scale" and np.size(node.scale) not in (1, pre.num):
        told = f"{np.size(node.scale)} factors for {pre.num} values"
        raise InputError(f"NIR node {name!r} has {told}")
    return tuple(made.shape[1:])


def _link(name: str, node: Any, pre: Layer, post: Layer) -> Connection:
    kind = type(node).__name__
    if kind in ("Affine", "Linear"):
        return Connection(pre, post, weight=node.weight, bias=getattr(node, "bias", None))
    if kind == "Flatten":
        return Connection(pre, post, link_type="null")
    if kind in ("Scale", "Delay"):
        given = node.scale if kind == "Scale" else np.ones(1)
        weight = np.broadcast_to(np.asarray(given, dtype=np.float64).reshape(-1), pre.num)
        delay = None
        if kind == "Delay":
            delay = 1e3 * np.asarray(node.delay, dtype=np.float64).reshape(-1)
            if delay.size not in (1, pre.num):
                raise InputError(f"NIR node {name!r} has {delay.size} delays for {pre.num} values")
            delay = np.broadcast_to(delay, pre.num).copy()
        options: dict[str, Any] = {"weight": weight.copy(), "delay": delay}
        return Connection(pre, post, link_type="one_to_one_sparse", **options)
    if kind in ("Conv1d", "Conv2d"):
        options = {"weight": node.weight, "bias": node.bias, "groups": int(node.groups)}
        options |= {key: _whole(node, key) for key in ("stride", "padding", "dilation")}
        options |= {"out_channels": len(node.weight), "kernel_size": node.weight.shape[2:]}
        return Connection(pre, post, link_type="conv", **options)
    size, stride, padding = (_pair(node, key) for key in ("kernel_size", "stride", "padding"))
    if kind == "AvgPool2d":
        options = {"pool_kernel_size": size, "pool_stride": stride, "pool_padding": padding}
        return Connection(pre, post, link_type="pool", syn_type="avgpool", **options)
    channels = pre.size[0]  # a sum over each channel by itself is a convolution with ones
    options = {"weight": np.ones((channels, 1, *size)), "groups": channels, "is_parameter": False}
    options |= {"kernel_size": size, "stride": stride, "padding": padding}
    return Connection(pre, post, link_type="conv", out_channels=channels, **options)


def _whole(node: Any, key: str) -> Any:
    """A setting of a node: a word, one number, or one for each axis."""
    value = getattr(node, key)
    if isinstance(value, str):
        return value
    made = tuple(int(v) for v in np.atleast_1d(value))
    return made if len(made) > 1 else made[0]


def _pair(node: Any, key: str) -> tuple[int, int]:
    value = _whole(node, key)
    return value if isinstance(value, tuple) else (value, value)


def _plain_name(name: str) -> str:
    return "n_" + "".join(c if c.isalnum() else "_" for c in name)


def _free(net: Network, stem: str) -> str:
    taken = [name for name in net.members if name == stem or name.startswith(f"{stem}_")]
    return stem if not taken else f"{stem}_{len(taken) + 1}"
