"""STDP without reward: the online rules, and those of the field (section 10.2)."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.spaic.network.learners.rule import Moment, Rule
from tenfold.spaic.network.learners.traces import Term, TraceRule, power


class NearestOnlineSTDP(Rule):
    """Nearest-neighbour traces; rows are scaled to a fixed sum at every step (section 10.2)."""

    sparse = True
    options: ClassVar[Mapping[str, Any]] = {
        "Apost": 1e-2,
        "Apre": 1e-4,
        "pre_decay": math.exp(-1 / 20),
        "post_decay": math.exp(-1 / 20),
        "norm": 78.4,
        "w_min": 0.0,
        "w_max": 1.0,
    }
    Apost: float
    Apre: float
    pre_decay: float
    post_decay: float
    norm: float
    w_min: float
    w_max: float

    def change(self, m: Moment) -> Tensor:
        """The change of a step from traces that hold the latest spike only.

        Args:
            m: The step.
        """
        tx, ty = self.trace("x", m.x), self.trace("y", m.y)
        tx = m.x + (1 - m.x) * tx * self.pre_decay
        ty = m.y + (1 - m.y) * ty * self.post_decay
        self.traces.update(x=tx, y=ty)
        return self.Apost * self.outer(m.y, tx) - self.Apre * self.outer(ty, m.x)

    def bound(self, scaled: bool) -> None:
        """Scales each row to the sum `norm` and clamps.

        Args:
            scaled: Whether rows are scaled.
        """
        w = self.weight
        if scaled:
            w.mul_(self.by_target(self.norm / self.sums(w.abs())[0].clamp(min=1e-12)))
        w.clamp_(self.w_min, self.w_max)

    def step(self, m: Moment) -> None:
        """Changes the weight.

        Args:
            m: The step.
        """
        self.apply_pending(self.change(m))
        self.bound(True)


class FullOnlineSTDP(NearestOnlineSTDP):
    """All-to-all traces; rows are scaled in the last step of a run only.

    In the compatible mode rows are scaled in each step from that on, counted from 0, which was the
    last of the run that the network was built for; of one built before its first run, 9.
    """

    def change(self, m: Moment) -> Tensor:
        """The change of a step from traces that add up all spikes.

        Args:
            m: The step.
        """
        tx = self.trace("x", m.x) * self.pre_decay + m.x
        ty = self.trace("y", m.y) * self.post_decay + m.y
        self.traces.update(x=tx, y=ty)
        return self.Apost * self.outer(m.y, tx) - self.Apre * self.outer(ty, m.x)

    def step(self, m: Moment) -> None:
        """Changes the weight.

        Args:
            m: The step.
        """
        self.apply_pending(self.change(m))
        official = self.plan.compat == "spaic"
        self.bound(m.step >= self.plan.run_steps - 1 if official else m.last)


class MetaSTDP(NearestOnlineSTDP):
    """Nearest-neighbour STDP with soft bounds and rows whose mean weight follows the activity.

    Potentiation shrinks by e^{−softness/(w_max − w)}, depression by e^{−softness/(w − w_min)}. The
    wanted mean weight of a neuron drifts by −drift·Apre·(its trace − the mean trace), and its row
    is scaled to it at every step. The traces of the targets outlive a run.
    """

    options: ClassVar[Mapping[str, Any]] = {
        "Apost": 1e-2,
        "Apre": 1e-4,
        "pre_decay": math.exp(-1 / 30),
        "post_decay": math.exp(-1 / 200),
        "w_min": 0.0,
        "w_max": 1.0,
        "softness": 0.2,
        "drift": 0.1,
    }
    softness: float
    drift: float
    memory: ClassVar[Mapping[str, tuple[str, ...]]] = {"kept": ("batch", "post"), "mean": ("post",)}
    kept: Tensor | None
    mean: Tensor | None

    def start(self) -> None:
        """Forgets the traces of the sources; those of the targets stay."""
        super().start()
        if self.kept is not None:
            self.traces["y"] = self.kept

    def step(self, m: Moment) -> None:
        """Changes the weight.

        Args:
            m: The step.
        """
        if "y" in self.traces and len(self.traces["y"]) != len(m.y):  # another batch size
            self.traces["y"] = self.traces["y"].mean(0).expand(m.y.shape)
        tx, ty = self.trace("x", m.x), self.trace("y", m.y)
        tx = m.x + (1 - m.x) * tx * self.pre_decay
        ty = m.y + (1 - m.y) * ty * self.post_decay
        self.traces.update(x=tx, y=ty)
        self.kept = ty
        w = self.weight
        if self.mean is None:
            self.mean = self.sums(w)[0] / self.con.pre.num
        room_up, room_down = (self.w_max - w).clamp(min=1e-9), (w - self.w_min).clamp(min=1e-9)
        rise = self.Apost * self.outer(m.y, tx) * torch.exp(-self.softness / room_up)
        fall = self.Apre * self.outer(ty, m.x) * torch.exp(-self.softness / room_down)
        self.apply_pending(rise - fall)
        active = ty.mean(0)
        self.mean = self.mean - self.drift * self.Apre * (active - active.mean())
        mean = self.sums(w)[0] / self.con.pre.num
        w.mul_(self.by_target(self.mean / mean.clamp(min=1e-12)))
        self.bound(False)


class IntegerSTDP(Rule):
    """The 16-bit rule for `diehlandcook` groups; weights from 0 to 109.

    The text of the official code calls the change at a source spike a depression, its sign is +;
    `pre_sign` chooses.
    """

    sparse = True
    options: ClassVar[Mapping[str, Any]] = {"pre_sign": 1.0, "max_threshold": 4915.0}
    pre_sign: float
    max_threshold: float

    def step(self, m: Moment) -> None:
        """Changes the weight.

        Args:
            m: The step.
        """
        tx = torch.floor(31169 * self.trace("x", m.x_now) / 32768)
        ty = torch.floor(31169 * self.trace("y", m.y_now) / 32768)
        tx, ty = torch.where(m.x_now > 0, 127.0, tx), torch.where(m.y_now > 0, 127.0, ty)
        self.traces.update(x=tx, y=ty)
        w = self.weight
        w.add_(self.pre_sign * self.outer(self._rounded(14 * ty), m.x_now))
        w.add_(self.outer(m.y_now, self._rounded(141 * tx)))
        threshold = self.con.post.last_state.get("th")
        if threshold is not None:
            high = threshold.flatten(1).amax(0) > self.max_threshold
            w.copy_(torch.where(self.by_target(high), torch.floor(w / 2), w))
        w.clamp_(0, 109)

    def _rounded(self, value: Tensor) -> Tensor:
        """Divides by 2^14 and rounds up with the probability of what is left."""
        scaled = value / 16384
        low = torch.floor(scaled)
        drawn = torch.rand(value.shape, generator=self.random, device=value.device)
        return low + (drawn < scaled - low).to(value.dtype)


class PairSTDP(TraceRule):
    """Pair STDP of the field, without lags: on a source spike w −= A₋(w) y, on a target spike
    w += A₊(w) x, with the traces before the event.

    A₊(w) = lr·w_max·(1 − w/w_max)^mu_plus and A₋(w) = lr·alpha·w_max·(w/w_max)^mu_minus (NEST's
    `stdp_synapse`, whose w_max is 100): mu 0 is additive, mu 1 multiplicative. `nearest` pairs with
    the latest spike.
    """

    options: ClassVar[Mapping[str, Any]] = {
        "lr": 0.01,
        "alpha": 1.0,
        "mu_plus": 1.0,
        "mu_minus": 1.0,
        "tau_plus": 20.0,
        "tau_minus": 20.0,
        "w_max": 1.0,
        "nearest": False,
    }
    pre_traces: ClassVar[Mapping[str, str]] = {"x": "tau_plus"}
    post_traces: ClassVar[Mapping[str, str]] = {"y": "tau_minus"}
    mu_plus: float
    mu_minus: float
    w_max: float

    def terms(self) -> list[Term]:
        """A₋ and A₊."""
        share = "clip(w / w_max, 0, 1)"
        fall, rise = power(share, self.mu_minus), power(f"(1 - {share})", self.mu_plus)
        return [
            Term("pre", f"-lr * alpha * w_max * {fall}", post="y"),
            Term("post", f"lr * w_max * {rise}", pre="x"),
        ]

    def bounds(self) -> tuple[float, float]:
        """From 0 to w_max."""
        return 0.0, self.w_max

    def check(self) -> None:
        """Refuses a connection that does not fit, and a w_max that leaves no room.

        Raises:
            InputError: Naming the connection or the option.
        """
        super().check()
        if not self.w_max > 0:
            raise InputError(f"{self.learner!r}: w_max={self.w_max}; expected > 0")


class TripletSTDP(TraceRule):
    """Triplet STDP (Pfister & Gerstner 2006), all-to-all, with the traces before the event.

    w −= o1 (A2_minus + A3_minus r2) at a source spike, w += r1 (A2_plus + A3_plus o2) at a target
    spike. The defaults are the paper's fit to visual cortex, times `lr`.
    """

    options: ClassVar[Mapping[str, Any]] = {
        "lr": 1.0,
        "A2_plus": 5e-10,
        "A3_plus": 6.2e-3,
        "A2_minus": 7e-3,
        "A3_minus": 2.3e-4,
        "tau_plus": 16.8,
        "tau_x": 101.0,
        "tau_minus": 33.7,
        "tau_y": 125.0,
        "w_min": 0.0,
        "w_max": 1.0,
    }
    pre_traces: ClassVar[Mapping[str, str]] = {"r1": "tau_plus", "r2": "tau_x"}
    post_traces: ClassVar[Mapping[str, str]] = {"o1": "tau_minus", "o2": "tau_y"}
    w_min: float
    w_max: float

    def terms(self) -> list[Term]:
        """The fall at a source spike, the rise at a target spike."""
        return [
            Term("pre", "-lr", post="o1", pre="A2_minus + A3_minus * r2"),
            Term("post", "lr", post="A2_plus + A3_plus * o2", pre="r1"),
        ]

    def bounds(self) -> tuple[float, float]:
        """From w_min to w_max."""
        return self.w_min, self.w_max


class InhibitorySTDP(TraceRule):
    """Inhibitory plasticity (Vogels et al. 2011): w += lr (y − rho₀) at a source spike, w += lr x
    at a target spike, rho₀ = 2·rate·tau; the sign of w stays that of the connection.

    Weights are magnitudes times `sign`.
    """

    options: ClassVar[Mapping[str, Any]] = {
        "lr": 1e-3,
        "tau": 20.0,
        "rate": 0.005,
        "w_max": 1.0,
        "sign": -1.0,
    }
    pre_traces: ClassVar[Mapping[str, str]] = {"x": "tau"}
    post_traces: ClassVar[Mapping[str, str]] = {"y": "tau"}
    w_max: float
    sign: float

    def terms(self) -> list[Term]:
        """Both pair with the other side's trace; a source spike alone weakens."""
        return [
            Term("pre", "sign * lr", post="y - 2 * rate * tau"),
            Term("post", "sign * lr", pre="x"),
        ]

    def bounds(self) -> tuple[float, float]:
        """From 0 to w_max, times the sign."""
        low, high = sorted((0.0, self.sign * self.w_max))
        return low, high


