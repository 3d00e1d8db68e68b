"""Speed and memory against a naive implementation, in turn (A B A B), on this machine.

    uv run --package tenfold-reliant packages/reliant/benchmarks/speed.py

Needs Recidivism (``tenfold reliant data fetch recidivism``). Two comparisons, the median of the
repeats, and ratios (peer / ours):

- ``CPF + RELIANT epoch``: a step of the student and one of the proxies of PLP with learned proxies,
  J_SP and the attributes kept, in the honest and in the official mode, against the same model that
  scores each edge: gather, softmax by scatter, dropout, message, scatter, all in autograd
  (``per edge``); and against the same with autograd's anomaly detection and with the groups made
  anew from Python sets in each step, as in the released code (``as released``).
- ``edge discriminator``: GraphAKD's loss of all edges and its gradient, in chunks with a closed
  gradient, against autograd over all edges; time, and the most memory that tensors needed.

Threads are those of torch (OMP_NUM_THREADS).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, dropout, normalize, softmax

from tenfold.reliant.data import load
from tenfold.reliant.frameworks import EdgeDiscriminator, upper_entries
from tenfold.reliant.model.plp import PLP
from tenfold.reliant.objective import soft_step
from tenfold.reliant.propagation import Adjacency, adjacency_of
from tenfold.reliant.wrapper import Optimizers, Reliant


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--memory", choices=["ours", "naive"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    data = load("recidivism")
    adjacency = adjacency_of(data.edge_index, data.num_nodes)
    if options.memory:
        print(memory_of(adjacency, options.memory))
        return
    torch.manual_seed(0)
    teacher = torch.randn(data.num_nodes, 2)
    sides: dict[str, Callable[[], object]] = {
        "ours, honest": ours(data, teacher, "append", "train"),
        "ours, official": ours(data, teacher, "overwrite", "unlabelled"),
        "per edge": naive(data, adjacency, teacher, False),
        "as released": naive(data, adjacency, teacher, True),
    }
    rows = [compared("CPF + RELIANT epoch", sides, options.repeats)]
    h = torch.randn(data.num_nodes, 64)
    edge = {
        "ours": lambda: edge_loss(adjacency, h, "ours"),
        "all edges": lambda: edge_loss(adjacency, h, "naive"),
    }
    rows.append(compared("edge discriminator", edge, options.repeats))
    for name, side in (("ours", "ours"), ("all edges", "naive")):
        command = [sys.executable, __file__, "--memory", side]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        rows[-1].setdefault("MiB", {})[name] = round(float(found.stdout.split()[-1]), 1)
    from tenfold.shared.compute import environment

    about = {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "machine": environment(),
        "results": rows,
    }
    options.output.write_text(json.dumps(about, indent=2) + "\n")
    print(json.dumps(rows, indent=2))


def compared(name: str, sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, Any]:
    """Runs the sides in turn, once before the clock and then ``repeats`` times."""
    times: dict[str, list[float]] = {side: [] for side in sides}
    for repeat in range(repeats + 1):
        for side, call in sides.items():
            start = time.perf_counter()
            call()
            if repeat:
                times[side].append(time.perf_counter() - start)
    medians = {side: round(statistics.median(found), 4) for side, found in times.items()}
    first = next(iter(medians))
    ratios = {side: round(value / medians[first], 2) for side, value in medians.items()}
    print(name, medians, ratios, file=sys.stderr)
    return {"what": name, "seconds": medians, f"ratio to {first}": ratios, "repeats": repeats}


def ours(data: Any, teacher: Tensor, attach: Any, nodes: Any) -> Callable[[], object]:
    torch.manual_seed(0)
    width = data.x.shape[1] + (2 if attach == "append" else 0)
    model = Reliant(
        PLP(data, width),
        teacher,
        sensitive=data.sensitive,
        attach=attach,
        fairness_nodes=nodes,
        alpha=1000.0,
    )
    view, optimizers = model.view(data), Optimizers(model, 0.01, 0.01)
    return lambda: model.step(view, optimizers)


class PerEdge(nn.Module):
    """PLP with a score for each edge, from its equations."""

    def __init__(self, data: Any, adjacency: Adjacency, inputs: int) -> None:
        super().__init__()
        nodes = data.num_nodes
        self.attention = nn.Parameter(torch.randn(1, inputs))
        self.mixing = nn.Parameter(torch.zeros(nodes, 1))
        self.first, self.second = nn.Linear(inputs, 64), nn.Linear(64, 2)
        self.source, self.target = adjacency.column.long(), adjacency.row.long()
        self.clamp = data.train_mask[:, None]
        self.labels = nn.functional.one_hot(data.y, 2).float()

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        f = torch.where(self.clamp, self.labels, 0.5)
        for _ in range(9):
            e = (dropout(x, 0.8) * self.attention).sum(1)[self.source]
            top = torch.full((len(x),), -torch.inf).scatter_reduce(0, self.target, e, "amax")
            power = torch.exp(e - top[self.target])
            total = torch.zeros(len(x)).index_add(0, self.target, power)
            weight = dropout(power / total[self.target], 0.2)
            message = weight[:, None] * f[self.source]
            g = torch.zeros_like(f).index_add(0, self.target, message)
            hidden = torch.relu(self.first(dropout(x, 0.8)))
            m = self.second(dropout(hidden, 0.8))
            f = torch.relu(torch.sigmoid(self.mixing) * g + torch.sigmoid(-self.mixing) * m)
            f = torch.where(self.clamp, self.labels, f)
        return f


def naive(data: Any, adjacency: Adjacency, teacher: Tensor, released: bool) -> Callable[[], object]:
    torch.manual_seed(0)
    model = PerEdge(data, adjacency, 20)
    proxies = nn.Parameter(torch.rand(data.num_nodes, 2))
    student = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.01)
    optimizer = torch.optim.Adam([proxies], lr=0.01, weight_decay=0.01)
    target, rest = teacher.softmax(1), (~data.train_mask).nonzero()[:, 0]
    sensitive = data.sensitive

    def groups() -> tuple[Tensor, Tensor]:
        if released:
            chosen = set(rest.tolist())
            both = [set((sensitive == g).nonzero()[:, 0].tolist()) & chosen for g in (0, 1)]
            return torch.tensor(sorted(both[0])), torch.tensor(sorted(both[1]))
        return rest[sensitive[rest] == 0], rest[sensitive[rest] == 1]

    def bias(p: Tensor) -> Tensor:
        zero, one = groups()
        return (soft_step(p[zero]).mean(0) - soft_step(p[one]).mean(0)).square().sum()

    def step() -> None:
        with torch.autograd.set_detect_anomaly(released, check_nan=released):
            mean = proxies.mean(0, keepdim=True).expand(len(proxies), 2)
            p = softmax(model(torch.cat([data.x, mean], 1)), 1)
            loss = (p[rest] - target[rest]).norm() + 1000 * bias(p)
            student.zero_grad()
            loss.backward()
            student.step()
            p = softmax(model(torch.cat([data.x, proxies], 1)), 1)
            optimizer.zero_grad()
            (-1000 * bias(p)).backward()
            optimizer.step()

    return step


def edge_loss(adjacency: Adjacency, h: Tensor, side: str) -> None:
    judge = EdgeDiscriminator(h.shape[1])
    h = h.clone().requires_grad_()
    if side == "ours":
        judge.loss(h, adjacency, 1).backward()
        return
    u = normalize(h, dim=1)
    row, column = adjacency.row.long(), adjacency.column.long()
    score = judge.scale * (judge.direction * u[row] * u[column]).sum(1)
    binary_cross_entropy_with_logits(score, torch.ones_like(score)).backward()


def memory_of(adjacency: Adjacency, side: str) -> float:
    """The growth of this process's peak through one loss and gradient, MiB."""
    h = torch.randn(adjacency.nodes, 64)
    upper_entries(adjacency)
    small = Adjacency(torch.tensor([[0, 1], [1, 0]]), 2)
    edge_loss(small, torch.randn(2, 64), side)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    edge_loss(adjacency, h, side)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


if __name__ == "__main__":
    main()
