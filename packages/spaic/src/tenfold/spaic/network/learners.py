"""Learners: surrogate gradients, and rules that change weights from spikes (section 10)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.spaic import equations as eq
from tenfold.spaic.network.connections import Connection
from tenfold.spaic.network.groups import NeuronGroup
from tenfold.spaic.network.objects import Assembly, BaseModule

# ------------------------------------------------------------------------------ surrogate gradients


@dataclass(frozen=True)
class Surrogate:
    """What stands in for the derivative of a spike: g(u), u = v − v_th, as text.

    Attributes:
        name: The name.
        text: g in the language of `tenfold.spaic.equations`, of `u` and `alpha`.
        alpha: Its width or slope.
        at_zero: Whether a neuron exactly at the threshold spikes (forward u >= 0).
    """

    name: str
    text: str
    alpha: float
    at_zero: bool = False

    def slope(self, u: Tensor) -> Tensor:
        """Evaluates g.

        Args:
            u: v − v_th.
        """
        made = eq.evaluate(eq.expression(self.text), {"u": u, "alpha": self.alpha, "pi": math.pi})
        return made if isinstance(made, Tensor) else torch.full_like(u, float(made))

    def __call__(self, u: Tensor) -> Tensor:
        """Gives the spikes of u; their gradient is that of the surrogate.

        Args:
            u: v − v_th.
        """
        return _Spike.apply(u, self)


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(u)
        ctx.surrogate = surrogate
        return (u >= 0 if surrogate.at_zero else u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (u,) = ctx.saved_tensors
        return grads[0] * ctx.surrogate.slope(u), None


_BOX = "where(abs(u) < {}, 1.0, 0.0)"
SURROGATES: dict[str, Surrogate] = {
    made.name: made
    for made in (
        Surrogate("stca", _BOX.format("alpha"), 0.5),
        Surrogate("stbp", "exp(-u * u / (2 * alpha)) / (2 * pi * alpha)", 0.5),
        Surrogate("AtanGrad", "alpha / 2 / (1 + (pi / 2 * alpha * u) ** 2)", 2.0),
        Surrogate("SigmoidGrad", "alpha * sigmoid(alpha * u) * sigmoid(-alpha * u)", 2.0, True),
        Surrogate("RectangleGrad", _BOX.format("alpha"), 2.0),
        Surrogate("GateGrad", _BOX.format("1 / alpha"), 2.0),
        Surrogate("QGateGrad", "relu(alpha - alpha * alpha * abs(u))", 2.0),
        Surrogate("ReLUGrad", "where(u > 0, alpha, 0.0)", 2.0, True),
        Surrogate("StraightThrough", "1.0 + 0.0 * u", 1.0),
        Surrogate("FastSigmoid", "1 / (1 + alpha * abs(u)) ** 2", 25.0),
        Surrogate("Triangle", "relu(1 - abs(u) / alpha) / alpha", 1.0),
        Surrogate("Gaussian", "exp(-u * u / (2 * alpha * alpha)) / (alpha * sqrt(2 * pi))", 0.5),
        Surrogate("PiecewiseExponential", "alpha / 2 * exp(-alpha * abs(u))", 2.0),
    )
}
"""Name → surrogate; stca and stbp are learners of their own, the rest go into sbp."""

_OPTIMISERS = {
    name: getattr(torch.optim, name)
    for name in [
        "Adam",
        "AdamW",
        "SparseAdam",
        "Adamax",
        "ASGD",
        "LBFGS",
        "RMSprop",
        "Rprop",
        "SGD",
        "Adadelta",
        "Adagrad",
    ]
}
_SCHEDULES = {
    name: getattr(torch.optim.lr_scheduler, name)
    for name in [
        "LambdaLR",
        "StepLR",
        "MultiStepLR",
        "ExponentialLR",
        "CosineAnnealingLR",
        "ReduceLROnPlateau",
        "CyclicLR",
        "CosineAnnealingWarmRestarts",
    ]
}

# ------------------------------------------------------------------------------------------- rules


@dataclass
class Moment:
    """What a rule sees of one connection in one step.

    Attributes:
        x: Spikes of the source in the previous step, [batch, pre].
        y: Spikes of the target in the previous step, [batch, post].
        x_now: Spikes of the source in this step.
        y_now: Spikes of the target in this step.
        target: What the supervised rules are taught for this step, [batch, post], or None.
        reward: The reward of this step: [1] or [post], or None.
        dt: The step in ms.
        last: Whether this is the last step of the run.
    """

    x: Tensor
    y: Tensor
    x_now: Tensor
    y_now: Tensor
    target: Tensor | None
    reward: Tensor | None
    dt: float
    last: bool


class Rule:
    """A rule that changes the weights of one connection step by step.

    A rule of your own: subclass, set `options`, and change `self.weight` (post, pre) in `step`.

    Args:
        con: The connection.
        options: Parameter → value.
    """

    options: ClassVar[Mapping[str, Any]] = {}
    needs_reward = False
    needs_target = False
    image = False

    def __init__(self, con: Connection, **options: Any) -> None:
        self.con = con
        self.__dict__.update({**self.options, **options})
        self.pending: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """The connection's weight."""
        return self.con.weight  # type: ignore[return-value]

    def start(self) -> None:
        """Forgets the traces of the last run."""
        self.pending = None
        self.traces: dict[str, Tensor] = {}

    def trace(self, name: str, like: Tensor) -> Tensor:
        """Gives a trace, zeros at first.

        Args:
            name: Its name.
            like: A tensor of its shape.
        """
        return self.traces.setdefault(name, torch.zeros_like(like))

    def apply_pending(self, new: Tensor) -> None:
        """Adds the change of the step before, and keeps that of this step for the next.

        Args:
            new: This step's change.
        """
        if self.pending is not None:
            self.weight.add_(self.pending)
        self.pending = new

    def step(self, m: Moment) -> None:
        """Changes the weight.

        Args:
            m: What is seen in this step.
        """
        raise NotImplementedError


