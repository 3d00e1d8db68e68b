"""A spiking actor balances gymnasium's CartPole-v1, learning by reward-modulated STDP.

    python packages/spaic/examples/rstdp_cartpole.py [--seeds 5]

Expected from the default, 60 episodes: the trained actor balances more than three times as long as
the untrained one (about 22 steps). Needs the extra `rl`.
"""

from pathlib import Path

import cyclopts
import numpy as np

from tenfold.spaic.pictures import returns_curve
from tenfold.spaic.reinforcement import RSTDPConfig, train_rstdp


def main(*, small: bool = False, seeds: int = 1, output: Path = Path("runs/examples")) -> None:
    """Runs the example.

    Args:
        small: A part of it, for a quick look; its figures are others.
        seeds: How many trainings.
        output: Where the picture goes: the returns of the first training.
    """
    episodes = 3 if small else RSTDPConfig.episodes
    found = [
        train_rstdp(RSTDPConfig(episodes=episodes, seed=seed), 1 if small else 10)
        for seed in range(seeds)
    ]
    before = [float(np.mean(one.before)) for one in found]
    after = [float(np.mean(one.after)) for one in found]
    for seed, (first, last) in enumerate(zip(before, after, strict=True)):
        print(f"seed {seed}: steps balanced before {first:.0f}, after {last:.0f}")
    print(
        f"steps balanced: expected three times as many after training, here {np.mean(before):.0f}, "
        f"then {np.mean(after):.0f} ± {np.std(after):.0f} over {seeds} seeds"
    )
    figure = returns_curve(found[0].returns)
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "rstdp_cartpole.png", dpi=150)
    print(f"picture: {output / 'rstdp_cartpole.png'}")


if __name__ == "__main__":
    cyclopts.run(main)
