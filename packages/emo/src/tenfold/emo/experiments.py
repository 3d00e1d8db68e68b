"""Whole runs: train in a run folder, load one, evaluate, predict, reproduce a published row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import nn

from tenfold.emo.data.images import eval_transform, open_image
from tenfold.emo.model.backbone import MODELS
from tenfold.emo.model.checkpoints import load_checkpoint
from tenfold.emo.settings import TrainConfig
from tenfold.emo.tasks import Task, task
from tenfold.emo.training import train, write_weights
from tenfold.shared import compute
from tenfold.shared.config import load_recipe, recipes, to_json
from tenfold.shared.errors import InputError, did_you_mean
from tenfold.shared.files import write_atomic
from tenfold.shared.progress import message
from tenfold.shared.report import Report
from tenfold.shared.runs import Measurement, Run

Which = Literal["best", "last", "net"]
"""Weights of a run: those of its best epoch, of its last one (averaged where there is an average),
or the raw ones of the last. Of a checkpoint file: `net`, else the averaged ones if it has them."""


def paper_config(model: str, head: str = "linear") -> TrainConfig:
    """Gives the recipe of a published row.

    Args:
        model: A model of this package.
        head: linear (ImageNet), or that of a detector or segmentor.

    Raises:
        InputError: If the papers have no such row.
    """
    name = f"{model.replace('_', '-')}-{'imagenet' if head == 'linear' else head}"
    known = [r for r in recipes("emo") if r.startswith("emo")]
    if name not in known:
        raise InputError(did_you_mean(name, known, kind="recipe of a published row"))
    return load_recipe(TrainConfig, "emo", name)


def train_run(
    config: TrainConfig, recipe: str | None = None, output: Path = Path("runs")
) -> tuple[Run, dict[str, Any]]:
    """Trains in a new run folder.

    Args:
        config: The run.
        recipe: The recipe's name, for the folder.
        output: The folder of all runs.
    """
    job = task(config)
    if config.task != "classification" and config.weights is None:
        frozen = "; its BatchNorm statistics stay as they are" if config.task == "detection" else ""
        if config.head == "retinanet":
            frozen += ", and its stem and stage 1 are frozen"
        message(f"no --weights: the backbone begins with random weights{frozen}")
    fabric = compute.fabric(config.device, config.devices, config.num_nodes, config.precision)
    return _go_on(Run.create("emo", recipe, config, output), job, fabric)


def resume_run(folder: Path, given: TrainConfig) -> tuple[Run, dict[str, Any]]:
    """Goes on with an interrupted run, from its last whole checkpoint.

    Args:
        folder: The run's folder.
        given: The options of the command line; the run keeps its own.

    Raises:
        InputError: If it is finished already, or options were given.
    """
    run, config = Run.resume(folder, given)
    job = task(config)
    fabric = compute.fabric(config.device, config.devices, config.num_nodes, config.precision)
    return _go_on(run, job, fabric)


def _go_on(run: Run, job: Task, fabric: Any) -> tuple[Run, dict[str, Any]]:
    config = job.config
    if fabric.is_global_zero:
        write_atomic(run.folder / "classes.json", to_json(job.names))
    _, average, result = train(job, fabric, run)
    if average is not None:
        write_weights(average, run.folder / "ema.safetensors")
    run.finish({"results": measurements(config, result["best"]), **result})
    if fabric.is_global_zero:
        report = Report(f"{config.model}, {config.head} on {Path(config.data).stem}")
        report.table([result["best"]], caption="The best epoch; `ema_` are the averaged weights")
        report.picture(_curves(run), "curves", "Loss and metric over the epochs")
        report.config(config)
        report.write(run.folder / "report.html")
    return run, result


def measurements(config: TrainConfig, metrics: dict[str, Any]) -> list[Measurement]:
    """Gives the metrics of a run under the names of `published.toml`."""
    method = config.model.replace("emo2_", "EMOv2-").replace("emo_", "EMO-").upper()
    method = method.replace("EMOV2", "EMOv2")
    if config.task != "classification":
        method += f" {config.head}"
    names = {"top1": "top-1", "top5": "top-5"}
    rows = []
    for name, value in metrics.items():
        key = name.removeprefix("ema_")
        if key in ("loss", "learning_rate") or value != value:
            continue
        protocol = "ema" if name.startswith("ema_") else "net"
        rows.append(
            Measurement(
                dataset=Path(config.data).stem,
                method=method,
                metric=names.get(key, key),
                value=value,
                protocol=protocol,
            )
        )
    return rows


def _curves(run: Run) -> Any:
    from matplotlib.figure import Figure

    lines = run.metrics()
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([r["epoch"] for r in lines], [r["loss"] for r in lines])
    left.set(xlabel="epoch", ylabel="training loss")
    for name in ("top1", "ema_top1", "AP", "ema_AP", "mIoU", "ema_mIoU"):
        rows = [r for r in lines if r.get(name) is not None]
        if rows:
            right.plot([r["epoch"] for r in rows], [r[name] for r in rows], label=name)
    right.set(xlabel="epoch", ylabel="%")
    right.legend()
    return figure


def load_run(
    folder: Path | str, which: Which = "best", data: Path | None = None
) -> tuple[Task, nn.Module]:
    """Loads the task and the network of a run.

    Args:
        folder: The run's folder.
        which: `best` for the weights of the best epoch, `last` for those of the last (averaged
            where there is an average), `net` for the raw ones of the last.
        data: The data, if it lies elsewhere than in the training.

    Raises:
        InputError: If there is no checkpoint yet.
    """
    run = Run.open(folder)
    # Whatever the training began with is no longer needed, and may be gone.
    config = replace(run.config(TrainConfig), weights=None)
    job = task(config if data is None else replace(config, data=str(data)))
    source: Any = run.folder / "best.safetensors"
    if which != "best" or not source.is_file():
        saved = run.load()
        if saved is None or which == "best":
            raise InputError(f"{folder} has no {'evaluated epoch' if saved else 'checkpoint'} yet")
        weights, state, _ = saved
        source = state.get("average", weights) if which == "last" else weights
    made = job.model()
    load_checkpoint(made, source)
    return job, made.eval()


def evaluate_run(
    folder: Path, which: Which = "best", device: str = "auto", data: Path | None = None
) -> tuple[TrainConfig, dict[str, float]]:
    """Measures a run's network on its validation data.

    Args:
        folder: The run's folder.
        which: As in `load_run`.
        device: auto, cpu, cuda or mps.
        data: As in `load_run`.

    Returns:
        The run's configuration and the metrics.
    """
    job, model = load_run(folder, which, data)
    fabric = compute.fabric(device)
    return job.config, job.evaluate(model.to(fabric.device), fabric)


def evaluate_checkpoint(
    config: TrainConfig, checkpoint: Path, which: Which = "best", device: str = "auto"
) -> dict[str, float]:
    """Measures the network of a checkpoint file on a run's validation data.

    Args:
        config: The run; `data`, `model`, `head`, `window` and the like count.
        checkpoint: The weights of the whole network, its head included.
        which: `net` for the raw weights, else the averaged ones where the file has them.
        device: auto, cpu, cuda or mps.
    """
    job, fabric = task(replace(config, weights=None)), compute.fabric(device)
    made = job.model()
    load_checkpoint(made, checkpoint, "net" if which == "net" else "ema")
    return job.evaluate(made.to(fabric.device).eval(), fabric)


def classifier(
    model: str, checkpoint: Path | None, which: Which, classes: Path | None, size: int | None
) -> tuple[nn.Module, list[str], int, float]:
    """Gives a classifier from a run folder, or from a model's name and a checkpoint.

    Args:
        model: A model's name, or the folder of a run.
        checkpoint: The weights, for a name.
        which: As in `load_run`; of a file `net`, else the averaged weights if it has them.
        classes: A text file with a name a line; by default the run's, else numbers.
        size: Side of the image; by default the run's, else 224.

    Returns:
        The network in eval mode, the names, the size, the crop's share.

    Raises:
        InputError: If the model is unknown, has no weights, or the number of names is another.
    """
    if Path(model).is_dir():
        config = Run.open(model).config(TrainConfig)
        if config.task != "classification":
            raise InputError(f"{model} is a run of the task {config.task}, expected classification")
        if config.in_chans != 3:
            raise InputError(f"{model} takes {config.in_chans} channels; pictures are read as RGB")
        job, made = load_run(model, which)
        names, crop, default = job.names, config.crop, config.image_size
    else:
        if model not in MODELS:
            raise InputError(f"{did_you_mean(model, MODELS, kind='model')}; or a run's folder")
        if checkpoint is None:
            raise InputError(
                f"model {model!r} has no weights here, and none can be fetched: give --checkpoint "
                "FILE, or the folder of a run"
            )
        from tenfold.emo.model.checkpoints import read_checkpoint

        kind: Literal["ema", "net"] = "net" if which == "net" else "ema"
        weights = read_checkpoint(checkpoint, kind)
        count = weights["head.bias"].numel() if "head.bias" in weights else 1000
        made = timm.create_model(model, num_classes=count).eval()
        load_checkpoint(made, checkpoint, kind)  # by its path, which an error then names
        names, crop, default = [str(k) for k in range(count)], 0.875, 224
    if classes is not None:
        if not classes.is_file():
            raise InputError(f"classes {classes}: there is no such file")
        given = [line for line in classes.read_text(encoding="utf-8").splitlines() if line]
        if len(given) != len(names):
            raise InputError(
                f"{classes} has {len(given)} names, but the model {len(names)} classes"
            )
        names = given
    return made, names, size or default, crop


@torch.inference_mode()
def predict(
    model: nn.Module,
    paths: Sequence[Path],
    names: Sequence[str],
    size: int,
    crop: float = 0.875,
    top: int = 5,
    batch_size: int = 8,
) -> list[dict[str, Any]]:
    """Classifies pictures.

    Args:
        model: The classifier; it is optimised for inference first.
        paths: The pictures.
        names: The names of the classes.
        size: Side of the crop.
        crop: Its share of the shorter side.
        top: How many classes to give.
        batch_size: Pictures at once.

    Returns:
        For each picture `file` and `top`, a list of `class`, `index` and `probability`.
    """
    from tenfold.emo.inference import optimize_for_inference

    fast = optimize_for_inference(model)
    transform = eval_transform(size, crop)
    rows: list[dict[str, Any]] = []
    for at in range(0, len(paths), batch_size):
        part = paths[at : at + batch_size]
        logits = fast(torch.stack([transform(open_image(path)) for path in part]))
        values, indices = logits.softmax(1).topk(min(top, logits.shape[1]))
        for path, p, k in zip(part, values.tolist(), indices.tolist(), strict=True):
            best = [
                {"class": names[i], "index": i, "probability": v} for i, v in zip(k, p, strict=True)
            ]
            rows.append({"file": path, "top": best})
    return rows
