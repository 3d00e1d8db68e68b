"""Diehl & Cook (2015): digits told apart by STDP and competition, without labels.

    python packages/spaic/examples/diehl_cook.py

Expected on scikit-learn's digits, 1,000 shown once, 100 neurons: 69 % by proportion weighting
(measured 2026-11-28). On all of MNIST Diehl & Cook reach 82.9 % with 100 neurons; 3,000 images of
its test file give 67.7 % here (`--large`, three minutes).
"""

from pathlib import Path

import cyclopts

from tenfold.spaic.data import digits, mnist
from tenfold.spaic.library import cluster
from tenfold.spaic.pictures import assignments_image, weight_image


def main(*, small: bool = False, large: bool = False, output: Path = Path("runs/examples")) -> None:
    """Runs the example.

    Args:
        small: A part of it, for a quick look; its figures are others.
        large: MNIST's test file instead of the digits of scikit-learn.
        output: Where the picture goes.
    """
    data = mnist() if large else digits()
    count = 15 if small else 3000 if large else 1000
    tested = 1000 if large else 20 if small else 360
    found = cluster(
        data.x[:count],
        data.y[:count],
        data.x_test[:tested],
        data.y_test[:tested],
        size=20 if small else 100,
        norm=78.4 if large else 12.0,
    )
    expected = 67.7 if large else 69.2
    print(f"proportion weighting: expected {expected} %, here {100 * found.proportion:.1f} %")
    print(f"all activity: {100 * found.all_activity:.1f} %")
    figure = weight_image(found.weight.numpy()).figure
    output.mkdir(parents=True, exist_ok=True)
    classes = assignments_image(found.assigned)
    classes.savefig(output / "diehl_cook-classes.png", dpi=150)
    figure.savefig(output / "diehl_cook.png", dpi=150)
    print(f"picture: {output / 'diehl_cook.png'}")


if __name__ == "__main__":
    cyclopts.run(main)
