"""CUBA: 4,000 current-based neurons (card section 20; Vogels & Abbott 2005).

    python packages/spaic/examples/cuba.py

Expected: a mean rate of 5.6 Hz in the first second (Brian2).
"""

from pathlib import Path

import cyclopts

from tenfold.spaic import pictures
from tenfold.spaic.library import cuba, rates
from tenfold.spaic.network.monitors import SpikeMonitor


def main(*, small: bool = False, output: Path = Path("runs/examples")) -> None:
    """Runs the example.

    Args:
        small: A tenth of it, for a quick look; its figures are others.
        output: Where the picture goes.
    """
    net = cuba(400 if small else 4000)
    net.run(100.0 if small else 1000.0)
    found = rates(net)
    print(f"mean rate: expected 5.6 Hz, here {found['all']:.2f} Hz")
    print(f"engine: {net.engine_note}")
    output.mkdir(parents=True, exist_ok=True)
    pictures.raster(net.parts(SpikeMonitor)).savefig(output / "cuba.png", dpi=150)
    print(f"picture: {output / 'cuba.png'}")


if __name__ == "__main__":
    cyclopts.run(main)
