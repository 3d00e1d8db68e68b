"""A network as a NIR graph."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.shared.errors import InputError
from tenfold.shared.progress import message
from tenfold.spaic.interchange.neurons import package, write_neuron
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.connections.images import pooling, window
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.modules import Module
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Decoder, Encoder


def to_nir(net: Network, path: Path | str | None = None) -> Any:
    """Writes a network, feed-forward or recurrent, as a NIR graph.

    Args:
        net: A network of encoders; `lif`, `lifsubtract`, `if`, `ifsubtract`, `li`, `null` groups
            and those that `from_nir` makes; weighted links, convolutions, average pooling,
            flattening, and delays of one time for all synapses or of one-to-one links. Read back,
            it runs with strategy 1; the step that each link costs with strategy 0 is not written.
        path: Where the graph is written; not written by default. `nir.read` checks shapes as if
            kernels were square and convolutions had one group; others it reads with
            `type_check=False`, as `from_nir` does.

    Returns:
        The `nir.NIRGraph`.

    Raises:
        InputError: For a part that NIR does not have; it names the part.
    """
    nir = package()
    net.prepare()
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    passing: list[str] = []  # what NIR has no node for: edges go through
    shapes = _shapes(net)
    for module in net.parts(Module):
        raise InputError(f"{module!r}: NIR has no torch modules; make a link of it")
    for source in net.parts(Encoder):
        _add(nodes, source, nir.Input(input_type={"input": np.array(source.size)}))
    for group in net.parts(NeuronGroup):
        if group.definition(net.compat).name == "null":
            passing.append(_name(group))
        else:
            _add(nodes, group, write_neuron(nir, net, group, shapes[id(group)]))
    for con in net.get_connections():
        chain = _link(nir, net, con, shapes[id(con.pre)], shapes[id(con.post)])
        names = [_name(con) + (f"_{k}" if k else "") for k in range(len(chain))] or [_name(con)]
        nodes |= dict(zip(names, chain, strict=False))
        if not chain:
            passing.append(names[0])
        path_through = [_name(con.pre), *names, _name(con.post)]
        edges += list(pairwise(path_through))
    for node in net.parts(Decoder):
        target = node.dec_target
        shape = np.array(shapes[id(target)])
        _add(nodes, node, nir.Output(output_type={"output": shape}))
        edges.append((_name(target), _name(node)))
    for name in passing:
        before = [a for a, b in edges if b == name]
        after = [b for a, b in edges if a == name]
        if name in before:
            raise InputError(f"{name}: a loop without neurons has no meaning in NIR")
        edges = [edge for edge in edges if name not in edge]
        edges += [(a, b) for a in before for b in after]
    if not net.parts(Decoder):
        for group in net.parts(NeuronGroup):
            if _name(group) not in passing and _only_back(_name(group), edges):
                shape = np.array(shapes[id(group)])
                nodes[f"output_{_name(group)}"] = nir.Output(output_type={"output": shape})
                edges.append((_name(group), f"output_{_name(group)}"))
    if net.strategy == 0 and net.get_connections():
        message(
            f"{net!r}: with strategy 0 each link costs a step, which the graph does not hold; "
            "with strategy 1 the spikes come at the same times there"
        )
    about = {"dt_seconds": net.dt * 1e-3, "discretisation": "exponential"}
    about |= {"writer": "tenfold-spaic"}
    try:
        graph = nir.NIRGraph(nodes=nodes, edges=list(dict.fromkeys(edges)), metadata=about)
    except ValueError as error:
        raise InputError(f"{net!r}: nir refuses the graph ({error})") from error
    if path is not None:
        nir.write(str(path), graph)
    return graph


def _only_back(name: str, edges: list[tuple[str, str]]) -> bool:
    """Whether a node lies in a loop that nothing leads out of, so that nir finds no output."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        ahead = [start]
        while ahead:
            at = ahead.pop()
            new = {b for a, b in edges if a == at} - found
            found |= new
            ahead += new
        return found

    beyond = reached(name)
    return name in beyond and all(name in reached(other) for other in beyond)


def _name(part: Any) -> str:
    return str(part.name)


def _add(nodes: dict[str, Any], part: Any, node: Any) -> None:
    if _name(part) in nodes:
        raise InputError(f"{part!r}: NIR needs names that differ, and there are two of this name")
    nodes[_name(part)] = node


def _shapes(net: Network) -> dict[int, tuple[int, ...]]:
    """The shape of each layer in the graph: flat behind a full link, which gives a row."""
    shapes: dict[int, tuple[int, ...]] = {id(s): s.size for s in net.parts(Encoder)}
    shapes |= {id(group): group.size for group in net.parts(NeuronGroup)}
    links = net.get_connections()
    images = {id(con.pre) for con in links if {"conv", "avgpool"} & set(con.syn_type)}
    for _ in range(len(shapes)):  # what a flat layer passes on is flat
        for con in links:
            elementwise = con.kind == "one_to_one_sparse" or con.syn_type == ["directpass"]
            row = len(shapes[id(con.pre)]) == 1 and elementwise
            row = row or "flatten" in con.syn_type
            row = row or (con.syn_type == ["basic"] and con.kind != "one_to_one_sparse")
            if row and id(con.post) not in images:
                shapes[id(con.post)] = (con.post.num,)
    return shapes


