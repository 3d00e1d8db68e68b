"""The event engine: sources, delays, plasticity and decoders as the step engine has them."""

import numpy as np
import pytest
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic import (
    Connection,
    Decoder,
    Encoder,
    Generator,
    Learner,
    Network,
    NeuronGroup,
    NeuronModel,
    Reward,
    SpikeMonitor,
    StateMonitor,
    Term,
    TraceRule,
)
from tenfold.spaic.engines.draws import draw_normal, draw_poisson, draw_stream, draw_uniform


class Hebb(TraceRule):
    """A rule of a user, told by its traces: growth by pairs of spikes, and decay by each."""

    options = {"lr": 0.002, "tau": 12.0}  # noqa: RUF012
    pre_traces, post_traces = {"x": "tau"}, {"y": "tau"}

    def terms(self):
        return [
            Term("post", "lr", pre="x / (1 + x) ** 2"),
            Term("post", "-0.3 * lr * w", post="1 + exp(-y)"),
            Term("pre", "lr * w", post="y / (1 + y)", pre="1 / (3 + x)"),
        ]

    def bounds(self):
        return -1.0, 1.2


class Hooked(Learner):
    """Gives the same rule by a hook."""

    def connection_rule(self, con, backend, obj_type):
        return Hebb(con)


RULES = {
    "power": ("stdp", {"lr": 0.002, "mu_plus": 0.4, "mu_minus": 2.0, "alpha": 1.1}),
    "nearest": ("stdp", {"lr": 0.002, "mu_plus": 0.0, "nearest": True, "tau_minus": 15.0}),
    "triplet": ("triplet_stdp", {"lr": 1e-5, "w_min": -0.1, "w_max": 1.1}),
    "inhibitory": ("inhibitory_stdp", {"lr": 3e-6, "sign": 1.0, "rate": 0.02}),
    "own": (Hebb, {}),
    "hook": (Hooked, {}),
}


CIRCUITS = [
    {"into": "power", "deep": "nearest", "back": "triplet"},
    {"into": "inhibitory", "deep": "own", "back": "hook"},
]
"""Link → rule: each circuit is compiled once, and that is what takes the time."""


def plastic(engine, rules):
    random = np.random.default_rng(2)
    net = Network("plastic", dtype=torch.float64)
    net.input = Encoder(num=12, coding_method="poisson")
    net.beat = Generator(num=3, coding_method="sin", rate=np.array([1.5, 8.0]))
    net.a, net.b = NeuronGroup(9, tau_m=5.0), NeuronGroup(7, tau_m=8.0)
    net.into = Connection(net.input, net.a, weight=random.uniform(-0.1, 1.3, (9, 12)))
    net.drum = Connection(net.beat, net.b, weight=0.3, max_delay=1.0, min_delay=0.0)
    net.deep = Connection(
        net.a, net.b, weight=random.uniform(0, 1, (7, 9)), max_delay=1.5, min_delay=0.2
    )
    net.back = Connection(net.b, net.a, weight=random.uniform(0, 0.4, (9, 7)), delay=0.3)
    for name, rule in rules.items():
        link, (algorithm, options) = net.members[name], RULES[rule]
        hooked = algorithm is Hooked
        made = Hooked([link]) if hooked else Learner([link], algorithm=algorithm, **options)
        net.add_learner(f"learner_{name}", made)
    net.counts = Decoder(dec_target=net.b, num=7, coding_method="spike_counts")
    for name in rules:
        net.add_monitor(f"weights_{name}", StateMonitor(net.members[name], "weight", dt=5.0))
    net.spikes = SpikeMonitor(net.a)
    net.build(engine=engine)
    net.input(random.uniform(0, 2, (1, 12)))
    for _ in range(2):
        net.run(20.0)
        net.run_continue(10.0)
    return net


@pytest.mark.parametrize("rules", CIRCUITS, ids=lambda rules: "-".join(rules.values()))
def test_plasticity_by_events_equals_the_step_engine(rules):
    one, two = plastic("step", rules), plastic("event", rules)
    assert two.engine_note.startswith("event")
    assert one.counts.predict.sum() > 10
    assert torch.equal(one.counts.predict, two.counts.predict)
    np.testing.assert_array_equal(one.spikes.spk_index[0], two.spikes.spk_index[0])
    for name in rules:
        a, b = (net.members[name].weight.detach() for net in (one, two))
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-13)
        a, b = (net.members[f"weights_{name}"].values for net in (one, two))
        assert a.std(-1).max() > 0.005, name  # it did learn
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-12)


