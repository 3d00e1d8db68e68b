"""The models of the library against their expected figures."""

import math

import numpy as np
import pytest
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic import Connection, Generator, Network, NeuronGroup, SpikeMonitor, StateMonitor
from tenfold.spaic.data import digits
from tenfold.spaic.experiments import correlation
from tenfold.spaic.library import (
    CIRCUITS,
    POPULATIONS,
    all_activity,
    assign_labels,
    audio_mnist,
    bump_height,
    cluster,
    convolutional,
    decide,
    decision,
    diehl_cook,
    diehl_cook_integer,
    front_motion,
    mean_field_rates,
    microcircuit,
    proportion_weighting,
    rates,
    recall,
    reinforce,
    resnet18,
    ring_attractor,
    stca_mnist,
    tidigits,
    wave_front,
)


def test_the_gate_of_wangs_neuron_follows_the_midpoint_rule_step_by_step():
    dt, steps = 0.1, 60
    net = Network(dtype=torch.float64)
    net.cell = NeuronGroup(1, model="iaf_wang_2002")
    net.kick = Generator(num=1, coding_method="constant_current", rate=1.0, end_time=0.15)
    net.link = Connection(
        net.kick, net.cell, link_type="one_to_one_sparse", weight=1.0, post_var_name="x"
    )
    net.gate = StateMonitor(net.cell, "s")
    net.run(steps * dt)
    x = s = 0.0
    expected = []
    for k in range(steps):  # the midpoint rule, and the kick added at the end of a step
        half_x = x - dt / 2 * x / 2
        half_s = s + dt / 2 * (0.5 * x * (1 - s) - s / 100)
        x, s = x - dt * half_x / 2, s + dt * (0.5 * half_x * (1 - half_s) - half_s / 100)
        x += k * dt < 0.15 - 1e-9
        expected.append(s)
    np.testing.assert_allclose(net.gate.values[0, 0], expected, rtol=1e-10)


def test_the_weights_of_the_decision_network_keep_the_mean():
    net = decision(2000)
    w = {name: float(net.members[f"nmda_{name}_A"].given_weight) for name in ("A", "B", "others")}
    assert w["A"] == pytest.approx(1.7 * 0.165)  # section 20: Jp, and gEE of NMDA
    assert 0.15 * w["A"] + 0.85 * w["others"] == pytest.approx(0.165)
    assert w["B"] == w["others"]
    with pytest.raises(InputError, match=r"coherence=1\.5; expected from -1 to 1"):
        decide(net, 1.5)
    with pytest.raises(InputError, match="size=50; expected >= 100"):
        decision(50)


@pytest.mark.slow
def test_the_favoured_pool_wins_and_stays_active():
    net = decision()
    for coherence, winner, loser in ((0.512, "A", "B"), (-0.512, "B", "A")):
        trial = decide(net, coherence)
        assert net.engine_note.startswith("event")
        assert trial.choice == winner
        assert 1 < trial.rates["others"][5:10].mean() < 4
        assert trial.rates[winner][-5:].mean() > 15
        assert trial.rates[loser][-5:].mean() < 3


def small_graded(engine):
    net = Network(dtype=torch.float64)
    net.cells = NeuronGroup(600, model="iaf_psc_exp", refractory=2.0)
    net.drive = Generator(num=600, coding_method="constant_current", rate=400.0)
    net.push = Connection(net.drive, net.cells, link_type="one_to_one_sparse", weight=1.0)
    net.sum = NeuronGroup(1, model="iaf_psc_exp", v_th=1e9)
    weight = np.linspace(0, 1, 600)[None]
    net.gather = Connection(net.cells, net.sum, weight=weight, pre_var_name="V")
    net.watch = StateMonitor(net.sum, "V")
    net.spikes = SpikeMonitor(net.cells)
    net.build(engine=engine)
    net.run(5.0)
    net.drive(700.0)
    net.run_continue(20.0)
    return net


def test_links_that_read_a_state_and_sources_that_change_are_the_same_by_events():
    one, two = small_graded("step"), small_graded("event")
    assert two.engine_note.startswith("event")
    np.testing.assert_allclose(one.watch.values, two.watch.values, rtol=1e-10)
    assert one.spikes.spk_count.sum() == two.spikes.spk_count.sum() > 0