class NearestOnlineSTDP(Rule):
    """Nearest-neighbour traces; rows are scaled to a fixed sum at every step (section 10.2)."""

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
        """The change of a step from traces that hold the latest spike only."""
        tx, ty = self.trace("x", m.x), self.trace("y", m.y)
        tx = m.x + (1 - m.x) * tx * self.pre_decay
        ty = m.y + (1 - m.y) * ty * self.post_decay
        self.traces.update(x=tx, y=ty)
        return self.Apost * m.y.T @ tx - self.Apre * ty.T @ m.x

    def bound(self, scaled: bool) -> None:
        """Scales each row to the sum `norm` and clamps."""
        w = self.weight
        if scaled:
            w.mul_(self.norm / w.abs().sum(1, keepdim=True).clamp(min=1e-12))
        w.clamp_(self.w_min, self.w_max)

    def step(self, m: Moment) -> None:
        """Changes the weight."""
        self.apply_pending(self.change(m))
        self.bound(True)


class FullOnlineSTDP(NearestOnlineSTDP):
    """All-to-all traces; rows are scaled in the last step of a run only."""

    def change(self, m: Moment) -> Tensor:
        """The change of a step from traces that add up all spikes."""
        tx = self.trace("x", m.x) * self.pre_decay + m.x
        ty = self.trace("y", m.y) * self.post_decay + m.y
        self.traces.update(x=tx, y=ty)
        return self.Apost * m.y.T @ tx - self.Apre * ty.T @ m.x

    def step(self, m: Moment) -> None:
        """Changes the weight."""
        self.apply_pending(self.change(m))
        self.bound(m.last)


class IntegerSTDP(Rule):
    """The 16-bit rule for `diehlandcook` groups; weights from 0 to 109.

    The text of the official code calls the change at a source spike a depression, its sign is +;
    `pre_sign` chooses.
    """

    options: ClassVar[Mapping[str, Any]] = {"pre_sign": 1.0, "max_threshold": 4915.0}
    pre_sign: float
    max_threshold: float

    def step(self, m: Moment) -> None:
        """Changes the weight."""
        tx = torch.floor(31169 * self.trace("x", m.x_now) / 32768)
        ty = torch.floor(31169 * self.trace("y", m.y_now) / 32768)
        tx, ty = torch.where(m.x_now > 0, 127.0, tx), torch.where(m.y_now > 0, 127.0, ty)
        self.traces.update(x=tx, y=ty)
        w = self.weight
        w.add_(self.pre_sign * self._rounded(14 * ty).T @ m.x_now)
        w.add_(m.y_now.T @ self._rounded(141 * tx))
        threshold = self.con.post.last_state.get("th")
        if threshold is not None:
            high = threshold.flatten(1).amax(0) > self.max_threshold
            w[high] = torch.floor(w[high] / 2)
        w.clamp_(0, 109)

    def _rounded(self, value: Tensor) -> Tensor:
        """Divides by 2^14 and rounds up with the probability of what is left."""
        scaled = value / 16384
        low = torch.floor(scaled)
        drawn = torch.rand(value.shape, generator=self.random, device=value.device)
        return low + (drawn < scaled - low).to(value.dtype)

    random: torch.Generator


