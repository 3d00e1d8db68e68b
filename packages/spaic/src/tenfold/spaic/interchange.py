"""NIR: import from and export to the neuromorphic intermediate representation (extra `nir`).

NIR describes a LIF neuron by τ dv/dt = (v_leak − v) + r i. How this becomes steps is the reader's
choice: `exponential` (exact between inputs; used on export, so r = 1/(1 − β)) or `euler` (what
snnTorch and Norse export for: β = 1 − dt/τ). The choice is written into the graph's metadata.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tenfold.shared.errors import InputError
from tenfold.spaic.model.neurons import NeuronModel
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Decoder, Encoder

NIR_LIF = NeuronModel(
    name="nir_lif",
    states={"V": 0.0},
    parameters={"beta": 0.9, "gain": 1.0, "v_leak": 0.0, "v_th": 1.0, "v_reset": 0.0, "soft": 1.0},
    step="""
    u = v_leak + beta * (V - v_leak) + gain * Isyn
    O = spike(u - v_th)
    V = where(soft > 0.5, u - v_th * O, where(O > 0, v_reset, u))
    """,
)
NIR_CUBA = NeuronModel(
    name="nir_cuba",
    states={"V": 0.0, "I": 0.0},
    parameters={
        "alpha": 0.8,
        "beta": 0.9,
        "gain_in": 1.0,
        "gain": 1.0,
        "v_leak": 0.0,
        "v_th": 1.0,
        "v_reset": 0.0,
        "soft": 1.0,
    },
    step="""
    I = alpha * I + gain_in * Isyn
    u = v_leak + beta * (V - v_leak) + gain * I
    O = spike(u - v_th)
    V = where(soft > 0.5, u - v_th * O, where(O > 0, v_reset, u))
    """,
)
NIR_LI = NeuronModel(
    name="nir_li",
    states={"V": 0.0},
    parameters={"beta": 0.9, "gain": 1.0, "v_leak": 0.0},
    step="V = v_leak + beta * (V - v_leak) + gain * Isyn\nO = V",
)


def _nir() -> Any:
    try:
        import nir
    except ImportError as error:
        raise InputError("NIR needs the package nir: install tenfold-spaic[nir]") from error
    return nir


def to_nir(net: Network, path: Path | str | None = None) -> Any:
    """Writes a feed-forward or recurrent network of full links and LIF-like groups as a NIR graph.

    Args:
        net: A network of encoders, `lif`, `lifsubtract`, `if`, `ifsubtract`, `li` and NIR groups,
            and `full` links without delays.
        path: Where the graph is written; not written by default.

    Returns:
        The `nir.NIRGraph`.

    Raises:
        InputError: For a part that NIR does not have.
    """
    nir = _nir()
    net.prepare()
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    seconds = net.dt * 1e-3
    for source in net.parts(Encoder):
        nodes[str(source.name)] = nir.Input(input_type={"input": np.array(source.shape)})
    for group in net.parts(NeuronGroup):
        nodes[str(group.name)] = _group_to_nir(nir, net, group, seconds)
    for con in net.get_connections():
        plain = con.kind in ("full", "sparse", "one_to_one") and con.syn_type == ["basic"]
        if not plain or con.delay is not None or con.post_var_name != "Isyn":
            raise InputError(f"{con!r}: NIR export takes full links without delays")
        weight = con.weight.detach().cpu().numpy()
        if con.bias is not None:
            nodes[str(con.name)] = nir.Affine(weight=weight, bias=con.bias.detach().cpu().numpy())
        else:
            nodes[str(con.name)] = nir.Linear(weight=weight)
        edges += [(str(con.pre.name), str(con.name)), (str(con.name), str(con.post.name))]
    for node in net.parts(Decoder):
        nodes[str(node.name)] = nir.Output(output_type={"output": np.array(node.dec_target.shape)})
        edges.append((str(node.dec_target.name), str(node.name)))
    about = {"dt_seconds": seconds, "discretisation": "exponential", "writer": "tenfold-spaic"}
    graph = nir.NIRGraph(nodes=nodes, edges=edges, metadata=about)
    if path is not None:
        nir.write(str(path), graph)
    return graph


def _group_to_nir(nir: Any, net: Network, group: NeuronGroup, seconds: float) -> Any:
    from tenfold.spaic.model.neurons import resolve

    model = group.definition(net.compat)
    values = resolve(model, group.model_parameters, f"{group!r}")
    shape = group.size

    def full(value: Any) -> np.ndarray:
        return np.broadcast_to(np.asarray(value, dtype=np.float64), shape).copy()

    if model.name in ("lif", "lifsubtract", "li"):
        beta = np.exp(-net.dt / full(values["tau_m"]))
        tau = full(values["tau_m"]) * 1e-3
        gain = 1.0 if model.name != "li" else 1 - beta
        r, leak = full(gain / (1 - beta)), full(0.0)
    elif model.name in ("nir_lif", "nir_li"):
        beta = full(values["beta"])
        tau, r = -seconds / np.log(beta), full(values["gain"]) / (1 - beta)
        leak = full(values["v_leak"])
    elif model.name in ("if", "ifsubtract"):
        made = nir.IF(r=full(1.0 / seconds), v_threshold=full(values["v_th"]), v_reset=full(0.0))
        made.metadata = {"reset": "value" if model.name == "if" else "subtract"}
        return made
    else:
        raise InputError(f"{group!r}: NIR has no model {model.name!r}")
    if model.name in ("li", "nir_li"):
        return nir.LI(tau=tau, r=r, v_leak=leak)
    soft = model.name == "lifsubtract" or (model.name == "nir_lif" and values["soft"] > 0.5)
    # Without v_reset NIR's writers and readers disagree between zero and subtraction; the
    # graph's metadata says which is meant.
    made = nir.LIF(
        tau=tau,
        r=r,
        v_leak=leak,
        v_threshold=full(values["v_th"]),
        v_reset=full(values.get("v_reset", 0.0)),
    )
    made.metadata = {"reset": "subtract" if soft else "value"}
    return made


def from_nir(
    source: Any,
    dt: float = 0.1,
    discretisation: str | None = None,
    reset: str | None = None,
) -> Network:
    """Builds a network from a NIR graph of linear maps and IF, LI, LIF or CubaLIF neurons.

    Args:
        source: A `nir.NIRGraph` or the path of a file.
        dt: The step in ms; the graph's own, if its metadata has one.
        discretisation: exponential or euler; by default what the metadata say, else euler.
        reset: subtract or value; by default what each node's metadata say, else subtract.

    Returns:
        A network with the encoder `input` (coding `null`), run with strategy 1, and the decoder
        `output`, which gives the whole record.

    Raises:
        InputError: For a file that is not NIR, or a node that is not known here.
    """
    nir = _nir()
    if isinstance(source, str | Path):
        try:
            source = nir.read(str(source))
        except Exception as error:  # the readers of HDF5 and of nir have many
            raise InputError(f"{source}: cannot be read as NIR ({error})") from error
    about = source.metadata or {}
    step = float(about.get("dt_seconds", dt * 1e-3)) * 1e3
    how = discretisation or _text(about.get("discretisation", "euler"))
    if how not in ("euler", "exponential"):
        raise InputError(f"discretisation={how!r}; expected 'euler' or 'exponential'")
    net = Network("nir")
    net.set_backend_dt(step)
    made: dict[str, Any] = {}
    maps: dict[str, Any] = {}
    for name, node in source.nodes.items():
        kind = type(node).__name__
        if kind == "Input":
            shape = [int(n) for n in next(iter(node.input_type.values()))]
            made[name] = Encoder(shape=shape, coding_method="null")
            net.add("input", made[name])
        elif kind in ("Affine", "Linear"):
            maps[name] = node
        elif kind in ("LIF", "IF", "LI", "CubaLIF"):
            made[name] = _group_from_nir(node, kind, step * 1e-3, how, reset)
            net.add(_plain_name(name), made[name])
        elif kind != "Output":
            raise InputError(f"NIR node {name!r} is a {kind}, which is not read here")
    ends = [b for b, node in source.nodes.items() if type(node).__name__ == "Output"]
    for a, b in dict.fromkeys(source.edges):
        if (b in maps or b in ends) and a not in made:
            raise InputError(
                f"NIR edge {a!r} -> {b!r}: {b!r} must follow neurons or an input, not another map"
            )
        if b in maps:
            for c, d in dict.fromkeys(source.edges):
                if c == b and d in made:
                    node = maps[b]
                    bias = getattr(node, "bias", None)
                    link = Connection(made[a], made[d], weight=node.weight, bias=bias)
                    net.add(f"{_plain_name(b)}_{_plain_name(a)}", link)
                elif c == b and d not in made:
                    raise InputError(f"NIR edge {b!r} -> {d!r}: a linear map must end in neurons")
        elif a in made and b in made:
            eye = np.eye(made[a].num)
            net.add(f"{_plain_name(a)}_{_plain_name(b)}", Connection(made[a], made[b], weight=eye))
        elif b in ends:
            target = made[a]
            net.add("output", Decoder(dec_target=target, num=target.num, coding_method="null"))
    net.strategy = 1
    return net


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _plain_name(name: str) -> str:
    return "n_" + "".join(c if c.isalnum() else "_" for c in name)


def _group_from_nir(
    node: Any, kind: str, seconds: float, how: str, reset: str | None
) -> NeuronGroup:
    said = _text((node.metadata or {}).get("reset", "subtract"))
    soft = 1.0 if (reset or said) == "subtract" else 0.0

    def flat(value: Any) -> np.ndarray:
        return np.asarray(value, dtype=np.float64).reshape(-1)

    def decay(tau: Any) -> tuple[np.ndarray, np.ndarray]:
        """β and the gain of a unit input, before r."""
        beta = np.exp(-seconds / flat(tau)) if how == "exponential" else 1 - seconds / flat(tau)
        return beta, 1 - beta

    options: dict[str, Any]
    if kind == "IF":
        size = flat(node.r).size
        options = {"beta": 1.0, "gain": flat(node.r) * seconds}
    else:
        tau = node.tau_mem if kind == "CubaLIF" else node.tau
        size = flat(tau).size
        beta, share = decay(tau)
        options = {"beta": beta, "gain": share * flat(node.r), "v_leak": flat(node.v_leak)}
    if kind == "LI":
        return NeuronGroup(size, model=NIR_LI, **options)
    options["v_th"] = flat(node.v_threshold)
    v_reset = getattr(node, "v_reset", None)
    options |= {"soft": soft, "v_reset": 0.0 if v_reset is None else flat(v_reset)}
    if kind == "CubaLIF":
        alpha, share = decay(node.tau_syn)
        gain_in = share * flat(node.w_in)
        return NeuronGroup(size, model=NIR_CUBA, alpha=alpha, gain_in=gain_in, **options)
    return NeuronGroup(size, model=NIR_LIF, **options)
