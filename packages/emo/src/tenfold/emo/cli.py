"""The command line: `tenfold emo VERB`. Each verb parses, calls, and returns what was found."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App

from tenfold.emo.settings import TrainConfig
from tenfold.shared.cli import FLAT, Outcome, package_app, table
from tenfold.shared.errors import InputError, did_you_mean
from tenfold.shared.progress import message

app = package_app("emo", help="EMO and EMOv2: mobile vision backbones (ICCV 2023).")
data_app = App(name="data", help="Lists, fetches and verifies the data sets.", version_flags=())
app.command(data_app)

Which = Literal["best", "last", "net"]
Head = Literal["linear", "ssdlite", "retinanet", "deeplabv3", "pspnet", "semantic-fpn", "segformer"]


@app.command
def demo(*, output: Path = Path("runs/emo/demo")) -> Outcome:
    """Trains a small EMO on scikit-learn's digits, in well under a minute.

    Args:
        output: The folder for the report and its pictures.
    """
    from tenfold.emo.demonstration import demo as run_demo

    made, found = run_demo(output)
    message(f"report: {made.report}")
    return Outcome({"demo": made, **found}, view=table([made.row()]))


@app.command
def train(
    *,
    config: Annotated[TrainConfig, FLAT] = TrainConfig(),
    recipe: str | None = None,
    resume: Path | None = None,
    output: Path = Path("runs"),
) -> Outcome:
    """Trains a classifier, detector or segmentor.

    The recipes: digits and cifar10; emo-{1m,2m,5m,6m}-imagenet and emo2-{1m,2m,5m}-imagenet;
    emo-{1m,2m,5m}-HEAD for the heads ssdlite, retinanet, deeplabv3, pspnet, semantic-fpn and
    segformer.

    Args:
        config: The run.
        recipe: One of the recipes above, or a TOML file.
        resume: The folder of an interrupted run; its own configuration is used.
        output: The folder of all runs.
    """
    from tenfold.emo.experiments import resume_run, train_run

    run, result = resume_run(resume, config) if resume else train_run(config, recipe, output)
    message(f"run: {run.folder}")
    return Outcome({"run": run.folder, **result}, view=table([result["best"]]))


@app.command
def evaluate(
    run: Path | None = None,
    *,
    checkpoint: Path | None = None,
    model: str = "emo_1m",
    head: Head = "linear",
    data: Path | None = None,
    which: Which = "best",
    device: str = "auto",
    batch_size: int | None = None,
    workers: int = 0,
) -> Outcome:
    """Measures the network of a run, or of a checkpoint file, on validation data.

    Args:
        run: The run's folder; by default the newest.
        checkpoint: Instead of a run: the weights of a whole network, its head included.
        model: The checkpoint's model; its recipe in the paper says how it is evaluated.
        head: The checkpoint's head.
        data: The data; by default the run's, or the one that the recipe names.
        which: best for the best epoch, last for the last one (averaged weights where there are
            any), net for the raw weights of the last; of a file net, else the averaged ones.
        device: auto, cpu, cuda or mps.
        batch_size: Of a checkpoint's evaluation; by default the recipe's, at most 64.
        workers: Data workers of a checkpoint's evaluation.
    """
    import dataclasses

    from tenfold.emo.experiments import evaluate_checkpoint, evaluate_run, paper_config
    from tenfold.shared.runs import Run

    if checkpoint is None:
        folder = run if run is not None else Run.latest("emo").folder
        _, metrics = evaluate_run(folder, which, device, data)
        return Outcome({"run": folder, "which": which, **metrics})
    if run is not None:
        raise InputError(f"run {run} and --checkpoint {checkpoint}; expected one of them")
    config = paper_config(model, head)
    config = dataclasses.replace(
        config,
        data=str(data or config.data),
        workers=workers,
        batch_size=batch_size or min(config.batch_size, 64),
    )
    metrics = evaluate_checkpoint(config, checkpoint, which, device)
    return Outcome({"checkpoint": checkpoint, "model": model, "head": head, **metrics})


@app.command
def predict(
    *images: Path,
    model: str,
    checkpoint: Path | None = None,
    which: Which = "best",
    classes: Path | None = None,
    size: int | None = None,
    top: int = 5,
) -> Outcome:
    """Classifies pictures: files and folders in, the best classes out.

    Args:
        images: Pictures, or folders that are searched through.
        model: The folder of a run, or a model's name together with --checkpoint.
        checkpoint: Weights: .safetensors, or a file of torch.save (net_E, net, or bare).
        which: Of a run best, last (averaged weights where there are any) or net (the raw ones of
            the last epoch); of a file net, else the averaged weights where there are any.
        classes: A text file with the name of a class in each line.
        size: Side of the image; by default the run's, for a model's name 224.
        top: How many classes to give.
    """
    from tenfold.emo.data.images import find_images
    from tenfold.emo.experiments import classifier
    from tenfold.emo.experiments import predict as predict_images

    if not images:
        raise InputError("no images given; expected files or folders")
    if top < 1:
        raise InputError(f"top={top}; expected >= 1")
    if size is not None and size < 1:
        raise InputError(f"size={size}; expected >= 1")
    paths = find_images(images)
    made, names, side, crop = classifier(model, checkpoint, which, classes, size)
    rows = predict_images(made, paths, names, side, crop, top)
    shown = [
        {"file": row["file"], **{
            str(i + 1): f"{best['class']} ({best['probability']:.2f})"
            for i, best in enumerate(row["top"])
        }}
        for row in rows
    ]  # fmt: skip
    return Outcome({"images": rows}, view=table(shown))


def _classifier(model: str, checkpoint: Path | None, which: Which) -> Any:
    """Gives a run's classifier, or a named model, with fresh weights if there is no checkpoint."""
    import timm

    from tenfold.emo.experiments import classifier
    from tenfold.emo.model.backbone import MODELS

    if checkpoint is None and not Path(model).is_dir():
        if model not in MODELS:
            raise InputError(f"{did_you_mean(model, MODELS, kind='model')}; or a run's folder")
        return timm.create_model(model).eval()
    return classifier(model, checkpoint, which, None, None)[0]


