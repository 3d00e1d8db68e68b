"""Trains with two processes, for test_two_processes.py: whole, interrupted and resumed, shards."""

import sys
from pathlib import Path

import torch

from tenfold.emo.data.images import digits
from tenfold.emo.settings import TrainConfig
from tenfold.emo.tasks import task
from tenfold.emo.training import train
from tenfold.shared import compute
from tenfold.shared.runs import Run

torch.set_num_threads(1)
folder = Path(sys.argv[1])
fabric = compute.fabric("cpu", 2)
tiny = {
    "epochs": 2, "batch_size": 16, "warmup_epochs": 1, "ema": 0.9, "device": "cpu", "devices": 2,
    "image_size": 32, "window": (4, 4, 2, 1), "evaluate_every": 1,
}  # fmt: skip


def job():
    made = task(TrainConfig(in_chans=1, drop_path=0.5, learning_rate=2e-3, **tiny))
    made.val = torch.utils.data.Subset(made.val, range(0, 360, 10))
    made.train_data = lambda rank, world: torch.utils.data.Subset(digits(32), range(64))
    return made


class Killed(Exception):
    pass


def kill(epoch, metrics):
    raise Killed


found = {"whole": train(job(), fabric)}
run = Run.create("emo", "two", job().config, folder / "runs")
try:
    train(job(), fabric, run, kill)
except Killed:
    fabric.barrier()
found["resumed"] = train(job(), fabric, run)
# Three shards of twelve samples: the first process has twice as many as the second.
shards = TrainConfig(
    data=str(folder / "shards"), val_split="train", shard_samples=36, **tiny | {"batch_size": 4}
)
found["shards"] = train(task(shards), fabric)
torch.save(
    {
        name: {"net": net.state_dict(), "ema": ema.state_dict(), "result": result}
        for name, (net, ema, result) in found.items()
    },
    folder / f"{fabric.global_rank}.pt",
)
