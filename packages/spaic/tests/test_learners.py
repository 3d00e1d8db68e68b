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
from tenfold.spaic.network.learners import SURROGATES, Rule, finite_differences

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


def test_time_constants_of_rules_and_metrics_of_schedules_are_checked():
    with pytest.raises(InputError, match=r"tau_plus=0\.0; a time constant must be > 0 ms"):
        Learner(algorithm="rstdp", tau_plus=0.0)
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


def layered(model, readout, learner_of, strategy=1, recurrent=False, batch=3, steps=15, **given):
    """Input, hidden layer, read-out, and all links in one learner."""
    random = np.random.default_rng(0)
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=4, coding_method="null")
        hidden = NeuronGroup(6, model=model, **given)
        last = NeuronGroup(2, model=readout)
        links = [
            Connection(source, hidden, weight=random.normal(0.3, 0.5, (6, 4))),
            Connection(hidden, last, weight=random.normal(0, 0.5, (2, 6))),
        ]
        if recurrent:
            links.append(Connection(hidden, hidden, weight=random.normal(0, 0.4, (6, 6))))
        out = Decoder(dec_target=last, coding_method="null")
        learner = learner_of(links)
    net.set_backend_dt(1.0)
    net.build(strategy=strategy, engine="step")
    net.source((random.random((batch, steps, 4)) < 0.5).astype(float))
    aim = random.normal(size=(batch, 2, steps))
    return net, links, out, learner, aim


def exact(model, readout, strategy, **given):
    """The gradient of ½ Σ (y − target)², mean over the batch, through time."""
    made = layered(
        model, readout, lambda links: Learner(links, [links[0].post], "stbp"), strategy, **given
    )
    net, links, out, _, aim = made
    net.run(15.0)
    target = torch.as_tensor(aim).permute(2, 0, 1)
    (0.5 * ((out.predict - target) ** 2).sum() / len(aim)).backward()
    return [link.weight.grad.clone() for link in links]


@pytest.mark.parametrize("strategy", [0, 1])
@pytest.mark.parametrize(("model", "readout"), [("lif", "li"), ("clif", "null"), ("aclif", "li")])
def test_eprop_is_the_exact_gradient_where_there_is_no_recurrence(model, readout, strategy):
    expected = exact(model, readout, strategy)

    def learner_of(links):
        made = Learner(links, algorithm="eprop", surrogate=SURROGATES["stbp"])
        made.set_optimizer("SGD", lr=0.1)
        return made

    net, links, _, learner, aim = layered(model, readout, learner_of, strategy)
    learner.teach(aim)
    before = [link.weight.detach().clone() for link in links]
    learner.optim_zero_grad()
    net.run(15.0)
    for link, gradient in zip(links, expected, strict=True):
        assert gradient.abs().max() > 1e-3
        torch.testing.assert_close(link.weight.grad, gradient, rtol=1e-9, atol=1e-12)
    learner.optim_step()
    for link, old, gradient in zip(links, before, expected, strict=True):
        torch.testing.assert_close(link.weight.detach(), old - 0.1 * gradient)


def test_eprop_leaves_out_what_goes_through_other_neurons():
    """With recurrent spikes detached, backpropagation is e-prop; written out for lif and li."""
    net, links, _, learner, aim = layered(
        "lif",
        "li",
        lambda links: Learner(links, algorithm="eprop", surrogate="stbp", lr=1.0),
        0,
        recurrent=True,
    )
    learner.teach(aim)
    old = [link.weight.detach().clone() for link in links]
    net.run(15.0)
    w_in, w_out, w_rec = (w.clone().requires_grad_() for w in old)
    x = torch.as_tensor(net.source.source)
    beta = math.exp(-1 / 8)
    v = o = torch.zeros(3, 6, dtype=torch.float64)
    y, seen, loss = torch.zeros(3, 2, dtype=torch.float64), torch.zeros(3, 4), 0.0
    for k in range(15):
        # strategy 0: a link reads what its source was before the step
        y = beta * y + (1 - beta) * o @ w_out.T
        u = beta * v + seen.to(torch.float64) @ w_in.T + o.detach() @ w_rec.T
        o = SURROGATES["stbp"](u - 1)
        v = torch.where(o > 0, 0.0, u)
        seen = x[:, k]
        loss = loss + 0.5 * ((y - torch.as_tensor(aim[..., k])) ** 2).sum() / 3
    loss.backward()
    for link, w in zip(links, (w_in, w_out, w_rec), strict=True):
        assert w.grad.abs().max() > 1e-3
        torch.testing.assert_close(link.weight.detach(), w.detach() - w.grad, rtol=1e-8, atol=1e-10)


