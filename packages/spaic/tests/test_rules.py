"""STDP rules, with and without reward, against loops over samples, neurons and steps."""

import math

import numpy as np
import pytest
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic import Connection, Encoder, Learner, Network, NeuronGroup, NeuronModel, Reward

LISTENS = NeuronModel(name="given", inputs=("Isyn", "unheard"), step="O = Isyn + 0 * unheard")
STEPS, BATCH, PRE, POST = 25, 2, 4, 3


def spikes(size, seed, share=0.3):
    return (np.random.default_rng(seed).random((BATCH, STEPS, size)) < share).astype(float)


def learned(algorithm, start, reward=None, size=POST, model=LISTENS, y=None, **options):
    """Trains one link between groups of given spikes."""
    x = spikes(PRE, 0)
    y = spikes(size, 1) if y is None else y
    with Network(dtype=torch.float64) as net:
        left = Encoder(num=PRE, coding_method="null")
        right = Encoder(num=size, coding_method="null")
        pre = NeuronGroup(PRE, model="null")
        post = NeuronGroup(size, model=model)
        Connection(left, pre, link_type="one_to_one", weight=np.eye(PRE))
        Connection(right, post, link_type="one_to_one", weight=np.eye(size))
        link = Connection(pre, post, weight=start, post_var_name="unheard")
        learner = Learner(trainable=[link], algorithm=algorithm, **options)
        if reward is not None:
            Reward(dec_target=post, coding_method="environment_reward", name="signal")
    if reward is not None:
        net.signal(np.asarray(reward))
    net.build(strategy=1)
    net.left(x)
    net.right(y)
    net.run(STEPS * 0.1)
    assert learner.rule is not None
    return link.weight.detach().numpy(), x, y, net


def before(train, k):
    return train[:, k - 1] if k else np.zeros_like(train[:, 0])


def start_weights(low=0.3, high=0.6):
    return np.random.default_rng(2).uniform(low, high, (POST, PRE))


@pytest.mark.parametrize("reward", [0.5, -0.5])
def test_switched_signs_follow_the_reward(reward):
    w = start_weights(0.02, 0.08)
    found, x, y, _ = learned("switch_rstdp", w, [reward])
    d, sign = math.exp(-1 / 20), np.sign(reward)
    tx, ty, pending = np.zeros((BATCH, PRE)), np.zeros((BATCH, POST)), 0.0
    for k in range(STEPS):
        a, b = before(x, k), before(y, k)
        tx, ty = a + (1 - a) * tx * d, b + (1 - b) * ty * d
        w = np.clip(w + pending, 0, 0.1)
        pending = sign * (5e-3 * b.T @ tx - 4e-3 * ty.T @ a) / BATCH
    np.testing.assert_allclose(found, w, rtol=1e-9)


@pytest.mark.parametrize("trace", [False, True])
def test_fed_back_rewards_move_weights_by_their_projection(trace):
    """Ten target neurons and ten rewards: the feedback is the identity (section 10.3)."""
    reward = np.random.default_rng(5).normal(size=10)
    w = np.random.default_rng(2).uniform(0.3, 0.6, (10, PRE))
    name = "bp_rstdpet" if trace else "bp_rstdp"
    found, x, y, _ = learned(name, w, reward, size=10)
    pre, post = (math.exp(-0.1 / tau) for tau in ((4, 10) if trace else (5, 12)))
    tx, ty, et, pending = np.zeros((BATCH, PRE)), np.zeros((BATCH, 10)), 0.0, 0.0
    for k in range(STEPS):
        a, b = before(x, k), before(y, k)
        tx, ty = pre * tx + (1 - pre) * a, post * ty + (1 - post) * b
        pairs = (b.T @ tx - 0.4 * ty.T @ a) / BATCH
        et = (math.exp(-0.1 / 5) * et if trace else 0.0) + pairs
        w = w + pending
        pending = 0.1 * reward[:, None] * et - 0.01 * (ty - 0.1).T @ tx / BATCH
    np.testing.assert_allclose(found, w, rtol=1e-9)


def test_inhibition_grows_where_a_neuron_fires_more_than_its_rate():
    w = -start_weights()
    found, x, y, _ = learned("inhibitory_stdp", w, lr=0.05, rate=0.01)
    size, d = -w, math.exp(-0.1 / 20)
    tx, ty = np.zeros((BATCH, PRE)), np.zeros((BATCH, POST))
    for k in range(STEPS):
        tx, ty = tx * d, ty * d
        a, b = x[:, k], y[:, k]
        size = size + 0.05 * (b.T @ tx + (ty - 2 * 0.01 * 20).T @ a)
        size = np.clip(size, 0, 1)
        tx, ty = tx + a, ty + b
    assert np.abs(size + w).max() > 0.05
    np.testing.assert_allclose(found, -size, rtol=1e-9)


