"""Learners of the literature against exact gradients, closed forms and loops written out here."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from tenfold.shared.errors import InputError
from tenfold.shared.progress import set_quiet
from tenfold.spaic import (
    Connection,
    Decoder,
    Encoder,
    Learner,
    Network,
    NeuronGroup,
    NeuronModel,
    Reward,
)
from tenfold.spaic.network.learners import RULES, Rule, finite_differences

LISTENS = NeuronModel(name="given", inputs=("Isyn", "unheard"), step="O = Isyn + 0 * unheard")


def taught(algorithm, x, y, start, target=None, reward=None, runs=1, **options):
    """Trains one link on given spikes of both sides; returns its weights and the learner."""
    with Network(dtype=torch.float64) as net:
        left = Encoder(num=x.shape[2], coding_method="null")
        right = Encoder(num=y.shape[2], coding_method="null")
        pre = NeuronGroup(x.shape[2], model="null")
        post = NeuronGroup(y.shape[2], model=LISTENS)
        Connection(left, pre, link_type="one_to_one", weight=np.eye(x.shape[2]))
        Connection(right, post, link_type="one_to_one", weight=np.eye(y.shape[2]))
        link = Connection(pre, post, weight=start, post_var_name="unheard")
        learner = Learner(trainable=[link], algorithm=algorithm, **options)
        if reward is not None:
            Reward(dec_target=post, coding_method="environment_reward", name="signal")
    if reward is not None:
        net.signal(np.asarray(reward))
    net.build(strategy=1)
    if target is not None:
        learner.teach(target)
    for _ in range(runs):
        net.left(x)
        net.right(y)
        net.run(x.shape[1] * 0.1)
    return link.weight.detach().numpy(), net


def spikes(shape, share=0.3, seed=0):
    return (np.random.default_rng(seed).random(shape) < share).astype(float)


def test_dopamine_turns_eligibility_into_weight():
    x, y = spikes((2, 40, 4)), spikes((2, 40, 3), seed=1)
    start = np.full((3, 4), 0.5)
    options = {"lr": 0.02, "tau_c": 50.0, "tau_d": 10.0, "A_minus": 1.2}
    found, _ = taught("dopamine_stdp", x, y, start, reward=[0.7], **options)
    w, c, d = start.copy(), np.zeros((3, 4)), 0.0
    for k in range(40):
        c *= math.exp(-0.1 / 50)
        for b in range(2):
            for j in range(3):
                for i in range(4):
                    ages = 0.1 * (k - np.arange(k))
                    if y[b, k, j]:
                        c[j, i] += x[b, :k, i] @ np.exp(-ages / 20) / 2
                    if x[b, k, i]:
                        c[j, i] -= 1.2 * y[b, :k, j] @ np.exp(-ages / 20) / 2
        d = d * math.exp(-0.1 / 10) + 0.7
        w = np.clip(w + 0.02 * 0.1 * d * c, 0, 1)
    assert np.abs(w - start).max() > 0.01
    np.testing.assert_allclose(found, w, rtol=1e-9)


def test_meta_stdp_keeps_mean_weights_that_follow_the_activity():
    x, y = spikes((2, 30, 4)), spikes((2, 30, 3), seed=1)
    start = np.random.default_rng(2).uniform(0.3, 0.7, (3, 4))
    options = {"Apost": 0.05, "Apre": 0.02}
    found, net = taught("meta_nearest_online_stdp", x, y, start, runs=2, **options)
    w, mean, ty = start.copy(), start.mean(1), np.zeros((2, 3))
    for _ in range(2):
        tx, pending = np.zeros((2, 4)), np.zeros((3, 4))
        before = [np.zeros((2, 4)), np.zeros((2, 3))]
        for k in range(30):
            # Between runs the groups begin anew, so that the step before the first has no spikes.
            a, b = before
            tx = a + (1 - a) * tx * math.exp(-1 / 30)
            ty = b + (1 - b) * ty * math.exp(-1 / 200)
            up, down = np.exp(-0.2 / (1 - w)), np.exp(-0.2 / w)
            new = 0.05 * b.T @ tx * up - 0.02 * ty.T @ a * down
            if k:
                w = w + pending
            pending = new
            active = ty.mean(0)
            mean = mean - 0.1 * 0.02 * (active - active.mean())
            w = np.clip(w * (mean / w.mean(1))[:, None], 0, 1)
            before = [x[:, k], y[:, k]]
    np.testing.assert_allclose(found, w, rtol=1e-9)
    np.testing.assert_allclose(found.mean(1), mean, rtol=1e-6)
    assert net.engine_note.startswith("step")


DECAY = math.exp(-1 / 20)
NEAREST = {"Apost": 1e-2, "Apre": 1e-4, "pre_decay": DECAY, "post_decay": DECAY}
WINDOWS = {"tau_plus": 20.0, "tau_minus": 20.0, "A_plus": 1.0, "A_minus": -1.0}
META = {"pre_decay": math.exp(-1 / 30), "post_decay": math.exp(-1 / 200), "softness": 0.2}
CARD = {
    "nearest_online_stdp": {**NEAREST, "norm": 78.4, "w_min": 0, "w_max": 1},
    "full_online_stdp": {**NEAREST, "norm": 78.4, "w_min": 0, "w_max": 1},
    "meta_nearest_online_stdp": {"Apost": 1e-2, "Apre": 1e-4, **META, "drift": 0.1, "w_max": 1},
    "conv2d_stdp": {"lr": 0.1, **WINDOWS},
    "conv2d_rstdp": {"lr": 0.1, **WINDOWS},
    "rstdp": {"lr": 0.1, **WINDOWS},
    "rstdpet": {"lr": None, **WINDOWS, "tau_e": 25, "tau_z": 25},
    "switch_rstdp": {"Apost": 5e-3, "Apre": 4e-3, "pre_decay": DECAY, "w_min": 0, "w_max": 0.1},
    "bp_rstdp": {
        "lr": 0.1,
        "hs_r": 0.01,
        "tau_pre": 5,
        "tau_post": 12,
        "A_plus": 1,
        "A_minus": -0.4,
    },
    "bp_rstdpet": {"lr": 0.1, "hs_r": 0.01, "tau_pre": 4, "tau_post": 10, "tau_et": 5},
    "tempotron": {"tau": 20, "tau_s": 5},
    "postpreintstdp": {"pre_sign": 1, "max_threshold": 4915},
    "local_stdp": {
        "A_plus": 1e-3,
        "A_minus": 1e-4,
        "tau_pre": 10,
        "tau_post": 100,
        "homeo_add": 1e-4,
        "homeo_mult": 1e-3,
    },
    "stdp": {"tau_plus": 20, "tau_minus": 20, "lr": 0.01, "alpha": 1, "mu_plus": 1, "mu_minus": 1},
    "triplet_stdp": {
        "A2_plus": 5e-10,
        "A3_plus": 6.2e-3,
        "A2_minus": 7e-3,
        "A3_minus": 2.3e-4,
        "tau_plus": 16.8,
        "tau_x": 101,
        "tau_minus": 33.7,
        "tau_y": 125,
    },
}


@pytest.mark.parametrize("algorithm", CARD)
def test_defaults_are_those_of_the_card(algorithm):
    rule, other = RULES[algorithm]
    found = {**rule.options, **other}
    assert {key: found[key] for key in CARD[algorithm]} == CARD[algorithm]


def test_homeostatic_scaling_multiplies_rows_by_their_distance_from_the_rate():
    x, y = spikes((2, 30, 4)), spikes((2, 30, 3), seed=1) * [1, 0, 1]
    start = np.random.default_rng(2).uniform(0.2, 0.4, (3, 4))
    options = {"lr": 0.05, "rate": 2.0, "tau": 5.0}
    found, _ = taught("homeostatic_scaling", x, y, start, **options)
    a, w = np.full(3, 2.0), start.copy()
    for k in range(30):
        a = a * math.exp(-0.1 / 5) + (1 - math.exp(-0.1 / 5)) * y[:, k].mean(0) / 0.1
        w = np.clip(w * (1 + 0.05 * 0.1 * (2.0 - a))[:, None], 0, 1)
    np.testing.assert_allclose(found, w, rtol=1e-9)
    assert np.all(found[1] > start[1])
    assert np.all(found[0] < start[0])


def test_options_of_rules_and_metrics_of_schedules_are_checked():
    with pytest.raises(InputError, match=r"tau_plus=0\.0; a time constant must be > 0 ms"):
        Learner(algorithm="rstdp", tau_plus=0.0)
    with pytest.raises(InputError, match=r"pre_decay=1\.5; a decay is from 0 to 1"):
        Learner(algorithm="nearest_online_stdp", pre_decay=1.5)
    with pytest.raises(InputError, match=r"w_min=2 is above w_max=1\.0"):
        Learner(algorithm="triplet_stdp", w_min=2)
    with pytest.raises(InputError, match="rstdpet needs lr="):
        taught("rstdpet", spikes((1, 5, 4)), spikes((1, 5, 3)), np.zeros((3, 4)), reward=[1.0])
    with Network() as net:
        cell, other = NeuronGroup(2), NeuronGroup(2)
        link = Connection(cell, other)
        learner = Learner([link], [other], "stbp")
    net.build()
    learner.set_optimizer("SGD", lr=1.0)
    learner.set_schedule("ReduceLROnPlateau", patience=0, factor=0.1)
    with pytest.raises(InputError, match=r"needs optim_schedule\(metric\)"):
        learner.optim_schedule()
    for loss in (1.0, 2.0):
        learner.optim_schedule(loss)
    assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


OPTIMISERS = ["Adam", "AdamW", "Adamax", "ASGD", "LBFGS", "RMSprop", "Rprop", "SGD"]
SCHEDULES = {
    "LambdaLR": {"lr_lambda": lambda epoch: 0.5**epoch},
    "StepLR": {"step_size": 1, "gamma": 0.5},
    "MultiStepLR": {"milestones": [1], "gamma": 0.5},
    "ExponentialLR": {"gamma": 0.5},
    "CosineAnnealingLR": {"T_max": 2},
    "CyclicLR": {"base_lr": 0.005, "max_lr": 0.1, "step_size_up": 1, "cycle_momentum": False},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
}


@pytest.mark.parametrize("name", [*OPTIMISERS, "Adadelta", "Adagrad"])
def test_every_optimiser_lowers_a_smooth_loss(name):
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=3, coding_method="null")
        cell = NeuronGroup(2, model="li")
        link = Connection(source, cell)
        out = Decoder(dec_target=cell, coding_method="null")
    learner = Learner([link, cell], algorithm="stbp")
    net.add_learner("learner", learner)
    net.build(strategy=1)
    learner.set_optimizer(name, lr=1.0 if name in ("Adadelta", "LBFGS") else 0.02)
    net.source(np.random.default_rng(0).random((4, 10, 3)))

    def loss():
        learner.optim_zero_grad()
        net.run(1.0)
        made = ((out.predict - 0.1) ** 2).sum()
        made.backward()
        return made

    first = loss().item()
    for _ in range(5):
        loss()
        learner.optim_step(loss if name == "LBFGS" else None)
    assert loss().item() < first
    if name == "LBFGS":
        with pytest.raises(InputError, match="LBFGS needs optim_step"):
            learner.optim_step()


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.filterwarnings("error")
def test_every_schedule_moves_the_step_size(name):
    with Network() as net:
        one, two = NeuronGroup(2), NeuronGroup(2)
        link = Connection(one, two)
        learner = Learner([link], [two], "stbp")
    net.build()
    learner.set_optimizer("SGD", lr=0.01)
    learner.set_schedule(name, **SCHEDULES[name])
    learner.optimizer.step()
    learner.optim_schedule()
    assert learner.optimizer.param_groups[0]["lr"] != 0.01


def test_a_trained_link_that_ends_at_spikes_without_a_gradient_is_told(capsys):
    set_quiet(False)
    for pathway in (False, True):
        with Network() as net:
            source = Encoder(num=3, coding_method="null")
            cell, last = NeuronGroup(2, model="lif"), NeuronGroup(2, model="li")
            first, second = Connection(source, cell), Connection(cell, last)
            learner = Learner([first, second], [cell] if pathway else [], "stbp")
        net.build()
        learner.set_optimizer("SGD", lr=0.1)
        learner.optim_zero_grad()
        told = capsys.readouterr().err
        assert ("Connection first is trained, but NeuronGroup cell" in told) != pathway
        assert "Connection second" not in told


class Oja(Rule):
    """A rule of a user: Δw = lr y (x − y w)."""

    options = {"lr": 0.1}  # noqa: RUF012

    def step(self, m):
        hebb = m.y_now.T @ m.x_now
        self.weight.add_(self.lr * (hebb - (m.y_now**2).sum(0)[:, None] * self.weight))


def test_a_rule_of_a_user_is_a_class():
    x, y = spikes((2, 20, 4)), spikes((2, 20, 3), seed=1)
    start = np.random.default_rng(2).uniform(0.2, 0.4, (3, 4))
    found, net = taught(Oja, x, y, start, lr=0.05)
    w = start.copy()
    for k in range(20):
        w = w + 0.05 * (y[:, k].T @ x[:, k] - (y[:, k] ** 2).sum(0)[:, None] * w)
    np.testing.assert_allclose(found, w, rtol=1e-9)
    assert net.parts(Learner)[0].algorithm == "Oja"
    with pytest.raises(InputError, match="unknown option of Oja 'rate'"):
        Learner(algorithm=Oja, rate=1.0)


def kernel(t, tau=20.0, tau_s=5.0):
    return np.where(t > 0, (np.exp(-t / tau) - np.exp(-t / tau_s)) / (tau - tau_s), 0)


def crossing(w, times, theta):
    """The first time of v = theta, by a root of the closed form."""
    v = lambda t: w @ kernel(t - times) - theta  # noqa: E731
    grid = np.linspace(0, 10, 2001)
    over = np.flatnonzero([v(t) > 0 for t in grid])
    return brentq(v, grid[over[0] - 1], grid[over[0]], xtol=1e-13)


def test_spikeprop_follows_the_gradient_of_the_spike_time():
    x = np.zeros((1, 100, 3))
    x[0, 4, 0] = x[0, 20, 1] = x[0, 33, 2] = x[0, 50, 0] = 1
    w = np.array([[30.0, 20.0, 25.0], [1.0, 1.0, 1.0]])
    found, _ = taught(
        "spikeprop", x, np.zeros((1, 100, 2)), w, target=[[7.0, 3.0]], lr=0.5, theta=1.0
    )
    steps, neurons = np.nonzero(x[0])
    times = (steps + 1) * 0.1

    def time(row):
        return crossing(row[neurons], times, 1.0)

    aim = time(w[0])
    assert abs(aim / 0.1 - round(aim / 0.1)) > 0.05  # within a step
    slope = [(time(w[0] + e) - time(w[0] - e)) / 2e-4 for e in 1e-4 * np.eye(3)]
    assert min(slope) < 0
    np.testing.assert_allclose(found[0] - w[0], -0.5 * (aim - 7.0) * np.array(slope), rtol=1e-5)
    np.testing.assert_array_equal(found[1], w[1])  # it never reaches the threshold


def test_force_is_ridge_regression_after_every_step():
    x = spikes((1, 60, 5))
    aim = np.random.default_rng(1).normal(size=(1, 2, 60))
    found, _ = taught(
        "force", x, np.zeros((1, 60, 2)), np.zeros((2, 5)), target=aim, alpha=0.7, tau=3.0
    )
    r, rows = np.zeros(5), []
    for k in range(60):
        r = r * math.exp(-0.1 / 3) + x[0, k]
        rows.append(r)
    rows = np.array(rows)
    ridge = np.linalg.solve(rows.T @ rows + 0.7 * np.eye(5), rows.T @ aim[0].T).T
    np.testing.assert_allclose(found, ridge, rtol=1e-8)
    with pytest.raises(InputError, match="FORCE takes one sample at a time, not 2"):
        taught(
            "force", spikes((2, 5, 3)), np.zeros((2, 5, 2)), np.zeros((2, 3)), np.zeros((2, 2, 5))
        )


def test_biohash_equals_a_loop_over_samples_and_comes_to_unit_rows():
    x, start = spikes((6, 20, 5)), np.random.default_rng(3).normal(size=(4, 5))
    options = {"lr": 0.3, "p": 3.0, "rank": 3, "delta": 0.2}
    found, _ = taught("biohash", x, np.zeros((6, 20, 4)), start, **options)
    w, change = start, np.zeros_like(start)
    for seen in x.mean(1):
        fit = [sum(abs(w[m, i]) * w[m, i] * seen[i] for i in range(5)) for m in range(4)]
        ranked = sorted(range(4), key=lambda m: -fit[m])
        for m, g in ((ranked[0], 1.0), (ranked[2], -0.2)):
            change[m] += g * (seen - fit[m] * w[m])
    np.testing.assert_allclose(found, w + 0.3 / 6 * change, rtol=1e-9)
    found, _ = taught("biohash", x, np.zeros((6, 20, 4)), start, runs=120, lr=1.5, delta=0.0)
    winners = np.abs(found - start).max(1) > 1e-6
    assert winners.any()
    np.testing.assert_allclose(np.linalg.norm(found[winners], axis=1), 1, atol=0.02)
    with pytest.raises(InputError, match=r"rank=9; expected from 2 to 4"):
        taught("biohash", x, np.zeros((6, 20, 4)), start, rank=9)


def test_finite_differences_agree_with_the_gradient_of_a_smooth_network():
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=3, coding_method="null")
        cell = NeuronGroup(2, model="li", tau_m=5.0)
        link = Connection(source, cell, weight=np.random.default_rng(0).normal(size=(2, 3)))
        out = Decoder(dec_target=cell, coding_method="null")
    net.enable_full_grad(True)
    net.source(np.random.default_rng(1).random((2, 10, 3)))

    def loss():
        net.run(1.0)
        return (out.predict**3).sum()

    loss().backward()
    kept = link.weight.detach().clone()
    found = finite_differences(loss, link.weight)
    torch.testing.assert_close(found, link.weight.grad, rtol=1e-6, atol=1e-9)
    assert torch.equal(kept, link.weight)
    some = finite_differences(loss, link.weight, entries=[4])
    assert some.isnan().sum() == 5
    assert some[1, 1] == pytest.approx(link.weight.grad[1, 1].item(), rel=1e-6)
    with pytest.raises(InputError, match="entries holds 6"):
        finite_differences(loss, link.weight, entries=[6])
