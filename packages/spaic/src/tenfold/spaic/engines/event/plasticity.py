"""Rules of traces in the event engine's loop: only synapses of neurons that spiked are touched."""

import ast
from typing import Any

import numpy as np

from tenfold.spaic import equations as eq
from tenfold.spaic.engines.event.code import Code
from tenfold.spaic.network.learners import TraceRule

_ARGUMENTS = (
    "pre_spikes, pre_count, value, post_spikes, post_count, xs, ys, marks, start, post, weight, "
    "in_start, in_pre, in_synapse, first"
)
"""pre_spikes, post_spikes: int32, who spiked, so many of them; value: of each source, empty where
all are 1; xs, ys: an array a trace; marks: [sources], [targets], zeros between steps; start: where
each source's synapses begin; in_start: where each target's begin in in_pre, their sources, and in
in_synapse, their places in `weight`; first: whether this is the first step of a run."""


def learning_function(code: Code, rule: TraceRule) -> str:
    """Writes one step of a rule as a function, and gives its name.

    It does what `TraceRule.step` does: both changes of a synapse see the weight and the traces of
    before the step.

    Args:
        code: The text.
        rule: The rule.
    """
    dt, number = code.plan.dt, code.literal
    places = {name: f"x_{name}[i]" for name in rule.pre_traces}
    places |= {name: f"y_{name}[p]" for name in rule.post_traces}
    terms = {"pre": "", "post": ""}
    for term in rule.terms():
        parts = (term.gain, term.post, term.pre)
        terms[term.at] += " + " + " * ".join(_scalar(code, rule, x, places) for x in parts)
    at_pre, at_post = ((terms[side] or number(0.0)).removeprefix(" + ") for side in ("pre", "post"))
    low, high = rule.bounds()
    kept = "w + change"
    kept = kept if low is None else f"max({kept}, {number(low)})"
    kept = kept if high is None else f"min({kept}, {number(high)})"
    zero, one = number(0.0), number(1.0)
    sides = [("x", "i", name, k) for k, name in enumerate(rule.pre_traces)]
    sides += [("y", "p", name, k) for k, name in enumerate(rule.post_traces)]
    body = ["    mark_x, mark_y = marks"]
    body += [f"    {side}_{name} = {side}s[{k}]" for side, _, name, k in sides]
    for side, at, name, _ in sides:
        body += [f"    for {at} in range(len(mark_{side})):"]
        body += [f"        {side}_{name}[{at}] *= {number(rule.decay(name, dt))}"]
    body += [
        "    for k in range(pre_count):",
        "        i = pre_spikes[k]",
        f"        mark_x[i] = value[i] if len(value) else {one}",
        "    for k in range(post_count):",
        f"        mark_y[post_spikes[k]] = {one}",
        "    for k in range(pre_count):",
        "        i = pre_spikes[k]",
        "        for j in range(start[i], start[i + 1]):",
        "            p, w = post[j], weight[j]",
        f"            change = mark_x[i] * ({at_pre})",
        f"            if mark_y[p] != {zero}:",
        f"                change += mark_y[p] * ({at_post})",
        f"            weight[j] = {kept}",
        "    for k in range(post_count):",
        "        p = post_spikes[k]",
        "        for s in range(in_start[p], in_start[p + 1]):",
        "            i = in_pre[s]",
        f"            if mark_x[i] == {zero}:",  # the others are done
        "                j = in_synapse[s]",
        "                w = weight[j]",
        f"                change = mark_y[p] * ({at_post})",
        f"                weight[j] = {kept}",
    ]
    for side, at, spikes in (("x", "i", "pre"), ("y", "p", "post")):
        body += [f"    for k in range({spikes}_count):", f"        {at} = {spikes}_spikes[k]"]
        for name in rule.pre_traces if side == "x" else rule.post_traces:
            old = zero if rule.nearest else f"{side}_{name}[{at}]"
            body += [f"        {side}_{name}[{at}] = {old} + mark_{side}[{at}]"]
        body += [f"        mark_{side}[{at}] = {zero}"]
    if low is not None or high is not None:  # of the step engine every step clamps all weights
        body += ["    if first:", "        for j in range(len(weight)):"]
        body += [f"            w, change = weight[j], {zero}", f"            weight[j] = {kept}"]
    return code.function("learn", _ARGUMENTS, body)


def _scalar(code: Code, rule: TraceRule, text: str, places: dict[str, str]) -> str:
    """A text of a term for one synapse."""
    (line,) = eq.scalar_lines((eq.Statement("g", rule.expression(text)),), code.literal)
    tree = ast.parse(line.partition(" = ")[2], mode="eval").body
    held = {name: ast.parse(place, mode="eval").body for name, place in places.items()}
    return f"({ast.unparse(eq.renamed(tree, held))})"


def learning_arguments(
    rule: TraceRule, pre: np.ndarray, post: np.ndarray, dtype: Any
) -> dict[str, Any]:
    """What a rule keeps and looks up in the loop; see `_ARGUMENTS`.

    Args:
        rule: The rule.
        pre: The sources of the synapses.
        post: The targets of the synapses.
        dtype: The precision.
    """
    n, m = rule.con.pre.num, rule.con.post.num
    by_target = np.lexsort((pre, post))
    begins = np.zeros(m + 1, dtype=np.int64)
    np.cumsum(np.bincount(post, minlength=m), out=begins[1:])
    none = (np.zeros(0, dtype=dtype),)
    return {
        "xs": tuple(np.zeros(n, dtype=dtype) for _ in rule.pre_traces) or none,
        "ys": tuple(np.zeros(m, dtype=dtype) for _ in rule.post_traces) or none,
        "marks": (np.zeros(n, dtype=dtype), np.zeros(m, dtype=dtype)),
        "in_start": begins,
        "in_pre": pre[by_target].astype(np.int32),
        "in_synapse": by_target,
    }
