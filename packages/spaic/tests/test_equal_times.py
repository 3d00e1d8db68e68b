"""Kernels of two exponentials whose times are equal: the alpha function (section 22)."""

import math

import numpy as np
import pytest
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic import (
    Connection,
    Encoder,
    Learner,
    Network,
    NeuronGroup,
    NeuronModel,
    StateMonitor,
)
from tenfold.spaic.network.learners import double_exponential, peak_time

HEARS = NeuronModel(name="given", inputs=("Isyn", "unheard"), step="O = Isyn + 0 * unheard")
T = np.arange(40) * 0.1


def test_the_kernel_is_the_difference_and_its_limit():
    t = np.linspace(0, 60, 601)
    plain = (np.exp(-t / 20) - np.exp(-t / 5)) / 15
    found = double_exponential(torch.as_tensor(t), 20.0, 5.0)
    np.testing.assert_allclose(found, plain, rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(
        double_exponential(torch.as_tensor(t), 5.0, 20.0), plain, rtol=1e-12, atol=1e-16
    )
    assert peak_time(20.0, 5.0) == pytest.approx(9.2420, abs=1e-4)  # section 10.4
    peak = 15 * double_exponential(peak_time(20.0, 5.0), 20.0, 5.0)
    assert 1 / peak == pytest.approx(2.1165347, abs=1e-7)
    np.testing.assert_allclose(
        double_exponential(torch.as_tensor(t), 10.0, 10.0), t / 100 * np.exp(-t / 10), rtol=1e-13
    )
    assert peak_time(10.0, 10.0) == 10.0
    for near in (1e-6, -1e-6, 1e-9):  # no digits are lost beside the limit
        made = double_exponential(7.0, 10.0, 10.0 * (1 + near))
        assert made == pytest.approx(0.07 * math.exp(-0.7), rel=1.1 * abs(near) + 1e-14)
        assert peak_time(10.0, 10.0 * (1 + near)) == pytest.approx(10.0, rel=abs(near))
    with pytest.raises(InputError, match=r"tau=0\.0, tau_s=5\.0; expected times > 0 ms"):
        double_exponential(1.0, 0.0, 5.0)


def trained(algorithm, target, tau, tau_s, **options):
    """Trains one link of 3 sources and 2 targets that do not spike."""
    x = np.zeros((1, 40, 3))
    x[0, 3, 0] = x[0, 12, 1] = x[0, 20, 2] = x[0, 25, 0] = 1
    start = np.array([[30.0, 20.0, 25.0], [1.0, 2.0, 1.5]]) * options.pop("size", 0.1)
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=3, coding_method="null")
        pre = NeuronGroup(3, model="null")
        post = NeuronGroup(2, model=HEARS)
        Connection(source, pre, link_type="one_to_one", weight=np.eye(3))
        link = Connection(pre, post, weight=start, post_var_name="unheard")
        learner = Learner(link, algorithm=algorithm, tau=tau, tau_s=tau_s, **options)
    net.build(strategy=1)
    learner.teach(target)
    net.source(x)
    net.run(4.0)
    return start, link.weight.detach().numpy(), x


AIM = (np.random.default_rng(0).random((1, 2, 40)) < 0.3).astype(float)
CASES = {
    "psd": {"target": AIM},
    "tempotron": {"target": [[0.0, 1.0]], "theta": 0.5},
    "spikeprop": {"target": [[3.0, 3.5]], "theta": 0.4, "size": 1.0},
}


@pytest.mark.parametrize("algorithm", CASES)
@pytest.mark.parametrize("near", [1e-6, -1e-6])
def test_rules_tend_to_what_they_are_of_equal_times(algorithm, near):
    start, exact, _ = trained(algorithm, tau=4.0, tau_s=4.0, **CASES[algorithm])
    _, close, _ = trained(algorithm, tau=4.0, tau_s=4.0 * (1 + near), **CASES[algorithm])
    assert np.abs(exact - start).max() > 1e-3
    np.testing.assert_allclose(close - start, exact - start, rtol=1e-4, atol=1e-12)


