"""What a neuron model is: its text, its parameters, and the step that is compiled from both."""

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.shared.progress import message
from tenfold.spaic import equations as eq


@dataclass(frozen=True, kw_only=True)
class NeuronModel:
    """What a neuron does in one step, as text (the language of `tenfold.spaic.equations`).

    Either `step` is the whole step and assigns `O`, or `ode` holds differential equations,
    `threshold` the condition of a spike, and `reset` what a neuron that spiked does after the
    spikes of this step have been delivered.

    Attributes:
        name: How a NeuronGroup asks for it.
        states: Variable → value at the start of a run: a number, an expression of the parameters,
            or `("uniform", low, high)`. `O` (spikes) is always there.
        parameters: Parameter → default: a number or an expression of the others; times in ms.
        constants: Lines computed once in float64 from the parameters and `dt`.
        step: Lines of one step.
        ode: Lines `dX/dt = ...`.
        threshold: The spike condition, for example `V > v_th` or `V >= v_th`. Of conditions joined
            by & the first is the one that learners give a gradient; the others are masks.
        jump: Lines between the integration of `ode` and the threshold.
        reset: Lines that only neurons that spiked carry out.
        inputs: Variables that hold the sum of what connections deliver in this step. A connection
            may also target a state: then the sum is added to it at the end of the step.
        arrivals: State → the input through which links that target the state come in, before the
            threshold as in NEST; their delay is at least a step.
        trainable: Parameters that a gradient learner trains.
        stay: States that a new run keeps.
        frozen: States that stand still while the neuron is refractory.
        pulses: States that are zero in a step without a spike, as `O` is; so they are while the
            neuron is refractory.
        method: How `ode` is integrated.
        dtype: The precision it needs, if not the network's.
    """

    name: str = "custom"
    states: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    constants: str = ""
    step: str = ""
    ode: str = ""
    threshold: str = ""
    jump: str = ""
    reset: str = ""
    inputs: tuple[str, ...] = ("Isyn",)
    arrivals: Mapping[str, str] = field(default_factory=dict)
    trainable: tuple[str, ...] = ()
    stay: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ("V",)
    pulses: tuple[str, ...] = ()
    method: str = "euler"
    dtype: str | None = None

    def __post_init__(self) -> None:
        """Refuses models that no compiler could take."""
        where = f"model {self.name!r}"
        for name in (*self.states, *self.parameters, *self.inputs):
            eq.variable_name(name, where)
            if name == "dt":
                raise InputError(f"{where}: dt is the step of the network; give it another name")
        if self.dtype not in (None, "float32", "float64"):
            raise InputError(f"{where}: dtype={self.dtype!r}; expected None, 'float32', 'float64'")
        assigned = {line.name for line in eq.parse(self.step, where)}
        if self.step and "O" not in assigned:
            raise InputError(f"{where}: no line assigns O, the spikes")
        if bool(self.step) == bool(self.ode):
            raise InputError(f"{where}: give either `step` or `ode`")
        for state, name in self.arrivals.items():
            if state not in self.states or name not in self.inputs:
                raise InputError(
                    f"{where}: arrivals has {state!r}: {name!r}; expected a state and an input"
                )
        if self.jump and not self.ode:
            raise InputError(f"{where}: `jump` goes with `ode`; write it into `step`")
        if self.ode and not self.threshold:
            raise InputError(f"{where}: `ode` needs a `threshold`, for example 'V > v_th'")
        self._check_names(where)

    def _check_names(self, where: str) -> None:
        """Refuses a line that reads what nothing gives, where the model is made."""
        known = {*self.parameters, "dt"}

        def check(text: str, values: Iterable[ast.expr]) -> None:
            for name in sorted(eq.names(values) - known):
                hint = did_you_mean(name, known, "name")
                raise InputError(f"{where}: `{text}` reads an {hint}")

        def read(lines: str) -> None:
            for line in eq.parse(lines, where):
                slope = line.name.endswith("/dt")
                if slope and line.name[1:-3] not in self.states:
                    hint = did_you_mean(line.name[1:-3], self.states, "state")
                    raise InputError(f"{where}: `{line}` changes an {hint}")
                check(str(line), [line.value])
                known.update(() if slope else {line.name})

        read(self.constants)
        known.update(self.states, self.inputs, {"O"})
        read(self.step or self.ode)
        read(self.jump)
        if self.threshold:
            check(self.threshold, [eq.expression(self.threshold, where)])
        read(self.reset)


