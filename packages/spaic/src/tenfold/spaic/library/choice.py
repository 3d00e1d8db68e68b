"""Wang's decision network (2002): two pools of neurons compete for a slow, noisy choice.

Card section 20. AMPA and GABA conductances jump at a spike; the NMDA gate of each excitatory
neuron saturates, and its conductance is blocked by magnesium at rest.
"""

from dataclasses import dataclass

import numpy as np
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic.library.circuits import _watched
from tenfold.spaic.model.neurons import NeuronModel
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.monitors import SpikeMonitor
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Generator

DECIDING = NeuronModel(
    name="wang2002",
    states={"V": "EL", "g_ampa": 0.0, "g_gaba": 0.0, "x": 0.0, "s": 0.0},
    parameters={
        "C": 500.0,
        "gL": 25.0,
        "EL": -70.0,
        "Ee": 0.0,
        "Ei": -70.0,
        "v_th": -50.0,
        "v_reset": -55.0,
        "tau_ampa": 2.0,
        "tau_gaba": 5.0,
        "tau_rise": 2.0,
        "tau_nmda": 100.0,
        "alpha": 0.5,
        "g_nmda": 0.165,
    },
    inputs=("nmda",),
    ode="""
    open = 1 / (1 + exp(-0.062 * V) / 3.57)
    excited = (g_ampa + g_nmda * nmda * open) * (Ee - V)
    dV/dt = (gL * (EL - V) + excited + g_gaba * (Ei - V)) / C
    dg_ampa/dt = -g_ampa / tau_ampa
    dg_gaba/dt = -g_gaba / tau_gaba
    dx/dt = -x / tau_rise
    ds/dt = alpha * x * (1 - s) - s / tau_nmda
    """,
    threshold="V > v_th",
    reset="V = v_reset",
    method="rk2",
)
"""A neuron of the network. `x` and `s` are the NMDA gate of its own synapses, in ms units of the
card: a spike adds 1 to x; `nmda` is the weighted sum of the gates that it receives."""

GATHERED = NeuronModel(
    name="gathered", states={"total": 0.0}, step="total = Isyn\nO = where(total < 0, 1.0, 0.0)"
)
"""The sum of a pool's gates: of thousands of synapses of equal weight one number is left."""

POOLS = ("A", "B", "others")
STRONGER = 1.7
"""Jp: the weight within a selective pool."""


