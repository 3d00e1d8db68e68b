import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from tenfold.ccgc.clusters import estimate_clusters
from tenfold.ccgc.data import as_data
from tenfold.shared.cli import run

SHORT = ["--hops", "2", "--learning-rate", "1e-3", "--epochs", "30", "--device", "cpu"]


def answer(capsys, *argv, code=0):
    found = run(["ccgc", *map(str, argv), "--json"])
    printed = capsys.readouterr()
    assert found == code, printed.err
    return json.loads(printed.out) if code == 0 else printed.err


def tables(folder):
    """Two cliques of eight, their edge list and a feature table."""
    pairs = [(f"{g}{a}", f"{g}{b}") for g in "xy" for a in range(8) for b in range(a)]
    folder.joinpath("edges.csv").write_text(
        "source,target\n" + "\n".join(f"{a},{b}" for a, b in [*pairs, ("x0", "y0")])
    )
    lines = [f"{g}{a},{int(g == 'x') + a / 100},{int(g == 'y')}" for g in "xy" for a in range(8)]
    folder.joinpath("nodes.csv").write_text("node,f,g\n" + "\n".join(lines))
    return folder / "edges.csv", folder / "nodes.csv"


@pytest.fixture
def generated(monkeypatch):
    """A generated graph small enough for every verb."""
    monkeypatch.setattr("tenfold.ccgc.data.catalogue.attributed_graph", _small)
    return "generated:300"


def _small(nodes):
    from tenfold.ccgc.data import attributed_graph

    return attributed_graph(nodes, features=12, clusters=3, signal=1.0)


def test_train_evaluate_and_the_run_folder_agree(generated, tmp_path, capsys):
    made = answer(capsys, "train", "--dataset", generated, *SHORT, "--output", tmp_path)
    folder = Path(made["run"])
    assert made["scores"]["ACC"] > 60
    scored = answer(capsys, "evaluate", folder)
    assert scored["ACC"] == pytest.approx(made["scores"]["ACC"])
    assert scored["epoch"] == made["epoch"]
    config = tomllib.loads((folder / "config.toml").read_text())
    assert (config["hops"], config["clusters"], config["protocol"]) == (2, 3, "final")
    result = json.loads((folder / "result.json").read_text())
    assert {row["metric"] for row in result["results"]} == {"ACC", "NMI", "ARI", "F1"}
    assert np.load(folder / "embedding.npy").shape == (300, 500)
    assert len((folder / "clusters.csv").read_text().splitlines()) == 301
    page = (folder / "report.html").read_text()
    assert "no label was seen" in page
    assert page.count("data:image/png") == 4


def test_the_official_protocol_says_that_labels_chose(generated, tmp_path, capsys):
    options = [*SHORT, "--protocol", "official-best", "--warm-up", "10", "--output", tmp_path]
    made = answer(capsys, "train", "--dataset", generated, *options)
    assert made["protocol"] == "official-best"
    assert "with the true labels" in Path(made["run"], "report.html").read_text()


