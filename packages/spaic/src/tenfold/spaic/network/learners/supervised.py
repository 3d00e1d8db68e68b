"""Rules that are taught spike times (section 10.4)."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from tenfold.spaic.network.learners.rule import Moment, Rule, kernel_scale


class ReSuMe(Rule):
    """Remote supervision (Ponulak 2010): Δw = lr (S_d − S_o)(a + A·x), x the source's trace."""

    needs_target = True
    options: ClassVar[Mapping[str, Any]] = {"lr": 0.01, "a": 0.01, "A": 1.0, "tau": 10.0}
    lr: float
    a: float
    A: float
    tau: float

    def step(self, m: Moment) -> None:
        """Changes the weight."""
        x = self.trace("x", m.x) * math.exp(-m.dt / self.tau) + m.x_now
        self.traces["x"] = x
        self.weight.add_(self.lr * (m.target - m.y_now).T @ (self.a + self.A * x))  # type: ignore[operator]


class _DoubleExponential(Rule):
    """A rule that sees each spike of the source as a current of two exponentials and peak 1."""

    needs_target = True
    lr: float
    tau: float
    tau_s: float

    def current(self, m: Moment) -> Tensor:
        """Advances the source's current by a step: [batch, pre].

        Args:
            m: The step.
        """
        slow = self.trace("slow", m.x) * math.exp(-m.dt / self.tau) + m.x_now
        fast = self.trace("fast", m.x) * math.exp(-m.dt / self.tau_s) + m.x_now
        self.traces.update(slow=slow, fast=fast)
        return kernel_scale(self.tau, self.tau_s) * (slow - fast)


class PSD(_DoubleExponential):
    """Precise spike driven (Yu et al. 2013): Δw = lr (S_d − S_o) I, I a double-exponential PSC."""

    options: ClassVar[Mapping[str, Any]] = {"lr": 0.01, "tau": 10.0, "tau_s": 2.5}

    def step(self, m: Moment) -> None:
        """Changes the weight."""
        change = (m.target - m.y_now).T @ self.current(m)  # type: ignore[operator]
        self.weight.add_(self.lr * change)


class SPAN(Rule):
    """SPAN (Mohemmed et al. 2012): spikes become alpha functions (t/τ) e^{1−t/τ}, and
    Δw = lr ∫ s̃_in (s̃_d − s̃_o) dt, applied at the end of the run."""

    needs_target = True
    options: ClassVar[Mapping[str, Any]] = {"lr": 0.01, "tau": 5.0}
    lr: float
    tau: float

    def _alpha(self, name: str, s: Tensor, dt: float) -> Tensor:
        decay = math.exp(-dt / self.tau)
        first, second = self.trace(f"{name}1", s), self.trace(f"{name}2", s)
        second = decay * (second + dt / self.tau * math.e * first)
        self.traces.update({f"{name}1": decay * first + s, f"{name}2": second})
        return second

    def step(self, m: Moment) -> None:
        """Adds to the integral; changes the weight in the last step."""
        x = self._alpha("x", m.x_now, m.dt)
        difference = self._alpha("d", m.target, m.dt) - self._alpha("o", m.y_now, m.dt)  # type: ignore[arg-type]
        total = self.trace("total", self.weight) + m.dt * difference.T @ x
        self.traces["total"] = total
        if m.last:
            self.weight.add_(self.lr * total)


class Tempotron(_DoubleExponential):
    """Tempotron (Gütig & Sompolinsky 2006): the target tells each neuron whether to spike at all.

    The potential V(t) = Σ w K(t − t_i) is the rule's own, with the kernel K of peak 1; on an error
    Δw = ± lr Σ K(t_max − t_i) at the time of the highest V. `target` is [batch, post], 0 or 1.
    """

    options: ClassVar[Mapping[str, Any]] = {"lr": 0.01, "tau": 20.0, "tau_s": 5.0, "theta": 1.0}
    theta: float

    def step(self, m: Moment) -> None:
        """Follows V and its highest point; changes the weight in the last step."""
        psp = self.current(m)
        v = psp @ self.weight.T
        best = self.traces.setdefault("best", torch.full_like(v, -math.inf))
        shape = (*v.shape, psp.shape[1])
        at = self.traces.setdefault("at", torch.zeros(shape, dtype=v.dtype, device=v.device))
        higher = v > best
        self.traces["best"] = torch.where(higher, v, best)
        self.traces["at"] = torch.where(higher[..., None], psp[:, None, :], at)
        if m.last:
            fired = self.traces["best"] > self.theta
            error = m.target.to(v.dtype) - fired.to(v.dtype)  # type: ignore[union-attr]
            change = torch.einsum("bo,boi->oi", error, self.traces["at"])
            self.weight.add_(self.lr * change)
