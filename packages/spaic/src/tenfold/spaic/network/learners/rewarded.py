"""STDP that a reward modulates (section 10.3)."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.spaic.network.learners.rule import Moment, Rule
from tenfold.spaic.network.learners.stdp import NearestOnlineSTDP


class RSTDP(Rule):
    """Reward-modulated STDP (Florian 2007): W += lr R ζ, ζ = yᵀP₊ + P₋ᵀx of the step before."""

    sparse = True
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
        """ζ of this step, of the weight's shape, summed over the batch.

        Args:
            m: The step.
        """
        plus = self.trace("+", m.x) * math.exp(-m.dt / self.tau_plus) + self.A_plus * m.x
        minus = self.trace("-", m.y) * math.exp(-m.dt / self.tau_minus) + self.A_minus * m.y
        self.traces.update({"+": plus, "-": minus})
        return self.outer(m.y, plus) + self.outer(minus, m.x)

    def rewarded(self, m: Moment, change: Tensor) -> Tensor:
        """The change times the reward: one for all, or one a target neuron.

        Args:
            m: The step.
            change: Of the weight's shape.

        Raises:
            InputError: For a reward of another size.
        """
        return self.by_target(_reward(self, m)) * change

    def step(self, m: Moment) -> None:
        """Changes the weight.

        Args:
            m: The step.
        """
        before = self.traces.get("zeta")
        if before is not None:
            self.weight.add_(self.lr * self.rewarded(m, before))
        self.traces["zeta"] = self.eligibility(m)


class RSTDPET(RSTDP):
    """The same with an eligibility trace: z = e^{−dt/τz} z + (dt/τe) ζ, W += lr dt R z.

    `lr` has no default (section 10.3). The card's rule is one of a single sample; of a batch, ζ and
    with it the change is the sum over the samples, which share one reward, as in `rstdp`: each
    changes the weight as if it ran alone.
    """

    options: ClassVar[Mapping[str, Any]] = {
        **RSTDP.options,
        "lr": None,
        "tau_e": 25.0,
        "tau_z": 25.0,
    }
    tau_e: float
    tau_z: float

    def check(self) -> None:
        """Refuses a connection that does not fit, and a rule without a step size.

        Raises:
            InputError: Naming the connection or the option.
        """
        super().check()
        if self.lr is None:
            raise InputError(f"{self.learner!r}: {self.learner.algorithm} needs lr=")

    def step(self, m: Moment) -> None:
        """Changes the weight.

        Args:
            m: The step.
        """
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
        """Changes the weight.

        Args:
            m: The step.
        """
        sign = 1.0 if float(m.reward.mean()) > 0 else -1.0  # type: ignore[union-attr]
        self.apply_pending(sign * self.change(m) / len(m.x))
        self.bound(False)


class FeedbackRSTDP(Rule):
    """Reward fed back through fixed random weights (bp_rstdp, and with `tau_et` bp_rstdpet)."""

    sparse = True
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
    memory: ClassVar[Mapping[str, tuple[str, ...]]] = {"feedback": ("post", "reward")}
    feedback: Tensor | None

    def step(self, m: Moment) -> None:
        """Changes the weight.

        Args:
            m: The step.
        """
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
        eligible = (self.A_plus * self.outer(m.y, tx) + self.A_minus * self.outer(ty, m.x)) / n
        if self.tau_et is not None:
            eligible = math.exp(-m.dt / self.tau_et) * self.trace("et", eligible) + eligible
            self.traces["et"] = eligible
        steady = self.hs_r * self.outer(ty - 0.1, tx) / n
        fed_back = self.by_target(self.feedback @ reward)
        self.apply_pending(self.lr * fed_back * eligible - steady)


class DopamineSTDP(Rule):
    """STDP whose eligibility dopamine turns into weight (Izhikevich 2007), without lags.

    Each pair of spikes adds to the synapse's eligibility c, which decays with tau_c; a reward adds
    to the dopamine d, which decays with tau_d; dw/dt = lr c d. c is the mean over the batch, w
    stays from w_min to w_max.
    """

    sparse = True
    needs_reward = True
    options: ClassVar[Mapping[str, Any]] = {
        "lr": 1e-3,
        "A_plus": 1.0,
        "A_minus": 1.5,
        "tau_plus": 20.0,
        "tau_minus": 20.0,
        "tau_c": 1000.0,
        "tau_d": 200.0,
        "w_min": 0.0,
        "w_max": 1.0,
    }

    def step(self, m: Moment) -> None:
        """Changes the weight.

        Args:
            m: The step.

        Raises:
            InputError: For a reward of another size.
        """
        o, w = self.__dict__, self.weight
        x = self.trace("x", m.x) * math.exp(-m.dt / o["tau_plus"])
        y = self.trace("y", m.y) * math.exp(-m.dt / o["tau_minus"])
        pairs = o["A_plus"] * self.outer(m.y_now, x) - o["A_minus"] * self.outer(y, m.x_now)
        c = self.trace("c", w) * math.exp(-m.dt / o["tau_c"]) + pairs / len(m.x)
        reward = _reward(self, m)
        d = self.trace("d", reward) * math.exp(-m.dt / o["tau_d"]) + reward
        w.add_(o["lr"] * m.dt * self.by_target(d) * c).clamp_(o["w_min"], o["w_max"])
        self.traces.update(x=x + m.x_now, y=y + m.y_now, c=c, d=d)


def _reward(rule: Rule, m: Moment) -> Tensor:
    """The reward of a step: one for all, or one a target neuron.

    Raises:
        InputError: For a reward of another size.
    """
    reward: Tensor = m.reward.reshape(-1).to(rule.weight)  # type: ignore[union-attr]
    count = rule.con.post.num
    if reward.numel() not in (1, count):
        raise InputError(
            f"{rule.con!r}: the reward has {reward.numel()} values; expected 1 or {count}"
        )
    return reward
