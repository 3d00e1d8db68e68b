"""What a saved network keeps, and what a damaged or hostile file may not do."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tenfold.shared.errors import InputError
from tenfold.spaic import (
    Assembly,
    Connection,
    Encoder,
    ExcludedTypePolicy,
    IncludedTypePolicy,
    IndexConnectPolicy,
    Initializer,
    Learner,
    Network,
    NeuronGroup,
    Projection,
    SpikeMonitor,
    StateMonitor,
)
from tenfold.spaic import equations as eq
from tenfold.spaic.network.connections import links
from tenfold.spaic.saving import (
    load_state,
    network_from_dict,
    network_load,
    network_save,
    network_to_dict,
    save_state,
)


class Column(Assembly):
    def __init__(self, size):
        super().__init__(type="column")
        self.e = NeuronGroup(size, neuron_type="excitatory")
        self.i = NeuronGroup(size // 2, neuron_type=["inhibitory", "fast"])
        self.ei = Connection(self.e, self.i, w_std=0.5)


def nested():
    net = Network("nested", dtype=torch.float64)
    net.left, net.right = Column(6), Column(4)
    net.source = Encoder(num=3, coding_method="float")
    net.into = Connection(net.source, net.left.e, w_mean=1.0)
    only = IncludedTypePolicy(["excitatory"], None) & ExcludedTypePolicy(None, ["fast"])
    net.across = Projection(
        net.left, net.right, policies=[only], ConnectionParameters={"w_mean": 0.8, "delay": 0.2}
    )
    net.back = Projection(net.right, net.left, policies=[IndexConnectPolicy([0], [(2, 1)])])
    net.learner = Learner(trainable=[net.left, *net.across.expand()], algorithm="stdp")
    net.seen = StateMonitor(net.right.e, "V", index=(slice(1, 3),), dt=0.2, nbatch=2)
    net.weights = StateMonitor(net.into, "weight", index=([0, 1], 2))
    net.spikes = SpikeMonitor(net.left.e)
    return net


@pytest.mark.parametrize("kind", ["json", "yaml"])
def test_nested_assemblies_projections_and_monitors_come_back(tmp_path, kind):
    net = nested()
    network_save(net, tmp_path / "saved", kind)
    again = network_load(tmp_path / "saved")
    assert type(again.left) is Assembly
    assert again.left.type == ["column"]
    assert [g.num for g in again.right.get_groups()] == [4, 2]
    assert len(again.get_connections()) == len(net.get_connections()) == 5
    assert again.learner.trainable[0] is again.left
    assert again.learner.trainable[1] is again.across.expand()[0]
    assert again.seen.index == (slice(1, 3, None),)
    assert again.weights.index == ([0, 1], 2)
    for made in (net, again):
        made.source(np.ones((1, 3)))
        made.run(3.0)
        made.run(3.0)
    assert net.spikes.spk_count.sum() > 3
    np.testing.assert_array_equal(net.seen.nbatch_values[-1], again.seen.nbatch_values[-1])
    np.testing.assert_array_equal(net.weights.values, again.weights.values)
    assert net.seen.values.shape == (1, 2, 15)
    assert network_to_dict(again) == network_to_dict(net)


def test_what_a_network_refers_to_must_be_in_it():
    net = Network()
    net.cell = NeuronGroup(2)
    net.watch = StateMonitor(NeuronGroup(2, name="stranger"), "V")
    with pytest.raises(InputError, match="watch refers to NeuronGroup stranger, which is not"):
        network_to_dict(net)


def small():
    net = Network("small")
    net.a, net.b = NeuronGroup(4), NeuronGroup(3, model="lifstdp_ex")
    net.first = Connection(net.a, net.b, weight=np.full((3, 4), 20.0), max_delay=1.0)
    net.second = Connection(net.b, net.a, link_type="bernoulli", p=0.7, weight=2.0)
    return net


def broken(state, net, how):
    first, second = net.first.weight_name, net.second.weight_name
    if how == "nan":
        state[second][0] = float("nan")
    elif how == "shape":
        state[second.replace("{weight}", "{weight}")] = state[second][:-1]
    elif how == "kind":
        state[first] = state[first].to(torch.int64)
    elif how == "missing":
        del state[first.replace("{weight}", "{delay}")]
    elif how == "unknown":
        state["small<net>_c<con>:{weight}"] = torch.zeros(1)
    return state


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("nan", "not finite"),
        ("shape", "one int64 a weight"),
        ("kind", "is torch.int64 in the saved state; expected torch.float32"),
        ("missing", "lacks"),
        ("unknown", "does not have"),
    ],
)
def test_a_state_is_taken_whole_or_not_at_all(tmp_path, how, message):
    net = small()
    state = load_file(save_state(net, tmp_path / "state.safetensors"))
    state[net.first.weight_name] *= 5
    other = small()
    other.prepare()
    before = {name: value.clone() for name, value in other.named_parameters().items()}
    index = other.second.pre_index.clone()
    with pytest.raises(InputError, match=message):
        load_state(other, broken(state, net, how))
    for name, value in other.named_parameters().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(other.second.pre_index, index)


def test_thresholds_that_were_learned_come_back(tmp_path):
    net = small()
    net.a.initial = {"V": 5.0}
    net.run(20.0)
    learned = net.variable(net.b, "theta").clone()
    assert learned.sum() > 0
    again = small()
    load_state(again, save_state(net, tmp_path / "state.safetensors"))
    assert any("theta" in name for name in again.named_parameters())
    again.run(0.1)
    assert (again.variable(again.b, "theta") >= 0.99 * learned).all()
    again.reset()
    again.run(0.1)
    assert again.variable(again.b, "theta").sum() < learned.sum()


def test_indices_set_by_hand_are_looked_at():
    net = small()
    net.build(engine="event")
    net.second.pre_index[0] = 3
    with pytest.raises(InputError, match=r"Connection second: pre_index holds \d\.\.3; expected 0"):
        net.run(1.0)


def described():
    return json.loads(json.dumps(network_to_dict(small())))


def part_of(made, name):
    return next(part[name] for part in made["parts"] if name in part)


def sized(made, size):
    for name in ("a", "b"):
        part_of(made, name)["shape"] = [size]


def asking(how):
    """A description of a few hundred bytes that asks for more than 4 GiB."""
    made = described()
    first, second = part_of(made, "first"), part_of(made, "second")
    if how == "neurons":
        part_of(made, "a")["shape"] = [10**6, 10**6]
    elif how in ("dense", "bernoulli", "sparse_sparse", "random_connection_sparse"):
        sized(made, 20_000)
        key = {"bernoulli": "p", "sparse_sparse": "density"}.get(how, "probability")
        second["link_type"] = "full" if how == "dense" else how
        second["parameters"] = {} if how == "dense" else {key: 1.0}
        first["max_delay"], first["link_type"] = 0.0, "all_to_all"
    elif how in ("fixed_total", "fixed_in_degree"):
        second["link_type"] = how
        second["parameters"] = {"number" if how == "fixed_total" else "degree": 10**12}
    elif how == "delay":
        first["max_delay"] = 1e8
    elif how == "kernel":
        part_of(made, "a")["shape"], part_of(made, "b")["shape"] = [2, 9, 9], [2, 9, 9]
        first["max_delay"] = 0.0
        second["link_type"] = "conv"
        second["syn_type"] = ["conv"]
        second["parameters"] = {"kernel_size": 40_001, "padding": 20_000}
    elif how == "sum":
        sized(made, 4_000)
        first["max_delay"] = 0.0
        made["parts"] += [
            {f"more{k}": {**first, "name": f"more{k}", "id": f"m{k}"}} for k in range(20)
        ]
        made["members"] |= {f"more{k}": f"m{k}" for k in range(20)}
    return made


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ("neurons", "NeuronGroup a"),
        ("dense", "second"),
        ("bernoulli", "second"),
        ("sparse_sparse", "second"),
        ("random_connection_sparse", "second"),
        ("fixed_total", "second"),
        ("fixed_in_degree", "second"),
        ("delay", "first"),
        ("kernel", "second"),
        ("sum", "more13"),
    ],
)
def test_a_file_may_not_ask_for_a_gigantic_network(how, part):
    with pytest.raises(InputError, match=f"{part}.* takes .* GiB, .*at most 4 GiB are allowed"):
        network_from_dict(asking(how))


def test_the_bound_is_that_of_who_loads():
    with pytest.raises(InputError, match=r"at most 9.31e-09 GiB"):
        network_from_dict(described(), most_bytes=10)
    assert len(network_from_dict(asking("sum"), most_bytes=2**40).get_connections()) == 22
    made = described()
    part_of(made, "a")["shape"] = [2.5]
    with pytest.raises(InputError, match=r"a size is 2\.5; expected a whole number"):
        network_from_dict(made)


def test_projections_and_delays_of_a_state_are_counted_too(tmp_path):
    made = json.loads(json.dumps(network_to_dict(nested())))
    part_of(made, "across")["ConnectionParameters"]["delay"] = 1e9
    with pytest.raises(InputError, match=r"across_auto_con0.* takes .* GiB"):
        network_from_dict(made)
    file = network_save(small(), tmp_path)
    state = load_file(tmp_path / "weights.safetensors")
    (name,) = (name for name in state if name.endswith("{delay}"))
    state[name][:] = 1e9
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"first.* takes .* GiB"):
        network_load(file)


def test_no_synapses_are_drawn_where_saved_ones_lie_beside(tmp_path, monkeypatch):
    net = small()
    file = network_save(net, tmp_path)

    def never(*_):
        raise AssertionError("drawn")

    monkeypatch.setattr(links, "_bernoulli_pairs", never)
    again = network_load(file)
    assert torch.equal(again.second.pre_index, net.second.pre_index)
    assert torch.equal(again.second.weight, net.second.weight)
    monkeypatch.undo()
    fresh, state = network_from_dict(described()), load_file(tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match="lacks"):
        load_state(fresh, {k: v for k, v in state.items() if not k.endswith("{delay}")})
    fresh.prepare()
    assert len(fresh.second.weight) > 0  # refused, and drawn as ever


@pytest.mark.parametrize("delays", [{}, {"max_delay": 2.0}])
def test_a_network_that_comes_back_draws_the_same_noise(tmp_path, delays):
    """Though its synapses are read and not drawn, the numbers that follow are the same."""
    net = Network("noisy")
    net.source = Encoder(num=20, coding_method="poisson")
    net.a = NeuronGroup(30, model="lif")
    net.into = Connection(net.source, net.a, link_type="bernoulli", p=0.5, w_mean=3.0, **delays)
    net.own = Connection(
        net.a, net.a, link_type="fixed_total", number=90, weight=Initializer("uniform"), **delays
    )
    net.spikes = SpikeMonitor(net.a)
    network_save(net, tmp_path)
    again = network_load(tmp_path)
    for one in (net, again):
        one.source(np.full((1, 20), 0.4))
        one.run(10.0)
    assert len(net.spikes.spk_times[0]) > 500
    assert np.array_equal(again.spikes.spk_times[0], net.spikes.spk_times[0])
    assert np.array_equal(again.spikes.spk_index[0], net.spikes.spk_index[0])


def test_no_memory_is_told_in_one_line(tmp_path, monkeypatch):
    file = network_save(small(), tmp_path)
    for error in (MemoryError("no room"), RuntimeError("cannot allocate")):

        def full(*_, error=error):
            raise error

        monkeypatch.setattr(Network, "prepare", full)
        with pytest.raises(InputError, match=r"cannot be built .(no room|cannot allocate)"):
            network_load(file)


def of_first_version(parts, owner=""):
    """One flat list, each part with its owner; other names of some fields."""
    for item in parts:
        (part,) = item.values()
        inside = part.pop("parts", [])
        part["owner"] = owner
        if part["_class_label"] == "NeuronGroup":
            part["model"] = part.pop("model_name")
        if part["_class_label"] == "Encoder":
            for key in ("_time", "_dt", "_node_sub_class", "num", "type"):
                del part[key]
        if part["_class_label"] in ("StateMonitor", "SpikeMonitor"):
            del part["type"]
        if part["_class_label"] == "Connection":
            del part["weight"]
        yield part
        yield from of_first_version(inside, part["id"])


def test_files_of_the_first_version_are_read():
    """They have no members of the network, no ids but of what is linked, no labels of nodes."""
    net = nested()
    made = json.loads(json.dumps(network_to_dict(net)))
    made["format"], made["parts"] = "tenfold-spaic 1", list(of_first_version(made["parts"]))
    del made["members"]
    for key in ("engine", "break_loops", "full_grad", "runtime", "builded", "backend_name"):
        del made["backend"][key]
    for part in made["parts"]:
        if part["_class_label"] in ("Learner", "StateMonitor", "SpikeMonitor"):
            del part["id"]
        for key in ("prefer_device", "initializers", "reward"):
            part.pop(key, None)
    again = network_from_dict(made)
    assert list(again.members) == list(net.members)
    assert network_to_dict(again) == network_to_dict(net)


def test_a_file_has_the_fields_and_the_layout_of_the_method_card(tmp_path):
    net = nested()
    net.source.time = 3.0
    made = json.loads(network_save(net, tmp_path, filename="mine").read_text())
    assert {item.name for item in (tmp_path / "mine").iterdir()} == {
        "mine.json",
        "mine.safetensors",
    }
    assert all(len(item) == 1 for item in made["parts"])
    parts = {name: part for item in made["parts"] for name, part in item.items()}
    assert [*map(list, parts["left"]["parts"])] == [["e"], ["i"], ["ei"]]
    inside = parts["left"]["parts"][0]["e"]
    wanted = {
        "source": "_class_label _dt _time coding_method coding_var_name dec_target name num shape "
        "_node_sub_class coding_param",
        "into": "_class_label link_type max_delay name parameters post post_var_name pre "
        "pre_var_name sparse_with_mask syn_type weight",
        "across": "policies link_type ConnectionParameters pre post",
        "learner": "algorithm lr_schedule_name name optim_name parameters trainable pathway",
        "seen": "dt get_grad index name nbatch target var_name type",
    }
    for name, fields in wanted.items():
        assert set(fields.split()) <= set(parts[name]), name
    fields = "_class_label id model_name name num parameters shape type"
    assert set(fields.split()) <= set(inside)
    assert inside["num"] == 6
    assert parts["source"]["_time"] == 3.0
    assert {"backend_name", "dt", "runtime", "builded"} <= set(made["backend"])
    assert parts["into"]["weight"] in load_file(tmp_path / "mine" / "mine.safetensors")
    net.source(np.ones((1, 3)))
    net.run(0.3)
    assert network_to_dict(net)["backend"]["runtime"] == pytest.approx(0.3)
    assert network_to_dict(net)["backend"]["builded"] is True


def test_without_weights_given_synapses_delays_and_biases_stay(tmp_path):
    with Network() as net:
        source = Encoder(num=3, coding_method="float")
        one, two = NeuronGroup(3), NeuronGroup(3)
        pairs = {"pre_index": [0, 2, 2], "post_index": [1, 1, 0]}
        first = Connection(source, one, delay=0.4, bias=[0.1, 0.2, 0.3])
        second = Connection(one, two, link_type="index", w_std=1.0, **pairs)
        third = Connection(one, two, delay=np.arange(9.0).reshape(3, 3))
    network_save(net, tmp_path / "saved")
    again = network_load(tmp_path / "saved", load_weight=False)
    again.set_random_seed(5)
    again.build()
    for key in ("delay", "bias"):
        assert torch.equal(getattr(again.first, key), getattr(first, key))
    assert torch.equal(again.third.delay, third.delay)
    assert again.second.pre_index.tolist() == [0, 2, 2]
    assert again.second.post_index.tolist() == [1, 1, 0]
    assert not torch.equal(again.first.weight, first.weight)
    assert not torch.equal(again.second.weight, second.weight)
    network_save(net, tmp_path / "bare", save_weight=False)
    with pytest.raises(InputError, match="second: its pre_index stands in the saved state"):
        network_load(tmp_path / "bare", load_weight=False)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.json", "[1, 2]", "mapping, not [1, 2]"),
        ("a.json", "", "not a network file"),
        ("a.yaml", "", "mapping, not None"),
        ("a.yaml", "hello", "mapping, not 'hello'"),
        ("a.json", '{"nodes": {}}', "format None; expected tenfold-spaic 1 or tenfold-spaic 2"),
        ("a.json", '{"format": "tenfold-spaic 2"}', "not a network file (it lacks 'parts')"),
        ("a.json", "PK\x03\x04", "not a network file"),
    ],
)
def test_files_that_are_no_networks_are_told_by_name(tmp_path, name, text, told):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as error:
        network_load(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}: ")
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"there is no file .*b\.yml"):
        network_load(tmp_path / "b.yml")


def test_aliases_and_endless_numbers_are_refused(tmp_path):
    folder = tmp_path / "saved"
    file = network_save(small(), folder, "yaml")
    assert "&id" not in file.read_text()
    laughs = "a: &a [1,1]\nb: &b [*a,*a]\nc: [*b,*b]\n"
    file.write_text(laughs + file.read_text())
    with pytest.raises(InputError, match="it holds aliases"):
        network_load(folder)
    with pytest.raises(InputError, match="characters; expected at most"):
        eq.expression("1+" * 20_000 + "1")
    with pytest.raises(InputError, match="too large a number"):
        eq.evaluate(eq.expression("9**9**9**9"), {})
    assert eq.evaluate(eq.expression("2**10"), {}) == 1024


def test_settings_of_a_network_are_checked():
    with pytest.raises(InputError, match=r"dtype=torch\.int32; expected"):
        Network(dtype=torch.int32)
    for device in ("tpu", "cuda:77"):
        with pytest.raises(InputError, match=f"device='{device}' cannot be used here"):
            Network().set_backend(device=device)
