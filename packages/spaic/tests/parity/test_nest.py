"""The same neurons and the cortical microcircuit in NEST: equal spike times, rates that agree."""

import warnings

import numpy as np
import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    nest = pytest.importorskip("nest", reason="nest-simulator is not installed (group parity)")

from tenfold.spaic import (
    Connection,
    Encoder,
    Network,
    NeuronGroup,
    SpikeMonitor,
    StateMonitor,
)
from tenfold.spaic.library import CIRCUITS, POPULATIONS, microcircuit, rates

pytestmark = pytest.mark.filterwarnings("ignore")
DT, STEPS = 0.1, 2000


@pytest.fixture(autouse=True)
def _kernel():
    nest.ResetKernel()
    nest.verbosity = nest.VerbosityLevel.ERROR
    nest.resolution = DT


def trains(seed, rate):
    """Spike steps of two sources."""
    random = np.random.default_rng(seed)
    return [np.flatnonzero(random.random(STEPS - 50) < rate) + 1 for _ in range(2)]


def in_nest(model, parameters, spikes, weights, delays, recorded):
    cell = nest.Create(model, 1, parameters)
    for steps, weight, delay in zip(spikes, weights, delays, strict=True):
        source = nest.Create("spike_generator", 1, {"spike_times": np.round(steps * DT, 6)})
        nest.Connect(source, cell, "all_to_all", {"weight": weight, "delay": delay})
    recorder = nest.Create("spike_recorder")
    meter = nest.Create("multimeter", 1, {"record_from": [recorded], "interval": DT})
    nest.Connect(cell, recorder)
    nest.Connect(meter, cell)
    nest.Simulate(STEPS * DT + 5.0)  # its recorders report a little late
    found = meter.events
    return np.sort(recorder.events["times"]), found["times"], found[recorded]


def here(model, spikes, weights, delays, targets, recorded, **options):
    raster = np.zeros((1, STEPS, 2))
    for k, steps in enumerate(spikes):
        raster[0, steps - 1, k] = 1  # a stamp is the end of a step
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=2, coding_method="null")
        cell = NeuronGroup(1, model=model, **options)
        watch, trace = SpikeMonitor(cell), StateMonitor(cell, recorded)
    for k, (weight, delay, name) in enumerate(zip(weights, delays, targets, strict=True)):
        link = Connection(
            source,
            cell,
            link_type="index",
            pre_index=np.array([k]),
            post_index=np.array([0]),
            weight=weight,
            delay=delay,
            post_var_name=name,
        )
        net.add_connection(f"link{k}", link)
    net.set_backend_dt(DT)
    net.source(raster)
    net.run(STEPS * DT)
    return watch.spk_times[0], trace.times, trace.values[0, 0]


def agree(mine, other, least, rtol):
    assert len(mine[0]) >= least
    np.testing.assert_allclose(mine[0], other[0][other[0] < STEPS * DT + DT / 2], atol=1e-9)
    at = {round(t / DT): v for t, v in zip(other[1], other[2], strict=True)}
    expected = np.array([at[round(t / DT)] for t in mine[1]])
    np.testing.assert_allclose(mine[2], expected, rtol=rtol)


@pytest.mark.parametrize("tau", [2.0, 10.0])
def test_iaf_psc_exp(tau):
    spikes, weights, delays = trains(1, 0.15), (250.0, -120.0), (1.5, 0.3)
    other = in_nest(
        "iaf_psc_exp",
        {"E_L": -65.0, "V_m": -65.0, "V_reset": -65.0, "V_th": -50.0, "I_e": 210.0, "t_ref": 2.0}
        | {"tau_syn_ex": tau, "tau_syn_in": 3.0},
        spikes,
        weights,
        delays,
        "V_m",
    )
    mine = here(
        "iaf_psc_exp",
        spikes,
        weights,
        delays,
        ("ge", "gi"),
        "V",
        I_e=210.0,
        refractory=2.0,
        tau_e=tau,
        tau_i=3.0,
    )
    agree(mine, other, 4, 1e-9)


