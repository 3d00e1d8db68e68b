import json
from pathlib import Path

import numpy as np
import pytest

from tenfold.shared.cli import run
from tenfold.tenet.evaluation import make_submission, read_submission, write_submission

TINY = [
    *("--size", "tenet-tiny", "--epochs", "1", "--batch-size", "3", "--device", "cpu"),
    *("--max-agents", "4", "--max-lines", "8", "--val-agents", "8", "--val-lines", "16"),
]


def answer(capsys, *argv, code=0):
    found = run(["tenet", *map(str, argv), "--json"])
    printed = capsys.readouterr()
    assert found == code, printed.err
    return json.loads(printed.out) if code == 0 else printed.err


@pytest.fixture(scope="module")
def trained(split, tmp_path_factory):
    """The folder of a short training through the command line."""
    output = tmp_path_factory.mktemp("runs")
    argv = ["tenet", "train", "--data", "generated:6:3", "--val", str(split), *TINY]
    assert run([*argv, "--output", str(output), "--quiet"]) == 0
    return next(output.glob("tenet/*"))


def test_train_leaves_a_whole_run(trained):
    result = json.loads((trained / "result.json").read_text())
    assert result["parameters"] == 1_106_095
    assert {row["metric"] for row in result["results"]} >= {"minFDE6", "brier-minFDE6", "MR1"}
    assert result["seconds_per_epoch"] > 0
    page = (trained / "report.html").read_text()
    assert page.count("data:image/png") == 5
    assert page.count("data:image/gif") == 1
    assert (trained / "moving-1.gif").read_bytes()[:6] == b"GIF89a"


def test_evaluate_repeats_the_scores_of_training(trained, capsys):
    stored = json.loads((trained / "result.json").read_text())["scores"]
    found = answer(capsys, "evaluate", trained, "--max-agents", 8, "--max-lines", 16)
    assert found["single"]["brier-minFDE6"] == pytest.approx(stored["brier-minFDE6"], abs=1e-4)
    other = answer(
        capsys, "evaluate", trained, "--max-agents", 8, "--max-lines", 16, "--ade-mode", "fde_best"
    )
    assert other["single"]["minADE6"] >= found["single"]["minADE6"]


def test_predict_score_and_ensemble_work_together(trained, split, tmp_path, capsys):
    files = [tmp_path / f"{name}.parquet" for name in "ab"]
    for agents, path in zip((8, 16), files, strict=True):
        made = answer(capsys, "predict", trained, split, "--output", path, "--max-agents", agents)
        assert (made["scenarios"], made["tracks"], made["modes"]) == (7, 7, 6)
    merged = tmp_path / "merged.parquet"
    found = answer(capsys, "ensemble", *files, "-o", merged)
    assert (found["members"], found["scenarios"]) == (2, 7)
    single = answer(capsys, "score", "--submission", files[0], "--ground-truth", split)["single"]
    both = answer(capsys, "score", "--submission", merged, "--ground-truth", split)["single"]
    assert set(single) == set(both)
    assert len(single) == 8
    assert run(["tenet", "score", "--submission", str(merged), "--ground-truth", str(split)]) == 0
    assert "brier-minFDE6" in capsys.readouterr().out
    worlds = tmp_path / "worlds.parquet"
    made = answer(capsys, "predict", trained, split, "--output", worlds, "--worlds")
    assert made["tracks"] > 7
    found = answer(capsys, "score", "--submission", worlds, "--ground-truth", split)
    assert found["single"]["minFDE6"] > 0


def test_submit_wants_a_whole_split(trained, split, tmp_path, capsys):
    path = tmp_path / "s.parquet"
    assert answer(capsys, "submit", trained, split, "--output", path)["scenarios"] == 7
    assert np.isclose(read_submission(path).probabilities.sum(axis=1), 1.0).all()
    error = answer(capsys, "submit", trained, split, "--split", "test", "--output", path, code=2)
    assert "7 scenarios, the split test has 24984" in error


def test_plot_draws_still_and_moving(trained, split, tmp_path, capsys):
    scenario = sorted(path for path in split.iterdir() if path.is_dir())[0]
    for name, options in (
        ("a.png", ["--run", trained]),
        ("b.svg", []),
        ("c.gif", ["--animate", "--run", trained]),
    ):
        path = tmp_path / name
        answer(capsys, "plot", scenario, "--output", path, *options)
        assert path.stat().st_size > 5000
    error = answer(capsys, "plot", scenario, "--output", tmp_path / "a.txt", code=2)
    assert "expected a name that ends in .png" in error


