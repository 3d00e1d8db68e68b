"""Surrogate gradients through every form of a threshold, against loops written out here."""

import math

import numpy as np
import pytest
import torch

from tenfold.shared.progress import set_quiet
from tenfold.spaic import Connection, Decoder, Encoder, Learner, Network, NeuronGroup, NeuronModel

STEPS, BATCH, PRE, POST = 60, 3, 5, 4


class Fired(torch.autograd.Function):
    """1 where the condition holds; the gradient of u is that of AtanGrad, alpha = 2."""

    @staticmethod
    def forward(ctx, u, fires):
        ctx.save_for_backward(u)
        return fires.to(u.dtype)

    @staticmethod
    def backward(ctx, grad):
        (u,) = ctx.saved_tensors
        return grad / (1 + (math.pi * u) ** 2), None


def at(u):
    return Fired.apply(u, u >= 0)


def above(u):
    return Fired.apply(u, u > 0)


def reset(v, o, value):
    return torch.where(o > 0, torch.full_like(v, value), v)


def exponential(x, a, b, dt):
    """One step of dx/dt = a x + b with a and b held."""
    return x * torch.exp(a * dt) + b * torch.expm1(a * dt) / a


def exprel(x):
    return torch.expm1(x) / x


def psc(s, given, dt, late):
    keep = math.exp(-dt / 10)
    v = -65 + (s["V"] + 65) * keep + (1 - keep) * 10 / 250 * given
    o = at(v + 50)
    return {"V": reset(v, o, -65.0)}, o


def psc_refractory(s, given, dt, late):
    keep = math.exp(-dt / 10)
    waits = s["wait"] > 0
    v = -65 + (s["V"] + 65) * keep + (1 - keep) * 10 / 250 * given
    v = torch.where(waits, s["V"], v)
    o = torch.where(waits, torch.zeros_like(v), at(v + 50))
    wait = torch.where(o > 0, torch.full_like(v, 2.0), s["wait"] - 1)
    return {"V": reset(v, o, -65.0), "wait": wait}, o


def alpha(s, given, dt, late):
    beta, keep = math.exp(-dt / 2), math.exp(-dt / 10)
    peak = math.e / 2
    # V follows e = (e₀ + peak g₀ t) e^{−t/2}: the integral with e^{−(dt−t)/10}, by parts.
    rate = 1 / 2 - 1 / 10
    one = (1 - math.exp(-rate * dt)) / rate
    two = (1 - math.exp(-rate * dt) * (1 + rate * dt)) / rate**2
    v = -70 + (s["V"] + 70) * keep + keep / 250 * (s["e"] * one + peak * s["ge"] * two)
    e = beta * (s["e"] + peak * dt * s["ge"])
    o = at(v + 55)
    return {"V": reset(v, o, -70.0), "e": e, "ge": beta * s["ge"] + late}, o


def cuba(s, given, dt, late):
    beta, keep = math.exp(-dt / 5), math.exp(-dt / 20)
    v = -49 + (s["V"] + 49) * keep + s["ge"] * (beta - keep) / (20 / 5 - 1) * -1
    o = above(v + 50)
    return {"V": reset(v, o, -60.0), "ge": beta * s["ge"] + late}, o


def gates(s, dt, rates):
    made = {}
    for name, (a, b) in rates.items():
        made[name] = exponential(s[name], -(a + b), a, dt)
    return made


def hodgkin_huxley(s, given, dt, late):
    v = s["V"]
    rates = {
        "m": (1 / exprel((25 - v) / 10), 4 * torch.exp(-v / 18)),
        "n": (0.1 / exprel((10 - v) / 10), 0.125 * torch.exp(-v / 80)),
        "h": (0.07 * torch.exp(-v / 20), 1 / (torch.exp((30 - v) / 10) + 1)),
    }
    na, k = 120 * s["m"] ** 3 * s["h"], 36 * s["n"] ** 4
    a, b = -(na + k + 0.3), given + na * 120 + k * -12 + 0.3 * 10.6
    made = gates(s, dt, rates) | {"V": exponential(v, a, b, dt)}
    return made, above(made["V"] - 20) * (v <= 20)


def cobahh(s, given, dt, late):
    v = s["V"]
    rates = {
        "m": (1.28 / exprel((13 - v - 63) / 4), 1.4 / exprel((v + 63 - 40) / 5)),
        "h": (0.128 * torch.exp((17 - v - 63) / 18), 4 / (1 + torch.exp((40 - v - 63) / 5))),
        "n": (0.16 / exprel((15 - v - 63) / 5), 0.5 * torch.exp((10 - v - 63) / 40)),
    }
    na, k = 20000 * s["m"] ** 3 * s["h"], 6000 * s["n"] ** 4
    a = -(10 + s["ge"] + na + k) / 200
    b = (10 * -60 + na * 50 + k * -90) / 200
    made = gates(s, dt, rates) | {"V": exponential(v, a, b, dt)}
    return made | {"ge": math.exp(-dt / 5) * s["ge"] + late}, above(made["V"] + 20)


def integer(s, given, dt, late):
    waits = s["refrac"] > 0
    v = s["V"] + torch.where(waits, torch.zeros_like(given), given)
    o = at(v - 1)
    refrac = torch.where(o > 0, torch.full_like(v, 2.0), s["refrac"] - 1)
    return {"V": reset(v, o, 0.0), "refrac": refrac}, o


