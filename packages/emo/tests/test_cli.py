import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tenfold.shared.cli import run

TINY = [
    "--data", "digits", "--in-chans", "1", "--image-size", "32", "--window", "4", "4", "2", "1",
    "--batch-size", "64", "--learning-rate", "2e-3", "--warmup-epochs", "1", "--ema", "0.9",
    "--device", "cpu",
]  # fmt: skip


def answer(capsys, *argv, code=0):
    found = run(["emo", *map(str, argv), "--json"])
    printed = capsys.readouterr()
    assert found == code, printed.err
    return json.loads(printed.out) if code == 0 else printed.err


def folder_of(tmp_path, classes=("ant", "bee"), count=6):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for k, label in enumerate(classes):
            path = tmp_path / "images" / split / label
            path.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 100, (36, 40, 3), np.uint8)
                pixels[..., k] += 120
                Image.fromarray(pixels).save(path / f"{i}.jpg")
    return tmp_path / "images"


def test_train_evaluate_predict_on_a_users_folder(tmp_path, capsys):
    data = folder_of(tmp_path)
    made = answer(
        capsys, "train", "--data", data, "--image-size", "32", "--window", "2", "--batch-size", "4",
        "--epochs", "1", "--warmup-epochs", "0", "--learning-rate", "1e-3", "--ema", "0.5",
        "--device", "cpu", "--output", tmp_path / "runs",
    )  # fmt: skip
    folder = Path(made["run"])
    assert {"config.toml", "metrics.jsonl", "result.json", "report.html", "ema.safetensors"} <= {
        p.name for p in folder.iterdir()
    }
    assert json.loads((folder / "classes.json").read_text()) == ["ant", "bee"]
    scored = answer(capsys, "evaluate", folder, "--which", "net", "--device", "cpu")
    assert scored["top1"] == made["last"]["top1"]
    Image.new("L", (50, 60)).save(tmp_path / "gray.png")
    found = answer(
        capsys, "predict", data / "val" / "ant", tmp_path / "gray.png", "--model", folder
    )
    rows = found["images"]
    assert len(rows) == 7
    assert {best["class"] for best in rows[0]["top"]} == {"ant", "bee"}
    assert sum(best["probability"] for best in rows[0]["top"]) == pytest.approx(1, abs=1e-5)
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    message = answer(
        capsys, "predict", data, "--model", folder, "--classes", tmp_path / "names.txt", code=2
    )
    assert "3 names" in message
    assert "2 classes" in message
    table = json.loads((folder / "result.json").read_text())["results"]
    assert {row["method"] for row in table} == {"EMO-1M"}


def test_predict_takes_a_published_checkpoint(tmp_path, capsys, create):
    torch.manual_seed(0)
    torch.save({"net": create("emo_1m", num_classes=7).state_dict()}, tmp_path / "w.pth")
    Image.new("RGB", (64, 64)).save(tmp_path / "a.jpg")
    options = [tmp_path / "a.jpg", "--model", "emo_1m", "--checkpoint", tmp_path / "w.pth"]
    found = answer(capsys, "predict", *options, "--size", "64", "--top", "3")
    assert len(found["images"][0]["top"]) == 3
    wrong = [tmp_path / "a.jpg", "--model", "emo_2m", "--checkpoint", tmp_path / "w.pth"]
    assert "w.pth is not a checkpoint of this EMO" in answer(capsys, "predict", *wrong, code=2)