def test_a_killed_train_resumes_to_the_same_result(tmp_path, capsys):
    options = ["--dataset", "digits", "--hops", "2", "--learning-rate", "1e-3", "--epochs", "40"]
    options += ["--embedding-dim", "64", "--warm-up", "11", "--device", "cpu"]
    whole = answer(capsys, "train", *options, "--output", tmp_path / "whole")
    code = (
        "import time, torch; torch.set_num_threads(1)\n"
        "import tenfold.ccgc.experiments as e; e.SECONDS_BETWEEN_CHECKPOINTS = 0\n"
        "from tenfold.shared.runs import Run; log = Run.log\n"
        "Run.log = lambda self, **k: (log(self, **k), time.sleep(0.5))\n"
        "import tenfold.shared.cli as c, sys; sys.exit(c.run(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "ccgc", "train", *options, "--output", tmp_path / "cut"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        list(map(str, command)), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("cut/ccgc/*/checkpoint/weights.safetensors")):
            assert time.monotonic() < deadline
            assert child.poll() is None, child.stderr.read()
            time.sleep(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    (folder,) = tmp_path.glob("cut/ccgc/*")
    assert not (folder / "result.json").exists()
    resumed = answer(capsys, "train", "--resume", folder)
    assert resumed["scores"] == whole["scores"]
    assert resumed["epoch"] == whole["epoch"]
    lines = [
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (folder, Path(whole["run"]))
    ]
    assert lines[0] == lines[1]
    assert "is finished" in answer(capsys, "train", "--resume", folder, code=2)


def test_a_train_that_is_stopped_while_it_chooses_has_a_folder_and_resumes(
    generated, tmp_path, capsys, monkeypatch
):
    options = ["--dataset", generated, "--epochs", "30", "--warm-up", "11", "--device", "cpu"]
    whole = answer(capsys, "train", *options, "--output", tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("tenfold.ccgc.settings.preferred", _interrupt)
        assert run(["ccgc", "train", *options, "--output", str(tmp_path / "cut")]) == 1
    (folder,) = tmp_path.glob("cut/ccgc/*")
    assert "hops" not in tomllib.loads((folder / "config.toml").read_text())
    with monkeypatch.context() as patch:  # the choice is made; training has not begun
        patch.setattr("tenfold.ccgc.cli.train_model", _interrupt)
        assert run(["ccgc", "train", "--resume", str(folder)]) == 1
    config = tomllib.loads((folder / "config.toml").read_text())
    assert config == tomllib.loads((Path(whole["run"]) / "config.toml").read_text())
    resumed = answer(capsys, "train", "--resume", folder)
    assert resumed["scores"] == whole["scores"]
    for name in ("trials.json", "metrics.jsonl", "clusters.csv"):
        assert (folder / name).read_bytes() == (Path(whole["run"]) / name).read_bytes()
    assert "The label-free choice" in (folder / "report.html").read_text()


def _interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.slow  # two processes import torch
def test_two_processes_train_one_run(tmp_path):
    tenfold = Path(sys.executable).with_name("tenfold")  # a launch of several runs it again
    command = [tenfold, "ccgc", "train", "--dataset", "generated:300"]
    options = [
        "--devices",
        "2",
        "--epochs",
        "60",
        "--device",
        "cpu",
        "--output",
        tmp_path,
        "--json",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    made = subprocess.run(
        list(map(str, [*command, *options])),
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert made.returncode == 0, made.stderr
    found = json.loads(made.stdout)  # of the first process only
    [folder] = (tmp_path / "ccgc").iterdir()
    assert Path(found["run"]) == folder
    assert len((folder / "clusters.csv").read_text().splitlines()) == 301
    epochs = [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").open()]
    assert epochs == sorted(set(epochs))


def test_a_resumed_run_refuses_options_that_it_would_ignore(generated, tmp_path, capsys):
    made = answer(capsys, "train", "--dataset", generated, *SHORT, "--output", tmp_path)
    folder = Path(made["run"])
    assert folder.name.startswith("generated-300-")  # a colon is no part of a Windows path
    (folder / "result.json").unlink()
    refused = answer(capsys, "train", "--resume", folder, "--epochs", "60", code=2)
    assert "leave out --epochs" in refused
    assert answer(capsys, "train", "--resume", folder)["scores"] == made["scores"]


def test_cluster_writes_a_table_of_a_users_graph(tmp_path, capsys):
    edges, nodes = tables(tmp_path)
    output = tmp_path / "out.csv"
    options = ["--features", nodes, "--clusters", "2", *SHORT, "--output", output]
    made = answer(capsys, "cluster", edges, *options)
    assert made["sizes"] == [8, 8]
    header, *rows = [line.replace('"', "").split(",") for line in output.read_text().splitlines()]
    assert header == ["node", "cluster", "confidence"]
    groups = {name[0]: set() for name, _, _ in rows}
    for name, cluster, confidence in rows:
        groups[name[0]].add(cluster)
        assert 0 <= float(confidence) <= 1
    assert sorted(map(len, groups.values())) == [1, 1]
    assert Path(made["report"]) == tmp_path / "out-report" / "report.html"
    assert {"map.png", "sizes.png"} <= {path.name for path in (tmp_path / "out-report").iterdir()}


def test_the_number_of_clusters_is_estimated(tmp_path, capsys, planted):
    assert estimate_clusters(as_data(planted))[0] == int(planted.y.max()) + 1
    edges, nodes = tables(tmp_path)
    options = [
        "--features",
        nodes,
        "--clusters",
        "auto",
        *SHORT,
        "--output",
        tmp_path / "o.parquet",
    ]
    made = answer(capsys, "cluster", edges, *options)
    assert made["clusters"] == 2
    assert pyarrow.parquet.read_table(tmp_path / "o.parquet").num_rows == 16


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train", "--dataset", "corra"], ["corra", "did you mean 'cora'"]),
        (["train", "--epochs", "0"], ["epochs=0", ">= 1"]),
        (["train", "--tau", "2"], ["tau=2", "from 0 to 1"]),
        (["train", "--recipe", "nowhere"], ["nowhere", "bat-official"]),
        (["train", "--datset", "digits"], ["--datset", "--dataset"]),
        (["train", "--clusters", "5000", *SHORT], ["clusters=5000", "1797"]),
        (["train", "--protocol", "best"], ["best"]),
        (["evaluate", "nowhere"], ["nowhere", "not the folder of a run"]),
        (["reproduce", "--seeds", "0"], ["seeds=0"]),
        (["reproduce", "--datasets"], ["datasets is empty"]),
        (["reproduce", "--protocols"], ["protocols is empty"]),
        (["reproduce", "--datasets", "digits"], ["digits", "--protocols final"]),
        (["reproduce", "--datasets", "corra", "--protocols", "final"], ["did you mean 'cora'"]),
        (["demo", "--output", "/dev/null/x"], ["--output", "/dev/null/x"]),
        (["train", "--dataset", "."], ["_adj.npy", "_feat.npy", "_label.npy"]),
        (["data", "verify", "corra"], ["corra", "cora"]),
        (["cluster", "none.csv", "--clusters", "2"], ["none.csv"]),
        (["cluster", "none.csv", "--clusters", "two"], ["--clusters two", "auto"]),
        (["cluster", "none.csv", "--clusters", "2", "--output", "o.txt"], ["o.txt", ".csv"]),
        (["cluster", "none.csv", "--clusters", "2", "--output", "/dev/null/o.csv"], ["/dev/null"]),
    ],
)
def test_wrong_input_is_one_line_that_says_what_and_what_would_be_right(
    argv, words, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    message = answer(capsys, *argv, code=2)
    last = message.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "Traceback" not in message
    for word in words:
        assert word in last
    assert not list(tmp_path.iterdir())  # no folder of a run that never began


def test_reproduce_resumes_and_compares_with_the_paper(tmp_path, capsys, monkeypatch):
    small = _small(200)
    monkeypatch.setattr("tenfold.ccgc.experiments.load", lambda name: small)
    monkeypatch.setattr("tenfold.ccgc.settings.ROLES", ((("wide", 2),), 1e-3))
    monkeypatch.setattr("tenfold.ccgc.settings.COMMUNITIES", ((("wide", 2),), 1e-3))
    from tenfold.ccgc import experiments

    base = experiments._base
    monkeypatch.setattr(
        experiments, "_base", lambda *a: experiments.replace(base(*a), epochs=20, warm_up=5)
    )
    options = ["--datasets", "bat", "cora", "--seeds", "2", "--device", "cpu", "--output", tmp_path]
    whole = answer(capsys, "reproduce", *options)
    rows = [r for r in whole["comparison"] if (r["dataset"], r["metric"]) == ("bat", "ACC")]
    assert [r["protocol"] for r in rows] == ["final", "official-best"]
    row = rows[0]
    assert row["paper"] == 75.04
    assert row["n"] == 2
    assert row["difference"] == pytest.approx(row["here"] - 75.04)
    folder = Path(whole["run"])
    kept = (folder / "metrics.jsonl").read_text().splitlines()
    assert len(kept) == 8
    (folder / "metrics.jsonl").write_text("\n".join(kept[:5]) + "\n")
    (folder / "result.json").unlink()
    again = answer(capsys, "reproduce", "--resume", folder)
    assert [r["value"] for r in again["results"]] == [r["value"] for r in whole["results"]]


@pytest.mark.data
def test_verify_finds_nothing_wrong_with_the_real_files(real, capsys):
    real("cora")
    rows = answer(capsys, "data", "verify", "cora", "bat")["datasets"]
    assert [row["state"] for row in rows] == ["ok", "ok"]


def test_the_catalogue_is_listed_without_any_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    rows = answer(capsys, "data", "list")["datasets"]
    assert {row["state"] for row in rows} == {"missing"}
    assert "fetch it with `tenfold ccgc data fetch cora`" in answer(
        capsys, "train", "--dataset", "cora", code=2
    )
