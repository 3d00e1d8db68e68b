"""The objects of the front end: names, editing, projections, files, bad input."""

import json

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
    ExcludedTypePolicy,
    Generator,
    IncludedTypePolicy,
    IndexConnectPolicy,
    Initializer,
    Learner,
    Module,
    Network,
    NeuronGroup,
    NeuronModel,
    Projection,
    SpikeMonitor,
    StateMonitor,
    load_state,
    network_load,
    network_save,
    save_state,
)
from tenfold.spaic.library import psc_of_psp
from tenfold.spaic.saving import network_from_dict, network_to_dict
from tenfold.spaic.units import Hz, Quantity, ms, mV, nA, pA, s


def column():
    made = Assembly()
    made.exc = NeuronGroup(4, neuron_type="excitatory")
    made.inh = NeuronGroup(2, neuron_type="inhibitory")
    made.link = Connection(made.exc, made.inh)
    return made


def test_parts_are_named_by_attribute_and_by_variable():
    with Network("net1") as net:
        source = Encoder(num=3)
        layer = NeuronGroup(2)
        link = Connection(source, layer)
        Connection(layer, layer)
    assert (source.name, layer.name, link.name) == ("source", "layer", "link")
    assert layer.id == "net1<net>_layer<neg>"
    assert link.weight_name == (
        "net1<net>_link<con>:net1<net>_layer<neg><-net1<net>_source<nod>:{weight}"
    )
    assert [con.name for con in net.get_connections()][1].startswith("autoname")
    assert net.get_elements()["net1<net>_layer<neg>"] is layer


def test_assemblies_can_be_copied_selected_merged_replaced_hidden_and_deleted():
    net = Network()
    net.a = column()
    net.b = net.copy_assembly("b", net.a)
    assert len(net.get_groups()) == 4
    assert net.b.exc is not net.a.exc
    assert net.b.link.pre is net.b.exc
    net.across = Connection(net.a.exc, net.b.exc)
    chosen = net.select_assembly([net.a, net.b.exc], name="chosen")
    assert {c.name for c in chosen.get_connections()} == {"link", "across"}
    net.b.assembly_hide()
    assert net.b.exc not in net
    net.b.assembly_show()
    spare = NeuronGroup(4, model="clif")
    net.b.replace_assembly(net.b.exc, spare)
    assert net.across.post is spare
    assert net.b.link.pre is spare
    net.del_assembly(name="b")
    assert [c.name for c in net.get_connections()] == ["link"]
    other = column()
    net.a.merge_assembly(other)
    assert len(net.a.get_groups()) == 4


def test_policies_choose_pairs_of_groups():
    net = Network()
    net.a, net.b = column(), column()

    def pairs(*policies):
        prj = Projection(net.a, net.b, policies, ConnectionParameters={"w_std": 0.0})
        return [(c.pre.name, c.post.name) for c in prj.expand()]

    assert pairs(IncludedTypePolicy(["excitatory"])) == [("exc", "exc"), ("exc", "inh")]
    assert pairs(ExcludedTypePolicy(["excitatory"], ["excitatory"])) != []
    both = IncludedTypePolicy(["excitatory"]) & IncludedTypePolicy(None, ["inhibitory"])
    assert pairs(both) == [("exc", "inh")]
    assert pairs(IndexConnectPolicy([1], [0])) == [("inh", "exc")]
    assert pairs(IndexConnectPolicy([(2, 1)], [(2, -2)])) == [("inh", "exc")]  # members: level 2
    assert pairs() == []
    by_hand = Projection(net.a, net.b, link_type=None)
    net.prj = by_hand
    by_hand.link = Connection(net.a.exc, net.b.inh, w_mean=1.0)
    assert by_hand.link_type == "full"
    assert by_hand.link in net.get_connections()
    assert by_hand.link.id == "net<net>_prj<prj>_link<con>"
    assert [c.name for c in network_from_dict(network_to_dict(net)).prj.members.values()] == [
        "link"
    ]
    with pytest.raises(InputError, match=r"level=0 of Assembly a; expected >= 1"):
        pairs(IncludedTypePolicy(["x"], level=0))


