"""The language itself: what may be written, read into expressions of Python's syntax."""

import ast
import keyword
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tenfold.shared.errors import InputError, did_you_mean

FUNCTIONS = frozenset(
    [
        "exp",
        "log",
        "sqrt",
        "tanh",
        "erf",
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

MOST_NODES = 20_000
"""No expression has more nodes than this after lines have been put into it."""

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
            changed = re.match(r"(\w+)\s*(\*\*|[-+*/])=\s*(.*)", line)
            hint = (
                f"; write {changed[1]} = {changed[1]} {changed[2]} ({changed[3]})"
                if changed
                else ""
            )
            raise InputError(
                f"{where}: {line!r} is not `name = expression` or `dX/dt = expression`{hint}"
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


def variable(name: str) -> ast.Name:
    """Makes the expression that reads one variable.

    Args:
        name: The variable.
    """
    return ast.Name(name, ast.Load())


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
        unit = re.search(r":\s*\w+(\s*\(.*\))?\s*$", text)
        hint = f"; units are not written, leave out {unit[0].strip()!r}" if unit else ""
        raise InputError(f"{where}: {text.strip()!r} is not an expression{hint}") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.BoolOp | ast.Not):
            raise InputError(
                f"{where}: {text.strip()!r}: `and`, `or` and `not` take no arrays; write "
                "(a > b) & (c > d) or (a > b) | (c > d)"
            )
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


def size(node: ast.expr) -> int:
    """Counts the nodes of an expression.

    Args:
        node: The expression.
    """
    return sum(1 for _ in ast.walk(node))


def renamed(node: ast.expr, new: Mapping[str, ast.expr], where: str = "equations") -> ast.expr:
    """Replaces names by expressions.

    Args:
        node: The expression.
        new: Name → expression.
        where: What the expression belongs to, for messages.

    Raises:
        InputError: If the result has more than `MOST_NODES` nodes: a few lines, each of which uses
            the one before twice, would fill the memory.
    """
    sizes = {name: size(value) for name, value in new.items()}
    found = [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
    count = size(node) + sum(sizes[name] - 1 for name in found if name in sizes)
    if count > MOST_NODES:
        raise InputError(
            f"{where}: {ast.unparse(node)[:60]!r} has {count} nodes once the lines before it "
            f"are put into it; expected at most {MOST_NODES}: use each of them fewer times, or "
            "take the method 'euler'"
        )

    class Rename(ast.NodeTransformer):
        def visit_Name(self, found: ast.Name) -> ast.expr:
            return new.get(found.id, found)

        def visit_Call(self, found: ast.Call) -> ast.expr:
            return ast.Call(found.func, [self.visit(item) for item in found.args], [])

    made: ast.expr = Rename().visit(ast.parse(ast.unparse(node), mode="eval").body)
    return made
