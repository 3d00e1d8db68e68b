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
def deliver_value(
    spikes: Any, count: int, value: Any, start: Any, post: Any, weight: Any, into: Any
) -> None:
    """The same where each source has a value: the weights are multiplied by it.

    Args:
        spikes: As in `deliver`, the sources whose value is not zero.
        count: As in `deliver`.
        value: [n].
        start: As in `deliver`.
        post: As in `deliver`.
        weight: As in `deliver`.
        into: As in `deliver`.
    """
    for k in range(count):
        i = spikes[k]
        for j in range(start[i], start[i + 1]):
            into[post[j]] += weight[j] * value[i]


@njit(nogil=True)
def deliver_later(
    spikes: Any,
    count: int,
    value: Any,
    start: Any,
    post: Any,
    weight: Any,
    lag: Any,
    ring: Any,
    t: int,
) -> None:
    """Like `deliver_value`, with a delay for each synapse, into a ring of future sums.

    Args:
        spikes: As in `deliver`.
        count: As in `deliver`.
        value: As in `deliver_value`; empty where all are 1.
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
        if len(value):
            for j in range(start[i], start[i + 1]):
                ring[(t + lag[j]) % slots, post[j]] += weight[j] * value[i]
        else:
            for j in range(start[i], start[i + 1]):
                ring[(t + lag[j]) % slots, post[j]] += weight[j]


@njit(nogil=True)
def deliver_lagged(
    spikes: Any,
    counts: Any,
    values: Any,
    begins: Any,
    post: Any,
    weight: Any,
    into: Any,
    t: int,
    age: int,
    lags: int,
) -> None:
    """Like `deliver_later`, but with the weights of the step of arrival, which may have changed.

    Args:
        spikes: int32 [slots, n], the sources that spiked in each of the last steps.
        counts: [slots], how many.
        values: [slots, n], the values of the sources; empty where all are 1.
        begins: int64 [n * lags + 1], where the synapses of each source and each lag begin.
        post: As in `deliver`.
        weight: As in `deliver`.
        into: As in `deliver`.
        t: The step.
        age: How old the spikes are that arrive with lag 0.
        lags: How many lags there are.
    """
    for lag in range(lags):
        if t < age + lag:
            return
        past = (t - age - lag) % len(spikes)
        for k in range(counts[past]):
            i = spikes[past, k]
            value = values[past, i] if len(values) else 1
            for j in range(begins[i * lags + lag], begins[i * lags + lag + 1]):
                into[post[j]] += weight[j] * value


@njit(nogil=True)
def add_same(given: float, into: Any) -> None:
    """Adds one number to all targets.

    Args:
        given: The number.
        into: [targets], what is added to.
    """
    for i in range(len(into)):
        into[i] += given


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


@njit(nogil=True)
def find_hits(row: Any, hits: Any) -> int:
    """Lists the channels whose value is not zero, and says how many.

    Args:
        row: [n], the values.
        hits: int32 [n], filled.
    """
    found = 0
    for i in range(len(row)):
        if row[i] != 0:
            hits[found] = i
            found += 1
    return found


__all__ = [
    "add_same",
    "collect",
    "deliver",
    "deliver_lagged",
    "deliver_later",
    "deliver_same",
    "deliver_value",
    "find_hits",
]
