"""What the verb `simulate` knows by name, and the rates of a circuit after a run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tenfold.spaic.library.choice import decision
from tenfold.spaic.library.circuits import brunel, cobahh, cuba
from tenfold.spaic.library.cortex import POPULATIONS, microcircuit
from tenfold.spaic.network.monitors import SpikeMonitor
from tenfold.spaic.network.network import Network


@dataclass(frozen=True)
class Circuit:
    """A circuit of the library.

    Attributes:
        make: Gives the network: `make(size, seed)`.
        size: Its default size (neurons; the microcircuit's: thousandths of the full scale).
        title: What it is.
        rates: Population → the rate in Hz that is known for it, and where from.
        note: What a reader must know.
    """

    make: Callable[..., Network]
    size: int
    title: str
    rates: dict[str, float]
    note: str


CIRCUITS: dict[str, Circuit] = {
    "cuba": Circuit(
        cuba, 4000, "current-based benchmark circuit", {"all": 5.6}, "Brian2, first second"
    ),
    "cobahh": Circuit(
        cobahh, 4000, "Hodgkin–Huxley benchmark circuit", {"all": 37.3}, "Brian2, first second"
    ),
    "brunel": Circuit(
        brunel, 12_500, "Brunel's sparse network, g = 5, eta = 2", {}, "no number known here"
    ),
    "microcircuit": Circuit(
        lambda size, seed, **options: microcircuit(size / 77_169, seed, **options),
        7717,
        "cortical microcircuit of Potjans & Diesmann",
        dict(
            zip(POPULATIONS, (0.665, 3.095, 4.291, 6.975, 7.486, 7.642, 1.228, 8.049), strict=True)
        ),
        "NEST at 10 % scale, 2 s, one seed",
    ),
    "decision": Circuit(
        decision, 2000, "Wang's decision network, at rest", {}, "no number known here"
    ),
}


def rates(net: Network, skipped: float = 0.0) -> dict[str, float]:
    """Gives the mean rate of each monitored population in the last run, in Hz.

    Args:
        net: A network whose monitors are named `spikes_<population>`.
        skipped: Time at the beginning that does not count, in ms.
    """
    found: dict[str, Any] = {}
    spikes, neurons, seconds = 0, 0, 0.0
    for monitor in net.parts(SpikeMonitor):
        count = int(sum((times > skipped).sum() for times in monitor.spk_times))
        size, seconds = monitor.target.num, (len(monitor.time) * net.dt - skipped) / 1000
        found[monitor.target.name] = count / size / seconds
        spikes, neurons = spikes + count, neurons + size
    return {"all": spikes / max(neurons, 1) / max(seconds, 1e-12), **found}