@dataclass(frozen=True)
class CompiledModel:
    """A neuron model for one group: parameters resolved, equations turned into a step.

    Attributes:
        name: The model.
        states: All state variables, `O` last.
        initial: State → starting value (number, array of one value a neuron, or a uniform range).
        values: Names of parameters and constants that the step reads → number, array or tensor.
        update: The step up to the spikes.
        reset: What neurons that spiked do after the deliveries of this step.
        inputs: The names of the inputs.
        arrivals: State → the input through which links to the state come in.
        stay: States that a new run keeps.
        dtype: The precision.
    """

    name: str
    states: tuple[str, ...]
    initial: Mapping[str, Any]
    values: Mapping[str, Any]
    update: eq.Program
    reset: eq.Program
    inputs: tuple[str, ...]
    arrivals: Mapping[str, str]
    stay: tuple[str, ...]
    dtype: torch.dtype


PER_STEP = {"decay_v": "tau_m", "decay_th": "tau_theta"}
"""Factors a step of the official models → the time constants that stand for them."""


def resolve(model: NeuronModel, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Gives every parameter of a model its value.

    Args:
        model: The model.
        given: Parameters of the group; each a number, an array of one value a neuron or a tensor.
        where: The group, for messages.

    Raises:
        InputError: For unknown names, values that are not finite, times that are not positive.
    """
    for name in given:
        if name not in model.parameters and PER_STEP.get(name) in model.parameters:
            tau = PER_STEP[name]
            raise InputError(
                f"{where}: {name}={given[name]} is a factor a step, which only compat='spaic' "
                f"takes; give {tau} in ms, {tau} = -dt / log({name}) with the dt that it was for"
            )
        if name not in model.parameters:
            raise InputError(
                f"{where}: {did_you_mean(name, model.parameters, f'parameter of {model.name}')}"
            )
    made: dict[str, Any] = {}
    for name, default in model.parameters.items():
        value = given.get(name, default)
        if isinstance(value, str):
            try:
                value = eq.evaluate(eq.expression(value, where), made)
            except ZeroDivisionError:
                value = np.inf
        if not isinstance(value, torch.Tensor):
            value = np.asarray(value, dtype=np.float64)
            value = float(value) if value.ndim == 0 else value
        numbers = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        if not np.all(np.isfinite(numbers)):
            raise InputError(f"{where}: {name}={value} is not finite")
        if name.startswith("tau") and np.any(np.asarray(numbers) <= 0):
            raise InputError(f"{where}: {name}={value}; a time constant must be > 0 ms")
        made[name] = value
    return made


def compile_model(
    model: NeuronModel,
    parameters: Mapping[str, Any],
    dt: float,
    dtype: torch.dtype,
    method: str | None = None,
    refractory: Any = 0.0,
    refractory_from: str = "next",
    where: str = "group",
) -> CompiledModel:
    """Turns a model into the step of one group.

    Args:
        model: The model.
        parameters: From `resolve`.
        dt: The step in ms.
        dtype: The network's precision.
        method: How differential equations are integrated; by default the model's own.
        refractory: Refractory period in ms, one number or one a neuron. The states in
            `model.frozen` stand still and no spike is made.
        refractory_from: `next`: the period's steps begin after the spike (NEST); `spike`: the
            step of the spike is one of them (Brian2), so that intervals are one step shorter.
        where: The group, for messages.

    Raises:
        InputError: For a method, a period or a name that does not fit.
    """
    if refractory_from not in ("next", "spike"):
        raise InputError(
            f"{where}: refractory_from={refractory_from!r}; expected 'next' or 'spike'"
        )
    values: dict[str, Any] = dict(parameters) | {"dt": dt}
    _check_divisors(model, values, where)
    values |= eq.evaluate_all(eq.parse(model.constants, where), values)
    program: tuple[eq.Statement, ...]
    if model.ode:
        program, made = eq.integrate(
            eq.parse(model.ode, where), method or model.method, values, dt, where
        )
        values |= made
        if (method or model.method) == "euler":
            for name, value in parameters.items():
                _tell_coarse(name, value, dt, where)
    else:
        for name in parameters:  # a step that is written as forward Euler
            if f"dt / {name} *" in model.step or f"= dt / {name}" in model.constants:
                _tell_coarse(name, parameters[name], dt, where)
        if method is not None:
            raise InputError(f"{where}: model {model.name!r} has no differential equations")
        program = eq.parse(model.step, where)
    lines = list(program)
    if model.ode:
        lines += eq.parse(model.jump, where)
        condition = eq.expression(model.threshold, where)
        lines.append(eq.Statement("O", _spike_of(condition)))
    steps = np.rint(np.asarray(refractory, dtype=np.float64) / dt - (refractory_from == "spike"))
    if np.any(np.asarray(refractory) < 0) or not np.all(np.isfinite(steps)):
        raise InputError(f"{where}: refractory={refractory}; expected >= 0 ms")
    states = dict(model.states)
    if np.any(steps > 0):
        frozen = [name for name in model.frozen if name in states]
        first = [eq.parse(f"{name}__old = {name}")[0] for name in frozen]
        hold = [eq.parse(f"{name} = where(wait > 0, {name}__old, {name})")[0] for name in frozen]
        quiet = [f"{name} = where(wait > 0, 0.0, {name})" for name in ("O", *model.pulses)]
        masked = eq.parse("\n".join([*quiet, "wait = where(O > 0, wait_for, wait - 1)"]))
        if model.ode:  # what is held decides about the spike
            lines = [*first, *lines[:-1], *hold, lines[-1], *masked]
        else:
            lines = [*first, *lines, *hold, *masked]
        values["wait_for"] = float(steps) if steps.ndim == 0 else steps
        states["wait"] = 0.0
    update = tuple(lines)
    reset = eq.parse(model.reset, where)
    initial = {"O": 0.0}
    for name, start in states.items():
        if isinstance(start, str):
            start = eq.evaluate(eq.expression(start, where), values)
        initial[name] = start
    known = set(values) | set(initial) | set(model.inputs)
    for line in (*update, *reset):
        unknown = eq.names([line.value]) - known
        if unknown:
            raise InputError(f"{where}: `{line}` reads {', '.join(sorted(unknown))}, not defined")
        known.add(line.name)
    read = eq.names(line.value for line in (*update, *reset))
    wanted = getattr(torch, model.dtype) if model.dtype else dtype
    return CompiledModel(
        name=model.name,
        states=(*states, "O") if "O" not in states else tuple(states),
        initial=initial,
        values={name: value for name, value in values.items() if name in read},
        update=update,
        reset=reset,
        inputs=model.inputs,
        arrivals=model.arrivals,
        stay=model.stay,
        dtype=wanted,
    )


def _check_divisors(model: NeuronModel, values: Mapping[str, Any], where: str) -> None:
    """Refuses a parameter that is zero where the model divides by it."""
    text = (line.value for line in eq.parse(f"{model.constants}\n{model.ode or model.step}", where))
    for node in (node for value in text for node in ast.walk(value)):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            name = node.right.id if isinstance(node.right, ast.Name) else ""
            value = values[name] if name in model.parameters else 1.0
            held = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
            if np.any(np.asarray(held) == 0):
                raise InputError(f"{where}: {name}={value}; the model divides by it")


def _tell_coarse(name: str, value: Any, dt: float, where: str) -> None:
    """Says that a step is too long for forward Euler with a time constant."""
    tau = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
    if name.startswith("tau") and float(np.min(tau)) < 2 * dt:
        message(
            f"{where}: dt={dt:g} is more than half of {name}={np.min(tau):g} ms; "
            "forward Euler is not accurate then"
        )


def _spike_of(condition: ast.expr) -> ast.expr:
    """Writes a condition as a spike, which learners can give a gradient, and masks without one.

    `a > b` is spike(a - b), `a >= b` is spike_at(a - b); what is joined to it by & is a mask.
    """
    if isinstance(condition, ast.BinOp) and isinstance(condition.op, ast.BitAnd):
        first, mask = ast.unparse(_spike_of(condition.left)), ast.unparse(condition.right)
        return eq.expression(f"{first} * where({mask}, 1.0, 0.0)")
    if isinstance(condition, ast.Compare) and not isinstance(condition.ops[0], ast.Eq):
        sides = [ast.unparse(condition.left), ast.unparse(condition.comparators[0])]
        if isinstance(condition.ops[0], ast.Lt | ast.LtE):
            sides.reverse()
        strict = isinstance(condition.ops[0], ast.Gt | ast.Lt)
        return eq.expression(f"{'spike' if strict else 'spike_at'}(({sides[0]}) - ({sides[1]}))")
    return eq.expression(f"where({ast.unparse(condition)}, 1.0, 0.0)")
