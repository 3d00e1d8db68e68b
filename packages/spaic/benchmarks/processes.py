"""What a circuit costs in two processes beside one, on this machine.

Each circuit of the library runs in one process and then over two of gloo, in turn, all after a
first run that compiles. The figures are ratios of two processes to one: of the processor seconds
of the first process, and of the time on the wall; the median over the turns counts.

    OMP_NUM_THREADS=1 python packages/spaic/benchmarks/processes.py
"""

import argparse
import statistics
import time

import torch
from record import record

from tenfold.spaic.engines.ranks import launched
from tenfold.spaic.library import CIRCUITS

TIMES = {"brunel": 500.0, "microcircuit": 200.0, "cobahh": 200.0, "cuba": 500.0}


def measured(name: str, duration: float, partition: bool) -> dict[str, float]:
    """Runs a circuit in this process, or this process's part of it.

    Args:
        name: The circuit.
        duration: Biological time in ms.
        partition: Whether the other processes have a part.

    Returns:
        Seconds: `processor`, `wall`.
    """
    torch.set_num_threads(1)
    circuit = CIRCUITS[name]
    net = circuit.make(circuit.size, 0)
    if partition:
        net.set_backend(partition=True)
    net.build(engine="event")
    net.run(net.dt)  # compiles
    begun, wall = time.process_time(), time.perf_counter()
    net.run(duration)
    return {
        "processor": time.process_time() - begun,
        "wall": time.perf_counter() - wall,
    }


def main() -> None:
    """Measures, prints a line a circuit, and writes `results.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--circuits", nargs="*", default=list(TIMES), choices=list(TIMES))
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    results = {}
    for name in options.circuits:
        ratios: dict[str, list[float]] = {"processor": [], "wall": []}
        for _ in range(options.turns):
            one = measured(name, TIMES[name], False)
            with launched(2, measured, name, TIMES[name], True):
                two = measured(name, TIMES[name], True)
            for key, found in ratios.items():
                found.append(two[key] / one[key])
        results[name] = {
            "time_ms": TIMES[name],
            **{f"{key}, two / one": statistics.median(found) for key, found in ratios.items()},
            **{f"{key}, each turn": found for key, found in ratios.items()},
        }
        told = ", ".join(f"{key} {statistics.median(found):.2f}" for key, found in ratios.items())
        print(f"{name}: two processes beside one: {told}", flush=True)
    record("processes", results)


if __name__ == "__main__":
    main()
