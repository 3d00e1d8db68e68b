"""Delays of section 7: one for all synapses on every link; what a link cannot do it refuses."""

import math

import numpy as np
import pytest
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic import Connection, Encoder, Network, NeuronGroup, StateMonitor

IMAGE, FLAT = (1, 4, 4), (6,)
LINKS = {
    "full": (FLAT, (5,), {}),
    "bernoulli": (FLAT, (5,), {"p": 0.5}),
    "all_to_all": (FLAT, (5,), {}),
    "null": (FLAT, FLAT, {}),
    "spike2mass": (FLAT, (5,), {"w_mean": 1.0}),
    "mass2spike": (FLAT, (5,), {"unit_conversion": 1e9}),  # every pair, at each step
    "complex_attention": (FLAT, (4,), {}),
    "conv": (IMAGE, (2, 2, 2), {"out_channels": 2}),
    "conv_transpose": (IMAGE, (2, 6, 6), {"out_channels": 2}),
    "pool": (IMAGE, (1, 2, 2), {}),
    "continuous_local": (IMAGE, (1, 2, 2), {}),
}


def passed(kind, x, dt=0.5, dtype=torch.float64, compat=None, **given):
    pre, post, options = LINKS.get(kind, (FLAT, (5,), {}))
    with Network(dtype=dtype, compat=compat) as net:
        source = Encoder(shape=pre, coding_method="null")
        cell = NeuronGroup(shape=post, model="null")
        link = Connection(source, cell, link_type=kind, **options, **given)
        seen = StateMonitor(cell, "O")
    net.set_backend_dt(dt)
    net.build(strategy=1)
    net.source(x)
    net.run(x.shape[1] * dt)
    return link, seen.values


@pytest.mark.parametrize("kind", LINKS)
def test_one_delay_for_all_works_on_every_link(kind):
    shape = LINKS[kind][0]
    x = np.random.default_rng(0).random((2, 9, *shape))
    _, now = passed(kind, x)
    _, late = passed(kind, x, delay=1.5)
    assert np.abs(now).max() > 0
    assert np.all(late[..., :3] == 0)
    np.testing.assert_allclose(late[..., 3:], now[..., :-3], rtol=1e-12)


@pytest.mark.parametrize("kind", ["null", "spike2mass", "mass2spike", "conv", "pool"])
def test_delays_of_single_synapses_are_refused_where_there_are_no_pairs(kind):
    x = np.zeros((1, 3, *LINKS[kind][0]))
    for given in ({"max_delay": 1.5}, {"delay": np.ones((5, 6))}):
        with pytest.raises(InputError, match=rf"a {kind} link with .* give one for all, delay="):
            passed(kind, x, **given)


def test_electrical_synapses_and_links_without_weights_take_no_delay_and_no_bias():
    one, two = NeuronGroup(3), NeuronGroup(3)
    with pytest.raises(InputError, match="an electrical synapse acts at once"):
        Connection(one, two, syn_type="electrical", delay=1.0)
    with pytest.raises(InputError, match="a full link with electrical adds no bias"):
        Connection(one, two, syn_type="electrical", bias=0.5)
    with pytest.raises(InputError, match="a null link with directpass adds no bias"):
        Connection(one, two, link_type="null", bias=np.ones(3))


def test_a_link_of_random_spikes_adds_its_bias():
    _, found = passed("mass2spike", np.zeros((1, 2, 6)), bias=np.arange(5.0))
    np.testing.assert_array_equal(found[0, :, 0], np.arange(5.0))


@pytest.mark.parametrize("compat", [None, "spaic"])
def test_a_rotating_synapse_gives_its_kernel(compat):
    x = np.zeros((1, 60, 6))
    x[0, 0] = 1.0
    weight = np.random.default_rng(1).random((5, 6))
    _, found = passed(
        "full",
        x,
        weight=weight,
        syn_type="delay_complex_synapse",
        delay=np.full((5, 6), 2.25),
        syn_kwargs={"tau": 10.0, "rot_k": 6.0, "max_delay": 5.0},
        compat=compat,
    )
    t = np.arange(60) * 0.5 - 2.25
    expected = np.where(t > 0, np.exp(-t / 10) / 10 * np.sin(math.pi * t / 60), 0)
    if compat == "spaic":  # what arrives in the middle of a step decays from its end on
        expected *= math.exp(0.25 / 10)
    np.testing.assert_allclose(found[0], weight.sum(1)[:, None] * expected, rtol=1e-9, atol=1e-15)


def test_compatible_delays_end_at_the_longest():
    def arrival(compat):
        with Network(compat=compat) as net:
            source = Encoder(num=1, coding_method="null")
            target = NeuronGroup(1, model="null")
            Connection(
                source, target, weight=np.ones((1, 1)), max_delay=3.0, delay=np.array([[7.0]])
            )
            seen = StateMonitor(target, "O")
        net.set_backend_dt(1.0)
        net.build(strategy=1)
        pulse = np.zeros((1, 10, 1))
        pulse[0, 0] = 1
        source(pulse)
        net.run(10.0)
        return seen.values[0, 0].argmax()

    assert arrival("spaic") == 3
    assert arrival(None) == 7
