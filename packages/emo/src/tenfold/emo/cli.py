"""The verbs of `tenfold emo`: parse, call, report."""

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App

from tenfold.emo.data import COUNTS, DATASETS, Split, counts, load
from tenfold.emo.evaluation import evaluate as score
from tenfold.emo.evaluation import predict, summarise
from tenfold.emo.model import SoftmaxRegression
from tenfold.emo.training import TrainConfig
from tenfold.emo.training import train as fit
from tenfold.shared import datasets
from tenfold.shared.cli import FLAT, Outcome, Recipe, package_app, table
from tenfold.shared.config import load_recipe
from tenfold.shared.errors import InputError, did_you_mean
from tenfold.shared.progress import message
from tenfold.shared.published import compare, published
from tenfold.shared.report import DemoResult, Report
from tenfold.shared.runs import Measurement, Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "emo"
PAPER = "Rethinking Mobile Block for Efficient Attention-based Models"

app = package_app(NAME, help=PAPER)
data = App(name="data", help="Lists, fetches and verifies the data sets.", version_flags=())
app.command(data)


@app.command
def train(
    *,
    config: Annotated[TrainConfig, FLAT] = TrainConfig(),
    recipe: Recipe = None,
    resume: Path | None = None,
    output: Path = Path("runs"),
) -> Outcome:
    """Trains on one data set and evaluates the result.

    Args:
        config: What to train on and how.
        recipe: Values for the options that are not given.
        resume: The folder of an interrupted run to go on with; its own configuration counts.
        output: The folder of all runs.
    """
    run = Run.open(resume) if resume else Run.create(NAME, recipe, config, root=output)
    if run.finished:
        raise InputError(f"{run.folder} is finished; see {run.folder / 'report.html'}")
    config = run.config(TrainConfig)
    model = fit(config, run)
    split = load(config.dataset)
    measured = summarise(config.dataset, [score(model, split.test)])
    rows = _write_report(run, config, model, split, measured)
    run.finish({"results": measured})
    return Outcome({"run": run.folder, "report": run.folder / "report.html", "results": rows})


@app.command
def evaluate(run: Path, /) -> Outcome:
    """Evaluates a run by the protocol and puts the numbers beside the paper's.

    Args:
        run: The folder of the run.
    """
    opened = Run.open(run)
    config = opened.config(TrainConfig)
    saved = opened.load()
    if saved is None:
        raise InputError(f"{run} has no checkpoint yet; go on with `train --resume {run}`")
    split = load(config.dataset)
    model = SoftmaxRegression(split.train.x.shape[1], split.classes)
    model.load_state_dict(saved[0])
    measured = summarise(config.dataset, [score(model.eval(), split.test)])
    return Outcome({"epoch": saved[2], "results": compare(published(NAME), measured)})


@app.command
def reproduce(*, recipe: str = "digits", seeds: int = 5, output: Path = Path("runs")) -> Outcome:
    """Runs the whole protocol, all seeds, and shows paper / here / difference.

    Args:
        recipe: The recipe.
        seeds: How many seeds, from 0 on.
        output: The folder of all runs.
    """
    if seeds < 1:
        raise InputError(f"--seeds must be at least 1, got {seeds}")
    config = load_recipe(TrainConfig, NAME, recipe)
    run = Run.create(NAME, f"reproduce-{Path(recipe).stem}", config, root=output)
    split = load(config.dataset)
    scores = []
    for seed in range(seeds):
        model = fit(dataclasses.replace(config, seed=seed))
        scores.append(score(model, split.test))
        run.log(epoch=seed, **scores[-1])
    measured = summarise(config.dataset, scores)
    run.finish({"results": measured, "seeds": seeds})
    return Outcome({"run": run.folder, "results": compare(published(NAME), measured)})


@app.command
def demo(*, output: Path = Path("runs", NAME, "demo")) -> Outcome:
    """Shows the main result in small, with pictures; a second or two, no network.

    Args:
        output: The folder for the report.
    """
    started = time.perf_counter()
    config = load_recipe(TrainConfig, NAME, "digits")
    split = load(config.dataset)
    model = fit(config)
    scores = score(model, split.test)
    report = Report(f"{PAPER}: demo", "the template's stand-in, not the paper's method")
    report.table([scores], caption="Test images of the digits, per cent")
    report.picture(_confusion(model, split), "confusion", "Classes: true (rows) and predicted")
    report.picture(_weights(model), "weights", "The weights of each class")
    report.config(config)
    page = report.write(output / "report.html")
    result = DemoResult(
        paper=f"{NAME} (arXiv:2301.01146)",
        task="classification (stand-in)",
        data=f"digits, {COUNTS['digits']['samples']:,} images",
        metric="ACC, %",
        value=scores["ACC"],
        seconds=time.perf_counter() - started,
        note="The template's stand-in model; the paper's method is not implemented yet.",
        pictures=[
            (output / "confusion.png", "Classes: true (rows) and predicted"),
            (output / "weights.png", "The weights of each class"),
        ],
        report=page,
    )
    content = {"demo": result, "scores": scores, "report": page}
    message(f"report: {page}")
    return Outcome(content, view=table([result.row()]))


