"""A convolutional spiking network on MNIST, surrogate gradients (card section 16).

    python packages/spaic/examples/convolutional.py

Expected on the test file's split 8,000 / 2,000, three epochs: 94 % (measured 2026-11-28; the
official example publishes no number).
"""

from pathlib import Path

import cyclopts

from tenfold.spaic.pictures import confusion
from tenfold.spaic.training import TrainConfig, train


def main(*, small: bool = False, output: Path = Path("runs/examples")) -> None:
    """Runs the example.

    Args:
        small: A part of it, for a quick look; its figures are others.
        output: Where the picture goes.
    """
    config = TrainConfig(
        dataset="mnist",
        network="convolutional",
        coding="poisson",
        readout="spikes",
        steps=2 if small else 13,
        epochs=1 if small else 3,
        batch_size=800 if small else 100,
        learning_rate=3e-3,
        device="cpu",
    )
    found = train(config)
    print(f"accuracy: expected 94 %, here {100 * found.accuracy:.1f} %")
    figure = confusion(found.split.y_test, found.outputs.argmax(1).numpy())
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "convolutional.png", dpi=150)
    print(f"picture: {output / 'convolutional.png'}")


if __name__ == "__main__":
    cyclopts.run(main)
