"""What the label-free choice of ``final`` costs against a choice by the true labels.

    TENFOLD_DATA=… uv run --package tenfold-ccgc packages/ccgc/benchmarks/choice.py

Each setting (space, hops, learning rate) is trained to its end; beside what the rule takes stand
the best that labels could have taken among the same trainings: the setting (its epoch still chosen
without labels), and the setting and the epoch. The labels are used for this table alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from tenfold.ccgc.estimators import prepare
from tenfold.ccgc.evaluation import label_scores
from tenfold.ccgc.experiments import chosen, opened
from tenfold.ccgc.settings import COMMUNITIES
from tenfold.ccgc.training import TrainConfig, Training
from tenfold.shared.compute import environment

RANGES = {"narrow": (3, 4, 5), "wide": (2, 3, 4)}
RATES = (1e-4, 1e-3)
PAIRS = {
    "communities": [(space, h) for space, hops in RANGES.items() for h in hops],
    "roles": [("wide", hops) for hops in (4, 6, 8, 12, 16, 24)],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--datasets", nargs="+", default=["bat", "eat", "uat", "cora", "citeseer", "amap"]
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("choice.json"))
    options = parser.parse_args()
    known = json.loads(options.output.read_text())["results"] if options.output.is_file() else []
    rows = [row for row in known if row["dataset"] not in options.datasets]
    for dataset in options.datasets:
        rows.append(choices(dataset, options.seed))
        print(rows[-1], flush=True)
        about = {"machine": environment(), "results": rows}
        options.output.write_text(json.dumps(about, indent=2) + "\n")
    print(f"written: {options.output}", file=sys.stderr)


def choices(dataset: str, seed: int) -> dict[str, Any]:
    """Accuracies on one data set, in percent."""
    experiment = chosen(opened(TrainConfig(dataset=dataset, seed=seed, device="cpu")))
    taken, data = experiment.config, experiment.data
    y = data.y.numpy()
    kind = "communities" if taken.learning_rate == COMMUNITIES[1] else "roles"
    tried: dict[str, tuple[float, float]] = {}
    for (space, hops), rate in itertools.product(PAIRS[kind], RATES):
        config = replace(taken, space=space, hops=hops, learning_rate=rate)
        training = prepare(data, config, experiment.fabric)
        every: list[float] = []

        def look(training: Training, metrics: dict[str, Any], every: list[float] = every) -> None:
            if metrics["epoch"] >= training.first_choice:
                every.append(label_scores(y, training.labels.numpy())["ACC"])

        final = label_scores(y, training.run(look).labels.numpy())["ACC"]
        tried[f"{space} {hops} {rate:g}"] = (final, max(every))
    rule = f"{taken.space} {taken.hops} {taken.learning_rate:g}"
    by_labels = max(tried, key=lambda setting: tried[setting][0])
    return {
        "dataset": dataset,
        "kind": kind,
        "rule": rule,
        "ACC": round(tried[rule][0], 2),
        "setting by labels": by_labels,
        "ACC, setting by labels": round(tried[by_labels][0], 2),
        "ACC, setting and epoch by labels": round(max(map(max, tried.values())), 2),
        "all": {setting: round(final, 2) for setting, (final, _) in tried.items()},
    }


if __name__ == "__main__":
    main()
