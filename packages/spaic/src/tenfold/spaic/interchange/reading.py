"""A NIR graph as a network."""

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
) -> Network:
    """Builds a network from a NIR graph.

    A map between neurons becomes a link; one that leads into another map or to the output gets a
    `null` group behind it. Where neurons form a loop, the links that close it carry the spikes of
    the step before. Square convolutions and pooling stay images; others become full links.

    Args:
        source: A `nir.NIRGraph` or the path of a file; graphs inside of it are flattened.
        dt: The step in ms; the graph's own, if its metadata has one.
        discretisation: exponential or euler; by default what the metadata say, else euler.
        reset: subtract, value, or subtract-next (one step later, as snnTorch does); by default
            what each node's metadata say, else subtract.

    Returns:
        A network with the encoder `input` (coding `null`), run with strategy 1, and the decoder
        `output`, which gives the whole record; further ones are `input_2`, `output_2`, ...

    Raises:
        InputError: For a file that is not NIR, a node or an edge that is not known here.
    """
    nir = package()
    if isinstance(source, str | Path):
        try:
            source = nir.read(str(source))
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
    for name, node in nodes.items():
        kind = type(node).__name__
        if kind == "Input":
            shape = [int(n) for n in next(iter(node.input_type.values()))]
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
                shape = _computed(name, node, before[0]).shape[1:]
                layers[name] = NeuronGroup(shape=tuple(shape), model="null")
                net.add(_plain_name(name), layers[name])
                targets = [layers[name]]
            for pre in before:
                for post in targets:
                    if _computed(name, node, pre)[0].numel() != post.num:
                        raise InputError(
                            f"NIR node {name!r} gives {tuple(_computed(name, node, pre)[0].shape)} "
                            f"of {pre!r}, but {post!r} has {post.num}"
                        )
                    net.add(_free(net, f"{_plain_name(name)}_to"), _link(name, node, pre, post))
        waiting = [name for name in waiting if name not in ready]
    return fused


def _computed(name: str, node: Any, pre: Layer, x: Tensor | None = None) -> Tensor:
    """What a map makes of samples [n, *shape]; by default of one sample of zeros."""
    x = torch.zeros(1, *pre.size, dtype=torch.float64) if x is None else x
    kind = type(node).__name__

    def of(key: str) -> Tensor:
        return torch.as_tensor(np.asarray(getattr(node, key), dtype=np.float64))

    def whole(key: str) -> Any:
        value = getattr(node, key)
        return value if isinstance(value, str) else [int(v) for v in np.atleast_1d(value)]

    try:
        if kind in ("Affine", "Linear"):
            return F.linear(x.flatten(1), of("weight"), of("bias") if kind == "Affine" else None)
        if kind in ("Conv1d", "Conv2d"):
            convolve: Any = F.conv1d if kind == "Conv1d" else F.conv2d
            settings = [whole(key) for key in ("stride", "padding", "dilation")]
            return convolve(x, of("weight"), of("bias"), *settings, int(node.groups))
        if kind in ("SumPool2d", "AvgPool2d"):
            size = whole("kernel_size")
            size = size * 2 if len(size) == 1 else size
            made = F.avg_pool2d(x, size, whole("stride"), whole("padding"))
            return made * size[0] * size[1] if kind == "SumPool2d" else made
    except RuntimeError as error:
        raise InputError(
            f"NIR node {name!r} does not take {pre.size} of {pre!r}: {error}"
        ) from error
    if kind == "Flatten":
        if int(node.start_dim) not in (0, 1) or int(node.end_dim) != -1:
            raise InputError(f"NIR node {name!r} flattens some axes only, which is not read here")
        return x.flatten(1)
    if kind == "Scale":
        scale = of("scale")
        if scale.numel() not in (1, pre.num):
            raise InputError(f"NIR node {name!r} has {scale.numel()} factors for {pre.num} values")
        return x * (scale.reshape(pre.size) if scale.numel() > 1 else scale)
    return x


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
    if kind == "Conv2d":
        square = _square(node, "stride", "padding", "dilation")
        if square is not None and node.weight.shape[2] == node.weight.shape[3]:
            options = {"weight": node.weight, "bias": node.bias, "groups": int(node.groups)}
            options |= {"out_channels": node.weight.shape[0], **square}
            size = int(node.weight.shape[2])
            return Connection(pre, post, link_type="conv", kernel_size=size, **options)
    if kind in ("SumPool2d", "AvgPool2d"):  # a convolution of each channel by itself
        square = _square(node, "kernel_size", "stride", "padding")
        if square is not None:
            size, channels = square["kernel_size"], pre.size[0]
            share = 1.0 if kind == "SumPool2d" else 1.0 / size**2
            options = {"weight": np.full((channels, 1, size, size), share), "groups": channels}
            options |= {"out_channels": channels, **square}
            return Connection(pre, post, link_type="conv", **options)
    eye = torch.eye(pre.num, dtype=torch.float64).reshape(pre.num, *pre.size)
    bias = _computed(name, node, pre).reshape(-1)
    full = (_computed(name, node, pre, eye).flatten(1) - bias).T
    return Connection(pre, post, weight=full, bias=bias if bool(bias.any()) else None)


def _square(node: Any, *keys: str) -> dict[str, int] | None:
    """Settings that are one number for both axes; None if one of them is not."""
    made = {}
    for key in keys:
        value = getattr(node, key)
        found = set() if isinstance(value, str) else {int(v) for v in np.atleast_1d(value)}
        if len(found) != 1:
            return None
        made[key] = found.pop()
    return made


def _plain_name(name: str) -> str:
    return "n_" + "".join(c if c.isalnum() else "_" for c in name)


def _free(net: Network, stem: str) -> str:
    taken = [name for name in net.members if name == stem or name.startswith(f"{stem}_")]
    return stem if not taken else f"{stem}_{len(taken) + 1}"
