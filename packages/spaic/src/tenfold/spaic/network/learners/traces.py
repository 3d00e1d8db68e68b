"""Rules told by traces and terms, as text: every engine runs them (section 10.4)."""

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.spaic import equations as eq
from tenfold.spaic.network.learners.rule import Moment, Rule


@dataclass(frozen=True)
class Term:
    """A part of the change of a synapse at a spike: gain · post · pre.

    Attributes:
        at: `pre` or `post`: at whose spikes.
        gain: Text of the weight `w` and the rule's options.
        post: Text of the target's traces and the options.
        pre: Text of the source's traces and the options.
    """

    at: str
    gain: str
    post: str = "1"
    pre: str = "1"


class TraceRule(Rule):
    """A rule whose changes come from traces: w ← w + Σ gain(w) post(traces) pre(traces) at a spike.

    A trace decays by e^{−dt/τ} a step and grows by one at each spike of its side (with `nearest` it
    is set to one). A spike sees the traces, and both sides' spikes of one step see the weight, of
    before. Weights stay within `bounds`. The step engine carries this out for all synapses at once,
    the event engine for those of neurons that spiked.

    A rule of your own: set the traces, `terms` and `bounds`, and both engines run it.

        class Additive(TraceRule):
            options = {"lr": 0.01, "tau": 20.0}
            pre_traces, post_traces = {"x": "tau"}, {"y": "tau"}

            def terms(self):
                return [Term("pre", "-lr", post="y"), Term("post", "lr", pre="x")]
    """

    sparse = True
    pre_traces: ClassVar[Mapping[str, str]] = {}
    """Trace of the source → the option that holds its time constant."""
    post_traces: ClassVar[Mapping[str, str]] = {}
    """The same of the target."""
    nearest: bool = False

    def terms(self) -> Sequence[Term]:
        """The parts of the change."""
        raise NotImplementedError

    def bounds(self) -> tuple[float | None, float | None]:
        """The lowest and the highest weight; None where there is no bound."""
        return None, None

    def decay(self, trace: str, dt: float) -> float:
        """What is left of a trace after a step.

        Args:
            trace: Its name.
            dt: The step in ms.
        """
        tau = {**self.pre_traces, **self.post_traces}[trace]
        return math.exp(-dt / float(getattr(self, tau)))

    def expression(self, text: str) -> ast.expr:
        """A text of a term, with numbers in place of the options.

        Args:
            text: `gain`, `post` or `pre`.
        """
        numbers: dict[str, ast.expr] = {
            name: ast.Constant(float(getattr(self, name)))
            for name in self.options
            if isinstance(getattr(self, name), int | float)
        }
        return eq.renamed(eq.expression(text, f"{type(self).__name__}"), numbers)

    def check(self) -> None:
        """Refuses a connection that does not fit, and terms that are not of traces.

        Raises:
            InputError: Naming the connection, or the name in a term.
        """
        super().check()
        for name in self.options:
            value = getattr(self, name)
            if value is not None and not isinstance(value, int | float | str):
                raise InputError(
                    f"{self.learner!r}: {name}={value!r}; {self.learner.algorithm} takes one number"
                )
        for term in self.terms():
            sides = (("gain", {"w"}), ("post", self.post_traces), ("pre", self.pre_traces))
            for side, known in sides:
                found = self.expression(getattr(term, side))
                unknown = eq.names([found]) - set(known)
                if unknown or term.at not in ("pre", "post"):
                    raise InputError(
                        f"{type(self).__name__}: {side}={getattr(term, side)!r} of a term at "
                        f"{term.at!r} names {', '.join(sorted(unknown)) or 'nothing else'}; "
                        f"expected at 'pre' or 'post', and of {', '.join(known) or 'no trace'} and "
                        "the options"
                    )

    def start(self) -> None:
        """Forgets the traces of the last run."""
        super().start()
        self._terms = list(self.terms())
        lines = [
            eq.Statement(f"{side}_{k}", self.expression(getattr(term, side)))
            for k, term in enumerate(self._terms)
            for side in ("gain", "post", "pre")
        ]
        self._names = ["w", *self.pre_traces, *self.post_traces]
        self._function = eq.torch_function(tuple(lines), self._names, [x.name for x in lines])

    def step(self, m: Moment) -> None:
        """Changes the weight.

        Args:
            m: The step.
        """
        w, sides = self.weight, ((self.pre_traces, m.x_now), (self.post_traces, m.y_now))
        now = {n: self.trace(n, s) * self.decay(n, m.dt) for names, s in sides for n in names}
        made = self._function(eq.NAMESPACE, w, *now.values())
        change: Any = 0.0
        for k, term in enumerate(self._terms):
            gain, post, pre = made[3 * k : 3 * k + 3]
            here, there = (m.x_now, m.y_now) if term.at == "pre" else (m.y_now, m.x_now)
            if term.at == "pre":
                post, pre = _full(post, there), pre * here
            else:
                post, pre = post * here, _full(pre, there)
            change = change + gain * self.outer(post, pre)
        low, high = self.bounds()
        w.add_(change)
        if low is not None or high is not None:
            w.clamp_(low, high)
        for names, spikes in sides:
            for name in names:
                kept = torch.where(spikes > 0, 0.0, now[name]) if self.nearest else now[name]
                self.traces[name] = kept + spikes


def _full(value: Any, like: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.full_like(like, float(value))


def power(text: str, exponent: float) -> str:
    """Writes a power so that 0 and 1 cost nothing.

    Args:
        text: The base.
        exponent: The exponent.
    """
    return {0.0: "1", 1.0: text}.get(float(exponent), f"{text} ** {float(exponent)!r}")
