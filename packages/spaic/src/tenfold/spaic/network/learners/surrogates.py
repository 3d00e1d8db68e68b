"""Surrogate gradients: what stands in for the derivative of a spike (section 10.1)."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tenfold.spaic import equations as eq


@dataclass(frozen=True)
class Surrogate:
    """What stands in for the derivative of a spike: g(u), u = v − v_th, as text.

    Where alpha is learned (`Learner(..., learn_alpha=True)`), a spike stands for the smooth step
    S(u) = ½ + ∫₀ᵘ g(x) dx, whose derivatives are g by u and ∂S/∂alpha by alpha. This is a choice
    (S is what SpikingJelly's neurons emit with `spiking=False`): of a spike itself there is no
    derivative by alpha. Each trainable group has an alpha of its own, at least 0.001, which the
    optimiser trains and a saved state holds.

    Attributes:
        name: The name.
        text: g in the language of `tenfold.spaic.equations`, of `u` and `alpha`.
        alpha: Its width or slope.
        at_zero: Whether a neuron exactly at the threshold spikes (forward u >= 0).
        by_alpha: ∂S/∂alpha, as text; empty where there is no alpha.
        learned: Whether alpha is a parameter.
    """

    name: str
    text: str
    alpha: float
    at_zero: bool = False
    by_alpha: str = ""
    learned: bool = False

    def slope(self, u: Tensor, alpha: Tensor | float | None = None) -> Tensor:
        """Evaluates g.

        Args:
            u: v − v_th.
            alpha: A value in place of the surrogate's own.
        """
        return self._evaluate(self.text, u, alpha)

    def alpha_slope(self, u: Tensor, alpha: Tensor | float | None = None) -> Tensor:
        """Evaluates ∂S/∂alpha.

        Args:
            u: v − v_th.
            alpha: A value in place of the surrogate's own.
        """
        return self._evaluate(self.by_alpha, u, alpha)

    def _evaluate(self, text: str, u: Tensor, alpha: Tensor | float | None) -> Tensor:
        alpha = self.alpha if alpha is None else alpha
        (made,) = _function(text)(eq.NAMESPACE, u, alpha, math.pi)
        return made if isinstance(made, Tensor) else torch.full_like(u, float(made))

    def __call__(self, u: Tensor, alpha: Tensor | None = None) -> Tensor:
        """Gives the spikes of u; their gradient is that of the surrogate.

        Args:
            u: v − v_th.
            alpha: The learned alpha, a tensor of one number.
        """
        return _Spike.apply(u, alpha, self)


@lru_cache
def _function(text: str) -> Any:
    """Compiles a text of a surrogate for tensors, once."""
    return eq.torch_function(
        (eq.Statement("g", eq.expression(text)),), ("u", "alpha", "pi"), ("g",)
    )


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, alpha: Tensor | None, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(u, alpha)
        ctx.surrogate = surrogate
        return (u >= 0 if surrogate.at_zero else u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None]:
        u, alpha = ctx.saved_tensors
        by_u = grads[0] * ctx.surrogate.slope(u, alpha)
        if not ctx.needs_input_grad[1]:
            return by_u, None, None
        return by_u, (grads[0] * ctx.surrogate.alpha_slope(u, alpha)).sum(), None


def _steep(text: str) -> str:
    """∂S/∂alpha of a slope alpha: g = alpha h(alpha u)."""
    return f"u / alpha * ({text})"


def _wide(text: str) -> str:
    """∂S/∂alpha of a width alpha: g = h(u / alpha)/alpha."""
    return f"-u / alpha * ({text})"


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
_SIGN = "where(u > 0, 1.0, -1.0)"
_OUTSIDE = f"where(abs(u) < alpha, 0.0, {_SIGN})"  # S of a box of height 1 grows at its edges
_STBP = "exp(-u * u / (2 * alpha)) / (2 * pi * alpha)"
_TRUE = "where(u > 0, 0.0, where(u > -alpha, -u * u / (2 * alpha * alpha), -0.5))"


def _made(
    name: str, text: str, alpha: float, at_zero: bool = False, by_alpha: Any = ""
) -> Surrogate:
    by_alpha = by_alpha if isinstance(by_alpha, str) else by_alpha(text)
    return Surrogate(name, text, alpha, at_zero, by_alpha)


SURROGATES: dict[str, Surrogate] = {
    made.name: made
    for made in (
        _made("stca", _BOX.format("alpha"), 0.5, by_alpha=_OUTSIDE),
        _made(
            "stbp",
            _STBP,
            0.5,
            by_alpha=f"-erf(u / sqrt(2 * alpha)) / (2 * alpha * sqrt(8 * pi * alpha))"
            f" - u / (2 * alpha) * {_STBP}",
        ),
        _made("true", "clip(1 + u / alpha, 0.0, 1.0)", 1.0, by_alpha=_TRUE),
        _made("AtanGrad", "alpha / 2 / (1 + (pi / 2 * alpha * u) ** 2)", 2.0, by_alpha=_steep),
        _made(
            "SigmoidGrad",
            "alpha * sigmoid(alpha * u) * sigmoid(-alpha * u)",
            2.0,
            True,
            _steep,
        ),
        _made("RectangleGrad", _BOX.format("alpha"), 2.0, by_alpha=_OUTSIDE),
        _made(
            "GateGrad",
            _BOX.format("1 / alpha"),
            2.0,
            by_alpha=f"where(abs(u) < 1 / alpha, 0.0, -1.0 * {_SIGN}) / alpha ** 2",
        ),
        _made("QGateGrad", "relu(alpha - alpha * alpha * abs(u))", 2.0, by_alpha=_steep),
        _made("ReLUGrad", "where(u > 0, alpha, 0.0)", 2.0, True, "relu(u)"),
        _made("StraightThrough", "1.0 + 0.0 * u", 1.0),
        _made(
            "FastSigmoid",
            "1 / (1 + alpha * abs(u)) ** 2",
            25.0,
            by_alpha="-u * abs(u) / (1 + alpha * abs(u)) ** 2",
        ),
        _made("Triangle", "relu(1 - abs(u) / alpha) / alpha", 1.0, by_alpha=_wide),
        _made(
            "Gaussian",
            "exp(-u * u / (2 * alpha * alpha)) / (alpha * sqrt(2 * pi))",
            0.5,
            by_alpha=_wide,
        ),
        _made("Erf", "alpha / sqrt(pi) * exp(-alpha * alpha * u * u)", 2.0, by_alpha=_steep),
        _made("MultiGaussian", _MULTI, 0.5, by_alpha=_wide),
        _made("PiecewiseExponential", "alpha / 2 * exp(-alpha * abs(u))", 2.0, by_alpha=_steep),
    )
}
"""Name → surrogate; those of `OWN` are learners of their own, the rest go into sbp."""

OWN = ("stca", "stbp", "true")
