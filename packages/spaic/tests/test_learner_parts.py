"""What a learner trains, window by window, beside rules, and what it refuses."""

import math

import numpy as np
import pytest
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic import (
    Assembly,
    Connection,
    Decoder,
    Encoder,
    Generator,
    IncludedTypePolicy,
    Learner,
    Network,
    NeuronGroup,
    NeuronModel,
    Projection,
    Reward,
)
from tenfold.spaic.network.learners import Rule

LISTENS = NeuronModel(name="given", inputs=("Isyn", "unheard"), step="O = Isyn + 0 * unheard")


def test_a_projection_stands_for_its_connections():
    def gradients(projected):
        net = Network(dtype=torch.float64)
        net.source = Encoder(num=3, coding_method="null")
        net.left, net.right = Assembly(type="left"), Assembly(type="right")
        net.left.a, net.right.b, net.right.c = (NeuronGroup(n) for n in (4, 2, 5))
        net.into = Connection(net.source, net.left.a, w_mean=0.8)
        net.way = Projection(net.left, net.right, policies=[IncludedTypePolicy()])
        net.way.hand = Connection(net.left.a, net.right.c, w_mean=0.5)
        made = [*net.way.expand(), net.way.hand]
        ends = [net.left, net.right]
        net.learner = Learner(
            trainable=[*([net.way] if projected else made), *ends], algorithm="sbp"
        )
        net.learner.set_optimizer("SGD", lr=0.1)
        net.counts = Decoder(dec_target=net.right.c, num=5, coding_method="spike_counts")
        net.build(strategy=1)
        net.source(np.ones((2, 10, 3)))
        net.run(1.0)
        assert len(net.learner.parameters()) == 3
        net.counts.predict.square().sum().backward()
        return [con.weight.grad for con in made[1:]]

    for one, other in zip(gradients(True), gradients(False), strict=True):
        assert one.abs().sum() > 0
        assert torch.equal(one, other)


@pytest.mark.parametrize("engine", ["step", "scan"])
def test_a_trained_time_constant_counts_in_every_window(engine):
    net = Network(dtype=torch.float64)
    net.source = Encoder(num=1, coding_method="null")
    net.cell = NeuronGroup(
        1, model="lif", tau_m=5.0, parameter_variables=["tau_m"], varible_ranges={"tau_m": (1, 9)}
    )
    net.link = Connection(net.source, net.cell, weight=[[1.0]])
    net.learner = Learner(trainable=[net.cell], algorithm="sbp")
    net.learner.set_optimizer("SGD", lr=2.0)
    net.set_backend_dt(1.0)
    net.build(strategy=1, engine=engine)
    tau, v = torch.tensor(5.0, dtype=torch.float64, requires_grad=True), torch.zeros(())
    for window in range(3):
        net.source(np.full((1, 4, 1), 0.1))
        net.run(4.0) if window == 0 else net.run_continue(4.0)
        net.learner.optim_zero_grad()
        found = net.variable(net.cell, "V").sum()
        found.backward()
        for _ in range(4):
            v = v * torch.exp(-1 / tau) + 0.1
        (slope,) = torch.autograd.grad(v, tau)
        assert float(found.detach()) == pytest.approx(float(v.detach()), rel=1e-12)
        (held,) = net.cell.trainables.values()
        assert float(held.grad) == pytest.approx(float(slope), rel=1e-9)
        net.learner.optim_step()
        net.detach()
        tau = (tau - 2.0 * slope).detach().clamp(1, 9).requires_grad_()
        v = v.detach()


@pytest.mark.parametrize("engine", ["step", "scan"])
def test_a_run_may_go_on_before_its_gradient_is_taken(engine):
    def slope(*times):
        net = Network(dtype=torch.float64)
        net.source = Encoder(num=1, coding_method="null")
        net.cell = NeuronGroup(
            1, tau_m=5.0, parameter_variables=["tau_m"], varible_ranges={"tau_m": (1, 9)}
        )
        net.link = Connection(net.source, net.cell, weight=[[1.0]])
        net.learner = Learner(trainable=[net.cell, net.link], algorithm="sbp")
        net.set_backend_dt(1.0)
        net.build(strategy=1, engine=engine)
        for number, time in enumerate(times):
            net.source(np.full((1, int(time), 1), 0.1))
            net.run(time) if number == 0 else net.run_continue(time)
        net.variable(net.cell, "V").sum().backward()
        (tau,) = net.cell.trainables.values()
        return [float(tau.grad), float(net.link.weight.grad)]

    np.testing.assert_allclose(slope(3.0, 4.0), slope(7.0), rtol=1e-12)


