"""A spiking Q-network balances gymnasium's CartPole-v1, surrogate gradients.

    python packages/spaic/examples/q_network.py

Expected from the default, 80 episodes: the last ten balance more than twice as long as the first
ten (the random policy makes about 22 steps). Needs the extra `rl`.
"""

from pathlib import Path

import cyclopts
import numpy as np

from tenfold.spaic.pictures import returns_curve
from tenfold.spaic.reinforcement import DQNConfig, train_dqn


def main(*, small: bool = False, output: Path = Path("runs/examples")) -> None:
    """Runs the example.

    Args:
        small: A part of it, for a quick look; its figures are others.
        output: Where the picture goes.
    """
    config = DQNConfig(episodes=3, hidden=16) if small else DQNConfig(episodes=80)
    returns = train_dqn(config).returns
    first, last = float(np.mean(returns[:10])), float(np.mean(returns[-10:]))
    print(f"steps balanced: expected twice as many at the end, here {first:.0f}, then {last:.0f}")
    figure = returns_curve(returns)
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "q_network.png", dpi=150)
    print(f"picture: {output / 'q_network.png'}")


if __name__ == "__main__":
    cyclopts.run(main)
