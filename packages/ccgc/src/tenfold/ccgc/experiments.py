"""A whole run, from a configuration to its report, and the whole protocol of the paper's table."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch_geometric.data import Data

from tenfold.ccgc import pictures
from tenfold.ccgc.data import as_data, load
from tenfold.ccgc.data.generated import to_scipy
from tenfold.ccgc.estimators import prepare
from tenfold.ccgc.evaluation import METRICS, graph_scores, label_scores
from tenfold.ccgc.settings import Trial, choose_settings
from tenfold.ccgc.training import Clustering, Protocol, TrainConfig, Training
from tenfold.shared import compute
from tenfold.shared.compute import is_main_process
from tenfold.shared.config import from_mapping, load_recipe, recipes, to_json
from tenfold.shared.errors import InputError
from tenfold.shared.files import write_atomic
from tenfold.shared.progress import message, progress
from tenfold.shared.published import Comparison, compare, published
from tenfold.shared.report import Report
from tenfold.shared.runs import Measurement, Run

SECONDS_BETWEEN_CHECKPOINTS = 2.0
CHOSEN = ("hops", "learning_rate", "space")  # what is chosen without labels
PROTOCOLS = {
    "final": "**final**: no label was seen, neither in training nor in the choice of the epoch.",
    "official-best": "**official-best**: the published protocol. The epoch was chosen **with the "
    "true labels**, so these scores say how good the best refresh was, not what a user would get.",
}


@dataclass
class Result:
    """What a finished training gives.

    Attributes:
        labels: int64 [N].
        confidence: float32 [N] in [0, 1].
        embedding: float32 [N, d]; in the narrow space both views, [N, 2 d].
        scores: against the labels in percent; empty if there are none.
        graph: modularity, conductance, silhouette.
        epoch: of the chosen refresh.
        history: the metrics of the refreshes.
    """

    labels: np.ndarray
    confidence: np.ndarray
    embedding: np.ndarray
    scores: dict[str, float]
    graph: dict[str, float]
    epoch: int
    history: list[dict[str, Any]]


@dataclass
class Experiment:
    """A run that can be trained, from :func:`opened`.

    Attributes:
        config: the configuration; :func:`chosen` fills in what is open.
        data: the checked graph, on the fabric's device.
        fabric: where to run.
        trials: of the label-free choice.
        begun: the training of the preferred trial, to be gone on with; None if there was no choice.
    """

    config: TrainConfig
    data: Data
    fabric: Any
    trials: list[Trial] = field(default_factory=list)
    begun: Training | None = None

    @property
    def y(self) -> np.ndarray | None:
        """The classes, int64 [N], if they are known."""
        y = getattr(self.data, "y", None)
        return None if y is None else y.cpu().numpy()


def opened(config: TrainConfig, data: Data | None = None) -> Experiment:
    """Loads and checks the graph of a run, and counts its classes if K is open.

    Args:
        config: the run.
        data: the graph; by default that of ``config.dataset``.

    Raises:
        InputError: the number of clusters is not given and the graph has no labels to count.
    """
    fabric = compute.fabric(config.device, config.devices, config.num_nodes, config.precision)
    data = as_data(load(config.dataset) if data is None else data).to(fabric.device)
    if config.clusters is None:
        if getattr(data, "y", None) is None:
            raise InputError(f"{config.dataset} has no labels to count: give --clusters K")
        config = replace(config, clusters=int(data.y.max()) + 1)
    assert config.clusters is not None
    if config.clusters > data.num_nodes:
        raise InputError(
            f"clusters={config.clusters} for {data.num_nodes} nodes; expected at most as many"
        )
    return Experiment(config, data, fabric)


def chosen(experiment: Experiment, run: Run | None = None) -> Experiment:
    """Chooses without labels what the configuration leaves open; all of it is then given.

    Args:
        experiment: from :func:`opened`.
        run: the folder of the run, which remembers the choice.
    """
    config, trials, begun = choose_settings(experiment.data, experiment.config, experiment.fabric)
    if run is not None and trials and is_main_process():
        write_atomic(run.folder / "trials.json", to_json(trials, indent=2))
    elif run is not None and (run.folder / "trials.json").is_file():  # chosen before a kill
        rows = json.loads((run.folder / "trials.json").read_text("utf-8"))
        trials = [from_mapping(Trial, row, "trials.json") for row in rows]
    if run is not None:
        run.configure(config)
    return replace(experiment, config=config, trials=trials, begun=begun)


def train(experiment: Experiment, run: Run | None = None) -> Result:
    """Trains to the end; with a run folder it logs, checkpoints, and resumes what is there.

    Args:
        experiment: from :func:`chosen`.
        run: the folder of the run.
    """
    config, data = experiment.config, experiment.data
    training = experiment.begun or prepare(data, config, experiment.fabric)
    if run is not None and (saved := run.load()):
        weights, state, epoch = saved
        training.load_state_dict(weights, state)
        run.rewind(epoch)
        training.history = run.metrics()
        message(f"resuming after epoch {epoch}")
    elif run is not None:
        run.rewind(-1)  # killed before its first checkpoint, it begins anew
        if training.history:  # begun while the settings were chosen
            for metrics in training.history:
                run.log(**metrics)
            run.save(*training.state_dict(), training.epoch)
    saved_at = time.monotonic()
    with progress("training", total=config.epochs) as bar:
        bar.update(training.epoch + 1)

        def on_refresh(training: Training, metrics: dict[str, Any]) -> None:
            nonlocal saved_at
            shown = {k: metrics[k] for k in ("loss", "score", "ACC") if k in metrics}
            bar.update(training.epoch + 1 - bar.done, **shown)
            if run is not None:
                run.log(**metrics)
                if training.finished or time.monotonic() - saved_at >= SECONDS_BETWEEN_CHECKPOINTS:
                    run.save(*training.state_dict(), training.epoch)
                    saved_at = time.monotonic()

        best = training.run(on_refresh)
        bar.update(config.epochs - bar.done)
    return _result(training, data, best)


def evaluate(run: Run) -> tuple[TrainConfig, Result]:
    """The clustering that a run's checkpoint holds, scored again.

    The clusters of the chosen epoch are saved with the weights. Only the narrow space's read-out is
    not, and is fitted again.
    """
    config = run.config(TrainConfig)
    saved = run.load()
    if saved is None:
        raise InputError(f"{run.folder} has no checkpoint yet; continue it with train --resume")
    experiment = chosen(opened(config))
    training = prepare(experiment.data, experiment.config, experiment.fabric)
    training.load_state_dict(*saved[:2])
    training.history = run.metrics()
    if training.best is None:
        raise InputError(f"{run.folder} has no clustering yet; continue it with train --resume")
    return experiment.config, _result(training, experiment.data, training.clustering())


def _result(training: Training, data: Data, best: Clustering) -> Result:
    z, sure = training.outcome(best)
    labels = best.labels.cpu().numpy()
    embedding = z.cpu().numpy()
    y = getattr(data, "y", None)
    return Result(
        labels=labels,
        confidence=sure.float().cpu().numpy(),
        embedding=embedding,
        scores={} if y is None else label_scores(y.cpu().numpy(), labels),
        graph=graph_scores(to_scipy(data), labels, embedding),
        epoch=best.epoch,
        history=training.history,
    )


def measurements(config: TrainConfig, scores: dict[str, float]) -> list[Measurement]:
    """One run's scores in the form that every package shares."""
    return [
        Measurement(
            dataset=config.dataset,
            method="CCGC",
            metric=m,
            value=scores[m],
            protocol=config.protocol,
        )
        for m in METRICS
        if scores
    ]


