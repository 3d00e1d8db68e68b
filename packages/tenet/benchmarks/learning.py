"""Learning on real data: leave one log out, on two sensor logs of Argoverse 2.

    uv run --package tenfold-tenet packages/tenet/benchmarks/learning.py FOLDER_OF_LOGS

Windows of one log train the small model by the recipe `small-data`, windows of the other test it,
and the other way round; with and without the Temporal Flow Header. Beside it: constant velocity,
and the model before it is trained, whose modes are the kinematic references. Writes learning.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tenfold.shared.compute import environment
from tenfold.shared.config import load_recipe
from tenfold.tenet.data.scene import SceneStore, make_scene
from tenfold.tenet.data.sensor import WindowConfig, read_sensor_log, windows
from tenfold.tenet.evaluation import score
from tenfold.tenet.experiments import straight_on
from tenfold.tenet.prediction import PredictConfig, predict
from tenfold.tenet.scenes import truth_of_store
from tenfold.tenet.training import TrainConfig, Training

HISTORY = 15
"""Steps that a training window has at least; test windows have all 50."""


def scenes(folder: Path, config: WindowConfig) -> SceneStore:
    log = read_sensor_log(folder)
    return SceneStore.of([make_scene(scenario, log.lane_map) for scenario in windows(log, config)])


def one_fold(train: Path, test: Path, config: TrainConfig) -> dict[str, Any]:
    """Trains on one log and scores on the other."""
    started = time.process_time()
    known = scenes(train, WindowConfig(stride=2, all_focal=True, min_history=HISTORY))
    held_out = scenes(test, WindowConfig(stride=5, all_focal=True))
    training = Training(config, known)
    cut = PredictConfig(config.val_agents, config.val_lines)
    truth = truth_of_store(held_out)
    untrained = score(predict(training.network, held_out, cut), truth).single
    training.run()
    found = score(predict(training.network, held_out, cut), truth).single
    straight = straight_on(held_out)
    return {
        "flow": config.flow,
        "kinematic": config.kinematic,
        "seed": config.seed,
        "train_log": train.name,
        "test_log": test.name,
        "train_scenes": len(known),
        "test_scenes": len(held_out),
        "cpu_seconds": time.process_time() - started,
        "constant_velocity": straight,
        "untrained": untrained,
        "trained": found,
        "minFDE1_over_cv": found["minFDE1"] / straight["minFDE1"],
        "minFDE6_over_cv": found["minFDE6"] / straight["minFDE1"],
    }


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the seeds."""
    made = []
    keys = sorted({(row["test_log"], row["kinematic"], row["flow"]) for row in rows}, reverse=True)
    for log, kinematic, flow in keys:
        part = [
            r for r in rows if (r["test_log"], r["kinematic"], r["flow"]) == (log, kinematic, flow)
        ]
        mean = {
            name: float(np.mean([row[side][metric] for row in part]))
            for side, metric, name in (
                ("constant_velocity", "minFDE1", "cv FDE"),
                ("untrained", "minFDE1", "untrained minFDE1"),
                ("untrained", "minFDE6", "untrained minFDE6"),
                ("trained", "minFDE1", "minFDE1"),
                ("trained", "minFDE6", "minFDE6"),
            )
        }
        worst = {
            name: max(row[name] for row in part) for name in ("minFDE1_over_cv", "minFDE6_over_cv")
        }
        about = {"test_log": log[:8], "kinematic": kinematic, "flow": flow, "seeds": len(part)}
        made.append(about | mean | {f"worst {k}": v for k, v in worst.items()})
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("logs", type=Path)
    parser.add_argument("--flow", nargs="+", default=["on", "off"], choices=["on", "off"])
    parser.add_argument("--folds", nargs="+", type=int, default=[0, 1], choices=[0, 1])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--kinematic", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--add", action="store_true", help="keep the rows that are in the output")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("learning.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    logs = sorted(path.parent for path in options.logs.glob("*/annotations.feather"))
    if len(logs) != 2:
        raise SystemExit(f"{options.logs}: {len(logs)} logs; expected two")
    base = load_recipe(TrainConfig, "tenet", "small-data")
    rows: list[dict[str, Any]] = []
    if options.add and options.output.is_file():
        rows = json.loads(options.output.read_text())["rows"]
    for seed in options.seeds:
        for flow in options.flow:
            for fold in options.folds:
                config = dataclasses.replace(
                    base, flow=flow == "on", seed=seed, kinematic=options.kinematic, device="cpu"
                )
                rows.append(one_fold(logs[fold], logs[1 - fold], config))
                shown = {k: v for k, v in rows[-1].items() if not isinstance(v, dict)}
                print(json.dumps(shown), flush=True)
                about = {"config": dataclasses.asdict(base), "machine": environment()}
                about |= {"summary": summary(rows), "rows": rows}
                options.output.write_text(json.dumps(about, indent=2) + "\n")
    for row in summary(rows):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
