import dataclasses
import json
import os
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from tenfold.shared import compute, runs
from tenfold.shared.errors import InputError
from tenfold.shared.runs import Measurement, Run


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "cora"
    rate: float = 1e-3
    seed: int = 7


WEIGHTS = {"w": torch.arange(6.0).reshape(2, 3)}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["tenfold", "toy"])
    return Run.create("toy", "cora", Config(), root=tmp_path)


def test_create_writes_what_is_needed_to_repeat(run, tmp_path):
    assert run.folder.parent == tmp_path / "toy"
    assert run.folder.name.startswith("cora-2")
    assert run.config(Config) == Config()
    about = json.loads((run.folder / "environment.json").read_text())
    assert about["command"] == ["tenfold", "toy"]
    assert about["seed"] == 7
    assert about["packages"]["torch"] == torch.__version__.split("+")[0]
    assert {"python", "cpu", "cores", "gpus", "git_commit"} <= set(about)


def test_runs_of_one_second_have_their_own_folders(tmp_path):
    folders = {Run.create("toy", None, Config(), root=tmp_path).folder for _ in range(4)}
    assert len(folders) == 4


def test_open_and_latest(run, tmp_path):
    other = Run.create("toy", "cora-full", Config(), root=tmp_path)
    third = Run.create("toy", "recipes/bat.toml", Config(), root=tmp_path)
    for age, made in enumerate([third, other, run]):
        os.utime(made.folder / "config.toml", (1000 - age, 1000 - age))
    assert Run.open(run.folder).config(Config) == Config()
    assert Run.latest("toy", root=tmp_path).folder == third.folder
    assert Run.latest("toy", "cora", root=tmp_path).folder == run.folder
    assert Run.latest("toy", "cora-full", root=tmp_path).folder == other.folder
    with pytest.raises(InputError, match="no run of recipe 'uat'"):
        Run.latest("toy", "uat", root=tmp_path)
    with pytest.raises(InputError, match=r"not the folder of a run"):
        Run.open(tmp_path)


def test_resume_goes_on_with_the_runs_own_configuration(tmp_path):
    run = Run.create("toy", "pyg:Planetoid/A b", Config(rate=0.5), root=tmp_path)
    assert run.folder.name.startswith("A-b-2")
    assert Run.create("toy", "generated:300", Config(), root=tmp_path).folder.name[:14] == (
        "generated-300-"
    )
    again, config = Run.resume(run.folder, Config())
    assert (again.folder, config) == (run.folder, Config(rate=0.5))
    run.configure(Config(rate=0.25))
    assert Run.resume(run.folder, Config())[1].rate == 0.25
    with pytest.raises(InputError, match="leave out --dataset, --seed"):
        Run.resume(run.folder, Config(dataset="bat", seed=1))
    run.finish({"results": []})
    with pytest.raises(InputError, match=r"is finished; see .*report\.html"):
        Run.resume(run.folder, Config())


def test_metrics_survive_a_torn_line(run):
    for epoch in range(4):
        run.log(epoch=epoch, loss=1 / (epoch + 1), bad=float("nan"))
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "lo')
    assert [line["epoch"] for line in run.metrics()] == [0, 1, 2, 3]
    assert run.metrics()[1] == {"epoch": 1, "loss": 0.5, "bad": None}
    run.rewind(2)
    run.log(epoch=3, loss=0.0)
    assert [line["loss"] for line in run.metrics()] == [1, 0.5, 1 / 3, 0.0]


def test_metrics_of_a_run_that_logged_nothing(run):
    assert run.metrics() == []
    run.rewind(0)
    assert run.metrics() == []


def test_a_checkpoint_gives_back_what_was_saved(run):
    assert run.load() is None
    model = torch.nn.Linear(2, 2)
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    state = {"optimiser": optimiser.state_dict(), "random": compute.random_state()}
    drawn = torch.rand(3), np.random.rand(3)  # noqa: NPY002
    run.save(model.state_dict(), state, epoch=3)
    weights, state, epoch = run.load()
    assert epoch == 3
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    optimiser.load_state_dict(state["optimiser"])
    compute.set_random_state(state["random"])
    assert torch.equal(torch.rand(3), drawn[0])
    assert np.array_equal(np.random.rand(3), drawn[1])  # noqa: NPY002
    run.save(model.state_dict(), state, epoch=4)
    names = sorted(path.name.split(".")[0] for path in (run.folder / "checkpoint").iterdir())
    assert names == ["state", "weights"]


def test_tied_and_transposed_weights(run):
    base = torch.arange(6.0).reshape(2, 3)
    run.save({"a": base, "b": base, "c": base.T}, {}, epoch=0)
    weights, _, _ = run.load()
    assert torch.equal(weights["b"], base)
    assert torch.equal(weights["c"], base.T)


class Killed(BaseException):
    """Stands for the death of the process."""


