"""Training: one plain loop through Lightning Fabric (reconstruction)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from tenfold.shared import compute
from tenfold.shared.errors import InputError
from tenfold.shared.progress import message, progress
from tenfold.tenet.data.cache import ShardedStore
from tenfold.tenet.data.scenario import HISTORY
from tenfold.tenet.data.scene import Batch, SceneStore, rotation
from tenfold.tenet.model import Forecast, ModelConfig, Tenet, model_config, world_logits
from tenfold.tenet.objective import (
    Classification,
    LossConfig,
    Targets,
    Winner,
    dense_loss,
    loss,
    ranking,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from tenfold.shared.runs import Run

Scenes = SceneStore | ShardedStore
RESIDENT_SHARE = 0.5  # of the GPU's free memory that the data may take


@dataclass(frozen=True)
class TrainConfig:
    """One run. No hyper-parameter of the paper is known: all of these are a reconstruction."""

    data: str = "generated:2000"
    """Where the scenes are: a cache of `preprocess`, a split (train, val) or folder of scenarios,
    sensor:FOLDER for sensor logs, or generated:N."""
    val: str = "generated:200:1"
    """The same for validation; none if empty."""
    size: str = "tenet-base"
    """tenet-tiny, tenet-base or tenet-large."""
    flow: bool = True
    """The Temporal Flow Header."""
    use_map: bool = True
    """Cross-attention to the map."""
    agent_attention: bool = True
    """Attention across agents."""
    laplace: bool = False
    """Laplace likelihood instead of smooth L1."""
    dense: bool = False
    """An auxiliary forecast of all agents."""
    kinematic: bool = False
    """Predict differences to motions along lanes instead of positions; for small data."""
    modes: int = 6
    """K."""
    worlds: bool = False
    """Train all scored agents together: mode k is a joint world."""
    max_agents: int = 32
    """Agents of a scene in training (the input-size strategy: fewer than in testing)."""
    max_lines: int = 64
    """Polylines of a scene in training."""
    val_agents: int = 64
    """Agents of a scene in validation."""
    val_lines: int = 128
    """Polylines of a scene in validation."""
    winner: Winner = "endpoint"
    """How the winning mode is chosen."""
    classification: Classification = "cross-entropy"
    """How the probabilities are trained."""
    classification_weight: float = 1.0
    """Weight of the classification loss."""
    likeliest_weight: float = 0.0
    """Weight of the regression of the most probable mode, beside the winner's."""
    evolving: float = 0.0
    """The share of the training over which the modes pulled to the truth fall from K to one."""
    flow_weight: float = 0.5
    """Weight of the Temporal Flow Header's loss."""
    flow_all_modes: bool = False
    """Reconstruct the past from every mode, not from the winner only; costs more."""
    epochs: int = 60
    """Passes over the data."""
    batch_size: int = 128
    """Scenes a step, over all devices."""
    learning_rate: float = 1e-3
    """The peak."""
    final_learning_rate: float = 1e-5
    """The end of the cosine."""
    warm_up: int | None = None
    """Epochs of linear warm-up; by default 10, or 5 % of the steps in runs below 50 epochs."""
    weight_decay: float = 1e-2
    """Of matrices; biases, norms and embeddings have none."""
    clip: float = 5.0
    """The largest norm of a gradient."""
    dropout: float = 0.1
    """Of each residual branch."""
    mirror: bool = False
    """Augmentation: mirror half of the scenes."""
    rotate: float = 0.0
    """Augmentation: turn scenes by up to so many degrees."""
    stretch: float = 0.0
    """Augmentation: scale lengths and speeds of a scene by up to this share."""
    drop: float = 0.0
    """Augmentation: the share of agents (never the focal one) and polylines left out."""
    forget: float = 0.0
    """Augmentation: the share of scenes whose history begins late, at any step."""
    validate_every: int = 1
    """Epochs between two validations."""
    patience: int = 0
    """Stop after so many validations without a lower brier-minFDE6, and keep the weights of the
    lowest; 0 trains to the end and keeps the last."""
    compile: bool = False
    """Compile the model (fixed sizes, no packing)."""
    resident: bool = True
    """Keep the data on the GPU if it fits."""
    seed: int = 0
    """Seed of all random numbers."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    devices: int = 1
    """Devices on each machine."""
    num_nodes: int = 1
    """Machines."""
    precision: str = "auto"
    """32-true or bf16-mixed; auto is bf16-mixed on a GPU. Losses are in float32."""

    def __post_init__(self) -> None:
        """Refuses values that no run can have."""
        for name in ("epochs", "batch_size", "validate_every", "max_agents", "val_agents"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}; expected >= 1")
        if self.patience < 0 or (self.patience and not self.val):
            raise InputError(f"patience={self.patience}, val={self.val!r}; expected >= 0, with val")
        if not 0 < self.final_learning_rate <= self.learning_rate < math.inf:
            raise InputError(
                f"learning_rate={self.learning_rate}, final_learning_rate="
                f"{self.final_learning_rate}; expected 0 < final_learning_rate <= learning_rate"
            )
        for name in ("drop", "stretch"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}; expected from 0 to below 1")
        if not 0 <= self.forget <= 1:
            raise InputError(f"forget={self.forget}; expected a share from 0 to 1")
        if not (self.rotate >= 0 and self.clip > 0):
            raise InputError(
                f"rotate={self.rotate}, clip={self.clip}; expected rotate >= 0 and clip > 0"
            )
        if self.worlds and self.classification != "cross-entropy":
            raise InputError(
                f"worlds with classification={self.classification!r}; expected 'cross-entropy'"
            )
        self.model()  # refuses sizes that are not known

    def model(self) -> ModelConfig:
        """The network of this run."""
        return model_config(
            self.size,
            flow=self.flow,
            use_map=self.use_map,
            agent_attention=self.agent_attention,
            laplace=self.laplace,
            dense=self.dense,
            kinematic=self.kinematic,
            modes=self.modes,
            dropout=self.dropout,
        )

    def loss(self) -> LossConfig:
        """The loss of this run."""
        return LossConfig(
            winner=self.winner,
            classification=self.classification,
            classification_weight=self.classification_weight,
            flow_weight=self.flow_weight,
            flow_all_modes=self.flow_all_modes,
            likeliest_weight=self.likeliest_weight,
            evolving=self.evolving,
        )


def make_fabric(config: TrainConfig) -> Fabric:
    """Gives the Fabric of a run."""
    precision = config.precision
    if precision == "auto":
        gpu = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
        precision = "bf16-mixed" if gpu else "32-true"
    return compute.fabric(config.device, config.devices, config.num_nodes, precision)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Splits parameters: matrices decay; biases, norms and embeddings do not."""
    decaying: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        plain = parameter.ndim < 2 or name.endswith("_embed")
        (free if plain else decaying).append(parameter)
    return [
        {"params": decaying, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Gives the rate of a step: linear warm-up, then a cosine."""
    total = config.epochs * steps_per_epoch
    if config.warm_up is not None:
        warm = config.warm_up * steps_per_epoch
    elif config.epochs >= 50:
        warm = 10 * steps_per_epoch
    else:
        warm = max(1, round(0.05 * total))
    if step < warm:
        return config.learning_rate * (step + 1) / warm
    share = (step - warm) / max(total - warm, 1)
    low = config.final_learning_rate
    return low + (config.learning_rate - low) * 0.5 * (1 + math.cos(math.pi * share))


def epoch_order(scenes: int, config: TrainConfig, epoch: int, rank: int, ranks: int) -> Iterator:
    """Yields the scenes of each step of this process; a function of (seed, epoch, rank) only."""
    order = np.random.default_rng([config.seed, epoch]).permutation(scenes)
    size = min(config.batch_size, scenes)
    for start in range(0, scenes - size + 1, size):
        part = order[start : start + size][rank::ranks]
        if len(part):
            yield part


def targets_of(batch: Batch, chosen: Tensor | None) -> Targets:
    """Gives the truth of the agents that are forecast.

    Args:
        batch: The scenes.
        chosen: bool [B, A]; None for the focal agents.
    """
    if chosen is None:
        return Targets(
            batch.future[:, 0], batch.future_valid[:, 0], batch.state[:, 0], batch.valid[:, 0]
        )
    return Targets(
        batch.future[chosen],
        batch.future_valid[chosen],
        batch.state[chosen],
        batch.valid[chosen],
        chosen.nonzero(as_tuple=True)[0],
    )


def batch_loss(
    model: nn.Module, batch: Batch, config: TrainConfig, progress: float = 1.0
) -> tuple[Tensor, dict[str, Tensor], Forecast]:
    """Runs the model on a batch and computes its loss; ``progress`` is the share that is done."""
    chosen = batch.scored & batch.valid[:, :, -1] if config.worlds else None
    targets, weights = targets_of(batch, chosen), config.loss()

    def winners(trajectories: Tensor) -> Tensor:
        worlds = None if chosen is None else len(chosen)
        return ranking(trajectories, targets, weights.winner, worlds)[:, 0]

    forecast = model(batch, chosen, None if weights.flow_all_modes else winners)
    logits = None if chosen is None else world_logits(forecast, chosen)
    total, parts = loss(forecast, targets, weights, logits, progress)
    if forecast.dense is not None:
        dense = dense_loss(forecast.dense, batch.future, batch.future_valid)
        total, parts = total + dense, parts | {"dense": dense.detach()}
    return total, parts, forecast


def augment(batch: Batch, config: TrainConfig, rng: np.random.Generator) -> Batch:
    """Mirrors, turns, stretches and thins out scenes, in place."""
    count = len(batch.state)
    device = batch.state.device
    if config.mirror:
        flip = torch.from_numpy(rng.random(count) < 0.5).to(device)
        sign = torch.where(flip, -1.0, 1.0)
        batch.state[..., [1, 2, 4]] *= sign[:, None, None, None]
        batch.future[..., 1] *= sign[:, None, None]
        batch.lines[..., 1] *= sign[:, None, None]
    if config.rotate:
        angles = np.deg2rad(rng.uniform(-config.rotate, config.rotate, count))
        turn = torch.from_numpy(np.stack([rotation(a) for a in angles])).float().to(device)
        for part in (batch.state[..., :2], batch.state[..., 3:], batch.future, batch.lines):
            part[:] = torch.einsum("b...i,bij->b...j", part, turn)
        angle = torch.from_numpy(angles).float().to(device)
        batch.state[..., 2] -= angle[:, None, None] * batch.valid
    if config.stretch:
        by = torch.from_numpy(1 + rng.uniform(-config.stretch, config.stretch, count))
        by = by.float().to(device)[:, None, None, None]
        for part in (batch.state[..., :2], batch.state[..., 3:], batch.future, batch.lines):
            part *= by
        batch.half_width *= by[:, :, 0, 0]
    if config.forget:
        first = rng.integers(0, HISTORY, count) * (rng.random(count) < config.forget)
        late = np.arange(HISTORY) >= first[:, None]
        batch.valid &= torch.from_numpy(late).to(device)[:, None]
    if config.drop:
        away = torch.from_numpy(rng.random(batch.category.shape) < config.drop).to(device)
        away[:, 0] = False
        batch.valid &= ~away[..., None]
        gone = torch.from_numpy(rng.random(batch.line_valid.shape) < config.drop).to(device)
        batch.line_valid &= ~gone
    return batch


class Training:
    """One training; a checkpoint an epoch, from which it goes on to the same numbers.

    Args:
        config: The run.
        scenes: To train on.
        val: To validate on.
        fabric: Where to run; by default as the configuration says.
    """

    def __init__(
        self,
        config: TrainConfig,
        scenes: Scenes,
        val: Scenes | None = None,
        fabric: Fabric | None = None,
    ) -> None:
        self.config, self.val = config, val
        self.fabric = fabric or make_fabric(config)
        compute.seed_everything(config.seed)
        self.network = Tenet(config.model(), packed=not config.compile)
        groups = parameter_groups(self.network, config.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
        runnable: Any = torch.compile(self.network) if config.compile else self.network
        self.model, self.optimizer = self.fabric.setup(runnable, optimizer)
        self.scenes = self._placed(scenes)
        self.epoch = -1
        self.best: dict[str, Any] = {}  # with patience: scores, weights, validations since then

    def _placed(self, scenes: Scenes) -> Scenes:
        """Puts the data onto the GPU, if there is one and it fits."""
        device = self.fabric.device
        if device.type != "cuda" or not self.config.resident:
            return scenes
        free, _ = torch.cuda.mem_get_info(device)
        if scenes.nbytes > RESIDENT_SHARE * free:
            message(f"the data ({scenes.nbytes / 2**30:.1f} GiB) stays in main memory")
            return scenes
        store = scenes.in_memory() if isinstance(scenes, ShardedStore) else scenes
        return store.to(device)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        return max(1, len(self.scenes) // min(self.config.batch_size, len(self.scenes)))

    def run(self, run: Run | None = None) -> dict[str, float]:
        """Trains to the end.

        Args:
            run: The folder for metrics and checkpoints; one that holds a checkpoint is gone on
                with.

        Returns:
            The last validation scores (with patience those of the best weights), or the last
            training loss.
        """
        config = self.config
        if run is not None and (saved := run.load()):
            weights, state, self.epoch = saved
            self.network.load_state_dict(weights)
            self.optimizer.load_state_dict(state["optimizer"])
            self.best = state["best"]
        if run is not None:
            run.rewind(self.epoch)
        found: dict[str, float] = {}
        with progress("training", total=config.epochs) as bar:
            bar.update(self.epoch + 1)
            while self.epoch + 1 < config.epochs and not self._waited_enough():
                self.epoch += 1
                started = time.perf_counter()
                found = self._epoch()
                seconds = time.perf_counter() - started
                cost = {"seconds": seconds, "scenes_per_second": len(self.scenes) / seconds}
                last = self.epoch + 1 == config.epochs
                if self.val is not None and (last or (self.epoch + 1) % config.validate_every == 0):
                    scores = self.validate()
                    found |= scores
                    self._remember(scores)
                if run is not None:
                    run.log(epoch=self.epoch, **found, **cost)
                    self._save(run)
                shown = {k: found[k] for k in ("loss", "brier-minFDE6") if k in found}
                bar.update(**shown, seconds=seconds)  # type: ignore[arg-type]
        if self.best:
            self.network.load_state_dict(self.best["weights"])
            found = self.best["scores"]
            if run is not None:
                self._save(run)
        return found

    def _save(self, run: Run) -> None:
        """Writes the checkpoint."""
        state = {"optimizer": self.optimizer.state_dict(), "best": self.best}
        run.save(self.network.state_dict(), state, self.epoch)

    def _remember(self, scores: dict[str, float]) -> None:
        """Keeps the weights if they are the best so far, else counts."""
        if not self.config.patience:
            return
        score = scores["brier-minFDE6"]
        if not self.best or score < self.best["score"]:
            weights = {k: v.detach().cpu().clone() for k, v in self.network.state_dict().items()}
            self.best = {"score": score, "scores": scores, "weights": weights, "since": 0}
        else:
            self.best = self.best | {"since": self.best["since"] + 1}

    def _waited_enough(self) -> bool:
        """Says whether the patience is at its end."""
        return bool(self.best) and self.best["since"] >= self.config.patience

    def _epoch(self) -> dict[str, float]:
        """Makes one pass over the data."""
        config, fabric = self.config, self.fabric
        rank, ranks = fabric.global_rank, fabric.world_size
        # All random numbers of an epoch follow from (seed, epoch, rank): a resumed run needs no
        # generator state, and repeats the epoch that was broken off.
        torch.manual_seed(config.seed * 1_000_003 + self.epoch * 1_009 + rank)
        rng = np.random.default_rng([config.seed, self.epoch, rank, 1])
        self.model.train()
        sums: dict[str, Tensor] = {}
        total_steps = config.epochs * self.steps_per_epoch
        order = epoch_order(len(self.scenes), config, self.epoch, rank, ranks)
        for index, rows in enumerate(order):
            step = self.epoch * self.steps_per_epoch + index
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(config, step, self.steps_per_epoch)
            batch = self.scenes.batch(rows, config.max_agents, config.max_lines, config.compile)
            batch = augment(batch.to(fabric.device), config, rng)
            total, parts, _ = batch_loss(self.model, batch, config, step / total_steps)
            if not torch.isfinite(total):
                raise InputError(
                    f"the loss is {total.item()} in epoch {self.epoch}; "
                    "lower --learning-rate or look for wrong data with `data verify`"
                )
            fabric.backward(total)
            fabric.clip_gradients(self.network, self.optimizer, max_norm=config.clip)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            for name, value in {"loss": total.detach(), **parts}.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value
        return {name: float(value) / (index + 1) for name, value in sums.items()}

    def validate(self) -> dict[str, float]:
        """Scores the present weights on the validation scenes, by the challenge's rules."""
        from tenfold.tenet.evaluation import score
        from tenfold.tenet.prediction import PredictConfig, predict
        from tenfold.tenet.scenes import truth_of_store

        assert self.val is not None
        config = PredictConfig(
            self.config.val_agents, self.config.val_lines, worlds=self.config.worlds
        )
        found = score(predict(self.network, self.val, config), truth_of_store(self.val))
        return found.single | (found.world or {})


def load_model(run: Run) -> tuple[Tenet, TrainConfig]:
    """Loads the network of a run, in evaluation mode.

    Raises:
        InputError: If the run has no checkpoint yet.
    """
    config = run.config(TrainConfig)
    saved = run.load()
    if saved is None:
        raise InputError(f"{run.folder} has no checkpoint yet; go on with `train --resume`")
    model = Tenet(config.model())
    model.load_state_dict(saved[0])
    return model.eval(), config
