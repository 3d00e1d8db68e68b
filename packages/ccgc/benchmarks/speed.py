"""Speed and memory against named peers, in turn (A B A B), on this machine.

    uv run --isolated --package tenfold-ccgc --group bench packages/ccgc/benchmarks/speed.py

Four comparisons on each graph, the median of the repeats, and ratios (peer / ours):

- ``train``: ``CCGC`` with its defaults (protocol final, 400 epochs; the choice of hops, space and
  epoch, k-means and the read-out included) against NS4GC of PyAGC followed by its k-means head,
  the same number of epochs. PyAGC has no CCGC. NS4GC is the closest of its methods: two views of
  each node, the cross-view similarity matrix ``Z1 Z2^T`` whose diagonal is pulled to 1 and whose
  other entries are pushed down (CCGC's warm-up is the mean squared error of the same matrix),
  full batches, and k-means on the final embedding; it is also the best of PyAGC's own table on
  Cora. MAGI and DinkNet are guided by clusters too, but MAGI draws its pairs by random walks,
  which need torch-sparse, and DinkNet discriminates shuffled nodes and has one view. NS4GC gets
  the encoder of PyAGC's quickstart, one GCN layer, of width 500 here, and the augmentations of
  its docstring's example.
- ``k-means``: ours against scikit-learn's on the smoothed features: k-means++, 10 starts, tolerance
  1e-4, at most 300 iterations; the inertia of both.
- ``warm-up loss``: forward and backward in closed form against the N x N definition.
- ``smoothed product``: ``X~ W`` (W: D x 1000) and its gradient, factored against dense; on graphs
  where the dense form is cheaper the package takes that one, and the table says so.

Each run is a process of its own, with a short call first, so that imports do not count; memory is
what it needed at its highest point above what it held before, in MiB. The group ``bench`` brings
PyAGC; the python of another environment that has it can be given instead:

    uv venv pyagc-env && uv pip install --python pyagc-env/bin/python pyagc torch==2.15.0
    uv run --package tenfold-ccgc …/speed.py --pyagc pyagc-env/bin/python

Without either, that comparison is left out.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import gc
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

HOPS, WIDTH = 4, 500
PAIRS = {  # comparison: what is ours, what is the peer
    "train": ("CCGC", "NS4GC (PyAGC)"),
    "k-means": ("tenfold", "scikit-learn"),
    "warm-up loss": ("closed form", "N x N"),
    "smoothed product": ("factored", "dense"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--datasets", nargs="+", default=["cora", "bat", "digits"])
    parser.add_argument("--only", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--repeats", type=int, default=3, help="processes for each side")
    parser.add_argument("--epochs", type=int, default=400, help="of both sides of train")
    parser.add_argument("--quick", action="store_true", help="one repeat, 60 epochs")
    parser.add_argument("--pyagc", help="the python of an environment with pyagc")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(**json.loads(options.worker))))
        return
    if options.quick:
        options.repeats, options.epochs = 1, 60
    pyagc = options.pyagc or (sys.executable if importlib.util.find_spec("pyagc") else None)
    only = [name for name in options.only if name != "train" or pyagc]
    if only != options.only:
        print("train: pyagc is not here; give --pyagc PYTHON", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        for dataset in options.datasets:
            graph = write_graph(dataset, Path(folder))
            for name in only:
                row = compare(dataset, name, graph, options, pyagc)
                print(line(row), flush=True)
                write(row, options.output)
    print(f"written: {options.output}", file=sys.stderr)


def write(row: dict[str, Any], path: Path) -> None:
    """Puts one result into the file, in the place of an earlier one of the same comparison."""
    from tenfold.shared.compute import environment
    from tenfold.shared.files import write_atomic

    about = {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": ["speed.py", *sys.argv[1:]],
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
    before = json.loads(path.read_text())["results"] if path.is_file() else []
    key = ("dataset", "comparison")
    kept = [other for other in before if any(other[k] != row[k] for k in key)]
    content = {"machine": environment(), "results": [*kept, row | about]}
    write_atomic(path, json.dumps(content, indent=2) + "\n")


def write_graph(dataset: str, folder: Path) -> Path:
    """Puts a graph into a file that every environment can read."""
    from tenfold.ccgc.data import load

    data = load(dataset)
    path = folder / f"{dataset}.npz"
    x = data.x.float().numpy()
    np.savez(path, x=x, edge_index=data.edge_index.numpy(), y=data.y.numpy())
    return path


def compare(
    dataset: str, name: str, graph: Path, options: argparse.Namespace, pyagc: str | None
) -> dict[str, Any]:
    """Runs both sides in turn and gives their medians and ratios."""
    runs: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for _ in range(options.repeats):
        for side, (found, method) in enumerate(zip(runs, PAIRS[name], strict=True)):
            python = pyagc if name == "train" and side else sys.executable
            task = {"name": name, "side": side, "graph": str(graph), "epochs": options.epochs}
            command = [str(python), __file__, "--worker", json.dumps(task)]
            answer = subprocess.run(command, capture_output=True, text=True, timeout=3600)
            if answer.returncode:
                raise SystemExit(f"{dataset}, {method}: {answer.stderr}")
            found.append(json.loads(answer.stdout.splitlines()[-1]))
    ours, peer = (
        {
            "name": method,
            "seconds": statistics.median(run["seconds"] for run in found),
            "peak_mib": statistics.median(run["peak_mib"] for run in found),
            **{k: found[0][k] for k in ("inertia", "chosen", "epochs", "loss") if k in found[0]},
            **({"ACC": accuracy(graph, found[0]["labels"])} if "labels" in found[0] else {}),
        }
        for method, found in zip(PAIRS[name], runs, strict=True)
    )
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(*runs, strict=True)]
    return {
        "dataset": dataset,
        "comparison": name,
        "repeats": options.repeats,
        "ours": ours,
        "peer": peer,
        "time_ratio": statistics.median(ratios),
        "memory_ratio": peer["peak_mib"] / max(ours["peak_mib"], 1.0),
    }


def accuracy(graph: Path, labels: list[int]) -> float:
    from tenfold.ccgc import label_scores

    return round(label_scores(np.load(graph)["y"], np.array(labels))["ACC"], 2)


def line(row: dict[str, Any]) -> str:
    sides = "  ".join(
        f"{side['name']} {side['seconds']:.4g} s {side['peak_mib']:.0f} MiB"
        + "".join(f" {k} {side[k]:.6g}" for k in ("ACC", "inertia", "loss") if k in side)
        for side in (row["ours"], row["peer"])
    )
    chosen = f"  (taken: {row['ours']['chosen']})" if "chosen" in row["ours"] else ""
    return (
        f"{row['dataset']:9} {row['comparison']:17} {sides}{chosen}  "
        f"time x{row['time_ratio']:.2f} memory x{row['memory_ratio']:.2f}"
    )


# In the process of one run ---------------------------------------------------------------------


def work(name: str, side: int, graph: str, epochs: int) -> dict[str, Any]:
    """One side of one comparison: seconds, peak memory, and what came out."""
    stored = np.load(graph)
    x, edge_index, y = (torch.as_tensor(stored[key]) for key in ("x", "edge_index", "y"))
    clusters = len(y.unique())
    if name == "train":
        prepare = prepare_ns4gc if side else prepare_ccgc
        prepare(x, edge_index, clusters, 52)()
        result, seconds, peak = measured(prepare(x, edge_index, clusters, epochs))
        return {"seconds": seconds, "peak_mib": peak, "epochs": epochs, "labels": result}
    prepare_part = {
        "k-means": prepare_kmeans,
        "warm-up loss": prepare_loss,
        "smoothed product": prepare_product,
    }[name]
    call, about = prepare_part(x, edge_index, clusters, side)
    call()
    result, first, peak = measured(call)
    times = [first]
    while sum(times) < 2 and len(times) < 10:
        times.append(measured(call)[1])
    return {"seconds": statistics.median(times), "peak_mib": peak, **about, **result}


def measured(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, the seconds, and the MiB above what the process held before."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what earlier calls left is not to be reused unseen
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    except (AttributeError, OSError) as error:
        raise SystemExit("the peak memory of one call is only known on Linux") from error
    before = memory("VmRSS")
    started = time.perf_counter()
    result = call()
    return result, time.perf_counter() - started, memory("VmHWM") - before


def memory(key: str) -> float:
    """A line of /proc/self/status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(text.split()[1]) for text in lines if text.startswith(key)) / 1024


