"""How spikes reach their targets, compiled by numba; the event engine's loop calls these."""

from typing import Any

from numba import njit


@njit(nogil=True)
def deliver(spikes: Any, count: int, start: Any, post: Any, weight: Any, into: Any) -> None:
    """Adds the weights of all synapses of the neurons that spiked, all of one delay.

    Args:
        spikes: int32 [n], the neurons that spiked, `count` of them.
        count: How many.
        start: int64 [n + 1], where each neuron's synapses begin.
        post: int32 [synapses], the targets.
        weight: [synapses].
        into: [targets], what is added to.
    """
    for k in range(count):
        i = spikes[k]
        for j in range(start[i], start[i + 1]):
            into[post[j]] += weight[j]


@njit(nogil=True)
def deliver_same(spikes: Any, count: int, start: Any, post: Any, weight: Any, into: Any) -> None:
    """The same where all synapses have one weight, a number."""
    for k in range(count):
        i = spikes[k]
        for j in range(start[i], start[i + 1]):
            into[post[j]] += weight


@njit(nogil=True)
def deliver_later(
    spikes: Any, count: int, start: Any, post: Any, weight: Any, lag: Any, ring: Any, t: int
) -> None:
    """The same with a delay for each synapse, into a ring of future sums.

    Args:
        spikes: As in `deliver`.
        count: As in `deliver`.
        start: As in `deliver`.
        post: As in `deliver`.
        weight: [synapses].
        lag: int32 [synapses], the delays in steps.
        ring: [slots, targets].
        t: The step.
    """
    slots = len(ring)
    for k in range(count):
        i = spikes[k]
        for j in range(start[i], start[i + 1]):
            ring[(t + lag[j]) % slots, post[j]] += weight[j]


@njit(nogil=True)
def collect(row: Any, offset: int, into: Any) -> None:
    """Moves the sums that are due in a step to their target.

    Args:
        row: The ring's slot of this step.
        offset: Where the target's neurons begin in it.
        into: [targets].
    """
    for i in range(len(into)):
        into[i] += row[offset + i]
        row[offset + i] = 0


__all__ = ["collect", "deliver", "deliver_later", "deliver_same"]
