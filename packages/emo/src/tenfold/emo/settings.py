"""What a run is, and the learning rate of each of its steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from tenfold.shared.errors import InputError, did_you_mean

TaskName = Literal["classification", "detection", "segmentation"]
Schedule = Literal["cosine", "cosine-epoch", "poly", "half-cosine"]

_HEADS: dict[str, tuple[str, ...]] = {
    "classification": ("linear",),
    "detection": ("ssdlite", "retinanet"),
    "segmentation": ("deeplabv3", "pspnet", "semantic-fpn", "segformer"),
}


@dataclass(frozen=True)
class TrainConfig:
    """One training. The defaults are those of a small classifier; recipes hold the paper's."""

    task: TaskName = "classification"
    """classification, detection (COCO) or segmentation (ADE20K)."""
    model: str = "emo_1m"
    """A model of this package: emo_1m, emo_2m, emo_5m, emo_6m, emo2_1m, …."""
    head: str = "linear"
    """linear; ssdlite, retinanet; deeplabv3, pspnet, semantic-fpn, segformer."""
    data: str = "digits"
    """digits; a folder or zip with train/<class>/ and val/<class>/; a folder of tar shards
    (train-*.tar, val-*.tar, classes.txt), or its http(s) address, from which they are streamed;
    the folder of COCO or of ADE20K."""
    train_split: str = "train"
    """The folder, or the beginning of the shards' names, to train on; at an address the names
    themselves, as in `train-{000000..000146}.tar`."""
    val_split: str = "val"
    """The folder, or the shards, to evaluate on."""
    shard_samples: int | None = None
    """Samples in all training shards, needed for shards: an epoch's steps are counted by it, and
    each process reads its shards again until it has made as many."""
    image_size: int = 224
    """Side of the image; for retinanet the shorter side."""
    window: tuple[int, ...] = (7,)
    """Side of an attention group: one number, or one for each of the stages 1–4."""
    in_chans: int = 3
    """Channels of the image."""
    drop_path: float | None = None
    """The largest rate of stochastic depth; by default the model's published one."""
    weights: Path | None = None
    """A checkpoint of the classifier to start from; its head is left out where it does not fit."""
    randaugment: str = "rand-m9-mstd0.5-inc1"
    """timm's policy for classification; empty for none."""
    crop_scale: float = 0.08
    """The smallest share of the picture that a training crop takes (classification)."""
    crop: float = 0.875
    """Share of the shorter side that the test crop takes (classification)."""
    smoothing: float = 0.1
    """Label smoothing (classification)."""
    epochs: int = 300
    """Passes over the training data, `repeat` included."""
    max_steps: int | None = None
    """Ends the training after this many steps; the schedule then counts to it."""
    repeat: int = 1
    """How often the data counts in one epoch."""
    limit: int | None = None
    """Only this many training images (detection)."""
    batch_size: int = 256
    """Images a step on each device."""
    learning_rate: float = 6e-3
    """The peak learning rate."""
    head_rate: float = 1.0
    """Factor of the learning rate of everything but the backbone."""
    min_rate: float = 1e-6
    """The learning rate at the end."""
    warmup_rate: float = 1e-6
    """The learning rate at the beginning."""
    warmup_epochs: int = 20
    """Epochs of linear warm-up."""
    warmup_steps: int | None = None
    """Steps of linear warm-up, instead of epochs."""
    schedule: Schedule = "cosine"
    """cosine (each step), cosine-epoch, poly (power 0.9), half-cosine (constant, then cosine over
    the second half); all count from the first step, warm-up included."""
    rate_noise: tuple[float, ...] = ()
    """Begin and end of timm's noise on the learning rate, as shares of the steps."""
    weight_decay: float = 0.05
    """Of AdamW."""
    no_decay: Literal["1-d", "norm"] = "1-d"
    """Without weight decay: tensors with one dimension, or parameters of norms."""
    clip: float = 5.0
    """The largest norm of the gradients; 0 for any."""
    ema: float = 0.9998
    """Decay of the averaged weights, BatchNorm's statistics included; 0 for no average."""
    evaluate_every: int = 5
    """Epochs between two evaluations."""
    evaluate_all_from: int | None = None
    """From this epoch on every epoch is evaluated."""
    checkpointing: bool = False
    """Keeps less for the backward pass, computes more."""
    workers: int = 0
    """Data workers of each process."""
    seed: int = 42
    """Seed of all random numbers."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    devices: int = 1
    """Devices on each machine."""
    num_nodes: int = 1
    """Machines."""
    precision: str = "32-true"
    """32-true, bf16-mixed or 16-mixed."""

    def __post_init__(self) -> None:
        """Refuses values that no run can have."""
        kinds: dict[str, tuple[str, ...]] = {
            "task": tuple(_HEADS),
            "schedule": get_args(Schedule),
            "no_decay": ("1-d", "norm"),
            "precision": ("32-true", "bf16-mixed", "16-mixed"),
        }
        for name, known in kinds.items():
            if getattr(self, name) not in known:
                raise InputError(did_you_mean(getattr(self, name), known, kind=name))
        if self.head not in _HEADS[self.task]:
            raise InputError(
                f"head={self.head!r} with task={self.task!r}; expected one of {_HEADS[self.task]}"
            )
        positive = "epochs batch_size image_size repeat evaluate_every in_chans devices num_nodes"
        for name in (*positive.split(), "max_steps", "limit", "shard_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}={value}; expected >= 1")
        if self.limit is not None and self.task != "detection":
            raise InputError(f"limit={self.limit} with task={self.task!r}; only detection takes it")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed={self.seed}; expected from 0 to 4294967295")
        rates = "clip weight_decay min_rate warmup_rate head_rate"
        for name in (*rates.split(), "workers", "warmup_epochs", "warmup_steps"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise InputError(f"{name}={value}; expected >= 0")
        for name in ("crop", "crop_scale"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name)}; expected above 0, at most 1")
        for name in ("ema", "smoothing", "drop_path"):
            if not 0 <= (getattr(self, name) or 0) < 1:
                raise InputError(f"{name}={getattr(self, name)}; expected from 0 to below 1")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate={self.learning_rate}; expected > 0")
        if len(self.window) not in (1, 4) or min(self.window) < 1:
            raise InputError(f"window={self.window}; expected one number >= 1, or four")
        if len(self.rate_noise) not in (0, 2):
            raise InputError(f"rate_noise={self.rate_noise}; expected begin and end, or nothing")


def learning_rate(config: TrainConfig, step: int, per_epoch: int, total: int) -> float:
    """Gives the learning rate of a step, as the published trainers count (sections 3 to 5).

    Args:
        config: The run.
        step: From 0.
        per_epoch: Steps in an epoch.
        total: T, all steps.

    Returns:
        After a linear warm-up, for `cosine`, min + (peak - min)·(1 + cos(π step / T)) / 2: the
        cosine is not restarted after the warm-up.
    """
    peak, low = config.learning_rate, config.min_rate
    warmup = (
        config.warmup_epochs * per_epoch if config.warmup_steps is None else config.warmup_steps
    )
    if step < warmup:
        rate = config.warmup_rate + (peak - config.warmup_rate) * step / warmup
    elif config.schedule == "poly":
        rate = low + (peak - low) * (1 - step / total) ** 0.9
    else:
        at, span = step, total
        if config.schedule == "cosine-epoch":
            at, span = step // per_epoch, max(1, total // per_epoch)
        if config.schedule == "half-cosine":
            at, span = max(0, step - total // 2), total - total // 2
        rate = low + 0.5 * (peak - low) * (1 + math.cos(math.pi * at / span))
    if config.rate_noise and config.rate_noise[0] * total <= step < config.rate_noise[1] * total:
        generator = torch.Generator().manual_seed(42 + step)  # timm's seed, not the run's
        while abs(noise := torch.randn(1, generator=generator).item()) >= 0.67:
            pass
        rate += rate * noise
    return rate