class HomeostaticScaling(Rule):
    """Synaptic scaling (van Rossum et al. 2000): dw/dt = lr w (rate − a), a the rate in kHz.

    a follows the target's spikes with the time constant tau, averaged over the batch; all weights
    of a neuron grow by the same factor when it is too quiet. Weights stay from w_min to w_max.
    """

    sparse = True
    options: ClassVar[Mapping[str, Any]] = {
        "lr": 1e-3,
        "rate": 0.01,
        "tau": 1000.0,
        "w_min": 0.0,
        "w_max": 1.0,
    }
    lr: float
    rate: float
    tau: float
    w_min: float
    w_max: float

    def step(self, m: Moment) -> None:
        """Changes the weight.

        Args:
            m: The step.
        """
        start = torch.full_like(m.y_now[0], self.rate)
        decay = math.exp(-m.dt / self.tau)
        a = decay * self.traces.get("a", start) + (1 - decay) / m.dt * m.y_now.mean(0)
        self.traces["a"] = a
        growth = 1 + self.lr * m.dt * (self.rate - a)
        self.weight.mul_(self.by_target(growth)).clamp_(self.w_min, self.w_max)


class BioHash(Rule):
    """Competitive Hebbian learning of hashes (Krotov & Hopfield 2019; Ryali et al. 2020).

    At the end of a run, for the source's mean spikes x of each sample: neurons are ranked by
    ⟨w, x⟩ = Σ |w|^{p−2} w x; the first learns with g = 1, the one of rank `rank` with g = −delta,
    by Δw = lr g (x − ⟨w, x⟩ w), the mean over the batch. Rows come to the p-norm 1. The card gives
    the name only; these are the equations of the references.
    """

    sparse = True
    options: ClassVar[Mapping[str, Any]] = {"lr": 0.02, "p": 2.0, "rank": 2, "delta": 0.4}
    lr: float
    p: float
    rank: int
    delta: float

    def step(self, m: Moment) -> None:
        """Adds up the source's spikes; changes the weight in the last step.

        Args:
            m: The step.

        Raises:
            InputError: For a rank that no neuron has.
        """
        seen = self.trace("seen", m.x_now) + m.x_now
        self.traces["seen"] = seen
        self.traces["steps"] = self.trace("steps", seen.new_zeros(())) + 1
        if not m.last:
            return
        w = self.weight
        count = self.con.post.num
        if not 2 <= self.rank <= count:
            raise InputError(f"{self.con!r}: rank={self.rank}; expected from 2 to {count}")
        x = seen / self.traces["steps"]
        fit = self.sums(w.abs() ** (self.p - 2) * w, x)
        order = fit.argsort(1, descending=True)
        g = torch.zeros_like(fit)
        g.scatter_(1, order[:, :1], 1.0)
        g.scatter_(1, order[:, self.rank - 1 : self.rank], -self.delta)
        w.add_(self.lr / len(x) * (self.outer(g, x) - self.by_target((g * fit).sum(0)) * w))
