"""Units: numbers that know what they measure, given to parameters in the unit the models use.

`20 * ms`, `1.5 * s`, `-50 * mV`, `200 * pF` are quantities; a parameter takes one in place of a
plain number. Inside, time is in ms, potential in mV, current in pA, conductance in nS,
capacitance in pF, rates in kHz (events a ms), so that nS · mV = pA and pA · ms / pF = mV.
"""

from dataclasses import dataclass
from typing import Any

from tenfold.shared.errors import InputError


@dataclass(frozen=True)
class Quantity:
    """A value with its dimension, in the unit that the models use."""

    value: float
    dimension: str

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
        return f"{self.value:g} {_SHOWN[self.dimension]}"


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


def plain(value: Any, dimension: str | None = None) -> Any:
    """Gives the number of a quantity in the models' unit; a plain number passes.

    Args:
        value: A quantity or anything else.
        dimension: What it must measure, if it is a quantity.

    Raises:
        InputError: If it measures something else.
    """
    if not isinstance(value, Quantity):
        return value
    if dimension is not None and value.dimension != dimension:
        raise InputError(f"{value} is a {value.dimension}; expected a {dimension}")
    return value.value
