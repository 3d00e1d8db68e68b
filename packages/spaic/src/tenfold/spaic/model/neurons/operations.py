"""A neuron model from a list of operations, as the official front end has it (section 4.1)."""

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.spaic import equations as eq
from tenfold.spaic.model.neurons.custom import read_function
from tenfold.spaic.model.neurons.definition import NeuronModel

OPERATORS: Mapping[str, str] = {
    "threshold": "spike({0} - {1})",
    "reset": "where({1} == 0, {0}, 0.0)",
    "var_linear": "{0} * {1} + {2}",
    "var_mult": "{0} * {1}",
    "minus": "{0} - {1}",
    "div": "{0} / {1}",
    "assign": "{0}",
    "relu": "relu({0})",
    "exp": "exp({0})",
    "sin": "sin({0})",
    "cos": "cos({0})",
    "tan": "sin({0}) / cos({0})",
    "log": "log({0})",
    "log2": "log({0}) / 0.6931471805599453",
    "log10": "log({0}) / 2.302585092994046",
    "sigmoid": "sigmoid({0})",
}
"""Operator → its expression; `add` takes any number of inputs. Those of matrices and images belong
to connections."""


def operations_model(
    operations: Sequence[Sequence[Any]],
    variables: Mapping[str, Any],
    tau: Mapping[str, Any] | None = None,
    membrane: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    constants: Mapping[str, Any] | None = None,
    name: str = "custom",
) -> NeuronModel:
    """Translates the five dictionaries and the operations of an official model into equations.

        model = operations_model(
            [
                ("u", "var_linear", "tauM", "V", "Isyn[updated]"),
                ("O", "threshold", "u", "Vth"),
                ("V", "reset", "u", "O[updated]"),
            ],
            variables={"V": 0.0, "O": 0.0, "Isyn": 0.0}, tau={"tauM": 8.0}, constants={"Vth": 1.0},
        )
        group = NeuronGroup(100, model=model, tauM=12.0)

    A variable that no operation computes is an input. `X[updated]` is the value of this step, `X`
    that of the step before; names that are no variables live within the step. What is computed
    twice is added up. A variable named `X[stay]` is kept by a new run.

    Args:
        operations: Tuples (output, operator, inputs ...); the operator is a name of `OPERATORS`,
            `add`, or a plain function, whose source is read as an equation.
        variables: Variable → first value.
        tau: Name → time constant in ms; the operations see e^{−dt/τ}.
        membrane: Name → time constant in ms; the operations see dt/τ.
        parameters: Name → first value; a gradient learner trains it.
        constants: Name → value.
        name: The model's name.

    Returns:
        The model, for `NeuronGroup(model=...)` or `tenfold.spaic.model.neurons.register`.

    Raises:
        InputError: For an operator or a name that is not known, or a value that is read before it
            is computed.
    """
    where = f"operations_model {name!r}"
    tau, membrane = dict(tau or {}), dict(membrane or {})
    factors = {key: f"{key}__factor" for key in (*tau, *membrane)}
    lines = [f"{key}__factor = exp(-dt / {key})" for key in tau]
    lines += [f"{key}__factor = dt / {key}" for key in membrane]
    values = {**tau, **membrane, **(parameters or {}), **(constants or {})}
    stay = tuple(_bare(key, where) for key in variables if key.endswith("[stay]"))
    first = {_bare(key, where): value for key, value in variables.items()}
    computed = {_bare(row[0], where) for row in operations}
    if "O" not in computed:
        raise InputError(f"{where}: no operation gives O, the spikes")
    reader = _Reader(where, set(first), {key for key in first if key not in computed}, factors)
    reader.fixed = set(values)
    step = [line for row in operations for line in reader.translate(row)]
    head = [f"{key}__old = {key}" for key in sorted(reader.old)]
    tail = [f"{key}__before = {key}" for key in sorted(reader.before)]
    states = {key: value for key, value in first.items() if key in computed and key != "O"}
    return NeuronModel(
        name=name,
        states=states | {f"{key}__before": 0.0 for key in sorted(reader.before)},
        parameters=values,
        constants="\n".join(lines),
        step="\n".join([*head, *step, *tail]),
        inputs=tuple(sorted(reader.inputs)) or ("Isyn",),
        trainable=tuple(parameters or ()),
        stay=stay,
    )


class _Reader:
    """Turns operations into lines, and remembers which values of the step before they need."""

    def __init__(
        self, where: str, variables: set[str], inputs: set[str], factors: Mapping[str, str]
    ) -> None:
        self.where, self.variables, self.inputs, self.factors = where, variables, inputs, factors
        self.fixed: set[str] = set()
        self.done: set[str] = set()
        self.old: set[str] = set()
        self.before: set[str] = set()

    def translate(self, row: Sequence[Any]) -> list[str]:
        """The line of one operation."""
        output, operator, *inputs = row
        output = _bare(output, self.where)
        value = self._value(operator, [self._read(str(item)) for item in inputs])
        if output in self.variables and output in self.done:
            value = f"{output} + ({value})"
        self.done.add(output)
        return [f"{output} = {value}"]

    def _read(self, given: str) -> str:
        name, updated = _bare(given, self.where), given.endswith("[updated]")
        if name in self.factors:
            return self.factors[name]
        if name in self.fixed:
            return name
        if name in self.inputs:
            if updated:
                return name
            self.before.add(name)
            return f"{name}__before"
        if name in self.done and (updated or name not in self.variables):
            return name
        if updated or name not in self.variables | {"O"}:
            raise InputError(f"{self.where}: {given} is read before an operation computes it")
        if name in self.done:
            self.old.add(name)
            return f"{name}__old"
        return name

    def _value(self, operator: Any, inputs: list[str]) -> str:
        if callable(operator):
            return self._inlined(operator, inputs)
        if operator == "add" and len(inputs) > 1:
            return " + ".join(inputs)
        if operator not in OPERATORS:
            known = ["add", *OPERATORS]
            raise InputError(f"{self.where}: {did_you_mean(str(operator), known, 'operator')}")
        expected = len(set(re.findall(r"\{(\d)\}", OPERATORS[operator])))
        if len(inputs) != expected:
            raise InputError(
                f"{self.where}: {operator} has {len(inputs)} inputs; expected {expected}"
            )
        return OPERATORS[operator].format(*inputs)

    def _inlined(self, function: Callable[..., Any], inputs: list[str]) -> str:
        arguments, lines, returned = read_function(function, self.where)
        if len(arguments) != len(inputs) or len(returned) != 1:
            raise InputError(
                f"{self.where}: {function.__name__} takes {len(arguments)} values and returns "
                f"{len(returned)}; expected {len(inputs)} and one"
            )
        new = {key: eq.expression(text) for key, text in zip(arguments, inputs, strict=True)}
        for target, value in lines:
            new[target] = eq.renamed(value, new)
        return f"({ast.unparse(eq.renamed(returned[0], new))})"


def _bare(name: Any, where: str) -> str:
    """A name without its tags."""
    made = re.sub(r"\[(updated|stay)\]$", "", str(name))
    eq.variable_name(made, where)
    return made
