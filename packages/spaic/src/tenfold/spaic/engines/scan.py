"""The scan engine: a feed-forward network, each layer over the whole time at once.

A link is one product over all steps. A group is one compiled loop over time whose backward pass
is its adjoint: the equations are written as elementary operations, and the reverse of each is
written out in turn, so that every model, also one of the user's own, has the fused kernel. For a
LIF neuron this is the adjoint recurrence of section 23.3 of the method card.
"""

import ast
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.spaic import equations as eq
from tenfold.spaic.engines.compiled import compiled
from tenfold.spaic.engines.step import group_values
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.learners import Surrogate
from tenfold.spaic.network.modules import Module
from tenfold.spaic.network.monitors import Monitor
from tenfold.spaic.plan import GroupPlan, Plan, forward_order

Key = tuple[int, str]

_STATELESS = {
    "basic",
    "conv",
    "conv_transpose",
    "maxpool",
    "avgpool",
    "flatten",
    "directpass",
    "upsample",
}


def refusal(plan: Plan) -> str | None:
    """Says why this engine cannot run a plan; None if it can.

    Args:
        plan: The plan.
    """
    if plan.device.type != "cpu":
        return "its kernels run on a CPU"
    if any(learner.rule for learner in plan.learners):
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
        return "it has a loop"
    return None


# ----------------------------------------------------------------- elementary operations, reversed

_BINARY = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_TEST = {ast.Gt: ">", ast.Lt: "<", ast.GtE: ">=", ast.LtE: "<=", ast.Eq: "=="}


@dataclass(frozen=True)
class _Op:
    out: str
    kind: str
    args: tuple[str, ...]


