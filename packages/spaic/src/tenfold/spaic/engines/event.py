"""The event engine: simulation of circuits by spikes, one compiled loop for the whole network.

For each step: sources draw, groups advance (their equations, written out for numba), spikes are
delivered along an out-adjacency sorted by source, neurons that spiked reset. A link with one
delay for all synapses reads the list of spikes of that many steps ago; with a delay for each
synapse it adds into a ring of future sums of its target.
"""

import ast
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.spaic import equations as eq
from tenfold.spaic.engines.compiled import compiled
from tenfold.spaic.engines.step import watched
from tenfold.spaic.model.neurons import CompiledModel
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.monitors import SpikeMonitor, StateMonitor
from tenfold.spaic.network.nodes import Encoder, Generator
from tenfold.spaic.plan import GroupPlan, Plan

Key = tuple[int, str]


def refusal(plan: Plan) -> str | None:
    """Says why this engine cannot run a plan; None if it can.

    Args:
        plan: The plan.
    """
    if plan.gradients:
        return "a gradient learner trains it"
    if any(learner.rule for learner in plan.learners):
        return "a learning rule changes its weights"
    if plan.device.type != "cpu":
        return "it runs on a CPU only"
    if plan.strategy != 0:
        return "it has the latencies of strategy 0"
    if plan.decoders or plan.rewards:
        return "decoders and rewards read every step"
    if len(plan.order) != len(plan.groups) + len(plan.links) - len(plan.late):
        return "it has torch modules"
    for source in plan.sources:
        known = ("poisson", "poisson_generator", "constant_current", "cc_generator")
        if not isinstance(source, Generator) or source.coding_method not in known:
            return f"{source!r} is not a Poisson or constant generator"
        if source.source is not None and len(source.source) > 1:
            return "its batch is larger than one"
    for con in plan.links:
        if not con.deliverable or con.bias is not None:
            return f"{con!r} is not a plain weighted link"
        graded = con.pre_var_name != "O"
        if graded and (con in plan.late or con.delay is not None or id(con.pre) not in plan.groups):
            return f"{con!r} reads {con.pre_var_name} with a delay or adds it to a state"
    for monitor in plan.monitors:
        if not isinstance(monitor, SpikeMonitor | StateMonitor) or monitor.get_grad:
            return f"{monitor!r} is not a plain monitor"
        if isinstance(monitor, SpikeMonitor) and (
            monitor.var_name != "O" or not isinstance(monitor.index, str)
        ):
            return f"{monitor!r} records a part of the spikes"
    for entry in plan.groups.values():
        program = (*entry.model.update, *entry.model.reset)
        if eq.calls(program) & eq.ACROSS:
            return f"{entry.group!r} sums over its neurons"
        spikes = [line.value for line in program if line.name == "O"]
        if not all(
            isinstance(v, ast.Call) and ast.unparse(v.func) in ("spike", "where") for v in spikes
        ):
            return f"what {entry.group!r} emits is not spikes"
    return None


@dataclass
class _Code:
    """The text of the compiled loop and what it works on.

    Attributes:
        literal: Names constants.
        arguments: Argument of the loop → array, number, or tuple of these.
        functions: Text of a group's equations → the name of the function that holds it; groups
            with equal equations share one.
        lines: The body of the loop over time.
    """

    literal: eq.Literals
    arguments: dict[str, Any] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def argument(self, name: str, value: Any) -> str:
        self.arguments[name] = value
        return name

    def add(self, indent: int, *lines: str) -> None:
        self.lines += ["    " * indent + line for line in lines]

    def function(self, kind: str, arguments: str, body: list[str]) -> str:
        text = "\n".join([f"({arguments}):", *body])
        return self.functions.setdefault(text, f"{kind}_{len(self.functions)}")


@dataclass
class _Group:
    """What the loop holds of one group: arrays of states, sums of inputs, spikes of late steps."""

    entry: GroupPlan
    states: tuple[np.ndarray, ...]
    inputs: tuple[np.ndarray, ...]
    spikes: np.ndarray
    counts: np.ndarray