def test_a_killed_train_resumes_to_the_same_numbers(tmp_path, capsys, monkeypatch):
    options = [*TINY, "--epochs", "3", "--max-steps", "3", "--evaluate-every", "3"]
    # One step an epoch; the run that is killed waits for that after its first checkpoint.
    code = (
        "import sys, time, torch; torch.set_num_threads(1)\n"
        "import tenfold.emo.tasks\n"
        "tenfold.emo.tasks.EpochSampler.__len__ = lambda self: 64\n"
        "from tenfold.shared.runs import Run; save = Run.save\n"
        "Run.save = lambda self, *a: (save(self, *a), time.sleep(300))\n"
        "from tenfold.shared.cli import run; sys.exit(run(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "emo", "train", *options, "--output", tmp_path / "cut"]
    cut = subprocess.Popen(
        list(map(str, command)), env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        monkeypatch.setattr("tenfold.emo.tasks.EpochSampler.__len__", lambda self: 64)
        whole = answer(capsys, "train", *options, "--output", tmp_path / "whole")
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("cut/emo/*/checkpoint")):
            assert time.monotonic() < deadline
            assert cut.poll() is None, cut.stderr.read()
            time.sleep(0.02)
    finally:
        cut.send_signal(signal.SIGKILL)
        cut.communicate()
    (folder,) = tmp_path.glob("cut/emo/*")
    assert not (folder / "result.json").exists()
    resumed = answer(capsys, "train", "--resume", folder)
    assert whole["last"] == resumed["last"]

    def lines(path):
        rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in r.items() if k != "images_per_second"} for r in rows]

    assert lines(folder) == lines(Path(whole["run"]))
    assert len(lines(folder)) == 3
    assert "is finished" in answer(capsys, "train", "--resume", folder, code=2)


def test_shards_are_made_and_train(tmp_path, capsys):
    data, shards = folder_of(tmp_path), tmp_path / "shards"
    made = answer(capsys, "data", "shards", data, shards, "--per-shard", "6")
    assert made["splits"] == [
        {"split": "train", "shards": 2, "samples": 12}, {"split": "val", "shards": 2, "samples": 12}
    ]  # fmt: skip
    options = [
        "--data", shards, "--image-size", "32", "--window", "2", "--batch-size", "4",
        "--epochs", "1", "--warmup-epochs", "0", "--ema", "0", "--device", "cpu",
        "--output", tmp_path / "runs",
    ]  # fmt: skip
    assert "shard_samples is not given" in answer(capsys, "train", *options, code=2)
    # Two workers of 6 samples make one batch each a round; 24 samples, twice, are twelve steps.
    more = ["--shard-samples", "24", "--repeat", "2", "--workers", "2"]
    made = answer(capsys, "train", *options, *more)
    assert (made["epochs"], made["steps"]) == (1, 12)
    assert 0 <= made["last"]["top1"] <= 100


def test_profile_counts_as_published(capsys):
    parts = answer(capsys, "profile", "emo_1m")["parts"]
    assert parts[0]["flops"] == 260_843_664
    assert [p["part"] for p in parts[1:]] == [
        "stage0", "stage1", "stage2", "stage3", "stage4", "norm", "head",
    ]  # fmt: skip
    assert run(["emo", "profile", "emo_2m"]) == 0
    assert "2,377,472" in capsys.readouterr().out


def test_bench_measures_in_turn(capsys):
    rows = answer(capsys, "bench", "emo_1m", "--batches", "1", "--repeats", "2")["rows"]
    assert rows[0]["faster"] == pytest.approx(rows[0]["plain"] / rows[0]["optimised"])


def test_export_through_the_command_line(tmp_path, capsys, monkeypatch):
    from tenfold.emo.model import MODELS

    monkeypatch.setitem(MODELS["emo_1m"], "depths", (1, 1, 1, 2))  # tracing takes its time
    path = tmp_path / "emo.pt2"
    found = answer(capsys, "export", path, "--model", "emo_1m", "--size", "64", "--fixed")
    assert found["largest_difference"] < 1e-4
    assert path.stat().st_size > 1_000_000