class Atan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx, grad):
        (u,) = ctx.saved_tensors
        return grad / (1 + (math.pi * u) ** 2)


@pytest.mark.parametrize("link", ["full", "sparse"])
def test_gradients_pass_a_link_that_a_rule_changes(link):
    random = np.random.default_rng(0)
    data = torch.as_tensor((random.random((2, 25, 4)) < 0.5).astype(float))
    net = Network(dtype=torch.float64)
    net.source = Encoder(num=4, coding_method="null")
    net.a, net.b = NeuronGroup(3), NeuronGroup(2)
    net.first = Connection(net.source, net.a, weight=random.uniform(0.2, 0.7, (3, 4)))
    start = random.uniform(0.3, 0.9, (2, 3))
    if link == "full":
        net.second = Connection(net.a, net.b, weight=start)
    else:
        places = np.nonzero(np.ones((2, 3)))
        net.second = Connection(
            net.a, net.b, link_type="index", post_index=places[0], pre_index=places[1],
            weight=start.ravel(),
        )  # fmt: skip
    net.learner = Learner(
        trainable=[net.first, net.a], pathway=[net.second, net.b], algorithm="sbp"
    )
    net.stdp = Learner(trainable=[net.second], algorithm="stdp", lr=0.2)
    net.counts = Decoder(dec_target=net.b, num=2, coding_method="spike_counts")
    net.build(strategy=1)
    net.source(data.numpy())
    net.run(2.5)
    net.counts.predict.square().sum().backward()

    w1 = net.first.weight.detach().clone().requires_grad_()
    w2, beta, decay = torch.as_tensor(start), math.exp(-0.1 / 8.0), math.exp(-0.1 / 20)
    u, v, x, y, total = 0.0, 0.0, torch.zeros(2, 3), torch.zeros(2, 2), 0.0
    for t in range(25):
        u = beta * u + data[:, t] @ w1.T
        a = Atan.apply(u - 1)
        v = beta * v + a @ w2.T
        b = Atan.apply(v - 1)
        u, v, total = u * (1 - a).detach(), v * (1 - b).detach(), total + b
        with torch.no_grad():
            x, y = x * decay, y * decay
            rise = 0.2 * (1 - w2) * (b.T.to(x) @ x)
            fall = 0.2 * w2 * (y.T @ a.to(y))
            w2 = (w2 + rise - fall).clamp(0, 1)
            x, y = x + a, y + b
    total.square().sum().backward()
    assert 0 < float(total.detach().sum()) < 100
    np.testing.assert_allclose(net.second.weight.detach().reshape(2, 3), w2, rtol=1e-6)
    assert abs(w2 - torch.as_tensor(start)).max() > 0.1
    np.testing.assert_allclose(net.first.weight.grad, w1.grad, rtol=1e-6)
    assert w1.grad.abs().min() > 0


def layered(optimiser):
    net = Network()
    net.source = Encoder(num=3, coding_method="null")
    net.a = NeuronGroup(4)
    net.first = Connection(net.source, net.a, w_mean=0.8)
    net.learner = Learner(trainable=[net], algorithm="sbp")
    net.learner.set_optimizer(optimiser, lr=0.1)
    net.learner.set_schedule("StepLR", step_size=1, gamma=0.5)

    def train(layer):
        net.source(np.ones((1, 10, 3)))
        net.run(1.0)
        net.learner.optim_zero_grad()
        net.variable(layer, "V").sum().backward()
        net.learner.optim_step()
        net.learner.optim_schedule()

    net.build(strategy=1)
    train(net.a)
    net.b = NeuronGroup(2)
    net.second = Connection(net.a, net.b, w_mean=0.1)
    return net, train


