"""The ResNet-18 of the CIFAR-10 example, in small: batch norm, skips, IF neurons.

    python packages/spaic/examples/resnet18.py

Expected: the loss on a batch of four made-up textures falls below a tenth of what it was. Training
it on CIFAR-10 takes hours on a CPU: `tenfold spaic train --recipe cifar10-resnet18`.
"""

from pathlib import Path

import cyclopts
import torch

from tenfold.spaic.library import resnet18
from tenfold.spaic.pictures import learning_curve


def main(*, small: bool = False, output: Path = Path("runs/examples")) -> None:
    """Runs the example.

    Args:
        small: A part of it, for a quick look; its figures are others.
        output: Where the picture goes.
    """
    module = resnet18((3, 16, 16), classes=4, width=8, blocks=(1, 1, 1, 1)).as_module(4.0)
    random = torch.Generator().manual_seed(0)
    y = torch.arange(32) % 4
    textures = torch.rand(4, 3, 16, 16, generator=random)
    x = (textures[y] + 0.5 * torch.rand(32, 3, 16, 16, generator=random)) / 1.5
    optimiser = torch.optim.Adam(module.parameters(), lr=5e-3)
    history = []
    for epoch in range(3 if small else 40):
        loss = torch.nn.functional.cross_entropy(module(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append({"epoch": epoch, "loss": float(loss.detach())})
    share = history[-1]["loss"] / history[0]["loss"]
    print(f"last loss over first: expected < 0.1, here {share:.3f}")
    figure = learning_curve(history)
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "resnet18.png", dpi=150)
    print(f"picture: {output / 'resnet18.png'}")


if __name__ == "__main__":
    cyclopts.run(main)
