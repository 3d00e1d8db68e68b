"""Encoders, synapses, decoders and monitors against the facts of section 21."""

import numpy as np
import pytest
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic import (
    Action,
    Connection,
    Decoder,
    Encoder,
    Generator,
    Network,
    NeuronGroup,
    Reward,
    SpikeMonitor,
    StateMonitor,
)


def emitted(x, method, steps, dt=1.0, **options):
    x = np.asarray(x, dtype=np.float32)[None]
    node = Encoder(num=x.shape[1], coding_method=method, **options)
    node.generator = torch.Generator().manual_seed(0)
    node(x)
    node.start(steps, dt)
    return torch.stack([node.emit(k)[0] for k in range(steps)]).numpy()


def steps_of(train):
    return [np.flatnonzero(row).tolist() for row in train.T]


RAMP = [0, 0.25, 0.5, 0.75, 1]


def test_latency_codings_spike_at_the_official_steps():
    assert steps_of(emitted(RAMP, "latency", 10)) == [[9], [6], [4], [2], [0]]
    assert steps_of(emitted(RAMP, "latency", 10, cut_off=True)) == [[], [6], [4], [2], [0]]
    assert steps_of(emitted(RAMP, "relative_latency", 10)) == [[], [3], [2], [0], [0]]


def test_uniform_and_given_times_spike_at_the_official_steps():
    found = steps_of(emitted(RAMP, "uniform", 20))
    assert found == [[], [15], [10], [5, 11, 17], list(range(20))]
    found = steps_of(emitted([0.9, 0.5, 0.2, 0.7, 0.1], "sstb", 10, dt=0.1))
    assert found == [[9], [5], [2], [7], [1]]


def test_a_poisson_rate_is_in_events_a_ms():
    for dt, expected in ((0.1, 0.05), (1.0, 0.5)):
        found = emitted(np.full(2000, 0.5), "poisson", 50, dt=dt).mean()
        assert found == pytest.approx(expected, rel=0.02)


def test_spike_lists_add_up_duplicates():
    node = Encoder(num=3, coding_method="mstb")
    node([([0.1, 0.15, 0.9], [0, 0, 2]), ([], [])])
    node.start(5, 0.1)
    found = torch.stack([node.emit(k) for k in range(5)])
    assert found[1, 0].tolist() == [2, 0, 0]
    assert found[4, 0].tolist() == [0, 0, 1]
    assert found[:, 1].sum() == 0


def test_the_second_poisson_generator_has_its_rate_a_ms_and_one_spike_a_step():
    for dt in (0.1, 1.0):
        node = Generator(num=2000, coding_method="poisson_generator2", rate=0.4, end_time=40.0)
        node.generator = torch.Generator().manual_seed(0)
        node.start(50, dt)
        found = torch.stack([node.emit(k)[0] for k in range(50)]).numpy()
        assert set(np.unique(found)) == {0, 1}
        assert found[:40].mean() == pytest.approx(0.4 * dt, rel=0.02)
        assert (found[40:].sum() == 0) == (dt == 1.0)


@pytest.mark.parametrize(
    ("method", "rate", "expected"),
    [
        ("sin", [2.0, 4.0], [0, 2, 0, -2]),
        ("ramp", [1000.0, 2000.0], [2, 3, 4, 5]),
        ("constant_current", 1.5, [1.5] * 4),
    ],
)
def test_generators_follow_their_formula_for_every_channel(method, rate, expected):
    node = Generator(num=3, coding_method=method, rate=rate)
    node.start(4, 1.0)
    found = torch.stack([node.emit(k)[0] for k in range(4)]).numpy()
    np.testing.assert_allclose(found, np.tile(np.array(expected)[:, None], 3), atol=1e-6)


def impulse(syn_type, steps=6, **options):
    with Network(compat="spaic") as net:
        source = Encoder(num=1, coding_method="null")
        cell = NeuronGroup(1, model="null")
        Connection(source, cell, weight=[[1.0]], syn_type=syn_type, **options)
    watch = StateMonitor(cell, "O")
    net.add_monitor("watch", watch)
    net.source(np.eye(1, steps)[:, :, None])
    net.run(steps * 0.1)
    return watch.values[0, 0]


