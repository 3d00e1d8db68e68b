"""Facts that users rely on, and the pitfalls of sections 3, 11 and 22 of the method card."""

import numpy as np
import pytest
import torch

from tenfold.shared.errors import InputError
from tenfold.shared.progress import set_quiet
from tenfold.spaic import (
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
        with pytest.raises(InputError, match=r"no run to decode|recorded nothing yet"):
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
