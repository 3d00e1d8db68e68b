"""The cortical microcircuit with rates in place of spikes: the paper's first example.

    python packages/spaic/examples/mean_field.py

Expected: each population's rate settles at the closed form (0.87 to 1.03) within 50 ms. The paper's
picture has rates between 0.76 and 1.31; its parameters are not known to us.
"""

from pathlib import Path

import cyclopts
from matplotlib.figure import Figure

from tenfold.spaic.library import POPULATIONS, mean_field_rates, microcircuit


def main(*, small: bool = False, output: Path = Path("runs/examples")) -> None:
    """Runs the example.

    Args:
        small: A part of it, for a quick look.
        output: Where the picture goes.
    """
    net = microcircuit(0.002 if small else 0.02, model="meanfield")
    net.run(60.0 if small else 100.0)
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    expected = mean_field_rates()
    for name in POPULATIONS:
        monitor = getattr(net, f"rate_{name}")
        rate = monitor.values[0].mean(0)
        at_50, last = rate[monitor.times <= 50.0][-1], rate[-1]
        print(f"{name}: expected {expected[name]:.3f}, here {last:.3f}; {at_50:.3f} at 50 ms")
        axes.plot(monitor.times, rate, label=name)
    axes.set(xlabel="time, ms", ylabel="rate, in units of the external drive's", ylim=(0, None))
    axes.legend(ncols=4, loc="lower right")
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "mean_field.png", dpi=150)
    print(f"picture: {output / 'mean_field.png'}")


if __name__ == "__main__":
    cyclopts.run(main)