def test_synapses_answer_an_impulse_as_the_official_ones():
    expected = [0, 1, 0.9512295, 0.9048375, 0.8607081, 0.8187308]
    np.testing.assert_allclose(impulse("1_order_synapse"), expected, rtol=1e-6)
    expected = [0, 0, 0.0377209, 0.0731853, 0.106508, 0.1377978]
    np.testing.assert_allclose(impulse("2_order_synapse"), expected, atol=1e-6)


def test_an_alpha_synapse_peaks_at_one_after_tau():
    found = impulse("alpha_synapse", steps=100, syn_kwargs={"tau": 2.0})
    assert found.max() == pytest.approx(1.0, abs=1e-6)
    assert found.argmax() == 21  # one step of the connection, then 2 ms


def test_the_rotating_synapse_has_the_kernel_of_the_card():
    options = {"tau": 10.0, "rot_k": 6.0, "max_delay": 5.0}
    found = impulse("delay_complex_synapse", 400, delay=[[3.0]], syn_kwargs=options)
    t = np.arange(400) * 0.1 - 3.1  # the connection's step and the delay
    kernel = np.where(t > 0, 0.1 * np.exp(-t / 10) * np.sin(np.pi * t / 60), 0)
    assert np.abs(found - kernel).max() < 0.05 * kernel.max()


def test_short_term_plasticity_depresses_as_its_equations():
    steps, dt, u0, rise, rest = 40, 0.1, 0.5, 50.0, 100.0
    with Network() as net:
        source = Encoder(num=1, coding_method="null")
        cell = NeuronGroup(1, model="null")
        kwargs = {"U": u0, "tau_f": rise, "tau_d": rest}
        Connection(source, cell, weight=[[1.0]], syn_type=["stp", "basic"], syn_kwargs=kwargs)
    watch = StateMonitor(cell, "O")
    net.add_monitor("watch", watch)
    net.source(np.ones((1, steps, 1)))
    net.build(strategy=1)
    net.run(steps * dt)
    u, r, expected = 0.0, 1.0, []
    for _ in range(steps):
        u, r = u * np.exp(-dt / rise), 1 - (1 - r) * np.exp(-dt / rest)
        u += u0 * (1 - u)
        expected.append(u * r)
        r -= u * r
    np.testing.assert_allclose(watch.values[0, 0], expected, rtol=1e-4)


def test_an_electrical_synapse_acts_on_both_sides():
    with Network(compat="spaic") as net:
        source = Encoder(num=2, coding_method="null")
        pre = NeuronGroup(2, model="lif", v_th=100.0, tau_m=8.0)
        post = NeuronGroup(2, model="lif", v_th=100.0, tau_m=8.0)
        Connection(source, pre, link_type="one_to_one", weight=np.eye(2))
        gap = Connection(pre, post, syn_type="electrical", weight=[[0.1, 0.2], [0.3, 0.4]])
    watches = [StateMonitor(group, "V") for group in (pre, post)]
    for number, watch in enumerate(watches):
        net.add_monitor(f"watch{number}", watch)
    net.set_backend_dt(1.0)
    net.source(np.tile([[1.0, 2.0]], (1, 5, 1)))
    net.run(5.0)
    assert gap.name == "gap"
    expected = [
        [[0, 1, 1.482497, 2.0953002, 2.6076736], [0, 2, 2.5649939, 3.264603, 3.7813368]],
        [[0, 0, 0.5, 0.9524969, 1.4172771], [0, 0, 1.1, 1.6714932, 2.2394736]],
    ]
    for watch, values in zip(watches, expected, strict=True):
        np.testing.assert_allclose(watch.values[0], values, rtol=1e-6, atol=1e-7)


def decoded(method, **options):
    with Network() as net:
        source = Encoder(num=3, coding_method="null")
        cell = NeuronGroup(3, model="null")
        Connection(source, cell, link_type="one_to_one", weight=np.eye(3))
        output = Decoder(dec_target=cell, num=3, coding_method=method, **options)
    net.set_backend_dt(1.0)
    net.build(strategy=1)
    train = np.zeros((1, 5, 3))
    for step, neuron in ((1, 1), (2, 0), (3, 1), (4, 2)):
        train[0, step, neuron] = 1
    net.source(train)
    net.run(5.0)
    return output.predict[0].numpy()


def test_decoders_give_the_official_values():
    np.testing.assert_allclose(decoded("spike_counts"), [1, 2, 1])
    np.testing.assert_allclose(decoded("spike_rate"), [0.2, 0.4, 0.2], rtol=1e-6)
    np.testing.assert_allclose(decoded("first_spike"), [0, 1, 0])
    expected = [0.0449329, 0.0971514, 0.0201897]
    np.testing.assert_allclose(decoded("time_spike_counts"), expected, rtol=1e-5)


