"""A bump of activity on a ring stays where it was put (Fung, Wong & Wu 2010).

    python packages/spaic/examples/ring_attractor.py

Expected: the height of the closed form, 9.626, at the place of the stimulus.
"""

from pathlib import Path

import cyclopts
import numpy as np

from tenfold.spaic.library import bump_height, ring_attractor
from tenfold.spaic.pictures import activity_image


def main(*, small: bool = False, output: Path = Path("runs/examples")) -> None:
    """Runs the example.

    Args:
        small: A part of it, for a quick look; its figures are others.
        output: Where the picture goes.
    """
    net = ring_attractor()
    x = np.linspace(-np.pi, np.pi, 128, endpoint=False)
    net.stimulus(20 * np.exp(-((x - 1.0) ** 2)))
    net.run(20.0)
    net.stimulus(0.0)
    net.run_continue(30.0 if small else 200.0)
    u = net.activity.values[0]
    height, place = u[:, -1].max(), x[u[:, -1].argmax()]
    print(f"height: expected {bump_height():.3f}, here {height:.3f}")
    print(f"place: expected 1.0, here {place:.2f} (neurons are 0.05 apart)")
    figure = activity_image(net.activity)
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "ring_attractor.png", dpi=150)
    print(f"picture: {output / 'ring_attractor.png'}")


if __name__ == "__main__":
    cyclopts.run(main)