@data.command(name="list")
def list_data() -> Outcome:
    """Lists the data sets and says where each is looked for."""
    rows = [
        {
            "name": item.name,
            "title": item.title,
            **COUNTS[item.name],
            "folder": datasets.data_root() / item.folder if item.files else "(in scikit-learn)",
            "missing": [file.file for file in datasets.status(item) if file.state == "missing"],
            "licence": item.licence,
        }
        for item in DATASETS.values()
    ]
    return Outcome({"datasets": rows})


@data.command
def fetch(*names: str, accept_licence: bool = False) -> Outcome:
    """Downloads data sets and checks them.

    Args:
        names: The data sets; by default all of them.
        accept_licence: Accept the licence of a data set that asks for it.
    """
    chosen = [item for item in _datasets(names) if item.files]
    return Outcome({"folders": {d.name: datasets.fetch(d, accept_licence) for d in chosen}})


@data.command
def verify(*names: str) -> Outcome:
    """Checks data sets: checksums and counts.

    Args:
        names: The data sets; by default all of them.
    """
    rows = []
    for item in _datasets(names):
        files = [file for file in datasets.verify(item) if file.state != "ok"]
        wrong = [f"{file.file}: {file.state}" for file in files]
        if not wrong and counts(item.name) != COUNTS[item.name]:
            wrong = [f"counts {counts(item.name)}, expected {COUNTS[item.name]}"]
        rows.append({"name": item.name, "ok": not wrong, "problem": "; ".join(wrong)})
    return Outcome({"datasets": rows}, exit_code=int(not all(row["ok"] for row in rows)))


def _datasets(names: tuple[str, ...]) -> list[datasets.Dataset]:
    """Finds data sets by their names; all of them without names."""
    for name in names:
        if name not in DATASETS:
            raise InputError(did_you_mean(name, DATASETS, kind="data set"))
    return [DATASETS[name] for name in names or DATASETS]


def _write_report(
    run: Run,
    config: TrainConfig,
    model: SoftmaxRegression,
    split: Split,
    measured: list[Measurement],
) -> list[object]:
    """Writes a run's report and gives the rows of its table."""
    rows: list[object] = list(compare(published(NAME), measured))
    report = Report(f"{PAPER}: {config.dataset}", str(run.folder))
    report.table(rows, caption="Paper and here")
    report.picture(_curve(run), "loss", "The loss over the epochs")
    report.picture(_confusion(model, split), "confusion", "Classes: true (rows) and predicted")
    report.config(config)
    report.write(run.folder / "report.html")
    return rows


def _curve(run: Run) -> "Figure":
    """Draws the loss over the epochs."""
    from matplotlib.figure import Figure

    lines = run.metrics()
    figure = Figure(figsize=(5, 3))
    axes = figure.subplots()
    axes.plot([line["epoch"] for line in lines], [line["loss"] for line in lines])
    axes.set(xlabel="epoch", ylabel="loss")
    return figure


def _confusion(model: SoftmaxRegression, split: Split) -> "Figure":
    """Draws the confusion matrix of the test samples."""
    from matplotlib.figure import Figure
    from sklearn.metrics import ConfusionMatrixDisplay

    figure = Figure(figsize=(5, 4))
    true, predicted = split.test.y.numpy(), predict(model, split.test).numpy()
    axes = figure.subplots()
    ConfusionMatrixDisplay.from_predictions(true, predicted, ax=axes, colorbar=False)
    return figure


def _weights(model: SoftmaxRegression) -> "Figure":
    """Draws the weights of each class as an image of 8 × 8 pixels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5))
    weight = model.linear.weight.detach().reshape(-1, 8, 8).numpy()
    limit = abs(weight).max()
    for index, axes in enumerate(figure.subplots(2, 5).flat):
        axes.imshow(weight[index], cmap="RdBu", vmin=-limit, vmax=limit)
        axes.set(title=str(index), xticks=[], yticks=[])
    return figure
