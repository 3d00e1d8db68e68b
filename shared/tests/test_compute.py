import os
import random
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from tenfold.shared import compute
from tenfold.shared.errors import InputError


def test_fabric_on_a_cpu_trains(capfd):
    fabric = compute.fabric("cpu")
    model = fabric.setup(torch.nn.Linear(2, 1))
    fabric.backward(model(torch.ones(1, 2)).sum())
    assert model.weight.grad.tolist() == [[1.0, 1.0]]
    assert fabric.device.type == "cpu"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"device": "cudaa"}, "Available names are: auto,"),
        ({"device": "cpu", "precision": "16-mixed"}, "'16-mixed' needs a GPU"),
        ({"device": "cpu", "precision": "33"}, "Precision '33' is invalid"),
        ({"device": "cpu", "devices": 0}, "`Fabric(devices=0)` value is not a valid input"),
        ({"device": "cpu", "num_nodes": 0}, "must be a positive integer, but got 0"),
        ({"device": "tpu"}, "device 'tpu'"),
        ({"device": "cpu", "strategy": "no-such"}, "strategy='no-such'"),
    ],
)
def test_impossible_wishes(options, part):
    with pytest.raises(InputError) as caught:
        compute.fabric(**options)
    assert part in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_here():
    with pytest.raises(InputError, match=r"device 'cuda'.*is not available.*cpu"):
        compute.fabric("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_fabric_on_a_gpu():
    fabric = compute.fabric("auto", precision="bf16-mixed")
    model = fabric.setup(torch.nn.Linear(2, 1))
    assert model(torch.ones(1, 2, device=fabric.device)).device.type == "cuda"
    with pytest.raises(InputError, match="'devices': 99"):
        compute.fabric("cuda", devices=99)


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


def test_seeds():
    compute.seed_everything(3)
    first = draw()
    second = draw()
    compute.seed_everything(3)
    assert draw() == first
    assert second != first
    for seed in (-1, 2**32):
        with pytest.raises(InputError, match="from 0 to 4294967295"):
            compute.seed_everything(seed)


def test_random_state_goes_on_where_it_was():
    def normal():  # both generators keep the second number of a pair
        return random.gauss(0, 1), np.random.randn()  # noqa: NPY002

    draw()
    normal()
    state = compute.random_state()
    expected = normal(), draw()
    draw()
    compute.set_random_state(state)
    assert (normal(), draw()) == expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
    ],
)
def test_the_main_process(monkeypatch, variables, expected):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert compute.is_main_process() is expected


def test_environment_describes_the_machine():
    found = compute.environment()
    assert found["packages"]["numpy"] == np.__version__
    assert found["memory_gib"] > 0.1
    assert found["cores"] == os.cpu_count()
    assert isinstance(found["gpus"], list)


def test_git_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert compute.git_commit() is None
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "a").write_text("1")
    subprocess.run([*git, "add", "a"], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    commit = compute.git_commit()
    assert len(commit) == 40
    (tmp_path / "a").write_text("2")
    assert compute.git_commit() == f"{commit}-dirty"


@pytest.mark.slow
def test_two_processes_work_as_one(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import dataclasses, sys, torch
            from tenfold.shared import compute
            from tenfold.shared.runs import Run

            @dataclasses.dataclass(frozen=True)
            class Config:
                seed: int = 0

            fabric = compute.fabric("cpu", devices=2, strategy="ddp")
            run = Run.create("toy", "two", Config(), root=sys.argv[1])
            total = fabric.all_reduce(torch.tensor(fabric.global_rank + 1.0), reduce_op="sum")
            run.log(epoch=0, total=total)
            fabric.barrier()
            line = f"{fabric.global_rank} {total.item()} {run.folder.name} {run.metrics()}"
            print(line + "\\n", end="")
            """
        )
    )
    command = [sys.executable, str(program), str(tmp_path / "runs")]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    first, second = sorted(answer.stdout.splitlines())
    assert first.startswith("0 3.0 two-")
    assert second == "1" + first[1:]
    assert "{'epoch': 0, 'total': 3.0}" in first
    assert len(list((tmp_path / "runs" / "toy").iterdir())) == 1
