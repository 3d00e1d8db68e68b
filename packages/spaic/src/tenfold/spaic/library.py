"""Circuits of the literature with their full parameters, each a function that gives a network.

`CIRCUITS` lists them by name; the verb `simulate` runs them. Potentials are in mV, times in ms,
currents in pA, conductances in nS, capacitances in pF, rates in kHz.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.monitors import SpikeMonitor
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Generator


def _watched(net: Network, *groups: NeuronGroup) -> Network:
    """Adds a spike monitor to each group, named `spikes_<group>`."""
    for group in groups:
        net.add_monitor(f"spikes_{group.name}", SpikeMonitor(group))
    return net


def _split(size: int, share: float) -> tuple[int, int]:
    if size < 10:
        raise InputError(f"size={size}; expected >= 10 neurons")
    first = round(size * share)
    return first, size - first


def cuba(size: int = 4000, seed: int = 0, dtype: torch.dtype = torch.float64) -> Network:
    """The current-based benchmark circuit (Vogels & Abbott 2005, as in Brette et al. 2007).

    80 % of the neurons excite; p = 0.02 at 4,000 neurons, in-degrees kept for other sizes; no
    delay; refractory 5 ms counted as Brian2 does. About 5.6 Hz in the first second.

    Args:
        size: The number of neurons.
        seed: Of connections and starting values.
        dtype: The precision.
    """
    n_e, n_i = _split(size, 0.8)
    net = Network("cuba", dtype=dtype)
    net.set_random_seed(seed)
    rest = {"V": ("uniform", -60.0, -50.0)}
    options: dict[str, Any] = {"refractory": 5.0, "refractory_from": "spike", "initial": rest}
    net.excitatory = NeuronGroup(n_e, model="cuba", **options)
    net.inhibitory = NeuronGroup(n_i, model="cuba", **options)
    p = 0.02 * 4000 / size
    for source, into, weight in ((net.excitatory, "ge", 1.62), (net.inhibitory, "gi", -9.0)):
        for target in (net.excitatory, net.inhibitory):
            link = Connection(
                source,
                target,
                link_type="bernoulli",
                p=min(p, 1.0),
                weight=weight,
                post_var_name=into,
            )
            net.add_connection(f"{source.name}_{target.name}", link)
    return _watched(net, net.excitatory, net.inhibitory)


def cobahh(size: int = 4000, seed: int = 0, dtype: torch.dtype = torch.float64) -> Network:
    """The conductance-based Hodgkin–Huxley benchmark circuit (Brette et al. 2007).

    Exponential Euler, dt 0.1 ms; no reset, 3 ms refractory. About 37.3 Hz in the first second.

    Args:
        size: The number of neurons.
        seed: Of connections and starting values.
        dtype: The precision.
    """
    n_e, n_i = _split(size, 0.8)
    net = Network("cobahh", dtype=dtype)
    net.set_random_seed(seed)
    random = np.random.default_rng(seed)

    def group(n: int) -> NeuronGroup:
        initial = {
            "V": -60 + 5 * random.standard_normal(n) - 5,
            "ge": (1.5 * random.standard_normal(n) + 4) * 10,
            "gi": (12 * random.standard_normal(n) + 20) * 10,
        }
        options: dict[str, Any] = {
            "refractory": 3.0,
            "refractory_from": "spike",
            "initial": initial,
        }
        return NeuronGroup(n, model="cobahh", **options)

    net.excitatory, net.inhibitory = group(n_e), group(n_i)
    p = min(1.0, 0.02 * 4000 / size)
    for source, into, weight in ((net.excitatory, "ge", 6.0), (net.inhibitory, "gi", 67.0)):
        for target in (net.excitatory, net.inhibitory):
            link = Connection(
                source, target, link_type="bernoulli", p=p, weight=weight, post_var_name=into
            )
            net.add_connection(f"{source.name}_{target.name}", link)
    return _watched(net, net.excitatory, net.inhibitory)


def brunel(
    size: int = 12_500,
    g: float = 5.0,
    eta: float = 2.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Network:
    """The sparsely connected network of Brunel (2000): regimes by (g, eta).

    (3, 2) synchronous regular, (6, 4) fast synchronous irregular, (5, 2) asynchronous irregular,
    (4.5, 0.9) slow synchronous irregular. Weights are scaled up where `size` is smaller than
    12,500, so that the mean drive stays.

    Args:
        size: The number of neurons; 80 % excite.
        g: How much stronger inhibition is.
        eta: The external rate, in units of the one that reaches the threshold.
        seed: Of connections and noise.
        dtype: The precision.
    """
    n_e, n_i = _split(size, 0.8)
    net = Network("brunel", dtype=dtype)
    net.set_random_seed(seed)
    tau, threshold, epsilon, delay = 20.0, 20.0, 0.1, 1.5
    c_e, c_i = max(1, round(epsilon * n_e)), max(1, round(epsilon * n_i))
    j = 0.1 * 1000 / c_e
    rate = eta * threshold / (j * tau)  # of all external sources of a neuron together, in kHz
    options: dict[str, Any] = {
        "model": "iaf_psc_delta",
        "tau_m": tau,
        "EL": 0.0,
        "v_th": threshold,
        "v_reset": 10.0,
        "refractory": 2.0,
    }
    net.excitatory = NeuronGroup(n_e, **options)
    net.inhibitory = NeuronGroup(n_i, **options)
    for target in (net.excitatory, net.inhibitory):
        source = Generator(num=target.num, coding_method="poisson", rate=rate)
        net.add(f"noise_{target.name}", source)
        drive = Connection(
            source, target, link_type="one_to_one_sparse", weight=j, post_var_name="V", delay=0.0
        )
        net.add_connection(f"drive_{target.name}", drive)
        for other, degree, weight in ((net.excitatory, c_e, j), (net.inhibitory, c_i, -g * j)):
            link = Connection(
                other,
                target,
                link_type="fixed_in_degree",
                degree=degree,
                weight=weight,
                delay=delay,
                post_var_name="V",
            )
            net.add_connection(f"{other.name}_{target.name}", link)
    return _watched(net, net.excitatory, net.inhibitory)


POPULATIONS = ("L23E", "L23I", "L4E", "L4I", "L5E", "L5I", "L6E", "L6I")
"""The populations of the cortical microcircuit, in the order of all its tables."""

_SIZES = (20683, 5834, 21915, 5479, 4850, 1065, 14395, 2948)
_EXTERNAL = (1600, 1500, 2100, 1900, 2000, 1900, 2900, 2100)
REFERENCE_RATES = (0.971, 2.868, 4.746, 5.396, 8.142, 9.078, 0.991, 7.523)
"""Mean rates in Hz of the full-scale circuit (section 20 of the method card)."""
_PROBABILITIES = np.array(
    [
        [0.1009, 0.1689, 0.0437, 0.0818, 0.0323, 0.0, 0.0076, 0.0],
        [0.1346, 0.1371, 0.0316, 0.0515, 0.0755, 0.0, 0.0042, 0.0],
        [0.0077, 0.0059, 0.0497, 0.1350, 0.0067, 0.0003, 0.0453, 0.0],
        [0.0691, 0.0029, 0.0794, 0.1597, 0.0033, 0.0, 0.1057, 0.0],
        [0.1004, 0.0622, 0.0505, 0.0057, 0.0831, 0.3726, 0.0204, 0.0],
        [0.0548, 0.0269, 0.0257, 0.0022, 0.0600, 0.3158, 0.0086, 0.0],
        [0.0156, 0.0066, 0.0211, 0.0166, 0.0572, 0.0197, 0.0396, 0.2252],
        [0.0364, 0.0010, 0.0034, 0.0005, 0.0277, 0.0080, 0.0658, 0.1443],
    ]
)


def psc_of_psp(psp: float, c: float, tau_m: float, tau_s: float) -> float:
    """The current in pA whose exponential kernel gives a potential of a given peak.

    Args:
        psp: The peak in mV.
        c: The capacitance in pF.
        tau_m: Of the membrane in ms.
        tau_s: Of the current in ms.
    """
    ratio = tau_m / tau_s
    fall = ratio ** (-tau_m / (tau_m - tau_s)) - ratio ** (-tau_s / (tau_m - tau_s))
    return psp / (tau_m * tau_s / (tau_s - tau_m) * fall / c)


def microcircuit(scale: float = 0.1, seed: int = 0, dtype: torch.dtype = torch.float64) -> Network:
    """The cortical microcircuit of Potjans & Diesmann (2014), scaled down in neurons and degrees.

    Below full scale weights grow by 1/√scale and a constant current replaces the mean input that
    is missing, so that mean and variance of a neuron's input stay.

    Args:
        scale: Share of the neurons and in-degrees, > 0 and at most 1 (77,169 neurons).
        seed: Of connections, starting values and noise.
        dtype: The precision.
    """
    if not 0 < scale <= 1:
        raise InputError(f"scale={scale}; expected > 0 and at most 1")
    tau_m, tau_s, c = 10.0, 0.5, 250.0
    j = psc_of_psp(0.15, c, tau_m, tau_s)
    sizes = [max(1, round(n * scale)) for n in _SIZES]
    net = Network("microcircuit", dtype=dtype)
    net.set_random_seed(seed)
    random = np.random.default_rng(seed)
    weights = np.array([[j if s % 2 == 0 else -4 * j for s in range(8)] for _ in range(8)])
    weights[0, 2] *= 2
    full = np.array(
        [
            [
                round(math.log(1 - p) / math.log(1 - 1 / (_SIZES[s] * _SIZES[t]))) if p else 0
                for s, p in enumerate(row)
            ]
            for t, row in enumerate(_PROBABILITIES)
        ]
    )
    degrees = full / np.array(_SIZES)[:, None]  # mean in-degree at full scale
    root = math.sqrt(scale)
    for t, name in enumerate(POPULATIONS):
        missing = float(np.sum(weights[t] * degrees[t] * REFERENCE_RATES)) + j * _EXTERNAL[t] * 8.0
        group = NeuronGroup(
            sizes[t],
            model="iaf_psc_exp",
            neuron_type=["excitatory" if t % 2 == 0 else "inhibitory", name[:-1]],
            tau_m=tau_m,
            tau_e=tau_s,
            tau_i=tau_s,
            C=c,
            refractory=2.0,
            I_e=1e-3 * tau_s * (1 - root) * missing,
            initial={"V": random.normal(-58.0, 10.0, sizes[t])},
        )
        net.add_assembly(name, group)
        rate = _EXTERNAL[t] * scale * 8e-3
        noise = Generator(num=sizes[t], coding_method="poisson", rate=rate)
        net.add(f"noise_{name}", noise)
        drive = Connection(
            noise, group, link_type="one_to_one_sparse", weight=j / root, post_var_name="ge"
        )
        net.add_connection(f"drive_{name}", drive)
    for t, target in enumerate(POPULATIONS):
        for s, source in enumerate(POPULATIONS):
            count = round(full[t, s] * scale * scale)
            if not count:
                continue
            mean = weights[t, s] / root
            drawn = random.normal(mean, abs(mean) * 0.1, count)
            drawn = np.maximum(drawn, 0) if mean > 0 else np.minimum(drawn, 0)
            slow = 1.5 if s % 2 == 0 else 0.75
            link = Connection(
                getattr(net, source),
                getattr(net, target),
                link_type="fixed_total",
                number=count,
                weight=drawn,
                delay=_above(random, slow, slow / 2, count, 0.1),
                post_var_name="ge" if s % 2 == 0 else "gi",
            )
            net.add_connection(f"{source}_{target}", link)
    return _watched(net, *(getattr(net, name) for name in POPULATIONS))


def _above(
    random: np.random.Generator, mean: float, std: float, count: int, low: float
) -> np.ndarray:
    """Normal numbers, those below `low` drawn again."""
    made = random.normal(mean, std, count)
    while bool((bad := made < low).any()):
        made[bad] = random.normal(mean, std, int(bad.sum()))
    return made


def reservoir(
    inputs: int,
    size: int = 500,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Network:
    """A liquid-state machine: spikes in, a sparse recurrent circuit of LIF neurons, rates out.

    Args:
        inputs: The number of input channels.
        size: The number of neurons, 80 % of them excitatory.
        seed: Of connections.
        dtype: The precision.
    """
    from tenfold.spaic.network.nodes import Decoder, Encoder

    n_e, _ = _split(size, 0.8)
    net = Network("reservoir", dtype=dtype)
    net.set_random_seed(seed)
    net.input = Encoder(num=inputs, coding_method="null")
    net.liquid = NeuronGroup(size, model="lif", tau_m=20.0)
    net.into = Connection(
        net.input, net.liquid, link_type="bernoulli", p=0.3, w_mean=0.6, w_std=0.2
    )
    random = np.random.default_rng(seed)
    pre, post = np.nonzero(random.random((size, size)) < 20 / size)
    weight = np.abs(random.normal(0.15, 0.05, len(pre))) * np.where(pre < n_e, 1.0, -2.0)
    net.recurrent = Connection(
        net.liquid, net.liquid, link_type="index", pre_index=pre, post_index=post, weight=weight
    )
    net.output = Decoder(dec_target=net.liquid, num=size, coding_method="spike_counts")
    return net


@dataclass(frozen=True)
class Circuit:
    """A circuit of the library.

    Attributes:
        make: Gives the network: `make(size, seed)`.
        size: Its default size (neurons; the microcircuit's: thousandths of the full scale).
        title: What it is.
        rates: Population → the rate in Hz that is known for it, and where from.
        note: What a reader must know.
    """

    make: Callable[..., Network]
    size: int
    title: str
    rates: dict[str, float]
    note: str


CIRCUITS: dict[str, Circuit] = {
    "cuba": Circuit(
        cuba, 4000, "current-based benchmark circuit", {"all": 5.6}, "Brian2, first second"
    ),
    "cobahh": Circuit(
        cobahh, 4000, "Hodgkin–Huxley benchmark circuit", {"all": 37.3}, "Brian2, first second"
    ),
    "brunel": Circuit(brunel, 12_500, "Brunel's sparse network, g = 5, eta = 2", {}, ""),
    "microcircuit": Circuit(
        lambda size, seed, **options: microcircuit(size / 77_169, seed, **options),
        7717,
        "cortical microcircuit of Potjans & Diesmann",
        dict(
            zip(POPULATIONS, (0.665, 3.095, 4.291, 6.975, 7.486, 7.642, 1.228, 8.049), strict=True)
        ),
        "NEST at 10 % scale, 2 s, one seed",
    ),
}


def rates(net: Network, skipped: float = 0.0) -> dict[str, float]:
    """Gives the mean rate of each monitored population in the last run, in Hz.

    Args:
        net: A network whose monitors are named `spikes_<population>`.
        skipped: Time at the beginning that does not count, in ms.
    """
    found: dict[str, Any] = {}
    spikes, neurons, seconds = 0, 0, 0.0
    for monitor in net.parts(SpikeMonitor):
        count = int(sum((times > skipped).sum() for times in monitor.spk_times))
        size, seconds = monitor.target.num, (len(monitor.time) * net.dt - skipped) / 1000
        found[monitor.target.name] = count / size / seconds
        spikes, neurons = spikes + count, neurons + size
    return {"all": spikes / max(neurons, 1) / max(seconds, 1e-12), **found}
