"""Rules that a user writes in a subclass of `Learner` (section 10: hooks for custom rules)."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic import (
    Connection,
    Decoder,
    Encoder,
    GroupRule,
    Learner,
    Network,
    NeuronGroup,
    NeuronModel,
    Reward,
    Rule,
    network_load,
    network_save,
)
from tenfold.spaic.network.learners import SURROGATES, PairSTDP


def circuit(learner_of, reward=False, steps=60, **link_options):
    """Two groups that spike by themselves, with one link to train."""
    random = np.random.default_rng(0)
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=6, coding_method="null")
        pre = NeuronGroup(6, model="null")
        post = NeuronGroup(4, model="lif", tau_m=4.0)
        Connection(source, pre, link_type="one_to_one", weight=np.eye(6))
        given = link_options or {"weight": random.uniform(0.2, 0.8, (4, 6))}
        link = Connection(pre, post, **given)
        learner = learner_of(link, post)
        if reward:
            Reward(dec_target=post, coding_method="environment_reward", name="signal")
    if reward:
        net.signal(0.4)
    net.build(engine="step")
    for _ in range(2):
        net.source((random.random((2, steps, 6)) < 0.3).astype(float))
        net.run(steps * net.dt)
    return link.weight.detach(), learner, net


class NearestPairs(Rule):
    """Nearest-neighbour additive STDP as a class."""

    options = {"lr": 0.01}  # noqa: RUF012

    def step(self, m):
        keep = math.exp(-m.dt / 20)
        x, y = self.trace("x", m.x) * keep, self.trace("y", m.y) * keep
        change = self.outer(m.y_now, x) - self.outer(y, m.x_now)
        self.weight.add_(self.lr * change).clamp_(0, 1)
        self.traces.update(x=torch.maximum(x, m.x_now), y=torch.maximum(y, m.y_now))


class ByFunction(Learner):
    """The same rule, written in the hook."""

    def connection_rule(self, con, backend, obj_type):
        if obj_type != "trainable":
            return None
        keep = math.exp(-backend.dt / 20)

        def step(rule, m):
            x, y = rule.trace("x", m.x) * keep, rule.trace("y", m.y) * keep
            change = rule.outer(m.y_now, x) - rule.outer(y, m.x_now)
            rule.weight.add_(0.01 * change).clamp_(0, 1)
            rule.traces.update(x=torch.maximum(x, m.x_now), y=torch.maximum(y, m.y_now))

        return step


class ByObject(Learner):
    def connection_rule(self, con, backend, obj_type):
        return NearestPairs(con, lr=0.01)


class Whole(Learner):
    def custom_rule(self, backend):
        return [NearestPairs(con, lr=0.01) for con in self.trainable]


@pytest.mark.parametrize("hooked", [ByFunction, ByObject, Whole])
def test_a_rule_of_a_hook_is_the_rule_as_a_class_bit_by_bit(hooked):
    expected, _, _ = circuit(lambda link, post: Learner(link, algorithm=NearestPairs, lr=0.01))
    start, _, _ = circuit(lambda link, post: Learner(link, algorithm=NearestPairs, lr=0.0))
    found, learner, net = circuit(lambda link, post: hooked([link]))
    assert (expected - start).abs().max() > 0.01
    assert torch.equal(found, expected)
    assert learner.algorithm == hooked.__name__
    assert net.engine_note.startswith("step")


def test_a_function_of_a_hook_knows_sparse_links():
    pattern = np.random.default_rng(5).random((4, 6)) < 0.5
    post, pre = np.nonzero(pattern)
    given = {"link_type": "index", "pre_index": pre, "post_index": post, "weight": 0.5}
    found, _, _ = circuit(lambda link, post: ByFunction([link]), **given)
    dense, _, _ = circuit(
        lambda link, post: ByFunction([link]),
        link_type="sparse",
        weight=0.5 * pattern,
        sparse_with_mask=True,
    )
    assert (dense[pattern] - 0.5).abs().max() > 0.01
    torch.testing.assert_close(found, dense[pattern], rtol=1e-12, atol=1e-14)


def test_the_rule_of_the_readme_is_pair_stdp():
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", text, re.S) if "class MySTDP" in b)
    scope = {}
    exec(block, scope)
    found, _, _ = circuit(lambda link, post: scope["MySTDP"](link))
    options = {"lr": 0.01, "alpha": 1.1, "mu_plus": 0.0, "mu_minus": 0.0}
    expected, _, _ = circuit(lambda link, post: Learner(link, algorithm="stdp", **options))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


class Mixed(Learner):
    """Leaves what it does not know to the algorithm."""

    asked: list

    def connection_rule(self, con, backend, obj_type):
        self.asked.append((con.name, obj_type))
        return NearestPairs(con) if con.name == "first" else None

    def neuron_rule(self, group, backend, obj_type):
        self.asked.append((group.name, obj_type))
        assert backend.groups[id(group)].model.name == "lif"
        return SURROGATES["Triangle"] if obj_type == "pathway" else None


def test_hooks_are_asked_at_each_build_and_the_algorithm_takes_the_rest():
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=5, coding_method="null")
        one, two = NeuronGroup(4, model="lif"), NeuronGroup(3, model="lif")
        first = Connection(source, one, w_mean=0.4)
        second = Connection(one, two, w_mean=0.5)
        counts = Decoder(dec_target=two, num=3, coding_method="spike_counts")
        learner = Mixed([first, second, two], [one], "stbp")
    learner.asked = []
    net.source(np.zeros((1, 20, 5)))
    net.build()
    wanted = [("first", "trainable"), ("second", "trainable"), ("two", "trainable")]
    assert learner.asked == [*wanted, ("one", "pathway")]
    net.run(0.1)
    assert len(learner.asked) == 4
    net.build()
    assert len(learner.asked) == 8
    assert net._plan.groups[id(one)].surrogate == SURROGATES["Triangle"]
    assert net._plan.groups[id(two)].surrogate.name == "stbp"
    before = [link.weight.detach().clone() for link in (first, second)]
    learner.set_optimizer("SGD", lr=0.1)
    assert [id(p) for p in learner.optimizer.param_groups[0]["params"]] == [id(second.weight)]
    net.source((np.random.default_rng(0).random((4, 20, 5)) < 0.6).astype(float))
    net.run(2.0)
    counts.predict.pow(2).sum().backward()
    learner.optim_step()
    for link, old in zip((first, second), before, strict=True):
        assert not torch.equal(link.weight, old)
    assert first.weight.grad is None


HELD = NeuronModel(
    name="held",
    states={"V": 0.0, "theta": 0.0},
    parameters={"tau_m": 4.0},
    stay=("theta",),
    step="V = V * exp(-0.1 / tau_m) + Isyn\nO = spike(V - 0.5 - theta)\nV = where(O > 0, 0.0, V)",
)


class Threshold(GroupRule):
    """Intrinsic plasticity: the threshold grows with each spike and falls in between."""

    options = {"rate": 0.1}  # noqa: RUF012

    def step(self, m):
        m.state["theta"] = m.state["theta"] + 0.05 * (m.y_now - self.rate)


class Intrinsic(Learner):
    def neuron_rule(self, group, backend, obj_type):
        return lambda rule, m: m.state.update(theta=m.state["theta"] + 0.05 * (m.y_now - 0.1))


def test_a_rule_of_a_group_changes_its_states():
    def run(learner_of):
        with Network(dtype=torch.float64) as net:
            source = Encoder(num=3, coding_method="null")
            cell = NeuronGroup(3, model=HELD)
            Connection(source, cell, link_type="one_to_one", weight=np.eye(3))
            learner = learner_of(cell)
            counts = Decoder(dec_target=cell, num=3, coding_method="spike_counts")
        net.build(strategy=1)
        net.source(np.tile([0.1, 0.3, 0.45], (1, 400, 1)))
        made = []
        for _ in range(3):
            net.run(40.0)
            made.append(counts.predict[0] / 400)
        assert learner.make_rules(net._plan, net._random)
        return made, net.variable(cell, "theta")

    made, theta = run(lambda cell: Learner(cell, algorithm=Threshold))
    other, same = run(lambda cell: Intrinsic(cell))
    assert torch.equal(theta, same)
    assert torch.equal(made[-1], other[-1])
    assert (made[0] - 0.1).abs().max() > 0.03
    torch.testing.assert_close(made[-1], torch.full_like(made[-1], 0.1), atol=0.01, rtol=0)


class Rewarded(Learner):
    def connection_rule(self, con, backend, obj_type):
        return lambda rule, m: rule.weight.add_(1e-3 * m.reward * rule.outer(m.y_now, m.x_now))


def test_a_function_of_a_hook_sees_the_reward_and_the_states_of_its_target():
    found, _, _ = circuit(lambda link, post: Rewarded(link), reward=True)
    start, _, _ = circuit(lambda link, post: Learner(link, algorithm=NearestPairs, lr=0.0))
    assert (found - start).min() > 0

    class Clopath(Learner):
        def connection_rule(self, con, backend, obj_type):
            def step(rule, m):
                assert set(m.state) == {"V", "O"}
                rule.weight.add_(1e-3 * rule.outer(m.state["V"].clamp(min=0), m.x_now))

            return step

    found, _, _ = circuit(lambda link, post: Clopath(link))
    assert (found - start).max() > 1e-3


def test_rules_of_users_are_handed_in_where_a_file_is_loaded(tmp_path):
    for number, learner_of in enumerate((ByFunction, lambda x: Learner(x, algorithm=NearestPairs))):
        with Network() as net:
            cell = NeuronGroup(3)
            link = Connection(cell, cell)
            learner = learner_of(link)
        path = network_save(net, tmp_path / f"net{number}")
        given = ByFunction if number == 0 else NearestPairs
        with pytest.raises(InputError, match=given.__name__):
            network_load(path)
        again = network_load(path, functions={given.__name__: given})
        assert type(again.learner) is type(learner)
        assert again.learner.rule is learner.rule


def test_what_a_hook_may_not_give_is_said():
    def built(learner_class, said):
        with pytest.raises(InputError, match=said):
            circuit(lambda link, post: learner_class([link, post]))

    class Nothing(Learner):
        def connection_rule(self, con, backend, obj_type):
            return None

    class Number(Learner):
        def connection_rule(self, con, backend, obj_type):
            return 3

    class Other(Learner):
        def connection_rule(self, con, backend, obj_type):
            return PairSTDP(next(c for c in backend.links if c is not con))

    class Loose(Learner):
        def custom_rule(self, backend):
            return lambda rule, m: None

    class Misnamed(Learner):
        def neuron_rule(self, group, backend, obj_type):
            return lambda rule, m: m.state.update(U=m.y_now)

    built(Nothing, "Nothing learner has no algorithm, and its hooks gave no rule")
    built(Number, "connection_rule gave 3; expected a rule, a function of a rule and a moment")
    built(Other, "connection_rule gave a rule of Connection .* when asked for Connection link")
    built(Loose, "custom_rule gave <function .*; expected rules of connections or groups")

    class Mistaken(Learner):
        def connection_rule(self, con, backend, obj_type):
            return NearestPairs(con, rate=0.1)

    built(Mistaken, "unknown option of NearestPairs 'rate'")
    built(Misnamed, r"gives NeuronGroup post the state U of shape \(2, 4\); it has V, O")
