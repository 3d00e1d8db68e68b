"""A whole run, from a configuration to its report; the published table; the trade-off curve."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
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
    TradeOffConfig,
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
SECONDS = ("seconds", "seconds of graph and teacher")
OpenRun = Callable[[], Run]
SHOWN = ("ACC", "F1", "AUC", "dSP", "dEO", "dEOdds", "utility gap", "label gap")


@dataclass
class Result:
    """What a finished run gives.

    Attributes:
        config: settled.
        data: the graph.
        model: the trained student with its proxies.
        probabilities: float [N, C].
        scores: on the test nodes.
        val: on the validation nodes.
        teacher_scores: of the teacher, on the test nodes.
        history: the metrics of the epochs.
        epoch: that was kept.
        plain_history: of the same run without the bias (alpha 0), if there was one.
    """

    config: TrainConfig
    data: Data
    model: Any
    probabilities: Tensor
    scores: dict[str, float]
    val: dict[str, float]
    teacher_scores: dict[str, float]
    history: list[dict[str, Any]]
    epoch: int
    plain_history: Sequence[Mapping[str, Any]] = ()


def opened(config: TrainConfig) -> tuple[TrainConfig, Data]:
    """Settles a configuration and reads its graph onto its device.

    Args:
        config: the run.
    """
    config = settled(config)
    device = compute.fabric(config.device).device
    return config, dataset_of(config).to(str(device))


def teacher_of(config: TrainConfig, data: Data, fresh: bool = False, cache: bool = True) -> Teacher:
    """The teacher of a run, trained or taken from the cache.

    Args:
        config: the run.
        data: its graph.
        fresh: train it even if it is in the cache.
        cache: whether to use the cache at all.
    """
    return train_teacher(
        data,
        config.teacher,
        config.mode,
        config.teacher_epochs,
        config.teacher_seed,
        fresh,
        cache,
    )


def train(
    config: TrainConfig,
    data: Data,
    teacher: Teacher,
    open_run: OpenRun | None = None,
    fresh: bool = False,
    cache: bool = True,
) -> Result:
    """Trains a student, or takes it from the cache.

    Args:
        config: the run.
        data: its graph.
        teacher: of :func:`teacher_of`.
        open_run: gives the run's folder, which gets metrics and checkpoints, and goes on from the
            last one. It is called when all that can be wrong with the run has been checked.
        fresh: train it even if it is in the cache.
        cache: whether to use the cache at all.
    """
    config = settled(config)
    training = Distillation(data, teacher, config)
    run = None if open_run is None else open_run()
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
    if run is not None and not history:  # nothing was trained
        run.rewind(-1)
        for line in values["history"]:
            run.log(**line)
    probabilities = training.probabilities()
    return Result(
        config,
        data,
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


def last_trained(root: Path | str = "runs") -> Run:
    """The newest run of `train` that is finished: what `evaluate` takes by default.

    Args:
        root: the folder of all runs.

    Raises:
        InputError: if there is none.
    """
    found = list(Path(root, "reliant").glob("*/student.safetensors"))
    if not found:
        raise InputError(
            f"no run with a student in {Path(root, 'reliant')}; expected one of `train`"
        )
    return Run.open(max(found, key=lambda path: path.stat().st_mtime_ns).parent)


def deployed_of(run: Run) -> tuple[TrainConfig, Data, Deployed]:
    """A run's student with its frozen mean proxy, and the graph.

    Args:
        run: the folder of a finished run.
    """
    path = run.folder / "student.safetensors"
    if not path.is_file():
        raise InputError(
            f"{run.folder} holds no student; expected the folder of a finished `train` (one that "
            "was interrupted goes on with train --resume; reproduce and tradeoff keep none)"
        )
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
    title: str | None = None,
) -> tuple[Path, list[tuple[Path, str]]]:
    """The page of one run: what was read, scores, groups, calibration, trade-off.

    Args:
        folder: where ``report.html`` and the pictures go.
        result: of :func:`train`.
        curve: of :func:`trade_off_curve`.
        title: heading; by default the data set.

    Returns:
        The page, and the pictures with their captions.
    """
    config = result.config
    report = Report(title or f"RELIANT on {name_of(config)}", f"mode {config.mode}")
    report.table(what_was_used(config), caption="What was read, and of which nodes")
    teacher = {"method": f"teacher {config.teacher}", **result.teacher_scores}
    rows = [teacher, {"method": method_of(config), **result.scores}]
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
        positive = f"class {1 if labels is None else labels[1]}"
        errors = ", ".join(f"{k}: {v:.3f}" for k, v in calibration_error(bins).items())
        caption = f"Calibration of each group (expected calibration error: {errors})"
        if config.student == "plp":
            caption += (
                ". PLP's logits lie between 0 and about 1, so that its probabilities are seldom "
                "near 0 or 1: the curves are steep by construction"
            )
        made.append(("calibration", pictures.calibration_curves(bins, names, positive), caption))
    if curve:
        caption = (
            "Trade-off on the test nodes, a point for each weight alpha; hypervolume against "
            "(0, 1): "
            f"{hypervolume([(q['ACC'], q['dSP']) for q in curve]):.4f}"
        )
        picture = pictures.trade_off([*curve, teacher])
        made.insert(0, ("trade-off", picture, caption))
        report.table([dict(q) for q in curve], caption="The curve: one training each")
    if result.history:
        caption = (
            "Training (faint: each epoch; full: the running mean). The student lowers J of the "
            "wiped input while its proxies raise J of the full one"
        )
        picture = pictures.training_curves(result.history, result.plain_history)
        made.append(("training", picture, caption))
    for name, figure, caption in made:
        report.picture(figure, name, caption)
    report.config(config)
    page = report.write(folder / "report.html")
    return page, [(folder / f"{name}.png", caption) for name, _, caption in made]


# The trade-off -----------------------------------------------------------------------------------


def trade_off_curve(
    config: TradeOffConfig, open_run: OpenRun | None = None, cache: bool = True
) -> tuple[list[dict[str, Any]], Result]:
    """Trains once for each weight of the bias; the teacher is the same.

    Args:
        config: the run and the weights.
        open_run: gives the folder that remembers each weight, called after all checks.
        cache: whether to use the cache.

    Returns:
        A row for each weight, ``alpha`` with the scores on test nodes and ``val ACC``, ``val dSP``,
        in the order of the weights, and the run of the last weight.
    """
    weights = sorted({float(alpha) for alpha in config.alphas})
    base, data = opened(config.run_of(weights[0]))
    teacher = teacher_of(base, data, cache=cache)
    Distillation(data, teacher, base)  # what cannot be trained is refused here
    run = None if open_run is None else open_run()
    done = {line["alpha"]: line for line in run.metrics()} if run is not None else {}
    rows, result = [], None
    plain: Sequence[Mapping[str, Any]] = ()
    for alpha in weights:
        if alpha not in done or alpha == weights[-1]:  # of the last one the model is shown
            own = None if run is None else partial(Run, run.folder / f"alpha-{alpha:g}")
            result = train(config.run_of(alpha), data, teacher, own, cache=cache)
            if alpha == 0:
                plain = result.history
            line = {"alpha": alpha, **result.scores}
            line |= {f"val {k}": result.val[k] for k in ("ACC", "dSP", "dEO")}
            if run is not None and alpha not in done:
                run.log(epoch=len(done), **line)
            done[alpha] = line
        elif alpha == 0 and run is not None:
            plain = Run(run.folder / "alpha-0").metrics()
        row = dict(done[alpha])
        row.pop("epoch", None)
        rows.append(row)
    assert result is not None
    result.plain_history = plain if result.config.alpha else ()
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


def reproduce(
    config: ReproduceConfig, open_run: OpenRun
) -> tuple[Run, list[Measurement], list[Comparison]]:
    """All seeds of all data sets; a seed that the run has already is not run again.

    Args:
        config: what to run.
        open_run: gives the folder that remembers each seed, called after all checks.

    Returns:
        The run; mean and population standard deviation for each data set, mode, method and metric;
        and the same beside the official log.
    """
    read: list[tuple[TrainConfig, Data, float]] = []
    for dataset in config.dataset:
        for mode in config.mode:
            started = time.perf_counter()
            base, data = opened(_base(dataset, mode, config))
            read.append((base, data, time.perf_counter() - started))
    jobs: list[TrainConfig] = []
    ready: dict[tuple[str, str], tuple[Data, Teacher, float]] = {}
    for base, data, seconds in read:
        started = time.perf_counter()
        teacher = teacher_of(base, data, config.fresh)
        Distillation(data, teacher, base)  # what cannot be trained is refused here
        seconds += time.perf_counter() - started
        ready[base.dataset, base.mode] = data, teacher, seconds
        jobs += [base, replace(base, alpha=0.0)] if config.plain else [base]
    run = open_run()
    done: dict[tuple[Any, ...], dict[str, Any]] = {
        (r["dataset"], r["mode"], r["method"], r["seed"]): r for r in run.metrics()
    }
    with progress("reproduce", total=len(jobs) * config.seeds) as bar:
        for job in jobs:
            method = method_of(job)
            data, teacher, before = ready[job.dataset, job.mode]
            for seed in range(config.seeds):
                key = (job.dataset, job.mode, method, seed)
                if key not in done:
                    name = f"{job.dataset}-{job.mode}-alpha-{job.alpha:g}-seed-{seed}"
                    own = partial(Run, run.folder / name.replace(":", "-"))
                    resumed = own().load() is not None
                    started = time.perf_counter()
                    result = train(replace(job, seed=seed), data, teacher, own, config.fresh)
                    seconds = time.perf_counter() - started
                    line = {
                        "dataset": job.dataset,
                        "mode": job.mode,
                        "method": method,
                        "seed": seed,
                        "kept": result.epoch,
                        "seconds": None if resumed else round(seconds, 2),
                        "seconds of graph and teacher": round(before, 2),
                        **result.scores,
                        "teacher": result.teacher_scores,
                    }
                    run.log(epoch=len(done), **line)
                    done[key] = line
                bar.update(dataset=job.dataset, method=method, ACC=done[key]["ACC"])
    rows = []
    for job in jobs:
        method = method_of(job)
        lines = [done[job.dataset, job.mode, method, seed] for seed in range(config.seeds)]
        if job.alpha != 0:
            values = lines[0]["teacher"]
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
    graphs = {name: statistics(data) for (name, _), (data, _, _) in ready.items()}
    _reproduce_report(run, config, jobs, comparison, done, graphs)
    run.finish({"results": rows, "comparison": [asdict(row) for row in comparison]})
    return run, rows, comparison


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
    keys = ("dataset", "mode", "method", "seed", "kept", *SECONDS, "ACC", "dSP", "dEO")
    report.table([{k: line[k] for k in keys} for line in done.values()], caption="Each seed")
    for dataset in config.dataset:
        points = []
        for line in (line for line in done.values() if line["dataset"] == dataset):
            if line["seed"] == 0:  # the teacher is one for all seeds
                name = f"teacher {config.teacher} ({line['mode']})"
                points.append({"method": name, **line["teacher"]})
            points.append({**line, "method": f"{line['method']} ({line['mode']})"})
        caption = f"{dataset}: accuracy against dSP, a point for each seed"
        report.picture(pictures.trade_off(points), f"trade-off-{dataset}", caption)
    report.config(config)
    report.write(run.folder / "report.html")
