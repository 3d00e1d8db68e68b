"""The same neurons and circuits in Brian2: equal spikes. Brian2 stamps the beginning of a step."""

import logging

import numpy as np
import pytest
import torch

b = pytest.importorskip("brian2", reason="Brian2 is not installed (group parity, Python >= 3.12)")

from tenfold.spaic import (  # noqa: E402
    Connection,
    Generator,
    Network,
    NeuronGroup,
    SpikeMonitor,
    StateMonitor,
)
from tenfold.spaic.library import cobahh, cuba, rates  # noqa: E402

logging.getLogger("brian2").setLevel(logging.ERROR)
ms = b.ms


@pytest.fixture(autouse=True)
def _clock():
    b.start_scope()
    b.defaultclock.dt = 0.1 * ms
    b.prefs.codegen.target = "numpy"


def ours(model, drive, time, watched, **options):
    """One neuron with a constant current: spike times (begin of the step), and a trace."""
    with Network(dtype=torch.float64) as net:
        cell = NeuronGroup(1, model=model, refractory_from="spike", **options)
        source = Generator(num=1, coding_method="constant_current", rate=drive)
        Connection(source, cell, weight=[[1.0]])
        spikes, trace = SpikeMonitor(cell), StateMonitor(cell, watched)
    net.build(strategy=1)  # the current acts from the first step, as in Brian2
    net.run(time)
    return spikes.spk_times[0] - net.dt, trace.values[0, 0]


def theirs(equations, time, watched, start=None, **options):
    group = b.NeuronGroup(1, equations, **options)
    for name, value in (start or {}).items():
        setattr(group, name, value)
    spikes = b.SpikeMonitor(group)
    trace = b.StateMonitor(group, watched, record=True)
    net = b.Network(group, spikes, trace)
    net.run(time * ms)
    final = np.asarray(getattr(group, watched))
    # Its sample k is the state before step k; ours the one after.
    return np.asarray(spikes.t / ms), np.append(np.asarray(getattr(trace, watched))[0, 1:], final)


