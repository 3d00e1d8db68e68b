"""Torch modules, functions and classes of the user's, hidden assemblies, and states in a file."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from tenfold.shared.errors import InputError
from tenfold.spaic import (
    Assembly,
    Connection,
    Decoder,
    Encoder,
    Generator,
    Initializer,
    Learner,
    Module,
    Network,
    NeuronGroup,
    Reward,
    Rule,
    Surrogate,
    network_load,
    network_save,
)
from tenfold.spaic.saving import network_from_dict, network_to_dict
from tenfold.spaic.saving.layers import LAYERS, build, describe
from tenfold.spaic.saving.memory import Memory
from tenfold.spaic.saving.state import read_state

X = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def ran(net, x=X):
    net.eval()
    net.source(x)
    net.run(0.4)
    return net.out.predict.detach()


def with_layers():
    torch.manual_seed(0)
    inner = nn.Sequential(
        nn.Conv2d(2, 6, (3, 2), padding=1, groups=2),
        nn.BatchNorm2d(6, momentum=0.3),
        nn.ReLU(),
        nn.Sequential(nn.MaxPool2d(2), nn.Dropout(0.25)),
        nn.Flatten(),
        nn.Linear(96, 4, bias=False).to(torch.float32),
    )
    inner(X)  # running means
    inner[0].bias.requires_grad_(False)
    with Network("layers") as net:
        source = Encoder(shape=(2, 8, 8), coding_method="float")
        cells, again = NeuronGroup(4, model="lif", v_th=0.2), NeuronGroup(4, model="lif")
        module = Module(inner, source, cells)
        linear = nn.Linear(4, 4)
        one = Module(linear, cells, again, input_var_names=["V"])
        two = Module(linear, again, again)
        out = Decoder(dec_target=again, coding_method="final_step_voltage", coding_var_name="V")
        learner = Learner(trainable=[module, cells], algorithm="sbp")
    assert (one.name, two.name, out.name, learner.name) == ("one", "two", "out", "learner")
    net.build(strategy=0)
    return net


@pytest.mark.parametrize("kind", ["json", "yaml"])
def test_layers_of_torch_come_back_with_their_weights(tmp_path, kind):
    net = with_layers()
    expected = ran(net)
    assert expected.abs().sum() > 0
    text = network_save(net, tmp_path / "saved", kind).read_text()
    assert "Conv2d" in text
    again = network_load(tmp_path / "saved")
    assert torch.equal(ran(again), expected)
    assert str(again.module.torch_module) == str(net.module.torch_module)
    assert again.one.torch_module is again.two.torch_module
    assert again.learner.trainable[0] is again.module
    assert [p.requires_grad for p in again.module.torch_module.parameters()][:3] == [
        True,
        False,
        True,
    ]
    assert network_to_dict(again) == network_to_dict(net)


MADE = [
    (nn.ConvTranspose1d(2, 4, 3, 2, 1, 1, groups=2), (2, 2, 7)),
    (nn.ConvTranspose2d(2, 3, 2, bias=False), (2, 2, 4, 4)),
    (nn.Conv1d(2, 4, 3, padding="same", dilation=2, padding_mode="circular"), (2, 2, 9)),
    (nn.BatchNorm1d(4, affine=False), (5, 4)),
    (nn.LayerNorm((3, 4), bias=False), (2, 3, 4)),
    (nn.GroupNorm(2, 4, eps=0.1), (2, 4, 3)),
    (nn.MaxPool1d(3, 2, ceil_mode=True), (1, 2, 8)),
    (nn.AvgPool1d(2, padding=1, count_include_pad=False), (1, 2, 8)),
    (nn.AvgPool2d((2, 3), divisor_override=5), (1, 1, 6, 6)),
    (nn.AdaptiveAvgPool1d(3), (1, 2, 8)),
    (nn.AdaptiveAvgPool2d((2, None)), (1, 2, 8, 8)),
    (nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=True), (1, 2, 4, 4)),
    (nn.Linear(3, 2, dtype=torch.float64), (2, 3)),
    *[
        (layer, (2, 3))
        for layer in (
            nn.Identity(),
            nn.LeakyReLU(0.2),
            nn.ELU(0.5),
            nn.GELU("tanh"),
            nn.SiLU(),
            nn.Softplus(2.0, 10.0),
            nn.Hardtanh(-0.5, 0.25),
            nn.Tanh(),
            nn.Sigmoid(),
            nn.Softmax(1),
        )
    ],
    (nn.Dropout1d(0.5), (1, 2, 3)),
    (nn.Dropout2d(0.25), (1, 2, 3, 3)),
]


@pytest.mark.parametrize(("layer", "shape"), MADE, ids=lambda v: type(v).__name__)
def test_each_layer_computes_the_same_after_its_description(layer, shape):
    made = json.loads(json.dumps(describe(layer.eval())))
    again = build(made, Memory(), "part").eval()
    again.load_state_dict(layer.state_dict())
    dtype = torch.float64 if made.get("dtype") else torch.float32
    x = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again(x), layer(x))
    tested = {type(one) for one, _ in MADE}
    tested |= {nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.Dropout, nn.Flatten}
    assert tested == set(LAYERS)


class Doubled(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return self.factor * x.flatten(1)[:, :4]


def test_other_modules_are_handed_in(tmp_path):
    hooked = nn.Linear(4, 4)
    hooked.register_forward_hook(lambda layer, given, made: made * 0 + 1)
    with Network("other") as net:
        source = Encoder(shape=(2, 8, 8), coding_method="float")
        cells = NeuronGroup(4, model="null")
        first = Module(Doubled(), source, cells)
        inside = Assembly()
        out = Decoder(dec_target=cells, coding_method="spike_counts")
    inside.second = Module(hooked, cells, cells)
    with torch.no_grad():
        first.torch_module.factor.fill_(3.0)
    assert out.name == "out"
    expected = ran(net)
    network_save(net, tmp_path / "saved")
    given = {"first": Doubled(), "inside.second": hooked}
    again = network_load(tmp_path / "saved", modules=given)
    assert given["first"].factor.item() == 3.0
    assert torch.equal(ran(again), expected)
    with pytest.raises(InputError, match="Module first needs the module 'first', which a file"):
        network_load(tmp_path / "saved", modules={"inside.second": hooked})
    with pytest.raises(InputError, match=r"'inside\.second'.*did you mean 'inside\.secnd'"):
        network_load(tmp_path / "saved", modules={"first": Doubled(), "inside.secnd": hooked})
    with pytest.raises(InputError, match="Module first: 3 is not a torch module"):
        network_load(tmp_path / "saved", modules={**given, "first": 3})


def test_a_file_makes_no_layer_but_those_of_the_table():
    net = with_layers()
    made = network_to_dict(net)
    entry = next(part["one"] for part in made["parts"] if "one" in part)
    for held, told in (
        ({"layer": "Bilinear", "arguments": {}}, "unknown layer 'Bilinear'"),
        ({"layer": "Linear", "arguments": {"in_features": 4, "device": "x"}}, "takes no device"),
        ({"layer": "Linear", "arguments": {"in_features": {}}}, "is not a number or a word"),
        ({"layer": "Linear", "arguments": {"in_features": -1, "out_features": 2}}, "no Linear can"),
        (
            {"layer": "Linear", "arguments": {"in_features": 10**6, "out_features": 10**6}},
            "Linear takes .* GiB.*; at most 4 GiB",
        ),
    ):
        entry["module"] = held
        with pytest.raises(InputError, match=f"Module one.*{told}"):
            network_from_dict(made)


def bump(r):
    return torch.exp(-r * r)


class Halving(Rule):
    options = {"lr": 0.5}  # noqa: RUF012 - a table, not state

    def step(self, moment):
        self.weight.mul_(self.lr)


class Ticking(Generator):
    def emit(self, k):
        return super().emit(k) * (k % 2 == 0)


def decay(epoch):
    return 0.5**epoch


def of_ones_own():
    places = np.linspace(0, 1, 5)[:, None]
    net = Network("own")
    net.source = Ticking(num=5, coding_method="cc_generator", rate=1.0)
    net.a = NeuronGroup(5, neuron_position=places, prefer_device="cuda:1")
    net.b = NeuronGroup(5, neuron_position=places)
    net.into = Connection(net.source, net.a, link_type="one_to_one", w_mean=2.0)
    options = {"distance_weight_function": bump}
    net.link = Connection(net.a, net.b, link_type="dist_depd", prefer_device="cpu", **options)
    net.drawn = Connection(net.a, net.b, weight=Initializer("uniform", a=0.5, b=1.0))
    net.good = Reward(dec_target=net.b, coding_method="global_reward")
    net.rule = Learner(trainable=net.link, algorithm=Halving, lr=0.75, reward=net.good)
    own = Surrogate("own", "1 / (1 + u * u) * alpha", 3.0)
    net.slope = Learner(trainable=[net.drawn, net.b], algorithm="sbp", surrogate_func=own)
    net.slope.set_optimizer("SGD", lr=0.1)
    net.slope.set_schedule("LambdaLR", lr_lambda=decay)
    net.out = Decoder(dec_target=net.b, coding_method="spike_counts")
    net.good(np.zeros(1))
    return net


def test_functions_and_classes_are_handed_in(tmp_path):
    net = of_ones_own()
    file = network_save(net, tmp_path / "saved")
    given = {f.__name__: f for f in (bump, Halving, Ticking, decay)}
    again = network_load(tmp_path / "saved", functions=given)
    for made in (net, again):
        made.good(np.zeros(1))
        made.run(1.0)
    assert type(again.source) is Ticking
    assert net.out.predict.sum() > 0
    assert torch.equal(again.out.predict, net.out.predict)
    assert torch.equal(again.link.weight, net.link.weight)
    assert again.rule.reward is again.good
    assert again.slope.surrogate == net.slope.surrogate
    assert again.slope.optimizer.param_groups[0]["lr"] == 0.1
    assert (again.a.prefer_device, again.link.prefer_device) == ("cuda:1", "cpu")
    fresh = network_load(tmp_path / "saved", load_weight=False, functions=given)
    fresh.prepare()
    assert torch.all((fresh.drawn.weight >= 0.5) & (fresh.drawn.weight <= 1.0))
    for missing, told in (
        ("bump", "Connection link needs the function 'bump'"),
        ("Halving", "Learner rule needs the function 'Halving'"),
        ("Ticking", "Generator source needs the function 'Ticking'"),
        ("decay", "Learner slope needs the function 'decay'"),
    ):
        with pytest.raises(InputError, match=f"{told}, which a file cannot hold; hand it in"):
            network_load(file, functions={k: v for k, v in given.items() if k != missing})
    with pytest.raises(InputError, match="not a class derived from Generator"):
        network_load(file, functions={**given, "Ticking": Halving})


def test_a_function_needs_a_name_of_its_own(tmp_path):
    net = of_ones_own()
    net.link.options["distance_weight_function"] = lambda r: r
    with pytest.raises(
        InputError, match=r"option distance_weight_function of Connection link: .*def"
    ):
        network_save(net, tmp_path / "saved")

    def decay(r):
        return r

    net.link.options["distance_weight_function"] = decay
    with pytest.raises(InputError, match="two functions are called 'decay'; rename one"):
        network_save(net, tmp_path / "saved")


def test_hidden_assemblies_are_saved_and_stay_hidden(tmp_path):
    def made():
        net = Network("hiding")
        net.source = Encoder(shape=(2, 8, 8), coding_method="float")
        net.left, net.right = Assembly(), Assembly()
        for side in (net.left, net.right):
            side.cells = NeuronGroup(4, model="null")
            side.again = Connection(side.cells, side.cells, w_mean=0.1)
        net.to_left = Connection(net.source, net.left.cells, w_mean=1.0)
        net.to_right = Connection(net.source, net.right.cells, w_mean=1.0)
        net.cross = Connection(net.right.cells, net.left.cells, w_mean=5.0)
        net.out = Decoder(dec_target=net.left.cells, coding_method="spike_counts")
        net.other = Decoder(dec_target=net.right.cells, coding_method="spike_counts")
        return net

    net = made()
    whole = ran(net)
    net.right.assembly_hide()
    half = ran(net)
    assert not torch.equal(whole, half)
    network_save(net, tmp_path / "saved")
    again = network_load(tmp_path / "saved")
    assert again.right not in again
    assert torch.equal(ran(again), half)
    assert torch.equal(ran(net), half)  # saving has shown nothing for longer
    again.right.assembly_show()
    assert torch.equal(ran(again), whole)
    assert again.other.predict.abs().sum() > 0


def test_the_official_arguments_of_saving(tmp_path):
    net = of_ones_own()
    given = {f.__name__: f for f in (bump, Halving, Ticking, decay)}
    file = network_save(net, filename="mine", path=tmp_path, combine=True, trans_format="yaml")
    assert file == tmp_path / "mine" / "mine.yml"
    assert [item.name for item in file.parent.iterdir()] == ["mine.yml"]
    again = network_load(filename="mine", path=tmp_path, device="cpu", functions=given)
    assert torch.equal(again.drawn.weight, net.drawn.weight)
    assert network_save(net, save=False, save_weight=False) == network_to_dict(net)
    network_save(net, filename="apart", path=tmp_path)
    names = sorted(item.name for item in (tmp_path / "apart").iterdir())
    assert names == ["apart.json", "apart.safetensors"]
    again = network_load(filename="apart", path=tmp_path, functions=given)
    assert torch.equal(again.link.weight, net.link.weight)
    with pytest.raises(InputError, match="give the path of a folder, or a filename"):
        network_save(net)
    with pytest.raises(InputError, match=r"holds no other\.json, \.yaml or \.yml"):
        network_load(filename="other", path=tmp_path)


@pytest.mark.parametrize("kind", ["safetensors", "hdf5", "pt"])
def test_a_state_goes_through_each_kind_of_file(tmp_path, kind):
    if kind == "hdf5":
        pytest.importorskip("h5py")
    net, again = with_layers(), with_layers()
    with torch.no_grad():
        net.module.torch_module[0].weight.add_(1.0)
    again.name = "renamed"
    state = net.save_state("run", str(tmp_path), save=kind != "pt", hdf5=kind == "hdf5")
    if kind == "pt":  # as the official front end writes: parameters, and modules by their ids
        folder = tmp_path / "run" / "parameters"
        folder.mkdir(parents=True)
        modules = {m.id: m.torch_module.state_dict() for m in net.parts(Module)}
        inside = [name for name in state if any(name.startswith(id + ":") for id in modules)]
        torch.save(
            {k: v for k, v in state.items() if k not in inside}, folder / "_parameters_dict.pt"
        )
        torch.save(modules, folder / "module_dict.pt")
    again.state_from_dict(filename="run", direct=str(tmp_path), device="cpu")
    assert torch.equal(ran(again), ran(net))
    third = with_layers()
    third.state_from_dict(net.save_state(save=False))
    assert torch.equal(ran(third), ran(net))
    with pytest.raises(InputError, match=r"there is no .*_parameters_dict\.safetensors, nor as"):
        again.state_from_dict(filename="nowhere", direct=str(tmp_path))


def test_a_pickle_with_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    folder = tmp_path / "net" / "parameters"
    folder.mkdir(parents=True)
    torch.save({"x": Evil()}, folder / "_parameters_dict.pt")
    with pytest.raises(InputError, match="cannot be read as a torch state"):
        Network("net").state_from_dict(direct=str(tmp_path))


@pytest.mark.parametrize("how", ["unwritten", "external", "soft", "elsewhere", "twice"])
def test_hdf5_holds_what_it_declares(tmp_path, how):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "state.h5"
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.zeros(3)
    (tmp_path / "raw").write_bytes(bytes(24))
    with h5py.File(path, "w") as file:
        file["y"] = np.zeros(3)
        if how == "unwritten":
            file.create_dataset("x", (10**12,), "f4")
        elif how == "external":
            file["x"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
        elif how == "soft":
            file["x"] = h5py.SoftLink("/y")
        elif how == "elsewhere":
            file.create_dataset("x", (3,), "f8", external=[(str(tmp_path / "raw"), 0, 24)])
        else:
            file["x"] = file["y"]
    told = {
        "unwritten": "h5: /x: the file declares 4,000,000,000,0.. bytes; at most",
        "external": "x is a ExternalLink; expected what is in the file",
        "soft": "x is a SoftLink",
        "elsewhere": "x has its values in another file",
        "twice": "/x has several names",
    }[how]
    with pytest.raises(InputError, match=told):
        read_state(path)
