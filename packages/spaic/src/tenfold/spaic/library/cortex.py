"""The cortical microcircuit of Potjans & Diesmann (2014): all parameters of card section 20."""

import math
from typing import Any

import numpy as np
import torch

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.spaic.library.circuits import _watched
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.monitors import StateMonitor
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


_J = psc_of_psp(0.15, c=250.0, tau_m=10.0, tau_s=0.5)
_WEIGHTS = np.tile([_J, -4 * _J], (8, 4))
_WEIGHTS[0, 2] *= 2  # L4E to L23E


def _synapses() -> np.ndarray:
    """The number of synapses at full scale, [target, source]."""
    pairs = np.outer(_SIZES, _SIZES)
    return np.round(np.log1p(-_PROBABILITIES) / np.log1p(-1 / pairs))


def microcircuit(
    scale: float = 0.1,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    model: str = "iaf_psc_exp",
) -> Network:
    """The cortical microcircuit of Potjans & Diesmann (2014), scaled down in neurons and degrees.

    Below full scale weights grow by 1/√scale and a constant current replaces the mean input that
    is missing, so that mean and variance of a neuron's input stay.

    With `model="meanfield"` it is the same circuit with rates in place of spikes, the paper's first
    example. A rate is in units of what the external drive alone would give, a weight is the drive
    of a source population at rate 1 over the external drive; `mean_field_rates` has the closed
    form. The paper shows the picture only: rates that settle within 50 ms between 0.76 and 1.31.
    Its parameters are not known to us, so these units are a reconstruction.

    Args:
        scale: Share of the neurons and in-degrees, > 0 and at most 1 (77,169 neurons).
        seed: Of connections, starting values and noise.
        dtype: The precision.
        model: `iaf_psc_exp` or `meanfield`.

    Raises:
        InputError: For another scale or model.
    """
    if not 0 < scale <= 1:
        raise InputError(f"scale={scale}; expected > 0 and at most 1")
    if model not in ("iaf_psc_exp", "meanfield"):
        raise InputError(did_you_mean(model, ("iaf_psc_exp", "meanfield"), "model"))
    spiking = model == "iaf_psc_exp"
    net = Network("microcircuit", dtype=dtype)
    net.set_random_seed(seed)
    random = np.random.default_rng(seed)
    for t, name in enumerate(POPULATIONS):
        size = max(1, round(_SIZES[t] * scale))
        labels = ["excitatory" if t % 2 == 0 else "inhibitory", name[:-1]]
        options = _spiking(t, scale, size, random) if spiking else {"rho": _RHO, "tau": 10.0}
        group = NeuronGroup(size, model=model, neuron_type=labels, **options)
        net.add_assembly(name, group)
        if spiking:
            rate = _EXTERNAL[t] * scale * 8e-3
            source = Generator(num=size, coding_method="poisson", rate=rate)
        else:
            source = Generator(num=size, coding_method="constant_current", rate=1.0)
        net.add(f"noise_{name}" if spiking else f"external_{name}", source)
        drive = Connection(
            source,
            group,
            link_type="one_to_one_sparse",
            weight=_J / math.sqrt(scale) if spiking else 1.0,
            post_var_name="ge" if spiking else "Iext",
        )
        net.add_connection(f"drive_{name}", drive)
    synapses = _synapses()
    for t, target in enumerate(POPULATIONS):
        unit = math.sqrt(scale) if spiking else scale * _J * _EXTERNAL[t]
        for s, source_name in enumerate(POPULATIONS):
            count = round(synapses[t, s] * scale * scale)
            if not count:
                continue
            mean = _WEIGHTS[t, s] / unit
            drawn = random.normal(mean, abs(mean) * 0.1, count)
            drawn = np.maximum(drawn, 0) if mean > 0 else np.minimum(drawn, 0)
            slow = 1.5 if s % 2 == 0 else 0.75
            link = Connection(
                getattr(net, source_name),
                getattr(net, target),
                link_type="fixed_total",
                number=count,
                weight=drawn,
                delay=_above(random, slow, slow / 2, count, 0.1),
                post_var_name=("ge" if s % 2 == 0 else "gi") if spiking else "Isyn",
            )
            net.add_connection(f"{source_name}_{target}", link)
    groups = [getattr(net, name) for name in POPULATIONS]
    if spiking:
        return _watched(net, *groups)
    for group in groups:
        net.add_monitor(f"rate_{group.name}", StateMonitor(group, "O"))
    return net


_RHO = 0.1  # the gain of `meanfield`


def _spiking(t: int, scale: float, size: int, random: np.random.Generator) -> dict[str, Any]:
    """What a population of spiking neurons has: constants, starting values, the missing drive."""
    degrees = _synapses()[t] / _SIZES[t]  # at full scale
    missing = float(np.sum(_WEIGHTS[t] * degrees * REFERENCE_RATES)) + _J * _EXTERNAL[t] * 8.0
    return {
        "tau_m": 10.0,
        "tau_e": 0.5,
        "tau_i": 0.5,
        "C": 250.0,
        "refractory": 2.0,
        "I_e": 1e-3 * 0.5 * (1 - math.sqrt(scale)) * missing,
        "initial": {"V": random.normal(-58.0, 10.0, size)},
    }


def mean_field_rates() -> dict[str, float]:
    """The rates at which `microcircuit(model="meanfield")` settles, in closed form.

    O = 1 + ρ M O, M[t, s] the weight times the in-degree over the external weight and in-degree
    (all rates turn out positive, so that the rectification does nothing).
    """
    degrees = _synapses() / np.array(_SIZES)[:, None]
    m = _WEIGHTS * degrees / (_J * np.array(_EXTERNAL)[:, None])
    found = np.linalg.solve(np.eye(8) - _RHO * m, np.ones(8))
    return dict(zip(POPULATIONS, found.tolist(), strict=True))


def _above(
    random: np.random.Generator, mean: float, std: float, count: int, low: float
) -> np.ndarray:
    """Normal numbers, those below `low` drawn again."""
    made = random.normal(mean, std, count)
    while bool((bad := made < low).any()):
        made[bad] = random.normal(mean, std, int(bad.sum()))
    return made
