"""Finite differences: what a gradient must come to where the function is smooth (section 10.4)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tenfold.shared.errors import InputError


@torch.no_grad()
def finite_differences(
    loss: Callable[[], Tensor | float],
    tensor: Tensor,
    step: float = 1e-4,
    entries: Sequence[int] | None = None,
) -> Tensor:
    """Differentiates a function of a network by a weight, entry by entry, by central differences.

    Only a smooth loss has a limit: potentials, spike times (`slif`); not spike counts.

    Args:
        loss: Runs the network and gives a number; it must draw the same numbers at each call.
        tensor: What it depends on, for example `link.weight`; changed in place and put back.
        step: Half the distance of the two values.
        entries: Which entries of the flattened tensor; all by default.

    Returns:
        Of the tensor's shape; not a number where an entry was not asked for.

    Raises:
        InputError: For a step that is not positive, or an entry that does not exist.
    """
    if not step > 0:
        raise InputError(f"step={step}; expected > 0")
    flat = tensor.view(-1)
    made = torch.full((flat.numel(),), torch.nan, dtype=torch.float64)
    for entry in range(flat.numel()) if entries is None else entries:
        if not 0 <= entry < flat.numel():
            raise InputError(f"entries holds {entry}; expected from 0 to {flat.numel() - 1}")
        kept = flat[entry].clone()
        found = []
        for side in (1, -1):
            flat[entry] = kept + side * step
            found.append(float(loss()))
        flat[entry] = kept
        made[entry] = (found[0] - found[1]) / (2 * step)
    return made.reshape(tensor.shape)