def convolutional():
    with Network("conv") as net:
        source = Encoder(shape=(1, 12, 12), coding_method="float")
        first = NeuronGroup(shape=(4, 5, 5), model="lif", v_th=0.5)
        second = NeuronGroup(10, model="lif")
        Connection(
            source,
            first,
            name="images",
            link_type="conv",
            syn_type=["conv", "maxpool"],
            out_channels=4,
            kernel_size=3,
            weight=Initializer("uniform", a=-0.3, b=0.3),
            bias=np.array([0.1, 0.2, 0.3, 0.4]),
        )
        Connection(first, second, name="full", syn_type=["flatten", "basic"], w_std=0.3)
        result = Decoder(dec_target=second, num=10, coding_method="spike_counts")
        learner = Learner(algorithm="sbp", alpha=2.0)
        spikes = SpikeMonitor(second)
    learner.trainable = [net]
    learner.set_optimizer("Adam", lr=1e-3)
    assert result.num == 10
    assert spikes.name == "spikes"
    net.set_backend_dt(2.0)
    net.strategy = 1
    return net


@pytest.mark.parametrize("kind", ["json", "yaml"])
def test_a_network_is_the_same_after_saving_and_loading(tmp_path, kind):
    net = convolutional()
    data = np.random.default_rng(0).random((2, 1, 12, 12))
    net.source(data)
    net.run(20.0)
    file = network_save(net, tmp_path / "saved", kind)
    assert file.name == f"network.{kind}"
    again = network_load(tmp_path / "saved")
    again.source(data)
    again.run(20.0)
    assert net.result.predict.abs().sum() > 0
    assert torch.equal(net.result.predict, again.result.predict)
    assert again.learner.optim_name == "Adam"


def test_a_network_file_runs_no_code_and_its_damage_is_told(tmp_path):
    net = convolutional()
    file = network_save(net, tmp_path / "saved")
    made = json.loads(file.read_text())
    group = next(iter(made["parts"][1].values()))
    group["model_name"] = {"name": "x", "states": {}, "step": "O = __import__('os')"}
    file.write_text(json.dumps(made))
    with pytest.raises(InputError):
        network_load(tmp_path / "saved")
    for key in ("states", "inputs"):  # their names are written into compiled loops
        named = {"V = 0\nimport os #": 0.0}
        model = {"name": "x", "states": {}, "step": "O = 0 * 1", key: named}
        group["model_name"] = model
        file.write_text(json.dumps(made))
        with pytest.raises(InputError, match="not the name of a variable"):
            network_load(tmp_path / "saved")
    file.write_text("[1, 2")
    with pytest.raises(InputError, match="not a network file"):
        network_load(tmp_path / "saved")


def sparse_and_late():
    net = Network("sparse")
    net.a, net.b = NeuronGroup(30, varible_ranges={"tau_m": (1.0, 9.0)}), NeuronGroup(20)
    net.ab = Connection(net.a, net.b, link_type="bernoulli", p=0.3, w_std=1.0, delay=0.7)
    net.ba = Connection(net.b, net.a, link_type="full", max_delay=2.0, weight_quantization=True)
    return net


def test_synapses_delays_and_ranges_come_back(tmp_path):
    net = sparse_and_late()
    net.set_random_seed(5)
    network_save(net, tmp_path / "saved")
    again = network_load(tmp_path / "saved")
    for name in ("ab", "ba"):
        old, new = getattr(net, name), again.members[name]
        assert torch.equal(old.weight, new.weight)
        assert torch.equal(old.delay, new.delay)
    assert torch.equal(net.ab.pre_index, again.members["ab"].pre_index)
    assert torch.equal(net.ab.post_index, again.members["ab"].post_index)
    assert again.members["a"].varible_ranges["tau_m"] == [1.0, 9.0]
    assert again.members["ba"].weight_quantization


@pytest.mark.parametrize(("key", "value"), [("pre_index", 30), ("post_index", -1)])
def test_saved_synapses_that_lead_outside_are_refused(tmp_path, key, value):
    from safetensors.torch import load_file

    net = sparse_and_late()
    state = load_file(save_state(net, tmp_path / "state.safetensors"))
    state[f"{net.ab.id}:{key}"][0] = value
    with pytest.raises(InputError, match=key):
        load_state(sparse_and_late(), state)


def test_weights_go_into_a_network_of_another_name(tmp_path):
    one, two = convolutional(), convolutional()
    two.name = "other"
    with torch.no_grad():
        one.prepare()
        one.images.weight.add_(1)
    save_state(one, tmp_path / "w.safetensors")
    load_state(two, tmp_path / "w.safetensors")
    assert torch.equal(one.images.weight, two.images.weight)
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        load_state(two, __file__)


