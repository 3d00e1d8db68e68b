"""Spike times within a step: slif, selif, their learner, and the decoders that read them."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from tenfold.shared.errors import InputError
from tenfold.spaic import (
    Connection,
    Decoder,
    Encoder,
    Learner,
    Network,
    NeuronGroup,
    StateMonitor,
)


def first_time(record, dt):
    """The time of the first spike in a record of T, [steps]."""
    k = int(np.flatnonzero(record)[0])
    return (k + 1) * dt - record[k]


def chain(dt, weight=2.2, time=30.0):
    """An input spike at 1 ms, one selif neuron: the time of its first spike."""
    steps = round(time / dt)
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=1, coding_method="null")
        cell = NeuronGroup(1, model="selif", tau_m=10.0, tau_s=5.0)
        Connection(source, cell, weight=[[weight]])
    seen = StateMonitor(cell, "T")
    net.add_monitor("seen", seen)
    net.set_backend_dt(dt)
    net.build(strategy=1)
    train = np.zeros((1, steps, 1))
    train[0, round(1 / dt) - 1] = 1  # arrives at the end of that step
    net.source(train)
    net.run(time)
    return first_time(seen.values[0, 0], dt)


def test_the_time_of_a_spike_is_that_of_the_continuous_neuron():
    scale = 1 / (0.5 - 0.25)  # e^{−t/10} − e^{−t/5} has its peak 1/4 at 10 ln 2
    exact = 1 + brentq(
        lambda t: 2.2 * scale * (math.exp(-t / 10) - math.exp(-t / 5)) - 1, 1e-6, 10 * math.log(2)
    )
    errors = [abs(chain(dt) - exact) for dt in (0.5, 0.1)]
    assert errors[0] < 0.05  # a tenth of the step
    assert errors[1] < errors[0] / 10


def test_the_gradient_of_a_spike_time_is_a_finite_difference():
    def time(weight, gradient=False):
        with Network(dtype=torch.float64) as net:
            source = Encoder(num=2, coding_method="null")
            cell = NeuronGroup(1, model="selif", tau_m=10.0, tau_s=5.0, beta=1 / 0.02)
            link = Connection(source, cell, weight=weight)
            out = Decoder(
                dec_target=cell, num=1, coding_method="complex_latency", coding_var_name="T"
            )
            learner = Learner(algorithm="true", alpha=1e-9)
        learner.trainable = [net]
        net.set_backend_dt(0.02)
        net.build(strategy=1)
        train = np.zeros((1, 600, 2))
        train[0, 50, 0] = train[0, 150, 1] = 1
        net.source(train)
        net.run(12.0)
        if not gradient:
            return out.predict.item()
        out.predict.sum().backward()
        return link.weight.grad[0].numpy()

    weight = np.array([[0.8, 0.9]])
    found = time(weight, True)
    for k in range(2):
        shift = 1e-4 * np.eye(2)[k]
        slope = (time(weight + shift) - time(weight - shift)) / 2e-4
        assert found[k] == pytest.approx(slope, rel=0.02)
        assert slope < -1


@pytest.mark.parametrize("refractory", [0.0, 3.0])
@pytest.mark.parametrize("model", ["slif", "selif"])
def test_every_spike_leaves_a_part_of_its_step_and_decays_by_it(model, refractory):
    random = np.random.default_rng(0)
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=3, coding_method="null")
        cell = NeuronGroup(4, model=model, refractory=refractory)
        Connection(source, cell, weight=2 * random.random((4, 3)))
    seen = {name: StateMonitor(cell, name) for name in "OTSV"}
    for name, monitor in seen.items():
        net.add_monitor(name, monitor)
    net.set_backend_dt(1.0)
    net.source((random.random((2, 50, 3)) < 0.5).astype(float))
    net.run(50.0)
    o, left, s, v = (seen[name].values for name in "OTSV")
    assert o.sum() > 20
    steps = [np.flatnonzero(row) for row in o.reshape(-1, 50)]
    assert min(np.diff(row).min() for row in steps) == (4 if refractory else 1)
    assert np.array_equal(o > 0, left > 0)
    assert left.max() <= 1
    np.testing.assert_allclose(s, o * np.exp(-left / 4.0))
    assert np.all(v[o > 0] == 0)
    assert v.max() <= 1


def test_the_learner_has_the_gradient_of_the_card():
    u = torch.tensor([-1.5, -0.5, 0.5], dtype=torch.float64, requires_grad=True)
    Learner(algorithm="true").surrogate(u).sum().backward()
    assert u.grad.tolist() == [0.0, 0.5, 1.0]


TIMES = {0: 1.25, 1: 0.5, 2: 3.75}  # ms, within steps of 1 ms; neuron 3 is silent


def decoded(method, target=None, **options):
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=4, coding_method="null")
        cell = NeuronGroup(4, model="null")
        Connection(source, cell, link_type="one_to_one", weight=np.eye(4))
        out = Decoder(dec_target=cell, coding_method=method, **options)
    net.set_backend_dt(1.0)
    net.build(strategy=1)
    record = np.zeros((1, 5, 4))
    for neuron, time in TIMES.items():
        record[0, int(time), neuron] = int(time) + 1 - time
    out.coding_var_name = "O"
    net.source(record)
    if target is not None:
        out(target)
    net.run(5.0)
    # The record holds what `T` of an exact-timing group would; `null` passed it on as O.
    out.coding_var_name = "T"
    return out.predict[0] if method not in ("complex_trajectory", "complex_conv") else out.predict


def test_decoders_of_exact_times():
    expected = [5 * math.exp((0.5 - t) / 50) for t in TIMES.values()]
    np.testing.assert_allclose(decoded("time_softmax"), [*expected, 0], rtol=1e-12)
    pairs = [(expected[0] + expected[1]) / 2, expected[2] / 2]
    np.testing.assert_allclose(decoded("time_softmax", pop_size=2), pairs, rtol=1e-12)
    np.testing.assert_allclose(decoded("complex_count"), [1, 1, 1, 0])
    np.testing.assert_allclose(decoded("complex_latency"), [1.25, 0.5, 3.75, 5.0])
    angles = [math.remainder(2 * math.pi * t / 2.5, 2 * math.pi) for t in TIMES.values()]
    found = decoded("complex_phase", period=2.5)
    np.testing.assert_allclose(found[:3].cos(), np.cos(angles), atol=1e-12)
    path = decoded("complex_trajectory")
    assert path[1, 0, 0] == 1 + 0.25j
    assert path[3, 0, 2] == 1 + 0.75j
    assert path.abs().gt(0).sum() == 3
    bumps = decoded("complex_conv")
    ends = np.arange(1, 6)
    for neuron, time in TIMES.items():
        np.testing.assert_allclose(bumps[:, 0, neuron], np.exp(-((3 * (ends - time) / 40) ** 2)))
    assert bumps[:, 0, 3].abs().max() == 0


def test_a_timing_distance_is_zero_at_the_target_and_grows_away_from_it():
    target = np.zeros((1, 4, 5))
    target[0, 0, 1] = 1
    far = decoded("complex_timing_distance", target, time_window=20.0)
    assert far[0] < 0.2 * far[2]  # 0.75 ms from its target, against a spike that has none
    assert far[3] == 0
    with pytest.raises(InputError, match="call it with target spikes"):
        decoded("complex_timing_distance")


def test_the_target_of_spike_conv_is_smoothed_as_the_record_is():
    with Network() as net:
        source = Encoder(num=2, coding_method="null")
        cell = NeuronGroup(2, model="null")
        Connection(source, cell, link_type="one_to_one", weight=np.eye(2))
        out = Decoder(dec_target=cell, coding_method="spike_conv")
    net.build(strategy=1)
    train = (np.random.default_rng(0).random((3, 20, 2)) < 0.3).astype(np.float32)
    net.source(train)
    out(train.transpose(0, 2, 1))
    net.run(2.0)
    torch.testing.assert_close(out.predict, out.expected)
    assert out.expected.abs().sum() > 0


@pytest.mark.parametrize(("model", "var"), [("slif", "T"), ("selif", "S")])
def test_all_engines_agree_on_exact_times_and_their_gradients(model, var):
    random = np.random.default_rng(0)
    weights = random.normal(0.5, 0.5, (6, 5)), random.normal(0.5, 0.5, (4, 6))
    data = (random.random((3, 25, 5)) < 0.5).astype(float)
    made = []
    for engine in ("step", "scan"):
        with Network(dtype=torch.float64) as net:
            source = Encoder(num=5, coding_method="null")
            hidden = NeuronGroup(6, model=model, tau_m=9.0)
            last = NeuronGroup(4, model=model, tau_m=9.0)
            first = Connection(source, hidden, weight=weights[0])
            second = Connection(hidden, last, weight=weights[1], pre_var_name="S")
            out = Decoder(dec_target=last, coding_method="null", coding_var_name=var)
            learner = Learner(algorithm="true")
        learner.trainable = [net]
        net.set_backend_dt(1.0)
        net.build(strategy=1, engine=engine)
        net.source(data)
        net.run(25.0)
        (out.predict * torch.arange(1.0, 5.0) ** 2).sum().backward()
        assert net.engine_note.startswith(engine)
        made.append((out.predict.detach(), first.weight.grad, second.weight.grad))
    assert made[0][0].gt(0).sum() > 5
    for one, two in zip(*made, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_selif_of_equal_times_has_the_alpha_function():
    for other, expected in (
        (9.0, lambda t: t / 9 * np.exp(1 - t / 9)),
        (4.5, lambda t: 4 * (np.exp(-t / 9) - np.exp(-t / 4.5))),
    ):
        with Network(dtype=torch.float64) as net:
            source = Encoder(num=1, coding_method="null")
            cell = NeuronGroup(1, model="selif", tau_m=9.0, tau_s=other)
            Connection(source, cell, weight=[[0.9]])
            seen = StateMonitor(cell, "V")
        net.build(strategy=1)
        net.source(np.eye(1, 300)[:, :, None])
        net.run(30.0)
        t = 0.1 * np.arange(300)
        np.testing.assert_allclose(seen.values[0, 0], 0.9 * expected(t), atol=1e-12)
