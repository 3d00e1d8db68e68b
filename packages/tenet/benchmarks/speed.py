"""Speed, side by side with named peers (A B A B, medians), one thread unless said otherwise.

    uv run --package tenfold-tenet packages/tenet/benchmarks/speed.py [SCENARIO_FOLDER]

- ``read``: one scenario from parquet and JSON to the tensors of a scene. Peer: reading the same two
  files with av2 (without any tensors). Without a folder a generated scenario is taken.
- ``metrics``: the eight numbers of 25,000 scenarios x 6 modes. Peer: av2's functions, scenario
  by scenario, on 1,000 of them (scaled).
- ``ensemble``: 25,000 x (6 models x 6 modes), merged. Peer: scikit-learn's weighted KMeans with ten
  starts on 200 of them (scaled); the mean ratio of the inertia on those.
- ``submission``: writing and reading 25,000 scenarios. Peer: av2's ChallengeSubmission, reading and
  writing 500 of them (scaled).
- ``inference``: tenet-base, one scene, 64 agents x 128 polylines, no padding; two threads, float32
  and bf16. Peer: the same network without the shortened last layer.

What av2 is needed for is left out where it is not installed. Writes results.json.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tenfold.shared.compute import environment
from tenfold.tenet.clustering import weighted_kmeans
from tenfold.tenet.data.cache import read_scene
from tenfold.tenet.data.generated import write_generated
from tenfold.tenet.data.scene import SceneStore
from tenfold.tenet.evaluation import make_submission, read_submission, scores, write_submission
from tenfold.tenet.kmeans_ensemble import merge_modes
from tenfold.tenet.model import Tenet

SCENARIOS = 25_000


def timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def compare(
    ours: Callable[[], Any],
    peer: Callable[[], Any] | None,
    repeats: int,
    share: float = 1.0,
    loops: tuple[int, int] = (1, 1),
) -> dict[str, Any]:
    """Runs both in turn; the peer's time is scaled to the whole."""
    sides: tuple[list[float], list[float]] = ([], [])
    ours()
    if peer is not None:
        peer()
    for _ in range(repeats):
        sides[0].append(timed(lambda: [ours() for _ in range(loops[0])]) / loops[0])
        if peer is not None:
            seconds = timed(lambda: [peer() for _ in range(loops[1])]) / loops[1]
            sides[1].append(seconds / share)
    row: dict[str, Any] = {"seconds": statistics.median(sides[0])}
    if peer is not None:
        row["peer_seconds"] = statistics.median(sides[1])
        row["ratio"] = statistics.median(b / a for a, b in zip(*sides, strict=True))
    return row


def has_av2() -> bool:
    import importlib.util

    return importlib.util.find_spec("av2") is not None


def reading(folder: Path, repeats: int) -> dict[str, Any]:
    def peer() -> None:
        from av2.datasets.motion_forecasting.scenario_serialization import (
            load_argoverse_scenario_parquet,
        )
        from av2.map.map_api import ArgoverseStaticMap

        load_argoverse_scenario_parquet(folder / f"scenario_{folder.name}.parquet")
        ArgoverseStaticMap.from_json(folder / f"log_map_archive_{folder.name}.json")

    row = compare(lambda: read_scene(folder), peer if has_av2() else None, repeats, loops=(40, 4))
    return row | {"scenarios_per_second": 1 / row["seconds"], "peer": "av2 0.3, reading only"}