@pytest.mark.parametrize(("mu_plus", "mu_minus"), [(0.0, 0.0), (1.0, 1.0), (0.4, 0.4)])
@pytest.mark.parametrize("nearest", [False, True])
def test_pair_stdp_has_power_law_bounds_and_may_pair_with_the_latest_spike_only(
    nearest, mu_plus, mu_minus
):
    w = start_weights()
    options = {"lr": 0.02, "alpha": 1.1, "w_max": 2.0, "nearest": nearest}
    found, x, y, _ = learned("stdp", w, mu_plus=mu_plus, mu_minus=mu_minus, **options)
    w, d = w.copy(), math.exp(-0.1 / 20)
    tx, ty = np.zeros((BATCH, PRE)), np.zeros((BATCH, POST))
    for k in range(STEPS):
        tx, ty = tx * d, ty * d
        rise, fall = np.zeros_like(w), np.zeros_like(w)
        for s in range(BATCH):
            for i in range(POST):
                for j in range(PRE):
                    share = w[i, j] / 2.0
                    rise[i, j] += y[s, k, i] * 0.02 * 2.0 * (1 - share) ** mu_plus * tx[s, j]
                    fall[i, j] += x[s, k, j] * 0.02 * 1.1 * 2.0 * share**mu_minus * ty[s, i]
        w = np.clip(w + rise - fall, 0, 2.0)
        for trace, now in ((tx, x[:, k]), (ty, y[:, k])):
            if nearest:
                trace[now > 0] = 0
            trace += now
    np.testing.assert_allclose(found, w, rtol=1e-9)


def test_the_rule_of_integers_rounds_at_random_and_halves_rows_above_the_highest_threshold():
    held = NeuronModel(
        name="held",
        inputs=("Isyn", "unheard"),
        states={"th": 0.0},
        step="O = Isyn + 0 * unheard\nth = th + 4000 * O",
    )
    w = np.full((POST, PRE), 50.0)
    y = np.zeros((BATCH, STEPS, POST))
    y[:, 3, 0] = 1  # one spike: its threshold stays below 4915
    y[:, 3, 1] = y[:, 4, 1] = 1  # two: 8000, so that its row is halved at every further step
    found, x, y, _ = learned("postpreintstdp", w, model=held, y=y)
    assert np.all(found == np.round(found))
    assert found.min() >= 0
    assert found.max() <= 109
    assert found[1].max() < 2
    # A target spike adds 141·tx/2^14 of the source's trace, rounded to a neighbour.
    tx, low, high = np.zeros((BATCH, PRE)), np.full(PRE, 50.0), np.full(PRE, 50.0)
    ty = np.zeros((BATCH, POST))
    for k in range(STEPS):
        tx, ty = np.floor(31169 * tx / 32768), np.floor(31169 * ty / 32768)
        tx[x[:, k] > 0], ty[y[:, k] > 0] = 127, 127
        for s in range(BATCH):
            change = x[s, k] * 14 * ty[s, 0] / 16384
            low, high = low + np.floor(change), high + np.ceil(change)
            change = y[s, k, 0] * 141 * tx[s] / 16384
            low, high = low + np.floor(change), high + np.ceil(change)
    assert np.all((low <= found[0]) & (found[0] <= high))
    assert found[0].max() > 50


@pytest.mark.parametrize("reward", [0.6])
def test_rewarded_stdp_of_a_convolution_equals_a_loop_over_patches(reward):
    random = np.random.default_rng(3)
    x = (random.random((1, 6, 1, 4, 4)) < 0.4).astype(float)
    y = (random.random((1, 6, 2, 2, 2)) < 0.4).astype(float)
    with Network(dtype=torch.float64) as net:
        left = Encoder(shape=(1, 4, 4), coding_method="null")
        right = Encoder(shape=(2, 2, 2), coding_method="null")
        post = NeuronGroup(shape=(2, 2, 2), model=LISTENS)
        Connection(right, post, link_type="one_to_one", weight=np.eye(8))
        start = random.random((2, 1, 3, 3))
        link = Connection(left, post, link_type="conv", weight=start, post_var_name="unheard")
        Learner(trainable=[link], algorithm="conv2d_rstdp", lr=0.1, tau_plus=15.0)
        signal = Reward(dec_target=post, coding_method="environment_reward")
    signal(reward)
    net.build(strategy=1)
    net.left(x)
    net.right(y)
    net.run(0.6)
    plus, minus, w = math.exp(-0.1 / 15), math.exp(-0.1 / 20), start.copy()
    tx, ty, eligible = np.zeros((4, 4)), np.zeros((2, 2, 2)), 0.0
    for k in range(6):
        a, b = before(x, k)[0, 0], before(y, k)[0]
        w = w + 0.1 * reward * eligible
        tx, ty = tx * plus + a, ty * minus + b  # they add up spikes, as those of rstdp
        eligible = np.zeros_like(w)
        for o in range(2):
            for r in range(2):
                for c in range(2):
                    patch = (slice(r, r + 3), slice(c, c + 3))
                    eligible[o, 0] += b[o, r, c] * tx[patch] - ty[o, r, c] * a[patch]
    np.testing.assert_allclose(link.weight.detach().numpy(), w, rtol=1e-9)


def test_rules_refuse_what_does_not_fit():
    with pytest.raises(InputError, match="the reward has 2 values; expected 1 or 3"):
        learned("rstdp", start_weights(), [0.1, 0.2])
    with Network() as net:
        one, two = NeuronGroup(4), NeuronGroup(3)
        link = Connection(one, two, link_type="sparse_sparse", density=0.5)
        Learner(trainable=[link], algorithm="force")
    net.build()
    with pytest.raises(InputError, match="force needs a whole matrix of weights, and Connection"):
        net.run(1.0)
    with Network() as net:
        one, two = NeuronGroup(4), NeuronGroup(3)
        link = Connection(one, two, link_type="spike2mass")
        Learner(trainable=[link], algorithm="stdp")
    net.build()
    with pytest.raises(InputError, match="stdp does not fit Connection link"):
        net.run(1.0)
    with Network() as net:
        one, two = NeuronGroup(4), NeuronGroup(3)
        link = Connection(one, two)
        Learner(trainable=[link], algorithm="rstdp")
    net.build()
    with pytest.raises(InputError, match="rstdp needs a reward, and the network has 0"):
        net.run(1.0)