def decision(size: int = 2000, seed: int = 0, dtype: torch.dtype = torch.float64) -> Network:
    """Wang's decision network (Neuron 36, 2002): 1,600 excitatory and 400 inhibitory neurons.

    Pools A and B, 15 % of the excitatory neurons each, get the stimulus of `decide`. All connect
    to all; weights grow by 2,000/size for other sizes. Without a stimulus the excitatory neurons
    fire at a few Hz; after one, one pool stays active by itself and the other is silenced.

    Args:
        size: The number of neurons; 80 % excite.
        seed: Of the noise.
        dtype: The precision.

    Raises:
        InputError: For fewer than 100 neurons.
    """
    if size < 100:
        raise InputError(f"size={size}; expected >= 100 neurons")
    n_e = round(0.8 * size)
    selective = round(0.15 * n_e)
    sizes = {"A": selective, "B": selective, "others": n_e - 2 * selective}
    weaker = 1 - 0.15 * (STRONGER - 1) / 0.85
    scale = 2000 / size
    net = Network("decision", dtype=dtype)
    net.set_random_seed(seed)
    for name, n in sizes.items():
        group = NeuronGroup(n, model=DECIDING, refractory=2.0, g_nmda=0.165 * scale)
        net.add_assembly(name, group)
        net.add_assembly(f"gates_{name}", NeuronGroup(1, model=GATHERED))
    net.inhibitory = NeuronGroup(
        size - n_e, model=DECIDING, C=200.0, gL=20.0, refractory=1.0, g_nmda=0.13 * scale
    )
    targets = [getattr(net, name) for name in (*POOLS, "inhibitory")]
    for target in targets:
        inhibitory = target is net.inhibitory
        noise = Generator(num=target.num, coding_method="poisson", rate=2.4)
        net.add(f"noise_{target.name}", noise)
        drive = Connection(
            noise,
            target,
            link_type="one_to_one_sparse",
            weight=1.62 if inhibitory else 2.1,
            post_var_name="g_ampa",
        )
        net.add_connection(f"drive_{target.name}", drive)
        gaba = Connection(
            net.inhibitory,
            target,
            weight=scale * (1.0 if inhibitory else 1.3),
            delay=0.5,
            post_var_name="g_gaba",
        )
        net.add_connection(f"gaba_{target.name}", gaba)
        for name in POOLS:
            source = getattr(net, name)
            w = 1.0
            if target.name in ("A", "B"):
                w = STRONGER if target is source else weaker
            ampa = Connection(
                source,
                target,
                weight=scale * w * (0.04 if inhibitory else 0.05),
                delay=0.5,
                post_var_name="g_ampa",
            )
            net.add_connection(f"ampa_{name}_{target.name}", ampa)
            gates = getattr(net, f"gates_{name}")
            spread = Connection(gates, target, weight=w, pre_var_name="total", post_var_name="nmda")
            net.add_connection(f"nmda_{name}_{target.name}", spread)
    for name in POOLS:
        pool = getattr(net, name)
        # Gathering and spreading take a step each; with this delay 0.5 ms in all, for dt = 0.1.
        rise = Connection(
            pool, pool, link_type="one_to_one_sparse", weight=1.0, delay=0.3, post_var_name="x"
        )
        net.add_connection(f"rise_{name}", rise)
        gather = Connection(pool, getattr(net, f"gates_{name}"), weight=1.0, pre_var_name="s")
        net.add_connection(f"gather_{name}", gather)
    for name in ("A", "B"):
        pool = getattr(net, name)
        stimulus = Generator(num=pool.num, coding_method="poisson", rate=0.0)
        net.add(f"stimulus_{name}", stimulus)
        link = Connection(
            stimulus, pool, link_type="one_to_one_sparse", weight=2.1, post_var_name="g_ampa"
        )
        net.add_connection(f"stimulated_{name}", link)
    return _watched(net, *targets)


@dataclass
class Decision:
    """What a trial gave.

    Attributes:
        choice: `"A"` or `"B"`: the pool with the higher rate in the last 500 ms.
        rates: Pool → rate in Hz of each 50 ms.
        edges: Where these windows begin, in ms.
    """

    choice: str
    rates: dict[str, np.ndarray]
    edges: np.ndarray


def decide(
    net: Network,
    coherence: float = 0.128,
    before: float = 500.0,
    stimulus: float = 1000.0,
    after: float = 500.0,
    seed: int = 0,
) -> Decision:
    """Runs a trial: rest, a stimulus that favours pool A, and a time without one.

    Every 50 ms the two pools get new rates, drawn with 4 Hz around 40 (1 ± coherence) Hz, as in
    Wang (2002).

    Args:
        net: A network of `decision`.
        coherence: From −1 to 1; above zero A is right.
        before: Rest in ms.
        stimulus: Duration of the stimulus in ms.
        after: Time after it in ms.
        seed: Of the stimulus.

    Raises:
        InputError: For a coherence outside [−1, 1].
    """
    if not -1 <= coherence <= 1:
        raise InputError(f"coherence={coherence}; expected from -1 to 1")
    random = np.random.default_rng(seed)

    def stimulate(a: float, b: float) -> None:
        net.stimulus_A(max(a, 0.0) / 1000)
        net.stimulus_B(max(b, 0.0) / 1000)

    stimulate(0.0, 0.0)
    net.run(before)
    for _ in range(round(stimulus / 50)):
        drift = 40 * coherence
        stimulate(*(random.normal((40 + drift, 40 - drift), 4.0)))
        net.run_continue(50.0)
    stimulate(0.0, 0.0)
    net.run_continue(after)
    edges = np.arange(0, net.time + 1e-9, 50.0)
    rates = {}
    for monitor in net.parts(SpikeMonitor):
        counts, _ = np.histogram(np.concatenate(monitor.spk_times), edges)
        rates[monitor.target.name] = counts / monitor.target.num / 0.05
    last = {name: float(rates[name][-10:].mean()) for name in ("A", "B")}
    return Decision(max(last, key=lambda name: last[name]), rates, edges[:-1])
