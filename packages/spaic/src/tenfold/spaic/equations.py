"""A small language for models: Python's arithmetic, one assignment a line, compiled three ways.

A neuron model is text such as

```
u = beta * V + Isyn
O = spike(u - v_th)
V = where(O > 0, v_reset, u)
```

that is read from top to bottom: a state keeps its old value until its line. `spike(u)` is 1 where
u > 0, `spike_at(u)` where u >= 0; a learner may give both a surrogate gradient. A comparison has no
gradient, so the reset above is detached, while `V = u - u * O` is not. Differential equations
(`dV/dt = -V / tau`) are turned into such steps by `integrate`. Only names, numbers, arithmetic,
comparisons and the functions of `FUNCTIONS` are accepted, so a model read from a file cannot run
other code.
"""

import ast
import keyword
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.linalg import expm
from torch import Tensor

from tenfold.shared.errors import InputError, did_you_mean

FUNCTIONS = frozenset(
    [
        "exp",
        "log",
        "sqrt",
        "tanh",
        "sigmoid",
        "relu",
        "abs",
        "sin",
        "cos",
        "floor",
        "round",
        "exprel",
        "spike",
        "spike_at",
        "detach",
        "where",
        "maximum",
        "minimum",
        "clip",
        "uniform",
        "normal",
        "sum",
        "batch_sum",
    ]
)
"""What may be called: `exprel(x)` is (e^x − 1)/x; `uniform()`, `normal()` draw a number for each
neuron; `sum(x)` adds over the group, `batch_sum(x)` over the batch."""

LONGEST = 20_000
"""No model and no expression has more characters than this."""

RANDOM = frozenset({"uniform", "normal"})
ACROSS = frozenset({"sum", "batch_sum"})

_NODES = (
    ast.BinOp,
    ast.UnaryOp,
    ast.Compare,
    ast.Call,
    ast.Name,
    ast.Constant,
    ast.Load,
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.Div,
    ast.Pow,
    ast.USub,
    ast.Gt,
    ast.Lt,
    ast.GtE,
    ast.LtE,
    ast.Eq,
    ast.BitAnd,
    ast.BitOr,
)


@dataclass(frozen=True)
class Statement:
    """One line: `name = value`."""

    name: str
    value: ast.expr

    def __str__(self) -> str:
        return f"{self.name} = {ast.unparse(self.value)}"


Program = tuple[Statement, ...]


def parse(text: str, where: str = "equations") -> Program:
    """Reads lines of assignments; `dX/dt = ...` is read as an assignment to `dX/dt`.

    Args:
        text: The lines; `#` begins a comment.
        where: What the text belongs to, for messages.

    Raises:
        InputError: For anything that is not an assignment of allowed arithmetic.
    """
    program = []
    if len(text) > LONGEST:
        raise InputError(f"{where}: {len(text)} characters; expected at most {LONGEST}")
    for line in text.splitlines():
        line = line.split("#")[0].strip()
        if not line:
            continue
        left, equals, right = line.partition("=")
        name = left.strip()
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*|d[A-Za-z_]\w*/dt", name):
            raise InputError(
                f"{where}: {line!r} is not `name = expression` or `dX/dt = expression`"
            )
        variable_name(name[1:-3] if name.endswith("/dt") else name, where)
        program.append(Statement(name, expression(right, where)))
    return tuple(program)


