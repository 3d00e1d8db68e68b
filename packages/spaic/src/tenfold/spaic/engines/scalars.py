"""The functions of the equations, for one number at a time, compiled by numba."""

import math
from typing import Any

from numba import njit


@njit(inline="always")
def _exprel(x: Any) -> Any:
    return 1 + x * 0.5 if abs(x) < 1e-7 else math.expm1(x) / x


@njit(inline="always")
def _exprel_slope(x: Any) -> Any:
    return 0.5 + x / 3 if abs(x) < 1e-4 else (math.exp(x) - math.expm1(x) / x) / x


@njit(inline="always")
def _sigmoid(x: Any) -> Any:
    return 1 / (1 + math.exp(-x))


@njit(inline="always")
def _relu(x: Any) -> Any:
    return x if x > 0 else x * 0


@njit(inline="always")
def _maximum(a: Any, b: Any) -> Any:
    return a if a > b else b


@njit(inline="always")
def _minimum(a: Any, b: Any) -> Any:
    return a if a < b else b


@njit(inline="always")
def _clip(x: Any, low: Any, high: Any) -> Any:
    return low if x < low else (high if x > high else x)


@njit(inline="always")
def _round(x: Any) -> Any:
    # To the even neighbour at a half, as torch and NumPy do.
    low = math.floor(x)
    rest = x - low
    if rest > 0.5 or (rest == 0.5 and low % 2 == 1):
        return low + 1.0
    return low + 0.0


SCALARS: dict[str, Any] = {
    "f_exp": njit(inline="always")(lambda x: math.exp(x)),
    "f_log": njit(inline="always")(lambda x: math.log(x)),
    "f_sqrt": njit(inline="always")(lambda x: math.sqrt(x)),
    "f_tanh": njit(inline="always")(lambda x: math.tanh(x)),
    "f_sin": njit(inline="always")(lambda x: math.sin(x)),
    "f_cos": njit(inline="always")(lambda x: math.cos(x)),
    "f_abs": njit(inline="always")(lambda x: abs(x)),
    "f_floor": njit(inline="always")(lambda x: math.floor(x) + x * 0),
    "f_exprel": _exprel,
    "f_exprel_slope": _exprel_slope,
    "f_sigmoid": _sigmoid,
    "f_relu": _relu,
    "f_maximum": _maximum,
    "f_minimum": _minimum,
    "f_clip": _clip,
    "f_round": _round,
}
"""Name in the compiled text → function."""