def test_preprocess_and_data_verbs(split, tmp_path, capsys, monkeypatch):
    made = answer(capsys, "preprocess", split, "--output", tmp_path / "c", "--shard-size", 3)
    assert (made["scenarios"], made["shards"]) == (7, 3)
    manifest = tmp_path / "index.parquet"
    assert answer(capsys, "data", "index", split, "--output", manifest)["scenarios"] == 7
    assert answer(capsys, "data", "verify", split, "--manifest", manifest)["problems"] == []
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    rows = answer(capsys, "data", "list", "--limit", 10)["datasets"]
    assert [row["scenarios"] for row in rows] == [199_908, 24_988, 24_984]
    assert rows[0]["s5cmd"].startswith("s5cmd --no-sign-request ls 's3://argoverse/")
    error = answer(capsys, "data", "fetch", "val", code=2)
    assert "--accept-licence" in error
    assert "split" in answer(capsys, "data", "fetch", "vla", code=2)
    error = answer(capsys, "preprocess", "val", "--output", tmp_path / "d", code=2)
    assert "s5cmd" in error


def test_verify_says_what_is_wrong_and_fails(split, tmp_path, capsys):
    import shutil

    folder = tmp_path / "split"
    shutil.copytree(split, folder)
    name = sorted(path.name for path in folder.iterdir() if path.is_dir())[0]
    (folder / name / f"scenario_{name}.parquet").write_bytes(b"PAR1")
    assert run(["tenet", "data", "verify", str(folder)]) == 1
    assert "not a whole parquet" in capsys.readouterr().out.replace("\n", " ")


def test_reproduce_trains_members_and_compares(split, tmp_path, capsys):
    found = answer(
        capsys,
        *("reproduce", "--data", split, "--val", split, "--size", "tenet-tiny", "--members", 2),
        *("--epochs", 1, "--batch-size", 4, "--device", "cpu", "--output", tmp_path),
    )
    protocols = {(row["method"], row["protocol"], row["n"]) for row in found["results"]}
    assert protocols == {("TENET", "ensemble", 1), ("TENET (single)", "single", 2)}
    assert all(row["paper"] is None for row in found["comparison"])  # another data set
    folder = Path(found["run"])
    assert sorted(path.name for path in folder.glob("member-*")) == ["member-0", "member-1"]
    stamp = (folder / "member-0" / "result.json").stat().st_mtime_ns
    answer(capsys, "reproduce", "--resume", folder)
    assert (folder / "member-0" / "result.json").stat().st_mtime_ns == stamp


def test_recipes_fit_the_configuration(capsys):
    from tenfold.shared.config import load_recipe, recipes
    from tenfold.tenet.training import TrainConfig

    found = recipes("tenet")
    assert set(found) == {"base", "small-data", "small-gpu", "worlds"}
    for name in found:
        load_recipe(TrainConfig, "tenet", name)
    error = answer(capsys, "train", "--recipe", "bsae", code=2)
    assert "did you mean 'base'" in error


def test_the_papers_number_is_there():
    from tenfold.shared.published import published

    paper = published("tenet")
    assert paper.lookup("test", "brier-minFDE6", "TENET").value == 1.90
    assert paper.lookup("test", "minFDE6", "TENET").value == 1.38


def test_wrong_input_is_one_line(tmp_path, capsys):
    assert answer(capsys, "train", "--data", "generated:none", code=2).startswith("error: ")
    error = answer(
        capsys,
        "score",
        "--submission",
        tmp_path / "n.parquet",
        "--ground-truth",
        tmp_path / "m.parquet",
        code=2,
    )
    assert error.count("\n") == 1
    assert "m.parquet" in error
    assert "no submission is given" in answer(capsys, "ensemble", code=2)
    assert "is not the folder of a run" in answer(capsys, "evaluate", tmp_path, code=2)
    one = make_submission(["a"], ["1"], np.ones((1, 1)), np.zeros((1, 1, 60, 2)))
    two = make_submission(["b"], ["1"], np.ones((1, 1)), np.zeros((1, 1, 60, 2)))
    for name, made in (("x", one), ("y", two)):
        write_submission(made, tmp_path / f"{name}.parquet")
    files = [tmp_path / "x.parquet", tmp_path / "y.parquet"]
    assert "is in one of them only" in answer(capsys, "ensemble", *files, code=2)


@pytest.mark.slow
def test_the_demo_beats_constant_velocity(tmp_path, capsys, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    found = answer(capsys, "demo", "--output", tmp_path / "demo")
    straight, untrained, ours, no_map = found["methods"]
    assert ours["minFDE6"] < 0.5 * straight["minFDE6"]
    assert ours["minFDE1"] < straight["minFDE1"]
    assert ours["brier-minFDE6"] < untrained["brier-minFDE6"]
    assert no_map["minFDE6"] > 1.2 * ours["minFDE6"]
    assert Path(found["demo"]["report"]).is_file()
    assert list(elsewhere.iterdir()) == []  # nothing beside its own folder