@app.command
def export(
    output: Path,
    *,
    model: str = "emo_1m",
    checkpoint: Path | None = None,
    which: Which = "best",
    format: Literal["onnx", "onnx-int8", "torch", "executorch", "coreml"] | None = None,
    size: int = 224,
    fixed: bool = False,
    calibration: Path | None = None,
) -> Outcome:
    """Exports the true network and compares the file's output with eager.

    Args:
        output: The file: .onnx, .pt2 (torch.export), .pte (ExecuTorch), .mlpackage (Core ML).
        model: The folder of a run, or a model's name.
        checkpoint: Weights for a name; without them the network has fresh ones.
        which: As in predict.
        format: By default that of the file's ending; onnx-int8 is quantised.
        size: Side of the image.
        fixed: Only this size and batch 1, instead of any.
        calibration: Pictures that give the range of the activations for onnx-int8.
    """
    import torch

    from tenfold.emo.data.images import eval_transform, find_images, open_image
    from tenfold.emo.export import export as export_model

    images = None
    if calibration is not None:
        transform = eval_transform(size)
        images = torch.stack([transform(open_image(p)) for p in find_images([calibration])])
    made = _classifier(model, checkpoint, which)
    difference = export_model(made, output, format, size, not fixed, calibration=images)
    if checkpoint is None and not Path(model).is_dir():
        message("the weights are fresh: give --checkpoint, or the folder of a run")
    return Outcome({"output": output, "largest_difference": difference})


