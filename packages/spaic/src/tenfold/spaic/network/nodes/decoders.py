"""Decoders: what a group did, as values (section 9.3)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.spaic.network.nodes.node import Coding, Node


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


class Decoder(Node):
    """Turns what a group did during a run into values: `net.output.predict` after the run.

    coding_method: spike_counts, spike_rate, spike_rates, first_spike, time_spike_counts,
    final_step_voltage and voltage_sum (with coding_var_name='V'), v_t or null (the whole record),
    spike_conv. The rules stand in section 9.3 of the method card.
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
        if target.shape is not None and (self.num, target.num // pop) and pop > 0:
            expected = {target.num, target.num // pop}
            if self.num not in expected:
                raise InputError(
                    f"{self!r}: num={self.num}, but {target!r} has {target.num} neurons"
                )
        if pop < 1 or (target.shape is not None and target.num % pop):
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
    def predict(self) -> Tensor:
        """What was decoded from the last run."""
        if self.record is None:
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
