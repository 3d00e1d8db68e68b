"""The cortical microcircuit of Potjans & Diesmann (2014): all parameters of card section 20."""

import math

import numpy as np
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic.library.circuits import _watched
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Generator

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