def variable_name(name: Any, where: str = "equations") -> None:
    """Refuses what cannot name a variable; names are written into the loops that are compiled.

    Args:
        name: The name of a state, a parameter, an input or a line's left side.
        where: What it belongs to, for messages.

    Raises:
        InputError: If it is not a plain name, or is taken by Python or by the engines.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise InputError(f"{where}: {name!r} is not the name of a variable; expected [A-Za-z_0-9]")
    if keyword.iskeyword(name):
        raise InputError(f"{where}: {name!r} is a word of Python, not the name of a variable")
    if name.startswith("z_"):
        raise InputError(f"{where}: {name!r}: names that begin with z_ are the engine's own")


def expression(text: str, where: str = "equations") -> ast.expr:
    """Reads one expression and refuses what the language does not have.

    Args:
        text: The expression.
        where: What it belongs to, for messages.

    Raises:
        InputError: If it is not allowed arithmetic.
    """
    if len(text) > LONGEST:
        raise InputError(f"{where}: {len(text)} characters; expected at most {LONGEST}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: {text.strip()!r} is not an expression") from error
    for node in ast.walk(tree):
        number = isinstance(node, ast.Constant) and type(node.value) in (int, float)
        if not isinstance(node, _NODES) or (isinstance(node, ast.Constant) and not number):
            raise InputError(f"{where}: {text.strip()!r} holds {type(node).__name__}; not allowed")
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and not names([node]):
            for part in ast.walk(node):  # whole numbers would grow without bound
                if isinstance(part, ast.Constant):
                    part.value = float(part.value)  # type: ignore[arg-type]
        if isinstance(node, ast.Compare) and len(node.ops) > 1:
            raise InputError(
                f"{where}: {text.strip()!r}: compare two values at a time, join with &"
            )
        if isinstance(node, ast.Call):
            if node.keywords or not isinstance(node.func, ast.Name):
                raise InputError(f"{where}: {text.strip()!r} holds a call that is not allowed")
            if node.func.id not in FUNCTIONS:
                raise InputError(f"{where}: {did_you_mean(node.func.id, FUNCTIONS, 'function')}")
    return tree


def names(nodes: Iterable[ast.AST]) -> set[str]:
    """Gives the names of variables (not of functions) that expressions read.

    Args:
        nodes: The expressions.
    """
    found, called = set(), set()
    for root in nodes:
        for node in ast.walk(root):
            if isinstance(node, ast.Name):
                found.add(node.id)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                called.add(node.func.id)
    return found - (called & FUNCTIONS)


def calls(program: Program) -> set[str]:
    """Gives the names of the functions that a program calls.

    Args:
        program: The statements.
    """
    walked = (node for line in program for node in ast.walk(line.value))
    return {n.func.id for n in walked if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}


def renamed(node: ast.expr, new: Mapping[str, ast.expr]) -> ast.expr:
    """Replaces names by expressions.

    Args:
        node: The expression.
        new: Name → expression.
    """

    class Rename(ast.NodeTransformer):
        def visit_Name(self, found: ast.Name) -> ast.expr:
            return new.get(found.id, found)

        def visit_Call(self, found: ast.Call) -> ast.expr:
            return ast.Call(found.func, [self.visit(item) for item in found.args], [])

    made: ast.expr = Rename().visit(ast.parse(ast.unparse(node), mode="eval").body)
    return made


# --------------------------------------------------------------------------- differential equations

METHODS = ("exact", "exp_euler", "euler", "rk2", "rk4")


def integrate(
    program: Program,
    method: str,
    constants: Mapping[str, Any],
    dt: float,
    where: str = "equations",
) -> tuple[Program, dict[str, np.ndarray]]:
    """Turns differential equations into the assignments of one step of length dt.

    Inputs and all other lines are constant over the step, except that the Runge–Kutta methods
    evaluate the other lines again at their inner points.

    Args:
        program: Lines `dX/dt = ...` and lines `name = ...`, which come before their use.
        method: `exact` (matrix exponential; linear equations with constant coefficients),
            `exp_euler` (each equation linear in its own variable; the others frozen), `euler`,
            `rk2` (midpoint), `rk4`.
        constants: Parameters (numbers or arrays of one value a neuron), for `exact`.
        dt: The step in ms, for `exact`.
        where: What the equations belong to, for messages.

    Returns:
        The assignments, which update all variables at once, and the constants they need.

    Raises:
        InputError: If the equations do not have the form that the method needs.
    """
    if method not in METHODS:
        raise InputError(f"{where}: {did_you_mean(method, METHODS, 'method')}")
    slopes = {line.name[1:-3]: line.value for line in program if line.name.endswith("/dt")}
    others = [line for line in program if not line.name.endswith("/dt")]
    if not slopes:
        return program, {}
    if method == "exact":
        return _exact(slopes, others, constants, dt, where)
    if method == "exp_euler":
        return _exponential_euler(slopes, others, where), {}
    return _runge_kutta(slopes, others, method), {}


def _name(text: str) -> ast.Name:
    return ast.Name(text, ast.Load())


def _runge_kutta(
    slopes: dict[str, ast.expr], others: list[Statement], method: str
) -> tuple[Statement, ...]:
    """euler, midpoint and the classical fourth-order method, written out."""
    stages = {"euler": [], "rk2": [0.5], "rk4": [0.5, 0.5, 1.0]}[method]
    lines: list[Statement] = []

    def stage(number: int, at: dict[str, ast.expr]) -> None:
        inner = dict(at)
        for line in others:
            name = line.name if number == 1 else f"{line.name}__{number}"
            lines.append(Statement(name, renamed(line.value, inner)))
            inner[line.name] = _name(name)
        for x, slope in slopes.items():
            lines.append(Statement(f"k{number}__{x}", renamed(slope, inner)))

    stage(1, {})
    for number, share in enumerate(stages, start=2):
        for x in slopes:
            point = expression(f"{x} + {share} * dt * k{number - 1}__{x}")
            lines.append(Statement(f"{x}__{number}", point))
        stage(number, {x: _name(f"{x}__{number}") for x in slopes})
    for x in slopes:
        total = {
            "euler": f"k1__{x}",
            "rk2": f"k2__{x}",
            "rk4": f"(k1__{x} + 2 * k2__{x} + 2 * k3__{x} + k4__{x}) / 6",
        }[method]
        lines.append(Statement(x, expression(f"{x} + dt * ({total})")))
    return tuple(lines)


def _exponential_euler(
    slopes: dict[str, ast.expr], others: list[Statement], where: str
) -> tuple[Statement, ...]:
    """x' = x e^{A dt} + B dt exprel(A dt), for dx/dt = A x + B with everything else frozen."""
    lines = list(others)
    new = []
    defined = {line.name: line.value for line in others}
    for x, slope in slopes.items():
        reached = names([slope])
        for name in reached & defined.keys():
            if x in names([defined[name]]):
                slope = renamed(slope, {name: defined[name]})
        a, b = _linear(slope, x, f"{where}: d{x}/dt")
        text = x
        if a is not None:
            lines.append(Statement(f"A__{x}", a))
            text = f"{x} * exp(A__{x} * dt)"
        if b is not None:
            lines.append(Statement(f"B__{x}", b))
            text += f" + B__{x} * dt" + (f" * exprel(A__{x} * dt)" if a is not None else "")
        new.append(Statement(x, expression(text)))
    return (*lines, *new)


