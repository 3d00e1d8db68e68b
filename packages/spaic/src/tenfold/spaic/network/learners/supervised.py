"""Rules that are taught spike times (section 10.4)."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.spaic.network.learners.rule import Moment, Rule, double_exponential, peak_time


class ReSuMe(Rule):
    """Remote supervision (Ponulak 2010): Δw = lr (S_d − S_o)(a + A·x), x the source's trace."""

    needs_target = True
    sparse = True
    options: ClassVar[Mapping[str, Any]] = {"lr": 0.01, "a": 0.01, "A": 1.0, "tau": 10.0}
    lr: float
    a: float
    A: float
    tau: float

    def step(self, m: Moment) -> None:
        """Changes the weight.

        Args:
            m: The step.
        """
        x = self.trace("x", m.x) * math.exp(-m.dt / self.tau) + m.x_now
        self.traces["x"] = x
        wrong: Tensor = m.target - m.y_now  # type: ignore[operator]
        self.weight.add_(self.lr * self.outer(wrong, self.a + self.A * x))


class _DoubleExponential(Rule):
    """A rule that sees each spike of the source as a current ε(t)/ε(peak) of peak 1.

    ε is the difference of two exponentials; of equal times the current is (t/τ) e^{1−t/τ}.
    """

    needs_target = True
    sparse = True
    lr: float
    tau: float
    tau_s: float

    def scale(self) -> float:
        """What ε is multiplied by: 1/ε(peak)."""
        peak: float = double_exponential(peak_time(self.tau, self.tau_s), self.tau, self.tau_s)
        return 1 / peak

    def current(self, m: Moment) -> Tensor:
        """Advances the source's current by a step: [batch, pre].

        Args:
            m: The step.
        """
        tau, tau_s = self.tau, self.tau_s
        rise = double_exponential(m.dt, tau, tau_s) * self.scale()
        slow, current = self.trace("slow", m.x), self.trace("current", m.x)
        current = current * math.exp(-m.dt / tau_s) + rise * slow
        self.traces.update(slow=slow * math.exp(-m.dt / tau) + m.x_now, current=current)
        return current


class PSD(_DoubleExponential):
    """Precise spike driven (Yu et al. 2013): Δw = lr (S_d − S_o) I, I a double-exponential PSC."""

    options: ClassVar[Mapping[str, Any]] = {"lr": 0.01, "tau": 10.0, "tau_s": 2.5}

    def step(self, m: Moment) -> None:
        """Changes the weight.

        Args:
            m: The step.
        """
        wrong: Tensor = m.target - m.y_now  # type: ignore[operator]
        self.weight.add_(self.lr * self.outer(wrong, self.current(m)))


class SPAN(Rule):
    """SPAN (Mohemmed et al. 2012): spikes become alpha functions (t/τ) e^{1−t/τ}, and
    Δw = lr ∫ s̃_in (s̃_d − s̃_o) dt, applied at the end of the run."""

    needs_target = True
    sparse = True
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
        """Adds to the integral; changes the weight in the last step.

        Args:
            m: The step.
        """
        x = self._alpha("x", m.x_now, m.dt)
        difference = self._alpha("d", m.target, m.dt) - self._alpha("o", m.y_now, m.dt)  # type: ignore[arg-type]
        total = self.trace("total", self.weight) + m.dt * self.outer(difference, x)
        self.traces["total"] = total
        if m.last:
            self.weight.add_(self.lr * total)


class Tempotron(_DoubleExponential):
    """Tempotron (Gütig & Sompolinsky 2006): the target tells each neuron whether to spike at all.

    The potential V(t) = Σ w K(t − t_i) is the rule's own, with the kernel K of peak 1; on an error
    Δw = ± lr Σ K(t_max − t_i) at the time of the highest V. `target` is [batch, post], 0 or 1.

    `theta` is 1 by default. In the compatible mode it is 10, K is 6.75 (e^{−t/τ} − e^{−t/τs})
    whatever the times are, and weights are clamped to [0, 2].
    """

    options: ClassVar[Mapping[str, Any]] = {"lr": 0.01, "tau": 20.0, "tau_s": 5.0, "theta": None}
    theta: float | None

    @property
    def official(self) -> bool:
        """Whether the network is in the compatible mode."""
        return self.plan.compat == "spaic"

    def scale(self) -> float:
        """What ε is multiplied by: 1/ε(peak), officially 6.75 (τ − τs)."""
        return 6.75 * (self.tau - self.tau_s) if self.official else super().scale()

    def step(self, m: Moment) -> None:
        """Follows V and its highest point; changes the weight in the last step.

        Args:
            m: The step.
        """
        psp = self.current(m)
        v = self.sums(self.weight, psp)
        best = self.traces.setdefault("best", torch.full_like(v, -math.inf))
        at = self.traces.setdefault("at", v.new_zeros(len(v), *self.weight.shape))
        higher = v > best
        self.traces["best"] = torch.where(higher, v, best)
        self.traces["at"] = torch.where(self.at_post(higher), self.at_pre(psp), at)
        if m.last:
            theta = (10.0 if self.official else 1.0) if self.theta is None else self.theta
            fired = self.traces["best"] > theta
            error = m.target.to(v.dtype) - fired.to(v.dtype)  # type: ignore[union-attr]
            change = (self.at_post(error) * self.traces["at"]).sum(0)
            self.weight.add_(self.lr * change)
            if self.official:
                self.weight.clamp_(0, 2)