def test_convolutions_fill_the_shape_and_count_parameters_as_the_card():
    with Network() as net:
        source = Encoder(shape=(1, 28, 28), coding_method="float")
        a = NeuronGroup(shape=(4, 13, 13))
        b = NeuronGroup(shape=(8, 11, 11))
        c = NeuronGroup(10)
        options = {"link_type": "conv", "kernel_size": 3}
        Connection(source, a, syn_type=["conv", "maxpool"], bias=0.0, **options)
        Connection(a, b, **options)
        Connection(b, c, syn_type=["flatten", "basic"], bias=0.0)
    assert sum(p.numel() for p in net.get_testparams()) == 36 + 4 + 288 + 9680 + 10
    with Network() as net:
        x, h, y = Encoder(num=784), NeuronGroup(400, model="clif"), NeuronGroup(10, model="clif")
        Connection(x, h)
        Connection(h, y)
    assert sum(p.numel() for p in net.get_testparams()) == 317_602


def test_a_link_between_images_gives_its_target_a_shape():
    with Network() as net:
        source = Encoder(shape=(1, 28, 28), coding_method="float")
        first, second = NeuronGroup(model="lif", v_th=[0.5] * 676), NeuronGroup()
        options = {"link_type": "conv", "out_channels": 4}
        Connection(source, first, syn_type=["conv", "maxpool"], **options)
        Connection(first, second, **options)
    assert (first.shape, second.shape) == ((4, 13, 13), (4, 11, 11))
    net.source(np.ones((2, 1, 28, 28)))
    net.run(0.2)
    assert net.variable(second, "V").shape == (2, 4, 11, 11)
    first.model_parameters["v_th"] = np.ones(5)
    with pytest.raises(InputError, match="NeuronGroup first: v_th has 5 values; expected 1 or 676"):
        net.run(0.1)
    with Network() as net:
        NeuronGroup(name="cell")
    with pytest.raises(InputError, match="NeuronGroup cell has no shape; give num or shape"):
        net.run(1.0)


def test_a_transposed_convolution_is_torchs():
    x = torch.randn(2, 3, 5, 5)
    with Network() as net:
        source = Encoder(shape=(3, 5, 5), coding_method="float")
        cell = NeuronGroup(shape=(2, 11, 11), model="null")
        link = Connection(
            source, cell, link_type="conv_transpose", kernel_size=3, stride=2, out_channels=2
        )
        result = Decoder(dec_target=cell, num=242, coding_method="null")
    net.build(strategy=1)
    net.source(x)
    net.run(0.1)
    expected = torch.nn.functional.conv_transpose2d(x, link.weight, stride=2)
    torch.testing.assert_close(result.predict[0], expected)


def test_a_torch_module_runs_inside_and_the_network_is_a_torch_module():
    with Network() as net:
        source = Encoder(num=3, coding_method="float")
        cell = NeuronGroup(2, model="null")
        inner = Module(torch.nn.Linear(3, 2), source, cell)
        result = Decoder(dec_target=cell, num=2, coding_method="spike_counts")
        learner = Learner(algorithm="sbp")
    learner.trainable = [net]
    net.build(strategy=1)
    module = net.as_module(0.3)
    x = torch.rand(4, 3)
    torch.testing.assert_close(module(x), 3 * inner.torch_module(x))
    module(x).sum().backward()
    assert inner.torch_module.weight.grad.abs().sum() > 0
    assert result.predict.shape == (4, 2)


def test_quantities_know_what_they_measure():
    assert (20 * ms).value == 20
    assert (1.5 * s).value == 1500
    assert (50 * Hz).value == 0.05
    cell = NeuronGroup(1, model="cuba", tau_m=0.02 * s, v_th=-50 * mV)
    assert cell.model_parameters == {"tau_m": 20.0, "v_th": -50.0}
    with pytest.raises(InputError, match="same dimension"):
        1 * ms + 1 * mV
    with pytest.raises(InputError, match="expected a time"):
        Network().set_backend_dt(1 * mV)
    assert isinstance(2 * ms / 2, Quantity)