def test_monitors_stamp_the_end_of_a_step_and_sample_at_their_own_interval():
    with Network(compat="spaic") as net:
        source = Encoder(num=1, coding_method="null")
        cell = NeuronGroup(1, model="lif")
        Connection(source, cell, weight=[[1.0]])
    spikes, slow = SpikeMonitor(cell), StateMonitor(cell, "V", dt=0.5)
    net.add_monitor("spikes", spikes)
    net.add_monitor("slow", slow)
    net.source(np.full((1, 20, 1), 0.6))
    net.run(2.0)
    np.testing.assert_allclose(spikes.spk_times[0], np.arange(0.3, 2.0, 0.2))
    assert spikes.spk_count.tolist() == [[9]]
    np.testing.assert_allclose(slow.times, [0.5, 1.0, 1.5, 2.0])
    assert spikes.time_pop_rate.sum() == 9


def test_a_monitor_keeps_copies_of_weights_and_earlier_runs():
    with Network() as net:
        source = Encoder(num=2, coding_method="float")
        cell = NeuronGroup(2)
        link = Connection(source, cell, weight=np.zeros((2, 2)))
    watch = StateMonitor(link, "weight", nbatch=True)
    net.add_monitor("watch", watch)
    net.source(np.ones((1, 2)))
    for value in (1.0, 2.0):
        net.run(0.2)
        with torch.no_grad():
            link.weight.fill_(value)
    assert watch.nbatch_values.shape == (2, 1, 2, 2, 2)
    assert watch.nbatch_values[:, 0, 0, 0, 0].tolist() == [0, 1]


def test_actions_choose_what_fired_most_or_first():
    with Network() as net:
        source = Encoder(num=3, coding_method="null")
        cell = NeuronGroup(3, model="null")
        Connection(source, cell, link_type="one_to_one", weight=np.eye(3))
        most = Action(dec_target=cell, coding_method="highest_spikes_action")
        first = Action(dec_target=cell, coding_method="first_spike_action")
        drawn = Action(dec_target=cell, coding_method="pop_rate_action")
    train = np.zeros((2, 6, 3))
    train[0, 1, 2] = train[0, 2, 1] = train[0, 3, 1] = 1
    train[1, 3, 0] = 1
    net.build(strategy=1)
    net.source(train)
    net.run(0.6)
    assert most.predict.tolist() == [1, 0]
    assert first.predict.tolist() == [2, 0]
    assert drawn.predict.tolist()[1] == 0


@pytest.mark.parametrize("strategy", [0, 1])
def test_a_delay_is_its_steps_and_strategy_0_adds_one(strategy):
    with Network(compat="spaic") as net:
        source = Encoder(num=3, coding_method="null")
        cell = NeuronGroup(3, model="null")
        Connection(source, cell, weight=np.eye(3), delay=np.tile([0.0, 0.3, 0.75], (3, 1)))
    watch = StateMonitor(cell, "O")
    net.add_monitor("watch", watch)
    net.build(strategy=strategy)
    net.source(np.eye(1, 12)[:, :, None] * np.ones(3))
    net.run(1.2)
    assert watch.values[0].argmax(1).tolist() == [n + 1 - strategy for n in (0, 3, 7)]


def test_a_delay_can_be_learned():
    with Network() as net:
        source = Encoder(num=1, coding_method="null")
        cell = NeuronGroup(1, model="null")
        link = Connection(
            source, cell, weight=[[1.0]], delay=[[0.25]], train_delay=True, max_delay=2
        )
        output = Decoder(dec_target=cell, num=1, coding_method="null")
    net.enable_full_grad(True)
    net.build(strategy=1)
    net.source(np.eye(1, 10)[:, :, None])
    net.run(1.0)
    record = output.predict[:, 0, 0]
    np.testing.assert_allclose(record[2:4].detach(), [0.5, 0.5], atol=1e-5)
    record[3].backward()
    assert link.delay.grad.item() == pytest.approx(10, rel=1e-4)  # a later spike feeds step 3


@pytest.mark.parametrize(("time", "steps"), [(6 * 0.1, 6), (1.0, 10), (0.05, 1), (25.5, 255)])
def test_a_time_is_a_whole_number_of_steps(time, steps):
    assert Network().steps(time) == steps


