"""Spiking-DDPG: a spiking actor and a deep critic swing up gymnasium's Pendulum-v1.

    python packages/spaic/examples/spiking_ddpg.py

Expected from the default, 3,000 steps (half a minute): test return from about -1,260 to about -940;
with `--steps 15000` (three minutes) to about -100 (measured 2026-11-28).
Needs the extra `rl`.
"""

from pathlib import Path

import cyclopts
import numpy as np

from tenfold.spaic.pictures import returns_curve
from tenfold.spaic.reinforcement import DDPGConfig, train_ddpg


def main(*, small: bool = False, steps: int = 3000, output: Path = Path("runs/examples")) -> None:
    """Runs the example.

    Args:
        small: A part of it, for a quick look; its figures are others.
        steps: Steps in the environment.
        output: Where the picture goes.
    """
    config = DDPGConfig(steps=steps)
    if small:
        config = DDPGConfig(steps=205, warm_up=195, batch_size=16, hidden=(16, 16, 16))
    found = train_ddpg(config, episodes=1 if small else 5)
    before, after = float(np.mean(found.before)), float(np.mean(found.after))
    print(f"return before: expected about -1260, here {before:.0f}")
    print(f"return after {config.steps} steps: expected about -940 (3,000 steps), ", end="")
    print(f"-100 (15,000), here {after:.0f}")
    figure = returns_curve(found.returns)
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "spiking_ddpg.png", dpi=150)
    print(f"picture: {output / 'spiking_ddpg.png'}")


if __name__ == "__main__":
    cyclopts.run(main)
