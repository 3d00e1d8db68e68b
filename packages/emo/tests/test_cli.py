import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tenfold.emo.settings import TrainConfig
from tenfold.shared.cli import run
from tenfold.shared.config import recipes

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
    files = {"metrics.jsonl", "result.json", "report.html", "ema.safetensors", "best.safetensors"}
    assert files <= {p.name for p in folder.iterdir()}
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


def test_the_best_epoch_is_that_of_the_average(tmp_path, capsys, monkeypatch):
    from tenfold.emo import training

    data = folder_of(tmp_path)
    # Raw and averaged accuracy of three epochs: the raw one is best in the last epoch.
    scores = iter([10, 30, 20, 40, 90, 35])
    monkeypatch.setattr(
        "tenfold.emo.tasks.Classification.evaluate", lambda self, *a: {"top1": next(scores)}
    )
    kept, write = [], training.write_weights
    monkeypatch.setattr(
        training, "write_weights",
        lambda model, path: (kept.append((path.name, clone(model))), write(model, path)),
    )  # fmt: skip
    made = answer(
        capsys, "train", "--data", data, "--image-size", "32", "--window", "2", "--batch-size", "4",
        "--epochs", "3", "--warmup-epochs", "0", "--ema", "0.5", "--device", "cpu",
        "--evaluate-every", "1", "--output", tmp_path / "runs",
    )  # fmt: skip
    assert (made["best_epoch"], made["best"]["ema_top1"]) == (1, 40)
    assert [name for name, _ in kept] == ["best.safetensors"] * 2
    from tenfold.emo.experiments import load_run

    states = {which: clone(load_run(made["run"], which)[1]) for which in ("best", "last", "net")}
    same = lambda a, b: all(torch.equal(v, b[k]) for k, v in a.items())  # noqa: E731
    assert same(kept[1][1], states["best"])
    assert not same(states["best"], states["last"])
    assert not same(states["last"], states["net"])