@app.command
def profile(model: str = "emo_1m", *, size: int = 224, window: int | None = None) -> Outcome:
    """Counts parameters and operations of each stage, in both conventions.

    Args:
        model: A model's name, of this package or any other in timm.
        size: Side of the image.
        window: Side of an attention group; by default the model's.
    """
    import timm

    from tenfold.emo.model.backbone import MODELS
    from tenfold.emo.profiling import profile as count

    if not timm.is_model(model):
        raise InputError(did_you_mean(model, timm.list_models("emo*"), kind="model"))
    if window is not None and model not in MODELS:
        raise InputError(f"window={window}; {model} has no windows, only the models emo* have")
    options: dict[str, Any] = {} if window is None else {"window": window}
    rows = count(timm.create_model(model, **options), size)
    shown = [
        {
            "part": row.part or "all",
            "parameters": row.parameters,
            "MACs": row.macs,
            "FLOPs (fvcore)": row.flops,
        }
        for row in rows
    ]
    return Outcome({"model": model, "size": size, "parts": rows}, view=table(shown))


@app.command
def bench(
    *models: str,
    batches: list[int] = [1, 8],  # noqa: B006 - cyclopts shows it
    threads: int = 1,
    repeats: int = 10,
    compiled: bool = False,
    native: bool = False,
) -> Outcome:
    """Measures latency on this CPU: the plain network and the optimised one, in turn.

    Args:
        models: Names, of this package or any other in timm; by default emo_1m.
        batches: Batch sizes.
        threads: Threads of torch.
        repeats: Runs of each; the median counts.
        compiled: Whether torch.compile is measured too (needs a C++ compiler, takes minutes).
        native: Whether EMO is measured with its own kernels too (needs a C++ compiler).
    """
    from tenfold.emo.latency import compare

    rows = compare(models or ("emo_1m",), batches, threads, repeats, compiled, native)
    return Outcome({"threads": threads, "rows": rows}, view=table(rows))


@app.command
def reproduce(
    model: str = "emo_1m",
    *,
    data: Path,
    head: Head = "linear",
    checkpoint: Path | None = None,
    run: Path | None = None,
    weights: Path | None = None,
    device: str = "auto",
    devices: int | None = None,
    num_nodes: int = 1,
    batch_size: int | None = None,
    workers: int | None = None,
    output: Path = Path("runs"),
) -> Outcome:
    """Puts paper and here side by side for a row of ImageNet, COCO or ADE20K.

    By a checkpoint of the whole network, by a finished run, or by the recipe's whole training.

    Args:
        model: The model: emo_1m, emo_2m, emo_5m, emo_6m, emo2_1m, emo2_2m, emo2_5m.
        data: ImageNet, COCO or ADE20K (the folder ADEChallengeData2016).
        head: linear for ImageNet; ssdlite, retinanet for COCO; deeplabv3, pspnet, semantic-fpn,
            segformer for ADE20K.
        checkpoint: Evaluates these weights of the whole network.
        run: Evaluates the best epoch of this run's folder.
        weights: For the training of a detector or segmentor: the classifier to start from.
        device: auto, cpu, cuda or mps.
        devices: Devices on each machine for the training; by default the recipe's.
        num_nodes: Machines.
        batch_size: Images a step on each device; by default the recipe's.
        workers: Data workers of each process; by default the recipe's.
        output: The folder of all runs.
    """
    import dataclasses

    from tenfold.emo.experiments import (
        evaluate_checkpoint,
        evaluate_run,
        measurements,
        paper_config,
        train_run,
    )
    from tenfold.shared.published import compare, published
    from tenfold.shared.runs import Run

    if checkpoint is not None and run is not None:
        raise InputError(f"--checkpoint {checkpoint} and --run {run}; expected one of them")
    config = paper_config(model, head)
    config = dataclasses.replace(
        config,
        data=str(data),
        weights=weights,
        device=device,
        devices=devices or config.devices,
        num_nodes=num_nodes,
        batch_size=batch_size or config.batch_size,
        workers=config.workers if workers is None else workers,
    )
    averaged = "ema_" if config.ema else ""
    if run is not None:
        trained, metrics = evaluate_run(run, "best", device, data)
        if (trained.model, trained.head) != (model, head):
            raise InputError(
                f"{run} is a run of {trained.model} with the head {trained.head}, expected {model} "
                f"with {head}"
            )
        averaged = "ema_" if trained.ema else ""
    elif checkpoint is not None:
        metrics = evaluate_checkpoint(config, checkpoint, "best", device)
    else:
        made, result = train_run(config, "reproduce", output)
        metrics = {
            k.removeprefix(averaged): v
            for k, v in result["best"].items()
            if not averaged or k.startswith(averaged)
        }
    metrics = {averaged + name: value for name, value in metrics.items()}
    rows = measurements(config, metrics)
    dataset = {"classification": "imagenet", "detection": "coco", "segmentation": "ade20k"}
    rows = [dataclasses.replace(row, dataset=dataset[config.task]) for row in rows]
    if checkpoint is not None or run is not None:
        made = Run.create("emo", "reproduce", config, output)
    made.finish({"results": rows})
    comparison = compare(published("emo"), rows)
    return Outcome(
        {"run": made.folder, "results": rows, "comparison": comparison}, view=table(comparison)
    )


