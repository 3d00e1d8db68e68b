"""A network as a NIR graph."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.shared.errors import InputError
from tenfold.spaic.interchange.neurons import package, write_neuron
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Decoder, Encoder


def to_nir(net: Network, path: Path | str | None = None) -> Any:
    """Writes a network, feed-forward or recurrent, as a NIR graph.

    Args:
        net: A network of encoders; `lif`, `lifsubtract`, `if`, `ifsubtract`, `li`, `null` groups
            and those that `from_nir` makes; weighted links, convolutions, average pooling,
            flattening, and delays of one time for all synapses or of one-to-one links. Read back,
            it runs with strategy 1.
        path: Where the graph is written; not written by default.

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
    for source in net.parts(Encoder):
        _add(nodes, source, nir.Input(input_type={"input": np.array(source.size)}))
    for group in net.parts(NeuronGroup):
        if group.definition(net.compat).name == "null":
            passing.append(_name(group))
        else:
            _add(nodes, group, write_neuron(nir, net, group, shapes[id(group)]))
    for con in net.get_connections():
        chain = _link(nir, net, con, shapes[id(con.pre)])
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
    about = {"dt_seconds": net.dt * 1e-3, "discretisation": "exponential"}
    about |= {"writer": "tenfold-spaic"}
    try:
        graph = nir.NIRGraph(nodes=nodes, edges=list(dict.fromkeys(edges)), metadata=about)
    except ValueError as error:  # for example of grouped convolutions, which nir takes for others
        raise InputError(f"{net!r}: nir refuses the graph ({error})") from error
    if path is not None:
        nir.write(str(path), graph)
    return graph


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


def _link(nir: Any, net: Network, con: Connection, shape: tuple[int, ...]) -> list[Any]:
    """The nodes of a link, one after the other."""
    if con.post_var_name != "Isyn" or con.pre_var_name != "O":
        raise InputError(f"{con!r}: NIR links lead from spikes to the input of neurons")
    made: list[Any] = []
    option = con.options.get
    if con.delay is not None:
        delay = con.delay_steps(net.dt, net.compat) * net.dt * 1e-3
        if delay.size > 1 and con.kind != "one_to_one_sparse":
            raise InputError(f"{con!r}: NIR has delays of neurons, not of synapses")
        made.append(nir.Delay(delay=np.broadcast_to(delay.reshape(-1), con.pre.num).reshape(shape)))
    for name in con.syn_type:
        if name in ("flatten", "directpass"):
            continue
        if name == "conv" and (pool := _pooling(nir, con)) is not None:
            made.append(pool)
        elif name == "conv":
            bias = np.zeros(con.out_channels) if con.bias is None else _array(con.bias)
            made.append(
                nir.Conv2d(
                    input_shape=tuple(shape[1:]),
                    weight=_array(con.weight),
                    stride=int(option("stride", 1)),
                    padding=int(option("padding", 0)),
                    dilation=int(option("dilation", 1)),
                    groups=int(option("groups", 1)),
                    bias=bias,
                )
            )
        elif name == "avgpool":
            sizes = [int(option(f"pool_{k}", d)) for k, d in _POOL]
            kernel, stride, padding = (np.array([size, size]) for size in sizes)
            made.append(nir.AvgPool2d(kernel_size=kernel, stride=stride, padding=padding))
        elif name == "basic":
            made += _weights(nir, con, shape)
        else:
            raise InputError(f"{con!r}: NIR has no node for the synapse {name!r}")
    return made


_POOL = (("kernel_size", 2), ("stride", 2), ("padding", 0))


def _pooling(nir: Any, con: Connection) -> Any:
    """The pooling that a convolution is, if it adds or averages each channel by itself."""
    option, weight = con.options.get, _array(con.weight)
    size = weight.shape[-1]
    share = float(weight.flat[0])
    own = int(option("groups", 1)) == con.pre.size[0] == len(weight) and con.bias is None
    if not own or not np.allclose(weight, share) or int(option("dilation", 1)) != 1:
        return None
    kinds = {1.0: nir.SumPool2d, 1.0 / size**2: nir.AvgPool2d}
    kind = next((kind for value, kind in kinds.items() if np.isclose(share, value)), None)
    sizes = (size, int(option("stride", 1)), int(option("padding", 0)))
    return kind and kind(*[np.array([n, n]) for n in sizes])


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
    flat = []
    if len(shape) > 1:
        flat = [nir.Flatten(input_type={"input": np.array(shape)}, start_dim=0, end_dim=-1)]
    if con.bias is None:
        return [*flat, nir.Linear(weight=weight)]
    return [*flat, nir.Affine(weight=weight, bias=_array(con.bias))]


def _array(value: Any) -> np.ndarray:
    made: np.ndarray = value.detach().cpu().numpy()
    return made
