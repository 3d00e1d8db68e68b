"""Decoders: what a group did, as values (section 9.3)."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.spaic.network.nodes.node import Coding, Node
from tenfold.spaic.network.objects import rests

POTENTIALS = ("final_step_voltage", "voltage_sum", "highest_voltage_action")
"""Codings, of decoders and actions, that read a potential instead of spikes."""


def _counts(node: "Decoder", r: Tensor) -> Tensor:
    return node.pooled(r.sum(0)) * float(node.option("scale"))


def _rate(node: "Decoder", r: Tensor) -> Tensor:
    return node.pooled(r.mean(0)) * float(node.option("scale"))


def first_spike(node: "Decoder", r: Tensor) -> Tensor:
    """The spikes of the first step in which a sample has any; zeros if it has none.

    Args:
        node: The decoder.
        r: [steps, batch, *shape].
    """
    fired = r.flatten(2).sum(2) > 0  # [N, batch]
    first = fired.to(torch.int64).argmax(0)
    row = r.flatten(2)[first, torch.arange(r.shape[1], device=r.device)]
    return row * fired.any(0)[:, None]


def _time_counts(node: "Decoder", r: Tensor) -> Tensor:
    t = torch.arange(len(r), device=r.device, dtype=r.dtype)
    weight = 0.1 * torch.exp(-t / (0.5 * len(r)))
    return torch.einsum("t,tbn->bn", weight, r.flatten(2))


def _spike_conv(node: "Decoder", r: Tensor) -> Tensor:
    width = float(node.option("time_window")) / 2
    t = torch.arange(len(r), device=r.device, dtype=r.dtype) * node.step
    kernel = torch.exp(-((3 * (t[:, None] - t[None]) / width) ** 2))
    return torch.einsum("ts,sbn->tbn", kernel, r.flatten(2))


# Two-channel outputs: a variable that is 0 without a spike and else the time in ms left of the step
# (`T` of `slif`); read from `O`, every spike stands at the end of its step.


def _times(node: "Decoder", r: Tensor) -> tuple[Tensor, Tensor]:
    """The spikes [steps, batch, num] and their times in ms since the run began."""
    r = r.flatten(2)
    fired = (r != 0).to(r.dtype)
    left = torch.zeros_like(r) if node.coding_var_name == "O" else r
    ends = (torch.arange(len(r), device=r.device, dtype=r.dtype) + 1) * node.step
    return fired, ends[:, None, None] - left


def _first_times(node: "Decoder", r: Tensor) -> tuple[Tensor, Tensor]:
    """Each neuron's first time [batch, num], and whether it has one; else the run's end."""
    fired, times = _times(node, r)
    none = torch.full_like(times, len(r) * node.step)
    return torch.where(fired > 0, times, none).amin(0), fired.any(0)


def _time_softmax(node: "Decoder", r: Tensor) -> Tensor:
    times, fired = _first_times(node, r)
    earliest = times.amin(1, keepdim=True)
    score = float(node.option("scale")) * torch.exp((earliest - times) / float(node.option("tau")))
    pop = int(node.option("pop_size"))
    return (score * fired).reshape(len(score), -1, pop).mean(2)


def _rotated(node: "Decoder", r: Tensor) -> Tensor:
    """Σ e^{2πi t/period}: its angle is the mean phase of a neuron's spikes."""
    fired, times = _times(node, r)
    angle = 2 * math.pi * times / float(node.option("period") or len(r) * node.step)
    return torch.complex((fired * angle.cos()).sum(0), (fired * angle.sin()).sum(0))


def _trajectory(node: "Decoder", r: Tensor) -> Tensor:
    """Each step's spike as strength + i·time within the step."""
    fired, times = _times(node, r)
    begins = torch.arange(len(r), device=r.device, dtype=r.dtype)[:, None, None] * node.step
    return torch.complex(fired, fired * (times - begins))


def _exact_conv(node: "Decoder", r: Tensor) -> Tensor:
    """Each spike, at its own time, as a bump exp(−(3t/w)²), at the ends of the steps."""
    fired, times = _times(node, r)
    width = float(node.option("time_window")) / 2
    ends = (torch.arange(len(r), device=r.device, dtype=r.dtype) + 1) * node.step
    return torch.stack(
        [(fired * torch.exp(-((3 * (t - times) / width) ** 2))).sum(0) for t in ends]
    )


def _timing_distance(node: "Decoder", r: Tensor) -> Tensor:
    """Each neuron's distance to its target: ∫ (bumps of both)² dt (van Rossum 2001)."""
    aim = node.expected
    return node.step * ((_exact_conv(node, r) - aim) ** 2).sum(0)


