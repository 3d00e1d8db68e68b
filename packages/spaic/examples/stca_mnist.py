"""The tutorial's MNIST network: Poisson 784 to 10, trained with STCA (card section 16).

    python packages/spaic/examples/stca_mnist.py

Expected with all of MNIST: test 89.7 % after the first epoch, 92.3 to 92.8 % after 60 to 100 epochs
(official tutorial). Here the network sees the test file's
first 8,000 images once and is tested on the other 2,000: 79.8 % (measured 2026-11-28).
"""

from pathlib import Path

import cyclopts

from tenfold.spaic.pictures import learning_curve
from tenfold.spaic.training import TrainConfig, train


def main(*, small: bool = False, output: Path = Path("runs/examples")) -> None:
    """Runs the example.

    Args:
        small: A part of it, for a quick look; its figures are others.
        output: Where the picture goes.
    """
    config = TrainConfig(
        dataset="mnist",
        network="stca",
        hidden=(),
        model="clif",
        coding="poisson",
        readout="spikes",
        steps=30 if small else 500,
        epochs=1,
        algorithm="stca",
        learning_rate=1e-3,
        device="cpu",
    )
    found = train(config)
    print(f"accuracy: expected 79.8 %, here {100 * found.accuracy:.1f} %")
    figure = learning_curve(found.history)
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "stca_mnist.png", dpi=150)
    print(f"picture: {output / 'stca_mnist.png'}")


if __name__ == "__main__":
    cyclopts.run(main)
