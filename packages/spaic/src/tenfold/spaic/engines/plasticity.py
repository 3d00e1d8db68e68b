"""Spike-timing-dependent plasticity by events, compiled by numba (section 10.4 of the card)."""

from typing import Any

from numba import njit


@njit(inline="always")
def _power(x: Any, exponent: Any) -> Any:
    if exponent == 1:
        return x
    return x**exponent if exponent != 0 else x * 0 + 1


@njit(nogil=True)
def pair_stdp(
    pre_spikes: Any,
    pre_count: int,
    value: Any,
    post_spikes: Any,
    post_count: int,
    x: Any,
    y: Any,
    decays: Any,
    marks: Any,
    start: Any,
    post: Any,
    weight: Any,
    in_start: Any,
    in_pre: Any,
    in_synapse: Any,
    rates: Any,
    powers: Any,
    w_max: Any,
    nearest: bool,
    first: bool,
) -> None:
    """One step of pair STDP: only synapses of neurons that spiked are touched.

    It gives what `PairSTDP` gives: both changes of a synapse see the weight and the traces of
    before the step.

    Args:
        pre_spikes: int32, the sources that spiked, `pre_count` of them.
        pre_count: How many.
        value: [sources], the value of each source; empty where all are 1.
        post_spikes: int32, the targets that spiked.
        post_count: How many.
        x: [sources], the trace.
        y: [targets], the trace.
        decays: [2], what is left of the traces after a step.
        marks: [sources] and [targets], zeros; zeros again afterwards.
        start: Where each source's synapses begin.
        post: The target of each synapse.
        weight: [synapses].
        in_start: Where each target's synapses begin.
        in_pre: The source of each, by target.
        in_synapse: Where each stands in `weight`.
        rates: [2], of fall and rise, at the highest and the lowest weight.
        powers: [2], the exponents of the weight dependence of fall and rise.
        w_max: The highest weight.
        nearest: Whether only the latest spike of the other side counts.
        first: Whether this is the first step of a run, which clamps all weights.
    """
    mark_x, mark_y = marks
    zero, one = w_max * 0, w_max / w_max
    for i in range(len(x)):
        x[i] *= decays[0]
    for i in range(len(y)):
        y[i] *= decays[1]
    for k in range(pre_count):
        i = pre_spikes[k]
        mark_x[i] = value[i] if len(value) else one
    for k in range(post_count):
        mark_y[post_spikes[k]] = one
    for k in range(pre_count):
        i = pre_spikes[k]
        for j in range(start[i], start[i + 1]):
            p, w = post[j], weight[j]
            share = min(max(w / w_max, zero), one)
            change = -rates[0] * _power(share, powers[0]) * (y[p] * mark_x[i])
            if mark_y[p] != 0:
                change += rates[1] * _power(one - share, powers[1]) * (mark_y[p] * x[i])
            weight[j] = min(max(w + change, zero), w_max)
    for k in range(post_count):
        p = post_spikes[k]
        for s in range(in_start[p], in_start[p + 1]):
            i = in_pre[s]
            if mark_x[i] == 0:  # the others are done
                j = in_synapse[s]
                w = weight[j]
                share = min(max(w / w_max, zero), one)
                change = rates[1] * _power(one - share, powers[1]) * x[i]
                weight[j] = min(max(w + change, zero), w_max)
    for k in range(pre_count):
        i = pre_spikes[k]
        x[i] = (zero if nearest and mark_x[i] > 0 else x[i]) + mark_x[i]
        mark_x[i] = zero
    for k in range(post_count):
        p = post_spikes[k]
        y[p] = (zero if nearest else y[p]) + mark_y[p]
        mark_y[p] = zero
    if first:
        for j in range(len(weight)):
            weight[j] = min(max(weight[j], zero), w_max)


__all__ = ["pair_stdp"]