class SpikeProp(Rule):
    """SpikeProp (Bohte et al. 2002) of one layer: the target says when each neuron spikes first.

    The rule's own potential is v(t) = Σ w ε(t − t_i), ε(t) = (e^{−t/τm} − e^{−t/τs})/(τm − τs) (of
    equal times (t/τ²) e^{−t/τ}); the time t_o of its first crossing of `theta` is found within the
    step, and
    Δw = lr (t_o − t_d) ε(t_o − t_i)/v̇(t_o), v̇ clamped to [0.001, 100]. `target` is [batch, post] in
    ms; not a number where a neuron is not taught. A neuron that does not reach `theta` learns
    nothing.
    """

    needs_target = True
    sparse = True
    options: ClassVar[Mapping[str, Any]] = {"lr": 0.01, "tau": 20.0, "tau_s": 5.0, "theta": 1.0}
    lr: float
    tau: float
    tau_s: float
    theta: float

    def step(self, m: Moment) -> None:
        """Looks for crossings in this step; changes the weight in the last one.

        Args:
            m: The step.
        """
        w, tau, tau_s = self.weight, self.tau, self.tau_s
        slow, seen = self.trace("slow", m.x), self.trace("seen", m.x)  # Σ e^{−t/τ} and Σ ε
        a, b = self.sums(w, slow), self.sums(w, seen)
        found = self.traces.setdefault("time", torch.full_like(a, math.nan))
        slope = self.traces.setdefault("slope", a.new_zeros(len(a), *w.shape))
        done = self.traces.setdefault("steps", a.new_zeros(()))

        def potential(h: Tensor) -> Tensor:
            made: Tensor = b * torch.exp(-h / tau_s) + a * double_exponential(h, tau, tau_s)
            return made

        low, high = torch.zeros_like(a), torch.full_like(a, m.dt)
        crossing = found.isnan() & (b <= self.theta) & (potential(high) > self.theta)
        if bool(crossing.any()):
            for _ in range(40):  # halve the step until the time is exact
                middle = (low + high) / 2
                above = potential(middle) > self.theta
                low, high = torch.where(above, low, middle), torch.where(above, middle, high)
            left, rise = torch.exp(-high / tau_s), double_exponential(high, tau, tau_s)
            speed = a * torch.exp(-high / tau) / (tau * tau_s) - potential(high) / tau_s
            speed = self.at_post(speed.clamp(1e-3, 100.0))
            kernel = self.at_post(left) * self.at_pre(seen) + self.at_post(rise) * self.at_pre(slow)
            self.traces["time"] = torch.where(crossing, done * m.dt + high, found)
            self.traces["slope"] = torch.where(self.at_post(crossing), kernel / speed, slope)
        rise = double_exponential(m.dt, tau, tau_s)
        self.traces["seen"] = seen * math.exp(-m.dt / tau_s) + rise * slow
        self.traces["slow"] = slow * math.exp(-m.dt / tau) + m.x_now
        self.traces["steps"] = done + 1
        if m.last:
            late = torch.nan_to_num(self.traces["time"] - m.target.to(a), nan=0.0)  # type: ignore[union-attr]
            w.add_(self.lr * (self.at_post(late) * self.traces["slope"]).sum(0))

    @property
    def times(self) -> Tensor:
        """The times of the last run in ms, [batch, post]; not a number where none was."""
        return self.traces["time"]


class FORCE(Rule):
    """First-order reduced and controlled error (Sussillo & Abbott 2009): recursive least squares.

    r is the source's spikes filtered by e^{−t/tau} (tau None: the source's variable as it is),
    y = W r; with the error e = y − target: P ← P − P r rᵀP/(1 + rᵀP r), W ← W − e (P r)ᵀ,
    P₀ = I/alpha. P outlives a run. Every `every`-th step learns; the batch is one.
    """

    needs_target = True
    options: ClassVar[Mapping[str, Any]] = {"alpha": 1.0, "tau": 20.0, "every": 1}
    alpha: float
    tau: float | None
    every: int
    memory: ClassVar[Mapping[str, tuple[str, ...]]] = {"inverse": ("pre", "pre")}
    inverse: Tensor | None

    def step(self, m: Moment) -> None:
        """Changes the weight.

        Args:
            m: The step.

        Raises:
            InputError: For a batch larger than one.
        """
        if len(m.x) != 1:
            raise InputError(f"{self.con!r}: FORCE takes one sample at a time, not {len(m.x)}")
        r = m.x_now[0]
        if self.tau is not None:
            r = self.trace("r", r) * math.exp(-m.dt / self.tau) + r
            self.traces["r"] = r
        steps = self.trace("steps", r.new_zeros(())) + 1
        self.traces["steps"] = steps
        if int(steps) % self.every:
            return
        if self.inverse is None:
            self.inverse = torch.eye(len(r), dtype=r.dtype, device=r.device) / self.alpha
        error = self.weight @ r - m.target[0].to(r)  # type: ignore[index]
        pr = self.inverse @ r
        self.inverse = self.inverse - torch.outer(pr, pr) / (1 + r @ pr)
        self.weight.sub_(torch.outer(error, self.inverse @ r))