def _exact(
    slopes: dict[str, ast.expr],
    others: list[Statement],
    constants: Mapping[str, Any],
    dt: float,
    where: str,
) -> tuple[Program, dict[str, np.ndarray]]:
    """x' = e^{A dt} x + (∫ e^{A s} ds) b, with b constant over the step."""
    state = list(slopes)
    inline: dict[str, ast.expr] = {}
    for line in others:
        inline[line.name] = renamed(line.value, inline)
    fixed = {**constants, "dt": dt}
    entries: dict[tuple[int, int], np.ndarray] = {}
    rest: list[ast.expr | None] = []
    for i, x in enumerate(state):
        remaining: ast.expr | None = renamed(slopes[x], inline)
        for j, y in enumerate(state):
            coefficient = None
            if remaining is not None:
                coefficient, remaining = _linear(remaining, y, f"{where}: d{x}/dt")
            if coefficient is not None:
                unknown = names([coefficient]) - fixed.keys()
                if unknown:
                    raise InputError(
                        f"{where}: method 'exact' needs constant coefficients, but that of {y} in "
                        f"d{x}/dt depends on {', '.join(sorted(unknown))}; take 'exp_euler'"
                    )
                entries[i, j] = np.asarray(evaluate(coefficient, fixed), dtype=np.float64)
        rest.append(remaining)
    shape = np.broadcast_shapes(*(value.shape for value in entries.values()), ())
    size = len(state)
    block = np.zeros((*shape, 2 * size, 2 * size))
    for (i, j), value in entries.items():
        block[..., i, j] = value * dt
    for i in range(size):
        block[..., i, size + i] = dt
    block = expm(block)
    made: dict[str, np.ndarray] = {}
    lines: list[Statement] = [
        Statement(f"b__{x}", value) for x, value in zip(state, rest, strict=True) if value
    ]
    for i, x in enumerate(state):
        terms = []
        for j, y in enumerate(state):
            for letter, column, factor in (("E", j, y), ("F", size + j, f"b__{y}")):
                value = block[..., i, column]
                if np.any(value != 0) and (letter == "E" or rest[j] is not None):
                    made[f"{letter}__{x}_{y}"] = value
                    terms.append(f"{letter}__{x}_{y} * {factor}")
        lines.append(Statement(f"{x}__next", expression(" + ".join(terms) or "0.0")))
    lines += [Statement(x, _name(f"{x}__next")) for x in state]
    return tuple(lines), made