def test_terms_that_are_not_of_traces_are_refused():
    class Wrong(Hebb):
        def terms(self):
            return [Term("pre", "lr", post="x")]

    with Network() as net:
        one = NeuronGroup(3)
        link = Connection(one, one)
        Learner(link, algorithm=Wrong)
    with pytest.raises(InputError, match="Wrong: post='x' of a term at 'pre' names x; expected"):
        net.run(1.0)


def test_sources_reach_their_targets_with_delays():
    def run(engine):
        random = np.random.default_rng(3)
        net = Network(dtype=torch.float64)
        net.image = Encoder(num=6, coding_method="latency")
        net.ramp = Generator(num=6, coding_method="ramp", rate=np.array([40.0, 5.0]))
        net.cell = NeuronGroup(6, model="iaf_psc_exp")
        net.mixed = Connection(
            net.image,
            net.cell,
            link_type="fixed_total",
            number=40,
            weight=900.0,
            delay=random.uniform(0, 2, 40),
            post_var_name="ge",
        )
        net.early = Connection(
            net.image, net.cell, link_type="one_to_one_sparse", weight=800.0, delay=0.7
        )
        net.other = Connection(net.ramp, net.cell, weight=2000.0, max_delay=3.0)
        net.trace, net.spikes = StateMonitor(net.cell, "V"), SpikeMonitor(net.cell)
        net.build(engine=engine)
        net.image(np.linspace(0, 1, 6)[None])
        net.run(12.0)
        return net

    one, two = run("step"), run("event")
    np.testing.assert_allclose(two.trace.values, one.trace.values, rtol=1e-9)
    np.testing.assert_array_equal(one.spikes.spk_count, two.spikes.spk_count)
    assert one.trace.values.std() > 1


def test_links_of_states_and_rates_that_change_between_parts_of_a_run():
    def run(engine):
        random = np.random.default_rng(4)
        net = Network(dtype=torch.float64)
        net.drive = Generator(num=5, coding_method="constant_current", rate=0.2)
        net.a, net.b = NeuronGroup(5), NeuronGroup(4)
        net.into = Connection(net.drive, net.a, link_type="one_to_one_sparse", weight=1.0)
        weight = random.uniform(0, 0.1, (4, 5))
        net.graded = Connection(net.a, net.b, weight=weight, pre_var_name="V")
        net.trace = StateMonitor(net.b, "V")
        net.build(engine=engine)
        net.run(3.0)
        net.drive(np.full(5, 0.4))
        net.run_continue(3.0)
        return net.trace.values

    one, two = run("step"), run("event")
    np.testing.assert_allclose(two, one, rtol=1e-9)
    assert one.std() > 0.1


def test_why_an_engine_is_not_taken_is_told():
    with Network() as net:
        source = Generator(num=600, coding_method="poisson", rate=1.0)
        cell = NeuronGroup(600)
        link = Connection(source, cell, link_type="full", w_std=0.0)
        learner = Learner(trainable=[link], algorithm="full_online_stdp")
    net.run(0.1)
    assert "its rule is not one of traces, which change synapses by events" in net.engine_note
    assert learner.rule is not None
    with Network() as net:
        source = Generator(num=600, coding_method="poisson", rate=1.0)
        cell = NeuronGroup(600)
        Connection(source, cell, w_std=0.0)
        Reward(dec_target=cell, num=1, coding_method="environment_reward", name="reward")
    net.reward(0.5)
    net.run(0.1)
    assert "event: rewards read every step" in net.engine_note


def test_a_larger_batch_goes_back_to_the_step_engine():
    with Network() as net:
        source = Encoder(num=600, coding_method="float")
        cell = NeuronGroup(600)
        Connection(source, cell, link_type="one_to_one_sparse", weight=0.3)
        counts = Decoder(dec_target=cell, num=600, coding_method="spike_counts")
    net.source(np.ones((1, 600)))
    net.run(2.0)
    assert net.engine_note.startswith("event")
    single = counts.predict
    net.source(np.ones((3, 600)))
    net.run(2.0)
    assert net.engine_note.startswith("step")
    assert single.sum() > 600
    assert torch.equal(counts.predict, single.expand(3, 600))


