"""The loops over time of one group for a GPU: the same elementary operations, written for Triton.

A block of neurons goes through all steps with its states in registers, forward and, with the
adjoint, backward. `TRITON_INTERPRET=1` runs the same kernels on the CPU, for tests.
"""

import ast
import importlib.util
import linecache
import types
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tenfold.spaic import equations as eq
from tenfold.spaic.engines.scan.kernels import Kernel
from tenfold.spaic.plan import Plan

BLOCK = 256
"""Neurons of one program."""

_HEAD = """
import triton
import triton.language as tl


@triton.jit
def f_exprel(x):
    small = tl.abs(x) < 1e-2
    safe = tl.where(small, x * 0.0 + 1.0, x)
    near = 1.0 + x * 0.5 * (1.0 + x / 3.0 * (1.0 + x * 0.25))
    return tl.where(small, near, (tl.exp(safe) - 1.0) / safe)


@triton.jit
def f_exprel_slope(x):
    small = tl.abs(x) < 1e-1
    safe = tl.where(small, x * 0.0 + 1.0, x)
    e = tl.exp(safe)
    near = 0.5 + x / 3.0 * (1.0 + x * 0.375 * (1.0 + x * 4.0 / 15.0 * (1.0 + x * 5.0 / 24.0)))
    return tl.where(small, near, (e - (e - 1.0) / safe) / safe)


@triton.jit
def f_round(x):
    low = tl.floor(x)
    rest = x - low
    odd = low - 2.0 * tl.floor(low * 0.5) == 1.0
    return tl.where((rest > 0.5) | ((rest == 0.5) & odd), low + 1.0, low)


@triton.jit
def f_tanh(x):
    e = tl.exp(-2.0 * tl.abs(x))
    y = (1.0 - e) / (1.0 + e)
    return tl.where(x < 0, -y, y)

"""
_CALLS = {
    "f_exp": "tl.exp({})",
    "f_log": "tl.log({})",
    "f_sqrt": "tl.sqrt({})",
    "f_sigmoid": "(1.0 / (1.0 + tl.exp(-({}))))",
    "f_relu": "tl.maximum({}, 0.0)",
    "f_maximum": "tl.maximum({}, {})",
    "f_minimum": "tl.minimum({}, {})",
    "f_clip": "tl.minimum(tl.maximum({}, {}), {})",
    "f_sin": "tl.sin({})",
    "f_cos": "tl.cos({})",
    "f_abs": "tl.abs({})",
    "f_erf": "tl.erf({})",
    "f_floor": "tl.floor({})",
}


def refusal(plan: Plan) -> str | None:
    """Says why Triton cannot run the groups of a plan; None if it can.

    Args:
        plan: The plan.
    """
    if importlib.util.find_spec("triton") is None:
        return "its kernels on a GPU need the package triton"
    for entry in plan.groups.values():
        if entry.model.dtype != torch.float32:
            return f"{entry.group!r}: its kernels on a GPU are of single precision"
        lines = (*entry.model.update, *entry.model.reset)
        for node in (node for line in lines for node in ast.walk(line.value)):
            power = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow)
            if power and _number(node.right) is None:  # type: ignore[attr-defined]
                return f"{entry.group!r} has a power with an exponent that is no number"
    return None