class Decoder(Node):
    """Turns what a group did during a run into values: `net.output.predict` after the run.

    coding_method: spike_counts, spike_rate, spike_rates, first_spike, time_spike_counts,
    final_step_voltage and voltage_sum (with coding_var_name='V'), v_t or null (the whole record),
    spike_conv. The rules stand in section 9.3 of the method card.

    Of exact times within a step (`coding_var_name="T"` of `slif` and `selif`; from `O`, the ends of
    the steps): time_softmax, and complex_count, complex_latency (the first time in ms),
    complex_phase (the mean angle), complex_trajectory (spike + i·time within its step),
    complex_conv, complex_timing_distance (to the target). The card names the complex codings only;
    what they compute is a reconstruction.

    Raises:
        InputError: Without dec_target, or for a size or pop_size that does not fit it.
    """

    codings = {  # noqa: RUF012 - a table, not state
        "spike_counts": Coding(_counts, pop_size=1, bias=0.0, scale=1.0),
        "spike_rate": Coding(_rate, pop_size=1, bias=0.0, scale=1.0),
        "spike_rates": Coding(lambda node, r: r.sum(0) / len(r)),
        "first_spike": Coding(first_spike),
        "time_spike_counts": Coding(_time_counts),
        "final_step_voltage": Coding(lambda node, r: r[-1]),
        "voltage_sum": Coding(lambda node, r: r[-1] - r[-1].mean(0)),
        "v_t": Coding(lambda node, r: r),
        "null": Coding(lambda node, r: r),
        "spike_conv": Coding(_spike_conv, time_window=80.0),
        "time_softmax": Coding(_time_softmax, scale=5.0, tau=50.0, pop_size=1),
        "complex_count": Coding(lambda node, r: _trajectory(node, r).real.sum(0)),
        "complex_phase": Coding(lambda node, r: _rotated(node, r).angle(), period=None),
        "complex_latency": Coding(lambda node, r: _first_times(node, r)[0]),
        "complex_timing_distance": Coding(_timing_distance, time_window=80.0),
        "complex_trajectory": Coding(_trajectory),
        "complex_conv": Coding(_exact_conv, time_window=80.0),
    }
    step = 0.1
    record: Tensor | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        target = self.dec_target
        if target is None:
            raise InputError(f"{self!r}: give dec_target, the group that it reads")
        if self.shape is None:
            self.shape = target.shape
        pop = int(self.coding.get("pop_size", 1))
        if pop < 1:
            raise InputError(f"{self!r}: pop_size={pop}; expected >= 1")
        if target.shape is not None:
            expected = {target.num, target.num // pop}
            if self.num not in expected:
                raise InputError(
                    f"{self!r}: num={self.num}, but {target!r} has {target.num} neurons"
                )
        if target.shape is not None and target.num % pop:
            raise InputError(f"{self!r}: pop_size={pop} does not divide {target.num} neurons")

    def __call__(self, label: Any) -> None:
        """Sets the labels (or targets) of the next run.

        Args:
            label: One a sample.
        """
        self.source = torch.as_tensor(np.asarray(label) if not isinstance(label, Tensor) else label)

    def pooled(self, y: Tensor) -> Tensor:
        """Adds up populations of `pop_size` neighbours and the bias.

        Args:
            y: [batch, num].
        """
        made = y.flatten(1).reshape(len(y), -1, int(self.option("pop_size"))).sum(2)
        return made + float(self.option("bias"))

    @property
    def expected(self) -> Tensor:
        """The target spikes [batch, num, steps] of the last call, smoothed as spike_conv does.

        Returns:
            [steps, batch, num].

        Raises:
            InputError: If there is no target, or the coding does not smooth.
        """
        if self.source is None or self.source.ndim != 3:
            raise InputError(f"{self!r}: call it with target spikes (batch, num, steps) first")
        if "time_window" not in self.codings[self.coding_method].options:
            raise InputError(f"{self!r}: coding {self.coding_method} smooths no target")
        aim = self.source.to(device=self._device, dtype=self._dtype)
        return _spike_conv(self, aim.permute(2, 0, 1))

    @property
    def predict(self) -> Tensor:
        """What was decoded from the last run.

        Returns:
            What the coding gives, mostly [batch, num / pop_size]; see section 9.3 of the card.

        Raises:
            InputError: If there has been no run, or none in which its target took part, or the
                labels are not one a sample.
        """
        if self.record is None:
            if rests(self.dec_target):
                raise InputError(
                    f"{self!r} reads {self.dec_target!r}, which is hidden and takes no part in "
                    "runs; call assembly_show() and run again"
                )
            raise InputError(f"{self!r}: there has been no run to decode")
        if (
            self.source is not None
            and self.source.ndim
            and len(self.source) != self.record.shape[1]
        ):
            raise InputError(
                f"{self!r}: {len(self.source)} labels for a batch of {self.record.shape[1]}"
            )
        made: Tensor = self.codings[self.coding_method].function(self, self.record)
        return made