def test_numbers_that_are_looked_up_have_their_distributions():
    n = 20_000
    key = np.uint64(99)
    streams = [draw_stream(key, t) for t in (0, 1)]
    uniform = np.array([[draw_uniform(s, i) for i in range(n)] for s in streams])
    assert 0 <= uniform.min() < uniform.max() < 1
    np.testing.assert_allclose(np.quantile(uniform, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.01)
    assert abs(np.corrcoef(uniform[0], uniform[1])[0, 1]) < 0.03
    assert abs(np.corrcoef(uniform[0, 1:], uniform[0, :-1])[0, 1]) < 0.03
    normal = np.array([draw_normal(streams[0], i) for i in range(n)])
    assert abs(normal.mean()) < 0.03
    assert normal.var() == pytest.approx(1, rel=0.04)
    for mean in (0.1, 3.0, 40.0):
        none = np.exp(-mean)
        counts = np.array([draw_poisson(streams[1], i, mean, none) for i in range(n)])
        assert counts.mean() == pytest.approx(mean, rel=0.03)
        assert counts.var() == pytest.approx(mean, rel=0.05)
        assert (counts == 0).mean() == pytest.approx(none, abs=0.01)


@pytest.mark.parametrize("delay", [None, 0.3])
def test_one_weight_for_all_pairs_is_the_same_by_events(delay):
    def run(engine):
        net = Network(dtype=torch.float64)
        drive = np.linspace(600.0, 900.0, 7)
        net.a = NeuronGroup(7, model="iaf_wang_2002", I_e=drive, refractory=1.0)
        net.b = NeuronGroup(4, model="iaf_wang_2002", C=200.0)
        ends = (("O", "ge", 2.0), ("s", "nmda", 9.0), ("x", "gi", 0.1), ("O", "nmda", 1.0))
        for k, (read, into, weight) in enumerate(ends):
            link = Connection(
                net.a,
                net.b,
                link_type="all_to_all",
                weight=weight,
                delay=delay,
                pre_var_name=read,
                post_var_name=into,
            )
            net.add_connection(f"link_{k}", link)
        net.trace = StateMonitor(net.b, "V")
        net.spikes = SpikeMonitor(net.a)
        net.build(engine=engine)
        net.run(20.0)
        net.run_continue(50.0)
        return net

    one, two = run("step"), run("event")
    assert one.spikes.spk_count.sum() > 20
    assert one.trace.values.std() > 1
    np.testing.assert_array_equal(one.spikes.spk_count, two.spikes.spk_count)
    np.testing.assert_allclose(two.trace.values, one.trace.values, rtol=1e-9)


def test_groups_of_two_precisions_are_left_to_the_step_engine():
    model = NeuronModel(
        name="exact", states={"V": 0.0}, step="V = V + Isyn\nO = spike(V - 1)", dtype="float64"
    )
    net = Network()
    net.a, net.b = NeuronGroup(300, model=model), NeuronGroup(300)
    net.link = Connection(net.a, net.b, link_type="one_to_one_sparse", weight=1.0)
    net.run(1.0)
    assert "event: its groups are not of one precision" in net.engine_note


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"link_type": "all_to_all", "no_self": True}, "gives each target a sum of its own"),
        ({"max_delay": 0.25, "train_delay": True}, "has delays that lie between steps"),
    ],
)
def test_links_that_the_event_engine_refuses(options, told):
    net = Network()
    net.a = NeuronGroup(3)
    net.link = Connection(net.a, net.a, **options)
    net.build(engine="event")
    with pytest.raises(InputError, match=f"Connection link {told}"):
        net.run(1.0)


def spiking_every_step(engine, **watch):
    net = Network()
    net.drive = Generator(num=600, coding_method="cc_generator", rate=2.0)
    net.cells = NeuronGroup(600, model="if")
    net.into = Connection(net.drive, net.cells, link_type="one_to_one_sparse", weight=1.0)
    net.spikes = SpikeMonitor(net.cells, **watch)
    net.build(engine=engine)
    return net


def test_a_monitor_is_turned_off_and_on_between_the_parts_of_a_run():
    def run(engine):
        net = spiking_every_step(engine)
        net.run(1.0)
        net.spikes.monitor_off()
        net.run_continue(20.0)  # more spikes than the loop's record holds
        net.spikes.monitor_on()
        net.run_continue(1.0)
        return net.spikes

    one, two = run("step"), run("event")
    assert one.spk_count.tolist() == two.spk_count.tolist() == [[19] * 600]
    np.testing.assert_allclose(two.spk_times[0], one.spk_times[0])
    later = spiking_every_step("event")
    later.spikes.monitor_off()
    later.run(1.0)
    later.spikes.monitor_on()
    later.run_continue(1.0)
    assert later.spikes.spk_count[0, 0] == 10


