"""Facts that users rely on, and the pitfalls of sections 3, 11 and 22 of the method card."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from tenfold.shared.errors import InputError
from tenfold.shared.progress import set_quiet
from tenfold.spaic import (
    Assembly,
    Connection,
    Decoder,
    Encoder,
    Generator,
    Learner,
    Module,
    Network,
    NeuronGroup,
    Reward,
    SpikeMonitor,
    StateMonitor,
)


def summing(**options):
    with Network(**options) as net:
        one, other = (Encoder(num=2, coding_method="float") for _ in range(2))
        cell = NeuronGroup(2, model="null")
        Connection(one, cell, weight=np.eye(2))
        Connection(one, cell, weight=2 * np.eye(2))
        Connection(other, cell, weight=10 * np.eye(2))
        total = Decoder(dec_target=cell, num=2, coding_method="null")
    net.build(strategy=1)
    return net, total


def test_what_several_links_give_one_variable_is_summed_for_any_batch():
    net, total = summing()
    for batch in (1, 4, 2):
        net.one(np.ones((batch, 2)))
        net.other(np.ones((batch, 2)))
        assert net.run(0.3) is None
        assert torch.equal(total.predict, torch.full((3, batch, 2), 13.0))


def test_the_batch_may_not_change_within_a_run():
    net, _ = summing()
    net.one(np.ones((2, 2)))
    net.other(np.ones((2, 2)))
    net.run(0.2)
    net.one(np.ones((3, 2)))
    net.other(np.ones((3, 2)))
    with pytest.raises(InputError, match="batch size changed from 2 to 3 within a run"):
        net.run_continue(0.2)
    net.run(0.2)


def test_a_network_has_its_own_random_numbers():
    def made(seed):
        np.random.seed(seed)  # noqa: NPY002 - the global generator must not matter
        torch.manual_seed(seed)
        with Network() as net:
            source = Encoder(num=30, coding_method="poisson")
            cell = NeuronGroup(5)
            Connection(source, cell, w_std=0.5, max_delay=1.0)
            watch = StateMonitor(cell, "V")
        net.set_random_seed(3)
        net.source(np.full((1, 30), 1.0))
        net.run(5.0)
        return watch.values

    np.testing.assert_array_equal(made(0), made(1))
    assert made(0).std() > 0


def test_an_image_link_tells_what_does_not_fit():
    source = Encoder(shape=(1, 6, 6), name="picture")
    with pytest.raises(InputError, match=r"gives shape \(2, 4, 4\), but NeuronGroup cell has"):
        Connection(source, NeuronGroup(shape=(2, 5, 5), name="cell"), link_type="conv")
    flat = Encoder(num=36, name="flat")
    with pytest.raises(InputError, match=r"\(36,\); expected \(channels, height, width\)"):
        Connection(flat, NeuronGroup(shape=(2, 4, 4)), link_type="conv")
    with pytest.raises(InputError, match="kernel is larger than the image"):
        Connection(source, NeuronGroup(4), link_type="conv", kernel_size=7)


def test_two_gradient_learners_do_not_switch_each_other_off():
    with Network() as net:
        source = Encoder(num=2, coding_method="float")
        a, b = NeuronGroup(2), NeuronGroup(2)
        first, second = Connection(source, a, w_mean=1.0), Connection(a, b, w_mean=1.0)
        Learner(trainable=[first, a], algorithm="stca")
        Learner(trainable=[second, b], algorithm="stbp")
        out = Decoder(dec_target=b, num=2, coding_method="spike_counts")
    net.build(strategy=1)
    net.source(np.ones((1, 2)))
    net.run(2.0)
    out.predict.sum().backward()
    assert first.weight.grad is not None
    assert second.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("compat", [None, "spaic"])
@pytest.mark.parametrize("model", ["aeif", "izh", "hh"])
def test_extreme_input_does_not_overflow(model, compat):
    with Network(compat=compat) as net:
        source = Generator(num=1, coding_method="constant_current", rate=1e3)
        cell = NeuronGroup(1, model=model)
        Connection(source, cell, weight=[[0.1 if model == "hh" else 1.0]])
        watch = StateMonitor(cell, "V")
    net.run(50.0)
    assert np.isfinite(watch.values).all()


def test_the_rates_of_hodgkin_and_huxley_have_no_hole():
    """At V = 25 and V = 10 the published quotients are 0/0; the limits are 1 and 0.1."""
    for at, name, gate in ((25.0, "m", 1.0), (10.0, "n", 0.1)):
        with Network(compat="spaic", dtype=torch.float64) as net:
            cell = NeuronGroup(1, model="hh", initial={"V": at, name: 0.0})
        net.run(0.1)
        found = net.variable(cell, name).item()
        assert found == pytest.approx(0.1 * gate, rel=1e-12)  # dt α (1 − 0)


def test_a_spike_passes_one_layer_a_step_or_all_in_one():
    """Strategy 0: every connection costs a step, also that of the encoder; 1: none does."""
    for strategy, expected in ((0, [1, 2, 3]), (1, [0, 0, 0])):
        with Network() as net:
            source = Encoder(num=1, coding_method="null")
            layers = [NeuronGroup(1, model="null", name=f"layer{k}") for k in range(3)]
            for one, other in pairwise([source, *layers]):
                Connection(one, other, weight=[[1.0]])
            watches = [StateMonitor(layer, "O", name=f"watch_{layer.name}") for layer in layers]
        net.build(strategy=strategy)
        net.source(np.eye(1, 6)[:, :, None])
        net.run(0.6)
        assert [int(watch.values[0, 0].argmax()) for watch in watches] == expected


def test_delays_are_rounded_to_the_nearest_step_and_none_is_none():
    with Network() as net:
        source = Encoder(num=4, coding_method="null")
        cell = NeuronGroup(4, model="null")
        Connection(source, cell, weight=np.eye(4), delay=np.tile([0.0, 0.04, 0.26, 0.75], (4, 1)))
        watch = StateMonitor(cell, "O")
    net.build(strategy=1)
    net.source(np.eye(1, 12)[:, :, None] * np.ones(4))
    net.run(1.2)
    assert watch.values[0].argmax(1).tolist() == [0, 0, 3, 8]


def test_drawn_delays_lie_between_their_bounds():
    for given, low in (({}, 1.0), ({"min_delay": 2.5}, 2.5)):
        with Network() as net:
            one, two = NeuronGroup(60), NeuronGroup(50)
            link = Connection(one, two, max_delay=4.0, **given)
        net.build()
        delay = link.delay.detach().numpy()
        assert delay.shape == (50, 60)
        assert low <= delay.min() < low + 0.01
        assert 3.99 < delay.max() <= 4.0
        assert delay.mean() == pytest.approx((low + 4) / 2, abs=0.05)
        assert not link.delay.requires_grad
    with Network() as net:
        Connection(NeuronGroup(2), NeuronGroup(2), max_delay=1.0, min_delay=2.0, name="link")
    with pytest.raises(InputError, match=r"min_delay=2\.0; expected from 0 to max_delay=1\.0"):
        net.prepare()


def test_constants_are_computed_in_double_precision():
    """β of float32 arithmetic differs from e^{−dt/τ} rounded once, and with it the threshold."""
    for tau in (8.0, 12.0, 20.0):
        with Network() as net:
            cell = NeuronGroup(1, tau_m=tau, initial={"V": 1.0}, v_th=2.0)
        net.run(0.1)
        assert net.variable(cell, "V").item() == np.float32(np.exp(-0.1 / tau))


def test_trained_parameters_are_clamped_to_their_own_ranges_only():
    with Network(compat="spaic") as net:
        free = NeuronGroup(1, model="clif")
        bound = NeuronGroup(2, model="lif", parameter_variables=["tau_m"])
        fixed = NeuronGroup(2, model="lif", tau_m=[1.0, 9.0], v_th=7.0)
    bound.varible_ranges = {"tau_m": (2.0, 5.0)}
    fixed.varible_ranges = {"tau_m": (2.0, 5.0), "v_th": (0.0, 10.0)}
    net.run(0.1)
    assert free.trainables["V0"].item() == 6.75  # 0.6.3 clamps it to 1
    assert bound.trainables["tau_m"].item() == 5.0
    values = net._plan.groups[id(fixed)].model.values
    assert net._engine.steps[id(fixed)].values["beta"].tolist() == pytest.approx(
        [np.exp(-0.1 / 2), np.exp(-0.1 / 5)]
    )
    assert values["v_th"] == 7.0
    with torch.no_grad():
        bound.trainables["tau_m"].fill_(0.5)
    net.run(0.1)
    assert bound.trainables["tau_m"].item() == 2.0
    for given, told in (
        ({"tau": (1, 2)}, "did you mean 'tau_m'"),
        ({"tau_m": (3, 2)}, r"varible_ranges\['tau_m'\]=\(3, 2\); low > high"),
    ):
        with Network() as net:
            NeuronGroup(2, varible_ranges=given, name="cell")
        with pytest.raises(InputError, match=f"NeuronGroup cell: .*{told}"):
            net.run(0.1)


def test_a_gradient_flows_through_every_part_where_that_is_asked_for():
    with Network() as net:
        source = Encoder(num=2, coding_method="float")
        cell = NeuronGroup(2, model="nonspikingifb")
        link = Connection(source, cell, weight=np.eye(2))
        out = Decoder(dec_target=cell, coding_method="final_step_voltage", coding_var_name="V")
    net.source(np.ones((1, 2)))
    for flag in (False, True, False):
        net.enable_full_grad(flag)
        net.run(0.3)
        assert out.predict.requires_grad == flag
        assert link.weight.requires_grad == flag
    net.build(full_enable_grad=True)
    net.run(0.3)
    out.predict.sum().backward()
    assert link.weight.grad.tolist() == [[2.0, 2.0], [2.0, 2.0]]


def test_two_rewards_and_two_rules_have_their_own_numbers():
    def made(which):
        net = Network()
        for name in which:
            source = Encoder(num=2, coding_method="null")
            cell = NeuronGroup(2, model="null")
            net.add(f"source_{name}", source)
            net.add(f"cell_{name}", cell)
            link = Connection(source, cell, weight=np.eye(2))
            net.add(f"link_{name}", link)
            good = Reward(dec_target=cell, coding_method="global_reward")
            net.add(f"good_{name}", good)
            options = {"lr": 0.1, "tau_plus": 10.0 if name == "a" else 30.0}
            net.add(f"rule_{name}", Learner(link, algorithm="rstdp", reward=good, **options))
            good([0 if name == "a" else 1])
            random = np.random.default_rng(len(name) + ord(name))
            source((random.random((1, 20, 2)) < 0.5).astype(float))
        net.run(2.0)
        return {name: net.members[f"link_{name}"].weight.detach() for name in which}

    both = made("ab")
    for name in "ab":
        assert torch.equal(both[name], made(name)[name])
        assert not torch.equal(both[name], torch.eye(2))
    assert not torch.equal(both["a"], both["b"])


def test_a_network_built_twice_is_the_same():
    def made():
        with Network() as net:
            source = Encoder(num=20, coding_method="poisson")
            cells = [NeuronGroup(10, name=f"cell{k}") for k in range(4)]
            for one, other in pairwise([source, *cells]):
                Connection(one, other, w_mean=0.2, max_delay=1.0)
            Connection(cells[3], cells[0], link_type="random")
        net.source(np.ones((2, 20)))
        net.run(5.0)
        parts = [*net.named_parameters().values(), *net._state.values()]
        return [value.detach() for value in parts]

    for one, other in zip(made(), made(), strict=True):
        assert torch.equal(one, other)


def test_a_silent_layer_is_told_and_saturation_too(capsys):
    set_quiet(False)
    with Network() as net:
        source = Encoder(num=2, coding_method="float")
        first, hidden, last = (NeuronGroup(2, model="lif") for _ in range(3))
        Connection(source, first, weight=2.0)
        Connection(first, hidden, weight=0.0)
        Connection(hidden, last, weight=0.0, bias=2.0)
        out = Decoder(dec_target=last, coding_method="spike_counts")
        learner = Learner(algorithm="stca")
    learner.trainable = [net]
    for engine in ("step", "scan"):
        net._warned = False
        net.build(strategy=1, engine=engine)
        net.source(np.ones((1, 2)))
        net.run(1.0)
        told = capsys.readouterr().err
        assert out.predict.sum() > 0
        assert "NeuronGroup hidden made no spike" in told
        assert "first" not in told
        net.run(1.0)
        assert capsys.readouterr().err == ""
    for method, rate, top in (
        ("poisson_generator", 20.0, "2"),
        ("poisson_generator2", 15.0, "1.5"),
    ):
        source = Generator(num=1, coding_method=method, rate=rate, name="noise")
        for _ in range(2):
            source.start(1, 0.1)
        told = capsys.readouterr().err
        assert told.count(f"Generator noise: rates up to {top} a step saturate") == 1


def test_modules_read_and_write_what_there_is():
    def made(**options):
        with Network() as net:
            one, two = (NeuronGroup(2, model="lif", name=name) for name in ("one", "two"))
            Module(torch.nn.Bilinear(2, 2, 2), [one, two], two, name="module", **options)
        net.build(strategy=0)
        return net

    net = made(input_var_names=["V[updated]"], output_var_names=["Isyn[updated]"])
    assert net.module.input_var_names == ["V", "V"]  # one name for all
    assert sum(p.numel() for p in net.module.parameters) == 10
    assert net.module.state_dict.keys() == {"weight", "bias"}
    assert [p.numel() for p in net.get_testparams()] == [8, 2]
    net.run(0.2)
    for options, told in (
        ({"input_var_names": ["O", "U"]}, "NeuronGroup two has no variable 'U'; it has V, O"),
        ({"output_var_names": ["V"]}, "NeuronGroup two has no input 'V'; inputs: Isyn"),
        ({"input_var_names": ["O"] * 3}, "3 input_var_names for 2 input_targets"),
    ):
        with pytest.raises(InputError, match=f"Module module: {told}"):
            made(**options)


def test_small_helpers_of_the_front_end():
    net = Network(dtype=torch.float64)
    net.a = Assembly()
    net.a.b, net.c = NeuronGroup(3), NeuronGroup(shape=(2, 2), neuron_position="x, y, z")
    assert (net.num, net.a.num) == (7, 3)
    assert net.c.neuron_position is None
    made = net.to_tensor([1.0, 2.0])
    assert made.dtype == torch.float64
    assert net.to_tensor(torch.tensor([1])).dtype == torch.int64
    assert net.to_numpy(made.requires_grad_()).tolist() == [1.0, 2.0]
    for position, told in (
        (np.zeros(3), r"shape \(3,\); expected \(3, d\)"),
        (np.full((3, 2), np.inf), "not finite"),
    ):
        with pytest.raises(InputError, match=told):
            NeuronGroup(3, neuron_position=position)
    net.set_backend(device=["cpu"])
    with pytest.raises(InputError, match=r"device=\['cpu', 'cpu'\]; one network runs on one"):
        net.set_backend(device=["cpu", "cpu"])
    net.init_run()
    assert net.time == 0


def test_parts_outside_of_the_network_are_told():
    class Stack(Network):
        def __init__(self):
            super().__init__()
            self.input = Encoder(num=3, coding_method="float")
            self.layers = [NeuronGroup(3, name="first")]
            self.link = Connection(self.input, self.layers[0])

    net = Stack()
    net.input(np.ones((1, 3)))
    with pytest.raises(
        InputError, match=r"link refers to NeuronGroup first, .* \(a list holds no parts\)"
    ):
        net.run(1.0)
    net.first = net.layers[0]
    net.run(1.0)
    other = NeuronGroup(3, name="other")
    for name, part in (
        ("seen", Decoder(dec_target=other, num=3, coding_method="spike_counts")),
        ("drive", Generator(num=3, dec_target=other, coding_method="cc_generator", rate=1.0)),
        ("judge", Reward(dec_target=other, num=3, coding_method="environment_reward")),
        ("step", Module(torch.nn.Identity(), net.input, other)),
    ):
        net.add(name, part)
        with pytest.raises(InputError, match=f"{name} refers to NeuronGroup other, which is not"):
            net.run(1.0)
        delattr(net, name)


def test_what_refers_to_a_hidden_group_rests_with_it():
    with Network() as net:
        source = Encoder(num=2, coding_method="float")
        cell, other = NeuronGroup(2), NeuronGroup(2)
        Connection(source, cell, weight=np.eye(2))
        Connection(cell, other, weight=np.eye(2))
        seen = Decoder(dec_target=cell, num=2, coding_method="spike_counts")
        watch, spikes = StateMonitor(cell, "V"), SpikeMonitor(cell)
        step = Module(torch.nn.Identity(), cell, other)
    source(np.ones((1, 2)))
    assert step
    net.run(0.5)
    shown = watch.values
    cell.assembly_hide()
    net.build()
    net.run(0.5)
    for read in (lambda: seen.predict, lambda: watch.values):
        with pytest.raises(InputError, match=r"which is hidden|recorded nothing yet"):
            read()
    assert spikes.spk_count.size == 0
    cell.assembly_show()
    net.build()
    net.run(0.5)
    np.testing.assert_array_equal(watch.values, shown)


def test_nodes_and_modules_that_read_or_write_what_there_is_not_are_told():
    def network():
        with Network() as net:
            source = Encoder(num=2, coding_method="float")
            NeuronGroup(2, name="cell")
        source(np.ones((1, 2)))
        return net

    net = network()
    net.seen = Decoder(dec_target=net.cell, num=2, coding_method="null", coding_var_name="U")
    with pytest.raises(InputError, match="seen: NeuronGroup cell has no variable 'U'; it has V, O"):
        net.run(0.1)
    for options, told in (
        ({"input_var_names": "V"}, "Encoder source has no variable 'V'; it has O"),
        ({"output_var_names": "V"}, "NeuronGroup cell has no input 'V'"),
    ):
        net = network()
        net.step = Module(torch.nn.Identity(), net.source, net.cell, **options)
        with pytest.raises(InputError, match=told):
            net.run(0.1)
    net = network()
    net.drive = Generator(num=3, dec_target=net.cell, coding_method="cc_generator", rate=1.0)
    with pytest.raises(InputError, match="drive has 3 channels; its target NeuronGroup cell has 2"):
        net.run(0.1)
    net = network()
    net.step = Module(
        torch.nn.Linear(2, 2), net.source, net.cell, ["O[updated]"], ["Isyn[updated]"]
    )
    net.dtype = torch.float64
    net.run(0.1)
    assert net.variable(net.cell, "V").dtype == torch.float64


def test_a_trained_group_that_never_spikes_is_told_wherever_it_stands(capsys):
    set_quiet(False)
    for engine in ("step", "scan"):
        with Network() as net:
            source = Encoder(num=2, coding_method="float")
            cell, readout = NeuronGroup(2, name="hidden"), NeuronGroup(2, v_th=9.0, name="end")
            Connection(source, cell, weight=np.zeros((2, 2)))
            Connection(cell, readout)
            out = Decoder(dec_target=readout, num=2, coding_method="null", coding_var_name="V")
            learner = Learner(algorithm="stca")
        learner.trainable = [net]
        net.build(strategy=1, engine=engine)
        net.source(np.ones((1, 2)))
        net.run(0.5)
        assert out.predict.shape == (5, 1, 2)
        told = capsys.readouterr().err
        assert "NeuronGroup hidden made no spike" in told
        assert "NeuronGroup end" not in told  # only its potential is read
        net.run(0.5)
        assert "made no spike" not in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["step", "event"])
def test_generators_that_saturate_are_told(engine, capsys):
    set_quiet(False)
    with Network() as net:
        Generator(num=2, coding_method="poisson_generator", rate=20.0, name="loud")
        NeuronGroup(2)
    net.build(engine=engine)
    for _ in range(2):
        net.run(0.2)
    told = capsys.readouterr().err
    assert told.count("Generator loud: rates up to 2 a step saturate at one spike a step") == 1


def test_the_official_nonspikinglif_with_a_step_as_long_as_its_time_constant_is_told(capsys):
    set_quiet(False)
    with Network(compat="spaic") as net:
        NeuronGroup(1, model="nonspikinglif")
    net.set_backend_dt(1.0)
    net.run(1.0)
    assert "dt=1 is more than half of tau_m=1 ms" in capsys.readouterr().err


def test_spikes_that_enter_a_current_instead_of_a_synapse_are_told(capsys):
    def built(**options):
        with Network() as net:
            source = Generator(num=2, coding_method="poisson", rate=0.1)
            cell = NeuronGroup(2, model="iaf_psc_exp")
            Connection(source, cell, name="link", weight=100.0, **options)
        net.build()
        return " ".join(capsys.readouterr().err.split())

    assert "post_var_name='ge' enters its synapse" in built()
    assert "enters its synapse" not in built(post_var_name="ge")
    assert "enters its synapse" not in built(syn_type="2_order_synapse")
