"""Programs on numbers, arrays and tensors, and as scalar code for numba."""

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import erf
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.spaic.equations.language import Program, calls, size, variable

# --------------------------------------------------------------------------------- on torch, NumPy


def _either(on_tensor: Callable[..., Any], on_number: Callable[..., Any]) -> Callable[..., Any]:
    """Calls the one on tensors, the other on numbers and arrays."""

    def call(*values: Any) -> Any:
        if any(isinstance(value, Tensor) for value in values):
            return on_tensor(*values)
        made = on_number(*values)
        # A NumPy number on the left of a tensor would turn the product into an array.
        return made.item() if np.ndim(made) == 0 and hasattr(made, "item") else made

    return call


def _exprel_tensor(x: Tensor) -> Tensor:
    small = x.abs() < 1e-5
    safe = torch.where(small, torch.ones_like(x), x)
    return torch.where(small, 1 + x / 2 + x * x / 6, torch.expm1(safe) / safe)


def _exprel_number(x: Any) -> Any:
    x = np.asarray(x, dtype=np.float64)
    small = np.abs(x) < 1e-5
    safe = np.where(small, 1.0, x)
    return np.where(small, 1 + x / 2 + x * x / 6, np.expm1(safe) / safe)


def _tensors(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Lets a function of two tensors take a number as the second."""

    def call(a: Any, b: Any) -> Tensor:
        like = a if isinstance(a, Tensor) else b
        given: Any = {"dtype": like.dtype, "device": like.device}  # not by way of single precision
        return function(torch.as_tensor(a, **given), torch.as_tensor(b, **given))

    return call


def _heaviside(x: Any) -> Any:
    return (x > 0).to(x.dtype) if isinstance(x, Tensor) else np.where(np.asarray(x) > 0, 1.0, 0.0)


NAMESPACE: dict[str, Callable[..., Any]] = {
    "exp": _either(torch.exp, np.exp),
    "log": _either(torch.log, np.log),
    "sqrt": _either(torch.sqrt, np.sqrt),
    "tanh": _either(torch.tanh, np.tanh),
    "erf": _either(torch.erf, erf),
    "sin": _either(torch.sin, np.sin),
    "cos": _either(torch.cos, np.cos),
    "sigmoid": _either(torch.sigmoid, lambda x: 1 / (1 + np.exp(-np.asarray(x, dtype=float)))),
    "relu": _either(torch.relu, lambda x: np.maximum(x, 0.0)),
    "abs": abs,
    "floor": _either(torch.floor, np.floor),
    "round": _either(torch.round, np.round),
    "exprel": _either(_exprel_tensor, _exprel_number),
    "spike": _heaviside,
    "spike_at": lambda x: 1 - _heaviside(-x),
    "detach": lambda x: x.detach() if isinstance(x, Tensor) else x,
    "where": _either(
        lambda c, a, b: torch.where(torch.as_tensor(c), a, b), lambda c, a, b: np.where(c, a, b)
    ),
    "maximum": _either(_tensors(torch.maximum), np.maximum),
    "minimum": _either(_tensors(torch.minimum), np.minimum),
    "clip": _either(torch.clamp, np.clip),
}


# Libraries import when they warn; the language itself can call nothing but FUNCTIONS.
_BUILTINS = {"__import__": __import__}


def evaluate(node: ast.expr, values: Mapping[str, Any]) -> Any:
    """Computes one expression from numbers, arrays or tensors.

    Args:
        node: The expression.
        values: Name → value.
    """
    code = compile(ast.fix_missing_locations(ast.Expression(node)), "<expression>", "eval")
    scope = {"__builtins__": _BUILTINS, **NAMESPACE}
    try:
        return eval(code, scope, dict(values))  # a checked expression
    except OverflowError as error:
        raise InputError(f"{ast.unparse(node)} is too large a number") from error


def evaluate_all(program: Program, values: Mapping[str, Any]) -> dict[str, Any]:
    """Computes a program from numbers, arrays or tensors, line by line.

    Args:
        program: The statements.
        values: Name → value.

    Returns:
        The assigned names and their values.
    """
    known, made = dict(values), {}
    for line in program:
        known[line.name] = made[line.name] = evaluate(line.value, known)
    return made


def torch_function(program: Program, arguments: Sequence[str], results: Sequence[str]) -> Any:
    """Compiles a program for tensors.

    Args:
        program: The statements.
        arguments: The names it reads, in order.
        results: The names it gives, in order.

    Returns:
        `f(functions, *arguments) -> tuple`; `functions` is a dict that may replace `spike` and
        must supply the random functions and the sums if the program calls them.
    """
    used = sorted(calls(program))
    head = f"def step(functions, {', '.join(arguments)}):"
    body = [f"    {name} = functions[{name!r}]" for name in used]
    body += [f"    {line}" for line in program]
    body.append(f"    return ({''.join(name + ', ' for name in results)})")
    scope: dict[str, Any] = {"__builtins__": _BUILTINS}
    exec("\n".join([head, *body]), scope)  # every line has been checked by `expression`
    return scope["step"]


# ---------------------------------------------------------------------------- scalar code for numba

_WRITTEN_OUT = 256
"""A power becomes a product, which is quicker, up to this many nodes."""


def scalar_lines(program: Program, literal: Callable[[float], str]) -> list[str]:
    """Writes a program as scalar Python for numba; a `where` becomes a conditional expression.

    Args:
        program: The statements.
        literal: Gives the name of a constant of the working precision.
    """

    class Scalar(ast.NodeTransformer):
        def visit_Constant(self, node: ast.Constant) -> ast.expr:
            return variable(literal(float(node.value)))  # type: ignore[arg-type]

        def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
            power = node.right if isinstance(node.op, ast.Pow) else None
            if isinstance(power, ast.Constant) and power.value in (2, 3, 4):
                base, times = self.visit(node.left), int(power.value)  # type: ignore[arg-type]
                # Powers of powers would be written out without end.
                if times * size(base) > _WRITTEN_OUT:
                    return ast.BinOp(base, node.op, self.visit(power))
                made = base
                for _ in range(times - 1):
                    made = ast.BinOp(made, ast.Mult(), base)
                return made
            self.generic_visit(node)
            return node

        def visit_Call(self, node: ast.Call) -> ast.expr:
            arguments = [self.visit(item) for item in node.args]
            function = node.func.id if isinstance(node.func, ast.Name) else ""
            if function == "where":
                return ast.IfExp(*arguments)
            if function == "detach":
                return arguments[0]
            if function in ("spike", "spike_at"):
                reached = ast.Gt() if function == "spike" else ast.GtE()
                test = ast.Compare(arguments[0], [reached], [variable(literal(0.0))])
                return ast.IfExp(test, variable(literal(1.0)), variable(literal(0.0)))
            return ast.Call(variable(f"f_{function}"), arguments, [])

    lines = []
    for line in program:
        tree = ast.parse(ast.unparse(line.value), mode="eval").body
        value = ast.unparse(ast.fix_missing_locations(Scalar().visit(tree)))
        lines.append(f"{line.name} = {value}")
    return lines


class Literals:
    """Names constants, so that numba takes them in the working precision and not as float64."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype).type
        self.scope: dict[str, Any] = {}
        self._known: dict[float, str] = {}

    def __call__(self, value: float) -> str:
        """Gives the name of a constant."""
        if value not in self._known:
            self._known[value] = f"c_{len(self._known)}"
            self.scope[self._known[value]] = self.dtype(value)
        return self._known[value]