def write_report(
    folder: Path,
    experiment: Experiment,
    result: Result,
    compared: list[dict[str, Any]] | None = None,
    title: str | None = None,
) -> tuple[Path, list[tuple[Path, str]]]:
    """The page of one run: scores, pictures, choices, configuration.

    Args:
        folder: where ``report.html`` and the pictures go.
        experiment: from :func:`chosen`.
        result: of :func:`train`.
        compared: rows for a table of methods.
        title: heading; by default the data set.

    Returns:
        The page, and the pictures with their captions.
    """
    config, y = experiment.config, experiment.y
    report = Report(title or f"CCGC on {config.dataset}", f"protocol {config.protocol}")
    report.text(PROTOCOLS[config.protocol])
    if compared:
        report.table(compared, caption="Methods on the same graph (percent)")
    if result.scores:
        report.table([result.scores], caption="Scores against the labels, percent")
    report.table([{"epoch": result.epoch, **result.graph}], caption="The chosen refresh")
    shown: list[tuple[str, Any, str]] = [
        ("map", pictures.embedding_map(result.embedding, result.labels, y), "t-SNE of Z"),
        (
            "sizes",
            pictures.cluster_sizes(result.labels, result.confidence),
            "Nodes and mean confidence of each cluster",
        ),
    ]
    if y is not None:
        caption = "Classes against matched clusters, percent of the class"
        shown.insert(1, ("confusion", pictures.confusion(y, result.labels), caption))
    if result.history:
        curves = pictures.training_curves(result.history, result.epoch, config.warm_up)
        caption = "The two losses and the quality of each refresh; red: the chosen epoch"
        shown.append(("training", curves, caption))
    for name, figure, caption in shown:
        report.picture(figure, name, caption)
    rows = [
        {
            "hops": t.hops,
            "space": t.space,
            "learning rate": t.learning_rate,
            "modularity": t.modularity,
            **t.quality.as_dict(),
        }
        for t in experiment.trials
    ]
    if rows:
        report.table(rows, caption="The label-free choice of hops and learning rate")
    report.config(config)
    page = report.write(folder / "report.html")
    return page, [(folder / f"{name}.png", caption) for name, _, caption in shown]


