"""How much faster plasticity by events is than the step engine, on a circuit of 4,000 neurons.

3,200 excitatory and 800 inhibitory `lif` neurons, each pair linked with probability 2 %, each
neuron driven by its own Poisson train; the excitatory links change by the rule. Both engines run
the same circuit in turn in one process; the figure is the ratio of their processor seconds, in
which the event engine sorts the synapses anew at each run.

    python packages/spaic/benchmarks/plasticity.py
"""

import argparse
import time

import torch
from record import record

from tenfold.spaic import Connection, Generator, Learner, Network, NeuronGroup, SpikeMonitor

RULES = {"stdp": {"lr": 1e-3}, "triplet_stdp": {"lr": 1e-2}, "inhibitory_stdp": {"sign": 1.0}}


def circuit(engine: str, rule: str) -> Network:
    """Makes the circuit.

    Args:
        engine: step or event.
        rule: A rule of traces.
    """
    net = Network()
    net.e, net.i = NeuronGroup(3200, tau_m=20.0), NeuronGroup(800, tau_m=20.0)
    for name, cells in (("e", net.e), ("i", net.i)):
        source = Generator(num=cells.num, coding_method="poisson", rate=1.0)
        net.add_assembly(f"drive_{name}", source)
        link = Connection(source, cells, link_type="one_to_one_sparse", weight=0.12)
        net.add_connection(f"into_{name}", link)
    net.ee = Connection(net.e, net.e, link_type="bernoulli", p=0.02, weight=0.02)
    net.ei = Connection(net.e, net.i, link_type="bernoulli", p=0.02, weight=0.02)
    net.ie = Connection(net.i, net.e, link_type="bernoulli", p=0.02, weight=-0.1)
    net.learner = Learner([net.ee, net.ei], algorithm=rule, w_max=0.05, **RULES[rule])
    net.spikes = SpikeMonitor(net.e)
    net.set_random_seed(1)
    net.build(engine=engine)
    return net


def main() -> None:
    """Measures, prints a line a rule, and writes `results.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--time", type=float, default=50.0, help="how long the circuit runs, in ms")
    parser.add_argument("--rules", nargs="*", default=list(RULES), choices=list(RULES))
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many counts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for rule in options.rules:
        nets = {engine: circuit(engine, rule) for engine in ("step", "event")}
        best = dict.fromkeys(nets, float("inf"))
        for net in nets.values():
            net.run(1.0)  # compiles, and looks things up
        for _ in range(options.rounds):
            for engine, net in nets.items():
                start = time.process_time()
                net.run(options.time)
                best[engine] = min(best[engine], time.process_time() - start)
        rate = nets["event"].spikes.spk_count.mean() / options.time * 1e3
        synapses = sum(nets["event"].members[name].weight.numel() for name in ("ee", "ei"))
        results[rule] = {
            "plastic synapses": synapses,
            "rate, Hz": float(rate),
            "step, s": best["step"],
            "event, s": best["event"],
            "step / event": best["step"] / best["event"],
        }
        print(
            f"{rule}: {synapses} plastic synapses, {rate:.1f} Hz; step engine "
            f"{best['step']:.2f} s, event engine {best['event']:.3f} s, "
            f"ratio {best['step'] / best['event']:.0f}"
        )
    record("plasticity", results)


if __name__ == "__main__":
    main()
