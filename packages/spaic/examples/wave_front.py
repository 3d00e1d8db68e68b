"""Fronts of activity travel over two sheets of mean-field neurons (the official CANN example).

    python packages/spaic/examples/wave_front.py

Expected after 25 times 10 ms: between frames 0.4 ms apart, patches correlate much better where they
moved to than where they were; fronts go about 24 pixels a ms. With the ranges of excitation and
inhibition exchanged nothing moves.
"""

from pathlib import Path

import cyclopts
import numpy as np

from tenfold.spaic.library import front_motion, wave_front
from tenfold.spaic.pictures import scatter_animation, sheet_frames


def main(*, small: bool = False, output: Path = Path("runs/examples")) -> None:
    """Runs the example.

    Args:
        small: A part of it, for a quick look; its figures are others.
        output: Where the picture and the animation go.
    """
    size, parts = (60, 2) if small else (200, 25)
    for excitation, inhibition in ((2.5, 4.0), (4.0, 2.5)):
        net = wave_front(size, excitation=excitation, inhibition=inhibition)
        net.run(10.0)
        for part in range(1, parts):
            if part == parts - 1:
                net.activity.monitor_on()
            net.run_continue(10.0)
        sheets = net.activity.values[0, 0]
        pairs = range(0, sheets.shape[-1] - 1, 4 if small else 1)
        moved = [front_motion(sheets[..., k], sheets[..., k + 1]) for k in pairs]
        distance, there, still = np.median(np.concatenate(moved), axis=0)
        print(
            f"excitation {excitation}, inhibition {inhibition} pixels: speed expected "
            f"{24 if excitation > inhibition else 0}, here {distance / 0.4:.0f} pixels a ms "
            f"(correlation where it moved {there:.2f}, where it was {still:.2f})"
        )
    figure = sheet_frames(net.activity)
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "wave_front.png", dpi=150)
    print(f"picture: {output / 'wave_front.png'}")
    frames = []
    chosen = range(0, sheets.shape[-1], 6 if small else 1)
    for k in chosen:
        y, x = np.nonzero(sheets[..., k] > 0.03 * sheets.max())
        frames.append(np.column_stack([x, size - 1 - y, sheets[y, x, k]]))  # row 0 is on top
    scatter_animation(
        frames,
        output / "wave_front.gif",
        [net.activity.times[k] for k in chosen],
        150 / size,
        label="activity",
    )
    print(f"animation: {output / 'wave_front.gif'}")


if __name__ == "__main__":
    cyclopts.run(main)
