"""Surrogate gradients: what stands in for the derivative of a spike (section 10.1)."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tenfold.spaic import equations as eq


@dataclass(frozen=True)
class Surrogate:
    """What stands in for the derivative of a spike: g(u), u = v − v_th, as text.

    Attributes:
        name: The name.
        text: g in the language of `tenfold.spaic.equations`, of `u` and `alpha`.
        alpha: Its width or slope.
        at_zero: Whether a neuron exactly at the threshold spikes (forward u >= 0).
    """

    name: str
    text: str
    alpha: float
    at_zero: bool = False

    def slope(self, u: Tensor) -> Tensor:
        """Evaluates g.

        Args:
            u: v − v_th.
        """
        made = eq.evaluate(eq.expression(self.text), {"u": u, "alpha": self.alpha, "pi": math.pi})
        return made if isinstance(made, Tensor) else torch.full_like(u, float(made))

    def __call__(self, u: Tensor) -> Tensor:
        """Gives the spikes of u; their gradient is that of the surrogate.

        Args:
            u: v − v_th.
        """
        return _Spike.apply(u, self)


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(u)
        ctx.surrogate = surrogate
        return (u >= 0 if surrogate.at_zero else u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (u,) = ctx.saved_tensors
        return grads[0] * ctx.surrogate.slope(u), None


_BOX = "where(abs(u) < {}, 1.0, 0.0)"
# Yin et al. 2021: a Gaussian of width alpha, less two wide ones (6 alpha) of weight 0.15 beside it.
_BELL = "exp(-({u}) ** 2 / (2 * ({s}) ** 2)) / (({s}) * sqrt(2 * pi))"
_MULTI = " - ".join(
    [
        "1.15 * " + _BELL.format(u="u", s="alpha"),
        "0.15 * " + _BELL.format(u="u - alpha", s="6 * alpha"),
        "0.15 * " + _BELL.format(u="u + alpha", s="6 * alpha"),
    ]
)
SURROGATES: dict[str, Surrogate] = {
    made.name: made
    for made in (
        Surrogate("stca", _BOX.format("alpha"), 0.5),
        Surrogate("stbp", "exp(-u * u / (2 * alpha)) / (2 * pi * alpha)", 0.5),
        Surrogate("true", "clip(1 + u / alpha, 0.0, 1.0)", 1.0),
        Surrogate("AtanGrad", "alpha / 2 / (1 + (pi / 2 * alpha * u) ** 2)", 2.0),
        Surrogate("SigmoidGrad", "alpha * sigmoid(alpha * u) * sigmoid(-alpha * u)", 2.0, True),
        Surrogate("RectangleGrad", _BOX.format("alpha"), 2.0),
        Surrogate("GateGrad", _BOX.format("1 / alpha"), 2.0),
        Surrogate("QGateGrad", "relu(alpha - alpha * alpha * abs(u))", 2.0),
        Surrogate("ReLUGrad", "where(u > 0, alpha, 0.0)", 2.0, True),
        Surrogate("StraightThrough", "1.0 + 0.0 * u", 1.0),
        Surrogate("FastSigmoid", "1 / (1 + alpha * abs(u)) ** 2", 25.0),
        Surrogate("Triangle", "relu(1 - abs(u) / alpha) / alpha", 1.0),
        Surrogate("Gaussian", "exp(-u * u / (2 * alpha * alpha)) / (alpha * sqrt(2 * pi))", 0.5),
        Surrogate("Erf", "alpha / sqrt(pi) * exp(-alpha * alpha * u * u)", 2.0),
        Surrogate("MultiGaussian", _MULTI, 0.5),
        Surrogate("PiecewiseExponential", "alpha / 2 * exp(-alpha * abs(u))", 2.0),
    )
}
"""Name → surrogate; those of `OWN` are learners of their own, the rest go into sbp."""

OWN = ("stca", "stbp", "true")
