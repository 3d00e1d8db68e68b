"""Generators: input without data (section 9.2)."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.spaic.network.nodes.encoders import Encoder
from tenfold.spaic.network.nodes.node import Coding
from tenfold.spaic.units import plain


def _poisson_generator(node: "Generator", source: Tensor, k: int, dt: float) -> Tensor:
    p = source * float(node.option("unit_conversion"))
    drawn = torch.rand(p.shape, generator=node.generator, device=p.device, dtype=p.dtype)
    weight = float(node.option("weight"))
    return torch.where(drawn < p, weight, 0.0) * node.within(k, dt)


def _poisson_step(node: "Generator", source: Tensor, k: int, dt: float) -> Tensor:
    drawn = torch.rand(
        source.shape, generator=node.generator, device=source.device, dtype=source.dtype
    )
    spikes = (drawn < source * dt).to(source.dtype)
    return float(node.option("weight")) * spikes * node.within(k, dt)


def _poisson_rate(node: "Generator", source: Tensor, k: int, dt: float) -> Tensor:
    """Poisson counts with a rate in kHz, exact for any dt: the physical generator."""
    rate = (source * dt * node.within(k, dt)).to(torch.float64)
    return float(node.option("weight")) * torch.poisson(rate, generator=node.generator)


def _current(node: "Generator", source: Tensor, k: int, dt: float) -> Tensor:
    return source * node.within(k, dt)


def _sine(node: "Generator", source: Tensor, k: int, dt: float) -> Tensor:
    amplitude, period = source[..., 0], source[..., 1]
    return amplitude * torch.sin(2 * math.pi * k * dt / period) * node.within(k, dt)


def _ramp(node: "Generator", source: Tensor, k: int, dt: float) -> Tensor:
    slope, base = source[..., 0], source[..., 1]
    return float(node.option("amp")) * (slope * k * dt + base) * node.within(k, dt)


def _noise(node: "Generator", source: Tensor, k: int, dt: float) -> Tensor:
    """A normal number for each channel and step: a mean and a deviation."""
    mean, std = source[..., 0], source[..., 1]
    return (mean + std * node.normal(mean)) * node.within(k, dt)


def _coloured(node: "Generator", source: Tensor, k: int, dt: float) -> Tensor:
    """An Ornstein–Uhlenbeck process, exact for any step, that begins in its stationary law."""
    mean, std = source[..., 0], source[..., 1]
    keep = math.exp(-dt / float(node.option("tau")))
    if k == 0 or node.held is None:
        node.held = mean + std * node.normal(mean)
    else:
        kick = std * math.sqrt(1 - keep * keep) * node.normal(mean)
        node.held = mean + keep * (node.held - mean) + kick
    return node.held * node.within(k, dt)


_TIMES = {"start_time": 0.0, "end_time": math.inf}


class Generator(Encoder):
    """Makes input without data: the source is given by `rate` or by a call.

    coding_method: poisson_generator (probability rate·unit_conversion a step, as the official
    code), poisson_generator2 (probability rate·dt, at most one spike a step), poisson (counts with
    `rate` in kHz), cc_generator or constant_current, sin_generator or sin (source (amplitude,
    period in ms) in the last axis), ramp_generator or ramp ((slope, base)).

    noise (source (mean, standard deviation): a normal number for each channel and step) and
    ou_noise (the same law with the memory `tau`, 5 ms) are noise currents of section 23.2.
    `gen_first=True` of poisson_generator repeats in every run what the first one drew.

    Args:
        rate: The source: a number or an array [num] (sin, ramp, noise: [2] or [num, 2]).
        **arguments: Those of a Node.
    """

    codings = {  # noqa: RUF012 - a table, not state
        "poisson_generator": Coding(
            _poisson_generator, unit_conversion=0.1, weight=1.0, gen_first=False, **_TIMES
        ),
        "poisson_generator2": Coding(_poisson_step, weight=1.0, **_TIMES),
        "poisson": Coding(_poisson_rate, weight=1.0, **_TIMES),
        "cc_generator": Coding(_current, **_TIMES),
        "constant_current": Coding(_current, **_TIMES),
        "sin_generator": Coding(_sine, **_TIMES),
        "sin": Coding(_sine, **_TIMES),
        "ramp_generator": Coding(_ramp, amp=0.001, **_TIMES),
        "ramp": Coding(_ramp, amp=0.001, **_TIMES),
        "noise": Coding(_noise, **_TIMES),
        "ou_noise": Coding(_coloured, tau=5.0, **_TIMES),
    }

    def __init__(self, *arguments: Any, rate: Any = None, **options: Any) -> None:
        self._first: dict[int, Tensor] = {}
        self.held: Tensor | None = None
        options.setdefault("coding_method", "poisson_generator")
        super().__init__(*arguments, **options)
        if self.coding_method == "ou_noise" and not 0 < float(self.option("tau")) < math.inf:
            raise InputError(f"{self!r}: tau={self.option('tau')}; expected > 0 ms")
        if self.shape is None and self.dec_target is not None:
            self.shape = self.dec_target.shape
        if rate is not None:
            self(rate)

    def __call__(self, source: Any) -> None:
        """Sets the source.

        Args:
            source: A number, [num] or [batch, num], or a `Quantity` of these; sin, ramp and noise:
                with a last axis of two.
        """
        source = plain(source, "rate" if self.coding_method.startswith("poisson") else None)
        made = torch.as_tensor(np.asarray(source) if not isinstance(source, Tensor) else source)
        made = made.to(torch.float64)
        if not bool(torch.isfinite(made).all()):
            raise InputError(f"{self!r}: the source holds values that are not finite")
        if self.coding_method.startswith("poisson") and bool((made < 0).any()):
            raise InputError(f"{self!r}: a Poisson rate is {float(made.min()):g}; expected >= 0")
        pairs = (_sine, _ramp, _noise, _coloured)
        pair = 1 if self.codings[self.coding_method].function in pairs else 0
        if pair and (made.ndim == 0 or made.shape[-1] != 2):
            raise InputError(f"{self!r}: {self.coding_method} takes two numbers in the last axis")
        size = self.num
        lead = made.shape[: made.ndim - pair]
        if lead.numel() not in (1, size) and not (len(lead) > 1 and lead[1:].numel() == size):
            raise InputError(f"{self!r}: the source has shape {tuple(made.shape)}; expected {size}")
        self.batch = int(lead[0]) if len(lead) > 1 else 1
        last = made.shape[made.ndim - pair :]
        if lead.numel() == 1:
            made = made.reshape(1, 1, *last).expand(1, size, *last)
        self.source = made.reshape(self.batch, *self.shape, *last)  # type: ignore[misc]

    def normal(self, like: Tensor) -> Tensor:
        """Draws a standard normal number for each channel.

        Args:
            like: For shape, device and precision.
        """
        return torch.randn(
            like.shape, generator=self.generator, device=like.device, dtype=like.dtype
        )

    def within(self, k: int, dt: float) -> float:
        """Says 1 or 0: whether the step lies between start_time and end_time.

        Args:
            k: The step.
            dt: Its length in ms.
        """
        start, end = float(self.option("start_time")), float(self.option("end_time"))
        return float(start - 1e-9 <= k * dt < end - 1e-9)

    def check_rates(self, dt: float) -> None:
        """Says once that a generator of at most one spike a step cannot reach its rate.

        Args:
            dt: The step in ms.
        """
        if self.coding_method == "poisson_generator":
            self.tell_saturation(self.source * float(self.option("unit_conversion")))
        elif self.coding_method == "poisson_generator2":
            self.tell_saturation(self.source * dt)

    def start(self, count: int, dt: float, done: int = 0) -> None:
        """Gets ready to emit steps.

        Args:
            count: The number of steps.
            dt: The step in ms.
            done: The steps made before in this run; the generator's time goes on.

        Raises:
            InputError: If it has no source.
        """
        if self.source is None:
            raise InputError(f"{self!r} has no source; give rate= or call it with one")
        self.check_rates(dt)
        source = self.source.to(device=self._device, dtype=self._dtype)
        function = self.codings[self.coding_method].function
        self._emit = lambda k: function(self, source, done + k, dt)
        if self.coding.get("gen_first", False):
            make = self._emit

            def again(k: int) -> Tensor:
                if done + k not in self._first:
                    self._first[done + k] = make(k)
                return self._first[done + k]

            self._emit = again