def test_eprop_with_random_feedback_learns_a_pattern():
    def learner_of(links):
        made = Learner(links, algorithm="eprop", feedback="random")
        made.set_optimizer("Adam", lr=0.03)
        return made

    net, _, out, learner, _ = layered("lif", "li", learner_of, 0, recurrent=True, batch=1, steps=30)
    t = np.arange(30) / 30
    aim = 0.3 * np.stack([np.sin(2 * np.pi * t), np.cos(4 * np.pi * t)])[None]
    learner.teach(aim)
    losses = []
    for _ in range(30):
        learner.optim_zero_grad()
        net.run(30.0)
        learner.optim_step()
        losses.append(float(((out.predict.permute(1, 2, 0).numpy() - aim) ** 2).mean()))
    assert losses[-1] < 0.7 * losses[0]


def test_ottt_equals_a_loop_with_traces_and_errors_of_the_step():
    net, links, _, learner, _ = layered(
        "lif",
        "lif",
        lambda links: Learner(
            links, algorithm="ottt", surrogate="stbp", lr=1.0, loss="cross_entropy"
        ),
        tau_m=5.0,
    )
    hot = np.eye(2)[[0, 1, 1]]
    learner.teach(hot)
    w1, w2 = (link.weight.detach().numpy().copy() for link in links)
    net.run(15.0)
    x = net.source.source.numpy()
    g = lambda u: np.exp(-(u**2)) / np.pi  # noqa: E731 - stbp with alpha 0.5
    first, second = math.exp(-1 / 5), math.exp(-1 / 8)
    v1, v2, a0, a1 = np.zeros((3, 6)), np.zeros((3, 2)), np.zeros((3, 4)), np.zeros((3, 6))
    d1, d2 = np.zeros_like(w1), np.zeros_like(w2)
    for k in range(15):
        u1 = first * v1 + x[:, k] @ w1.T
        s1 = (u1 > 1).astype(float)
        u2 = second * v2 + s1 @ w2.T
        s2 = (u2 > 1).astype(float)
        v1, v2 = u1 * (1 - s1), u2 * (1 - s2)
        a0, a1 = first * a0 + x[:, k], second * a1 + s1
        share = np.exp(s2) / np.exp(s2).sum(1, keepdims=True)
        delta2 = (share - hot) * g(u2 - 1)
        delta1 = (delta2 @ w2) * g(u1 - 1)
        d1, d2 = d1 + delta1.T @ a0 / 3, d2 + delta2.T @ a1 / 3
    assert np.abs(d1).max() > 1e-3
    np.testing.assert_allclose(links[0].weight.detach(), w1 - d1, rtol=1e-9)
    np.testing.assert_allclose(links[1].weight.detach(), w2 - d2, rtol=1e-9)


def test_rates_are_led_to_their_aim_along_the_exact_gradient():
    random = np.random.default_rng(0)
    start = random.normal(0.2, 0.2, (3, 5))
    x = (random.random((4, 40, 5)) < 0.4).astype(float)
    grads = []
    for algorithm in ("rate_modulate", "stbp"):
        with Network(dtype=torch.float64) as net:
            source = Encoder(num=5, coding_method="null")
            cell = NeuronGroup(3, model="lif")
            link = Connection(source, cell, weight=start)
            counts = Decoder(dec_target=cell, coding_method="spike_counts")
            rule = {"rate": 6.0, "alpha": 2.0, "lr": 0.004, "surrogate": "stbp"}
            learner = Learner([link], [cell], algorithm, **(rule if "_" in algorithm else {}))
        net.set_backend_dt(1.0)
        net.build(strategy=1)
        net.source(x)
        net.run(40.0)
        if algorithm == "stbp":
            (2.0 * (counts.predict - 6.0).norm(dim=1).mean()).backward()
            grads.append(link.weight.grad.numpy())
        else:
            grads.append((start - link.weight.detach().numpy()) / 0.004)
            first = (counts.predict - 6.0).abs().mean()
            for _ in range(25):
                net.source(x)
                net.run(40.0)
            assert (counts.predict - 6.0).abs().mean() < first / 2
    assert learner.algorithm == "stbp"
    np.testing.assert_allclose(*grads, rtol=1e-9)


def test_what_online_gradients_cannot_do_is_refused_by_name():
    def refused(said, readout="li", strategy=1, model="lif", **options):
        net, _, _, learner, aim = layered(
            model, readout, lambda links: Learner(links, **options), strategy
        )
        learner.teach(aim)
        with pytest.raises(InputError, match=said):
            net.run(15.0)

    refused("e-prop needs one trained link from .* to a read-out", "lif", algorithm="eprop")
    refused("feedback='none'", algorithm="eprop", feedback="none")
    refused("surrogate='boxcar'", algorithm="eprop", surrogate="boxcar")
    refused(r"OTTT needs build\(strategy=1\)", "lif", 0, algorithm="ottt")
    refused("OTTT needs targets with one leak", "null", algorithm="ottt")
    refused("loss='l1'", "lif", algorithm="ottt", loss="l1")
    refused("see each other or draw numbers", "cann_field", algorithm="rate_modulate")
    net, *_ = layered("lif", "li", lambda links: Learner(links, algorithm="eprop"))
    with pytest.raises(InputError, match="eprop needs a target; call teach"):
        net.run(15.0)


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