def test_the_psc_of_the_microcircuit():
    assert psc_of_psp(0.15, 250.0, 10.0, 0.5) == pytest.approx(87.8084935, abs=1e-6)


def two():
    return Encoder(num=4, name="source"), NeuronGroup(3, name="cell")


BAD = {
    "model": (lambda: NeuronGroup(2, model="lff"), "did you mean 'lif'"),
    "link": (lambda: Connection(*two(), link_type="ful"), "did you mean 'full'"),
    "synapse": (lambda: Connection(*two(), syn_type="bsic"), "did you mean 'basic'"),
    "coding": (lambda: Encoder(num=2, coding_method="poison"), "did you mean 'poisson'"),
    "algorithm": (lambda: Learner(algorithm="stpd"), "did you mean 'stdp'"),
    "shape": (lambda: NeuronGroup(5, shape=(2, 2)), r"num=5 but shape=\(2, 2\) has 4"),
    "parameter": (lambda: NeuronGroup(2, tau_m=[1.0, 2.0, 3.0]), "3 values; expected 1 or 2"),
    "electrical": (lambda: Connection(*two(), syn_type="electrical"), "on both sides"),
    "option": (lambda: Connection(*two(), densty=0.1), "option of full 'densty'"),
    "decoder": (
        lambda: Decoder(dec_target=NeuronGroup(3, name="cell"), num=4),
        "num=4, but NeuronGroup cell has 3",
    ),
    "alpha": (lambda: Learner(algorithm="stca", alpha=0.0), "alpha=0.0; expected > 0"),
    "dt": (lambda: Network().set_backend_dt(0), "expected > 0 ms"),
    "model text": (lambda: NeuronModel(states={}, step="V = 1"), "no line assigns O"),
    "model dt": (
        lambda: NeuronModel(parameters={"dt": 2.0}, step="O = spike(Isyn - dt)"),
        "dt is the step of the network; give it another name",
    ),
    "number": (lambda: NeuronGroup(2.5), r"size 2\.5; expected a whole number"),
    "shape number": (lambda: NeuronGroup(shape=(2, True)), "size True; expected a whole number"),
    "unnamed": (
        lambda: Connection(Encoder(num=4, name="eye"), NeuronGroup(3), densty=0.1),
        r"unnamed\) from Encoder eye of \(4,\) neurons to NeuronGroup \(unnamed\) of \(3,\)",
    ),
    "bounds": (lambda: Connection(*two(), w_min=1.0, w_max=0.5), "w_min=1.0 is above w_max=0.5"),
    "dropout": (
        lambda: Connection(*two(), syn_type=["basic", "dropout"], syn_kwargs={"p": 1.0}),
        "dropout p=1.0; expected from 0 to below 1",
    ),
    "electrical kind": (
        lambda: Connection(
            NeuronGroup(3), NeuronGroup(3), link_type="bernoulli", syn_type="electrical"
        ),
        "stands alone in syn_type, on a link that holds a matrix .*, not on bernoulli",
    ),
    "batch": (lambda: Encoder(num=2)(np.zeros((0, 3, 2))), "the data hold no sample"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_argument_is_refused_at_once(name):
    make, message = BAD[name]
    with pytest.raises(InputError, match=message):
        make()


WRONG = {
    "weight": ({"weight": np.zeros((4, 3))}, r"shape \(4, 3\); expected \(3, 4\) \(post, pre\)"),
    "nan": ({"weight": np.full((3, 4), np.nan)}, "not finite"),
    "one_to_one": ({"link_type": "one_to_one"}, "equal sizes, got 4 and 3"),
    "delay": ({"delay": -1.0}, "must be finite and >= 0"),
    "target": ({"post_var_name": "Isin"}, "no variable 'Isin'; inputs: Isyn; states: V, O"),
    "index": (
        {"link_type": "index", "pre_index": np.array([9]), "post_index": np.array([0])},
        r"pre_index holds 9..9; expected 0..3",
    ),
    "share": ({"link_type": "random", "probability": 1.5}, "probability=1.5; expected from 0 to 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_connection_is_refused_when_the_network_is_built(name):
    options, message = WRONG[name]
    with Network() as net:
        source, cell = two()
        Connection(source, cell, name="link", **options)
    with pytest.raises(InputError, match=rf"Connection link.*{message}"):
        net.build()


def test_other_wrong_networks_are_told_apart():
    with Network() as net:
        a, b = NeuronGroup(2), NeuronGroup(2)
        Connection(a, b)
        Connection(b, a)
    with pytest.raises(InputError, match="loop through NeuronGroup a, NeuronGroup b"):
        net.build(strategy=1)
    with Network() as net:
        NeuronGroup(2, tau_m=0.0, name="cell")
    with pytest.raises(InputError, match="a time constant must be > 0"):
        net.run(1.0)
    with Network() as net:
        one, other = Encoder(num=2, coding_method="float"), Encoder(num=2, coding_method="float")
        cell = NeuronGroup(2)
        Connection(one, cell)
        Connection(other, cell)
    net.one(np.zeros((3, 2)))
    net.other(np.zeros((4, 2)))
    with pytest.raises(InputError, match="different batch sizes"):
        net.run(1.0)


def test_silence_and_steps_that_are_too_long_are_told(capsys):
    set_quiet(False)
    with Network() as net:
        source = Encoder(num=2, coding_method="float")
        cell = NeuronGroup(2)
        Connection(source, cell, weight=np.zeros((2, 2)))
        Decoder(dec_target=cell, num=2, coding_method="spike_counts")
        learner = Learner(algorithm="stca")
    learner.trainable = [net]
    net.source(np.ones((1, 2)))
    net.run(1.0)
    assert "NeuronGroup cell made no spike" in capsys.readouterr().err
    with Network() as net:
        NeuronGroup(1, model="constantcurrentlif", method="euler", tau_m=0.15, name="quick")
    net.run(0.1)
    assert "more than half of tau_m=0.15 ms" in capsys.readouterr().err
    with Network() as net:
        source = Encoder(num=1, coding_method="poisson")
        Connection(source, NeuronGroup(1, name="c"), name="l")
    net.source(np.full((1, 1), 20.0))
    net.run(0.1)
    net.run(0.1)
    assert capsys.readouterr().err.count("saturate at one spike a step") == 1


@pytest.mark.parametrize("name", ["time", "dt", "device", "engine", "run", "members", "training"])
def test_a_part_named_like_an_attribute_is_refused(name):
    told = f"net: NeuronGroup {name} cannot be called '{name}', an attribute of each"
    net = Network()
    with pytest.raises(InputError, match=told):
        net.add_assembly(name, NeuronGroup(2, name=name))
    with pytest.raises(InputError, match=told):
        setattr(net, name, NeuronGroup(2, name=name))
    with pytest.raises(InputError, match=told), net:
        NeuronGroup(2, name=name)


def test_a_model_of_double_precision_in_a_network_of_single_precision():
    model = NeuronModel(
        name="exact",
        states={"V": 0.0},
        step="V = 0.9 * V + Isyn\nO = spike(V - 1)",
        dtype="float64",
    )
    made = []
    for link in ("full", "one_to_one_sparse", "all_to_all"):
        with Network() as net:
            source = Encoder(num=2, coding_method="null")
            first, last = NeuronGroup(2, model=model), NeuronGroup(2)
            Connection(source, first, link_type="one_to_one", weight=np.eye(2))
            Connection(first, last, link_type=link, weight=0.25)
            Connection(last, first, syn_type="electrical", weight=[[0.1, 0.0], [0.0, 0.1]])
        net.build()
        net.source(np.full((1, 40, 2), 0.4))
        net.run(4.0)
        assert net.variable(first, "V").dtype == torch.float64
        assert net.variable(last, "V").dtype == torch.float32
        made.append(net.variable(last, "V"))
    assert made[0].abs().max() > 0
    torch.testing.assert_close(made[0], made[2])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: NeuronGroup(1, name="g", tau_m=10 * mV), "g: tau_m=10 mV is a potential; expect"),
        (lambda: NeuronGroup(1, name="g", v_th=-50 * ms), "g: v_th=-50 ms is a time; expected a p"),
        (lambda: NeuronGroup(1, name="g", refractory=2 * mV), "g: refractory=2 mV is a potential"),
        (lambda: NeuronGroup(1, name="g", initial={"V": 1 * ms}), "g: V=1 ms is a time"),
        (lambda: NeuronGroup(1, "cuba", name="g", C=1 * pA), "g: C=1 pA is a current"),
        (
            lambda: Connection(
                NeuronGroup(1),
                NeuronGroup(1),
                name="c",
                syn_type=["basic", "1_order_synapse"],
                syn_kwargs={"tau": 5 * mV},
            ),
            "c: tau=5 mV is a potential",
        ),
        (
            lambda: Generator(num=1, name="p", coding_method="poisson", rate=5 * pA),
            "5 pA is a current; expected a rate",
        ),
        (lambda: Learner(name="l", algorithm="stdp", tau_plus=1 * Hz), "l: tau_plus=0.001 kHz is"),
        (lambda: StateMonitor(NeuronGroup(1), "V", dt=1 * mV), "dt=1 mV is a potential"),
    ],
)
def test_a_quantity_of_another_dimension_is_refused_with_the_name_of_the_part(make, told):
    with pytest.raises(InputError, match=told):
        make()


def test_quantities_may_be_arrays_and_weights():
    times = np.array([10.0, 20.0]) * ms
    assert isinstance(times, Quantity)
    assert str(times) == "[10. 20.] ms"
    assert (torch.ones(2) * ms).dimension == "time"
    with Network(dtype=torch.float64) as net:
        source = Generator(num=2, coding_method="cc_generator", rate=np.array([1.0, 2.0]) * nA)
        cell = NeuronGroup(2, model="iaf_psc_exp", tau_m=times)
        link = Connection(
            source,
            cell,
            weight=np.eye(2) * nA,
            bias=5 * pA,
            w_max=0.5 * nA,
            syn_type=["basic", "1_order_synapse"],
            syn_kwargs={"tau": 2 * ms},
        )
        watch = StateMonitor(cell, "V", dt=0.2 * ms)
    assert cell.model_parameters["tau_m"].tolist() == [10.0, 20.0]
    net.run(1.0 * ms)
    assert link.weight.tolist() == [[500.0, 0.0], [0.0, 500.0]]
    assert link.bias.tolist() == [5.0, 5.0]
    assert source.source.tolist() == [[1000.0, 2000.0]]
    assert watch.times.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    own = NeuronModel(name="own", parameters={"v_th": 1.0}, step="O = spike(Isyn - v_th)")
    assert NeuronGroup(1, model=own, v_th=3 * Hz).model_parameters == {"v_th": 0.003}


def test_what_only_a_run_can_tell_names_the_part():
    def running(link=None, model="lif", drive=None, **cell):
        with Network() as net:
            source = Encoder(shape=(4, 1, 1), coding_method="float")
            cells = NeuronGroup(3, model=model, **cell)
            if link is not None:
                Connection(source, cells, name="link", **link)
        net.source(np.ones((1, 4)))
        net.run(0.2)

    for options, told in (
        ({"link": {"link_type": "null"}}, r"link gives \(4, 1, 1\); NeuronGroup cells has \(3,\)"),
        ({"model": "iaf_psc_exp", "C": 0.0}, "C=0.0; the model divides by it"),
        ({"model": "glif", "R": np.array([1.0, 0.0, 2.0])}, "the model divides by it"),
    ):
        with pytest.raises(InputError, match=told):
            running(**options)
    with Network() as net:
        one, two = NeuronGroup(2, model="meanfield"), NeuronGroup(2)
        Connection(one, two, syn_type="electrical", name="gap")
    with pytest.raises(InputError, match=r"gap: .* reads V .* meanfield of NeuronGroup one has"):
        net.run(0.1)


def test_random_links_leave_out_the_diagonal_of_squares_only():
    for kind in ("random", "random_connection_sparse"):
        for pre, post, synapses in ((3, 3, 6), (3, 5, 15)):
            with Network() as net:
                one, two = NeuronGroup(pre), NeuronGroup(post)
                link = Connection(one, two, link_type=kind, probability=1.0)
            net.build()
            assert int((link.weight != 0).sum()) == synapses


def test_a_link_that_is_no_parameter_trains_neither_weight_nor_bias():
    with Network() as net:
        source, cell = Encoder(num=3, coding_method="float"), NeuronGroup(2)
        link = Connection(source, cell, bias=np.ones(2), is_parameter=False)
        learner = Learner(algorithm="stca")
    learner.trainable = [net]
    net.build()
    assert not link.weight.requires_grad
    assert not link.bias.requires_grad
    assert learner.parameters() == []


def test_a_potential_that_is_decoded_from_spikes_is_told(capsys):
    set_quiet(False)
    with Network() as net:
        cell, graded = NeuronGroup(2), NeuronGroup(2, model="nonspikinglif")
        Decoder(dec_target=cell, num=2, coding_method="final_step_voltage", name="end")
        Decoder(dec_target=graded, num=2, coding_method="final_step_voltage", name="fine")
    net.run(0.1)
    told = capsys.readouterr().err
    assert "end: final_step_voltage reads a potential, and O of NeuronGroup cell is spikes" in told
    assert "fine" not in told  # what it emits is its potential


def test_lists_of_spikes_name_whole_neurons():
    with pytest.raises(InputError, match="neurons that are no whole numbers"):
        run_list([([0.1], [0.7])])


def run_list(pairs):
    node = Encoder(num=2, coding_method="mstb")
    node(pairs)
    node.start(3, 0.1)


def test_the_error_of_a_loop_names_its_groups_only_and_the_ways_out():
    with Network() as net:
        a, b, c, d = (NeuronGroup(2, name=name) for name in "abcd")
        for pre, post in ((a, b), (b, c), (c, b), (c, d)):
            Connection(pre, post)
    with pytest.raises(InputError, match="loop through NeuronGroup b, NeuronGroup c: ") as told:
        net.build(strategy=1)
    assert "strategy=0" in str(told.value)
    assert "break_loops=True" in str(told.value)
    with Network() as net:
        a, b = (NeuronGroup(2, name=name) for name in "ab")
        Connection(a, b)
        Connection(b, b)
    with pytest.raises(InputError, match="loop through NeuronGroup b: "):
        net.build(strategy=1)


def test_times_may_be_written_as_text():
    def built(time, tau, delay):
        with Network() as net:
            cells = NeuronGroup(2, tau_m=tau, refractory=delay)
            link = Connection(cells, cells, delay=delay, max_delay=delay, weight=0.1)
        net.set_backend_dt("500us")
        net.run(time)
        return net.n_time_step, link.delay.item(), cells.model_parameters["tau_m"]

    assert built("10ms", " 1e-2 s", "1 ms") == built(10.0, 10.0, 1.0) == (20, 1.0, 10.0)


def small(**options):
    with Network() as net:
        cells = NeuronGroup(4, name="cells")
        Connection(cells, cells, name="link", **options)
    net.run(0.1)


RAW = {
    "run": (lambda: Network().run("10 mV"), "time=10 mV is a potential; expected a time"),
    "text": (lambda: Network().run("soon"), r"time='soon'; expected a time, such as 10\.0"),
    "dt": (lambda: Network().set_backend_dt([1.0, 2.0]), r"dt=\[1\.0, 2\.0\]; expected a time"),
    "delay": (lambda: small(delay="long"), "Connection link: delay='long'; expected numbers"),
    "delays": (lambda: small(delay=[["a"] * 4] * 4), "link: delay is not an array of numbers"),
    "max_delay": (lambda: small(max_delay="long"), "link: max_delay='long'; expected a time"),
    "weight": (lambda: small(weight="big"), "Connection link: weight='big'; expected numbers"),
    "weights": (lambda: small(weight=["a"]), "link: weight is not an array of numbers"),
    "w_min": (lambda: small(w_min="a"), "Connection link: w_min='a'; expected a number"),
    "link_type": (lambda: small(link_type=["full"]), r"link_type=\['full'\]; expected a name"),
    "coding": (lambda: Encoder(num=2, coding_method=5), "coding_method=5; expected a name"),
    "model": (lambda: NeuronGroup(2, model=5), "model=5; expected a name or a NeuronModel"),
    "refractory": (lambda: NeuronGroup(2, refractory="long"), "refractory='long'; expected a time"),
    "norm of vectors": (
        lambda: small(syn_type=["basic", "batchnorm2d"], syn_kwargs={"num_features": 4}),
        r"Connection link: batchnorm2d with num_features=4 cannot take.*\(1, 4\)",
    ),
    "norm": (
        lambda: small(syn_type=["basic", "batchnorm2d"], syn_kwargs={"num_features": "a"}),
        "link: num_features='a'; expected a whole number",
    ),
}


@pytest.mark.parametrize("name", RAW)
def test_values_of_a_wrong_kind_are_told_and_not_raised_raw(name):
    make, message = RAW[name]
    with pytest.raises(InputError, match=message):
        make()