def test_steps_of_the_official_roundings_are_not_copied():
    net = Network()
    net.set_backend_dt(0.001)
    assert net.steps(1.0) == 1000
    net.run(1.0)
    assert net.n_time_step == 1000  # the official loop makes 996
    assert net.time == pytest.approx(1.0)
    net.set_backend_dt(0.3)
    assert net.steps(0.9) == 3
    assert net.steps(1.0) == 4
    net.set_backend_dt(1.0)
    assert net.steps(25.5) == 26


def test_bad_data_is_refused_with_the_name_of_the_node():
    with Network() as net:
        source = Encoder(num=4, coding_method="poisson")
        cell = NeuronGroup(2)
        Connection(source, cell)
    with pytest.raises(InputError, match=r"Encoder source.*not finite"):
        net.source(np.full((1, 4), np.nan))
    with pytest.raises(InputError, match=r"Encoder source.*\(2, 3\).*expected \(batch, 4\)"):
        net.source(np.zeros((2, 3)))
    net.source(np.full((1, 4), -0.1))
    with pytest.raises(InputError, match=r"Encoder source.*-0\.1; expected >= 0"):
        net.run(1.0)


def test_lists_of_spikes_must_be_times_of_a_run():
    for times, said in (
        ([-0.1], "not finite and >= 0"),
        ([np.nan], "not finite"),
        ([0.1, 0.2], "2 times"),
    ):
        node = Encoder(num=3, coding_method="mstb")
        node([(times, [0])])
        with pytest.raises(InputError, match=said):
            node.start(5, 0.1)
    node = Encoder(num=3, coding_method="mstb")
    node([])
    with pytest.raises(InputError, match="hold no sample"):
        node.start(5, 0.1)


def test_a_generator_can_repeat_its_first_data():
    for repeat in (True, False):
        with Network() as net:
            source = Generator(num=20, rate=2.0, gen_first=repeat)
            cell = NeuronGroup(20, model="null")
            Connection(source, cell, link_type="one_to_one", weight=np.eye(20))
            out = Decoder(dec_target=cell, coding_method="null")
        net.run(2.0)
        first = out.predict.clone()
        net.run(2.0)
        assert first.sum() > 0
        assert torch.equal(first, out.predict) == repeat


def acting(method, **options):
    with Network() as net:
        source = Encoder(num=4, coding_method="null")
        cell = NeuronGroup(4, model="null")
        Connection(source, cell, link_type="one_to_one", weight=np.eye(4))
        act = Action(dec_target=cell, coding_method=method, **options)
    net.build(strategy=1)
    return net, source, act


def test_an_action_is_chosen_once_a_run():
    net, source, act = acting("random_action")
    chosen = set()
    for _ in range(40):
        source(np.ones((1, 3, 4)))
        net.run(0.3)
        assert act.predict.item() == act.predict.item()
        chosen.add(act.predict.item())
    assert chosen == {0, 1, 2, 3}


def test_actions_that_draw_follow_their_probabilities():
    counts = np.zeros((4000, 3, 4))
    counts[:, 0, 1] = counts[:, :, 2] = 1
    net, source, act = acting("softmax_action")
    source(counts)
    net.run(0.3)
    weights = np.exp([0, 1, 3, 0])
    found = np.bincount(act.predict.numpy(), minlength=4) / 4000
    np.testing.assert_allclose(found, weights / weights.sum(), atol=0.03)
    net, source, act = acting("pop_rate_action")
    source(counts)
    net.run(0.3)
    found = np.bincount(act.predict.numpy(), minlength=4) / 4000
    np.testing.assert_allclose(found, [0, 0.25, 0.75, 0], atol=0.03)


def test_the_highest_voltage_is_taken_more_and_more_often():
    net, source, act = acting("highest_voltage_action", coding_var_name="O")
    data = np.zeros((2000, 1, 4))
    data[:, 0, 3] = 1
    shares = []
    for decisions in (0, 1000):
        act.decisions = decisions
        source(data)
        net.run(0.1)
        shares.append((act.predict == 3).double().mean().item())
    for share, explored in zip(shares, (0.9, 0.05 + 0.85 * np.exp(-5)), strict=True):
        assert share == pytest.approx(1 - explored * 3 / 4, abs=0.03)


