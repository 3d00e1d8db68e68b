"""The step engine: runs every network, one step after the other, on tensors. The reference."""

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.spaic import equations as eq
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import ALPHA, NeuronGroup
from tenfold.spaic.network.learners import GroupRule, Learner, Moment, Rule, Surrogate
from tenfold.spaic.network.modules import Module
from tenfold.spaic.network.nodes import Reward
from tenfold.spaic.plan import GroupPlan, Plan

Key = tuple[int, str]


def group_values(entry: GroupPlan, device: torch.device) -> dict[str, Any]:
    """Gives the parameters and constants of a group as numbers or tensors of its shape.

    Args:
        entry: The group.
        device: The device.
    """
    made: dict[str, Any] = {}
    for name, value in entry.model.values.items():
        if not isinstance(value, Tensor):
            if not hasattr(value, "ndim") or value.ndim == 0:
                made[name] = float(value)
                continue
            value = torch.as_tensor(value)
        value = value.to(device=device, dtype=entry.model.dtype)
        made[name] = value.reshape(entry.group.size) if value.numel() > 1 else value.reshape(())
    return made


def initial_state(
    entry: GroupPlan, batch: int, device: torch.device, random: torch.Generator
) -> dict[str, Tensor]:
    """Makes the starting values of a group's states.

    Args:
        entry: The group.
        batch: The batch size.
        device: The device.
        random: For starting values that are drawn.

    Returns:
        State → [batch, *shape].
    """
    shape = (batch, *entry.group.size)
    made = {}
    for name in entry.model.states:
        start = entry.model.initial[name]
        if isinstance(start, tuple | list) and len(start) == 3 and start[0] == "uniform":
            drawn = torch.rand(shape, generator=random, dtype=entry.model.dtype, device=device)
            made[name] = drawn * (float(start[2]) - float(start[1])) + float(start[1])
            continue
        # Through NumPy: torch would take a Python number in single precision.
        value = start.detach() if isinstance(start, Tensor) else torch.as_tensor(np.asarray(start))
        value = value.to(device=device, dtype=entry.model.dtype)
        if value.numel() not in (1, entry.group.num):
            raise InputError(
                f"{entry.group!r}: initial {name} has {value.numel()} values; expected 1 or "
                f"{entry.group.num}"
            )
        value = value.reshape(entry.group.size) if value.numel() > 1 else value.reshape(())
        made[name] = value.expand(shape).clone()
    return made


