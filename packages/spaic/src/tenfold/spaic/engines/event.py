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
from tenfold.spaic.engines.step import watched
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.monitors import SpikeMonitor, StateMonitor
from tenfold.spaic.network.nodes import Generator
from tenfold.spaic.plan import Plan

Key = tuple[int, str]

CHUNK = 2000  # steps between two looks at the room left for spikes


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
        if con.pre_var_name != "O":
            return f"{con!r} reads {con.pre_var_name}, not spikes"
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
        if not all(isinstance(v, ast.Call) and v.func.id in ("spike", "where") for v in spikes):
            return f"what {entry.group!r} emits is not spikes"
    return None


@dataclass
class _Code:
    """The text of the compiled loop and the arrays that it works on."""

    literal: eq.Literals
    arrays: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def array(self, name: str, value: Any) -> str:
        self.arrays[name] = value
        return name

    def add(self, indent: int, *lines: str) -> None:
        self.lines += ["    " * indent + line for line in lines]


class EventEngine:
    """Runs a plan by spikes.

    Args:
        plan: The plan.
        random: Seeds the loop's own generator.
    """

    name = "event"

    def __init__(self, plan: Plan, random: torch.Generator) -> None:
        self.plan = plan
        self.numbers = {key: number for number, key in enumerate(plan.groups)}
        seed = int(torch.randint(2**62, (1,), generator=random))
        self.random = np.random.default_rng(seed)
        self._loop: Any = None
        self._source_text = ""

    def refresh(self) -> None:
        """Compiles again before the next run, with the weights and parameters of then."""
        self._arrays = None

    # ----------------------------------------------------------------------------------- compiling

    def _prepare(self, state: dict[Key, Tensor]) -> None:
        """Writes the loop; it is compiled anew only if its text has changed."""
        plan = self.plan
        if len({entry.model.dtype for entry in plan.groups.values()}) > 1:
            raise InputError("engine 'event' needs groups of one precision; take 'step'")
        dtype = torch.empty((), dtype=plan.dtype).numpy().dtype
        for entry in plan.groups.values():
            dtype = torch.empty((), dtype=entry.model.dtype).numpy().dtype
        code = _Code(eq.Literals(dtype))
        self.dtype = dtype
        self._rings = 1 + max((self._steps(con).max(initial=0) for con in plan.links), default=0)
        # An early link sees the spikes of the step before, one step further back.
        self._rings += 1
        rings = int(self._rings)
        body = _Code(code.literal, code.arrays)
        functions: list[str] = []
        for number, (key, entry) in enumerate(plan.groups.items()):
            n = entry.group.num
            for name in entry.model.states:
                array = state[key, name].reshape(-1).numpy().astype(dtype)
                code.array(f"g{number}_{name}", np.ascontiguousarray(array))
            for name in entry.model.inputs:
                code.array(f"g{number}_in_{name}", np.zeros(n, dtype=dtype))
            code.array(f"g{number}_spikes", np.zeros((rings, n), dtype=np.int32))
            code.array(f"g{number}_count", np.zeros(rings, dtype=np.int64))
            for name, value in entry.model.values.items():
                value = value.detach().numpy() if isinstance(value, Tensor) else value
                value = np.asarray(value, dtype=dtype).reshape(-1)
                code.array(f"g{number}_p_{name}", value if value.size > 1 else value[0])
        for number, source in enumerate(plan.sources):
            self._write_source(body, number, source)
        early = [con for con in plan.links if con not in plan.late]
        for con in early:
            self._write_link(body, con, late=False)
        for key in plan.groups:
            self._write_group(body, functions, key)
        for con in plan.late:
            self._write_link(body, con, late=True)
        for key in plan.groups:
            self._write_reset(body, key)
        names = list(code.arrays)
        text = [
            *functions,
            f"def loop({', '.join([*names, 'start', 'count', 'random', 'room'])}):",
            "    for t in range(start, start + count):",
            f"        now = t % {rings}",
            *body.lines,
            # Stop early when a record is nearly full; the caller makes room.
            *[
                f"        if g{number}_seen[0] + {entry.group.num} > room[{number}]:\n"
                "            return t + 1"
                for number, entry in enumerate(plan.groups.values())
                if self._watches(entry)
            ],
            "    return start + count",
        ]
        # Names of records are arguments too.
        for number, entry in enumerate(plan.groups.values()):
            if self._watches(entry):
                code.arrays[f"g{number}_seen"] = np.zeros(1, dtype=np.int64)
                code.arrays[f"g{number}_who"] = np.zeros(0, dtype=np.int32)
                code.arrays[f"g{number}_when"] = np.zeros(0, dtype=np.int32)
        names = list(code.arrays)
        index = len(functions)
        text[index] = f"def loop({', '.join([*names, 'start', 'count', 'random', 'room'])}):"
        joined = "\n".join(text)
        if joined != self._source_text:
            self._loop = _compiled(joined, code.literal.scope)
            self._source_text = joined
        self._arrays: dict[str, Any] | None = code.arrays

    def _watches(self, entry: Any) -> bool:
        return any(
            isinstance(m, SpikeMonitor) and m.target is entry.group and m.on
            for m in self.plan.monitors
        )

    def _steps(self, con: Connection) -> np.ndarray:
        return np.atleast_1d(con.delay_steps(self.plan.dt, self.plan.compat))

    def _write_source(self, code: _Code, number: int, source: Generator) -> None:
        plan, n = self.plan, source.num
        value = source.source.reshape(-1).numpy()  # type: ignore[union-attr]
        rate = code.array(f"s{number}_rate", np.ascontiguousarray(value, dtype=np.float64))
        out = code.array(f"s{number}_out", np.zeros((2, n), dtype=self.dtype))
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
        target = source.dec_target
        if target is not None:
            group = self.numbers[id(target)]
            entry = plan.groups[id(target)]
            name = "Isyn" if source.coding_var_name == "O" else source.coding_var_name
            where = f"g{group}_in_{name}" if name in entry.model.inputs else f"g{group}_{name}"
            code.add(2, f"for i in range({n}):", f"    {where}[i] += {out}[t % 2, i]")

    def _write_link(self, code: _Code, con: Connection, late: bool) -> None:
        plan = self.plan
        number = plan.links.index(con)
        group = self.numbers[id(con.post)]
        entry = plan.groups[id(con.post)]
        name = con.post_var_name
        into = f"g{group}_in_{name}" if name in entry.model.inputs else f"g{group}_{name}"
        steps = self._steps(con)
        base = 0 if late else 1  # how many steps ago the newest spikes that it sees were made
        weight = con.weight.detach().numpy()  # type: ignore[union-attr]
        if con.stored_sparse:
            pre, post = con.pre_index.numpy(), con.post_index.numpy()  # type: ignore[union-attr]
        else:
            weight = weight if con.mask is None else weight * con.mask.numpy()
            post, pre = np.nonzero(weight)
            steps = steps if steps.size == 1 else np.broadcast_to(steps, weight.shape)[post, pre]
            weight = weight[post, pre]
        source = self._source_index(con)
        if source is not None:
            if steps.max(initial=0) > 0:
                raise InputError(f"{con!r}: engine 'event' has no delay after a source; take 'step'")
            self._write_source_link(code, con, number, into, pre, post, weight, source, base)
            return
        n = con.pre.num
        spikes = f"g{self.numbers[id(con.pre)]}"
        order = np.lexsort((post, pre))
        start = np.zeros(n + 1, dtype=np.int64)
        np.cumsum(np.bincount(pre, minlength=n), out=start[1:])
        code.array(f"l{number}_start", start)
        code.array(f"l{number}_post", post[order].astype(np.int32))
        same = weight.size > 0 and bool((weight == weight.flat[0]).all())
        weights = weight[order].astype(self.dtype)
        code.array(f"l{number}_w", weights[0] if same else weights)
        w = f"l{number}_w" if same else f"l{number}_w[j]"
        mixed = steps.size > 1 and steps.min() != steps.max()
        if not mixed:
            lag = int(steps.flat[0]) + base if steps.size else base
            code.add(
                2,
                f"past = (t - {lag}) % {int(self._rings)}",
                f"if t >= {lag}:",
                f"    for k in range({spikes}_count[past]):",
                f"        i = {spikes}_spikes[past, k]",
                f"        for j in range(l{number}_start[i], l{number}_start[i + 1]):",
                f"            {into}[l{number}_post[j]] += {w}",
            )
            return
        length = int(steps.max()) + 1
        code.array(f"l{number}_lag", steps[order].astype(np.int32))
        ring = code.array(f"l{number}_ring", np.zeros((length, con.post.num), dtype=self.dtype))
        code.add(
            2,
            f"past = (t - {base}) % {int(self._rings)}",
            f"if t >= {base}:",
            f"    for k in range({spikes}_count[past]):",
            f"        i = {spikes}_spikes[past, k]",
            f"        for j in range(l{number}_start[i], l{number}_start[i + 1]):",
            f"            slot = (t + l{number}_lag[j]) % {length}",
            f"            {ring}[slot, l{number}_post[j]] += {w}",
            f"slot = t % {length}",
            f"for i in range({con.post.num}):",
            f"    {into}[i] += {ring}[slot, i]",
            f"    {ring}[slot, i] = 0",
        )

    def _source_index(self, con: Connection) -> int | None:
        for number, source in enumerate(self.plan.sources):
            if con.pre is source:
                return number
        return None

    def _write_source_link(
        self,
        code: _Code,
        con: Connection,
        number: int,
        into: str,
        pre: np.ndarray,
        post: np.ndarray,
        weight: np.ndarray,
        source: int,
        base: int,
    ) -> None:
        """From a generator, whose output is a number a channel, not a list of spikes."""
        out = f"s{source}_out[(t + {base}) % 2"  # two slots: (t − 1) and (t + 1) are the same
        identity = len(pre) == con.post.num and bool(
            (pre == np.arange(len(pre))).all() and (post == pre).all()
        )
        code.array(f"l{number}_w", weight.astype(self.dtype))
        if identity:
            code.add(2, f"for i in range({len(pre)}):")
            code.add(3, f"{into}[i] += l{number}_w[i] * {out}, i]")
            return
        code.array(f"l{number}_pre", pre.astype(np.int32))
        code.array(f"l{number}_post", post.astype(np.int32))
        code.add(2, f"for j in range({len(pre)}):")
        code.add(3, f"{into}[l{number}_post[j]] += l{number}_w[j] * {out}, l{number}_pre[j]]")

    def _write_group(self, code: _Code, functions: list[str], key: int) -> None:
        """The equations of a group, in a function of their own: fewer arrays, faster loops."""
        number, entry = self.numbers[key], self.plan.groups[key]
        model, n = entry.model, entry.group.num
        drawn = eq.calls(model.update) & eq.RANDOM
        program = eq.scalar_lines(model.update, code.literal)
        read = eq.names(line.value for line in model.update)
        states = [name for name in model.states]
        changed = {line.name for line in model.update} & set(states)
        inputs = [name for name in model.inputs if name in read]
        values = [name for name in model.values if name in read]
        arguments = [f"a_{name}" for name in states]
        arguments += [f"in_{name}" for name in inputs] + [f"p_{name}" for name in values]
        functions += [
            "@njit",
            f"def advance_{number}({', '.join([*arguments, 'random'])}):",
            f"    for i in range({n}):",
            *[f"        {name} = a_{name}[i]" for name in states if name in read],
            *[f"        {name} = in_{name}[i]" for name in inputs],
            *[
                f"        {name} = p_{name}" + ("[i]" if self._per_neuron(entry, name) else "")
                for name in values
            ],
            *[f"        {line}" for line in program],
            *[f"        a_{name}[i] = {name}" for name in states if name in changed],
        ]
        if drawn:
            text = "\n".join(functions)
            text = text.replace("f_uniform()", "random.random()")
            functions[:] = text.replace("f_normal()", "random.standard_normal()").split("\n")
        given = [f"g{number}_{name}" for name in states]
        given += [f"g{number}_in_{name}" for name in inputs]
        given += [f"g{number}_p_{name}" for name in values]
        code.add(2, f"advance_{number}({', '.join([*given, 'random'])})")
        for name in model.inputs:
            code.add(2, f"g{number}_in_{name}[:] = 0")
        code.add(2, "found = 0", f"for i in range({n}):", f"    if g{number}_O[i] > 0:")
        code.add(4, f"g{number}_spikes[now, found] = i", "found += 1")
        code.add(2, f"g{number}_count[now] = found")
        if self._watches(entry):
            code.add(2, "for k in range(found):", f"    seen = g{number}_seen[0]")
            code.add(3, f"g{number}_who[seen] = g{number}_spikes[now, k]")
            code.add(3, f"g{number}_when[seen] = t", f"g{number}_seen[0] = seen + 1")

    def _per_neuron(self, entry: Any, name: str) -> bool:
        value = entry.model.values[name]
        return (value.numel() if isinstance(value, Tensor) else np.size(value)) > 1

    def _write_reset(self, code: _Code, key: int) -> None:
        number, entry = self.numbers[key], self.plan.groups[key]
        if not entry.model.reset:
            return
        reset = entry.model.reset
        read = eq.names(line.value for line in reset)
        changed = {line.name for line in reset}
        code.add(2, f"for k in range(g{number}_count[now]):", f"    i = g{number}_spikes[now, k]")
        for name in entry.model.states:
            if name in read:
                code.add(3, f"{name} = g{number}_{name}[i]")
        for name in entry.model.values:
            if name in read:
                index = "[i]" if self._per_neuron(entry, name) else ""
                code.add(3, f"{name} = g{number}_p_{name}{index}")
        code.add(3, *eq.scalar_lines(reset, code.literal))
        for name in entry.model.states:
            if name in changed:
                code.add(3, f"g{number}_{name}[i] = {name}")

    # ------------------------------------------------------------------------------------- running

    def run(self, state: dict[Key, Tensor], count: int, batch: int, done: int, fresh: bool) -> None:
        """Makes steps; see `StepEngine.run`."""
        plan = self.plan
        if fresh or self._arrays is None:
            self._prepare(state)
        arrays: dict[str, Any] = self._arrays  # type: ignore[assignment]
        states = [m for m in plan.monitors if isinstance(m, StateMonitor) and m.on]
        watchers = [
            (number, entry)
            for number, entry in enumerate(plan.groups.values())
            if self._watches(entry)
        ]
        found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {n: [] for n, _ in watchers}
        room = np.zeros(len(plan.groups), dtype=np.int64)
        for number, entry in watchers:
            size = max(10 * entry.group.num, 100_000)
            arrays[f"g{number}_seen"] = np.zeros(1, dtype=np.int64)
            arrays[f"g{number}_who"] = np.zeros(size, dtype=np.int32)
            arrays[f"g{number}_when"] = np.zeros(size, dtype=np.int32)
            room[number] = size
        at, end = done, done + count
        every = self._sampling(states)
        while at < end:
            target = end
            if every:
                target = min(end, (at // every + 1) * every)
            at = self._loop(*arrays.values(), at, target - at, self.random, room)
            for number, _ in watchers:
                seen = int(arrays[f"g{number}_seen"][0])
                if seen:
                    who = arrays[f"g{number}_who"][:seen].astype(np.int64)
                    found[number].append((who, arrays[f"g{number}_when"][:seen].copy()))
                    arrays[f"g{number}_seen"][0] = 0
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
            for monitor in plan.monitors:
                if isinstance(monitor, SpikeMonitor) and monitor.target is entry.group:
                    monitor.take_events(who, (when + 1) * plan.dt, entry.group.num, ends)

    def _sampling(self, monitors: list[StateMonitor]) -> int:
        """The steps between two looks at the states; 0 if nobody looks."""
        if not monitors:
            return 0
        steps = [1 if m.dt is None else max(1, round(m.dt / self.plan.dt)) for m in monitors]
        return int(np.gcd.reduce(steps))

    def _copy_back(self, state: dict[Key, Tensor]) -> None:
        arrays: dict[str, Any] = self._arrays  # type: ignore[assignment]
        for key, entry in self.plan.groups.items():
            number = self.numbers[key]
            for name in entry.model.states:
                value = torch.from_numpy(arrays[f"g{number}_{name}"].copy())
                state[key, name] = value.reshape(1, *entry.group.shape).to(entry.model.dtype)  # type: ignore[misc]


_CACHE: dict[tuple[str, str], Any] = {}


def _compiled(text: str, scope: dict[str, Any]) -> Any:
    """Compiles the text of a loop; the same text is compiled once in a process."""
    from numba import njit

    from tenfold.spaic.engines.scalars import SCALARS

    key = (text, repr(sorted(scope.items())))
    if key not in _CACHE:
        made: dict[str, Any] = {"njit": njit(nogil=True, error_model="numpy"), **SCALARS, **scope}
        exec(text, made)  # written above from expressions that have been checked
        _CACHE[key] = njit(nogil=True, error_model="numpy")(made["loop"])
    return _CACHE[key]