@dataclass(frozen=True)
class ReproduceConfig:
    """The protocol of the paper's main table."""

    datasets: tuple[str, ...] = ("bat", "eat", "uat", "cora", "citeseer", "amap")
    """The data sets."""
    protocols: tuple[Protocol, ...] = ("final", "official-best")
    """One or both of final and official-best."""
    seeds: int = 10
    """Runs with the seeds 0, 1, 2, ..."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""

    def __post_init__(self) -> None:
        """Refuses what cannot be run."""
        if self.seeds < 1:
            raise InputError(f"seeds={self.seeds}; expected >= 1")
        for name in ("datasets", "protocols"):
            if not getattr(self, name):
                raise InputError(f"{name} is empty; name at least one or leave the option out")
        official = [n.removesuffix("-official") for n in recipes("ccgc") if n.endswith("-official")]
        unset = [name for name in self.datasets if name not in official]
        if "official-best" in self.protocols and unset:
            raise InputError(
                f"datasets {', '.join(unset)}: official-best has settings for "
                f"{', '.join(official)} only; leave them out or add --protocols final"
            )


def reproduce(config: ReproduceConfig, run: Run) -> tuple[list[Measurement], list[Comparison]]:
    """All seeds of all data sets; a seed that ``run`` has already is not run again.

    The label-free choice of hops and learning rate is made once a data set, with seed 0; the
    official settings come from the recipe ``<dataset>-official``.

    Args:
        config: what to run.
        run: the folder that remembers each seed.

    Returns:
        Mean and population standard deviation for each data set, protocol and metric, and the same
        beside the paper's.
    """
    done = {(r["dataset"], r["protocol"], r["seed"]): r for r in run.metrics()}
    jobs = [(d, p) for d in config.datasets for p in config.protocols]
    with progress("reproduce", total=len(jobs) * config.seeds) as bar:
        for dataset, protocol in jobs:
            if all((dataset, protocol, seed) in done for seed in range(config.seeds)):
                bar.update(config.seeds)
                continue
            base = _base(dataset, protocol, config)
            before = [r for (d, p, _), r in done.items() if (d, p) == (dataset, protocol)]
            if before:
                base = replace(base, **{k: before[0][k] for k in CHOSEN})
            experiment = chosen(opened(base))
            full = experiment.config
            for seed in range(config.seeds):
                if (dataset, protocol, seed) not in done:
                    started = time.perf_counter()
                    seeded = replace(full, seed=seed)
                    result = train(replace(experiment, config=seeded, begun=None))
                    line = {
                        "dataset": dataset,
                        "protocol": protocol,
                        "seed": seed,
                        **{k: getattr(full, k) for k in CHOSEN},
                        "chosen_epoch": result.epoch,
                        "seconds": round(time.perf_counter() - started, 2),
                        **result.scores,
                        **result.graph,
                    }
                    run.log(epoch=len(done), **line)
                    done[dataset, protocol, seed] = line
                bar.update(
                    dataset=dataset, protocol=protocol, ACC=done[dataset, protocol, seed]["ACC"]
                )
    rows = []
    for dataset, protocol in jobs:
        lines = [done[dataset, protocol, seed] for seed in range(config.seeds)]
        for metric in METRICS:
            values = [line[metric] for line in lines]
            rows.append(
                Measurement(
                    dataset=dataset,
                    method="CCGC",
                    metric=metric,
                    value=float(np.mean(values)),
                    protocol=protocol,
                    std=float(np.std(values)),
                    n=len(values),
                )
            )
    comparison = compare(published("ccgc"), rows)
    _reproduce_report(run, config, comparison, done)
    run.finish({"results": rows, "comparison": [asdict(row) for row in comparison]})
    return rows, comparison


def _base(dataset: str, protocol: Protocol, config: ReproduceConfig) -> TrainConfig:
    if protocol == "official-best":
        return replace(
            load_recipe(TrainConfig, "ccgc", f"{dataset}-official"), device=config.device
        )
    return TrainConfig(dataset=dataset, protocol=protocol, device=config.device)


def _reproduce_report(
    run: Run, config: ReproduceConfig, comparison: list[Comparison], done: dict[Any, Any]
) -> None:
    report = Report("CCGC: the paper's main table", f"{config.seeds} seeds")
    for protocol in config.protocols:
        report.text(PROTOCOLS[protocol])
    report.table(
        comparison, caption="Paper / here (mean and population standard deviation, percent)"
    )
    groups, paper = {}, {}
    for row in comparison:
        if row.metric == "ACC":
            name = f"{row.dataset} ({row.protocol})"
            groups[name] = [
                done[row.dataset, row.protocol, seed]["ACC"] for seed in range(config.seeds)
            ]
            paper[name] = row.paper
    report.picture(
        pictures.seeds_against_paper(groups, paper, "ACC"), "seeds", "Stability over seeds"
    )
    settings = [
        {"dataset": d, "protocol": p, **{k: line[k] for k in (*CHOSEN, "seconds")}}
        for (d, p, seed), line in done.items()
        if seed == 0
    ]
    report.table(settings, caption="Settings, and the seconds of seed 0")
    report.config(config)
    report.write(run.folder / "report.html")
