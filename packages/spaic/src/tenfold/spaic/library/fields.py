"""A continuous attractor: a bump of activity that stays where it was put (card section 4)."""

import math

import numpy as np
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.monitors import StateMonitor
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Generator


def ring_attractor(
    size: int = 128, width: float = 0.5, k: float = 0.05, tau: float = 1.0
) -> Network:
    """The continuous attractor of Fung, Wong & Wu (Neural Computation 22, 2010) on a ring.

    τ dU/dt = −U + ρ Σ J(x − x') r(x') + I, with r = U²/(1 + kρ Σ U²) and a Gaussian J of unit
    integral and the given width; ρ = 2π/size, so that sums stand for integrals.
    A stimulus (`net.stimulus(I)`) puts a bump somewhere; without one it stays, with the height of
    `bump_height`.

    Args:
        size: The number of neurons around the ring.
        width: Of the interaction in radians, well below π.
        k: Strength of the global inhibition; bumps exist below 1/(8 √(2π) width).
        tau: Time constant in ms.

    Returns:
        A network with the generator `stimulus`, the group `neurons` and the monitor `activity` of
        U, with steps of 0.1 ms.

    Raises:
        InputError: For a k at which no bump can stay.
    """
    bump_height(width, k)
    x = np.linspace(-math.pi, math.pi, size, endpoint=False)
    apart = np.abs(x[:, None] - x[None])
    apart = np.minimum(apart, 2 * math.pi - apart)
    j = np.exp(-(apart**2) / (2 * width**2)) / (math.sqrt(2 * math.pi) * width)
    net = Network("ring", dtype=torch.float64)
    net.neurons = NeuronGroup(size, model="cann_field", rho=2 * math.pi / size, k=k, tau=tau)
    net.stimulus = Generator(num=size, coding_method="constant_current", rate=0.0)
    net.seen = Connection(
        net.stimulus,
        net.neurons,
        link_type="one_to_one_sparse",
        weight=1.0,
        post_var_name="Iext",
    )
    net.recurrent = Connection(net.neurons, net.neurons, weight=j, is_parameter=False)
    net.activity = StateMonitor(net.neurons, "U", dt=1.0)
    return net


def bump_height(width: float = 0.5, k: float = 0.05) -> float:
    """The height of the bump of U that stays without a stimulus, in closed form.

    (1 + √(1 − k/k_c)) / (4 √π width k) with k_c = 1/(8 √(2π) width) (Fung, Wong & Wu 2010, eqs. 8
    and 9 for an interaction of unit integral on a long line).

    Args:
        width: Of the interaction in radians.
        k: Strength of the inhibition.

    Raises:
        InputError: If no bump can stay: k is not between 0 and k_c.
    """
    critical = 1 / (8 * math.sqrt(2 * math.pi) * width)
    if not 0 < k < critical:
        raise InputError(f"k={k}; a bump of width {width} stays for 0 < k < {critical:.4g} only")
    return (1 + math.sqrt(1 - k / critical)) / (4 * math.sqrt(math.pi) * width * k)
