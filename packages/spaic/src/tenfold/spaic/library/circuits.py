"""Random circuits that simulators are compared with: CUBA, COBAHH, Brunel (card section 20)."""

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
    seed: int = 0,
    g: float = 5.0,
    eta: float = 2.0,
    dtype: torch.dtype = torch.float64,
) -> Network:
    """The sparsely connected network of Brunel (2000): regimes by (g, eta).

    (3, 2) synchronous regular, (6, 4) fast synchronous irregular, (5, 2) asynchronous irregular,
    (4.5, 0.9) slow synchronous irregular. Weights are scaled up where `size` is smaller than
    12,500, so that the mean drive stays; its fluctuations grow, so that small networks fire
    faster and in bursts. With (5, 2) and 12,500 neurons the mean-field theory has 37.9 Hz.

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
