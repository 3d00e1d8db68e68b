"""A whole run, from a configuration to its report; the published table; the trade-off curve."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from tenfold.reliant import pictures
from tenfold.reliant.data import statistics
from tenfold.reliant.evaluation import (
    METRICS,
    bootstrap,
    by_group,
    calibration,
    calibration_error,
    hypervolume,
)
from tenfold.reliant.objective import Notion
from tenfold.reliant.store import Stored, digest_of, kept
from tenfold.reliant.teachers import Mode, Teacher, train_teacher
from tenfold.reliant.training import (
    Distillation,
    TrainConfig,
    dataset_of,
    name_of,
    score,
    settled,
    student_of,
    what_was_used,
)
from tenfold.reliant.wrapper import Deployed
from tenfold.shared import compute
from tenfold.shared.config import load_recipe, recipes
from tenfold.shared.errors import InputError
from tenfold.shared.progress import message, progress
from tenfold.shared.published import Comparison, compare, published
from tenfold.shared.report import Report
from tenfold.shared.runs import Measurement, Run

SECONDS_BETWEEN_CHECKPOINTS = 5.0
SHOWN = ("ACC", "F1", "AUC", "dSP", "dEO", "dEOdds", "utility gap", "label gap")


@dataclass
class Result:
    """What a finished run gives.

    Attributes:
        config: settled.
        data: the graph.
        teacher: whose answers were distilled.
        model: the trained student with its proxies.
        probabilities: float [N, C].
        scores: on the test nodes.
        val: on the validation nodes.
        teacher_scores: of the teacher, on the test nodes.
        history: the metrics of the epochs.
        epoch: that was kept.
    """

    config: TrainConfig
    data: Data
    teacher: Teacher
    model: Any
    probabilities: Tensor
    scores: dict[str, float]
    val: dict[str, float]
    teacher_scores: dict[str, float]
    history: list[dict[str, Any]]
    epoch: int


def opened(config: TrainConfig) -> tuple[TrainConfig, Data]:
    """Settles a configuration and reads its graph onto its device.

    Args:
        config: the run.
    """
    config = settled(config)
    device = compute.fabric(config.device).device
    return config, dataset_of(config).to(str(device))


def train(
    config: TrainConfig,
    run: Run | None = None,
    data: Data | None = None,
    fresh: bool = False,
    fresh_teacher: bool | None = None,
    cache: bool = True,
) -> Result:
    """Trains the teacher, then the student; either is taken from the cache if it is there.

    Args:
        config: the run.
        run: its folder, which gets metrics and checkpoints, and goes on from the last one.
        data: the graph; by default that of the configuration.
        fresh: train both even if they are in the cache.
        fresh_teacher: the same for the teacher alone; by default as ``fresh``.
        cache: whether to use the cache at all.
    """
    if data is None:
        config, data = opened(config)
    else:
        config = settled(config)
    teacher = train_teacher(
        data,
        config.teacher,
        config.mode,
        config.teacher_epochs,
        config.teacher_seed,
        fresh if fresh_teacher is None else fresh_teacher,
        cache,
    )
    training = Distillation(data, teacher, config)
    history: list[dict[str, Any]] = []

    def make() -> Stored:
        history.extend(_distil(training, run))
        chosen = training.epoch if training.best is None else training.best[1]
        return dict(training.model.state_dict()), {"history": history, "epoch": chosen}

    if cache:
        read = data.train_mask if config.mode == "honest" and config.choose == "last" else None
        labels = data.y if read is None else torch.where(read, data.y, -1)
        groups = data.sensitive if read is None else torch.where(read, data.sensitive, -1)
        if {config.fairness_nodes, config.proxy_nodes} != {"train"} or config.proxies == "fixed":
            labels, groups = data.y, data.sensitive
        named = {k: v for k, v in asdict(config).items() if k not in ("dataset", "device")}
        key = digest_of(
            data.x, data.edge_index, labels, groups, data.train_mask, teacher.logits, named
        )
        weights, values = kept("student", key, make, fresh)
        training.model.load_state_dict(weights)
    else:
        values = make()[1]
    probabilities = training.probabilities()
    return Result(
        config,
        data,
        teacher,
        training.model,
        probabilities,
        score(data, probabilities),
        score(data, probabilities, "val"),
        score(data, teacher.logits.exp()),
        values["history"],
        values["epoch"],
    )


def _distil(training: Distillation, run: Run | None) -> list[dict[str, Any]]:
    """Runs a training with checkpoints; gives the metrics of all epochs."""
    history: list[dict[str, Any]] = []
    if run is not None and (saved := run.load()):
        training.load_state_dict(*saved)
        run.rewind(saved[2])
        history = run.metrics()
        message(f"resuming after epoch {saved[2]}")
    elif run is not None:
        run.rewind(-1)
    saved_at = time.monotonic()
    with progress("student", total=training.config.epochs) as bar:
        bar.update(training.epoch + 1)

        def on_epoch(training: Distillation, found: dict[str, float]) -> None:
            nonlocal saved_at
            history.append(dict(found))
            bar.update(1, **{k: found[k] for k in ("loss", "bias") if k in found})
            if run is not None:
                run.log(**found)  # type: ignore[arg-type]
                if training.finished or time.monotonic() - saved_at >= SECONDS_BETWEEN_CHECKPOINTS:
                    run.save(*training.state_dict(), training.epoch)
                    saved_at = time.monotonic()

        training.run(on_epoch)
    return history


def deployed_of(run: Run) -> tuple[TrainConfig, Data, Deployed]:
    """A run's student with its frozen mean proxy, and the graph.

    Args:
        run: the folder of a finished run.
    """
    path = run.folder / "student.safetensors"
    if not path.is_file():
        raise InputError(f"{run.folder} has no student yet; continue it with train --resume")
    config, data = opened(run.config(TrainConfig))
    width = None
    if config.framework == "akd":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            width = file.get_slice("student.linears.0.bias").get_shape()[0]
    student = student_of(config, data, width)
    return config, data, Deployed.load(path, student).to(data.x.device)


def measurements(config: TrainConfig, values: Mapping[str, float]) -> list[Measurement]:
    """One run's scores in the form that every package shares.

    Args:
        config: settled.
        values: scores from 0 to 1.
    """
    return [
        Measurement(
            dataset=name_of(config),
            method=method_of(config),
            metric=metric,
            value=values[metric],
            protocol=config.mode,
        )
        for metric in METRICS
    ]


def method_of(config: TrainConfig) -> str:
    """A run's method as ``published.toml`` names it, e.g. ``RELIANT CPF+GCN SP``."""
    pair = f"{config.framework.upper()}+{config.teacher.upper()}"
    if config.alpha == 0:
        return f"plain {pair}"
    kind = "RELIANT" if config.proxies == "learned" else f"{config.proxies} proxies"
    return f"{kind} {pair} {config.notion.upper()}"


