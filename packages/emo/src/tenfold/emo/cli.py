"""The command line: `tenfold emo VERB`. Each verb parses, calls, and returns what was found."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App

from tenfold.emo.settings import TrainConfig
from tenfold.shared.cli import FLAT, Outcome, Recipe, package_app, table
from tenfold.shared.errors import InputError, did_you_mean
from tenfold.shared.progress import message

app = package_app("emo", help="EMO and EMOv2: mobile vision backbones (ICCV 2023).")
data_app = App(name="data", help="Lists, fetches and verifies the data sets.", version_flags=())
app.command(data_app)

Which = Literal["ema", "net"]


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
    recipe: Recipe = None,
    resume: Path | None = None,
    output: Path = Path("runs"),
) -> Outcome:
    """Trains a classifier, detector or segmentor.

    Args:
        config: The run.
        recipe: A recipe of this package, or a TOML file.
        resume: The folder of an interrupted run; its own configuration is used.
        output: The folder of all runs.
    """
    from tenfold.emo.experiments import resume_run, train_run

    run, result = resume_run(resume, config) if resume else train_run(config, recipe, output)
    message(f"run: {run.folder}")
    return Outcome({"run": run.folder, **result}, view=table([result["best"]]))


@app.command
def evaluate(run: Path | None = None, *, which: Which = "ema", device: str = "auto") -> Outcome:
    """Measures a run's network on its validation data.

    Args:
        run: The run's folder; by default the newest.
        which: ema for the averaged weights, net for the raw ones.
        device: auto, cpu, cuda or mps.
    """
    from tenfold.emo.experiments import evaluate_run
    from tenfold.shared.runs import Run

    folder = run if run is not None else Run.latest("emo").folder
    return Outcome({"run": folder, "which": which, **evaluate_run(folder, which, device)})


@app.command
def predict(
    *images: Path,
    model: str,
    checkpoint: Path | None = None,
    which: Which = "ema",
    classes: Path | None = None,
    size: int | None = None,
    top: int = 5,
) -> Outcome:
    """Classifies pictures: files and folders in, the best classes out.

    Args:
        images: Pictures, or folders that are searched through.
        model: The folder of a run, or a model's name together with --checkpoint.
        checkpoint: Weights: .safetensors, or a file of torch.save (net_E, net, or bare).
        which: ema for averaged weights where there are any, net for the raw ones.
        classes: A text file with the name of a class in each line.
        size: Side of the image.
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
    which: Which = "ema",
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
        which: ema for averaged weights where there are any, net for the raw ones.
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
    model: Literal["emo_1m", "emo_2m", "emo_5m", "emo_6m"] = "emo_1m",
    *,
    data: Path,
    checkpoint: Path | None = None,
    device: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    batch_size: int = 256,
    workers: int = 8,
    output: Path = Path("runs"),
) -> Outcome:
    """Puts paper and here side by side for ImageNet: by a checkpoint, or by the whole training.

    Args:
        model: The model.
        data: ImageNet, with train/<synset>/ and val/<synset>/.
        checkpoint: Evaluates these weights; without it, 300 epochs are trained first.
        device: auto, cpu, cuda or mps.
        devices: Devices on each machine; the recipe's rate is for 2048 images a step.
        num_nodes: Machines.
        batch_size: Images a step on each device.
        workers: Data workers of each process.
        output: The folder of all runs.
    """
    import dataclasses

    from tenfold.emo.experiments import measurements, train_run
    from tenfold.emo.model.checkpoints import load_checkpoint
    from tenfold.emo.tasks import task
    from tenfold.shared import compute
    from tenfold.shared.config import load_recipe
    from tenfold.shared.published import compare, published
    from tenfold.shared.runs import Run

    config = dataclasses.replace(
        load_recipe(TrainConfig, "emo", f"{model.replace('_', '-')}-imagenet"),
        data=str(data),
        device=device,
        devices=devices,
        num_nodes=num_nodes,
        batch_size=batch_size,
        workers=workers,
    )
    if checkpoint is None:
        run, result = train_run(config, "reproduce", output)
        metrics = {k: v for k, v in result["best"].items() if k.startswith("ema_")}
    else:
        job, fabric = task(config), compute.fabric(device)
        made = job.model()
        load_checkpoint(made, checkpoint)
        metrics = {
            f"ema_{k}": v for k, v in job.evaluate(made.to(fabric.device).eval(), fabric).items()
        }
        run = Run.create("emo", "reproduce", config, output)
    rows = [dataclasses.replace(row, dataset="imagenet") for row in measurements(config, metrics)]
    run.finish({"results": rows})
    comparison = compare(published("emo"), rows)
    return Outcome(
        {"run": run.folder, "results": rows, "comparison": comparison}, view=table(comparison)
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