@pytest.mark.parametrize("optimiser", ["SGD", "Adam", "ASGD"])
def test_parameters_that_are_made_later_join_the_optimiser_and_its_schedule(optimiser):
    net, train = layered(optimiser)
    net.prepare()
    before = net.second.weight.detach().clone()
    train(net.b)
    moved = (net.second.weight - before).abs()
    assert moved.max() > 0
    if optimiser == "SGD":
        assert torch.allclose(moved, 0.05 * net.second.weight.grad.abs(), atol=1e-6)
    assert len(net.learner.optimizer.param_groups) == 1
    assert len(net.learner.optimizer.param_groups[0]["params"]) == 2


def test_an_optimiser_that_cannot_take_new_parameters_in_says_so():
    net, train = layered("Adagrad")
    with pytest.raises(InputError, match=r"1 parameters were made after its optimiser.*Adagrad"):
        train(net.b)
    net.learner.set_optimizer("Adagrad", lr=0.1)
    train(net.b)


def test_what_a_learner_cannot_take_names_it():
    for options, told in (
        ({"algorithm": 5}, "algorithm=5; expected a name or a subclass of Rule"),
        ({"algorithm": int}, "algorithm=<class 'int'>; expected a name or a subclass of Rule"),
        ({"algorithm": "sbp", "alpha": "x"}, "alpha='x'; expected > 0"),
        ({"algorithm": "sbp", "alpha": math.nan}, "alpha=nan; expected > 0"),
        ({"algorithm": "stdp", "lr": math.nan}, "lr=nan; expected a finite number"),
        ({"algorithm": "stdp", "lr": None}, "lr=None; expected a finite number"),
        ({"algorithm": "force", "alpha": "x"}, "alpha='x'; expected a finite number"),
        ({"algorithm": "stdp", "tau_plus": "x"}, "tau_plus=x; a time constant must be > 0"),
        ({"algorithm": "nearest_online_stdp", "pre_decay": "x"}, "pre_decay=x; a decay is"),
    ):
        with pytest.raises(InputError, match=f"Learner mine: {told}"):
            Learner(name="mine", **options)
    learner = Learner(name="mine")
    for lr in (-1, math.nan, math.inf, "x"):
        with pytest.raises(InputError, match=f"Learner mine: lr={lr!r}; expected a finite"):
            learner.set_optimizer("Adam", lr=lr)
    with pytest.raises(InputError, match=r"Learner mine: Adam cannot be made: .*beta"):
        learner.set_optimizer("Adam", betas=(3, 4))
    with pytest.raises(InputError, match=r"Learner mine: Adam cannot be made: .*momentum"):
        learner.set_optimizer("Adam", momentum=0.9)
    assert learner.optim_name == ""
    learner.set_optimizer("Adam")
    with pytest.raises(InputError, match=r"Learner mine: StepLR cannot be made: .*step_size"):
        learner.set_schedule("StepLR")
    assert learner.lr_schedule_name == ""
    for target, told in (([1.0, 2.0], r"shape \(2,\); expected"), ("x", "not an array of numbers")):
        with pytest.raises(InputError, match=f"Learner mine: the target.*{told}"):
            learner.teach(target)


@pytest.mark.parametrize("algorithm", ["psd", "eprop", "tempotron"])
def test_a_target_of_another_batch_is_refused(algorithm):
    net = Network()
    net.source = Encoder(num=3, coding_method="null")
    net.a, net.out = NeuronGroup(4), NeuronGroup(2, model="li")
    net.first, net.second = Connection(net.source, net.a), Connection(net.a, net.out)
    net.learner = Learner(trainable=[net.second], algorithm=algorithm)
    net.source(np.ones((3, 5, 3)))
    shape = (2,) if algorithm == "tempotron" else (2, 5)
    net.learner.teach(np.ones((2, *shape)))
    with pytest.raises(InputError, match="learner: the target has 2 samples; the batch has 3"):
        net.run(0.5)
    for batch in (1, 3):
        net.learner.teach(np.ones((batch, *shape)))
        net.run(0.5)


