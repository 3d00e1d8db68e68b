"""Speed against peers, in turn (A B A B), processor seconds of one thread.

```bash
uv run --package tenfold-spaic packages/spaic/benchmarks/speed.py \
    --torch-peers PYTHON --circuit-peers PYTHON --official PYTHON
```

The best run of a turn counts, and the median over turns is told. Peers live in environments of
their own, since some need other versions: `--torch-peers` has spikingjelly and snntorch,
`--circuit-peers` brian2 (with numpy < 2) and nest-simulator, `--official` SPAIC. What is not given
is left out. Each measurement is a process of its own; what is compiled is compiled before the
clock starts.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

STEPS, BATCH = 500, 16


def best(function, repeats=4):
    """The least processor time of several runs, the first left out."""
    times = []
    for _ in range(repeats + 1):
        begun = time.process_time()
        function()
        times.append(time.process_time() - begun)
    return min(times[1:])


# --------------------------------------------------------- Linear(n) + LIF, forward and backward


def layer_here(n):
    from tenfold.spaic.experiments import layer_seconds

    return layer_seconds(n, STEPS, BATCH, "scan", repeats=4)["total"]


def layer_loop(n, recurrent=False):
    import torch

    linear, x = torch.nn.Linear(n, n, bias=False), torch.rand(STEPS, BATCH, n)
    back = torch.nn.Linear(n, n, bias=False) if recurrent else None

    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, u):
            ctx.save_for_backward(u)
            return (u > 0).float()

        @staticmethod
        def backward(ctx, g):
            (u,) = ctx.saved_tensors
            return g / (1 + (torch.pi * u) ** 2)

    def run():
        v = s = torch.zeros(BATCH, n)
        total = 0
        for part in linear(x).unbind(0):
            u = 0.95 * v + part + (back(s) if recurrent else 0)
            s = Spike.apply(u - 1)
            v = u * (s == 0)
            total = total + s
        total.sum().backward()

    return best(run)


def layer_spikingjelly(n):
    import torch
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    net = torch.nn.Sequential(
        layer.Linear(n, n, bias=False, step_mode="m"),
        neuron.LIFNode(
            tau=20.0, surrogate_function=surrogate.ATan(), detach_reset=True, step_mode="m"
        ),
    )
    x = torch.rand(STEPS, BATCH, n)

    def run():
        functional.reset_net(net)
        net(x).sum().backward()

    return best(run)


def layer_snntorch(n):
    import snntorch
    import torch
    from snntorch import surrogate

    linear = torch.nn.Linear(n, n, bias=False)
    lif = snntorch.Leaky(beta=0.95, spike_grad=surrogate.atan(), reset_mechanism="zero")
    x = torch.rand(STEPS, BATCH, n)

    def run():
        mem, total = lif.reset_mem(), 0
        for part in linear(x).unbind(0):
            spikes, mem = lif(part, mem)
            total = total + spikes
        total.sum().backward()

    return best(run)


def layer_official(n):
    import spaic
    import torch

    class Net(spaic.Network):
        def __init__(self):
            super().__init__()
            self.input = spaic.Encoder(num=n, time=STEPS, coding_method="null")
            self.layer = spaic.NeuronGroup(n, model="lif")
            self.link = spaic.Connection(self.input, self.layer, link_type="full")
            self.output = spaic.Decoder(
                num=n, dec_target=self.layer, time=STEPS, coding_method="spike_counts"
            )
            self.learner = spaic.Learner(trainable=self, algorithm="STCA")
            self.set_backend("torch", "cpu")
            self.set_backend_dt(1.0)

    net = Net()
    x = torch.rand(BATCH, STEPS, n)

    def run():
        net.input(x)
        net.output(torch.zeros(BATCH))
        net.run(STEPS)
        net.output.predict.sum().backward()

    return best(run, 2)


# --------------------------------- Linear(n) + LIF that is linked to itself, forward and backward


def recurrent_here(n):
    from tenfold.spaic.experiments import layer_seconds

    return layer_seconds(n, STEPS, BATCH, "scan", repeats=4, recurrent=True)["total"]


def recurrent_step(n):
    from tenfold.spaic.experiments import layer_seconds

    return layer_seconds(n, STEPS, BATCH, "step", repeats=2, recurrent=True)["total"]


def recurrent_loop(n):
    return layer_loop(n, recurrent=True)


def recurrent_snntorch(n):
    import snntorch
    import torch
    from snntorch import surrogate

    linear = torch.nn.Linear(n, n, bias=False)
    lif = snntorch.RLeaky(
        beta=0.95, linear_features=n, spike_grad=surrogate.atan(), reset_mechanism="zero"
    )
    x = torch.rand(STEPS, BATCH, n)

    def run():
        (spikes, mem), total = lif.init_rleaky(), 0
        for part in linear(x).unbind(0):
            spikes, mem = lif(part, spikes, mem)
            total = total + spikes
        total.sum().backward()

    return best(run)


# --------------------------------------------------------------------------------------- circuits


def circuit_here(name):
    from tenfold.spaic.experiments import SimulateConfig, simulate

    return min(simulate(SimulateConfig(circuit=name)).seconds for _ in range(3))


CUBA = """
dv/dt = (ge + gi - (v - El)) / taum : volt (unless refractory)
dge/dt = -ge / taue : volt
dgi/dt = -gi / taui : volt
"""

COBAHH = """
dv/dt = (gl*(El-v) + ge*(Ee-v) + gi*(Ei-v) + ina + ik)/Cm : volt
ina = -gna*(m*m*m)*h*(v-ENa) : amp
ik = -gkd*(n*n*n*n)*(v-EK) : amp
dm/dt = alpha_m*(1-m) - beta_m*m : 1
dn/dt = alpha_n*(1-n) - beta_n*n : 1
dh/dt = alpha_h*(1-h) - beta_h*h : 1
dge/dt = -ge*(1./(5*ms)) : siemens
dgi/dt = -gi*(1./(10*ms)) : siemens
alpha_m = 0.32*(mV**-1)*4*mV/exprel((13*mV-v+VT)/(4*mV))/ms : Hz
beta_m = 0.28*(mV**-1)*5*mV/exprel((v-VT-40*mV)/(5*mV))/ms : Hz
alpha_h = 0.128*exp((17*mV-v+VT)/(18*mV))/ms : Hz
beta_h = 4./(1+exp((40*mV-v+VT)/(5*mV)))/ms : Hz
alpha_n = 0.032*(mV**-1)*5*mV/exprel((15*mV-v+VT)/(5*mV))/ms : Hz
beta_n = .5*exp((10*mV-v+VT)/(40*mV))/ms : Hz
"""


def circuit_brian(name):
    import logging
    import resource
    import tempfile

    import brian2 as b

    logging.disable(logging.WARNING)
    b.prefs.codegen.cpp.extra_compile_args_gcc = [
        "-O3",
        "-march=native",
        "-ffast-math",
        "-std=c++11",
    ]
    times = []
    for duration in (0.1, 1000.0):  # the first tells what loading and starting costs
        b.device.reinit()
        b.device.activate()
        b.set_device("cpp_standalone", build_on_run=False)
        mV, ms, nS = b.mV, b.ms, b.nS
        if name == "cuba":
            space = {"El": -49 * mV, "taum": 20 * ms, "taue": 5 * ms, "taui": 10 * ms}
            group = b.NeuronGroup(
                4000,
                CUBA,
                threshold="v > -50*mV",
                reset="v = -60*mV",
                refractory=5 * ms,
                method="exact",
                namespace=space,
            )
            group.v = "-60*mV + rand() * 10*mV"
            we, wi = 1.62 * mV, -9 * mV
        else:
            area = 20000 * b.umetre**2
            space = {
                "Cm": b.ufarad / b.cm**2 * area,
                "gl": 5e-5 * b.siemens / b.cm**2 * area,
                "El": -60 * mV,
                "EK": -90 * mV,
                "ENa": 50 * mV,
                "VT": -63 * mV,
                "gna": 100 * b.msiemens / b.cm**2 * area,
                "gkd": 30 * b.msiemens / b.cm**2 * area,
                "Ee": 0 * mV,
                "Ei": -80 * mV,
            }
            group = b.NeuronGroup(
                4000,
                COBAHH,
                threshold="v > -20*mV",
                refractory=3 * ms,
                method="exponential_euler",
                namespace=space,
            )
            group.v = "El + (randn() * 5 - 5)*mV"
            group.ge = "(randn() * 1.5 + 4) * 10.*nS"
            group.gi = "(randn() * 12 + 20) * 10.*nS"
            we, wi = 6 * nS, 67 * nS
        spikes = b.SpikeMonitor(group)
        ce = b.Synapses(group[:3200], group, on_pre="ge += we", namespace={"we": we})
        ci = b.Synapses(group[3200:], group, on_pre="gi += wi", namespace={"wi": wi})
        ce.connect(p=0.02)
        ci.connect(p=0.02)
        net = b.Network(group, ce, ci, spikes)
        net.run(duration * ms)
        with tempfile.TemporaryDirectory() as folder:
            b.device.build(directory=folder, compile=True, run=False, debug=False)
            used = []
            for _ in range(2):
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                b.device.run(folder, with_output=False, run_args=[])
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
            times.append(min(used))
    return times[1] - times[0]


def circuit_nest(name):
    import nest
    import numpy as np

    nest.set_verbosity("M_ERROR")
    nest.local_num_threads = 1
    nest.resolution = 0.1
    neurons = nest.Create(
        "iaf_psc_exp",
        4000,
        {
            "tau_m": 20.0,
            "C_m": 1.0,
            "tau_syn_ex": 5.0,
            "tau_syn_in": 10.0,
            "E_L": -49.0,
            "V_th": -50.0,
            "V_reset": -60.0,
            "t_ref": 5.0,
        },
    )
    neurons.V_m = np.random.default_rng(0).uniform(-60, -50, 4000)
    for source, weight in ((neurons[:3200], 1.62 / 20), (neurons[3200:], -9.0 / 20)):
        rule = {"rule": "pairwise_bernoulli", "p": 0.02}
        nest.Connect(source, neurons, rule, {"weight": weight, "delay": 0.1})
    recorder = nest.Create("spike_recorder")
    nest.Connect(neurons, recorder)
    nest.Simulate(0.1)
    begun = time.process_time()
    nest.Simulate(1000.0)
    return time.process_time() - begun


TASKS = {
    "Linear(512) + LIF, 500 steps, batch 16": ("layer", 512),
    "Linear(32) + LIF, 500 steps, batch 16": ("layer", 32),
    "recurrent LIF(256), 500 steps, batch 16": ("recurrent", 256),
    "recurrent LIF(32), 500 steps, batch 16": ("recurrent", 32),
    "CUBA, 4,000 neurons, 1 s": ("circuit", "cuba"),
    "COBAHH, 4,000 neurons, 1 s": ("circuit", "cobahh"),
}
PEERS = {
    "layer": ("here", "spikingjelly", "snntorch", "loop", "official"),
    "recurrent": ("here", "step", "snntorch", "loop"),
    "circuit": ("here", "brian", "nest"),
}


def versions(pythons):
    """The versions of the peers in their environments: peer → package and version."""
    names = {
        "spikingjelly": "spikingjelly",
        "snntorch": "snntorch",
        "brian": "brian2",
        "nest": "nest-simulator",
        "official": "spaic",
    }
    found = {}
    for peer, package in names.items():
        if pythons[peer]:
            code = f"from importlib.metadata import version; print(version({package!r}))"
            done = subprocess.run([pythons[peer], "-c", code], capture_output=True, text=True)
            if done.returncode == 0:
                found[peer] = f"{package} {done.stdout.strip()}"
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--torch-peers")
    parser.add_argument("--circuit-peers")
    parser.add_argument("--official")
    parser.add_argument("--only", nargs="*", default=list(TASKS))
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--child", nargs=2)
    arguments = parser.parse_args()
    if arguments.child:
        function, value = arguments.child
        found = globals()[function](int(value) if value.isdecimal() else value)
        print("RESULT", json.dumps(found))
        return
    pythons = {
        "here": sys.executable,
        "loop": sys.executable,
        "step": sys.executable,
        "spikingjelly": arguments.torch_peers,
        "snntorch": arguments.torch_peers,
        "brian": arguments.circuit_peers,
        "nest": arguments.circuit_peers,
        "official": arguments.official,
    }
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    from record import record, recorded  # not in the peers' environments

    before = recorded().get("speed", {})
    kept = before.get("results", {})
    for task, (kind, value) in TASKS.items():
        if not any(word in task for word in arguments.only):
            continue
        peers = [p for p in PEERS[kind] if pythons[p]]
        peers = [p for p in peers if not (p == "nest" and value == "cobahh")]
        times = {peer: [] for peer in peers}
        for _ in range(arguments.turns):
            for peer in peers:
                command = [pythons[peer], __file__, "--child", f"{kind}_{peer}", str(value)]
                done = subprocess.run(
                    command, capture_output=True, text=True, env=os.environ | threads, check=False
                )
                lines = [x for x in done.stdout.splitlines() if x.startswith("RESULT")]
                if lines:
                    times[peer].append(json.loads(lines[-1][7:]))
                else:
                    print(task, peer, done.stderr[-400:], file=sys.stderr)
        row = {peer: statistics.median(t) for peer, t in times.items() if t}
        kept[task] = {
            peer: {"seconds": seconds, "here / peer": row["here"] / seconds}
            for peer, seconds in row.items()
        }
        print(task, {peer: f"{s:.4g} s (x {row['here'] / s:.3f})" for peer, s in row.items()})
    record("speed", kept, before.get("peers", {}) | versions(pythons))


if __name__ == "__main__":
    main()
