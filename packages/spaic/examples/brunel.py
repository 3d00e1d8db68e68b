"""Brunel's sparse network (2000), asynchronous irregular: g = 5, eta = 2.

    python packages/spaic/examples/brunel.py

Expected: the rate of the mean-field theory (Brunel 2000), within 5 %: each
neuron's input is taken as Gaussian noise whose mean and variance the rate itself gives.
"""

from math import erf, exp, pi, sqrt
from pathlib import Path

import cyclopts
from scipy.integrate import quad
from scipy.optimize import brentq

from tenfold.spaic import pictures
from tenfold.spaic.experiments import irregularity
from tenfold.spaic.library import brunel, rates
from tenfold.spaic.network.monitors import SpikeMonitor


def theory(g: float = 5.0, eta: float = 2.0) -> float:
    """The rate in Hz that reproduces itself, by the formula of the first passage time."""
    c_e, j, tau, threshold, reset, refractory = 1000, 0.1, 0.02, 20.0, 10.0, 0.002

    def surplus(rate: float) -> float:
        outer = eta * threshold / (j * tau)
        mean = tau * j * (outer + c_e * rate * (1 - g / 4))
        spread = sqrt(tau * j**2 * (outer + c_e * rate * (1 + g**2 / 4)))
        ends = (reset - mean) / spread, (threshold - mean) / spread
        passage, _ = quad(lambda u: exp(u * u) * (1 + erf(u)), *ends)
        return 1 / (refractory + tau * sqrt(pi) * passage) - rate

    return float(brentq(surplus, 1.0, 200.0))


def main(*, small: bool = False, output: Path = Path("runs/examples")) -> None:
    """Runs the example.

    Args:
        small: A tenth of it, for a quick look; its figures are others.
        output: Where the picture goes.
    """
    net = brunel(1250 if small else 12_500)
    if small:
        net.build(engine="step")  # compiling would take longer
    time = 50.0 if small else 500.0
    net.run(time)
    found = rates(net, skipped=time / 5)
    print(f"mean rate: expected {theory():.1f} Hz, here {found['all']:.1f} Hz")
    print(f"coefficient of variation of the intervals: {irregularity(net):.2f}")
    print(f"engine: {net.engine_note}")
    output.mkdir(parents=True, exist_ok=True)
    pictures.raster(net.parts(SpikeMonitor)).savefig(output / "brunel.png", dpi=150)
    print(f"picture: {output / 'brunel.png'}")


if __name__ == "__main__":
    cyclopts.run(main)
