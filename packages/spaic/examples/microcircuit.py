"""The cortical microcircuit of Potjans & Diesmann (2014) at a tenth of its size.

    python packages/spaic/examples/microcircuit.py

Expected: the rates of NEST for the same scale, within 15 % after half a second.
"""

from pathlib import Path

import cyclopts

from tenfold.spaic import pictures
from tenfold.spaic.library import CIRCUITS, microcircuit, rates
from tenfold.spaic.network.monitors import SpikeMonitor


def main(*, small: bool = False, output: Path = Path("runs/examples")) -> None:
    """Runs the example.

    Args:
        small: A tenth of it, for a quick look; its figures are others.
        output: Where the picture goes.
    """
    net = microcircuit(0.01 if small else 0.1)
    if small:
        net.build(engine="step")  # compiling would take longer
    net.run(60.0 if small else 1000.0)
    found = rates(net, skipped=50.0 if small else 500.0)
    for name, expected in CIRCUITS["microcircuit"].rates.items():
        print(f"{name}: expected {expected:.2f} Hz, here {found[name]:.2f} Hz")
    print(f"engine: {net.engine_note}")
    output.mkdir(parents=True, exist_ok=True)
    pictures.raster(net.parts(SpikeMonitor)).savefig(output / "microcircuit.png", dpi=150)
    print(f"picture: {output / 'microcircuit.png'}")


if __name__ == "__main__":
    cyclopts.run(main)