def test_labels_are_assigned_and_read_out_as_written_by_hand():
    counts = np.array([[4, 0, 1, 0], [2, 0, 0, 0], [0, 3, 3, 0]], dtype=float)
    labels = np.array([0, 0, 1])
    assigned, share = assign_labels(counts, labels, 2)
    assert assigned.tolist() == [0, 1, 1, -1]
    np.testing.assert_allclose(share, [[1, 0], [0, 1], [0.5 / 3.5, 3 / 3.5], [0, 0]])
    shown = np.array([[2.0, 0, 3, 9], [1, 1, 0, 0]])
    assert all_activity(shown, assigned, 2).tolist() == [0, 0]  # 2 against (0 + 3)/2; 1 against 1/2
    assert proportion_weighting(shown, share).tolist() == [1, 0]  # 2.43 against 2.57; a tie


def test_diehl_cook_has_the_card_s_numbers():
    net = diehl_cook()
    net.prepare()
    assert tuple(net.plastic.weight.shape) == (100, 784)  # 78,400 plastic weights
    assert 0 <= float(net.plastic.weight.min()) <= float(net.plastic.weight.max()) <= 0.3
    assert float(net.excite.weight.sum()) == 2250
    assert float(net.inhibit.weight.sum()) == -120 * 9900
    assert net.stdp.options["norm"] == pytest.approx(78.4)
    net.input(np.random.default_rng(0).random((1, 784)))
    net.run(20.0)
    rows = net.plastic.weight.sum(1)
    torch.testing.assert_close(rows, torch.full_like(rows, 78.4), rtol=1e-4, atol=0)


def test_the_integer_network_learns_whole_weights_from_0_to_109():
    net = diehl_cook_integer(64, 20)
    net.prepare()
    before = net.plastic.weight.clone()
    assert set(before.unique().tolist()) <= set(range(33))
    images = digits().x
    for k in range(3):
        net.input(images[k : k + 1])
        net.run(100.0)
    after = net.plastic.weight
    assert float(net.output.predict.sum()) > 0
    assert torch.equal(after, after.round())
    assert 0 <= float(after.min()) <= float(after.max()) <= 109
    assert not torch.equal(before, after)
    threshold = net.variable(net.excitatory, "th")
    assert float(threshold.max()) > 213  # rises by 66 a spike
    assert float((threshold - 213).remainder(66).abs().max()) == 0


def test_clustering_learns_and_repeats_itself():
    data = digits()
    few, part = data.y < 3, data.y_test < 3
    sets = (data.x[few][:40], data.y[few][:40], data.x_test[part], data.y_test[part])
    options = {"size": 20, "norm": 12.0, "time": 128.0}
    found, again = (cluster(*sets, **options) for _ in range(2))
    assert (found.proportion, found.all_activity) == (again.proportion, again.all_activity)
    assert found.proportion > 0.6  # chance: 0.33
    assert float(found.theta.max()) > 0
    with pytest.raises(InputError, match="expected a label for each"):
        cluster(sets[0], sets[1][:-1], *sets[2:])


@pytest.mark.slow
def test_digits_are_clustered_without_labels():
    data = digits()
    found = cluster(data.x[:1000], data.y[:1000], data.x_test, data.y_test, norm=12.0)
    assert found.proportion > 0.64  # measured: 0.69


def test_rewarded_neurons_learn_three_digits():
    data = digits()
    part, test = data.y < 3, data.y_test < 3
    found = reinforce(data.x[part], data.y[part], data.x_test[test], data.y_test[test], 300)
    assert found.before < 0.6
    assert found.accuracy > 0.9


def test_a_liquid_remembers_what_a_filter_does_not():
    data = digits()
    x, x_test = (part.reshape(-1, 8, 8) for part in (data.x, data.x_test))
    found = recall(x, data.y, x_test, data.y_test, size=200)
    assert found.accuracy > found.without + 0.12
    assert found.states.shape == (360, 200)


@pytest.mark.parametrize("k", [0.02, 0.08])
def test_a_bump_stays_where_it_was_put_with_the_height_of_the_closed_form(k):
    net = ring_attractor(k=k)
    x = np.linspace(-math.pi, math.pi, 128, endpoint=False)
    place = x[85]
    net.stimulus(20 * np.exp(-((x - place) ** 2)))
    net.run(10.0)
    net.stimulus(0.0)
    net.run_continue(60.0)
    u = net.activity.values[0, :, -1]
    assert u.max() == pytest.approx(bump_height(k=k), rel=2e-3)
    assert x[u.argmax()] == place
    with pytest.raises(InputError, match=r"stays for 0 < k < 0\.09974 only"):
        bump_height(k=0.1)