def test_learners_that_cannot_be_together_are_refused():
    net = Network()
    net.source = Encoder(num=3, coding_method="null")
    net.a = NeuronGroup(4)
    net.first = Connection(net.source, net.a)
    net.one = Learner(trainable=[net.first, net.a], algorithm="stca")
    net.two = Learner(pathway=[net.a], algorithm="stbp")
    with pytest.raises(
        InputError, match=r"Learner two: NeuronGroup a has the surrogate stca.*stbp"
    ):
        net.build()
    del net.two
    net.two = Learner(pathway=[net.a], algorithm="stca")
    net.build()
    assert net.first.weight.requires_grad
    net = Network()
    net.source = Encoder(num=3, coding_method="null")
    net.a = NeuronGroup(4)
    net.first = Connection(net.source, net.a)
    net.rule = Learner(trainable=[net.first], algorithm="stdp", w_max=0)
    net.source(np.ones((1, 1, 3)))
    with pytest.raises(InputError, match="Learner rule: w_max=0; expected > 0"):
        net.run(0.1)


@pytest.mark.parametrize("algorithm", ["rstdp", "rstdpet"])
def test_each_sample_of_a_batch_changes_rewarded_weights_as_if_it_ran_alone(algorithm):
    data = (np.random.default_rng(3).random((3, 40, 4)) < 0.3).astype(float)

    def change(samples):
        net = Network(dtype=torch.float64)
        net.source = Encoder(num=4, coding_method="null")
        net.pre, net.post = NeuronGroup(4, model="null"), NeuronGroup(4, model=LISTENS)
        net.one = Connection(net.source, net.pre, link_type="one_to_one", weight=np.eye(4))
        net.two = Connection(
            net.source, net.post, link_type="one_to_one", weight=np.eye(4)[::-1].copy()
        )
        net.link = Connection(net.pre, net.post, weight=np.zeros((4, 4)), post_var_name="unheard")
        net.learner = Learner(trainable=[net.link], algorithm=algorithm, lr=0.01)
        net.signal = Reward(dec_target=net.post, coding_method="environment_reward")
        net.signal(0.7)
        net.build(strategy=1)
        net.source(data[samples])
        net.run(4.0)
        return net.link.weight.detach()

    alone = [change([k]) for k in range(3)]
    torch.testing.assert_close(change([0, 1, 2]), sum(alone), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("lr", [np.float32(0.5), torch.tensor(0.5), np.array(0.5), np.array([0.5])])
def test_numbers_of_numpy_and_torch_are_options_of_trace_rules(lr):
    weights = []
    for value in (0.5, lr):
        net, link = _two_that_spike()
        net.learner = Learner(trainable=link, algorithm="stdp", lr=value)
        net.run(2.0)
        weights.append(link.weight.detach().clone())
    assert not torch.equal(weights[0], torch.full((2, 2), 0.5))
    assert torch.equal(*weights)


def _two_that_spike():
    net = Network()
    net.source = Generator(num=2, coding_method="cc_generator", rate=1.0)
    net.a, net.b = NeuronGroup(2), NeuronGroup(2)
    net.push = Connection(net.source, net.a, weight=1.5)
    net.link = Connection(net.a, net.b, weight=0.5)
    return net, net.link


@pytest.mark.parametrize(
    ("algorithm", "option", "value", "told"),
    [
        ("rstdpet", "lr", "0.1", "lr='0.1'; expected a finite number"),
        ("tempotron", "theta", "x", "theta='x'; expected a finite number"),
        ("bp_rstdp", "tau_et", "x", "tau_et=x; a time constant must be > 0 ms"),
        ("stdp", "lr", np.array([0.1, 0.2]), "stdp takes one number"),
    ],
)
def test_values_that_are_no_numbers_are_refused_by_their_option(algorithm, option, value, told):
    net, link = _two_that_spike()

    def learn():
        net.learner = Learner(trainable=link, algorithm=algorithm, **{option: value})
        net.run(1.0)

    with pytest.raises(InputError, match=told):
        learn()


def test_a_rule_without_a_step_is_refused_by_its_name():
    class Idle(Rule):
        pass

    net, link = _two_that_spike()
    net.learner = Learner(trainable=link, algorithm=Idle)
    with pytest.raises(InputError, match=r"Learner learner: Idle has no step\(self, m\)"):
        net.run(1.0)
