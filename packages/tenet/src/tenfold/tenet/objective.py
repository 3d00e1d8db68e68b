"""The loss: winning mode, its number as the class, its past reconstructed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, smooth_l1_loss

from tenfold.shared.errors import InputError
from tenfold.tenet.model import Forecast

SOFT_METRES = 2.0
"""Scale of the soft classification: a mode that ends so much farther has 1/e of the share."""
PARTS = ("loss", "reg", "cls", "likeliest", "flow", "dense")
"""The names of the loss and its parts in the lines of metrics.jsonl; all others are scores."""
Winner = Literal["endpoint", "ade"]
Classification = Literal["cross-entropy", "soft", "max-margin"]


@dataclass(frozen=True)
class LossConfig:
    """Weights and variants of the loss; all of it reconstruction."""

    winner: Winner = "endpoint"
    """The winner: the mode that ends nearest to the truth, or has the smallest mean error."""
    classification: Classification = "cross-entropy"
    """How the logits are trained: cross-entropy of the winner, soft (of all modes by how near they
    end, which few data need), or max-margin in the manner of LaneGCN."""
    classification_weight: float = 1.0
    """Weight of the classification loss."""
    flow_weight: float = 0.5
    """Weight of the Temporal Flow Header's loss."""
    flow_all_modes: bool = False
    """Reconstruct the past from every mode, not from the winner only."""
    likeliest_weight: float = 0.0
    """Weight of the regression of the most probable mode, whichever wins; lowers minFDE1 where data
    are few."""
    evolving: float = 0.0
    """The share of the training over which the number of modes that are pulled to the truth falls
    from K to one. Without it a short training may end with one mode that always wins."""
    dense_weight: float = 1.0
    """Weight of the auxiliary forecast of all agents, if the model has that head."""

    def __post_init__(self) -> None:
        """Refuses weights below zero."""
        for name in ("classification_weight", "flow_weight", "dense_weight", "likeliest_weight"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}={getattr(self, name)}; expected >= 0")
        if not 0 <= self.evolving <= 1:
            raise InputError(f"evolving={self.evolving}; expected a share from 0 to 1")


@dataclass
class Targets:
    """The truth of n agents, in the scene frame."""

    future: Tensor
    """[n, 60, 2]."""
    future_valid: Tensor
    """bool [n, 60]."""
    history: Tensor
    """[n, 50, 5]: x, y, heading, vx, vy."""
    history_valid: Tensor
    """bool [n, 50]."""
    group: Tensor | None = None
    """int64 [n]: the scene of each agent, when modes are worlds that are won together."""


def ranking(
    trajectories: Tensor, targets: Targets, rule: Winner = "endpoint", worlds: int | None = None
) -> Tensor:
    """Ranks the modes of each agent, the winner first; no gradient.

    Args:
        trajectories: [n, K, 60, 2].
        targets: The truth; an agent without any valid future step keeps the modes' order.
        rule: By the last valid step, or by the mean over the valid steps.
        worlds: The number of scenes, if the agents of a scene win together.

    Returns:
        int64 [n, K].
    """
    with torch.no_grad():
        gap = (trajectories - targets.future[:, None]).norm(dim=-1)
        valid = targets.future_valid
        if rule == "endpoint":
            last = valid.shape[1] - 1 - valid.flip(1).int().argmax(dim=1)
            cost = gap.gather(2, last[:, None, None].expand(-1, gap.shape[1], 1)).squeeze(2)
        else:
            counted = torch.where(valid[:, None], gap, 0.0).sum(dim=2)
            cost = counted / valid.sum(dim=1, keepdim=True).clamp_min(1)
        cost = torch.where(valid.any(dim=1, keepdim=True), cost, 0.0)
        if worlds is not None and targets.group is not None:
            total = cost.new_zeros(worlds, cost.shape[1]).index_add(0, targets.group, cost)
            return total.argsort(dim=1, stable=True)[targets.group]
        return cost.argsort(dim=1, stable=True)