def test_the_examples_of_the_card_have_its_numbers_of_parameters():
    for net, count in (
        (stca_mnist(), 7841),
        (stca_mnist((400,)), 317_602),
        (convolutional(), 10_018),
        (tidigits(), 899_000),
        (audio_mnist(), 898_500),
    ):
        assert sum(p.numel() for p in net.learner.parameters()) == count, net
    with pytest.raises(InputError, match="from 10 x 10"):
        convolutional((1, 8, 8))


def test_a_small_resnet_learns_from_its_modules():
    whole = resnet18((3, 16, 16), classes=4, width=4)
    # 17 convolutions and 3 on shortcuts, each with the two tensors of a batch norm; and the head
    assert len(list(whole.as_module(3.0).parameters())) == 20 * 3 + 2
    module = resnet18((3, 16, 16), classes=4, width=8, blocks=(1, 1, 1, 1)).as_module(3.0)
    x = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    y = torch.arange(8) % 4
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
    losses = []
    for _ in range(10):
        loss = torch.nn.functional.cross_entropy(module(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


def test_a_seed_of_the_catalogue_is_a_seed():
    nets = [CIRCUITS["brunel"].make(1250, seed) for seed in (1, 3)]
    for net in nets:
        net.run(200.0)
    first, second = (rates(net)["all"] for net in nets)
    assert first == pytest.approx(second, rel=0.35)  # so small a network varies
    assert first != second


@pytest.mark.parametrize("shared", [True, False])
def test_the_correlation_of_pairs_is_one_for_equal_and_zero_for_independent_trains(shared):
    net = Network()
    net.source = Generator(num=1 if shared else 40, coding_method="poisson", rate=0.05)
    net.cells = NeuronGroup(40, model="if")
    kind = "full" if shared else "one_to_one_sparse"
    net.link = Connection(net.source, net.cells, link_type=kind, weight=2.0)
    net.spikes = SpikeMonitor(net.cells)
    net.run(2000.0)
    assert correlation(net) == pytest.approx(1.0 if shared else 0.0, abs=0.02)
    empty = Network()
    empty.cells = NeuronGroup(2)
    empty.spikes = SpikeMonitor(empty.cells)
    empty.run(1.0)
    assert math.isnan(correlation(empty))


def test_the_mean_field_of_the_microcircuit_settles_at_its_closed_form():
    net = microcircuit(0.005, model="meanfield")
    net.run(100.0)
    expected = mean_field_rates()
    assert list(expected) == list(POPULATIONS)
    for name, rate in expected.items():
        found = getattr(net, f"rate_{name}").values[0].mean(0)
        assert found[-1] == pytest.approx(rate, rel=0.01)  # the weights are drawn
        assert found[499] == pytest.approx(rate, rel=0.02)  # settled within 50 ms
    with pytest.raises(InputError, match="meanfield"):
        microcircuit(0.005, model="mean_field")


def test_blocks_are_found_where_they_went():
    sheet = np.random.default_rng(0).random((90, 90))
    found = front_motion(sheet, np.roll(sheet, (3, -4), (0, 1)), block=20)
    assert len(found) == 9
    np.testing.assert_allclose(found[:, 0], 5)
    np.testing.assert_allclose(found[:, 1], 1)
    assert (abs(found[:, 2]) < 0.3).all()
    assert front_motion(sheet, 2 * sheet, block=20)[:, 0].max() == 0


def test_fronts_travel_where_excitation_is_wider_than_inhibition():
    def motion(**ranges):
        net = wave_front(96, 1e-3, **ranges)
        net.run(30.0)
        net.activity.monitor_on()
        net.run_continue(10.0)
        frames = net.activity.values[0, 0]
        assert frames.shape == (96, 96, 25)
        pairs = [front_motion(frames[..., k], frames[..., k + 1], 24) for k in range(24)]
        return np.median(np.concatenate(pairs), axis=0)

    distance, there, still = motion()
    assert 4 < distance < 14
    assert there > 0.8 > 0.7 > still
    assert motion(excitation=2.5, inhibition=4.0)[0] < 1
    with pytest.raises(InputError, match="size=20; expected at least the kernels' 29"):
        wave_front(20)
