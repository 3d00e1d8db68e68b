"""NIR graphs against plain loops of torch, there and back."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tenfold.shared.errors import InputError
from tenfold.shared.progress import set_quiet
from tenfold.spaic import (
    Connection,
    Decoder,
    Encoder,
    Module,
    Network,
    NeuronGroup,
    from_nir,
    to_nir,
)

nir = pytest.importorskip("nir")
DT = 1e-3
RANDOM = np.random.default_rng(0)
STEPS = 25


def ends(first, last):
    return {
        "input": nir.Input(input_type={"input": np.array(first)}),
        "output": nir.Output(output_type={"output": np.array(last)}),
    }


def graph(nodes, *paths):
    edges = [edge for path in paths for edge in pairwise(path)]
    return nir.NIRGraph(nodes=nodes, edges=edges, metadata={"dt_seconds": DT})


def outputs(net, x):
    net.input(x)
    net.run(x.shape[1] * net.dt)
    return net.output.predict.flatten(2)


def there_and_back(made, x, tmp_path, **options):
    """What a graph gives, once it was found equal after writing and reading."""
    net = from_nir(made, **options)
    found = outputs(net, x)
    to_nir(net, tmp_path / "net.nir")
    again = outputs(from_nir(tmp_path / "net.nir"), x)
    torch.testing.assert_close(again, found, rtol=1e-4, atol=1e-4)
    assert found.abs().sum() > 5
    return found


def lif(shape, tau=0.01, theta=0.4):
    full = [np.full(shape, v) for v in (tau, 1.0, 0.0, theta)]
    return nir.LIF(*full, v_reset=np.zeros(shape))


class Lif:
    """One Euler step of the node that `lif` makes, with subtraction."""

    def __init__(self, share=DT / 0.01, theta=0.4):
        self.v, self.share, self.theta = 0.0, share, theta

    def __call__(self, i):
        u = self.v + self.share * (i - self.v)
        s = (u > self.theta).to(i.dtype)
        self.v = u - s * self.theta
        return s


def test_images(tmp_path):
    x = torch.from_numpy((RANDOM.random((2, STEPS, 2, 8, 8)) < 0.6).astype(np.float32))
    weight, bias = RANDOM.normal(0.5, 1, (4, 2, 3, 3)), RANDOM.normal(0, 0.3, 4)
    uneven, last = RANDOM.normal(0.5, 1, (4, 2, 1, 2)), RANDOM.normal(0.1, 0.3, (5, 8))
    two = np.array([2, 2])
    nodes = ends([2, 8, 8], [5]) | {
        "conv": nir.Conv2d((8, 8), weight, 1, 1, 1, 1, bias),
        "spikes": lif((4, 8, 8)),
        "sum": nir.SumPool2d(two, two, np.array([0, 0])),
        "mean": nir.AvgPool2d(two, two, np.array([0, 0])),
        "uneven": nir.Conv2d((2, 2), uneven, 1, 0, 1, 2, np.zeros(4)),
        "flat": nir.Flatten({"input": np.array([4, 2, 1])}, 0, -1),
        "last": nir.Linear(last),
        "out": lif((5,)),
    }
    chain = ["input", "conv", "spikes", "sum", "mean", "uneven", "flat", "last", "out", "output"]
    made = nir.NIRGraph(
        nodes=nodes,
        edges=list(pairwise(chain)),
        metadata={"dt_seconds": DT},
        type_check=False,  # it does not know the sizes behind sum pooling
    )
    assert "n_sum" in from_nir(made).members  # a map behind a map has a group
    found = there_and_back(made, x, tmp_path)
    first, second = Lif(), Lif()
    tensors = [torch.from_numpy(v).float() for v in (weight, bias, uneven, last)]
    for k in range(STEPS):
        s = first(F.conv2d(x[:, k], tensors[0], tensors[1], padding=1))
        y = F.avg_pool2d(4 * F.avg_pool2d(s, 2), 2)
        y = F.conv2d(y, tensors[2], groups=2).flatten(1)
        expected = second(F.linear(y, tensors[3]))
        assert torch.equal(found[k], expected)
    assert found.sum() > 20


def test_one_dimensional_convolutions_scales_delays_and_thresholds(tmp_path):
    x = torch.from_numpy((RANDOM.random((2, STEPS, 2, 9)) < 0.5).astype(np.float32))
    weight, bias = RANDOM.normal(0.5, 1, (3, 2, 3)), RANDOM.normal(0, 0.3, 3)
    scale = RANDOM.uniform(0.5, 2, (3, 4))
    delay = DT * RANDOM.integers(0, 4, (3, 4))
    nodes = ends([2, 9], [3, 4]) | {
        "conv": nir.Conv1d(9, weight, 2, 0, 1, 1, bias),
        "scale": nir.Scale(scale),
        "step": nir.Threshold(np.full((3, 4), 0.8)),
        "delay": nir.Delay(delay),
        "sum": nir.I(np.full((3, 4), 50.0)),
    }
    chain = ["input", "conv", "scale", "step", "delay", "sum", "output"]
    found = there_and_back(graph(nodes, chain), x, tmp_path)
    s = torch.stack(
        [
            F.conv1d(x[:, k], torch.from_numpy(weight).float(), torch.from_numpy(bias).float(), 2)
            for k in range(STEPS)
        ]
    )
    s = (s * torch.from_numpy(scale).float() > 0.8).float()
    late = torch.zeros_like(s)
    for (i, j), d in np.ndenumerate(np.rint(delay / DT).astype(int)):
        late[d:, :, i, j] = s[: STEPS - d, :, i, j]
    torch.testing.assert_close(found, (late * 50 * DT).cumsum(0).flatten(2), rtol=1e-4, atol=1e-5)


def test_windows_of_any_form_come_back_as_they_were(tmp_path):
    """Groups, kernels, strides, paddings and dilations that differ by axis, in the file itself."""
    x = torch.from_numpy((RANDOM.random((2, STEPS, 4, 9, 8)) < 0.5).astype(np.float32))
    weight, bias = RANDOM.normal(0.2, 0.5, (6, 2, 3, 2)), RANDOM.normal(0, 0.1, 6)
    line = RANDOM.normal(0.2, 0.5, (4, 2, 3))
    window = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}
    pool = [np.array(v) for v in ((2, 3), (2, 1), (1, 0))]
    nodes = ends([4, 9, 8], [6, 3, 4]) | {
        "conv": nir.Conv2d((9, 8), weight, bias=bias, **window),
        "cells": lif((6, 5, 6), theta=0.1),
        "pool": nir.AvgPool2d(*pool),
    }
    made = nir.NIRGraph(
        nodes=nodes,
        edges=list(pairwise(["input", "conv", "cells", "pool", "output"])),
        metadata={"dt_seconds": DT},
        type_check=False,
    )
    found = there_and_back(made, x, tmp_path)
    cell, tensors = Lif(theta=0.1), [torch.from_numpy(v).float() for v in (weight, bias, line)]
    for k in range(STEPS):
        s = cell(F.conv2d(x[:, k], *tensors[:2], (2, 1), (1, 0), (1, 2), 2))
        expected = F.avg_pool2d(s, (2, 3), (2, 1), (1, 0)).flatten(1)
        torch.testing.assert_close(found[k], expected)
    kept = nir.read(tmp_path / "net.nir", type_check=False).nodes
    (conv,) = (node for node in kept.values() if isinstance(node, nir.Conv2d))
    assert conv.weight.shape == (6, 2, 3, 2)
    assert {key: tuple(np.atleast_1d(getattr(conv, key))) for key in window} == window | {
        "groups": (2,)
    }
    (mean,) = (node for node in kept.values() if isinstance(node, nir.AvgPool2d))
    assert [v.tolist() for v in (mean.kernel_size, mean.stride, mean.padding)] == [
        v.tolist() for v in pool
    ]

    x = x[:, :, :, 0]
    nodes = ends([4, 8], [4, 8]) | {
        "conv": nir.Conv1d(8, line, 1, "same", 2, 2, np.zeros(4)),
        "cells": lif((4, 8), theta=0.1),
    }
    made = nir.NIRGraph(
        nodes=nodes,
        edges=list(pairwise(["input", "conv", "cells", "output"])),
        metadata={"dt_seconds": DT},
        type_check=False,
    )
    found, cell = there_and_back(made, x, tmp_path), Lif(theta=0.1)
    for k in range(STEPS):
        expected = cell(F.conv1d(x[:, k], tensors[2], None, 1, "same", 2, 2))
        assert torch.equal(found[k], expected.flatten(1))
    kept = nir.read(tmp_path / "net.nir", type_check=False).nodes
    (conv,) = (node for node in kept.values() if isinstance(node, nir.Conv1d))
    assert (conv.padding, int(conv.dilation), int(conv.groups)) == ("same", 2, 2)


def test_what_nir_has_no_node_for_is_told():
    for shape, options, told in (
        ((2, 8), {"link_type": "pool"}, "NIR has pooling of images only, not of sequences"),
        ((2, 8, 8), {"link_type": "pool", "syn_type": "maxpool"}, "no node for the synapse 'maxp"),
        ((2, 8), {"link_type": "conv_transpose"}, "no node for the synapse 'conv_transpose'"),
    ):
        with Network() as net:
            source, cell = Encoder(shape=shape, coding_method="null"), NeuronGroup(1)
            cell.shape = None  # filled by the link
            Connection(source, cell, name="link", **options)
        with pytest.raises(InputError, match=f"Connection link: .*{told}"):
            to_nir(net)


def test_what_nir_cannot_say_is_refused_or_told(capsys):
    set_quiet(False)
    with Network() as net:
        source = Encoder(num=2, coding_method="null")
        cell = NeuronGroup(2, refractory=1.0, initial={"V": 0.5})
        Connection(source, cell)
    with pytest.raises(InputError, match="NeuronGroup cell: NIR has no refractory periods"):
        to_nir(net)
    cell.refractory = 0.0
    to_nir(net)
    assert "NeuronGroup cell: NIR has no starting values" in capsys.readouterr().err
    net.inner = Module(torch.nn.Linear(2, 2), source, cell)
    with pytest.raises(InputError, match="Module inner: NIR has no torch modules"):
        to_nir(net)


def test_recurrent_edges_carry_the_spikes_of_the_step_before_and_graphs_may_lie_in_graphs(tmp_path):
    x = torch.from_numpy((RANDOM.random((2, STEPS, 5)) < 0.5).astype(np.float32))
    weights = [RANDOM.normal(0.6, 1, (6, 5)), RANDOM.normal(0, 1, (6, 6))]
    inner = nir.NIRGraph(
        nodes=ends([6], [6]) | {"cells": lif((6,)), "again": nir.Linear(weights[1])},
        edges=[("input", "cells"), ("cells", "again"), ("again", "cells"), ("cells", "output")],
    )
    nodes = ends([5], [6]) | {"first": nir.Linear(weights[0]), "layer": inner}
    found = there_and_back(graph(nodes, ["input", "first", "layer", "output"]), x, tmp_path)
    cells, s = Lif(), torch.zeros(2, 6)
    w, again = (torch.from_numpy(v).float() for v in weights)
    for k in range(STEPS):
        s = cells(x[:, k] @ w.T + s @ again.T)
        assert torch.equal(found[k], s)


@pytest.mark.parametrize("reset", ["value", "subtract", "subtract-next"])
def test_current_based_neurons_and_the_three_resets(tmp_path, reset):
    x = torch.from_numpy((RANDOM.random((2, 60, 4)) < 0.5).astype(np.float32))
    full = [np.full(4, v) for v in (0.005, 0.01, 1.0, 0.0, 0.3)]
    node = nir.CubaLIF(*full, v_reset=np.full(4, -0.1), w_in=np.full(4, 2.0))
    nodes = ends([4], [4]) | {"cells": node}
    found = there_and_back(graph(nodes, ["input", "cells", "output"]), x, tmp_path, reset=reset)
    current, v, s = torch.zeros(2, 4), torch.zeros(2, 4), torch.zeros(2, 4)
    for k in range(60):
        current = current + 0.2 * (2 * x[:, k] - current)
        v = v + 0.1 * (current - v) - (0.3 * s if reset == "subtract-next" else 0)
        s = (v > 0.3).float()
        v = v - 0.3 * s if reset == "subtract" else v
        v = torch.where(s > 0, torch.full_like(v, -0.1), v) if reset == "value" else v
        assert torch.equal(found[k], s)


def test_current_based_integrators_do_not_spike(tmp_path):
    x = torch.from_numpy((RANDOM.random((2, 60, 4)) < 0.5).astype(np.float32))
    full = [np.full(4, v) for v in (0.005, 0.01, 3.0, 0.1)]
    node = nir.CubaLI(*full, w_in=np.full(4, 2.0))
    nodes = ends([4], [4]) | {"cells": node}
    found = there_and_back(graph(nodes, ["input", "cells", "output"]), x, tmp_path)
    current, v = torch.zeros(2, 4), torch.zeros(2, 4)
    for k in range(60):
        current = current + 0.2 * (2 * x[:, k] - current)
        v = v + 0.1 * (0.1 - v + 3 * current)
        torch.testing.assert_close(found[k], v)


def test_masks_sparse_links_and_passing_groups_are_written(tmp_path):
    with Network() as net:
        input = Encoder(num=6, coding_method="null")
        a, b = NeuronGroup(6, model="lif"), NeuronGroup(6, model="null")
        c = NeuronGroup(3, model="ifsubtract")
        Connection(input, a, link_type="one_to_one", weight=RANDOM.random((6, 6)) + 0.3)
        Connection(a, b, link_type="null")
        Connection(
            b, c, link_type="fixed_total", number=14, weight=RANDOM.normal(0.5, 0.5, 14), delay=0.3
        )
        output = Decoder(dec_target=c, num=3, coding_method="null")
    net.set_backend_dt(0.1)
    net.build(strategy=1)
    x = (RANDOM.random((2, 40, 6)) < 0.6).astype(np.float32)
    net.input(x)
    net.run(4.0)
    again = outputs(from_nir(to_nir(net, tmp_path / "net.nir")), x)
    assert output.predict.sum() > 10
    torch.testing.assert_close(again, output.predict)


def wrong_graphs():
    yield "Flatten", {"f": nir.Flatten({"input": np.array([3])}, 2, 3)}, "flattens some axes only"
    yield "size", {"f": nir.Linear(np.ones((3, 4)))}, "'f' does not take"
    yield "target", {"f": nir.Linear(np.ones((4, 3)))}, "'f' gives .* has 3"
    yield "delay", {"f": nir.Delay(np.zeros(2))}, "2 delays for 3 values"


@pytest.mark.parametrize(("name", "nodes", "message"), list(wrong_graphs()))
def test_a_wrong_graph_is_refused_by_name(name, nodes, message):
    made = nir.NIRGraph(
        nodes=ends([3], [3]) | {"cells": lif((3,))} | nodes,
        edges=[("input", "f"), ("f", "cells"), ("cells", "output")],
        type_check=False,
    )
    with pytest.raises(InputError, match=message):
        from_nir(made)


def test_unknown_nodes_and_edges_are_refused_by_name():
    made = nir.NIRGraph(
        nodes=ends([3], [3]) | {"cells": lif((3,)), "odd": nir.Linear(np.eye(3))},
        edges=[("input", "cells"), ("cells", "output")],
        type_check=False,
    )
    with pytest.raises(InputError, match="nothing leads into the NIR node 'odd'"):
        from_nir(made)
    made.edges.append(("cells", "nobody"))
    with pytest.raises(InputError, match="there is no node 'nobody'"):
        from_nir(made)
    made.edges[-1] = ("output", "cells")
    with pytest.raises(InputError, match="leads out of an output"):
        from_nir(made)

    class Strange:
        metadata = None

    made.edges.pop()
    made.nodes["odd"] = Strange()
    with pytest.raises(InputError, match="'odd' is a Strange, which is not read here"):
        from_nir(made)
    del made.nodes["odd"]
    with pytest.raises(InputError, match="did you mean 'subtract'"):
        from_nir(made, reset="substract")
    with Network() as net:
        cell = NeuronGroup(2, model="izh", name="cell")
        Connection(cell, cell)
    with pytest.raises(InputError, match="NeuronGroup cell: NIR has no model 'izh'"):
        to_nir(net)


def test_only_the_links_that_close_a_loop_are_late():
    with Network() as net:
        last = NeuronGroup(2)
        source = Encoder(num=2, coding_method="float")
        first = NeuronGroup(2)
        forth = Connection(first, last, weight=2 * np.eye(2))
        again = Connection(first, first, weight=-np.eye(2))
        Connection(source, first, weight=2 * np.eye(2))
        result = Decoder(dec_target=last, num=2, coding_method="null")
    net.build(strategy=1, break_loops=True)
    assert net._plan.lagged == [again]
    net.source(np.ones((1, 2)))
    net.run(0.2)
    assert forth not in net._plan.lagged
    assert result.predict[:, 0, 0].tolist() == [
        1.0,
        0.0,
    ]  # 2 - 1 is at the threshold


def one_group(strategy=1, **options):
    net = Network(dtype=torch.float64)
    net.source = Encoder(num=2, coding_method="null")
    net.layer = NeuronGroup(3, **({"model": "lif"} | options))
    net.link = Connection(net.source, net.layer, w_std=1.0)
    net.set_backend_dt(1.0)
    net.build(strategy=strategy)
    return net


def test_a_graph_has_weights_of_its_own():
    net = one_group()
    graph = to_nir(net)
    before = graph.nodes["link"].weight.copy()
    with torch.no_grad():
        net.link.weight.mul_(2)
    assert np.array_equal(graph.nodes["link"].weight, before)


def test_what_nir_cannot_hold_is_told(capsys):
    with pytest.raises(InputError, match=r"layer: NIR has no ConstantDecay=0\.1"):
        to_nir(one_group(model="if", ConstantDecay=0.1))
    set_quiet(False)
    to_nir(one_group(strategy=1))
    assert "strategy 0" not in capsys.readouterr().err
    to_nir(one_group(strategy=0))
    assert "with strategy 0 each link costs a step" in capsys.readouterr().err


def test_time_constants_that_are_not_positive_are_refused():
    zeros = np.zeros(2)
    nodes = ends((2,), (2,)) | {"n": nir.LI(tau=zeros, r=zeros + 1, v_leak=zeros)}
    with pytest.raises(InputError, match="a node LI has the time constant"):
        from_nir(graph(nodes, ["input", "n", "output"]))


@pytest.mark.parametrize(("tau", "told"), [(DT, "beta=0"), (0.4 * DT, "beta=-1.5")])
def test_euler_steps_longer_than_a_time_constant_are_not_written(tau, told):
    """1 - dt/tau is then no e^(-dt/tau') of any tau'."""
    ones = np.ones(2)
    neuron = nir.LIF(tau=ones * tau, r=ones, v_leak=ones * 0, v_threshold=ones)
    net = from_nir(graph(ends((2,), (2,)) | {"n": neuron}, ["input", "n", "output"]))
    with pytest.raises(InputError, match=f"n_n.*{told} a step"):
        to_nir(net)
    slow = nir.LIF(tau=ones * 1e-2, r=ones, v_leak=ones * 0, v_threshold=ones)
    synaptic = nir.CubaLIF(
        tau_syn=ones * tau, tau_mem=slow.tau, r=ones, v_leak=ones * 0, v_threshold=ones
    )
    net = from_nir(graph(ends((2,), (2,)) | {"n": synaptic}, ["input", "n", "output"]))
    with pytest.raises(InputError, match=f"n_n.*{told.replace('beta', 'alpha')} a step"):
        to_nir(net)


def test_a_graph_may_not_ask_for_a_gigantic_network():
    nodes = ends((10**12,), (10**12,)) | {"n": nir.Flatten({"input": np.array([10**12])}, 0, -1)}
    with pytest.raises(InputError, match=r"NIR node 'input' takes .* GiB"):
        from_nir(graph(nodes, ["input", "n", "output"]))


def test_a_graph_file_holds_what_it_declares(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "net.nir"
    nir.write(str(path), graph(ends((2,), (2,)) | {"n": lif((2,))}, ["input", "n", "output"]))
    with h5py.File(path, "a") as file:
        del file["node/nodes/n/tau"]
        file["node/nodes/n"].create_dataset("tau", (10**12,), "f4", chunks=(1000,))
    with pytest.raises(InputError, match=r"n/tau: the file declares [\d,]+ bytes; at most"):
        from_nir(path)


def test_a_loop_that_nothing_leads_out_of_is_an_output():
    net = one_group()
    net.again = Connection(net.layer, net.layer, weight=np.eye(3) * 0.4)
    net.build(strategy=1, break_loops=True)
    made = to_nir(net)
    assert isinstance(made.nodes["output_layer"], nir.Output)
    back = from_nir(made)
    x = np.random.default_rng(3).random((1, 12, 2))
    net.output = Decoder(dec_target=net.layer, coding_method="null")
    for run, source in ((net, net.source), (back, back.input)):
        source(x)
        run.run(12.0)
    assert net.output.predict.sum() > 0
    assert torch.equal(back.output.predict.to(net.dtype), net.output.predict)
