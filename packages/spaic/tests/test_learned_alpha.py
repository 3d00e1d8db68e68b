"""Surrogate gradients whose width or slope is learned (section 10.1: learnable alpha)."""

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
    Surrogate,
    load_state,
    save_state,
)
from tenfold.spaic.network.learners import SURROGATES

STEPS, BATCH, SIZES = 25, 4, (6, 5, 3)


@pytest.mark.parametrize("name", sorted(set(SURROGATES) - {"StraightThrough"}))
def test_the_derivative_by_alpha_is_that_of_the_primitive_through_the_threshold(name):
    made = SURROGATES[name]
    half = torch.linspace(0, 4, 80001, dtype=torch.float64)

    def primitive(alpha, side):
        slope = made.slope(side * half, alpha)
        return side * torch.cumulative_trapezoid(slope, half)[7399::8000]  # at 0.37, 0.77, ...

    for side in (1, -1):
        up, down = (primitive(made.alpha * (1 + e), side) for e in (1e-3, -1e-3))
        expected = (up - down) / (2e-3 * made.alpha)
        found = made.alpha_slope(side * half[7400::8000])
        # A box has edges, which a grid of 5e-5 places to a few thousandths here.
        torch.testing.assert_close(found.to(expected), expected, rtol=2e-3, atol=2e-3)


PRIMITIVES = {
    "stca": lambda u, a: torch.maximum(torch.minimum(u, a), -a),
    "stbp": lambda u, a: torch.erf(u / (2 * a).sqrt()) / (8 * math.pi * a).sqrt(),
    "sbp": lambda u, a: torch.atan(math.pi / 2 * a * u) / math.pi,
}


def network(model, algorithm, strategy, engine):
    random = np.random.default_rng(0)
    w1, w2 = (random.normal(0.15, 0.6, (n, m)) for m, n in pairwise(SIZES))
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=SIZES[0], coding_method="null")
        hidden = NeuronGroup(SIZES[1], model=model)
        output = NeuronGroup(SIZES[2], model=model)
        Connection(source, hidden, weight=w1)
        Connection(hidden, output, weight=w2)
        counts = Decoder(dec_target=output, num=SIZES[2], coding_method="spike_counts")
        learner = Learner(algorithm=algorithm, learn_alpha=True)
    learner.trainable = [net]
    net.set_backend_dt(1.0)
    net.build(strategy=strategy, engine=engine)
    x = (np.random.default_rng(1).random((BATCH, STEPS, SIZES[0])) < 0.4).astype(float)
    net.source(x)
    return net, (w1, w2), x, counts


def loop(model, algorithm, strategy, ws, x):
    """A spike is H(u), and for the gradient the smooth step; written out in plain torch."""
    ws = [torch.tensor(w) for w in ws]
    start = 2.0 if algorithm == "sbp" else 0.5
    alphas = [torch.tensor(start, dtype=torch.float64, requires_grad=True) for _ in ws]
    states = [{k: torch.zeros(BATCH, n, dtype=torch.float64) for k in "VMSE"} for n in SIZES[1:]]
    outs = [torch.zeros(BATCH, n, dtype=torch.float64) for n in SIZES]
    total = 0
    for k in range(STEPS):
        seen = list(outs)
        outs[0] = torch.tensor(x[:, k])
        for layer, (w, alpha, s) in enumerate(zip(ws, alphas, states, strict=True)):
            given = (outs if strategy == 1 else seen)[layer] @ w.T
            if model == "lif":
                u = math.exp(-1 / 8) * s["V"] + given - 1
            else:
                s["M"] = math.exp(-1 / 12) * s["M"] + 6.75 * given
                s["S"] = math.exp(-1 / 8) * s["S"] + 6.75 * given
                u = s["M"] - s["S"] - s["E"] - 1
            smooth = PRIMITIVES[algorithm](u, alpha)
            o = (u > 0).to(u.dtype) + smooth - smooth.detach()
            if model == "lif":
                s["V"] = torch.where(u > 0, 0.0, u + 1)
            else:
                s["E"] = math.exp(-1 / 20) * s["E"] + o
            outs[layer + 1] = o
        total = total + outs[-1]
    return total, alphas


