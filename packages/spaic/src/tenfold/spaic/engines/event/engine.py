"""The event engine itself: writes the loop of a plan, runs it, and fills the monitors."""

import numpy as np
import torch
from torch import Tensor

from tenfold.spaic import equations as eq
from tenfold.spaic.engines.compiled import compiled
from tenfold.spaic.engines.event.code import Code, write_advance, write_reset
from tenfold.spaic.engines.event.links import (
    LinkWriter,
    delay_steps,
    is_late,
    put_back,
    synapses_of,
)
from tenfold.spaic.engines.event.sources import in_loop, refresh_rate, write_source
from tenfold.spaic.engines.ranks import Exchange, Share
from tenfold.spaic.engines.step import watched
from tenfold.spaic.network.learners import TraceRule
from tenfold.spaic.network.monitors import SpikeMonitor, StateMonitor
from tenfold.spaic.plan import GroupPlan, Plan

Key = tuple[int, str]


class EventEngine:
    """Runs a plan by spikes; with several ranks, each runs its share of every group.

    Args:
        plan: The plan.
        random: Its seed is that of the loop's own numbers.
    """

    name = "event"

    def __init__(self, plan: Plan, random: torch.Generator) -> None:
        self.plan, self.random = plan, random
        self.seed, self.runs = random.initial_seed(), 0
        self.share = Share(plan.ranks)
        self.exchange: Exchange | None = None
        self.rules: dict[int, TraceRule] = {}
        for learner in plan.learners:
            for rule in learner.make_rules(plan, random):
                self.rules[id(rule.con)] = rule  # type: ignore[assignment]
        self._ready = False

    def refresh(self) -> None:
        """Compiles again before the next run, with the weights and parameters of then."""
        self._ready = False

    # ----------------------------------------------------------------------------------- compiling

    def _prepare(self, state: dict[Key, Tensor]) -> None:
        """Writes the loop; it is compiled only if its text is new."""
        plan = self.plan
        (precision,) = {entry.model.dtype for entry in plan.groups.values()}
        dtype = torch.empty((), dtype=precision).numpy().dtype.type
        # An early link sees the spikes of the step before: one slot more than the longest delay.
        longest = {id(con): int(delay_steps(plan, con).max(initial=0)) for con in plan.links}
        slots = max(longest.values(), default=0) + 2
        own = {key: self.share.of(entry.group.num) for key, entry in plan.groups.items()}
        code = Code(plan, dtype, slots, own, eq.Literals(dtype))
        self.code = code
        self._hold(state)
        synapses = [synapses_of(code, con, self.rules.get(id(con))) for con in plan.links]
        read = [[item for item in synapses if item.con.pre is s] for s in plan.sources]
        depths = [2 + max((longest[id(item.con)] for item in items), default=0) for items in read]
        links = LinkWriter(code, depths)
        for number, (source, items) in enumerate(zip(plan.sources, read, strict=True)):
            used = np.unique(np.concatenate([np.zeros(0, int), *(item.pre for item in items)]))
            every = source.dec_target is not None or len(used) == source.num
            listed = not all(map(links.is_identity, items))
            write_source(code, number, source, depths[number], None if every else used, listed)
        links.write([item for item in synapses if item.age == 1])
        groups = list(plan.groups.values())
        for number, entry in enumerate(groups):
            write_advance(code, number, entry, self.exchange is None and self._watches(entry))
        middle = len(code.lines)
        links.write([item for item in synapses if item.age == 0])
        for number, entry in enumerate(groups):
            write_reset(code, number, entry)
        self.plastic = [item for item in synapses if item.rule is not None]
        for item in self.plastic:
            links.write_learning(item)
        second = code.lines[middle:]
        for number, entry in enumerate(groups):
            if self.exchange is None and self._watches(entry):
                # Stop early when a record is nearly full.
                second += [f"            if seen_{number}[0] + size_{number} > len(who_{number}):"]
                second += ["                return t + 1"]
        self._compile(code.lines[:middle], second)
        self._ready = True

    def _hold(self, state: dict[Key, Tensor]) -> None:
        """Gives the loop the states, inputs, values and spikes of the groups."""
        code, plan, slots = self.code, self.plan, self.code.slots
        if plan.ranks > 1:
            delays = {id(con): delay_steps(plan, con) for con in plan.links}
            ages = [
                int(delays[id(con)].min()) + (not is_late(plan, con))
                for con in plan.links
                if id(con.pre) in plan.groups and delays[id(con)].size
            ]
            self.exchange = Exchange(
                self.share, [e.group.num for e in plan.groups.values()], slots, min(ages, default=1)
            )
        self.states: dict[int, tuple[np.ndarray, ...]] = {}
        for number, (key, entry) in enumerate(plan.groups.items()):
            n, model = entry.group.num, entry.model
            first, last = code.own[key]
            self.states[key] = tuple(
                state[key, name].reshape(-1).numpy()[first:last].astype(code.dtype)
                for name in model.states
            )
            inputs = tuple(np.zeros(last - first, dtype=code.dtype) for _ in model.inputs)
            values = []
            for value in map(code.value, model.values.values()):
                values.append(value[first:last].copy() if np.ndim(value) else value)
            # Sizes are arguments: written out, each would be compiled for itself.
            code.argument(f"size_{number}", last - first)
            code.argument(f"first_{number}", first)
            code.argument(f"states_{number}", self.states[key])
            code.argument(f"inputs_{number}", inputs or (np.zeros(0, dtype=code.dtype),))
            code.argument(f"values_{number}", tuple(values) or (0.0,))
            if self.exchange is None:
                spikes, counts = np.zeros((slots, n), np.int32), np.zeros(slots, np.int64)
                lists = spikes, counts, spikes, counts
            else:
                lists = self.exchange.lists(number)
            for name, array in zip(("spikes", "counts", "own", "owned"), lists, strict=True):
                code.argument(f"{name}_{number}", array)
            if self.exchange is None and self._watches(entry):
                code.argument(f"seen_{number}", np.zeros(1, dtype=np.int64))
                code.argument(f"who_{number}", np.zeros(0, dtype=np.int32))
                code.argument(f"when_{number}", np.zeros(0, dtype=np.int32))
        parts = 2 * len(plan.groups) + len(plan.sources)
        seeds = np.random.SeedSequence([self.seed, self.runs])
        code.argument("keys", seeds.generate_state(max(parts, 1), np.uint64))

    def _compile(self, first: list[str], second: list[str]) -> None:
        code = self.code
        text = []
        for body, name in code.functions.items():
            text += ["@njit", f"def {name}{body}"]
        text += [
            "@njit",
            f"def loop({', '.join(code.arguments)}, begun, start, end, half):",
            "    for t in range(start, end):",
            f"        now = t % {code.slots}",
            "        if half != 2:",
            *(first or ["            pass"]),
            "        if half != 1:",
            *(second or ["            pass"]),
            "    return end",
        ]
        self._loop = compiled("\n".join(text), code.literal.scope)

    def _watches(self, entry: GroupPlan) -> bool:
        # Whether they are on or not: that may change between the parts of a run.
        monitors = (m for m in self.plan.monitors if isinstance(m, SpikeMonitor))
        return any(m.target is entry.group for m in monitors) or any(
            node.dec_target is entry.group for node in self.plan.decoders
        )

    # ------------------------------------------------------------------------------------- running

    def run(self, state: dict[Key, Tensor], count: int, batch: int, done: int, fresh: bool) -> None:
        """Makes steps; see `StepEngine.run`."""
        plan = self.plan
        self.runs += fresh
        if fresh or not self._ready:
            self._prepare(state)
        arguments = self.code.arguments
        self._emit(count, done)
        states = [m for m in plan.monitors if isinstance(m, StateMonitor) and m.on]
        watchers = {n: e for n, e in enumerate(plan.groups.values()) if self._watches(e)}
        found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {n: [] for n in watchers}
        if self.exchange is None:
            for number, entry in watchers.items():
                size = max(4 * entry.group.num, 50_000)
                arguments[f"who_{number}"] = np.zeros(size, dtype=np.int32)
                arguments[f"when_{number}"] = np.zeros(size, dtype=np.int32)
        at, end = done, done + count
        every = self._sampling(states)
        while at < end:
            target = min(end, (at // every + 1) * every) if every else end
            if self.exchange is None:
                at = self._loop(*arguments.values(), done, at, target, 0)
                self._collect(found)
            else:
                at = self.exchange.advance(self._loop, arguments, done, at, target, found)
            if every and at == target:
                self._copy_back(state)
                for monitor in states:
                    if monitor.is_due(at, plan.dt):
                        monitor.take(watched(monitor, state), at * plan.dt)
        self._copy_back(state)
        self._record(watchers, found, done, end)

    def _emit(self, count: int, done: int) -> None:
        """Makes what the sources emit that the loop does not make, in the step engine's order."""
        made: dict[int, list[np.ndarray]] = {}
        for number, source in enumerate(self.plan.sources):
            if in_loop(source):
                refresh_rate(self.code, number, source)  # type: ignore[arg-type]
            else:
                source.start(count, self.plan.dt, done)
                made[number] = []
        for k in range(count if made else 0):
            for number, rows in made.items():
                rows.append(self.plan.sources[number].emit(k).reshape(-1).numpy())
        for number, rows in made.items():
            self.code.arguments[f"raster_{number}"] = np.stack(rows).astype(self.code.dtype)

    def _collect(self, found: dict[int, list[tuple[np.ndarray, np.ndarray]]]) -> None:
        """Empties the loop's records."""
        arguments = self.code.arguments
        for number, parts in found.items():
            seen = int(arguments[f"seen_{number}"][0])
            if seen:
                who = arguments[f"who_{number}"][:seen].astype(np.int64)
                parts.append((who, arguments[f"when_{number}"][:seen].copy()))
                arguments[f"seen_{number}"][0] = 0

    def _record(
        self,
        watchers: dict[int, GroupPlan],
        found: dict[int, list[tuple[np.ndarray, np.ndarray]]],
        done: int,
        end: int,
    ) -> None:
        """Gives the spikes of a run to monitors and decoders."""
        plan, none = self.plan, np.zeros(0, np.int64)
        ends = (np.arange(done, end) + 1) * plan.dt
        for number, entry in watchers.items():
            who, when = (np.concatenate(x) for x in zip((none, none), *found[number], strict=True))
            for watch in plan.monitors:
                if isinstance(watch, SpikeMonitor) and watch.target is entry.group and watch.on:
                    seen, kept = np.ones(len(who), bool), np.ones(end - done, bool)
                    if watch.dt is not None:
                        kept = np.array([watch.is_due(k + 1, plan.dt) for k in range(done, end)])
                        seen = kept[when - done]
                    times = (when[seen] + 1) * plan.dt
                    watch.take_events(who[seen], times, entry.group.num, ends[kept])
            for node in plan.decoders:
                if node.dec_target is entry.group:
                    record = torch.zeros(end - done, entry.group.num, dtype=entry.model.dtype)
                    record[torch.from_numpy(when - done), torch.from_numpy(who)] = 1
                    node.record = record.reshape(end - done, 1, *entry.group.size)
                    node.step = plan.dt

    def _sampling(self, monitors: list[StateMonitor]) -> int:
        """The steps between two looks at the states; 0 if nobody looks."""
        if not monitors:
            return 0
        every = [1.0 if m.dt is None else m.dt / self.plan.dt for m in monitors]
        whole = all(abs(steps - round(steps)) < 1e-6 and steps > 0.5 for steps in every)
        return int(np.gcd.reduce([round(steps) for steps in every])) if whole else 1

    def _copy_back(self, state: dict[Key, Tensor]) -> None:
        """Gives states and plastic weights back to the network."""
        for key, arrays in self.states.items():
            entry = self.plan.groups[key]
            shape = (1, *entry.group.size)
            for name, array in zip(entry.model.states, arrays, strict=True):
                whole = self.share.whole(array, entry.group.num)
                state[key, name] = torch.from_numpy(whole).reshape(shape)
        for item in self.plastic:
            put_back(self.code, item, self.plan.links.index(item.con))