CASES = {  # the loop, its states, the group, what a weight of one means, the target, dt
    "iaf_psc_exp": (psc, {"V": -65.0}, {}, 1000.0, "Isyn", 0.5),
    "iaf_psc_delta": (psc, {"V": -65.0}, {}, 1000.0, "Isyn", 0.5),
    "refractory": (
        psc_refractory,
        {"V": -65.0, "wait": 0.0},
        {"model": "iaf_psc_exp", "refractory": 1.0},
        1000.0,
        "Isyn",
        0.5,
    ),
    "iaf_psc_alpha": (alpha, {"V": -70.0, "e": 0.0, "ge": 0.0}, {}, 800.0, "ge", 0.5),
    "cuba": (cuba, {"V": -49.0, "ge": 0.0}, {"initial": {"V": -55.0}}, 3.0, "ge", 0.5),
    "hh": (
        hodgkin_huxley,
        {"V": 0.0},
        {"initial": {"m": 0.05, "n": 0.3, "h": 0.6}},
        60.0,
        "Isyn",
        0.05,
    ),
    "cobahh": (
        cobahh,
        {"V": -60.0, "m": 0.0, "n": 0.0, "h": 0.0, "ge": 0.0},
        {"initial": {"h": 0.9}},
        60.0,
        "ge",
        0.05,
    ),
    "lifint": (integer, {"V": 0.0, "refrac": 0.0}, {"reset_refrac": 2.0}, 1.0, "Isyn", 1.0),
}


def given(scale):
    random = np.random.default_rng(3)
    x = random.random((BATCH, STEPS, PRE)) < 0.3
    return x.astype(float), scale * random.uniform(0.1, 0.6, (POST, PRE))


def expected(name):
    step, states, options, scale, target, dt = CASES[name]
    x, weight = given(scale)
    w = torch.tensor(weight, requires_grad=True)
    starts = states | options.get("initial", {})
    s = {key: torch.full((BATCH, POST), float(v), dtype=w.dtype) for key, v in starts.items()}
    total = 0
    for row in torch.tensor(x).unbind(1):
        sent = row @ w.T
        none = torch.zeros_like(sent)
        s, o = step(s, *((sent, dt, none) if target == "Isyn" else (none, dt, sent)))
        total = total + o
    weigh(total).backward()
    return total.detach(), w.grad


def weigh(counts):
    return (counts * torch.arange(1.0, counts.numel() + 1).reshape(counts.shape)).sum()


def trained(name, engine):
    _, _, options, scale, target, dt = CASES[name]
    x, weight = given(scale)
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=PRE, coding_method="null")
        cells = NeuronGroup(POST, **{"model": name, **options})
        link = Connection(source, cells, weight=weight, post_var_name=target)
        counts = Decoder(dec_target=cells, num=POST, coding_method="spike_counts")
        learner = Learner(algorithm="sbp", surrogate_func="AtanGrad")
    learner.trainable = [net]
    net.set_backend_dt(dt)
    net.build(strategy=1, engine=engine)
    source(x)
    net.run(STEPS * dt)
    assert net.engine_note.startswith(engine)
    weigh(counts.predict).backward()
    return counts.predict.detach(), link.weight.grad


@pytest.mark.parametrize("name", CASES)
def test_models_with_any_threshold_are_trained_as_an_independent_loop_is(name):
    counts, slope = expected(name)
    assert counts.sum() >= 3
    assert slope.abs().min() > 0
    engines = ("step", "scan") if CASES[name][4] == "Isyn" else ("step",)
    for engine in engines:
        found, gradient = trained(name, engine)
        assert torch.equal(found, counts)
        torch.testing.assert_close(gradient, slope, rtol=1e-6, atol=1e-9 * float(slope.abs().max()))


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("engine", ["step", "scan", "event"])
def test_a_neuron_at_its_threshold_spikes_as_its_condition_says(strict, engine):
    model = NeuronModel(
        name="m",
        states={"V": 0.0, "free": 1.0},
        parameters={"v_th": 1.0},
        ode="dV/dt = Isyn / dt",
        threshold=f"(v_th {'<' if strict else '<='} V) & (free > 0.5)",
        reset="V = 0",
        method="euler",
    )
    with Network() as net:
        source = Encoder(num=1, coding_method="float")
        cell = NeuronGroup(1, model=model)
        link = Connection(source, cell, weight=[[0.5]])
        counts = Decoder(dec_target=cell, num=1, coding_method="spike_counts")
    if engine != "event":
        net.learner = Learner(trainable=[link, cell], algorithm="stca", alpha=2.0)
    net.build(engine=engine)
    net.source(np.ones((1, 1)))
    net.run(1.3)
    # With strategy 0 the input of step 1 is zero; then V = 0.5, 1.0 (, 1.5).
    assert int(counts.predict.detach().sum()) == (4 if strict else 6)


def test_an_input_that_a_model_does_not_read_is_told(capsys):
    set_quiet(False)
    with Network() as net:
        source = Encoder(num=2, coding_method="float")
        cell = NeuronGroup(2, model="cuba")
        Connection(source, cell, name="push")
    net.source(np.ones((1, 2)))
    net.run(0.1)
    told = capsys.readouterr().err
    assert "push: NeuronGroup cell (model cuba) does not read 'Isyn', so that nothing arri" in told


def test_a_threshold_without_a_gradient_is_told(capsys):
    set_quiet(False)
    model = NeuronModel(
        name="m",
        states={"V": 0.0},
        ode="dV/dt = Isyn - V",
        threshold="(V > 1) | (V < -1)",
        reset="V = 0",
    )
    with Network() as net:
        source = Encoder(num=2, coding_method="float")
        cell = NeuronGroup(2, model=model, name="both")
        Connection(source, cell)
        learner = Learner(algorithm="stca")
    learner.trainable = [net]
    learner.set_optimizer("SGD")
    learner.optim_zero_grad()
    assert "'(V > 1) | (V < -1)' of NeuronGroup both passes no gradient" in capsys.readouterr().err
