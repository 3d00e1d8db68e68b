"""Programs as elementary operations, and the reverse of each: adjoints of a model's equations."""

import ast
import math
from dataclasses import dataclass

from tenfold.spaic import equations as eq
from tenfold.spaic.network.groups import ALPHA
from tenfold.spaic.network.learners import Surrogate

_BINARY = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_SPIKES = ("spike", "spike_at")
_TEST = {ast.Gt: ">", ast.Lt: "<", ast.GtE: ">=", ast.LtE: "<=", ast.Eq: "=="}


@dataclass(frozen=True)
class _Op:
    out: str
    kind: str
    args: tuple[str, ...]


class Tape:
    """A program as elementary operations, each name assigned once.

    Args:
        program: The statements.
        leaves: The names that the program reads, with the variable that holds each.
        literal: Names constants.
        surrogate: What stands in for the derivative of a spike, or None.
    """

    def __init__(
        self,
        program: eq.Program,
        leaves: dict[str, str],
        literal: eq.Literals,
        surrogate: Surrogate | None,
    ) -> None:
        self.literal, self.surrogate = literal, surrogate
        self.ops: list[_Op] = []
        self.now = dict(leaves)
        self.logical: set[str] = set()
        for line in program:
            self.now[line.name] = self._walk(line.value)

    def _emit(self, kind: str, *args: str) -> str:
        out = f"v{len(self.ops)}"
        self.ops.append(_Op(out, kind, args))
        return out

    def _walk(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return self.now[node.id]
        if isinstance(node, ast.Constant):
            return self.literal(float(node.value))  # type: ignore[arg-type]
        if isinstance(node, ast.UnaryOp):
            return self._emit("neg", self._walk(node.operand))
        if isinstance(node, ast.Compare):
            left, right = self._walk(node.left), self._walk(node.comparators[0])
            out = self._emit(_TEST[type(node.ops[0])], left, right)
            self.logical.add(out)
            return out
        if isinstance(node, ast.BinOp):
            left = self._walk(node.left)
            if isinstance(node.op, ast.Pow):
                power = node.right
                if isinstance(power, ast.Constant) and power.value in (2, 3, 4):
                    made = left
                    for _ in range(int(power.value) - 1):  # type: ignore[arg-type]
                        made = self._emit("*", made, left)
                    return made
                return self._emit("pow", left, self._walk(power))
            right = self._walk(node.right)
            if isinstance(node.op, ast.BitAnd | ast.BitOr):
                out = self._emit("&" if isinstance(node.op, ast.BitAnd) else "|", left, right)
                self.logical.add(out)
                return out
            return self._emit(_BINARY[type(node.op)], left, right)
        assert isinstance(node, ast.Call)
        assert isinstance(node.func, ast.Name)
        given = [self._walk(part) for part in node.args]
        if node.func.id in _SPIKES and self.surrogate is not None and self.surrogate.learned:
            given.append(self.now[ALPHA])
        return self._emit(node.func.id, *given)

    def forward(self) -> list[str]:
        """The lines that compute the program."""
        zero, one = self.literal(0.0), self.literal(1.0)
        lines = []
        for op in self.ops:
            a = op.args
            if op.kind in ("+", "-", "*", "/", "&", "|", ">", "<", ">=", "<=", "=="):
                text = f"{a[0]} {op.kind} {a[1]}"
            elif op.kind == "neg":
                text = f"-{a[0]}"
            elif op.kind == "pow":
                text = f"{a[0]} ** {a[1]}"
            elif op.kind == "where":
                text = f"{a[1]} if {a[0]} else {a[2]}"
            elif op.kind == "detach":
                text = a[0]
            elif op.kind in _SPIKES:
                from_zero = op.kind == "spike_at" or (self.surrogate and self.surrogate.at_zero)
                test = ">=" if from_zero else ">"
                text = f"{one} if {a[0]} {test} {zero} else {zero}"
            else:
                text = f"f_{op.kind}({', '.join(a)})"
            lines.append(f"{op.out} = {text}")
        return lines

    def active(self, roots: set[str]) -> set[str]:
        """The variables through which a gradient flows to the roots.

        Args:
            roots: Leaves whose gradients are wanted.
        """
        found = set(roots)
        stops = {"detach", "floor", "round"} | set(_TEST.values()) | {"&", "|"}
        for op in self.ops:
            if op.kind in stops or (op.kind in _SPIKES and self.surrogate is None):
                continue
            if found & set(op.args):
                found.add(op.out)
        return found

    def backward(self, seeds: dict[str, str], roots: set[str]) -> list[str]:
        """The lines that compute the gradients; that of a variable v is d_v.

        Args:
            seeds: Variable → the expression of the gradient that arrives at it.
            roots: Leaves whose gradients are wanted.
        """
        on = self.active(roots)
        zero = self.literal(0.0)
        lines = [f"d_{name} = {zero}" for name in sorted(on)]
        lines += [f"d_{name} += {text}" for name, text in seeds.items() if name in on]
        for op in reversed(self.ops):
            if op.out not in on:
                continue
            d = f"d_{op.out}"
            for name, text in self._reverse(op, d):
                if name in on:
                    lines.append(f"d_{name} += {text}")
        return lines

    def _reverse(self, op: _Op, d: str) -> list[tuple[str, str]]:
        a, out = op.args, op.out
        zero, one = self.literal(0.0), self.literal(1.0)
        kind = op.kind
        if kind == "+":
            return [(a[0], d), (a[1], d)]
        if kind == "-":
            return [(a[0], d), (a[1], f"-{d}")]
        if kind == "*":
            return [(a[0], f"{d} * {a[1]}"), (a[1], f"{d} * {a[0]}")]
        if kind == "/":
            return [(a[0], f"{d} / {a[1]}"), (a[1], f"-{d} * {out} / {a[1]}")]
        if kind == "neg":
            return [(a[0], f"-{d}")]
        if kind == "pow":
            return [
                (a[0], f"{d} * {a[1]} * {a[0]} ** ({a[1]} - {one})"),
                (a[1], f"{d} * {out} * f_log({a[0]})"),
            ]
        if kind == "where":
            return [
                (a[1], f"({d} if {a[0]} else {zero})"),
                (a[2], f"({zero} if {a[0]} else {d})"),
            ]
        if kind in ("maximum", "minimum"):
            test = ">" if kind == "maximum" else "<"
            return [
                (a[0], f"({d} if {a[0]} {test} {a[1]} else {zero})"),
                (a[1], f"({zero} if {a[0]} {test} {a[1]} else {d})"),
            ]
        if kind == "clip":
            return [(a[0], f"({d} if ({a[0]} >= {a[1]}) & ({a[0]} <= {a[2]}) else {zero})")]
        if kind in _SPIKES:
            surrogate: Surrogate = self.surrogate  # type: ignore[assignment]
            texts = (surrogate.text, surrogate.by_alpha)
            slopes = [self._slope(text, a) for text in texts[: len(a)]]
            return [(name, f"{d} * ({slope})") for name, slope in zip(a, slopes, strict=True)]
        half = self.literal(0.5)
        rules = {
            "exp": f"{d} * {out}",
            "log": f"{d} / {a[0]}",
            "sqrt": f"{d} * {half} / {out}",
            "tanh": f"{d} * ({one} - {out} * {out})",
            "sigmoid": f"{d} * {out} * ({one} - {out})",
            "relu": f"({d} if {a[0]} > {zero} else {zero})",
            "abs": f"({d} if {a[0]} > {zero} else -{d})",
            "erf": f"{d} * {self.literal(2 / math.sqrt(math.pi))} * f_exp(-{a[0]} * {a[0]})",
            "sin": f"{d} * f_cos({a[0]})",
            "cos": f"-{d} * f_sin({a[0]})",
            "exprel": f"{d} * f_exprel_slope({a[0]})",
        }
        return [(a[0], rules[kind])]

    def _slope(self, text: str, args: tuple[str, ...]) -> str:
        """A derivative of a surrogate by u, or by alpha, of the variables of a spike."""
        surrogate: Surrogate = self.surrogate  # type: ignore[assignment]
        given = {name: ast.Name(held) for name, held in zip(("u", "alpha"), args, strict=False)}
        fixed: dict[str, ast.expr] = {"pi": ast.Constant(math.pi)}
        if "alpha" not in given:
            fixed["alpha"] = ast.Constant(float(surrogate.alpha))
        node = eq.renamed(eq.expression(text), fixed)
        (line,) = eq.scalar_lines((eq.Statement("g", node),), self.literal)
        tree = ast.parse(line.partition(" = ")[2], mode="eval").body
        return ast.unparse(eq.renamed(tree, given))
