"""Random numbers that are looked up instead of drawn in turn, compiled by numba.

The number of a neuron in a step follows from the seed, the part of the network, the step and the
neuron alone (SplitMix64, Steele et al. 2014, as a function of its counter). So it does not depend
on which process computes the neuron, nor on what else is drawn.
"""

import math
from typing import Any

import numpy as np
from numba import njit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_UNIT = 2.0**-53


@njit(inline="always")
def _mixed(x: Any) -> Any:
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))


@njit(inline="always")
def draw_stream(key: Any, t: Any) -> Any:
    """Where the numbers of one part in one step begin.

    Args:
        key: uint64, of the seed, the run and the part.
        t: The step.
    """
    return _mixed(np.uint64(key) + np.uint64(t) * _GOLDEN)


@njit(inline="always")
def draw_uniform(stream: Any, count: Any) -> Any:
    """A number in [0, 1).

    Args:
        stream: From `draw_stream`.
        count: Which number of the stream.
    """
    found = _mixed(np.uint64(stream) + (np.uint64(count) + np.uint64(1)) * _GOLDEN)
    return np.float64(found >> np.uint64(11)) * _UNIT


@njit(inline="always")
def draw_normal(stream: Any, count: Any) -> Any:
    """A normal number, by Box and Muller; it takes the numbers 2·count and 2·count + 1."""
    far = math.sqrt(-2.0 * math.log(1.0 - draw_uniform(stream, 2 * count)))
    return far * math.cos(2.0 * math.pi * draw_uniform(stream, 2 * count + 1))


@njit
def _inverted(u: Any, mean: Any, below: Any) -> Any:
    """The Poisson number that belongs to u; `below` is the probability of zero."""
    k, p = 0, below
    while u >= below and k < 200:  # beyond 200 lies less than the last bit of u
        k += 1
        p *= mean / k
        below += p
    return k


@njit
def _in_pieces(stream: Any, place: Any, mean: Any) -> Any:
    total = 0
    while mean > 0.0:
        part = min(mean, 16.0)
        total += _inverted(draw_uniform(stream, place), part, math.exp(-part))
        mean -= part
        place += 1
    return total


@njit(inline="always")
def draw_poisson(stream: Any, count: Any, mean: Any, none: Any) -> Any:
    """A Poisson number, by inversion in pieces of a mean of at most 16.

    Args:
        stream: From `draw_stream`.
        count: Which number of the stream; each takes a block of 65,536.
        mean: Its mean.
        none: e^−mean, the probability of zero.
    """
    if mean > 16.0:
        return _in_pieces(stream, count * 65536, mean)
    u = draw_uniform(stream, count * 65536)
    return 0 if u < none else _inverted(u, mean, none)


@njit
def fill_poisson(
    into: Any, used: Any, stream: Any, rate: Any, dt: Any, none: Any, weight: Any
) -> None:
    """Draws a Poisson number for each used channel.

    Args:
        into: [n], what is written to.
        used: int64, the channels.
        stream: From `draw_stream`.
        rate: [n], in events a ms.
        dt: The step in ms.
        none: [n], e^(−rate dt).
        weight: What each event counts.
    """
    for i in used:
        into[i] = weight * draw_poisson(stream, i, rate[i] * dt, none[i])


__all__ = ["draw_normal", "draw_poisson", "draw_stream", "draw_uniform", "fill_poisson"]