def test_reproduce_puts_paper_and_here_side_by_side(tmp_path, capsys, create):
    data = folder_of(tmp_path, count=2)
    torch.manual_seed(0)
    torch.save({"net_E": create("emo_1m", num_classes=2).state_dict()}, tmp_path / "w.pth")
    found = answer(
        capsys, "reproduce", "emo_1m", "--data", data, "--checkpoint", tmp_path / "w.pth",
        "--device", "cpu", "--batch-size", "4", "--workers", "0", "--output", tmp_path / "runs",
    )  # fmt: skip
    row = next(r for r in found["comparison"] if r["metric"] == "top-1")
    assert row["paper"] == 71.498
    assert row["difference"] == pytest.approx(row["here"] - 71.498)


def test_demo_leaves_a_report(tmp_path, capsys, monkeypatch):
    from tenfold.emo import demonstration

    plain = demonstration.demo
    monkeypatch.setattr(demonstration, "demo", lambda output: plain(output, epochs=1))
    found = answer(capsys, "demo", "--output", tmp_path)
    assert 5 <= found["demo"]["value"] <= 100
    assert (tmp_path / "report.html").read_text().count("data:image/png") == 2
    assert all(Path(p).is_file() for p, _ in found["demo"]["pictures"])


def test_the_catalogue_is_listed_without_any_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    rows = answer(capsys, "data", "list")["datasets"]
    assert {row["name"] for row in rows} == {"imagenet", "coco", "ade20k", "cifar10-jpeg"}
    assert {row["state"] for row in rows} == {"missing"}
    assert "accept its licence" in answer(capsys, "data", "fetch", "imagenet", code=2)


@pytest.mark.data
def test_verify_counts_the_real_files(real, capsys):
    real("cifar10-jpeg")
    found = answer(capsys, "data", "verify", "cifar10-jpeg")
    assert all(row["found"] == row["expected"] for row in found["counts"])
    assert len(found["counts"]) == 4


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train", "--model", "emo_3m"], ["emo_3m", "emo_"]),
        (["train", "--recipe", "nowhere"], ["nowhere", "emo-1m-imagenet"]),
        (["train", "--epochs", "0"], ["epochs=0"]),
        (["train", "--modle", "emo_1m"], ["--modle", "--model"]),
        (["train", "--data", "nowhere"], ["nowhere"]),
        (["evaluate", "nowhere"], ["nowhere", "not the folder of a run"]),
        (["predict", "--model", "emo_1m"], ["no images"]),
        (["predict", "none.jpg", "--model", "emo_1m"], ["none.jpg"]),
        (["predict", "a.jpg", "--model", "emo_1m", "--size", "0"], ["size=0"]),
        (["profile", "emo_9m"], ["emo_9m"]),
        (["profile", "resnet18", "--window", "3"], ["window=3", "resnet18"]),
        (["bench", "emo_9m"], ["emo_9m"]),
        (["export", "x.foo"], ["x.foo", "onnx"]),
        (["data", "verify", "coko"], ["coko", "coco"]),
    ],
)
def test_wrong_input_is_one_line_that_says_what_would_be_right(argv, words, capsys):
    message = answer(capsys, *argv, code=2)
    last = message.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "Traceback" not in message
    for word in words:
        assert word in last


def test_a_model_without_weights_does_not_guess(tmp_path, capsys):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.jpg")
    message = answer(capsys, "predict", tmp_path / "a.jpg", "--model", "emo_1m", code=2)
    assert "has no weights here" in message


def test_data_is_found_under_the_folder_of_all_data_sets(tmp_path, monkeypatch):
    from tenfold.emo.tasks import find_data

    folder_of(tmp_path)
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    assert find_data("images") == tmp_path / "images"
    assert find_data(str(tmp_path)) == tmp_path
    assert find_data("nowhere") == Path("nowhere")


def test_the_import_is_quick_and_registers_in_whatever_order():
    code = (
        "import sys, time; began = time.process_time(); import tenfold.emo\n"
        "assert time.process_time() - began < 1, time.process_time() - began\n"
        "assert 'torch' not in sys.modules\n"
        "import timm\n"
        "assert timm.create_model('emo_5m', features_only=True).feature_info.channels()[-1] == 288"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
