"""The command line: `tenfold reliant VERB`. Each verb parses, calls, and returns what was found."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from tenfold.reliant.experiments import (
    SECONDS,
    SHOWN,
    ReproduceConfig,
    deployed_of,
    last_trained,
    measurements,
    method_of,
    opened,
    teacher_of,
    trade_off_curve,
    write_report,
)
from tenfold.reliant.experiments import reproduce as reproduce_table
from tenfold.reliant.experiments import train as train_model
from tenfold.reliant.training import TradeOffConfig, TrainConfig, name_of, score, what_was_used
from tenfold.shared.cli import FLAT, Outcome, Recipe, package_app, table
from tenfold.shared.datasets import Dataset
from tenfold.shared.errors import InputError, did_you_mean
from tenfold.shared.files import replacing
from tenfold.shared.progress import message
from tenfold.shared.runs import Run

app = package_app("reliant", help="RELIANT: fair knowledge distillation for graph networks.")
data_app = App(name="data", help="Lists, fetches and verifies the data sets.", version_flags=())
app.command(data_app)


@app.command
def demo(*, output: Path = Path("runs/reliant/demo")) -> Outcome:
    """Makes a student of a biased graph fairer than its teacher, in under a minute.

    A generated graph of 2,000 nodes, whose groups differ by 20 points in how often they have the
    label, is learned by a GCN teacher and distilled into PLP: plainly, and with RELIANT at several
    weights. Nothing is downloaded.

    Args:
        output: The folder for the report and its pictures.
    """
    from tenfold.shared.report import DemoResult

    started = time.perf_counter()
    base = TradeOffConfig(
        dataset="generated:2000",
        teacher_epochs=100,
        epochs=100,
        feature_dropout=0.5,
        device="cpu",
        alphas=DEMO_ALPHAS,
    )
    curve, result = trade_off_curve(base, cache=False)
    plain, fair = curve[0], curve[-1]
    title = "RELIANT on a generated graph with a label gap of 0.2"
    page, shown = write_report(output, result, curve, title=title)
    made = DemoResult(
        paper="RELIANT (SDM 2023)",
        task="fair distillation of graph networks",
        data="generated graph, 2,000 nodes, label gap 0.2",
        metric="dSP, less is fairer",
        value=fair["dSP"],
        seconds=time.perf_counter() - started,
        note=f"Plain distillation: dSP {plain['dSP']:.3f} at accuracy {plain['ACC']:.3f}; RELIANT: "
        f"{fair['dSP']:.3f} at {fair['ACC']:.3f}. The paper does not use this graph; no label or "
        "group outside of the training nodes was read.",
        pictures=shown,
        report=page,
    )
    message(f"report: {page}")
    rows = [{"method": f"teacher {base.teacher}", "alpha": None} | result.teacher_scores]
    rows += [{"method": "plain" if q["alpha"] == 0 else "RELIANT"} | q for q in curve]
    keys = ("method", "alpha", "ACC", "dSP", "dEO", "utility gap")
    view = table([{k: row.get(k) for k in keys} for row in rows])
    return Outcome({"demo": made, "methods": rows}, view=view)


DEMO_ALPHAS = (0.0, 10.0, 30.0, 100.0)


@app.command
def train(
    *,
    config: Annotated[TrainConfig, FLAT] = TrainConfig(),
    recipe: Recipe = None,
    resume: Path | None = None,
    output: Path = Path("runs"),
    fresh: bool = False,
) -> Outcome:
    """Trains a teacher, then a fair student; writes predictions, the student and a report.

    Both are kept in the cache folder of the user, and taken from there when nothing that they
    depend on has changed.

    Args:
        config: The run.
        recipe: A recipe of this package, or a TOML file.
        resume: The folder of an interrupted run; its own configuration is used.
        output: The folder of all runs.
        fresh: Train both even if they are in the cache.
    """
    started = time.perf_counter()
    run = None
    if resume is not None:
        run, config = Run.resume(resume, config)
    config, data = opened(config)

    def open_run() -> Run:
        nonlocal run
        run = run or Run.create("reliant", recipe or name_of(config), config, output)
        return run

    result = train_model(config, data, teacher_of(config, data, fresh), open_run, fresh)
    run = open_run()
    result.model.save(run.folder / "student.safetensors")
    _write_predictions(run.folder / "predictions.csv", data, result.probabilities)
    page, _ = write_report(run.folder, result)
    found = {
        "method": method_of(config),
        "mode": config.mode,
        "epoch": result.epoch,
        "scores": result.scores,
        "val": result.val,
        "teacher": result.teacher_scores,
        "used": what_was_used(config),
    }
    run.finish({"results": measurements(config, result.scores), **found})
    seconds = round(time.perf_counter() - started, 2)
    message(f"run: {run.folder}\nreport: {page}")
    rows = [
        {"method": f"teacher {config.teacher}", **_shown(result.teacher_scores)},
        {"method": method_of(config), **_shown(result.scores)},
    ]
    return Outcome({"run": run.folder, **found, "seconds": seconds}, view=table(rows))


@app.command
def evaluate(run: Path | None = None, *, part: str = "test") -> Outcome:
    """Predicts again with a run's student and its frozen mean proxy, and scores it.

    Args:
        run: The folder of a finished `train`; by default the newest.
        part: Which nodes: train, val or test.
    """
    import torch

    from tenfold.reliant.data import SPLITS
    from tenfold.reliant.evaluation import bootstrap, by_group

    if part not in SPLITS:
        raise InputError(did_you_mean(part, SPLITS, kind="part"))
    folder = Run.open(run) if run is not None else last_trained()
    message(f"run: {folder.folder}")
    config, data, student = deployed_of(folder)
    with torch.no_grad():
        p = student(data.x, data.edge_index).softmax(1)
    found = score(data, p, part)
    mask = data[f"{part}_mask"]
    y, s = data.y[mask].cpu().numpy(), data.sensitive[mask].cpu().numpy()
    guess = p[mask].argmax(1).cpu().numpy()
    names = getattr(data, "group_names", None), getattr(data, "label_names", None)
    ends = bootstrap(y, guess, s)
    groups = by_group(y, guess, s, *names)
    rows = [{"metric": k, "value": v, "95 %": ends.get(k)} for k, v in found.items()]
    made = {"run": folder.folder, "part": part, "method": method_of(config), "scores": found}
    return Outcome(made | {"intervals": ends, "groups": groups}, view=table(rows))


@app.command
def reproduce(
    *,
    config: Annotated[ReproduceConfig, FLAT] = ReproduceConfig(),
    resume: Path | None = None,
    output: Path = Path("runs"),
) -> Outcome:
    """Runs teacher, plain distillation and RELIANT over several seeds, beside the official log.

    Args:
        config: What to run.
        resume: The folder of an interrupted reproduction; what it has is not run again.
        output: The folder of all runs.
    """
    run = None
    if resume is not None:
        run, config = Run.resume(resume, config)
    run, rows, comparison = reproduce_table(
        config, lambda: run or Run.create("reliant", "reproduce", config, output)
    )
    message(f"report: {run.folder / 'report.html'}")
    seconds = [
        {
            "dataset": r["dataset"],
            "mode": r["mode"],
            "method": r["method"],
            "seed": r["seed"],
            **{key: r[key] for key in SECONDS},
        }
        for r in run.metrics()
    ]
    data = {"run": run.folder, "results": [asdict(r) for r in rows], "comparison": comparison}
    return Outcome(data | {"seconds": seconds}, view=table(comparison))


@app.command
def tradeoff(
    *,
    config: Annotated[TradeOffConfig, FLAT] = TradeOffConfig(),
    recipe: Recipe = None,
    resume: Path | None = None,
    output: Path = Path("runs"),
) -> Outcome:
    """Trains once for each weight of the bias: accuracy against fairness, and the hypervolume.

    Args:
        config: The run; its alpha is not used.
        recipe: A recipe of this package, or a TOML file.
        resume: The folder of an interrupted curve; its own configuration is used.
        output: The folder of all runs.
    """
    from tenfold.reliant.evaluation import hypervolume

    run = None
    if resume is not None:
        run, config = Run.resume(resume, config)

    def open_run() -> Run:
        nonlocal run
        run = run or Run.create("reliant", f"tradeoff-{recipe or name_of(config)}", config, output)
        return run

    curve, result = trade_off_curve(config, open_run)
    run = open_run()
    page, _ = write_report(run.folder, result, curve)
    found = {
        "hypervolume dSP": hypervolume([(q["ACC"], q["dSP"]) for q in curve]),
        "hypervolume dEO": hypervolume([(q["ACC"], q["dEO"]) for q in curve]),
    }
    run.finish({"results": [], "curve": curve, **found})
    message(f"report: {page}")
    keys = ("alpha", "ACC", "dSP", "dEO", "utility gap", "val ACC", "val dSP")
    view = table([{k: q[k] for k in keys} for q in curve])
    return Outcome({"run": run.folder, "curve": curve, **found}, view=view)


@app.command
def audit(
    predictions: Path,
    *,
    label: Annotated[str, Parameter(help="The column of the true class.")] = "label",
    prediction: Annotated[str, Parameter(help="The column of the predicted class.")] = "prediction",
    sensitive: Annotated[str, Parameter(help="The column of the group.")] = "sensitive",
    score: Annotated[
        str | None, Parameter(help="The column of the probability of the second class.")
    ] = None,
    draws: int = 2000,
    output: Path = Path("audit"),
) -> Outcome:
    """Makes the fairness report of your own predictions, whatever made them.

    Two or more groups, two or more classes. The classes and groups are the sorted distinct values
    of their columns; of two classes the second one is the positive one.

    Args:
        predictions: A table, CSV, TSV or parquet.
        label: The column of the true class.
        prediction: The column of the predicted class.
        sensitive: The column of the group.
        score: The column of the probability of the second class, for AUC and calibration.
        draws: Bootstrap draws.
        output: The folder of the report.
    """
    import warnings

    from tenfold.reliant import pictures
    from tenfold.reliant.data import read_predictions
    from tenfold.reliant.evaluation import bootstrap, by_group, calibration, scores
    from tenfold.shared.report import Report

    read = read_predictions(predictions, label, prediction, sensitive, score)
    y, guess, s, p = read["y"], read["prediction"], read["sensitive"], read["score"]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", RuntimeWarning)
        found = scores(y, guess, s, p)
    notes = [str(item.message) for item in told]
    for note in notes:
        message(f"note: {note}")
    ends = bootstrap(y, guess, s, draws)
    groups = by_group(y, guess, s, read["group_names"], read["label_names"])
    positive = f"class {read['label_names'][1]}"
    report = Report("Fairness audit", predictions.name)
    report.text(
        f"{len(y):,} predictions. Groups: the values of `{sensitive}`; classes: the values of "
        f"`{label}`."
    )
    shown = [
        {
            "metric": k,
            "value": v,
            "low": ends[k][0] if k in ends else None,
            "high": ends[k][1] if k in ends else None,
        }
        for k, v in found.items()
    ]
    report.table(shown, caption=f"Scores, with 95 % intervals of {draws} bootstrap draws")
    for note in notes:
        report.text(note)
    report.table(groups, caption="The groups")
    report.picture(
        pictures.groups_compared(groups, positive),
        "groups",
        f"Share of {positive} in each group, true and predicted",
    )
    if p is not None:
        bins = calibration(y, p, s)
        picture = pictures.calibration_curves(bins, read["group_names"], positive)
        report.picture(picture, "calibration", "Calibration of each group")
    page = report.write(output / "report.html")
    message(f"report: {page}")
    data = {"report": page, "scores": found, "intervals": ends, "groups": groups, "notes": notes}
    return Outcome(data, view=table(shown))


@data_app.command(name="list")
def list_data() -> Outcome:
    """Lists the data sets: where each is looked for and whether it is there."""
    from tenfold.reliant.data import CATALOGUE, COUNTS
    from tenfold.shared.datasets import data_root, status

    rows = []
    for name, dataset in CATALOGUE.items():
        states = {file.state for file in status(dataset)}
        rows.append(
            {
                "name": name,
                "title": dataset.title,
                "nodes": COUNTS[name].get("nodes"),
                "edges": COUNTS[name].get("edges"),
                "state": "there" if "missing" not in states else "missing",
                "folder": data_root() / dataset.folder,
                "licence": dataset.licence,
                "homepage": dataset.homepage,
            }
        )
    hidden = ("title", "licence", "homepage")
    view = table([{k: v for k, v in row.items() if k not in hidden} for row in rows])
    return Outcome({"datasets": rows}, view=view)


@data_app.command
def fetch(*names: str) -> Outcome:
    """Downloads data sets from their official addresses and checks them.

    Args:
        names: The data sets; by default those that need no file by hand.
    """
    from tenfold.shared.datasets import fetch as fetch_files

    chosen = [d for d in _datasets(names) if names or all(file.url for file in d.files)]
    return Outcome({"folders": {d.name: fetch_files(d) for d in chosen}})


@data_app.command
def verify(*names: str) -> Outcome:
    """Checks files (sha256) and what is read and rebuilt from them (counts).

    Args:
        names: The data sets; by default all that are there.
    """
    from tenfold.reliant.data import COUNTS, load, statistics
    from tenfold.shared.datasets import verify as verify_files

    rows = []
    for dataset in _datasets(names):
        wrong = [f for f in verify_files(dataset) if f.state not in ("ok", "present")]
        if wrong and not names and any(f.state == "missing" for f in wrong):
            rows.append({"name": dataset.name, "state": "missing", "problem": ""})
            continue
        problem = "; ".join(f"{f.file}: {f.state}" for f in wrong)
        if not wrong:
            found = statistics(load(dataset.name))
            expected = COUNTS[dataset.name]
            off = [k for k in expected if found[k] != expected[k]]
            problem = "; ".join(f"{k}: {found[k]}, expected {expected[k]}" for k in off)
        rows.append(
            {"name": dataset.name, "state": "wrong" if problem else "ok", "problem": problem}
        )
    failed = any(row["state"] == "wrong" for row in rows)
    return Outcome({"datasets": rows}, view=table(rows), exit_code=int(failed))


def _datasets(names: tuple[str, ...]) -> list[Dataset]:
    from tenfold.reliant.data import CATALOGUE

    for name in names:
        if name not in CATALOGUE:
            raise InputError(did_you_mean(name, CATALOGUE, kind="data set"))
    return [CATALOGUE[name] for name in names or CATALOGUE]


def _shown(values: dict[str, float]) -> dict[str, float]:
    return {name: values[name] for name in SHOWN}


def _write_predictions(path: Path, data: Any, probabilities: Any) -> None:
    """A row a node, in the form that `audit` reads."""
    import numpy as np
    import pyarrow
    import pyarrow.csv

    part = np.full(data.num_nodes, "", dtype=object)
    for name in ("train", "val", "test"):
        part[data[f"{name}_mask"].cpu().numpy()] = name
    p = probabilities.cpu().numpy()
    labels = np.asarray(getattr(data, "label_names", None) or range(p.shape[1]))
    groups = np.asarray(getattr(data, "group_names", None) or range(int(data.sensitive.max()) + 1))
    y = data.y.cpu().numpy()
    columns = {
        "node": getattr(data, "node_names", None) or np.arange(data.num_nodes),
        "part": part,
        "label": [None if c < 0 else labels[c] for c in y],
        "prediction": labels[p.argmax(1)],
        "sensitive": groups[data.sensitive.cpu().numpy()],
    }
    columns |= {f"p {label}": p[:, i] for i, label in enumerate(labels)}
    with replacing(path) as temporary:
        pyarrow.csv.write_csv(pyarrow.table(columns), temporary)
