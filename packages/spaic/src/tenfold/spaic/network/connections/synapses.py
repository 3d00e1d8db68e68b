"""Synapse models: what a spike does at its target (section 6)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.spaic.network.connections.delays import has_lags, history, lagged_weight, scattered
from tenfold.spaic.network.connections.images import (
    IMAGES,
    batch_norm,
    convolved,
    highest,
    local,
    mean,
    normalised,
    unfolding,
    upsampled,
)
from tenfold.spaic.network.connections.learned import (
    NORMALISING,
    ComplexAttention,
    RunningNormalisation,
    attend,
    normalise,
)
from tenfold.spaic.network.connections.links import DENSE, STORED

__all__ = ["SYNAPSES", "Synapse", "apply", "check", "option", "unfolding"]

if TYPE_CHECKING:
    from tenfold.spaic.network.connections.connection import Connection


@dataclass(frozen=True)
class Synapse:
    """A stage of a connection.

    Attributes:
        function: Takes the connection, the variable of this step and the generator; gives what
            the next stage sees.
        options: The parameters in `syn_kwargs` and their defaults.
        module: Makes what the stage keeps from run to run: trained parameters, running means.
    """

    function: Callable[["Connection", Tensor, torch.Generator], Tensor]
    options: Mapping[str, Any]
    module: Callable[["Connection", torch.Generator], torch.nn.Module] | None = None


def check(con: "Connection") -> None:
    """Refuses parameters that no synapse of a connection takes, and times that do not fit.

    Args:
        con: The connection.

    Raises:
        InputError: Naming the parameter.
    """
    known = {key for name in con.syn_type for key in SYNAPSES[name].options}
    if con.kind == "spike2mass":
        known.add("tau")
    for key, value in con.syn_kwargs.items():
        if key not in known:
            what = f"syn_kwargs of {', '.join(con.syn_type)}"
            raise InputError(f"{con!r}: {did_you_mean(key, known, what)}")
        if key == "p" and not 0 <= float(value) < 1:
            raise InputError(f"{con!r}: dropout p={value}; expected from 0 to below 1")
        if key.startswith("tau") and not 0 < float(value) < math.inf:
            raise InputError(f"{con!r}: {key}={value}; a synapse's time constant must be > 0 ms")
    if "2_order_synapse" in con.syn_type:
        rise, decay = (float(option(con, "2_order_synapse", key)) for key in ("tau_r", "tau_d"))
        if rise == decay:  # R' − D' of section 6 has no scale that would make it an alpha function
            raise InputError(
                f"{con!r}: tau_r=tau_d={rise:g}: its current is zero; take different times, or "
                "alpha_synapse"
            )
    _check_delays_and_bias(con)


def _check_delays_and_bias(con: "Connection") -> None:
    """Refuses what no stage of the connection would look at."""
    what = f"{con.kind} link with {', '.join(con.syn_type)}"
    weighs = bool(set(con.syn_type) & WEIGHING) and con.kind not in ("null", "pool")
    asked = con.max_delay > 0 or con.given_delay is not None or con.train_delay
    if asked and "electrical" in con.syn_type:
        raise InputError(f"{con!r}: an electrical synapse acts at once on both sides; no delay")
    one = con.given_delay is not None and np.ndim(con.given_delay) == 0 and not con.train_delay
    pairs = con.kind in DENSE.values() or con.kind in STORED.values() or con.kind == "all_to_all"
    each = (weighs and pairs) or "delay_complex_synapse" in con.syn_type
    if asked and not one and not each:
        raise InputError(
            f"{con!r}: a {what} has no delays of single synapses; give one for all, delay="
        )
    biased = {"conv", "conv_transpose", "local", "attention"} & set(con.syn_type)
    if con.given_bias is not None and not biased and not weighs:
        raise InputError(f"{con!r}: a {what} adds no bias; leave bias out")


def option(con: "Connection", synapse: str, name: str) -> Any:
    """Gives a parameter of a synapse, or its default.

    Args:
        con: The connection.
        synapse: The synapse's name.
        name: The parameter.
    """
    return con.syn_kwargs.get(name, SYNAPSES[synapse].options[name])


# -------------------------------------------------------------------------------------- weights


def _weighted(con: "Connection", x: Tensor, random: torch.Generator) -> Tensor:
    x = x.flatten(1)
    if con.kind == "spike2mass":
        tau = float(con.syn_kwargs.get("tau", 6.0))
        if con._compat == "spaic":  # e^{−0.1/τ} a step, whatever the step is
            tau *= con._dt / 0.1
        rate = _decaying(con, "rate", x.mean(1, keepdim=True), tau)
        return F.linear(rate, con.weight, con.bias)  # type: ignore[arg-type]
    if con.kind == "mass2spike":
        scale = float(con.options.get("unit_conversion", 1.0)) * con._dt
        drawn = torch.rand((len(x), *con.weight.shape), generator=random, device=x.device)  # type: ignore[union-attr]
        hit = (drawn < x[:, None, :] * scale).to(x.dtype)
        made = (hit * con.weight).sum(-1)  # type: ignore[operator]
        return made if con.bias is None else made + con.bias
    if con.stored_sparse:
        return scattered(con, x)
    if con.kind == "all_to_all":
        return _summed(con, x)
    weight = con.weight if con.mask is None else con.weight * con.mask  # type: ignore[operator]
    if not has_lags(con):
        return F.linear(x, weight, con.bias)  # type: ignore[arg-type]
    return F.linear(history(con, x), lagged_weight(con, weight), con.bias)  # type: ignore[arg-type]


def _summed(con: "Connection", x: Tensor) -> Tensor:
    """One weight for all pairs: w Σ x, in time proportional to the neurons."""
    weight: Tensor = con.weight  # type: ignore[assignment]
    apart = bool(con.options.get("no_self", False))
    each = x if apart else x.sum(1, keepdim=True)
    if not has_lags(con):
        each = weight[0, 0] * each
    else:
        past = history(con, each).reshape(len(x), -1, each.shape[1])
        each = torch.einsum("bln,l->bn", past, lagged_weight(con, weight)[0])
    made = each.sum(1, keepdim=True) - each if apart else each
    made = made.expand(len(x), con.post.num)
    return made if con.bias is None else made + con.bias


def _weighted_once(con: "Connection", x: Tensor, random: torch.Generator) -> Tensor:
    """Weights x unless an earlier stage (a convolution, `basic`) has done so."""
    weighted = "basic" in con.syn_type or con.kind in IMAGES.values() or con.kind == "null"
    return x if weighted else _weighted(con, x, random)


def _dropped(con: "Connection", x: Tensor, random: torch.Generator) -> Tensor:
    p = float(option(con, "dropout", "p"))
    if not con.training or p == 0:
        return x
    keep = torch.rand(x.shape, generator=random, device=x.device) >= p
    return x * keep / (1 - p)


# ------------------------------------------------------------------------------------- currents


def _decaying(con: "Connection", name: str, drive: Tensor, tau: float) -> Tensor:
    made = math.exp(-con._dt / tau) * con._state.get(name, 0.0) + drive
    con._state[name] = made
    return made


def _first_order(con: "Connection", x: Tensor, random: torch.Generator) -> Tensor:
    tau = float(option(con, "1_order_synapse", "tau"))
    return _decaying(con, "R", _weighted_once(con, x, random), tau)


def _second_order(con: "Connection", x: Tensor, random: torch.Generator) -> Tensor:
    drive = _weighted_once(con, x, random)
    rise, decay = (float(option(con, "2_order_synapse", key)) for key in ("tau_r", "tau_d"))
    return _decaying(con, "R", drive, rise) - _decaying(con, "D", drive, decay)


def _mix_order(con: "Connection", x: Tensor, random: torch.Generator) -> Tensor:
    """A current of the first order (tau_r) and one of the second (tau_r, tau_s) of the same peak.

    The card gives the name and the two times only; this sum is a reconstruction.
    """
    fast, slow = (float(option(con, "mix_order_synapse", key)) for key in ("tau_r", "tau_s"))
    drive = _weighted_once(con, x, random)
    if fast == slow:  # the limit of the second order is the alpha function
        second = _rising(con, drive, fast)
        return con._state["a"] + second
    r, s = _decaying(con, "R", drive, fast), _decaying(con, "S", drive, slow)
    peak = fast * slow / (slow - fast) * math.log(slow / fast)
    return r + (s - r) / (math.exp(-peak / slow) - math.exp(-peak / fast))


def _alpha(con: "Connection", x: Tensor, random: torch.Generator) -> Tensor:
    """(t/τ) e^{1 − t/τ}: peak 1 at τ after the spike."""
    drive = _weighted_once(con, x, random)
    return _rising(con, drive, float(option(con, "alpha_synapse", "tau")))


def _rising(con: "Connection", drive: Tensor, tau: float) -> Tensor:
    """One step of the alpha function; the state `a` decays exponentially from each drive."""
    beta = math.exp(-con._dt / tau)
    none = torch.zeros_like(drive)
    first, second = con._state.get("a", none), con._state.get("b", none)
    second = beta * (second + con._dt / tau * math.e * first)
    con._state["a"], con._state["b"] = beta * first + drive, second
    return second


def _short_term_plasticity(con: "Connection", x: Tensor, random: torch.Generator) -> Tensor:
    """Tsodyks–Markram: u ← u + U(1 − u), release u·R, R ← R − u·R at each spike."""
    rise, rest, base = (float(option(con, "stp", key)) for key in ("tau_f", "tau_d", "U"))
    u = con._state.get("u", torch.zeros_like(x)) * math.exp(-con._dt / rise)
    r = 1 - (1 - con._state.get("r", torch.ones_like(x))) * math.exp(-con._dt / rest)
    raised = u + base * (1 - u)
    u = torch.where(x > 0, raised, u)
    released = torch.where(x > 0, u * r, torch.zeros_like(r))
    con._state["u"], con._state["r"] = u, r - released
    return x * released


def _nmda(con: "Connection", x: Tensor, random: torch.Generator) -> Tensor:
    """Wang (2002): a spike adds 1 to x; dx/dt = −x/τ_rise, ds/dt = −s/τ + α x (1 − s); gives s.

    The voltage-dependent block by magnesium belongs to the target: its model has an input for the
    sum of open gates (`iaf_wang_2002`: `nmda`).
    """
    rise, decay, rate = (float(option(con, "nmda", k)) for k in ("tau_rise", "tau", "alpha"))
    dt, none = con._dt, torch.zeros_like(x)
    open_, s = con._state.get("x", none), con._state.get("s", none)
    drive = rate * math.exp(-dt / (2 * rise)) * open_  # x at the middle of the step
    speed = drive + 1 / decay
    s = s * torch.exp(-speed * dt) + drive / speed * -torch.expm1(-speed * dt)
    con._state["x"], con._state["s"] = math.exp(-dt / rise) * open_ + x, s
    return s


def _rotating(con: "Connection", x: Tensor, random: torch.Generator) -> Tensor:
    """Delay by rotation of a complex slot, then a rotating and decaying current (section 6)."""
    get, dt = con.syn_kwargs.get, con._dt
    assert con.weight is not None
    tau, k = (float(option(con, "delay_complex_synapse", key)) for key in ("tau", "rot_k"))
    longest = float(get("max_delay", con.max_delay or 5.0))
    turn = max(longest, k * tau)
    state, weight = con._state, con.weight
    if "slots" not in state:
        complex_type = torch.complex128 if x.dtype == torch.float64 else torch.complex64
        shape = (len(x), *weight.shape)
        state["slots"] = torch.zeros(shape, dtype=complex_type, device=x.device)
        state["current"] = torch.zeros(shape[:2], dtype=complex_type, device=x.device)
        delay = con.delay if con.delay is not None else torch.zeros_like(weight)
        angle = delay.detach() * math.pi / turn
        state["start"] = 1j / tau * torch.polar(torch.ones_like(angle), angle)
        # On time is on time: rounding must not make a slot a step late.
        state["close"] = 1e-6 / tau
    slots = state["slots"] * np.exp(-1j * math.pi * dt / turn)
    ready = slots.real > state["close"]
    arrived = torch.where(ready, slots, torch.zeros_like(slots))
    if con._compat != "spaic":  # what arrived within the step has decayed and turned since
        age = torch.where(ready, (math.pi / 2 - slots.angle()) * turn / math.pi, 0.0)
        arrived = arrived.abs() * 1j * torch.exp(-(1 + 1j * math.pi / k) / tau * age)
    slots = torch.where(ready, torch.zeros_like(slots), slots)
    new = x.flatten(1)[:, None, :].to(slots.dtype) * state["start"]
    state["slots"] = slots + new
    decay = math.exp(-dt / tau) * np.exp(-1j * math.pi * dt / (k * tau))
    state["current"] = state["current"] * decay + (arrived * weight).sum(-1)
    made: Tensor = state["current"].real
    return made


def _both_sides(con: "Connection", x: Tensor, random: torch.Generator) -> Tensor:
    raise InputError(f"{con!r}: 'electrical' acts on both sides and stands alone in syn_type")


# ------------------------------------------------------------------------------------- the names

SYNAPSES: Mapping[str, Synapse] = {
    "basic": Synapse(_weighted, {"delay_kernel": "linear", "delay_sigma": None}),
    "conv": Synapse(convolved, {}),
    "conv_transpose": Synapse(convolved, {}),
    "maxpool": Synapse(highest, {}),
    "avgpool": Synapse(mean, {}),
    "flatten": Synapse(lambda con, x, random: x.flatten(1), {}),
    "batchnorm2d": Synapse(normalised, {"num_features": None}, batch_norm),
    "local": Synapse(local, {}),
    "dropout": Synapse(_dropped, {"p": 0.5, "inplace": False}),
    "upsample": Synapse(upsampled, {}),
    "directpass": Synapse(lambda con, x, random: x, {}),
    "1_order_synapse": Synapse(_first_order, {"tau": 2.0}),
    "2_order_synapse": Synapse(_second_order, {"tau_r": 9.0, "tau_d": 2.0}),
    "mix_order_synapse": Synapse(_mix_order, {"tau_r": 2.0, "tau_s": 25.0}),
    "alpha_synapse": Synapse(_alpha, {"tau": 2.0}),
    "stp": Synapse(_short_term_plasticity, {"tau_f": 500.0, "tau_d": 200.0, "U": 0.2}),
    "nmda": Synapse(_nmda, {"tau_rise": 2.0, "tau": 100.0, "alpha": 0.5}),
    "attention": Synapse(attend, {"tau_m": 10.0, "tau_r": 10.0}, ComplexAttention),
    "isyn_bn": Synapse(normalise, NORMALISING, RunningNormalisation),
    "electrical": Synapse(_both_sides, {}),
    "delay_complex_synapse": Synapse(
        _rotating, {"tau": 10.0, "rot_k": 6.0, "max_delay": 5.0, "min_delay": 0.0}
    ),
}
"""The names of `syn_type` → what each does."""


WEIGHING = frozenset(
    ["basic", "1_order_synapse", "2_order_synapse", "mix_order_synapse", "alpha_synapse"]
)
"""Those that weigh the source and add the bias, if no stage before has done so."""


def apply(con: "Connection", name: str, x: Tensor, random: torch.Generator) -> Tensor:
    """Carries out one stage of a connection.

    Args:
        con: The connection.
        name: The stage.
        x: What the stage before gave, or the source's variable: [batch, *shape].
        random: For stages that draw.
    """
    return SYNAPSES[name].function(con, x, random)
