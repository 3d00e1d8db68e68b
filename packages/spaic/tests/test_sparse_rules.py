"""Learning rules on links that hold one weight a synapse, against dense links with a mask."""

import numpy as np
import pytest
import torch

from tenfold.spaic import (
    Connection,
    Encoder,
    Learner,
    Network,
    NeuronGroup,
    NeuronModel,
    Reward,
    SpikeMonitor,
)
from tenfold.spaic.network.learners import RULES, Forward

STEPS, BATCH, PRE, POST = 30, 2, 6, 4
HEARS = NeuronModel(
    name="given",
    inputs=("Isyn", "unheard"),
    states={"th": 0.0},
    step="O = Isyn + 0 * unheard\nth = th + 600 * O",
)
PATTERN = np.random.default_rng(7).random((POST, PRE)) < 0.5
GIVEN = {
    "resume": {"lr": 0.02},
    "psd": {"lr": 0.02},
    "span": {"lr": 0.1},
    "tempotron": {"lr": 0.05, "theta": 0.4},
    "spikeprop": {"lr": 0.05, "theta": 0.02},
    "triplet_stdp": {"lr": 0.2},
    "nearest_online_stdp": {"norm": 1.5},
    "full_online_stdp": {"norm": 1.5},
    "biohash": {"lr": 0.3, "p": 3.0},
    "homeostatic_scaling": {"lr": 0.05, "tau": 5.0},
    "switch_rstdp": {"w_max": 1.0},
    "rstdpet": {"lr": 0.1},
}
ALL = sorted(name for name, (rule, _) in RULES.items() if rule.sparse)


def spikes(size, seed, share=0.3):
    return (np.random.default_rng(seed).random((BATCH, STEPS, size)) < share).astype(float)


def learned(algorithm, start, low=1, **link):
    """Trains one link between groups of given spikes; returns its weight."""
    with Network(dtype=torch.float64) as net:
        left = Encoder(num=PRE, coding_method="null")
        right = Encoder(num=POST, coding_method="null")
        pre = NeuronGroup(PRE, model="null")
        post = NeuronGroup(POST, model=HEARS)
        Connection(left, pre, link_type="one_to_one", weight=np.eye(PRE))
        Connection(right, post, link_type="one_to_one", weight=np.eye(POST))
        con = Connection(pre, post, weight=start, post_var_name="unheard", **link)
        learner = Learner(trainable=[con], algorithm=algorithm, **GIVEN.get(algorithm, {}))
        Reward(dec_target=post, coding_method="environment_reward", name="signal")
    net.signal(np.array([0.5, -0.2, 0.3, 0.8]) if "switch" not in algorithm else 0.5)
    net.build(strategy=1)
    net.set_random_seed(3)  # sparse links have drawn more than dense ones
    shape = {"tempotron": (BATCH, POST), "spikeprop": (BATCH, POST)}.get(
        algorithm, (BATCH, POST, STEPS)
    )
    learner.teach((np.random.default_rng(3).random(shape) < 0.3).astype(float))
    for run in range(2):
        net.left(spikes(PRE, 2 * run))
        net.right(spikes(POST, 2 * run + 1))
        net.run(STEPS * 0.1)
    return con.weight.detach().numpy()


def test_rules_that_know_sparse_links_are_all_but_those_of_whole_matrices():
    others = {name for name, (rule, _) in RULES.items() if not rule.sparse and not rule.image}
    assert {name for name in others if not issubclass(RULES[name][0], Forward)} == {"force"}


@pytest.mark.parametrize("algorithm", ALL)
def test_a_sparse_link_learns_as_a_dense_one_with_its_mask(algorithm):
    sign = -1 if algorithm == "inhibitory_stdp" else 1
    start = sign * np.random.default_rng(2).uniform(0.2, 0.8, (POST, PRE)) * PATTERN
    if algorithm == "postpreintstdp":
        start = np.round(100 * start)
    dense = learned(algorithm, start, link_type="sparse", sparse_with_mask=True)
    post, pre = np.nonzero(PATTERN)
    order = np.random.default_rng(4).permutation(len(pre))  # in any order
    post, pre = post[order], pre[order]
    found = learned(algorithm, start[post, pre], link_type="index", pre_index=pre, post_index=post)
    assert np.abs(dense - start).max() > 1e-3
    np.testing.assert_array_equal(dense[~PATTERN], 0)
    np.testing.assert_allclose(found, dense[post, pre], rtol=1e-12, atol=1e-14)


KINDS = {
    "one_to_one": {"is_sparse": True},
    "sparse_sparse": {"density": 0.3},
    "random_connection_sparse": {"probability": 0.3},
    "fixed_in_degree": {"degree": 8},
    "index": {"pre_index": np.arange(40).repeat(2), "post_index": np.arange(80) % 37},
}


@pytest.mark.parametrize("kind", KINDS)
def test_stdp_of_sparse_links_by_events_equals_the_step_engine(kind):
    def run(engine):
        net = Network(dtype=torch.float64)
        net.set_random_seed(4)
        net.input = Encoder(num=40, coding_method="poisson")
        net.a, net.b = NeuronGroup(40, tau_m=5.0), NeuronGroup(40, tau_m=8.0)
        net.into = Connection(net.input, net.a, link_type="one_to_one_sparse", weight=1.2)
        weight = 1.2 if kind == "one_to_one" else 0.4
        delay = {"max_delay": 1.0, "min_delay": 0.2}  # two loops are compiled for all kinds
        delay = delay if kind in ("sparse_sparse", "fixed_in_degree") else {}
        net.link = Connection(net.a, net.b, link_type=kind, weight=weight, **KINDS[kind], **delay)
        net.spikes = SpikeMonitor(net.b)
        net.learner = Learner([net.link], algorithm="stdp", lr=0.01)
        net.build(engine=engine)
        net.input(np.random.default_rng(1).uniform(0, 3, (1, 40)))
        net.run(15.0)
        net.run_continue(10.0)
        return net

    one, two = run("step"), run("event")
    counts = [net.spikes.spk_count for net in (one, two)]
    assert counts[0].sum() > 20
    np.testing.assert_array_equal(*counts)
    a, b = one.link.weight, two.link.weight
    assert a.std() > 0.005  # they began equal
    torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-13)
