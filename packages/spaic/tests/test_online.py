"""Gradients forward in time: e-prop, OTTT and led rates, against gradients through time."""

import math

import numpy as np
import pytest
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic import Connection, Decoder, Encoder, Learner, Network, NeuronGroup
from tenfold.spaic.network.learners import SURROGATES


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
