"""How much memory a description of a network asks for, told before anything is drawn.

A file of a few hundred bytes may name groups and links of any size. What they would take is added
up over the whole file, from estimates on the large side.
"""

import math
from typing import Any

import numpy as np
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.spaic.network.connections import DENSE, IMAGES, Connection, Initializer
from tenfold.spaic.network.connections.images import weight_shape
from tenfold.spaic.network.contents import Contents
from tenfold.spaic.network.groups import Layer

MOST_BYTES = 4 * 2**30
"""A file may ask for as many bytes, unless who loads it allows more."""

NEURON = 100
"""Bytes of a neuron: its states, inputs and parameters."""
LINK = 4096
"""Bytes of a link itself."""
VALUE = 16
"""Bytes of a weight: it is drawn in float64 and kept in the network's precision."""
SYNAPSE = 48
"""Bytes of a synapse that is stored with its two neurons, and what drawing them takes."""
DELAYED = 8
"""Bytes of a number that waits, once for each step of the longest delay."""


class Memory:
    """Adds up what a file asks for.

    Args:
        most: The bound in bytes.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self.most, self.taken = most, 0.0

    def take(self, what: str, size: float) -> None:
        """Adds what a part takes.

        Args:
            what: The part, for messages.
            size: Bytes.

        Raises:
            InputError: If the file then asks for more than the bound.
        """
        self.taken += 0.0 if size < 0 else size  # a wrong setting; drawing tells it
        if not self.taken <= self.most:  # nor for a number that is none
            raise InputError(
                f"{what} takes {size / 2**30:.3g} GiB, the file {self.taken / 2**30:.3g} GiB up to "
                f"there; at most {self.most / 2**30:.3g} GiB are allowed (most_bytes of "
                "network_load and network_from_dict)"
            )

    def shape(self, what: str, sizes: Any) -> None:
        """Looks at the shape of one layer, which `check_memory` adds when it stands.

        Args:
            what: The layer, for messages.
            sizes: Its shape.

        Raises:
            InputError: If a size is not a whole number >= 0, and as in `take`.
        """
        for size in sizes:
            if isinstance(size, bool) or not isinstance(size, int) or size < 0:
                raise InputError(f"{what}: a size is {size!r}; expected a whole number >= 0")
        Memory(self.most).take(what, NEURON * _float(math.prod(sizes)))


def check_memory(net: Contents, memory: Memory) -> None:
    """Refuses a network whose groups and links would fill the memory when they are drawn.

    Args:
        net: The network, not built yet, nothing of it hidden.
        memory: What else has been counted.

    Raises:
        InputError: If it asks for too much; it names the part.
    """
    for layer in net.parts(Layer):
        if layer.shape:
            memory.take(f"{layer!r}", NEURON * _float(layer.num))
    for con in net.get_connections():
        memory.take(f"{con!r}", LINK + _link(con, net.dt))


def _link(con: Connection, dt: float) -> float:
    """The bytes of a link's weights, and of what waits in it."""
    if not (con.pre.shape and con.post.shape):
        return 0.0  # of no size yet: what is built later is not the file's
    n, m = _float(con.post.num), _float(con.pre.num)
    lags = _longest(con) / dt
    size = DELAYED * lags * (n + m)
    if con.stored_sparse:
        return size + SYNAPSE * _synapses(con, n, m)
    if con.kind in IMAGES.values():
        return size + (0.0 if con.kind == "pool" else VALUE * _float(math.prod(weight_shape(con))))
    values = n * m
    if con.kind in ("null", "all_to_all", "spike2mass"):
        values = n
    if con.kind == "dist_depd":
        values *= 3  # and the distances
    single = con.given_delay is not None and not con.train_delay
    each = 0.0 if single or con.kind not in DENSE.values() else lags  # one matrix a lag
    return size + values * (VALUE + DELAYED * each)


def _longest(con: Connection) -> float:
    """The longest delay in ms, as it is given or was read."""
    longest = con.max_delay
    if "delay_complex_synapse" in con.syn_type and longest == 0:
        longest = float(con.syn_kwargs.get("max_delay", 5.0))
    for held in (con.delay, con.given_delay):
        if held is not None and not isinstance(held, Initializer):
            values = held.detach().cpu().numpy() if isinstance(held, Tensor) else held
            longest = max(longest, float(np.max(values, initial=0.0)))
    return longest


def _synapses(con: Connection, n: float, m: float) -> float:
    """How many synapses are expected of a stored link between m and n neurons."""
    option = con.options.get
    if con.weight is not None:
        return float(con.weight.numel())
    if con.kind == "one_to_one_sparse":
        return max(n, m)
    if con.kind == "fixed_in_degree":
        return n * _float(option("degree", 0))
    if con.kind == "fixed_out_degree":
        return m * _float(option("degree", 0))
    if con.kind == "fixed_total":
        return _float(option("number", 0))
    if con.kind == "index":
        return float(len(option("pre_index", ())))
    if isinstance(con.given_weight, Initializer) and con.given_weight.name == "sparse":
        return n * m  # made from a matrix
    key = {"bernoulli": "p", "sparse_sparse": "density"}.get(con.kind, "probability")
    return n * m * _float(option(key, 0.1))


def _float(value: Any) -> float:
    """A number as one that cannot overflow; infinite if it is too large."""
    try:
        return float(value)
    except OverflowError:
        return math.inf