@pytest.mark.parametrize(
    ("method", "label", "expected"),
    [
        ("global_reward", [2, 0], [0.0]),  # right, wrong
        ("da_reward", [2, 1], [0.0, 1.0, 1.0]),
        ("da_reward", [2, 0], [0.0, 0.0, 1.0]),
        ("environment_reward", 0.25, [0.25]),
    ],
)
def test_rewards_of_the_first_step(method, label, expected):
    node = Reward(dec_target=NeuronGroup(3), coding_method=method)
    node.start()
    node(label)
    node.step(torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
    np.testing.assert_allclose(node.value, expected)


def test_a_reward_may_have_a_shape_of_its_own():
    for shape, expected in (((1, 3), (1, 3)), (3, (3,)), (None, (3,))):
        options = {} if shape is None else {"reward_shape": shape}
        node = Reward(dec_target=NeuronGroup(3), coding_method="da_reward", **options)
        node.start()
        node([2])
        node.step(torch.tensor([[0.0, 0.0, 1.0]]))
        assert tuple(node.output.shape) == expected
        assert node.output.flatten().tolist() == [0, 0, 1]
    node = Reward(dec_target=NeuronGroup(3), coding_method="da_reward", reward_shape=(1,))
    node.start()
    node([2])
    with pytest.raises(InputError, match=r"da_reward gives 3 numbers; reward_shape=\(1,\) has 1"):
        node.step(torch.tensor([[0.0, 0.0, 1.0]]))


def test_rewards_of_xor_and_of_classification():
    with pytest.raises(InputError, match="give dec_target"):
        Reward(num=1, coding_method="xor_reward")
    node = Reward(dec_target=NeuronGroup(1), coding_method="xor_reward")
    for label, spike, expected in ((1, 1, 1), (0, 1, -1), (1, 0, -1), (0, 0, -1)):
        node.start()
        node([label])
        node.step(torch.tensor([[float(spike)]]))
        assert node.value.tolist() == [expected]
    node = Reward(dec_target=NeuronGroup(3), coding_method="classify_reward", dec_sample_step=2)
    node.start()
    node([1])
    train = torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    for row in train:
        node.step(row[None])
    y = 0.99 * np.array([1.0, 2, 0]) + np.array([0.0, 0, 1])
    p = np.exp(y) / np.exp(y).sum()
    np.testing.assert_allclose(node.value, np.array([0, 1, 0]) - p, rtol=1e-6)
    node = Reward(dec_target=NeuronGroup(3), coding_method="classify_reward")
    node.start()
    node([1, 2])
    with pytest.raises(InputError, match="2 labels for a batch of 1"):
        node.step(train[:1])


def test_noise_currents_have_their_mean_deviation_and_memory():
    for method, options in (("noise", {}), ("ou_noise", {"tau": 2.0})):
        node = Generator(num=2000, coding_method=method, rate=[3.0, 0.5], end_time=5.0, **options)
        node.generator = torch.Generator().manual_seed(0)
        node.start(60, 0.1)
        found = torch.stack([node.emit(k)[0] for k in range(60)]).numpy()
        assert np.all(found[50:] == 0)
        found = found[:50]
        np.testing.assert_allclose(found.mean(1), 3.0, atol=0.06)
        np.testing.assert_allclose(found.std(1), 0.5, rtol=0.08)
        off = found - 3.0
        for lag in (1, 10):
            memory = (off[lag:] * off[:-lag]).mean() / 0.25
            expected = np.exp(-lag * 0.1 / 2.0) if method == "ou_noise" else 0.0
            assert memory == pytest.approx(expected, abs=0.03)
    with pytest.raises(InputError, match=r"tau=0\.0; expected > 0 ms"):
        Generator(num=1, coding_method="ou_noise", tau=0.0)
    with pytest.raises(InputError, match="two numbers in the last axis"):
        Generator(num=1, coding_method="noise", rate=1.0)


def test_currents_and_bernoulli_spikes_follow_their_values():
    x = [0.0, 1.0, 4.0]
    found = emitted(x, "constant_current", 3, amp=0.5)
    np.testing.assert_allclose(found, np.tile(0.5 * np.array(x), (3, 1)))
    found = emitted(x, "constant_current", 1, input_norm=True)
    np.testing.assert_allclose(found[0], [0, 0.25, 1])
    np.testing.assert_allclose(emitted(x, "float", 2), [x, x])
    for dt in (0.1, 1.0):  # independent of the step; values above one are divided by the highest
        found = emitted(np.repeat(x, 2000), "bernoulli", 5, dt=dt, max_prob=0.8)
        share = found.reshape(5, 3, 2000).mean((0, 2))
        np.testing.assert_allclose(share, [0, 0.2, 0.8], atol=0.02)


def test_poisson_spikes_stand_between_their_first_and_last_time():
    found = emitted(np.full(500, 0.9), "poisson", 50, dt=0.1, start_time=1.0, end_time=3.0)
    steps = np.flatnonzero(found.sum(1))
    assert 9 <= steps.min() <= 11
    assert 29 <= steps.max() <= 30
    assert emitted(np.zeros(500), "poisson", 50).sum() == 0


def test_an_encoder_codes_over_its_own_time_in_a_longer_run():
    node = Encoder(num=3, coding_method="latency", time=2.0)
    node(np.array([[0.0, 0.5, 1.0]], dtype=np.float32))
    node.start(30, 0.1)
    train = torch.stack([node.emit(k)[0] for k in range(30)]).numpy()
    assert steps_of(train) == [[19], [9], [0]]
    node = Encoder(num=3, coding_method="mstb", time=2.0)
    node([([0.5, 2.7], [0, 1])])  # what is later than that comes in its last step
    node.start(30, 0.1)
    train = torch.stack([node.emit(k)[0] for k in range(30)]).numpy()
    assert steps_of(train) == [[5], [19], []]


def read_out(record, method, **options):
    """Decodes a record [steps, num] of values that a `null` group passed on."""
    record = np.asarray(record, dtype=float)
    n = record.shape[1]
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=n, coding_method="null")
        cell = NeuronGroup(n, model="null")
        Connection(source, cell, link_type="one_to_one", weight=np.eye(n))
        out = Decoder(dec_target=cell, coding_method=method, **options)
    net.set_backend_dt(1.0)
    net.build(strategy=1)
    net.source(np.stack([record, 2 * record]))
    net.run(float(len(record)))
    return out.predict.numpy()


