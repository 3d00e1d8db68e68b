"""The scan engine itself: which plans it takes, and how it runs them layer by layer."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.spaic import equations as eq
from tenfold.spaic.engines.scan.kernels import Kernel
from tenfold.spaic.engines.step import group_values
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.connections.links import DENSE
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.modules import Module
from tenfold.spaic.network.monitors import Monitor
from tenfold.spaic.plan import Plan, forward_order

Key = tuple[int, str]

_STATELESS = {
    "basic",
    "conv",
    "conv_transpose",
    "maxpool",
    "avgpool",
    "flatten",
    "directpass",
    "local",
    "upsample",
}


def on_triton(plan: Plan) -> bool:
    """Whether the loops are Triton's: with CUDA, and where Triton's interpreter is asked for.

    Args:
        plan: The plan.
    """
    return plan.device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"


def refusal(plan: Plan) -> str | None:
    """Says why this engine cannot run a plan; None if it can.

    Args:
        plan: The plan.
    """
    if plan.device.type not in ("cpu", "cuda"):
        return "its kernels run on a CPU or with CUDA"
    if on_triton(plan):
        from tenfold.spaic.engines.scan import triton_kernels

        why_not = triton_kernels.refusal(plan)
        if why_not is not None:
            return why_not
    if any(learner.rule or learner.own_rules for learner in plan.learners):
        return "a learning rule changes its weights"
    if plan.late:
        return f"{plan.late[0]!r} adds to a state"
    if plan.rewards:
        return "a reward is computed at every step"
    for con in plan.links:
        if not set(con.syn_type) <= _STATELESS:
            return f"{con!r} has a synapse model with a memory"
        if con.delay is not None:
            return f"{con!r} has delays"
        if con.stored_sparse or con.kind in ("spike2mass", "mass2spike"):
            return f"{con!r} is not a dense link"
        if con.pre is con.post:
            plain = con.deliverable and con.kind in DENSE.values()
            if not plain or plan.groups[id(con.post)].model.dtype != plan.dtype:
                return f"{con!r}, from a group to itself, is not a plain dense link"
            if (id(con.post), con.post_var_name) in plan.inputs_seen:
                return f"what {con.post!r} gives itself is read, and known within its loop only"
    for part in plan.order:
        if isinstance(part, Module):
            return f"{part!r} is called at every step"
    for source in plan.sources:
        if source.dec_target is not None:
            return f"{source!r} writes into a group at every step"
    for entry in plan.groups.values():
        found = eq.calls((*entry.model.update, *entry.model.reset))
        if found & (eq.ACROSS | eq.RANDOM):
            return f"{entry.group!r} draws numbers or sums over its neurons"
    for monitor in plan.monitors:
        if not isinstance(monitor.target, NeuronGroup) or monitor.get_grad:
            return f"{monitor!r} does not record a group"
    try:
        forward_order(plan)
    except InputError:
        return "it has a loop through several groups"
    return None


@dataclass(frozen=True)
class _Loop:
    """A link of a group to itself: a state before the step, times a weight, is added to an input.

    Attributes:
        state: The state's number in the kernel.
        input: The input's number.
    """

    state: int
    input: int


class _Scan(torch.autograd.Function):
    """One group over the whole time: inputs, starting states and values in, all states out.

    Without loops the kernel runs once over all steps. With loops it runs once a step, and matrix
    products stand between; the weights' gradient is one product over all steps.
    """

    @staticmethod
    def forward(
        ctx: Any,
        kernel: Kernel,
        fixed: dict[str, float],
        names: Sequence[str],
        loops: Sequence[_Loop],
        *given: Tensor,
    ) -> tuple[Tensor, ...]:
        count = len(kernel.inputs)
        inputs, starts = given[:count], given[count : count + len(kernel.states)]
        rest = given[count + len(kernel.states) :]
        tensors = dict(zip(names, rest[: len(names)], strict=True))
        weights = rest[len(names) :]  # of each loop: weight, bias
        steps, size = inputs[0].shape[0], inputs[0][0].numel()
        flat = [x.detach().contiguous().reshape(steps, size) for x in inputs]
        for number in {loop.input for loop in loops}:
            flat[number] = flat[number].clone()
        held = []
        for start in starts:
            made = torch.empty((steps + 1, *start.shape), dtype=start.dtype, device=start.device)
            made[0] = start
            held.append(made)
        batch = starts[0].shape[0]
        values, arrays = _values(kernel, fixed, tensors, batch)
        states = [x.reshape(steps + 1, size) for x in held]
        if not loops:
            kernel.launch(arrays, None, [*states, *flat, *values])
        for t in range(steps if loops else 0):
            for number, loop in enumerate(loops):
                into = flat[loop.input][t].view(batch, -1)
                into.addmm_(states[loop.state][t].view(batch, -1), weights[2 * number].T)
                if weights[2 * number + 1] is not None:
                    into += weights[2 * number + 1]
            kernel.launch(
                arrays,
                None,
                [*[x[t : t + 2] for x in states], *[x[t : t + 1] for x in flat], *values],
            )
        ctx.kernel, ctx.fixed, ctx.names, ctx.loops, ctx.batch = kernel, fixed, names, loops, batch
        ctx.save_for_backward(*inputs, *rest)
        ctx.held = held
        ctx.flat = flat if loops else None  # the inputs together with what the loops added
        ctx.set_materialize_grads(False)
        return tuple(x[1:] for x in held)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        kernel: Kernel = ctx.kernel
        count, loops, batch = len(kernel.inputs), ctx.loops, ctx.batch
        inputs, rest = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        tensors = dict(zip(ctx.names, rest[: len(ctx.names)], strict=True))
        weights = rest[len(ctx.names) :]
        steps, size = inputs[0].shape[0], inputs[0][0].numel()
        values, arrays = _values(kernel, ctx.fixed, tensors, batch)
        arriving = [
            (name, g) for name, g in zip(kernel.states, grads, strict=True) if g is not None
        ]
        needs = ctx.needs_input_grad[4 + count + len(kernel.states) :]
        wanted = [name for name, need in zip(ctx.names, needs, strict=False) if need]
        like = ctx.held[0]
        carried = [like.new_zeros(size) for _ in kernel.states]
        into = [like.new_empty(steps, size) for _ in inputs]
        order = [name for name in kernel.entry.model.values if name in wanted]
        sums = {name: like.new_zeros(size) for name in order}
        states = [x.reshape(steps + 1, size) for x in ctx.held]
        flat = ctx.flat or [x.detach().contiguous().reshape(steps, size) for x in inputs]
        given = [g.contiguous().reshape(steps, size) for _, g in arriving]
        backward = (frozenset(name for name, _ in arriving), frozenset(wanted))

        def launch(first: int, last: int) -> None:
            seen = [*[x[first : last + 1] for x in states], *[x[first:last] for x in flat], *values]
            seen += [g[first:last] for g in given]
            seen += [*carried, *[x[first:last] for x in into], *sums.values()]
            kernel.launch(arrays, backward, seen)

        if not loops:
            launch(0, steps)
        for t in reversed(range(steps if loops else 0)):
            launch(t, t + 1)
            for number, loop in enumerate(loops):
                back = into[loop.input][t].view(batch, -1)
                carried[loop.state].view(batch, -1).addmm_(back, weights[2 * number])
        shape = inputs[0].shape
        made: list[Any] = [x.reshape(shape) for x in into]
        made += [x.reshape(shape[1:]) for x in carried]
        for name in ctx.names:
            if name not in sums:
                made.append(None)
                continue
            total = sums[name].reshape(shape[1:])
            like = tensors[name]
            made.append(total.sum() if like.ndim == 0 else total.sum(0).reshape(like.shape))
        for loop in loops:
            back = into[loop.input].view(steps * batch, -1)
            seen = states[loop.state][:-1].view(steps * batch, -1)
            made += [back.T @ seen, back.sum(0)]
        needed = ctx.needs_input_grad[4:]
        made = [x if need else None for x, need in zip(made, needed, strict=True)]
        return (None, None, None, None, *made)


def _values(
    kernel: Kernel, fixed: dict[str, float], tensors: dict[str, Tensor], batch: int
) -> tuple[list[Any], frozenset[str]]:
    """The values in order: numbers, and arrays of one value for each neuron of each sample."""
    made: list[Any] = []
    arrays = set()
    for name in kernel.entry.model.values:
        if name in fixed:
            made.append(float(fixed[name]))
        elif tensors[name].ndim == 0:
            made.append(float(tensors[name]))
        else:
            arrays.add(name)
            made.append(tensors[name].detach().reshape(-1).repeat(batch))
    return made, frozenset(arrays)


class ScanEngine:
    """Runs a plan layer by layer, each over the whole time; a layer may be linked to itself.

    Args:
        plan: The plan.
        random: Where random numbers come from.
    """

    name = "scan"

    def __init__(self, plan: Plan, random: torch.Generator) -> None:
        self.plan, self.random = plan, random
        self.order = forward_order(plan)
        kind = Kernel
        if on_triton(plan):
            from tenfold.spaic.engines.scan.triton_kernels import TritonKernel as kind
        self.kernels = {key: kind(entry) for key, entry in plan.groups.items()}
        self.loops: dict[int, list[Connection]] = {key: [] for key in plan.groups}
        for con in plan.links:
            if con.pre is con.post:
                self.loops[id(con.post)].append(con)

    def refresh(self) -> None:
        """Computes the constants again, since parameters may have been trained."""
        plan = self.plan
        for entry in plan.groups.values():
            if entry.group.changing:
                entry.model = entry.group.compile(plan.compat, plan.dt, plan.dtype)

    def run(self, state: dict[Key, Tensor], count: int, batch: int, done: int, fresh: bool) -> None:
        """Makes steps; see `StepEngine.run`."""
        plan = self.plan
        for source in plan.sources:
            source.start(count, plan.dt, done)
        made = {id(source): source.whole(count) for source in plan.sources}
        drawing = [source for source in plan.sources if made[id(source)] is None]
        drawn: dict[int, list[Tensor]] = {id(source): [] for source in drawing}
        for k in range(count if drawing else 0):  # in the step engine's order: equal numbers
            for source in drawing:
                drawn[id(source)].append(source.emit(k))
        whole: dict[Key, Tensor] = {}  # [steps, batch, *shape]
        for source in plan.sources:
            value = made[id(source)]
            value = torch.stack(drawn[id(source)]) if value is None else value
            whole[id(source), "O"] = value.expand(count, batch, *value.shape[2:])
        with torch.set_grad_enabled(plan.gradients and torch.is_grad_enabled()):
            sums: dict[Key, Tensor] = {}
            for part in self.order:
                if isinstance(part, Connection):
                    value = self._deliver(part, whole, state)
                    key = (id(part.post), part.into)
                    sums[key] = sums[key] + value if key in sums else value
                else:
                    self._advance(part, whole, sums, state, count, batch)
        for node in plan.decoders:
            node.record, node.step = whole[id(node.dec_target), node.coding_var_name], plan.dt
        for monitor in plan.monitors:
            self._watch(monitor, whole, done)
        for key, value in whole.items():
            state[key] = value[-1]
        plan.silent -= {key for key in plan.silent if bool((whole[key, "O"] != 0).any())}

    def _deliver(
        self, con: Connection, whole: dict[Key, Tensor], state: dict[Key, Tensor]
    ) -> Tensor:
        key = (id(con.pre), con.pre_var_name)
        x = whole[key]
        if (
            self.plan.strategy == 0 or con in self.plan.lagged
        ):  # what the source was before each step
            x = torch.cat([state[key][None].to(x.dtype), x[:-1]])
        steps, batch = x.shape[:2]
        made = con.deliver(x.reshape(steps * batch, *x.shape[2:]), self.random)
        return made.reshape(steps, batch, *con.post.size)

    def _advance(
        self,
        group: NeuronGroup,
        whole: dict[Key, Tensor],
        sums: dict[Key, Tensor],
        state: dict[Key, Tensor],
        count: int,
        batch: int,
    ) -> None:
        kernel, key = self.kernels[id(group)], id(group)
        model = kernel.entry.model
        shape = (count, batch, *group.size)
        inputs = [
            sums[key, name].to(model.dtype)
            if (key, name) in sums
            else torch.zeros(shape, dtype=model.dtype, device=self.plan.device)
            for name in model.inputs
        ]
        for name, value in zip(model.inputs, inputs, strict=True):
            if (key, name) in self.plan.inputs_seen:
                whole[key, name] = value
        starts = [state[key, name] for name in model.states]
        values = group_values(kernel.entry, self.plan.device)
        fixed = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        given: list[Any] = [*inputs, *starts, *tensors.values()]
        loops = []
        for con in self.loops[key]:
            state_number = model.states.index(con.pre_var_name)
            loops.append(_Loop(state_number, model.inputs.index(con.post_var_name)))
            given += [con.weight, con.bias]
        made = _Scan.apply(kernel, fixed, list(tensors), loops, *given)
        for name, value in zip(model.states, made, strict=True):
            whole[key, name] = value
        for name in model.inputs:
            sums.pop((key, name), None)

    def _watch(self, monitor: Monitor, whole: dict[Key, Tensor], done: int) -> None:
        for k, value in enumerate(whole[id(monitor.target), monitor.var_name]):
            if monitor.is_due(done + k + 1, self.plan.dt):
                monitor.take(value, (done + k + 1) * self.plan.dt)