def agree(mine, other, least):
    assert len(mine[0]) >= least
    np.testing.assert_allclose(mine[0], other[0], atol=1e-9)
    np.testing.assert_allclose(mine[1], other[1], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("method", ["exact", "exponential_euler", "euler", "rk2", "rk4"])
@pytest.mark.parametrize("refractory", [0.0, 5.0])
def test_a_leaky_neuron(method, refractory):
    name = {"exponential_euler": "exp_euler"}.get(method, method)
    held = " (unless refractory)" if refractory else ""
    mine = ours(
        "constantcurrentlif", 2.0, 60.0, "V", tau_m=10.0, method=name, refractory=refractory
    )
    other = theirs(
        f"dv/dt = (2 - v) / (10*ms) : 1{held}",
        60.0,
        "v",
        threshold="v > 1",
        reset="v = 0",
        refractory=refractory * ms if refractory else False,
        method=method,
    )
    agree(mine, other, 4)


@pytest.mark.parametrize("method", ["euler", "rk2", "rk4"])
def test_an_izhikevich_neuron(method):
    equations = """
    dv/dt = (0.04*v**2 + 5*v + 140 - u + 10) / ms : 1
    du/dt = 0.02 * (0.2*v - u) / ms : 1
    """
    other = theirs(
        equations,
        300.0,
        "v",
        {"v": -65, "u": 1},
        threshold="v > 30",
        reset="v = -65; u += 8",
        method=method,
    )
    agree(ours("izh", 10.0, 300.0, "V", method=method), other, 6)


def test_an_adaptive_exponential_neuron():
    equations = """
    dv/dt = (30*(2*exp((v + 50.4)/2) - (v + 70.6)) - u + 1000) / 281 / ms : 1
    du/dt = (4*(v + 70.6) - u) / 144 / ms : 1
    """
    other = theirs(
        equations,
        150.0,
        "u",
        {"v": -70.6},
        threshold="v > 20",
        reset="v = -70.6; u += 0.0805",
        method="euler",
    )
    agree(ours("aeif", 1000.0, 150.0, "U", method="euler"), other, 8)


def test_a_hodgkin_huxley_neuron_spikes_once_a_crossing():
    equations = """
    dv/dt = (10 - 120*m**3*h*(v - 120) - 36*n**4*(v + 12) - 0.3*(v - 10.6)) / ms : 1
    dm/dt = (1/exprel((25 - v)/10)*(1 - m) - 4*exp(-v/18)*m) / ms : 1
    dn/dt = (0.1/exprel((10 - v)/10)*(1 - n) - 0.125*exp(-v/80)*n) / ms : 1
    dh/dt = (0.07*exp(-v/20)*(1 - h) - h/(exp((30 - v)/10) + 1)) / ms : 1
    """
    start = {"m": 0.5, "n": 0.5, "h": 0.06}
    other = theirs(
        equations,
        100.0,
        "v",
        start,
        threshold="v > 20",
        refractory="v > 20",
        method="exponential_euler",
    )
    agree(ours("hh", 10.0, 100.0, "V"), other, 5)


CUBA = """
dv/dt = (ge + gi - (v + 49)) / (20*ms) : 1 (unless refractory)
dge/dt = -ge / (5*ms) : 1
dgi/dt = -gi / (10*ms) : 1
"""
COBAHH = """
dv/dt = (10*(-60 - v) - ge*v + gi*(-80 - v) + 20000*m**3*h*(50 - v) + 6000*n**4*(-90 - v))
    / 200 / ms : 1
dm/dt = (1.28/exprel((-50 - v)/4)*(1 - m) - 1.4/exprel((v + 23)/5)*m) / ms : 1
dn/dt = (0.16/exprel((-48 - v)/5)*(1 - n) - 0.5*exp((-53 - v)/40)*n) / ms : 1
dh/dt = (0.128*exp((-46 - v)/18)*(1 - h) - 4/(1 + exp((-23 - v)/5))*h) / ms : 1
dge/dt = -ge / (5*ms) : 1
dgi/dt = -gi / (10*ms) : 1
"""
CIRCUITS = {
    "cuba": (
        cuba,
        CUBA,
        {"threshold": "v > -50", "reset": "v = -60", "refractory": 5 * ms, "method": "exact"},
        {"ge": 1.62, "gi": -9.0},
    ),
    "cobahh": (
        cobahh,
        COBAHH,
        {"threshold": "v > -20", "refractory": 3 * ms, "method": "exponential_euler"},
        {"ge": 6.0, "gi": 67.0},
    ),
}


def in_brian2(net, name):
    """The circuit with the synapses and starting values of ours."""
    _, equations, options, weights = CIRCUITS[name]
    groups = [net.excitatory, net.inhibitory]
    first = groups[0].num
    group = b.NeuronGroup(sum(g.num for g in groups), equations, **options)
    net.run(net.dt)
    state = {"v": "V", "ge": "ge", "gi": "gi"} if name == "cobahh" else {"v": "V"}
    for theirs_name, ours_name in state.items():
        given = [g.initial[ours_name] for g in groups]
        setattr(group, theirs_name, np.concatenate(given))
    parts = [group]
    for variable, weight in weights.items():
        links = [c for c in net.get_connections() if c.post_var_name == variable]
        pre = np.concatenate([c.pre_index.numpy() + first * (c.pre is groups[1]) for c in links])
        post = np.concatenate([c.post_index.numpy() + first * (c.post is groups[1]) for c in links])
        synapses = b.Synapses(group, group, on_pre=f"{variable} += {weight}")
        synapses.connect(i=pre, j=post)
        parts.append(synapses)
    return b.SpikeMonitor(group), parts


def started(name):
    """Our circuit, with starting potentials that Brian2 can be given too."""
    net = CIRCUITS[name][0]()
    if name == "cuba":
        random = np.random.default_rng(5)
        for group in (net.excitatory, net.inhibitory):
            group.initial = {"V": random.uniform(-60, -50, group.num)}
    return net


@pytest.mark.parametrize("name", ["cuba", "cobahh"])
def test_a_circuit_has_the_same_spikes(name):
    net = started(name)
    spikes, parts = in_brian2(net, name)
    b.Network(spikes, *parts).run(50 * ms)
    net.run(50.0)
    assert net.engine_note.startswith("event")
    watched = [net.spikes_excitatory, net.spikes_inhibitory]
    times = np.concatenate([m.spk_times[0] for m in watched])
    index = [m.spk_index[0] + 3200 * k for k, m in enumerate(watched)]
    mine = np.stack([np.rint(times / net.dt).astype(int) - 1, np.concatenate(index)])
    other = np.stack([np.rint(np.asarray(spikes.t / ms) / net.dt).astype(int), np.array(spikes.i)])
    assert other.shape[1] > 300
    order = [np.lexsort((part[1], part[0])) for part in (mine, other)]
    np.testing.assert_array_equal(mine[:, order[0]], other[:, order[1]])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "known", "width"), [("cuba", 5.6, 0.4), ("cobahh", 37.3, 2.0)])
def test_a_circuit_has_the_same_rate(name, known, width):
    net = started(name)
    spikes, parts = in_brian2(net, name)
    b.Network(spikes, *parts).run(1000 * ms)
    net.run(1000.0)
    other, mine = spikes.num_spikes / 4000, rates(net)["all"]
    print(f"{name}: Brian2 {other:.3f} Hz, here {mine:.3f} Hz")
    assert abs(other - known) <= width
    assert abs(mine - known) <= width
    assert mine == pytest.approx(other, rel=0.05)