class Tape:
    """A program as elementary operations, each name assigned once.

    Args:
        program: The statements.
        leaves: The names that the program reads, with the variable that holds each.
        literal: Names constants.
        surrogate: What stands in for the derivative of a spike, or None.
    """

    def __init__(
        self,
        program: eq.Program,
        leaves: dict[str, str],
        literal: eq.Literals,
        surrogate: Surrogate | None,
    ) -> None:
        self.literal, self.surrogate = literal, surrogate
        self.ops: list[_Op] = []
        self.now = dict(leaves)
        self.logical: set[str] = set()
        for line in program:
            self.now[line.name] = self._walk(line.value)

    def _emit(self, kind: str, *args: str) -> str:
        out = f"v{len(self.ops)}"
        self.ops.append(_Op(out, kind, args))
        return out

    def _walk(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return self.now[node.id]
        if isinstance(node, ast.Constant):
            return self.literal(float(node.value))  # type: ignore[arg-type]
        if isinstance(node, ast.UnaryOp):
            return self._emit("neg", self._walk(node.operand))
        if isinstance(node, ast.Compare):
            left, right = self._walk(node.left), self._walk(node.comparators[0])
            out = self._emit(_TEST[type(node.ops[0])], left, right)
            self.logical.add(out)
            return out
        if isinstance(node, ast.BinOp):
            left = self._walk(node.left)
            if isinstance(node.op, ast.Pow):
                power = node.right
                if isinstance(power, ast.Constant) and power.value in (2, 3, 4):
                    made = left
                    for _ in range(int(power.value) - 1):  # type: ignore[arg-type]
                        made = self._emit("*", made, left)
                    return made
                return self._emit("pow", left, self._walk(power))
            right = self._walk(node.right)
            if isinstance(node.op, ast.BitAnd | ast.BitOr):
                out = self._emit("&" if isinstance(node.op, ast.BitAnd) else "|", left, right)
                self.logical.add(out)
                return out
            return self._emit(_BINARY[type(node.op)], left, right)
        assert isinstance(node, ast.Call)
        assert isinstance(node.func, ast.Name)
        return self._emit(node.func.id, *map(self._walk, node.args))

    def forward(self) -> list[str]:
        """The lines that compute the program."""
        zero, one = self.literal(0.0), self.literal(1.0)
        lines = []
        for op in self.ops:
            a = op.args
            if op.kind in ("+", "-", "*", "/", "&", "|", ">", "<", ">=", "<=", "=="):
                text = f"{a[0]} {op.kind} {a[1]}"
            elif op.kind == "neg":
                text = f"-{a[0]}"
            elif op.kind == "pow":
                text = f"{a[0]} ** {a[1]}"
            elif op.kind == "where":
                text = f"{a[1]} if {a[0]} else {a[2]}"
            elif op.kind == "detach":
                text = a[0]
            elif op.kind == "spike":
                test = ">=" if self.surrogate is not None and self.surrogate.at_zero else ">"
                text = f"{one} if {a[0]} {test} {zero} else {zero}"
            else:
                text = f"f_{op.kind}({', '.join(a)})"
            lines.append(f"{op.out} = {text}")
        return lines

    def active(self, roots: set[str]) -> set[str]:
        """The variables through which a gradient flows to the roots.

        Args:
            roots: Leaves whose gradients are wanted.
        """
        found = set(roots)
        stops = {"detach", "floor", "round"} | set(_TEST.values()) | {"&", "|"}
        for op in self.ops:
            if op.kind in stops or (op.kind == "spike" and self.surrogate is None):
                continue
            if found & set(op.args):
                found.add(op.out)
        return found

    def backward(self, seeds: dict[str, str], roots: set[str]) -> list[str]:
        """The lines that compute the gradients; that of a variable v is d_v.

        Args:
            seeds: Variable → the expression of the gradient that arrives at it.
            roots: Leaves whose gradients are wanted.
        """
        on = self.active(roots)
        zero = self.literal(0.0)
        lines = [f"d_{name} = {zero}" for name in sorted(on)]
        lines += [f"d_{name} += {text}" for name, text in seeds.items() if name in on]
        for op in reversed(self.ops):
            if op.out not in on:
                continue
            d = f"d_{op.out}"
            for name, text in self._reverse(op, d):
                if name in on:
                    lines.append(f"d_{name} += {text}")
        return lines

    def _reverse(self, op: _Op, d: str) -> list[tuple[str, str]]:
        a, out = op.args, op.out
        zero, one = self.literal(0.0), self.literal(1.0)
        kind = op.kind
        if kind == "+":
            return [(a[0], d), (a[1], d)]
        if kind == "-":
            return [(a[0], d), (a[1], f"-{d}")]
        if kind == "*":
            return [(a[0], f"{d} * {a[1]}"), (a[1], f"{d} * {a[0]}")]
        if kind == "/":
            return [(a[0], f"{d} / {a[1]}"), (a[1], f"-{d} * {out} / {a[1]}")]
        if kind == "neg":
            return [(a[0], f"-{d}")]
        if kind == "pow":
            return [
                (a[0], f"{d} * {a[1]} * {a[0]} ** ({a[1]} - {one})"),
                (a[1], f"{d} * {out} * f_log({a[0]})"),
            ]
        if kind == "where":
            return [
                (a[1], f"({d} if {a[0]} else {zero})"),
                (a[2], f"({zero} if {a[0]} else {d})"),
            ]
        if kind in ("maximum", "minimum"):
            test = ">" if kind == "maximum" else "<"
            return [
                (a[0], f"({d} if {a[0]} {test} {a[1]} else {zero})"),
                (a[1], f"({zero} if {a[0]} {test} {a[1]} else {d})"),
            ]
        if kind == "clip":
            return [(a[0], f"({d} if ({a[0]} >= {a[1]}) & ({a[0]} <= {a[2]}) else {zero})")]
        if kind == "spike":
            return [(a[0], f"{d} * ({self._slope(a[0])})")]
        half = self.literal(0.5)
        rules = {
            "exp": f"{d} * {out}",
            "log": f"{d} / {a[0]}",
            "sqrt": f"{d} * {half} / {out}",
            "tanh": f"{d} * ({one} - {out} * {out})",
            "sigmoid": f"{d} * {out} * ({one} - {out})",
            "relu": f"({d} if {a[0]} > {zero} else {zero})",
            "abs": f"({d} if {a[0]} > {zero} else -{d})",
            "sin": f"{d} * f_cos({a[0]})",
            "cos": f"-{d} * f_sin({a[0]})",
            "exprel": f"{d} * f_exprel_slope({a[0]})",
        }
        return [(a[0], rules[kind])]

    def _slope(self, u: str) -> str:
        surrogate: Surrogate = self.surrogate  # type: ignore[assignment]
        fixed: dict[str, ast.expr] = {
            "alpha": ast.Constant(float(surrogate.alpha)),
            "pi": ast.Constant(math.pi),
        }
        node = eq.renamed(eq.expression(surrogate.text), fixed)
        (line,) = eq.scalar_lines((eq.Statement("g", node),), self.literal)
        tree = ast.parse(line.partition(" = ")[2], mode="eval").body
        return ast.unparse(eq.renamed(tree, {"u": ast.Name(u, ast.Load())}))


# ------------------------------------------------------------------------------------------ kernels

_CACHE: dict[Any, Any] = {}


class Kernel:
    """The compiled loops of one group.

    Args:
        entry: The group.
    """

    def __init__(self, entry: GroupPlan) -> None:
        model = entry.model
        self.entry, self.states, self.inputs = entry, model.states, model.inputs
        reset = tuple(
            eq.Statement(
                line.name,
                eq.renamed(
                    eq.expression(f"where(O > 0, new_value, {line.name})"),
                    {"new_value": line.value},
                ),
            )
            for line in model.reset
        )
        self.program = (*model.update, *reset)
        self.dtype = torch.empty((), dtype=model.dtype).numpy().dtype

    def function(
        self, arrays: frozenset[str], backward: tuple[frozenset[str], frozenset[str]] | None
    ) -> Any:
        """Gives the compiled loop.

        Args:
            arrays: The values that are one a neuron instead of one number.
            backward: None for the forward loop; else the states whose gradients arrive, and the
                values whose gradients are wanted.
        """
        surrogate = self.entry.surrogate
        key = (
            "\n".join(map(str, self.program)),
            self.states,
            self.inputs,
            tuple(self.entry.model.values),
            self.dtype.str,
            arrays,
            backward,
            surrogate,
        )
        if key not in _CACHE:
            _CACHE[key] = self._compile(arrays, backward)
        return _CACHE[key]

    def _compile(
        self, arrays: frozenset[str], backward: tuple[frozenset[str], frozenset[str]] | None
    ) -> Any:
        literal = eq.Literals(self.dtype)
        values = list(self.entry.model.values)
        leaves = {name: f"s_{name}" for name in self.states}
        leaves |= {name: f"i_{name}" for name in self.inputs}
        leaves |= {name: f"p_{name}" for name in values}
        tape = Tape(self.program, leaves, literal, self.entry.surrogate)
        load = [f"s_{name} = S_{name}[t, m]" for name in self.states]
        load += [f"i_{name} = I_{name}[t, m]" for name in self.inputs]
        load += [f"p_{name} = P_{name}[m]" for name in values if name in arrays]
        given = [f"S_{name}" for name in self.states] + [f"I_{name}" for name in self.inputs]
        given += [f"P_{name}" if name in arrays else f"p_{name}" for name in values]
        lines = [f"def loop({', '.join(given)}"]
        if backward is None:
            lines[0] += "):"
            lines += ["    T, M = I_" + self.inputs[0] + ".shape"]
            lines += ["    for t in range(T):", "        for m in range(M):"]
            lines += ["            " + line for line in [*load, *tape.forward()]]
            for name in self.states:
                lines.append(f"            S_{name}[t + 1, m] = {tape.now[name]}")
        else:
            arriving, wanted = backward
            extra = [f"G_{name}" for name in self.states if name in arriving]
            extra += [f"C_{name}" for name in self.states]
            extra += [f"DI_{name}" for name in self.inputs]
            extra += [f"DP_{name}" for name in values if name in wanted]
            lines[0] += ", " + ", ".join(extra) + "):"
            lines += ["    T, M = I_" + self.inputs[0] + ".shape"]
            lines += ["    for back in range(T):", "        t = T - 1 - back"]
            lines += ["        for m in range(M):"]
            seeds: dict[str, str] = {}
            for name in self.states:
                text = f"C_{name}[m]" + (f" + G_{name}[t, m]" if name in arriving else "")
                held = tape.now[name]
                seeds[held] = f"{seeds[held]} + {text}" if held in seeds else text
            roots = {leaves[name] for name in (*self.states, *self.inputs, *wanted)}
            body = [*load, *tape.forward(), *tape.backward(seeds, roots)]
            body += [f"C_{name}[m] = d_s_{name}" for name in self.states]
            body += [f"DI_{name}[t, m] = d_i_{name}" for name in self.inputs]
            body += [f"DP_{name}[m] += d_p_{name}" for name in values if name in wanted]
            lines += ["            " + line for line in body]
        return compiled("@njit\n" + "\n".join(lines) + "\n", literal.scope)


class _Scan(torch.autograd.Function):
    """One group over the whole time: inputs, starting states and values in, all states out."""

    @staticmethod
    def forward(
        ctx: Any, kernel: Kernel, fixed: dict[str, float], names: Sequence[str], *given: Tensor
    ) -> tuple[Tensor, ...]:
        count = len(kernel.inputs)
        inputs, starts = given[:count], given[count : count + len(kernel.states)]
        tensors = dict(zip(names, given[count + len(kernel.states) :], strict=True))
        steps, size = inputs[0].shape[0], inputs[0][0].numel()
        flat = [x.detach().contiguous().reshape(steps, size).numpy() for x in inputs]
        held = []
        for start in starts:
            made = torch.empty((steps + 1, *start.shape), dtype=start.dtype)
            made[0] = start
            held.append(made)
        batch = starts[0].shape[0]
        values, arrays = _values(kernel, fixed, tensors, batch)
        loop = kernel.function(arrays, None)
        loop(*[x.reshape(steps + 1, size).numpy() for x in held], *flat, *values)
        ctx.kernel, ctx.fixed, ctx.names, ctx.batch = kernel, fixed, names, batch
        ctx.save_for_backward(*inputs, *tensors.values())
        ctx.held = held
        ctx.set_materialize_grads(False)
        return tuple(x[1:] for x in held)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        kernel: Kernel = ctx.kernel
        count = len(kernel.inputs)
        inputs = ctx.saved_tensors[:count]
        tensors = dict(zip(ctx.names, ctx.saved_tensors[count:], strict=True))
        steps, size = inputs[0].shape[0], inputs[0][0].numel()
        values, arrays = _values(kernel, ctx.fixed, tensors, ctx.batch)
        arriving = [
            (name, g) for name, g in zip(kernel.states, grads, strict=True) if g is not None
        ]
        needs = ctx.needs_input_grad[3 + count + len(kernel.states) :]
        wanted = [name for name, need in zip(ctx.names, needs, strict=True) if need]
        loop = kernel.function(arrays, (frozenset(name for name, _ in arriving), frozenset(wanted)))
        carried = [np.zeros(size, dtype=kernel.dtype) for _ in kernel.states]
        into = [np.empty((steps, size), dtype=kernel.dtype) for _ in inputs]
        order = [name for name in kernel.entry.model.values if name in wanted]
        sums = {name: np.zeros(size, dtype=kernel.dtype) for name in order}
        loop(
            *[x.reshape(steps + 1, size).numpy() for x in ctx.held],
            *[x.detach().contiguous().reshape(steps, size).numpy() for x in inputs],
            *values,
            *[g.contiguous().reshape(steps, size).numpy() for _, g in arriving],
            *carried,
            *into,
            *sums.values(),
        )
        shape = inputs[0].shape
        made: list[Any] = [torch.from_numpy(x).reshape(shape) for x in into]
        made += [torch.from_numpy(x).reshape(shape[1:]) for x in carried]
        for name in ctx.names:
            if name not in sums:
                made.append(None)
                continue
            total = torch.from_numpy(sums[name]).reshape(shape[1:])
            like = tensors[name]
            made.append(total.sum() if like.ndim == 0 else total.sum(0).reshape(like.shape))
        return (None, None, None, *made)


def _values(
    kernel: Kernel, fixed: dict[str, float], tensors: dict[str, Tensor], batch: int
) -> tuple[list[Any], frozenset[str]]:
    """The values in order: numbers, and arrays of one value for each neuron of each sample."""
    made: list[Any] = []
    arrays = set()
    for name in kernel.entry.model.values:
        if name in fixed:
            made.append(kernel.dtype.type(fixed[name]))
        elif tensors[name].ndim == 0:
            made.append(kernel.dtype.type(tensors[name].item()))
        else:
            arrays.add(name)
            made.append(np.tile(tensors[name].detach().numpy().reshape(-1), batch))
    return made, frozenset(arrays)


# ------------------------------------------------------------------------------------------- engine


class ScanEngine:
    """Runs a feed-forward plan layer by layer, each over the whole time.

    Args:
        plan: The plan.
        random: Where random numbers come from.
    """

    name = "scan"

    def __init__(self, plan: Plan, random: torch.Generator) -> None:
        self.plan, self.random = plan, random
        self.order = forward_order(plan)
        self.kernels = {key: Kernel(entry) for key, entry in plan.groups.items()}

    def refresh(self) -> None:
        """Computes the constants again, since parameters may have been trained."""
        plan = self.plan
        for entry in plan.groups.values():
            if entry.group.trainables or entry.group.varible_ranges:
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
                    key = (id(part.post), part.post_var_name)
                    sums[key] = sums[key] + value if key in sums else value
                else:
                    self._advance(part, whole, sums, state, count, batch)
        for node in plan.decoders:
            node.record, node.step = whole[id(node.dec_target), node.coding_var_name], plan.dt
        for monitor in plan.monitors:
            self._watch(monitor, whole, done)
        for key, value in whole.items():
            state[key] = value[-1]

    def _deliver(
        self, con: Connection, whole: dict[Key, Tensor], state: dict[Key, Tensor]
    ) -> Tensor:
        key = (id(con.pre), con.pre_var_name)
        x = whole[key]
        if self.plan.strategy == 0:  # what the source was before each step
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
            else torch.zeros(shape, dtype=model.dtype)
            for name in model.inputs
        ]
        starts = [state[key, name] for name in model.states]
        values = group_values(kernel.entry, self.plan.device)
        fixed = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        made = _Scan.apply(kernel, fixed, list(tensors), *inputs, *starts, *tensors.values())
        for name, value in zip(model.states, made, strict=True):
            whole[key, name] = value
        for name in model.inputs:
            sums.pop((key, name), None)

    def _watch(self, monitor: Monitor, whole: dict[Key, Tensor], done: int) -> None:
        key = (id(monitor.target), monitor.var_name)
        if key not in whole:
            known = [name for found, name in whole if found == key[0]]
            raise InputError(
                f"{monitor!r}: {monitor.target!r} has no variable {monitor.var_name!r}; it has "
                f"{', '.join(known)}"
            )
        for k, value in enumerate(whole[key]):
            if monitor.is_due(done + k + 1, self.plan.dt):
                monitor.take(value, (done + k + 1) * self.plan.dt)
