"""Which plans the event engine can run."""

import ast
from typing import Any

from tenfold.spaic import equations as eq
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.learners import TraceRule
from tenfold.spaic.network.monitors import SpikeMonitor, StateMonitor
from tenfold.spaic.plan import Plan


def refusal(plan: Plan) -> str | None:
    """Says why the event engine cannot run a plan; None if it can.

    Args:
        plan: The plan.
    """
    if plan.gradients:
        return "a gradient learner trains it"
    if plan.device.type != "cpu":
        return "it runs on a CPU only"
    if plan.strategy != 0:
        return "it has the latencies of strategy 0"
    if plan.rewards:
        return "rewards read every step"
    if len(plan.order) != len(plan.groups) + len(plan.links) - len(plan.late):
        return "it has torch modules"
    if any(source.batch > 1 for source in plan.sources):
        return "its batch is larger than one"
    for con in plan.links:
        if not con.deliverable or con.bias is not None:
            return f"{con!r} is not a plain weighted link"
        if con.train_delay:
            return f"{con!r} has delays that lie between steps"
        if con.kind == "all_to_all":
            if id(con.pre) not in plan.groups or plan.ranks > 1:
                return f"{con!r} adds up more than the neurons of this process"
            if con.options.get("no_self", False):
                return f"{con!r} gives each target a sum of its own"
        elif con.pre_var_name != "O":
            if any(con is item for item in plan.late) or con.delay is not None:
                return f"{con!r} reads {con.pre_var_name} with a delay or adds it to a state"
            if id(con.pre) not in plan.groups or plan.ranks > 1:
                return f"{con!r} reads {con.pre_var_name}, not spikes"
    return _learning(plan) or _watching(plan) or _groups(plan)


def _learning(plan: Plan) -> str | None:
    seen: set[int] = set()
    for learner in plan.learners:
        kinds = {type(rule) for rule in learner.own_rules}
        kinds |= {learner.rule} if learner.rule is not None else set()
        # A rule with a step of its own is not told by its terms.
        if any(getattr(kind, "step", None) is not TraceRule.step for kind in kinds):
            return f"{learner!r}: its rule is not one of traces, which change synapses by events"
        if kinds and plan.ranks > 1:
            return f"{learner!r} changes weights, which several processes do not share"
        for con in learner.ruled():
            if con.pre_var_name != "O":
                return f"{con!r} is plastic and reads no spikes"
            if con.mask is not None or con.kind == "all_to_all":
                return f"{con!r} is plastic and has a mask or one weight for all"
            if id(con) in seen:
                return f"{con!r} has two learning rules"
            seen.add(id(con))
    return None


def _watching(plan: Plan) -> str | None:
    for node in plan.decoders:
        if id(node.dec_target) not in plan.groups or node.coding_var_name != "O":
            return f"{node!r} reads {node.coding_var_name} at every step"
    for monitor in plan.monitors:
        plain = isinstance(monitor, SpikeMonitor | StateMonitor) and not monitor.get_grad
        if not plain:
            return f"{monitor!r} is not a plain monitor"
        spikes = isinstance(monitor, SpikeMonitor)
        if spikes and (monitor.var_name != "O" or not isinstance(monitor.index, str)):
            return f"{monitor!r} records a part of the spikes"
        if (id(monitor.target), monitor.var_name) in plan.inputs_seen:
            return f"{monitor!r} records what arrives at each step"
        weights = isinstance(monitor.target, Connection) and not spikes
        if id(monitor.target) not in plan.groups and not weights:
            return f"{monitor!r} records what is neither a group nor a weight"
    return None


def _groups(plan: Plan) -> str | None:
    if len({entry.model.dtype for entry in plan.groups.values()}) != 1:
        return "its groups are not of one precision"
    for entry in plan.groups.values():
        program = (*entry.model.update, *entry.model.reset)
        if eq.calls(program) & eq.ACROSS:
            return f"{entry.group!r} sums over its neurons"
        if not all(_is_spike(line.value) for line in program if line.name == "O"):
            return f"what {entry.group!r} emits is not spikes"
    return None


def _is_spike(value: Any) -> bool:
    """Whether a value is 0 or 1 in any case; `O` itself is, if all lines that assign it are."""
    if isinstance(value, ast.Call):
        name = ast.unparse(value.func)
        spikes = name in ("spike", "spike_at")
        return spikes or (name == "where" and all(map(_is_spike, value.args[1:])))
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Mult):
        return _is_spike(value.left) and _is_spike(value.right)
    if isinstance(value, ast.Name):
        return value.id == "O"
    return isinstance(value, ast.Constant) and value.value in (0, 1)