@pytest.mark.parametrize("engine", ["step", "scan"])
@pytest.mark.parametrize("algorithm", sorted(PRIMITIVES))
@pytest.mark.parametrize(("model", "strategy"), [("lif", 0), ("lif", 1), ("clif", 1)])
def test_the_gradient_of_alpha_is_that_of_the_smooth_step(model, strategy, algorithm, engine):
    net, ws, x, counts = network(model, algorithm, strategy, engine)
    net.run(STEPS)
    expected, alphas = loop(model, algorithm, strategy, ws, x)
    assert net.engine_note.startswith(engine)
    torch.testing.assert_close(counts.predict, expected)
    aim = torch.linspace(-1, 1, SIZES[2], dtype=torch.float64)
    ((counts.predict - 2) ** 2 @ aim).sum().backward()
    ((expected - 2) ** 2 @ aim).sum().backward()
    for group, alpha in zip((net.hidden, net.output), alphas, strict=True):
        assert alpha.grad.abs() > 1e-4
        assert group.surrogate_alpha.grad.item() == pytest.approx(alpha.grad.item(), rel=1e-6)


def test_alpha_is_trained_saved_and_loaded(tmp_path):
    net, _, _, counts = network("lif", "sbp", 1, "auto")
    net.learner.set_optimizer("Adam", lr=0.05)
    trained = net.learner.optimizer.param_groups[0]["params"]
    assert sum(p is net.hidden.surrogate_alpha for p in trained) == 1
    losses = []
    for _ in range(12):
        net.learner.optim_zero_grad()
        net.run(STEPS)
        loss = ((counts.predict - torch.tensor([9.0, 2.0, 5.0])) ** 2).mean()
        loss.backward()
        net.learner.optim_step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert net.engine_note.startswith("scan")
    alphas = [group.surrogate_alpha.item() for group in (net.hidden, net.output)]
    assert min(abs(alpha - 2.0) for alpha in alphas) > 1e-3
    assert alphas[0] != alphas[1]
    save_state(net, tmp_path / "state.safetensors")
    other, *_ = network("lif", "sbp", 1, "step")
    load_state(other, tmp_path / "state.safetensors")
    assert [group.surrogate_alpha.item() for group in (other.hidden, other.output)] == alphas
    net.hidden.surrogate_alpha.data.fill_(-1.0)  # a step too far
    net.run(STEPS)
    assert net.hidden.surrogate_alpha.item() == pytest.approx(1e-3)


def test_only_trainable_groups_learn_their_alpha():
    with Network() as net:
        source = Encoder(num=3, coding_method="null")
        one, two = NeuronGroup(3), NeuronGroup(2)
        first, second = Connection(source, one), Connection(one, two)
        learner = Learner([first, second, two], [one], "stbp", learn_alpha=True, alpha=0.3)
    net.build()
    assert one.surrogate_alpha is None
    assert two.surrogate_alpha.item() == pytest.approx(0.3)
    assert sum(p is two.surrogate_alpha for p in learner.parameters()) == 1
    learner = Learner([two], algorithm="stbp")
    assert not learner.surrogate.learned


def test_surrogates_without_an_alpha_cannot_learn_it():
    with pytest.raises(InputError, match="StraightThrough does not say how it depends on alpha"):
        Learner(algorithm="sbp", surrogate_func="StraightThrough", learn_alpha=True)
    mine = Surrogate("mine", "exp(-alpha * u * u)", 1.0)
    with pytest.raises(InputError, match="mine does not say how it depends on alpha"):
        Learner(algorithm="sbp", surrogate_func=mine, learn_alpha=True)
    with pytest.raises(InputError, match="unknown option 'learn_alpa'"):
        Learner(algorithm="stca", learn_alpa=True)
    assert Learner(algorithm="sbp", surrogate_func=mine, alpha=3.0).surrogate.alpha == 3.0
