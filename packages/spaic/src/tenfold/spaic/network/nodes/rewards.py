"""Rewards: the reward of each step (section 9.5)."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.spaic.network.nodes.node import Coding, Node


def _global(node: "Reward", y: Tensor, label: Tensor) -> Tensor:
    hit = node.populations(y).argmax(1) == label
    value = torch.where(hit, node.signal("reward_signal"), node.signal("punish_signal"))
    return value.mean().reshape(1)


def _dopamine(node: "Reward", y: Tensor, label: Tensor) -> Tensor:
    sums = node.populations(y)
    chosen = sums.argmax(1)
    made = torch.full_like(sums, node.signal("punish_signal"))
    rows = torch.arange(len(sums), device=sums.device)
    right = torch.where(chosen == label, node.signal("reward_signal"), node.signal("punish_signal"))
    made[rows, chosen] = right.to(made)
    pop = int(node.option("pop_size"))
    return made.repeat_interleave(pop, 1).sum(0)


def _xor(node: "Reward", y: Tensor, label: Tensor) -> Tensor:
    fired = y.flatten(1).sum(1) > 0
    good = fired & (label == 1)
    value = torch.where(good, node.signal("reward_signal"), node.signal("punish_signal"))
    return value.mean().reshape(1)


def _environment(node: "Reward", y: Tensor, label: Tensor) -> Tensor:
    return label.to(y.dtype)


def _classify(node: "Reward", y: Tensor, label: Tensor) -> Tensor:
    node.leaky = 0.99 * node.leaky + y.flatten(1)
    z = node.leaky
    if len(z) > 1:
        z = (z - z.mean(0)) / (z.std(0) + 1e-8)
    p = z.softmax(1)
    hot = torch.nn.functional.one_hot(label.to(torch.int64), p.shape[1]).to(p.dtype)
    return (hot - p).mean(0)


_SAMPLING: dict[str, Any] = {"dec_sample_step": 1, "reward_shape": None}


class Reward(Node):
    """Computes the reward of each step from a group's spikes and the label, for R-STDP learners.

    coding_method: global_reward, da_reward, xor_reward, environment_reward, classify_reward
    (section 9.5). `net.reward(label)` sets the labels (or the environment's number). All take
    `dec_sample_step` (1) and `reward_shape`, the shape of the value, by default its own: (1,), or
    one number a neuron.
    """

    codings = {  # noqa: RUF012 - a table, not state
        "global_reward": Coding(
            _global, pop_size=1, reward_signal=1.0, punish_signal=-1.0, **_SAMPLING
        ),
        "da_reward": Coding(
            _dopamine, pop_size=1, reward_signal=1.0, punish_signal=0.0, **_SAMPLING
        ),
        "xor_reward": Coding(_xor, reward_signal=1.0, punish_signal=-1.0, **_SAMPLING),
        "environment_reward": Coding(_environment, **_SAMPLING),
        "classify_reward": Coding(_classify, **_SAMPLING),
    }

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.dec_target is None:
            raise InputError(f"{self!r}: give dec_target, the group whose spikes it judges")

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
            self.value = self._shaped(self.codings[self.coding_method].function(self, total, label))
            self._window = []
        elif self.value is None:
            self.value = torch.zeros(1, dtype=spikes.dtype, device=spikes.device)

    def _shaped(self, value: Tensor) -> Tensor:
        shape = self.option("reward_shape")
        if shape is None:
            return value
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if math.prod(shape) != value.numel():
            raise InputError(
                f"{self!r}: reward_shape={shape}, but {self.coding_method} gives {value.numel()} "
                "numbers"
            )
        return value.reshape(shape)
