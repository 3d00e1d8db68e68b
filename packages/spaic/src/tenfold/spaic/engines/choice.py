"""Which engine runs a plan: the fastest that is exact for it."""

from typing import Any

import torch

from tenfold.shared.errors import InputError
from tenfold.spaic.engines.step import StepEngine
from tenfold.spaic.plan import Plan

LARGE = 500
"""Neurons from which on `auto` compiles a circuit, however short the run."""
LONG = 1000
"""Steps of a run from which on it does so, however small the circuit."""


def make_engine(
    plan: Plan, wanted: str, random: torch.Generator, steps: int = 0
) -> tuple[Any, str]:
    """Makes the engine of a plan.

    Args:
        plan: The plan.
        wanted: auto, step, scan or event.
        random: Where random numbers come from.
        steps: How long the run is.

    Returns:
        The engine, and in words which and why.

    Raises:
        InputError: If the wanted engine cannot run this network.
    """
    from tenfold.spaic.engines import event, scan

    if plan.ranks > 1:
        why_not = event.refusal(plan)
        if why_not is not None or wanted not in ("auto", "event"):
            told = why_not or f"engine {wanted!r} runs in one process"
            raise InputError(f"partition=True cannot run this network: {told}")
        return event.EventEngine(plan, random), f"event: over {plan.ranks} processes"
    reasons: dict[str, str] = {}
    for name, module in (("scan", scan), ("event", event)):
        why_not = module.refusal(plan)
        if why_not is None and wanted == "auto":
            why_not = _not_worth(name, plan, steps)
        if why_not is None and wanted in ("auto", name):
            made = scan.ScanEngine if name == "scan" else event.EventEngine
            return made(plan, random), f"{name}: {_REASON[name]}"
        reasons[name] = why_not or ""
    if wanted in reasons:
        raise InputError(f"engine {wanted!r} cannot run this network: {reasons[wanted]}")
    told = "; ".join(f"{name}: {why}" for name, why in reasons.items() if why)
    return StepEngine(plan, random), f"step ({told})" if told else "step: asked for"


def _not_worth(name: str, plan: Plan, steps: int) -> str | None:
    """Says why compiling would take longer than it saves; None if it is worth it."""
    if name == "scan":
        return None if plan.gradients else "without gradients the steps are as quick"
    neurons = sum(entry.group.num for entry in plan.groups.values())
    if neurons >= LARGE or steps >= LONG:
        return None
    return (
        f"{steps} steps of {neurons} neurons may take less time than compiling once; "
        "build(engine='event') compiles them"
    )


_REASON = {
    "scan": "layers one after the other, each over the whole time at once",
    "event": "a circuit of plain links, simulated by its spikes",
}