def forecasts(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    paths = rng.normal(size=(count, 6, 60, 2)).cumsum(axis=2)
    return paths, rng.dirichlet(np.ones(6), count), rng.normal(size=(count, 60, 2))


def metrics(repeats: int) -> dict[str, Any]:
    paths, p, truth = forecasts(SCENARIOS)
    part = 1000

    def peer() -> None:
        from av2.datasets.motion_forecasting.eval import metrics as official

        for i in range(part):
            official.compute_ade(paths[i], truth[i])
            official.compute_fde(paths[i], truth[i])
            official.compute_is_missed_prediction(paths[i], truth[i])
            official.compute_brier_fde(paths[i], truth[i], p[i], normalize=True)
            official.compute_brier_ade(paths[i], truth[i], p[i], normalize=True)

    row = compare(
        lambda: scores(paths, p, truth), peer if has_av2() else None, repeats, part / SCENARIOS
    )
    return row | {"peer": "av2 0.3"}


def ensembles(repeats: int) -> dict[str, Any]:
    import warnings

    from sklearn.cluster import KMeans

    rng = np.random.default_rng(0)
    middle = rng.normal(size=(SCENARIOS, 1, 6, 2)) * [15, 5]
    spread = rng.uniform(0.5, 4, (SCENARIOS, 1, 1, 1))
    ends = middle + rng.normal(size=(SCENARIOS, 6, 6, 2)) * spread
    ends = ends.reshape(SCENARIOS, 36, 2)
    p = rng.dirichlet(np.ones(6), (SCENARIOS, 6)).reshape(SCENARIOS, 36) / 6
    paths = np.linspace(0, 1, 61)[1:, None] * ends[:, :, None]
    part = 200
    found: list[float] = []

    def peer() -> None:
        found.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for i in range(part):
                model = KMeans(6, n_init=10, random_state=0).fit(ends[i], sample_weight=p[i])
                found.append(model.inertia_)

    row = compare(lambda: merge_modes(paths, p), peer, repeats, part / SCENARIOS)
    ours = weighted_kmeans(ends[:part], p[:part], 6).inertia
    ratio = float((ours / np.array(found)).mean())
    return row | {"inertia_ratio": ratio, "peer": "scikit-learn KMeans, n_init=10, clusters only"}


def submissions(repeats: int) -> dict[str, Any]:
    paths, p, _ = forecasts(SCENARIOS)
    ids = [f"{i:036d}" for i in range(SCENARIOS)]
    whole = make_submission(ids, ["1"] * SCENARIOS, p, paths)
    part = 500
    few = make_submission(ids[:part], ["1"] * part, p[:part], paths[:part])
    with tempfile.TemporaryDirectory() as folder:
        path, other = Path(folder, "a.parquet"), Path(folder, "b.parquet")

        def ours() -> None:
            write_submission(whole, path)
            read_submission(path)

        def peer() -> None:
            from av2.datasets.motion_forecasting.eval.submission import ChallengeSubmission

            from tenfold.tenet.data.official import to_challenge_submission

            to_challenge_submission(few).to_parquet(other)
            ChallengeSubmission.from_parquet(other)

        row = compare(ours, peer if has_av2() else None, repeats, part / SCENARIOS)
        write = statistics.median(timed(lambda: write_submission(whole, path)) for _ in range(3))
        read = statistics.median(timed(lambda: read_submission(path)) for _ in range(3))
    return row | {"write_seconds": write, "read_seconds": read, "peer": "av2 0.3"}


def inference(folder: Path, repeats: int, precision: str) -> dict[str, Any]:
    torch.manual_seed(0)
    model = Tenet().eval()
    batch = SceneStore.of([read_scene(folder)]).batch([0], 64, 128, fixed=True)
    batch.valid[:] = True
    batch.line_valid[:] = True
    batch.state = torch.randn_like(batch.state) * 10
    batch.lines = torch.randn_like(batch.lines) * 10
    focal = torch.zeros_like(batch.scored)
    focal[:, 0] = True
    lower = (
        torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.inference_mode(), lower:
            row = compare(
                lambda: model(batch), lambda: model(batch, focal), max(7, repeats), loops=(3, 3)
            )
    finally:
        torch.set_num_threads(threads)
    return row | {"threads": 2, "precision": precision, "peer": "whole last layer"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("scenario", type=Path, nargs="?")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, Any] = {}
    if options.output.is_file():
        rows = json.loads(options.output.read_text())["results"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.scenario
        if folder is None:
            write_generated(Path(temporary), 1)
            folder = next(Path(temporary).iterdir())
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "read": lambda: reading(folder, options.repeats),
            "metrics": lambda: metrics(options.repeats),
            "ensemble": lambda: ensembles(options.repeats),
            "submission": lambda: submissions(options.repeats),
            "inference float32": lambda: inference(folder, options.repeats, "float32"),
            "inference bf16": lambda: inference(folder, options.repeats, "bf16"),
        }
        for name, part in parts.items():
            if not options.only or name.split()[0] in options.only:
                rows[name] = part()
                print(name, json.dumps(rows[name]), flush=True)
                write(options.output, rows)


def write(path: Path, rows: dict[str, Any]) -> None:
    about = {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "machine": environment(),
        "results": rows,
    }
    path.write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