def prepare_ccgc(
    x: torch.Tensor, edge_index: torch.Tensor, clusters: int, epochs: int
) -> Callable[[], list[int]]:
    from torch_geometric.data import Data

    from tenfold.ccgc import CCGC

    data = Data(x=x, edge_index=edge_index)
    estimator = CCGC(clusters, epochs=epochs, device="cpu")
    return lambda: estimator.fit_predict(data).tolist()


def prepare_ns4gc(
    x: torch.Tensor, edge_index: torch.Tensor, clusters: int, epochs: int
) -> Callable[[], list[int]]:
    from pyagc.clusters import KMeansClusterHead
    from pyagc.encoders import create_tuned_gnn
    from pyagc.models import NS4GC
    from pyagc.transforms import GSSLTransform
    from torch_geometric.data import Data

    data = Data(x=x, edge_index=edge_index)

    def train() -> list[int]:
        torch.manual_seed(0)
        encoder = create_tuned_gnn(
            gnn_type="gcn", in_channels=x.shape[1], hidden_channels=WIDTH, num_layers=1
        )
        views = [GSSLTransform(p_feat_mask=0.2, p_edge_drop=0.3) for _ in range(2)]
        model = NS4GC(encoder, *views)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for epoch in range(1, epochs + 1):
            model.train_full(data, optimizer, epoch, verbose=False)
        z = model.infer_full(data)
        return KMeansClusterHead(clusters, n_init=10, random_state=0).fit_predict(z).tolist()

    return train


