"""What the verbs do with a run: train, evaluate, compare with the paper, and the report."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.shared.errors import InputError
from tenfold.shared.progress import message
from tenfold.shared.published import Comparison, compare, published
from tenfold.shared.report import Report
from tenfold.shared.runs import Measurement, Run
from tenfold.tenet import pictures
from tenfold.tenet.data.cache import ShardedStore
from tenfold.tenet.data.scene import SceneStore, to_frame
from tenfold.tenet.evaluation import AdeMode, Score, Submission, score, scores
from tenfold.tenet.kmeans_ensemble import ensemble_submissions
from tenfold.tenet.model.baselines import constant_velocity
from tenfold.tenet.objective import PARTS
from tenfold.tenet.prediction import PredictConfig, predict
from tenfold.tenet.scenes import load_scenes, truth_of_store
from tenfold.tenet.training import TrainConfig, Training, load_model

Scenes = SceneStore | ShardedStore
METHOD = "TENET"


def dataset_name(source: str) -> str:
    """Names a source of scenes in tables."""
    return Path(source).name if not source.startswith(("generated", "sensor")) else source


def straight_on(store: Scenes) -> dict[str, float]:
    """Scores constant velocity (the tracker's) on scenes; one mode, so K = 1 and 6 agree."""
    past = [store[index] for index in range(len(store))]
    state = np.stack([scene.state[0] for scene in past])
    made = constant_velocity(state[..., :2], state[..., 3:])
    valid = np.stack([scene.future_valid[0] for scene in past])
    return scores(
        made[:, None],
        np.ones((len(past), 1)),
        np.stack([scene.future[0] for scene in past]),
        valid=None if valid.all() else valid,
    )


def train_run(config: TrainConfig, run: Run) -> dict[str, Any]:
    """Trains (or goes on), scores the validation scenes, writes report and result.

    Returns:
        What is found: scores here and of constant velocity, parameters, seconds an epoch.
    """
    scenes = load_scenes(config.data)
    val = load_scenes(config.val) if config.val else None
    training = Training(config, scenes, val)
    message(
        f"{len(scenes):,} scenes, {training.steps_per_epoch} steps an epoch, "
        f"{sum(p.numel() for p in training.network.parameters()):,} parameters"
    )
    last = training.run(run)
    history = run.metrics()
    seconds = float(np.median([row["seconds"] for row in history]))
    found: dict[str, Any] = {
        "scores": {k: v for k, v in last.items() if k not in PARTS},
        "constant_velocity": straight_on(val) if val is not None else None,
        "parameters": sum(p.numel() for p in training.network.parameters()),
        "seconds_per_epoch": seconds,
        "scenes": len(scenes),
    }
    rows: list[dict[str, Any]] = []
    if val is not None:
        rows = [
            {"method": "constant velocity", **found["constant_velocity"]},
            {"method": "TENET", **{k: found["scores"][k] for k in found["constant_velocity"]}},
        ]
        shown = PredictConfig(config.val_agents, config.val_lines)
        forecasts = predict(training.network, first_scenes(val, 4), shown)
        page = write_report(run.folder, "TENET", rows, history, config, val, forecasts)
    else:
        page = write_report(run.folder, "TENET", rows, history, config, None, None)
    message(f"{seconds:.1f} s an epoch ({found['scenes'] / seconds:.0f} scenes/s); report: {page}")
    name = dataset_name(config.val or config.data)
    results = [
        Measurement(dataset=name, method=METHOD, metric=metric, value=value)
        for metric, value in found["scores"].items()
    ]
    run.finish({"results": results, **found})
    return found


def first_scenes(store: Scenes, count: int) -> SceneStore:
    """Takes the first few scenes."""
    return SceneStore.of([store[index] for index in range(min(count, len(store)))])


def write_report(
    folder: Path,
    title: str,
    rows: list[dict[str, Any]],
    history: list[dict[str, Any]],
    config: Any,
    store: Scenes | None,
    forecasts: Submission | None,
    animate: int = 1,
) -> Path:
    """Writes report.html with its pictures beside it.

    Args:
        folder: Where.
        title: The heading.
        rows: The table of methods.
        history: The lines of metrics.jsonl.
        config: The configuration.
        store: Scenes to draw.
        forecasts: Of the first of them.
        animate: How many are drawn moving as well.
    """
    report = Report(title, "motion forecasting, Argoverse 2 protocol")
    report.text(
        "minADE and minFDE are minima over the modes taken independently, as in the official "
        "script; brier-minFDE6 ranks. Metres; MR is a share."
    )
    if rows:
        report.table(rows, caption="On the validation scenes")
    if history:
        report.picture(pictures.training_curves(history), "training", "Loss and validation scores")
    if store is not None and forecasts is not None:
        for index in range(len(forecasts)):
            scene = store[index]
            path = to_frame(forecasts.trajectories[index], scene.origin, scene.heading)
            figure = pictures.scene_figure(scene, path, forecasts.probabilities[index])
            report.picture(figure, f"scene-{index + 1}", f"Scenario {scene.scenario_id}")
            if index < animate:
                moving = folder / f"moving-{index + 1}.gif"
                pictures.scene_animation(scene, moving, path, forecasts.probabilities[index])
                report.picture(moving, f"moving-{index + 1}", "The same in eleven seconds")
    report.config(config)
    return report.write(folder / "report.html")


def evaluate_run(
    run: Run, source: str | None, config: PredictConfig, ade_mode: AdeMode
) -> tuple[Score, Submission]:
    """Scores the checkpoint of a run on scenes (by default those it was validated on)."""
    model, trained = load_model(run)
    source = source or trained.val
    if not source:
        raise InputError("the run has no validation scenes; name some")
    scenes = load_scenes(source)
    submission = predict(model, scenes, replace(config, worlds=config.worlds or trained.worlds))
    return score(submission, truth_of_store(scenes), ade_mode), submission


@dataclass(frozen=True)
class ReproduceConfig:
    """The paper's number: an ensemble of several trainings, brier-minFDE6."""

    data: str = "train"
    """Training scenes: a cache of `preprocess train`, or a folder."""
    val: str = "val"
    """Scenes that are scored. The paper's number is on the test split, whose truth is a parquet of
    its own (`submit`, then `score`)."""
    size: str = "tenet-base"
    """tenet-tiny, tenet-base or tenet-large."""
    members: int = 6
    """Trainings with the seeds 0, 1, 2, ...; the paper's number of members is unknown."""
    epochs: int = 60
    """Passes of each training."""
    batch_size: int = 128
    """Scenes a step."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""

    def __post_init__(self) -> None:
        """Refuses an empty ensemble."""
        if self.members < 1:
            raise InputError(f"members={self.members}; expected >= 1")


def reproduce(config: ReproduceConfig, run: Run) -> tuple[list[Measurement], list[Comparison]]:
    """Trains the members (those that are finished are not trained again), merges and scores them.

    Returns:
        The measurements of the ensemble and of the single models, and beside the paper's.
    """
    val = load_scenes(config.val)
    truth = truth_of_store(val)
    submissions = []
    singles: list[dict[str, float]] = []
    for seed in range(config.members):
        folder = run.folder / f"member-{seed}"
        member = TrainConfig(
            data=config.data,
            val=config.val,
            size=config.size,
            epochs=config.epochs,
            batch_size=config.batch_size,
            validate_every=config.epochs,
            seed=seed,
            device=config.device,
        )
        sub = _member(folder, member)
        if not sub.finished:
            train_run(member, sub)
        model, _ = load_model(sub)
        submission = predict(model, val)
        submissions.append(submission)
        singles.append(score(submission, truth).single)
        message(f"member {seed}: brier-minFDE6 {singles[-1]['brier-minFDE6']:.4f}")
    merged = score(ensemble_submissions(submissions), truth).single
    name = dataset_name(config.val)
    rows = [
        Measurement(dataset=name, method=METHOD, metric=metric, value=value, protocol="ensemble")
        for metric, value in merged.items()
    ]
    rows += [
        Measurement(
            dataset=name,
            method=f"{METHOD} (single)",
            metric=metric,
            value=float(np.mean([single[metric] for single in singles])),
            std=float(np.std([single[metric] for single in singles])),
            n=len(singles),
            protocol="single",
        )
        for metric in merged
    ]
    comparison = compare(published("tenet"), rows)
    report = Report("TENET: the challenge's numbers", f"{config.members} members")
    report.text(
        "The paper's numbers are on the test split; a difference to another split is no comparison."
    )
    report.table(comparison, caption="Paper / here")
    report.config(config)
    report.write(run.folder / "report.html")
    run.finish({"results": rows, "comparison": [dataclasses.asdict(row) for row in comparison]})
    return rows, comparison


def _member(folder: Path, config: TrainConfig) -> Run:
    """Opens the run of one member, or makes it."""
    if not (folder / "config.toml").is_file():
        made = Run.create("tenet", folder.name, config, folder.parent)
        made.folder.rename(folder)
    return Run.open(folder)


@dataclass
class DemoOutcome:
    """What the demo found."""

    rows: list[dict[str, Any]]
    """Constant velocity, TENET before training, TENET, TENET without the map."""
    page: Path
    pictures: list[tuple[Path, str]]
    seconds: float


DEMO_SCENES = (600, 100)
"""Scenarios to train on and to test on."""


def demo(output: Path) -> DemoOutcome:
    """Makes scenarios, writes and reads them as official files, trains the small model, scores it.

    Args:
        output: For the report, its pictures and the scenario files of the validation part.
    """
    from tenfold.tenet.data.generated import write_generated

    started = time.perf_counter()
    files = output / "scenarios"
    write_generated(files, DEMO_SCENES[1], seed=1)
    config = TrainConfig(
        data=f"generated:{DEMO_SCENES[0]}",
        val=str(files),
        size="tenet-tiny",
        kinematic=True,
        likeliest_weight=0.5,
        mirror=True,
        dropout=0.0,
        max_agents=2,
        max_lines=48,
        val_agents=8,
        val_lines=64,
        epochs=2,
        batch_size=8,
        validate_every=2,
        device="cpu",
    )
    scenes, val = load_scenes(config.data), load_scenes(config.val)
    truth = truth_of_store(val)
    cut = PredictConfig(config.val_agents, config.val_lines)
    training = Training(config, scenes)
    forecasts = {"TENET (tiny), not trained": predict(training.network, val, cut)}
    training.run()
    forecasts["TENET (tiny)"] = predict(training.network, val, cut)
    no_map = replace(cut, max_lines=0)
    forecasts["TENET (tiny), map taken away"] = predict(training.network, val, no_map)
    rows = [{"method": "constant velocity", **straight_on(val)}]
    rows += [{"method": k, **score(found, truth).single} for k, found in forecasts.items()]
    shown = predict(training.network, first_scenes(val, 4), cut)
    page = write_report(output, "TENET on made-up intersections", rows, [], config, val, shown)
    made = [(output / f"scene-{i + 1}.png", "Six modes, truth dotted") for i in range(4)]
    made.append((output / "moving-1.gif", "The same in eleven seconds"))
    return DemoOutcome(rows, page, made, time.perf_counter() - started)
