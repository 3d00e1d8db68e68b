"""The loops over time of one group: forward, and backward as the adjoint of its equations."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tenfold.spaic import equations as eq
from tenfold.spaic.engines.compiled import compiled
from tenfold.spaic.engines.scan.tape import Tape
from tenfold.spaic.plan import GroupPlan

_CACHE: dict[Any, Any] = {}


class Kernel:
    """The loops of one group, compiled by numba for a CPU.

    Args:
        entry: The group.
    """

    def __init__(self, entry: GroupPlan) -> None:
        model = entry.model
        self.entry, self.states, self.inputs = entry, model.states, model.inputs
        reset = tuple(
            eq.Statement(
                line.name,
                eq.renamed(
                    eq.expression(f"where(O > 0, new_value, {line.name})"),
                    {"new_value": line.value},
                ),
            )
            for line in model.reset
        )
        self.program = (*model.update, *reset)
        self.dtype = torch.empty((), dtype=model.dtype).numpy().dtype
        self._found: dict[Any, Any] = {}

    def function(
        self, arrays: frozenset[str], backward: tuple[frozenset[str], frozenset[str]] | None
    ) -> Any:
        """Gives the compiled loop.

        Args:
            arrays: The values that are one a neuron instead of one number.
            backward: None for the forward loop; else the states whose gradients arrive, and the
                values whose gradients are wanted.
        """
        here = (arrays, backward)  # found at once where a loop is called for every step
        if here not in self._found:
            self._found[here] = self._shared(arrays, backward)
        return self._found[here]

    def _shared(
        self, arrays: frozenset[str], backward: tuple[frozenset[str], frozenset[str]] | None
    ) -> Any:
        """The loop of all groups with these equations."""
        surrogate = self.entry.surrogate
        key = (
            type(self),
            "\n".join(map(str, self.program)),
            self.states,
            self.inputs,
            tuple(self.entry.model.values),
            self.dtype.str,
            arrays,
            backward,
            surrogate,
        )
        if key not in _CACHE:
            _CACHE[key] = self._compile(arrays, backward)
        return _CACHE[key]

    def tape(self, literal: eq.Literals) -> Tape:
        """Writes the program as elementary operations.

        Args:
            literal: Names constants.
        """
        leaves = {name: f"s_{name}" for name in self.states}
        leaves |= {name: f"i_{name}" for name in self.inputs}
        leaves |= {name: f"p_{name}" for name in self.entry.model.values}
        return Tape(self.program, leaves, literal, self.entry.surrogate)

    def adjoint(self, tape: Tape, wanted: frozenset[str], arrives: dict[str, str]) -> list[str]:
        """Writes the lines of one step backward; the gradients of the leaves are d_s_, d_i_, d_p_.

        Args:
            tape: The program.
            wanted: The values whose gradients are wanted.
            arrives: State → the expression of the gradient that arrives at it.
        """
        seeds: dict[str, str] = {}
        for name, text in arrives.items():
            held = tape.now[name]
            seeds[held] = f"{seeds[held]} + {text}" if held in seeds else text
        roots = {f"s_{name}" for name in self.states} | {f"i_{name}" for name in self.inputs}
        roots |= {f"p_{name}" for name in wanted}
        return [*tape.forward(), *tape.backward(seeds, roots)]

    def launch(
        self,
        arrays: frozenset[str],
        backward: tuple[frozenset[str], frozenset[str]] | None,
        given: Sequence[Tensor | float],
    ) -> None:
        """Runs a loop over the whole time.

        Args:
            arrays: See `function`.
            backward: See `function`.
            given: The states [steps + 1, size], the inputs [steps, size], the values (numbers, or
                [size]); backward also the gradients that arrive [steps, size], those of the states
                after the last step, which become those of the starting states [size], and, written,
                those of the inputs [steps, size]; those of the values [size] are added to.
        """
        loop = self.function(arrays, backward)
        loop(*[x.numpy() if isinstance(x, Tensor) else self.dtype.type(x) for x in given])

    def _compile(
        self, arrays: frozenset[str], backward: tuple[frozenset[str], frozenset[str]] | None
    ) -> Any:
        literal = eq.Literals(self.dtype)
        tape, values = self.tape(literal), list(self.entry.model.values)
        load = [f"s_{name} = S_{name}[t, m]" for name in self.states]
        load += [f"i_{name} = I_{name}[t, m]" for name in self.inputs]
        load += [f"p_{name} = P_{name}[m]" for name in values if name in arrays]
        given = [f"S_{name}" for name in self.states] + [f"I_{name}" for name in self.inputs]
        given += [f"P_{name}" if name in arrays else f"p_{name}" for name in values]
        if backward is None:
            loops = ["    for t in range(T):", "        for m in range(M):"]
            body = [*load, *tape.forward()]
            body += [f"S_{name}[t + 1, m] = {tape.now[name]}" for name in self.states]
        else:
            arriving, wanted = backward
            given += [f"G_{name}" for name in self.states if name in arriving]
            given += [f"C_{name}" for name in self.states]
            given += [f"DI_{name}" for name in self.inputs]
            given += [f"DP_{name}" for name in values if name in wanted]
            loops = ["    for back in range(T):", "        t = T - 1 - back"]
            loops += ["        for m in range(M):"]
            arrives = {
                name: f"C_{name}[m]" + (f" + G_{name}[t, m]" if name in arriving else "")
                for name in self.states
            }
            body = [*load, *self.adjoint(tape, wanted, arrives)]
            body += [f"C_{name}[m] = d_s_{name}" for name in self.states]
            body += [f"DI_{name}[t, m] = d_i_{name}" for name in self.inputs]
            body += [f"DP_{name}[m] += d_p_{name}" for name in values if name in wanted]
        lines = [f"def loop({', '.join(given)}):", f"    T, M = I_{self.inputs[0]}.shape", *loops]
        lines += ["            " + line for line in body]
        return compiled("@njit\n" + "\n".join(lines) + "\n", literal.scope)
