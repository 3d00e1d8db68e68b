"""The training loop of all tasks, as plain as it can be."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from timm.utils import ModelEmaV3
from torch import nn

from tenfold.emo.settings import TrainConfig, learning_rate
from tenfold.emo.tasks import Task, batches_of, steps_per_epoch, train_loader
from tenfold.shared import compute
from tenfold.shared.files import write_atomic
from tenfold.shared.progress import message, progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from tenfold.shared.runs import Run


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Divides the trained parameters by weight decay and factor of the learning rate.

    Args:
        model: The network.
        config: `no_decay`: `1-d` frees tensors with one dimension (section 3), `norm` the
            parameters with "norm" in their name, as published (sections 4 and 5): the norms of the
            blocks, but not the stem's first BatchNorm (`convs.0.1`) nor those of necks and heads.

    Returns:
        Groups for an optimiser, with `scale`, the factor of the learning rate.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        free = parameter.ndim < 2 if config.no_decay == "1-d" else "norm" in name
        classifier = config.task == "classification"
        own = not name.startswith("head.") if classifier else name.startswith("backbone.")
        key = 0.0 if free else config.weight_decay, 1.0 if own else config.head_rate
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "scale": scale}
        for (decay, scale), parameters in groups.items()
    ]


@torch.no_grad()
def repair_statistics(model: nn.Module) -> int:
    """Replaces NaN by 0 and infinities by ±1 in BatchNorm's running statistics (section 2.4).

    Args:
        model: The network.

    Returns:
        How many numbers were replaced.
    """
    replaced = 0
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for values in (module.running_mean, module.running_var):
                if values is not None and not values.isfinite().all():
                    replaced += int((~values.isfinite()).sum())
                    values.nan_to_num_(nan=0.0, posinf=1.0, neginf=-1.0)
    return replaced


def train(
    task: Task,
    fabric: Fabric,
    run: Run | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
) -> tuple[nn.Module, nn.Module | None, dict[str, Any]]:
    """Trains, from the start or from the checkpoint of `run`.

    Args:
        task: The task.
        fabric: Where to run.
        run: The folder of the run; without it nothing is written.
        on_epoch: Called after each epoch with its number and metrics.

    Returns:
        The network, its average (or None), and the result: `last` and `best` metrics (of the
        averaged network under `ema_…`), `best_epoch`, `epochs`, `steps`, `images_per_second`,
        `skipped` steps. The best epoch is that of the average's metric where there is an average;
        its weights are in the run's `best.safetensors`.
    """
    config = task.config
    compute.seed_everything(config.seed + fabric.local_rank)
    plain = task.model()
    repair_statistics(plain)
    groups = parameter_groups(plain, config)
    optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.999), eps=1e-8)
    loader = train_loader(task, fabric.global_rank, fabric.world_size)
    per_epoch = steps_per_epoch(task, loader, fabric.world_size)
    total = config.max_steps or config.epochs * per_epoch
    epochs = -(-total // per_epoch)
    start, skipped = 0, 0
    best: dict[str, Any] = {}
    saved = run.load() if run else None
    if saved:
        weights, state, epoch = saved
        plain.load_state_dict(weights)
        start = epoch + 1
    model, wrapped = fabric.setup(plain, optimiser)
    # Only now: the setup gives every process the weights of the first one.
    average = ModelEmaV3(plain, config.ema).eval() if config.ema else None
    if hasattr(plain, "loss"):
        model.mark_forward_method("loss")
    if saved:
        wrapped.load_state_dict(state["optimiser"])
        if average is not None:
            average.module.load_state_dict(state["average"])
        fabric.strategy.precision.load_state_dict(state["precision"])
        best, skipped = state["best"], state["skipped"]
    if run:
        run.rewind(start - 1)
    batches: Any = fabric.setup_dataloaders(loader, use_distributed_sampler=False)
    metrics: dict[str, float] = {}
    speed, step = 0.0, start * per_epoch - 1
    with progress("training", total=epochs) as bar:
        bar.update(start)
        for epoch in range(start, epochs):
            # By the epoch, so that every process of a resumed run draws what it would have drawn.
            numbers = repr((config.seed, epoch, fabric.global_rank)).encode()
            compute.seed_everything(zlib.crc32(numbers))
            model.train()
            _set_epoch(batches, epoch)
            began, images, losses, counted = time.perf_counter(), 0, 0.0, 0
            steps = range(epoch * per_epoch, min((epoch + 1) * per_epoch, total))
            for step, batch in zip(steps, batches_of(batches), strict=False):
                rate = learning_rate(config, step, per_epoch, total)
                for group in optimiser.param_groups:
                    group["lr"] = rate * group["scale"]
                parts = task.loss(model, batch)
                loss = torch.stack(list(parts.values())).sum()
                if not _finite_everywhere(loss, fabric):
                    skipped += 1
                    continue
                wrapped.zero_grad()
                fabric.backward(loss)
                if config.clip:
                    fabric.clip_gradients(
                        model, wrapped, max_norm=config.clip, error_if_nonfinite=False
                    )
                wrapped.step()
                if average is not None:
                    average.update(plain)
                images += config.batch_size * fabric.world_size
                losses += loss.item()
                counted += 1
            _share_buffers(fabric, plain, None if average is None else average.module)
            repair_statistics(plain)
            speed = images / (time.perf_counter() - began)
            metrics = {"loss": losses / max(counted, 1), "learning_rate": rate}
            if _is_due(config, epoch, epochs):
                model.eval()
                measured = task.evaluate(plain.eval(), fabric)
                metrics |= measured
                if average is not None:
                    averaged = task.evaluate(average.module, fabric)
                    metrics |= {f"ema_{name}": value for name, value in averaged.items()}
                # As published, it is the average that counts where there is one.
                score = metrics[task.metric if average is None else f"ema_{task.metric}"]
                if not best or score > best["score"] or best["score"] != best["score"]:
                    best = {"score": score, "epoch": epoch, "metrics": metrics}
                    if run:
                        chosen = plain if average is None else average.module
                        write_weights(chosen, run.folder / "best.safetensors")
            if run:
                run.log(epoch=epoch, steps=step + 1, images_per_second=round(speed, 1), **metrics)
                state = {
                    "optimiser": wrapped.state_dict(),
                    "precision": fabric.strategy.precision.state_dict(),  # float16: its scale
                    "best": best,
                    "skipped": skipped,
                }
                if average is not None:
                    state["average"] = average.module.state_dict()
                run.save(plain.state_dict(), state, epoch)
            if on_epoch:
                on_epoch(epoch, metrics)
            shown: dict[str, Any] = {k: round(v, 4) for k, v in metrics.items()}
            bar.update(**shown)
    if skipped:
        message(f"{skipped} steps were skipped: their loss was not finite")
    result = {
        "last": metrics,
        "best": best.get("metrics", metrics),
        "best_epoch": best.get("epoch"),
        "epochs": epochs,
        "steps": step + 1,
        "images_per_second": round(speed, 1),
        "skipped": skipped,
    }
    return plain.eval(), None if average is None else average.module, result


def write_weights(model: nn.Module, path: Path) -> None:
    """Writes a network's weights, in the main process only, as a whole file or not at all.

    Args:
        model: The network.
        path: A `.safetensors` file.
    """
    if compute.is_main_process():
        from safetensors.torch import save

        weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
        write_atomic(path, save(weights))


def _share_buffers(fabric: Fabric, *models: nn.Module | None) -> None:
    """Gives every process the buffers (BatchNorm's statistics) of the first one."""
    if fabric.world_size == 1:
        return
    for model in models:
        for buffer in model.buffers() if model is not None else ():
            torch.distributed.broadcast(buffer, 0)


def _is_due(config: TrainConfig, epoch: int, epochs: int) -> bool:
    """Says whether an epoch is evaluated; the last always is."""
    every = config.evaluate_all_from is not None and epoch + 1 >= config.evaluate_all_from
    return every or (epoch + 1) % config.evaluate_every == 0 or epoch + 1 == epochs


def _set_epoch(loader: Any, epoch: int) -> None:
    """Tells sampler and data the epoch, on which their random numbers depend."""
    parts: tuple[Any, Any] = loader.dataset, getattr(loader, "sampler", None)
    for part in parts:
        if hasattr(part, "epoch"):
            part.epoch = epoch


def _finite_everywhere(loss: torch.Tensor, fabric: Fabric) -> bool:
    """Says whether the loss is finite in every process: all skip a step, or none does."""
    good = loss.detach().isfinite().float()
    if fabric.world_size > 1:
        good = torch.as_tensor(fabric.all_reduce(good, reduce_op="mean"))
    return good.item() == 1