Part = tuple[Callable[[], dict[str, Any]], dict[str, Any]]


def prepare_kmeans(x: torch.Tensor, edge_index: torch.Tensor, clusters: int, side: int) -> Part:
    from sklearn.cluster import KMeans

    from tenfold.ccgc.kmeans import kmeans
    from tenfold.ccgc.smoothing import smooth

    rows = smooth(x, edge_index, HOPS)
    if side:
        peer = KMeans(clusters, n_init=10, random_state=0, algorithm="lloyd")
        return lambda: {"inertia": float(peer.fit(rows.numpy()).inertia_)}, {}
    seeded = torch.Generator()
    return lambda: {
        "inertia": kmeans(rows, clusters, n_init=10, generator=seeded.manual_seed(0)).inertia
    }, {}


def prepare_loss(x: torch.Tensor, edge_index: torch.Tensor, clusters: int, side: int) -> Part:
    from torch.nn.functional import mse_loss, normalize

    from tenfold.ccgc.objective import warm_up_loss

    torch.manual_seed(0)
    views = [normalize(torch.randn(len(x), WIDTH)).requires_grad_() for _ in range(2)]

    def call() -> dict[str, Any]:
        z1, z2 = views
        loss = mse_loss(z1 @ z2.T, torch.eye(len(x))) if side else warm_up_loss(z1, z2)
        torch.autograd.grad(loss, views)
        return {"loss": float(loss.detach())}

    return call, {}


def prepare_product(x: torch.Tensor, edge_index: torch.Tensor, clusters: int, side: int) -> Part:
    from tenfold.ccgc.smoothing import SmoothedFeatures, normalized_adjacency

    operator = normalized_adjacency(edge_index, len(x))
    features = SmoothedFeatures(operator, x, HOPS, factored=not side)
    chosen = "factored" if SmoothedFeatures(operator, x, HOPS).factored else "dense"
    torch.manual_seed(0)
    weight = torch.randn(x.shape[1], 2 * WIDTH, requires_grad=True)
    above = torch.randn(len(x), 2 * WIDTH)

    def call() -> dict[str, Any]:
        torch.autograd.grad(features @ weight, weight, above)
        return {}

    return call, {"chosen": chosen}


if __name__ == "__main__":
    main()
