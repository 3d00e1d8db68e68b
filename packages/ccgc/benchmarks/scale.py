"""Training on a generated graph of any size, with its time and its peak memory.

    uv run --package tenfold-ccgc packages/ccgc/benchmarks/scale.py
    uv run --package tenfold-ccgc packages/ccgc/benchmarks/scale.py --nodes 1000000

A fresh process generates the graph (by default of ogbn-arxiv's size: 169,343 nodes, mean degree
13.8, 128 features, 40 planted clusters), checks and smooths it, trains in mini-batches with the
default protocol, and scores the clusters against the planted ones. ``peak_mib`` is the highest
resident memory of that whole process, libraries and the generation of the graph included
(``resource.getrusage``). ``scale.json`` beside this file keeps the newest row of each size with its
machine and date.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

KEPT = Path(__file__).with_name("scale.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--nodes", type=int, default=169_343)
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--clusters", type=int, default=40)
    parser.add_argument("--hops", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=100, help="steps of one mini-batch each")
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--embedding-dim", type=int, default=500)
    parser.add_argument("--n-init", type=int, default=3)
    parser.add_argument("--refresh-every", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(train(options)))
        return
    command = [sys.executable, __file__, *sys.argv[1:], "--child"]
    made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    row = json.loads(made.stdout) | {"date": f"{datetime.date.today()}"}
    print(json.dumps(row))
    kept = json.loads(KEPT.read_text("utf-8")) if KEPT.is_file() else {}
    rows = dict(sorted((kept | {str(options.nodes): row}).items(), key=lambda pair: int(pair[0])))
    KEPT.write_text(json.dumps(rows, indent=2) + "\n", "utf-8")


def train(options: argparse.Namespace) -> dict[str, Any]:
    """Generates, trains and scores; gives what was measured."""
    import torch

    from tenfold.ccgc.data import as_data, attributed_graph, edges_of
    from tenfold.ccgc.estimators import prepare
    from tenfold.ccgc.evaluation import label_scores
    from tenfold.ccgc.training import TrainConfig
    from tenfold.shared import compute

    marks = [time.perf_counter()]
    data = as_data(
        attributed_graph(options.nodes, options.features, options.clusters, seed=options.seed)
    )
    y = data.y
    marks.append(time.perf_counter())
    generated = peak_mib()
    config = TrainConfig(
        dataset=f"generated:{options.nodes}",
        clusters=options.clusters,
        hops=options.hops,
        learning_rate=options.learning_rate,
        epochs=options.epochs,
        batch_size=options.batch_size,
        embedding_dim=options.embedding_dim,
        n_init=options.n_init,
        refresh_every=options.refresh_every,
        seed=options.seed,
        device=options.device,
    )
    fabric = compute.fabric(options.device)
    training = prepare(data.to(fabric.device), config, fabric)
    marks.append(time.perf_counter())
    found = training.run()
    marks.append(time.perf_counter())
    scores = label_scores(y.cpu().numpy(), found.labels.cpu().numpy())
    generating, smoothing, running = (b - a for a, b in itertools.pairwise(marks))
    return {
        "nodes": options.nodes,
        "edges": edges_of(data),
        "features": options.features,
        "clusters": options.clusters,
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "embedding_dim": options.embedding_dim,
        "threads": torch.get_num_threads(),
        "cpu": compute.cpu_name(),
        "generate_seconds": round(generating, 2),
        "smooth_seconds": round(smoothing, 2),
        "train_seconds": round(running, 2),
        "seconds": round(marks[-1] - marks[0], 2),
        "peak_mib_generated": round(generated),
        "peak_mib": round(peak_mib()),
        "chosen_epoch": found.epoch,
        "ACC": round(scores["ACC"], 2),
        "NMI": round(scores["NMI"], 2),
        "largest_class": round(100 * int(y.bincount().max()) / options.nodes, 2),
    }


def peak_mib() -> float:
    """The highest resident memory of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 1024 if sys.platform != "darwin" else used / 2**20


if __name__ == "__main__":
    main()
