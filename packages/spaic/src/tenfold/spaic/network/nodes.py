"""Nodes: what brings data into a network and reads it out (section 9)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.shared.progress import message
from tenfold.spaic.network.groups import Layer
from tenfold.spaic.units import plain


class Node(Layer):
    """What encoders, generators, decoders, actions and rewards have in common.

    Args:
        shape: The shape of one sample.
        num: The number of channels.
        dec_target: What a decoder, action or reward reads (or a generator writes into).
        dt: Kept for the network's file; nodes run with the network's step.
        coding_method: How values become spikes or spikes become values.
        coding_var_name: The variable that is written or read.
        node_type: Labels for connection policies.
        time: The coded time in ms; by default that of the run.
        name: The name.
        **coding: The parameters of the coding method.
    """

    label = "nod"
    codings: dict[str, Any]

    def __init__(
        self,
        shape: Sequence[int] | int | None = None,
        num: int | None = None,
        dec_target: Layer | None = None,
        dt: float | None = None,
        coding_method: str = "null",
        coding_var_name: str = "O",
        node_type: str | Sequence[str] = (),
        time: float | None = None,
        name: str | None = None,
        **coding: Any,
    ) -> None:
        super().__init__(num, shape, name, node_type)
        kind = type(self).__name__
        if coding_method not in self.codings:
            hint = did_you_mean(coding_method, self.codings, f"coding of {kind}")
            raise InputError(f"{self!r}: {hint}")
        options = self.codings[coding_method].options
        for key in coding:
            if key not in options:
                hint = did_you_mean(key, options, f"option of {coding_method}")
                raise InputError(f"{self!r}: {hint}")
        self.coding_method, self.coding_var_name = coding_method, coding_var_name
        self.dec_target, self.dt = dec_target, dt
        self.time = None if time is None else float(plain(time, "time"))
        self.coding = {key: plain(value) for key, value in coding.items()}
        self.source: Any = None
        self._device, self._dtype = torch.device("cpu"), torch.float32

    def option(self, name: str) -> Any:
        """Gives a parameter of the coding, or its default.

        Args:
            name: The parameter.
        """
        return self.coding.get(name, self.codings[self.coding_method].options[name])

    def place(self, device: torch.device, dtype: torch.dtype) -> None:
        """Tells the node where the network runs.

        Args:
            device: The device.
            dtype: The precision.
        """
        self._device, self._dtype = device, dtype


class _Coding:
    """A coding: a function and the defaults of its parameters."""

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        self.function, self.options = function, options


# --------------------------------------------------------------------------------------- encoders


def _spikes_at(steps: Tensor, count: int, silent: Tensor | None = None) -> Callable[[int], Tensor]:
    """One spike a channel, at the given steps."""
    shown = torch.where(silent, torch.full_like(steps, -1), steps) if silent is not None else steps

    def emit(k: int) -> Tensor:
        return shown == k

    return emit


def _null(node: "Encoder", x: Tensor, count: int, dt: float) -> Callable[[int], Tensor]:
    if x.ndim < 2 or x.shape[1] < count:
        raise InputError(
            f"{node!r}: coding 'null' takes (batch, time, *shape) with at least {count} steps, got "
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
    if float(p.max()) > 1:
        message(f"{node!r}: rates up to {float(p.max()):g} a step saturate at one spike a step")
    start, end = float(node.option("start_time")), float(node.option("end_time"))

    def emit(k: int) -> Tensor:
        drawn = torch.rand(p.shape, generator=node.generator, device=p.device, dtype=p.dtype)
        if start <= (k + 1) * dt + 1e-9 and k * dt <= end + 1e-9:
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
        times, neurons = np.asarray(times, dtype=np.float64), np.asarray(neurons, dtype=np.int64)
        if len(times) != len(neurons):
            raise InputError(
                f"{node!r}: sample {sample} has {len(times)} times and {len(neurons)} neurons"
            )
        if len(neurons) and not 0 <= neurons.min() <= neurons.max() < node.num:
            raise InputError(
                f"{node!r}: sample {sample} names neurons {neurons.min()}..{neurons.max()}; "
                f"expected 0..{node.num - 1}"
            )
        steps = np.minimum(np.trunc(times / dt + 1e-6), count - 1).astype(np.int64)
        rows.append((np.full(len(steps), sample), steps, neurons))
    samples, steps, neurons = (np.concatenate(part) for part in zip(*rows, strict=True))
    order = np.argsort(steps, kind="stable")
    samples, steps, neurons = samples[order], steps[order], neurons[order]
    bounds = np.searchsorted(steps, np.arange(count + 1))

    def emit(k: int) -> Tensor:
        made = np.zeros((len(pairs), node.num))
        part = slice(bounds[k], bounds[k + 1])
        np.add.at(made, (samples[part], neurons[part]), 1.0)
        shape = node.shape or (node.num,)
        return torch.from_numpy(made).reshape(len(pairs), *shape)

    return emit


class Encoder(Node):
    """Turns data into input at each step; `net.input(x)` sets the data, the batch first.

    coding_method: null (data are (batch, time, *shape)), float, constant_current, poisson,
    bernoulli, latency, relative_latency, uniform, sstb (one spike time in ms a neuron), mstb
    (a pair (times in ms, neurons) a sample). The rules stand in section 9.1 of the method card.
    """

    codings = {  # noqa: RUF012 - a table, not state
        "null": _Coding(_null),
        "float": _Coding(_float),
        "constant_current": _Coding(_constant, amp=1.0, input_norm=False),
        "poisson": _Coding(
            _poisson, unit_conversion=1.0, start_time=0.0, end_time=math.inf, single_test=False
        ),
        "bernoulli": _Coding(_bernoulli, max_prob=1.0),
        "latency": _Coding(_latency, max_scale=1.0, cut_off=False),
        "relative_latency": _Coding(_relative_latency, amp=1.0, scale=0.9999999, bias=0.0),
        "uniform": _Coding(_uniform, max_time=None, amp=1.0, bias=0.05),
        "sstb": _Coding(_single_times),
        "mstb": _Coding(_many_times),
    }
    generator: torch.Generator

    def __call__(self, data: Any) -> None:
        """Sets the data of the next run.

        Args:
            data: [batch, *shape] (null: [batch, time, *shape]; mstb: a list of pairs).
        """
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
        self.source, self.batch = made, len(made)

    batch = 1

    def start(self, count: int, dt: float, done: int = 0) -> None:
        """Gets ready to emit the steps 0 .. count − 1.

        Args:
            count: The number of steps.
            dt: The step in ms.
            done: The steps made before in this run; data begin anew, a generator's time does not.
        """
        if self.source is None:
            raise InputError(f"{self!r} has no data; call it with data before the run")
        x = self.source
        if isinstance(x, Tensor):
            x = x.to(device=self._device, dtype=self._dtype)
        steps = count if self.time is None else math.ceil(self.time / dt - 1e-9)
        function = self.codings[self.coding_method].function
        self._emit = function(
            self, x, max(steps, count) if self.coding_method != "null" else count, dt
        )

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
            return made[:, :count].transpose(0, 1)
        return made.expand(count, *made.shape)

    def emit(self, k: int) -> Tensor:
        """Gives the input of one step.

        Args:
            k: The step of this run, from 0.

        Returns:
            [batch, *shape].
        """
        made: Tensor = self._emit(k)
        return made.to(device=self._device, dtype=self._dtype)


# ------------------------------------------------------------------------------------- generators


def _poisson_generator(node: "Generator", source: Tensor, k: int, dt: float) -> Tensor:
    p = source * float(node.option("unit_conversion"))
    drawn = torch.rand(p.shape, generator=node.generator, device=p.device, dtype=p.dtype)
    weight = float(node.option("weight"))
    return torch.where(drawn < p, weight, 0.0) * node.within(k, dt)


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


_TIMES = {"start_time": 0.0, "end_time": math.inf}


class Generator(Encoder):
    """Makes input without data: the source is given by `rate` or by a call.

    coding_method: poisson_generator (probability rate·unit_conversion a step, as the official
    code), poisson (counts with `rate` in kHz), cc_generator or constant_current, sin_generator or
    sin (source (amplitude, period in ms) in the last axis), ramp_generator or ramp ((slope, base)).

    Args:
        rate: The source: a number or an array [num] (sin, ramp: [2] or [num, 2]).
        **arguments: Those of a Node.
    """

    codings = {  # noqa: RUF012 - a table, not state
        "poisson_generator": _Coding(
            _poisson_generator, unit_conversion=0.1, weight=1.0, gen_first=False, **_TIMES
        ),
        "poisson": _Coding(_poisson_rate, weight=1.0, **_TIMES),
        "cc_generator": _Coding(_current, **_TIMES),
        "constant_current": _Coding(_current, **_TIMES),
        "sin_generator": _Coding(_sine, **_TIMES),
        "sin": _Coding(_sine, **_TIMES),
        "ramp_generator": _Coding(_ramp, amp=0.001, **_TIMES),
        "ramp": _Coding(_ramp, amp=0.001, **_TIMES),
    }

    def __init__(self, *arguments: Any, rate: Any = None, **options: Any) -> None:
        options.setdefault("coding_method", "poisson_generator")
        super().__init__(*arguments, **options)
        if self.shape is None and self.dec_target is not None:
            self.shape = self.dec_target.shape
        if rate is not None:
            self(plain(rate))

    def __call__(self, source: Any) -> None:
        """Sets the source.

        Args:
            source: A number, [num] or [batch, num]; sin and ramp: with a last axis of two.
        """
        made = torch.as_tensor(np.asarray(source) if not isinstance(source, Tensor) else source)
        made = made.to(torch.float64)
        if not bool(torch.isfinite(made).all()):
            raise InputError(f"{self!r}: the source holds values that are not finite")
        if self.coding_method.startswith("poisson") and bool((made < 0).any()):
            raise InputError(f"{self!r}: a Poisson rate is {float(made.min()):g}; expected >= 0")
        pair = 1 if self.codings[self.coding_method].function in (_sine, _ramp) else 0
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

    def within(self, k: int, dt: float) -> float:
        """Says 1 or 0: whether the step lies between start_time and end_time.

        Args:
            k: The step.
            dt: Its length in ms.
        """
        start, end = float(self.option("start_time")), float(self.option("end_time"))
        return float(start - 1e-9 <= k * dt < end - 1e-9)

    def start(self, count: int, dt: float, done: int = 0) -> None:
        """Gets ready to emit steps."""
        if self.source is None:
            raise InputError(f"{self!r} has no source; give rate= or call it with one")
        source = self.source.to(device=self._device, dtype=self._dtype)
        function = self.codings[self.coding_method].function
        self._emit = lambda k: function(self, source, done + k, dt)


# --------------------------------------------------------------------------------------- decoders


def _counts(node: "Decoder", r: Tensor) -> Tensor:
    return node.pooled(r.sum(0)) * float(node.option("scale"))


def _rate(node: "Decoder", r: Tensor) -> Tensor:
    return node.pooled(r.mean(0)) * float(node.option("scale"))


def _first_spike(node: "Decoder", r: Tensor) -> Tensor:
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
        "spike_counts": _Coding(_counts, pop_size=1, bias=0.0, scale=1.0),
        "spike_rate": _Coding(_rate, pop_size=1, bias=0.0, scale=1.0),
        "spike_rates": _Coding(lambda node, r: r.sum(0) / len(r)),
        "first_spike": _Coding(_first_spike),
        "time_spike_counts": _Coding(_time_counts),
        "final_step_voltage": _Coding(lambda node, r: r[-1]),
        "voltage_sum": _Coding(lambda node, r: r[-1] - r[-1].mean(0)),
        "v_t": _Coding(lambda node, r: r),
        "null": _Coding(lambda node, r: r),
        "spike_conv": _Coding(_spike_conv, time_window=80.0),
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


# ---------------------------------------------------------------------------------------- actions


class Action(Decoder):
    """Chooses an action from what a group did: `net.action.predict`, int64 [batch].

    coding_method: pop_rate_action, softmax_action, highest_spikes_action, highest_voltage_action,
    first_spike_action, random_action (section 9.4).
    """

    def _draw(self, weights: Tensor) -> Tensor:
        chosen = torch.multinomial(weights.cpu(), 1, generator=self.generator)
        return chosen[:, 0]

    def _pop_rate(self, r: Tensor) -> Tensor:
        y = self.pooled(r.sum(0))
        return self._draw(torch.where(y.sum(1, keepdim=True) > 0, y, torch.ones_like(y)))

    def _softmax(self, r: Tensor) -> Tensor:
        return self._draw(r.sum(0).flatten(1).softmax(1))

    def _highest_voltage(self, r: Tensor) -> Tensor:
        share = 0.05 + (0.9 - 0.05) * math.exp(-self.decisions / 200)
        self.decisions += 1
        best = r[-1].flatten(1).argmax(1).cpu()
        drawn = torch.rand(len(best), generator=self.generator)
        other = torch.randint(r[-1].flatten(1).shape[1], best.shape, generator=self.generator)
        return torch.where(drawn < share, other, best)

    def _first(self, r: Tensor) -> Tensor:
        return _first_spike(self, r).argmax(1)

    def _random(self, r: Tensor) -> Tensor:
        return torch.randint(r.flatten(2).shape[2], (r.shape[1],), generator=self.generator)

    decisions = 0
    generator: torch.Generator
    codings = {  # noqa: RUF012 - a table, not state
        "pop_rate_action": _Coding(_pop_rate, pop_size=1, bias=0.0),
        "softmax_action": _Coding(_softmax),
        "highest_spikes_action": _Coding(lambda node, r: r.sum(0).flatten(1).argmax(1)),
        "highest_voltage_action": _Coding(_highest_voltage),
        "first_spike_action": _Coding(_first),
        "random_action": _Coding(_random),
    }


# ---------------------------------------------------------------------------------------- rewards


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
    return label.to(y.dtype).reshape(-1)


def _classify(node: "Reward", y: Tensor, label: Tensor) -> Tensor:
    node.leaky = 0.99 * node.leaky + y.flatten(1)
    z = node.leaky
    if len(z) > 1:
        z = (z - z.mean(0)) / (z.std(0) + 1e-8)
    p = z.softmax(1)
    hot = torch.nn.functional.one_hot(label.to(torch.int64), p.shape[1]).to(p.dtype)
    return (hot - p).mean(0)


class Reward(Node):
    """Computes the reward of each step from a group's spikes and the label, for R-STDP learners.

    coding_method: global_reward, da_reward, xor_reward, environment_reward, classify_reward
    (section 9.5). `net.reward(label)` sets the labels (or the environment's number).
    """

    codings = {  # noqa: RUF012 - a table, not state
        "global_reward": _Coding(
            _global, pop_size=1, reward_signal=1.0, punish_signal=-1.0, dec_sample_step=1
        ),
        "da_reward": _Coding(
            _dopamine, pop_size=1, reward_signal=1.0, punish_signal=0.0, dec_sample_step=1
        ),
        "xor_reward": _Coding(_xor, reward_signal=1.0, punish_signal=-1.0, dec_sample_step=1),
        "environment_reward": _Coding(_environment, dec_sample_step=1),
        "classify_reward": _Coding(_classify, dec_sample_step=1),
    }
    leaky: Any = 0.0
    value: Tensor | None = None

    def __call__(self, label: Any) -> None:
        """Sets the labels of the batch, or the number that the environment gave."""
        self.source = torch.as_tensor(np.asarray(label) if not isinstance(label, Tensor) else label)

    def signal(self, name: str) -> float:
        """Gives a parameter as a number."""
        return float(self.option(name))

    def populations(self, y: Tensor) -> Tensor:
        """Adds up populations of `pop_size` neighbours."""
        return y.flatten(1).reshape(len(y), -1, int(self.option("pop_size"))).sum(2)

    def start(self) -> None:
        """Forgets the spikes of earlier runs."""
        self.leaky, self.value = 0.0, None
        self._window: list[Tensor] = []

    def step(self, spikes: Tensor) -> None:
        """Takes the spikes of one step and, every `dec_sample_step` steps, makes the reward.

        Args:
            spikes: [batch, num].
        """
        if self.source is None:
            raise InputError(f"{self!r} has no label; call it with one before the run")
        self._window.append(spikes)
        every = int(self.option("dec_sample_step"))
        if len(self._window) == every:
            total = torch.stack(self._window).sum(0)
            label = self.source.to(spikes.device)
            self.value = self.codings[self.coding_method].function(self, total, label)
            self._window = []
        elif self.value is None:
            self.value = torch.zeros(1, dtype=spikes.dtype, device=spikes.device)
