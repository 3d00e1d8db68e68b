"""Neural fields: a bump that stays where it was put, and fronts that travel (sections 4, 16)."""

import math

import numpy as np
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.monitors import StateMonitor
from tenfold.spaic.network.network import Network
from tenfold.spaic.network.nodes import Encoder, Generator


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


def wave_front(
    size: int = 200,
    rate: float = 1e-4,
    excitation: float = 4.0,
    inhibition: float = 2.5,
    strength: float = 10.0,
    seed: int = 0,
) -> Network:
    """Two sheets of mean-field neurons in which fronts of activity travel (card section 16).

    Excitatory (τ 1 ms) and inhibitory (τ 2 ms) sheets, linked by 29 × 29 kernels
    w e^{−r/a}/a: E→E and E→I +1 ×, I→E −2 ×, I→I −1 ×; sparse Poisson input; dt 0.2 ms. The
    official example goes 10 ms with `run`, then 24 times 10 ms with `run_continue`.

    The card does not say which of its two ranges (2.5 and 4 pixels) is whose, nor how strong the
    input is: both are reconstructions, as is the input's weight of 1. Excitation must be the wider
    one, and the loop must take two steps: `compat="spaic"`, whose `meanfield` sees the input of the
    step before. With the ranges exchanged, or in the default mode (one step), the same input leaves
    spots that do not move (`front_motion` measures it). All four are unstable when linearised
    around rest, with the homogeneous mode growing fastest; with strong input the sheets flash as
    a whole.

    Args:
        size: Height and width in pixels.
        rate: Input events a ms of each pixel.
        excitation: Range of the excitatory kernels in pixels.
        inhibition: Range of the inhibitory ones.
        strength: w.
        seed: Of the input.

    Returns:
        A network with the encoder `input` (its data are set), the groups `excitatory` and
        `inhibitory`, and the monitor `activity` of the excitatory output, every 0.4 ms, switched
        off at first.

    Raises:
        InputError: For a sheet smaller than a kernel.
    """
    if size < 29:
        raise InputError(f"size={size}; expected at least the kernels' 29 pixels")
    net = Network("wave_front", compat="spaic")
    net.set_random_seed(seed)
    net.set_backend_dt(0.2)
    sheet = (1, size, size)
    net.input = Encoder(shape=sheet, coding_method="poisson")
    net.input(torch.full((1, *sheet), rate))
    net.excitatory = NeuronGroup(shape=sheet, model="meanfield", tau=1.0)
    net.inhibitory = NeuronGroup(shape=sheet, model="meanfield", tau=2.0)
    net.seen = Connection(
        net.input,
        net.excitatory,
        link_type="one_to_one_sparse",
        weight=1.0,
        post_var_name="Iext",
    )
    y, x = np.mgrid[-14:15, -14:15]
    apart = np.hypot(y, x)
    sides = {"excitatory": net.excitatory, "inhibitory": net.inhibitory}
    for source, reach, signs in (
        ("excitatory", excitation, (1.0, 1.0)),
        ("inhibitory", inhibition, (-2.0, -1.0)),
    ):
        kernel = strength * np.exp(-apart / reach) / reach
        for sign, target in zip(signs, sides, strict=True):
            link = Connection(
                sides[source],
                sides[target],
                link_type="conv",
                weight=sign * kernel[None, None],
                kernel_size=29,
                padding=14,
                is_parameter=False,
            )
            net.add_connection(f"{source}_{target}", link)
    net.activity = StateMonitor(net.excitatory, "O", dt=0.4)
    net.activity.monitor_off()
    return net


def front_motion(
    before: np.ndarray, after: np.ndarray, block: int = 32, reach: int = 12
) -> np.ndarray:
    """Measures how far patches of activity moved between two frames, by block matching.

    Of each block of the first frame that is active (a quarter of the frame's peak somewhere), the
    place in the second frame is found where the correlation with it is highest.

    Args:
        before: [height, width].
        after: [height, width], a little later.
        block: Pixels of a side.
        reach: How far a block is looked for, in pixels.

    Returns:
        float64 [blocks, 3]: the distance in pixels, the correlation there, and that at the place
        where the block was. Fronts travel where the first correlation is high and the second low;
        what grows and fades in its place has a distance of 0.
    """
    before, after = before.astype(np.float64), after.astype(np.float64)
    rows = []
    high, wide = before.shape
    for top in range(reach, high - block - reach + 1, block):
        for left in range(reach, wide - block - reach + 1, block):
            part = before[top : top + block, left : left + block]
            if part.max() <= 0.25 * before.max():
                continue
            around = after[top - reach : top + block + reach, left - reach : left + block + reach]
            places = np.lib.stride_tricks.sliding_window_view(around, (block, block))
            part = part - part.mean()
            shared = np.einsum("ijkl,kl->ij", places, part)
            own = places.var((2, 3)) * block**2 * (part**2).sum()
            matched = shared / np.sqrt(np.maximum(own, 1e-300))
            dy, dx = np.unravel_index(int(matched.argmax()), matched.shape)
            found = math.hypot(dy - reach, dx - reach)
            rows.append((found, matched.max(), matched[reach, reach]))
    return np.array(rows).reshape(-1, 3)
