"""The command line: `tenfold tenet VERB`. Each verb parses, calls, and returns what was found."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from tenfold.shared.cli import FLAT, Outcome, Recipe, package_app, table
from tenfold.shared.errors import InputError, did_you_mean
from tenfold.shared.progress import message
from tenfold.shared.runs import Run
from tenfold.tenet.data.scene import SceneConfig
from tenfold.tenet.evaluation.metrics import AdeMode
from tenfold.tenet.experiments import ReproduceConfig
from tenfold.tenet.kmeans_ensemble import EnsembleConfig
from tenfold.tenet.prediction import PredictConfig
from tenfold.tenet.training import TrainConfig

app = package_app("tenet", help="TENET: motion forecasting on Argoverse 2 (challenge 2022, first).")
data_app = App(name="data", help="Lists, fetches, indexes, verifies, converts.", version_flags=())
app.command(data_app)


@app.command
def demo(*, output: Path = Path("runs/tenet/demo")) -> Outcome:
    """Trains the small model on made-up intersections, in under a minute.

    Scenarios with lanes, turns, crossings, cars, cyclists and pedestrians are written in the
    official format and read back; the forecasts are scored by the challenge's rules beside constant
    velocity. Nothing is downloaded.

    Args:
        output: The folder for the report, its pictures and the scenario files.
    """
    from tenfold.shared.report import DemoResult
    from tenfold.tenet.experiments import DEMO_SCENES
    from tenfold.tenet.experiments import demo as run_demo

    found = run_demo(output)
    straight, untrained, trained, no_map = found.rows
    made = DemoResult(
        paper="TENET (Argoverse 2 challenge 2022)",
        task="motion forecasting",
        data=f"{DEMO_SCENES[0]} made-up intersections, {DEMO_SCENES[1]} to test",
        metric="brier-minFDE6, m",
        value=trained["brier-minFDE6"],
        seconds=found.seconds,
        paper_value=1.90,
        note="The paper's value is an ensemble on the Argoverse 2 test split. Constant velocity "
        f"has minFDE {straight['minFDE1']:.2f} m here; the model {trained['minFDE1']:.2f} m with "
        f"one mode and {trained['minFDE6']:.2f} m with six ({untrained['minFDE6']:.2f} m before "
        "training, since its modes start along lanes by the option `kinematic`, which is ours; "
        f"{no_map['minFDE6']:.2f} m when the map is taken away).",
        pictures=found.pictures,
        report=found.page,
    )
    message(f"report: {found.page}")
    return Outcome({"demo": made, "methods": found.rows}, view=table(found.rows))


@app.command
def train(
    *,
    config: Annotated[TrainConfig, FLAT] = TrainConfig(),
    recipe: Recipe = None,
    resume: Path | None = None,
    output: Path = Path("runs"),
) -> Outcome:
    """Trains a model; prints the cost of an epoch, leaves a report with pictures.

    Args:
        config: The run.
        recipe: A recipe of this package, or a TOML file.
        resume: The folder of an interrupted run; its own configuration is used.
        output: The folder of all runs.
    """
    from tenfold.tenet.experiments import train_run

    if resume is not None:
        run, config = Run.resume(resume, config)
    else:
        run = Run.create("tenet", recipe or config.size, config, output)
    found = train_run(config, run)
    return Outcome({"run": run.folder, **found})


@app.command
def evaluate(
    run: Path | None = None,
    *,
    data: str | None = None,
    config: Annotated[PredictConfig, FLAT] = PredictConfig(),
    ade_mode: AdeMode = "independent",
) -> Outcome:
    """Scores the checkpoint of a run by the challenge's rules.

    Args:
        run: The run's folder; by default the newest.
        data: Scenes, as `train --data`; by default those the run was validated on.
        config: Sizes.
        ade_mode: How minADE is taken.
    """
    from tenfold.tenet.experiments import evaluate_run

    folder = Run.open(run) if run is not None else Run.latest("tenet")
    found, _ = evaluate_run(folder, data, config, ade_mode)
    return _score_outcome({"run": folder.folder, **asdict(found)})


@app.command
def predict(
    run: Path,
    data: str,
    *,
    output: Path = Path("predictions.parquet"),
    config: Annotated[PredictConfig, FLAT] = PredictConfig(),
) -> Outcome:
    """Forecasts scenes with the checkpoint of a run: city frame, descending probability.

    Args:
        run: The run's folder.
        data: Scenes, as `train --data`; futures are not needed.
        output: A submission parquet.
        config: Sizes; --worlds forecasts all scored agents jointly.
    """
    submission = _forecast(run, data, config)
    _write(submission, output)
    return Outcome({"output": output, **_counts(submission)})


@app.command
def submit(
    run: Path,
    data: str = "test",
    *,
    output: Path = Path("submission.parquet"),
    config: Annotated[PredictConfig, FLAT] = PredictConfig(),
    split: str | None = None,
) -> Outcome:
    """Writes a submission and checks that it is complete: all scenarios, six modes, sums of one.

    Args:
        run: The run's folder.
        data: Scenes of the split.
        output: The parquet file.
        config: Sizes.
        split: The official split whose number of scenarios is expected; by default `data` if that
            is the name of a split.
    """
    from tenfold.tenet.data.index import SPLITS

    split = split or (data if data in SPLITS else None)
    if split is not None and split not in SPLITS:
        raise InputError(did_you_mean(split, SPLITS, kind="split"))
    submission = _forecast(run, data, config)
    counts = _counts(submission)
    if split is not None and counts["scenarios"] != SPLITS[split]:
        raise InputError(
            f"{data}: {counts['scenarios']} scenarios, the split {split} has {SPLITS[split]}; "
            "a submission must hold all of them"
        )
    _write(submission, output)
    return Outcome({"output": output, **counts})


@app.command(name="export")
def export_verb(
    run: Path, *, output: Annotated[Path, Parameter(alias="-o")] = Path("tenet.onnx")
) -> Outcome:
    """Writes the network of a run for torch alone (.pt2) or onnxruntime (.onnx), and compares it.

    Args:
        run: The run's folder.
        output: The file; its ending says the format. It takes any number of scenes, agents and
            polylines.
    """
    from tenfold.tenet.export import INPUTS, export_model
    from tenfold.tenet.training import load_model

    model, _ = load_model(Run.open(run))
    difference = export_model(model, output)
    size = output.stat().st_size
    found = {"output": output, "bytes": size, "largest_difference_m": difference}
    return Outcome(found | {"inputs": list(INPUTS)})


@app.command(name="ensemble")
def ensemble_verb(
    *submissions: Path,
    output: Annotated[Path, Parameter(alias="-o")] = Path("ensemble.parquet"),
    config: Annotated[EnsembleConfig, FLAT] = EnsembleConfig(),
) -> Outcome:
    """Merges submissions of any models by weighted K-means.

    Args:
        submissions: Two or more parquet files of the challenge, of either historic layout.
        output: The merged submission.
        config: How.
    """
    from tenfold.tenet.evaluation import read_submission
    from tenfold.tenet.kmeans_ensemble import ensemble_submissions

    if not submissions:
        raise InputError("no submission is given; expected parquet files")
    merged = ensemble_submissions([read_submission(path) for path in submissions], config)
    _write(merged, output)
    return Outcome({"output": output, "members": len(submissions), **_counts(merged)})


@app.command(name="score")
def score_verb(
    *,
    submission: Path,
    ground_truth: str,
    ade_mode: AdeMode = "independent",
) -> Outcome:
    """Scores a submission of any model: the challenge's eight numbers, and worlds where there are.

    Args:
        submission: The parquet file.
        ground_truth: The organisers' annotation parquet, or a split or folder of scenarios that
            hold their future.
        ade_mode: independent (official), or fde_best (the ADE of the mode with the smallest FDE).
    """
    from tenfold.tenet.data.index import SPLITS, scan
    from tenfold.tenet.evaluation import read_ground_truth, read_submission, score

    if ground_truth in SPLITS or Path(ground_truth).is_dir():
        truth = read_ground_truth(scan(ground_truth))
    else:
        truth = read_ground_truth(Path(ground_truth))
    found = score(read_submission(submission), truth, ade_mode)
    return _score_outcome({"submission": submission, **asdict(found)})


@app.command
def plot(
    scenario: Path,
    *,
    run: Path | None = None,
    submission: Path | None = None,
    output: Path = Path("scenario.png"),
    animate: bool = False,
) -> Outcome:
    """Draws a scenario: map, history, modes with probabilities, truth.

    Args:
        scenario: The scenario's folder.
        run: Draw the forecast of this run's checkpoint.
        submission: Draw the forecast of this submission.
        output: The picture, .png, .svg or .pdf; with --animate .gif.
        animate: All eleven seconds, moving.
    """
    from tenfold.tenet import pictures
    from tenfold.tenet.data.cache import read_scene
    from tenfold.tenet.data.scene import to_frame
    from tenfold.tenet.evaluation import read_submission

    endings = (".gif",) if animate else (".png", ".svg", ".pdf")
    if output.suffix not in endings:
        raise InputError(f"--output {output}: expected a name that ends in {', '.join(endings)}")
    if not scenario.is_dir():
        raise InputError(f"{scenario}: no such folder; expected the folder of one scenario")
    scene = read_scene(scenario)
    found = None
    if run is not None:
        from tenfold.tenet.prediction import predict as forecast
        from tenfold.tenet.training import load_model

        found, row = forecast(load_model(Run.open(run))[0], [scene]), 0
    elif submission is not None:
        found = read_submission(submission)
        wanted = (scene.scenario_id, scene.track_ids[0])
        pairs = list(zip(found.scenario_ids.tolist(), found.track_ids.tolist(), strict=True))
        if wanted not in pairs:
            raise InputError(f"{submission}: holds no track {wanted[1]} of scenario {wanted[0]}")
        row = pairs.index(wanted)
    path, p = None, None
    if found is not None:
        path = to_frame(found.trajectories[row], scene.origin, scene.heading)
        p = found.probabilities[row]
    if animate:
        pictures.scene_animation(scene, output, path, p)
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        pictures.scene_figure(scene, path, p).savefig(output, dpi=150)
    return Outcome({"output": output, "scenario": scene.scenario_id})


@app.command
def preprocess(
    source: str,
    *,
    output: Path,
    config: Annotated[SceneConfig, FLAT] = SceneConfig(),
    workers: int = 1,
    shard_size: int = 1024,
    scheduler: str | None = None,
) -> Outcome:
    """Makes the memory-mapped cache of a split; goes on where it was interrupted.

    Args:
        source: train, val, test, or a folder of scenarios.
        output: The cache's folder.
        config: What becomes a scene.
        workers: Processes; the files are the same for any number.
        shard_size: Scenarios of a shard.
        scheduler: The address of a Dask scheduler, whose workers then make the shards (extra dask).
    """
    import time

    from tenfold.tenet.data.cache import preprocess as make_cache
    from tenfold.tenet.data.index import scan

    started = time.perf_counter()
    index = scan(source)
    cache = make_cache(index, output, config, shard_size, workers, scheduler)
    seconds = time.perf_counter() - started
    return Outcome(
        {
            "cache": output,
            "scenarios": len(cache),
            "shards": len(cache.shards),
            "bytes": cache.nbytes,
            "seconds": round(seconds, 2),
        }
    )


@app.command
def reproduce(
    *,
    config: Annotated[ReproduceConfig, FLAT] = ReproduceConfig(),
    resume: Path | None = None,
    output: Path = Path("runs"),
) -> Outcome:
    """Trains an ensemble with the reconstruction's settings and puts paper and here side by side.

    The whole data and a GPU are needed for this to mean anything.

    Args:
        config: What to run.
        resume: The folder of an interrupted reproduction; finished members are kept.
        output: The folder of all runs.
    """
    from tenfold.tenet.experiments import reproduce as reproduce_table

    if resume is not None:
        run, config = Run.resume(resume, config)
    else:
        run = Run.create("tenet", "reproduce", config, output)
    rows, comparison = reproduce_table(config, run)
    message(f"report: {run.folder / 'report.html'}")
    data = {"run": run.folder, "results": [asdict(r) for r in rows], "comparison": comparison}
    return Outcome(data, view=table(comparison))


@data_app.command(name="list")
def list_data(*, limit: int | None = None) -> Outcome:
    """Lists the splits: where each is looked for, and the s5cmd command that downloads it.

    Args:
        limit: Write the commands for the first so many scenarios only.
    """
    from tenfold.shared.datasets import data_root
    from tenfold.tenet.data.index import FOLDER, SPLITS, catalogue, s5cmd

    rows = []
    for split, count in SPLITS.items():
        folder = data_root() / FOLDER / split
        here = sum(1 for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else 0
        rows.append(
            {
                "name": split,
                "scenarios": count,
                "here": here,
                "folder": folder,
                "licence": catalogue()[split].licence,
                "s5cmd": s5cmd(split, limit),
            }
        )
    lines = [
        f"{r['name']}: {r['here']:,} of {r['scenarios']:,} scenarios in {r['folder']}\n"
        f"  {r['s5cmd']}"
        for r in rows
    ]
    lines.append(f"licence: {rows[0]['licence']}")
    return Outcome({"datasets": rows}, view="\n".join(lines))


@data_app.command
def fetch(*names: str, limit: int | None = None, accept_licence: bool = False) -> Outcome:
    """Downloads splits: the official archives, or with --limit single scenarios.

    An archive goes on where its download stopped, and is unpacked. With --limit the bucket is
    listed, and the files of the first scenarios are fetched and checked (size, MD5); those that are
    there are kept. `data list` shows the s5cmd commands, which are faster.

    Args:
        names: train, val, test.
        limit: Only the first so many scenarios of each split.
        accept_licence: Your word for CC BY-NC-SA 4.0.
    """
    from tenfold.shared.datasets import fetch as fetch_files
    from tenfold.tenet.data.download import fetch_scenarios
    from tenfold.tenet.data.index import catalogue

    known = catalogue()
    for name in names:
        if name not in known:
            raise InputError(did_you_mean(name, known, kind="split"))
    if not names:
        raise InputError(f"name the splits to fetch: {', '.join(known)}")
    if limit is None:
        folders = {name: fetch_files(known[name], accept_licence) / name for name in names}
        return Outcome({"folders": folders})
    found = {name: fetch_scenarios(name, limit, accept_licence) for name in names}
    return Outcome(
        {
            "folders": {name: folder for name, (folder, _) in found.items()},
            "downloaded": {name: count for name, (_, count) in found.items()},
        }
    )


@data_app.command
def index(source: str, *, output: Path | None = None) -> Outcome:
    """Lists the scenarios of a folder and writes their manifest: sizes and sha256.

    Args:
        source: train, val, test, or a folder of scenarios.
        output: The manifest; by default index.parquet in the folder.
    """
    from tenfold.tenet.data.index import scan, write_manifest

    found = scan(source)
    path = write_manifest(found, output)
    return Outcome({"manifest": path, "scenarios": len(found), "bytes": int(found.sizes.sum())})


@data_app.command
def verify(source: str, *, manifest: Path | None = None, read: bool = True) -> Outcome:
    """Checks a folder: both files of each scenario, their contents, and an earlier manifest.

    Args:
        source: train, val, test (then the official number of scenarios counts), or a folder.
        manifest: From `data index`.
        read: Also read every file.
    """
    from tenfold.tenet.data.index import SPLITS, scan
    from tenfold.tenet.data.index import verify as verify_index

    found = scan(source)
    split = source if source in SPLITS else None
    problems = list(verify_index(found, manifest, read, split))
    data = {"scenarios": len(found), "problems": problems}
    view = table(problems) if problems else f"{len(found):,} scenarios, all whole"
    return Outcome(data, view=view, exit_code=int(bool(problems)))


@data_app.command
def convert(
    logs: Path,
    *,
    output: Path,
    stride: int = 10,
    min_travel: float = 5.0,
    all_focal: bool = False,
) -> Outcome:
    """Converts sensor logs into 11-second scenarios in the official format.

    Windows of one log overlap: keep a log's scenarios in one split.

    Args:
        logs: A log's folder, or a folder of logs.
        output: The folder of the scenarios.
        stride: Frames between two windows.
        min_travel: Metres that a focal track moves at least.
        all_focal: A scenario for each track that may be focal, not only the farthest-moving.
    """
    from tenfold.tenet.data.maps import write_map
    from tenfold.tenet.data.scenario import write_scenario
    from tenfold.tenet.data.sensor import (
        WindowConfig,
        read_sensor_log,
        windows,
        with_centerlines,
    )

    found = [logs] if (logs / "annotations.feather").is_file() else sorted(logs.glob("*/"))
    found = [log for log in found if (log / "annotations.feather").is_file()]
    if not found:
        raise InputError(f"{logs}: holds no annotations.feather; expected sensor logs")
    rows: list[dict[str, Any]] = []
    for path in found:
        log = read_sensor_log(path)
        lane_map = with_centerlines(log.lane_map)
        count = 0
        for scenario in windows(log, WindowConfig(stride, min_travel, all_focal)):
            name = scenario.scenario_id
            write_scenario(scenario, output / name / f"scenario_{name}.parquet")
            write_map(lane_map, output / name / f"log_map_archive_{name}.json")
            count += 1
        rows.append({"log": log.log_id, "city": log.city, "scenarios": count})
    return Outcome({"output": output, "logs": rows}, view=table(rows))


def _forecast(run: Path, data: str, config: PredictConfig) -> Any:
    from dataclasses import replace

    from tenfold.tenet.prediction import predict as forecast
    from tenfold.tenet.scenes import load_scenes
    from tenfold.tenet.training import load_model

    model, trained = load_model(Run.open(run))
    worlds = config.worlds or trained.worlds
    return forecast(model, load_scenes(data), replace(config, worlds=worlds))


def _write(submission: Any, output: Path) -> None:
    from tenfold.tenet.evaluation import write_submission

    write_submission(submission, output)
    message(f"wrote {output}")


def _counts(submission: Any) -> dict[str, int]:
    return {
        "scenarios": len(submission.offsets) - 1,
        "tracks": len(submission),
        "modes": submission.probabilities.shape[1],
    }


def _score_outcome(found: dict[str, Any]) -> Outcome:
    shown = [{"scenarios": found["scenarios"], **found["single"]}]
    worlds = [found["world"]] if found["world"] else []
    from rich.console import Group

    view = Group(
        table(shown, title=f"minADE: {found['ade_mode']}"),
        *(table([row], title="worlds") for row in worlds),
    )
    return Outcome(found, view=view)