def _number(node: ast.expr) -> float | None:
    if isinstance(node, ast.Constant):
        return float(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _number(node.operand)
        return None if inner is None else -inner
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
        left, right = _number(node.left), _number(node.right)
        return None if left is None or right is None else left - right
    return None


class _ForTriton(ast.NodeTransformer):
    """Turns a line that numba would compile into one that Triton does.

    Args:
        scope: Name of a constant → number.
    """

    def __init__(self, scope: dict[str, Any]) -> None:
        self.scope = {name: float(value) for name, value in scope.items()}

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(self.scope[node.id]) if node.id in self.scope else node

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        parts = [self.visit(part) for part in (node.test, node.body, node.orelse)]
        return _parsed("tl.where({}, {}, {})", parts)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        parts = [self.visit(part) for part in node.args]
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in _CALLS:
            return _parsed(_CALLS[name], parts)
        return ast.Call(node.func, parts, node.keywords)

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        left, right = self.visit(node.left), self.visit(node.right)
        if not isinstance(node.op, ast.Pow):
            return ast.BinOp(left, node.op, right)
        exponent = _number(right)
        assert exponent is not None  # `refusal` has looked
        if exponent == int(exponent) and abs(exponent) <= 16:
            made = _parsed("1.0 + 0.0 * {}", [left])
            for _ in range(int(abs(exponent))):
                made = ast.BinOp(made, ast.Mult(), left)
            return made if exponent >= 0 else ast.BinOp(ast.Constant(1.0), ast.Div(), made)
        return _parsed(f"tl.exp({exponent!r} * tl.log({{}}))", [left])


def _parsed(template: str, parts: Sequence[ast.expr]) -> ast.expr:
    text = template.format(*[f"({ast.unparse(ast.fix_missing_locations(p))})" for p in parts])
    return ast.parse(text, mode="eval").body


class TritonKernel(Kernel):
    """The loops of one group, compiled by Triton."""

    def launch(
        self,
        arrays: frozenset[str],
        backward: tuple[frozenset[str], frozenset[str]] | None,
        given: Sequence[Tensor | float],
    ) -> None:
        """Runs a loop over the whole time; see `Kernel.launch`."""
        like: Tensor = given[len(self.states)]  # type: ignore[assignment]
        steps, size = like.shape
        # Backward, the pointers begin at the last step: no product of large numbers is needed.
        at = 0 if backward is None else steps - 1
        given = [x[at] if isinstance(x, Tensor) and x.ndim == 2 else x for x in given]
        self.function(arrays, backward)[(-(-size // BLOCK),)](*given, steps, size, BLOCK=BLOCK)

    def _compile(
        self, arrays: frozenset[str], backward: tuple[frozenset[str], frozenset[str]] | None
    ) -> Any:
        literal = eq.Literals(self.dtype)
        tape, values = self.tape(literal), list(self.entry.model.values)
        given = [f"S_{name}" for name in self.states] + [f"I_{name}" for name in self.inputs]
        given += [f"P_{name}" if name in arrays else f"p_{name}" for name in values]
        start = [f"p_{name} = {_load(f'P_{name}')}" for name in values if name in arrays]
        load = [f"i_{name} = {_load(f'I_{name}')}" for name in self.inputs]
        if backward is None:
            start += [f"s_{name} = {_load(f'S_{name}')}" for name in self.states]
            body = [*load, *tape.forward()]
            body += [f"n_{name} = {tape.now[name]} + none" for name in self.states]
            for name in self.states:
                body += [f"S_{name} += M", f"tl.store(S_{name} + m, n_{name}, mask=ok)"]
                body += [f"s_{name} = n_{name}"]
            body += [f"I_{name} += M" for name in self.inputs]
            end: list[str] = []
        else:
            arriving, wanted = backward
            seen = [name for name in self.states if name in arriving]
            sums = [name for name in values if name in wanted]
            given += [f"G_{name}" for name in seen] + [f"C_{name}" for name in self.states]
            given += [f"DI_{name}" for name in self.inputs] + [f"DP_{name}" for name in sums]
            start += [f"c_s_{name} = {_load(f'C_{name}')}" for name in self.states]
            start += [f"c_p_{name} = {_load(f'DP_{name}')}" for name in sums]
            load += [f"s_{name} = {_load(f'S_{name}')}" for name in self.states]
            load += [f"g_{name} = {_load(f'G_{name}')}" for name in seen]
            arrives = {
                name: f"c_s_{name}" + (f" + g_{name}" if name in arriving else "")
                for name in self.states
            }
            body = [*load, *self.adjoint(tape, wanted, arrives)]
            body += [f"c_s_{name} = d_s_{name} + none" for name in self.states]
            body += [f"c_p_{name} += d_p_{name}" for name in sums]
            body += [f"tl.store(DI_{name} + m, d_i_{name} + none, mask=ok)" for name in self.inputs]
            moving = [f"S_{n}" for n in self.states] + [f"G_{n}" for n in seen]
            moving += [f"{kind}_{n}" for n in self.inputs for kind in ("I", "DI")]
            body += [f"{pointer} -= M" for pointer in moving]
            end = [f"tl.store(C_{name} + m, c_s_{name}, mask=ok)" for name in self.states]
            end += [f"tl.store(DP_{name} + m, c_p_{name}, mask=ok)" for name in sums]
        turn = _ForTriton(literal.scope)
        body = [ast.unparse(ast.fix_missing_locations(turn.visit(ast.parse(x)))) for x in body]
        lines = ["@triton.jit", f"def loop({', '.join(given)}, T, M, BLOCK: tl.constexpr):"]
        lines += ["    m = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)", "    ok = m < M"]
        lines += ["    none = tl.zeros((BLOCK,), tl.float32)"]
        lines += ["    " + line for line in start]
        lines += ["    for t in range(T):"] + ["        " + line for line in body]
        lines += ["    " + line for line in end]
        return _compiled("\n".join(lines) + "\n")


def _load(pointer: str) -> str:
    # Ones beyond the end, so that nothing is divided by zero there.
    return f"tl.load({pointer} + m, mask=ok, other=1.0)"


def _compiled(text: str) -> Any:
    """Makes the kernel of a text, which is kept where Triton looks for a function's source."""
    number = sum(name.startswith("<tenfold.spaic triton") for name in linecache.cache)
    filename = f"<tenfold.spaic triton {number}>"
    text = _HEAD + text
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    module = types.ModuleType(f"tenfold_spaic_triton_{number}")
    exec(compile(text, filename, "exec"), module.__dict__)  # written from checked expressions
    return module.__dict__["loop"]