def clone(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_train_begins_with_weights(tmp_path, capsys, monkeypatch, create):
    data = folder_of(tmp_path)
    torch.manual_seed(5)
    source = create("emo_1m", num_classes=7)
    torch.save({"net": source.state_dict()}, tmp_path / "seven.pth")
    options = [
        "train", "--data", data, "--image-size", "32", "--window", "2", "--batch-size", "4",
        "--epochs", "1", "--warmup-epochs", "0", "--warmup-steps", "2", "--warmup-rate", "0",
        "--max-steps", "1", "--ema", "0", "--weight-decay", "0", "--device", "cpu",
        "--output", tmp_path / "runs",
    ]  # fmt: skip
    made = answer(capsys, *options, "--weights", tmp_path / "seven.pth")  # one step of rate 0
    from tenfold.emo.experiments import load_run

    (tmp_path / "seven.pth").unlink()  # no longer needed
    found = dict(load_run(made["run"])[1].named_parameters())
    assert found["head.weight"].shape[0] == 2
    for name, value in source.named_parameters():
        if not name.startswith("head."):
            torch.testing.assert_close(found[name], value, rtol=0, atol=0)


def test_evaluate_takes_a_checkpoint(tmp_path, capsys, create):
    data = folder_of(tmp_path, count=2)
    torch.manual_seed(0)
    torch.save({"net_E": create("emo_1m", num_classes=2).state_dict()}, tmp_path / "w.pth")
    options = ["evaluate", "--checkpoint", tmp_path / "w.pth", "--data", data, "--device", "cpu"]
    found = answer(capsys, *options, "--model", "emo_1m")
    assert 0 <= found["top1"] <= 100
    assert "w.pth is not a checkpoint" in answer(capsys, *options, "--model", "emo_2m", code=2)
    assert "emo-3m-imagenet" in answer(capsys, *options, "--model", "emo_3m", code=2)
    assert "expected one of them" in answer(capsys, *options[:1], "runs", *options[1:], code=2)


def test_detectors_without_weights_say_what_stays_random(tmp_path, monkeypatch):
    from tenfold.emo import experiments

    said = []
    monkeypatch.setattr(experiments, "message", said.append)
    monkeypatch.setattr(experiments, "task", lambda config: None)
    monkeypatch.setattr(experiments, "_go_on", lambda run, job, fabric: None)
    for head, words in (
        ("ssdlite", "BatchNorm statistics"), ("retinanet", "stage 1 are frozen"),
    ):  # fmt: skip
        config = TrainConfig(task="detection", head=head, device="cpu")
        experiments.train_run(config, None, tmp_path)
        assert "the backbone begins with random weights" in said[-1]
        assert words in said[-1]


def test_the_help_of_train_names_every_recipe(capsys):
    assert run(["emo", "train", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    named = set()
    for name in ("emo-{1m,2m,5m,6m}-imagenet", "emo2-{1m,2m,5m}-imagenet", "emo-{1m,2m,5m}-HEAD"):
        assert name in text
        before, sizes, after = re.split("[{}]", name)
        heads = ("ssdlite", "retinanet", "deeplabv3", "pspnet", "semantic-fpn", "segformer")
        for head in heads:
            assert head in text
            named |= {f"{before}{s}{after.replace('HEAD', head)}" for s in sizes.split(",")}
    assert named | {"digits", "cifar10"} == set(recipes("emo"))


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
    # What a data worker refuses is one line, as everywhere.
    more = [*more, "--batch-size", "8"]
    printed = answer(capsys, "train", *options[:6], *options[8:], *more, code=2)
    assert (
        printed.strip().splitlines()[-1].startswith("error: the 1 shards of process 1 of 1, data")
    )
    assert "hold 6 samples; expected at least a batch of 8" in printed
    assert "Traceback" not in printed
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


@pytest.mark.parametrize(
    ("argv", "paper"),
    [
        (["emo2_1m"], ("top-1", 72.3)),
        (["emo_1m", "--head", "ssdlite"], ("AP", 22.0)),
        (["emo_5m", "--head", "deeplabv3"], ("mIoU", 37.8)),
        (["emo_2m", "--head", "semantic-fpn"], ("mIoU", 37.3)),
    ],
)
def test_reproduce_knows_the_rows_of_every_table(argv, paper, tmp_path, capsys, monkeypatch):
    from tenfold.emo import experiments

    metric = {"top-1": "top1"}.get(paper[0], paper[0])
    monkeypatch.setattr(experiments, "evaluate_checkpoint", lambda *a: {metric: 12.5})
    found = answer(
        capsys, "reproduce", *argv, "--data", tmp_path, "--checkpoint", tmp_path / "w.pth",
        "--device", "cpu", "--output", tmp_path / "runs",
    )  # fmt: skip
    (row,) = found["comparison"]
    assert (row["metric"], row["paper"], row["here"]) == (*paper, 12.5)


def test_reproduce_takes_a_run_of_the_same_model(tmp_path, capsys):
    data = folder_of(tmp_path, count=4)
    made = answer(
        capsys, "train", "--data", data, "--image-size", "32", "--window", "2", "--batch-size", "4",
        "--epochs", "1", "--warmup-epochs", "0", "--ema", "0.5", "--device", "cpu",
        "--output", tmp_path / "runs",
    )  # fmt: skip
    options = ["--run", made["run"], "--data", data, "--device", "cpu", "--output", tmp_path]
    found = answer(capsys, "reproduce", "emo_1m", *options)
    row = next(r for r in found["comparison"] if r["metric"] == "top-1")
    assert (row["paper"], row["here"]) == (71.498, made["best"]["ema_top1"])
    assert "expected emo_2m" in answer(capsys, "reproduce", "emo_2m", *options, code=2)


@pytest.mark.data
@pytest.mark.slow
def test_evaluate_takes_the_checkpoint_of_a_detector(real, tmp_path, capsys):
    from tenfold.emo.dense import SSDLite

    torch.manual_seed(0)
    torch.save(SSDLite("emo_1m", 80).state_dict(), tmp_path / "ssd.pth")
    found = answer(
        capsys, "evaluate", "--checkpoint", tmp_path / "ssd.pth", "--head", "ssdlite",
        "--data", real("coco-tiny"), "--device", "cpu",
    )  # fmt: skip
    assert 0 <= found["AP"] < 10


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
        (["export", "/dev/null/emo.onnx"], ["/dev/null/emo.onnx cannot be written"]),
        (["train", "--randaugment", "foo"], ["randaugment='foo'", "rand-m9"]),
        (["train", "--seed", "-1"], ["seed=-1"]),
        (["train", "--weights", "/nowhere"], ["weights /nowhere"]),
        (["train", "--limit", "3"], ["limit=3", "detection"]),
        (["train", "--drop-path", "2"], ["drop_path=2"]),
        (["reproduce", "emo_6m", "--head", "ssdlite", "--data", "."], ["emo-6m-ssdlite"]),
        (["data", "verify", "coko"], ["coko", "coco"]),
    ],
)
def test_wrong_input_is_one_line_that_says_what_would_be_right(
    argv, words, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    message = answer(capsys, *argv, code=2)
    last = message.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "Traceback" not in message
    for word in words:
        assert word in last
    assert not list(tmp_path.iterdir())  # nothing is begun, no folder of a run is made


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
        "import importlib.util\n"
        "for _ in range(2): assert importlib.util.find_spec('timm') is not None\n"
        "assert 'timm' not in sys.modules\n"
        "import timm\n"
        "assert not any(type(f).__name__ == '_AfterTimm' for f in sys.meta_path)\n"
        "assert timm.create_model('emo_5m', features_only=True).feature_info.channels()[-1] == 288"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