# Reports -----------------------------------------------------------------------------------------


def predictions_of(result: Result, part: str = "test") -> tuple[np.ndarray, ...]:
    """True classes, predicted ones, groups and probabilities of one part of the nodes."""
    mask = result.data[f"{part}_mask"]
    p = result.probabilities[mask].double().cpu().numpy()
    y, s = result.data.y[mask].cpu().numpy(), result.data.sensitive[mask].cpu().numpy()
    return y, p.argmax(1), s, p


def write_report(
    folder: Path,
    result: Result,
    curve: Sequence[Mapping[str, Any]] = (),
    compared: Sequence[Mapping[str, Any]] = (),
    title: str | None = None,
) -> tuple[Path, list[tuple[Path, str]]]:
    """The page of one run: what was read, scores, groups, calibration, trade-off.

    Args:
        folder: where ``report.html`` and the pictures go.
        result: of :func:`train`.
        curve: of :func:`trade_off_curve`.
        compared: further methods on the same nodes.
        title: heading; by default the data set.

    Returns:
        The page, and the pictures with their captions.
    """
    config = result.config
    report = Report(title or f"RELIANT on {name_of(config)}", f"mode {config.mode}")
    report.table(what_was_used(config), caption="What was read, and of which nodes")
    rows: list[dict[str, Any]] = [
        {"method": f"teacher {config.teacher}", **result.teacher_scores},
        *map(dict, compared),
        {"method": method_of(config), **result.scores},
    ]
    report.table(rows, caption="Test nodes (label gap: the dSP of a perfect prediction)")
    y, guess, s, p = predictions_of(result)
    intervals = bootstrap(y, guess, s)
    shown = [
        {"metric": m, "value": result.scores[m], "low": a, "high": b}
        for m, (a, b) in intervals.items()
    ]
    report.table(shown, caption="The student's 95 % bootstrap intervals over test nodes")
    names = getattr(result.data, "group_names", None)
    labels = getattr(result.data, "label_names", None)
    report.table(by_group(y, guess, s, names, labels), caption="The groups")
    made: list[tuple[str, Any, str]] = []
    if p.shape[1] == 2:
        bins = calibration(y, p[:, 1], s)
        errors = ", ".join(f"{k}: {v:.3f}" for k, v in calibration_error(bins).items())
        caption = f"Calibration of each group (expected calibration error: {errors})"
        made.append(("calibration", pictures.calibration_curves(bins, names), caption))
    if curve:
        lone = [row for row in rows if row["method"] != method_of(config)]
        caption = (
            "Trade-off on the test nodes, a point for each weight alpha; hypervolume against "
            "(0, 1): "
            f"{hypervolume([(q['ACC'], q['dSP']) for q in curve]):.4f}"
        )
        picture = pictures.trade_off([*curve, *lone[:1]])
        made.insert(0, ("trade-off", picture, caption))
        report.table([dict(q) for q in curve], caption="The curve: one training each")
    if result.history:
        caption = "Training: the student lowers J without proxies, the proxies raise it with them"
        made.append(("training", pictures.training_curves(result.history), caption))
    for name, figure, caption in made:
        report.picture(figure, name, caption)
    report.config(config)
    page = report.write(folder / "report.html")
    return page, [(folder / f"{name}.png", caption) for name, _, caption in made]


