"""Units: numbers that know what they measure, given to parameters in the unit the models use.

`20 * ms`, `1.5 * s`, `-50 * mV`, `200 * pF` are quantities; a parameter takes one in place of a
plain number, and where its unit is known, text such as "20 ms" too. Inside, time is in ms,
potential in mV, current in pA, conductance in nS, capacitance in pF, rates in kHz (events a ms), so
that nS · mV = pA and pA · ms / pF = mV.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from tenfold.shared.errors import InputError


@dataclass(frozen=True)
class Quantity:
    """A value with its dimension, in the unit that the models use; an array may be the value."""

    value: Any
    dimension: str

    __array_ufunc__ = None  # NumPy leaves `array * ms` to this class

    def __mul__(self, factor: float) -> "Quantity":
        return Quantity(self.value * factor, self.dimension)

    __rmul__ = __mul__

    def __truediv__(self, factor: "float | Quantity") -> Any:
        if isinstance(factor, Quantity):
            return self._same(factor).value / factor.value
        return Quantity(self.value / factor, self.dimension)

    def __add__(self, other: "Quantity") -> "Quantity":
        return Quantity(self.value + self._same(other).value, self.dimension)

    def __sub__(self, other: "Quantity") -> "Quantity":
        return Quantity(self.value - self._same(other).value, self.dimension)

    def __neg__(self) -> "Quantity":
        return Quantity(-self.value, self.dimension)

    def _same(self, other: "Quantity") -> "Quantity":
        if not isinstance(other, Quantity) or other.dimension != self.dimension:
            raise InputError(f"{self} and {other} do not have the same dimension")
        return other

    def __str__(self) -> str:
        shown = f"{self.value:g}" if np.ndim(self.value) == 0 else str(self.value)
        return f"{shown} {_SHOWN[self.dimension]}"


_SHOWN = {
    "time": "ms",
    "potential": "mV",
    "current": "pA",
    "conductance": "nS",
    "capacitance": "pF",
    "rate": "kHz",
}

us, ms, s = Quantity(1e-3, "time"), Quantity(1.0, "time"), Quantity(1e3, "time")
uV, mV, V = (Quantity(x, "potential") for x in (1e-3, 1.0, 1e3))
pA, nA, uA = (Quantity(x, "current") for x in (1.0, 1e3, 1e6))
nS, uS, mS = (Quantity(x, "conductance") for x in (1.0, 1e3, 1e6))
pF, nF, uF = (Quantity(x, "capacitance") for x in (1.0, 1e3, 1e6))
Hz, kHz = Quantity(1e-3, "rate"), Quantity(1.0, "rate")

_UNITS = {
    "us": us,
    "ms": ms,
    "s": s,
    "uV": uV,
    "mV": mV,
    "V": V,
    "pA": pA,
    "nA": nA,
    "uA": uA,
    "nS": nS,
    "uS": uS,
    "mS": mS,
    "pF": pF,
    "nF": nF,
    "uF": uF,
    "Hz": Hz,
    "kHz": kHz,
}
_TEXT = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-z]+)\s*")


def _read(text: str) -> Any:
    """Reads "10ms" as 10 * ms; what is not a number and a unit stays text."""
    found = _TEXT.fullmatch(text)
    return float(found[1]) * _UNITS[found[2]] if found and found[2] in _UNITS else text


def plain(value: Any, dimension: str | None = None) -> Any:
    """Gives the number of a quantity in the models' unit; a plain number passes.

    Args:
        value: A quantity, where a dimension is given also as text ("10ms"), or anything else.
        dimension: What it must measure, if it is a quantity.

    Raises:
        InputError: If it measures something else.
    """
    if isinstance(value, str) and dimension is not None:
        value = _read(value)
    if not isinstance(value, Quantity):
        return value
    if dimension is not None and value.dimension != dimension:
        raise InputError(f"{value} is a {value.dimension}; expected a {dimension}")
    return value.value


def milliseconds(name: str, value: Any, where: str = "") -> float:
    """Gives a time in ms as one number.

    Args:
        name: What the time is of, for messages.
        value: A number in ms, a quantity, or text such as "10ms".
        where: What it belongs to, for messages.

    Raises:
        InputError: If it is no time.
    """
    begin = f"{where}: " if where else ""
    try:
        return float(plain(value, "time"))
    except InputError as error:
        raise InputError(f"{begin}{name}={error}") from error
    except (TypeError, ValueError) as error:
        told = f"{begin}{name}={value!r}; expected a time, such as 10.0 (ms), 10 * ms or '10ms'"
        raise InputError(told) from error


_MEASURED = {
    "time": "delay dt end_time max_delay max_time min_delay period refractory start_time "
    "time_window",
    "potential": "delta_t EK EL ENa Ee Ei V VT Vreset Vspk v_crit v_peak v_reset v_rest "
    "v_start v_th",
    "capacitance": "C",
    "conductance": "gK gL gNa",
    "current": "I_e",
}
_DIMENSIONS = {name: key for key, names in _MEASURED.items() for name in names.split()}


def measured(name: str, value: Any, where: str, own: bool = False) -> Any:
    """Gives the number of a parameter; a quantity must measure what the parameter's name says.

    Args:
        name: The parameter: a time constant begins with `tau`; others as the library's models name
            them.
        value: A quantity or anything else, which passes.
        where: What the parameter belongs to, for messages.
        own: Whether it is that of a user's own model, where only time constants are known.

    Raises:
        InputError: If it measures something else.
    """
    expected = "time" if name.startswith("tau") else None if own else _DIMENSIONS.get(name)
    try:
        return plain(value, expected)
    except InputError as error:
        raise InputError(f"{where}: {name}={error}") from error