def test_decoders_pool_populations_and_add_bias_before_the_scale():
    record = np.random.default_rng(0).integers(0, 2, (7, 6))
    counts = record.sum(0).reshape(3, 2).sum(1)
    found = read_out(record, "spike_counts", pop_size=2, bias=1.0, scale=0.5)
    np.testing.assert_allclose(found, [(counts + 1) * 0.5, (2 * counts + 1) * 0.5])
    found = read_out(record, "spike_rate", pop_size=3)
    rates = record.mean(0).reshape(2, 3).sum(1)
    np.testing.assert_allclose(found, [rates, 2 * rates])
    np.testing.assert_allclose(read_out(record, "spike_rates")[0], record.sum(0) / 7)
    np.testing.assert_allclose(read_out(record, "final_step_voltage")[1], 2 * record[-1])
    last = np.stack([record[-1], 2 * record[-1]])
    np.testing.assert_allclose(read_out(record, "voltage_sum"), last - last.mean(0))
    assert read_out(record, "v_t").shape == (7, 2, 6)
    assert read_out(record, "null").shape == (7, 2, 6)
    t = np.arange(7)
    kernel = np.exp(-((3 * (t[:, None] - t[None]) / 5.0) ** 2))
    np.testing.assert_allclose(
        read_out(record, "spike_conv", time_window=10.0)[:, 0], kernel @ record
    )


def test_labels_are_one_a_sample():
    with Network() as net:
        source = Encoder(num=3, coding_method="float")
        cell = NeuronGroup(3, model="null")
        Connection(source, cell)
        out = Decoder(dec_target=cell, coding_method="spike_counts")
    with pytest.raises(InputError, match="Decoder out: there has been no run to decode"):
        _ = out.predict
    net.source(np.ones((2, 3)))
    net.out([0, 1, 2])
    net.run(0.2)
    with pytest.raises(InputError, match="Decoder out: 3 labels for a batch of 2"):
        _ = out.predict
    net.out([0, 1])
    assert out.predict.shape == (2, 3)


