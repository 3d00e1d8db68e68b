"""Rewards: the reward of each step (section 9.5)."""

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.spaic.network.nodes.node import Coding, Node
from tenfold.spaic.network.objects import OfRun


def _global(node: "Reward", y: Tensor, label: Tensor) -> Tensor:
    hit = node.populations(y).argmax(1) == label
    return node.judged(hit, y).mean().reshape(1)


def _dopamine(node: "Reward", y: Tensor, label: Tensor) -> Tensor:
    sums = node.populations(y)
    chosen = sums.argmax(1)
    made = torch.full_like(sums, node.signal("punish_signal"))
    rows = torch.arange(len(sums), device=sums.device)
    made[rows, chosen] = node.judged(chosen == label, y)
    pop = int(node.option("pop_size"))
    return made.repeat_interleave(pop, 1).sum(0)


def _xor(node: "Reward", y: Tensor, label: Tensor) -> Tensor:
    fired = y.flatten(1).sum(1) > 0
    good = fired & (label == 1)
    return node.judged(good, y).mean().reshape(1)


def _environment(node: "Reward", y: Tensor, label: Tensor) -> Tensor:
    return label.to(y.dtype)


def _classify(node: "Reward", y: Tensor, label: Tensor) -> Tensor:
    node.leaky = 0.99 * node.leaky + y.flatten(1)
    z = node.leaky
    if len(z) > 1:
        z = (z - z.mean(0)) / (z.std(0) + 1e-8)
    p = z.softmax(1)
    if bool((label < 0).any()) or bool((label >= p.shape[1]).any()):
        raise InputError(
            f"{node!r}: labels {label.tolist()}; expected from 0 to {p.shape[1] - 1}, one for each "
            "target neuron"
        )
    hot = torch.nn.functional.one_hot(label.to(torch.int64), p.shape[1]).to(p.dtype)
    return (hot - p).mean(0)


_COMMON: dict[str, Any] = {"dec_sample_step": 1, "reward_shape": None}


class Reward(Node):
    """Computes the reward of each step from a group's spikes and the label, for R-STDP learners.

    coding_method: global_reward, da_reward, xor_reward, environment_reward, classify_reward
    (section 9.5). `net.reward(label)` sets the labels (or the environment's number). A StateMonitor
    records it under the name `Output_Reward`.

    Options of all codings: `dec_sample_step`, and `reward_shape`, by default (1,), or one number
    for each target neuron where the coding gives that.

    Raises:
        InputError: Without dec_target, for a `pop_size` that does not divide its neurons, or a
            shape of sizes below one.
    """

    of_run: ClassVar[OfRun] = {**Node.of_run, "_window": list}
    codings = {  # noqa: RUF012 - a table, not state
        "global_reward": Coding(
            _global, pop_size=1, reward_signal=1.0, punish_signal=-1.0, **_COMMON
        ),
        "da_reward": Coding(_dopamine, pop_size=1, reward_signal=1.0, punish_signal=0.0, **_COMMON),
        "xor_reward": Coding(_xor, reward_signal=1.0, punish_signal=-1.0, **_COMMON),
        "environment_reward": Coding(_environment, **_COMMON),
        "classify_reward": Coding(_classify, **_COMMON),
    }

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.dec_target is None:
            raise InputError(f"{self!r}: give dec_target, the group whose spikes it judges")
        pop = int(self.coding.get("pop_size", 1))
        if pop < 1 or (self.dec_target.shape is not None and self.dec_target.num % pop):
            raise InputError(
                f"{self!r}: pop_size={pop} does not divide {self.dec_target!r} into populations"
            )
        shape = self.option("reward_shape")
        shape = (shape,) if isinstance(shape, int) else shape
        self.reward_shape = None if shape is None else tuple(int(size) for size in shape)
        if self.reward_shape is not None and min(self.reward_shape, default=1) < 1:
            raise InputError(f"{self!r}: reward_shape={shape}; every size must be >= 1")

    leaky: Any = 0.0
    value: Tensor | None = None

    def __call__(self, label: Any) -> None:
        """Sets the labels of the batch, or the number that the environment gave.

        Args:
            label: int64 [batch]; environment_reward: a number, or one a target neuron.
        """
        self.source = torch.as_tensor(np.asarray(label) if not isinstance(label, Tensor) else label)

    def signal(self, name: str) -> float:
        """Gives a parameter as a number.

        Args:
            name: The parameter.
        """
        return float(self.option(name))

    def judged(self, good: Tensor, like: Tensor) -> Tensor:
        """Gives the reward where something is good, else the punishment.

        Args:
            good: bool.
            like: For device and precision.
        """
        reward, punish = (like.new_tensor(self.signal(f"{k}_signal")) for k in ("reward", "punish"))
        return torch.where(good, reward, punish)

    @property
    def output(self) -> Tensor:
        """The reward of the last step, in `reward_shape`.

        Raises:
            InputError: If there has been no step.
        """
        if self.value is None:
            raise InputError(f"{self!r}: there has been no step to reward")
        return self.value if self.reward_shape is None else self.value.reshape(self.reward_shape)

    def populations(self, y: Tensor) -> Tensor:
        """Adds up populations of `pop_size` neighbours.

        Args:
            y: [batch, num].

        Returns:
            [batch, num / pop_size].
        """
        return y.flatten(1).reshape(len(y), -1, int(self.option("pop_size"))).sum(2)

    def start(self) -> None:
        """Forgets the spikes of earlier runs."""
        self.leaky, self.value = 0.0, None
        self._window: list[Tensor] = []

    def step(self, spikes: Tensor) -> None:
        """Takes the spikes of one step and, every `dec_sample_step` steps, makes the reward.

        Args:
            spikes: [batch, num].

        Raises:
            InputError: If there are no labels, or not one a sample.
        """
        if self.source is None:
            raise InputError(f"{self!r} has no label; call it with one before the run")
        self._window.append(spikes)
        every = int(self.option("dec_sample_step"))
        if len(self._window) == every:
            total = torch.stack(self._window).sum(0)
            label = self.source.to(spikes.device)
            if self.coding_method != "environment_reward" and label.numel() not in (1, len(total)):
                raise InputError(
                    f"{self!r}: {label.numel()} labels for a batch of {len(total)} samples"
                )
            label = label.reshape(-1)
            made = self.codings[self.coding_method].function(self, total, label)
            shape = self.reward_shape
            if shape is not None and math.prod(shape) != made.numel():
                raise InputError(
                    f"{self!r}: {self.coding_method} gives {made.numel()} numbers; "
                    f"reward_shape={shape} has {math.prod(shape)}"
                )
            self.value, self._window = made, []
        elif self.value is None:
            each = self.coding_method in ("da_reward", "classify_reward")
            size = spikes[0].numel() if each else math.prod(self.reward_shape or (1,))
            self.value = torch.zeros(size, dtype=spikes.dtype, device=spikes.device)
