import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

from tenfold.reliant import experiments
from tenfold.shared.cli import run
from tenfold.shared.config import recipes
from tenfold.shared.published import published

SHORT = ["--dataset", "generated:240", "--epochs", "8", "--teacher-epochs", "8", "--device", "cpu"]


def answer(capsys, *argv, code=0):
    found = run(["reliant", *map(str, argv), "--json"])
    printed = capsys.readouterr()
    assert found == code, printed.err
    return json.loads(printed.out) if code == 0 else printed.err


def test_train_evaluate_and_the_run_folder_agree(tmp_path, capsys):
    made = answer(capsys, "train", *SHORT, "--output", tmp_path)
    folder = Path(made["run"])
    assert {path.name for path in folder.iterdir()} >= {
        "config.toml", "environment.json", "metrics.jsonl", "result.json", "report.html",
        "predictions.csv", "student.safetensors", "calibration.png",
    }  # fmt: skip
    scored = answer(capsys, "evaluate", folder)
    assert scored["scores"] == pytest.approx(made["scores"])
    assert answer(capsys, "evaluate", folder, "--part", "val")["scores"] == pytest.approx(
        made["val"]
    )
    config = tomllib.loads((folder / "config.toml").read_text())
    assert (config["student"], config["attach"], config["choose"]) == ("plp", "append", "last")
    page = (folder / "report.html").read_text()
    assert "What was read, and of which nodes" in page
    audited = answer(
        capsys, "audit", folder / "predictions.csv", "--output", tmp_path / "audit",
        "--score", "p 1",
    )  # fmt: skip
    assert audited["groups"][0]["nodes"] + audited["groups"][1]["nodes"] == 240
    assert 0 <= audited["intervals"]["dSP"][0] <= audited["intervals"]["dSP"][1] <= 1
    assert (tmp_path / "audit" / "calibration.png").is_file()


@pytest.mark.parametrize("framework", ["akd", "soft"])
def test_the_other_frameworks_train_and_evaluate(framework, tmp_path, capsys):
    options = [*SHORT, "--framework", framework, "--teacher", "sage", "--output", tmp_path]
    made = answer(capsys, "train", *options)
    scored = answer(capsys, "evaluate", made["run"])
    assert scored["scores"] == pytest.approx(made["scores"])


def test_the_official_mode_says_so(tmp_path, capsys):
    made = answer(capsys, "train", *SHORT, "--mode", "official", "--notion", "eo",
                  "--output", tmp_path)  # fmt: skip
    used = {row["what"]: row["of"] for row in made["used"]}
    assert "leaks the answers" in used["labels"]
    assert "leaks the answers" in (Path(made["run"]) / "report.html").read_text()