# The trade-off -----------------------------------------------------------------------------------


def trade_off_curve(
    config: TrainConfig, alphas: Sequence[float], run: Run | None = None, cache: bool = True
) -> tuple[list[dict[str, Any]], Result]:
    """Trains once for each weight of the bias.

    Args:
        config: the run; its own alpha is not used.
        alphas: the weights.
        run: a folder that remembers each weight.
        cache: whether to use the cache.

    Returns:
        A row for each weight, ``alpha`` with the scores on test nodes and ``val ACC``, ``val dSP``,
        in the order of the weights, and the run of the last weight.
    """
    if not alphas or min(alphas) < 0:
        raise InputError(f"alphas={list(alphas)}; expected weights of at least 0")
    config, data = opened(config)
    done = {line["alpha"]: line for line in run.metrics()} if run is not None else {}
    rows, result = [], None
    for number, alpha in enumerate(sorted(alphas)):
        if alpha not in done or number == len(alphas) - 1:
            result = train(replace(config, alpha=float(alpha)), data=data, cache=cache)
            line = {"alpha": float(alpha), **result.scores}
            line |= {f"val {k}": result.val[k] for k in ("ACC", "dSP", "dEO")}
            if run is not None and alpha not in done:
                run.log(epoch=len(done), **line)
            done[float(alpha)] = line
        row = dict(done[alpha])
        row.pop("epoch", None)
        rows.append(row)
    assert result is not None
    return rows, result


# The published table -----------------------------------------------------------------------------