def test_decoders_refuse_sizes_that_do_not_fit():
    cell = NeuronGroup(6)
    for options, said in (
        ({"num": 4}, "num=4, but .* has 6 neurons"),
        ({"pop_size": 4}, "pop_size=4 does not divide 6"),
        ({"pop_size": 0}, "pop_size=0; expected >= 1"),
        ({"scales": 2.0}, "unknown option of spike_counts 'scales'"),
    ):
        with pytest.raises(InputError, match=said):
            Decoder(dec_target=cell, coding_method="spike_counts", **options)
    with pytest.raises(InputError, match="unknown coding of Decoder 'spike_count'"):
        Decoder(dec_target=cell, coding_method="spike_count")
    with pytest.raises(InputError, match="give dec_target"):
        Decoder(num=6, coding_method="spike_counts")


def test_a_poisson_window_is_half_open_as_that_of_generators():
    found = emitted([10.0], "poisson", 12, dt=0.1, start_time=0.3, end_time=0.6)
    assert steps_of(found) == [[3, 4, 5]]
    node = Generator(num=1, coding_method="cc_generator", rate=1.0, start_time=0.3, end_time=0.6)
    assert [k for k in range(12) if node.within(k, 0.1)] == [3, 4, 5]


ENCODED = {
    "null": np.random.default_rng(0).random((1, 10, 4)),
    "sstb": np.array([[0.7, 0.2, 0.5, 0.05]]),
    "mstb": [([0.1, 0.7, 0.95], [0, 1, 2])],
    "latency": np.array([[0.1, 0.9, 0.4, 0.3]]),
    "uniform": np.array([[0.1, 0.9, 0.4, 0.3]]),
}


@pytest.mark.parametrize("engine", ["step", "scan"])
@pytest.mark.parametrize("method", ENCODED)
def test_data_go_on_in_the_parts_of_a_run(method, engine):
    def run(*parts):
        with Network() as net:
            source = Encoder(num=4, coding_method=method, time=1.0)
            cell = NeuronGroup(4, model="null")
            Connection(source, cell, weight=np.eye(4))
            seen = Decoder(dec_target=cell, num=4, coding_method="null")
        net.build(strategy=1, engine=engine)
        net.source(ENCODED[method])
        found = []
        for number, part in enumerate(parts):
            (net.run_continue if number else net.run)(part)
            found.append(seen.predict)
        return torch.cat(found)

    whole = run(1.0)
    assert whole.abs().sum() > 0
    assert torch.equal(run(0.5, 0.3, 0.2), whole)


def test_new_data_within_a_run_begin_anew_and_too_few_steps_are_told():
    with Network() as net:
        source = Encoder(num=2, coding_method="null")
        cell = NeuronGroup(2, model="null")
        Connection(source, cell, weight=np.eye(2))
        seen = Decoder(dec_target=cell, num=2, coding_method="null")
    net.build(strategy=1)
    net.source(np.full((1, 3, 2), 1.0))
    net.run(0.3)
    with pytest.raises(InputError, match=r"source: .* with at least 4 steps, got"):
        net.run_continue(0.1)
    net.source(np.full((1, 1, 2), 5.0))
    net.run_continue(0.1)
    assert seen.predict.tolist() == [[[5.0, 5.0]]]


@pytest.mark.parametrize(
    ("method", "options", "label", "told"),
    [
        ("global_reward", {"pop_size": 3}, 0, "pop_size=3 does not divide NeuronGroup"),
        ("da_reward", {"pop_size": 0}, 0, "pop_size=0 does not divide NeuronGroup"),
        ("classify_reward", {}, 4, r"labels \[4\]; expected from 0 to 3"),
        ("classify_reward", {}, -1, r"labels \[-1\]; expected from 0 to 3"),
        ("da_reward", {"reward_shape": 3}, 0, r"gives 4 numbers; reward_shape=\(3,\) has 3"),
        ("da_reward", {"reward_shape": (2, 0)}, 0, "every size must be >= 1"),
    ],
)
def test_rewards_refuse_what_does_not_fit_their_target(method, options, label, told):
    def judge():
        node = Reward(dec_target=NeuronGroup(4), num=4, coding_method=method, **options)
        node([label])
        node.start()
        node.step(torch.ones(1, 4))

    with pytest.raises(InputError, match=told):
        judge()


def test_what_is_drawn_in_double_precision_is_drawn_in_double_precision():
    node = Generator(num=4000, coding_method="poisson_generator2", rate=0.5)
    node.generator = torch.Generator().manual_seed(1)
    node.place(torch.device("cpu"), torch.float64)
    node.start(1, 1.0)
    expected = torch.rand(1, 4000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.equal(node.emit(0), (expected < 0.5).double())