class ImageSTDP(Rule):
    """Nearest-neighbour STDP on the patches of a convolution (section 10.2, conv2d_stdp)."""

    options: ClassVar[Mapping[str, Any]] = {
        "lr": 0.1,
        "tau_plus": 20.0,
        "tau_minus": 20.0,
        "A_plus": 1.0,
        "A_minus": -1.0,
    }
    image = True
    lr: float
    tau_plus: float
    tau_minus: float
    A_plus: float
    A_minus: float

    def patches(self, x: Tensor) -> Tensor:
        """[batch, in·k·k, positions] of an image."""
        option = self.con.options.get
        return F.unfold(
            x,
            int(option("kernel_size", 3)),
            int(option("dilation", 1)),
            int(option("padding", 0)),
            int(option("stride", 1)),
        )

    def change(self, m: Moment) -> Tensor:
        """The change of a step, in the weight's shape."""
        x, y = self.patches(m.x), m.y.flatten(2)
        if x.shape[2] != y.shape[2]:
            raise InputError(f"{self.con!r}: STDP of a convolution takes no pooling")
        tx = x + (1 - x) * self.trace("x", x) * math.exp(-m.dt / self.tau_plus)
        ty = y + (1 - y) * self.trace("y", y) * math.exp(-m.dt / self.tau_minus)
        self.traces.update(x=tx, y=ty)
        gain = self.A_plus * torch.einsum("bop,bip->oi", y, tx)
        loss = self.A_minus * torch.einsum("bop,bip->oi", ty, x)
        return (gain + loss).reshape(self.weight.shape)

    def step(self, m: Moment) -> None:
        """Changes the weight."""
        self.apply_pending(self.lr * self.change(m))


class ImageRSTDP(ImageSTDP):
    """The same, times the reward of the step."""

    needs_reward = True

    def step(self, m: Moment) -> None:
        """Changes the weight."""
        eligible = self.traces.get("eligible")
        if eligible is not None:
            self.weight.add_(self.lr * m.reward.mean() * eligible)  # type: ignore[union-attr]
        self.traces["eligible"] = self.change(m)


class RSTDP(Rule):
    """Reward-modulated STDP (Florian 2007): W += lr R ζ, ζ = yᵀP₊ + P₋ᵀx of the step before."""

    needs_reward = True
    options: ClassVar[Mapping[str, Any]] = {
        "lr": 0.1,
        "tau_plus": 20.0,
        "tau_minus": 20.0,
        "A_plus": 1.0,
        "A_minus": -1.0,
    }
    lr: float
    tau_plus: float
    tau_minus: float
    A_plus: float
    A_minus: float

    def eligibility(self, m: Moment) -> Tensor:
        """ζ of this step, [post, pre], summed over the batch."""
        plus = self.trace("+", m.x) * math.exp(-m.dt / self.tau_plus) + self.A_plus * m.x
        minus = self.trace("-", m.y) * math.exp(-m.dt / self.tau_minus) + self.A_minus * m.y
        self.traces.update({"+": plus, "-": minus})
        return m.y.T @ plus + minus.T @ m.x

    def rewarded(self, m: Moment, change: Tensor) -> Tensor:
        """The change times the reward: one for all, or one a target neuron."""
        reward: Tensor = m.reward  # type: ignore[assignment]
        if reward.numel() not in (1, len(change)):
            raise InputError(
                f"{self.con!r}: the reward has {reward.numel()} values; expected 1 or {len(change)}"
            )
        return reward.reshape(-1, 1).to(change) * change

    def step(self, m: Moment) -> None:
        """Changes the weight."""
        before = self.traces.get("zeta")
        if before is not None:
            self.weight.add_(self.lr * self.rewarded(m, before))
        self.traces["zeta"] = self.eligibility(m)


