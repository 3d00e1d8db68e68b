"""Readers on real files, training, circuits, NIR."""

import gzip
import hashlib
import struct
from itertools import pairwise

import numpy as np
import pytest
import torch

from tenfold.shared.datasets import data_root
from tenfold.shared.errors import InputError
from tenfold.spaic import Connection, Encoder, Network, NeuronGroup, SpikeMonitor
from tenfold.spaic.data import (
    Events,
    Split,
    digits,
    mnist,
    nmnist_small,
    read_aedat31,
    read_idx,
    read_nmnist,
)
from tenfold.spaic.experiments import synaptic_events
from tenfold.spaic.library import CIRCUITS, cobahh, cuba, rates
from tenfold.spaic.training import TrainConfig, train


def needs(name):
    return pytest.mark.skipif(
        not (data_root() / name).is_dir(), reason=f"{data_root() / name} is not there"
    )


@pytest.mark.data
@needs("mnist")
def test_mnist_is_the_official_file():
    y = read_idx(data_root() / "mnist" / "t10k-labels-idx1-ubyte")
    assert y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    raw = (data_root() / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes()
    assert hashlib.md5(raw).hexdigest() == "9fb629c4189551a2d022fa330f9573f3"
    split = mnist()
    assert split.x.dtype == np.float32
    assert split.x.max() == 1


@pytest.mark.data
@needs("nmnist-small")
def test_nmnist_recordings_are_read():
    split = nmnist_small(10)
    assert split.x.shape == (1000, 10, 2312)
    assert split.x_test.shape == (100, 10, 2312)
    assert split.y[:6].tolist() == [5, 0, 4, 1, 9, 2]
    assert split.y_test[:4].tolist() == [7, 2, 1, 0]
    assert split.x.sum(axis=(1, 2)).min() > 500


def test_events_are_unpacked_bit_by_bit():
    time = 0x123456
    first = bytes([3, 33, 0x80 | (time >> 16), (time >> 8) & 255, time & 255])
    found = read_nmnist(first + bytes([1, 2, 0, 0, 5]))
    assert (found.x.tolist(), found.y.tolist()) == ([3, 1], [33, 2])
    assert found.polarity.tolist() == [1, 0]
    np.testing.assert_allclose(found.time, [time / 1000, 0.005])
    with pytest.raises(InputError, match="6 bytes; expected a multiple of 5"):
        read_nmnist(bytes(6))
    word = (7 << 17) | (9 << 2) | (1 << 1) | 1
    packet = struct.pack("<HHIIIIII", 1, 0, 8, 4, 1, 1, 1, 1) + struct.pack("<II", word, 11)
    content = b"#!AER-DAT3.1\r\n#!END-HEADER\r\n" + packet
    seen = read_aedat31(content)
    assert (seen.x[0], seen.y[0], seen.polarity[0]) == (7, 9, 1)
    assert seen.time[0] == pytest.approx(((1 << 31) | 11) / 1000)
    with pytest.raises(InputError, match="cut off"):
        read_aedat31(content[:-1])
    with pytest.raises(InputError, match="no AEDAT header"):
        read_aedat31(b"")


def test_frames_count_each_event_once():
    random = np.random.default_rng(0)
    n = 500
    events = Events(
        random.integers(8, size=n),
        random.integers(6, size=n),
        random.integers(2, size=n),
        random.uniform(0, 100, n),
    )
    frames = events.frames(5, (6, 8), 100.0)
    assert frames.sum() == n
    assert frames[2].sum() == ((events.time >= 40) & (events.time < 60)).sum()


def test_broken_idx_files_are_told(tmp_path):
    good = struct.pack(">BBBBI", 0, 0, 8, 1, 3) + b"abc"
    for name, content in (("plain", good), ("packed.gz", gzip.compress(good))):
        (tmp_path / name).write_bytes(content)
        assert read_idx(tmp_path / name).tolist() == [97, 98, 99]
    (tmp_path / "short").write_bytes(good[:-1])
    with pytest.raises(InputError, match=r"says \(3,\), but 2 bytes follow"):
        read_idx(tmp_path / "short")
    (tmp_path / "other").write_bytes(b"hello")
    with pytest.raises(InputError, match="not an IDX file"):
        read_idx(tmp_path / "other")


def test_digits_are_learned_within_twenty_steps():
    assert len(digits().x) == 1437
    result = train(TrainConfig(device="cpu"))
    assert result.network.engine_note.startswith("scan")
    assert result.accuracy >= 0.96


@pytest.mark.parametrize("coding", ["float", "poisson"])
def test_both_engines_train_to_the_same_network(coding):
    options = {"epochs": 1, "steps": 5, "hidden": (20,), "coding": coding, "device": "cpu"}
    one, two = (train(TrainConfig(engine=engine, **options)) for engine in ("step", "scan"))
    torch.testing.assert_close(one.outputs, two.outputs, rtol=1e-3, atol=1e-4)


def test_circuits_fire_as_in_the_reference_simulators():
    for make, expected, width in ((cuba, 5.6, 0.4), (cobahh, 37.3, 2.0)):
        net = make()
        net.run(1000.0)
        assert net.engine_note.startswith("event")
        assert abs(rates(net)["all"] - expected) <= width


@pytest.mark.slow
def test_the_microcircuit_at_a_tenth_fires_as_in_nest():
    circuit = CIRCUITS["microcircuit"]
    net = circuit.make(7717, 0)
    net.run(circuit.warm_up)
    net.run_continue(2000.0)
    found = rates(net, circuit.warm_up)
    for name, expected in CIRCUITS["microcircuit"].rates.items():
        assert found[name] == pytest.approx(expected, rel=0.15), name


def test_nir_keeps_the_output(tmp_path):
    nir = pytest.importorskip("nir")
    from tenfold.spaic import Connection, Decoder, Encoder, Network, NeuronGroup, from_nir, to_nir

    random = np.random.default_rng(0)
    for model in ("lif", "lifsubtract", "if", "ifsubtract"):
        with Network(dtype=torch.float32) as net:
            input = Encoder(num=5, coding_method="null")
            hidden = NeuronGroup(6, model=model)
            last = NeuronGroup(3, model="li")
            Connection(input, hidden, weight=random.normal(0.3, 0.4, (6, 5)), bias=0.05)
            Connection(hidden, last, weight=random.normal(0.3, 0.4, (3, 6)))
            output = Decoder(dec_target=last, num=3, coding_method="null")
        data = (random.random((2, 30, 5)) < 0.5).astype(np.float32)
        net.build(strategy=1)
        net.input(data)
        net.run(3.0)
        assert isinstance(to_nir(net, tmp_path / "net.nir"), nir.NIRGraph)
        again = from_nir(tmp_path / "net.nir")
        again.input(data)
        again.run(3.0)
        assert output.predict.abs().sum() > 0
        torch.testing.assert_close(again.output.predict, output.predict, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="cannot be read as NIR"):
        from_nir("/nowhere.nir")


def spiking_stack(nir, tau, r):
    random = np.random.default_rng(1)
    weights = [random.normal(0.3, 0.5, (6, 5)), random.normal(0.3, 0.5, (3, 6))]
    biases = [random.normal(0, 0.1, 6), random.normal(0, 0.1, 3)]
    nodes = {"input": nir.Input(input_type={"input": np.array([5])})}
    for k, (w, b) in enumerate(zip(weights, biases, strict=True)):
        nodes[str(2 * k)] = nir.Affine(weight=w, bias=b)
        n = len(b)
        nodes[str(2 * k + 1)] = nir.LIF(
            tau=np.full(n, tau),
            r=np.full(n, r),
            v_leak=np.zeros(n),
            v_threshold=np.full(n, 0.8),
            v_reset=np.zeros(n),
        )
    nodes["output"] = nir.Output(output_type={"output": np.array([3])})
    chain = ["input", "0", "1", "2", "3", "output"]
    edges = list(pairwise(chain))
    return nir.NIRGraph(nodes=nodes, edges=edges), weights, biases


def test_a_graph_as_snntorch_writes_it_runs_as_snntorch_runs_it():
    """tau = dt/(1 − β), r = tau/dt, so that β u + I is one Euler step; reset to zero."""
    nir = pytest.importorskip("nir")
    from tenfold.spaic import from_nir

    beta, dt = 0.9, 1e-4
    graph, weights, biases = spiking_stack(nir, dt / (1 - beta), 1 / (1 - beta))
    x = (np.random.default_rng(2).random((2, 40, 5)) < 0.5).astype(np.float32)
    net = from_nir(graph, dt=dt * 1e3, reset="value")
    net.input(x)
    net.run(40 * net.dt)
    potentials = [np.zeros((2, 6)), np.zeros((2, 3))]
    for k in range(40):
        s = x[:, k]
        for layer in range(2):
            u = beta * potentials[layer] + s @ weights[layer].T + biases[layer]
            s = (u > 0.8).astype(float)
            potentials[layer] = u * (1 - s)
        np.testing.assert_array_equal(net.output.predict[k].numpy(), s)
    assert net.output.predict.sum() > 10


def test_the_step_size_falls_as_the_schedule_says(monkeypatch):
    x, y = np.eye(4, dtype=np.float32), np.arange(4)
    split = Split(x, y, x, y)
    used = []

    class Noted(torch.optim.AdamW):
        def step(self, *arguments, **options):
            used.append(self.param_groups[0]["lr"])
            return super().step(*arguments, **options)

    monkeypatch.setattr(torch.optim, "AdamW", Noted)
    expected = {
        "constant": [1.0] * 8,
        "step": [1.0] * 4 + [0.1] * 4,
        "cosine": [0.5 * (1 + np.cos(np.pi * k / 8)) for k in range(8)],
    }
    for schedule, shares in expected.items():
        used.clear()
        config = TrainConfig(
            hidden=(3,),
            steps=2,
            epochs=4,
            batch_size=2,
            schedule=schedule,
            engine="step",
            device="cpu",
        )
        train(config, split=split)
        np.testing.assert_allclose(used, 5e-3 * np.array(shares), rtol=1e-12)


@pytest.mark.parametrize("link", ["full", "bernoulli", "all_to_all"])
def test_synaptic_events_are_spikes_times_targets(link):
    with Network() as net:
        source = Encoder(num=3, coding_method="float")
        cells = NeuronGroup(3, model="if", v_th=0.5)
        after = NeuronGroup(4, model="lif")
        Connection(source, cells, weight=np.eye(3))
        options = {"p": 0.5} if link == "bernoulli" else {}
        onward = Connection(cells, after, link_type=link, weight=0.01, **options)
        spikes = SpikeMonitor(cells)
    assert onward in net
    net.set_backend_dt(1.0)
    net.source(np.array([[1.0, 0.3, 0.0]]))
    net.run(12.0)
    targets = [4, 4, 4]
    if link == "bernoulli":
        targets = [int((onward.pre_index == k).sum()) for k in range(3)]
    made = [int(n) for n in spikes.spk_count[0]]
    assert made[0] > made[1] > made[2] == 0
    assert synaptic_events(net) == sum(n * m for n, m in zip(made, targets, strict=True))