@dataclass(frozen=True)
class ReproduceConfig:
    """Teacher, plain distillation and RELIANT over several seeds, beside the official log."""

    dataset: tuple[str, ...] = ("recidivism",)
    """The data sets."""
    mode: tuple[Mode, ...] = ("honest",)
    """One or both of honest and official."""
    teacher: str = "gcn"
    """The teacher."""
    framework: Literal["cpf", "akd", "soft"] = "cpf"
    """cpf, akd or soft."""
    notion: Notion = "sp"
    """sp, eo or eodds."""
    seeds: int = 3
    """Students with the seeds 0, 1, 2, ...; the teacher is one."""
    epochs: int | None = None
    """Of the student; by default those of the mode."""
    plain: bool = True
    """Also distil without RELIANT (alpha 0)."""
    fresh: bool = False
    """Train everything even if it is in the cache."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""

    def __post_init__(self) -> None:
        """Refuses an empty protocol."""
        if self.seeds < 1:
            raise InputError(f"seeds={self.seeds}; expected >= 1")


def reproduce(config: ReproduceConfig, run: Run) -> tuple[list[Measurement], list[Comparison]]:
    """All seeds of all data sets; a seed that ``run`` has already is not run again.

    Args:
        config: what to run.
        run: the folder that remembers each seed.

    Returns:
        Mean and population standard deviation for each data set, mode, method and metric, and the
        same beside the official log.
    """
    done: dict[tuple[Any, ...], dict[str, Any]] = {
        (r["dataset"], r["mode"], r["method"], r["seed"]): r for r in run.metrics()
    }
    jobs = []
    for dataset in config.dataset:
        for mode in config.mode:
            base = _base(dataset, mode, config)
            plain = [replace(base, alpha=0.0)] if config.plain else []
            jobs += [settled(c) for c in (base, *plain)]
    teachers: dict[tuple[str, str], dict[str, float]] = {}
    graphs: dict[str, dict[str, Any]] = {}
    with progress("reproduce", total=len(jobs) * config.seeds) as bar:
        for job in jobs:
            method, data = method_of(job), None
            for seed in range(config.seeds):
                key = (job.dataset, job.mode, method, seed)
                if key not in done:
                    started = time.perf_counter()
                    if data is None:
                        data = opened(job)[1]
                    # Fresh: the teacher once a graph and mode, the students each.
                    again = config.fresh and (job.dataset, job.mode) not in teachers
                    result = train(
                        replace(job, seed=seed),
                        data=data,
                        fresh=config.fresh,
                        fresh_teacher=again,
                    )
                    line = {
                        "dataset": job.dataset,
                        "mode": job.mode,
                        "method": method,
                        "seed": seed,
                        "kept": result.epoch,
                        "seconds": round(time.perf_counter() - started, 2),
                        **result.scores,
                        "teacher": result.teacher_scores,
                        "graph": statistics(data),
                    }
                    run.log(epoch=len(done), **line)
                    done[key] = line
                teachers[job.dataset, job.mode] = done[key]["teacher"]
                graphs[job.dataset] = done[key]["graph"]
                bar.update(dataset=job.dataset, method=method, ACC=done[key]["ACC"])
    rows = []
    for job in jobs:
        method = method_of(job)
        lines = [done[job.dataset, job.mode, method, seed] for seed in range(config.seeds)]
        if job.alpha != 0:
            values = teachers[job.dataset, job.mode]
            name = f"teacher {config.framework.upper()}+{config.teacher.upper()}"
            rows += [
                replace(m, method=name, value=values[m.metric]) for m in measurements(job, values)
            ]
        for metric in METRICS:
            found = [line[metric] for line in lines]
            mean, std = float(np.mean(found)), float(np.std(found))
            rows.append(
                Measurement(
                    dataset=job.dataset,
                    method=method,
                    metric=metric,
                    value=mean,
                    protocol=job.mode,
                    std=std,
                    n=len(found),
                )
            )
    comparison = compare(published("reliant"), rows)
    _reproduce_report(run, config, jobs, comparison, done, graphs)
    run.finish({"results": rows, "comparison": [asdict(row) for row in comparison]})
    return rows, comparison


def _base(dataset: str, mode: Mode, config: ReproduceConfig) -> TrainConfig:
    """The recipe of a data set and mode, or the defaults of the mode."""
    name = dataset if mode == "honest" else f"{dataset}-official"
    known = name in recipes("reliant") and config.framework == "cpf"
    base = load_recipe(TrainConfig, "reliant", name) if known else TrainConfig()
    return replace(
        base,
        dataset=dataset,
        mode=mode,
        teacher=config.teacher,
        framework=config.framework,
        notion=config.notion,
        epochs=base.epochs if config.epochs is None else config.epochs,
        device=config.device,
    )


def _reproduce_report(
    run: Run,
    config: ReproduceConfig,
    jobs: Sequence[TrainConfig],
    comparison: Sequence[Comparison],
    done: Mapping[tuple[Any, ...], Mapping[str, Any]],
    graphs: Mapping[str, Mapping[str, Any]],
) -> None:
    report = Report("RELIANT: the official table", f"{config.seeds} seeds")
    report.table(comparison, caption="Official log (one seed) / here (mean, population deviation)")
    for job in jobs:
        if job.alpha != 0:
            report.table(what_was_used(job), caption=f"What was read: {job.dataset}, {job.mode}")
    report.table([{"dataset": k, **v} for k, v in graphs.items()], caption="The graphs, rebuilt")
    keys = ("dataset", "mode", "method", "seed", "kept", "seconds", "ACC", "dSP", "dEO")
    report.table([{k: line[k] for k in keys} for line in done.values()], caption="Each seed")
    for dataset in config.dataset:
        points = [
            {"method": f"{line['method']} ({line['mode']})", "ACC": line["ACC"], "dSP": line["dSP"]}
            for line in done.values()
            if line["dataset"] == dataset and line["seed"] == 0
        ]
        caption = f"{dataset}: accuracy against dSP, seed 0 of each method"
        report.picture(pictures.trade_off(points), f"trade-off-{dataset}", caption)
    report.config(config)
    report.write(run.folder / "report.html")
