"""What rules learn or draw besides weights outlives runs and builds, and is saved."""

import numpy as np
import pytest
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic import (
    Connection,
    Encoder,
    Learner,
    Network,
    NeuronGroup,
    Reward,
    StateMonitor,
    load_state,
    save_state,
)

MEMORY = {
    "bp_rstdp": {"feedback"},
    "force": {"inverse"},
    "meta_nearest_online_stdp": {"kept", "mean"},
    "eprop": {"drawn"},
}
OPTIONS = {"force": {"tau": 5.0}, "eprop": {"feedback": "random"}}
DATA = (np.random.default_rng(0).random((1, 30, 6)) < 0.4).astype(float)


def built(algorithm, seed=1):
    net = Network(dtype=torch.float64)
    net.source = Encoder(num=6, coding_method="null")
    net.cells, net.out = NeuronGroup(4), NeuronGroup(3, model="li")
    net.first = Connection(net.source, net.cells, w_mean=0.4, w_std=0.1)
    net.second = Connection(net.cells, net.out, w_mean=0.4, w_std=0.1)
    net.signal = Reward(dec_target=net.cells, coding_method="environment_reward")
    net.signal([0.7, -0.2])
    learned = [net.first, net.second] if algorithm == "eprop" else [net.first]
    net.learner = Learner(
        trainable=learned, algorithm=algorithm, reward=net.signal, **OPTIONS.get(algorithm, {})
    )
    post = 3 if algorithm == "eprop" else 4
    net.learner.teach(np.random.default_rng(2).random((1, post, 30)))
    net.set_random_seed(seed)
    net.build(strategy=1)
    return net


def run(net):
    net.source(DATA)
    net.run(3.0)
    return net.first.weight.detach().clone()


def memory(net):
    found = net.learner.memory().values()
    return {
        (rule.con.name, name): getattr(rule, name)
        for rule, name in found
        if getattr(rule, name) is not None
    }


@pytest.mark.parametrize("algorithm", MEMORY)
def test_memory_outlives_a_network_that_is_built_anew(algorithm):
    kept, edited = built(algorithm), built(algorithm)
    assert torch.equal(run(kept), run(edited))
    assert {name for _, name in memory(kept)} == MEMORY[algorithm]
    edited.watch = StateMonitor(edited.cells, "V")  # the network is built anew
    edited.set_random_seed(5)  # the engine is made anew; what is fixed stays
    assert torch.equal(run(kept), run(edited))
    for key, value in memory(kept).items():
        assert torch.equal(memory(edited)[key], value)
    if "feedback" in MEMORY[algorithm] | {"drawn"}:
        other = built(algorithm, seed=2)
        run(other)
        fixed = [key for key in memory(kept) if key[1] in ("feedback", "drawn")]
        assert all(not torch.equal(memory(other)[k], memory(kept)[k]) for k in fixed)


@pytest.mark.parametrize("algorithm", MEMORY)
def test_memory_is_saved_and_loaded_with_the_state(algorithm, tmp_path):
    net, again = built(algorithm), built(algorithm, seed=7)
    run(net)
    load_state(again, save_state(net, tmp_path / "state.safetensors"))
    for key, value in memory(net).items():
        assert torch.equal(memory(again)[key], value)
    assert torch.equal(run(net), run(again))


def test_a_memory_that_does_not_fit_is_refused_and_nothing_changes():
    net, again = built("force"), built("force", seed=7)
    run(net)
    state = net.save_state(save=False)
    (name,) = [key for key in state if key.endswith("{inverse}")]
    before = again.first.weight.detach().clone()
    for wrong, told in (
        (torch.zeros(5, 6, dtype=torch.float64), r"inverse of FORCE has shape \(5, 6\).*\(6, 6\)"),
        (torch.full((6, 6), torch.nan), "inverse of FORCE holds what is not a finite"),
    ):
        with pytest.raises(InputError, match=told):
            load_state(again, state | {name: wrong})
    with pytest.raises(InputError, match="which Network net does not have"):
        load_state(built("bp_rstdp"), state)
    assert torch.equal(again.first.weight, before)


@pytest.mark.parametrize("algorithm", ["stdp", "eprop"])
def test_a_run_that_goes_on_after_an_edit_keeps_its_traces(algorithm):
    def weights(edited):
        net = built(algorithm)
        net.source(DATA[:, :15])
        net.run(1.5)
        if edited:
            net.watch = StateMonitor(net.cells, "V")
        net.source(DATA[:, 15:])
        net.run_continue(1.5)
        return net.first.weight

    assert torch.equal(weights(True), weights(False))