@data_app.command(name="list")
def list_data() -> Outcome:
    """Lists the data sets: where each is looked for and whether it is there."""
    from tenfold.emo.data.catalogue import CATALOGUE
    from tenfold.shared.datasets import data_root, status

    rows = [
        {
            "name": name,
            "title": dataset.title,
            "state": "missing" if any(f.state == "missing" for f in status(dataset)) else "there",
            "folder": data_root() / dataset.folder,
            "licence": dataset.licence,
            "homepage": dataset.homepage,
        }
        for name, dataset in CATALOGUE.items()
    ]
    return Outcome({"datasets": rows}, view=table(rows))


@data_app.command
def shards(
    source: Path,
    output: Path,
    *,
    splits: list[str] = ["train", "val"],  # noqa: B006 - cyclopts shows it
    per_shard: int = 1000,
) -> Outcome:
    """Writes tar shards that train reads: SPLIT-000000.tar, …, classes.txt.

    Args:
        source: A folder or zip with SPLIT/CLASS/ pictures, such as ImageNet.
        output: The folder of the shards.
        splits: Which splits; the first one's classes count.
        per_shard: Pictures in each shard.
    """
    from tenfold.emo.data.images import ImageFolder, eval_transform
    from tenfold.emo.data.shards import write_shards

    classes, rows = None, []
    for split in splits:
        pictures = ImageFolder(source, split, eval_transform(224), classes=classes)
        classes = pictures.classes
        made = write_shards(pictures, output, split, per_shard)
        rows.append({"split": split, "shards": len(made), "samples": len(pictures)})
    return Outcome({"folder": output, "splits": rows}, view=table(rows))


@data_app.command
def fetch(name: str, *, accept_licence: bool = False) -> Outcome:
    """Downloads a data set from its official address and unpacks it.

    Args:
        name: The data set.
        accept_licence: Your word that you accept its licence.
    """
    from tenfold.shared.datasets import fetch as fetch_files

    return Outcome({"folder": fetch_files(_dataset(name), accept_licence)})


@data_app.command
def verify(name: str) -> Outcome:
    """Says for each file of a data set whether it is there, and whether the numbers are right.

    Args:
        name: The data set.
    """
    from tenfold.emo.data.catalogue import count
    from tenfold.shared.datasets import verify as verify_files

    dataset = _dataset(name)
    files = verify_files(dataset)
    missing = any(f.state in ("missing", "wrong hash") for f in files)
    counts = [] if missing else count(name)
    wrong = missing or any(row["found"] != row["expected"] for row in counts)
    return Outcome({"files": files, "counts": counts}, exit_code=int(wrong))


def _dataset(name: str) -> Any:
    from tenfold.emo.data.catalogue import CATALOGUE

    if name not in CATALOGUE:
        raise InputError(did_you_mean(name, CATALOGUE, kind="data set"))
    return CATALOGUE[name]
