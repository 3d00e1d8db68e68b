"""Learning on real data: leave one log out, on two sensor logs of Argoverse 2.

    uv run --package tenfold-tenet packages/tenet/benchmarks/learning.py FOLDER_OF_LOGS

Windows of one log train the small model, windows of the other test it, and the other way round;
with and without the Temporal Flow Header. Constant velocity stands beside it. Writes learning.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tenfold.shared.compute import environment
from tenfold.tenet.data.scene import SceneStore, make_scene
from tenfold.tenet.data.sensor import WindowConfig, read_sensor_log, windows
from tenfold.tenet.evaluation import score, scores
from tenfold.tenet.model.baselines import constant_velocity
from tenfold.tenet.prediction import PredictConfig, predict
from tenfold.tenet.scenes import truth_of_store
from tenfold.tenet.training import TrainConfig, Training


def scenes(folder: Path, stride: int) -> SceneStore:
    log = read_sensor_log(folder)
    cut = windows(log, WindowConfig(stride=stride, all_focal=True))
    return SceneStore.of([make_scene(scenario, log.lane_map) for scenario in cut])


def straight_on(store: SceneStore, rule: str) -> dict[str, float]:
    state = np.stack([store[i].state[0] for i in range(len(store))])
    truth = np.stack([store[i].future[0] for i in range(len(store))])
    forecast = constant_velocity(state[..., :2], state[..., 3:], rule)  # type: ignore[arg-type]
    return scores(forecast[:, None], np.ones((len(store), 1)), truth)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("logs", type=Path)
    parser.add_argument("--samples", type=int, default=2000, help="scenes seen in training")
    parser.add_argument("--stride", type=int, default=2, help="of training windows")
    parser.add_argument("--flow", nargs="+", default=["on", "off"], choices=["on", "off"])
    parser.add_argument("--folds", nargs="+", type=int, default=[0, 1], choices=[0, 1])
    parser.add_argument("--evolving", type=float, default=0.0)
    parser.add_argument("--classification", default="cross-entropy")
    parser.add_argument("--from-velocity", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("learning.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    logs = sorted(path.parent for path in options.logs.glob("*/annotations.feather"))
    if len(logs) != 2:
        raise SystemExit(f"{options.logs}: {len(logs)} logs; expected two")
    rows: list[dict[str, Any]] = []
    for flow in options.flow:
        for fold in options.folds:
            train, test = logs[fold], logs[1 - fold]
            started = time.process_time()
            held_out, known = scenes(test, 5), scenes(train, options.stride)
            config = TrainConfig(
                data=f"sensor:{train.name}",
                val="",
                size="tenet-tiny",
                flow=flow == "on",
                from_velocity=options.from_velocity,
                max_agents=12,
                max_lines=32,
                epochs=max(1, round(options.samples / len(known))),
                batch_size=16,
                learning_rate=1e-3,
                evolving=options.evolving,
                classification=options.classification,
                dropout=0.0,
                mirror=True,
                rotate=10.0,
                drop=0.1,
                seed=options.seed,
                device="cpu",
            )
            training = Training(config, known)
            training.run()
            cut = PredictConfig(max_agents=32, max_lines=64)
            found = score(predict(training.network, held_out, cut), truth_of_store(held_out)).single
            straight = {rule: straight_on(held_out, rule) for rule in ("tracker", "last")}
            rows.append(
                {
                    "flow": flow,
                    "train_log": train.name,
                    "test_log": test.name,
                    "train_scenes": len(training.scenes),
                    "test_scenes": len(held_out),
                    "cpu_seconds": time.process_time() - started,
                    **found,
                    "constant_velocity": straight,
                    "minFDE6_over_cv": found["minFDE6"] / straight["tracker"]["minFDE1"],
                    "minFDE1_over_cv": found["minFDE1"] / straight["tracker"]["minFDE1"],
                }
            )
            shown = {k: v for k, v in rows[-1].items() if k != "constant_velocity"}
            print(json.dumps(shown), json.dumps(straight["tracker"]), flush=True)
    about = {"samples": options.samples, "seed": options.seed, "machine": environment()}
    options.output.write_text(json.dumps(about | {"results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
