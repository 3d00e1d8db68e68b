"""A neuron model from a plain function (section 4.1): its source is read as equations."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.spaic import equations as eq
from tenfold.spaic.model.neurons.definition import NeuronModel

_FACTORS = {
    "iterative": "",
    "ode": "",
    "euler_iterative": "dt / {}",
    "exp_euler_iterative": "exp(-dt / {})",
}


def custom_model(
    input_vars: Sequence[str],
    output_vars: Sequence[str],
    new_vars_dict: Mapping[str, Any],
    equation_type: str = "iterative",
    add_threshold: bool = True,
    base_model: NeuronModel | None = None,
) -> Callable[[Callable[..., Any]], NeuronModel]:
    """Turns a function into a neuron model; a decorator.

    The function is not called: its assignments and its `return` are read as the equations of a
    step, so that it runs on every engine. It may use arithmetic, comparisons, and the functions of
    `tenfold.spaic.equations` (also as `torch.exp` and the like).

        @custom_model(["V", "Isyn[updated]", "O", "tau"], ["V"],
                      {"V": 0.0, "tau": 8.0, "Vth[constant]": 1.0}, "exp_euler_iterative")
        def leaky(v, current, spiked, beta):
            return beta * v * (1 - spiked) + current

        group = NeuronGroup(100, model=leaky, tau=12.0)

    Args:
        input_vars: What the function's arguments are, in order: states, inputs (`Isyn[updated]`,
            the sum of this step), parameters.
        output_vars: What it returns, in order: states. All change at once.
        new_vars_dict: State or parameter → first value; a name with "tau" and one tagged
            `[constant]` is a parameter.
        equation_type: iterative: the returned values are the new ones. euler_iterative and
            exp_euler_iterative: as well, and the function sees dt/τ or e^{−dt/τ} where a name has
            "tau". ode: it returns the slopes dX/dt, which the group's `method` integrates.
        add_threshold: Appends `O = V > Vth`; without, the function returns `O` itself. `Vth` is 1
            where it is not given.
        base_model: A model whose states and parameters it also has.

    Raises:
        InputError: For names that do not fit each other, or what is not allowed arithmetic.
    """
    if equation_type not in _FACTORS:
        raise InputError(did_you_mean(equation_type, _FACTORS, "equation_type"))
    if equation_type == "ode" and not add_threshold:
        raise InputError("equation_type 'ode' needs add_threshold=True")

    def decorate(function: Callable[..., Any]) -> NeuronModel:
        where = f"custom_model {function.__name__}"
        arguments, lines, returned = read_function(function, where)
        inputs, outputs = [_plain(name) for name in input_vars], [_plain(x) for x in output_vars]
        for what, one, two in (
            ("arguments", arguments, input_vars),
            ("returned values", returned, output_vars),
        ):
            if len(one) != len(two):
                raise InputError(f"{where}: {len(one)} {what}, but {len(two)} names: {list(two)}")
        base = base_model or NeuronModel(step="O = Isyn")
        states, parameters = dict(base.states), dict(base.parameters)
        for name, value in new_vars_dict.items():
            fixed = "tau" in name or "[constant]" in name
            (parameters if fixed else states)[_plain(name)] = value
        if add_threshold:
            parameters.setdefault("Vth", 1.0)
        states.pop("O", None)
        unknown = [name for name in outputs if name not in states and name != "O"]
        if unknown or (add_threshold and "V" not in states):
            raise InputError(
                f"{where}: output {', '.join(unknown) or 'V'} is not a state of new_vars_dict"
            )
        factor, constants, new = _FACTORS[equation_type], base.constants, {}
        for argument, name in zip(arguments, inputs, strict=True):
            seen = name
            if factor and "tau" in name and name in parameters:
                seen = f"{name}_factor"
                constants += f"\n{seen} = {factor.format(name)}"
            new[argument] = ast.Name(seen, ast.Load())
        known = {*new, *states, *parameters, *inputs, "O", "dt"}
        for target, value in [*lines, *(("", value) for value in returned)]:
            for name in sorted(eq.names([value]) - known):
                told = f"{target} = {ast.unparse(value)}" if target else ast.unparse(value)
                hint = did_you_mean(name, known, "name")
                raise InputError(f"{where}: `{told}` reads an {hint}")
            known.add(target)
        text = []
        for target, value in lines:  # its own names may not meet the model's
            text.append(f"{target}__ = {ast.unparse(eq.renamed(value, new))}")
            new[target] = ast.Name(f"{target}__", ast.Load())
        values = [ast.unparse(eq.renamed(value, new)) for value in returned]
        delivered = tuple(
            name
            for name in dict.fromkeys(inputs)
            if name not in states and name not in parameters and name != "O"
        )
        made: dict[str, Any] = {
            "name": function.__name__,
            "states": states,
            "parameters": parameters,
            "constants": constants,
            "inputs": delivered or ("Isyn",),
            "step": "",
            "reset": "",
        }
        if equation_type == "ode":
            slopes = [f"d{name}/dt = {value}" for name, value in zip(outputs, values, strict=True)]
            return replace(base, **made, ode="\n".join([*text, *slopes]), threshold="V > Vth")
        text += [f"new{k}__ = {value}" for k, value in enumerate(values)]
        text += [f"{name} = new{k}__" for k, name in enumerate(outputs)]
        if add_threshold:
            text.append("O = spike(V - Vth)")
        return replace(base, **(made | {"step": "\n".join(text)}))

    return decorate


def _plain(name: str) -> str:
    return re.sub(r"\[\w+\]", "", name)


def read_function(
    function: Callable[..., Any], where: str
) -> tuple[list[str], list[tuple[str, ast.expr]], list[ast.expr]]:
    """Reads a function's source as equations; it is not called.

    Args:
        function: A plain function of assignments and a `return`.
        where: What it belongs to, for messages.

    Returns:
        Its arguments, its assignments and the expressions it returns.

    Raises:
        InputError: For anything that is not allowed arithmetic.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError) as error:
        raise InputError(f"{where}: its source cannot be read ({error})") from error
    (definition,) = tree.body
    if not isinstance(definition, ast.FunctionDef):
        raise InputError(f"{where}: expected a function written with def")
    lines: list[tuple[str, ast.expr]] = []
    returned: list[ast.expr] = []
    for statement in definition.body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # its docstring
        if returned:
            raise InputError(f"{where}: there is more after `return`")
        if isinstance(statement, ast.Return) and statement.value is not None:
            value = statement.value
            returned = list(value.elts) if isinstance(value, ast.Tuple) else [value]
        elif (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(statement.targets[0], ast.Name)
        ):
            lines.append((statement.targets[0].id, statement.value))
        else:
            raise InputError(
                f"{where}: {ast.unparse(statement)!r}: only `name = expression` and `return` "
                "are read"
            )
    if not returned:
        raise InputError(f"{where}: it returns nothing")

    def checked(value: ast.expr) -> ast.expr:
        class Bare(ast.NodeTransformer):
            def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
                return ast.Name(node.attr, ast.Load())

        return eq.expression(ast.unparse(Bare().visit(value)), where)

    names = [argument.arg for argument in definition.args.args]
    return names, [(name, checked(value)) for name, value in lines], list(map(checked, returned))
