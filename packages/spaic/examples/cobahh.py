"""COBAHH: 4,000 Hodgkin-Huxley neurons with conductance synapses (card section 20).

    python packages/spaic/examples/cobahh.py

Expected: a mean rate of 37.3 Hz in the first second (Brian2).
"""

from pathlib import Path

import cyclopts

from tenfold.spaic import pictures
from tenfold.spaic.library import cobahh, rates
from tenfold.spaic.network.monitors import SpikeMonitor


def main(*, small: bool = False, output: Path = Path("runs/examples")) -> None:
    """Runs the example.

    Args:
        small: A tenth of it, for a quick look; its figures are others.
        output: Where the picture goes.
    """
    net = cobahh(400 if small else 4000)
    net.run(50.0 if small else 1000.0)
    found = rates(net)
    print(f"mean rate: expected 37.3 Hz, here {found['all']:.2f} Hz")
    print(f"engine: {net.engine_note}")
    output.mkdir(parents=True, exist_ok=True)
    pictures.raster(net.parts(SpikeMonitor)).savefig(output / "cobahh.png", dpi=150)
    print(f"picture: {output / 'cobahh.png'}")


if __name__ == "__main__":
    cyclopts.run(main)
