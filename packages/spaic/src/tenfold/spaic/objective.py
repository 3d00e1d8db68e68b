"""Losses of decoded outputs (section 10.1)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def standardised_cross_entropy(output: Tensor, label: Tensor) -> Tensor:
    """Cross entropy of outputs standardised over the whole batch, as the official examples do.

    (o − mean(o)) / (std(o) + 0.1), mean and deviation without gradient.

    Args:
        output: [batch, classes], for example spike counts.
        label: int64 [batch].
    """
    centre, spread = output.mean().detach(), output.std().detach()
    return F.cross_entropy((output - centre) / (spread + 0.1), label)


def rate_cross_entropy(output: Tensor, label: Tensor, scale: float = 10.0) -> Tensor:
    """Cross entropy of mean outputs of a leaky integrator, scaled to a useful range.

    Args:
        output: [batch, classes].
        label: int64 [batch].
        scale: The scale.
    """
    return F.cross_entropy(scale * output, label)


def accuracy(output: Tensor, label: Tensor) -> float:
    """Share of samples whose largest output is at the label; ties go to the lowest index.

    Args:
        output: [samples, classes].
        label: int64 [samples].
    """
    hit = output.cpu().numpy().argmax(1) == label.cpu().numpy()
    return float(torch.from_numpy(hit).double().mean())