def test_a_killed_train_resumes_to_the_same_result(tmp_path, capsys):
    options = ["--dataset", "generated:300", "--epochs", "15", "--teacher-epochs", "5"]
    options += ["--device", "cpu"]
    whole = answer(capsys, "train", *options, "--fresh", "--output", tmp_path / "whole")
    cache = tmp_path / "cache"
    code = (
        "import time, pathlib, torch; torch.set_num_threads(1)\n"
        "import tenfold.reliant.store as s\n"
        f"s.user_cache_path = lambda *_, **__: pathlib.Path({str(cache)!r})\n"
        "import tenfold.reliant.experiments as e; e.SECONDS_BETWEEN_CHECKPOINTS = 0\n"
        "from tenfold.shared.runs import Run; log = Run.log\n"
        "Run.log = lambda self, **k: (log(self, **k), time.sleep(0.3))\n"
        "import tenfold.shared.cli as c, sys; sys.exit(c.run(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "reliant", "train", *options]
    child = subprocess.Popen(
        [*map(str, command), "--output", str(tmp_path / "cut")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("cut/reliant/*/checkpoint/weights.safetensors")):
            assert time.monotonic() < deadline
            assert child.poll() is None, child.stderr.read()
            time.sleep(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    (folder,) = tmp_path.glob("cut/reliant/*")
    assert not (folder / "result.json").exists()
    for path in cache.rglob("student-*"):
        path.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tenfold.reliant.store.user_cache_path", lambda *_, **__: cache)
        resumed = answer(capsys, "train", "--resume", folder)
    assert resumed["scores"] == whole["scores"]
    lines = [(p / "metrics.jsonl").read_text() for p in (folder, Path(whole["run"]))]
    assert lines[0] == lines[1]
    assert (folder / "predictions.csv").read_bytes() == (
        Path(whole["run"]) / "predictions.csv"
    ).read_bytes()
    assert "is finished" in answer(capsys, "train", "--resume", folder, code=2)


def table(folder):
    rng = np.random.default_rng(0)
    rows = ["id,sex,repaid,age,income"]
    for i in range(160):
        good = rng.random() < (0.7 if i % 2 else 0.4)
        rows.append(f"{i},{'f' if i % 2 else 'm'},{'yes' if good else 'no'},"
                    f"{rng.integers(18, 80)},{rng.normal() + 2 * good}")  # fmt: skip
    (folder / "people.csv").write_text("\n".join(rows).replace("id,", "node,", 1))
    edges = "\n".join(f"{i},{(7 * i + 3) % 160}" for i in range(160))
    (folder / "edges.csv").write_text("source,target\n" + edges)
    return ["--nodes", folder / "people.csv", "--edges", folder / "edges.csv",
            "--label", "repaid", "--sensitive", "sex"]  # fmt: skip


def test_a_users_table_is_trained_on(tmp_path, capsys):
    made = answer(capsys, "train", *table(tmp_path), *SHORT[2:], "--output", tmp_path)
    folder = Path(made["run"])
    assert folder.name.startswith("people-")
    header, first = (folder / "predictions.csv").read_text().splitlines()[:2]
    assert header.replace('"', "") == "node,part,label,prediction,sensitive,p no,p yes"
    assert first.split(",")[4].strip('"') == "m"
    assert answer(capsys, "evaluate", folder)["groups"][0]["group"] == "f"


def test_a_trade_off_curve_is_gone_on_with(tmp_path, capsys):
    options = [*SHORT, "--alphas", "0", "200", "--output", tmp_path]
    whole = answer(capsys, "tradeoff", *options)
    assert [row["alpha"] for row in whole["curve"]] == [0, 200]
    assert 0 < whole["hypervolume dSP"] < 1
    folder = Path(whole["run"])
    assert (folder / "trade-off.png").is_file()
    kept = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text(kept[0] + "\n")
    (folder / "result.json").unlink()
    again = answer(capsys, "tradeoff", "--resume", folder)
    assert again["curve"] == whole["curve"]


def test_reproduce_resumes_and_compares_with_the_log(tmp_path, capsys, monkeypatch):
    from tenfold.reliant.data import biased_graph

    small = biased_graph(240)
    monkeypatch.setattr("tenfold.reliant.training.load", lambda *_: small.clone())
    monkeypatch.setattr("tenfold.reliant.teachers.EPOCHS", {"honest": 6, "official": 6})
    options = ["--dataset", "recidivism", "--mode", "honest", "official", "--seeds", "2"]
    options += ["--epochs", "5", "--device", "cpu", "--output", tmp_path]
    whole = answer(capsys, "reproduce", *options)
    row = next(
        r for r in whole["comparison"]
        if (r["method"], r["metric"], r["protocol"]) == ("RELIANT CPF+GCN SP", "ACC", "honest")
    )  # fmt: skip
    assert row["paper"] == 0.8928
    assert row["n"] == 2
    assert row["difference"] == pytest.approx(row["here"] - 0.8928)
    assert {r["method"] for r in whole["comparison"]} == {
        "teacher CPF+GCN", "plain CPF+GCN", "RELIANT CPF+GCN SP",
    }  # fmt: skip
    folder = Path(whole["run"])
    kept = (folder / "metrics.jsonl").read_text().splitlines()
    assert len(kept) == 8
    (folder / "metrics.jsonl").write_text("\n".join(kept[:5]) + "\n")
    (folder / "result.json").unlink()
    monkeypatch.setattr(experiments, "_distil", None)  # all are in the cache
    again = answer(capsys, "reproduce", "--resume", folder)
    assert [r["value"] for r in again["results"]] == [r["value"] for r in whole["results"]]


@pytest.mark.slow
def test_the_demo_is_quick_and_fairer_than_plain_distillation(tmp_path, capsys):
    made = answer(capsys, "demo", "--output", tmp_path)
    demo, methods = made["demo"], made["methods"]
    teacher, plain, fair = methods[0], methods[1], methods[-1]
    assert demo["value"] == fair["dSP"] < 0.7 * min(plain["dSP"], teacher["dSP"])
    assert fair["ACC"] > min(teacher["ACC"], plain["ACC"]) - 0.02
    assert len(demo["pictures"]) == 3


def test_audit_of_many_groups_and_classes(tmp_path, capsys):
    rng = np.random.default_rng(0)
    rows = ["truth,guess,region"]
    rows += [f"c{rng.integers(3)},c{rng.integers(3)},r{i % 4}" for i in range(400)]
    (tmp_path / "p.csv").write_text("\n".join(rows))
    options = ["--label", "truth", "--prediction", "guess", "--sensitive", "region"]
    made = answer(capsys, "audit", tmp_path / "p.csv", *options, "--output", tmp_path)
    assert [row["group"] for row in made["groups"]] == ["r0", "r1", "r2", "r3"]
    assert made["notes"] == []
    assert made["scores"]["AUC"] is None
    (tmp_path / "p.csv").write_text("truth,guess,region\na,a,x\nb,a,x\na,b,y\n")
    made = answer(capsys, "audit", tmp_path / "p.csv", *options, "--output", tmp_path)
    assert any("dEO is not defined" in note for note in made["notes"])
    (tmp_path / "p.csv").write_text("truth,guess,region\na,a,x\nb,a,x\n")
    assert "'region' has 'x' only" in answer(capsys, "audit", tmp_path / "p.csv", *options, code=2)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train", "--dataset", "recidivsm"], ["recidivsm", "did you mean 'recidivism'"]),
        (["train", "--epochs", "0"], ["epochs=0", "at least 1"]),
        (["train", "--teacher", "sgae", "--dataset", "generated:240"], ["sgae", "'sage'"]),
        (["train", "--recipe", "nowhere"], ["nowhere", "recidivism"]),
        (["train", "--notion", "fair"], ["fair", "sp"]),
        (["train", "--nodes", "none.csv"], ["none.csv"]),
        (["train", "--framework", "akd", "--student", "plp"], ["embeddings"]),
        (["evaluate", "nowhere"], ["nowhere", "not the folder of a run"]),
        (["evaluate", "--part", "tets"], ["tets", "test"]),
        (["reproduce", "--seeds", "0"], ["seeds=0"]),
        (["reproduce", "--framework", "kd"], ["kd", "cpf"]),
        (["train", "--edges", "edges.csv"], ["edges.csv", "--nodes"]),
        (["tradeoff", "--alphas", "-1"], ["alphas"]),
        (["tradeoff", "--alphas", "inf"], ["alphas=[inf]", "finite"]),
        (["tradeoff", "--dataset", "recidivsm"], ["recidivsm", "did you mean 'recidivism'"]),
        (["tradeoff", "--teacher", "none.npy"], ["none.npy", "no such file"]),
        (["train", "--teacher", "none.npy"], ["none.npy", "no such file"]),
        (["train", "--alpha", "inf"], ["alpha=inf", "finite"]),
        (["train", "--dataset", "recidivism"], ["bail.csv"]),
        (["reproduce", "--teacher", "sgae", "--dataset", "generated:240"], ["sgae", "'sage'"]),
        (["reproduce", "--dataset", "recidivsm"], ["recidivsm", "did you mean 'recidivism'"]),
        (["reproduce", "--epochs", "0", "--dataset", "generated:240"], ["epochs=0"]),
        (["audit", "none.csv"], ["none.csv"]),
        (["data", "verify", "bail"], ["bail", "recidivism"]),
        (["data", "fetch", "dblp"], ["by hand", "edgelist.txt"]),
    ],
)
def test_wrong_input_is_one_line_that_says_what_and_what_would_be_right(
    argv, words, capsys, tmp_path, monkeypatch
):
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    message = answer(capsys, *argv, code=2)
    last = message.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "Traceback" not in message
    for word in words:
        assert word in last
    assert not list(tmp_path.rglob("config.toml"))  # no run is left behind


def test_the_catalogue_is_listed_without_any_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    rows = answer(capsys, "data", "list")["datasets"]
    assert {row["state"] for row in rows} == {"missing"}
    assert answer(capsys, "data", "verify")["datasets"][0]["state"] == "missing"


@pytest.mark.data
def test_verify_finds_nothing_wrong_with_the_real_files(real, capsys):
    real("german")
    rows = answer(capsys, "data", "verify", "german")["datasets"]
    assert [row["state"] for row in rows] == ["ok"]


def test_a_run_that_cannot_be_trained_leaves_no_folder(tmp_path, capsys):
    """Three groups in a user's table are found before the folder is made."""
    options = table(tmp_path)
    lines = (tmp_path / "people.csv").read_text().splitlines()
    lines[1::3] = [line.replace(",m,", ",x,").replace(",f,", ",x,") for line in lines[1::3]]
    (tmp_path / "people.csv").write_text("\n".join(lines))
    for verb in ("train", "tradeoff"):
        told = answer(capsys, verb, *options, *SHORT[2:], "--output", tmp_path / "runs", code=2)
        assert "training needs 0 and 1" in told
    assert not (tmp_path / "runs").exists()


def test_evaluate_takes_the_last_training_and_nothing_else(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "expected one of `train`" in answer(capsys, "evaluate", code=2)
    first = answer(capsys, "train", *SHORT)
    second = answer(capsys, "train", *SHORT, "--seed", "1")
    curve = answer(capsys, "tradeoff", *SHORT, "--alphas", "0", "--recipe", "german")
    assert Path(curve["run"]).name.startswith("tradeoff-german-")
    assert answer(capsys, "evaluate")["run"] == second["run"]
    assert answer(capsys, "evaluate", first["run"])["scores"] == pytest.approx(first["scores"])
    told = answer(capsys, "evaluate", curve["run"], code=2)
    assert "holds no student" in told
    assert "tradeoff keep none" in told


def test_a_run_from_the_cache_has_its_metrics_too(tmp_path, capsys):
    lines = []
    for place in ("first", "second"):
        made = answer(capsys, "train", *SHORT, "--seed", "3", "--output", tmp_path / place)
        lines.append((Path(made["run"]) / "metrics.jsonl").read_text())
    assert lines[0] == lines[1]
    assert len(lines[0].splitlines()) == 8


def test_every_recipe_is_a_configuration_and_every_number_has_its_place():
    from tenfold.reliant.training import TrainConfig, settled
    from tenfold.shared.config import load_recipe

    for name in recipes("reliant"):
        config = settled(load_recipe(TrainConfig, "reliant", name))
        assert ("official" in name) == (config.mode == "official")
    log = published("reliant")
    assert len(log.results) == 16 * 9
    assert log.lookup("recidivism", "dEO", "RELIANT CPF+SAGE EO").value == 0.0257
    assert log.lookup("dblp", "ACC", "teacher AKD+GCN").value == 0.9204