class RSTDPET(RSTDP):
    """The same with an eligibility trace: z = e^{−dt/τz} z + (dt/τe) ζ, W += lr dt R z."""

    options: ClassVar[Mapping[str, Any]] = {**RSTDP.options, "tau_e": 25.0, "tau_z": 25.0}
    tau_e: float
    tau_z: float

    def step(self, m: Moment) -> None:
        """Changes the weight."""
        before = self.traces.get("z")
        if before is not None:
            self.weight.add_(self.lr * m.dt * self.rewarded(m, before))
        else:
            before = torch.zeros_like(self.weight)
        zeta = self.eligibility(m)
        self.traces["z"] = math.exp(-m.dt / self.tau_z) * before + m.dt / self.tau_e * zeta


class SwitchRSTDP(NearestOnlineSTDP):
    """Nearest-neighbour STDP whose signs the reward chooses; clamped to [0, 0.1]."""

    needs_reward = True
    options: ClassVar[Mapping[str, Any]] = {
        **NearestOnlineSTDP.options,
        "Apost": 5e-3,
        "Apre": 4e-3,
        "w_max": 0.1,
    }

    def step(self, m: Moment) -> None:
        """Changes the weight."""
        sign = 1.0 if float(m.reward.mean()) > 0 else -1.0  # type: ignore[union-attr]
        self.apply_pending(sign * self.change(m) / len(m.x))
        self.bound(False)


class FeedbackRSTDP(Rule):
    """Reward fed back through fixed random weights (bp_rstdp, and with `tau_et` bp_rstdpet)."""

    needs_reward = True
    options: ClassVar[Mapping[str, Any]] = {
        "lr": 0.1,
        "hs_r": 0.01,
        "tau_pre": 5.0,
        "tau_post": 12.0,
        "A_plus": 1.0,
        "A_minus": -0.4,
        "tau_et": None,
    }
    lr: float
    hs_r: float
    tau_pre: float
    tau_post: float
    A_plus: float
    A_minus: float
    tau_et: float | None
    feedback: Tensor | None = None
    random: torch.Generator

    def step(self, m: Moment) -> None:
        """Changes the weight."""
        reward: Tensor = m.reward.reshape(-1).to(m.x)  # type: ignore[union-attr]
        post, size = m.y.shape[1], reward.numel()
        if self.feedback is None:
            drawn = torch.randn(post, size, generator=self.random, device=m.x.device)
            same = post == size == 10
            self.feedback = torch.eye(10).to(m.x) if same else 0.2 * drawn.to(m.x)
        pre, own = math.exp(-m.dt / self.tau_pre), math.exp(-m.dt / self.tau_post)
        tx = pre * self.trace("x", m.x) + (1 - pre) * m.x
        ty = own * self.trace("y", m.y) + (1 - own) * m.y
        self.traces.update(x=tx, y=ty)
        n = len(m.x)
        eligible = (self.A_plus * m.y.T @ tx + self.A_minus * ty.T @ m.x) / n
        if self.tau_et is not None:
            eligible = math.exp(-m.dt / self.tau_et) * self.trace("et", eligible) + eligible
            self.traces["et"] = eligible
        steady = self.hs_r * (ty - 0.1).T @ tx / n
        self.apply_pending(self.lr * (self.feedback @ reward)[:, None] * eligible - steady)


