"""Differential equations as the assignments of one step."""

import ast
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.linalg import expm

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.spaic.equations.compiling import evaluate
from tenfold.spaic.equations.language import (
    Program,
    Statement,
    expression,
    names,
    renamed,
    variable,
)

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
            inner[line.name] = variable(name)
        for x, slope in slopes.items():
            lines.append(Statement(f"k{number}__{x}", renamed(slope, inner)))

    stage(1, {})
    for number, share in enumerate(stages, start=2):
        for x in slopes:
            point = expression(f"{x} + {share} * dt * k{number - 1}__{x}")
            lines.append(Statement(f"{x}__{number}", point))
        stage(number, {x: variable(f"{x}__{number}") for x in slopes})
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
                slope = renamed(slope, {name: defined[name]}, where)
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
        inline[line.name] = renamed(line.value, inline, where)
    fixed = {**constants, "dt": dt}
    entries: dict[tuple[int, int], np.ndarray] = {}
    rest: list[ast.expr | None] = []
    for i, x in enumerate(state):
        remaining: ast.expr | None = renamed(slopes[x], inline, where)
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
    lines += [Statement(x, variable(f"{x}__next")) for x in state]
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