def _linear(node: ast.expr, x: str, where: str) -> tuple[ast.expr | None, ast.expr | None]:
    """Writes an expression as a x + b; None stands for zero."""
    if x not in names([node]):
        zero = isinstance(node, ast.Constant) and node.value == 0
        return None, None if zero else node
    if isinstance(node, ast.Name):
        return ast.Constant(1.0), None
    if isinstance(node, ast.UnaryOp):
        parts = [_linear(node.operand, x, where)]
        a, b = parts[0]
        return a and ast.UnaryOp(ast.USub(), a), b and ast.UnaryOp(ast.USub(), b)
    if isinstance(node, ast.BinOp):
        (a1, b1), (a2, b2) = _linear(node.left, x, where), _linear(node.right, x, where)
        if isinstance(node.op, ast.Add | ast.Sub):
            return _sum(a1, node.op, a2), _sum(b1, node.op, b2)
        if isinstance(node.op, ast.Mult) and (a1 is None or a2 is None):
            if a1 is None:
                return _product(b1, a2), _product(b1, b2)
            return _product(a1, b2), _product(b1, b2)
        if isinstance(node.op, ast.Div) and a2 is None and b2 is not None:
            return (
                a1 and ast.BinOp(a1, ast.Div(), b2),
                b1 and ast.BinOp(b1, ast.Div(), b2),
            )
    raise InputError(f"{where} is not linear in {x}; take the method 'euler', 'rk2' or 'rk4'")


def _sum(left: ast.expr | None, op: ast.operator, right: ast.expr | None) -> ast.expr | None:
    if right is None:
        return left
    if left is None:
        return right if isinstance(op, ast.Add) else ast.UnaryOp(ast.USub(), right)
    return ast.BinOp(left, op, right)


def _product(left: ast.expr | None, right: ast.expr | None) -> ast.expr | None:
    return None if left is None or right is None else ast.BinOp(left, ast.Mult(), right)


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


def scalar_lines(program: Program, literal: Callable[[float], str]) -> list[str]:
    """Writes a program as scalar Python for numba; a `where` becomes a conditional expression.

    Args:
        program: The statements.
        literal: Gives the name of a constant of the working precision.
    """

    class Scalar(ast.NodeTransformer):
        def visit_Constant(self, node: ast.Constant) -> ast.expr:
            return _name(literal(float(node.value)))  # type: ignore[arg-type]

        def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
            power = node.right if isinstance(node.op, ast.Pow) else None
            if isinstance(power, ast.Constant) and power.value in (2, 3, 4):
                base = self.visit(node.left)
                made = base
                for _ in range(int(power.value) - 1):  # type: ignore[arg-type]
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
                test = ast.Compare(arguments[0], [reached], [_name(literal(0.0))])
                return ast.IfExp(test, _name(literal(1.0)), _name(literal(0.0)))
            return ast.Call(_name(f"f_{function}"), arguments, [])

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