def loss(
    forecast: Forecast,
    targets: Targets,
    config: LossConfig | None = None,
    world_logits: Tensor | None = None,
    progress: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the training loss, in float32.

    ``L = L_reg + w_cls L_cls + w_tf L_tf``: smooth L1 of the winner (or the Laplace negative
    log-likelihood), cross-entropy of its number, smooth L1 of the past reconstructed from it.

    Args:
        forecast: From the network in training mode.
        targets: The truth.
        config: Weights and variants.
        world_logits: [S, K]: with it the agents of a scene (``targets.group``) win together.
        progress: The share of the training that is done, for ``evolving``.

    Returns:
        The loss, and its parts detached: reg, cls, flow.
    """
    config = config or LossConfig()
    worlds = None if world_logits is None else len(world_logits)
    ranked = ranking(forecast.trajectories, targets, config.winner, worlds)
    best = ranked[:, 0]
    rows = torch.arange(len(best), device=best.device)
    valid = targets.future_valid
    known_future = torch.where(valid[..., None], targets.future, 0.0)  # no gradient through NaN
    modes = ranked.shape[1]
    left = 1.0 if config.evolving == 0 else min(progress / config.evolving, 1.0)
    pulled = ranked[:, : max(1, round(modes - (modes - 1) * left))]
    reg = _regression(forecast, pulled, known_future, valid)
    known = valid.any(dim=1)
    if world_logits is not None and targets.group is not None:
        class_of = best.new_zeros(len(world_logits)).index_copy(0, targets.group, best)
        cls = cross_entropy(world_logits.float(), class_of)
    elif config.classification == "max-margin":
        cls = _max_margin(forecast, targets, best)
    else:
        wanted = best
        if config.classification == "soft":
            wanted = (-_end_distances(forecast, targets) / SOFT_METRES).softmax(dim=1)
        each = cross_entropy(forecast.logits.float(), wanted, reduction="none")
        cls = torch.where(known, each, 0.0).sum() / known.sum().clamp_min(1)
    total = reg + config.classification_weight * cls
    parts = {"reg": reg.detach(), "cls": cls.detach()}
    if config.likeliest_weight:
        logits = forecast.logits
        if world_logits is not None and targets.group is not None:
            logits = world_logits[targets.group]
        first = _regression(forecast, logits.argmax(dim=1, keepdim=True), known_future, valid)
        total = total + config.likeliest_weight * first
        parts["likeliest"] = first.detach()
    if forecast.history is not None:
        past = torch.where(targets.history_valid[..., None], targets.history[..., :2], 0.0)
        if forecast.history.shape[-1] == 4:
            angle = targets.history[..., 2:3]
            past = torch.cat([past, angle.cos(), angle.sin()], dim=-1)
        seen = forecast.history
        if seen.shape[1] > 1 and not config.flow_all_modes:
            seen = seen[rows, best][:, None]
        each = smooth_l1_loss(seen.float(), past[:, None].expand_as(seen).float(), reduction="none")
        flow = _mean(each, targets.history_valid[:, None].expand(each.shape[:-1]))
        total = total + config.flow_weight * flow
        parts["flow"] = flow.detach()
    return total, parts


def dense_loss(forecast: Tensor, future: Tensor, valid: Tensor) -> Tensor:
    """Smooth L1 of the auxiliary forecast of all agents but the focal one.

    Args:
        forecast: [B, A, 60, 2].
        future: [B, A, 60, 2].
        valid: bool [B, A, 60].
    """
    each = smooth_l1_loss(forecast[:, 1:], future[:, 1:], reduction="none")
    return _mean(each, valid[:, 1:])


def _regression(forecast: Forecast, modes: Tensor, future: Tensor, valid: Tensor) -> Tensor:
    """Smooth L1 (or the Laplace negative log-likelihood) of chosen modes, int64 [n, m]."""
    rows = torch.arange(len(modes), device=modes.device)[:, None]
    paths = forecast.trajectories[rows, modes].float()
    truth = future[:, None].expand_as(paths)
    if forecast.scales is not None:
        b = forecast.scales[rows, modes].float()
        each = (2 * b).log() + (paths - truth).abs() / b
    else:
        each = smooth_l1_loss(paths, truth, reduction="none")
    return _mean(each, valid[:, None].expand(paths.shape[:-1]))


def _max_margin(forecast: Forecast, targets: Targets, best: Tensor) -> Tensor:
    """A hinge of 0.2 between the winner's logit and that of each mode that ends clearly worse."""
    with torch.no_grad():
        far = _end_distances(forecast, targets)
        nearest = far.gather(1, best[:, None])
        known = targets.future_valid.any(dim=1, keepdim=True)
        active = (far - nearest > 0.2) & (nearest < 2.0) & known
    margin = forecast.logits.gather(1, best[:, None]) - forecast.logits
    hinge = torch.where(active, (0.2 - margin).clamp_min(0.0), 0.0)
    return hinge.sum() / active.sum().clamp_min(1)


@torch.no_grad()
def _end_distances(forecast: Forecast, targets: Targets) -> Tensor:
    """Gives how far each mode ends from the truth at its last valid step, [n, K]."""
    valid = targets.future_valid
    last = valid.shape[1] - 1 - valid.flip(1).int().argmax(dim=1)
    rows = torch.arange(len(last), device=last.device)
    gap = forecast.trajectories[rows, :, last] - targets.future[rows, last][:, None]
    return gap.norm(dim=-1).float()


def _mean(each: Tensor, valid: Tensor) -> Tensor:
    """Gives the mean over valid steps and coordinates; what is not valid has no gradient."""
    counted = torch.where(valid[..., None], each, 0.0).sum()
    return counted / (valid.sum().clamp_min(1) * each.shape[-1])
