"""What every rule is that changes weights from spikes, and what it sees of a step."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.spaic.network.connections import Connection

if TYPE_CHECKING:
    from tenfold.spaic.network.learners.learner import Learner


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
    `learner` is the learner that made it, `random` the generator of rules that draw.

    Options that mean the same in all rules: `lr`, the step size; `A_plus` and `Apost`, the gain at
    a target's spike, `A_minus` and `Apre`, at a source's; `tau_plus` and `tau_pre`, the time
    constant in ms of the source's trace, `tau_minus` and `tau_post`, of the target's; `pre_decay`
    and `post_decay`, the same as factors a step; `w_min` and `w_max`, the bounds of weights.

    Args:
        con: The connection.
        options: Parameter → value.
    """

    options: ClassVar[Mapping[str, Any]] = {}
    needs_reward = False
    needs_target = False
    image = False
    link = "conv"  # of an image rule: the link whose weight it knows

    def __init__(self, con: Connection, **options: Any) -> None:
        self.con = con
        self.__dict__.update({**self.options, **options})
        self.pending: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """The connection's weight."""
        return self.con.weight  # type: ignore[return-value]

    learner: "Learner"
    random: torch.Generator

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
