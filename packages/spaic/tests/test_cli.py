import json
import os
import pickle
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from tenfold.shared.cli import run
from tenfold.spaic import (
    Connection,
    Encoder,
    Network,
    NeuronGroup,
    SpikeMonitor,
    StateMonitor,
    network_save,
)
from tenfold.spaic.configuration import known_names
from tenfold.spaic.data import SETS
from tenfold.spaic.experiments import SimulateConfig, simulate
from tenfold.spaic.library import CIRCUITS, cuba, rates
from tenfold.spaic.training import TrainConfig, data_of


def answer(capsys, *argv, code=0):
    found = run(["spaic", *map(str, argv), "--json"])
    printed = capsys.readouterr()
    assert found == code, printed.err
    return json.loads(printed.out) if code == 0 else printed.err


SHORT = ["--epochs", "4", "--steps", "4", "--hidden", "16", "--device", "cpu"]


def test_train_evaluate_and_convert_agree(tmp_path, capsys):
    made = answer(capsys, "train", *SHORT, "--output", tmp_path)
    folder = Path(made["run"])
    assert made["accuracy"] > 0.5
    assert made["samples_per_second"] > 1437 * 4 / made["seconds"]
    assert answer(capsys, "evaluate", folder)["accuracy"] == made["accuracy"]
    page = (folder / "report.html").read_text()
    # loss, confusion, and inside: raster, traces (a `lif` has one state but spikes), weights
    assert page.count("data:image/png") == 5
    result = json.loads((folder / "result.json").read_text())
    assert result["results"][0]["value"] == pytest.approx(100 * made["accuracy"])
    parts = answer(capsys, "convert", folder, tmp_path / "net")["parts"]
    assert parts["NeuronGroup"] == 2
    assert (tmp_path / "net" / "weights.safetensors").is_file()
    (tmp_path / "folder.nir").mkdir()
    told = answer(capsys, "convert", tmp_path / "net", tmp_path / "folder.nir", code=2)
    assert "folder.nir is a folder; expected a NIR file" in told
    answer(capsys, "convert", tmp_path / "net", tmp_path / "net.nir")
    answer(capsys, "convert", tmp_path / "net", tmp_path / "new" / "deeper" / "net.nir")
    again = answer(capsys, "convert", tmp_path / "net.nir", tmp_path / "back")
    assert again["parts"]["Connection"] == 2