def test_a_change_within_a_run_is_refused_where_spikes_are_on_their_way():
    net = spiking_every_step("event")
    net.run(0.5)
    net.trace = StateMonitor(net.cells, "V")
    with pytest.raises(InputError, match="was changed within a run; the event engine holds spikes"):
        net.run_continue(0.5)
    net.run(0.5)
    net.run_continue(0.5)
    assert net.trace.values.shape[-1] == 10
    net = circling("step")
    before = len(net.all.spk_times[0])
    net.more = StateMonitor(net.cells, "V")
    net.run_continue(3.0)  # the links of the step engine hold what is on its way
    assert len(net.all.spk_times[0]) > before + 20


@pytest.mark.parametrize(
    ("spike", "taken"),
    [
        ("where(u > v_th, 1.0, 0.0)", True),
        ("where(u > v_th, where(u > 2 * v_th, 0.0, spike(u)), 0)", True),
        ("where(u > v_th, u, 0.0)", False),
        ("where(u > v_th, 2.0, 0.0)", False),
    ],
)
def test_by_events_go_only_outputs_that_are_zero_or_one(spike, taken):
    step = f"u = V + Isyn\nO = {spike}\nV = where(O > 0, 0.0, u)"
    model = NeuronModel(name="m", states={"V": 0.0}, parameters={"v_th": 1.0}, step=step)
    net = Network()
    net.drive = Generator(num=2, coding_method="cc_generator", rate=1.2)
    net.cells = NeuronGroup(2, model=model, refractory=0.2)
    net.into = Connection(net.drive, net.cells, link_type="one_to_one_sparse", weight=1.0)
    net.build(engine="event")
    if taken:
        net.run(1.0)
        return
    with pytest.raises(InputError, match="is not spikes"):
        net.run(1.0)


def test_a_sampling_interval_that_is_not_whole_steps_is_the_same_by_events():
    def times(engine, dt):
        net = spiking_every_step(engine)
        net.trace = StateMonitor(net.cells, "V", dt=dt)
        net.run(2.0)
        return net.trace.times

    np.testing.assert_allclose(times("event", 0.25), [0.3, 0.5, 0.8, 1.0, 1.3, 1.5, 1.8, 2.0])
    np.testing.assert_allclose(times("event", 0.25), times("step", 0.25))
    np.testing.assert_allclose(times("event", 0.5), [0.5, 1.0, 1.5, 2.0])
    sampled = spiking_every_step("event", dt=0.5)
    sampled.run(2.0)
    assert sampled.spikes.spk_count[0, 0] == 4


def circling(engine):
    net = Network("circle", dtype=torch.float64)
    net.cells = NeuronGroup(20, model="lif", initial={"V": np.linspace(0, 2, 20)})
    weight = np.roll(np.eye(20), 3, axis=0) * 1.5
    net.on = Connection(net.cells, net.cells, weight=weight, delay=0.7)
    net.all, net.every = SpikeMonitor(net.cells), SpikeMonitor(net.cells, dt=0.5)
    net.late = SpikeMonitor(net.cells)
    net.late.monitor_off()
    net.build(engine=engine)
    net.run(3.0)
    net.late.monitor_on()
    net.run_continue(4.0)
    return net


def test_monitors_have_their_interval_and_are_switched_in_every_engine():
    a, b = circling("step"), circling("event")
    assert b.engine_note.startswith("event")
    for name in ("all", "every", "late"):
        one, two = a.members[name], b.members[name]
        np.testing.assert_array_equal(one.spk_index[0], two.spk_index[0])
        np.testing.assert_allclose(one.spk_times[0], two.spk_times[0], atol=1e-9)
        np.testing.assert_allclose(one.time, two.time, atol=1e-9)
    assert len(b.all.spk_times[0]) > len(b.late.spk_times[0]) > 20
    assert b.late.spk_times[0].min() > 3.0
    np.testing.assert_allclose(b.every.time, 0.5 * np.arange(1, 15), atol=1e-9)


def test_a_small_circuit_is_run_by_events_when_the_run_is_long():
    with Network() as net:
        source = Generator(num=5, coding_method="poisson", rate=0.2)
        cell = NeuronGroup(5)
        Connection(source, cell, link_type="one_to_one", w_mean=0.4)
        counts = Decoder(dec_target=cell, num=5, coding_method="spike_counts")
    net.run(1.0)
    assert "10 steps of 5 neurons may take less time than compiling" in net.engine_note
    assert "build(engine='event')" in net.engine_note
    net.run(100.0)
    assert net.engine_note.startswith("event")
    assert counts.predict.sum() > 0
    net.run(1.0)
    assert net.engine_note.startswith("event")  # it is compiled by now
