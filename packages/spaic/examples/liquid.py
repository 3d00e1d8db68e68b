"""A liquid-state machine: digits fed row by row, read out from the echo at the end.

    python packages/spaic/examples/liquid.py

Expected on scikit-learn's digits, 300 neurons: 84.7 % by a linear read-out of the liquid's filtered
spikes, 58.9 % by the same read-out of the filtered input (measured 2026-11-28).
"""

from pathlib import Path

import cyclopts
from matplotlib.figure import Figure

from tenfold.spaic.data import digits
from tenfold.spaic.library import recall


def main(*, small: bool = False, output: Path = Path("runs/examples")) -> None:
    """Runs the example.

    Args:
        small: A part of it, for a quick look; its figures are others.
        output: Where the picture goes.
    """
    data = digits()
    x, x_test = (part.reshape(-1, 8, 8) for part in (data.x, data.x_test))
    count = 300 if small else len(x)
    size = 100 if small else 300
    found = recall(x[:count], data.y[:count], x_test, data.y_test, size=size)
    print(f"with the liquid: expected 84.7 %, here {100 * found.accuracy:.1f} %")
    print(f"without: expected 58.9 %, here {100 * found.without:.1f} %")
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(found.states[:60], aspect="auto", cmap="viridis")
    axes.set_xlabel("neuron of the liquid")
    axes.set_ylabel("test sample")
    figure.colorbar(image, label="filtered spikes")
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "liquid.png", dpi=150)
    print(f"picture: {output / 'liquid.png'}")


if __name__ == "__main__":
    cyclopts.run(main)