def _link(
    nir: Any, net: Network, con: Connection, shape: tuple[int, ...], target: tuple[int, ...]
) -> list[Any]:
    """The nodes of a link, one after the other, from a layer of a shape to one of another."""
    if con.post_var_name != "Isyn" or con.pre_var_name != "O":
        raise InputError(f"{con!r}: NIR links lead from spikes to the input of neurons")
    made: list[Any] = []
    if con.delay is not None:
        delay = con.delay_steps(net.dt, net.compat) * net.dt * 1e-3
        if delay.size > 1 and con.kind != "one_to_one_sparse":
            raise InputError(f"{con!r}: NIR has delays of neurons, not of synapses")
        made.append(nir.Delay(delay=np.broadcast_to(delay.reshape(-1), con.pre.num).reshape(shape)))
    for name in con.syn_type:
        if name in ("flatten", "directpass"):
            continue
        if name == "conv":
            after = (con.out_channels, *window(con).shrunk(shape[1:]))
            made.append(_typed(_convolution(nir, con, shape), shape, after))
            shape = after
        elif name == "avgpool":
            seen = pooling(con)
            if len(seen.kernel) != 2:
                raise InputError(f"{con!r}: NIR has pooling of images only, not of sequences")
            settings = {"kernel_size": seen.kernel, "stride": seen.stride, "padding": seen.padding}
            pool = nir.AvgPool2d(**{key: np.array(value) for key, value in settings.items()})
            after = (shape[0], *seen.shrunk(shape[1:]))
            made.append(_typed(pool, shape, after))
            shape = after
        elif name == "basic":
            made += _weights(nir, con, shape)
            shape = shape if con.kind == "one_to_one_sparse" else (con.post.num,)
        else:
            raise InputError(f"{con!r}: NIR has no node for the synapse {name!r}")
    if shape == target:
        return made
    if len(target) > 1:
        raise InputError(f"{con!r}: NIR has no node that makes {target} of {shape}")
    return [*made, _flatten(nir, shape)]


def _flatten(nir: Any, shape: tuple[int, ...]) -> Any:
    return nir.Flatten(input_type={"input": np.array(shape)}, start_dim=0, end_dim=-1)


def _typed(node: Any, before: tuple[int, ...], after: tuple[int, ...]) -> Any:
    """Says which shapes a node reads and gives: nir's own guess takes every kernel for square and
    the channels of a group for all."""
    node.input_type, node.output_type = {"input": np.array(before)}, {"output": np.array(after)}
    return node


def _convolution(nir: Any, con: Connection, shape: tuple[int, ...]) -> Any:
    """The node of a convolution; a sum over each channel by itself is a pooling."""
    seen, weight = window(con), _array(con.weight)
    count = int(con.options.get("groups", 1))
    alone = count == shape[0] == len(weight) and con.bias is None and not con.is_parameter
    image = len(seen.kernel) == 2 and set(seen.dilation) == {1} and seen.padding != "same"
    if alone and image and (weight == 1).all():
        settings = {"kernel_size": seen.kernel, "stride": seen.stride, "padding": seen.padding}
        return nir.SumPool2d(**{key: np.array(value) for key, value in settings.items()})
    one = len(seen.kernel) == 1
    settings = {
        key: value[0] if one and isinstance(value, tuple) else value
        for key in ("stride", "padding", "dilation")
        for value in [getattr(seen, key)]
    }
    return (nir.Conv1d if one else nir.Conv2d)(
        input_shape=shape[1] if one else tuple(shape[1:]),
        weight=weight,
        groups=count,
        bias=np.zeros(con.out_channels) if con.bias is None else _array(con.bias),
        **settings,
    )


def _weights(nir: Any, con: Connection, shape: tuple[int, ...]) -> list[Any]:
    weight = _array(con.weight)
    if con.kind == "one_to_one_sparse":
        scale = [] if (weight == 1).all() else [nir.Scale(scale=weight.reshape(shape))]
        if con.bias is not None:
            raise InputError(f"{con!r}: NIR has no bias of a one-to-one link")
        return scale
    if con.stored_sparse:
        dense = np.zeros((con.post.num, con.pre.num), dtype=weight.dtype)
        index = con.post_index.cpu().numpy(), con.pre_index.cpu().numpy()  # type: ignore[union-attr]
        np.add.at(dense, index, weight)
        weight = dense
    elif weight.shape != (con.post.num, con.pre.num):
        raise InputError(f"{con!r}: NIR has no link of the kind {con.kind!r}")
    if con.mask is not None:
        weight = weight * con.mask.cpu().numpy()
    flat = [_flatten(nir, shape)] if len(shape) > 1 else []
    if con.bias is None:
        return [*flat, nir.Linear(weight=weight)]
    return [*flat, nir.Affine(weight=weight, bias=_array(con.bias))]


def _array(value: Any) -> np.ndarray:
    """A copy: a graph does not change when its network learns."""
    return np.array(value.detach().cpu().numpy())
