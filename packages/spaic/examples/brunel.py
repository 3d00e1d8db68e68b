"""Brunel's sparse network (2000), asynchronous irregular: g = 5, eta = 2.

    python packages/spaic/examples/brunel.py

Expected: irregular firing (a coefficient of variation near 1); the method card gives no rate.
"""

from pathlib import Path

import cyclopts

from tenfold.spaic import pictures
from tenfold.spaic.experiments import irregularity
from tenfold.spaic.library import brunel, rates
from tenfold.spaic.network.monitors import SpikeMonitor


def main(*, small: bool = False, output: Path = Path("runs/examples")) -> None:
    """Runs the example.

    Args:
        small: A tenth of it, for a quick look; its figures are others.
        output: Where the picture goes.
    """
    net = brunel(1000 if small else 2500)
    net.run(100.0 if small else 1000.0)
    found = rates(net)
    cv = irregularity(net)
    print(f"irregularity: expected near 1, here {cv:.2f}; mean rate {found['all']:.1f} Hz")
    print(f"engine: {net.engine_note}")
    output.mkdir(parents=True, exist_ok=True)
    pictures.raster(net.parts(SpikeMonitor)).savefig(output / "brunel.png", dpi=150)
    print(f"picture: {output / 'brunel.png'}")


if __name__ == "__main__":
    cyclopts.run(main)
