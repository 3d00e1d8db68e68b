"""Delays: what a source was some steps ago (section 7).

Learned delays (`train_delay=True`) spread a weight over neighbouring lags: over the two nearest
(`linear`), or, with `syn_kwargs={"delay_kernel": "gauss"}`, over all up to `max_delay` by a bell
(DCLS, Hammouamri et al. 2024), whose width `delay_sigma`, in steps, a training makes smaller.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.spaic.network.connections.links import given_tensor

if TYPE_CHECKING:
    from tenfold.spaic.network.connections.connection import Connection


def draw_delays(con: "Connection", generator: torch.Generator) -> Tensor:
    """Draws the delays of a connection, or takes the given ones.

    Args:
        con: The connection.
        generator: Where random numbers come from.

    Returns:
        In ms: of the weight's shape, or one number for all synapses.

    Raises:
        InputError: For delays that are negative, not finite, or of another shape.
    """
    shape = tuple(con.weight.shape) if con.weight is not None else (1,)
    longest = con.max_delay
    least = con.min_delay
    if "delay_complex_synapse" in con.syn_type and longest == 0:  # it has its own (section 6)
        longest = float(con.syn_kwargs.get("max_delay", 5.0))
        least = con.syn_kwargs.get("min_delay", 0.0) if least is None else least
    if con.given_delay is not None:
        value = con.given_delay
        single = np.ndim(value) == 0 and not con.train_delay
        made = (
            torch.as_tensor(float(value)).to(torch.float64)
            if single
            else given_tensor(con, value, shape, "delay", generator)
        )
    else:
        low = float(least) if least is not None else min(1.0, longest)
        if not 0 <= low <= longest:
            raise InputError(f"{con!r}: min_delay={low}; expected from 0 to max_delay={longest}")
        drawn = torch.rand(shape, generator=generator, dtype=torch.float64)
        made = (longest - low) * drawn + low
    if not bool(torch.isfinite(made).all()) or bool((made < 0).any()):
        raise InputError(f"{con!r}: delays must be finite and >= 0 ms")
    return made


def has_lags(con: "Connection") -> bool:
    """Whether each synapse has a delay of its own.

    Args:
        con: The connection.
    """
    return con.delay is not None and con.delay.ndim > 0


def delayed(con: "Connection", x: Tensor) -> Tensor:
    """The source one delay ago, where all synapses have the same fixed delay.

    Args:
        con: The connection; where its synapses have delays of their own, x passes.
        x: [batch, *source shape], the source in this step.
    """
    if con.delay is None or has_lags(con) or "delay_complex_synapse" in con.syn_type:
        return x
    if "single" not in con._state:
        con._state["single"] = int(con.delay_steps(con._dt, con._compat))
    steps = con._state["single"]
    past = [x, *con._state.get("past", [])][: steps + 1]
    con._state["past"] = past
    return past[steps] if len(past) > steps else torch.zeros_like(x)


def history(con: "Connection", x: Tensor) -> Tensor:
    """The last lags of x side by side: [batch, lags * pre], the newest first.

    Args:
        con: The connection.
        x: [batch, pre], the source in this step.
    """
    lags = _lags(con)
    past = [x, *con._state.get("past", [])][:lags]
    con._state["past"] = past
    return torch.cat([*past, *[torch.zeros_like(x)] * (lags - len(past))], dim=1)


def _lags(con: "Connection") -> int:
    if "lags" not in con._state:
        largest = float(con.delay.detach().max()) / con._dt  # type: ignore[union-attr]
        if _gaussian(con):
            largest = max(largest, con.max_delay / con._dt)
        con._state["lags"] = math.ceil(largest - 1e-6) + 1 + int(con.train_delay)
    return int(con._state["lags"])


def _gaussian(con: "Connection") -> bool:
    kernel = con.syn_kwargs.get("delay_kernel", "linear")
    if kernel not in ("linear", "gauss"):
        raise InputError(f"{con!r}: delay_kernel={kernel!r}; expected 'linear' or 'gauss'")
    return bool(con.train_delay and kernel == "gauss")


def _shares(con: "Connection", steps: Tensor) -> Tensor:
    """How much of each synapse's weight lies at each lag, [lags, post, pre]; the sum is one."""
    lag = torch.arange(_lags(con), device=steps.device, dtype=steps.dtype)[:, None, None]
    if not _gaussian(con):
        return (1 - (steps - lag).abs()).clamp(min=0)
    if not con.training:
        return (steps.round() == lag).to(steps.dtype)
    given = con.syn_kwargs.get("delay_sigma")
    sigma = max(0.5, (_lags(con) - 1) / 2) if given is None else float(given)
    if not 0 < sigma < math.inf:
        raise InputError(f"{con!r}: delay_sigma={sigma}; expected > 0 steps")
    return torch.softmax(-0.5 * ((lag - steps) / sigma) ** 2, dim=0)


def lagged_weight(con: "Connection", weight: Tensor) -> Tensor:
    """The weights of all lags side by side: [post, lags * pre].

    Args:
        con: The connection.
        weight: [post, pre].
    """
    version = (id(weight), weight._version)
    if not con.train_delay and con._state.get("version") == version and con.mask is None:
        kept: Tensor = con._state["kernel"]
        # A kernel that was cut from the graph (`Network.detach`) passes no gradient on.
        if kept.requires_grad or not (weight.requires_grad and torch.is_grad_enabled()):
            return kept
    if con.train_delay:
        assert con.delay is not None
        steps: Tensor = torch.clamp(con.delay / con._dt - con.ahead, 0, _lags(con) - 1)
    else:
        steps = torch.from_numpy(con.delay_steps(con._dt, con._compat)).to(weight)
    made = (weight * _shares(con, steps)).transpose(0, 1).reshape(len(weight), -1)
    if not con.train_delay:
        con._state["version"], con._state["kernel"] = version, made
    return made


def scattered(con: "Connection", x: Tensor) -> Tensor:
    """Adds each synapse's contribution to its target.

    Args:
        con: A link that is stored sparse.
        x: [batch, pre].

    Returns:
        [batch, post].
    """
    if not has_lags(con):
        values = x[:, con.pre_index]
    else:
        if "steps" not in con._state:
            steps = torch.from_numpy(con.delay_steps(con._dt, con._compat))
            con._state["steps"] = steps.to(x.device)
            con._state["lags"] = int(steps.max()) + 1 if steps.numel() else 1
        past = history(con, x).reshape(len(x), _lags(con), -1)
        values = past[:, con._state["steps"], con.pre_index]
    made = torch.zeros(len(x), con.post.num, dtype=x.dtype, device=x.device)
    assert con.post_index is not None
    assert con.weight is not None
    made = made.index_add(1, con.post_index.to(x.device), values * con.weight)
    return made if con.bias is None else made + con.bias
