"""The functions of the equations, for one number at a time, compiled by numba."""

import math
from typing import Any

from numba import njit


@njit(inline="always")
def f_exprel(x: Any) -> Any:
    """(e^x − 1)/x, 1 at zero."""
    return 1 + x * 0.5 if abs(x) < 1e-7 else math.expm1(x) / x


@njit(inline="always")
def f_exprel_slope(x: Any) -> Any:
    """The derivative of exprel."""
    return 0.5 + x / 3 if abs(x) < 1e-4 else (math.exp(x) - math.expm1(x) / x) / x


@njit(inline="always")
def f_sigmoid(x: Any) -> Any:
    """1/(1 + e^−x)."""
    return 1 / (1 + math.exp(-x))


@njit(inline="always")
def f_relu(x: Any) -> Any:
    """x where positive, else zero."""
    return x if x > 0 else x * 0


@njit(inline="always")
def f_maximum(a: Any, b: Any) -> Any:
    """The larger."""
    return a if a > b else b


@njit(inline="always")
def f_minimum(a: Any, b: Any) -> Any:
    """The smaller."""
    return a if a < b else b


@njit(inline="always")
def f_clip(x: Any, low: Any, high: Any) -> Any:
    """x between two bounds."""
    return low if x < low else (high if x > high else x)


@njit(inline="always")
def f_round(x: Any) -> Any:
    """The nearest whole number; at a half the even one, as torch and NumPy do."""
    low = math.floor(x)
    rest = x - low
    if rest > 0.5 or (rest == 0.5 and low % 2 == 1):
        return low + 1.0
    return low + 0.0


@njit(inline="always")
def f_exp(x: Any) -> Any:
    """e^x."""
    return math.exp(x)


@njit(inline="always")
def f_log(x: Any) -> Any:
    """The natural logarithm."""
    return math.log(x)


@njit(inline="always")
def f_sqrt(x: Any) -> Any:
    """The square root."""
    return math.sqrt(x)


@njit(inline="always")
def f_tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    return math.tanh(x)


@njit(inline="always")
def f_erf(x: Any) -> Any:
    """The error function, in x's own type."""
    return x * 0 + math.erf(x)


@njit(inline="always")
def f_sin(x: Any) -> Any:
    """The sine."""
    return math.sin(x)


@njit(inline="always")
def f_cos(x: Any) -> Any:
    """The cosine."""
    return math.cos(x)


@njit(inline="always")
def f_abs(x: Any) -> Any:
    """The magnitude."""
    return abs(x)


@njit(inline="always")
def f_floor(x: Any) -> Any:
    """The next whole number below, in x's own type."""
    return math.floor(x) + x * 0


__all__ = [
    "f_abs",
    "f_clip",
    "f_cos",
    "f_erf",
    "f_exp",
    "f_exprel",
    "f_exprel_slope",
    "f_floor",
    "f_log",
    "f_maximum",
    "f_minimum",
    "f_relu",
    "f_round",
    "f_sigmoid",
    "f_sin",
    "f_sqrt",
    "f_tanh",
]
