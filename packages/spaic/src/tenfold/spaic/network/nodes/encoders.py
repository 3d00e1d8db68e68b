"""Encoders: data as input at each step (section 9.1)."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.shared.progress import message
from tenfold.spaic.network.nodes.node import Coding, Node

SPIKING = frozenset(
    [
        "poisson",
        "bernoulli",
        "latency",
        "relative_latency",
        "uniform",
        "sstb",
        "mstb",
        "poisson_generator",
        "poisson_generator2",
    ]
)
"""Codings, of encoders and generators, whose values are spikes and not currents."""


def _spikes_at(steps: Tensor, count: int, silent: Tensor | None = None) -> Callable[[int], Tensor]:
    """One spike a channel, at the given steps."""
    shown = torch.where(silent, torch.full_like(steps, -1), steps) if silent is not None else steps

    def emit(k: int) -> Tensor:
        return shown == k

    return emit


def _null(node: "Encoder", x: Tensor, count: int, dt: float) -> Callable[[int], Tensor]:
    steps = node.passed + count
    if x.ndim < 2 or x.shape[1] < steps:
        raise InputError(
            f"{node!r}: coding 'null' takes (batch, time, *shape) with at least {steps} steps, got "
            f"{tuple(x.shape)}"
        )
    return lambda k: x[:, k]


def _float(node: "Encoder", x: Tensor, count: int, dt: float) -> Callable[[int], Tensor]:
    return lambda k: x


def _constant(node: "Encoder", x: Tensor, count: int, dt: float) -> Callable[[int], Tensor]:
    if node.option("input_norm"):
        x = x / x.abs().max().clamp(min=1e-12)
    return lambda k: float(node.option("amp")) * x


def _poisson(node: "Encoder", x: Tensor, count: int, dt: float) -> Callable[[int], Tensor]:
    if bool((x < 0).any()):
        raise InputError(f"{node!r}: a Poisson rate is {float(x.min()):g}; expected >= 0")
    p = x * float(node.option("unit_conversion")) * dt
    node.tell_saturation(p)
    start, end = float(node.option("start_time")), float(node.option("end_time"))

    def emit(k: int) -> Tensor:
        drawn = torch.rand(p.shape, generator=node.generator, device=p.device, dtype=p.dtype)
        if start - 1e-9 <= k * dt < end - 1e-9:
            return (drawn < p) if p.numel() else drawn > 1
        return torch.zeros_like(p)

    return emit


def _bernoulli(node: "Encoder", x: Tensor, count: int, dt: float) -> Callable[[int], Tensor]:
    if bool((x < 0).any()):
        raise InputError(f"{node!r}: a Bernoulli value is {float(x.min()):g}; expected >= 0")
    top = float(x.max()) if x.numel() else 0.0
    p = float(node.option("max_prob")) * (x / top if top > 1 else x)
    return lambda k: (
        torch.rand(p.shape, generator=node.generator, device=p.device, dtype=p.dtype) < p
    )


def _latency(node: "Encoder", x: Tensor, count: int, dt: float) -> Callable[[int], Tensor]:
    low, high = x.min(), x.max()
    share = 1 - (x - low) / (high - low + 1e-10)
    steps = torch.trunc((count - 1) * float(node.option("max_scale")) * share)
    silent = None
    if node.option("cut_off"):
        top = x.flatten(1).max(1).values.reshape(-1, *[1] * (x.ndim - 1))
        silent = x <= 0.05 * top
    return _spikes_at(steps, count, silent)


def _relative_latency(node: "Encoder", x: Tensor, count: int, dt: float) -> Callable[[int], Tensor]:
    y = torch.exp(-float(node.option("amp")) * x)
    lowest = y.flatten(1).min(1).values.reshape(-1, *[1] * (x.ndim - 1))
    steps = torch.trunc((count - 1) * float(node.option("scale")) * (y - lowest))
    steps = steps + float(node.option("bias"))
    return _spikes_at(steps, count, steps > 0.8 * steps.max())


def _uniform(node: "Encoder", x: Tensor, count: int, dt: float) -> Callable[[int], Tensor]:
    low, high = x.min(), x.max()
    amp, bias = float(node.option("amp")), float(node.option("bias"))
    longest = float(node.option("max_time") or count * dt)
    period = torch.ceil(amp * longest * (bias + high - x) / ((bias + high - low) * dt) - 1e-4)
    period = torch.where(x == low, period + round(10 * longest / dt), period).clamp(min=1)
    return lambda k: torch.remainder(torch.full_like(period, k + 1), period) == 0


def _single_times(node: "Encoder", x: Tensor, count: int, dt: float) -> Callable[[int], Tensor]:
    return _spikes_at(torch.trunc(x / dt + 1e-4), count)


def _many_times(node: "Encoder", pairs: Any, count: int, dt: float) -> Callable[[int], Tensor]:
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for sample, (times, neurons) in enumerate(pairs):
        times, given = np.asarray(times, dtype=np.float64), np.asarray(neurons)
        neurons = given.astype(np.int64)
        if np.any(neurons != given):
            raise InputError(f"{node!r}: sample {sample} names neurons that are no whole numbers")
        if len(times) != len(neurons):
            raise InputError(
                f"{node!r}: sample {sample} has {len(times)} times and {len(neurons)} neurons"
            )
        if not np.all(np.isfinite(times)) or np.any(times < 0):
            raise InputError(f"{node!r}: sample {sample} has times that are not finite and >= 0 ms")
        if len(neurons) and not 0 <= neurons.min() <= neurons.max() < node.num:
            raise InputError(
                f"{node!r}: sample {sample} names neurons {neurons.min()}..{neurons.max()}; "
                f"expected 0..{node.num - 1}"
            )
        steps = np.minimum(np.trunc(times / dt + 1e-6), count - 1).astype(np.int64)
        rows.append((np.full(len(steps), sample), steps, neurons))
    if not rows:
        raise InputError(f"{node!r}: the data hold no sample")
    samples, steps, neurons = (np.concatenate(part) for part in zip(*rows, strict=True))
    order = np.argsort(steps, kind="stable")
    samples, steps, neurons = samples[order], steps[order], neurons[order]
    bounds = np.searchsorted(steps, np.arange(count + 1))

    def emit(k: int) -> Tensor:
        made = np.zeros((len(pairs), node.num))
        part = slice(bounds[k], bounds[k + 1]) if k < count else slice(0)
        np.add.at(made, (samples[part], neurons[part]), 1.0)
        shape = node.shape or (node.num,)
        return torch.from_numpy(made).reshape(len(pairs), *shape)

    return emit


class Encoder(Node):
    """Turns data into input at each step; `net.input(x)` sets the data, the batch first.

    In `run_continue` the data go on where they were, unless new data were set, which begin there.
    What is coded over a run (latency, relative_latency, uniform, mstb) is coded over its first part
    where `time` does not say how long it takes.

    coding_method: null (data are (batch, time, *shape)), float, constant_current, poisson,
    bernoulli, latency, relative_latency, uniform, sstb (one spike time in ms a neuron), mstb
    (a pair (times in ms, neurons) a sample). The rules stand in section 9.1 of the method card.
    """

    codings = {  # noqa: RUF012 - a table, not state
        "null": Coding(_null),
        "float": Coding(_float),
        "constant_current": Coding(_constant, amp=1.0, input_norm=False),
        "poisson": Coding(
            _poisson, unit_conversion=1.0, start_time=0.0, end_time=math.inf, single_test=False
        ),
        "bernoulli": Coding(_bernoulli, max_prob=1.0),
        "latency": Coding(_latency, max_scale=1.0, cut_off=False),
        "relative_latency": Coding(_relative_latency, amp=1.0, scale=0.9999999, bias=0.0),
        "uniform": Coding(_uniform, max_time=None, amp=1.0, bias=0.05),
        "sstb": Coding(_single_times),
        "mstb": Coding(_many_times),
    }
    generator: torch.Generator

    def __call__(self, data: Any) -> None:
        """Sets the data of the next run.

        Args:
            data: [batch, *shape] (null: [batch, time, *shape]; mstb: a list of pairs).
        """
        self._begun = None
        if self.coding_method == "mstb":
            self.source = list(data)
            self.batch = len(self.source)
            return
        made = data if isinstance(data, Tensor) else torch.as_tensor(np.asarray(data))
        if not made.is_floating_point():
            made = made.to(torch.float32)
        if not bool(torch.isfinite(made).all()):
            raise InputError(f"{self!r}: the data hold values that are not finite")
        lead = 2 if self.coding_method == "null" else 1
        if self.shape is not None:
            if made.ndim < lead or made.shape[lead:].numel() != self.num:
                raise InputError(
                    f"{self!r}: the data have shape {tuple(made.shape)}; expected (batch, "
                    f"{'time, ' if lead == 2 else ''}{', '.join(map(str, self.shape))})"
                )
            made = made.reshape(*made.shape[:lead], *self.shape)
        else:
            self.shape = tuple(made.shape[lead:])
        if len(made) == 0:
            raise InputError(f"{self!r}: the data hold no sample")
        self.source, self.batch = made, len(made)

    batch = 1
    told_saturation = False
    passed = 0  # the steps of these data that were before this part of the run
    _begun: int | None = None
    _window = 0

    def tell_saturation(self, p: Tensor) -> None:
        """Says once that probabilities above one cannot be reached.

        Args:
            p: The probability of a spike in a step.
        """
        if not self.told_saturation and p.numel() and float(p.max()) > 1:
            self.told_saturation = True
            message(f"{self!r}: rates up to {float(p.max()):g} a step saturate at one spike a step")

    def start(self, count: int, dt: float, done: int = 0) -> None:
        """Gets ready to emit the steps 0 .. count − 1.

        Args:
            count: The number of steps.
            dt: The step in ms.
            done: The steps made before in this run.

        Raises:
            InputError: Without data, or for data that the coding cannot take.
        """
        if self.source is None:
            raise InputError(f"{self!r} has no data; call it with data before the run")
        x = self.source
        if isinstance(x, Tensor):
            x = x.to(device=self._device, dtype=self._dtype)
        if self._begun is None or done == 0:
            self._begun, self._window = done, count
        self.passed = done - self._begun
        steps = self._window if self.time is None else math.ceil(self.time / dt - 1e-9)
        function = self.codings[self.coding_method].function
        self._emit = function(self, x, count if self.coding_method == "null" else steps, dt)

    def whole(self, count: int) -> Tensor | None:
        """Gives the input of all steps at once, where that needs no drawing; else None.

        Args:
            count: The number of steps.

        Returns:
            [steps, batch, *shape].
        """
        x = self.source
        if type(self) is not Encoder or self.coding_method not in ("null", "float"):
            return None
        made: Tensor = x.to(device=self._device, dtype=self._dtype)
        if self.coding_method == "null":
            return made[:, self.passed : self.passed + count].transpose(0, 1)
        return made.expand(count, *made.shape)

    def emit(self, k: int) -> Tensor:
        """Gives the input of one step.

        Args:
            k: The step of this part of the run, from 0.

        Returns:
            [batch, *shape].
        """
        made: Tensor = self._emit(self.passed + k)
        return made.to(device=self._device, dtype=self._dtype)
