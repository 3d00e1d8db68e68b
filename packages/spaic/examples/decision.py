"""Wang's decision network (2002): two pools compete for a slow, noisy choice.

    python packages/spaic/examples/decision.py

Expected: at a coherence of 0.512 pool A wins, keeps firing at tens of Hz after the stimulus is
gone, and silences pool B (below 3 Hz).
"""

from pathlib import Path

import cyclopts
from matplotlib.figure import Figure

from tenfold.spaic.library import decide, decision


def main(*, small: bool = False, output: Path = Path("runs/examples")) -> None:
    """Runs the example.

    Args:
        small: A part of it, for a quick look; its figures are others.
        output: Where the picture goes.
    """
    net = decision(400 if small else 2000)
    if small:
        net.build(engine="step")  # compiling would take longer
    parts = {"before": 50.0, "stimulus": 50.0, "after": 50.0} if small else {}
    trial = decide(net, 0.512, **parts)
    last = {name: rate[-5:].mean() for name, rate in trial.rates.items()}
    print(f"choice: expected A, here {trial.choice}")
    print(f"after the stimulus: expected A > 15 Hz, B < 3 Hz, here A {last['A']:.1f} Hz, ", end="")
    print(f"B {last['B']:.1f} Hz")
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, rate in trial.rates.items():
        axes.plot(trial.edges + 25, rate, label=name)
    axes.set_xlabel("time, ms")
    axes.set_ylabel("rate, Hz")
    axes.legend()
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "decision.png", dpi=150)
    print(f"picture: {output / 'decision.png'}")


if __name__ == "__main__":
    cyclopts.run(main)