def test_exact_integration_of_equal_times_is_the_limit_of_nest():
    """V of `iaf_psc_exp` after one current of 1 pA: t/C e^{−t/τ} (section 19)."""
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=1, coding_method="null")
        cell = NeuronGroup(1, model="iaf_psc_exp", tau_m=5.0, tau_e=5.0, C=250.0, EL=0.0, v_th=9.0)
        Connection(source, cell, weight=[[1.0]], post_var_name="ge")
        trace = StateMonitor(cell, "V")
    net.build(strategy=1)
    net.source(np.eye(1, 100)[0][None, :, None])
    net.run(10.0)
    t = np.arange(100) * 0.1
    np.testing.assert_allclose(trace.values[0, 0], t / 250 * np.exp(-t / 5), rtol=1e-9, atol=1e-15)


def test_a_second_order_synapse_of_equal_times_passes_nothing_and_is_refused():
    one, two = NeuronGroup(1), NeuronGroup(1)
    with pytest.raises(InputError, match=r"tau_r=tau_d=2: its current is zero; .*alpha_synapse"):
        Connection(one, two, syn_type=["basic", "2_order_synapse"], syn_kwargs={"tau_r": 2.0})


def alpha(lag, tau):
    """(t/τ) e^{1−t/τ}, whose peak is 1."""
    return np.where(lag > 0, lag / tau * np.exp(1 - lag / tau), 0)


def test_psd_of_equal_times_sees_alpha_functions_of_peak_one():
    assert alpha(np.array([4.0]), 4.0) == 1
    start, found, x = trained("psd", AIM, 4.0, 4.0, lr=0.02)
    seen = np.einsum("ts,sj->tj", alpha(T[:, None] - T[None], 4.0), x[0])
    np.testing.assert_allclose(found - start, 0.02 * AIM[0] @ seen, rtol=1e-9)


def test_the_tempotron_of_equal_times_learns_at_its_highest_potential():
    start, found, x = trained("tempotron", [[0.0, 1.0]], 4.0, 4.0, theta=0.5, lr=0.02)
    seen = np.einsum("ts,sj->tj", alpha(T[:, None] - T[None], 4.0), x[0])
    v = seen @ start.T
    for neuron, error in ((0, -1), (1, 1)):
        best = v[:, neuron].argmax()
        assert (v[best, neuron] > 0.5) == (error == -1)
        np.testing.assert_allclose(
            found[neuron] - start[neuron], 0.02 * error * seen[best], rtol=1e-9
        )


def test_spikeprop_of_equal_times_follows_the_gradient_of_the_spike_time():
    theta, aim = 0.4, 3.0
    start, found, x = trained("spikeprop", [[aim, np.nan]], 4.0, 4.0, theta=theta, lr=0.5, size=1.0)
    steps, sources = np.nonzero(x[0])
    times = (steps + 1) * 0.1

    def crossing(row):
        lag = lambda t: np.maximum(t - times, 0)  # noqa: E731
        v = lambda t: row[sources] @ (lag(t) / 16 * np.exp(-lag(t) / 4)) - theta  # noqa: E731
        low, high = 0.0, next(t for t in np.linspace(0, 4, 401) if v(t) > 0)
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if v(middle) > 0 else (middle, high)
        return high

    late = crossing(start[0]) - aim
    slope = [
        (crossing(start[0] + step) - crossing(start[0] - step)) / 2e-4 for step in 1e-4 * np.eye(3)
    ]
    assert min(slope) < 0
    np.testing.assert_allclose(found[0] - start[0], -0.5 * late * np.array(slope), rtol=1e-5)
    np.testing.assert_array_equal(found[1], start[1])


def test_selif_of_equal_times_has_the_peak_of_its_weight():
    def potential(tau_s):
        with Network(dtype=torch.float64) as net:
            source = Encoder(num=1, coding_method="null")
            cell = NeuronGroup(1, model="selif", tau_m=6.0, tau_s=tau_s)
            Connection(source, cell, weight=[[0.8]])
            trace = StateMonitor(cell, "V")
        net.build(strategy=1)
        net.source(np.eye(1, 200)[0][None, :, None])
        net.run(20.0)
        return trace.values[0, 0]

    exact = potential(6.0)
    t = np.arange(200) * 0.1
    np.testing.assert_allclose(exact, 0.8 * alpha(t, 6.0), rtol=1e-9, atol=1e-12)
    assert exact.max() == pytest.approx(0.8, abs=1e-12)
    for near in (1e-6, -1e-6):
        np.testing.assert_allclose(potential(6.0 * (1 + near)), exact, rtol=1e-5, atol=1e-9)
