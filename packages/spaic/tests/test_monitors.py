"""What monitors record, in which shape (section 2.5)."""

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

TRAIN = np.zeros((2, 6, 4))
TRAIN[0, 1, 2] = TRAIN[0, 3, 0] = TRAIN[0, 4, 2] = TRAIN[1, 5, 1] = 1


def watched(**options):
    with Network() as net:
        source = Encoder(num=4, coding_method="null")
        cell = NeuronGroup(shape=(2, 2), model="null")
        Connection(source, cell, link_type="one_to_one", weight=np.eye(4))
        spikes, state = SpikeMonitor(cell, **options), StateMonitor(cell, "O", **options)
    net.build(strategy=1)
    net.source(TRAIN)
    net.run(0.6)
    assert spikes.name == "spikes"
    assert state.name == "state"
    return net


def test_spikes_are_sorted_by_neuron_then_time():
    net = watched()
    assert net.spikes.spk_index[0].tolist() == [0, 2, 2]
    np.testing.assert_allclose(net.spikes.spk_times[0], [0.4, 0.2, 0.5])
    assert net.spikes.spk_count.tolist() == [[1, 0, 2, 0], [0, 1, 0, 0]]
    np.testing.assert_array_equal(net.spikes.values, TRAIN.transpose(0, 2, 1))
    np.testing.assert_array_equal(net.spikes.time_spk_rate, TRAIN.mean(0).T)
    np.testing.assert_array_equal(net.spikes.time_pop_rate, TRAIN.mean(2))
    np.testing.assert_allclose(net.spikes.time, 0.1 * np.arange(1, 7))
    assert net.state.values.shape == (2, 2, 2, 6)
    np.testing.assert_array_equal(net.state.values.reshape(2, 4, 6), net.spikes.values)
    assert torch.equal(net.state.tensor_values, torch.as_tensor(net.state.values))


@pytest.mark.parametrize(
    ("index", "taken"),
    [
        ((slice(None), 1), np.s_[:, :, 1]),
        (1, np.s_[:, 1]),
        (([0, 1], [1, 0]), np.s_[:, [0, 1], [1, 0]]),
        ((1, slice(None), slice(None)), np.s_[1:2]),
        ((-1, 0, slice(None)), np.s_[1:2, 0]),
        ((slice(0, 1), 0, 1), np.s_[0:1, 0, 1]),
        (([1, 0], 0, 0), np.s_[[1, 0], 0, 0]),
    ],
)
def test_an_index_may_have_the_batch_axis(index, taken):
    net = watched(index=index)
    whole = TRAIN.reshape(2, 6, 2, 2).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(net.state.values, whole[taken])
    rows = whole[taken].reshape(len(whole[taken]), -1, 6)
    np.testing.assert_array_equal(net.spikes.values, rows)
    np.testing.assert_array_equal(net.spikes.spk_count, rows.sum(2))


def test_runs_are_kept_and_stacked():
    for kept, expected in ((True, 3), (2, 2), (1, 1), (False, 1)):
        net = watched(nbatch=kept)
        for _ in range(2):
            net.run(0.6)
        assert net.spikes.nbatch_values.shape == (expected, 2, 4, 6)
        assert net.state.nbatch_values.shape == (expected, 2, 2, 2, 6)
        assert net.state.nbatch_times.shape == (expected, 6)
        np.testing.assert_array_equal(net.spikes.nbatch_times[0], net.spikes.times)
    net = watched(nbatch=True)
    net.run(0.3)
    with pytest.raises(InputError, match=r"its runs have the shapes .*; read nbatch_runs"):
        _ = net.state.nbatch_values
    net.state.clear()
    with pytest.raises(InputError, match="has recorded nothing yet"):
        _ = net.state.values
    net.state.monitor_off()
    net.run(0.3)
    assert len(net.state.times) == 0
    net.state.monitor_on()
    net.run(0.3)
    assert len(net.state.times) == 3


def test_spikes_from_outside_are_inserted():
    net = watched()
    net.spikes.push_spike_train([0.3, 0.9], [3, 3], batch_index=1)
    assert net.spikes.spk_count.tolist() == [[1, 0, 2, 0], [0, 1, 0, 2]]
    assert net.spikes.spk_times[1].tolist() == pytest.approx([0.6, 0.3, 0.9])
    assert net.spikes.values[1, 3].tolist() == [0, 0, 1, 0, 0, 0]  # 0.9 ms is after the run
    assert net.spikes.time_pop_rate[1].tolist() == [0, 0, 0.25, 0, 0, 0.25]
    fresh = SpikeMonitor(NeuronGroup(3))  # hardware alone, no run
    fresh.push_spike_train(np.array([2.0, 1.0]), np.array([2, 0]))
    assert fresh.spk_count.tolist() == [[1, 0, 1]]
    with pytest.raises(InputError, match=r"neurons 3\.\.3; expected 0\.\.2"):
        fresh.push_spike_train([1.0], [3])
    with pytest.raises(InputError, match=r"\(1,\) times and \(2,\) neurons"):
        fresh.push_spike_train([1.0], [0, 1])


