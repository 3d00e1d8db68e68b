"""What the verb `simulate` knows by name, and the rates of a circuit after a run."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenfold.shared.errors import InputError

if TYPE_CHECKING:
    from tenfold.spaic.network.network import Network


@dataclass(frozen=True)
class Circuit:
    """A circuit of the library.

    Attributes:
        make: Gives the network: `make(size, seed)`.
        size: Its default number of neurons.
        title: What it is.
        rates: Population → the rate in Hz that is known for it, and where from.
        note: What a reader must know.
        warm_up: Time before those rates are counted, in ms.
    """

    make: Callable[..., "Network"]
    size: int
    title: str
    rates: dict[str, float]
    note: str
    warm_up: float = 0.0


def _made(home: str, name: str) -> Callable[..., "Network"]:
    """A circuit's function, imported at its first call: the names alone are quick to read."""

    def make(size: int, seed: int, **options: Any) -> "Network":
        module = importlib.import_module(f"tenfold.spaic.library.{home}")
        net: Network = getattr(module, name)(size, seed, **options)
        return net

    return make


def _sized_microcircuit(size: int, seed: int, **options: Any) -> "Network":
    """The microcircuit with about so many neurons."""
    if not 100 <= size <= 77_169:
        raise InputError(f"size={size}; the microcircuit has from 100 to 77,169 neurons")
    from tenfold.spaic.library.cortex import microcircuit

    return microcircuit(size / 77_169, seed, **options)


CIRCUITS: dict[str, Circuit] = {
    "cuba": Circuit(
        _made("circuits", "cuba"),
        4000,
        "current-based benchmark circuit",
        {"all": 5.6},
        "Brian2, first second",
    ),
    "cobahh": Circuit(
        _made("circuits", "cobahh"),
        4000,
        "Hodgkin–Huxley benchmark circuit",
        {"all": 37.3},
        "Brian2, first second",
    ),
    "brunel": Circuit(
        _made("circuits", "brunel"),
        12_500,
        "Brunel's sparse network, g = 5, eta = 2",
        {},
        "no number known here",
    ),
    "microcircuit": Circuit(
        _sized_microcircuit,
        7717,
        "cortical microcircuit of Potjans & Diesmann",
        {
            "L23E": 0.665,
            "L23I": 3.095,
            "L4E": 4.291,
            "L4I": 6.975,
            "L5E": 7.486,
            "L5I": 7.642,
            "L6E": 1.228,
            "L6I": 8.049,
        },
        "NEST at 10 % scale, 2 s after 0.5 s, one seed",
        warm_up=500.0,
    ),
    "decision": Circuit(
        _made("choice", "decision"),
        2000,
        "Wang's decision network, at rest",
        {},
        "no number known here",
    ),
}


def rates(net: "Network", skipped: float = 0.0) -> dict[str, float]:
    """Gives the mean rate of each monitored population in the last run, in Hz.

    Args:
        net: A network whose monitors are named `spikes_<population>`.
        skipped: Time at the beginning that does not count, in ms.
    """
    from tenfold.spaic.network.monitors import SpikeMonitor

    found: dict[str, Any] = {}
    spikes, neurons, seconds = 0, 0, 0.0
    for monitor in net.parts(SpikeMonitor):
        count = int(sum((times > skipped).sum() for times in monitor.spk_times))
        size, seconds = monitor.target.num, (len(monitor.time) * net.dt - skipped) / 1000
        found[monitor.target.name] = count / size / seconds
        spikes, neurons = spikes + count, neurons + size
    return {"all": spikes / max(neurons, 1) / max(seconds, 1e-12), **found}