def test_a_killed_training_resumes_to_the_same_numbers(tmp_path, capsys):
    options = [*SHORT, "--coding", "poisson"]
    whole = answer(capsys, "train", *options, "--output", tmp_path / "whole")
    code = (
        "import time, torch; torch.set_num_threads(1)\n"
        "from tenfold.shared.runs import Run; log = Run.log\n"
        "Run.log = lambda self, **k: (log(self, **k), time.sleep(0.4))\n"
        "import tenfold.shared.cli as c, sys; sys.exit(c.run(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "spaic", "train", *options, "--output", tmp_path / "cut"]
    child = subprocess.Popen(
        list(map(str, command)),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("cut/spaic/*/checkpoint/weights.safetensors")):
            assert time.monotonic() < deadline
            assert child.poll() is None, child.stderr.read()
            time.sleep(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    (folder,) = tmp_path.glob("cut/spaic/*")
    assert not (folder / "result.json").exists()
    resumed = answer(capsys, "train", "--resume", folder)
    assert resumed["accuracy"] == whole["accuracy"]
    assert resumed["loss"] == whole["loss"]
    assert "is finished" in answer(capsys, "train", "--resume", folder, code=2)


def test_simulate_tells_rates_and_the_engine(tmp_path, capsys):
    found = answer(capsys, "simulate", "--size", "600", "--time", "100", "--output", tmp_path)
    assert found["engine"].startswith("event")
    assert found["neurons"] == 600
    assert found["rates"]["all"] > 0
    assert found["synaptic_events_per_second"] > 0
    assert 50 < found["peak_memory_mib"] < 1e5
    names = {path.name for path in tmp_path.glob("*.png")}
    assert names == {f"cuba-{kind}.png" for kind in ("raster", "rates", "traces", "phase")}
    step = answer(capsys, "simulate", "--size", "600", "--time", "100", "--engine", "step")
    assert step["rates"] == found["rates"]


def test_simulate_takes_a_file_of_nir(tmp_path, capsys):
    nir = pytest.importorskip("nir")
    one, three = np.ones(1), np.ones(3)
    cell = nir.LIF(tau=0.01 * three, r=three, v_leak=0 * three, v_threshold=three)
    nodes = {
        "input": nir.Input({"input": one.shape}),
        "linear": nir.Linear(np.array([[0.5], [1.5], [3.0]])),
        "cell": cell,
        "output": nir.Output({"output": three.shape}),
    }
    edges = [("input", "linear"), ("linear", "cell"), ("cell", "output")]
    path = tmp_path / "net.nir"
    nir.write(path, nir.NIRGraph(nodes, edges))
    told = answer(capsys, "simulate", path, code=2)
    assert "waits for data; give each of its channels --drive VALUE" in told
    found = answer(capsys, "simulate", path, "--drive", "1", "--time", "500")
    # tau ln(I / (I - 1)) between spikes; the first neuron stays below its threshold
    expected = [0, *(500 // (10 * np.log(i / (i - 1))) for i in (1.5, 3.0))]
    assert 0.5 * 3 * found["rates"]["all"] == pytest.approx(sum(expected), rel=0.05)
    for drive in ("nan", "x"):
        answer(capsys, "simulate", path, "--drive", drive, code=2)
    assert "drive=1.0" in answer(capsys, "simulate", "cuba", "--drive", "1", code=2)


def test_reproduce_goes_on_where_it_was_interrupted(tmp_path, capsys, monkeypatch):
    options = ["--circuits", "cuba", "--seeds", "2", "--time", "50", "--output", tmp_path]
    made = answer(capsys, "reproduce", *options)
    (row,) = made["comparison"]
    assert (row["paper"], row["n"]) == (5.6, 2)
    folder = Path(made["run"])
    (folder / "result.json").unlink()
    # Nothing is simulated again.
    monkeypatch.setattr("tenfold.spaic.experiments.reproduction.rates", None)
    assert answer(capsys, "reproduce", "--resume", folder)["comparison"] == made["comparison"]


def test_known_rates_are_measured_after_the_warm_up_of_their_reference(
    tmp_path, capsys, monkeypatch
):
    assert {name: CIRCUITS[name].warm_up for name in ("cuba", "cobahh", "microcircuit")} == {
        "cuba": 0.0,
        "cobahh": 0.0,
        "microcircuit": 500.0,  # section 20 of the method card
    }
    late = replace(CIRCUITS["cuba"], size=500, warm_up=60.0)
    monkeypatch.setitem(CIRCUITS, "cuba", late)
    net = cuba(500)
    net.run(160.0)
    spikes = [m.spk_times[0] for m in net.parts(SpikeMonitor)]
    expected = sum((times > 60).sum() for times in spikes) / 500 / 0.1
    early = sum((times <= 100).sum() for times in spikes) / 500 / 0.1
    assert abs(expected - early) > 0.1
    options = ["--circuits", "cuba", "--seeds", "1", "--time", "100", "--output", tmp_path / "r"]
    (row,) = answer(capsys, "reproduce", *options)["comparison"]
    assert row["here"] == pytest.approx(expected)
    (row,) = answer(capsys, "reproduce", *options, "--warm-up", "0")["comparison"]
    assert row["here"] == pytest.approx(early)
    for duration, after in ((160, 60.0), (60, 0.0)):
        options = ["--time", duration, "--output", tmp_path / str(duration)]
        found = answer(capsys, "simulate", "cuba", *options)
        assert found["rates_after_ms"] == after
        same = simulate(SimulateConfig(time=duration), traced=100.0).network
        spikes = [m.spk_times[0] for m in same.parts(SpikeMonitor)]
        counted = sum((times > after).sum() for times in spikes) / 500 / (duration - after) * 1e3
        assert found["rates"]["all"] == pytest.approx(counted)
        page = (tmp_path / str(duration) / "report.html").read_text()
        assert ("known, Hz" in page) == (after == 60)


def test_reproduce_trains_recipes_over_seeds(tmp_path, capsys):
    recipe = tmp_path / "short.toml"
    recipe.write_text('dataset = "digits"\nhidden = [16]\nsteps = 4\nepochs = 1\n')
    options = ["--circuits", "cuba", "--seeds", "1", "--time", "20", "--training-seeds", "2"]
    made = answer(capsys, "reproduce", *options, "--recipes", recipe, "--output", tmp_path)
    row = made["comparison"][1]
    alone = answer(capsys, "reproduce", *options[2:], "--recipes", recipe, "--output", tmp_path)
    assert alone["comparison"] == [row]  # no circuit
    assert (row["dataset"], row["n"], row["paper"]) == ("digits", 2, None)
    assert 20 < row["here"] < 100
    assert row["here_std"] > 0
    wrong = answer(capsys, "reproduce", "--recipes", "digit", code=2)
    assert "did you mean 'digits'" in wrong


def test_published_numbers_belong_to_recipes_and_to_whole_data_sets():
    from tenfold.shared.published import compare, published
    from tenfold.shared.runs import Measurement
    from tenfold.spaic.experiments import ReproduceConfig

    accuracies = [row for row in published("spaic").results if row.metric == "ACC"]
    names = tuple(row.method.removeprefix("SPAIC, recipe ") for row in accuracies)
    ReproduceConfig(recipes=names)  # they are recipes
    assert dict(zip(names, (row.value for row in accuracies), strict=True)) == {
        "tidigits": 98.94,
        "mnist-stca": 92.5,
    }
    told = {"method": "SPAIC, recipe mnist-stca", "metric": "ACC", "value": 90.0}
    whole, part = (
        compare(published("spaic"), [Measurement(dataset=name, **told)])[0]
        for name in ("mnist", "mnist (test file alone)")
    )
    assert (whole.paper, part.paper) == (92.5, None)


def test_a_network_of_the_library_is_trained_tested_and_reported(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    random = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 60), ("test", 20)):
        labels = np.arange(n) % 2
        images = random.integers(0, 60, (n, 12, 12), dtype=np.uint8)
        images[labels == 1, 3:9] += 180
        arrays |= {f"{part}_images": images, f"{part}_labels": labels[:, None]}
    (tmp_path / "octmnist").mkdir()
    np.savez(tmp_path / "octmnist" / "octmnist.npz", **arrays)
    options = ["--network", "convolutional", "--dataset", "octmnist", "--readout", "spikes"]
    more = ["--steps", "6", "--epochs", "4", "--batch-size", "20", "--learning-rate", "0.02"]
    made = answer(capsys, "train", *options, *more, "--device", "cpu", "--output", tmp_path)
    assert made["accuracy"] > 0.9
    assert answer(capsys, "evaluate", made["run"])["accuracy"] == made["accuracy"]
    assert (Path(made["run"]) / "octmnist-weights.png").is_file()


def test_every_recipe_is_a_configuration():
    recipes = sorted((files("tenfold.spaic") / "recipes").iterdir(), key=lambda path: path.name)
    assert len(recipes) == 9
    for path in recipes:
        values = tomllib.loads(path.read_text())
        config = TrainConfig(**values | {"hidden": tuple(values.get("hidden", ()))})
        assert config.dataset in SETS


def test_a_simulation_in_parts_is_the_simulation():
    config = SimulateConfig(size=500, time=1234.56)
    whole, traced = simulate(config), simulate(config, traced=33.3)
    assert whole.network.n_time_step == traced.network.n_time_step == 12346
    assert whole.rates == traced.rates
    net = cuba(500)
    net.run(net.dt)  # as simulate does, to compile
    net.run(1234.56)
    assert rates(net) == whole.rates
    (trace, *_) = traced.network.parts(StateMonitor)
    assert trace.times[-1] == pytest.approx(1234.5, abs=0.5)
    assert len(trace.times) == pytest.approx(33.3 / 0.5, abs=1)


def test_a_read_out_that_does_not_spike_is_not_counted(tmp_path, capsys):
    with Network() as net:
        source = Encoder(num=3, coding_method="float")
        layer = NeuronGroup(4, model="lif", v_th=0.5)
        readout = NeuronGroup(2, model="li")
        Connection(source, layer, weight=np.ones((4, 3)))
        Connection(layer, readout)
    network_save(net, tmp_path / "net")
    found = answer(capsys, "simulate", tmp_path / "net", "--drive", "1", "--time", "10")
    assert (found["neurons"], list(found["rates"])) == (4, ["all", "layer"])
    with Network() as silent:
        source = Encoder(num=3, coding_method="float")
        only = NeuronGroup(2, model="li")
        Connection(source, only)
    network_save(silent, tmp_path / "silent")
    error = answer(capsys, "simulate", tmp_path / "silent", "--drive", "1", code=2)
    assert "holds no neurons that spike" in error


def test_simulate_takes_a_network_file_and_times_with_units(tmp_path, capsys):
    net = cuba(500)
    network_save(net, tmp_path / "saved")
    (tmp_path / "mine.json").write_bytes((tmp_path / "saved" / "network.json").read_bytes())
    (tmp_path / "mine.safetensors").write_bytes(
        (tmp_path / "saved" / "weights.safetensors").read_bytes()
    )
    found = [
        answer(capsys, "simulate", name, "--time", time, "--engine", "auto")
        for name, time in (
            (tmp_path / "saved", "100"),
            (tmp_path / "mine.json", "0.1s"),
            (tmp_path / "saved" / "network.json", "100ms"),
        )
    ]
    assert found[0]["rates"] == found[1]["rates"] == found[2]["rates"]
    assert found[0]["rates"]["all"] > 0
    assert (found[0]["neurons"], found[0]["time_ms"]) == (500, 100.0)
    assert found[0]["synapses"] == sum(con.weight.numel() for con in net.get_connections())
    (tmp_path / "mine.safetensors").write_bytes(b"no")
    assert "mine.safetensors" in answer(capsys, "simulate", tmp_path / "mine.json", code=2)
    with Network() as waiting:
        source = Encoder(num=3, coding_method="poisson")
        layer = NeuronGroup(2, model="lif")
        Connection(source, layer)
    network_save(waiting, tmp_path / "waiting")
    assert "source waits for data" in answer(capsys, "simulate", tmp_path / "waiting", code=2)
    (tmp_path / "bad.json").write_text("{")
    assert "not a network file" in answer(capsys, "simulate", tmp_path / "bad.json", code=2)


def test_a_run_is_converted_to_a_file_that_simulate_takes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the README's chain, with names that have no folder
    short = ["--epochs", "1", "--steps", "2", "--hidden", "16", "--device", "cpu"]
    folder = answer(capsys, "train", *short)["run"]
    rates_of = {}
    for name in ("net.json", "net.yaml", "net"):
        answer(capsys, "convert", folder, name)
    assert sorted(path.name for path in tmp_path.glob("net*") if path.is_file()) == [
        "net.json",
        "net.safetensors",
        "net.yaml",
    ]
    Path("old.json").mkdir()  # a folder may be named so
    answer(capsys, "convert", folder, "old.json")
    assert Path("old.json/network.json").is_file()
    for name in (folder, "net.json", "net.yaml", "net", "old.json"):
        found = answer(capsys, "simulate", name, "--time", "50ms", "--drive", "0.5")
        rates_of[name] = found["rates"]["all"]
    assert rates_of[folder] > 0
    assert set(rates_of.values()) == {rates_of[folder]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["simulate", "--circuit", "cubba"], "did you mean 'cuba'"),
        (["simulate", "nowhere.json"], "nowhere.json does not exist"),
        (["simulate", "--time", "1h"], "expected a number of ms"),
        (["simulate", "--time", "0"], "expected > 0 ms"),
        (["train", "--dataset", "digit"], "did you mean 'digits'"),
        (["train", "--recipe", "digit"], "did you mean 'digits'"),
        (["train", "--steps", "0"], "expected >= 1"),
        (["train", "--seed", "-1"], "seed=-1; expected >= 0"),
        (["simulate", "--seed", "-1"], "seed=-1; expected >= 0"),
        (["train", "--network", "stca"], "784 inputs and 10 classes"),
        (["train", "--network", "convolutional"], "from 10 x 10"),
        (["evaluate", "/nowhere"], "is not the folder of a run"),
        (["convert", "/nowhere", "x.nir"], "holds no network.json"),
        (["data", "verify", "mnst"], "unknown data set"),
        (["data", "verify", "digits"], "digits comes with scikit-learn; there is nothing to"),
        (["data", "fetch", "digits"], "digits comes with scikit-learn; there is nothing to"),
        (["data", "fetch"], "name the data sets to fetch: mnist-test, mnist"),
        (["data", "fetch", "dvs-gesture"], "download by hand from https://research.ibm.com"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    printed = answer(capsys, *words, code=2)
    assert message in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["train", "--dataset", "nope"], "unknown dataset 'nope'"),
        (["train", "--model", "lifx"], "did you mean 'lif'"),
        (["train", "--alpha", "nan"], "alpha=nan; expected a finite number > 0"),
        (["train", "--learning-rate", "inf"], "learning_rate=inf; expected a finite number > 0"),
        (["reproduce", "--time", "nan"], "time=nan; expected > 0 ms"),
        (["reproduce", "--warm-up", "-1"], "warm_up=-1"),
        (["reproduce", "--recipes", "tidigits"], "tidigits/train holds no <class>/*.wav"),
        (["simulate", "--size", "0"], "size=0; expected >= 1 neuron"),
        (["simulate", "--size", "100000000000"], "size=100000000000: more than"),
        (["simulate", "microcircuit", "--size", "3"], "has from 100 to 77,169 neurons"),
        (["simulate", "--output", __file__], "test_cli.py is a file; expected a folder"),
        (["demo", "--output", f"{__file__}/x"], "test_cli.py is a file; expected a folder"),
        (["convert", "/nowhere", __file__], "test_cli.py is a file; expected a folder"),
        (["convert", "/nowhere", f"{__file__}/x.nir"], "test_cli.py is a file"),
        (["bench", "--batch", "0"], "batch=0; expected >= 1"),
        (["train", "--algorithm", "sbpp"], "did you mean 'sbp'"),
        (["train", "--algorithm", "stdp"], "known: sbp, stbp, stca"),
        (["train", "--surrogate", "atan"], "did you mean 'AtanGrad'"),
        (["train", "--strategy", "3"], "strategy=3; expected 0 or 1"),
        (["train", "--tau-m", "-1"], "tau_m=-1.0; expected a finite number > 0"),
        (["train", "--input-scale", "nan"], "input_scale=nan"),
        (["train", "--weight-decay", "-1"], "weight_decay=-1.0"),
        (["train", "--seed", "9" * 20], "below 2**63"),
        (["train", "--dataset", "MNIST"], "did you mean 'mnist'"),
        (["train", "--dataset", "shd"], "fetch it with `tenfold spaic data fetch shd`"),
        (["train", "--network", "stca"], "784 inputs and 10 classes"),
        (["train", "--resume", "/nowhere"], "is not the folder of a run"),
    ],
)
def test_bad_options_are_told_in_one_line_and_leave_no_folder(
    tmp_path, capsys, monkeypatch, argv, told
):
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    output = ["--output", tmp_path] if argv[0] in ("train", "reproduce") else []
    error = answer(capsys, *argv, *output, code=2)
    assert told in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_run_of_another_package_is_not_resumed(tmp_path, capsys):
    (tmp_path / "config.toml").write_text('dataset = "cora"\nclusters = 7\n')
    for words in (["train", "--resume"], ["reproduce", "--resume"], ["evaluate"]):
        error = answer(capsys, *words, tmp_path, code=2)
        assert "config.toml: unknown key 'clusters'" in error or "unknown key 'dataset'" in error
        assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


def test_events_of_another_number_of_steps_are_refused(tmp_path, capsys, monkeypatch):
    from tenfold.spaic.data import LETTERS

    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    (tmp_path / "braille").mkdir()
    rows = [
        {"letter": letter, "repetition": k, "taxel_data": np.full((76, 12), 9.0 * k)}
        for letter in LETTERS
        for k in range(5)
    ]
    (tmp_path / "braille" / "braille.pkl").write_bytes(pickle.dumps(rows))
    words = ["train", "--dataset", "braille", "--epochs", "1", "--output", tmp_path / "runs"]
    error = answer(capsys, *words, code=2)
    assert "steps=10; the samples of braille have 152 steps" in error
    assert not (tmp_path / "runs").exists()
    assert data_of(TrainConfig(dataset="braille", steps=152)).x.shape == (108, 152, 4)


def test_data_is_listed_and_every_verb_has_help(capsys):
    names = [row["name"] for row in answer(capsys, "data", "list")["datasets"]]
    assert names[:3] == ["digits", "mnist-test", "mnist"]
    assert {"fashion-mnist", "cifar10", "pathmnist", "dvs-gesture", "nmnist-small"} < set(names)
    verbs = ["demo", "simulate", "train", "evaluate", "reproduce", "bench", "convert", "data"]
    for verb in verbs:
        assert run(["spaic", verb, "--help"]) == 0
        told = capsys.readouterr().out
        assert len(told) > 100
        assert verb != "train" or " %" not in told  # figures are the README's
    # The help and the lists of names are there at once: what simulates is imported when it runs.
    code = (
        "import sys, tenfold.shared.cli as c\n"
        "for words in (['train', '--help'], ['data', 'list']):\n"
        "    assert c.run(['spaic', *words]) == 0\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
    for option in ("dataset", "model", "algorithm", "surrogate"):  # defaults are not looked up
        assert getattr(TrainConfig(), option) in known_names(option)


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path):
    found = []
    for devices in ("1", "2"):
        options = [*SHORT, "--devices", devices, "--output", str(tmp_path / devices), "--json"]
        code = "import sys; from tenfold.shared.cli import run; sys.exit(run(sys.argv[1:]))"
        command = [sys.executable, str(tmp_path / "main.py"), "spaic", "train", *options]
        (tmp_path / "main.py").write_text(code)
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        found.append(json.loads(done.stdout.strip().splitlines()[-1]))
    assert found[1]["accuracy"] == pytest.approx(found[0]["accuracy"], abs=0.02)
    assert found[1]["loss"] == pytest.approx(found[0]["loss"], rel=0.05)
