"""The text of the compiled loop, and the equations of groups in it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from tenfold.spaic import equations as eq
from tenfold.spaic.model.neurons import CompiledModel
from tenfold.spaic.plan import GroupPlan, Plan


@dataclass
class Code:
    """The text of the compiled loop and what it works on.

    Attributes:
        plan: What is computed.
        dtype: The precision.
        slots: How many steps of spikes are kept.
        own: Group → the neurons that this process computes, first and last + 1.
        literal: Names constants.
        arguments: Argument of the loop → array, number, or tuple of these.
        functions: Text of a group's equations → the name of the function that holds it; groups
            with equal equations share one.
        lines: The body of the loop over time.
    """

    plan: Plan
    dtype: Any
    slots: int
    own: dict[int, tuple[int, int]]
    literal: eq.Literals
    arguments: dict[str, Any] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def argument(self, name: str, value: Any) -> str:
        """Adds an argument of the loop."""
        self.arguments[name] = value
        return name

    def add(self, indent: int, *lines: str) -> None:
        """Adds lines to the body."""
        self.lines += ["    " * indent + line for line in lines]

    def function(self, kind: str, arguments: str, body: list[str]) -> str:
        """Adds a function, once, and gives its name."""
        text = "\n".join([f"({arguments}):", *body])
        return self.functions.setdefault(text, f"{kind}_{len(self.functions)}")

    def number(self, part: Any) -> int:
        """The number of a group in the names of arguments."""
        return list(self.plan.groups).index(id(part))

    def into(self, group: Any, name: str) -> str:
        """The array of an input or state, as the loop names it."""
        number, model = self.number(group), self.plan.groups[id(group)].model
        if name in model.inputs:
            return f"inputs_{number}[{model.inputs.index(name)}]"
        return f"states_{number}[{model.states.index(name)}]"

    def value(self, value: Any) -> Any:
        """A parameter as a number, or an array of one value a neuron."""
        value = value.detach().numpy() if isinstance(value, Tensor) else value
        value = np.asarray(value, dtype=self.dtype).reshape(-1)
        return value if value.size > 1 else value[0]


def write_advance(code: Code, number: int, entry: GroupPlan, watched: bool) -> None:
    """The equations of a group, in a function of their own.

    Args:
        code: The text.
        number: The group's number.
        entry: The group.
        watched: Whether its spikes are recorded in the loop.
    """
    model = entry.model
    program = _drawing(eq.scalar_lines(model.update, code.literal))
    read = eq.names(line.value for line in model.update)
    changed = {line.name for line in model.update}
    body = [
        *[f"    z_a_{name} = z_states[{k}]" for k, name in enumerate(model.states)],
        *[f"    z_b_{name} = z_inputs[{k}]" for k, name in enumerate(model.inputs) if name in read],
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
    arguments = "z_size, z_states, z_inputs, z_values, z_spikes, z_stream, z_first"
    name = code.function("advance", arguments, body)
    given = f"states_{number}, inputs_{number}, values_{number}, own_{number}[now]"
    stream = f"draw_stream(keys[{number}], t)"
    code.add(3, f"found = {name}(size_{number}, {given}, {stream}, first_{number})")
    code.add(3, f"owned_{number}[now] = found")
    for k in range(len(model.inputs)):
        code.add(3, f"inputs_{number}[{k}][:] = 0")
    if watched:
        code.add(3, "for k in range(found):", f"    at = seen_{number}[0]")
        code.add(4, f"who_{number}[at] = own_{number}[now, k]")
        code.add(4, f"when_{number}[at] = t", f"seen_{number}[0] = at + 1")


def _drawing(program: list[str]) -> list[str]:
    """Gives each call that draws a place of its own in the stream of a step."""
    calls = {"f_uniform()": "draw_uniform", "f_normal()": "draw_normal"}
    sites = sum(line.count(call) for line in program for call in calls)
    made, site = [], 0
    for line in program:
        for call, draw in calls.items():
            while call in line:
                # A normal number takes two places, so that the others keep to even ones too.
                place = f"({sites} * (z_first + z_i) + {site})"
                place = place if draw == "draw_normal" else f"2 * {place}"
                line = line.replace(call, f"{draw}(z_stream, {place})", 1)
                site += 1
        made.append(line)
    return made


def write_reset(code: Code, number: int, entry: GroupPlan) -> None:
    """What the neurons of a group do that spiked.

    Args:
        code: The text.
        number: The group's number.
        entry: The group.
    """
    model = entry.model
    if not model.reset:
        return
    read = eq.names(line.value for line in model.reset)
    changed = {line.name for line in model.reset}
    program = _drawing(eq.scalar_lines(model.reset, code.literal))
    body = [
        *[f"    z_a_{name} = z_states[{k}]" for k, name in enumerate(model.states)],
        *_unpacked(model, read),
        "    for z_k in range(z_count):",
        "        z_i = z_spikes[z_k]",
        *[f"        {name} = z_a_{name}[z_i]" for name in model.states if name in read],
        *_indexed(model, read),
        *[f"        {line}" for line in program],
        *[f"        z_a_{name}[z_i] = {name}" for name in model.states if name in changed],
    ]
    arguments = "z_count, z_spikes, z_states, z_values, z_stream, z_first"
    name = code.function("reset", arguments, body)
    given = f"owned_{number}[now], own_{number}[now], states_{number}, values_{number}"
    # The groups' keys come twice: for their equations and for their resets.
    stream = f"draw_stream(keys[{number + len(code.plan.groups)}], t)"
    code.add(3, f"{name}({given}, {stream}, first_{number})")


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