class PairSTDP(Rule):
    """Pair STDP of the field, without lags: on a source spike w −= A₋(w) y, on a target spike
    w += A₊(w) x, with the traces before the event.

    A₊(w) = lr·w_max·(1 − w/w_max)^mu_plus and A₋(w) = lr·alpha·w_max·(w/w_max)^mu_minus (NEST's
    `stdp_synapse`): mu 0 is additive, mu 1 multiplicative. `nearest` pairs with the latest spike.
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
    lr: float
    alpha: float
    mu_plus: float
    mu_minus: float
    tau_plus: float
    tau_minus: float
    w_max: float
    nearest: bool

    def step(self, m: Moment) -> None:
        """Changes the weight."""
        x = self.trace("x", m.x) * math.exp(-m.dt / self.tau_plus)
        y = self.trace("y", m.y) * math.exp(-m.dt / self.tau_minus)
        w = self.weight
        share = (w / self.w_max).clamp(0, 1)
        fall = self.lr * self.alpha * self.w_max * share**self.mu_minus * (y.T @ m.x_now)
        rise = self.lr * self.w_max * (1 - share) ** self.mu_plus * (m.y_now.T @ x)
        w.add_(rise - fall).clamp_(0, self.w_max)
        if self.nearest:
            x, y = torch.where(m.x_now > 0, 0.0, x), torch.where(m.y_now > 0, 0.0, y)
        self.traces.update(x=x + m.x_now, y=y + m.y_now)


class TripletSTDP(Rule):
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

    def step(self, m: Moment) -> None:
        """Changes the weight."""
        o = self.__dict__
        r1 = self.trace("r1", m.x) * math.exp(-m.dt / o["tau_plus"])
        r2 = self.trace("r2", m.x) * math.exp(-m.dt / o["tau_x"])
        o1 = self.trace("o1", m.y) * math.exp(-m.dt / o["tau_minus"])
        o2 = self.trace("o2", m.y) * math.exp(-m.dt / o["tau_y"])
        fall = o1.T @ (m.x_now * (o["A2_minus"] + o["A3_minus"] * r2))
        rise = (m.y_now * (o["A2_plus"] + o["A3_plus"] * o2)).T @ r1
        self.weight.add_(o["lr"] * (rise - fall)).clamp_(o["w_min"], o["w_max"])
        self.traces.update(r1=r1 + m.x_now, r2=r2 + m.x_now, o1=o1 + m.y_now, o2=o2 + m.y_now)


class InhibitorySTDP(Rule):
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
    lr: float
    tau: float
    rate: float
    w_max: float
    sign: float

    def step(self, m: Moment) -> None:
        """Changes the weight."""
        decay = math.exp(-m.dt / self.tau)
        x, y = self.trace("x", m.x) * decay, self.trace("y", m.y) * decay
        size = self.sign * self.weight
        size = size + self.lr * (m.y_now.T @ x + (y - 2 * self.rate * self.tau).T @ m.x_now)
        self.weight.copy_(self.sign * size.clamp(0, self.w_max))
        self.traces.update(x=x + m.x_now, y=y + m.y_now)


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


def kernel_scale(tau: float, tau_s: float) -> float:
    """V0 of the kernel V0 (e^{−t/τ} − e^{−t/τs}) whose peak is 1.

    Args:
        tau: The longer time constant in ms.
        tau_s: The shorter.

    Raises:
        InputError: If they are equal or not positive.
    """
    if min(tau, tau_s) <= 0 or tau == tau_s:
        raise InputError(f"tau={tau}, tau_s={tau_s}; expected two different times > 0 ms")
    peak = tau * tau_s / (tau - tau_s) * math.log(tau / tau_s)
    return 1 / (math.exp(-peak / tau) - math.exp(-peak / tau_s))


RULES: dict[str, tuple[type[Rule], Mapping[str, Any]]] = {
    "nearest_online_stdp": (NearestOnlineSTDP, {}),
    "full_online_stdp": (FullOnlineSTDP, {}),
    "postpreintstdp": (IntegerSTDP, {}),
    "conv2d_stdp": (ImageSTDP, {}),
    "rstdp": (RSTDP, {}),
    "rstdpet": (RSTDPET, {}),
    "conv2d_rstdp": (ImageRSTDP, {}),
    "switch_rstdp": (SwitchRSTDP, {}),
    "bp_rstdp": (FeedbackRSTDP, {}),
    "bp_rstdpet": (FeedbackRSTDP, {"tau_pre": 4.0, "tau_post": 10.0, "tau_et": 5.0}),
    "stdp": (PairSTDP, {}),
    "triplet_stdp": (TripletSTDP, {}),
    "inhibitory_stdp": (InhibitorySTDP, {}),
    "resume": (ReSuMe, {}),
    "psd": (PSD, {}),
    "span": (SPAN, {}),
    "tempotron": (Tempotron, {}),
}
"""algorithm → the rule and what differs from its defaults."""

ALGORITHMS = ("stca", "stbp", "sbp", *RULES)


class Learner(BaseModule):
    """Trains parts of a network.

    Args:
        trainable: A network, assembly, group, connection, module, or a list of them.
        pathway: Parts that only carry gradients.
        algorithm: stca, stbp, sbp (surrogate gradients) or a rule of `RULES`, or a `Rule` class.
        name: The name.
        reward: The Reward node of a rewarded rule; by default the network's only one.
        **options: Parameters: alpha and surrogate_func of the gradients, those of the rule.

    Raises:
        InputError: For names and values that do not fit.
    """

    label = "learner"

    def __init__(
        self,
        trainable: Any = None,
        pathway: Any = None,
        algorithm: str | type[Rule] = "stca",
        name: str | None = None,
        reward: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(name)
        self.trainable = _listed(trainable)
        self.pathway = _listed(pathway)
        self.algorithm = algorithm if isinstance(algorithm, str) else algorithm.__name__
        self.reward = reward
        self.options = options
        self.surrogate: Surrogate | None = None
        self.rule: type[Rule] | None = None
        self._defaults: Mapping[str, Any] = {}
        if isinstance(algorithm, type):
            self.rule = algorithm
        elif self.algorithm in RULES:
            self.rule, self._defaults = RULES[self.algorithm]
        elif self.algorithm in ALGORITHMS:
            self.surrogate = self._surrogate()
        else:
            raise InputError(f"{self!r}: {did_you_mean(self.algorithm, ALGORITHMS, 'algorithm')}")
        if self.rule is not None:
            for key in options:
                if key not in self.rule.options:
                    hint = did_you_mean(key, self.rule.options, f"option of {self.algorithm}")
                    raise InputError(f"{self!r}: {hint}")
        self.optim_name = self.lr_schedule_name = ""
        self.optim_kwargs: dict[str, Any] = {}
        self.schedule_kwargs: dict[str, Any] = {}
        self._optimiser: torch.optim.Optimizer | None = None
        self._schedule: Any = None
        self._network: Any = None
        self._target: Tensor | None = None

    def _surrogate(self) -> Surrogate:
        options = dict(self.options)
        name = self.algorithm
        if name == "sbp":
            name = options.pop("surrogate_func", "AtanGrad")
            if isinstance(name, Surrogate):
                return name
            if name not in SURROGATES or name in ("stca", "stbp"):
                known = [key for key in SURROGATES if key not in ("stca", "stbp")]
                raise InputError(f"{self!r}: {did_you_mean(name, known, 'surrogate_func')}")
        alpha = options.pop("alpha", SURROGATES[name].alpha)
        if options:
            hint = did_you_mean(next(iter(options)), ("alpha", "surrogate_func"), "option")
            raise InputError(f"{self!r}: {hint}")
        if not 0 < alpha < math.inf:
            raise InputError(f"{self!r}: alpha={alpha}; expected > 0")
        made = SURROGATES[name]
        return Surrogate(made.name, made.text, float(alpha), made.at_zero)

    # ---------------------------------------------------------------------------------- optimiser

    def set_optimizer(self, optim_name: str = "Adam", lr: float = 1e-3, **options: Any) -> None:
        """Chooses the optimiser.

        Args:
            optim_name: Adam, AdamW, SparseAdam, Adamax, ASGD, LBFGS, RMSprop, Rprop, SGD,
                Adadelta or Adagrad.
            lr: The step size.
            **options: Further arguments of the optimiser.
        """
        if optim_name not in _OPTIMISERS:
            raise InputError(f"{self!r}: {did_you_mean(optim_name, _OPTIMISERS, 'optimiser')}")
        self.optim_name, self.optim_kwargs = optim_name, {"lr": lr, **options}
        self._optimiser = None

    def set_schedule(self, lr_schedule_name: str, **options: Any) -> None:
        """Chooses how the step size changes.

        Args:
            lr_schedule_name: LambdaLR, StepLR, MultiStepLR, ExponentialLR, CosineAnnealingLR,
                ReduceLROnPlateau, CyclicLR or CosineAnnealingWarmRestarts.
            **options: Its arguments.
        """
        if lr_schedule_name not in _SCHEDULES:
            hint = did_you_mean(lr_schedule_name, _SCHEDULES, "schedule")
            raise InputError(f"{self!r}: {hint}")
        self.lr_schedule_name, self.schedule_kwargs = lr_schedule_name, options
        self._schedule = None

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimiser, made when it is first needed."""
        if self._optimiser is None:
            if not self.optim_name:
                raise InputError(f"{self!r} has no optimiser; call set_optimizer first")
            parameters = self.parameters()
            if not parameters:
                raise InputError(f"{self!r} has nothing to train")
            self._optimiser = _OPTIMISERS[self.optim_name](parameters, **self.optim_kwargs)
        return self._optimiser

    def optim_zero_grad(self) -> None:
        """Clears the gradients."""
        self.optimizer.zero_grad()

    def optim_step(self) -> None:
        """Makes a step."""
        self.optimizer.step()

    def optim_schedule(self) -> None:
        """Moves the step size on, once an epoch."""
        if self._schedule is None:
            if not self.lr_schedule_name:
                raise InputError(f"{self!r} has no schedule; call set_schedule first")
            made = _SCHEDULES[self.lr_schedule_name](self.optimizer, **self.schedule_kwargs)
            self._schedule = made
        self._schedule.step()

    def teach(self, target: Any) -> None:
        """Sets what a supervised rule is taught in the next run.

        Args:
            target: The wanted spikes [batch, post, steps]; tempotron: [batch, post] of 0 and 1.
        """
        self._target = torch.as_tensor(np.asarray(target)).to(torch.float64)

    # ------------------------------------------------------------------------------------- parts

    def parts(self, which: Sequence[Any]) -> list[Any]:
        """Expands containers to groups, connections and modules.

        Args:
            which: `trainable` or `pathway`.
        """
        found: dict[int, Any] = {}
        for part in which:
            inner = list(part.walk()) if isinstance(part, Assembly) else [part]
            if isinstance(part, Assembly) and not isinstance(part, NeuronGroup):
                inner += part.get_connections()
            found.update({id(item): item for item in inner})
        return list(found.values())

    def parameters(self) -> list[torch.nn.Parameter]:
        """Lists what the gradient learner trains."""
        if self._network is not None:
            self._network.prepare()
        made: dict[int, Any] = {}
        for part in self.parts(self.trainable):
            if isinstance(part, Connection):
                for tensor in (part.weight, part.bias, part.delay):
                    if tensor is not None and tensor.requires_grad:
                        made[id(tensor)] = tensor
                for module in part.modules.values():
                    made |= {id(p): p for p in module.parameters()}
            elif isinstance(part, NeuronGroup):
                made |= {id(p): p for p in part.trainables.values()}
            elif hasattr(part, "torch_module"):
                made |= {id(p): p for p in part.torch_module.parameters()}
        return list(made.values())

    def make_rules(self, random: torch.Generator) -> list[Rule]:
        """Makes the rule of each trainable connection.

        Args:
            random: For rules that draw.
        """
        assert self.rule is not None
        made = []
        for part in self.parts(self.trainable):
            if isinstance(part, Connection) and part.weight is not None:
                if part.stored_sparse or (part.kind == "conv") != self.rule.image:
                    raise InputError(f"{self!r}: {self.algorithm} does not fit {part!r}")
                rule = self.rule(part, **{**self._defaults, **self.options})
                rule.random = random  # type: ignore[attr-defined]
                made.append(rule)
        if not made:
            raise InputError(f"{self!r}: {self.algorithm} found no connection to train")
        return made

    def target_at(self, k: int, post: int, like: Tensor) -> Tensor | None:
        """Gives what a supervised rule is taught for one step.

        Args:
            k: The step of the run.
            post: The number of target neurons.
            like: For device and precision.
        """
        if not (self.rule and self.rule.needs_target):
            return None
        if self._target is None:
            raise InputError(f"{self!r}: {self.algorithm} needs a target; call teach() first")
        made = self._target.to(like)
        if made.ndim == 3:
            made = made[..., k] if k < made.shape[2] else torch.zeros_like(made[..., 0])
        if made.shape[-1] != post:
            raise InputError(f"{self!r}: the target has {made.shape[-1]} neurons; expected {post}")
        return made


def _listed(given: Any) -> list[Any]:
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]
