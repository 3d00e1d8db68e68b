"""Stages of a connection that keep more than a weight: attention, normalisation (section 5)."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tenfold.shared.errors import InputError

if TYPE_CHECKING:
    from tenfold.spaic.network.connections.connection import Connection


class ComplexAttention(torch.nn.Module):
    """Keys and queries of the link `complex_attention`.

    W_k: [groups, pre, d_k], W_q: [groups, pre, d_k·post/groups], drawn from N(0, 1/pre).

    Args:
        con: The connection; its options `groups` (1) and `d_k` (8).
        generator: Where random numbers come from.

    Raises:
        InputError: If the target neurons do not fall into the groups.
    """

    def __init__(self, con: "Connection", generator: torch.Generator) -> None:
        super().__init__()
        self.groups, self.d_k = (int(con.options.get(k, v)) for k, v in (("groups", 1), ("d_k", 8)))
        n, m = con.post.num, con.pre.num
        if self.groups < 1 or self.d_k < 1 or n % self.groups:
            raise InputError(
                f"{con!r}: groups={self.groups}, d_k={self.d_k}; expected groups >= 1 that divide "
                f"{n} target neurons, and d_k >= 1"
            )

        def drawn(size: int) -> torch.nn.Parameter:
            made = torch.randn(self.groups, m, size, generator=generator, dtype=torch.float64)
            return torch.nn.Parameter(made / math.sqrt(m))

        self.w_k, self.w_q = drawn(self.d_k), drawn(self.d_k * n // self.groups)


def attend(con: "Connection", x: Tensor, random: torch.Generator) -> Tensor:
    """Weighs the sources by how well their keys fit the targets' queries, both leaky and turning.

    K ← β K + x_j W_k[g, j], Q ← β Q + Σ_j x_j W_q[g, j], β = e^{−dt/tau_m − 2πi dt/tau_r};
    a = softmax over j of Re(Q · K̄_j)/√d_k; Isyn = Σ_j a_j x_j W_v[j]. The card gives shapes, β and
    the softmax (section 5, experimental in the official code); how they join is a reconstruction.

    Args:
        con: The connection; W_v is its weight, [pre, post].
        x: [batch, *source shape].
        random: Not used.

    Returns:
        [batch, post].
    """
    held: Any = con.modules["attention"]
    tau_m, tau_r = (float(con.syn_kwargs.get(key, 10.0)) for key in ("tau_m", "tau_r"))
    angle = torch.tensor(-2 * math.pi * con._dt / tau_r, dtype=torch.float64)
    beta = torch.polar(torch.tensor(math.exp(-con._dt / tau_m), dtype=torch.float64), angle)
    x = x.flatten(1)
    batch, n = len(x), con.post.num
    keys = torch.einsum("bj,gjd->bgjd", x, held.w_k)
    queries = torch.einsum("bj,gjd->bgd", x, held.w_q).reshape(batch, held.groups, -1, held.d_k)
    beta = beta.to(device=x.device, dtype=torch.promote_types(x.dtype, torch.complex64))
    keys = beta * con._state.get("keys", 0.0) + keys
    queries = beta * con._state.get("queries", 0.0) + queries
    con._state["keys"], con._state["queries"] = keys, queries
    fit = torch.einsum("bgod,bgjd->bgoj", queries, keys.conj()).real / math.sqrt(held.d_k)
    share = fit.softmax(-1).reshape(batch, n, -1)
    made = torch.einsum("boj,bj,jo->bo", share, x, con.weight)
    return made if con.bias is None else made + con.bias


NORMALISING = {
    "beta_ave": 0.99,
    "beta_std": 0.999,
    "beta_bn": 0.001,
    "targ_ave": 1.5,
    "targ_std": 2.0,
}
"""The parameters of `Isyn_bn` and their defaults."""


class RunningNormalisation(torch.nn.Module):
    """A gain and a shift for each target neuron that lead its potential to a mean and a spread.

    Args:
        con: The connection; option `Isyn_bn`, its target has a potential V.
        generator: Not used.

    Raises:
        InputError: If the target has no V.
    """

    def __init__(self, con: "Connection", generator: torch.Generator) -> None:
        super().__init__()
        ave, std = (
            float(con.syn_kwargs.get(k, v)) for k, v in (("targ_ave", 1.5), ("targ_std", 2.0))
        )
        n = con.post.num
        for name, start in (
            ("gain", 1.0),
            ("shift", 0.0),
            ("ave", ave),
            ("square", ave**2 + std**2),
        ):
            self.register_buffer(name, torch.full((n,), start))


def normalise(con: "Connection", x: Tensor, random: torch.Generator) -> Tensor:
    """Isyn ← gain·Isyn + shift, led towards V of mean `targ_ave` and deviation `targ_std`.

    Each step, in training: ave ← β_ave ave + (1 − β_ave) ⟨V⟩, the same for ⟨V²⟩ with β_std;
    gain ← gain (1 + β_bn (targ_std/std − 1)), shift ← shift + β_bn (targ_ave − ave). The gain is a
    factor of a row of weights, which stay as they are, so that gradients reach them. The card gives
    the aim and the five numbers; these updates are a reconstruction.

    Args:
        con: The connection.
        x: [batch, post].
        random: Not used.

    Raises:
        InputError: If the target has no potential V.
    """
    held: Any = con.modules["isyn_bn"]
    known = {
        "beta_ave": 0.99,
        "beta_std": 0.999,
        "beta_bn": 0.001,
        "targ_ave": 1.5,
        "targ_std": 2.0,
    }
    o = {key: float(con.syn_kwargs.get(key, value)) for key, value in known.items()}
    seen = getattr(con.post, "last_state", None)
    if seen is not None and "V" not in seen:
        raise InputError(
            f"{con!r}: Isyn_bn needs a target with a potential V; {con.post!r} has none"
        )
    if con.training and seen is not None:
        with torch.no_grad():
            v = seen["V"].flatten(1).to(held.ave)
            held.ave.lerp_(v.mean(0), 1 - o["beta_ave"])
            held.square.lerp_((v * v).mean(0), 1 - o["beta_std"])
            std = (held.square - held.ave**2).clamp(min=1e-12).sqrt()
            ratio = (o["targ_std"] / std).clamp(max=10.0)
            held.gain.mul_(1 + o["beta_bn"] * (ratio - 1))
            held.shift.add_(o["beta_bn"] * (o["targ_ave"] - held.ave))
    # Copies: what a gradient has seen must not change in the next step.
    return x * held.gain.clone() + held.shift.clone()