class GroupStep:
    """The step of one group, compiled for tensors.

    Args:
        entry: The group.
        random: For models that draw.
        device: The device.
    """

    def __init__(self, entry: GroupPlan, random: torch.Generator, device: torch.device) -> None:
        model = entry.model
        self.entry = entry
        self.values = group_values(entry, device)
        arguments = [*model.states, *model.inputs, *self.values]
        self.update = eq.torch_function(model.update, arguments, model.states)
        self.reset = (
            eq.torch_function(model.reset, [*model.states, *self.values], model.states)
            if model.reset
            else None
        )
        shape = entry.group.size

        def drawn(draw: Any) -> Any:
            return lambda: draw(
                (self.batch, *shape), generator=random, dtype=model.dtype, device=device
            )

        self.batch = 1
        self.functions = dict(eq.NAMESPACE)
        self.functions["uniform"], self.functions["normal"] = drawn(torch.rand), drawn(torch.randn)

        def where(condition: Any, a: Any, b: Any) -> Tensor:
            # Of two plain numbers torch would make a tensor of its default precision.
            given: Any = {"dtype": model.dtype, "device": device}
            return torch.where(
                torch.as_tensor(condition, device=device),
                torch.as_tensor(a, **given),
                torch.as_tensor(b, **given),
            )

        self.functions["where"] = where
        self.functions["sum"] = lambda x: x.sum(tuple(range(1, x.ndim)), keepdim=True)
        self.functions["batch_sum"] = lambda x: x.sum(0, keepdim=True).expand_as(x)
        if entry.surrogate is not None:
            self.functions["spike"] = self._spikes(entry.surrogate)
            self.functions["spike_at"] = self._spikes(replace(entry.surrogate, at_zero=True))

    def _spikes(self, surrogate: Surrogate) -> Any:
        return lambda u: surrogate(u, self.values[ALPHA] if surrogate.learned else None)

    def advance(self, state: dict[str, Tensor], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Makes one step up to the spikes.

        Args:
            state: State → [batch, *shape].
            inputs: Input → [batch, *shape].
        """
        model = self.entry.model
        found = [state[name] for name in model.states]
        given = [inputs[name] for name in model.inputs]
        made = self.update(self.functions, *found, *given, *self.values.values())
        return dict(zip(model.states, made, strict=True))

    def finish(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Lets the neurons that spiked reset.

        Args:
            state: After `advance` and the deliveries.
        """
        if self.reset is None:
            return state
        states = self.entry.model.states
        found = [state[name] for name in states]
        made = self.reset(self.functions, *found, *self.values.values())
        fired = state["O"] > 0
        changed = {line.name for line in self.entry.model.reset}
        return {
            name: torch.where(fired, new, state[name]) if name in changed else state[name]
            for name, new in zip(states, made, strict=True)
        }


class StepEngine:
    """Runs a plan step by step.

    Args:
        plan: The plan.
        random: Where all random numbers of a run come from.
    """

    name = "step"

    def __init__(self, plan: Plan, random: torch.Generator) -> None:
        self.plan, self.random = plan, random
        self.steps = {
            key: GroupStep(entry, random, plan.device) for key, entry in plan.groups.items()
        }
        # Links of hidden groups rest, and do not learn.
        shown = {id(con) for con in plan.links} | plan.groups.keys()
        made = [
            (learner, [r for r in learner.make_rules(plan, random) if id(r.part) in shown])
            for learner in plan.learners
        ]
        self.rules = [(learner, rules) for learner, rules in made if rules]
        # The graph of gradients holds a weight as it was in a step; a rule changes it in place.
        self.moving = {
            id(con) for learner in plan.learners for con in learner.ruled() if plan.gradients
        }

    def refresh(self) -> None:
        """Computes the constants again, since parameters may have been trained."""
        for step in self.steps.values():
            group = step.entry.group
            if group.changing:
                plan = self.plan
                step.entry.model = group.compile(plan.compat, plan.dt, plan.dtype)
                step.values = group_values(step.entry, plan.device)

    def run(self, state: dict[Key, Tensor], count: int, batch: int, done: int, fresh: bool) -> None:
        """Makes steps.

        Args:
            state: (id of a group or source, variable) → value; changed in place.
            count: The number of steps.
            batch: The batch size.
            done: The steps made before, for the times of monitors.
            fresh: Whether a new run begins, as opposed to one that continues.
        """
        plan = self.plan
        for source in plan.sources:
            source.start(count, plan.dt, done)
        for step in self.steps.values():
            step.batch = batch
        if fresh:
            for _, rules in self.rules:
                for rule in rules:
                    rule.start()
            for reward in plan.rewards:
                reward.start()
        records: dict[int, list[Tensor]] = {id(node): [] for node in plan.decoders}
        with torch.set_grad_enabled(plan.gradients and torch.is_grad_enabled()):
            for k in range(count):
                before = dict(state) if self.rules else state
                self._step(state, k, batch)
                for node in plan.decoders:
                    records[id(node)].append(state[id(node.dec_target), node.coding_var_name])
                for reward in plan.rewards:
                    reward.step(state[id(reward.dec_target), reward.coding_var_name])
                if self.rules:
                    self._learn(before, state, k, count)
                self._watch(state, done + k + 1)
                if plan.silent:
                    plan.silent -= {k for k in plan.silent if bool((state[k, "O"] != 0).any())}
        for node in plan.decoders:
            node.record, node.step = torch.stack(records[id(node)]), plan.dt

    def _step(self, state: dict[Key, Tensor], k: int, batch: int) -> None:
        plan = self.plan
        fresh: dict[Key, Tensor] = {}
        sums: dict[Key, list[Tensor]] = defaultdict(list)
        for source in plan.sources:
            made = source.emit(k)
            fresh[id(source), "O"] = made.expand(batch, *made.shape[1:])
            if source.dec_target is not None:
                entry = plan.groups.get(id(source.dec_target))
                if entry is not None:
                    name = "Isyn" if source.coding_var_name == "O" else source.coding_var_name
                    given = fresh[id(source), "O"].reshape(batch, *entry.group.size)
                    if name in entry.model.inputs:
                        sums[id(entry.group), name].append(given)
                    else:
                        state[id(entry.group), name] = given.to(entry.model.dtype)
        for part in plan.order:
            if isinstance(part, NeuronGroup):
                self._advance(part, state, fresh, sums, batch)
            elif isinstance(part, Connection):
                for target, name, value in self._delivered(part, state, fresh):
                    sums[id(target), name].append(value)
            else:
                self._call(part, state, fresh, sums)
        late: dict[Key, list[Tensor]] = defaultdict(list)
        for con in plan.late:  # read the spikes of this very step
            value = self._deliver(con, fresh[id(con.pre), con.pre_var_name])
            late[id(con.post), con.post_var_name].append(value)
        for key, values in late.items():
            fresh[key] = fresh[key] + torch.stack(values).sum(0).to(fresh[key].dtype)
        for group_id, step in self.steps.items():
            if step.reset is not None:
                found = {name: fresh[group_id, name] for name in step.entry.model.states}
                for name, value in step.finish(found).items():
                    fresh[group_id, name] = value
        state.update(fresh)

    def _advance(
        self,
        group: NeuronGroup,
        state: dict[Key, Tensor],
        fresh: dict[Key, Tensor],
        sums: dict[Key, list[Tensor]],
        batch: int,
    ) -> None:
        step, model = self.steps[id(group)], self.plan.groups[id(group)].model
        inputs = {}
        for name in model.inputs:
            values = sums.get((id(group), name), [])
            if not values:
                zero = torch.zeros((), dtype=model.dtype, device=self.plan.device)
                inputs[name] = zero.expand(batch, *group.size)
            else:
                total = values[0]
                for value in values[1:]:
                    total = total + value
                inputs[name] = total.to(model.dtype)
            if (id(group), name) in self.plan.inputs_seen:
                fresh[id(group), name] = inputs[name]
        found = {name: state[id(group), name] for name in model.states}
        made = step.advance(found, inputs)
        for name, value in made.items():
            fresh[id(group), name] = value
        group.last_state, group.last_step = made, (found, inputs)

    def _read(
        self, layer: Any, name: str, state: dict[Key, Tensor], fresh: dict[Key, Tensor]
    ) -> Tensor:
        key = (id(layer), name)
        return fresh[key] if self.plan.strategy == 1 else state[key]

    def _delivered(
        self, con: Connection, state: dict[Key, Tensor], fresh: dict[Key, Tensor]
    ) -> list[tuple[Any, str, Tensor]]:
        if "electrical" in con.syn_type:  # both sides, from the potentials before the step
            pre, post = state[id(con.pre), "V"].flatten(1), state[id(con.post), "V"].flatten(1)
            w: Tensor = con.weight  # type: ignore[assignment]
            w = w.clone() if id(con) in self.moving else w
            pre, post = pre.to(w.dtype), post.to(w.dtype)
            into = pre @ w.T - post * w.sum(1)
            back = post @ w - pre * w.sum(0)
            return [
                (layer, con.post_var_name, value.reshape(len(value), *layer.size))
                for layer, value in ((con.post, into), (con.pre, back))
            ]
        lagged = any(con is item for item in self.plan.lagged)
        seen = self._read(con.pre, con.pre_var_name, state, state if lagged else fresh)
        return [(con.post, con.into, self._deliver(con, seen))]

    def _deliver(self, con: Connection, seen: Tensor) -> Tensor:
        if id(con) not in self.moving or con.weight is None:
            return con.deliver(seen, self.random)
        weight, con.weight = con.weight, con.weight.clone()
        try:
            return con.deliver(seen, self.random)
        finally:
            con.weight = weight

    def _call(
        self,
        module: Module,
        state: dict[Key, Tensor],
        fresh: dict[Key, Tensor],
        sums: dict[Key, list[Tensor]],
    ) -> None:
        found = [
            self._read(target, name, state, fresh)
            for target, name in zip(module.input_targets, module.input_var_names, strict=True)
        ]
        value = module.torch_module(*found)
        (target,) = module.output_targets
        expected = (len(value), *target.size)
        if value.shape.numel() != torch.Size(expected).numel():
            raise InputError(f"{module!r} gives {tuple(value.shape)}; {target!r} has {expected}")
        sums[id(target), module.output_var_names[0]].append(value.reshape(expected))

    @torch.no_grad()
    def _learn(self, before: dict[Key, Tensor], now: dict[Key, Tensor], k: int, count: int) -> None:
        for learner, rules in self.rules:
            reward = self._reward(learner, any(rule.needs_reward for rule in rules))
            for rule in rules:
                pre, post, like = self._sides(rule, now)
                seen = [before[pre], before[id(post), "O"], now[pre], now[id(post), "O"]]
                if not rule.image:
                    seen = [value.flatten(1) for value in seen]
                x, y, x_now, y_now = (value.to(like.dtype) for value in seen)
                target = learner.target_at(rule, k, post.num, x)
                names = self.plan.groups[id(post)].model.states
                state = {name: now[id(post), name] for name in names}
                dt, last = self.plan.dt, k == count - 1
                m = Moment(x, y, x_now, y_now, target, reward, dt, last, k, state)
                rule.step(m)
                if isinstance(rule, GroupRule):
                    for name, value in m.state.items():
                        if name not in names or value.shape != now[id(post), name].shape:
                            raise InputError(
                                f"{learner!r} gives {post!r} the state {name} of shape "
                                f"{tuple(value.shape)}; it has {', '.join(names)}, each "
                                f"{tuple(now[pre].shape)}"
                            )
                        now[id(post), name] = value
                elif rule.con.mask is not None:
                    rule.weight.mul_(rule.con.mask)

    @staticmethod
    def _sides(rule: Rule, now: dict[Key, Tensor]) -> tuple[Key, Any, Tensor]:
        """What a rule reads as its source, its target, and a tensor of its precision."""
        if isinstance(rule, GroupRule):
            key = (id(rule.group), "O")
            return key, rule.group, now[key]
        con = rule.con
        return (id(con.pre), con.pre_var_name), con.post, rule.weight

    def _reward(self, learner: Learner, needed: bool) -> Tensor | None:
        node, rewards = learner.reward, self.plan.rewards
        if node is None and len(rewards) == 1:
            node = rewards[0]
        if node is None and needed:
            raise InputError(
                f"{learner!r}: {learner.algorithm} needs a reward, and the network has "
                f"{len(rewards)}; add one or name it with reward="
            )
        return None if node is None else node.value

    def _watch(self, state: dict[Key, Tensor], step: int) -> None:
        dt = self.plan.dt
        for monitor in self.plan.monitors:
            if monitor.is_due(step, dt):
                monitor.take(self._watched(monitor, state), step * dt)

    def _watched(self, monitor: Any, state: dict[Key, Tensor]) -> Tensor:
        """What a monitor records; the traces of rules are not among the states."""
        target, name = monitor.target, monitor.var_name
        if not isinstance(target, Learner):
            return watched(monitor, state)
        rules = next((rules for learner, rules in self.rules if learner is target), [])
        if len(rules) != 1:
            raise InputError(
                f"{monitor!r}: {target!r} has rules of {len(rules)} connections; traces are "
                "recorded of learners with one"
            )
        traces = rules[0].traces
        if name not in traces:
            raise InputError(f"{monitor!r}: {did_you_mean(name, traces, f'trace of {target!r}')}")
        return traces[name]


def watched(monitor: Any, state: dict[Key, Tensor]) -> Tensor:
    """Finds the variable that a monitor records.

    Args:
        monitor: The monitor.
        state: The variables.

    Returns:
        [batch, ...]; a weight and a reward get a batch axis of one.
    """
    target, name = monitor.target, monitor.var_name
    if isinstance(target, Reward):
        return target.output[None]
    if isinstance(target, Connection):
        value = getattr(target, name, None)
        if not isinstance(value, Tensor):
            raise InputError(f"{monitor!r}: {target!r} has no tensor {name!r}")
        return value[None]
    return state[id(target), name]