def trained(get_grad):
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=2, coding_method="float")
        cell = NeuronGroup(2, model="nonspikingifb")
        link = Connection(source, cell, weight=[[0.3, 0.2], [0.1, 0.4]])
        out = Decoder(dec_target=cell, coding_method="final_step_voltage", coding_var_name="V")
        learner = Learner(algorithm="sbp")
        state = StateMonitor(cell, "V", get_grad=get_grad)
        weight = StateMonitor(link, "weight", get_grad=get_grad, nbatch=True)
    learner.trainable = [net]
    learner.set_optimizer("SGD", lr=0.5)
    net.build(strategy=1)
    net.source([[1.0, 2.0]])
    net.run(0.3)
    (out.predict * torch.tensor([[1.0, 3.0]])).sum().backward()
    assert (state.name, weight.name) == ("state", "weight")
    return net, link


def test_gradients_are_kept_from_the_first_step_on():
    net, link = trained(True)
    assert net.state.grads.tolist() == [[[1.0] * 3, [3.0] * 3]]  # V only adds up
    expected = np.tile(np.array([[3, 6], [9, 18.0]])[None, :, :, None], 3)
    np.testing.assert_allclose(net.weight.grads, expected)
    np.testing.assert_allclose(link.weight.grad, expected[0, :, :, 0])


def test_recorded_weights_do_not_change_with_the_optimiser():
    net, link = trained(False)
    before = link.weight.detach().numpy().copy()
    net.learner.optim_step()
    assert not np.allclose(before, link.weight.detach())
    np.testing.assert_array_equal(net.weight.values[0, :, :, -1], before)
    net.run(0.3)
    np.testing.assert_array_equal(net.weight.nbatch_values[0, 0, :, :, 0], before)
    np.testing.assert_array_equal(net.weight.nbatch_values[1, 0, :, :, 0], link.weight.detach())


def test_recorded_weights_are_shown_as_images():
    with Network() as net:
        source, cell = Encoder(num=9, coding_method="float"), NeuronGroup(4)
        link = Connection(source, cell, weight=np.arange(36.0).reshape(4, 9))
        weight = StateMonitor(link, "weight")
    net.source(np.zeros((1, 9)))
    net.run(0.1)
    with torch.no_grad():
        link.weight.mul_(2)
    net.run_continue(0.1)
    tiles = np.arange(36.0).reshape(2, 2, 3, 3).swapaxes(1, 2).reshape(6, 6)
    image = weight.plot_weight(time_id=0, wmin=0.0, wmax=50.0)
    np.testing.assert_array_equal(image.get_array(), tiles)
    assert (image.get_clim(), image.get_cmap().name) == ((0.0, 50.0), "hot_r")
    again = weight.plot_weight(im=image)
    assert again is image
    np.testing.assert_array_equal(image.get_array(), 2 * tiles)
    one = weight.plot_weight(0, neuron_id=2, batch_id=0, n_sqrt=1, side=3, cmap="gray")
    np.testing.assert_array_equal(one.get_array(), np.arange(18.0, 27).reshape(3, 3))
    whole = weight.plot_weight(0, reshape=False)
    np.testing.assert_array_equal(whole.get_array(), np.arange(36.0).reshape(4, 9))
    with pytest.raises(InputError, match=r"\(4, 9\) cannot be shown as images of 4 × 4 pixels"):
        weight.plot_weight(side=4)


def test_rewards_and_traces_of_rules_are_recorded():
    with Network() as net:
        source = Encoder(num=2, coding_method="null")
        cell = NeuronGroup(2, model="null")
        link = Connection(source, cell, weight=np.eye(2))
        good = Reward(dec_target=cell, coding_method="global_reward")
        rule = Learner(trainable=link, algorithm="nearest_online_stdp")
        given, trace = StateMonitor(good, "Output_Reward"), StateMonitor(rule, "x")
    net.build(strategy=1)
    net.good([0])
    net.source(np.array([[[1.0, 0], [0, 1], [1, 0]]]))
    net.run(0.3)
    assert given.values[0, 0].tolist() == [1, -1, 1]
    beta = np.exp(-1 / 20)
    np.testing.assert_allclose(trace.values[0, :, :], [[0, 1, beta], [0, 0, 1]], rtol=1e-6)
    trace.var_name = "z"
    with pytest.raises(InputError, match="unknown trace of Learner rule 'z'"):
        net.run(0.1)
