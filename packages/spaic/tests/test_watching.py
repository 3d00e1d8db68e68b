"""What monitors see (section 2.5): inputs, rewards, indices, several runs; and what they refuse."""

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
    Reward,
    SpikeMonitor,
    StateMonitor,
)


def pair(engine="step", **monitors):
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=3, coding_method="null")
        cell = NeuronGroup(2, model="lif")
        link = Connection(source, cell, weight=np.arange(6.0).reshape(2, 3))
        counts = Decoder(dec_target=cell, num=2, coding_method="spike_counts")
        learner = Learner(algorithm="sbp")
    learner.trainable = [link, cell]
    for name, make in monitors.items():
        net.add(name, make(net))
    net.build(strategy=1, engine=engine)
    assert counts
    return net


@pytest.mark.parametrize("engine", ["step", "scan"])
def test_the_input_of_a_group_is_recorded_and_the_official_tag_is_understood(engine):
    net = pair(
        engine,
        arrived=lambda net: StateMonitor(net.cell, "Isyn[updated]"),
        spikes=lambda net: SpikeMonitor(net.cell, "O[updated]"),
        potential=lambda net: StateMonitor(net.cell, "V"),
    )
    x = np.random.default_rng(0).random((4, 7, 3))
    net.source(x)
    net.run(0.7)
    weight = np.arange(6.0).reshape(2, 3)
    np.testing.assert_allclose(net.arrived.values, np.einsum("btj,ij->bit", x, weight), rtol=1e-12)
    assert net.engine_note.startswith(engine)
    assert net.spikes.spk_count.sum() == net.counts.predict.sum() > 0


def test_the_input_of_a_group_linked_to_itself_is_recorded_by_the_step_engine():
    with Network() as net:
        cell = NeuronGroup(2, model="lif", initial={"V": [2.0, 0.0]})
        Connection(cell, cell, weight=[[0.0, 0.0], [0.75, 0.0]])
        seen = StateMonitor(cell, "Isyn")
        Learner(trainable=cell, algorithm="sbp")
    net.run(0.3)
    assert net.engine_note.startswith("step")
    assert seen.values[0, 1].tolist() == [0.0, 0.75, 0.0]


def test_a_large_circuit_whose_input_is_recorded_is_left_to_the_step_engine():
    with Network() as net:
        cell = NeuronGroup(600, model="lif")
        watch = StateMonitor(cell, "Isyn")
    net.run(0.2)
    assert net.engine_note.startswith("step")
    assert "what arrives at each step" in net.engine_note
    assert watch.values.shape == (1, 600, 2)


def test_a_reward_is_recorded():
    with Network(dtype=torch.float64) as net:
        cell = NeuronGroup(2, model="lif", initial={"V": [0.0, 2.0]})
        judge = Reward(dec_target=cell, num=2, coding_method="global_reward", reward_signal=0.1)
        each = Reward(
            dec_target=cell,
            num=2,
            coding_method="da_reward",
            dec_sample_step=2,
            reward_shape=(1, 2),
        )
        watch = StateMonitor(judge, "Output_Reward")
        shaped = StateMonitor(each, "Output_Reward")
    judge([1])
    each([1])
    net.run(0.3)
    assert watch.values.tolist() == [[[0.1, -1.0, -1.0]]]  # a spike of neuron 1, then none
    assert shaped.values.tolist() == [[[[0.0, 0.0, 0.0], [0.0, 1.0, 1.0]]]]
    assert judge.value.dtype == torch.float64


def test_an_index_is_without_or_with_the_batch():
    x = np.random.default_rng(1).random((4, 5, 3))
    net = pair(
        whole=lambda net: StateMonitor(net.cell, "V"),
        one=lambda net: StateMonitor(net.cell, "V", index=1),
        sample=lambda net: StateMonitor(net.cell, "V", index=(2, 1)),
        some=lambda net: StateMonitor(net.cell, "V", index=([0, 3], slice(None))),
        spikes=lambda net: SpikeMonitor(net.cell, index=1),
        spike=lambda net: SpikeMonitor(net.cell, index=(-1, 1)),
        raster=lambda net: SpikeMonitor(net.cell),
    )
    net.source(x)
    net.run(0.5)
    whole = net.whole.values
    np.testing.assert_array_equal(net.one.values, whole[:, 1])
    np.testing.assert_array_equal(net.sample.values, whole[2:3, 1])
    np.testing.assert_array_equal(net.some.values, whole[[0, 3]])
    np.testing.assert_array_equal(net.spikes.values[:, 0], net.raster.values[:, 1])
    np.testing.assert_array_equal(net.spike.values[0, 0], net.raster.values[-1, 1])


@pytest.mark.parametrize("index", [2, (4, 0), (0, 0, 0)])
def test_an_index_that_does_not_fit_is_told_with_the_shape(index):
    net = pair(watch=lambda net: StateMonitor(net.cell, "V", index=index))
    net.source(np.ones((4, 5, 3)))
    with pytest.raises(InputError, match=r"watch: index=.* of shape \(4, 2\), the batch first"):
        net.run(0.5)


def test_spike_monitors_keep_runs_and_runs_may_differ():
    net = pair(
        spikes=lambda net: SpikeMonitor(net.cell, nbatch=2),
        trace=lambda net: StateMonitor(net.cell, "V", nbatch=True),
    )
    rasters = []
    for steps in (3, 3, 5):
        net.source(np.random.default_rng(steps).random((2, steps, 3)))
        net.run(0.1 * steps)
        rasters.append(net.spikes.values)
        if len(rasters) == 2:
            np.testing.assert_array_equal(net.spikes.nbatch_values, np.stack(rasters))
            np.testing.assert_allclose(net.spikes.nbatch_times, [[0.1, 0.2, 0.3]] * 2)
    kept = net.spikes.nbatch_runs
    assert [len(times) for _, times in kept] == [3, 5]
    np.testing.assert_array_equal(kept[0][0], rasters[1])
    assert [values.shape for values, _ in net.trace.nbatch_runs] == [(2, 2, 3)] * 2 + [(2, 2, 5)]
    with pytest.raises(InputError, match=r"shapes \(2, 2, 3\), \(2, 2, 5\); read nbatch_runs"):
        _ = net.spikes.nbatch_values
    with pytest.raises(InputError, match="nbatch=-1; expected False, True or a number"):
        SpikeMonitor(net.cell, nbatch=-1)


def test_what_cannot_be_watched_is_told():
    net = pair()
    for target, name, told in (
        (net.learner, "weight", "learner has rules of 0 connections; traces are recorded"),
        (net.counts, "O", "Decoder counts has no variable 'O'; it has none"),
        (net.source, "V", "Encoder source has no variable 'V'; it has O"),
        (net.cell, "U", "NeuronGroup cell has no variable 'U'; it has V, O, Isyn"),
        (NeuronGroup(2, name="far"), "V", "refers to NeuronGroup far, which is not in the network"),
    ):
        net.watch = StateMonitor(target, name)
        net.source(np.ones((1, 5, 3)))
        with pytest.raises(InputError, match=told):
            net.run(0.5)
        del net.watch
