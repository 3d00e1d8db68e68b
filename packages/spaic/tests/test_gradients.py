"""Surrogate gradients against an autograd loop written out here, and the learning rules."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic import (
    Connection,
    Decoder,
    Encoder,
    Learner,
    Network,
    NeuronGroup,
    NeuronModel,
    Reward,
    StateMonitor,
)
from tenfold.spaic.network.learners import SURROGATES

STEPS, BATCH, SIZES = 25, 4, (6, 5, 3)


def weights(seed=0, scale=0.6):
    random = np.random.default_rng(seed)
    return [random.normal(0.15, scale, (n, m)) for m, n in pairwise(SIZES)]


def data(seed=1):
    return np.random.default_rng(seed).random((BATCH, STEPS, SIZES[0])) < 0.4


def network(model, algorithm, strategy=1, engine="step", **options):
    w1, w2 = weights()
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=SIZES[0], coding_method="null")
        hidden = NeuronGroup(SIZES[1], model=model)
        output = NeuronGroup(SIZES[2], model=model)
        first = Connection(source, hidden, weight=w1)
        second = Connection(hidden, output, weight=w2)
        counts = Decoder(dec_target=output, num=SIZES[2], coding_method="spike_counts")
        learner = Learner(algorithm=algorithm, **options)
    learner.trainable = [net]
    net.set_backend_dt(1.0)
    net.build(strategy=strategy, engine=engine)
    net.source(data().astype(float))
    return net, (first, second), counts


class Reference(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, slope):
        ctx.save_for_backward(u)
        ctx.slope = slope
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.slope(ctx.saved_tensors[0]), None


SLOPES = {
    "stca": lambda u: (u.abs() < 0.5).to(u.dtype),
    "stbp": lambda u: torch.exp(-(u**2) / (2 * 0.5)) / (2 * math.pi * 0.5),
    "sbp": lambda u: (2 / 2) / (1 + (math.pi / 2 * 2 * u) ** 2),
}


def reference(model, algorithm, strategy):
    """The loop of the field, in plain torch."""
    slope = SLOPES[algorithm]
    ws = [torch.tensor(w, requires_grad=True) for w in weights()]
    gains = [torch.tensor(6.75, dtype=torch.float64, requires_grad=True) for _ in ws]
    x = torch.tensor(data().astype(float))
    states = [{key: torch.zeros(BATCH, n, dtype=x.dtype) for key in "VMSE"} for n in SIZES[1:]]
    outs = [torch.zeros(BATCH, n, dtype=x.dtype) for n in SIZES]
    total = 0
    for k in range(STEPS):
        seen = list(outs)
        outs[0] = x[:, k]
        for layer, (w, gain, s) in enumerate(zip(ws, gains, states, strict=True)):
            given = (outs if strategy == 1 else seen)[layer] @ w.T
            if model == "lif":
                u = math.exp(-1 / 8) * s["V"] + given
                o = Reference.apply(u - 1, slope)
                s["V"] = u * (o == 0)
            else:
                j = gain * given
                s["M"] = math.exp(-1 / 12) * s["M"] + j
                s["S"] = math.exp(-1 / 8) * s["S"] + j
                v = s["M"] - s["S"] - s["E"]
                o = Reference.apply(v - 1, slope)
                s["E"] = math.exp(-1 / 20) * s["E"] + o
            outs[layer + 1] = o
        total = total + outs[-1]
    return total, ws, gains


@pytest.mark.parametrize("strategy", [0, 1])
@pytest.mark.parametrize("algorithm", ["stca", "stbp", "sbp"])
@pytest.mark.parametrize("model", ["lif", "clif"])
@pytest.mark.parametrize("engine", ["step", "scan"])
def test_gradients_equal_an_independent_loop(model, algorithm, strategy, engine):
    net, links, counts = network(model, algorithm, strategy, engine)
    net.run(STEPS)
    expected, ws, gains = reference(model, algorithm, strategy)
    assert torch.equal(counts.predict, expected)
    assert expected.sum() > 0
    aim = torch.linspace(-1, 1, SIZES[2], dtype=torch.float64)
    ((counts.predict - 2) ** 2 @ aim).sum().backward()
    ((expected - 2) ** 2 @ aim).sum().backward()
    for link, w in zip(links, ws, strict=True):
        scale = w.grad.abs().max()
        assert scale > 0
        assert (link.weight.grad - w.grad).abs().max() / scale < 1e-6
    if model == "clif":
        for link, gain in zip(links, gains, strict=True):
            found = link.post.trainables["V0"].grad
            assert found.item() == pytest.approx(gain.grad.item(), rel=1e-6)


@pytest.mark.parametrize("name", sorted(SURROGATES))
def test_a_surrogate_is_even_or_one_sided_and_never_negative(name):
    u = torch.linspace(-3, 3, 61, dtype=torch.float64)
    slope = SURROGATES[name].slope(u)
    assert bool((slope >= 0).all()) or name == "MultiGaussian"  # which is negative aside
    if name not in ("ReLUGrad", "true"):
        torch.testing.assert_close(slope, slope.flip(0))


def test_bell_shaped_surrogates_are_derivatives_of_steps():
    u = torch.linspace(-40, 40, 80001, dtype=torch.float64)
    for name in ("Erf", "Gaussian", "PiecewiseExponential", "Triangle"):
        assert torch.trapezoid(SURROGATES[name].slope(u), u).item() == pytest.approx(1, abs=1e-6)
    # 1.15 bells of area one less two of 0.15
    multi = SURROGATES["MultiGaussian"].slope(u)
    assert torch.trapezoid(multi, u).item() == pytest.approx(0.85, abs=1e-6)
    peak = 1.15 / 0.5 - 2 * 0.15 / 3 * math.exp(-(0.5**2) / (2 * 3**2))
    assert multi.max().item() == pytest.approx(peak / math.sqrt(2 * math.pi), rel=1e-6)


LISTENS = NeuronModel(name="given", inputs=("Isyn", "unheard"), step="O = Isyn + 0 * unheard")


def learned(algorithm, reward=None, compat="spaic", scale=1.0, **options):
    """Trains one link on given spikes of both sides; returns its weights and all that went in."""
    random = np.random.default_rng(0)
    x = (random.random((2, 30, 4)) < 0.3).astype(float)
    y = (random.random((2, 30, 3)) < 0.3).astype(float)
    start = scale * (random.random((3, 4)) * 0.1 + 0.4)
    with Network(compat=compat, dtype=torch.float64) as net:
        left = Encoder(num=4, coding_method="null")
        right = Encoder(num=3, coding_method="null")
        pre = NeuronGroup(4, model="null")
        post = NeuronGroup(3, model=LISTENS)
        Connection(left, pre, link_type="one_to_one", weight=np.eye(4))
        Connection(right, post, link_type="one_to_one", weight=np.eye(3))
        link = Connection(pre, post, weight=start, post_var_name="unheard")
        learner = Learner(trainable=[link], algorithm=algorithm, **options)
        if reward is not None:
            Reward(dec_target=post, num=3, coding_method="environment_reward", name="signal")
    if reward is not None:
        net.signal(np.asarray(reward, dtype=float))
    net.build(strategy=1)
    net.left(x)
    net.right(y)
    if learner.rule.needs_target:
        aim = (random.random((2, 3, 30)) < 0.2).astype(float)
        learner.teach(aim if algorithm != "tempotron" else aim[..., 0])
        net.run(3.0)
        return start, link.weight.detach().numpy(), x, y, aim
    net.run(3.0)
    return start, link.weight.detach().numpy(), x, y


@pytest.mark.parametrize(("full", "compat"), [(False, "spaic"), (True, None), (True, "spaic")])
def test_online_stdp_sees_the_step_before_and_changes_the_step_after(full, compat):
    name = "full_online_stdp" if full else "nearest_online_stdp"
    w, found, x, y = learned(name, norm=1.5, compat=compat)
    d = math.exp(-1 / 20)
    tx, ty, pending = np.zeros((2, 4)), np.zeros((2, 3)), np.zeros((3, 4))
    for k in range(30):
        a = x[:, k - 1] if k else np.zeros((2, 4))
        b = y[:, k - 1] if k else np.zeros((2, 3))
        tx = tx * d + a if full else a + (1 - a) * tx * d
        ty = ty * d + b if full else b + (1 - b) * ty * d
        w = w + pending
        pending = 1e-2 * b.T @ tx - 1e-4 * ty.T @ a
        # Officially the last step is that of the run at the build: 10 steps before the first.
        if not full or k >= (29 if compat is None else 9):
            w = w * 1.5 / np.abs(w).sum(1, keepdims=True)
        w = np.clip(w, 0, 1)
    np.testing.assert_allclose(found, w, rtol=1e-6)


@pytest.mark.parametrize(("build", "first"), [(False, 19), (True, 9)])
def test_official_rows_are_scaled_from_the_last_step_of_the_run_at_the_build_on(build, first):
    with Network(compat="spaic", dtype=torch.float64) as net:
        source = Encoder(num=4, coding_method="poisson")
        cell = NeuronGroup(3, model="lif", tau_m=4.0)
        link = Connection(source, cell, weight=np.full((3, 4), 0.6))
        Learner(link, algorithm="full_online_stdp", norm=1.5)
        seen = StateMonitor(link, "weight")
    if build:
        net.build()
    net.source(np.full((1, 4), 4.0))
    for steps in (20, 40):
        net.run(0.1 * steps)
        sums = seen.values[0].sum(1)  # [post, steps]
        np.testing.assert_allclose(sums[:, first:], 1.5, rtol=1e-12)
        assert np.all(np.abs(sums[:, 4:first] - 1.5) > 1e-4)


@pytest.mark.parametrize("reward", [[0.7], [0.5, -1.0, 2.0]])
@pytest.mark.parametrize("trace", [False, True])
def test_rewarded_stdp_uses_the_eligibility_of_the_step_before(trace, reward):
    w, found, x, y = learned("rstdpet" if trace else "rstdp", reward, lr=0.01)
    plus, minus, before = np.zeros((2, 4)), np.zeros((2, 3)), np.zeros((3, 4))
    d = math.exp(-0.1 / 20)
    gain = np.reshape(reward, (-1, 1))
    for k in range(30):
        a = x[:, k - 1] if k else np.zeros((2, 4))
        b = y[:, k - 1] if k else np.zeros((2, 3))
        w = w + 0.01 * (0.1 if trace else 1) * gain * before
        plus, minus = d * plus + a, d * minus - b
        zeta = b.T @ plus + minus.T @ a
        before = math.exp(-0.1 / 25) * before + 0.1 / 25 * zeta if trace else zeta
    np.testing.assert_allclose(found, w, rtol=1e-6)


def events(spikes):
    return [np.flatnonzero(row) for row in spikes.T]


def test_pair_stdp_equals_a_sum_over_all_pairs_of_spikes():
    options = {"lr": 1e-3, "mu_plus": 0.0, "mu_minus": 0.0, "alpha": 1.2}
    w, found, x, y = learned("stdp", **options)
    change = np.zeros_like(w)
    for sample in range(2):
        before, after = events(x[sample]), events(y[sample])
        for i, posts in enumerate(after):
            for j, pres in enumerate(before):
                lag = (posts[:, None] - pres[None]) * 0.1
                change[i, j] += 1e-3 * np.exp(-lag[lag > 0] / 20).sum()
                change[i, j] -= 1.2e-3 * np.exp(lag[lag < 0] / 20).sum()
    np.testing.assert_allclose(found, w + change, rtol=1e-9)


def test_triplet_stdp_equals_its_event_form():
    w, found, x, y = learned("triplet_stdp", lr=0.05)
    tau = {"r1": 16.8, "r2": 101.0, "o1": 33.7, "o2": 125.0}
    state = {key: np.zeros((2, 4 if key[0] == "r" else 3)) for key in tau}
    for k in range(30):
        state = {key: value * math.exp(-0.1 / tau[key]) for key, value in state.items()}
        a, b = x[:, k], y[:, k]
        for s in range(2):
            for i in range(3):
                for j in range(4):
                    if a[s, j]:
                        w[i, j] -= 0.05 * state["o1"][s, i] * (7e-3 + 2.3e-4 * state["r2"][s, j])
                    if b[s, i]:
                        w[i, j] += 0.05 * state["r1"][s, j] * (5e-10 + 6.2e-3 * state["o2"][s, i])
        for key, seen in (("r1", a), ("r2", a), ("o1", b), ("o2", b)):
            state[key] = state[key] + seen
    np.testing.assert_allclose(found, w, rtol=1e-9)


def kernel(t, tau, tau_s=None):
    made = np.exp(-t / tau) - (np.exp(-t / tau_s) if tau_s else 0)
    return np.where(t >= 0, made, 0)


def kernel_scale(tau, tau_s):
    """V0 of the kernel V0 (e^{-t/tau} - e^{-t/tau_s}) whose peak is 1."""
    peak = tau * tau_s / (tau - tau_s) * math.log(tau / tau_s)
    return 1 / (math.exp(-peak / tau) - math.exp(-peak / tau_s))


@pytest.mark.parametrize("algorithm", ["resume", "psd", "span"])
def test_supervised_rules_equal_their_sums_over_spikes(algorithm):
    w, found, x, y, aim = learned(algorithm, lr=0.01)
    t = np.arange(30) * 0.1
    lag = t[:, None] - t[None]
    error = aim.transpose(0, 2, 1) - y  # [batch, steps, post]
    if algorithm == "resume":
        seen = 0.01 + np.einsum("ts,bsj->btj", kernel(lag, 10.0), x)
        change = 0.01 * np.einsum("bti,btj->ij", error, seen)
    elif algorithm == "psd":
        scale = kernel_scale(10.0, 2.5)
        seen = np.einsum("ts,bsj->btj", scale * kernel(lag, 10.0, 2.5), x)
        change = 0.01 * np.einsum("bti,btj->ij", error, seen)
    else:
        alpha = np.where(lag >= 0, lag / 5 * np.exp(1 - lag / 5), 0)
        smooth = np.einsum("ts,bsj->btj", alpha, x)
        wrong = np.einsum("ts,bsi->bti", alpha, error)
        change = 0.01 * 0.1 * np.einsum("bti,btj->ij", wrong, smooth)
    np.testing.assert_allclose(found, w + change, rtol=1e-7)


@pytest.mark.parametrize(("compat", "theta"), [(None, 0.5), ("spaic", 1.6)])
def test_the_tempotron_moves_weights_at_the_highest_potential(compat, theta):
    w, found, x, _, aim = learned("tempotron", compat=compat, lr=0.01, theta=theta)
    t = np.arange(30) * 0.1
    scale = kernel_scale(20, 5) if compat is None else 6.75
    psp = scale * np.einsum("ts,bsj->btj", kernel(t[:, None] - t[None], 20.0, 5.0), x)
    v = np.einsum("btj,ij->bti", psp, w)
    change = np.zeros_like(w)
    for b in range(2):
        for i in range(3):
            best = v[b, :, i].argmax()
            error = aim[b, i, 0] - (v[b, best, i] > theta)
            change[i] += 0.01 * error * psp[b, best]
    assert np.abs(change).max() > 0
    np.testing.assert_allclose(found, w + change, rtol=1e-7)


def test_the_official_tempotron_has_a_threshold_of_ten_and_weights_from_zero_to_two():
    w, found, x, _, aim = learned("tempotron", scale=0.58, lr=0.3)
    t = np.arange(30) * 0.1
    psp = 6.75 * np.einsum("ts,bsj->btj", kernel(t[:, None] - t[None], 20.0, 5.0), x)
    v = np.einsum("btj,ij->bti", psp, w)
    highest = v.max(1)
    assert highest.min() > 1  # the default threshold would be passed by all
    assert highest.min() < 10 < highest.max()
    error = aim[..., 0] - (highest > 10)
    best = v.argmax(1)
    change = sum(
        0.3 * error[b, i] * psp[b, best[b, i]] * np.eye(3)[i][:, None]
        for b in range(2)
        for i in range(3)
    )
    assert (w + change).min() < 0
    np.testing.assert_allclose(found, np.clip(w + change, 0, 2), rtol=1e-7)


def test_stdp_of_a_convolution_equals_a_loop_over_patches():
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
        Learner(trainable=[link], algorithm="conv2d_stdp", lr=0.1)
    net.build(strategy=1)
    net.left(x)
    net.right(y)
    net.run(0.6)
    d, w = math.exp(-0.1 / 20), start.copy()
    tx, ty, pending = np.zeros((4, 4)), np.zeros((2, 2, 2)), 0.0
    for k in range(6):
        a = x[0, k - 1, 0] if k else np.zeros((4, 4))
        b = y[0, k - 1] if k else np.zeros((2, 2, 2))
        w = w + pending
        tx, ty = a + (1 - a) * tx * d, b + (1 - b) * ty * d
        pending = np.zeros_like(w)
        for o in range(2):
            for r in range(2):
                for c in range(2):
                    patch = (slice(r, r + 3), slice(c, c + 3))
                    pending[o, 0] += 0.1 * (b[o, r, c] * tx[patch] - ty[o, r, c] * a[patch])
    np.testing.assert_allclose(link.weight.detach().numpy(), w, rtol=1e-9)


def test_two_learners_may_not_fight_for_a_weight():
    with Network() as net:
        source = Encoder(num=2, coding_method="float")
        cell = NeuronGroup(2)
        link = Connection(source, cell)
        Learner(trainable=[link], algorithm="stca")
        Learner(trainable=[link], algorithm="stdp")
    with pytest.raises(InputError, match="breaks the gradient"):
        net.build()