def test_iaf_psc_delta():
    """Spikes that reach the threshold, fall into the refractory time, or meet a current."""
    parameters = {"E_L": -65.0, "V_m": -65.0, "V_reset": -65.0, "V_th": -50.0}
    for rate, drive, wait, weights in (
        (0.1, 0.0, 0.1, (1.3, -0.9)),
        (0.2, 200.0, 2.0, (5.0, -2.0)),
        (0.0, 450.0, 0.1, (1.3, -0.9)),
    ):
        spikes, delays = trains(2, rate), (1.0, 0.1)
        nest.ResetKernel()
        nest.resolution = DT
        given = parameters | {"t_ref": wait, "I_e": drive}
        other = in_nest("iaf_psc_delta", given, spikes, weights, delays, "V_m")
        options = {"I_e": drive, "refractory": wait}
        mine = here("iaf_psc_delta", spikes, weights, delays, ("V", "V"), "V", **options)
        agree(mine, other, 0 if drive == 0 else 10, 1e-9)


def test_iaf_cond_exp():
    """NEST controls the error of its steps; the classical Runge–Kutta step is as exact here."""
    spikes, weights, delays = trains(3, 0.2), (30.0, -10.0), (1.0, 1.5)
    other = in_nest(
        "iaf_cond_exp", {"g_L": 16.7, "I_e": 350.0, "t_ref": 2.0}, spikes, weights, delays, "V_m"
    )
    mine = here(
        "lif_cond_exp",
        spikes,
        (30.0, 10.0),
        delays,
        ("ge", "gi"),
        "V",
        I_e=350.0,
        refractory=2.0,
        method="rk4",
    )
    agree(mine, other, 3, 1e-4)


def test_izhikevich():
    none = [np.zeros(0, dtype=int)] * 2
    other = in_nest(
        "izhikevich",
        {"I_e": 10.0, "U_m": 1.0, "V_m": -65.0},
        none,
        (1.0, 1.0),
        (1.0, 1.0),
        "U_m",
    )
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=1, coding_method="float")
        cell = NeuronGroup(1, model="izh")
        Connection(source, cell, weight=[[10.0]])
        watch, trace = SpikeMonitor(cell), StateMonitor(cell, "U")
    net.build(strategy=1)
    net.source(np.ones((1, 1)))
    net.run(STEPS * DT)
    agree((watch.spk_times[0], trace.times, trace.values[0, 0]), other, 4, 1e-9)


@pytest.mark.slow
def test_the_microcircuit_at_a_tenth():
    net = microcircuit(0.1, seed=0)
    net.prepare()
    made = {}
    groups = {id(getattr(net, name)): name for name in POPULATIONS}
    for name in POPULATIONS:
        group = getattr(net, name)
        made[name] = nest.Create(
            "iaf_psc_exp",
            group.num,
            {
                "E_L": -65.0,
                "V_th": -50.0,
                "V_reset": -65.0,
                "C_m": 250.0,
                "tau_m": 10.0,
                "tau_syn_ex": 0.5,
                "tau_syn_in": 0.5,
                "t_ref": 2.0,
                "I_e": float(group.model_parameters["I_e"]),
            },
        )
        made[name].V_m = group.initial["V"]
        noise = net.members[f"noise_{name}"]
        source = nest.Create(
            "poisson_generator", 1, {"rate": 1e3 * float(noise.source.flatten()[0])}
        )
        weight = float(net.members[f"drive_{name}"].weight[0])
        nest.Connect(source, made[name], "all_to_all", {"weight": weight, "delay": DT})
    synapses = 0
    for con in net.get_connections():
        if id(con.pre) in groups:
            pre, post = made[groups[id(con.pre)]], made[groups[id(con.post)]]
            first = np.array(pre.tolist())[con.pre_index.numpy()]
            second = np.array(post.tolist())[con.post_index.numpy()]
            delay = con.delay_steps(DT, None) * DT
            weight = con.weight.detach().numpy().astype(float)
            options = {"weight": weight, "delay": np.broadcast_to(delay, weight.shape)}
            nest.Connect(first, second, "one_to_one", options)
            synapses += len(first)
    assert synapses == pytest.approx(2_988_686, rel=1e-3)
    recorders = {name: nest.Create("spike_recorder") for name in POPULATIONS}
    for name in POPULATIONS:
        nest.Connect(made[name], recorders[name])
    nest.Simulate(2500.0)
    net.run(2500.0)
    assert net.engine_note.startswith("event")
    mine = rates(net, 500.0)
    card = CIRCUITS["microcircuit"].rates
    for name in POPULATIONS:
        times = recorders[name].events["times"]
        other = (times > 500.0).sum() / len(made[name]) / 2.0
        print(f"{name}: NEST {other:.3f}, here {mine[name]:.3f}, card {card[name]} Hz")
        assert mine[name] == pytest.approx(other, rel=0.15), name
        assert mine[name] == pytest.approx(card[name], rel=0.15), name