def kill(monkeypatch, at):
    """Makes the process die before, or in the midst of, its `at`-th step that touches the disk."""
    count = 0

    def wrap(function, torn=None):
        def wrapped(*arguments, **options):
            nonlocal count
            count += 1
            if count == at:
                if torn is not None:
                    torn(*arguments)
                raise Killed
            return function(*arguments, **options)

        return wrapped

    def torn_file(_, path):
        path.write_bytes(b"torn")

    import safetensors.torch

    monkeypatch.setattr("pathlib.Path.mkdir", wrap(runs.Path.mkdir))
    monkeypatch.setattr("safetensors.torch.save_file", wrap(safetensors.torch.save_file, torn_file))
    monkeypatch.setattr("torch.save", wrap(torch.save, torn_file))
    monkeypatch.setattr("os.fsync", wrap(os.fsync))
    monkeypatch.setattr("os.replace", wrap(os.replace))
    monkeypatch.setattr("pathlib.Path.unlink", wrap(runs.Path.unlink))


def test_killed_at_any_step_a_whole_checkpoint_is_left(run, tmp_path):
    run.save(WEIGHTS, {"x": 1}, epoch=1)
    kept, at, seen = tmp_path / "kept", 0, []
    shutil.copytree(run.folder, kept)
    while True:
        at += 1
        shutil.rmtree(run.folder)
        shutil.copytree(kept, run.folder)
        with pytest.MonkeyPatch.context() as patch:
            kill(patch, at)
            try:
                Run.open(run.folder).save({"w": WEIGHTS["w"] + 1}, {"x": 2}, epoch=2)
                break
            except Killed:
                pass
        weights, state, epoch = Run.open(run.folder).load()
        seen.append(epoch)
        assert state == {"x": epoch}
        assert torch.equal(weights["w"], WEIGHTS["w"] + (epoch - 1))
        Run.open(run.folder).save(WEIGHTS, {"x": 3}, epoch=3)  # and the run goes on
        assert Run.open(run.folder).load()[1:] == ({"x": 3}, 3)
        assert len(list((run.folder / "checkpoint").iterdir())) == 2
    assert at > 9
    assert seen == sorted(seen)
    assert {1, 2} == set(seen)


def test_killed_in_the_first_save_there_is_none(run):
    for at in range(1, 6):
        with pytest.MonkeyPatch.context() as patch:
            kill(patch, at)
            with pytest.raises(Killed):
                run.save(WEIGHTS, {}, epoch=1)
        assert run.load() is None
    run.save(WEIGHTS, {}, epoch=1)
    assert run.load()[2] == 1


def test_a_damaged_checkpoint_is_refused(run):
    run.save(WEIGHTS, {}, epoch=1)
    (run.folder / "checkpoint" / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match="checkpoint is damaged"):
        run.load()


def test_a_hostile_state_is_not_executed(run, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    run.save(WEIGHTS, {}, epoch=1)
    [state] = (run.folder / "checkpoint").glob("state.*.pt")
    torch.save({"epoch": 1, "state": Hostile()}, state)
    with pytest.raises(InputError, match="damaged"):
        run.load()
    assert not (tmp_path / "executed").exists()


def test_finish(run):
    assert not run.finished
    row = Measurement(dataset="cora", method="Toy", metric="ACC", value=73.5, std=0.5, n=10)
    run.finish({"results": [row], "note": "kept"})
    assert run.finished
    result = json.loads((run.folder / "result.json").read_text())
    assert result["results"] == [
        {"dataset": "cora", "method": "Toy", "protocol": "", "metric": "ACC"}
        | {"value": 73.5, "std": 0.5, "n": 10}
    ]
    assert result["package"] == "toy"
    assert result["command"] == ["tenfold", "toy"]
    assert result["note"] == "kept"
    assert result["seconds"] >= 0
    assert result["date"][:2] == "20"


@pytest.mark.parametrize("result", [{}, {"results": [{"value": 1}]}, {"results": [None]}])
def test_finish_wants_measurements(run, result):
    with pytest.raises(TypeError, match="list of Measurement"):
        run.finish(result)
    assert not run.finished


def test_only_the_main_process_writes(run, monkeypatch):
    before = sorted(run.folder.rglob("*"))
    monkeypatch.setenv("RANK", "1")
    run.log(epoch=1, loss=0.5)
    run.save(WEIGHTS, {}, epoch=1)
    run.finish({"results": []})
    assert sorted(run.folder.rglob("*")) == before


@pytest.mark.slow
def test_a_process_killed_while_saving_leaves_a_whole_checkpoint(tmp_path):
    program = textwrap.dedent(
        """
        import dataclasses, sys, torch
        from tenfold.shared.runs import Run
        config = dataclasses.make_dataclass("Config", [])()
        run = Run.create("toy", "kill", config, root=sys.argv[1])
        for epoch in range(100_000):
            run.save({"w": torch.full((50_000,), float(epoch))}, {"e": epoch}, epoch)
            run.log(epoch=epoch)
            print(epoch, flush=True)
        """
    )
    for wanted in (3, 11, 17):
        command = [sys.executable, "-c", program, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            while int(process.stdout.readline()) < wanted:
                pass
            process.kill()
        run = Run.latest("toy", "kill", root=tmp_path)
        weights, state, epoch = run.load()
        assert epoch >= wanted
        assert state == {"e": epoch}
        assert torch.equal(weights["w"], torch.full((50_000,), float(epoch)))
        run.rewind(epoch)
        assert [line["epoch"] for line in run.metrics()] == list(range(len(run.metrics())))
