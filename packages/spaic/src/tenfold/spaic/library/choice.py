"""Wang's decision network (2002): two pools of neurons compete for a slow, noisy choice.

Card section 20. The neurons are `iaf_wang_2002`: AMPA and GABA conductances jump at a spike; the
NMDA gate of each excitatory neuron saturates, and its conductance is blocked by magnesium at rest.
"""

from dataclasses import dataclass

import numpy as np
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic.library.circuits import _watched
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.monitors import SpikeMonitor
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Generator

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
        net.add_assembly(name, NeuronGroup(n, model="iaf_wang_2002", refractory=2.0))
    net.inhibitory = NeuronGroup(
        size - n_e, model="iaf_wang_2002", C=200.0, gL=20.0, refractory=1.0
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
            post_var_name="ge",
        )
        net.add_connection(f"drive_{target.name}", drive)
        gaba = _spread(net.inhibitory, target, "gi", scale * (1.0 if inhibitory else 1.3))
        net.add_connection(f"gaba_{target.name}", gaba)
        for name in POOLS:
            source = getattr(net, name)
            w = scale
            if target.name in ("A", "B"):
                w *= STRONGER if target is source else weaker
            ampa = _spread(source, target, "ge", w * (0.04 if inhibitory else 0.05))
            net.add_connection(f"ampa_{name}_{target.name}", ampa)
            nmda = _spread(source, target, "nmda", w * (0.13 if inhibitory else 0.165), "s")
            net.add_connection(f"nmda_{name}_{target.name}", nmda)
    for name in ("A", "B"):
        pool = getattr(net, name)
        stimulus = Generator(num=pool.num, coding_method="poisson", rate=0.0)
        net.add(f"stimulus_{name}", stimulus)
        link = Connection(
            stimulus, pool, link_type="one_to_one_sparse", weight=2.1, post_var_name="ge"
        )
        net.add_connection(f"stimulated_{name}", link)
    return _watched(net, *targets)


def _spread(
    source: NeuronGroup, target: NeuronGroup, into: str, weight: float, read: str = "O"
) -> Connection:
    """From all to all, half a millisecond later."""
    return Connection(
        source,
        target,
        link_type="all_to_all",
        pre_var_name=read,
        post_var_name=into,
        weight=weight,
        delay=0.5,
    )


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
        # A spike is stamped with the end of its step, which belongs to the window before it.
        counts, _ = np.histogram(np.concatenate(monitor.spk_times) - net.dt / 2, edges)
        rates[monitor.target.name] = counts / monitor.target.num / 0.05
    last = {name: float(rates[name][-10:].mean()) for name in ("A", "B")}
    return Decision(max(last, key=lambda name: last[name]), rates, edges[:-1])
