"""STDP of links between images: convolutions, and fields of their own (sections 5, 10.2, 10.3)."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from tenfold.shared.errors import InputError
from tenfold.spaic.network.connections.images import neighbourhood
from tenfold.spaic.network.connections.synapses import unfolding
from tenfold.spaic.network.learners.rule import Moment, Rule


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
        """[batch, in·k·k, positions] of an image.

        Args:
            x: [batch, in, height, width].
        """
        return F.unfold(x, **unfolding(self.con))

    def traced(self, old: Tensor, spikes: Tensor, decay: float) -> Tensor:
        """The trace of this step: it holds the latest spike only.

        Args:
            old: The trace of the step before.
            spikes: Of its shape.
            decay: What is left of it.
        """
        return spikes + (1 - spikes) * old * decay

    def change(self, m: Moment) -> Tensor:
        """The change of a step, in the weight's shape.

        Args:
            m: The step.

        Raises:
            InputError: If the link pools.
        """
        x, y = self.patches(m.x), m.y.flatten(2)
        if x.shape[2] != y.shape[2]:
            raise InputError(f"{self.con!r}: STDP of a convolution takes no pooling")
        tx = self.traced(self.trace("x", x), x, math.exp(-m.dt / self.tau_plus))
        ty = self.traced(self.trace("y", y), y, math.exp(-m.dt / self.tau_minus))
        self.traces.update(x=tx, y=ty)
        gain = self.A_plus * torch.einsum("bop,bip->oi", y, tx)
        loss = self.A_minus * torch.einsum("bop,bip->oi", ty, x)
        return (gain + loss).reshape(self.weight.shape)

    def step(self, m: Moment) -> None:
        """Changes the weight.

        Args:
            m: The step.
        """
        self.apply_pending(self.lr * self.change(m))


class ImageRSTDP(ImageSTDP):
    """Reward-modulated STDP on the patches of a convolution: RSTDP's traces, which add up spikes,
    and the mean reward of the step times the eligibility of the step before."""

    needs_reward = True

    def traced(self, old: Tensor, spikes: Tensor, decay: float) -> Tensor:
        """The trace of this step: it adds up all spikes.

        Args:
            old: The trace of the step before.
            spikes: Of its shape.
            decay: What is left of it.
        """
        return old * decay + spikes

    def step(self, m: Moment) -> None:
        """Changes the weight.

        Args:
            m: The step.
        """
        eligible = self.traces.get("eligible")
        if eligible is not None:
            self.weight.add_(self.lr * m.reward.mean() * eligible)  # type: ignore[union-attr]
        self.traces["eligible"] = self.change(m)


class LocalSTDP(ImageSTDP):
    """STDP of receptive fields of their own (the link `continuous_local`), without a lag.

    w[k, place] += A_plus y x̄ − A_minus ȳ x at each step, x̄ and ȳ the traces of earlier spikes, then
    clamped to the link's bounds. With the link's option `sigma_c`, y and ȳ are those of the
    neighbourhood (`network.connections.images.neighbourhood`).

    With `homeostasis`, at each step a field whose neuron is silent grows by `homeo_add`, and one
    whose neuron spikes shrinks by the share `homeo_mult`: w += homeo_add (1 − y) − homeo_mult y w,
    y the share of the batch that spiked. A neuron that spikes in a share p of the steps comes to
    weights of homeo_add (1 − p)/(homeo_mult p), STDP aside. The card gives the two names and
    numbers; the form is the usual one, a reconstruction, and off by default.
    """

    options: ClassVar[Mapping[str, Any]] = {
        "A_plus": 1e-3,
        "A_minus": 1e-4,
        "tau_pre": 10.0,
        "tau_post": 100.0,
        "homeostasis": False,
        "homeo_add": 1e-4,
        "homeo_mult": 1e-3,
    }
    link = "continuous_local"
    tau_pre: float
    tau_post: float
    homeostasis: bool
    homeo_add: float
    homeo_mult: float

    def start(self) -> None:
        """Forgets the traces of the last run, and looks at the neighbourhood."""
        super().start()
        found = neighbourhood(self.con)
        self.shared = None if found is None else found[None, None].to(self.weight)

    def change(self, m: Moment) -> Tensor:
        """The change of a step, in the weight's shape.

        Args:
            m: The step.
        """
        x, y = self.patches(m.x_now), m.y_now.reshape(-1, 1, *self.con.out_size)
        if self.shared is not None:
            y = F.conv2d(y, self.shared, padding=self.shared.shape[-1] // 2)
        y = y.flatten(2)
        tx = self.trace("x", x) * math.exp(-m.dt / self.tau_pre)
        ty = self.trace("y", y) * math.exp(-m.dt / self.tau_post)
        self.traces.update(x=tx + x, y=ty + y)
        return (self.A_plus * y * tx - self.A_minus * ty * x).sum(0).reshape(self.weight.shape)

    def settle(self, m: Moment, change: Tensor) -> None:
        """Applies a change and the homeostasis, and clamps.

        Args:
            m: The step.
            change: Of the weight's shape.
        """
        w = self.weight
        if self.homeostasis:
            y = (m.y_now > 0).to(w).mean(0).reshape(self.con.out_size)
            change = change + self.homeo_add * (1 - y) - self.homeo_mult * y * w
        w.add_(change).clamp_(self.con.w_min, self.con.w_max)

    def step(self, m: Moment) -> None:
        """Changes the weight.

        Args:
            m: The step.
        """
        self.settle(m, self.change(m))


class LocalRSTDP(LocalSTDP):
    """The same as LocalSTDP, times the reward of the step."""

    needs_reward = True

    def step(self, m: Moment) -> None:
        """Changes the weight.

        Args:
            m: The step.
        """
        self.settle(m, m.reward.mean().to(self.weight) * self.change(m))  # type: ignore[union-attr]