FEW_LINKS = 16
"""Up to this many links are written out one by one; more share one ring, to compile quickly."""


class EventEngine:
    """Runs a plan by spikes.

    Args:
        plan: The plan.
        random: Seeds the loop's own generator.
    """

    name = "event"

    def __init__(self, plan: Plan, random: torch.Generator) -> None:
        self.plan = plan
        # From the seed, not from the state: starting values do not depend on the engine.
        self.random = np.random.default_rng(random.initial_seed())
        self._ready = False

    def refresh(self) -> None:
        """Compiles again before the next run, with the weights and parameters of then."""
        self._ready = False

    # ----------------------------------------------------------------------------------- compiling

    def _prepare(self, state: dict[Key, Tensor]) -> None:
        """Writes the loop; it is compiled only if its text is new."""
        plan = self.plan
        precisions = {entry.model.dtype for entry in plan.groups.values()}
        if len(precisions) > 1:
            raise InputError("engine 'event' needs groups of one precision; take 'step'")
        self.dtype = torch.empty((), dtype=precisions.pop()).numpy().dtype
        # An early link sees the spikes of the step before: one slot more than the longest delay.
        longest = max((int(self._steps(con).max(initial=0)) for con in plan.links), default=0)
        self.slots = longest + 2
        self.groups: dict[int, _Group] = {}
        code = _Code(eq.Literals(self.dtype))
        for number, (key, entry) in enumerate(plan.groups.items()):
            n, model = entry.group.num, entry.model
            group = _Group(
                entry,
                tuple(
                    np.ascontiguousarray(
                        state[key, name].reshape(-1).numpy(), dtype=self.dtype
                    ).copy()
                    for name in model.states
                ),
                tuple(np.zeros(n, dtype=self.dtype) for _ in model.inputs),
                np.zeros((self.slots, n), dtype=np.int32),
                np.zeros(self.slots, dtype=np.int64),
            )
            self.groups[key] = group
            values = tuple(self._value(value) for value in model.values.values())
            code.argument(f"states_{number}", group.states)
            code.argument(f"inputs_{number}", group.inputs or (np.zeros(0, dtype=self.dtype),))
            code.argument(f"values_{number}", values or (0.0,))
            code.argument(f"spikes_{number}", group.spikes)
            code.argument(f"counts_{number}", group.counts)
            if self._watches(entry):
                code.argument(f"seen_{number}", np.zeros(1, dtype=np.int64))
                code.argument(f"who_{number}", np.zeros(0, dtype=np.int32))
                code.argument(f"when_{number}", np.zeros(0, dtype=np.int32))
        for number, source in enumerate(plan.sources):
            self._write_source(code, number, source)
        self._write_links(code, "early", [con for con in plan.links if con not in plan.late])
        for number, group in enumerate(self.groups.values()):
            self._write_group(code, number, group)
        self._write_links(code, "late", plan.late)
        for number, group in enumerate(self.groups.values()):
            self._write_reset(code, number, group)
        for number, group in enumerate(self.groups.values()):
            if self._watches(group.entry):  # stop early when a record is nearly full
                code.add(2, f"if seen_{number}[0] + {group.entry.group.num} > len(who_{number}):")
                code.add(3, "return t + 1")
        text = []
        for body, name in code.functions.items():
            text += ["@njit", f"def {name}{body}"]
        text += [
            "@njit",
            f"def loop({', '.join(code.arguments)}, start, end, random):",
            "    for t in range(start, end):",
            f"        now = t % {self.slots}",
            *code.lines,
            "    return end",
        ]
        self._loop = compiled("\n".join(text), code.literal.scope)
        self._arguments, self._ready = code.arguments, True

    def _value(self, value: Any) -> Any:
        value = value.detach().numpy() if isinstance(value, Tensor) else value
        value = np.asarray(value, dtype=self.dtype).reshape(-1)
        return value if value.size > 1 else value[0]

    def _watches(self, entry: GroupPlan) -> bool:
        return any(
            isinstance(m, SpikeMonitor) and m.target is entry.group and m.on
            for m in self.plan.monitors
        )

    def _steps(self, con: Connection) -> np.ndarray:
        return np.atleast_1d(con.delay_steps(self.plan.dt, self.plan.compat))

    def _number(self, part: Any) -> int:
        return list(self.plan.groups).index(id(part))

    def _write_source(self, code: _Code, number: int, source: Encoder) -> None:
        plan, n = self.plan, source.num
        value = source.source.reshape(-1).numpy()
        rate = code.argument(f"rate_{number}", np.ascontiguousarray(value, dtype=np.float64))
        out = code.argument(f"out_{number}", np.zeros((2, n), dtype=self.dtype))
        first, last = float(source.option("start_time")), float(source.option("end_time"))
        code.add(2, f"for i in range({n}):", f"    {out}[t % 2, i] = 0")
        code.add(2, f"if {first - 1e-9!r} <= t * {plan.dt!r} < {min(last, 1e300) - 1e-9!r}:")
        if source.coding_method == "poisson":
            weight = float(source.option("weight"))
            draw = f"{weight!r} * random.poisson({rate}[i] * {plan.dt!r})"
        elif source.coding_method == "poisson_generator":
            weight, unit = (float(source.option(k)) for k in ("weight", "unit_conversion"))
            draw = f"({weight!r} if random.random() < {rate}[i] * {unit!r} else 0.0)"
        else:
            draw = f"{rate}[i]"
        code.add(3, f"for i in range({n}):", f"    {out}[t % 2, i] = {draw}")
        if source.dec_target is not None:
            name = "Isyn" if source.coding_var_name == "O" else source.coding_var_name
            into = self._into(source.dec_target, name)
            code.add(2, f"for i in range({n}):", f"    {into}[i] += {out}[t % 2, i]")

    def _write_links(self, code: _Code, when: str, links: list[Connection]) -> None:
        """Links of one delay read the spikes of so many steps ago; all others share one ring."""
        base = 0 if when == "late" else 1  # the age of the newest spikes that they see, in steps
        later: list[tuple[Connection, np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        many = len(links) > FEW_LINKS
        for con in links:
            pre, post, weight, steps = self._synapses(con)
            source = next((k for k, s in enumerate(self.plan.sources) if s is con.pre), None)
            if con.pre_var_name != "O" and source is None:
                self._write_graded_link(code, con, pre, post, weight)
            elif source is not None:
                if steps.max(initial=0) > 0:
                    raise InputError(
                        f"{con!r}: engine 'event' has no delay after a source; take 'step'"
                    )
                self._write_source_link(code, con, pre, post, weight, source, base)
            elif len(pre) and (many or steps.min() != steps.max()):
                later.append((con, pre, post, weight, np.broadcast_to(steps, pre.shape)))
            elif len(pre):
                order = np.lexsort((post, pre))
                same = bool((weight == weight[0]).all())
                number, source_group = self.plan.links.index(con), self._number(con.pre)
                code.argument(f"start_{number}", _starts(pre, con.pre.num))
                code.argument(f"post_{number}", post[order].astype(np.int32))
                held = weight[0] if same else np.ascontiguousarray(weight[order])
                code.argument(f"weight_{number}", held)
                age = int(steps.flat[0]) + base
                seen = f"spikes_{source_group}[past], counts_{source_group}[past]"
                synapses = f"start_{number}, post_{number}, weight_{number}"
                code.add(2, f"if t >= {age}:", f"    past = (t - {age}) % {self.slots}")
                how = "deliver_same" if same else "deliver"
                code.add(3, f"{how}({seen}, {synapses}, {self._into(con.post, con.post_var_name)})")
        if later:
            self._write_ring(code, when, base, later)

    def _write_ring(
        self,
        code: _Code,
        when: str,
        base: int,
        rows: list[tuple[Connection, np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
    ) -> None:
        """One out-adjacency for links with mixed delays, into one ring of future sums."""
        sources: dict[int, int] = {}  # group → where its neurons begin
        targets: dict[tuple[int, str], int] = {}
        neurons = places = 0
        parts = []
        for con, pre, post, weight, steps in rows:
            if id(con.pre) not in sources:
                sources[id(con.pre)], neurons = neurons, neurons + con.pre.num
            key = (id(con.post), con.post_var_name)
            if key not in targets:
                targets[key], places = places, places + con.post.num
            parts.append((pre + sources[id(con.pre)], post + targets[key], weight, steps))
        pre, post, weight, steps = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = np.lexsort((post, pre))
        start = _starts(pre, neurons)
        code.argument(f"{when}_post", post[order].astype(np.int32))
        code.argument(f"{when}_weight", np.ascontiguousarray(weight[order]))
        code.argument(f"{when}_lag", steps[order].astype(np.int32))
        ring = np.zeros((int(steps.max()) + 1, places), dtype=self.dtype)
        code.argument(f"{when}_ring", ring)
        code.add(2, f"if t >= {base}:", f"    past = (t - {base}) % {self.slots}")
        for pre_id, offset in sources.items():
            number = list(self.plan.groups).index(pre_id)
            size = self.plan.groups[pre_id].group.num
            code.argument(f"{when}_start_{number}", start[offset : offset + size + 1].copy())
            seen = f"spikes_{number}[past], counts_{number}[past], {when}_start_{number}"
            rest = f"{when}_post, {when}_weight, {when}_lag, {when}_ring"
            code.add(3, f"deliver_later({seen}, {rest}, t)")
        code.add(2, f"row = t % {len(ring)}")
        for (post_id, name), offset in targets.items():
            group = self.plan.groups[post_id].group
            code.add(2, f"collect({when}_ring[row], {offset}, {self._into(group, name)})")

    def _into(self, group: Any, name: str) -> str:
        """The array of an input or state, as the loop names it."""
        number, model = self._number(group), self.plan.groups[id(group)].model
        if name in model.inputs:
            return f"inputs_{number}[{model.inputs.index(name)}]"
        return f"states_{number}[{model.states.index(name)}]"

    def _synapses(self, con: Connection) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The source, target, weight and delay of each synapse; one delay if all are equal."""
        steps = self._steps(con)
        weight = con.weight.detach().numpy().astype(self.dtype)  # type: ignore[union-attr]
        if con.stored_sparse:
            pre, post = con.pre_index.numpy(), con.post_index.numpy()  # type: ignore[union-attr]
            return pre, post, weight, steps
        if con.mask is not None:
            weight = weight * con.mask.numpy()
        post, pre = np.nonzero(weight)
        if steps.size > 1:
            steps = steps[post, pre]
        return pre, post, weight[post, pre], steps

    def _write_source_link(
        self,
        code: _Code,
        con: Connection,
        pre: np.ndarray,
        post: np.ndarray,
        weight: np.ndarray,
        source: int,
        base: int,
    ) -> None:
        """From a generator, whose output is a number a channel, not a list of spikes."""
        number = self.plan.links.index(con)
        out = f"out_{source}[(t + {base}) % 2"  # of two slots, t − 1 and t + 1 are the same
        count = len(pre)
        identity = count == con.post.num and bool(
            (pre == np.arange(count)).all() and (post == pre).all()
        )
        into = self._into(con.post, con.post_var_name)
        code.argument(f"weight_{number}", weight)
        if identity:
            code.add(2, f"for i in range({count}):")
            code.add(3, f"{into}[i] += weight_{number}[i] * {out}, i]")
            return
        code.argument(f"pre_{number}", pre.astype(np.int32))
        code.argument(f"post_{number}", post.astype(np.int32))
        code.add(2, f"for j in range({count}):", f"    i = post_{number}[j]")
        code.add(3, f"{into}[i] += weight_{number}[j] * {out}, pre_{number}[j]]")

    def _write_graded_link(
        self, code: _Code, con: Connection, pre: np.ndarray, post: np.ndarray, weight: np.ndarray
    ) -> None:
        """From a state of a group, as it was at the end of the step before: all of it, each step.

        For links of few synapses, such as those that gather a group into one value.
        """
        number = self.plan.links.index(con)
        state = self._into(con.pre, con.pre_var_name)
        for name, index in (("pre", pre), ("post", post)):
            code.argument(f"{name}_{number}", index.astype(np.int32))
        code.argument(f"weight_{number}", weight)
        code.add(2, f"for j in range({len(pre)}):")
        into = self._into(con.post, con.post_var_name)
        code.add(3, f"{into}[post_{number}[j]] += weight_{number}[j] * {state}[pre_{number}[j]]")

    def _write_group(self, code: _Code, number: int, group: _Group) -> None:
        """The equations of a group, in a function of their own."""
        model, n = group.entry.model, group.entry.group.num
        program = eq.scalar_lines(model.update, code.literal)
        draws = {"f_uniform()": "z_random.random()", "f_normal()": "z_random.standard_normal()"}
        for call, draw in draws.items():
            program = [line.replace(call, draw) for line in program]
        read = eq.names(line.value for line in model.update)
        changed = {line.name for line in model.update}
        body = [
            *[f"    z_a_{name} = z_states[{k}]" for k, name in enumerate(model.states)],
            *[
                f"    z_b_{name} = z_inputs[{k}]"
                for k, name in enumerate(model.inputs)
                if name in read
            ],
            *_unpacked(model, read),
            "    for z_i in range(z_size):",
            *[f"        {name} = z_a_{name}[z_i]" for name in model.states if name in read],
            *[f"        {name} = z_b_{name}[z_i]" for name in model.inputs if name in read],
            *_indexed(model, read),
            *[f"        {line}" for line in program],
            *[f"        z_a_{name}[z_i] = {name}" for name in model.states if name in changed],
            "    z_found = 0",
            "    for z_i in range(z_size):",
            "        if z_a_O[z_i] > 0:",
            "            z_spikes[z_found] = z_i",
            "            z_found += 1",
            "    return z_found",
        ]
        name = code.function(
            "advance", "z_size, z_states, z_inputs, z_values, z_spikes, z_random", body
        )
        given = f"states_{number}, inputs_{number}, values_{number}, spikes_{number}[now], random"
        code.add(2, f"found = {name}({n}, {given})", f"counts_{number}[now] = found")
        for k in range(len(model.inputs)):
            code.add(2, f"inputs_{number}[{k}][:] = 0")
        if self._watches(group.entry):
            code.add(2, "for k in range(found):", f"    at = seen_{number}[0]")
            code.add(3, f"who_{number}[at] = spikes_{number}[now, k]")
            code.add(3, f"when_{number}[at] = t", f"seen_{number}[0] = at + 1")

    def _write_reset(self, code: _Code, number: int, group: _Group) -> None:
        model = group.entry.model
        if not model.reset:
            return
        read = eq.names(line.value for line in model.reset)
        changed = {line.name for line in model.reset}
        body = [
            *[f"    z_a_{name} = z_states[{k}]" for k, name in enumerate(model.states)],
            *_unpacked(model, read),
            "    for z_k in range(z_count):",
            "        z_i = z_spikes[z_k]",
            *[f"        {name} = z_a_{name}[z_i]" for name in model.states if name in read],
            *_indexed(model, read),
            *[f"        {line}" for line in eq.scalar_lines(model.reset, code.literal)],
            *[f"        z_a_{name}[z_i] = {name}" for name in model.states if name in changed],
        ]
        name = code.function("reset", "z_count, z_spikes, z_states, z_values", body)
        given = f"counts_{number}[now], spikes_{number}[now], states_{number}, values_{number}"
        code.add(2, f"{name}({given})")

    # ------------------------------------------------------------------------------------- running

    def run(self, state: dict[Key, Tensor], count: int, batch: int, done: int, fresh: bool) -> None:
        """Makes steps; see `StepEngine.run`."""
        plan = self.plan
        if fresh or not self._ready:
            self._prepare(state)
        arguments = self._arguments
        for number, source in enumerate(plan.sources):  # may have changed since the last part
            arguments[f"rate_{number}"][:] = source.source.reshape(-1).numpy()
        states = [m for m in plan.monitors if isinstance(m, StateMonitor) and m.on]
        watchers = [
            (number, entry)
            for number, entry in enumerate(plan.groups.values())
            if self._watches(entry)
        ]
        found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {n: [] for n, _ in watchers}
        for number, entry in watchers:
            size = max(4 * entry.group.num, 50_000)
            arguments[f"who_{number}"] = np.zeros(size, dtype=np.int32)
            arguments[f"when_{number}"] = np.zeros(size, dtype=np.int32)
        at, end = done, done + count
        every = self._sampling(states)
        while at < end:
            target = min(end, (at // every + 1) * every) if every else end
            at = self._loop(*arguments.values(), at, target, self.random)
            for number, _ in watchers:
                seen = int(arguments[f"seen_{number}"][0])
                if seen:
                    who = arguments[f"who_{number}"][:seen].astype(np.int64)
                    found[number].append((who, arguments[f"when_{number}"][:seen].copy()))
                    arguments[f"seen_{number}"][0] = 0
            if every and at == target:
                self._copy_back(state)
                for monitor in states:
                    if monitor.is_due(at, plan.dt):
                        monitor.take(watched(monitor, state), at * plan.dt)
        self._copy_back(state)
        ends = (np.arange(done, end) + 1) * plan.dt
        for number, entry in watchers:
            who = np.concatenate([part[0] for part in found[number]] or [np.zeros(0, np.int64)])
            when = np.concatenate([part[1] for part in found[number]] or [np.zeros(0, np.int32)])
            for watch in plan.monitors:
                if isinstance(watch, SpikeMonitor) and watch.target is entry.group:
                    watch.take_events(who, (when + 1) * plan.dt, entry.group.num, ends)

    def _sampling(self, monitors: list[StateMonitor]) -> int:
        """The steps between two looks at the states; 0 if nobody looks."""
        if not monitors:
            return 0
        steps = [1 if m.dt is None else max(1, round(m.dt / self.plan.dt)) for m in monitors]
        return int(np.gcd.reduce(steps))

    def _copy_back(self, state: dict[Key, Tensor]) -> None:
        for key, group in self.groups.items():
            model = group.entry.model
            shape = (1, *group.entry.group.size)
            for name, array in zip(model.states, group.states, strict=True):
                state[key, name] = torch.from_numpy(array.copy()).reshape(shape)


def _starts(pre: np.ndarray, size: int) -> np.ndarray:
    """Where each source's synapses begin, once they are sorted by source."""
    start = np.zeros(size + 1, dtype=np.int64)
    np.cumsum(np.bincount(pre, minlength=size), out=start[1:])
    return start


def _many(value: Any) -> bool:
    return (value.numel() if isinstance(value, Tensor) else np.size(value)) > 1


def _unpacked(model: CompiledModel, read: set[str]) -> list[str]:
    """The lines that take a group's values out of their tuple."""
    return [
        f"    {'z_p_' if _many(value) else ''}{name} = z_values[{k}]"
        for k, (name, value) in enumerate(model.values.items())
        if name in read
    ]


def _indexed(model: CompiledModel, read: set[str]) -> list[str]:
    """The lines that take one neuron's value where each has its own."""
    return [
        f"        {name} = z_p_{name}[z_i]"
        for name, value in model.values.items()
        if name in read and _many(value)
    ]
